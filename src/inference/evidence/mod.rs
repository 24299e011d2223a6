//! Evidence E_e,c(x): what is added to the scores of a volume, each with its weight.

pub mod intensity;
pub mod spatial_prior;
pub mod supervoxels;

use tch::Tensor;

/// One term of the scores on the network's grid.
pub trait Evidence {
    /// Scores (1, 1 + K, d, h, w) with the evidence, times its weight, added.
    fn add(&self, scores: Tensor) -> Tensor;
}
