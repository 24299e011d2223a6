use super::*;
use crate::supervoxels::{Method, felzenszwalb, slic};
use crate::volume::dataset;
use crate::volume::{Geometry, Volume};
use ndarray::Array3;
use std::collections::BTreeMap;
use std::time::SystemTime;

fn config() -> Config {
    let slic = slic::Config { k: 8, compactness: 0.1, iterations: 10, min_size_fraction: 0.25, tolerance_vox: 0.05 };
    let felzenszwalb = felzenszwalb::Config { scale: 1.0, min_size_fraction: 0.01, min_size_2d_vox: 10 };
    Config { method: Method::Slic, body_mask: false, clip_percentile: 100.0, slic, felzenszwalb }
}

/// Octants of a cube, brighter by `offset`; the lower left front one is the organ.
fn write_scan(folder: &Path, id: &str, offset: usize, with_label: bool) {
    let octant = |(z, y, x): (usize, usize, usize)| z / 4 * 4 + y / 8 * 2 + x / 8;
    let geometry = Geometry::with_spacing([8, 16, 16], [2.0, 1.0, 1.0]);
    let voxels = Array3::from_shape_fn((8, 16, 16), |at| (octant(at) * 30 + offset) as f32);
    let image = Volume { voxels, geometry: geometry.clone() };
    nifti::write_new(&folder.join(format!("image_{id}.nii.gz")), &image).unwrap();
    if with_label {
        let voxels = Array3::from_shape_fn((8, 16, 16), |at| i32::from(octant(at) == 0));
        nifti::write_new(&folder.join(format!("label_{id}.nii.gz")), &Volume { voxels, geometry }).unwrap();
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// The scans without their labels.
    fn unlabelled(&self) -> Dataset {
        let patterns = dataset::Config {
            image: "image_{id}.nii.gz".into(),
            label: String::new(),
            classes: [].into(),
            ignore: None,
            benchmark: String::new(),
        };
        dataset::open(self.folder.path(), &patterns).unwrap()
    }

    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for id in ["1", "2", "10"] {
            write_scan(place.folder.path(), id, 0, id != "10");
        }
        place
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("supervoxels")
    }

    fn run(&self, config: Config, score: bool, preview: bool) -> Summary {
        let classes = BTreeMap::from([("corner".to_owned(), 1)]);
        let patterns = dataset::Config {
            image: "image_{id}.nii.gz".into(),
            label: "label_{id}.nii.gz".into(),
            classes,
            ignore: None,
            benchmark: String::new(),
        };
        let data = dataset::open(self.folder.path(), &patterns).unwrap();
        compute(Task { config, data, out: self.out(), score, preview, memory_limit: None }).unwrap();
        serde_json::from_str(&std::fs::read_to_string(self.out().join("summary.json")).unwrap()).unwrap()
    }

    fn regions(&self, id: &str) -> PathBuf {
        scans::supervoxel_path(&self.out(), id)
    }

    fn written(&self, id: &str) -> SystemTime {
        std::fs::metadata(self.regions(id)).unwrap().modified().unwrap()
    }
}

#[test]
fn octants_become_eight_regions_on_the_scans_own_grid() {
    let place = Place::new();
    let summary = place.run(config(), true, true);
    assert_eq!(summary.scans.keys().collect::<Vec<_>>(), ["1", "10", "2"]);
    assert!(summary.scans.values().all(|entry| entry.sizes_vox == [256; 8]));
    let (regions, _) = nifti::read_labels(&place.regions("2")).unwrap();
    assert_eq!(regions.geometry.spacing_mm(), [2.0, 1.0, 1.0]);
    assert_eq!(summary.mean_quality.unwrap().best_region_dice["corner"], 1.0);
    assert!(summary.scans["10"].quality.is_none(), "it has no labels");
    assert!(place.out().join("10_preview.png").exists());
}

#[test]
fn what_is_up_to_date_is_left_alone_and_what_is_stale_is_redone() {
    let place = Place::new();
    let first = place.run(config(), false, false);
    let times = ["1", "2", "10"].map(|id| place.written(id));
    assert_eq!(place.run(config(), false, false), first);
    assert_eq!(["1", "2", "10"].map(|id| place.written(id)), times, "nothing was written again");

    write_scan(place.folder.path(), "1", 5, true); // the scan changes
    std::fs::write(place.regions("2"), b"damaged").unwrap();
    let second = place.run(config(), false, false);
    assert_ne!(second.scans["1"].input_digest, first.scans["1"].input_digest);
    assert_ne!(place.written("1"), times[0]);
    assert_eq!(digest_of_file(&place.regions("2")).unwrap(), first.scans["2"].output_digest, "the same bytes again");
    assert_eq!(place.written("10"), times[2]);

    let other = Config { slic: slic::Config { k: 1, ..config().slic }, ..config() };
    let third = place.run(other, false, false);
    assert!(third.scans.values().all(|entry| entry.regions == 1));
    assert!(place.written("10") > times[2]);
}

