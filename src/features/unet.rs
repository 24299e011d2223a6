//! The U-Net of pytorch-3dunet (Wolny et al. 2020; Çiçek et al. 2016) in 3D and slice by slice: paper, section 3.3.

use crate::features::blocks::{DoubleConv, Head, Span};
use crate::features::{Architecture, Config};
use crate::rng::Rng;
use tch::Tensor;
use tch::nn::Path;

/// A U-Net: encoder, decoder with skip connections by concatenation, and a head of 1 x 1 x 1 convolutions.
#[derive(Debug)]
pub struct UNet {
    span: Span,
    encoders: Vec<DoubleConv>,
    decoders: Vec<DoubleConv>,
    head: Head,
    pooling: Vec<[i64; 3]>,
}

impl UNet {
    /// A network whose variables are stored under `path`, with initial weights from `rng`.
    pub fn new(path: &Path, config: &Config, rng: &mut Rng) -> Self {
        let channels = config.channels();
        let span = match config.architecture {
            Architecture::UNet3d => Span::Volume,
            Architecture::UNet2d => Span::Slice,
        };
        let encoders = (0..config.levels)
            .map(|level| {
                let inputs = if level == 0 { 1 } else { channels[level - 1] };
                DoubleConv::encoder(path / "encoders" / level, inputs, channels[level], span, config.norm, rng)
            })
            .collect();
        let decoders = (config.output_level..config.levels - 1)
            .rev()
            .enumerate()
            .map(|(index, level)| {
                let inputs = channels[level] + channels[level + 1];
                DoubleConv::decoder(path / "decoders" / index, inputs, channels[level], span, config.norm, rng)
            })
            .collect();
        let head = Head::new(path / "final_conv", channels[config.output_level], config.output_channels, span, rng);
        Self { span, encoders, decoders, head, pooling: config.pooling.clone() }
    }

    /// Computes features (n, output_channels, D', H', W') at the output level's resolution from images (n, 1, D, H, W)
    /// of any size. With `train`, batch norm uses and updates the statistics of this batch.
    ///
    /// ```
    /// use ssl3d::features::{Architecture, Config, UNet, blocks::Norm};
    /// let config = Config {
    ///     architecture: Architecture::UNet3d, ensemble_size: 1, f_maps: 2, norm: Norm::Instance, levels: 2,
    ///     output_channels: 3, pooling: vec![[1, 2, 2]], output_level: 0,
    /// };
    /// let store = tch::nn::VarStore::new(tch::Device::Cpu);
    /// let network = UNet::new(&store.root(), &config, &mut ssl3d::rng::stream(1, "weights", 0));
    /// let images = tch::Tensor::zeros([1, 1, 2, 8, 8], (tch::Kind::Float, tch::Device::Cpu));
    /// assert_eq!(network.forward(&images, false).size(), [1, 3, 2, 8, 8]);
    /// ```
    pub fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        match self.span {
            Span::Volume => self.map(images, train),
            // Slices are a batch of volumes that are one slice thick, so that norms treat each by itself too.
            Span::Slice => stacked(&self.map(&slices(images), train), images.size()[0]),
        }
    }

    fn map(&self, images: &Tensor, train: bool) -> Tensor {
        let mut skips = Vec::with_capacity(self.encoders.len());
        let mut x = images.shallow_clone();
        for (level, encoder) in self.encoders.iter().enumerate() {
            if level > 0 {
                let size = x.size();
                // An axis that is thinner than the factor keeps its size.
                let factors = [0, 1, 2].map(|axis| self.pooling[level - 1][axis].min(size[axis + 2]));
                if factors != [1, 1, 1] {
                    x = x.max_pool3d(factors, factors, [0, 0, 0], [1, 1, 1], false); // (n, c, d/f, h/f, w/f)
                }
            }
            x = encoder.forward(&x, train);
            skips.push(x.shallow_clone());
        }
        skips.pop();
        for decoder in &self.decoders {
            let skip = skips.pop().expect("one skip for each decoder");
            x = decoder.forward_joined(&skip, &x, train); // (n, c, d, h, w), (n, 2c, ...) -> (n, c, d, h, w)
        }
        self.head.forward(&x)
    }
}

/// (n, c, D, H, W) -> (n D, c, 1, H, W)
fn slices(volumes: &Tensor) -> Tensor {
    volumes.transpose(1, 2).flatten(0, 1).unsqueeze(2)
}

