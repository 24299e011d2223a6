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
            None => {
                let fault = refuse(format!("label {}", rest[..parts].join(", ")), "name one of these with --classes");
                return fault.map_err(Error::wrong_use);
            }
        };
        rest = &rest[parts..];
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
mod tests;
