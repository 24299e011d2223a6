//! Constraint: a class lies in the slices that are known to show it, and in each of them. Networks miss the end slices of an organ,
//! which show little of it.

use super::{Constraint, greatest_other};
use crate::error::Result;
use crate::inference::config::check_range;
use crate::preprocessing::WorkingGrid;
use crate::prototypes::Competition;
use crate::volume::{Class, ClassMap};
use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tch::Tensor;

/// Section `[inference.slice_range]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Off its slices the score of a class is at least so far below the next. No further, since supervoxels lie across the ends of
    /// an organ.
    pub margin: f64,
    /// Slices of the feature map whose middle lies so many slices beyond the ends still count as inside.
    pub slack_slices: f64,
    /// In each slice of its range a class has at least this fraction of the area that it has in the next slice inwards.
    pub min_area_fraction: f64,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("slice_range.margin", self.margin, 0.0..=1e3)?;
        check_range("slice_range.slack_slices", self.slack_slices, 0.0..=100.0)?;
        check_range("slice_range.min_area_fraction", self.min_area_fraction, 0.0..=1.0)
    }
}

/// The part of a volume's depth that shows a class, from 0 at its first face to 1 at its last one; None where it is not known.
pub type DepthRange = Option<Range<f64>>;

/// The slices of a scan that show each class, where they are known.
///
/// ```
/// use ssl3d::inference::SliceRanges;
/// use ssl3d::volume::Class;
/// let mut ranges = SliceRanges::unknown();
/// ranges.set(Class::at(1), 9..34);
/// assert_eq!((ranges.get(Class::at(0)), ranges.get(Class::at(1))), (None, Some(&(9..34))));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceRanges {
    /// By the index of the class.
    ranges: Vec<Option<Range<usize>>>,
}

impl SliceRanges {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// The slices of one class alone are known.
    pub fn only(class: Class, slices: Range<usize>) -> Self {
        let mut ranges = Self::unknown();
        ranges.set(class, slices);
        ranges
    }

    /// Sets the slices of a class, and gives those that were set before.
    pub fn set(&mut self, class: Class, slices: Range<usize>) -> Option<Range<usize>> {
        if self.ranges.len() <= class.index() {
            self.ranges.resize(class.index() + 1, None);
        }
        self.ranges[class.index()].replace(slices)
    }

    /// The slices of a class, where they are known.
    pub fn get(&self, class: Class) -> Option<&Range<usize>> {
        self.ranges.get(class.index()).and_then(Option::as_ref)
    }

    /// The same as parts of the depth of the network's array.
    pub fn on_grid(&self, grid: &WorkingGrid) -> Vec<DepthRange> {
        self.ranges.iter().map(|slices| slices.as_ref().map(|slices| grid.depth_of(slices))).collect()
    }

    /// The classes whose slices are known, with label values and slices.
    fn known<'a>(&'a self, classes: &'a ClassMap) -> impl Iterator<Item = (i32, &'a Range<usize>)> {
        classes.iter().filter_map(|class| Some((classes.value(class), self.get(class)?)))
    }

    /// Sets to 0 the labels of a class outside of its slices.
    pub fn clear_outside(&self, labels: &mut Array3<i32>, classes: &ClassMap) {
        for (value, range) in self.known(classes) {
            for (_, mut slice) in labels.outer_iter_mut().enumerate().filter(|(z, _)| !range.contains(z)) {
                slice.mapv_inplace(|label| if label == value { 0 } else { label });
            }
        }
    }

    /// Labels a class in those of its slices that show none of it, or too little beside the next slice inwards: the innermost part
    /// of that slice's mask, of the fraction of `config`. A class without any voxel stays so.
    pub fn extend_into_range(&self, labels: &mut Array3<i32>, classes: &ClassMap, config: &Config) {
        for (value, range) in self.known(classes) {
            let area =
                |labels: &Array3<i32>, z: usize| labels.index_axis(Axis(0), z).iter().filter(|l| **l == value).count();
            let Some(widest) = range.clone().rev().max_by_key(|&z| area(labels, z)) else { continue };
            if area(labels, widest) == 0 {
                continue;
            }
            let downwards = (range.start..widest).rev().map(|z| (z, z + 1));
            for (z, inner) in downwards.chain((widest + 1..range.end).map(|z| (z, z - 1))) {
                let least = (config.min_area_fraction * area(labels, inner) as f64).round().max(1.0) as usize;
                if area(labels, z) < least {
                    let mask = labels.index_axis(Axis(0), inner).mapv(|label| label == value);
                    let core = innermost(mask.view(), least);
                    let mut slice = labels.index_axis_mut(Axis(0), z);
                    slice.zip_mut_with(&core, |label, &is_core| *label = if is_core { value } else { *label });
                }
            }
        }
    }
}

