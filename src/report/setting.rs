//! What a training saw of the classes that are tested.

use std::fmt;

/// In files and tables: `1`, `2`, `seen`, `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Setting {
    /// Nothing is excluded: the tested classes are in the training scans, without labels.
    #[serde(rename = "1")]
    One,
    /// The slices that show a tested class are excluded.
    #[serde(rename = "2")]
    Two,
    /// The training had labels of the tested classes.
    #[serde(rename = "seen")]
    Seen,
    /// Nothing is trained.
    #[serde(rename = "-")]
    Untrained,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Seen => "seen",
            Self::Untrained => "-",
        })
    }
}
