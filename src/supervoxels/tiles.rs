//! The assignment step of SLIC: the exact nearest centre of each voxel, found with few comparisons.
//!
//! Slices are cut into tiles of 8 x 8 voxels. First the tile is compared with the centres that owned some of its voxels
//! in the round before: the largest of the voxels' least distances bounds the cost of a better centre. Then the tile is
//! compared with all centres whose lower bound of the distance to any of its voxels is not above that; at k = 400 on
//! abdominal MRI these are 9 of 50. Rounding is monotonic and the bounds are computed by the operations of the
//! distances, so they hold to the last bit.

use super::seeds::{Centre, Grid};
use ndarray::Array3;
use rayon::prelude::*;
use std::array::from_fn;

/// Owner of a voxel that no window covers, or that takes no part.
const NOBODY: u32 = u32::MAX;
const SIDE: usize = 8;
/// Largest number of owners that a tile remembers, and the distance in voxels at which they are sampled.
const LIKELY: usize = 4;
const SAMPLING: usize = 7;
const TILE: usize = SIDE * SIDE;
/// Intensities are summed in units of 2^-40: whole numbers, so that the order does not matter.
const INTENSITY_UNIT: f64 = 1.0 / (1u64 << 40) as f64;

/// The voxels of a volume in tiles, each with its centre, and the sums over the voxels of each centre.
pub(super) struct Tiles<'a> {
    grid: &'a Grid<'a>,
    /// Number of tiles along y and x.
    per_slice: [usize; 2],
    tiles: Vec<Tile>,
    /// Sums of each centre.
    pub sums: Vec<Sums>,
}

/// Sums over the voxels of a centre.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    count: i64,
    position_vox: [i64; 3],
    intensity: i128,
}

impl Sums {
    /// The centre of the voxels; `None` without voxels.
    pub fn mean(&self) -> Option<Centre> {
        let count = self.count as f64;
        (self.count > 0).then(|| Centre {
            position_vox: self.position_vox.map(|sum| sum as f64 / count),
            intensity: self.intensity as f64 * INTENSITY_UNIT / count,
        })
    }

    #[inline(always)]
    fn of_voxel(at: [usize; 3], intensity: f32) -> Self {
        let intensity = (f64::from(intensity) / INTENSITY_UNIT) as i64;
        Self { count: 1, position_vox: at.map(|at| at as i64), intensity: intensity.into() }
    }

    /// Adds `other` (`times` is 1) or subtracts it (`times` is -1).
    #[inline(always)]
    fn add(&mut self, other: &Sums, times: i64) {
        self.count += times * other.count;
        self.intensity += i128::from(times) * other.intensity;
        (0..3).for_each(|a| self.position_vox[a] += times * other.position_vox[a]);
    }
}

#[repr(align(32))]
struct Tile {
    /// NaN where there is no voxel, or one outside the mask.
    intensity: [f32; TILE],
    owner: [u32; TILE],
    /// Some owners of the tile's voxels; NOBODY if there are fewer.
    likely: [u32; LIKELY],
    /// Lowest and highest intensity; the first is larger where the tile is empty.
    range: [f32; 2],
}

impl<'a> Tiles<'a> {
    /// Cuts the voxels into tiles; no voxel has an owner yet.
    pub fn new(grid: &'a Grid<'a>, centres: usize) -> Self {
        let [depth, height, width] = grid.shape;
        let per_slice = [height.div_ceil(SIDE), width.div_ceil(SIDE)];
        let tile = |index: usize| {
            let [z, first_y, x] = origin(index, per_slice);
            let mut intensity = [f32::NAN; TILE];
            for (y, row) in (first_y..height).zip(intensity.chunks_exact_mut(SIDE)) {
                let voxels = grid.index([z, y, x])..grid.index([z, y, width.min(x + SIDE)]);
                row[..voxels.len()].copy_from_slice(&grid.intensity[voxels.clone()]);
                if let Some(mask) = grid.mask {
                    let outside = row.iter_mut().zip(&mask[voxels]).filter(|(_, inside)| !**inside);
                    outside.for_each(|(intensity, _)| *intensity = f32::NAN);
                }
            }
            let (mut low, mut high) = ([f32::MAX; SIDE], [f32::MIN; SIDE]);
            for (i, &v) in intensity.iter().enumerate() {
                let (low, high) = (&mut low[i % SIDE], &mut high[i % SIDE]);
                *low = if v < *low { v } else { *low };
                *high = if v > *high { v } else { *high };
            }
            let range = [low.into_iter().fold(f32::MAX, f32::min), high.into_iter().fold(f32::MIN, f32::max)];
            Tile { intensity, owner: [NOBODY; TILE], likely: [NOBODY; LIKELY], range }
        };
        let tiles = (0..depth * per_slice[0] * per_slice[1]).into_par_iter().map(tile).collect();
        Self { grid, per_slice, tiles, sums: vec![Sums::default(); centres] }
    }

