//! `ssl3d train`: folds one after another, each in its own folder of the run directory.

use crate::artifact;
use crate::cli::{Held, Train};
use crate::commands::lock::Lock;
use crate::commands::progress::{Progress, brief, note, warn};
use crate::commands::{Resources, memory, pseudolabel, scans, stop};
use crate::config::{self, Config};
use crate::episode::{Rules, Source, split};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::report::curves;
use crate::training::checkpoint::{self, Provenance};
use crate::training::validation::Organs;
use crate::training::{self, Event, Run, WEIGHTS};
use crate::units;
use crate::volume::ClassMap;
use crate::volume::dataset::{self, Case, Dataset};
use crate::weights;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// What all folds have in common.
struct Job<'a> {
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
            Err(Error::invalid("--fold", expected, fold.to_string(), "name one of them"))
        }
    }
}

const CONFIG: &str = "config.toml";

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

pub fn run(args: &Train, resources: Resources) -> Result<()> {
    let config = config::load(Some(&args.configuration.config), &args.configuration.overrides.set)?;
    let folds = folds(args.fold, &config.split)?;
    let job = Job { args, config, device: resources.device };
    let (config, run) = (&job.config, &args.run);
    let data = dataset::open(&args.data, &config.data)?;
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
            pseudolabel::compute(pseudolabel::Task { config, data, out: out.clone(), score: false, preview: false })?;
            Some(out)
        }
        None => None, // and then no validation on supervoxels
    };
    let stop = stop::on_signals()?;
    for fold in folds {
        for group in 0..config.split.trainings() {
            train_fold(&job, &data, supervoxels.as_deref(), fold, group, &stop)?;
        }
    }
    Ok(())
}

