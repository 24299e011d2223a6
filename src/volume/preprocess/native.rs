//! The network's answer on the voxels of the scan: scores are interpolated, never labels.

use super::WorkingGrid;
use super::brightness::Brightness;
use crate::volume::resample::{Weights, resize_columns, resize_rows};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Scores of the classes on the native voxels of a scan. One slice of one class at native size is held per thread, never
/// all of them.
pub struct NativeScores<'a> {
    grid: &'a WorkingGrid,
    channels: Vec<ArrayView3<'a, f32>>,
    tables: Vec<Table<'a>>,
}

/// What voxels of a kind get added to their scores.
struct Table<'a> {
    kinds: Kinds<'a>,
    /// [class, kind]
    added: Array2<f32>,
}

/// The kind of each native voxel.
enum Kinds<'a> {
    /// Labels 0 ..= n.
    Regions(ArrayView3<'a, i32>),
    Bins(Brightness<'a>),
}

impl Table<'_> {
    /// Adds to the scores of a class on a part of slice `z`.
    fn add(&self, scores: &mut Array2<f32>, class: usize, z: usize, [ys, xs]: [Range<usize>; 2]) {
        let (added, part) = (self.added.row(class), s![z, ys, xs]);
        match &self.kinds {
            Kinds::Regions(labels) => {
                scores.zip_mut_with(&labels.slice(part), |score, &region| *score += added[region as usize]);
            }
            Kinds::Bins(brightness) => {
                let image = brightness.image();
                scores.zip_mut_with(&image.slice(part), |score, &v| *score += added[brightness.bin(v)]);
            }
        }
    }
}

/// One channel's values on a slice, [seen y, seen x].
type Resized<'a> = &'a dyn Fn(usize) -> Array2<f32>;

impl<'a> NativeScores<'a> {
    /// # Shapes
    /// `scores` (classes, z, y, x) on the working grid.
    pub fn new(grid: &'a WorkingGrid, scores: ArrayView4<'a, f32>) -> Self {
        let channels: Vec<_> = (0..scores.shape()[0]).map(|c| scores.index_axis_move(Axis(0), c)).collect();
        Self { grid, channels, tables: vec![] }
    }

    /// Adds to each voxel's score `weight` times the mean score of its region, so that a region's voxels decide together.
    ///
    /// # Shapes
    /// `labels` on the native grid, from 0; each value is a region.
    pub fn pooled(mut self, labels: ArrayView3<'a, i32>, weight: f64) -> Self {
        let count = labels.iter().max().map_or(0, |&last| last as usize + 1);
        let [zs, ys, xs] = self.grid.seen_native_vox();
        let seen = labels.slice(s![zs, ys, xs]);
        let mut sizes = vec![0u64; count];
        seen.iter().for_each(|&region| sizes[region as usize] += 1);
        let mut added = Array2::zeros((self.channels.len(), count));
        for (class, mut added) in added.outer_iter_mut().enumerate() {
            // Sums in order, so that the number of threads changes nothing.
            let of_slice = |slice: ArrayView2<i32>, resized: Resized| {
                let mut sums = vec![0.0; count];
                slice.iter().zip(&resized(class)).for_each(|(&region, &v)| sums[region as usize] += f64::from(v));
                sums
            };
            let slices = self.map_slices(seen.outer_iter().collect(), of_slice);
            for (region, added) in added.iter_mut().enumerate() {
                let sum: f64 = slices.iter().map(|sums| sums[region]).sum();
                *added = (weight * sum / sizes[region].max(1) as f64) as f32;
            }
        }
        self.tables.push(Table { kinds: Kinds::Regions(labels), added });
        self
    }

