//! Scores on the voxels of the scan: scores are interpolated, never labels.

use super::evidence::intensity::Intensities;
use super::propagation::Propagated;
use crate::preprocessing::WorkingGrid;
use crate::prototypes::Competition;
use crate::tensor::to_channels;
use crate::volume::resample::{Weights, resize_columns, resize_rows};
use crate::volume::{Class, ClassMap};
use ndarray::{Array, Array2, Array3, Array4, ArrayView2, ArrayView3, ArrayViewMut2, Axis, RemoveAxis, Zip, s};
use rayon::prelude::*;
use std::cell::OnceCell;
use std::ops::Range;

/// Scores of background and classes on the native voxels of a scan. One slice of one class at native size is held per thread, never
/// all of them.
pub struct GridScores<'a> {
    grid: &'a WorkingGrid,
    /// (1 + K, z, y, x) on the working grid.
    channels: Array4<f32>,
    evidence: Vec<Table<'a>>,
    competition: Competition,
    propagated: Option<Blend>,
}

/// Labels of the supports, carried to the scan, that have a share in the scores.
struct Blend {
    grid: WorkingGrid,
    /// What each class gets, and last the factor of what it had, (K + 1, z, y, x).
    channels: Array4<f32>,
}

/// Evidence that is the same for all voxels of a kind.
struct Table<'a> {
    kinds: Kinds<'a>,
    /// [channel, kind]
    added: Array2<f32>,
}

/// The kind of each native voxel.
enum Kinds<'a> {
    /// Supervoxels 0 ..= n.
    Supervoxels(ArrayView3<'a, i32>),
    /// Bins of the intensity.
    Bins(Intensities<'a>),
}

impl Table<'_> {
    /// Adds to the scores of a channel on a part of slice `z`.
    fn add(&self, scores: &mut Array2<f32>, channel: usize, z: usize, [ys, xs]: [Range<usize>; 2]) {
        let (added, part) = (self.added.row(channel), s![z, ys, xs]);
        match &self.kinds {
            Kinds::Supervoxels(labels) => {
                scores.zip_mut_with(&labels.slice(part), |score, &label| *score += added[label as usize]);
            }
            Kinds::Bins(intensities) => {
                let image = intensities.image();
                scores.zip_mut_with(&image.slice(part), |score, &v| *score += added[intensities.bin(v)]);
            }
        }
    }
}

/// One channel's values on a slice, [seen y, seen x].
type Resized<'a> = &'a dyn Fn(usize) -> Array2<f32>;

impl<'a> GridScores<'a> {
    /// # Shapes
    /// `scores` (1 + K, z, y, x) on the working grid.
    pub fn new(grid: &'a WorkingGrid, scores: Array4<f32>, competition: Competition) -> Self {
        assert_eq!(scores.shape()[1..], grid.shape_vox, "scores lie on the working grid");
        let channels = if scores.is_standard_layout() { scores } else { scores.as_standard_layout().into_owned() };
        Self { grid, channels, evidence: vec![], competition, propagated: None }
    }

    fn classes(&self) -> usize {
        self.channels.shape()[0] - 1
    }

    /// Adds to each voxel's score `weight` times the mean score of its supervoxel.
    ///
    /// # Shapes
    /// `labels` on the native grid, from 0.
    pub fn with_supervoxel_mean(mut self, labels: ArrayView3<'a, i32>, weight: f64) -> Self {
        let count = labels.iter().max().map_or(0, |&last| last as usize + 1);
        let [zs, ys, xs] = self.grid.seen_native_vox();
        let seen = labels.slice(s![zs, ys, xs]);
        let mut sizes = vec![0u64; count];
        seen.iter().for_each(|&label| sizes[label as usize] += 1);
        let mut added = Array2::zeros((self.classes() + 1, count));
        for (channel, mut added) in added.outer_iter_mut().enumerate() {
            // Sums in order, so that the number of threads changes nothing.
            let of_slice = |slice: ArrayView2<i32>, resized: Resized| {
                let mut sums = vec![0.0; count];
                slice.iter().zip(&resized(channel)).for_each(|(&label, &v)| sums[label as usize] += f64::from(v));
                sums
            };
            let slices = self.map_slices(seen.outer_iter().collect(), of_slice);
            for (label, added) in added.iter_mut().enumerate() {
                let sum: f64 = slices.iter().map(|sums| sums[label]).sum();
                *added = (weight * sum / sizes[label].max(1) as f64) as f32;
            }
        }
        self.evidence.push(Table { kinds: Kinds::Supervoxels(labels), added });
        self
    }

