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
use tch::{Device, Kind, Tensor, nn::VarStore, no_grad};

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

/// A volume in which somebody has drawn.
#[derive(Debug)]
pub struct Shot {
    /// (1, 1, D, H, W)
    pub image: Tensor,
    /// Class indices (D, H, W); 0 is background.
    pub classes: Tensor,
    /// The fraction of each voxel that is annotated, (1, 1, D, H, W); all of it where it is None.
    pub known: Option<Tensor>,
}

impl Shot {
    /// Annotated throughout.
    pub fn new(image: Tensor, classes: Tensor) -> Self {
        Self { image, classes, known: None }
    }
}

impl Reference {
    /// For each class whether any support shows it. One that none shows is never predicted.
    pub fn shown(&self) -> Vec<bool> {
        match self {
            Self::Prototypes(prototypes) => prototypes.foreground.iter().map(|rows| rows.size()[0] > 0).collect(),
            Self::Slices(slices) => slices.shown(),
        }
    }

    /// Whether any support shows what is none of the classes.
    pub fn shows_background(&self) -> bool {
        match self {
            Self::Prototypes(prototypes) => prototypes.background.iter().all(|rows| rows.size()[0] > 0),
            Self::Slices(_) => true, // the slices that show a class show what surrounds it
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

    /// At test: annotated volumes with classes 1 ..= `count` -> what [`Model::predict`] compares with, under the test
    /// window and the test competition.
    pub fn reference(&self, supports: &[Shot], count: i64) -> Reference {
        let device = self.device();
        let support = |network: &UNet, shot: &Shot| {
            let features = network.forward(&shot.image.to_device(device), false);
            let classes = shot.classes.to_device(device);
            match &shot.known {
                None => Support::new(features, &classes, count),
                Some(known) => Support::sparse(features, &classes, count, &known.to_device(device)),
            }
        };
        // What is not annotated shows no class; slices without one are not asked.
        let slices = |shot: &Shot| {
            let known = shot.known.as_ref().map(|known| known.gt(0.0).to_kind(Kind::Int64).squeeze());
            let classes = known.map_or_else(|| shot.classes.shallow_clone(), |known| &shot.classes * known);
            (shot.image.to_device(device), classes.to_device(device))
        };
        no_grad(|| match &self.network {
            Network::UNet(network) => {
                let supports: Vec<Support> = supports.iter().map(|shot| support(network, shot)).collect();
                Reference::Prototypes(self.test_prototypes(&supports))
            }
            Network::SeNet(network) => {
                let supports: Vec<(Tensor, Tensor)> = supports.iter().map(slices).collect();
                Reference::Slices(Slices::new(network, &supports, count))
            }
        })
    }

    /// At test: scores (1, 1 + K, D, H, W) of a query volume (1, 1, D, H, W) at its own size. An SE-Net's are the logits of
    /// each class against the rest, beside 0 for the background.
    pub fn predict(&self, query: &Tensor, reference: &Reference) -> Tensor {
        let query = query.to_device(self.device());
        no_grad(|| match (&self.network, reference) {
            (Network::UNet(network), Reference::Prototypes(prototypes)) => {
                let size = query.size();
                let scores = self.refined(&network.forward(&query, false), prototypes);
                prediction::interpolate(&scores, [size[2], size[3], size[4]])
            }
            (Network::SeNet(network), Reference::Slices(slices)) => slices.scores(network, &query),
            _ => unreachable!("a reference that this network made"),
        })
    }

    /// Scores (1, 1 + K, d, h, w) of query features (1, C, d, h, w). In each round of refinement the voxels of the query
    /// that are beyond doubt join the supports, as a volume that is annotated there and nowhere else.
    fn refined(&self, features: &Tensor, prototypes: &Prototypes) -> Tensor {
        let prediction::Config { alpha, test_classes, rounds, confidence, .. } = self.config.prediction;
        let scores = |prototypes: &Prototypes| prediction::scores(features, prototypes, alpha, &mut Tape::default());
        let mut found = scores(prototypes);
        for _ in 0..rounds {
            let count = found.size()[1] - 1;
            let (classes, known) = prediction::confident(&found, test_classes, confidence);
            let own = Support::sparse(features.shallow_clone(), &classes, count, &known);
            found = scores(&prototypes.beside(&self.test_prototypes(&[own])));
        }
        found
    }

    fn test_prototypes(&self, supports: &[Support]) -> Prototypes {
        self.prototypes(supports, self.config.prototypes.test_window, self.config.prediction.test_classes)
    }
}
