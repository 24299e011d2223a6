//! Label fusion: scores of a query by the supports and by unlabelled templates, which are segmented from the supports and from each
//! other (labels that pass through unlabelled scans and are fused: MAGeT-Brain, Chakravarty et al. 2013).
//!
//! ```text
//! s_c(x) = median_v S_c(f(x); P_v + P_self) + sum_e w_e E_e,c(x)      then each constraint projects s; x rounds
//! ```
//!
//! The median of a class is over the supports and the templates that are believed about it ([`Belief`]).

use super::config::Config;
use super::constraints::Constraint;
use super::constraints::single_component::{self, MinFraction, SingleComponents, agreement};
use super::constraints::slice_range::{DepthRange, InSliceRange};
use super::constraints::volume_bounds::VolumeBounds;
use super::cycle::{Belief, dice_on_supports};
use super::evidence::Evidence;
use super::evidence::spatial_prior::{self, SpatialPrior};
use super::evidence::supervoxels::{self, SupervoxelMean};
use super::missing::{self, Expected};
use super::supports::{NetworkVolume, Shot};
use crate::network::Network;
use crate::prototypes::{Competition, EncodedSupport, Prototypes};
use crate::similarity::{self, Similarity};
use crate::volume::Class;
use ndarray::Array3;
use tch::Tensor;

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
    templates: Vec<Prototypes>,
    belief: Belief,
    /// Of each class in a query.
    expected: Vec<Expected>,
    /// Of each class.
    min_fractions: Vec<MinFraction>,
    /// The channels (d, h, w) of each template.
    labels: Vec<Tensor>,
    /// ln p(class | place) (1, 1 + K, d, h, w) by the templates, where it has weight.
    log_prior: Option<Tensor>,
}

/// A query compared with all voters.
pub(super) struct Compared {
    query: EncodedScan,
    /// The supports first.
    similarities: Vec<Similarity>,
}

/// What is known of a volume beside its features.
#[derive(Clone, Copy)]
struct Context<'a> {
    min_fractions: &'a [MinFraction],
    log_prior: Option<&'a Tensor>,
    ranges: &'a [DepthRange],
}

impl Context<'_> {
    fn single_components(&self, scores: &Tensor) -> Tensor {
        let Self { min_fractions, log_prior, .. } = *self;
        SingleComponents { min_fractions, log_prior }.project(scores)
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

    /// Of each class whether there are templates, and none is believed about it.
    pub fn without_say(&self) -> Vec<bool> {
        let count = self.support.foreground.len();
        let nobody = |class: Class| !self.templates.is_empty() && self.belief.about(Some(class)).is_empty();
        (0..count).map(Class::at).map(nobody).collect()
    }

    /// Whether any support shows the background of each class.
    pub fn shows_background(&self) -> bool {
        self.support.background.iter().all(|rows| rows.size()[0] > 0)
    }
}

