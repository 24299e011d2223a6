//! `ssl3d segment`: a class that the network has never been trained on, from one labelled volume.

use crate::artifact;
use crate::commands::cohort::{Subject, named};
use crate::commands::progress::{Progress, note, warn};
use crate::commands::stop;
use crate::config;
use crate::error::{Error, Result};
use crate::metrics::volume_ml;
use crate::model::{Model, Reference, Shot};
use crate::prototypes::Classes;
use crate::supervoxels;
use crate::tensor::{from_voxels, to_channels};
use crate::training::checkpoint;
use crate::volume::preprocess::NativeScores;
use crate::volume::{LabelMap, nifti};
use ndarray::Array3;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub struct Args {
    pub weights: PathBuf,
    /// Image and labels of each shot.
    pub supports: Vec<(PathBuf, PathBuf)>,
    /// Label values; all that the supports have where it is None.
    pub classes: Option<Vec<i32>>,
    pub queries: Vec<PathBuf>,
    pub out: PathBuf,
    pub probabilities: bool,
    pub force: bool,
    pub overrides: Vec<String>,
    pub device: tch::Device,
}

/// `--support` and `--support-label`, one to one.
pub fn pair(images: Vec<PathBuf>, labels: Vec<PathBuf>) -> Result<Vec<(PathBuf, PathBuf)>> {
    if images.len() == labels.len() {
        return Ok(images.into_iter().zip(labels).collect());
    }
    let expected = format!("{} of them, one for each --support", images.len());
    Err(Error::invalid("--support-label", expected, labels.len().to_string(), "repeat both flags in the same order"))
}

/// `1,3` or `all`.
pub fn parse_classes(text: &str) -> Result<Option<Vec<i32>>> {
    if text == "all" {
        return Ok(None);
    }
    let refuse = || {
        let expected = "all, or label values other than 0 separated by commas";
        Error::invalid("--classes", expected, format!("{text:?}"), "for instance --classes 1,3")
    };
    let values: BTreeSet<i32> = text
        .split(',')
        .map(|part| part.trim().parse().ok().filter(|&v| v != 0).ok_or_else(refuse))
        .collect::<Result<_>>()?;
    if values.len() > MOST_CLASSES {
        let (expected, found) = (format!("at most {MOST_CLASSES} values"), values.len().to_string());
        return Err(Error::invalid("--classes", expected, found, "use several calls"));
    }
    Ok(Some(values.into_iter().collect()))
}

/// Classes are counted in a byte, and each costs a volume of scores.
const MOST_CLASSES: usize = 200;

/// A network that knows what to look for.
struct Segmenter {
    model: Model,
    config: config::Config,
    reference: Reference,
    /// Label value of class 1, 2, ...
    values: Vec<i32>,
    /// Those that are one piece in every support, where the configuration holds them to that.
    one_pieces: BTreeSet<i32>,
}

pub fn run(args: &Args) -> Result<()> {
    let outputs = outputs(args)?;
    artifact::create_folder(&args.out)?;
    let segmenter = Segmenter::new(args)?;
    let progress = Progress::new("segmenting", 0, args.queries.len() as u64);
    let mut failed = Vec::new();
    for (query, output) in args.queries.iter().zip(&outputs) {
        stop::check()?;
        match segmenter.segment(query, output, args) {
            Ok(line) => progress.note(&line),
            Err(error) => {
                // The other queries are worth having all the same.
                warn(&error.to_string());
                failed.push(query.display().to_string());
            }
        }
        progress.step("");
    }
    progress.finish();
    if failed.is_empty() {
        return Ok(());
    }
    let expected = format!("{} results", args.queries.len());
    let found = format!("{}; failed: {}", args.queries.len() - failed.len(), failed.join(", "));
    Err(Error::invalid("segment", expected, found, "see the warnings above"))
}

/// Where each query's result goes; two queries never share a file, and nothing is overwritten unasked.
fn outputs(args: &Args) -> Result<Vec<PathBuf>> {
    let mut taken = BTreeMap::new();
    for query in &args.queries {
        let output = args.out.join(format!("{}_seg.nii.gz", stem(query)));
        if let Some(other) = taken.insert(output.clone(), query) {
            let found = format!("{} and {}, which have one", other.display(), query.display());
            return Err(Error::invalid("--query", "files of different names", found, "rename one or use two calls"));
        }
        refuse_existing(&output, args.force)?;
    }
    Ok(args.queries.iter().map(|query| args.out.join(format!("{}_seg.nii.gz", stem(query)))).collect())
}

fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        let remedy = "give another --out, or --force to overwrite";
        return Err(Error::file(path, "no result yet", "an existing file", remedy));
    }
    Ok(())
}

/// The file's name without .nii or .nii.gz.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    [".nii.gz", ".nii"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name).to_owned()
}

