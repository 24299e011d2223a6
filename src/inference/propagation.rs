//! Label propagation: the supports are registered to a query, and their labels are carried along (atlas-based segmentation).
//!
//! 1. [`Overlay`]: the supports are registered by what surrounds each voxel alone. What they show where the query has an intensity is what that
//!    intensity means ([`IntensityMapping`]): the network sees the query with the contrast of its supports.
//! 2. [`Overlay::refined`]: the registration follows what the network found, too, and the labels are carried along.
//!
//! Templates are such queries before they are segmented. They hand the labels on to further queries ([`TemplateAtlas`]): what one registration
//! misses, others find (MAGeT-Brain, Chakravarty et al. 2013).

use super::intensity_mapping::IntensityMapping;
use super::supports::{NetworkVolume, PreparedScan, Support};
use crate::preprocessing::{self, WorkingGrid};
use crate::registration::{self, Places, compose, descriptors, on_fine_grid, refine, register, warp};
use crate::similarity;
use crate::tensor::{from_voxels, to_vec, to_voxels};
use crate::volume::{Class, ClassMap};
use tch::{Device, Kind, Tensor, no_grad};

/// Added to the fractions of background and classes: propagated labels are never surer than it leaves them, and each class has some say in
/// the share of a place where none is propagated.
const LEAST: f64 = 0.02;
/// Labels are carried in the scan's own voxels, or in so many along an axis at most ...
const MOST_VOX: usize = 128;
/// ... and in so many values of all classes together.
const MOST_VALUES: usize = 1 << 26;
/// Fractions of a voxel are stored in so many steps.
const STEPS: f64 = 255.0;

/// The supports, where their labels are propagated.
pub(super) struct Atlases<'a> {
    atlases: Vec<Atlas>,
    config: &'a registration::Config,
}

/// A support that can be registered.
struct Atlas {
    moving: Moving,
    /// In [`STEPS`].
    labels: LabelFractions,
}

/// A volume that can be registered.
#[derive(Debug)]
pub(super) struct Moving {
    /// What the network sees of it, (1, 1, D, H, W) in the voxels of the registration.
    image: Tensor,
    /// [`described`]
    described: Tensor,
}

/// A template upon which the supports were laid.
#[derive(Debug)]
pub struct TemplateAtlas {
    moving: Moving,
    /// Of each support.
    fields: Vec<Tensor>,
    /// Of each class whether it hands that on.
    is_believed: Vec<bool>,
}

/// Volumes that are laid upon another one, by what surrounds each voxel alone.
pub(super) struct Overlay {
    /// The one upon which they are laid, (1, 1, D, H, W) in the voxels of the registration, ...
    image: Tensor,
    /// ... and its [`descriptors`].
    own: Tensor,
    /// Of each of the others.
    fields: Vec<Tensor>,
}

/// Labels of the supports on a query.
pub struct Propagated {
    /// Where they lie in the query.
    grid: WorkingGrid,
    labels: LabelFractions,
}

/// Labels of some volumes, all brought to one grid.
#[derive(Debug)]
pub(super) struct LabelFractions {
    /// The fraction of the volumes that is annotated, (1, 1, D, H, W).
    known: Tensor,
    /// The fraction that shows each class, (1, 1, D, H, W).
    classes: Vec<Tensor>,
}

impl Moving {
    /// An image (1, 1, D, H, W) of any size, and the probabilities (1, K, d, h, w) of the classes that the network found in it.
    pub fn new(image: &Tensor, found: Option<&Tensor>, config: &registration::Config) -> Self {
        let image = similarity::interpolate(image, config.size_vox.map(|n| n as i64));
        Self { described: described(descriptors(&image), found, config), image }
    }
}

