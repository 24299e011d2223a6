//! Datasets as they lie about, from `prepare` to scores: what their classes are called, what nobody has annotated, and label maps on
//! other grids. The network is not trained: what it finds does not matter here.

mod program;

use ndarray::{Axis, s};
use program::{command, said, succeed};
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::volume::LabelMap;
use ssl3d::volume::nifti::{read_labels, write_new};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const COHORT: phantom::Config =
    phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
const NAMES: [(&str, i32); 4] = [("aorta", 3), ("bone", 4), ("pancreas", 1), ("tumour, left", 2)];
/// A copy of the support's mask: nothing is trained.
const COPY: &str = "[split]\nfolds = 2\n";
const SET: &str = "--set preprocessing.size_vox=[8,32,32] --set features.f_maps=4 --set features.levels=2 --set \
                   features.pooling=[[1,2,2]] --set prototypes.test_window={size=[2,2,2]} --set \
                   similarity.competition=joint --set supervision.source=none --set split.folds=2";

/// The file of a kind and a number.
type Naming<'a> = &'a dyn Fn(&str, usize) -> String;

/// The generated cohort as files of other names, `to` from the kind and the number of a file, beside `description`.
fn dataset(folder: &Path, to: impl Fn(&str, usize) -> String, description: &str) {
    let raw = TempDir::new().unwrap();
    write_cohort(raw.path(), &COHORT).unwrap();
    for number in 1..=COHORT.subjects {
        for kind in ["image", "label"] {
            let path = folder.join(to(kind, number));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy(raw.path().join(format!("{kind}_{number}.nii.gz")), path).unwrap();
        }
    }
    if !description.is_empty() {
        fs::write(folder.join("dataset.json"), description).unwrap();
    }
}

fn nnunet(kind: &str, number: usize) -> String {
    if kind == "image" { format!("imagesTr/c{number}_0000.nii.gz") } else { format!("labelsTr/c{number}.nii.gz") }
}

