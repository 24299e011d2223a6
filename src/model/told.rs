//! What somebody has told of a query: in which slices a class lies.

use crate::prototypes::Classes;
use std::ops::Range;
use tch::Tensor;

/// The part of a volume's depth that shows a class, from 0 at its first face to 1 at its last one, where it is told.
pub type Told = Option<Range<f64>>;

/// Off its slices a class is at least so far below what is next there: no further, since supervoxels lie across the ends of an organ.
const BELOW: f64 = 3.0;
/// A slice of the features whose middle lies no more than one slice beyond the ends is not off.
const SLACK: f64 = 1.0;

/// Scores (1, 1 + K, d, h, w) by which each class lies in the slices that are told of it.
pub fn within(scores: Tensor, told: &[Told], classes: Classes) -> Tensor {
    let depth = scores.size()[2];
    told.iter().enumerate().fold(scores, |scores, (class, told)| {
        let Some(told) = told else { return scores };
        let is_off = |z: i64| {
            let at = z as f64 + 0.5;
            at < told.start * depth as f64 - SLACK || at > told.end * depth as f64 + SLACK
        };
        let off: Vec<bool> = (0..depth).map(is_off).collect();
        let off = Tensor::from_slice(&off).view([1, 1, depth, 1, 1]).to_device(scores.device());
        let channel = class as i64 + 1;
        let next = match classes {
            Classes::OneVsRest => scores.narrow(1, 0, 1),
            Classes::Joint => rest(&scores, channel),
        };
        let own = scores.narrow(1, channel, 1);
        let lowered = own.minimum(&(next - BELOW)).where_self(&off, &own);
        let held = scores.copy();
        held.narrow(1, channel, 1).copy_(&lowered);
        held
    })
}

/// The greatest score beside that of one channel, (1, 1, d, h, w).
pub fn rest(scores: &Tensor, channel: i64) -> Tensor {
    let channel = Tensor::from(channel).view(1).to_device(scores.device());
    scores.index_fill(1, &channel, f64::NEG_INFINITY).amax([1i64].as_slice(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_floats;

    /// Scores (1, 3, 6, 1, 1) from those of each class slice by slice.
    fn column(of_classes: &[[f32; 6]; 3]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, 3, 6, 1, 1])
    }

    #[test]
    fn off_its_slices_a_class_is_below_what_is_next_there_and_all_else_stays() {
        let scores = || column(&[[0.0; 6], [5.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        // Slices 2 and 3 of six; 1 and 4 may show some of it.
        let told = [Some(2.0 / 6.0..4.0 / 6.0), None];
        let expected = column(&[[0.0; 6], [-2.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        assert_eq!(within(scores(), &told, Classes::Joint), expected);
        // Where each class stands by itself the background alone is next.
        let expected = column(&[[0.0; 6], [-3.0, 5.0, 5.0, 5.0, 5.0, -9.0], [1.0, 2.0, -1.0, 0.0, 4.0, 0.0]]);
        assert_eq!(within(scores(), &told, Classes::OneVsRest), expected);
        for nothing in [&[][..], &[None, None]] {
            assert_eq!(within(scores(), nothing, Classes::Joint), scores());
        }
    }
}
