//! Graph-based segmentation (Felzenszwalb and Huttenlocher, *Efficient graph-based image segmentation*, IJCV 2004) on
//! the 26-neighbourhood of a volume, with the edge costs of Hansen et al., *Anomaly detection-inspired few-shot medical
//! image segmentation through self-supervision with supervoxels*, MedIA 2022; or on the 8-neighbourhood of each slice,
//! as the 2D baselines do.
//!
//! A volume has many edges (31 million at 37 x 256 x 256), and few of them unite regions. The edges are therefore never
//! all in memory: they are processed in bands of rising cost, and of each band only the edges whose ends can still be
//! united are kept and sorted. Edges of one cost need no sorting, so those of padding are taken a few slices at a time. The
//! result equals that of sorting all edges.

use crate::components::Forest;
use crate::error::{Error, Result};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;
use std::ops::Range;

/// Section `[supervoxels.felzenszwalb]` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// k of the paper, on intensities of 0 to 255: a larger value gives larger regions before the minimum size is
    /// applied. The public 3D code divides its 1 by 255 although its intensities reach 255, so 0.0039 is its equal.
    pub scale: f64,
    /// Regions below this fraction of what is divided, the body or the whole volume, are united with the neighbour of the cheapest
    /// edge.
    pub min_size_fraction: f64,
    /// The minimum size in voxels for the slice-wise method.
    pub min_size_2d_vox: usize,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(Error::invalid(
                format!("supervoxels.felzenszwalb.{key}"),
                expected,
                found,
                "change it in the configuration",
            ))
        };
        if !(self.scale.is_finite() && self.scale >= 0.0) {
            return refuse("scale", "a number of 0 or more", self.scale.to_string());
        }
        if !(0.0..=1.0).contains(&self.min_size_fraction) {
            return refuse("min_size_fraction", "a fraction from 0 to 1", self.min_size_fraction.to_string());
        }
        let size = self.min_size_2d_vox;
        if size == 0 || size > u32::MAX as usize {
            return refuse("min_size_2d_vox", "1 or more voxels", size.to_string());
        }
        Ok(())
    }
}

/// Cuts a volume into regions. With s = dz / dx the edge costs are |dI| within a slice, s |dI| straight across, sqrt((1
/// + s^2) / 2) |dI| across and along one axis, sqrt((2 + s^2) / 3) |dI| across and along both.
///
/// First pass: in the order of their costs w, edges unite two regions A, B where w < min(Int(A) + k / |A|, Int(B) + k /
/// |B|) (the paper's Eqs. 2 and 3, Int is the largest cost inside a region). Second pass: in the same order, they unite
/// two regions where either is below the minimum size.
///
/// `intensity` is `[z, y, x]` from 0 to 255; only voxels of `mask` take part. Returns labels 1..=n, each connected
/// through faces, edges or corners; 0 is outside of the mask.
pub fn segment(
    intensity: ArrayView3<f32>,
    spacing_mm: [f64; 3],
    mask: Option<ArrayView3<bool>>,
    config: &Config,
) -> Array3<i32> {
    let s = spacing_mm[0] / spacing_mm[2];
    let mut steps = IN_PLANE.to_vec();
    for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
        let along = f64::from(dy * dy + dx * dx);
        let cost = ((along + s * s) / (along + 1.0)).sqrt();
        steps.push(Step { dz: 1, dy: dy as isize, dx: dx as isize, cost: cost as f32 });
    }
    let voxels = mask.map_or(intensity.len(), |mask| mask.iter().filter(|inside| **inside).count());
    let least = (config.min_size_fraction * voxels as f64).round().max(1.0);
    unite(intensity, mask, &steps, config.scale as f32, least as u32)
}

/// Cuts each slice into regions: 8 neighbours, cost |dI|. Labels are numbered through the volume and no region spans
/// slices.
pub fn segment_slices(intensity: ArrayView3<f32>, mask: Option<ArrayView3<bool>>, config: &Config) -> Array3<i32> {
    unite(intensity, mask, &IN_PLANE, config.scale as f32, config.min_size_2d_vox as u32)
}

