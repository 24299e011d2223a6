//! A run directory through the binary: one writer, signals, changed configurations, damaged files, full disks, no memory, and
//! the same bytes each time.

mod program;

use program::{command, said, succeed};
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::training::checkpoint;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

const CONFIG: &str = r#"
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
pooling = [[1, 2, 2], [2, 2, 2]]
[prototypes]
train_window = { size = [2, 4, 4] }
test_window = { size = [2, 4, 4] }
[training]
epochs = 3
iterations_per_epoch = 8
learning_rate = 1e-2
validation_episodes = 2
validate_every_epochs = 1
checkpoint_every_epochs = 1
"#;
const TRAIN: &str = "train --config {} --data {} --supervoxels {} --run {} --fold 0 --device cpu";
/// So long that it has to be stopped.
const LONG: &str = "--set training.epochs=100000 --set training.validate_every_epochs=100000 \
                    --set training.checkpoint_every_epochs=100000";
const LAST: &str = "fold_0/checkpoints/last.safetensors";
const WEIGHTS: &str = "fold_0/weights.safetensors";

/// What trainings start from, made once.
struct Data {
    config: PathBuf,
    scans: PathBuf,
    supervoxels: PathBuf,
    /// A finished run, for comparison.
    straight: PathBuf,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let [config, scans, supervoxels, straight] =
        ["c.toml", "data", "supervoxels", "straight"].map(|name| folder.join(name));
    fs::write(&config, CONFIG).unwrap();
    let cohort = phantom::Config { subjects: 5, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 5 };
    write_cohort(&scans, &cohort).unwrap();
    succeed("pseudolabel --config {} --data {} --out {}", &[&config, &scans, &supervoxels]);
    succeed(TRAIN, &[&config, &scans, &supervoxels, &straight]);
    Data { config, scans, supervoxels, straight }
});

/// A run directory of its own.
struct Training(TempDir);

impl Training {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, more: &str) -> Command {
        let Data { config, scans, supervoxels, .. } = &*DATA;
        command(&format!("{TRAIN} {more}"), &[config, scans, supervoxels, self.0.path()])
    }

    /// Exit code and what was said.
    fn run(&self, more: &str) -> (Option<i32>, String) {
        ended(&self.command(more).output().unwrap())
    }

    /// Starts a long one and waits until it is about to train.
    fn start(&self, more: &str) -> Started {
        Started::new(self.command(&format!("{LONG} {more}")))
    }

    /// The step that the last checkpoint stands at.
    fn step(&self) -> u64 {
        checkpoint::newest(&self.at("fold_0")).unwrap().expect("a checkpoint").about.state.step
    }

    fn assert_as_straight(&self) {
        for name in [WEIGHTS, LAST, "fold_0/log.csv"] {
            let [a, b] = [&DATA.straight, self.0.path()].map(|run| fs::read(run.join(name)).unwrap());
            assert!(a == b, "{name} is another");
        }
    }
}

fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), said(output)[1].clone())
}

/// A training that has said what it trains on.
struct Started {
    child: Child,
    said: String,
    stderr: BufReader<ChildStderr>,
}

impl Started {
    fn new(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (mut said, mut stderr) = (String::new(), BufReader::new(child.stderr.take().unwrap()));
        while !said.contains("training on ") && stderr.read_line(&mut said).unwrap() > 0 {}
        Self { child, said, stderr }
    }

    fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), &self.child.id().to_string()]).stderr(Stdio::null());
        kill.status().unwrap(); // a process that has ended already gets no signal
    }

    /// Exit code, what was said, and how long the end took.
    fn wait(mut self) -> (Option<i32>, String, Duration) {
        let started = Instant::now();
        self.stderr.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code(), self.said, started.elapsed())
    }

    /// Lets it do some steps and asks it to stop.
    fn stop(self) {
        std::thread::sleep(Duration::from_millis(500));
        self.signal("TERM");
        let (code, said, _) = self.wait();
        assert_eq!(code, Some(75), "{said}");
    }
}

/// The fault alone, which is one line.
#[track_caller]
fn fault((code, text): (Option<i32>, String)) -> String {
    assert_eq!(code, Some(1), "{text}");
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    let faults: Vec<&str> = text.lines().filter(|line| line.starts_with("ssl3d: ")).collect();
    assert_eq!(faults.len(), 1, "{text}");
    faults[0].to_owned()
}

