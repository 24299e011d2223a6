//! What is timed: the input of each stage, made from seeded random numbers, and a small function that calls it.
//!
//! `benches/pipeline.rs` times these calls with criterion, `scripts/bench/stage.rs` side by side with the Python peers.

// Either of the two leaves something out.
#![allow(dead_code)]

use ndarray::Array3;
use rand::RngExt;
use ssl3d::augment;
use ssl3d::config::{self, Config};
use ssl3d::episode::{self, Candidates, Episode, Rules, Scan};
use ssl3d::inference::{self, NetworkVolume, Shot};
use ssl3d::loss;
use ssl3d::network::Network;
use ssl3d::percentile::percentile;
use ssl3d::preprocessing;
use ssl3d::prototypes::Prototypes;
use ssl3d::rng;
use ssl3d::similarity::{self, Tape};
use ssl3d::supervoxels::{self, felzenszwalb, slic};
use ssl3d::synthesis::phantom;
use ssl3d::tensor::{from_classes, from_floats, from_voxels, to_channels};
use ssl3d::training::adamw::AdamW;
use ssl3d::training::step::{Tensors, step};
use ssl3d::volume::{Image, LabelMap};
use ssl3d::weights;
use std::path::Path;
use tch::{Device, Tensor};

const SEED: u64 = 0;

/// The sizes of what is timed, z y x.
pub struct Sizes {
    /// Of the scans that are cut into supervoxels and segmented.
    pub scan_vox: [usize; 3],
    /// Of the scan that episodes are drawn from, and of the templates.
    pub training_vox: [usize; 3],
    /// Of the feature map that is scored.
    pub features_vox: [usize; 3],
    /// Keys of the configuration that are set beside those of its file.
    pub set: &'static [&'static str],
}

impl Sizes {
    /// Scans as the few-shot papers resample those of CHAOS T2-SPIR. One network: of several a step of training is one
    /// network's.
    pub const FULL: Self = Self {
        scan_vox: [37, 256, 256],
        training_vox: [32, 128, 128],
        features_vox: [24, 48, 48],
        set: &["features.ensemble_size=1"],
    };

    /// Each stage in a fraction of a second: for a test that all of them run.
    pub const SMALLEST: Self = Self {
        scan_vox: [8, 32, 32],
        training_vox: [16, 48, 48],
        features_vox: [4, 8, 8],
        set: &[
            "features.ensemble_size=1",
            "features.f_maps=4",
            "preprocessing.size_vox=[16,32,32]",
            "episode.min_size_vox=10",
        ],
    };
}

const EXTENT_MM: [f64; 3] = [37.0 * 7.0, 256.0 * 1.3, 256.0 * 1.3];

/// Subject `index` of a generated cohort: an abdomen of one extent in millimetres, whatever the number of voxels.
pub fn abdomen(size_vox: [usize; 3], index: usize) -> (Image, LabelMap) {
    let spacing_mm = [0, 1, 2].map(|axis| EXTENT_MM[axis] / size_vox[axis] as f64);
    phantom::subject(&phantom::Config { subjects: index + 1, size_vox, spacing_mm, seed: SEED }, index)
}

/// `paper` or `cpu`: a file of configs/, with what the sizes change of it.
pub fn configuration(name: &str, sizes: &Sizes) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"));
    let set: Vec<String> = sizes.set.iter().map(|&set| set.to_owned()).collect();
    config::load(Some(&path), &set).expect("the configurations that ship are valid")
}

// Supervoxels

/// Intensities from 0 to 1 (the 99.5th percentile), as `supervoxels::generate` makes them.
pub fn unit_range(image: &Image) -> Array3<f32> {
    let mut values: Vec<f32> = image.voxels.iter().copied().collect();
    let high = percentile(&mut values, 99.5) as f32;
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    image.voxels.mapv(|v| ((v - low) / (high - low)).min(1.0))
}

pub fn slic(unit: &Array3<f32>, spacing_mm: [f64; 3], k: usize) -> Array3<i32> {
    let config = slic::Config { k, compactness: 0.05, iterations: 10, min_size_fraction: 0.25, tolerance_vox: 0.0 };
    slic::segment(unit.view(), spacing_mm, None, &config)
}

pub fn felzenszwalb(unit: &Array3<f32>, spacing_mm: [f64; 3]) -> Array3<i32> {
    let config =
        felzenszwalb::Config { scale: 1.0, min_size_fraction: 5000.0 / unit.len() as f64, min_size_2d_vox: 400 };
    felzenszwalb::segment((unit * 255.0).view(), spacing_mm, None, &config)
}

// Episodes

/// Where the episodes of a configuration come from: one generated scan with its supervoxels on the working grid.
pub struct Source {
    pub config: Config,
    pub scan: Scan,
    candidates: Candidates,
}

impl Source {
    /// Of a file of configs/.
    pub fn new(name: &str, sizes: &Sizes) -> Self {
        let config = configuration(name, sizes);
        let (image, _) = abdomen(sizes.training_vox, 0);
        let regions = supervoxels::generate(&image, &config.supervoxels);
        let preprocessing::Prepared { input: working, grid, .. } =
            preprocessing::prepare(&image, &config.preprocessing);
        let regions = grid.labels(regions.view());
        let spacing_mm = grid.spacing_mm(&image.geometry);
        let scan = Scan { id: "1".to_owned(), image: working, regions, organs: None, spacing_mm };
        let candidates = Candidates::new(std::slice::from_ref(&scan), &config.episode, &Rules::unlabelled());
        Self { config, scan, candidates }
    }