    /// Assigns every voxel to the nearest centre whose window covers it (the lower index among equals).
    pub fn assign(&mut self, centres: &[Centre], window_mm: f64, weight: f64) {
        let round = Round::new(self.grid, centres, window_mm, weight);
        let per_slice = self.per_slice;
        let slices = self.tiles.par_chunks_mut(per_slice[0] * per_slice[1]).enumerate();
        let changes = slices.fold(
            || vec![Sums::default(); centres.len()],
            |mut changes, (z, tiles)| {
                round.assign_slice(z, tiles, per_slice[1], &mut changes);
                changes
            },
        );
        let add = |mut total: Vec<Sums>, part: Vec<Sums>| {
            total.iter_mut().zip(&part).for_each(|(total, part)| total.add(part, 1));
            total
        };
        self.sums =
            changes.chain(rayon::iter::once(std::mem::take(&mut self.sums))).reduce_with(add).expect("the sums so far");
    }

    /// Index of the owner + 1 for each voxel `[z, y, x]`; 0 for voxels without one.
    pub fn labels(&self) -> Array3<i32> {
        let [_, height, width] = self.grid.shape;
        let mut labels = Array3::zeros(self.grid.shape);
        let slices = labels.as_slice_mut().expect("standard layout").par_chunks_mut(height * width);
        slices.zip(self.tiles.par_chunks(self.per_slice[0] * self.per_slice[1])).for_each(|(labels, tiles)| {
            for (y, labels) in labels.chunks_exact_mut(width).enumerate() {
                let row = &tiles[y / SIDE * self.per_slice[1]..];
                for (labels, tile) in labels.chunks_mut(SIDE).zip(row) {
                    let owners = &tile.owner[y % SIDE * SIDE..];
                    labels.iter_mut().zip(owners).for_each(|(label, &owner)| *label = owner.wrapping_add(1) as i32);
                }
            }
        });
        labels
    }
}

/// First voxel of a tile.
fn origin(index: usize, [rows, columns]: [usize; 2]) -> [usize; 3] {
    [index / columns / rows, index / columns % rows * SIDE, index % columns * SIDE]
}

/// Quantities of the centres for one round of assignment, in units of D.
struct Round<'a> {
    centres: &'a [Centre],
    window_vox: [f64; 3],
    /// Length of one voxel along z, y, x in units of D.
    scaled: [f64; 3],
    along_x: Vec<f32>,
}

/// The centres whose windows cover a row of tiles, in the order of their indices.
#[derive(Default)]
struct Reaching {
    index: Vec<u32>,
    intensity: Vec<f32>,
    x: Vec<f32>,
    /// First voxel in the window along x, and one past the last.
    window: [Vec<i32>; 2],
    /// Squared distance along z and y for each row of voxels; infinite outside the window.
    apart: Vec<[f32; SIDE]>,
    least_apart: Vec<f32>,
}

impl<'a> Round<'a> {
    fn new(grid: &Grid, centres: &'a [Centre], window_mm: f64, weight: f64) -> Self {
        let scaled = grid.spacing_mm.map(|mm| mm * weight);
        let along_x = (0..grid.shape[2].next_multiple_of(SIDE)).map(|x| (x as f64 * scaled[2]) as f32).collect();
        Self { centres, window_vox: grid.spacing_mm.map(|mm| window_mm / mm), scaled, along_x }
    }

