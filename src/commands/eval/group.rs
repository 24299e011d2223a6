//! The scores of one training on the scans that its fold holds out.

use super::Task;
use crate::commands::progress::Progress;
use crate::commands::scans::{self, ScanFile};
use crate::commands::train::group_folder;
use crate::commands::{memory, stop};
use crate::config::Config;
use crate::episode::split;
use crate::error::{Error, Result};
use crate::evaluation::{self, AnnotatedScan, Evaluated, Found, Place, Supported};
use crate::pretrained::{self, Pretrained};
use crate::report::{Row, overlay};
use crate::volume::ClassMap;
use crate::volume::dataset::{Case, Dataset};
use crate::volume::frame::Frame;
use std::collections::{BTreeMap, BTreeSet};

/// A query that is shown.
pub struct Example {
    /// Mean over the classes, 0 to 1.
    pub dice: f64,
    /// Names of the query and its support.
    pub caption: String,
    /// The overlay.
    pub png: Vec<u8>,
}

/// Every class of every query of a group.
pub struct Scored {
    /// As the run is configured.
    pub rows: Vec<Row>,
    /// Without any scan beside support and query; none where there was no other in the first place.
    pub alone: Vec<Row>,
}

/// What one training of a fold is scored on.
pub struct Group<'a> {
    /// What was asked for.
    pub task: &'a Task<'a>,
    /// The run's configuration.
    pub config: &'a Config,
    /// The dataset.
    pub data: &'a Dataset,
    /// The fold.
    pub fold: usize,
    /// Index in `split.groups`.
    pub group: usize,
}

/// Names and label values of the organs that a group is tested on.
struct Organs<'a> {
    names: Vec<&'a str>,
    classes: ClassMap,
}

impl<'a> Group<'a> {
    /// Every query of the fold from each of its supports: the organs that the group is tested on. What is to be shown goes to `examples`.
    ///
    /// # Errors
    /// A file cannot be read; the weights have seen a scan that is needed; a signal stops it.
    pub fn score(&self, examples: &mut Vec<Example>) -> Result<Scored> {
        let Self { config, data, fold, .. } = *self;
        let parts = split::fold(data.cases.len(), fold, &config.split)?;
        let supports: Vec<usize> = match config.split.supports {
            split::Supports::Next => vec![parts.support],
            split::Supports::All => parts.test.iter().copied().chain([parts.support]).collect(),
        };
        let needed: BTreeSet<usize> = parts.test.iter().chain(&supports).copied().collect();
        let organs = self.organs()?;
        let pretrained = self.pretrained(&needed)?;
        let system = match (&pretrained, evaluation::mask_copy(config.system)) {
            (Some(pretrained), _) => Evaluated::Network(pretrained.segmenter()),
            (None, copy) => Evaluated::MaskCopy(copy.expect("a system without weights")),
        };
        let alone = pretrained.as_ref().filter(|_| config.inference.templates > 0);
        let alone = alone.map(|pretrained| Evaluated::Network(pretrained.segmenter_alone()));
        let frame = match &pretrained {
            Some(pretrained) => pretrained.frame.clone(),
            None => scans::frame(&needed.iter().map(|&position| &data.cases[position]).collect::<Vec<_>>())?,
        };
        let frame = frame.as_ref();
        let read = |&position: &usize| Ok((position, annotated(&data.cases[position], frame, config)?));
        let scans: BTreeMap<usize, AnnotatedScan> = needed.iter().map(read).collect::<Result<_>>()?;
        let total = supports.len() * parts.test.len() * (1 + usize::from(alone.is_some()));
        let progress = Progress::new(&format!("fold {fold}: scoring"), 0, total as u64);
        let mut rows = Scored { rows: vec![], alone: vec![] };
        let pairs = |system: &Evaluated, rows: &mut Vec<Row>, examples: &mut Vec<Example>| {
            for support in &supports {
                let supported = Supported::new(system, &scans[support], &organs.classes, config);
                for query in parts.test.iter().filter(|query| *query != support) {
                    stop::check()?;
                    rows.extend(self.pair(&supported, [&scans[support], &scans[query]], &organs, examples));
                    progress.step("");
                }
            }
            Ok(())
        };
        pairs(&system, &mut rows.rows, examples)?;
        if let Some(alone) = &alone {
            pairs(alone, &mut rows.alone, &mut vec![])?;
        }
        progress.finish();
        Ok(rows)
    }

