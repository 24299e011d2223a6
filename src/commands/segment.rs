//! `ssl3d segment`: a class that the network has never been trained on, from one labelled volume.

mod classes;
mod descriptions;
mod outputs;
mod queries;
mod slices;
mod summary;
mod supports;
mod together;

use crate::artifact;
use crate::cli::Segment;
use crate::commands::progress::{Progress, warn};
use crate::commands::scans::ScanFile;
use crate::commands::{Resources, memory, plan, stop};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inference::{self, Fitted, Reference};
use crate::metrics::Measured;
use crate::volume::{Class, nifti};
use outputs::Outputs;
use queries::Query;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use summary::{Answer, Found, LabelClass, Origin, Summary};
use supports::Supports;
use together::Together;

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
    Err(Error::flag("--support-label", expected, labels.to_string(), "repeat both flags in the same order"))
}

/// Reads, segments and writes every query.
///
/// # Errors
/// The flags contradict each other; a file cannot be read or written, or is there already; some query fails or a signal stops it.
pub fn run(args: &Segment, resources: Resources) -> Result<()> {
    check_pairs(args)?;
    let (weights, config) = plan::for_segmenting(args)?;
    let queries = queries::find(&args.query, &config.data, &args.support_label)?;
    if !args.slices.is_empty() && queries.len() != 1 {
        let found = format!("{} queries", queries.len());
        return Err(Error::flag("--slices", "one query, whose slices they are", found, "use a call for each query"));
    }
    let outputs = Outputs { args };
    outputs.refuse_existing(&queries)?;
    let most_together = together::most(&queries, args)?;
    let mut with_templates = config.clone();
    with_templates.inference.templates += most_together;
    let needed = memory::estimate(&with_templates).segmenting_bytes;
    memory::check("segmenting", needed, resources.memory_limit, resources.device, memory::SEGMENTING)?;
    artifact::create_folder(&args.out)?;
    let mut origin = Origin::new(args, &weights);
    let network = weights.load(config, resources.device)?;
    let mut supports = Supports::read(args, network.frame.as_ref(), &network.config)?;
    let mut segmenter = network.segmenter();
    if args.largest_component {
        segmenter.keep_largest_of_all();
    }
    let together = Together::read(&queries, most_together, &supports, &network.config);
    let templates = segmenter.add_templates(&together.volumes);
    origin.together.clone_from(&together.names);
    let fitted = supports.fit(&segmenter, &network.config)?;
    queries.iter().try_for_each(|query| outputs.probabilities(query, &supports.map).map(drop))?;
    if !args.force {
        summary::refuse_others(&supports.classes, &args.out)?;
    }
    let reference = Reference::new(&supports.annotated(), &supports.map);
    let mut summary = Summary { classes: supports.classes.clone(), queries: BTreeMap::new(), failed: BTreeMap::new() };

    let progress = Progress::new("segmenting", 0, queries.len() as u64);
    for (index, query) in queries.iter().enumerate() {
        stop::check()?;
        let itself = together.place(index).map(|place| templates.start + place);
        match segment((query, itself), &fitted, &reference, &supports, &outputs, &network.config, &origin) {
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

/// Segments one volume, which may be one of the templates, and writes the result.
fn segment(
    (query, itself): (&Query, Option<usize>),
    fitted: &Fitted,
    reference: &Reference,
    supports: &Supports,
    outputs: &Outputs,
    config: &Config,
    origin: &Origin,
) -> Result<Answer> {
    let started = Instant::now();
    let (classes, args) = (&supports.classes, outputs.args);
    let result = outputs.result(query);
    let probabilities = outputs.probabilities(query, &supports.map)?;
    let ScanFile { scan, native } = supports.seen(query, config)?;
    let mut warnings = Vec::new();
    let mut say = |text: String| {
        warn(&format!("{}: {text}", query.path.display()));
        warnings.push(text);
    };
    inference::query_doubts(&scan, &supports.scans).into_iter().for_each(&mut say);
    let ranges = slices::ranges(&args.slices, classes, &native)?;
    let found = match itself {
        Some(template) => fitted.segment_template(template, &scan, &ranges),
        None => fitted.segment(&scan, &ranges),
    };
    for class in &found.missing {
        say(summary::hardly_found(&classes[class.index()]));
    }
    reference.doubts(&scan, found.labels.view(), &supports.named()).into_iter().for_each(&mut say);
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
        outputs.write_preview(query, &scan, &found, classes)?;
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
