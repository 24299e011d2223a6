//! `ssl3d eval`: what trained runs score on the scans that they have not seen, one run or several side by side.

mod group;
mod overview;
mod page;
mod systems;

pub use systems::run;

use crate::artifact;
use crate::cli::{self, Folds, Protocols};
use crate::commands::train::group_folder;
use crate::commands::{Resources, scans};
use crate::config::{self, Config};
use crate::episode::split;
use crate::error::{Error, Result};
use crate::evaluation;
use crate::metrics::Protocol;
use crate::report::html::{Figure, render};
use crate::report::scores::{self, ProtocolScores, Setup, Space, Supports, Weights};
use crate::report::{Row, Setting};
use crate::text;
use group::Group;
use std::collections::BTreeMap;
use std::path::Path;

/// One run to score.
#[derive(Clone)]
pub struct Task<'a> {
    /// What was asked for.
    pub flags: &'a cli::Eval,
    /// One of the flags' runs.
    pub run: &'a Path,
    /// As in the flags, or the folds of the runs that it is compared with.
    pub fold: Option<Folds>,
    /// What is scored.
    pub protocols: Vec<Protocol>,
    /// Device and memory.
    pub resources: Resources,
}

impl<'a> Task<'a> {
    /// The first run.
    pub fn of(flags: &'a cli::Eval, resources: Resources) -> Self {
        let run = flags.run.first().expect("at least one is required");
        Self { flags, run, fold: flags.fold.clone(), protocols: protocols(&flags.protocol), resources }
    }
}

/// Keeps an evaluation from being overwritten.
///
/// # Errors
/// There is an evaluation in `out`, and nobody wants it overwritten.
fn refuse_existing(out: &Path, force: bool) -> Result<()> {
    let paths = ["scores.csv", "scores_by_support_alone.csv", "summary.json", "report.html"].map(|name| out.join(name));
    artifact::refuse_existing(paths, "evaluation", force)
}

/// In their own order, each once.
fn protocols(flags: &[Protocols]) -> Vec<Protocol> {
    let named = [(Protocols::Full, Protocol::Full), (Protocols::Ep1, Protocol::Ep1), (Protocols::Ep2, Protocol::Ep2)];
    let is_named = |flag: Protocols| flags.contains(&flag) || flags.contains(&Protocols::All);
    named.into_iter().filter(|(flag, _)| is_named(*flag)).map(|(_, protocol)| protocol).collect()
}

/// All scores of a run.
pub struct Evaluation {
    /// The run's configuration, with the classes of the dataset.
    pub config: Config,
    /// Every class of every query.
    pub rows: Vec<Row>,
    /// The same without any scan beside support and query; none where there was no other in the first place.
    pub alone: Vec<Row>,
    /// How each protocol was scored.
    pub setups: BTreeMap<Protocol, Setup>,
    /// Averages.
    pub summary: Vec<ProtocolScores>,
    /// Curves and overlays.
    pub figures: Vec<Figure>,
}

/// Scores the folds; nothing is written.
///
/// # Errors
/// The run, its configuration or the dataset is faulty; a fold is not finished; a signal stops it.
pub fn evaluate(task: &Task) -> Result<Evaluation> {
    let path = task.run.join("config.toml");
    if !path.exists() {
        return Err(Error::file(&path, "the configuration of a run", "no such file", "give a run of ssl3d train"));
    }
    let text = text::read("read", &path)?;
    let mut config = config::with_overrides(&text, &path.display().to_string(), &task.flags.overrides.set)?;
    let data = scans::open(&task.flags.data, &config.data)?;
    scans::doubt_names(&data);
    config.data.classes.clone_from(&data.classes);
    config.data.ignore = data.ignore;
    let folds = folds(task, &config)?;
    let (mut rows, mut alone, mut figures) = (Vec::new(), Vec::new(), Vec::new());
    for &fold in &folds {
        let mut examples = Vec::new();
        for group in 0..config.split.trainings() {
            let group = Group { task, config: &config, data: &data, fold, group };
            let scored = group.score(&mut examples)?;
            rows.extend(scored.rows);
            alone.extend(scored.alone);
        }
        figures.extend(page::fold_figures(task, &config, fold, examples)?);
    }
    let setups = task.protocols.iter().map(|&protocol| (protocol, setup(&config, &folds, protocol))).collect();
    let summary = summarise(&rows, &alone, &setups);
    Ok(Evaluation { config, rows, alone, setups, summary, figures })
}

