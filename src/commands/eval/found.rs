//! What a system finds in a query, by protocol: the protocols differ in what of the support is annotated, and slice-wise
//! networks see only what their protocol pairs.

use crate::baseline;
use crate::borders::Borders;
use crate::borders::ends::Slices;
use crate::commands::cohort::{Drawing, Subject};
use crate::config::Config;
use crate::features::Network;
use crate::metrics::{Protocol, z_range};
use crate::model::{Model, Reference, Shot};
use crate::prediction::ABSENT;
use crate::supervoxels::one_pieces;
use crate::tensor::{from_voxels, to_channels};
use crate::volume::LabelMap;
use crate::volume::sparse::{annotate_slices, middle_slices};
use ndarray::Array3;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Slices of the support that EP1 annotates for a slice-wise network (Ouyang et al. 2020), one for each third of the
/// organ.
const EP1_SLICES: usize = 3;
/// Stands for what is not annotated; no label of any file.
const UNKNOWN: i32 = i32::MIN;

/// A scan with its truth.
pub struct Annotated {
    pub id: String,
    pub subject: Subject,
    pub labels: LabelMap,
}

/// Label maps of a query on its native grid.
pub enum Found {
    /// Of all classes together.
    Joint(Array3<i32>),
    /// Of each class by itself, in the order of the values.
    Each(Vec<Array3<i32>>),
}

impl Found {
    /// The map in which the class at `index` stands.
    pub fn of(&self, index: usize) -> &Array3<i32> {
        match self {
            Self::Joint(map) => map,
            Self::Each(maps) => &maps[index],
        }
    }

    /// All classes in one map, for a picture: of several the last.
    pub fn joined(&self, values: &[i32]) -> Array3<i32> {
        match self {
            Self::Joint(map) => map.clone(),
            Self::Each(maps) => {
                let mut all = Array3::zeros(maps[0].dim());
                for (map, value) in maps.iter().zip(values) {
                    all.zip_mut_with(map, |all, label| *all = if label == value { *value } else { *all });
                }
                all
            }
        }
    }
}

/// What segments: a network with the weights of a fold, or what needs none.
pub enum Segmenter {
    Network(Box<Model>),
    Floor(baseline::Method),
}

impl Segmenter {
    /// How much of a support `protocol` lets the system see, and beside how many scans without labels.
    pub fn annotation(config: &Config, protocol: Protocol) -> String {
        let is_sliced = is_sliced(config) && config.baseline.method == baseline::Method::None;
        let of_support = match (protocol, config.split.support_slices) {
            (Protocol::Ep2, _) => "middle slice".to_owned(),
            (Protocol::Ep1, _) if is_sliced => format!("{EP1_SLICES} slices"),
            (_, 0) => "dense".to_owned(),
            (_, 1) => "1 slice".to_owned(),
            (_, n) => format!("{n} slices"),
        };
        let beside = match config.prediction.templates {
            0 => String::new(),
            count => format!(", {count} templates"),
        };
        let is_network = config.baseline.method == baseline::Method::None;
        let is_told = protocol == Protocol::Ep1 && is_network && !is_sliced && config.split.ep1_told;
        let told = if is_told { ", told its slices" } else { "" };
        format!("{of_support}{beside}{told}")
    }

    /// What is known of a support before any query is seen.
    pub fn reference<'a>(&'a self, support: &'a Annotated, values: &'a [i32], config: &'a Config) -> Supported<'a> {
        let labels = support.visible(values, config);
        let dense = match self {
            Self::Floor(_) => None,
            Self::Network(model) => {
                let shot = support.subject.shot(&labels, values, Some(UNKNOWN));
                Some(model.reference(&[shot], values.len() as i64))
            }
        };
        let one_pieces = held_to_one_piece(&labels, config);
        let by_slice = values.iter().map(|_| OnceCell::new()).collect();
        let mut supported =
            Supported { segmenter: self, support, values, config, labels, dense, borders: None, by_slice, one_pieces };
        if let (Self::Network(model), Some(reference)) = (self, &supported.dense) {
            supported.borders = supported.learned(model, reference, &supported.labels, values, &supported.one_pieces);
        }
        supported
    }
}

impl Annotated {
    /// The labels, [`UNKNOWN`] where nothing is annotated and off the slices that `split.support_slices` leaves.
    fn visible(&self, values: &[i32], config: &Config) -> LabelMap {
        match config.split.support_slices {
            0 => self.known(config),
            count => {
                let each = values.iter().flat_map(|&value| middle_slices(&self.labels.voxels, value, count));
                self.on_slices(&each.collect::<Vec<_>>(), config)
            }
        }
    }

