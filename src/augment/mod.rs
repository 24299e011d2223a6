//! Random transforms of images and label maps, with the meaning and the parameter names of TorchIO 1.2.
//!
//! Drawing is separate from applying: [`draw`] turns a [`Config`] into [`Params`], which determine the transform and
//! can be stored and replayed; [`apply`] applies them. The order is that of a TorchIO `Compose`: flip, affine, elastic
//! (one resampling, [`spatial`]), then bias field, blur, contrast, gamma, noise ([`intensity`]). [`contrast`] and
//! [`shifts`] are not part of TorchIO. Shifts need the supervoxels of the image and are applied before all others.
//!
//! Arrays are `[z, y, x]` in the canonical frame and triples are in z y x order; TorchIO's are x y z.

pub mod affine;
pub mod contrast;
pub mod elastic;
pub mod intensity;
pub mod shifts;
pub mod spatial;

use crate::error::{Error, Result};
use ndarray::Array3;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Section `[augment]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The side of an episode that is transformed.
    pub apply_to: ApplyTo,
    /// Scaling, rotation and translation.
    pub affine: affine::Config,
    /// Elastic deformation.
    pub elastic: elastic::Config,
    /// Gamma curve.
    pub gamma: intensity::GammaConfig,
    /// Normal noise.
    pub noise: intensity::NoiseConfig,
    /// Smooth multiplicative bias field.
    pub bias_field: intensity::BiasFieldConfig,
    /// Gaussian blur.
    pub blur: intensity::BlurConfig,
    /// Random intensity curve.
    pub contrast: contrast::Config,
    /// Intensity shifts of single supervoxels.
    pub supervoxel_intensity: shifts::Config,
    /// Reversal of axes.
    pub flip: spatial::FlipConfig,
}

/// The side of an episode that is transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplyTo {
    /// The query.
    Query,
    /// The support.
    Support,
    /// Both sides, each with its own parameters.
    Both,
    /// One of the two, drawn for each episode.
    Either,
}

impl Config {
    /// Checks the values of the section and its subsections.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        self.affine.check()?;
        self.elastic.check()?;
        self.gamma.check()?;
        self.noise.check()?;
        self.bias_field.check()?;
        self.blur.check()?;
        self.contrast.check()?;
        self.supervoxel_intensity.check()?;
        self.flip.check()
    }

    /// The section as it applies after the fraction `share` of the training: without supervoxel shifts once that
    /// exceeds `augment.supervoxel_intensity.until`.
    pub fn after(&self, share: f64) -> Cow<'_, Self> {
        if share < self.supervoxel_intensity.until || self.supervoxel_intensity.probability == 0.0 {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self {
            supervoxel_intensity: shifts::Config { probability: 0.0, ..self.supervoxel_intensity.clone() },
            ..self.clone()
        })
    }
}

/// Parameters of one drawn transform. The numbers are `f32`, so that any text format restores them bit for bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Axes (z, y, x) to reverse.
    pub flip: [bool; 3],
    /// Scaling, rotation and translation, if drawn.
    pub affine: Option<affine::Affine>,
    /// Elastic deformation, if drawn.
    pub elastic: Option<elastic::Elastic>,
    /// Bias field, if drawn.
    pub bias_field: Option<intensity::BiasField>,
    /// Blur, if drawn.
    pub blur: Option<intensity::Blur>,
    /// Intensity curve, if drawn.
    pub contrast: Option<contrast::Contrast>,
    /// Gamma curve, if drawn.
    pub gamma: Option<intensity::Gamma>,
    /// Noise, if drawn.
    pub noise: Option<intensity::Noise>,
}

/// Draws the parameters of a transform; each part occurs with its own probability.
pub fn draw(rng: &mut impl Rng, config: &Config) -> Params {
    Params {
        flip: config.flip.draw(rng),
        affine: occurs(rng, config.affine.probability).then(|| config.affine.draw(rng)),
        elastic: occurs(rng, config.elastic.probability).then(|| config.elastic.draw(rng)),
        bias_field: occurs(rng, config.bias_field.probability).then(|| config.bias_field.draw(rng)),
        blur: occurs(rng, config.blur.probability).then(|| config.blur.draw(rng)),
        contrast: may_occur(rng, config.contrast.probability).then(|| config.contrast.draw(rng)),
        gamma: occurs(rng, config.gamma.probability).then(|| config.gamma.draw(rng)),
        noise: occurs(rng, config.noise.probability).then(|| config.noise.draw(rng)),
    }
}

/// Transforms an image (linear interpolation, padded with its minimum) and its label map (nearest neighbour, padded
/// with 0), both `[z, y, x]` with voxels of `spacing_mm`. The result depends on the arguments alone.
///
/// # Panics
/// The shapes differ.
///
/// ```
/// use ssl3d::augment::{Params, apply};
/// let image = ndarray::arr3(&[[[1.0f32, 2.0, 3.0]]]);
/// let labels = ndarray::arr3(&[[[0u8, 0, 1]]]);
/// let params = Params { flip: [false, false, true], ..Params::default() };
/// let (moved, moved_labels) = apply(&params, &image, &labels, [1.0; 3]);
/// assert_eq!(moved, ndarray::arr3(&[[[3.0, 2.0, 1.0]]]));
/// assert_eq!(moved_labels, ndarray::arr3(&[[[1, 0, 0]]]));
/// ```
pub fn apply<L>(
    params: &Params,
    image: &Array3<f32>,
    labels: &Array3<L>,
    spacing_mm: [f64; 3],
) -> (Array3<f32>, Array3<L>)
where
    L: Copy + Default + Send + Sync,
{
    let (mut image, labels) = spatial::apply(params, image, labels, spacing_mm);
    if let Some(bias_field) = &params.bias_field {
        bias_field.apply(&mut image);
    }
    if let Some(blur) = &params.blur {
        blur.apply(&mut image, spacing_mm);
    }
    if let Some(contrast) = &params.contrast {
        contrast.apply(&mut image);
    }
    if let Some(gamma) = &params.gamma {
        gamma.apply(&mut image);
    }
    if let Some(noise) = &params.noise {
        noise.apply(&mut image);
    }
    (image, labels)
}

