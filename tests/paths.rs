//! What a command may touch: what it reads stays as it is, what it writes lies in the folder that was named for it, and what is
//! there already is not replaced unasked.

mod challenge;
mod program;
mod scanner;

use challenge::{write_png, zip_folder};
use ndarray::Array3;
use program::{command, said};
use scanner::{AXIAL, PLAIN, write_series};
use ssl3d::synthesis::phantom::{self, write_cohort};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::SystemTime;
use tempfile::{TempDir, tempdir};

const CONFIG: &str = r#"
[preprocessing]
size_vox = [8, 32, 32]
[supervoxels.slic]
k = 24
[split]
folds = 2
[episode]
min_size_vox = 20
[augment.elastic]
control_points = [5, 5, 5]
[features]
f_maps = 4
levels = 2
pooling = [[1, 2, 2]]
[prototypes]
train_window = { size = [2, 4, 4] }
test_window = { size = [2, 4, 4] }
[similarity]
competition = "joint"
[training]
epochs = 1
iterations_per_epoch = 2
validation_episodes = 1
"#;

/// What there is to read, and what every command makes of it.
struct Bench(PathBuf);

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("paths");
    let _ = fs::remove_dir_all(&folder);
    let cohort = phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(&folder.join("data"), &cohort).unwrap();
    fs::write(folder.join("c.toml"), CONFIG).unwrap();
    series(&folder.join("series/a"));
    patient(&folder);
    zip_folder(&folder.join("Train_Sets"), &folder.join("sets.zip"), None);
    fs::create_dir(folder.join("tmp")).unwrap();
    let bench = Bench(folder);
    for (out, arguments) in CALLS {
        let before = bench.without(out);
        bench.succeed(arguments);
        assert_same(&before, &bench.without(out), arguments);
    }
    println!("what is read, and where is written: {} calls", CALLS.len());
    bench
});

/// Every command with the one folder that it may write to.
const CALLS: [(&str, &str); 8] = [
    ("prepared", "prepare nifti {}/data --out {}/prepared --clip 1"),
    ("scans", "prepare dicom {}/series --out {}/scans"),
    ("chaos", "prepare chaos {}/Train_Sets --out {}/chaos --few-shot"),
    ("unpacked", "prepare chaos {}/sets.zip --out {}/unpacked"),
    ("supervoxels", "pseudolabel --config {}/c.toml --data {}/data --out {}/supervoxels --score --preview"),
    ("run", TRAIN),
    ("evaluation", "eval --run {}/run --data {}/data --out {}/evaluation --device cpu"),
    ("segmentations", SEGMENT),
];
const TRAIN: &str =
    "train --config {}/c.toml --data {}/data --supervoxels {}/supervoxels --run {}/run --fold 0 --device cpu";
const SEGMENT: &str = "segment --weights {}/run/fold_0/weights.safetensors --support {}/data/image_1.nii.gz --support-label \
                       {}/data/label_1.nii.gz --query {}/data/image_2.nii.gz {}/series/a --out {}/segmentations --preview \
                       --probabilities --device cpu";

fn series(folder: &Path) {
    let stored = Array3::from_shape_fn((6, 20, 24), |(z, y, x)| ((z * 480 + y * 24 + x) % 90) as i32);
    write_series(folder, &stored, AXIAL, &PLAIN, |index| format!("{index}.dcm"));
}

/// A patient of CHAOS, whose liver is everywhere.
fn patient(folder: &Path) {
    let below = folder.join("Train_Sets/MR/1/T2SPIR");
    series(&below.join("DICOM_anon"));
    fs::create_dir(below.join("Ground")).unwrap();
    (0..6).for_each(|index| write_png(&below.join(format!("Ground/{index}.png")), [20, 24], &[63; 480]));
}

/// What stands somewhere: a folder, a link, or a file with its bytes; and when it was last changed.
type Tree = BTreeMap<PathBuf, (Option<Vec<u8>>, Option<PathBuf>, SystemTime)>;

fn tree(folder: &Path) -> Tree {
    let mut all = Tree::new();
    for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            all.extend(tree(&path));
        }
        let bytes = about.is_file().then(|| fs::read(&path).unwrap());
        all.insert(path.clone(), (bytes, fs::read_link(&path).ok(), about.modified().unwrap()));
    }
    all
}

