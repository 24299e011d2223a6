//! How supports and templates become voters: the templates are segmented from the supports and from each other, and asked what they are
//! worth.

use super::agreement::dice;
use super::{Context, EncodedScan, Fusion, Voters, fused};
use crate::inference::constraints::single_component::{self, MinFraction};
use crate::inference::cycle::{Belief, dice_on_supports};
use crate::inference::evidence::spatial_prior::Places;
use crate::inference::missing;
use crate::inference::propagation::{LabelFractions, Moving, Overlay, TemplateAtlas};
use crate::inference::supports::{NetworkVolume, Shot};
use crate::prototypes::{EncodedSupport, Prototypes};
use crate::similarity::{self, Similarity};
use crate::volume::Class;
use tch::{Kind, Tensor};

/// A template with the labels of the supports, where they are propagated.
pub(super) struct Unlabelled {
    pub scan: EncodedScan,
    pub propagated: Option<ToTemplate>,
}

/// The supports that are laid upon a template, and their labels on its feature map.
pub(super) struct ToTemplate {
    overlay: Overlay,
    fields: Vec<Tensor>,
    pub labels: LabelFractions,
}

/// An unlabelled scan, segmented.
#[derive(Debug)]
struct Template {
    prototypes: Prototypes,
    /// (1, 1 + K, d, h, w)
    scores: Tensor,
}

impl Fusion<'_> {
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
    pub(super) fn unlabelled(
        &self,
        templates: &[NetworkVolume],
        support: &Prototypes,
        atlases: &[(&Tensor, &EncodedSupport)],
    ) -> Vec<Unlabelled> {
        let config = &self.config.registration;
        if !config.enabled || templates.is_empty() {
            return templates.iter().map(|of| Unlabelled { scan: self.encoded(of), propagated: None }).collect();
        }
        let found = |features: &Tensor| self.probabilities(&self.similarity(features, support).scores());
        let of_support =
            |(image, of): &(&Tensor, &EncodedSupport)| Moving::new(image, Some(&found(&of.features)), config);
        let moving: Vec<Moving> = atlases.iter().map(of_support).collect();
        let masks: Vec<&Tensor> = atlases.iter().map(|(_, annotated)| &annotated.masks).collect();
        let of_template = |template: &NetworkVolume| {
            let overlay = Overlay::new(&template.image.to_device(self.network.device()), moving.iter(), config);
            let scan = self.encoded(&overlay.seen(template.shallow_clone(), moving.iter(), config));
            let described = overlay.described(Some(&found(&scan.features)), config);
            let fields = overlay.refined(moving.iter(), &described, config);
            let size = scan.features.size();
            let labels = LabelFractions::warped(&masks, &fields, [size[2], size[3], size[4]]);
            Unlabelled { scan, propagated: Some(ToTemplate { overlay, fields, labels }) }
        };
        templates.iter().map(of_template).collect()
    }

    /// The templates are segmented from the supports, and in further rounds from the supports and all other templates. `annotated` are the
    /// supports, which say what templates are believed.
    pub(super) fn voters(
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
        let (indices, atlases) = (believed.clone(), vec![]);
        let voters = Voters {
            support,
            features,
            templates,
            indices,
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
            let mut scores: Vec<Tensor> =
                self.similarities(&scan.features, voters).iter().map(Similarity::scores).collect();
            let found = self.probabilities(&fused(&scores, &voters.belief));
            let _own = scores.remove(1 + index); // a query has none
            let others: Vec<usize> = (0..voters.templates.len()).filter(|other| *other != index).collect();
            let overlaps = dice(&fused(&scores, &voters.belief.only(&others)), &labels.masks());
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
}

/// The fraction of the supports that show each channel, (1, 1 + K, d, h, w).
fn shown(annotated: &[EncodedSupport]) -> Tensor {
    let masks: Vec<&Tensor> = annotated.iter().map(|support| &support.masks).collect();
    Tensor::cat(&masks, 0).mean_dim([0i64].as_slice(), true, Kind::Float)
}
