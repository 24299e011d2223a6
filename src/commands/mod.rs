//! The only place that wires stages to disk, device and progress: one file a subcommand.

pub mod demo;
pub mod eval;
pub mod info;
pub mod lock;
pub mod memory;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod pseudolabel;
pub mod scans;
pub mod segment;
pub mod stop;
pub mod train;

use crate::cli::{Cli, Command, Prepare};
use crate::device::{self, Request};
use crate::error::{Error, Result};
use crate::volume::limit;

/// What a command may use of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Where tensors live.
    pub device: tch::Device,
    /// Bytes; None to try in any case.
    pub memory_limit: Option<u64>,
}

/// Does what was asked for.
///
/// # Errors
/// The threads, the memory limit or the device are faulty; the command fails; its results cannot be printed.
pub fn run(cli: Cli) -> Result<()> {
    progress::set_quiet(cli.quiet);
    let threads = device::threads::share(cli.threads)?;
    if let Some(asked_for) = cli.threads.filter(|&asked_for| asked_for > threads) {
        progress::note(&format!("--threads {asked_for}: {threads} are used, one for each processor that there is"));
    }
    stop::name_full_files()?;
    let memory_limit = limit_memory(cli.memory_limit)?;
    let resources = |request| Ok(Resources { device: choose_device(request)?, memory_limit });
    match cli.command {
        Command::Prepare(Prepare::Chaos(args)) => prepare::chaos::run(&args),
        Command::Prepare(Prepare::Dicom(args)) => prepare::dicom::run(&args),
        Command::Prepare(Prepare::Nifti(args)) => prepare::nifti::run(&args),
        Command::Pseudolabel(args) => pseudolabel::run(args, memory_limit),
        Command::Plan(args) => plan::run(&args, resources(args.device)?),
        Command::Train(args) => train::run(&args, resources(args.device)?),
        Command::Eval(args) => eval::run(&args, resources(args.device)?),
        Command::Segment(args) => segment::run(&args, resources(args.device)?),
        Command::Demo(args) => demo::run(&args, choose_device(args.device)?),
        Command::Info(args) => info::run(&args),
    }?;
    progress::output_outcome()
}

/// No volume may take more to be read than the user allows, or else than is free; those bytes, where they are known.
fn limit_memory(gigabytes: Option<f64>) -> Result<Option<u64>> {
    if let Some(odd) = gigabytes.filter(|&gb| !(gb > 0.0 && gb.is_finite())) {
        return Err(Error::flag("--memory-limit", "gigabytes, more than 0", odd.to_string(), "like 16"));
    }
    let bytes = gigabytes.map(|gb| (gb * 1e9) as u64);
    let bytes = bytes.or_else(|| device::memory::host().map(|memory| memory.available_bytes));
    if let Some(bytes) = bytes {
        limit::set_bytes(bytes);
    }
    Ok(bytes)
}

fn choose_device(request: Request) -> Result<tch::Device> {
    let chosen = device::resolve(request)?;
    progress::note(&format!("device: {}", chosen.why));
    Ok(chosen.device)
}
