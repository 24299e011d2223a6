//! Scans from disk to the network's grid.

use crate::borders::ends::{self, Slices};
use crate::borders::{self, Borders, Guess, Redrawn};
use crate::commands::progress::{Progress, warn};
use crate::config::Config;
use crate::episode::{Rules, Scan};
use crate::error::{Error, Result};
use crate::model::{Model, Reference, Shot, Told};
use crate::prediction;
use crate::prototypes::Classes;
use crate::supervoxels::{self, keep_largest};
use crate::tensor::{from_classes, from_voxels, to_channels};
use crate::training::validation::Annotated;
use crate::volume::dataset::Case;
use crate::volume::nifti::{self, NativeGrid};
use crate::volume::preprocess::{self, NativeScores, WorkingGrid};
use crate::volume::{Image, LabelMap};
use ndarray::{Array3, ArrayView3, ArrayView4};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Stands beside class indices for what is not annotated.
const UNKNOWN: i32 = -1;

/// A query is looked at for supervoxels at no more voxels than these.
const MOST_VOXELS: usize = 8_000_000;

/// One scan as read and as the network sees it.
pub struct Subject {
    pub image: Image,
    pub native: NativeGrid,
    /// On the network's grid.
    pub working: Array3<f32>,
    pub grid: WorkingGrid,
    /// Supervoxels on the native grid whose voxels decide together, and how much their common score weighs.
    regions: Option<(Array3<i32>, f64)>,
}

impl Subject {
    /// # Errors
    /// As [`nifti::read_image`].
    pub fn read(path: &Path, config: &preprocess::Config) -> Result<Self> {
        let (image, native) = nifti::read_image(path)?;
        for warning in &native.warnings {
            warn(&format!("{}: {warning}", path.display()));
        }
        Ok(Self::new(image, native, config))
    }

    /// A scan that is there already; `native` is where results are written.
    pub fn new(image: Image, native: NativeGrid, config: &preprocess::Config) -> Self {
        let (working, grid) = preprocess::prepare(&image, config);
        Self { image, native, working, grid, regions: None }
    }

    /// A scan that will be segmented, with the supervoxels that [`Subject::find_regions`] finds.
    pub fn read_query(path: &Path, config: &Config) -> Result<Self> {
        let mut subject = Self::read(path, &config.preprocess)?;
        subject.regions = subject.find_regions(config);
        Ok(subject)
    }

    /// The supervoxels that decide together and their weight, where the configuration lets them.
    fn find_regions(&self, config: &Config) -> Option<(Array3<i32>, f64)> {
        let weight = config.prediction.supervoxel_weight;
        let regions = || supervoxels::generate_within(&self.image, &config.supervoxels, MOST_VOXELS);
        (weight > 0.0).then(|| (regions(), weight))
    }

    /// Finds the supervoxels of the scan while `other` works.
    pub fn find_regions_beside<T>(&mut self, config: &Config, other: impl FnOnce(&Self) -> T) -> T {
        let (found, regions) = std::thread::scope(|scope| {
            let regions = scope.spawn(|| self.find_regions(config));
            (other(self), regions.join().expect("no panic"))
        });
        self.regions = regions;
        found
    }

    /// Labels of this scan on its native grid.
    ///
    /// # Errors
    /// As [`nifti::read_labels`], and where the geometry is another than the scan's (`path`).
    pub fn read_labels(&self, path: &Path, label: &Path) -> Result<LabelMap> {
        let (labels, native) = nifti::read_labels(label)?;
        nifti::check_same_geometry(path, self.native.geometry(), label, native.geometry())?;
        Ok(labels)
    }

    /// The support that this scan is with these labels: `values[i]` is class i + 1, and voxels of value `ignore` are not
    /// annotated.
    pub fn shot(&self, labels: &LabelMap, values: &[i32], ignore: Option<i32>) -> Shot {
        let (classes, known) = self.annotation(labels.voxels.view(), values, ignore);
        Shot {
            image: from_voxels(self.working.view()),
            classes: from_classes(classes.view()),
            known: known.map(|known| from_voxels(known.view())),
        }
    }

