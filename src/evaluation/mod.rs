//! A system by the protocols of the field: what of the support is annotated, what of the query is known, and the scores.
//!
//! | protocol | annotated of the support | known of the query |
//! |---|---|---|
//! | whole volume | all, or the middle slices of `split.support_slices` | nothing |
//! | EP1 (Roy et al. 2020; Ouyang et al. 2020) | the same; three slices of each class for slice-wise networks | the slices that show the class |
//! | EP2 (Hansen et al. 2022) | the middle slice of each class | nothing |

use crate::baselines::MaskCopy;
use crate::config::Config;
use crate::inference::{Fitted, PreparedScan, Segmenter, SliceRanges, Support};
use crate::metrics::{Protocol, volume_ml, z_range};
use crate::network::System;
use crate::preprocessing::Annotation;
use crate::preprocessing::annotation::middle_slices;
use crate::report::Row;
use crate::volume::{Class, ClassMap, LabelMap};
use ndarray::{Array3, CowArray, Ix3};
use std::cell::OnceCell;
use std::ops::Range;

/// Slices of the support that EP1 annotates for a slice-wise network (Ouyang et al. 2020), one for each third of the
/// organ.
const EP1_SLICES: usize = 3;

/// A scan with its truth.
pub struct AnnotatedScan {
    /// In the dataset.
    pub id: String,
    /// As the network sees it.
    pub scan: PreparedScan,
    /// Its labels, where it is annotated.
    annotation: Annotation,
}

impl AnnotatedScan {
    /// Voxels of value `ignore` are not annotated.
    pub fn new(id: String, scan: PreparedScan, labels: LabelMap, ignore: Option<i32>) -> Self {
        Self { id, scan, annotation: Annotation::new(labels, ignore) }
    }

    /// The label map of the truth; 0 where it is not annotated.
    pub fn labels(&self) -> &LabelMap {
        self.annotation.labels()
    }

    fn support(&self, annotation: Annotation) -> Support<'_> {
        Support { scan: &self.scan, annotation }
    }

    fn on_slices(&self, slices: &[usize]) -> Support<'_> {
        self.support(self.annotation.on_slices(slices))
    }

    /// For the whole volume: all, or the middle slices of each class.
    fn dense(&self, classes: &ClassMap, support_slices: usize) -> Support<'_> {
        if support_slices == 0 {
            return self.support(self.annotation.clone());
        }
        let of_class = |&value: &i32| middle_slices(&self.labels().voxels, value, support_slices);
        self.on_slices(&classes.values().iter().flat_map(of_class).collect::<Vec<_>>())
    }
}

/// Label maps of a query on its own grid.
pub enum Found {
    /// Of all classes together.
    Joint(Array3<i32>),
    /// Of each class by itself.
    Each(Vec<Array3<i32>>),
}

impl Found {
    /// The map that shows a class.
    pub fn of(&self, class: Class) -> &Array3<i32> {
        match self {
            Self::Joint(map) => map,
            Self::Each(maps) => &maps[class.index()],
        }
    }

    /// All classes in one map, for a picture: of several the last.
    pub fn joined(&self, classes: &ClassMap) -> Array3<i32> {
        match self {
            Self::Joint(map) => map.clone(),
            Self::Each(maps) => {
                let mut all = Array3::zeros(maps[0].dim());
                for (map, value) in maps.iter().zip(classes.values()) {
                    all.zip_mut_with(map, |all, label| *all = if label == value { *value } else { *all });
                }
                all
            }
        }
    }
}

/// What is evaluated.
pub enum Evaluated<'a> {
    /// A network with the weights of a fold.
    Network(Segmenter<'a>),
    /// The labels of the support laid over the query.
    MaskCopy(MaskCopy),
}

/// A system without weights; None of one that is trained.
pub fn mask_copy(system: System) -> Option<MaskCopy> {
    match system {
        System::MaskCopy => Some(MaskCopy::Centred),
        System::MaskAffine => Some(MaskCopy::BodyBox),
        System::Prototypes | System::SeNet => None,
    }
}

