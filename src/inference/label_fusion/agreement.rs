//! Whether two answers agree on a class.

use tch::{Kind, Tensor};

/// Dice of each class between what `scores` (1, 1 + K, d, h, w) find and `fractions` (1, 1 + K, d, h, w) of it; 0 of a class that is in
/// neither.
pub fn dice(scores: &Tensor, fractions: &Tensor) -> Vec<f64> {
    let found = scores.argmax(1, true);
    let sum = |of: &Tensor| of.sum(Kind::Double).double_value(&[]);
    let of_channel = |(channel, fraction): (i64, Tensor)| {
        let found = found.eq(channel).to_kind(Kind::Float);
        let all = sum(&found) + sum(&fraction);
        if all > 0.0 { 2.0 * sum(&(found * fraction)) / all } else { 0.0 }
    };
    (0..).zip(fractions.split(1, 1)).skip(1).map(of_channel).collect()
}

/// Scores (1, 1 + K, d, h, w) of each class against the background: those by the supports for the part w of both, the Dice of the class
/// between them, and the fused ones for the rest. Templates tell where a class is that the supports take for another one; what it looks
/// like the supports know better.
pub fn by_supports_where_they_agree(by_supports: &Tensor, fused: &Tensor) -> Tensor {
    let channels = by_supports.size()[1];
    let of_fused: Vec<Tensor> = (0..channels).map(|channel| fused.argmax(1, true).eq(channel)).collect();
    let weights = dice(by_supports, &Tensor::cat(&of_fused, 1).to_kind(Kind::Float));
    let weights: Vec<f32> = weights.into_iter().map(|dice| dice as f32).collect();
    let weights = Tensor::from_slice(&weights).view([1, -1, 1, 1, 1]).to_device(fused.device());
    let [own, all] = [by_supports, fused].map(|scores| scores.narrow(1, 1, channels - 1) - scores.narrow(1, 0, 1));
    let background = fused.narrow(1, 0, 1).zeros_like();
    Tensor::cat(&[background, &all + (own - &all) * weights], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greatest of three channels in six voxels is that of the label.
    fn scores(found: [usize; 6], height: f32) -> Tensor {
        let of = |channel: usize| found.map(|label| if label == channel { height } else { -1.0 });
        Tensor::from_slice(&[of(0), of(1), of(2)].concat()).view([1, 3, 1, 1, 6])
    }

    #[test]
    fn the_supports_say_what_a_class_looks_like_where_they_find_it_with_the_templates() {
        // Class 1 is in the same place by both but for a voxel, class 2 is not.
        let (own, all) = (scores([1, 1, 1, 2, 0, 0], 4.0), scores([1, 1, 0, 0, 2, 0], 8.0));
        let mixed = by_supports_where_they_agree(&own, &all);
        let at = |channel: i64, x: i64| mixed.double_value(&[0, channel, 0, 0, x]);
        assert!((0..6).all(|x| at(0, x) == 0.0), "against the background");
        let dice = 2.0 * 2.0 / (3.0 + 2.0);
        assert!((at(1, 0) - (dice * 5.0 + (1.0 - dice) * 9.0)).abs() < 1e-5, "{}", at(1, 0));
        assert!((at(1, 2) - (dice * 5.0 - (1.0 - dice) * 9.0)).abs() < 1e-5, "{}", at(1, 2));
        assert_eq!([at(2, 3), at(2, 4)], [-9.0, 9.0], "where the templates find it");
        let nowhere = scores([0; 6], 1.0);
        assert_eq!(by_supports_where_they_agree(&nowhere, &nowhere).double_value(&[0, 1, 0, 0, 0]), -2.0);
    }

    #[test]
    fn fractions_count_as_far_as_they_go() {
        let rows = [[1.0f32, 0.5, 0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, 0.0, 0.0]];
        let fractions = Tensor::from_slice(&rows.concat()).view([1, 3, 1, 1, 6]);
        assert_eq!(dice(&scores([0, 1, 1, 0, 0, 0], 1.0), &fractions), [2.0 * 1.5 / 4.0, 0.0]);
        assert_eq!(dice(&scores([0; 6], 1.0), &scores([0; 6], 1.0).clamp_min(0.0)), [0.0; 2]);
    }
}
