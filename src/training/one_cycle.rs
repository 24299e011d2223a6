//! The 1cycle policy (Smith and Topin 2018) with PyTorch's defaults: a learning rate and a beta_1 per step.

use std::f64::consts::PI;

const RISING_FRACTION: f64 = 0.3;
const START_DIVISOR: f64 = 25.0;
const END_DIVISOR: f64 = 1e4;
const BETA_1_RANGE: [f64; 2] = [0.85, 0.95];

/// (learning rate, beta_1) of step `step` of `total`: the rate rises from `peak` / 25 to `peak` in the first 30 % of
/// the steps and falls to `peak` / 250 000, both along a cosine; beta_1 moves oppositely between 0.95 and 0.85.
///
/// ```
/// let (rate, beta_1) = ssl3d::training::one_cycle::one_cycle(0, 100, 1e-3);
/// assert!((rate - 1e-3 / 25.0).abs() < 1e-12 && (beta_1 - 0.95).abs() < 1e-12);
/// ```
pub fn one_cycle(step: u64, total: u64, peak: f64) -> (f64, f64) {
    let last = total.saturating_sub(1) as f64;
    let summit = RISING_FRACTION * total as f64 - 1.0;
    let step = (step as f64).min(last);
    let start = peak / START_DIVISOR;
    let end = start / END_DIVISOR;
    let [low, high] = BETA_1_RANGE;
    if step <= summit {
        let part = if summit > 0.0 { step / summit } else { 1.0 };
        (cosine(start, peak, part), cosine(high, low, part))
    } else {
        let part = if last > summit { (step - summit) / (last - summit) } else { 1.0 };
        (cosine(peak, end, part), cosine(low, high, part))
    }
}

/// Cosine interpolation with value `from` at part 0 and `to` at part 1.
fn cosine(from: f64, to: f64, part: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * part).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_of_any_length_stays_within_its_bounds() {
        for total in [1, 2, 3, 4, 10, 1000] {
            for step in 0..total + 2 {
                let (rate, beta_1) = one_cycle(step, total, 1e-2);
                assert!(
                    (0.0..=1e-2 + 1e-12).contains(&rate) && (0.85..=0.95 + 1e-12).contains(&beta_1),
                    "{step}/{total}"
                );
            }
        }
    }
}
