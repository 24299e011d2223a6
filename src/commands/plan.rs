//! `ssl3d plan`: a recipe for a dataset, from its scans alone.

use crate::artifact;
use crate::cli::{self, Machine};
use crate::commands::progress::{self, Progress, note};
use crate::commands::{Resources, scans, stop};
use crate::config::{self, Choice, Config};
use crate::error::{Error, Result};
use crate::planning::{self, ScanFacts};
use crate::pretrained::Weights;
use crate::report::published;
use crate::training::{self, pace};
use crate::volume::dataset::{self, Case, Dataset};
use crate::volume::frame::Frame;
use std::path::{Path, PathBuf};

/// Scans that are looked at, evenly through the dataset; of the others only the headers.
const MOST_SCANS: usize = 16;

/// The recipe for two cores, and that for a GPU.
const CPU: &str = include_str!("../../configs/cpu.toml");
const GPU: &str = include_str!("../../configs/chaos.toml");

fn recipe(machine: Machine) -> &'static str {
    match machine {
        Machine::Cpu => CPU,
        Machine::Gpu => GPU,
    }
}

/// Writes the plan of a dataset, or prints it.
///
/// # Errors
/// The dataset is faulty, a scan cannot be read, or the file is there already.
pub fn run(args: &cli::Plan, resources: Resources) -> Result<()> {
    if let Some(out) = &args.out {
        artifact::refuse_existing([out], "plan", args.force)?;
    }
    let machine = args.machine.unwrap_or(if resources.device.is_cuda() { Machine::Gpu } else { Machine::Cpu });
    let data = scans::open_unread(&args.data, &config::load(None, &args.overrides.set)?.data)?;
    let text = plan(&data, machine, args.minutes.map(|minutes| (minutes, resources)), &args.overrides.set)?;
    match &args.out {
        Some(out) => artifact::write_bytes(out, text.as_bytes())?,
        None => progress::print(&text),
    }
    Ok(())
}

/// The configuration of a training: that of a file, or the plan for the scans, which is kept in the run directory; with as many epochs as
/// there are `minutes` for.
///
/// # Errors
/// As [`config::load`], and as [`run`].
pub fn configuration(
    given: &cli::Configuration,
    data: Option<&Path>,
    run: &Path,
    minutes: Option<f64>,
    resources: Resources,
) -> Result<Config> {
    let set = &given.overrides.set;
    if given.config.is_some() {
        let mut config = config::load(given.config.as_deref(), set)?;
        if let Some(minutes) = minutes {
            config.training.epochs = planning::most_epochs(&config, seconds_per_step(&config, resources), minutes);
        }
        return Ok(config);
    }
    let machine = if resources.device.is_cuda() { Machine::Gpu } else { Machine::Cpu };
    let data = dataset::open(data.ok_or_else(no_data)?, &config::load(None, set)?.data)?; // whose notes the training prints
    let text = plan(&data, machine, minutes.map(|minutes| (minutes, resources)), set)?;
    artifact::create_folder(run)?;
    let path = run.join("plan.toml");
    if !path.exists() {
        artifact::write_bytes(&path, text.as_bytes())?; // that of a run that is there stays, as its configuration does
    }
    note(&format!("no --config: planned from the scans, see {}", path.display()));
    Config::from_toml(&text, "the plan")
}

/// That there is nothing to learn from.
pub fn no_data() -> Error {
    let remedy = "name the dataset; supervision.source = \"generated\" alone learns without one";
    Error::flag("--data", "a folder of scans", "nothing", remedy)
}

/// The configuration of what no plan changes: that of a file, or the recipe.
///
/// # Errors
/// As [`config::load`].
pub fn recipe_or(given: &cli::Configuration) -> Result<Config> {
    match &given.config {
        Some(path) => config::load(Some(path), &given.overrides.set),
        None => config::with_overrides(CPU, "the recipe", &given.overrides.set),
    }
}

