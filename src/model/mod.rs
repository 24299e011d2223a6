//! Features, prototypes and prediction as one: a support and its classes in, scores of a query out. Several networks are
//! asked as one by joining their features: the cosine of two joined features is the mean of the networks' cosines.

mod lost;
mod memory;
mod pieces;
mod place;
mod regions;
pub mod slices;
mod told;
mod vote;

pub use memory::MemoryEstimate;
pub use told::Told;
pub use vote::Voters;

use crate::error::Result;
use crate::features::{self, SeNet, UNet};
use crate::prediction::{self, Tape};
use crate::prototypes::{self, Classes, Prototypes, Support, Window};
use crate::{rng, weights};
use slices::Slices;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor, nn::VarStore, no_grad};
use vote::Seen;

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
    /// Each scan without labels that votes at test: see [`Model::reference`].
    templates: Vec<Seen>,
}

/// What compares a query with its supports: prototypes of features, or a network made for it.
#[derive(Debug)]
pub enum Network {
    /// One or more of the same kind.
    UNets(Vec<UNet>),
    SeNet(Box<SeNet>),
}

/// What annotated volumes tell of their classes: made once, for any number of queries.
#[derive(Debug)]
pub enum Reference {
    Voters(Voters),
    Slices(Slices),
}

/// Templates that a network sees at once: convolutions of a single volume take a slower way in libtorch.
const TEMPLATES_AT_ONCE: usize = 2;

/// A volume of which less is annotated says nothing of sizes.
const WHOLE: f64 = 0.9;

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
    /// The same tensors under other names.
    pub fn shallow_clone(&self) -> Self {
        let known = self.known.as_ref().map(Tensor::shallow_clone);
        Self { image: self.image.shallow_clone(), classes: self.classes.shallow_clone(), known }
    }

    /// Whether what is annotated tells how much of a volume each class takes. A few slices that somebody drew do not: they are those
    /// that show the classes.
    fn is_whole(&self) -> bool {
        let share = |known: &Tensor| known.mean(Kind::Double).double_value(&[]);
        self.known.as_ref().is_none_or(|known| share(known) >= WHOLE)
    }

    /// Annotated throughout.
    pub fn new(image: Tensor, classes: Tensor) -> Self {
        Self { image, classes, known: None }
    }
}

impl Reference {
    /// For each class whether any support shows it. One that none shows is never predicted.
    pub fn shown(&self) -> Vec<bool> {
        match self {
            Self::Voters(voters) => voters.support.foreground.iter().map(|rows| rows.size()[0] > 0).collect(),
            Self::Slices(slices) => slices.shown(),
        }
    }

    /// Whether any support shows what is none of the classes.
    pub fn shows_background(&self) -> bool {
        match self {
            Self::Voters(voters) => voters.support.background.iter().all(|rows| rows.size()[0] > 0),
            Self::Slices(_) => true, // the slices that show a class show what surrounds it
        }
    }
}

impl Model {
    /// Weights drawn from the stream "weights" of `seed`, the network's number its index.
    pub fn new(config: &Config, device: Device, seed: u64) -> Self {
        let mut variables = VarStore::new(Device::Cpu);
        let (root, rng) = (variables.root(), |network| rng::stream(seed, "weights", network as u64));
        let network = match config.features.network {
            features::Network::UNet3d | features::Network::UNet2d => {
                let count = config.features.networks;
                let path = |network: usize| match count {
                    1 => root.clone(), // the names of pytorch-3dunet
                    _ => &root / format!("network_{network}"),
                };
                let unet = |network| UNet::new(&path(network), &config.features, &mut rng(network));
                Network::UNets((0..count).map(unet).collect())
            }
            features::Network::SeNet => {
                let features::Config { f_maps, norm, .. } = config.features;
                Network::SeNet(Box::new(SeNet::new(&root, f_maps, norm, &mut rng(0))))
            }
        };
        variables.set_device(device);
        Self { variables, network, config: config.clone(), templates: vec![] }
    }

    /// Weights from a file of [`weights::write`] or of pytorch-3dunet; other tensors than the network's are refused.
    pub fn load(&self, path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        weights::load(path, tensors, &weights::variables(&self.variables))
    }

    /// Scans without labels that vote at test from now on, (1, 1, D, H, W) each: see [`Model::reference`].
    pub fn ask_beside(&mut self, templates: &[Tensor]) {
        self.templates.clear();
        for pair in templates.chunk_by(|a, b| a.size() == b.size()).flat_map(|alike| alike.chunks(TEMPLATES_AT_ONCE)) {
            let features = no_grad(|| self.features(&Tensor::cat(pair, 0).to_device(self.device())));
            for (index, image) in (0..).zip(pair) {
                let seen = self.seen(image, features.narrow(0, index, 1));
                self.templates.push(seen);
            }
        }
    }

