//! ssl3d learns, without any annotation, to segment organs in 3D medical images, and then segments a class that it has
//! never seen from one labelled volume (Zhang and Liu 2022).
//!
//! The modules follow the data:
//!
//! ```text
//! training    volume -> supervoxels -> episode -> augment
//!                 -> features -> prototypes -> similarity -> loss
//! inference   volume -> preprocessing -> network -> inference
//!                 -> evaluation -> metrics -> report
//! ```
//!
//! [`inference`] is the place to begin: supports and a query in, labels out. [`pretrained`] brings a trained network, [`config`] holds
//! every setting beside its default. `examples/segment_array.rs` goes from arrays to labels on one page.
//!
//! Arrays are `[z, y, x]`, tensors (n, c, d, h, w). Dependencies point one way, in the order of this page: modules above
//! [`tensor`] know nothing of libtorch, those from [`tensor`] to [`inference`] nothing of files, and [`commands`] alone
//! wire stages to disk, device and progress bars. `tests/architecture.rs` holds these rules.

#![warn(missing_docs)]

// Faults of input and machine, one line each.
pub mod error;

// Random streams keyed by (seed, purpose, step).
pub mod rng;

// Files that are whole or absent.
pub mod artifact;

// Text files, whoever wrote them.
pub mod text;

// Amounts as a person reads them.
pub mod units;

// Percentiles as NumPy's.
pub mod percentile;

// Volumes that are read and written: voxels, geometry, classes.
pub mod volume;

// Connected components of labels.
pub mod components;

// Scan -> the network's array.
pub mod preprocessing;

// Volume -> regions that stand in for organs.
pub mod supervoxels;

// Random transforms, drawn apart from being applied.
pub mod augment;

// Regions -> support and query.
pub mod episode;

// Labels + truth -> Dice, surface distances, tests.
pub mod metrics;

// Scores -> tables, curves, overlays, pages.
pub mod report;

// Generated anatomies: for training, for the demonstration, for tests.
pub mod synthesis;

// ndarray <-> libtorch.
pub mod tensor;

// Two scans -> which place in one is which in the other.
pub mod registration;

// Volume -> feature map.
pub mod features;

// Support features + mask -> prototypes.
pub mod prototypes;

// Query features + prototypes -> scores.
pub mod similarity;

// What training minimises.
pub mod loss;

// Other systems of the field.
pub mod baselines;

// Which device, and how the cores are shared.
pub mod device;

// Named tensors in files.
pub mod weights;

// The networks of a system as one.
pub mod network;

// Supports + query -> labels.
pub mod inference;

// The loop, its optimiser, schedule, checkpoints and log.
pub mod training;

// The experiment: every section of the configuration.
pub mod config;

// Sizes that follow from the data.
pub mod planning;

// Trained networks from files.
pub mod pretrained;

// Segmented queries by protocol.
pub mod evaluation;

// Flags.
pub mod cli;

// One file a subcommand.
pub mod commands;
