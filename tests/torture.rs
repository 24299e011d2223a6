//! What a training leaves on disk while it is killed, starved and lied to. Each check comes in two lengths: a short draw
//! here, and the whole of it behind `--ignored`, which `scripts/torture.sh` runs.

mod tiny;

use rand::RngExt;
use ssl3d::error::Error;
use ssl3d::network::Network;
use ssl3d::training::adamw::AdamW;
use ssl3d::training::checkpoint::{self, Provenance, State};
use ssl3d::training::{Event, LAST, PREVIOUS};
use ssl3d::{rng, weights};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tch::Device;
use tempfile::{TempDir, tempdir};
use tiny::{Bench, scan, torch};

/// Names the folder to a child, which is this very program asked for one of its ignored tests.
const FOLDER: &str = "SSL3D_TORTURE_FOLDER";
/// The step at which a child ends itself.
const STEP: &str = "SSL3D_TORTURE_STEP";

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The folder, in a child; None where somebody has asked for all ignored tests.
fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// A network of 1.6 MB, and its optimiser of twice that.
fn trainee() -> (Bench, Network, Vec<AdamW>) {
    let bench = Bench::new(&["features.f_maps=32"]);
    let model = Network::new(&bench.config.network(), Device::Cpu, 0);
    let optimisers = model.trainable().into_iter().map(|of| AdamW::new(of, 0.0)).collect();
    (bench, model, optimisers)
}

fn about(step: u64) -> Provenance {
    let state = State { step, updates: vec![0], ..State::START };
    let [ssl3d, config, fold, data] = [(); 4].map(|()| String::new());
    Provenance { ssl3d, config, fold, trained_on: vec![], data, frame: None, state }
}

#[test]
#[ignore = "a child of the tests on saving, which start it: scripts/torture.sh"]
fn child_that_saves_without_end() {
    let Some(folder) = folder_of_child() else { return };
    let (_, model, mut optimisers) = trainee();
    let first = checkpoint::newest(&folder).unwrap().map_or(0, |position| {
        position.restore(&model, &mut optimisers).unwrap();
        position.set_damaged_aside().unwrap();
        position.about.state.step
    });
    for step in first + 1.. {
        checkpoint::write_last(&folder, &model, &optimisers, &about(step)).unwrap();
        println!("saved {step}");
    }
}

/// Kills a process that does nothing but save, at random moments; what it had saved last can be read each time.
fn kill_while_saving(kills: u64) {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("checkpoints")).unwrap();
    let (_, model, mut optimisers) = trainee();
    let (mut only_the_previous, mut unfinished) = (0, 0);
    for kill in 0..kills {
        let mut process = child("child_that_saves_without_end", folder.path()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let number = |line: String| line.strip_prefix("saved ").and_then(|step| step.parse::<u64>().ok());
        let mut saved = lines.by_ref().find_map(number).expect("the child saves");
        let wait = rng::stream(1, "moment of a kill", kill).random_range(0..40_000);
        std::thread::sleep(Duration::from_micros(wait));
        process.kill().unwrap();
        process.wait().unwrap();
        saved = lines.filter_map(number).last().unwrap_or(saved);

        unfinished += usize::from(fs::read_dir(folder.path().join("checkpoints")).unwrap().count() > 2);
        only_the_previous += usize::from(!folder.path().join(LAST).exists());
        let position = checkpoint::newest(folder.path()).unwrap().expect("a checkpoint");
        position.restore(&model, &mut optimisers).unwrap();
        assert!(position.damaged.is_empty(), "kill {kill}");
        let step = position.about.state.step;
        // The save under way may have come to its end.
        assert!((saved..=saved + 1).contains(&step), "kill {kill}: {saved} was saved, {step} is there");
    }
    println!("{kills} kills: {unfinished} in the middle of a file, {only_the_previous} between two renames");
}

#[test]
fn a_saving_that_is_killed_leaves_a_whole_checkpoint() {
    kill_while_saving(8);
}

#[test]
#[ignore = "a minute or two: scripts/torture.sh"]
fn a_saving_that_is_killed_leaves_a_whole_checkpoint_200_times() {
    kill_while_saving(200);
}

