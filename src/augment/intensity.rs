//! Transforms of the intensities alone, as TorchIO's `RandomGamma`, `RandomBiasField`, `RandomBlur`, `RandomNoise`.

use super::{check_probability, check_range, uniform};
use crate::error::{Error, Result};
use crate::rng;
use ndarray::Array3;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Section `[augment.gamma]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GammaConfig {
    /// Probability of the transform.
    pub probability: f64,
    /// Range of ln gamma.
    pub log_gamma: [f64; 2],
}

/// Section `[augment.bias_field]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasFieldConfig {
    /// Probability of the transform.
    pub probability: f64,
    /// Range of each polynomial coefficient.
    pub coefficients: [f64; 2],
    /// Order of the polynomial, 0 to 6.
    pub order: usize,
}

/// Section `[augment.blur]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlurConfig {
    /// Probability of the transform.
    pub probability: f64,
    /// Range of the standard deviation in millimetres, drawn for each axis.
    pub std_mm: [f64; 2],
}

/// Section `[augment.noise]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseConfig {
    /// Probability of the transform.
    pub probability: f64,
    /// Range of the mean, in the unit of the image.
    pub mean: [f64; 2],
    /// Range of the standard deviation, in the unit of the image.
    pub std: [f64; 2],
}

impl GammaConfig {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.gamma.probability", self.probability)?;
        check_range("augment.gamma.log_gamma", self.log_gamma, f64::NEG_INFINITY)
    }

    /// Draws gamma, log-uniform.
    pub fn draw(&self, rng: &mut impl Rng) -> Gamma {
        Gamma { gamma: uniform(rng, self.log_gamma).exp() }
    }
}

impl BiasFieldConfig {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.bias_field.probability", self.probability)?;
        check_range("augment.bias_field.coefficients", self.coefficients, f64::NEG_INFINITY)?;
        if self.order <= 6 {
            return Ok(());
        }
        Err(Error::invalid("augment.bias_field.order", "0 to 6", self.order.to_string(), "3 is smooth enough"))
    }

    /// Draws all coefficients of the polynomial.
    pub fn draw(&self, rng: &mut impl Rng) -> BiasField {
        let terms = exponents(self.order).count();
        BiasField { order: self.order, coefficients: (0..terms).map(|_| uniform(rng, self.coefficients)).collect() }
    }
}

impl BlurConfig {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.blur.probability", self.probability)?;
        check_range("augment.blur.std_mm", self.std_mm, 0.0)
    }

    /// Draws the standard deviation along each axis.
    pub fn draw(&self, rng: &mut impl Rng) -> Blur {
        Blur { std_mm: std::array::from_fn(|_| uniform(rng, self.std_mm)) }
    }
}

impl NoiseConfig {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.noise.probability", self.probability)?;
        check_range("augment.noise.mean", self.mean, f64::NEG_INFINITY)?;
        check_range("augment.noise.std", self.std, 0.0)
    }

    /// Draws mean, standard deviation and the seed of the voxels.
    pub fn draw(&self, rng: &mut impl Rng) -> Noise {
        Noise { mean: uniform(rng, self.mean), std: uniform(rng, self.std), seed: rng.random() }
    }
}

/// A gamma curve: v -> sign(v) |v|^gamma.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gamma {
    /// The exponent.
    pub gamma: f32,
}

impl Gamma {
    /// Applies the curve to every voxel.
    pub fn apply(&self, image: &mut Array3<f32>) {
        image.par_mapv_inplace(|v| v.abs().powf(self.gamma).copysign(v));
    }
}

/// A multiplicative bias field: v -> v exp(sum over i + j + k <= order of c_ijk x^i y^j z^k), with x, y, z from -1 to 1
/// across the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasField {
    /// Order of the polynomial.
    pub order: usize,
    /// Coefficients in TorchIO's order: the exponent of z runs fastest, that of x slowest.
    pub coefficients: Vec<f32>,
}

