//! Doubts: what is odd about the labels of a support, about a query beside its supports, or about what was found in it. Each is a
//! sentence for the reader.

use super::supports::{PreparedScan, Support};
use crate::augment::intensity::Blur;
use crate::components::bounding_box;
use crate::preprocessing::{body_mask, clipped};
use crate::units;
use crate::volume::frame::Frame;
use crate::volume::{ClassMap, Geometry, Image, LabelMap};
use ndarray::{Array3, ArrayView3, Zip, s};

/// A label is pointed out if more than this fraction of it lies in the air, ...
const OUTSIDE_OF_BODY: f64 = 0.5;
/// ... or if it fills more than this fraction of the body.
const FILLS_BODY: f64 = 0.8;
/// Intensities above this percentile count as equal to it when the body is looked for.
const CLIP_PERCENTILE: f64 = 99.5;
/// Spacings that differ by more than this factor along an axis are pointed out.
const SPACING_FACTOR: f64 = 2.0;
/// And intensities whose distributions are further apart than this, in standard deviations: CHAOS T2 scans lie up to 0.35 apart,
/// and their negatives 0.5 and more.
const INTENSITY_DISTANCE: f64 = 0.45;
/// And extents along the slices, beside the extent in-plane: those of the scans of CHAOS T2 differ by up to 1.5, of MS-CMRSeg as well.
const EXTENT_FACTOR: f64 = 2.0;
/// And a second region that stands out from the air and is at least this fraction of the body.
const SECOND_BODY: f64 = 0.5;
/// And a volume that differs from that in every support by more than this factor: of CHAOS T2's organs 99 % of the pairs of patients
/// differ by less.
const VOLUME_FACTOR: f64 = 4.0;
/// And a structure that stands out from its surroundings by less than this fraction of what it does in the supports: organs of CHAOS T2
/// and MS-CMRSeg as annotated do by 0.37 and more.
const CONTRAST_FRACTION: f64 = 0.3;
/// Supports in which a structure stands out less say nothing of it.
const LEAST_CONTRAST: f64 = 0.2;
/// Standard deviation of the blur that finds the surroundings, in nominal millimetres, ...
const SURROUNDINGS_MM: f64 = 4.0;
/// ... and its least value there: within two standard deviations of a flat surface.
const LEAST_NEAR: f32 = 0.023;
/// Intensities on each side from which the contrast is taken, at most and at least.
const MOST_SAMPLES: usize = 20_000;
const LEAST_SAMPLES: usize = 20;

/// What is odd about the labels of a support: `classes` are label values with their names.
pub fn label_doubts(image: &Image, labels: &LabelMap, classes: &[(i32, &str)]) -> Vec<String> {
    let (voxels, _) = clipped(image, 0.0, CLIP_PERCENTILE);
    let body = body_mask(voxels.view());
    let body_vox = body.iter().filter(|inside| **inside).count() as f64;
    let mut doubts = Vec::new();
    for &(value, name) in classes {
        let of_class = labels.voxels.iter().zip(&body).filter(|(label, _)| **label == value);
        let (all, inside) = of_class
            .fold((0.0, 0.0), |(all, inside), (_, is_body)| (all + 1.0, inside + f64::from(u8::from(*is_body))));
        if all > 0.0 && 1.0 - inside / all > OUTSIDE_OF_BODY {
            let outside = percent(1.0 - inside / all);
            doubts.push(format!("{outside} of {name} lies outside of the body: was it drawn on this image?"));
        }
        if inside / body_vox > FILLS_BODY {
            doubts.push(format!("{name} fills {} of the body", percent(inside / body_vox)));
        }
    }
    doubts
}

fn percent(fraction: f64) -> String {
    format!("{:.0} %", 100.0 * fraction)
}