impl Overlay {
    /// Lays volumes upon an image (1, 1, D, H, W) of any size.
    pub fn new<'m>(image: &Tensor, moving: impl Iterator<Item = &'m Moving>, config: &registration::Config) -> Self {
        let image = similarity::interpolate(image, config.size_vox.map(|n| n as i64));
        let own = descriptors(&image);
        let config = registration::Config { iterations: config.iterations / 2, ..config.clone() };
        let field = |moving: &Moving| register(&own, &moving.described.narrow(1, 0, own.size()[1]), &config);
        Self { fields: moving.map(field).collect(), image, own }
    }

    /// The volume upon which they are laid with the contrast that they have.
    pub fn seen<'m>(
        &self,
        volume: NetworkVolume,
        moving: impl Iterator<Item = &'m Moving>,
        config: &registration::Config,
    ) -> NetworkVolume {
        if !config.map_intensities {
            return volume;
        }
        let warped =
            |(moving, field): (&Moving, &Tensor)| warp(&moving.image, field, config.size_vox.map(|n| n as i64));
        let shown: Tensor = no_grad(|| moving.zip(&self.fields).map(warped).sum::<Tensor>());
        let shown = shown / self.fields.len() as f64;
        let mapping = IntensityMapping::between(&to_vec(&self.image), &to_vec(&shown));
        let mut voxels = mapping.apply(&to_voxels(&volume.image));
        preprocessing::standardise(&mut voxels);
        NetworkVolume { image: from_voxels(voxels.view()), ..volume }
    }

    /// [`described`], since the network found classes with these probabilities (1, K, d, h, w).
    pub fn described(&self, found: Option<&Tensor>, config: &registration::Config) -> Tensor {
        described(self.own.shallow_clone(), found, config)
    }

    /// Better fields by [`Overlay::described`].
    pub fn refined<'m>(
        &self,
        moving: impl Iterator<Item = &'m Moving>,
        described: &Tensor,
        config: &registration::Config,
    ) -> Vec<Tensor> {
        moving.zip(&self.fields).map(|(moving, start)| refine(described, &moving.described, start, config)).collect()
    }
}

impl TemplateAtlas {
    /// With the better fields of its overlay, and the probabilities (1, K, d, h, w) of the classes that the network found in it.
    pub(super) fn new(
        overlay: Overlay,
        fields: Vec<Tensor>,
        found: Option<&Tensor>,
        is_believed: Vec<bool>,
        config: &registration::Config,
    ) -> Self {
        let described = overlay.described(found, config);
        Self { moving: Moving { image: overlay.image, described }, fields, is_believed }
    }
}

impl Atlas {
    fn of(
        support: &Support,
        found: Option<&Tensor>,
        classes: &ClassMap,
        config: &registration::Config,
        device: Device,
    ) -> Self {
        let moving = Moving::new(&seen(support.scan, config, device), found, config);
        let grid = labels_grid(support.scan, classes.len());
        let stored = |fractions: ndarray::Array3<f32>| {
            let steps: Tensor = from_voxels(fractions.view()) * STEPS;
            steps.round().to_kind(Kind::Uint8).to_device(device)
        };
        let labels = support.annotation.labels().voxels.view();
        let known = match support.annotation.known() {
            Some(known) => stored(grid.fractions(known.view(), |known| *known)),
            None => Tensor::full([1, 1, 1, 1, 1], STEPS as i64, (Kind::Uint8, device)),
        };
        let of_class = |class: Class| stored(grid.fractions(labels, |label| classes.class(*label) == Some(class)));
        let classes = classes.iter().map(of_class).collect();
        Self { moving, labels: LabelFractions { known, classes } }
    }
}

impl<'a> Atlases<'a> {
    /// `found` has the probabilities (1, K, d, h, w) of the classes that the network found in each support.
    pub fn new(
        supports: &[Support],
        found: &[Option<Tensor>],
        classes: &ClassMap,
        config: &'a registration::Config,
        device: Device,
    ) -> Self {
        let atlas =
            |(support, found): (&Support, &Option<Tensor>)| Atlas::of(support, found.as_ref(), classes, config, device);
        let atlases = supports.iter().zip(found).map(atlas).collect();
        Self { atlases, config }
    }

    fn classes(&self) -> usize {
        self.atlases[0].labels.classes.len()
    }

    /// Whether any voxel of a support shows the class.
    pub fn show(&self, class: Class) -> bool {
        self.atlases.iter().any(|atlas| atlas.labels.classes[class.index()].any().int64_value(&[]) != 0)
    }

    /// The labels of one of the supports on itself.
    pub fn own(&self, index: usize, scan: &PreparedScan) -> Propagated {
        let grid = labels_grid(scan, self.classes());
        let [d, h, w] = grid.shape_vox.map(|n| n as i64);
        let fractions = |stored: &Tensor| (stored.to_kind(Kind::Float) / STEPS).expand([1, 1, d, h, w], false);
        Propagated { grid, labels: self.atlases[index].labels.each(fractions) }
    }

