//! A class of which the vote finds next to nothing: what the templates tell of how much there should be of it.

use super::told::rest;
use crate::prediction;
use tch::{Kind, Tensor};

/// A class is lost if it is worth less than this share of what it usually is.
const LOST: f64 = 0.25;
/// Of a lost class between these shares of its usual volume are found.
const SHARES: [f64; 2] = [0.7, 1.2];

/// What is usual for a class: the medians over the templates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    /// At the resolution of the features.
    pub volume_vox: f64,
    /// See [`worths`].
    pub worth: f64,
}

/// Voxels of a lost class that have to be found, and that may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hold {
    /// From 0.
    pub class: usize,
    least_vox: f64,
    most_vox: f64,
}

/// Of `count` classes, in the scores (1, 1 + K, d, h, w) of the templates; `place` is ln p(class | place). 0 of no templates.
pub fn usual(templates: &[&Tensor], place: Option<&Tensor>, count: usize) -> Vec<Usual> {
    let volumes_vox: Vec<Vec<f64>> = templates.iter().map(|scores| volumes(scores)).collect();
    let worths: Vec<Vec<f64>> = templates.iter().map(|scores| worths(scores, place)).collect();
    let median = |of_templates: &[Vec<f64>], class: usize| {
        let mut of_class: Vec<f64> = of_templates.iter().map(|of_classes| of_classes[class]).collect();
        of_class.sort_by(f64::total_cmp);
        of_class.get(of_class.len() / 2).copied().unwrap_or(0.0)
    };
    let of_class = |class| Usual { volume_vox: median(&volumes_vox, class), worth: median(&worths, class) };
    (0..count).map(of_class).collect()
}

/// The classes that are lost in scores (1, 1 + K, d, h, w).
pub fn classes(scores: &Tensor, place: Option<&Tensor>, usual: &[Usual]) -> Vec<Hold> {
    let hold = |(class, (usual, worth)): (usize, (&Usual, f64))| {
        let [least_vox, most_vox] = SHARES.map(|share| share * usual.volume_vox);
        (worth < LOST * usual.worth).then_some(Hold { class, least_vox, most_vox })
    };
    usual.iter().zip(worths(scores, place)).enumerate().filter_map(hold).collect()
}

/// Scores in which the class of each of `holds` is raised or lowered everywhere alike until no more voxels than it may have are its,
/// and, where it is still `sought`, no fewer than it has to have.
pub fn held(scores: Tensor, holds: &[Hold], sought: bool) -> Tensor {
    holds.iter().fold(scores, |scores, &Hold { class, least_vox, most_vox }| {
        let channel = class as i64 + 1;
        let margins = margin(&scores, channel).flatten(0, -1);
        let count = margins.size()[0];
        // What the so many greatest margins lack to be above 0.
        let lacking = |vox: f64| {
            let (greatest, _) = margins.topk((vox.round() as i64).clamp(1, count), 0, true, true);
            -greatest.min().double_value(&[])
        };
        let (for_least, for_most) = (lacking(least_vox), lacking(most_vox));
        let shift = match (for_least > 0.0 && sought, for_most < 0.0 && most_vox < count as f64) {
            (true, _) => for_least,
            (false, true) => for_most,
            (false, false) => return scores,
        };
        let shifted = scores.copy();
        let _ = shifted.narrow(1, channel, 1).g_add_scalar_(shift);
        shifted
    })
}

/// Scores (1, 1 + K, d, h, w) in which `class` is as far above the background as it is above all else in `other`.
pub fn with_class(scores: &Tensor, other: &Tensor, class: usize) -> Tensor {
    let channel = class as i64 + 1;
    let found = scores.copy();
    found.narrow(1, channel, 1).copy_(&(scores.narrow(1, 0, 1) + margin(other, channel)));
    found
}

/// How far one channel of scores (1, 1 + K, d, h, w) is above all others, (1, 1, d, h, w).
fn margin(scores: &Tensor, channel: i64) -> Tensor {
    scores.narrow(1, channel, 1) - rest(scores, channel)
}