/// How much of a support `protocol` lets the system see, how many templates beside it, and what is known of the query.
pub fn annotation(config: &Config, protocol: Protocol) -> String {
    let is_slice_wise = config.system.is_trained() && config.network().is_slice_wise();
    let of_support = match (protocol, config.split.support_slices) {
        (Protocol::Ep2, _) => "middle slice".to_owned(),
        (Protocol::Ep1, _) if is_slice_wise => format!("{EP1_SLICES} slices"),
        (_, 0) => "dense".to_owned(),
        (_, 1) => "1 slice".to_owned(),
        (_, n) => format!("{n} slices"),
    };
    let beside = match config.inference.templates {
        0 => String::new(),
        count => format!(", {count} templates"),
    };
    let reveals =
        protocol == Protocol::Ep1 && config.system.is_trained() && !is_slice_wise && config.split.ep1_reveals_range;
    let revealed = if reveals { ", slices revealed" } else { "" };
    format!("{of_support}{beside}{revealed}")
}

/// A system with its support.
///
/// ```
/// use ssl3d::evaluation::{AnnotatedScan, Evaluated, Place, Supported, mask_copy, mean_dice, score};
/// use ssl3d::{config, inference::PreparedScan, metrics::Protocol, synthesis::phantom, volume::ClassMap};
/// let config = config::load(None, &["system=mask-copy".to_owned(), "preprocessing.size_vox=[8, 32, 32]".to_owned()])?;
/// let cohort = phantom::Config { subjects: 2, size_vox: [8, 32, 32], spacing_mm: [28.0, 10.4, 10.4], seed: 1 };
/// let [support, query] = [0, 1].map(|index| {
///     let (image, labels) = phantom::subject(&cohort, index);
///     AnnotatedScan::new(index.to_string(), PreparedScan::new(image, &config.preprocessing), labels, None)
/// });
/// let (classes, names) = (ClassMap::new([1, 4])?, ["liver", "spleen"]);
/// let system = Evaluated::MaskCopy(mask_copy(config.system).expect("a system without weights"));
/// let supported = Supported::new(&system, &support, &classes, &config);
/// let place = Place { run: "mask copy".to_owned(), fold: 0 };
/// let dice_of = |query| {
///     let found = supported.segment(query, Protocol::Full).expect("a mask can be laid over a whole volume");
///     mean_dice(&score(&config, &place, [&support, query], (&names, &classes), Protocol::Full, &found))
/// };
/// assert_eq!(dice_of(&support), 1.0); // the support's mask over the support itself
/// assert!(dice_of(&query) < 1.0);
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
pub struct Supported<'a> {
    system: &'a Evaluated<'a>,
    support: &'a AnnotatedScan,
    classes: &'a ClassMap,
    config: &'a Config,
    /// For the whole volume.
    dense: Option<Fitted<'a>>,
    /// Each class from its middle slice, once it is needed.
    by_slice: Vec<OnceCell<Fitted<'a>>>,
}

impl<'a> Supported<'a> {
    /// Fits the system to the support of the whole volume.
    pub fn new(
        system: &'a Evaluated<'a>,
        support: &'a AnnotatedScan,
        classes: &'a ClassMap,
        config: &'a Config,
    ) -> Self {
        let dense = match system {
            Evaluated::Network(segmenter) => {
                Some(segmenter.fit(&[support.dense(classes, config.split.support_slices)], classes))
            }
            Evaluated::MaskCopy(_) => None,
        };
        let by_slice = classes.iter().map(|_| OnceCell::new()).collect();
        Self { system, support, classes, config, dense, by_slice }
    }

    /// Whether what was found under one protocol can be scored under `protocol`, too: a joint map is that of the whole volume, and
    /// EP1 looks at a part of it. A slice-wise network sees other slices then, and one of volumes may know the range of slices.
    pub fn serves(&self, found: &Found, protocol: Protocol) -> bool {
        let is_network = matches!(self.system, Evaluated::Network(_));
        let knows_more = is_network && (self.is_slice_wise() || self.config.split.ep1_reveals_range);
        let is_other = protocol == Protocol::Ep2 || protocol == Protocol::Ep1 && knows_more;
        matches!(found, Found::Joint(_)) && !is_other
    }

