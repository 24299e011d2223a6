//! Supervoxels: the regions of a volume that serve as pseudo-labels in place of annotated organs (paper, section 3.1).

mod coarse;
pub mod felzenszwalb;
pub mod quality;
mod seeds;
pub mod slic;
mod tiles;

pub use coarse::Blocks;

use crate::error::{Error, Result};
use crate::percentile::percentile;
use crate::preprocessing::body_mask;
use crate::volume::{Image, padding};
use ndarray::Array3;

/// The algorithm that cuts a volume into regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// SLIC: k-means in space and intensity ([`slic`]).
    Slic,
    /// Felzenszwalb's graph-based segmentation of the whole volume ([`felzenszwalb`]).
    Felzenszwalb,
    /// Felzenszwalb's graph-based segmentation of each slice, for 2D baselines.
    #[serde(rename = "felzenszwalb-2d")]
    Felzenszwalb2d,
}

impl Method {
    /// Voxels of the largest image that it divides.
    pub const fn most_vox(self) -> usize {
        match self {
            Self::Slic => u32::MAX as usize,
            Self::Felzenszwalb => felzenszwalb::most_vox(13),
            Self::Felzenszwalb2d => felzenszwalb::most_vox(4),
        }
    }

    /// Bytes a voxel takes in [`generate`], its image and its region included.
    pub const fn bytes_per_vox(self) -> u64 {
        match self {
            Self::Slic => 48,
            Self::Felzenszwalb => 64,
            Self::Felzenszwalb2d => 40,
        }
    }
}

/// Section `[supervoxels]` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The algorithm.
    pub method: Method,
    /// Whether to leave out the air around the patient (label 0).
    pub body_mask: bool,
    /// Percentile of the intensities, above 0 to 100; higher intensities are set to it.
    pub clip_percentile: f64,
    /// Section `[supervoxels.slic]`.
    pub slic: slic::Config,
    /// Section `[supervoxels.felzenszwalb]`.
    pub felzenszwalb: felzenszwalb::Config,
}

impl Config {
    /// Checks the values of the section and its subsections.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.clip_percentile > 0.0 && self.clip_percentile <= 100.0) {
            return Err(Error::invalid(
                "supervoxels.clip_percentile",
                "a number above 0, at most 100",
                self.clip_percentile.to_string(),
                "change it in the configuration",
            ));
        }
        self.slic.check()?;
        self.felzenszwalb.check()
    }
}

/// Cuts an image into regions: contiguous labels 1..=n `[z, y, x]`, each region connected; 0 is padding, and outside of the body
/// where that is left out. Adding a constant to the intensities, or multiplying them by a positive one, does not change
/// the result.
///
/// ```
/// use ssl3d::supervoxels::{Config, Method, felzenszwalb, generate, slic};
/// let slic = slic::Config { k: 2, compactness: 0.1, iterations: 10, min_size_fraction: 0.1, tolerance_vox: 0.1 };
/// let felzenszwalb = felzenszwalb::Config { scale: 0.0039, min_size_fraction: 0.08, min_size_2d_vox: 10 };
/// let config = Config { method: Method::Slic, body_mask: false, clip_percentile: 100.0, slic, felzenszwalb };
/// let voxels = ndarray::Array3::from_shape_fn([4, 4, 8], |(_, _, x)| if x < 4 { 0.0 } else { 1.0 });
/// let geometry = ssl3d::volume::Geometry::with_spacing([4, 4, 8], [1.0; 3]);
/// let regions = generate(&ssl3d::volume::Volume { voxels, geometry }, &config);
/// assert!(regions.indexed_iter().all(|((_, _, x), &region)| region == if x < 4 { 1 } else { 2 }));
/// ```
///
/// # Panics
/// The image has more than [`Method::most_vox`] voxels.
pub fn generate(image: &Image, config: &Config) -> Array3<i32> {
    let unit = to_unit_range(&image.voxels, config.clip_percentile);
    let spacing_mm = image.geometry.spacing_mm();
    let mut body = config.body_mask.then(|| body_mask(unit.view()));
    if let Some(padding) = padding::mask(&image.voxels) {
        let body = body.get_or_insert_with(|| Array3::from_elem(padding.dim(), true));
        body.zip_mut_with(&padding, |is_body, is_padding| *is_body &= !is_padding);
    }
    let body = body.as_ref().map(|mask| mask.view());
    match config.method {
        Method::Slic => slic::segment(unit.view(), spacing_mm, body, &config.slic),
        Method::Felzenszwalb => felzenszwalb::segment((unit * 255.0).view(), spacing_mm, body, &config.felzenszwalb),
        Method::Felzenszwalb2d => felzenszwalb::segment_slices((unit * 255.0).view(), body, &config.felzenszwalb),
    }
}

