//! The loop: draw, augment, features, prototypes, predict, loss; paper, section 3.6.

pub mod adamw;
pub mod checkpoint;
pub mod log;
pub mod one_cycle;
pub mod run;
pub mod step;
pub mod templates;
pub mod validation;

use crate::error::{Error, Result};
use crate::{augment, episode, loss};
use serde::{Deserialize, Serialize};

pub use run::{Event, Run, run};

/// Weights drawn from `seed`.
pub const RANDOM: &str = "random";

/// Where in its folder a training finds its last position.
pub const LAST: &str = "checkpoints/last.safetensors";
/// And the one before, should that be damaged.
pub const PREVIOUS: &str = "checkpoints/previous.safetensors";
/// What a finished training leaves.
pub const WEIGHTS: &str = "weights.safetensors";

/// Section `[training]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub seed: u64,
    /// [`RANDOM`], or the path of weights to begin with; `{fold}` in it stands for the fold's folder in a run.
    pub initial_weights: String,
    pub epochs: u64,
    /// Of all networks together.
    pub iterations_per_epoch: u64,
    /// Peak of the 1cycle schedule.
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Gradients longer than this are scaled down to it; 0 leaves them alone.
    pub clip_norm: f64,
    pub validate_every_epochs: u64,
    /// Episodes on the held-out scans whose mean loss is the validation loss.
    pub validation_episodes: u64,
    /// Checkpoints that stay, beside `last` and `best`.
    pub checkpoint_every_epochs: u64,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("training.{key}"), expected, found, "change this key"))
        };
        for (key, count) in [
            ("epochs", self.epochs),
            ("iterations_per_epoch", self.iterations_per_epoch),
            ("validate_every_epochs", self.validate_every_epochs),
            ("checkpoint_every_epochs", self.checkpoint_every_epochs),
        ] {
            if count == 0 {
                return refuse(key, "at least 1", "0".to_owned());
            }
        }
        if self.initial_weights.is_empty() {
            return refuse("initial_weights", "random or the path of a .safetensors file", "nothing".to_owned());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning_rate", "a number in (0, 1]", self.learning_rate.to_string());
        }
        for (key, value) in [("weight_decay", self.weight_decay), ("clip_norm", self.clip_norm)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(key, "a number from 0", value.to_string());
            }
        }
        Ok(())
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> u64 {
        self.epochs * self.iterations_per_epoch
    }
}

/// Everything that decides how the weights come about, given the scans.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingConfig {
    pub training: Config,
    pub episode: episode::Config,
    pub augment: augment::Config,
    pub loss: loss::Config,
    pub rules: episode::Rules,
}
