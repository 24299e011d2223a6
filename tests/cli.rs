//! Every subcommand through the binary, on generated scans and a network that trains in seconds. What the stages compute
//! is tested where they are; here it is the wiring, the files, the messages and the exit codes.

mod program;

use ndarray::{Array3, Axis};
use program::{command, said, succeed};
use ssl3d::preprocessing::annotation::middle_slices;
use ssl3d::synthesis::phantom::{self, subject, write_cohort};
use ssl3d::volume::nifti::{read_image, read_labels, write_new};
use ssl3d::volume::{Geometry, Image, LabelMap, Volume};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TINY: &str = r#"
[preprocessing]
size_vox = [8, 32, 32]
[supervoxels.slic]
k = 24
[split]
folds = 3
[episode]
min_size_vox = 20
[augment.elastic]
control_points = [5, 5, 5]
[features]
f_maps = 4
levels = 3
output_channels = 8
norm = "instance"
pooling = [[1, 2, 2], [2, 2, 2]]
[prototypes]
train_window = { size = [2, 4, 4] }
test_window = { size = [2, 4, 4] }
[similarity]
competition = "joint"
[inference]
templates = 2
[training]
epochs = 2
iterations_per_epoch = 8
learning_rate = 1e-2
validation_episodes = 2
validate_every_epochs = 1
checkpoint_every_epochs = 1
"#;

/// The labels of these axial slices, and 255 in all others.
fn annotated_slices(labels: &Array3<i32>, slices: &[usize]) -> Array3<i32> {
    Array3::from_shape_fn(labels.dim(), |at| if slices.contains(&at.0) { labels[at] } else { 255 })
}

fn cohort(subjects: usize) -> phantom::Config {
    phantom::Config { subjects, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 }
}

/// Six scans, their supervoxels, and a run that has finished fold 1.
struct Trained {
    config: PathBuf,
    data: PathBuf,
    supervoxels: PathBuf,
    run: PathBuf,
    weights: PathBuf,
}

/// Made once for all tests that only read it.
static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let [config, data, supervoxels, run] = ["tiny.toml", "data", "supervoxels", "run"].map(|name| folder.join(name));
    fs::write(&config, TINY).unwrap();
    write_cohort(&data, &cohort(6)).unwrap();
    let names = r#"{"classes": {"liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4}}"#;
    fs::write(data.join("dataset.json"), names).unwrap();
    succeed("pseudolabel --config {} --data {} --out {}", &[&config, &data, &supervoxels]);
    let train = "train --config {} --data {} --supervoxels {} --run {} --fold 1 --device cpu";
    succeed(train, &[&config, &data, &supervoxels, &run]);
    let weights = run.join("fold_1/weights.safetensors");
    Trained { config, data, supervoxels, run, weights }
});

