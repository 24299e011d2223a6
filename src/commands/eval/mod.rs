//! `ssl3d eval`: what trained runs score on the scans that they have not seen, one run or several side by side.

mod found;
mod page;
mod systems;

pub use systems::run;

use crate::artifact;
use crate::baseline;
use crate::cli::Protocols;
use crate::commands::cohort::Subject;
use crate::commands::progress::Progress;
use crate::commands::train::group_folder;
use crate::commands::{memory, stop};
use crate::config::{self, Config};
use crate::episode::split;
use crate::error::{Error, Result};
use crate::metrics::{Protocol, volume_ml};
use crate::model::Model;
use crate::report::Setting;
use crate::report::html::{Figure, render};
use crate::report::scores::{self, ProtocolScores, Setup, Space, Supports, Weights};
use crate::report::{Row, overlay};
use crate::training::{checkpoint, templates};
use crate::volume::dataset::{self, Case, Dataset};
use found::{Annotated, Found, Segmenter};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One run to score.
pub struct Args {
    pub run: PathBuf,
    pub data: PathBuf,
    /// Numbers of folds with commas between them or "all"; every finished fold where it is not given.
    pub fold: Option<String>,
    pub protocols: Vec<Protocol>,
    pub out: PathBuf,
    /// For what may differ at test: windows, classes, supports.
    pub overrides: Vec<String>,
    pub device: tch::Device,
    /// Bytes that segmenting may take; None to try in any case.
    pub memory_limit: Option<u64>,
}

/// # Errors
/// There is an evaluation in `out`, and nobody wants it overwritten.
pub fn refuse_existing(out: &Path, force: bool) -> Result<()> {
    let there = ["scores.csv", "summary.json", "report.html"].map(|name| out.join(name));
    match there.iter().find(|path| path.exists()).filter(|_| !force) {
        Some(path) => {
            let remedy = "give another --out, or --force to overwrite it";
            Err(Error::file(path, "no evaluation yet", "one that is there already", remedy))
        }
        None => Ok(()),
    }
}

