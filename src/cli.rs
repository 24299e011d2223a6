//! Flags only, no logic: what the user typed, as plain values.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Learns to segment organs in 3D medical images without any annotation, then segments a class that it has never
/// seen from one labelled volume.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// No progress, no notes: warnings, errors and results only.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Show the causes behind an error.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Processor threads to use [default: all].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Precompute supervoxels for every scan of a dataset: the pseudo-labels of training.
    Pseudolabel(Pseudolabel),
    /// Learn from supervoxels; the same command again goes on where it stopped.
    Train(Train),
    /// Dice of a trained run on its held-out scans, one support each.
    Eval(Eval),
    /// Segment queries from one (or more) labelled volumes.
    Segment(Segment),
    /// Every step on a generated abdominal cohort, ending in a report to look at.
    Demo(Demo),
    /// Versions, devices, and the memory that a configuration needs.
    Info(Info),
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct Configuration {
    /// The experiment; configs/ has those that ship. What it leaves out is the paper's.
    #[arg(long, value_name = "TOML")]
    pub config: PathBuf,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Debug, Args)]
pub struct Overrides {
    /// Replace a value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Pseudolabel {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Dataset folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where <id>_supervoxels.nii.gz and summary.json go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Compare with the labels, where there are any.
    #[arg(long)]
    pub score: bool,
    /// Write <id>_preview.png with the outlines of the regions.
    #[arg(long)]
    pub preview: bool,
}

#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    pub configuration: Configuration,
    /// Dataset folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// What `ssl3d pseudolabel` wrote [default: computed into the run directory].
    #[arg(long, value_name = "DIR")]
    pub supervoxels: Option<PathBuf>,
    /// Run directory: configuration, checkpoints, log and curves.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Which fold to hold out: its number, all (one after another) or none (train on every scan).
    #[arg(long, value_name = "K", default_value = "0")]
    pub fold: String,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// Run directory of `ssl3d train`; repeat to compare systems: seeds of one are taken together.
    #[arg(long, value_name = "DIR", required = true)]
    pub run: Vec<PathBuf>,
    /// Dataset folder, with labels.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// A fold's number, several with commas, or all [default: every fold that the run has finished].
    #[arg(long, value_name = "K")]
    pub fold: Option<String>,
    /// Whole volume; the organ's own slices only (ep1); from one annotated slice of the support (ep2); or all three.
    #[arg(long, value_enum, default_value = "all")]
    pub protocol: Protocols,
    /// Where scores.csv, summary.json and report.html go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocols {
    Full,
    Ep1,
    Ep2,
    All,
}

#[derive(Debug, Args)]
pub struct Segment {
    /// weights.safetensors of a run, or one of its checkpoints.
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// A volume that has been labelled; repeat for more shots.
    #[arg(long, value_name = "NIFTI", required = true)]
    pub support: Vec<PathBuf>,
    /// Its labels, in the order of --support.
    #[arg(long, value_name = "NIFTI", required = true)]
    pub support_label: Vec<PathBuf>,
    /// Label values to segment, for instance 1,3.
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub classes: String,
    /// Volumes to segment.
    #[arg(long, value_name = "NIFTI", required = true, num_args = 1..)]
    pub query: Vec<PathBuf>,
    /// Where <query name>_seg.nii.gz goes.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Also write the probability of each class as a float volume.
    #[arg(long)]
    pub probabilities: bool,
    /// Overwrite results that are there already.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Where everything goes.
    #[arg(long, value_name = "DIR", default_value = "ssl3d-demo")]
    pub out: PathBuf,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

#[derive(Debug, Args)]
pub struct Info {
    /// One JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Estimate the memory that this configuration needs.
    #[arg(long, value_name = "TOML")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub overrides: Overrides,
}
