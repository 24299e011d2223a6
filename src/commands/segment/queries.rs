//! What `--query` names: NIfTI files, patterns of them, folders of them, folders of DICOM slices.

use crate::commands::prepare;
use crate::commands::progress::warn;
use crate::commands::scans::ScanFile;
use crate::error::{Error, Result};
use crate::inference::PreparedScan;
use crate::preprocessing;
use crate::volume::dataset::{self, natural};
use crate::volume::dicom;
use crate::volume::formats;
use crate::volume::nifti::NativeGrid;
use std::path::{Path, PathBuf};

/// One volume to segment.
pub struct Query {
    /// A NIfTI file, or a folder of DICOM slices.
    pub path: PathBuf,
    /// What its results are called: the file's name without .nii, .nii.gz or .hdr, or the folder's.
    pub name: String,
}

impl Query {
    fn new(path: PathBuf) -> Self {
        let name = if path.is_dir() { folder_name(&path) } else { formats::name_of(&path) };
        Self { path, name }
    }

    /// # Errors
    /// As for a NIfTI file, or for a series of DICOM slices.
    pub fn read(&self, config: &preprocessing::Config) -> Result<ScanFile> {
        if !self.path.is_dir() {
            return ScanFile::read(&self.path, config);
        }
        let series = prepare::dicom::read(&self.path, &dicom::files(&self.path)?)?;
        for warning in &series.warnings {
            warn(&format!("{}: {warning}", self.path.display()));
        }
        let native = NativeGrid::new(&series.image.geometry);
        Ok(ScanFile { scan: PreparedScan::new(series.image, config), native })
    }
}

/// A folder's own name, also where it is called `.` or `..`: results are named after it, and may not lie elsewhere.
fn folder_name(folder: &Path) -> String {
    let resolved = folder.canonicalize().unwrap_or_default();
    let name = folder.file_name().or(resolved.file_name());
    name.map_or("scan".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What the names of our own results end with, before .nii.gz.
pub const RESULT: &str = "_seg";
pub const PROBABILITY: &str = "_probability_";

/// The volumes in the order in which they were named, and in natural order within a folder or pattern.
///
/// # Errors
/// A pattern or a folder without a volume.
pub fn find(given: &[PathBuf], data: &dataset::Config) -> Result<Vec<Query>> {
    let mut found = Vec::new();
    for path in given {
        if path.is_dir() {
            found.extend(in_folder(path, data)?);
        } else if path.exists() || !path.to_string_lossy().contains(['*', '?', '[']) {
            found.push(path.clone()); // a file that is missing is named when its turn comes
        } else {
            found.extend(matching(path)?);
        }
    }
    Ok(found.into_iter().map(Query::new).collect())
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let refuse = |expected: &str, found: String| {
        Err(Error::file(pattern, expected, found, "check the path, and quote it where the shell reads * itself"))
    };
    let paths = match glob::glob(&pattern.to_string_lossy()) {
        Ok(paths) => paths,
        Err(e) => return refuse("a pattern like scans/*.nii.gz", e.to_string()),
    };
    let unreadable = |e: glob::GlobError| {
        let path = e.path().to_owned();
        Error::io("list", &path)(e.into())
    };
    let mut found = paths.map(|path| path.map_err(unreadable)).collect::<Result<Vec<PathBuf>>>()?;
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    if found.is_empty() { refuse("files that match", "none".to_owned()) } else { Ok(found) }
}

/// The images of a dataset; or every NIfTI file that is no result of ours; or the folder itself, where it holds DICOM slices;
/// or every folder below it that does.
fn in_folder(folder: &Path, data: &dataset::Config) -> Result<Vec<PathBuf>> {
    if let Ok(cases) = dataset::scans(folder, data) {
        return Ok(cases.into_iter().map(|case| case.image).collect());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let stem = formats::listed(&path).filter(|_| path.is_file());
        if stem.is_some_and(|stem| !stem.starts_with('.') && !stem.ends_with(RESULT) && !stem.contains(PROBABILITY)) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    if found.is_empty() {
        for below in prepare::folders(folder)? {
            if !dicom::files(&below)?.is_empty() {
                found.push(below);
            }
        }
    }
    if found.is_empty() {
        let remedy = "name volumes, or a folder that holds them";
        return Err(Error::file(folder, "NIfTI files or DICOM slices", "neither", remedy));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_keep_their_dots() {
        for (path, expected) in [("a/scan.v2.nii.gz", "scan.v2"), ("b.nii", "b"), ("c", "c"), ("ü 1.nii.gz", "ü 1")] {
            assert_eq!(Query::new(path.into()).name, expected);
        }
    }

    #[test]
    fn folders_and_patterns_name_their_volumes_in_natural_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["t10.nii", "t2.nii.gz", "t2_seg.nii.gz", "t2_probability_1.nii.gz", ".t.nii", "notes.txt"] {
            fs::write(at(name), "").unwrap();
        }
        let config = crate::config::load(None, &[]).unwrap();
        let names = |given: &[PathBuf]| -> Result<Vec<String>> {
            Ok(find(given, &config.data)?.into_iter().map(|query| query.name).collect())
        };
        assert_eq!(names(&[folder.path().to_owned()]).unwrap(), ["t2", "t10"]);
        assert_eq!(names(&[at("t1*.nii"), at("t2.nii.gz")]).unwrap(), ["t10", "t2"]);
        assert_eq!(names(&[at("missing.nii")]).unwrap(), ["missing"]);
        let message = names(&[at("*.mha")]).unwrap_err().to_string();
        assert!(message.contains("expected files that match, found none"), "{message}");
        // A dataset's images, and not its labels.
        for name in ["image_1.nii.gz", "label_1.nii.gz"] {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(names(&[folder.path().to_owned()]).unwrap(), ["image_1"]);
        let empty = tempfile::tempdir().unwrap();
        let message = names(&[empty.path().to_owned()]).unwrap_err().to_string();
        assert!(message.contains("expected NIfTI files or DICOM slices, found neither"), "{message}");
    }
}
