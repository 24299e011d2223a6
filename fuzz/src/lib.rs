//! libFuzzer on every parser that `tests/fuzz.rs` feeds with damage drawn from seeds: a target a parser, with the same limit on
//! memory, and what those tests assert of a refusal.
//!
//! `scripts/fuzz.sh nifti 60` builds a target and runs it for a minute; all that it writes lies below `target/fuzz/`. By hand,
//! from the root of the checkout, with a nightly toolchain and `cargo install cargo-fuzz --locked`:
//!
//! ```sh
//! export LD_LIBRARY_PATH=$PWD/.libtorch/lib TMPDIR=/dev/shm
//! cargo +nightly fuzz run nifti --target-dir target/fuzz
//! cargo +nightly fuzz run nifti --target-dir target/fuzz fuzz/artifacts/nifti/crash-...
//! ```
//!
//! Seeds need no program: a target puts its own into its corpus before it begins.

#[path = "../../tests/challenge/mod.rs"]
pub mod challenge;
#[path = "../../tests/scanner/mod.rs"]
pub mod scanner;

use ssl3d::error::{Error, Result};
use ssl3d::volume::limit;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// To be called once: limits what a volume may take, and puts the seeds into the folder of the corpus where libFuzzer's
/// arguments name one (and not an input to repeat).
pub fn begin(seeds: impl IntoIterator<Item = Vec<u8>>) {
    // As --memory-limit 0.25 would.
    limit::set_bytes(250_000_000);
    let Some(corpus) = std::env::args_os().skip(1).map(PathBuf::from).find(|path| path.is_dir()) else { return };
    for (index, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed).expect("the corpus can be written");
    }
}

/// A file of the repository.
pub fn data(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// A folder for one input, gone when it is dropped.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("fuzz-").tempdir().expect("a temporary folder")
}

/// Writes a file of that name and returns its path.
pub fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a temporary file");
    path
}

/// What was read, or nothing where it was refused as it has to be: with what was expected and what was found.
pub fn sound<T>(outcome: Result<T>) -> Option<T> {
    let fault = match outcome {
        Ok(read) => return Some(read),
        Err(fault) => fault,
    };
    let text = fault.to_string();
    let said = match fault {
        Error::Invalid { .. } => text.contains("expected ") && text.contains("found "),
        Error::Io { .. } => text.contains("cannot "),
        Error::Use(_) | Error::Stopped { .. } => false,
    };
    assert!(said, "{text:?}");
    None
}