fn as_prepared(kind: &str, number: usize) -> String {
    format!("{kind}_{number}.nii.gz")
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Label value of each class of a dataset, and what is not annotated.
fn classes(folder: &Path) -> (Vec<(String, i64)>, Option<i64>) {
    let json = json(&folder.join("dataset.json"));
    let classes = json["classes"].as_object().unwrap().iter();
    (classes.map(|(name, value)| (name.clone(), value.as_i64().unwrap())).collect(), json["ignore"].as_i64())
}

fn change(path: &Path, change: impl Fn(&mut LabelMap)) {
    let mut labels = read_labels(path).unwrap().0;
    change(&mut labels);
    fs::remove_file(path).unwrap();
    write_new(path, &labels).unwrap();
}

/// A run of copied masks.
fn copied(folder: &Path, data: &Path, config: &str) -> PathBuf {
    let (file, run) = (folder.join("copy.toml"), folder.join("copy"));
    fs::write(&file, config).unwrap();
    succeed("train --config {} --data {} --run {} --device cpu -q --set system=mask-copy", &[&file, data, &run]);
    run
}

/// Weights that have learned nothing.
fn weights(folder: &Path, data: &Path) -> PathBuf {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    let train = format!("train --config {{}} --data {{}} --run {{}} --fold none --device cpu -q {SET}");
    succeed(&train, &[&paper, data, &folder.join("run")]);
    folder.join("run/all_scans/weights.safetensors")
}

#[test]
fn the_names_of_a_prepared_dataset_are_those_of_all_that_follows() {
    let folder = TempDir::new().unwrap();
    let [source, data] = ["source", "data"].map(|name| folder.path().join(name));
    let labels: serde_json::Map<_, _> =
        NAMES.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
    let description = serde_json::json!({ "channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz" });
    dataset(&source, nnunet, &format!("\u{feff}{description}")); // a byte order mark, as Windows writes it
    succeed("prepare nifti {} --out {} -q", &[&source, &data]);
    assert_eq!(classes(&data), (NAMES.map(|(name, value)| (name.to_owned(), i64::from(value))).to_vec(), None));

    let config = folder.path().join("paper.toml");
    fs::write(&config, "").unwrap();
    let supervoxels = folder.path().join("supervoxels");
    let [table, _] = succeed("pseudolabel --config {} --data {} --out {} --score -q", &[&config, &data, &supervoxels]);
    let run = copied(folder.path(), &data, COPY);
    let scores = folder.path().join("scores");
    let [printed, fault] = succeed("eval --run {} --data {} --out {} --device cpu -q", &[&run, &data, &scores]);
    let page = fs::read_to_string(scores.join("scores.csv")).unwrap();
    for (text, shown) in [(&table, "tumour, left"), (&printed, "pancreas"), (&page, "\"tumour, left\"")] {
        assert!(text.contains(shown) && text.contains("aorta") && text.contains("bone"), "{text}");
        assert!(!text.contains("liver") && !text.contains("kidney"), "{text}");
    }
    assert!(!fault.contains("warning"), "{fault}");

    // What the configuration names goes before it, also in a later evaluation of the run.
    fs::remove_dir_all(&run).unwrap();
    let run = copied(folder.path(), &data, &format!("{COPY}[data]\nclasses = {{ gland = 1, vessel = 3 }}\n"));
    let [printed, _] = succeed("eval --run {} --data {} --out {} --device cpu -q --force", &[&run, &data, &scores]);
    assert!(printed.contains("gland") && printed.contains("vessel") && !printed.contains("bone"), "{printed}");

    // `segment` finds the names beside the labels; one with a comma is asked for as it is written.
    let weights = weights(folder.path(), &data);
    let [image, label, query, out] = ["data/image_c1.nii.gz", "data/label_c1.nii.gz", "data/image_c2.nii.gz", "out"]
        .map(|name| folder.path().join(name));
    let mut call = command(
        "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu -q --classes",
        &[&weights, &image, &label, &query, &out],
    );
    let output = call.arg("tumour, left,bone").output().unwrap();
    assert!(output.status.success(), "{:?}", said(&output));
    let volumes = fs::read_to_string(out.join("volumes.csv")).unwrap();
    assert!(volumes.contains("image_c2,2,\"tumour, left\",") && volumes.contains("image_c2,4,bone,"), "{volumes}");
}

#[test]
fn labels_that_nothing_names_are_called_after_their_values_unless_they_are_the_usual_ones() {
    let folder = TempDir::new().unwrap();
    let [source, data] = ["source", "data"].map(|name| folder.path().join(name));
    dataset(&source, as_prepared, "");
    let [_, said] = succeed("prepare nifti {} --out {} -q", &[&source, &data]);
    assert!(said.contains("they are taken for left_kidney = 3, liver = 1"), "{said}");
    assert_eq!(classes(&data).0, [], "a guess is no name");
    let run = copied(folder.path(), &data, COPY);
    let [printed, said] =
        succeed("eval --run {} --data {} --out {} --device cpu -q", &[&run, &data, &folder.path().join("scores")]);
    assert!(printed.contains("liver") && said.contains("they are taken for left_kidney = 3"), "{printed}{said}");
    for number in 1..=4 {
        change(&source.join(as_prepared("label", number)), |labels| {
            labels.voxels.mapv_inplace(|label| [0, 205, 420, 1, 850][label as usize])
        });
    }
    let [_, said] = succeed("prepare nifti {} --out {} -q --force", &[&source, &data]);
    assert!(said.contains("nothing names the labels (205, 420, 850)"), "{said}");
    let named = [("label 1", 1), ("label 205", 205), ("label 420", 420), ("label 850", 850)];
    assert_eq!(classes(&data).0, named.map(|(name, value)| (name.to_owned(), value)));
    let voxels = &json(&data.join("dataset.json"))["scans"]["1"]["label_vox"]["label 205"];
    assert!(voxels.as_u64().unwrap() > 0, "{voxels}");
}

#[test]
fn what_an_nnunet_dataset_calls_ignore_is_not_annotated_for_any_command() {
    let folder = TempDir::new().unwrap();
    let [source, data] = ["source", "data"].map(|name| folder.path().join(name));
    dataset(
        &source,
        nnunet,
        r#"{"channel_names": {"0": "MR"}, "file_ending": ".nii.gz",
            "labels": {"background": 0, "liver": 1, "rk": 2, "lk": 3, "spleen": 4, "ignore": 5}}"#,
    );
    for number in 1..=4 {
        change(&source.join(nnunet("label", number)), |labels| labels.voxels.slice_mut(s![..;2, .., ..]).fill(5));
    }
    succeed("prepare nifti {} --out {} -q", &[&source, &data]);
    let (names, ignore) = classes(&data);
    assert_eq!((names.len(), ignore), (4, Some(5)));
    assert!(names.iter().all(|(name, _)| name != "ignore"), "{names:?}");

    let run = copied(folder.path(), &data, COPY);
    let scores = folder.path().join("scores");
    let call = "eval --run {} --data {} --out {} --device cpu -q --protocol full";
    let [printed, _] = succeed(call, &[&run, &data, &scores]);
    assert!(!printed.contains("ignore"), "{printed}");
    // Copied masks are blank where the support is not annotated; the query's own blank slices are the same ones, so what is found
    // lies in annotated slices alone.
    let mut rows = csv::Reader::from_path(scores.join("scores.csv")).unwrap();
    let header = rows.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    for row in rows.records().map(|row| row.unwrap()) {
        assert_eq!(&row[column("hd95_mm")], "", "borders are not known: {row:?}");
    }

    let weights = weights(folder.path(), &data);
    let paths = ["data/image_c1.nii.gz", "data/label_c1.nii.gz", "data/image_c2.nii.gz", "out"]
        .map(|name| folder.path().join(name));
    let [image, label, query, out] = &paths;
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu -q";
    succeed(call, &[&weights, image, label, query, out]);
    let volumes = fs::read_to_string(out.join("volumes.csv")).unwrap();
    assert!(!volumes.contains("ignore") && volumes.lines().count() == 5, "{volumes}");

    // Training on organs needs all of them.
    let config = folder.path().join("paper.toml");
    fs::write(&config, "").unwrap();
    let call = "train --config {} --data {} --run {} --fold 0 --device cpu -q --set supervision.source=organs --set split.folds=2 \
                --set split.groups=[[\"liver\"],[\"spleen\"]] --set preprocessing.size_vox=[8,32,32] --set features.f_maps=4";
    let output = command(call, &[&config, &data, &folder.path().join("organs")]).output().unwrap();
    let fault = &said(&output)[1];
    assert!(
        fault.contains(".nii.gz: expected a label for every voxel, found some that nobody has annotated"),
        "{fault}"
    );
}

