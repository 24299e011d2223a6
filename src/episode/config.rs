//! Section `[episode]`.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Section `[episode]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of supervoxels (or organs) per episode, 1 to 255; each is a foreground class of its own.
    pub regions: usize,
    /// Fewest voxels of a supervoxel on the working grid, within its slab.
    pub min_size_vox: usize,
    /// Largest supervoxel, as a fraction of all voxels with a label (the body, where the outside has label 0).
    pub max_fraction: f64,
    /// Number of consecutive slices of an episode (a slab); 0: the whole volume.
    pub depth_vox: usize,
    /// Whether support and query are the same slab.
    pub slabs: Slabs,
    /// Number of ensemble members (the first ones) that train on whole volumes, whatever the two keys above are.
    pub whole_volume_members: usize,
}

/// Whether support and query show a supervoxel on the same slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slabs {
    /// One slab for both.
    Shared,
    /// A slab for each, where the supervoxel is large enough for two (Hansen et al. 2022).
    Separate,
}

impl Config {
    /// The section as it applies to the ensemble member of this number.
    pub fn of_member(&self, member: usize) -> Self {
        if member < self.whole_volume_members {
            Self { depth_vox: 0, slabs: Slabs::Shared, ..self.clone() }
        } else {
            self.clone()
        }
    }

    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range, or separate slabs are configured together with whole volumes.
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String, remedy: &str| {
            Err(Error::invalid(format!("episode.{key}"), expected, found, remedy))
        };
        if !(1..=255).contains(&self.regions) {
            return fault("regions", "1 to 255", self.regions.to_string(), "1 is the paper's");
        }
        if self.min_size_vox == 0 {
            return fault("min_size_vox", "1 or more", "0".into(), "a mask must not be empty");
        }
        if !(0.0..=1.0).contains(&self.max_fraction) {
            let found = self.max_fraction.to_string();
            return fault("max_fraction", "a fraction from 0 to 1", found, "1 admits everything");
        }
        if self.slabs == Slabs::Separate && self.depth_vox == 0 {
            let remedy = "set episode.depth_vox: a whole volume has one slab";
            return fault("slabs", "\"shared\" with depth_vox = 0", "\"separate\"".into(), remedy);
        }
        Ok(())
    }
}
