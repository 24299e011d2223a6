//! The body: what stands out from the air around it.

use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut2};
use rayon::prelude::*;
use std::ops::Range;

/// The mask `[z, y, x]` of the largest 6-connected region brighter than `threshold` (a fraction of the intensity
/// range; 10/255 is usual), with its holes filled in each axial slice. That fills 3D holes too: a voxel that
/// reaches the border within its slice reaches it in the volume.
///
/// A constant image, or a threshold that nothing passes, gives the whole volume.
pub fn body_mask(image: ArrayView3<f32>, threshold: f32) -> Array3<bool> {
    let image = image.as_standard_layout();
    let voxels = image.as_slice().expect("standard layout");
    let (low, high) = voxels.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let level = low + threshold * (high - low);
    let mut mask = Array3::from_elem(image.raw_dim(), false);
    keep_largest(&runs_above(image.view(), level), &mut mask);
    if !mask.iter().any(|&inside| inside) {
        mask.fill(true);
        return mask;
    }
    let mut slices: Vec<_> = mask.outer_iter_mut().collect();
    slices.par_iter_mut().for_each(|slice| fill_holes(slice.view_mut()));
    mask
}

/// The smallest box around the mask as (start, end) along z, y, x; `None` where it is empty.
pub fn bounding_box(mask: ArrayView3<bool>) -> Option<([usize; 3], [usize; 3])> {
    let (mut start, mut end) = ([usize::MAX; 3], [0; 3]);
    for ((z, y, x), _) in mask.indexed_iter().filter(|(_, inside)| **inside) {
        for (axis, index) in [z, y, x].into_iter().enumerate() {
            start[axis] = start[axis].min(index);
            end[axis] = end[axis].max(index + 1);
        }
    }
    (end[0] > 0).then_some((start, end))
}

/// A stretch of bright voxels in one row.
struct Run {
    row: usize,
    xs: Range<usize>,
}

/// In the order of the array; a row is numbered z * ny + y.
fn runs_above(image: ArrayView3<f32>, level: f32) -> Vec<Run> {
    let mut runs = Vec::new();
    for (row, voxels) in image.rows().into_iter().enumerate() {
        let mut x = 0;
        for stretch in voxels.to_slice().expect("standard layout").chunk_by(|&a, &b| (a > level) == (b > level)) {
            if stretch[0] > level {
                runs.push(Run { row, xs: x..x + stretch.len() });
            }
            x += stretch.len();
        }
    }
    runs
}

