//! Features, prototypes and prediction as one: a support and its classes in, scores of a query out.

use crate::error::Result;
use crate::features::{self, UNet3d};
use crate::prediction::{self, Tape};
use crate::prototypes::{self, Classes, Prototypes, Support, Window};
use crate::{rng, weights};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor, nn::VarStore, no_grad};

/// What decides the network's shape and how it compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub features: features::Config,
    pub prototypes: prototypes::Config,
    pub prediction: prediction::Config,
}

/// The network with its variables and the rules of comparison.
#[derive(Debug)]
pub struct Model {
    pub variables: VarStore,
    network: UNet3d,
    pub config: Config,
}

impl Model {
    /// Weights drawn from the stream "weights" of `seed`.
    pub fn new(config: &Config, device: Device, seed: u64) -> Self {
        let mut variables = VarStore::new(Device::Cpu);
        let network = UNet3d::new(&variables.root(), &config.features, &mut rng::stream(seed, "weights", 0));
        variables.set_device(device);
        Self { variables, network, config: config.clone() }
    }

    /// Weights from a file of [`weights::write`] or of pytorch-3dunet; other tensors than the network's are refused.
    pub fn load(&self, path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        weights::load(path, tensors, &weights::variables(&self.variables))
    }

    pub fn device(&self) -> Device {
        self.variables.device()
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        self.variables.trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// (n, 1, D, H, W) -> (n, C, d, h, w); `train`: batch norm uses and updates the batch's statistics.
    pub fn features(&self, images: &Tensor, train: bool) -> Tensor {
        self.network.forward(images, train)
    }

    /// The prototypes of annotated volumes under this window.
    pub fn prototypes(&self, supports: &[Support], window: Window, classes: Classes) -> Prototypes {
        prototypes::extract(supports, window, &self.config.prototypes, classes)
    }

    /// Scores (1, 1 + K, D, H, W) of query features (1, C, d, h, w) at `size_vox`; `tape` for their gradients.
    pub fn scores(&self, features: &Tensor, prototypes: &Prototypes, size_vox: [i64; 3], tape: &mut Tape) -> Tensor {
        let scores = prediction::scores(features, prototypes, self.config.prediction.alpha, tape);
        prediction::interpolate(&scores, size_vox)
    }

    /// At test: the support features and masks of one annotated volume (1, 1, D, H, W) with `classes` (D, H, W).
    pub fn support(&self, image: &Tensor, classes: &Tensor, count: i64) -> Support {
        no_grad(|| {
            let features = self.features(&image.to_device(self.device()), false);
            Support::new(features, &classes.to_device(self.device()), count)
        })
    }

    /// The same where only a fraction `known` (1, 1, D, H, W) of each voxel is annotated.
    pub fn sparse_support(&self, image: &Tensor, classes: &Tensor, count: i64, known: &Tensor) -> Support {
        no_grad(|| {
            let features = self.features(&image.to_device(self.device()), false);
            let [classes, known] = [classes, known].map(|map| map.to_device(self.device()));
            Support::sparse(features, &classes, count, &known)
        })
    }

    /// At test: scores (1, 1 + K, D, H, W) of a query volume (1, 1, D, H, W) at its own size.
    pub fn predict(&self, query: &Tensor, prototypes: &Prototypes) -> Tensor {
        no_grad(|| {
            let size = query.size();
            let features = self.features(&query.to_device(self.device()), false);
            self.scores(&features, prototypes, [size[2], size[3], size[4]], &mut Tape::default())
        })
    }

    /// At test: the prototypes of annotated volumes, under the test window and the test competition.
    pub fn test_prototypes(&self, supports: &[Support]) -> Prototypes {
        no_grad(|| {
            let classes = self.config.prediction.test_classes;
            self.prototypes(supports, self.config.prototypes.test_window, classes)
        })
    }
}

/// Memory that a configuration needs, from the sizes of what libtorch keeps; within a quarter of the measured peak on
/// the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryEstimate {
    pub parameters: u64,
    pub training_bytes: u64,
    pub segmenting_bytes: u64,
}

/// libtorch itself, loaded and warmed up, with the program around it.
const PROCESS_BYTES: u64 = 400 << 20;
const FLOAT_BYTES: u64 = 4;

impl MemoryEstimate {
    /// For volumes of `size_vox`, training on so many regions and segmenting so many classes at a time.
    pub fn of(config: &Config, size_vox: [usize; 3], regions: usize, classes: usize) -> Self {
        let features = &config.features;
        let voxels = |shape: [i64; 3]| shape.iter().product::<i64>() as u64;
        let shapes = features.level_shapes(size_vox.map(|n| n as i64));
        let channels = features.channels();
        let parameters = Model::new(config, Device::Cpu, 0).parameters() as u64;

        // Per volume: what the backward pass wants of each convolution (its own output and the norm's, which the leaky
        // ReLU overwrites) and of each pooling, and the largest map.
        let (mut kept, mut largest) = (0, 0);
        let mut double = |pooled: i64, middle: i64, outputs: i64, voxels: u64| {
            kept += voxels * (pooled + 2 * middle + 2 * outputs) as u64;
            largest = largest.max(voxels * outputs as u64);
        };
        for level in 0..features.levels {
            let inputs = if level == 0 { 1 } else { channels[level - 1] };
            double(inputs, (channels[level] / 2).max(inputs), channels[level], voxels(shapes[level]));
        }
        for level in features.output_level..features.levels - 1 {
            double(0, channels[level], channels[level], voxels(shapes[level]));
        }
        // Prediction: the features and their gradient; scores of every class at the input's resolution.
        let feature_vox = voxels(shapes[features.output_level]);
        let features = feature_vox * features.output_channels as u64;
        let scores = |classes: usize| voxels(shapes[0]) * (classes as u64 + 1) * 8;
        // Two volumes; gradients of the largest map, and copies of it in the convolution's own layout.
        let training = 2 * (kept + 2 * largest + 2 * features + scores(regions)) + 4 * parameters;
        let segmenting = 2 * largest + features + scores(classes) + parameters;
        Self {
            parameters,
            training_bytes: PROCESS_BYTES + FLOAT_BYTES * training,
            segmenting_bytes: PROCESS_BYTES + FLOAT_BYTES * segmenting,
        }
    }
}
