//! Query features + prototypes -> scores, probabilities: paper, section 3.4, Eqs. 3.3-3.5.

mod mixture;
mod simd;
mod tape;
pub mod transport;

pub use mixture::Similarity;
pub use simd::ABSENT;
pub use tape::Tape;

use crate::error::{Error, Result};
use crate::prototypes::{Competition, Prototypes};
use crate::tensor::rows;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Section `[similarity]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Multiplier of the cosine similarity, and so the sharpness of the softmax over prototypes (alpha of Eq. 3.3).
    pub alpha: f64,
    /// Which classes compete at test. In training they always compete jointly.
    pub competition: Competition,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.alpha > 0.0 && self.alpha <= 1000.0) {
            let found = self.alpha.to_string();
            return Err(Error::invalid("similarity.alpha", "a number in (0, 1000]", found, "change this key"));
        }
        Ok(())
    }
}

/// Blocks of queries that libtorch's attention kernels treat in parallel, forward and backward.
const BLOCKS: i64 = 16;

/// Scores (1, 1 + K, d, h, w) of background and the K classes at the resolution of `features` (1, C, d, h, w).
///
/// Joint: S_0, S_1, ..., S_K with S_c = sum_k softmax_k(d)_k d_k over the prototypes p_k of class c and
/// d_k = alpha cos(p_k, f) (Eq. 3.3). One against the rest: 0, S_1 - S_b1, ..., S_K - S_bK, so that in both cases the
/// greatest score wins and [`probabilities`] are those of Eq. 3.4.
///
/// The paper's fusion of foreground and background (Eq. 3.5, read as beta Y_f + (1 - beta)(1 - Y_b)) equals Y_f for
/// every beta since Y_b = 1 - Y_f under the softmax; there is nothing left to compute.
///
/// Where the gradients do not come from libtorch they are left to `tape`: see there.
///
/// ```
/// use ssl3d::prototypes::{Competition, Prototypes};
/// use ssl3d::similarity::{Tape, argmax, probabilities, scores};
/// let row = |values: &[f32; 2]| tch::Tensor::from_slice(values).view([1, 2]);
/// let (background, foreground) = (vec![row(&[1.0, 0.0])], vec![row(&[0.0, 1.0])]);
/// let prototypes = Prototypes { background, foreground, sizes_vox: None };
/// // Two voxels of two channels: (3, 0) and (1, 2).
/// let features = tch::Tensor::from_slice(&[3f32, 1.0, 0.0, 2.0]).view([1, 2, 1, 1, 2]);
/// let scores = scores(&features, &prototypes, 20.0, &mut Tape::default());
/// assert!((scores.double_value(&[0, 1, 0, 0, 1]) - 20.0 * 2.0 / 5f64.sqrt()).abs() < 1e-4); // alpha cos
/// assert_eq!(Vec::<i64>::try_from(argmax(&scores).view(-1)).unwrap(), [0, 1]);
/// assert!(probabilities(&scores, Competition::Joint).double_value(&[0, 0, 0, 0, 1]) > 0.99);
/// ```
pub fn scores(features: &Tensor, prototypes: &Prototypes, alpha: f64, tape: &mut Tape) -> Tensor {
    let (_, _, d, h, w) = features.size5().expect("(1, C, d, h, w)");
    let voxels = rows(features); // (N, C), N = d h w
    let Prototypes { background, foreground, .. } = prototypes;
    let classes: Vec<Tensor> = background.iter().chain(foreground).map(normalised).collect();
    let by_class = match (features.kind(), features.device()) {
        (Kind::Float, Device::Cpu) => tape.similarity(&voxels, &classes, alpha),
        _ => attention(&voxels, &classes, alpha),
    }; // (classes, N)
    as_volume(&by_class, background.len(), [d, h, w])
}

/// Similarities (classes, N) as scores (1, 1 + K, d, h, w): background first, or each class against its own background.
fn as_volume(by_class: &Tensor, backgrounds: usize, [d, h, w]: [i64; 3]) -> Tensor {
    if backgrounds == 1 {
        return by_class.view([1, -1, d, h, w]);
    }
    let count = backgrounds as i64;
    let against = by_class.narrow(0, count, count) - by_class.narrow(0, 0, count);
    Tensor::cat(&[against.narrow(0, 0, 1).zeros_like(), against], 0).view([1, -1, d, h, w])
}

