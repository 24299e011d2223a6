//! The training loss: paper, section 3.5, Eqs. 3.6 and 3.7.

use crate::error::{Error, Result};
use crate::prototypes::Competition;
use crate::similarity::probabilities;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Section `[loss]` of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of the soft Dice loss of Eq. 3.6, 0 to 1000.
    pub dice_weight: f64,
    /// Weight of the cross-entropy, 0 to 1000.
    pub cross_entropy_weight: f64,
    /// Weight of a background voxel in the cross-entropy; voxels of other classes have weight 1.
    pub background_weight: f64,
    /// Weight of the alignment loss (lambda, Eq. 3.7), in which support and query swap their roles.
    pub alignment_weight: f64,
    /// Fraction of the training steps after which the alignment loss is added.
    pub alignment_start: f64,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A weight is outside of 0 to 1000, both segmentation weights are 0, or `alignment_start` is not a fraction.
    pub fn check(&self) -> Result<()> {
        let weights = [
            ("dice_weight", self.dice_weight),
            ("cross_entropy_weight", self.cross_entropy_weight),
            ("background_weight", self.background_weight),
            ("alignment_weight", self.alignment_weight),
        ];
        for (name, weight) in weights {
            if !(0.0..=1e3).contains(&weight) {
                let at = format!("loss.{name}");
                return Err(Error::invalid(at, "a weight from 0 to 1000", weight.to_string(), "change this key"));
            }
        }
        if self.dice_weight + self.cross_entropy_weight == 0.0 {
            let at = "loss.dice_weight and loss.cross_entropy_weight";
            return Err(Error::invalid(at, "at least one above 0", "both 0", "change one of the keys"));
        }
        if !(0.0..=1.0).contains(&self.alignment_start) {
            let found = self.alignment_start.to_string();
            return Err(Error::invalid("loss.alignment_start", "a fraction", found, "change this key"));
        }
        Ok(())
    }
}

/// The segmentation loss (Eq. 3.6) of scores (1, 1 + K, D, H, W) against class indices (D, H, W): the weighted sum of
/// Dice and cross-entropy, as a scalar.
pub fn segmentation(scores: &Tensor, truth: &Tensor, competition: Competition, config: &Config) -> Tensor {
    let count = scores.size()[1] - 1;
    let kind = scores.kind();
    let one_hot = truth.one_hot(count + 1).permute([3, 0, 1, 2]).unsqueeze(0).to_kind(kind); // (1, 1+K, D, H, W)
    let truths = one_hot.narrow(1, 1, count);
    let mut total = Tensor::zeros([], (kind, scores.device()));
    if config.dice_weight > 0.0 {
        total += dice(&probabilities(scores, competition), &truths) * config.dice_weight;
    }
    if config.cross_entropy_weight > 0.0 {
        let entropy = match competition {
            Competition::Joint => cross_entropy(scores, truth, config.background_weight),
            Competition::OneVsRest => {
                binary_cross_entropy(&scores.narrow(1, 1, count), &truths, config.background_weight)
            }
        };
        total += entropy * config.cross_entropy_weight;
    }
    total
}

/// Soft Dice loss (Eq. 3.6), mean over the K classes: 1 - (2 sum p y + 1) / (sum p + sum y + 1) for `p`, `y` (1, K, D,
/// H, W).
///
/// Two empty masks give 0; an empty truth against n predicted voxels gives n / (n + 1).
///
/// ```
/// let mask = tch::Tensor::ones([1, 1, 1, 2, 3], (tch::Kind::Double, tch::Device::Cpu));
/// assert_eq!(ssl3d::loss::dice(&mask, &mask).double_value(&[]), 0.0);
/// let missed = ssl3d::loss::dice(&mask.zeros_like(), &mask).double_value(&[]);
/// assert!((missed - 6.0 / 7.0).abs() < 1e-12);
/// ```
pub fn dice(p: &Tensor, y: &Tensor) -> Tensor {
    let sum = |t: &Tensor| t.sum_dim_intlist([2i64, 3, 4].as_slice(), false, t.kind());
    let ratio = (sum(&(p * y)) * 2.0 + 1.0) / (sum(p) + sum(y) + 1.0); // (1, K)
    1.0 - ratio.mean(p.kind())
}