fn occurs(rng: &mut impl Rng, probability: f64) -> bool {
    rng.random::<f64>() < probability
}

/// Draws whether a transform occurs, and consumes no random number at probability 0: transforms that were added later
/// must not shift the draws of recorded trainings.
fn may_occur(rng: &mut impl Rng, probability: f64) -> bool {
    probability > 0.0 && occurs(rng, probability)
}

/// A uniform number in `[low, high]`.
fn uniform(rng: &mut impl Rng, [low, high]: [f64; 2]) -> f32 {
    (low + (high - low) * rng.random::<f64>()) as f32
}

fn check_probability(at: &str, probability: f64) -> Result<()> {
    if (0.0..=1.0).contains(&probability) {
        return Ok(());
    }
    Err(Error::invalid(at, "a probability from 0 to 1", probability.to_string(), "0 switches the transform off"))
}

/// Checks that `[low, high]` is finite, in order and not below `least`.
fn check_range(at: &str, range: [f64; 2], least: f64) -> Result<()> {
    let [low, high] = range;
    if low.is_finite() && high.is_finite() && least <= low && low <= high {
        return Ok(());
    }
    let bound = if least.is_finite() { format!(" from {least} up") } else { String::new() };
    Err(Error::invalid(at, format!("[low, high] in this order{bound}"), format!("{range:?}"), "set both ends"))
}

