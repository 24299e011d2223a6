//! Everything that a training needs to go on as if it had never stopped, in one safetensors file: weights, moments of
//! the optimiser, position, configuration. Random streams are keyed by the step and need no state.

use super::adamw::AdamW;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// What the names of the optimiser's tensors begin with.
pub const OPTIMISER: &str = "optimiser.";

/// Where a training stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done; the next one has this number.
    pub step: u64,
    /// Updates of each network so far: all together fewer than steps where episodes were left out.
    pub updates: Vec<u64>,
    /// Of the epoch under way: sum of the losses, their number, episodes left out, seconds.
    pub loss_sum: f64,
    pub losses: u64,
    pub skipped: u64,
    pub seconds: f64,
    /// The least validation loss so far.
    pub best_loss: Option<f64>,
}

impl State {
    pub const START: Self =
        Self { step: 0, updates: Vec::new(), loss_sum: 0.0, losses: 0, skipped: 0, seconds: 0.0, best_loss: None };
}

/// What stands in the metadata of every weights file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub ssl3d: String,
    /// The resolved configuration as TOML.
    pub config: String,
    /// What was held out: "fold 0 of 5", ...
    pub fold: String,
    /// Ids of the scans that were trained on.
    pub trained_on: Vec<String>,
    /// Position of the training, where it can go on from here.
    pub state: State,
}

impl About {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers only")
    }

    /// # Errors
    /// The file was not written by ssl3d.
    pub fn from_json(path: &Path, json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| {
            let found = if json.is_empty() { "none".to_owned() } else { format!("unreadable ones ({e})") };
            Error::file(path, "the metadata of ssl3d", found, "give weights that ssl3d train wrote")
        })
    }
}

/// Writes weights, moments and position.
pub fn write(path: &Path, model: &Model, optimisers: &[AdamW], about: &About) -> Result<()> {
    weights::write(path, &tensors(model, optimisers), &about.to_json())
}

/// Writes the weights alone, for `segment` and for other programs.
pub fn write_weights(path: &Path, model: &Model, about: &About) -> Result<()> {
    weights::write(path, &weights::variables(&model.variables), &about.to_json())
}

/// The metadata and the network's tensors of a checkpoint or of bare weights.
pub fn read_weights(path: &Path) -> Result<(About, BTreeMap<String, Tensor>)> {
    let mut file = weights::read(path)?;
    let about = About::from_json(path, &file.metadata)?;
    file.tensors.retain(|name, _| !name.starts_with(OPTIMISER));
    Ok((about, file.tensors))
}

/// Reads a checkpoint back into model and optimiser.
pub fn restore(path: &Path, model: &Model, optimisers: &mut [AdamW]) -> Result<About> {
    let file = weights::read(path)?;
    let about = About::from_json(path, &file.metadata)?;
    weights::load(path, &file.tensors, &tensors(model, optimisers))?;
    if about.state.updates.len() != optimisers.len() {
        let found = format!("those of {}", about.state.updates.len());
        let expected = format!("the updates of {} networks", optimisers.len());
        return Err(Error::file(path, expected, found, "begin another training with another --run"));
    }
    for (adamw, &updates) in optimisers.iter_mut().zip(&about.state.updates) {
        adamw.steps = updates;
    }
    Ok(about)
}

/// Weights and moments by name, sharing their storage.
fn tensors(model: &Model, optimisers: &[AdamW]) -> BTreeMap<String, Tensor> {
    let moments = optimisers.iter().flat_map(AdamW::state);
    let moments = moments.map(|(name, tensor)| (format!("{OPTIMISER}{name}"), tensor));
    weights::variables(&model.variables).into_iter().chain(moments).collect()
}
