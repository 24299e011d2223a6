//! Runs the binary and looks at what it says.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary with these arguments, separated by blanks; `{}` stands for the next of `paths`. On one thread unless they say otherwise, since tests
/// run side by side, and OpenMP pools that share cores spend their time spinning.
pub fn command(arguments: &str, paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssl3d"));
    if !arguments.contains("--threads") {
        command.args(["--threads", "1"]);
    }
    let mut paths = paths.iter();
    for argument in arguments.split_whitespace() {
        match argument.split_once("{}") {
            Some((before, after)) => {
                let path = paths.next().expect("a path for each {}").display();
                command.arg(format!("{before}{path}{after}"));
            }
            None => drop(command.arg(argument)),
        }
    }
    assert!(paths.next().is_none(), "more paths than {{}} in {arguments}");
    command.stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
    command
}

/// What a run that has to end well printed, on stdout and on stderr.
#[track_caller]
pub fn succeed(arguments: &str, paths: &[&Path]) -> [String; 2] {
    let output = command(arguments, paths).output().expect("the binary starts");
    let said = said(&output);
    assert!(output.status.success(), "ssl3d {arguments} ended with {}:\n{}\n{}", output.status, said[0], said[1]);
    said
}

pub fn said(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).expect("messages are UTF-8"))
}

/// What `scripts/table.sh` prints of three folds of `data`, trained for seconds. Setting 1, since a generated abdomen has hardly a
/// slice without a tested organ.
#[track_caller]
pub fn small_table(data: &Path, table: &Path, device: &str) -> String {
    const SMALL: &str = "--fold 0 --set split.folds=3 --set split.setting=1 --set training.epochs=1 \
        --set training.iterations_per_epoch=2 --set training.validation_episodes=1 --set preprocessing.size_vox=[8,32,32] \
        --set features.f_maps=4 --set episode.min_size_vox=10 --set supervoxels.felzenszwalb.min_size_2d_vox=40 -q";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/table.sh");
    let mut run = Command::new(script);
    run.env("SSL3D", env!("CARGO_BIN_EXE_ssl3d")).args([data, table]);
    let output = run.args(SMALL.split_whitespace()).args(["--device", device]).output().unwrap();
    let [printed, fault] = said(&output);
    assert!(output.status.success(), "{printed}\n{fault}");
    printed
}