#[test]
fn every_signal_that_asks_for_an_end_saves_first() {
    let training = Training::new();
    let mut before = 0;
    for name in ["TERM", "INT", "USR1", "HUP"] {
        let started = training.start("");
        started.signal(name);
        let (code, text, took) = started.wait();
        assert_eq!(code, Some(75), "{name}: {text}");
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
        assert!(text.contains("stopped on request; everything up to step"), "{text}");
        let step = training.step();
        assert!(step >= before && text.contains(&format!("step {step} of")), "{name}: {step} after {before}: {text}");
        before = step;
    }
}

#[test]
fn validation_gives_way_to_a_request_to_stop() {
    let training = Training::new();
    let much =
        "--set training.validation_episodes=1000000 --set training.validate_every_epochs=1 --set training.epochs=2";
    let started = Started::new(training.command(much));
    std::thread::sleep(Duration::from_secs(2)); // for eight steps of some milliseconds
    started.signal("TERM");
    let (code, text, took) = started.wait();
    assert_eq!(code, Some(75), "{text}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(!training.at("fold_0/log.csv").exists() && training.step() == 8);
}

#[test]
fn a_second_interrupt_ends_at_once_and_harms_nothing() {
    let training = Training::new();
    training.start("").stop();
    let step = training.step();
    // Steps far longer than what lies between two interrupts, so that the first cannot end it.
    let slow = "--allow-changed --set preprocessing.size_vox=[24,256,256]";
    let mut started = training.start(slow);
    while !started.said.contains("going on from step") && started.stderr.read_line(&mut started.said).unwrap() > 0 {}
    std::thread::sleep(Duration::from_millis(500)); // the step has begun
    // Two that arrive before either is seen are one, so it is asked until it ends.
    let asked = Instant::now();
    while started.child.try_wait().unwrap().is_none() && asked.elapsed() < Duration::from_secs(10) {
        started.signal("INT");
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = asked.elapsed();
    started.child.kill().unwrap(); // nothing, if it has ended
    let (code, text, _) = started.wait();
    assert_eq!(code, Some(130), "after {took:?}: {text}");
    assert!(training.step() >= step);
}

#[test]
fn a_second_process_in_the_same_run_is_refused_until_the_first_has_ended_however_it_did() {
    let training = Training::new();
    let mut first = training.start("");
    let refused = fault(training.run(LONG));
    let found = format!("expected nobody else at work there, found process {}; choose another --run", first.child.id());
    assert!(refused.contains(&found) && refused.contains("fold_0"), "{refused}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    training.start("").stop();
}

#[test]
fn another_configuration_is_refused_with_what_differs_unless_it_is_meant() {
    let training = Training::new();
    training.start("").stop();
    let changed = "--set training.learning_rate=0.003 --set training.epochs=4";
    let refused = fault(training.run(changed));
    for word in [
        "config.toml: expected the run's own configuration",
        "training.learning_rate = 0.003 in place of 0.01",
        "training.epochs = 4 in place of 100000",
        "--allow-changed",
    ] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert!(!training.at("config.before-1.toml").exists());

    let step = training.step();
    let (code, text) = training.run(&format!("{changed} --set training.iterations_per_epoch=100 --allow-changed"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning: ") && text.contains(&format!("going on from step {step} of 400")), "{text}");
    let [older, newer] =
        ["config.before-1.toml", "config.toml"].map(|name| fs::read_to_string(training.at(name)).unwrap());
    assert!(older.contains("epochs = 100000") && newer.contains("epochs = 4\n"));
}

#[test]
fn damaged_files_are_named_set_aside_and_made_again() {
    let training = Training::new();
    assert_eq!(training.run("").0, Some(0));
    training.assert_as_straight();
    let (weights, last) = (training.at(WEIGHTS), training.at(LAST));
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };

    flip(&weights);
    let (code, text) = training.run("");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("warning: ") && text.contains("weights.safetensors: expected the bytes that ssl3d wrote"),
        "{text}"
    );
    training.assert_as_straight();
    assert!(training.at("fold_0/weights.damaged").exists());

    // The last checkpoint too: an older one gives both again.
    flip(&weights);
    flip(&last);
    let (code, text) = training.run("");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("last.safetensors: expected") && text.contains("going on from an older one"), "{text}");
    training.assert_as_straight();
    assert!(training.at("fold_0/checkpoints/last.damaged").exists());
    assert!(training.run("").1.contains("finished already"));
}

#[test]
fn a_disk_that_is_full_leaves_the_older_checkpoint() {
    let training = Training::new();
    training.start("").stop();
    let before = fs::read(training.at(LAST)).unwrap();
    let names =
        || fs::read_dir(training.at("fold_0/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let (step, there) = (training.step(), names().len());
    // Files may grow to 16 blocks of 1024 bytes: enough for all but checkpoints.
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -f 16; exec \"$@\"", "bash"]);
    let train = training.command(&format!("--allow-changed {LONG} --set training.checkpoint_every_epochs=1"));
    limited.arg(train.get_program()).args(train.get_args()).stdin(Stdio::null());
    let refused = fault(ended(&limited.output().unwrap()));
    assert!(refused.contains("cannot write: File too large") && refused.contains("ulimit -f"), "{refused}");
    assert!(fs::read(training.at(LAST)).unwrap() == before);
    assert_eq!((training.step(), names().len()), (step, there), "nothing half-written stays");
}

#[test]
fn a_folder_that_may_not_be_written_to_is_named_and_what_is_there_stays() {
    let training = Training::new();
    training.start("").stop();
    let (fold, before) = (training.at("fold_0"), fs::read(training.at(LAST)).unwrap());
    let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let mut train = training.command(LONG);
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        // Root may write anywhere, so somebody else has to try.
        let other = |program: &Command, arguments: &mut dyn Iterator<Item = &OsStr>| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(program.get_program())
                .args(arguments);
            command.stdin(Stdio::null());
            command
        };
        let mut probe = other(&train, &mut [OsStr::new("--version")].into_iter());
        if !probe.output().is_ok_and(|output| output.status.success()) {
            println!("skipped: nobody but root can start the program here");
            return;
        }
        train = other(&train, &mut train.get_args());
        for (path, mode) in [(training.0.path(), 0o777), (&fold, 0o777), (&fold.join(".lock"), 0o666)] {
            allow(path, mode);
        }
    }
    let checkpoints = fold.join("checkpoints");
    allow(&checkpoints, 0o555);
    let started = Started::new(train);
    started.signal("TERM");
    let (code, text, _) = started.wait();
    allow(&checkpoints, 0o755);
    let refused = fault((code, text));
    assert!(refused.contains("Permission denied") && refused.contains("check the permissions"), "{refused}");
    assert!(fs::read(training.at(LAST)).unwrap() == before);
}

