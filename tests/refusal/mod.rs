//! Tables of inputs that have to be refused, and how each is looked at.

mod challenge;
mod commands;
mod configurations;
mod datasets;
mod dicom;
mod volumes;
mod weights;

use crate::program::{command, said};
use clap::Parser;
use ssl3d::cli::Cli;
use ssl3d::commands::progress::one_line;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// One input that has to be refused.
pub struct Row {
    name: &'static str,
    /// What the message names before it says what was expected.
    place: String,
    /// What else it has to say.
    words: &'static [&'static str],
    /// Behind the arguments of the table.
    flags: &'static str,
    /// The exit code: 2 where a flag is at fault.
    code: u8,
    make: Box<dyn Fn(&Path)>,
}

pub fn row(
    name: &'static str,
    place: impl Into<String>,
    words: &'static [&'static str],
    make: impl Fn(&Path) + 'static,
) -> Row {
    Row { name, place: place.into(), words, flags: "", code: 1, make: Box::new(make) }
}

impl Row {
    /// With a flag that is at fault.
    pub fn used_wrongly(self, flags: &'static str) -> Self {
        Self { flags, code: 2, ..self }
    }

    pub fn with(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }
}

/// Makes each input in a folder of its own, gives it to `arguments`, in which `{}` is that folder, and looks at the fault and at
/// `out` in the folder.
pub fn check(table: &str, arguments: &str, rows: &[Row]) {
    let mut failures = Vec::new();
    for (index, Row { name, place, words, flags, code: expected, make }) in rows.iter().enumerate() {
        let folder = tempdir().unwrap();
        make(folder.path());
        let arguments = &format!("{arguments} {flags}");
        let mut complain = |what: &str, text: &str| failures.push(format!("{table}, {name}: {what}: {text}"));
        let fault = match catch_unwind(AssertUnwindSafe(|| call(arguments, folder.path()))) {
            Ok(Err((code, fault))) if code == *expected => fault,
            Ok(Err((code, fault))) => {
                complain(&format!("exit code {code}"), &fault);
                continue;
            }
            Ok(Ok(())) => {
                complain("not refused", "");
                continue;
            }
            Err(_) => {
                complain("panicked", "");
                continue;
            }
        };
        judge(&fault, folder.path(), place, words).iter().for_each(|what| complain(what, &fault));
        let written = files(&folder.path().join("out"));
        if !written.is_empty() {
            complain("left files", &format!("{written:?} beside {fault}"));
        }
        if index == 0 {
            let paths = vec![folder.path(); arguments.matches("{}").count()];
            let output = command(&format!("{arguments} --quiet"), &paths).output().unwrap();
            let [stdout, stderr] = said(&output);
            let faults: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
            if output.status.code() != Some(i32::from(*expected))
                || !stdout.is_empty()
                || faults != [format!("ssl3d: {fault}")]
            {
                complain("the binary says something else", &format!("{} {stdout}{stderr}", output.status));
            }
        }
    }
    let count = rows.len();
    println!("{table}: {} of {count} cases refused as they should be", count - failures.len().min(count));
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// As the binary does, in this process: the exit code and the line.
pub fn call(arguments: &str, folder: &Path) -> Result<(), (u8, String)> {
    let folder = folder.to_str().expect("temporary folders have plain names");
    let given = arguments.split_whitespace().map(|word| word.replace("{}", folder));
    let always = ["ssl3d", "--quiet", "--threads", "1"].map(str::to_owned);
    let cli = Cli::try_parse_from(always.into_iter().chain(given)).expect("flags that there are");
    ssl3d::commands::run(cli).map_err(|error| (error.exit_code(), one_line(&error.to_string())))
}

/// What is wrong with a message.
fn judge(fault: &str, folder: &Path, place: &str, words: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let (named, rest) = match [": expected ", ": cannot "].iter().filter_map(|start| fault.split_once(start)).next() {
        Some(parts) => parts,
        None => return vec!["neither expected nor cannot".to_owned()],
    };
    let remedy = match fault.contains(": cannot ") {
        true => rest.rsplit_once("; ").map(|(_, remedy)| remedy),
        false => rest.split_once(", found ").and_then(|(_, found)| found.split_once("; ")).map(|(_, remedy)| remedy),
    };
    if remedy.is_none_or(|remedy| remedy.trim().len() < 5) {
        wrong.push("without found or without remedy".to_owned());
    }
    // A temporary folder has dots in its name, which a place could be taken for.
    if !named.replace(folder.to_str().unwrap(), "").contains(place) {
        wrong.push(format!("{place} is not named"));
    }
    wrong.extend(words.iter().filter(|word| !fault.contains(**word)).map(|word| format!("without {word:?}")));
    for never in ["panicked", "RUST_BACKTRACE", "backtrace", "\n"] {
        if fault.contains(never) {
            wrong.push(format!("with {never:?}"));
        }
    }
    wrong
}

/// All files below a folder but for locks, which hold nothing that anybody would miss.
pub fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.ends_with(".lock") => (),
            false => drop(found.insert(path)),
        }
    }
    found
}
