//! PNG images of slices with regions outlined or filled, in radiological display (the patient's right at the image's
//! left, anterior up, superior up; sagittal with anterior at the left).

use super::canvas::{Canvas, Rgb, hue};
use crate::percentile::percentile;
use crate::volume::Image;
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use std::collections::{BTreeMap, BTreeSet};

/// Opacity of a filled region.
const FILL: f32 = 0.45;
/// Smallest height of an axial slice in pixels.
const PREVIEW_HEIGHT_PX: f64 = 384.0;
const OVERLAY_HEIGHT_PX: f64 = 288.0;
const GAP_PX: usize = 4;

/// One plane of a volume in display orientation: rows downwards, columns to the right, and their spacing.
struct Plane<T> {
    pixels: Array2<T>,
    spacing_mm: [f64; 2],
}

#[derive(Debug, Clone, Copy)]
enum View {
    Axial,
    Coronal,
    Sagittal,
}

/// Axial, coronal and sagittal middle slices of `image` side by side, with each region of `labels` outlined in its own
/// colour, as PNG. Both are `[z, y, x]` on one grid.
///
/// # Panics
/// The shapes differ.
pub fn preview_png(image: &Image, labels: ArrayView3<i32>) -> Vec<u8> {
    assert_eq!(image.voxels.shape(), labels.shape(), "image and labels lie on one grid");
    let window = Window::of(image.voxels.view());
    let spacing_mm = image.geometry.spacing_mm();
    let px_per_mm = scale(spacing_mm, labels.dim(), PREVIEW_HEIGHT_PX);
    let panels = [View::Axial, View::Coronal, View::Sagittal].map(|view| {
        let index = labels.len_of(view.axis()) / 2;
        let grey = view.plane(image.voxels.view(), spacing_mm, index);
        let regions = shown(&view.plane(labels, spacing_mm, index), px_per_mm);
        let mut canvas = grey_canvas(&grey, px_per_mm, window);
        outline(&mut canvas, regions.view(), |label| Some(hue(label)));
        canvas
    });
    Canvas::row(&panels, GAP_PX).to_png()
}

/// A PNG with one row for each of the axial `slices`: the image, the truth if there is one, the prediction. Regions are
/// filled and outlined in `colours` by label; labels without a colour are not drawn. All arrays are `[z, y, x]` on one
/// grid.
///
/// # Panics
/// The shapes differ.
pub fn overlay_png(
    image: &Image,
    truth: Option<ArrayView3<i32>>,
    prediction: ArrayView3<i32>,
    colours: &BTreeMap<i32, Rgb>,
    slices: &[usize],
) -> Vec<u8> {
    let window = Window::of(image.voxels.view());
    let spacing_mm = image.geometry.spacing_mm();
    let px_per_mm = scale(spacing_mm, prediction.dim(), OVERLAY_HEIGHT_PX);
    let row = |&z: &usize| {
        let plain = grey_canvas(&View::Axial.plane(image.voxels.view(), spacing_mm, z), px_per_mm, window);
        let painted = |labels: ArrayView3<i32>| {
            assert_eq!(image.voxels.shape(), labels.shape(), "image and labels lie on one grid");
            let regions = shown(&View::Axial.plane(labels, spacing_mm, z), px_per_mm);
            let mut canvas = plain.clone();
            fill(&mut canvas, regions.view(), colours);
            outline(&mut canvas, regions.view(), |label| colours.get(&label).copied());
            canvas
        };
        let labelled: Vec<Canvas> = truth.into_iter().chain([prediction]).map(painted).collect();
        let panels: Vec<Canvas> = std::iter::once(plain.clone()).chain(labelled).collect();
        Canvas::row(&panels, GAP_PX)
    };
    Canvas::column(&slices.iter().map(row).collect::<Vec<_>>(), GAP_PX).to_png()
}

/// Up to `n` axial slices that together show the labels best, from inferior to superior. Each next slice is the one
/// with the greatest gain: for every label its fraction of the label's largest area, beyond the best fraction among
/// chosen slices, and a tenth of its fraction besides.
pub fn best_slices(labels: ArrayView3<i32>, n: usize) -> Vec<usize> {
    let areas: Vec<BTreeMap<i32, f64>> = labels
        .outer_iter()
        .map(|slice| {
            let mut areas = BTreeMap::new();
            for &label in slice.iter().filter(|&&label| label != 0) {
                *areas.entry(label).or_insert(0.0) += 1.0;
            }
            areas
        })
        .collect();
    let mut largest = BTreeMap::<i32, f64>::new();
    for (&label, &area) in areas.iter().flatten() {
        let most = largest.entry(label).or_default();
        *most = most.max(area);
    }
    let mut chosen = BTreeSet::new();
    let mut covered = BTreeMap::<i32, f64>::new();
    while chosen.len() < n.min(areas.len()) {
        let gain = |z: usize| -> f64 {
            areas[z]
                .iter()
                .map(|(label, area)| {
                    let share = area / largest[label];
                    (share - covered.get(label).copied().unwrap_or(0.0)).max(0.0) + 0.1 * share
                })
                .sum()
        };
        let candidates = (0..areas.len()).filter(|z| !chosen.contains(z));
        let Some(best) = candidates.max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(b.cmp(&a))) else { break };
        if areas[best].is_empty() && !chosen.is_empty() {
            break;
        }
        for (&label, &area) in &areas[best] {
            let share = covered.entry(label).or_default();
            *share = share.max(area / largest[&label]);
        }
        chosen.insert(best);
    }
    chosen.into_iter().collect()
}

