//! Annotated volumes: labels, and the part of the volume that is annotated.

use crate::volume::LabelMap;
use ndarray::{Array3, Axis};

/// The labels of a support and the voxels that are annotated.
///
/// ```
/// use ssl3d::{preprocessing::Annotation, volume::{Geometry, LabelMap}};
/// let voxels = ndarray::arr3(&[[[0, 1]], [[1, 1]], [[255, 2]]]);
/// let labels = LabelMap { geometry: Geometry::with_spacing([3, 1, 2], [7.0, 1.0, 1.0]), voxels };
/// let annotation = Annotation::new(labels, Some(255)); // nobody has decided on one voxel
/// assert!(annotation.known().is_some_and(|known| !known[[2, 0, 0]] && known[[2, 0, 1]]));
/// assert!(annotation.shows(2) && !annotation.on_slices(&[1]).shows(2));
/// ```
#[derive(Debug, Clone)]
pub struct Annotation {
    labels: LabelMap,
    known: Option<Array3<bool>>,
}

impl Annotation {
    /// All of a volume is annotated, but for the voxels of value `ignore`.
    pub fn new(labels: LabelMap, ignore: Option<i32>) -> Self {
        let known = ignore.map(|ignore| labels.voxels.mapv(|label| label != ignore));
        Self::within(labels, known)
    }

    /// Only voxels of `known` are annotated, all where it is None.
    fn within(mut labels: LabelMap, known: Option<Array3<bool>>) -> Self {
        let known = known.filter(|known| known.iter().any(|known| !known));
        if let Some(known) = &known {
            labels.voxels.zip_mut_with(known, |label, known| *label = if *known { *label } else { 0 });
        }
        Self { labels, known }
    }

    /// Label values `[z, y, x]`; 0 where nothing is annotated.
    pub fn labels(&self) -> &LabelMap {
        &self.labels
    }

    /// Which voxels are annotated; None where all are.
    pub fn known(&self) -> Option<&Array3<bool>> {
        self.known.as_ref()
    }

    /// Whether any voxel has this label value.
    pub fn shows(&self, value: i32) -> bool {
        self.labels.voxels.iter().any(|label| *label == value)
    }

    /// The same as if these axial slices alone were annotated.
    pub fn on_slices(&self, slices: &[usize]) -> Self {
        let mut known = Array3::from_elem(self.labels.voxels.raw_dim(), false);
        for &z in slices {
            let mut slice = known.index_axis_mut(Axis(0), z);
            match &self.known {
                Some(known) => slice.assign(&known.index_axis(Axis(0), z)),
                None => slice.fill(true),
            }
        }
        Self::within(self.labels.clone(), Some(known))
    }
}

/// The middle slices of `n` equal chunks of the slices that show `value`, in rising order: of C such slices those of
/// rank floor((2 k + 1) C / (2 n)), k = 0 .. n - 1, i.e. at 1/6, 1/2, 5/6 for n = 3 and the middle one for n = 1
/// (ALPNet, Ouyang et al. 2020, as ADNet's code rounds it). All of them where there are no more than `n`.
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
    fn all_but_the_slices_is_not_annotated() {
        let geometry = crate::volume::Geometry::with_spacing([40, 2, 2], [1.0; 3]);
        let whole = Annotation::new(LabelMap { voxels: organ(10, 19), geometry }, Some(255));
        assert!(whole.known().is_none() && whole.shows(2) && !whole.shows(1));
        let sparse = whole.on_slices(&[15, 30]);
        for (z, known) in sparse.known().unwrap().outer_iter().enumerate() {
            assert!(known.iter().all(|known| *known == [15, 30].contains(&z)), "{z}");
        }
        assert_eq!(sparse.labels().voxels, organ(15, 15));
        // Slices of a volume that is itself annotated in part.
        let (again, other) = (sparse.on_slices(&[15, 16]), whole.on_slices(&[15]));
        assert_eq!((again.known(), &again.labels().voxels), (other.known(), &other.labels().voxels));
        assert!(!sparse.on_slices(&[30]).shows(2));
    }

    #[test]
    fn voxels_of_the_ignored_value_are_not_annotated() {
        let geometry = crate::volume::Geometry::with_spacing([40, 2, 2], [1.0; 3]);
        let labels = || LabelMap { voxels: organ(10, 19), geometry: geometry.clone() };
        let annotation = Annotation::new(labels(), Some(2));
        assert_eq!(annotation.known().unwrap(), &labels().voxels.mapv(|label| label != 2));
        assert!(!annotation.shows(2));
        assert!(Annotation::new(labels(), None).known().is_none());
    }
}
