//! Intensities of one scan as another shows the same places.

use ndarray::Array3;

/// Parts of equal size of the sorted intensities.
const BINS: usize = 48;

/// A curve from the intensities of one scan to those of another that is laid upon it: the mean of what lies where an intensity does,
/// whatever the modality of either. It is what the correlation ratio compares by (Roche et al. 1998), and what Guimond et al. 2001,
/// "Three-dimensional multimodal brain warping using the demons algorithm and adaptive intensity corrections", correct by. It may fall
/// as well as rise.
#[derive(Debug)]
pub struct IntensityMapping {
    /// Intensity, rising, and what it becomes; at least one.
    points: Vec<[f64; 2]>,
}

impl IntensityMapping {
    /// From the intensities of the same places in both, at least one.
    pub fn between(from: &[f32], to: &[f32]) -> Self {
        assert!(!from.is_empty() && from.len() == to.len(), "the same places, at least one");
        let mut order: Vec<usize> = (0..from.len()).collect();
        order.sort_by(|a, b| from[*a].total_cmp(&from[*b]));
        let mut bins: Vec<[f64; 3]> = vec![]; // mean of both, and how many
        for places in order.chunks(from.len().div_ceil(BINS)) {
            let n = places.len() as f64;
            let mean = |of: &[f32]| places.iter().map(|place| f64::from(of[*place])).sum::<f64>() / n;
            let (x, y) = (mean(from), mean(to));
            match bins.last_mut() {
                Some([last_x, last_y, last_n]) if x <= *last_x => {
                    *last_y = (*last_y * *last_n + y * n) / (*last_n + n); // one intensity fills many bins
                    *last_n += n;
                }
                _ => bins.push([x, y, n]),
            }
        }
        Self { points: bins.into_iter().map(|[x, y, _]| [x, y]).collect() }
    }

    /// Linear between the points, constant beyond them.
    fn at(&self, intensity: f32) -> f32 {
        let (points, x) = (&self.points, f64::from(intensity));
        let next = points.partition_point(|point| point[0] < x);
        let y = match (next.checked_sub(1).map(|before| points[before]), points.get(next)) {
            (Some([x0, y0]), Some([x1, y1])) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
            (Some([_, y]), None) => y,
            (None, next) => next.expect("at least one point")[1],
        };
        y as f32
    }

    /// All of a scan.
    pub fn apply(&self, scan: &Array3<f32>) -> Array3<f32> {
        scan.mapv(|intensity| self.at(intensity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_may_fall_and_rise() {
        let from: Vec<f32> = (0..960).map(|i| (i * 7 % 960) as f32 / 960.0).collect();
        let tent = |v: f32| if v < 0.5 { 3.0 - v } else { 2.0 + v };
        let to: Vec<f32> = from.iter().map(|v| tent(*v)).collect();
        let mapping = IntensityMapping::between(&from, &to);
        for v in [0.1, 0.3, 0.49, 0.6, 0.95] {
            assert!((mapping.at(v) - tent(v)).abs() < 0.02, "{v}: {}", mapping.at(v));
        }
        assert_eq!(mapping.at(-9.0), mapping.at(0.0), "constant beyond the ends");
        assert_eq!(mapping.at(9.0), mapping.at(1.0));
        let scan = Array3::from_elem([1, 1, 2], 0.6);
        assert!(mapping.apply(&scan).iter().all(|v| (v - tent(0.6)).abs() < 0.02));
    }

    #[test]
    fn noise_is_averaged_and_an_intensity_that_fills_many_bins_is_one_point() {
        // Air is exactly 0 in most places, where the other scan has 1 and 3 in turn.
        let from: Vec<f32> = (0..1000).map(|i| if i < 900 { 0.0 } else { i as f32 }).collect();
        let to: Vec<f32> = (0..1000).map(|i| if i < 900 { [1.0, 3.0][i % 2] } else { -5.0 }).collect();
        let mapping = IntensityMapping::between(&from, &to);
        assert!((mapping.at(0.0) - 2.0).abs() < 0.01 && mapping.at(950.0) == -5.0);
        let constant = IntensityMapping::between(&[4.0; 9], &[7.0; 9]);
        assert_eq!(constant.at(100.0), 7.0);
    }
}
