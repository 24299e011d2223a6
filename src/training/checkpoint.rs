//! Checkpoints: the complete state of a training in one safetensors file, from which it resumes exactly: weights,
//! moments of the optimiser, position, configuration. Random streams are keyed by the step and need no state.

use super::adamw::AdamW;
use super::{LAST, PREVIOUS};
use crate::artifact;
use crate::episode::Scan;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::volume::frame::Frame;
use crate::weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Prefix of the names of the optimiser's tensors.
pub const OPTIMISER: &str = "optimiser.";

/// Position of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Number of finished steps; the next step has this number.
    pub step: u64,
    /// Number of updates of each ensemble member; their sum is below `step` if episodes were skipped.
    pub updates: Vec<u64>,
    /// Sum of the losses in the current epoch.
    pub loss_sum: f64,
    /// Number of these losses.
    pub losses: u64,
    /// Number of episodes skipped in the current epoch.
    pub skipped: u64,
    /// Smallest validation loss so far.
    pub best_loss: Option<f64>,
}

impl State {
    /// The position before the first step.
    pub const START: Self =
        Self { step: 0, updates: Vec::new(), loss_sum: 0.0, losses: 0, skipped: 0, best_loss: None };

    /// Whether steps were done since the last row of the log.
    pub fn is_epoch_open(&self) -> bool {
        self.losses + self.skipped > 0
    }

    /// Number of finished epochs that have their row in the log.
    pub fn epochs_logged(&self, iterations_per_epoch: u64) -> u64 {
        let done = self.step / iterations_per_epoch;
        let is_due = self.is_epoch_open() && self.step.is_multiple_of(iterations_per_epoch);
        done - u64::from(is_due)
    }
}

/// Metadata of every weights file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of ssl3d.
    pub ssl3d: String,
    /// The resolved configuration as TOML.
    pub config: String,
    /// The held-out part: "fold 0 of 5", ...
    pub fold: String,
    /// Ids of the training scans.
    pub trained_on: Vec<String>,
    /// [`digest`] of the scans from which episodes are drawn.
    pub data: String,
    /// Which way the training scans were turned; None in weights of earlier versions, and where nothing was.
    #[serde(default)]
    pub frame: Option<Frame>,
    /// Position of the training in this file.
    pub state: State,
}

impl Provenance {
    /// The metadata as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers only")
    }

    /// Parses the metadata of the file at `path`.
    ///
    /// # Errors
    /// The file was not written by ssl3d.
    pub fn from_json(path: &Path, json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| {
            let found = if json.is_empty() { "none".to_owned() } else { format!("unreadable ones ({e})") };
            Error::file(path, "the metadata of ssl3d", found, "give weights that ssl3d train wrote")
        })
    }
}