/// (n D, c, 1, H, W) -> (n, c, D, H, W), without a copy.
fn stacked(slices: &Tensor, volumes: i64) -> Tensor {
    slices.squeeze_dim(2).unflatten(0, [volumes, -1]).transpose(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::blocks::Norm;
    use crate::rng;
    use tch::{Device, Kind, nn::VarStore};

    fn paper() -> Config {
        let pooling = vec![[2, 2, 2]; 3];
        let (architecture, norm) = (Architecture::UNet3d, Norm::Batch);
        Config {
            architecture,
            ensemble_size: 1,
            f_maps: 32,
            levels: 4,
            output_channels: 32,
            norm,
            pooling,
            output_level: 0,
        }
    }

    /// Four channels, three levels, slice by slice.
    fn flat(norm: Norm) -> Config {
        let pooling = vec![[1, 2, 2]; 2];
        Config {
            architecture: Architecture::UNet2d,
            ensemble_size: 1,
            f_maps: 4,
            levels: 3,
            output_channels: 6,
            norm,
            pooling,
            output_level: 0,
        }
    }

    fn build(config: &Config) -> (VarStore, UNet) {
        let vs = VarStore::new(Device::Cpu);
        let net = UNet::new(&vs.root(), config, &mut rng::stream(0, "weights", 0));
        (vs, net)
    }

    #[test]
    fn the_papers_values_give_the_papers_parameter_count() {
        let (vs, _net) = build(&paper());
        let count: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(count, 4_081_904);
    }

    #[test]
    fn odd_sizes_come_out_at_the_resolution_of_the_output_level() {
        for (output_level, norm, expected) in
            [(0, Norm::Batch, [5, 11, 13]), (1, Norm::Instance, [5, 5, 6]), (2, Norm::Group, [2, 2, 3])]
        {
            let pooling = vec![[1, 2, 2], [2, 2, 2], [2, 2, 2]];
            let config = Config { f_maps: 4, output_channels: 6, norm, pooling, output_level, ..paper() };
            let (_vs, net) = build(&config);
            let y = net.forward(&Tensor::randn([2, 1, 5, 11, 13], (Kind::Float, Device::Cpu)), true);
            assert_eq!(y.size(), [2, 6, expected[0], expected[1], expected[2]]);
            assert_eq!(config.level_shapes([5, 11, 13])[output_level], expected);
        }
        for (output_level, expected) in [(0, [5, 11, 13]), (1, [5, 5, 6])] {
            let config = Config { output_level, ..flat(Norm::Instance) };
            let (_vs, net) = build(&config);
            let y = net.forward(&Tensor::randn([2, 1, 5, 11, 13], (Kind::Float, Device::Cpu)), true);
            assert_eq!(y.size(), [2, 6, expected[0], expected[1], expected[2]]);
            assert_eq!(config.level_shapes([5, 11, 13])[output_level], expected);
        }
    }

    #[test]
    fn a_single_slice_passes_through() {
        let (_vs, net) = build(&Config { f_maps: 4, ..paper() });
        let y = net.forward(&Tensor::randn([1, 1, 1, 16, 16], (Kind::Float, Device::Cpu)), true);
        assert_eq!(y.size(), [1, 32, 1, 16, 16]);
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let volume = |norm| Config { f_maps: 4, norm, ..paper() };
        let norms = [Norm::Batch, Norm::Group, Norm::Instance];
        for config in norms.into_iter().flat_map(|norm| [volume(norm), flat(norm)]) {
            let (vs, net) = build(&config);
            let y = net.forward(&Tensor::randn([2, 1, 8, 16, 16], (Kind::Float, Device::Cpu)), true);
            (&y * Tensor::randn_like(&y)).sum(Kind::Float).backward();
            for (name, variable) in vs.variables() {
                if variable.requires_grad() {
                    assert!(variable.grad().defined(), "{name} has no gradient under {config:?}");
                    assert!(variable.grad().abs().max().double_value(&[]) > 0.0, "{name} has a zero gradient");
                }
            }
        }
    }
    #[test]
    fn slices_are_independent_in_2d() {
        // In our own order: libtorch's generator is shared by all tests that run at the same time.
        let images = Tensor::arange(2 * 5 * 11 * 13, (Kind::Float, Device::Cpu)).sin().view([2, 1, 5, 11, 13]);
        let order = Tensor::from_slice(&[3i64, 0, 4, 1, 2]);
        // Batch norm with the statistics of training looks at all slices together, as it should.
        for (norm, train) in [(Norm::Batch, false), (Norm::Group, true), (Norm::Instance, true)] {
            let (_vs, net) = build(&flat(norm));
            let whole = net.forward(&images, train);
            let difference = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            let permuted = net.forward(&images.index_select(2, &order), train);
            assert!(difference(&permuted, &whole.index_select(2, &order)) < 1e-5, "{norm:?}");
            let one = net.forward(&images.narrow(0, 1, 1).narrow(2, 2, 1), train);
            assert!(difference(&one, &whole.narrow(0, 1, 1).narrow(2, 2, 1)) < 1e-5, "{norm:?}");
        }
    }

    #[test]
    fn in_2d_it_is_the_3d_network_whose_kernels_are_empty_above_and_below() {
        for output_level in [0, 1] {
            let flat = Config { output_level, ..flat(Norm::Batch) };
            let ((of_slices, two), (of_volumes, three)) =
                (build(&flat), build(&Config { architecture: Architecture::UNet3d, ..flat }));
            let mut embedded = of_volumes.variables();
            for (name, weight) in of_slices.variables() {
                let target = embedded.get_mut(&name).expect("the same names");
                let same = target.dim() == weight.dim();
                let value = if same { weight } else { weight.unsqueeze(2) };
                let margin = if same { 0 } else { target.size()[2] / 2 };
                let value = if margin > 0 { value.constant_pad_nd([0, 0, 0, 0, margin, margin]) } else { value };
                tch::no_grad(|| target.copy_(&value));
            }
            // Sizes that are multiples of the pooling, and such that are not.
            for size in [[2, 1, 3, 8, 12], [1, 1, 4, 9, 11]] {
                let images = Tensor::arange(size.iter().product::<i64>(), (Kind::Float, Device::Cpu)).sin().view(size);
                let difference = (two.forward(&images, false) - three.forward(&images, false)).abs().max();
                assert!(difference.double_value(&[]) < 1e-5, "{difference:?}");
            }
        }
    }
}
