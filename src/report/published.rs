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

/// The support's mask laid over the query.
const fn copy(method: &'static str, mean_dice: f64, protocol: &'static str, note: &'static str) -> Published {
    Published { method, mean_dice, dimension: "3D", protocol, setting: "-", note }
}

/// Rows that predict the whole volume first, then EP1.
pub const PUBLISHED: &[Published] = &[
    Published {
        method: "3D SSL-ALPNet",
        mean_dice: 62.7,
        dimension: "3D",
        protocol: "full",
        setting: "1",
        note: "Zhang and Liu 2022, which ssl3d implements",
    },
    copy("mask copy", 36.3, "full", "centres aligned"),
    copy("affine mask copy", 39.2, "full", "body boxes aligned"),
    copy("affine mask copy", 41.8, "EP1", "body boxes aligned"),
    copy("stretched mask copy", 48.2, "EP1", "body boxes aligned, true z-range"),
    slices("SSL-ALPNet", 78.84, "1"),
    Published { note: "not verified here", ..slices("ADNet", 78.5, "1") },
    Published { note: "not verified here", ..slices("Q-Net", 81.0, "1") },
    slices("RPT", 82.44, "1"),
    slices("GMRD", 82.90, "1"),
    slices("PGRNet", 83.47, "1"),
    slices("FoB+SAM", 84.46, "1"),
    slices("RE-SAM2", 85.31, "1"),
    slices("vanilla PANet", 46.33, "2"),
    slices("SE-Net", 50.66, "2"),
    slices("SSL-PANet", 54.85, "2"),
    slices("SSL-ALPNet", 73.02, "2"),
    slices("GMRD", 79.70, "2"),
    slices("FoB+SAM", 80.46, "2"),
];

/// The row of a method in a setting; that of the protocol asked for ("EP1" or "full") where there are several.
pub fn find(method: &str, setting: &str, protocol: &str) -> Option<&'static Published> {
    let rows = PUBLISHED.iter().filter(|row| row.method == method && row.setting == setting);
    rows.min_by_key(|row| row.protocol != protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_of_the_papers_table_finds_its_published_figure() {
        for (method, setting, protocol, expected) in [
            ("SE-Net", "2", "full", Some((50.66, "EP1"))),
            ("vanilla PANet", "2", "EP1", Some((46.33, "EP1"))),
            ("SSL-PANet", "2", "full", Some((54.85, "EP1"))),
            ("SSL-ALPNet", "1", "full", Some((78.84, "EP1"))),
            ("SSL-ALPNet", "2", "full", Some((73.02, "EP1"))),
            ("3D SSL-ALPNet", "1", "EP1", Some((62.7, "full"))),
            ("3D SSL-ALPNet", "2", "full", None),
            ("mask copy", "-", "full", Some((36.3, "full"))),
            ("affine mask copy", "-", "full", Some((39.2, "full"))),
            ("affine mask copy", "-", "EP1", Some((41.8, "EP1"))),
            ("SE-Net", "1", "full", None),
        ] {
            let found = find(method, setting, protocol).map(|row| (row.mean_dice, row.protocol));
            assert_eq!(found, expected, "{method}, Setting {setting}, {protocol}");
        }
    }
}
