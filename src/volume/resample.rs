//! Separable linear resizing of a whole volume to another number of voxels over the same extent.
//!
//! The convention is that of PyTorch's `interpolate(align_corners=False, antialias=True)`: voxels are boxes, the
//! outer faces of both grids coincide, and a triangle filter is widened by the factor of shrinking:
//!
//! ```text
//! s = n_in / n_out,  c_i = s (i + 1/2),  r = max(s, 1)
//! out_i = sum_j w_ij in_j,   w_ij ~ max(0, 1 - |j + 1/2 - c_i| / r),   sum_j w_ij = 1
//! ```

use ndarray::{Array3, ArrayView3, s};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// The relation of the voxels of one axis before and after resizing: output voxel i has its centre at `scale (i + 1/2)
/// + offset` of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Along {
    n_in: usize,
    n_out: usize,
    scale: f64,
    offset: f64,
}

impl Along {
    /// Resizing of `n_in` voxels to `n_out` voxels over the same extent.
    ///
    /// # Panics
    /// A number is 0.
    pub fn whole(n_in: usize, n_out: usize) -> Self {
        assert!(n_in > 0 && n_out > 0, "resizing {n_in} voxels to {n_out}");
        Self { n_in, n_out, scale: n_in as f64 / n_out as f64, offset: 0.0 }
    }

    /// Resizing about the same centre, to output voxels that are `scale` input voxels long. The extents may differ by
    /// less than a voxel of either grid.
    pub fn centred(n_in: usize, n_out: usize, scale: f64) -> Self {
        Self { scale, offset: (n_in as f64 - scale * n_out as f64) / 2.0, ..Self::whole(n_in, n_out) }
    }

    /// The centre of output voxel `i` on the input axis, where the first voxel reaches from 0 to 1.
    fn middle(&self, i: usize) -> f64 {
        (self.scale * (i as f64 + 0.5) + self.offset).clamp(0.0, self.n_in as f64)
    }
}

/// For each output voxel of one axis: the first input voxel and the weights from there on.
pub struct Weights {
    first: Vec<usize>,
    weights: Vec<Vec<f32>>,
}

impl Weights {
    /// Weights for resizing `n_in` voxels to `n_out` over the same extent; those of an output voxel sum to 1.
    pub fn new(n_in: usize, n_out: usize) -> Self {
        Self::along(Along::whole(n_in, n_out))
    }

    fn along(along: Along) -> Self {
        let Along { n_in, n_out, scale, .. } = along;
        let reach = scale.max(1.0);
        let of = |i: usize| {
            let centre = along.middle(i);
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(n_in);
            let raw: Vec<f64> =
                (first..end).map(|j| (1.0 - (j as f64 + 0.5 - centre).abs() / reach).max(0.0)).collect();
            let sum: f64 = raw.iter().sum();
            (first, raw.into_iter().map(|w| (w / sum) as f32).collect())
        };
        let (first, weights) = (0..n_out).map(of).unzip();
        Self { first, weights }
    }

    /// The input voxels that contribute to output voxel `i`, with their weights.
    pub fn taps(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.weights[i].iter().enumerate().map(move |(k, &w)| (self.first[i] + k, w))
    }

    fn reach(&self, i: usize) -> Range<usize> {
        self.first[i]..self.first[i] + self.weights[i].len()
    }

    /// The output voxels to which any of `inputs` contributes.
    fn outputs_of(&self, inputs: &Range<usize>) -> Range<usize> {
        let start = (0..self.first.len()).find(|&i| self.reach(i).end > inputs.start);
        let end = (0..self.first.len()).rev().find(|&i| self.reach(i).start < inputs.end);
        start.unwrap_or(0)..end.map_or(0, |i| i + 1)
    }
}

/// Resizes `[z, y, x]` to `shape` over the same extent: linear interpolation where it grows, an antialiasing filter
/// where it shrinks.
///
/// ```
/// let image = ndarray::Array3::from_shape_fn((4, 6, 8), |(_, _, x)| x as f32);
/// let half = ssl3d::volume::resample::resize(image.view(), [2, 3, 4]);
/// assert_eq!(half.dim(), (2, 3, 4));
/// assert!((half[[0, 0, 1]] - 2.5).abs() < 1e-6); // centre between voxels 2 and 3
/// ```
pub fn resize(view: ArrayView3<f32>, shape: [usize; 3]) -> Array3<f32> {
    image(view, [0, 1, 2].map(|axis| Along::whole(view.shape()[axis], shape[axis])))
}

