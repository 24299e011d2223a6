//! Features, prototypes and prediction as one: a support and its classes in, scores of a query out. Several networks are
//! asked as one by joining their features: the cosine of two joined features is the mean of the networks' cosines.

mod memory;
mod pieces;
mod place;
mod regions;
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
    /// Each scan without labels that votes at test: see [`Model::reference`].
    templates: Vec<Seen>,
}

/// A volume as it is asked.
#[derive(Debug)]
struct Seen {
    /// (1, C, d, h, w)
    features: Tensor,
    /// The supervoxel of each voxel, (d h w), where they have a say.
    regions: Option<Tensor>,
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

/// A scan without labels, segmented.
#[derive(Debug)]
struct Template {
    prototypes: Prototypes,
    /// (1, 1 + K, d, h, w)
    scores: Tensor,
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
    /// 2013). Where that vote loses a class, the supports decide alone.
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
                let scores = self.elected(&self.seen(&query, self.features(&query)), voters);
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
        let held = held.as_slice();
        let mut found = self.by_voters(&support, &[], held, None);
        for _ in 1..self.config.prediction.generations {
            found = self.by_voters(&support, &found, held, self.place(&found).as_ref());
        }
        let place = self.place(&found);
        let volumes_vox: Vec<Vec<f64>> = found.iter().map(|template| volumes(&template.scores)).collect();
        let templates = found.into_iter().map(|template| template.prototypes).collect();
        let usual = |class: usize| {
            let mut of_class: Vec<f64> = volumes_vox.iter().map(|volumes| volumes[class]).collect();
            of_class.sort_by(f64::total_cmp);
            of_class.get(of_class.len() / 2).copied().unwrap_or(0.0)
        };
        let usual_vox = (0..held.len()).map(usual).collect();
        Voters { support, templates, usual_vox, held: held.to_vec(), place }
    }

    /// The templates as the supports and the others among `before` see them.
    fn by_voters(
        &self,
        support: &Prototypes,
        before: &[Template],
        held: &[Held],
        place: Option<&Tensor>,
    ) -> Vec<Template> {
        let of_template = |(index, seen): (usize, &Seen)| {
            let others = before.iter().enumerate().filter(|(other, _)| *other != index);
            let voters = std::iter::once(support).chain(others.map(|(_, template)| &template.prototypes));
            let voters: Vec<Similarity> = voters.map(|voter| self.asked(&seen.features, voter)).collect();
            let scores = self.refined(seen, &voters, held, place);
            let prototypes = self.beyond_doubt(&seen.features, &scores, held);
            Template { prototypes, scores: pieces::settled(&scores, held) }
        };
        self.templates.iter().enumerate().map(of_template).collect()
    }

    /// What templates tell of places, with its weight.
    fn place(&self, templates: &[Template]) -> Option<Tensor> {
        let weight = self.config.prediction.place_weight;
        let scores: Vec<&Tensor> = templates.iter().map(|template| &template.scores).collect();
        if weight > 0.0 { place::log_prior(&scores).map(|prior| prior * weight) } else { None }
    }

    /// Scores of a query by the supports and templates together, or by the supports alone where a class is lost.
    fn elected(&self, query: &Seen, voters: &Voters) -> Tensor {
        let Voters { support, templates, usual_vox, held, place } = voters;
        let all: Vec<Similarity> =
            std::iter::once(support).chain(templates).map(|voter| self.asked(&query.features, voter)).collect();
        let refined = |voters| pieces::settled(&self.refined(query, voters, held, place.as_ref()), held);
        let found = refined(&all);
        let is_lost = |(volume, usual): (&f64, &f64)| *volume < LOST * usual;
        if !templates.is_empty() && volumes(&found).iter().zip(usual_vox).any(is_lost) {
            return refined(&all[..1]);
        }
        found
    }

    fn asked(&self, features: &Tensor, prototypes: &Prototypes) -> Similarity {
        let prediction::Config { alpha, balance, .. } = self.config.prediction;
        Similarity::balanced(features, prototypes, alpha, balance)
    }

