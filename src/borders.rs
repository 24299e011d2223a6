//! Where the annotator of the support draws a border, given what the network says around it.
//!
//! A network and an annotator agree on where an organ is sooner than on where it ends: windows that hold a single class lie inside of
//! it, so small organs come out too small, and some annotators draw a margin. The support shows both: it is asked of itself, and
//! from what the network says of a class at and around a voxel a logistic regression, one for each class, learns whether the
//! annotator's label is there; it is cut where the Dice of the support is best. A query's borders are drawn again by it, and
//! then move to the edges of its image ([`edges`]).

mod edges;
pub mod ends;

use crate::augment::intensity::Blur;
use crate::volume::foreground::bounding_box;
use ndarray::{Array3, ArrayView3, Ix3, NdProducer, Zip, s};
use std::ops::Range;

/// Standard deviation of the blur through which a voxel's surroundings are seen.
const NEAR_MM: f32 = 4.0;
/// A border moves where the found class, blurred so far, is at least [`REACH`]: within some 15 mm of a flat border.
const FAR_MM: f32 = 10.0;
const REACH: f32 = 0.05;
/// Probabilities below this are as good as 0.
const LEAST: f32 = 1e-3;
/// Voxels that the regression of a class sees of each support.
const SAMPLES: usize = 20_000;
/// ln odds of the class at the voxel and around it, and 1.
const FEATURES: usize = 3;
/// The weights that take the network's word, and how many times half the squared distance from them counts beside the samples.
const AS_FOUND: Row = [1.0, 0.0, 0.0];
const RIDGE: f64 = 2.0;
const NEWTON_STEPS: usize = 50;

/// What a network found in a scan, on its native grid z y x.
#[derive(Clone, Copy)]
pub struct Guess<'a> {
    /// Label values.
    pub labels: ArrayView3<'a, i32>,
    /// Of the class at an index of the values. Asked for one class at a time: a volume may be large.
    pub probability: &'a dyn Fn(usize) -> Array3<f32>,
    pub spacing_mm: [f64; 3],
}

/// The probability of a class whose borders were drawn again: 0 outside of a box.
#[derive(Debug)]
pub struct Redrawn {
    within: [Range<usize>; 3],
    probability: Array3<f32>,
}

impl Redrawn {
    /// On the whole grid.
    pub fn placed(&self, shape_vox: (usize, usize, usize)) -> Array3<f32> {
        let mut whole = Array3::zeros(shape_vox);
        let [zs, ys, xs] = self.within.clone();
        whole.slice_mut(s![zs, ys, xs]).assign(&self.probability);
        whole
    }
}

/// One voxel as the regression sees it.
type Row = [f64; FEATURES];

/// A voxel, and whether the annotator labelled it.
pub type Sample = (Row, bool);

/// The regressions: p(class) = 1 / (1 + exp(-w . x)).
#[derive(Debug, Clone, PartialEq)]
pub struct Borders {
    /// Of each class.
    weights: Vec<Row>,
}

impl Borders {
    /// Learns from the [`samples`] of supports, of each class. A class that the annotator drew nowhere near to where the network finds it, or
    /// not at all, keeps the border that the network finds.
    pub fn learn(samples: &[Vec<Sample>]) -> Self {
        let of_class = |samples: &Vec<Sample>| match samples.iter().any(|(_, label)| *label) {
            true => halved_by_dice(fitted(samples), samples),
            false => AS_FOUND,
        };
        Self { weights: samples.iter().map(of_class).collect() }
    }

    /// Of so many classes the borders that the network finds.
    pub fn as_found(classes: usize) -> Self {
        Self { weights: vec![AS_FOUND; classes] }
    }