    /// One query from its support, under all protocols.
    fn pair(
        &self,
        supported: &Supported,
        pair: [&AnnotatedScan; 2],
        organs: &Organs,
        examples: &mut Vec<Example>,
    ) -> Vec<Row> {
        let Self { task, config, fold, .. } = *self;
        let run = task.run.file_name().unwrap_or(task.run.as_os_str()).to_string_lossy().into_owned();
        let place = Place { run, fold };
        let mut rows = Vec::new();
        let mut joint: Option<Found> = None; // what serves several protocols is found once
        for &protocol in &task.protocols {
            let reusable = joint.take().filter(|found| supported.serves(found, protocol));
            let Some(found) = reusable.or_else(|| supported.segment(pair[1], protocol)) else { continue };
            let classes = (organs.names.as_slice(), &organs.classes);
            let scored = evaluation::score(config, &place, pair, classes, protocol, &found);
            if protocol == task.protocols[0] {
                examples.push(example(config, &scored, pair, &found, &organs.classes));
            }
            rows.extend(scored);
            joint = Some(found);
        }
        rows
    }

    fn organs(&self) -> Result<Organs<'a>> {
        let tested = self.config.split.tested(self.group, &self.data.classes)?;
        let is_tested = |(index, _): &(u8, _)| tested.contains(index);
        let organs = (1..).zip(&self.data.classes).filter(is_tested);
        let (names, values): (Vec<&str>, Vec<i32>) = organs.map(|(_, (name, &value))| (name.as_str(), value)).unzip();
        Ok(Organs { names, classes: ClassMap::new(values)? })
    }

    /// The network with the fold's weights, which must not have seen the scans that are `needed`; None of a system without weights.
    fn pretrained(&self, needed: &BTreeSet<usize>) -> Result<Option<Pretrained>> {
        let Self { task, config, data, fold, .. } = *self;
        if !config.system.is_trained() {
            return Ok(None);
        }
        let path = group_folder(task.run, Some(fold), &config.split, self.group).join("weights.safetensors");
        let weights = pretrained::Weights::read(&path)?;
        let bytes = memory::estimate(config).segmenting_bytes;
        memory::check("segmenting", bytes, task.resources.memory_limit, task.resources.device, memory::SEGMENTING)?;
        let trained_on = weights.provenance.trained_on.clone();
        let pretrained = weights.load(config.clone(), task.resources.device)?;
        let ids = |position: &usize| &data.cases[*position].id;
        if let Some(seen) = needed.iter().map(ids).find(|id| trained_on.contains(id)) {
            let expected = format!("scans that fold {fold} held out");
            let remedy = "give the dataset that the run was trained on";
            return Err(Error::file(
                &task.flags.data,
                expected,
                format!("scan {seen}, which it was trained on"),
                remedy,
            ));
        }
        Ok(Some(pretrained))
    }
}

fn annotated(case: &Case, frame: Option<&Frame>, config: &Config) -> Result<AnnotatedScan> {
    let Some(label) = &case.label else {
        let remedy = "eval needs the labels of the tested scans and of their support";
        return Err(Error::file(&case.image, "a label volume beside it", "none", remedy));
    };
    let file = ScanFile::read(&case.image, frame, &config.preprocessing)?;
    let labels = file.read_labels(&case.image, label, false)?;
    Ok(AnnotatedScan::new(case.id.clone(), file.scan, labels, config.data.ignore))
}

fn example(
    config: &Config,
    rows: &[Row],
    [support, query]: [&AnnotatedScan; 2],
    found: &Found,
    classes: &ClassMap,
) -> Example {
    let dice = evaluation::mean_dice(rows);
    let all: Vec<i32> = config.data.classes.values().copied().collect();
    let truth = evaluation::evaluated_labels(query.labels(), classes);
    let slices = overlay::best_slices(truth.view(), 2);
    let colours = overlay::class_colours(&all);
    let found = found.joined(classes);
    let png = overlay::overlay_png(&query.scan.image, Some(truth.view()), found.view(), &colours, &slices);
    let caption = format!("Scan {} from support {}: mean Dice {:.1}", query.id, support.id, 100.0 * dice);
    Example { dice, caption, png }
}
