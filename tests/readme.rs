//! Every command of the README is run: on a generated cohort, stored as CHAOS is, with training cut down to seconds.

mod challenge;
mod scanner;

use challenge::{write_png, zip_folder};
use ndarray::s;
use scanner::{AXIAL, PLAIN, Place, write_series};
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
const SMALLER: [&str; 7] = [
    "training.epochs=1",
    "training.iterations_per_epoch=2",
    "training.validation_episodes=1",
    "preprocessing.size_vox=[8,32,32]",
    "episode.depth_vox=4",
    "features.f_maps=4",
    "supervoxels.felzenszwalb.min_size_vox=20000",
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

/// The cohort as `CHAOS_Train_Sets.zip`.
fn write_chaos(folder: &Path, cohort: &phantom::Config) {
    let root = folder.join("Train_Sets");
    let [dz, dy, dx] = cohort.spacing_mm;
    let place = Place { step: [0.0, 0.0, dz], spacing: [dy, dx], ..AXIAL };
    for subject in 0..cohort.subjects {
        let (image, labels) = phantom::subject(cohort, subject);
        let t2 = root.join(format!("MR/{}/T2SPIR", subject + 1));
        let name = |index: usize| format!("IMG-0004-{index:05}");
        // Rows run backwards and columns to the left, as DICOM has them.
        let stored = image.voxels.slice(s![.., ..;-1, ..;-1]).mapv(|value| (value as i32).clamp(0, 4095));
        write_series(&t2.join("DICOM_anon"), &stored, place, &PLAIN, |index| name(index) + ".dcm");
        std::fs::create_dir_all(t2.join("Ground")).unwrap();
        for (index, slice) in labels.voxels.slice(s![.., ..;-1, ..;-1]).outer_iter().enumerate() {
            let greys: Vec<u8> = slice.iter().map(|&label| 63 * label as u8).collect();
            write_png(&t2.join(format!("Ground/{}.png", name(index))), [slice.nrows(), slice.ncols()], &greys);
        }
    }
    zip_folder(&root, &folder.join("CHAOS_Train_Sets.zip"), None);
}

#[test]
fn every_command_of_the_readme_works() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cohort = phantom::Config { subjects: 8, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 0 };
    write_chaos(folder.path(), &cohort);
    std::os::unix::fs::symlink(Path::new(ROOT).join("configs"), folder.path().join("configs")).unwrap();
    let (segment, others): (Vec<_>, Vec<_>) =
        commands(&readme).into_iter().partition(|command| command.starts_with("ssl3d segment"));
    assert!(segment.len() == 2 && others.len() >= 6, "the README has its commands");
    // The README shows first what needs the weights that the rest makes.
    others.iter().chain(&segment).for_each(|command| run(folder.path(), command));
    for file in [
        "runs/comparison/report.html",
        "segmentations/image_1_seg.nii.gz",
        "all-segmentations/image_8_preview.png",
        "runs/cpu/evaluation/report.html",
        "runs/everything/config.toml",
    ] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}
