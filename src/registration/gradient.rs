//! The second step: displacements by gradient descent.

use super::{Config, identity, onto, sample, size_of, smoothed};
use tch::nn::{self, OptimizerConfig};
use tch::{Kind, Tensor, no_grad, with_grad};

/// Voxels of the fine grid a step, at first.
const LEARNING_RATE: f64 = 1.0;
/// The field is that of its control points after so many passes of [`smoothed`]: a cubic B-spline.
const PASSES: usize = 3;

/// Displacements (1, 3, d, h, w) on the grid of `fixed` and `moving`, in its voxels, from those of another grid.
///
/// Adam on the sum over the channels of the squared differences plus the differences between neighbouring displacements, means over voxels
/// (Siebert et al. 2021).
pub fn displacements(fixed: &Tensor, moving: &Tensor, start: &Tensor, config: &Config) -> Tensor {
    let size = size_of(fixed);
    let places = identity(size, fixed.device());
    let variables = nn::VarStore::new(fixed.device());
    let points = variables.root().zeros("displacements", &[1, 3, size[0], size[1], size[2]]);
    no_grad(|| points.shallow_clone().copy_(&onto(start, size)));
    let mut adam = nn::Adam::default().build(&variables, LEARNING_RATE).expect("a variable");
    let channels = fixed.size()[1] as f64;
    for _ in 0..config.iterations {
        with_grad(|| {
            let field = smoothed(&points, PASSES);
            let unlike = (sample(moving, &(&places + &field)) - fixed).square().mean(Kind::Float) * channels;
            adam.backward_step(&(unlike + roughness(&field) * config.smoothness));
        });
    }
    no_grad(|| smoothed(&points, PASSES)).detach()
}

/// Squared differences between neighbours, their means along the three axes added up.
fn roughness(field: &Tensor) -> Tensor {
    let along = |axis: i64| field.diff(1, axis, None::<&Tensor>, None::<&Tensor>).square().mean(Kind::Float);
    along(2) + along(3) + along(4)
}
