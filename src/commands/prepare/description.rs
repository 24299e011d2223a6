//! What is written of each scan, and `dataset.json`, which describes it.

use super::{Origin, Scan, Source};
use crate::error::{Error, Result};
use crate::preprocessing::Steps;
use crate::volume::nifti;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The file that describes a dataset, in its folder.
pub const DESCRIPTION: &str = "dataset.json";

/// What stands in [`DESCRIPTION`].
#[derive(Debug, Serialize)]
pub struct Description {
    /// What the dataset is called.
    pub name: String,
    /// Under which it may be used, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<&'static str>,
    /// Name of the folder or archive that it was made from.
    pub source: String,
    /// Version of the program.
    pub ssl3d: &'static str,
    /// What was done to each scan.
    pub steps: Steps,
    /// Label value of each class.
    pub classes: BTreeMap<String, i32>,
    /// By id.
    pub scans: BTreeMap<String, Entry>,
    /// Scans that could not be read, and why.
    pub left_out: BTreeMap<String, String>,
}

/// One scan in the description.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Below the source.
    pub from: String,
    /// How many files were read.
    pub files: usize,
    /// BLAKE3 over the files that were read, one after another.
    pub source_digest: String,
    /// BLAKE3 of the image that was written.
    pub image_digest: String,
    /// The same of the label map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_digest: Option<String>,
    /// Voxels along z, y, x.
    pub shape_zyx: [usize; 3],
    /// Distance between voxels along z, y, x in mm.
    pub spacing_zyx_mm: [f64; 3],
    /// Voxels of each class.
    pub label_vox: BTreeMap<String, usize>,
    /// What is odd about the files.
    pub warnings: Vec<String>,
}

/// The file of a scan's image.
pub fn image_name(id: &str) -> String {
    format!("image_{id}.nii.gz")
}

/// The file of its label map.
pub fn label_name(id: &str) -> String {
    format!("label_{id}.nii.gz")
}

/// Works on a scan and writes it to `out`.
///
/// # Errors
/// A file cannot be read or written.
pub fn write_scan(scan: Scan, source: &Source, origin: &Origin, steps: &Steps, out: &Path) -> Result<Entry> {
    let mut digest = blake3::Hasher::new();
    for file in &scan.files {
        let bytes = std::fs::File::open(file).map_err(Error::io("open", file))?;
        digest.update_reader(bytes).map_err(Error::io("read", file))?;
    }
    let (image, label) = steps.apply(scan.image, scan.label);
    let of = |path: &Path| -> Result<String> {
        Ok(blake3::hash(&std::fs::read(path).map_err(Error::io("read", path))?).to_hex().to_string())
    };
    let image_path = out.join(image_name(&source.id));
    nifti::write_new(&image_path, &image)?;
    let (mut label_digest, mut label_vox) = (None, BTreeMap::new());
    if let Some(label) = &label {
        let path = out.join(label_name(&source.id));
        nifti::write_new(&path, label)?;
        label_digest = Some(of(&path)?);
        for (name, &value) in &origin.classes {
            label_vox.insert(name.clone(), label.voxels.iter().filter(|&&voxel| voxel == value).count());
        }
    }
    Ok(Entry {
        from: source.folder.strip_prefix(&origin.root).unwrap_or(&source.folder).display().to_string(),
        files: scan.files.len(),
        source_digest: digest.finalize().to_hex().to_string(),
        image_digest: of(&image_path)?,
        label_digest,
        shape_zyx: image.geometry.shape_vox,
        spacing_zyx_mm: image.geometry.spacing_mm(),
        label_vox,
        warnings: scan.warnings,
    })
}