    fn moving(&self) -> impl Iterator<Item = &Moving> {
        self.atlases.iter().map(|atlas| &atlas.moving)
    }

    /// Lays each support upon a query.
    pub fn overlay(&self, query: &PreparedScan) -> Overlay {
        let device = self.atlases[0].moving.image.device();
        Overlay::new(&seen(query, self.config, device), self.moving(), self.config)
    }

    /// What the network sees of a query, with the contrast of the supports that are laid upon it.
    pub fn volume(&self, query: &PreparedScan, overlay: &Overlay) -> NetworkVolume {
        overlay.seen(query.volume(), self.moving(), self.config)
    }

    /// The labels of the supports on a query upon which they were laid, and in which the network found classes with these probabilities
    /// (1, K, d, h, w): the mean of what comes from the supports and of what each template hands on.
    pub fn propagated(
        &self,
        query: &PreparedScan,
        overlay: &Overlay,
        found: Option<&Tensor>,
        templates: &[&TemplateAtlas],
    ) -> Propagated {
        let fixed = overlay.described(found, self.config);
        let fields = overlay.refined(self.moving(), &fixed, self.config);
        // Each template leads to the supports by a way of its own.
        let through = |template: &&TemplateAtlas| {
            let first = register(&fixed, &template.moving.described, self.config);
            template.fields.iter().map(|second| no_grad(|| compose(&first, second))).collect::<Vec<_>>()
        };
        let ways: Vec<Vec<Tensor>> = templates.iter().map(through).collect();
        let grid = labels_grid(query, self.classes());
        let size_vox = grid.shape_vox.map(|n| n as i64);
        no_grad(|| {
            let mut known = Mean::default();
            let mut classes: Vec<Mean> = (0..self.classes()).map(|_| Mean::default()).collect();
            for (way, template) in std::iter::once((&fields, None)).chain(ways.iter().zip(templates.iter().map(Some))) {
                for (field, Atlas { labels, .. }) in way.iter().zip(&self.atlases) {
                    let places = Places::new(field, size_vox);
                    let carried = |stored: &Tensor| places.of(&(stored.to_kind(Kind::Float) / STEPS));
                    known.add(carried(&labels.known));
                    for (class, (mean, stored)) in classes.iter_mut().zip(&labels.classes).enumerate() {
                        if template.is_none_or(|template| template.is_believed[class]) {
                            mean.add(carried(stored));
                        }
                    }
                }
            }
            Propagated::new(grid, known.get(), classes.into_iter().map(Mean::get).collect())
        })
    }
}

/// The mean of volumes that come one after the other.
#[derive(Default)]
struct Mean {
    sum: Option<Tensor>,
    count: u32,
}

impl Mean {
    fn add(&mut self, volume: Tensor) {
        self.sum = Some(self.sum.take().map_or_else(|| volume.shallow_clone(), |mut sum| sum.g_add_(&volume)));
        self.count += 1;
    }

    /// # Panics
    /// There was none.
    fn get(self) -> Tensor {
        self.sum.expect("a volume") / f64::from(self.count)
    }
}

impl Propagated {
    /// `known` and each of `classes` are fractions (1, 1, D, H, W) on `grid`: of what is annotated, and of what shows the class.
    pub fn new(grid: WorkingGrid, known: Tensor, classes: Vec<Tensor>) -> Self {
        Self { grid, labels: LabelFractions { known, classes } }
    }

    /// Where [`Propagated::blend`] lies in the query.
    pub fn grid(&self) -> &WorkingGrid {
        &self.grid
    }

    /// [`LabelFractions::blend`], (1, K + 1, D, H, W).
    pub fn blend(&self, shares: &[f64]) -> Tensor {
        let Blend { mut added, kept } = self.labels.blend(shares);
        added.push(kept);
        Tensor::cat(&added, 1)
    }

    /// On a feature map of this size.
    pub(super) fn on_map(&self, size: [i64; 3]) -> LabelFractions {
        self.labels.each(|fractions| fractions.adaptive_avg_pool3d(size))
    }
}

