//! The result for one query: labels, and the probabilities that agree with them.

use super::boundary::calibration::CroppedProbability;
use super::native::GridScores;
use super::supports::PreparedScan;
use crate::prototypes::Competition;
use crate::volume::{Class, ClassMap};
use ndarray::{Array3, Zip};

/// A segmented query.
pub struct Segmentation<'a> {
    /// Label values on the scan's own grid `[z, y, x]`; 0 is the background.
    pub labels: Array3<i32>,
    /// Classes of which label fusion found next to nothing: what is labelled came from the supports alone, and may not be there.
    pub missing: Vec<Class>,
    pub(super) classes: &'a ClassMap,
    pub(super) probabilities: Probabilities<'a>,
    pub(super) competition: Competition,
    /// The labels before the constraints of slice ranges and single components, which are those of the highest probability; None where
    /// there are no constraints.
    pub(super) before: Option<Array3<i32>>,
}

/// Where the probabilities come from.
pub(super) enum Probabilities<'a> {
    /// Of the scores themselves.
    Grid(GridScores<'a>),
    /// After the boundary step, in the order of the classes.
    Redrawn(Vec<CroppedProbability>),
    /// 0 everywhere.
    Nothing,
}

impl<'a> Segmentation<'a> {
    /// Of a scan without contrast: no class is anywhere.
    pub(super) fn nothing(query: &PreparedScan, classes: &'a ClassMap, competition: Competition) -> Self {
        let labels = Array3::zeros(query.image.voxels.dim());
        let probabilities = Probabilities::Nothing;
        Self { labels, missing: vec![], classes, probabilities, competition, before: None }
    }

    /// Calls `f` for each class with its probability on the scan's own grid `[z, y, x]`, one class at a time: a volume may be large.
    ///
    /// The label of a voxel is the class of its highest probability; the background has what the classes leave of 1, and where each
    /// class competes with its background alone, a label is above one half. Where a constraint has changed a label, so it has the
    /// probabilities: the class that a voxel lost has none, and that which it got is above one half.
    pub fn for_each_probability<E>(&self, mut f: impl FnMut(Class, &Array3<f32>) -> Result<(), E>) -> Result<(), E> {
        let of_grid = match &self.probabilities {
            Probabilities::Grid(scores) => Some(scores.probabilities(self.competition)),
            Probabilities::Redrawn(_) | Probabilities::Nothing => None,
        };
        self.classes.iter().try_for_each(|class| {
            let mut probability = match (&self.probabilities, &of_grid) {
                (Probabilities::Redrawn(redrawn), _) => redrawn[class.index()].placed(self.labels.dim()),
                (_, Some(of_grid)) => of_grid.of(class),
                _ => Array3::zeros(self.labels.dim()),
            };
            self.follow_labels(self.classes.value(class), &mut probability);
            f(class, &probability)
        })
    }
}

impl Segmentation<'_> {
    /// Where constraints have changed a label, the probability of a class agrees with the label.
    fn follow_labels(&self, value: i32, probability: &mut Array3<f32>) {
        let Some(before) = &self.before else { return };
        let above_half = 0.5f32.next_up();
        Zip::from(probability).and(&self.labels).and(before).par_for_each(|p, &label, &before| {
            if label != before {
                *p = match value {
                    value if value == label => p.max(above_half),
                    value if value == before => 0.0,
                    _ if label == 0 => p.min(0.5),
                    _ => p.min(1.0 - above_half),
                };
            }
        });
    }
}
