//! Segments an array from another one and its labels, in memory. A weights file of `ssl3d train` or `ssl3d demo` is the argument:
//!
//! ```text
//! cargo run --release --example segment_array -- ssl3d-demo/run/fold_0/weights.safetensors
//! ```
//!
//! Without it the network is as its seed draws it, and finds less.

use ndarray::Array3;
use ssl3d::inference::{PreparedScan, Segmenter, SliceRanges, Support};
use ssl3d::volume::{ClassMap, Geometry, Volume};
use ssl3d::{
    config, error::Result, metrics, network::Network, preprocessing::Annotation, pretrained::Pretrained,
    synthesis::phantom,
};
use std::path::Path;
use tch::Device;

const SPACING_MM: [f64; 3] = [7.0, 2.6, 2.6];

fn main() -> Result<()> {
    // Arrays are [z, y, x]: x grows towards the patient's right, y towards anterior, z towards superior.
    let [(support, labels), (query, truth)] = [0, 1].map(|index| {
        let (image, labels) = phantom::subject(&phantom::Config::demo(2, 42), index);
        (image.voxels, labels.voxels)
    });

    let (pretrained, network, config);
    let segmenter = if let Some(weights) = std::env::args_os().nth(1) {
        pretrained = Pretrained::open(Path::new(&weights), &[], Device::Cpu)?;
        config = pretrained.config.clone();
        pretrained.segmenter()
    } else {
        config = config::load(Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/demo.toml")), &[])?;
        network = Network::new(&config.network(), Device::Cpu, 0);
        Segmenter::new(&network, &config.inference, &config.supervoxels)
    };

    let classes = ClassMap::new(phantom::CLASSES.map(|(_, label)| label))?;
    let [support, query] = [support, query].map(|voxels| PreparedScan::new(volume(voxels), &config.preprocessing));
    let annotation = Annotation::new(volume(labels), None);
    let fitted = segmenter.fit(&[Support { scan: &support, annotation }], &classes);
    let found = fitted.segment(&query, &SliceRanges::unknown()).labels;
    for (name, label) in phantom::CLASSES {
        let voxels = found.iter().filter(|found| **found == label).count();
        let dice = metrics::dice(found.view(), truth.view(), label).expect("a generated abdomen has every organ");
        println!("{name}: {voxels} voxels, Dice {:.1} %", 100.0 * dice);
    }
    Ok(())
}

fn volume<T>(voxels: Array3<T>) -> Volume<T> {
    Volume { geometry: Geometry::with_spacing(voxels.dim().into(), SPACING_MM), voxels }
}
