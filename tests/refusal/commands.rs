//! Each command with one thing wrong about what it is given.

use super::{check, files, row};
use crate::program::{command, said, succeed};
use ndarray::Array3;
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::tensor::from_floats;
use ssl3d::volume::nifti::{read_labels, write_new};
use ssl3d::volume::{Geometry, LabelMap};
use ssl3d::weights;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::tempdir;

const SET: &str = "--set preprocessing.size_vox=[8,32,32] --set features.f_maps=4 --set features.levels=2 --set \
                   features.pooling=[[1,2,2]] --set prototypes.test_window={size=[2,2,2]} --set \
                   similarity.competition=joint --set supervision.source=none --set split.folds=2";

/// Four scans with labels, and a run of a network that has learned nothing, with fold 0 alone.
static BENCH: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refusals");
    let _ = fs::remove_dir_all(&folder);
    let cohort = phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(&folder.join("data"), &cohort).unwrap();
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    let train = format!("train --config {{}} --data {{}} --run {{}} --fold 0 --device cpu {SET}");
    succeed(&train, &[&paper, &folder.join("data"), &folder.join("run")]);
    folder
});

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(path, target).is_ok()),
        }
    }
}

/// A copy of the bench with something wrong with it.
fn bench(change: impl Fn(&Path)) -> impl Fn(&Path) {
    move |folder| {
        copy(&BENCH, folder);
        change(folder);
    }
}

/// The bench with other bytes in one of its files.
fn spoilt(name: &'static str, bytes: &'static [u8]) -> impl Fn(&Path) {
    bench(move |folder| fs::write(folder.join(name), bytes).unwrap())
}

fn without(name: &'static str) -> impl Fn(&Path) {
    bench(move |folder| fs::remove_file(folder.join(name)).unwrap())
}