    /// The data preparation of one training step.
    pub fn episode(&self, step: u64) -> Episode {
        let Config { episode, augment, .. } = &self.config;
        let mut rng = rng::stream(SEED, "episode", step);
        let draw = episode::draw(&mut rng, &self.candidates, episode).expect("the scan has admissible regions");
        Episode::make(std::slice::from_ref(&self.scan), &draw, episode, augment, &mut rng)
            .expect("regions that survive the transform")
    }
}

/// Draws and applies one affine, elastic and gamma transform.
pub fn augment(
    config: &augment::Config,
    image: &Array3<f32>,
    mask: &Array3<u8>,
    spacing_mm: [f64; 3],
    step: u64,
) -> (Array3<f32>, Array3<u8>) {
    let params = augment::draw(&mut rng::stream(SEED, "augment", step), config);
    augment::apply(&params, image, mask, spacing_mm)
}

// Local prototypes

/// Query features (1, C, d, h, w), one class of prototypes (P, C) and the gradient of the scores (1, 1, d, h, w).
pub struct Scoring {
    pub features: Tensor,
    pub prototypes: Tensor,
    pub gradient: Tensor,
}

impl Scoring {
    pub fn new(size_vox: [usize; 3]) -> Self {
        let mut rng = rng::stream(SEED, "scoring", 0);
        let mut uniform = |shape: &[i64]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
            from_floats(&values, shape)
        };
        let (channels, count) = (16, 384);
        let [d, h, w] = size_vox.map(|n| n as i64);
        Self {
            features: uniform(&[1, channels, d, h, w]).set_requires_grad(true),
            prototypes: uniform(&[count, channels]).set_requires_grad(true),
            gradient: uniform(&[1, 1, d, h, w]),
        }
    }
}

/// Scores of one class, forward and backward: <scores, gradient>, and the lengths of both gradients.
pub fn score(scoring: &Scoring) -> Vec<f64> {
    let Scoring { features, prototypes, gradient } = scoring;
    let rows = Prototypes { background: vec![prototypes.shallow_clone()], foreground: vec![], sizes_vox: None };
    [features, prototypes].into_iter().for_each(|leaf| leaf.shallow_clone().zero_grad());
    let mut tape = Tape::default();
    let outcome = (similarity::scores(features, &rows, 20.0, &mut tape) * gradient).sum(tch::Kind::Float);
    outcome.backward();
    tape.backward();
    [&outcome, &features.grad().norm(), &prototypes.grad().norm()].map(|t| t.double_value(&[])).into()
}

// Training

/// A network with its optimiser, and the episode that it learns.
pub struct Trainer {
    pub model: Network,
    adamw: AdamW,
    tensors: Tensors,
    loss: loss::Config,
    alignment: bool,
    learning_rate: f64,
}

impl Trainer {
    pub fn new(source: &Source, alignment: bool) -> Self {
        let config = &source.config;
        let model = Network::new(&config.network(), Device::Cpu, SEED);
        let trainable = weights::variables(&model.variables).into_iter().filter(|(_, v)| v.requires_grad()).collect();
        Self {
            adamw: AdamW::new(trainable, config.training.weight_decay),
            tensors: Tensors::new(&source.episode(0), Device::Cpu),
            loss: config.loss.clone(),
            alignment,
            learning_rate: config.training.learning_rate,
            model,
        }
    }

    /// One update of the weights: the loss of Eq. 3.6 before it.
    pub fn step(&mut self) -> f64 {
        self.adamw.zero_gradients();
        let mut outcome = step(&self.model, &self.tensors, &self.loss, self.alignment, Some(0));
        outcome.backward();
        let norm = self.adamw.gradient_norm().double_value(&[]);
        assert!(norm.is_finite(), "a finite gradient");
        self.adamw.step(self.learning_rate, 0.9);
        outcome.segmentation.double_value(&[])
    }
}

// Segmentation

/// A query and an annotated support on the network's grid.
pub struct OneShot {
    model: Network,
    inference: inference::Config,
    support: Tensor,
    classes: Tensor,
    query: NetworkVolume,
}

impl OneShot {
    pub fn new(name: &str, sizes: &Sizes) -> Self {
        let config = configuration(name, sizes);
        let [(image, labels), (query, _)] = [0, 1].map(|index| abdomen(sizes.training_vox, index));
        let preprocessing::Prepared { input: support, grid, .. } =
            preprocessing::prepare(&image, &config.preprocessing);
        let classes = grid.labels(labels.voxels.view()).mapv(|label| label as u8);
        let geometry = query.geometry.clone();
        let preprocessing::Prepared { input: query, grid: query_grid, .. } =
            preprocessing::prepare(&query, &config.preprocessing);
        Self {
            model: Network::new(&config.network(), Device::Cpu, SEED),
            inference: config.inference.clone(),
            support: from_voxels(support.view()),
            classes: from_classes(classes.view()),
            query: NetworkVolume { image: from_voxels(query.view()), spacing_mm: query_grid.spacing_mm(&geometry) },
        }
    }

    /// Features of both volumes, prototypes and scores.
    pub fn segment(&self) -> ndarray::Array4<f32> {
        let support = Shot::new(self.support.shallow_clone(), self.classes.shallow_clone());
        let scorer = inference::scorer(&self.model, &self.inference, &[support], phantom::CLASSES.len());
        to_channels(&scorer.scores(&self.query))
    }
}
