//! A scan to the network's array: intensities, body, grid, annotation.

mod air;
pub mod annotation;
mod body_mask;
mod field;
mod grid;
mod intensity;
mod steps;

pub use air::turn_negative;
pub use annotation::Annotation;
pub use body_mask::{Body, body, body_mask};
pub use field::Field;
pub use grid::WorkingGrid;
pub use intensity::{clip, clipped, standardise};
pub use steps::Steps;

use crate::error::{Error, Result};
use crate::volume::Image;
use crate::volume::resample::resize;
use ndarray::{Array3, ArrayView3, s};
use std::ops::Range;

/// Added to the body on each side in-plane, as a fraction of the image.
const BODY_MARGIN: f64 = 0.02;
/// A slice is empty if its intensities differ by less than this fraction of those of the image.
const EMPTY: f32 = 0.01;
/// Between the 31 and 46 of CHAOS T2.
const TYPICAL_SLICES: usize = 40;

/// Section `[preprocessing]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network's array, voxels along z, y, x; z = 0 keeps each scan's own slices, none resampled, cut or padded.
    pub size_vox: [usize; 3],
    /// The part of a scan that the network sees.
    pub crop: Crop,
    /// Whether that part keeps its extent or gets a fixed spacing.
    pub resample: Resample,
    /// Distance between voxels along z, y, x where `resample` is [`Resample::Spacing`]; unused otherwise.
    pub spacing_mm: [f64; 3],
    /// Intensities above this percentile are set to it (100 keeps all).
    pub clip_percentile: f64,
    /// Intensities below this percentile are set to it (0 keeps all).
    pub clip_lower_percentile: f64,
    /// Lengths in mm of `[augment]` and `[inference]` are those of a scan of which the network sees so much in-plane (the root of height
    /// times width), and scale with it: [`WorkingGrid::nominal_spacing_mm`].
    pub nominal_extent_mm: f64,
}

/// What of a scan the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// All of it.
    None,
    /// The box around the body and a margin of 2 % in-plane; every slice but empty ones at the ends.
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
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(
                format!("preprocessing.{key}"),
                expected,
                found,
                "change it in the config or with --set",
            ))
        };
        if self.size_vox.iter().any(|&n| n > 4096) || self.size_vox[1..].contains(&0) {
            let expected = "three sizes z y x from 1 to 4096 (z also 0: a scan's own)";
            return fault("size_vox", expected, format!("{:?}", self.size_vox));
        }
        if self.spacing_mm.iter().any(|mm| !(1e-4..=1e4).contains(mm)) {
            return fault("spacing_mm", "three distances z y x from 0.0001 to 10000", format!("{:?}", self.spacing_mm));
        }
        if !(self.clip_percentile > 0.0 && self.clip_percentile <= 100.0) {
            return fault("clip_percentile", "more than 0 and at most 100", self.clip_percentile.to_string());
        }
        if !(self.clip_lower_percentile >= 0.0 && self.clip_lower_percentile < self.clip_percentile) {
            let found = self.clip_lower_percentile.to_string();
            return fault("clip_lower_percentile", "at least 0 and less than clip_percentile", found);
        }
        if !(1e-6..=1e6).contains(&self.nominal_extent_mm) {
            return fault("nominal_extent_mm", "a length from 1e-6 to 1e6", self.nominal_extent_mm.to_string());
        }
        Ok(())
    }

    /// `size_vox`, with slices as many as abdominal scans have where each scan keeps its own: for estimates.
    pub fn typical_size_vox(&self) -> [usize; 3] {
        let [z, y, x] = self.size_vox;
        [if z == 0 { TYPICAL_SLICES } else { z }, y, x]
    }
}

/// A scan as the network sees it.
#[derive(Debug)]
pub struct Prepared {
    /// The network's array, mean 0 and standard deviation 1.
    pub input: Array3<f32>,
    /// Where it lies in the scan.
    pub grid: WorkingGrid,
    /// The voxels of the network's array that are padding of the scan; None where none are.
    pub padding: Option<Array3<bool>>,
    /// The size of the next largest region beside the body that was cropped to, as a fraction of it: [`Body::next_fraction`]. 0 where
    /// nothing was cropped.
    pub next_body_fraction: f64,
}