/// Slice ranges as a constraint on scores.
pub struct InSliceRange<'a> {
    /// By the index of the class.
    pub ranges: &'a [DepthRange],
    /// Below which class a class is lowered: the background alone, or the greatest of all others.
    pub competition: Competition,
    /// Section `[inference.slice_range]`.
    pub config: &'a Config,
}

impl Constraint for InSliceRange<'_> {
    fn project(&self, scores: Tensor, _is_last: bool) -> Tensor {
        let depth = scores.size()[2];
        self.ranges.iter().enumerate().fold(scores, |scores, (index, range)| {
            let Some(range) = range else { return scores };
            let slack = self.config.slack_slices;
            let is_off = |z: i64| {
                let at = z as f64 + 0.5;
                at < range.start * depth as f64 - slack || at > range.end * depth as f64 + slack
            };
            let off: Vec<bool> = (0..depth).map(is_off).collect();
            let off = Tensor::from_slice(&off).view([1, 1, depth, 1, 1]).to_device(scores.device());
            let channel = Class::at(index).channel() as i64;
            let next = match self.competition {
                Competition::OneVsRest => scores.narrow(1, 0, 1),
                Competition::Joint => greatest_other(&scores, channel),
            };
            let own = scores.narrow(1, channel, 1);
            let lowered = own.minimum(&(next - self.config.margin)).where_self(&off, &own);
            let constrained = scores.copy();
            constrained.narrow(1, channel, 1).copy_(&lowered);
            constrained
        })
    }
}

/// The voxels of a mask that lie deepest in it: `count` of them, and all that lie as deep as the last of these.
fn innermost(mask: ArrayView2<bool>, count: usize) -> Array2<bool> {
    let depths = depths(mask);
    let mut deepest: Vec<usize> = depths.iter().copied().collect();
    deepest.sort_unstable_by(|a, b| b.cmp(a));
    let least = deepest[count.min(deepest.len()) - 1].max(1);
    depths.mapv(|depth| depth >= least)
}

