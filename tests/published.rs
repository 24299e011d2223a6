//! Published figures stand beside a score of their own dataset and classes, and of no other.

mod program;

use program::{command, said, succeed};
use ssl3d::synthesis::phantom::{self, write_cohort};
use std::fs;
use std::path::{Path, PathBuf};

/// A copy of the support's mask: nothing is trained.
const COPY: &str = "[split]\nfolds = 3\n";
const CHAOS: &str = "[data]\nbenchmark = \"chaos-t2-spir\"\n";
/// The labels of the generated scans under the names of the heart.
const HEART: &str = "classes = { lv_bp = 1, lv_myo = 2, rv = 3 }\n";

fn write_scans(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let cohort = phantom::Config { subjects: 6, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(&data, &cohort).unwrap();
    data
}

/// The run that a configuration gives.
fn train(folder: &Path, data: &Path, name: &str, config: &str) -> PathBuf {
    let [file, run] = [format!("{name}.toml"), name.to_owned()].map(|name| folder.join(name));
    fs::write(&file, config).unwrap();
    succeed("train --config {} --data {} --run {} --device cpu -q --set system=mask-copy", &[&file, data, &run]);
    run
}

/// What the evaluation of a run prints, and its page.
fn evaluate(data: &Path, run: &Path) -> [String; 2] {
    let out = run.join("evaluation");
    let [printed, _] = succeed("eval --run {} --data {} --out {} --fold 0 --device cpu -q", &[run, data, &out]);
    [printed, fs::read_to_string(out.join("report.html")).unwrap()]
}

#[test]
fn only_an_evaluation_of_the_dataset_and_its_classes_shows_published_rows() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_scans(folder.path());
    for (name, config, is_shown) in [
        ("chaos", format!("{CHAOS}{COPY}"), true),
        ("heart", format!("{CHAOS}{HEART}{COPY}"), false),
        ("heart_of_no_benchmark", format!("name = \"SE-Net\"\n[data]\n{HEART}{COPY}"), false),
        ("abdomen_of_no_benchmark", format!("name = \"SE-Net\"\n{COPY}"), false),
    ] {
        let run = train(folder.path(), &data, name, &config);
        for text in evaluate(&data, &run) {
            for shown in ["SSL-PANet", "54.9", "ALPNet-init", "23.9", "50.4"] {
                assert_eq!(text.contains(shown), is_shown, "{name}, {shown}: {text}");
            }
            assert!(text.contains("mean of classes"), "{name}: {text}");
        }
    }
}

#[test]
fn a_run_stands_beside_the_published_system_that_its_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_scans(folder.path());
    let runs = [
        ("first", format!("name = \"mine\"\npublished = \"mask copy\"\n{CHAOS}{COPY}")),
        ("second", format!("name = \"affine mask copy\"\n{CHAOS}{COPY}")),
    ];
    let [first, second] = runs.map(|(name, config)| train(folder.path(), &data, name, &config));
    let eval = "eval --run {} --run {} --data {} --out {} --fold 0 --protocol full --device cpu -q";
    let [printed, _] = succeed(eval, &[&first, &second, &data, &folder.path().join("out")]);
    let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{printed}"));
    assert!(line("mine ").contains(" 36.3 "), "{printed}");
    assert!(line("affine mask copy ").trim_end().ends_with(" -") && !printed.contains("39.2"), "{printed}");
}

#[test]
fn the_row_of_a_network_of_slices_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_scans(folder.path());
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/table/alpnet-init.toml");
    let run = folder.path().join("run");
    let train = "train --config {} --data {} --run {} --fold 0 --device cpu -q --set split.folds=3 --set features.f_maps=4 \
                 --set preprocessing.size_vox=[8,32,32]";
    succeed(train, &[&table, &data, &run]);
    let [printed, page] = evaluate(&data, &run);
    let ours: Vec<&str> = printed.lines().filter(|line| line.starts_with("ssl3d ")).collect();
    assert_eq!(ours.len(), 3, "one a protocol: {printed}");
    assert!(ours.iter().all(|line| line.split_whitespace().nth(1) == Some("2D")), "{printed}");
    assert_eq!(page.matches("<tr class=\"ours\"><td class=\"\">ssl3d</td><td class=\"\">2D</td>").count(), 3, "{page}");
}

#[test]
fn unknown_names_are_refused_with_those_that_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let data = write_scans(folder.path());
    for (set, words) in [
        ("data.benchmark=chaos", ["data.benchmark", "\"chaos-t2-spir\""]),
        ("published=SENet", ["published", "\"SE-Net\""]),
    ] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cpu.toml");
        let call = format!("train --config {{}} --data {{}} --run {{}} --set {set}");
        let output = command(&call, &[&config, &data, &folder.path().join("run")]).output().unwrap();
        let [_, fault] = said(&output);
        assert_eq!(output.status.code(), Some(2), "{fault}");
        let faults: Vec<&str> = fault.lines().filter(|line| !line.starts_with("device: ")).collect();
        assert!(faults.len() == 1 && words.iter().all(|word| faults[0].contains(word)), "{fault}");
    }
}

/// Hearts, where `SSL3D_CARDIAC_DIR` names a folder of short-axis scans with the labels 500, 200 and 600; the configuration names the
/// benchmark of the abdomen all the same.
#[test]
fn real_hearts_do_not_stand_beside_livers() {
    let Some(data) = std::env::var_os("SSL3D_CARDIAC_DIR").map(PathBuf::from) else {
        println!("skipped: SSL3D_CARDIAC_DIR is not set");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let classes = "classes = { lv_bp = 500, lv_myo = 200, rv = 600 }\n";
    let run = train(folder.path(), &data, "heart", &format!("{CHAOS}{classes}[split]\nfolds = 5\n"));
    for text in evaluate(&data, &run) {
        assert!(text.contains("lv myo") && text.contains("mean of classes"), "{text}");
        assert!(!text.contains("SSL-PANet") && !text.contains("ALPNet"), "{text}");
    }
}
