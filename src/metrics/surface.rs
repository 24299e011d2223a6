//! Distances between the surfaces of a class in two label maps, in millimetres.
//!
//! The definitions are MONAI's. The surface of a mask consists of the voxels that an erosion by the six face neighbours
//! removes, with everything beyond the image outside; each surface voxel counts once, whatever the spacing. Its
//! distance is that from its centre to the nearest centre of the other surface.
//!
//! | truth | prediction | HD95, ASSD | NSD |
//! |---|---|---|---|
//! | some | some | distances | share within the tolerance |
//! | some | none | `None`: missed, no distance is large enough | 0 |
//! | none | any | not scored | not scored |

use crate::components::bounding_box;
use crate::percentile::percentile;
use ndarray::{Array3, ArrayView3, ArrayViewMut1, Axis, Zip, s};
use rayon::prelude::*;
use std::ops::Range;

/// Largest distance at which surfaces agree for NSD: about two voxels in the plane of the usual abdominal MRI (1.25 to
/// 1.6 mm), and less than one of its slices (6 to 9 mm).
pub const NSD_TOLERANCE_MM: f64 = 3.0;

/// Margin for rounding at exactly the tolerance.
const ROUNDING_MM: f64 = 1e-6;

/// Distances between the surface of a prediction and that of the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surface {
    /// The larger of the two directed 95th percentiles; `None` if nothing was predicted.
    pub hd95_mm: Option<f64>,
    /// Mean over the surface voxels of both; `None` if nothing was predicted.
    pub assd_mm: Option<f64>,
    /// Normalised surface Dice: the share of the surface voxels of both within [`NSD_TOLERANCE_MM`] of the other.
    pub nsd: f64,
}

impl Surface {
    /// The distances for `label` in two maps `[z, y, x]` of one shape, with the spacing along z, y, x; `None` if the
    /// truth does not show the label.
    ///
    /// # Panics
    /// The shapes differ.
    ///
    /// ```
    /// let at = |x: usize| ndarray::Array3::from_shape_fn([1, 1, 8], |(_, _, i)| i32::from(i == x));
    /// let surface = ssl3d::metrics::Surface::of(at(5).view(), at(3).view(), 1, [7.0, 2.0, 2.0]).unwrap();
    /// assert_eq!((surface.hd95_mm, surface.assd_mm), (Some(4.0), Some(4.0))); // two voxels of 2 mm
    /// assert_eq!(surface.nsd, 0.0);
    /// ```
    pub fn of(prediction: ArrayView3<i32>, truth: ArrayView3<i32>, label: i32, spacing_mm: [f64; 3]) -> Option<Self> {
        assert_eq!(prediction.shape(), truth.shape(), "prediction and truth lie on one grid");
        let of_truth = bounding_box(truth, |l| *l == label)?;
        let Some(of_prediction) = bounding_box(prediction, |l| *l == label) else {
            return Some(Self { hd95_mm: None, assd_mm: None, nsd: 0.0 });
        };
        // What lies outside the box is outside both masks, so cutting moves no surface.
        let [z, y, x] = [0, 1, 2].map(|axis: usize| {
            let (a, b): (&Range<usize>, &Range<usize>) = (&of_truth[axis], &of_prediction[axis]);
            a.start.min(b.start)..a.end.max(b.end)
        });
        let [prediction, truth] =
            [prediction, truth].map(|labels| surface(labels.slice(s![z.clone(), y.clone(), x.clone()]), label));
        let mut there = distances_mm(&prediction, &truth, spacing_mm);
        let mut back = distances_mm(&truth, &prediction, spacing_mm);
        let voxels = (there.len() + back.len()) as f64;
        let both = || there.iter().chain(&back);
        let assd_mm = both().sum::<f64>() / voxels;
        let nsd = both().filter(|mm| **mm <= NSD_TOLERANCE_MM + ROUNDING_MM).count() as f64 / voxels;
        let hd95_mm = percentile(&mut there, 95.0).max(percentile(&mut back, 95.0));
        Some(Self { hd95_mm: Some(hd95_mm), assd_mm: Some(assd_mm), nsd })
    }
}

