//! Label fusion: scores of a query by the supports and by unlabelled templates, which are segmented from the supports and from each
//! other (labels that pass through unlabelled scans and are fused: MAGeT-Brain, Chakravarty et al. 2013).
//!
//! ```text
//! s_c(x) = median_v S_c(f(x); P_v + P_self) + sum_e w_e E_e,c(x)      then each constraint projects s; x rounds
//! ```
//!
//! The median of a class is over the supports and the templates that are believed about it ([`Belief`]); in the last round, which has no
//! evidence, it gives way to the supports' score where both find the class in the same place.

mod agreement;
mod templates;

use super::config::Config;
use super::constraints::Constraint;
use super::constraints::single_component::{MinFraction, SingleComponents, agreement};
use super::constraints::slice_range::{DepthRange, InSliceRange};
use super::constraints::volume_bounds::VolumeBounds;
use super::cycle::Belief;
use super::evidence::Evidence;
use super::evidence::spatial_prior::{Places, SpatialPrior, spatial_prior};
use super::evidence::supervoxels::{self, SupervoxelMean};
use super::missing::{self, Expected};
use super::propagation::{LabelFractions, Propagated, TemplateAtlas};
use super::supports::NetworkVolume;
use crate::network::Network;
use crate::percentile::percentile;
use crate::prototypes::{Competition, EncodedSupport, Prototypes};
use crate::similarity::{self, Similarity};
use crate::volume::Class;
use agreement::{by_supports_where_they_agree, dice};
use ndarray::Array3;
use tch::{Tensor, no_grad};

/// A volume with its features.
#[derive(Debug)]
pub struct EncodedScan {
    /// (1, C, d, h, w)
    pub features: Tensor,
    /// The supervoxel of each voxel of the feature map, where their evidence has weight.
    pub supervoxels: Option<Array3<i32>>,
}

/// What decides how volumes are compared and fused.
#[derive(Clone, Copy)]
pub(super) struct Fusion<'a> {
    pub network: &'a Network,
    pub config: &'a Config,
}

/// The supports and the templates, each of which gives scores of a query.
#[derive(Debug)]
pub(super) struct Voters {
    /// All supports together.
    support: Prototypes,
    /// Features (1, C, d, h, w) of each support.
    features: Vec<Tensor>,
    /// Those that are believed about any class.
    templates: Vec<Prototypes>,
    /// Which of all templates they are.
    indices: Vec<usize>,
    belief: Belief,
    /// How many templates there were.
    offered: usize,
    /// Of each class in a query.
    expected: Vec<Expected>,
    /// Of each class.
    min_fractions: Vec<MinFraction>,
    /// The channels (d, h, w) of each template.
    labels: Vec<Tensor>,
    /// The fraction of the supports that show each channel, (1, 1 + K, d, h, w), if they are annotated throughout.
    shown: Option<Tensor>,
    /// Where it has weight.
    prior: Option<SpatialPrior>,
    /// The share that propagated labels have in each class.
    shares: Vec<f64>,
    /// The templates as those that hand labels on to queries, where labels are propagated.
    atlases: Vec<TemplateAtlas>,
    /// Of each of these the [`dice`] of its propagated labels and of what the other voters find in it.
    overlaps: Vec<Vec<f64>>,
}

/// A query compared with all voters.
pub(super) struct Compared {
    query: EncodedScan,
    /// The supports first.
    similarities: Vec<Similarity>,
    /// The templates that vote, by their index among those of the voters.
    voting: Vec<usize>,
    /// In these.
    belief: Belief,
    /// (1, 1 + K, d, h, w) by all of them, without evidence or rounds.
    scores: Tensor,
    /// The labels of the supports, where they were propagated.
    propagated: Option<LabelFractions>,
    /// The share that they have in each class.
    shares: Vec<f64>,
}

