//! `ssl3d eval`: what trained runs score on the scans that they have not seen, one run or several side by side.

mod page;
mod systems;

pub use systems::run;

use crate::artifact;
use crate::cli::{self, Folds, Protocols};
use crate::commands::progress::Progress;
use crate::commands::scans::ScanFile;
use crate::commands::train::group_folder;
use crate::commands::{Resources, memory, stop};
use crate::config::{self, Config};
use crate::episode::split;
use crate::error::{Error, Result};
use crate::evaluation::{self, AnnotatedScan, Evaluated, Found, Place, Supported};
use crate::metrics::Protocol;
use crate::pretrained::{self, Pretrained};
use crate::report::html::{Figure, render};
use crate::report::scores::{self, ProtocolScores, Setup, Space, Supports, Weights};
use crate::report::{Row, Setting, overlay};
use crate::volume::ClassMap;
use crate::volume::dataset::{self, Case, Dataset};
use std::collections::{BTreeMap, BTreeSet};
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
        Self { flags, run, fold: flags.fold.clone(), protocols: protocols(flags.protocol), resources }
    }
}

/// # Errors
/// There is an evaluation in `out`, and nobody wants it overwritten.
fn refuse_existing(out: &Path, force: bool) -> Result<()> {
    let paths = ["scores.csv", "summary.json", "report.html"].map(|name| out.join(name));
    artifact::refuse_existing(paths, "evaluation", force)
}

fn protocols(flag: Protocols) -> Vec<Protocol> {
    match flag {
        Protocols::Full => vec![Protocol::Full],
        Protocols::Ep1 => vec![Protocol::Ep1],
        Protocols::Ep2 => vec![Protocol::Ep2],
        Protocols::All => vec![Protocol::Full, Protocol::Ep1, Protocol::Ep2],
    }
}

/// All scores of a run.
pub struct Evaluation {
    pub config: Config,
    pub rows: Vec<Row>,
    pub setups: BTreeMap<Protocol, Setup>,
    pub summary: Vec<ProtocolScores>,
    pub figures: Vec<Figure>,
}

/// A query that is shown: mean Dice, name of the support, overlay.
struct Example {
    dice: f64,
    caption: String,
    png: Vec<u8>,
}

