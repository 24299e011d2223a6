//! Labels that are one piece in a support stay one piece in what is found.

use super::connectivity::{Neighbourhood, components};
use ndarray::{Array3, ArrayView3, Axis};
use std::collections::{BTreeMap, BTreeSet};

/// A component below this share of its label's voxels is a slip of the hand and no piece.
const PIECE: f64 = 0.05;

/// The labels other than 0 and `ignore` whose voxels touch by faces, slips aside. Where `ignore` leaves slices open, what
/// touches is looked at slice by slice.
pub fn one_pieces(labels: ArrayView3<i32>, ignore: Option<i32>) -> BTreeSet<i32> {
    let is_open = ignore.is_some_and(|ignore| labels.iter().any(|&label| label == ignore));
    let slabs: Vec<ArrayView3<i32>> =
        if is_open { labels.axis_chunks_iter(Axis(0), 1).collect() } else { vec![labels] };
    let mut most = BTreeMap::<i32, usize>::new();
    for slab in slabs {
        let sizes = sizes(slab).1;
        for &(_, label) in &sizes {
            let of_label = || sizes.iter().filter(|(_, other)| *other == label).map(|(size, _)| *size);
            let total: usize = of_label().sum();
            let pieces = of_label().filter(|&size| size as f64 >= PIECE * total as f64).count();
            let most = most.entry(label).or_default();
            *most = pieces.max(*most);
        }
    }
    let named = |&(label, pieces): &(i32, usize)| pieces == 1 && label != 0 && Some(label) != ignore;
    most.into_iter().filter(named).map(|(label, _)| label).collect()
}

/// Sets to 0 whatever carries one of `one_pieces` and does not touch the largest component of its label by a face; of
/// equally large ones the first stays.
pub fn keep_largest(labels: &mut Array3<i32>, one_pieces: &BTreeSet<i32>) {
    let (component, sizes) = sizes(labels.view());
    let mut largest = BTreeMap::<i32, (usize, i32)>::new();
    for (component, &(size, label)) in (0..).zip(&sizes) {
        let best = largest.entry(label).or_insert((size, component));
        if size > best.0 {
            *best = (size, component);
        }
    }
    for (label, &component) in labels.iter_mut().zip(&component) {
        if one_pieces.contains(label) && largest[label].1 != component {
            *label = 0;
        }
    }
}

/// The component of each voxel, with 0 for all of label 0, and the voxels and the label of each.
fn sizes(labels: ArrayView3<i32>) -> (Array3<i32>, Vec<(usize, i32)>) {
    let (component, count) = components(labels, Neighbourhood::Faces);
    let mut sizes = vec![(0, 0); count + 1];
    for (&component, &label) in component.iter().zip(&labels) {
        let (size, _) = sizes[component as usize];
        sizes[component as usize] = (size + 1, label);
    }
    (component, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn labels_of_one_piece_keep_their_largest_component_and_others_all() {
        let labels = array![[[1, 1, 0, 2, 2], [0, 0, 1, 0, 2], [2, 0, 1, 1, 0], [2, 0, 0, 0, 7]]];
        for (one_pieces, expected) in [
            (vec![1, 2, 7], array![[[0, 0, 0, 2, 2], [0, 0, 1, 0, 2], [0, 0, 1, 1, 0], [0, 0, 0, 0, 7]]]),
            (vec![1], array![[[0, 0, 0, 2, 2], [0, 0, 1, 0, 2], [2, 0, 1, 1, 0], [2, 0, 0, 0, 7]]]),
            (vec![], labels.clone()),
        ] {
            let mut found = labels.clone();
            keep_largest(&mut found, &one_pieces.into_iter().collect());
            assert_eq!(found, expected);
        }
        let mut nothing = Array3::<i32>::zeros((2, 3, 4));
        keep_largest(&mut nothing, &[1].into());
        assert_eq!(nothing, Array3::<i32>::zeros((2, 3, 4)));
    }

    #[test]
    fn slips_do_not_count_and_slices_between_open_ones_are_looked_at_alone() {
        // Label 1 in one large piece with a slip far away, label 2 in two pieces.
        let mut labels = Array3::<i32>::zeros((5, 6, 8));
        labels.slice_mut(ndarray::s![.., 0..3, 0..3]).fill(1);
        labels[[0, 5, 7]] = 1;
        labels.slice_mut(ndarray::s![0..2, 4..6, 0..2]).fill(2);
        labels.slice_mut(ndarray::s![3..5, 4..6, 0..2]).fill(2);
        assert_eq!(one_pieces(labels.view(), None), [1].into());
        // With slices 1 and 2 not annotated, neither is more than one piece anywhere but for the slip, a tenth of a slice.
        labels.slice_mut(ndarray::s![1..3, .., ..]).fill(255);
        assert_eq!(one_pieces(labels.view(), Some(255)), [2].into());
        labels[[0, 5, 7]] = 0;
        assert_eq!(one_pieces(labels.view(), Some(255)), [1, 2].into());
    }
}
