//! Supervoxels of a volume on the network's grid: in the rounds at test their voxels decide partly together.

use crate::supervoxels::{felzenszwalb, to_unit_range};
use crate::tensor::to_voxels;
use tch::{Device, Tensor};

/// What a step across slices costs beside one within: on the grids of the recipes slices lie some three times as far apart as voxels.
const SLICE_STEP: f64 = 3.0;
/// Intensities above this percentile count as equal to it.
const CLIP_PERCENTILE: f64 = 99.5;
const SCALE: f64 = 1.0;
/// Voxels of the network's grid that a supervoxel has at least, as a share of it (1000 of 24 x 96 x 96).
const LEAST_SHARE: f64 = 0.0045;

/// The supervoxel of each voxel of a map of d x h x w, from 0, in a volume (1, 1, D, H, W): that at its middle, (d h w).
pub fn of(image: &Tensor, size_vox: [i64; 3]) -> Tensor {
    let voxels = to_voxels(&image.to_device(Device::Cpu));
    let shape: [usize; 3] = voxels.dim().into();
    let least = (LEAST_SHARE * voxels.len() as f64).round().max(1.0) as usize;
    let config = felzenszwalb::Config { scale: SCALE, min_size_vox: least, min_size_2d_vox: least };
    let unit = to_unit_range(&voxels, CLIP_PERCENTILE) * 255.0;
    let labels = felzenszwalb::segment(unit.view(), [SLICE_STEP, 1.0, 1.0], None, &config);
    let map = size_vox.map(|n| n as usize);
    let middle = |axis: usize, i: usize| (2 * i + 1) * shape[axis] / (2 * map[axis]);
    let region = |(z, y, x)| i64::from(labels[[middle(0, z), middle(1, y), middle(2, x)]]);
    let of_map: Vec<i64> = ndarray::indices(map).into_iter().map(region).collect();
    Tensor::from_slice(&of_map).to_device(image.device())
}

/// Scores (1, 1 + K, d, h, w) with `weight` times the mean of each voxel's region (d h w) added.
pub fn pooled(scores: &Tensor, regions: &Tensor, weight: f64) -> Tensor {
    let classes = scores.size()[1];
    let flat = scores.reshape([classes, -1]);
    let sizes = regions.bincount(None::<Tensor>, 0);
    let sums = Tensor::zeros([classes, sizes.size()[0]], (scores.kind(), scores.device()));
    let means = sums.index_add(1, regions, &flat) / sizes.clamp_min(1).to_kind(scores.kind());
    (flat + means.index_select(1, regions) * weight).view_as(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// A bright half in the middle of a grey volume.
    fn image(size: [i64; 3]) -> Tensor {
        let image = Tensor::zeros([1, 1, size[0], size[1], size[2]], (Kind::Float, Device::Cpu));
        let _ = image.narrow(4, size[2] / 2, size[2] - size[2] / 2).fill_(1.0);
        image
    }

    #[test]
    fn regions_follow_the_image_at_the_resolution_of_the_map() {
        for (size, map) in [([4, 16, 16], [4, 8, 8]), ([4, 16, 16], [4, 16, 16]), ([5, 12, 20], [2, 4, 10])] {
            let regions = of(&image(size), map).view(map);
            let half = |from: i64| regions.narrow(2, from, map[2] / 2);
            for from in [0, map[2] / 2] {
                assert_eq!(half(from).min().int64_value(&[]), half(from).max().int64_value(&[]), "{size:?}");
            }
            assert_ne!(half(0).max().int64_value(&[]), half(map[2] / 2).max().int64_value(&[]), "{size:?}");
        }
    }

    #[test]
    fn the_mean_of_a_region_is_added_to_its_voxels() {
        let scores = Tensor::from_slice(&[1.0f32, 3.0, 5.0, 0.0, 0.0, 6.0]).view([1, 2, 1, 1, 3]);
        let regions = Tensor::from_slice(&[2i64, 2, 0]);
        let expected = Tensor::from_slice(&[2.0f32, 4.0, 7.5, 0.0, 0.0, 9.0]).view([1, 2, 1, 1, 3]);
        assert!((pooled(&scores, &regions, 0.5) - expected).abs().max().double_value(&[]) < 1e-6);
    }
}
