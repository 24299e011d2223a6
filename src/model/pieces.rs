//! A class that is one piece in the supports is one piece in what is found, once a piece was found that can be the whole of it. Of
//! two pieces the one stays whose loss would cost more score where the class is likely, not the larger one: a kidney that is clearly
//! one, rather than a spleen that is hardly less of a spleen or a bite out of a cyst where no kidney lies.

use super::Shot;
use crate::prediction;
use crate::supervoxels::connectivity::{Neighbourhood, components};
use crate::supervoxels::one_pieces;
use crate::tensor::{from_floats, to_channels, to_vec};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4};
use tch::{Device, Kind, Tensor};

/// Stands for what is not annotated.
const UNKNOWN: i32 = -1;

/// A piece of less than this share of the supports' may be a fragment, and others are no less likely.
const WHOLE: f64 = 0.25;

/// Of each class: if it is one piece, the share of a volume's voxels that the whole of it takes at least.
pub type Held = Option<f64>;

/// Of the classes 1 ..= `count`: one piece is what some support shows and all that do show as one.
pub fn held_to_one(supports: &[Shot], count: i64) -> Vec<Held> {
    let mut shares = vec![Vec::new(); count as usize]; // of each support that shows the class
    let mut single = vec![true; count as usize];
    for support in supports {
        let labels = labels(support);
        let in_one = one_pieces(labels.view(), Some(UNKNOWN));
        for (class, (shares, single)) in (1..).zip(shares.iter_mut().zip(&mut single)) {
            let size = labels.iter().filter(|&&label| label == class).count();
            if size > 0 {
                shares.push(size as f64 / labels.len() as f64);
                *single &= in_one.contains(&class);
            }
        }
    }
    let least = |(shares, single): (Vec<f64>, bool)| {
        (single && !shares.is_empty()).then(|| WHOLE * shares.iter().sum::<f64>() / shares.len() as f64)
    };
    shares.into_iter().zip(single).map(least).collect()
}

/// Class indices (D, H, W), [`UNKNOWN`] where nothing is annotated.
fn labels(support: &Shot) -> Array3<i32> {
    let (d, h, w) = support.classes.size3().expect("(D, H, W)");
    let classes = Vec::<i64>::try_from(support.classes.to_device(Device::Cpu).flatten(0, -1)).expect("whole numbers");
    let mut labels: Vec<i32> = classes.into_iter().map(|class| class as i32).collect();
    if let Some(known) = &support.known {
        let known = to_vec(known);
        labels.iter_mut().zip(known).filter(|(_, known)| *known <= 0.0).for_each(|(label, _)| *label = UNKNOWN);
    }
    Array3::from_shape_vec((d as usize, h as usize, w as usize), labels).expect("as many as voxels")
}

