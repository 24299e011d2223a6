//! Simple linear iterative clustering (Achanta et al., *SLIC superpixels compared to state-of-the-art
//! superpixel methods*, TPAMI 2012), in 3D and in millimetres.
//!
//! What differs from the paper: grey values instead of CIELAB, so D has one intensity term; the search reaches
//! 2S to either side of a centre, so that no voxel falls between the windows when centres drift; it stops when
//! the centres rest; and small pieces join the neighbour with the longest border instead of any neighbour.

use super::connectivity::{Neighbourhood, join_small};
use crate::error::{Error, Result};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Regions asked for; the grid with equal steps in millimetres whose number of seeds comes nearest is taken.
    pub k: usize,
    /// m: the intensity difference (on a range of 1) that weighs as much as the distance of one grid step.
    pub compactness: f64,
    /// Rounds of assignment at most.
    pub iterations: usize,
    /// Connected pieces below this fraction of the mean region join a neighbour.
    pub min_size_fraction: f64,
    /// The iteration ends when the centres move less than this in the mean.
    pub tolerance_vox: f64,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("supervoxels.slic.{key}"), expected, found, "change it in the configuration"))
        };
        match self {
            _ if self.k == 0 => refuse("k", "at least 1 region", "0".into()),
            _ if !(self.compactness.is_finite() && self.compactness > 0.0) => {
                refuse("compactness", "a number above 0", self.compactness.to_string())
            }
            _ if !(1..=10).contains(&self.iterations) => {
                refuse("iterations", "1 to 10", self.iterations.to_string())
            }
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

/// Groups voxels around k centres by D^2 = d_c^2 + (m d_s / S)^2 (Achanta et al., Eq. 3 and 4): d_c the
/// difference from the centre's mean intensity, d_s the distance in millimetres, S the grid step in millimetres.
///
/// `intensity` `[z, y, x]` on [0, 1]; `mask` of the same shape. Returns labels 1..=n, each connected by faces;
/// 0 is outside the mask. The same for any number of threads.
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
    let mut labels = Array3::zeros(intensity.dim());
    let Some(seeds) = seed(&grid, config.k) else { return labels };
    let mut centres = seeds.centres;
    let window_mm = 2.0 * seeds.step_mm;
    let weight = config.compactness / seeds.step_mm;
    let out = labels.as_slice_mut().expect("standard layout");
    for _ in 0..config.iterations {
        let sums = assign(&grid, &centres, window_mm, weight, out);
        if move_to_means(&mut centres, &sums) <= config.tolerance_vox {
            break;
        }
    }
    assign_unreached(&grid, &centres, weight, out);
    let voxels_inside = out.iter().filter(|&&label| label != 0).count();
    let min_size = config.min_size_fraction * voxels_inside as f64 / centres.len() as f64;
    join_small(labels.view(), intensity.view(), min_size.round() as usize, Neighbourhood::Faces)
}

/// What is clustered.
struct Grid<'a> {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    intensity: &'a [f32],
    mask: Option<&'a [bool]>,
}

