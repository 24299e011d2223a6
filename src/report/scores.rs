//! One row per query, support, class and protocol; and their summary, signed.

use crate::artifact;
use crate::error::Result;
use crate::metrics::{Protocol, Summary};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One measured Dice. A line of `scores.csv`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    pub query: String,
    pub support: String,
    pub fold: usize,
    pub seed: u64,
    pub class: String,
    pub protocol: Protocol,
    /// Empty where the query does not show the class: then `predicted_ml` is false positive volume.
    pub dice: Option<f64>,
    pub predicted_ml: f64,
    pub true_ml: f64,
}

/// What a score depends on besides the method.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The grid that is scored: "native" or "working".
    pub space: String,
    pub folds: usize,
    /// "0", "1", ... or "all".
    pub fold: String,
    /// How supports are chosen: "next", "all-pairs", ...
    pub support: String,
    /// Which checkpoint: "best", "last", an epoch.
    pub weights: String,
    pub seed: u64,
}

impl Setup {
    /// `dice|space=native|protocol=full|folds=5|fold=0|support=next|weights=best|seed=0|ssl3d=0.1.0`
    pub fn signature(&self, protocol: Protocol) -> String {
        let Self { space, folds, fold, support, weights, seed } = self;
        let (protocol, version) = (protocol.name(), env!("CARGO_PKG_VERSION"));
        format!(
            "dice|space={space}|protocol={protocol}|folds={folds}|fold={fold}|support={support}|weights={weights}\
             |seed={seed}|ssl3d={version}"
        )
    }
}

/// All scores under one protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ProtocolScores {
    pub protocol: Protocol,
    pub signature: String,
    /// Mean of the class means; none where no class was scored.
    pub mean: Option<f64>,
    /// Spread of the class-averaged Dice over queries, supports, folds and seeds.
    pub over: Spreads,
    /// In the order of their first row.
    pub classes: Vec<ClassScores>,
}

/// The scores of one class under one protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ClassScores {
    pub class: String,
    /// Over all scored rows, whatever their query, support, fold and seed.
    pub rows: Option<Summary>,
    pub over: Spreads,
    pub fold: BTreeMap<usize, Summary>,
    /// Rows whose query does not show the class.
    pub absent: usize,
    /// Mean predicted volume in those rows, millilitres.
    pub false_positive_ml: f64,
}

/// Mean and spread after averaging within each query, support, fold or seed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Spreads {
    pub queries: Option<Summary>,
    pub supports: Option<Summary>,
    pub folds: Option<Summary>,
    pub seeds: Option<Summary>,
}

/// Averages `rows` by protocol and class.
pub fn summarise(rows: &[Row], setup: &Setup) -> Vec<ProtocolScores> {
    let protocols: BTreeSet<_> = rows.iter().map(|row| row.protocol).collect();
    protocols
        .into_iter()
        .map(|protocol| {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.protocol == protocol).collect();
            ProtocolScores {
                protocol,
                signature: setup.signature(protocol),
                mean: class_mean(&rows),
                over: spreads(&rows),
                classes: class_names(&rows).into_iter().map(|class| class_scores(&rows, class)).collect(),
            }
        })
        .collect()
}

/// Writes `scores.csv`.
pub fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    artifact::write(path, |out| {
        let mut writer = csv::Writer::from_writer(out);
        for row in rows {
            writer.serialize(row).map_err(std::io::Error::other)?;
        }
        writer.flush()
    })
}

/// Writes `summary.json`: `{"protocols": [...]}`.
pub fn write_summary(path: &Path, protocols: &[ProtocolScores]) -> Result<()> {
    artifact::write(path, |out| {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "protocols": protocols }))?;
        out.write_all(b"\n")
    })
}

fn class_scores(rows: &[&Row], class: &str) -> ClassScores {
    let rows: Vec<&Row> = rows.iter().copied().filter(|row| row.class == class).collect();
    let absent: Vec<f64> = rows.iter().filter(|row| row.dice.is_none()).map(|row| row.predicted_ml).collect();
    let fold = groups(&rows, |row| row.fold)
        .into_iter()
        .filter_map(|(fold, rows)| Some((fold, Summary::of(&dices(&rows))?)))
        .collect();
    ClassScores {
        class: class.to_owned(),
        rows: Summary::of(&dices(&rows)),
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
    let means: Vec<f64> = groups(rows, key).values().filter_map(|rows| class_mean(rows)).collect();
    Summary::of(&means)
}

/// Mean over the classes of their mean Dice, so that a class missing from some queries weighs no less.
fn class_mean(rows: &[&Row]) -> Option<f64> {
    let means: Vec<f64> = groups(rows, |row| row.class.clone())
        .values()
        .filter_map(|rows| Summary::of(&dices(rows)))
        .map(|summary| summary.mean)
        .collect();
    Summary::of(&means).map(|summary| summary.mean)
}

fn groups<'a, K: Ord>(rows: &[&'a Row], key: impl Fn(&Row) -> K) -> BTreeMap<K, Vec<&'a Row>> {
    let mut groups = BTreeMap::<K, Vec<&Row>>::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

fn dices(rows: &[&Row]) -> Vec<f64> {
    rows.iter().filter_map(|row| row.dice).collect()
}

fn class_names<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.class.as_str()) {
            names.push(&row.class);
        }
    }
    names
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn row(query: &str, support: &str, fold: usize, class: &str, protocol: Protocol, dice: Option<f64>) -> Row {
        let (query, support, class) = (query.to_owned(), support.to_owned(), class.to_owned());
        let true_ml = if dice.is_some() { 12.0 } else { 0.0 };
        Row { query, support, fold, seed: 0, class, protocol, dice, predicted_ml: 10.0, true_ml }
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
        let [space, fold, support, weights] = ["native", "all", "next", "best"].map(str::to_owned);
        Setup { space, folds: 2, fold, support, weights, seed: 0 }
    }

    #[test]
    fn the_mean_is_that_of_the_class_means_and_absent_classes_do_not_count() {
        let scores = summarise(&rows(), &setup());
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
    fn a_score_is_signed_with_all_that_it_depends_on() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            setup().signature(Protocol::Ep1),
            format!("dice|space=native|protocol=ep1|folds=2|fold=all|support=next|weights=best|seed=0|ssl3d={version}")
        );
    }

    #[test]
    fn rows_survive_the_csv_file_and_the_summary_its_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        write_csv(&path, &rows()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(
                "query,support,fold,seed,class,protocol,dice,predicted_ml,true_ml\n1,2,0,0,spleen,full,0.5"
            )
        );
        let read: Result<Vec<Row>, _> = csv::Reader::from_path(&path).unwrap().deserialize().collect();
        assert_eq!(read.unwrap(), rows());

        let path = folder.path().join("summary.json");
        let scores = summarise(&rows(), &setup());
        write_summary(&path, &scores).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let read: Vec<ProtocolScores> = serde_json::from_value(value["protocols"].clone()).unwrap();
        assert_eq!(read, scores);
    }
}
