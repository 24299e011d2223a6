//! Constraint: a class that is one connected component in every support is one component in a query, on scores and on labels.
//!
//! Of several components of scores the one stays whose loss would cost most score where the class is likely, which is not always the
//! largest one. While that one is too small to be the whole of the class, all stay: they may be fragments.

use crate::components::{Component, measured_components};
use crate::error::Result;
use crate::inference::config::check_range;
use crate::inference::supports::Shot;
use crate::preprocessing::Annotation;
use crate::similarity;
use crate::tensor::{from_floats, to_channels};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, Axis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Section `[inference.single_component]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether a class that is one component in every support is one in a query.
    pub enabled: bool,
    /// All components of a class stay while the best of them has less than this fraction of the supports' size: they may be fragments.
    pub min_fraction: f64,
    /// In a support, components below this fraction of the label's voxels are slips of the hand and do not count.
    pub min_component_fraction: f64,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("single_component.min_fraction", self.min_fraction, 0.0..=1.0)?;
        check_range("single_component.min_component_fraction", self.min_component_fraction, 0.0..=1.0)
    }
}

/// Of a class that is one component: the fraction of a volume that it takes at least. None of any other class.
pub type MinFraction = Option<f64>;

/// The label values of an annotation that are one component each; none where the mechanism is off.
pub fn single_component_values(annotation: &Annotation, config: &Config) -> BTreeSet<i32> {
    match config.enabled {
        true => single_components(annotation.labels().voxels.view(), annotation.known().is_some(), config),
        false => BTreeSet::new(),
    }
}

/// The labels other than 0 that are one component by faces, slips aside. Where a volume is annotated in part, each slice is looked at
/// by itself: what lies between the annotated slices is not known.
fn single_components(labels: ArrayView3<i32>, is_partial: bool, config: &Config) -> BTreeSet<i32> {
    let slabs: Vec<ArrayView3<i32>> =
        if is_partial { labels.axis_chunks_iter(Axis(0), 1).collect() } else { vec![labels] };
    let mut most = BTreeMap::<i32, usize>::new();
    for slab in slabs {
        let components = measured_components(slab).1;
        for &Component { label, .. } in &components {
            let of_label = || components.iter().filter(|other| other.label == label).map(|other| other.size_vox);
            let total: usize = of_label().sum();
            let count = of_label().filter(|&size| size as f64 >= config.min_component_fraction * total as f64).count();
            let most = most.entry(label).or_default();
            *most = count.max(*most);
        }
    }
    most.into_iter().filter(|&(label, count)| count == 1 && label != 0).map(|(label, _)| label).collect()
}

/// Sets to 0 each voxel of the label values `single` that is not in the largest component of its label by faces; of equally large
/// components the first stays.
pub fn keep_largest(labels: &mut Array3<i32>, single: &BTreeSet<i32>) {
    if single.is_empty() {
        return;
    }
    let (component, components) = measured_components(labels.view());
    let mut largest = BTreeMap::<i32, (usize, i32)>::new();
    for (component, &Component { size_vox, label }) in (0..).zip(&components) {
        let best = largest.entry(label).or_insert((size_vox, component));
        if size_vox > best.0 {
            *best = (size_vox, component);
        }
    }
    for (label, &component) in labels.iter_mut().zip(&component) {
        if single.contains(label) && largest[label].1 != component {
            *label = 0;
        }
    }
}

/// Of each of `count` classes on the network's grid: the least fraction of a volume that it takes if it is one component in every
/// support that shows it. None of all where the mechanism is off.
pub fn min_fractions(supports: &[Shot], count: usize, config: &Config) -> Vec<MinFraction> {
    if !config.enabled {
        return vec![None; count];
    }
    let mut fractions = vec![Vec::new(); count]; // of each support that shows the class
    let mut is_single = vec![true; count];
    for support in supports {
        let (labels, is_partial) = support.labels();
        let single = single_components(labels.view(), is_partial, config);
        for (channel, (fractions, is_single)) in (1..).zip(fractions.iter_mut().zip(&mut is_single)) {
            let size = labels.iter().filter(|&&label| label == channel).count();
            if size > 0 {
                fractions.push(size as f64 / labels.len() as f64);
                *is_single &= single.contains(&channel);
            }
        }
    }
    let least = |(fractions, is_single): (Vec<f64>, bool)| {
        (is_single && !fractions.is_empty())
            .then(|| config.min_fraction * fractions.iter().sum::<f64>() / fractions.len() as f64)
    };
    fractions.into_iter().zip(is_single).map(least).collect()
}

/// Single components as a constraint on scores.
#[derive(Clone, Copy)]
pub struct SingleComponents<'a> {
    /// By the index of the class.
    pub min_fractions: &'a [MinFraction],
    /// ln p(class | place) (1, 1 + K, ...), where the templates give one.
    pub log_prior: Option<&'a Tensor>,
}

impl SingleComponents<'_> {
    /// Scores (1, 1 + K, d, h, w) under which no class that is one component has more than one (by faces), fragments aside.
    ///
    /// The value of a component is the sum over its voxels of the margin between the class's score and the next, each times
    /// p(class | place) where that is known. All but the most valuable component of a class go to the class of the next score there,
    /// until nothing changes; where the class of a voxel has changed, the scores of both classes are swapped.
    pub fn project(&self, scores: &Tensor) -> Tensor {
        if self.min_fractions.iter().all(Option::is_none) {
            return scores.shallow_clone();
        }
        let mut values = to_channels(scores); // (1 + K, d, h, w)
        let (classes, d, h, w) = values.dim();
        let prior = |prior| to_channels(&similarity::interpolate(prior, [d, h, w].map(|n| n as i64)).exp());
        let prior: Option<Array4<f32>> = self.log_prior.map(prior);
        let mut barred = Array4::from_elem((classes, d, h, w), false);
        // The class of the greatest score that is not barred, and its margin over the next.
        let best = |(z, y, x), barred: ArrayView4<bool>| {
            let (mut class, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
            for index in (0..classes).filter(|&index| !barred[[index, z, y, x]]) {
                let score = values[[index, z, y, x]];
                if score > first {
                    (class, first, second) = (index, score, first);
                } else {
                    second = second.max(score);
                }
            }
            let p = prior.as_ref().map_or(1.0, |prior| prior[[class, z, y, x]]);
            (class as i32, f64::from(first - second) * f64::from(p))
        };
        let (mut labels, mut margins) = (Array3::zeros((d, h, w)), Array3::zeros((d, h, w)));
        for at in ndarray::indices((d, h, w)) {
            (labels[at], margins[at]) = best(at, barred.view());
        }
        let before = labels.clone();
        loop {
            let (component, is_kept) = kept_components(labels.view(), margins.view(), self.min_fractions);
            let mut has_changed = false;
            for (z, y, x) in ndarray::indices((d, h, w)) {
                let at = (z, y, x);
                if !is_kept[component[at] as usize] {
                    barred[[labels[at] as usize, z, y, x]] = true;
                    (labels[at], margins[at]) = best(at, barred.view());
                    has_changed = true;
                }
            }
            if !has_changed {
                break;
            }
        }
        for (((z, y, x), &had), &has) in before.indexed_iter().zip(&labels) {
            if had != has {
                values.swap([had as usize, z, y, x], [has as usize, z, y, x]);
            }
        }
        let values = values.as_standard_layout();
        let projected = from_floats(values.as_slice().expect("in order"), &scores.size());
        projected.to_device(scores.device()).to_kind(scores.kind())
    }
}

/// The component of each voxel, 0 for channel 0, and of each component whether its class keeps it. Of equally valuable ones the first.
fn kept_components(
    labels: ArrayView3<i32>,
    margins: ArrayView3<f64>,
    min_fractions: &[MinFraction],
) -> (Array3<i32>, Vec<bool>) {
    let (component, components) = measured_components(labels);
    let mut values = vec![0.0; components.len()];
    for (&component, &margin) in component.iter().zip(&margins) {
        values[component as usize] += margin;
    }
    let mut best: Vec<Option<usize>> = vec![None; min_fractions.len() + 1];
    for (index, &Component { label, .. }) in components.iter().enumerate() {
        let best = &mut best[label as usize];
        if best.is_none_or(|best| values[index] > values[best]) {
            *best = Some(index);
        }
    }
    let is_kept = |(index, &Component { label, .. }): (usize, &Component)| {
        let class = (label as usize).checked_sub(1);
        let Some(least) = class.and_then(|class| min_fractions[class]) else { return true };
        let best = best[label as usize].expect("a component of this label");
        index == best || (components[best].size_vox as f64) < least * labels.len() as f64
    };
    let is_kept = components.iter().enumerate().map(is_kept).collect();
    (component, is_kept)
}

/// 1 where both scores (1, 1 + K, d, h, w) are greatest for the same class, else 0, (1, 1, d, h, w).
pub fn agreement(a: &Tensor, b: &Tensor) -> Tensor {
    a.argmax(1, true).eq_tensor(&b.argmax(1, true)).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use tch::Device;

    const CONFIG: Config = Config { enabled: true, min_fraction: 0.25, min_component_fraction: 0.05 };
    fn projected(scores: &Tensor, min_fractions: &[MinFraction], log_prior: Option<&Tensor>) -> Tensor {
        SingleComponents { min_fractions, log_prior }.project(scores)
    }

    const ONE: MinFraction = Some(0.0);

    /// Scores (1, 1 + K, 1, 1, n) from those of each class along a line.
    fn line<const N: usize>(of_classes: &[[f32; N]]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, of_classes.len() as i64, 1, 1, N as i64])
    }

    fn classes(scores: &Tensor) -> Vec<i64> {
        Vec::try_from(scores.argmax(1, false).flatten(0, -1)).unwrap()
    }

    #[test]
    fn the_clear_piece_stays_and_the_larger_one_goes_to_the_class_that_is_next_there() {
        let scores = line(&[
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            [5.0, 5.0, 0.0, 2.1, 2.1, 2.1, 0.0],
            [0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0],
        ]);
        assert_eq!(classes(&scores), [1, 1, 0, 1, 1, 1, 0]);
        let found = projected(&scores, &[ONE, ONE], None);
        assert_eq!(classes(&found), [1, 1, 0, 2, 2, 2, 0]);
        assert_eq!(
            Vec::<f64>::try_from(agreement(&scores, &found).flatten(0, -1)).unwrap(),
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        );
        // The scores have changed places, and nothing else has changed.
        assert_eq!(found.double_value(&[0, 1, 0, 0, 4]), 2.0);
        assert_eq!(found.double_value(&[0, 2, 0, 0, 4]), f64::from(2.1f32));
        assert_eq!(found.narrow(4, 0, 3), scores.narrow(4, 0, 3));
        assert_eq!(projected(&scores, &[None, ONE], None), scores);
        // Two of seven voxels are a fragment if the whole takes three.
        assert_eq!(projected(&scores, &[Some(2.5 / 7.0), ONE], None), scores);
        assert_eq!(projected(&scores, &[Some(1.5 / 7.0), ONE], None), found);
    }

    #[test]
    fn a_piece_where_the_class_is_likely_stays_beside_a_clearer_one_elsewhere() {
        let scores = line(&[[0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -1.0, 2.0, 2.0]]);
        assert_eq!(classes(&projected(&scores, &[ONE], None)), [1, 1, 0, 0, 0]);
        let p = line(&[[1.0; 5], [0.1, 0.1, 0.5, 0.9, 0.9]]);
        let place = p.log();
        assert_eq!(classes(&projected(&scores, &[ONE], Some(&place))), [0, 0, 0, 1, 1]);
        // It chooses between pieces: what is one piece stays wherever it is.
        let alone = line(&[[0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -1.0, -1.0, -1.0]]);
        assert_eq!(projected(&alone, &[ONE], Some(&place)), alone);
    }

    #[test]
    fn what_is_passed_on_may_be_passed_on_again_and_the_background_takes_what_nobody_may_have() {
        // The second piece of class 1 goes to class 2, whose own piece elsewhere is clearer.
        let scores =
            line(&[[0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [9.0, 0.0, 3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0, 9.0, 0.0]]);
        let found = projected(&scores, &[ONE, ONE], None);
        assert_eq!(classes(&found), [1, 0, 0, 0, 2, 0]);
        assert_eq!(classes(&projected(&scores, &[ONE, None], None)), [1, 0, 2, 0, 2, 0]);
        assert_eq!(projected(&found, &[ONE, ONE], None), found);
    }

    #[test]
    fn a_class_is_held_to_one_piece_by_the_supports_that_show_it() {
        let shot = |labels: [u8; 40], known: Option<f32>| {
            let classes = ndarray::Array3::from_shape_vec((1, 1, 40), labels.to_vec()).unwrap();
            let mut shot = Shot::new(
                Tensor::zeros([1, 1, 1, 1, 40], (Kind::Float, Device::Cpu)),
                crate::tensor::from_classes(classes.view()),
            );
            shot.known = known.map(|last| {
                let mut known = [1f32; 40];
                known[30..].fill(last);
                from_floats(&known, &[1, 1, 1, 1, 40])
            });
            shot
        };
        let (mut one, mut two) = ([0; 40], [0; 40]);
        one[2..9].fill(1);
        two[2..9].fill(1);
        two[30..39].fill(1);
        two[10..20].fill(2);
        let least = |supports: &[Shot]| min_fractions(supports, 2, &CONFIG);
        assert_eq!(least(&[shot(one, None)]), [Some(CONFIG.min_fraction * 7.0 / 40.0), None]);
        assert_eq!(least(&[shot(two, None)]), [None, Some(CONFIG.min_fraction * 0.25)]);
        assert_eq!(least(&[shot(one, None), shot(two, None)]), [None, Some(CONFIG.min_fraction * 0.25)]);
        assert_eq!(least(&[shot(one, None), shot(one, None)]), [Some(CONFIG.min_fraction * 7.0 / 40.0), None]);
        assert_eq!(
            least(&[shot(two, Some(0.0))]),
            [Some(CONFIG.min_fraction * 7.0 / 40.0), Some(CONFIG.min_fraction * 0.25)]
        );
    }

    #[test]
    fn labels_of_one_piece_keep_their_largest_component_and_others_all() {
        let labels = array![[[1, 1, 0, 2, 2], [0, 0, 1, 0, 2], [2, 0, 1, 1, 0], [2, 0, 0, 0, 7]]];
        for (single, expected) in [
            (vec![1, 2, 7], array![[[0, 0, 0, 2, 2], [0, 0, 1, 0, 2], [0, 0, 1, 1, 0], [0, 0, 0, 0, 7]]]),
            (vec![1], array![[[0, 0, 0, 2, 2], [0, 0, 1, 0, 2], [2, 0, 1, 1, 0], [2, 0, 0, 0, 7]]]),
            (vec![], labels.clone()),
        ] {
            let mut found = labels.clone();
            keep_largest(&mut found, &single.into_iter().collect());
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
        assert_eq!(single_components(labels.view(), false, &CONFIG), [1].into());
        // With slices 1 and 2 not annotated, neither is more than one piece anywhere but for the slip, a tenth of a slice.
        labels.slice_mut(ndarray::s![1..3, .., ..]).fill(0);
        assert_eq!(single_components(labels.view(), true, &CONFIG), [2].into());
        labels[[0, 5, 7]] = 0;
        assert_eq!(single_components(labels.view(), true, &CONFIG), [1, 2].into());
    }
}
