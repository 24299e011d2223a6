//! DICOM series in any folders, without labels.

use super::{Origin, Scan, Source, folders, write};
use crate::cli::PrepareDicom;
use crate::error::Result;
use crate::volume::dicom::{Series, Slice, assemble, files};
use crate::volume::limit;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every folder below the source that holds DICOM files is a scan, or several where the files name several series.
///
/// # Errors
/// As [`write()`]; a folder cannot be listed.
pub fn run(args: &PrepareDicom) -> Result<()> {
    let source = args.source.as_path();
    let mut sources = Vec::new();
    for folder in folders(source)? {
        let files = files(&folder)?;
        if files.is_empty() {
            continue;
        }
        let below = folder.strip_prefix(source).unwrap_or(&folder);
        let id =
            id_of(if below.as_os_str().is_empty() { Path::new(source.file_name().unwrap_or_default()) } else { below });
        for (suffix, files) in by_series(files) {
            let from = folder.clone();
            let read = move || {
                let series = read(&from, &files)?;
                Ok(Scan { image: series.image, label: None, files: series.files, warnings: series.warnings })
            };
            sources.push(Source { id: format!("{id}{suffix}"), folder: folder.clone(), read: Box::new(read) });
        }
    }
    let name = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let (root, classes) = (source.to_owned(), BTreeMap::new());
    write(&Origin { name, licence: None, source: root.clone(), root, classes }, sources, &args.common)
}

/// One volume from these files.
///
/// # Errors
/// A file cannot be read; the slices do not form one volume, or one that is too large.
pub fn read(folder: &Path, files: &[PathBuf]) -> Result<Series> {
    let mut slices = Vec::with_capacity(files.len());
    if let Some((first, others)) = files.split_first() {
        let first = Slice::read(first)?;
        limit::check(folder, [files.len(), first.rows, first.columns], size_of::<f32>())?;
        slices.push(first);
        slices.extend(others.par_iter().map(|path| Slice::read(path)).collect::<Result<Vec<_>>>()?);
    }
    assemble(folder, slices)
}

/// The files of each series with a suffix for its id: none where there is one series. Where every file names a series of
/// its own, as anonymised data do, or one cannot be read and will be named for it, the folder is the series.
fn by_series(files: Vec<PathBuf>) -> Vec<(String, Vec<PathBuf>)> {
    let series: Result<Vec<String>> = files.par_iter().map(|path| Slice::series_of(path)).collect();
    let mut groups: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for (path, series) in files.iter().zip(series.unwrap_or_default()) {
        match groups.iter_mut().find(|(known, _)| *known == series) {
            Some((_, files)) => files.push(path.clone()),
            None => groups.push((series, vec![path.clone()])),
        }
    }
    if groups.len() <= 1 || groups.len() == files.len() {
        return vec![(String::new(), files)];
    }
    groups.into_iter().enumerate().map(|(index, (_, files))| (format!("_{}", index + 1), files)).collect()
}

/// A path below the source as the id of a scan: what is not a letter, a digit, a dash or a dot becomes a dash.
fn id_of(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| if c.is_alphanumeric() || "-.".contains(c) { c } else { '-' };
    let id: String = text.chars().map(plain).collect();
    let id = id.trim_matches(['-', '.']).to_owned();
    if id.is_empty() { "scan".to_owned() } else { id }
}
