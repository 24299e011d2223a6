//! How bright a class is in one scan: where the network is sure of it tells how bright the rest of it can be.
//!
//! Networks that learn from supervoxels of shifted brightness hardly look at it, and so a class may run over into a
//! neighbour that is plainly darker or brighter. In each scan the intensities of the voxels that surely are the class make a
//! histogram, and its logarithm is evidence for every voxel (mixture models of intensities beside a prior of anatomy: Van Leemput et
//! al. 1999). The evidence is 0 on average over those voxels, so that it moves borders and does not favour a class.

use super::percentile;
use ndarray::{ArrayView3, Zip};

const BINS: usize = 64;
/// The bins are even in the square root of the intensity between these percentiles: brighter parts vary more.
const PERCENTILES: [f64; 2] = [0.5, 99.5];
/// A histogram is smoothed by a Gaussian of this deviation.
const STD_BINS: f64 = 2.5;
/// What counts as the class for sure.
const SURE: f32 = 0.95;
/// Of so few voxels no histogram is made.
const FEW: f64 = 30.0;
/// Any brightness is at least as likely as this share of the likeliest one.
const LEAST: f64 = 0.05;

/// The intensities of a scan as bins.
pub struct Brightness<'a> {
    image: ArrayView3<'a, f32>,
    low: f32,
    range: f32,
}

impl<'a> Brightness<'a> {
    /// `seen`: of `image` what the network sees.
    pub(super) fn new(image: ArrayView3<'a, f32>, seen: ArrayView3<f32>) -> Self {
        let mut finite: Vec<f32> = seen.iter().copied().filter(|v| v.is_finite()).collect();
        let [low, high] = match finite.is_empty() {
            true => [0.0; 2],
            false => PERCENTILES.map(|percent| percentile(&mut finite, percent)),
        };
        Self { image, low, range: (high - low).max(f32::MIN_POSITIVE) }
    }

    /// What is not a number is as dark as can be.
    pub(super) fn bin(&self, intensity: f32) -> usize {
        let unit = ((intensity - self.low) / self.range).clamp(0.0, 1.0);
        ((unit.sqrt() * BINS as f32) as usize).min(BINS - 1)
    }

    pub(super) fn image(&self) -> ArrayView3<'a, f32> {
        self.image
    }

    /// For each bin what to add to the score of a class of this probability on the native grid: ln p(bin | class), 0 on average over
    /// the voxels that surely are the class. All 0 where too few are.
    pub fn evidence(&self, probability: ArrayView3<f32>) -> Vec<f32> {
        let mut counts = vec![0.0f64; BINS];
        Zip::from(&self.image).and(probability).for_each(|&intensity, &p| {
            if p > SURE {
                counts[self.bin(intensity)] += 1.0;
            }
        });
        evidence(&counts)
    }
}

fn evidence(counts: &[f64]) -> Vec<f32> {
    let total: f64 = counts.iter().sum();
    if total < FEW {
        return vec![0.0; counts.len()];
    }
    let smoothed = |bin: usize| {
        let weight = |other: usize| (-0.5 * ((bin as f64 - other as f64) / STD_BINS).powi(2)).exp();
        let (sum, of) = (0..counts.len())
            .map(|other| (weight(other) * counts[other], weight(other)))
            .fold((0.0, 0.0), |(sum, of), (v, w)| (sum + v, of + w));
        sum / of
    };
    let density: Vec<f64> = (0..counts.len()).map(smoothed).collect();
    let peak = density.iter().copied().fold(0.0, f64::max);
    let ln: Vec<f64> = density.iter().map(|v| (v / peak + LEAST).ln()).collect();
    let mean = ln.iter().zip(counts).map(|(ln, count)| ln * count).sum::<f64>() / total;
    ln.iter().map(|ln| (ln - mean) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use ndarray::{Array3, s};
    use rand::RngExt;

    /// Ten slices: a class of 40 +- 4 in the first half, something of 90 +- 4 in the second.
    fn image() -> Array3<f32> {
        let mut rng = rng::stream(5, "brightness", 0);
        let mut image = Array3::from_shape_simple_fn((10, 12, 12), || rng.random_range(36.0..44.0));
        image.slice_mut(s![5.., .., ..]).mapv_inplace(|v| v + 50.0);
        image
    }

    /// Sure of the class in the first five slices, and not quite sure in `doubtful` ones more.
    fn probability(doubtful: usize) -> Array3<f32> {
        let mut probability = Array3::zeros((10, 12, 12));
        probability.slice_mut(s![..5, .., ..]).fill(0.97);
        probability.slice_mut(s![5..5 + doubtful, .., ..]).fill(0.9);
        probability
    }

    #[test]
    fn brightness_speaks_for_a_class_where_it_is_that_of_its_sure_voxels_and_against_it_elsewhere() {
        let image = image();
        let brightness = Brightness::new(image.view(), image.view());
        let evidence = brightness.evidence(probability(5).view());
        let at = |intensity: f32| evidence[brightness.bin(intensity)];
        assert!(at(40.0) > 0.0 && at(90.0) < -2.0, "{} {}", at(40.0), at(90.0));
        let sure: Vec<f64> = image.iter().take(5 * 144).map(|&v| f64::from(at(v))).collect();
        assert!((sure.iter().sum::<f64>() / sure.len() as f64).abs() < 1e-6, "no class is favoured");
        let least = LEAST.ln() as f32;
        assert!(
            evidence.iter().all(|&v| v - at(40.0) > least - 0.1),
            "what was never seen is unlikely, not impossible"
        );
    }

    #[test]
    fn gain_and_offset_of_a_scan_say_nothing() {
        let image = image();
        let other = image.mapv(|v| 7.0 * v - 1000.0);
        let of = |image: &Array3<f32>| {
            let brightness = Brightness::new(image.view(), image.view());
            let evidence = brightness.evidence(probability(0).view());
            image.iter().map(|&v| evidence[brightness.bin(v)]).sum()
        };
        let [a, b]: [f32; 2] = [of(&image), of(&other)];
        assert!((a - b).abs() < 0.02 * a.abs(), "{a} {b}");
    }

    #[test]
    fn too_few_sure_voxels_and_images_without_contrast_say_nothing() {
        let image = image();
        let nothing = |image: &Array3<f32>, probability: Array3<f32>| {
            let brightness = Brightness::new(image.view(), image.view());
            let evidence = brightness.evidence(probability.view());
            evidence.iter().all(|v| v.is_finite()) && image.iter().all(|&v| evidence[brightness.bin(v)].abs() < 1e-6)
        };
        let mut few = Array3::zeros((10, 12, 12));
        few.slice_mut(s![0, 0, ..]).fill(1.0);
        assert!(nothing(&image, few));
        assert!(nothing(&image, Array3::from_elem((10, 12, 12), 0.9)), "nobody is sure");
        for value in [0.0, -5.0, f32::NAN] {
            assert!(nothing(&Array3::from_elem((10, 12, 12), value), probability(0)), "{value}");
        }
    }
}