/// Resizes an image onto any grid along the same axes, z, y, x.
pub fn image(view: ArrayView3<f32>, grid: [Along; 3]) -> Array3<f32> {
    let mut array = view.as_standard_layout().into_owned();
    let mut axes = [0, 1, 2];
    let ratio = |axis: usize| grid[axis].n_out as f64 / grid[axis].n_in as f64;
    axes.sort_by(|&a, &b| ratio(a).total_cmp(&ratio(b))); // shrink first: the rest has less to do
    for axis in axes.into_iter().filter(|&axis| grid[axis] != Along::whole(grid[axis].n_in, grid[axis].n_in)) {
        array = resize_axis(&array, axis, &Weights::along(grid[axis]));
    }
    array
}

fn resize_axis(array: &Array3<f32>, axis: usize, weights: &Weights) -> Array3<f32> {
    let [nz, ny, nx] = [array.shape()[0], array.shape()[1], array.shape()[2]];
    let input = array.as_slice().expect("each pass makes a standard array");
    let mut shape = [nz, ny, nx];
    shape[axis] = weights.first.len();
    let mut out = Array3::zeros(shape);
    let slab_vox = shape[1] * shape[2];
    let slabs = out.as_slice_mut().expect("new").par_chunks_mut(slab_vox).enumerate();
    slabs.for_each(|(z, slab)| match axis {
        0 => weights.taps(z).for_each(|(j, w)| add_scaled(slab, &input[j * slab_vox..][..slab_vox], w)),
        1 => resize_rows(&input[z * ny * nx..][..ny * nx], slab, nx, weights),
        _ => resize_columns(&input[z * ny * nx..][..ny * nx], slab, nx, weights),
    });
    out
}

fn add_scaled(out: &mut [f32], input: &[f32], weight: f32) {
    out.iter_mut().zip(input).for_each(|(o, &i)| *o += weight * i);
}

/// Resizes one slab `[y, x]` along y into `out`, which is overwritten; `nx` is its number of columns.
pub fn resize_rows(slab: &[f32], out: &mut [f32], nx: usize, weights: &Weights) {
    for (y, row) in out.chunks_exact_mut(nx).enumerate() {
        row.fill(0.0);
        weights.taps(y).for_each(|(j, w)| add_scaled(row, &slab[j * nx..][..nx], w));
    }
}

/// Resizes one slab `[y, x]` with `nx` columns along x into `out`, which is overwritten.
pub fn resize_columns(slab: &[f32], out: &mut [f32], nx: usize, weights: &Weights) {
    for (row, out) in slab.chunks_exact(nx).zip(out.chunks_exact_mut(weights.first.len())) {
        for ((out, &first), weights) in out.iter_mut().zip(&weights.first).zip(&weights.weights) {
            *out = row[first..first + weights.len()].iter().zip(weights).map(|(&v, &w)| v * w).sum();
        }
    }
}

/// Shares that differ by less than this are a tie, so that rounding does not decide.
const TIE: f32 = 1e-4;

/// Resizes a label map `[z, y, x]`: each output voxel gets the label whose resized indicator is greatest. A tie (every
/// second voxel of a boundary, when halving) goes to the label of the input voxel under the centre of the output voxel,
/// so that ties neither grow nor shrink any label on average.
///
/// ```
/// let labels = ndarray::arr3(&[[[7, 7, 7, 2]]]);
/// let half = ssl3d::volume::resample::resize_labels(labels.view(), [1, 1, 2]);
/// assert_eq!(half[[0, 0, 0]], 7);
/// ```
pub fn resize_labels(view: ArrayView3<i32>, shape: [usize; 3]) -> Array3<i32> {
    resize_known_labels(view, shape, None)
}

/// Resizes a label map and ignores voxels of value `unknown`: each output voxel gets the greatest of the other labels,
/// however small its share. Of equal shares the smallest label wins if an unknown voxel lies under the centre. An
/// output voxel without any known input gets 0.
pub fn resize_known_labels(view: ArrayView3<i32>, shape: [usize; 3], unknown: Option<i32>) -> Array3<i32> {
    labels(view, [0, 1, 2].map(|axis| Along::whole(view.shape()[axis], shape[axis])), unknown)
}

