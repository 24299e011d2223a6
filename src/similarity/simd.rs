//! S_c of Eq. 3.3 and its gradients on the processor, in one pass over the voxels and without a number per pair of voxel
//! and prototype: a few voxels at a time meet all prototypes, and what they need of each other fits the first cache.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// The prototypes of all classes, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Unit rows (P, C).
    pub values: &'a [f32],
    pub channels: usize,
    /// Where each class ends; the last one at P. A class may be empty.
    pub ends: &'a [usize],
}

/// Voxels that a thread takes at a time. Sums over voxels are added up in this unit and in order, whatever the threads.
const CHUNK: usize = 2048;
/// Rows or channels that the inner loops treat at once: enough sums to keep two multipliers busy.
const TILE: usize = 8;
/// Channels are filled up with zeros to a multiple of the longest vector register.
const CHANNELS: usize = 16;
/// The score of a class that has no prototype: never the greatest, and without influence on the softmax.
pub const ABSENT: f32 = -1e4;
/// And its ln of no numbers at all.
pub const NONE: f32 = -1e30;

/// S_c(q) = sum_k w_k d_k over the prototypes p_k of class c, with d_k = alpha p_k . q / |q| and w = softmax(d), for the
/// rows q of `voxels` (N, C), into `scores` (classes, N).
pub fn scores(voxels: &[f32], rows: Rows, alpha: f32, scores: &mut [f32]) {
    let count = voxels.len() / rows.channels;
    let rows = &Padded::new(rows);
    let chunks = voxels.par_chunks(CHUNK * rows.channels).zip(by_chunk(scores, count));
    chunks.for_each(|(voxels, mut scores)| {
        Arch::new().dispatch(Work { voxels, rows, alpha, task: Task::Scores(&mut scores) });
    });
}

/// The same with `added` (P) to the d_k, or nothing if it is empty, and ln sum_k e^(d_k) of each (classes, N), [`NONE`] of a
/// class without prototypes.
pub fn with_logs(voxels: &[f32], rows: Rows, alpha: f32, added: &[f32], scores: &mut [f32]) -> Vec<f32> {
    let count = voxels.len() / rows.channels;
    let rows = &Padded::new(rows).with(added);
    let mut logs = vec![0f32; scores.len()];
    let chunks = voxels.par_chunks(CHUNK * rows.channels).zip(by_chunk(scores, count)).zip(by_chunk(&mut logs, count));
    chunks.for_each(|((voxels, mut scores), mut logs)| {
        let task = Task::Both { scores: &mut scores, logs: &mut logs };
        Arch::new().dispatch(Work { voxels, rows, alpha, task });
    });
    logs
}

/// The gradients with respect to the rows of `voxels` (N, C), into `of_voxels`, and to the unit rows (P, C), returned;
/// from those with respect to the scores (classes, N).
///
/// With dS_c/dd_k = w_k (1 + d_k - S_c) all comes from the voxel itself: nothing of the forward pass is kept.
pub fn gradients(voxels: &[f32], rows: Rows, alpha: f32, of_scores: &[f32], of_voxels: &mut [f32]) -> Vec<f32> {
    let (count, channels) = (voxels.len() / rows.channels, rows.channels);
    let rows = &Padded::new(rows);
    let chunks = voxels.par_chunks(CHUNK * channels).zip(of_voxels.par_chunks_mut(CHUNK * channels)).enumerate();
    let parts = chunks.map(|(chunk, (voxels, of_voxels))| {
        let (first, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(count));
        let of_scores = of_scores.chunks_exact(count).map(|class| &class[first..end]).collect();
        let mut of_rows = vec![0f32; rows.values.len()];
        let task = Task::Gradients { of_scores, of_voxels, of_rows: &mut of_rows };
        Arch::new().dispatch(Work { voxels, rows, alpha, task });
        of_rows
    });
    let mut total = vec![0f32; rows.values.len()];
    for part in parts.collect::<Vec<_>>() {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    let real = total.chunks_exact(rows.width).take(rows.count);
    real.flat_map(|row| row[..channels].iter().copied()).collect()
}

/// (classes, N) as one list of class slices for every chunk of voxels.
fn by_chunk(scores: &mut [f32], count: usize) -> Vec<Vec<&mut [f32]>> {
    let mut chunks: Vec<Vec<&mut [f32]>> = (0..count.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
    for class in scores.chunks_exact_mut(count.max(1)) {
        class.chunks_mut(CHUNK).zip(&mut chunks).for_each(|(part, chunk)| chunk.push(part));
    }
    chunks
}

/// [`Rows`] filled up with zeros to whole tiles.
struct Padded<'a> {
    /// (padded P, `width`), and tile by tile (padded P / TILE, `width`, TILE)
    values: Vec<f32>,
    tiles: Vec<[f32; TILE]>,
    /// (padded P)
    added: Vec<f32>,
    width: usize,
    count: usize,
    channels: usize,
    ends: &'a [usize],
}

impl<'a> Padded<'a> {
    fn new(rows: Rows<'a>) -> Self {
        let count = rows.ends.last().copied().unwrap_or(0);
        assert_eq!(rows.values.len(), count * rows.channels, "unit rows (P, C)");
        let width = rows.channels.next_multiple_of(CHANNELS);
        let mut values = vec![0f32; count.next_multiple_of(TILE) * width];
        for (to, from) in values.chunks_exact_mut(width).zip(rows.values.chunks_exact(rows.channels)) {
            to[..rows.channels].copy_from_slice(from);
        }
        let tile = |rows: &[f32], channel: usize| std::array::from_fn(|row| rows[row * width + channel]);
        let tiles = values.chunks_exact(TILE * width).flat_map(|rows| (0..width).map(move |c| tile(rows, c))).collect();
        let added = vec![0f32; count.next_multiple_of(TILE)];
        Self { values, tiles, added, width, count, channels: rows.channels, ends: rows.ends }
    }

    /// With `added` (P) to what the rows say, or nothing if it is empty.
    fn with(mut self, added: &[f32]) -> Self {
        assert!([0, self.count].contains(&added.len()), "a number a row (P)");
        self.added[..added.len()].copy_from_slice(added);
        self
    }

    fn classes(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends).map(|(start, &end)| start..end)
    }
}

