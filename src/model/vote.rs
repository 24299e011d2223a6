//! How a query is decided: the supports and the scans without labels, segmented from them and from each other, vote.

use super::lost::{self, Hold, Usual};
use super::pieces::{self, Held};
use super::told::{self, Told};
use super::{Model, place, regions};
use crate::prediction::{self, Similarity};
use crate::prototypes::{Prototypes, Support};
use tch::Tensor;

/// A volume as it is asked.
#[derive(Debug)]
pub(super) struct Seen {
    /// (1, C, d, h, w)
    pub features: Tensor,
    /// The supervoxel of each voxel, (d h w), where they have a say.
    pub regions: Option<Tensor>,
}

/// The supports and the templates, each with its say.
#[derive(Debug)]
pub struct Voters {
    /// All supports together.
    pub(super) support: Prototypes,
    templates: Vec<Prototypes>,
    /// Of each class.
    usual: Vec<Usual>,
    /// Which classes are one piece in the supports, and so in what is found.
    held: Vec<Held>,
    /// The class indices (d, h, w) of each template.
    labels: Vec<Tensor>,
    /// What the templates say of where a class lies, ln p(class | place) (1, 1 + K, d, h, w), if that is asked.
    place: Option<Tensor>,
}

/// What is known of a volume beside its looks.
#[derive(Clone, Copy)]
struct Known<'a> {
    held: &'a [Held],
    place: Option<&'a Tensor>,
    told: &'a [Told],
}

/// A scan without labels, segmented.
#[derive(Debug)]
struct Template {
    prototypes: Prototypes,
    /// (1, 1 + K, d, h, w)
    scores: Tensor,
}

impl Model {
    /// What the supports say, and the templates that are segmented from them.
    pub(super) fn voters(&self, support: Prototypes, held: Vec<Held>) -> Voters {
        let mut found = self.by_voters(&support, &[], Known { held: &held, place: None, told: &[] });
        let labels = |found: &[Template]| -> Vec<Tensor> {
            found.iter().map(|template| prediction::hard(&template.scores)).collect()
        };
        for _ in 1..self.config.prediction.generations {
            let place = self.place(&labels(&found), held.len(), &[]);
            found = self.by_voters(&support, &found, Known { held: &held, place: place.as_ref(), told: &[] });
        }
        let labels = labels(&found);
        let place = self.place(&labels, held.len(), &[]);
        let scores: Vec<&Tensor> = found.iter().map(|template| &template.scores).collect();
        let usual = lost::usual(&scores, place.as_ref(), held.len());
        let templates = found.into_iter().map(|template| template.prototypes).collect();
        Voters { support, templates, usual, held, labels, place }
    }

    /// The templates as the supports and the others among `before` see them.
    fn by_voters(&self, support: &Prototypes, before: &[Template], known: Known) -> Vec<Template> {
        let of_template = |(index, seen): (usize, &Seen)| {
            let others = before.iter().enumerate().filter(|(other, _)| *other != index);
            let voters = std::iter::once(support).chain(others.map(|(_, template)| &template.prototypes));
            let voters: Vec<Similarity> = voters.map(|voter| self.asked(&seen.features, voter)).collect();
            let scores = self.refined(seen, &voters, known, &[]);
            let mut prototypes = self.beyond_doubt(&seen.features, &scores, known);
            if support.sizes.is_empty() {
                prototypes.sizes.clear(); // it was found from what says nothing of sizes
            }
            Template { prototypes, scores: pieces::settled(&scores, known.held, known.place) }
        };
        self.templates.iter().enumerate().map(of_template).collect()
    }

    /// What templates with these class indices tell of places, if that is asked.
    fn place(&self, labels: &[Tensor], count: usize, told: &[Told]) -> Option<Tensor> {
        if self.config.prediction.place_weight > 0.0 { place::log_prior(labels, count, told) } else { None }
    }

    /// Scores of a query by the supports and templates together, and the classes that they lose: such a one is taken from what the
    /// supports say alone when they have to find about as much of it as is usual.
    pub(super) fn elected(&self, query: &Seen, voters: &Voters, told: &[Told]) -> (Tensor, Vec<usize>) {
        let Voters { support, templates, usual, held, labels, place } = voters;
        let is_told = told.iter().any(Option::is_some);
        let place_by_slices = if is_told { self.place(labels, held.len(), told) } else { None };
        let place = place_by_slices.as_ref().or(place.as_ref());
        let known = Known { held, place, told };
        let all: Vec<Similarity> =
            std::iter::once(support).chain(templates).map(|voter| self.asked(&query.features, voter)).collect();
        let refined = |voters: &[Similarity], holds: &[Hold]| {
            pieces::settled(&self.refined(query, voters, known, holds), held, place)
        };
        let found = refined(&all, &[]);
        let lost = lost::classes(&found, place, usual);
        if lost.is_empty() {
            return (found, vec![]);
        }
        let alone = refined(&all[..1], &lost);
        let found = lost.iter().fold(found, |found, hold| lost::with_class(&found, &alone, hold.class));
        (pieces::settled(&found, held, place), lost.iter().map(|hold| hold.class).collect())
    }

