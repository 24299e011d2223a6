//! Published results, by dataset: `published.toml` holds them all.
//!
//! They say nothing of other data. So they are printed only where the configuration names the dataset (`data.benchmark`)
//! and exactly its classes were scored; and a run repeats a published system only where it says so (`published`).

use super::Setting;
use crate::error::{Error, Result};
use crate::metrics::Protocol;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// What is published of one dataset.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// As a page names it.
    pub title: String,
    /// Names of the classes that it scores.
    pub classes: BTreeSet<String>,
    /// In the order in which they are printed.
    pub rows: Vec<Published>,
}

/// A published row.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Name of the system, as its authors have it.
    pub system: String,
    /// What its network sees.
    pub network: Network,
    /// Evaluation protocol.
    pub protocol: Protocol,
    /// Use of tested classes in training.
    pub setting: Setting,
    /// Mean Dice over the classes, per cent.
    pub mean: f64,
    /// Of each class whose Dice is known, per cent.
    #[serde(default)]
    pub dice: BTreeMap<String, f64>,
    /// Where the figure stands, or how it was made.
    pub source: String,
}

/// What a network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Network {
    /// Single slices.
    #[serde(rename = "2D")]
    Slices,
    /// Whole volumes.
    #[serde(rename = "3D")]
    Volumes,
    /// There is no network.
    #[serde(rename = "-")]
    None,
}

static BENCHMARKS: LazyLock<BTreeMap<String, Benchmark>> =
    LazyLock::new(|| toml::from_str(include_str!("published.toml")).expect("the compiled-in results are valid"));

/// What is published of the dataset of this name; nothing where the name is empty or unknown.
///
/// ```
/// use ssl3d::{metrics::Protocol, report::{Setting, published::benchmark}};
/// let chaos = benchmark("chaos-t2-spir").expect("it has published results");
/// assert!(chaos.is_of(["liver", "right_kidney", "left_kidney", "spleen"]) && !chaos.is_of(["liver"]));
/// let alpnet = chaos.find("SSL-ALPNet", Setting::One, Protocol::Ep1).expect("Ouyang et al. 2020 report it");
/// assert_eq!(alpnet.mean, 78.84);
/// ```
pub fn benchmark(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.get(name)
}

/// Both keys of a configuration; either may be empty. A published system must be one of the dataset that is named, and one of any
/// dataset where none is.
///
/// # Errors
/// A name is unknown: the fault lists those that are known.
pub fn check(dataset: &str, system: &str) -> Result<()> {
    if !dataset.is_empty() && benchmark(dataset).is_none() {
        let expected = format!("\"\" or a dataset with published results ({})", quoted(BENCHMARKS.keys()));
        return Err(Error::invalid("data.benchmark", expected, format!("{dataset:?}"), "name one of these"));
    }
    let systems: BTreeSet<&String> = BENCHMARKS
        .iter()
        .filter(|(name, _)| dataset.is_empty() || *name == dataset)
        .flat_map(|(_, benchmark)| benchmark.rows.iter().map(|row| &row.system))
        .collect();
    if !system.is_empty() && !systems.iter().any(|known| *known == system) {
        let expected = format!("\"\" or a published system ({})", quoted(systems));
        return Err(Error::invalid("published", expected, format!("{system:?}"), "name one of these"));
    }
    Ok(())
}

fn quoted<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

impl Benchmark {
    /// Are these its classes, all of them and no other?
    pub fn is_of<'a>(&self, classes: impl IntoIterator<Item = &'a str>) -> bool {
        let classes: BTreeSet<&str> = classes.into_iter().collect();
        self.classes.iter().map(String::as_str).collect::<BTreeSet<_>>() == classes
    }

    /// The row of a system under this very protocol and setting. A system that is not trained has no setting of its own.
    pub fn find(&self, system: &str, setting: Setting, protocol: Protocol) -> Option<&Published> {
        self.rows.iter().find(|row| {
            let same_setting = row.setting == setting || row.setting == Setting::Untrained;
            row.system == system && row.protocol == protocol && same_setting
        })
    }
}

