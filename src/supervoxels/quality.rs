//! Quality of regions as pseudo-labels, measured against annotated organs.

use crate::volume::LabelMap;
use ndarray::{Array3, ArrayView3, Axis};
use std::collections::{BTreeMap, HashMap};

/// Scores of one scan.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quality {
    /// Dice of the best single region, for each organ that the scan shows.
    pub best_region_dice: BTreeMap<String, f64>,
    /// Mean of `best_region_dice` over those organs.
    pub mean_best_region_dice: f64,
    /// Fraction of voxels that have the right class if each region gets its most frequent class.
    pub achievable_segmentation_accuracy: f64,
    /// Voxels by which regions extend beyond the organs that they meet, per organ voxel.
    pub undersegmentation_error: f64,
    /// Fraction of the organs' border voxels with a region's border nearby.
    pub boundary_recall: f64,
}

impl Quality {
    /// The mean over scans, and organ by organ over those that show the organ; None of no scan.
    pub fn mean<'a>(scans: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let scored: Vec<&Self> = scans.collect();
        if scored.is_empty() {
            return None;
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let mut by_organ: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (organ, &dice) in scored.iter().flat_map(|quality| &quality.best_region_dice) {
            by_organ.entry(organ.clone()).or_default().push(dice);
        }
        let over_scans = |of: fn(&Self) -> f64| mean(scored.iter().map(|quality| of(quality)).collect());
        Some(Self {
            mean_best_region_dice: over_scans(|quality| quality.mean_best_region_dice),
            best_region_dice: by_organ.into_iter().map(|(organ, dice)| (organ, mean(dice))).collect(),
            achievable_segmentation_accuracy: over_scans(|quality| quality.achievable_segmentation_accuracy),
            undersegmentation_error: over_scans(|quality| quality.undersegmentation_error),
            boundary_recall: over_scans(|quality| quality.boundary_recall),
        })
    }
}

/// Largest in-plane distance along x and y from an organ's border voxel to a region's, for the first to count as
/// recalled.
const BOUNDARY_TOLERANCE_VOX: usize = 2;

/// Scores regions (label 0 counts as a region of its own) against the organs in `classes`; other labels of `organs` are
/// background.
///
/// - best region Dice: max_r 2 |O and r| / (|O| + |r|), r > 0;
/// - achievable segmentation accuracy (Liu et al., *Entropy rate superpixel segmentation*, CVPR 2011): sum_r max_c |r
///   and c| / N over all voxels, background being a class;
/// - undersegmentation error after Neubert and Protzel (*Superpixel benchmark and comparison*, 2012): sum_O sum_{r
///   meets O} min(|r and O|, |r without O|) / sum_O |O|. They also sum over the background segment and divide by all
///   voxels; here air would then hide the organs;
/// - boundary recall (Martin et al., TPAMI 2004): the fraction of the organs' in-plane border voxels with a region's
///   border voxel at most 2 voxels away along x and y in the same slice.
///
/// `None` if the scan shows none of the organs.
pub fn measure(regions: ArrayView3<i32>, organs: &LabelMap, classes: &BTreeMap<String, i32>) -> Option<Quality> {
    let class_of = |label: i32| if classes.values().any(|&class| class == label) { label } else { 0 };
    let organs = organs.voxels.mapv(class_of);
    let mut overlaps: HashMap<(i32, i32), u64> = HashMap::new();
    let mut pending = ((0, 0), 0); // neighbours mostly agree: count runs before touching the table
    for (&region, &organ) in regions.iter().zip(&organs) {
        if (region, organ) != pending.0 {
            *overlaps.entry(pending.0).or_default() += pending.1;
            pending = ((region, organ), 0);
        }
        pending.1 += 1;
    }
    *overlaps.entry(pending.0).or_default() += pending.1;
    overlaps.retain(|_, voxels| *voxels > 0);
    let mut region_vox: HashMap<i32, u64> = HashMap::new();
    let mut organ_vox: HashMap<i32, u64> = HashMap::new();
    let mut most_of_region: HashMap<i32, u64> = HashMap::new();
    for (&(region, organ), &voxels) in &overlaps {
        *region_vox.entry(region).or_default() += voxels;
        *organ_vox.entry(organ).or_default() += voxels;
        let most = most_of_region.entry(region).or_default();
        *most = voxels.max(*most);
    }
    let mut best_region_dice = BTreeMap::new();
    let (mut leaked, mut labelled) = (0, 0);
    for (name, class) in classes {
        let Some(&own) = organ_vox.get(class) else { continue };
        let mut best = 0f64;
        for (&(region, _), &shared) in overlaps.iter().filter(|((_, organ), _)| organ == class) {
            let size = region_vox[&region];
            if region != 0 {
                best = best.max(2.0 * shared as f64 / (own + size) as f64);
            }
            leaked += shared.min(size - shared);
        }
        labelled += own;
        best_region_dice.insert(name.clone(), best);
    }
    if best_region_dice.is_empty() {
        return None;
    }
    Some(Quality {
        mean_best_region_dice: best_region_dice.values().sum::<f64>() / best_region_dice.len() as f64,
        best_region_dice,
        achievable_segmentation_accuracy: most_of_region.values().sum::<u64>() as f64 / regions.len() as f64,
        undersegmentation_error: leaked as f64 / labelled as f64,
        boundary_recall: boundary_recall(regions, organs.view(), BOUNDARY_TOLERANCE_VOX),
    })
}

