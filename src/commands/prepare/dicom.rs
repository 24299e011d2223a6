//! DICOM series in any folders, without labels.

use super::{Origin, Scan, Source, chaos, folders, write};
use crate::artifact;
use crate::cli::PrepareDicom;
use crate::commands::progress::{note, warn};
use crate::error::Result;
use crate::volume::dicom::{Contents, Series, Stack, contents};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every folder below the source that holds DICOM files is a scan, or several where the files are several volumes; the source
/// may be a zip archive.
///
/// # Errors
/// As [`write()`]; a folder cannot be listed; there is nothing but objects that are no slices.
pub fn run(args: &PrepareDicom) -> Result<()> {
    let source = args.source.as_path();
    let unpacked; // the folder goes when this does
    let root = if chaos::is_archive(source) {
        artifact::create_folder(&args.common.out)?;
        unpacked = chaos::unpack_wanted(source, |_| true, &args.common.out)?;
        unpacked.path()
    } else {
        source
    };
    let in_source = |path: &Path| match path.strip_prefix(root) {
        Ok(below) if !below.as_os_str().is_empty() => source.join(below),
        _ => source.to_owned(),
    };
    let mut sources = Vec::new();
    let mut others = Contents::default();
    for (folder, found) in stacks(root)? {
        if let Some(left_out) = found.note() {
            warn(&format!("{}: left out: {left_out}", in_source(&folder).display()));
        }
        let below = folder.strip_prefix(root).unwrap_or(&folder);
        let whole = source.file_stem().filter(|_| root != source).or(source.file_name()).unwrap_or_default();
        let id = id_of(if below.as_os_str().is_empty() { Path::new(whole) } else { below });
        let several = found.stacks.len() > 1;
        for (index, stack) in found.stacks.into_iter().enumerate() {
            let id = if several { format!("{id}_{}", index + 1) } else { id.clone() };
            if several {
                note(&format!("{id}: {} of {}", stack.told_by, in_source(&folder).display()));
            }
            let read = move || {
                let mut series = stack.read()?;
                series.files.dedup(); // one file of many frames
                Ok(Scan { image: series.image, label: None, files: series.files, warnings: series.warnings })
            };
            sources.push(Source { id, folder: folder.clone(), read: Box::new(read) });
        }
        found.left_out.into_iter().for_each(|(kind, count)| *others.left_out.entry(kind).or_default() += count);
    }
    if sources.is_empty() && !others.left_out.is_empty() {
        return Err(others.refusal(source));
    }
    let name = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let (source, root, classes) = (source.to_owned(), root.to_owned(), BTreeMap::new());
    write(&Origin { name, licence: None, source, root, classes }, sources, &args.common)
}

/// What each folder below `root`, itself included, holds of DICOM, in natural order; folders without any are left out.
///
/// # Errors
/// A folder cannot be listed.
pub fn stacks(root: &Path) -> Result<Vec<(PathBuf, Contents)>> {
    let mut found = Vec::new();
    for folder in folders(root)? {
        let here = contents(&folder)?;
        if !here.stacks.is_empty() || !here.left_out.is_empty() {
            found.push((folder, here));
        }
    }
    Ok(found)
}

/// One volume from these files, whatever series they name.
///
/// # Errors
/// A file cannot be read; the slices do not form one volume, or one that is too large.
pub fn read(folder: &Path, files: &[PathBuf]) -> Result<Series> {
    Stack::whole(folder, files).read()
}

/// A path below the source as the id of a scan: what is not a letter, a digit, a dash or a dot becomes a dash.
fn id_of(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| if c.is_alphanumeric() || "-.".contains(c) { c } else { '-' };
    let id: String = text.chars().map(plain).collect();
    let id = id.trim_matches(['-', '.']).to_owned();
    if id.is_empty() { "scan".to_owned() } else { id }
}