/// Probabilities (1, K, ...) of the K classes from scores (1, 1 + K, ...): softmax over background and all classes, or
/// for each class by itself (Eq. 3.4).
pub fn probabilities(scores: &Tensor, competition: Competition) -> Tensor {
    let count = scores.size()[1] - 1;
    match competition {
        Competition::Joint => scores.softmax(1, scores.kind()).narrow(1, 1, count),
        Competition::OneVsRest => scores.narrow(1, 1, count).sigmoid(),
    }
}

/// The median of several scores, element by element; of an even number the mean of the middle two.
pub fn median(scores: &[Tensor]) -> Tensor {
    let count = scores.len() as i64;
    if count == 1 {
        return scores[0].shallow_clone();
    }
    let (sorted, _) = Tensor::stack(scores, 0).sort(0, false);
    let middle = sorted.narrow(0, (count - 1) / 2, 2 - count % 2);
    middle.mean_dim([0i64].as_slice(), false, scores[0].kind())
}

/// Scores at another resolution, trilinearly.
pub fn interpolate(scores: &Tensor, size_vox: [i64; 3]) -> Tensor {
    if scores.size()[2..] == size_vox {
        return scores.shallow_clone();
    }
    scores.upsample_trilinear3d(size_vox, false, None, None, None)
}

/// S_c by libtorch, for any device and kind: sum_k softmax_k(d)_k d_k with d_k = alpha p_k . q over the unit rows p_k
/// (P, C) of each class, for each row q of `voxels` (N, C): (classes, N).
///
/// It equals alpha q . Attention(Q = q, K = P, V = P, scale = alpha), and libtorch's attention never holds N x P
/// numbers. The queries are laid out as [`BLOCKS`] heads, over which its backward pass runs in parallel.
fn attention(voxels: &Tensor, classes: &[Tensor], alpha: f64) -> Tensor {
    let (count, channels) = voxels.size2().expect("(N, C)");
    let padding = (BLOCKS - count % BLOCKS) % BLOCKS;
    let queries = normalised(voxels).constant_pad_nd([0, 0, 0, padding]).view([1, BLOCKS, -1, channels]);
    let of_class = |rows: &Tensor| {
        let size = rows.size()[0];
        if size == 0 {
            return Tensor::full([count], f64::from(simd::ABSENT), (voxels.kind(), voxels.device()));
        }
        let keys = rows.view([1, 1, size, channels]).expand([1, BLOCKS, size, channels], false);
        let attended =
            Tensor::scaled_dot_product_attention(&queries, &keys, &keys, None::<Tensor>, 0.0, false, alpha, false);
        let similarity = (attended * &queries).sum_dim_intlist([-1i64].as_slice(), false, voxels.kind()) * alpha;
        similarity.view(-1).narrow(0, 0, count) // (N)
    };
    Tensor::stack(&classes.iter().map(of_class).collect::<Vec<_>>(), 0)
}

/// Rows of unit length.
fn normalised(rows: &Tensor) -> Tensor {
    let squares: Tensor = rows * rows;
    let length = squares.sum_dim_intlist([-1i64].as_slice(), true, rows.kind()).sqrt();
    rows / length.clamp_min(1e-12)
}

/// The class of each voxel, (d, h, w) of int64, from scores (1, 1 + K, d, h, w).
pub fn argmax(scores: &Tensor) -> Tensor {
    debug_assert_ne!(scores.kind(), Kind::Int64);
    scores.argmax(1, false).squeeze_dim(0)
}

