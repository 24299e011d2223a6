//! `ssl3d segment`: a class that the network has never been trained on, from one labelled volume.

mod classes;
mod descriptions;
mod outputs;
mod queries;
mod slices;
mod summary;

use crate::artifact;
use crate::cli::Segment;
use crate::commands::progress::{Progress, warn};
use crate::commands::scans::ScanFile;
use crate::commands::{Resources, memory, stop};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inference::{self, Fitted, PreparedScan, Segmentation, Segmenter, Support};
use crate::metrics::Measured;
use crate::preprocessing::Annotation;
use crate::pretrained::Weights;
use crate::report::overlay;
use crate::volume::{Class, ClassMap, LabelMap, nifti};
use outputs::Outputs;
use queries::Query;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use summary::{Answer, Found, LabelClass, Origin, Summary};

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

/// Slices in a preview.
const PREVIEW_SLICES: usize = 3;

/// Reads, segments and writes every query.
///
/// # Errors
/// The flags contradict each other; a file cannot be read or written, or is there already; some query fails or a signal stops it.
pub fn run(args: &Segment, resources: Resources) -> Result<()> {
    check_pairs(args)?;
    let weights = Weights::read(&args.weights)?;
    let config = weights.config(&args.overrides.set)?;
    let queries = queries::find(&args.query, &config.data, &args.support_label)?;
    if !args.slices.is_empty() && queries.len() != 1 {
        let found = format!("{} queries", queries.len());
        return Err(Error::invalid("--slices", "one query, whose slices they are", found, "use a call for each query"));
    }
    let outputs = Outputs { args };
    outputs.refuse_existing(&queries)?;
    let needed = memory::estimate(&config).segmenting_bytes;
    memory::check("segmenting", needed, resources.memory_limit, resources.device, memory::SEGMENTING)?;
    artifact::create_folder(&args.out)?;
    let network = weights.load(config, resources.device)?;
    let supports = Supports::read(args, &network.config)?;
    let mut segmenter = network.segmenter();
    if args.largest_component {
        segmenter.keep_largest_of_all();
    }
    let fitted = supports.fit(&segmenter, &network.config)?;
    if !args.force {
        summary::refuse_others(&supports.classes, &args.out)?;
    }
    let origin = Origin::new(args)?;
    let mut summary = Summary { classes: supports.classes.clone(), queries: BTreeMap::new(), failed: BTreeMap::new() };

    let progress = Progress::new("segmenting", 0, queries.len() as u64);
    for query in &queries {
        stop::check()?;
        match segment(query, &fitted, &supports, &outputs, &network.config, &origin) {
            Ok(answer) => {
                progress.note(&answer.line());
                summary.queries.insert(query.name.clone(), answer);
            }
            Err(error) if queries.len() == 1 => {
                progress.finish();
                return Err(error);
            }
            Err(error) => {
                // The other queries are worth having all the same.
                warn(&error.to_string());
                summary.failed.insert(query.shown(), error.to_string());
            }
        }
        summary.write(&args.out, args.report.as_deref(), args.force)?;
        progress.step("");
    }
    progress.finish();
    summary.check_all(queries.len())
}

/// The supports as they were read, and what is looked for.
struct Supports {
    scans: Vec<PreparedScan>,
    maps: Vec<LabelMap>,
    classes: Vec<LabelClass>,
    map: ClassMap,
}

impl Supports {
    fn read(args: &Segment, config: &Config) -> Result<Self> {
        let (mut scans, mut maps) = (Vec::new(), Vec::new());
        for (image, label) in pairs(args) {
            let file = ScanFile::read(image, &config.preprocessing)?;
            maps.push(file.read_labels(image, label)?);
            scans.push(file.scan);
        }
        let files = &args.support_label;
        let names = classes::names(files)?;
        let ignore = config.data.ignore;
        let values = classes::values(&args.classes, &maps.iter().collect::<Vec<_>>(), files, &names, ignore)?;
        let classes = summary::classes(&values, &names);
        let named: Vec<(i32, &str)> = classes.iter().map(|class| (class.value, class.name.as_str())).collect();
        for ((scan, labels), file) in scans.iter().zip(&maps).zip(files) {
            let doubts = inference::label_doubts(&scan.image, labels, &named);
            doubts.iter().for_each(|text| warn(&format!("{}: {text}", file.display())));
        }
        Ok(Self { scans, maps, map: ClassMap::new(values)?, classes })
    }