    fn known(&self, config: &Config) -> LabelMap {
        let mut labels = self.labels.clone();
        if let Some(ignore) = config.data.ignore {
            labels.voxels.mapv_inplace(|label| if label == ignore { UNKNOWN } else { label });
        }
        labels
    }

    /// As if these slices alone were annotated.
    fn on_slices(&self, slices: &[usize], config: &Config) -> LabelMap {
        let known = self.known(config);
        LabelMap { voxels: annotate_slices(&known.voxels, slices, UNKNOWN), geometry: known.geometry }
    }
}

/// What is looked for: label values, those of them that are one piece, and where somebody has told it their slices.
#[derive(Clone, Copy)]
struct Asked<'a> {
    values: &'a [i32],
    one_pieces: &'a BTreeSet<i32>,
    slices: &'a [Slices],
}

impl<'a> Asked<'a> {
    fn of(values: &'a [i32], one_pieces: &'a BTreeSet<i32>) -> Self {
        Self { values, one_pieces, slices: &[] }
    }
}

/// A segmenter with its support.
pub struct Supported<'a> {
    segmenter: &'a Segmenter,
    support: &'a Annotated,
    values: &'a [i32],
    config: &'a Config,
    /// What of the support is annotated, for the whole volume.
    labels: LabelMap,
    /// What a network knows of that.
    dense: Option<Reference>,
    /// How the support's annotator draws, where the configuration learns it.
    borders: Option<Borders>,
    /// What it knows of each class from its middle slice, once that was asked for.
    by_slice: Vec<OnceCell<(Reference, Option<Borders>)>>,
    one_pieces: BTreeSet<i32>,
}

