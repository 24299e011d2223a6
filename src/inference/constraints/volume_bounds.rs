//! Constraint: bounds of the volume of a class that label fusion hardly finds.

use super::{Constraint, margin};
use crate::volume::Class;
use tch::Tensor;

/// Voxels of the feature map that a class has at least and at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VolumeBounds {
    /// The class whose volume is bounded.
    pub class: Class,
    /// It has at least so many voxels, in all rounds but the last.
    pub min_vox: f64,
    /// It has at most so many voxels.
    pub max_vox: f64,
}

impl Constraint for VolumeBounds {
    /// Shifts the score of the class everywhere alike until its volume is within the bounds.
    fn project(&self, scores: Tensor, is_last: bool) -> Tensor {
        let channel = self.class.channel() as i64;
        let margins = margin(&scores, channel).flatten(0, -1);
        let count = margins.size()[0];
        // What the greatest `vox` margins lack to be above 0.
        let lacking = |vox: f64| {
            let (greatest, _) = margins.topk((vox.round() as i64).clamp(1, count), 0, true, true);
            -greatest.min().double_value(&[])
        };
        let (for_min, for_max) = (lacking(self.min_vox), lacking(self.max_vox));
        let shift = match (for_min > 0.0 && !is_last, for_max < 0.0 && self.max_vox < count as f64) {
            (true, _) => for_min,
            (false, true) => for_max,
            (false, false) => return scores,
        };
        let shifted = scores.copy();
        let _ = shifted.narrow(1, channel, 1).g_add_scalar_(shift);
        shifted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::argmax;
    use crate::tensor::from_floats;

    fn classes_of(scores: &Tensor) -> Vec<i64> {
        Vec::try_from(argmax(scores).flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_class_is_raised_in_all_rounds_but_the_last_and_cut_in_all() {
        let bounded = |scores: Tensor, min_vox, max_vox, is_last| {
            VolumeBounds { class: Class::at(0), min_vox, max_vox }.project(scores, is_last)
        };
        let of_classes =
            [[0.0; 6], [-3.0, -1.0, -2.0, -9.0, -4.0, -9.0], [-9.0, -9.0, -9.0, 1.0, -9.0, -9.0f32]].concat();
        let scores = || from_floats(&of_classes, &[1, 3, 1, 1, 6]);
        assert_eq!(classes_of(&scores()), [0, 0, 0, 2, 0, 0]);
        // Four have to be; the last of them is at a tie, and ties go to the background.
        assert_eq!(classes_of(&bounded(scores(), 4.0, 6.0, false)), [1, 1, 1, 2, 0, 0]);
        assert_eq!(bounded(scores(), 4.0, 6.0, true), scores());
        let wide = || -scores();
        assert_eq!(classes_of(&wide().narrow(1, 0, 2)), [1; 6]);
        assert_eq!(classes_of(&bounded(wide().narrow(1, 0, 2), 1.0, 3.0, true)), [0, 0, 0, 1, 0, 1]);
        assert_eq!(bounded(wide(), 1.0, 6.0, false), wide());
    }
}