    /// Adds to each voxel's score of a class `weight` times ln p(intensity | class), learned from the voxels that are confidently of
    /// the class by the scores so far: see [`Intensities::evidence`].
    pub fn with_intensities(mut self, intensities: Intensities<'a>, weight: f64) -> Self {
        let probabilities = self.probabilities();
        let classes = (0..self.classes()).map(Class::at);
        let evidence: Vec<Vec<f32>> =
            classes.map(|class| intensities.evidence(probabilities.of(class).view())).collect();
        let bins = evidence.first().map_or(0, Vec::len);
        let of = |(channel, bin): (usize, usize)| match Class::of_channel(channel) {
            Some(class) => weight as f32 * evidence[class.index()][bin],
            None => 0.0,
        };
        let added = Array2::from_shape_fn((self.classes() + 1, bins), of);
        self.evidence.push(Table { kinds: Kinds::Bins(intensities), added });
        self
    }

    /// The part of a native volume that lies on the network's grid.
    pub fn seen<'v, T>(&self, native: ArrayView3<'v, T>) -> ArrayView3<'v, T> {
        let [zs, ys, xs] = self.grid.seen_native_vox();
        native.slice_move(s![zs, ys, xs])
    }

    /// Each class is compared with the background alone from now on: its score becomes the difference from the background's, which becomes 0.
    pub fn against_background(mut self) -> Self {
        // Resampling is linear: what holds of the working grid's voxels holds of the scan's.
        subtract_first(&mut self.channels);
        self.evidence.iter_mut().for_each(|table| subtract_first(&mut table.added));
        Self { competition: Competition::OneVsRest, ..self }
    }

    /// The same, and propagated labels have their share in the scores, from those of the classes:
    ///
    /// ```text
    /// s_c = (1 - t k) (s_c - s_0) + t k ln(p_c / p_0)        t: share of the place, k: fraction that is annotated
    /// ```
    pub fn with_propagated(mut self, propagated: &Propagated, shares: &[f64]) -> Self {
        let channels = to_channels(&propagated.blend(shares));
        self.propagated = Some(Blend { grid: propagated.grid().clone(), channels });
        self.against_background()
    }

    /// Calls `f` for every axial slice of what the network saw in parallel, with the slice's own of `slices` and a function that gives one
    /// channel's scores on it; the results in order.
    fn map_slices<P: Send, R: Send>(&self, slices: Vec<P>, f: impl Fn(P, Resized) -> R + Sync) -> Vec<R> {
        let [zs, ys, xs] = self.grid.seen_native_vox();
        let seen = self.grid.seen_vox();
        let slicer = Slicer::new(self.grid, seen.clone());
        let blend = self.propagated.as_ref().map(|blend| (blend, Slicer::new(&blend.grid, seen.clone())));
        let on_slice = |((z, within), slice): ((usize, usize), P)| {
            let by_network = |channel: usize| {
                let mut scores = slicer.channel(&self.channels, channel, within);
                for table in &self.evidence {
                    table.add(&mut scores, channel, z, [ys.clone(), xs.clone()]);
                }
                scores
            };
            let kept = OnceCell::new();
            let resized = |channel: usize| {
                let mut scores = by_network(channel);
                if let (Some((blend, slicer)), Some(class)) = (&blend, Class::of_channel(channel)) {
                    let added = slicer.channel(&blend.channels, class.index(), within);
                    let kept = kept.get_or_init(|| slicer.channel(&blend.channels, self.classes(), within));
                    Zip::from(&mut scores).and(kept).and(&added).for_each(|score, kept, added| {
                        *score = kept * *score + added;
                    });
                }
                scores
            };
            f(slice, &resized)
        };
        let slices: Vec<_> = zs.zip(seen[0].clone()).zip(slices).collect();
        slices.into_par_iter().map(on_slice).collect()
    }

    /// The label value of the greatest score `[z, y, x]`; of equal ones the first, and 0 where the network saw nothing.
    pub fn labels(&self, classes: &ClassMap) -> Array3<i32> {
        assert_eq!(classes.len(), self.classes(), "one channel for each class");
        let fill = |mut slice: ArrayViewMut2<i32>, of: Resized| {
            let mut best = of(0);
            for class in classes.iter() {
                for ((label, best), &score) in slice.iter_mut().zip(&mut best).zip(&of(class.channel())) {
                    if score > *best {
                        (*label, *best) = (classes.value(class), score);
                    }
                }
            }
        };
        self.filled(0, fill)
    }

    /// The scores of one channel; `outside` where the network saw nothing.
    pub fn of(&self, channel: usize, outside: f32) -> Array3<f32> {
        self.filled(outside, |mut slice, of| slice.assign(&of(channel)))
    }

    /// Which classes compete.
    pub fn competition(&self) -> Competition {
        self.competition
    }

    /// The probabilities of the classes (Eq. 3.4).
    pub fn probabilities(&self) -> GridProbabilities<'_, 'a> {
        let log_sum = (self.competition == Competition::Joint).then(|| self.log_sum(0.0));
        GridProbabilities { scores: self, log_sum }
    }

    /// ln sum_c exp(score_c), what a softmax over all channels subtracts; `outside` where the network saw nothing.
    fn log_sum(&self, outside: f32) -> Array3<f32> {
        let fill = |mut slice: ArrayViewMut2<f32>, of: Resized| {
            slice.assign(&of(0));
            for channel in 1..=self.classes() {
                // ln(e^a + e^b) = max + ln(1 + e^-|a - b|)
                slice.zip_mut_with(&of(channel), |sum, &v| *sum = sum.max(v) + (-(*sum - v).abs()).exp().ln_1p());
            }
        };
        self.filled(outside, fill)
    }

    /// A native volume whose slices are filled in parallel, given each channel's scores there.
    fn filled<T: Clone + Send + Sync>(&self, outside: T, fill: impl Fn(ArrayViewMut2<T>, Resized) + Sync) -> Array3<T> {
        let mut native = Array3::from_elem(self.grid.native_shape_vox, outside);
        let [zs, ys, xs] = self.grid.seen_native_vox();
        let mut seen = native.slice_mut(s![zs, ys, xs]);
        self.map_slices(seen.outer_iter_mut().collect(), fill);
        native
    }
}