impl BiasField {
    /// Multiplies an image `[z, y, x]` by the field.
    pub fn apply(&self, image: &mut Array3<f32>) {
        let (nz, ny, nx) = image.dim();
        let powers = |n: usize, i: usize| {
            let t = if n > 1 { 2.0 * i as f32 / (n - 1) as f32 - 1.0 } else { 0.0 };
            (0..=self.order as i32).map(|exponent| t.powi(exponent)).collect::<Vec<f32>>()
        };
        let along_x: Vec<Vec<f32>> = (0..nx).map(|x| powers(nx, x)).collect();
        image.outer_iter_mut().into_par_iter().enumerate().for_each(|(z, mut plane)| {
            let z = powers(nz, z);
            for (y, mut row) in plane.outer_iter_mut().enumerate() {
                let y = powers(ny, y);
                // The polynomial of x that is left for this row.
                let mut of_x = vec![0.0; self.order + 1];
                for ((i, j, k), c) in exponents(self.order).zip(&self.coefficients) {
                    of_x[i] += c * y[j] * z[k];
                }
                for (value, x) in row.iter_mut().zip(&along_x) {
                    *value *= of_x.iter().zip(x).map(|(c, power)| c * power).sum::<f32>().exp();
                }
            }
        });
    }
}

/// Exponents (x, y, z) with a sum of at most `order`.
fn exponents(order: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..=order).flat_map(move |i| (0..=order - i).flat_map(move |j| (0..=order - i - j).map(move |k| (i, j, k))))
}

/// Gaussian blur, cut at four standard deviations, with the image mirrored at its border (SciPy's `gaussian_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// Standard deviation along z, y, x.
    pub std_mm: [f32; 3],
}

impl Blur {
    /// Blurs an image `[z, y, x]` with voxels of `spacing_mm`.
    pub fn apply(&self, image: &mut Array3<f32>, spacing_mm: [f64; 3]) {
        for (axis, voxel_mm) in spacing_mm.into_iter().enumerate() {
            let kernel = gaussian(f64::from(self.std_mm[axis]) / voxel_mm);
            let radius = kernel.len() / 2;
            if radius == 0 {
                continue;
            }
            image.lanes_mut(ndarray::Axis(axis)).into_iter().par_bridge().for_each(|mut lane| {
                let n = lane.len() as isize;
                let padded: Vec<f32> =
                    (-(radius as isize)..n + radius as isize).map(|i| lane[mirrored(i, n)]).collect();
                for (value, window) in lane.iter_mut().zip(padded.windows(kernel.len())) {
                    *value = window.iter().zip(&kernel).map(|(v, w)| v * w).sum();
                }
            });
        }
    }
}

/// Normalised weights of a Gaussian with a standard deviation of `std_vox`.
fn gaussian(std_vox: f64) -> Vec<f32> {
    let radius = (4.0 * std_vox + 0.5) as i32;
    let weights: Vec<f64> =
        (-radius..=radius).map(|i| (-0.5 * (f64::from(i) / std_vox.max(1e-9)).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| (w / sum) as f32).collect()
}

/// The index within 0..n that mirroring gives: d c b a | a b c d | d c b a.
fn mirrored(i: isize, n: isize) -> usize {
    let i = i.rem_euclid(2 * n);
    i.min(2 * n - 1 - i) as usize
}

/// Normal noise: v -> v + mean + std · N(0, 1), independent for each voxel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Mean, in the unit of the image.
    pub mean: f32,
    /// Standard deviation, in the unit of the image.
    pub std: f32,
    /// Seed of the voxels' random numbers.
    pub seed: u64,
}

