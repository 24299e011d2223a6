//! Writing voxels of the canonical frame onto the grid of a file.
//!
//! qform, sform, pixdim, quaternion and units are copied byte for byte and the file's byte order is kept, because
//! viewers refuse or silently misplace a mask whose geometry differs in the last digit. Entries that described the old
//! voxels (scaling, display range, intent, description, extensions) are reset.

use super::NativeGrid;
use super::header::Layout;
use crate::artifact;
use crate::error::Result;
use crate::volume::Volume;
use flate2::{Compression, GzBuilder};
use ndarray::Array3;
use nifti::NiftiType;
use std::io::Write;
use std::path::Path;

/// NIFTI_INTENT_NONE and NIFTI_INTENT_LABEL of nifti1.h.
const INTENT_NONE: i16 = 0;
const INTENT_LABEL: i16 = 1002;

/// Writes `labels` `[z, y, x]` of the canonical frame onto `grid`: as uint8, as uint16 if a label is above 255, as
/// int32 if one is above 65535 or below 0.
///
/// # Errors
/// The file cannot be written.
///
/// # Panics
/// The shape is not that of the grid.
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

/// Writes `voxels` `[z, y, x]` of the canonical frame onto `grid` as float32.
///
/// # Errors
/// As [`write_labels`].
pub fn write_image(path: &Path, voxels: &Array3<f32>, grid: &NativeGrid) -> Result<()> {
    let native = native_order(voxels, grid);
    let bytes = native.iter().flat_map(|voxel| in_order(voxel.to_le_bytes(), grid.big_endian)).collect();
    write_file(path, grid, NiftiType::Float32, INTENT_NONE, bytes)
}

/// Writes a volume onto the grid of its own geometry, for volumes that were not read from a file.
///
/// # Errors
/// As [`write_labels`].
///
/// ```
/// use ssl3d::volume::{Geometry, Volume, nifti};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("labels.nii.gz");
/// let geometry = Geometry::with_spacing([2, 3, 4], [5.0, 1.0, 1.0]);
/// let labels = ndarray::Array3::from_shape_fn([2, 3, 4], |(z, _, _)| z as i32);
/// nifti::write_new(&path, &Volume { voxels: labels.clone(), geometry: geometry.clone() })?;
/// let (read, _) = nifti::read_labels(&path)?;
/// assert_eq!((read.voxels, read.geometry), (labels, geometry));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_new<T: Voxel>(path: &Path, volume: &Volume<T>) -> Result<()> {
    T::write(path, &volume.voxels, &NativeGrid::new(&volume.geometry))
}

/// The type of a voxel: `f32` for intensities, `i32` for labels.
pub trait Voxel: Sized {
    /// Writes `voxels` `[z, y, x]` onto `grid` with [`write_image`] or [`write_labels`].
    ///
    /// # Errors
    /// As these.
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
        out.write_all(&[0; 4])?; // no extensions
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

/// The grid's header with the entries for the new voxels; always that of a single file, also for the grid of a pair.
fn header(grid: &NativeGrid, kind: NiftiType, intent: i16) -> Vec<u8> {
    let mut raw = grid.raw.clone();
    let [z, y, x] = grid.orientation.native_shape(grid.geometry.shape_vox);
    let dim = [3, x, y, z, 1, 1, 1, 1];
    let (kind, bits) = (kind as u16 as i16, 8 * kind.size_of() as i16);
    let mut out = Fields { raw: &mut raw, big_endian: grid.big_endian };
    if grid.layout() == Layout::Nifti2 {
        out.put(12, [kind, bits].map(i16::to_le_bytes));
        out.put(16, dim.map(|n| (n as i64).to_le_bytes()));
        out.put(80, [0f64; 3].map(f64::to_le_bytes)); // intent parameters
        out.put(168, [(Layout::Nifti2.first_voxel_byte() as i64).to_le_bytes()]);
        out.put(176, [1f64, 0.0, 0.0, 0.0].map(f64::to_le_bytes)); // slope, intercept, cal_max, cal_min
        out.put(504, [i32::from(intent).to_le_bytes()]);
        raw[240..344].fill(0); // descrip, aux_file
        raw[240..245].copy_from_slice(b"ssl3d");
        raw[508..524].fill(0); // intent_name
        raw[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
        return raw;
    }
    out.put(40, dim.map(|n| (n as i16).to_le_bytes()));
    out.put(56, [0f32; 3].map(f32::to_le_bytes)); // intent parameters
    out.put(68, [intent, kind, bits].map(i16::to_le_bytes));
    out.put(108, [Layout::Nifti1.first_voxel_byte() as f32, 1.0, 0.0].map(f32::to_le_bytes)); // offset, slope, intercept
    out.put(124, [0f32; 2].map(f32::to_le_bytes)); // cal_max, cal_min
    raw[4..32].fill(0); // data_type, db_name: unused, and some scanners put names there
    raw[140..252].fill(0); // glmax, glmin, descrip, aux_file
    raw[148..153].copy_from_slice(b"ssl3d");
    raw[328..344].fill(0); // intent_name
    raw[344..].copy_from_slice(b"n+1\0");
    raw
}

struct Fields<'a> {
    raw: &'a mut [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn put<const N: usize, const COUNT: usize>(&mut self, at: usize, little_endian: [[u8; N]; COUNT]) {
        for (slot, value) in self.raw[at..].chunks_exact_mut(N).zip(little_endian) {
            slot.copy_from_slice(&in_order(value, self.big_endian));
        }
    }
}