fn exists_in(folder: &Path, names: &[&str]) {
    for name in names {
        assert!(folder.join(name).metadata().is_ok_and(|file| file.len() > 0), "{name} is not in {}", folder.display());
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[test]
fn pseudolabel_skips_what_is_up_to_date_and_redoes_what_is_stale() {
    let (trained, out) = (&*TRAINED, TempDir::new().unwrap());
    let run = |more: &str| {
        let arguments = format!("pseudolabel --config {{}} --data {{}} --out {{}} {more}");
        succeed(&arguments, &[&trained.config, &trained.data, out.path()])
    };
    let bytes = || fs::read(out.path().join("2_supervoxels.nii.gz")).unwrap();
    assert!(run("")[1].contains("6 scans computed"));
    let before = bytes();
    assert_eq!(before, fs::read(trained.supervoxels.join("2_supervoxels.nii.gz")).unwrap());
    assert!(run("")[1].contains("6 up to date and skipped"));

    let [table, note] = run("--set supervoxels.slic.k=8 --score --preview");
    assert!(note.contains("6 scans computed") && !note.contains("skipped"), "{note}");
    assert!(["liver", "spleen", "ASA", "mean"].iter().all(|word| table.contains(word)), "{table}");
    assert!(before != bytes());
    exists_in(out.path(), &["1_preview.png", "6_preview.png"]);
    let summary = json(&fs::read_to_string(out.path().join("summary.json")).unwrap());
    assert_eq!(summary["scans"].as_object().unwrap().len(), 6);
    assert!(summary["mean_quality"]["mean_best_region_dice"].as_f64().is_some_and(|dice| dice > 0.1 && dice < 1.0));

    let (regions, _) = read_labels(&out.path().join("2_supervoxels.nii.gz")).unwrap();
    let (_, image) = read_image(&trained.data.join("image_2.nii.gz")).unwrap();
    assert_eq!(&regions.geometry, image.geometry());
    let sizes = summary["scans"]["2"]["sizes_vox"].as_array().unwrap();
    assert_eq!(*regions.voxels.iter().max().unwrap() as usize, sizes.len());
}

#[test]
fn train_leaves_a_whole_run_and_says_when_there_is_nothing_more_to_do() {
    let (trained, folder) = (&*TRAINED, TempDir::new().unwrap());
    exists_in(&trained.run, &["config.toml", "fold_1/log.csv", "fold_1/curves.svg", "fold_1/weights.safetensors"]);
    exists_in(&trained.run, &["fold_1/templates.safetensors"]);
    let checkpoints = ["last", "best", "epoch_0001", "epoch_0002"].map(|name| format!("{name}.safetensors"));
    exists_in(&trained.run.join("fold_1/checkpoints"), &checkpoints.each_ref().map(String::as_str));
    let log = fs::read_to_string(trained.run.join("fold_1/log.csv")).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");

    // Supervoxels of its own; on every scan, then fold after fold.
    let run = |fold: &str| {
        let arguments = format!("train --config {{}} --data {{}} --run {{}} --fold {fold} --device cpu");
        succeed(&arguments, &[&trained.config, &trained.data, folder.path()])[1].clone()
    };
    let note = run("none");
    assert!(note.contains("training on 6 scans (1 2 3 4 5 6), held out none"), "{note}");
    let weights = folder.path().join("all_scans/weights.safetensors");
    assert!(note.contains(&format!("all scans: done, weights in {}", weights.display())), "{note}");
    assert!(weights.exists(), "the place that the help names");
    assert!(succeed("train --help", &[])[0].contains("<RUN>/all_scans"));
    assert!(run("none").contains(&format!("all scans: finished already, see {}", weights.parent().unwrap().display())));
    let note = run("all");
    assert!(note.contains("fold 0 of 3: ") && note.contains("training on 3 scans (4 5 6), held out 1 2"), "{note}");
    assert!(note.contains("6 up to date"), "{note}");
    let names = ["all_scans", "fold_0", "fold_1", "fold_2"].map(|name| format!("{name}/weights.safetensors"));
    exists_in(folder.path(), &names.each_ref().map(String::as_str));
    exists_in(folder.path(), &["supervoxels/summary.json"]);
    assert_eq!(run("all").matches("finished already").count(), 3);
    // Where the supervoxels come from makes no difference.
    assert!(fs::read(folder.path().join(&names[2])).unwrap() == fs::read(&trained.weights).unwrap());
}

#[test]
#[cfg(unix)]
fn a_training_that_is_asked_to_stop_saves_and_goes_on_at_the_same_command() {
    let (trained, run) = (&*TRAINED, TempDir::new().unwrap());
    let paths = [&*trained.config, &*trained.data, &*trained.supervoxels, run.path()];
    let arguments = "train --config {} --data {} --supervoxels {} --run {} --fold 0 --device cpu \
                     --set training.epochs=30 --set training.validate_every_epochs=30";
    let mut child = command(arguments, &paths).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (log, started) = (run.path().join("fold_0/log.csv"), Instant::now());
    while !log.exists() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(120), "no epoch has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = &said(&output)[1];
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(stderr.contains("ssl3d: stopped on request; everything up to step "), "{stderr}");
    exists_in(run.path(), &["fold_0/checkpoints/last.safetensors"]);
    assert!(!run.path().join("fold_0/weights.safetensors").exists());

    let note = &succeed(arguments, &paths)[1];
    assert!(note.contains("going on from step ") && note.contains("done, weights in"), "{note}");
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 31);
    exists_in(run.path(), &["fold_0/weights.safetensors"]);
}

#[test]
fn eval_writes_scores_summary_and_page_and_prints_the_table() {
    let (trained, out) = (&*TRAINED, TempDir::new().unwrap());
    let arguments = "eval --run {} --data {} --out {} --device cpu";
    let [table, _] = succeed(arguments, &[&trained.run, &trained.data, out.path()]);
    assert!(table.contains("protocol=full|folds=3|fold=1") && table.contains("right kidney"), "{table}");
    let rows = scores(out.path());
    // Scans 3 and 4 from 5, four organs, three protocols.
    assert_eq!(rows.len(), 24);
    let of = |column: usize| rows.iter().map(|row| row[column].as_str()).collect::<BTreeSet<_>>();
    assert_eq!([of(0), of(1), of(5)], [["3", "4"].into(), ["5"].into(), ["ep1", "ep2", "full"].into()]);
    let dices: Vec<f64> = rows.iter().map(|row| row[6].parse().unwrap()).collect();
    assert!(dices.iter().all(|dice| (0.0..=1.0).contains(dice)), "{dices:?}");
    let summary = json(&fs::read_to_string(out.path().join("summary.json")).unwrap());
    let full = summary["protocols"].as_array().unwrap().iter().find(|scores| scores["protocol"] == "full").unwrap();
    let by_hand = rows.iter().zip(&dices).filter(|(row, _)| row[5] == "full").map(|(_, dice)| dice).sum::<f64>() / 8.0;
    assert!((full["mean"].as_f64().unwrap() - by_hand).abs() < 1e-9, "{full} and {by_hand}");
    refuse(
        arguments,
        &[&trained.run, &trained.data, out.path()],
        &["scores.csv: expected no evaluation yet", "--force"],
    );
    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("data:image/png;base64,") && page.contains("ssl3d eval --run"));

    let one = TempDir::new().unwrap();
    let arguments =
        "eval --run {} --data {} --fold 1 --protocol full --out {} --set split.supports=all --device cpu -q";
    succeed(arguments, &[&trained.run, &trained.data, one.path()]);
    // 3 from 4 and 5, 4 from 3 and 5.
    assert_eq!(scores(one.path()).len(), 16);
}

