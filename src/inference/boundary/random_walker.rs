//! Probabilities that follow the edges of the image: a random walker with priors (Grady 2005, "Multilabel random walker image
//! segmentation using prior models"), each class against the rest.
//!
//! The features of a network are coarse, and so are boundaries between them. Here neighbours of similar intensity agree on a class
//! over some centimetres, and across an edge of the image they do not. The probability x of each voxel minimises
//! sum w_ij (x_i - x_j)^2 + g sum (x_i - p_i)^2 over neighbours i, j, where p is the probability before, and
//! w_ij = exp(-(difference of the intensities / s)^2) with s from the noise inside the class itself.

use crate::error::{Error, Result};
use crate::inference::config::check_range;
use crate::volume::resample::resize;
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Section `[inference.random_walker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether boundaries move to the edges of the image.
    pub enabled: bool,
    /// How far voxels without an edge between them agree: g = (spacing / this)^2.
    pub range_mm: f64,
    /// s: so many times the median difference between neighbours that are confidently of the class.
    pub edge_scale: f32,
    /// Probability above which a voxel is confidently of the class.
    pub confidence: f32,
    /// With fewer pairs of confident neighbours, those above one half are taken; with fewer of these nothing changes.
    pub min_pairs: usize,
    /// A class keeps at least this fraction of its voxels: a prior near one half hardly holds against its surroundings.
    pub min_kept_fraction: f64,
    /// Finer grids are averaged to this spacing first, and the change is brought back.
    pub finest_mm: f64,
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("random_walker.range_mm", self.range_mm, 1e-3..=1e4)?;
        check_range("random_walker.edge_scale", self.edge_scale, 1e-3..=1e3)?;
        check_range("random_walker.confidence", self.confidence, 0.5..=1.0)?;
        check_range("random_walker.min_kept_fraction", self.min_kept_fraction, 0.0..=1.0)?;
        check_range("random_walker.finest_mm", self.finest_mm, 1e-3..=1e3)?;
        if self.min_pairs == 0 {
            return Err(Error::invalid("inference.random_walker.min_pairs", "at least 1", "0", "change this key"));
        }
        Ok(())
    }
}

/// w across the sharpest edge: no voxel is cut off from all others.
const LEAST: f32 = 1e-4;
/// Steps of conjugate gradients, fewer where the mean squared residual falls below [`RESIDUAL`].
const STEPS: usize = 60;
const RESIDUAL: f64 = 1e-8;

/// The probability of a class `[z, y, x]`, moved to the edges of `image`, a volume of the same voxels.
pub fn follow_edges(
    probability: Array3<f32>,
    image: ArrayView3<f32>,
    spacing_mm: [f64; 3],
    config: &Config,
) -> Array3<f32> {
    let shape = <[usize; 3]>::try_from(probability.shape()).expect("three axes");
    let coarse: [usize; 3] = std::array::from_fn(|axis| {
        let least = (shape[axis] as f64 * spacing_mm[axis] / config.finest_mm).ceil() as usize;
        least.clamp(1, shape[axis])
    });
    if coarse == shape {
        return walked(&probability, image, spacing_mm, config);
    }
    let spacing_mm = std::array::from_fn(|axis| spacing_mm[axis] * shape[axis] as f64 / coarse[axis] as f64);
    let before = resize(probability.view(), coarse);
    let change = walked(&before, resize(image, coarse).view(), spacing_mm, config) - before;
    let mut after = resize(change.view(), shape);
    after.zip_mut_with(&probability, |change, p| *change = (*change + p).clamp(0.0, 1.0));
    after
}

fn walked(probability: &Array3<f32>, image: ArrayView3<f32>, spacing_mm: [f64; 3], config: &Config) -> Array3<f32> {
    let finest = (0..3).rev().min_by(|&a, &b| spacing_mm[a].total_cmp(&spacing_mm[b])).expect("three axes");
    let Some(noise) = noise(probability, image, finest, config) else { return probability.clone() };
    let prior: Vec<f32> = probability.iter().copied().collect();
    let graph = Graph::new(image, config.edge_scale * noise, spacing_mm, config.range_mm);
    let mut x = graph.solved(&prior);
    x.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
    keep_most(&mut x, &prior, config.min_kept_fraction);
    Array3::from_shape_vec(probability.dim(), x).expect("as many voxels")
}

/// Raises the odds throughout where fewer than `kept` of the voxels above one half before are left there.
fn keep_most(x: &mut [f32], before: &[f32], kept: f64) {
    let count = |of: &[f32]| of.iter().filter(|&&p| p > 0.5).count();
    let least = (kept * count(before) as f64) as usize;
    if count(x) >= least {
        return;
    }
    let mut sorted = x.to_vec();
    let (_, &mut cut, _) = sorted.select_nth_unstable_by(least, |a, b| b.total_cmp(a));
    // p / (1 - p) divided by those of the cut, which becomes one half.
    x.iter_mut().for_each(|x| *x = *x * (1.0 - cut) / (*x * (1.0 - cut) + (1.0 - *x) * cut).max(f32::MIN_POSITIVE));
}

/// The median difference between neighbours along an axis within the class; None where there is too little of it.
fn noise(probability: &Array3<f32>, image: ArrayView3<f32>, axis: usize, config: &Config) -> Option<f32> {
    let axis = ndarray::Axis(axis);
    let differences = |least: f32| -> Vec<f32> {
        let lanes = probability.lanes(axis).into_iter().zip(image.lanes(axis));
        let of_lane = |(p, image): (ndarray::ArrayView1<f32>, ndarray::ArrayView1<f32>)| -> Vec<f32> {
            let inside = |i: &usize| p[i - 1] > least && p[*i] > least;
            let differences = (1..p.len()).filter(inside).map(|i| (image[i] - image[i - 1]).abs());
            differences.filter(|difference| !difference.is_nan()).collect()
        };
        lanes.flat_map(of_lane).collect()
    };
    let mut found = differences(config.confidence);
    if found.len() < config.min_pairs {
        found = differences(0.5);
    }
    let middle = found.len() / 2;
    // Neighbours may be equal throughout, as in a drawing: then any difference is an edge.
    (found.len() >= config.min_pairs)
        .then(|| found.select_nth_unstable_by(middle, f32::total_cmp).1.max(f32::MIN_POSITIVE))
}

/// Voxels in rows along x, planes of y and x, with their ties.
struct Graph {
    plane: usize,
    row: usize,
    /// w to the next voxel along z, y and x; 0 at the end.
    ties: [Vec<f32>; 3],
    /// g
    prior: f32,
    /// g + the sum of a voxel's ties.
    diagonal: Vec<f32>,
}

impl Graph {
    fn new(image: ArrayView3<f32>, scale: f32, spacing_mm: [f64; 3], range_mm: f64) -> Self {
        let (nz, ny, nx) = image.dim();
        let image: Vec<f32> = image.iter().copied().collect();
        let finest = spacing_mm.into_iter().fold(f64::INFINITY, f64::min);
        let strides = [ny * nx, nx, 1];
        let ties = std::array::from_fn(|axis| {
            let (stride, length) = (strides[axis], [nz, ny, nx][axis]);
            // Voxels that lie further apart have less to do with each other.
            let near = (finest / spacing_mm[axis]) as f32;
            let tie = |at: usize| {
                if at / stride % length + 1 == length {
                    return 0.0;
                }
                let difference = (image[at + stride] - image[at]) / scale;
                // Nothing is known of padding.
                if difference.is_nan() { LEAST } else { near * (-difference * difference).exp() + LEAST }
            };
            (0..image.len()).into_par_iter().map(tie).collect()
        });
        let prior = (finest / range_mm).powi(2) as f32;
        let mut graph = Self { plane: ny * nx, row: nx, ties, prior, diagonal: vec![] };
        let sum = |at: usize| {
            let of_axis = |axis: usize| {
                let ties = &graph.ties[axis];
                ties[at] + at.checked_sub(strides[axis]).map_or(0.0, |before| ties[before])
            };
            prior + (0..3).map(of_axis).sum::<f32>()
        };
        graph.diagonal = (0..image.len()).into_par_iter().map(sum).collect();
        graph
    }

    /// out = (g + L) x with the graph's Laplacian L.
    fn times(&self, x: &[f32], out: &mut [f32]) {
        let (plane, row) = (self.plane, self.row);
        out.par_chunks_exact_mut(plane).enumerate().for_each(|(z, out)| {
            for (y, out) in out.chunks_exact_mut(row).enumerate() {
                let at = z * plane + y * row;
                let here = &x[at..at + row];
                let diagonal = &self.diagonal[at..at + row];
                out.iter_mut().zip(here).zip(diagonal).for_each(|((out, x), d)| *out = d * x);
                let mut subtract = |tie: &[f32], x: &[f32]| {
                    out.iter_mut().zip(tie).zip(x).for_each(|((out, tie), x)| *out -= tie * x);
                };
                for (axis, stride) in [(0, plane), (1, row)] {
                    let ties = &self.ties[axis];
                    if let Some(before) = at.checked_sub(stride) {
                        subtract(&ties[before..before + row], &x[before..before + row]);
                    }
                    if at + stride < x.len() {
                        subtract(&ties[at..at + row], &x[at + stride..at + stride + row]);
                    }
                }
                let ties = &self.ties[2][at..at + row];
                for i in 1..row {
                    out[i] -= ties[i - 1] * here[i - 1];
                    out[i - 1] -= ties[i - 1] * here[i];
                }
            }
        });
    }

    /// x of (g + L) x = g p by conjugate gradients, preconditioned by the diagonal, from x = p.
    fn solved(&self, p: &[f32]) -> Vec<f32> {
        let mut x = p.to_vec();
        let mut product = vec![0f32; p.len()];
        self.times(&x, &mut product);
        let mut residual: Vec<f32> = p.iter().zip(&product).map(|(p, product)| self.prior * p - product).collect();
        let mut direction: Vec<f32> = residual.iter().zip(&self.diagonal).map(|(r, d)| r / d).collect();
        let (mut size, mut squares) = (self.dot(&residual, &direction), self.dot(&residual, &residual));
        for _ in 0..STEPS {
            if squares <= RESIDUAL * p.len() as f64 {
                break;
            }
            self.times(&direction, &mut product);
            let step = (size / self.dot(&direction, &product)) as f32;
            // One pass over memory, which is what a step costs. Sums as in `dot`.
            let plane = self.plane;
            let on_plane = |(z, (x, residual)): (usize, (&mut [f32], &mut [f32]))| {
                let here = z * plane..z * plane + x.len();
                let [direction, product, diagonal] = [&direction, &product, &self.diagonal].map(|of| &of[here.clone()]);
                x.iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
                residual.iter_mut().zip(product).for_each(|(r, product)| *r -= step * product);
                let squares: f64 = residual.iter().map(|r| f64::from(r * r)).sum();
                let size: f64 = residual.iter().zip(diagonal).map(|(r, d)| f64::from(r * (r / d))).sum();
                (size, squares)
            };
            let planes = x.par_chunks_mut(plane).zip(residual.par_chunks_mut(plane)).enumerate();
            let sums: Vec<(f64, f64)> = planes.map(on_plane).collect();
            let next = sums.iter().map(|(size, _)| size).sum();
            squares = sums.iter().map(|(_, squares)| squares).sum();
            let share = (next / size) as f32;
            direction.par_chunks_mut(plane).enumerate().for_each(|(z, direction)| {
                let beside = residual[z * plane..].iter().zip(&self.diagonal[z * plane..]);
                direction.iter_mut().zip(beside).for_each(|(d, (r, diagonal))| *d = r / diagonal + share * *d);
            });
            size = next;
        }
        x
    }

    /// Added up plane by plane and in order, so that the number of threads changes nothing.
    fn dot(&self, a: &[f32], b: &[f32]) -> f64 {
        let of_plane = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let planes: Vec<f64> = a.par_chunks(self.plane).zip(b.par_chunks(self.plane)).map(of_plane).collect();
        planes.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    const CONFIG: Config = Config {
        enabled: true,
        range_mm: 21.5,
        edge_scale: 2.0,
        confidence: 0.8,
        min_pairs: 50,
        min_kept_fraction: 0.9,
        finest_mm: 1.25,
    };
    const SPACING_MM: [f64; 3] = [6.0, 1.5, 1.5];

    /// A bright ball of 24 mm on a dark ground, with noise.
    fn scan() -> (Array3<f32>, Array3<f32>) {
        let mut rng = rng::stream(4, "edges", 0);
        let distance = |(z, y, x): (usize, usize, usize)| {
            let at = [z as f64 * 6.0 - 42.0, y as f64 * 1.5 - 45.0, x as f64 * 1.5 - 45.0];
            at.iter().map(|v| v * v).sum::<f64>().sqrt() as f32 - 24.0
        };
        let distance = Array3::from_shape_fn((15, 60, 60), distance);
        let image = distance.mapv(|mm| if mm < 0.0 { 300.0 } else { 100.0 } + 15.0 * rng::normal_pair(&mut rng)[0]);
        (distance, image)
    }

    fn soft(distance: &Array3<f32>, shift_mm: f32) -> Array3<f32> {
        distance.mapv(|mm| 1.0 / (1.0 + ((mm + shift_mm) / 3.0).exp()))
    }

    fn wrong(probability: &Array3<f32>, distance: &Array3<f32>) -> usize {
        probability.iter().zip(distance).filter(|(p, mm)| (**p > 0.5) != (**mm < 0.0)).count()
    }

    #[test]
    fn a_border_beside_an_edge_moves_to_it() {
        let (distance, image) = scan();
        // A ball that is found 0.8 mm too large may lose that: nine tenths of it are left.
        for shift_mm in [-0.8, 4.0] {
            let before = soft(&distance, shift_mm);
            let after = follow_edges(before.clone(), image.view(), SPACING_MM, &CONFIG);
            let (before, after) = (wrong(&before, &distance), wrong(&after, &distance));
            assert!(after * 4 < before, "{shift_mm} mm: {before} to {after}");
        }
    }

    #[test]
    fn where_there_is_no_edge_a_border_stays() {
        let (distance, _) = scan();
        let mut rng = rng::stream(4, "edges", 1);
        let image = distance.mapv(|_| 100.0 + 15.0 * rng::normal_pair(&mut rng)[0]);
        let before = distance.mapv(|_| 0.0).indexed_iter().map(|((_, _, x), _)| f32::from(u8::from(x < 30))).collect();
        let before = Array3::from_shape_vec(distance.dim(), before).unwrap();
        let after = follow_edges(before.clone(), image.view(), SPACING_MM, &CONFIG);
        let moved = before.iter().zip(&after).filter(|(b, a)| (**b > 0.5) != (**a > 0.5)).count();
        assert!(moved < before.len() / 60, "{moved} of {}", before.len());
        // A class of which there is hardly anything has no noise to measure an edge by.
        let little = Array3::from_shape_fn(distance.dim(), |at| if at == (3, 4, 5) { 0.9 } else { 0.1 });
        assert_eq!(follow_edges(little.clone(), image.view(), SPACING_MM, &CONFIG), little);
    }

    #[test]
    fn a_class_of_which_the_network_is_hardly_sure_keeps_most_of_its_voxels() {
        let (distance, _) = scan();
        let mut rng = rng::stream(4, "edges", 3);
        let image = distance.mapv(|_| 100.0 + 15.0 * rng::normal_pair(&mut rng)[0]);
        let before = distance.mapv(|mm| if mm < 0.0 { 0.55 } else { 0.0 });
        let after = follow_edges(before.clone(), image.view(), SPACING_MM, &CONFIG);
        let count = |of: &Array3<f32>| of.iter().filter(|&&p| p > 0.5).count() as f64;
        let kept = count(&after) / count(&before);
        assert!((0.88..0.93).contains(&kept), "{kept}");
        assert!(after.iter().all(|p| (0.0..=1.0).contains(p)));
    }

    #[test]
    fn the_minimum_is_found() {
        let (distance, image) = scan();
        let prior: Vec<f32> = soft(&distance, 2.0).into_iter().collect();
        let graph = Graph::new(image.view(), 40.0, SPACING_MM, CONFIG.range_mm);
        let x = graph.solved(&prior);
        // As the energy is written down, voxel by voxel.
        let (nz, ny, nx) = image.dim();
        let energy = |x: &[f32]| {
            let mut sum = 0.0;
            for (at, (z, y, col)) in ndarray::indices((nz, ny, nx)).into_iter().enumerate() {
                sum += f64::from(graph.prior) * f64::from(x[at] - prior[at]).powi(2);
                let neighbours = [(z + 1 < nz, ny * nx, 0.25), (y + 1 < ny, nx, 1.0), (col + 1 < nx, 1, 1.0)];
                for (_, stride, near) in neighbours.into_iter().filter(|(exists, ..)| *exists) {
                    let other = [(at + stride) / (ny * nx), (at + stride) / nx % ny, (at + stride) % nx];
                    let tie = near * (-((image[other] - image[[z, y, col]]) / 40.0).powi(2)).exp() + LEAST;
                    sum += f64::from(tie) * f64::from(x[at] - x[at + stride]).powi(2);
                }
            }
            sum
        };
        let least = energy(&x);
        assert!(least < 0.7 * energy(&prior), "{least} of {}", energy(&prior));
        let mut rng = rng::stream(4, "edges", 2);
        for _ in 0..5 {
            let other: Vec<f32> = x.iter().map(|x| x + 0.01 * rng::normal_pair(&mut rng)[0]).collect();
            assert!(energy(&other) > least);
        }
    }

    #[test]
    fn finer_grids_and_other_numbers_of_threads_give_the_same() {
        let (distance, image) = scan();
        let before = soft(&distance, 4.0);
        let after = follow_edges(before.clone(), image.view(), SPACING_MM, &CONFIG);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| follow_edges(before.clone(), image.view(), SPACING_MM, &CONFIG))
        };
        assert_eq!((run(1), run(3)), (after.clone(), after));
        let fine = |volume: &Array3<f32>| resize(volume.view(), [15, 180, 180]);
        let (distance, before) = (fine(&distance), fine(&before));
        let after = follow_edges(before.clone(), fine(&image).view(), [6.0, 0.5, 0.5], &CONFIG);
        let (before, after) = (wrong(&before, &distance), wrong(&after, &distance));
        assert!(after * 3 < before, "{before} to {after}");
    }
}