#[track_caller]
fn assert_same(before: &Tree, after: &Tree, what: &str) {
    let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<&PathBuf> = before.keys().chain(after.keys()).filter(differs).collect();
    assert!(changed.is_empty(), "{what}: {changed:?}");
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Everything but what lies in one folder.
    fn without(&self, out: &str) -> Tree {
        let mut all = tree(&self.0);
        all.retain(|path, _| !path.starts_with(self.at(out)));
        all
    }

    fn succeed(&self, arguments: &str) -> String {
        let (code, text) = run(&self.0, arguments);
        assert_eq!(code, Some(0), "{arguments}: {text}");
        text
    }

    /// A copy that may be changed.
    fn copy(&self) -> (TempDir, Self) {
        let folder = tempdir().unwrap();
        copy(&self.0, folder.path());
        let bench = Self(folder.path().to_owned());
        (folder, bench)
    }
}

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

/// Runs in `folder`, which `{}` stands for and in which temporary files belong into `tmp`; exit code and what was said.
fn run(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let mut command = command(arguments, &vec![folder; arguments.matches("{}").count()]);
    let output = command.current_dir(folder).env("TMPDIR", folder.join("tmp")).output().unwrap();
    (output.status.code(), said(&output).concat())
}

#[test]
fn each_command_writes_into_the_folder_that_was_named_for_it_and_changes_nothing_else() {
    let bench = &*BENCH; // that is where it is looked at
    for (out, _) in CALLS {
        assert!(!tree(&bench.at(out)).is_empty(), "{out}");
    }
}

#[test]
fn what_is_there_is_replaced_with_force_alone() {
    let (_folder, bench) = BENCH.copy();
    let forced = |(out, arguments): &(&str, &str)| !["supervoxels", "run"].contains(out) && arguments.contains("--out");
    for (out, arguments) in CALLS.iter().filter(|call| forced(call)) {
        let before = tree(&bench.0);
        let (code, text) = run(&bench.0, arguments);
        let fault = text.lines().last().unwrap_or_default();
        assert!(code == Some(1) && fault.starts_with("ssl3d: ") && fault.contains("--force"), "{arguments}: {text}");
        assert!(fault.contains(": expected no ") && fault.contains(", found "), "{fault}");
        assert_same(&before, &tree(&bench.0), arguments);

        let outside = bench.without(out);
        bench.succeed(&format!("{arguments} --force"));
        assert_same(&outside, &bench.without(out), arguments);
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&tree(&bench.0)), "{arguments}");
    }
    println!("existing results: 6 calls");
}

#[test]
fn what_somebody_else_has_left_in_the_folder_is_not_replaced_either() {
    let demo = "demo --out {}/mine --device cpu";
    let prepare = "prepare nifti {}/data --out {}/mine";
    let segment = &SEGMENT.replace("segmentations", "mine");
    let eval = "eval --run {}/run --data {}/data --out {}/mine --device cpu";
    let rows = [
        (prepare, "dataset.json"),
        (prepare, "image_3.nii.gz"),
        (prepare, "label_4.nii.gz"),
        (eval, "scores.csv"),
        (eval, "summary.json"),
        (eval, "report.html"),
        (segment, "image_2_seg.nii.gz"),
        (segment, "image_2_preview.png"),
        (segment, "a_seg.nii.gz"),
        (segment, "labels.txt"),
        (segment, "labels.ctbl"),
        (segment, "summary.json"),
        (segment, "volumes.csv"),
        (demo, "demo.toml"),
        (demo, "report.html"),
        (demo, "data/image_1.nii.gz"),
        (demo, "supervoxels/1_supervoxels.nii.gz"),
        (demo, "run/config.toml"),
        (demo, "evaluation/scores.csv"),
        (demo, "segmentations/labels.txt"),
    ];
    let (_folder, bench) = BENCH.copy();
    for (arguments, name) in rows {
        let path = bench.at("mine").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "somebody's own").unwrap();
        let before = tree(&bench.0);
        let (code, text) = run(&bench.0, arguments);
        let fault = text.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{arguments}, {name}: {text}");
        let place = name.split('/').next().unwrap();
        assert!(fault.contains(&format!("/mine/{place}: expected ")) && fault.contains("--force"), "{name}: {fault}");
        assert_same(&before, &tree(&bench.0), name);
        fs::remove_dir_all(bench.at("mine")).unwrap();
    }
    println!("somebody's own files: {} cases", rows.len());
}

