//! Flip, affine and elastic deformation in one resampling.
//!
//! Each of them maps a position in its output to a position in its input. TorchIO resamples three times; here their
//! composition is resampled once: linear for the image, nearest neighbour for the labels, both at the same coordinates.
//!
//! As in ITK, a coordinate is inside up to half a voxel beyond the outermost voxel centres, where the border value
//! continues; outside, the image has its minimum and the labels 0. A single transform equals TorchIO's up to rounding,
//! border included. A composition differs from two resamplings: these blur twice, and fill with padding the parts that
//! leave the image in the first step and return in the second.

use super::{Params, check_probability, elastic};
use crate::error::Result;
use ndarray::Array3;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Section `[augment.flip]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlipConfig {
    /// Probability of reversing each of `axes`, independently.
    pub probability: f64,
    /// Axes that may be reversed.
    pub axes: Vec<Axis>,
}

/// An array axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Inferior to superior.
    Z,
    /// Posterior to anterior.
    Y,
    /// Left to right.
    X,
}

impl FlipConfig {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// The probability is not from 0 to 1.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.flip.probability", self.probability)
    }

    /// Draws the axes (z, y, x) to reverse.
    pub fn draw(&self, rng: &mut impl Rng) -> [bool; 3] {
        let drawn: [bool; 3] = std::array::from_fn(|_| rng.random::<f64>() < self.probability);
        let mut flip = [false; 3];
        for &axis in &self.axes {
            flip[axis as usize] = drawn[axis as usize];
        }
        flip
    }
}

/// Tolerance in voxels for coordinates half-way between two voxels, where the greater index is nearest, as in ITK:
/// coordinates are rounded to `f32`.
const TIE_VOX: f32 = 1.0 / 16384.0;

/// Applies the spatial part of `params` to an image and its label map `[z, y, x]`. Without a spatial part, or with
/// identity parameters, the result is a copy.
///
/// # Panics
/// The shapes differ.
pub fn apply<L>(
    params: &Params,
    image: &Array3<f32>,
    labels: &Array3<L>,
    spacing_mm: [f64; 3],
) -> (Array3<f32>, Array3<L>)
where
    L: Copy + Default + Send + Sync,
{
    assert_eq!(image.dim(), labels.dim(), "an image and its label map have one shape");
    let nothing = params.flip == [false; 3] && params.affine.is_none() && params.elastic.is_none();
    if nothing || image.is_empty() {
        return (image.clone(), labels.clone());
    }
    let (nz, ny, nx) = image.dim();
    let map = Map::new(params, [nz, ny, nx], spacing_mm);
    let image = image.as_standard_layout();
    let labels = labels.as_standard_layout();
    let source = Source {
        shape_vox: [nz, ny, nx],
        image: image.as_slice().expect("standard layout"),
        labels: labels.as_slice().expect("standard layout"),
        padding: image.iter().copied().fold(f32::INFINITY, f32::min),
    };
    let mut moved_image = Array3::<f32>::zeros((nz, ny, nx));
    let mut moved_labels = Array3::<L>::default((nz, ny, nx));
    let image_planes = moved_image.as_slice_mut().expect("standard layout").par_chunks_exact_mut(ny * nx);
    let label_planes = moved_labels.as_slice_mut().expect("standard layout").par_chunks_exact_mut(ny * nx);
    image_planes.zip(label_planes).enumerate().for_each(|(z, (image_plane, label_plane))| {
        let controls = map.field.as_ref().map(|field| field.plane(z));
        let mut row = [vec![0.0; nx], vec![0.0; nx], vec![0.0; nx]];
        let rows = image_plane.chunks_exact_mut(nx).zip(label_plane.chunks_exact_mut(nx));
        for (y, (image_row, label_row)) in rows.enumerate() {
            map.coordinates(z, y, controls.as_deref(), &mut row);
            source.sample(&row, image_row, label_row);
        }
    });
    (moved_image, moved_labels)
}

/// The coordinate map: output voxel i (z y x) shows the input at c(i) = linear · (i + d(i)) + offset, all in voxels.
struct Map {
    linear: [[f64; 3]; 3],
    offset: [f64; 3],
    /// The displacement field linear · d.
    field: Option<elastic::Field>,
}

impl Map {
    fn new(params: &Params, shape_vox: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        let centre = shape_vox.map(|n| (n as f64 - 1.0) / 2.0);
        let (matrix, shift_mm) = params.affine.unwrap_or(super::affine::Affine::IDENTITY).backward();
        let mut linear: [[f64; 3]; 3] =
            std::array::from_fn(|i| std::array::from_fn(|j| matrix[i][j] * spacing_mm[j] / spacing_mm[i]));
        let mut offset: [f64; 3] = std::array::from_fn(|i| {
            let turned: f64 = (0..3).map(|j| linear[i][j] * centre[j]).sum();
            centre[i] - turned - shift_mm[i] / spacing_mm[i]
        });
        for axis in 0..3 {
            if params.flip[axis] {
                linear[axis] = linear[axis].map(|v| -v);
                offset[axis] = 2.0 * centre[axis] - offset[axis];
            }
        }
        let field = params.elastic.as_ref().map(|e| elastic::Field::new(e, shape_vox, spacing_mm, &linear));
        Self { linear, offset, field }
    }

    /// c(i) for the voxels of one row, given the row's plane of control values.
    fn coordinates(&self, z: usize, y: usize, controls: Option<&[[f32; 3]]>, row: &mut [Vec<f32>; 3]) {
        for (axis, coordinates) in row.iter_mut().enumerate() {
            let [along_z, along_y, along_x] = self.linear[axis];
            let start = along_z * z as f64 + along_y * y as f64 + self.offset[axis];
            for (x, coordinate) in coordinates.iter_mut().enumerate() {
                *coordinate = (start + along_x * x as f64) as f32;
            }
        }
        if let (Some(field), Some(controls)) = (&self.field, controls) {
            field.add_row(controls, y, row);
        }
    }
}

struct Source<'a, L> {
    shape_vox: [usize; 3],
    image: &'a [f32],
    labels: &'a [L],
    padding: f32,
}

impl<L: Copy + Default> Source<'_, L> {
    fn sample(&self, row: &[Vec<f32>; 3], image_row: &mut [f32], label_row: &mut [L]) {
        let [nz, ny, nx] = self.shape_vox;
        let [last_z, last_y, last_x] = self.shape_vox.map(|n| (n - 1) as f32);
        let outputs = image_row.iter_mut().zip(label_row);
        let places = row[0].iter().zip(&row[1]).zip(&row[2]);
        for ((value, label), ((&z, &y), &x)) in outputs.zip(places) {
            let [near_z, near_y, near_x] = [z, y, x].map(|c| c + (0.5 + TIE_VOX));
            let inside = (near_z >= 0.0) & (near_y >= 0.0) & (near_x >= 0.0);
            // Conversion to an integer truncates, which for what is inside is the floor.
            let [iz, iy, ix] = [near_z, near_y, near_x].map(|c| c as i32 as usize);
            if !inside || iz >= nz || iy >= ny || ix >= nx {
                (*value, *label) = (self.padding, L::default());
                continue;
            }
            *label = self.labels[(iz * ny + iy) * nx + ix];

            let (z, y, x) = (z.max(0.0).min(last_z), y.max(0.0).min(last_y), x.max(0.0).min(last_x));
            let [z0, y0, x0] = [z, y, x].map(|c| c as i32 as usize);
            let (fz, fy, fx) = (z - z0 as i32 as f32, y - y0 as i32 as f32, x - x0 as i32 as f32);
            let step_z = if z0 + 1 < nz { ny * nx } else { 0 };
            let step_y = if y0 + 1 < ny { nx } else { 0 };
            let step_x = usize::from(x0 + 1 < nx);
            let corner = (z0 * ny + y0) * nx + x0;
            let block = &self.image[corner..=corner + step_z + step_y + step_x];
            let along_x = |from: usize| {
                let (a, b) = (block[from], block[from + step_x]);
                a + fx * (b - a)
            };
            let along_y = |from: usize| {
                let (a, b) = (along_x(from), along_x(from + step_y));
                a + fy * (b - a)
            };
            let (a, b) = (along_y(0), along_y(step_z));
            *value = a + fz * (b - a);
        }
    }
}

#[cfg(test)]
mod tests;