/// Flips single bits and cuts off ends: each time the previous checkpoint is taken, and the damage named.
fn damage(flips: u64, cuts: u64) {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("checkpoints")).unwrap();
    let (_, model, optimisers) = trainee();
    for step in [1, 2] {
        checkpoint::write_last(folder.path(), &model, &optimisers, &about(step)).unwrap();
    }
    let good = fs::read(folder.path().join(LAST)).unwrap();
    let newest = || {
        let started = Instant::now();
        let position = checkpoint::newest(folder.path()).unwrap().expect("the previous one");
        (position, started.elapsed())
    };
    assert_eq!(newest().0.about.state.step, 2);
    let mut slowest = Duration::ZERO;
    let mut faults = BTreeMap::<String, u64>::new();
    for case in 0..flips + cuts {
        let mut rng = rng::stream(2, "damage to a checkpoint", case);
        let mut bytes = good.clone();
        if case < flips {
            // Every tenth in the header, which is a hundredth of the file.
            let most = if case % 10 == 0 { good.len() / 100 } else { good.len() };
            bytes[rng.random_range(0..most)] ^= 1 << rng.random_range(0..8);
        } else {
            bytes.truncate(rng.random_range(0..good.len()));
        }
        fs::write(folder.path().join(LAST), bytes).unwrap();
        let (position, took) = newest();
        assert_eq!((position.about.state.step, position.damaged.len()), (1, 1), "case {case}");
        let fault = position.damaged[0].fault.to_string();
        assert!(fault.contains("last.safetensors: expected") && !fault.contains('\n'), "{fault}");
        slowest = slowest.max(took);
        let kind = fault.split("expected ").nth(1).and_then(|rest| rest.split([',', '(']).next()).unwrap_or("");
        *faults.entry(kind.to_owned()).or_default() += 1;
    }
    println!("{flips} flips, {cuts} cuts, both checkpoints read in at most {slowest:.0?}: {faults:?}");

    // With no whole one left nothing begins anew by itself.
    fs::write(folder.path().join(LAST), &good[..good.len() / 2]).unwrap();
    fs::write(folder.path().join(PREVIOUS), b"").unwrap();
    let fault = checkpoint::newest(folder.path()).err().expect("refused").to_string();
    assert!(fault.contains("2 of them, all damaged") && !fault.contains('\n'), "{fault}");
}

#[test]
fn no_damage_to_a_checkpoint_goes_unnoticed() {
    damage(40, 10);
}

#[test]
#[ignore = "a minute: scripts/torture.sh"]
fn no_damage_to_a_checkpoint_goes_unnoticed_1200_times() {
    damage(1000, 200);
}

#[test]
#[ignore = "a child of the tests on going on, which start it: scripts/torture.sh"]
fn child_that_trains_until_it_ends_itself() {
    let Some(folder) = folder_of_child() else { return };
    let step: u64 = std::env::var(STEP).unwrap().parse().unwrap();
    let _turn = torch(1);
    let mut here = 0;
    let trained = bench_of_kills().train(&folder, |event| match event {
        Event::Start { step, .. } => here = step,
        Event::Step { .. } => {
            here += 1;
            if here == step {
                std::process::abort();
            }
        }
        Event::Epoch(_) => (),
    });
    trained.unwrap();
}

fn bench_of_kills() -> Bench {
    Bench::new(&["training.epochs=8", "training.clip_norm=1.0"])
}

/// Ends a training at random steps, again and again: it ends with the bytes of the straight one.
fn kill_while_training(kills: usize) {
    let _turn = torch(1);
    let straight = tempdir().unwrap();
    bench_of_kills().train(straight.path(), |_| ()).unwrap();
    let steps = bench_of_kills().config.training.steps();
    let mut done = 0;
    while done < kills {
        let folder = tempdir().unwrap();
        let mut rng = rng::stream(3, "steps of kills", done as u64);
        let mut at: Vec<u64> = (0..4.min(kills - done)).map(|_| rng.random_range(1..=steps)).collect();
        at.sort_unstable();
        for step in &at {
            let ended =
                child("child_that_trains_until_it_ends_itself", folder.path()).env(STEP, step.to_string()).output();
            assert!(!ended.unwrap().status.success(), "killed at step {step}");
            done += 1;
        }
        bench_of_kills().train(folder.path(), |_| ()).unwrap();
        for name in ["weights.safetensors", LAST, "checkpoints/best.safetensors", "log.csv"] {
            let [a, b] = [straight.path(), folder.path()].map(|folder| fs::read(folder.join(name)).unwrap());
            assert!(a == b, "{name} after kills at {at:?}");
        }
    }
    println!("{done} kills, the same weights, checkpoints and log each time");
}