/// What about a query is so unlike every support that the result may not be trusted.
pub fn query_doubts(query: &PreparedScan, supports: &[PreparedScan]) -> Vec<String> {
    let mut doubts = Vec::new();
    let [ours, theirs] = [query, &supports[0]].map(|scan| &scan.image.geometry);
    if Frame::of(theirs).is_crossed_by(ours) {
        let [ours, theirs] = [ours, theirs].map(Frame::plane);
        doubts.push(format!(
            "its slices are {ours} and those of the support {theirs}: they are cut across, along the support's"
        ));
    }
    let [ours, theirs] = [ours, theirs].map(Geometry::spacing_mm);
    let is_far = |other: &PreparedScan| {
        let spacing = other.image.geometry.spacing_mm();
        (0..3).any(|axis| apart(ours[axis], spacing[axis]) > SPACING_FACTOR)
    };
    if supports.iter().all(is_far) {
        let [ours, theirs] = [ours, theirs].map(units::spacing);
        doubts.push(format!("its spacing (z y x) is {ours}, that of the support {theirs}"));
    }
    if query.is_blank() {
        doubts.push("it has no contrast: nothing is looked for in it".to_owned());
        return doubts;
    }
    let extent = |scan: &PreparedScan| scan.input_spacing_mm()[0] * scan.grid.resampled_vox[0] as f64;
    if supports.iter().all(|support| apart(extent(query), extent(support)) > EXTENT_FACTOR) {
        let times = extent(query) / extent(&supports[0]);
        doubts.push(format!(
            "beside its width it reaches {} as far along its slices as the support: it may show another part of the body",
            times_text(times)
        ));
    }
    if query.next_body_fraction > SECOND_BODY {
        let size = percent(query.next_body_fraction);
        doubts.push(format!(
            "two regions stand out from the air, and the second is {size} of the first: only the first is looked at; crop the image to look at the other"
        ));
    }
    let distance = |other: &PreparedScan| {
        let pairs = query.percentiles().iter().zip(other.percentiles());
        pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / query.percentiles().len() as f64
    };
    let nearest = supports.iter().map(distance).fold(f64::INFINITY, f64::min);
    if nearest > INTENSITY_DISTANCE {
        doubts.push(format!(
            "its intensities are spread unlike the support's ({nearest:.2} standard deviations apart, above {INTENSITY_DISTANCE}): \
             is it the same kind of image?"
        ));
    }
    doubts
}

/// The factor between two positive numbers, at least 1.
fn apart(a: f64, b: f64) -> f64 {
    f64::max(a / b, b / a)
}

fn times_text(times: f64) -> String {
    if times < 1.0 { format!("{:.2} times", times) } else { format!("{:.1} times", times) }
}

/// What the supports show of each class: what is found in a query is held against it.
#[derive(Debug)]
pub struct Reference {
    /// Of each class in each support that shows it.
    shown: Vec<Vec<Shown>>,
}

/// A structure in a scan.
#[derive(Debug, Clone, Copy)]
struct Shown {
    /// In cubic nominal millimetres; None where the scan is annotated in part.
    volume: Option<f64>,
    /// [`contrast`]
    contrast: Option<f64>,
}

impl Reference {
    /// From annotated scans.
    pub fn new(supports: &[Support], classes: &ClassMap) -> Self {
        let of_class = |value: i32| {
            let shows = supports.iter().filter(|support| support.annotation.shows(value));
            let of_support = |support: &Support| {
                let shown = Shown::of(support.scan, support.annotation.labels().voxels.view(), value);
                Shown { volume: shown.volume.filter(|_| support.annotation.known().is_none()), ..shown }
            };
            shows.map(of_support).collect()
        };
        Self { shown: classes.values().iter().map(|&value| of_class(value)).collect() }
    }