#[test]
fn a_demonstration_that_was_stopped_goes_on_and_one_that_has_ended_stays() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("demo");
    // Whether it begins to write.
    let begins = |more: &str| {
        let mut child =
            command(&format!("demo --out {{}} --device cpu {more}"), &[&out]).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let begun = lines.map(|line| line.unwrap()).find(|line| line.starts_with("1/6") || line.starts_with("ssl3d: "));
        child.kill().unwrap();
        child.wait().unwrap();
        begun.is_some_and(|line| line.starts_with("1/6"))
    };
    assert!(begins(""), "into no folder");
    assert!(begins(""), "on with what was stopped");
    fs::write(out.join("report.html"), "looked at").unwrap();
    let before = tree(&out);
    assert!(!begins(""), "over what has ended");
    assert_same(&before, &tree(&out), "demo");
    assert!(begins("--force"), "over what has ended, as it was asked to");
}

#[test]
fn pseudolabel_and_train_leave_what_is_up_to_date_as_it_is() {
    let (_folder, bench) = BENCH.copy();
    let kept = |out: &str| {
        let mut all = tree(&bench.at(out));
        // The lock says who was there last, and the folder that something was renamed.
        all.retain(|path, (bytes, _, _)| bytes.is_some() && !path.ends_with(".lock"));
        all
    };
    let supervoxels = CALLS[4].1;
    let (before, run_before) = (kept("supervoxels"), kept("run"));
    assert!(bench.succeed(supervoxels).contains("4 up to date and skipped"));
    assert!(bench.succeed(TRAIN).contains("finished already"));
    let without_summary = |mut tree: Tree| {
        // Rewritten whole, with the same bytes.
        tree.values_mut().for_each(|(_, _, time)| *time = SystemTime::UNIX_EPOCH);
        tree
    };
    assert_same(&without_summary(before.clone()), &without_summary(kept("supervoxels")), supervoxels);
    let volumes = |tree: Tree| tree.into_iter().filter(|(path, _)| !path.ends_with("summary.json")).collect::<Tree>();
    assert_same(&volumes(before.clone()), &volumes(kept("supervoxels")), supervoxels);
    assert_same(&run_before, &kept("run"), TRAIN);

    // Another configuration.
    let (code, text) = run(&bench.0, &format!("{TRAIN} --set training.epochs=2"));
    assert!(code == Some(1) && text.contains("--allow-changed"), "{text}");
    assert_same(&run_before, &kept("run"), "another configuration");

    // One scan is another: its supervoxels alone are made again.
    fs::copy(bench.at("data/image_1.nii.gz"), bench.at("data/image_2.nii.gz")).unwrap();
    let outside = bench.without("supervoxels");
    assert!(bench.succeed(supervoxels).contains("1 scans computed, 3 up to date and skipped"));
    assert_same(&outside, &bench.without("supervoxels"), supervoxels);
    let others = |tree: Tree| {
        volumes(tree).into_iter().filter(|(path, _)| !path.to_string_lossy().contains("/2_")).collect::<Tree>()
    };
    let after = kept("supervoxels");
    assert_same(&others(before.clone()), &others(after.clone()), "one scan is another");
    for name in ["supervoxels/2_supervoxels.nii.gz", "supervoxels/2_preview.png"] {
        assert!(before[&bench.at(name)] != after[&bench.at(name)], "{name}");
    }
}

