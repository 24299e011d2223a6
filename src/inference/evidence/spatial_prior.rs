//! Evidence: where in the volume the templates show a class, and, where these have no say, the supports.

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
    /// Weight of ln p(class | place) by the templates beside the scores, in all rounds but the last. Where this or `support_weight` is above 0,
    /// the prior also weighs the components of a class and its evidence mass. 0 and 0 compute no prior.
    pub weight: f64,
    /// Weight of the place in the supports, for a class about which no template is believed.
    pub support_weight: f64,
    /// Probability of a class where nothing shows it.
    pub floor: f64,
    /// The prior is averaged over boxes of this fraction of the grid along each axis ...
    pub smoothing_fraction: f64,
    /// ... so many times.
    pub smoothing_passes: usize,
    /// The side of the boxes for the places in the supports: they are one person or a few, and others differ from them.
    pub support_smoothing_fraction: f64,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("spatial_prior.weight", self.weight, 0.0..=1e3)?;
        check_range("spatial_prior.support_weight", self.support_weight, 0.0..=1e3)?;
        check_range("spatial_prior.floor", self.floor, 1e-6..=1.0)?;
        check_range("spatial_prior.smoothing_fraction", self.smoothing_fraction, 0.0..=0.5)?;
        check_range("spatial_prior.support_smoothing_fraction", self.support_smoothing_fraction, 0.0..=0.5)?;
        check_range("spatial_prior.smoothing_passes", self.smoothing_passes, 0..=10)
    }
}

/// ln p(class | place) on the feature map.
#[derive(Debug)]
pub struct SpatialPrior {
    /// ln p (1, 1 + K, d, h, w).
    pub log_p: Tensor,
    /// What it adds to scores, (1, 1 + K, d, h, w).
    pub evidence: Tensor,
}

impl Evidence for SpatialPrior {
    fn add(&self, scores: Tensor) -> Tensor {
        let size = scores.size();
        similarity::interpolate(&self.evidence, [size[2], size[3], size[4]]) + scores
    }
}

/// Where the classes lie, as volumes on the feature map show it.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The channels (d, h, w) of the templates.
    pub templates: &'a [Tensor],
    /// About which class each of them is believed.
    pub belief: &'a Belief,
    /// The fraction of the supports that show each channel, (1, 1 + K, d, h, w); None where they show too little of the scans.
    pub supports: Option<&'a Tensor>,
    /// Whether these were propagated to the scan in question.
    pub are_placed: bool,
}

/// How likely each class is at each place, by templates and supports.
///
/// With `preprocessing.crop = "body"` a place is one in the body's box. Where the depth range of a class in the query is known, the slices of
/// each volume that show the class are stretched along z onto it.
///
/// - By the templates that are believed about a class: the fraction of them that show it there, smoothed, and never below the floor.
/// - A class about which none is believed: as likely as the background where the supports show it, and less elsewhere, down to the
///   floor. So one support tells where a class is not, and nothing of how likely it is where it may be.
///
/// None where there is neither.
pub fn spatial_prior(
    Places { templates, belief, supports, are_placed }: Places,
    count: usize,
    ranges: &[DepthRange],
    config: &Config,
) -> Option<SpatialPrior> {
    let (size, device) = match (templates.first(), supports) {
        (Some(labels), _) => (labels.size(), labels.device()),
        (None, Some(supports)) => (supports.size()[2..].to_vec(), supports.device()),
        (None, None) => return None,
    };
    let size: [i64; 3] = size.try_into().expect("(d, h, w)");
    let range = |class: Class| ranges.get(class.index()).and_then(Option::as_ref);
    let nowhere = || Tensor::zeros(size, (Kind::Float, device));
    let fraction = |class: Class| {
        let shown = |volume: usize| templates[volume].eq(class.channel() as i64);
        let believed = belief.about(Some(class)).into_iter();
        let maps: Vec<Tensor> = believed.filter_map(|volume| placed(&shown(volume), range(class), size)).collect();
        match maps.is_empty() {
            true => nowhere(),
            false => Tensor::stack(&maps, 0).mean_dim([0i64].as_slice(), false, Kind::Float),
        }
    };
    let of_classes = Tensor::stack(&(0..count).map(Class::at).map(fraction).collect::<Vec<_>>(), 0); // (K, d, h, w)
    let all = of_classes.sum_dim_intlist([0i64].as_slice(), true, Kind::Float);
    let prior = Tensor::cat(&[all.ones_like() - all.clamp_max(1.0), of_classes], 0).unsqueeze(0);
    let log_p = (smoothed(prior, config.smoothing_fraction, config.smoothing_passes) + config.floor).log();
    let evidence = &log_p * config.weight;
    for class in (0..count).map(Class::at).filter(|&class| belief.about(Some(class)).is_empty()) {
        let channel = class.channel() as i64;
        let (range, fraction) = match are_placed {
            true => (None, config.smoothing_fraction),
            false => (range(class), config.support_smoothing_fraction),
        };
        let by_supports = supports.and_then(|supports| placed(&supports.get(0).get(channel), range, size));
        let place = by_supports.map_or_else(nowhere, |shown| log_place(&shown, fraction, config));
        for (map, weight) in [(&log_p, 1.0), (&evidence, config.support_weight)] {
            map.narrow(1, channel, 1).copy_(&(map.narrow(1, 0, 1) + &place * weight));
        }
    }
    Some(SpatialPrior { log_p, evidence })
}

