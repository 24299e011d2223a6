//! What others report on CHAOS T2-SPIR: liver, both kidneys, spleen, one labelled scan, no organ labels in training.
//!
//! Setting 1 excludes nothing from training; Setting 2 excludes the slices that show the tested organs.
//! EP1 restricts a query to its own true z-range of the organ and matches thirds with three support slices:
//! it is an easier question than the whole volume, so its rows are not to be compared with full-volume rows.

/// One published row, or a floor that needs no learning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    pub method: &'static str,
    /// Mean Dice over the four organs, per cent.
    pub mean_dice: f64,
    /// What the network sees: "2D" or "3D".
    pub dimension: &'static str,
    /// "EP1" or "full".
    pub protocol: &'static str,
    /// "1", "2", or "-" where nothing is trained.
    pub setting: &'static str,
    pub note: &'static str,
}

const fn slices(method: &'static str, mean_dice: f64, setting: &'static str) -> Published {
    Published { method, mean_dice, dimension: "2D", protocol: "EP1", setting, note: "" }
}

const fn copy(mean_dice: f64, protocol: &'static str, note: &'static str) -> Published {
    Published { method: "copy the support's mask", mean_dice, dimension: "3D", protocol, setting: "-", note }
}

/// Rows that predict the whole volume first, then EP1.
pub const PUBLISHED: &[Published] = &[
    Published {
        method: "Zhang and Liu 2022",
        mean_dice: 62.7,
        dimension: "3D",
        protocol: "full",
        setting: "1",
        note: "the paper that ssl3d implements",
    },
    copy(36.3, "full", "centres aligned"),
    copy(39.2, "full", "body boxes aligned"),
    copy(41.8, "EP1", "body boxes aligned"),
    copy(48.2, "EP1", "stretched to the true z-range"),
    slices("SSL-ALPNet", 78.84, "1"),
    Published { note: "not verified here", ..slices("ADNet", 78.5, "1") },
    Published { note: "not verified here", ..slices("Q-Net", 81.0, "1") },
    slices("RPT", 82.44, "1"),
    slices("GMRD", 82.90, "1"),
    slices("PGRNet", 83.47, "1"),
    slices("FoB+SAM", 84.46, "1"),
    slices("RE-SAM2", 85.31, "1"),
    slices("PANet", 46.33, "2"),
    slices("SE-Net", 50.66, "2"),
    slices("SSL-PANet", 54.85, "2"),
    slices("SSL-ALPNet", 73.02, "2"),
    slices("GMRD", 79.70, "2"),
    slices("FoB+SAM", 80.46, "2"),
];
