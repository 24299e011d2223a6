//! `ssl3d segment`: a class that the network has never been trained on, from one labelled volume.

mod classes;
mod queries;
mod slices;
mod summary;

use crate::artifact;
use crate::borders::Borders;
use crate::cli::Segment;
use crate::commands::cohort::{Drawing, Subject, native_probabilities};
use crate::commands::progress::{Progress, warn};
use crate::commands::{Resources, memory, stop};
use crate::config;
use crate::error::{Error, Result};
use crate::metrics::volume_ml;
use crate::model::{Model, Reference, Shot};
use crate::prediction::hard;
use crate::report::overlay;
use crate::supervoxels;
use crate::tensor::{from_voxels, to_channels};
use crate::training::{checkpoint, templates};
use crate::volume::foreground::body_mask;
use crate::volume::preprocess;
use crate::volume::{LabelMap, nifti};
use ndarray::Array3;
use queries::Query;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;
use summary::{Answer, Class, Found, Origin, Summary, Support};
use tch::{Kind, Tensor};

/// The image and the labels of each support: `--support` and `--support-label`, one to one.
fn pairs(args: &Segment) -> impl Iterator<Item = (&PathBuf, &PathBuf)> {
    args.support.iter().zip(&args.support_label)
}

fn check_pairs(args: &Segment) -> Result<()> {
    let [images, labels] = [&args.support, &args.support_label].map(Vec::len);
    if images == labels {
        return Ok(());
    }
    let expected = format!("{images} of them, one for each --support");
    Err(Error::invalid("--support-label", expected, labels.to_string(), "repeat both flags in the same order"))
}

/// A network that knows what to look for.
struct Segmenter {
    model: Model,
    config: config::Config,
    reference: Reference,
    supports: Vec<Subject>,
    classes: Vec<Class>,
    /// Label value of class 1, 2, ...
    values: Vec<i32>,
    /// Those that are one piece in every support, where the configuration holds them to that.
    one_pieces: BTreeSet<i32>,
    /// How the supports' annotators draw, where the configuration learns it.
    borders: Option<Borders>,
    origin: Origin,
}

/// Slices in a preview.
const PREVIEW_SLICES: usize = 3;
/// A label is pointed out if more than this share of it lies in the air, or if it fills more than this share of the body.
const IN_THE_AIR: f64 = 0.5;
const FILLS_THE_BODY: f64 = 0.8;

pub fn run(args: &Segment, resources: Resources) -> Result<()> {
    check_pairs(args)?;
    let (about, tensors) = checkpoint::read_weights(&args.weights)?;
    let config = config::with_overrides(&about.config, &args.weights.display().to_string(), &args.overrides.set)?;
    let queries = queries::find(&args.query, &config.data)?;
    if !args.slices.is_empty() && queries.len() != 1 {
        let found = format!("{} queries", queries.len());
        return Err(Error::invalid("--slices", "one query, whose slices they are", found, "use a call for each query"));
    }
    refuse_existing_results(&queries, args)?;
    memory::check(
        "segmenting",
        memory::estimate(&config).segmenting_bytes,
        resources.memory_limit,
        resources.device,
        memory::SEGMENTING,
    )?;
    artifact::create_folder(&args.out)?;
    let model = Model::new(&config.model(), resources.device, 0);
    model.load(&args.weights, &tensors)?;
    let templates = templates::read(&args.weights, &about, config.prediction.templates)?;
    let segmenter = Segmenter::new(model, &templates, config, args)?;
    if !args.force {
        summary::refuse_others(&segmenter.classes, &args.out)?;
    }
    let mut summary = Summary { classes: segmenter.classes.clone(), queries: BTreeMap::new(), failed: BTreeMap::new() };

    let progress = Progress::new("segmenting", 0, queries.len() as u64);
    for query in &queries {
        stop::check()?;
        match segmenter.segment(query, args) {
            Ok(answer) => {
                let of = |found: &Found| format!("{}: {:.1} ml", found.name, found.volume_ml);
                let volumes: Vec<String> = answer.found.iter().map(of).collect();
                progress.note(&format!("{}: {}", answer.result, volumes.join(", ")));
                summary.queries.insert(query.name.clone(), answer);
            }
            Err(error) if queries.len() == 1 => {
                progress.finish();
                return Err(error);
            }
            Err(error) => {
                // The other queries are worth having all the same.
                warn(&error.to_string());
                summary.failed.insert(query.path.display().to_string(), error.to_string());
            }
        }
        summary.write(&args.out, args.report.as_deref(), args.force)?;
        progress.step("");
    }
    progress.finish();
    if summary.failed.is_empty() {
        return Ok(());
    }
    let failed: Vec<&str> = summary.failed.keys().map(String::as_str).collect();
    let expected = format!("{} results", queries.len());
    let found = format!("{}; failed: {}", queries.len() - failed.len(), failed.join(", "));
    Err(Error::invalid("segment", expected, found, "see the warnings above"))
}

