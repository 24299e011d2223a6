//! Which labels to look for, and what they are called.

use super::summary::LabelClass;
use crate::cli::Classes;
use crate::error::{Error, Result};
use crate::text;
use crate::volume::dataset::description::{FILE, IGNORE, parse};
use crate::volume::{Class, LabelMap};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More classes than these do not fit beside the background into one byte.
const MOST: usize = Class::MOST;
/// Label values in a message.
const LISTED: usize = 12;

/// What a `dataset.json` beside the label files, or one folder above, calls their values: as `ssl3d prepare`, nnU-Net and the
/// Medical Segmentation Decathlon write it. Empty where there is none. The value of what is not annotated is called [`IGNORE`].
///
/// # Errors
/// Two label files give one value different names.
pub fn names(labels: &[PathBuf]) -> Result<BTreeMap<i32, String>> {
    let mut names: BTreeMap<i32, (String, PathBuf)> = BTreeMap::new();
    for label in labels {
        let folder = label.parent().unwrap_or(Path::new(""));
        let above = folder.parent().map(|above| above.join(FILE));
        let described = std::iter::once(folder.join(FILE)).chain(above).find(|path| path.is_file());
        let Some(path) = described else { continue };
        for (value, name) in parse(&path, &text::read("read", &path)?)?.iter().flat_map(|labels| labels.names()) {
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

/// The value of voxels that nobody has annotated: what the configuration says, or else the description beside the labels.
pub fn ignored(configured: Option<i32>, names: &BTreeMap<i32, String>) -> Option<i32> {
    configured.or_else(|| names.iter().find(|(_, name)| *name == IGNORE).map(|(value, _)| *value))
}

/// The label values to look for: those asked for, or all that the supports have; never that of what is not annotated.
///
/// # Errors
/// The supports do not show what was asked for; or nothing, or far too much; a name may mean several labels.
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
    let list: Vec<String> = present.iter().take(LISTED).map(called).collect();
    let list = match present.len() {
        0 => "nothing but 0".to_owned(),
        count if count > LISTED => format!("{count} of them: {} and {} more", list.join(", "), count - LISTED),
        _ => list.join(", "),
    };
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
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let (value, parts) = first(rest, names)?;
        match value.filter(|value| present.contains(value)) {
            Some(value) => values.insert(value),
            None => return refuse(format!("label {}", rest[..parts].join(", ")), "name one of these with --classes"),
        };
        rest = &rest[parts..];
    }
    if values.len() > MOST {
        let found = values.len().to_string();
        return Err(Error::invalid("--classes", format!("at most {MOST} values"), found, "use several calls"));
    }
    if values.len() < present.len() {
        let values: Vec<String> = values.iter().map(called).collect();
        let line = format!("segmenting labels {} of {list}; the others count as background", values.join(", "));
        crate::commands::progress::note(&line);
    }
    Ok(values.into_iter().collect())
}

/// The label that the first part of a list means, or the first parts together, since a name may hold commas; and how many they are.
fn first(parts: &[String], names: &BTreeMap<i32, String>) -> Result<(Option<i32>, usize)> {
    let several = (2..=parts.len()).rev().find_map(|count| {
        let value = meant(&parts[..count].join(","), names).transpose()?;
        Some(value.map(|value| (value, count)))
    });
    let alone = meant(&parts[0], names)?;
    match (several.transpose()?, alone) {
        (None, alone) => Ok((alone, 1)),
        (Some((value, count)), None) => Ok((Some(value), count)),
        (Some((_, count)), Some(alone)) => {
            let text = parts[..count].join(", ");
            let found = format!("{text:?}, which is one name, and begins with label {alone}");
            Err(Error::invalid("--classes", "names that mean one label each", found, "put the name into double quotes"))
        }
    }
}

/// A class as a message names it.
pub fn called(class: &LabelClass) -> String {
    let label = format!("label {}", class.value);
    if class.name == label { label } else { format!("{} ({label})", class.name) }
}

/// The label of a value or a name: of names the exact one first, and then one that differs in its capitals alone.
///
/// # Errors
/// Several labels may be meant.
pub fn meant(text: &str, names: &BTreeMap<i32, String>) -> Result<Option<i32>> {
    // Blanks around a comma do not tell names apart.
    let plain = |text: &str| text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    let (text, lower) = (plain(text), plain(text).to_lowercase());
    let of =
        |fits: &dyn Fn(&str) -> bool| names.iter().filter(|(_, name)| fits(&plain(name))).map(|(v, _)| *v).collect();
    let exact: Vec<i32> = of(&|name| name == text);
    let by_name: Vec<i32> = if exact.is_empty() { of(&|name| name.to_lowercase() == lower) } else { exact };
    let number = text.parse().ok();
    let candidates: BTreeSet<i32> = by_name.into_iter().chain(number).collect();
    match &candidates.iter().collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [value] => Ok(Some(**value)),
        several => {
            let called =
                |value: &&i32| format!("{value} ({})", names.get(*value).map_or("a label value", String::as_str));
            let found = several.iter().map(called).collect::<Vec<_>>().join(" and ");
            Err(Error::invalid(
                "--classes",
                format!("one label that {text} means"),
                found,
                "give its value or its exact name",
            ))
        }
    }
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
    fn a_name_means_one_label_the_exact_one_first_and_may_hold_commas() {
        let labels = [(1, "liver"), (2, "kidney, right"), (3, "kidney, left"), (4, "Liver"), (5, "Spleen"), (6, "7")];
        let names: BTreeMap<i32, String> = labels.map(|(value, name)| (value, name.to_owned())).into();
        let voxels = Array3::from_shape_vec((1, 1, 8), (0..8).collect()).unwrap();
        let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 8], [1.0; 3]) };
        let of = |text: &str| {
            let wanted = text.parse().unwrap();
            values(&wanted, &[&map], &["l.nii".into()], &names, None).map_err(|e| e.to_string())
        };
        for (text, expected) in [
            ("Liver", &[4][..]),
            ("liver", &[1]),
            ("spleen", &[5]),
            ("\"kidney, left\",liver", &[1, 3]),
            ("kidney, left", &[3]),
            ("Kidney,left,kidney,right,4", &[2, 3, 4]),
        ] {
            assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, words) in [
            ("LIVER", "one label that LIVER means, found 1 (liver) and 4 (Liver); give"),
            ("7", "one label that 7 means, found 6 (7) and 7 (a label value)"),
            ("kidney", "expected label kidney, found 1 (liver), 2 (kidney, right)"),
        ] {
            let fault = of(text).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        }
        let names = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned()), (3, "a, b".to_owned())]);
        assert!(first(&["a".to_owned(), "b".to_owned()], &names).unwrap_err().to_string().contains("double quotes"));
        assert_eq!(first(&["a, b".to_owned()], &names).unwrap(), (Some(3), 1));
    }

    #[test]
    fn far_too_many_labels_are_counted() {
        let voxels = Array3::from_shape_vec((1, 1, 301), (0..301).collect()).unwrap();
        let map = LabelMap { voxels, geometry: Geometry::with_spacing([1, 1, 301], [1.0; 3]) };
        let of = |text: &str| {
            values(&text.parse().unwrap(), &[&map], &["l.nii".into()], &BTreeMap::new(), None).unwrap_err().to_string()
        };
        let message = of("all");
        assert!(
            message.contains("at most 255 label values, found 300 of them: 1, 2, ")
                && message.contains("12 and 288 more;"),
            "{message}"
        );
        assert!(of("999").contains("expected label 999, found 300 of them: 1, 2, "));
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
        let names = of(&["nnunet/labelsTr/a.nii.gz"]).unwrap();
        assert_eq!((ignored(None, &names), ignored(Some(7), &names)), (Some(9), Some(7)));
        assert_eq!(of(&["decathlon/labelsTr/a.nii"]).unwrap(), BTreeMap::from([(1, "tumour".to_owned())]));
        assert!(of(&["nowhere/a.nii"]).unwrap().is_empty());
        let message = of(&["ours/a.nii", "decathlon/labelsTr/a.nii"]).unwrap_err().to_string();
        assert!(message.contains("expected liver, as") && message.contains("found tumour"), "{message}");
    }
}
