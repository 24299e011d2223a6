//! A scan to the network's array, and the network's answer back to the scan.

mod brightness;
mod native;

pub use brightness::Brightness;
pub use native::NativeScores;

use super::foreground::{body_mask, bounding_box};
use super::resample::{resize, resize_known_labels, resize_labels};
use super::{Geometry, Image};
use crate::error::{Error, Result};
use ndarray::{Array3, ArrayView3, s};
use std::ops::Range;

/// Added on each side in-plane, as a share of the image.
const BODY_MARGIN: f64 = 0.02;
/// An image whose spread is below this share of its magnitude is constant.
const CONSTANT: f64 = 1e-5;
/// Between the 31 and 46 of CHAOS T2.
const TYPICAL_SLICES: usize = 40;

/// Section `[preprocess]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network's array, voxels along z, y, x; z = 0 keeps each scan's own slices, none resampled, cut or padded.
    pub size_vox: [usize; 3],
    pub crop: Crop,
    pub resample: Resample,
    /// Distance between voxels along z, y, x where `resample` is [`Resample::Spacing`]; unused otherwise.
    pub spacing_mm: [f64; 3],
    /// Intensities above this percentile are set to it (100 keeps all).
    pub clip_percentile: f64,
    /// Intensities below this percentile are set to it (0 keeps all).
    pub clip_lower_percentile: f64,
}

/// What of a scan the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// All of it.
    None,
    /// The box around the body and a margin of 2 % in-plane; every slice.
    Body,
}

/// What a scan is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resample {
    /// All that the crop keeps, resized to `size_vox`: the spacing differs from scan to scan.
    Size,
    /// `spacing_mm`, to the nearest whole number of voxels; the middle of that, cut or padded to `size_vox`.
    Spacing,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("preprocess.{key}"), expected, found, "change it in the config or with --set"))
        };
        if self.size_vox.iter().any(|&n| n > 4096) || self.size_vox[1..].contains(&0) {
            let expected = "three sizes z y x from 1 to 4096 (z also 0: a scan's own)";
            return fault("size_vox", expected, format!("{:?}", self.size_vox));
        }
        if self.spacing_mm.iter().any(|mm| !(0.1..=100.0).contains(mm)) {
            return fault("spacing_mm", "three distances z y x from 0.1 to 100", format!("{:?}", self.spacing_mm));
        }
        if !(self.clip_percentile > 0.0 && self.clip_percentile <= 100.0) {
            return fault("clip_percentile", "more than 0 and at most 100", self.clip_percentile.to_string());
        }
        if !(self.clip_lower_percentile >= 0.0 && self.clip_lower_percentile < self.clip_percentile) {
            let found = self.clip_lower_percentile.to_string();
            return fault("clip_lower_percentile", "at least 0 and less than clip_percentile", found);
        }
        Ok(())
    }

    /// `size_vox`, with slices as many as abdominal scans have where each scan keeps its own: for estimates.
    pub fn typical_size_vox(&self) -> [usize; 3] {
        let [z, y, x] = self.size_vox;
        [if z == 0 { TYPICAL_SLICES } else { z }, y, x]
    }
}

/// How a scan (canonical frame, native voxels) maps to the network's array: a box of it is resampled over the same
/// extent, then cut or padded. Along each axis, between voxel indices,
///
/// ```text
/// native + 1/2 = start + (working + offset + 1/2) (end - start) / resampled
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingGrid {
    pub native_shape_vox: [usize; 3],
    /// First native voxel of the box, z y x.
    pub start_vox: [usize; 3],
    /// One past its last.
    pub end_vox: [usize; 3],
    /// Voxels that the box is resampled to.
    pub resampled_vox: [usize; 3],
    /// The network's array: the middle of those, cut or padded.
    pub shape_vox: [usize; 3],
}

/// Clips, crops, resamples, cuts or pads (with the image's minimum), and scales to mean 0 and standard deviation 1
/// over the working volume. A constant image becomes zeros.
pub fn prepare(image: &Image, config: &Config) -> (Array3<f32>, WorkingGrid) {
    let mut voxels = image.voxels.clone();
    clip(&mut voxels, config.clip_lower_percentile, config.clip_percentile);
    let grid = WorkingGrid::new(voxels.view(), image.geometry.spacing_mm(), config);
    let minimum = voxels.iter().copied().fold(f32::INFINITY, f32::min);
    let mut working = grid.placed(resize(grid.cropped(voxels.view()), grid.resampled_vox), minimum);
    standardise(&mut working);
    (working, grid)
}

