//! Our side of scripts/bench/compare.py, which starts it with one JSON object as its argument.
//!
//! `{"stage": "inputs" | "scan", ...}` writes what both sides read and ends. Any other stage is prepared, answered with
//! `{"ready": true}`, and then called at request, one JSON object a line: `{"calls": N}` is answered with the mean
//! seconds of a call and the numbers of the first one, `{"regions": PATH}` writes the regions of the last call.

#[path = "../../benches/stages/mod.rs"]
mod stages;

use ndarray::Array3;
use serde::Deserialize;
use ssl3d::artifact;
use ssl3d::device;
use ssl3d::episode::Scan;
use ssl3d::error::Result;
use ssl3d::preprocessing;
use ssl3d::tensor::from_voxels;
use ssl3d::training::checkpoint::{self, Provenance, State};
use ssl3d::training::templates;
use ssl3d::volume::nifti;
use ssl3d::weights::{self, Precision};
use stages::{Scoring, Sizes, Source, Trainer};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Order {
    threads: usize,
    /// Where the generated inputs lie.
    inputs: PathBuf,
    /// [`Sizes::SMALLEST`].
    smallest: bool,
    #[serde(flatten)]
    stage: Stage,
}

#[derive(Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
enum Stage {
    Inputs,
    Scan { size_vox: [usize; 3], image: PathBuf, label: PathBuf },
    Slic { image: PathBuf, k: usize },
    Felzenszwalb { image: PathBuf },
    Augment,
    Alp,
    Step { config: String, alignment: bool },
    Episode { config: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Time { calls: u32 },
    Write { regions: PathBuf },
}

/// What a call gives.
enum Outcome {
    Numbers(Vec<f64>),
    Regions(Array3<i32>),
}

fn main() {
    let order = std::env::args().nth(1).expect("one argument, as scripts/bench/compare.py gives it");
    let order: Order = serde_json::from_str(&order).expect("an order as scripts/bench/compare.py gives it");
    if let Err(fault) = run(order) {
        eprintln!("error: {fault}");
        std::process::exit(1);
    }
}

fn run(Order { threads, inputs, smallest, stage }: Order) -> Result<()> {
    device::threads::share(Some(threads)).expect("threads start");
    let sizes = if smallest { Sizes::SMALLEST } else { Sizes::FULL };
    match stage {
        Stage::Inputs => write_inputs(&inputs, &sizes),
        Stage::Scan { size_vox, image, label } => write_scan(size_vox, 0, &image, Some(&label)),
        stage => answer(prepare(stage, &sizes)?),
    }
}

/// The stage with its input, as a function of the number of the call.
fn prepare(stage: Stage, sizes: &Sizes) -> Result<Box<dyn FnMut(u64) -> Outcome>> {
    Ok(match stage {
        Stage::Inputs | Stage::Scan { .. } => unreachable!("these end before"),
        Stage::Slic { image, k } => {
            let (unit, spacing_mm) = read_unit(&image)?;
            Box::new(move |_| Outcome::Regions(stages::slic(&unit, spacing_mm, k)))
        }
        Stage::Felzenszwalb { image } => {
            let (unit, spacing_mm) = read_unit(&image)?;
            Box::new(move |_| Outcome::Regions(stages::felzenszwalb(&unit, spacing_mm)))
        }
        Stage::Augment => {
            let source = Source::new("paper", sizes);
            let episode = source.episode(0);
            let (config, spacing_mm) = (source.config.augment, source.scan.spacing_mm);
            Box::new(move |call| {
                drop(stages::augment(&config, &episode.support_image, &episode.support_labels, spacing_mm, call));
                Outcome::Numbers(vec![])
            })
        }
        Stage::Alp => {
            let scoring = Scoring::new(sizes.features_vox);
            Box::new(move |_| Outcome::Numbers(stages::score(&scoring)))
        }
        Stage::Step { config, alignment } => {
            let mut trainer = Trainer::new(&Source::new(&config, sizes), alignment);
            Box::new(move |_| Outcome::Numbers(vec![trainer.step()]))
        }
        Stage::Episode { config } => {
            let source = Source::new(&config, sizes);
            Box::new(move |call| {
                drop(source.episode(call));
                Outcome::Numbers(vec![])
            })
        }
    })
}

fn read_unit(image: &Path) -> Result<(Array3<f32>, [f64; 3])> {
    let (image, _) = nifti::read_image(image)?;
    Ok((stages::unit_range(&image), image.geometry.spacing_mm()))
}

fn answer(mut call: Box<dyn FnMut(u64) -> Outcome>) -> Result<()> {
    let say = |answer: serde_json::Value| {
        println!("{answer}");
        std::io::stdout().flush().expect("compare.py listens");
    };
    say(serde_json::json!({ "ready": true }));
    let mut last = Outcome::Numbers(vec![]);
    let mut done = 0;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line.expect("text")).expect("a request as compare.py makes it") {
            Request::Time { calls } => {
                let started = Instant::now();
                for _ in 0..calls {
                    last = call(done);
                    done += 1;
                }
                let seconds = started.elapsed().as_secs_f64() / f64::from(calls);
                let numbers = match &last {
                    Outcome::Numbers(numbers) => numbers.clone(),
                    Outcome::Regions(regions) => vec![f64::from(regions.iter().copied().max().unwrap_or(0))],
                };
                say(serde_json::json!({ "seconds": seconds, "numbers": numbers }));
            }
            Request::Write { regions: path } => {
                let Outcome::Regions(regions) = &last else { panic!("a stage that gives regions") };
                let regions = from_voxels(regions.mapv(|region| region as f32).view());
                weights::write(&path, &BTreeMap::from([("regions".to_owned(), regions)]), "")?;
                say(serde_json::json!({ "written": true }));
            }
        }
    }
    Ok(())
}