    fn assign_slice(&self, z: usize, tiles: &mut [Tile], columns: usize, changes: &mut [Sums]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.assign_slice_avx2(z, tiles, columns, changes) };
        }
        self.assign_slice_with(nearest, z, tiles, columns, changes);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn assign_slice_avx2(&self, z: usize, tiles: &mut [Tile], columns: usize, changes: &mut [Sums]) {
        let nearest = |tile: &_, at: &_, reaching: &_, of: &[u32]| nearest_avx2(tile, at, reaching, of);
        self.assign_slice_with(nearest, z, tiles, columns, changes);
    }

    #[inline(always)]
    fn assign_slice_with(
        &self,
        nearest: impl Fn(&[f32; TILE], &Place, &Reaching, &[u32]) -> ([f32; TILE], [u32; TILE]),
        z: usize,
        tiles: &mut [Tile],
        columns: usize,
        changes: &mut [Sums],
    ) {
        let near = |c: &u32| (self.centres[*c as usize].position_vox[0] - z as f64).abs() <= self.window_vox[0];
        let near_slice: Vec<u32> = (0..self.centres.len() as u32).filter(near).collect();
        let mut place = vec![NOBODY; self.centres.len()]; // of each centre among those reaching the row
        let (mut reaching, mut lower, mut close) = (Reaching::default(), Vec::new(), Vec::new());
        for (row, tiles) in tiles.chunks_exact_mut(columns).enumerate() {
            self.find_reaching(&near_slice, z, row * SIDE, &mut reaching);
            lower.resize(reaching.index.len(), 0.0);
            close.resize(reaching.index.len() + 1, 0);
            reaching.index.iter().enumerate().for_each(|(local, &c)| place[c as usize] = local as u32);
            let mut likely = [NOBODY; LIKELY]; // in the tile before
            for (column, tile) in tiles.iter_mut().enumerate().filter(|(_, tile)| tile.range[0] <= tile.range[1]) {
                let at = Place::new(&self.along_x, column * SIDE);
                lower_bounds(tile.range, &at, &reaching, &mut lower);
                if tile.likely[0] == NOBODY {
                    tile.likely = likely;
                }
                let mut known = [0; LIKELY];
                let mut count = 0;
                for &centre in &tile.likely {
                    if let Some(&local) = place.get(centre as usize)
                        && local != NOBODY
                    {
                        known[count] = local;
                        count += 1;
                    }
                }
                let lowest = |&a: &u32, &b: &u32| lower[a as usize].total_cmp(&lower[b as usize]);
                if count == 0
                    && let Some(local) = (0..lower.len() as u32).min_by(lowest)
                {
                    known[0] = local;
                    count = 1;
                }
                let (least, _) = nearest(&tile.intensity, &at, &reaching, &known[..count]);
                let farthest = largest(&least);
                let mut count = 0;
                for (local, &lower) in (0..).zip(&lower) {
                    close[count] = local; // overwritten unless it is close
                    count += usize::from(lower <= farthest);
                }
                let (_, owner) = nearest(&tile.intensity, &at, &reaching, &close[..count]);
                if tile.owner != owner {
                    tile.change_owners([z, row * SIDE, column * SIDE], owner, changes);
                }
                likely = tile.likely;
            }
            reaching.index.iter().for_each(|&c| place[c as usize] = NOBODY);
        }
    }

    #[inline(always)]
    fn find_reaching(&self, near_slice: &[u32], z: usize, first_y: usize, reaching: &mut Reaching) {
        reaching.clear();
        for &index in near_slice {
            let Centre { position_vox: [cz, cy, cx], intensity } = self.centres[index as usize];
            let last_y = (first_y + SIDE - 1) as f64;
            if cy - last_y > self.window_vox[1] || first_y as f64 - cy > self.window_vox[1] {
                continue;
            }
            let apart_z = ((z as f64 - cz) * self.scaled[0]).powi(2);
            let (mut apart, mut least_apart) = ([f32::INFINITY; SIDE], f32::INFINITY);
            for (y, apart) in (first_y..).zip(&mut apart) {
                let y = y as f64;
                if (cy - y).abs() <= self.window_vox[1] {
                    *apart = (apart_z + ((y - cy) * self.scaled[1]).powi(2)) as f32;
                    least_apart = apart.min(least_apart);
                }
            }
            if least_apart == f32::INFINITY {
                continue;
            }
            reaching.index.push(index);
            reaching.intensity.push(intensity as f32);
            reaching.x.push((cx * self.scaled[2]) as f32);
            reaching.window[0].push((cx - self.window_vox[2]).ceil() as i32);
            reaching.window[1].push(((cx + self.window_vox[2]).floor() as i32).saturating_add(1));
            reaching.apart.push(apart);
            reaching.least_apart.push(least_apart);
        }
    }
}