    /// # Errors
    /// The network's grid shows nothing of a class, or no background.
    fn fit<'s>(&self, segmenter: &'s Segmenter<'s>, config: &Config) -> Result<Fitted<'s>> {
        let annotated = self.scans.iter().zip(&self.maps);
        let support = |(scan, map): (_, &LabelMap)| Support {
            scan,
            annotation: Annotation::new(map.clone(), config.data.ignore),
        };
        let fitted = segmenter.fit(&annotated.map(support).collect::<Vec<_>>(), &self.map);
        if let Some(class) = fitted.classes_without_voxels().first() {
            let (value, size) = (self.map.value(*class), config.preprocessing.size_vox);
            let expected = format!("at least one voxel of label {value} at the network's {size:?}");
            let remedy = "label a larger structure, or leave it out with --classes";
            return Err(Error::invalid("--support-label", expected, "none", remedy));
        }
        if !fitted.shows_background() {
            let expected = "at least one annotated voxel of background";
            let remedy = "annotate some of what surrounds the structure as 0";
            return Err(Error::invalid("--support-label", expected, "none", remedy));
        }
        Ok(fitted)
    }
}

/// Segments one volume and writes the result.
fn segment(
    query: &Query,
    fitted: &Fitted,
    supports: &Supports,
    outputs: &Outputs,
    config: &Config,
    origin: &Origin,
) -> Result<Answer> {
    let started = Instant::now();
    let (classes, args) = (&supports.classes, outputs.args);
    let result = outputs.result(query);
    let probabilities = outputs.probabilities(query, &supports.map)?;
    let ScanFile { scan, native } = query.read(&config.preprocessing)?;
    let mut warnings = Vec::new();
    let mut say = |text: String| {
        warn(&format!("{}: {text}", query.path.display()));
        warnings.push(text);
    };
    inference::query_doubts(&scan, &supports.scans).into_iter().for_each(&mut say);
    let ranges = slices::ranges(&args.slices, classes, &native)?;
    let found = fitted.segment(&scan, &ranges);
    for class in &found.missing {
        say(summary::hardly_found(&classes[class.index()]));
    }
    nifti::write_labels(&result, &found.labels, &native)?;
    let mut rows = Vec::new();
    found.for_each_probability(|class: Class, probability| {
        if let Some(path) = probabilities.get(class.index()) {
            nifti::write_image(path, probability, &native)?;
        }
        let LabelClass { value, name, .. } = &classes[class.index()];
        let measured = Measured::of(found.labels.view(), *value, probability.view(), &scan.image.geometry);
        if measured.voxels == 0 && ranges.get(class).is_some() {
            say(format!("nothing that looks like {name} was found in the slices that --slices names"));
        }
        rows.push(Found::new(*value, name, measured));
        Ok(())
    })?;
    if args.preview {
        write_preview(query, &scan, &found, classes, outputs)?;
    }
    Ok(Answer {
        path: query.path.display().to_string(),
        result: result.display().to_string(),
        seconds: started.elapsed().as_secs_f64(),
        warnings,
        found: rows,
        origin: origin.clone(),
    })
}

fn write_preview(
    query: &Query,
    scan: &PreparedScan,
    found: &Segmentation,
    classes: &[LabelClass],
    outputs: &Outputs,
) -> Result<()> {
    let labels = found.labels.view();
    let slices = overlay::best_slices(labels, PREVIEW_SLICES);
    let colours = classes.iter().map(|class| (class.value, class.colour)).collect();
    let png = overlay::overlay_png(&scan.image, None, labels, &colours, &slices);
    artifact::write_bytes(&outputs.preview(query), &png)
}
