//! One training: its scans, its first weights, its end.

use super::shown::Shown;
use super::{Job, fold_name, group_folder, keep_config};
use crate::artifact;
use crate::commands::lock::Lock;
use crate::commands::progress::{brief, note, warn};
use crate::commands::scans;
use crate::episode::{Rules, Scan, Source, split};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::preprocessing;
use crate::pretrained::Weights;
use crate::training::checkpoint::{self, Provenance};
use crate::training::validation::Organs;
use crate::training::{self, Run, WEIGHTS};
use crate::units;
use crate::volume::ClassMap;
use crate::volume::dataset::{Case, Dataset};
use crate::volume::frame::Frame;
use crate::weights;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// The scans of one training.
struct Scans {
    train: Vec<Scan>,
    held_out: Vec<Scan>,
    /// Ids of the scans that the fold withholds.
    withheld: Vec<String>,
    /// Organs of the held-out scans, for the log.
    organs: Option<Organs>,
    /// Which way all of them are turned.
    frame: Option<Frame>,
}

/// One training of a run.
pub struct Training<'a> {
    /// What all folds have in common.
    pub job: &'a Job<'a>,
    /// The scans of the dataset.
    pub data: &'a Dataset,
    /// The folder of their supervoxels.
    pub supervoxels: Option<&'a Path>,
    /// None: on every scan.
    pub fold: Option<usize>,
    /// Index in `split.groups`.
    pub group: usize,
}

impl Training<'_> {
    /// As a user reads it.
    fn name(&self) -> String {
        let split = &self.job.config.split;
        let name = match self.fold {
            Some(fold) => format!("fold {fold} of {}", split.folds),
            None if self.job.config.supervision.source == Source::Generated => "generated anatomies".to_owned(),
            None => "all scans".to_owned(),
        };
        name + &split.groups.get(self.group).map_or(String::new(), |organs| format!(", {}", organs.join(" and ")))
    }

    /// Trains, unless it is done already, from the last checkpoint where there is one.
    ///
    /// # Errors
    /// Another process trains it; its data refuse it; a file cannot be read or written; a signal stops it.
    pub fn run(&self, stop: &AtomicBool) -> Result<()> {
        let Job { args, config, device } = self.job;
        let (name, folder) = (self.name(), group_folder(&args.run, self.fold, &config.split, self.group));
        artifact::create_folder(&folder)?;
        let _lock = Lock::hold(&folder, "another --run, or wait for it")?;
        if is_finished(&folder, &name)? {
            return Ok(());
        }
        let started = Instant::now();
        let recipe = config.recipe(config.split.tested(self.group, &self.data.classes)?);
        let scans = self.scans(&name, &recipe.rules)?;
        // A training that its data refuse holds nobody to its configuration.
        keep_config(&args.run, config, args.allow_changed)?;
        let model = Network::new(&config.network(), *device, config.training.seed);
        note(&scans.line(&name, model.parameters() as u64));
        let seen = self.start(&model, &name, &folder, &scans.withheld)?;
        let training = Run {
            model: &model,
            recipe: &recipe,
            inference: &config.inference,
            train: &scans.train,
            held_out: &scans.held_out,
            seen: &seen,
            frame: scans.frame.as_ref(),
            organs: scans.organs.as_ref(),
            folder: &folder,
            config: &config.to_toml(),
            fold: &name,
            stop,
            allow_changed: args.allow_changed,
        };
        let mut shown = Shown::new(&name, &folder, recipe.training.steps());
        training::run(&training, |event| shown.event(&event))?;
        shown.finish();
        let took = brief(started.elapsed());
        note(&format!("{name}: done, weights in {} after {took}", folder.join(WEIGHTS).display()));
        Ok(())
    }

    /// The scans that it learns from and those that it withholds.
    fn scans(&self, name: &str, rules: &Rules) -> Result<Scans> {
        let (config, data) = (&self.job.config, self.data);
        if config.supervision.source == Source::Generated {
            return Ok(Scans { train: vec![], held_out: vec![], withheld: vec![], organs: None, frame: None });
        }
        let parts = self.fold.map(|fold| split::fold(data.cases.len(), fold, &config.split)).transpose()?;
        let all = || (0..data.cases.len()).collect();
        let (mut train, test) = parts.as_ref().map_or_else(|| (all(), vec![]), |p| (p.train.clone(), p.test.clone()));
        if config.supervision.source == Source::Organs && config.supervision.annotated_scans > 0 {
            train.truncate(config.supervision.annotated_scans); // the others are not looked at
        }
        let (classes, ignore) = (class_map(data)?, data.ignore);
        let cases =
            |positions: &[usize]| -> Vec<&Case> { positions.iter().map(|&position| &data.cases[position]).collect() };
        let frame = scans::frame(&cases(&train))?;
        let placed = (frame.as_ref(), &config.preprocessing);
        let read = |positions: &[usize], rules: &Rules, what: &str| {
            let cases = cases(positions);
            let label = format!("{name}: reading {what} scans");
            scans::scans(&cases, self.supervoxels, (&classes, ignore), rules, placed, &label)
        };
        let train = read(&train, rules, "training")?;
        let held_out = read(&test, &Rules::unlabelled(), "held-out")?;
        let id = |&position: &usize| data.cases[position].id.clone();
        let withheld = parts.iter().flat_map(|p| p.test.iter().chain([&p.support]).map(id)).collect();
        let organs = parts.map(|parts| organs(placed, data, &parts)).transpose()?.flatten();
        Ok(Scans { train, held_out, withheld, organs, frame })
    }

    /// Takes over `training.initial_weights` where the training begins anew; ids of the scans that they have seen.
    fn start(&self, model: &Network, name: &str, folder: &Path, withheld: &[String]) -> Result<Vec<String>> {
        let initial = &self.job.config.training.initial_weights;
        if checkpoint::exists(folder) || *initial == training::RANDOM {
            return Ok(vec![]);
        }
        if initial == training::GENERALIST {
            note(&format!(
                "{name}: beginning with the weights that come with ssl3d, which have seen generated anatomies alone"
            ));
            let weights = Weights::generalist();
            if !weights.fit(&self.job.config)? {
                let at = "training.initial_weights = \"generalist\"";
                let remedy = "leave [features] as configs/generalist.toml has it, or train --from scratch";
                return Err(Error::invalid(at, "the network that comes with ssl3d", "another in [features]", remedy));
            }
            return weights.load_into(model).map(|()| vec![]);
        }
        let path = initial_weights(initial, self.fold);
        note(&format!("{name}: beginning with the weights of {}", path.display()));
        start_from(model, &path, withheld)
    }
}

