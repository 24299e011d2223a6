//! Volumes and masks at the edge of what can be: one slice, one voxel, one value, no number, nothing annotated, everything
//! annotated. All of them go through every step, or are refused in a line.

mod program;

use ndarray::Array3;
use program::{command, said, succeed};
use ssl3d::config::{self, Config};
use ssl3d::supervoxels::{Method, generate};
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::volume::nifti::{read_labels, write_new};
use ssl3d::volume::{Geometry, Image, LabelMap, Volume};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

const SIZES: [[usize; 3]; 7] = [[1, 1, 1], [1, 40, 40], [30, 1, 1], [2, 2, 2], [3, 50, 2], [9, 9, 9], [40, 12, 12]];

/// What a voxel of a strange scan holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Content {
    Grain,
    Constant,
    Holes,
    NoNumber,
    Huge,
}

const CONTENTS: [Content; 5] = [Content::Grain, Content::Constant, Content::Holes, Content::NoNumber, Content::Huge];

fn scan(size_vox: [usize; 3], content: Content) -> Image {
    let [z, y, x] = size_vox;
    let voxels = Array3::from_shape_fn((z, y, x), |(z, y, x)| {
        let grain = ((z * 7 + y * 13 + x * 29) % 17) as f32 + (x / 8) as f32 * 10.0;
        match content {
            Content::Grain => grain,
            Content::Constant => 5.0,
            Content::Holes if (z + y + x) % 5 == 0 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][x % 3],
            Content::Holes => grain,
            Content::NoNumber => f32::NAN,
            Content::Huge => (grain - 8.0) * 1e37,
        }
    });
    Volume { geometry: Geometry::with_spacing(size_vox, [4.0, 1.5, 1.5]), voxels }
}

fn tiny() -> Config {
    let set = ["supervoxels.slic.k=24", "supervoxels.felzenszwalb.min_size_fraction=1e-5"];
    config::load(None, &set.map(str::to_owned)).unwrap()
}

#[test]
fn regions_are_contiguous_however_many_are_asked_for_of_however_few_voxels() {
    for method in [Method::Slic, Method::Felzenszwalb, Method::Felzenszwalb2d] {
        for (size_vox, content) in SIZES.iter().flat_map(|&size| CONTENTS.map(|content| (size, content))) {
            for (k, body_mask) in [(1, false), (24, true), (100_000, false), (100_000, true)] {
                let mut config = tiny().supervoxels;
                (config.method, config.body_mask, config.slic.k) = (method, body_mask, k);
                config.check().unwrap();
                let regions = generate(&scan(size_vox, content), &config);
                let found: BTreeSet<i32> = regions.iter().copied().filter(|&region| region != 0).collect();
                let what = format!("{method:?}, {size_vox:?}, {content:?}, k = {k}, body_mask = {body_mask}");
                assert_eq!(regions.shape(), size_vox, "{what}");
                assert!(found.iter().copied().eq(1..=found.len() as i32), "{what}: {found:?}");
                // Padding (NaN) is in no region.
                let is_padding = scan(size_vox, content).voxels.iter().all(|v| v.is_nan());
                assert!(body_mask || is_padding || !found.is_empty(), "{what}");
            }
        }
    }
}

const SET: &str = "--set preprocessing.size_vox=[8,32,32] --set features.f_maps=4 --set features.levels=2 --set \
                   features.pooling=[[1,2,2]] --set prototypes.train_window={size=[2,4,4]} --set \
                   prototypes.test_window={size=[2,4,4]} --set similarity.competition=joint --set split.folds=2 --set \
                   episode.min_size_vox=1 --set training.epochs=1 --set training.iterations_per_epoch=12 --set \
                   augment.elastic.control_points=[5,5,5] --set supervoxels.slic.k=24";

/// Four ordinary scans and one of each strange kind.
fn dataset(folder: &Path) -> Vec<String> {
    let cohort = phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(folder, &cohort).unwrap();
    let mut ids = Vec::new();
    for (number, &size_vox) in SIZES.iter().enumerate() {
        let content = CONTENTS[number % CONTENTS.len()];
        ids.push(format!("odd{number}"));
        write_new(&folder.join(format!("image_odd{number}.nii.gz")), &scan(size_vox, content)).unwrap();
    }
    ids
}

