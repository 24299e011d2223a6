//! Scores: one row for each query, support, class and protocol; their summary with its signature.

use super::Setting;
use crate::artifact;
use crate::error::{Error, Result};
use crate::metrics::{NSD_TOLERANCE_MM, Protocol, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The scores of one prediction: a row of `scores.csv`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// Id of the query.
    pub query: String,
    /// Id of the support.
    pub support: String,
    /// Number of the fold, from 0.
    pub fold: usize,
    /// Seed of the training.
    pub seed: u64,
    /// Name of the class.
    pub class: String,
    /// Evaluation protocol.
    pub protocol: Protocol,
    /// Dice, 0 to 1. `None` if the query does not show the class; `predicted_ml` is then false positive volume.
    pub dice: Option<f64>,
    /// Predicted volume in millilitres.
    pub predicted_ml: f64,
    /// True volume in millilitres.
    pub true_ml: f64,
    /// 95th percentile of the surface distances in millimetres; `None` also if nothing of the class was predicted.
    pub hd95_mm: Option<f64>,
    /// Mean surface distance in millimetres; `None` also if nothing of the class was predicted.
    pub assd_mm: Option<f64>,
    /// Normalised surface Dice, 0 to 1; 0 if nothing of the class was predicted.
    pub nsd: Option<f64>,
    /// Name of the run, or of a method without a run.
    pub run: String,
}

/// The conditions on which a score depends besides the method.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Setup {
    /// The grid of the scores.
    pub space: Space,
    /// Number of folds.
    pub folds: usize,
    /// Those that are scored, with commas between them: "0", "0,1", ...
    pub fold: String,
    /// Use of tested classes in training.
    pub setting: Setting,
    /// Choice of supports.
    pub support: Supports,
    /// The annotated part of a support, and what else is given: "dense", "3 slices", "dense, 12 templates", ...
    pub annotation: String,
    /// The checkpoint.
    pub weights: Weights,
    /// Seeds of the trainings.
    pub seeds: Vec<u64>,
}

/// The grid that is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// The scan's own.
    Native,
}

/// From which scans a query is segmented, each time from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supports {
    /// The scan that follows the fold.
    Next,
    /// That one and every other scan of the fold.
    All,
}

/// Which weights of a training segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Weights {
    /// Those that it ends with.
    #[serde(rename = "final")]
    Final,
    /// Nothing is trained.
    #[serde(rename = "-")]
    None,
}

impl Setup {
    /// The signature of a score, in one piece:
    /// `dice|space=native|protocol=full|folds=5|fold=0|setting=1|support=next|annotation=dense|weights=final|seed=0,1|`
    /// `nsd=3mm|ssl3d=0.1.0`.
    pub fn signature(&self, protocol: Protocol) -> String {
        let Self { space, folds, fold, setting, support, annotation, weights, .. } = self;
        let (space, support, weights) = (space.name(), support.name(), weights.name());
        let (protocol, seeds, version) = (protocol.name(), self.seed_list(), env!("CARGO_PKG_VERSION"));
        format!(
            "dice|space={space}|protocol={protocol}|folds={folds}|fold={fold}|setting={setting}|support={support}\
             |annotation={annotation}|weights={weights}|seed={seeds}|nsd={NSD_TOLERANCE_MM}mm|ssl3d={version}"
        )
    }

    /// The seeds with commas between them: `0,1`.
    pub fn seed_list(&self) -> String {
        self.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Space {
    /// As files and signatures have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
        }
    }
}

impl Supports {
    /// As files and signatures have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::All => "all",
        }
    }
}

impl Weights {
    /// As files and signatures have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::None => "-",
        }
    }
}

/// All scores under one protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ProtocolScores {
    /// The protocol.
    pub protocol: Protocol,
    /// Signature of the scores ([`Setup::signature`]).
    pub signature: String,
    /// Mean of the class means of Dice; `None` if no class was scored.
    pub mean: Option<f64>,
    /// The same where no scan beside support and query was looked at; `None` where none was in the first place.
    pub mean_by_support_alone: Option<f64>,
    /// Mean of the class means of HD95 in millimetres.
    pub hd95_mm: Option<f64>,
    /// Mean of the class means of ASSD in millimetres.
    pub assd_mm: Option<f64>,
    /// Mean of the class means of the normalised surface Dice.
    pub nsd: Option<f64>,
    /// Spread of the class-averaged Dice over queries, supports, folds and seeds.
    pub over: Spreads,
    /// Scores of each class, in the order of their first row.
    pub classes: Vec<ClassScores>,
}

