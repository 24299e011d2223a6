//! Validation on held-out scans: loss and Dice on their supervoxels and, for the log only, Dice on their annotated
//! organs.

use super::TrainingConfig;
use super::step::{Tensors, step};
use crate::episode::{Candidates, Rules, Scan};
use crate::inference::{self, NetworkVolume, Shot};
use crate::metrics;
use crate::network::Network;
use crate::rng;
use crate::similarity::argmax;
use crate::tensor::{from_classes, from_voxels};
use ndarray::Array3;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Tensor, no_grad};

/// An annotated scan on the working grid, `[z, y, x]`.
#[derive(Debug)]
pub struct Annotated {
    /// Distance between voxels along z, y, x, in nominal millimetres.
    pub spacing_mm: [f64; 3],
    /// Intensities.
    pub image: Array3<f32>,
    /// Class indices 0 ..= K.
    pub classes: Array3<u8>,
}

/// Scans with organs for the log: one support, some queries, K classes.
#[derive(Debug)]
pub struct Organs {
    /// The support.
    pub support: Annotated,
    /// The queries.
    pub queries: Vec<Annotated>,
    /// Number of classes K.
    pub count: u8,
}

/// Breaks on a request to stop.
fn go_on(stop: &AtomicBool) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Mean loss and mean Dice over the same episodes on each call; `None` without any episode.
///
/// Breaks on a request to stop.
pub fn on_supervoxels(
    model: &Network,
    scans: &[Scan],
    recipe: &TrainingConfig,
    stop: &AtomicBool,
) -> ControlFlow<(), Option<(f64, f64)>> {
    let config = recipe.episode.of_member(0); // one kind of episode for all members
    let candidates = Candidates::new(scans, &config, &Rules::unlabelled());
    let (mut losses, mut dices) = (Vec::new(), Vec::new());
    for index in 0..recipe.training.validation_episodes {
        go_on(stop)?;
        let mut rng = rng::stream(recipe.training.seed, "validation", index);
        let made = recipe.episode(&mut rng, (scans, &candidates), &config, &recipe.augment);
        let Some(episode) = made else { continue };
        let tensors = Tensors::new(&episode, model.device());
        let outcome = no_grad(|| step(model, &tensors, &recipe.loss, false, None));
        losses.push(outcome.segmentation.double_value(&[]));
        dices.extend(dice(&argmax(&outcome.scores), &episode.query_labels));
    }
    ControlFlow::Continue(mean(&losses).zip(mean(&dices)))
}

/// Mean Dice of the organs over the queries on the working grid; `None` without any score.
pub fn on_organs(
    model: &Network,
    inference: &inference::Config,
    organs: &Organs,
    stop: &AtomicBool,
) -> ControlFlow<(), Option<f64>> {
    let Organs { support, queries, count } = organs;
    let image = |scan: &Annotated| from_voxels(scan.image.view());
    let shot = Shot::new(image(support), from_classes(support.classes.view()));
    let scorer = inference::scorer(model, inference, &[shot], usize::from(*count));
    let volume = |scan: &Annotated| NetworkVolume { image: image(scan), spacing_mm: scan.spacing_mm };
    let mut dices = Vec::new();
    for query in queries {
        go_on(stop)?;
        dices.extend(dice(&argmax(&scorer.scores(&volume(query))), &query.classes));
    }
    ControlFlow::Continue(mean(&dices))
}

/// Dice of each class that the truth shows.
fn dice(predicted: &Tensor, truth: &Array3<u8>) -> Vec<f64> {
    let predicted = crate::tensor::to_voxels(predicted).mapv(|class| class as i32);
    let truth = truth.mapv(i32::from);
    let classes = truth.iter().copied().max().unwrap_or(0);
    (1..=classes).filter_map(|class| metrics::dice(predicted.view(), truth.view(), class)).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