/// Scores (1, 1 + K, d, h, w) under which no class of `held` has more than one piece (faces touch), unless all are fragments.
///
/// A piece is worth the sum over its voxels of how far the class's score is above the next, each times p(class | place) where `place`,
/// its logarithm (1, 1 + K, ...), is known. All but the most valuable piece of a class go to the class that is next there, until
/// nothing changes; where a voxel's class has changed, its score and that of the one it had before change places.
pub fn settled(scores: &Tensor, held: &[Held], place: Option<&Tensor>) -> Tensor {
    if held.iter().all(Option::is_none) {
        return scores.shallow_clone();
    }
    let mut values = to_channels(scores); // (1 + K, d, h, w)
    let (classes, d, h, w) = values.dim();
    let likely = |place| to_channels(&prediction::interpolate(place, [d, h, w].map(|n| n as i64)).exp());
    let likely: Option<Array4<f32>> = place.map(likely);
    let mut barred = Array4::from_elem((classes, d, h, w), false);
    // The best class that is not barred, and what the voxel is worth to it.
    let best = |(z, y, x), barred: ArrayView4<bool>| {
        let (mut class, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
        for index in (0..classes).filter(|&index| !barred[[index, z, y, x]]) {
            let score = values[[index, z, y, x]];
            if score > first {
                (class, first, second) = (index, score, first);
            } else {
                second = second.max(score);
            }
        }
        let p = likely.as_ref().map_or(1.0, |likely| likely[[class, z, y, x]]);
        (class as i32, f64::from(first - second) * f64::from(p))
    };
    let (mut labels, mut worths) = (Array3::zeros((d, h, w)), Array3::zeros((d, h, w)));
    for at in ndarray::indices((d, h, w)) {
        (labels[at], worths[at]) = best(at, barred.view());
    }
    let before = labels.clone();
    loop {
        let (pieces, kept) = pieces_to_keep(labels.view(), worths.view(), held);
        let mut has_changed = false;
        for (z, y, x) in ndarray::indices((d, h, w)) {
            let at = (z, y, x);
            if !kept[pieces[at] as usize] {
                barred[[labels[at] as usize, z, y, x]] = true;
                (labels[at], worths[at]) = best(at, barred.view());
                has_changed = true;
            }
        }
        if !has_changed {
            break;
        }
    }
    for (((z, y, x), &had), &has) in before.indexed_iter().zip(&labels) {
        if had != has {
            values.swap([had as usize, z, y, x], [has as usize, z, y, x]);
        }
    }
    let values = values.as_standard_layout();
    let settled = from_floats(values.as_slice().expect("in order"), &scores.size());
    settled.to_device(scores.device()).to_kind(scores.kind())
}

/// The piece of each voxel, 0 for label 0, and of each piece whether its class may keep it. Of equally valuable ones it is the first.
fn pieces_to_keep(labels: ArrayView3<i32>, worths: ArrayView3<f64>, held: &[Held]) -> (Array3<i32>, Vec<bool>) {
    let (pieces, count) = components(labels, Neighbourhood::Faces);
    let mut of_piece = vec![(0, 0, 0.0); count + 1]; // label, voxels and value
    for ((&piece, &label), &worth) in pieces.iter().zip(&labels).zip(&worths) {
        let (of, size, value) = &mut of_piece[piece as usize];
        (*of, *size, *value) = (label as usize, *size + 1, *value + worth);
    }
    let mut best: Vec<Option<usize>> = vec![None; held.len() + 1];
    for (piece, &(label, _, value)) in of_piece.iter().enumerate() {
        if best[label].is_none_or(|best| value > of_piece[best].2) {
            best[label] = Some(piece);
        }
    }
    let may_stay = |(piece, &(label, ..)): (usize, &(usize, usize, f64))| {
        let Some(least) = label.checked_sub(1).and_then(|class| held[class]) else { return true };
        let best = best[label].expect("a piece of this label");
        piece == best || (of_piece[best].1 as f64) < least * labels.len() as f64
    };
    let kept = of_piece.iter().enumerate().map(may_stay).collect();
    (pieces, kept)
}

/// 1 where both scores (1, 1 + K, d, h, w) name the same class, else 0, (1, 1, d, h, w).
pub fn agreement(a: &Tensor, b: &Tensor) -> Tensor {
    a.argmax(1, true).eq_tensor(&b.argmax(1, true)).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Held = Some(0.0);

    /// Scores (1, 1 + K, 1, 1, n) from those of each class along a line.
    fn line<const N: usize>(of_classes: &[[f32; N]]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, of_classes.len() as i64, 1, 1, N as i64])
    }

    fn classes(scores: &Tensor) -> Vec<i64> {
        Vec::try_from(scores.argmax(1, false).flatten(0, -1)).unwrap()
    }

    #[test]
    fn the_clear_piece_stays_and_the_larger_one_goes_to_the_class_that_is_next_there() {
        let scores = line(&[
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            [5.0, 5.0, 0.0, 2.1, 2.1, 2.1, 0.0],
            [0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0],
        ]);
        assert_eq!(classes(&scores), [1, 1, 0, 1, 1, 1, 0]);
        let found = settled(&scores, &[ONE, ONE], None);
        assert_eq!(classes(&found), [1, 1, 0, 2, 2, 2, 0]);
        assert_eq!(
            Vec::<f64>::try_from(agreement(&scores, &found).flatten(0, -1)).unwrap(),
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        );
        // The scores have changed places, and nothing else has changed.
        assert_eq!(found.double_value(&[0, 1, 0, 0, 4]), 2.0);
        assert_eq!(found.double_value(&[0, 2, 0, 0, 4]), f64::from(2.1f32));
        assert_eq!(found.narrow(4, 0, 3), scores.narrow(4, 0, 3));
        assert_eq!(settled(&scores, &[None, ONE], None), scores);
        // Two of seven voxels are a fragment if the whole takes three.
        assert_eq!(settled(&scores, &[Some(2.5 / 7.0), ONE], None), scores);
        assert_eq!(settled(&scores, &[Some(1.5 / 7.0), ONE], None), found);
    }

    #[test]
    fn a_piece_where_the_class_is_likely_stays_beside_a_clearer_one_elsewhere() {
        let scores = line(&[[0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -1.0, 2.0, 2.0]]);
        assert_eq!(classes(&settled(&scores, &[ONE], None)), [1, 1, 0, 0, 0]);
        let p = line(&[[1.0; 5], [0.1, 0.1, 0.5, 0.9, 0.9]]);
        let place = p.log();
        assert_eq!(classes(&settled(&scores, &[ONE], Some(&place))), [0, 0, 0, 1, 1]);
        // It chooses between pieces: what is one piece stays wherever it is.
        let alone = line(&[[0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -1.0, -1.0, -1.0]]);
        assert_eq!(settled(&alone, &[ONE], Some(&place)), alone);
    }

    #[test]
    fn what_is_passed_on_may_be_passed_on_again_and_the_background_takes_what_nobody_may_have() {
        // The second piece of class 1 goes to class 2, whose own piece elsewhere is clearer.
        let scores =
            line(&[[0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [9.0, 0.0, 3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0, 9.0, 0.0]]);
        let found = settled(&scores, &[ONE, ONE], None);
        assert_eq!(classes(&found), [1, 0, 0, 0, 2, 0]);
        assert_eq!(classes(&settled(&scores, &[ONE, None], None)), [1, 0, 2, 0, 2, 0]);
        assert_eq!(settled(&found, &[ONE, ONE], None), found);
    }

    #[test]
    fn a_class_is_held_to_one_piece_by_the_supports_that_show_it() {
        let shot = |labels: [u8; 40], known: Option<f32>| {
            let classes = ndarray::Array3::from_shape_vec((1, 1, 40), labels.to_vec()).unwrap();
            let mut shot = Shot::new(
                Tensor::zeros([1, 1, 1, 1, 40], (Kind::Float, Device::Cpu)),
                crate::tensor::from_classes(classes.view()),
            );
            shot.known = known.map(|last| {
                let mut known = [1f32; 40];
                known[30..].fill(last);
                from_floats(&known, &[1, 1, 1, 1, 40])
            });
            shot
        };
        let (mut one, mut two) = ([0; 40], [0; 40]);
        one[2..9].fill(1);
        two[2..9].fill(1);
        two[30..39].fill(1);
        two[10..20].fill(2);
        let held = |supports: &[Shot]| held_to_one(supports, 2);
        assert_eq!(held(&[shot(one, None)]), [Some(WHOLE * 7.0 / 40.0), None]);
        assert_eq!(held(&[shot(two, None)]), [None, Some(WHOLE * 0.25)]);
        assert_eq!(held(&[shot(one, None), shot(two, None)]), [None, Some(WHOLE * 0.25)]);
        assert_eq!(held(&[shot(one, None), shot(one, None)]), [Some(WHOLE * 7.0 / 40.0), None]);
        assert_eq!(held(&[shot(two, Some(0.0))]), [Some(WHOLE * 7.0 / 40.0), Some(WHOLE * 0.25)]);
    }
}
