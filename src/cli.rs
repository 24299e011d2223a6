//! The command line: flags as typed values, without logic.

#![allow(
    rustdoc::invalid_html_tags,
    reason = "the comments of flags are the program's help, where <RUN> is a placeholder"
)]

mod values;

pub use values::{Classes, Folds, Held, SliceRange};

use crate::device::Request;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Processor threads to use, at most as many as there are [default: all].
    #[arg(long, global = true, value_name = "N", value_parser = values::threads)]
    pub threads: Option<usize>,
    /// Refuse work that takes more memory than this, and volumes that take more to be read, whatever their headers claim
    /// [default: what is free].
    #[arg(long, global = true, value_name = "GB")]
    pub memory_limit: Option<f64>,
    /// The subcommand with its flags.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring scans into a dataset folder: CHAOS as it is downloaded, DICOM series, NIfTI files.
    #[command(subcommand)]
    Prepare(Prepare),
    /// Precompute supervoxels for every scan of a dataset: the pseudo-labels of training.
    Pseudolabel(Pseudolabel),
    /// Write a recipe for a dataset, with the reason for each number, from its scans alone.
    Plan(Plan),
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

/// The kinds of source of `ssl3d prepare`.
#[derive(Debug, Subcommand)]
pub enum Prepare {
    /// The CHAOS challenge: CHAOS_Train_Sets.zip, or the folder that it unpacks to.
    Chaos(PrepareChaos),
    /// DICOM series in any folders below the source, without labels.
    Dicom(PrepareDicom),
    /// NIfTI files (or NRRD, MetaImage, MGH) in any layout, or an nnU-Net, Decathlon, KiTS or BIDS dataset.
    Nifti(PrepareNifti),
}

/// Flags of `ssl3d prepare chaos`.
#[derive(Debug, Args)]
pub struct PrepareChaos {
    /// The archive or the folder.
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Which images of each patient.
    #[arg(long, value_enum, default_value = "t2")]
    pub sequence: Sequence,
    /// Flags of every source.
    #[command(flatten)]
    pub common: Preparation,
}

/// The images of a patient in CHAOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sequence {
    /// T2-weighted, fat-suppressed (T2-SPIR).
    T2,
    /// T1-weighted, in phase.
    T1In,
    /// T1-weighted, out of phase.
    T1Out,
    /// Computed tomography, liver only.
    Ct,
}

/// Flags of `ssl3d prepare dicom`.
#[derive(Debug, Args)]
pub struct PrepareDicom {
    /// A folder or a zip archive of one; every folder below it that holds DICOM files is a scan, or several where its files are.
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Flags of every source.
    #[command(flatten)]
    pub common: Preparation,
}

