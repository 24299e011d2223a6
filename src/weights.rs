//! Named tensors in safetensors files: written whole or not at all, read strictly.

use crate::artifact;
use crate::error::{Error, Result};
use crate::tensor::{from_floats, to_vec};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Kind, Tensor, no_grad};

/// One metadata entry holds everything: the order of several would change from run to run.
const METADATA_KEY: &str = "ssl3d";
/// PyTorch's batch norm counts batches under this name; nothing depends on the count.
const BATCH_COUNT: &str = "num_batches_tracked";

/// The content of a file.
pub struct Weights {
    pub tensors: BTreeMap<String, Tensor>,
    /// What was written beside them, as text (JSON); empty where another program wrote the file.
    pub metadata: String,
}

struct Values {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Values {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes float32 `tensors` with `metadata`; equal content gives equal bytes.
///
/// Networks with batch norm get the batch counters that PyTorch's `load_state_dict` insists on.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &str) -> Result<()> {
    let mut views = BTreeMap::new();
    for (name, tensor) in tensors {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        let bytes = to_vec(tensor).iter().flat_map(|value| value.to_le_bytes()).collect();
        views.insert(name.clone(), Values { dtype: Dtype::F32, shape, bytes });
        if let Some(norm) = name.strip_suffix("running_mean") {
            let zero = 0i64.to_le_bytes().to_vec();
            views.insert(format!("{norm}{BATCH_COUNT}"), Values { dtype: Dtype::I64, shape: vec![], bytes: zero });
        }
    }
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), metadata.to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("names and shapes are our own");
    artifact::write_bytes(path, &bytes)
}

/// Reads a file of float32 tensors.
///
/// # Errors
/// The file is missing, is no safetensors file, is damaged, or holds other types than float32.
pub fn read(path: &Path) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let refuse = |expected: &str, found: String| {
        Error::file(path, expected, found, "give a .safetensors file that ssl3d train wrote")
    };
    let broken = |e: safetensors::SafeTensorError| refuse("a safetensors file", format!("something else ({e})"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let metadata = header.metadata().as_ref().and_then(|all| all.get(METADATA_KEY)).cloned().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if name.ends_with(BATCH_COUNT) {
            continue;
        }
        if view.dtype() != Dtype::F32 {
            return Err(refuse("float32 tensors", format!("{name} of type {:?}", view.dtype())));
        }
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(refuse("finite numbers", format!("{value} in {name}")));
        }
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(name, from_floats(&values, &shape));
    }
    Ok(Weights { tensors, metadata })
}

/// Copies `source` into `target`, name by name; names and shapes must be the same on both sides.
pub fn load(path: &Path, source: &BTreeMap<String, Tensor>, target: &BTreeMap<String, Tensor>) -> Result<()> {
    let refuse = |expected: String, found: String| {
        Err(Error::file(path, expected, found, "use weights of the same [features] section"))
    };
    if let Some(missing) = target.keys().find(|name| !source.contains_key(*name)) {
        return refuse(format!("the tensor {missing}"), "none of that name".to_owned());
    }
    if let Some(extra) = source.keys().find(|name| !target.contains_key(*name)) {
        return refuse("only the network's tensors".to_owned(), format!("also {extra}"));
    }
    for (name, tensor) in target {
        let (ours, theirs) = (tensor.size(), source[name].size());
        if ours != theirs {
            return refuse(format!("{name} of shape {ours:?}"), format!("shape {theirs:?}"));
        }
    }
    for (name, tensor) in target {
        no_grad(|| tensor.shallow_clone().copy_(&source[name]));
    }
    Ok(())
}

/// All variables of a store by name, in a fixed order.
pub fn variables(store: &tch::nn::VarStore) -> BTreeMap<String, Tensor> {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    debug_assert!(variables.values().all(|v| v.kind() == Kind::Float));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BTreeMap<String, Tensor> {
        let values = from_floats(&[1.0, -2.5, 3.0, 4.0], &[2, 2]);
        BTreeMap::from([("a.weight".to_owned(), values), ("b.running_mean".to_owned(), from_floats(&[7.0], &[1]))])
    }

    #[test]
    fn what_is_written_is_read_and_equal_content_has_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            write(path, &example(), "{\"step\": 3}").unwrap();
        }
        let back = read(&paths[0]).unwrap();
        assert_eq!(back.metadata, "{\"step\": 3}");
        assert_eq!(back.tensors.len(), 2);
        assert_eq!(to_vec(&back.tensors["a.weight"]), [1.0, -2.5, 3.0, 4.0]);
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let path = Path::new("w.safetensors");
        let without = |name: &str| {
            let mut some = example();
            some.remove(name);
            some
        };
        let mut bent = example();
        bent.insert("a.weight".to_owned(), from_floats(&[0.0; 4], &[4, 1]));
        for (source, target, word) in [
            (without("a.weight"), example(), "the tensor a.weight"),
            (example(), without("a.weight"), "also a.weight"),
            (bent, example(), "shape [4, 1]"),
        ] {
            let message = load(path, &source, &target).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn files_that_are_no_weights_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &example(), "").unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut huge = good.clone();
        huge[..8].copy_from_slice(&(1u64 << 63).to_le_bytes());
        for bytes in [&good[..good.len() - 3], b"", b"PK\x03\x04 a pickle in a zip", &huge] {
            std::fs::write(&path, bytes).unwrap();
            let message = read(&path).err().expect("refused").to_string();
            assert!(message.contains("w.safetensors: expected") && !message.contains('\n'), "{message}");
        }
    }
}