/// The scores of one class under one protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClassScores {
    /// Name of the class.
    pub class: String,
    /// Dice over all scored rows, whatever their query, support, fold and seed.
    pub rows: Option<Summary>,
    /// Their mean where no scan beside support and query was looked at: see [`ProtocolScores::mean_by_support_alone`].
    pub mean_by_support_alone: Option<f64>,
    /// HD95 in millimetres over the rows with a prediction of the class.
    pub hd95_mm: Option<Summary>,
    /// ASSD in millimetres over the rows with a prediction of the class.
    pub assd_mm: Option<Summary>,
    /// Normalised surface Dice over all scored rows.
    pub nsd: Option<Summary>,
    /// Number of scored rows without a prediction, which have no distance.
    pub missed: usize,
    /// Spread of Dice over queries, supports, folds and seeds.
    pub over: Spreads,
    /// Dice of each fold.
    pub fold: BTreeMap<usize, Summary>,
    /// Number of rows whose query does not show the class.
    pub absent: usize,
    /// Mean predicted volume in those rows in millilitres.
    pub false_positive_ml: f64,
}

/// Mean and spread of Dice after averaging within each query, support, fold or seed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spreads {
    /// Over queries.
    pub queries: Option<Summary>,
    /// Over supports.
    pub supports: Option<Summary>,
    /// Over folds.
    pub folds: Option<Summary>,
    /// Over seeds.
    pub seeds: Option<Summary>,
}

/// Averages `rows` by protocol and class. `alone` are those of the same queries without any other scan, where there were some.
pub fn summarise(rows: &[Row], alone: &[Row], setup: &Setup) -> Vec<ProtocolScores> {
    let protocols: BTreeSet<_> = rows.iter().map(|row| row.protocol).collect();
    protocols
        .into_iter()
        .map(|protocol| {
            let [rows, alone]: [Vec<&Row>; 2] =
                [rows, alone].map(|rows| rows.iter().filter(|row| row.protocol == protocol).collect());
            ProtocolScores {
                protocol,
                signature: setup.signature(protocol),
                mean: class_mean(&rows, |row| row.dice),
                mean_by_support_alone: class_mean(&alone, |row| row.dice),
                hd95_mm: class_mean(&rows, |row| row.hd95_mm),
                assd_mm: class_mean(&rows, |row| row.assd_mm),
                nsd: class_mean(&rows, |row| row.nsd),
                over: spreads(&rows),
                classes: unique(rows.iter().map(|row| &row.class))
                    .into_iter()
                    .map(|class| class_scores(&rows, &alone, class))
                    .collect(),
            }
        })
        .collect()
}

/// Writes `scores.csv`.
///
/// # Errors
/// As [`artifact::write`].
pub fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    artifact::write(path, |out| {
        let mut writer = csv::Writer::from_writer(out);
        for row in rows {
            writer.serialize(row).map_err(std::io::Error::other)?;
        }
        writer.flush()
    })
}

/// Reads a file of [`write_csv`].
///
/// # Errors
/// The file is missing or has other columns.
pub fn read_csv(path: &Path) -> Result<Vec<Row>> {
    let remedy = "score the run again with ssl3d eval";
    let refuse = |fault: csv::Error| Error::file(path, "the scores of a run", fault.to_string(), remedy);
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    csv::Reader::from_reader(bytes.as_slice()).deserialize().collect::<Result<_, _>>().map_err(refuse)
}

/// Writes `summary.json`: `{"protocols": [...]}`.
///
/// # Errors
/// As [`artifact::write`].
pub fn write_summary(path: &Path, protocols: &[ProtocolScores]) -> Result<()> {
    artifact::write(path, |out| {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "protocols": protocols }))?;
        out.write_all(b"\n")
    })
}