/// The rows of `scores.csv`: query, support, fold, seed, class, protocol, Dice, ...
fn scores(folder: &Path) -> Vec<Vec<String>> {
    let mut csv = csv::Reader::from_path(folder.join("scores.csv")).unwrap();
    csv.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// Writes `volume` as a scanner of sagittal slices would: the file's z, y, x grow towards right, anterior, inferior.
fn write_sagittal<T: ssl3d::volume::nifti::Voxel + Clone>(path: &Path, volume: &Volume<T>) {
    let Volume { voxels, geometry } = volume;
    let mut view = voxels.view().permuted_axes([2, 1, 0]);
    view.invert_axis(Axis(2));
    let voxels = view.as_standard_layout().into_owned();
    let mut affine_mm = geometry.affine_mm;
    let last = (geometry.shape_vox[0] - 1) as f64;
    for row in &mut affine_mm[..3] {
        let [x, y, z, origin] = *row;
        *row = [-z, y, x, origin + z * last];
    }
    let [z, y, x] = geometry.shape_vox;
    write_new(path, &Volume { voxels, geometry: Geometry { shape_vox: [x, y, z], affine_mm } }).unwrap();
}

/// A support with the labels 200, 500, 600 and 7, and a query of another shape, spacing and storage.
struct Pair {
    folder: TempDir,
    support: [PathBuf; 2],
    query: PathBuf,
    truth: LabelMap,
}

fn pair() -> Pair {
    let folder = TempDir::new().unwrap();
    let [image, label, query] = ["a.nii.gz", "a_label.nii", "query.v2.nii.gz"].map(|name| folder.path().join(name));
    let (support, labels) = subject(&cohort(1), 0);
    write_new(&image, &support).unwrap();
    write_new(&label, &renamed(labels)).unwrap();
    let other = phantom::Config { size_vox: [17, 40, 52], spacing_mm: [11.0, 7.0, 5.5], ..cohort(1) };
    let (scan, truth) = subject(&other, 1);
    write_sagittal(&query, &scan);
    Pair { support: [image, label], query, truth: renamed(truth), folder }
}

fn renamed(labels: LabelMap) -> LabelMap {
    Volume { voxels: labels.voxels.mapv(|label| [0, 200, 500, 600, 7][label as usize]), geometry: labels.geometry }
}

/// What places the voxels of an unzipped NIfTI file: dim, pixdim, units, qform and sform.
fn geometry_bytes(path: &Path) -> Vec<u8> {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut raw).unwrap();
    [&raw[40..56], &raw[76..108], &raw[123..124], &raw[252..328]].concat()
}

