//! SE-Net: "Squeeze & excite" guided few-shot segmentation of volumetric images (Roy et al. 2020), slice by slice.
//!
//! A conditioner processes an annotated slice of the support. After each of its nine blocks, its map is reduced to
//! spatial weights for the same block of a segmenter of the same design, which processes a slice of the query (channel
//! squeeze and spatial excitation). As in the public code (abhi4ssj/few-shot-segmentation) the segmenter has four times
//! as many channels as the conditioner (64 and 16), unpooling restores the positions of the maxima, and only the
//! segmenter's deepest decoder receives its encoder's map: by the paper, with skips at finer levels the network copies
//! the support's mask. Differences from the public code: the conditioner's fourth encoder has its own weights instead
//! of those of the third, and the norm is configurable. The paper's batch norm trains on batches of slices and predicts
//! with their mean statistics, which an episode of one slice does not match.

pub mod volume;

use crate::features::blocks::{Norm, NormLayer, convolution_bound, uniform};
use crate::rng::Rng;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// Number of encoders, and of decoders, of each arm.
const LEVELS: usize = 4;
const KERNEL_VOX: i64 = 5;
/// Channels of the segmenter for one channel of the conditioner.
const SHARE: i64 = 4;
/// PyTorch's initial slope of a PReLU.
const SLOPE: f64 = 0.25;

/// An SE-Net.
#[derive(Debug)]
pub struct SeNet {
    conditioner: Arm,
    /// Convolutions from each block of the conditioner to one weight a position.
    squeezes: Vec<Conv>,
    segmenter: Arm,
    classifier: Conv,
}

/// Spatial weights from annotated slices: a factor from 0 to 1 at each position of the maps of the segmenter's blocks.
#[derive(Debug)]
pub struct Excitation {
    /// Factors (n, 1, h, w) of encoders, bottleneck and decoders.
    factors: Vec<Tensor>,
}

impl Excitation {
    /// The excitations of the slices with these indices.
    pub fn select(&self, slices: &Tensor) -> Self {
        Self { factors: self.factors.iter().map(|factors| factors.index_select(0, slices)).collect() }
    }

    /// Concatenates the slices of several excitations.
    pub fn cat(parts: &[Self]) -> Self {
        let of_block = |block: usize| {
            let parts: Vec<&Tensor> = parts.iter().map(|part| &part.factors[block]).collect();
            Tensor::cat(&parts, 0)
        };
        Self { factors: (0..=2 * LEVELS).map(of_block).collect() }
    }
}

impl SeNet {
    /// A network whose variables are stored under `path`, with initial weights from `rng`. `channels` is the number of
    /// channels of each block of the segmenter, `norm` follows each convolution.
    pub fn new(path: &Path, channels: i64, norm: Norm, rng: &mut Rng) -> Self {
        let few = (channels / SHARE).max(1);
        let of_conditioner = path / "conditioner";
        let conditioner = Arm::new(&of_conditioner, [2, few], Skip::None, norm, rng);
        let squeezes =
            (0..=2 * LEVELS).map(|block| Conv::new(&(&of_conditioner / "squeezes" / block), few, 1, 1, rng)).collect();
        let of_segmenter = path / "segmenter";
        let segmenter = Arm::new(&of_segmenter, [1, channels], Skip::Deepest, norm, rng);
        let classifier = Conv::new(&(&of_segmenter / "classifier"), channels, 2, 1, rng);
        Self { conditioner, squeezes, segmenter, classifier }
    }

    /// Computes the excitation from slices (n, 1, H, W) of supports and their masks (n, 1, H, W), 0 or 1. With `train`,
    /// batch norm uses and updates the batch's statistics.
    pub fn excitation(&self, images: &Tensor, masks: &Tensor, train: bool) -> Excitation {
        let mut factors = Vec::with_capacity(self.squeezes.len());
        let _ = self.conditioner.forward(&Tensor::cat(&[images, masks], 1), train, |block, map| {
            factors.push(self.squeezes[block].forward(&map).sigmoid()); // (n, 1, h, w)
            map
        });
        Excitation { factors }
    }

    /// Computes scores (n, 2, H, W) of background and foreground for slices (n, 1, H, W) of queries, each under the
    /// excitation from a slice of the same size.
    pub fn forward(&self, images: &Tensor, excitation: &Excitation, train: bool) -> Tensor {
        let map = self.segmenter.forward(images, train, |block, map| map * &excitation.factors[block]);
        self.classifier.forward(&map)
    }