impl Supported<'_> {
    /// Whether what was found under one protocol can be scored under `protocol`, too: a joint map is that of the whole
    /// volume, and EP1 looks at a part of it. A slice-wise network sees other slices then, and one of volumes may be told some.
    pub fn serves(&self, found: &Found, protocol: Protocol) -> bool {
        let is_told = is_sliced(self.config) || self.config.split.ep1_told;
        let is_network = matches!(self.segmenter, Segmenter::Network(_));
        let is_other = protocol == Protocol::Ep2 || protocol == Protocol::Ep1 && is_network && is_told;
        matches!(found, Found::Joint(_)) && !is_other
    }

    /// None where the system has no such protocol: a mask of one slice cannot be laid over a volume.
    pub fn segment(&self, query: &Annotated, protocol: Protocol) -> Option<Found> {
        let model = match self.segmenter {
            Segmenter::Floor(_) if protocol == Protocol::Ep2 => return None,
            Segmenter::Floor(method) => {
                let (support, percentile) = (&self.support.subject.image, self.config.preprocess.clip_percentile);
                return method.segment(support, &self.labels, &query.subject.image, percentile).map(Found::Joint);
            }
            Segmenter::Network(model) => model,
        };
        Some(match protocol {
            Protocol::Ep2 => {
                let each = (0..self.values.len()).map(|class| self.by_middle_slice(model, query, class));
                Found::Each(each.collect())
            }
            Protocol::Ep1 if is_sliced(self.config) => {
                Found::Each(self.values.iter().map(|&value| self.by_thirds(model, query, value)).collect())
            }
            Protocol::Ep1 if self.config.split.ep1_told => {
                let slices_of = |value: i32| z_range(query.labels.voxels.view(), value);
                let of_class = |(class, &value): (usize, &i32)| {
                    let mut slices = vec![None; self.values.len()];
                    slices[class] = slices_of(value);
                    self.throughout(model, query, &slices)
                };
                Found::Each(self.values.iter().enumerate().map(of_class).collect())
            }
            Protocol::Full | Protocol::Ep1 => Found::Joint(self.throughout(model, query, &[])),
        })
    }

    /// The whole query from the whole support, with the slices of some classes told.
    fn throughout(&self, model: &Model, query: &Annotated, slices: &[Slices]) -> Array3<i32> {
        let reference = self.dense.as_ref().expect("a network has one");
        let image = from_voxels(query.subject.working.view());
        let (scores, _) = model.ask(&image, reference, &query.subject.told(slices));
        let asked = Asked { values: self.values, one_pieces: &self.one_pieces, slices };
        self.drawn(query, &scores, asked, self.borders.as_ref())
    }

    /// EP2 (Hansen et al. 2022): the support's middle slice of the organ is annotated, and the whole query is asked.
    fn by_middle_slice(&self, model: &Model, query: &Annotated, class: usize) -> Array3<i32> {
        let value = self.values[class];
        let slices = middle_slices(&self.support.labels.voxels, value, 1);
        let image = from_voxels(query.subject.working.view());
        let labels = self.support.on_slices(&slices, self.config);
        let shot = if !is_sliced(self.config) {
            self.support.subject.shot(&labels, &[value], Some(UNKNOWN))
        } else {
            let Some(&slice) = slices.first() else { return Array3::zeros(query.labels.voxels.dim()) };
            self.slice(slice, value)
        };
        let one_pieces = held_to_one_piece(&labels, self.config);
        let (reference, borders) = self.by_slice[class].get_or_init(|| {
            let reference = model.reference(&[shot], 1);
            let borders = self.learned(model, &reference, &labels, &[value], &one_pieces);
            (reference, borders)
        });
        let scores = model.predict(&image, reference);
        self.drawn(query, &scores, Asked::of(&[value], &one_pieces), borders.as_ref())
    }

    /// EP1 (Roy et al. 2020; Ouyang et al. 2020): each third of the query's own range of slices is segmented from one
    /// slice of the support's.
    fn by_thirds(&self, model: &Model, query: &Annotated, value: i32) -> Array3<i32> {
        let nothing = || Array3::zeros(query.labels.voxels.dim());
        let slices = middle_slices(&self.support.labels.voxels, value, EP1_SLICES);
        let Some(range) = z_range(query.labels.voxels.view(), value) else { return nothing() };
        if slices.is_empty() {
            return nothing();
        }
        let image = from_voxels(query.subject.working.view()); // (1, 1, D, H, W)
        let size = image.size();
        let scores = Tensor::zeros([1, 2, size[2], size[3], size[4]], (Kind::Float, image.device()));
        let _ = scores.narrow(1, 1, 1).fill_(f64::from(ABSENT));
        for (part, &slice) in slices.iter().enumerate() {
            let third = share(&range, part, slices.len());
            let (start, end) = (third.start, third.end.max(third.start + 1));
            let on_grid = |slice: usize| query.subject.grid.slice_of(slice) as i64;
            let (first, last) = (on_grid(start), on_grid(end - 1));
            let reference = model.reference(&[self.slice(slice, value)], 1);
            let found = model.predict(&image.narrow(2, first, last - first + 1), &reference);
            scores.narrow(2, first, last - first + 1).copy_(&found.to_device(scores.device()));
        }
        let one_pieces = held_to_one_piece(&self.support.on_slices(&slices, self.config), self.config);
        self.drawn(query, &scores, Asked::of(&[value], &one_pieces), None)
    }

    /// The label map of scores (1, 1 + K, D, H, W) on the native grid.
    fn drawn(
        &self,
        query: &Annotated,
        scores: &Tensor,
        Asked { values, one_pieces, slices }: Asked,
        borders: Option<&Borders>,
    ) -> Array3<i32> {
        let drawing = Drawing { values, one_pieces, slices, config: &self.config.prediction };
        let (subject, scores) = (&query.subject, to_channels(scores));
        drawing.draw(&subject.native_scores(scores.view(), drawing.config), &subject.image, borders).labels
    }

    /// How the annotator of these labels of the support draws, where the configuration learns it.
    fn learned(
        &self,
        model: &Model,
        reference: &Reference,
        labels: &LabelMap,
        values: &[i32],
        one_pieces: &BTreeSet<i32>,
    ) -> Option<Borders> {
        let drawing = Drawing { values, one_pieces, slices: &[], config: &self.config.prediction };
        let support = [(&self.support.subject, labels.voxels.view())];
        if self.config.prediction.learn_borders {
            drawing.learn(model, reference, &support, Some(UNKNOWN))
        } else {
            None
        }
    }

    /// One slice of the support, as a volume of depth 1.
    fn slice(&self, slice: usize, value: i32) -> Shot {
        let subject = &self.support.subject;
        let (whole, at) = (subject.shot(&self.support.labels, &[value], None), subject.grid.slice_of(slice) as i64);
        Shot::new(whole.image.narrow(2, at, 1), whole.classes.narrow(0, at, 1))
    }
}

/// The classes that are one piece in what is annotated, where the configuration holds them to that.
fn held_to_one_piece(labels: &LabelMap, config: &Config) -> BTreeSet<i32> {
    if config.prediction.one_piece { one_pieces(labels.voxels.view(), Some(UNKNOWN)) } else { BTreeSet::new() }
}

/// Whether the network sees one slice at a time.
fn is_sliced(config: &Config) -> bool {
    config.features.network != Network::UNet3d
}

/// The `part`-th of `parts` pieces of a range, as even as whole numbers allow.
fn share(range: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    let at = |part: usize| range.start + part * range.len() / parts;
    at(part)..at(part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_cover_a_range_without_overlap() {
        for (range, expected) in [(3..12, [3..6, 6..9, 9..12]), (0..4, [0..1, 1..2, 2..4]), (5..7, [5..5, 5..6, 6..7])]
        {
            assert_eq!([0, 1, 2].map(|part| share(&range, part, 3)), expected);
        }
    }
}
