//! Whether the values of all slices of a volume are of one scale.

use super::Slice;
use super::intensity::Storage;
use crate::error::{Error, Result};
use std::path::Path;

/// Modalities whose slices each have a scale of their own, so that each uses all its bits.
const SCALED_EACH: [&str; 2] = ["PT", "NM"];
/// Numbers that differ by no more than this fraction are the same.
const SAME: f64 = 1e-6;
const REMEDY: &str = "export the series again; or give each kind of slices a folder of its own";

/// Compares the slices, which are in the order of their places. Says what is odd but meant.
///
/// # Errors
/// Slices differ in their bits, sign or units; or in slope or intercept, unless each slice of the modality has its own, or the
/// values show that they are meant.
pub fn check(folder: &Path, slices: &[Slice]) -> Result<Option<String>> {
    let Some(first) = slices.first() else { return Ok(None) };
    let refuse = |name: &str, other: &Slice, a: String, b: String| {
        let found = format!("{a} in {} and {b} in {}", first.name(), other.name());
        Err(Error::file(folder, format!("slices of one {name}"), found, REMEDY))
    };
    for other in &slices[1..] {
        let (a, b) = (&first.storage, &other.storage);
        if a.bits != b.bits {
            return refuse("BitsStored", other, a.bits.to_string(), b.bits.to_string());
        }
        if a.signed != b.signed {
            let representation = |storage: &Storage| u8::from(storage.signed).to_string();
            return refuse("PixelRepresentation", other, representation(a), representation(b));
        }
        if !a.units.is_empty() && !b.units.is_empty() && a.units != b.units {
            return refuse("unit (Units or RescaleType)", other, a.units.clone(), b.units.clone());
        }
    }
    let is_each = SCALED_EACH.contains(&first.modality.as_str());
    let is_meant = is_each || first.modality != "CT" && are_continuous(slices);
    let mut differ = false;
    for other in &slices[1..] {
        let (a, b) = (&first.storage, &other.storage);
        let shown = |value: Option<f64>| value.map_or("a table".to_owned(), |value| value.to_string());
        for (name, a, b) in [("RescaleSlope", a.slope, b.slope), ("RescaleIntercept", a.intercept, b.intercept)] {
            if same(a, b) {
                continue;
            }
            differ = true;
            if !is_meant || a.is_none() || b.is_none() {
                return refuse(name, other, shown(a), shown(b));
            }
        }
    }
    let warning = "slices have slopes and intercepts of their own, with which neighbours are more alike than without";
    Ok((differ && !is_each).then(|| warning.to_owned()))
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= SAME * a.abs().max(b.abs()),
        (a, b) => a.is_some() == b.is_some(),
    }
}

/// Whether the means of neighbouring slices that have scales of their own differ less with these than they would with one
/// scale.
fn are_continuous(slices: &[Slice]) -> bool {
    let mean = |slice: &Slice| {
        let values = slice.values.iter().filter(|value| !value.is_nan());
        let (sum, count) = values.fold((0.0, 0), |(sum, count), &value| (sum + f64::from(value), count + 1));
        sum / f64::from(count.max(1))
    };
    let [mut own, mut common] = [0.0, 0.0];
    for pair in slices.windows(2) {
        let [a, b] = [&pair[0].storage, &pair[1].storage];
        if same(a.slope, b.slope) && same(a.intercept, b.intercept) {
            continue;
        }
        let (Some(slope_a), Some(slope_b)) = (a.slope, b.slope) else { return false };
        let (Some(intercept_a), Some(intercept_b)) = (a.intercept, b.intercept) else { return false };
        let [mean_a, mean_b] = [mean(&pair[0]), mean(&pair[1])];
        own += (mean_a - mean_b).abs();
        common += (mean_a - ((mean_b - intercept_b) / slope_b * slope_a + intercept_a)).abs();
    }
    own <= common
}