    /// What is odd about the labels `[z, y, x]` that were found in a query; `classes` are label values with their names, in order.
    pub fn doubts(&self, query: &PreparedScan, labels: ArrayView3<i32>, classes: &[(i32, &str)]) -> Vec<String> {
        let mut doubts = Vec::new();
        for (&(value, name), shown) in classes.iter().zip(&self.shown) {
            let found = Shown::of(query, labels, value);
            let Some(volume) = found.volume.filter(|volume| *volume > 0.0) else { continue };
            let volumes: Vec<f64> = shown.iter().filter_map(|shown| shown.volume).filter(|v| *v > 0.0).collect();
            if !volumes.is_empty() && volumes.iter().all(|usual| apart(volume, *usual) > VOLUME_FACTOR) {
                let times = times_text(volume / volumes[0]);
                doubts.push(format!(
                    "beside the width of the body {name} has {times} the volume that it has in the support"
                ));
            }
            let contrasts: Option<Vec<f64>> = shown.iter().map(|shown| shown.contrast).collect();
            let usual = contrasts.unwrap_or_default().into_iter().reduce(f64::min).unwrap_or(0.0);
            if let Some(contrast) = found.contrast
                && usual > LEAST_CONTRAST
                && contrast < CONTRAST_FRACTION * usual
            {
                doubts.push(format!(
                    "what is labelled {name} hardly differs from what surrounds it ({contrast:.2}, in the support {usual:.2}): it may not be there"
                ));
            }
        }
        doubts
    }
}

impl Shown {
    fn of(scan: &PreparedScan, labels: ArrayView3<i32>, value: i32) -> Self {
        let spacing_mm = scan.nominal_spacing_mm();
        let count = labels.iter().filter(|label| **label == value).count();
        let volume = count as f64 * spacing_mm.iter().product::<f64>();
        Self { volume: Some(volume), contrast: contrast(scan.image.voxels.view(), labels, value, spacing_mm) }
    }
}

/// How much the intensities of a structure differ from those around it: the Kolmogorov-Smirnov statistic, from 0 (alike) to 1 (no
/// intensity in common). None of a few voxels.
fn contrast(image: ArrayView3<f32>, labels: ArrayView3<i32>, value: i32, spacing_mm: [f64; 3]) -> Option<f64> {
    let found = bounding_box(labels, |label| *label == value)?;
    let within: [_; 3] = std::array::from_fn(|axis| {
        let margin = (2.0 * SURROUNDINGS_MM / spacing_mm[axis]).ceil() as usize;
        found[axis].start.saturating_sub(margin)..(found[axis].end + margin).min(labels.shape()[axis])
    });
    let [zs, ys, xs] = within;
    let here = s![zs, ys, xs];
    let (image, labels) = (image.slice(here), labels.slice(here));
    let mut near: Array3<f32> = labels.mapv(|label| f32::from(u8::from(label == value)));
    Blur { std_mm: [SURROUNDINGS_MM as f32; 3] }.apply(&mut near, spacing_mm);
    let (mut inside, mut around) = (Vec::new(), Vec::new());
    Zip::from(image).and(labels).and(&near).for_each(|&v, &label, &near| {
        if v.is_finite() && label == value {
            inside.push(v);
        } else if v.is_finite() && near >= LEAST_NEAR {
            around.push(v);
        }
    });
    let [inside, around] = [inside, around].map(|values| {
        let mut some: Vec<f32> = values.iter().step_by(values.len().div_ceil(MOST_SAMPLES).max(1)).copied().collect();
        some.sort_by(f32::total_cmp);
        some
    });
    (inside.len().min(around.len()) >= LEAST_SAMPLES).then(|| kolmogorov_smirnov(&inside, &around))
}

