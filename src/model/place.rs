//! Where in the body a class lies: what the templates together know, and none of them alone.

use crate::prediction;
use tch::{Kind, Tensor};

/// Probability of what no template shows: any place is possible.
const LEAST: f64 = 0.02;
/// The map is averaged over boxes of about a tenth of the grid along each axis, so many times.
const SMOOTHINGS: usize = 2;

/// ln p(class | place) (1, 1 + K, d, h, w) from the scores (1, 1 + K, ...) of several volumes: the share of them that show the class
/// there, smoothed. With `preprocess.crop = "body"` a place is one in the body's box. None of no volumes.
pub fn log_prior(found: &[&Tensor]) -> Option<Tensor> {
    let size = found.first()?.size();
    let [d, h, w] = [2, 3, 4].map(|axis| size[axis]);
    let map = |scores: &Tensor| {
        let shown = prediction::hard(scores).one_hot(size[1]).permute([3, 0, 1, 2]); // (1 + K, d, h, w)
        prediction::interpolate(&shown.unsqueeze(0).to_kind(Kind::Float), [d, h, w])
    };
    let maps: Vec<Tensor> = found.iter().map(|scores| map(scores)).collect();
    let mut share = Tensor::stack(&maps, 0).mean_dim([0i64].as_slice(), false, Kind::Float);
    let side = [d, h, w].map(|n| (n / 10) | 1);
    for _ in 0..SMOOTHINGS {
        share = share.avg_pool3d(side, [1, 1, 1], side.map(|n| n / 2), false, false, None::<i64>);
    }
    Some((share + LEAST).log())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Scores (1, 2, 4, 40, 40) of a volume that shows the class in columns `from` to 40.
    fn right_of(from: i64) -> Tensor {
        let scores = Tensor::zeros([1, 2, 4, 40, 40], (Kind::Float, Device::Cpu));
        let _ = scores.narrow(1, 1, 1).fill_(-1.0).narrow(4, from, 40 - from).fill_(1.0);
        scores
    }

    #[test]
    fn the_prior_is_the_share_of_volumes_that_show_the_class_there() {
        let prior = log_prior(&[20, 20, 20, 30].map(right_of).each_ref()).unwrap().exp();
        assert_eq!(prior.size(), [1, 2, 4, 40, 40]);
        // Far from the borders nothing is smoothed away: two boxes of five columns reach four.
        for (column, share) in [(0, 0.0), (15, 0.0), (25, 0.75), (39, 1.0)] {
            for (class, share) in [(0, 1.0 - share), (1, share)] {
                let found = prior.double_value(&[0, class, 2, 7, column]);
                assert!((found - share - LEAST).abs() < 1e-5, "class {class}, column {column}: {found}");
            }
        }
        let at_border = prior.double_value(&[0, 1, 2, 7, 20]);
        assert!(0.4 < at_border && at_border < 0.6, "{at_border}");
        assert!(log_prior(&[]).is_none());
    }
}
