//! Generated abdomens for `ssl3d demo` and for tests: an anatomy, a deformation of each subject, and the effects of a
//! scanner: thick slices, a bias field, noise. The images resemble fat-suppressed T2; none is of a patient.

use super::Point;
use super::abdomen::Anatomy;
use super::pose::turn;
use super::shape::dot;
use super::texture::Texture;
use crate::artifact;
use crate::error::{Error, Result};
use crate::rng;
use crate::volume::{Geometry, Image, LabelMap, Volume, nifti};
use ndarray::Array3;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use std::path::Path;

/// The organs and their label values.
pub const CLASSES: [(&str, i32); 4] = [("liver", 1), ("right_kidney", 2), ("left_kidney", 3), ("spleen", 4)];

/// Samples through the thickness of a slice; the voxel gets their mean and their majority label.
const SAMPLES: usize = 3;
const LABELS: usize = 5;

/// Settings of a cohort.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of subjects.
    pub subjects: usize,
    /// Number of voxels along z, y, x, 1 to 2048 each.
    pub size_vox: [usize; 3],
    /// Spacing along z, y, x in millimetres. The anatomy keeps its size (about 300 x 210 mm across), whatever the field
    /// of view.
    pub spacing_mm: [f64; 3],
    /// Seed of anatomies, deformations and noise.
    pub seed: u64,
}

impl Config {
    /// The grid of the demonstration: 32 slices of 128 x 128, 7.0 x 2.6 x 2.6 mm.
    pub fn demo(subjects: usize, seed: u64) -> Self {
        Self { subjects, size_vox: [32, 128, 128], spacing_mm: [7.0, 2.6, 2.6], seed }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let fault = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(format!("{key} of a generated cohort"), expected, found, "describe another cohort"))
        };
        if self.subjects == 0 {
            return fault("subjects", "at least 1", "0".to_owned());
        }
        if self.size_vox.iter().any(|&n| !(1..=2048).contains(&n)) {
            return fault("size_vox", "three sizes from 1 to 2048", format!("{:?}", self.size_vox));
        }
        if self.spacing_mm.iter().any(|&mm| !(mm.is_finite() && mm > 0.0)) {
            return fault("spacing_mm", "three positive lengths", format!("{:?}", self.spacing_mm));
        }
        Ok(())
    }
}

/// Writes `image_{id}.nii.gz` and `label_{id}.nii.gz` for the ids 1, 2, ..., `subjects`.
///
/// # Errors
/// The configuration is not valid, or the folder cannot be written.
pub fn write_cohort(folder: &Path, config: &Config) -> Result<()> {
    config.check()?;
    artifact::create_folder(folder)?;
    for index in 0..config.subjects {
        let (image, labels) = subject(config, index);
        nifti::write_new(&folder.join(format!("image_{}.nii.gz", index + 1)), &image)?;
        nifti::write_new(&folder.join(format!("label_{}.nii.gz", index + 1)), &labels)?;
    }
    Ok(())
}

/// The image and the labels of subject `index`, `[z, y, x]` in the canonical frame. The result does not depend on the
/// number of threads.
///
/// ```
/// use ssl3d::synthesis::phantom::{Config, subject};
/// let config = Config { subjects: 1, size_vox: [4, 16, 16], spacing_mm: [40.0, 20.0, 20.0], seed: 1 };
/// let (image, labels) = subject(&config, 0);
/// assert_eq!(image.voxels.dim(), (4, 16, 16));
/// assert_eq!(image.geometry, labels.geometry);
/// assert!(labels.voxels.iter().any(|&label| label == 1)); // the liver
/// ```
pub fn subject(config: &Config, index: usize) -> (Image, LabelMap) {
    let mut rng = rng::stream(config.seed, "phantom", index as u64);
    let anatomy = Anatomy::draw(&mut rng);
    let pose = Pose::draw(&mut rng);
    let bias = Texture::draw(&mut rng, 190.0);
    let gain = rng.random_range(700.0..1300.0);
    let sigma = rng.random_range(0.018..0.03);

    let geometry = centred(config);
    let [_, ny, nx] = config.size_vox;
    let mut voxels = Array3::zeros(config.size_vox);
    let mut labels = Array3::zeros(config.size_vox);
    let signal = voxels.as_slice_mut().expect("a new array is contiguous").par_chunks_exact_mut(ny * nx);
    let label = labels.as_slice_mut().expect("a new array is contiguous").par_chunks_exact_mut(ny * nx);
    signal.zip(label).enumerate().for_each(|(z, (signal, label))| {
        paint_slice(signal, label, z, nx, &geometry, &anatomy, &pose);
        blur_in_plane(signal, nx);
        let mut noise = rng::stream(config.seed, &format!("phantom noise {index}"), z as u64);
        for (i, s) in signal.iter_mut().enumerate() {
            let at_mm = position_mm(&geometry, [z as f32, (i / nx) as f32, (i % nx) as f32]);
            let shading = f32::exp(0.3 * bias.at(at_mm));
            // The magnitude of a complex signal with normal noise in both parts is Rician.
            let [real, imaginary] = rng::normal_pair(&mut noise).map(|n| sigma * n);
            *s = (gain * (*s * shading + real).hypot(imaginary)).round();
        }
    });
    (Volume { voxels, geometry: geometry.clone() }, Volume { voxels: labels, geometry })
}