/// A colour for each class, in order, distinguishable on grey with every kind of colour vision (Okabe and Ito).
pub fn class_colours(labels: &[i32]) -> BTreeMap<i32, Rgb> {
    const PALETTE: [Rgb; 7] =
        [[230, 159, 0], [86, 180, 233], [0, 158, 115], [204, 121, 167], [240, 228, 66], [213, 94, 0], [0, 114, 178]];
    labels
        .iter()
        .enumerate()
        .map(|(i, &label)| (label, PALETTE.get(i).copied().unwrap_or_else(|| hue(label))))
        .collect()
}

impl View {
    /// The array axis perpendicular to the view.
    fn axis(self) -> Axis {
        match self {
            Self::Axial => Axis(0),
            Self::Coronal => Axis(1),
            Self::Sagittal => Axis(2),
        }
    }

    /// The plane at `index` in display orientation: in RAS+ every displayed axis runs against its index.
    fn plane<T: Copy>(self, voxels: ArrayView3<T>, spacing_mm: [f64; 3], index: usize) -> Plane<T> {
        let mut plane = voxels.index_axis(self.axis(), index);
        plane.invert_axis(Axis(0));
        plane.invert_axis(Axis(1));
        let [z, y, x] = spacing_mm;
        let spacing_mm = match self {
            Self::Axial => [y, x],
            Self::Coronal => [z, x],
            Self::Sagittal => [z, y],
        };
        Plane { pixels: plane.to_owned(), spacing_mm }
    }
}

/// Pixels per millimetre, so that an axial slice has at least the given height and no voxel is lost.
fn scale(spacing_mm: [f64; 3], (_, height, _): (usize, usize, usize), height_px: f64) -> f64 {
    let finest = spacing_mm[1].min(spacing_mm[2]);
    (height_px / (height as f64 * spacing_mm[1])).max(1.0 / finest)
}

impl<T> Plane<T> {
    fn size_px(&self, px_per_mm: f64) -> (usize, usize) {
        let side = |axis: usize| {
            let length_mm = self.pixels.shape()[axis] as f64 * self.spacing_mm[axis];
            ((length_mm * px_per_mm).round() as usize).max(1)
        };
        (side(0), side(1))
    }

    /// Position of the centre of display pixel `px` among the plane's pixels.
    fn source(&self, px: usize, axis: usize, px_per_mm: f64) -> f64 {
        (px as f64 + 0.5) / (px_per_mm * self.spacing_mm[axis]) - 0.5
    }
}

/// Labels at display size, by nearest neighbour.
fn shown(plane: &Plane<i32>, px_per_mm: f64) -> Array2<i32> {
    let nearest =
        |px, axis| (plane.source(px, axis, px_per_mm).round().max(0.0) as usize).min(plane.pixels.shape()[axis] - 1);
    Array2::from_shape_fn(plane.size_px(px_per_mm), |(y, x)| plane.pixels[[nearest(y, 0), nearest(x, 1)]])
}

/// Intensities at display size, by linear interpolation.
fn grey_canvas(plane: &Plane<f32>, px_per_mm: f64, window: Window) -> Canvas {
    let corners = |px, axis: usize| {
        let last = plane.pixels.shape()[axis] - 1;
        let at = plane.source(px, axis, px_per_mm).clamp(0.0, last as f64);
        let low = at.floor() as usize;
        (low, (low + 1).min(last), (at - low as f64) as f32)
    };
    let (height, width) = plane.size_px(px_per_mm);
    let columns: Vec<_> = (0..width).map(|x| corners(x, 1)).collect();
    let mut canvas = Canvas::new(height, width);
    for y in 0..height {
        let (top, bottom, v) = corners(y, 0);
        for (x, &(left, right, u)) in columns.iter().enumerate() {
            let mix = |row: usize| plane.pixels[[row, left]] * (1.0 - u) + plane.pixels[[row, right]] * u;
            let grey = window.grey(mix(top) * (1.0 - v) + mix(bottom) * v);
            canvas.set(y, x, [grey; 3]);
        }
    }
    canvas
}

