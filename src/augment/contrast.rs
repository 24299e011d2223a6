//! Random change of the contrast between tissues: a random curve through the intensities, as the 1x1x1 case of global
//! intensity non-linear augmentation (Ouyang et al. 2022, "Causality-inspired single-source domain generalization") and
//! of the intensity curves of Models Genesis (Zhou et al. 2019). The same organ is bright in one scan and dark in the
//! next; training pairs of one scan and its own transform do not show this otherwise.

use super::{check_probability, check_range, uniform};
use crate::error::{Error, Result};
use ndarray::Array3;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Section `[augment.contrast]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability of the transform.
    pub probability: f64,
    /// Number of points of the curve, 2 to 64, evenly spaced from the image's lowest to its highest intensity.
    pub knots: usize,
    /// Range of the weight of the random curve, 0 to 1; the rest is the identity. 0 leaves the image unchanged.
    pub blend: [f64; 2],
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.contrast.probability", self.probability)?;
        check_range("augment.contrast.blend", self.blend, 0.0)?;
        if self.blend[1] > 1.0 {
            let found = format!("{:?}", self.blend);
            return Err(Error::invalid("augment.contrast.blend", "shares up to 1", found, "0 changes nothing"));
        }
        if !(2..=64).contains(&self.knots) {
            return Err(Error::invalid(
                "augment.contrast.knots",
                "2 to 64",
                self.knots.to_string(),
                "6 is a gentle curve",
            ));
        }
        Ok(())
    }

    /// Draws the curve and its weight.
    pub fn draw(&self, rng: &mut impl Rng) -> Contrast {
        let blend = uniform(rng, self.blend);
        Contrast { curve: (0..self.knots).map(|_| rng.random::<f32>()).collect(), blend }
    }
}

/// v -> (1 - blend) v + blend r(v), scaled to the mean and the standard deviation of before; r is linear between the
/// points of `curve`, where 0 and 1 are the image's lowest and highest intensity. The curve may rise and fall, so
/// tissues can change their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contrast {
    /// Values of the curve from 0 to 1; at least two.
    pub curve: Vec<f32>,
    /// Weight of the curve, 0 to 1.
    pub blend: f32,
}

impl Contrast {
    /// Applies the curve to an image `[z, y, x]`; a constant image stays unchanged.
    pub fn apply(&self, image: &mut Array3<f32>) {
        let (low, high) = image.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        if low >= high || self.blend == 0.0 {
            return;
        }
        let (mean, sd) = moments(image);
        let steps = (self.curve.len() - 1) as f32;
        image.par_mapv_inplace(|v| {
            let at = ((v - low) / (high - low)).clamp(0.0, 1.0) * steps;
            let knot = (at as usize).min(self.curve.len() - 2);
            let share = at - knot as f32;
            let drawn = low + (high - low) * (self.curve[knot] * (1.0 - share) + self.curve[knot + 1] * share);
            (1.0 - self.blend) * v + self.blend * drawn
        });
        let (mean_now, sd_now) = moments(image);
        if sd_now > f64::EPSILON * (mean_now.abs() + 1.0) {
            let scale = sd / sd_now;
            image.par_mapv_inplace(|v| ((f64::from(v) - mean_now) * scale + mean) as f32);
        }
    }
}

/// Mean and standard deviation; sums are in float64 and in order.
fn moments(image: &Array3<f32>) -> (f64, f64) {
    let count = image.len() as f64;
    let mean = image.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = image.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Array3<f32> {
        Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (z * 20 + y * 5 + x) as f32 / 10.0 - 2.0)
    }

    fn close(a: &Array3<f32>, b: &Array3<f32>) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn a_straight_curve_or_no_blend_changes_nothing() {
        for contrast in [
            Contrast { curve: vec![0.0, 0.5, 1.0], blend: 0.8 },
            Contrast { curve: vec![0.9, 0.1, 0.4, 0.4], blend: 0.0 },
        ] {
            let mut changed = image();
            contrast.apply(&mut changed);
            assert!(close(&changed, &image()), "{contrast:?}");
        }
    }

    #[test]
    fn a_falling_curve_turns_the_order_of_intensities_around_and_keeps_mean_and_spread() {
        let (before, mut after) = (image(), image());
        Contrast { curve: vec![1.0, 0.0], blend: 1.0 }.apply(&mut after);
        let (mean, _) = moments(&before);
        assert!(close(&after, &before.mapv(|v| 2.0 * mean as f32 - v)));
        Contrast { curve: vec![0.2, 0.9, 0.1, 0.5, 0.3], blend: 0.7 }.apply(&mut after);
        let ((mean, sd), (mean_after, sd_after)) = (moments(&before), moments(&after));
        assert!((mean - mean_after).abs() < 1e-5 && (sd - sd_after).abs() < 1e-5);
    }

    #[test]
    fn equal_intensities_stay_equal_and_a_constant_image_stays_as_it_is() {
        let mut image = Array3::from_shape_fn((2, 3, 4), |(_, y, _)| y as f32);
        Contrast { curve: vec![0.3, 0.8, 0.2, 0.6], blend: 0.5 }.apply(&mut image);
        assert!(image.indexed_iter().all(|((_, y, _), &v)| v == image[[0, y, 0]]));
        let mut constant = Array3::from_elem((2, 2, 2), 3.0);
        Contrast { curve: vec![0.3, 0.8], blend: 1.0 }.apply(&mut constant);
        assert!(constant.iter().all(|&v| v == 3.0));
    }
}