fn values(labels: &Array3<i32>) -> BTreeSet<i32> {
    labels.iter().copied().collect()
}

const SEGMENT: &str = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu";

#[test]
fn segment_answers_on_the_querys_own_grid_in_the_supports_own_labels() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let out = pair.folder.path().join("out");
    let paths = [&*trained.weights, image, label, &*pair.query, &*out];
    succeed(&format!("{SEGMENT} --probabilities"), &paths);
    let result = out.join("query.v2_seg.nii.gz");
    assert_eq!(geometry_bytes(&result), geometry_bytes(&pair.query));
    let (found, _) = read_labels(&result).unwrap();
    assert_eq!(found.voxels.shape(), [17, 40, 52]);
    assert!(values(&found.voxels).is_subset(&[0, 7, 200, 500, 600].into()));
    let liver = ssl3d::metrics::dice(found.voxels.view(), pair.truth.voxels.view(), 200).unwrap();
    assert!(liver > 0.2, "the liver is large enough for a network of sixteen steps: {liver}");
    for value in [7, 200, 500, 600] {
        let path = out.join(format!("query.v2_probability_{value}.nii.gz"));
        assert_eq!(geometry_bytes(&path), geometry_bytes(&pair.query));
        let (probability, _): (Image, _) = read_image(&path).unwrap();
        assert!(probability.voxels.iter().all(|p| (0.0..=1.0).contains(p)));
        for (&p, &label) in probability.voxels.iter().zip(&found.voxels) {
            assert!(p < 0.5001 || label == value, "more than half of the probability is the greatest");
        }
    }

    let before = fs::read(&result).unwrap();
    // With the query's supervoxels, or its brightness, another answer; by the same rule.
    for (help, more) in
        [("supervoxels.native_weight=2", ""), ("intensity.weight=2", "--set inference.intensity.confidence=0.5")]
    {
        let helped = out.join(help);
        succeed(
            &format!("{SEGMENT} --probabilities --set inference.{help} {more}"),
            &[&*trained.weights, image, label, &*pair.query, &*helped],
        );
        let (labels, _) = read_labels(&helped.join("query.v2_seg.nii.gz")).unwrap();
        assert!(labels.voxels != found.voxels, "{help}");
        let (probability, _): (Image, _) = read_image(&helped.join("query.v2_probability_200.nii.gz")).unwrap();
        let of_200 = probability.voxels.iter().zip(&labels.voxels);
        assert!(of_200.clone().all(|(&p, &label)| p < 0.5001 || label == 200), "{help}");
    }
    refuse(SEGMENT, &paths, &["query.v2_seg.nii.gz: expected no result yet", "--force"]);
    succeed(&format!("{SEGMENT} --force --classes 500,200"), &paths);
    assert!(values(&read_labels(&result).unwrap().0.voxels).is_subset(&[0, 200, 500].into()));
    misuse(
        &format!("{SEGMENT} --force --classes 9"),
        &paths,
        &["a_label.nii: expected label 9, found 7, 200, 500, 600"],
    );
    succeed(&format!("{SEGMENT} --force"), &paths);
    assert!(before == fs::read(&result).unwrap(), "the same call gives the same bytes");
}

