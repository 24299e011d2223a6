//! Deformable registration: which place in one scan shows what a place in another does. Nothing is trained.
//!
//! 1. [`descriptors`]: what surrounds a voxel, whatever the modality (MIND, Heinrich et al. 2013).
//! 2. `convex.rs`: all displacements of a coarse grid are compared, and a smooth choice among them is made (Siebert et al. 2021,
//!    "ConvexAdam").
//! 3. `gradient.rs`: the displacements are refined by gradient descent on a finer grid (the same).
//!
//! A field is a tensor (1, 3, d, h, w) of displacements along z, y, x: what the fixed scan shows at x lies at x + u(x) of the moving one.
//! Outside of this module they are fractions of the scan's extent, so that a field serves grids of any size.

mod convex;
mod descriptors;
mod gradient;
mod slopes;

pub use descriptors::descriptors;

use crate::error::{Error, Result};
use crate::tensor::from_floats;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// Section `[inference.registration]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether the labels of the supports are carried to a query.
    pub enabled: bool,
    /// Both scans are brought to so many voxels along z, y, x.
    pub size_vox: [usize; 3],
    /// Displacements of the first step reach to this fraction of the grid along each axis.
    pub reach_fraction: f64,
    /// Steps of the refinement. Half as many come before, for [`Config::map_intensities`].
    pub iterations: usize,
    /// Weight of the squared differences between neighbouring displacements in the refinement.
    pub smoothness: f64,
    /// Weight of the squared differences between the probabilities of the classes by the network, beside those of the [`descriptors`].
    pub network_weight: f64,
    /// Whether the network sees a query with the contrast of the supports that are registered to it.
    pub map_intensities: bool,
}

impl Config {
    /// The most memory that [`descriptors`] and [`register`] hold.
    pub fn bytes(&self) -> u64 {
        if !self.enabled {
            return 0;
        }
        let volume = |size: [usize; 3]| size.iter().product::<usize>() as f64;
        let coarse = self.size_vox.map(|n| n / COARSE_VOX as usize);
        let steps = volume(coarse.map(|n| 2 * (n as f64 * self.reach_fraction).round() as usize + 1));
        let floats = DESCRIBING * volume(self.size_vox) + 3.0 * steps * volume(coarse);
        (4.0 * floats) as u64
    }

    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("inference.registration.{key}"), expected, found, "change this key"))
        };
        if self.size_vox.iter().any(|n| !(8..=256).contains(n)) {
            return fault("size_vox", "three sizes z y x from 8 to 256", format!("{:?}", self.size_vox));
        }
        if !(0.0..=0.5).contains(&self.reach_fraction) {
            return fault("reach_fraction", "a fraction from 0 to 0.5", self.reach_fraction.to_string());
        }
        if self.iterations > 10_000 {
            return fault("iterations", "at most 10000", self.iterations.to_string());
        }
        for (key, weight) in [("smoothness", self.smoothness), ("network_weight", self.network_weight)] {
            if !(0.0..=1e6).contains(&weight) {
                return fault(key, "a number from 0 to 1e6", weight.to_string());
            }
        }
        Ok(())
    }
}

/// Maps of the full size that are held while patches are compared: patches, their distances, sums of these, descriptors.
const DESCRIBING: f64 = 50.0;
/// Distance between the voxels of the coarse grid, in voxels ...
const COARSE_VOX: i64 = 4;
/// ... and of that of the refinement.
const FINE_VOX: i64 = 2;

/// A volume (1, C, D, H, W) in the voxels of a scan on the grid of the refinement: means over the voxels.
pub fn on_fine_grid(volume: &Tensor) -> Tensor {
    volume.adaptive_avg_pool3d(size_of(volume).map(|n| (n / FINE_VOX).max(2)))
}

/// The field that brings `moving` onto `fixed`, [`descriptors`] of two scans of one size, and what else tells of their places as further
/// channels [`on_fine_grid`].
///
/// ```
/// use ssl3d::registration::{Config, descriptors, register, warp};
/// use tch::{Device, Kind, Tensor};
/// let config = Config { enabled: true, size_vox: [24; 3], reach_fraction: 0.25, iterations: 50, smoothness: 1.0, network_weight: 0.0, map_intensities: false };
/// let steps = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu));
/// // A ball about the middle, and the same ball four voxels further along x.
/// let ball = |x: f64| {
///     let along = |at: f64, shape: [i64; 3]| (steps(24) - at).square().view(shape);
///     let distance = (along(11.5, [24, 1, 1]) + along(11.5, [1, 24, 1]) + along(x, [1, 1, 24])).sqrt();
///     let inside: Tensor = 6.0 - distance;
///     inside.sigmoid().view([1, 1, 24, 24, 24])
/// };
/// let (fixed, moving) = (ball(9.5), ball(13.5));
/// let field = register(&descriptors(&fixed), &descriptors(&moving), &config);
/// let off = |volume: &Tensor| (volume - &fixed).abs().mean(Kind::Float).double_value(&[]);
/// let (before, after) = (off(&moving), off(&warp(&moving, &field, [24; 3])));
/// assert!(after < 0.5 * before, "{before} {after}");
/// ```
pub fn register(fixed: &Tensor, moving: &Tensor, config: &Config) -> Tensor {
    let size = size_of(fixed);
    assert_eq!(size, size_of(moving), "grids of one size");
    let coarse = no_grad(|| convex::displacements(fixed, moving, COARSE_VOX / FINE_VOX, config.reach_fraction));
    refine(fixed, moving, &(&coarse / sizes(&coarse)), config)
}

