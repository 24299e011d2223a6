//! Against TorchIO (`tests/data/torchio.safetensors`, written by `tests/data/make_golden.py`) and a naive twin.

use super::super::affine::Affine;
use super::super::elastic::Elastic;
use super::super::intensity::Gamma;
use super::super::{Params, apply};
use crate::rng;
use ndarray::{Array3, Axis};
use rand::RngExt;
use safetensors::SafeTensors;
use std::path::Path;

/// Tensors of TorchIO with its axes x y z.
struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torchio.safetensors");
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn numbers(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (tensor.shape().to_vec(), values.collect())
    }

    /// Three values x y z as z y x.
    fn triple(&self, name: &str) -> [f32; 3] {
        let (_, values) = self.numbers(name);
        [values[2], values[1], values[0]]
    }

    fn volume(&self, name: &str) -> Array3<f32> {
        let (shape, values) = self.numbers(name);
        let xyz = Array3::from_shape_vec((shape[0], shape[1], shape[2]), values).unwrap();
        xyz.reversed_axes().as_standard_layout().into_owned()
    }

    fn labels(&self, name: &str) -> Array3<u8> {
        self.volume(name).mapv(|v| v as u8)
    }

    /// Control points along our axes: TorchIO's x and y count towards Left and Posterior.
    fn elastic(&self, name: &str) -> Elastic {
        let (shape, values) = self.numbers(name);
        let [nx, ny, nz] = [shape[0], shape[1], shape[2]];
        let mut displacement_mm = Vec::new();
        for z in 0..nz {
            for y in (0..ny).rev() {
                for x in (0..nx).rev() {
                    let d = &values[((x * ny + y) * nz + z) * 3..][..3];
                    displacement_mm.push([d[2], -d[1], -d[0]]);
                }
            }
        }
        Elastic { control_points: [nz, ny, nx], displacement_mm }
    }
}

fn check_golden(golden: &Golden, name: &str, params: &Params) {
    let (image, labels) = (golden.volume("image"), golden.labels("label"));
    let spacing_mm = golden.triple("spacing_mm").map(f64::from);
    let (moved_image, moved_labels) = apply(params, &image, &labels, spacing_mm);
    let range = image.iter().fold(0.0f32, |m, v| m.max(*v)) - image.iter().fold(0.0f32, |m, v| m.min(*v));
    let expected = golden.volume(&format!("{name}.image"));
    let off = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-4 * range;
    // Everywhere, border included: ten times closer than asked.
    assert_eq!(moved_image.iter().zip(&expected).filter(|&p| off(p)).count(), 0, "{name}: image");
    if name.starts_with("gamma") {
        return;
    }
    let expected = golden.labels(&format!("{name}.label"));
    assert_eq!(moved_labels.iter().zip(&expected).filter(|(a, b)| a != b).count(), 0, "{name}: labels");
}

#[test]
fn torchio_gives_the_same_for_the_same_parameters() {
    let golden = Golden::read();
    for i in 0..3 {
        let affine = Affine {
            scales: golden.triple(&format!("affine{i}.scales")),
            degrees_zyx: golden.triple(&format!("affine{i}.degrees")),
            translation_mm: golden.triple(&format!("affine{i}.translation_mm")),
        };
        check_golden(&golden, &format!("affine{i}"), &Params { affine: Some(affine), ..Params::default() });
    }
    for i in 0..2 {
        let elastic = golden.elastic(&format!("elastic{i}.control_points_mm"));
        check_golden(&golden, &format!("elastic{i}"), &Params { elastic: Some(elastic), ..Params::default() });
        let (_, gamma) = golden.numbers(&format!("gamma{i}.gamma"));
        let gamma = Some(Gamma { gamma: gamma[0] });
        check_golden(&golden, &format!("gamma{i}"), &Params { gamma, ..Params::default() });
    }
}

/// Random image, its bins of intensity as labels, and random parameters.
fn random_case(seed: u64, shape: (usize, usize, usize)) -> (Array3<f32>, Array3<i32>, Params) {
    let mut rng = rng::stream(seed, "case", 0);
    let image = Array3::from_shape_simple_fn(shape, || rng.random::<f32>() * 5.0 - 1.0);
    let mut draw = |size: f32| std::array::from_fn(|_| size * (rng.random::<f32>() * 2.0 - 1.0));
    let affine = Affine { scales: draw(0.2).map(|s: f32| 1.0 + s), degrees_zyx: draw(20.0), translation_mm: draw(3.0) };
    let control_points = [4, 6, 5];
    let displacement_mm = (0..4 * 6 * 5).map(|_| draw(3.0)).collect();
    let flip = draw(1.0).map(|v: f32| v > 0.0);
    let elastic = Some(Elastic { control_points, displacement_mm });
    let labels = image.mapv(|v| (v * 2.0) as i32);
    (image, labels, Params { flip, affine: Some(affine), elastic, ..Params::default() })
}

/// The centred uniform cubic B-spline from its textbook definition.
fn spline(t: f64) -> f64 {
    match t.abs() {
        t if t < 1.0 => 2.0 / 3.0 - t * t + t * t * t / 2.0,
        t if t < 2.0 => (2.0 - t).powi(3) / 6.0,
        _ => 0.0,
    }
}