#[test]
fn templates_count_and_a_network_that_wants_them_says_so_where_they_are_missing() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let segment = |weights: &Path, more: &str, name: &str| {
        let out = pair.folder.path().join(name);
        succeed(&format!("{SEGMENT} {more}"), &[weights, image, label, &*pair.query, &*out]);
        fs::read(out.join("query.v2_seg.nii.gz")).unwrap()
    };
    let with = segment(&trained.weights, "--classes 200", "with");
    let without = segment(&trained.weights, "--classes 200 --set inference.templates=0", "without");
    assert!(with != without, "two templates change the answer");
    // A checkpoint is asked beside the same templates; the last one is the weights.
    assert!(with == segment(&trained.run.join("fold_1/checkpoints/last.safetensors"), "--classes 200", "last"));

    let alone = pair.folder.path().join("alone/weights.safetensors");
    fs::create_dir(alone.parent().unwrap()).unwrap();
    fs::copy(&trained.weights, &alone).unwrap();
    let paths = [&*alone, image, label, &*pair.query, &*pair.folder.path().join("refused")];
    let words = ["alone/templates.safetensors: expected the unlabelled templates", "found no such file; copy it"];
    refuse(SEGMENT, &paths, &words);
    assert!(without == segment(&alone, "--classes 200 --set inference.templates=0", "weights alone"));
    let summary = |more: &str| {
        let out = pair.folder.path().join("evaluation");
        succeed(
            &format!("eval --run {{}} --data {{}} --out {{}} --device cpu --force {more}"),
            &[&trained.run, &trained.data, &out],
        );
        fs::read_to_string(out.join("summary.json")).unwrap()
    };
    let alone = || fs::read_to_string(pair.folder.path().join("evaluation/scores_by_support_alone.csv")).ok();
    let both = summary("");
    assert!(both.contains("annotation=dense, 2 templates|") && !both.contains("\"mean_by_support_alone\": null"));
    let scores = fs::read_to_string(pair.folder.path().join("evaluation/scores.csv")).unwrap();
    let [header, without] = [scores.lines().next().unwrap().to_owned(), alone().unwrap()];
    assert!(without.starts_with(&header) && without.lines().count() == scores.lines().count() && without != scores);
    let never = summary("--set inference.templates=0");
    assert!(never.contains("annotation=dense|") && never.contains("\"mean_by_support_alone\": null"));
    assert!(alone().is_none(), "one of another evaluation goes");
    assert!(without == fs::read_to_string(pair.folder.path().join("evaluation/scores.csv")).unwrap());
}

/// Asked of the support itself, which is what it has learned from.
#[test]
fn borders_come_nearer_to_those_that_the_annotator_draws() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let truth = read_labels(label).unwrap().0.voxels;
    let segment = |learned: bool, edges: bool| {
        let out = pair.folder.path().join(format!("learned {learned} {edges}"));
        let more = "--classes 200 --probabilities --set inference.templates=0 --set inference.self_training_rounds=0";
        let more = format!(
            "{more} --set inference.boundary_calibration.enabled={learned} --set inference.random_walker.enabled={edges}"
        );
        succeed(&format!("{SEGMENT} {more}"), &[&trained.weights, image, label, image, &out]);
        let found = read_labels(&out.join("a_seg.nii.gz")).unwrap().0.voxels;
        let probability: Image = read_image(&out.join("a_probability_200.nii.gz")).unwrap().0;
        assert!(found.iter().zip(&probability.voxels).all(|(&label, &p)| (label == 200) == (p > 0.5)), "{learned}");
        let both = found.iter().zip(&truth).filter(|(a, b)| **a == 200 && **b == 200).count() as f64;
        let of = |voxels: &Array3<i32>| voxels.iter().filter(|label| **label == 200).count() as f64;
        2.0 * both / (of(&found) + of(&truth))
    };
    let [plain, learned, edges, both] =
        [(false, false), (true, false), (false, true), (true, true)].map(|(learned, edges)| segment(learned, edges));
    assert!(plain > 0.1 && learned > plain + 0.02, "{plain} {learned}");
    assert!(edges > plain - 0.05 && edges != plain && both > plain + 0.02 && both != learned, "{edges} {both}");

    let scored = |on: &str| {
        let out = pair.folder.path().join("evaluation");
        let is = |key: &str| format!("--set inference.{key}.enabled={}", key == on);
        let [borders, edges] = ["boundary_calibration", "random_walker"].map(is);
        let eval = format!("eval --run {{}} --data {{}} --out {{}} --device cpu --force {borders} {edges}");
        succeed(&eval, &[&trained.run, &trained.data, &out]);
        scores(&out)
    };
    let plain = scored("");
    for key in ["boundary_calibration", "random_walker"] {
        let redrawn = scored(key);
        let changed = |protocol: &str| {
            let rows = plain.iter().zip(&redrawn).filter(|(row, _)| row.iter().any(|field| field == protocol));
            rows.filter(|(plain, redrawn)| plain != redrawn).count()
        };
        assert!(changed("full") > 0 && changed("ep2") > 0, "{key}: {} {}", changed("full"), changed("ep2"));
    }
}