#[test]
fn a_training_that_is_killed_ends_with_the_bytes_of_the_straight_one() {
    kill_while_training(3);
}

#[test]
#[ignore = "a minute: scripts/torture.sh"]
fn a_training_that_is_killed_ends_with_the_bytes_of_the_straight_one_20_times() {
    kill_while_training(20);
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    4096 * statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// Trains on 200 scans and looks at the memory after each epoch.
fn watch_memory(epochs: u64) {
    let _turn = torch(1);
    let mut bench = Bench::new(&[&format!("training.epochs={epochs}"), "training.validate_every_epochs=1000"]);
    bench.train = (0..200).map(scan).collect();
    let folder = tempdir().unwrap();
    let mut resident = Vec::new();
    bench
        .train(folder.path(), |event| {
            if matches!(event, Event::Epoch(_)) {
                resident.push(resident_bytes());
            }
        })
        .unwrap();
    let quarter = resident.len() / 4;
    let most = |part: &[u64]| *part.iter().max().unwrap() as f64 / 1e6;
    let (second, last) = (most(&resident[quarter..2 * quarter]), most(&resident[3 * quarter..]));
    println!("200 scans, {} steps: {second:.1} MB in the second quarter, {last:.1} MB in the last", 3 * epochs);
    assert!(last < 1.05 * second + 2.0, "{second} MB in the second quarter of the training, {last} MB in the last");
}

#[test]
fn training_takes_no_more_memory_as_it_goes_on() {
    watch_memory(60);
}

#[test]
#[ignore = "some minutes: scripts/torture.sh"]
fn training_takes_no_more_memory_as_it_goes_on_for_3000_steps() {
    watch_memory(1000);
}

/// Trains with `more` and returns the fault, if one ended it; what is on disk can be read in any case.
fn diverge(more: &[&str]) -> Option<String> {
    let (bench, folder) = (Bench::new(more), tempdir().unwrap());
    let outcome = bench.train(folder.path(), |_| ());
    for entry in fs::read_dir(folder.path().join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        weights::read(&path).unwrap_or_else(|fault| panic!("{fault}"));
    }
    let fault = outcome.err().map(|fault| fault.to_string());
    assert_eq!(folder.path().join("weights.safetensors").exists(), fault.is_none());
    assert!(fault.as_ref().is_none_or(|text| text.contains("learning_rate") && !text.contains('\n')), "{fault:?}");
    fault
}

#[test]
fn a_training_that_diverges_leaves_finite_weights_alone() {
    let _turn = torch(1);
    // The largest rate that is allowed; then steps that multiply the weights by a million.
    diverge(&["training.learning_rate=1.0", "training.epochs=10"]);
    let exploding = ["training.learning_rate=1.0", "training.weight_decay=1e7", "training.epochs=10"];
    assert!(diverge(&exploding).is_some_and(|fault| fault.contains("finite")));
    // An epoch that ends among the steps without a loss saves nothing that is not finite.
    let short = [&exploding[..], &["training.iterations_per_epoch=1"]].concat();
    assert!(diverge(&short).is_some());
}

#[test]
fn other_scans_than_those_that_a_training_began_with_are_refused() {
    let _turn = torch(1);
    let (mut bench, folder) = (Bench::new(&[]), TempDir::new().unwrap());
    let stop = |bench: &Bench| {
        let stopped = bench.train(folder.path(), |event| {
            bench.stop.store(matches!(event, Event::Step { .. }), Ordering::Relaxed);
        });
        bench.stop.store(false, Ordering::Relaxed);
        stopped.err()
    };
    assert!(matches!(stop(&bench), Some(Error::Stopped { .. })));
    bench.train[0].regions[[4, 16, 16]] += 1;
    let refused = bench.train(folder.path(), |_| ()).expect_err("refused").to_string();
    assert!(refused.contains("scans and supervoxels") && refused.contains("--allow-changed"), "{refused}");
    bench.allow_changed = true;
    bench.train(folder.path(), |_| ()).unwrap();
}
