//! Where results go, and what they must not replace.

use super::descriptions;
use super::queries::{self, Query};
use super::summary::{LabelClass, SUMMARY, VOLUMES};
use crate::artifact;
use crate::cli::Segment;
use crate::error::{Error, Result};
use crate::inference::{PreparedScan, Segmentation};
use crate::report::overlay;
use crate::volume::{Class, ClassMap};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files that a call writes beside its label maps.
fn tables() -> [&'static str; 4] {
    [SUMMARY, VOLUMES, descriptions::ITK_SNAP, descriptions::SLICER]
}

/// Slices in a preview.
const PREVIEW_SLICES: usize = 3;

/// The files that a call writes.
pub struct Outputs<'a> {
    /// The call.
    pub args: &'a Segment,
}

impl Outputs<'_> {
    /// The label map of a query.
    pub fn result(&self, query: &Query) -> PathBuf {
        self.args.out.join(format!("{}{}.nii.gz", query.name, queries::RESULT))
    }

    /// The picture of a query.
    pub fn preview(&self, query: &Query) -> PathBuf {
        self.args.out.join(format!("{}_preview.png", query.name))
    }

    /// Draws the picture of a query.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_preview(
        &self,
        query: &Query,
        scan: &PreparedScan,
        found: &Segmentation,
        classes: &[LabelClass],
    ) -> Result<()> {
        let labels = found.labels.view();
        let slices = overlay::best_slices(labels, PREVIEW_SLICES);
        let colours = classes.iter().map(|class| (class.value, class.colour)).collect();
        let png = overlay::overlay_png(&scan.image, None, labels, &colours, &slices);
        artifact::write_bytes(&self.preview(query), &png)
    }

    /// The probability of each class, in order; none where they are not wanted.
    ///
    /// # Errors
    /// One of them exists.
    pub fn probabilities(&self, query: &Query, classes: &ClassMap) -> Result<Vec<PathBuf>> {
        let path = |class: Class| {
            self.args.out.join(format!("{}{}{}.nii.gz", query.name, queries::PROBABILITY, classes.value(class)))
        };
        let paths: Vec<PathBuf> = if self.args.probabilities { classes.iter().map(path).collect() } else { vec![] };
        artifact::refuse_existing(&paths, "result", self.args.force)?;
        Ok(paths)
    }

    /// Keeps what is there from being replaced.
    ///
    /// # Errors
    /// Two queries share a result; a result exists, or is a file that this call reads.
    pub fn refuse_existing(&self, queries: &[Query]) -> Result<()> {
        let Self { args } = self;
        let mut taken = BTreeMap::new();
        for query in queries {
            if let Some(other) = taken.insert(&query.name, &query.path) {
                let found = format!("{} and {}, which have one", other.display(), query.path.display());
                return Err(Error::invalid(
                    "--query",
                    "files of different names",
                    found,
                    "rename one or use two calls",
                ));
            }
            let result = self.result(query);
            artifact::refuse_existing([&result], "result", args.force)?;
            self.refuse_to_lose(&result, queries)?;
            if args.preview {
                artifact::refuse_existing([self.preview(query)], "result", args.force)?;
            }
        }
        artifact::refuse_folders(tables().map(|name| args.out.join(name)))?;
        let Some(report) = &args.report else { return Ok(()) };
        let folder = report.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::file(folder, "a folder for --report", "none", "create it first"));
        }
        if let Some(name) = self.others(report, queries) {
            let (expected, found) = ("a file that is nothing else of this call", format!("its {name}"));
            return Err(Error::file(report, expected, found, "give --report a name of its own"));
        }
        artifact::refuse_existing([report], "result", args.force)?;
        self.refuse_to_lose(report, queries)
    }

    /// What else the call writes to the path, if it does.
    fn others(&self, path: &Path, queries: &[Query]) -> Option<String> {
        let out = &self.args.out;
        let place = |path: &Path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(folder.canonicalize().unwrap_or(folder.to_owned()).join(path.file_name()?))
        };
        let name = path.file_name()?.to_string_lossy().into_owned();
        let is_probability = |query: &Query| {
            let rest = name.strip_prefix(&query.name).and_then(|rest| rest.strip_prefix(queries::PROBABILITY));
            self.args.probabilities && rest.is_some_and(|rest| rest.ends_with(".nii.gz"))
        };
        let results = queries.iter().flat_map(|query| [self.result(query), self.preview(query)]);
        let tables = tables().into_iter().filter(|name| *name != SUMMARY).map(|name| out.join(name));
        let is_taken = results.chain(tables).any(|other| place(&other) == place(path))
            || place(&out.join(&name)) == place(path) && queries.iter().any(is_probability);
        is_taken.then_some(name)
    }

    /// A file that is read is never replaced, with --force neither.
    fn refuse_to_lose(&self, output: &Path, queries: &[Query]) -> Result<()> {
        let written: Vec<PathBuf> = output.canonicalize().into_iter().collect();
        let supports = self.args.support.iter().chain(&self.args.support_label);
        let read = supports.chain(queries.iter().map(|query| &query.path)).chain(&self.args.weights);
        artifact::refuse_to_lose(read, &written)
    }
}
