//! Dice between label maps.
//!
//! Definition for empty masks:
//!
//! | truth | prediction | Dice |
//! |---|---|---|
//! | some | some | 2 \|P ∩ T\| / (\|P\| + \|T\|) |
//! | some | none | 0 |
//! | none | none | not scored (`None`) |
//! | none | some | not scored (`None`); the predicted volume is reported as false positive volume |
//!
//! A query that does not show a class gives no information about the accuracy of the class's shape, and a 0 or a 1 in
//! its place would make the mean depend on the field of view. False positives are reported separately.

use crate::volume::Geometry;
use ndarray::{ArrayView2, ArrayView3, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Number of voxels that carry a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Voxels with the label in both maps.
    pub both: u64,
    /// Voxels with the label in the prediction.
    pub prediction: u64,
    /// Voxels with the label in the truth.
    pub truth: u64,
}

impl Overlap {
    /// Counts `label` in two maps `[z, y, x]` of one shape.
    ///
    /// # Panics
    /// The shapes differ.
    pub fn of(prediction: ArrayView3<i32>, truth: ArrayView3<i32>, label: i32) -> Self {
        assert_eq!(prediction.shape(), truth.shape(), "prediction and truth lie on one grid");
        (0..truth.len_of(Axis(0)))
            .into_par_iter()
            .map(|z| Self::of_slice(prediction.index_axis(Axis(0), z), truth.index_axis(Axis(0), z), label))
            .reduce(Self::default, Self::plus)
    }

    /// 2 |P ∩ T| / (|P| + |T|); `None` if the truth is empty.
    pub fn dice(self) -> Option<f64> {
        (self.truth > 0).then(|| 2.0 * self.both as f64 / (self.prediction + self.truth) as f64)
    }

    fn of_slice(prediction: ArrayView2<i32>, truth: ArrayView2<i32>, label: i32) -> Self {
        let mut sum = Self::default();
        for (p, t) in prediction.rows().into_iter().zip(truth.rows()) {
            sum = sum.plus(match (p.as_slice(), t.as_slice()) {
                (Some(p), Some(t)) => Self::of_pairs(p.iter().zip(t), label),
                _ => Self::of_pairs(p.iter().zip(&t), label),
            });
        }
        sum
    }

    fn of_pairs<'a>(pairs: impl Iterator<Item = (&'a i32, &'a i32)>, label: i32) -> Self {
        let [mut both, mut prediction, mut truth] = [0u32; 3]; // a row is short; 32 bits vectorise better
        for (&p, &t) in pairs {
            let (p, t) = (u32::from(p == label), u32::from(t == label));
            both += p & t;
            prediction += p;
            truth += t;
        }
        Self { both: both.into(), prediction: prediction.into(), truth: truth.into() }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            both: self.both + other.both,
            prediction: self.prediction + other.prediction,
            truth: self.truth + other.truth,
        }
    }
}

/// Dice of `label` over the whole volume `[z, y, x]`: 2 |P ∩ T| / (|P| + |T|); `None` if the truth does not show the
/// class.
///
/// ```
/// let truth = ndarray::arr3(&[[[0, 1, 1, 0]]]);
/// let prediction = ndarray::arr3(&[[[0, 0, 1, 0]]]);
/// let dice = ssl3d::metrics::dice(prediction.view(), truth.view(), 1);
/// assert_eq!(dice, Some(2.0 * 1.0 / (1.0 + 2.0)));
/// assert_eq!(ssl3d::metrics::dice(prediction.view(), truth.view(), 2), None);
/// ```
pub fn dice(prediction: ArrayView3<i32>, truth: ArrayView3<i32>, label: i32) -> Option<f64> {
    Overlap::of(prediction, truth, label).dice()
}

/// Dice of `label` over the slices from the first to the last that show the class in the truth (EP1), without false
/// positives above and below; `None` if the truth does not show the class.
pub fn dice_in_z_range(prediction: ArrayView3<i32>, truth: ArrayView3<i32>, label: i32) -> Option<f64> {
    assert_eq!(prediction.shape(), truth.shape(), "prediction and truth lie on one grid");
    let range = z_range(truth, label)?;
    dice(prediction.slice(s![range.clone(), .., ..]), truth.slice(s![range, .., ..]), label)
}