    pub(super) fn asked(&self, features: &Tensor, prototypes: &Prototypes) -> Similarity {
        let prediction::Config { alpha, balance, .. } = self.config.prediction;
        Similarity::balanced(features, prototypes, alpha, balance)
    }

    /// Scores (1, 1 + K, d, h, w) of a query, the median over the voters. In each round of refinement the voxels of the query that
    /// are beyond doubt stand beside each voter. Supervoxels and what is known of places help to find the classes; in the last
    /// round the appearance of each voxel decides alone, but for what is told and how much there may be of a lost class.
    fn refined(&self, query: &Seen, voters: &[Similarity], known: Known, lost: &[Hold]) -> Tensor {
        let prediction::Config { alpha, rounds, round_supervoxel_weight, place_weight, test_classes, .. } =
            self.config.prediction;
        let helped = |found: Tensor, round: u32| {
            let is_last = round == rounds;
            let found = match &query.regions {
                Some(regions) if !is_last => regions::pooled(&found, regions, round_supervoxel_weight),
                _ => found,
            };
            let size = found.size();
            let found = match known.place {
                Some(place) if !is_last => {
                    prediction::interpolate(place, [size[2], size[3], size[4]]) * place_weight + found
                }
                _ => found,
            };
            lost::held(told::within(found, known.told, test_classes), lost, !is_last)
        };
        let median = |scores: Vec<Tensor>| prediction::median(&scores);
        let mut found = helped(median(voters.iter().map(Similarity::scores).collect()), 0);
        for round in 1..=rounds {
            let own = self.beyond_doubt(&query.features, &found, known);
            let own = Similarity::of(&query.features, &own, alpha);
            found = helped(median(voters.iter().map(|voter| voter.beside(&own).scores()).collect()), round);
        }
        found
    }

