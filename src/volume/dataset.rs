//! The scans of a dataset folder: which image and label files belong together, their order, and the classes of the
//! labels.
//!
//! A folder has either file names after a pattern (`image_{id}.nii.gz`), or a `dataset.json` and `imagesTr`: nnU-Net, or the
//! Medical Segmentation Decathlon; or a layout that is known by its names, as those of KiTS and BIDS are.

use super::nifti;
use crate::error::{Error, Result};
use crate::text;
use pattern::{Matches, Pattern};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

mod bids;
mod decathlon;
pub mod description;
mod layouts;
mod nnunet;
mod pattern;

pub use description::Described;

/// What images are called where nothing else is said.
const USUAL_IMAGE: &str = "image_{id}.nii.gz";
/// What the labels of a folder are taken for that does not say: those of the abdominal datasets of the field.
const USUAL_CLASSES: [(&str, i32); 4] = [("liver", 1), ("right_kidney", 2), ("left_kidney", 3), ("spleen", 4)];

/// Class indices are bytes, and 0 is background.
const MOST_CLASSES: usize = 255;

/// Section `[data]` of the configuration. A folder that describes its files itself (nnU-Net, Decathlon) does not use the patterns.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Pattern of the image files, for instance `image_{id}.nii.gz`, with optional subfolders (`images/{id}.nii.gz`,
    /// `{id}/ct.nii.gz`); `*` stands for any text. `.nii`, `.nii.gz` and the `.hdr` of a pair match, whichever of them the pattern has.
    pub image: String,
    /// Pattern of the label files; empty if there are none.
    pub label: String,
    /// Label value of each class, by name. Empty: as the dataset's `dataset.json` names them, and where there is none
    /// [`Config::usual_classes`].
    #[serde(default)]
    pub classes: BTreeMap<String, i32>,
    /// Label value of voxels without annotation; `None`: as `dataset.json` says, and otherwise every voxel is annotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<i32>,
    /// The dataset's name in `src/report/published.toml`, whose rows then stand beside an evaluation; empty: none do.
    #[serde(default)]
    pub benchmark: String,
}

/// One scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Part of the file name that identifies the scan.
    pub id: String,
    /// Path of the image.
    pub image: PathBuf,
    /// Path of the label map, if there is one.
    pub label: Option<PathBuf>,
}

/// All scans of a folder, in the natural order of their ids (2 before 10, `a2` before `a10`, numbers before text).
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The folder that was opened.
    pub folder: PathBuf,
    /// The scans in order.
    pub cases: Vec<Case>,
    /// Label value of each class, by name.
    pub classes: BTreeMap<String, i32>,
    /// Label value of voxels that nobody has annotated.
    pub ignore: Option<i32>,
    /// Whether the classes are those of the configuration or of `dataset.json`, and not [`Config::usual_classes`].
    pub named: bool,
    /// How the folder was read, a sentence each.
    pub notes: Vec<String>,
    /// What is there and was not read.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// A dataset without scans.
    pub fn empty() -> Self {
        Self {
            folder: PathBuf::new(),
            cases: vec![],
            classes: BTreeMap::new(),
            ignore: None,
            named: true,
            notes: vec![],
            warnings: vec![],
        }
    }

    /// Calls classes by their values where label maps hold not exactly those that [`Config::usual_classes`] names.
    pub fn call_by_values(&mut self, values: &BTreeSet<i32>) {
        let values: Vec<i32> =
            values.iter().copied().filter(|value| *value != 0 && Some(*value) != self.ignore).collect();
        let is_usual = self.classes.values().copied().collect::<BTreeSet<i32>>() == values.iter().copied().collect();
        if !is_usual && !values.is_empty() && values.len() <= MOST_CLASSES {
            self.classes = values.into_iter().map(|value| (format!("label {value}"), value)).collect();
        }
    }

    /// What to say where scans are labelled and nothing names the labels.
    pub fn guessed(&self) -> Option<String> {
        if self.named || self.cases.iter().all(|case| case.label.is_none()) {
            return None;
        }
        let list: Vec<String> = self.classes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let (file, list) = (description::FILE, list.join(", "));
        Some(format!("no {file} names the labels; they are taken for {list}: set data.classes if they are others"))
    }
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A pattern does not contain `{id}`, a class has value 0 or shares its value with another class or with `ignore`.
    pub fn check(&self) -> Result<()> {
        let patterns = [("data.image", &self.image), ("data.label", &self.label)];
        for (key, text) in patterns.into_iter().filter(|(key, text)| *key == "data.image" || !text.is_empty()) {
            if Pattern::parse(text).is_none() {
                return Err(Error::invalid(
                    key,
                    "a file name with {id}, in the name or in that of a folder",
                    format!("{text:?}"),
                    "write it like \"image_{id}.nii.gz\" or \"{id}/ct.nii.gz\"",
                ));
            }
        }
        check_classes("data.classes", &self.classes)?;
        check_ignore(self.ignore, &self.classes)
    }

    /// The classes of a folder that names none itself: those that are set, or the four abdominal organs of CHAOS's labels.
    pub fn usual_classes(&self) -> BTreeMap<String, i32> {
        if self.classes.is_empty() {
            return USUAL_CLASSES.map(|(name, value)| (name.to_owned(), value)).into();
        }
        self.classes.clone()
    }
}

