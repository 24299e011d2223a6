//! What stands beside the label maps: `summary.json` and `volumes.csv`, rewritten whole after every query.

use super::classes::called;
use super::descriptions::descriptions;
use super::pairs;
use crate::artifact;
use crate::cli::Segment;
use crate::commands::lock::Lock;
use crate::commands::progress::warn;
use crate::error::{Error, Result};
use crate::metrics::Measured;
use crate::pretrained::Weights;
use crate::report::overlay::class_colours;
use crate::units;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The content of `summary.json`: of the latest call, and the results of earlier ones that are still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// In the order in which the network knows them.
    pub classes: Vec<LabelClass>,
    /// By the name of the query.
    pub queries: BTreeMap<String, Answer>,
    /// What could not be segmented, and why.
    pub failed: BTreeMap<String, String>,
}

/// What an answer comes from; calls with different weights and supports may share a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program.
    pub ssl3d: String,
    /// Path of the weights, or what they are called.
    pub weights: String,
    /// BLAKE3 of the weights file.
    pub weights_digest: String,
    /// In the order of the flags.
    pub supports: Vec<Support>,
    /// What `--set` changed.
    pub set: Vec<String>,
    /// What `--slices` gave.
    #[serde(default)]
    pub slices: Vec<String>,
    /// The queries that helped each other, by their names.
    #[serde(default)]
    pub together: Vec<String>,
}

impl Origin {
    /// Of this call.
    pub fn new(args: &Segment, weights: &Weights) -> Self {
        let support = |(image, label): (&PathBuf, &PathBuf)| Support {
            image: image.display().to_string(),
            label: label.display().to_string(),
        };
        Self {
            ssl3d: env!("CARGO_PKG_VERSION").to_owned(),
            weights: weights.path().display().to_string(),
            weights_digest: weights.digest.clone(),
            supports: pairs(args).map(support).collect(),
            set: args.overrides.set.clone(),
            slices: args.slices.iter().map(ToString::to_string).collect(),
            together: vec![],
        }
    }
}

/// Paths of one support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Of its image.
    pub image: String,
    /// Of its label map.
    pub label: String,
}

/// A class that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelClass {
    /// Its label value.
    pub value: i32,
    /// What it is called.
    pub name: String,
    /// Red, green, blue, 0 to 255.
    pub colour: [u8; 3],
}

/// What was found in one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Path of the query.
    pub path: String,
    /// Path of its label map.
    pub result: String,
    /// How long it took.
    pub seconds: f64,
    /// What may be wrong with it.
    pub warnings: Vec<String>,
    /// Class by class.
    pub found: Vec<Found>,
    /// What it comes from.
    pub origin: Origin,
}

/// One class in one query; a line of `volumes.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Label value of the class.
    pub value: i32,
    /// Its name.
    pub name: String,
    /// Voxels that were given to it.
    pub voxels: usize,
    /// Their volume in ml.
    pub volume_ml: f64,
    /// Over the voxels that were given to the class; none where there are none.
    pub mean_probability: Option<f64>,
}

impl Found {
    /// A class with its measures.
    pub fn new(value: i32, name: &str, measured: Measured) -> Self {
        let Measured { voxels, volume_ml, mean_probability } = measured;
        Self { value, name: name.to_owned(), voxels, volume_ml, mean_probability }
    }
}

impl Answer {
    /// The result and its volumes, for the terminal.
    pub fn line(&self) -> String {
        let of = |found: &Found| format!("{}: {}", found.name, units::ml(found.volume_ml));
        let volumes: Vec<String> = self.found.iter().map(of).collect();
        format!("{}: {}", self.result, volumes.join(", "))
    }
}

pub const SUMMARY: &str = "summary.json";
pub const VOLUMES: &str = "volumes.csv";

/// Each value with its name, or "label 7" where it has none, and a colour.
pub fn classes(values: &[i32], names: &BTreeMap<i32, String>) -> Vec<LabelClass> {
    let colours = class_colours(values);
    let name = |value: &i32| names.get(value).cloned().unwrap_or_else(|| format!("label {value}"));
    values.iter().map(|value| LabelClass { value: *value, name: name(value), colour: colours[value] }).collect()
}