/// What one thread does with a chunk of voxels, in the widest vectors that the processor has.
struct Work<'a, 'b> {
    voxels: &'a [f32],
    rows: &'a Padded<'a>,
    alpha: f32,
    task: Task<'a, 'b>,
}

enum Task<'a, 'b> {
    /// One slice a class.
    Scores(&'a mut [&'b mut [f32]]),
    Both {
        scores: &'a mut [&'b mut [f32]],
        logs: &'a mut [&'b mut [f32]],
    },
    Gradients {
        of_scores: Vec<&'a [f32]>,
        of_voxels: &'a mut [f32],
        of_rows: &'a mut [f32],
    },
}

impl WithSimd for Work<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (rows, channels) = (self.rows, self.rows.channels);
        let mut block = Block::new(simd, rows);
        for (index, voxels) in self.voxels.chunks(S::F32_LANES * channels).enumerate() {
            let first = index * S::F32_LANES;
            let lanes = first..first + voxels.len() / channels;
            block.load(voxels);
            block.products(self.alpha);
            for (class, members) in rows.classes().enumerate() {
                let softened = block.soften(members.clone());
                match &mut self.task {
                    Task::Scores(scores) => simd.partial_store_f32s(&mut scores[class][lanes.clone()], softened.score),
                    Task::Both { scores, logs } => {
                        simd.partial_store_f32s(&mut scores[class][lanes.clone()], softened.score);
                        simd.partial_store_f32s(&mut logs[class][lanes.clone()], softened.largest);
                        let totals: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&softened.total));
                        logs[class][lanes.clone()].iter_mut().zip(totals).for_each(|(log, total)| *log += total.ln());
                    }
                    Task::Gradients { of_scores, .. } => {
                        let upstream = simd.partial_load_f32s(&of_scores[class][lanes.clone()]);
                        let slope = simd.mul_f32s(upstream, simd.splat_f32s(self.alpha));
                        block.differentiate(members, &softened, slope);
                    }
                }
            }
            if let Task::Gradients { of_voxels, of_rows, .. } = &mut self.task {
                block.add_gradient_of_rows(of_rows);
                block.gradient_of_voxels(&mut of_voxels[lanes.start * channels..lanes.end * channels]);
            }
        }
    }
}

/// A class's score S, max d, S - max d, sum_k e^(d_k - max d), and one over that.
struct Softened<S: Simd> {
    score: S::f32s,
    largest: S::f32s,
    below: S::f32s,
    total: S::f32s,
    inverse: S::f32s,
}

