//! The line on which the slices of a volume lie.

use crate::volume::vector::{difference, dot};

/// Largest difference of a step between slices from the median step, as a fraction of it, before it counts as a gap.
const GAP: f64 = 0.1;
/// Slices may lie off even distances by this fraction of a step, since positions are rounded, whatever single steps are.
const ROUNDED: f64 = 0.1;
/// No slice may lie off even distances by more than this fraction of a step.
const FAR: f64 = 0.5;
/// The same fraction above which distances cause a warning; and slope of the line against the normal that counts as a tilt.
const UNEVEN: f64 = 0.01;
/// Two slices closer than this fraction of the median step are at one place.
const TWICE: f64 = 0.01;
/// Slices may lie aside of the line by this fraction of a pixel.
const ASIDE: f64 = 0.5;
/// The same fraction above which it causes a warning.
const SHIFTED: f64 = 0.1;

/// Where evenly spaced slices lie: the place of the first, and from each to the next.
#[derive(Debug, Clone)]
pub struct Line {
    /// From slice to slice.
    pub step: [f64; 3],
    /// How far slices lie aside of the one before, where that is a tilt of the gantry; otherwise 0.
    pub tilt_mm: f64,
    /// What is odd.
    pub warnings: Vec<String>,
}

/// Why slices are no stack. Indices count slices in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// This slice and the next have one place.
    Twice(usize),
    /// The distance of this slice and the next is another than elsewhere.
    Gap {
        /// The slice.
        index: usize,
        /// Its distance to the next.
        step_mm: f64,
        /// That of most.
        median_mm: f64,
    },
    /// This slice lies elsewhere than even distances say.
    Off {
        /// The slice.
        index: usize,
        /// How far along the normal.
        off_mm: f64,
        /// The even distance.
        step_mm: f64,
    },
    /// This slice lies aside of the line from the first to the last.
    Aside {
        /// The slice.
        index: usize,
        /// How far.
        aside_mm: f64,
    },
}