impl Scans {
    /// What is learned from, and what is held out.
    fn line(&self, name: &str, parameters: u64) -> String {
        if self.train.is_empty() {
            return format!("{name}: {} parameters; training on generated anatomies", units::thousands(parameters));
        }
        let ids = |scans: &[Scan]| scans.iter().map(|scan| scan.id.as_str()).collect::<Vec<_>>().join(" ");
        format!(
            "{name}: {} parameters; training on {} scans ({}), held out {}",
            units::thousands(parameters),
            self.train.len(),
            ids(&self.train),
            if self.held_out.is_empty() { "none".to_owned() } else { ids(&self.held_out) },
        )
    }
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
fn organs(
    placed: (Option<&Frame>, &preprocessing::Config),
    data: &Dataset,
    parts: &split::Fold,
) -> Result<Option<Organs>> {
    let (classes, ignore) = (class_map(data)?, data.ignore);
    let annotated = |position: usize| scans::annotated(&data.cases[position], (&classes, ignore), placed);
    let Some(support) = annotated(parts.support)? else { return Ok(None) };
    let queries: Result<Vec<_>> = parts.test.iter().map(|&position| annotated(position)).collect();
    let queries: Vec<_> = queries?.into_iter().flatten().collect();
    Ok((!queries.is_empty()).then_some(Organs { support, queries, count: classes.len() as u8 }))
}

fn class_map(data: &Dataset) -> Result<ClassMap> {
    ClassMap::new(data.classes.values().copied().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
