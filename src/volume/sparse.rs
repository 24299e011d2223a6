//! Selection of a few annotated slices, as in the few-shot evaluations.

use ndarray::{Array3, Axis};

/// `labels` `[z, y, x]` in the given axial slices, and `ignore`, the value of unannotated voxels, in all others.
pub fn annotate_slices(labels: &Array3<i32>, slices: &[usize], ignore: i32) -> Array3<i32> {
    let mut sparse = Array3::from_elem(labels.raw_dim(), ignore);
    for &z in slices {
        sparse.index_axis_mut(Axis(0), z).assign(&labels.index_axis(Axis(0), z));
    }
    sparse
}

/// The middle slices of `n` equal chunks of the slices that show `value`, in rising order: of C such slices those of
/// rank floor((2 k + 1) C / (2 n)), k = 0 .. n - 1, i.e. at 1/6, 1/2, 5/6 for n = 3 and the middle one for n = 1
/// (ALPNet, Ouyang et al. 2020, as ADNet's code rounds it). If there are no more than `n` such slices, all of them.
pub fn middle_slices(labels: &Array3<i32>, value: i32, n: usize) -> Vec<usize> {
    let shows = |z: &usize| labels.index_axis(Axis(0), *z).iter().any(|&label| label == value);
    let slices: Vec<usize> = (0..labels.len_of(Axis(0))).filter(shows).collect();
    if slices.len() <= n {
        return slices;
    }
    (0..n).map(|k| slices[(2 * k + 1) * slices.len() / (2 * n)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices `first ..= last` of 40 show label 2 in one corner.
    fn organ(first: usize, last: usize) -> Array3<i32> {
        Array3::from_shape_fn([40, 2, 2], |(z, y, x)| 2 * i32::from((first..=last).contains(&z) && y + x == 0))
    }

    #[test]
    fn the_middles_of_the_chunks_are_chosen() {
        // import numpy as np
        // def get_support_index(n, C):  # ADNet, dataloaders/datasets.py
        //     pcts = [.5] if n == 1 else [1 / (2 * n) + (1 - 1 / n) / (n - 1) * i for i in range(n)]
        //     return (np.array(pcts) * C).astype(int)
        // [10 + get_support_index(n, C) for (C, n) in ...]
        for (count, n, expected) in [
            (12, 3, vec![12, 16, 20]),
            (13, 3, vec![12, 16, 20]),
            (14, 3, vec![12, 17, 21]),
            (17, 3, vec![12, 18, 24]),
            (4, 3, vec![10, 12, 13]),
            (9, 1, vec![14]),
            (10, 1, vec![15]),
            (11, 5, vec![11, 13, 15, 17, 19]),
            (29, 2, vec![17, 31]),
        ] {
            assert_eq!(middle_slices(&organ(10, 9 + count), 2, n), expected, "{count} slices, {n} of them");
        }
    }

    #[test]
    fn no_slice_comes_twice_and_each_shows_the_organ() {
        assert_eq!(middle_slices(&organ(7, 8), 2, 3), [7, 8]);
        assert_eq!(middle_slices(&organ(7, 9), 2, 3), [7, 8, 9]);
        assert_eq!(middle_slices(&organ(7, 9), 1, 3), [0; 0]);
        let mut gap = organ(10, 19);
        gap.slice_mut(ndarray::s![12..18, .., ..]).fill(0); // left: 10 11 18 19
        assert_eq!(middle_slices(&gap, 2, 1), [18]);
    }

    #[test]
    fn all_but_the_slices_is_left_open() {
        let labels = organ(10, 19);
        let sparse = annotate_slices(&labels, &[15, 30], 255);
        for (z, slice) in sparse.outer_iter().enumerate() {
            match z {
                15 | 30 => assert_eq!(slice, labels.index_axis(Axis(0), z)),
                _ => assert!(slice.iter().all(|&label| label == 255), "{z}"),
            }
        }
    }
}
