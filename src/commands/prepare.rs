//! `ssl3d prepare`: what people have (CHAOS as it is downloaded, DICOM series, NIfTI in any layout) to a dataset folder,
//! checked, and described in its `dataset.json`.

pub mod chaos;
mod description;
pub mod dicom;
pub mod nifti;
pub mod steps;

use crate::artifact;
use crate::cli::Preparation;
use crate::commands::progress::{self, Progress};
use crate::commands::stop;
use crate::error::{Error, Result};
use crate::preprocessing::Steps;
use crate::volume::upright::Upright;
use crate::volume::{Image, LabelMap, nifti as files};
use description::{DESCRIPTION, Description, image_name, label_name, write_scan};
pub use description::{Guess, Labelling};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// A scan to be prepared, not yet read.
pub struct Source {
    /// Its name in the dataset.
    pub id: String,
    /// What a message about it names.
    pub folder: PathBuf,
    /// Reads it.
    pub read: Box<dyn Fn() -> Result<Scan>>,
}

/// A scan that was read and checked.
pub struct Scan {
    /// Its intensities.
    pub image: Image,
    /// Its labels, on the same grid.
    pub label: Option<LabelMap>,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// What is odd about them.
    pub warnings: Vec<String>,
}

/// What the dataset is called and where it comes from.
pub struct Origin {
    /// What it is called.
    pub name: String,
    /// Under which it may be used, where that is known.
    pub licence: Option<&'static str>,
    /// The folder or archive that was named.
    pub source: PathBuf,
    /// The folder below which the scans lie: the source, or where it was unpacked.
    pub root: PathBuf,
    /// Label value of each class.
    pub classes: BTreeMap<String, i32>,
}

/// Reads, works on and writes every scan: all of the dataset or nothing of it.
///
/// # Errors
/// There are no scans; two have the same id; a scan that cannot be read, unless `keep_going`; files that are there
/// already, unless `force`.
pub fn write(origin: &Origin, sources: Vec<Source>, args: &Preparation) -> Result<()> {
    write_labelled(origin, &Labelling::default(), sources, args)
}

/// The same with more about the labels.
///
/// # Errors
/// As [`write()`].
pub fn write_labelled(origin: &Origin, labelling: &Labelling, sources: Vec<Source>, args: &Preparation) -> Result<()> {
    let (out, steps) = (&args.out, &Steps::from(args));
    steps::check(steps)?;
    check_names(origin, &sources)?;
    artifact::create_folder(out)?;
    let names = sources.iter().flat_map(|source| [image_name(&source.id), label_name(&source.id)]);
    let names: Vec<String> = names.chain([DESCRIPTION.to_owned()]).collect();
    artifact::refuse_existing(names.iter().map(|name| out.join(name)), "dataset", args.force)?;
    let there: Vec<PathBuf> = names.iter().filter_map(|name| out.join(name).canonicalize().ok()).collect();
    let beside = tempfile::Builder::new().prefix(".ssl3d-").tempdir_in(out);
    let beside = beside.map_err(Error::io("create a folder in", out))?; // goes when it is dropped
    let mut description = Description {
        name: origin.name.clone(),
        licence: origin.licence,
        source: origin.source.file_name().unwrap_or(origin.source.as_os_str()).to_string_lossy().into_owned(),
        ssl3d: env!("CARGO_PKG_VERSION"),
        steps: steps.clone(),
        classes: origin.classes.clone(),
        ignore: labelling.ignore,
        scans: BTreeMap::new(),
        left_out: BTreeMap::new(),
    };
    let bar = Progress::new("prepare", 0, sources.len() as u64);
    let written =
        Writing { origin, steps, beside: beside.path(), there: &there, keep_going: args.keep_going, bar: &bar };
    let written = written.all(&sources, &mut description);
    bar.finish();
    written?;
    if description.scans.is_empty() {
        let found = format!("{} that cannot be read", description.left_out.len());
        return Err(Error::file(&origin.source, "one scan at least", found, "see the lines above"));
    }
    description.name_labels(labelling);
    let mut json = serde_json::to_string_pretty(&description).expect("text and numbers only");
    json.push('\n');
    artifact::write_bytes(&beside.path().join(DESCRIPTION), json.as_bytes())?;
    for name in names {
        let (from, to) = (beside.path().join(&name), out.join(&name));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(Error::io("rename the finished file to", &to))?;
        }
    }
    let others = strangers(out, &description)?;
    if !others.is_empty() {
        progress::warn(&format!("{} was there before and is no part of this dataset", others.join(", ")));
    }
    let left_out = match description.left_out.len() {
        0 => String::new(),
        some => format!(", {some} left out"),
    };
    progress::note(&format!("dataset in {}: {} scans{left_out}", out.display(), description.scans.len()));
    Ok(())
}