/// Voxels of the largest image, with `steps` neighbours that come later in memory: edges are numbered in 32 bits.
pub const fn most_vox(steps: usize) -> usize {
    u32::MAX as usize / steps - 1
}

/// The step to a neighbour that comes later in memory, and its cost for an intensity difference of 1.
#[derive(Debug, Clone, Copy)]
struct Step {
    dz: isize,
    dy: isize,
    dx: isize,
    cost: f32,
}

const IN_PLANE: [Step; 4] = [
    Step { dz: 0, dy: 0, dx: 1, cost: 1.0 },
    Step { dz: 0, dy: 1, dx: -1, cost: 1.0 },
    Step { dz: 0, dy: 1, dx: 0, cost: 1.0 },
    Step { dz: 0, dy: 1, dx: 1, cost: 1.0 },
];

fn unite(
    intensity: ArrayView3<f32>,
    mask: Option<ArrayView3<bool>>,
    steps: &[Step],
    scale: f32,
    min_size_vox: u32,
) -> Array3<i32> {
    let intensity = intensity.as_standard_layout();
    let mask = mask.as_ref().map(|mask| mask.as_standard_layout());
    let graph = Graph {
        shape: intensity.dim().into(),
        intensity: intensity.as_slice().expect("standard layout"),
        mask: mask.as_ref().map(|mask| mask.as_slice().expect("standard layout")),
        steps,
    };
    assert!(intensity.len() <= most_vox(steps.len()), "the caller compares with most_vox");
    let bands = graph.bands();
    let mut forest = Forest::new(intensity.len());
    let mut inner = vec![0f32; intensity.len()]; // Int of each root
    let mut largest_inner = 0f32;
    for band in bands.windows(2) {
        // A region has at least one voxel, so from here on no edge is cheap enough.
        if f32::from_bits(band[0]) >= largest_inner + scale {
            break;
        }
        for part in graph.parts([band[0], band[1]]) {
            let useful = |a: u32, b: u32| forest.peek_root(a) != forest.peek_root(b);
            for edge in graph.sorted_edges([band[0], band[1]], part, useful) {
                let (a, b) = graph.ends(edge);
                let (a, b, cost) = (forest.root(a), forest.root(b), f32::from_bits(edge.key));
                let threshold = |root: u32| inner[root as usize] + scale / forest.size(root) as f32;
                if a != b && cost < threshold(a).min(threshold(b)) {
                    let root = forest.unite_roots(a, b);
                    inner[root as usize] = cost;
                    largest_inner = cost;
                }
            }
        }
    }
    drop(inner);
    for band in bands.windows(2) {
        for part in graph.parts([band[0], band[1]]) {
            let useful = |a: u32, b: u32| {
                let (a, b) = (forest.peek_root(a), forest.peek_root(b));
                a != b && forest.size(a).min(forest.size(b)) < min_size_vox
            };
            for edge in graph.sorted_edges([band[0], band[1]], part, useful) {
                let (a, b) = graph.ends(edge);
                let (a, b) = (forest.root(a), forest.root(b));
                if a != b && forest.size(a).min(forest.size(b)) < min_size_vox {
                    forest.unite_roots(a, b);
                }
            }
        }
    }
    let mut number_of_root = vec![0; intensity.len()];
    let mut count = 0;
    let number = |index: usize| {
        if graph.mask.is_some_and(|mask| !mask[index]) {
            return 0;
        }
        let number = &mut number_of_root[forest.root(index as u32) as usize];
        if *number == 0 {
            count += 1;
            *number = count;
        }
        *number
    };
    let labels = (0..intensity.len()).map(number).collect();
    Array3::from_shape_vec(intensity.dim(), labels).expect("one label a voxel")
}

