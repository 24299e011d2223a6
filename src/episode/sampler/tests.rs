use super::super::supervision::{self, Rules};
use super::*;
use crate::rng;

fn config() -> Config {
    Config {
        regions: 1,
        min_size_vox: 1,
        max_fraction: 1.0,
        depth_vox: 0,
        slabs: Slabs::Shared,
        whole_volume_members: 0,
    }
}

fn slices(depth_vox: usize, slabs: Slabs, regions: usize) -> Config {
    Config { depth_vox, slabs, regions, min_size_vox: 2, ..config() }
}

fn organs(annotated_scans: usize, setting: u8, tested: &[u8]) -> Rules {
    let supervision = supervision::Config { source: Source::Organs, annotated_scans, tested_organs: false };
    Rules { supervision, setting, tested: tested.to_vec() }
}

/// Ten slices of 6 x 8. Columns 1 to 6 of x are regions 1 to 6, the first and last slice without 1 and 2. Organ 1 fills
/// region 2 from slice `start` to 8, organ 2 region 4 on every slice, organ 3 region 6 on slices 0 and 1.
fn scan(id: &str, start: usize) -> Scan {
    let regions = Array3::from_shape_fn((10, 6, 8), |(z, _, x)| match x {
        1 | 2 if z == 0 || z == 9 => 0,
        1..7 => x as i32,
        _ => 0,
    });
    let organs = Array3::from_shape_fn((10, 6, 8), |(z, _, x)| match (x, z) {
        (2, z) if (start..9).contains(&z) => 1,
        (4, _) => 2,
        (6, 0..2) => 3,
        _ => 0,
    });
    let image = regions.mapv(|r| r as f32);
    Scan { id: id.into(), image, regions, organs: Some(organs), spacing_mm: [4.0, 1.0, 1.0] }
}

fn draws(scans: &[Scan], config: &Config, rules: &Rules, seed: u64) -> Vec<Draw> {
    let candidates = Candidates::new(scans, config, rules);
    (0..300).map(|step| draw(&mut rng::stream(seed, "episode", step), &candidates, config).unwrap()).collect()
}