/// Two queries never share a file, and nothing is overwritten unasked.
fn refuse_existing_results(queries: &[Query], args: &Segment) -> Result<()> {
    let mut taken = BTreeMap::new();
    for query in queries {
        if let Some(other) = taken.insert(&query.name, &query.path) {
            let found = format!("{} and {}, which have one", other.display(), query.path.display());
            return Err(Error::invalid("--query", "files of different names", found, "rename one or use two calls"));
        }
        let result = result_path(query, args);
        artifact::refuse_existing([&result], "result", args.force)?;
        refuse_to_lose(&result, queries, args)?;
        if args.preview {
            artifact::refuse_existing([preview_path(query, args)], "result", args.force)?;
        }
    }
    let Some(report) = &args.report else { return Ok(()) };
    let folder = report.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::file(folder, "a folder for --report", "none", "create it first"));
    }
    artifact::refuse_existing([report], "result", args.force)?;
    refuse_to_lose(report, queries, args)
}

/// What is read is written over by nobody, with --force neither.
fn refuse_to_lose(output: &Path, queries: &[Query], args: &Segment) -> Result<()> {
    let written: Vec<PathBuf> = output.canonicalize().into_iter().collect();
    let supports = args.support.iter().chain(&args.support_label);
    let read = supports.chain(queries.iter().map(|query| &query.path)).chain([&args.weights]);
    artifact::refuse_to_lose(read, &written)
}

fn result_path(query: &Query, args: &Segment) -> PathBuf {
    args.out.join(format!("{}{}.nii.gz", query.name, queries::RESULT))
}

fn preview_path(query: &Query, args: &Segment) -> PathBuf {
    args.out.join(format!("{}_preview.png", query.name))
}

impl Segmenter {
    fn new(mut model: Model, templates: &[Tensor], config: config::Config, args: &Segment) -> Result<Self> {
        let (mut supports, mut maps) = (Vec::new(), Vec::new());
        let learns = config.prediction.learn_borders;
        for (image, label) in pairs(args) {
            let subject =
                if learns { Subject::read_query(image, &config)? } else { Subject::read(image, &config.preprocess)? };
            maps.push(subject.read_labels(image, label)?);
            supports.push(subject);
        }
        let files = &args.support_label;
        let names = classes::names(files)?;
        let ignore = config.data.ignore;
        let values = classes::values(&args.classes, &maps.iter().collect::<Vec<_>>(), files, &names, ignore)?;
        let classes = summary::classes(&values, &names);
        for ((subject, labels), file) in supports.iter().zip(&maps).zip(files) {
            doubts(subject, labels, &classes).iter().for_each(|text| warn(&format!("{}: {text}", file.display())));
        }
        let of = |(subject, labels): (&Subject, &LabelMap)| subject.shot(labels, &values, ignore);
        let mut shots: Vec<Shot> = supports.iter().zip(&maps).map(of).collect();
        model.ask_beside(templates);
        set_aside_what_others_drew(&model, &mut shots, &maps, &values);
        let reference = model.reference(&shots, values.len() as i64);
        for (class, shown) in classes.iter().zip(reference.shown()) {
            if !shown {
                let size = config.preprocess.size_vox;
                let expected = format!("at least one voxel of label {} at the network's {size:?}", class.value);
                let remedy = "label a larger structure, or leave it out with --classes";
                return Err(Error::invalid("--support-label", expected, "none", remedy));
            }
        }
        if !reference.shows_background() {
            let (expected, remedy) =
                ("at least one annotated voxel of background", "annotate some of what surrounds the structure as 0");
            return Err(Error::invalid("--support-label", expected, "none", remedy));
        }
        let mut one_pieces: BTreeSet<i32> = values.iter().copied().filter(|_| config.prediction.one_piece).collect();
        for labels in &maps {
            let in_shot = supervoxels::one_pieces(labels.voxels.view(), ignore);
            one_pieces.retain(|value| in_shot.contains(value) || !shows(labels, *value));
        }
        if args.largest_component {
            one_pieces.extend(&values);
        }
        let drawing = Drawing { values: &values, one_pieces: &one_pieces, slices: &[], config: &config.prediction };
        let drawn: Vec<_> = supports.iter().zip(&maps).map(|(subject, map)| (subject, map.voxels.view())).collect();
        let borders = if learns { drawing.learn(&model, &reference, &drawn, ignore) } else { None };
        let origin = origin(args)?;
        Ok(Self { model, config, reference, supports, classes, values, one_pieces, borders, origin })
    }