    /// Scores of background and the classes on the native grid, from those on the network's (1 + K, D, H, W).
    pub fn native_scores<'a>(&'a self, scores: ArrayView4<'a, f32>, config: &prediction::Config) -> NativeScores<'a> {
        let mut native = NativeScores::new(&self.grid, scores);
        if let Some((regions, weight)) = &self.regions {
            native = native.pooled(regions.view(), *weight);
        }
        if config.brightness_weight > 0.0 {
            let brightness = native.brightness(self.image.voxels.view());
            let of_class = native_probabilities(&native, config.test_classes);
            let evidence: Vec<Vec<f32>> =
                (1..scores.shape()[0]).map(|class| brightness.evidence(of_class(class).view())).collect();
            drop(of_class);
            native = native.lit(brightness, &evidence, config.brightness_weight);
        }
        native
    }

    /// What is told of each class, for the network.
    pub fn told(&self, slices: &[Slices]) -> Vec<Told> {
        slices.iter().map(|slices| slices.as_ref().map(|slices| self.grid.depth_of(slices))).collect()
    }

    /// Native labels as class indices on the network's grid: `values[i]` becomes i + 1, all others 0.
    pub fn classes(&self, native: ArrayView3<i32>, values: &[i32]) -> Array3<u8> {
        let index = |label: i32| values.iter().position(|&value| value == label).map_or(0, |i| i as i32 + 1);
        self.grid.labels(native.mapv(index).view()).mapv(|class| class as u8)
    }

    /// The same of a volume where voxels of value `ignore` are not annotated: the classes of what is, and the fraction
    /// of each voxel of the network's grid that is, or None where all is.
    pub fn annotation(
        &self,
        native: ArrayView3<i32>,
        values: &[i32],
        ignore: Option<i32>,
    ) -> (Array3<u8>, Option<Array3<f32>>) {
        let (Some(ignore), Some(known)) = (ignore, self.grid.known(native, ignore)) else {
            return (self.classes(native, values), None);
        };
        let index = |label: i32| match values.iter().position(|&value| value == label) {
            _ if label == ignore => UNKNOWN,
            class => class.map_or(0, |i| i as i32 + 1),
        };
        let classes = self.grid.known_labels(native.mapv(index).view(), UNKNOWN).mapv(|class| class as u8);
        (classes, Some(known))
    }
}

/// What a network finds in a query, on its native grid.
pub struct Found {
    /// Label values.
    pub labels: Array3<i32>,
    /// Of each class, where borders were drawn anew.
    pub probabilities: Option<Vec<Redrawn>>,
}

/// What is looked for, and how it is drawn.
#[derive(Clone, Copy)]
pub struct Drawing<'a> {
    /// Label value of class 1, 2, ...
    pub values: &'a [i32],
    /// Of these the largest piece alone.
    pub one_pieces: &'a BTreeSet<i32>,
    /// The slices of the scan that show each class; empty where nobody has told.
    pub slices: &'a [Slices],
    pub config: &'a prediction::Config,
}

impl Drawing<'_> {
    /// Labels of the scores of an image on its native grid, the borders as they were learned.
    pub fn draw(&self, scores: &NativeScores, image: &Image, borders: Option<&Borders>) -> Found {
        let mut labels = self.named(scores);
        let edges = self.config.follow_edges;
        let as_found = edges.then(|| Borders::as_found(self.values.len()));
        let Some(borders) = borders.or(as_found.as_ref()) else {
            ends::reach(&mut labels, self.values, self.slices);
            return Found { labels, probabilities: None };
        };
        let of_class = native_probabilities(scores, self.config.test_classes);
        let probability = |index: usize| of_class(index + 1);
        let guess = Guess { labels: labels.view(), probability: &probability, spacing_mm: image.geometry.spacing_mm() };
        let edges = edges.then(|| image.voxels.view());
        let (mut labels, probabilities) = borders.redraw(&guess, self.values, edges);
        self.hold(&mut labels);
        ends::reach(&mut labels, self.values, self.slices);
        Found { labels, probabilities: Some(probabilities) }
    }

    /// How the supports' borders are drawn, from what the network finds when each is asked of all; None of a network of
    /// single slices.
    pub fn learn(
        &self,
        model: &Model,
        reference: &Reference,
        supports: &[(&Subject, ArrayView3<i32>)],
        ignore: Option<i32>,
    ) -> Option<Borders> {
        let mut samples = vec![Vec::new(); self.values.len()];
        for (subject, truth) in supports {
            let scores = to_channels(&model.ask_supports(&from_voxels(subject.working.view()), reference)?);
            let scores = subject.native_scores(scores.view(), self.config);
            let labels = self.named(&scores);
            let of_class = native_probabilities(&scores, self.config.test_classes);
            let probability = |index: usize| of_class(index + 1);
            let spacing_mm = subject.image.geometry.spacing_mm();
            let guess = Guess { labels: labels.view(), probability: &probability, spacing_mm };
            let of_support = borders::samples(&guess, truth.view(), self.values, ignore);
            samples.iter_mut().zip(of_support).for_each(|(all, more)| all.extend(more));
        }
        Some(Borders::learn(&samples))
    }

    /// Labels of scores on the native grid.
    fn named(&self, scores: &NativeScores) -> Array3<i32> {
        let mut labels = scores.classes().mapv(|class| if class == 0 { 0 } else { self.values[class as usize - 1] });
        self.hold(&mut labels);
        labels
    }

    /// Takes from classes what lies off their slices, and then all but the largest piece of what is one piece.
    fn hold(&self, labels: &mut Array3<i32>) {
        ends::cut(labels, self.values, self.slices);
        if !self.one_pieces.is_empty() {
            keep_largest(labels, self.one_pieces);
        }
    }
}