#[test]
fn masks_are_never_empty_and_classes_are_distinct() {
    let scans = [scan("1", 1), scan("2", 4), scan("3", 6)];
    for regions in [1, 2, 4, 9] {
        for (config, rules) in [
            (Config { regions, ..config() }, Rules::unlabelled()),
            (slices(1, Slabs::Shared, regions), Rules::unlabelled()),
            (slices(1, Slabs::Separate, regions), Rules::unlabelled()),
            (slices(3, Slabs::Separate, regions), Rules { setting: 2, tested: vec![3], ..Rules::unlabelled() }),
            (Config { regions, ..config() }, organs(0, 1, &[2])),
            (slices(1, Slabs::Shared, regions), organs(2, 1, &[2])),
            (slices(3, Slabs::Shared, regions), organs(0, 2, &[3])),
        ] {
            for draw in draws(&scans, &config, &rules, 0) {
                assert!((1..=regions).contains(&draw.classes.len()), "{draw:?}");
                assert_eq!(draw.support.slices.len(), draw.query.slices.len());
                for slab in [&draw.support, &draw.query] {
                    let (image, labels) = materialise(&scans[slab.scan], slab, &draw);
                    assert_eq!((image.len(), image.dim()), (slab.slices.len() * 48, labels.dim()));
                    for (i, class) in draw.classes.iter().enumerate() {
                        let drawn = labels.iter().filter(|&&l| l == i as u8 + 1).count();
                        let within = s![slab.slices.clone(), .., ..];
                        let scan = &scans[slab.scan];
                        let truth = match draw.source {
                            Source::Organs => scan.organs.as_ref().unwrap().mapv(i32::from),
                            _ => scan.regions.clone(),
                        };
                        assert_eq!(drawn, truth.slice(within).iter().filter(|&label| label == class).count());
                        assert!(drawn >= config.min_size_vox && !draw.classes[..i].contains(class), "{draw:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_and_every_scan_and_region_has_its_turn() {
    let scans = [scan("1", 1), scan("2", 4), scan("3", 6)];
    for (config, rules) in [
        (config(), Rules::unlabelled()),
        (slices(1, Slabs::Separate, 2), Rules::unlabelled()),
        (slices(2, Slabs::Shared, 2), organs(0, 1, &[3])),
    ] {
        let drawn = draws(&scans, &config, &rules, 1);
        assert_eq!(drawn, draws(&scans, &config, &rules, 1));
        assert_ne!(drawn, draws(&scans, &config, &rules, 2));
        let candidates = Candidates::new(&scans, &config, &rules);
        for (scan, classes) in candidates.classes.iter().enumerate() {
            let of_scan = || drawn.iter().filter(|d| d.support.scan == scan);
            for class in classes {
                assert!(of_scan().any(|d| d.classes[0] == class.label), "{scan}: {class:?}");
                for first in &class.slabs {
                    assert!(of_scan().any(|d| d.support.slices.start == *first), "{scan}: {first}");
                }
            }
        }
    }
}

/// The streams of trainings that have been: a scan, then distinct regions, and no other draws.
#[test]
fn whole_volumes_draw_a_scan_and_then_its_regions_from_the_stream() {
    let scans = [scan("1", 1), scan("2", 4), scan("3", 6)];
    for regions in [1, 3, 6, 8] {
        let config = Config { regions, ..config() };
        for (step, draw) in draws(&scans, &config, &Rules::unlabelled(), 5).into_iter().enumerate() {
            let mut rng = rng::stream(5, "episode", step as u64);
            let scan = rng.random_range(0..3usize);
            let classes: Vec<i32> =
                rand::seq::index::sample(&mut rng, 6, regions.min(6)).iter().map(|i| i as i32 + 1).collect();
            let slab = Slab { scan, slices: 0..10 };
            assert_eq!(draw, Draw { source: Source::Supervoxels, support: slab.clone(), query: slab, classes });
        }
    }
}

#[test]
fn windows_are_one_slab_or_two() {
    let scans = [scan("1", 1)];
    let same = draws(&scans, &slices(2, Slabs::Shared, 2), &Rules::unlabelled(), 0);
    assert!(same.iter().all(|d| d.support == d.query && d.support.slices.len() == 2));
    let different = draws(&scans, &slices(2, Slabs::Separate, 2), &Rules::unlabelled(), 0);
    assert!(different.iter().all(|d| d.support != d.query && d.support.scan == d.query.scan));
    let first = |d: &Draw| (d.support.slices.start, d.query.slices.start);
    assert!(different.iter().any(|d| first(d).0 < first(d).1) && different.iter().any(|d| first(d).0 > first(d).1));
    // Ten slices of ten are one slab.
    let long = draws(&scans, &slices(10, Slabs::Separate, 6), &Rules::unlabelled(), 0);
    assert!(long.iter().all(|d| d.support == d.query && d.classes.len() == 6));
    assert!(slices(0, Slabs::Separate, 1).check().unwrap_err().to_string().starts_with("episode.slabs"));
}

#[test]
fn organs_come_from_two_annotated_scans_and_tested_ones_are_never_drawn() {
    let scans = [scan("1", 1), scan("2", 4), scan("3", 6), scan("4", 2)];
    for depth_vox in [0, 1, 3] {
        for tested in [vec![1], vec![2, 3], vec![]] {
            let drawn = draws(&scans, &slices(depth_vox, Slabs::Shared, 3), &organs(3, 1, &tested), 0);
            assert!(drawn.iter().all(|d| d.support.scan != d.query.scan && d.support.scan < 3 && d.query.scan < 3));
            let classes: Vec<i32> = drawn.iter().flat_map(|d| d.classes.clone()).collect();
            for organ in 1..=3u8 {
                assert_ne!(classes.contains(&i32::from(organ)), tested.contains(&organ), "{organ} of {tested:?}");
            }
        }
    }
    let alone = draws(&scans, &config(), &organs(1, 1, &[3]), 0);
    assert!(alone.iter().all(|d| d.support.scan == 0 && d.query.scan == 0));
}

#[test]
fn a_query_slice_lies_at_the_height_of_the_support_slice_within_the_organ() {
    let class = |slices: Range<usize>, slabs: Vec<usize>| Class { label: 1, slices, slabs };
    let target = |slabs: &[usize]| class(2..8, slabs.to_vec());
    let every: Vec<usize> = (2..8).collect();
    // The middles of three slices are at 1/6, 1/2, 5/6; those of six slices at 1/12, 3/12, ...
    for (z, slabs, expected) in
        [(10, &every[..], 2), (11, &every, 4), (12, &every, 6), (11, &[2, 6], 6), (12, &[2, 3], 3)]
    {
        assert_eq!(at_same_height(&class(10..13, vec![10, 11, 12]), z, &target(slabs)), expected, "{z} {slabs:?}");
    }
    // Over a range of its own the same organ is matched slice by slice.
    assert!(every.iter().all(|&z| at_same_height(&target(&every), z, &target(&every)) == z));
}

#[test]
fn scans_without_candidates_are_passed_over() {
    let class = Class { label: 5, slices: 0..2, slabs: vec![0] };
    for depth_vox in [0, 2] {
        let config = Config { depth_vox, ..config() };
        let only = |classes: [Vec<Class>; 3]| Candidates {
            source: Source::Supervoxels,
            classes: classes.into(),
            depth_vox: vec![2; 3],
            partners: vec![],
        };
        for step in 0..20 {
            let mut rng = rng::stream(0, "episode", step);
            let drawn = draw(&mut rng, &only([vec![], vec![class.clone()], vec![]]), &config).unwrap();
            assert_eq!(drawn.support, Slab { scan: 1, slices: 0..2 });
            assert_eq!(draw(&mut rng, &only([vec![], vec![], vec![]]), &config), None);
        }
    }
}