/// The voxels of `label` with a face neighbour of another label or beyond the grid.
fn surface(labels: ArrayView3<i32>, label: i32) -> Array3<bool> {
    let inside = labels.mapv(|l| l == label);
    let mut surface = inside.clone();
    let (d, h, w) = inside.dim();
    if d.min(h).min(w) < 3 {
        return surface; // no voxel has six neighbours
    }
    let interior = s![1..d - 1, 1..h - 1, 1..w - 1];
    Zip::from(surface.slice_mut(interior)).and(inside.windows((3, 3, 3))).par_for_each(|surface, near| {
        *surface &= ![0, 2].iter().all(|&at| near[[at, 1, 1]] && near[[1, at, 1]] && near[[1, 1, at]]);
    });
    surface
}

/// Distances from each voxel of `from` to the nearest of `to`, ascending. Neither set is empty.
fn distances_mm(from: &Array3<bool>, to: &Array3<bool>, spacing_mm: [f64; 3]) -> Vec<f64> {
    let squares = squared_distances_mm2(to, spacing_mm);
    let mut distances: Vec<f64> =
        from.iter().zip(&squares).filter(|(from, _)| **from).map(|(_, square)| square.sqrt()).collect();
    distances.sort_unstable_by(f64::total_cmp);
    distances
}

/// Squared distance of every voxel to the nearest one that is set: exact, one axis after the other (Felzenszwalb and
/// Huttenlocher 2012, *Distance transforms of sampled functions*).
fn squared_distances_mm2(set: &Array3<bool>, spacing_mm: [f64; 3]) -> Array3<f64> {
    let mut squares = set.mapv(|set| if set { 0.0 } else { f64::INFINITY });
    for (axis, spacing_mm) in spacing_mm.into_iter().enumerate() {
        Zip::from(squares.lanes_mut(Axis(axis)))
            .into_par_iter()
            .for_each_init(Vec::new, |envelope, (line,)| lower_envelope(line, spacing_mm, envelope));
    }
    squares
}

/// The parabola (x - at)^2 + height, which is the lowest from `start` on.
struct Parabola {
    at: f64,
    height: f64,
    start: f64,
}