    /// Number of floats that are kept for the backward pass, for a query's slice and a support's slice of `slice_vox`
    /// pixels each.
    pub fn kept(channels: i64, slice_vox: u64) -> u64 {
        let both = (channels + (channels / SHARE).max(1)) as u64;
        // Of an encoder three maps at its resolution, at a quarter of it the pooled one, before and after excitation, and
        // its places in twice the bytes; of a decoder the unpooled map, three more, and one after excitation.
        let maps = 4 + 5;
        (0..LEVELS as u32).map(|level| both * maps * slice_vox / 4u64.pow(level)).sum()
    }
}

/// The decoders that receive the encoder's map of their level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    None,
    Deepest,
}

/// Encoders that halve the resolution, a bottleneck, decoders that restore it.
#[derive(Debug)]
struct Arm {
    encoders: Vec<Block>,
    bottleneck: Block,
    /// The deepest one first.
    decoders: Vec<Block>,
    skip: Skip,
}

impl Arm {
    fn new(path: &Path, [inputs, channels]: [i64; 2], skip: Skip, norm: Norm, rng: &mut Rng) -> Self {
        let mut block = |path: Path, inputs: i64| Block::new(&path, [inputs, channels], norm, rng);
        let encoders =
            (0..LEVELS).map(|level| block(path / "encoders" / level, if level == 0 { inputs } else { channels }));
        let encoders = encoders.collect();
        let bottleneck = block(path / "bottleneck", channels);
        let joined = |index| index == 0 && skip == Skip::Deepest;
        let decoders = (0..LEVELS)
            .map(|index| block(path / "decoders" / index, if joined(index) { 2 * channels } else { channels }))
            .collect();
        Self { encoders, bottleneck, decoders, skip }
    }

    /// Maps (n, inputs, H, W) to (n, channels, H, W). `exchange` receives the output of block 0, 1, ... and returns the
    /// input of the next block.
    fn forward(&self, images: &Tensor, train: bool, mut exchange: impl FnMut(usize, Tensor) -> Tensor) -> Tensor {
        let mut x = images.shallow_clone();
        let mut poolings = Vec::with_capacity(LEVELS);
        for (index, encoder) in self.encoders.iter().enumerate() {
            let map = encoder.forward(&x, train); // (n, c, h, w)
            let (_, _, h, w) = map.size4().expect("(n, c, h, w)");
            let factors = [h.min(2), w.min(2)];
            let (pooled, places) = map.max_pool2d_with_indices(factors, factors, [0, 0], [1, 1], false);
            poolings.push((map, places));
            x = exchange(index, pooled); // (n, c, h/2, w/2)
        }
        x = exchange(LEVELS, self.bottleneck.forward(&x, train));
        for (index, decoder) in self.decoders.iter().enumerate() {
            let (map, places) = poolings.pop().expect("a pooling for each decoder");
            x = x.max_unpool2d(&places, &map.size()[2..]); // (n, c, 2h, 2w)
            if index == 0 && self.skip == Skip::Deepest {
                x = Tensor::cat(&[map, x], 1);
            }
            x = exchange(LEVELS + 1 + index, decoder.forward(&x, train));
        }
        x
    }
}

/// A 5x5 convolution, parametric ReLU and norm.
#[derive(Debug)]
struct Block {
    conv: Conv,
    slope: Tensor,
    norm: NormLayer,
}

impl Block {
    fn new(path: &Path, [inputs, outputs]: [i64; 2], norm: Norm, rng: &mut Rng) -> Self {
        let conv = Conv::new(&(path / "conv"), inputs, outputs, KERNEL_VOX, rng);
        let slope = (path / "prelu").var("weight", &[1], Init::Const(SLOPE));
        Self { conv, slope, norm: NormLayer::new(path, outputs, norm) }
    }

    /// (n, inputs, h, w) -> (n, outputs, h, w)
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.norm.forward(&self.conv.forward(x).prelu(&self.slope), train)
    }
}

/// A 2D convolution with bias and zero padding.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
}

impl Conv {
    fn new(path: &Path, inputs: i64, outputs: i64, width: i64, rng: &mut Rng) -> Self {
        let shape = [outputs, inputs, width, width];
        let bound = convolution_bound(&shape);
        let weight = uniform(path, "weight", &shape, bound, rng);
        let bias = uniform(path, "bias", &[outputs], bound, rng);
        Self { weight, bias }
    }

