//! Every command of the README is run: on a generated cohort in place of CHAOS, with training cut down to seconds.

use ssl3d::phantom;
use std::path::Path;
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What stands in ```sh blocks, one command a line, continuation lines joined.
fn commands(readme: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in readme.split("```sh\n").skip(1) {
        let block = block.split("```").next().expect("the block ends").replace("\\\n", " ");
        commands.extend(block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// A smaller training: the same code paths in seconds.
const SMALLER: [&str; 6] = [
    "training.epochs=1",
    "training.iterations_per_epoch=2",
    "training.validation_episodes=1",
    "preprocess.size_vox=[8,32,32]",
    "features.f_maps=4",
    "supervoxels.felzenszwalb.min_size_vox=200",
];

fn run(folder: &Path, command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    if let Some(script) = program.strip_prefix("scripts/") {
        // These build everything first; this test is itself run by one of them.
        let path = Path::new(ROOT).join("scripts").join(script);
        return match script.ends_with(".py") {
            true => end_well(Command::new("python3").arg(path).args(words).arg("--help")),
            false => end_well(Command::new("bash").arg("-n").arg(path)),
        };
    }
    assert_eq!(program, "ssl3d", "{command}");
    let mut ssl3d = Command::new(env!("CARGO_BIN_EXE_ssl3d"));
    ssl3d.current_dir(folder).args(words);
    if command.contains("--config") {
        ssl3d.args(SMALLER.iter().flat_map(|set| ["--set", set]));
    }
    end_well(&mut ssl3d);
}

fn end_well(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_of_the_readme_works() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cohort = phantom::Config { subjects: 8, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 0 };
    phantom::write_cohort(&folder.path().join("chaos"), &cohort).unwrap();
    std::os::unix::fs::symlink(Path::new(ROOT).join("configs"), folder.path().join("configs")).unwrap();
    let (segment, others): (Vec<_>, Vec<_>) =
        commands(&readme).into_iter().partition(|command| command.starts_with("ssl3d segment"));
    assert!(segment.len() == 1 && others.len() >= 6, "the README has its commands");
    // The README shows first what needs the weights that the rest makes.
    others.iter().chain(&segment).for_each(|command| run(folder.path(), command));
    for file in [
        "runs/comparison/report.html",
        "segmentations/image_1_seg.nii.gz",
        "runs/cpu/evaluation/report.html",
        "runs/everything/config.toml",
    ] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}