/// The weights, and the ids of the strange scans.
fn trained(folder: &Path) -> (PathBuf, PathBuf, Vec<String>) {
    let (data, run) = (folder.join("data"), folder.join("run"));
    let ids = dataset(&data);
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
    let train = format!("train --config {{}} --data {{}} --run {{}} --fold none --device cpu {SET}");
    succeed(&train, &[&paper, &data, &run]);
    (data, run.join("all_scans/weights.safetensors"), ids)
}

#[test]
fn strange_scans_are_trained_on_and_segmented_and_strange_masks_used_or_refused() {
    let folder = tempdir().unwrap();
    let (data, weights, ids) = trained(folder.path());
    let image = |id: &str| data.join(format!("image_{id}.nii.gz"));
    let call = |support: &Path, label: &Path, query: &Path, out: &Path| {
        let segment = "segment --quiet --weights {} --support {} --support-label {} --query {} --out {} --device cpu";
        let output = command(segment, &[&weights, support, label, query, out]).output().unwrap();
        (output.status.code(), said(&output)[1].clone())
    };
    let answer = |out: &Path, id: &str| read_labels(&out.join(format!("image_{id}_seg.nii.gz"))).unwrap().0;

    // As queries.
    let (label, out) = (data.join("label_1.nii.gz"), folder.path().join("queries"));
    for (id, size_vox) in ids.iter().zip(SIZES) {
        let (code, text) = call(&image("1"), &label, &image(id), &out);
        assert_eq!(code, Some(0), "{id}: {text}");
        assert_eq!(answer(&out, id).geometry.shape_vox, size_vox, "{id}");
    }

    // As supports, annotated in the first half of their voxels.
    for (id, size_vox) in ids.iter().zip(SIZES) {
        let [z, y, x] = size_vox;
        let half = Array3::from_shape_fn((z, y, x), |(i, j, k)| i32::from(2 * ((i * y + j) * x + k) < z * y * x));
        let (label, out) = (folder.path().join(format!("half_{id}.nii.gz")), folder.path().join(format!("by_{id}")));
        let geometry = Geometry::with_spacing(size_vox, [4.0, 1.5, 1.5]);
        write_new(&label, &Volume { voxels: half, geometry }).unwrap();
        let (code, text) = call(&image(id), &label, &image("2"), &out);
        match code {
            Some(0) => assert_eq!(answer(&out, "2").geometry.shape_vox, [12, 48, 48], "{id}"),
            _ => assert!(code == Some(1) && one_line(&text), "{id}: {text}"),
        }
    }

    // Masks of everything, of one voxel, and of nothing.
    let (truth, _) = read_labels(&label).unwrap();
    let masked = |name: &str, mask: &dyn Fn(usize) -> i32| {
        let mut count = 0;
        let voxels = truth.voxels.mapv(|_| (mask(count), count += 1).0);
        let path = folder.path().join(name);
        write_new(&path, &LabelMap { voxels, geometry: truth.geometry.clone() }).unwrap();
        path
    };
    for (name, mask, found) in [
        ("full.nii.gz", &(|_| 1) as &dyn Fn(usize) -> i32, true),
        ("one.nii.gz", &|voxel| i32::from(voxel == 12 * 48 * 24), true),
        ("empty.nii.gz", &|_| 0, false),
    ] {
        let (path, out) = (masked(name, mask), folder.path().join(format!("by {name}")));
        let (code, text) = call(&image("1"), &path, &image("2"), &out);
        if found && code == Some(0) {
            let labels: BTreeSet<i32> = answer(&out, "2").voxels.iter().copied().collect();
            assert!(labels.is_subset(&[0, 1].into()), "{name}: {labels:?}");
        } else {
            assert!(code == Some(1) && one_line(&text) && text.contains(name), "{name}: {text}");
            let left = fs::read_dir(&out).map_or(0, |folder| folder.count());
            assert_eq!(left, 0, "{name}: {text}");
            println!("{name}: {text}");
        }
    }
}

/// One fault and nothing else but warnings.
fn one_line(text: &str) -> bool {
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("warning: ")).collect();
    matches!(rest[..], [fault] if fault.starts_with("ssl3d: ") && fault.contains("expected") && fault.contains("found"))
}
