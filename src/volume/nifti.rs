//! NIfTI files (version 1 and 2, in one file or as a `.hdr`/`.img` pair) and their predecessor ANALYZE: reading them
//! into the canonical frame, and writing results onto the grid of a file.
//!
//! The type codes come from the nifti crate; reading, checking and writing are done here, because the worst error is a
//! mask that is wrong and looks right: gzip is decoded to its end so that its checksum counts, `vox_offset` is used,
//! scaling and affines are float64, and an output carries the geometry bytes of the file that it belongs to, in that
//! file's byte order.

mod files;
mod header;
mod reader;
mod same_grid;
mod writer;

pub(super) use files::without;
pub use files::{name_of, stem};
pub(super) use header::Header;
pub(super) use nifti::NiftiType as VoxelType;
pub(super) use reader::{geometry, image, labels};
pub use reader::{read_geometry, read_image, read_labels};
pub use same_grid::check_same_geometry;
pub use writer::{Voxel, write_image, write_labels, write_new};

use super::Geometry;
use super::orientation::Orientation;
use header::Layout;
use std::ops::{Range, RangeInclusive};

/// Whether a file with these first bytes is NIfTI or ANALYZE, whose headers start with their own length.
pub(super) fn is_header(start: &[u8]) -> bool {
    let Some(&[a, b, c, d]) = start.first_chunk() else { return false };
    let nifti1 = Layout::Nifti1.header_bytes() as i32;
    Layout::is_nifti2([a, b, c, d])
        || [i32::from_le_bytes([a, b, c, d]), i32::from_be_bytes([a, b, c, d])].contains(&nifti1)
}

/// The voxel grid of one file, with all that a result needs to be written onto exactly that grid.
#[derive(Debug, Clone)]
pub struct NativeGrid {
    /// The header bytes of the file, of NIfTI-1 or NIfTI-2.
    raw: Vec<u8>,
    big_endian: bool,
    orientation: Orientation,
    geometry: Geometry,
    /// Peculiarities of the file that the user should know, one sentence each.
    pub warnings: Vec<String>,
}

impl NativeGrid {
    /// The grid of a volume that comes from no file: canonical order, sform coded as scanner space.
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            raw: header::of_geometry(geometry),
            big_endian: false,
            orientation: Orientation::CANONICAL,
            geometry: geometry.clone(),
            warnings: Vec::new(),
        }
    }

    /// The grid of the volume when it is turned like this.
    pub fn turned(self, turn: Orientation) -> Self {
        Self { geometry: self.geometry.turned(turn), orientation: self.orientation.then(turn), ..self }
    }

    /// Shape and affine in the canonical frame.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Converts slices, along the canonical z, from the file's numbers, counted from 0, to canonical ones.
    pub fn slices(&self, stored: &RangeInclusive<usize>) -> Range<usize> {
        self.orientation.canonical_slices(stored, self.geometry.shape_vox[0])
    }

    fn layout(&self) -> Layout {
        if self.raw.len() == Layout::Nifti2.header_bytes() { Layout::Nifti2 } else { Layout::Nifti1 }
    }

    /// From the axis order of the file to that of the geometry.
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Directions in which the file's x, y, z grow, as viewers show them, for instance "LPI".
    pub fn axis_codes(&self) -> String {
        self.orientation.then(Orientation::anatomical(&self.geometry)).codes()
    }
}

/// The largest distance between the positions that two affines give the same voxel; it occurs at a corner of the grid,
/// since the maps are linear.
fn largest_corner_distance_mm(shape_vox: [usize; 3], a: &[[f64; 4]; 4], b: &[[f64; 4]; 4]) -> f64 {
    let mut largest = 0.0;
    for corner in 0..8 {
        let at_end = |axis: usize| if corner >> axis & 1 == 1 { (shape_vox[axis] - 1) as f64 } else { 0.0 };
        let index = [at_end(2), at_end(1), at_end(0), 1.0]; // x y z 1
        let apart = |row: usize| (0..4).map(|column| (a[row][column] - b[row][column]) * index[column]).sum::<f64>();
        let distance = (0..3).map(|row| apart(row).powi(2)).sum::<f64>().sqrt();
        if distance.is_nan() {
            return distance;
        }
        largest = f64::max(largest, distance);
    }
    largest
}

fn times(shape: [usize; 3]) -> String {
    format!("{} x {} x {}", shape[0], shape[1], shape[2])
}