/// How propagated labels change the score of each class against the background, [`LabelFractions::blend`].
struct Blend {
    /// What each class gets, (1, 1, D, H, W).
    added: Vec<Tensor>,
    /// The factor of what it had, (1, 1, D, H, W).
    kept: Tensor,
}

impl LabelFractions {
    /// Of volumes with these masks (1, 1 + K, d, h, w), each warped by its field, on a feature map of this size.
    pub fn warped(masks: &[&Tensor], fields: &[Tensor], size: [i64; 3]) -> Self {
        let warped = masks.iter().zip(fields).map(|(masks, field)| warp(masks, field, size));
        let masks: Tensor = warped.sum::<Tensor>() / fields.len() as f64;
        let known = masks.sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
        Self { known, classes: masks.split(1, 1).split_off(1) }
    }

    /// `f` of each.
    fn each(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { known: f(&self.known), classes: self.classes.iter().map(f).collect() }
    }

    fn background(&self) -> Tensor {
        (&self.known - self.classes.iter().sum::<Tensor>()).clamp_min(0.0)
    }

    /// The fractions of background and classes, (1, 1 + K, D, H, W).
    pub fn masks(&self) -> Tensor {
        let background = self.background();
        Tensor::cat(&std::iter::once(&background).chain(&self.classes).collect::<Vec<_>>(), 1)
    }

    /// At each place all classes share alike, so that no class gains on its neighbour by a share of its own; those of the greater shares
    /// count more in it:
    ///
    /// ```text
    /// s_c = (1 - t k) (s_c - s_0) + t k ln(p_c / p_0)        t = sum_j t_j^2 p_j / sum_j t_j p_j
    /// ```
    ///
    /// p: fractions and [`LEAST`], t_j: `shares`, k: fraction that is annotated.
    fn blend(&self, shares: &[f64]) -> Blend {
        assert_eq!(shares.len(), self.classes.len(), "a share for each class");
        let classes = || self.classes.iter().map(|class| class + LEAST);
        let weighted: Vec<Tensor> = classes().zip(shares).map(|(class, share)| class * *share).collect();
        let shared: Tensor = weighted.iter().zip(shares).map(|(weighted, share)| weighted * *share).sum();
        let share = shared / weighted.iter().sum::<Tensor>().clamp_min(f64::from(f32::MIN_POSITIVE)) * &self.known;
        let background = (self.background() + LEAST).log();
        let added = classes().map(|class| (class.log() - &background) * &share).collect();
        let kept: Tensor = 1.0 - share;
        Blend { added, kept: kept.clamp_min(0.0) }
    }

    /// Scores (1, 1 + K, d, h, w) of each class against the background, in which these labels have their share.
    pub fn blended(&self, scores: &Tensor, shares: &[f64]) -> Tensor {
        let Blend { added, kept } = self.blend(shares);
        let background = scores.narrow(1, 0, 1);
        let against = scores.narrow(1, 1, added.len() as i64) - &background;
        Tensor::cat(&[background.zeros_like(), against * kept + Tensor::cat(&added, 1)], 1)
    }
}

/// The grid of the labels in a scan.
fn labels_grid(scan: &PreparedScan, classes: usize) -> WorkingGrid {
    let most = ((MOST_VALUES / (classes + 1)) as f64).cbrt() as usize;
    scan.grid.resized(scan.grid.extent_vox().map(|n| n.min(MOST_VOX).min(most)))
}

/// What an image is registered by, [`on_fine_grid`]: its own [`descriptors`], and the probabilities (1, K, d, h, w) of the classes that the
/// network found in it.
fn described(own: Tensor, found: Option<&Tensor>, config: &registration::Config) -> Tensor {
    let Some(found) = found.filter(|_| config.network_weight > 0.0) else { return own };
    let found = similarity::interpolate(found, config.size_vox.map(|n| n as i64));
    Tensor::cat(&[own, on_fine_grid(&found) * config.network_weight.sqrt()], 1)
}

/// What the network sees of a scan, in the voxels of the registration, (1, 1, D, H, W).
fn seen(scan: &PreparedScan, config: &registration::Config, device: Device) -> Tensor {
    from_voxels(scan.input_of(config.size_vox).view()).to_device(device)
}

#[cfg(test)]
mod tests;
