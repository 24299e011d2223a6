//! Layouts that are known by their names, for a folder in which nothing has the usual ones.

use super::pattern::{Matches, Pattern, file_names, folder_names};
use super::{Config, Listed, bids, pair_up};
use crate::error::{Error, Result};
use std::path::Path;

/// Image patterns in groups, each with the label patterns that go with it. Of a group the first that matches counts.
const KNOWN: [&[(&str, &[&str])]; 7] = [
    &[
        ("imagesTr/{id}_0000.nii.gz", &["labelsTr/{id}.nii.gz"]), // nnU-Net without dataset.json
        ("imagesTr/{id}.nii.gz", &["labelsTr/{id}.nii.gz"]),      // the Decathlon without it
    ],
    &[("images/{id}.nii.gz", &["labels/{id}.nii.gz", "masks/{id}.nii.gz"])],
    &[("img/img{id}.nii.gz", &["label/label{id}.nii.gz"])], // BTCV
    &[("{id}/imaging.nii.gz", &["{id}/segmentation.nii.gz", "{id}/aggregated_MAJ_seg.nii.gz"])], // KiTS
    &[("{id}/ct.nii.gz", IN_FOLDER)],                       // TotalSegmentator
    &[("{id}/mri.nii.gz", IN_FOLDER), ("{id}/mr.nii.gz", IN_FOLDER)], // the same of MRI
    &[("{id}/image.nii.gz", IN_FOLDER)],
];
const IN_FOLDER: &[&str] = &[
    "{id}/segmentation.nii.gz",
    "{id}/segmentations.nii.gz",
    "{id}/label.nii.gz",
    "{id}/labels.nii.gz",
    "{id}/seg.nii.gz",
    "{id}/mask.nii.gz",
];
/// Folders of a scan that hold a mask for each structure.
const MASKS: [&str; 2] = ["segmentations", "masks"];

/// The scans of a known layout; None where there is none.
///
/// # Errors
/// Several layouts fit; a folder cannot be listed.
pub fn recognise(folder: &Path, config: &Config) -> Result<Option<Listed>> {
    if let Some(cases) = bids::read(folder)? {
        return Ok(Some(Listed { cases, notes: vec![], warnings: vec![] }));
    }
    let mut found: Vec<(&str, &[&str], Matches)> = Vec::new();
    for group in KNOWN {
        let mut fitting = group.iter().filter_map(|(image, labels)| {
            let matches = Pattern::parse(image)?.find(folder).ok()?;
            (!matches.files.is_empty()).then_some((*image, *labels, matches))
        });
        found.extend(fitting.next());
    }
    if let [(first, ..), (second, ..), ..] = found[..] {
        let remedy = format!("set data.image to the one that is meant, for instance data.image={first:?}");
        return Err(Error::file(folder, "one image of each scan", format!("files like {first} and {second}"), remedy));
    }
    let Some((image, labels, images)) = found.pop() else { return Ok(None) };
    // The pattern of labels that the user has set goes first.
    let own = [config.label.as_str()];
    let mut labels =
        own.iter().chain(labels).filter_map(|text| Some((*text, Pattern::parse(text)?.find(folder).ok()?)));
    let labels = labels.find(|(_, matches)| !matches.files.is_empty());
    let notes = vec![match &labels {
        Some((label, _)) => format!("read as data.image={image:?} with data.label={label:?}"),
        None => format!("read as data.image={image:?}, without labels"),
    }];
    let warnings = if labels.is_none() { masks(&images).into_iter().collect() } else { vec![] };
    let labels = labels.map_or_else(Default::default, |(_, matches)| matches.files);
    Ok(Some(Listed { cases: pair_up(images.files, labels), notes, warnings }))
}

/// What to say of folders with a mask for each structure, as TotalSegmentator's dataset has them.
fn masks(images: &Matches) -> Option<String> {
    let beside = |image: &Path| MASKS.iter().map(|name| image.with_file_name(name)).find(|folder| folder.is_dir());
    let folder = images.files.values().find_map(|image| beside(image))?;
    let count = file_names(&folder).map_or(0, |names| names.len());
    Some(format!(
        "{} holds {count} masks of one structure each, which are not read as labels: join them into one label map a scan, \
         {} beside its image (totalseg_combine_masks of TotalSegmentator does)",
        folder.display(),
        "segmentation.nii.gz",
    ))
}

/// The names of folders, for a message.
pub fn folders_in(folder: &Path) -> Vec<String> {
    folder_names(folder).unwrap_or_default()
}