/// Replaces each f(x) by the minimum of (x - v)^2 + f(v) over all v of the line. `envelope` is working memory.
fn lower_envelope(mut line: ArrayViewMut1<f64>, spacing_mm: f64, envelope: &mut Vec<Parabola>) {
    envelope.clear();
    for (index, &height) in line.iter().enumerate().filter(|(_, height)| height.is_finite()) {
        let at = index as f64 * spacing_mm;
        let mut start = f64::NEG_INFINITY;
        while let Some(last) = envelope.last() {
            let crossing = (at + last.at + (height - last.height) / (at - last.at)) / 2.0;
            if crossing > last.start {
                start = crossing;
                break;
            }
            envelope.pop();
        }
        envelope.push(Parabola { at, height, start });
    }
    let mut lowest = 0;
    for (index, square) in line.iter_mut().enumerate().filter(|_| !envelope.is_empty()) {
        let x = index as f64 * spacing_mm;
        while envelope.get(lowest + 1).is_some_and(|next| next.start <= x) {
            lowest += 1;
        }
        *square = (x - envelope[lowest].at).powi(2) + envelope[lowest].height;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    fn random(shape: [usize; 3], share: f64, purpose: &str) -> Array3<i32> {
        let mut rng = crate::rng::stream(5, purpose, 0);
        Array3::from_shape_fn(shape, |_| i32::from(rng.random_bool(share)))
    }

    fn surface_points(labels: &Array3<i32>) -> Vec<[usize; 3]> {
        let shape = labels.shape();
        let outside = |index: [usize; 3], axis: usize, up: bool| {
            let mut next = index;
            match (up, next[axis]) {
                (false, 0) => return true,
                (false, _) => next[axis] -= 1,
                (true, at) if at + 1 == shape[axis] => return true,
                (true, _) => next[axis] += 1,
            }
            labels[next] != 1
        };
        let at_border =
            |index: &[usize; 3]| (0..3).any(|axis| outside(*index, axis, false) || outside(*index, axis, true));
        let inside = labels.indexed_iter().filter(|(_, label)| **label == 1).map(|((z, y, x), _)| [z, y, x]);
        inside.filter(at_border).collect()
    }

    /// Every voxel of one surface against every voxel of the other.
    fn plain(prediction: &Array3<i32>, truth: &Array3<i32>, spacing_mm: [f64; 3]) -> Surface {
        let (p, t) = (surface_points(prediction), surface_points(truth));
        let mm = |a: &[usize; 3], b: &[usize; 3]| {
            (0..3).map(|k| ((a[k] as f64 - b[k] as f64) * spacing_mm[k]).powi(2)).sum::<f64>().sqrt()
        };
        let directed = |from: &[[usize; 3]], to: &[[usize; 3]]| {
            let nearest = |a| to.iter().map(|b| mm(a, b)).fold(f64::INFINITY, f64::min);
            let mut distances: Vec<f64> = from.iter().map(nearest).collect();
            distances.sort_by(f64::total_cmp);
            distances
        };
        let (mut there, mut back) = (directed(&p, &t), directed(&t, &p));
        let both = [there.as_slice(), back.as_slice()].concat();
        let n = both.len() as f64;
        Surface {
            hd95_mm: Some(percentile(&mut there, 95.0).max(percentile(&mut back, 95.0))),
            assd_mm: Some(both.iter().sum::<f64>() / n),
            nsd: both.iter().filter(|mm| **mm <= NSD_TOLERANCE_MM + ROUNDING_MM).count() as f64 / n,
        }
    }

    fn assert_same(found: Surface, expected: Surface) {
        let pairs = [(found.hd95_mm, expected.hd95_mm), (found.assd_mm, expected.assd_mm)];
        assert!(pairs.iter().all(|(f, e)| near(f.unwrap(), e.unwrap())), "{found:?}, not {expected:?}");
        assert!(near(found.nsd, expected.nsd), "{found:?}, not {expected:?}");
    }

    #[test]
    fn the_table_of_empty_masks_holds() {
        let none = Array3::<i32>::zeros((3, 4, 5));
        let some = Array3::from_elem((3, 4, 5), 7);
        let perfect = Surface { hd95_mm: Some(0.0), assd_mm: Some(0.0), nsd: 1.0 };
        let missed = Surface { hd95_mm: None, assd_mm: None, nsd: 0.0 };
        for (prediction, truth, expected) in
            [(&some, &some, Some(perfect)), (&none, &some, Some(missed)), (&none, &none, None), (&some, &none, None)]
        {
            assert_eq!(Surface::of(prediction.view(), truth.view(), 7, [1.0; 3]), expected);
        }
    }

    #[test]
    fn moving_a_slab_by_n_voxels_moves_its_surface_by_n_times_the_spacing() {
        let spacing_mm = [5.0, 2.0, 0.7];
        for axis in 0..3 {
            let slab = |at: usize| Array3::from_shape_fn((9, 9, 9), |(z, y, x)| i32::from([z, y, x][axis] == at));
            for n in 1..6 {
                let found = Surface::of(slab(2).view(), slab(2 + n).view(), 1, spacing_mm).unwrap();
                let mm = n as f64 * spacing_mm[axis];
                assert_same(found, Surface { hd95_mm: Some(mm), assd_mm: Some(mm), nsd: f64::from(mm <= 3.0) });
            }
        }
    }

    #[test]
    fn distances_equal_those_of_all_pairs_of_surface_voxels() {
        let spacings_mm = [[1.0; 3], [7.7, 1.25, 1.25], [0.6, 3.1, 1.9]];
        for (case, (shape, share)) in
            [([6, 9, 8], 0.02), ([6, 9, 8], 0.5), ([7, 8, 9], 0.95), ([1, 12, 10], 0.2), ([2, 5, 1], 0.4)]
                .into_iter()
                .enumerate()
        {
            let (mut p, mut t) = (random(shape, share, &format!("p{case}")), random(shape, share, &format!("t{case}")));
            (p[[0, 0, 0]], t[[shape[0] - 1, 4, 0]]) = (1, 1);
            for spacing_mm in spacings_mm {
                let found = Surface::of(p.view(), t.view(), 1, spacing_mm).unwrap();
                assert_same(found, plain(&p, &t, spacing_mm));
                let reversed = [p.view().reversed_axes(), t.view().reversed_axes()];
                let [z, y, x] = spacing_mm;
                assert_same(Surface::of(reversed[0], reversed[1], 1, [x, y, z]).unwrap(), found);
            }
        }
    }

    /// ```python
    /// import numpy as np; from scipy import ndimage  # NumPy 2.4.6, SciPy 1.17.1
    /// surface = lambda m: m & ~ndimage.binary_erosion(m)
    /// def score(p, t, spacing):
    ///     there = ndimage.distance_transform_edt(~surface(t), sampling=spacing)[surface(p)]
    ///     back = ndimage.distance_transform_edt(~surface(p), sampling=spacing)[surface(t)]
    ///     both = np.concatenate([there, back])
    ///     return max(np.percentile(there, 95), np.percentile(back, 95)), both.mean(), (both <= 3).mean()
    /// z, y, x = np.ogrid[:12, :20, :18]
    /// ball = lambda c, r: ((z - c[0]) * 3)**2 + (y - c[1])**2 + (x - c[2])**2 <= r * r
    /// crumbs = (7 * z * z + 5 * y + 3 * x * y) % 11 == 0
    /// for p, t in [(ball((5, 9, 8), 6), ball((6, 11, 8), 7)), (ball((0, 0, 17), 9), ball((3, 4, 12), 8) | crumbs),
    ///              (crumbs, ball((11, 19, 9), 10))]:
    ///     for spacing in [(7.7, 1.25, 1.25), (2.0, 0.9, 1.4)]:
    ///         print("%.12f %.12f %.12f" % score(p, t, spacing))
    /// ```
    #[test]
    fn distances_equal_those_of_scipy() {
        type Mask = fn([i32; 3]) -> bool;
        fn ball([z, y, x]: [i32; 3], centre: [i32; 3], radius: i32) -> bool {
            ((z - centre[0]) * 3).pow(2) + (y - centre[1]).pow(2) + (x - centre[2]).pow(2) <= radius * radius
        }
        fn crumbs([z, y, x]: [i32; 3]) -> bool {
            (7 * z * z + 5 * y + 3 * x * y) % 11 == 0
        }
        let masks: [[Mask; 2]; 3] = [
            [|at| ball(at, [5, 9, 8], 6), |at| ball(at, [6, 11, 8], 7)],
            [|at| ball(at, [0, 0, 17], 9), |at| ball(at, [3, 4, 12], 8) || crumbs(at)],
            [crumbs, |at| ball(at, [11, 19, 9], 10)],
        ];
        let expected = [
            [[8.922023313128, 3.115648522417, 0.601190476190], [4.000000000000, 1.598786175772, 0.845238095238]],
            [[64.110724531860, 18.985178274122, 0.287221570926], [21.513948963405, 7.772424626429, 0.349355216882]],
            [[63.828607236026, 16.607386325941, 0.417098445596], [20.238596316865, 6.038147507444, 0.536269430052]],
        ];
        for (masks, expected) in masks.into_iter().zip(expected) {
            let [p, t] = masks.map(|mask| {
                Array3::from_shape_fn((12, 20, 18), |(z, y, x)| i32::from(mask([z as i32, y as i32, x as i32])))
            });
            for (spacing_mm, [hd95_mm, assd_mm, nsd]) in [[7.7, 1.25, 1.25], [2.0, 0.9, 1.4]].into_iter().zip(expected)
            {
                let found = Surface::of(p.view(), t.view(), 1, spacing_mm).unwrap();
                assert_same(found, Surface { hd95_mm: Some(hd95_mm), assd_mm: Some(assd_mm), nsd });
            }
        }
    }
}
