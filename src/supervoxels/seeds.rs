//! The initial centres of SLIC, on a grid with equal steps in millimetres.

/// The voxels to be clustered.
pub(super) struct Grid<'a> {
    /// Voxels along z, y, x.
    pub shape: [usize; 3],
    /// Spacing along z, y, x.
    pub spacing_mm: [f64; 3],
    /// Intensities from 0 to 1, x fastest.
    pub intensity: &'a [f32],
    /// The voxels that take part; all of them if it is `None`.
    pub mask: Option<&'a [bool]>,
}

impl Grid<'_> {
    /// Position of voxel z, y, x in `intensity`.
    pub fn index(&self, [z, y, x]: [usize; 3]) -> usize {
        (z * self.shape[1] + y) * self.shape[2] + x
    }

    /// Whether the voxel takes part.
    pub fn inside(&self, index: usize) -> bool {
        self.mask.is_none_or(|mask| mask[index])
    }

    /// First and one past the last voxel of the mask along each axis, and the number of its voxels.
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
            for (bound, [low, high]) in bounds.iter_mut().zip([[row / height; 2], [row % height; 2], [first, last]]) {
                *bound = [bound[0].min(low), bound[1].max(high + 1)];
            }
        }
        (count > 0).then_some((bounds, count))
    }
}

/// The centre of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Centre {
    /// Mean position along z, y, x.
    pub position_vox: [f64; 3],
    /// Mean intensity.
    pub intensity: f64,
}

/// The initial centres.
pub(super) struct Seeds {
    /// All centres, z slowest.
    pub centres: Vec<Centre>,
    /// Step of the grid in millimetres (S of the paper).
    pub step_mm: f64,
}

/// Centres on a grid with (nearly) equal steps in millimetres inside the mask. Of all such grids the one whose number
/// of centres is closest to `k` is taken. Each centre moves to the lowest gradient among its 3x3x3 neighbours. `None`
/// if the mask is empty.
pub(super) fn seed(grid: &Grid, k: usize) -> Option<Seeds> {
    let (bounds, count) = grid.bounds()?;
    let extent_mm: [f64; 3] = std::array::from_fn(|a| (bounds[a][1] - bounds[a][0]) as f64 * grid.spacing_mm[a]);
    let cells = |step_mm: f64| -> [usize; 3] {
        std::array::from_fn(|a| ((extent_mm[a] / step_mm).round() as usize).clamp(1, bounds[a][1] - bounds[a][0]))
    };
    let positions = |step_mm: f64| -> Vec<[usize; 3]> {
        let n = cells(step_mm);
        let along = |a: usize| -> Vec<usize> {
            (0..n[a]).map(|i| bounds[a][0] + (2 * i + 1) * (bounds[a][1] - bounds[a][0]) / (2 * n[a])).collect()
        };
        let (along_y, along_x) = (&along(1), &along(2));
        let all = along(0)
            .into_iter()
            .flat_map(|z| along_y.iter().flat_map(move |&y| along_x.iter().map(move |&x| [z, y, x])));
        all.filter(|&p| grid.inside(grid.index(p))).collect()
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

/// The voxel with the smallest squared central difference, at most `reach` voxels from the seed along z, y, x; the seed
/// itself among equals.
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
    let around =
        |axis: usize| seed[axis].saturating_sub(reach[axis])..=(seed[axis] + reach[axis]).min(grid.shape[axis] - 1);
    let mut best = (gradient(seed), seed);
    for at in around(0).flat_map(|z| around(1).flat_map(move |y| around(2).map(move |x| [z, y, x]))) {
        if grid.inside(grid.index(at)) && gradient(at) < best.0 {
            best = (gradient(at), at);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(shape: [usize; 3], spacing_mm: [f64; 3], mask: Option<&[bool]>, k: usize) -> Option<Vec<[f64; 3]>> {
        let intensity = vec![0.0; shape.iter().product()];
        let seeds = seed(&Grid { shape, spacing_mm, intensity: &intensity, mask }, k)?;
        Some(seeds.centres.into_iter().map(|centre| centre.position_vox).collect())
    }

    #[test]
    fn steps_are_equal_in_millimetres() {
        let thick = seeds([4, 16, 16], [4.0, 1.0, 1.0], None, 8).unwrap();
        assert_eq!(thick.len(), 8);
        assert_eq!((thick[0], thick[7]), ([1.0, 4.0, 4.0], [3.0, 12.0, 12.0]));
        let thin = seeds([4, 16, 16], [1.0, 1.0, 1.0], None, 4).unwrap();
        assert!(thin.len() == 4 && thin.iter().all(|seed| seed[0] == 2.0), "one layer: {thin:?}");
    }

    #[test]
    fn seeds_stay_inside_the_mask_and_an_empty_mask_has_none() {
        let shape = [4, 8, 8];
        let left: Vec<bool> = (0..4 * 8 * 8).map(|index| index % 8 < 4).collect();
        let inside = seeds(shape, [1.0; 3], Some(&left), 4).unwrap();
        assert!(inside.len().abs_diff(4) <= 1 && inside.iter().all(|seed| seed[2] < 4.0), "{inside:?}");
        assert_eq!(seeds(shape, [1.0; 3], Some(&[false; 256]), 4), None);
        let hollow: Vec<bool> = (0..256).map(|index| index == 0 || index == 255).collect();
        assert!(!seeds(shape, [1.0; 3], Some(&hollow), 1).unwrap().is_empty());
    }

    #[test]
    fn more_seeds_than_voxels_means_one_each() {
        assert_eq!(seeds([2, 3, 4], [5.0, 1.0, 1.0], None, 100).unwrap().len(), 24);
    }

    #[test]
    fn seeds_move_to_the_lowest_gradient_nearby() {
        let shape = [1, 5, 5];
        let mut intensity = vec![0.0; 25];
        intensity[2 * 5 + 2] = 0.1;
        intensity[2 * 5 + 3] = 1.0; // a step at the seed; (1, 1) lies flat
        let seeds = seed(&Grid { shape, spacing_mm: [1.0; 3], intensity: &intensity, mask: None }, 1).unwrap();
        assert_eq!(seeds.centres[0].position_vox, [0.0, 1.0, 1.0]);
    }
}