    /// The labels of a query, its borders drawn again, and the probability of each class: above one half where it is labelled.
    /// `image`: what has edges for the borders to follow.
    pub fn redraw(&self, guess: &Guess, values: &[i32], image: Option<ArrayView3<f32>>) -> (Array3<i32>, Vec<Redrawn>) {
        let mut labels = Array3::zeros(guess.labels.dim());
        let mut highest = Array3::from_elem(guess.labels.dim(), 0.5f32);
        let mut all = Vec::new();
        for (index, &value) in values.iter().enumerate() {
            let Some(around) = Surroundings::of(guess, index, value) else {
                all.push(Redrawn { within: [0..0, 0..0, 0..0], probability: Array3::zeros([0; 3]) });
                continue;
            };
            let mut probability = Array3::zeros(around.at.dim());
            around.rows(probability.view_mut(), |row, probability| {
                *probability = logistic(dot(&self.weights[index], &row)) as f32;
            });
            let [zs, ys, xs] = around.within.clone();
            let here = s![zs, ys, xs];
            if let Some(image) = image {
                probability = edges::follow(probability, image.slice(&here), guess.spacing_mm);
            }
            Zip::from(labels.slice_mut(&here)).and(highest.slice_mut(&here)).and(&probability).for_each(
                |label, highest, &probability| {
                    if probability > *highest {
                        (*label, *highest) = (value, probability);
                    }
                },
            );
            all.push(Redrawn { within: around.within, probability });
        }
        (labels, all)
    }
}

/// What a support teaches: for each class voxels around what the network finds of it when the support is asked of itself, evenly
/// spread, and whether the annotator labelled them so. Voxels of value `ignore` are not annotated, and a class that the support does
/// not show teaches nothing.
pub fn samples(guess: &Guess, truth: ArrayView3<i32>, values: &[i32], ignore: Option<i32>) -> Vec<Vec<Sample>> {
    let of_class = |(index, &value): (usize, &i32)| {
        let is_shown = truth.iter().any(|&label| label == value);
        let Some(around) = is_shown.then(|| Surroundings::of(guess, index, value)).flatten() else { return vec![] };
        let [zs, ys, xs] = around.within.clone();
        let mut samples = Vec::new();
        around.rows(truth.slice(s![zs, ys, xs]), |row, &label| {
            if ignore != Some(label) {
                samples.push((row, label == value));
            }
        });
        let step = samples.len().div_ceil(SAMPLES).max(1);
        samples.into_iter().step_by(step).collect()
    };
    values.iter().enumerate().map(of_class).collect()
}

/// What the regression sees of one class, in the box around what was found of it.
struct Surroundings {
    within: [Range<usize>; 3],
    /// ln odds of the class.
    at: Array3<f32>,
    /// The same of its blurred probability.
    near: Array3<f32>,
    /// Where it was found, blurred far.
    found: Array3<f32>,
}

impl Surroundings {
    /// None where nothing was found.
    fn of(guess: &Guess, index: usize, value: i32) -> Option<Self> {
        let within = around(guess.labels, value, guess.spacing_mm)?;
        let [zs, ys, xs] = within.clone();
        let at = (guess.probability)(index).slice(s![zs.clone(), ys.clone(), xs.clone()]).to_owned();
        let mut found = guess.labels.slice(s![zs, ys, xs]).mapv(|label| f32::from(u8::from(label == value)));
        let blur = |map: &mut Array3<f32>, std_mm: f32| Blur { std_mm: [std_mm; 3] }.apply(map, guess.spacing_mm);
        let mut near = at.clone();
        blur(&mut near, NEAR_MM);
        blur(&mut found, FAR_MM);
        let odds = |mut map: Array3<f32>| {
            map.par_mapv_inplace(|p| p.clamp(LEAST, 1.0).ln() - (1.0 - p).clamp(LEAST, 1.0).ln());
            map
        };
        Some(Self { within, at: odds(at), near: odds(near), found })
    }

    /// Calls `f` for every voxel within reach with its row and its own of `beside`, a volume of the box.
    fn rows<P: NdProducer<Dim = Ix3>>(&self, beside: P, mut f: impl FnMut(Row, P::Item)) {
        Zip::from(beside).and(&self.at).and(&self.near).and(&self.found).for_each(|value, &at, &near, &found| {
            if found >= REACH {
                f([f64::from(at), f64::from(near), 1.0], value);
            }
        });
    }
}