impl Reaching {
    /// Removes all centres and keeps the memory.
    fn clear(&mut self) {
        let Self { index, intensity, x, window, apart, least_apart } = self;
        index.clear();
        [intensity, x, least_apart].into_iter().for_each(Vec::clear);
        window.iter_mut().for_each(Vec::clear);
        apart.clear();
    }
}

/// Position of the columns of a tile along x, in voxels and in units of D.
struct Place {
    x_vox: [i32; SIDE],
    x: [f32; SIDE],
}

impl Place {
    #[inline(always)]
    fn new(along_x: &[f32], first: usize) -> Self {
        let x = along_x[first..][..SIDE].try_into().expect("whole tiles");
        Self { x_vox: from_fn(|x| (first + x) as i32), x }
    }
}

impl Tile {
    /// Sets the owners and adds the changes of the sums to `changes`.
    #[inline(always)]
    fn change_owners(&mut self, [z, y, x]: [usize; 3], owner: [u32; TILE], changes: &mut [Sums]) {
        let mut changed = 0u64;
        let rows = self.owner.chunks_exact(SIDE).zip(owner.chunks_exact(SIDE));
        for (row, (before, after)) in rows.enumerate() {
            let differs: [u8; SIDE] = from_fn(|x| u8::from(before[x] != after[x]));
            // The product brings the lowest bits of the eight bytes together in the highest.
            let bits = u64::from_le_bytes(differs).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            changed |= bits << (row * SIDE);
        }
        while changed != 0 {
            let i = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let voxel = Sums::of_voxel([z, y + i / SIDE, x + i % SIDE], self.intensity[i]);
            if let Some(sums) = changes.get_mut(self.owner[i] as usize) {
                sums.add(&voxel, -1);
            }
            if let Some(sums) = changes.get_mut(owner[i] as usize) {
                sums.add(&voxel, 1);
            }
        }
        self.owner = owner;
        self.likely = [NOBODY; LIKELY];
        let mut found = 0;
        for &owner in owner.iter().step_by(SAMPLING) {
            if found < LIKELY && !self.likely.contains(&owner) {
                self.likely[found] = owner;
                found += 1;
            }
        }
    }
}

/// Lower bounds of the distances of each centre to all voxels of the tile; infinite if its window does not cover the
/// tile.
#[inline(always)]
fn lower_bounds(range: [f32; 2], at: &Place, reaching: &Reaching, lower: &mut [f32]) {
    let count = reaching.index.len();
    let (intensity, x, least_apart) =
        (&reaching.intensity[..count], &reaching.x[..count], &reaching.least_apart[..count]);
    let (first, end) = (&reaching.window[0][..count], &reaching.window[1][..count]);
    let lower = &mut lower[..count];
    for c in 0..count {
        let difference = beyond(intensity[c], range[0], range[1]);
        let across = beyond(x[c], at.x[0], at.x[SIDE - 1]);
        let bound = difference * difference + across * across + least_apart[c];
        let inside = (first[c] <= at.x_vox[SIDE - 1]) & (at.x_vox[0] < end[c]);
        lower[c] = if inside { bound } else { f32::INFINITY };
    }
}

#[inline(always)]
fn beyond(value: f32, low: f32, high: f32) -> f32 {
    let outside = if low - value > value - high { low - value } else { value - high };
    if outside > 0.0 { outside } else { 0.0 }
}

