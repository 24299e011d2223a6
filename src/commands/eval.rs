//! `ssl3d eval`: what a trained run scores on the scans that it has not seen.

use crate::artifact;
use crate::cli::Protocols;
use crate::commands::cohort::Subject;
use crate::commands::progress::{Progress, note};
use crate::commands::stop;
use crate::commands::train::fold_folder;
use crate::config::{self, Config};
use crate::episode::split::{self, Supports};
use crate::error::{Error, Result};
use crate::metrics::{Protocol, volume_ml};
use crate::model::{Model, Reference};
use crate::report::html::{Card, Figure, FigureBody, HtmlTable, Page, render};
use crate::report::scores::{self, ProtocolScores, Setup};
use crate::report::{Row, curves, overlay, table};
use crate::tensor::{from_classes, from_voxels, to_channels};
use crate::training::{checkpoint, log};
use crate::volume::LabelMap;
use crate::volume::dataset::{self, Case};
use ndarray::Array3;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub struct Args {
    pub run: PathBuf,
    pub data: PathBuf,
    /// A fold's number or "all"; every finished fold where it is not given.
    pub fold: Option<String>,
    pub protocols: Vec<Protocol>,
    pub out: PathBuf,
    /// For what may differ at test: windows, classes, supports.
    pub overrides: Vec<String>,
    pub device: tch::Device,
}

pub fn protocols(flag: Protocols) -> Vec<Protocol> {
    match flag {
        Protocols::Full => vec![Protocol::Full],
        Protocols::Ep1 => vec![Protocol::Ep1],
        Protocols::All => vec![Protocol::Full, Protocol::Ep1],
    }
}

pub fn run(args: &Args) -> Result<()> {
    let evaluation = evaluate(args)?;
    evaluation.write(args)?;
    for protocol in &evaluation.summary {
        println!("{}\n{}", protocol.signature, table::by_class(protocol).to_text());
    }
    println!("{}", table::beside_published(&evaluation.summary, "1").to_text());
    note(&format!("scores.csv, summary.json and report.html are in {}", args.out.display()));
    Ok(())
}

/// All scores of a run.
pub struct Evaluation {
    pub config: Config,
    pub rows: Vec<Row>,
    pub summary: Vec<ProtocolScores>,
    pub figures: Vec<Figure>,
}

/// A scan with its truth.
struct Annotated {
    id: String,
    subject: Subject,
    labels: LabelMap,
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
        let parts = split::fold(data.cases.len(), fold, &config.split)?;
        let others: Vec<usize> = match config.split.supports {
            Supports::Next => vec![parts.support],
            Supports::All => parts.test.iter().copied().chain([parts.support]).collect(),
        };
        let mut examples = Vec::new();
        let weights = fold_folder(&args.run, Some(fold)).join("weights.safetensors");
        let (about, tensors) = checkpoint::read_weights(&weights)?;
        let model = Model::new(&config.model(), args.device, config.training.seed);
        model.load(&weights, &tensors)?;
        let read = |&position: &usize| annotated(&data.cases[position], &config);
        let mut needed: Vec<usize> = parts.test.iter().chain(&others).copied().collect();
        needed.sort_unstable();
        needed.dedup();
        let ids = |position: &usize| &data.cases[*position].id;
        if let Some(seen) = needed.iter().map(ids).find(|id| about.trained_on.contains(id)) {
            let expected = format!("scans that fold {fold} held out");
            let remedy = "give the dataset that the run was trained on";
            return Err(Error::file(&args.data, expected, format!("scan {seen}, which it was trained on"), remedy));
        }
        let scans: BTreeMap<usize, Annotated> = needed.iter().map(|p| Ok((*p, read(p)?))).collect::<Result<_>>()?;
        let progress = Progress::new(&format!("fold {fold}: scoring"), 0, (others.len() * parts.test.len()) as u64);
        let values: Vec<i32> = config.data.classes.values().copied().collect();
        for support in &others {
            let reference = reference(&model, &values, &scans[support]);
            for query in parts.test.iter().filter(|query| *query != support) {
                stop::check()?;
                let (support, query) = (&scans[support], &scans[query]);
                let found = segment(&model, &values, &reference, query);
                let scored = score(&config, args, fold, support, query, &found);
                examples.push(example(&config, &scored, support, query, &found));
                rows.extend(scored);
                progress.step("");
            }
        }
        progress.finish();
        figures.extend(fold_figures(args, &config, fold, examples)?);
    }
    let setup = Setup {
        space: "native".to_owned(),
        folds: config.split.folds,
        fold: folds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        support: match config.split.supports {
            Supports::Next => "next".to_owned(),
            Supports::All => "all".to_owned(),
        },
        weights: "final".to_owned(),
        seed: config.training.seed,
    };
    let summary = scores::summarise(&rows, &setup);
    Ok(Evaluation { config, rows, summary, figures })
}

