//! A scan to the network's array: intensities, body, grid, annotation.

mod air;
pub mod annotation;
mod body_mask;
mod grid;
mod intensity;
mod steps;

pub use annotation::Annotation;
pub use body_mask::body_mask;
pub use grid::WorkingGrid;
pub use intensity::clip;
pub use steps::Steps;

use crate::components::bounding_box;
use crate::error::{Error, Result};
use crate::volume::Image;
use crate::volume::resample::resize;
use intensity::standardise;
use ndarray::{Array3, ArrayView3};
use std::ops::Range;

/// Added to the body on each side in-plane, as a fraction of the image.
const BODY_MARGIN: f64 = 0.02;
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

/// The box around the body in an image whose outliers are clipped, z y x: every slice, and in-plane `margin` of the image more on
/// each side.
pub fn body_box(voxels: ArrayView3<f32>, margin: f64) -> [Range<usize>; 3] {
    let found = bounding_box(body_mask(voxels).view(), |inside| *inside).expect("a body mask is never empty");
    let in_plane = |axis: usize| {
        let count = voxels.shape()[axis];
        let margin = (margin * count as f64).ceil() as usize;
        found[axis].start.saturating_sub(margin)..(found[axis].end + margin).min(count)
    };
    [0..voxels.shape()[0], in_plane(1), in_plane(2)]
}

#[cfg(test)]
mod tests;