impl Summary {
    /// Whether all queries have a result.
    ///
    /// # Errors
    /// Some of the `count` queries could not be segmented.
    pub fn check_all(&self, count: usize) -> Result<()> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let failed: Vec<&str> = self.failed.keys().map(String::as_str).collect();
        let found = format!("{}; failed: {}", count - failed.len(), failed.join(", "));
        Err(Error::invalid("segment", format!("{count} results"), found, "see the warnings above"))
    }

    /// Takes over what other calls, earlier ones and those beside this one, have found in other queries, where their results
    /// are still there.
    fn beside_others(&self, out: &Path) -> Self {
        let (path, mut all) = (out.join(SUMMARY), self.clone());
        let Ok(text) = std::fs::read_to_string(&path) else { return all };
        match serde_json::from_str::<Self>(&text) {
            Ok(others) => {
                let there =
                    |answer: &Answer| Path::new(&answer.result).file_name().is_some_and(|f| out.join(f).exists());
                all.queries = others.queries.into_iter().filter(|(_, answer)| there(answer)).collect();
                all.queries.extend(self.queries.clone());
            }
            Err(e) => warn(&format!("{}: not of this version ({e}); it is replaced", path.display())),
        }
        all
    }

    /// Writes the results of this call and of all others in `out`, with a copy of the summary at `report`.
    ///
    /// # Errors
    /// As [`refuse_others`] unless `force`: another call may have written meanwhile.
    pub fn write(&self, out: &Path, report: Option<&Path>, force: bool) -> Result<()> {
        let _lock = Lock::wait(out)?;
        if !force {
            refuse_others(&self.classes, out)?;
        }
        self.beside_others(out).write_alone(out, report)
    }

    fn write_alone(&self, out: &Path, report: Option<&Path>) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self).expect("text and numbers only");
        json.push('\n');
        artifact::write_bytes(&out.join(SUMMARY), json.as_bytes())?;
        if let Some(report) = report {
            artifact::write_bytes(report, json.as_bytes())?;
        }
        for (path, text) in descriptions(&self.classes, out) {
            artifact::write_bytes(&path, text.as_bytes())?;
        }
        artifact::write_bytes(&out.join(VOLUMES), &self.table())
    }

    fn table(&self) -> Vec<u8> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["query", "label", "name", "voxels", "volume_ml", "mean_probability"]).expect("in memory");
        for (query, answer) in &self.queries {
            for Found { value, name, voxels, volume_ml, mean_probability } in &answer.found {
                let probability = mean_probability.map_or(String::new(), |mean| format!("{mean:.4}"));
                let volume = units::digits(*volume_ml, 3);
                let record = [query, &value.to_string(), name, &voxels.to_string(), &volume, &probability];
                csv.write_record(record).expect("in memory");
            }
        }
        csv.into_inner().expect("in memory")
    }
}

/// Keeps tables and labels of others from being overwritten.
///
/// # Errors
/// `out` holds descriptions of other labels, or tables that `segment` has not written.
pub fn refuse_others(classes: &[LabelClass], out: &Path) -> Result<()> {
    for (path, text) in descriptions(classes, out) {
        if std::fs::read(&path).is_ok_and(|there| there != text.as_bytes()) {
            let remedy = "give another --out for other labels, or --force to overwrite";
            return Err(Error::file(&path, "the labels of this call, or no such file", "other labels", remedy));
        }
    }
    let [summary, volumes] = [SUMMARY, VOLUMES].map(|name| out.join(name));
    let is_ours = std::fs::read(&summary).is_ok_and(|text| serde_json::from_slice::<Summary>(&text).is_ok());
    match [summary, volumes].into_iter().find(|path| path.exists()).filter(|_| !is_ours) {
        Some(path) => {
            let remedy = "give another --out, or --force to overwrite";
            Err(Error::file(&path, "a table of this version's segment, or no such file", "something else", remedy))
        }
        None => Ok(()),
    }
}

/// The warning about a class that label fusion hardly finds in a query.
pub fn hardly_found(class: &LabelClass) -> String {
    format!(
        "hardly anything in it looks like {}; what is drawn is where that is the least unlikely: look whether it is there",
        called(class)
    )
}