#[test]
fn what_a_call_reads_is_not_replaced_by_what_it_writes_with_force_neither() {
    let (_folder, bench) = BENCH.copy();
    fs::create_dir_all(bench.at("mine/images")).unwrap();
    for (from, to) in [
        ("data/image_1.nii.gz", "mine/a.nii.gz"),
        ("data/label_1.nii.gz", "mine/a_seg.nii.gz"),
        ("data/image_1.nii.gz", "mine/images/image_1.nii.gz"),
    ] {
        fs::copy(bench.at(from), bench.at(to)).unwrap();
    }
    let segment = "segment --weights {}/run/fold_0/weights.safetensors --support {}/mine/a.nii.gz --support-label \
                   {}/mine/a_seg.nii.gz --device cpu --force";
    let rows = [
        ("prepare nifti {}/data --out {}/data --force".to_owned(), "data"),
        ("prepare nifti {}/data --out {}/tmp/../data --force --clip 1".to_owned(), "data"),
        (
            "prepare nifti {}/mine --set data.image=images/image_{id}.nii.gz --out {}/mine/images --force".to_owned(),
            "mine/images/image_1.nii.gz",
        ),
        (format!("{segment} --query {{}}/mine/a.nii.gz --out {{}}/mine"), "mine/a_seg.nii.gz"),
        (format!("{segment} --query {{}}/mine --out {{}}/mine"), "mine/a_seg.nii.gz"),
        (
            format!(
                "{segment} --query {{}}/data/image_2.nii.gz --out {{}}/new --report {{}}/run/fold_0/weights.safetensors"
            ),
            "run/fold_0/weights.safetensors",
        ),
        (
            format!("{segment} --query {{}}/data/image_2.nii.gz --out {{}}/new --report {{}}/mine/a.nii.gz"),
            "mine/a.nii.gz",
        ),
    ];
    for (arguments, name) in &rows {
        let before = tree(&bench.0);
        let (code, text) = run(&bench.0, arguments);
        let fault = text.lines().last().unwrap_or_default();
        assert!(
            code == Some(1) && fault.starts_with("ssl3d: ") && fault.contains("; give another --out"),
            "{arguments}: {text}"
        );
        assert!(fault.split(": expected ").next().unwrap().ends_with(name), "{arguments}: {fault}");
        let untouched = |tree: Tree| tree.into_iter().filter(|(_, (bytes, ..))| bytes.is_some()).collect::<Tree>();
        assert_same(&untouched(before), &untouched(tree(&bench.0)), arguments);
    }
    println!("inputs in the place of results: {} cases", rows.len());
}