/// Does the same as [`resize_known_labels`] onto any grid along the same axes, z, y, x.
pub fn labels(view: ArrayView3<i32>, grid: [Along; 3], unknown: Option<i32>) -> Array3<i32> {
    let labels = view.as_standard_layout();
    let shape = grid.map(|along| along.n_out);
    if grid.iter().all(|along| *along == Along::whole(along.n_in, along.n_in)) {
        return labels.mapv(|label| if Some(label) == unknown { 0 } else { label });
    }
    let mut boxes = boxes(labels.view());
    boxes.retain(|label, _| Some(*label) != unknown);
    let weights = grid.map(Weights::along);
    let under =
        grid.map(|along| (0..along.n_out).map(|i| (along.middle(i) as usize).min(along.n_in - 1)).collect::<Vec<_>>());
    let mut out = Array3::zeros(shape);
    let slabs = out.as_slice_mut().expect("new").par_chunks_mut(shape[1] * shape[2]).enumerate();
    slabs.for_each(|(z, slab)| {
        let mut best = vec![0f32; slab.len()];
        let mut indicator = Vec::new();
        for (&label, extent) in &boxes {
            let [_, ys, xs] = extent;
            let taps = || weights[0].taps(z).filter(|(j, _)| extent[0].contains(j));
            if taps().next().is_none() {
                continue;
            }
            // z: how much of each column of the box, within reach of this slab, is the label
            let (ny, nx) = (ys.len(), xs.len());
            indicator.clear();
            indicator.resize(ny * nx, 0f32); // [y, x] of the box
            for (j, w) in taps() {
                let source = labels.slice(s![j, ys.clone(), xs.clone()]);
                indicator.iter_mut().zip(&source).for_each(|(i, &l)| *i += if l == label { w } else { 0.0 });
            }
            let out_xs = weights[2].outputs_of(xs);
            let mut row = vec![0f32; nx];
            for y in weights[1].outputs_of(ys) {
                row.fill(0.0);
                for (j, w) in weights[1].taps(y).filter(|(j, _)| ys.contains(j)) {
                    add_scaled(&mut row, &indicator[(j - ys.start) * nx..][..nx], w);
                }
                let home = labels.slice(s![under[0][z], under[1][y], ..]);
                for x in out_xs.clone() {
                    let inside = weights[2].taps(x).filter(|(j, _)| xs.contains(j));
                    let mut share: f32 = inside.map(|(j, w)| w * row[j - xs.start]).sum();
                    if share > 0.0 && home[under[2][x]] == label {
                        share += TIE;
                    }
                    let at = y * shape[2] + x;
                    if share > best[at] {
                        (best[at], slab[at]) = (share, label);
                    }
                }
            }
        }
    });
    out
}

