//! Where results go, and what they must not replace.

use super::Args;
use super::queries::{self, Query};
use crate::error::{Error, Result};
use crate::volume::{Class, ClassMap};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files that a call writes.
pub struct Outputs<'a> {
    /// The call.
    pub args: &'a Args,
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

    /// The probability of each class, in order; none where they are not wanted.
    ///
    /// # Errors
    /// One of them exists.
    pub fn probabilities(&self, query: &Query, classes: &ClassMap) -> Result<Vec<PathBuf>> {
        let path = |class: Class| {
            self.args.out.join(format!("{}{}{}.nii.gz", query.name, queries::PROBABILITY, classes.value(class)))
        };
        let paths: Vec<PathBuf> = if self.args.probabilities { classes.iter().map(path).collect() } else { vec![] };
        paths.iter().try_for_each(|path| refuse_existing(path, self.args.force))?;
        Ok(paths)
    }

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
            refuse_existing(&result, args.force)?;
            self.refuse_to_lose(&result, queries)?;
            if args.preview {
                refuse_existing(&self.preview(query), args.force)?;
            }
        }
        let Some(report) = &args.report else { return Ok(()) };
        let folder = report.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::file(folder, "a folder for --report", "none", "create it first"));
        }
        refuse_existing(report, args.force)?;
        self.refuse_to_lose(report, queries)
    }

    /// A file that is read is never replaced, with --force neither.
    fn refuse_to_lose(&self, output: &Path, queries: &[Query]) -> Result<()> {
        let supports = self.args.supports.iter().flat_map(|(image, label)| [image, label]);
        let mut read = supports.chain(queries.iter().map(|query| &query.path)).chain([&self.args.weights]);
        let Ok(output) = output.canonicalize() else { return Ok(()) };
        match read.find(|input| input.canonicalize().is_ok_and(|input| input == output)) {
            Some(input) => {
                let found = "a file that this call reads";
                let remedy = "give another --out or --report";
                Err(Error::file(input, "no result in the place of an input", found, remedy))
            }
            None => Ok(()),
        }
    }
}

fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    if path.exists() && !force {
        let remedy = "give another --out, or --force to overwrite";
        return Err(Error::file(path, "no result yet", "an existing file", remedy));
    }
    Ok(())
}
