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
mod writer;

pub(super) use files::without;
pub use files::{name_of, stem};
pub(super) use header::Header;
pub(super) use nifti::NiftiType as VoxelType;
pub(super) use reader::{image, labels};
pub use reader::{read_geometry, read_image, read_labels};
pub use writer::{Voxel, write_image, write_labels, write_new};

use super::Geometry;
use super::orientation::Orientation;
use crate::error::{Error, Result};
use header::Layout;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

/// Two grids are the same if no voxel is further apart than this.
const SAME_GRID_MM: f64 = 1e-3;

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

    /// Shape and affine in the canonical frame.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Converts axial slices from the file's numbers, counted from 0, to canonical ones.
    pub fn axial_slices(&self, stored: &RangeInclusive<usize>) -> Range<usize> {
        self.orientation.canonical_slices(stored, self.geometry.shape_vox[0])
    }

    fn layout(&self) -> Layout {
        if self.raw.len() == Layout::Nifti2.header_bytes() { Layout::Nifti2 } else { Layout::Nifti1 }
    }

    /// The axis order of the file; it prints as viewers show it, for instance "LPI".
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }
}

/// Checks that a label map lies on its image's grid: the shapes are equal, and no corner is further apart than 1e-3 mm.
///
/// # Errors
/// The error names both shapes, or both spacings and origins and the largest distance of the two grids.
pub fn check_same_geometry(image: &Path, of_image: &Geometry, label: &Path, of_label: &Geometry) -> Result<()> {
    if of_image.shape_vox != of_label.shape_vox {
        return Err(Error::file(
            label,
            format!("the {} voxels (z y x) of its image {}", times(of_image.shape_vox), image.display()),
            times(of_label.shape_vox),
            "give the label map that was drawn on this image, or resample it onto the image's grid",
        ));
    }
    let apart_mm = largest_corner_distance_mm(of_image.shape_vox, &of_image.affine_mm, &of_label.affine_mm);
    // Written so that a NaN is refused too.
    if apart_mm <= SAME_GRID_MM {
        return Ok(());
    }
    Err(Error::file(
        label,
        format!("the grid of its image {} ({})", image.display(), placed(of_image)),
        format!("{}, up to {apart_mm:.4} mm away", placed(of_label)),
        "give the label map that was drawn on this image, or resample it onto the image's grid",
    ))
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

fn placed(geometry: &Geometry) -> String {
    let [z, y, x] = geometry.spacing_mm();
    let origin = [0, 1, 2].map(|row| geometry.affine_mm[row][3]);
    format!("spacing z y x {z:.4} {y:.4} {x:.4} mm, origin R A S {:.3} {:.3} {:.3} mm", origin[0], origin[1], origin[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_grid_may_be_a_thousandth_of_a_millimetre_off_and_no_more() {
        let image = Geometry::with_spacing([30, 256, 256], [7.7, 1.25, 1.25]);
        let check = |change: &dyn Fn(&mut Geometry)| {
            let mut label = image.clone();
            change(&mut label);
            check_same_geometry(Path::new("image.nii"), &image, Path::new("label.nii"), &label)
        };
        assert!(check(&|_| ()).is_ok());
        assert!(check(&|g| g.affine_mm[0][3] += 0.0009).is_ok());
        assert!(check(&|g| g.affine_mm[0][3] += 0.0011).is_err());
        assert!(check(&|g| g.affine_mm[1][1] = f64::NAN).is_err());
        let text = check(&|g| g.affine_mm[2][2] = 7.8).unwrap_err().to_string();
        for part in ["label.nii", "image.nii", "7.7000", "7.8000", "2.9000 mm away"] {
            assert!(text.contains(part), "{text}");
        }
        let text = check(&|g| g.shape_vox = [31, 256, 256]).unwrap_err().to_string();
        assert!(text.contains("30 x 256 x 256") && text.contains("31 x 256 x 256") && !text.contains('\n'), "{text}");
    }
}
