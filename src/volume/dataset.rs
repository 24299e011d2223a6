//! The scans of a dataset folder: which image and label files belong together, their order, and the classes of the
//! labels.
//!
//! A folder has either file names after a pattern (`image_{id}.nii.gz`), or a `dataset.json` and `imagesTr`: nnU-Net
//! v2, or the Medical Segmentation Decathlon.

use super::nifti;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod decathlon;
mod nnunet;

/// Class indices are bytes, and 0 is background.
const MOST_CLASSES: usize = 255;

/// Section `[data]` of the configuration. A folder that describes itself (nnU-Net v2, Decathlon) does not use it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Pattern of the image files, for instance `image_{id}.nii.gz`, with an optional subfolder (`images/{id}.nii.gz`).
    /// `.nii`, `.nii.gz` and the `.hdr` of a pair match, whichever of them the pattern has.
    pub image: String,
    /// Pattern of the label files; empty if there are none.
    pub label: String,
    /// Label value of each class, by name.
    pub classes: BTreeMap<String, i32>,
    /// Label value of support voxels without annotation; `None` if every voxel is annotated.
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
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A pattern does not contain `{id}` exactly once in the file name, a class has value 0 or shares its value with
    /// another class or with `ignore`.
    pub fn check(&self) -> Result<()> {
        let patterns = [("data.image", &self.image), ("data.label", &self.label)];
        for (key, text) in patterns.into_iter().filter(|(key, text)| *key == "data.image" || !text.is_empty()) {
            if Pattern::parse(text).is_none() {
                return Err(Error::invalid(
                    key,
                    "a file name with {id} once, in the name and not in the folder",
                    format!("{text:?}"),
                    "write it like \"image_{id}.nii.gz\"",
                ));
            }
        }
        check_classes("data.classes", &self.classes)?;
        let taken = |ignore: i32| match self.classes.iter().find(|(_, value)| **value == ignore) {
            Some((name, _)) => Some(format!("{ignore}, which is {name}")),
            None => (ignore == 0).then(|| "0, which is background".to_owned()),
        };
        match self.ignore.and_then(taken) {
            Some(found) => Err(Error::invalid("data.ignore", "a value of its own", found, "choose another, like 255")),
            None => Ok(()),
        }
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
    if !folder.is_dir() {
        let found = if folder.exists() { "a file" } else { "nothing" };
        return Err(Error::file(folder, "a folder with scans", found, "give the folder that holds the dataset"));
    }
    let (mut cases, classes) = if folder.join("dataset.json").is_file() && folder.join("imagesTr").is_dir() {
        let json = folder.join("dataset.json");
        let text = std::fs::read_to_string(&json).map_err(Error::io("read", &json))?;
        if decathlon::is_described(&text) {
            decathlon::read(folder, &json, &text)?
        } else {
            nnunet::read(folder, &json, &text)?
        }
    } else {
        config.check()?;
        (match_patterns(folder, config)?, config.classes.clone())
    };
    cases.sort_by_cached_key(|case| (natural(&case.id), case.id.clone()));
    Ok(Dataset { folder: folder.to_owned(), cases, classes })
}

fn match_patterns(folder: &Path, config: &Config) -> Result<Vec<Case>> {
    let images = Pattern::parse(&config.image).expect("checked");
    let labels = Pattern::parse(&config.label);
    let image_names = file_names(&images.within(folder))?;
    let mut image_of = by_id(folder, &images, &image_names)?;
    let label_of = match &labels {
        None => BTreeMap::new(),
        Some(labels) if labels.folder == images.folder => by_id(folder, labels, &image_names)?,
        Some(labels) => match file_names(&labels.within(folder)) {
            Ok(names) => by_id(folder, labels, &names)?,
            Err(_) => BTreeMap::new(), // a dataset without any labels
        },
    };
    // `{id}.nii.gz` also matches `7_seg.nii.gz`, the label of 7, which is no scan of its own.
    let labels_of_scans: Vec<_> =
        label_of.iter().filter(|(id, _)| image_of.contains_key(*id)).map(|(_, p)| p).collect();
    let is_label: Vec<_> = image_of
        .iter()
        .filter(|(id, path)| labels_of_scans.contains(path) && label_of.get(*id) != Some(path))
        .map(|(id, _)| id.clone())
        .collect();
    is_label.iter().for_each(|id| drop(image_of.remove(id)));
    if image_of.is_empty() {
        return Err(nothing_matches(&images.within(folder), &config.image, &image_names));
    }
    let case = |(id, image): (String, PathBuf)| Case { label: label_of.get(&id).cloned(), id, image };
    Ok(image_of.into_iter().map(case).collect())
}

fn nothing_matches(folder: &Path, pattern: &str, names: &[String]) -> Error {
    let found = match names {
        [] => "an empty folder".into(),
        names if names.len() <= 3 => names.join(", "),
        names => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    };
    let remedy = "set data.image to the pattern of your files";
    Error::file(folder, format!("files like {pattern}"), found, remedy)
}

/// Every matching file, keyed by its id.
fn by_id(folder: &Path, pattern: &Pattern, names: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let folder = pattern.within(folder);
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for name in names {
        let Some(id) = pattern.id(name) else { continue };
        if id.contains(['/', '\\']) {
            let remedy = "rename the file: an id becomes part of other file names";
            return Err(Error::file(&folder.join(name), "an id without path separators", id, remedy));
        }
        if let Some(other) = files.insert(id.to_owned(), folder.join(name)) {
            let found = format!("also {}", other.display());
            return Err(Error::file(&folder.join(name), format!("one file for id {id}"), found, "remove one of them"));
        }
    }
    Ok(files)
}

/// Visible files of a folder, sorted.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
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

/// The parts of `folder/before{id}after.nii.gz`, with any ending of a volume.
struct Pattern {
    folder: String,
    before: String,
    after: String,
    /// Whether the pattern ends as a volume does; without such an ending the rest must match literally.
    nifti: bool,
}

impl Pattern {
    /// The folder of the files.
    fn within(&self, folder: &Path) -> PathBuf {
        if self.folder.is_empty() { folder.to_owned() } else { folder.join(&self.folder) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (folder, name) = text.rsplit_once('/').unwrap_or(("", text));
        let (before, after) = name.split_once("{id}")?;
        if after.contains("{id}") || folder.contains("{id}") {
            return None;
        }
        let stem = nifti::stem(after);
        let (after, nifti) = (stem.unwrap_or(after).to_owned(), stem.is_some());
        Some(Self { folder: folder.to_owned(), before: before.to_owned(), after, nifti })
    }

    fn id<'a>(&self, name: &'a str) -> Option<&'a str> {
        let stem = if self.nifti { nifti::stem(name)? } else { name };
        let id = stem.strip_prefix(&self.before)?.strip_suffix(self.after.as_str())?;
        (!id.is_empty()).then_some(id)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u128),
    Text(String),
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
