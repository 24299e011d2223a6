//! Boundaries as the annotators of the supports draw them: a logistic regression of each class on what the network finds.
//!
//! Windows that hold a single class lie inside of it, so that small organs come out too small, and some annotators draw a margin. The
//! supports show both: each is segmented from all supports, and from the probability of a class at and around a voxel a logistic
//! regression learns whether the annotator's label is there. Its threshold is that of the best Dice of the supports.

use crate::augment::intensity::Blur;
use crate::components::bounding_box;
use crate::error::{Error, Result};
use crate::inference::boundary::random_walker;
use crate::inference::config::check_range;
use crate::preprocessing::Annotation;
use crate::volume::{Class, ClassMap};
use ndarray::{Array3, ArrayView3, Ix3, NdProducer, Zip, s};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Section `[inference.boundary_calibration]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether boundaries are drawn as the annotators of the supports draw them.
    pub enabled: bool,
    /// Standard deviation of the blur of a voxel's surroundings.
    pub near_mm: f32,
    /// A boundary moves where the found class, blurred by this standard deviation, is at least `min_far`.
    pub far_mm: f32,
    /// See `far_mm`: 0.05 of 10 mm is within some 15 mm of a flat boundary.
    pub min_far: f32,
    /// Voxels of each support from which the regression of a class is fitted.
    pub max_samples: usize,
    /// Weight of half the squared distance of the regression from the identity, beside the samples.
    pub ridge: f64,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("boundary_calibration.near_mm", self.near_mm, 1e-3..=1e3)?;
        check_range("boundary_calibration.far_mm", self.far_mm, 1e-3..=1e3)?;
        check_range("boundary_calibration.min_far", self.min_far, 1e-6..=1.0)?;
        check_range("boundary_calibration.ridge", self.ridge, 1e-9..=1e9)?;
        if self.max_samples == 0 {
            let key = "inference.boundary_calibration.max_samples";
            return Err(Error::invalid(key, "at least 1", "0", "change this key"));
        }
        Ok(())
    }
}

/// Probabilities below this are as good as 0.
const LEAST: f32 = 1e-3;
/// ln odds of the class at the voxel and around it, and 1.
const FEATURES: usize = 3;
/// The weights that leave a probability as it is.
const IDENTITY: Row = [1.0, 0.0, 0.0];
const NEWTON_STEPS: usize = 50;

/// A segmented scan, on its own grid z y x.
#[derive(Clone, Copy)]
pub struct Prediction<'a> {
    /// Label values.
    pub labels: ArrayView3<'a, i32>,
    /// The probability of a class. One class at a time: a volume may be large.
    pub probability: &'a dyn Fn(Class) -> Array3<f32>,
    /// z y x, in nominal millimetres.
    pub spacing_mm: [f64; 3],
}

/// The probability of a class inside of a box; 0 outside.
#[derive(Debug)]
pub struct CroppedProbability {
    within: [Range<usize>; 3],
    probability: Array3<f32>,
}

impl CroppedProbability {
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
pub struct Calibration {
    /// Of each class.
    weights: Vec<Row>,
    /// The part of the probability of each class that does not follow the edges of the image.
    kept: Vec<f64>,
}

impl Calibration {
    /// From the [`samples`] of supports, of each class. A class that the annotator drew nowhere near the prediction, or not at all, is
    /// left as it is.
    pub fn fit(samples: &[Vec<Sample>], config: &Config) -> Self {
        let of_class = |samples: &Vec<Sample>| match samples.iter().any(|(_, label)| *label) {
            true => threshold_for_dice(fit_logistic(samples, config.ridge), samples),
            false => IDENTITY,
        };
        Self { weights: samples.iter().map(of_class).collect(), kept: vec![0.0; samples.len()] }
    }

    /// Boundaries as the network finds them, of so many classes.
    pub fn identity(classes: usize) -> Self {
        Self { weights: vec![IDENTITY; classes], kept: vec![0.0; classes] }
    }

    /// A class of whose labels the step leaves only a part in the supports themselves, by Dice, is left as it is by 1 - part^2: it is smaller
    /// than what the step looks at.
    pub fn trusted(&self, survival: &[f64]) -> Self {
        let kept: Vec<f64> = survival.iter().map(|part| 1.0 - part.powi(2)).collect();
        let mixed = |(weights, kept): (&Row, &f64)| -> Row {
            std::array::from_fn(|i| weights[i] + kept * (IDENTITY[i] - weights[i]))
        };
        Self { weights: self.weights.iter().zip(&kept).map(mixed).collect(), kept }
    }

    /// The labels of a query with its boundaries drawn again, and the probability of each class: above one half where it is labelled.
    /// With `image` the boundaries follow its edges, too.
    pub fn apply(
        &self,
        prediction: &Prediction,
        classes: &ClassMap,
        config: &Config,
        image: Option<(ArrayView3<f32>, &random_walker::Config)>,
    ) -> (Array3<i32>, Vec<CroppedProbability>) {
        let mut labels = Array3::zeros(prediction.labels.dim());
        let mut highest = Array3::from_elem(prediction.labels.dim(), 0.5f32);
        let mut all = Vec::new();
        for class in classes.iter() {
            let value = classes.value(class);
            let Some(around) = Surroundings::of(prediction, class, value, config) else {
                let nothing = Array3::zeros([0; 3]);
                all.push(CroppedProbability { within: [0..0, 0..0, 0..0], probability: nothing });
                continue;
            };
            let mut probability = Array3::zeros(around.at.dim());
            around.for_each_row(probability.view_mut(), |row, probability| {
                *probability = logistic(dot(&self.weights[class.index()], &row)) as f32;
            });
            let [zs, ys, xs] = around.within.clone();
            let here = s![zs, ys, xs];
            if let Some((image, walker)) = image {
                let image = image.slice(&here);
                let (before, kept) = (probability.clone(), self.kept[class.index()] as f32);
                probability = random_walker::follow_edges(probability, image, prediction.spacing_mm, walker);
                probability.zip_mut_with(&before, |after, before| *after += kept * (before - *after));
            }
            Zip::from(labels.slice_mut(&here)).and(highest.slice_mut(&here)).and(&probability).for_each(
                |label, highest, &probability| {
                    if probability > *highest {
                        (*label, *highest) = (value, probability);
                    }
                },
            );
            all.push(CroppedProbability { within: around.within, probability });
        }
        (labels, all)
    }
}

/// The samples of a support that was segmented from all supports: for each class voxels around the prediction, evenly spread, and
/// whether the annotator labelled them so. Voxels that are not annotated, and classes that the support does not show, give none.
pub fn samples(prediction: &Prediction, truth: &Annotation, classes: &ClassMap, config: &Config) -> Vec<Vec<Sample>> {
    let of_class = |class: Class| {
        let value = classes.value(class);
        let around = truth.shows(value).then(|| Surroundings::of(prediction, class, value, config)).flatten();
        let Some(around) = around else { return vec![] };
        let [zs, ys, xs] = around.within.clone();
        let here = s![zs, ys, xs];
        let labels = truth.labels().voxels.slice(&here);
        // None where a voxel is not annotated.
        let is_labelled = match truth.known() {
            Some(known) => {
                Zip::from(labels).and(known.slice(&here)).map_collect(|label, known| known.then_some(*label == value))
            }
            None => labels.mapv(|label| Some(label == value)),
        };
        let mut samples = Vec::new();
        around.for_each_row(is_labelled.view(), |row, is_labelled| {
            samples.extend(is_labelled.map(|is_labelled| (row, is_labelled)));
        });
        let step = samples.len().div_ceil(config.max_samples).max(1);
        samples.into_iter().step_by(step).collect()
    };
    classes.iter().map(of_class).collect()
}

/// The inputs of the regression of one class, in the box around the prediction.
struct Surroundings {
    within: [Range<usize>; 3],
    /// ln odds of the class.
    at: Array3<f32>,
    /// The same of its blurred probability.
    near: Array3<f32>,
    /// The predicted label, blurred far.
    found: Array3<f32>,
    min_far: f32,
}

impl Surroundings {
    /// None where nothing was predicted.
    fn of(prediction: &Prediction, class: Class, value: i32, config: &Config) -> Option<Self> {
        let margin_mm = 2.0 * f64::from(config.far_mm);
        let within = around(prediction.labels, value, prediction.spacing_mm, margin_mm)?;
        let [zs, ys, xs] = within.clone();
        let at = (prediction.probability)(class).slice(s![zs.clone(), ys.clone(), xs.clone()]).to_owned();
        let mut found = prediction.labels.slice(s![zs, ys, xs]).mapv(|label| f32::from(u8::from(label == value)));
        let blur = |map: &mut Array3<f32>, std_mm: f32| Blur { std_mm: [std_mm; 3] }.apply(map, prediction.spacing_mm);
        let mut near = at.clone();
        blur(&mut near, config.near_mm);
        blur(&mut found, config.far_mm);
        let odds = |mut map: Array3<f32>| {
            map.par_mapv_inplace(|p| p.clamp(LEAST, 1.0).ln() - (1.0 - p).clamp(LEAST, 1.0).ln());
            map
        };
        Some(Self { within, at: odds(at), near: odds(near), found, min_far: config.min_far })
    }

    /// Calls `f` for every voxel near the prediction with its row and its own of `beside`, a volume of the box.
    fn for_each_row<P: NdProducer<Dim = Ix3>>(&self, beside: P, mut f: impl FnMut(Row, P::Item)) {
        Zip::from(beside).and(&self.at).and(&self.near).and(&self.found).for_each(|value, &at, &near, &found| {
            if found >= self.min_far {
                f([f64::from(at), f64::from(near), 1.0], value);
            }
        });
    }
}

/// The box around a label and so much beyond.
fn around(labels: ArrayView3<i32>, value: i32, spacing_mm: [f64; 3], margin_mm: f64) -> Option<[Range<usize>; 3]> {
    let found = bounding_box(labels, |label| *label == value)?;
    Some(std::array::from_fn(|axis| {
        let margin = (margin_mm / spacing_mm[axis]).ceil() as usize;
        found[axis].start.saturating_sub(margin)..(found[axis].end + margin).min(labels.shape()[axis])
    }))
}

fn dot(a: &Row, b: &Row) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The weights w for which the negative log likelihood + ridge / 2 |w - identity|^2 is least: Newton's method, its steps halved
/// where they lead upwards.
fn fit_logistic(samples: &[Sample], ridge: f64) -> Row {
    let apart = |w: &Row| -> Row { std::array::from_fn(|i| w[i] - IDENTITY[i]) };
    let loss = |w: &Row| {
        let of_sample = |(row, label): &Sample| {
            let x = if *label { -dot(w, row) } else { dot(w, row) };
            x.max(0.0) + (-x.abs()).exp().ln_1p() // ln(1 + e^x)
        };
        samples.iter().map(of_sample).sum::<f64>() + ridge / 2.0 * dot(&apart(w), &apart(w))
    };
    let mut weights = IDENTITY;
    let mut least = loss(&weights);
    for _ in 0..NEWTON_STEPS {
        let mut gradient = apart(&weights).map(|w| ridge * w);
        let mut curvature = [[0.0; FEATURES]; FEATURES];
        (0..FEATURES).for_each(|i| curvature[i][i] = ridge);
        for (row, label) in samples {
            let p = logistic(dot(&weights, row));
            for i in 0..FEATURES {
                gradient[i] += (p - f64::from(u8::from(*label))) * row[i];
                (0..FEATURES).for_each(|j| curvature[i][j] += p * (1.0 - p) * row[i] * row[j]);
            }
        }
        let mut step = solve(curvature, gradient);
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

/// The same weights with the constant for which one half is the threshold of the best Dice of the samples. A class that is likely nowhere
/// is labelled where it is likeliest (the best threshold is half of the Dice that it reaches: Lipton et al. 2014).
fn threshold_for_dice(mut weights: Row, samples: &[Sample]) -> Row {
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
fn solve(mut a: [Row; FEATURES], mut b: Row) -> Row {
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
    const CONFIG: Config =
        Config { enabled: true, near_mm: 4.0, far_mm: 10.0, min_far: 0.05, max_samples: 20_000, ridge: 2.0 };

    fn classes() -> ClassMap {
        ClassMap::new([1, 4]).unwrap()
    }

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

        fn redrawn(&self, calibration: &Calibration) -> (Array3<i32>, Vec<Array3<f32>>) {
            let probability = |class: Class| self.probabilities[class.index()].clone();
            let prediction =
                Prediction { labels: self.found.view(), probability: &probability, spacing_mm: SPACING_MM };
            let (labels, probabilities) = calibration.apply(&prediction, &classes(), &CONFIG, None);
            (labels, probabilities.iter().map(|of_class| of_class.placed(self.found.dim())).collect())
        }

        fn fitted(&self) -> Calibration {
            let probability = |class: Class| self.probabilities[class.index()].clone();
            let prediction =
                Prediction { labels: self.found.view(), probability: &probability, spacing_mm: SPACING_MM };
            let geometry = crate::volume::Geometry::with_spacing([12, 40, 40], SPACING_MM);
            let labels = crate::volume::LabelMap { voxels: self.truth.clone(), geometry };
            let truth = Annotation::new(labels, Some(IGNORE));
            Calibration::fit(&samples(&prediction, &truth, &classes(), &CONFIG), &CONFIG)
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
        let calibration = support.fitted();
        let (labels, probabilities) = query.redrawn(&calibration);
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
        let calibration = support.fitted();
        let (labels, _) = query.redrawn(&calibration);
        for value in [1, 4] {
            let (before, after) = (query.dice(&query.found, value), query.dice(&labels, value));
            assert!(after > 0.9, "class {value}: {before} to {after}");
        }
    }

    #[test]
    fn what_no_support_shows_stays_as_it_is_and_what_is_not_found_stays_away() {
        let (support, mut query) = (Scan::new(16.0, 12.0), Scan::new(13.0, 15.0));
        let nothing = Calibration::fit(&[vec![], vec![]], &CONFIG);
        assert_eq!(nothing, Calibration::identity(2));
        assert_eq!(query.redrawn(&nothing).0, query.found);
        let mut lone = Scan::new(16.0, 12.0);
        lone.truth.mapv_inplace(|label| if label == 4 { 0 } else { label });
        let weights = lone.fitted().weights;
        assert!(weights[0] != IDENTITY && weights[1] == IDENTITY);
        let calibration = support.fitted();
        query.found.mapv_inplace(|label| if label == 4 { 0 } else { label });
        let (labels, probabilities) = query.redrawn(&calibration);
        assert!(labels.iter().all(|&label| label != 4) && probabilities[1].iter().all(|&p| p == 0.0));
        assert!(query.dice(&labels, 1) > 0.9);
    }

    /// A network that finds five times what there is: one voxel in five is right where it is surest, none elsewhere.
    #[test]
    fn a_class_that_is_nowhere_likely_is_drawn_where_it_is_likeliest() {
        let samples: Vec<Sample> =
            (0..1000).map(|i| ([if i < 500 { 4.0 } else { -4.0 }, 0.0, 1.0], i < 500 && i % 5 == 0)).collect();
        let fit = fit_logistic(&samples, CONFIG.ridge);
        assert!(samples.iter().all(|(row, _)| dot(&fit, row) < 0.0), "the likelihood alone would draw nothing");
        let weights = Calibration::fit(std::slice::from_ref(&samples), &CONFIG).weights[0];
        assert!(samples.iter().enumerate().all(|(i, (row, _))| (dot(&weights, row) > 0.0) == (i < 500)));
        // Of a class that lies elsewhere there is nothing to learn.
        let elsewhere = samples.iter().map(|(row, _)| (*row, false)).collect();
        assert_eq!(Calibration::fit(&[elsewhere, vec![]], &CONFIG).weights, [IDENTITY; 2]);
    }

    #[test]
    fn weights_follow_the_labels_as_far_as_there_are_samples() {
        let repeated = |yes: usize, no: usize| -> Vec<(Row, bool)> {
            let row = [0.0, 0.0, 1.0];
            std::iter::repeat_n((row, true), yes).chain(std::iter::repeat_n((row, false), no)).collect()
        };
        let many = fit_logistic(&repeated(3000, 1000), CONFIG.ridge);
        assert!((many[2] - 3f64.ln()).abs() < 0.01 && many[..2] == IDENTITY[..2], "{many:?}");
        assert!((0.2..0.6).contains(&fit_logistic(&repeated(3, 1), CONFIG.ridge)[2]), "four samples say little");
        // Labels that weights of three features have drawn.
        let (truth, mut rng) = ([0.8, -0.5, 0.3], rng::stream(0, "borders", 0));
        let drawn: Vec<(Row, bool)> = (0..50_000)
            .map(|_| {
                let row = [rng.random_range(-5.0..5.0), rng.random_range(-5.0..5.0), 1.0];
                (row, rng.random::<f64>() < logistic(dot(&truth, &row)))
            })
            .collect();
        let found = fit_logistic(&drawn, CONFIG.ridge);
        assert!(found.iter().zip(&truth).all(|(found, truth)| (found - truth).abs() < 0.05), "{found:?}");
    }

    #[test]
    fn a_class_that_the_step_destroys_in_the_supports_is_left_as_it_is() {
        let fitted = Calibration { weights: vec![[0.5, 1.0, -2.0]; 3], kept: vec![0.0; 3] };
        let trusted = fitted.trusted(&[1.0, 0.6, 0.0]);
        assert_eq!((trusted.weights[0], trusted.kept[0]), (fitted.weights[0], 0.0));
        assert_eq!((trusted.weights[2], trusted.kept[2]), (IDENTITY, 1.0));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(trusted.kept[1], 0.64) && close(trusted.weights[1][2], -0.72), "{trusted:?}");
    }
}
