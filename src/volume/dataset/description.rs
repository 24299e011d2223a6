//! What a `dataset.json` calls its label values: as `ssl3d prepare`, nnU-Net and the Medical Segmentation Decathlon write it.

use super::check_classes;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The file that describes a dataset, in its folder.
pub const FILE: &str = "dataset.json";
/// What nnU-Net calls the value of voxels that nobody has annotated.
pub const IGNORE: &str = "ignore";

/// Label values with their names, as a file lists them.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    entries: Vec<(String, Value)>,
    ignore: Option<i32>,
}

/// The classes of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Label value of each class, by name.
    pub classes: BTreeMap<String, i32>,
    /// Label value of what nobody has annotated.
    pub ignore: Option<i32>,
}

/// The part of the file that names labels; other programs write more.
#[derive(Deserialize)]
struct Content {
    classes: Option<Entries>,
    labels: Option<Entries>,
    #[serde(default)]
    ignore: Value,
}

/// An object with every entry that it has, also where two have one key; None of what is no object.
struct Entries(Option<Vec<(String, Value)>>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                write!(f, "label values by name")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(Some(entries)))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Entries(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Entries, E> {
                Ok(Entries(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Entries, E> {
                Ok(Entries(None))
            }

            fn visit_unit<E>(self) -> Result<Entries, E> {
                Ok(Entries(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The labels in the text of the file `json`; None where it names none.
///
/// # Errors
/// The text is no JSON.
pub fn parse(json: &Path, text: &str) -> Result<Option<Labels>> {
    let content: Content = serde_json::from_str(text).map_err(|e| {
        let expected = "the description of a dataset (an object with labels by name)";
        Error::file(json, expected, e.to_string(), "mend it, or move it away and set data.classes")
    })?;
    let entries = content.classes.and_then(|entries| entries.0).or(content.labels.and_then(|entries| entries.0));
    let ignore = content.ignore.as_i64().and_then(|value| i32::try_from(value).ok());
    Ok(entries.map(|entries| Labels { entries, ignore }))
}

impl Labels {
    /// Label values with what they are called, [`IGNORE`] among them; without entries that make no sense.
    pub fn names(&self) -> Vec<(i32, String)> {
        let pairs = self.entries.iter().filter_map(|(key, value)| pair(key, value));
        pairs.chain(self.ignore.map(|value| (value, IGNORE.to_owned()))).filter(|(value, _)| *value != 0).collect()
    }

    /// The classes; every entry has to make sense.
    ///
    /// # Errors
    /// An entry is no name with a whole number, as those of regions are; a name or a value occurs twice.
    pub fn described(&self, json: &Path) -> Result<Described> {
        let at = format!("{} labels", json.display());
        let own = "give every class its own";
        let mut described = Described { classes: BTreeMap::new(), ignore: self.ignore };
        for (key, value) in &self.entries {
            let Some((number, name)) = pair(key, value) else {
                let expected = "labels with one integer each, by name or by number ({ \"1\": \"liver\" })";
                let remedy =
                    "give every class one integer (regions of several labels: write label maps of the regions first)";
                return Err(Error::file(json, expected, format!("{key}: {value}"), remedy));
            };
            if number == 0 {
                continue;
            }
            if name == "background" {
                return Err(Error::invalid(at, "background = 0", format!("background = {number}"), own));
            }
            if name == IGNORE {
                described.ignore = Some(number);
            } else if let Some(other) = described.classes.insert(name.clone(), number) {
                let found = format!("{name} = {other} and {name} = {number}");
                return Err(Error::invalid(at, "one label value for each name", found, own));
            }
        }
        check_classes(&at, &described.classes)?;
        if let Some((name, value)) = described.classes.iter().find(|(_, value)| Some(**value) == described.ignore) {
            let found = format!("{name} = {value} and {IGNORE} = {value}");
            return Err(Error::invalid(at, "one class for each label value", found, own));
        }
        Ok(described)
    }
}

/// `"liver": 1` or `"1": "liver"`.
fn pair(key: &str, value: &Value) -> Option<(i32, String)> {
    let (number, name) = match (value.as_i64(), value.as_str()) {
        (Some(number), _) => (i32::try_from(number).ok()?, key),
        (None, Some(name)) => (key.trim().parse().ok()?, name),
        _ => return None,
    };
    let name = name.trim();
    Some((number, if name.is_empty() { format!("label {number}") } else { name.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<Described>, String> {
        let json = Path::new("dataset.json");
        let labels = parse(json, text).map_err(|e| e.to_string())?;
        labels.map(|labels| labels.described(json)).transpose().map_err(|e| e.to_string())
    }

    #[test]
    fn names_are_read_in_the_three_forms_that_are_about() {
        let [liver, tumour] = [("liver".to_owned(), 1), ("tumour".to_owned(), 2)];
        let both = BTreeMap::from([liver.clone(), tumour]);
        for (text, ignore) in [
            (r#"{"classes": {"liver": 1, "tumour": 2}, "scans": {}}"#, None),
            (r#"{"classes": {"liver": 1, "tumour": 2}, "ignore": 9}"#, Some(9)),
            (r#"{"labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}}"#, Some(3)),
            (r#"{"labels": {"0": "background", "1": "liver", "2": " tumour"}}"#, None),
        ] {
            assert_eq!(of(text), Ok(Some(Described { classes: both.clone(), ignore })), "{text}");
        }
        for text in ["{}", r#"{"labels": ["liver"]}"#, r#"{"labels": null}"#, r#"{"classes": "liver"}"#] {
            assert_eq!(of(text), Ok(None), "{text}");
        }
        assert_eq!(of(r#"{"labels": {"0": "bg", "1": "liver"}}"#).unwrap().unwrap().classes, [liver].into());
    }

    #[test]
    fn names_that_say_two_things_are_refused() {
        for (text, words) in [
            (r#"{"labels": {"1": "kidney", "2": "kidney"}}"#, "found kidney = 1 and kidney = 2"),
            (r#"{"labels": {"kidney": 1, "kidney": 2}}"#, "found kidney = 1 and kidney = 2"),
            (r#"{"labels": {"a": 1, "b": 1}}"#, "a = 1 and b = 1"),
            (r#"{"labels": {"a": 5, "ignore": 5}}"#, "a = 5 and ignore = 5"),
            (r#"{"labels": {"background": 1, "liver": 0}}"#, "expected background = 0, found background = 1"),
            (r#"{"labels": {"whole": [1, 2]}}"#, "found whole: [1,2]"),
            (r#"{"labels": {"liver": 1.5}}"#, "found liver: 1.5"),
            (r#"{"labels": {"liver": 1},}"#, "trailing comma"),
            ("[1]", "description of a dataset"),
        ] {
            let fault = of(text).unwrap_err();
            assert!(fault.contains(words) && fault.starts_with("dataset.json"), "{text}: {fault}");
        }
    }
}