/// For each voxel the squared distance to the nearest of the centres `of`, and that centre's index (the first among
/// equals). The distances start above any finite distance, and below any for places without a voxel.
#[inline(always)]
fn nearest(intensity: &[f32; TILE], at: &Place, reaching: &Reaching, of: &[u32]) -> ([f32; TILE], [u32; TILE]) {
    let mut least = intensity.map(|v| if v.is_nan() { -1.0 } else { f32::MAX });
    let mut owner = [NOBODY; TILE];
    for local in of.iter().map(|&local| local as usize) {
        let [first, end] = [0, 1].map(|side| reaching.window[side][local]);
        let across: [f32; SIDE] = from_fn(|x| {
            let apart = at.x[x] - reaching.x[local];
            if first <= at.x_vox[x] && at.x_vox[x] < end { apart * apart } else { f32::INFINITY }
        });
        let (centre, apart, index) = (reaching.intensity[local], &reaching.apart[local], reaching.index[local]);
        for i in 0..TILE {
            let difference = intensity[i] - centre;
            let distance = difference * difference + across[i % SIDE] + apart[i / SIDE];
            if distance < least[i] {
                (least[i], owner[i]) = (distance, index);
            }
        }
    }
    (least, owner)
}

/// [`nearest`] in vectors of a row of the tile, four rows at a time: the same operations in the same order.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn nearest_avx2(intensity: &[f32; TILE], at: &Place, reaching: &Reaching, of: &[u32]) -> ([f32; TILE], [u32; TILE]) {
    use std::arch::x86_64::*;
    const ROWS: usize = 4;
    let (mut least, mut owner) = ([0.0; TILE], [0; TILE]);
    // SAFETY: the pointers are to SIDE elements each.
    let load = |values: &[f32]| unsafe { _mm256_loadu_ps(values[..SIDE].as_ptr()) };
    let x = load(&at.x);
    // SAFETY: as above.
    let x_vox = unsafe { _mm256_loadu_si256(at.x_vox.as_ptr().cast()) };
    let (empty, full) = (_mm256_set1_ps(-1.0), _mm256_set1_ps(f32::MAX));
    let outside = _mm256_set1_ps(f32::INFINITY);
    for part in 0..SIDE / ROWS {
        let values: [__m256; ROWS] = from_fn(|row| load(&intensity[(part * ROWS + row) * SIDE..]));
        let mut nearest = values.map(|v| _mm256_blendv_ps(full, empty, _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v)));
        let mut owners = [_mm256_castsi256_ps(_mm256_set1_epi32(NOBODY as i32)); ROWS];
        for local in of.iter().map(|&local| local as usize) {
            let [first, end] = [0, 1].map(|side| _mm256_set1_epi32(reaching.window[side][local]));
            let inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(first, x_vox), _mm256_cmpgt_epi32(end, x_vox));
            let across = _mm256_sub_ps(x, _mm256_set1_ps(reaching.x[local]));
            let across = _mm256_blendv_ps(outside, _mm256_mul_ps(across, across), _mm256_castsi256_ps(inside));
            let index = _mm256_castsi256_ps(_mm256_set1_epi32(reaching.index[local] as i32));
            let (centre, apart) = (_mm256_set1_ps(reaching.intensity[local]), &reaching.apart[local]);
            for row in 0..ROWS {
                let difference = _mm256_sub_ps(values[row], centre);
                let distance = _mm256_add_ps(_mm256_mul_ps(difference, difference), across);
                let distance = _mm256_add_ps(distance, _mm256_set1_ps(apart[part * ROWS + row]));
                let nearer = _mm256_cmp_ps::<_CMP_LT_OQ>(distance, nearest[row]);
                nearest[row] = _mm256_min_ps(distance, nearest[row]);
                owners[row] = _mm256_blendv_ps(owners[row], index, nearer);
            }
        }
        for row in 0..ROWS {
            let at = (part * ROWS + row) * SIDE;
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(least[at..][..SIDE].as_mut_ptr(), nearest[row]);
                _mm256_storeu_ps(owner[at..][..SIDE].as_mut_ptr().cast(), owners[row]);
            }
        }
    }
    (least, owner)
}

#[inline(always)]
fn largest(values: &[f32; TILE]) -> f32 {
    let mut lanes = [0f32; SIDE];
    for row in values.chunks_exact(SIDE) {
        for (lane, &value) in lanes.iter_mut().zip(row) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, |a, b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests;
