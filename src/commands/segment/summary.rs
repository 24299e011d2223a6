//! What stands beside the label maps: `summary.json` and `volumes.csv`, rewritten whole after every query, and descriptions
//! of the labels for ITK-SNAP and 3D Slicer.

use crate::artifact;
use crate::commands::cohort::Subject;
use crate::commands::lock::Lock;
use crate::commands::progress::warn;
use crate::error::{Error, Result};
use crate::report::overlay::class_colours;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The content of `summary.json`: of the latest call, and the results of earlier ones that are still there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// In the order in which the network knows them.
    pub classes: Vec<Class>,
    /// By the name of the query.
    pub queries: BTreeMap<String, Answer>,
    /// What could not be segmented, and why.
    pub failed: BTreeMap<String, String>,
}

/// What an answer comes from; calls with different weights and supports may share a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub ssl3d: String,
    pub weights: String,
    /// BLAKE3 of the weights file.
    pub weights_digest: String,
    pub supports: Vec<Support>,
    /// What `--set` changed.
    pub set: Vec<String>,
    /// What `--slices` told.
    #[serde(default)]
    pub slices: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    pub image: String,
    pub label: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    pub value: i32,
    pub name: String,
    /// Red, green, blue, 0 to 255.
    pub colour: [u8; 3],
}

/// What was found in one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub path: String,
    pub result: String,
    pub seconds: f64,
    pub warnings: Vec<String>,
    pub found: Vec<Found>,
    pub origin: Origin,
}

/// One class in one query; a line of `volumes.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub value: i32,
    pub name: String,
    pub voxels: usize,
    pub volume_ml: f64,
    /// Over the voxels that were given to the class; none where there are none.
    pub mean_probability: Option<f64>,
}

const SUMMARY: &str = "summary.json";
const VOLUMES: &str = "volumes.csv";
const ITK_SNAP: &str = "labels.txt";
const SLICER: &str = "labels.ctbl";

/// Each value with its name, or "label 7" where it has none, and a colour.
pub fn classes(values: &[i32], names: &BTreeMap<i32, String>) -> Vec<Class> {
    let colours = class_colours(values);
    let name = |value: &i32| names.get(value).cloned().unwrap_or_else(|| format!("label {value}"));
    values.iter().map(|value| Class { value: *value, name: name(value), colour: colours[value] }).collect()
}

impl Summary {
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
                let record =
                    [query, &value.to_string(), name, &voxels.to_string(), &format!("{volume_ml:.3}"), &probability];
                csv.write_record(record).expect("in memory");
            }
        }
        csv.into_inner().expect("in memory")
    }
}

/// Paths and contents of the label descriptions.
pub fn descriptions(classes: &[Class], out: &Path) -> [(PathBuf, String); 2] {
    let mut itk_snap = "################################################\n# ITK-SnAP Label Description File\n\
        # IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n################################################\n    \
        0     0    0    0        0  0  0    \"Clear Label\"\n"
        .to_owned();
    let mut slicer = "# 3D Slicer color table\n0 background 0 0 0 0\n".to_owned();
    for Class { value, name, colour: [red, green, blue] } in classes {
        let plain = name.replace(['"', '\n', '\r'], "'");
        writeln!(itk_snap, "{value:5} {red:5} {green:4} {blue:4}        1  1  1    \"{plain}\"").expect("a string");
        let word: String = name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        writeln!(slicer, "{value} {word} {red} {green} {blue} 255").expect("a string");
    }
    [(out.join(ITK_SNAP), itk_snap), (out.join(SLICER), slicer)]
}

/// # Errors
/// `out` holds descriptions of other labels, or tables that `segment` has not written.
pub fn refuse_others(classes: &[Class], out: &Path) -> Result<()> {
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

/// Spacings that differ by more than this factor along an axis are pointed out.
const SPACING_FACTOR: f64 = 2.0;
/// And intensities whose distributions are further apart than this, in standard deviations: CHAOS T2 scans lie up to 0.35 apart,
/// and their negatives 0.5 and more.
const CONTRAST: f64 = 0.45;

/// What about a query is so unlike every support that the result may not be trusted, a sentence each.
pub fn doubts(query: &Subject, supports: &[Subject]) -> Vec<String> {
    let mut doubts = Vec::new();
    let [ours, theirs] = [query, &supports[0]].map(|subject| subject.image.geometry.spacing_mm());
    let far = |other: &Subject| {
        let spacing = other.image.geometry.spacing_mm();
        (0..3).any(|axis| f64::max(ours[axis] / spacing[axis], spacing[axis] / ours[axis]) > SPACING_FACTOR)
    };
    if supports.iter().all(far) {
        let text = |[z, y, x]: [f64; 3]| format!("{z:.2} x {y:.2} x {x:.2} mm");
        doubts.push(format!("its spacing (z y x) is {}, that of the support {}", text(ours), text(theirs)));
    }
    let query = percentiles(query);
    let apart = |other: &Subject| {
        let other = percentiles(other);
        query.iter().zip(&other).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / query.len() as f64
    };
    let nearest = supports.iter().map(apart).fold(f64::INFINITY, f64::min);
    if nearest > CONTRAST {
        doubts.push(format!(
            "its intensities are spread unlike the support's ({nearest:.2} standard deviations apart, above {CONTRAST}): is it \
             the same kind of image?"
        ));
    }
    doubts
}

/// What to say of a class that the network lost in a query.
pub fn hardly_found(class: &Class) -> String {
    let label = format!("label {}", class.value);
    let name = if class.name == label { label } else { format!("{} ({label})", class.name) };
    format!(
        "hardly anything in it looks like {name}; what is drawn is where that is the least unlikely: look whether it is there"
    )
}

/// Percentiles 1 to 99 of the intensities as the network sees them.
fn percentiles(subject: &Subject) -> Vec<f32> {
    let mut values: Vec<f32> = subject.working.iter().copied().collect();
    values.sort_by(f32::total_cmp);
    (1..100).map(|percent| values[(values.len() - 1) * percent / 100]).collect()
}
