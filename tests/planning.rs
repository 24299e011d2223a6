//! `ssl3d plan`, and a training without a configuration.

mod program;

use ndarray::Array3;
use program::{command, said, succeed};
use ssl3d::config::{self, Config};
use ssl3d::prototypes::Window;
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::volume::{Geometry, Volume, nifti};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

fn cohort(folder: &Path) {
    let cohort = phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
    write_cohort(folder, &cohort).unwrap();
}

fn load(text: &str) -> Config {
    Config::from_toml(text, "the plan").unwrap()
}

#[test]
fn a_plan_gives_reasons_reads_no_label_and_is_always_the_same() {
    let folder = tempdir().unwrap();
    let [data, out] = ["data", "plan.toml"].map(|name| folder.path().join(name));
    cohort(&data);
    let [printed, _] = succeed("plan --data {} --for cpu -q", &[&data]);
    for part in ["# What ssl3d plan made of 4 scans", "size_vox = ", "# The network sees ", "folds = 2"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(printed.lines().all(|line| line.len() < 160), "{printed}");
    for number in 1..=4 {
        fs::remove_file(data.join(format!("label_{number}.nii.gz"))).unwrap();
    }
    let _ = succeed("plan --data {} --for cpu --out {} -q", &[&data, &out]);
    assert_eq!(fs::read_to_string(&out).unwrap(), printed);
    let refused = command("plan --data {} --for cpu --out {} -q", &[&data, &out]).output().unwrap();
    assert!(refused.status.code() == Some(1) && said(&refused)[1].contains("--force"), "{:?}", said(&refused));

    let config = load(&printed);
    assert_eq!(config.split.folds, 2);
    let volume: usize = config.preprocessing.size_vox.iter().product();
    assert!(volume <= 24 * 96 * 96 && config.episode.depth_vox < config.preprocessing.size_vox[0]);

    let set = "--set data.image=image_{id}.nii --set similarity.alpha=15 --set data.classes={a=1} --set \
               prototypes.train_window.size=[1,2,3]";
    let mut call = command("plan --for cpu -q --data {}", &[&data]);
    let output = call.args(set.split_whitespace()).output().unwrap();
    let printed = said(&output)[0].clone();
    assert!(printed.contains("# Given with --set.\nimage = \"image_{id}.nii\""), "{printed}");
    let config = load(&printed);
    assert_eq!((config.similarity.alpha, config.data.classes["a"]), (15.0, 1));
    assert_eq!(config.prototypes.train_window, Window::Size([1, 2, 3]));

    let [printed, _] = succeed("plan --data {} --for cpu --minutes 0.001 -q", &[&data]);
    assert!(printed.contains("# A step takes "), "{printed}");
    assert_eq!(load(&printed).training.epochs, 1);
    let odd = command("plan --data {} --minutes 0", &[&data]).output().unwrap();
    assert_eq!(odd.status.code(), Some(2));
}

#[test]
fn sagittal_and_isotropic_cohorts_get_grids_of_their_own() {
    let folder = tempdir().unwrap();
    let size_of = |name: &str, shape_vox: [usize; 3], spacing_mm: [f64; 3]| {
        let data = folder.path().join(name);
        fs::create_dir_all(&data).unwrap();
        for number in 1..=2 {
            let voxels = Array3::from_shape_fn(shape_vox, |(z, y, x)| ((z * 7 + y * 5 + x * 3 + number) % 50) as f32);
            let volume = Volume { voxels, geometry: Geometry::with_spacing(shape_vox, spacing_mm) };
            nifti::write_new(&data.join(format!("image_{number}.nii.gz")), &volume).unwrap();
        }
        let [printed, _] = succeed("plan --data {} --for cpu -q", &[&data]);
        load(&printed).preprocessing.size_vox
    };
    // The same stack, of axial and of sagittal slices.
    let axial = size_of("axial", [20, 100, 100], [5.0, 1.0, 1.0]);
    let sagittal = size_of("sagittal", [100, 100, 20], [1.0, 1.0, 5.0]);
    assert_eq!(axial, sagittal);
    let [depth, height, width] = size_of("isotropic", [80, 80, 80], [1.0; 3]);
    assert!(height == width && depth > axial[0] && height < axial[1], "{depth} {height} {axial:?}");
}

#[test]
fn a_training_without_a_configuration_is_planned_and_goes_on_as_planned() {
    let folder = tempdir().unwrap();
    let [data, run] = ["data", "run"].map(|name| folder.path().join(name));
    cohort(&data);
    let small = "--set preprocessing.size_vox=[8,32,32] --set episode.depth_vox=4 --set features.f_maps=4 --set training.epochs=1 --set \
                 training.iterations_per_epoch=2 --set training.validation_episodes=1 --set inference.templates=2";
    let train = format!("train --data {{}} --run {{}} --fold 0 --device cpu {small}");
    let [_, said] = succeed(&train, &[&data, &run]);
    assert!(said.contains("no --config: planned from the scans") && said.contains("plan.toml"), "{said}");
    let planned = config::load(Some(&run.join("plan.toml")), &[]).unwrap();
    assert_eq!(planned.split.folds, 2);
    let [_, said] = succeed(&train, &[&data, &run]);
    assert!(said.contains("finished already"), "{said}");
}

#[test]
fn the_plan_for_chaos_is_the_recipe() {
    let Some(data) = std::env::var_os("SSL3D_CHAOS_DIR") else {
        return println!("SSL3D_CHAOS_DIR is not set: no real scans, nothing checked");
    };
    let [printed, _] = succeed("plan --data {} --for cpu -q", &[Path::new(&data)]);
    let recipe = config::load(Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cpu.toml")), &[]).unwrap();
    let planned = Config { name: recipe.name.clone(), ..load(&printed) };
    assert_eq!(planned.changes_since(&recipe), Vec::<String>::new());
}