impl Fusion<'_> {
    /// A volume with features that are there already.
    pub fn encoded(&self, volume: &NetworkVolume, features: Tensor) -> EncodedScan {
        let size = features.size();
        let config = &self.config.supervoxels;
        let of_map = || supervoxels::on_map(volume, [size[2], size[3], size[4]], config);
        let supervoxels = (config.network_weight > 0.0).then(of_map);
        EncodedScan { features, supervoxels }
    }

    /// The prototypes of annotated volumes with `count` classes, and of the templates that are segmented from them.
    pub fn fit(&self, supports: &[Shot], templates: &[EncodedScan], count: usize) -> Voters {
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
        self.voters(support, &annotated, templates, min_fractions)
    }

    /// The templates are segmented from the supports, and in further rounds from the supports and all other templates. `annotated` are the
    /// supports, which say what templates are believed.
    fn voters(
        &self,
        support: Prototypes,
        annotated: &[EncodedSupport],
        templates: &[EncodedScan],
        min_fractions: Vec<MinFraction>,
    ) -> Voters {
        let count = min_fractions.len();
        let labels = |found: &[Template]| -> Vec<Tensor> {
            found.iter().map(|template| similarity::argmax(&template.scores)).collect()
        };
        let nothing = Context { min_fractions: &min_fractions, log_prior: None, ranges: &[] };
        let mut found = self.segment_templates(templates, &support, (&[], &Belief::default()), nothing);
        let mut belief = self.belief(&support, annotated, &found, count);
        for _ in 1..self.config.template_rounds {
            let log_prior = self.log_prior(&labels(&found), &belief, count, &[]);
            let context = Context { log_prior: log_prior.as_ref(), ..nothing };
            found = self.segment_templates(templates, &support, (&found, &belief), context);
            belief = self.belief(&support, annotated, &found, count);
        }
        let labels = labels(&found);
        let log_prior = self.log_prior(&labels, &belief, count, &[]);
        let scores: Vec<&Tensor> = found.iter().map(|template| &template.scores).collect();
        let expected = missing::expected(&scores, &belief, log_prior.as_ref(), count);
        let templates = found.into_iter().map(|template| template.prototypes).collect();
        Voters { support, templates, belief, expected, min_fractions, labels, log_prior }
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
        templates: &[EncodedScan],
        support: &Prototypes,
        (before, belief): (&[Template], &Belief),
        context: Context,
    ) -> Vec<Template> {
        let of_template = |(index, scan): (usize, &EncodedScan)| {
            let others = before.iter().enumerate().filter(|(other, _)| *other != index);
            let voters = std::iter::once(support).chain(others.map(|(_, template)| &template.prototypes));
            let voters: Vec<Similarity> = voters.map(|voter| self.similarity(&scan.features, voter)).collect();
            let belief = if before.is_empty() { Belief::default() } else { belief.without(index) };
            let scores = self.refine(scan, &voters, &belief, context, &[]);
            let mut prototypes = self.self_prototypes(&scan.features, &scores, context);
            if support.sizes_vox.is_none() {
                prototypes.sizes_vox = None; // they come from labels that tell nothing of sizes
            }
            Template { prototypes, scores: context.single_components(&scores) }
        };
        templates.iter().enumerate().map(of_template).collect()
    }

    /// ln p(class | place) by the channels of the templates, where it has weight.
    fn log_prior(&self, labels: &[Tensor], belief: &Belief, count: usize, ranges: &[DepthRange]) -> Option<Tensor> {
        let config = &self.config.spatial_prior;
        if config.weight > 0.0 { spatial_prior::log_prior(labels, belief, count, ranges, config) } else { None }
    }

    /// A query beside all voters.
    pub fn compare(&self, query: EncodedScan, voters: &Voters) -> Compared {
        let all = std::iter::once(&voters.support).chain(&voters.templates);
        let similarities = all.map(|voter| self.similarity(&query.features, voter)).collect();
        Compared { query, similarities }
    }

    /// Scores (1, 1 + K, d, h, w) of a query by the supports and templates together, and the classes that are missing in them: these are
    /// taken from the supports alone, with the volume that the templates let expect.
    pub fn fuse_labels(&self, compared: &Compared, voters: &Voters, ranges: &[DepthRange]) -> (Tensor, Vec<Class>) {
        let Voters { belief, expected, min_fractions, labels, log_prior, .. } = voters;
        let are_known = ranges.iter().any(Option::is_some);
        let stretched = if are_known { self.log_prior(labels, belief, min_fractions.len(), ranges) } else { None };
        let context = Context { min_fractions, log_prior: stretched.as_ref().or(log_prior.as_ref()), ranges };
        let refined = |voters: &[Similarity], belief: &Belief, bounds: &[VolumeBounds]| {
            context.single_components(&self.refine(&compared.query, voters, belief, context, bounds))
        };
        let found = refined(&compared.similarities, belief, &[]);
        let missing = missing::missing_classes(&found, log_prior.as_ref(), expected, &self.config.missing_class);
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

    /// Scores (1, 1 + K, d, h, w) of a volume by the supports alone, without evidence or rounds.
    pub fn scores_by_supports(&self, features: &Tensor, voters: &Voters) -> Tensor {
        self.similarity(features, &voters.support).scores()
    }

    fn similarity(&self, features: &Tensor, prototypes: &Prototypes) -> Similarity {
        let alpha = self.network.config.similarity.alpha;
        Similarity::transported(features, prototypes, alpha, &self.config.transport)
    }

    /// The median of the scores over the voters, with all evidence and under all constraints. In each further round the prototypes of
    /// the query's own confident voxels stand beside those of each voter. In the last round the features of each voxel decide alone:
    /// no evidence is added.
    fn refine(
        &self,
        query: &EncodedScan,
        voters: &[Similarity],
        belief: &Belief,
        context: Context,
        bounds: &[VolumeBounds],
    ) -> Tensor {
        let network = &self.network.config;
        let mut evidence: Vec<Box<dyn Evidence + '_>> = Vec::new();
        if let Some(labels) = &query.supervoxels {
            evidence.push(Box::new(SupervoxelMean { labels, weight: self.config.supervoxels.network_weight }));
        }
        if let Some(log_prior) = context.log_prior {
            evidence.push(Box::new(SpatialPrior { log_prior, weight: self.config.spatial_prior.weight }));
        }
        let (ranges, competition) = (context.ranges, network.similarity.competition);
        let in_range = InSliceRange { ranges, competition, config: &self.config.slice_range };

        let last = self.config.self_training_rounds;
        let mut scores = fused(&voters.iter().map(Similarity::scores).collect::<Vec<_>>(), belief);
        for round in 0..=last {
            if round > 0 {
                let own = self.self_prototypes(&query.features, &scores, context);
                let own = Similarity::of(&query.features, &own, network.similarity.alpha);
                let joined = voters.iter().map(|voter| voter.joined_with(&own).scores());
                scores = fused(&joined.collect::<Vec<_>>(), belief);
            }
            if round < last {
                scores = evidence.iter().fold(scores, |scores, evidence| evidence.add(scores));
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
mod tests {
    use super::*;
    use crate::config::{self, Config};
    use tch::{Device, Kind};

    /// A small network whose classes compete.
    fn setup(more: &[&str]) -> (Network, Config) {
        let set = ["features.f_maps=4", "similarity.competition=joint", "prototypes.test_window={size=[1, 2, 2]}"];
        let set: Vec<String> = set.iter().chain(more).map(|text| (*text).to_owned()).collect();
        let config = config::load(None, &set).unwrap();
        (Network::new(&config.network(), Device::Cpu, 0), config)
    }

    fn fuse(
        (network, config): &(Network, Config),
        features: &Tensor,
        supervoxels: Option<Array3<i32>>,
        voters: &Voters,
        ranges: &[DepthRange],
    ) -> (Tensor, Vec<usize>) {
        let fusion = Fusion { network, config: &config.inference };
        let query = EncodedScan { features: features.shallow_clone(), supervoxels };
        let (scores, missing) = fusion.fuse_labels(&fusion.compare(query, voters), voters, ranges);
        (similarity::argmax(&scores), missing.into_iter().map(Class::index).collect())
    }

    /// Features (1, 2, 1, 4, 4) whose left half is (0, 1) and whose right half is (1, 0).
    fn halves() -> Tensor {
        let of_channel = |left: f32| [left, left, 1.0 - left, 1.0 - left].repeat(4);
        Tensor::from_slice(&[of_channel(0.0), of_channel(1.0)].concat()).view([1, 2, 1, 4, 4])
    }

    fn prototypes(background: &[f32], foreground: &[f32]) -> Prototypes {
        let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 2])];
        Prototypes { background: rows(background), foreground: rows(foreground), sizes_vox: None }
    }

    #[test]
    fn templates_outvote_the_support_unless_they_miss_a_class() {
        let setup = setup(&[]);
        let left_is_found = |voters: &Voters| {
            let (found, _) = fuse(&setup, &halves(), None, voters, &[]);
            (found.int64_value(&[0, 0, 0]) == 1, found.int64_value(&[0, 0, 3]) == 1)
        };
        let left = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
        let right = || prototypes(&[0.0, 1.0], &[1.0, 0.0]);
        let nothing = || prototypes(&[1.0, 0.0, 0.0, 1.0], &[-1.0, -1.0]);
        let voters = |support, templates: Vec<Prototypes>, volume_vox: f64| Voters {
            support,
            belief: Belief::all(templates.len(), 1),
            templates,
            expected: vec![Expected { volume_vox, evidence_mass: 20.0 * volume_vox }],
            min_fractions: vec![None],
            labels: vec![],
            log_prior: None,
        };
        assert_eq!(left_is_found(&voters(left(), vec![], 0.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![right(), right()], 8.0)), (false, true));
        // Templates that find nothing in this query are passed over if they find something in each other.
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 8.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 0.0)), (false, false));
    }

    #[test]
    fn a_class_that_fusion_misses_comes_from_the_support_and_the_others_stay() {
        let setup = setup(&[]);
        let axis = |hot: usize| (0..3).map(move |c| if c == hot { 1.0f32 } else { 0.0 });
        let rows = |of: &[usize]| {
            let values: Vec<f32> = of.iter().flat_map(|&hot| axis(hot)).collect();
            Tensor::from_slice(&values).view([-1, 3])
        };
        let nowhere = || Tensor::from_slice(&[-1.0f32; 3]).view([1, 3]);
        let set = |background: Tensor, foreground: [Tensor; 2]| Prototypes {
            background: vec![background],
            foreground: foreground.into(),
            sizes_vox: None,
        };
        let columns = [0, 1, 2, 2]; // of the axis that a column's features lie on
        let channels: Vec<f32> =
            (0..3).flat_map(|c| columns.map(|hot| if hot == c { 1.0f32 } else { 0.0 }).repeat(4)).collect();
        let features = Tensor::from_slice(&channels).view([1, 3, 1, 4, 4]);
        let found = |volumes_vox: [f64; 2]| {
            let template = || set(rows(&[0, 1]), [rows(&[2]), nowhere()]);
            let voters = Voters {
                support: set(rows(&[2]), [rows(&[0]), rows(&[1])]),
                templates: vec![template(), template()],
                belief: Belief::all(2, 2),
                expected: volumes_vox
                    .map(|volume_vox| Expected { volume_vox, evidence_mass: 20.0 * volume_vox })
                    .into(),
                min_fractions: vec![None; 2],
                labels: vec![],
                log_prior: None,
            };
            let (labels, missing) = fuse(&setup, &features, None, &voters, &[]);
            ([0, 1, 2].map(|column| labels.int64_value(&[0, 1, column])), missing)
        };
        assert_eq!(found([8.0, 0.0]), ([0, 0, 1], vec![]));
        assert_eq!(found([8.0, 4.0]), ([0, 2, 1], vec![1]));
    }

    /// The class is the left half of the support. One template looks like the support, in three there is nothing but background.
    #[test]
    fn a_template_that_does_not_find_the_class_in_the_support_again_has_no_say() {
        let found = |least: f64| {
            let (network, config) = setup(&[&format!("inference.min_cycle_fraction={least}")]);
            let fusion = Fusion { network: &network, config: &config.inference };
            let classes = Tensor::from_slice(&[1i64, 1, 0, 0].repeat(4)).view([1, 4, 4]);
            let annotated = [EncodedSupport::new(halves(), &classes, 1)];
            let background = halves().narrow(4, 2, 2).repeat([1, 1, 1, 1, 2]);
            let scan = |features: &Tensor| EncodedScan { features: features.shallow_clone(), supervoxels: None };
            let templates = [&halves(), &background, &background, &background].map(scan);
            let support = network.test_prototypes(&annotated);
            let voters = fusion.voters(support, &annotated, &templates, vec![None]);
            let (scores, _) = fusion.fuse_labels(&fusion.compare(scan(&halves()), &voters), &voters, &[]);
            let labels = similarity::argmax(&scores);
            (voters.belief.about(Some(Class::at(0))), [0, 3].map(|column| labels.int64_value(&[0, 1, column])))
        };
        assert_eq!(found(0.6), (vec![0], [1, 0]));
        assert_eq!(found(0.0), (vec![0, 1, 2, 3], [0, 0]), "three of five voters see nothing");
    }

    /// Of three templates two look enough like the support to be found in, and the third looks like those two.
    #[test]
    fn in_a_second_round_templates_find_the_class_in_each_other() {
        let found = |rounds: u32| {
            let (network, config) = setup(&[&format!("inference.template_rounds={rounds}")]);
            let unit = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
            let (class, rest) = (unit(0.0), unit(125.0));
            // The class on the left, at so many degrees from the support's.
            let seen = |degrees: f32| {
                let of_channel = |c: usize| [unit(degrees)[c], unit(degrees)[c], rest[c], rest[c]].repeat(4);
                let features = Tensor::from_slice(&[of_channel(0), of_channel(1)].concat()).view([1, 2, 1, 4, 4]);
                EncodedScan { features, supervoxels: None }
            };
            let fusion = Fusion { network: &network, config: &config.inference };
            let voters = fusion.voters(prototypes(&rest, &class), &[], &[40.0, 40.0, 80.0].map(seen), vec![None]);
            voters.templates.iter().map(|template| template.foreground[0].size()[0] > 0).collect::<Vec<_>>()
        };
        assert_eq!(found(1), [true, true, false]);
        assert_eq!(found(2), [true, true, true]);
    }

    /// Two places look alike to the support, and the templates have seen the class on the left alone.
    #[test]
    fn the_prior_decides_between_equals() {
        let setup = setup(&["inference.self_training_rounds=2", "inference.spatial_prior.weight=1"]);
        // Columns: two of one kind, four of background, two of nearly the same kind.
        let [left, right, between] = [[1.0f32, 0.3, 0.0], [1.0, -0.3, 0.0], [0.0, 0.0, 1.0]];
        let columns = [left, left, between, between, between, between, right, right];
        let channel = |c: usize| columns.map(|column| column[c]).repeat(4);
        let features = Tensor::from_slice(&[channel(0), channel(1), channel(2)].concat()).view([1, 3, 1, 4, 8]);
        let rows = |values: &[f32]| vec![Tensor::from_slice(values).view([-1, 3])];
        let support = || {
            let (background, foreground) = (rows(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.05]), rows(&[1.0, 0.0, 0.0]));
            Prototypes { background, foreground, sizes_vox: None }
        };
        let shown = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).expand([1, 1, 1, 4, 8], false);
        let place = Tensor::cat(&[&(1.0 - &shown), &shown], 1); // as much as 1 of a score
        let found = |place| {
            let voters = Voters {
                support: support(),
                templates: vec![],
                belief: Belief::default(),
                expected: vec![],
                min_fractions: vec![],
                labels: vec![],
                log_prior: place,
            };
            let (labels, _) = fuse(&setup, &features, None, &voters, &[]);
            [0, 3, 7].map(|column| labels.int64_value(&[0, 1, column]))
        };
        assert_eq!(found(None), [1, 0, 1]);
        assert_eq!(found(Some(place)), [1, 0, 0]);
    }

    /// A column of the class that looks a little more like the background than like the class.
    #[test]
    fn a_supervoxel_brings_its_doubtful_voxels_along() {
        let setup = setup(&["inference.self_training_rounds=1", "inference.supervoxels.network_weight=1"]);
        let columns = [0.0f32, 0.0, 0.0, 47.0, 90.0, 90.0, 90.0, 90.0].map(|degrees| degrees.to_radians().sin_cos());
        let channels = [columns.map(|(_, cos)| cos).repeat(4), columns.map(|(sin, _)| sin).repeat(4)];
        let features = Tensor::from_slice(&channels.concat()).view([1, 2, 1, 4, 8]);
        let found = |supervoxels: Option<Array3<i32>>| {
            let support = prototypes(&[0.0, 1.0], &[1.0, 0.0]);
            let voters = Voters {
                support,
                templates: vec![],
                belief: Belief::default(),
                expected: vec![],
                min_fractions: vec![None],
                labels: vec![],
                log_prior: None,
            };
            let (labels, _) = fuse(&setup, &features, supervoxels, &voters, &[]);
            [0, 3, 4].map(|column| labels.int64_value(&[0, 2, column]))
        };
        assert_eq!(found(None), [1, 0, 0]);
        let halves = Array3::from_shape_fn((1, 4, 8), |(_, _, x)| i32::from(x > 3));
        assert_eq!(found(Some(halves)), [1, 1, 0]);
    }

    /// The same class at the head and at the foot: without ranges both are found.
    #[test]
    fn a_class_is_found_in_its_slice_range() {
        let setup = setup(&[]);
        let shows = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]).view([1, 1, 8, 1, 1]);
        let shows = shows.expand([1, 1, 8, 4, 4], false);
        let features = Tensor::cat(&[1.0 - &shows, shows], 1);
        let found = |ranges: &[DepthRange]| {
            let voters = Voters {
                support: prototypes(&[1.0, 0.0], &[0.0, 1.0]),
                templates: vec![],
                belief: Belief::default(),
                expected: vec![],
                min_fractions: vec![None],
                labels: vec![],
                log_prior: None,
            };
            let (labels, _) = fuse(&setup, &features, None, &voters, ranges);
            [0, 3, 7].map(|slice| labels.int64_value(&[slice, 1, 1]))
        };
        assert_eq!(found(&[]), [1, 0, 1]);
        assert_eq!(found(&[Some(0.7..1.0)]), [0, 0, 1]);
        assert_eq!(found(&[Some(0.0..0.3)]), [1, 0, 0]);
    }

    /// Of a few slices, which are those that show it, a class takes more than of a volume.
    #[test]
    fn a_support_that_is_annotated_in_a_few_slices_tells_nothing_of_sizes() {
        let set = ["features.levels=2", "features.pooling=[[1,2,2]]", "inference.transport.strength=0.5"];
        let (network, config) = setup(&set);
        let fusion = Fusion { network: &network, config: &config.inference };
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let image = zeros(&[1, 1, 10, 8, 8], Kind::Float);
        let _ = image.narrow(4, 0, 4).fill_(1.0);
        let volume = NetworkVolume { image: image.shallow_clone(), spacing_mm: [1.0; 3] };
        let template = || fusion.encoded(&volume, tch::no_grad(|| network.encode(&image)));
        let are_known = |slices: Option<i64>| {
            let classes = zeros(&[10, 8, 8], Kind::Int64);
            let _ = classes.narrow(0, 4, 2).narrow(2, 0, 4).fill_(1);
            let mut shot = Shot::new(image.shallow_clone(), classes);
            shot.known = slices.map(|count| {
                let known = image.zeros_like();
                let _ = known.narrow(2, (10 - count) / 2, count).fill_(1.0);
                known
            });
            let voters = tch::no_grad(|| fusion.fit(&[shot], &[template()], 1));
            [&voters.support, &voters.templates[0]].map(|prototypes| prototypes.sizes_vox.is_some())
        };
        assert_eq!(are_known(None), [true, true]);
        assert_eq!(are_known(Some(9)), [true, true]);
        assert_eq!(are_known(Some(2)), [false, false]);
    }
}