/// Sets what lies beyond these percentiles of the finite intensities to them.
pub fn clip(voxels: &mut Array3<f32>, lower: f64, upper: f64) {
    if lower <= 0.0 && upper >= 100.0 {
        return;
    }
    let mut finite: Vec<f32> = voxels.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() {
        return;
    }
    let high = if upper < 100.0 { percentile(&mut finite, upper) } else { f32::INFINITY };
    let low = if lower > 0.0 { percentile(&mut finite, lower) } else { f32::NEG_INFINITY };
    voxels.par_mapv_inplace(|v| v.max(low).min(high));
}

/// NumPy's: linear between the two neighbours in rank. Reorders `values`.
pub fn percentile(values: &mut [f32], percent: f64) -> f32 {
    let rank = percent / 100.0 * (values.len() - 1) as f64;
    let (_, &mut below, above) = values.select_nth_unstable_by(rank as usize, f32::total_cmp);
    let next = above.iter().copied().min_by(f32::total_cmp).unwrap_or(below);
    (f64::from(below) + rank.fract() * (f64::from(next) - f64::from(below))) as f32
}

fn body_box(voxels: ArrayView3<f32>) -> ([usize; 3], [usize; 3]) {
    let shape = voxels.shape();
    let mask = body_mask(voxels);
    let (mut start, mut end) = bounding_box(mask.view()).expect("a body mask is never empty");
    (start[0], end[0]) = (0, shape[0]);
    for axis in [1, 2] {
        let margin = (BODY_MARGIN * shape[axis] as f64).ceil() as usize;
        start[axis] = start[axis].saturating_sub(margin);
        end[axis] = (end[axis] + margin).min(shape[axis]);
    }
    (start, end)
}

/// (v - mean) / sd over all voxels, sums in float64 and in order.
fn standardise(voxels: &mut Array3<f32>) {
    let count = voxels.len() as f64;
    let mean = voxels.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = voxels.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    let sd = variance.sqrt();
    let largest = voxels.iter().fold(0.0, |largest: f64, &v| largest.max(f64::from(v).abs()));
    if sd <= CONSTANT * largest {
        voxels.fill(0.0);
        return;
    }
    voxels.mapv_inplace(|v| ((f64::from(v) - mean) / sd) as f32);
}

impl WorkingGrid {
    fn new(voxels: ArrayView3<f32>, spacing_mm: [f64; 3], config: &Config) -> Self {
        let native_shape_vox = [0, 1, 2].map(|axis| voxels.shape()[axis]);
        let (start_vox, end_vox) = match config.crop {
            Crop::None => ([0; 3], native_shape_vox),
            Crop::Body => body_box(voxels),
        };
        let mut shape_vox = config.size_vox;
        let own_slices = shape_vox[0] == 0;
        if own_slices {
            shape_vox[0] = end_vox[0] - start_vox[0];
        }
        let resampled_vox = match config.resample {
            Resample::Size => shape_vox,
            Resample::Spacing => [0, 1, 2].map(|axis| {
                if axis == 0 && own_slices {
                    return shape_vox[0];
                }
                let extent_mm = (end_vox[axis] - start_vox[axis]) as f64 * spacing_mm[axis];
                ((extent_mm / config.spacing_mm[axis]).round() as usize).max(1)
            }),
        };
        Self { native_shape_vox, start_vox, end_vox, resampled_vox, shape_vox }
    }

    /// The network's slice that shows most of a native one.
    pub fn slice_of(&self, native: usize) -> usize {
        let within = native.saturating_sub(self.start_vox[0]) as isize;
        let resampled = (2 * within + 1) * self.resampled_vox[0] as isize / (2 * self.crop_shape_vox()[0] as isize);
        (resampled - self.offset_vox()[0]).clamp(0, self.shape_vox[0] as isize - 1) as usize
    }

    /// Where native slices lie in the depth of the network's array: 0 is its first face, 1 its last one.
    pub fn depth_of(&self, slices: &Range<usize>) -> Range<f64> {
        let on_array = |face: usize| {
            let within = (face as f64 - self.start_vox[0] as f64) / self.crop_shape_vox()[0] as f64;
            (within * self.resampled_vox[0] as f64 - self.offset_vox()[0] as f64) / self.shape_vox[0] as f64
        };
        on_array(slices.start)..on_array(slices.end)
    }