    /// None where the system has no such protocol: a mask of one slice cannot be laid over a volume.
    pub fn segment(&self, query: &AnnotatedScan, protocol: Protocol) -> Option<Found> {
        let segmenter = match self.system {
            Evaluated::MaskCopy(_) if protocol == Protocol::Ep2 => return None,
            Evaluated::MaskCopy(copy) => {
                let visible = self.support.dense(self.classes, self.config.split.support_slices);
                let (support, query) = (&self.support.scan.image, &query.scan.image);
                let percentile = self.config.preprocessing.clip_percentile;
                return Some(Found::Joint(copy.segment(support, visible.annotation.labels(), query, percentile)));
            }
            Evaluated::Network(segmenter) => segmenter,
        };
        let each = |of: &dyn Fn(Class) -> Array3<i32>| Found::Each(self.classes.iter().map(of).collect());
        Some(match protocol {
            Protocol::Ep2 => each(&|class| self.by_middle_slice(segmenter, query, class)),
            Protocol::Ep1 if self.is_slice_wise() => each(&|class| self.by_thirds(segmenter, query, class)),
            Protocol::Ep1 if self.config.split.ep1_reveals_range => {
                let shown = |class| z_range(query.labels().voxels.view(), self.classes.value(class));
                let range = |class| shown(class).map_or(SliceRanges::unknown(), |z| SliceRanges::only(class, z));
                Found::Each(self.throughout(query, &self.classes.iter().map(range).collect::<Vec<_>>()))
            }
            Protocol::Full | Protocol::Ep1 => {
                Found::Joint(self.throughout(query, &[SliceRanges::unknown()]).pop().expect("one map"))
            }
        })
    }

    /// The whole query from the whole support, under each of these slice ranges.
    fn throughout(&self, query: &AnnotatedScan, ranges: &[SliceRanges]) -> Vec<Array3<i32>> {
        let fitted = self.dense.as_ref().expect("a network was fitted");
        let part = query.scan.part_of(&self.support.scan);
        fitted.segment_each(part.as_ref().unwrap_or(&query.scan), ranges, |found| found.labels)
    }

    /// EP2: the middle slice of the class in the support is annotated, and the whole query is segmented.
    fn by_middle_slice(&self, segmenter: &'a Segmenter<'a>, query: &AnnotatedScan, class: Class) -> Array3<i32> {
        let only = self.classes.only(class);
        let slices = middle_slices(&self.support.labels().voxels, self.classes.value(class), 1);
        if self.is_slice_wise() {
            let Some(&slice) = slices.first() else { return nothing(query) };
            let whole = [(slice, 0..query.labels().geometry.shape_vox[0])];
            return segmenter.segment_sections(&self.whole(), &query.scan, &whole, &only).labels;
        }
        let fitted =
            self.by_slice[class.index()].get_or_init(|| segmenter.fit(&[self.support.on_slices(&slices)], &only));
        let part = query.scan.part_of(&self.support.scan);
        fitted.segment(part.as_ref().unwrap_or(&query.scan), &SliceRanges::unknown()).labels
    }

    /// EP1 of slice-wise networks: each third of the query's range of slices is segmented from one slice of the support.
    fn by_thirds(&self, segmenter: &Segmenter, query: &AnnotatedScan, class: Class) -> Array3<i32> {
        let value = self.classes.value(class);
        let slices = middle_slices(&self.support.labels().voxels, value, EP1_SLICES);
        let Some(range) = z_range(query.labels().voxels.view(), value).filter(|_| !slices.is_empty()) else {
            return nothing(query);
        };
        let third = |(part, &slice): (usize, &usize)| {
            let third = part_of(&range, part, slices.len());
            (slice, third.start..third.end.max(third.start + 1))
        };
        let thirds: Vec<_> = slices.iter().enumerate().map(third).collect();
        segmenter.segment_sections(&self.whole(), &query.scan, &thirds, &self.classes.only(class)).labels
    }

    fn whole(&self) -> Support<'_> {
        self.support.support(self.support.annotation.clone())
    }

    fn is_slice_wise(&self) -> bool {
        self.config.network().is_slice_wise()
    }
}

