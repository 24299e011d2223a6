//! Where a class ends along z, when somebody has said in which slices it lies: nothing of it is elsewhere, and some of it is in each of
//! them. Networks lose the end slices of an organ, which show little of it.

use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use std::ops::Range;

/// Of the area that a class has in a slice at least this share is in the next one outwards.
const SHARE: f64 = 0.5;

/// The slices of a scan that show a class, where they are known.
pub type Slices = Option<Range<usize>>;

/// Sets to 0 what lies outside of the slices of its class; `slices[i]` belongs to `values[i]`, and of none none are known.
pub fn cut(labels: &mut Array3<i32>, values: &[i32], slices: &[Slices]) {
    for (value, range) in values.iter().zip(slices).filter_map(|(value, range)| Some((value, range.as_ref()?))) {
        for (_, mut slice) in labels.outer_iter_mut().enumerate().filter(|(z, _)| !range.contains(z)) {
            slice.mapv_inplace(|label| if label == *value { 0 } else { label });
        }
    }
}

/// Draws a class in those of its slices that show none of it, or less than half of what the slice further in shows: at least
/// the innermost half of that one's mask. A class that was found nowhere stays so.
pub fn reach(labels: &mut Array3<i32>, values: &[i32], slices: &[Slices]) {
    for (&value, range) in values.iter().zip(slices).filter_map(|(value, range)| Some((value, range.as_ref()?))) {
        let area =
            |labels: &Array3<i32>, z: usize| labels.index_axis(Axis(0), z).iter().filter(|l| **l == value).count();
        let Some(widest) = range.clone().rev().max_by_key(|&z| area(labels, z)) else { continue };
        if area(labels, widest) == 0 {
            continue;
        }
        let downwards = (range.start..widest).rev().map(|z| (z, z + 1));
        for (z, inner) in downwards.chain((widest + 1..range.end).map(|z| (z, z - 1))) {
            let least = (SHARE * area(labels, inner) as f64).round().max(1.0) as usize;
            if area(labels, z) < least {
                let mask = labels.index_axis(Axis(0), inner).mapv(|label| label == value);
                let core = innermost(mask.view(), least);
                let mut slice = labels.index_axis_mut(Axis(0), z);
                slice.zip_mut_with(&core, |label, &is_core| *label = if is_core { value } else { *label });
            }
        }
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
        cut(&mut cut_off, &[1, 2], &[Some(5..20), None]);
        assert_eq!(areas(&cut_off, 1), [0, 0, 0, 0, 0, 100, 100, 100, 0, 0, 0, 0]);
        assert_eq!(areas(&cut_off, 2), [9; 12]);
        let mut as_it_was = labels();
        cut(&mut as_it_was, &[1, 2], &[]);
        assert_eq!(as_it_was, labels());
    }

    #[test]
    fn slices_without_the_class_get_the_middle_of_the_slice_further_in() {
        let mut reached = labels();
        reached.slice_mut(s![7, 5..15, 5..11]).fill(0); // 40 voxels are left
        reach(&mut reached, &[1, 2], &[Some(2..9), None]);
        assert_eq!(areas(&reached, 1), [0, 0, 36, 64, 100, 100, 100, 80, 48, 0, 0, 0]); // whole rings of voxels
        assert_eq!(areas(&reached, 2), [9; 12]);
        assert!(reached[[2, 9, 9]] == 1 && reached[[2, 5, 5]] == 0, "the middle, not a corner");
        assert!(reached.slice(s![7, 5..15, 11..15]).iter().all(|label| *label == 1), "what was found stays");
    }

    #[test]
    fn what_was_found_nowhere_stays_so_and_half_a_voxel_is_one() {
        let mut nothing = labels().mapv(|label| if label == 1 { 0 } else { label });
        let before = nothing.clone();
        reach(&mut nothing, &[1, 2], &[Some(2..9), Some(3..3)]);
        assert_eq!(nothing, before);
        nothing[[5, 9, 9]] = 1;
        reach(&mut nothing, &[1], &[Some(3..7)]);
        assert_eq!(areas(&nothing, 1), [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    }
}
