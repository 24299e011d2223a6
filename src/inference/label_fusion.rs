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

use super::config::Config;
use super::constraints::Constraint;
use super::constraints::single_component::{self, MinFraction, SingleComponents, agreement};
use super::constraints::slice_range::{DepthRange, InSliceRange};
use super::constraints::volume_bounds::VolumeBounds;
use super::cycle::{Belief, dice_on_supports};
use super::evidence::Evidence;
use super::evidence::spatial_prior::{Places, SpatialPrior, spatial_prior};
use super::evidence::supervoxels::{self, SupervoxelMean};
use super::missing::{self, Expected};
use super::propagation::{LabelFractions, Moving, Overlay, Propagated, TemplateAtlas};
use super::supports::{NetworkVolume, Shot};
use crate::network::Network;
use crate::prototypes::{Competition, EncodedSupport, Prototypes};
use crate::similarity::{self, Similarity};
use crate::volume::Class;
use agreement::{by_supports_where_they_agree, dice, median};
use ndarray::Array3;
use tch::{Kind, Tensor, no_grad};

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
    places: Vec<usize>,
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
        let scores: Vec<Tensor> = self.similarities.iter().map(Similarity::scores).collect();
        let found = dice(&fused(&scores, &self.belief), &labels.masks());
        for (class, share) in self.shares.iter_mut().enumerate() {
            let believed = self.belief.about(Some(Class::at(class)));
            let usual = believed.iter().filter_map(|&index| Some(voters.overlaps.get(self.voting[index])?[class]));
            if let Some(usual) = median(usual.collect()).filter(|usual| *usual > found[class]) {
                *share *= found[class] / usual;
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

/// A template with the labels of the supports, where they are propagated.
struct Unlabelled {
    scan: EncodedScan,
    propagated: Option<ToTemplate>,
}

/// The supports that are laid upon a template, and their labels on its feature map.
struct ToTemplate {
    overlay: Overlay,
    fields: Vec<Tensor>,
    labels: LabelFractions,
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

/// An unlabelled scan, segmented.
#[derive(Debug)]
struct Template {
    prototypes: Prototypes,
    /// (1, 1 + K, d, h, w)
    scores: Tensor,
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

    /// The prototypes of annotated volumes with `count` classes, and of the templates that are segmented from them.
    pub fn fit(&self, supports: &[Shot], templates: &[NetworkVolume], count: usize) -> Voters {
        let device = self.network.device();
        let encoded = |shot: &Shot| {
            let features = self.network.encode(&shot.image.to_device(device));
            let classes = shot.classes.to_device(device);
            match &shot.known {
                None => EncodedSupport::new(features, &classes, count as i64),
                Some(known) => EncodedSupport::sparse(features, &classes, count as i64, &known.to_device(device)),
            }
        };
        let min_fractions = single_component::min_fractions(supports, count, &self.config.single_component);
        let tell_sizes = supports.iter().all(|shot| shot.is_whole(self.config.min_annotated_fraction));
        let annotated: Vec<EncodedSupport> = supports.iter().map(encoded).collect();
        let mut support = self.network.test_prototypes(&annotated);
        if !tell_sizes {
            support.sizes_vox = None;
        }
        let shares = self.shares(&support, &annotated, count);
        let images: Vec<Tensor> = supports.iter().map(|shot| shot.image.to_device(device)).collect();
        let atlases: Vec<_> = images.iter().zip(&annotated).collect();
        let templates = self.unlabelled(templates, &support, &atlases);
        self.voters(support, &annotated, templates, min_fractions, shares)
    }

    /// The supports, which are images (1, 1, D, H, W) with their annotation, are laid upon each template as upon a query.
    fn unlabelled(
        &self,
        templates: &[NetworkVolume],
        support: &Prototypes,
        atlases: &[(&Tensor, &EncodedSupport)],
    ) -> Vec<Unlabelled> {
        let config = &self.config.registration;
        if !config.enabled || templates.is_empty() {
            return templates.iter().map(|of| Unlabelled { scan: self.encoded(of), propagated: None }).collect();
        }
        let found = |features: &Tensor| {
            let scores = self.similarity(features, support).scores();
            similarity::probabilities(&scores, self.network.config.similarity.competition)
        };
        let of_support =
            |(image, of): &(&Tensor, &EncodedSupport)| Moving::new(image, Some(&found(&of.features)), config);
        let moving: Vec<Moving> = atlases.iter().map(of_support).collect();
        let masks: Vec<&Tensor> = atlases.iter().map(|(_, annotated)| &annotated.masks).collect();
        let of_template = |template: &NetworkVolume| {
            let overlay = Overlay::new(&template.image.to_device(self.network.device()), moving.iter(), config);
            let scan = self.encoded(&overlay.seen(template.shallow_clone(), moving.iter(), config));
            let fields = overlay.refined(moving.iter(), Some(&found(&scan.features)), config);
            let size = scan.features.size();
            let labels = LabelFractions::warped(&masks, &fields, [size[2], size[3], size[4]]);
            Unlabelled { scan, propagated: Some(ToTemplate { overlay, fields, labels }) }
        };
        templates.iter().map(of_template).collect()
    }

    /// The templates are segmented from the supports, and in further rounds from the supports and all other templates. `annotated` are the
    /// supports, which say what templates are believed.
    fn voters(
        &self,
        support: Prototypes,
        annotated: &[EncodedSupport],
        templates: Vec<Unlabelled>,
        min_fractions: Vec<MinFraction>,
        shares: Vec<f64>,
    ) -> Voters {
        let count = min_fractions.len();
        let labels = |found: &[Template]| -> Vec<Tensor> {
            found.iter().map(|template| similarity::argmax(&template.scores)).collect()
        };
        let shown = support.sizes_vox.is_some().then(|| shown(annotated));
        let prior_by = |templates: &[Tensor], belief: &Belief| {
            self.prior(Places { templates, belief, supports: shown.as_ref(), are_placed: false }, count, &[])
        };
        let prior = prior_by(&[], &Belief::default());
        let context = Context {
            min_fractions: &min_fractions,
            prior: prior.as_ref(),
            ranges: &[],
            propagated: None,
            shares: &shares,
            is_template: true,
        };
        let mut found = self.segment_templates(&templates, &support, (&[], &Belief::default()), context);
        let mut belief = self.belief(&support, annotated, &found, count);
        for _ in 1..self.config.template_rounds {
            let prior = prior_by(&labels(&found), &belief);
            let context = Context { prior: prior.as_ref(), ..context };
            found = self.segment_templates(&templates, &support, (&found, &belief), context);
            belief = self.belief(&support, annotated, &found, count);
        }
        let (offered, believed) = (found.len(), belief.about(None));
        belief = belief.only(&believed);
        let found: Vec<Template> =
            found.into_iter().enumerate().filter(|(index, _)| believed.contains(index)).map(|(_, t)| t).collect();
        let labels = labels(&found);
        let prior = prior_by(&labels, &belief);
        let scores: Vec<&Tensor> = found.iter().map(|template| &template.scores).collect();
        let expected = missing::expected(&scores, &belief, prior.as_ref().map(|prior| &prior.log_p), count);
        let kept =
            templates.into_iter().enumerate().filter(|(index, _)| believed.contains(index)).map(|(_, kept)| kept);
        let templates = found.into_iter().map(|template| template.prototypes).collect();
        let features = annotated.iter().map(|support| support.features.shallow_clone()).collect();
        let (places, atlases) = (believed.clone(), vec![]);
        let voters = Voters {
            support,
            features,
            templates,
            places,
            belief,
            offered,
            expected,
            min_fractions,
            labels,
            shown,
            prior,
            shares,
            atlases,
            overlaps: vec![],
        };
        let (atlases, overlaps) = self.atlases(kept, &voters).into_iter().unzip();
        Voters { atlases, overlaps, ..voters }
    }

    /// The templates of these voters as those that hand labels on to queries, with their overlaps.
    fn atlases(&self, templates: impl Iterator<Item = Unlabelled>, voters: &Voters) -> Vec<(TemplateAtlas, Vec<f64>)> {
        let is_believed = |index: usize| -> Vec<bool> {
            let classes = (0..voters.shares.len()).map(|class| Some(Class::at(class)));
            classes.map(|class| voters.belief.about(class).contains(&index)).collect()
        };
        let of_template = |(index, Unlabelled { scan, propagated }): (usize, Unlabelled)| {
            let ToTemplate { overlay, fields, labels } = propagated?;
            let similarities = self.similarities(&scan.features, voters);
            let found = self.probabilities(&similarities, &voters.belief);
            let others: Vec<usize> = (0..voters.templates.len()).filter(|other| *other != index).collect();
            let by_others = std::iter::once(0).chain(others.iter().map(|other| other + 1));
            let by_others: Vec<Tensor> = by_others.map(|voter| similarities[voter].scores()).collect();
            let overlaps = dice(&fused(&by_others, &voters.belief.only(&others)), &labels.masks());
            let atlas =
                TemplateAtlas::new(overlay, fields, Some(&found), is_believed(index), &self.config.registration);
            Some((atlas, overlaps))
        };
        templates.enumerate().filter_map(of_template).collect()
    }

    /// The less the features tell a class from the rest in the supports themselves, the more its propagated labels count: 1 - Dice^3.
    fn shares(&self, support: &Prototypes, annotated: &[EncodedSupport], count: usize) -> Vec<f64> {
        if !self.config.registration.enabled {
            return vec![0.0; count];
        }
        let dice = dice_on_supports(annotated, count, |features| self.similarity(features, support).scores());
        dice.iter().map(|dice| 1.0 - dice.powi(3)).collect()
    }

    /// What the supports say of the templates.
    fn belief(&self, support: &Prototypes, annotated: &[EncodedSupport], found: &[Template], count: usize) -> Belief {
        let least = self.config.min_cycle_fraction;
        if least == 0.0 || found.is_empty() {
            return Belief::all(found.len(), count);
        }
        let dice = |prototypes: &Prototypes| {
            dice_on_supports(annotated, count, |features| self.similarity(features, prototypes).scores())
        };
        let by_templates: Vec<Vec<f64>> = found.iter().map(|template| dice(&template.prototypes)).collect();
        let by_supports = dice(support);
        Belief::of(&by_templates, &by_supports, least)
    }

    /// The templates as the supports and the others of the round before segment them.
    fn segment_templates(
        &self,
        templates: &[Unlabelled],
        support: &Prototypes,
        (before, belief): (&[Template], &Belief),
        context: Context,
    ) -> Vec<Template> {
        let of_template = |(index, Unlabelled { scan, propagated }): (usize, &Unlabelled)| {
            let others: Vec<usize> = belief.about(None).into_iter().filter(|other| *other != index).collect();
            let voters = std::iter::once(support).chain(others.iter().map(|&other| &before[other].prototypes));
            let voters: Vec<Similarity> = voters.map(|voter| self.similarity(&scan.features, voter)).collect();
            let context = Context { propagated: propagated.as_ref().map(|to| &to.labels), ..context };
            let scores = self.refine(scan, &voters, &belief.only(&others), context, &[]);
            let mut prototypes = self.self_prototypes(&scan.features, &scores, context);
            if support.sizes_vox.is_none() {
                prototypes.sizes_vox = None; // they come from labels that tell nothing of sizes
            }
            Template { prototypes, scores: context.single_components(&scores) }
        };
        templates.iter().enumerate().map(of_template).collect()
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
            (0..voters.templates.len()).filter(|&index| Some(voters.places[index]) != itself).collect();
        let others = voting.iter().map(|&index| &voters.templates[index]);
        let all = std::iter::once(&voters.support).chain(others);
        let similarities = all.map(|voter| self.similarity(&query.features, voter)).collect();
        Compared {
            query,
            similarities,
            belief: voters.belief.only(&voting),
            voting,
            propagated: None,
            shares: voters.shares.clone(),
        }
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
            let similarities = self.similarities(features, voters);
            (similarities[0].scores(), Some(self.probabilities(&similarities, &voters.belief)))
        };
        voters.features.iter().map(of_support).collect()
    }

    /// Probabilities (1, K, d, h, w) of the classes by all voters, without evidence or rounds.
    fn probabilities(&self, similarities: &[Similarity], belief: &Belief) -> Tensor {
        let scores: Vec<Tensor> = similarities.iter().map(Similarity::scores).collect();
        similarity::probabilities(&fused(&scores, belief), self.network.config.similarity.competition)
    }

    /// The same of a query.
    pub fn query_probabilities(&self, compared: &Compared) -> Tensor {
        self.probabilities(&compared.similarities, &compared.belief)
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
        let mut scores = fused(&voters.iter().map(Similarity::scores).collect::<Vec<_>>(), belief);
        for round in 0..=last {
            if round > 0 {
                let own = self.self_prototypes(&query.features, &scores, context);
                let own = Similarity::of(&query.features, &own, network.similarity.alpha);
                let joined = |voter: &Similarity| voter.joined_with(&own).scores();
                let joined: Vec<Tensor> = voters.iter().map(joined).collect();
                scores = fused(&joined, belief);
                if round == last && voters.len() > 1 && !context.is_template {
                    scores = by_supports_where_they_agree(&joined[0], &scores);
                }
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

/// The fraction of the supports that show each channel, (1, 1 + K, d, h, w).
fn shown(annotated: &[EncodedSupport]) -> Tensor {
    let masks: Vec<&Tensor> = annotated.iter().map(|support| &support.masks).collect();
    Tensor::cat(&masks, 0).mean_dim([0i64].as_slice(), true, Kind::Float)
}

/// The median of scores (1, 1 + K, d, h, w) of the supports, which are the first, and of the templates that are believed about each class.
fn fused(scores: &[Tensor], belief: &Belief) -> Tensor {
    if belief.is_complete() {
        return similarity::median(scores);
    }
    let of_channel = |channel: i64| {
        let believed = belief.about(Class::of_channel(channel as usize));
        let voters = std::iter::once(0).chain(believed.iter().map(|template| template + 1));
        similarity::median(&voters.map(|voter| scores[voter].narrow(1, channel, 1)).collect::<Vec<_>>())
    };
    Tensor::cat(&(0..scores[0].size()[1]).map(of_channel).collect::<Vec<_>>(), 1)
}

#[cfg(test)]
mod tests;
