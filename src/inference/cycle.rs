//! Which templates are believed about which class: cycle verification. A class that was found in a template has to be found in the supports
//! again, when these are segmented from what was found there; else the template shows something else, or nothing that helps.

use crate::prototypes::EncodedSupport;
use crate::volume::Class;
use tch::{Device, Kind, Tensor};

/// The classes about which each template is believed.
#[derive(Debug, Default)]
pub struct Belief {
    /// [template][class]
    is_believed: Vec<Vec<bool>>,
}

impl Belief {
    /// In each template about each of `count` classes.
    pub fn all(templates: usize, count: usize) -> Self {
        Self { is_believed: vec![vec![true; count]; templates] }
    }

    /// From the Dice of each class in the supports: `by_supports` as the supports segment themselves, which is the most that can be
    /// expected, and `by_templates` as each template does. A template needs the fraction `least` of the former.
    pub fn of(by_templates: &[Vec<f64>], by_supports: &[f64], least: f64) -> Self {
        let of_template =
            |dice: &Vec<f64>| dice.iter().zip(by_supports).map(|(dice, own)| *dice >= least * own).collect();
        Self { is_believed: by_templates.iter().map(of_template).collect() }
    }

    /// The templates, by their index, that are believed about a class; about the background those that are about any class.
    pub fn about(&self, class: Option<Class>) -> Vec<usize> {
        let is_believed = |of_classes: &Vec<bool>| match class {
            Some(class) => of_classes[class.index()],
            None => of_classes.contains(&true),
        };
        (0..).zip(&self.is_believed).filter(|(_, of_classes)| is_believed(of_classes)).map(|(index, _)| index).collect()
    }

    /// Of these templates alone, in their order.
    pub fn only(&self, templates: &[usize]) -> Self {
        Self { is_believed: templates.iter().map(|&template| self.is_believed[template].clone()).collect() }
    }

    /// Whether each template is believed about each class.
    pub fn is_complete(&self) -> bool {
        self.is_believed.iter().flatten().all(|is_believed| *is_believed)
    }
}

/// Dice of each of `count` classes in the annotated part of the supports, on the feature map: where `scores` of their features
/// (1, C, d, h, w), (1, 1 + K, d, h, w), are greatest for a class, and where their annotation is most of it. 0 of a class that is on neither
/// side.
pub fn dice_on_supports(supports: &[EncodedSupport], count: usize, scores: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let channels = 1 + count as i64;
    let mut pairs = Tensor::zeros([channels, channels], (Kind::Double, Device::Cpu)); // voxels [found, annotated]
    for EncodedSupport { features, masks, known } in supports {
        let found = scores(features).argmax(1, true);
        // On the CPU, where sums of weights have an order.
        let flat = |map: &Tensor| map.flatten(0, -1).to_device(Device::Cpu);
        let pair = flat(&(found * channels + masks.argmax(1, true)));
        let annotated = known.as_ref().map(|known| flat(known).to_kind(Kind::Double));
        pairs += pair.bincount(annotated, channels * channels).view([channels, channels]);
    }
    let both = Vec::<f64>::try_from(pairs.diag(0)).expect("numbers");
    let all =
        pairs.sum_dim_intlist([0i64].as_slice(), false, None) + pairs.sum_dim_intlist([1i64].as_slice(), false, None);
    let all = Vec::<f64>::try_from(all).expect("numbers");
    both.iter().zip(&all).skip(1).map(|(both, all)| if *all > 0.0 { 2.0 * both / all } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::from_floats;

    #[test]
    fn a_template_is_believed_where_it_finds_the_class_in_the_support_again() {
        let belief = Belief::of(&[vec![0.6, 0.1], vec![0.59, 0.7], vec![0.2, 0.1]], &[0.9, 0.8], 2.0 / 3.0);
        assert_eq!(belief.about(Some(Class::at(0))), [0]);
        assert_eq!(belief.about(Some(Class::at(1))), [1]);
        assert_eq!(belief.about(None), [0, 1]);
        assert_eq!(belief.only(&[1]).about(Some(Class::at(1))), [0]);
        assert!(belief.only(&[]).about(None).is_empty());
        assert!(!belief.is_complete() && Belief::all(3, 2).is_complete());
        let indifferent = Belief::of(&[vec![0.0, 0.0]], &[0.9, 0.8], 0.0);
        assert!(indifferent.is_complete());
    }

    #[test]
    fn dice_is_that_of_the_annotated_voxels() {
        // Four voxels in a row: annotated 0 1 1 2; found 1 1 0 2.
        let one_hot = |channels: [usize; 4]| {
            let values: Vec<f32> = (0..3).flat_map(|c| channels.map(|of| f32::from(u8::from(of == c)))).collect();
            from_floats(&values, &[1, 3, 1, 1, 4])
        };
        let support = |known: Option<[f32; 4]>| EncodedSupport {
            features: one_hot([1, 1, 0, 2]),
            masks: one_hot([0, 1, 1, 2]),
            known: known.map(|known| from_floats(&known, &[1, 1, 1, 1, 4])),
        };
        let dice = |known| dice_on_supports(&[support(known)], 2, Tensor::shallow_clone);
        assert_eq!(dice(None), [0.5, 1.0]);
        assert_eq!(dice(Some([0.0, 1.0, 1.0, 0.0])), [2.0 / 3.0, 0.0]);
        let twice = [support(None), support(Some([0.0, 1.0, 1.0, 0.0]))];
        assert_eq!(dice_on_supports(&twice, 2, Tensor::shallow_clone), [4.0 / 7.0, 1.0]);
    }
}
