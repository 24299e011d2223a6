//! Numbers from PyTorch and pytorch-3dunet (`tests/data/make_golden.py` made them) against ours.

use safetensors::{Dtype, SafeTensors};
use ssl3d::features::blocks::Norm;
use ssl3d::features::{self, Architecture, UNet};
use ssl3d::prototypes::{self, Competition, EncodedSupport, Method, Window};
use ssl3d::similarity::{self, Tape};
use ssl3d::training::{adamw::AdamW, one_cycle::one_cycle};
use ssl3d::{loss, rng, tensor};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn::VarStore, no_grad};

fn golden(name: &str) -> BTreeMap<String, Tensor> {
    let path = format!("{}/tests/data/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => panic!("{name} is {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        Tensor::from_data_size(view.data(), &shape, kind)
    };
    file.names().into_iter().map(|name| (name.to_owned(), tensor(name))).collect()
}

fn assert_close(ours: &Tensor, theirs: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let difference = (ours - theirs).abs().max().double_value(&[]);
    assert!(difference <= tolerance, "{what} differs by {difference:e}");
}

/// The network of tests/data/unet3d.safetensors.
fn unet() -> features::Config {
    features::Config {
        architecture: Architecture::UNet3d,
        ensemble_size: 1,
        f_maps: 8,
        levels: 4,
        output_channels: 8,
        norm: Norm::Batch,
        pooling: vec![[2, 2, 2]; 3],
        output_level: 0,
    }
}

#[test]
fn the_unet_with_pytorch_3dunets_weights_gives_its_features() {
    let golden = golden("unet3d");
    let vs = VarStore::new(Device::Cpu);
    let net = UNet::new(&vs.root(), &unet(), &mut rng::stream(0, "weights", 0));
    for (name, mut variable) in vs.variables() {
        no_grad(|| variable.copy_(&golden[&format!("weights.{name}")]));
    }
    let ours = no_grad(|| net.forward(&golden["input"], false));
    assert_close(&ours, &golden["features"], 1e-4, "features");
}

#[test]
fn alp_gives_pytorchs_prototypes_scores_loss_and_gradients() {
    let golden = golden("alp");
    // In double precision libtorch does all of it; in single precision, on the CPU, the scores are ours.
    let kinds = [(Kind::Double, 1e-9), (Kind::Float, 1e-5)];
    for (case, (kind, tolerance)) in (0..3).flat_map(|case| kinds.map(|kind| (case, kind))) {
        let get = |name: &str| golden[&format!("case{case}.{name}")].detach().copy().to_kind(kind);
        let window = get("window").to_kind(Kind::Int64);
        let window = Window::Size([0, 1, 2].map(|axis| window.int64_value(&[axis])));
        let config =
            prototypes::Config { method: Method::Alp, train_window: window, test_window: window, threshold: 0.95 };
        let support_features = get("support_features").set_requires_grad(true);
        let query_features = get("query_features").set_requires_grad(true);
        let classes = |name: &str| get(name).to_kind(Kind::Int64).squeeze();
        let support = EncodedSupport::new(support_features.shallow_clone(), &classes("support_mask"), 1);
        let found = prototypes::extract(&[support], window, &config, Competition::Joint);
        let mut tape = Tape::default();
        let scores = similarity::scores(&query_features, &found, 20.0, &mut tape);
        let probability = similarity::probabilities(&scores, Competition::Joint);
        let loss = loss::dice(&probability, &get("query_mask"));
        loss.backward();
        tape.backward();
        for (what, ours) in [
            ("foreground_prototypes", &found.foreground[0]),
            ("background_prototypes", &found.background[0]),
            ("logits_bg_fg", &scores),
            ("foreground_probability", &probability),
            ("dice_loss", &loss.view([1])),
            ("grad_support", &support_features.grad()),
            ("grad_query", &query_features.grad()),
        ] {
            assert_close(ours, &get(what), tolerance, &format!("case {case}, {kind:?}: {what}"));
        }
    }
}

#[test]
fn adamw_under_one_cycle_takes_pytorchs_steps() {
    let golden = golden("adamw_onecycle");
    let weights = golden["w0"].copy().set_requires_grad(true);
    let mut adamw = AdamW::new(BTreeMap::from([("w".to_owned(), weights.shallow_clone())]), 1e-2);
    for step in 0..40 {
        let (rate, beta_1) = one_cycle(step as u64, 40, 1e-2);
        assert!((rate - golden["lr"].double_value(&[step])).abs() < 1e-12, "rate of step {step}");
        assert!((beta_1 - golden["beta1"].double_value(&[step])).abs() < 1e-12, "beta_1 of step {step}");
        adamw.zero_gradients();
        (&weights * golden["grads"].get(step)).sum(Kind::Float).backward();
        adamw.step(rate, beta_1);
        let theirs = golden["weights_after"].get(step);
        assert_close(&weights.detach(), &theirs, 1e-6, &format!("weights after step {step}"));
    }
    assert_eq!(tensor::to_vec(&weights).len(), 12);
}

#[test]
fn weights_pass_to_pytorch_3dunet_and_back_under_its_names() {
    let golden = golden("unet3d");
    let theirs: BTreeMap<String, Tensor> =
        golden.iter().filter_map(|(name, t)| Some((name.strip_prefix("weights.")?.to_owned(), t.copy()))).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let floats = theirs.iter().filter(|(_, t)| t.kind() == Kind::Float).map(|(n, t)| (n.clone(), t.copy())).collect();
    ssl3d::weights::write(&path, &floats, "").unwrap();
    // The file has exactly the tensors of their state_dict, the integer counters included.
    let bytes = std::fs::read(&path).unwrap();
    let mut names: Vec<String> =
        SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, theirs.into_keys().collect::<Vec<_>>());
    // And theirs load into our network without a name missing or left over.
    let read = ssl3d::weights::read(&path).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let _net = UNet::new(&vs.root(), &unet(), &mut rng::stream(0, "weights", 0));
    ssl3d::weights::load(&path, &read.tensors, &ssl3d::weights::variables(&vs)).unwrap();
}
