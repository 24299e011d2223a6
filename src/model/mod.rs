//! Features, prototypes and prediction as one: a support and its classes in, scores of a query out.

mod memory;
pub mod slices;

pub use memory::MemoryEstimate;

use crate::error::Result;
use crate::features::{self, SeNet, UNet};
use crate::prediction::{self, Tape};
use crate::prototypes::{self, Classes, Prototypes, Support, Window};
use crate::{rng, weights};
use slices::Slices;
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
    pub network: Network,
    pub config: Config,
}

/// What compares a query with its supports: prototypes of features, or a network made for it.
#[derive(Debug)]
pub enum Network {
    UNet(UNet),
    SeNet(SeNet),
}

/// What annotated volumes tell of their classes: made once, for any number of queries.
#[derive(Debug)]
pub enum Reference {
    Prototypes(Prototypes),
    Slices(Slices),
}

impl Reference {
    /// For each class whether any support shows it. One that none shows is never predicted.
    pub fn shown(&self) -> Vec<bool> {
        match self {
            Self::Prototypes(prototypes) => prototypes.foreground.iter().map(|rows| rows.size()[0] > 0).collect(),
            Self::Slices(slices) => slices.shown(),
        }
    }
}

impl Model {
    /// Weights drawn from the stream "weights" of `seed`.
    pub fn new(config: &Config, device: Device, seed: u64) -> Self {
        let mut variables = VarStore::new(Device::Cpu);
        let (root, mut rng) = (variables.root(), rng::stream(seed, "weights", 0));
        let network = match config.features.network {
            features::Network::UNet3d | features::Network::UNet2d => {
                Network::UNet(UNet::new(&root, &config.features, &mut rng))
            }
            features::Network::SeNet => Network::SeNet(SeNet::new(&root, config.features.f_maps, &mut rng)),
        };
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

    /// (n, 1, D, H, W) -> (n, C, d, h, w) by a U-Net; `train`: batch norm uses and updates the batch's statistics.
    pub fn features(&self, images: &Tensor, train: bool) -> Tensor {
        match &self.network {
            Network::UNet(network) => network.forward(images, train),
            Network::SeNet(_) => unreachable!("an SE-Net has no feature map"),
        }
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

    /// At test: annotated volumes, each an image (1, 1, D, H, W) and class indices 0 ..= `count` (D, H, W) -> what
    /// [`Model::predict`] compares with, under the test window and the test competition.
    pub fn reference(&self, supports: &[(Tensor, Tensor)], count: i64) -> Reference {
        let device = self.device();
        let supports = supports.iter().map(|(image, classes)| (image.to_device(device), classes.to_device(device)));
        no_grad(|| match &self.network {
            Network::UNet(network) => {
                let support =
                    |(image, classes): (Tensor, Tensor)| Support::new(network.forward(&image, false), &classes, count);
                let supports: Vec<Support> = supports.map(support).collect();
                let (window, classes) = (self.config.prototypes.test_window, self.config.prediction.test_classes);
                Reference::Prototypes(self.prototypes(&supports, window, classes))
            }
            Network::SeNet(network) => Reference::Slices(Slices::new(network, &supports.collect::<Vec<_>>(), count)),
        })
    }

    /// At test: scores (1, 1 + K, D, H, W) of a query volume (1, 1, D, H, W) at its own size. An SE-Net's are the logits of
    /// each class against the rest, beside 0 for the background.
    pub fn predict(&self, query: &Tensor, reference: &Reference) -> Tensor {
        let query = query.to_device(self.device());
        no_grad(|| match (&self.network, reference) {
            (Network::UNet(network), Reference::Prototypes(prototypes)) => {
                let size = query.size();
                let features = network.forward(&query, false);
                self.scores(&features, prototypes, [size[2], size[3], size[4]], &mut Tape::default())
            }
            (Network::SeNet(network), Reference::Slices(slices)) => slices.scores(network, &query),
            _ => unreachable!("a reference that this network made"),
        })
    }
}