#[test]
fn segment_takes_several_supports_and_goes_on_after_a_bad_query() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let other = ["image_5.nii.gz", "label_5.nii.gz"].map(|name| trained.data.join(name));
    let [bad, out] = ["bad.nii.gz", "out"].map(|name| pair.folder.path().join(name));
    fs::write(&bad, "no scan").unwrap();
    let arguments = "segment --weights {} --support {} --support-label {} --support {} --support-label {} \
                     --query {} {} --out {} --classes 200,1 --device cpu --quiet";
    let paths = [&*trained.weights, image, label, &*other[0], &*other[1], &*bad, &*pair.query, &*out];
    let output = command(arguments, &paths).output().unwrap();
    let stderr = &said(&output)[1];
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    // What an untrained network finds in the other query is doubted.
    let is_doubt = |line: &&str| line.contains("query.v2.nii.gz: ") && line.contains("hardly");
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_doubt(line)).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("warning: ") && lines[0].contains("bad.nii.gz"), "{stderr}");
    assert!(lines[1].starts_with("ssl3d: segment: expected 2 results, found 1; failed: "), "{stderr}");
    let (found, _) = read_labels(&out.join("query.v2_seg.nii.gz")).unwrap();
    assert!(values(&found.voxels).is_subset(&[0, 1, 200].into()) && !out.join("bad_seg.nii.gz").exists());
}

#[test]
fn segment_looks_at_the_annotated_slices_alone() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let [sparse, out] = ["sparse.nii.gz", "out"].map(|name| pair.folder.path().join(name));
    let dense = read_labels(label).unwrap().0;
    let slices = middle_slices(&dense.voxels, 200, 3);
    let write = |change: &dyn Fn(i32) -> i32| {
        let voxels = annotated_slices(&dense.voxels, &slices).mapv(change);
        let _ = fs::remove_file(&sparse);
        write_new(&sparse, &LabelMap { voxels, geometry: dense.geometry.clone() }).unwrap();
    };
    let paths = [&*trained.weights, image, &*sparse, &*pair.query, &*out];
    let call = format!("{SEGMENT} --force --set data.ignore=255");
    write(&|label| if [0, 200, 255].contains(&label) { label } else { 0 });
    succeed(&call, &paths);
    let found = || read_labels(&out.join("query.v2_seg.nii.gz")).unwrap().0.voxels;
    assert_eq!(values(&found()), [0, 200].into());
    let liver = ssl3d::metrics::dice(found().view(), pair.truth.voxels.view(), 200).unwrap();
    assert!(liver > 0.2, "three slices of the liver will do: {liver}");

    let words = ["expected label 255, found 200 beside 255, which is not annotated (data.ignore); name"];
    misuse(&format!("{call} --classes 255"), &paths, &words);
    write(&|label| if label == 255 { 255 } else { 0 });
    refuse(&call, &paths, &["expected a labelled structure, found nothing but 0 beside 255, which is not annotated"]);
    write(&|label| if label == 200 { 200 } else { 255 });
    refuse(&call, &paths, &["--support-label: expected at least one annotated voxel of background, found none"]);
    let ignore = format!("{SEGMENT} --force --set data.ignore=0");
    misuse(&ignore, &paths, &["--set data.ignore=0: expected a value of its own, found 0, which is background"]);
}

/// Runs with `--quiet`: one line on stderr with all `words`, nothing on stdout, exit code 1.
#[track_caller]
fn refuse(arguments: &str, paths: &[&Path], words: &[&str]) {
    end_with(1, arguments, paths, words);
}