impl Segmenter {
    fn new(args: &Args) -> Result<Self> {
        let (about, tensors) = checkpoint::read_weights(&args.weights)?;
        let config = config::with_overrides(&about.config, &args.weights.display().to_string(), &args.overrides)?;
        let model = Model::new(&config.model(), args.device, 0);
        model.load(&args.weights, &tensors)?;

        let shots: Vec<(Subject, LabelMap)> = args
            .supports
            .iter()
            .map(|(image, label)| {
                let subject = Subject::read(image, &config.preprocess)?;
                let labels = subject.read_labels(image, label)?;
                Ok((subject, labels))
            })
            .collect::<Result<_>>()?;
        let values = values(args, &shots, config.data.ignore)?;
        let supports: Vec<Shot> =
            shots.iter().map(|(subject, labels)| subject.shot(labels, &values, config.data.ignore)).collect();
        let reference = model.reference(&supports, values.len() as i64);
        for (value, shown) in values.iter().zip(reference.shown()) {
            if !shown {
                let size = config.preprocess.size_vox;
                let expected = format!("at least one voxel of label {value} at the network's {size:?}");
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
        for (_, labels) in &shots {
            let in_shot = supervoxels::one_pieces(labels.voxels.view(), config.data.ignore);
            let is_elsewhere = |value: &i32| !labels.voxels.iter().any(|label| label == value);
            one_pieces.retain(|value| in_shot.contains(value) || is_elsewhere(value));
        }
        Ok(Self { model, config, reference, values, one_pieces })
    }

    /// Segments one volume and writes the result; a line that says what was found.
    fn segment(&self, query: &Path, output: &Path, args: &Args) -> Result<String> {
        let probability = |value: &i32| output.with_file_name(format!("{}_probability_{value}.nii.gz", stem(query)));
        let probabilities: Vec<PathBuf> =
            if args.probabilities { self.values.iter().map(probability).collect() } else { vec![] };
        probabilities.iter().try_for_each(|path| refuse_existing(path, args.force))?;
        let mut subject = Subject::read(query, &self.config.preprocess)?;
        let scores = subject.find_regions_beside(&self.config, |subject| {
            to_channels(&self.model.predict(&from_voxels(subject.working.view()), &self.reference))
        });
        let native = subject.native_scores(scores.view());
        let labels = named(&native, &self.values, &self.one_pieces);
        nifti::write_labels(output, &labels, &subject.native)?;
        if !probabilities.is_empty() {
            let of_class = native_probabilities(&native, self.config.prediction.test_classes);
            for (class, path) in (1..).zip(&probabilities) {
                nifti::write_image(path, &of_class(class), &subject.native)?;
            }
        }
        let geometry = &subject.image.geometry;
        let volumes: Vec<String> = self
            .values
            .iter()
            .map(|&value| format!("label {value}: {:.1} ml", volume_ml(labels.view(), value, geometry)))
            .collect();
        Ok(format!("{}: {}", output.display(), volumes.join(", ")))
    }
}

/// The probability of a class on the native grid, by its index from 1 (Eq. 3.4); 0 where the network saw nothing.
fn native_probabilities<'a>(scores: &'a NativeScores, classes: Classes) -> impl Fn(usize) -> Array3<f32> + 'a {
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

/// The label values to look for: those asked for, or all that the supports have; never that of what is not annotated.
fn values(args: &Args, shots: &[(Subject, LabelMap)], ignore: Option<i32>) -> Result<Vec<i32>> {
    let mut present = BTreeSet::new();
    for (_, labels) in shots {
        present.extend(labels.voxels.iter().copied().collect::<BTreeSet<i32>>());
    }
    present.remove(&0);
    let ignored = ignore.filter(|ignore| present.remove(ignore));
    let list = |values: &BTreeSet<i32>| {
        let all: Vec<String> = values.iter().take(12).map(ToString::to_string).collect();
        if all.is_empty() { "nothing but 0".to_owned() } else { all.join(", ") }
    };
    let files: Vec<String> = args.supports.iter().map(|(_, label)| label.display().to_string()).collect();
    let refuse = |expected: String, remedy: &str| {
        let unknown =
            ignored.map_or(String::new(), |value| format!(" beside {value}, which is not annotated (data.ignore)"));
        Err(Error::invalid(files.join(" and "), expected, list(&present) + &unknown, remedy))
    };
    let wanted = match &args.classes {
        None if present.is_empty() => return refuse("a labelled structure".to_owned(), "draw it first"),
        None if present.len() > MOST_CLASSES => {
            let expected = format!("at most {MOST_CLASSES} label values");
            return refuse(expected, "this looks like an image rather than labels; choose with --classes");
        }
        None => present.iter().copied().collect(),
        Some(wanted) => match wanted.iter().find(|value| !present.contains(value)) {
            Some(missing) => return refuse(format!("label {missing}"), "name one of these with --classes"),
            None => wanted.clone(),
        },
    };
    if wanted.len() < present.len() {
        note(&format!("segmenting labels {wanted:?} of {}; the others count as background", list(&present)));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_dots() {
        for (path, expected) in [("a/scan.v2.nii.gz", "scan.v2"), ("b.nii", "b"), ("c", "c"), ("ü 1.nii.gz", "ü 1")] {
            assert_eq!(stem(Path::new(path)), expected);
        }
    }

    #[test]
    fn lists_of_classes_are_read_or_refused() {
        assert_eq!(parse_classes("all").unwrap(), None);
        assert_eq!(parse_classes("3, 1,3").unwrap(), Some(vec![1, 3]));
        for text in ["", "0", "liver", "1,,2"] {
            assert!(parse_classes(text).is_err(), "{text}");
        }
    }
}