/// Fills one slice: the mean signal of its samples, and the label that most samples carry.
fn paint_slice(
    signal: &mut [f32],
    label: &mut [i32],
    z: usize,
    nx: usize,
    geometry: &Geometry,
    anatomy: &Anatomy,
    pose: &Pose,
) {
    let depth = |sample: usize| (sample as f32 + 0.5) / SAMPLES as f32 - 0.5;
    for (i, (signal, label)) in signal.iter_mut().zip(label).enumerate() {
        let [y, x] = [(i / nx) as f32, (i % nx) as f32];
        let bend_mm = pose.bend(position_mm(geometry, [z as f32, y, x]));
        let mut sum = 0.0;
        let mut votes = [0; LABELS];
        for sample in 0..SAMPLES {
            let at_mm = position_mm(geometry, [z as f32 + depth(sample), y, x]);
            let p = pose.to_anatomy(at_mm, bend_mm);
            let tissue = anatomy.tissue_at(p);
            sum += anatomy.signal_at(tissue, p);
            votes[tissue.label() as usize] += 1;
        }
        *signal = sum / SAMPLES as f32;
        *label = (0..LABELS).find(|&l| 2 * votes[l] > SAMPLES).unwrap_or(0) as i32;
    }
}

/// The pose and deformation of one subject: rotation, scale, shift, and a smooth bend.
struct Pose {
    /// Rows map scanner to anatomy axes.
    matrix: [Point; 3],
    shift_mm: Point,
    wide: [Texture; 3],
    narrow: [Texture; 3],
}

impl Pose {
    fn draw(rng: &mut impl Rng) -> Self {
        let mut angle = |degrees: f32| rng.random_range(-degrees..degrees).to_radians();
        let rotation = turn([angle(6.0), angle(6.0), angle(9.0)]);
        let size = rng.random_range(0.88..1.06);
        let scale = [0, 1, 2].map(|_| 1.0 / (size * rng.random_range(0.94..1.06)));
        Self {
            matrix: [0, 1, 2].map(|row| rotation[row].map(|r| r * scale[row])),
            shift_mm: [13.0, 13.0, 17.0].map(|mm: f32| rng.random_range(-mm..mm)),
            wide: [(); 3].map(|()| Texture::draw(rng, 90.0)),
            narrow: [(); 3].map(|()| Texture::draw(rng, 28.0)),
        }
    }

    /// Smooth displacement in millimetres; smaller along z, where the slices are thick.
    fn bend(&self, at_mm: Point) -> Point {
        [0, 1, 2].map(|axis| {
            let [wide, narrow] = if axis == 2 { [7.0, 1.5] } else { [8.5, 3.0] };
            wide * self.wide[axis].at(at_mm) + narrow * self.narrow[axis].at(at_mm)
        })
    }

    fn to_anatomy(&self, at_mm: Point, bend_mm: Point) -> Point {
        let p = [0, 1, 2].map(|axis| at_mm[axis] - self.shift_mm[axis] + bend_mm[axis]);
        self.matrix.map(|row| dot(row, p))
    }
}

/// A grid with its middle at the scanner's origin.
fn centred(config: &Config) -> Geometry {
    let mut geometry = Geometry::with_spacing(config.size_vox, config.spacing_mm);
    for axis in 0..3 {
        let extent = (config.size_vox[2 - axis] - 1) as f64 * config.spacing_mm[2 - axis];
        geometry.affine_mm[axis][3] = -extent / 2.0;
    }
    geometry
}

/// Position x, y, z in millimetres of the (fractional) voxel z, y, x on an axis-aligned grid.
fn position_mm(geometry: &Geometry, zyx: [f32; 3]) -> Point {
    [0, 1, 2].map(|axis| {
        let row = &geometry.affine_mm[axis];
        zyx[2 - axis] * row[axis] as f32 + row[3] as f32
    })
}