/// The greatest distance between the cumulative distributions of two sorted samples.
fn kolmogorov_smirnov(a: &[f32], b: &[f32]) -> f64 {
    let below = |sorted: &[f32], v: f32| sorted.partition_point(|other| *other <= v) as f64 / sorted.len() as f64;
    a.iter().chain(b).map(|&v| (below(a, v) - below(b, v)).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::preprocessing::Annotation;
    use crate::volume::Geometry;

    #[test]
    fn equal_samples_are_0_apart_and_separate_ones_1() {
        let samples = |from: usize| (from..from + 50).map(|i| i as f32).collect::<Vec<f32>>();
        assert_eq!(kolmogorov_smirnov(&samples(0), &samples(0)), 0.0);
        assert_eq!(kolmogorov_smirnov(&samples(0), &samples(100)), 1.0);
        assert!((kolmogorov_smirnov(&samples(0), &samples(25)) - 0.5).abs() < 0.03);
    }

    /// A body of 100 with an organ of `organ` in air, cut off after `slices`, in voxels of `mm`.
    fn scan(organ: f32, slices: usize, mm: f64) -> (PreparedScan, Array3<i32>) {
        let shape = [slices, 40, 40];
        let is_organ = |z: usize, y: usize, x: usize| (8..20).contains(&y) && (8..20).contains(&x) && z > 3;
        let labels = Array3::from_shape_fn(shape, |(z, y, x)| i32::from(is_organ(z, y, x)));
        let voxels = Array3::from_shape_fn(shape, |(z, y, x)| {
            let noise = ((41 * z + 23 * y + 59 * x) % 101) as f32 * 0.1;
            let is_body = (4..36).contains(&y) && (4..36).contains(&x);
            noise
                + if is_organ(z, y, x) {
                    organ
                } else if is_body {
                    100.0
                } else {
                    0.0
                }
        });
        let config = ["preprocessing.size_vox=[0, 32, 32]", "preprocessing.crop=body"].map(str::to_owned);
        let config = config::load(None, &config).unwrap();
        let geometry = Geometry::with_spacing(shape, [8.0 * mm, 8.0 * mm, 8.0 * mm]);
        (PreparedScan::new(Image { voxels, geometry }, &config.preprocessing), labels)
    }

    fn doubts(query: (PreparedScan, Array3<i32>)) -> Vec<String> {
        let (support, labels) = scan(160.0, 24, 1.0);
        let map = LabelMap { voxels: labels, geometry: support.image.geometry.clone() };
        let annotated = Support { scan: &support, annotation: Annotation::new(map, None) };
        let reference = Reference::new(&[annotated], &ClassMap::new([1]).unwrap());
        let mut doubts = reference.doubts(&query.0, query.1.view(), &[(1, "liver")]);
        doubts.extend(query_doubts(&query.0, &[support]));
        doubts
    }

    #[test]
    fn what_is_like_the_support_is_not_doubted_whatever_the_unit_of_length() {
        assert_eq!(doubts(scan(160.0, 24, 1.0)), Vec::<String>::new());
        let others: Vec<String> = doubts(scan(160.0, 22, 0.025));
        assert!(others.len() == 1 && others[0].starts_with("its spacing"), "{others:?}");
    }

    #[test]
    fn a_structure_without_contrast_or_of_another_volume_and_another_part_of_the_body_are_doubted() {
        let alone = |query, part: &str| {
            let doubts = doubts(query);
            assert!(doubts.len() == 1 && doubts[0].contains(part), "{doubts:?}");
        };
        alone(scan(100.0, 24, 1.0), "liver hardly differs from what surrounds it");
        let (query, mut labels) = scan(160.0, 24, 1.0);
        labels.slice_mut(s![6.., .., ..]).fill(0);
        alone((query, labels), "liver has 0.10 times the volume");
        let part = doubts(scan(160.0, 9, 1.0));
        assert!(part.iter().any(|text| text.contains("another part of the body")), "{part:?}");
    }

    #[test]
    fn a_second_body_is_pointed_out() {
        let (one, _) = scan(160.0, 24, 1.0);
        let voxels =
            ndarray::concatenate(ndarray::Axis(2), &[one.image.voxels.view(), one.image.voxels.view()]).unwrap();
        let config = config::load(None, &["preprocessing.crop=body".to_owned()]).unwrap();
        let geometry = Geometry::with_spacing([24, 40, 80], [8.0; 3]);
        let both = PreparedScan::new(Image { voxels, geometry }, &config.preprocessing);
        let found = query_doubts(&both, &[one]);
        assert!(found.iter().any(|text| text.contains("two regions stand out")), "{found:?}");
    }
}
