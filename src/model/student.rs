//! A network that is taught the classes of one task, by [`crate::training::student`].

use super::{Model, Network};
use crate::features::UNet;
use crate::features::blocks::{Head, Span};
use crate::rng::Rng;
use crate::{prediction, weights};
use std::collections::BTreeMap;
use tch::nn::VarStore;
use tch::{Device, Tensor, no_grad};

/// A copy of the first of a model's networks, with a head that scores classes in place of prototypes.
#[derive(Debug)]
pub struct Student {
    variables: VarStore,
    network: UNet,
    head: Head,
}

impl Student {
    /// For background and `count` classes, with the model's weights and a head drawn from `rng`; None of an SE-Net, which has
    /// no features to score.
    pub fn of(model: &Model, count: i64, rng: &mut Rng) -> Option<Self> {
        let Network::UNets(_) = model.network else { return None };
        let (mut variables, config) = (VarStore::new(Device::Cpu), &model.config.features);
        let (of_network, of_head) = (variables.root() / "network", variables.root() / "head");
        let network = UNet::new(&of_network, config, rng);
        let head = Head::new(of_head, config.output_channels, count + 1, Span::Volume, rng);
        let first = if config.networks == 1 { "" } else { "network_0." };
        let theirs = weights::variables(&model.variables);
        for (name, mut variable) in weights::variables(&variables) {
            if let Some(name) = name.strip_prefix("network.") {
                no_grad(|| variable.copy_(&theirs[&format!("{first}{name}")]));
            }
        }
        variables.set_device(model.device());
        Some(Self { variables, network, head })
    }

    /// Scores (1, 1 + K, D, H, W) of an image (1, 1, D, H, W) on the student's device; `train` as in [`UNet::forward`].
    pub fn forward(&self, image: &Tensor, train: bool) -> Tensor {
        let size = image.size();
        let scores = self.head.forward(&self.network.forward(image, train));
        prediction::interpolate(&scores, [size[2], size[3], size[4]])
    }

    /// The same at test, of an image on any device.
    pub fn scores(&self, image: &Tensor) -> Tensor {
        no_grad(|| self.forward(&image.to_device(self.variables.device()), false).log_softmax(1, image.kind()))
    }

    /// What learns, by name.
    pub fn trainable(&self) -> BTreeMap<String, Tensor> {
        weights::variables(&self.variables).into_iter().filter(|(_, variable)| variable.requires_grad()).collect()
    }
}
