//! Query features + prototypes -> scores, probabilities: paper, section 3.4, Eqs. 3.3-3.5.

use crate::error::{Error, Result};
use crate::prototypes::{Classes, Prototypes};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Section `[prediction]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Multiplier of the cosine similarity, and so the sharpness of the softmax over prototypes (alpha).
    pub alpha: f64,
    /// Which classes compete, in training (where an episode has several regions) and at test.
    pub train_classes: Classes,
    pub test_classes: Classes,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        if !(self.alpha > 0.0 && self.alpha <= 1000.0) {
            let found = self.alpha.to_string();
            return Err(Error::invalid("prediction.alpha", "a number in (0, 1000]", found, "change this key"));
        }
        Ok(())
    }
}

/// The score of a class that has no prototype: never the greatest, and without influence on the softmax.
const ABSENT: f64 = -1e4;
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
pub fn scores(features: &Tensor, prototypes: &Prototypes, alpha: f64) -> Tensor {
    let (_, channels, d, h, w) = features.size5().expect("(1, C, d, h, w)");
    let voxels = features.permute([0, 2, 3, 4, 1]).reshape([-1, channels]); // (d h w, C)
    let voxels = normalised(&voxels);
    let similarity = |p: &Tensor| similarity(&voxels, p, alpha).view([1, 1, d, h, w]);
    let foreground = prototypes.foreground.iter().map(similarity);
    let all: Vec<Tensor> = if prototypes.background.len() == 1 {
        std::iter::once(similarity(&prototypes.background[0])).chain(foreground).collect()
    } else {
        let against = |(s, background): (Tensor, &Tensor)| s - similarity(background);
        let zero = Tensor::zeros([1, 1, d, h, w], (features.kind(), features.device()));
        std::iter::once(zero).chain(foreground.zip(&prototypes.background).map(against)).collect()
    };
    Tensor::cat(&all, 1)
}

/// Probabilities (1, K, ...) of the K classes from scores (1, 1 + K, ...): softmax over background and all classes, or
/// for each class by itself (Eq. 3.4).
pub fn probabilities(scores: &Tensor, classes: Classes) -> Tensor {
    let count = scores.size()[1] - 1;
    match classes {
        Classes::Joint => scores.softmax(1, scores.kind()).narrow(1, 1, count),
        Classes::OneVsRest => scores.narrow(1, 1, count).sigmoid(),
    }
}

/// Scores at another resolution, trilinearly.
pub fn interpolate(scores: &Tensor, size_vox: [i64; 3]) -> Tensor {
    if scores.size()[2..] == size_vox {
        return scores.shallow_clone();
    }
    scores.upsample_trilinear3d(size_vox, false, None, None, None)
}

/// sum_k softmax_k(d)_k d_k with d_k = alpha p_k . q over the rows p_k of `prototypes` (P, C), for each row q of the
/// normalised `voxels` (N, C): (N).
///
/// It equals alpha q . Attention(Q = q, K = P, V = P, scale = alpha), and libtorch's attention never holds N x P
/// numbers on the CPU. The queries are laid out as [`BLOCKS`] heads, over which its backward pass runs in parallel.
fn similarity(voxels: &Tensor, prototypes: &Tensor, alpha: f64) -> Tensor {
    let (count, channels) = voxels.size2().expect("(N, C)");
    let size = prototypes.size()[0];
    if size == 0 {
        return Tensor::full([count], ABSENT, (voxels.kind(), voxels.device()));
    }
    let keys = normalised(prototypes).view([1, 1, size, channels]).expand([1, BLOCKS, size, channels], false);
    let padding = (BLOCKS - count % BLOCKS) % BLOCKS;
    let padded = if padding == 0 { voxels.shallow_clone() } else { voxels.constant_pad_nd([0, 0, 0, padding]) };
    let queries = padded.view([1, BLOCKS, -1, channels]); // (1, blocks, N / blocks, C)
    let attended =
        Tensor::scaled_dot_product_attention(&queries, &keys, &keys, None::<Tensor>, 0.0, false, alpha, false);
    let similarity = (attended * queries).sum_dim_intlist([-1i64].as_slice(), false, voxels.kind()) * alpha;
    similarity.view(-1).narrow(0, 0, count) // (N)
}

/// Rows of unit length.
fn normalised(rows: &Tensor) -> Tensor {
    let squares: Tensor = rows * rows;
    let length = squares.sum_dim_intlist([-1i64].as_slice(), true, rows.kind()).sqrt();
    rows / length.clamp_min(1e-12)
}

/// The class of each voxel, (d, h, w) of int64, from scores (1, 1 + K, d, h, w).
pub fn hard(scores: &Tensor) -> Tensor {
    debug_assert_ne!(scores.kind(), Kind::Int64);
    scores.argmax(1, false).squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    fn example() -> (Tensor, Prototypes) {
        let p = |count| Tensor::randn([count, 4], F64);
        (Tensor::randn([1, 4, 2, 3, 5], F64), Prototypes { background: vec![p(7)], foreground: vec![p(3), p(1)] })
    }

    #[test]
    fn scores_equal_nested_loops() {
        let (features, prototypes) = example();
        let fast = scores(&features, &prototypes, 20.0);
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
        let before = scores(&features, &prototypes, 20.0);
        prototypes.foreground[0] = prototypes.foreground[0].flip([0]) * 7.0;
        assert!(largest_difference(&before, &scores(&(features * 3.0), &prototypes, 20.0)) < 1e-10);
    }

    #[test]
    fn with_one_class_joint_and_one_against_the_rest_give_the_same_probability() {
        let (features, mut prototypes) = example();
        prototypes.foreground.truncate(1);
        let joint = probabilities(&scores(&features, &prototypes, 20.0), Classes::Joint);
        // Two entries of background mean one for each class.
        prototypes.background.push(prototypes.background[0].shallow_clone());
        prototypes.foreground.push(prototypes.foreground[0].shallow_clone());
        let rest = probabilities(&scores(&features, &prototypes, 20.0), Classes::OneVsRest);
        assert!(largest_difference(&joint, &rest.narrow(1, 0, 1)) < 1e-10);
    }

    #[test]
    fn a_class_without_prototypes_is_never_predicted() {
        let (features, mut prototypes) = example();
        prototypes.foreground[1] = Tensor::zeros([0, 4], F64);
        let with = scores(&features, &prototypes, 20.0);
        assert_eq!(hard(&with).eq(2).any().int64_value(&[]), 0);
        prototypes.foreground.pop();
        let without = probabilities(&scores(&features, &prototypes, 20.0), Classes::Joint);
        assert!(largest_difference(&probabilities(&with, Classes::Joint).narrow(1, 0, 1), &without) < 1e-12);
    }
}
