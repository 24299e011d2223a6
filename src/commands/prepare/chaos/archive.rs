//! `CHAOS_Train_Sets.zip`, of which the files of one sequence are unpacked.

use super::Sequence;
use crate::artifact;
use crate::error::{Error, Result};
use std::io;
use std::path::Path;

/// Bytes of one file of the archive, and of all that is taken from it.
const MOST_BYTES: u64 = 256 << 20;
const MOST_BYTES_TOGETHER: u64 = 16 << 30;

/// The files of the sequence, in a folder beside the dataset that goes when it is dropped.
///
/// # Errors
/// As [`unpack_wanted`].
pub fn unpack(archive: &Path, sequence: Sequence, beside: &Path) -> Result<tempfile::TempDir> {
    unpack_wanted(archive, |entry| is_wanted(entry, sequence), beside)
}

/// Whether a file begins as a zip archive does.
pub fn is_archive(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
    path.is_file() && read.is_ok() && start == *b"PK\x03\x04"
}

/// The files whose names, paths with slashes, are wanted, in a folder in `beside` that goes when it is dropped.
///
/// # Errors
/// The archive cannot be read, is damaged or too large; the folder cannot be written to.
pub fn unpack_wanted(archive: &Path, is_wanted: impl Fn(&str) -> bool, beside: &Path) -> Result<tempfile::TempDir> {
    let damaged = |found: String| {
        Error::file(archive, "an intact zip archive", found, "download it again, or unpack it and give the folder")
    };
    let file = std::fs::File::open(archive).map_err(Error::io("open", archive))?;
    let mut zip = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|e| damaged(e.to_string()))?;
    let folder = tempfile::Builder::new().prefix(".ssl3d-").tempdir_in(beside);
    let folder = folder.map_err(Error::io("create a folder in", beside))?;
    let mut together: u64 = 0;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|e| damaged(e.to_string()))?;
        // Only names that stay below the folder.
        let Some(name) = entry.enclosed_name() else { continue };
        let text = name.to_string_lossy().replace('\\', "/");
        if !entry.is_file() || !is_wanted(&text) {
            continue;
        }
        let (size, target) = (entry.size(), folder.path().join(&name));
        together = size.saturating_add(together);
        if size > MOST_BYTES || together > MOST_BYTES_TOGETHER {
            return Err(damaged(format!("{text} of {size} bytes, {together} together")));
        }
        if let Some(parent) = target.parent() {
            artifact::create_folder(parent)?;
        }
        let mut out = std::fs::File::create(&target).map_err(Error::io("create", &target))?;
        // No more is written than is announced; a wrong size is found out here.
        let written = io::copy(&mut io::Read::take(&mut entry, size + 1), &mut out);
        let written = written.map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::io("write", &target)(e),
            _ => damaged(format!("{text}: {e}")),
        })?;
        if written != size {
            return Err(damaged(format!("{text} of another size than announced")));
        }
    }
    Ok(folder)
}

/// Whether an entry of the archive, its path with slashes, belongs to the sequence.
fn is_wanted(entry: &str, sequence: Sequence) -> bool {
    let (slices, masks) = sequence.folders();
    let of_modality = entry.split('/').any(|part| part == sequence.modality());
    let lies_in = |part: &str| entry.contains(&format!("/{part}/"));
    let drawn_on = sequence == Sequence::T1Out && lies_in(Sequence::T1In.folders().0);
    of_modality && (lies_in(slices) || lies_in(masks) || drawn_on)
}