/// Marks the largest 6-connected group of runs; of equal ones the first.
fn keep_largest(runs: &[Run], mask: &mut Array3<bool>) {
    let (nz, ny, _) = mask.dim();
    let mut of_row = vec![0..0; nz * ny]; // which runs a row has
    for (index, run) in runs.iter().enumerate() {
        let known = &mut of_row[run.row];
        *known = if known.end == 0 { index..index + 1 } else { known.start..index + 1 };
    }
    let mut parent: Vec<usize> = (0..runs.len()).collect();
    for (index, run) in runs.iter().enumerate() {
        let before = (run.row % ny > 0).then(|| run.row - 1);
        let below = run.row.checked_sub(ny);
        for other in before.into_iter().chain(below).flat_map(|row| of_row[row].clone()) {
            let touching = runs[other].xs.start < run.xs.end && run.xs.start < runs[other].xs.end;
            if touching {
                let (a, b) = (root(&mut parent, index), root(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        }
    }
    let mut size_vox = vec![0; runs.len()];
    for (index, run) in runs.iter().enumerate() {
        size_vox[root(&mut parent, index)] += run.xs.len();
    }
    let Some(largest) = (0..runs.len()).max_by_key(|&index| (size_vox[index], std::cmp::Reverse(index))) else {
        return;
    };
    for (index, run) in runs.iter().enumerate() {
        if root(&mut parent, index) == largest {
            mask.slice_mut(ndarray::s![run.row / ny, run.row % ny, run.xs.clone()]).fill(true);
        }
    }
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

/// Sets whatever cannot reach the slice's border through 4-connected false voxels.
fn fill_holes(mut slice: ArrayViewMut2<bool>) {
    let nx = slice.ncols();
    let outside = outside(slice.view());
    for ((y, x), inside) in slice.indexed_iter_mut() {
        *inside |= !outside[y * nx + x];
    }
}

/// The false voxels that reach the border, row by row.
fn outside(slice: ArrayView2<bool>) -> Vec<bool> {
    let (ny, nx) = slice.dim();
    let mut seen = vec![false; ny * nx];
    let mut waiting = Vec::new();
    let mut visit = |y: usize, x: usize, waiting: &mut Vec<(usize, usize)>| {
        if !slice[[y, x]] && !std::mem::replace(&mut seen[y * nx + x], true) {
            waiting.push((y, x));
        }
    };
    for y in 0..ny {
        visit(y, 0, &mut waiting);
        visit(y, nx - 1, &mut waiting);
    }
    for x in 0..nx {
        visit(0, x, &mut waiting);
        visit(ny - 1, x, &mut waiting);
    }
    while let Some((y, x)) = waiting.pop() {
        if y > 0 {
            visit(y - 1, x, &mut waiting);
        }
        if x > 0 {
            visit(y, x - 1, &mut waiting);
        }
        if y + 1 < ny {
            visit(y + 1, x, &mut waiting);
        }
        if x + 1 < nx {
            visit(y, x + 1, &mut waiting);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    #[test]
    fn the_largest_region_stays_and_its_holes_are_filled() {
        let mut image = Array3::zeros([3, 9, 9]);
        image.slice_mut(ndarray::s![.., 1..7, 1..7]).fill(100.0);
        image.slice_mut(ndarray::s![1, 3..5, 3..5]).fill(0.0); // a hole in 3D
        image.slice_mut(ndarray::s![.., 2, 2]).fill(0.0); // a tunnel along z
        image[[0, 8, 8]] = 100.0; // a speck
        image[[2, 4, 7]] = 3.0; // under 10/255 of the range
        let mask = body_mask(image.view(), 10.0 / 255.0);
        assert_eq!(mask.iter().filter(|&&inside| inside).count(), 3 * 36);
        assert_eq!(bounding_box(mask.view()), Some(([0, 1, 1], [3, 7, 7])));
    }

    #[test]
    fn a_constant_image_is_all_body_and_an_empty_mask_has_no_box() {
        assert!(body_mask(Array3::from_elem([2, 3, 4], 5.0).view(), 0.04).iter().all(|&inside| inside));
        assert!(body_mask(Array3::from_shape_fn([2, 3, 4], |(_, _, x)| x as f32).view(), 1.5).iter().all(|&i| i));
        assert_eq!(bounding_box(Array3::from_elem([2, 3, 4], false).view()), None);
    }

    /// Flood fill voxel by voxel from each seed in turn.
    fn reference_largest(above: &Array3<bool>) -> Array3<bool> {
        let mut seen = Array3::from_elem(above.raw_dim(), false);
        let mut best = (0, seen.clone());
        for (seed, _) in above.indexed_iter().filter(|(_, above)| **above) {
            let mut region = Array3::from_elem(above.raw_dim(), false);
            let mut waiting = vec![seed];
            let mut size = 0;
            while let Some((z, y, x)) = waiting.pop() {
                if !above.get((z, y, x)).copied().unwrap_or(false) || std::mem::replace(&mut seen[(z, y, x)], true) {
                    continue;
                }
                region[(z, y, x)] = true;
                size += 1;
                let down = usize::wrapping_sub;
                waiting.extend([(z + 1, y, x), (z, y + 1, x), (z, y, x + 1)]);
                waiting.extend([(down(z, 1), y, x), (z, down(y, 1), x), (z, y, down(x, 1))]);
            }
            if size > best.0 {
                best = (size, region);
            }
        }
        best.1
    }

    #[test]
    fn runs_find_the_same_region_as_a_flood_fill() {
        for seed in 0..40 {
            let mut rng = rng::stream(seed, "foreground", 0);
            let image = Array3::from_shape_simple_fn([4, 6, 7], || rng.random::<f32>());
            let level = rng.random_range(0.3..0.8);
            let mut mask = Array3::from_elem(image.raw_dim(), false);
            keep_largest(&runs_above(image.view(), level), &mut mask);
            assert_eq!(mask, reference_largest(&image.map(|&v| v > level)), "seed {seed}");
        }
    }
}