/// The slices from the first to the last that show `label`; `None` if there is none.
pub fn z_range(labels: ArrayView3<i32>, label: i32) -> Option<Range<usize>> {
    let shows = |z: &usize| labels.index_axis(Axis(0), *z).iter().any(|&l| l == label);
    let slices = labels.len_of(Axis(0));
    let first = (0..slices).find(shows)?;
    let last = (first..slices).rev().find(shows)?;
    Some(first..last + 1)
}

/// Volume of `label` in millilitres.
pub fn volume_ml(labels: ArrayView3<i32>, label: i32, geometry: &Geometry) -> f64 {
    Overlap::of(labels, labels, label).truth as f64 * geometry.voxel_mm3() / 1000.0
}

/// One label of a segmented scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Voxels that carry the label.
    pub voxels: usize,
    /// Their volume in millilitres.
    pub volume_ml: f64,
    /// Over these voxels; none where there are none.
    pub mean_probability: Option<f64>,
}

impl Measured {
    /// A label with its probability on the same grid.
    pub fn of(labels: ArrayView3<i32>, label: i32, probability: ArrayView3<f32>, geometry: &Geometry) -> Self {
        let inside = labels.iter().zip(&probability).filter(|(other, _)| **other == label);
        let (voxels, sum) = inside.fold((0, 0.0), |(count, sum), (_, p)| (count + 1, sum + f64::from(*p)));
        let mean_probability = (voxels > 0).then(|| sum / voxels as f64);
        Self { voxels, volume_ml: volume_ml(labels, label, geometry), mean_probability }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use rand::RngExt;

    fn random(shape: [usize; 3], labels: i32, purpose: &str) -> Array3<i32> {
        let mut rng = crate::rng::stream(3, purpose, 0);
        Array3::from_shape_fn(shape, |_| rng.random_range(0..labels))
    }

    #[test]
    fn the_table_of_empty_masks_holds() {
        let none = Array3::<i32>::zeros((2, 2, 2));
        let some = Array3::from_elem((2, 2, 2), 7);
        for (prediction, truth, expected) in
            [(&some, &some, Some(1.0)), (&none, &some, Some(0.0)), (&none, &none, None), (&some, &none, None)]
        {
            assert_eq!(dice(prediction.view(), truth.view(), 7), expected);
            assert_eq!(dice_in_z_range(prediction.view(), truth.view(), 7), expected);
        }
    }

    #[test]
    fn two_slabs_that_share_one_of_their_two_slices_have_dice_one_half() {
        let slab = |slices: Range<usize>| Array3::from_shape_fn((5, 3, 4), |(z, _, _)| i32::from(slices.contains(&z)));
        assert_eq!(dice(slab(1..3).view(), slab(2..4).view(), 1), Some(0.5));
        // Within the truth's slices 2 and 3: 12 shared of 12 + 24.
        assert_eq!(dice_in_z_range(slab(1..3).view(), slab(2..4).view(), 1), Some(2.0 * 12.0 / 36.0));
    }

    #[test]
    fn counting_equals_the_plain_loop_on_any_memory_layout() {
        let (a, b) = (random([5, 6, 7], 4, "a"), random([7, 6, 5], 4, "b"));
        for (a, b) in [(a.view(), b.view().reversed_axes()), (a.slice(s![..;-1, .., ..]), a.view())] {
            for label in 0..5 {
                let mut expected = Overlap::default();
                for (index, &t) in b.indexed_iter() {
                    expected.both += u64::from(a[index] == label && t == label);
                    expected.prediction += u64::from(a[index] == label);
                    expected.truth += u64::from(t == label);
                }
                assert_eq!(Overlap::of(a, b, label), expected);
            }
        }
    }

    #[test]
    fn a_z_range_spans_gaps() {
        let mut labels = Array3::<i32>::zeros((6, 2, 2));
        labels[[1, 0, 0]] = 3;
        labels[[4, 1, 1]] = 3;
        assert_eq!(z_range(labels.view(), 3), Some(1..5));
        assert_eq!(z_range(labels.view(), 2), None);
    }

    #[test]
    fn a_thousand_cubic_millimetres_are_one_millilitre() {
        let geometry = Geometry::with_spacing([2, 5, 5], [5.0, 2.0, 2.0]);
        assert!((volume_ml(Array3::from_elem((2, 5, 5), 9).view(), 9, &geometry) - 50.0 * 20.0 / 1000.0).abs() < 1e-12);
    }
}
