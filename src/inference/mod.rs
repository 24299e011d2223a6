//! Supports and a query -> labels. Nothing here knows of files, flags or progress bars.
//!
//! The procedure, in the order of this file:
//!
//! 1. [`Segmenter::add_templates`] takes unlabelled scans, [`Segmenter::fit`] encodes them and the supports; the templates are segmented from them and
//!    asked what they are worth (`cycle.rs`), and the boundaries of the supports are compared with their annotation ([`boundary::calibration`]).
//! 2. [`Fitted::segment`] encodes a query, compares it with all prototypes, carries the labels of the supports to it (`propagation.rs`) and
//!    fuses the scores (`label_fusion.rs`): the median over supports and templates, then [`evidence`] is added, propagated labels get
//!    their share, and [`constraints`] are applied, round after round.
//! 3. The scores are brought to the scan's own grid, where supervoxels, intensities and propagated labels are further evidence
//!    ([`GridScores`]).
//! 4. Labels, constraints, and the boundary step ([`boundary`]).
//!
//! ```
//! use ssl3d::inference::{PreparedScan, Segmenter, SliceRanges, Support};
//! use ssl3d::{config, metrics, network::Network, synthesis::phantom};
//! use ssl3d::{preprocessing::Annotation, volume::ClassMap};
//!
//! # let small = ["features.f_maps=4", "features.output_channels=8", "prototypes.test_window={ size = [1, 2, 2] }"];
//! # let small: Vec<String> = ["preprocessing.size_vox=[8, 32, 32]"].iter().chain(&small).map(|text| text.to_string()).collect();
//! let config = config::load(None, &small)?; // some keys, as --set has them
//! // Random weights; `network.load` or `Pretrained::open` takes trained ones.
//! let network = Network::new(&config.network(), tch::Device::Cpu, 0);
//! # let (size_vox, spacing_mm) = ([8, 32, 32], [28.0, 10.4, 10.4]);
//! # let cohort = phantom::Config { subjects: 2, size_vox, spacing_mm, seed: 1 };
//! let [(image, labels), (query, truth)] =
//!     [0, 1].map(|index| phantom::subject(&cohort, index)); // of a generated cohort
//!
//! let (inference, supervoxels) = (&config.inference, &config.supervoxels);
//! let segmenter = Segmenter::new(&network, inference, supervoxels);
//! let support = PreparedScan::new(image, &config.preprocessing);
//! let support = Support { scan: &support, annotation: Annotation::new(labels, None) };
//! let fitted = segmenter.fit(&[support], &ClassMap::new([1])?); // the liver
//! let query = PreparedScan::new(query, &config.preprocessing);
//! let found = fitted.segment(&query, &SliceRanges::unknown());
//! let dice = metrics::dice(found.labels.view(), truth.voxels.view(), 1);
//! println!("Dice {dice:?}");
//! # assert!(dice > Some(0.2), "{dice:?}");
//! # Ok::<(), ssl3d::error::Error>(())
//! ```

pub mod boundary;
mod config;
pub mod constraints;
mod cycle;
pub mod evidence;
mod intensity_mapping;
mod label_fusion;
pub mod missing;
mod native;
mod plausibility;
mod propagation;
mod scorer;
mod sections;
mod segmentation;
mod supports;

pub use config::Config;
pub use constraints::slice_range::SliceRanges;
pub use native::{GridProbabilities, GridScores};
pub use plausibility::{Reference, label_doubts, query_doubts};
pub use scorer::Scorer;
pub use segmentation::Segmentation;
pub use supports::{NetworkVolume, PreparedScan, Shot, Support};

use crate::metrics;
use crate::network::{Members, Network};
use crate::supervoxels;
use crate::tensor::to_channels;
use crate::volume::{Class, ClassMap};
use boundary::calibration::{self, Calibration, CroppedProbability, Prediction};
use constraints::single_component::{keep_largest, single_component_values};
use evidence::intensity::Intensities;
use label_fusion::Fusion;
use ndarray::Array3;
use propagation::{Atlases, Propagated};
use scorer::{PrototypeScorer, SliceScorer};
use segmentation::Probabilities;
use std::collections::BTreeSet;
use std::ops::Range;
use tch::{Tensor, no_grad};