/// Flags of `ssl3d prepare nifti`.
#[derive(Debug, Args)]
pub struct PrepareNifti {
    /// The folder; --set data.image and data.label say how its files are named, where that is not known.
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// Bring a label map of the same patient that lies on another grid onto its image's, each voxel from the nearest one.
    #[arg(long)]
    pub resample_label: bool,
    /// Flags of every source.
    #[command(flatten)]
    pub common: Preparation,
    /// Changes to the configuration.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Flags of every source of `ssl3d prepare`.
#[derive(Debug, Args)]
pub struct Preparation {
    /// Where image_<id>.nii.gz, label_<id>.nii.gz and dataset.json go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// As papers on few-shot segmentation of CHAOS do: --clip 0.5 --spacing 1.25,1.25,7.7 --size 256,256.
    #[arg(long)]
    pub few_shot: bool,
    /// Cut the brightest so many per cent of the voxels down to the brightest of the rest.
    #[arg(long, value_name = "PERCENT")]
    pub clip: Option<f64>,
    /// Resample to this spacing in mm.
    #[arg(long, value_name = "X,Y,Z", value_parser = numbers::<f64, 3>)]
    pub spacing: Option<[f64; 3]>,
    /// Crop or pad about the middle to so many voxels.
    #[arg(long, value_name = "X,Y", value_parser = numbers::<usize, 2>)]
    pub size: Option<[usize; 2]>,
    /// Resample scans of a tilted gantry to axes at right angles; ITK, and so ITK-SNAP and 3D Slicer, refuses other ones.
    #[arg(long)]
    pub upright: bool,
    /// Name scans that cannot be read and leave them out.
    #[arg(long)]
    pub keep_going: bool,
    /// Overwrite a dataset that is there already.
    #[arg(long)]
    pub force: bool,
}

/// Parses `N` numbers with commas between them, like `1.25,1.25,7.7`.
fn numbers<T: FromStr, const N: usize>(text: &str) -> Result<[T; N], String> {
    let parts: Option<Vec<T>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(|| format!("{N} numbers with commas between them"))
}

/// The configuration file and changes to it.
#[derive(Debug, Clone, Default, Args)]
pub struct Configuration {
    /// The experiment; configs/ has those that ship. What it leaves out is the paper's [default: as ssl3d plan makes it].
    #[arg(long, value_name = "TOML")]
    pub config: Option<PathBuf>,
    /// Changes to the configuration.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Changes to the configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct Overrides {
    /// Replace a value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Flags of `ssl3d pseudolabel`.
#[derive(Debug, Args)]
pub struct Pseudolabel {
    /// The configuration.
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

/// Flags of `ssl3d plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Dataset folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the recipe goes [default: standard output].
    #[arg(long, value_name = "TOML")]
    pub out: Option<PathBuf>,
    /// What it will be trained on [default: what --device finds].
    #[arg(long = "for", value_enum)]
    pub machine: Option<Machine>,
    /// Minutes for the training of a fold on this machine: a step is timed, and the epochs are as many as there is time for.
    #[arg(long, value_name = "N", value_parser = values::minutes)]
    pub minutes: Option<f64>,
    /// Overwrite a file that is there already.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: Request,
    /// What the plan is to have in any case, for instance data.image.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// What a recipe is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Machine {
    /// Two cores.
    Cpu,
    /// One GPU with 8 GB or more.
    Gpu,
}

/// Flags of `ssl3d train`.
#[derive(Debug, Args)]
pub struct Train {
    /// The configuration.
    #[command(flatten)]
    pub configuration: Configuration,
    /// Dataset folder; needed unless the configuration learns from generated anatomies.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What `ssl3d pseudolabel` wrote [default: computed into the run directory].
    #[arg(long, value_name = "DIR")]
    pub supervoxels: Option<PathBuf>,
    /// Run directory: configuration, checkpoints, log and curves.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// What to begin with: the weights that come with ssl3d (generalist), nothing (scratch), or a weights file of the same network
    /// [default: as the configuration has it; a plan begins with the generalist].
    #[arg(long, value_name = "WEIGHTS")]
    pub from: Option<String>,
    /// Minutes for the training of a fold on this machine, supervoxels aside: a step is timed, and the epochs are as many as there is
    /// time for.
    #[arg(long, value_name = "N", value_parser = values::minutes)]
    pub minutes: Option<f64>,
    /// Which fold to hold out: its number (weights in <RUN>/fold_<K>), all (one after another), or none (train on every scan;
    /// weights in <RUN>/all_scans).
    #[arg(long, value_name = "K", default_value = "0")]
    pub fold: Held,
    /// Go on with a run although its configuration, scans or supervoxels have changed since it began.
    #[arg(long)]
    pub allow_changed: bool,
    /// Train even if that seems to take more memory than there is.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: Request,
}

/// Flags of `ssl3d eval`.
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
    pub fold: Option<Folds>,
    /// Whole volume; the organ's own slices only (ep1); from one annotated slice of the support (ep2); or all three. Several with commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub protocol: Vec<Protocols>,
    /// Where scores.csv, summary.json and report.html go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Overwrite an evaluation that is there already.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: Request,
    /// Changes to the configuration.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The evaluation protocols to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocols {
    /// The whole query from the whole support.
    Full,
    /// The slices of the query that show the class are known, and they alone are scored (Roy et al. 2020).
    Ep1,
    /// One slice of each class is annotated in the support; the whole query is scored (Hansen et al. 2022).
    Ep2,
    /// One after another.
    All,
}

/// Flags of `ssl3d segment`.
#[derive(Debug, Args)]
pub struct Segment {
    /// weights.safetensors of a run, or one of its checkpoints [default: the weights that come with ssl3d, which have seen
    /// generated anatomies alone].
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// A volume that has been labelled: NIfTI, NRRD, MetaImage or MGH; repeat for more shots.
    #[arg(long, value_name = "FILE", required = true)]
    pub support: Vec<PathBuf>,
    /// Its labels, in the order of --support.
    #[arg(long, value_name = "FILE", required = true)]
    pub support_label: Vec<PathBuf>,
    /// Bring a label map of the same patient that lies on another grid onto its image's, each voxel from the nearest one.
    #[arg(long)]
    pub resample_label: bool,
    /// What to segment: label values, or names from a dataset.json beside the labels; for instance 1,3 or liver,spleen. A name
    /// may be put into double quotes, as it may hold commas: '"kidney, left",liver'.
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub classes: Classes,
    /// Volumes to segment: files, folders of any depth, patterns like "scans/*/ct.nii.gz"; DICOM as folders of slices, zip archives of
    /// them or multi-frame files.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub query: Vec<PathBuf>,
    /// The first and last slice of a class in the query, where you know them; for instance liver=9-33, counted from 0 as in the file;
    /// repeat for more classes. Nothing of the class is drawn elsewhere, and, where it is found at all, some of it in each of them.
    #[arg(long, value_name = "CLASS=FIRST-LAST")]
    pub slices: Vec<SliceRange>,
    /// Where <query name>_seg.nii.gz, volumes.csv, summary.json and the labels' names and colours for ITK-SNAP (labels.txt) and 3D
    /// Slicer (labels.ctbl) go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Also write the probability of each class as a float volume.
    #[arg(long)]
    pub probabilities: bool,
    /// Also write a picture of each result, <query name>_preview.png.
    #[arg(long)]
    pub preview: bool,
    /// Let the queries help each other: each is segmented from the support and from what is found in up to 6 others. Where they show the
    /// same as the support this finds more organs; it takes several times as long, and a result depends on the other queries.
    #[arg(long)]
    pub together: bool,
    /// Keep the largest connected component of every class alone.
    #[arg(long)]
    pub largest_component: bool,
    /// Another place for a copy of summary.json.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Overwrite results that are there already.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: Request,
    /// Changes to the configuration.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Flags of `ssl3d demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where everything goes.
    #[arg(long, value_name = "DIR", default_value = "ssl3d-demo")]
    pub out: PathBuf,
    /// Overwrite what is there already. One that was stopped goes on without it.
    #[arg(long)]
    pub force: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: Request,
}

/// Flags of `ssl3d info`.
#[derive(Debug, Args)]
pub struct Info {
    /// One JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Estimate the memory that this configuration needs.
    #[arg(long, value_name = "TOML")]
    pub config: Option<PathBuf>,
    /// Changes to the configuration.
    #[command(flatten)]
    pub overrides: Overrides,
}