    /// Segments one volume and writes the result; what was found.
    fn segment(&self, query: &Query, args: &Segment) -> Result<Answer> {
        let started = Instant::now();
        let output = result_path(query, args);
        let probability = |value: &i32| args.out.join(format!("{}{}{value}.nii.gz", query.name, queries::PROBABILITY));
        let probabilities: Vec<PathBuf> =
            if args.probabilities { self.values.iter().map(probability).collect() } else { vec![] };
        artifact::refuse_existing(&probabilities, "result", args.force)?;
        let mut subject = query.read(&self.config)?;
        let say = |text: &String| warn(&format!("{}: {text}", query.path.display()));
        let mut warnings = summary::doubts(&subject, &self.supports);
        warnings.iter().for_each(say);
        let slices = slices::of_classes(&args.slices, &self.classes, &subject.native)?;
        let told = subject.told(&slices);
        let (scores, lost) = subject.find_regions_beside(&self.config, |subject| {
            let (scores, lost) = self.model.ask(&from_voxels(subject.working.view()), &self.reference, &told);
            (to_channels(&scores), lost)
        });
        let lost: Vec<String> = lost.iter().map(|&class| summary::hardly_found(&self.classes[class])).collect();
        lost.iter().for_each(say);
        warnings.extend(lost);
        let native = subject.native_scores(scores.view(), &self.config.prediction);
        let classes = self.config.prediction.test_classes;
        let (values, one_pieces) = (self.values.as_slice(), &self.one_pieces);
        let drawing = Drawing { values, one_pieces, slices: &slices, config: &self.config.prediction };
        let drawn = drawing.draw(&native, &subject.image, self.borders.as_ref());
        let labels = drawn.labels;
        nifti::write_labels(&output, &labels, &subject.native)?;
        let of_class: Box<dyn Fn(usize) -> Array3<f32>> = match &drawn.probabilities {
            Some(redrawn) => Box::new(|class| redrawn[class - 1].placed(labels.dim())),
            None => Box::new(native_probabilities(&native, classes)),
        };
        let mut found = Vec::new();
        for (index, class) in self.classes.iter().enumerate() {
            let probability = of_class(index + 1);
            if let Some(path) = probabilities.get(index) {
                nifti::write_image(path, &probability, &subject.native)?;
            }
            let inside = labels.iter().zip(&probability).filter(|(label, _)| **label == class.value);
            let (voxels, sum) = inside.fold((0, 0.0), |(count, sum), (_, p)| (count + 1, sum + f64::from(*p)));
            if voxels == 0 && slices.get(index).is_some_and(Option::is_some) {
                let text =
                    format!("nothing that looks like {} was found in the slices that --slices names", class.name);
                say(&text);
                warnings.push(text);
            }
            found.push(Found {
                value: class.value,
                name: class.name.clone(),
                voxels,
                volume_ml: volume_ml(labels.view(), class.value, &subject.image.geometry),
                mean_probability: (voxels > 0).then(|| sum / voxels as f64),
            });
        }
        if args.preview {
            let slices = overlay::best_slices(labels.view(), PREVIEW_SLICES);
            let colours = self.classes.iter().map(|class| (class.value, class.colour)).collect();
            let png = overlay::overlay_png(&subject.image, None, labels.view(), &colours, &slices);
            artifact::write_bytes(&preview_path(query, args), &png)?;
        }
        let (path, result) = (query.path.display().to_string(), output.display().to_string());
        let (seconds, origin) = (started.elapsed().as_secs_f64(), self.origin.clone());
        Ok(Answer { path, result, seconds, warnings, found, origin })
    }
}

fn origin(args: &Segment) -> Result<Origin> {
    let weights = std::fs::read(&args.weights).map_err(Error::io("read", &args.weights))?;
    let support = |(image, label): (&PathBuf, &PathBuf)| Support {
        image: image.display().to_string(),
        label: label.display().to_string(),
    };
    Ok(Origin {
        ssl3d: env!("CARGO_PKG_VERSION").to_owned(),
        weights: args.weights.display().to_string(),
        weights_digest: blake3::hash(&weights).to_hex().to_string(),
        supports: pairs(args).map(support).collect(),
        set: args.overrides.set.clone(),
        slices: args.slices.iter().map(ToString::to_string).collect(),
    })
}

fn shows(labels: &LabelMap, value: i32) -> bool {
    labels.voxels.iter().any(|label| *label == value)
}

