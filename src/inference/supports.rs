//! Scans and their annotations on the way into the network.

use super::scorer::Scorer;
use crate::preprocessing::{self, Annotation, Prepared, WorkingGrid};
use crate::similarity;
use crate::supervoxels;
use crate::tensor::{from_classes, from_voxels, to_vec};
use crate::volume::{Class, ClassMap, Image, padding};
use ndarray::Array3;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// A scan with the network's array of it. Supervoxels and percentiles are computed once, when they are needed.
///
/// ```
/// use ssl3d::{config, inference::PreparedScan, volume::{Geometry, Image}};
/// let config = config::load(None, &["preprocessing.size_vox=[4, 8, 8]".to_owned()])?;
/// let voxels = ndarray::Array3::from_shape_fn([4, 16, 16], |(z, y, x)| (z + y + x) as f32);
/// let image = Image { geometry: Geometry::with_spacing([4, 16, 16], [7.0, 2.0, 2.0]), voxels };
/// let scan = PreparedScan::new(image, &config.preprocessing);
/// assert_eq!(scan.input.dim(), (4, 8, 8));
/// assert!(scan.input.mean().is_some_and(|mean| mean.abs() < 1e-5));
/// assert_eq!(scan.volume().image.size(), [1, 1, 4, 8, 8]);
/// let [z, y, x] = scan.volume().spacing_mm; // 7 x 4 x 4 mm, in nominal millimetres
/// assert!(y == x && (z / y - 7.0 / 4.0).abs() < 1e-12);
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
#[derive(Debug)]
pub struct PreparedScan {
    /// The scan on its own grid.
    pub image: Image,
    /// The network's array, z-scored.
    pub input: Array3<f32>,
    /// Where the array lies in the scan.
    pub grid: WorkingGrid,
    /// Which voxels of the array are padding of the scan.
    padding: Option<Array3<bool>>,
    /// The size of the next largest region beside the body, as a fraction of it.
    pub(super) next_body_fraction: f64,
    config: preprocessing::Config,
    supervoxels: OnceLock<Array3<i32>>,
    percentiles: OnceLock<Vec<f32>>,
}

impl PreparedScan {
    /// Prepares a scan as section `[preprocessing]` says.
    pub fn new(image: Image, config: &preprocessing::Config) -> Self {
        let Prepared { input, grid, padding, next_body_fraction } = preprocessing::prepare(&image, config);
        let (supervoxels, percentiles) = (OnceLock::new(), OnceLock::new());
        let config = config.clone();
        Self { image, input, grid, padding, next_body_fraction, config, supervoxels, percentiles }
    }

    /// The scan padded to the extent of another one, of which it shows a part as far as the extents of both tell; None where it does not.
    pub fn part_of(&self, other: &Self) -> Option<Self> {
        let of_mm = other.grid.extent_mm(&other.image.geometry);
        let grid = self.grid.as_part(&self.image.geometry, of_mm, &self.config)?;
        Some(Self {
            image: self.image.clone(),
            input: preprocessing::prepare_on(&self.image, &grid, &self.config),
            padding: padding::mask(&self.image.voxels).map(|padding| preprocessing::padding_on(&padding, &grid)),
            grid,
            next_body_fraction: self.next_body_fraction,
            config: self.config.clone(),
            supervoxels: OnceLock::new(),
            percentiles: OnceLock::new(),
        })
    }

    /// Distance between the scan's own voxels in nominal millimetres, those of the lengths in `[inference]`.
    pub(super) fn nominal_spacing_mm(&self) -> [f64; 3] {
        let nominal = self.grid.nominal_mm(&self.image.geometry, self.config.nominal_extent_mm);
        self.image.geometry.spacing_mm().map(|mm| mm * nominal)
    }

    /// Distance between the voxels of the network's array along z, y, x, in nominal millimetres.
    pub fn input_spacing_mm(&self) -> [f64; 3] {
        self.grid.nominal_spacing_mm(&self.image.geometry, self.config.nominal_extent_mm)
    }

    /// The network's array.
    pub fn volume(&self) -> NetworkVolume {
        let spacing_mm = self.input_spacing_mm();
        NetworkVolume { image: from_voxels(self.input.view()), spacing_mm }
    }

    /// What the network sees, in so many voxels.
    pub(super) fn input_of(&self, size_vox: [usize; 3]) -> Array3<f32> {
        preprocessing::prepare_on(&self.image, &self.grid.resized(size_vox), &self.config)
    }

    /// Whether the network's array is the same everywhere: nothing can be found in it.
    pub fn is_blank(&self) -> bool {
        self.input.iter().all(|value| *value == self.input[[0, 0, 0]])
    }