/// Digest of the training data in hexadecimal digits: images, regions and organs of these scans in this order.
pub fn digest(scans: &[Scan]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for Scan { id, image, regions, organs, spacing_mm } in scans {
        bytes.clear();
        bytes.extend(id.bytes().chain([0]));
        bytes.extend(image.shape().iter().flat_map(|&n| (n as u64).to_le_bytes()));
        bytes.extend(spacing_mm.iter().flat_map(|mm| mm.to_le_bytes()));
        bytes.extend(image.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(regions.iter().flat_map(|region| region.to_le_bytes()));
        bytes.extend(organs.iter().flatten());
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// Writes weights, moments and position.
///
/// # Errors
/// As [`weights::write`].
pub fn write(path: &Path, model: &Network, optimisers: &[AdamW], about: &Provenance) -> Result<()> {
    weights::write(path, &tensors(model, optimisers), &about.to_json())
}

/// Writes the last checkpoint of the training in `folder`; the one before becomes the previous one.
///
/// # Errors
/// As [`weights::write`].
pub fn write_last(folder: &Path, model: &Network, optimisers: &[AdamW], about: &Provenance) -> Result<()> {
    let [last, previous] = [LAST, PREVIOUS].map(|name| folder.join(name));
    weights::write_keeping(&last, &previous, &tensors(model, optimisers), &about.to_json())
}

/// Writes the weights alone, for `segment` and for other programs.
///
/// # Errors
/// As [`weights::write`].
pub fn write_weights(path: &Path, model: &Network, about: &Provenance, precision: weights::Precision) -> Result<()> {
    weights::write_as(path, &weights::variables(&model.variables), &about.to_json(), precision)
}

/// Reads the metadata and the network's tensors of a checkpoint or of bare weights.
///
/// # Errors
/// As [`weights::read`], or the file was not written by ssl3d.
pub fn read_weights(path: &Path) -> Result<(Provenance, BTreeMap<String, Tensor>)> {
    network_of(path, weights::read(path)?)
}

/// The same of the content of a file.
///
/// # Errors
/// As [`read_weights`].
pub fn network_of(path: &Path, mut file: weights::Weights) -> Result<(Provenance, BTreeMap<String, Tensor>)> {
    let about = Provenance::from_json(path, &file.metadata)?;
    file.tensors.retain(|name, _| !name.starts_with(OPTIMISER));
    Ok((about, file.tensors))
}

/// A checkpoint from which a training can resume.
pub struct Position {
    path: PathBuf,
    /// Metadata of the checkpoint.
    pub about: Provenance,
    tensors: BTreeMap<String, Tensor>,
    /// The newer checkpoints, which are damaged.
    pub damaged: Vec<Damage>,
}

/// A checkpoint that cannot be read.
pub struct Damage {
    path: PathBuf,
    /// The reason.
    pub fault: Error,
}

/// Whether a training has begun in `folder`.
pub fn exists(folder: &Path) -> bool {
    [LAST, PREVIOUS].iter().any(|name| folder.join(name).exists())
}

/// The newest intact checkpoint: the last, the previous one, or else one of the permanent ones; `None` if no training
/// has begun.
///
/// # Errors
/// The file system refuses, or there are checkpoints and all are damaged.
pub fn newest(folder: &Path) -> Result<Option<Position>> {
    let mut paths = vec![folder.join(LAST), folder.join(PREVIOUS)];
    let beside =
        std::fs::read_dir(folder.join("checkpoints")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_epoch = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("epoch_"));
    let mut epochs: Vec<PathBuf> = beside.filter(is_epoch).collect();
    epochs.sort();
    paths.extend(epochs.into_iter().rev());

    let mut damaged = Vec::new();
    for path in paths.into_iter().filter(|path| path.exists()) {
        let read =
            weights::read(&path).and_then(|file| Ok((Provenance::from_json(&path, &file.metadata)?, file.tensors)));
        match read {
            Ok((about, tensors)) => return Ok(Some(Position { path, about, tensors, damaged })),
            Err(fault @ Error::Io { .. }) => return Err(fault),
            Err(fault) => damaged.push(Damage { path, fault }),
        }
    }
    match damaged.is_empty() {
        true => Ok(None),
        false => {
            let found = format!("{} of them, all damaged", damaged.len());
            let remedy = "restore one from a copy, or begin another training with another --run";
            Err(Error::file(&folder.join("checkpoints"), "a checkpoint that is whole", found, remedy))
        }
    }
}

impl Position {
    /// Restores model and optimisers from the checkpoint.
    ///
    /// # Errors
    /// The checkpoint is of another network.
    pub fn restore(&self, model: &Network, optimisers: &mut [AdamW]) -> Result<()> {
        weights::load(&self.path, &self.tensors, &tensors(model, optimisers))?;
        if self.about.state.updates.len() != optimisers.len() {
            let found = format!("those of {}", self.about.state.updates.len());
            let expected = format!("the updates of {} networks", optimisers.len());
            return Err(Error::file(&self.path, expected, found, "begin another training with another --run"));
        }
        for (adamw, &updates) in optimisers.iter_mut().zip(&self.about.state.updates) {
            adamw.steps = updates;
        }
        Ok(())
    }

    /// Renames the damaged checkpoints, so that the next one does not replace an intact one.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn set_damaged_aside(&self) -> Result<()> {
        for Damage { path, .. } in &self.damaged {
            let aside = path.with_extension("damaged");
            std::fs::rename(path, &aside).map_err(Error::io("set aside the damaged checkpoint", path))?;
        }
        artifact::clear_unfinished(self.path.parent().expect("a file in a folder"));
        Ok(())
    }
}

/// Weights and moments by name, sharing their storage.
fn tensors(model: &Network, optimisers: &[AdamW]) -> BTreeMap<String, Tensor> {
    let moments = optimisers.iter().flat_map(AdamW::state);
    let moments = moments.map(|(name, tensor)| (format!("{OPTIMISER}{name}"), tensor));
    weights::variables(&model.variables).into_iter().chain(moments).collect()
}