/// The same where a flag is at fault: exit code 2.
#[track_caller]
fn misuse(arguments: &str, paths: &[&Path], words: &[&str]) {
    end_with(2, arguments, paths, words);
}

#[track_caller]
fn end_with(code: i32, arguments: &str, paths: &[&Path], words: &[&str]) {
    let output = command(&format!("{arguments} --quiet"), paths).output().unwrap();
    let [stdout, stderr] = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {stdout}{stderr}");
    assert!(stderr.starts_with("ssl3d: ") && stderr.lines().count() == 1 && stdout.is_empty(), "{stdout}{stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{stderr:?} is without one of {words:?}");
}

#[test]
fn faults_of_the_user_are_one_line_that_names_them() {
    let (trained, pair) = (&*TRAINED, pair());
    let [image, label] = &pair.support;
    let at = |name: &str| pair.folder.path().join(name);
    let [text, none, empty, out] = [at("text.safetensors"), at("none"), at("empty"), at("out")];
    fs::write(&text, "these are no weights\n").unwrap();
    fs::create_dir(&empty).unwrap();
    let mut blank = read_labels(label).unwrap().0;
    blank.voxels.fill(0);
    write_new(&at("blank.nii.gz"), &blank).unwrap();
    let (config, data) = (&*trained.config, &*trained.data);

    let train = "train --config {} --data {} --run {} --device cpu";
    refuse(train, &[config, &none, &out], &["none: expected a folder with scans, found nothing; give"]);
    refuse(train, &[config, &empty, &out], &["expected files like image_{id}.nii.gz, found an empty folder; set"]);
    refuse(train, &[&none, data, &out], &["none: cannot read the configuration"]);
    let set = format!("{train} --set training.epoch=3");
    misuse(&set, &[config, data, &out], &["--set training.epoch=3: expected a known key", "unknown field `epoch`"]);
    misuse(&format!("{train} --set features.f_maps=0"), &[config, data, &out], &["features.f_maps", "found 0"]);
    misuse(&format!("{train} --fold 3"), &[config, data, &out], &["--fold: expected 0 to 2, all or none", "found 3"]);
    let supervoxels = "train --config {} --data {} --supervoxels {} --run {} --device cpu";
    refuse(supervoxels, &[config, data, &empty, &out], &["_supervoxels.nii.gz: expected the supervoxels of scan"]);
    let other = format!("{supervoxels} --fold 1 --set training.learning_rate=0.5");
    let words =
        ["config.toml: expected", "found training.learning_rate = 0.5 in place of 0.01; give", "--allow-changed"];
    refuse(&other, &[config, data, &trained.supervoxels, &trained.run], &words);

    let prepare = "prepare nifti {} --out {} --memory-limit";
    let words =
        ["image_1.nii.gz: expected a volume that can be read within 0.1 MB, found 12 x 48 x 48 voxels", "0.3 MB"];
    refuse(&format!("{prepare} 0.0001"), &[data, &out], &words);
    misuse(&format!("{prepare} 0"), &[data, &out], &["--memory-limit: expected gigabytes, more than 0, found 0"]);

    let eval = "eval --run {} --data {} --out {} --device cpu";
    refuse(eval, &[&none, data, &out], &["none/config.toml: expected the configuration of a run, found no such file"]);
    refuse(&format!("{eval} --fold 0"), &[&trained.run, data, &out], &["run: expected finished weights of fold 0"]);

    let [weights, query] = [&*trained.weights, &*pair.query];
    refuse(SEGMENT, &[&none, image, label, query, &out], &["none: cannot read: No such file"]);
    refuse(SEGMENT, &[&text, image, label, query, &out], &["text.safetensors: expected a safetensors file, found"]);
    let words = ["a_label.nii: expected the 17 x 40 x 52 voxels (z y x) of its image", "found 12 x 48 x 48; give"];
    refuse(SEGMENT, &[weights, query, label, query, &out], &words);
    refuse(SEGMENT, &[weights, image, &at("blank.nii.gz"), query, &out], &["expected a labelled structure", "but 0"]);
    let words = ["a_label.nii: expected label x, found 7, 200, 500, 600; name one of these"];
    misuse(&format!("{SEGMENT} --classes x"), &[weights, image, label, query, &out], &words);
    misuse(&format!("{SEGMENT} --support {{}}"), &[weights, image, label, query, &out, image], &["expected 2 of them"]);
    assert!(!out.join("query.v2_seg.nii.gz").exists());

    let machine = json(&succeed("info --json", &[])[0]);
    if machine["cuda"]["available"] == true {
        println!("skipped: there is a GPU, so asking for one is no fault");
    } else {
        let words = ["--device cuda:0: expected a usable GPU, found that", "or use --device cpu"];
        misuse("train --config {} --data {} --run {} --device cuda", &[config, data, &out], &words);
    }
}

