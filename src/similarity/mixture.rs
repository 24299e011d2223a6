//! What two sets of prototypes say together, from what each says alone.

use super::simd::{self, NONE};
use super::tape::Inputs;
use super::{as_volume, normalised, transport};
use crate::prototypes::Prototypes;
use crate::tensor::{filled, floats, rows, to_vec};
use tch::{Device, Kind, Tensor};

/// Rows of a volume that meet all prototypes at once where libtorch computes.
const ROWS_AT_ONCE: i64 = 8192;

/// The similarities S_c = sum_k softmax_k(d)_k d_k of a volume's voxels to the prototypes of each class (Eq. 3.3), with
/// L_c = ln sum_k e^(d_k): of two sets of prototypes together S is the mean of both S, weighted by e^L. Gradients are not kept.
#[derive(Debug)]
pub struct Similarity {
    /// (classes, N) each
    scores: Tensor,
    logs: Tensor,
    background: usize,
    size_vox: [i64; 3],
}

impl Similarity {
    /// Of features (1, C, d, h, w).
    pub fn of(features: &Tensor, prototypes: &Prototypes, alpha: f64) -> Self {
        Self::transported(features, prototypes, alpha, &transport::Config::OFF)
    }

    /// The same with [`transport::potentials`] added to the d_k, where the sizes of the prototypes' classes are known.
    pub fn transported(features: &Tensor, prototypes: &Prototypes, alpha: f64, config: &transport::Config) -> Self {
        let (_, _, d, h, w) = features.size5().expect("(1, C, d, h, w)");
        let voxels = rows(features); // (N, C)
        let Prototypes { background, foreground, sizes_vox } = prototypes;
        let classes: Vec<Tensor> = background.iter().chain(foreground).map(normalised).collect();
        let sizes_vox = sizes_vox.as_ref().filter(|_| config.strength > 0.0);
        let added = sizes_vox.map(|sizes_vox| transport::potentials(&voxels, &classes, sizes_vox, alpha, config));
        let (scores, logs) = match (features.kind(), features.device()) {
            (Kind::Float, Device::Cpu) => by_simd(&voxels, &classes, alpha, added.as_ref()),
            _ => by_libtorch(&voxels, &classes, alpha, added.as_ref()),
        };
        Self { scores, logs, background: background.len(), size_vox: [d, h, w] }
    }

    /// As if the prototypes of both were in one set.
    pub fn joined_with(&self, other: &Self) -> Self {
        let weight = (&self.logs - &other.logs).sigmoid();
        Self {
            scores: other.scores.lerp_tensor(&self.scores, &weight),
            logs: self.logs.logaddexp(&other.logs),
            ..*self
        }
    }

    /// As [`super::scores`] gives them: (1, 1 + K, d, h, w).
    pub fn scores(&self) -> Tensor {
        as_volume(&self.scores, self.background, self.size_vox)
    }
}

/// With `added` (P) to the d_k.
fn by_simd(voxels: &Tensor, classes: &[Tensor], alpha: f64, added: Option<&Tensor>) -> (Tensor, Tensor) {
    let inputs = Inputs::new(voxels, classes, alpha);
    let added = added.map(to_vec).unwrap_or_default();
    let shape = [classes.len() as i64, voxels.size()[0]];
    let mut logs = Vec::new();
    let scores = filled(&shape, |scores| {
        logs = simd::with_logs(floats(&inputs.voxels), inputs.rows(), inputs.alpha, &added, scores);
    });
    (scores, filled(&shape, |to| to.copy_from_slice(&logs)))
}

