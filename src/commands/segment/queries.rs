//! What `--query` names: NIfTI files, folders and patterns of them; DICOM series in folders, in multi-frame files, in zip
//! archives.

mod below;
mod names;

use crate::commands::progress::{note, warn};
use crate::commands::scans::{self, ScanFile};
use crate::error::{Error, Result};
use crate::preprocessing;
use crate::volume::dataset::{self, natural};
use crate::volume::dicom::{Slice, Stack};
use crate::volume::frame::Frame;
use crate::volume::nifti::NativeGrid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// One volume to segment.
pub struct Query {
    /// What was named or found: a file, a folder of DICOM slices, an archive.
    pub path: PathBuf,
    /// What its results are called.
    pub name: String,
    source: Source,
    unpacked: Option<Arc<TempDir>>,
}

/// What a query is read from.
#[derive(Debug, Clone)]
enum Source {
    /// A NIfTI file.
    Volume(PathBuf),
    /// DICOM slices.
    Stack(Box<Stack>),
    /// One slice of a series.
    Slice(PathBuf),
    /// A folder without any volume, and what it has instead.
    Nothing(String),
}

/// What a query will be, before it has a name.
struct Found {
    /// As it is named in messages.
    path: PathBuf,
    /// What it is named after.
    trail: PathBuf,
    /// Behind the name, where a folder holds several.
    suffix: String,
    source: Source,
    unpacked: Option<Arc<TempDir>>,
}

impl Query {
    /// # Errors
    /// As for a NIfTI file, or for a series of DICOM slices.
    pub fn read(&self, frame: &Frame, config: &preprocessing::Config) -> Result<ScanFile> {
        let read = match &self.source {
            Source::Volume(path) => ScanFile::read(path, Some(frame), config),
            Source::Stack(stack) => self.read_stack(stack, frame, config),
            Source::Slice(path) => Err(one_slice(path)),
            Source::Nothing(found) => Err(nothing(&self.path, found)),
        };
        match &self.unpacked {
            Some(folder) => read.map_err(|error| error.unpacked(folder.path(), &self.path)),
            None => read,
        }
    }

    fn read_stack(&self, stack: &Stack, frame: &Frame, config: &preprocessing::Config) -> Result<ScanFile> {
        let mut series = stack.read()?;
        series.warnings.extend(scans::turn_negative(&mut series.image));
        let native = NativeGrid::new(&series.image.geometry);
        Ok(ScanFile::new(&self.shown(), (series.image, native), &series.warnings, Some(frame), config))
    }

    /// The path, and which of the volumes that have it.
    pub fn shown(&self) -> String {
        match &self.source {
            Source::Stack(stack) if !stack.told_by.is_empty() => format!("{} ({})", self.path.display(), stack.told_by),
            _ => self.path.display().to_string(),
        }
    }
}

fn one_slice(path: &Path) -> Error {
    // Unless something else is wrong with it.
    if let Err(error) = Slice::read(path) {
        return error;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let remedy = format!("give the folder that holds it: --query {}", folder.display());
    Error::file(path, "a volume", "one slice of a DICOM series", remedy)
}

fn nothing(folder: &Path, found: &str) -> Error {
    Error::file(folder, "NIfTI files or DICOM slices", found, "name volumes, or a folder that holds them")
}

/// What the names of our own results end with, before .nii.gz.
pub const RESULT: &str = "_seg";
pub const PROBABILITY: &str = "_probability_";

/// The volumes in the order in which they were named, and in natural order within a folder or pattern. In folders and patterns
/// the `labels` of the call are left out.
///
/// # Errors
/// A pattern or a folder without a volume.
pub fn find(given: &[PathBuf], data: &dataset::Config, labels: &[PathBuf]) -> Result<Vec<Query>> {
    let labels: BTreeSet<PathBuf> = labels.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut found = Vec::new();
    for path in given {
        if path.is_dir() {
            found.extend(below::in_folder(path, data, &labels)?);
        } else if path.exists() || !path.to_string_lossy().contains(['*', '?', '[']) {
            found.extend(below::in_file(path, data, &labels)?); // a file that is missing is named when its turn comes
        } else {
            found.extend(matching(path, data, &labels)?);
        }
    }
    let (count, mut seen) = (found.len(), BTreeSet::new());
    found.retain(|query| {
        let trail = query.trail.canonicalize().unwrap_or(query.trail.clone());
        seen.insert((trail, query.suffix.clone()))
    });
    if found.len() < count {
        note(&format!("{} of the queries were named twice and are segmented once", count - found.len()));
    }
    let mut trails: Vec<PathBuf> = found.iter().map(|query| query.trail.clone()).collect();
    trails.dedup();
    let names = names::distinct(&trails);
    let name = |trail: &PathBuf| trails.iter().position(|known| known == trail).map(|index| names[index].clone());
    let named = |Found { path, trail, suffix, source, unpacked }| {
        let name = format!("{}{suffix}", name(&trail).expect("one of the trails"));
        Query { path, name, source, unpacked }
    };
    let queries: Vec<Query> = found.into_iter().map(named).collect();
    for query in &queries {
        if let Source::Stack(stack) = &query.source
            && !stack.told_by.is_empty()
        {
            note(&format!("{}: {}", query.name, query.shown()));
        }
    }
    Ok(queries)
}

/// What a pattern matches. The folders at its beginning that are there are no pattern, whatever brackets they have.
fn matching(pattern: &Path, data: &dataset::Config, labels: &BTreeSet<PathBuf>) -> Result<Vec<Found>> {
    let refuse = |expected: &str, found: String| {
        Err(Error::file(pattern, expected, found, "check the path, and quote it where the shell reads * itself"))
    };
    let (mut there, mut literal, mut whole) = (PathBuf::new(), true, PathBuf::new());
    for part in pattern.components() {
        there.push(part);
        literal = literal && there.exists();
        let text = part.as_os_str().to_string_lossy();
        whole.push(if literal { glob::Pattern::escape(&text) } else { text.into_owned() });
    }
    let paths = match glob::glob(&whole.to_string_lossy()) {
        Ok(paths) => paths,
        Err(e) => return refuse("a pattern like scans/*.nii.gz", e.to_string()),
    };
    let unreadable = |e: glob::GlobError| {
        let path = e.path().to_owned();
        Error::io("list", &path)(e.into())
    };
    let mut paths = paths.map(|path| path.map_err(unreadable)).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    if paths.is_empty() {
        return refuse("files that match", "none".to_owned());
    }
    let mut found = Vec::new();
    for path in paths {
        if below::is_own(&path, labels) {
            warn(&format!("{}: left out: it is a --support-label", path.display()));
        } else if !path.is_dir() {
            found.extend(below::in_file(&path, data, labels)?);
        } else {
            match below::in_folder(&path, data, labels) {
                Ok(queries) => found.extend(queries),
                // The others are worth having all the same.
                Err(Error::Invalid { found: instead, .. }) => {
                    let source = Source::Nothing(instead);
                    found.push(Found { trail: path.clone(), path, suffix: String::new(), source, unpacked: None });
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
