//! ssl3d learns, without any annotation, to segment organs in 3D medical images, and then segments a class that it has
//! never seen from one labelled volume (Zhang and Liu 2022).
//!
//! The modules follow the data:
//!
//! ```text
//! volume -> supervoxels -> episode -> augment -> features -> prototypes -> prediction -> loss | metrics -> report
//! ```
//!
//! Arrays are `[z, y, x]`, tensors (n, c, d, h, w). Dependencies point one way: what stands above `tensor` below knows
//! nothing of libtorch; what stands between `tensor` and `model` nothing of files; `commands` alone wires stages to disk,
//! device and progress bars. `tests/architecture.rs` holds these rules.

/// Files that are whole or absent.
pub mod artifact;
/// Faults of input and machine, one line each.
pub mod error;
/// Random streams keyed by (seed, purpose, step).
pub mod rng;

/// Random transforms, drawn apart from being applied.
pub mod augment;
/// Support labels -> query labels without a network.
pub mod baseline;
/// What a network finds -> borders as the support's annotator draws them.
pub mod borders;
/// Regions -> support and query.
pub mod episode;
/// Prediction + truth -> Dice.
pub mod metrics;
/// Generated abdomens for the demonstration and the tests.
pub mod phantom;
/// Scores -> tables, curves, overlays, pages.
pub mod report;
/// Volume -> regions that stand in for organs.
pub mod supervoxels;
/// What we read: voxels and their geometry.
pub mod volume;

/// Which device, and how the cores are shared.
pub mod device;
/// Volume -> feature map.
pub mod features;
/// What training minimises.
pub mod loss;
/// Features, prototypes and prediction as one.
pub mod model;
/// Query features + prototypes -> scores.
pub mod prediction;
/// Support features + mask -> prototypes.
pub mod prototypes;
/// ndarray <-> libtorch.
pub mod tensor;
/// The loop, its optimiser, schedule, checkpoints and log.
pub mod training;
/// Named tensors in files.
pub mod weights;

/// Flags.
pub mod cli;
/// One file a subcommand.
pub mod commands;
/// The experiment.
pub mod config;
