//! Reading a folder of DICOM slices as one volume in the canonical frame.
//!
//! Slices are ordered by their position along their common normal alone. File names, instance numbers and slice
//! thickness are not used, because only positions are measured.

mod attributes;
mod claims;
mod codestream;
mod contents;
mod file;
mod header;
mod intensity;
mod kind;
mod line;
mod slice;
mod split;
mod storage;

pub use contents::{Contents, Stack, contents, contents_of_file, files, is_named};
pub use file::is_start_of_dicom;
pub use slice::Slice;

use super::orientation::Orientation;
use super::vector::{cross, difference, dot, unit};
use super::{Geometry, Image, LabelMap, Volume, limit, padding};
use crate::error::{Error, Result};
use header::TRAITS;
use line::{Fault, Line};
use ndarray::{Array2, Array3, Axis, stack};
use std::path::{Path, PathBuf};

/// Two directions are the same if their cosines differ by no more than this.
const SAME_DIRECTION: f64 = 1e-3;
/// Two pixel spacings are the same if they differ by no more than this fraction.
const SAME_SPACING: f64 = 1e-3;
/// Directions that are further from right angles and length 1 were written with few decimals.
const ROUNDED: f64 = 1e-4;
/// The line of the slices is at right angles to them if it differs by no more than this, of directions with few decimals.
const NEARLY_UPRIGHT: f64 = 0.02;

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