/// The weights that a call of `ssl3d segment` names, with their configuration; or those that come with the program, whose sizes are
/// planned from the supports.
///
/// # Errors
/// The weights or a support cannot be read, or an override does not fit.
pub fn for_segmenting(args: &cli::Segment) -> Result<(Weights, Config)> {
    let set = &args.overrides.set;
    if let Some(path) = &args.weights {
        let weights = Weights::read(path)?;
        let config = weights.config(set)?;
        return Ok((weights, config));
    }
    let weights = Weights::generalist();
    note("no --weights: the network that comes with ssl3d, which has seen generated anatomies alone");
    let base = weights.config(&[])?;
    let mut frame = None;
    let look = |path: &PathBuf| {
        let (image, _) = scans::read_image(path)?;
        let frame = frame.get_or_insert_with(|| Frame::of(&image.geometry));
        let turn = frame.turn(&image.geometry);
        Ok(ScanFacts::of(&image.turned(turn), &base.preprocessing))
    };
    let facts: Vec<ScanFacts> = args.support.iter().map(look).collect::<Result<_>>()?;
    let planned = planning::choices(&facts, facts.len(), &base);
    let planned = planned.iter().map(|choice| format!("{}={}", choice.key, choice.value));
    let config = weights.config(&planned.chain(set.iter().cloned()).collect::<Vec<_>>())?;
    Ok((weights, config))
}

fn seconds_per_step(config: &Config, resources: Resources) -> f64 {
    let size_vox = config.preprocessing.typical_size_vox();
    pace::seconds_per_step(&config.network(), &config.recipe(vec![]), size_vox, resources.device)
}

/// As the text of a configuration.
fn plan(data: &Dataset, machine: Machine, time: Option<(f64, Resources)>, set: &[String]) -> Result<String> {
    let base = Config::from_toml(recipe(machine), "the recipe")?;
    let cases: Vec<&Case> = data.cases.iter().collect();
    let frame = scans::frame(&cases)?;
    let chosen: Vec<usize> = dataset::evenly(MOST_SCANS, cases.len()).collect();
    let progress = Progress::new("looking at scans", 0, chosen.len() as u64);
    let look = |index: usize| {
        stop::check()?;
        let (mut image, _) = scans::read_image(&cases[index].image)?;
        if let Some(frame) = &frame {
            let turn = frame.turn(&image.geometry);
            image = image.turned(turn);
        }
        let facts = ScanFacts::of(&image, &base.preprocessing);
        progress.step("");
        Ok(facts)
    };
    let facts: Vec<ScanFacts> = chosen.iter().copied().map(look).collect::<Result<_>>()?; // one large scan at a time
    progress.finish();
    let mut choices = vec![Choice {
        key: "name".to_owned(),
        value: format!("\"{}, planned\"", base.name),
        reason: format!(
            "What ssl3d plan made of {} scans ({} of them looked at), without any label. What is not said here is the paper's.",
            cases.len(),
            chosen.len()
        ),
    }];
    let benchmark = published::benchmark(&base.data.benchmark);
    if !benchmark.is_some_and(|of| of.is_of(data.classes.keys().map(String::as_str))) {
        let reason = "No published results are of these classes.".to_owned();
        choices.push(Choice { key: "data.benchmark".to_owned(), value: "\"\"".to_owned(), reason });
    }
    choices.extend(planning::choices(&facts, cases.len(), &base));
    if let Some((minutes, resources)) = time {
        let text = config::planned(recipe(machine), &choices)?;
        let planned = Config::from_toml(&text, "the plan")?;
        choices.push(planning::epochs(&planned, seconds_per_step(&planned, resources), minutes));
    }
    choices.extend(config::given(set)?);
    let text = config::planned(recipe(machine), &choices)?;
    let planned = Config::from_toml(&text, "the plan")?;
    if planned.training.initial_weights != training::GENERALIST || Weights::generalist().fit(&planned)? {
        return Ok(text);
    }
    let reason = "The weights that come with ssl3d are of other [features].".to_owned();
    let (key, value) = ("training.initial_weights".to_owned(), format!("\"{}\"", training::RANDOM));
    config::planned(&text, &[Choice { key, value, reason }])
}
