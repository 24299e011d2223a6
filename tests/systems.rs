//! Every row of `configs/table` trained for a moment on generated scans, and the table that `ssl3d eval` prints of them.

mod program;

use program::{command, said, small_table, succeed};
use ssl3d::synthesis::phantom::{self, write_cohort};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Six scans, and what `scripts/table.sh` made of them and printed.
struct Made {
    data: PathBuf,
    table: PathBuf,
    printed: String,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systems");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let [data, table] = ["data", "table"].map(|name| folder.join(name));
    let cohort = phantom::Config { subjects: 6, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(&data, &cohort).unwrap();
    let printed = small_table(&data, &table, "cpu");
    Made { data, table, printed }
});

/// The summary beside the table.
fn summary(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(folder.join("summary.json")).unwrap()).unwrap()
}

/// Millilitres that an evaluation found under a protocol, by query, support and class.
fn found_ml(evaluation: &Path, protocol: &str) -> BTreeMap<[String; 3], String> {
    let mut csv = csv::Reader::from_path(evaluation.join("scores.csv")).unwrap();
    let rows: Vec<BTreeMap<String, String>> = csv.deserialize().map(Result::unwrap).collect();
    let of = |row: &BTreeMap<String, String>| ["query", "support", "class"].map(|column| row[column].clone());
    rows.iter().filter(|row| row["protocol"] == protocol).map(|row| (of(row), row["predicted_ml"].clone())).collect()
}

#[test]
fn under_ep1_a_network_of_volumes_is_told_the_slices_or_not() {
    let made = &*MADE;
    let run = made.table.join("3d-ssl-alpnet");
    for (told, is_other) in [(true, true), (false, false)] {
        let out = made.table.join(format!("told_{told}"));
        let call =
            format!("eval --run {{}} --data {{}} --out {{}} --set split.ep1_reveals_range={told} --device cpu -q");
        succeed(&call, &[&run, &made.data, &out]);
        let [full, ep1] = ["full", "ep1"].map(|protocol| found_ml(&out, protocol));
        assert!(!full.is_empty() && full.keys().eq(ep1.keys()));
        assert_eq!(full != ep1, is_other, "{full:?} {ep1:?}");
    }
}

#[test]
fn every_row_of_the_papers_table_is_trained_scored_and_printed() {
    let made = &*MADE;
    for (name, words) in [
        ("3D SSL-ALPNet ", "3D supervoxels ALP 1 full dense "),
        ("3D SSL-ALPNet ", "3D supervoxels ALP 1 EP1 dense, slices revealed "),
        ("3D SSL-ALPNet, 20 % annotated", "3D supervoxels, then organs ALP seen full dense "),
        ("SSL-ALPNet ", "2D supervoxels ALP 1 EP1 3 slices "),
        ("SSL-PANet", "2D supervoxels global 1 EP2 middle slice "),
        ("ALPNet ", "2D organs ALP 1 full dense "),
        ("ALPNet-init", "2D - ALP 1 full dense "),
        ("vanilla PANet", "2D organs global 1 EP1 3 slices "),
        ("SE-Net", "2D organs - 1 EP1 3 slices "),
        ("mask copy", "- - - - full dense "),
        ("affine mask copy", "- - - - EP1 dense "),
    ] {
        let line = |line: &str| {
            let spaced = line.split_whitespace().collect::<Vec<_>>().join(" ");
            line.starts_with(name) && spaced.contains(words)
        };
        assert!(made.printed.lines().any(line), "{name}: {words}\n{}", made.printed);
    }
    let systems = summary(&made.table.join("evaluation"))["systems"].as_array().unwrap().clone();
    assert_eq!(systems.len(), 10);
    for system in systems {
        let is_floor = system["name"].as_str().unwrap().contains("mask copy");
        let protocols: Vec<&str> =
            system["protocols"].as_array().unwrap().iter().map(|p| p["protocol"].as_str().unwrap()).collect();
        assert_eq!(protocols, if is_floor { vec!["full", "ep1"] } else { vec!["full", "ep1", "ep2"] }, "{system}");
        for protocol in system["protocols"].as_array().unwrap() {
            assert_eq!(protocol["classes"].as_array().unwrap().len(), 4, "the groups together test every organ");
        }
    }
    let page = fs::read_to_string(made.table.join("evaluation/report.html")).unwrap();
    assert!(page.contains("All systems") && page.contains("3D SSL-ALPNet against SE-Net"));
}

#[test]
fn trainings_by_group_know_what_they_have_seen() {
    let made = &*MADE;
    for run in ["se-net", "panet", "alpnet"] {
        for group in ["fold_0-liver-spleen", "fold_0-left_kidney-right_kidney"] {
            assert!(made.table.join(run).join(group).join("weights.safetensors").exists(), "{run}, {group}");
        }
    }
    let weights = made.table.join("3d-ssl-alpnet-annotated/fold_0/weights.safetensors");
    let (about, _) = ssl3d::training::checkpoint::read_weights(&weights).unwrap();
    let mut seen = about.trained_on;
    seen.sort_unstable();
    assert_eq!(seen, ["4", "5", "6"]);
}

#[test]
fn seeds_of_one_system_are_taken_together_and_two_systems_are_compared() {
    let (made, folder) = (&*MADE, tempfile::tempdir().unwrap());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/table/mask-copy.toml");
    let [first, second] = [0, 1].map(|seed| {
        let run = folder.path().join(format!("copy_{seed}"));
        let train =
            format!("train --config {{}} --data {{}} --run {{}} --set split.folds=3 --set training.seed={seed} -q");
        succeed(&train, &[&config, &made.data, &run]);
        run
    });
    let (affine, out) = (made.table.join("affine-mask-copy"), folder.path().join("out"));
    let eval = "eval --run {} --run {} --run {} --data {} --out {} --fold 0 --protocol full --device cpu -q";
    let [table, _] = succeed(eval, &[&first, &second, &affine, &made.data, &out]);
    assert!(table.contains("mask copy (seed 0,1) minus affine mask copy (seed 0)"), "{table}");
    let summary = summary(&out);
    assert_eq!(summary["systems"].as_array().unwrap().len(), 2);
    assert_eq!(summary["systems"][0]["setups"][0]["seeds"], serde_json::json!([0, 1]));
    assert_eq!(summary["comparisons"][0]["protocols"][0]["pairs"], 8, "two queries, four organs");
    // A run that is named twice is no second seed.
    let twice = command(&format!("{eval} --force"), &[&first, &first, &affine, &made.data, &out]).output().unwrap();
    let [_, fault] = said(&twice);
    assert_eq!(twice.status.code(), Some(1));
    assert!(fault.contains("the same configuration and seed"), "{fault}");
}