/// The box around a label and two of the wide blur's deviations beyond.
fn around(labels: ArrayView3<i32>, value: i32, spacing_mm: [f64; 3]) -> Option<[Range<usize>; 3]> {
    let (first, end) = bounding_box(labels.mapv(|label| label == value).view())?;
    Some(std::array::from_fn(|axis| {
        let margin = (2.0 * f64::from(FAR_MM) / spacing_mm[axis]).ceil() as usize;
        first[axis].saturating_sub(margin)..(end[axis] + margin).min(labels.shape()[axis])
    }))
}

fn dot(a: &Row, b: &Row) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The weights w for which the negative log likelihood + ridge / 2 |w - as found|^2 is least: Newton's method, its steps halved
/// where they lead upwards.
fn fitted(samples: &[Sample]) -> Row {
    let apart = |w: &Row| -> Row { std::array::from_fn(|i| w[i] - AS_FOUND[i]) };
    let loss = |w: &Row| {
        let of_sample = |(row, label): &Sample| {
            let x = if *label { -dot(w, row) } else { dot(w, row) };
            x.max(0.0) + (-x.abs()).exp().ln_1p() // ln(1 + e^x)
        };
        samples.iter().map(of_sample).sum::<f64>() + RIDGE / 2.0 * dot(&apart(w), &apart(w))
    };
    let mut weights = AS_FOUND;
    let mut least = loss(&weights);
    for _ in 0..NEWTON_STEPS {
        let mut gradient = apart(&weights).map(|w| RIDGE * w);
        let mut curvature = [[0.0; FEATURES]; FEATURES];
        (0..FEATURES).for_each(|i| curvature[i][i] = RIDGE);
        for (row, label) in samples {
            let p = logistic(dot(&weights, row));
            for i in 0..FEATURES {
                gradient[i] += (p - f64::from(u8::from(*label))) * row[i];
                (0..FEATURES).for_each(|j| curvature[i][j] += p * (1.0 - p) * row[i] * row[j]);
            }
        }
        let mut step = solved(curvature, gradient);
        let longest = |step: &Row| step.iter().fold(0.0f64, |longest, s| longest.max(s.abs()));
        let next = |step: &Row| -> Row { std::array::from_fn(|i| weights[i] - step[i]) };
        while longest(&step) >= 1e-6 && loss(&next(&step)) > least {
            step = step.map(|s| s / 2.0);
        }
        if longest(&step) < 1e-6 {
            break;
        }
        weights = next(&step);
        least = loss(&weights);
    }
    weights
}

