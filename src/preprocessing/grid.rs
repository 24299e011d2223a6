//! The grid of the network's array in a scan.

use super::{Annotation, Config, Resample};
use crate::volume::resample::{resize, resize_known_labels, resize_labels};
use crate::volume::{ClassMap, Geometry};
use ndarray::{Array3, ArrayView3, Zip, s};
use std::ops::Range;

/// A scan shows a part of another where it reaches less than this fraction as far: extents of the scans of CHAOS T2 differ by up to 1.5.
const PART: f64 = 0.6;

/// How a scan (canonical frame, native voxels) maps to the network's array: a box of it is resampled over the same
/// extent, then cut or padded. Along each axis, between voxel indices,
///
/// ```text
/// native + 1/2 = start + (working + offset + 1/2) (end - start) / resampled
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingGrid {
    /// Number of voxels of the scan along z, y, x.
    pub native_shape_vox: [usize; 3],
    /// First native voxel of the box, z y x.
    pub start_vox: [usize; 3],
    /// One past its last.
    pub end_vox: [usize; 3],
    /// Voxels that the box is resampled to.
    pub resampled_vox: [usize; 3],
    /// The network's array: the middle of those, cut or padded.
    pub shape_vox: [usize; 3],
}

impl WorkingGrid {
    /// For a scan of which only a box is looked at, all of it where that is None.
    pub(super) fn new(native: &Geometry, seen: Option<[Range<usize>; 3]>, config: &Config) -> Self {
        let (native_shape_vox, spacing_mm) = (native.shape_vox, native.spacing_mm());
        let seen = seen.unwrap_or(native_shape_vox.map(|n| 0..n));
        let (start_vox, end_vox) = (seen.each_ref().map(|range| range.start), seen.map(|range| range.end));
        let mut shape_vox = config.size_vox;
        let own_slices = shape_vox[0] == 0;
        if own_slices {
            shape_vox[0] = end_vox[0] - start_vox[0];
        }
        let resampled_vox = match config.resample {
            Resample::Size => shape_vox,
            Resample::Spacing => [0, 1, 2].map(|axis| {
                if axis == 0 && own_slices {
                    return shape_vox[0];
                }
                let extent_mm = (end_vox[axis] - start_vox[axis]) as f64 * spacing_mm[axis];
                ((extent_mm / config.spacing_mm[axis]).round() as usize).max(1)
            }),
        };
        Self { native_shape_vox, start_vox, end_vox, resampled_vox, shape_vox }
    }

    /// All of an array of this shape, voxel by voxel.
    pub fn whole(shape_vox: [usize; 3]) -> Self {
        let (native_shape_vox, end_vox, resampled_vox) = (shape_vox, shape_vox, shape_vox);
        Self { native_shape_vox, start_vox: [0; 3], end_vox, resampled_vox, shape_vox }
    }

    /// The extent of the array in another number of voxels; cut or padded in the same proportion, to whole voxels.
    pub fn resized(&self, size_vox: [usize; 3]) -> Self {
        let resampled_vox = [0, 1, 2].map(|axis| {
            let fraction = self.resampled_vox[axis] as f64 / self.shape_vox[axis] as f64;
            ((size_vox[axis] as f64 * fraction).round() as usize).max(1)
        });
        Self { resampled_vox, shape_vox: size_vox, ..self.clone() }
    }

    /// The array of a scan that shows a part of what another one shows, as far as their extents tell: along an axis where it reaches less than
    /// [`PART`] as far, it is padded to the extent of the other. Otherwise the part would be stretched to the whole. None where it is no part,
    /// or has a fixed spacing. Extents count beside the middle one of the three, so that a small body is no part of a large one, nor a head of
    /// one with shoulders.
    pub(crate) fn as_part(&self, native: &Geometry, of_extent_mm: [f64; 3], config: &Config) -> Option<Self> {
        let extent_mm = self.extent_mm(native);
        let ratio = [0, 1, 2].map(|axis| extent_mm[axis] / of_extent_mm[axis]);
        let mut sorted = ratio;
        sorted.sort_by(f64::total_cmp);
        let whole = sorted[1];
        let is_part = |axis: usize| config.size_vox[axis] > 0 && ratio[axis] < PART * whole;
        if config.resample == Resample::Spacing || !(0..3).any(is_part) {
            return None;
        }
        let resampled_vox = [0, 1, 2].map(|axis| match is_part(axis) {
            true => ((self.shape_vox[axis] as f64 * ratio[axis] / whole).round() as usize).max(1),
            false => self.resampled_vox[axis],
        });
        Some(Self { resampled_vox, ..self.clone() })
    }

