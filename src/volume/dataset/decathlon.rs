//! Medical Segmentation Decathlon: `dataset.json` lists every image with its label map.

use super::super::formats;
use super::{Case, check_classes};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The used part of `dataset.json`; a real one has more entries.
#[derive(serde::Deserialize)]
struct Description {
    #[serde(default)]
    modality: BTreeMap<String, String>,
    /// Name of each label value.
    labels: BTreeMap<String, String>,
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
    let json: Result<serde_json::Value, _> = serde_json::from_str(text);
    json.is_ok_and(|json| json["training"].is_array())
}

/// The scans and the classes of a Decathlon folder. `text` is the content of the file `json`.
///
/// # Errors
/// There are several modalities, a label value is not a number, or a file lies outside of the folder.
pub fn read(folder: &Path, json: &Path, text: &str) -> Result<(Vec<Case>, BTreeMap<String, i32>)> {
    let fault = |expected: &str, found: String, remedy: &str| Error::file(json, expected, found, remedy);
    let description: Description = serde_json::from_str(text).map_err(|e| {
        let expected = "a description of the Medical Segmentation Decathlon (labels, training)";
        fault(expected, e.to_string(), "download the dataset again, or move dataset.json away and set data.image")
    })?;
    if description.modality.len() > 1 {
        let found = format!("{} in modality", description.modality.len());
        return Err(fault("one modality", found, "split the 4D images first and make a dataset of one modality"));
    }
    let mut classes = BTreeMap::new();
    for (value, name) in description.labels.into_iter().filter(|(value, _)| value != "0") {
        let number = value.parse().map_err(|_| {
            fault("label values by number", format!("{value}: {name}"), "write labels as { \"1\": \"liver\" }")
        })?;
        classes.insert(name, number);
    }
    check_classes(&format!("{} labels", json.display()), &classes)?;
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
        cases.push(Case { id: id.to_owned(), image, label });
    }
    if cases.is_empty() {
        return Err(fault("images in training", "none".to_owned(), "download the dataset again"));
    }
    Ok((cases, classes))
}