/// A network with the rules of inference and its unlabelled templates.
pub struct Segmenter<'a> {
    network: &'a Network,
    config: &'a Config,
    /// How the supervoxels of the scan's own grid are computed.
    supervoxels: &'a supervoxels::Config,
    templates: Vec<NetworkVolume>,
    keep_largest_of_all: bool,
}

impl<'a> Segmenter<'a> {
    /// Without templates.
    pub fn new(network: &'a Network, config: &'a Config, supervoxels: &'a supervoxels::Config) -> Self {
        Self { network, config, supervoxels, templates: vec![], keep_largest_of_all: false }
    }

    /// Unlabelled scans that are segmented from the supports and fused with them from now on, beside earlier ones. Which of all they are.
    pub fn add_templates(&mut self, templates: &[NetworkVolume]) -> Range<usize> {
        let before = self.templates.len();
        self.templates.extend(templates.iter().map(NetworkVolume::shallow_clone));
        before..self.templates.len()
    }

    /// Of every class only the largest component is kept, whatever the supports show.
    pub fn keep_largest_of_all(&mut self) {
        self.keep_largest_of_all = true;
    }

    /// What the supports and the templates tell of the classes.
    pub fn fit(&self, supports: &[Support], classes: &ClassMap) -> Fitted<'_> {
        let shots = supports::shots(supports, classes, |others| fit(self.fusion(), others, &[], classes.len()));
        let scorer = self.fit_shots(&shots, classes.len());
        let mut single = single_components(supports, classes, &self.config.single_component);
        if self.keep_largest_of_all {
            single.extend(classes.values());
        }
        let registration = &self.config.registration;
        let device = self.network.device();
        let is_asked = registration.enabled || self.config.boundary_calibration.enabled;
        let own = if is_asked { scorer.on_supports() } else { vec![] };
        let (scores, probabilities): (Vec<_>, Vec<_>) =
            own.into_iter().map(|own| (own.scores, own.probabilities)).unzip();
        let is_propagated = registration.enabled && scorer.shares().is_some();
        let atlases = is_propagated.then(|| Atlases::new(supports, &probabilities, classes, registration, device));
        let classes = classes.clone();
        let mut fitted = Fitted { segmenter: self, classes, scorer, single, boundaries: None, atlases };
        fitted.boundaries = fitted.boundaries_of(supports, scores);
        fitted
    }

    /// Boundaries that follow the edges of the image alone; None where they do not.
    fn edges(&self, classes: &ClassMap) -> Option<Calibration> {
        self.config.random_walker.enabled.then(|| Calibration::identity(classes.len()))
    }

    /// The same on the network's grid alone.
    fn fit_shots(&self, supports: &[Shot], count: usize) -> Box<dyn Scorer + 'a> {
        fit(self.fusion(), supports, &self.templates, count)
    }

    /// Scores (1, 1 + K, D, H, W) of a query -> its labels.
    fn finish<'q>(
        &self,
        query: &'q PreparedScan,
        scores: &Tensor,
        propagated: Option<(&Propagated, &[f64])>,
        classes: &'q ClassMap,
        boundaries: (&BTreeSet<i32>, Option<&Calibration>),
        ranges: &SliceRanges,
    ) -> Segmentation<'q>
    where
        'a: 'q,
    {
        let (single, calibration) = boundaries;
        let mut scores = self.native_scores(query, scores);
        if let Some((propagated, shares)) = propagated {
            scores = scores.with_propagated(propagated, shares);
        }
        let (labels, redrawn) = match calibration {
            None => (scores.labels(classes), None),
            Some(calibration) => {
                let found = constrained(scores.labels(classes), query, classes, single, ranges);
                let (labels, redrawn) = self.redrawn(query, &scores, &found, classes, calibration);
                (labels, Some(redrawn))
            }
        };
        let is_constrained = !single.is_empty() || *ranges != SliceRanges::unknown() || query.has_padding();
        let before = is_constrained.then(|| labels.clone());
        let mut labels = constrained(labels, query, classes, single, ranges);
        ranges.extend_into_range(&mut labels, classes, &self.config.slice_range);
        let competition = scores.competition();
        let probabilities = match redrawn {
            Some(redrawn) => Probabilities::Redrawn(redrawn),
            None => Probabilities::Grid(Box::new(scores)),
        };
        Segmentation { labels, missing: vec![], classes, probabilities, competition, before }
    }

    /// Labels and probabilities of the classes after the boundary step, from the labels before it.
    fn redrawn(
        &self,
        scan: &PreparedScan,
        scores: &GridScores,
        labels: &Array3<i32>,
        classes: &ClassMap,
        calibration: &Calibration,
    ) -> (Array3<i32>, Vec<CroppedProbability>) {
        let (config, walker) = (&self.config.boundary_calibration, &self.config.random_walker);
        let image = walker.enabled.then(|| (scan.image.voxels.view(), walker));
        with_prediction(scores, scan, labels, |prediction| calibration.apply(prediction, classes, config, image))
    }

    /// Scores on the scan's own grid with the evidence that is computed there.
    fn native_scores<'q>(&self, scan: &'q PreparedScan, scores: &Tensor) -> GridScores<'q>
    where
        'a: 'q,
    {
        let (config, competition) = (self.config, self.network.config.similarity.competition);
        let mut native = GridScores::new(&scan.grid, to_channels(scores), competition);
        let weight = config.supervoxels.native_weight;
        if weight > 0.0 {
            let labels = scan.supervoxels(self.supervoxels, config.supervoxels.max_vox);
            native = native.with_supervoxel_mean(labels.view(), weight);
        }
        let weight = config.intensity.weight;
        if weight > 0.0 {
            let image = scan.image.voxels.view();
            let intensities = Intensities::new(image, native.seen(image), &config.intensity);
            native = native.with_intensities(intensities, weight);
        }
        native
    }

    fn fusion(&self) -> Fusion<'a> {
        Fusion { network: self.network, config: self.config }
    }
}

