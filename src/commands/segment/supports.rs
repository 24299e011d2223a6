//! The annotated volumes of a call.

use super::queries::Query;
use super::summary::{self, LabelClass};
use super::{classes, pairs};
use crate::cli::Segment;
use crate::commands::progress::{note, warn};
use crate::commands::scans::ScanFile;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inference::{self, Fitted, PreparedScan, Segmenter, Support};
use crate::preprocessing::Annotation;
use crate::volume::frame::Frame;
use crate::volume::{Class, ClassMap, LabelMap};

/// The supports as they were read, and what is looked for.
pub struct Supports {
    pub scans: Vec<PreparedScan>,
    maps: Vec<LabelMap>,
    pub classes: Vec<LabelClass>,
    pub map: ClassMap,
    /// Label value of what is not annotated.
    ignore: Option<i32>,
}

impl Supports {
    /// The first one is turned as the training scans, and all others, the queries too, as the first.
    pub fn read(args: &Segment, frame: Option<&Frame>, config: &Config) -> Result<Self> {
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
    pub fn annotated(&self) -> Vec<Support<'_>> {
        let support =
            |(scan, map): (_, &LabelMap)| Support { scan, annotation: Annotation::new(map.clone(), self.ignore) };
        self.scans.iter().zip(&self.maps).map(support).collect()
    }

    /// Label values with their names.
    pub fn named(&self) -> Vec<(i32, &str)> {
        self.classes.iter().map(|class| (class.value, class.name.as_str())).collect()
    }

    /// Goes on without the classes of which the network's grid shows nothing.
    ///
    /// # Errors
    /// It shows nothing of any class, or no background.
    pub fn fit<'s>(&mut self, segmenter: &'s Segmenter<'s>, config: &Config) -> Result<Fitted<'s>> {
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
                "from the support alone, since what looks like it in the unlabelled scans does not lead back to the support: {}",
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
    pub fn seen(&self, query: &Query, config: &Config) -> Result<ScanFile> {
        let file = query.read(&self.frame(), &config.preprocessing)?;
        let part = file.scan.part_of(&self.scans[0]);
        Ok(ScanFile { scan: part.unwrap_or(file.scan), ..file })
    }

    fn fit_all<'s>(&self, segmenter: &'s Segmenter<'s>) -> Fitted<'s> {
        segmenter.fit(&self.annotated(), &self.map)
    }
}