/// Scores the folds; nothing is written.
pub fn evaluate(task: &Task) -> Result<Evaluation> {
    let path = task.run.join("config.toml");
    if !path.exists() {
        return Err(Error::file(&path, "the configuration of a run", "no such file", "give a run of ssl3d train"));
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mut config = config::with_overrides(&text, &path.display().to_string(), &task.flags.overrides.set)?;
    let data = dataset::open(&task.flags.data, &config.data)?;
    config.data.classes.clone_from(&data.classes); // a dataset that describes itself has its own
    let folds = folds(task, &config)?;
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for &fold in &folds {
        let mut examples = Vec::new();
        for group in 0..config.split.trainings() {
            rows.extend(score_group(task, &config, &data, fold, group, &mut examples)?);
        }
        figures.extend(page::fold_figures(task, &config, fold, examples)?);
    }
    let setups = task.protocols.iter().map(|&protocol| (protocol, setup(&config, &folds, protocol))).collect();
    let summary = summarise(&rows, &setups);
    Ok(Evaluation { config, rows, setups, summary, figures })
}

/// Averages by protocol, each with its own signature.
fn summarise(rows: &[Row], setups: &BTreeMap<Protocol, Setup>) -> Vec<ProtocolScores> {
    let of = |(protocol, setup): (&Protocol, &Setup)| {
        let rows: Vec<Row> = rows.iter().filter(|row| row.protocol == *protocol).cloned().collect();
        scores::summarise(&rows, setup)
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
                return Err(Error::invalid("--fold", expected, fold.to_string(), "name those to score"));
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

/// Every query of a fold from each of its supports: the organs that the group is tested on.
fn score_group(
    task: &Task,
    config: &Config,
    data: &Dataset,
    fold: usize,
    group: usize,
    examples: &mut Vec<Example>,
) -> Result<Vec<Row>> {
    let parts = split::fold(data.cases.len(), fold, &config.split)?;
    let supports: Vec<usize> = match config.split.supports {
        split::Supports::Next => vec![parts.support],
        split::Supports::All => parts.test.iter().copied().chain([parts.support]).collect(),
    };
    let needed: BTreeSet<usize> = parts.test.iter().chain(&supports).copied().collect();
    let tested = config.split.tested(group, &data.classes)?;
    let is_tested = |(index, _): &(u8, _)| tested.contains(index);
    let (names, values): (Vec<&str>, Vec<i32>) =
        (1..).zip(&data.classes).filter(is_tested).map(|(_, (name, &value))| (name.as_str(), value)).unzip();
    let classes = ClassMap::new(values)?;
    let pretrained = pretrained(task, config, data, fold, group, &needed)?;
    let system = match (&pretrained, evaluation::mask_copy(config.system)) {
        (Some(pretrained), _) => Evaluated::Network(pretrained.segmenter()),
        (None, copy) => Evaluated::MaskCopy(copy.expect("a system without weights")),
    };
    let read = |&position: &usize| Ok((position, annotated(&data.cases[position], config)?));
    let scans: BTreeMap<usize, AnnotatedScan> = needed.iter().map(read).collect::<Result<_>>()?;
    let run = task.run.file_name().unwrap_or(task.run.as_os_str()).to_string_lossy().into_owned();
    let place = Place { run, fold };
    let progress = Progress::new(&format!("fold {fold}: scoring"), 0, (supports.len() * parts.test.len()) as u64);
    let mut rows = Vec::new();
    for support in &supports {
        let supported = Supported::new(&system, &scans[support], &classes, config);
        for query in parts.test.iter().filter(|query| *query != support) {
            stop::check()?;
            let (support, query) = (&scans[support], &scans[query]);
            let mut joint: Option<Found> = None; // what serves several protocols is found once
            for &protocol in &task.protocols {
                let reusable = joint.take().filter(|found| supported.serves(found, protocol));
                let Some(found) = reusable.or_else(|| supported.segment(query, protocol)) else { continue };
                let scored = evaluation::score(config, &place, [support, query], (&names, &classes), protocol, &found);
                if protocol == task.protocols[0] {
                    examples.push(example(config, &scored, support, query, &found, &classes));
                }
                rows.extend(scored);
                joint = Some(found);
            }
            progress.step("");
        }
    }
    progress.finish();
    Ok(rows)
}

/// The network with the fold's weights, which must not have seen the scans that are `needed`; None of a system without weights.
fn pretrained(
    task: &Task,
    config: &Config,
    data: &Dataset,
    fold: usize,
    group: usize,
    needed: &BTreeSet<usize>,
) -> Result<Option<Pretrained>> {
    if !config.system.is_trained() {
        return Ok(None);
    }
    let path = group_folder(task.run, Some(fold), &config.split, group).join("weights.safetensors");
    let weights = pretrained::Weights::read(&path)?;
    let bytes = memory::estimate(config).segmenting_bytes;
    memory::check("segmenting", bytes, task.resources.memory_limit, task.resources.device, memory::SEGMENTING)?;
    let trained_on = weights.provenance.trained_on.clone();
    let pretrained = weights.load(config.clone(), task.resources.device)?;
    let ids = |position: &usize| &data.cases[*position].id;
    if let Some(seen) = needed.iter().map(ids).find(|id| trained_on.contains(id)) {
        let expected = format!("scans that fold {fold} held out");
        let remedy = "give the dataset that the run was trained on";
        return Err(Error::file(&task.flags.data, expected, format!("scan {seen}, which it was trained on"), remedy));
    }
    Ok(Some(pretrained))
}

fn annotated(case: &Case, config: &Config) -> Result<AnnotatedScan> {
    let Some(label) = &case.label else {
        let remedy = "eval needs the labels of the tested scans and of their support";
        return Err(Error::file(&case.image, "a label volume beside it", "none", remedy));
    };
    let file = ScanFile::read(&case.image, &config.preprocessing)?;
    let labels = file.read_labels(&case.image, label)?;
    Ok(AnnotatedScan::new(case.id.clone(), file.scan, labels, config.data.ignore))
}

fn example(
    config: &Config,
    rows: &[Row],
    support: &AnnotatedScan,
    query: &AnnotatedScan,
    found: &Found,
    classes: &ClassMap,
) -> Example {
    let dice = evaluation::mean_dice(rows);
    let all: Vec<i32> = config.data.classes.values().copied().collect();
    let truth = evaluation::evaluated_labels(&query.labels, classes);
    let slices = overlay::best_slices(truth.view(), 2);
    let colours = overlay::class_colours(&all);
    let found = found.joined(classes);
    let png = overlay::overlay_png(&query.scan.image, Some(truth.view()), found.view(), &colours, &slices);
    let caption = format!("Scan {} from support {}: mean Dice {:.1}", query.id, support.id, 100.0 * dice);
    Example { dice, caption, png }
}

impl Evaluation {
    /// Mean Dice over the classes under a protocol.
    pub fn mean(&self, protocol: Protocol) -> Option<f64> {
        self.summary.iter().find(|scores| scores.protocol == protocol)?.mean
    }

    /// As its signatures say.
    fn setting(&self) -> Setting {
        self.setups.values().next().map_or(Setting::Untrained, |setup| setup.setting)
    }

    /// Writes scores, summary and page.
    pub fn write(&self, task: &Task) -> Result<()> {
        artifact::create_folder(&task.flags.out)?;
        scores::write_csv(&task.flags.out.join("scores.csv"), &self.rows)?;
        scores::write_summary(&task.flags.out.join("summary.json"), &self.summary)?;
        artifact::write_bytes(&task.flags.out.join("report.html"), render(&self.page(task)).as_bytes())
    }
}