#[test]
fn each_command_names_the_file_that_it_cannot_use_and_writes_nothing() {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    const IMAGE: &str = "/data/image_1.nii.gz";
    const LABEL: &str = "/data/label_1.nii.gz";
    let blank = |folder: &Path| {
        let path = folder.join("data/label_1.nii.gz");
        let mut labels = read_labels(&path).unwrap().0;
        labels.voxels.fill(0);
        fs::remove_file(&path).unwrap();
        write_new(&path, &labels).unwrap();
    };
    let one = |folder: &Path| {
        (2..=4).for_each(|id| fs::remove_file(folder.join(format!("data/image_{id}.nii.gz"))).unwrap());
    };

    let rows = [
        row(
            "a broken scan",
            IMAGE,
            &["header of 348 bytes"],
            bench(move |folder| {
                one(folder);
                fs::write(folder.join("data/image_1.nii.gz"), "no scan").unwrap();
            }),
        ),
        row(
            "no scan",
            "/data",
            &["image_{id}.nii.gz"],
            bench(move |folder| {
                one(folder);
                fs::remove_file(folder.join("data/image_1.nii.gz")).unwrap();
            }),
        ),
    ];
    check("pseudolabel", &format!("pseudolabel --config {} --data {{}}/data --out {{}}/out", paper.display()), &rows);

    let train = format!("train --config {} --data {{}}/data --run {{}}/out --device cpu {SET}", paper.display());
    let rows = [
        row("a broken scan", IMAGE, &["header of 348 bytes"], spoilt("data/image_1.nii.gz", b"no scan")),
        row("a scan too few", "split.folds", &["scans enough", "2 folds", "found 1 scans"], bench(one)),
        row("labels of another kind", LABEL, &["header of 348 bytes"], spoilt("data/label_1.nii.gz", b"no labels")),
    ];
    check("train", &train, &rows);
    let rows = [
        row(
            "no supervoxels",
            "_supervoxels.nii.gz",
            &["the supervoxels of scan", "ssl3d pseudolabel"],
            bench(|folder| {
                fs::create_dir(folder.join("supervoxels")).unwrap();
            }),
        ),
        row(
            "supervoxels of another scan",
            "_supervoxels.nii.gz",
            &["voxels (z y x) of its image"],
            bench(|folder| {
                fs::create_dir(folder.join("supervoxels")).unwrap();
                for id in 1..=4 {
                    let geometry = Geometry::with_spacing([2, 3, 4], [1.0; 3]);
                    let path = folder.join(format!("supervoxels/{id}_supervoxels.nii.gz"));
                    write_new(&path, &LabelMap { voxels: Array3::ones((2, 3, 4)), geometry }).unwrap();
                }
            }),
        ),
    ];
    check(
        "train with supervoxels",
        &format!("{train} --supervoxels {{}}/supervoxels --set supervision.source=supervoxels"),
        &rows,
    );
    let rows = [row(
        "no labels to learn from",
        "/data/image_",
        &["a label volume beside it", "annotate it"],
        bench(|folder| {
            (1..=4).for_each(|id| fs::remove_file(folder.join(format!("data/label_{id}.nii.gz"))).unwrap());
        }),
    )];
    let organs = "--set supervision.source=organs --set split.groups=[[\"liver\"]]";
    check("train on organs", &format!("{train} {organs}"), &rows);

    let eval = "eval --run {}/run --data {}/data --out {}/out --device cpu";
    let rows = [
        row("no label for a scan", IMAGE, &["a label volume beside it", "eval needs"], without("data/label_1.nii.gz")),
        row("a broken scan", IMAGE, &["header of 348 bytes"], spoilt("data/image_1.nii.gz", b"no scan")),
        row("a broken label map", LABEL, &["header of 348 bytes"], spoilt("data/label_1.nii.gz", b"no labels")),
        row("no run", "/run/config.toml", &["the configuration of a run", "no such file"], without("run/config.toml")),
        row(
            "a configuration that is none",
            "/run/config.toml",
            &["a resolved configuration"],
            spoilt("run/config.toml", b"epochs ="),
        ),
        row(
            "an unknown key",
            "/run/config.toml",
            &["unknown field `epoch`"],
            spoilt("run/config.toml", b"[training]\nepoch = 1"),
        ),
        row(
            "a value out of range",
            "/run/config.toml: training.epochs",
            &["at least 1"],
            spoilt("run/config.toml", b"[training]\nepochs = 0"),
        ),
        row("no weights", "/run", &["finished weights of any fold"], without("run/fold_0/weights.safetensors")),
        row(
            "weights that are none",
            "weights.safetensors",
            &["a safetensors file"],
            spoilt("run/fold_0/weights.safetensors", b"none"),
        ),
        row(
            "a log that is none",
            "/run/fold_0/log.csv",
            &["the log of a training"],
            spoilt("run/fold_0/log.csv", b"a,b\n1,2\n"),
        ),
        row("too few scans", "split.folds", &["scans enough"], bench(one)),
    ];
    check("eval", eval, &rows);

    let segment = "segment --weights {}/run/fold_0/weights.safetensors --support {}/data/image_1.nii.gz --support-label \
                   {}/data/label_1.nii.gz --query {}/data/image_2.nii.gz --out {}/out --device cpu";
    const WEIGHTS: &str = "run/fold_0/weights.safetensors";
    let rows = [
        row(
            "weights that are a pickle",
            WEIGHTS,
            &["a pickle of PyTorch", "run any code"],
            spoilt(WEIGHTS, b"PK\x03\x04 archive/data.pkl"),
        ),
        row(
            "weights of another program",
            WEIGHTS,
            &["found"],
            bench(|folder| {
                weights::write(
                    &folder.join(WEIGHTS),
                    &BTreeMap::from([("a".to_owned(), from_floats(&[1.0], &[1]))]),
                    "",
                )
                .unwrap();
            }),
        ),
        row("no weights", WEIGHTS, &["cannot read", "check the path"], without(WEIGHTS)),
        row(
            "a folder of weights",
            "/run/fold_0/weights",
            &["cannot read", "directory"],
            bench(|folder| {
                fs::remove_file(folder.join(WEIGHTS)).unwrap();
                fs::create_dir(folder.join(WEIGHTS)).unwrap();
            }),
        ),
        row("a broken support", IMAGE, &["header of 348 bytes"], spoilt("data/image_1.nii.gz", b"no scan")),
        row("no support", IMAGE, &["cannot open", "check the path"], without("data/image_1.nii.gz")),
        row("a broken label map", LABEL, &["header of 348 bytes"], spoilt("data/label_1.nii.gz", b"no labels")),
        row("no label map", LABEL, &["cannot open", "check the path"], without("data/label_1.nii.gz")),
        row("a label map of nothing", LABEL, &["a labelled structure", "nothing but 0"], bench(blank)),
        row(
            "an image for labels",
            LABEL,
            &["at most 255 label values", "an image rather than labels"],
            bench(|folder| {
                fs::copy(folder.join("data/image_1.nii.gz"), folder.join("data/label_1.nii.gz")).unwrap();
            }),
        ),
        row(
            "a description that is none",
            "/data/dataset.json",
            &["the description of a dataset"],
            spoilt("data/dataset.json", b"{"),
        ),
        row(
            "a broken query",
            "/data/image_2.nii.gz",
            &["header of 348 bytes"],
            spoilt("data/image_2.nii.gz", b"no scan"),
        ),
        row("no query", "/data/image_2.nii.gz", &["cannot open", "check the path"], without("data/image_2.nii.gz")),
        row(
            "a folder without volumes",
            "/data/image_2.nii.gz",
            &["NIfTI files or DICOM slices", "neither"],
            bench(|folder| {
                fs::remove_file(folder.join("data/image_2.nii.gz")).unwrap();
                fs::create_dir(folder.join("data/image_2.nii.gz")).unwrap();
            }),
        ),
    ];
    check("segment", segment, &rows);
}