/// Averages by protocol, each with its own signature.
fn summarise(rows: &[Row], alone: &[Row], setups: &BTreeMap<Protocol, Setup>) -> Vec<ProtocolScores> {
    let of = |(protocol, setup): (&Protocol, &Setup)| {
        let rows: Vec<Row> = rows.iter().filter(|row| row.protocol == *protocol).cloned().collect();
        scores::summarise(&rows, alone, setup)
    };
    setups.iter().flat_map(of).collect()
}

fn setup(config: &Config, folds: &[usize], protocol: Protocol) -> Setup {
    let is_trained = config.system.is_trained();
    Setup {
        space: Space::Native,
        folds: config.split.folds,
        fold: folds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        setting: match config.split.setting {
            _ if !is_trained => Setting::Untrained,
            _ if config.supervision.tested_organs => Setting::Seen,
            1 => Setting::One,
            _ => Setting::Two,
        },
        support: match config.split.supports {
            split::Supports::Next => Supports::Next,
            split::Supports::All => Supports::All,
        },
        annotation: evaluation::annotation(config, protocol),
        weights: if is_trained { Weights::Final } else { Weights::None },
        seeds: vec![config.training.seed],
    }
}

/// The folds to score: those asked for, which must be finished, or all that are.
fn folds(task: &Task, config: &Config) -> Result<Vec<usize>> {
    let weights = |fold: usize, group| {
        group_folder(task.run, Some(fold), &config.split, group).join("weights.safetensors").exists()
    };
    let finished =
        |fold: &usize| !config.system.is_trained() || (0..config.split.trainings()).all(|group| weights(*fold, group));
    let every: Vec<usize> = (0..config.split.folds).collect();
    let chosen = match &task.fold {
        None => every.into_iter().filter(finished).collect(),
        Some(Folds::All) => every,
        Some(Folds::These(folds)) => match folds.iter().find(|fold| **fold >= config.split.folds) {
            None => folds.iter().copied().collect(),
            Some(fold) => {
                let expected = format!("0 to {}, several with commas, or all", config.split.folds - 1);
                return Err(Error::flag("--fold", expected, fold.to_string(), "name those to score"));
            }
        },
    };
    match chosen.iter().find(|fold| !finished(fold)) {
        None if !chosen.is_empty() => Ok(chosen),
        missing => {
            let what = missing.map_or("any fold".to_owned(), |fold| format!("fold {fold}"));
            let remedy = "finish it with ssl3d train, or name a finished one with --fold";
            Err(Error::file(task.run, format!("finished weights of {what}"), "none", remedy))
        }
    }
}

/// `scores.csv`, and `scores_by_support_alone.csv` where other scans were looked at; one that lies there from before goes otherwise.
fn write_rows(out: &Path, rows: &[Row], alone: &[Row]) -> Result<()> {
    scores::write_csv(&out.join("scores.csv"), rows)?;
    let path = out.join("scores_by_support_alone.csv");
    if !alone.is_empty() {
        return scores::write_csv(&path, alone);
    }
    match std::fs::remove_file(&path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(fault)),
        _ => Ok(()),
    }
}

impl Evaluation {
    /// Mean Dice over the classes under a protocol, 0 to 1.
    pub fn mean(&self, protocol: Protocol) -> Option<f64> {
        self.scores(protocol)?.mean
    }

    fn scores(&self, protocol: Protocol) -> Option<&ProtocolScores> {
        self.summary.iter().find(|scores| scores.protocol == protocol)
    }

    /// As its signatures say.
    fn setting(&self) -> Setting {
        self.setups.values().next().map_or(Setting::Untrained, |setup| setup.setting)
    }

    /// Writes scores, summary and page.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, task: &Task) -> Result<()> {
        artifact::create_folder(&task.flags.out)?;
        write_rows(&task.flags.out, &self.rows, &self.alone)?;
        scores::write_summary(&task.flags.out.join("summary.json"), &self.summary)?;
        artifact::write_bytes(&task.flags.out.join("report.html"), render(&self.page(task)).as_bytes())
    }
}
