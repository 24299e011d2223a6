//! `cargo bench` times every stage; `cargo bench -- slic` those whose name contains it. Inputs are generated.
//!
//! Set `OMP_WAIT_POLICY=PASSIVE` where other programs keep the cores busy. `scripts/bench/compare.py` compares with the
//! Python peers.

mod stages;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use ssl3d::device;
use stages::{OneShot, Scoring, Sizes, Source, Trainer};
use std::time::Duration;

const SIZES: Sizes = Sizes::FULL;

fn supervoxels(c: &mut Criterion) {
    let (image, _) = stages::abdomen(SIZES.scan_vox, 0);
    let (unit, spacing_mm) = (stages::unit_range(&image), image.geometry.spacing_mm());
    let mut group = slow(c, "supervoxels 37x256x256");
    for k in [10, 60, 400, 2000] {
        group.bench_function(format!("slic {k}"), |b| b.iter(|| stages::slic(&unit, spacing_mm, k)));
    }
    group.bench_function("felzenszwalb", |b| b.iter(|| stages::felzenszwalb(&unit, spacing_mm)));
}

fn data(c: &mut Criterion) {
    let paper = Source::new("paper", &SIZES);
    let first = paper.episode(0);
    let mut group = c.benchmark_group("data");
    let mut step = 0;
    group.bench_function("augment 24x128x128, one thread", |b| {
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
        let (config, spacing_mm) = (&paper.config.augment, paper.scan.spacing_mm);
        b.iter(|| {
            step += 1;
            alone.install(|| stages::augment(config, &first.support_image, &first.support_labels, spacing_mm, step))
        });
    });
    for name in ["cpu", "paper"] {
        let source = Source::new(name, &SIZES);
        group.bench_function(format!("episode of {name}.toml"), |b| {
            b.iter(|| {
                step += 1;
                source.episode(step)
            });
        });
    }
}

fn network(c: &mut Criterion) {
    let scoring = Scoring::new(SIZES.features_vox);
    let mut group = slow(c, "network");
    group.bench_function("alp 55296x384x16, forward and backward", |b| b.iter(|| stages::score(&scoring)));
    for (name, alignment) in [("cpu", false), ("cpu", true), ("paper", true)] {
        let with = if alignment { "with" } else { "without" };
        let mut trainer = Trainer::new(&Source::new(name, &SIZES), alignment);
        group.bench_function(format!("step of {name}.toml {with} alignment"), |b| b.iter(|| trainer.step()));
    }
    let one_shot = OneShot::new("cpu", &SIZES);
    group.bench_function("segment one query with cpu.toml", |b| b.iter(|| one_shot.segment()));
}

/// Few iterations of what takes from a tenth of a second to several seconds.
fn slow<'c>(c: &'c mut Criterion, name: &str) -> criterion::BenchmarkGroup<'c, criterion::measurement::WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group
}

fn threads(_: &mut Criterion) {
    device::threads::share(None).expect("threads start");
}

criterion_group!(benches, threads, supervoxels, data, network);
criterion_main!(benches);
