//! Evidence: the mean score of a voxel's supervoxel, on the network's grid. On the scan's own grid [`GridScores`] adds it, too, by the
//! same code.

use super::Evidence;
use crate::error::Result;
use crate::inference::config::check_range;
use crate::inference::native::GridScores;
use crate::inference::supports::NetworkVolume;
use crate::preprocessing::WorkingGrid;
use crate::prototypes::Competition;
use crate::supervoxels::{felzenszwalb, to_unit_range};
use crate::tensor::{from_floats, to_channels, to_voxels};
use ndarray::Array3;
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

/// Felzenszwalb's k on intensities from 0 to 255.
const SCALE: f64 = 1.0;

/// The supervoxel of each voxel of a map of d x h x w, from 0, in a volume of the network's grid: that at its middle.
pub fn on_map(volume: &NetworkVolume, size_vox: [i64; 3], config: &Config) -> Array3<i32> {
    let NetworkVolume { image, spacing_mm } = volume;
    let voxels = to_voxels(&image.to_device(Device::Cpu));
    let shape: [usize; 3] = voxels.dim().into();
    let graph =
        felzenszwalb::Config { scale: SCALE, min_size_fraction: config.network_min_fraction, min_size_2d_vox: 1 };
    let unit = to_unit_range(&voxels, config.network_clip_percentile) * 255.0;
    let labels = felzenszwalb::segment(unit.view(), *spacing_mm, None, &graph);
    let map = size_vox.map(|n| n as usize);
    let middle = |axis: usize, i: usize| (2 * i + 1) * shape[axis] / (2 * map[axis]);
    Array3::from_shape_fn(map, |(z, y, x)| labels[[middle(0, z), middle(1, y), middle(2, x)]])
}

/// `weight` times the mean score of each voxel's supervoxel.
pub struct SupervoxelMean<'a> {
    /// The supervoxel of each voxel of the map, from 0.
    pub labels: &'a Array3<i32>,
    /// Beside 1 of the voxel's own score.
    pub weight: f64,
}

impl Evidence for SupervoxelMean<'_> {
    fn add(&self, scores: Tensor) -> Tensor {
        let (depth, height, width) = self.labels.dim();
        let grid = WorkingGrid::whole([depth, height, width]);
        let added = GridScores::new(&grid, to_channels(&scores), Competition::Joint)
            .with_supervoxel_mean(self.labels.view(), self.weight);
        let values: Vec<f32> = (0..scores.size()[1]).flat_map(|channel| added.of(channel as usize, 0.0)).collect();
        from_floats(&values, &scores.size()).to_device(scores.device()).to_kind(scores.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;
    use tch::Kind;

    const CONFIG: Config = Config {
        network_weight: 1.0,
        native_weight: 1.0,
        network_min_fraction: 0.0045,
        network_clip_percentile: 99.5,
        max_vox: 8_000_000,
    };

    /// A bright half in the middle of a grey volume.
    fn image(size: [i64; 3]) -> NetworkVolume {
        let image = Tensor::zeros([1, 1, size[0], size[1], size[2]], (Kind::Float, Device::Cpu));
        let _ = image.narrow(4, size[2] / 2, size[2] - size[2] / 2).fill_(1.0);
        NetworkVolume { image, spacing_mm: [3.0, 1.0, 1.0] }
    }

    #[test]
    fn regions_follow_the_image_at_the_resolution_of_the_map() {
        for (size, map) in [([4, 16, 16], [4, 8, 8]), ([4, 16, 16], [4, 16, 16]), ([5, 12, 20], [2, 4, 10])] {
            let regions = on_map(&image(size), map, &CONFIG);
            let middle = map[2] as usize / 2;
            let first = [0, middle].map(|x| regions[[0, 0, x]]);
            assert!(regions.indexed_iter().all(|((.., x), &r)| r == first[usize::from(x >= middle)]), "{size:?}");
            assert_ne!(first[0], first[1], "{size:?}");
        }
    }

    #[test]
    fn the_mean_of_a_region_is_added_to_its_voxels() {
        let scores = Tensor::from_slice(&[1.0f32, 3.0, 5.0, 0.0, 0.0, 6.0]).view([1, 2, 1, 1, 3]);
        let regions = Array3::from_shape_vec((1, 1, 3), vec![2, 2, 0]).unwrap();
        let expected = Tensor::from_slice(&[2.0f32, 4.0, 7.5, 0.0, 0.0, 9.0]).view([1, 2, 1, 1, 3]);
        assert!(
            (SupervoxelMean { labels: &regions, weight: 0.5 }.add(scores) - expected).abs().max().double_value(&[])
                < 1e-6
        );
    }

    /// In noise a supervoxel reaches across slices as far as their distance lets it.
    #[test]
    fn the_distance_of_slices_counts() {
        let mut rng = rng::stream(0, "supervoxels of the network's grid", 0);
        let values: Vec<f32> = (0..6 * 24 * 24).map(|_| rng.random_range(0.0..1.0)).collect();
        let of = |slice_mm: f64| {
            let volume =
                NetworkVolume { image: from_floats(&values, &[1, 1, 6, 24, 24]), spacing_mm: [slice_mm, 1.0, 1.0] };
            on_map(&volume, [6, 24, 24], &CONFIG)
        };
        let scaled = NetworkVolume { image: from_floats(&values, &[1, 1, 6, 24, 24]), spacing_mm: [36.0, 12.0, 12.0] };
        assert_ne!(of(1.0), of(3.0));
        assert_eq!(of(3.0), on_map(&scaled, [6, 24, 24], &CONFIG), "the unit of length does not");
    }
}