/// Weighted cross-entropy: sum_x w_y(x) (-log p_y(x)) / sum_x w_y(x), where w is `background_weight` for class 0 and 1
/// for the others.
fn cross_entropy(scores: &Tensor, truth: &Tensor, background_weight: f64) -> Tensor {
    let count = scores.size()[1];
    let weight = Tensor::ones([count], (scores.kind(), scores.device()));
    let _ = weight.narrow(0, 0, 1).fill_(background_weight);
    let log = scores.log_softmax(1, scores.kind());
    log.nll_loss_nd(&truth.unsqueeze(0), Some(weight), tch::Reduction::Mean, -100)
}

/// Weighted binary cross-entropy of each class against the rest, mean over the classes.
fn binary_cross_entropy(logits: &Tensor, y: &Tensor, background_weight: f64) -> Tensor {
    let weight = y * (1.0 - background_weight) + background_weight;
    let entropy = logits.binary_cross_entropy_with_logits(y, None::<Tensor>, None::<Tensor>, tch::Reduction::None);
    let sum = |t: Tensor| t.sum_dim_intlist([2i64, 3, 4].as_slice(), false, Kind::Float);
    (sum(entropy * &weight) / sum(weight)).mean(logits.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn config(dice_weight: f64, cross_entropy_weight: f64) -> Config {
        let (alignment_weight, alignment_start) = (1.0, 0.0);
        Config { dice_weight, cross_entropy_weight, background_weight: 0.1, alignment_weight, alignment_start }
    }

    #[test]
    fn dice_of_empty_masks_is_defined() {
        let map = |value: f64| Tensor::full([1, 1, 1, 2, 3], value, F64);
        for (p, y, expected) in [(0.0, 0.0, 0.0), (1.0, 0.0, 6.0 / 7.0), (1.0, 1.0, 0.0), (0.0, 1.0, 6.0 / 7.0)] {
            assert!((dice(&map(p), &map(y)).double_value(&[]) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn weighted_cross_entropy_equals_its_formula() {
        // Two voxels: background with p = 1/2, class 1 with p = 3/4.
        let scores = Tensor::from_slice(&[0.0, 0.0, 0.0, 3f64.ln()]).view([1, 2, 1, 1, 2]);
        let truth = Tensor::from_slice(&[0i64, 1]).view([1, 1, 2]);
        let expected = (0.1 * 2f64.ln() + (4f64 / 3.0).ln()) / 1.1;
        for classes in [Competition::Joint, Competition::OneVsRest] {
            let loss = segmentation(&scores, &truth, classes, &config(0.0, 1.0)).double_value(&[]);
            assert!((loss - expected).abs() < 1e-6, "{classes:?}: {loss} for {expected}");
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        tch::manual_seed(3);
        for (classes, config) in
            [Competition::Joint, Competition::OneVsRest].into_iter().zip([config(1.0, 0.5), config(1.0, 0.0)])
        {
            let scores = Tensor::randn([1, 3, 2, 2, 2], F64).set_requires_grad(true);
            let truth = Tensor::randint(3, [2, 2, 2], (Kind::Int64, Device::Cpu));
            segmentation(&scores, &truth, classes, &config).backward();
            for index in 0..scores.numel() as i64 {
                let shifted = |by: f64| {
                    let copy = scores.detach().copy();
                    let _ = copy.view(-1).narrow(0, index, 1).g_add_scalar_(by);
                    segmentation(&copy, &truth, classes, &config).double_value(&[])
                };
                let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                let analytic = scores.grad().view(-1).double_value(&[index]);
                assert!((numeric - analytic).abs() < 1e-8, "{numeric} for {analytic}");
            }
        }
    }
}
