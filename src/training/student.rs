//! A network is taught the classes of a support. The support has labels for one scan; the network with prototypes finds them in
//! the scans without labels that stand beside the weights, and a copy of it with an ordinary head learns from all of these together
//! (self-training with noise: Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification").
//!
//! What it learns is label-free but for the support. It sees each class in many patients, where the support shows it in one,
//! and answers a query with a single pass.

use super::adamw::AdamW;
use super::one_cycle::one_cycle;
use super::templates::Template;
use crate::error::{Error, Result};
use crate::model::{Model, Reference, Shot, Student};
use crate::prototypes::Classes;
use crate::tensor::{from_voxels, to_voxels};
use crate::{augment, loss, prediction, rng};
use ndarray::Array3;
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Section `[student]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Steps of learning for each task; 0: prototypes alone are asked.
    pub steps: u64,
    /// Peak of its 1cycle schedule.
    pub learning_rate: f64,
    /// Share of the steps that look at a support, and not at a template.
    pub support_share: f64,
    /// In half of the steps each class is brighter or darker by up to so many standard deviations of the scan.
    pub shift: f64,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: f64| {
            Err(Error::invalid(format!("student.{key}"), expected, found.to_string(), "change this key"))
        };
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning_rate", "a number in (0, 1]", self.learning_rate);
        }
        if !(0.0..=1.0).contains(&self.support_share) {
            return refuse("support_share", "a share from 0 to 1", self.support_share);
        }
        if !(0.0..=100.0).contains(&self.shift) {
            return refuse("shift", "a number from 0 to 100", self.shift);
        }
        Ok(())
    }
}

/// Scans in a step: convolutions of a single volume take a slower way in libtorch.
const AT_ONCE: usize = 2;
const WEIGHT_DECAY: f64 = 0.01;
/// Gradients are scaled down to this length.
const CLIP_NORM: f64 = 1.0;
/// Of a voxel whose class nobody knows.
const UNKNOWN: u8 = u8::MAX;

/// What decides how a student learns.
pub struct Lesson<'a> {
    pub config: &'a Config,
    pub augment: &'a augment::Config,
    /// How sure the labels of a template have to be, and what its supervoxels weigh.
    pub prediction: &'a prediction::Config,
    pub seed: u64,
}

/// A scan with labels to learn from, right or wrong.
struct Exercise {
    image: Array3<f32>,
    labels: Array3<u8>,
    spacing_mm: [f64; 3],
}

/// `reference` with a student of the classes 1 ..= `count`; as it was where there is nothing to teach or nobody to learn: no
/// steps, no templates, no features. `shots` with their spacings z y x are those that `reference` was made of, and the templates
/// those of [`Model::ask_beside`]. `tick` is called after each step, and ends the lesson by an error.
///
/// # Errors
/// That of `tick`.
#[allow(clippy::too_many_arguments, reason = "each is one thing of its own")]
pub fn teach(
    model: &Model,
    reference: Reference,
    shots: &[Shot],
    spacings_mm: &[[f64; 3]],
    count: i64,
    templates: &[Template],
    lesson: &Lesson,
    mut tick: impl FnMut() -> Result<()>,
) -> Result<Reference> {
    let Lesson { config, augment, prediction, seed } = *lesson;
    if templates.is_empty() || config.steps == 0 {
        return Ok(reference);
    }
    let Some(student) = Student::of(model, count, &mut rng::stream(seed, "student", 0)) else { return Ok(reference) };
    let of_shot = |(shot, spacing_mm): (&Shot, &[f64; 3])| Exercise::of_shot(shot, *spacing_mm);
    let supports: Vec<Exercise> = shots.iter().zip(spacings_mm).map(of_shot).collect();
    let of_template = |(template, scores)| Exercise::of_template(template, scores, prediction);
    let found: Vec<Exercise> = templates.iter().zip(reference.of_templates()).map(of_template).collect();
    let mut adamw = AdamW::new(student.trainable(), WEIGHT_DECAY);
    for step in 0..config.steps {
        let mut rng = rng::stream(seed, "lesson", step);
        let mut draw = || {
            let from = if rng.random_bool(config.support_share) { &supports } else { &found };
            let exercise = from.choose(&mut rng).expect("neither is empty");
            exercise.vary(config.shift, count as u8, augment, &mut rng)
        };
        let drawn: Vec<(Tensor, Tensor)> = (0..AT_ONCE).map(|_| draw()).collect();
        adamw.zero_gradients();
        for alike in drawn.chunk_by(|(a, _), (b, _)| a.size() == b.size()) {
            let of = |side: fn(&(Tensor, Tensor)) -> &Tensor| {
                Tensor::cat(&alike.iter().map(side).collect::<Vec<_>>(), 0).to_device(model.device())
            };
            let loss = loss::where_known(&student.forward(&of(|(image, _)| image), true), &of(|(_, truth)| truth));
            (loss * (alike.len() as f64 / AT_ONCE as f64)).backward();
        }
        let norm = adamw.gradient_norm().double_value(&[]);
        // A step that is not finite is no step.
        if norm.is_finite() {
            adamw.scale_gradients((CLIP_NORM / norm).min(1.0));
            let (rate, beta_1) = one_cycle(step, config.steps, config.learning_rate);
            adamw.step(rate, beta_1);
        }
        tick()?;
    }
    Ok(reference.taught(student))
}

impl Exercise {
    fn of_shot(shot: &Shot, spacing_mm: [f64; 3]) -> Self {
        let mut labels = to_voxels(&shot.classes.to_kind(Kind::Float)).mapv(|class| class as u8);
        if let Some(known) = &shot.known {
            labels.zip_mut_with(&to_voxels(known), |class, &known| {
                if known < 0.5 {
                    *class = UNKNOWN;
                }
            });
        }
        Self { image: to_voxels(&shot.image), labels, spacing_mm }
    }

    /// Labels where the scores (1, 1 + K, d, h, w), pooled over the supervoxels as those of a query are, leave little doubt.
    fn of_template(template: &Template, scores: &Tensor, config: &prediction::Config) -> Self {
        let (d, h, w) = template.regions.dim();
        let scores = prediction::interpolate(scores, [d, h, w].map(|n| n as i64));
        let scores = prediction::pooled(&scores, &template.regions, config.supervoxel_weight);
        let (classes, known) = prediction::confident(&scores, Classes::Joint, config.confidence);
        let mut labels = to_voxels(&classes.to_kind(Kind::Float)).mapv(|class| class as u8);
        labels.zip_mut_with(&to_voxels(&known), |class, &known| {
            if known == 0.0 {
                *class = UNKNOWN;
            }
        });
        Self { image: to_voxels(&template.image), labels, spacing_mm: template.spacing_mm }
    }

    /// Another scan of the same anatomy: its image (1, 1, D, H, W) and its classes (1, D, H, W), -1 where nobody knows.
    fn vary(&self, shift: f64, count: u8, augment: &augment::Config, rng: &mut rng::Rng) -> (Tensor, Tensor) {
        let mut image = self.image.clone();
        let mut by: BTreeMap<u8, f32> = BTreeMap::new();
        for class in 1..=count {
            if shift > 0.0 && rng.random_bool(0.5) {
                by.insert(class, rng.random_range(-shift..shift) as f32);
            }
        }
        image.zip_mut_with(&self.labels, |value, class| *value += by.get(class).unwrap_or(&0.0));
        let params = augment::draw(rng, augment);
        let (image, labels) = augment::apply(&params, &image, &self.labels, self.spacing_mm);
        let truth = labels.mapv(|class| if class == UNKNOWN { -1.0 } else { f32::from(class) });
        (from_voxels(image.view()), from_voxels(truth.view()).squeeze_dim(0).to_kind(Kind::Int64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config as Everything};
    use crate::tensor::from_classes;
    use rand::Rng;
    use tch::Device;

    const SIZE: (usize, usize, usize) = (4, 24, 24);

    fn everything() -> Everything {
        let set = [
            "features.f_maps=4",
            "features.levels=2",
            "features.output_channels=6",
            "features.norm=instance",
            "features.pooling=[[1, 2, 2]]",
            "prototypes.test_window={ size = [2, 4, 4] }",
            "prediction.test_classes=joint",
            "prediction.templates=3",
            "augment.elastic.probability=0",
            "augment.affine.translation_mm=[0.0, 2.0, 2.0]",
            "student.steps=120",
            "student.learning_rate=1e-2",
            "student.support_share=0.5",
        ];
        config::load(None, &set.map(str::to_owned)).unwrap()
    }

    /// A bright and a dark ball in a grain of its own, and which of them is where.
    fn scan(id: u64) -> (Array3<f32>, Array3<u8>) {
        let mut rng = rng::stream(id, "balls", 0);
        let mut around = |middle: f64| middle + rng.random_range(-2.0..2.0);
        let centres = [[around(7.0), around(7.0)], [around(16.0), around(16.0)]];
        let classes = Array3::from_shape_fn(SIZE, |(_, y, x)| {
            let inside = |[cy, cx]: &[f64; 2]| (y as f64 - cy).hypot(x as f64 - cx) < 5.0;
            centres.iter().position(inside).map_or(0, |ball| ball as u8 + 1)
        });
        let image = classes.mapv(|class| [0.0, 2.0, -2.0][class as usize] + grain(&mut rng));
        (image, classes)
    }

    fn grain(rng: &mut impl Rng) -> f32 {
        rng.random_range(-0.3..0.3)
    }

    /// Model, reference, shot and templates of a task with two classes.
    fn task(config: &Everything) -> (Model, Reference, Shot, Vec<Template>) {
        let mut model = Model::new(&config.model(), Device::Cpu, 0);
        let template = |id| {
            let (image, classes) = scan(id);
            let regions = classes.mapv(|class| i32::from(class) + 1);
            Template { image: from_voxels(image.view()), regions, spacing_mm: [4.0, 1.0, 1.0] }
        };
        let templates: Vec<Template> = (1..4).map(template).collect();
        model.ask_beside(&crate::training::templates::images_of(&templates));
        let (image, classes) = scan(0);
        let shot = Shot::new(from_voxels(image.view()), from_classes(classes.view()));
        let reference = model.reference(&[shot.shallow_clone()], 2);
        (model, reference, shot, templates)
    }

    fn taught(config: &Everything, tick: impl FnMut() -> Result<()>) -> Result<(Model, Reference)> {
        let (model, reference, shot, templates) = task(config);
        let Everything { student, augment, prediction, .. } = config;
        let lesson = Lesson { config: student, augment, prediction, seed: 0 };
        let spacings_mm = [[4.0, 1.0, 1.0]];
        teach(&model, reference, &[shot], &spacings_mm, 2, &templates, &lesson, tick).map(|taught| (model, taught))
    }

    #[test]
    fn a_student_finds_the_classes_of_the_support_in_a_scan_that_nobody_has_seen_and_each_time_the_same() {
        let config = everything();
        let mut ticks = 0;
        let (model, reference) = taught(&config, || Ok(ticks += 1)).unwrap();
        assert_eq!(ticks, 120);
        assert!(matches!(reference, Reference::Taught(..)));
        let (image, truth) = scan(9);
        let image = from_voxels(image.view());
        let scores = model.predict(&image, &reference);
        let found = to_voxels(&prediction::hard(&scores).to_kind(Kind::Float)).mapv(|class| class as i32);
        for class in [1, 2] {
            let dice = crate::metrics::dice(found.view(), truth.mapv(i32::from).view(), class).unwrap();
            // The labels of the templates, by a network that has learned nothing, are mostly wrong.
            assert!(dice > 0.8, "class {class}: {dice}");
        }
        let (model, again) = taught(&config, || Ok(())).unwrap();
        assert!(model.predict(&image, &again).equal(&scores));
    }

    #[test]
    fn a_lesson_ends_when_somebody_asks_for_it_and_needs_templates_and_steps() {
        let mut config = everything();
        let stop = || Err(Error::Stopped { saved: String::new() });
        assert!(matches!(taught(&config, stop), Err(Error::Stopped { .. })));
        config.student.steps = 0;
        assert!(matches!(taught(&config, stop), Ok((_, Reference::Voters(_)))));
    }

    #[test]
    fn what_nobody_knows_stays_unknown_and_shifts_move_classes_alone() {
        let (image, classes) = scan(0);
        let known = Tensor::ones([1, 1, 4, 24, 24], (Kind::Float, Device::Cpu));
        let _ = known.narrow(2, 0, 1).fill_(0.0);
        let shot = Shot { known: Some(known), ..Shot::new(from_voxels(image.view()), from_classes(classes.view())) };
        let mut config = everything().augment;
        [config.affine.probability, config.gamma.probability] = [0.0; 2];
        let (varied, truth) =
            Exercise::of_shot(&shot, [4.0, 1.0, 1.0]).vary(3.0, 2, &config, &mut rng::stream(0, "shift", 0));
        let (varied, truth) = (to_voxels(&varied), to_voxels(&truth.to_kind(Kind::Float)));
        let mut moved = [false; 3];
        for (at, &class) in classes.indexed_iter() {
            let is_known = at.0 > 0;
            assert_eq!(truth[at], if is_known { f32::from(class) } else { -1.0 });
            assert!((is_known && class > 0) || varied[at] == image[at]);
            moved[class as usize] |= varied[at] != image[at];
        }
        assert!(moved[1] || moved[2], "{moved:?}");
    }
}