#[test]
fn what_would_not_fit_into_memory_is_refused_before_it_begins() {
    let training = Training::new();
    let refused = fault(training.run("--memory-limit 0.3"));
    for word in ["memory for training: expected at most the 0.30 GB", "a need of about", "features.f_maps", "--force"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert_eq!(fs::read_dir(training.0.path()).unwrap().count(), 0);
    let (code, text) = training.run("--memory-limit 0.3 --force");
    assert_eq!(code, Some(0), "{text}");
    training.assert_as_straight();

    let Data { scans, straight, .. } = &*DATA;
    let (weights, out) = (straight.join(WEIGHTS), training.at("out"));
    let [image, label] = ["image_1.nii.gz", "label_1.nii.gz"].map(|name| scans.join(name));
    let segment =
        "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --memory-limit 0.3";
    let refused = fault(ended(&command(segment, &[&weights, &image, &label, &image, &out]).output().unwrap()));
    assert!(refused.contains("memory for segmenting") && refused.contains("--memory-limit"), "{refused}");
    assert!(!out.exists());
}

/// Every file below a folder with its bytes, but for the lock, which holds the number of a process.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != ".lock") {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[track_caller]
fn assert_same_files(a: &Path, b: &Path) {
    let [a, b] = [files(a), files(b)];
    let differ: Vec<&PathBuf> = a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).collect();
    assert!(differ.is_empty() && !a.is_empty(), "{differ:?}");
}

#[test]
fn equal_calls_give_equal_bytes() {
    let (Data { config, scans, supervoxels, straight }, folder) = (&*DATA, tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    // Supervoxels: whatever the number of threads.
    succeed("pseudolabel --threads 3 --config {} --data {} --out {}", &[config, scans, &at("supervoxels")]);
    assert_same_files(supervoxels, &at("supervoxels"));
    // Training: for the same number of threads.
    for (threads, name) in [(1, "one"), (2, "two"), (2, "two again")] {
        succeed(&format!("{TRAIN} --threads {threads}"), &[config, scans, supervoxels, &at(name)]);
    }
    assert_same_files(straight, &at("one"));
    assert_same_files(&at("two"), &at("two again"));
    // Segmenting: whatever the order of the queries.
    let [a, b, support, label] =
        ["image_1.nii.gz", "image_2.nii.gz", "image_4.nii.gz", "label_4.nii.gz"].map(|name| scans.join(name));
    let segment = "segment --weights {} --support {} --support-label {} --query {} {} --out {} --device cpu";
    let weights = straight.join(WEIGHTS);
    succeed(segment, &[&weights, &support, &label, &a, &b, &at("ab")]);
    succeed(segment, &[&weights, &support, &label, &b, &a, &at("ba")]);
    let results = |name: &str| {
        let all = files(&at(name)).into_iter();
        all.filter(|(name, _)| name.to_string_lossy().ends_with("_seg.nii.gz")).collect::<Vec<_>>()
    };
    assert_eq!(results("ab").len(), 2);
    assert!(results("ab") == results("ba"));
}

/// Where nobody reads any more, where there is no room, and no place at all.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sink {
    ClosedPipe,
    FullDisk,
    Closed,
}