    /// Scores (1, 1 + K, d, h, w) of a query, the median over the voters. In each round of refinement the voxels of the query that
    /// are beyond doubt stand beside each voter. Supervoxels and what is known of places help to find the classes; in the last
    /// round the appearance of each voxel decides alone.
    fn refined(&self, query: &Seen, voters: &[Similarity], held: &[Held], place: Option<&Tensor>) -> Tensor {
        let prediction::Config { alpha, rounds, round_supervoxel_weight: weight, .. } = self.config.prediction;
        let helped = |found: Tensor, round: u32| {
            if round == rounds {
                return found;
            }
            let found = match &query.regions {
                Some(regions) => regions::pooled(&found, regions, weight),
                None => found,
            };
            let size = found.size();
            match place {
                Some(place) => prediction::interpolate(place, [size[2], size[3], size[4]]) + found,
                None => found,
            }
        };
        let median = |scores: Vec<Tensor>| prediction::median(&scores);
        let mut found = helped(median(voters.iter().map(Similarity::scores).collect()), 0);
        for round in 1..=rounds {
            let own = self.beyond_doubt(&query.features, &found, held);
            let own = Similarity::of(&query.features, &own, alpha);
            found = helped(median(voters.iter().map(|voter| voter.beside(&own).scores()).collect()), round);
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
        Prototypes { background: rows(background), foreground: rows(foreground), sizes: vec![] }
    }

    #[test]
    fn templates_outvote_the_support_unless_they_lose_a_class() {
        let set = ["features.f_maps=4", "prediction.test_classes=joint", "prototypes.test_window={size=[1, 2, 2]}"];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let left_is_found = |voters: &Voters| {
            let found = prediction::hard(&model.elected(&Seen { features: halves(), regions: None }, voters));
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

    /// Of three templates two look enough like the support to be found in, and the third looks like those two.
    #[test]
    fn in_a_second_generation_templates_find_the_class_in_each_other() {
        let found = |generations: u32| {
            let mut set =
                ["features.f_maps=4", "prediction.test_classes=joint", "prototypes.test_window={size=[1, 2, 2]}"]
                    .map(str::to_owned)
                    .to_vec();
            set.push(format!("prediction.generations={generations}"));
            let mut model = Model::new(&config::load(None, &set).unwrap().model(), Device::Cpu, 0);
            let unit = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
            let (class, rest) = (unit(0.0), unit(125.0));
            // The class on the left, at so many degrees from the support's.
            let seen = |degrees: f32| {
                let of_channel = |c: usize| [unit(degrees)[c], unit(degrees)[c], rest[c], rest[c]].repeat(4);
                let features = Tensor::from_slice(&[of_channel(0), of_channel(1)].concat()).view([1, 2, 1, 4, 4]);
                Seen { features, regions: None }
            };
            model.templates = [40.0, 40.0, 80.0].map(seen).into();
            let voters = model.voters(prototypes(&rest, &class), vec![None]);
            voters.templates.iter().map(|template| template.foreground[0].size()[0] > 0).collect::<Vec<_>>()
        };
        assert_eq!(found(1), [true, true, false]);
        assert_eq!(found(2), [true, true, true]);
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
        let support = || {
            let (background, foreground) = (rows(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.05]), rows(&[1.0, 0.0, 0.0]));
            Prototypes { background, foreground, sizes: vec![] }
        };
        let shown = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).expand([1, 1, 1, 4, 8], false);
        let place = Tensor::cat(&[&(1.0 - &shown), &shown], 1); // as much as 1 of a score
        let found = |place| {
            let voters = Voters { support: support(), templates: vec![], usual_vox: vec![], held: vec![], place };
            let hard =
                prediction::hard(&model.elected(&Seen { features: features.shallow_clone(), regions: None }, &voters));
            [0, 3, 7].map(|column| hard.int64_value(&[0, 1, column]))
        };
        assert_eq!(found(None), [1, 0, 1]);
        assert_eq!(found(Some(place)), [1, 0, 0]);
    }

    /// A column of the class that looks a little more like the background than like the class.
    #[test]
    fn a_supervoxel_brings_its_doubtful_voxels_along() {
        let set = [
            "features.f_maps=4",
            "prediction.test_classes=joint",
            "prototypes.test_window={size=[1, 2, 2]}",
            "prediction.rounds=1",
            "prediction.round_supervoxel_weight=1",
        ];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let columns = [0.0f32, 0.0, 0.0, 47.0, 90.0, 90.0, 90.0, 90.0].map(|degrees| degrees.to_radians().sin_cos());
        let channels = [columns.map(|(_, cos)| cos).repeat(4), columns.map(|(sin, _)| sin).repeat(4)];
        let features = Tensor::from_slice(&channels.concat()).view([1, 2, 1, 4, 8]);
        let found = |regions: Option<Tensor>| {
            let support = prototypes(&[0.0, 1.0], &[1.0, 0.0]);
            let voters = Voters { support, templates: vec![], usual_vox: vec![], held: vec![None], place: None };
            let query = Seen { features: features.shallow_clone(), regions };
            let hard = prediction::hard(&model.elected(&query, &voters));
            [0, 3, 4].map(|column| hard.int64_value(&[0, 2, column]))
        };
        assert_eq!(found(None), [1, 0, 0]);
        let halves = Tensor::from_slice(&[0i64, 0, 0, 0, 1, 1, 1, 1].repeat(4));
        assert_eq!(found(Some(halves)), [1, 1, 0]);
    }

    #[test]
    fn volumes_count_the_greatest_scores_of_each_class() {
        let scores = Tensor::from_slice(&[0.0f32, 5.0, 0.0, 0.0, 1.0, 1.0, 2.0, 0.0, 0.5, 0.0, 9.0, 0.0]);
        assert_eq!(volumes(&scores.view([1, 3, 1, 1, 4])), [1.0, 1.0]);
    }
}