impl Noise {
    /// Adds the noise to an image `[z, y, x]`; the result does not depend on the number of threads.
    pub fn apply(&self, image: &mut Array3<f32>) {
        image.outer_iter_mut().into_par_iter().enumerate().for_each(|(z, mut plane)| {
            let mut rng = rng::stream(self.seed, "noise", z as u64);
            let mut spare = None;
            for value in &mut plane {
                let normal = spare.take().unwrap_or_else(|| {
                    let [normal, other] = rng::normal_pair(&mut rng);
                    spare = Some(other);
                    normal
                });
                *value += self.mean + self.std * normal;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Array3<f32> {
        Array3::from_shape_fn((4, 5, 6), |(z, y, x)| (z * 30 + y * 6 + x) as f32 / 10.0 - 3.0)
    }

    #[test]
    fn gamma_keeps_the_sign_and_one_changes_nothing() {
        for (gamma, from, to) in [(2.0, -3.0, -9.0), (0.5, 4.0, 2.0), (1.3, 0.0, 0.0), (0.7, -1.0, -1.0)] {
            let mut image = Array3::from_elem((1, 1, 1), from);
            Gamma { gamma }.apply(&mut image);
            assert!((image[[0, 0, 0]] - to).abs() < 1e-5, "{from}^{gamma}");
        }
        let mut image = ramp();
        Gamma { gamma: 1.0 }.apply(&mut image);
        assert_eq!(image, ramp());
    }

    #[test]
    fn the_bias_field_is_the_exponential_of_the_polynomial() {
        let coefficients: Vec<f32> = (0..10).map(|i| 0.1 * i as f32 - 0.4).collect();
        let mut image = ramp();
        BiasField { order: 2, coefficients: coefficients.clone() }.apply(&mut image);
        for ((z, y, x), value) in image.indexed_iter() {
            let at = |i: usize, n: usize| 2.0 * i as f32 / (n - 1) as f32 - 1.0;
            let (z1, y1, x1) = (at(z, 4), at(y, 5), at(x, 6));
            let terms = [1.0, z1, z1 * z1, y1, y1 * z1, y1 * y1, x1, x1 * z1, x1 * y1, x1 * x1];
            let field: f32 = terms.iter().zip(&coefficients).map(|(t, c)| t * c).sum();
            assert!((value - ramp()[[z, y, x]] * field.exp()).abs() < 1e-5);
        }
    }

    #[test]
    fn blur_keeps_a_constant_and_spreads_a_point_like_a_gaussian_in_millimetres() {
        let mut flat = Array3::from_elem((3, 4, 5), 2.5);
        Blur { std_mm: [3.0, 1.0, 0.1] }.apply(&mut flat, [2.0, 1.0, 1.0]);
        assert!(flat.iter().all(|v| (v - 2.5).abs() < 1e-5));
        let mut point = Array3::zeros((17, 9, 9));
        point[[8, 4, 4]] = 1.0;
        Blur { std_mm: [4.0, 1.0, 0.0] }.apply(&mut point, [4.0, 1.0, 1.0]);
        let ratio = (-0.5f32).exp();
        assert!((point[[9, 4, 4]] / point[[8, 4, 4]] - ratio).abs() < 1e-5);
        assert!((point[[8, 5, 4]] / point[[8, 4, 4]] - ratio).abs() < 1e-5);
        assert_eq!(point[[8, 4, 5]], 0.0);
        assert!((point.sum() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn mirroring_repeats_the_border_voxel() {
        let row: Vec<usize> = (-5..9).map(|i| mirrored(i, 4)).collect();
        assert_eq!(row, [3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn noise_has_the_mean_and_spread_that_it_says() {
        let mut image = Array3::zeros((20, 50, 50));
        Noise { mean: 0.3, std: 0.2, seed: 7 }.apply(&mut image);
        let mean = image.mean().unwrap();
        let std = image.mapv(|v| (v - mean).powi(2)).mean().unwrap().sqrt();
        // Standard errors: 0.2 / sqrt(50000) and 0.2 / sqrt(100000), times five.
        assert!((mean - 0.3).abs() < 0.0045 && (std - 0.2).abs() < 0.0032, "{mean} {std}");
    }
}
