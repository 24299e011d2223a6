//! Feature extraction: volumes to feature maps (paper, section 3.3).

pub mod blocks;
pub mod unet;

use crate::error::{Error, Result};
use blocks::Norm;
use serde::{Deserialize, Serialize};

pub use unet::UNet;

/// Section `[features]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Architecture of the U-Nets; an SE-Net does not use it.
    pub architecture: Architecture,
    /// Number of U-Nets in the ensemble, 1 to 16. Training steps alternate between the members; their features have
    /// equal weight (Lakshminarayanan et al. 2017, "Deep ensembles").
    pub ensemble_size: usize,
    /// Channels of the first level, doubled at each further level; for an SE-Net the channels of each block of the
    /// segmenter.
    pub f_maps: i64,
    /// Normalisation after each convolution.
    pub norm: Norm,
    /// Number of resolution levels, that of the input included. An SE-Net does not use this and the following keys.
    pub levels: usize,
    /// Channels of the feature map.
    pub output_channels: i64,
    /// Max-pooling factors z y x in front of levels 2, 3, ...: one fewer than `levels`.
    pub pooling: Vec<[i64; 3]>,
    /// The level whose resolution the feature map has: 0 is the input's, 1 that after the first pooling, ...
    pub output_level: usize,
}

/// Architecture of the U-Nets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// A U-Net of volumes (paper, section 3.3).
    #[serde(rename = "unet-3d")]
    UNet3d,
    /// The same U-Net on each slice, independent of the slices above and below.
    #[serde(rename = "unet-2d")]
    UNet2d,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range, or the number of pooling factors does not fit the number of levels.
    pub fn check(&self) -> Result<()> {
        let key = |name: &str| format!("features.{name}");
        let refuse = |name: &str, expected: &str, found: String| {
            Err(Error::invalid(key(name), expected, found, "change this key"))
        };
        if !(1..=16).contains(&self.ensemble_size) {
            return refuse("ensemble_size", "1 to 16 networks", self.ensemble_size.to_string());
        }
        if !(1..=1024).contains(&self.f_maps) {
            return refuse("f_maps", "1 to 1024 channels", self.f_maps.to_string());
        }
        if !(1..=8).contains(&self.levels) {
            return refuse("levels", "1 to 8 levels", self.levels.to_string());
        }
        if !(1..=1024).contains(&self.output_channels) {
            return refuse("output_channels", "1 to 1024 channels", self.output_channels.to_string());
        }
        if self.pooling.len() + 1 != self.levels {
            let expected = format!("{} triples for {} levels", self.levels - 1, self.levels);
            return refuse("pooling", &expected, self.pooling.len().to_string());
        }
        if self.pooling.iter().flatten().any(|factor| !(1..=4).contains(factor)) {
            return refuse("pooling", "factors from 1 to 4", format!("{:?}", self.pooling));
        }
        if self.architecture == Architecture::UNet2d && self.pooling.iter().any(|factors| factors[0] != 1) {
            return refuse("pooling", "factors of 1 along z for unet-2d", format!("{:?}", self.pooling));
        }
        if self.output_level >= self.levels {
            return refuse("output_level", "a level below features.levels", self.output_level.to_string());
        }
        Ok(())
    }

    /// Number of channels of level 0, 1, ...
    pub fn channels(&self) -> Vec<i64> {
        (0..self.levels).map(|level| self.f_maps << level).collect()
    }

    /// Voxels that the whole pooling joins, across slices and in them.
    pub fn steps(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.pooling.iter().map(|factors| factors[axis] as usize).product())
    }

    /// Shape z y x of each level for an input of `input_vox` voxels.
    pub fn level_shapes(&self, input_vox: [i64; 3]) -> Vec<[i64; 3]> {
        let mut shapes = vec![input_vox];
        for factors in &self.pooling {
            let last = shapes[shapes.len() - 1];
            shapes.push([0, 1, 2].map(|axis| (last[axis] / factors[axis].min(last[axis])).max(1)));
        }
        shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_2d_network_does_not_pool_along_z() {
        let pooling = vec![[1, 2, 2], [2, 2, 2]];
        let (architecture, norm) = (Architecture::UNet3d, Norm::Batch);
        let config = Config {
            architecture,
            ensemble_size: 1,
            f_maps: 4,
            levels: 3,
            output_channels: 4,
            norm,
            pooling,
            output_level: 0,
        };
        assert!(config.check().is_ok());
        let message = Config { architecture: Architecture::UNet2d, ..config }.check().unwrap_err().to_string();
        assert!(message.contains("features.pooling") && message.contains("along z"), "{message}");
    }
}
