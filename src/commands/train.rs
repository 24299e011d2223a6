//! `ssl3d train`: folds one after another, each in its own folder of the run directory.

mod fold;
mod shown;

use crate::artifact;
use crate::cli::{Held, Train};
use crate::commands::progress::{note, warn};
use crate::commands::{Resources, memory, plan, pseudolabel, scans, stop};
use crate::config::Config;
use crate::episode::{Source, split};
use crate::error::{Error, Result};
use crate::training;
use crate::volume::dataset::Dataset;
use fold::Training;
use std::path::{Path, PathBuf};

/// What all folds have in common.
pub struct Job<'a> {
    args: &'a Train,
    config: Config,
    device: tch::Device,
}

/// The folds to train, one after another; `None` is the training on every scan.
fn folds(held: Held, split: &split::Config) -> Result<Vec<Option<usize>>> {
    match held {
        Held::All => Ok((0..split.folds).map(Some).collect()),
        Held::None => Ok(vec![None]),
        Held::Fold(fold) if fold < split.folds => Ok(vec![Some(fold)]),
        Held::Fold(fold) => {
            let expected = format!("0 to {}, all or none (split.folds = {})", split.folds - 1, split.folds);
            Err(Error::flag("--fold", expected, fold.to_string(), "name one of them"))
        }
    }
}

const CONFIG: &str = "config.toml";
/// Value of `--from` for weights that are drawn at random.
const SCRATCH: &str = "scratch";

/// The folder of a fold in a run directory, where one training serves all organs.
pub fn fold_folder(run: &Path, fold: Option<usize>) -> PathBuf {
    run.join(fold_name(fold))
}

/// The same of one group of `split.groups`: `fold_0-liver-spleen`.
pub fn group_folder(run: &Path, fold: Option<usize>, split: &split::Config, group: usize) -> PathBuf {
    let organs = split.groups.get(group).map_or(String::new(), |organs| format!("-{}", organs.join("-")));
    run.join(fold_name(fold) + &organs)
}

fn fold_name(fold: Option<usize>) -> String {
    fold.map_or("all_scans".to_owned(), |fold| format!("fold_{fold}"))
}

/// Trains the folds of a run, each from where it was stopped.
///
/// # Errors
/// The configuration, the dataset or the flags are faulty; the run has another configuration; a training fails or is stopped.
pub fn run(args: &Train, resources: Resources) -> Result<()> {
    let mut configuration = args.configuration.clone();
    let from = args.from.as_deref().map(|from| if from == SCRATCH { training::RANDOM } else { from });
    configuration.overrides.set.extend(from.map(|from| format!("training.initial_weights={from}")));
    let before = begun(&args.run)?;
    let minutes = args.minutes.filter(|_| before.is_none());
    let mut config = plan::configuration(&configuration, args.data.as_deref(), &args.run, minutes, resources)?;
    if let (Some(_), Some(before)) = (args.minutes, before) {
        config.training.epochs = before.training.epochs; // of a training that goes on
    }
    let learns_from_scans = config.supervision.source != Source::Generated;
    let folds = if learns_from_scans { folds(args.fold, &config.split)? } else { vec![None] };
    let job = Job { args, config, device: resources.device };
    let (config, run) = (&job.config, &args.run);
    let data = match &args.data {
        Some(folder) if learns_from_scans => scans::open(folder, &config.data)?,
        _ if learns_from_scans => return Err(plan::no_data()),
        _ => Dataset::empty(),
    };
    if config.system.is_trained() {
        let remedy = "lower preprocessing.size_vox, features.f_maps or episode.regions; --force tries all the same";
        let limit = resources.memory_limit.filter(|_| !args.force);
        memory::check("training", memory::estimate(config).training_bytes, limit, job.device, remedy)?;
    }
    artifact::create_folder(run)?;
    if run.join(CONFIG).exists() {
        keep_config(run, config, args.allow_changed)?; // before anything is computed in vain
    }
    if !config.system.is_trained() {
        keep_config(run, config, args.allow_changed)?;
        note(&format!("system has no weights: there is nothing to learn, ssl3d eval --run {}", run.display()));
        return Ok(());
    }
    let supervoxels = match &args.supervoxels {
        Some(folder) => Some(folder.clone()),
        None if config.supervision.source == Source::Supervoxels => {
            let (config, data, out) = (config.supervoxels.clone(), data.clone(), run.join("supervoxels"));
            let task = pseudolabel::Task {
                config,
                data,
                out: out.clone(),
                score: false,
                preview: false,
                memory_limit: resources.memory_limit,
            };
            pseudolabel::compute(task)?;
            Some(out)
        }
        None => None, // and then no validation on supervoxels
    };
    let stop = stop::on_signals()?;
    for fold in folds {
        for group in 0..config.split.trainings() {
            let supervoxels = supervoxels.as_deref();
            Training { job: &job, data: &data, supervoxels, fold, group }.run(&stop)?;
        }
    }
    Ok(())
}

/// The configuration that stands in a run directory.
fn begun(run: &Path) -> Result<Option<Config>> {
    let path = run.join(CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    Config::from_toml(&crate::text::read("read", &path)?, &path.display().to_string()).map(Some)
}

/// Writes the configuration beside what it leads to; another one in the same place is refused, or moves the older aside.
fn keep_config(run: &Path, config: &Config, allow_changed: bool) -> Result<()> {
    let path = run.join(CONFIG);
    let text = config.to_toml();
    let Some(mut before) = begun(run)? else { return artifact::write_bytes(&path, text.as_bytes()) };
    if config.data.classes.is_empty() && before.data.classes == config.data.usual_classes() {
        before.data.classes.clear(); // runs of older versions name the usual classes where none were set
    }
    let changes = config.changes_since(&before).join("; ");
    if changes.is_empty() {
        return Ok(());
    }
    if !allow_changed {
        let remedy = "give the configuration that this run began with, another --run, or --allow-changed to go on";
        return Err(Error::file(&path, "the run's own configuration", changes, remedy));
    }
    let free = (1..).map(|number| run.join(format!("config.before-{number}.toml"))).find(|path| !path.exists());
    let aside = free.expect("numbers do not end");
    std::fs::rename(&path, &aside).map_err(Error::io("set aside the older", &path))?;
    warn(&format!("{}: from here on {changes} (before: {})", path.display(), aside.display()));
    artifact::write_bytes(&path, text.as_bytes())
}
