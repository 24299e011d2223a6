//! How long a step of a training takes here.

use super::TrainingConfig;
use super::step::{Tensors, step};
use crate::episode::Episode;
use crate::network::{self, Network};
use crate::rng;
use ndarray::Array3;
use rand::RngExt;
use std::time::Instant;
use tch::Device;

/// Seconds of a step on volumes of `size_vox`, mean over the members of the ensemble: forward, alignment and backward, of noise with as
/// many regions as an episode has.
pub fn seconds_per_step(
    network: &network::Config,
    recipe: &TrainingConfig,
    size_vox: [usize; 3],
    device: Device,
) -> f64 {
    let model = Network::new(network, device, 0);
    let members = network.features.ensemble_size;
    let seconds = |member: usize| {
        let is_whole = recipe.episode.depth_vox == 0 || member < recipe.episode.whole_volume_members;
        let depth = if is_whole { size_vox[0] } else { recipe.episode.depth_vox };
        let tensors = Tensors::new(&episode([depth, size_vox[1], size_vox[2]], recipe.episode.regions), device);
        let once = || {
            let started = Instant::now();
            let mut outcome = step(&model, &tensors, &recipe.loss, true, Some(member));
            outcome.backward();
            let _ = outcome.loss().double_value(&[]); // waits for the device
            started.elapsed().as_secs_f64()
        };
        once(); // the first one makes its plans
        once()
    };
    (0..members).map(seconds).sum::<f64>() / members as f64
}

/// Noise in which region k is a block in the k-th part of the width.
fn episode(size_vox: [usize; 3], regions: usize) -> Episode {
    let mut random = rng::stream(0, "pace", 0);
    let image = Array3::from_shape_simple_fn(size_vox, || random.random_range(-1.7..1.7f32));
    let [depth, height, width] = size_vox;
    let labels = Array3::from_shape_fn(size_vox, |(z, y, x)| {
        let inside = (depth / 4..depth.div_ceil(2).max(1)).contains(&z) && (height / 4..height / 2).contains(&y);
        if inside { 1 + (x * regions / width) as u8 } else { 0 }
    });
    Episode {
        support_image: image.clone(),
        support_labels: labels.clone(),
        query_image: image,
        query_labels: labels,
        classes: regions as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn steps_of_a_small_and_of_a_thin_volume_take_some_time() {
        let set = [
            "features.f_maps=4",
            "features.output_channels=4",
            "episode.regions=2",
            "prototypes.train_window={size=[2,4,4]}",
        ];
        let config = config::load(None, &set.map(str::to_owned)).unwrap();
        let of = |size_vox| seconds_per_step(&config.network(), &config.recipe(vec![]), size_vox, Device::Cpu);
        for size_vox in [[4, 16, 16], [1, 32, 32]] {
            let seconds = of(size_vox);
            assert!(seconds > 0.0 && seconds.is_finite(), "{seconds}");
        }
    }
}