/// Scans to segment; episodes, weights and features on which both sides start from the same numbers; templates.
/// The templates lie beside all weights: of the two configurations cpu.toml alone has some.
fn write_inputs(folder: &Path, sizes: &Sizes) -> Result<()> {
    artifact::create_folder(folder)?;
    write_scan(sizes.scan_vox, 0, &folder.join("support.nii.gz"), Some(&folder.join("support_label.nii.gz")))?;
    write_scan(sizes.scan_vox, 1, &folder.join("query.nii.gz"), None)?;
    for name in ["cpu", "paper"] {
        let source = Source::new(name, sizes);
        let episode = source.episode(0);
        let labels = |labels: &Array3<u8>| from_voxels(labels.mapv(f32::from).view());
        let spacing_mm = source.scan.spacing_mm.map(|mm| mm as f32);
        let tensors = [
            ("support_image", from_voxels(episode.support_image.view())),
            ("support_labels", labels(&episode.support_labels)),
            ("query_image", from_voxels(episode.query_image.view())),
            ("query_labels", labels(&episode.query_labels)),
            ("spacing_mm", Tensor::from_slice(&spacing_mm)),
        ];
        write_tensors(&folder.join(format!("episode_{name}.safetensors")), Vec::from(tensors))?;
        let about = Provenance {
            ssl3d: env!("CARGO_PKG_VERSION").to_owned(),
            config: source.config.to_toml(),
            fold: "none".to_owned(),
            trained_on: vec![],
            data: String::new(),
            frame: None,
            state: State::START,
        };
        let model = Trainer::new(&source, false).model;
        checkpoint::write_weights(
            &folder.join(format!("weights_{name}.safetensors")),
            &model,
            &about,
            Precision::Single,
        )?;
        let scans = template_scans(&source, sizes);
        templates::write(folder, &scans, scans.len(), &about)?;
    }
    let Scoring { features, prototypes, gradient } = Scoring::new(sizes.features_vox);
    let tensors = [("features", features), ("prototypes", prototypes), ("gradient", gradient)];
    write_tensors(&folder.join("alp.safetensors"), Vec::from(tensors))
}

/// As many scans as the configuration has templates, none of them the support or the query.
fn template_scans(source: &Source, sizes: &Sizes) -> Vec<Scan> {
    let scan = |index: usize| {
        let (image, _) = stages::abdomen(sizes.training_vox, index);
        let preprocessing::Prepared { input: image, .. } = preprocessing::prepare(&image, &source.config.preprocessing);
        Scan { id: index.to_string(), image, ..source.scan.clone() }
    };
    (2..).take(source.config.inference.templates).map(scan).collect()
}

fn write_tensors(path: &Path, tensors: Vec<(&str, Tensor)>) -> Result<()> {
    let named = |(name, tensor): (&str, Tensor)| (name.to_owned(), tensor.to_kind(Kind::Float));
    weights::write(path, &tensors.into_iter().map(named).collect(), "")
}

fn write_scan(size_vox: [usize; 3], index: usize, image: &Path, label: Option<&Path>) -> Result<()> {
    let (voxels, labels) = stages::abdomen(size_vox, index);
    nifti::write_new(image, &voxels)?;
    label.map_or(Ok(()), |label| nifti::write_new(label, &labels))
}