struct Graph<'a> {
    shape: [usize; 3],
    intensity: &'a [f32],
    mask: Option<&'a [bool]>,
    steps: &'a [Step],
}

/// The bits of a cost: for floats of 0 or more they order like the floats themselves.
type Key = u32;

impl Graph<'_> {
    /// Calls `row(step, first voxel, first neighbour, costs)` for each step from the row at (z, y); voxel i of the
    /// row's part has cost `costs[i]` to neighbour i.
    fn rows_from(&self, z: usize, y: usize, costs: &mut Vec<f32>, mut row: impl FnMut(usize, usize, usize, &[f32])) {
        let [depth, height, width] = self.shape;
        for (number, step) in self.steps.iter().enumerate() {
            let (other_z, other_y) = (z.wrapping_add_signed(step.dz), y.wrapping_add_signed(step.dy));
            if other_z >= depth || other_y >= height {
                continue;
            }
            let length = width - step.dx.unsigned_abs();
            let from = (z * height + y) * width + usize::from(step.dx < 0);
            let to = (other_z * height + other_y) * width + usize::from(step.dx > 0);
            let ends = self.intensity[from..from + length].iter().zip(&self.intensity[to..to + length]);
            costs.clear();
            costs.extend(ends.map(|(a, b)| (a - b).abs() * step.cost));
            row(number, from, to, costs);
        }
    }

    /// Limits of bands of cost, from 0 to beyond the largest, with roughly equal numbers of edges; estimated
    /// on every eighth row. A cost that many edges share, as those of padding do, has a band of its own.
    fn bands(&self) -> Vec<Key> {
        let [depth, height, _] = self.shape;
        let sampled = (0..depth * height).into_par_iter().step_by(8).fold(Vec::new, |mut keys: Vec<Key>, row| {
            self.rows_from(row / height, row % height, &mut Vec::new(), |_, from, _, costs| {
                let inside = |i: &usize| self.mask.is_none_or(|mask| mask[from + i]);
                keys.extend((0..costs.len()).step_by(5).filter(inside).map(|i| costs[i].to_bits()));
            });
            keys
        });
        let mut keys = sampled.flatten().collect::<Vec<_>>();
        keys.par_sort_unstable();
        let inner = (1..BANDS).filter_map(|band| keys.get(band * keys.len() / BANDS).copied());
        let mut limits: Vec<Key> = std::iter::once(0).chain(inner).chain([Key::MAX]).collect();
        let is_frequent = |key: Key| {
            let count = keys.partition_point(|&other| other <= key) - keys.partition_point(|&other| other < key);
            count > keys.len() / (4 * BANDS)
        };
        let alone: Vec<Key> = limits.iter().filter(|&&key| is_frequent(key)).map(|key| key + 1).collect();
        limits.extend(alone);
        limits.sort_unstable();
        limits.dedup();
        limits
    }

    /// The slices whose edges of a band are in memory together: all, where they have to be sorted.
    fn parts(&self, [low, high]: [Key; 2]) -> Vec<Range<usize>> {
        let [depth, height, width] = self.shape;
        let at_once = if high - low > 1 { depth } else { (VOXELS_AT_ONCE / (height * width).max(1)).max(1) };
        (0..depth).step_by(at_once.max(1)).map(|first| first..(first + at_once).min(depth)).collect()
    }

    /// The edges from these slices inside the mask with keys in low..high for which `useful` holds, sorted by cost; equal
    /// ones are in the order row, step, x.
    fn sorted_edges(
        &self,
        [low, high]: [Key; 2],
        slices: Range<usize>,
        useful: impl Fn(u32, u32) -> bool + Sync,
    ) -> Vec<Edge> {
        let [_, height, width] = self.shape;
        let slices = slices.into_par_iter().map(|z| {
            let mut edges = Vec::new();
            let mut costs = Vec::with_capacity(width);
            for y in 0..height {
                self.rows_from(z, y, &mut costs, |step, from, to, costs| {
                    for (i, cost) in costs.iter().enumerate() {
                        let key = cost.to_bits();
                        if key.wrapping_sub(low) < high - low
                            && self.mask.is_none_or(|mask| mask[from + i] && mask[to + i])
                            && useful((from + i) as u32, (to + i) as u32)
                        {
                            edges.push(Edge { key, id: ((from + i) * self.steps.len() + step) as u32 });
                        }
                    }
                });
            }
            edges
        });
        let slices: Vec<Vec<Edge>> = slices.collect();
        let mut edges = Vec::with_capacity(slices.iter().map(Vec::len).sum());
        slices.into_iter().for_each(|slice| edges.extend(slice));
        if high - low > 1 {
            sort_by_key(&mut edges, low);
        }
        edges
    }

    /// The voxels that an edge joins.
    fn ends(&self, edge: Edge) -> (u32, u32) {
        let steps = self.steps.len() as u32;
        let voxel = edge.id / steps;
        let Step { dz, dy, dx, .. } = self.steps[(edge.id % steps) as usize];
        let ahead = (dz * self.shape[1] as isize + dy) * self.shape[2] as isize + dx;
        (voxel, voxel + ahead as u32)
    }
}