/// Blurs a slice by the in-plane point spread: weights 1 2 1 along x, then along y; the rim stays as it is.
fn blur_in_plane(slice: &mut [f32], nx: usize) {
    let ny = slice.len() / nx;
    let lines = (0..ny).map(|y| (y * nx, 1, nx)).chain((0..nx).map(|x| (x, nx, ny)));
    for (start, step, length) in lines {
        let Some(mut previous) = slice.get(start).copied() else { continue };
        for i in 1..length.saturating_sub(1) {
            let at = start + i * step;
            let here = slice[at];
            slice[at] = 0.25 * previous + 0.5 * here + 0.25 * slice[at + step];
            previous = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Summary, dice};

    fn small(subjects: usize) -> Config {
        Config { subjects, size_vox: [16, 64, 64], spacing_mm: [14.0, 5.2, 5.2], seed: 1 }
    }

    fn centroid(labels: &LabelMap, label: i32) -> [f64; 3] {
        let voxels: Vec<_> = labels.voxels.indexed_iter().filter(|(_, l)| **l == label).map(|(at, _)| at).collect();
        let mean = |axis: fn(&(usize, usize, usize)) -> usize| {
            voxels.iter().map(|at| axis(at) as f64).sum::<f64>() / voxels.len() as f64
        };
        [mean(|at| at.0), mean(|at| at.1), mean(|at| at.2)]
    }

    #[test]
    fn a_subject_is_the_same_for_any_number_of_threads_and_unlike_the_next() {
        let config = small(2);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (image, labels) = subject(&config, 0);
        let (again, labels_again) = one.install(|| subject(&config, 0));
        assert!(image.voxels == again.voxels && labels.voxels == labels_again.voxels);
        assert!(labels.voxels != subject(&config, 1).1.voxels);
    }

    #[test]
    fn every_organ_is_on_its_side_and_of_a_plausible_size() {
        let config = small(6);
        for index in 0..config.subjects {
            let (image, labels) = subject(&config, index);
            for ((name, label), ml) in CLASSES.into_iter().zip([500.0..2200.0, 60.0..350.0, 60.0..350.0, 60.0..500.0]) {
                let volume_ml = crate::metrics::volume_ml(labels.voxels.view(), label, &labels.geometry);
                assert!(ml.contains(&volume_ml), "{name} of subject {index}: {volume_ml} ml");
            }
            let [liver, right, left, spleen] = [1, 2, 3, 4].map(|label| centroid(&labels, label));
            assert!(liver[2] > 32.0 && right[2] > left[2] && spleen[2] < 32.0, "the right side has high x");
            assert!(right[1] < liver[1] && right[0] < liver[0], "kidneys lie behind and below the liver");
            assert!(image.voxels.iter().all(|v| v.is_finite() && *v >= 0.0));
        }
    }

    #[test]
    fn copying_the_mask_of_another_subject_is_not_enough() {
        let config = small(8);
        let labels: Vec<LabelMap> = (0..config.subjects).map(|index| subject(&config, index).1).collect();
        let mut scores = Vec::new();
        for (i, support) in labels.iter().enumerate() {
            for query in labels.iter().enumerate().filter(|(j, _)| i != *j).map(|(_, query)| query) {
                scores.extend(CLASSES.iter().filter_map(|c| dice(support.voxels.view(), query.voxels.view(), c.1)));
            }
        }
        let floor = Summary::of(&scores).unwrap().mean;
        assert!((0.3..0.55).contains(&floor), "{floor}");
    }

    #[test]
    fn a_cohort_is_read_back_as_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let config = small(2);
        write_cohort(folder.path(), &config).unwrap();
        let (image, labels) = subject(&config, 1);
        let (read_image, _) = nifti::read_image(&folder.path().join("image_2.nii.gz")).unwrap();
        let (read_labels, _) = nifti::read_labels(&folder.path().join("label_2.nii.gz")).unwrap();
        assert!(read_image.voxels == image.voxels && read_labels.voxels == labels.voxels);
        assert!(read_labels.geometry.affine_mm[0][3] + 31.5 * 5.2 < 1e-3);
    }

    #[test]
    fn a_wrong_configuration_is_named() {
        let fault = Config { spacing_mm: [7.0, 0.0, 2.6], ..Config::demo(1, 0) }.check().unwrap_err();
        assert!(fault.to_string().starts_with("spacing_mm of a generated cohort: expected three"), "{fault}");
        assert!(Config { subjects: 0, ..Config::demo(1, 0) }.check().is_err());
        assert!(Config::demo(8, 0).check().is_ok());
    }
}