/// A support in which a class of the others is not drawn says nothing about where that class lies: what the others find of it there
/// counts as not annotated, and not as background.
fn set_aside_what_others_drew(model: &Model, shots: &mut [Shot], maps: &[LabelMap], values: &[i32]) {
    let shown: Vec<Vec<bool>> =
        maps.iter().map(|labels| values.iter().map(|&value| shows(labels, value)).collect()).collect();
    let missing = |shot: usize| -> Vec<i64> {
        (1..).zip(&shown[shot]).filter(|(_, shown)| !**shown).map(|(class, _)| class).collect()
    };
    let mut set_aside = Vec::new();
    for index in 0..shots.len() {
        let missing = missing(index);
        let helps = |other: usize| other != index && missing.iter().any(|&class| shown[other][class as usize - 1]);
        let helpers: Vec<Shot> =
            shots.iter().enumerate().filter(|(other, _)| helps(*other)).map(|(_, shot)| shot.shallow_clone()).collect();
        if helpers.is_empty() {
            continue;
        }
        let reference = model.reference(&helpers, values.len() as i64);
        let found = hard(&model.predict(&shots[index].image, &reference)).to_device(tch::Device::Cpu);
        let theirs = missing.iter().fold(found.zeros_like(), |all, &class| all + found.eq(class).to_kind(Kind::Int64));
        // What it does show, it knows.
        set_aside.push((index, theirs * shots[index].classes.eq(0).to_kind(Kind::Int64)));
    }
    for (index, theirs) in set_aside {
        let shot = &mut shots[index];
        let ours: Tensor = 1.0 - theirs.to_kind(Kind::Float).view_as(&shot.image);
        shot.known = Some(shot.known.as_ref().map_or_else(|| ours.shallow_clone(), |known| known * &ours));
    }
}

/// What is odd about the labels of a support, a sentence each.
fn doubts(subject: &Subject, labels: &LabelMap, classes: &[Class]) -> Vec<String> {
    let mut voxels = subject.image.voxels.clone();
    preprocess::clip(&mut voxels, 0.0, 99.5);
    let body = body_mask(voxels.view());
    let body_vox = body.iter().filter(|inside| **inside).count() as f64;
    let mut doubts = Vec::new();
    for class in classes {
        let (mut all, mut inside) = (0.0, 0.0);
        for (label, is_body) in labels.voxels.iter().zip(&body) {
            if *label == class.value {
                all += 1.0;
                inside += f64::from(u8::from(*is_body));
            }
        }
        let of = |share: f64| format!("{:.0} %", 100.0 * share);
        if all > 0.0 && 1.0 - inside / all > IN_THE_AIR {
            let outside = of(1.0 - inside / all);
            doubts.push(format!("{outside} of {} lies outside of the body: was it drawn on this image?", class.name));
        }
        if inside / body_vox > FILLS_THE_BODY {
            doubts.push(format!("{} fills {} of the body", class.name, of(inside / body_vox)));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom;
    use tch::Device;

    /// The same scan twice, once with all organs and once with its liver alone: the second must not call the rest background.
    #[test]
    fn what_one_support_leaves_out_and_another_shows_counts_as_not_annotated() {
        let set = [
            "features.f_maps=4",
            "features.levels=2",
            "features.pooling=[[1,2,2]]",
            "preprocess.size_vox=[8,32,32]",
            "prototypes.test_window={size=[1,2,2]}",
            "prediction.test_classes=joint",
        ];
        let config = config::load(None, &set.map(str::to_owned)).unwrap();
        let model = Model::new(&config.model(), Device::Cpu, 0);
        let scan = phantom::Config { subjects: 1, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
        let (image, whole) = phantom::subject(&scan, 0);
        let liver =
            LabelMap { voxels: whole.voxels.mapv(|label| i32::from(label == 1)), geometry: whole.geometry.clone() };
        let subject = Subject::new(image, nifti::NativeGrid::new(&whole.geometry), &config.preprocess);
        let (maps, values) = ([liver, whole], [1, 2, 3, 4]);
        let mut shots: Vec<Shot> = maps.iter().map(|labels| subject.shot(labels, &values, None)).collect();
        set_aside_what_others_drew(&model, &mut shots, &maps, &values);

        assert!(shots[1].known.is_none(), "it shows every class");
        let unknown = shots[0].known.as_ref().expect("three classes are missing").eq(0.0).squeeze();
        let share = |of: &Tensor| {
            let inside = (of * &unknown).sum(Kind::Float).double_value(&[]);
            inside / of.sum(Kind::Float).double_value(&[])
        };
        assert!(share(&shots[1].classes.gt(1)) > 0.5, "most of what is missing is found");
        assert!(share(&shots[0].classes.eq(1)) == 0.0, "its liver stays");
        assert!(share(&shots[1].classes.eq(0)) < 0.3, "as does the background");
    }
}