/// The probability of a class on the native grid, by its index from 1 (Eq. 3.4); 0 where the network saw nothing.
pub fn native_probabilities<'a>(scores: &'a NativeScores, classes: Classes) -> impl Fn(usize) -> Array3<f32> + 'a {
    let log_sum = (classes == Classes::Joint).then(|| scores.log_sum(0.0));
    move |class| {
        let mut score = scores.of(class, f32::NEG_INFINITY);
        match &log_sum {
            Some(log_sum) => score.zip_mut_with(log_sum, |score, log_sum| *score = (*score - log_sum).exp().min(1.0)),
            None => score.mapv_inplace(|score| 1.0 / (1.0 + (-score).exp())),
        }
        score
    }
}

/// Where `ssl3d pseudolabel` puts the supervoxels of a scan.
pub fn supervoxel_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}_supervoxels.nii.gz"))
}

/// Scans in the order of `cases`, with their supervoxels where there is a folder of them, and with their organs
/// (`values[i]` is class i + 1) where `rules` need them.
///
/// # Errors
/// A file cannot be read; the supervoxels of a scan are missing, or the annotation that the rules need.
pub fn scans(
    cases: &[&Case],
    supervoxels: Option<&Path>,
    values: &[i32],
    rules: &Rules,
    config: &preprocess::Config,
    label: &str,
) -> Result<Vec<Scan>> {
    let progress = Progress::new(label, 0, cases.len() as u64);
    let read = |(position, case): (usize, &&Case)| {
        let path = supervoxels.map(|folder| supervoxel_path(folder, &case.id));
        if let Some(path) = path.as_ref().filter(|path| !path.exists()) {
            let remedy = "run ssl3d pseudolabel on the same dataset, or leave out --supervoxels";
            return Err(Error::file(path, format!("the supervoxels of scan {}", case.id), "no such file", remedy));
        }
        let subject = Subject::read(&case.image, config)?;
        let regions = match path {
            Some(path) => subject.grid.labels(subject.read_labels(&case.image, &path)?.voxels.view()),
            None => Array3::zeros(subject.working.dim()),
        };
        let organs = match &case.label {
            _ if !rules.need_organs(position) => None,
            Some(label) => {
                let labels = subject.read_labels(&case.image, label)?;
                Some(subject.classes(labels.voxels.view(), values))
            }
            None => {
                let remedy = "annotate it, or set split.setting = 1 and supervision.source = \"supervoxels\"";
                return Err(Error::file(&case.image, "a label volume beside it", "none", remedy));
            }
        };
        progress.step("");
        Ok(Scan {
            id: case.id.clone(),
            regions,
            organs,
            spacing_mm: subject.grid.spacing_mm(&subject.image.geometry),
            image: subject.working,
        })
    };
    let scans = cases.par_iter().enumerate().map(read).collect();
    progress.finish();
    scans
}

/// A scan with its organs as class indices on the network's grid; None where nobody has drawn them.
pub fn annotated(case: &Case, values: &[i32], config: &preprocess::Config) -> Result<Option<Annotated>> {
    let Some(label) = &case.label else { return Ok(None) };
    let subject = Subject::read(&case.image, config)?;
    let labels = subject.read_labels(&case.image, label)?;
    let classes = subject.classes(labels.voxels.view(), values);
    Ok(Some(Annotated { image: subject.working, classes }))
}