/// The archive of the patient, and entries of other names.
fn archive(folder: &Path, names: &[String], links: &[(&str, &str)]) {
    let seed = folder.join("sets.zip");
    let mut zip = zip::ZipWriter::new_append(fs::File::options().read(true).write(true).open(seed).unwrap()).unwrap();
    let options = zip::write::SimpleFileOptions::default();
    for (name, target) in links {
        zip.add_symlink(*name, *target, options).unwrap();
    }
    for name in names {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(b"evil").unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn no_name_leads_out_of_the_folder() {
    type Make = fn(&Bench);
    let unpack = "prepare chaos {}/sets.zip --out {}/out/deep --keep-going";
    let nifti = "prepare nifti {}/odd --out {}/out/deep";
    let segment = "segment --weights {}/run/fold_0/weights.safetensors --support {}/data/image_1.nii.gz --support-label \
                   {}/data/label_1.nii.gz --out {}/out/deep --device cpu --preview --query";
    let rows: [(&str, String, bool, Make); 17] = [
        ("a zip with ..", unpack.to_owned(), true, |bench| {
            let names =
                ["../../../MR/1/T2SPIR/Ground/evil.png", "Train_Sets/MR/1/T2SPIR/Ground/../../../../../../evil.png"];
            archive(&bench.0, &names.map(str::to_owned), &[]);
        }),
        ("a zip with absolute names", unpack.to_owned(), true, |bench| {
            let below = bench.at("MR/1/T2SPIR/DICOM_anon/evil.dcm").display().to_string();
            archive(&bench.0, &[below, "/MR/9/T2SPIR/Ground/evil.png".to_owned()], &[]);
        }),
        ("a zip with the names of another system", unpack.to_owned(), true, |bench| {
            let names = [
                "..\\..\\MR\\1\\T2SPIR\\Ground\\evil.png",
                "C:\\MR\\1\\T2SPIR\\Ground\\evil.png",
                "C:/MR/1/T2SPIR/Ground/evil.png",
            ];
            archive(&bench.0, &names.map(str::to_owned), &[]);
        }),
        ("a zip with a link", unpack.to_owned(), true, |bench| {
            let link = ("Train_Sets/MR/2/T2SPIR", "../../../../../data");
            archive(&bench.0, &["Train_Sets/MR/2/T2SPIR/Ground/evil.png".to_owned()], &[link]);
        }),
        ("a zip with a link for a mask", unpack.to_owned(), true, |bench| {
            let link = ("Train_Sets/MR/2/T2SPIR/Ground/0.png", "../../../../../../../data/image_1.nii.gz");
            archive(&bench.0, &["Train_Sets/MR/2/T2SPIR/DICOM_anon/0.dcm".to_owned()], &[link]);
        }),
        ("a decathlon above", nifti.to_owned(), false, |bench| {
            fs::create_dir_all(bench.at("odd/imagesTr")).unwrap();
            let json = r#"{"labels": {}, "training": [{"image": "imagesTr/../../data/image_1.nii.gz"}]}"#;
            fs::write(bench.at("odd/dataset.json"), json).unwrap();
        }),
        ("a decathlon elsewhere", nifti.to_owned(), false, |bench| {
            fs::create_dir_all(bench.at("odd/imagesTr")).unwrap();
            let image = bench.at("data/image_1.nii.gz");
            let json = format!(r#"{{"labels": {{}}, "training": [{{"image": "{}"}}]}}"#, image.display());
            fs::write(bench.at("odd/dataset.json"), json).unwrap();
        }),
        ("an id of two dots", nifti.to_owned(), true, |bench| {
            fs::create_dir(bench.at("odd")).unwrap();
            fs::copy(bench.at("data/image_1.nii.gz"), bench.at("odd/image_...nii.gz")).unwrap();
        }),
        ("an id of one dot", nifti.to_owned(), true, |bench| {
            fs::create_dir(bench.at("odd")).unwrap();
            fs::copy(bench.at("data/image_1.nii.gz"), bench.at("odd/image_..nii.gz")).unwrap();
        }),
        (
            "supervoxels of two dots",
            "pseudolabel --config {}/c.toml --data {}/odd --out {}/out/deep --preview".to_owned(),
            true,
            |bench| {
                fs::create_dir(bench.at("odd")).unwrap();
                fs::copy(bench.at("data/image_1.nii.gz"), bench.at("odd/image_...nii.gz")).unwrap();
            },
        ),
        ("folders of dots", "prepare dicom {}/odd --out {}/out/deep".to_owned(), true, |bench| {
            series(&bench.at("odd/.../..a"));
            series(&bench.at("odd/-..-"));
        }),
        ("the folder above as a query", format!("{segment} {{}}/series/a/b/.."), true, |bench| {
            fs::create_dir(bench.at("series/a/b")).unwrap();
        }),
        ("the folder above as a query, by a short way", format!("{segment} series/a/b/.."), true, |bench| {
            fs::create_dir(bench.at("series/a/b")).unwrap();
        }),
        ("this folder as a query", format!("{segment} ."), true, |bench| {
            let keep = ["data", "run", "series", "tmp"];
            for path in fs::read_dir(&bench.0).unwrap().map(|entry| entry.unwrap().path()) {
                if !keep.iter().any(|name| path.ends_with(name)) {
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                }
            }
            (0..6).for_each(|i| drop(fs::copy(bench.at(&format!("series/a/{i}.dcm")), bench.at(&format!("{i}.dcm")))));
            fs::remove_dir_all(bench.at("series")).unwrap();
        }),
        ("queries of dots", format!("{segment} {{}}/odd/..nii.gz {{}}/odd/...nii.gz"), true, |bench| {
            fs::create_dir(bench.at("odd")).unwrap();
            for name in ["odd/..nii.gz", "odd/...nii.gz"] {
                fs::copy(bench.at("data/image_1.nii.gz"), bench.at(name)).unwrap();
            }
        }),
        (
            "a class that is called like a path",
            format!("{segment} {{}}/data/image_2.nii.gz --probabilities"),
            true,
            |bench| {
                fs::write(bench.at("data/dataset.json"), r#"{"classes": {"../../evil": 1, "/evil": 2}}"#).unwrap();
            },
        ),
        ("a result that is a link", format!("{segment} {{}}/data/image_2.nii.gz --force"), true, |bench| {
            fs::create_dir_all(bench.at("out/deep")).unwrap();
            symlink("../../data/label_2.nii.gz", bench.at("out/deep/image_2_seg.nii.gz")).unwrap();
            symlink("../../evil", bench.at("out/deep/summary.json")).unwrap();
        }),
    ];
    for (name, arguments, ends_well, make) in &rows {
        let (_folder, bench) = BENCH.copy();
        fs::create_dir(bench.at("out")).unwrap();
        make(&bench);
        let before = bench.without("out/deep");
        let (code, text) = run(&bench.0, arguments);
        let expected = if *ends_well { Some(0) } else { Some(1) };
        assert_eq!(code, expected, "{name}: {text}");
        let outside = |tree: Tree| tree.into_iter().filter(|(path, _)| !path.ends_with("out")).collect::<Tree>();
        assert_same(&outside(before), &outside(bench.without("out/deep")), name);
        let left: Vec<PathBuf> =
            tree(&bench.at("out")).into_keys().filter(|path| path.to_string_lossy().contains("evil")).collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        assert!(!*ends_well || tree(&bench.at("out/deep")).len() > 1, "{name}: nothing was written");
    }
    println!("names that lead elsewhere: {} cases", rows.len());
}