#[test]
fn layouts_with_a_folder_a_patient_are_prepared_without_flags() {
    let kits = |kind: &str, number: usize| {
        format!("case_{number:05}/{}.nii.gz", if kind == "image" { "imaging" } else { "segmentation" })
    };
    let bids = |kind: &str, number: usize| match kind {
        "image" => format!("sub-{number:02}/anat/sub-{number:02}_T2w.nii.gz"),
        _ => format!("derivatives/labels/sub-{number:02}/anat/sub-{number:02}_T2w_label-organs_dseg.nii.gz"),
    };
    let layouts: [(&str, Naming, &str); 2] = [("kits", &kits, "case_00003"), ("bids", &bids, "sub-03")];
    for (name, to, id) in layouts {
        let folder = TempDir::new().unwrap();
        let [source, data] = [format!("{name} [1]"), "data".to_owned()].map(|name| folder.path().join(name));
        dataset(&source, to, "");
        succeed("prepare nifti {} --out {} -q", &[&source, &data]);
        let [from, written] = [source.join(to("label", 3)), data.join(format!("label_{id}.nii.gz"))];
        assert_eq!(read_labels(&written).unwrap().0.voxels, read_labels(&from).unwrap().0.voxels, "{name}");
    }
}

#[test]
fn one_scan_under_two_ids_is_noticed() {
    let folder = TempDir::new().unwrap();
    let [source, data] = ["source", "data"].map(|name| folder.path().join(name));
    dataset(&source, as_prepared, r#"{"classes": {"liver": 1, "rk": 2, "lk": 3, "spleen": 4}}"#);
    fs::copy(source.join("image_2.nii.gz"), source.join("image_7.nii.gz")).unwrap();
    let [_, said] = succeed("prepare nifti {} --out {}", &[&source, &data]);
    assert!(said.contains("warning: 7: the same voxels as 2: is it one scan under two ids?"), "{said}");
    assert_eq!(said.matches("under two ids").count(), 1, "{said}");
    let warnings = &json(&data.join("dataset.json"))["scans"]["7"]["warnings"];
    assert!(warnings[0].as_str().unwrap().contains("the same voxels as 2"), "{warnings}");
}

#[test]
fn a_label_map_on_another_grid_is_refused_with_the_flag_that_resamples_it() {
    let folder = TempDir::new().unwrap();
    let [source, data] = ["source", "data"].map(|name| folder.path().join(name));
    dataset(&source, as_prepared, r#"{"classes": {"liver": 1, "rk": 2, "lk": 3, "spleen": 4}}"#);
    let weights = weights(folder.path(), &source);
    // Every slice twice, each of half the height.
    let (label, map) = (source.join("label_1.nii.gz"), read_labels(&source.join("label_1.nii.gz")).unwrap().0);
    change(&label, |labels| {
        let slices: Vec<usize> = (0..24).map(|z| z / 2).collect();
        labels.voxels = labels.voxels.select(Axis(0), &slices);
        labels.geometry.shape_vox[0] = 24;
        for row in labels.geometry.affine_mm.iter_mut().take(3) {
            row[3] -= row[2] / 4.0;
            row[2] /= 2.0;
        }
    });
    let output = command("prepare nifti {} --out {} -q", &[&source, &data]).output().unwrap();
    let fault = &said(&output)[1];
    assert!(
        fault.contains("label_1.nii.gz: expected the 12 x 48 x 48 voxels") && fault.contains("--resample-label"),
        "{fault}"
    );
    let [_, said_so] = succeed("prepare nifti {} --out {} --resample-label", &[&source, &data]);
    assert!(said_so.contains("warning: 1: label map: resampled onto the grid of its image"), "{said_so}");
    assert_eq!(read_labels(&data.join("label_1.nii.gz")).unwrap().0.voxels, map.voxels);

    let [image, query, out] =
        ["source/image_1.nii.gz", "source/image_2.nii.gz", "out"].map(|name| folder.path().join(name));
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu -q";
    let paths = [&*weights, &*image, &*label, &*query, &*out];
    let output = command(call, &paths).output().unwrap();
    assert!(!output.status.success() && said(&output)[1].contains("--resample-label"), "{:?}", said(&output));
    let [_, said_so] = succeed(&format!("{call} --resample-label"), &paths);
    assert!(said_so.contains("label_1.nii.gz: resampled onto the grid of its image"), "{said_so}");
    let resampled = fs::read_to_string(out.join("volumes.csv")).unwrap();
    let paths = [&*weights, &*image, &data.join("label_1.nii.gz"), &*query, &*folder.path().join("same")];
    succeed(call, &paths);
    assert_eq!(resampled, fs::read_to_string(folder.path().join("same/volumes.csv")).unwrap());
}

#[test]
fn structures_too_small_for_the_network_do_not_keep_the_others_from_being_segmented() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    dataset(&data, as_prepared, r#"{"classes": {"liver": 1, "rk": 2, "dot": 7, "speck": 8}}"#);
    let weights = weights(folder.path(), &data);
    let label = data.join("label_1.nii.gz");
    change(&label, |labels| {
        labels.voxels.mapv_inplace(|label| if label > 2 { 0 } else { label });
        labels.voxels[[6, 0, 0]] = 7;
        labels.voxels[[6, 0, 4]] = 8;
    });
    let [image, query, out] =
        ["data/image_1.nii.gz", "data/image_2.nii.gz", "out"].map(|name| folder.path().join(name));
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu -q";
    let paths = [&*weights, &*image, &*label, &*query, &*out];
    let [_, warned] = succeed(call, &paths);
    assert!(warned.contains("warning: too small for a voxel of the network's [8, 32, 32], so that it is not looked for: dot (label 7), speck (label 8)"), "{warned}");
    let volumes = fs::read_to_string(out.join("volumes.csv")).unwrap();
    assert_eq!(volumes.lines().count(), 3, "liver and rk: {volumes}");
    let output = command(&format!("{call} --classes 7,8 --force"), &paths).output().unwrap();
    let fault = &said(&output)[1];
    assert!(fault.contains("found none of dot (label 7), speck (label 8); label a larger structure"), "{fault}");

    // A report in the place of something else, and folders where files should go.
    let report = |path: &Path, more: &str| {
        let output = command(&format!("{call} --force --report {} {more}", path.display()), &paths).output().unwrap();
        assert!(!output.status.success());
        said(&output)[1].clone()
    };
    for name in ["volumes.csv", "labels.txt", "labels.ctbl", "image_2_seg.nii.gz", "../out/image_2_preview.png"] {
        let fault = report(&out.join(name), "--preview");
        assert!(fault.contains("expected a file that is nothing else of this call, found its "), "{fault}");
    }
    let fault = report(&out.join("image_2_probability_1.nii.gz"), "--probabilities");
    assert!(fault.contains("nothing else of this call"), "{fault}");
    let before = fs::read(out.join("volumes.csv")).unwrap();
    for name in ["report", "image_2_preview.png", "image_2_probability_1.nii.gz"] {
        let place = out.join(name);
        fs::create_dir(&place).unwrap();
        let report = if name == "report" { &place } else { &folder.path().join("report.json") };
        let more = format!("{call} --force --preview --probabilities --report {}", report.display());
        let fault = said(&command(&more, &paths).output().unwrap())[1].clone();
        assert!(
            fault.contains(&format!("{name}: expected a place for a file, found a folder of that name")),
            "{fault}"
        );
        fs::remove_dir(&place).unwrap();
    }
    fs::remove_file(out.join("volumes.csv")).unwrap();
    fs::create_dir(out.join("volumes.csv")).unwrap();
    let fault = said(&command(&format!("{call} --force"), &paths).output().unwrap())[1].clone();
    assert!(fault.contains("volumes.csv: expected a place for a file, found a folder"), "{fault}");
    assert!(!before.is_empty());
}

#[test]
#[cfg(unix)]
fn folders_that_are_links_are_looked_into_once() {
    use std::os::unix::fs::symlink;
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["all/p1/MR [a]", "all/empty", "elsewhere/p3"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    symlink("../elsewhere", at("all/p2")).unwrap(); // a patient who lies elsewhere
    symlink("p1", at("all/again")).unwrap(); // one who is here already
    symlink("..", at("all/p1/up")).unwrap(); // a circle
    symlink("nowhere", at("all/gone")).unwrap();
    let found = ssl3d::commands::prepare::folders(&at("all")).unwrap();
    let found: Vec<&Path> = found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
    let expected = ["all", "all/empty", "all/p1", "all/p1/MR [a]", "all/p2", "all/p2/p3"].map(Path::new);
    assert_eq!(found, expected);
}
