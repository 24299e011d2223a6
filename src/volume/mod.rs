//! Volumes: voxels with the geometry that places them in the patient.
//!
//! Arrays are indexed `[z, y, x]` in the canonical frame: x grows towards the patient's **R**ight, y towards
//! **A**nterior, z towards **S**uperior (RAS+, as close as the affine allows). Of a stack of slices ([`Geometry::slice_axis`]) z is the
//! axis along which they are stacked, whatever it is in the patient: sagittal slices are indexed R, S, A, coronal ones A, S, R.
//! [`frame`] turns the scans of a cohort alike. Only [`nifti`], [`formats`], [`dicom`] and [`orientation`] handle the axis order of
//! files.

pub mod chaos_mask;
mod classes;
pub mod dataset;
pub mod dicom;
pub mod formats;
pub mod frame;
pub mod limit;
pub mod nifti;
pub mod orientation;
pub mod padding;
pub mod regrid;
pub mod resample;
pub mod upright;
mod vector;

pub use classes::{Class, ClassMap};

use ndarray::Array3;

/// Voxels of a stack are longer across its slices than in them by this factor at least. Below, a volume shows the patient from all sides
/// alike: most 3D sequences and thin-slice CT.
const STACK_RATIO: f64 = 1.5;

/// Size and position of a voxel grid in the patient.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Number of voxels along z, y, x.
    pub shape_vox: [usize; 3],
    /// Maps the voxel index (x, y, z, 1) to millimetres (R, A, S, 1); the last row is 0 0 0 1.
    pub affine_mm: [[f64; 4]; 4],
}

impl Geometry {
    /// An axis-aligned grid with the given spacing along z, y, x and its first voxel at the origin.
    ///
    /// ```
    /// let geometry = ssl3d::volume::Geometry::with_spacing([30, 256, 256], [7.5, 1.25, 1.25]);
    /// assert_eq!(geometry.spacing_mm(), [7.5, 1.25, 1.25]);
    /// assert_eq!(geometry.voxel_mm3(), 7.5 * 1.25 * 1.25);
    /// ```
    pub fn with_spacing(shape_vox: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        let mut affine_mm = [[0.0; 4]; 4];
        for axis in 0..3 {
            affine_mm[axis][axis] = spacing_mm[2 - axis];
        }
        affine_mm[3][3] = 1.0;
        Self { shape_vox, affine_mm }
    }

    /// Distance between neighbouring voxels along z, y, x in millimetres.
    pub fn spacing_mm(&self) -> [f64; 3] {
        let column = |axis: usize| (0..3).map(|row| self.affine_mm[row][axis].powi(2)).sum::<f64>().sqrt();
        [column(2), column(1), column(0)]
    }

    /// The axis (0 is z) along which slices are stacked: that of a single voxel, or along which voxels are at least 1.5 times as long
    /// as along both others. None of a volume that is nearly isotropic.
    pub fn slice_axis(&self) -> Option<usize> {
        let single: Vec<usize> = (0..3).filter(|&axis| self.shape_vox[axis] == 1).collect();
        if let [axis] = single[..] {
            return Some(axis);
        }
        let mm = self.spacing_mm();
        (0..3).find(|&axis| (0..3).all(|other| other == axis || mm[axis] >= STACK_RATIO * mm[other]))
    }

    /// Volume of one voxel in cubic millimetres.
    pub fn voxel_mm3(&self) -> f64 {
        let a = &self.affine_mm;
        let minor = |i: usize, j: usize| a[1][i] * a[2][j] - a[1][j] * a[2][i];
        (a[0][0] * minor(1, 2) - a[0][1] * minor(0, 2) + a[0][2] * minor(0, 1)).abs()
    }
}

/// Voxels `[z, y, x]` in the canonical frame, with their geometry.
#[derive(Debug, Clone)]
pub struct Volume<T> {
    /// Values, indexed `[z, y, x]`. In an image NaN is padding.
    pub voxels: Array3<T>,
    /// Position of the voxels in the patient.
    pub geometry: Geometry,
}

/// A volume of intensities; NaN where there is none ([`padding`]).
pub type Image = Volume<f32>;
/// A volume of label values as they are in the file, any 32-bit integers; 0 is background.
pub type LabelMap = Volume<i32>;
