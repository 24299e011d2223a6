//! `ssl3d demo`: every step on a generated abdominal cohort, and a page to look at.

use crate::artifact;
use crate::baselines::AxisMap;
use crate::cli::{self, Classes, Folds, Held};
use crate::commands::progress::{note, print};
use crate::commands::{Resources, eval, pseudolabel, scans, segment, train};
use crate::config;
use crate::episode::split;
use crate::error::{Error, Result};
use crate::metrics::{self, Protocol, Summary};
use crate::phantom;
use crate::report::html::{Card, Figure, FigureBody, HtmlTable, Page, render};
use crate::report::table::{Table, per_cent};
use crate::volume::dataset::Dataset;
use crate::volume::nifti;
use std::path::{Path, PathBuf};

const CONFIG: &str = include_str!("../../configs/demo.toml");
const SUBJECTS: usize = 8;
const FOLD: usize = 0;

/// The files of a demonstration.
struct Files {
    data: PathBuf,
    config: PathBuf,
    supervoxels: PathBuf,
    run: PathBuf,
    evaluation: PathBuf,
    segmentations: PathBuf,
    report: PathBuf,
}

impl Files {
    fn under(out: &Path) -> Self {
        let [data, config, supervoxels, run, evaluation, segmentations, report] =
            ["data", "demo.toml", "supervoxels", "run", "evaluation", "segmentations", "report.html"]
                .map(|name| out.join(name));
        Self { data, config, supervoxels, run, evaluation, segmentations, report }
    }

    /// Keeps what is there from being replaced, unless it is a demonstration that was stopped.
    ///
    /// # Errors
    /// Something is there that is no demonstration under way.
    fn refuse_existing(&self) -> Result<()> {
        let Self { data, config, supervoxels, run, evaluation, segmentations, report } = self;
        let is_under_way = std::fs::read(config).is_ok_and(|text| text == CONFIG.as_bytes()) && !report.exists();
        let all = [report, data, config, supervoxels, run, evaluation, segmentations];
        if is_under_way { Ok(()) } else { artifact::refuse_existing(all, "demonstration", false) }
    }

    /// The flags of `ssl3d train`.
    fn training(&self, args: &cli::Demo) -> cli::Train {
        cli::Train {
            configuration: cli::Configuration { config: Some(self.config.clone()), ..Default::default() },
            data: self.data.clone(),
            supervoxels: Some(self.supervoxels.clone()),
            run: self.run.clone(),
            fold: Held::Fold(FOLD),
            allow_changed: args.force,
            force: true,
            device: args.device,
        }
    }

    /// The flags of `ssl3d eval`.
    fn scoring(&self, args: &cli::Demo) -> cli::Eval {
        cli::Eval {
            run: vec![self.run.clone()],
            data: self.data.clone(),
            fold: Some(Folds::These([FOLD].into())),
            protocol: cli::Protocols::All,
            out: self.evaluation.clone(),
            force: true,
            device: args.device,
            overrides: cli::Overrides::default(),
        }
    }

    /// The flags of `ssl3d segment`.
    fn segmenting(&self, args: &cli::Demo, data: &Dataset, parts: &split::Fold) -> cli::Segment {
        let support = &data.cases[parts.support];
        let label = support.label.clone().expect("the cohort is labelled");
        cli::Segment {
            weights: train::fold_folder(&self.run, Some(FOLD)).join("weights.safetensors"),
            support: vec![support.image.clone()],
            support_label: vec![label],
            resample_label: false,
            classes: Classes::All,
            query: parts.test.iter().map(|&position| data.cases[position].image.clone()).collect(),
            slices: vec![],
            out: self.segmentations.clone(),
            probabilities: false,
            preview: false,
            largest_component: false,
            report: None,
            force: true,
            device: args.device,
            overrides: cli::Overrides::default(),
        }
    }
}

/// Generates, trains, scores, segments, and writes the page.
///
/// # Errors
/// There is another demonstration in the folder; a file cannot be written; a step fails or is stopped.
pub fn run(args: &cli::Demo, device: tch::Device) -> Result<()> {
    let resources = Resources { device, memory_limit: None };
    let files = Files::under(&args.out);
    if !args.force {
        files.refuse_existing()?;
    }
    artifact::create_folder(&args.out)?;
    artifact::write_bytes(&files.config, CONFIG.as_bytes())?;
    note(&format!("1/5 generating {SUBJECTS} abdomens into {}", files.data.display()));
    phantom::write_cohort(&files.data, &phantom::Config::demo(SUBJECTS, 0))?;
    let config = config::load(Some(&files.config), &[])?;
    let data = scans::open(&files.data, &config.data)?;

    note("2/5 supervoxels");
    pseudolabel::compute(pseudolabel::Task {
        config: config.supervoxels.clone(),
        data: data.clone(),
        out: files.supervoxels.clone(),
        score: true,
        preview: true,
        memory_limit: None,
    })?;

    note("3/5 training without labels");
    train::run(&files.training(args), resources)?;

    note("4/5 scoring the scans that were held out");
    let flags = files.scoring(args);
    let protocols = vec![Protocol::Full, Protocol::Ep1];
    let evaluated = eval::Task { protocols, ..eval::Task::of(&flags, resources) };
    let evaluation = eval::evaluate(&evaluated)?;
    evaluation.write(&evaluated)?;

    note("5/5 segmenting them as new scans");
    let parts = split::fold(data.cases.len(), FOLD, &config.split)?;
    segment::run(&files.segmenting(args, &data, &parts), resources)?;

    let copied = copied_masks(&data, &parts)?;
    let scored = Scored { evaluation: &evaluation, task: &evaluated, copied };
    let page = scored.page(args, &files, &data, &parts)?;
    artifact::write_bytes(&files.report, render(&page).as_bytes())?;
    let ours = evaluation.mean(Protocol::Full);
    let (ours, copied) = (per_cent(ours), per_cent(Some(copied)));
    print(&format!("learned {ours}, copying the support's mask {copied} (mean Dice)\n{}\n", files.report.display()));
    Ok(())
}