    /// Extent of the array along z, y, x.
    pub(crate) fn extent_mm(&self, native: &Geometry) -> [f64; 3] {
        let spacing_mm = self.spacing_mm(native);
        [0, 1, 2].map(|axis| spacing_mm[axis] * self.shape_vox[axis] as f64)
    }

    /// The network's slice that shows most of a native one.
    pub fn slice_of(&self, native: usize) -> usize {
        let within = native.saturating_sub(self.start_vox[0]) as isize;
        let resampled = (2 * within + 1) * self.resampled_vox[0] as isize / (2 * self.crop_shape_vox()[0] as isize);
        (resampled - self.offset_vox()[0]).clamp(0, self.shape_vox[0] as isize - 1) as usize
    }

    /// The network's slices that show a range of native ones: the first, and how many. All of them for all native ones.
    pub fn slices_of(&self, native: &Range<usize>) -> (usize, usize) {
        if *native == (0..self.native_shape_vox[0]) {
            return (0, self.shape_vox[0]);
        }
        let (first, last) = (self.slice_of(native.start), self.slice_of(native.end - 1));
        (first, last - first + 1)
    }

    /// Where native slices lie in the depth of the network's array: 0 is its first face, 1 its last one.
    pub fn depth_of(&self, slices: &Range<usize>) -> Range<f64> {
        let on_array = |face: usize| {
            let within = (face as f64 - self.start_vox[0] as f64) / self.crop_shape_vox()[0] as f64;
            (within * self.resampled_vox[0] as f64 - self.offset_vox()[0] as f64) / self.shape_vox[0] as f64
        };
        on_array(slices.start)..on_array(slices.end)
    }

    /// Native labels onto the working grid, class by class; padded with 0.
    pub fn labels(&self, native: ArrayView3<i32>) -> Array3<i32> {
        self.placed(resize_labels(self.cropped(native), self.resampled_vox), 0)
    }

    /// The channels of native label values on the working grid; 0 for every value that is none of `classes`.
    pub fn classes(&self, native: ArrayView3<i32>, classes: &ClassMap) -> Array3<u8> {
        let channels = native.mapv(|label| i32::from(classes.channel(label)));
        self.labels(channels.view()).mapv(|channel| channel as u8)
    }

    /// The same of an annotated volume: the channels of the annotated part of each voxel, and the fraction of it that is annotated;
    /// None where all that the network sees is. Padding is not annotated.
    pub fn annotation(&self, annotation: &Annotation, classes: &ClassMap) -> (Array3<u8>, Option<Array3<f32>>) {
        let labels = annotation.labels().voxels.view();
        let Some(known) = annotation.known() else { return (self.classes(labels, classes), None) };
        let visible = self.cropped(known.view());
        if visible.iter().all(|known| *known) {
            return (self.classes(labels, classes), None);
        }
        let fractions = visible.mapv(|known| f32::from(u8::from(known)));
        let fractions = self.placed(resize(fractions.view(), self.resampled_vox), 0.0);
        // Beside the channels, which are not negative, a label for what is not annotated, which the resampling leaves out.
        const UNKNOWN: i32 = -1;
        let channels = Zip::from(&labels).and(known).map_collect(|label, known| match known {
            true => i32::from(classes.channel(*label)),
            false => UNKNOWN,
        });
        let channels = resize_known_labels(self.cropped(channels.view()), self.resampled_vox, Some(UNKNOWN));
        (self.placed(channels, 0).mapv(|channel| channel as u8), Some(fractions))
    }

    /// The fraction of each voxel of which `is` holds.
    pub fn fractions<T>(&self, native: ArrayView3<T>, is: impl Fn(&T) -> bool) -> Array3<f32> {
        let mask = self.cropped(native).map(|of| f32::from(u8::from(is(of))));
        self.placed(resize(mask.view(), self.resampled_vox), 0.0)
    }

    /// Distance between working voxels along z, y, x; off the configured one by what rounding to whole voxels asks.
    pub fn spacing_mm(&self, native: &Geometry) -> [f64; 3] {
        let spacing = native.spacing_mm();
        let crop = self.crop_shape_vox();
        [0, 1, 2].map(|axis| spacing[axis] * crop[axis] as f64 / self.resampled_vox[axis] as f64)
    }

