//! `ssl3d segment`: a class that the network has never been trained on, from one labelled volume.

mod classes;
mod descriptions;
mod outputs;
mod queries;
mod slices;
mod summary;
mod together;

use crate::artifact;
use crate::cli::Segment;
use crate::commands::progress::{Progress, note, warn};
use crate::commands::scans::ScanFile;
use crate::commands::{Resources, memory, plan, stop};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inference::{self, Fitted, PreparedScan, Reference, Segmenter, Support};
use crate::metrics::Measured;
use crate::preprocessing::Annotation;
use crate::volume::frame::Frame;
use crate::volume::{Class, ClassMap, LabelMap, nifti};
use outputs::Outputs;
use queries::Query;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use summary::{Answer, Found, LabelClass, Origin, Summary};
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

/// The supports as they were read, and what is looked for.
struct Supports {
    scans: Vec<PreparedScan>,
    maps: Vec<LabelMap>,
    classes: Vec<LabelClass>,
    map: ClassMap,
    /// Label value of what is not annotated.
    ignore: Option<i32>,
}

impl Supports {
    /// The first one is turned as the training scans, and all others, the queries too, as the first.
    fn read(args: &Segment, frame: Option<&Frame>, config: &Config) -> Result<Self> {
        let (mut scans, mut maps) = (Vec::<PreparedScan>::new(), Vec::new());
        for (image, label) in pairs(args) {
            let first = scans.first().map(|scan| Frame::of(&scan.image.geometry));
            let file = ScanFile::read(image, first.as_ref().or(frame), &config.preprocessing)?;
            maps.push(file.read_labels(image, label, args.resample_label)?);
            scans.push(file.scan);
        }
        let files = &args.support_label;
        let names = classes::names(files)?;
        let ignore = classes::ignored(config.data.ignore, &names);
        let values = classes::values(&args.classes, &maps.iter().collect::<Vec<_>>(), files, &names, ignore)?;
        let classes = summary::classes(&values, &names);
        let named: Vec<(i32, &str)> = classes.iter().map(|class| (class.value, class.name.as_str())).collect();
        for ((scan, labels), file) in scans.iter().zip(&maps).zip(files) {
            let doubts = inference::label_doubts(&scan.image, labels, &named);
            doubts.iter().for_each(|text| warn(&format!("{}: {text}", file.display())));
        }
        Ok(Self { scans, maps, map: ClassMap::new(values)?, classes, ignore })
    }

    fn frame(&self) -> Frame {
        Frame::of(&self.scans[0].image.geometry)
    }

    /// The supports as inference takes them.
    fn annotated(&self) -> Vec<Support<'_>> {
        let support =
            |(scan, map): (_, &LabelMap)| Support { scan, annotation: Annotation::new(map.clone(), self.ignore) };
        self.scans.iter().zip(&self.maps).map(support).collect()
    }

    /// Label values with their names.
    fn named(&self) -> Vec<(i32, &str)> {
        self.classes.iter().map(|class| (class.value, class.name.as_str())).collect()
    }

    /// Goes on without the classes of which the network's grid shows nothing.
    ///
    /// # Errors
    /// It shows nothing of any class, or no background.
    fn fit<'s>(&mut self, segmenter: &'s Segmenter<'s>, config: &Config) -> Result<Fitted<'s>> {
        let mut fitted = self.fit_all(segmenter);
        let lost = fitted.classes_without_voxels();
        if !lost.is_empty() {
            let called = |class: &Class| classes::called(&self.classes[class.index()]);
            let (list, size) = (lost.iter().map(called).collect::<Vec<_>>().join(", "), config.preprocessing.size_vox);
            if lost.len() == self.map.len() {
                let expected = format!("at least one voxel of a label at the network's {size:?}");
                let (found, remedy) = (format!("none of {list}"), "label a larger structure");
                return Err(Error::invalid("--support-label", expected, found, remedy));
            }
            warn(&format!("too small for a voxel of the network's {size:?}, so that it is not looked for: {list}"));
            let kept = self.map.iter().filter(|class| !lost.contains(class));
            let (values, classes) = kept
                .map(|class| (self.map.value(class), self.classes[class.index()].clone()))
                .unzip::<_, _, Vec<_>, _>();
            (self.map, self.classes) = (ClassMap::new(values)?, classes);
            fitted = self.fit_all(segmenter);
        }
        let without_say = fitted.classes_without_say();
        if !without_say.is_empty() {
            let called: Vec<String> =
                without_say.iter().map(|class| classes::called(&self.classes[class.index()])).collect();
            note(&format!(
                "from the support alone, since what looks like it in the training scans does not lead back to the support: {}",
                called.join(", ")
            ));
        }
        if !fitted.shows_background() {
            let expected = "at least one annotated voxel of background";
            let remedy = "annotate some of what surrounds the structure as 0";
            return Err(Error::invalid("--support-label", expected, "none", remedy));
        }
        Ok(fitted)
    }

    /// A query as it is compared with the supports.
    fn seen(&self, query: &Query, config: &Config) -> Result<ScanFile> {
        let file = query.read(&self.frame(), &config.preprocessing)?;
        let part = file.scan.part_of(&self.scans[0]);
        Ok(ScanFile { scan: part.unwrap_or(file.scan), ..file })
    }

    fn fit_all<'s>(&self, segmenter: &'s Segmenter<'s>) -> Fitted<'s> {
        segmenter.fit(&self.annotated(), &self.map)
    }
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