/// What each of the K classes is worth: the sum over its voxels of how far its score is above the next, each times
/// p(class | place).
fn worths(scores: &Tensor, place: Option<&Tensor>) -> Vec<f64> {
    let size = scores.size();
    let (greatest, classes) = scores.topk(2, 1, true, true);
    let mut margins = greatest.narrow(1, 0, 1) - greatest.narrow(1, 1, 1);
    let classes = classes.narrow(1, 0, 1);
    if let Some(place) = place {
        let p = prediction::interpolate(place, [size[2], size[3], size[4]]).exp();
        margins *= p.gather(1, &classes, false);
    }
    let sums = Tensor::zeros([size[1]], (Kind::Double, scores.device()));
    let sums = sums.index_add(0, &classes.flatten(0, -1), &margins.flatten(0, -1).to_kind(Kind::Double));
    Vec::<f64>::try_from(sums).expect("numbers").split_off(1)
}

/// Voxels of each of the K classes where scores (1, 1 + K, d, h, w) are greatest.
fn volumes(scores: &Tensor) -> Vec<f64> {
    let counts = prediction::hard(scores).flatten(0, -1).bincount(None::<Tensor>, scores.size()[1]);
    Vec::<i64>::try_from(counts).expect("whole numbers").into_iter().skip(1).map(|count| count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_floats;

    /// Scores (1, 1 + K, 1, 1, n) from those of each class along a line.
    fn line<const N: usize>(of_classes: &[[f32; N]]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, of_classes.len() as i64, 1, 1, N as i64])
    }

    fn classes_of(scores: &Tensor) -> Vec<i64> {
        Vec::try_from(prediction::hard(scores).flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_class_is_worth_its_margins_where_it_is_likely() {
        let scores = line(&[[0.0, 0.0, 5.0, 0.0], [2.0, 1.0, 4.0, 0.0], [0.5, 0.0, 0.0, 3.0]]);
        assert_eq!(worths(&scores, None), [2.5, 3.0]);
        assert_eq!(volumes(&scores), [2.0, 1.0]);
        let p = line(&[[1.0; 4], [1.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.25]]);
        assert_eq!(worths(&scores, Some(&p.log())), [2.0, 0.75]);
    }

    #[test]
    fn usual_is_the_median_and_less_than_a_quarter_of_its_worth_is_lost() {
        let template = |class: f32| line(&[[0.0; 4], [class, class, -1.0, -1.0]]);
        let templates = [1.0, 9.0, 2.0].map(template);
        let found = usual(&templates.each_ref(), None, 1);
        assert_eq!(found, [Usual { volume_vox: 2.0, worth: 4.0 }]);
        assert_eq!(classes(&template(0.51), None, &found), []);
        let lost = classes(&template(0.49), None, &found);
        assert_eq!(lost, [Hold { class: 0, least_vox: 1.4, most_vox: 2.4 }]);
        assert_eq!(usual(&[], None, 2), [Usual { volume_vox: 0.0, worth: 0.0 }; 2]);
        assert_eq!(classes(&template(-1.0), None, &usual(&[], None, 1)), [], "nothing is usual without templates");
    }

    #[test]
    fn a_lost_class_is_raised_while_it_is_sought_and_cut_always() {
        let hold = |least_vox, most_vox| [Hold { class: 0, least_vox, most_vox }];
        let scores = || line(&[[0.0; 6], [-3.0, -1.0, -2.0, -9.0, -4.0, -9.0], [-9.0, -9.0, -9.0, 1.0, -9.0, -9.0]]);
        assert_eq!(classes_of(&scores()), [0, 0, 0, 2, 0, 0]);
        // Four have to be; the last of them is at a tie, and ties go to the background.
        assert_eq!(classes_of(&held(scores(), &hold(4.0, 6.0), true)), [1, 1, 1, 2, 0, 0]);
        assert_eq!(held(scores(), &hold(4.0, 6.0), false), scores());
        let wide = || -scores();
        assert_eq!(classes_of(&wide().narrow(1, 0, 2)), [1; 6]);
        assert_eq!(classes_of(&held(wide().narrow(1, 0, 2), &hold(1.0, 3.0), false)), [0, 0, 0, 1, 0, 1]);
        assert_eq!(held(wide(), &hold(1.0, 6.0), true), wide());
    }

    #[test]
    fn one_class_of_other_scores_takes_its_place_and_the_rest_stays() {
        let scores = line(&[[0.0, 1.0, 0.0], [-5.0, -5.0, -5.0], [1.0, 0.0, 2.0]]);
        let other = line(&[[0.0, 0.0, 0.0], [3.0, 2.0, -1.0], [0.0, 0.0, 9.0]]);
        let found = with_class(&scores, &other, 0);
        assert_eq!(classes_of(&found), [1, 1, 2]);
        for channel in [0, 2] {
            assert_eq!(found.narrow(1, channel, 1), scores.narrow(1, channel, 1));
        }
    }
}