fn fill(canvas: &mut Canvas, regions: ArrayView2<i32>, colours: &BTreeMap<i32, Rgb>) {
    for ((y, x), label) in regions.indexed_iter() {
        if let Some(&colour) = colours.get(label) {
            canvas.blend(y, x, colour, FILL);
        }
    }
}

/// Draws the rim of each region inside it, so that neighbours keep one line each.
fn outline(canvas: &mut Canvas, regions: ArrayView2<i32>, colour: impl Fn(i32) -> Option<Rgb>) {
    let (height, width) = regions.dim();
    for ((y, x), &label) in regions.indexed_iter() {
        let differs = |dy: isize, dx: isize| {
            let (y, x) = (y as isize + dy, x as isize + dx);
            let inside = y >= 0 && x >= 0 && (y as usize) < height && (x as usize) < width;
            inside && regions[[y as usize, x as usize]] != label
        };
        let is_rim = label != 0 && (differs(0, 1) || differs(1, 0) || differs(0, -1) || differs(-1, 0));
        if is_rim && let Some(colour) = colour(label) {
            canvas.set(y, x, colour);
        }
    }
}

/// The intensities that are shown black and white.
#[derive(Clone, Copy)]
struct Window {
    low: f32,
    high: f32,
}

impl Window {
    /// The 1st and the 99.5th percentile of the finite intensities.
    fn of(voxels: ArrayView3<f32>) -> Self {
        let mut finite: Vec<f32> = voxels.iter().copied().filter(|v| v.is_finite()).collect();
        if finite.is_empty() {
            return Self { low: 0.0, high: 0.0 };
        }
        let [low, high] = [1.0, 99.5].map(|percent| percentile(&mut finite, percent) as f32);
        Self { low, high }
    }

    fn grey(self, value: f32) -> u8 {
        (255.0 * (value - self.low) / (self.high - self.low).max(f32::MIN_POSITIVE)).round() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Geometry, Volume};
    use ndarray::Array3;

    /// Decodes to (height, width, RGB).
    fn decode(png: &[u8]) -> (usize, usize, Vec<Rgb>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        (info.height as usize, info.width as usize, bytes.as_chunks::<3>().0.to_vec())
    }

    fn dark(shape_vox: [usize; 3], spacing_mm: [f64; 3]) -> Image {
        Volume { voxels: Array3::zeros(shape_vox), geometry: Geometry::with_spacing(shape_vox, spacing_mm) }
    }

    #[test]
    fn the_patients_right_is_at_the_left_and_anterior_is_up() {
        let image = dark([3, 8, 8], [5.0, 1.0, 1.0]);
        let mut labels = Array3::zeros((3, 8, 8));
        labels[[1, 7, 7]] = 1; // right, anterior
        let colours = class_colours(&[1]);
        let (height, width, pixels) = decode(&overlay_png(&image, None, labels.view(), &colours, &[1]));
        assert_eq!((height, width), (288, 2 * 288 + GAP_PX));
        let coloured: Vec<(usize, usize)> =
            (0..height * width).filter(|&i| pixels[i] == colours[&1]).map(|i| (i / width, i % width)).collect();
        let second = 288 + GAP_PX; // the prediction's panel
        assert!(!coloured.is_empty() && coloured.iter().all(|&(y, x)| y < 36 && (second..second + 36).contains(&x)));
    }

    #[test]
    fn views_keep_the_patients_proportions() {
        let image = dark([10, 40, 20], [8.0, 2.0, 4.0]);
        let labels = Array3::zeros((10, 40, 20));
        let (height, width, _) = decode(&preview_png(&image, labels.view()));
        // 80 mm in each direction, at 384 px.
        assert_eq!((height, width), (384, 3 * 384 + 2 * GAP_PX));
    }

    #[test]
    fn the_grey_window_spans_the_percentiles() {
        let ramp = Array3::from_shape_fn((1, 1, 1001), |(_, _, x)| if x == 500 { f32::NAN } else { x as f32 });
        let window = Window::of(ramp.view());
        assert!((window.low - 10.0).abs() <= 1.0 && (window.high - 995.0).abs() <= 1.0);
        assert_eq!((window.grey(-5.0), window.grey(2000.0), window.grey(f32::NAN)), (0, 255, 0));
    }

    #[test]
    fn the_best_slices_show_every_label_between_them() {
        let mut labels = Array3::zeros((6, 4, 4));
        labels.index_axis_mut(Axis(0), 1).fill(1);
        labels[[2, 0, 0]] = 1;
        labels.index_axis_mut(Axis(0), 4).fill(200);
        assert_eq!(best_slices(labels.view(), 2), [1, 4]);
        assert_eq!(best_slices(labels.view(), 1), [1]);
        assert_eq!(best_slices(labels.view(), 9), [1, 2, 4], "slices without a label add nothing");
        assert_eq!(best_slices(Array3::zeros((3, 2, 2)).view(), 2).len(), 1);
    }
}