/// Steps from each voxel of a mask over edges of voxels out of it; 0 outside. What lies beyond the slice is outside.
fn depths(mask: ArrayView2<bool>) -> Array2<usize> {
    let (h, w) = mask.dim();
    let mut depths = Array2::zeros((h + 2, w + 2));
    let inside: Vec<(usize, usize)> =
        mask.indexed_iter().filter(|(_, inside)| **inside).map(|((y, x), _)| (y + 1, x + 1)).collect();
    for &(y, x) in &inside {
        depths[[y, x]] = 1 + usize::min(depths[[y - 1, x]], depths[[y, x - 1]]);
    }
    for &(y, x) in inside.iter().rev() {
        depths[[y, x]] = depths[[y, x]].min(1 + usize::min(depths[[y + 1, x]], depths[[y, x + 1]]));
    }
    depths.slice_move(s![1..=h, 1..=w])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_floats;

    const CONFIG: Config = Config { margin: 3.0, slack_slices: 1.0, min_area_fraction: 0.5 };

    fn classes() -> ClassMap {
        ClassMap::new([1, 2]).unwrap()
    }

    fn ranges(of: &[Option<Range<usize>>]) -> SliceRanges {
        SliceRanges { ranges: of.to_vec() }
    }

    /// Scores (1, 3, 6, 1, 1) from those of each class slice by slice.
    fn column(of_classes: &[[f32; 6]; 3]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, 3, 6, 1, 1])
    }

    #[test]
    fn off_its_slices_a_class_is_below_what_is_next_there_and_all_else_stays() {
        let scores = || column(&[[0.0; 6], [5.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        let within = |ranges: &[DepthRange], competition| {
            InSliceRange { ranges, competition, config: &CONFIG }.project(scores(), false)
        };
        // Slices 2 and 3 of six; 1 and 4 may show some of it.
        let ranges = [Some(2.0 / 6.0..4.0 / 6.0), None];
        let expected = column(&[[0.0; 6], [-2.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        assert_eq!(within(&ranges, Competition::Joint), expected);
        // Where each class stands by itself the background alone is next.
        let expected = column(&[[0.0; 6], [-3.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        assert_eq!(within(&ranges, Competition::OneVsRest), expected);
        for nothing in [&[][..], &[None, None]] {
            assert_eq!(within(nothing, Competition::Joint), scores());
        }
    }

    /// Twelve slices; class 1 is 10 x 10 in slices 4 to 7, class 2 a column beside it in all.
    fn labels() -> Array3<i32> {
        let mut labels = Array3::zeros((12, 20, 20));
        labels.slice_mut(s![4..8, 5..15, 5..15]).fill(1);
        labels.slice_mut(s![.., 0..3, 0..3]).fill(2);
        labels
    }

    fn areas(labels: &Array3<i32>, value: i32) -> Vec<usize> {
        labels.outer_iter().map(|slice| slice.iter().filter(|label| **label == value).count()).collect()
    }

    #[test]
    fn what_lies_outside_of_its_slices_goes() {
        let mut cut_off = labels();
        ranges(&[Some(5..20)]).clear_outside(&mut cut_off, &classes());
        assert_eq!(areas(&cut_off, 1), [0, 0, 0, 0, 0, 100, 100, 100, 0, 0, 0, 0]);
        assert_eq!(areas(&cut_off, 2), [9; 12]);
        let mut as_it_was = labels();
        SliceRanges::unknown().clear_outside(&mut as_it_was, &classes());
        assert_eq!(as_it_was, labels());
    }

    #[test]
    fn slices_without_the_class_get_the_middle_of_the_slice_further_in() {
        let mut extended = labels();
        extended.slice_mut(s![7, 5..15, 5..11]).fill(0); // 40 voxels are left
        ranges(&[Some(2..9)]).extend_into_range(&mut extended, &classes(), &CONFIG);
        assert_eq!(areas(&extended, 1), [0, 0, 36, 64, 100, 100, 100, 80, 48, 0, 0, 0]); // whole rings of voxels
        assert_eq!(areas(&extended, 2), [9; 12]);
        assert!(extended[[2, 9, 9]] == 1 && extended[[2, 5, 5]] == 0, "the middle, not a corner");
        assert!(extended.slice(s![7, 5..15, 11..15]).iter().all(|label| *label == 1), "what was found stays");
    }

    #[test]
    fn what_was_found_nowhere_stays_so_and_half_a_voxel_is_one() {
        let mut nothing = labels().mapv(|label| if label == 1 { 0 } else { label });
        let before = nothing.clone();
        ranges(&[Some(2..9), Some(3..3)]).extend_into_range(&mut nothing, &classes(), &CONFIG);
        assert_eq!(nothing, before);
        nothing[[5, 9, 9]] = 1;
        ranges(&[Some(3..7)]).extend_into_range(&mut nothing, &classes(), &CONFIG);
        assert_eq!(areas(&nothing, 1), [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    }
}