/// The bounding box of every label, background included.
fn boxes(labels: ArrayView3<i32>) -> BTreeMap<i32, [Range<usize>; 3]> {
    let mut boxes: BTreeMap<i32, [Range<usize>; 3]> = BTreeMap::new();
    for (z, slab) in labels.outer_iter().enumerate() {
        for (y, row) in slab.outer_iter().enumerate() {
            let row = row.to_slice().expect("standard layout");
            let mut x = 0;
            for run in row.chunk_by(|a, b| a == b) {
                let found = [z..z + 1, y..y + 1, x..x + run.len()];
                let known = boxes.entry(run[0]).or_insert_with(|| found.clone());
                for (known, found) in known.iter_mut().zip(found) {
                    *known = known.start.min(found.start)..known.end.max(found.end);
                }
                x += run.len();
            }
        }
    }
    boxes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    const SHAPES: [([usize; 3], [usize; 3]); 6] = [
        ([5, 6, 7], [5, 6, 7]),
        ([5, 6, 7], [3, 4, 2]),
        ([5, 6, 7], [9, 13, 8]),
        ([6, 8, 8], [3, 16, 4]),
        ([1, 7, 3], [4, 1, 5]),
        ([4, 9, 16], [1, 1, 1]),
    ];

    fn random(shape: [usize; 3], seed: u64) -> Array3<f32> {
        let mut rng = rng::stream(seed, "resample", 0);
        Array3::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
    }

    /// The formula of the module's docs for one output voxel, over all input voxels, in float64.
    fn reference_resize(input: &Array3<f32>, shape: [usize; 3]) -> Array3<f64> {
        let weight = |axis: usize, i: usize, j: usize| {
            let scale = input.shape()[axis] as f64 / shape[axis] as f64;
            let raw = |j: usize| (1.0 - (j as f64 + 0.5 - scale * (i as f64 + 0.5)).abs() / scale.max(1.0)).max(0.0);
            raw(j) / (0..input.shape()[axis]).map(raw).sum::<f64>()
        };
        Array3::from_shape_fn(shape, |(z, y, x)| {
            let share = |(k, j, i): (usize, usize, usize)| weight(0, z, k) * weight(1, y, j) * weight(2, x, i);
            input.indexed_iter().map(|(at, &v)| share(at) * f64::from(v)).sum()
        })
    }

    #[test]
    fn resizing_equals_the_formula() {
        for (from, to) in SHAPES {
            let input = random(from, 1);
            let (fast, slow) = (resize(input.view(), to), reference_resize(&input, to));
            assert_eq!(fast.shape(), to);
            assert!(fast.iter().zip(&slow).all(|(&f, &s)| (f64::from(f) - s).abs() < 1e-5), "{from:?} {to:?}");
        }
    }

    #[test]
    fn weights_are_those_of_pillow_which_pytorch_follows() {
        // a = (np.arange(6, dtype=np.float32) ** 2)[None]
        // np.asarray(PIL.Image.fromarray(a).resize((n, 1), PIL.Image.BILINEAR))
        let input = Array3::from_shape_fn([1, 1, 6], |(_, _, x)| (x * x) as f32);
        for (n, expected) in [
            (3, vec![1.0, 7.0, 18.857143]),
            (4, vec![0.375, 3.5555556, 10.777778, 21.625]),
            (8, vec![0.0, 0.625, 2.125, 4.625, 8.375, 13.375, 19.375, 25.0]),
        ] {
            let found = resize(input.view(), [1, 1, n]);
            assert!(found.iter().zip(&expected).all(|(f, e): (&f32, &f32)| (f - e).abs() < 1e-4), "{n}: {found}");
        }
    }

    #[test]
    fn the_same_shape_changes_nothing() {
        let input = random([3, 4, 5], 2);
        assert_eq!(resize(input.view(), [3, 4, 5]), input);
        let labels = input.map(|&v| (v * 3.0) as i32);
        assert_eq!(resize_labels(labels.view(), [3, 4, 5]), labels);
    }

    #[test]
    fn constants_stay_and_ramps_stay_straight_inside() {
        let ramp = Array3::from_shape_fn([8, 8, 8], |(z, y, x)| (z + 2 * y + 3 * x) as f32);
        for shape in [[4, 4, 4], [16, 16, 16], [4, 8, 19]] {
            let one = resize(Array3::ones([8, 8, 8]).view(), shape);
            assert!(one.iter().all(|v: &f32| (v - 1.0).abs() < 1e-6));
            let at = |axis: usize, i: usize| (i as f32 + 0.5) * 8.0 / shape[axis] as f32 - 0.5;
            let inner = |axis: usize, i: usize| (1.0..=6.0).contains(&at(axis, i));
            for ((z, y, x), &v) in resize(ramp.view(), shape).indexed_iter() {
                if inner(0, z) && inner(1, y) && inner(2, x) {
                    let straight = at(0, z) + 2.0 * at(1, y) + 3.0 * at(2, x);
                    assert!((v - straight).abs() < 1e-4, "{shape:?}: {v} {straight}");
                }
            }
        }
    }

    #[test]
    fn labels_equal_the_greatest_resized_indicator() {
        for (seed, (from, to)) in SHAPES.into_iter().enumerate() {
            // Coarse noise, so that labels have interiors; values of any kind.
            let coarse = random([2, 3, 3], seed as u64);
            let labels = resize(coarse.view(), from).map(|&v| [0, 7, -3, 500][((v + 1.0) * 2.0) as usize % 4]);
            let fast = resize_labels(labels.view(), to);
            let shares: Vec<_> = [-3, 0, 7, 500]
                .map(|label| (label, reference_resize(&labels.map(|&l| f32::from(l == label)), to)))
                .into();
            for (at, &label) in fast.indexed_iter() {
                let greatest = shares.iter().map(|(_, share)| share[at]).fold(0.0, f64::max);
                let own = shares.iter().find(|(other, _)| *other == label).unwrap().1[at];
                assert!(own > greatest - 2e-4, "{from:?} {to:?} {at:?}: {label} has {own}, not {greatest}");
            }
        }
    }

    #[test]
    fn what_is_unknown_has_no_say() {
        let labels = Array3::from_shape_vec([1, 1, 8], vec![9, 9, 9, 5, 9, 9, 0, 7]).unwrap();
        let resized = |n| resize_known_labels(labels.view(), [1, 1, n], Some(9)).into_raw_vec_and_offset().0;
        assert_eq!(resized(8), [0, 0, 0, 5, 0, 0, 0, 7]);
        assert_eq!(resized(4), [0, 5, 0, 7]); // shares 1/8 3/8 3/8 1/8; 5 and 0 tie, then 0 and 7, which lies under the centre
        assert_eq!(resize_labels(labels.view(), [1, 1, 4]).into_raw_vec_and_offset().0, [9, 9, 9, 7]);
        assert!(
            labels.iter().all(|&l| l == 9 || resize_known_labels(labels.view(), [1, 1, 1], Some(l))[[0, 0, 0]] == 9)
        );
    }

    #[test]
    fn halving_keeps_the_size_of_a_box_at_any_offset_on_average() {
        let mut total = 0;
        for offset in 0..4 {
            let range = 4 + offset..12 + offset;
            let labels = Array3::from_shape_fn([1, 1, 20], |(_, _, x)| i32::from(range.contains(&x)));
            total += resize_labels(labels.view(), [1, 1, 10]).sum();
        }
        assert_eq!(total, 4 * 4);
    }
}