/// Clips, crops, resamples, cuts or pads (with the image's minimum where it has a fixed spacing), and scales to mean 0 and standard deviation 1
/// over the working volume. A constant image becomes zeros. Padding of the scan counts for no percentile, and then stands for the air that it
/// hides: it takes the image's minimum, so that a scan with padding and one without are scaled alike.
pub fn prepare(image: &Image, config: &Config) -> Prepared {
    let (voxels, padding) = clipped(image, config.clip_lower_percentile, config.clip_percentile);
    let body = (config.crop == Crop::Body).then(|| body(voxels.view()));
    let seen = body.as_ref().map(|body| seen_of(voxels.view(), body));
    let grid = WorkingGrid::new(&image.geometry, seen, config);
    let input = input_of(voxels.view(), &grid, config);
    let padding = padding.map(|padding| padding_on(&padding, &grid));
    Prepared { input, grid, padding, next_body_fraction: body.map_or(0.0, |body| body.next_fraction) }
}

/// Which voxels of a grid's array are padding of the scan.
pub fn padding_on(padding: &Array3<bool>, grid: &WorkingGrid) -> Array3<bool> {
    let fractions = grid.cropped(padding.view()).mapv(|is_padding| f32::from(u8::from(is_padding)));
    grid.placed(resize(fractions.view(), grid.resampled_vox).mapv(|fraction| fraction > 0.5), false)
}

/// The array of [`prepare`] on another grid.
pub fn prepare_on(image: &Image, grid: &WorkingGrid, config: &Config) -> Array3<f32> {
    let (voxels, _) = clipped(image, config.clip_lower_percentile, config.clip_percentile);
    input_of(voxels.view(), grid, config)
}

/// Beside a scan of a fixed spacing lies air; beside a part of a scan the rest of the body, of which its border tells most.
fn input_of(voxels: ArrayView3<f32>, grid: &WorkingGrid, config: &Config) -> Array3<f32> {
    let mut resampled = resize(grid.cropped(voxels), grid.resampled_vox);
    match config.resample {
        Resample::Size => {
            standardise(&mut resampled);
            grid.extended(resampled)
        }
        Resample::Spacing => {
            let minimum = voxels.iter().copied().fold(f32::INFINITY, f32::min);
            let mut input = grid.placed(resampled, minimum);
            standardise(&mut input);
            input
        }
    }
}

/// The voxels z y x of a scan that the network sees.
pub fn seen_box(image: &Image, config: &Config) -> [Range<usize>; 3] {
    match config.crop {
        Crop::None => image.geometry.shape_vox.map(|n| 0..n),
        Crop::Body => {
            let (voxels, _) = clipped(image, config.clip_lower_percentile, config.clip_percentile);
            seen_of(voxels.view(), &body(voxels.view()))
        }
    }
}

fn seen_of(voxels: ArrayView3<f32>, body: &Body) -> [Range<usize>; 3] {
    let [_, ys, xs] = body.bounding_box(BODY_MARGIN);
    [slices_with_contrast(voxels), ys, xs]
}

/// All slices but those at the ends that are the same everywhere; all of a volume that is.
fn slices_with_contrast(voxels: ArrayView3<f32>) -> Range<usize> {
    let range = |slice: ArrayView3<f32>| {
        slice.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
    };
    let [low, high] = range(voxels);
    let has_contrast = |z: &usize| {
        let [least, most] = range(voxels.slice(s![*z..*z + 1, .., ..]));
        most - least > EMPTY * (high - low)
    };
    let slices = 0..voxels.dim().0;
    match (slices.clone().find(has_contrast), slices.clone().rfind(has_contrast)) {
        (Some(first), Some(last)) => first..last + 1,
        _ => slices,
    }
}

#[cfg(test)]
mod tests;
