//! Voxels in the canonical frame onto the grid of a file.
//!
//! qform, sform, pixdim, quaternion and units are copied byte for byte and the file's byte order is kept, because
//! viewers refuse or silently misplace a mask whose geometry differs in the last digit. What described the old
//! voxels (scaling, display range, intent, description, extensions) is reset.

use super::NativeGrid;
use super::header::{FIRST_VOXEL_BYTE, HEADER_BYTES};
use crate::artifact;
use crate::error::Result;
use crate::volume::Volume;
use flate2::{Compression, GzBuilder};
use ndarray::Array3;
use nifti::NiftiType;
use std::io::Write;
use std::path::Path;

/// nifti1.h: NIFTI_INTENT_NONE and NIFTI_INTENT_LABEL.
const INTENT_NONE: i16 = 0;
const INTENT_LABEL: i16 = 1002;

/// Writes `labels` (canonical frame) onto `grid`: uint8, uint16 above 255, int32 above 65535 or below 0.
///
/// # Errors
/// The file cannot be written. A shape other than the grid's is a bug and panics.
pub fn write_labels(path: &Path, labels: &Array3<i32>, grid: &NativeGrid) -> Result<()> {
    let (low, high) = labels.iter().fold((0, 0), |(low, high), &label| (label.min(low), label.max(high)));
    let native = native_order(labels, grid);
    let big = grid.big_endian;
    let (kind, bytes) = match (low, high) {
        (0, ..=255) => (NiftiType::Uint8, native.iter().map(|&label| label as u8).collect()),
        (0, ..=65535) => {
            (NiftiType::Uint16, native.iter().flat_map(|&label| in_order((label as u16).to_le_bytes(), big)).collect())
        }
        _ => (NiftiType::Int32, native.iter().flat_map(|&label| in_order(label.to_le_bytes(), big)).collect()),
    };
    write_file(path, grid, kind, INTENT_LABEL, bytes)
}

/// Writes `voxels` (canonical frame) onto `grid` as float32.
///
/// # Errors
/// As [`write_labels`].
pub fn write_image(path: &Path, voxels: &Array3<f32>, grid: &NativeGrid) -> Result<()> {
    let native = native_order(voxels, grid);
    let bytes = native.iter().flat_map(|voxel| in_order(voxel.to_le_bytes(), grid.big_endian)).collect();
    write_file(path, grid, NiftiType::Float32, INTENT_NONE, bytes)
}

/// Writes a volume that was made and not read, on the grid of its own geometry.
///
/// # Errors
/// As [`write_labels`].
pub fn write_new<T: Voxel>(path: &Path, volume: &Volume<T>) -> Result<()> {
    T::write(path, &volume.voxels, &NativeGrid::new(&volume.geometry))
}

/// What a voxel can be: `f32` intensities or `i32` labels.
pub trait Voxel: Sized {
    fn write(path: &Path, voxels: &Array3<Self>, grid: &NativeGrid) -> Result<()>;
}

impl Voxel for f32 {
    fn write(path: &Path, voxels: &Array3<f32>, grid: &NativeGrid) -> Result<()> {
        write_image(path, voxels, grid)
    }
}

impl Voxel for i32 {
    fn write(path: &Path, voxels: &Array3<i32>, grid: &NativeGrid) -> Result<()> {
        write_labels(path, voxels, grid)
    }
}

fn native_order<T: Clone>(canonical: &Array3<T>, grid: &NativeGrid) -> Array3<T> {
    assert_eq!(canonical.shape(), grid.geometry.shape_vox, "a result lies on the canonical grid of its file");
    grid.orientation.to_native(canonical.view())
}

fn in_order<const N: usize>(mut little_endian: [u8; N], big_endian: bool) -> [u8; N] {
    if big_endian {
        little_endian.reverse();
    }
    little_endian
}

fn write_file(path: &Path, grid: &NativeGrid, kind: NiftiType, intent: i16, voxels: Vec<u8>) -> Result<()> {
    let header = header(grid, kind, intent);
    let fill = |out: &mut dyn Write| {
        out.write_all(&header)?;
        out.write_all(&[0; FIRST_VOXEL_BYTE as usize - HEADER_BYTES])?; // no extensions
        out.write_all(&voxels)
    };
    let gzipped = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    artifact::write(path, |out| {
        if !gzipped {
            return fill(out);
        }
        // No name and no time inside, so the same voxels always give the same bytes.
        let mut encoder = GzBuilder::new().mtime(0).write(out, Compression::new(5));
        fill(&mut encoder)?;
        encoder.finish().map(drop)
    })
}

/// The grid's header with everything that described the old voxels replaced.
fn header(grid: &NativeGrid, kind: NiftiType, intent: i16) -> [u8; HEADER_BYTES] {
    let mut raw = grid.raw;
    let big = grid.big_endian;
    let [z, y, x] = grid.orientation.native_shape(grid.geometry.shape_vox);
    raw[4..32].fill(0); // data_type, db_name: unused, and some scanners put names there
    put_i16(&mut raw, big, 40, &[3, x as i16, y as i16, z as i16, 1, 1, 1, 1]);
    put_f32(&mut raw, big, 56, &[0.0; 3]); // intent parameters
    put_i16(&mut raw, big, 68, &[intent, kind as u16 as i16, 8 * kind.size_of() as i16]);
    put_f32(&mut raw, big, 108, &[FIRST_VOXEL_BYTE as f32, 1.0, 0.0]); // offset, slope, intercept
    put_f32(&mut raw, big, 124, &[0.0; 2]); // cal_max, cal_min
    raw[140..252].fill(0); // glmax, glmin, descrip, aux_file
    raw[148..153].copy_from_slice(b"ssl3d");
    raw[328..344].fill(0); // intent_name
    raw[344..].copy_from_slice(b"n+1\0");
    raw
}

fn put_i16(raw: &mut [u8], big_endian: bool, at: usize, values: &[i16]) {
    for (slot, value) in raw[at..].chunks_exact_mut(2).zip(values) {
        slot.copy_from_slice(&in_order(value.to_le_bytes(), big_endian));
    }
}

fn put_f32(raw: &mut [u8], big_endian: bool, at: usize, values: &[f32]) {
    for (slot, value) in raw[at..].chunks_exact_mut(4).zip(values) {
        slot.copy_from_slice(&in_order(value.to_le_bytes(), big_endian));
    }
}