/// A better field than `start`, which is one of [`register`] for other descriptions of the same scans.
pub fn refine(fixed: &Tensor, moving: &Tensor, start: &Tensor, config: &Config) -> Tensor {
    let start = start * sizes(start);
    let refined = gradient::displacements(fixed, moving, &start, config);
    no_grad(|| &refined / sizes(&refined))
}

/// A volume (1, C, D, H, W) of the moving scan as the fixed one shows it on a grid of `size_vox`, linearly; beyond the border its last values
/// go on. `field` is that of [`register`].
pub fn warp(volume: &Tensor, field: &Tensor, size_vox: [i64; 3]) -> Tensor {
    Places::new(field, size_vox).of(volume)
}

/// What a field says of each voxel of a grid; [`warp`] for several volumes.
pub struct Places {
    /// (1, D, H, W, 3), x first, from -1 to 1 along an axis.
    at: Tensor,
}

impl Places {
    /// See [`warp`].
    pub fn new(field: &Tensor, size_vox: [i64; 3]) -> Self {
        let field = field.upsample_trilinear3d(size_vox, false, None, None, None);
        Self::at_fractions(&((identity(size_vox, field.device()) + 0.5) / sizes(&field) + &field))
    }

    /// (1, 3, d, h, w) along z, y, x.
    fn at_fractions(places: &Tensor) -> Self {
        Self { at: (places * 2.0 - 1.0).flip([1i64]).permute([0, 2, 3, 4, 1]) }
    }

    /// The values of a volume (1, C, D, H, W) there: (1, C, d, h, w).
    pub fn of(&self, volume: &Tensor) -> Tensor {
        // libtorch samples the volumes of a batch in parallel: some slices of the places for each.
        const MOST_PARTS: i64 = 8;
        let (_, d, h, w, _) = self.at.size5().expect("(1, D, H, W, 3)");
        let parts = (1..=MOST_PARTS).rev().find(|parts| d % parts == 0).unwrap_or(1);
        let ([depth, height, width], channels) = (size_of(volume), volume.size()[1]);
        let (linear, border) = (0, 1);
        let of_parts = volume.expand([parts, channels, depth, height, width], false);
        let sampled = of_parts.grid_sampler(&self.at.reshape([parts, d / parts, h, w, 3]), linear, border, false);
        sampled.transpose(0, 1).reshape([1, channels, d, h, w])
    }
}

/// The field that leads through another scan: `first` brings that one onto the fixed scan, and `second` the moving one onto it.
pub fn compose(first: &Tensor, second: &Tensor) -> Tensor {
    first + warp(second, first, size_of(first))
}

fn size_of(volume: &Tensor) -> [i64; 3] {
    let size = volume.size();
    [size[2], size[3], size[4]]
}

/// Voxels along z, y, x, (1, 3, 1, 1, 1).
fn sizes(volume: &Tensor) -> Tensor {
    let sizes = size_of(volume).map(|n| n as f32);
    Tensor::from_slice(&sizes).view([1, 3, 1, 1, 1]).to_device(volume.device())
}

/// Displacements in voxels on another grid over the same extent, in its voxels.
fn onto(displacements: &Tensor, size: [i64; 3]) -> Tensor {
    let resized = displacements.upsample_trilinear3d(size, false, None, None, None);
    &resized * sizes(&resized) / sizes(displacements)
}

/// The place of each voxel, (1, 3, D, H, W).
fn identity(size: [i64; 3], device: Device) -> Tensor {
    let along: Vec<Tensor> = size.iter().map(|&n| Tensor::arange(n, (Kind::Float, device))).collect();
    Tensor::stack(&Tensor::meshgrid_indexing(&along, "ij"), 0).unsqueeze(0)
}

/// The values of a volume (1, C, D, H, W) at places (1, 3, d, h, w) in its voxels: (1, C, d, h, w).
fn sample(volume: &Tensor, places: &Tensor) -> Tensor {
    Places::at_fractions(&((places + 0.5) / sizes(volume))).of(volume)
}

/// Means over boxes of three voxels, so many times; beyond the border the last values go on.
struct Smoother {
    /// What each voxel along an axis takes from the others, (n, n) for z, y, x.
    along: [Tensor; 3],
}

impl Smoother {
    fn new(size: [i64; 3], passes: i64, device: Device) -> Self {
        let along = |n: i64| {
            let mut means = vec![0f32; (n * n) as usize];
            for (to, from) in (0..n).flat_map(|to| (to - 1..=to + 1).map(move |from| (to, from.clamp(0, n - 1)))) {
                means[(to * n + from) as usize] += 1.0 / 3.0;
            }
            from_floats(&means, &[n, n]).matrix_power(passes).to_device(device)
        };
        Self { along: size.map(along) }
    }

    /// A volume (1, C, D, H, W).
    fn smoothed(&self, volume: &Tensor) -> Tensor {
        let [z, y, x] = &self.along;
        let in_slices = y.matmul(&volume.matmul(&x.tr()));
        z.matmul(&in_slices.flatten(3, 4)).view_as(volume)
    }
}

#[cfg(test)]
mod tests;