impl Network {
    /// "2D", "3D", or "-".
    pub fn name(self) -> &'static str {
        match self {
            Self::Slices => "2D",
            Self::Volumes => "3D",
            Self::None => "-",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_of_the_papers_table_finds_its_published_figure() {
        use Protocol::{Ep1, Full};
        use Setting::{One, Seen, Two, Untrained};
        for (system, setting, protocol, expected) in [
            ("SE-Net", Two, Ep1, Some(50.66)),
            ("SE-Net", Two, Full, None),
            ("SE-Net", One, Ep1, None),
            ("vanilla PANet", Two, Ep1, Some(46.33)),
            ("ALPNet", Two, Ep1, Some(50.43)),
            ("ALPNet-init", One, Ep1, Some(23.93)),
            ("ALPNet-init", Two, Ep1, Some(23.93)),
            ("SSL-PANet", Two, Ep1, Some(54.85)),
            ("SSL-ALPNet", One, Ep1, Some(78.84)),
            ("SSL-ALPNet", Two, Ep1, Some(73.02)),
            ("SSL-ALPNet", Seen, Ep1, None),
            ("3D SSL-ALPNet", One, Full, Some(62.7)),
            ("3D SSL-ALPNet", Two, Full, None),
            ("mask copy", Untrained, Full, Some(36.3)),
            ("affine mask copy", Untrained, Full, Some(39.2)),
            ("affine mask copy", Untrained, Ep1, Some(41.8)),
            ("ours", One, Full, None),
            ("", One, Full, None),
        ] {
            let found = benchmark("chaos-t2-spir").unwrap().find(system, setting, protocol).map(|row| row.mean);
            assert_eq!(found, expected, "{system}, Setting {setting}, {protocol:?}");
        }
    }

    #[test]
    fn no_row_stands_twice_and_every_figure_is_a_percentage_of_a_known_class() {
        for (name, benchmark) in BENCHMARKS.iter() {
            for (at, row) in benchmark.rows.iter().enumerate() {
                let same = |other: &&Published| {
                    (&other.system, other.protocol, other.setting) == (&row.system, row.protocol, row.setting)
                };
                assert!(!benchmark.rows[..at].iter().any(|other| same(&other)), "{name}: {row:?} stands twice");
                assert!(
                    row.dice.values().chain([&row.mean]).all(|dice| (1.0..100.0).contains(dice)),
                    "{name}: {row:?}"
                );
                assert!(row.dice.keys().all(|class| benchmark.classes.contains(class)), "{name}: {row:?}");
                assert!(!row.system.is_empty() && !row.source.is_empty(), "{name}: {row:?}");
            }
        }
    }

    #[test]
    fn a_benchmark_is_met_by_exactly_its_classes() {
        let chaos = benchmark("chaos-t2-spir").unwrap();
        assert!(chaos.is_of(["spleen", "liver", "left_kidney", "right_kidney"]));
        assert!(!chaos.is_of(["liver", "left_kidney", "right_kidney"]), "one is missing");
        assert!(!chaos.is_of(["spleen", "liver", "left_kidney", "right_kidney", "pancreas"]), "one more");
        assert!(!chaos.is_of(["lv_bp", "lv_myo", "rv"]));
        assert!(!chaos.is_of([]));
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_are_known() {
        for (dataset, system, words) in [
            ("chaos", "", &["data.benchmark: expected \"\" or", "\"chaos-t2-spir\"", "found \"chaos\""][..]),
            ("chaos-t2-spir", "SENet", &["published: expected \"\" or", "\"SE-Net\"", "\"ALPNet\"", "found \"SENet\""]),
            ("", "SENet", &["published: expected", "\"SE-Net\"", "found \"SENet\""]),
        ] {
            let fault = check(dataset, system).unwrap_err().to_string();
            assert!(words.iter().all(|word| fault.contains(word)), "{fault}");
            assert_eq!(fault.lines().count(), 1, "{fault}");
            assert_eq!(fault.matches("SSL-PANet").count(), usize::from(!system.is_empty()), "each name once: {fault}");
        }
        for (dataset, system) in [("", ""), ("chaos-t2-spir", ""), ("", "SE-Net"), ("chaos-t2-spir", "SE-Net")] {
            check(dataset, system).unwrap();
        }
    }
}
