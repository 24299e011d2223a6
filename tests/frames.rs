//! Stacks of slices in any direction: what a support shows is found in a query whatever way both lie in the scanner, and results lie
//! on the query's own grid.

use ndarray::{Array3, Axis};
use ssl3d::commands::scans::ScanFile;
use ssl3d::config::{self, Config};
use ssl3d::inference::{Segmenter, SliceRanges, Support, query_doubts};
use ssl3d::metrics;
use ssl3d::network::Network;
use ssl3d::preprocessing::Annotation;
use ssl3d::synthesis::phantom;
use ssl3d::volume::frame::Frame;
use ssl3d::volume::{ClassMap, Geometry, Image, LabelMap, Volume, nifti};
use std::path::Path;
use std::sync::LazyLock;

/// The liver, which a network of random weights finds, too.
const CLASSES: [i32; 1] = [1];

/// Support and query: abdomens on slices 15 mm apart.
static SUBJECTS: LazyLock<[(Image, LabelMap); 2]> = LazyLock::new(|| {
    let cohort = phantom::Config { subjects: 2, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 7 };
    [0, 1].map(|index| phantom::subject(&cohort, index))
});

fn recipe() -> Config {
    let set = [
        "preprocessing.size_vox=[8, 32, 32]",
        "features.f_maps=4",
        "features.output_channels=8",
        "prototypes.test_window={ size = [1, 2, 2] }",
        "inference.single_component.enabled=true",
        "inference.random_walker.enabled=true",
    ];
    config::load(None, &set.map(str::to_owned)).unwrap()
}

/// The same patient, turned in the scanner by so many degrees about an axis (0 is R, 1 A, 2 S).
fn turned<T: Clone>(volume: &Volume<T>, axis: usize, degrees: f64) -> Volume<T> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut volume = volume.clone();
    let affine = &mut volume.geometry.affine_mm;
    let [u, v] = [affine[a], affine[b]];
    affine[a] = [0, 1, 2, 3].map(|column| cos * u[column] - sin * v[column]);
    affine[b] = [0, 1, 2, 3].map(|column| sin * u[column] + cos * v[column]);
    volume
}

/// The voxels in another order, where they are: stored axes from `order`, some of them backwards.
fn stored<T: Clone>(volume: &Volume<T>, order: [usize; 3], backwards: [bool; 3]) -> Volume<T> {
    let mut view = volume.voxels.view().permuted_axes(order);
    let (from, mut affine_mm) = (&volume.geometry.affine_mm, volume.geometry.affine_mm);
    for (axis, source) in order.into_iter().enumerate() {
        let last = (volume.geometry.shape_vox[source] - 1) as f64;
        let sign = if backwards[axis] { -1.0 } else { 1.0 };
        for row in 0..3 {
            affine_mm[row][2 - axis] = sign * from[row][2 - source];
            affine_mm[row][3] += if backwards[axis] { last * from[row][2 - source] } else { 0.0 };
        }
        if backwards[axis] {
            view.invert_axis(Axis(axis));
        }
    }
    let shape_vox = order.map(|source| volume.geometry.shape_vox[source]);
    Volume { voxels: view.as_standard_layout().into_owned(), geometry: Geometry { shape_vox, affine_mm } }
}

struct Files {
    folder: tempfile::TempDir,
    config: Config,
    network: Network,
}

impl Files {
    fn new() -> Self {
        tch::set_num_threads(1); // libtorch sums in the order of its threads
        let config = recipe();
        let network = Network::new(&config.network(), tch::Device::Cpu, 3);
        Self { folder: tempfile::tempdir().unwrap(), config, network }
    }

    /// As files, read in this frame.
    fn read(&self, name: &str, (image, labels): (&Image, &LabelMap), frame: Option<&Frame>) -> (ScanFile, LabelMap) {
        let [at, label_at] = ["image", "label"].map(|kind| self.folder.path().join(format!("{name}_{kind}.nii.gz")));
        nifti::write_new(&at, image).unwrap();
        nifti::write_new(&label_at, labels).unwrap();
        let file = ScanFile::read(&at, frame, &self.config.preprocessing).unwrap();
        let labels = file.read_labels(&at, &label_at, false).unwrap();
        (file, labels)
    }

