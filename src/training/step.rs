//! One training step: features, prototypes, scores, loss; and the same with support and query swapped (alignment). For
//! an SE-Net: slices, scores, loss.

use crate::baselines::SeNet;
use crate::baselines::se_net::volume::{absent, against_background, of_volume, showing};
use crate::episode::Episode;
use crate::loss;
use crate::network::{Members, Network};
use crate::prototypes::{Competition, EncodedSupport};
use crate::similarity::{Tape, argmax};
use crate::tensor::{batch, from_classes, from_voxels};
use tch::{Device, Kind, Tensor, no_grad};

/// An episode as tensors on the device.
pub struct Tensors {
    /// Images of support and query, (2, 1, D, H, W).
    images: Tensor,
    /// Class indices (D, H, W) of support and query.
    support: Tensor,
    query: Tensor,
    /// Number of classes in the episode.
    count: i64,
}

impl Tensors {
    /// Copies an episode to the device.
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

/// The result of one episode.
pub struct Outcome {
    /// The loss to minimise: Eq. 3.6 on the query, and lambda times Eq. 3.7 if alignment is on.
    loss: Tensor,
    /// The loss of Eq. 3.6 alone, detached.
    pub segmentation: Tensor,
    /// Scores of the query, (1, 1 + K, D, H, W).
    pub scores: Tensor,
    tape: Tape,
}

impl Outcome {
    /// The value of the loss to minimise, detached; [`Outcome::backward`] computes its gradients.
    pub fn loss(&self) -> Tensor {
        self.loss.detach()
    }

    /// Computes the gradients of the loss with respect to the network's variables.
    pub fn backward(&mut self) {
        self.loss.backward();
        self.tape.backward();
    }
}

/// The loss of one episode; an SE-Net has no alignment. `learner` is the ensemble member to train, whose batch norm
/// uses and updates the batch's statistics; with `None` all members together compute the features.
pub fn step(
    model: &Network,
    episode: &Tensors,
    config: &loss::Config,
    alignment: bool,
    learner: Option<usize>,
) -> Outcome {
    match &model.members {
        Members::UNets(members) => {
            let features = match learner {
                Some(learner) => members[learner].forward(&episode.images, true),
                None => model.encode(&episode.images),
            };
            by_prototypes(model, &features, episode, config, alignment)
        }
        Members::SeNet(network) => by_slices(network, episode, config, learner.is_some()),
    }
}

/// The loss of a network with prototypes. `features` are those of support and query, (2, C, d, h, w).
fn by_prototypes(
    model: &Network,
    features: &Tensor,
    episode: &Tensors,
    config: &loss::Config,
    alignment: bool,
) -> Outcome {
    let Tensors { images, support, query, count } = episode;
    let (window, competition) = (model.config.prototypes.train_window, Competition::Joint);
    let size = images.size();
    let size = [size[2], size[3], size[4]];

    let (of_support, of_query) = (features.narrow(0, 0, 1), features.narrow(0, 1, 1));
    let annotated = EncodedSupport::new(of_support.shallow_clone(), support, *count);
    let prototypes = model.prototypes(&[annotated], window, competition);
    let mut tape = Tape::default();
    let scores = model.scores(&of_query, &prototypes, size, &mut tape);
    let segmentation = loss::segmentation(&scores, query, competition, config);

    let mut loss = segmentation.shallow_clone();
    if alignment && config.alignment_weight > 0.0 {
        // The query's own hard prediction is its mask, and has to find the support's.
        let (predicted, truth, found) = no_grad(|| present(&argmax(&scores), support, *count));
        if found > 0 {
            let predicted = EncodedSupport::new(of_query, &predicted, found);
            let prototypes = model.prototypes(&[predicted], window, competition);
            let scores = model.scores(&of_support, &prototypes, size, &mut tape);
            let swapped = loss::segmentation(&scores, &truth, competition, config);
            loss = &segmentation + swapped * config.alignment_weight;
        }
    }
    Outcome { loss, segmentation: segmentation.detach(), scores: scores.detach(), tape }
}

/// The loss of an SE-Net. Each slice of the query is segmented from the support's slice of the same index, if that
/// shows the class; the loss is that of one class against the rest, mean over the classes. The slices of all classes
/// are one batch, so that batch norm trains on the mean statistics with which it later predicts.
fn by_slices(network: &SeNet, episode: &Tensors, config: &loss::Config, train: bool) -> Outcome {
    let Tensors { images, support, query, count } = episode;
    let [of_support, of_query] = [0, 1].map(|side| of_volume(&images.narrow(0, side, 1))); // (D, 1, H, W) each
    let masks: Vec<Tensor> = (1..=*count).map(|class| support.eq(class)).collect(); // (D, H, W) each
    let slices: Vec<Tensor> =
        masks.iter().map(|mask| Tensor::from_slice(&showing(mask)).to_device(images.device())).collect();
    let asked = masks.iter().zip(&slices).map(|(mask, slices)| mask.index_select(0, slices)).collect::<Vec<_>>();
    let asked = Tensor::cat(&asked, 0).unsqueeze(1).to_kind(Kind::Float); // (n, 1, H, W), class after class
    let all = Tensor::cat(&slices, 0);
    let excitation = network.excitation(&of_support.index_select(0, &all), &asked, train);
    let found = network.forward(&of_query.index_select(0, &all), &excitation, train); // (n, 2, H, W)

    let mut scores = vec![of_query.squeeze_dim(1).zeros_like()]; // (D, H, W)
    let mut losses = Vec::new();
    let counts: Vec<i64> = slices.iter().map(|slices| slices.size()[0]).collect();
    for ((class, slices), found) in (1..).zip(&slices).zip(found.split_with_sizes(&counts, 0)) {
        let mut of_class = absent(&scores[0]);
        if found.size()[0] > 0 {
            let truth = query.eq(class).index_select(0, slices).to_kind(Kind::Int64);
            losses.push(loss::segmentation(&found.transpose(0, 1).unsqueeze(0), &truth, Competition::Joint, config));
            of_class = of_class.index_copy(0, slices, &against_background(&found.detach()));
        }
        scores.push(of_class);
    }
    let loss = Tensor::stack(&losses, 0).mean(Kind::Float);
    let scores = Tensor::stack(&scores, 0).unsqueeze(0); // (1, 1 + K, D, H, W)
    Outcome { segmentation: loss.detach(), loss, scores, tape: Tape::default() }
}

/// Removes the classes that were predicted nowhere and renumbers the others: predicted map, truth, number of classes.
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
    use crate::features::{self, Architecture, blocks::Norm};
    use crate::network::{self, System};
    use crate::prototypes::{self, Method, Window};
    use crate::similarity;
    use ndarray::Array3;