/// Where output voxel `i` comes from, step by step in millimetres.
fn reference_coordinate(params: &Params, shape: [usize; 3], spacing_mm: [f64; 3], i: [usize; 3]) -> [f64; 3] {
    let elastic = params.elastic.as_ref().unwrap();
    let n = elastic.control_points;
    let mut p: [f64; 3] = std::array::from_fn(|a| i[a] as f64 * spacing_mm[a]);
    // Control point k lies at first + k * step; the first is one step before the widened image.
    let step: [f64; 3] = std::array::from_fn(|a| (shape[a] as f64 + 0.25) * spacing_mm[a] / (n[a] - 3) as f64);
    let first: [f64; 3] = std::array::from_fn(|a| -0.625 * spacing_mm[a] - step[a]);
    let weight =
        |axis: usize, k: usize| spline((i[axis] as f64 * spacing_mm[axis] - first[axis]) / step[axis] - k as f64);
    for (k, d) in elastic.displacement_mm.iter().enumerate() {
        let w = weight(0, k / (n[1] * n[2])) * weight(1, k / n[2] % n[1]) * weight(2, k % n[2]);
        for axis in 0..3 {
            p[axis] += w * f64::from(d[axis]);
        }
    }
    let (matrix, shift) = params.affine.unwrap().backward();
    let centre: [f64; 3] = std::array::from_fn(|a| (shape[a] as f64 - 1.0) / 2.0 * spacing_mm[a]);
    std::array::from_fn(|a| {
        let turned: f64 = (0..3).map(|b| matrix[a][b] * (p[b] - centre[b])).sum();
        let c = (turned - shift[a] + centre[a]) / spacing_mm[a];
        if params.flip[a] { (shape[a] - 1) as f64 - c } else { c }
    })
}

fn reference_linear(image: &Array3<f32>, shape: [usize; 3], c: [f64; 3], padding: f32) -> f64 {
    if (0..3).any(|a| c[a] < -0.5 || c[a] >= shape[a] as f64 - 0.5) {
        return padding.into();
    }
    let mut sum = 0.0;
    for corner in 0..8 {
        let mut at = [0; 3];
        let mut weight = 1.0;
        for a in 0..3 {
            let high = corner >> a & 1;
            let fraction = c[a] - c[a].floor();
            weight *= if high == 1 { fraction } else { 1.0 - fraction };
            at[a] = (c[a].floor() as isize + high).clamp(0, shape[a] as isize - 1) as usize;
        }
        sum += weight * f64::from(image[at]);
    }
    sum
}

#[test]
fn one_resampling_equals_the_maps_applied_one_after_another_to_each_voxel() {
    for (seed, dim) in [(0, (5, 12, 9)), (1, (8, 7, 16)), (2, (1, 6, 6)), (3, (4, 16, 3))] {
        let (image, labels, params) = random_case(seed, dim);
        let (shape, spacing_mm) = ([dim.0, dim.1, dim.2], [3.0, 1.5, 1.0]);
        let (moved_image, moved_labels) = apply(&params, &image, &labels, spacing_mm);
        let padding = image.iter().copied().fold(f32::INFINITY, f32::min);
        for ((z, y, x), &value) in moved_image.indexed_iter() {
            let c = reference_coordinate(&params, shape, spacing_mm, [z, y, x]);
            let undecided = |c: f64| ((c + 0.5) - (c + 0.5).round()).abs() < 1e-3;
            if c.iter().any(|&c| undecided(c)) {
                continue;
            }
            assert!(
                (reference_linear(&image, shape, c, padding) - f64::from(value)).abs() < 1e-3,
                "{seed}: {z} {y} {x}"
            );
            let inside = (0..3).all(|a| c[a] > -0.5 && c[a] < shape[a] as f64 - 0.5);
            let label = if inside { labels[c.map(|c| (c + 0.5) as usize)] } else { 0 };
            assert_eq!(label, moved_labels[[z, y, x]], "{seed}: {z} {y} {x}");
        }
    }
}

#[test]
fn identity_parameters_change_not_a_bit() {
    let (image, labels, _) = random_case(4, (6, 13, 10));
    let elastic = Elastic { control_points: [5, 7, 4], displacement_mm: vec![[0.0; 3]; 5 * 7 * 4] };
    let params = Params { affine: Some(Affine::IDENTITY), elastic: Some(elastic), ..Params::default() };
    for spacing_mm in [[1.0; 3], [7.7, 1.25, 1.3]] {
        assert_eq!(apply(&params, &image, &labels, spacing_mm), (image.clone(), labels.clone()));
    }
}

#[test]
fn a_flip_reverses_the_axis_exactly() {
    let (image, labels, _) = random_case(5, (4, 5, 6));
    for axis in 0..3 {
        let mut params = Params::default();
        params.flip[axis] = true;
        let (mut expected_image, mut expected_labels) = (image.clone(), labels.clone());
        expected_image.invert_axis(Axis(axis));
        expected_labels.invert_axis(Axis(axis));
        assert_eq!(apply(&params, &image, &labels, [2.0, 1.0, 1.0]), (expected_image, expected_labels));
    }
}

#[test]
fn image_and_mask_move_together() {
    // An image that is its own mask: thresholding the moved image at one half gives the moved mask, except
    // where linear and nearest interpolation disagree near a corner of the mask.
    for seed in 0..5 {
        let (_, _, params) = random_case(seed, (1, 1, 1));
        let labels = Array3::from_shape_fn((12, 24, 24), |(z, y, x)| {
            i32::from((3..9).contains(&z) && (6..18).contains(&y) && (5..17).contains(&x))
        });
        let (image, labels) = apply(&params, &labels.mapv(|l| l as f32), &labels, [2.0, 1.0, 1.0]);
        let inside = labels.iter().filter(|&&l| l == 1).count();
        let differ = image.iter().zip(&labels).filter(|(v, l)| (**v > 0.5) != (**l == 1)).count();
        assert!(inside > 200, "{inside}");
        assert!(differ * 10 < inside, "{differ} of {inside}");
    }
}