fn class_scores(rows: &[&Row], alone: &[&Row], class: &str) -> ClassScores {
    let [rows, alone]: [Vec<&Row>; 2] =
        [rows, alone].map(|rows| rows.iter().copied().filter(|row| row.class == class).collect());
    let absent: Vec<f64> = rows.iter().filter(|row| row.dice.is_none()).map(|row| row.predicted_ml).collect();
    let fold = groups(&rows, |row| row.fold)
        .into_iter()
        .filter_map(|(fold, rows)| Some((fold, summary(&rows, |row| row.dice)?)))
        .collect();
    ClassScores {
        class: class.to_owned(),
        rows: summary(&rows, |row| row.dice),
        mean_by_support_alone: summary(&alone, |row| row.dice).map(|summary| summary.mean),
        hd95_mm: summary(&rows, |row| row.hd95_mm),
        assd_mm: summary(&rows, |row| row.assd_mm),
        nsd: summary(&rows, |row| row.nsd),
        missed: rows.iter().filter(|row| row.nsd.is_some() && row.assd_mm.is_none()).count(),
        over: spreads(&rows),
        fold,
        absent: absent.len(),
        false_positive_ml: Summary::of(&absent).map_or(0.0, |s| s.mean),
    }
}

fn spreads(rows: &[&Row]) -> Spreads {
    Spreads {
        queries: spread(rows, |row| row.query.clone()),
        supports: spread(rows, |row| row.support.clone()),
        folds: spread(rows, |row| row.fold),
        seeds: spread(rows, |row| row.seed),
    }
}

fn spread<K: Ord>(rows: &[&Row], key: impl Fn(&Row) -> K) -> Option<Summary> {
    let means: Vec<f64> = groups(rows, key).values().filter_map(|rows| class_mean(rows, |row| row.dice)).collect();
    Summary::of(&means)
}

/// Mean over the classes of their mean score, so that a class that some queries lack has the same weight.
fn class_mean(rows: &[&Row], score: fn(&Row) -> Option<f64>) -> Option<f64> {
    let classes = groups(rows, |row| row.class.clone());
    let means: Vec<f64> = classes.values().filter_map(|rows| summary(rows, score)).map(|s| s.mean).collect();
    Summary::of(&means).map(|summary| summary.mean)
}

fn groups<'a, K: Ord>(rows: &[&'a Row], key: impl Fn(&Row) -> K) -> BTreeMap<K, Vec<&'a Row>> {
    let mut groups = BTreeMap::<K, Vec<&Row>>::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

fn summary(rows: &[&Row], score: fn(&Row) -> Option<f64>) -> Option<Summary> {
    Summary::of(&rows.iter().filter_map(|row| score(row)).collect::<Vec<_>>())
}

