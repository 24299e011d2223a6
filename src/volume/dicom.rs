//! Reading a folder of DICOM slices as one volume in the canonical frame.
//!
//! Slices are ordered by their position along their common normal alone. File names, instance numbers and slice
//! thickness are not used, because only positions are measured.

mod claims;
mod slice;

pub use slice::Slice;

use super::orientation::Orientation;
use super::{Geometry, Image, LabelMap, Volume};
use crate::error::{Error, Result};
use ndarray::{Array2, Array3, Axis, stack};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest difference of a step between slices from the median step, as a fraction of it, before it counts as a gap.
const GAP: f64 = 0.1;
/// The same fraction above which steps cause a warning.
const UNEVEN: f64 = 0.01;
/// Two slices closer than this fraction of the median step are duplicates.
const TWICE: f64 = 0.01;
/// Two directions are the same if their cosines differ by no more than this.
const SAME_DIRECTION: f64 = 1e-3;
/// Two pixel spacings are the same if they differ by no more than this fraction.
const SAME_SPACING: f64 = 1e-3;

/// One volume, assembled from the slices of a series.
#[derive(Debug)]
pub struct Series {
    /// The intensities in the canonical frame.
    pub image: Image,
    /// The files in the order of their slices, along the normal of the slices.
    pub files: Vec<PathBuf>,
    /// Position of each slice along that normal.
    pub positions_mm: Vec<f64>,
    /// SeriesDescription of the first slice.
    pub description: String,
    /// Peculiarities of the series that the user should know, one sentence each.
    pub warnings: Vec<String>,
    orientation: Orientation,
}

impl Series {
    /// Stacks label maps of the slices, [rows, columns] each and in the order of `files`, to a label map on the series'
    /// grid.
    ///
    /// # Panics
    /// The number of slices or their size is not that of the image.
    pub fn labels(&self, slices: &[Array2<i32>]) -> LabelMap {
        let views: Vec<_> = slices.iter().map(|slice| slice.view()).collect();
        let voxels = self.orientation.to_canonical(stack(Axis(0), &views).expect("slices of one size"));
        assert_eq!(voxels.dim(), self.image.voxels.dim(), "one slice of labels for each of the image");
        LabelMap { voxels, geometry: self.image.geometry.clone() }
    }

    /// Number of rows and columns of a slice.
    pub fn slice_shape(&self) -> [usize; 2] {
        let [_, rows, columns] = self.orientation.native_shape(self.image.geometry.shape_vox);
        [rows, columns]
    }
}

/// The DICOM files of a folder without its subfolders, in the natural order of their names: files with the mark of
/// DICOM at byte 128, and files named .dcm.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("dcm"));
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !hidden && (named || has_mark(&path)) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| super::dataset::natural(&path.to_string_lossy()));
    Ok(found)
}

fn has_mark(path: &Path) -> bool {
    let mut start = [0; 132];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start[128..] == *b"DICM"
}

