//! Evidence: the mean score of a voxel's supervoxel, on the network's grid and on the scan's.

use super::Evidence;
use crate::error::Result;
use crate::inference::config::check_range;
use crate::supervoxels::{felzenszwalb, to_unit_range};
use crate::tensor::to_voxels;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Section `[inference.supervoxels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of the mean score beside the voxel's own on the network's grid, in all rounds but the last; 0 computes no supervoxels.
    pub network_weight: f64,
    /// The same on the scan's grid, after the last round, with supervoxels of section `[supervoxels]`.
    pub native_weight: f64,
    /// Size of the smallest supervoxel of the network's grid, as a fraction of the grid.
    pub network_min_fraction: f64,
    /// On the network's grid intensities above this percentile count as equal to it.
    pub network_clip_percentile: f64,
    /// A scan of more voxels than these is averaged in-plane before its supervoxels are computed.
    pub max_vox: usize,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("supervoxels.network_weight", self.network_weight, 0.0..=1e3)?;
        check_range("supervoxels.native_weight", self.native_weight, 0.0..=1e3)?;
        check_range("supervoxels.network_min_fraction", self.network_min_fraction, 0.0..=1.0)?;
        check_range("supervoxels.network_clip_percentile", self.network_clip_percentile, 1.0..=100.0)?;
        check_range("supervoxels.max_vox", self.max_vox, 1000..=usize::MAX)
    }
}

/// The weight of an edge of the graph across slices is divided by this, beside 1 within a slice.
const SLICE_STEP: f64 = 3.0;
/// Felzenszwalb's k on intensities from 0 to 255.
const SCALE: f64 = 1.0;

/// The supervoxel of each voxel of a map of d x h x w, from 0, in a volume (1, 1, D, H, W): that at its middle, (d h w).
pub fn on_map(image: &Tensor, size_vox: [i64; 3], config: &Config) -> Tensor {
    let voxels = to_voxels(&image.to_device(Device::Cpu));
    let shape: [usize; 3] = voxels.dim().into();
    let least = (config.network_min_fraction * voxels.len() as f64).round().max(1.0) as usize;
    let graph = felzenszwalb::Config { scale: SCALE, min_size_vox: least, min_size_2d_vox: least };
    let unit = to_unit_range(&voxels, config.network_clip_percentile) * 255.0;
    let labels = felzenszwalb::segment(unit.view(), [SLICE_STEP, 1.0, 1.0], None, &graph);
    let map = size_vox.map(|n| n as usize);
    let middle = |axis: usize, i: usize| (2 * i + 1) * shape[axis] / (2 * map[axis]);
    let region = |(z, y, x)| i64::from(labels[[middle(0, z), middle(1, y), middle(2, x)]]);
    let of_map: Vec<i64> = ndarray::indices(map).into_iter().map(region).collect();
    Tensor::from_slice(&of_map).to_device(image.device())
}

/// `weight` times the mean score of each voxel's supervoxel.
pub struct SupervoxelMean<'a> {
    /// The supervoxel of each voxel of the map, (d h w), from 0.
    pub labels: &'a Tensor,
    /// Beside 1 of the voxel's own score.
    pub weight: f64,
}

impl Evidence for SupervoxelMean<'_> {
    fn add(&self, scores: Tensor) -> Tensor {
        let classes = scores.size()[1];
        let flat = scores.reshape([classes, -1]);
        let sizes = self.labels.bincount(None::<Tensor>, 0);
        let sums = Tensor::zeros([classes, sizes.size()[0]], (scores.kind(), scores.device()));
        let means = sums.index_add(1, self.labels, &flat) / sizes.clamp_min(1).to_kind(scores.kind());
        (flat + means.index_select(1, self.labels) * self.weight).view_as(&scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    const CONFIG: Config = Config {
        network_weight: 1.0,
        native_weight: 1.0,
        network_min_fraction: 0.0045,
        network_clip_percentile: 99.5,
        max_vox: 8_000_000,
    };

    /// A bright half in the middle of a grey volume.
    fn image(size: [i64; 3]) -> Tensor {
        let image = Tensor::zeros([1, 1, size[0], size[1], size[2]], (Kind::Float, Device::Cpu));
        let _ = image.narrow(4, size[2] / 2, size[2] - size[2] / 2).fill_(1.0);
        image
    }

    #[test]
    fn regions_follow_the_image_at_the_resolution_of_the_map() {
        for (size, map) in [([4, 16, 16], [4, 8, 8]), ([4, 16, 16], [4, 16, 16]), ([5, 12, 20], [2, 4, 10])] {
            let regions = on_map(&image(size), map, &CONFIG).view(map);
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
        assert!(
            (SupervoxelMean { labels: &regions, weight: 0.5 }.add(scores) - expected).abs().max().double_value(&[])
                < 1e-6
        );
    }
}
