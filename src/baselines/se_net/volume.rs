//! An SE-Net over volumes: which slice of a support goes with which slice of a query.

use super::{Excitation, SeNet};
use crate::similarity::ABSENT;
use tch::{Kind, Tensor};

/// Slices that pass through the network together at test.
pub const AT_ONCE: usize = 8;

/// The excitation of each class in every support; None where the support does not show it.
#[derive(Debug)]
pub struct Slices {
    supports: Vec<Vec<Option<Shown>>>,
}

/// A class in one support.
#[derive(Debug)]
struct Shown {
    /// For each slice of the support its index in `excitation`, where it shows the class.
    indices: Vec<Option<i64>>,
    excitation: Excitation,
}

impl Slices {
    /// Of annotated volumes: image (1, 1, D, H, W), class indices 0 ..= `count` (D, H, W).
    pub fn new(network: &SeNet, supports: &[(Tensor, Tensor)], count: i64) -> Self {
        let classes = |(image, classes): &(Tensor, Tensor)| {
            (1..=count).map(|class| Shown::new(network, image, &classes.eq(class))).collect()
        };
        Self { supports: supports.iter().map(classes).collect() }
    }

    /// For each class whether any support shows it.
    pub fn shown(&self) -> Vec<bool> {
        let count = self.supports.first().map_or(0, Vec::len);
        (0..count).map(|class| self.supports.iter().any(|classes| classes[class].is_some())).collect()
    }

    /// Scores (1, 1 + K, D, H, W) of a query (1, 1, D, H, W): 0 for the background, and for each class its logit less that
    /// of the background, mean over the supports whose counterpart of the slice shows the class; [`ABSENT`] where none does.
    pub fn scores(&self, network: &SeNet, query: &Tensor) -> Tensor {
        let query = of_volume(query); // (D, 1, H, W)
        let mut scores = vec![query.squeeze_dim(1).zeros_like()]; // (D, H, W)
        for class in 0..self.shown().len() {
            let (mut sum, mut parts) = (scores[0].zeros_like(), vec![0f32; query.size()[0] as usize]);
            for shown in self.supports.iter().filter_map(|classes| classes[class].as_ref()) {
                for pairs in shown.pairs(query.size()[0]).chunks(AT_ONCE) {
                    let (slices, indices): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
                    slices.iter().for_each(|&slice| parts[slice as usize] += 1.0);
                    let on_device = |of: &[i64]| Tensor::from_slice(of).to_device(query.device());
                    let (slices, indices) = (on_device(&slices), on_device(&indices));
                    let excitation = shown.excitation.select(&indices);
                    let found = network.forward(&query.index_select(0, &slices), &excitation, false); // (n, 2, H, W)
                    sum = sum.index_add(0, &slices, &against_background(&found));
                }
            }
            let parts = Tensor::from_slice(&parts).to_device(query.device()).view([-1, 1, 1]);
            scores.push((sum / parts.clamp_min(1.0)).where_self(&parts.gt(0.0), &absent(&scores[0])));
        }
        Tensor::stack(&scores, 0).unsqueeze(0)
    }
}

impl Shown {
    /// A class in an image (1, 1, D, H, W) by its mask (D, H, W).
    fn new(network: &SeNet, image: &Tensor, mask: &Tensor) -> Option<Self> {
        let slices = showing(mask);
        let (image, mask) = (of_volume(image), mask.unsqueeze(1).to_kind(image.kind())); // (D, 1, H, W)
        let excitation = |slices: &[i64]| {
            let slices = Tensor::from_slice(slices).to_device(image.device());
            network.excitation(&image.index_select(0, &slices), &mask.index_select(0, &slices), false)
        };
        let parts: Vec<Excitation> = slices.chunks(AT_ONCE).map(excitation).collect();
        let mut indices = vec![None; image.size()[0] as usize];
        for (index, &slice) in (0..).zip(&slices) {
            indices[slice as usize] = Some(index);
        }
        (!parts.is_empty()).then(|| Self { indices, excitation: Excitation::cat(&parts) })
    }

    /// Slices of a query of this depth with the index of their counterpart, where that shows the class.
    fn pairs(&self, depth: i64) -> Vec<(i64, i64)> {
        let index = |slice| self.indices[counterpart(slice, depth, self.indices.len() as i64) as usize];
        (0..depth).filter_map(|slice| Some((slice, index(slice)?))).collect()
    }
}

/// The slice at the same relative height in a volume of another depth: floor((z + 1/2) D' / D).
fn counterpart(slice: i64, depth: i64, other: i64) -> i64 {
    (2 * slice + 1) * other / (2 * depth)
}

/// The slices of a volume (1, 1, D, H, W) as (D, 1, H, W).
pub fn of_volume(volume: &Tensor) -> Tensor {
    volume.squeeze_dim(0).transpose(0, 1)
}

