//! The result for one query: labels, and the probabilities that agree with them.

use super::boundary::calibration::CroppedProbability;
use super::native::{GridProbabilities, GridScores};
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
    Grid(Box<GridScores<'a>>),
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
    /// The probabilities of the classes add up to 1 at most, and the background has the rest. The label of a voxel is what has the highest
    /// of them. Where each class was compared with its background alone, by a network or by the boundary step, the odds o of a class
    /// against it become o / (1 + the sum of all odds). Where a constraint has changed a label, so it has the probabilities: the class that
    /// a voxel lost has none, that which it got has one half at least, and the others share what is left.
    pub fn for_each_probability<E>(&self, mut f: impl FnMut(Class, &Array3<f32>) -> Result<(), E>) -> Result<(), E> {
        let own = Own::of(self);
        let totals = self.totals(&own);
        self.classes.iter().try_for_each(|class| {
            let mut probability = own.of_class(class);
            totals.finish(self, self.classes.value(class), &mut probability);
            f(class, &probability)
        })
    }

    /// What has to be known of all classes before one can be given.
    fn totals(&self, own: &Own) -> Totals {
        let mut totals = Totals { odds: None, others: None };
        if own.is_against_background() {
            let odds = totals.odds.insert(Array3::from_elem(self.labels.dim(), 1.0));
            for class in self.classes.iter() {
                Zip::from(&mut *odds).and(&own.of_class(class)).par_for_each(|sum, &p| *sum += odds_of(p));
            }
        }
        if let Some(before) = &self.before {
            let mut others = Array3::zeros(self.labels.dim());
            for class in self.classes.iter() {
                let (value, mut probability) = (self.classes.value(class), own.of_class(class));
                totals.normalise(&mut probability);
                Zip::from(&mut others).and(&probability).and(&self.labels).and(before).par_for_each(
                    |sum, &p, &label, &before| *sum += if value == label || value == before { 0.0 } else { p },
                );
            }
            totals.others = Some(others);
        }
        totals
    }
}

/// The probabilities before they are brought together.
enum Own<'s, 'q> {
    Grid(GridProbabilities<'s, 'q>, Competition),
    Redrawn(&'s [CroppedProbability], (usize, usize, usize)),
    Nothing((usize, usize, usize)),
}

impl<'s, 'q> Own<'s, 'q> {
    fn of(found: &'s Segmentation<'q>) -> Self {
        match &found.probabilities {
            Probabilities::Grid(scores) => Self::Grid(scores.probabilities(), found.competition),
            Probabilities::Redrawn(redrawn) => Self::Redrawn(redrawn, found.labels.dim()),
            Probabilities::Nothing => Self::Nothing(found.labels.dim()),
        }
    }

    /// Whether each class was compared with its background alone.
    fn is_against_background(&self) -> bool {
        match self {
            Self::Grid(_, competition) => *competition == Competition::OneVsRest,
            Self::Redrawn(..) => true,
            Self::Nothing(_) => false,
        }
    }

    fn of_class(&self, class: Class) -> Array3<f32> {
        match self {
            Self::Grid(probabilities, _) => probabilities.of(class),
            Self::Redrawn(redrawn, shape_vox) => redrawn[class.index()].placed(*shape_vox),
            Self::Nothing(shape_vox) => Array3::zeros(*shape_vox),
        }
    }
}

/// Probabilities above this count as equal to it, so that odds are finite.
const SURE: f32 = 1.0 - 1e-6;

fn odds_of(p: f32) -> f32 {
    let p = p.min(SURE);
    p / (1.0 - p)
}

/// Sums over the classes.
struct Totals {
    /// 1 + the sum of the odds; None where the classes compete with each other.
    odds: Option<Array3<f32>>,
    /// The probabilities of the classes that are neither the label before the constraints nor that after them; None without constraints.
    others: Option<Array3<f32>>,
}

impl Totals {
    fn normalise(&self, probability: &mut Array3<f32>) {
        if let Some(sums) = &self.odds {
            Zip::from(probability).and(sums).par_for_each(|p, sum| *p = odds_of(*p) / sum);
        }
    }

    /// The probability of a class beside those of the others, and as constraints left the labels.
    fn finish(&self, found: &Segmentation, value: i32, probability: &mut Array3<f32>) {
        self.normalise(probability);
        let (Some(before), Some(others)) = (&found.before, &self.others) else { return };
        let above_half = 0.5f32.next_up();
        Zip::from(probability).and(&found.labels).and(before).and(others).par_for_each(
            |p, &label, &before, &others| {
                if label != before {
                    let share = |most: f32| if others > most { most / others } else { 1.0 };
                    *p *= match value {
                        value if value == label => return *p = p.max(above_half),
                        value if value == before => 0.0,
                        _ if label == 0 => share(0.5),
                        _ => share(1.0 - above_half),
                    };
                }
            },
        );
    }
}
