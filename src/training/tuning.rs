//! At test, before a support is asked: a short training on augmented copies of it, with what somebody has drawn in it as
//! the classes. The network learns what sets these organs apart in this scan; the query is not looked at.

use super::Recipe;
use super::adamw::AdamW;
use super::one_cycle::one_cycle;
use super::step::{Parts, Tensors, step};
use crate::episode::{self, Candidates, Episode, Rules, Scan, Source, supervision};
use crate::error::{Error, Result};
use crate::model::{Model, Network};
use crate::{rng, weights};
use serde::{Deserialize, Serialize};

/// Section `[tuning]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 0: the network is asked as it is.
    pub steps: u64,
    /// Peak of the 1cycle schedule.
    pub learning_rate: f64,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        if self.learning_rate > 0.0 && self.learning_rate <= 1.0 {
            return Ok(());
        }
        let found = self.learning_rate.to_string();
        Err(Error::invalid("tuning.learning_rate", "a number in (0, 1]", found, "tuning.steps = 0 switches it off"))
    }
}

/// A copy of `model` after `config.steps` steps on annotated scans (`organs` hold the classes); `show` hears of each.
/// Nothing changes where no scan shows a class, or where the network is an SE-Net, which needs another scan as query.
pub fn tune(model: &Model, supports: &[Scan], recipe: &Recipe, config: &Config, mut show: impl FnMut()) -> Model {
    let tuned = model.copy();
    let supervision = supervision::Config { source: Source::Organs, annotated_scans: 0, tested_organs: true };
    let rules = Rules { supervision, setting: 1, tested: vec![] };
    let classes = supports.iter().filter_map(|scan| scan.organs.as_ref()?.iter().copied().max()).max().unwrap_or(0);
    // Every class in every episode, however small.
    let episode = episode::Config { regions: usize::from(classes).max(1), min_size_vox: 1, ..recipe.episode.clone() };
    let candidates = Candidates::new(supports, &episode, &rules);
    if candidates.is_empty() || matches!(tuned.network, Network::SeNet(_)) {
        return tuned;
    }
    let trainable = weights::variables(&tuned.variables).into_iter().filter(|(_, v)| v.requires_grad()).collect();
    let mut adamw = AdamW::new(trainable, recipe.training.weight_decay);
    for index in 0..config.steps {
        let mut rng = rng::stream(recipe.training.seed, "tuning", index);
        let made = episode::draw(&mut rng, &candidates, &episode)
            .and_then(|draw| Episode::make(supports, &draw, &episode, &recipe.augment, &mut rng));
        show();
        let Some(made) = made else { continue };
        adamw.zero_gradients();
        let mut outcome = step(&tuned, &Tensors::new(&made, tuned.device()), &recipe.loss, Parts::default(), true);
        outcome.backward();
        let norm = f64::from(crate::tensor::to_vec(&adamw.gradient_norm())[0]);
        if !norm.is_finite() {
            continue;
        }
        if recipe.training.clip_norm > 0.0 && norm > recipe.training.clip_norm {
            adamw.scale_gradients(recipe.training.clip_norm / norm);
        }
        let (rate, beta_1) = one_cycle(index, config.steps, config.learning_rate);
        adamw.step(rate, beta_1);
    }
    tuned
}