/// As many voxels as a vector register has lanes, and what they have to do with every prototype.
struct Block<'a, S: Simd> {
    simd: S,
    rows: &'a Padded<'a>,
    /// Unit voxels, (lanes, width), and transposed (width, lanes). Lanes without a voxel are zero.
    units: Vec<f32>,
    transposed: Vec<f32>,
    /// 1 / |q|
    inverse: Vec<f32>,
    /// d, later dL/d(p . q), by prototype.
    products: Vec<S::f32s>,
    /// e^(d - max d), by prototype.
    weights: Vec<S::f32s>,
    /// dL/du, (width, lanes)
    of_units: Vec<f32>,
}

impl<'a, S: Simd> Block<'a, S> {
    #[inline(always)]
    fn new(simd: S, rows: &'a Padded<'a>) -> Self {
        let count = rows.count.next_multiple_of(TILE);
        let [units, transposed, of_units] = [0; 3].map(|_| vec![0.0; S::F32_LANES * rows.width]);
        let [products, weights] = [0; 2].map(|_| vec![simd.splat_f32s(0.0); count]);
        Self { simd, rows, units, transposed, inverse: vec![0.0; S::F32_LANES], products, weights, of_units }
    }

    #[inline(always)]
    fn load(&mut self, voxels: &[f32]) {
        self.transposed.fill(0.0);
        self.units.fill(0.0);
        let lanes = voxels.chunks_exact(self.rows.channels).zip(self.units.chunks_exact_mut(self.rows.width));
        for (lane, (voxel, unit)) in lanes.enumerate() {
            let length = voxel.iter().map(|value| value * value).sum::<f32>().sqrt();
            self.inverse[lane] = 1.0 / length.max(1e-12);
            for (channel, value) in voxel.iter().enumerate() {
                unit[channel] = value * self.inverse[lane];
                self.transposed[channel * S::F32_LANES + lane] = unit[channel];
            }
        }
    }

    /// d = alpha p . q, and what is added to it.
    #[inline(always)]
    fn products(&mut self, alpha: f32) {
        let simd = self.simd;
        let (lanes, _) = S::as_simd_f32s(&self.transposed);
        let alpha = simd.splat_f32s(alpha);
        let tiles = self.rows.tiles.chunks_exact(self.rows.width).zip(self.rows.added.chunks_exact(TILE));
        for ((values, added), products) in tiles.zip(self.products.chunks_exact_mut(TILE)) {
            let mut sums = [simd.splat_f32s(0.0); TILE];
            for (values, &lanes) in values.iter().zip(lanes) {
                for row in 0..TILE {
                    sums[row] = simd.mul_add_e_f32s(simd.splat_f32s(values[row]), lanes, sums[row]);
                }
            }
            for row in 0..TILE {
                products[row] = simd.mul_add_e_f32s(alpha, sums[row], simd.splat_f32s(added[row]));
            }
        }
    }

    /// Over the rows of one class: d becomes d - max d, in which rounding errors are small, and the weights e^that.
    #[inline(always)]
    fn soften(&mut self, members: Range<usize>) -> Softened<S> {
        let simd = self.simd;
        if members.is_empty() {
            let [zero, one, score, largest] = [0.0, 1.0, ABSENT, NONE].map(|value| simd.splat_f32s(value));
            return Softened { score, largest, below: zero, total: one, inverse: zero };
        }
        let (products, weights) = (&mut self.products[members.clone()], &mut self.weights[members]);
        let largest = products.iter().fold(products[0], |largest, &d| simd.max_f32s(largest, d));
        let (mut total, mut below) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for (d, w) in products.iter_mut().zip(weights) {
            *d = simd.sub_f32s(*d, largest);
            *w = exp(simd, *d);
            total = simd.add_f32s(total, *w);
            below = simd.mul_add_e_f32s(*w, *d, below);
        }
        let inverse = simd.div_f32s(simd.splat_f32s(1.0), total);
        let below = simd.mul_f32s(below, inverse); // S - max d
        Softened { score: simd.add_f32s(largest, below), largest, below, total, inverse }
    }

    /// Replaces d - max d by dL/d(p . q) = alpha dL/dS w (1 + d - S) for the rows of one class; `slope` is alpha dL/dS.
    #[inline(always)]
    fn differentiate(&mut self, members: Range<usize>, softened: &Softened<S>, slope: S::f32s) {
        let simd = self.simd;
        let slope = simd.mul_f32s(slope, softened.inverse);
        let rest = simd.sub_f32s(simd.splat_f32s(1.0), softened.below);
        for (d, &w) in self.products[members.clone()].iter_mut().zip(&self.weights[members]) {
            *d = simd.mul_f32s(simd.mul_f32s(slope, w), simd.add_f32s(rest, *d));
        }
    }