/// Assembles the slices of one series, in any order, to a volume. Errors name `folder`.
///
/// # Errors
/// There is no slice, slices differ in size, spacing or direction, two have the same position, or there is a gap
/// between them.
pub fn assemble(folder: &Path, mut slices: Vec<Slice>) -> Result<Series> {
    let refuse = |expected: &str, found: String, remedy: &str| Err(Error::file(folder, expected, found, remedy));
    let Some(first) = slices.first() else {
        return refuse("DICOM slices", "none".to_owned(), "name the folder that holds the .dcm files");
    };
    let name = |slice: &Slice| slice.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for other in &slices[1..] {
        let differs = |what: &str, a: String, b: String| {
            let found = format!("{a} in {} and {b} in {}", name(first), name(other));
            refuse(&format!("slices of one {what}"), found, "move what belongs to another series elsewhere")
        };
        if (first.rows, first.columns) != (other.rows, other.columns) {
            let size = |slice: &Slice| format!("{} x {} pixels", slice.rows, slice.columns);
            return differs("size", size(first), size(other));
        }
        let far = |a: f64, b: f64| (a - b).abs() > SAME_SPACING * a.max(b);
        if (0..2).any(|axis| far(first.spacing_mm[axis], other.spacing_mm[axis])) {
            let spacing = |slice: &Slice| format!("{} x {} mm", slice.spacing_mm[0], slice.spacing_mm[1]);
            return differs("pixel spacing", spacing(first), spacing(other));
        }
        let turned = |a: [f64; 3], b: [f64; 3]| (0..3).any(|i| (a[i] - b[i]).abs() > SAME_DIRECTION);
        if turned(first.along_row, other.along_row) || turned(first.along_column, other.along_column) {
            let direction = |slice: &Slice| format!("{:?} {:?}", slice.along_row, slice.along_column);
            return differs("orientation", direction(first), direction(other));
        }
    }
    let normal = cross(first.along_row, first.along_column);
    let place = |slice: &Slice| dot(slice.position_mm, normal);
    slices.sort_by(|a, b| place(a).total_cmp(&place(b)));
    let positions_mm: Vec<f64> = slices.iter().map(place).collect();
    let mut warnings = Vec::new();
    let step_mm = step_mm(folder, &slices, &positions_mm, &mut warnings)?;

    let (first, last) = (&slices[0], &slices[slices.len() - 1]);
    let mut step = normal.map(|n| n * step_mm);
    if slices.len() > 1 {
        // Of a tilted gantry the slices do not lie straight above each other.
        let mean = [0, 1, 2].map(|i| (last.position_mm[i] - first.position_mm[i]) / (slices.len() - 1) as f64);
        let aside = (dot(mean, mean) - dot(mean, normal).powi(2)).max(0.0).sqrt();
        if aside > UNEVEN * step_mm {
            warnings.push(format!("slices lie {aside:.2} mm aside of each other at every step (a tilted gantry)"));
            let along = dot(mean, normal);
            step = [0, 1, 2].map(|i| mean[i] + normal[i] * (step_mm - along));
        }
    }
    // Index (column, row, slice) to L P S in mm, and from there to R A S.
    let column = first.along_row.map(|v| v * first.spacing_mm[1]);
    let row = first.along_column.map(|v| v * first.spacing_mm[0]);
    let mut affine_mm = [[0.0; 4]; 4];
    for (axis, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
        affine_mm[axis] = [column[axis], row[axis], step[axis], first.position_mm[axis]].map(|v| sign * v);
    }
    affine_mm[3] = [0.0, 0.0, 0.0, 1.0];

    let shape_vox = [slices.len(), first.rows, first.columns];
    let description = first.description.clone();
    let orientation = Orientation::nearest(&affine_mm);
    let mut voxels = Vec::with_capacity(shape_vox.iter().product());
    slices.iter().for_each(|slice| voxels.extend_from_slice(&slice.values));
    let native = Array3::from_shape_vec(shape_vox, voxels).expect("slices of one size");
    let geometry = Geometry {
        shape_vox: orientation.canonical_shape(shape_vox),
        affine_mm: orientation.canonical_affine(&affine_mm, shape_vox),
    };
    let image = Volume { voxels: orientation.to_canonical(native), geometry };
    let files = slices.into_iter().map(|slice| slice.path).collect();
    Ok(Series { image, files, positions_mm, description, warnings, orientation })
}

/// The median distance of neighbouring slices. Fails if two have the same position or one is missing.
fn step_mm(folder: &Path, slices: &[Slice], positions_mm: &[f64], warnings: &mut Vec<String>) -> Result<f64> {
    let steps: Vec<f64> = positions_mm.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = steps.clone();
    sorted.sort_by(f64::total_cmp);
    let Some(&median) = sorted.get(sorted.len() / 2) else {
        warnings.push(format!("one slice only; its thickness of {} mm stands in for a step", slices[0].thickness_mm));
        return Ok(slices[0].thickness_mm);
    };
    let name = |index: usize| slices[index].path.file_name().unwrap_or_default().to_string_lossy();
    let between = |index: usize| format!("{} and {}", name(index), name(index + 1));
    if let Some(index) = steps.iter().position(|&step| step <= TWICE * median || step < 1e-3) {
        let found = format!("{} at one place", between(index));
        let remedy = "keep one of them, or one of the series that share the folder";
        return Err(Error::file(folder, "slices at places of their own", found, remedy));
    }
    if let Some(index) = steps.iter().position(|step| (step - median).abs() > GAP * median) {
        let found = format!("{:.3} mm between {}, {median:.3} mm elsewhere", steps[index], between(index));
        return Err(Error::file(folder, "slices at equal distances", found, "add the slices that are missing"));
    }
    let largest = steps.iter().map(|step| (step - median).abs()).fold(0.0, f64::max);
    if largest > UNEVEN * median {
        warnings.push(format!("distances of slices differ by up to {largest:.3} mm from their median {median:.3} mm"));
    }
    Ok(median)
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    (0..3).map(|i| a[i] * b[i]).sum()
}