/// Cuts an image into regions as [`generate`], or its blocks where these are larger than voxels; then image and regions are
/// never in memory together, and no image is given back.
pub fn divide(image: Image, blocks: &Blocks, config: &Config) -> (Array3<i32>, Option<Image>) {
    if blocks.are_voxels() {
        return (generate(&image, config), Some(image));
    }
    let means = blocks.means(&image);
    drop(image);
    let regions = blocks.regions(&means, config);
    drop(means);
    (blocks.spread(&regions), None)
}

/// Does the same as [`generate`] on no more than about `most_vox` voxels. A larger image is first averaged over
/// in-plane squares, sizes in voxels are scaled accordingly, and every voxel of a square gets the region of the square.
pub fn generate_within(image: &Image, config: &Config, most_vox: usize) -> Array3<i32> {
    let squares = Blocks::squares(most_vox, image.geometry.shape_vox);
    if squares.are_voxels() {
        return generate(image, config);
    }
    squares.spread(&squares.regions(&squares.means(image), config))
}

/// Scales intensities linearly so that the smallest is 0 and the given percentile 1, and clips higher ones. A constant
/// image becomes 0; values that are not finite count as the smallest.
pub fn to_unit_range(voxels: &Array3<f32>, clip_percentile: f64) -> Array3<f32> {
    let mut finite: Vec<f32> = voxels.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.is_empty() {
        return Array3::zeros(voxels.dim());
    }
    let (low, largest) = finite.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let high = match clip_percentile < 100.0 {
        true => percentile(&mut finite, clip_percentile) as f32,
        false => largest,
    };
    // Nearly all of the image may be air: then the percentile says nothing.
    let high = if high > low { high } else { largest };
    let (low, range) = (f64::from(low), f64::from(high) - f64::from(low));
    voxels.mapv(|value| match value.is_finite() && range > 0.0 {
        true => ((f64::from(value) - low) / range).min(1.0) as f32,
        false => 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::{Neighbourhood, components};
    use crate::rng;
    use crate::volume::{Geometry, Volume, dataset, nifti};
    use rand::RngExt;

    fn config(method: Method) -> Config {
        let slic =
            slic::Config { k: 12, compactness: 0.2, iterations: 10, min_size_fraction: 0.25, tolerance_vox: 0.1 };
        let felzenszwalb = felzenszwalb::Config { scale: 1.0, min_size_fraction: 0.014, min_size_2d_vox: 10 };
        Config { method, body_mask: false, clip_percentile: 99.5, slic, felzenszwalb }
    }

    /// Blocks of grey in noise, all values whole numbers.
    fn scan(spacing_mm: [f64; 3]) -> Image {
        let mut random = rng::stream(5, "scan", 0);
        let voxels = Array3::from_shape_fn((6, 20, 24), |(z, y, x)| {
            ((z / 3 * 30 + y / 7 * 20 + x / 9 * 40) + random.random_range(0..12)) as f32
        });
        Volume { geometry: Geometry::with_spacing([6, 20, 24], spacing_mm), voxels }
    }

    const METHODS: [Method; 3] = [Method::Slic, Method::Felzenszwalb, Method::Felzenszwalb2d];

    #[test]
    fn every_label_is_connected_and_the_labels_are_contiguous() {
        for method in METHODS {
            for body_mask in [false, true] {
                let regions = generate(&scan([3.0, 1.0, 1.0]), &Config { body_mask, ..config(method) });
                let (_, pieces) = components(regions.view(), Neighbourhood::Corners);
                let mut seen: Vec<i32> = regions.iter().copied().filter(|&region| region > 0).collect();
                seen.sort_unstable();
                seen.dedup();
                assert!(pieces > 1, "{method:?} found one region");
                assert_eq!(seen, (1..=pieces as i32).collect::<Vec<_>>(), "{method:?}");
            }
        }
    }

    #[test]
    fn the_unit_of_the_intensities_changes_nothing() {
        for method in METHODS {
            let image = scan([3.0, 1.0, 1.0]);
            let rescaled = Volume { voxels: image.voxels.mapv(|v| v * 12.0 - 1000.0), ..image.clone() };
            assert_eq!(generate(&image, &config(method)), generate(&rescaled, &config(method)), "{method:?}");
        }
    }

    #[test]
    fn the_spacing_matters_in_three_dimensions_only() {
        for method in METHODS {
            let thick = generate(&scan([6.0, 1.0, 1.0]), &config(method));
            let cubic = generate(&scan([1.0, 1.0, 1.0]), &config(method));
            assert_eq!(thick == cubic, method == Method::Felzenszwalb2d, "{method:?}");
        }
    }

    #[test]
    fn a_large_image_is_looked_at_in_squares() {
        let image = scan([3.0, 1.0, 1.0]); // 6 x 20 x 24
        for method in METHODS {
            assert_eq!(generate_within(&image, &config(method), 2880), generate(&image, &config(method)));
            let regions = generate_within(&image, &config(method), 1000); // squares of 2 x 2
            assert_eq!(regions.dim(), image.voxels.dim());
            assert!(regions.iter().max() > Some(&1), "{method:?}");
            for ((z, y, x), &region) in regions.indexed_iter() {
                assert_eq!(region, regions[[z, y / 2 * 2, x / 2 * 2]]);
            }
        }
        // 20 and 24 are no multiples of 7: the last squares are smaller.
        assert_eq!(generate_within(&image, &config(Method::Felzenszwalb), 60).dim(), (6, 20, 24));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_regions() {
        for method in METHODS {
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| generate(&scan([3.0, 1.0, 1.0]), &config(method)))
            };
            let alone = with(1);
            assert!(with(2) == alone && with(3) == alone, "{method:?}");
        }
    }

    #[test]
    fn images_without_contrast_or_with_one_bright_voxel_still_work() {
        let mut image = scan([1.0; 3]);
        image.voxels.fill(7.0);
        assert_eq!(generate(&image, &config(Method::Felzenszwalb)).iter().max(), Some(&1));
        image.voxels[[0, 0, 0]] = 9.0;
        assert_eq!(to_unit_range(&image.voxels, 99.5)[[0, 0, 0]], 1.0);
        image.voxels[[0, 0, 1]] = f32::NAN;
        assert_eq!(to_unit_range(&image.voxels, 99.5)[[0, 0, 1]], 0.0);
    }

    /// Graph regions on the 16 shared CHAOS T2-SPIR scans.
    #[test]
    fn on_real_scans_single_graph_regions_match_organs() {
        let Ok(folder) = std::env::var("SSL3D_CHAOS_DIR") else {
            return println!("SSL3D_CHAOS_DIR is not set: no real scans, nothing checked");
        };
        let classes = [("liver", 1), ("right_kidney", 2), ("left_kidney", 3), ("spleen", 4)];
        let classes = classes.map(|(organ, label)| (organ.to_owned(), label)).into();
        let patterns = dataset::Config {
            image: "image_{id}.nii.gz".into(),
            label: "label_{id}.nii.gz".into(),
            classes,
            ignore: None,
            benchmark: String::new(),
        };
        let data = dataset::open(folder.as_ref(), &patterns).unwrap();
        let felzenszwalb = felzenszwalb::Config { scale: 1.0, min_size_fraction: 0.0035, min_size_2d_vox: 400 };
        let config = Config { body_mask: true, felzenszwalb, ..config(Method::Felzenszwalb) };
        let mut dice = Vec::new();
        for case in &data.cases {
            let (image, _) = nifti::read_image(&case.image).unwrap();
            let (organs, _) = nifti::read_labels(case.label.as_ref().unwrap()).unwrap();
            let regions = generate(&image, &config);
            dice.push(quality::measure(regions.view(), &organs, &data.classes).unwrap().mean_best_region_dice);
        }
        let mean = dice.iter().sum::<f64>() / dice.len() as f64;
        assert!(mean >= 0.75, "mean Dice of the best region: {mean:.3}");
    }
}
