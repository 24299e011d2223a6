//! Intensities of a scan: percentiles, clipping, z-scores.

use crate::percentile::percentile;
use crate::volume::{Image, padding};
use ndarray::Array3;

/// An image whose spread is below this fraction of its magnitude is constant.
const CONSTANT: f64 = 1e-5;

/// Sets what lies beyond these percentiles of the intensities to them. Padding (NaN) stays.
pub fn clip(voxels: &mut Array3<f32>, lower: f64, upper: f64) {
    if lower <= 0.0 && upper >= 100.0 {
        return;
    }
    let mut finite: Vec<f32> = voxels.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() {
        return;
    }
    let high = if upper < 100.0 { percentile(&mut finite, upper) as f32 } else { f32::INFINITY };
    let low = if lower > 0.0 { percentile(&mut finite, lower) as f32 } else { f32::NEG_INFINITY };
    voxels.par_mapv_inplace(|v| if v.is_nan() { v } else { v.max(low).min(high) });
}

/// Intensities without outliers, padding as the lowest of them; and which voxels are padding, if any are.
pub fn clipped(image: &Image, lower: f64, upper: f64) -> (Array3<f32>, Option<Array3<bool>>) {
    let mut voxels = image.voxels.clone();
    clip(&mut voxels, lower, upper);
    let padding = padding::mask(&voxels);
    if padding.is_some() {
        padding::fill(&mut voxels);
    }
    (voxels, padding)
}

/// (v - mean) / sd over all voxels, sums in float64 and in order.
pub fn standardise(voxels: &mut Array3<f32>) {
    let count = voxels.len() as f64;
    let mean = voxels.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = voxels.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    let sd = variance.sqrt();
    let largest = voxels.iter().fold(0.0, |largest: f64, &v| largest.max(f64::from(v).abs()));
    if sd <= CONSTANT * largest {
        voxels.fill(0.0);
        return;
    }
    voxels.mapv_inplace(|v| ((f64::from(v) - mean) / sd) as f32);
}
