//! Descriptions of the labels for ITK-SNAP and 3D Slicer.

use super::summary::LabelClass;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub const ITK_SNAP: &str = "labels.txt";
pub const SLICER: &str = "labels.ctbl";

/// Paths and contents of the label descriptions.
pub fn descriptions(classes: &[LabelClass], out: &Path) -> [(PathBuf, String); 2] {
    let mut itk_snap = "################################################\n# ITK-SnAP Label Description File\n\
        # IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n################################################\n    \
        0     0    0    0        0  0  0    \"Clear Label\"\n"
        .to_owned();
    let mut slicer = "# 3D Slicer color table\n0 background 0 0 0 0\n".to_owned();
    for LabelClass { value, name, colour: [red, green, blue] } in classes {
        let plain = name.replace(['"', '\n', '\r'], "'");
        writeln!(itk_snap, "{value:5} {red:5} {green:4} {blue:4}        1  1  1    \"{plain}\"").expect("a string");
        let word: String = name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        writeln!(slicer, "{value} {word} {red} {green} {blue} 255").expect("a string");
    }
    [(out.join(ITK_SNAP), itk_snap), (out.join(SLICER), slicer)]
}