impl Compared {
    /// Propagated labels have their share in the scores from now on. It is smaller where they overlap less with what the voters find than is
    /// usual in the templates: of both it is the registration that is led astray then.
    pub fn propagate(&mut self, propagated: &Propagated, voters: &Voters) {
        let size = self.query.features.size();
        let labels = propagated.on_map([size[2], size[3], size[4]]);
        let found = dice(&self.scores, &labels.masks());
        for (class, share) in self.shares.iter_mut().enumerate() {
            let believed = self.belief.about(Some(Class::at(class)));
            let of_template = |&index: &usize| Some(voters.overlaps.get(self.voting[index])?[class]);
            let mut usual: Vec<f64> = believed.iter().filter_map(of_template).collect();
            if !usual.is_empty() {
                let usual = percentile(&mut usual, 50.0);
                *share *= if usual > found[class] { found[class] / usual } else { 1.0 };
            }
        }
        self.propagated = Some(labels);
    }

    /// The share that propagated labels have in each class.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Scores (1, 1 + K, d, h, w) by the supports alone, without evidence or rounds.
    pub fn scores_by_supports(&self) -> Tensor {
        self.similarities[0].scores()
    }
}

/// What is known of a volume beside its features.
#[derive(Clone, Copy)]
struct Context<'a> {
    min_fractions: &'a [MinFraction],
    prior: Option<&'a SpatialPrior>,
    ranges: &'a [DepthRange],
    propagated: Option<&'a LabelFractions>,
    /// The share that propagated labels have in each class.
    shares: &'a [f64],
    /// Whether it is a template itself.
    is_template: bool,
}

impl Context<'_> {
    fn single_components(&self, scores: &Tensor) -> Tensor {
        let Self { min_fractions, prior, .. } = *self;
        SingleComponents { min_fractions, log_prior: prior.map(|prior| &prior.log_p) }.project(scores)
    }
}

impl Voters {
    /// Of each class whether any support shows it on the network's grid. A class that none shows is never predicted.
    pub fn shown(&self) -> Vec<bool> {
        self.support.foreground.iter().map(|rows| rows.size()[0] > 0).collect()
    }

    /// The share that propagated labels have in each class.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// The templates that vote in a query as those that hand labels on to it.
    pub fn atlases(&self, compared: &Compared) -> Vec<&TemplateAtlas> {
        compared.voting.iter().filter_map(|&index| self.atlases.get(index)).collect()
    }

    /// Of each class whether there are templates, and none is believed about it.
    pub fn without_say(&self) -> Vec<bool> {
        let count = self.support.foreground.len();
        let nobody = |class: Class| self.offered > 0 && self.belief.about(Some(class)).is_empty();
        (0..count).map(Class::at).map(nobody).collect()
    }

    /// Whether any support shows the background of each class.
    pub fn shows_background(&self) -> bool {
        self.support.background.iter().all(|rows| rows.size()[0] > 0)
    }
}