/// The scores of one query from one support, a row for each class; `names` in the order of the classes. What nobody has annotated
/// of the query is neither right nor wrong: what was found there does not count. Borders in it are not known, so that such a query
/// has no distances of surfaces.
pub fn score(
    config: &Config,
    place: &Place,
    [support, query]: [&AnnotatedScan; 2],
    (names, classes): (&[&str], &ClassMap),
    protocol: Protocol,
    found: &Found,
) -> Vec<Row> {
    let (truth, geometry) = (query.labels().voxels.view(), &query.scan.image.geometry);
    let known = query.annotation.known();
    let row = |(class, name): (Class, &&str)| {
        let (found, value) = (annotated(found.of(class), known), classes.value(class));
        let found = found.view();
        let surface = if known.is_some() { None } else { protocol.surface(found, truth, value, geometry.spacing_mm()) };
        Row {
            query: query.id.clone(),
            support: support.id.clone(),
            fold: place.fold,
            seed: config.training.seed,
            class: (*name).to_owned(),
            protocol,
            dice: protocol.dice(found, truth, value),
            predicted_ml: volume_ml(found, value, geometry),
            true_ml: volume_ml(truth, value, geometry),
            hd95_mm: surface.and_then(|s| s.hd95_mm),
            assd_mm: surface.and_then(|s| s.assd_mm),
            nsd: surface.map(|s| s.nsd),
            run: place.run.clone(),
        }
    };
    classes.iter().zip(names).map(row).collect()
}

/// What was found where the truth is known.
fn annotated<'f>(found: &'f Array3<i32>, known: Option<&Array3<bool>>) -> CowArray<'f, i32, Ix3> {
    let Some(known) = known else { return CowArray::from(found) };
    let mut inside = found.clone();
    inside.zip_mut_with(known, |label, known| *label = if *known { *label } else { 0 });
    CowArray::from(inside)
}

/// Where scores come from.
pub struct Place {
    /// Name of the run.
    pub run: String,
    /// Number of the fold.
    pub fold: usize,
}

/// Mean Dice of the rows in which the truth shows the class; 0 of none.
pub fn mean_dice(rows: &[Row]) -> f64 {
    let dice: Vec<f64> = rows.iter().filter_map(|row| row.dice).collect();
    dice.iter().sum::<f64>() / dice.len().max(1) as f64
}

/// The labels of a truth that are evaluated, 0 for all others.
pub fn evaluated_labels(truth: &LabelMap, classes: &ClassMap) -> Array3<i32> {
    truth.voxels.mapv(|label| if classes.class(label).is_some() { label } else { 0 })
}

fn nothing(query: &AnnotatedScan) -> Array3<i32> {
    Array3::zeros(query.labels().voxels.dim())
}

/// The `part`-th of `parts` pieces of a range, as even as whole numbers allow.
fn part_of(range: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    let at = |part: usize| range.start + part * range.len() / parts;
    at(part)..at(part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_annotated_of_a_query_is_neither_right_nor_wrong() {
        let config = crate::config::load(None, &["preprocessing.size_vox=[2, 4, 4]".to_owned()]).unwrap();
        let geometry = crate::volume::Geometry::with_spacing([2, 4, 4], [1.0; 3]);
        let scan = |labels: &Array3<i32>| {
            let voxels = labels.mapv(|label| label as f32);
            let image = crate::volume::Image { voxels, geometry: geometry.clone() };
            let labels = LabelMap { voxels: labels.clone(), geometry: geometry.clone() };
            AnnotatedScan::new("1".to_owned(), PreparedScan::new(image, &config.preprocessing), labels, Some(9))
        };
        // The upper slice is not annotated, and the class is found in all of it.
        let truth = Array3::from_shape_fn([2, 4, 4], |(z, y, _)| if z == 1 { 9 } else { i32::from(y < 2) });
        let found = Found::Joint(truth.mapv(|label| i32::from(label > 0)));
        let (query, classes) = (scan(&truth), ClassMap::new([1]).unwrap());
        let place = Place { run: String::new(), fold: 0 };
        let rows = score(&config, &place, [&query, &query], (&["a"], &classes), Protocol::Full, &found);
        assert_eq!((rows[0].dice, rows[0].hd95_mm, rows[0].predicted_ml), (Some(1.0), None, rows[0].true_ml));
    }

    #[test]
    fn thirds_cover_a_range_without_overlap() {
        for (range, expected) in [(3..12, [3..6, 6..9, 9..12]), (0..4, [0..1, 1..2, 2..4]), (5..7, [5..5, 5..6, 6..7])]
        {
            assert_eq!([0, 1, 2].map(|part| part_of(&range, part, 3)), expected);
        }
    }
}