impl Grid<'_> {
    fn index(&self, [z, y, x]: [usize; 3]) -> usize {
        (z * self.shape[1] + y) * self.shape[2] + x
    }

    fn inside(&self, index: usize) -> bool {
        self.mask.is_none_or(|mask| mask[index])
    }

    /// First and one past the last voxel of the mask along each axis, and its number of voxels.
    fn bounds(&self) -> Option<([[usize; 2]; 3], usize)> {
        let Some(mask) = self.mask else {
            return (!self.intensity.is_empty()).then(|| (self.shape.map(|n| [0, n]), self.intensity.len()));
        };
        let [_, height, width] = self.shape;
        let mut bounds = self.shape.map(|n| [n, 0]);
        let mut count = 0;
        for (row, inside) in mask.chunks_exact(width).enumerate() {
            let Some(first) = inside.iter().position(|&inside| inside) else { continue };
            let last = inside.iter().rposition(|&inside| inside).expect("there is a first");
            count += inside.iter().filter(|&&inside| inside).count();
            for (bound, [low, high]) in
                bounds.iter_mut().zip([[row / height; 2], [row % height; 2], [first, last]])
            {
                *bound = [bound[0].min(low), bound[1].max(high + 1)];
            }
        }
        (count > 0).then_some((bounds, count))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Centre {
    /// Along z, y, x.
    position_vox: [f64; 3],
    intensity: f64,
}

struct Seeds {
    centres: Vec<Centre>,
    step_mm: f64,
}

/// Centres on a grid with (nearly) equal steps in millimetres inside the mask, as near to `k` as such a grid
/// comes, each moved to the lowest gradient among its 3x3x3 neighbours. None where the mask is empty.
fn seed(grid: &Grid, k: usize) -> Option<Seeds> {
    let (bounds, count) = grid.bounds()?;
    let extent_mm: [f64; 3] = std::array::from_fn(|a| (bounds[a][1] - bounds[a][0]) as f64 * grid.spacing_mm[a]);
    let cells = |step_mm: f64| -> [usize; 3] {
        std::array::from_fn(|a| {
            ((extent_mm[a] / step_mm).round() as usize).clamp(1, bounds[a][1] - bounds[a][0])
        })
    };
    let positions = |step_mm: f64| -> Vec<[usize; 3]> {
        let n = cells(step_mm);
        let at = |a: usize, i: usize| bounds[a][0] + (2 * i + 1) * (bounds[a][1] - bounds[a][0]) / (2 * n[a]);
        let all = (0..n[0]).flat_map(|z| (0..n[1]).flat_map(move |y| (0..n[2]).map(move |x| [z, y, x])));
        all.map(|[z, y, x]| [at(0, z), at(1, y), at(2, x)]).filter(|&p| grid.inside(grid.index(p))).collect()
    };
    // A grid of cubes of the right volume; slabs thinner than a cube leave fewer axes to divide.
    let volume_mm3 = count as f64 * grid.spacing_mm.iter().product::<f64>();
    let mut by_extent = extent_mm;
    by_extent.sort_by(f64::total_cmp);
    let cube = (volume_mm3 / k as f64).cbrt();
    let square = (volume_mm3 / by_extent[0] / k as f64).sqrt();
    let rod = volume_mm3 / by_extent[0] / by_extent[1] / k as f64;
    let nominal_mm = match by_extent {
        [thin, ..] if thin >= cube => cube,
        [_, flat, _] if flat >= square => square,
        _ => rod,
    };
    let tried = (-32..=32).map(|i: i32| (i, nominal_mm * 2f64.powf(f64::from(i) / 32.0)));
    let (_, step_mm) = tried.min_by_key(|&(i, step_mm)| (positions(step_mm).len().abs_diff(k), i.abs()))?;
    let n = cells(step_mm);
    // Seeds closer than three voxels keep their place along that axis, so that no two can meet.
    let reach: [usize; 3] = std::array::from_fn(|a| usize::from(bounds[a][1] - bounds[a][0] >= 3 * n[a]));
    let mut seeds: Vec<[usize; 3]> =
        positions(step_mm).into_iter().map(|seed| lowest_gradient(grid, seed, reach)).collect();
    if seeds.is_empty() {
        let first = (0..grid.intensity.len()).find(|&index| grid.inside(index))?;
        let [_, height, width] = grid.shape;
        seeds.push([first / width / height, first / width % height, first % width]);
    }
    let centre = |seed: [usize; 3]| Centre {
        position_vox: seed.map(|v| v as f64),
        intensity: f64::from(grid.intensity[grid.index(seed)]),
    };
    Some(Seeds { centres: seeds.into_iter().map(centre).collect(), step_mm })
}

/// The voxel with the smallest squared central difference at most `reach` away; the seed itself among equals.
fn lowest_gradient(grid: &Grid, seed: [usize; 3], reach: [usize; 3]) -> [usize; 3] {
    let gradient = |at: [usize; 3]| -> f32 {
        let difference = |axis: usize| {
            let (mut low, mut high) = (at, at);
            low[axis] = at[axis].saturating_sub(1);
            high[axis] = (at[axis] + 1).min(grid.shape[axis] - 1);
            grid.intensity[grid.index(high)] - grid.intensity[grid.index(low)]
        };
        (0..3).map(|axis| difference(axis).powi(2)).sum()
    };
    let around = |axis: usize| {
        seed[axis].saturating_sub(reach[axis])..=(seed[axis] + reach[axis]).min(grid.shape[axis] - 1)
    };
    let mut best = (gradient(seed), seed);
    for at in around(0).flat_map(|z| around(1).flat_map(move |y| around(2).map(move |x| [z, y, x]))) {
        if grid.inside(grid.index(at)) && gradient(at) < best.0 {
            best = (gradient(at), at);
        }
    }
    best.1
}

/// Sums over the voxels of a centre.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    position_vox: [f64; 3],
    intensity: f64,
}