const BANDS: usize = 8;
/// Voxels whose edges of one cost are in memory together.
const VOXELS_AT_ONCE: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// `id` is voxel index x number of steps + step.
#[derive(Debug, Clone, Copy, Default)]
struct Edge {
    key: Key,
    id: u32,
}

/// Stable radix sort, least significant digit first; `low` bounds the keys from below.
fn sort_by_key(edges: &mut Vec<Edge>, low: Key) {
    const DIGIT: u32 = 11;
    let highest = edges.iter().map(|edge| edge.key - low).max().unwrap_or(0);
    let mut target = vec![Edge::default(); edges.len()];
    for shift in (0..Key::BITS - highest.leading_zeros()).step_by(DIGIT as usize) {
        let digit = |edge: &Edge| ((edge.key - low) >> shift) as usize & ((1 << DIGIT) - 1);
        let mut place = [0usize; 1 << DIGIT];
        edges.iter().for_each(|edge| place[digit(edge)] += 1);
        let mut before = 0;
        for count in &mut place {
            before += std::mem::replace(count, before);
        }
        for edge in edges.iter() {
            let place = &mut place[digit(edge)];
            target[*place] = *edge;
            *place += 1;
        }
        std::mem::swap(edges, &mut target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt;

    /// The two passes over all edges sorted at once, with regions as plain numbers.
    fn reference_labels(intensity: &Array3<f32>, s: f64, mask: &Array3<bool>, config: &Config) -> Array3<i32> {
        let [depth, height, width] = intensity.dim().into();
        let mut edges = Vec::new();
        for (z, y) in (0..depth).flat_map(|z| (0..height).map(move |y| (z, y))) {
            for (dz, dy, dx) in (0..2).flat_map(|dz| (-1..2).flat_map(move |dy| (-1..2).map(move |dx| (dz, dy, dx)))) {
                if (dz, dy, dx) <= (0, 0, 0) {
                    continue;
                }
                for x in 0..width {
                    let axes = f64::from(dz + dy * dy + dx * dx);
                    let across = f64::from(dz);
                    let factor = ((across * s * s + axes - across) / axes).sqrt();
                    let at = |v: usize, d: i32| v.wrapping_add_signed(d as isize);
                    let (a, b) = ([z, y, x], [at(z, dz), at(y, dy), at(x, dx)]);
                    if intensity.get(b).is_some() && mask[a] && mask[b] {
                        edges.push(((intensity[a] - intensity[b]).abs() * factor as f32, a, b));
                    }
                }
            }
        }
        edges.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable
        let inside = mask.iter().filter(|inside| **inside).count();
        let least = (config.min_size_fraction * inside as f64).round() as usize;
        let mut region = Array3::from_shape_fn(intensity.dim(), |(z, y, x)| (z * height + y) * width + x);
        let mut inner = vec![0f32; intensity.len()];
        for first_pass in [true, false] {
            for &(cost, a, b) in &edges {
                let (a, b) = (region[a], region[b]);
                let size = |r: usize| region.iter().filter(|&&other| other == r).count();
                let threshold = |r: usize| inner[r] + config.scale as f32 / size(r) as f32;
                let joins = match first_pass {
                    true => cost < threshold(a).min(threshold(b)),
                    false => size(a).min(size(b)) < least,
                };
                if a != b && joins {
                    region.mapv_inplace(|r| if r == b { a } else { r });
                    inner[a] = cost;
                }
            }
        }
        let mut names = Vec::new();
        let mut labels = Array3::zeros(intensity.dim());
        for ((at, label), &region) in labels.indexed_iter_mut().zip(&region) {
            if mask[at] {
                let known = names.iter().position(|&name| name == region);
                *label = 1 + known.unwrap_or_else(|| {
                    names.push(region);
                    names.len() - 1
                }) as i32;
            }
        }
        labels
    }

    #[test]
    fn bands_of_useful_edges_equal_one_sort_of_all_edges() {
        let mut random = rng::stream(6, "felzenszwalb", 0);
        for (scale, least_vox) in [(0.004, 1), (0.004, 12), (30.0, 1), (30.0, 20), (300.0, 5), (0.0, 8)] {
            for levels in [6, 256] {
                let min_size_fraction = f64::from(least_vox) / (4.0 * 6.0 * 7.0);
                let config = Config { scale, min_size_fraction, min_size_2d_vox: 1 };
                let shape = (4, 6, 7);
                let intensity = Array3::from_shape_simple_fn(shape, || random.random_range(0..levels) as f32);
                let mask = Array3::from_shape_simple_fn(shape, || random.random_range(0..10) < 9);
                for (mask, s) in [(Array3::from_elem(shape, true), 1.0), (mask, 6.16)] {
                    let regions = segment(intensity.view(), [s, 1.0, 1.0], Some(mask.view()), &config);
                    assert_eq!(regions, reference_labels(&intensity, s, &mask, &config), "{config:?}");
                }
            }
        }
    }

    #[test]
    fn an_octant_phantom_falls_into_its_eight_octants() {
        let octant = |(z, y, x): (usize, usize, usize)| (z / 8 * 4 + y / 8 * 2 + x / 8) as i32 + 1;
        let mut random = rng::stream(7, "felzenszwalb", 0);
        let phantom =
            Array3::from_shape_fn((16, 16, 16), |at| octant(at) as f32 * 30.0 + random.random_range(0.0..5.0f32));
        let config = Config { scale: 1.0, min_size_fraction: 300.0 / 4096.0, min_size_2d_vox: 40 };
        let expected = Array3::from_shape_fn((16, 16, 16), octant);
        assert_eq!(segment(phantom.view(), [1.0; 3], None, &config), expected);
        let slices = segment_slices(phantom.view(), None, &config);
        assert_eq!(slices.iter().max(), Some(&64), "four quadrants in each of sixteen slices");
    }

    #[test]
    fn no_region_is_below_the_minimum_size_where_all_is_connected() {
        let mut random = rng::stream(8, "felzenszwalb", 0);
        let noise = Array3::from_shape_simple_fn((5, 12, 12), || random.random_range(0.0..255.0f32));
        let config = Config { scale: 1.0, min_size_fraction: 50.0 / 720.0, min_size_2d_vox: 30 };
        for (regions, smallest) in [
            (segment(noise.view(), [2.0, 1.0, 1.0], None, &config), 50),
            (segment_slices(noise.view(), None, &config), 30),
        ] {
            let sizes = crate::supervoxels::quality::sizes_vox(regions.view());
            assert!(sizes.iter().all(|&size| size >= smallest), "{sizes:?}");
        }
    }
}