/// The same weights with the constant for which one half is where the Dice of the samples is best: what is likely is labelled, and of a
/// class that is nowhere likely what is likeliest (optimal cuts lie at half of the Dice that they reach: Lipton et al. 2014).
fn halved_by_dice(mut weights: Row, samples: &[Sample]) -> Row {
    let mut scored: Vec<(f64, bool)> = samples.iter().map(|(row, label)| (dot(&weights, row), *label)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let labelled = scored.iter().filter(|(_, label)| *label).count() as f64;
    let (mut hits, mut best, mut cut) = (0.0, 0.0, 0.0);
    for (above, pair) in scored.windows(2).enumerate() {
        hits += f64::from(u8::from(pair[0].1));
        let dice = 2.0 * hits / (labelled + above as f64 + 1.0);
        if dice > best && pair[1].0 < pair[0].0 {
            (best, cut) = (dice, (pair[0].0 + pair[1].0) / 2.0);
        }
    }
    weights[FEATURES - 1] -= cut;
    weights
}

/// x of A x = b by elimination; A is positive definite, so that no pivot is 0.
fn solved(mut a: [Row; FEATURES], mut b: Row) -> Row {
    for i in 0..FEATURES {
        for j in i + 1..FEATURES {
            let share = a[j][i] / a[i][i];
            (i..FEATURES).for_each(|k| a[j][k] -= share * a[i][k]);
            b[j] -= share * b[i];
        }
    }
    for i in (0..FEATURES).rev() {
        b[i] = (b[i] - (i + 1..FEATURES).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    const SPACING_MM: [f64; 3] = [6.0, 2.0, 2.0];
    const IGNORE: i32 = 255;
    const VALUES: [i32; 2] = [1, 4];

    /// Distance from the border of a ball in mm, negative inside.
    fn ball(centre_mm: [f64; 3], radius_mm: f64) -> Array3<f64> {
        Array3::from_shape_fn((12, 40, 40), |(z, y, x)| {
            let at = [z, y, x];
            let squared: f64 = (0..3).map(|axis| (at[axis] as f64 * SPACING_MM[axis] - centre_mm[axis]).powi(2)).sum();
            squared.sqrt() - radius_mm
        })
    }

    /// A ball that the annotator draws 4 mm larger than the network finds it, and another class that the network finds 3 mm too large.
    struct Scan {
        truth: Array3<i32>,
        found: Array3<i32>,
        probabilities: Vec<Array3<f32>>,
    }

    impl Scan {
        fn new(left_mm: f64, right_mm: f64) -> Self {
            let (left, right) = (ball([36.0, 40.0, 20.0], left_mm), ball([30.0, 36.0, 58.0], right_mm));
            let label = |left: f64, right: f64| {
                if left < 0.0 {
                    1
                } else if right < 0.0 {
                    4
                } else {
                    0
                }
            };
            let truth = Zip::from(&left).and(&right).map_collect(|&left, &right| label(left, right));
            let found = Zip::from(&left).and(&right).map_collect(|&left, &right| label(left + 4.0, right - 3.0));
            let soft = |of: &Array3<f64>, shift: f64| of.mapv(|mm| logistic(-(mm + shift) / 2.0) as f32);
            Self { truth, found, probabilities: vec![soft(&left, 4.0), soft(&right, -3.0)] }
        }

        fn redrawn(&self, borders: &Borders) -> (Array3<i32>, Vec<Array3<f32>>) {
            let probability = |class: usize| self.probabilities[class].clone();
            let guess = Guess { labels: self.found.view(), probability: &probability, spacing_mm: SPACING_MM };
            let (labels, probabilities) = borders.redraw(&guess, &VALUES, None);
            (labels, probabilities.iter().map(|of_class| of_class.placed(self.found.dim())).collect())
        }

        fn teaches(&self) -> Borders {
            let probability = |class: usize| self.probabilities[class].clone();
            let guess = Guess { labels: self.found.view(), probability: &probability, spacing_mm: SPACING_MM };
            Borders::learn(&samples(&guess, self.truth.view(), &VALUES, Some(IGNORE)))
        }

        fn dice(&self, labels: &Array3<i32>, value: i32) -> f64 {
            let count = |of: &dyn Fn(i32, i32) -> bool| {
                labels.iter().zip(&self.truth).filter(|(a, b)| of(**a, **b)).count() as f64
            };
            2.0 * count(&|a, b| a == value && b == value) / (count(&|a, _| a == value) + count(&|_, b| b == value))
        }
    }

    #[test]
    fn borders_are_drawn_as_the_annotator_of_another_scan_draws_them() {
        let (support, query) = (Scan::new(16.0, 12.0), Scan::new(13.0, 15.0));
        let borders = support.teaches();
        let (labels, probabilities) = query.redrawn(&borders);
        for value in [1, 4] {
            let (before, after) = (query.dice(&query.found, value), query.dice(&labels, value));
            assert!(before < 0.8 && after > 0.93, "class {value}: {before} to {after}");
        }
        for ((at, &label), index) in labels.indexed_iter().zip(std::iter::repeat([1, 4])) {
            let certain = |value| probabilities[index.iter().position(|&v| v == value).unwrap()][at] > 0.5;
            assert!(label == 0 || certain(label), "{at:?}");
            assert!(label != 0 || !index.into_iter().any(certain), "{at:?}");
        }
    }

    #[test]
    fn what_is_not_annotated_teaches_nothing() {
        let (mut support, query) = (Scan::new(16.0, 12.0), Scan::new(13.0, 15.0));
        // As if all were background, but on three slices.
        let truth = support.truth.clone();
        for (z, mut slice) in support.truth.outer_iter_mut().enumerate() {
            slice.fill(if (4..7).contains(&z) { 0 } else { IGNORE });
        }
        support.truth.slice_mut(s![4..7, .., ..]).assign(&truth.slice(s![4..7, .., ..]));
        let borders = support.teaches();
        let (labels, _) = query.redrawn(&borders);
        for value in [1, 4] {
            let (before, after) = (query.dice(&query.found, value), query.dice(&labels, value));
            assert!(after > 0.9, "class {value}: {before} to {after}");
        }
    }

    #[test]
    fn what_no_support_shows_stays_as_it_is_and_what_is_not_found_stays_away() {
        let (support, mut query) = (Scan::new(16.0, 12.0), Scan::new(13.0, 15.0));
        let nothing = Borders::learn(&[vec![], vec![]]);
        assert_eq!(nothing, Borders::as_found(2));
        assert_eq!(query.redrawn(&nothing).0, query.found);
        let mut lone = Scan::new(16.0, 12.0);
        lone.truth.mapv_inplace(|label| if label == 4 { 0 } else { label });
        let weights = lone.teaches().weights;
        assert!(weights[0] != AS_FOUND && weights[1] == AS_FOUND);
        let borders = support.teaches();
        query.found.mapv_inplace(|label| if label == 4 { 0 } else { label });
        let (labels, probabilities) = query.redrawn(&borders);
        assert!(labels.iter().all(|&label| label != 4) && probabilities[1].iter().all(|&p| p == 0.0));
        assert!(query.dice(&labels, 1) > 0.9);
    }

    /// A network that finds five times what there is: one voxel in five is right where it is surest, none elsewhere.
    #[test]
    fn a_class_that_is_nowhere_likely_is_drawn_where_it_is_likeliest() {
        let samples: Vec<Sample> =
            (0..1000).map(|i| ([if i < 500 { 4.0 } else { -4.0 }, 0.0, 1.0], i < 500 && i % 5 == 0)).collect();
        let fit = fitted(&samples);
        assert!(samples.iter().all(|(row, _)| dot(&fit, row) < 0.0), "the likelihood alone would draw nothing");
        let weights = Borders::learn(std::slice::from_ref(&samples)).weights[0];
        assert!(samples.iter().enumerate().all(|(i, (row, _))| (dot(&weights, row) > 0.0) == (i < 500)));
        // Of a class that lies elsewhere there is nothing to learn.
        let elsewhere = samples.iter().map(|(row, _)| (*row, false)).collect();
        assert_eq!(Borders::learn(&[elsewhere, vec![]]).weights, [AS_FOUND; 2]);
    }

    #[test]
    fn weights_follow_the_labels_as_far_as_there_are_samples() {
        let repeated = |yes: usize, no: usize| -> Vec<(Row, bool)> {
            let row = [0.0, 0.0, 1.0];
            std::iter::repeat_n((row, true), yes).chain(std::iter::repeat_n((row, false), no)).collect()
        };
        let many = fitted(&repeated(3000, 1000));
        assert!((many[2] - 3f64.ln()).abs() < 0.01 && many[..2] == AS_FOUND[..2], "{many:?}");
        assert!((0.2..0.6).contains(&fitted(&repeated(3, 1))[2]), "four samples say little");
        // Labels that weights of three features have drawn.
        let (truth, mut rng) = ([0.8, -0.5, 0.3], rng::stream(0, "borders", 0));
        let drawn: Vec<(Row, bool)> = (0..50_000)
            .map(|_| {
                let row = [rng.random_range(-5.0..5.0), rng.random_range(-5.0..5.0), 1.0];
                (row, rng.random::<f64>() < logistic(dot(&truth, &row)))
            })
            .collect();
        let found = fitted(&drawn);
        assert!(found.iter().zip(&truth).all(|(found, truth)| (found - truth).abs() < 0.05), "{found:?}");
    }
}
