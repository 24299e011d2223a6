//! Which labels to look for, and what they are called.

use crate::cli::Classes;
use crate::error::{Error, Result};
use crate::volume::{Class, LabelMap};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More classes than these do not fit beside the background into one byte.
const MOST: usize = Class::MOST;

/// What a `dataset.json` beside the label files, or one folder above, calls their values: as `ssl3d prepare`, nnU-Net and the
/// Medical Segmentation Decathlon write it. Empty where there is none.
///
/// # Errors
/// Two label files give one value different names.
pub fn names(labels: &[PathBuf]) -> Result<BTreeMap<i32, String>> {
    let mut names: BTreeMap<i32, (String, PathBuf)> = BTreeMap::new();
    for label in labels {
        let folder = label.parent().unwrap_or(Path::new(""));
        let above = folder.parent().map(|above| above.join("dataset.json"));
        let described = std::iter::once(folder.join("dataset.json")).chain(above).find(|path| path.is_file());
        let Some(path) = described else { continue };
        for (value, name) in read(&path)? {
            let (known, from) = names.entry(value).or_insert_with(|| (name.clone(), path.clone()));
            if *known != name {
                let expected = format!("{known}, as {} calls label {value}", from.display());
                let remedy = "give supports whose labels mean the same";
                return Err(Error::file(&path, expected, name, remedy));
            }
        }
    }
    Ok(names.into_iter().map(|(value, (name, _))| (value, name)).collect())
}

fn read(path: &Path) -> Result<Vec<(i32, String)>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        Error::file(
            path,
            "the description of a dataset",
            e.to_string(),
            "mend it, or move it away and use label values",
        )
    })?;
    let entries = json.get("classes").or_else(|| json.get("labels")).and_then(|labels| labels.as_object());
    let pair = |(key, value): (&String, &serde_json::Value)| match (value.as_i64(), value.as_str()) {
        (Some(value), _) => Some((i32::try_from(value).ok()?, key.clone())),
        (None, Some(name)) => Some((key.parse().ok()?, name.to_owned())),
        _ => None,
    };
    Ok(entries.into_iter().flatten().filter_map(pair).filter(|(value, _)| *value != 0).collect())
}

/// The label values to look for: those asked for, or all that the supports have; never that of what is not annotated.
///
/// # Errors
/// The supports do not show what was asked for; or nothing, or far too much.
pub fn values(
    wanted: &Classes,
    maps: &[&LabelMap],
    files: &[PathBuf],
    names: &BTreeMap<i32, String>,
    ignore: Option<i32>,
) -> Result<Vec<i32>> {
    let mut present: BTreeSet<i32> = BTreeSet::new();
    for labels in maps {
        present.extend(labels.voxels.iter().copied().collect::<BTreeSet<i32>>());
    }
    present.remove(&0);
    let ignored = ignore.filter(|ignore| present.remove(ignore));
    let called = |value: &i32| names.get(value).map_or(value.to_string(), |name| format!("{value} ({name})"));
    let list: Vec<String> = present.iter().take(12).map(called).collect();
    let list = if list.is_empty() { "nothing but 0".to_owned() } else { list.join(", ") };
    let refuse = |expected: String, remedy: &str| {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let unknown =
            ignored.map_or(String::new(), |value| format!(" beside {value}, which is not annotated (data.ignore)"));
        Err(Error::invalid(files.join(" and "), expected, format!("{list}{unknown}"), remedy))
    };
    let wanted = match wanted {
        Classes::All if present.is_empty() => return refuse("a labelled structure".to_owned(), "draw it first"),
        Classes::All if present.len() > MOST => {
            let expected = format!("at most {MOST} label values");
            return refuse(expected, "this looks like an image rather than labels; choose with --classes");
        }
        Classes::All => return Ok(present.into_iter().collect()),
        Classes::These(wanted) => wanted,
    };
    let mut values = BTreeSet::new();
    for part in wanted {
        let named = || names.iter().find(|(_, name)| name.eq_ignore_ascii_case(part)).map(|(&value, _)| value);
        match part.parse().ok().or_else(named) {
            Some(value) if present.contains(&value) => values.insert(value),
            _ => {
                let fault = refuse(format!("label {part}"), "name one of these with --classes");
                return fault.map_err(Error::wrong_use);
            }
        };
    }
    if values.len() > MOST {
        let found = values.len().to_string();
        return Err(Error::flag("--classes", format!("at most {MOST} values"), found, "use several calls"));
    }
    if values.len() < present.len() {
        let values: Vec<String> = values.iter().map(called).collect();
        let line = format!("segmenting labels {} of {list}; the others count as background", values.join(", "));
        crate::commands::progress::note(&line);
    }
    Ok(values.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;
    use ndarray::Array3;

    #[test]
    fn classes_are_asked_for_by_value_or_by_name() {
        let voxels = Array3::from_shape_vec((1, 1, 4), vec![0, 1, 4, 9]).unwrap();
        let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 4], [1.0; 3]) };
        let names = BTreeMap::from([(1, "liver".to_owned()), (2, "kidney".to_owned()), (4, "spleen".to_owned())]);
        let of = |text: &str, ignore| {
            values(&text.parse().unwrap(), &[&map], &["l.nii".into()], &names, ignore).map_err(|e| e.to_string())
        };
        assert_eq!(of("all", None).unwrap(), [1, 4, 9]);
        assert_eq!(of("all", Some(9)).unwrap(), [1, 4]);
        assert_eq!(of("9, Spleen,liver,1", None).unwrap(), [1, 4, 9]);
        let message = of("kidney", None).unwrap_err();
        assert!(message.contains("l.nii: expected label kidney, found 1 (liver), 4 (spleen), 9; name"), "{message}");
        assert!(of("2", None).is_err() && of("9", Some(9)).is_err());
    }

    #[test]
    fn names_come_from_the_description_beside_the_labels_and_may_not_contradict() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("ours/dataset.json", r#"{"classes": {"liver": 1, "spleen": 4}}"#);
        write("nnunet/dataset.json", r#"{"labels": {"background": 0, "liver": 1, "ignore": 9}}"#);
        write("decathlon/dataset.json", r#"{"labels": {"0": "background", "1": "tumour"}}"#);
        let of = |paths: &[&str]| names(&paths.iter().map(|path| folder.path().join(path)).collect::<Vec<_>>());
        assert_eq!(of(&["ours/label_1.nii.gz"]).unwrap()[&4], "spleen");
        assert_eq!(of(&["nnunet/labelsTr/a.nii.gz", "ours/label_1.nii.gz"]).unwrap()[&1], "liver");
        assert_eq!(of(&["decathlon/labelsTr/a.nii"]).unwrap(), BTreeMap::from([(1, "tumour".to_owned())]));
        assert!(of(&["nowhere/a.nii"]).unwrap().is_empty());
        let message = of(&["ours/a.nii", "decathlon/labelsTr/a.nii"]).unwrap_err().to_string();
        assert!(message.contains("expected liver, as") && message.contains("found tumour"), "{message}");
    }
}
