//! `scripts/bench/compare.py` from end to end, at its smallest sizes and beside a Python without any package: our side of every
//! stage is timed, and every peer is named as skipped. Python's own library is enough.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every row, and the packages of its peer.
const STAGES: [(&str, &[&str]); 12] = [
    ("slic-10", &["numpy", "nibabel", "skimage"]),
    ("slic-60", &["numpy", "nibabel", "skimage"]),
    ("slic-400", &["numpy", "nibabel", "skimage"]),
    ("slic-2000", &["numpy", "nibabel", "skimage"]),
    ("felzenszwalb", &[]),
    ("augment", &["numpy", "safetensors", "torchio"]),
    ("alp-naive", &["safetensors", "torch"]),
    ("alp-blocked", &["safetensors", "torch"]),
    ("episode", &[]),
    ("step-cpu", &["safetensors", "torch"]),
    ("step-paper", &["safetensors", "torch"]),
    ("segment", &["torch", "torchio", "nibabel", "skimage"]),
];

fn python3() -> Command {
    let mut command = Command::new("python3");
    command.stdin(Stdio::null()).env_remove("PYTHONPATH");
    command
}

/// What the command printed on stdout.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("python3 starts");
    let [printed, fault] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{command:?} ended with {}:\n{printed}\n{fault}", output.status);
    printed
}

/// What `compare.py --smallest` with these arguments printed, and its results. It builds its worker with the profile and in
/// the target folder of this test, where the libraries lie ready.
#[track_caller]
fn compare(folder: &Path, arguments: &[&str]) -> (String, Value) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let results = folder.join("results.json");
    let mut command = python3();
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench/compare.py"))
        .args(["--smallest", "--threads", "1", "--profile", if cfg!(debug_assertions) { "dev" } else { "release" }])
        .arg("--peers")
        .arg(folder.join("python/bin/python"))
        .arg("--out")
        .arg(&results)
        .args(arguments)
        .env("CARGO_TARGET_DIR", target);
    let printed = succeed(&mut command);
    let results = std::fs::read(results).expect("results");
    (printed, serde_json::from_slice(&results).expect("JSON"))
}

/// The cells of the first Markdown table, without its header.
fn table(markdown: &str) -> Vec<Vec<&str>> {
    let lines = markdown.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// "1.2 ms" or "3 s", and more than nothing.
fn is_time(text: &str) -> bool {
    let (number, unit) = text.split_once(' ').unwrap_or_default();
    ["ms", "s"].contains(&unit) && number.parse().is_ok_and(|number: f64| number > 0.0)
}

#[test]
fn the_benchmark_times_every_stage_and_names_the_peers_that_it_skips() {
    let folder = tempfile::tempdir().unwrap();
    succeed(python3().args(["-m", "venv", "--without-pip"]).arg(folder.path().join("python")));

    let (printed, results) = compare(folder.path(), &[]);
    let rows = results["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().expect("a name")).collect();
    assert_eq!(names, STAGES.map(|(name, _)| name));
    let times = table(&printed);
    assert_eq!(times.len(), STAGES.len(), "{printed}");
    for ((row, cells), (name, packages)) in rows.iter().zip(&times).zip(STAGES) {
        let [_, peer, ours, theirs, ..] = cells[..] else { panic!("too few columns:\n{printed}") };
        assert_eq!(ours.split(" / ").filter(|time| is_time(time)).count(), 3, "{name}: {ours}");
        assert!(row["theirs"].is_null(), "{name}: {row}");
        let skipped = printed.lines().find(|line| line.starts_with(&format!("- skipped: {name}, {peer}: ")));
        let expected = if packages.is_empty() { ("-", false) } else { ("skipped", true) };
        assert_eq!((theirs, skipped.is_some()), expected, "{name}");
        for package in packages {
            let reason = format!("No module named '{package}'");
            assert!(skipped.is_some_and(|line| line.contains(&reason)), "{name}: {reason}:\n{printed}");
        }
    }
    assert!(printed.contains("- skipped: quality of SLIC, scikit-image: "), "{printed}");

    let (printed, _) = compare(folder.path(), &["--scaling"]);
    let times = table(&printed);
    assert_eq!(times.iter().map(|cells| cells[0]).collect::<Vec<_>>(), ["slic", "felzenszwalb", "segment"]);
    for cells in times {
        assert!(cells.len() == 4 && is_time(cells[1]) && is_time(cells[2]), "two sizes and an exponent: {cells:?}");
    }
}