/// Writes the configuration beside what it leads to; another one in the same place is refused, or moves the older aside.
fn keep_config(run: &Path, config: &Config, allow_changed: bool) -> Result<()> {
    let path = run.join(CONFIG);
    let text = config.to_toml();
    if !path.exists() {
        return artifact::write_bytes(&path, text.as_bytes());
    }
    let before = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let before = Config::from_toml(&before, &path.display().to_string())?;
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

fn train_fold(
    job: &Job,
    data: &Dataset,
    supervoxels: Option<&Path>,
    fold: Option<usize>,
    group: usize,
    stop: &AtomicBool,
) -> Result<()> {
    let Job { args, config, device } = job;
    let run = &args.run;
    let folder = group_folder(run, fold, &config.split, group);
    let name = match fold {
        Some(fold) => format!("fold {fold} of {}", config.split.folds),
        None => "all scans".to_owned(),
    };
    let tested = config.split.groups.get(group).map_or(String::new(), |organs| format!(", {}", organs.join(" and ")));
    let name = name + &tested;
    artifact::create_folder(&folder)?;
    let _lock = Lock::hold(&folder, "another --run, or wait for it")?;
    if is_finished(&folder, &name)? {
        return Ok(());
    }
    let started = Instant::now();
    let all = || (0..data.cases.len()).collect();
    let parts = fold.map(|fold| split::fold(data.cases.len(), fold, &config.split)).transpose()?;
    let of = |positions: &[usize]| -> Vec<&Case> { positions.iter().map(|&i| &data.cases[i]).collect() };
    let (train, test) = parts.as_ref().map_or_else(|| (all(), vec![]), |p| (p.train.clone(), p.test.clone()));
    let mut train = train;
    if config.supervision.source == Source::Organs && config.supervision.annotated_scans > 0 {
        train.truncate(config.supervision.annotated_scans); // the others are not looked at
    }
    let recipe = config.recipe(config.split.tested(group, &data.classes)?);
    let classes = class_map(data)?;
    let scans = |positions: &[usize], rules: &Rules, what: &str| {
        let label = format!("{name}: reading {what} scans");
        scans::scans(&of(positions), supervoxels, &classes, rules, &config.preprocessing, &label)
    };
    let train = scans(&train, &recipe.rules, "training")?;
    let held_out = scans(&test, &Rules::unlabelled(), "held-out")?;
    let id = |&position: &usize| data.cases[position].id.clone();
    let withheld: Vec<String> = parts.iter().flat_map(|p| p.test.iter().chain([&p.support]).map(id)).collect();
    let organs = parts.map(|parts| organs(config, data, &parts)).transpose()?.flatten();

    // A training that its data refuse holds nobody to its configuration.
    keep_config(run, config, args.allow_changed)?;
    let model = Network::new(&config.network(), *device, config.training.seed);
    let ids = |scans: &[crate::episode::Scan]| scans.iter().map(|s| s.id.as_str()).collect::<Vec<_>>().join(" ");
    note(&format!(
        "{name}: {} parameters; training on {} scans ({}), held out {}",
        units::thousands(model.parameters() as u64),
        train.len(),
        ids(&train),
        if held_out.is_empty() { "none".to_owned() } else { ids(&held_out) },
    ));
    let seen = if checkpoint::exists(&folder) || config.training.initial_weights == training::RANDOM {
        vec![]
    } else {
        let path = initial_weights(&config.training.initial_weights, fold);
        note(&format!("{name}: beginning with the weights of {}", path.display()));
        start_from(&model, &path, &withheld)?
    };
    let text = config.to_toml();
    let training = Run {
        model: &model,
        recipe: &recipe,
        inference: &config.inference,
        train: &train,
        held_out: &held_out,
        seen: &seen,
        organs: organs.as_ref(),
        folder: &folder,
        config: &text,
        fold: &name,
        stop,
        allow_changed: args.allow_changed,
    };
    let mut shown = Shown { name: &name, folder: &folder, total: recipe.training.steps(), bar: None, mean: None };
    training::run(&training, |event| shown.event(&event))?;
    if let Some(bar) = &shown.bar {
        bar.finish();
    }
    let took = brief(started.elapsed());
    note(&format!("{name}: done, weights in {} after {took}", folder.join(WEIGHTS).display()));
    Ok(())
}

/// Whether a training has written its weights, and they are whole; damaged ones are set aside, and the last checkpoint
/// gives them again.
fn is_finished(folder: &Path, name: &str) -> Result<bool> {
    let path = folder.join(WEIGHTS);
    if !path.exists() {
        return Ok(false);
    }
    match checkpoint::read_weights(&path) {
        Ok(_) => {
            note(&format!("{name}: finished already, see {}", folder.display()));
            Ok(true)
        }
        Err(fault @ Error::Io { .. }) => Err(fault),
        Err(fault) => {
            warn(&fault.to_string());
            let aside = path.with_extension("damaged");
            std::fs::rename(&path, &aside).map_err(Error::io("set aside the damaged weights", &path))?;
            Ok(false)
        }
    }
}

/// The path with the fold's name in the place of `{fold}`.
fn initial_weights(path: &str, fold: Option<usize>) -> PathBuf {
    PathBuf::from(path.replace("{fold}", &fold_name(fold)))
}

/// Weights to begin with: ours, and then they must not have seen a scan that this fold withholds; or another program's.
/// The scans that they were trained on.
fn start_from(model: &Network, path: &Path, withheld: &[String]) -> Result<Vec<String>> {
    let mut file = weights::read(path)?;
    file.tensors.retain(|name, _| !name.starts_with(checkpoint::OPTIMISER));
    let mut seen = Vec::new();
    if !file.metadata.is_empty() {
        let about = Provenance::from_json(path, &file.metadata)?;
        if let Some(seen) = withheld.iter().find(|id| about.trained_on.contains(id)) {
            let expected = "weights that have not seen the scans that this fold holds out";
            let remedy = "name each fold's own with {fold} in training.initial_weights";
            return Err(Error::file(path, expected, format!("weights trained on scan {seen}"), remedy));
        }
        seen = about.trained_on;
    }
    model.load(path, &file.tensors)?;
    Ok(seen)
}

/// Organs of the held-out scans for the log, where all that is needed has been drawn.
fn organs(config: &Config, data: &Dataset, parts: &split::Fold) -> Result<Option<Organs>> {
    let classes = class_map(data)?;
    let annotated = |position: usize| scans::annotated(&data.cases[position], &classes, &config.preprocessing);
    let Some(support) = annotated(parts.support)? else { return Ok(None) };
    let queries: Result<Vec<_>> = parts.test.iter().map(|&position| annotated(position)).collect();
    let queries: Vec<_> = queries?.into_iter().flatten().collect();
    Ok((!queries.is_empty()).then_some(Organs { support, queries, count: classes.len() as u8 }))
}

fn class_map(data: &Dataset) -> Result<ClassMap> {
    ClassMap::new(data.classes.values().copied().collect::<Vec<_>>())
}

/// What the user sees of a training.
struct Shown<'a> {
    name: &'a str,
    folder: &'a Path,
    total: u64,
    bar: Option<Progress>,
    /// Running mean of the loss.
    mean: Option<f64>,
}

