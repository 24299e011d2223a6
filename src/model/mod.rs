//! Features, prototypes and prediction as one: a support and its classes in, scores of a query out. Several networks are
//! asked as one by joining their features: the cosine of two joined features is the mean of the networks' cosines.

mod memory;
mod pieces;
mod place;
pub mod slices;

pub use memory::MemoryEstimate;
use pieces::Held;

use crate::error::Result;
use crate::features::{self, SeNet, UNet};
use crate::prediction::{self, Similarity, Tape};
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
    /// Features (1, C, d, h, w) of each scan without labels that votes at test: see [`Model::reference`].
    templates: Vec<Tensor>,
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

/// The supports and the templates, each with its say.
#[derive(Debug)]
pub struct Voters {
    /// All supports together.
    support: Prototypes,
    templates: Vec<Prototypes>,
    /// Voxels of each class in a template, the median over them, at the resolution of the features.
    usual_vox: Vec<f64>,
    /// Which classes are one piece in the supports, and so in what is found.
    held: Vec<Held>,
    /// Added to the scores in all rounds but the last: what the templates say of where a class lies, (1, 1 + K, d, h, w).
    place: Option<Tensor>,
}

/// A class with less than this share of its usual volume has been lost in the vote.
const LOST: f64 = 0.1;

/// Templates that a network sees at once: convolutions of a single volume take a slower way in libtorch.
const TEMPLATES_AT_ONCE: usize = 2;

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
            self.templates.extend((0..pair.len()).map(|index| features.narrow(0, index as i64, 1)));
        }
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
    /// Each template is segmented from the supports and becomes a support by itself, annotated where it was beyond doubt;
    /// a query is then asked of every one, and the median of the scores counts (labels that pass through scans without
    /// labels and vote: MAGeT-Brain, Chakravarty et al. 2013). Where that vote loses a class, the supports decide alone.
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
                let supports: Vec<Support> = supports.iter().map(support).collect();
                Reference::Voters(self.voters(self.test_prototypes(&supports), held))
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
            (Network::UNets(_), Reference::Voters(voters)) => {
                let size = query.size();
                let scores = self.elected(&self.features(&query), voters);
                prediction::interpolate(&scores, [size[2], size[3], size[4]])
            }
            (Network::SeNet(network), Reference::Slices(slices)) => slices.scores(network, &query),
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

    /// What the supports say, and the templates that are segmented from them.
    fn voters(&self, support: Prototypes, held: Vec<Held>) -> Voters {
        let (mut templates, mut volumes_vox, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        for features in &self.templates {
            let found = self.refined(features, &[self.asked(features, &support)], &held, None);
            templates.push(self.beyond_doubt(features, &found, &held));
            let found = pieces::settled(&found, &held);
            volumes_vox.push(volumes(&found));
            scores.push(found);
        }
        let weight = self.config.prediction.place_weight;
        let place = if weight > 0.0 { place::log_prior(&scores).map(|prior| prior * weight) } else { None };
        let usual = |class: usize| {
            let mut of_class: Vec<f64> = volumes_vox.iter().map(|volumes| volumes[class]).collect();
            of_class.sort_by(f64::total_cmp);
            of_class.get(of_class.len() / 2).copied().unwrap_or(0.0)
        };
        let usual_vox = (0..held.len()).map(usual).collect();
        Voters { support, templates, usual_vox, held, place }
    }

    /// Scores of query features by the supports and templates together, or by the supports alone where a class is lost.
    fn elected(&self, features: &Tensor, voters: &Voters) -> Tensor {
        let Voters { support, templates, usual_vox, held, place } = voters;
        let all: Vec<Similarity> =
            std::iter::once(support).chain(templates).map(|voter| self.asked(features, voter)).collect();
        let refined = |voters| pieces::settled(&self.refined(features, voters, held, place.as_ref()), held);
        let found = refined(&all);
        let is_lost = |(volume, usual): (&f64, &f64)| *volume < LOST * usual;
        if !templates.is_empty() && volumes(&found).iter().zip(usual_vox).any(is_lost) {
            return refined(&all[..1]);
        }
        found
    }

    fn asked(&self, features: &Tensor, prototypes: &Prototypes) -> Similarity {
        Similarity::of(features, prototypes, self.config.prediction.alpha)
    }

    /// Scores (1, 1 + K, d, h, w) of query features (1, C, d, h, w), the median over the voters. In each round of
    /// refinement the voxels of the query that are beyond doubt stand beside each voter. What is known of places helps to find the
    /// classes; in the last round appearance decides alone.
    fn refined(&self, features: &Tensor, voters: &[Similarity], held: &[Held], place: Option<&Tensor>) -> Tensor {
        let rounds = self.config.prediction.rounds;
        let placed = |found: Tensor, round: u32| match place.filter(|_| round < rounds) {
            Some(place) => {
                let size = found.size();
                prediction::interpolate(place, [size[2], size[3], size[4]]) + found
            }
            None => found,
        };
        let median = |scores: Vec<Tensor>| prediction::median(&scores);
        let mut found = placed(median(voters.iter().map(Similarity::scores).collect()), 0);
        for round in 1..=rounds {
            let own = self.asked(features, &self.beyond_doubt(features, &found, held));
            found = placed(median(voters.iter().map(|voter| voter.beside(&own).scores()).collect()), round);
        }
        found
    }

    /// The prototypes of a volume with these scores, as if it were annotated where its class is beyond doubt and nowhere
    /// else. A second piece of a class that is `held` to one is in doubt.
    fn beyond_doubt(&self, features: &Tensor, scores: &Tensor, held: &[Held]) -> Prototypes {
        let prediction::Config { test_classes, confidence, .. } = self.config.prediction;
        let (classes, known) = prediction::confident(scores, test_classes, confidence);
        let known = known * pieces::agreement(scores, &pieces::settled(scores, held)).to_kind(scores.kind());
        let count = scores.size()[1] - 1;
        self.test_prototypes(&[Support::sparse(features.shallow_clone(), &classes, count, &known)])
    }

    fn test_prototypes(&self, supports: &[Support]) -> Prototypes {
        self.prototypes(supports, self.config.prototypes.test_window, self.config.prediction.test_classes)
    }
}

