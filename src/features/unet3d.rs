//! The 3D U-Net of pytorch-3dunet (Wolny et al. 2020; Çiçek et al. 2016): paper, section 3.3.

use crate::error::{Error, Result};
use crate::features::blocks::{DoubleConv, Head, Norm};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::Path;

/// Section `[features]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels of the first level; each further level has twice as many.
    pub f_maps: i64,
    /// Levels of resolution, the input's included.
    pub levels: usize,
    /// Channels of the feature map.
    pub output_channels: i64,
    pub norm: Norm,
    /// Max-pooling factors z y x in front of levels 2, 3, ...: one fewer than `levels`.
    pub pooling: Vec<[i64; 3]>,
    /// The level whose resolution the feature map has: 0 is the input's, 1 that after the first pooling, ...
    pub output_level: usize,
}

impl Config {
    pub fn check(&self) -> Result<()> {
        let key = |name: &str| format!("features.{name}");
        let refuse = |name: &str, expected: &str, found: String| {
            Err(Error::invalid(key(name), expected, found, "change this key"))
        };
        if !(1..=1024).contains(&self.f_maps) {
            return refuse("f_maps", "1 to 1024 channels", self.f_maps.to_string());
        }
        if !(1..=8).contains(&self.levels) {
            return refuse("levels", "1 to 8 levels", self.levels.to_string());
        }
        if !(1..=1024).contains(&self.output_channels) {
            return refuse("output_channels", "1 to 1024 channels", self.output_channels.to_string());
        }
        if self.pooling.len() + 1 != self.levels {
            let expected = format!("{} triples for {} levels", self.levels - 1, self.levels);
            return refuse("pooling", &expected, self.pooling.len().to_string());
        }
        if self.pooling.iter().flatten().any(|factor| !(1..=4).contains(factor)) {
            return refuse("pooling", "factors from 1 to 4", format!("{:?}", self.pooling));
        }
        if self.output_level >= self.levels {
            return refuse("output_level", "a level below features.levels", self.output_level.to_string());
        }
        Ok(())
    }

    /// Channels of level 0, 1, ...
    pub fn channels(&self) -> Vec<i64> {
        (0..self.levels).map(|level| self.f_maps << level).collect()
    }

    /// Resolution of each level for an input of this many voxels.
    pub fn level_shapes(&self, input_vox: [i64; 3]) -> Vec<[i64; 3]> {
        let mut shapes = vec![input_vox];
        for factors in &self.pooling {
            let last = shapes[shapes.len() - 1];
            shapes.push([0, 1, 2].map(|axis| (last[axis] / factors[axis].min(last[axis])).max(1)));
        }
        shapes
    }
}

/// Encoder, decoder with skips by concatenation, 1x1x1 head.
#[derive(Debug)]
pub struct UNet3d {
    encoders: Vec<DoubleConv>,
    decoders: Vec<DoubleConv>,
    head: Head,
    pooling: Vec<[i64; 3]>,
}

impl UNet3d {
    pub fn new(path: &Path, config: &Config, rng: &mut Rng) -> Self {
        let channels = config.channels();
        let encoders = (0..config.levels)
            .map(|level| {
                let inputs = if level == 0 { 1 } else { channels[level - 1] };
                DoubleConv::encoder(path / "encoders" / level, inputs, channels[level], config.norm, rng)
            })
            .collect();
        let decoders = (config.output_level..config.levels - 1)
            .rev()
            .enumerate()
            .map(|(index, level)| {
                let inputs = channels[level] + channels[level + 1];
                DoubleConv::decoder(path / "decoders" / index, inputs, channels[level], config.norm, rng)
            })
            .collect();
        let head = Head::new(path / "final_conv", channels[config.output_level], config.output_channels, rng);
        Self { encoders, decoders, head, pooling: config.pooling.clone() }
    }

    /// Images (n, 1, D, H, W) of any size -> features (n, output_channels, D', H', W') at the output level's
    /// resolution; `train` lets batch norm use and update the statistics of this batch.
    pub fn forward(&self, images: &Tensor, train: bool) -> Tensor {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use tch::{Device, Kind, nn::VarStore};

    fn paper() -> Config {
        let pooling = vec![[2, 2, 2]; 3];
        Config { f_maps: 32, levels: 4, output_channels: 32, norm: Norm::Batch, pooling, output_level: 0 }
    }

    fn build(config: &Config) -> (VarStore, UNet3d) {
        let vs = VarStore::new(Device::Cpu);
        let net = UNet3d::new(&vs.root(), config, &mut rng::stream(0, "weights", 0));
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
    }

    #[test]
    fn a_single_slice_passes_through() {
        let (_vs, net) = build(&Config { f_maps: 4, ..paper() });
        let y = net.forward(&Tensor::randn([1, 1, 1, 16, 16], (Kind::Float, Device::Cpu)), true);
        assert_eq!(y.size(), [1, 32, 1, 16, 16]);
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        for norm in [Norm::Batch, Norm::Group, Norm::Instance] {
            let (vs, net) = build(&Config { f_maps: 4, norm, ..paper() });
            let y = net.forward(&Tensor::randn([2, 1, 8, 16, 16], (Kind::Float, Device::Cpu)), true);
            (&y * Tensor::randn_like(&y)).sum(Kind::Float).backward();
            for (name, variable) in vs.variables() {
                if variable.requires_grad() {
                    assert!(variable.grad().defined(), "{name} has no gradient under {norm:?}");
                    assert!(variable.grad().abs().max().double_value(&[]) > 0.0, "{name} has a zero gradient");
                }
            }
        }
    }
}
