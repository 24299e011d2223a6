//! One step of training reads: features, prototypes, predict, loss; and once more with the roles swapped.

use crate::episode::Episode;
use crate::loss;
use crate::model::Model;
use crate::prediction::{Tape, hard};
use crate::prototypes::Support;
use crate::tensor::{batch, from_classes, from_voxels};
use tch::{Device, Tensor, no_grad};

/// An episode on the device.
pub struct Tensors {
    /// Support and query, (2, 1, D, H, W).
    images: Tensor,
    /// Class indices (D, H, W).
    support: Tensor,
    query: Tensor,
    /// Regions in the episode.
    count: i64,
}

impl Tensors {
    pub fn new(episode: &Episode, device: Device) -> Self {
        let image = |voxels: &ndarray::Array3<f32>| from_voxels(voxels.view());
        let classes = |labels: &ndarray::Array3<u8>| from_classes(labels.view()).to_device(device);
        Self {
            images: batch(&[&image(&episode.support_image), &image(&episode.query_image)]).to_device(device),
            support: classes(&episode.support_labels),
            query: classes(&episode.query_labels),
            count: i64::from(episode.classes),
        }
    }
}

/// What one episode gave.
pub struct Outcome {
    /// The loss to minimise: Eq. 3.6 on the query, and lambda times Eq. 3.7 where alignment is on.
    loss: Tensor,
    /// The part of Eq. 3.6.
    pub segmentation: Tensor,
    /// Scores of the query, (1, 1 + K, D, H, W).
    pub scores: Tensor,
    tape: Tape,
}

impl Outcome {
    /// The value of the loss to minimise: for its gradients there is [`Outcome::backward`].
    pub fn loss(&self) -> Tensor {
        self.loss.detach()
    }

    /// The gradients of the loss with respect to the network's variables.
    pub fn backward(&mut self) {
        self.loss.backward();
        self.tape.backward();
    }
}

/// The loss of one episode. `train`: batch norm uses and updates the batch's statistics.
pub fn step(model: &Model, episode: &Tensors, config: &loss::Config, alignment: bool, train: bool) -> Outcome {
    let Tensors { images, support, query, count } = episode;
    let (window, classes) = (model.config.prototypes.train_window, model.config.prediction.train_classes);
    let size = images.size();
    let size = [size[2], size[3], size[4]];

    let features = model.features(images, train); // (2, C, d, h, w)
    let (of_support, of_query) = (features.narrow(0, 0, 1), features.narrow(0, 1, 1));
    let annotated = Support::new(of_support.shallow_clone(), support, *count);
    let prototypes = model.prototypes(&[annotated], window, classes);
    let mut tape = Tape::default();
    let scores = model.scores(&of_query, &prototypes, size, &mut tape);
    let segmentation = loss::segmentation(&scores, query, classes, config);

    let mut loss = segmentation.shallow_clone();
    if alignment && config.alignment_weight > 0.0 {
        // The query's own hard prediction is its mask, and has to find the support's.
        let (predicted, truth, found) = no_grad(|| present(&hard(&scores), support, *count));
        if found > 0 {
            let predicted = Support::new(of_query, &predicted, found);
            let prototypes = model.prototypes(&[predicted], window, classes);
            let scores = model.scores(&of_support, &prototypes, size, &mut tape);
            let swapped = loss::segmentation(&scores, &truth, classes, config);
            loss = &segmentation + swapped * config.alignment_weight;
        }
    }
    Outcome { loss, segmentation: segmentation.detach(), scores: scores.detach(), tape }
}

/// Leaves out the classes that were predicted nowhere and numbers the others anew: predicted map, truth, their count.
fn present(predicted: &Tensor, truth: &Tensor, count: i64) -> (Tensor, Tensor, i64) {
    let sizes = predicted.flatten(0, -1).bincount(None::<Tensor>, count + 1);
    let (mut map, mut found) = (vec![0i64], 0);
    for class in 1..=count {
        let is_there = sizes.int64_value(&[class]) > 0;
        found += i64::from(is_there);
        map.push(if is_there { found } else { 0 });
    }
    let map = Tensor::from_slice(&map).to_device(predicted.device());
    (map.take(predicted), map.take(truth), found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{self, blocks::Norm};
    use crate::prototypes::{self, Classes, Method, Window};
    use crate::{model, prediction};
    use ndarray::Array3;

    fn model() -> Model {
        let window = Window::Size([2, 2, 2]);
        let (levels, pooling) = (2, vec![[1, 2, 2]]);
        let classes = Classes::Joint;
        let config = model::Config {
            features: features::Config {
                f_maps: 4,
                levels,
                output_channels: 4,
                norm: Norm::Instance,
                pooling,
                output_level: 0,
            },
            prototypes: prototypes::Config {
                method: Method::Alp,
                train_window: window,
                test_window: window,
                threshold: 0.95,
            },
            prediction: prediction::Config { alpha: 20.0, train_classes: classes, test_classes: classes },
        };
        Model::new(&config, Device::Cpu, 0)
    }

    #[test]
    fn alignment_adds_to_the_loss_and_leaves_the_reported_part_alone() {
        let image = Array3::from_shape_fn((4, 8, 8), |(z, y, x)| (z + 2 * y + x) as f32 / 10.0);
        let labels = Array3::from_shape_fn((4, 8, 8), |(_, y, _)| u8::from(y < 4));
        let (query_image, query_labels) = (image.clone(), labels.clone());
        let (support_image, support_labels) = (image, labels);
        let episode = Episode { support_image, support_labels, query_image, query_labels, classes: 1 };
        let config = loss::Config {
            dice_weight: 1.0,
            cross_entropy_weight: 0.0,
            background_weight: 0.1,
            alignment_weight: 1.0,
            alignment_start: 0.0,
        };
        let (model, tensors) = (model(), Tensors::new(&episode, Device::Cpu));
        let [without, with] = [false, true].map(|alignment| step(&model, &tensors, &config, alignment, true));
        let value = |t: &Tensor| t.double_value(&[]);
        assert_eq!(value(&without.loss), value(&without.segmentation));
        assert_eq!(value(&with.segmentation), value(&without.segmentation));
        assert!(value(&with.loss) > value(&with.segmentation));
    }

    #[test]
    fn classes_that_were_predicted_nowhere_are_left_out_of_the_alignment() {
        let predicted = Tensor::from_slice(&[0i64, 3, 3, 1]).view([1, 2, 2]);
        let truth = Tensor::from_slice(&[2i64, 3, 1, 0]).view([1, 2, 2]);
        let (predicted, truth, found) = present(&predicted, &truth, 3);
        assert_eq!(found, 2);
        assert_eq!(Vec::<i64>::try_from(predicted.flatten(0, -1)).unwrap(), [0, 2, 2, 1]);
        assert_eq!(Vec::<i64>::try_from(truth.flatten(0, -1)).unwrap(), [0, 2, 1, 0]);
    }
}
