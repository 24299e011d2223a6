//! Every command of the README and of the pages in docs/ is run: on a generated cohort, stored as CHAOS is, with training cut
//! down to seconds. Every relative link of the project's papers leads to a file that is there, and to a heading that it has.

mod challenge;
mod scanner;

use challenge::{write_png, zip_folder};
use ndarray::s;
use scanner::{AXIAL, PLAIN, Place, write_series};
use ssl3d::synthesis::phantom;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What stands in ```sh blocks, one command a line, continuation lines joined.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().expect("the block ends").replace("\\\n", " ");
        commands.extend(block.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// A smaller training: the same code paths in seconds.
const SMALLER: [&str; 8] = [
    "training.initial_weights=random",
    "training.epochs=1",
    "training.iterations_per_epoch=2",
    "training.validation_episodes=1",
    "preprocessing.size_vox=[8,32,32]",
    "episode.depth_vox=4",
    "features.f_maps=4",
    "supervoxels.felzenszwalb.min_size_fraction=0.02",
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

/// The Markdown files in `folder` and below, in the order of their paths.
fn pages_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_command_of_the_readme_and_the_docs_works() {
    let root = Path::new(ROOT);
    let folder = tempfile::tempdir().unwrap();
    let cohort = phantom::Config { subjects: 8, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 0 };
    write_chaos(folder.path(), &cohort);
    std::os::unix::fs::symlink(root.join("configs"), folder.path().join("configs")).unwrap();

    let mut pages = vec![root.join("README.md")];
    pages.extend(pages_below(&root.join("docs")).into_iter().filter(|page| page.parent() == Some(&root.join("docs"))));
    let mut done = BTreeSet::new();
    for page in pages {
        for command in commands(&fs::read_to_string(&page).unwrap()) {
            // Pages repeat each other's commands; what one of them has written is there for the next.
            if done.insert(command.clone()) {
                println!("{}: {command}", page.display());
                run(folder.path(), &command);
            }
        }
    }
    let count = |start: &str| done.iter().filter(|command| command.starts_with(start)).count();
    assert!(count("ssl3d segment") >= 3 && count("ssl3d prepare") >= 2, "the pages have their commands: {done:?}");
    assert_eq!(count("ssl3d train"), 3, "trainings take most of this test's time: {done:?}");
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

/// What a page leads to: the targets of its links and pictures. Code is left out.
fn links(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let prose: String = prose.split('`').step_by(2).collect();
    let after = prose.split("](").skip(1);
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub makes them: lower case, without punctuation, a dash for each space.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || "-_ ".contains(c);
    headings
        .map(|text| text.to_lowercase().chars().filter(|&c| kept(c)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// The links of `page` that lead nowhere, a line each.
fn broken_links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut broken = Vec::new();
    for link in links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        let has_anchor =
            || target.is_dir() || fs::read_to_string(&target).is_ok_and(|there| anchors(&there).contains(anchor));
        if !target.exists() || !(anchor.is_empty() || has_anchor()) {
            broken.push(format!("{}: {link}", page.display()));
        }
    }
    broken
}

#[test]
fn every_link_leads_to_something() {
    let root = Path::new(ROOT);
    let mut pages = pages_below(&root.join("docs"));
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"].map(|name| root.join(name)));
    pages.extend(pages_below(&root.join("configs")));
    let broken: Vec<String> = pages.iter().flat_map(|page| broken_links(page)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_link_to_what_is_not_there_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("docs")).unwrap();
    fs::write(folder.path().join("docs/other.md"), "# One, two: `three`\n\n```text\n# no heading\n```\n").unwrap();
    let page = folder.path().join("page.md");
    for (text, expected) in [
        ("[a](docs/other.md), [b](docs/), [c](https://example.org/x), [d](#here)\n\n## Here", &[][..]),
        ("![a](docs/other.md#one-two-three)", &[]),
        ("`[a](absent.md)`\n```text\n[b](absent.md)\n```\n", &[]),
        ("[a](absent.md) and [b](docs/other.md#no-heading)", &["absent.md", "docs/other.md#no-heading"]),
        ("[![a](absent.png)](docs/other.md) [b](#there)", &["absent.png", "#there"]),
    ] {
        fs::write(&page, text).unwrap();
        let expected: Vec<String> = expected.iter().map(|link| format!("{}: {link}", page.display())).collect();
        assert_eq!(broken_links(&page), expected, "{text}");
    }
}