    /// Whether some of the scan is padding.
    pub(super) fn has_padding(&self) -> bool {
        self.padding.is_some()
    }

    /// Supervoxels on the scan's own grid; of more than `max_vox` voxels it is averaged in-plane first.
    pub(super) fn supervoxels(&self, config: &supervoxels::Config, max_vox: usize) -> &Array3<i32> {
        self.supervoxels.get_or_init(|| supervoxels::generate_within(&self.image, config, max_vox))
    }

    /// Percentiles 1 to 99 of the network's array, padding left out.
    pub(super) fn percentiles(&self) -> &[f32] {
        self.percentiles.get_or_init(|| {
            let mut values: Vec<f32> = match &self.padding {
                None => self.input.iter().copied().collect(),
                Some(padding) => self.input.iter().zip(padding).filter(|(_, p)| !**p).map(|(v, _)| *v).collect(),
            };
            if values.is_empty() {
                values.push(0.0);
            }
            values.sort_by(f32::total_cmp);
            (1..100).map(|percent| values[(values.len() - 1) * percent / 100]).collect()
        })
    }
}

/// A volume on the network's grid.
#[derive(Debug)]
pub struct NetworkVolume {
    /// (1, 1, D, H, W), z-scored.
    pub image: Tensor,
    /// Distance between voxels along z, y, x, in nominal millimetres ([`WorkingGrid::nominal_spacing_mm`]).
    pub spacing_mm: [f64; 3],
}

impl NetworkVolume {
    /// The same tensor under another name.
    pub fn shallow_clone(&self) -> Self {
        Self { image: self.image.shallow_clone(), ..*self }
    }
}

/// A scan of which somebody has annotated all or a part.
#[derive(Debug, Clone)]
pub struct Support<'a> {
    /// The scan.
    pub scan: &'a PreparedScan,
    /// Its labels, on its own grid.
    pub annotation: Annotation,
}

impl Support<'_> {
    /// On the network's grid.
    pub(super) fn shot(&self, classes: &ClassMap) -> Shot {
        let (channels, known) = self.scan.grid.annotation(&self.annotation, classes);
        Shot {
            image: from_voxels(self.scan.input.view()),
            classes: from_classes(channels.view()),
            known: known.map(|known| from_voxels(known.view())),
        }
    }
}

/// The supports on the network's grid. A support in which a class of the others is not labelled tells nothing of where that class lies:
/// the voxels that the others, fitted by `fit`, give to it count as not annotated, and not as background.
pub(super) fn shots<'s>(
    supports: &[Support],
    classes: &ClassMap,
    fit: impl Fn(&[Shot]) -> Box<dyn Scorer + 's>,
) -> Vec<Shot> {
    let mut shots: Vec<Shot> = supports.iter().map(|support| support.shot(classes)).collect();
    let shows = |support: &Support| -> Vec<bool> {
        classes.values().iter().map(|&value| support.annotation.shows(value)).collect()
    };
    let shown: Vec<Vec<bool>> = supports.iter().map(shows).collect();
    let mut unknown = Vec::new();
    for index in 0..shots.len() {
        let missing: Vec<Class> = classes.iter().filter(|class| !shown[index][class.index()]).collect();
        let helps = |other: usize| other != index && missing.iter().any(|class| shown[other][class.index()]);
        let others: Vec<Shot> =
            (0..shots.len()).filter(|other| helps(*other)).map(|other| shots[other].shallow_clone()).collect();
        if !others.is_empty() {
            let (scorer, volume) = (fit(&others), supports[index].scan.volume());
            let compared = scorer.compare(&volume, None);
            let scores = compared.scores_by_supports().unwrap_or_else(|| compared.scores(&[]).0);
            unknown.push((index, shots[index].background_given_to(&missing, &scores)));
        }
    }
    for (index, unknown) in unknown {
        shots[index].forget(&unknown);
    }
    shots
}

/// An annotated volume on the network's grid.
#[derive(Debug)]
pub struct Shot {
    /// (1, 1, D, H, W)
    pub image: Tensor,
    /// Channels of the classes (D, H, W); 0 is the background.
    pub classes: Tensor,
    /// The fraction of each voxel that is annotated, (1, 1, D, H, W); all of it where it is None.
    pub known: Option<Tensor>,
}

impl Shot {
    /// Annotated throughout.
    pub fn new(image: Tensor, classes: Tensor) -> Self {
        Self { image, classes, known: None }
    }

    /// The same tensors under other names.
    pub fn shallow_clone(&self) -> Self {
        let known = self.known.as_ref().map(Tensor::shallow_clone);
        Self { image: self.image.shallow_clone(), classes: self.classes.shallow_clone(), known }
    }