    /// dL/dp += sum over the voxels of dL/d(p . q) q
    #[inline(always)]
    fn add_gradient_of_rows(&self, of_rows: &mut [f32]) {
        let (simd, width) = (self.simd, self.rows.width);
        let (units, _) = S::as_simd_f32s(&self.units);
        let (of_rows, _) = S::as_mut_simd_f32s(of_rows);
        let vectors = width / S::F32_LANES;
        for (of_rows, slopes) in of_rows.chunks_exact_mut(TILE * vectors).zip(self.products.chunks_exact(TILE)) {
            let slopes: &[f32] = pulp::bytemuck::cast_slice(slopes);
            let slopes: [&[f32]; TILE] = std::array::from_fn(|row| &slopes[row * S::F32_LANES..][..S::F32_LANES]);
            for vector in 0..vectors {
                let mut sums: [S::f32s; TILE] = std::array::from_fn(|row| of_rows[row * vectors + vector]);
                for lane in 0..S::F32_LANES {
                    let unit = units[lane * vectors + vector];
                    for row in 0..TILE {
                        sums[row] = simd.mul_add_e_f32s(simd.splat_f32s(slopes[row][lane]), unit, sums[row]);
                    }
                }
                for row in 0..TILE {
                    of_rows[row * vectors + vector] = sums[row];
                }
            }
        }
    }

    /// With u = q / |q|, dL/du = sum_k dL/d(p_k . q) p_k and dL/dq = (dL/du - (dL/du . u) u) / |q|.
    #[inline(always)]
    fn gradient_of_voxels(&mut self, of_voxels: &mut [f32]) {
        let (simd, width) = (self.simd, self.rows.width);
        let (transposed, _) = S::as_simd_f32s(&self.transposed);
        let (of_units, _) = S::as_mut_simd_f32s(&mut self.of_units);
        let mut along = simd.splat_f32s(0.0);
        for (tile, (of_units, units)) in of_units.chunks_exact_mut(TILE).zip(transposed.chunks_exact(TILE)).enumerate()
        {
            let mut sums = [simd.splat_f32s(0.0); TILE];
            for (&slopes, row) in self.products.iter().zip(self.rows.values.chunks_exact(width)) {
                let row: &[f32; TILE] = row[tile * TILE..][..TILE].try_into().expect("a whole tile");
                for channel in 0..TILE {
                    sums[channel] = simd.mul_add_e_f32s(simd.splat_f32s(row[channel]), slopes, sums[channel]);
                }
            }
            for channel in 0..TILE {
                of_units[channel] = sums[channel];
                along = simd.mul_add_e_f32s(sums[channel], units[channel], along);
            }
        }
        let along: &[f32] = pulp::bytemuck::cast_slice(std::slice::from_ref(&along));
        let lanes = of_voxels.chunks_exact_mut(self.rows.channels).zip(self.units.chunks_exact(width));
        for (lane, (of_voxel, unit)) in lanes.enumerate() {
            for (channel, gradient) in of_voxel.iter_mut().enumerate() {
                let of_unit = self.of_units[channel * S::F32_LANES + lane];
                *gradient = (of_unit - along[lane] * unit[channel]) * self.inverse[lane];
            }
        }
    }
}

/// e^x for x <= 0, to 2e-7 of its value (that of -87 for what is below): 2^n e^r with |r| <= ln 2 / 2, and Cephes'
/// polynomial for e^r.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest whole number in the last bits
    const POLYNOMIAL: [f32; 5] = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let splat = |value| simd.splat_f32s(value);
    let x = simd.max_f32s(x, splat(-87.0));
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_e_f32s(n, splat(-0.693_359_4), x); // ln 2 in two parts
    let r = simd.mul_add_e_f32s(n, splat(2.121_944_4e-4), r);
    let mut sum = splat(1.987_569_1e-4);
    for coefficient in POLYNOMIAL {
        sum = simd.mul_add_e_f32s(sum, r, splat(coefficient));
    }
    let e = simd.mul_add_e_f32s(sum, simd.mul_f32s(r, r), simd.add_f32s(r, splat(1.0)));
    let exponent =
        simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127u32.wrapping_sub(ROUND.to_bits())));
    let power = simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23));
    simd.mul_f32s(e, simd.transmute_f32s_u32s(power))
}
