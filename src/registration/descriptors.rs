//! What surrounds a voxel, as numbers that do not depend on the modality.

use super::{Smoother, on_fine_grid, size_of};
use tch::{Kind, Tensor, no_grad};

/// Pairs of patches that do not face each other.
pub const CHANNELS: i64 = 12;
/// Distance of the six patches from the voxel, in voxels.
const DISTANCE_VOX: i64 = 1;
/// The variance is kept between these multiples of its mean.
const VARIANCE: [f64; 2] = [1e-3, 1e3];

/// Self-similarities of an image (1, 1, D, H, W) [`on_fine_grid`]: (1, 12, d, h, w) in [0, 1]. Six patches lie about a voxel along the axes;
/// each channel says how alike two of them are that do not face each other (MIND-SSC: Heinrich et al. 2013, "Towards realtime multimodal
/// fusion for image-guided interventions using self-similarities").
pub fn descriptors(image: &Tensor) -> Tensor {
    no_grad(|| {
        let size = size_of(image);
        let padded = image.pad([DISTANCE_VOX; 6], "replicate", None);
        let patch = |axis: usize, side: i64| {
            let first = |of: usize| DISTANCE_VOX + if of == axis { side * DISTANCE_VOX } else { 0 };
            (0..3).fold(padded.shallow_clone(), |volume, of| volume.narrow(2 + of as i64, first(of), size[of]))
        };
        let patches: Vec<(usize, Tensor)> =
            (0..3).flat_map(|axis| [-1, 1].map(|side| (axis, patch(axis, side)))).collect();
        let pairs = (0..6).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|&(a, b)| patches[a].0 != patches[b].0);
        let distances: Vec<Tensor> = pairs.map(|(a, b)| (&patches[a].1 - &patches[b].1).square()).collect();
        let distances = Smoother::new(size, 1, image.device()).smoothed(&Tensor::cat(&distances, 1));
        let above_least = &distances - distances.amin([1i64].as_slice(), true);
        let variance = above_least.mean_dim([1i64].as_slice(), true, Kind::Float);
        let mean = variance.mean(Kind::Double).double_value(&[]).max(f64::from(f32::MIN_POSITIVE));
        let [least, most] = VARIANCE.map(|factor| factor * mean);
        on_fine_grid(&(-above_least / variance.clamp(least, most)).exp())
    })
}
