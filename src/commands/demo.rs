//! `ssl3d demo`: every step on a generated abdominal cohort, and a page to look at.

mod page;

use crate::artifact;
use crate::baselines::AxisMap;
use crate::cli::{self, Classes, Folds, Held};
use crate::commands::progress::{note, print};
use crate::commands::{Resources, eval, pseudolabel, scans, segment, train};
use crate::config;
use crate::episode::split;
use crate::error::Result;
use crate::metrics::{self, Protocol, Summary};
use crate::report::html::render;
use crate::report::table::per_cent;
use crate::synthesis::phantom;
use crate::volume::dataset::Dataset;
use crate::volume::{LabelMap, nifti};
use page::Scored;
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
    /// Of the weights that come with the program.
    first: PathBuf,
    /// Of the trained ones.
    segmentations: PathBuf,
    report: PathBuf,
}

impl Files {
    fn under(out: &Path) -> Self {
        let [data, config, supervoxels, run, evaluation, first, segmentations, report] =
            ["data", "demo.toml", "supervoxels", "run", "evaluation", "first", "segmentations", "report.html"]
                .map(|name| out.join(name));
        Self { data, config, supervoxels, run, evaluation, first, segmentations, report }
    }

    /// Keeps what is there from being replaced, unless it is a demonstration that was stopped.
    ///
    /// # Errors
    /// Something is there that is no demonstration under way.
    fn refuse_existing(&self) -> Result<()> {
        let Self { data, config, supervoxels, run, evaluation, first, segmentations, report } = self;
        let is_under_way = std::fs::read(config).is_ok_and(|text| text == CONFIG.as_bytes()) && !report.exists();
        let all = [report, data, config, supervoxels, run, evaluation, first, segmentations];
        if is_under_way { Ok(()) } else { artifact::refuse_existing(all, "demonstration", false) }
    }

    /// The flags of `ssl3d train`.
    fn training(&self, args: &cli::Demo) -> cli::Train {
        cli::Train {
            configuration: cli::Configuration { config: Some(self.config.clone()), ..Default::default() },
            data: Some(self.data.clone()),
            supervoxels: Some(self.supervoxels.clone()),
            run: self.run.clone(),
            from: None,
            minutes: None,
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
            protocol: vec![cli::Protocols::All],
            out: self.evaluation.clone(),
            force: true,
            device: args.device,
            overrides: cli::Overrides::default(),
        }
    }

    /// The flags of `ssl3d segment` with the trained weights.
    fn segmenting(&self, args: &cli::Demo, data: &Dataset, parts: &split::Fold) -> cli::Segment {
        let weights = train::fold_folder(&self.run, Some(FOLD)).join("weights.safetensors");
        let out = self.segmentations.clone();
        cli::Segment { weights: Some(weights), out, preview: false, ..self.segmenting_first(args, data, parts) }
    }

    /// The same with the weights that come with the program.
    fn segmenting_first(&self, args: &cli::Demo, data: &Dataset, parts: &split::Fold) -> cli::Segment {
        let support = &data.cases[parts.support];
        let label = support.label.clone().expect("the cohort is labelled");
        cli::Segment {
            weights: None,
            support: vec![support.image.clone()],
            support_label: vec![label],
            resample_label: false,
            classes: Classes::All,
            query: parts.test.iter().map(|&position| data.cases[position].image.clone()).collect(),
            slices: vec![],
            out: self.first.clone(),
            probabilities: false,
            preview: true,
            together: false,
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
    note(&format!("1/6 generating {SUBJECTS} abdomens into {}", files.data.display()));
    phantom::write_cohort(&files.data, &phantom::Config::demo(SUBJECTS, 0))?;
    let config = config::load(Some(&files.config), &[])?;
    let data = scans::open(&files.data, &config.data)?;

    let parts = split::fold(data.cases.len(), FOLD, &config.split)?;
    note(&format!("2/6 segmenting {} of them from another, without any training", parts.test.len()));
    let flags = files.segmenting_first(args, &data, &parts);
    segment::run(&flags, resources)?;
    let first = mean_dice(&data, &parts, |_, query| {
        let result = format!("image_{}_seg.nii.gz", data.cases[query].id);
        nifti::read_labels(&files.first.join(result)).map(|(labels, _)| labels)
    })?;
    note(&format!("mean Dice {}, pictures in {}", per_cent(Some(first)), flags.out.display()));

    note("3/6 supervoxels");
    pseudolabel::compute(pseudolabel::Task {
        config: config.supervoxels.clone(),
        data: data.clone(),
        out: files.supervoxels.clone(),
        score: true,
        preview: true,
        memory_limit: None,
    })?;

    note("4/6 training on the others, without labels");
    train::run(&files.training(args), resources)?;

    note("5/6 scoring the scans that were held out");
    let flags = files.scoring(args);
    let protocols = vec![Protocol::Full, Protocol::Ep1];
    let evaluated = eval::Task { protocols, ..eval::Task::of(&flags, resources) };
    let evaluation = eval::evaluate(&evaluated)?;
    evaluation.write(&evaluated)?;

    note("6/6 segmenting them again");
    segment::run(&files.segmenting(args, &data, &parts), resources)?;

    let copied = mean_dice(&data, &parts, |support, query| {
        let truth = labels_of(&data, query)?;
        let copied = AxisMap::centred(&support.geometry, &truth.geometry);
        let voxels = copied.lay(support.voxels.view(), truth.geometry.shape_vox);
        Ok(LabelMap { voxels, geometry: truth.geometry })
    })?;
    let scored = Scored { evaluation: &evaluation, task: &evaluated, first, copied };
    let page = scored.page(args, &files, &data, &parts)?;
    artifact::write_bytes(&files.report, render(&page).as_bytes())?;
    let ours = evaluation.mean(Protocol::Full);
    let [ours, first, copied] = [ours, Some(first), Some(copied)].map(per_cent);
    print(&format!(
        "without training {first}, trained {ours}, copying the support's mask {copied} (mean Dice)\n{}\n",
        files.report.display()
    ));
    Ok(())
}

fn labels_of(data: &Dataset, position: usize) -> Result<LabelMap> {
    let path = data.cases[position].label.as_ref().expect("the cohort is labelled");
    nifti::read_labels(path).map(|(labels, _)| labels)
}

/// Mean Dice, over queries and classes, of what `found` says of a query, given the support's labels.
fn mean_dice(data: &Dataset, parts: &split::Fold, found: impl Fn(&LabelMap, usize) -> Result<LabelMap>) -> Result<f64> {
    let support = labels_of(data, parts.support)?;
    let mut dices = Vec::new();
    for &query in &parts.test {
        let (truth, found) = (labels_of(data, query)?, found(&support, query)?);
        let of = |&value: &i32| metrics::dice(found.voxels.view(), truth.voxels.view(), value);
        dices.extend(data.classes.values().filter_map(of));
    }
    Ok(Summary::of(&dices).map_or(0.0, |summary| summary.mean))
}