    /// Slice `z` as a volume of depth 1.
    pub(super) fn slice(&self, z: i64) -> Self {
        let known = self.known.as_ref().map(|known| known.narrow(2, z, 1));
        Self { image: self.image.narrow(2, z, 1), classes: self.classes.narrow(0, z, 1), known }
    }

    /// The background voxels of this volume to which `scores` (1, 1 + K, D, H, W) of other supports give one of `classes`: 1, elsewhere
    /// 0, (D, H, W).
    fn background_given_to(&self, classes: &[Class], scores: &Tensor) -> Tensor {
        let found = similarity::argmax(scores).to_device(Device::Cpu);
        let is_class = |class: &Class| found.eq(class.channel() as i64).to_kind(Kind::Int64);
        let theirs = classes.iter().fold(found.zeros_like(), |all, class| all + is_class(class));
        theirs * self.classes.eq(0).to_kind(Kind::Int64)
    }

    /// Voxels that are 1 in `unknown` (D, H, W) are not annotated from now on.
    fn forget(&mut self, unknown: &Tensor) {
        let others: Tensor = 1.0 - unknown.to_kind(Kind::Float).view_as(&self.image);
        self.known = Some(self.known.as_ref().map_or_else(|| others.shallow_clone(), |known| known * &others));
    }

    /// Whether the annotation tells how much of a volume each class takes: a few annotated slices, which are those that show the
    /// classes, do not.
    pub(super) fn is_whole(&self, min_annotated_fraction: f64) -> bool {
        let fraction = |known: &Tensor| known.mean(Kind::Double).double_value(&[]);
        self.known.as_ref().is_none_or(|known| fraction(known) >= min_annotated_fraction)
    }

    /// Channels `[z, y, x]`, 0 where nothing is annotated; and whether there is such a part.
    pub(super) fn labels(&self) -> (Array3<i32>, bool) {
        let (d, h, w) = self.classes.size3().expect("(D, H, W)");
        let classes = Vec::<i64>::try_from(self.classes.to_device(Device::Cpu).flatten(0, -1)).expect("whole numbers");
        let mut labels: Vec<i32> = classes.into_iter().map(|class| class as i32).collect();
        let mut is_partial = false;
        if let Some(known) = &self.known {
            for (label, _) in labels.iter_mut().zip(to_vec(known)).filter(|(_, known)| *known <= 0.0) {
                (*label, is_partial) = (0, true);
            }
        }
        (Array3::from_shape_vec((d as usize, h as usize, w as usize), labels).expect("as many as voxels"), is_partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::scorer;
    use crate::network::Network;
    use crate::volume::LabelMap;
    use crate::{config, synthesis::phantom};

    /// The same scan twice, once with all organs and once with its liver alone: the second must not call the rest background.
    #[test]
    fn classes_that_one_support_leaves_out_and_another_shows_are_not_annotated() {
        let set = [
            "features.f_maps=4",
            "features.levels=2",
            "features.pooling=[[1,2,2]]",
            "preprocessing.size_vox=[8,32,32]",
            "prototypes.test_window={size=[1,2,2]}",
            "similarity.competition=joint",
        ];
        let config = config::load(None, &set.map(str::to_owned)).unwrap();
        let network = Network::new(&config.network(), Device::Cpu, 0);
        let cohort = phantom::Config { subjects: 1, size_vox: [12, 48, 48], spacing_mm: [15.0, 6.0, 6.0], seed: 3 };
        let (image, whole) = phantom::subject(&cohort, 0);
        let liver =
            LabelMap { voxels: whole.voxels.mapv(|label| i32::from(label == 1)), geometry: whole.geometry.clone() };
        let (scan, classes) = (PreparedScan::new(image, &config.preprocessing), ClassMap::new([1, 2, 3, 4]).unwrap());
        let supports = [liver, whole].map(|map| Support { scan: &scan, annotation: Annotation::new(map, None) });
        let shots = shots(&supports, &classes, |others| scorer(&network, &config.inference, others, classes.len()));

        assert!(shots[1].known.is_none(), "it shows every class");
        let unknown = shots[0].known.as_ref().expect("three classes are missing").eq(0.0).squeeze();
        let fraction = |of: &Tensor| {
            let inside = (of * &unknown).sum(Kind::Float).double_value(&[]);
            inside / of.sum(Kind::Float).double_value(&[])
        };
        assert!(fraction(&shots[1].classes.gt(1)) > 0.5, "most of the missing classes is found");
        assert!(fraction(&shots[0].classes.eq(1)) == 0.0, "its liver stays");
        assert!(fraction(&shots[1].classes.eq(0)) < 0.3, "as does the background");
    }
}