/// The folds to score: those asked for, which must be finished, or all that are.
fn folds(args: &Args, config: &Config) -> Result<Vec<usize>> {
    let finished = |fold: &usize| fold_folder(&args.run, Some(*fold)).join("weights.safetensors").exists();
    let every: Vec<usize> = (0..config.split.folds).collect();
    let chosen = match args.fold.as_deref() {
        None => every.into_iter().filter(finished).collect(),
        Some("all") => every,
        Some(text) => match text.parse() {
            Ok(fold) if fold < config.split.folds => vec![fold],
            _ => {
                let expected = format!("0 to {} or all", config.split.folds - 1);
                return Err(Error::invalid("--fold", expected, text, "name one of them"));
            }
        },
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

fn annotated(case: &Case, config: &Config) -> Result<Annotated> {
    let Some(label) = &case.label else {
        let remedy = "eval needs the labels of the tested scans and of their support";
        return Err(Error::invalid(format!("scan {}", case.id), "a label volume beside it", "none", remedy));
    };
    let subject = Subject::read(&case.image, &config.preprocess)?;
    let labels = subject.read_labels(&case.image, label)?;
    Ok(Annotated { id: case.id.clone(), subject, labels })
}

/// What the classes look like in the support.
fn reference(model: &Model, values: &[i32], support: &Annotated) -> Reference {
    let classes = support.subject.classes(support.labels.voxels.view(), values);
    let image = from_voxels(support.subject.working.view());
    model.reference(&[(image, from_classes(classes.view()))], values.len() as i64)
}

/// The query's label map on its native grid.
fn segment(model: &Model, values: &[i32], reference: &Reference, query: &Annotated) -> Array3<i32> {
    let scores = model.predict(&from_voxels(query.subject.working.view()), reference);
    let classes = query.subject.grid.classes_to_native(to_channels(&scores).view());
    classes.mapv(|class| if class == 0 { 0 } else { values[class as usize - 1] })
}

fn score(
    config: &Config,
    args: &Args,
    fold: usize,
    support: &Annotated,
    query: &Annotated,
    found: &Array3<i32>,
) -> Vec<Row> {
    let truth = query.labels.voxels.view();
    let ml = |labels, value| volume_ml(labels, value, &query.subject.image.geometry);
    let mut rows = Vec::new();
    for (class, &value) in &config.data.classes {
        for &protocol in &args.protocols {
            rows.push(Row {
                query: query.id.clone(),
                support: support.id.clone(),
                fold,
                seed: config.training.seed,
                class: class.clone(),
                protocol,
                dice: protocol.dice(found.view(), truth, value),
                predicted_ml: ml(found.view(), value),
                true_ml: ml(truth, value),
            });
        }
    }
    rows
}

fn example(config: &Config, rows: &[Row], support: &Annotated, query: &Annotated, found: &Array3<i32>) -> Example {
    let dice: Vec<f64> = rows.iter().filter_map(|row| row.dice).collect();
    let dice = dice.iter().sum::<f64>() / dice.len().max(1) as f64;
    let values: Vec<i32> = config.data.classes.values().copied().collect();
    let truth = query.labels.voxels.view();
    let slices = overlay::best_slices(truth, 2);
    let colours = overlay::class_colours(&values);
    let png = overlay::overlay_png(&query.subject.image, Some(truth), found.view(), &colours, &slices);
    let caption = format!("Scan {} from support {}: mean Dice {:.1}", query.id, support.id, 100.0 * dice);
    Example { dice, caption, png }
}

/// Curves of the fold's training, and its worst and best query.
fn fold_figures(args: &Args, config: &Config, fold: usize, mut examples: Vec<Example>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let rows = log::read(&fold_folder(&args.run, Some(fold)).join("log.csv"), u64::MAX)?;
    if !rows.is_empty() {
        figures.push(Figure {
            heading: format!("Training of fold {fold}"),
            caption: "Organ Dice is shown for orientation only: nothing is chosen by it.".to_owned(),
            legend: vec![],
            body: FigureBody::Svg(curves::curves_svg(&rows)),
        });
    }
    examples.sort_by(|a, b| a.dice.total_cmp(&b.dice));
    let values: Vec<i32> = config.data.classes.values().copied().collect();
    let colours = overlay::class_colours(&values);
    let legend: Vec<_> = config.data.classes.iter().map(|(name, value)| (name.clone(), colours[value])).collect();
    let best = (examples.len() > 1).then(|| examples.pop()).flatten().map(|e| ("best", e));
    let worst = examples.into_iter().next().map(|e| ("lowest", e));
    figures.extend(best.into_iter().chain(worst).map(|(which, example)| Figure {
        heading: format!("Fold {fold}: the query that scores {which}"),
        caption: format!("{}. Image, truth, prediction.", example.caption),
        legend: legend.clone(),
        body: FigureBody::Png(example.png),
    }));
    Ok(figures)
}

impl Evaluation {
    /// Mean Dice over the classes under a protocol.
    pub fn mean(&self, protocol: Protocol) -> Option<f64> {
        self.summary.iter().find(|scores| scores.protocol == protocol)?.mean
    }

    /// Writes scores, summary and page.
    pub fn write(&self, args: &Args) -> Result<()> {
        artifact::create_folder(&args.out)?;
        scores::write_csv(&args.out.join("scores.csv"), &self.rows)?;
        scores::write_summary(&args.out.join("summary.json"), &self.summary)?;
        artifact::write_bytes(&args.out.join("report.html"), render(&self.page(args)).as_bytes())
    }

    pub fn page(&self, args: &Args) -> Page {
        let protocols = args.protocols.iter();
        let cards = protocols.filter_map(|&protocol| {
            let note = match protocol {
                Protocol::Full => "whole volume, native grid",
                Protocol::Ep1 => "organ's own slices only",
            };
            let value = table::per_cent(Some(self.mean(protocol)?));
            Some(Card { label: format!("Mean Dice, {}", protocol.name()), value, note: note.to_owned() })
        });
        let by_class = self.summary.iter().map(|scores| {
            let caption = format!("Dice by class, protocol {}", scores.protocol.name());
            HtmlTable::new(caption, table::by_class(scores), scores.signature.clone())
        });
        let published = HtmlTable::new(
            "Beside the published figures",
            table::beside_published(&self.summary, "1"),
            "Published rows are mean Dice on CHAOS T2-SPIR as their papers print them; protocols and data differ.",
        );
        let queries: std::collections::BTreeSet<_> = self.rows.iter().map(|row| &row.query).collect();
        let scans = queries.len();
        Page {
            title: "ssl3d: evaluation".to_owned(),
            lead: format!(
                "{scans} scan{} segmented from one labelled support each, by a network that was trained without \
                 any label. All scores are Dice in per cent on the scans' own grids.",
                if scans == 1 { "" } else { "s" }
            ),
            cards: cards.collect(),
            tables: by_class.chain([published]).collect(),
            figures: self.figures.clone(),
            commands: vec![command(args)],
            footer: self.summary.iter().map(|s| s.signature.clone()).collect::<Vec<_>>().join("  "),
        }
    }
}

fn command(args: &Args) -> String {
    let folder = |path: &Path| path.display().to_string();
    let fold = args.fold.as_ref().map_or(String::new(), |fold| format!(" --fold {fold}"));
    let set: String = args.overrides.iter().map(|text| format!(" --set {text}")).collect();
    format!(
        "ssl3d eval --run {} --data {}{fold}{set} --out {}",
        folder(&args.run),
        folder(&args.data),
        folder(&args.out)
    )
}
