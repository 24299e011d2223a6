//! Weights that do not fit the network.

use super::volumes::set;
use ssl3d::network::Network;
use ssl3d::tensor::from_floats;
use ssl3d::{config, weights};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};
use tempfile::tempdir;

/// A tensor of ones, by name.
fn tensors(name: &str, shape: &[i64]) -> BTreeMap<String, Tensor> {
    BTreeMap::from([(name.to_owned(), from_floats(&vec![1.0; shape.iter().product::<i64>() as usize], shape))])
}

/// A header, its length in front of it, and bytes behind it.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A network of these features, and its tensors.
fn network(set: &[&str]) -> (Network, BTreeMap<String, Tensor>) {
    let set = ["features.f_maps=4", "features.levels=2", "features.pooling=[[1,2,2]]"].iter().chain(set);
    let config = config::load(None, &set.map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap();
    let model = Network::new(&config.network(), Device::Cpu, 0);
    let tensors = weights::variables(&model.variables);
    (model, tensors)
}

#[test]
fn weights_that_do_not_fit_are_refused_at_once_each_with_its_own_message() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let (model, own) = network(&[]);
    weights::write(&path, &own, "").unwrap();
    let good = fs::read(&path).unwrap();
    model.load(&path, &weights::read(&path).unwrap().tensors).unwrap();
    let first = own.keys().next().unwrap().clone();

    let other = |set: &[&str]| {
        weights::write(&path, &network(set).1, "").unwrap();
        fs::read(&path).unwrap()
    };
    let with = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut some: BTreeMap<String, Tensor> =
            own.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
        change(&mut some);
        weights::write(&path, &some, "").unwrap();
        fs::read(&path).unwrap()
    };
    let one = |dtype: &str, shape: &str, end: usize| {
        let header = format!(r#"{{"{first}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        file(&header, &vec![0; end])
    };
    let two = |of_b: &str| {
        let tensor =
            |name: &str, offsets: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
        file(&format!("{{{},{}}}", tensor("a", "[0,4]"), tensor("b", of_b)), &[0; 8])
    };
    let value = |value: f32| {
        let mut bytes = good.clone();
        let at = bytes.len() - 4;
        set(&mut bytes, at, value.to_le_bytes());
        bytes
    };
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a tensor is missing", with(&|some| drop(some.remove(&first))), "the tensor"),
        ("one too many", with(&|some| some.extend(tensors("zz", &[1]))), "also zz"),
        ("another shape", with(&|some| some.extend(tensors(&first, &[1, 2, 3]))), "shape [1, 2, 3]"),
        ("float64", one("F64", "[1]", 8), "of type F64"),
        ("one tensor in half precision", one("F16", "[1]", 2), "the tensor"),
        ("bfloat16", one("BF16", "[1]", 2), "of type BF16"),
        ("whole numbers", one("I64", "[1]", 8), "of type I64"),
        ("bytes", one("U8", "[1]", 1), "of type U8"),
        ("a type of nobody's", one("F12", "[1]", 8), "something else"),
        ("a wider network", other(&["features.f_maps=8"]), "of shape"),
        (
            "a deeper network",
            other(&["features.levels=3", "features.pooling=[[1,2,2],[2,2,2]]"]),
            "only the network's tensors",
        ),
        ("several networks", other(&["features.ensemble_size=2"]), "the tensor"),
        ("another norm", other(&["features.norm=instance"]), "the tensor"),
        ("an se-net", other(&["system=se-net"]), "the tensor"),
        ("no tensors", file("{}", b""), "the tensor"),
        ("NaN", value(f32::NAN), "found NaN in"),
        ("infinity", value(f32::INFINITY), "found inf in"),
        (
            "a header of 2^63 bytes",
            [&(1u64 << 63).to_le_bytes()[..], &good[8..]].concat(),
            "claims 9223372036854775808",
        ),
        (
            "a header of all bytes that can be counted",
            [&u64::MAX.to_le_bytes()[..], &good[8..]].concat(),
            "claims 18446744073709551615",
        ),
        ("a header of no bytes", file("", b""), "8 bytes"),
        ("overlapping tensors", two("[2,6]"), "the data of b overlapping"),
        (
            "bytes that no tensor has",
            file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 9]),
            "more or fewer bytes",
        ),
        ("a tensor beyond the file", two("[4,800]"), "do not fit its shape"),
        ("more elements than bytes", one("F32", "[3]", 8), "do not fit its shape"),
        ("more elements than can be counted", one("F32", "[9223372036854775807,9]", 8), "no machine can hold"),
        ("a pickle", b"\x80\x02}q\x00(X\x06\x00\x00\x00weight".to_vec(), "a pickle of PyTorch"),
        ("a large pickle in a zip", b"PK\x03\x04".to_vec(), "a pickle of PyTorch"),
        ("cut off", good[..good.len() / 2].to_vec(), "more or fewer bytes"),
    ];
    let mut messages = BTreeMap::new();
    for (name, bytes, words) in &rows {
        fs::write(&path, bytes).unwrap();
        if name.contains("large") {
            // Without taking up room.
            fs::File::options().write(true).open(&path).unwrap().set_len(4_000_000_000).unwrap();
        }
        let before = Tensor::cat(&own.values().map(|tensor| tensor.flatten(0, -1)).collect::<Vec<_>>(), 0);
        let load = || {
            let started = Instant::now();
            let fault = weights::read(&path).and_then(|file| model.load(&path, &file.tensors)).expect_err(name);
            (started.elapsed(), fault.to_string())
        };
        // The quickest of three, since other programs may be at work.
        let (took, fault) = (0..3).map(|_| load()).min().expect("three");
        assert!(took < Duration::from_millis(100), "{name}: {took:?}");
        let (place, rest) = fault.split_once("w.safetensors: expected ").unwrap_or_else(|| panic!("{name}: {fault}"));
        assert!(place.ends_with('/') && rest.contains(", found ") && rest.contains("; "), "{name}: {fault}");
        assert!(fault.contains(words) && !fault.contains('\n'), "{name}: {fault}");
        let after = Tensor::cat(&own.values().map(|tensor| tensor.flatten(0, -1)).collect::<Vec<_>>(), 0);
        assert!(before == after, "{name}: the network has changed");
        messages.entry(rest.to_owned()).or_insert_with(BTreeSet::new).insert(*words);
    }
    let shared: Vec<_> = messages.iter().filter(|(_, kinds)| kinds.len() > 1).collect();
    assert!(shared.is_empty(), "{shared:?}");
    println!("weights: {} of {} cases refused as they should be", rows.len(), rows.len());
}