#[test]
fn files_and_folders_that_may_not_be_read_or_written_are_named() {
    let folder = tempdir().unwrap();
    copy(&BENCH, folder.path());
    let allow =
        |name: &str, mode| fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(folder.path().join("open")).unwrap();
    fs::create_dir(folder.path().join("locked")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml"), folder.path().join("c.toml")).unwrap();
    allow("", 0o755);
    allow("open", 0o777);
    allow("locked", 0o555);
    // Root may read everything, so somebody else has to try.
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let run = |arguments: &str| {
        let program = command(arguments, &vec![folder.path(); arguments.matches("{}").count()]);
        let mut other = Command::new("setpriv");
        other
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program.get_program())
            .args(program.get_args());
        if is_root { other.output() } else { Command::new(program.get_program()).args(program.get_args()).output() }
    };
    if !run("--version").is_ok_and(|output| output.status.success()) {
        println!("skipped: nobody but root can start the program here");
        return;
    }
    let segment = "segment --weights {}/run/fold_0/weights.safetensors --support {}/data/image_1.nii.gz --support-label \
                   {}/data/label_1.nii.gz --query {}/data/image_2.nii.gz --device cpu";
    let rows = [
        ("data/image_1.nii.gz", "prepare nifti {}/data --out {}/open/out".to_owned(), "open"),
        ("data", "prepare nifti {}/data --out {}/open/out".to_owned(), "list"),
        ("data", "prepare dicom {}/data --out {}/open/out".to_owned(), "list"),
        (
            "c.toml",
            "pseudolabel --config {}/c.toml --data {}/data --out {}/open/out".to_owned(),
            "read the configuration",
        ),
        ("run/fold_0/weights.safetensors", format!("{segment} --out {{}}/open/out"), "read"),
        ("run/config.toml", "eval --run {}/run --data {}/data --out {}/open/out --device cpu".to_owned(), "read"),
        // What is readable meets a folder that is not for writing.
        ("locked/out", "prepare nifti {}/data --out {}/locked/out".to_owned(), "create the folder"),
        (
            "locked/out",
            "pseudolabel --config {}/c.toml --data {}/data --out {}/locked/out".to_owned(),
            "create the folder",
        ),
        ("locked/out", format!("{segment} --out {{}}/locked/out"), "create the folder"),
        (
            "locked/out",
            format!("train --config {{}}/c.toml --data {{}}/data --run {{}}/locked/out --device cpu {SET}"),
            "create the folder",
        ),
        ("locked/out", "demo --out {}/locked/out --device cpu".to_owned(), "create the folder"),
    ];
    for (name, arguments, action) in &rows {
        let path = folder.path().join(name);
        let is_folder = path.is_dir();
        if path.exists() {
            allow(name, 0o000);
        }
        let output = run(&format!("{arguments} --quiet")).unwrap();
        if path.exists() {
            allow(name, if is_folder { 0o755 } else { 0o644 });
        }
        let [stdout, stderr] = said(&output);
        let expected = format!("ssl3d: {}: cannot {action}: Permission denied", path.display());
        assert_eq!(output.status.code(), Some(1), "{arguments}: {stdout}{stderr}");
        assert!(stderr.starts_with(&expected) && stderr.lines().count() == 1, "{expected}: {stderr}");
        assert!(stderr.contains("; check the permissions or choose another place"), "{stderr}");
        let written = ["open", "locked"].map(|name| files(&folder.path().join(name)).len());
        assert_eq!(written, [0, 0], "{arguments}");
    }
    println!("permissions: {} of {} cases refused as they should be", rows.len(), rows.len());
}