    /// The same in nominal millimetres, those of a scan of which the network sees `nominal_extent_mm` in-plane. Lengths of the
    /// configuration are nominal, so that neither the unit of length nor the size of the patient changes what they do.
    pub fn nominal_spacing_mm(&self, native: &Geometry, nominal_extent_mm: f64) -> [f64; 3] {
        let nominal = self.nominal_mm(native, nominal_extent_mm);
        self.spacing_mm(native).map(|mm| mm * nominal)
    }

    /// How many nominal millimetres a millimetre of the scan is.
    pub(crate) fn nominal_mm(&self, native: &Geometry, nominal_extent_mm: f64) -> f64 {
        let [_, y, x] = self.extent_mm(native);
        nominal_extent_mm / (y * x).sqrt()
    }

    /// The extent of the array along z, y, x in voxels of the scan, to whole voxels.
    pub(crate) fn extent_vox(&self) -> [usize; 3] {
        let crop = self.crop_shape_vox();
        [0, 1, 2].map(|axis| (crop[axis] * self.shape_vox[axis]).div_ceil(self.resampled_vox[axis]))
    }

    pub(crate) fn crop_shape_vox(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.end_vox[axis] - self.start_vox[axis])
    }

    pub(super) fn cropped<'a, T>(&self, native: ArrayView3<'a, T>) -> ArrayView3<'a, T> {
        assert_eq!(native.shape(), self.native_shape_vox, "the grid was made from a volume of this shape");
        let ([z0, y0, x0], [z1, y1, x1]) = (self.start_vox, self.end_vox);
        native.slice_move(s![z0..z1, y0..y1, x0..x1])
    }

    /// Index, among the resampled voxels, of the network's first; below 0 where that is padding. The middle voxel,
    /// n / 2 of n, comes to lie on the middle voxel.
    pub(crate) fn offset_vox(&self) -> [isize; 3] {
        let middle = |n: usize| (n / 2) as isize;
        [0, 1, 2].map(|axis| middle(self.resampled_vox[axis]) - middle(self.shape_vox[axis]))
    }

    /// The resampled voxels that the network sees.
    fn visible_vox(&self) -> [Range<usize>; 3] {
        let offset = self.offset_vox();
        [0, 1, 2].map(|axis| {
            let end = offset[axis] + self.shape_vox[axis] as isize;
            offset[axis].max(0) as usize..(end as usize).min(self.resampled_vox[axis])
        })
    }

    /// The native voxels, counted from the start of the box, whose centres lie in what the network sees.
    pub(crate) fn seen_vox(&self) -> [Range<usize>; 3] {
        let (crop, visible) = (self.crop_shape_vox(), self.visible_vox());
        // (j + 1/2) resampled / crop >= face, in whole numbers
        let first_beyond = |axis: usize, face: usize| {
            let before = |&j: &usize| (2 * j + 1) * self.resampled_vox[axis] < 2 * face * crop[axis];
            (0..crop[axis]).take_while(before).count()
        };
        [0, 1, 2].map(|axis| first_beyond(axis, visible[axis].start)..first_beyond(axis, visible[axis].end))
    }

    /// The resampled box on the network's array.
    pub(super) fn placed<T: Clone>(&self, resampled: Array3<T>, padding: T) -> Array3<T> {
        if self.resampled_vox == self.shape_vox {
            return resampled;
        }
        let [zs, ys, xs] = self.visible_vox();
        let [z, y, x] = self.offset_vox().map(|offset| (-offset).max(0) as usize);
        let mut working = Array3::from_elem(self.shape_vox, padding);
        let mut inside = working.slice_mut(s![z..z + zs.len(), y..y + ys.len(), x..x + xs.len()]);
        inside.assign(&resampled.slice(s![zs, ys, xs]));
        working
    }

    /// The same, beyond the box with the values of its border.
    pub(super) fn extended(&self, resampled: Array3<f32>) -> Array3<f32> {
        if self.resampled_vox == self.shape_vox {
            return resampled;
        }
        let offset = self.offset_vox();
        let nearest = |axis: usize, at: usize| {
            (at as isize + offset[axis]).clamp(0, self.resampled_vox[axis] as isize - 1) as usize
        };
        Array3::from_shape_fn(self.shape_vox, |(z, y, x)| resampled[[nearest(0, z), nearest(1, y), nearest(2, x)]])
    }
}
