//! Volumes in any format that is read: NIfTI, NRRD, MetaImage, MGH. The content of a file decides, not its name; what cannot be read
//! is refused by what it is.
//!
//! Only reading differs. Each format becomes a grid in the file's own axis order, so that slices are counted as in the file and
//! results, which are always NIfTI, lie on it voxel by voxel.

mod metaimage;
mod mgh;
mod nrrd;
mod stored;
mod unread;

use super::nifti::{self, NativeGrid};
use super::{Geometry, Image, LabelMap};
use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use stored::Stored;

/// Endings of volumes that are not NIfTI; a `.mhd` or `.nhdr` represents the file with its voxels, too.
const ENDINGS: [&str; 8] = [".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgh.gz", ".mgz", ".mgh"];
/// As many bytes as are looked at to tell what a file is.
const START_BYTES: u64 = 1024;
/// What a message calls the formats that are read.
const READ: &str = "a volume in NIfTI, NRRD, MetaImage or MGH";

/// Reads the intensities of a volume, and its grid; see [`nifti::read_image`].
///
/// # Errors
/// The file is missing, damaged, of a kind that is not read, not one 3D volume of plain numbers, or larger than the memory limit.
pub fn read_image(path: &Path) -> Result<(Image, NativeGrid)> {
    match read(path)? {
        None => nifti::read_image(path),
        Some(Stored { header, bytes }) => nifti::image(header, bytes),
    }
}

/// Reads the labels of a volume, and its grid; see [`nifti::read_labels`].
///
/// # Errors
/// As [`read_image`]; or a voxel is not an integer, or exceeds 32 bits.
pub fn read_labels(path: &Path) -> Result<(LabelMap, NativeGrid)> {
    match read(path)? {
        None => nifti::read_labels(path),
        Some(Stored { header, bytes }) => nifti::labels(path, header, bytes),
    }
}

/// Shape and affine of a volume in the canonical frame; see [`nifti::read_geometry`].
///
/// # Errors
/// As [`read_image`], as far as the header tells.
pub fn read_geometry(path: &Path) -> Result<Geometry> {
    match read(path)? {
        None => nifti::read_geometry(path),
        Some(Stored { header, .. }) => Ok(nifti::geometry(&header)),
    }
}

/// A file name without the ending of a volume, in any case; `None` if it has none.
pub fn stem(name: &str) -> Option<&str> {
    nifti::stem(name).or_else(|| nifti::without(name, &ENDINGS))
}

/// The file name as [`stem`] gives it; the whole name if it is not that of a volume.
pub fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    stem(&name).map_or_else(|| nifti::name_of(path), str::to_owned)
}

/// The name of a file that a folder of volumes stands for: one in another format than NIfTI counts only where there is no NIfTI file
/// of the same name beside it, which is then the converted one; a segmentation of 3D Slicer does not.
pub fn listed(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = stem(&name)?;
    let is_converted =
        || ["nii.gz", "nii", "hdr"].iter().any(|end| path.with_file_name(format!("{stem}.{end}")).exists());
    let is_segmentation = nifti::without(&name, &[".seg.nrrd"]).is_some();
    (nifti::stem(&name).is_some() || !is_segmentation && !is_converted()).then(|| stem.to_owned())
}

/// What a file in another format than NIfTI holds; `None` of one that the NIfTI reader reads, or refuses.
fn read(path: &Path) -> Result<Option<Stored>> {
    let Some(start) = start(path) else { return Ok(None) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if nifti::without(&name, &[".img", ".img.gz"]).is_some() || nifti::is_header(&start) {
        return Ok(None);
    }
    if start.starts_with(b"NRRD") {
        return nrrd::read(path).map(Some);
    }
    if metaimage::is_header(&start) {
        return metaimage::read(path).map(Some);
    }
    if mgh::is_header(&start, nifti::without(&name, &[".mgz", ".mgh", ".mgh.gz"]).is_some()) {
        return mgh::read(path).map(Some);
    }
    if let Some((found, remedy)) = unread::what(&name, &start) {
        return Err(Error::file(path, READ, found, remedy));
    }
    if nifti::stem(&name).is_some() {
        return Ok(None);
    }
    let (found, remedy) = match nifti::without(&name, &ENDINGS) {
        Some(_) => {
            ("a file without the first bytes of one", "it is damaged or of another kind: copy or export it again")
        }
        None => ("a file of another kind", "convert it to NIfTI (.nii.gz), for instance with 3D Slicer or SimpleITK"),
    };
    Err(Error::file(path, READ, found, remedy))
}

/// The first bytes of a file, decompressed if it is gzip; `None` where they cannot be read.
fn start(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    open(path).ok()?.take(START_BYTES).read_to_end(&mut start).ok()?;
    Some(start)
}

/// The content of a file from its start, decompressed if it is gzip, whatever its name.
fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let gzipped = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

#[cfg(test)]
mod tests;