/// How likely each place (d, h, w) is beside the likeliest, as a logarithm, by where the supports show a class.
fn log_place(shown: &Tensor, fraction: f64, config: &Config) -> Tensor {
    let shown = shown.unsqueeze(0).unsqueeze(0);
    let near = smoothed(shown, fraction, config.smoothing_passes).squeeze_dim(0).squeeze_dim(0);
    let most = near.max();
    if most.double_value(&[]) <= 0.0 {
        return near.zeros_like();
    }
    (near / most * (1.0 - config.floor) + config.floor).log()
}

/// Maps (1, C, d, h, w) averaged over boxes of this fraction of the grid, so many times.
fn smoothed(maps: Tensor, fraction: f64, passes: usize) -> Tensor {
    let size = maps.size();
    let side = [size[2], size[3], size[4]].map(|n| ((n as f64 * fraction + 1e-9) as i64) | 1);
    (0..passes).fold(maps, |maps, _| maps.avg_pool3d(side, [1, 1, 1], side.map(|n| n / 2), false, false, None::<i64>))
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

    const CONFIG: Config = Config {
        weight: 1.0,
        support_weight: 0.5,
        floor: 0.02,
        smoothing_fraction: 0.1,
        smoothing_passes: 2,
        support_smoothing_fraction: 0.2,
    };

    fn by_templates(templates: &[Tensor], count: usize, ranges: &[DepthRange]) -> Option<Tensor> {
        let belief = Belief::all(templates.len(), count);
        spatial_prior(Places { templates, belief: &belief, supports: None, are_placed: false }, count, ranges, &CONFIG)
            .map(|prior| prior.log_p)
    }

    /// A volume (4, 40, 40) that shows the class in columns `from` to 40.
    fn right_of(from: i64) -> Tensor {
        let labels = Tensor::zeros([4, 40, 40], (Kind::Int64, Device::Cpu));
        let _ = labels.narrow(2, from, 40 - from).fill_(1);
        labels
    }

    #[test]
    fn the_prior_is_the_share_of_volumes_that_show_the_class_there() {
        let prior = by_templates(&[20, 20, 20, 30].map(right_of), 1, &[]).unwrap().exp();
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
        assert!(by_templates(&[], 1, &[]).is_none());
    }

    #[test]
    fn a_support_tells_where_a_class_is_not() {
        // Class 1 in the last columns, class 2 nowhere; one template that is believed about neither, or about the second.
        let shown = Tensor::zeros([1, 3, 4, 40, 40], (Kind::Float, Device::Cpu));
        let _ = shown.narrow(1, 1, 1).narrow(4, 30, 10).fill_(1.0);
        let _ = shown.narrow(1, 0, 1).narrow(4, 0, 30).fill_(1.0);
        let prior = |templates: &[Tensor], belief: &Belief| {
            spatial_prior(Places { templates, belief, supports: Some(&shown), are_placed: false }, 2, &[], &CONFIG)
                .unwrap()
        };
        let alone = prior(&[], &Belief::default());
        let over = |map: &Tensor, class: i64, x: i64| {
            map.double_value(&[0, class, 2, 20, x]) - map.double_value(&[0, 0, 2, 20, x])
        };
        let over_background = |prior: &SpatialPrior, class: i64, x: i64| over(&prior.log_p, class, x);
        assert!(over_background(&alone, 1, 39).abs() < 1e-5, "where the support shows it");
        assert!((over_background(&alone, 1, 5) - CONFIG.floor.ln()).abs() < 1e-4, "far away");
        let near = over_background(&alone, 1, 27);
        assert!(CONFIG.floor.ln() + 1.0 < near && near < -0.1, "{near}");
        assert!((over(&alone.evidence, 1, 27) - 0.5 * near).abs() < 1e-4, "at half the weight of a template");
        assert!((0..40).all(|x| over_background(&alone, 2, x).abs() < 1e-6), "no support shows it");
        let believed = Belief::of(&[vec![0.0, 1.0]], &[1.0, 1.0], 0.5);
        let template = right_of(20) * 2;
        let mixed = prior(&[template], &believed);
        assert!((over_background(&mixed, 1, 39)).abs() < 1e-5 && over_background(&mixed, 2, 39) > 3.0);
        let scores = Tensor::zeros([1, 3, 4, 40, 40], (Kind::Float, Device::Cpu));
        assert!(mixed.add(scores) == mixed.evidence);
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
        let shares = |ranges: &[DepthRange]| by_templates(&[labels(), empty.shallow_clone()], 2, ranges).unwrap().exp();
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
