//! Memory that a configuration needs.

use super::{Network, System};
use crate::baselines::SeNet;
use crate::baselines::se_net::volume::AT_ONCE;
use crate::features::Config;
use tch::Device;

/// From the sizes of what libtorch keeps; with a 3D U-Net within a quarter of the measured peak on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryEstimate {
    /// Number of trainable parameters.
    pub parameters: u64,
    /// Peak of a training step, with libtorch and the program.
    pub training_bytes: u64,
    /// Peak of segmenting one query, likewise.
    pub segmenting_bytes: u64,
}

/// libtorch itself, loaded and warmed up, with the program around it.
const PROCESS_BYTES: u64 = 400 << 20;
const FLOAT_BYTES: u64 = 4;

impl MemoryEstimate {
    /// For volumes of `size_vox`, training on so many regions and segmenting so many classes at a time.
    pub fn of(config: &super::Config, size_vox: [usize; 3], templates: usize, regions: usize, classes: usize) -> Self {
        if !config.system.is_trained() {
            return Self { parameters: 0, training_bytes: PROCESS_BYTES, segmenting_bytes: PROCESS_BYTES };
        }
        let parameters = Network::new(config, Device::Cpu, 0).parameters() as u64;
        let (training, segmenting) = match config.system {
            System::Prototypes => {
                let (training, segmenting) = floats_of_unet(&config.features, size_vox, regions, classes);
                (training, segmenting + floats_of_templates(&config.features, size_vox, templates as u64, classes))
            }
            System::SeNet => floats_of_se_net(&config.features, size_vox, regions, classes),
            System::MaskCopy | System::MaskAffine => (0, 0),
        };
        Self {
            parameters,
            training_bytes: PROCESS_BYTES + FLOAT_BYTES * (training + 4 * parameters),
            segmenting_bytes: PROCESS_BYTES + FLOAT_BYTES * (segmenting + parameters),
        }
    }
}

/// In training and in segmenting.
fn floats_of_unet(features: &Config, size_vox: [usize; 3], regions: usize, classes: usize) -> (u64, u64) {
    let voxels = |shape: [i64; 3]| shape.iter().product::<i64>() as u64;
    let shapes = features.level_shapes(size_vox.map(|n| n as i64));
    let channels = features.channels();

    // Per volume: what the backward pass wants of each convolution (its own output and the norm's, which the leaky
    // ReLU overwrites) and of each pooling, and the largest map.
    let (mut kept, mut largest) = (0, 0);
    let mut double = |pooled: i64, middle: i64, outputs: i64, voxels: u64| {
        kept += voxels * (pooled + 2 * middle + 2 * outputs) as u64;
        largest = largest.max(voxels * outputs as u64);
    };
    for level in 0..features.levels {
        let inputs = if level == 0 { 1 } else { channels[level - 1] };
        double(inputs, (channels[level] / 2).max(inputs), channels[level], voxels(shapes[level]));
    }
    for level in features.output_level..features.levels - 1 {
        double(0, channels[level], channels[level], voxels(shapes[level]));
    }
    // Prediction: the features and their gradient; scores of every class at the input's resolution.
    let feature_vox = voxels(shapes[features.output_level]);
    let joined = feature_vox * (features.ensemble_size as i64 * features.output_channels) as u64;
    let features = feature_vox * features.output_channels as u64;
    let scores = |classes: usize| voxels(shapes[0]) * (classes as u64 + 1) * 8;
    // Two volumes; gradients of the largest map, and copies of it in the convolution's own layout.
    let training = 2 * (kept + 2 * largest + 2 * features + scores(regions));
    (training, 2 * largest + joined + scores(classes))
}

/// Features, supervoxels and scores of every template; scores of every voter, side by side and sorted, with the places of 8
/// bytes that they came from.
fn floats_of_templates(features: &Config, size_vox: [usize; 3], templates: u64, classes: usize) -> u64 {
    let shape = features.level_shapes(size_vox.map(|n| n as i64))[features.output_level];
    let feature_vox = shape.iter().product::<i64>() as u64;
    let joined = features.ensemble_size as u64 * features.output_channels as u64;
    feature_vox * templates * (joined + 2 + 6 * (classes as u64 + 1))
}

/// The same, where every slice shows every region.
fn floats_of_se_net(features: &Config, size_vox: [usize; 3], regions: usize, classes: usize) -> (u64, u64) {
    let [depth, slice_vox] = [size_vox[0], size_vox[1] * size_vox[2]].map(|n| n as u64);
    let largest = features.f_maps as u64 * slice_vox;
    let scores = |classes: usize| depth * slice_vox * (classes as u64 + 1) * 8;
    // Regions are one batch: gradients of the largest map, and copies of it in the convolution's own layout.
    let training = depth * regions as u64 * (SeNet::kept(features.f_maps, slice_vox) + 4 * largest) + scores(regions);
    // The encoders' maps with their places, and three more; one channel of each block for each class.
    (training, AT_ONCE as u64 * 6 * largest + depth * slice_vox * 2 * classes as u64 + scores(classes))
}