    /// The scan whose scores these are, as its brightness is looked at.
    pub fn brightness(&self, image: ArrayView3<'a, f32>) -> Brightness<'a> {
        let [zs, ys, xs] = self.grid.seen_native_vox();
        Brightness::new(image, image.slice(s![zs, ys, xs]))
    }

    /// Adds to each voxel's score of class 1, 2, ... `weight` times the evidence of its brightness: see [`Brightness::evidence`].
    pub fn lit(mut self, brightness: Brightness<'a>, evidence: &[Vec<f32>], weight: f64) -> Self {
        let bins = evidence.first().map_or(0, Vec::len);
        let of = |(class, bin): (usize, usize)| if class == 0 { 0.0 } else { weight as f32 * evidence[class - 1][bin] };
        let added = Array2::from_shape_fn((self.channels.len(), bins), of);
        self.tables.push(Table { kinds: Kinds::Bins(brightness), added });
        self
    }

    /// Calls `f` for every axial slice of what the network saw in parallel, as [`WorkingGrid::map_slices`].
    fn map_slices<P: Send, R: Send>(&self, slices: Vec<P>, f: impl Fn(P, Resized) -> R + Sync) -> Vec<R> {
        let [zs, ys, xs] = self.grid.seen_native_vox();
        self.grid.map_slices(zs.zip(slices).collect(), &self.channels, |(z, slice), resized| {
            f(slice, &|class| {
                let mut scores = resized(class);
                self.tables.iter().for_each(|table| table.add(&mut scores, class, z, [ys.clone(), xs.clone()]));
                scores
            })
        })
    }

    /// The class of the greatest score; of equal ones the first, and 0 where the network saw nothing.
    pub fn classes(&self) -> Array3<u8> {
        assert!((1..=256).contains(&self.channels.len()), "a class index of 8 bits");
        let fill = |mut slice: ArrayViewMut2<u8>, of: Resized| {
            let mut best = of(0);
            for class in 1..self.channels.len() {
                for ((index, best), &score) in slice.iter_mut().zip(&mut best).zip(&of(class)) {
                    if score > *best {
                        (*index, *best) = (class as u8, score);
                    }
                }
            }
        };
        self.filled(0, fill)
    }

    /// The scores of one class; `outside` where the network saw nothing.
    pub fn of(&self, class: usize, outside: f32) -> Array3<f32> {
        self.filled(outside, |mut slice, of| slice.assign(&of(class)))
    }

    /// ln sum_c exp(score_c), what a softmax over all classes subtracts; `outside` where the network saw nothing.
    pub fn log_sum(&self, outside: f32) -> Array3<f32> {
        let fill = |mut slice: ArrayViewMut2<f32>, of: Resized| {
            slice.assign(&of(0));
            for class in 1..self.channels.len() {
                // ln(e^a + e^b) = max + ln(1 + e^-|a - b|)
                slice.zip_mut_with(&of(class), |sum, &v| *sum = sum.max(v) + (-(*sum - v).abs()).exp().ln_1p());
            }
        };
        self.filled(outside, fill)
    }

    /// A native volume whose slices are filled in parallel, given each class's scores there.
    fn filled<T: Clone + Send + Sync>(&self, outside: T, fill: impl Fn(ArrayViewMut2<T>, Resized) + Sync) -> Array3<T> {
        let mut native = Array3::from_elem(self.grid.native_shape_vox, outside);
        let [zs, ys, xs] = self.grid.seen_native_vox();
        let mut seen = native.slice_mut(s![zs, ys, xs]);
        self.map_slices(seen.outer_iter_mut().collect(), fill);
        native
    }
}

impl WorkingGrid {
    /// The native voxels whose centres lie in what the network sees.
    fn seen_native_vox(&self) -> [Range<usize>; 3] {
        let seen = self.seen_vox();
        [0, 1, 2].map(|axis| self.start_vox[axis] + seen[axis].start..self.start_vox[axis] + seen[axis].end)
    }