    /// The prototypes of a volume with these scores, as if it were annotated where its class is beyond doubt and nowhere
    /// else. A second piece of a class that is `held` to one is in doubt.
    fn beyond_doubt(&self, features: &Tensor, scores: &Tensor, known: Known) -> Prototypes {
        let prediction::Config { test_classes, confidence, .. } = self.config.prediction;
        let (classes, is_known) = prediction::confident(scores, test_classes, confidence);
        let settled = pieces::settled(scores, known.held, known.place);
        let is_known = is_known * pieces::agreement(scores, &settled).to_kind(scores.kind());
        let count = scores.size()[1] - 1;
        self.test_prototypes(&[Support::sparse(features.shallow_clone(), &classes, count, &is_known)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::model::{Reference, Shot};
    use tch::Device;

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
            let found = prediction::hard(&model.elected(&Seen { features: halves(), regions: None }, voters, &[]).0);
            (found.int64_value(&[0, 0, 0]) == 1, found.int64_value(&[0, 0, 3]) == 1)
        };
        let left = || prototypes(&[1.0, 0.0], &[0.0, 1.0]);
        let right = || prototypes(&[0.0, 1.0], &[1.0, 0.0]);
        let nothing = || prototypes(&[1.0, 0.0, 0.0, 1.0], &[-1.0, -1.0]);
        let voters = |support, templates, volume_vox: f64| Voters {
            support,
            templates,
            usual: vec![Usual { volume_vox, worth: 20.0 * volume_vox }],
            held: vec![None],
            labels: vec![],
            place: None,
        };
        assert_eq!(left_is_found(&voters(left(), vec![], 0.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![right(), right()], 8.0)), (false, true));
        // Templates that find nothing in this query are passed over if they find something in each other.
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 8.0)), (true, false));
        assert_eq!(left_is_found(&voters(left(), vec![nothing(), nothing()], 0.0)), (false, false));
    }

    #[test]
    fn a_class_that_the_vote_loses_comes_from_the_support_and_the_others_stay_as_voted() {
        let set = ["features.f_maps=4", "prediction.test_classes=joint", "prototypes.test_window={size=[1, 2, 2]}"];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let axis = |hot: usize| (0..3).map(move |c| if c == hot { 1.0f32 } else { 0.0 });
        let rows = |of: &[usize]| {
            let values: Vec<f32> = of.iter().flat_map(|&hot| axis(hot)).collect();
            Tensor::from_slice(&values).view([-1, 3])
        };
        let nowhere = || Tensor::from_slice(&[-1.0f32; 3]).view([1, 3]);
        let set = |background: Tensor, foreground: [Tensor; 2]| Prototypes {
            background: vec![background],
            foreground: foreground.into(),
            sizes: vec![],
        };
        let columns = [0, 1, 2, 2]; // of the axis that a column's features lie on
        let channels: Vec<f32> =
            (0..3).flat_map(|c| columns.map(|hot| if hot == c { 1.0f32 } else { 0.0 }).repeat(4)).collect();
        let query = Seen { features: Tensor::from_slice(&channels).view([1, 3, 1, 4, 4]), regions: None };
        let found = |volumes_vox: [f64; 2]| {
            let template = || set(rows(&[0, 1]), [rows(&[2]), nowhere()]);
            let voters = Voters {
                support: set(rows(&[2]), [rows(&[0]), rows(&[1])]),
                templates: vec![template(), template()],
                usual: volumes_vox.map(|volume_vox| Usual { volume_vox, worth: 20.0 * volume_vox }).into(),
                held: vec![None; 2],
                labels: vec![],
                place: None,
            };
            let (scores, lost) = model.elected(&query, &voters, &[]);
            let hard = prediction::hard(&scores);
            ([0, 1, 2].map(|column| hard.int64_value(&[0, 1, column])), lost)
        };
        assert_eq!(found([8.0, 0.0]), ([0, 0, 1], vec![]));
        assert_eq!(found([8.0, 4.0]), ([0, 2, 1], vec![1]));
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
            "prediction.place_weight=1",
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
            let voters =
                Voters { support: support(), templates: vec![], usual: vec![], held: vec![], labels: vec![], place };
            let query = Seen { features: features.shallow_clone(), regions: None };
            let hard = prediction::hard(&model.elected(&query, &voters, &[]).0);
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
            let voters =
                Voters { support, templates: vec![], usual: vec![], held: vec![None], labels: vec![], place: None };
            let query = Seen { features: features.shallow_clone(), regions };
            let hard = prediction::hard(&model.elected(&query, &voters, &[]).0);
            [0, 3, 4].map(|column| hard.int64_value(&[0, 2, column]))
        };
        assert_eq!(found(None), [1, 0, 0]);
        let halves = Tensor::from_slice(&[0i64, 0, 0, 0, 1, 1, 1, 1].repeat(4));
        assert_eq!(found(Some(halves)), [1, 1, 0]);
    }

    /// The same class at the head and at the foot: without a word the vote takes both.
    #[test]
    fn a_class_is_found_in_the_slices_that_are_told() {
        let set = ["features.f_maps=4", "prediction.test_classes=joint", "prototypes.test_window={size=[1, 2, 2]}"];
        let model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let shows = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]).view([1, 1, 8, 1, 1]);
        let shows = shows.expand([1, 1, 8, 4, 4], false);
        let features = Tensor::cat(&[1.0 - &shows, shows], 1);
        let found = |told: &[Told]| {
            let voters = Voters {
                support: prototypes(&[1.0, 0.0], &[0.0, 1.0]),
                templates: vec![],
                usual: vec![],
                held: vec![None],
                labels: vec![],
                place: None,
            };
            let hard = prediction::hard(
                &model.elected(&Seen { features: features.shallow_clone(), regions: None }, &voters, told).0,
            );
            [0, 3, 7].map(|slice| hard.int64_value(&[slice, 1, 1]))
        };
        assert_eq!(found(&[]), [1, 0, 1]);
        assert_eq!(found(&[Some(0.7..1.0)]), [0, 0, 1]);
        assert_eq!(found(&[Some(0.0..0.3)]), [1, 0, 0]);
    }

    /// Of a few slices, which are those that show it, a class takes more than of a volume.
    #[test]
    fn a_support_that_is_annotated_in_a_few_slices_holds_nothing_to_its_size() {
        let set = [
            "features.f_maps=4",
            "features.levels=2",
            "features.pooling=[[1,2,2]]",
            "prediction.test_classes=joint",
            "prediction.balance=0.5",
            "prototypes.test_window={size=[1, 2, 2]}",
        ];
        let mut model = Model::new(&config::load(None, &set.map(str::to_owned)).unwrap().model(), Device::Cpu, 0);
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let image = zeros(&[1, 1, 10, 8, 8], tch::Kind::Float);
        let _ = image.narrow(4, 0, 4).fill_(1.0);
        model.ask_beside(&[image.shallow_clone()]);
        let are_known = |slices: Option<i64>| {
            let classes = zeros(&[10, 8, 8], tch::Kind::Int64);
            let _ = classes.narrow(0, 4, 2).narrow(2, 0, 4).fill_(1);
            let mut shot = Shot::new(image.shallow_clone(), classes);
            shot.known = slices.map(|count| {
                let known = image.zeros_like();
                let _ = known.narrow(2, (10 - count) / 2, count).fill_(1.0);
                known
            });
            let Reference::Voters(voters) = model.reference(&[shot], 1) else { unreachable!("a U-Net") };
            [&voters.support, &voters.templates[0]].map(|prototypes| !prototypes.sizes.is_empty())
        };
        assert_eq!(are_known(None), [true, true]);
        assert_eq!(are_known(Some(9)), [true, true]);
        assert_eq!(are_known(Some(2)), [false, false]);
    }
}