/// The line through `points`, which are ordered along `normal`. Steps are the mean step: single ones are differences of
/// rounded positions.
///
/// # Errors
/// Slices lie at one place, at unequal distances, or aside of the line.
///
/// # Panics
/// There are fewer than two points.
pub fn through(points: &[[f64; 3]], normal: [f64; 3], pixel_mm: f64) -> Result<Line, Fault> {
    let (first, last) = (points[0], points[points.len() - 1]);
    let places: Vec<f64> = points.iter().map(|&point| dot(difference(point, first), normal)).collect();
    let steps: Vec<f64> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = steps.clone();
    sorted.sort_by(f64::total_cmp);
    let median_mm = sorted[sorted.len() / 2];
    if let Some(index) = steps.iter().position(|&step| step <= TWICE * median_mm || step < 1e-3) {
        return Err(Fault::Twice(index));
    }
    let mean = difference(last, first).map(|d| d / (points.len() - 1) as f64);
    let step_mm = dot(mean, normal);
    let off = |index: usize| (places[index] - step_mm * index as f64).abs();
    let farthest = (0..points.len()).max_by(|&a, &b| off(a).total_cmp(&off(b))).expect("two points");
    let gap = steps.iter().position(|step| (step - median_mm).abs() > GAP * median_mm);
    if let Some(index) = gap.filter(|_| off(farthest) > ROUNDED * step_mm) {
        return Err(Fault::Gap { index, step_mm: steps[index], median_mm });
    }
    if off(farthest) > FAR * step_mm {
        return Err(Fault::Off { index: farthest, off_mm: off(farthest), step_mm });
    }
    let mut warnings = Vec::new();
    if off(farthest) > UNEVEN * step_mm {
        let off_mm = off(farthest);
        warnings.push(format!("slices lie up to {off_mm:.3} mm off even distances of {step_mm:.4} mm"));
    }

    let aside = |offset: [f64; 3]| {
        let along = dot(offset, normal);
        let beside = [0, 1, 2].map(|i| offset[i] - normal[i] * along);
        dot(beside, beside).sqrt()
    };
    let from_line = |index: usize, step: [f64; 3]| {
        let offset = difference(points[index], first);
        aside([0, 1, 2].map(|i| offset[i] - step[i] * index as f64))
    };
    let most = |step: [f64; 3]| {
        let offsets = (0..points.len()).map(|index| (from_line(index, step), index));
        offsets.max_by(|a, b| a.0.total_cmp(&b.0)).expect("two points")
    };
    let upright = normal.map(|n| n * step_mm);
    let tilted = aside(mean) > UNEVEN * step_mm || most(upright).0 > SHIFTED * pixel_mm;
    let (aside_mm, index) = most(mean);
    if aside_mm > ASIDE * pixel_mm {
        return Err(Fault::Aside { index, aside_mm });
    }
    if aside_mm > SHIFTED * pixel_mm {
        warnings.push(format!("slices lie up to {aside_mm:.3} mm aside of a straight line"));
    }
    // What is left within a tenth of a pixel is rounding, and no tilt.
    Ok(match tilted && aside(mean) * (points.len() - 1) as f64 > SHIFTED * pixel_mm {
        true => Line { step: mean, tilt_mm: aside(mean), warnings },
        false => Line { step: upright, tilt_mm: 0.0, warnings },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: [f64; 3] = [0.0, 0.0, 1.0];

    fn line(count: usize, at: impl Fn(f64) -> [f64; 3]) -> Result<Line, Fault> {
        through(&(0..count).map(|k| at(k as f64)).collect::<Vec<_>>(), UP, 2.0)
    }

    #[test]
    fn rounded_positions_have_the_step_of_the_whole() {
        let rounded = |k: f64, digits: f64| (k * digits).round() / digits;
        for (step, digits) in [(1.25, 10.0), (0.625, 100.0), (0.625, 10.0), (3.0, 1.0)] {
            let found = line(200, |k| [5.0, -7.0, rounded(k * step, digits)]).unwrap();
            let last = (found.step[2] * 199.0 - step * 199.0).abs();
            assert!(last <= 0.5 / digits + 1e-9 && found.step[..2] == [0.0; 2], "{step}: {found:?}");
        }
        // A drift of steps by less than a tenth.
        let drift = |k: f64| [0.0, 0.0, 2.0 * k + 0.19 * ((k / 5.0).floor() * 2.0 + ((k % 5.0) - 3.0).max(0.0))];
        let found = line(60, drift).unwrap();
        assert!((found.step[2] * 59.0 - drift(59.0)[2]).abs() < 1e-9 && found.warnings.len() == 1, "{found:?}");
    }

    #[test]
    fn slices_that_miss_or_wander_are_found_out() {
        let missing = |gone: f64| move |k: f64| [0.0, 0.0, 1.25 * if k >= gone { k + 1.0 } else { k }];
        for gone in [1.0, 40.0, 98.0] {
            assert!(matches!(line(99, missing(gone)), Err(Fault::Gap { .. })), "{gone}");
        }
        assert_eq!(line(9, |k| [0.0, 0.0, (k / 2.0).floor()]).unwrap_err(), Fault::Twice(0));
        // Each step within a tenth of the others, the slices two steps off their places.
        let creeping = |k: f64| [0.0, 0.0, 2.0 * k + 0.0005 * k * k];
        assert!(matches!(line(200, creeping), Err(Fault::Off { .. })));
    }

    #[test]
    fn a_tilt_is_a_shift_that_grows_evenly() {
        let tilted = line(40, |k| [0.0, 0.5 * k, 2.0 * k]).unwrap();
        assert_eq!((tilted.step, tilted.tilt_mm), ([0.0, 0.5, 2.0], 0.5));
        // The first slice alone, the last alone, all above the middle.
        for (from, to) in [(0.0, 0.0), (39.0, 39.0), (20.0, 39.0)] {
            let shifted = line(40, |k| [if (from..=to).contains(&k) { 5.0 } else { 0.0 }, 0.0, 2.0 * k]);
            assert!(matches!(shifted, Err(Fault::Aside { .. })), "{from}: {shifted:?}");
        }
        let rounding = line(40, |k| [0.05 * (k % 2.0), 0.0, 2.0 * k]).unwrap();
        assert!(rounding.tilt_mm == 0.0 && rounding.warnings.is_empty(), "{rounding:?}");
        let between = line(40, |k| [0.4 * f64::from(u8::from(k > 9.0 && k < 20.0)), 0.0, 2.0 * k]).unwrap();
        assert!(between.tilt_mm == 0.0 && between.warnings.len() == 1, "{between:?}");
    }
}