    fn model(system: System, architecture: Architecture) -> Network {
        let window = Window::Size([2, 2, 2]);
        let config = network::Config {
            system,
            features: features::Config {
                architecture,
                ensemble_size: 2,
                f_maps: 8,
                levels: 2,
                output_channels: 4,
                norm: Norm::Instance,
                pooling: vec![[1, 2, 2]],
                output_level: 0,
            },
            prototypes: prototypes::Config {
                method: Method::Alp,
                train_window: window,
                test_window: window,
                threshold: 0.95,
            },
            similarity: similarity::Config { alpha: 20.0, competition: Competition::Joint },
        };
        Network::new(&config, Device::Cpu, 0)
    }

    /// Dice loss on the same volume twice.
    fn example(image: Array3<f32>, labels: Array3<u8>) -> (Tensors, loss::Config) {
        let classes = labels.iter().copied().max().unwrap_or(0);
        let (query_image, query_labels) = (image.clone(), labels.clone());
        let (support_image, support_labels) = (image, labels);
        let episode = Episode { support_image, support_labels, query_image, query_labels, classes };
        let config = loss::Config {
            dice_weight: 1.0,
            cross_entropy_weight: 0.0,
            background_weight: 0.1,
            alignment_weight: 1.0,
            alignment_start: 0.0,
        };
        (Tensors::new(&episode, Device::Cpu), config)
    }

    #[test]
    fn alignment_adds_to_the_loss_and_leaves_the_reported_part_alone() {
        let image = Array3::from_shape_fn((4, 8, 8), |(z, y, x)| (z + 2 * y + x) as f32 / 10.0);
        let labels = Array3::from_shape_fn((4, 8, 8), |(_, y, _)| u8::from(y < 4));
        let (tensors, config) = example(image, labels);
        let value = |t: &Tensor| t.double_value(&[]);
        for architecture in [Architecture::UNet3d, Architecture::UNet2d] {
            let model = model(System::Prototypes, architecture);
            let [without, with] = [false, true].map(|alignment| step(&model, &tensors, &config, alignment, Some(1)));
            assert_eq!(value(&without.loss), value(&without.segmentation));
            assert_eq!(value(&with.segmentation), value(&without.segmentation));
            assert!(value(&with.loss) > value(&with.segmentation));
        }
    }

    #[test]
    fn an_se_net_segments_a_class_only_where_the_support_shows_it() {
        let image = Array3::from_shape_fn((3, 16, 16), |(z, y, x)| ((z + 2 * y) as f32 * x as f32).sin());
        let labels = Array3::from_shape_fn((3, 16, 16), |(z, y, _)| if y > 7 { 0 } else { [1, 0, 2][z] });
        let (tensors, config) = example(image, labels);
        let outcome = step(&model(System::SeNet, Architecture::UNet3d), &tensors, &config, true, None);
        assert_eq!(outcome.loss().double_value(&[]), outcome.segmentation.double_value(&[]));
        assert_eq!(outcome.scores.size(), [1, 3, 3, 16, 16]);
        for (class, slice) in (1..3).flat_map(|class| (0..3).map(move |slice| (class, slice))) {
            let asked = outcome.scores.select(1, class).select(1, slice).gt(-1e3).all().int64_value(&[]) == 1;
            assert_eq!(asked, slice == 2 * (class - 1), "class {class}, slice {slice}");
        }
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
