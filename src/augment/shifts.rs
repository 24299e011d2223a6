//! Random intensity shifts of single supervoxels: each supervoxel becomes brighter or darker by its own random number,
//! as if it were another tissue. SynthSeg (Billot et al. 2023) does this with the labels of organs, so that a network
//! learns features that do not depend on a contrast; supervoxels need no labels. A network that is trained with such
//! shifts finds the dark spleen of one scan from the bright spleen of another.

use super::{check_probability, check_range};
use crate::error::{Error, Result};
use crate::rng::normal_pair;
use ndarray::{Array3, ArrayView3};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Section `[augment.supervoxel_intensity]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability that an image is shifted.
    pub probability: f64,
    /// Range of the standard deviation of the shifts, in the unit of the image; on z-scored volumes this is the
    /// standard deviation of the scan. One value is drawn for all supervoxels of an image.
    pub std: [f64; 2],
    /// Fraction of the training after which the shifts stop: the network first learns features that do not depend on
    /// intensity, then the intensities as well.
    pub until: f64,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        check_probability("augment.supervoxel_intensity.probability", self.probability)?;
        check_range("augment.supervoxel_intensity.std", self.std, 0.0)?;
        if !(0.0..=1.0).contains(&self.until) {
            let (found, remedy) = (self.until.to_string(), "1 shifts to the end of the training");
            return Err(Error::invalid("augment.supervoxel_intensity.until", "a fraction from 0 to 1", found, remedy));
        }
        Ok(())
    }

    /// Draws shifts for an image whose supervoxels have labels up to `largest`; `None` leaves the image unchanged. At
    /// probability 0 no random number is consumed.
    pub fn draw(&self, rng: &mut impl Rng, largest: usize) -> Option<Shifts> {
        if self.probability == 0.0 || rng.random::<f32>() >= self.probability as f32 {
            return None;
        }
        let [low, high] = self.std.map(|std| std as f32);
        let std = low + (high - low) * rng.random::<f32>();
        let mut shifts: Vec<f32> = (0..=largest).map(|_| std * normal_pair(rng)[0]).collect();
        shifts[0] = 0.0;
        Some(Shifts(shifts))
    }
}

/// The number that is added to the voxels of each label; 0 for label 0, which is no supervoxel.
#[derive(Debug, Clone, PartialEq)]
pub struct Shifts(Vec<f32>);

impl Shifts {
    /// Adds the shifts to an image `[z, y, x]`. No voxel becomes darker than the darkest voxel before, which is air.
    ///
    /// # Panics
    /// The shapes differ, or a label of `regions` has no shift.
    pub fn apply(&self, image: &mut Array3<f32>, regions: ArrayView3<i32>) {
        let darkest = image.iter().copied().fold(f32::INFINITY, f32::min);
        image.zip_mut_with(&regions, |value, &region| *value = (*value + self.0[region as usize]).max(darkest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    const CONFIG: Config = Config { probability: 0.5, std: [1.0, 3.0], until: 1.0 };

    #[test]
    fn each_supervoxel_moves_as_a_whole_and_the_outside_stays() {
        let regions = Array3::from_shape_fn((2, 4, 6), |(_, y, x)| if y == 0 { 0 } else { 1 + (x / 2) as i32 });
        let before = Array3::from_shape_fn((2, 4, 6), |(z, y, x)| if y == 0 { -40.0 } else { (z + y * x) as f32 });
        let shifts = Shifts(vec![0.0, 2.0, -3.0, 0.5]);
        let mut after = before.clone();
        shifts.apply(&mut after, regions.view());
        for ((at, &region), &value) in regions.indexed_iter().zip(&after) {
            assert_eq!(value, before[at] + shifts.0[region as usize]);
        }
        let mut after = before.mapv(|v| v.max(0.0));
        shifts.apply(&mut after, regions.view());
        assert!(after.iter().all(|&v| v >= 0.0) && after[[0, 1, 2]] == 0.0, "2 - 3 is darker than air");
    }

    #[test]
    fn half_of_the_images_are_shifted_by_as_much_as_was_asked_for() {
        let mut rng = rng::stream(2, "shifts", 0);
        let drawn: Vec<Shifts> = (0..4000).filter_map(|_| CONFIG.draw(&mut rng, 20)).collect();
        assert!((1850..2150).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|shifts| shifts.0.len() == 21 && shifts.0[0] == 0.0));
        // s is uniform in 1..3, so the mean of s squared is 13 / 3.
        let squares: f32 = drawn.iter().flat_map(|shifts| &shifts.0).map(|s| s * s).sum();
        let variance = squares / (20 * drawn.len()) as f32;
        assert!((variance - 13.0 / 3.0).abs() < 0.25, "{variance}");
    }

    #[test]
    fn a_probability_of_0_draws_nothing() {
        let (mut rng, mut untouched) = (rng::stream(2, "shifts", 1), rng::stream(2, "shifts", 1));
        assert_eq!(Config { probability: 0.0, ..CONFIG }.draw(&mut rng, 5), None);
        assert_eq!(rng.random::<u64>(), untouched.random::<u64>());
    }
}
