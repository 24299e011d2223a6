//! The volumes in a folder, an archive or a file.

use super::{Found, PROBABILITY, RESULT, Source, nothing};
use crate::commands::prepare::{self, chaos};
use crate::commands::progress::warn;
use crate::error::{Error, Result};
use crate::volume::dataset::{self, natural};
use crate::volume::dicom::{self, Contents, Stack};
use crate::volume::formats;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders of labels in the layouts that people use, and words at the end of the names of label maps.
const LABEL_FOLDERS: [&str; 7] =
    ["segmentations", "derivatives", "labels", "labelsTr", "labelsTs", "masks", "ground_truth"];
const LABELS: [&str; 8] =
    ["segmentation", "segmentations", "seg", "dseg", "label", "labels", "mask", "aggregated_segmentation"];

/// Whether a file is one of the call's own labels.
pub fn is_own(path: &Path, labels: &BTreeSet<PathBuf>) -> bool {
    path.canonicalize().is_ok_and(|path| labels.contains(&path))
}

/// The images of a dataset; or every NIfTI file that is no result of ours and no label of this call; or every such file and
/// every volume of DICOM slices in the folder and below.
///
/// # Errors
/// There is none.
pub fn in_folder(folder: &Path, data: &dataset::Config, labels: &BTreeSet<PathBuf>) -> Result<Vec<Found>> {
    if let Ok(cases) = dataset::scans(folder, data) {
        let images = cases.into_iter().map(|case| case.image);
        return Ok(images.filter(|path| !is_own(path, labels)).map(volume).collect());
    }
    let found = volumes(folder, labels, false)?;
    if !found.is_empty() {
        return Ok(found.into_iter().map(volume).collect());
    }
    let (mut found, mut others) = (Vec::new(), Contents::default());
    for below in prepare::folders(folder)? {
        if below.strip_prefix(folder).is_ok_and(is_of_labels) {
            continue;
        }
        found.extend(volumes(&below, labels, true)?.into_iter().map(volume));
        let here = dicom::contents(&below)?;
        if let Some(left_out) = here.note() {
            warn(&format!("{}: left out: {left_out}", below.display()));
        }
        found.extend(stacks(&below, &below, here.stacks));
        here.left_out.into_iter().for_each(|(kind, count)| *others.left_out.entry(kind).or_default() += count);
    }
    if found.is_empty() {
        return Err(nothing(folder, &others.note().unwrap_or("neither".to_owned())));
    }
    Ok(found)
}

/// What a file holds: itself; the volumes of a zip archive or of a multi-frame DICOM file.
///
/// # Errors
/// An archive cannot be unpacked or holds no volume.
pub fn in_file(path: &Path, data: &dataset::Config, labels: &BTreeSet<PathBuf>) -> Result<Vec<Found>> {
    if chaos::is_archive(path) {
        return in_archive(path, data, labels);
    }
    if formats::stem(&path.to_string_lossy()).is_some() || !path.is_file() || !dicom::is_named(path) {
        return Ok(vec![volume(path.to_owned())]);
    }
    let found = dicom::contents_of_file(path);
    let one =
        |source| Found { path: path.to_owned(), trail: path.to_owned(), suffix: String::new(), source, unpacked: None };
    Ok(match (found.note(), found.stacks) {
        (Some(other), _) => vec![one(Source::Nothing(other))],
        (None, stacks_of) if stacks_of.iter().all(Stack::is_of_frames) => {
            stacks(path, &path.with_extension(""), stacks_of)
        }
        _ => vec![one(Source::Slice(path.to_owned()))],
    })
}

fn in_archive(archive: &Path, data: &dataset::Config, labels: &BTreeSet<PathBuf>) -> Result<Vec<Found>> {
    let folder = Arc::new(chaos::unpack_wanted(archive, |_| true, &std::env::temp_dir())?);
    let found = in_folder(folder.path(), data, labels).map_err(|error| error.unpacked(folder.path(), archive))?;
    let within = |found: Found| {
        let below = found.trail.strip_prefix(folder.path()).unwrap_or(&found.trail);
        let trail = archive.with_extension("");
        let trail = if below.as_os_str().is_empty() { trail } else { trail.join(below) };
        Found { path: archive.to_owned(), trail, unpacked: Some(folder.clone()), ..found }
    };
    Ok(found.into_iter().map(within).collect())
}

fn volume(path: PathBuf) -> Found {
    let source = Source::Volume(path.clone());
    Found { trail: path.clone(), path, suffix: String::new(), source, unpacked: None }
}

fn stacks(path: &Path, trail: &Path, stacks: Vec<Stack>) -> Vec<Found> {
    let several = stacks.len() > 1;
    let of = |(index, stack)| Found {
        path: path.to_owned(),
        trail: trail.to_owned(),
        suffix: if several { format!("_{}", index + 1) } else { String::new() },
        source: Source::Stack(Box::new(stack)),
        unpacked: None,
    };
    stacks.into_iter().enumerate().map(of).collect()
}

/// The NIfTI files of a folder, in natural order, but for results of ours, labels of this call and, if so wanted, what is
/// called like a label map.
fn volumes(folder: &Path, labels: &BTreeSet<PathBuf>, but_labels: bool) -> Result<Vec<PathBuf>> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = formats::listed(&path).filter(|stem| path.is_file() && !stem.starts_with('.')) else {
            continue;
        };
        let is_result = stem.ends_with(RESULT) || stem.contains(PROBABILITY);
        if is_result || is_own(&path, labels) || but_labels && is_called_label(&stem) {
            left_out.push(name);
        } else {
            found.push(path);
        }
    }
    left_out.sort_by_cached_key(|name| natural(name));
    if !left_out.is_empty() && (but_labels || !found.is_empty()) {
        let more = left_out.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        left_out.truncate(3);
        let names = left_out.join(", ");
        warn(&format!(
            "{}: left out: {names}{more}: labels or results by their names or --support-label",
            folder.display()
        ));
    }
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    Ok(found)
}

fn is_called_label(stem: &str) -> bool {
    let stem = stem.to_lowercase();
    LABELS.iter().any(|word| stem.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with(['_', '-'])))
}

/// Whether a path leads through a folder of labels, or one that is hidden.
fn is_of_labels(below: &Path) -> bool {
    below.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name.starts_with('.') || LABEL_FOLDERS.iter().any(|folder| folder.eq_ignore_ascii_case(&name))
    })
}
