//! Evidence: where in the volume the templates show a class.

use super::Evidence;
use crate::error::Result;
use crate::inference::config::check_range;
use crate::inference::constraints::slice_range::DepthRange;
use crate::inference::cycle::Belief;
use crate::similarity;
use crate::volume::Class;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Section `[inference.spatial_prior]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of ln p(class | place) beside the scores, in all rounds but the last. Above 0 the prior also weighs the components of
    /// a class and its evidence mass. 0 computes no prior.
    pub weight: f64,
    /// Probability of a class where no template shows it.
    pub floor: f64,
    /// The prior is averaged over boxes of this fraction of the grid along each axis ...
    pub smoothing_fraction: f64,
    /// ... so many times.
    pub smoothing_passes: usize,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("spatial_prior.weight", self.weight, 0.0..=1e3)?;
        check_range("spatial_prior.floor", self.floor, 1e-6..=1.0)?;
        check_range("spatial_prior.smoothing_fraction", self.smoothing_fraction, 0.0..=0.5)?;
        check_range("spatial_prior.smoothing_passes", self.smoothing_passes, 0..=10)
    }
}

/// ln p(class | place) as evidence.
pub struct SpatialPrior<'a> {
    /// (1, 1 + K, ...) of [`log_prior`], at any resolution.
    pub log_prior: &'a Tensor,
    /// Beside 1 of the score.
    pub weight: f64,
}

impl Evidence for SpatialPrior<'_> {
    fn add(&self, scores: Tensor) -> Tensor {
        let size = scores.size();
        similarity::interpolate(self.log_prior, [size[2], size[3], size[4]]) * self.weight + scores
    }
}

/// ln p(class | place) (1, 1 + K, d, h, w) from the channels (d, h, w) of several volumes: the fraction of those that are believed about the
/// class that show it there, smoothed. With `preprocessing.crop = "body"` a place is one in the body's box. Where the depth range of a class
/// in the query is known, the slices of each volume that show the class are stretched along z onto it. A class about which no volume is
/// believed may be wherever the background is. None of no volumes.
pub fn log_prior(
    labels: &[Tensor],
    belief: &Belief,
    count: usize,
    ranges: &[DepthRange],
    config: &Config,
) -> Option<Tensor> {
    let size: [i64; 3] = labels.first()?.size().try_into().expect("(d, h, w)");
    let fraction = |class: Class| {
        let range = ranges.get(class.index()).and_then(Option::as_ref);
        let shown = |volume: usize| labels[volume].eq(class.channel() as i64);
        let believed = belief.about(Some(class)).into_iter();
        let maps: Vec<Tensor> = believed.filter_map(|volume| placed(&shown(volume), range, size)).collect();
        match maps.is_empty() {
            true => Tensor::zeros(size, (Kind::Float, labels[0].device())),
            false => Tensor::stack(&maps, 0).mean_dim([0i64].as_slice(), false, Kind::Float),
        }
    };
    let of_classes = Tensor::stack(&(0..count).map(Class::at).map(fraction).collect::<Vec<_>>(), 0); // (K, d, h, w)
    let all = of_classes.sum_dim_intlist([0i64].as_slice(), true, Kind::Float);
    let mut prior = Tensor::cat(&[all.ones_like() - all.clamp_max(1.0), of_classes], 0).unsqueeze(0);
    for class in (0..count).map(Class::at).filter(|&class| belief.about(Some(class)).is_empty()) {
        prior.narrow(1, class.channel() as i64, 1).copy_(&prior.narrow(1, 0, 1));
    }
    let side = size.map(|n| ((n as f64 * config.smoothing_fraction + 1e-9) as i64) | 1);
    for _ in 0..config.smoothing_passes {
        prior = prior.avg_pool3d(side, [1, 1, 1], side.map(|n| n / 2), false, false, None::<i64>);
    }
    Some((prior + config.floor).log())
}

/// Where one volume shows a class (d, h, w), at another size, and its slices stretched onto `range`; None where it shows none.
fn placed(shown: &Tensor, range: Option<&Range<f64>>, size: [i64; 3]) -> Option<Tensor> {
    let shown = shown.to_kind(Kind::Float);
    let resized = |map: &Tensor| similarity::interpolate(&map.unsqueeze(0).unsqueeze(0), size).view(size);
    let Some(range) = range else { return Some(resized(&shown)) };
    let in_slices = Vec::<f32>::try_from(shown.amax([1i64, 2].as_slice(), false)).expect("numbers");
    let (first, last) = (in_slices.iter().position(|v| *v > 0.0)?, in_slices.iter().rposition(|v| *v > 0.0)?);
    let (from, to) = (first as f64, last as f64 + 1.0);
    let (depth, slices) = (size[0] as usize, in_slices.len());
    let mut weights = vec![0f32; depth * slices]; // (depth, slices)
    for (z, weights) in weights.chunks_mut(slices).enumerate() {
        let at = ((z as f64 + 0.5) / depth as f64 - range.start) / (range.end - range.start);
        if !(0.0..=1.0).contains(&at) {
            continue;
        }
        let at = from + at * (to - from) - 0.5;
        let below = at.floor();
        for (slice, weight) in [(below, 1.0 - (at - below)), (below + 1.0, at - below)] {
            weights[slice.clamp(from, to - 1.0) as usize] += weight as f32;
        }
    }
    let weights = Tensor::from_slice(&weights).view([depth as i64, slices as i64]).to_device(shown.device());
    let [_, h, w]: [i64; 3] = shown.size().try_into().expect("(d, h, w)");
    Some(resized(&weights.matmul(&shown.view([slices as i64, -1])).view([depth as i64, h, w])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const CONFIG: Config = Config { weight: 1.0, floor: 0.02, smoothing_fraction: 0.1, smoothing_passes: 2 };

    /// A volume (4, 40, 40) that shows the class in columns `from` to 40.
    fn right_of(from: i64) -> Tensor {
        let labels = Tensor::zeros([4, 40, 40], (Kind::Int64, Device::Cpu));
        let _ = labels.narrow(2, from, 40 - from).fill_(1);
        labels
    }

    #[test]
    fn the_prior_is_the_share_of_volumes_that_show_the_class_there() {
        let prior = log_prior(&[20, 20, 20, 30].map(right_of), &Belief::all(4, 1), 1, &[], &CONFIG).unwrap().exp();
        assert_eq!(prior.size(), [1, 2, 4, 40, 40]);
        // Far from the borders nothing is smoothed away: two boxes of five columns reach four.
        for (column, share) in [(0, 0.0), (15, 0.0), (25, 0.75), (39, 1.0)] {
            for (class, share) in [(0, 1.0 - share), (1, share)] {
                let found = prior.double_value(&[0, class, 2, 7, column]);
                assert!((found - share - CONFIG.floor).abs() < 1e-5, "class {class}, column {column}: {found}");
            }
        }
        let at_border = prior.double_value(&[0, 1, 2, 7, 20]);
        assert!(0.4 < at_border && at_border < 0.6, "{at_border}");
        assert!(log_prior(&[], &Belief::default(), 1, &[], &CONFIG).is_none());
    }

    #[test]
    fn what_is_told_of_slices_moves_the_places_of_a_class_there_and_those_of_others_stay() {
        // Class 1 in the upper half of 40 slices, high in front and low behind it; class 2 in all of them, in the first column.
        let labels = || {
            let labels = Tensor::zeros([40, 6, 6], (Kind::Int64, Device::Cpu));
            let _ = labels.narrow(2, 0, 1).fill_(2);
            let _ = labels.narrow(2, 3, 3).narrow(1, 0, 3).narrow(0, 20, 10).fill_(1);
            let _ = labels.narrow(2, 3, 3).narrow(1, 3, 3).narrow(0, 30, 10).fill_(1);
            labels
        };
        let empty = Tensor::zeros([40, 6, 6], (Kind::Int64, Device::Cpu));
        let shares = |ranges: &[DepthRange]| {
            log_prior(&[labels(), empty.shallow_clone()], &Belief::all(2, 2), 2, ranges, &CONFIG).unwrap().exp()
        };
        let of = |share: &Tensor, class: i64, z: i64, y: i64, x: i64| {
            share.double_value(&[0, class, z, y, x]) - CONFIG.floor
        };
        let (as_found, stretched) = (shares(&[]), shares(&[Some(0.0..0.5), None]));
        for (y, first, then) in [(1, 25, 5), (4, 35, 15)] {
            assert!((of(&as_found, 1, first, y, 4) - 0.5).abs() < 1e-5);
            assert!((of(&stretched, 1, then, y, 4) - 1.0).abs() < 1e-5, "the volume without it has no say");
            assert!(of(&stretched, 1, first, y, 4).abs() < 1e-5);
            assert!((of(&stretched, 0, then, y, 4)).abs() < 1e-5, "what a class has, the background has not");
        }
        assert!(stretched.narrow(1, 2, 1) == as_found.narrow(1, 2, 1));
        // Twice as deep.
        let deeper = shares(&[Some(0.0..1.0), None]);
        assert!((of(&deeper, 1, 10, 1, 4) - 1.0).abs() < 1e-5 && of(&deeper, 1, 10, 4, 4).abs() < 1e-5);
        assert!((of(&deeper, 1, 30, 4, 4) - 1.0).abs() < 1e-5 && of(&deeper, 1, 30, 1, 4).abs() < 1e-5);
    }
}
