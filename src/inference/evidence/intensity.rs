//! Evidence: intensities. In each scan the voxels that are confidently of a class make a histogram, and its logarithm is evidence for
//! every voxel (mixture models of intensities beside a prior of anatomy: Van Leemput et al. 1999). The evidence is 0 on average over
//! those voxels, so that it moves boundaries and does not favour a class.
//!
//! Networks that learn from supervoxels of shifted intensity depend little on it, and so a class may run over into a neighbour that is
//! plainly darker or brighter.

use crate::error::{Error, Result};
use crate::inference::config::check_range;
use crate::percentile::percentile;
use ndarray::{ArrayView3, Zip};
use serde::{Deserialize, Serialize};

/// Section `[inference.intensity]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of ln p(intensity | class) beside the score of the class; 0 computes nothing.
    pub weight: f64,
    /// Probability above which a voxel counts into the histogram of a class.
    pub confidence: f32,
    /// Of fewer voxels no histogram is made.
    pub min_voxels: f64,
    /// Added to each density, as a fraction of the greatest: an intensity that never occurs is unlikely, not impossible.
    pub floor: f64,
    /// Bins of a histogram.
    pub bins: usize,
    /// Standard deviation of the Gaussian that smooths a histogram, in bins.
    pub smoothing_bins: f64,
    /// The bins are even in the square root of the intensity between these percentiles: brighter tissue varies more.
    pub percentiles: [f64; 2],
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("intensity.weight", self.weight, 0.0..=1e3)?;
        check_range("intensity.confidence", self.confidence, 0.0..=1.0)?;
        check_range("intensity.min_voxels", self.min_voxels, 1.0..=1e12)?;
        check_range("intensity.floor", self.floor, 1e-9..=1.0)?;
        check_range("intensity.bins", self.bins, 2..=4096)?;
        check_range("intensity.smoothing_bins", self.smoothing_bins, 1e-3..=1e3)?;
        let [low, high] = self.percentiles;
        if !(0.0 <= low && low < high && high <= 100.0) {
            let (expected, found) = ("two rising percentiles from 0 to 100", format!("{:?}", self.percentiles));
            return Err(Error::invalid("inference.intensity.percentiles", expected, found, "change this key"));
        }
        Ok(())
    }
}

/// The intensities of a scan as bins.
pub struct Intensities<'a> {
    image: ArrayView3<'a, f32>,
    low: f32,
    range: f32,
    config: &'a Config,
}

impl<'a> Intensities<'a> {
    /// `seen`: the part of `image` that lies on the network's grid.
    pub fn new(image: ArrayView3<'a, f32>, seen: ArrayView3<f32>, config: &'a Config) -> Self {
        let mut finite: Vec<f32> = seen.iter().copied().filter(|v| v.is_finite()).collect();
        let [low, high] = match finite.is_empty() {
            true => [0.0; 2],
            false => config.percentiles.map(|percent| percentile(&mut finite, percent) as f32),
        };
        Self { image, low, range: (high - low).max(f32::MIN_POSITIVE), config }
    }

    /// The bin of an intensity; the first where it is not a number.
    pub(in crate::inference) fn bin(&self, intensity: f32) -> usize {
        let (unit, bins) = (((intensity - self.low) / self.range).clamp(0.0, 1.0), self.config.bins);
        ((unit.sqrt() * bins as f32) as usize).min(bins - 1)
    }

    pub(in crate::inference) fn image(&self) -> ArrayView3<'a, f32> {
        self.image
    }

    /// For each bin ln p(bin | class) of a class of this probability on the scan's grid, 0 on average over the voxels that are
    /// confidently of the class. All 0 where these are too few.
    pub fn evidence(&self, probability: ArrayView3<f32>) -> Vec<f32> {
        let mut counts = vec![0.0f64; self.config.bins];
        Zip::from(&self.image).and(probability).for_each(|&intensity, &p| {
            if p > self.config.confidence && !intensity.is_nan() {
                counts[self.bin(intensity)] += 1.0;
            }
        });
        log_likelihoods(&counts, self.config)
    }
}

fn log_likelihoods(counts: &[f64], config: &Config) -> Vec<f32> {
    let total: f64 = counts.iter().sum();
    if total < config.min_voxels {
        return vec![0.0; counts.len()];
    }
    let smoothed = |bin: usize| {
        let weight = |other: usize| (-0.5 * ((bin as f64 - other as f64) / config.smoothing_bins).powi(2)).exp();
        let (sum, of) = (0..counts.len())
            .map(|other| (weight(other) * counts[other], weight(other)))
            .fold((0.0, 0.0), |(sum, of), (v, w)| (sum + v, of + w));
        sum / of
    };
    let density: Vec<f64> = (0..counts.len()).map(smoothed).collect();
    let peak = density.iter().copied().fold(0.0, f64::max);
    let ln: Vec<f64> = density.iter().map(|v| (v / peak + config.floor).ln()).collect();
    let mean = ln.iter().zip(counts).map(|(ln, count)| ln * count).sum::<f64>() / total;
    ln.iter().map(|ln| (ln - mean) as f32).collect()
}

#[cfg(test)]
pub(in crate::inference) mod tests {
    use super::*;
    use ndarray::{Array3, s};

    pub(in crate::inference) const CONFIG: Config = Config {
        weight: 1.0,
        confidence: 0.95,
        min_voxels: 30.0,
        floor: 0.05,
        bins: 64,
        smoothing_bins: 2.5,
        percentiles: [0.5, 99.5],
    };

    /// Ten slices: a class of 40 +- 4 in the first half, something of 90 +- 4 in the second.
    fn image() -> Array3<f32> {
        let mut image =
            Array3::from_shape_fn((10, 12, 12), |(z, y, x)| 36.0 + ((41 * z + 23 * y + 59 * x) % 101) as f32 * 0.08);
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
        let intensities = Intensities::new(image.view(), image.view(), &CONFIG);
        let evidence = intensities.evidence(probability(5).view());
        let at = |intensity: f32| evidence[intensities.bin(intensity)];
        assert!(at(40.0) > 0.0 && at(90.0) < -2.0, "{} {}", at(40.0), at(90.0));
        let sure: Vec<f64> = image.iter().take(5 * 144).map(|&v| f64::from(at(v))).collect();
        assert!((sure.iter().sum::<f64>() / sure.len() as f64).abs() < 1e-6, "no class is favoured");
        let least = CONFIG.floor.ln() as f32;
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
            let intensities = Intensities::new(image.view(), image.view(), &CONFIG);
            let evidence = intensities.evidence(probability(0).view());
            image.iter().map(|&v| evidence[intensities.bin(v)]).sum()
        };
        let [a, b]: [f32; 2] = [of(&image), of(&other)];
        assert!((a - b).abs() < 0.02 * a.abs(), "{a} {b}");
    }

    #[test]
    fn too_few_sure_voxels_and_images_without_contrast_say_nothing() {
        let image = image();
        let nothing = |image: &Array3<f32>, probability: Array3<f32>| {
            let intensities = Intensities::new(image.view(), image.view(), &CONFIG);
            let evidence = intensities.evidence(probability.view());
            evidence.iter().all(|v| v.is_finite()) && image.iter().all(|&v| evidence[intensities.bin(v)].abs() < 1e-6)
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