impl Shown<'_> {
    fn event(&mut self, event: &Event) {
        match *event {
            Event::Start { step, damaged } => {
                for damage in damaged {
                    warn(&format!("{}; going on from an older one", damage.fault));
                }
                if step > 0 {
                    note(&format!("{}: going on from step {step} of {}", self.name, self.total));
                }
                self.bar = Some(Progress::new(self.name, step, self.total));
            }
            Event::Step { loss, skipped } => {
                if let Some(loss) = loss {
                    self.mean = Some(self.mean.map_or(loss, |mean| 0.95 * mean + 0.05 * loss));
                }
                let loss = self.mean.map_or("loss -".to_owned(), |mean| format!("loss {mean:.3}"));
                let left_out = if skipped > 0 { format!(", {skipped} episodes left out") } else { String::new() };
                if let Some(bar) = &self.bar {
                    bar.step(&format!("{loss}{left_out}"));
                }
            }
            Event::Epoch(rows) => {
                let Some(row) = rows.last() else { return };
                if row.validation_loss.is_none() && row.organ_dice.is_none() && row.iteration < self.total {
                    return;
                }
                let value =
                    |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!(", {name} {v:.3}"));
                let line = format!(
                    "{}: epoch {}, loss {:.3}{}{}{}",
                    self.name,
                    row.epoch,
                    row.train_loss,
                    value("held-out loss", row.validation_loss),
                    value("Dice on supervoxels", row.validation_dice),
                    value("on organs", row.organ_dice),
                );
                // A figure that cannot be written is no reason to stop a training; the log has its numbers.
                let drawn = artifact::write_bytes(&self.folder.join("curves.svg"), curves::curves_svg(rows).as_bytes());
                if let Some(bar) = &self.bar {
                    bar.note(&line);
                    if let Err(e) = drawn {
                        bar.note(&format!("warning: {e}"));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::adamw::AdamW;

    #[test]
    fn initial_weights_are_taken_over_unless_they_are_another_networks_or_have_seen_what_is_held_out() {
        let config = |channels: &str| {
            let tiny = ["features.f_maps=4", "features.levels=2", "features.pooling=[[1, 2, 2]]", channels];
            config::load(None, &tiny.map(str::to_owned)).unwrap()
        };
        let model = |channels, seed| Network::new(&config(channels).network(), tch::Device::Cpu, seed);
        let (folder, source) = (tempfile::tempdir().unwrap(), model("features.output_channels=4", 1));
        let state = checkpoint::State::START;
        let about = Provenance {
            ssl3d: String::new(),
            config: String::new(),
            fold: String::new(),
            trained_on: vec!["7".to_owned()],
            data: String::new(),
            state,
        };
        let path = initial_weights(&format!("{}/{{fold}}.safetensors", folder.path().display()), Some(3));
        assert_eq!(path, folder.path().join("fold_3.safetensors"));
        let of = |model: &Network| weights::variables(&model.variables);
        let withheld = |id: &str| [id.to_owned()];

        let same = model("features.output_channels=4", 2);
        let missing = start_from(&same, &path, &[]).unwrap_err().to_string();
        assert!(missing.contains("fold_3.safetensors") && !missing.contains('\n'), "{missing}");
        // A checkpoint has the optimiser's tensors too.
        let adamw = AdamW::new(of(&source), 0.0);
        checkpoint::write(&path, &source, &[adamw], &about).unwrap();
        let seen = start_from(&same, &path, &withheld("7")).unwrap_err().to_string();
        assert!(seen.contains("trained on scan 7") && seen.contains("{fold}"), "{seen}");
        assert!(of(&same) != of(&source));
        assert_eq!(start_from(&same, &path, &withheld("8")).unwrap(), ["7"]);
        assert!(of(&same) == of(&source));
        let other = start_from(&model("features.output_channels=5", 2), &path, &[]).unwrap_err().to_string();
        assert!(other.contains("shape [4]") && other.contains("[features]") && !other.contains('\n'), "{other}");
        // Another program's weights say nothing of what they were trained on.
        weights::write(&path, &of(&source), "").unwrap();
        assert!(start_from(&same, &path, &withheld("7")).unwrap().is_empty());
    }
}
