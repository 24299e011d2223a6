//! Constraints: what scores or labels are projected onto, whatever the evidence.

pub mod single_component;
pub mod slice_range;
pub mod volume_bounds;

use tch::Tensor;

/// A set of admissible scores on the network's grid.
pub trait Constraint {
    /// Scores (1, 1 + K, d, h, w) that meet the constraint; those that do stay as they are. `is_last`: no further round follows.
    fn project(&self, scores: Tensor, is_last: bool) -> Tensor;
}

/// How far one channel of scores (1, 1 + K, d, h, w) is above the greatest other one, (1, 1, d, h, w).
pub(super) fn margin(scores: &Tensor, channel: i64) -> Tensor {
    scores.narrow(1, channel, 1) - greatest_other(scores, channel)
}

/// The greatest score beside that of one channel, (1, 1, d, h, w).
pub(super) fn greatest_other(scores: &Tensor, channel: i64) -> Tensor {
    let channel = Tensor::from(channel).view(1).to_device(scores.device());
    scores.index_fill(1, &channel, f64::NEG_INFINITY).amax([1i64].as_slice(), true)
}
