//! `ssl3d segment` on what people have: folders and patterns, DICOM slices, names, pictures and tables, labels that do not belong.
//! The network is not trained: what it finds does not matter here.

mod challenge;
mod program;
mod scanner;

use challenge::zip_folder;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use ndarray::s;
use program::{command, said, succeed};
use scanner::{AXIAL, PLAIN, Place, put, write_changed, write_series};
use ssl3d::synthesis::phantom::{self, subject, write_cohort};
use ssl3d::volume::nifti::{read_image, read_labels, write_image, write_new};
use ssl3d::volume::{LabelMap, Volume};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const COHORT: phantom::Config =
    phantom::Config { subjects: 4, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };

const SET: &str = "--set preprocessing.size_vox=[8,32,32] --set features.f_maps=4 --set features.levels=2 --set \
                   features.pooling=[[1,2,2]] --set prototypes.test_window={size=[2,2,2]} --set \
                   similarity.competition=joint --set supervision.source=none --set split.folds=2";

/// A dataset of four scans with names for its labels, and weights.
struct Bench {
    folder: TempDir,
    data: PathBuf,
    weights: PathBuf,
}

impl Bench {
    fn new() -> Self {
        Self::with("")
    }

    /// With `more` for the training.
    fn with(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let [data, run] = ["data", "run"].map(|name| folder.path().join(name));
        write_cohort(&data, &COHORT).unwrap();
        let names = r#"{"classes": {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}}"#;
        fs::write(data.join("dataset.json"), names).unwrap();
        let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/paper.toml");
        let train = format!("train --config {{}} --data {{}} --run {{}} --fold none --device cpu {SET} {more}");
        succeed(&train, &[&paper, &data, &run]);
        Self { weights: run.join("all_scans/weights.safetensors"), data, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From the support with scan 1's image and `label`; what was said on stderr.
    fn segment(&self, label: &Path, query: &Path, out: &str, more: &str) -> String {
        let call = format!(
            "segment --weights {{}} --support {{}} --support-label {{}} --query {{}} --out {{}} --device cpu {more}"
        );
        let image = self.data.join("image_1.nii.gz");
        succeed(&call, &[&self.weights, &image, label, query, &self.at(out)])[1].clone()
    }
}

fn lines(path: &Path) -> Vec<Vec<String>> {
    let mut csv = csv::Reader::from_path(path).unwrap();
    csv.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// The slices of a file, as it counts them, that show a label.
fn slices_of(path: &Path, label: i32) -> Vec<usize> {
    let (labels, _) = read_labels(path).unwrap();
    let shows = |z: &usize| labels.voxels.index_axis(ndarray::Axis(0), *z).iter().any(|l| *l == label);
    (0..labels.voxels.dim().0).filter(shows).collect()
}

#[test]
fn a_class_lies_in_the_slices_that_are_told_and_in_each_of_them() {
    let bench = Bench::new();
    let (label, query) = (bench.data.join("label_1.nii.gz"), bench.data.join("image_2.nii.gz"));
    bench.segment(&label, &query, "out", "");
    let without: Vec<Vec<usize>> = [1, 4].map(|value| slices_of(&bench.at("out/image_2_seg.nii.gz"), value)).into();
    bench.segment(&label, &query, "told", "--slices liver=4-6 --slices 4=0-10");
    let told: Vec<Vec<usize>> = [1, 4].map(|value| slices_of(&bench.at("told/image_2_seg.nii.gz"), value)).into();
    assert_eq!(told, [(4..=6).collect::<Vec<_>>(), (0..=10).collect()], "{without:?} without");
    assert!(without != told, "{without:?}");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(bench.at("told/summary.json")).unwrap()).unwrap();
    let origin = &summary["queries"]["image_2"]["origin"];
    assert_eq!(origin["slices"], serde_json::json!(["liver=4-6", "4=0-10"]));

    let image = bench.data.join("image_1.nii.gz");
    for (told, queries, part) in [
        ("liver=4-6", &bench.data, "--slices: expected one query, whose slices they are, found 4 queries"),
        ("liver=4-12", &query, "--slices: expected slices 0 to 11 of the query, found liver=4-12"),
        ("pancreas=4-6", &query, "found pancreas"),
    ] {
        let call = format!(
            "segment --weights {{}} --support {{}} --support-label {{}} --query {{}} --out {{}} --device cpu --slices {told}"
        );
        let output = command(&call, &[&bench.weights, &image, &label, queries, &bench.at("none")]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
        assert!(!bench.at("none/image_2_seg.nii.gz").exists());
    }
}

#[test]
fn a_folder_is_segmented_with_names_colours_volumes_and_pictures() {
    let bench = Bench::new();
    let label = bench.data.join("label_1.nii.gz");
    let report = bench.at("report.json");
    let more = format!("--classes spleen,1 --preview --largest-component --report {}", report.display());
    let said = bench.segment(&label, &bench.data, "out", &more);
    assert!(said.contains("liver: ") && said.contains("segmenting labels 1 (liver), 4 (spleen) of"), "{said}");

    let out = bench.at("out");
    let rows = lines(&out.join("volumes.csv"));
    assert_eq!(rows.len(), 8, "four scans, two classes");
    for row in &rows {
        let [query, label, name, voxels, ml, probability] = &row[..] else { panic!("{row:?}") };
        assert_eq!(name, if label == "1" { "liver" } else { "spleen" });
        let (found, _) = read_labels(&out.join(format!("{query}_seg.nii.gz"))).unwrap();
        let value: i32 = label.parse().unwrap();
        let count = found.voxels.iter().filter(|&&voxel| voxel == value).count();
        assert_eq!(voxels.parse::<usize>().unwrap(), count);
        let expected_ml = count as f64 * 15.0 * 36.0 / 1000.0;
        assert!((ml.parse::<f64>().unwrap() - expected_ml).abs() < 1e-2, "{row:?}");
        if count > 0 {
            assert!((0.0..=1.0).contains(&probability.parse::<f64>().unwrap()), "{row:?}");
            let of_class = found.voxels.mapv(|voxel| if voxel == value { voxel } else { 0 });
            let (_, components) = ssl3d::components::measured_components(of_class.view());
            assert_eq!(components.len(), 2, "{row:?}: the background and one component");
        }
        assert!(fs::read(out.join(format!("{query}_preview.png"))).unwrap().starts_with(b"\x89PNG"));
    }
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(fs::read(&report).unwrap(), fs::read(out.join("summary.json")).unwrap());
    assert_eq!(summary["classes"][1]["name"], "spleen");
    assert_eq!(summary["queries"].as_object().unwrap().len(), 4);
    let snap = fs::read_to_string(out.join("labels.txt")).unwrap();
    assert!(snap.contains("    4    86  180  233        1  1  1    \"spleen\"\n"), "{snap}");
    let slicer = fs::read_to_string(out.join("labels.ctbl")).unwrap();
    assert!(slicer.contains("\n1 liver 230 159 0 255\n"), "{slicer}");
}

#[test]
fn a_class_that_nothing_in_a_query_looks_like_is_named() {
    let bench = Bench::with("--set inference.templates=3");
    let label = bench.data.join("label_1.nii.gz");
    let scan = bench.data.join("image_2.nii.gz");
    let (mut image, native) = read_image(&scan).unwrap();
    for (at, value) in image.voxels.indexed_iter_mut() {
        *value = 100.0 + 0.1 * at.2 as f32; // a ramp, and nothing in it
    }
    let blank = bench.at("blank.nii.gz");
    write_image(&blank, &image.voxels, &native).unwrap();
    let sentence = "hardly anything in it looks like spleen (label 4)";
    let said = bench.segment(&label, &blank, "blank", "");
    assert!(said.contains(sentence), "{said}");
    let summary = fs::read_to_string(bench.at("blank/summary.json")).unwrap();
    assert!(summary.contains(sentence), "{summary}");
    // Without the scans of the training nobody knows how much there usually is.
    let said = bench.segment(&label, &blank, "alone", "--set inference.templates=0");
    assert!(!said.contains("hardly anything"), "{said}");
}

/// With every step of `configs/cpu.toml`: no voxel of such a query is confident, and all evidence is the same everywhere.
#[test]
fn a_query_without_contrast_has_no_labels() {
    let bench = Bench::with("--set inference.templates=2");
    let recipe = "--set inference.template_rounds=2 --set inference.self_training_rounds=2 --set inference.transport.strength=0.5 \
                  --set inference.spatial_prior.weight=0.5 --set inference.supervoxels.network_weight=0.3 --set \
                  inference.supervoxels.native_weight=0.5 --set inference.intensity.weight=2 --set \
                  inference.boundary_calibration.enabled=true --set inference.random_walker.enabled=true --set \
                  inference.single_component.enabled=true";
    let label = bench.data.join("label_1.nii.gz");
    let (mut image, native) = read_image(&bench.data.join("image_2.nii.gz")).unwrap();
    image.voxels.fill(100.0);
    let blank = bench.at("blank.nii.gz");
    write_image(&blank, &image.voxels, &native).unwrap();
    for (out, more) in [("plain", "--probabilities".to_owned()), ("recipe", format!("--probabilities {recipe}"))] {
        let said = bench.segment(&label, &blank, out, &more);
        assert!(said.contains("it has no contrast") && !said.contains("hardly anything"), "{said}");
        let (found, _) = read_labels(&bench.at(out).join("blank_seg.nii.gz")).unwrap();
        assert!(found.voxels.iter().all(|label| *label == 0), "{out}");
        let (probability, _) = read_image(&bench.at(out).join("blank_probability_1.nii.gz")).unwrap();
        assert!(probability.voxels.iter().all(|p| *p == 0.0), "{out}");
        assert!(lines(&bench.at(out).join("volumes.csv")).iter().all(|row| row[3] == "0"), "{out}");
    }
}

/// Also where constraints have changed the label: slices that a class may not leave, and components that are not the largest.
#[test]
fn the_label_of_a_voxel_is_the_class_of_its_highest_probability() {
    let bench = Bench::with("--set inference.templates=2");
    let label = bench.data.join("label_1.nii.gz");
    let query = bench.data.join("image_2.nii.gz");
    let boundary = "--set inference.boundary_calibration.enabled=true --set inference.random_walker.enabled=true";
    let mut changed = 0;
    for (out, more) in [
        ("plain", ""),
        ("one_vs_rest", "--set similarity.competition=one-vs-rest"),
        ("constrained", "--largest-component --slices liver=5-7 --slices spleen=0-11"),
        ("boundary", boundary),
    ] {
        let all = if out == "boundary" { " --largest-component --slices liver=5-7" } else { "" };
        bench.segment(&label, &query, out, &format!("--probabilities {more}{all}"));
        let at = |name: &str| bench.at(out).join(format!("image_2_{name}.nii.gz"));
        let (found, _) = read_labels(&at("seg")).unwrap();
        let probabilities =
            [1, 2, 3, 4].map(|value| read_image(&at(&format!("probability_{value}"))).unwrap().0.voxels);
        for (at, &label) in found.voxels.indexed_iter() {
            let p = [0, 1, 2, 3].map(|class| probabilities[class][at]);
            let highest = (0..4).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
            let background = 1.0 - p.iter().sum::<f32>();
            let rounding = 1e-5;
            assert!(background >= -rounding, "{out} {at:?}: {p:?}");
            match label {
                0 => assert!(p[highest] <= background + rounding, "{out} {at:?}: {p:?}"),
                _ => {
                    let own = p[label as usize - 1];
                    assert!(
                        own >= p[highest] - rounding && own >= background - rounding,
                        "{out} {at:?}: {label} of {p:?}"
                    );
                }
            }
        }
        let volumes = lines(&bench.at(out).join("volumes.csv"));
        changed += usize::from(out != "plain" && volumes != lines(&bench.at("plain").join("volumes.csv")));
    }
    assert_eq!(changed, 3, "each setting gives other labels");
}

/// The same scans with voxels of a mouse, of a rabbit and of an elephant, under every step that has lengths.
#[test]
fn the_unit_of_length_changes_nothing() {
    let bench = Bench::with("--set inference.templates=2");
    let of_unit = |unit: f64| {
        let at = |name: &str| bench.at(&format!("{unit}_{name}"));
        for name in ["image_1.nii.gz", "image_2.nii.gz"] {
            let (mut image, _) = read_image(&bench.data.join(name)).unwrap();
            image.geometry.affine_mm.iter_mut().take(3).flatten().for_each(|mm| *mm *= unit);
            write_new(&at(name), &image).unwrap();
        }
        let (mut labels, _) = read_labels(&bench.data.join("label_1.nii.gz")).unwrap();
        labels.geometry.affine_mm.iter_mut().take(3).flatten().for_each(|mm| *mm *= unit);
        write_new(&at("label_1.nii.gz"), &labels).unwrap();
        let [image, label, query] = ["image_1.nii.gz", "label_1.nii.gz", "image_2.nii.gz"].map(at);
        let steps = "boundary_calibration.enabled=true random_walker.enabled=true supervoxels.native_weight=0.5";
        let set: String = steps.split_whitespace().map(|step| format!(" --set inference.{step}")).collect();
        let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu";
        let said = succeed(&format!("{call}{set}"), &[&bench.weights, &image, &label, &query, &at("out")]);
        let found = read_labels(&at("out").join(format!("{unit}_image_2_seg.nii.gz"))).unwrap().0.voxels;
        (found, said[1].replace(&unit.to_string(), ""))
    };
    let (found, said) = of_unit(1.0);
    let labelled = found.iter().filter(|label| **label != 0).count();
    assert!(labelled > 100, "{labelled}");
    for unit in [1.0 / 40.0, 0.1, 10.0] {
        let (other, other_said) = of_unit(unit);
        let different = found.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert!(different * 20 <= labelled, "{unit}: {different} of {labelled} voxels");
        let warnings = |said: &str| said.matches("warning").count();
        assert_eq!(warnings(&other_said), warnings(&said), "{said}{other_said}");
    }
}

#[test]
fn a_negative_is_turned_with_a_word_and_gives_the_same_labels() {
    let bench = Bench::new();
    let (image, _) = read_image(&bench.data.join("image_2.nii.gz")).unwrap();
    let brightest = image.voxels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let negative = bench.at("negative.nii.gz");
    write_new(&negative, &Volume { voxels: image.voxels.mapv(|v| brightest - v), geometry: image.geometry }).unwrap();
    let label = bench.data.join("label_1.nii.gz");
    let plain = bench.segment(&label, &bench.data.join("image_2.nii.gz"), "plain", "");
    let turned = bench.segment(&label, &negative, "turned", "");
    assert!(!plain.contains("negative") && turned.contains("the air around the body is bright"), "{turned}");
    let labels = |path: &str| read_labels(&bench.at(path)).unwrap().0.voxels;
    let (plain, turned) = (labels("plain/image_2_seg.nii.gz"), labels("turned/negative_seg.nii.gz"));
    let labelled = plain.iter().filter(|label| **label != 0).count();
    let different = plain.iter().zip(&turned).filter(|(a, b)| a != b).count();
    assert!(labelled > 100 && different * 50 <= labelled, "{different} of {labelled} voxels");
}

/// The middle half of the slices, padded to the extent of the support: labels that registration carries along lie where they belong.
#[test]
fn labels_lie_in_place_in_a_query_that_shows_half_of_the_field() {
    let bench = Bench::new();
    let (image, _) = read_image(&bench.data.join("image_2.nii.gz")).unwrap();
    let (truth, _) = read_labels(&bench.data.join("label_2.nii.gz")).unwrap();
    let middle = s![3..9, .., ..];
    let mut geometry = image.geometry.clone();
    geometry.shape_vox[0] = 6;
    (0..3).for_each(|row| geometry.affine_mm[row][3] += 3.0 * geometry.affine_mm[row][2]);
    let part = bench.at("part.nii.gz");
    write_new(&part, &Volume { voxels: image.voxels.slice(middle).to_owned(), geometry }).unwrap();
    let registered = "--set inference.registration.enabled=true --set inference.registration.size_vox=[32,32,32]";
    bench.segment(&bench.data.join("label_1.nii.gz"), &part, "out", registered);
    let found = read_labels(&bench.at("out/part_seg.nii.gz")).unwrap().0.voxels;
    let truth = truth.voxels.slice(middle);
    assert_eq!(found.shape(), truth.shape());
    let dice = ssl3d::metrics::dice(found.view(), truth, 1).unwrap();
    assert!(dice > 0.75, "{dice}");
}

/// Of four queries one cannot be read; the other three are templates of each other.
#[test]
fn queries_may_help_each_other() {
    let bench = Bench::new();
    let label = bench.data.join("label_1.nii.gz");
    fs::create_dir(bench.at("queries")).unwrap();
    for name in ["image_2.nii.gz", "image_3.nii.gz", "image_4.nii.gz"] {
        fs::copy(bench.data.join(name), bench.at("queries").join(name)).unwrap();
    }
    let registered = "--set inference.registration.enabled=true --set inference.registration.size_vox=[32,32,32]";
    let of = |out: &str, name: &str| read_labels(&bench.at(out).join(name)).unwrap().0.voxels;
    let segment =
        |out: &str, more: &str| bench.segment(&label, &bench.at("queries"), out, &format!("{registered} {more}"));
    segment("alone", "");
    segment("together", "--together");
    segment("again", "--together");
    let mut changed = 0;
    for name in ["2", "3", "4"] {
        let file = format!("image_{name}_seg.nii.gz");
        let (truth, _) = read_labels(&bench.data.join(format!("label_{name}.nii.gz"))).unwrap();
        let [alone, together, again] = ["alone", "together", "again"].map(|out| of(out, &file));
        assert_eq!(together, again);
        changed += usize::from(alone != together);
        let [alone, together] =
            [alone, together].map(|found| ssl3d::metrics::dice(found.view(), truth.voxels.view(), 1));
        assert!(together > alone.map(|dice| dice - 0.05) && together > Some(0.7), "{alone:?} {together:?}");
    }
    assert_eq!(changed, 3);
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(bench.at("together/summary.json")).unwrap()).unwrap();
    let names = serde_json::json!(["image_2", "image_3", "image_4"]);
    assert_eq!(summary["queries"]["image_3"]["origin"]["together"], names);

    // One that cannot be read helps nobody, and stops nobody.
    fs::write(bench.at("queries/image_1.nii.gz"), "no scan").unwrap();
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --together";
    let image = bench.data.join("image_1.nii.gz");
    let said = |queries: &Path, out: &str| {
        let output = command(call, &[&bench.weights, &image, &label, queries, &bench.at(out)]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&bench.at("queries"), "odd").contains("image_1.nii.gz"));
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(bench.at("odd/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["queries"]["image_4"]["origin"]["together"], names);
    let one = said(&bench.data.join("image_2.nii.gz"), "one");
    assert!(one.contains("--together: expected at least two queries, found 1 query"), "{one}");
}

/// Outside of the round field of a CT: a value below the Hounsfield scale, NaN, or none at all.
#[test]
fn padding_changes_next_to_nothing() {
    let bench = Bench::new();
    let at = |name: &str| bench.at(name);
    // From 0 to 1000 of the phantom to Hounsfield units.
    let computed = |name: &str| {
        let (mut image, _) = read_image(&bench.data.join(name)).unwrap();
        image.voxels.mapv_inplace(|v| if v < 60.0 { -1000.0 + v / 10.0 } else { v / 4.0 - 50.0 });
        image
    };
    write_new(&at("support.nii.gz"), &computed("image_1.nii.gz")).unwrap();
    let query = computed("image_2.nii.gz");
    let (ny, nx) = (query.voxels.dim().1 as f64, query.voxels.dim().2 as f64);
    for (name, value) in [("air", None), ("value", Some(-3024.0)), ("nan", Some(f32::NAN))] {
        let mut padded = query.clone();
        for ((_, y, x), v) in padded.voxels.indexed_iter_mut() {
            let radius = ((2.0 * y as f64 + 1.0) / ny - 1.0).hypot((2.0 * x as f64 + 1.0) / nx - 1.0);
            if let (true, Some(value)) = (radius > 1.0, value) {
                *v = value;
            }
        }
        write_new(&at(&format!("{name}.nii.gz")), &padded).unwrap();
    }
    let set = "--set preprocessing.crop=body --set inference.supervoxels.native_weight=0.5 --set inference.intensity.weight=1.0";
    let call = "segment --weights {} --support {} --support-label {} --query {} {} {} --out {} --device cpu";
    let [air, value, nan] = ["air.nii.gz", "value.nii.gz", "nan.nii.gz"].map(at);
    let label = bench.data.join("label_1.nii.gz");
    let paths = [&*bench.weights, &*at("support.nii.gz"), &*label, &*air, &*value, &*nan, &*at("out")];
    let said = &succeed(&format!("{call} {set}"), &paths)[1];
    assert!(said.contains("-3024 lies below") && said.contains("NaN or infinite"), "{said}");
    let found = |name: &str| read_labels(&at(&format!("out/{name}_seg.nii.gz"))).unwrap().0.voxels;
    let expected = found("air");
    for name in ["value", "nan"] {
        let found = found(name);
        let both = found.iter().zip(&expected).filter(|(a, b)| **a != 0 && a == b).count();
        let labelled = |labels: &ndarray::Array3<i32>| labels.iter().filter(|label| **label != 0).count();
        let dice = 2.0 * both as f64 / (labelled(&found) + labelled(&expected)) as f64;
        assert!(dice > 0.8, "{name}: {dice}");
    }
    assert_eq!(found("value"), found("nan"));
}

#[test]
fn later_calls_add_to_the_tables_and_other_labels_want_another_folder() {
    let bench = Bench::new();
    let label = bench.data.join("label_1.nii.gz");
    let scan = |number: usize| bench.data.join(format!("image_{number}.nii.gz"));
    bench.segment(&label, &scan(2), "out", "");
    bench.segment(&label, &bench.data.join("image_[34].nii.gz"), "out", "--set similarity.alpha=10");
    let text = fs::read(bench.at("out/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let set = |query: &str| summary["queries"][query]["origin"]["set"].to_string();
    assert_eq!([set("image_2"), set("image_3")], ["[]", "[\"similarity.alpha=10\"]"], "each says how it came about");
    let queries =
        |out: &str| -> Vec<String> { lines(&bench.at(out).join("volumes.csv")).iter().map(|r| r[0].clone()).collect() };
    assert_eq!(queries("out").len(), 12);
    assert_eq!(queries("out")[11], "image_4");
    // What somebody has taken away is no longer listed.
    fs::remove_file(bench.at("out/image_3_seg.nii.gz")).unwrap();
    bench.segment(&label, &scan(1), "out", "");
    assert!(!queries("out").contains(&"image_3".to_owned()));
    let call =
        "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --quiet --classes 2";
    let paths = [&*bench.weights, &*scan(1), &*label, &*scan(3), &*bench.at("out")];
    let output = command(call, &paths).output().unwrap();
    let text = &said(&output)[1];
    assert!(text.contains("labels.txt: expected the labels of this call") && text.lines().count() == 1, "{text}");
    assert!(!bench.at("out/image_3_seg.nii.gz").exists());
}

#[test]
fn calls_side_by_side_lose_nothing_of_each_other() {
    let bench = Bench::new();
    let (label, scan) = (bench.data.join("label_1.nii.gz"), |number| bench.data.join(format!("image_{number}.nii.gz")));
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --quiet";
    let start =
        |number| command(call, &[&*bench.weights, &*scan(1), &*label, &*scan(number), &*bench.at("out")]).spawn();
    let calls = [2, 3, 4].map(|number| start(number).unwrap());
    for mut call in calls {
        assert!(call.wait().unwrap().success());
    }
    assert_eq!(lines(&bench.at("out/volumes.csv")).len(), 12);
}

#[test]
fn dicom_slices_are_a_query_and_the_result_lies_on_them() {
    let bench = Bench::new();
    let (image, _) = subject(&COHORT, 1);
    // Rows run backwards and columns to the left, as DICOM has them.
    let stored = image.voxels.slice(s![.., ..;-1, ..;-1]).mapv(|value| (value as i32).clamp(0, 4095));
    let place = Place { step: [0.0, 0.0, 15.0], spacing: [6.0, 6.0], ..AXIAL };
    write_series(&bench.at("patient/t2"), &stored, place, &PLAIN, |index| format!("{index:03}.dcm"));
    bench.segment(&bench.data.join("label_1.nii.gz"), &bench.at("patient"), "out", "");
    let (found, grid) = read_labels(&bench.at("out/t2_seg.nii.gz")).unwrap();
    assert_eq!(found.voxels.dim(), image.voxels.dim());
    assert_eq!(grid.geometry().spacing_mm(), [15.0, 6.0, 6.0]);
    // The last column lies at the patient's right: L = -20 + 47 * 6 mm, and the first row in front.
    let affine = grid.geometry().affine_mm;
    assert_eq!([affine[0][3], affine[1][3], affine[2][3]], [20.0 - 47.0 * 6.0, 30.0 - 47.0 * 6.0, 100.0]);
    // The same voxels as NIfTI give the same labels.
    let whole = Volume { voxels: image.voxels.mapv(|v| (v as i32).clamp(0, 4095) as f32), geometry: image.geometry };
    write_new(&bench.at("same.nii.gz"), &whole).unwrap();
    bench.segment(&bench.data.join("label_1.nii.gz"), &bench.at("same.nii.gz"), "out", "");
    assert_eq!(read_labels(&bench.at("out/same_seg.nii.gz")).unwrap().0.voxels, found.voxels);

    // Two series of a folder are two queries, out of an archive, too.
    let two = bench.at("two");
    for (name, series) in [("a", "1.2.1"), ("b", "1.2.2")] {
        let name = |index: usize| format!("{name}{index:03}.dcm");
        write_changed(&two, &stored, place, &PLAIN, name, |_, object| {
            put(object, tags::SERIES_INSTANCE_UID, VR::UI, series);
        });
    }
    zip_folder(&two, &bench.at("cd.zip"), None);
    for (query, out) in [(two.clone(), "from-folder"), (bench.at("cd.zip"), "from-archive")] {
        bench.segment(&bench.data.join("label_1.nii.gz"), &query, out, "");
        for name in ["two_1", "two_2"] {
            let labels = read_labels(&bench.at(out).join(format!("{name}_seg.nii.gz"))).unwrap().0;
            assert_eq!(labels.voxels, found.voxels, "{out} {name}");
        }
    }
    // One slice names the folder of its series.
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu";
    let [image, label] = ["image_1.nii.gz", "label_1.nii.gz"].map(|name| bench.data.join(name));
    let slice = two.join("a003.dcm");
    let output = command(call, &[&bench.weights, &image, &label, &slice, &bench.at("slice")]).output().unwrap();
    let expected = format!("one slice of a DICOM series; give the folder that holds it: --query {}", two.display());
    assert!(output.status.code() == Some(1) && said(&output)[1].contains(&expected), "{output:?}");
}

#[test]
fn files_may_be_called_anything_and_be_of_any_kind_and_one_that_fails_stops_no_other() {
    let bench = Bench::new();
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let queries = bench.at("queries");
    fs::create_dir(&queries).unwrap();
    let (scan, _) = read_image(&bench.data.join("image_2.nii.gz")).unwrap();
    write_new(&bench.at("plain.nii"), &scan).unwrap();
    // Plain data called .gz, and the other way round.
    fs::rename(bench.at("plain.nii"), queries.join("üb er.v2.nii.gz")).unwrap();
    fs::copy(bench.data.join("image_2.nii.gz"), queries.join("日本.NII")).unwrap();
    fs::copy(bench.data.join("image_2.nii.gz"), queries.join("two\nlines, \"quoted\".nii.gz")).unwrap();
    for name in ["nifti_pair.hdr", "nifti_pair.img", "nifti2_big_endian.nii.gz", "analyze.hdr", "analyze.img"] {
        fs::copy(fixture(name), queries.join(name)).unwrap();
    }
    fs::write(queries.join("broken\n1.nii"), "not a volume").unwrap();
    let call = "segment --weights {} --support {} --support-label {} --query {} --out {} --device cpu --quiet";
    let [image, label] = ["image_1.nii.gz", "label_1.nii.gz"].map(|name| bench.data.join(name));
    let out = bench.at("out");
    let output = command(call, &[&bench.weights, &image, &label, &queries, &out]).output().unwrap();
    let errors = &said(&output)[1];
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap();
    assert!(last.contains("failed: ") && last.contains("broken\\n1.nii"), "{errors}");
    assert!(errors.contains("analyze.hdr: ANALYZE does not say where left is"), "{errors}");
    let names =
        ["analyze", "nifti2_big_endian", "nifti_pair", "two\nlines, \"quoted\"", "üb er.v2", "日本"].map(str::to_owned);
    let rows = lines(&out.join("volumes.csv"));
    let listed: std::collections::BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, names.clone().into());
    for (name, query) in names.iter().zip(["analyze.img", "nifti2_big_endian.nii.gz", "nifti_pair.hdr"]) {
        let [found, theirs] = [out.join(format!("{name}_seg.nii.gz")), queries.join(query)];
        let [found, theirs] = [found, theirs].map(|path| read_image(&path).unwrap().0.geometry);
        assert_eq!(found, theirs, "{name}");
    }
    let [a, b] = [4, 5].map(|i| read_labels(&out.join(format!("{}_seg.nii.gz", names[i]))).unwrap().0.voxels);
    assert_eq!(a, b, "the same scan, stored in two ways");
}

#[test]
fn labels_and_queries_that_do_not_belong_are_pointed_out_with_numbers() {
    let bench = Bench::new();
    let (labels, _) = read_labels(&bench.data.join("label_1.nii.gz")).unwrap();
    let write = |name: &str, change: &dyn Fn(&mut LabelMap)| {
        let mut changed = labels.clone();
        change(&mut changed);
        write_new(&bench.at(name), &changed).unwrap();
        bench.at(name)
    };
    let query = bench.data.join("image_2.nii.gz");
    let said = bench.segment(&bench.data.join("label_1.nii.gz"), &query, "plain", "");
    // What an untrained network finds is doubted, but neither the label nor the scan.
    let of_result = ["hardly differs from what surrounds it", "times the volume that it has in the support"];
    let mut warnings = said.lines().filter(|line| line.starts_with("warning"));
    assert!(warnings.all(|line| of_result.iter().any(|text| line.contains(text))), "{said}");
    // A liver in the upper left corner of every slice, most of it in the air.
    let corner = write("corner.nii.gz", &|labels| {
        labels.voxels.fill(0);
        labels.voxels.slice_mut(s![.., ..14, ..14]).fill(1);
    });
    let said = bench.segment(&corner, &query, "corner", "");
    assert!(said.contains("corner.nii.gz: ") && said.contains("% of label 1 lies outside of the body"), "{said}");
    let full = write("full.nii.gz", &|labels| {
        labels.voxels.fill(1);
        labels.voxels.slice_mut(s![..2, .., ..]).fill(0);
    });
    let said = bench.segment(&full, &query, "full", "");
    assert!(said.contains("label 1 fills ") && said.contains("% of the body"), "{said}");

    let (scan, _) = read_image(&query).unwrap();
    let mut negative = scan.clone();
    let highest = scan.voxels.fold(0.0, |a: f32, b| a.max(*b));
    negative.voxels.mapv_inplace(|voxel| highest - voxel);
    negative.geometry = ssl3d::volume::Geometry::with_spacing([12, 48, 48], [15.0, 6.0, 2.0]);
    write_new(&bench.at("negative.nii.gz"), &negative).unwrap();
    let said = bench.segment(&bench.data.join("label_1.nii.gz"), &bench.at("negative.nii.gz"), "negative", "");
    assert!(said.contains("negative.nii.gz: its spacing (z y x) is 15.00 x 6.00 x 2.00 mm"), "{said}");
    assert!(said.contains("negative.nii.gz: its intensities are spread unlike the support's"), "{said}");
}
