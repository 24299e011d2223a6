//! The first step: a smooth choice among all displacements of a coarse grid.

use super::{Smoother, descriptors, size_of};
use tch::{Kind, Tensor};

/// Weights of the distance between the choice and its smooth version, in the rounds of the optimisation (Siebert et al. 2021).
const COUPLING: [f64; 6] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

/// Displacements (1, 3, d, h, w) on a grid of one voxel for `spacing_vox` of `fixed` and `moving`, in its voxels.
///
/// min over u, v of sum_x D(x, v(x)) + c |v(x) - u(x)|^2, in turn: v is the best of all displacements within reach, u the mean of v over
/// neighbours, and c grows (coupled convex optimisation: Heinrich et al. 2014, "Non-parametric discrete registration with convex optimisation").
pub fn displacements(fixed: &Tensor, moving: &Tensor, spacing_vox: i64, reach_fraction: f64) -> Tensor {
    let size = size_of(fixed).map(|n| (n / spacing_vox).max(1));
    let [fixed, moving] = [fixed, moving].map(|volume| volume.adaptive_avg_pool3d(size));
    let reach = size.map(|n| (n as f64 * reach_fraction).round() as i64);
    let [z, y, x] = reach;
    let padded = moving.pad([x, x, y, y, z, z], "replicate", None);
    let moved = |[z, y, x]: [i64; 3]| padded.narrow(2, z, size[0]).narrow(3, y, size[1]).narrow(4, x, size[2]);
    let mut steps: Vec<[i64; 3]> =
        (0..=2 * z).flat_map(|dz| (0..=2 * y).flat_map(move |dy| (0..=2 * x).map(move |dx| [dz, dy, dx]))).collect();
    // The shortest first: of displacements that are alike, as where there is nothing to see, the first one counts.
    steps.sort_by_key(|step| (0..3).map(|axis| (step[axis] - reach[axis]).pow(2)).sum::<i64>());
    let unlike =
        |&step: &[i64; 3]| (moved(step) - &fixed).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let cost = |step: &[i64; 3]| unlike(step) / descriptors::CHANNELS as f64;
    let costs = Tensor::cat(&steps.iter().map(cost).collect::<Vec<_>>(), 0).unsqueeze(0); // (1, steps, d, h, w)
    let smoother = Smoother::new(size, 1, fixed.device());
    let costs = smoother.smoothed(&costs).view([steps.len() as i64, -1]).tr().contiguous(); // (voxels, steps)
    let moves: Vec<f32> =
        steps.iter().flat_map(|step| [0, 1, 2].map(|axis| (step[axis] - reach[axis]) as f32)).collect();
    let moves = Tensor::from_slice(&moves).view([-1, 3]).to_device(fixed.device()); // (steps, 3)
    let lengths = moves.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    let terms = Tensor::cat(&[&moves * -2.0, lengths], 1).tr(); // (4, steps)
    let smooth = |costs: &Tensor| {
        let best = moves.index_select(0, &costs.argmin(1, false)); // (voxels, 3)
        smoother.smoothed(&best.tr().reshape([1, 3, size[0], size[1], size[2]]))
    };
    COUPLING.iter().fold(smooth(&costs), |found, &coupling| {
        // |v - u|^2 without |u|^2, which is the same for all v.
        let found = found.view([3, -1]).tr();
        let found = Tensor::cat(&[&found, &found.narrow(1, 0, 1).ones_like()], 1) * coupling; // (voxels, 4)
        smooth(&costs.addmm(&found, &terms))
    })
}
