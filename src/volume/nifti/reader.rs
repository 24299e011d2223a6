//! Reading a file into voxels of the canonical frame.

use super::files;
use super::header::{Header, Layout};
use super::{NativeGrid, times};
use crate::error::{Error, Result};
use crate::volume::orientation::Orientation;
use crate::volume::{Geometry, Image, LabelMap, Volume, padding};
use flate2::bufread::MultiGzDecoder;
use ndarray::Array3;
use nifti::NiftiType;
use rayon::prelude::*;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes after the last voxel that are ignored, since some writers pad; with more the file is of another kind.
const TRAILING_BYTES: u64 = 64 << 20;
/// Largest distance of a stored label from an integer: a rounded slope (for instance 1/255 in float32) causes about
/// this much.
const INTEGER_TOLERANCE: f64 = 1e-3;
const DECODED_AT_ONCE_VOX: usize = 1 << 16;

/// Reads the intensities of a file, and its grid. Padding becomes NaN ([`padding::mark`]); the grid has a warning of it.
///
/// # Errors
/// The file is missing, damaged, cut off, not one 3D volume of plain numbers, or larger than the memory limit.
pub fn read_image(path: &Path) -> Result<(Image, NativeGrid)> {
    let (header, bytes) = read_file(path)?;
    image(header, bytes)
}

/// The intensities that `bytes` hold, and their grid. Padding becomes NaN.
///
/// # Errors
/// None; as [`read_image`] wants it.
pub fn image(header: Header, bytes: Vec<u8>) -> Result<(Image, NativeGrid)> {
    let voxels = match header.scaling {
        None => decode(&header, &bytes, |value| value as f32),
        Some((slope, intercept)) => decode(&header, &bytes, |value| (value * slope + intercept) as f32),
    };
    drop(bytes);
    let (mut volume, mut grid) = canonical(header, voxels);
    grid.warnings.extend(padding::mark_non_finite(&mut volume.voxels));
    grid.warnings.extend(padding::mark(&mut volume.voxels));
    Ok((volume, grid))
}

/// Reads the labels of a file, of any numeric type, and its grid.
///
/// # Errors
/// As [`read_image`]; or a voxel is not an integer after scaling, or exceeds 32 bits.
pub fn read_labels(path: &Path) -> Result<(LabelMap, NativeGrid)> {
    let (header, bytes) = read_file(path)?;
    labels(path, header, bytes)
}

/// The labels that `bytes` hold, and their grid.
///
/// # Errors
/// A voxel is not an integer after scaling, or exceeds 32 bits.
pub fn labels(path: &Path, header: Header, bytes: Vec<u8>) -> Result<(LabelMap, NativeGrid)> {
    let (slope, intercept) = header.scaling.unwrap_or((1.0, 0.0));
    let is_label =
        |value: f64| (value - value.round()).abs() <= INTEGER_TOLERANCE && value.abs() <= f64::from(i32::MAX);
    let refused = AtomicBool::new(false);
    let voxels = decode(&header, &bytes, |stored| {
        let value = stored * slope + intercept;
        if !is_label(value) {
            refused.store(true, Ordering::Relaxed);
        }
        value.round() as i32
    });
    if refused.into_inner() {
        let values = decode(&header, &bytes, |stored| stored * slope + intercept);
        let odd = values.iter().filter(|value| !is_label(**value));
        let first = odd.clone().next().copied().unwrap_or(f64::NAN);
        return Err(Error::file(
            path,
            "a label map, an integer in every voxel",
            format!("{first} and {} more such voxels", odd.count() - 1),
            "give the label map and not the image, or round probabilities to labels first",
        ));
    }
    Ok(canonical(header, voxels))
}

/// Reads shape and affine of a file, in the canonical frame, and none of its voxels.
///
/// # Errors
/// As [`read_image`], as far as the header tells.
pub fn read_geometry(path: &Path) -> Result<Geometry> {
    let path = &files::header_of(path)?;
    Ok(geometry(&read_header(path, &mut open(path)?)?))
}

/// Shape and affine of a volume with this header, in the canonical frame.
pub fn geometry(header: &Header) -> Geometry {
    let stored = stored(header);
    stored.turned(Orientation::canonical(&stored))
}

/// Shape and affine in the axis order of the file.
fn stored(header: &Header) -> Geometry {
    Geometry { shape_vox: header.shape_vox, affine_mm: header.affine_mm }
}

fn canonical<T: Clone>(header: Header, voxels: Vec<T>) -> (Volume<T>, NativeGrid) {
    let stored = stored(&header);
    let orientation = Orientation::canonical(&stored);
    let geometry = stored.turned(orientation);
    let native = Array3::from_shape_vec(header.shape_vox, voxels).expect("one value per voxel was decoded");
    let grid = NativeGrid {
        big_endian: header.is_raw_big_endian,
        raw: header.raw,
        orientation,
        geometry: geometry.clone(),
        warnings: header.warnings,
    };
    (Volume { voxels: orientation.to_canonical(native), geometry }, grid)
}

fn read_file(path: &Path) -> Result<(Header, Vec<u8>)> {
    let path = &files::header_of(path)?;
    let mut stream = open(path)?;
    let header = read_header(path, &mut stream)?;
    if !header.is_pair {
        let gap = header.data_offset - header.layout.header_bytes() as u64;
        let bytes = read_voxels(path, &header, stream, gap)?;
        return Ok((header, bytes));
    }
    if header.layout == Layout::Analyze
        && let Ok(turned) = files::beside(path, "mat")
    {
        let remedy = "convert the image to NIfTI with SPM, or with nibabel, which both read it";
        let found = format!("{}, which may turn it", turned.display());
        return Err(Error::file(path, "an ANALYZE pair alone", found, remedy));
    }
    let beside = &files::voxels_of(path)?;
    let bytes = read_voxels(beside, &header, open(beside)?, header.data_offset)?;
    Ok((header, bytes))
}

