//! The weights that come with the program, and what is done without any others.

mod program;

use program::{command, said, succeed};
use ssl3d::metrics;
use ssl3d::pretrained::Weights;
use ssl3d::synthesis::phantom::{self, write_cohort};
use ssl3d::volume::nifti::read_labels;
use std::fs;
use std::path::Path;

const FILE: &str = "src/pretrained/generalist.safetensors";
/// BLAKE3 of the file; docs/model-card.md names it, too.
const DIGEST: &str = "fe80b1f3e1390df9eae33ae6f231e9ab96991e19522ede0bbb4279e4bacaf025";
const MOST_BYTES: u64 = 8_000_000;
const COHORT: phantom::Config =
    phantom::Config { subjects: 3, size_vox: [24, 96, 96], spacing_mm: [9.0, 3.4, 3.4], seed: 11 };

#[test]
fn they_are_those_that_were_measured_and_have_seen_no_scan() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(FILE);
    assert!(fs::metadata(&path).unwrap().len() <= MOST_BYTES);
    let (file, compiled_in) = (Weights::read(&path).unwrap(), Weights::generalist());
    assert_eq!([&file.digest, &compiled_in.digest], [DIGEST, DIGEST]);
    assert!(fs::read_to_string(root.join("docs/model-card.md")).unwrap().contains(DIGEST));
    assert!(file.provenance.trained_on.is_empty());
    let config = file.config(&[]).unwrap();
    assert_eq!(config.inference.templates, 0);
    let given = ssl3d::config::load(Some(&root.join("configs/generalist.toml")), &[]).unwrap();
    assert_eq!(config.changes_since(&given), Vec::<String>::new());
    assert!(file.fit(&ssl3d::config::load(Some(&root.join("configs/cpu.toml")), &[]).unwrap()).unwrap());
}

#[test]
fn damaged_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let message = Weights::read(&path).err().expect("refused").to_string();
    assert!(message.contains("the bytes that ssl3d wrote"), "{message}");
}

#[test]
fn a_first_segmentation_needs_no_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_cohort(&data, &COHORT).unwrap();
    let [image, label, query, out] = ["data/image_1.nii.gz", "data/label_1.nii.gz", "data/image_2.nii.gz", "out"]
        .map(|name| folder.path().join(name));
    let call = "segment --support {} --support-label {} --query {} --out {} --device cpu";
    let [_, told] = succeed(call, &[&image, &label, &query, &out]);
    assert!(told.contains("no --weights: the network that comes with ssl3d"), "{told}");
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["queries"]["image_2"]["origin"]["weights_digest"], DIGEST);
    let (found, _) = read_labels(&out.join("image_2_seg.nii.gz")).unwrap();
    let (truth, _) = read_labels(&data.join("label_2.nii.gz")).unwrap();
    let dices: Vec<f64> = phantom::CLASSES
        .iter()
        .filter_map(|&(_, value)| metrics::dice(found.voxels.view(), truth.voxels.view(), value))
        .collect();
    let mean = dices.iter().sum::<f64>() / dices.len() as f64;
    println!("mean Dice without training: {mean:.3} {dices:?}");
    assert!(mean > 0.7, "{mean} {dices:?}");
}

#[test]
fn training_begins_with_them_or_from_scratch_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    write_cohort(&data, &phantom::Config { size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], ..COHORT }).unwrap();
    let small = "--fold none --device cpu --set preprocessing.size_vox=[8,32,32] --set episode.depth_vox=4 --set training.epochs=1 \
                 --set training.iterations_per_epoch=2 --set inference.templates=0";
    let run = |name: &str| folder.path().join(name);
    let [_, told] = succeed(&format!("train --data {{}} --run {{}} {small}"), &[&data, &run("from_it")]);
    assert!(told.contains("beginning with the weights that come with ssl3d"), "{told}");
    let [_, told] = succeed(&format!("train --data {{}} --run {{}} --from scratch {small}"), &[&data, &run("scratch")]);
    assert!(!told.contains("beginning with"), "{told}");
    // Limited to a time, and going on as it began.
    let short = small.replace("--set training.epochs=1 ", "--minutes 0.001 ");
    let short = format!("train --data {{}} --run {{}} {short}");
    succeed(&short, &[&data, &run("short")]);
    let plan = fs::read_to_string(run("short/plan.toml")).unwrap();
    assert!(plan.contains("# A step takes") && plan.contains("epochs = 1\n"), "{plan}");
    let [_, told] = succeed(&short, &[&data, &run("short")]);
    assert!(told.contains("finished already"), "{told}");
    // Another network cannot have them: the plan says so, and a configuration is refused.
    let other = format!("train --data {{}} --run {{}} {small} --set features.f_maps=4");
    let [_, told] = succeed(&other, &[&data, &run("other")]);
    assert!(!told.contains("beginning with"), "{told}");
    assert!(fs::read_to_string(run("other/plan.toml")).unwrap().contains("are of other [features]"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cpu.toml");
    let refused = command(&format!("{other} --config {{}}"), &[&data, &run("refused"), &config]).output().unwrap();
    let [_, told] = said(&refused);
    assert!(!refused.status.success() && told.contains("--from scratch"), "{told}");
}

#[test]
fn generated_anatomies_need_no_data_and_everything_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/generalist.toml");
    let run = folder.path().join("run");
    let small = "--device cpu --set preprocessing.size_vox=[8,32,32] --set episode.depth_vox=4 --set features.f_maps=4 \
                 --set training.epochs=1 --set training.iterations_per_epoch=2 --set training.validation_episodes=2";
    let [_, told] = succeed(&format!("train --config {{}} --run {{}} {small}"), &[&config, &run]);
    assert!(told.contains("training on generated anatomies"), "{told}");
    let weights = run.join("all_scans/weights.safetensors");
    let [whole, half] =
        [run.join("all_scans/checkpoints/last.safetensors"), weights].map(|path| fs::metadata(path).unwrap().len());
    assert!(4 * half < whole, "half precision, without moments: {half} of {whole}");
    let output = command("train --run {}", &[&folder.path().join("none")]).output().unwrap();
    let [_, told] = said(&output);
    assert!(output.status.code() == Some(2) && told.contains("--data: expected a folder of scans"), "{told}");
}