    /// Native labels onto the working grid, class by class; padded with 0.
    pub fn labels(&self, native: ArrayView3<i32>) -> Array3<i32> {
        self.placed(resize_labels(self.cropped(native), self.resampled_vox), 0)
    }

    /// The same where voxels of value `ignore` are not annotated and have no say.
    pub fn known_labels(&self, native: ArrayView3<i32>, ignore: i32) -> Array3<i32> {
        self.placed(resize_known_labels(self.cropped(native), self.resampled_vox, Some(ignore)), 0)
    }

    /// Fraction of each working voxel that is annotated, i.e. whose native label is not `ignore`; padding is not. None
    /// where all that the network sees of the scan is.
    pub fn known(&self, native: ArrayView3<i32>, ignore: Option<i32>) -> Option<Array3<f32>> {
        let ignore = ignore?;
        let known = self.cropped(native).mapv(|label| if label == ignore { 0.0 } else { 1.0 });
        if known.iter().all(|&known| known == 1.0) {
            return None;
        }
        Some(self.placed(resize(known.view(), self.resampled_vox), 0.0))
    }

    /// Distance between working voxels along z, y, x; off the configured one by what rounding to whole voxels asks.
    pub fn spacing_mm(&self, native: &Geometry) -> [f64; 3] {
        let spacing = native.spacing_mm();
        let crop = self.crop_shape_vox();
        [0, 1, 2].map(|axis| spacing[axis] * crop[axis] as f64 / self.resampled_vox[axis] as f64)
    }

    fn crop_shape_vox(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.end_vox[axis] - self.start_vox[axis])
    }

    fn cropped<'a, T>(&self, native: ArrayView3<'a, T>) -> ArrayView3<'a, T> {
        assert_eq!(native.shape(), self.native_shape_vox, "the grid was made from a volume of this shape");
        let ([z0, y0, x0], [z1, y1, x1]) = (self.start_vox, self.end_vox);
        native.slice_move(s![z0..z1, y0..y1, x0..x1])
    }

    /// Index, among the resampled voxels, of the network's first; below 0 where that is padding. The middle voxel,
    /// n / 2 of n, comes to lie on the middle voxel.
    fn offset_vox(&self) -> [isize; 3] {
        let middle = |n: usize| (n / 2) as isize;
        [0, 1, 2].map(|axis| middle(self.resampled_vox[axis]) - middle(self.shape_vox[axis]))
    }

    /// The resampled voxels that the network sees.
    fn visible_vox(&self) -> [Range<usize>; 3] {
        let offset = self.offset_vox();
        [0, 1, 2].map(|axis| {
            let end = offset[axis] + self.shape_vox[axis] as isize;
            offset[axis].max(0) as usize..(end as usize).min(self.resampled_vox[axis])
        })
    }

    /// The native voxels, counted from the start of the box, whose centres lie in what the network sees.
    fn seen_vox(&self) -> [Range<usize>; 3] {
        let (crop, visible) = (self.crop_shape_vox(), self.visible_vox());
        // (j + 1/2) resampled / crop >= face, in whole numbers
        let first_beyond = |axis: usize, face: usize| {
            let before = |&j: &usize| (2 * j + 1) * self.resampled_vox[axis] < 2 * face * crop[axis];
            (0..crop[axis]).take_while(before).count()
        };
        [0, 1, 2].map(|axis| first_beyond(axis, visible[axis].start)..first_beyond(axis, visible[axis].end))
    }

    /// The resampled box on the network's array.
    fn placed<T: Clone>(&self, resampled: Array3<T>, padding: T) -> Array3<T> {
        if self.resampled_vox == self.shape_vox {
            return resampled;
        }
        let [zs, ys, xs] = self.visible_vox();
        let [z, y, x] = self.offset_vox().map(|offset| (-offset).max(0) as usize);
        let mut working = Array3::from_elem(self.shape_vox, padding);
        let mut inside = working.slice_mut(s![z..z + zs.len(), y..y + ys.len(), x..x + xs.len()]);
        inside.assign(&resampled.slice(s![zs, ys, xs]));
        working
    }
}

#[cfg(test)]
mod tests;