fn check_ignore(ignore: Option<i32>, classes: &BTreeMap<String, i32>) -> Result<()> {
    let taken = |ignore: i32| match classes.iter().find(|(_, value)| **value == ignore) {
        Some((name, _)) => Some(format!("{ignore}, which is {name}")),
        None => (ignore == 0).then(|| "0, which is background".to_owned()),
    };
    match ignore.and_then(taken) {
        Some(found) => Err(Error::invalid("data.ignore", "a value of its own", found, "choose another, like 255")),
        None => Ok(()),
    }
}

/// Lists the scans of a folder. Of all its files only `dataset.json` is read.
///
/// # Errors
/// The folder is missing or holds no matching file, `dataset.json` is not supported, or one id has two files.
///
/// ```
/// use ssl3d::volume::dataset::{Config, open};
/// let folder = tempfile::tempdir()?;
/// ["image_10.nii.gz", "image_2.nii.gz", "label_2.nii.gz"].map(|name| std::fs::write(folder.path().join(name), ""));
/// let [image, label] = ["image_{id}.nii.gz", "label_{id}.nii.gz"].map(str::to_owned);
/// let (classes, benchmark) = ([("liver".to_owned(), 1)].into(), String::new());
/// let dataset = open(folder.path(), &Config { image, label, classes, benchmark, ignore: None })?;
/// assert_eq!(dataset.cases.iter().map(|case| case.id.as_str()).collect::<Vec<_>>(), ["2", "10"]);
/// assert!(dataset.cases[0].label.is_some() && dataset.cases[1].label.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(folder: &Path, config: &Config) -> Result<Dataset> {
    let Listed { cases, notes, warnings } = list(folder, config)?;
    let described = describe(&folder.join(description::FILE), config)?;
    let Described { classes, ignore } = described.unwrap_or_default();
    // A description of scans without labels names none.
    let named = !classes.is_empty() || !config.classes.is_empty();
    let classes = match (config.classes.is_empty(), named) {
        (false, _) => config.classes.clone(),
        (true, true) => classes,
        (true, false) => config.usual_classes(),
    };
    // Whoever names a class of this value has looked at it.
    let ignore = config.ignore.or(ignore.filter(|value| !classes.values().any(|class| class == value)));
    check_ignore(ignore, &classes)?;
    Ok(Dataset { folder: folder.to_owned(), cases, classes, ignore, named, notes, warnings })
}

/// The scans of a folder in the order of [`open`], whatever their labels are called, and whether anybody can tell.
///
/// # Errors
/// The folder is missing or holds no matching file, `dataset.json` does not list its scans, or one id has two files.
pub fn scans(folder: &Path, config: &Config) -> Result<Vec<Case>> {
    list(folder, config).map(|listed| listed.cases)
}