    /// Dice of the classes, as the files of result and truth have it, and the doubts; trained in `frame`.
    fn score(
        &self,
        support: (&Image, &LabelMap),
        query: (&Image, &LabelMap),
        frame: Option<&Frame>,
    ) -> (Vec<f64>, Vec<String>) {
        let (support, labels) = self.read("support", support, frame);
        let of_support = Frame::of(&support.scan.image.geometry);
        let (query, _) = self.read("query", query, Some(&of_support));
        let segmenter = Segmenter::new(&self.network, &self.config.inference, &self.config.supervoxels);
        let annotation = Annotation::new(labels, None);
        let fitted = segmenter.fit(&[Support { scan: &support.scan, annotation }], &ClassMap::new(CLASSES).unwrap());
        let found = fitted.segment(&query.scan, &SliceRanges::unknown());
        let path = self.folder.path().join("result.nii.gz");
        nifti::write_labels(&path, &found.labels, &query.native).unwrap();
        let raw = |path: &Path| nifti::read_labels(path).unwrap().0;
        let (result, truth) = (raw(&path), raw(&self.folder.path().join("query_label.nii.gz")));
        assert_eq!(result.geometry, truth.geometry);
        let dice = |&class: &i32| metrics::dice(result.voxels.view(), truth.voxels.view(), class).unwrap();
        (CLASSES.iter().map(dice).collect(), query_doubts(&query.scan, std::slice::from_ref(&support.scan)))
    }
}

#[test]
fn a_phantom_is_found_alike_however_it_is_turned() {
    let files = Files::new();
    let [(support, labels), (query, truth)] = &*SUBJECTS;
    let frame = Frame::of_cohort(&[support.geometry.clone(), query.geometry.clone()]).unwrap();
    let (upright, doubts) = files.score((support, labels), (query, truth), Some(&frame));
    assert!(upright[0] > 0.15, "{upright:?}");
    assert!(!doubts.iter().any(|text| text.contains("slices are")), "{doubts:?}");
    for axis in 0..3 {
        for degrees in (0..=60).step_by(5).map(f64::from) {
            // About S the axes within a slice are the next ones from 45 degrees on, for both alike.
            if axis == 2 && degrees > 40.0 {
                continue;
            }
            for off in [-2.0, 2.0] {
                let support = (&turned(support, axis, degrees), &turned(labels, axis, degrees));
                let query = (&turned(query, axis, degrees + off), &turned(truth, axis, degrees + off));
                let (found, _) = files.score(support, query, Some(&frame));
                let apart = found.iter().zip(&upright).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart < 0.01, "{degrees} and {off} degrees about {axis}: {found:?} {upright:?}");
            }
        }
    }
}

#[test]
fn within_a_slice_support_and_query_turn_together_across_the_switch() {
    let files = Files::new();
    let [(support, labels), (query, truth)] = &*SUBJECTS;
    let frame = Frame::of(&support.geometry);
    let alike = |degrees: f64| {
        let support = (&turned(support, 2, degrees), &turned(labels, 2, degrees));
        [-2.0, 2.0].map(|off| {
            let query = (&turned(query, 2, degrees + off), &turned(truth, 2, degrees + off));
            files.score(support, query, Some(&frame)).0
        })
    };
    for degrees in [44.0, 46.0, 50.0, 60.0] {
        let [before, after] = alike(degrees);
        assert_eq!(before, after, "{degrees}");
    }
}

#[test]
fn the_order_in_which_voxels_are_stored_changes_nothing() {
    let files = Files::new();
    let [(support, labels), (query, truth)] = &*SUBJECTS;
    let frame = Frame::of(&support.geometry);
    let (expected, _) = files.score((support, labels), (query, truth), Some(&frame));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for flips in 0..8 {
            let backwards = [0, 1, 2].map(|axis| flips >> axis & 1 == 1);
            let query = (&stored(query, order, backwards), &stored(truth, order, backwards));
            let (found, _) = files.score((support, labels), query, Some(&frame));
            assert_eq!(found, expected, "{order:?} {backwards:?}");
        }
    }
}

#[test]
fn a_stack_in_another_plane_is_cut_across_with_a_warning() {
    let files = Files::new();
    let [(support, labels), (query, truth)] = &*SUBJECTS;
    // The query again, of sagittal slices 18 mm apart: every third column.
    let sagittal = |voxels: &Array3<f32>| voxels.slice(ndarray::s![.., .., 1..;3]).to_owned();
    let mut geometry = query.geometry.clone();
    (geometry.shape_vox[2], geometry.affine_mm[0][3]) = (16, geometry.affine_mm[0][3] + 6.0);
    (0..3).for_each(|row| geometry.affine_mm[row][0] *= 3.0);
    // And of thinner ones along the body: each slice twice.
    geometry.shape_vox[0] *= 2;
    (0..3).for_each(|row| geometry.affine_mm[row][2] /= 2.0);
    let twice = |voxels: Array3<f32>| {
        let (depth, height, width) = voxels.dim();
        Array3::from_shape_fn((2 * depth, height, width), |(z, y, x)| voxels[[z / 2, y, x]])
    };
    let image = Volume { voxels: twice(sagittal(&query.voxels)), geometry: geometry.clone() };
    let truth = twice(sagittal(&truth.voxels.mapv(|label| label as f32))).mapv(|label| label as i32);
    let truth = Volume { voxels: truth, geometry };
    let (found, doubts) = files.score((support, labels), (&image, &truth), None);
    assert!(doubts[0].contains("its slices are sagittal and those of the support axial"), "{doubts:?}");
    assert!(found[0] > 0.1, "the liver is found all the same: {found:?}");
}