pub fn protocols(flag: Protocols) -> Vec<Protocol> {
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
pub fn evaluate(args: &Args) -> Result<Evaluation> {
    let path = args.run.join("config.toml");
    if !path.exists() {
        return Err(Error::file(&path, "the configuration of a run", "no such file", "give a run of ssl3d train"));
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let mut config = config::with_overrides(&text, &path.display().to_string(), &args.overrides)?;
    let data = dataset::open(&args.data, &config.data)?;
    config.data.classes.clone_from(&data.classes); // a dataset that describes itself has its own
    let folds = folds(args, &config)?;
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for &fold in &folds {
        let mut examples = Vec::new();
        for group in 0..config.split.trainings() {
            rows.extend(score_group(args, &config, &data, fold, group, &mut examples)?);
        }
        figures.extend(page::fold_figures(args, &config, fold, examples)?);
    }
    let setups = args.protocols.iter().map(|&protocol| (protocol, setup(&config, &folds, protocol))).collect();
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
    let is_floor = config.baseline.method != baseline::Method::None;
    Setup {
        space: Space::Native,
        folds: config.split.folds,
        fold: folds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        setting: match config.split.setting {
            _ if is_floor => Setting::Untrained,
            _ if config.supervision.tested_organs => Setting::Seen,
            1 => Setting::One,
            _ => Setting::Two,
        },
        support: match config.split.supports {
            split::Supports::Next => Supports::Next,
            split::Supports::All => Supports::All,
        },
        annotation: Segmenter::annotation(config, protocol),
        weights: if is_floor { Weights::None } else { Weights::Final },
        seeds: vec![config.training.seed],
    }
}

/// The folds to score: those asked for, which must be finished, or all that are.
fn folds(args: &Args, config: &Config) -> Result<Vec<usize>> {
    let weights = |fold: usize, group| {
        group_folder(&args.run, Some(fold), &config.split, group).join("weights.safetensors").exists()
    };
    let finished = |fold: &usize| {
        config.baseline.method != baseline::Method::None
            || (0..config.split.trainings()).all(|group| weights(*fold, group))
    };
    let every: Vec<usize> = (0..config.split.folds).collect();
    let chosen = match args.fold.as_deref() {
        None => every.into_iter().filter(finished).collect(),
        Some("all") => every,
        Some(text) => {
            let known = |part: &str| part.trim().parse().ok().filter(|fold| *fold < config.split.folds);
            text.split(',').map(known).collect::<Option<BTreeSet<usize>>>().map(Vec::from_iter).ok_or_else(|| {
                let expected = format!("0 to {}, several with commas, or all", config.split.folds - 1);
                Error::invalid("--fold", expected, text, "name those to score")
            })?
        }
    };
    match chosen.iter().find(|fold| !finished(fold)) {
        None if !chosen.is_empty() => Ok(chosen),
        missing => {
            let what = missing.map_or("any fold".to_owned(), |fold| format!("fold {fold}"));
            let remedy = "finish it with ssl3d train, or name a finished one with --fold";
            Err(Error::file(&args.run, format!("finished weights of {what}"), "none", remedy))
        }
    }
}

/// Every query of a fold from each of its supports: the organs that the group is tested on.
fn score_group(
    args: &Args,
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
    let segmenter = segmenter(args, config, data, fold, group, &needed)?;
    let tested = config.split.tested(group, &data.classes)?;
    let classes: Vec<(&str, i32)> = (1..)
        .zip(&data.classes)
        .filter(|(i, _)| tested.contains(i))
        .map(|(_, (name, &v))| (name.as_str(), v))
        .collect();
    let values: Vec<i32> = classes.iter().map(|(_, value)| *value).collect();

    let read = |&position: &usize| Ok((position, annotated(&data.cases[position], config)?));
    let scans: BTreeMap<usize, Annotated> = needed.iter().map(read).collect::<Result<_>>()?;
    let progress = Progress::new(&format!("fold {fold}: scoring"), 0, (supports.len() * parts.test.len()) as u64);
    let mut rows = Vec::new();
    for support in &supports {
        let supported = segmenter.reference(&scans[support], &values, config);
        for query in parts.test.iter().filter(|query| *query != support) {
            stop::check()?;
            let (support, query) = (&scans[support], &scans[query]);
            let mut joint: Option<Found> = None; // what serves several protocols is found once
            for &protocol in &args.protocols {
                let reusable = joint.take().filter(|found| supported.serves(found, protocol));
                let Some(found) = reusable.or_else(|| supported.segment(query, protocol)) else { continue };
                let scored = score(config, args, fold, [support, query], &classes, protocol, &found);
                if protocol == args.protocols[0] {
                    examples.push(example(config, &scored, support, query, &found, &values));
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

/// The network with the fold's weights, which must not have seen the scans that are `needed`; or a floor.
fn segmenter(
    args: &Args,
    config: &Config,
    data: &Dataset,
    fold: usize,
    group: usize,
    needed: &BTreeSet<usize>,
) -> Result<Segmenter> {
    if config.baseline.method != baseline::Method::None {
        return Ok(Segmenter::Floor(config.baseline.method));
    }
    let weights = group_folder(&args.run, Some(fold), &config.split, group).join("weights.safetensors");
    let (about, tensors) = checkpoint::read_weights(&weights)?;
    memory::check(
        "segmenting",
        memory::estimate(config).segmenting_bytes,
        args.memory_limit,
        args.device,
        memory::SEGMENTING,
    )?;
    let mut model = Model::new(&config.model(), args.device, config.training.seed);
    model.load(&weights, &tensors)?;
    model.ask_beside(&templates::read(&weights, &about, config.prediction.templates)?);
    let ids = |position: &usize| &data.cases[*position].id;
    if let Some(seen) = needed.iter().map(ids).find(|id| about.trained_on.contains(id)) {
        let expected = format!("scans that fold {fold} held out");
        let remedy = "give the dataset that the run was trained on";
        return Err(Error::file(&args.data, expected, format!("scan {seen}, which it was trained on"), remedy));
    }
    Ok(Segmenter::Network(Box::new(model)))
}

fn annotated(case: &Case, config: &Config) -> Result<Annotated> {
    let Some(label) = &case.label else {
        let remedy = "eval needs the labels of the tested scans and of their support";
        return Err(Error::file(&case.image, "a label volume beside it", "none", remedy));
    };
    let subject = Subject::read_query(&case.image, config)?;
    let labels = subject.read_labels(&case.image, label)?;
    Ok(Annotated { id: case.id.clone(), subject, labels })
}

fn score(
    config: &Config,
    args: &Args,
    fold: usize,
    [support, query]: [&Annotated; 2],
    classes: &[(&str, i32)],
    protocol: Protocol,
    found: &Found,
) -> Vec<Row> {
    let (truth, geometry) = (query.labels.voxels.view(), &query.subject.image.geometry);
    let row = |(index, &(class, value)): (usize, &(&str, i32))| {
        let found = found.of(index).view();
        let surface = protocol.surface(found, truth, value, geometry.spacing_mm());
        Row {
            query: query.id.clone(),
            support: support.id.clone(),
            fold,
            seed: config.training.seed,
            class: class.to_owned(),
            protocol,
            dice: protocol.dice(found, truth, value),
            predicted_ml: volume_ml(found, value, geometry),
            true_ml: volume_ml(truth, value, geometry),
            hd95_mm: surface.and_then(|s| s.hd95_mm),
            assd_mm: surface.and_then(|s| s.assd_mm),
            nsd: surface.map(|s| s.nsd),
            run: args.run.file_name().unwrap_or(args.run.as_os_str()).to_string_lossy().into_owned(),
        }
    };
    classes.iter().enumerate().map(row).collect()
}

fn example(
    config: &Config,
    rows: &[Row],
    support: &Annotated,
    query: &Annotated,
    found: &Found,
    values: &[i32],
) -> Example {
    let dice: Vec<f64> = rows.iter().filter_map(|row| row.dice).collect();
    let dice = dice.iter().sum::<f64>() / dice.len().max(1) as f64;
    let all: Vec<i32> = config.data.classes.values().copied().collect();
    let truth = query.labels.voxels.mapv(|label| if values.contains(&label) { label } else { 0 });
    let slices = overlay::best_slices(truth.view(), 2);
    let colours = overlay::class_colours(&all);
    let found = found.joined(values);
    let png = overlay::overlay_png(&query.subject.image, Some(truth.view()), found.view(), &colours, &slices);
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
    pub fn write(&self, args: &Args) -> Result<()> {
        artifact::create_folder(&args.out)?;
        scores::write_csv(&args.out.join("scores.csv"), &self.rows)?;
        scores::write_summary(&args.out.join("summary.json"), &self.summary)?;
        artifact::write_bytes(&args.out.join("report.html"), render(&self.page(args)).as_bytes())
    }
}