/// What gives the scores of queries on the network's grid, from supports with `count` classes on that grid; without templates.
pub fn scorer<'a>(network: &'a Network, config: &'a Config, supports: &[Shot], count: usize) -> Box<dyn Scorer + 'a> {
    fit(Fusion { network, config }, supports, &[], count)
}

fn fit<'a>(fusion: Fusion<'a>, supports: &[Shot], templates: &[NetworkVolume], count: usize) -> Box<dyn Scorer + 'a> {
    no_grad(|| match &fusion.network.members {
        Members::UNets(_) => Box::new(PrototypeScorer::new(fusion, supports, templates, count)) as Box<dyn Scorer>,
        Members::SeNet(network) => Box::new(SliceScorer::new(network, supports, count, fusion.network.device())),
    })
}

/// A segmenter with its supports.
pub struct Fitted<'a> {
    segmenter: &'a Segmenter<'a>,
    classes: ClassMap,
    scorer: Box<dyn Scorer + 'a>,
    /// Label values of the classes that are one component.
    single: BTreeSet<i32>,
    /// None where boundaries are left as they are found.
    boundaries: Option<Calibration>,
    /// The supports, where their labels are propagated.
    atlases: Option<Atlases<'a>>,
}

impl Fitted<'_> {
    /// Labels and probabilities of a query; each class that `ranges` knows lies in its slices.
    pub fn segment<'q>(&'q self, query: &'q PreparedScan, ranges: &SliceRanges) -> Segmentation<'q> {
        self.segment_each(query, std::slice::from_ref(ranges), |found| found).pop().expect("one for each")
    }

    /// The same of a query that is one of the templates, that with this index. It has no say in itself.
    pub fn segment_template<'q>(
        &'q self,
        index: usize,
        query: &'q PreparedScan,
        ranges: &SliceRanges,
    ) -> Segmentation<'q> {
        self.segment_under(query, Some(index), std::slice::from_ref(ranges), |found| found).pop().expect("one for each")
    }

    /// What `keep` keeps of the segmentation under each of several slice ranges; the query is encoded and compared once.
    pub fn segment_each<'q, T>(
        &'q self,
        query: &'q PreparedScan,
        ranges: &[SliceRanges],
        keep: impl Fn(Segmentation<'q>) -> T,
    ) -> Vec<T> {
        self.segment_under(query, None, ranges, keep)
    }

    fn segment_under<'q, T>(
        &'q self,
        query: &'q PreparedScan,
        itself: Option<usize>,
        ranges: &[SliceRanges],
        keep: impl Fn(Segmentation<'q>) -> T,
    ) -> Vec<T> {
        if query.is_blank() {
            let competition = self.segmenter.network.config.similarity.competition;
            return ranges.iter().map(|_| keep(Segmentation::nothing(query, &self.classes, competition))).collect();
        }
        let laid = self.atlases.as_ref().map(|atlases| (atlases, atlases.overlay(query)));
        let volume = match &laid {
            Some((atlases, overlay)) => atlases.volume(query, overlay),
            None => query.volume(),
        };
        let mut compared = self.scorer.compare(&volume, itself);
        let found = compared.probabilities();
        let templates = compared.template_atlases();
        let propagated = laid.map(|(atlases, overlay)| atlases.propagated(query, &overlay, found.as_ref(), &templates));
        propagated.iter().for_each(|propagated| compared.propagate(propagated));
        let under = |ranges: &SliceRanges| {
            let (scores, missing) = compared.scores(&ranges.on_grid(&query.grid));
            let boundaries = (&self.single, self.boundaries.as_ref());
            let propagated = propagated.as_ref().zip(compared.shares());
            let found = self.segmenter.finish(query, &scores, propagated, &self.classes, boundaries, ranges);
            keep(Segmentation { missing, ..found })
        };
        ranges.iter().map(under).collect()
    }

    /// The classes that no support shows on the network's grid, nor on that of propagated labels. They are never predicted.
    pub fn classes_without_voxels(&self) -> Vec<Class> {
        let is_propagated = |class| self.atlases.as_ref().is_some_and(|atlases| atlases.show(class));
        let lost = |(class, shown): &(Class, bool)| !shown && !is_propagated(*class);
        self.classes.iter().zip(self.scorer.shown()).filter(lost).map(|(class, _)| class).collect()
    }

    /// The classes in which the templates, of which there are some, have no say: what was found in them does not lead back to the supports.
    pub fn classes_without_say(&self) -> Vec<Class> {
        self.classes
            .iter()
            .zip(self.scorer.without_say())
            .filter(|(_, without)| *without)
            .map(|(class, _)| class)
            .collect()
    }

    /// Whether any support shows what is none of the classes.
    pub fn shows_background(&self) -> bool {
        self.scorer.shows_background()
    }

    /// How boundaries are drawn again, from supports that are segmented from all with these scores, if there are any; None where they are
    /// not.
    fn boundaries_of(&self, supports: &[Support], scores: Vec<Tensor>) -> Option<Calibration> {
        let (segmenter, classes) = (self.segmenter, &self.classes);
        let edges = segmenter.edges(classes);
        let is_calibrated = segmenter.config.boundary_calibration.enabled;
        if scores.is_empty() || !is_calibrated && (edges.is_none() || self.atlases.is_none()) {
            return edges;
        }
        let mut scored = Vec::new();
        for (Support { scan, .. }, scores) in supports.iter().zip(scores) {
            let scores = segmenter.native_scores(scan, &scores);
            scored.push(if self.atlases.is_some() { scores.against_background() } else { scores }); // as in a query
        }
        let boundaries = if is_calibrated { self.calibrated(supports, &scored) } else { edges? };
        let Some(propagated) = self.atlases.as_ref().zip(self.scorer.shares()) else { return Some(boundaries) };
        let survival = self.survival(supports, scored, propagated, &boundaries);
        Some(boundaries.trusted(&survival))
    }

    /// How the annotators of the supports draw boundaries, beside what the network finds when each is segmented from all.
    fn calibrated(&self, supports: &[Support], scored: &[GridScores]) -> Calibration {
        let (config, classes) = (&self.segmenter.config.boundary_calibration, &self.classes);
        let mut samples = vec![Vec::new(); classes.len()];
        for (Support { scan, annotation }, scores) in supports.iter().zip(scored) {
            let labels = constrained(scores.labels(classes), scan, classes, &self.single, &SliceRanges::unknown());
            let of_support = with_prediction(scores, scan, &labels, |prediction| {
                calibration::samples(prediction, annotation, classes, config)
            });
            samples.iter_mut().zip(of_support).for_each(|(all, more)| all.extend(more));
        }
        Calibration::fit(&samples, config)
    }

    /// What the boundary step leaves of the supports' own labels, laid upon them with their shares: the Dice of each class beside that before
    /// the step, 1 of one that no support shows.
    fn survival(
        &self,
        supports: &[Support],
        scored: Vec<GridScores>,
        (atlases, shares): (&Atlases, Vec<f64>),
        boundaries: &Calibration,
    ) -> Vec<f64> {
        let (classes, unknown) = (&self.classes, SliceRanges::unknown());
        let mut sums = vec![[0.0; 2]; classes.len()]; // of Dice before and after
        for (index, (Support { scan, annotation }, scores)) in supports.iter().zip(scored).enumerate() {
            let scores = scores.with_propagated(&atlases.own(index, scan), &shares);
            let before = constrained(scores.labels(classes), scan, classes, &self.single, &unknown);
            let (after, _) = self.segmenter.redrawn(scan, &scores, &before, classes, boundaries);
            for (step, mut labels) in [before, after].into_iter().enumerate() {
                if let Some(known) = annotation.known() {
                    labels.zip_mut_with(known, |label, known| *label = if *known { *label } else { 0 });
                }
                for (class, sums) in classes.iter().zip(&mut sums) {
                    let truth = annotation.labels().voxels.view();
                    sums[step] += metrics::dice(labels.view(), truth, classes.value(class)).unwrap_or(0.0);
                }
            }
        }
        sums.iter().map(|[before, after]| if *before > 0.0 { (after / before).min(1.0) } else { 1.0 }).collect()
    }
}