/// Number of voxels of each region, for regions 1..=n.
pub fn sizes_vox(regions: ArrayView3<i32>) -> Vec<usize> {
    let mut sizes = Vec::new();
    for &region in regions.iter().filter(|&&region| region > 0) {
        let region = region as usize;
        if sizes.len() < region {
            sizes.resize(region, 0);
        }
        sizes[region - 1] += 1;
    }
    sizes
}

/// The boundary recall; 1 if the organs have no border.
fn boundary_recall(regions: ArrayView3<i32>, organs: ArrayView3<i32>, tolerance_vox: usize) -> f64 {
    let (recalled, wanted) = (borders(regions), borders(organs));
    let [_, height, width] = organs.dim().into();
    let (mut hits, mut total) = (0, 0);
    for ((z, y, x), _) in wanted.indexed_iter().filter(|(_, border)| **border) {
        let rows = y.saturating_sub(tolerance_vox)..(y + tolerance_vox + 1).min(height);
        let columns = x.saturating_sub(tolerance_vox)..(x + tolerance_vox + 1).min(width);
        let slice = recalled.index_axis(Axis(0), z);
        total += 1;
        hits += usize::from(rows.into_iter().any(|y| columns.clone().any(|x| slice[[y, x]])));
    }
    if total == 0 { 1.0 } else { hits as f64 / total as f64 }
}

/// Voxels whose right or front neighbour in the slice has another label: borders one voxel thick.
fn borders(labels: ArrayView3<i32>) -> Array3<bool> {
    let [_, height, width] = labels.dim().into();
    Array3::from_shape_fn(labels.dim(), |(z, y, x)| {
        let label = labels[[z, y, x]];
        (x + 1 < width && labels[[z, y, x + 1]] != label) || (y + 1 < height && labels[[z, y + 1, x]] != label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Geometry, Volume};
    use ndarray::arr3;

    fn map(voxels: Array3<i32>) -> LabelMap {
        let geometry = Geometry::with_spacing(voxels.dim().into(), [1.0; 3]);
        Volume { voxels, geometry }
    }

    #[test]
    fn scores_follow_their_formulas() {
        let regions = arr3(&[[[1, 1, 2, 2], [1, 1, 2, 2]]]);
        let organs = map(arr3(&[[[0, 7, 7, 7], [0, 0, 7, 7]]]));
        let classes = BTreeMap::from([("liver".to_owned(), 7), ("spleen".to_owned(), 4)]);
        let quality = measure(regions.view(), &organs, &classes).unwrap();
        assert_eq!(quality.best_region_dice, BTreeMap::from([("liver".to_owned(), 2.0 * 4.0 / (5.0 + 4.0))]));
        assert_eq!(quality.mean_best_region_dice, 8.0 / 9.0);
        assert_eq!(quality.achievable_segmentation_accuracy, (3.0 + 4.0) / 8.0);
        assert_eq!(quality.undersegmentation_error, (1.0 + 0.0) / 5.0);
        assert_eq!(quality.boundary_recall, 1.0);
        assert_eq!(sizes_vox(regions.view()), [4, 4]);
    }

    #[test]
    fn regions_equal_to_the_organs_are_perfect_and_a_scan_without_organs_has_no_score() {
        let organs = map(arr3(&[[[0, 1, 1], [2, 2, 0]], [[0, 1, 0], [2, 0, 0]]]));
        let classes = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let quality = measure(organs.voxels.view(), &organs, &classes).unwrap();
        assert_eq!(quality.mean_best_region_dice, 1.0);
        assert_eq!(quality.achievable_segmentation_accuracy, 1.0);
        assert_eq!(quality.undersegmentation_error, 0.0);
        assert_eq!(quality.boundary_recall, 1.0);
        assert_eq!(measure(organs.voxels.view(), &map(Array3::zeros((2, 2, 3))), &classes), None);
    }

    #[test]
    fn a_border_counts_as_recalled_up_to_the_tolerance_and_no_further() {
        let edge = |at: usize| Array3::from_shape_fn((1, 4, 12), |(_, _, x)| i32::from(x >= at));
        for (shift, recall) in [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)] {
            assert_eq!(boundary_recall(edge(5 + shift).view(), edge(5).view(), 2), recall);
        }
    }
}
