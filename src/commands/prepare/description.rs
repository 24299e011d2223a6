//! What is written of each scan, and `dataset.json`, which describes it.

use super::{Origin, Scan, Source};
use crate::commands::progress;
use crate::error::{Error, Result};
use crate::preprocessing::Steps;
use crate::volume::{Class, Image, nifti};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use crate::volume::dataset::description::FILE as DESCRIPTION;

/// What is known of the labels beside the classes.
#[derive(Default)]
pub struct Labelling {
    /// Label value of what nobody has annotated.
    pub ignore: Option<i32>,
    /// What they are taken for where nothing names them.
    pub guess: Option<Guess>,
}

/// Classes that nobody has named.
pub struct Guess {
    /// What to say of them.
    pub text: String,
    /// What label values are taken for.
    pub classes: BTreeMap<String, i32>,
}

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
    /// Label value of what nobody has annotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<i32>,
    /// By id.
    pub scans: BTreeMap<String, Entry>,
    /// Scans that could not be read, and why.
    pub left_out: BTreeMap<String, String>,
}

impl Description {
    /// Says what the labels are called where nobody has named them, and which are of no class.
    pub fn name_labels(&mut self, labelling: &Labelling) {
        let values = self.values();
        let list = |values: &[i32]| values.iter().take(12).map(i32::to_string).collect::<Vec<_>>().join(", ");
        let others = |known: &BTreeMap<String, i32>| -> Vec<i32> {
            values.iter().copied().filter(|value| !known.values().any(|known| known == value)).collect()
        };
        let Some(guess) = &labelling.guess else {
            let nameless = others(&self.classes);
            if !self.classes.is_empty() && !nameless.is_empty() {
                let (count, list) = (nameless.len(), list(&nameless));
                progress::warn(&format!("{count} label values are of no class and count as background: {list}"));
            }
            return;
        };
        let by_value: BTreeMap<String, i32> = values.iter().map(|value| (format!("label {value}"), *value)).collect();
        let nameless = others(&guess.classes);
        if nameless.is_empty() {
            progress::warn(&guess.text); // and the file does not make a fact of it
        } else if values.len() > Class::MOST {
            progress::warn(&format!("{} label values without names are too many for classes", values.len()));
        } else {
            let list = list(&nameless);
            progress::warn(&format!(
                "nothing names the labels ({list}): classes are called after them; set data.classes"
            ));
            self.classes.clone_from(&by_value);
        }
        for entry in self.scans.values_mut() {
            entry.label_vox = entry.count(&by_value);
        }
    }

    /// Label values that occur in any scan, but for background and what is not annotated.
    fn values(&self) -> BTreeSet<i32> {
        let values = self.scans.values().flat_map(|entry| entry.voxels_of.keys().copied());
        values.filter(|value| *value != 0 && Some(*value) != self.ignore).collect()
    }
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
    /// BLAKE3 of the voxels alone.
    #[serde(skip)]
    pub voxels_digest: String,
    /// Voxels of each label value.
    #[serde(skip)]
    pub voxels_of: BTreeMap<i32, usize>,
}

impl Entry {
    /// Voxels of each class; empty of a scan without labels.
    fn count(&self, classes: &BTreeMap<String, i32>) -> BTreeMap<String, usize> {
        let of = |value: &i32| self.voxels_of.get(value).copied().unwrap_or(0);
        let classes = classes.iter().filter(|_| !self.voxels_of.is_empty());
        classes.map(|(name, value)| (name.clone(), of(value))).collect()
    }
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
    let (mut label_digest, mut voxels_of) = (None, BTreeMap::new());
    if let Some(label) = &label {
        let path = out.join(label_name(&source.id));
        nifti::write_new(&path, label)?;
        label_digest = Some(of(&path)?);
        label.voxels.iter().for_each(|&value| *voxels_of.entry(value).or_insert(0) += 1);
    }
    let mut entry = Entry {
        from: source.folder.strip_prefix(&origin.root).unwrap_or(&source.folder).display().to_string(),
        files: scan.files.len(),
        source_digest: digest.finalize().to_hex().to_string(),
        image_digest: of(&image_path)?,
        label_digest,
        shape_zyx: image.geometry.shape_vox,
        spacing_zyx_mm: image.geometry.spacing_mm(),
        label_vox: BTreeMap::new(),
        warnings: scan.warnings,
        voxels_digest: digest_of_voxels(&image),
        voxels_of,
    };
    entry.label_vox = entry.count(&origin.classes);
    Ok(entry)
}

fn digest_of_voxels(image: &Image) -> String {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), Vec::new());
    for length in image.geometry.shape_vox {
        hasher.update(&(length as u64).to_le_bytes());
    }
    for row in image.voxels.rows() {
        bytes.clear();
        bytes.extend(row.iter().flat_map(|voxel| voxel.to_le_bytes()));
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}