impl Fusion<'_> {
    /// A volume with its features.
    pub fn encoded(&self, volume: &NetworkVolume) -> EncodedScan {
        let features = no_grad(|| self.network.encode(&volume.image.to_device(self.network.device())));
        let size = features.size();
        let config = &self.config.supervoxels;
        let of_map = || supervoxels::on_map(volume, [size[2], size[3], size[4]], config);
        let supervoxels = (config.network_weight > 0.0).then(of_map);
        EncodedScan { features, supervoxels }
    }

    /// Where the classes lie, if that has weight.
    fn prior(&self, places: Places, count: usize, ranges: &[DepthRange]) -> Option<SpatialPrior> {
        let config = &self.config.spatial_prior;
        let counts = config.weight > 0.0 || config.support_weight > 0.0;
        if counts { spatial_prior(places, count, ranges, config) } else { None }
    }

    /// A query beside all voters; without the template that it is itself.
    pub fn compare(&self, query: EncodedScan, voters: &Voters, itself: Option<usize>) -> Compared {
        let voting: Vec<usize> =
            (0..voters.templates.len()).filter(|&index| Some(voters.indices[index]) != itself).collect();
        let others = voting.iter().map(|&index| &voters.templates[index]);
        let all = std::iter::once(&voters.support).chain(others);
        let similarities: Vec<Similarity> = all.map(|voter| self.similarity(&query.features, voter)).collect();
        let belief = voters.belief.only(&voting);
        let scores = fused(&similarities.iter().map(Similarity::scores).collect::<Vec<_>>(), &belief);
        Compared { query, similarities, voting, belief, scores, propagated: None, shares: voters.shares.clone() }
    }

    /// Features (1, C, d, h, w) beside all voters, the supports first.
    fn similarities(&self, features: &Tensor, voters: &Voters) -> Vec<Similarity> {
        let all = std::iter::once(&voters.support).chain(&voters.templates);
        all.map(|voter| self.similarity(features, voter)).collect()
    }

    /// What is found in each support: scores (1, 1 + K, d, h, w) by the supports alone and, where labels are propagated, probabilities
    /// (1, K, d, h, w) of the classes by all voters; without evidence or rounds.
    pub fn on_supports(&self, voters: &Voters) -> Vec<(Tensor, Option<Tensor>)> {
        let of_support = |features| {
            if !self.config.registration.enabled {
                return (self.similarity(features, &voters.support).scores(), None);
            }
            let scores: Vec<Tensor> = self.similarities(features, voters).iter().map(Similarity::scores).collect();
            let found = self.probabilities(&fused(&scores, &voters.belief));
            (scores[0].shallow_clone(), Some(found))
        };
        voters.features.iter().map(of_support).collect()
    }

    /// Probabilities (1, K, d, h, w) of the classes.
    fn probabilities(&self, scores: &Tensor) -> Tensor {
        similarity::probabilities(scores, self.network.config.similarity.competition)
    }

    /// Those in a query by all voters, without evidence or rounds.
    pub fn query_probabilities(&self, compared: &Compared) -> Tensor {
        self.probabilities(&compared.scores)
    }

    /// Scores (1, 1 + K, d, h, w) of a query by the supports and templates together, and the classes that are missing in them: these are
    /// taken from the supports alone, with the volume that the templates let expect.
    pub fn fuse_labels(&self, compared: &Compared, voters: &Voters, ranges: &[DepthRange]) -> (Tensor, Vec<Class>) {
        let Voters { expected, min_fractions, shown, prior, .. } = voters;
        let belief = &compared.belief;
        let labels = compared.voting.iter().filter_map(|&index| voters.labels.get(index));
        let labels: Vec<Tensor> = labels.map(Tensor::shallow_clone).collect();
        let are_known = ranges.iter().any(Option::is_some);
        let propagated = compared.propagated.as_ref();
        let masks = propagated.map(LabelFractions::masks);
        let supports = masks.as_ref().or(shown.as_ref());
        let places = Places { templates: &labels, belief, supports, are_placed: propagated.is_some() };
        let own = are_known || propagated.is_some() || labels.len() < voters.labels.len();
        let placed = if own { self.prior(places, min_fractions.len(), ranges) } else { None };
        let prior_here = placed.as_ref().or(prior.as_ref());
        let context = Context {
            min_fractions,
            prior: prior_here,
            ranges,
            propagated,
            shares: &compared.shares,
            is_template: false,
        };
        let refined = |voters: &[Similarity], belief: &Belief, bounds: &[VolumeBounds]| {
            context.single_components(&self.refine(&compared.query, voters, belief, context, bounds))
        };
        let found = refined(&compared.similarities, belief, &[]);
        let log_prior = prior.as_ref().map(|prior| &prior.log_p); // that of the expected evidence
        let missing = missing::missing_classes(&found, log_prior, expected, &self.config.missing_class);
        if missing.is_empty() {
            return (found, vec![]);
        }
        let by_supports = refined(&compared.similarities[..1], &Belief::default(), &missing);
        let found = match self.network.config.similarity.competition {
            Competition::OneVsRest => found,
            // Below the greatest, so that a background that no template shows (see `similarity::ABSENT`) takes no digits from the classes.
            Competition::Joint => &found - found.amax([1i64].as_slice(), true),
        };
        let found = missing.iter().fold(found, |found, bounds| missing::with_class(&found, &by_supports, bounds.class));
        (context.single_components(&found), missing.iter().map(|bounds| bounds.class).collect())
    }

    fn similarity(&self, features: &Tensor, prototypes: &Prototypes) -> Similarity {
        let alpha = self.network.config.similarity.alpha;
        Similarity::transported(features, prototypes, alpha, &self.config.transport)
    }

    /// The median of the scores over the voters, the supports first, with all evidence and under all constraints. In each further round the
    /// prototypes of the query's own confident voxels stand beside those of each voter. In the last round the features of each voxel decide
    /// alone: no evidence is added, and of a class about whose place in a query templates and supports agree the supports say what it looks
    /// like.
    fn refine(
        &self,
        query: &EncodedScan,
        voters: &[Similarity],
        belief: &Belief,
        context: Context,
        bounds: &[VolumeBounds],
    ) -> Tensor {
        let network = &self.network.config;
        let weight = self.config.supervoxels.network_weight;
        let regions = query.supervoxels.as_ref().map(|labels| SupervoxelMean { labels, weight });
        let regions = regions.iter().map(|regions| regions as &dyn Evidence);
        let evidence: Vec<&dyn Evidence> = regions.chain(context.prior.map(|prior| prior as &dyn Evidence)).collect();
        let (ranges, competition) = (context.ranges, network.similarity.competition);
        let in_range = InSliceRange { ranges, competition, config: &self.config.slice_range };

        let last = self.config.self_training_rounds;
        let mut by_voter: Vec<Tensor> = voters.iter().map(Similarity::scores).collect();
        let mut scores = fused(&by_voter, belief);
        for round in 0..=last {
            if round > 0 {
                let own = self.self_prototypes(&query.features, &scores, context);
                let own = Similarity::of(&query.features, &own, network.similarity.alpha);
                by_voter = voters.iter().map(|voter| voter.joined_with(&own).scores()).collect();
                scores = fused(&by_voter, belief);
            }
            if round == last && voters.len() > 1 && !context.is_template {
                scores = by_supports_where_they_agree(&by_voter[0], &scores);
            }
            if round < last {
                scores = evidence.iter().fold(scores, |scores, evidence| evidence.add(scores));
            }
            if let Some(propagated) = context.propagated.filter(|_| round < last) {
                scores = propagated.blended(&scores, context.shares);
            }
            scores = in_range.project(scores, round == last);
            scores = bounds.iter().fold(scores, |scores, bounds| bounds.project(scores, round == last));
        }
        scores
    }

    /// The prototypes of a volume with these scores, as if it were annotated where its class is confident and nowhere else. A voxel
    /// that the single components would give to another class is not confident.
    fn self_prototypes(&self, features: &Tensor, scores: &Tensor, context: Context) -> Prototypes {
        let competition = self.network.config.similarity.competition;
        let (classes, is_known) = similarity::confident(scores, competition, self.config.confidence);
        let projected = context.single_components(scores);
        let is_known = is_known * agreement(scores, &projected).to_kind(scores.kind());
        let count = scores.size()[1] - 1;
        let support = EncodedSupport::sparse(features.shallow_clone(), &classes, count, &is_known);
        self.network.test_prototypes(&[support])
    }
}

/// The median of scores (1, 1 + K, d, h, w) of the supports, which are the first, and of the templates that are believed about each class.
/// Where these are not all, each class keeps the margin over the background that it has by its own voters.
fn fused(scores: &[Tensor], belief: &Belief) -> Tensor {
    if belief.is_complete() {
        return similarity::median(scores);
    }
    let by = |class: Option<Class>, channel: i64| {
        let believed = belief.about(class);
        let voters = std::iter::once(0).chain(believed.iter().map(|template| template + 1));
        similarity::median(&voters.map(|voter| scores[voter].narrow(1, channel, 1)).collect::<Vec<_>>())
    };
    let background = by(None, 0);
    let of_class = |channel: i64| {
        let class = Class::of_channel(channel as usize);
        by(class, channel) + (&background - by(class, 0))
    };
    let classes = (1..scores[0].size()[1]).map(of_class);
    Tensor::cat(&std::iter::once(background.shallow_clone()).chain(classes).collect::<Vec<_>>(), 1)
}

#[cfg(test)]
mod tests;
