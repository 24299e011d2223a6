//! Training: draw an episode, augment it, compute features, prototypes and scores, minimise the loss; paper, section
//! 3.6.

pub mod adamw;
pub mod checkpoint;
pub mod log;
pub mod one_cycle;
pub mod pace;
pub mod run;
pub mod step;
pub mod templates;
pub mod validation;

use crate::episode::{Candidates, Episode, Scan, Source};
use crate::error::{Error, Result};
use crate::{augment, episode, loss, synthesis, weights};
use rand::Rng;
use serde::{Deserialize, Serialize};

pub use run::{Event, Run, run};

/// Value of `initial_weights` for weights that are drawn from `seed`.
pub const RANDOM: &str = "random";
/// Value of `initial_weights` for those that come with the program.
pub const GENERALIST: &str = "generalist";

/// Path of the last checkpoint in the folder of a training.
pub const LAST: &str = "checkpoints/last.safetensors";
/// Path of the checkpoint before the last, in case that the last is damaged.
pub const PREVIOUS: &str = "checkpoints/previous.safetensors";
/// File name of the weights of a finished training.
pub const WEIGHTS: &str = "weights.safetensors";

/// Section `[training]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of initial weights, episodes and augmentation.
    pub seed: u64,
    /// [`RANDOM`], [`GENERALIST`], or the path of initial weights, in which `{fold}` stands for the fold's folder in a run.
    pub initial_weights: String,
    /// Number of epochs.
    pub epochs: u64,
    /// Steps per epoch, of all ensemble members together.
    pub iterations_per_epoch: u64,
    /// Peak of the 1cycle schedule, in (0, 1].
    pub learning_rate: f64,
    /// Weight decay of AdamW, 0 or more.
    pub weight_decay: f64,
    /// Largest norm of the gradient, to which longer ones are scaled; 0: no limit.
    pub clip_norm: f64,
    /// Number of epochs from one validation to the next.
    pub validate_every_epochs: u64,
    /// Number of episodes on the held-out scans; their mean loss is the validation loss.
    pub validation_episodes: u64,
    /// How many bits a number of the finished weights takes; checkpoints keep all of them.
    pub weights_precision: weights::Precision,
    /// Number of epochs from one permanent checkpoint to the next; `last` and `best` are written besides.
    pub checkpoint_every_epochs: u64,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
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
            return refuse(
                "initial_weights",
                "random, generalist or the path of a .safetensors file",
                "nothing".to_owned(),
            );
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

    /// Number of steps of the whole training.
    pub fn steps(&self) -> u64 {
        self.epochs * self.iterations_per_epoch
    }
}

/// All settings that determine the weights, given the scans.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingConfig {
    /// Section `[training]`.
    pub training: Config,
    /// Section `[episode]`.
    pub episode: episode::Config,
    /// Section `[augment]`.
    pub augment: augment::Config,
    /// Section `[loss]`.
    pub loss: loss::Config,
    /// Generated anatomies, where they are the source of episodes.
    pub generated: synthesis::Generator,
    /// The admissible content of episodes.
    pub rules: episode::Rules,
}

impl TrainingConfig {
    /// An episode of `scans`, whose `candidates` are given, or of generated anatomies where these are the source; `None` if none could be
    /// made.
    pub fn episode(
        &self,
        rng: &mut impl Rng,
        (scans, candidates): (&[Scan], &Candidates),
        config: &episode::Config,
        augment: &augment::Config,
    ) -> Option<Episode> {
        if self.rules.supervision.source == Source::Generated {
            return self.generated.episode(rng, config, augment);
        }
        let draw = episode::draw(rng, candidates, config)?;
        Episode::make(scans, &draw, config, augment, rng)
    }
}
