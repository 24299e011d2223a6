//! The only place that wires stages to disk, device and progress: one file a subcommand.

pub mod demo;
pub mod eval;
pub mod info;
pub mod lock;
pub mod memory;
pub mod prepare;
pub mod progress;
pub mod pseudolabel;
pub mod scans;
pub mod segment;
pub mod stop;
pub mod train;

use crate::cli::{self, Cli, Command, Prepare};
use crate::config;
use crate::device::{self, Request};
use crate::error::{Error, Result};
use crate::volume::{dataset, limit};
use prepare::chaos::Sequence;
use prepare::steps::Steps;

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<()> {
    progress::set_quiet(cli.quiet);
    device::threads::share(cli.threads);
    stop::name_full_files()?;
    let memory_limit = limit_memory(cli.memory_limit)?;
    match cli.command {
        Command::Pseudolabel(flags) => {
            let config = config::load(Some(&flags.configuration.config), &flags.configuration.overrides.set)?;
            let data = dataset::open(&flags.data, &config.data)?;
            let (out, score, preview) = (flags.out, flags.score, flags.preview);
            pseudolabel::run(pseudolabel::Args { config: config.supervoxels, data, out, score, preview })
        }
        Command::Train(flags) => {
            let config = config::load(Some(&flags.configuration.config), &flags.configuration.overrides.set)?;
            let folds = train::Folds::parse(&flags.fold, &config.split)?;
            let device = choose_device(&flags.device)?;
            let (data, supervoxels, run, allow_changed) =
                (flags.data, flags.supervoxels, flags.run, flags.allow_changed);
            let memory_limit = memory_limit.filter(|_| !flags.force);
            train::run(&train::Args { config, data, supervoxels, run, folds, device, allow_changed, memory_limit })
        }
        Command::Eval(flags) => {
            let device = choose_device(&flags.device)?;
            let mut runs = flags.run.into_iter();
            eval::refuse_existing(&flags.out, flags.force)?;
            let args = eval::Args {
                run: runs.next().expect("at least one is required"),
                data: flags.data,
                fold: flags.fold,
                protocols: eval::protocols(flags.protocol),
                out: flags.out,
                overrides: flags.overrides.set,
                device,
                memory_limit,
            };
            eval::run(&args, &runs.collect::<Vec<_>>())
        }
        Command::Segment(flags) => {
            let device = choose_device(&flags.device)?;
            segment::run(&segment::Args {
                weights: flags.weights,
                supports: segment::pair(flags.support, flags.support_label)?,
                classes: segment::Wanted::parse(&flags.classes)?,
                slices: flags.slices.iter().map(|text| segment::Given::parse(text)).collect::<Result<_>>()?,
                queries: flags.query,
                out: flags.out,
                probabilities: flags.probabilities,
                preview: flags.preview,
                largest_component: flags.largest_component,
                report: flags.report,
                force: flags.force,
                overrides: flags.overrides.set,
                device,
                memory_limit,
            })
        }
        Command::Prepare(Prepare::Chaos(flags)) => {
            let sequence = match flags.sequence {
                cli::Sequence::T2 => Sequence::T2,
                cli::Sequence::T1In => Sequence::T1In,
                cli::Sequence::T1Out => Sequence::T1Out,
                cli::Sequence::Ct => Sequence::Ct,
            };
            prepare::chaos::run(&flags.source, sequence, &prepare_args(flags.common))
        }
        Command::Prepare(Prepare::Dicom(flags)) => prepare::dicom::run(&flags.source, &prepare_args(flags.common)),
        Command::Prepare(Prepare::Nifti(flags)) => {
            let config = config::load(None, &flags.overrides.set)?;
            prepare::nifti::run(&flags.source, &config.data, &prepare_args(flags.common))
        }
        Command::Demo(flags) => {
            let device = choose_device(&flags.device)?;
            demo::run(&demo::Args { out: flags.out, force: flags.force, device })
        }
        Command::Info(flags) => {
            let memory = match flags.config {
                None => None,
                Some(path) => Some(memory::estimate(&config::load(Some(&path), &flags.overrides.set)?)),
            };
            info::run(info::Args { json: flags.json, memory })
        }
    }
}

fn prepare_args(flags: cli::Preparation) -> prepare::Args {
    let given = if flags.few_shot { Steps::FEW_SHOT } else { Steps::default() };
    let steps = Steps {
        clip_percent: flags.clip.or(given.clip_percent),
        spacing_xyz_mm: flags.spacing.or(given.spacing_xyz_mm),
        size_xy_vox: flags.size.or(given.size_xy_vox),
    };
    prepare::Args { out: flags.out, steps, keep_going: flags.keep_going, force: flags.force }
}

/// No volume may take more to be read than the user allows, or else than is free; those bytes, where they are known.
fn limit_memory(gigabytes: Option<f64>) -> Result<Option<u64>> {
    if let Some(odd) = gigabytes.filter(|&gb| !(gb > 0.0 && gb.is_finite())) {
        return Err(Error::invalid("--memory-limit", "gigabytes, more than 0", odd.to_string(), "like 16"));
    }
    let bytes = gigabytes.map(|gb| (gb * 1e9) as u64);
    let bytes = bytes.or_else(|| device::memory::host().map(|memory| memory.available_bytes));
    if let Some(bytes) = bytes {
        limit::set_bytes(bytes);
    }
    Ok(bytes)
}

fn choose_device(text: &str) -> Result<tch::Device> {
    let chosen = device::resolve(text.parse::<Request>()?)?;
    progress::note(&format!("device: {}", chosen.why));
    Ok(chosen.device)
}
