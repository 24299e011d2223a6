//! What two sets of prototypes say together, from what each says alone.

use super::similarity::{self, NONE};
use super::tape::Inputs;
use super::{as_volume, balance, normalised};
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
        Self::balanced(features, prototypes, alpha, 0.0)
    }

    /// The same where prototypes are held by `weight` to claim as much as they stand for, if that is known: see
    /// [`balance::potentials`], which are added to the d_k.
    pub fn balanced(features: &Tensor, prototypes: &Prototypes, alpha: f64, weight: f64) -> Self {
        let (_, _, d, h, w) = features.size5().expect("(1, C, d, h, w)");
        let voxels = rows(features); // (N, C)
        let Prototypes { background, foreground, sizes } = prototypes;
        let classes: Vec<Tensor> = background.iter().chain(foreground).map(normalised).collect();
        let is_held = weight > 0.0 && !sizes.is_empty();
        let added = is_held.then(|| balance::potentials(&voxels, &classes, sizes, alpha, weight));
        let (scores, logs) = match (features.kind(), features.device()) {
            (Kind::Float, Device::Cpu) => by_us(&voxels, &classes, alpha, added.as_ref()),
            _ => by_libtorch(&voxels, &classes, alpha, added.as_ref()),
        };
        Self { scores, logs, background: background.len(), size_vox: [d, h, w] }
    }

    /// As if the prototypes of both were in one set.
    pub fn beside(&self, other: &Self) -> Self {
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
fn by_us(voxels: &Tensor, classes: &[Tensor], alpha: f64, added: Option<&Tensor>) -> (Tensor, Tensor) {
    let inputs = Inputs::new(voxels, classes, alpha);
    let added = added.map(to_vec).unwrap_or_default();
    let shape = [classes.len() as i64, voxels.size()[0]];
    let mut logs = Vec::new();
    let scores = filled(&shape, |scores| {
        logs = similarity::with_logs(floats(&inputs.voxels), inputs.rows(), inputs.alpha, &added, scores);
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
            return (constant(similarity::ABSENT), constant(NONE));
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
    use crate::prediction::Tape;

    /// In single and in double precision, which are computed in different ways; one class is in one of the sets alone, one in
    /// neither, and backgrounds are one or as many as the classes.
    #[test]
    fn two_sets_together_are_as_one_set_of_both() {
        let mut rng = crate::rng::stream(0, "union", 0);
        for (kind, tolerance) in [(Kind::Float, 2e-4), (Kind::Double, 1e-9)] {
            for backgrounds in [1, 3] {
                let mut random = |shape: &[i64]| crate::prediction::tests::random(&mut rng, shape).to_kind(kind);
                let features = random(&[1, 5, 3, 4, 7]);
                let mut set = |sizes: [i64; 3], background: i64| Prototypes {
                    background: (0..backgrounds).map(|_| random(&[background, 5])).collect(),
                    foreground: sizes.map(|size| random(&[size, 5])).into(),
                    sizes: vec![],
                };
                let (a, b) = (set([4, 0, 0], 30), set([1, 6, 0], 2));
                let joined =
                    |a: &[Tensor], b: &[Tensor]| a.iter().zip(b).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect();
                let both = Prototypes {
                    background: joined(&a.background, &b.background),
                    foreground: joined(&a.foreground, &b.foreground),
                    sizes: vec![],
                };
                let of = |set: &Prototypes| Similarity::of(&features, set, 20.0);
                let expected = crate::prediction::scores(&features, &both, 20.0, &mut Tape::default());
                for found in [of(&a).beside(&of(&b)), of(&b).beside(&of(&a)), of(&both)] {
                    let off = (found.scores() - &expected).abs().max().double_value(&[]);
                    assert!(off < tolerance, "{kind:?}, {backgrounds} backgrounds: {off}");
                }
                // And a third set beside them.
                let c = set([0, 0, 2], 1);
                let thrice = of(&a).beside(&of(&b)).beside(&of(&c)).scores();
                let other = of(&c).beside(&of(&both)).scores();
                let off = (thrice - other).abs().max().double_value(&[]);
                assert!(off < tolerance, "{kind:?}: {off}");
            }
        }
    }
    /// In single precision by us and in double precision by libtorch.
    #[test]
    fn balance_adds_to_each_similarity_what_its_prototype_lacks() {
        let mut rng = crate::rng::stream(0, "balanced union", 0);
        for (kind, tolerance) in [(Kind::Float, 2e-4), (Kind::Double, 1e-9)] {
            let mut random = |shape: &[i64]| crate::prediction::tests::random(&mut rng, shape).to_kind(kind);
            let features = random(&[1, 5, 3, 4, 7]);
            let (background, foreground) = (vec![random(&[9, 5])], vec![random(&[2, 5]), random(&[1, 5])]);
            let set = Prototypes { background, foreground, sizes: vec![70.0, 10.0, 4.0] };
            let found = Similarity::balanced(&features, &set, 20.0, 0.6).scores();
            let classes: Vec<Tensor> = set.background.iter().chain(&set.foreground).map(normalised).collect();
            let voxels = rows(&features);
            let added = balance::potentials(&voxels, &classes, &set.sizes, 20.0, 0.6);
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