/// The same for any device and kind.
fn by_libtorch(voxels: &Tensor, classes: &[Tensor], alpha: f64, added: Option<&Tensor>) -> (Tensor, Tensor) {
    let mut first = 0;
    let of_class = |rows: &Tensor| {
        let count = rows.size()[0];
        let added = added.map(|added| added.narrow(0, first, count));
        first += count;
        if count == 0 {
            let constant =
                |value: f32| Tensor::full([voxels.size()[0]], f64::from(value), (voxels.kind(), voxels.device()));
            return (constant(simd::ABSENT), constant(NONE));
        }
        let of_part = |part: Tensor| {
            let mut products = normalised(&part).matmul(&rows.tr()) * alpha; // (n, P)
            if let Some(added) = &added {
                products += added;
            }
            let score = (products.softmax(1, voxels.kind()) * &products).sum_dim_intlist(
                [1i64].as_slice(),
                false,
                voxels.kind(),
            );
            (score, products.logsumexp([1i64].as_slice(), false))
        };
        let (scores, logs): (Vec<Tensor>, Vec<Tensor>) = voxels.split(ROWS_AT_ONCE, 0).into_iter().map(of_part).unzip();
        (Tensor::cat(&scores, 0), Tensor::cat(&logs, 0))
    };
    let (scores, logs): (Vec<Tensor>, Vec<Tensor>) = classes.iter().map(of_class).unzip();
    (Tensor::stack(&scores, 0), Tensor::stack(&logs, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::Tape;

    /// In single and in double precision, which are computed in different ways; one class is in one of the sets alone, one in
    /// neither, and backgrounds are one or as many as the classes.
    #[test]
    fn two_sets_together_are_as_one_set_of_both() {
        let mut rng = crate::rng::stream(0, "union", 0);
        for (kind, tolerance) in [(Kind::Float, 2e-4), (Kind::Double, 1e-9)] {
            for backgrounds in [1, 3] {
                let mut random = |shape: &[i64]| crate::similarity::tests::random(&mut rng, shape).to_kind(kind);
                let features = random(&[1, 5, 3, 4, 7]);
                let mut set = |sizes: [i64; 3], background: i64| Prototypes {
                    background: (0..backgrounds).map(|_| random(&[background, 5])).collect(),
                    foreground: sizes.map(|size| random(&[size, 5])).into(),
                    sizes_vox: None,
                };
                let (a, b) = (set([4, 0, 0], 30), set([1, 6, 0], 2));
                let joined =
                    |a: &[Tensor], b: &[Tensor]| a.iter().zip(b).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect();
                let both = Prototypes {
                    background: joined(&a.background, &b.background),
                    foreground: joined(&a.foreground, &b.foreground),
                    sizes_vox: None,
                };
                let of = |set: &Prototypes| Similarity::of(&features, set, 20.0);
                let expected = crate::similarity::scores(&features, &both, 20.0, &mut Tape::default());
                for found in [of(&a).joined_with(&of(&b)), of(&b).joined_with(&of(&a)), of(&both)] {
                    let off = (found.scores() - &expected).abs().max().double_value(&[]);
                    assert!(off < tolerance, "{kind:?}, {backgrounds} backgrounds: {off}");
                }
                // And a third set beside them.
                let c = set([0, 0, 2], 1);
                let thrice = of(&a).joined_with(&of(&b)).joined_with(&of(&c)).scores();
                let other = of(&c).joined_with(&of(&both)).scores();
                let off = (thrice - other).abs().max().double_value(&[]);
                assert!(off < tolerance, "{kind:?}: {off}");
            }
        }
    }
    /// In single precision by us and in double precision by libtorch.
    #[test]
    fn transport_adds_to_each_similarity_what_its_prototype_lacks() {
        let config = transport::Config { strength: 0.6, sample_vox: 2048, iterations: 3 };
        let mut rng = crate::rng::stream(0, "balanced union", 0);
        for (kind, tolerance) in [(Kind::Float, 2e-4), (Kind::Double, 1e-9)] {
            let mut random = |shape: &[i64]| crate::similarity::tests::random(&mut rng, shape).to_kind(kind);
            let features = random(&[1, 5, 3, 4, 7]);
            let (background, foreground) = (vec![random(&[9, 5])], vec![random(&[2, 5]), random(&[1, 5])]);
            let set = Prototypes { background, foreground, sizes_vox: Some(vec![70.0, 10.0, 4.0]) };
            let found = Similarity::transported(&features, &set, 20.0, &config).scores();
            let classes: Vec<Tensor> = set.background.iter().chain(&set.foreground).map(normalised).collect();
            let voxels = rows(&features);
            let added = transport::potentials(&voxels, &classes, set.sizes_vox.as_ref().unwrap(), 20.0, &config);
            let d = normalised(&voxels).matmul(&Tensor::cat(&classes, 0).tr()) * 20.0 + &added;
            for (class, (from, count)) in [(0, 9), (9, 2), (11, 1)].into_iter().enumerate() {
                let of_class = d.narrow(1, from, count);
                let expected = (of_class.softmax(1, kind) * &of_class).sum_dim_intlist([1i64].as_slice(), false, kind);
                let off = (found.select(1, class as i64).flatten(0, -1) - expected).abs().max().double_value(&[]);
                assert!(off < tolerance, "{kind:?}, class {class}: {off}");
            }
            assert!(added.abs().max().double_value(&[]) > 0.1);
        }
    }
}