/// Assembles the slices of one series, in any order, to a volume. Errors name `folder`.
///
/// # Errors
/// There is no slice, slices differ in size, spacing, direction or in how their values are stored, two have the same position,
/// there is a gap between them, or one lies aside of the others.
pub fn assemble(folder: &Path, mut slices: Vec<Slice>) -> Result<Series> {
    let refuse = |expected: &str, found: String, remedy: &str| Err(Error::file(folder, expected, found, remedy));
    let Some(first) = slices.first() else {
        return refuse("DICOM slices", "none".to_owned(), "name the folder that holds the .dcm files");
    };
    for other in &slices[1..] {
        let differs = |what: &str, a: String, b: String| {
            let found = format!("{a} in {} and {b} in {}", first.name(), other.name());
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
    let (along, normal) = directions(first, &slices);
    let place = |slice: &Slice| dot(slice.position_mm, normal);
    slices.sort_by(|a, b| place(a).total_cmp(&place(b)));
    let scales = storage::check(folder, &slices)?;
    let positions_mm: Vec<f64> = slices.iter().map(place).collect();
    let Line { step, tilt_mm, mut warnings } = line(folder, &slices, normal)?;
    warnings.extend(scales);
    if tilt_mm > 0.0 {
        warnings.push(format!("slices lie {tilt_mm:.2} mm aside of each other at every step (a tilted gantry)"));
    }
    let first = &slices[0];
    // Index (column, row, slice) to L P S in mm, and from there to R A S.
    let column = along[0].map(|v| v * first.spacing_mm[1]);
    let row = along[1].map(|v| v * first.spacing_mm[0]);
    let mut affine_mm = [[0.0; 4]; 4];
    for (axis, sign) in [-1.0, -1.0, 1.0].into_iter().enumerate() {
        affine_mm[axis] = [column[axis], row[axis], step[axis], first.position_mm[axis]].map(|v| sign * v);
    }
    affine_mm[3] = [0.0, 0.0, 0.0, 1.0];

    let shape_vox = [slices.len(), first.rows, first.columns];
    let description = first.description.clone();
    let stored = Geometry { shape_vox, affine_mm };
    let orientation = Orientation::canonical(&stored);
    let mut voxels = Vec::with_capacity(shape_vox.iter().product());
    slices.iter().for_each(|slice| voxels.extend_from_slice(&slice.values));
    let native = Array3::from_shape_vec(shape_vox, voxels).expect("slices of one size");
    let geometry = stored.turned(orientation);
    limit::check_lengths(folder, &geometry)?;
    let mut image = Volume { voxels: orientation.to_canonical(native), geometry };
    warnings.extend(padding::mark(&mut image.voxels));
    let files = slices.into_iter().map(|slice| slice.path).collect();
    Ok(Series { image, files, positions_mm, description, warnings, orientation })
}

/// The directions of rows and columns, and their normal. Where they are written with few decimals, positions are the more
/// precise: the slices are turned so that their line is upright, if it nearly is.
fn directions(first: &Slice, slices: &[Slice]) -> ([[f64; 3]; 2], [f64; 3]) {
    let along = [first.along_row, first.along_column];
    let normal = cross(along[0], along[1]);
    let place = |slice: &&Slice| dot(slice.position_mm, normal);
    let lowest = slices.iter().min_by(|a, b| place(a).total_cmp(&place(b)));
    let highest = slices.iter().max_by(|a, b| place(a).total_cmp(&place(b)));
    let (Some(lowest), Some(highest)) = (lowest, highest) else { return (along, normal) };
    let line = difference(highest.position_mm, lowest.position_mm);
    let length = dot(line, line).sqrt();
    if first.rounding <= ROUNDED || length <= 0.0 || dot(line, normal) < (1.0 - NEARLY_UPRIGHT.powi(2) / 2.0) * length {
        return (along, normal);
    }
    let upright = unit(line);
    let row = unit([0, 1, 2].map(|i| along[0][i] - upright[i] * dot(along[0], upright)));
    ([row, cross(upright, row)], upright)
}

/// The line on which the slices lie; of one slice, its thickness along the normal.
fn line(folder: &Path, slices: &[Slice], normal: [f64; 3]) -> Result<Line> {
    if let [slice] = slices {
        let warning = format!("one slice only; its thickness of {} mm stands in for a step", slice.thickness_mm);
        let step = normal.map(|n| n * slice.thickness_mm);
        return Ok(Line { step, tilt_mm: 0.0, warnings: vec![warning] });
    }
    let points: Vec<[f64; 3]> = slices.iter().map(|slice| slice.position_mm).collect();
    let pixel_mm = slices[0].spacing_mm[0].min(slices[0].spacing_mm[1]);
    let name = |index: usize| slices[index].name();
    let between = |index: usize| format!("{} and {}", name(index), name(index + 1));
    line::through(&points, normal, pixel_mm).map_err(|fault| match fault {
        Fault::Twice(index) => {
            let differs = header::difference(&slices[index].traits, &slices[index + 1].traits);
            let differs = differs.map_or(String::new(), |tag| format!(", with {tag}"));
            let found = format!("{} at one place{differs}", between(index));
            let remedy = "keep one of them, or one of the series that share the folder";
            Error::file(folder, "slices at places of their own", found, remedy)
        }
        Fault::Gap { index, step_mm, median_mm } => {
            let differs = divides(slices, index + 1).map_or(String::new(), |tag| format!(", where {tag} meet"));
            let found = format!("{step_mm:.3} mm between {}, {median_mm:.3} mm elsewhere{differs}", between(index));
            let remedy = match differs.as_str() {
                "" => "add the slices that are missing",
                _ => "add the slices that are missing, or give each part a folder of its own",
            };
            Error::file(folder, "slices at equal distances", found, remedy)
        }
        Fault::Off { index, off_mm, step_mm } => {
            let found = format!("{} {off_mm:.3} mm off its place at steps of {step_mm:.3} mm", name(index));
            let remedy = "convert the series to NIfTI with a tool that resamples it, or leave the slices out";
            Error::file(folder, "slices at equal distances", found, remedy)
        }
        Fault::Aside { index, aside_mm } => {
            let found = format!("{} {aside_mm:.3} mm aside of the line from the first to the last", name(index));
            let remedy = "give slices of one position of the patient each a folder of their own";
            Error::file(folder, "slices above each other", found, remedy)
        }
    })
}

/// A tag that has one value before the slice `at`, and another one from there on, with both values.
fn divides(slices: &[Slice], at: usize) -> Option<String> {
    let one = |part: &[Slice], tag: usize| part.iter().all(|slice| slice.traits[tag] == part[0].traits[tag]);
    let (before, after) = slices.split_at(at);
    let index = (0..TRAITS.len())
        .find(|&tag| before[0].traits[tag] != after[0].traits[tag] && one(before, tag) && one(after, tag))?;
    Some(format!("{} {} and {}", TRAITS[index].0, before[0].traits[index], after[0].traits[index]))
}

/// The innermost cause of an error, in one line.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().replace(['\n', '\r'], " ")
}
