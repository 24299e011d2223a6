//! A class that label fusion hardly finds in a query, beside what it finds in the templates: it is taken from the supports alone,
//! and the templates bound its volume.

use super::constraints::volume_bounds::VolumeBounds;
use super::constraints::{greatest_other, margin};
use super::cycle::Belief;
use crate::error::{Error, Result};
use crate::inference::config::check_range;
use crate::similarity;
use crate::volume::Class;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Section `[inference.missing_class]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A class is missing if its evidence mass is less than this fraction of the expected one.
    pub evidence_fraction: f64,
    /// A missing class has a volume between these fractions of the expected one.
    pub volume_fractions: [f64; 2],
}

impl Config {
    /// # Errors
    /// A key is out of its range.
    pub fn check(&self) -> Result<()> {
        check_range("missing_class.evidence_fraction", self.evidence_fraction, 0.0..=1.0)?;
        let [least, most] = self.volume_fractions;
        if !(0.0 <= least && least <= most && most <= 100.0) {
            let (expected, found) = ("two rising fractions from 0 to 100", format!("{:?}", self.volume_fractions));
            return Err(Error::invalid("inference.missing_class.volume_fractions", expected, found, "change this key"));
        }
        Ok(())
    }
}

/// What is expected of a class in a query: the medians over the templates that are believed about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// Voxels of the feature map.
    pub volume_vox: f64,
    /// The sum over the voxels of the class of the margin between its score and the next, each times p(class | place).
    pub evidence_mass: f64,
}

/// Of `count` classes, from the scores (1, 1 + K, d, h, w) of the templates and ln p(class | place). 0 where no template is believed.
pub fn expected(templates: &[&Tensor], belief: &Belief, log_prior: Option<&Tensor>, count: usize) -> Vec<Expected> {
    let volumes_vox: Vec<Vec<f64>> = templates.iter().map(|scores| volumes(scores)).collect();
    let masses: Vec<Vec<f64>> = templates.iter().map(|scores| evidence_masses(scores, log_prior)).collect();
    let median = |of_templates: &[Vec<f64>], class: Class| {
        let believed = belief.about(Some(class)).into_iter();
        let mut of_class: Vec<f64> = believed.map(|template| of_templates[template][class.index()]).collect();
        of_class.sort_by(f64::total_cmp);
        of_class.get(of_class.len() / 2).copied().unwrap_or(0.0)
    };
    let of_class = |class| Expected { volume_vox: median(&volumes_vox, class), evidence_mass: median(&masses, class) };
    (0..count).map(Class::at).map(of_class).collect()
}

/// The classes that are missing in scores (1, 1 + K, d, h, w), with the bounds of their volume.
pub fn missing_classes(
    scores: &Tensor,
    log_prior: Option<&Tensor>,
    expected: &[Expected],
    config: &Config,
) -> Vec<VolumeBounds> {
    let bounds = |(index, (expected, mass)): (usize, (&Expected, f64))| {
        let [min_vox, max_vox] = config.volume_fractions.map(|fraction| fraction * expected.volume_vox);
        let is_missing = mass < config.evidence_fraction * expected.evidence_mass;
        is_missing.then_some(VolumeBounds { class: Class::at(index), min_vox, max_vox })
    };
    expected.iter().zip(evidence_masses(scores, log_prior)).enumerate().filter_map(bounds).collect()
}

/// Scores (1, 1 + K, d, h, w) in which the margin of `class` over all others is that in `other`: it is where it is there, also where the
/// others have taken its place.
pub fn with_class(scores: &Tensor, other: &Tensor, class: Class) -> Tensor {
    let channel = class.channel() as i64;
    let found = scores.copy();
    found.narrow(1, channel, 1).copy_(&(greatest_other(scores, channel) + margin(other, channel)));
    found
}

/// The evidence mass of each of the K classes: see [`Expected::evidence_mass`].
fn evidence_masses(scores: &Tensor, log_prior: Option<&Tensor>) -> Vec<f64> {
    let size = scores.size();
    let (greatest, classes) = scores.topk(2, 1, true, true);
    let mut margins = greatest.narrow(1, 0, 1) - greatest.narrow(1, 1, 1);
    let classes = classes.narrow(1, 0, 1);
    if let Some(log_prior) = log_prior {
        let p = similarity::interpolate(log_prior, [size[2], size[3], size[4]]).exp();
        margins *= p.gather(1, &classes, false);
    }
    let sums = Tensor::zeros([size[1]], (Kind::Double, scores.device()));
    let sums = sums.index_add(0, &classes.flatten(0, -1), &margins.flatten(0, -1).to_kind(Kind::Double));
    Vec::<f64>::try_from(sums).expect("numbers").split_off(1)
}

/// Voxels of each of the K classes where scores (1, 1 + K, d, h, w) are greatest.
fn volumes(scores: &Tensor) -> Vec<f64> {
    let counts = similarity::argmax(scores).flatten(0, -1).bincount(None::<Tensor>, scores.size()[1]);
    Vec::<i64>::try_from(counts).expect("whole numbers").into_iter().skip(1).map(|count| count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_floats;

    const CONFIG: Config = Config { evidence_fraction: 0.25, volume_fractions: [0.7, 1.2] };

    /// Scores (1, 1 + K, 1, 1, n) from those of each class along a line.
    fn line<const N: usize>(of_classes: &[[f32; N]]) -> Tensor {
        from_floats(&of_classes.concat(), &[1, of_classes.len() as i64, 1, 1, N as i64])
    }

    fn classes_of(scores: &Tensor) -> Vec<i64> {
        Vec::try_from(similarity::argmax(scores).flatten(0, -1)).unwrap()
    }

    #[test]
    fn evidence_mass_is_the_margins_where_the_class_is_likely() {
        let scores = line(&[[0.0, 0.0, 5.0, 0.0], [2.0, 1.0, 4.0, 0.0], [0.5, 0.0, 0.0, 3.0]]);
        assert_eq!(evidence_masses(&scores, None), [2.5, 3.0]);
        assert_eq!(volumes(&scores), [2.0, 1.0]);
        let p = line(&[[1.0; 4], [1.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.25]]);
        assert_eq!(evidence_masses(&scores, Some(&p.log())), [2.0, 0.75]);
    }

    #[test]
    fn the_median_is_expected_and_a_class_of_less_than_a_quarter_of_its_mass_is_missing() {
        let template = |class: f32| line(&[[0.0; 4], [class, class, -1.0, -1.0]]);
        let templates = [1.0, 9.0, 2.0].map(template);
        let found = expected(&templates.each_ref(), &Belief::all(3, 1), None, 1);
        assert_eq!(found, [Expected { volume_vox: 2.0, evidence_mass: 4.0 }]);
        assert_eq!(missing_classes(&template(0.51), None, &found, &CONFIG), []);
        let missing = missing_classes(&template(0.49), None, &found, &CONFIG);
        assert_eq!(missing, [VolumeBounds { class: Class::at(0), min_vox: 1.4, max_vox: 2.4 }]);
        assert_eq!(expected(&[], &Belief::default(), None, 2), [Expected { volume_vox: 0.0, evidence_mass: 0.0 }; 2]);
        let nothing = missing_classes(&template(-1.0), None, &expected(&[], &Belief::default(), None, 1), &CONFIG);
        assert_eq!(nothing, [], "nothing is expected without templates");
    }

    #[test]
    fn one_class_of_other_scores_takes_its_place_back_and_the_rest_stays() {
        let scores = line(&[[0.0, 1.0, 0.0], [-5.0, -5.0, -5.0], [9.0, 0.0, 2.0]]);
        let other = line(&[[0.0, 0.0, 0.0], [3.0, 2.0, -1.0], [0.0, 0.0, 9.0]]);
        let found = with_class(&scores, &other, Class::at(0));
        assert_eq!(classes_of(&found), [1, 1, 2]);
        for channel in [0, 2] {
            assert_eq!(found.narrow(1, channel, 1), scores.narrow(1, channel, 1));
        }
    }
}