/// Subtracts the first part along axis 0, the background's, from all of them.
fn subtract_first<D: RemoveAxis>(parts: &mut Array<f32, D>) {
    let first = parts.index_axis(Axis(0), 0).to_owned();
    parts.outer_iter_mut().for_each(|mut part| part -= &first);
}

/// Probabilities on the native grid, one class at a time.
pub struct GridProbabilities<'g, 'a> {
    scores: &'g GridScores<'a>,
    /// None where each class competes with its background alone.
    log_sum: Option<Array3<f32>>,
}

impl GridProbabilities<'_, '_> {
    /// The probability of a class `[z, y, x]`; 0 where the network saw nothing.
    pub fn of(&self, class: Class) -> Array3<f32> {
        let mut score = self.scores.of(class.channel(), f32::NEG_INFINITY);
        match &self.log_sum {
            Some(log_sum) => score.zip_mut_with(log_sum, |score, log_sum| *score = (*score - log_sum).exp().min(1.0)),
            None => score.mapv_inplace(|score| 1.0 / (1.0 + (-score).exp())),
        }
        score
    }
}

impl WorkingGrid {
    /// The native voxels whose centres lie in what the network sees.
    fn seen_native_vox(&self) -> [Range<usize>; 3] {
        let seen = self.seen_vox();
        [0, 1, 2].map(|axis| self.start_vox[axis] + seen[axis].start..self.start_vox[axis] + seen[axis].end)
    }
}

/// Channels of a working grid on axial slices of its scan. Beyond the border of the grid its last values go on.
struct Slicer {
    /// Weights of the resampled voxels along z, y, x.
    over: [Weights; 3],
    /// The voxel of the working grid that each resampled one is.
    on: [Vec<usize>; 3],
    shape_vox: [usize; 3],
    crop_vox: [usize; 3],
    /// What is kept of the box along y, x.
    kept: [Range<usize>; 2],
}

impl Slicer {
    /// Keeps `kept` of the box of the grid, in native voxels from its start.
    fn new(grid: &WorkingGrid, [_, ys, xs]: [Range<usize>; 3]) -> Self {
        let (crop_vox, offset) = (grid.crop_shape_vox(), grid.offset_vox());
        let over = [0, 1, 2].map(|axis| Weights::new(grid.resampled_vox[axis], crop_vox[axis]));
        let on = [0, 1, 2].map(|axis| {
            let last = grid.shape_vox[axis] as isize - 1;
            let on_array = |i: usize| (i as isize - offset[axis]).clamp(0, last) as usize;
            (0..grid.resampled_vox[axis]).map(on_array).collect()
        });
        Self { over, on, shape_vox: grid.shape_vox, crop_vox, kept: [ys, xs] }
    }

