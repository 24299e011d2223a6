//! Axis order of files: one of 48 permutations and flips, to the canonical frame and back.

use super::Geometry;
use super::vector::{cross, dot, unit};
use ndarray::{Array3, ArrayView3, Axis};
use std::ops::{Range, RangeInclusive};

/// The stored axis from which each canonical axis is taken, and whether it runs backwards there. Axes are counted in
/// array order: 0 is z (the file's k), 1 is y (j), 2 is x (i).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    source: [usize; 3],
    reversed: [bool; 3],
}

const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl Orientation {
    /// The canonical order: x to the right, y anterior, z superior.
    pub const CANONICAL: Self = Self { source: [0, 1, 2], reversed: [false; 3] };

    /// From a file's array to the canonical frame: the nearest anatomical axes in the order S, A, R, but that along which slices are
    /// stacked ([`Geometry::slice_axis`]) first.
    pub fn canonical(stored: &Geometry) -> Self {
        let nearest = Self::anatomical(stored);
        let Some(first) = stored.slice_axis().map(|axis| nearest.canonical_axis(axis)) else { return nearest };
        let order: Vec<usize> = std::iter::once(first).chain((0..3).filter(|&axis| axis != first)).collect();
        let order = [order[0], order[1], order[2]];
        Self { source: order.map(|axis| nearest.source[axis]), reversed: order.map(|axis| nearest.reversed[axis]) }
    }

    /// The orientation that brings the axes of `affine` (index i, j, k to R, A, S) closest to `directions`, those of the new axes z, y,
    /// x in the patient: the sum of their cosines is greatest. It never mirrors. `first`: the stored axis that has to become z.
    pub fn towards(affine: &[[f64; 4]; 4], directions: &[[f64; 3]; 3], first: Option<usize>) -> Self {
        let stored = directions_of(affine);
        let handedness = |axes: &[[f64; 3]; 3]| dot(cross(axes[0], axes[1]), axes[2]);
        let (mut best, mut closest) = (Self::CANONICAL, f64::NEG_INFINITY);
        for source in PERMUTATIONS.into_iter().filter(|source| first.is_none_or(|first| source[0] == first)) {
            for flips in 0..8 {
                let reversed = [0, 1, 2].map(|axis| flips >> axis & 1 == 1);
                let turned = [0, 1, 2].map(|axis| {
                    let sign = if reversed[axis] { -1.0 } else { 1.0 };
                    stored[source[axis]].map(|part| sign * part)
                });
                let closeness: f64 = turned.iter().zip(directions).map(|(a, b)| dot(*a, *b)).sum();
                // The margin keeps an exact tie (45 degrees) with the first, whatever the rounding.
                if closeness > closest + 1e-9 && handedness(&turned) * handedness(directions) >= 0.0 {
                    (best, closest) = (Self { source, reversed }, closeness);
                }
            }
        }
        best
    }

    /// This one, and then another.
    pub fn then(self, next: Self) -> Self {
        Self {
            source: next.source.map(|axis| self.source[axis]),
            reversed: [0, 1, 2].map(|axis| next.reversed[axis] != self.reversed[next.source[axis]]),
        }
    }

    /// Reorders a stored array to the canonical frame; a canonical array is not copied.
    ///
    /// ```
    /// use ssl3d::volume::orientation::Orientation;
    /// let to_left = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    /// let stored = ssl3d::volume::Geometry { shape_vox: [1, 1, 3], affine_mm: to_left };
    /// let orientation = Orientation::canonical(&stored);
    /// let stored = ndarray::arr3(&[[[1, 2, 3]]]);
    /// let canonical = orientation.to_canonical(stored.clone());
    /// assert_eq!(canonical, ndarray::arr3(&[[[3, 2, 1]]]));
    /// assert_eq!(orientation.to_native(canonical.view()), stored);
    /// ```
    pub fn to_canonical<T: Clone>(&self, native: Array3<T>) -> Array3<T> {
        if *self == Self::CANONICAL {
            return native;
        }
        let mut view = native.view().permuted_axes(self.source);
        for axis in (0..3).filter(|&axis| self.reversed[axis]) {
            view.invert_axis(Axis(axis));
        }
        view.as_standard_layout().into_owned()
    }

    /// Reorders a canonical array to the stored order; the inverse of [`to_canonical`](Self::to_canonical).
    pub fn to_native<T: Clone>(&self, mut canonical: ArrayView3<T>) -> Array3<T> {
        for axis in (0..3).filter(|&axis| self.reversed[axis]) {
            canonical.invert_axis(Axis(axis));
        }
        let canonical_axis = [0, 1, 2].map(|stored| self.canonical_axis(stored));
        canonical.permuted_axes(canonical_axis).as_standard_layout().into_owned()
    }

    /// The shape of the canonical array, given that of the stored one.
    pub fn canonical_shape(&self, native: [usize; 3]) -> [usize; 3] {
        self.source.map(|stored| native[stored])
    }

    /// The shape of the stored array, given that of the canonical one.
    pub fn native_shape(&self, canonical: [usize; 3]) -> [usize; 3] {
        [0, 1, 2].map(|stored| canonical[self.canonical_axis(stored)])
    }

    /// The affine of the canonical array, given that of the stored one. Every voxel keeps its position in the patient.
    pub fn canonical_affine(&self, affine: &[[f64; 4]; 4], native_shape: [usize; 3]) -> [[f64; 4]; 4] {
        let mut canonical = *affine;
        for axis in 0..3 {
            let stored = self.source[axis];
            let last = (native_shape[stored] - 1) as f64;
            for row in 0..3 {
                let step = affine[row][2 - stored];
                canonical[row][2 - axis] = if self.reversed[axis] { -step } else { step };
                canonical[row][3] += if self.reversed[axis] { step * last } else { 0.0 };
            }
        }
        canonical
    }

    /// Converts a range of slices, along the canonical z, from the file's numbers to canonical ones. `count` is their number.
    pub fn canonical_slices(&self, stored: &RangeInclusive<usize>, count: usize) -> Range<usize> {
        let (first, end) = (*stored.start(), stored.end() + 1);
        if self.reversed[0] { count - end..count - first } else { first..end }
    }

    fn canonical_axis(&self, stored: usize) -> usize {
        self.source.iter().position(|&source| source == stored).expect("a permutation has every axis")
    }
}