/// The classes that are one component in every support that shows them.
fn single_components(
    supports: &[Support],
    classes: &ClassMap,
    config: &constraints::single_component::Config,
) -> BTreeSet<i32> {
    let mut single: BTreeSet<i32> = classes.values().iter().copied().filter(|_| config.enabled).collect();
    for Support { annotation, .. } in supports {
        let here = single_component_values(annotation, config);
        single.retain(|&value| here.contains(&value) || !annotation.shows(value));
    }
    single
}

/// Labels inside of their slice ranges and outside of padding, and of the classes that are one component the largest.
fn constrained(
    mut labels: Array3<i32>,
    scan: &PreparedScan,
    classes: &ClassMap,
    single: &BTreeSet<i32>,
    ranges: &SliceRanges,
) -> Array3<i32> {
    if scan.has_padding() {
        labels.zip_mut_with(&scan.image.voxels, |label, v| *label = if v.is_nan() { 0 } else { *label });
    }
    ranges.clear_outside(&mut labels, classes);
    keep_largest(&mut labels, single);
    labels
}

/// Calls `f` with the labels of a scan and the probabilities of their scores.
fn with_prediction<T>(
    scores: &GridScores,
    scan: &PreparedScan,
    labels: &Array3<i32>,
    f: impl FnOnce(&Prediction) -> T,
) -> T {
    let probabilities = scores.probabilities();
    let probability = |class: Class| probabilities.of(class);
    let spacing_mm = scan.nominal_spacing_mm();
    f(&Prediction { labels: labels.view(), probability: &probability, spacing_mm })
}
