//! What the recipe of `configs/cpu.toml` gives on generated abdomens, frozen: a change of the method shows here.
//!
//! A small ensemble is trained from a seed for two steps, since longer trainings part from each other on other processors; then supervoxels, losses, label maps, probabilities, volumes and
//! scores under all protocols are compared with `tests/data/frozen/`. The files there were written on one machine; another
//! processor rounds float32 differently, so by default label maps may differ in a few voxels and numbers in their last digits.
//!
//! ```text
//! SSL3D_FROZEN=exact cargo test --release --test frozen    # byte for byte, on the machine that wrote the files
//! SSL3D_FROZEN=write cargo test --release --test frozen    # writes them anew, after a change that is meant
//! ```

mod program;

use program::succeed;
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::volume::nifti::{read_image, read_labels, write_labels};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Scans 1 and 2 are queries, 3 is the support, 4 to 6 are trained on and vote as templates.
const COHORT: phantom::Config =
    phantom::Config { subjects: 6, size_vox: [16, 64, 64], spacing_mm: [12.0, 4.8, 4.8], seed: 5 };

/// The recipe, cut down to seconds.
const SMALL: &str = "--set split.folds=3 --set preprocessing.size_vox=[12,48,48] --set episode.depth_vox=6 \
                     --set features.f_maps=8 --set supervoxels.felzenszwalb.min_size_fraction=0.0076 --set training.epochs=1 \
                     --set training.iterations_per_epoch=2 --set training.validate_every_epochs=1 \
                     --set training.validation_episodes=2";
const NO_TEMPLATES: &str = "--set inference.templates=0";
const IGNORE: i32 = 255;

/// A label map may differ from its frozen one in this share of the voxels that either of them labels.
const MOST_DIFFERENT: f64 = 0.02;
/// And a number in a table by this share of itself, or by this much.
const TOLERANCE: [f64; 2] = [0.05, 0.02];

#[test]
fn the_recipe_gives_what_it_has_always_given() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = run_everything(folder.path());
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/frozen");
    let digests: BTreeMap<&str, String> =
        outputs.iter().map(|(name, path)| (name.as_str(), digest(&fs::read(path).unwrap()))).collect();
    let table: String = digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    match std::env::var("SSL3D_FROZEN").as_deref() {
        Ok("write") => write(&frozen, &outputs, &table),
        Ok("exact") => assert_eq!(table, fs::read_to_string(frozen.join("digests.txt")).unwrap()),
        _ => {
            for (name, path) in &outputs {
                let before = frozen.join(name);
                match name {
                    name if name.ends_with("_seg.nii.gz") => compare_labels(name, path, &before),
                    name if name.ends_with("_supervoxels.nii.gz") => {
                        let line = format!("{}  {name}\n", digests[name.as_str()]);
                        assert!(fs::read_to_string(frozen.join("digests.txt")).unwrap().contains(&line), "{name}");
                    }
                    name if name.ends_with(".csv") => compare_tables(name, path, &before),
                    _ => drop(read_image(path).unwrap()), // volumes.csv has the mean of each probability map
                }
            }
        }
    }
}

