//! Doubts: what is odd about the labels of a support, or about a query beside its supports. Each is a sentence for the reader.

use super::supports::PreparedScan;
use crate::preprocessing::{body_mask, clip};
use crate::units;
use crate::volume::{Image, LabelMap};

/// A label is pointed out if more than this fraction of it lies in the air, ...
const OUTSIDE_OF_BODY: f64 = 0.5;
/// ... or if it fills more than this fraction of the body.
const FILLS_BODY: f64 = 0.8;
/// Intensities above this percentile count as equal to it when the body is looked for.
const CLIP_PERCENTILE: f64 = 99.5;
/// Spacings that differ by more than this factor along an axis are pointed out.
const SPACING_FACTOR: f64 = 2.0;
/// And intensities whose distributions are further apart than this, in standard deviations: CHAOS T2 scans lie up to 0.35 apart,
/// and their negatives 0.5 and more.
const INTENSITY_DISTANCE: f64 = 0.45;

/// What is odd about the labels of a support: `classes` are label values with their names.
pub fn label_doubts(image: &Image, labels: &LabelMap, classes: &[(i32, &str)]) -> Vec<String> {
    let mut voxels = image.voxels.clone();
    clip(&mut voxels, 0.0, CLIP_PERCENTILE);
    let body = body_mask(voxels.view());
    let body_vox = body.iter().filter(|inside| **inside).count() as f64;
    let percent = |fraction: f64| format!("{:.0} %", 100.0 * fraction);
    let mut doubts = Vec::new();
    for &(value, name) in classes {
        let of_class = labels.voxels.iter().zip(&body).filter(|(label, _)| **label == value);
        let (all, inside) = of_class
            .fold((0.0, 0.0), |(all, inside), (_, is_body)| (all + 1.0, inside + f64::from(u8::from(*is_body))));
        if all > 0.0 && 1.0 - inside / all > OUTSIDE_OF_BODY {
            let outside = percent(1.0 - inside / all);
            doubts.push(format!("{outside} of {name} lies outside of the body: was it drawn on this image?"));
        }
        if inside / body_vox > FILLS_BODY {
            doubts.push(format!("{name} fills {} of the body", percent(inside / body_vox)));
        }
    }
    doubts
}

/// What about a query is so unlike every support that the result may not be trusted.
pub fn query_doubts(query: &PreparedScan, supports: &[PreparedScan]) -> Vec<String> {
    let mut doubts = Vec::new();
    let [ours, theirs] = [query, &supports[0]].map(|scan| scan.image.geometry.spacing_mm());
    let is_far = |other: &PreparedScan| {
        let spacing = other.image.geometry.spacing_mm();
        (0..3).any(|axis| f64::max(ours[axis] / spacing[axis], spacing[axis] / ours[axis]) > SPACING_FACTOR)
    };
    if supports.iter().all(is_far) {
        let [ours, theirs] = [ours, theirs].map(units::spacing);
        doubts.push(format!("its spacing (z y x) is {ours}, that of the support {theirs}"));
    }
    if query.is_blank() {
        doubts.push("it has no contrast: nothing is looked for in it".to_owned());
        return doubts;
    }
    let distance = |other: &PreparedScan| {
        let pairs = query.percentiles().iter().zip(other.percentiles());
        pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / query.percentiles().len() as f64
    };
    let nearest = supports.iter().map(distance).fold(f64::INFINITY, f64::min);
    if nearest > INTENSITY_DISTANCE {
        doubts.push(format!(
            "its intensities are spread unlike the support's ({nearest:.2} standard deviations apart, above {INTENSITY_DISTANCE}): \
             is it the same kind of image?"
        ));
    }
    doubts
}