#[test]
fn wrong_flags_exit_with_2_and_help_and_version_with_0() {
    const DEVICE: &str = "for '--device <DEVICE>': expected auto, cpu, cuda or cuda:N";
    let segment = "segment --weights a --support b --support-label c --query d --out e";
    for (arguments, code, words) in [
        ("train --data a", 2, "--run"),
        ("segment --weights a", 2, "--support"),
        ("eval --run a --data b --out c --protocol ep3", 2, "[possible values: full, ep1, ep2, all]"),
        ("train --config a --data b --run c --device gpu", 2, DEVICE),
        ("eval --run a --data b --out c --device cuda:x", 2, DEVICE),
        ("demo --device GPU", 2, DEVICE),
        (&format!("{segment} --device metal"), 2, DEVICE),
        (
            "train --config a --data b --run c --fold x",
            2,
            "'x' for '--fold <K>': expected a fold's number, all or none",
        ),
        ("train --config a --data b --run c --fold 0,1", 2, "expected a fold's number, all or none"),
        ("eval --run a --data b --out c --fold 0,,1", 2, "expected a fold's number, several with commas, or all"),
        ("eval --run a --data b --out c --fold none", 2, "expected a fold's number, several with commas, or all"),
        (
            &format!("{segment} --classes 1,,2"),
            2,
            "'--classes <LIST>': expected all, or label values other than 0 or names",
        ),
        (&format!("{segment} --classes 0"), 2, "expected all, or label values other than 0"),
        (
            &format!("{segment} --slices liver"),
            2,
            "'--slices <CLASS=FIRST-LAST>': expected a class and its first and last",
        ),
        (&format!("{segment} --slices liver=5-4"), 2, "counted from 0, like liver=9-33"),
        ("info --threads 0", 2, "'--threads <N>': expected a number of threads, 1 or more"),
        ("info --threads x", 2, "expected a number of threads, 1 or more"),
        ("info --memory-limit 0", 2, "--memory-limit: expected gigabytes, more than 0"),
        ("prepare nifti a --out b --spacing 1,2", 2, "3 numbers with commas between them"),
        ("prepare nifti a --out b --size x,2", 2, "2 numbers with commas between them"),
        ("prepare nifti a --out b --clip most", 2, "--clip"),
        ("trian", 2, "train"),
        ("", 2, "Usage"),
        ("--version", 0, env!("CARGO_PKG_VERSION")),
        ("segment --help", 0, "--support-label"),
    ] {
        let output = command(arguments, &[]).output().unwrap();
        let said = said(&output).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
        assert!(said.contains(words), "{arguments}: {said}");
    }
}

#[test]
fn info_says_what_is_here_and_what_the_papers_network_takes() {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    let lines = &succeed("info --config {}", &[&paper])[0];
    assert!(lines.contains("4,081,904 parameters") && lines.contains("rayon 1, libtorch 1"), "{lines}");
    let machine = json(&succeed("info --json --config {} --set features.f_maps=16", &[&paper])[0]);
    assert_eq!(machine["version"], env!("CARGO_PKG_VERSION"));
    assert!(machine["libtorch"]["version"].as_str().is_some_and(|version| version.starts_with("2.")), "{machine}");
    let estimate = &machine["estimate"];
    assert!(estimate["parameters"].as_u64().is_some_and(|count| count > 1_000_000 && count < 1_100_000), "{estimate}");
    assert!(estimate["training_bytes"].as_u64() > estimate["segmenting_bytes"].as_u64(), "{estimate}");
    assert!(json(&succeed("info --json", &[])[0])["estimate"].is_null());
}
