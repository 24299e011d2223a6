//! Gradients that libtorch cannot find by itself, since it has not seen how the scores were made.

use super::simd::{self, Rows};
use crate::tensor::{filled, floats};
use tch::Tensor;

/// Remembers what was computed outside libtorch, so that the backward pass can go through it:
///
/// ```text
/// let mut tape = Tape::default();
/// let scores = simd::scores(&features, &prototypes, alpha, &mut tape);
/// loss(&scores).backward(); // as far as the scores
/// tape.backward();          // from there on
/// ```
///
/// On a GPU, or in double precision, libtorch does everything and the tape stays empty.
#[derive(Debug, Default)]
pub struct Tape {
    recorded: Vec<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    inputs: Inputs,
    /// (classes, N), without history.
    scores: Tensor,
}

#[derive(Debug)]
pub(super) struct Inputs {
    /// (N, C), with its history.
    pub(super) voxels: Tensor,
    /// The unit rows (P, C) of all classes, with their history, and where each class ends.
    rows: Tensor,
    ends: Vec<usize>,
    pub(super) alpha: f32,
}

impl Inputs {
    /// `voxels` (N, C) and the unit rows (P, C) of each class.
    pub(super) fn new(voxels: &Tensor, classes: &[Tensor], alpha: f64) -> Self {
        let ends = classes.iter().scan(0, |end, rows| {
            *end += rows.size()[0] as usize;
            Some(*end)
        });
        let (ends, rows) = (ends.collect(), Tensor::cat(classes, 0).contiguous());
        Self { voxels: voxels.contiguous(), rows, ends, alpha: alpha as f32 }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { values: floats(&self.rows), channels: self.rows.size()[1] as usize, ends: &self.ends }
    }

    fn scores(&self) -> Tensor {
        let shape = [self.ends.len() as i64, self.voxels.size()[0]];
        filled(&shape, |scores| simd::scores(floats(&self.voxels), self.rows(), self.alpha, scores))
    }

    /// The gradients of voxels and rows from those of the scores.
    fn gradients(&self, of_scores: &Tensor) -> (Tensor, Tensor) {
        let (voxels, of_scores) = (floats(&self.voxels), of_scores.contiguous());
        let mut of_rows = Vec::new();
        let of_voxels = filled(&self.voxels.size(), |of_voxels| {
            of_rows = simd::gradients(voxels, self.rows(), self.alpha, floats(&of_scores), of_voxels);
        });
        (of_voxels, filled(&self.rows.size(), |rows| rows.copy_from_slice(&of_rows)))
    }
}

impl Tape {
    /// Scores (classes, N) of `voxels` (N, C) under the unit rows (P, C) of each class: float32, on the CPU.
    pub(super) fn similarity(&mut self, voxels: &Tensor, classes: &[Tensor], alpha: f64) -> Tensor {
        let inputs = Inputs::new(voxels, classes, alpha);
        let mut scores = inputs.scores();
        if inputs.voxels.requires_grad() || inputs.rows.requires_grad() {
            scores = scores.set_requires_grad(true);
            self.recorded.push(Recorded { inputs, scores: scores.shallow_clone() });
        }
        scores
    }

    /// Takes the gradients that a backward pass has left at the recorded scores on to all that led to them.
    pub fn backward(&mut self) {
        let mut total: Option<Tensor> = None;
        for Recorded { inputs, scores } in self.recorded.drain(..).filter(|recorded| recorded.scores.grad().defined()) {
            let (of_voxels, of_rows) = inputs.gradients(&scores.grad());
            // The gradient of a . b with respect to a is b.
            let dot = |a: &Tensor, b: &Tensor| a.view(-1).dot(&b.view(-1));
            let sum = dot(&inputs.voxels, &of_voxels) + dot(&inputs.rows, &of_rows);
            total = Some(total.map_or_else(|| sum.shallow_clone(), |total| total + &sum));
        }
        if let Some(total) = total {
            total.backward();
        }
    }
}