impl Orientation {
    /// To the nearest anatomical axes: z to S, y to A, x to R.
    pub fn anatomical(geometry: &Geometry) -> Self {
        Self::towards(&geometry.affine_mm, &ANATOMICAL, None)
    }

    /// Directions in which the stored x, y, z grow, of an orientation to the anatomical axes.
    pub(super) fn codes(&self) -> String {
        let code = |stored: usize| {
            let axis = self.canonical_axis(stored);
            [["S", "I"], ["A", "P"], ["R", "L"]][axis][usize::from(self.reversed[axis])]
        };
        [2, 1, 0].map(code).concat()
    }
}

/// S, A and R as (R, A, S).
const ANATOMICAL: [[f64; 3]; 3] = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]];

/// Where the axes k, j, i of an affine point, each of length 1.
pub(super) fn directions_of(affine: &[[f64; 4]; 4]) -> [[f64; 3]; 3] {
    [2, 1, 0].map(|column| unit([0, 1, 2].map(|row| affine[row][column])))
}

/// The determinant of the upper left 3 x 3 part.
pub fn determinant(affine: &[[f64; 4]; 4]) -> f64 {
    let a = affine;
    let minor = |i: usize, j: usize| a[1][i] * a[2][j] - a[1][j] * a[2][i];
    a[0][0] * minor(1, 2) - a[0][1] * minor(0, 2) + a[0][2] * minor(0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: [usize; 3] = [2, 3, 4];

    /// All 48, each with an affine that it is nearest to: spacing 2, 3, 5, tilted by a few degrees, off the origin.
    fn all() -> Vec<(Orientation, [[f64; 4]; 4])> {
        let mut all = Vec::new();
        for source in PERMUTATIONS {
            for flips in 0..8 {
                let reversed = [0, 1, 2].map(|axis| flips >> axis & 1 == 1);
                let mut affine =
                    [[0.1, -0.2, 0.15, -40.0], [0.2, 0.1, -0.1, 7.5], [-0.1, 0.2, 0.1, 31.0], [0.0, 0.0, 0.0, 1.0]];
                for axis in 0..3 {
                    let sign = if reversed[axis] { -1.0 } else { 1.0 };
                    affine[2 - axis][2 - source[axis]] = sign * [2.0, 3.0, 5.0][axis];
                }
                all.push((Orientation { source, reversed }, affine));
            }
        }
        all
    }

    fn place(affine: &[[f64; 4]; 4], [z, y, x]: [usize; 3]) -> [f64; 3] {
        [0, 1, 2].map(|r| affine[r][0] * x as f64 + affine[r][1] * y as f64 + affine[r][2] * z as f64 + affine[r][3])
    }

    #[test]
    fn the_nearest_of_the_48_is_found() {
        for (orientation, affine) in all() {
            assert_eq!(nearest(&affine), orientation);
        }
    }

    fn nearest(affine: &[[f64; 4]; 4]) -> Orientation {
        Orientation::towards(affine, &ANATOMICAL, None)
    }

    #[test]
    fn one_after_the_other_is_the_same_as_both_at_once() {
        let native = Array3::from_shape_vec(NATIVE, (0..24).collect()).unwrap();
        for (first, _) in all() {
            for (second, _) in all() {
                let twice = second.to_canonical(first.to_canonical(native.clone()));
                assert_eq!(first.then(second).to_canonical(native.clone()), twice);
            }
        }
    }

    #[test]
    fn slices_come_first_where_they_are_thick_and_nothing_is_mirrored() {
        for (orientation, affine) in all() {
            for (stored, thick) in [(0, 1.0), (0, 9.0), (1, 9.0), (2, 9.0)] {
                let mut affine = affine;
                let lengths = directions_of(&affine).map(|_| 1.0);
                for (axis, direction) in directions_of(&affine).into_iter().enumerate() {
                    let mm = lengths[axis] * if axis == stored { thick } else { 1.0 };
                    (0..3).for_each(|row| affine[row][2 - axis] = mm * direction[row]);
                }
                let geometry = Geometry { shape_vox: NATIVE, affine_mm: affine };
                let canonical = Orientation::canonical(&geometry);
                assert_eq!(canonical.source[0], if thick > 1.0 { stored } else { orientation.source[0] });
                let turned = directions_of(&canonical.canonical_affine(&affine, NATIVE));
                assert!(turned.iter().all(|axis| axis.iter().any(|part| *part > 0.9)), "along S, A and R: {turned:?}");
            }
        }
    }

    #[test]
    fn there_and_back_is_identity_and_canonical_is_canonical() {
        let native = Array3::from_shape_vec(NATIVE, (0..24).collect()).unwrap();
        for (orientation, affine) in all() {
            let canonical = orientation.to_canonical(native.clone());
            assert_eq!(canonical.shape(), orientation.canonical_shape(NATIVE));
            assert_eq!(orientation.native_shape(orientation.canonical_shape(NATIVE)), NATIVE);
            assert_eq!(orientation.to_native(canonical.view()), native);
            let canonical_affine = orientation.canonical_affine(&affine, NATIVE);
            assert_eq!(nearest(&canonical_affine), Orientation::CANONICAL);
        }
    }

    #[test]
    fn axial_slices_are_the_same_ones_however_the_file_counts_them() {
        let index = Array3::from_shape_fn(NATIVE, |(z, y, x)| [z, y, x]);
        for (orientation, _) in all() {
            let canonical = orientation.to_canonical(index.clone());
            let (count, stored) = (canonical.len_of(Axis(0)), |slice: usize| canonical[[slice, 0, 0]]);
            for (first, last) in [(0, 0), (1, 1), (0, count - 1)] {
                let slices = orientation.canonical_slices(&(first..=last), count);
                let axis = orientation.source[0];
                let mut back: Vec<usize> = slices.map(|slice| stored(slice)[axis]).collect();
                back.sort_unstable();
                assert_eq!(back, (first..=last).collect::<Vec<_>>(), "{orientation:?}");
            }
        }
    }

    #[test]
    fn every_voxel_keeps_its_place_in_the_patient() {
        let index = Array3::from_shape_fn(NATIVE, |(z, y, x)| [z, y, x]);
        for (orientation, affine) in all() {
            let canonical_affine = orientation.canonical_affine(&affine, NATIVE);
            for ((z, y, x), &stored) in orientation.to_canonical(index.clone()).indexed_iter() {
                let (here, there) = (place(&canonical_affine, [z, y, x]), place(&affine, stored));
                assert!((0..3).all(|r| (here[r] - there[r]).abs() < 1e-9), "{orientation:?}: {here:?} {there:?}");
            }
        }
    }
}