#[test]
fn scores_and_previews_come_later_without_computing_again() {
    let place = Place::new();
    place.run(config(), false, false);
    let time = place.written("1");
    let summary = place.run(config(), true, true);
    assert_eq!(place.written("1"), time);
    assert!(summary.scans["1"].quality.is_some() && place.out().join("1_preview.png").exists());
    let without = place.run(config(), false, false);
    assert_eq!(without, summary, "a run without scoring keeps the scores");
}

#[test]
fn an_interrupted_run_loses_only_the_scan_under_way() {
    let place = Place::new();
    let summary = place.run(config(), false, false);
    let mut partial = summary.clone();
    partial.scans.remove("2");
    partial.write(&place.out().join("summary.json")).unwrap();
    let (one, two) = (place.written("1"), place.written("2"));
    assert_eq!(place.run(config(), false, false), summary);
    assert_eq!(place.written("1"), one);
    assert_ne!(place.written("2"), two);
}

#[test]
fn the_table_names_scans_without_labels() {
    let place = Place::new();
    let summary = place.run(config(), true, false);
    let cases = ["1", "2", "10"].map(|id| Case {
        id: id.into(),
        image: PathBuf::new(),
        label: (id != "10").then(PathBuf::new),
    });
    let classes = BTreeMap::from([("corner".to_owned(), 1)]);
    let data = Dataset {
        folder: PathBuf::new(),
        cases: cases.into(),
        classes,
        ignore: None,
        named: true,
        notes: vec![],
        warnings: vec![],
    };
    let table = table(&summary, &data);
    assert_eq!(table.rows[0].cells, ["1", "8", "1.000", "1.000", "1.000", "0.000", "1.000", ""]);
    assert_eq!(table.rows[2].cells, ["10", "8", "-", "-", "-", "-", "-", "no labels"]);
    assert_eq!(table.rows[3].cells[..3], ["mean", "8.0", "1.000"]);
}

#[test]
fn a_faulty_file_is_named_and_the_others_are_kept() {
    let place = Place::new();
    std::fs::write(place.folder.path().join("image_2.nii.gz"), b"not a scan").unwrap();
    let data = place.unlabelled();
    let fault =
        compute(Task { config: config(), data, out: place.out(), score: false, preview: false, memory_limit: None })
            .unwrap_err();
    assert!(fault.to_string().contains("image_2.nii.gz"), "{fault}");
    assert!(read_entries(&place.out().join("summary.json")).contains_key("1"));
}

#[test]
fn a_scan_that_is_too_large_is_divided_on_blocks_which_the_summary_names() {
    assert_eq!(Method::Felzenszwalb.most_vox(), 330_382_098, "13 edges a voxel in 32 bits");
    let place = Place::new(); // 8 x 16 x 16 voxels of 2 x 1 x 1 mm
    let run = |name: &str, most_vox, memory_limit, preview| {
        let config = Config { method: Method::Felzenszwalb, ..config() };
        let out = place.folder.path().join(name);
        let task = Task { config, data: place.unlabelled(), out: out.clone(), score: false, preview, memory_limit };
        compute_within(task, most_vox).map_err(|fault| fault.to_string())?;
        let regions = nifti::read_labels(&scans::supervoxel_path(&out, "1")).unwrap().0.voxels;
        Ok((regions, read_entries(&out.join("summary.json"))))
    };
    let (whole, entries) = run("whole", 2048, None, false).unwrap();
    assert!(entries.values().all(|entry| entry.block_vox.is_none()));
    let summary = std::fs::read_to_string(place.folder.path().join("whole/summary.json")).unwrap();
    assert!(!summary.contains("block_vox"), "{summary}");
    let exact = run("exact", 2048, Some(2048 * Method::Felzenszwalb.bytes_per_vox()), false).unwrap();
    assert_eq!(exact, (whole.clone(), entries), "what fits is left as it is");

    for (name, most_vox, limit) in
        [("many", 2047, None), ("heavy", 2048, Some(2047 * Method::Felzenszwalb.bytes_per_vox()))]
    {
        let (regions, entries) = run(name, most_vox, limit, true).unwrap();
        assert!(entries.values().all(|entry| entry.block_vox == Some([1, 1, 2]) && entry.regions == 8), "{name}");
        assert_eq!(regions, whole, "octants are made of such blocks");
        assert!(place.folder.path().join(name).join("1_preview.png").exists());
    }
    let fault: String = run("none", 2048, Some(2048 * 12 - 1), false).unwrap_err();
    assert!(fault.contains(".nii.gz: expected a volume whose supervoxels can be written within"), "{fault}");
    assert!(!scans::supervoxel_path(&place.folder.path().join("none"), "1").exists());
}
