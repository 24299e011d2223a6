//! Scores of a query on the network's grid, by the kinds of networks.

use super::constraints::slice_range::DepthRange;
use super::label_fusion::{Compared, Fusion, Voters};
use super::propagation::{Propagated, TemplateAtlas};
use super::supports::{NetworkVolume, Shot};
use crate::baselines::SeNet;
use crate::baselines::se_net::volume::Slices;
use crate::similarity::{self, ABSENT};
use crate::volume::Class;
use tch::{Device, Kind, Tensor, no_grad};

/// What supports tell of their classes: made once, for any number of queries.
pub trait Scorer {
    /// A query beside the supports and templates; without that one of all templates which it is itself, if it is one.
    fn compare(&self, query: &NetworkVolume, itself: Option<usize>) -> Box<dyn ComparedQuery + '_>;

    /// What is found in each support itself; nothing of a network of single slices.
    fn on_supports(&self) -> Vec<OnSupport> {
        vec![]
    }

    /// The share that propagated labels have in each class; None of a network of single slices, which has no use for them.
    fn shares(&self) -> Option<Vec<f64>> {
        None
    }

    /// For each class whether any support shows it. A class that none shows is never predicted.
    fn shown(&self) -> Vec<bool>;

    /// For each class whether no template is believed about it, although there are some.
    fn without_say(&self) -> Vec<bool> {
        vec![false; self.shown().len()]
    }

    /// Whether any support shows what is none of the classes.
    fn shows_background(&self) -> bool;

    /// Scores (1, 1 + K, D, H, W) of a query of which nothing else is known.
    fn scores(&self, query: &NetworkVolume) -> Tensor {
        self.compare(query, None).scores(&[]).0
    }
}

/// What the supports, and the templates, find in one of the supports, without evidence or rounds.
pub struct OnSupport {
    /// Scores (1, 1 + K, D, H, W) by the supports alone.
    pub scores: Tensor,
    /// Probabilities (1, K, d, h, w) of the classes by supports and templates, where labels are propagated.
    pub probabilities: Option<Tensor>,
}

/// A query that was compared with the supports.
pub trait ComparedQuery {
    /// Scores (1, 1 + K, D, H, W) where the depth ranges of some classes are known, and the classes that are missing in them. The logits
    /// of an SE-Net are those of each class against the rest, beside 0 for the background, whatever the ranges.
    fn scores(&self, ranges: &[DepthRange]) -> (Tensor, Vec<Class>);

    /// Labels of the supports that were propagated to the query have their share in [`ComparedQuery::scores`] from now on; a network of
    /// single slices has no use for them.
    fn propagate(&mut self, _: &Propagated) {}

    /// The share that propagated labels have in each class of the query; None of a network of single slices.
    fn shares(&self) -> Option<&[f64]> {
        None
    }

    /// Scores (1, 1 + K, D, H, W) by the supports alone, without evidence or rounds; None of a network of single slices.
    fn scores_by_supports(&self) -> Option<Tensor> {
        None
    }

    /// The templates that hand the labels of the supports on to the query; none of a network of single slices.
    fn template_atlases(&self) -> Vec<&TemplateAtlas> {
        vec![]
    }

    /// Probabilities (1, K, d, h, w) of the classes by supports and templates, without evidence or rounds; None of a network of single slices.
    fn probabilities(&self) -> Option<Tensor> {
        None
    }
}

/// Prototypes of supports and templates.
pub(super) struct PrototypeScorer<'a> {
    fusion: Fusion<'a>,
    voters: Voters,
    /// Of each support.
    sizes_vox: Vec<[i64; 3]>,
}

struct ComparedPrototypes<'a> {
    scorer: &'a PrototypeScorer<'a>,
    compared: Compared,
    size_vox: [i64; 3],
}

impl<'a> PrototypeScorer<'a> {
    pub fn new(fusion: Fusion<'a>, supports: &[Shot], templates: &[NetworkVolume], count: usize) -> Self {
        let voters = fusion.fit(supports, templates, count);
        let sizes_vox = supports.iter().map(|support| size_vox(&support.image)).collect();
        Self { fusion, voters, sizes_vox }
    }
}