/// Gives every voxel inside the mask to the nearest centre whose window reaches it (the lower index among
/// equals): `labels` becomes index + 1, or 0 where no window reaches. Returns the sums of each centre.
///
/// The work is split by slices, never by threads, and the partial sums are added in slice order.
fn assign(grid: &Grid, centres: &[Centre], window_mm: f64, weight: f64, labels: &mut [i32]) -> Vec<Sums> {
    let [_, height, width] = grid.shape;
    let scaled = grid.spacing_mm.map(|mm| mm * weight); // one voxel, in units of D
    let along_x: Vec<f32> = (0..width).map(|x| (x as f64 * scaled[2]) as f32).collect();
    let window_vox = grid.spacing_mm.map(|mm| window_mm / mm);
    let slices = labels.par_chunks_mut(height * width).enumerate().map(|(z, labels)| {
        let near_z = |c: &Centre| (c.position_vox[0] - z as f64).abs() <= window_vox[0];
        let reaching: Vec<usize> = (0..centres.len()).filter(|&c| near_z(&centres[c])).collect();
        let mut sums = vec![Sums::default(); reaching.len()];
        let mut nearest = vec![f32::INFINITY; width];
        let mut owner = vec![NOBODY; width];
        for (y, labels) in labels.chunks_exact_mut(width).enumerate() {
            let row = (z * height + y) * width;
            let intensity = &grid.intensity[row..row + width];
            let mask = grid.mask.map(|mask| &mask[row..row + width]);
            let Some(used) = extent(mask, width) else {
                labels.fill(0);
                continue;
            };
            nearest.fill(f32::INFINITY);
            owner.fill(NOBODY);
            for (local, &c) in reaching.iter().enumerate() {
                let [cz, cy, cx] = centres[c].position_vox;
                if (cy - y as f64).abs() > window_vox[1] {
                    continue;
                }
                let first = ((cx - window_vox[2]).ceil().max(0.0) as usize).max(used[0]);
                let end = ((cx + window_vox[2]).floor() as usize + 1).min(used[1]);
                if first >= end {
                    continue;
                }
                let apart = ((z as f64 - cz) * scaled[0]).powi(2) + ((y as f64 - cy) * scaled[1]).powi(2);
                let centre = [centres[c].intensity as f32, (cx * scaled[2]) as f32, apart as f32];
                let row = (&intensity[first..end], &along_x[first..end]);
                take_nearer(row, centre, local as u32, &mut nearest[first..end], &mut owner[first..end]);
            }
            for (x, label) in labels.iter_mut().enumerate() {
                if owner[x] == NOBODY || mask.is_some_and(|mask| !mask[x]) {
                    *label = 0;
                    continue;
                }
                *label = reaching[owner[x] as usize] as i32 + 1;
                let sums = &mut sums[owner[x] as usize];
                sums.count += 1.0;
                sums.position_vox[1] += y as f64;
                sums.position_vox[2] += x as f64;
                sums.intensity += f64::from(intensity[x]);
            }
        }
        for sums in &mut sums {
            sums.position_vox[0] = sums.count * z as f64;
        }
        (reaching, sums)
    });
    let mut total = vec![Sums::default(); centres.len()];
    for (centres, sums) in slices.collect::<Vec<_>>() {
        for (centre, part) in centres.into_iter().zip(sums) {
            let total = &mut total[centre];
            total.count += part.count;
            total.intensity += part.intensity;
            for axis in 0..3 {
                total.position_vox[axis] += part.position_vox[axis];
            }
        }
    }
    total
}

const NOBODY: u32 = u32::MAX;

/// First and one past the last voxel of a row that the mask lets through.
fn extent(mask: Option<&[bool]>, width: usize) -> Option<[usize; 2]> {
    let Some(mask) = mask else { return Some([0, width]) };
    Some([mask.iter().position(|&m| m)?, mask.iter().rposition(|&m| m)? + 1])
}

/// `centre` is its intensity, its scaled x, and the squared distance along z and y. Branch-free over equal
/// slices, so that the compiler turns it into vector instructions.
fn take_nearer(
    (intensity, along_x): (&[f32], &[f32]),
    centre: [f32; 3],
    index: u32,
    nearest: &mut [f32],
    owner: &mut [u32],
) {
    let columns = intensity.iter().zip(along_x).zip(nearest.iter_mut().zip(owner));
    for ((&intensity, &x), (nearest, owner)) in columns {
        let (difference, across) = (intensity - centre[0], x - centre[1]);
        let distance = difference * difference + across * across + centre[2];
        let nearer = distance < *nearest;
        *nearest = if nearer { distance } else { *nearest };
        *owner = if nearer { index } else { *owner };
    }
}

/// Moves each centre to the mean of its voxels (one without voxels stays); returns the mean distance in voxels.
fn move_to_means(centres: &mut [Centre], sums: &[Sums]) -> f64 {
    let mut moved = 0.0;
    for (centre, sums) in centres.iter_mut().zip(sums).filter(|(_, sums)| sums.count > 0.0) {
        let mean = sums.position_vox.map(|sum| sum / sums.count);
        moved += (0..3).map(|a| (mean[a] - centre.position_vox[a]).powi(2)).sum::<f64>().sqrt();
        *centre = Centre { position_vox: mean, intensity: sums.intensity / sums.count };
    }
    moved / centres.len() as f64
}

/// Voxels that no window reached (islands of the mask far from every seed) go to the nearest of all centres.
fn assign_unreached(grid: &Grid, centres: &[Centre], weight: f64, labels: &mut [i32]) {
    let [_, height, width] = grid.shape;
    for index in (0..labels.len()).filter(|&index| grid.inside(index)) {
        if labels[index] == 0 {
            let at = [index / width / height, index / width % height, index % width];
            let distance = |centre: &Centre| {
                let apart = (0..3).map(|a| {
                    ((at[a] as f64 - centre.position_vox[a]) * grid.spacing_mm[a] * weight).powi(2)
                });
                (f64::from(grid.intensity[index]) - centre.intensity).powi(2) + apart.sum::<f64>()
            };
            let order = |&a: &usize, &b: &usize| distance(&centres[a]).total_cmp(&distance(&centres[b]));
            labels[index] = (0..centres.len()).min_by(order).expect("there is a seed") as i32 + 1;
        }
    }
}