const SINKS: [Sink; 3] = [Sink::ClosedPipe, Sink::FullDisk, Sink::Closed];

/// What was said but for warnings that these scans call for: nothing names their labels, and an untrained network finds nonsense.
fn without_warnings(said: &str) -> String {
    const MEANT: [&str; 3] = ["no dataset.json names the labels", "hardly differs from", "times the volume"];
    let is_meant = |line: &str| line.starts_with("warning: ") && MEANT.iter().any(|text| line.contains(text));
    said.lines().filter(|line| !is_meant(line)).map(|line| format!("{line}\n")).collect()
}

/// The command with its standard output (1) or standard error (2) led there.
fn into_sink(mut command: Command, stream: u8, sink: Sink) -> Output {
    if sink == Sink::Closed {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {stream}>&-")]).arg(command.get_program());
        shell.args(command.get_args()).stdin(Stdio::null());
        return shell.output().unwrap();
    }
    let stdio = match sink {
        Sink::FullDisk => Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap()),
        _ => Stdio::from(std::io::pipe().unwrap().1), // its other end is dropped
    };
    match stream {
        1 => command.stdout(stdio),
        _ => command.stderr(stdio),
    };
    command.output().unwrap()
}

#[test]
fn results_that_nobody_reads_end_quietly_and_those_without_room_are_named() {
    const NO_ROOM: &str = "ssl3d: standard output: cannot write: No space left on device (os error 28); make room or \
                           choose another place\n";
    let (folder, Data { config, scans, straight, .. }) = (tempdir().unwrap(), &*DATA);
    let check = |arguments: &str, paths: &[&Path], sink: Sink| {
        let expected = if sink == Sink::FullDisk { (Some(1), NO_ROOM) } else { (Some(0), "") };
        let (code, said) = ended(&into_sink(command(arguments, paths), 1, sink));
        assert_eq!((code, without_warnings(&said).as_str()), expected, "{arguments} into {sink:?}");
    };
    for sink in SINKS {
        for arguments in ["info", "info --json", "--help", "segment --help", "--version"] {
            check(arguments, &[], sink);
        }
        check("info --config {}", &[config], sink);
    }
    for sink in [Sink::ClosedPipe, Sink::FullDisk] {
        let scored = folder.path().join(format!("scored {sink:?}"));
        check("pseudolabel --score --config {} --data {} --out {} -q", &[config, scans, &scored], sink);
        assert!(fs::read_to_string(scored.join("summary.json")).unwrap().contains("\"boundary_recall\""));
    }
    let evaluated = folder.path().join("evaluated");
    check("eval --run {} --data {} --out {} --device cpu -q", &[straight, scans, &evaluated], Sink::FullDisk);
    exists_in(&evaluated, &["scores.csv", "summary.json", "report.html"]);
}