/// Every output by its name below `tests/data/frozen/`.
fn run_everything(folder: &Path) -> BTreeMap<String, PathBuf> {
    let [data, supervoxels, run, config] = ["data", "supervoxels", "run", "config"].map(|name| folder.join(name));
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cpu.toml");
    fs::copy(recipe, &config).unwrap();
    write_cohort(&data, &COHORT).unwrap();
    succeed(&format!("pseudolabel --config {{}} --data {{}} --out {{}} {SMALL}"), &[&config, &data, &supervoxels]);
    let train =
        format!("train --config {{}} --data {{}} --supervoxels {{}} --run {{}} --from scratch --device cpu {SMALL}");
    succeed(&train, &[&config, &data, &supervoxels, &run]);
    let scores = folder.join("evaluation");
    succeed("eval --run {} --data {} --fold 0 --device cpu --out {}", &[&run, &data, &scores]);

    let at = |name: &str| data.join(name);
    let label_3 = at("label_3.nii.gz");
    let partial = change_labels(&label_3, &at("label_3_partial.nii.gz"), |z, label| match z {
        4 | 7 | 8 | 11 => label,
        _ => IGNORE,
    });
    let liver = change_labels(&label_3, &at("label_3_liver.nii.gz"), |_, label| i32::from(label == 1));
    let (scan_3, scan_4, label_4) = (at("image_3.nii.gz"), at("image_4.nii.gz"), at("label_4.nii.gz"));
    let queries = [at("image_1.nii.gz"), at("image_2.nii.gz")];
    let mut outputs = BTreeMap::from([
        ("scores.csv".to_owned(), scores.join("scores.csv")),
        ("log.csv".to_owned(), run.join("fold_0/log.csv")),
    ]);
    for id in 1..=COHORT.subjects {
        let name = format!("{id}_supervoxels.nii.gz");
        outputs.insert(name.clone(), supervoxels.join(name));
    }
    let weights = run.join("fold_0/weights.safetensors");
    type Shots<'a> = &'a [[&'a Path; 2]];
    let [one, two]: [Shots; 2] = [&[[&scan_3, &label_3]], &[[&scan_3, &label_3], [&scan_4, &label_4]]];
    for (name, shots, queries, more) in [
        ("one_support", one, &queries[..], "--probabilities".to_owned()),
        ("two_supports", two, &queries[..1], "--probabilities".to_owned()),
        ("partial", &[[&scan_3, &partial]], &queries[..1], format!("--set data.ignore={IGNORE}")),
        ("some_classes_each", &[[&scan_3, &liver], [&scan_4, &label_4]], &queries[..1], String::new()),
        ("slice_range", one, &queries[..1], "--slices 1=4-9 --slices 4=8-12".to_owned()),
        ("no_templates", one, &queries[1..], NO_TEMPLATES.to_owned()),
    ] {
        let out = folder.join(name);
        let mut paths: Vec<&Path> = vec![&weights];
        paths.extend(shots.iter().flatten());
        paths.extend(queries.iter().map(PathBuf::as_path));
        paths.push(&out);
        let call = format!(
            "segment --weights {{}} {} --query {} --out {{}} --device cpu {more}",
            "--support {} --support-label {} ".repeat(shots.len()),
            "{} ".repeat(queries.len())
        );
        succeed(&call, &paths);
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let is_result = |path: &PathBuf| {
            path.to_string_lossy().ends_with(".nii.gz") || path.file_name().is_some_and(|name| name == "volumes.csv")
        };
        outputs.extend(files.filter(is_result).map(|path| {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            (format!("{name}/{file}"), path)
        }));
    }
    outputs
}

/// A copy of a label map with other values, by slice.
fn change_labels(from: &Path, to: &Path, value: impl Fn(usize, i32) -> i32) -> PathBuf {
    let (mut labels, native) = read_labels(from).unwrap();
    labels.voxels.indexed_iter_mut().for_each(|((z, _, _), label)| *label = value(z, *label));
    write_labels(to, &labels.voxels, &native).unwrap();
    to.to_owned()
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Label maps and tables as files; everything as digests.
fn write(frozen: &Path, outputs: &BTreeMap<String, PathBuf>, table: &str) {
    for (name, path) in outputs.iter().filter(|(name, _)| name.ends_with("_seg.nii.gz") || name.ends_with(".csv")) {
        fs::create_dir_all(frozen.join(name).parent().unwrap()).unwrap();
        fs::copy(path, frozen.join(name)).unwrap();
    }
    fs::write(frozen.join("digests.txt"), table).unwrap();
}

fn compare_labels(name: &str, now: &Path, before: &Path) {
    let [now, before] = [now, before].map(|path| read_labels(path).unwrap().0.voxels);
    let (mut labelled, mut different) = (0, 0);
    for (a, b) in now.iter().zip(&before).filter(|(a, b)| **a != 0 || **b != 0) {
        labelled += 1;
        different += usize::from(a != b);
    }
    assert!(labelled > 0, "{name}: nothing is labelled");
    let share = different as f64 / labelled as f64;
    assert!(share <= MOST_DIFFERENT, "{name}: {different} of {labelled} labelled voxels differ");
}

/// The same cells; numbers within the tolerance.
fn compare_tables(name: &str, now: &Path, before: &Path) {
    let [now, before] = [now, before].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(now.lines().count(), before.lines().count(), "{name}");
    for (now, before) in now.lines().zip(before.lines()) {
        let cells = [now, before].map(|line| line.split(',').collect::<Vec<_>>());
        assert_eq!(cells[0].len(), cells[1].len(), "{name}: {now} and not {before}");
        for (a, b) in cells[0].iter().zip(&cells[1]) {
            let near = match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= (TOLERANCE[0] * b.abs()).max(TOLERANCE[1]),
                _ => a == b,
            };
            assert!(near, "{name}: {now} and not {before}");
        }
    }
}