/// Each name once, in the order of its first appearance.
pub(super) fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name.as_str()) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn row(query: &str, support: &str, fold: usize, class: &str, protocol: Protocol, dice: Option<f64>) -> Row {
        let (query, support, class) = (query.to_owned(), support.to_owned(), class.to_owned());
        let (true_ml, predicted_ml, run) = (if dice.is_some() { 12.0 } else { 0.0 }, 10.0, "ours".to_owned());
        let found = dice.filter(|dice| *dice > 0.0);
        let [hd95_mm, assd_mm, nsd] = [found.map(|d| 20.0 * d), found.map(|d| 10.0 * d), dice.map(|d| d / 2.0)];
        Row { query, support, fold, seed: 0, class, protocol, dice, predicted_ml, true_ml, hd95_mm, assd_mm, nsd, run }
    }

    pub fn rows() -> Vec<Row> {
        use Protocol::{Ep1, Full};
        vec![
            row("1", "2", 0, "spleen", Full, Some(0.5)),
            row("1", "2", 0, "liver", Full, Some(0.9)),
            row("2", "3", 1, "spleen", Full, None),
            row("2", "3", 1, "liver", Full, Some(0.7)),
            row("2", "3", 1, "liver", Ep1, Some(0.8)),
        ]
    }

    pub fn setup() -> Setup {
        let [fold, annotation] = ["0,1", "dense"].map(str::to_owned);
        let (setting, support) = (Setting::One, Supports::Next);
        let (space, weights) = (Space::Native, Weights::Final);
        Setup { space, folds: 2, fold, setting, support, annotation, weights, seeds: vec![0, 1] }
    }

    #[test]
    fn the_mean_is_that_of_the_class_means_and_absent_classes_do_not_count() {
        let scores = summarise(&rows(), &[], &setup());
        assert_eq!(scores.iter().map(|s| s.protocol).collect::<Vec<_>>(), [Protocol::Full, Protocol::Ep1]);
        let full = &scores[0];
        assert!((full.mean.unwrap() - (0.5 + 0.8) / 2.0).abs() < 1e-12);
        assert_eq!(full.classes.iter().map(|c| c.class.as_str()).collect::<Vec<_>>(), ["spleen", "liver"]);
        assert_eq!((full.classes[0].absent, full.classes[0].false_positive_ml), (1, 10.0));
        // Fold 0 has the class mean .7, fold 1 only the liver's .7.
        let folds = full.over.folds.unwrap();
        assert!((folds.mean - 0.7).abs() < 1e-12 && folds.sd < 1e-12);
        assert!((full.classes[1].rows.unwrap().sd - (0.02f64).sqrt()).abs() < 1e-12);
        assert_eq!(full.classes[1].fold[&1].mean, 0.7);
    }

    #[test]
    fn distances_are_averaged_over_what_was_found_and_surface_dice_over_all_that_is_there() {
        let mut rows = rows();
        rows.truncate(4);
        rows.push(row("3", "4", 1, "spleen", Protocol::Full, Some(0.0)));
        let full = &summarise(&rows, &[], &setup())[0];
        let [spleen, liver] = [&full.classes[0], &full.classes[1]];
        assert_eq!((spleen.missed, spleen.absent, liver.missed), (1, 1, 0));
        assert_eq!((spleen.hd95_mm.unwrap().n, spleen.hd95_mm.unwrap().mean), (1, 10.0));
        assert_eq!((spleen.nsd.unwrap().n, spleen.nsd.unwrap().mean), (2, 0.125));
        assert!((full.hd95_mm.unwrap() - (10.0 + 16.0) / 2.0).abs() < 1e-12);
        assert!((full.assd_mm.unwrap() - (5.0 + 8.0) / 2.0).abs() < 1e-12);
        assert!((full.nsd.unwrap() - (0.125 + 0.4) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_score_is_signed_with_all_that_it_depends_on() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            setup().signature(Protocol::Ep1),
            format!(
                "dice|space=native|protocol=ep1|folds=2|fold=0,1|setting=1|support=next|annotation=dense|weights=final\
                 |seed=0,1|nsd=3mm|ssl3d={version}"
            )
        );
    }

    #[test]
    fn a_setup_has_the_same_words_in_files_and_in_its_signature() {
        let setting = [Setting::One, Setting::Two, Setting::Seen, Setting::Untrained];
        for (at, word) in ["1", "2", "seen", "-"].into_iter().enumerate() {
            let setup = Setup { setting: setting[at], ..setup() };
            assert_eq!(serde_json::to_value(&setup).unwrap()["setting"], word);
            assert!(setup.signature(Protocol::Full).contains(&format!("|setting={word}|")));
        }
        for (support, weights) in [(Supports::Next, Weights::Final), (Supports::All, Weights::None)] {
            let setup = Setup { support, weights, ..setup() };
            let json = serde_json::to_value(&setup).unwrap();
            let words = ["space", "support", "weights"].map(|key| json[key].as_str().unwrap().to_owned());
            assert_eq!(words, ["native", support.name(), weights.name()]);
            assert_eq!(serde_json::from_value::<Setup>(json).unwrap(), setup);
        }
        let setup = Setup { support: Supports::All, weights: Weights::None, ..setup() };
        assert!(setup.signature(Protocol::Full).contains("|support=all|annotation=dense|weights=-|"));
    }

    #[test]
    fn rows_survive_the_csv_file_and_the_summary_its_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        write_csv(&path, &rows()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let header = "query,support,fold,seed,class,protocol,dice,predicted_ml,true_ml,hd95_mm,assd_mm,nsd,run";
        let first = format!("{header}\n1,2,0,0,spleen,full,0.5,10.0,12.0,10.0,5.0,0.25,ours\n");
        assert!(text.starts_with(&first), "{text}");
        assert_eq!(read_csv(&path).unwrap(), rows());

        let path = folder.path().join("summary.json");
        let scores = summarise(&rows(), &[], &setup());
        write_summary(&path, &scores).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let read: Vec<ProtocolScores> = serde_json::from_value(value["protocols"].clone()).unwrap();
        assert_eq!(read, scores);
    }

    #[test]
    fn scores_of_an_earlier_version_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        std::fs::write(
            &path,
            "query,support,fold,seed,class,protocol,dice,predicted_ml,true_ml\n1,2,0,0,a,full,1,1,1\n",
        )
        .unwrap();
        let fault = read_csv(&path).unwrap_err().to_string();
        assert!(fault.contains("run") && fault.ends_with("score the run again with ssl3d eval"), "{fault}");
        assert_eq!(fault.lines().count(), 1);
    }
}