/// The class of each voxel (d, h, w) from scores (1, 1 + K, d, h, w), and 1 where its probability is above `confidence`,
/// else 0, (1, 1, d, h, w).
pub fn confident(scores: &Tensor, competition: Competition, confidence: f64) -> (Tensor, Tensor) {
    let of_classes = probabilities(scores, competition); // (1, K, d, h, w)
    let background = match competition {
        Competition::Joint => 1.0 - of_classes.sum_dim_intlist([1i64].as_slice(), true, scores.kind()),
        Competition::OneVsRest => 1.0 - of_classes.amax([1i64].as_slice(), true),
    };
    let (largest, class) = Tensor::cat(&[background, of_classes], 1).max_dim(1, true); // (1, 1, d, h, w)
    (class.squeeze_dim(0).squeeze_dim(0), largest.gt(confidence).to_kind(scores.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt};
    use tch::Device;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// Doubles between -2 and 2 from a stream of our own: libtorch's generator is shared by the tests that run side by side.
    pub(super) fn random(rng: &mut impl Rng, size: &[i64]) -> Tensor {
        let values: Vec<f64> = (0..size.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
        Tensor::from_slice(&values).view(size)
    }

    fn example() -> (Tensor, Prototypes) {
        let mut rng = crate::rng::stream(0, "example", 0);
        let features = random(&mut rng, &[1, 4, 2, 3, 5]);
        let [a, b, c] = [7, 3, 1].map(|count| random(&mut rng, &[count, 4]));
        (features, Prototypes { background: vec![a], foreground: vec![b, c], sizes_vox: None })
    }

    fn plain_scores(features: &Tensor, prototypes: &Prototypes) -> Tensor {
        scores(features, prototypes, 20.0, &mut Tape::default())
    }

    /// The same scores and gradients in double precision by libtorch and in single precision by us, for sizes that fill
    /// no vector register, a class without prototypes and alpha so large that one prototype takes all.
    #[test]
    fn both_ways_give_the_same_scores_and_gradients() {
        let mut rng = crate::rng::stream(0, "scores", 0);
        for (channels, sizes, [d, h, w], alpha) in [
            (16, vec![384, 5], [4, 12, 16], 20.0),
            (5, vec![7, 0, 1, 30], [3, 5, 7], 20.0),
            (33, vec![9, 17], [1, 1, 3], 1000.0),
            (3, vec![2], [23, 19, 11], 0.5),
        ] {
            let features = random(&mut rng, &[1, channels, d, h, w]);
            let rows: Vec<Tensor> = sizes.iter().map(|&size| random(&mut rng, &[size, channels])).collect();
            let weights = random(&mut rng, &[1, sizes.len() as i64, d, h, w]);
            let [double, single] = [Kind::Double, Kind::Float].map(|kind| {
                let leaf = |t: &Tensor| t.to_kind(kind).detach().copy().set_requires_grad(true);
                let (features, rows) = (leaf(&features), rows.iter().map(leaf).collect::<Vec<_>>());
                let copies = |of: &[Tensor]| of.iter().map(Tensor::shallow_clone).collect();
                let (background, foreground) = (copies(&rows[..1]), copies(&rows[1..]));
                let prototypes = Prototypes { background, foreground, sizes_vox: None };
                let mut tape = Tape::default();
                let scores = scores(&features, &prototypes, alpha, &mut tape);
                (&scores * (weights.to_kind(kind) + &scores * 0.1)).sum(kind).backward();
                tape.backward();
                let gradients = std::iter::once(&features).chain(rows.iter().filter(|rows| rows.size()[0] > 0));
                std::iter::once(scores.detach()).chain(gradients.map(Tensor::grad)).collect::<Vec<_>>()
            });
            assert_eq!(double.len(), single.len());
            for (index, (double, single)) in double.iter().zip(&single).enumerate() {
                let scale = double.abs().clamp_max(1e3).max().double_value(&[]).max(1.0);
                let difference = largest_difference(double, &single.to_kind(Kind::Double));
                assert!(difference < 2e-5 * scale, "{sizes:?}, tensor {index}: {difference} of {scale}");
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let mut rng = crate::rng::stream(0, "threads", 0);
        let [voxels, rows, of_scores] =
            [16 * 6138, 16 * 40, 2 * 6138].map(|count| crate::tensor::to_vec(&random(&mut rng, &[count])));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let rows = simd::Rows { values: &rows, channels: 16, ends: &[25, 40] };
                let (mut scores, mut of_voxels) = (vec![0.0; of_scores.len()], vec![0.0; voxels.len()]);
                simd::scores(&voxels, rows, 20.0, &mut scores);
                let of_rows = simd::gradients(&voxels, rows, 20.0, &of_scores, &mut of_voxels);
                (scores, of_voxels, of_rows)
            })
        };
        let alone = with(1);
        assert!(with(2) == alone && with(3) == alone);
    }

    #[test]
    fn scores_equal_nested_loops() {
        let (features, prototypes) = example();
        let fast = plain_scores(&features, &prototypes);
        for (class, rows) in std::iter::once(&prototypes.background[0]).chain(&prototypes.foreground).enumerate() {
            for (z, y, x) in [(0, 0, 0), (1, 2, 4), (0, 1, 3)] {
                let at = |channel: i64| features.double_value(&[0, channel, z, y, x]);
                let row = |k: i64, channel: i64| rows.double_value(&[k, channel]);
                let length = |v: &dyn Fn(i64) -> f64| (0..4).map(|c| v(c).powi(2)).sum::<f64>().sqrt();
                let d: Vec<f64> = (0..rows.size()[0])
                    .map(|k| {
                        let dot: f64 = (0..4).map(|c| at(c) * row(k, c)).sum();
                        20.0 * dot / length(&at) / length(&|c| row(k, c))
                    })
                    .collect();
                let total: f64 = d.iter().map(|d| d.exp()).sum();
                let expected: f64 = d.iter().map(|d| d.exp() / total * d).sum();
                assert!((fast.double_value(&[0, class as i64, z, y, x]) - expected).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn the_order_of_prototypes_and_the_length_of_features_change_nothing() {
        let (features, mut prototypes) = example();
        let before = plain_scores(&features, &prototypes);
        prototypes.foreground[0] = prototypes.foreground[0].flip([0]) * 7.0;
        assert!(largest_difference(&before, &plain_scores(&(features * 3.0), &prototypes)) < 1e-10);
    }

    #[test]
    fn with_one_class_joint_and_one_against_the_rest_give_the_same_probability() {
        let (features, mut prototypes) = example();
        prototypes.foreground.truncate(1);
        let joint = probabilities(&plain_scores(&features, &prototypes), Competition::Joint);
        // Two entries of background mean one for each class.
        prototypes.background.push(prototypes.background[0].shallow_clone());
        prototypes.foreground.push(prototypes.foreground[0].shallow_clone());
        let rest = probabilities(&plain_scores(&features, &prototypes), Competition::OneVsRest);
        assert!(largest_difference(&joint, &rest.narrow(1, 0, 1)) < 1e-10);
    }

    #[test]
    fn a_class_without_prototypes_is_never_predicted() {
        let (features, mut prototypes) = example();
        prototypes.foreground[1] = Tensor::zeros([0, 4], (Kind::Double, Device::Cpu));
        let with = plain_scores(&features, &prototypes);
        assert_eq!(argmax(&with).eq(2).any().int64_value(&[]), 0);
        prototypes.foreground.pop();
        let without = probabilities(&plain_scores(&features, &prototypes), Competition::Joint);
        assert!(largest_difference(&probabilities(&with, Competition::Joint).narrow(1, 0, 1), &without) < 1e-12);
    }

    #[test]
    fn the_median_of_scores_is_each_elements_own() {
        let of = |values: [f32; 3]| Tensor::from_slice(&values);
        let [a, b, c] = [[1.0, 9.0, 2.0], [2.0, 8.0, 1e30], [3.0, 1.0, 4.0]].map(of);
        let values = |scores: &[&Tensor]| {
            crate::tensor::to_vec(&median(&scores.iter().map(|t| t.shallow_clone()).collect::<Vec<_>>()))
        };
        assert_eq!(values(&[&a]), [1.0, 9.0, 2.0]);
        assert_eq!(values(&[&a, &c]), [2.0, 5.0, 3.0]);
        assert_eq!(values(&[&a, &b, &c]), [2.0, 8.0, 4.0]);
        assert_eq!(values(&[&c, &b, &a]), [2.0, 8.0, 4.0]);
    }

    #[test]
    fn confident_voxels_are_those_whose_class_is_beyond_doubt() {
        // Four voxels: sure background, sure class 2, a tie of both classes, class 1 by a little.
        let scores = Tensor::from_slice(&[9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.5, 0.0, 9.0, 5.0, 0.0]);
        let scores = scores.view([1, 3, 1, 1, 4]);
        for classes in [Competition::Joint, Competition::OneVsRest] {
            // One against the rest, scores are above a background of 0.
            let scores = match classes {
                Competition::Joint => scores.shallow_clone(),
                Competition::OneVsRest => &scores - scores.narrow(1, 0, 1),
            };
            let (class, known) = confident(&scores, classes, 0.7);
            let class = Vec::<i64>::try_from(class.flatten(0, -1)).unwrap();
            assert_eq!((class[0], class[1], class[3]), (0, 2, 1));
            let expected = if classes == Competition::Joint { [1.0, 1.0, 0.0, 0.0] } else { [1.0, 1.0, 1.0, 0.0] };
            assert_eq!(crate::tensor::to_vec(&known), expected);
        }
    }
}
