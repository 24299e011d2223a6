//! Simple linear iterative clustering (Achanta et al., *SLIC superpixels compared to state-of-the-art superpixel
//! methods*, TPAMI 2012), in 3D and in millimetres.
//!
//! Differences from the paper: grey values instead of CIELAB, so D has one intensity term; the search covers 2S to
//! either side of a centre, so that no voxel falls between the windows when centres drift; the iteration stops when the
//! centres rest; and small components join the neighbour with the longest border instead of any neighbour.

use super::seeds::{Centre, Grid, seed};
use super::tiles::{Sums, Tiles};
use crate::components::{Neighbourhood, join_small};
use crate::error::{Error, Result};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

/// Section `[supervoxels.slic]` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of regions to aim for; the grid with equal steps in millimetres whose number of seeds is closest is
    /// taken.
    pub k: usize,
    /// m: the intensity difference (on a range of 1) that weighs as much as the distance of one grid step.
    pub compactness: f64,
    /// Largest number of assignment rounds, 1 to 10.
    pub iterations: usize,
    /// Connected components below this fraction of the mean region size join a neighbour.
    pub min_size_fraction: f64,
    /// The iteration ends when the mean movement of the centres is no more than this many voxels.
    pub tolerance_vox: f64,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("supervoxels.slic.{key}"), expected, found, "change it in the configuration"))
        };
        match self {
            _ if self.k == 0 => refuse("k", "at least 1 region", "0".into()),
            _ if !(self.compactness.is_finite() && self.compactness > 0.0) => {
                refuse("compactness", "a number above 0", self.compactness.to_string())
            }
            _ if !(1..=10).contains(&self.iterations) => refuse("iterations", "1 to 10", self.iterations.to_string()),
            _ if !(0.0..=1.0).contains(&self.min_size_fraction) => {
                refuse("min_size_fraction", "a fraction from 0 to 1", self.min_size_fraction.to_string())
            }
            _ if !(self.tolerance_vox.is_finite() && self.tolerance_vox >= 0.0) => {
                refuse("tolerance_vox", "0 or more voxels", self.tolerance_vox.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Clusters voxels around k centres by D^2 = d_c^2 + (m d_s / S)^2 (Achanta et al., Eqs. 3 and 4): d_c is the
/// difference from the centre's mean intensity, d_s the distance in millimetres, S the grid step in millimetres.
///
/// `intensity` is `[z, y, x]` from 0 to 1, `mask` has the same shape. Returns labels 1..=n, each connected by faces; 0
/// is outside of the mask. The result does not depend on the number of threads.
pub fn segment(
    intensity: ArrayView3<f32>,
    spacing_mm: [f64; 3],
    mask: Option<ArrayView3<bool>>,
    config: &Config,
) -> Array3<i32> {
    let intensity = intensity.as_standard_layout();
    let mask = mask.as_ref().map(|mask| mask.as_standard_layout());
    let grid = Grid {
        shape: intensity.dim().into(),
        spacing_mm,
        intensity: intensity.as_slice().expect("standard layout"),
        mask: mask.as_ref().map(|mask| mask.as_slice().expect("standard layout")),
    };
    let Some(seeds) = seed(&grid, config.k) else { return Array3::zeros(intensity.dim()) };
    let mut centres = seeds.centres;
    let window_mm = 2.0 * seeds.step_mm;
    let weight = config.compactness / seeds.step_mm;
    let mut tiles = Tiles::new(&grid, centres.len());
    for _ in 0..config.iterations {
        tiles.assign(&centres, window_mm, weight);
        if move_to_means(&mut centres, &tiles.sums) <= config.tolerance_vox {
            break;
        }
    }
    let mut labels = tiles.labels();
    let out = labels.as_slice_mut().expect("standard layout");
    assign_unreached(&grid, &centres, weight, out);
    let voxels_inside = out.par_iter().filter(|&&label| label != 0).count();
    let min_size = config.min_size_fraction * voxels_inside as f64 / centres.len() as f64;
    join_small(labels.view(), intensity.view(), min_size.round() as usize, Neighbourhood::Faces)
}

/// Moves each centre to the mean of its voxels (one without voxels stays) and returns the mean movement in voxels.
fn move_to_means(centres: &mut [Centre], sums: &[Sums]) -> f64 {
    let mut moved = 0.0;
    for (centre, sums) in centres.iter_mut().zip(sums) {
        let Some(mean) = sums.mean() else { continue };
        let along = |a: usize| (mean.position_vox[a] - centre.position_vox[a]).powi(2);
        moved += (0..3).map(along).sum::<f64>().sqrt();
        *centre = mean;
    }
    moved / centres.len() as f64
}

/// Assigns voxels that no window covers (islands of the mask far from every seed) to the nearest of all centres.
fn assign_unreached(grid: &Grid, centres: &[Centre], weight: f64, labels: &mut [i32]) {
    let [_, height, width] = grid.shape;
    let unreached = labels.par_iter_mut().enumerate().filter(|(index, label)| **label == 0 && grid.inside(*index));
    unreached.for_each(|(index, label)| {
        let at = [index / width / height, index / width % height, index % width];
        let distance = |centre: &Centre| {
            let apart = (0..3).map(|a| ((at[a] as f64 - centre.position_vox[a]) * grid.spacing_mm[a] * weight).powi(2));
            (f64::from(grid.intensity[index]) - centre.intensity).powi(2) + apart.sum::<f64>()
        };
        let order = |&a: &usize, &b: &usize| distance(&centres[a]).total_cmp(&distance(&centres[b]));
        *label = (0..centres.len()).min_by(order).expect("there is a seed") as i32 + 1;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    fn config(k: usize, compactness: f64) -> Config {
        Config { k, compactness, iterations: 10, min_size_fraction: 0.0, tolerance_vox: 0.0 }
    }

    /// Plain k-means over all centres with the same seeds, in double precision.
    fn reference_labels(intensity: &Array3<f32>, spacing_mm: [f64; 3], config: &Config) -> Array3<i32> {
        let flat = intensity.as_slice().unwrap();
        let grid = Grid { shape: intensity.dim().into(), spacing_mm, intensity: flat, mask: None };
        let seeds = seed(&grid, config.k).unwrap();
        let mut centres = seeds.centres;
        let mut labels = Array3::zeros(intensity.dim());
        for _ in 0..config.iterations {
            let mut sums = vec![(0.0, [0.0; 4]); centres.len()];
            for ((z, y, x), label) in labels.indexed_iter_mut() {
                let at = [z, y, x].map(|v| v as f64);
                let value = f64::from(intensity[[z, y, x]]);
                let distance = |c: &Centre| {
                    let apart_mm = |a: usize| (at[a] - c.position_vox[a]) * spacing_mm[a];
                    let d_s = (0..3).map(|a| apart_mm(a).powi(2)).sum::<f64>().sqrt();
                    (value - c.intensity).powi(2) + (config.compactness * d_s / seeds.step_mm).powi(2)
                };
                let order = |&a: &usize, &b: &usize| distance(&centres[a]).total_cmp(&distance(&centres[b]));
                let best = (0..centres.len()).min_by(order).unwrap();
                *label = best as i32 + 1;
                let (count, sum) = &mut sums[best];
                *count += 1.0;
                sum.iter_mut().zip([at[0], at[1], at[2], value]).for_each(|(sum, v)| *sum += v);
            }
            let before = centres.clone();
            for (centre, (count, sum)) in centres.iter_mut().zip(sums).filter(|(_, (count, _))| *count > 0.0) {
                let [z, y, x, intensity] = sum.map(|sum| sum / count);
                *centre = Centre { position_vox: [z, y, x], intensity };
            }
            if centres == before {
                break;
            }
        }
        labels
    }

    #[test]
    fn with_windows_over_everything_it_is_plain_k_means() {
        let mut random = rng::stream(3, "slic", 0);
        for (k, spacing_mm) in [(8, [1.0; 3]), (5, [1.0; 3]), (8, [2.0, 1.0, 1.0])] {
            let config = config(k, 0.7);
            let intensity = Array3::from_shape_simple_fn((8, 8, 8), || random.random::<f32>());
            let flat = intensity.as_slice().unwrap();
            let grid = Grid { shape: [8; 3], spacing_mm, intensity: flat, mask: None };
            let seeds = seed(&grid, k).unwrap();
            let mut centres = seeds.centres.clone();
            let mut tiles = Tiles::new(&grid, centres.len());
            for _ in 0..config.iterations {
                tiles.assign(&centres, 1e3, config.compactness / seeds.step_mm);
                if move_to_means(&mut centres, &tiles.sums) == 0.0 {
                    break;
                }
            }
            assert_eq!(tiles.labels(), reference_labels(&intensity, spacing_mm, &config));
        }
    }

    #[test]
    fn an_octant_phantom_falls_into_its_eight_octants() {
        let octant = |(z, y, x): (usize, usize, usize)| (z / 8 * 4 + y / 8 * 2 + x / 8) as i32 + 1;
        let phantom = Array3::from_shape_fn((16, 16, 16), |at| octant(at) as f32 / 8.0);
        let labels = segment(phantom.view(), [1.0; 3], None, &config(8, 0.05));
        assert_eq!(labels, Array3::from_shape_fn((16, 16, 16), octant));
    }

    #[test]
    fn degenerate_inputs_give_sensible_regions() {
        let mut random = rng::stream(4, "slic", 0);
        for (shape, k, regions) in [((3, 5, 7), 1, 1), ((1, 8, 8), 4, 4), ((2, 3, 4), 100, 24), ((1, 1, 1), 3, 1)] {
            let flat = Array3::from_elem(shape, 0.5);
            let labels = segment(flat.view(), [3.0, 1.0, 1.0], None, &config(k, 0.1));
            assert_eq!(*labels.iter().max().unwrap(), regions, "{shape:?} with k = {k}");
            let noise = Array3::from_shape_simple_fn(shape, || random.random::<f32>());
            let labels = segment(noise.view(), [3.0, 1.0, 1.0], None, &config(k, 0.1));
            assert!(labels.iter().all(|&label| label > 0));
        }
        let nothing = Array3::from_elem((2, 3, 4), false);
        let labels = segment(Array3::zeros((2, 3, 4)).view(), [1.0; 3], Some(nothing.view()), &config(2, 0.1));
        assert!(labels.iter().all(|&label| label == 0));
    }

    #[test]
    fn islands_that_no_window_reaches_get_a_region_too() {
        let mut mask = Array3::from_elem((1, 4, 64), false);
        mask.slice_mut(ndarray::s![.., .., ..4]).fill(true);
        mask[[0, 0, 63]] = true;
        let labels = segment(Array3::zeros(mask.dim()).view(), [1.0; 3], Some(mask.view()), &config(2, 0.1));
        assert!(mask.iter().zip(&labels).all(|(&inside, &label)| inside == (label > 0)));
    }
}