impl Scorer for PrototypeScorer<'_> {
    fn compare(&self, query: &NetworkVolume, itself: Option<usize>) -> Box<dyn ComparedQuery + '_> {
        no_grad(|| {
            let compared = self.fusion.compare(self.fusion.encoded(query), &self.voters, itself);
            Box::new(ComparedPrototypes { scorer: self, compared, size_vox: size_vox(&query.image) })
        })
    }

    fn on_supports(&self) -> Vec<OnSupport> {
        let Self { fusion, voters, sizes_vox } = self;
        let at_size = |((scores, probabilities), size_vox): ((Tensor, _), &[i64; 3])| OnSupport {
            scores: similarity::interpolate(&scores, *size_vox),
            probabilities,
        };
        no_grad(|| fusion.on_supports(voters).into_iter().zip(sizes_vox).map(at_size).collect())
    }

    fn shares(&self) -> Option<Vec<f64>> {
        Some(self.voters.shares().to_vec())
    }

    fn shown(&self) -> Vec<bool> {
        self.voters.shown()
    }

    fn without_say(&self) -> Vec<bool> {
        self.voters.without_say()
    }

    fn shows_background(&self) -> bool {
        self.voters.shows_background()
    }
}

impl ComparedQuery for ComparedPrototypes<'_> {
    fn scores(&self, ranges: &[DepthRange]) -> (Tensor, Vec<Class>) {
        no_grad(|| {
            let PrototypeScorer { fusion, voters, .. } = self.scorer;
            let (scores, missing) = fusion.fuse_labels(&self.compared, voters, ranges);
            (similarity::interpolate(&scores, self.size_vox), missing)
        })
    }

    fn propagate(&mut self, propagated: &Propagated) {
        no_grad(|| self.compared.propagate(propagated, &self.scorer.voters));
    }

    fn shares(&self) -> Option<&[f64]> {
        Some(self.compared.shares())
    }

    fn scores_by_supports(&self) -> Option<Tensor> {
        Some(no_grad(|| similarity::interpolate(&self.compared.scores_by_supports(), self.size_vox)))
    }

    fn template_atlases(&self) -> Vec<&TemplateAtlas> {
        self.scorer.voters.atlases(&self.compared)
    }

    fn probabilities(&self) -> Option<Tensor> {
        Some(no_grad(|| self.scorer.fusion.query_probabilities(&self.compared)))
    }
}

/// Slices of supports for an SE-Net.
pub(super) struct SliceScorer<'a> {
    network: &'a SeNet,
    slices: Slices,
    device: Device,
}

impl<'a> SliceScorer<'a> {
    pub fn new(network: &'a SeNet, supports: &[Shot], count: usize, device: Device) -> Self {
        // What is not annotated shows no class; slices without one are left out.
        let annotated = |shot: &Shot| {
            let known = shot.known.as_ref().map(|known| known.gt(0.0).to_kind(Kind::Int64).squeeze());
            let classes = known.map_or_else(|| shot.classes.shallow_clone(), |known| &shot.classes * known);
            (shot.image.to_device(device), classes.to_device(device))
        };
        let supports: Vec<(Tensor, Tensor)> = supports.iter().map(annotated).collect();
        Self { network, slices: Slices::new(network, &supports, count as i64), device }
    }
}

impl Scorer for SliceScorer<'_> {
    fn compare(&self, query: &NetworkVolume, _: Option<usize>) -> Box<dyn ComparedQuery + '_> {
        Box::new(no_grad(|| ComparedSlices(self.slices.scores(self.network, &query.image.to_device(self.device)))))
    }

    fn shown(&self) -> Vec<bool> {
        self.slices.shown()
    }

    fn shows_background(&self) -> bool {
        true // the slices that show a class show what surrounds it
    }
}

struct ComparedSlices(Tensor);

impl ComparedQuery for ComparedSlices {
    fn scores(&self, _: &[DepthRange]) -> (Tensor, Vec<Class>) {
        (self.0.shallow_clone(), vec![])
    }
}

/// Scores (1, 1 + K, D, H, W) of a volume (1, 1, D, H, W) in which no class is found.
pub(super) fn absent(image: &Tensor, count: usize) -> Tensor {
    let [d, h, w] = size_vox(image);
    let scores = Tensor::zeros([1, 1 + count as i64, d, h, w], (Kind::Float, image.device()));
    let _ = scores.narrow(1, 1, count as i64).fill_(f64::from(ABSENT));
    scores
}

fn size_vox(image: &Tensor) -> [i64; 3] {
    let size = image.size();
    [size[2], size[3], size[4]]
}
