//! The networks of a system as one: volume -> features, supports -> prototypes, features + prototypes -> scores. The features of the
//! members of an ensemble are joined: the cosine of two joined features is the mean of the members' cosines.

mod memory;

pub use memory::MemoryEstimate;

use crate::baselines::SeNet;
use crate::error::{Error, Result};
use crate::features::{self, Architecture, UNet};
use crate::prototypes::{self, Competition, EncodedSupport, Prototypes, Window};
use crate::similarity::{self, Tape};
use crate::{rng, weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor, nn::VarStore};

/// What segments. Key `system`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// U-Nets whose features are compared with prototypes of the supports.
    Prototypes,
    /// Slices of the support steer a network that segments slices of the query (Roy et al. 2020).
    SeNet,
    /// The labels of the support, the middles of both volumes on each other, in millimetres. Nothing is trained.
    MaskCopy,
    /// The labels of the support, its body box stretched onto the query's. Nothing is trained.
    MaskAffine,
}

impl System {
    /// Whether the system has weights.
    pub fn is_trained(self) -> bool {
        matches!(self, Self::Prototypes | Self::SeNet)
    }
}

/// What decides the shape of the networks and how their features are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// U-Nets or an SE-Net.
    pub system: System,
    /// Section `[features]`.
    pub features: features::Config,
    /// Section `[prototypes]`.
    pub prototypes: prototypes::Config,
    /// Section `[similarity]`.
    pub similarity: similarity::Config,
}

impl Config {
    /// Whether a volume is segmented slice by slice.
    pub fn is_slice_wise(&self) -> bool {
        self.system == System::SeNet || self.features.architecture == Architecture::UNet2d
    }

    /// Across sections; each section checks itself.
    ///
    /// # Errors
    /// An SE-Net with more than one member.
    pub fn check(&self) -> Result<()> {
        let count = self.features.ensemble_size;
        if self.system == System::SeNet && count != 1 {
            let expected = "1 for an se-net, which has no features to join";
            return Err(Error::invalid("features.ensemble_size", expected, count.to_string(), "change this key"));
        }
        Ok(())
    }
}

/// The members of the ensemble with their variables.
///
/// ```
/// use ssl3d::{config, network::Network};
/// use tch::{Device, Kind, Tensor};
/// let overrides = ["features.f_maps=4", "features.output_channels=8", "features.ensemble_size=2"].map(str::to_owned);
/// let config = config::load(None, &overrides)?.network();
/// let network = Network::new(&config, Device::Cpu, 7);
/// let image = Tensor::ones([1, 1, 8, 32, 32], (Kind::Float, Device::Cpu));
/// let features = tch::no_grad(|| network.encode(&image));
/// assert_eq!(features.size()[..2], [1, 2 * 8]); // the channels of both members
/// assert_eq!(network.parameters(), Network::new(&config, Device::Cpu, 8).parameters());
/// assert!(features == tch::no_grad(|| Network::new(&config, Device::Cpu, 7).encode(&image))); // the seed draws the weights
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Network {
    /// All variables, trained and running statistics.
    pub variables: VarStore,
    /// The networks themselves.
    pub members: Members,
    /// What they were made from.
    pub config: Config,
}

/// The networks of a system.
#[derive(Debug)]
pub enum Members {
    /// One or more of the same kind.
    UNets(Vec<UNet>),
    /// The only one of its kind.
    SeNet(Box<SeNet>),
}

impl Network {
    /// Weights drawn from the stream "weights" of `seed`; the index of the stream is the member's.
    ///
    /// # Panics
    /// The system has no weights.
    pub fn new(config: &Config, device: Device, seed: u64) -> Self {
        assert!(config.system.is_trained(), "a system with weights");
        let mut variables = VarStore::new(Device::Cpu);
        let (root, rng) = (variables.root(), |member| rng::stream(seed, "weights", member as u64));
        let members = if config.system == System::SeNet {
            let features::Config { f_maps, norm, .. } = config.features;
            Members::SeNet(Box::new(SeNet::new(&root, f_maps, norm, &mut rng(0))))
        } else {
            let count = config.features.ensemble_size;
            let path = |member: usize| match count {
                1 => root.clone(), // the names of pytorch-3dunet
                _ => &root / format!("network_{member}"),
            };
            let unet = |member| UNet::new(&path(member), &config.features, &mut rng(member));
            Members::UNets((0..count).map(unet).collect())
        };
        variables.set_device(device);
        Self { variables, members, config: config.clone() }
    }

    /// Weights from a file of [`weights::write`] or of pytorch-3dunet.
    ///
    /// # Errors
    /// The file holds other tensors than the network's.
    pub fn load(&self, path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        weights::load(path, tensors, &weights::variables(&self.variables))
    }

    /// Where the variables are.
    pub fn device(&self) -> Device {
        self.variables.device()
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        self.variables.trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// The trainable variables of each member, by name.
    pub fn trainable(&self) -> Vec<BTreeMap<String, Tensor>> {
        let mut of_members: Vec<BTreeMap<String, Tensor>> = Vec::new();
        of_members.resize_with(self.config.features.ensemble_size, BTreeMap::new);
        for (name, variable) in weights::variables(&self.variables) {
            let prefix = name.split_once('.').and_then(|(first, _)| first.strip_prefix("network_"));
            let member: usize = prefix.map_or(0, |number| number.parse().expect("a number that we gave"));
            if variable.requires_grad() {
                of_members[member].insert(name, variable);
            }
        }
        of_members
    }

    /// Features without statistics of the batch: those of one U-Net as they are; of several each of unit length, one after the
    /// other. Images (n, 1, D, H, W) -> (n, members C, d, h, w).
    ///
    /// # Panics
    /// The network is an SE-Net, which has no feature map.
    pub fn encode(&self, images: &Tensor) -> Tensor {
        let Members::UNets(members) = &self.members else { panic!("an SE-Net has no feature map") };
        if let [member] = members.as_slice() {
            return member.forward(images, false);
        }
        let unit = |member: &UNet| {
            let features = member.forward(images, false);
            &features / features.norm_scalaropt_dim(2, 1, true).clamp_min(1e-8)
        };
        Tensor::cat(&members.iter().map(unit).collect::<Vec<_>>(), 1)
    }

    /// The prototypes of annotated volumes under this window.
    pub fn prototypes(&self, supports: &[EncodedSupport], window: Window, competition: Competition) -> Prototypes {
        prototypes::extract(supports, window, &self.config.prototypes, competition)
    }

    /// The prototypes under the window and the competition of the test.
    pub fn test_prototypes(&self, supports: &[EncodedSupport]) -> Prototypes {
        self.prototypes(supports, self.config.prototypes.test_window, self.config.similarity.competition)
    }

    /// Scores (1, 1 + K, D, H, W) of query features (1, C, d, h, w) at `size_vox`; `tape` for their gradients.
    pub fn scores(&self, features: &Tensor, prototypes: &Prototypes, size_vox: [i64; 3], tape: &mut Tape) -> Tensor {
        let scores = similarity::scores(features, prototypes, self.config.similarity.alpha, tape);
        similarity::interpolate(&scores, size_vox)
    }
}