/// Mean Dice, over queries and classes, of the support's mask laid over the query, middle on middle.
fn copied_masks(data: &Dataset, parts: &split::Fold) -> Result<f64> {
    let labels = |position: usize| {
        let path = data.cases[position].label.as_ref().expect("the cohort is labelled");
        nifti::read_labels(path).map(|(labels, _)| labels)
    };
    let support = labels(parts.support)?;
    let mut dices = Vec::new();
    for &query in &parts.test {
        let truth = labels(query)?;
        let copied = AxisMap::centred(&support.geometry, &truth.geometry);
        let copied = copied.lay(support.voxels.view(), truth.geometry.shape_vox);
        let of = |&value: &i32| metrics::dice(copied.view(), truth.voxels.view(), value);
        dices.extend(data.classes.values().filter_map(of));
    }
    Ok(Summary::of(&dices).map_or(0.0, |summary| summary.mean))
}

/// What was scored, and mean Dice, 0 to 1, of the copied masks.
struct Scored<'a> {
    evaluation: &'a eval::Evaluation,
    task: &'a eval::Task<'a>,
    copied: f64,
}

impl Scored<'_> {
    fn page(&self, args: &cli::Demo, files: &Files, data: &Dataset, parts: &split::Fold) -> Result<Page> {
        let Self { evaluation, task, copied } = *self;
        let mut page = evaluation.page(task);
        let learned = evaluation.mean(Protocol::Full).unwrap_or(0.0);
        let (tested, trained) = (parts.test.len(), parts.train.len());
        page.title = "ssl3d: demonstration".to_owned();
        page.lead = format!(
            "{SUBJECTS} abdomens were generated, each deformed in its own way. A network learned from the supervoxels of \
             {trained} of them, without any label, and then segmented {tested} others from one labelled support. It scores \
             {} mean Dice; laying the support's mask over the query as it is scores {}: {} points fewer.",
            per_cent(Some(learned)),
            per_cent(Some(copied)),
            per_cent(Some(learned - copied)),
        );
        let note = "whole volume, the same queries and support".to_owned();
        page.cards.push(Card {
            label: "Copying the mask".to_owned(),
            value: per_cent(Some(copied)),
            note: note.clone(),
        });
        page.cards.push(Card { label: "Gain".to_owned(), value: per_cent(Some(learned - copied)), note });
        let rows = [
            vec!["learned without labels".to_owned(), per_cent(Some(learned))],
            vec!["copy of the support's mask".to_owned(), per_cent(Some(copied))],
        ];
        let header = vec!["method".to_owned(), "mean Dice".to_owned()];
        let note = "Native grid, mean over classes and queries. Generated scans: no measure of quality on real ones.";
        page.tables.insert(0, HtmlTable::new("What learning brings", Table::new(header, rows), note));
        page.figures.insert(0, preview(files, &data.cases[parts.train[0]].id)?);
        page.commands = commands(args, files, data, parts);
        Ok(page)
    }
}

/// The supervoxels of a training scan.
fn preview(files: &Files, id: &str) -> Result<Figure> {
    let preview = files.supervoxels.join(format!("{id}_preview.png"));
    let png = std::fs::read(&preview).map_err(Error::io("read", &preview))?;
    Ok(Figure {
        heading: "Pseudo-labels".to_owned(),
        caption: format!(
            "Supervoxels of scan {} (axial, coronal, sagittal): training pretends that each is an organ. {}",
            id,
            scans::supervoxel_path(&files.supervoxels, id).display(),
        ),
        legend: vec![],
        body: FigureBody::Png(png),
    })
}

/// The steps of the demonstration as a user would type them.
fn commands(args: &cli::Demo, files: &Files, data: &Dataset, parts: &split::Fold) -> Vec<String> {
    let Files { data: folder, config, supervoxels, run, evaluation, segmentations, .. } = files;
    let [folder, config, supervoxels, run, evaluation, segmentations] =
        [folder, config, supervoxels, run, evaluation, segmentations].map(|path| path.display());
    let support = &data.cases[parts.support];
    let label = support.label.as_ref().unwrap_or(&support.image).display();
    let (image, query) = (support.image.display(), data.cases[parts.test[0]].image.display());
    vec![
        format!("ssl3d demo --out {}", args.out.display()),
        format!("ssl3d pseudolabel --config {config} --data {folder} --out {supervoxels} --score --preview"),
        format!("ssl3d train --config {config} --data {folder} --supervoxels {supervoxels} --run {run} --fold {FOLD}"),
        format!("ssl3d eval --run {run} --data {folder} --fold {FOLD} --out {evaluation}"),
        format!(
            "ssl3d segment --weights {run}/fold_{FOLD}/weights.safetensors --support {image} --support-label {label} \
             --query {query} --out {segmentations}"
        ),
    ]
}