    /// A volume (1, 1, D, H, W) with its features.
    fn seen(&self, image: &Tensor, features: Tensor) -> Seen {
        let size = features.size();
        let is_asked = self.config.prediction.round_supervoxel_weight > 0.0;
        let regions = is_asked.then(|| regions::of(image, [size[2], size[3], size[4]]).to_device(features.device()));
        Seen { features, regions }
    }

    pub fn device(&self) -> Device {
        self.variables.device()
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> usize {
        self.variables.trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// The trainable variables of each network, by name.
    pub fn trainable(&self) -> Vec<BTreeMap<String, Tensor>> {
        let mut of_networks: Vec<BTreeMap<String, Tensor>> = Vec::new();
        of_networks.resize_with(self.config.features.networks, BTreeMap::new);
        for (name, variable) in weights::variables(&self.variables) {
            let prefix = name.split_once('.').and_then(|(first, _)| first.strip_prefix("network_"));
            let network: usize = prefix.map_or(0, |number| number.parse().expect("a number that we gave"));
            if variable.requires_grad() {
                of_networks[network].insert(name, variable);
            }
        }
        of_networks
    }

    /// What is compared, when nothing is learned from it: the features of one U-Net as they are, of several each of unit length
    /// and one after the other, (n, 1, D, H, W) -> (n, networks C, d, h, w).
    pub fn features(&self, images: &Tensor) -> Tensor {
        let Network::UNets(networks) = &self.network else { unreachable!("an SE-Net has no feature map") };
        if let [network] = networks.as_slice() {
            return network.forward(images, false);
        }
        let unit = |network: &UNet| {
            let features = network.forward(images, false);
            &features / features.norm_scalaropt_dim(2, 1, true).clamp_min(1e-8)
        };
        Tensor::cat(&networks.iter().map(unit).collect::<Vec<_>>(), 1)
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
    ///
    /// Each template is segmented from the supports and becomes a support by itself, annotated where it was beyond doubt; in a
    /// further generation the supports and all other templates segment it anew. A query is then asked of every one, and the
    /// median of the scores counts (labels that pass through scans without labels and vote: MAGeT-Brain, Chakravarty et al.
    /// 2013). A class that the vote loses comes from the supports alone; the others stay as voted.
    pub fn reference(&self, supports: &[Shot], count: i64) -> Reference {
        let device = self.device();
        let support = |shot: &Shot| {
            let features = self.features(&shot.image.to_device(device));
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
            Network::UNets(_) => {
                let held = match self.config.prediction.one_piece {
                    true => pieces::held_to_one(supports, count),
                    false => vec![None; count as usize],
                };
                let is_whole = supports.iter().all(Shot::is_whole);
                let supports: Vec<Support> = supports.iter().map(support).collect();
                let mut prototypes = self.test_prototypes(&supports);
                if !is_whole {
                    prototypes.sizes.clear();
                }
                Reference::Voters(self.voters(prototypes, held))
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
        self.ask(query, reference, &[]).0
    }

    /// The same, where `told[i]` is known of class i, and the classes (from 0) of which next to nothing was found until the supports
    /// alone had to find them: they may not be there. A network of single slices leaves what is told aside.
    pub fn ask(&self, query: &Tensor, reference: &Reference, told: &[Told]) -> (Tensor, Vec<usize>) {
        let query = query.to_device(self.device());
        no_grad(|| match (&self.network, reference) {
            (Network::UNets(_), Reference::Voters(voters)) => {
                let size = query.size();
                let (scores, lost) = self.elected(&self.seen(&query, self.features(&query)), voters, told);
                (prediction::interpolate(&scores, [size[2], size[3], size[4]]), lost)
            }
            (Network::SeNet(network), Reference::Slices(slices)) => (slices.scores(network, &query), vec![]),
            _ => unreachable!("a reference that this network made"),
        })
    }

    /// Scores (1, 1 + K, D, H, W) of a volume (1, 1, D, H, W) by the supports alone, asked once; None of a network of single slices.
    pub fn ask_supports(&self, image: &Tensor, reference: &Reference) -> Option<Tensor> {
        let Reference::Voters(voters) = reference else { return None };
        let size = image.size();
        no_grad(|| {
            let scores = self.asked(&self.features(&image.to_device(self.device())), &voters.support).scores();
            Some(prediction::interpolate(&scores, [size[2], size[3], size[4]]))
        })
    }

    fn test_prototypes(&self, supports: &[Support]) -> Prototypes {
        self.prototypes(supports, self.config.prototypes.test_window, self.config.prediction.test_classes)
    }
}
