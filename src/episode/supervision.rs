//! The source of the masks of episodes, and the classes that must not be among them.

use super::split;
use crate::error::{Error, Result};
use crate::preprocessing;
use serde::{Deserialize, Serialize};

/// Section `[supervision]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Source of the masks.
    pub source: Source,
    /// Number of training scans (the first ones) that are annotated; 0: all. Only for [`Source::Organs`].
    pub annotated_scans: usize,
    /// Whether training may use organs that are tested later. This measures the effect of a few annotated scans and is
    /// no few-shot protocol. Only for [`Source::Organs`].
    pub tested_organs: bool,
}

/// The regions that serve as classes in an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Supervoxels: support and query are one scan.
    Supervoxels,
    /// Annotated organs that are not tested: support and query are two scans.
    Organs,
    /// Tissues of generated anatomies, drawn anew for each episode: no scan is looked at.
    Generated,
    /// No training: the network keeps its initial weights.
    #[serde(rename = "none")]
    Untrained,
}

impl Config {
    /// Checks the section together with the sections on which it depends.
    ///
    /// # Errors
    /// Organs are the source and every organ is tested, or whole volumes are of different depths.
    pub fn check(
        &self,
        split: &split::Config,
        episode: &super::Config,
        preprocessing: &preprocessing::Config,
    ) -> Result<()> {
        if self.source != Source::Organs {
            return Ok(());
        }
        let refuse = |expected: &str, found: &str, remedy: &str| {
            Err(Error::invalid("supervision.source = \"organs\"", expected, found, remedy))
        };
        if split.groups.is_empty() && !self.tested_organs {
            let remedy = "tested organs are never learned from: name in split.groups which are tested together";
            return refuse("organs that are not tested", "split.groups = [], which tests all", remedy);
        }
        if episode.of_member(0).depth_vox == 0 && preprocessing.size_vox[0] == 0 {
            let remedy = "set preprocessing.size_vox[0] or episode.depth_vox: support and query are two scans";
            return refuse("scans of equal depth", "preprocessing.size_vox[0] = 0", remedy);
        }
        Ok(())
    }
}

/// The admissible content of the episodes of one training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Section `[supervision]`.
    pub supervision: Config,
    /// The value of `split.setting`.
    pub setting: u8,
    /// Class indices, as in [`super::Scan::organs`], on which the trained network is tested.
    pub tested: Vec<u8>,
}

impl Rules {
    /// The rules for scans of which every class may be learned.
    pub fn annotated() -> Self {
        let supervision = Config { source: Source::Organs, annotated_scans: 0, tested_organs: false };
        Self { supervision, setting: 1, tested: vec![] }
    }

    /// The rules for supervoxels without any use of annotation.
    pub fn unlabelled() -> Self {
        let supervision = Config { source: Source::Supervoxels, annotated_scans: 0, tested_organs: false };
        Self { supervision, setting: 1, tested: vec![] }
    }

    /// Whether the training scan at `position` must have its organs.
    pub fn need_organs(&self, position: usize) -> bool {
        match self.supervision.source {
            Source::Supervoxels => self.setting == 2,
            Source::Organs => self.is_annotated(position),
            Source::Generated | Source::Untrained => false,
        }
    }

    pub(super) fn is_annotated(&self, position: usize) -> bool {
        self.supervision.annotated_scans == 0 || position < self.supervision.annotated_scans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_asked_for_where_the_rules_need_them() {
        use Source::{Organs, Supervoxels, Untrained};
        for (source, annotated_scans, setting, expected) in [
            (Supervoxels, 0, 1, [false; 3]),
            (Supervoxels, 1, 2, [true; 3]),
            (Organs, 0, 1, [true; 3]),
            (Organs, 2, 2, [true, true, false]),
            (Untrained, 0, 2, [false; 3]),
        ] {
            let rules = Rules {
                supervision: Config { source, annotated_scans, tested_organs: false },
                setting,
                tested: vec![],
            };
            assert_eq!([0, 1, 2].map(|position| rules.need_organs(position)), expected, "{rules:?}");
        }
        assert!(!Rules::unlabelled().need_organs(0));
    }
}