#[test]
fn messages_that_nobody_reads_stop_no_work() {
    let (folder, Data { config, scans, supervoxels, straight }) = (tempdir().unwrap(), &*DATA);
    let bad = folder.path().join("bad.nii.gz");
    fs::write(&bad, "no scan").unwrap();
    let [image, label, query] = ["image_1.nii.gz", "label_1.nii.gz", "image_2.nii.gz"].map(|name| scans.join(name));
    let weights = straight.join(WEIGHTS);
    let check = |arguments: &str, paths: &[&Path], sink: Sink, code: i32| {
        let output = into_sink(command(arguments, paths), 2, sink);
        assert_eq!(output.status.code(), Some(code), "{arguments} with messages into {sink:?}");
    };
    for sink in SINKS {
        let [out, copied] = ["out", "copied"].map(|name| folder.path().join(format!("{name} {sink:?}")));
        check("segment --weights", &[], sink, 2);
        check("info --config {}", &[&bad], sink, 1);
        check("prepare nifti {} --out {}", &[scans, &copied], sink, 0);
        exists_in(&copied, &["image_1.nii.gz", "label_5.nii.gz"]);
        let segment = "segment --weights {} --support {} --support-label {} --query {} {} --out {} --device cpu -v";
        check(segment, &[&weights, &image, &label, &bad, &query, &out], sink, 1); // for the bad one
        exists_in(&out, &["image_2_seg.nii.gz", "volumes.csv", "summary.json"]);
    }
    let [run, made] = ["run", "made"].map(|name| folder.path().join(name));
    check("pseudolabel --config {} --data {} --out {}", &[config, scans, &made], Sink::FullDisk, 0);
    exists_in(&made, &["summary.json"]);
    check(TRAIN, &[config, scans, supervoxels, &run], Sink::ClosedPipe, 0);
    assert!(fs::read(run.join(WEIGHTS)).unwrap() == fs::read(straight.join(WEIGHTS)).unwrap());
}

#[track_caller]
fn exists_in(folder: &Path, names: &[&str]) {
    for name in names {
        assert!(folder.join(name).exists(), "{name} is not in {}", folder.display());
    }
}

#[test]
fn a_hang_up_that_is_ignored_as_under_nohup_stops_nothing() {
    let training = Training::new();
    let ignoring = |command: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell
    };
    let started = Started::new(ignoring(training.command("")));
    started.signal("HUP");
    let (code, text, _) = started.wait();
    assert_eq!(code, Some(0), "{text}");
    training.assert_as_straight();
}

#[test]
fn more_threads_than_processors_are_not_started_and_a_note_says_so() {
    let [lines, note] = succeed("info --threads 3000", &[]);
    let usable = std::thread::available_parallelism().unwrap();
    assert!(lines.contains(&format!("(rayon {usable}, libtorch {usable})")), "{lines}");
    assert_eq!(note, format!("--threads 3000: {usable} are used, one for each processor that there is\n"));
}

/// Runs with so much address space; exit code and what was said. Panics where it does not end.
fn within(kib: u64, command: &Command) -> (Option<i32>, String) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -c 0; ulimit -v {kib}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args()).env_remove("RUST_BACKTRACE");
    let mut child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(180) {
            child.kill().unwrap();
            panic!("{command:?} has not ended within {kib} KiB");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ended(&child.wait_with_output().unwrap())
}

#[test]
fn little_memory_ends_in_one_line_and_never_in_a_panic_or_a_hang() {
    let (folder, Data { config, scans, supervoxels, straight }) = (tempdir().unwrap(), &*DATA);
    let [image, label, query] = ["image_1.nii.gz", "label_1.nii.gz", "image_2.nii.gz"].map(|name| scans.join(name));
    let weights = straight.join(WEIGHTS);
    let mut ends = BTreeMap::<String, u32>::new();
    for kib in [100_000, 380_000, 400_000, 430_000, 450_000, 470_000, 490_000, 520_000, 600_000, 700_000] {
        let [out, run] = ["out", "run"].map(|name| folder.path().join(format!("{name} {kib}")));
        // Without its own estimate, which would refuse it before.
        let segment = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --threads 2 \
                       --memory-limit 99 -q";
        let train = format!(
            "{TRAIN} --threads 2 --force -q --set training.epochs=1 --set training.iterations_per_epoch=2 \
             --set training.validation_episodes=1"
        );
        for command in [
            command("info --threads 2", &[]),
            command(segment, &[&weights, &image, &label, &query, &out]),
            command(&train, &[config, scans, supervoxels, &run]),
        ] {
            let (code, text) = within(kib, &command);
            let text = without_warnings(&text);
            match code {
                Some(0) => assert_eq!(text, "", "{kib} KiB"),
                Some(1) => assert!(text.starts_with("ssl3d: ") && text.lines().count() == 1, "{kib} KiB: {text}"),
                Some(127) => assert!(text.contains("error while loading shared libraries"), "{kib} KiB: {text}"),
                _ => panic!("{code:?} within {kib} KiB: {text}"),
            }
            *ends.entry(format!("exit code {}", code.unwrap())).or_default() += 1;
        }
        for file in files(folder.path()).keys() {
            assert!(!file.to_string_lossy().contains(".ssl3d-"), "{} is half a file", file.display());
        }
    }
    println!("{ends:?}");
    assert!(ends.contains_key("exit code 0") && ends.contains_key("exit code 1"), "{ends:?}");
}