/// Checks three half-widths, 0 or more.
fn check_extent(at: &str, extent: [f64; 3]) -> Result<()> {
    if extent.iter().all(|v| v.is_finite() && *v >= 0.0) {
        return Ok(());
    }
    Err(Error::invalid(
        at,
        "three values [z, y, x] of 0 or more",
        format!("{extent:?}"),
        "give the largest size of each, the sign is drawn",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use ndarray::Array3;

    const BASE: &str = r#"
        apply_to = "query"
        [affine]
        probability = 1.0
        scales = [0.9, 1.2]
        degrees_zyx = [5, 5, 5]
        translation_mm = [5.0, 5.0, 5.0]
        [elastic]
        probability = 1.0
        control_points = [7, 7, 7]
        max_displacement_mm = [7.5, 7.5, 7.5]
        locked_borders = 2
        [gamma]
        probability = 1.0
        log_gamma = [-0.3, 0.3]
        [noise]
        probability = 1.0
        mean = [0.0, 0.0]
        std = [0.0, 0.25]
        [bias_field]
        probability = 1.0
        coefficients = [-0.5, 0.5]
        order = 3
        [blur]
        probability = 1.0
        std_mm = [0.0, 2.0]
        [contrast]
        probability = 1.0
        knots = 6
        blend = [0.0, 0.7]
        [supervoxel_intensity]
        probability = 1.0
        std = [0.0, 3.0]
        until = 0.7
        [flip]
        probability = 0.5
        axes = ["x", "y"]
    "#;

    fn config() -> Config {
        toml::from_str(BASE).unwrap()
    }

    fn scan() -> (Array3<f32>, Array3<u8>) {
        let image = Array3::from_shape_fn((9, 20, 18), |(z, y, x)| ((z * 7 + y * 3 + x * x) % 23) as f32 - 8.0);
        (image, Array3::from_shape_fn((9, 20, 18), |(z, y, x)| (z / 3 + y / 7 * 2 + x / 6) as u8))
    }

    #[test]
    fn the_base_configuration_is_read_checked_and_its_faults_named() {
        config().check().unwrap();
        for (from, to, named) in [
            ("degrees_zyx = [5, 5, 5]", "degrees_zyx = [5, -5, 5]", "augment.affine.degrees_zyx"),
            ("scales = [0.9, 1.2]", "scales = [1.2, 0.9]", "augment.affine.scales"),
            ("control_points = [7, 7, 7]", "control_points = [3, 7, 7]", "augment.elastic.control_points"),
            ("locked_borders = 2", "locked_borders = 3", "augment.elastic.locked_borders"),
            ("std_mm = [0.0, 2.0]", "std_mm = [-1.0, 2.0]", "augment.blur.std_mm"),
            ("blend = [0.0, 0.7]", "blend = [0.0, 1.7]", "augment.contrast.blend"),
            ("std = [0.0, 3.0]", "std = [0.0, -3.0]", "augment.supervoxel_intensity.std"),
            ("until = 0.7", "until = 1.1", "augment.supervoxel_intensity.until"),
            ("probability = 0.5", "probability = 1.5", "augment.flip.probability"),
        ] {
            let config: Config = toml::from_str(&BASE.replace(from, to)).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn after_their_share_of_the_training_supervoxels_keep_their_brightness_and_all_else_stays() {
        let mut config = config();
        config.supervoxel_intensity.probability = 0.5;
        assert_eq!(*config.after(0.0), config);
        assert_eq!(*config.after(0.69), config);
        let late = config.after(0.7).into_owned();
        assert_eq!(late.supervoxel_intensity.probability, 0.0);
        assert_ne!(late, config);
        config.supervoxel_intensity.probability = 0.0;
        assert_eq!(late, config);
    }

    #[test]
    fn parameters_replay_to_the_same_bytes_after_a_round_trip_through_text() {
        let (image, labels) = scan();
        for step in 0..20 {
            let params = draw(&mut rng::stream(3, "augment", step), &config());
            let text = serde_json::to_string(&params).unwrap();
            let again: Params = serde_json::from_str(&text).unwrap();
            assert_eq!(params, again);
            let spacing_mm = [7.7, 1.25, 1.25];
            assert_eq!(apply(&params, &image, &labels, spacing_mm), apply(&again, &image, &labels, spacing_mm));
        }
    }

    #[test]
    fn the_same_stream_draws_the_same_and_another_step_another() {
        let draw_at = |step| draw(&mut rng::stream(3, "augment", step), &config());
        assert_eq!(draw_at(0), draw_at(0));
        assert_ne!(draw_at(0), draw_at(1));
    }

    #[test]
    fn drawn_values_lie_in_their_ranges() {
        let config = config();
        for step in 0..50 {
            let params = draw(&mut rng::stream(5, "augment", step), &config);
            let affine = params.affine.unwrap();
            assert!(affine.scales.iter().all(|s| (0.9..=1.2).contains(s)));
            assert!(affine.degrees_zyx.iter().chain(&affine.translation_mm).all(|v| v.abs() <= 5.0));
            assert!((-0.3..=0.3).contains(&params.gamma.unwrap().gamma.ln()));
            assert_eq!(params.bias_field.unwrap().coefficients.len(), 20);
            assert!(!params.flip[0], "z is not among the axes");
        }
    }

    #[test]
    fn labels_of_the_result_are_labels_of_the_input() {
        let (image, labels) = scan();
        for step in 0..20 {
            let params = draw(&mut rng::stream(9, "augment", step), &config());
            let (_, moved) = apply(&params, &image, &labels.mapv(|l| l * 9 + 1), [4.0, 1.0, 1.0]);
            assert!(moved.iter().all(|&l| l == 0 || (l % 9 == 1 && labels.iter().any(|&m| m * 9 + 1 == l))));
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let (image, labels) = scan();
        let params = draw(&mut rng::stream(1, "augment", 0), &config());
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| apply(&params, &image, &labels, [4.0, 1.0, 1.0]))
        };
        assert_eq!(run(1), run(3));
    }
}