/// Scans with notes and warnings about them.
struct Listed {
    cases: Vec<Case>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

fn list(folder: &Path, config: &Config) -> Result<Listed> {
    if !folder.is_dir() {
        let found = if folder.exists() { "a file" } else { "nothing" };
        return Err(Error::file(folder, "a folder with scans", found, "give the folder that holds the dataset"));
    }
    config.check()?;
    let json = folder.join(description::FILE);
    let mut listed = if json.is_file() && folder.join("imagesTr").is_dir() {
        let text = text::read("read", &json)?;
        let read = if decathlon::is_described(&text) { decathlon::read } else { nnunet::read };
        Listed { cases: read(folder, &json, &text)?, notes: vec![], warnings: vec![] }
    } else {
        match_patterns(folder, config)?
    };
    listed.cases.sort_by_cached_key(|case| (natural(&case.id), case.id.clone()));
    Ok(listed)
}

/// What the file says of the labels beside it; it need not be there, nor be about labels. What the configuration names needs none.
fn describe(json: &Path, config: &Config) -> Result<Option<Described>> {
    if !json.is_file() {
        return Ok(None);
    }
    let described =
        || description::parse(json, &text::read("read", json)?)?.map(|labels| labels.described(json)).transpose();
    match described() {
        Err(_) if !config.classes.is_empty() => Ok(None),
        described => described,
    }
}

fn match_patterns(folder: &Path, config: &Config) -> Result<Listed> {
    let images = Pattern::parse(&config.image).expect("checked").find(folder);
    // Volumes that lie there under other names are for a pattern of the user's to find.
    let is_without = |images: &Matches| images.names.iter().all(|name| nifti::stem(name).is_none());
    if config.image == USUAL_IMAGE
        && images.as_ref().is_ok_and(is_without)
        && let Some(listed) = layouts::recognise(folder, config)?
    {
        return Ok(listed);
    }
    let images = images?;
    let labels = match Pattern::parse(&config.label).map(|labels| labels.find(folder)) {
        Some(Ok(labels)) => labels.files,
        Some(Err(fault @ Error::Invalid { .. })) => return Err(fault),
        _ => BTreeMap::new(), // a dataset without any labels
    };
    let (names, at) = (images.names, images.folder);
    let cases = pair_up(images.files, labels);
    if cases.is_empty() {
        let seen = Matches { files: BTreeMap::new(), folder: at, names };
        return Err(nothing_matches(&config.image, &seen));
    }
    Ok(Listed { cases, notes: vec![], warnings: vec![] })
}

/// Each image with the label of its id.
fn pair_up(mut images: BTreeMap<String, PathBuf>, labels: BTreeMap<String, PathBuf>) -> Vec<Case> {
    // `{id}.nii.gz` also matches `7_seg.nii.gz`, the label of 7, which is no scan of its own.
    let of_scans: Vec<&PathBuf> =
        labels.iter().filter(|(id, _)| images.contains_key(*id)).map(|(_, path)| path).collect();
    let is_label = |(id, path): &(&String, &PathBuf)| of_scans.contains(path) && labels.get(*id) != Some(path);
    let no_scans: Vec<String> = images.iter().filter(is_label).map(|(id, _)| id.clone()).collect();
    no_scans.iter().for_each(|id| drop(images.remove(id)));
    let case = |(id, image): (String, PathBuf)| Case { label: labels.get(&id).cloned(), id, image };
    images.into_iter().map(case).collect()
}

fn nothing_matches(pattern: &str, seen: &Matches) -> Error {
    let list = |names: &[String]| match names {
        names if names.len() <= 3 => names.join(", "),
        names => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    };
    let folders = layouts::folders_in(&seen.folder);
    let found = match (&seen.names[..], &folders[..]) {
        ([], []) => "an empty folder".into(),
        ([], folders) => format!("only folders: {}", list(folders)),
        (names, _) => list(names),
    };
    let remedy = "set data.image to the pattern of your files";
    Error::file(&seen.folder, format!("files like {pattern}"), found, remedy)
}

fn check_classes(at: &str, classes: &BTreeMap<String, i32>) -> Result<()> {
    if classes.len() > MOST_CLASSES {
        let found = classes.len().to_string();
        let remedy = "leave out those that are not needed: a class is counted in one byte";
        return Err(Error::invalid(at, format!("at most {MOST_CLASSES} classes"), found, remedy));
    }
    let mut names: BTreeMap<i32, &str> = BTreeMap::new();
    for (name, &value) in classes {
        let fault =
            |expected: &str, found: String| Err(Error::invalid(at, expected, found, "give every class its own"));
        if value == 0 {
            return fault("label values other than 0, the background", format!("{name} = 0"));
        }
        if let Some(other) = names.insert(value, name) {
            return fault("one class for each label value", format!("{other} = {value} and {name} = {value}"));
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u128),
    Text(String),
}

/// The positions of `most` of `all` cases, of all of them where there are no more, evenly spaced in their order.
pub fn evenly(most: usize, all: usize) -> impl Iterator<Item = usize> {
    let count = most.min(all);
    (0..count).map(move |i| i * all / count)
}

/// A sort key for ids: digits compare as numbers, and a number comes before text.
pub fn natural(id: &str) -> impl Ord + use<> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let part = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if is_digit(&bytes[0]) { Part::Number(text.parse().unwrap_or(u128::MAX)) } else { Part::Text(text) }
    };
    id.as_bytes().chunk_by(|a, b| is_digit(a) == is_digit(b)).map(part).collect::<Vec<Part>>()
}

#[cfg(test)]
mod tests;
