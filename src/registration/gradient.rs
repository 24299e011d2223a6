//! The second step: displacements by gradient descent.

use super::slopes::Pair;
use super::{Config, Smoother, identity, onto, sample, size_of};
use tch::nn::{self, OptimizerConfig};
use tch::{Kind, Tensor, no_grad, with_grad};

/// Voxels of the fine grid a step, at first.
const LEARNING_RATE: f64 = 1.0;
/// The field is that of its control points after so many passes of a [`Smoother`]: a cubic B-spline.
const PASSES: i64 = 3;

/// Displacements (1, 3, d, h, w) on the grid of `fixed` and `moving`, in its voxels, from those of another grid.
///
/// Adam on the sum over the channels of the squared differences plus the differences between neighbouring displacements, means over voxels
/// (Siebert et al. 2021).
pub fn displacements(fixed: &Tensor, moving: &Tensor, start: &Tensor, config: &Config) -> Tensor {
    let size = size_of(fixed);
    let (places, smoother) = (identity(size, fixed.device()), Smoother::new(size, PASSES, fixed.device()));
    let variables = nn::VarStore::new(fixed.device());
    let points = variables.root().zeros("displacements", &[1, 3, size[0], size[1], size[2]]);
    no_grad(|| points.shallow_clone().copy_(&onto(start, size)));
    let mut adam = nn::Adam::default().build(&variables, LEARNING_RATE).expect("a variable");
    let (pair, voxels) = (Pair::new(fixed, moving), size.iter().product::<i64>() as f64);
    for _ in 0..config.iterations {
        with_grad(|| {
            let field = smoother.smoothed(&points);
            let unlike = match &pair {
                // Its gradient, not its value, is that of the differences.
                Some(pair) => (&field * pair.slopes(&field.detach())).sum(Kind::Float),
                None => (sample(moving, &(&places + &field)) - fixed).square().sum(Kind::Float),
            };
            adam.backward_step(&(unlike / voxels + roughness(&field) * config.smoothness));
        });
    }
    no_grad(|| smoother.smoothed(&points)).detach()
}

/// Squared differences between neighbours, their means along the three axes added up.
fn roughness(field: &Tensor) -> Tensor {
    let along = |axis: i64| field.diff(1, axis, None::<&Tensor>, None::<&Tensor>).square().mean(Kind::Float);
    along(2) + along(3) + along(4)
}