    /// Calls `f` for every axial slice of what the network saw in parallel, with the slice's own of `slices` and a function
    /// that gives one channel's values on it; the results in order. Beyond the border of the working grid its last values
    /// go on.
    fn map_slices<P: Send, R: Send>(
        &self,
        slices: Vec<P>,
        channels: &[ArrayView3<f32>],
        f: impl Fn(P, Resized) -> R + Sync,
    ) -> Vec<R> {
        let (crop, offset, [zs, ys, xs]) = (self.crop_shape_vox(), self.offset_vox(), self.seen_vox());
        let [ny, nx] = [self.shape_vox[1], self.shape_vox[2]];
        let [over_z, over_y, over_x] = [0, 1, 2].map(|axis| Weights::new(self.resampled_vox[axis], crop[axis]));
        let [on_z, on_y, on_x] = [0, 1, 2].map(|axis| {
            let last = self.shape_vox[axis] as isize - 1;
            let on_array = |i: usize| (i as isize - offset[axis]).clamp(0, last) as usize;
            (0..self.resampled_vox[axis]).map(on_array).collect::<Vec<_>>()
        });
        let channels: Vec<_> = channels.iter().map(|channel| channel.as_standard_layout()).collect();
        for channel in &channels {
            assert_eq!(channel.shape(), self.shape_vox, "scores lie on the working grid");
        }
        let slices: Vec<_> = zs.zip(slices).collect();
        let on_slice = |(z, slice)| {
            let resized = |channel: usize| {
                let mut slab = vec![0.0; ny * nx]; // [ny, nx]
                for (j, w) in over_z.taps(z) {
                    let source = channels[channel].index_axis(Axis(0), on_z[j]);
                    let source = source.to_slice().expect("standard layout");
                    slab.iter_mut().zip(source).for_each(|(out, &v)| *out += w * v);
                }
                if [on_y.len(), on_x.len()] != [ny, nx] {
                    // [resampled y, resampled x]
                    let row = |&y: &usize| &slab[y * nx..][..nx];
                    slab = on_y.iter().map(row).flat_map(|row| on_x.iter().map(|&x| row[x])).collect();
                }
                let mut rows = vec![0.0; crop[1] * on_x.len()]; // [crop y, resampled x]
                resize_rows(&slab, &mut rows, on_x.len(), &over_y);
                let mut out = Array2::zeros([ys.len(), crop[2]]); // [seen y, crop x]
                let seen_rows = &rows[ys.start * on_x.len()..ys.end * on_x.len()];
                resize_columns(seen_rows, out.as_slice_mut().expect("new"), on_x.len(), &over_x);
                out.slice_move(s![.., xs.clone()]) // [seen y, seen x]
            };
            f(slice, &resized)
        };
        slices.into_par_iter().map(on_slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use ndarray::Array4;
    use rand::RngExt;

    /// A grid that sees only part of its scan, random scores of 3 classes on it, and 5 regions of the scan.
    fn example() -> (WorkingGrid, Array4<f32>, Array3<i32>) {
        let grid = WorkingGrid {
            native_shape_vox: [7, 11, 12],
            start_vox: [1, 2, 0],
            end_vox: [7, 10, 12],
            resampled_vox: [4, 8, 6],
            shape_vox: [5, 6, 6],
        };
        let mut rng = rng::stream(3, "native", 0);
        let scores = Array4::from_shape_simple_fn((3, 5, 6, 6), || rng.random_range(-3.0..3.0));
        let regions = Array3::from_shape_simple_fn((7, 11, 12), || rng.random_range(0..5));
        (grid, scores, regions)
    }

    #[test]
    fn regions_add_their_mean_to_their_voxels() {
        let (grid, scores, regions) = example();
        let plain = NativeScores::new(&grid, scores.view());
        let pooled = NativeScores::new(&grid, scores.view()).pooled(regions.view(), 0.7);
        for class in 0..3 {
            let (alone, together) = (plain.of(class, f32::NAN), pooled.of(class, f32::NAN));
            for region in 0..5 {
                let of_region =
                    || alone.iter().zip(&together).zip(&regions).filter(|(_, r)| **r == region).map(|(v, _)| v);
                let seen: Vec<_> = of_region().filter(|(v, _)| !v.is_nan()).collect();
                assert!(seen.len() < of_region().count() && of_region().all(|(a, b)| a.is_nan() == b.is_nan()));
                let mean = seen.iter().map(|(v, _)| f64::from(**v)).sum::<f64>() / seen.len() as f64;
                assert!(seen.iter().all(|(a, b)| (f64::from(**b - **a) - 0.7 * mean).abs() < 1e-5), "{region}");
            }
        }
    }

    #[test]
    fn the_class_is_that_of_the_greatest_score_and_probabilities_add_up_to_1() {
        let (grid, scores, regions) = example();
        let pooled = NativeScores::new(&grid, scores.view()).pooled(regions.view(), 1.0);
        let each = [0, 1, 2].map(|class| pooled.of(class, f32::NAN));
        let (classes, log_sum) = (pooled.classes(), pooled.log_sum(f32::NAN));
        for (at, &class) in classes.indexed_iter() {
            let here = [0, 1, 2].map(|class| each[class][at]);
            if here[0].is_nan() {
                assert!(class == 0 && log_sum[at].is_nan());
                continue;
            }
            assert!(here.iter().all(|&score| score <= here[class as usize]));
            let total: f32 = here.iter().map(|score| (score - log_sum[at]).exp()).sum();
            assert!((total - 1.0).abs() < 1e-5, "{total}");
        }
    }

    /// One class that the network is sure of in the dark half of a scan, and less sure of in the bright half.
    #[test]
    fn a_class_does_not_run_over_into_what_is_brighter_than_all_that_it_surely_is() {
        let shape = [6, 10, 12];
        let grid = WorkingGrid {
            native_shape_vox: shape,
            start_vox: [0; 3],
            end_vox: shape,
            resampled_vox: shape,
            shape_vox: shape,
        };
        let image =
            Array3::from_shape_fn(shape, |(z, y, x)| if x < 6 { 40.0 } else { 90.0 } + ((z + y + x) % 5) as f32);
        let scores = Array4::from_shape_fn((2, 6, 10, 12), |(class, _, _, x)| match (class, x) {
            (0, _) => 0.0,
            (_, 0..6) => 4.0,
            _ => 1.0,
        });
        let plain = NativeScores::new(&grid, scores.view());
        assert!(plain.classes().iter().all(|&class| class == 1));
        let brightness = plain.brightness(image.view());
        let probability = plain.of(1, 0.0).mapv(|score| 1.0 / (1.0 + (-score).exp()));
        let evidence = [brightness.evidence(probability.view())];
        let lit = plain.lit(brightness, &evidence, 2.0);
        assert!(lit.classes().indexed_iter().all(|((_, _, x), &class)| class == u8::from(x < 6)));
        assert!(lit.of(0, 0.0).iter().all(|&score| score == 0.0), "the background stays as it was");
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let (grid, scores, regions) = example();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| NativeScores::new(&grid, scores.view()).pooled(regions.view(), 1.0).of(1, 0.0))
        };
        let alone = with(1);
        assert!(with(2) == alone && with(3) == alone);
    }
}
