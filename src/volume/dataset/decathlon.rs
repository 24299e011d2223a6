//! Medical Segmentation Decathlon and nnU-Net v1: `dataset.json` lists every image with its label map.

use super::super::formats;
use super::Case;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The used part of `dataset.json`; a real one has more entries.
#[derive(serde::Deserialize)]
struct Description {
    #[serde(default)]
    modality: BTreeMap<String, Value>,
    #[serde(rename = "labels")]
    _labels: serde::de::IgnoredAny,
    training: Vec<Pair>,
}

#[derive(serde::Deserialize)]
struct Pair {
    image: PathBuf,
    #[serde(default)]
    label: Option<PathBuf>,
}

/// Whether the text of a `dataset.json` is of this kind: it lists its training pairs one by one.
pub fn is_described(text: &str) -> bool {
    let json: Result<Value, _> = serde_json::from_str(text);
    let pairs = json.ok().and_then(|json| Some((json["training"].as_array()?.len(), json["file_ending"].is_string())));
    pairs.is_some_and(|(count, is_v2)| count > 0 || !is_v2)
}

/// The scans of a Decathlon folder. `text` is the content of the file `json`.
///
/// # Errors
/// There are several modalities, or a file lies outside of the folder.
pub fn read(folder: &Path, json: &Path, text: &str) -> Result<Vec<Case>> {
    let fault = |expected: &str, found: String, remedy: &str| Error::file(json, expected, found, remedy);
    let description: Description = serde_json::from_str(text).map_err(|e| {
        let expected = "a description of the Medical Segmentation Decathlon (labels, training)";
        fault(expected, e.to_string(), "download the dataset again, or move dataset.json away and set data.image")
    })?;
    if description.modality.len() > 1 {
        let found = format!("{} in modality", description.modality.len());
        return Err(fault("one modality", found, "split the 4D images first and make a dataset of one modality"));
    }
    let within = |path: &Path| {
        let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if path.components().all(plain) {
            return Ok(folder.join(path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>()));
        }
        Err(fault("files below the dataset's folder", path.display().to_string(), "name them relative to it"))
    };
    let mut cases: Vec<Case> = Vec::new();
    for pair in description.training {
        let image = within(&pair.image)?;
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = formats::stem(&name) else {
            return Err(fault("NIfTI images", name, "convert them to NIfTI"));
        };
        if cases.iter().any(|case| case.id == id) {
            return Err(fault("one image for each id", format!("{id} twice"), "remove one of them"));
        }
        let label = pair.label.as_deref().map(within).transpose()?;
        cases.push(Case { id: id.to_owned(), image: first_channel(json, image, id)?, label });
    }
    if cases.is_empty() {
        return Err(fault("images in training", "none".to_owned(), "download the dataset again"));
    }
    Ok(cases)
}

/// The file itself or, where nnU-Net v1 leaves the channel out of the name, `case_0000.nii.gz` for `case.nii.gz`.
fn first_channel(json: &Path, image: PathBuf, id: &str) -> Result<PathBuf> {
    let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let channel = |number: usize| image.with_file_name(format!("{id}_{number:04}{}", &name[id.len()..]));
    if image.exists() || !channel(0).exists() {
        return Ok(image); // one that is missing is named when it is read
    }
    if channel(1).exists() {
        let remedy = "make a dataset of the one channel to work on, with that channel's files as _0000";
        return Err(Error::file(json, "one channel", channel(1).display().to_string(), remedy));
    }
    Ok(channel(0))
}