/// # Errors
/// There are no scans; two have the same id.
fn check_names(origin: &Origin, sources: &[Source]) -> Result<()> {
    if sources.is_empty() {
        let remedy = "name the folder that holds the scans";
        return Err(Error::file(&origin.source, "scans to prepare", "none", remedy));
    }
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for source in sources {
        if let Some(other) = seen.insert(&source.id, &source.folder) {
            let found = format!("{} and {}, both {}", other.display(), source.folder.display(), source.id);
            return Err(Error::file(&origin.source, "scans with names of their own", found, "rename one of them"));
        }
    }
    Ok(())
}

/// How the scans are written.
struct Writing<'a> {
    origin: &'a Origin,
    steps: &'a Steps,
    /// The folder that they are written to.
    beside: &'a Path,
    /// Files that must not be among those that are read.
    there: &'a [PathBuf],
    keep_going: bool,
    bar: &'a Progress,
}

impl Writing<'_> {
    /// One after another, each with its entry in the description.
    fn all(&self, sources: &[Source], description: &mut Description) -> Result<()> {
        let stop = stop::on_signals()?;
        let mut same: BTreeMap<String, &str> = BTreeMap::new();
        for source in sources {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped { saved: "the beginning (a dataset is written whole)".to_owned() });
            }
            match (source.read)().map_err(|error| error.unpacked(&self.origin.root, &self.origin.source)) {
                Ok(mut scan) => {
                    let tilt = Upright::doubt(&scan.image.geometry).map(|doubt| match self.steps.upright {
                        true => "its axes were not at right angles; it is resampled to upright ones".to_owned(),
                        false => doubt,
                    });
                    scan.warnings.extend(tilt);
                    artifact::refuse_to_lose(&scan.files, self.there)?;
                    scan.warnings.iter().for_each(|text| self.bar.note(&format!("warning: {}: {text}", source.id)));
                    let mut entry = write_scan(scan, source, self.origin, self.steps, self.beside)?;
                    if let Some(other) = same.insert(entry.voxels_digest.clone(), &source.id) {
                        let text = format!("the same voxels as {other}: is it one scan under two ids?");
                        self.bar.note(&format!("warning: {}: {text}", source.id));
                        entry.warnings.push(text);
                    }
                    description.scans.insert(source.id.clone(), entry);
                }
                Err(error) if self.keep_going => {
                    self.bar.note(&format!("left out: {}: {error}", source.id));
                    description.left_out.insert(source.id.clone(), error.to_string());
                }
                Err(error) => return Err(error),
            }
            self.bar.step(&source.id);
        }
        Ok(())
    }
}

/// Images in the folder that would be read with the dataset and do not belong to it.
fn strangers(out: &Path, description: &Description) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(out).map_err(Error::io("list", out))? {
        let name = entry.map_err(Error::io("list", out))?.file_name().to_string_lossy().into_owned();
        let is_image = name.starts_with("image_") && files::stem(&name).is_some();
        if is_image && !description.scans.keys().any(|id| image_name(id) == name) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Folders below `folder`, itself included, in natural order. Links are followed, but not to a folder that is there already or
/// that holds `folder`.
///
/// # Errors
/// One of them cannot be listed.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_owned()];
    let (mut links, mut known) = (VecDeque::new(), BTreeSet::new());
    let top = folder.canonicalize().unwrap_or_default();
    known.insert(top.clone());
    let mut next = 0;
    loop {
        while next < found.len() {
            let here = found[next].clone();
            next += 1;
            for entry in std::fs::read_dir(&here).map_err(Error::io("list", &here))? {
                let entry = entry.map_err(Error::io("list", &here))?;
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        let is_new = path.canonicalize().map_or(true, |to| known.insert(to));
                        found.extend(is_new.then_some(path));
                    }
                    Ok(kind) if kind.is_symlink() && path.is_dir() => links.push_back(path),
                    _ => (),
                }
            }
        }
        // After all that is there in its own right.
        let Some(link) = links.pop_front() else { break };
        if link.canonicalize().is_ok_and(|to| !top.starts_with(&to) && known.insert(to)) {
            found.push(link);
        }
    }
    found.sort_by_cached_key(|path| crate::volume::dataset::natural(&path.to_string_lossy()));
    Ok(found)
}
