//! nnU-Net v2: `dataset.json` beside `imagesTr/<case>_0000<ending>` and `labelsTr/<case><ending>`.

use super::super::formats;
use super::pattern::{Matches, file_names};
use super::{Case, nothing_matches};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The used part of `dataset.json`; a real one has more entries.
#[derive(serde::Deserialize)]
struct Description {
    #[serde(default)]
    channel_names: BTreeMap<String, serde_json::Value>,
    #[serde(rename = "labels")]
    _labels: serde::de::IgnoredAny,
    file_ending: String,
}

/// The scans of an nnU-Net v2 folder. `text` is the content of the file `json`.
///
/// # Errors
/// The file is not of version 2, has several channels, or the images are not NIfTI.
pub fn read(folder: &Path, json: &Path, text: &str) -> Result<Vec<Case>> {
    let description: Description = serde_json::from_str(text).map_err(|e| {
        let remedy =
            "convert an older dataset with nnU-Net, or move dataset.json away and set data.image to the file names";
        Error::file(json, "an nnU-Net v2 description (labels by name, file_ending)", e.to_string(), remedy)
    })?;
    let ending = description.file_ending.as_str();
    if !ending.starts_with('.') || formats::stem(&format!("case{ending}")) != Some("case") {
        return Err(Error::file(
            json,
            "the file_ending of a volume, like .nii.gz or .nrrd",
            ending,
            "convert the images to NIfTI",
        ));
    }
    let channels = description.channel_names.len();
    let several = |found: String| {
        let remedy = "make a dataset of the one channel to work on, with that channel's files as _0000";
        Error::file(json, "one channel", found, remedy)
    };
    if channels > 1 {
        return Err(several(format!("{channels} in channel_names")));
    }
    let (images, labels) = (folder.join("imagesTr"), folder.join("labelsTr"));
    let names = file_names(&images)?;
    if let Some(second) = names.iter().find(|name| name.ends_with(&format!("_0001{ending}"))) {
        return Err(several(format!("imagesTr/{second}")));
    }
    let first_channel = format!("_0000{ending}");
    let case = |name: &String| {
        let id = name.strip_suffix(&first_channel).filter(|id| !id.is_empty())?;
        let label = labels.join(format!("{id}{ending}"));
        Some(Case { id: id.to_owned(), image: images.join(name), label: label.is_file().then_some(label) })
    };
    let cases: Vec<_> = names.iter().filter_map(case).collect();
    if cases.is_empty() {
        let seen = Matches { files: BTreeMap::new(), folder: images, names };
        return Err(nothing_matches(&format!("{{case}}{first_channel}"), &seen));
    }
    Ok(cases)
}