/// The content of the file from its start, decompressed if it is gzip, whatever its name.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut file = BufReader::with_capacity(1 << 20, file);
    let gzipped = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn short(path: &Path, expected: String, found: u64) -> Error {
    Error::file(path, expected, format!("only {found}"), "the file is cut off; copy or export it again")
}

fn read_header(path: &Path, stream: &mut impl Read) -> Result<Header> {
    let mut raw = Vec::with_capacity(Layout::Nifti2.header_bytes());
    let mut read_to = |raw: &mut Vec<u8>, length: usize| {
        let more = (length - raw.len()) as u64;
        stream.by_ref().take(more).read_to_end(raw).map_err(|e| unreadable(path, e))?;
        let enough = raw.len() == length;
        enough.then_some(()).ok_or_else(|| short(path, format!("a NIfTI header of {length} bytes"), raw.len() as u64))
    };
    read_to(&mut raw, Layout::Nifti1.header_bytes())?;
    if Layout::is_nifti2([raw[0], raw[1], raw[2], raw[3]]) {
        read_to(&mut raw, Layout::Nifti2.header_bytes())?;
    }
    Header::parse(path, raw)
}

/// The bytes of the voxels. Memory is allocated only as data arrive, never more than the header claims. `gap` is the
/// number of bytes before the first voxel.
fn read_voxels(path: &Path, header: &Header, mut stream: impl Read, gap: u64) -> Result<Vec<u8>> {
    let passed = pass_over(&mut stream, gap).map_err(|e| unreadable(path, e))?;
    if passed < gap {
        let before = header.data_offset - gap;
        return Err(short(path, format!("voxels from byte {}", header.data_offset), passed + before));
    }
    let count = header.shape_vox.iter().map(|&n| n as u64).product::<u64>(); // within the limit
    let claimed = count * header.voxel_type.size_of() as u64;
    let mut bytes = Vec::new();
    // Pages are only touched as data arrives, so a lying header costs address space and no memory.
    let _ = bytes.try_reserve_exact(claimed.min(1 << 30) as usize);
    stream.by_ref().take(claimed).read_to_end(&mut bytes).map_err(|e| unreadable(path, e))?;
    if (bytes.len() as u64) < claimed {
        let voxels = times(header.shape_vox);
        return Err(short(path, format!("{claimed} bytes of voxels ({voxels}, z y x)"), bytes.len() as u64));
    }
    // To the end, because that is where gzip keeps its checksum.
    if pass_over(&mut stream, TRAILING_BYTES).map_err(|e| unreadable(path, e))? == TRAILING_BYTES {
        let found = format!("{} MiB more", TRAILING_BYTES >> 20);
        return Err(Error::file(path, "the end of the file after its voxels", found, "export it again"));
    }
    Ok(bytes)
}

fn pass_over(stream: &mut impl Read, bytes: u64) -> io::Result<u64> {
    io::copy(&mut stream.take(bytes), &mut io::sink())
}

/// The error for failed reading: damaged gzip has one of three kinds, other kinds are errors of the file system.
fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            let remedy = "the file is damaged or cut off; copy or download it again";
            Error::file(path, "an intact gzip file", error.to_string(), remedy)
        }
        _ => Error::io("read", path)(error),
    }
}

/// Decodes each stored number to float64 (64-bit integers beyond 2^53 round) and applies `convert`.
fn decode<T, F>(header: &Header, bytes: &[u8], convert: F) -> Vec<T>
where
    T: Default + Clone + Send,
    F: Fn(f64) -> T + Sync,
{
    macro_rules! decode_as {
        ($number:ty) => {{
            const SIZE: usize = size_of::<$number>();
            let mut values = vec![T::default(); bytes.len() / SIZE];
            let blocks = bytes.par_chunks(DECODED_AT_ONCE_VOX * SIZE);
            values.par_chunks_mut(DECODED_AT_ONCE_VOX).zip(blocks).for_each(|(values, block)| {
                let (numbers, _) = block.as_chunks::<SIZE>();
                if header.big_endian {
                    values.iter_mut().zip(numbers).for_each(|(v, n)| *v = convert(<$number>::from_be_bytes(*n) as f64));
                } else {
                    values.iter_mut().zip(numbers).for_each(|(v, n)| *v = convert(<$number>::from_le_bytes(*n) as f64));
                }
            });
            values
        }};
    }
    match header.voxel_type {
        NiftiType::Uint8 => decode_as!(u8),
        NiftiType::Int8 => decode_as!(i8),
        NiftiType::Uint16 => decode_as!(u16),
        NiftiType::Int16 => decode_as!(i16),
        NiftiType::Uint32 => decode_as!(u32),
        NiftiType::Int32 => decode_as!(i32),
        NiftiType::Uint64 => decode_as!(u64),
        NiftiType::Int64 => decode_as!(i64),
        NiftiType::Float32 => decode_as!(f32),
        NiftiType::Float64 => decode_as!(f64),
        other => unreachable!("{other:?} is refused with the header"),
    }
}

#[cfg(test)]
mod tests;