/// Voxels of each of the K classes where scores (1, 1 + K, d, h, w) are greatest.
fn volumes(scores: &Tensor) -> Vec<f64> {
    let counts = prediction::hard(scores).flatten(0, -1).bincount(None::<Tensor>, scores.size()[1]);
    Vec::<i64>::try_from(counts).expect("whole numbers").into_iter().skip(1).map(|count| count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Features (1, 2, 1, 4, 4) whose left half is (0, 1) and whose right half is (1, 0).
    fn halves() -> Tensor {
        let of_channel = |left: f32| [left, left, 1.0 - left, 1.0 - left].repeat(4);
        Tensor::from_slice(&[of_channel(0.0), of_channel(1.0)].concat()).view([1, 2, 1, 4, 4])
    }

    fn prototypes(background: &[f32], foreground: &[f32]) -> Prototypes {
        let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 2])];
        Prototypes { background: rows(background), foreground: rows(foreground) }
    }

    #[test]
    fn templates_outvote_the_support_unless_they_lose_a_class() {
        let set = ["features.f_maps=4", "prediction.test_classes=joint", "prototypes.test_window={size=[1, 2, 2]}"];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let left_is_found = |voters: &Voters| {
            let found = prediction::hard(&model.elected(&halves(), voters));
            (found.int64_value(&[0, 0, 0]) == 1, found.int64_value(&[0, 0, 3]) == 1)
        };
        let left = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
        let right = || prototypes(&[0.0, 1.0], &[1.0, 0.0]);
        let nothing = || prototypes(&[1.0, 0.0, 0.0, 1.0], &[-1.0, -1.0]);
        let voters = |support, templates, usual_vox: f64| Voters {
            support,
            templates,
            usual_vox: vec![usual_vox],
            held: vec![None],
            place: None,
        };
        assert_eq!(left_is_found(&voters(left(), vec![], 0.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![right(), right()], 8.0)), (false, true));
        // Templates that find nothing in this query are passed over if they find something in each other.
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 8.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 0.0)), (false, false));
    }

    /// Two places look alike to the support, and the templates have seen the class on the left alone.
    #[test]
    fn the_place_decides_between_equals_and_appearance_has_the_last_word() {
        let set = [
            "features.f_maps=4",
            "prediction.test_classes=joint",
            "prototypes.test_window={size=[1, 2, 2]}",
            "prediction.rounds=2",
        ];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        // Columns: two of one kind, four of background, two of nearly the same kind.
        let [left, right, between] = [[1.0f32, 0.3, 0.0], [1.0, -0.3, 0.0], [0.0, 0.0, 1.0]];
        let columns = [left, left, between, between, between, between, right, right];
        let channel = |c: usize| columns.map(|column| column[c]).repeat(4);
        let features = Tensor::from_slice(&[channel(0), channel(1), channel(2)].concat()).view([1, 3, 1, 4, 8]);
        let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 3])];
        let support =
            || Prototypes { background: rows(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.05]), foreground: rows(&[1.0, 0.0, 0.0]) };
        let shown = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).expand([1, 1, 1, 4, 8], false);
        let place = Tensor::cat(&[&(1.0 - &shown), &shown], 1); // as much as 1 of a score
        let found = |place| {
            let voters = Voters { support: support(), templates: vec![], usual_vox: vec![], held: vec![], place };
            let hard = prediction::hard(&model.elected(&features, &voters));
            [0, 3, 7].map(|column| hard.int64_value(&[0, 1, column]))
        };
        assert_eq!(found(None), [1, 0, 1]);
        assert_eq!(found(Some(place)), [1, 0, 0]);
    }

    #[test]
    fn volumes_count_the_greatest_scores_of_each_class() {
        let scores = Tensor::from_slice(&[0.0f32, 5.0, 0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.5, 0.0, 9.0, 0.0]);
        assert_eq!(volumes(&scores.view([1, 3, 1, 1, 4])), [1.0, 1.0]);
    }
}