/// The slices on which a mask (D, H, W) is not empty.
pub fn showing(mask: &Tensor) -> Vec<i64> {
    let filled = mask.flatten(1, 2).any_dim(1, false).to_kind(Kind::Float);
    (0..).zip(crate::tensor::to_vec(&filled)).filter(|(_, filled)| *filled > 0.0).map(|(slice, _)| slice).collect()
}

/// Two scores (n, 2, H, W) as one, (n, H, W): the second less the first.
pub fn against_background(scores: &Tensor) -> Tensor {
    scores.select(1, 1) - scores.select(1, 0)
}

/// A map like `scores` of a class that is not there.
pub fn absent(scores: &Tensor) -> Tensor {
    scores.full_like(f64::from(ABSENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::blocks::Norm;
    use crate::rng;
    use crate::similarity::argmax;
    use tch::{Device, nn::VarStore, no_grad};

    fn network() -> (VarStore, SeNet) {
        let vs = VarStore::new(Device::Cpu);
        let network = SeNet::new(&vs.root(), 4, Norm::Batch, &mut rng::stream(0, "weights", 0));
        (vs, network)
    }

    fn image(depth: i64, seed: f64) -> Tensor {
        (Tensor::arange(depth * 16 * 16, (Kind::Float, Device::Cpu)) + seed).sin().view([1, 1, depth, 16, 16])
    }

    /// Class `c + 1` fills a square of the slices that are named for it.
    fn classes(depth: i64, slices: &[&[i64]]) -> Tensor {
        let map = Tensor::zeros([depth, 16, 16], (Kind::Int64, Device::Cpu));
        for (class, slices) in (1..).zip(slices) {
            for &slice in *slices {
                let _ = map.get(slice).narrow(0, 5 * class - 5, 4).narrow(1, 3, 6).fill_(class);
            }
        }
        map
    }

    #[test]
    fn slices_of_different_depths_meet_at_their_relative_height() {
        for (depth, other, expected) in [
            (3, 3, vec![0, 1, 2]),
            (2, 4, vec![1, 3]),
            (4, 2, vec![0, 0, 1, 1]),
            (3, 2, vec![0, 1, 1]),
            (1, 5, vec![2]),
        ] {
            assert_eq!((0..depth).map(|slice| counterpart(slice, depth, other)).collect::<Vec<_>>(), expected);
        }
    }

    /// The same, pair by pair and without batches: 20 slices are more than pass through the network together.
    #[test]
    fn scores_equal_those_of_each_pair_of_slices_by_itself() {
        let (_vs, network) = network();
        let supports = [
            (image(10, 0.0), classes(10, &[&[0, 1, 2, 3, 4, 5, 6, 7, 9], &[2]])),
            (image(20, 4.0), classes(20, &[&[7, 8, 9], &[], &[19]])),
        ];
        let query = image(20, 9.0);
        let (all, found) = no_grad(|| {
            let slices = Slices::new(&network, &supports, 3);
            (slices.scores(&network, &query), slices.shown())
        });
        assert_eq!((all.size(), found), (vec![1, 4, 20, 16, 16], vec![true; 3]));
        for (slice, class) in (0..20).flat_map(|slice| (1..=3).map(move |class| (slice, class))) {
            let mut each = Vec::new();
            for (image, classes) in &supports {
                let other = if classes.size()[0] == 10 { slice / 2 } else { slice };
                let mask = classes.get(other).eq(class).to_kind(Kind::Float).view([1, 1, 16, 16]);
                if mask.max().double_value(&[]) > 0.0 {
                    let of = |volume: &Tensor, slice| volume.select(2, slice); // (1, 1, H, W)
                    let excitation = network.excitation(&of(image, other), &mask, false);
                    each.push(against_background(&network.forward(&of(&query, slice), &excitation, false)));
                }
            }
            let ours = all.select(1, class).select(1, slice);
            let expected =
                if each.is_empty() { absent(&ours) } else { Tensor::stack(&each, 0).mean_dim(0, false, None) };
            let difference = (ours - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-4, "slice {slice}, class {class}: {difference}");
        }
        assert_eq!(all.select(1, 0).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_class_that_no_support_shows_is_never_predicted() {
        let (_vs, network) = network();
        let slices = Slices::new(&network, &[(image(3, 0.0), classes(3, &[&[], &[1]]))], 2);
        assert_eq!(slices.shown(), [false, true]);
        let found = argmax(&slices.scores(&network, &image(4, 1.0)));
        assert_eq!(found.eq(1).any().int64_value(&[]), 0);
        // Only slices 1 and 2 of four have the middle one of three as their counterpart.
        assert_eq!(found.index_select(0, &Tensor::from_slice(&[0i64, 3])).max().int64_value(&[]), 0);
    }
}