    /// (n, inputs, h, w) -> (n, outputs, h, w)
    fn forward(&self, x: &Tensor) -> Tensor {
        debug_assert_eq!(x.kind(), Kind::Float);
        x.conv2d(&self.weight, Some(&self.bias), 1, self.weight.size()[2] / 2, 1, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use tch::{Device, nn::VarStore};

    const NORMS: [Norm; 3] = [Norm::Batch, Norm::Group, Norm::Instance];

    fn build(channels: i64, norm: Norm) -> (VarStore, SeNet) {
        let vs = VarStore::new(Device::Cpu);
        let net = SeNet::new(&vs.root(), channels, norm, &mut rng::stream(0, "weights", 0));
        (vs, net)
    }

    /// Images and masks (n, 1, h, w) from `seed` on.
    fn slices(n: i64, size: [i64; 2], seed: f64) -> (Tensor, Tensor) {
        let count = n * size[0] * size[1];
        let images = (Tensor::arange(count, (Kind::Float, Device::Cpu)) + seed).sin().view([n, 1, size[0], size[1]]);
        let masks = images.gt(0.5).to_kind(Kind::Float);
        (images, masks)
    }

    /// The paper's sizes, counted by hand: a block has outputs (25 inputs + 1) weights and biases, a slope, and
    /// 2 outputs of its norm.
    #[test]
    fn the_papers_sizes_give_its_parameter_count() {
        let block = |inputs: usize, outputs: usize| outputs * (25 * inputs + 1) + 1 + 2 * outputs;
        let conditioner = block(2, 16) + 8 * block(16, 16) + 9 * 17;
        let segmenter = block(1, 64) + 7 * block(64, 64) + block(128, 64) + 2 * 65;
        let (vs, _net) = build(64, Norm::Batch);
        let count: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(count, conditioner + segmenter);
    }

    #[test]
    fn scores_have_the_size_of_the_slices_whatever_it_is() {
        let sizes = [[32, 32], [17, 23], [1, 5]];
        for (norm, size) in NORMS.into_iter().flat_map(|norm| sizes.map(|size| (norm, size))) {
            let (_vs, net) = build(4, norm);
            let ((support, masks), (query, _)) = (slices(2, size, 0.0), slices(2, size, 7.0));
            let scores = net.forward(&query, &net.excitation(&support, &masks, true), true);
            assert_eq!(scores.size(), [2, 2, size[0], size[1]]);
            assert!(scores.isfinite().all().int64_value(&[]) == 1, "{norm:?}, {size:?}");
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for norm in NORMS {
            let (vs, net) = build(8, norm);
            let ((support, masks), (query, _)) = (slices(3, [32, 48], 0.0), slices(3, [32, 48], 7.0));
            let scores = net.forward(&query, &net.excitation(&support, &masks, true), true);
            (&scores * slices(6, [32, 48], 3.0).0.view_as(&scores)).sum(Kind::Float).backward();
            for (name, variable) in vs.variables() {
                if variable.requires_grad() {
                    assert!(variable.grad().defined(), "{name} has no gradient with {norm:?} norm");
                    let largest = variable.grad().abs().max().double_value(&[]);
                    assert!(largest > 0.0, "{name} has a zero gradient with {norm:?} norm");
                }
            }
        }
    }

    #[test]
    fn each_slice_is_segmented_by_itself_as_its_own_support_says() {
        for norm in NORMS {
            let (_vs, net) = build(8, norm);
            let ((support, masks), (query, _)) = (slices(4, [32, 32], 0.0), slices(4, [32, 32], 7.0));
            let excitation = net.excitation(&support, &masks, false);
            let all = net.forward(&query, &excitation, false);
            let order = Tensor::from_slice(&[2i64, 0, 3]);
            let some = net.forward(&query.index_select(0, &order), &excitation.select(&order), false);
            let difference = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(difference(&some, &all.index_select(0, &order)) < 1e-5, "{norm:?}");
            let parts = [excitation.select(&order.narrow(0, 0, 1)), excitation.select(&order.narrow(0, 1, 2))];
            let again = net.forward(&query.index_select(0, &order), &Excitation::cat(&parts), false);
            assert!(difference(&some, &again) < 1e-5, "{norm:?}");
            let inverted = net.forward(&query, &net.excitation(&support, &(1.0 - masks), false), false);
            assert!(difference(&all, &inverted) > 1e-4, "the mask has to matter, {norm:?}");
        }
    }
}
