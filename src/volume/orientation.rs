//! Axis order of files: one of 48 permutations and flips, to the canonical frame and back.

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

    /// The orientation whose axes are closest to those of `affine` (index i, j, k to R, A, S): the sum of
    /// |cos(canonical axis, stored axis)| is greatest.
    pub fn nearest(affine: &[[f64; 4]; 4]) -> Self {
        // Array order on both sides: world axis z, y, x against stored axis k, j, i.
        let cosine = |world: usize, stored: usize| {
            let column = 2 - stored;
            let length = (0..3).map(|row| affine[row][column].powi(2)).sum::<f64>().sqrt();
            affine[2 - world][column] / length
        };
        let closeness = |source: &[usize; 3]| (0..3).map(|axis| cosine(axis, source[axis]).abs()).sum::<f64>();
        let mut source = PERMUTATIONS[0];
        for candidate in PERMUTATIONS {
            // The margin keeps an exact tie (45 degrees) with the first, whatever the rounding.
            if closeness(&candidate) > closeness(&source) + 1e-9 {
                source = candidate;
            }
        }
        Self { source, reversed: [0, 1, 2].map(|axis| cosine(axis, source[axis]) < 0.0) }
    }

    /// Reorders a stored array to the canonical frame; a canonical array is not copied.
    ///
    /// ```
    /// use ssl3d::volume::orientation::Orientation;
    /// let to_left = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    /// let orientation = Orientation::nearest(&to_left);
    /// assert_eq!(orientation.to_string(), "LAS");
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

    /// Converts a range of axial slices from the file's numbers to canonical ones. `count` is the number of axial
    /// slices, along the stored axis that is closest to head-foot.
    pub fn canonical_slices(&self, stored: &RangeInclusive<usize>, count: usize) -> Range<usize> {
        let (first, end) = (*stored.start(), stored.end() + 1);
        if self.reversed[0] { count - end..count - first } else { first..end }
    }

    fn canonical_axis(&self, stored: usize) -> usize {
        self.source.iter().position(|&source| source == stored).expect("a permutation has every axis")
    }
}

/// Directions in which the file's x, y, z grow, as viewers show them: "RAS" is canonical.
impl std::fmt::Display for Orientation {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        [2, 1, 0].into_iter().try_for_each(|stored| {
            let axis = self.canonical_axis(stored);
            f.write_str([["S", "I"], ["A", "P"], ["R", "L"]][axis][usize::from(self.reversed[axis])])
        })
    }
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
    use std::collections::BTreeSet;

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
            assert_eq!(Orientation::nearest(&affine), orientation);
        }
        let names: BTreeSet<_> = all().iter().map(|(orientation, _)| orientation.to_string()).collect();
        assert!(names.len() == 48 && Orientation::CANONICAL.to_string() == "RAS");
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
            assert_eq!(Orientation::nearest(&canonical_affine), Orientation::CANONICAL);
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
                assert_eq!(back, (first..=last).collect::<Vec<_>>(), "{orientation}");
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
                assert!((0..3).all(|r| (here[r] - there[r]).abs() < 1e-9), "{orientation}: {here:?} {there:?}");
            }
        }
    }
}