    /// One of `channels` (c, z, y, x) of the working grid on slice `z` of the box, [kept y, kept x].
    fn channel(&self, channels: &Array4<f32>, channel: usize, z: usize) -> Array2<f32> {
        let ([over_z, over_y, over_x], [on_z, on_y, on_x]) = (&self.over, &self.on);
        let ([_, ny, nx], [ys, xs]) = (self.shape_vox, &self.kept);
        let mut slab = vec![0.0; ny * nx]; // [ny, nx]
        for (j, w) in over_z.taps(z) {
            let source = channels.slice(s![channel, on_z[j], .., ..]);
            let source = source.to_slice().expect("standard layout");
            slab.iter_mut().zip(source).for_each(|(out, &v)| *out += w * v);
        }
        if [on_y.len(), on_x.len()] != [ny, nx] {
            // [resampled y, resampled x]
            let row = |&y: &usize| &slab[y * nx..][..nx];
            slab = on_y.iter().map(row).flat_map(|row| on_x.iter().map(|&x| row[x])).collect();
        }
        // Columns first, while there are few rows; rows are added up as a whole.
        let [_, crop_y, crop_x] = self.crop_vox;
        let mut columns = vec![0.0; on_y.len() * crop_x]; // [resampled y, crop x]
        resize_columns(&slab, &mut columns, on_x.len(), over_x);
        let mut out = Array2::zeros([crop_y, crop_x]);
        resize_rows(&columns, out.as_slice_mut().expect("new"), crop_x, over_y);
        out.slice_move(s![ys.clone(), xs.clone()]) // [kept y, kept x]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::evidence::intensity;
    use crate::rng;
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
        let plain = GridScores::new(&grid, scores.clone(), Competition::Joint);
        let pooled =
            GridScores::new(&grid, scores.clone(), Competition::Joint).with_supervoxel_mean(regions.view(), 0.7);
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
        let pooled =
            GridScores::new(&grid, scores.clone(), Competition::Joint).with_supervoxel_mean(regions.view(), 1.0);
        let each = [0, 1, 2].map(|class| pooled.of(class, f32::NAN));
        let map = ClassMap::new([1, 2]).unwrap();
        let (labels, log_sum) = (pooled.labels(&map), pooled.log_sum(f32::NAN));
        for (at, &class) in labels.indexed_iter() {
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
        let plain = GridScores::new(&grid, scores.clone(), Competition::Joint);
        let classes = ClassMap::new([1]).unwrap();
        assert!(plain.labels(&classes).iter().all(|&label| label == 1));
        let config = intensity::Config { weight: 2.0, ..intensity::tests::CONFIG };
        let intensities = Intensities::new(image.view(), plain.seen(image.view()), &config);
        let informed = plain.with_intensities(intensities, config.weight);
        assert!(informed.labels(&classes).indexed_iter().all(|((_, _, x), &label)| label == i32::from(x < 6)));
        assert!(informed.of(0, 0.0).iter().all(|&score| score == 0.0), "the background stays as it was");
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes() {
        let (grid, scores, regions) = example();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                GridScores::new(&grid, scores.clone(), Competition::Joint)
                    .with_supervoxel_mean(regions.view(), 1.0)
                    .of(1, 0.0)
            })
        };
        let alone = with(1);
        assert!(with(2) == alone && with(3) == alone);
    }

    #[test]
    fn propagated_labels_have_their_share_on_any_grid() {
        let (grid, scores, _) = example();
        let plain = GridScores::new(&grid, scores.clone(), Competition::Joint);
        let against = |class: usize| plain.of(class, f32::NAN) - plain.of(0, f32::NAN);
        // One class is everywhere, the other nowhere.
        let ones = || tch::Tensor::ones([1, 1, 3, 4, 5], (tch::Kind::Float, tch::Device::Cpu));
        let propagated = Propagated::new(grid.resized([3, 4, 5]), ones(), vec![ones(), ones() * 0.0]);
        let with = |shares: [f64; 2]| {
            GridScores::new(&grid, scores.clone(), Competition::Joint).with_propagated(&propagated, &shares)
        };
        let close = |a: &Array3<f32>, b: &Array3<f32>| {
            a.iter().zip(b).all(|(a, b)| a.is_nan() && b.is_nan() || (a - b).abs() < 1e-4)
        };
        let blended = with([0.0, 0.0]);
        assert_eq!(blended.competition(), Competition::OneVsRest);
        assert!(blended.of(0, f32::NAN).iter().all(|score| score.is_nan() || *score == 0.0));
        assert!(close(&blended.of(2, f32::NAN), &against(2)), "a share of 0 leaves the network's");
        let sure = (1.02f32 / 0.02).ln();
        // Of both classes, by what is there of each and by its own share.
        let share = (0.8 * 0.8 * 1.02 + 0.4 * 0.4 * 0.02) / (0.8 * 1.02 + 0.4 * 0.02);
        let blended = with([0.8, 0.4]);
        let first = against(1).mapv(|score| (1.0 - share) * score + share * sure);
        assert!(close(&blended.of(1, f32::NAN), &first));
        let second = against(2).mapv(|score| (1.0 - share) * score); // ln of 0.02 against 0.02
        assert!(close(&blended.of(2, f32::NAN), &second));
    }
}
