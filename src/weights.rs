//! Named tensors in safetensors files, written atomically and checked on reading. Files of this crate carry the digests
//! of their tensors; files of other programs are read without.

mod seal;

use crate::artifact;
use crate::error::{Error, Result};
use crate::tensor::{from_floats, to_vec};
use half::f16;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, View};
use seal::Seal;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use tch::{Kind, Tensor, no_grad};

/// All metadata is one entry: with several entries their order would change from run to run.
const METADATA_KEY: &str = "ssl3d";
/// Name under which PyTorch's batch norm counts batches. No computation here depends on the count.
const BATCH_COUNT: &str = "num_batches_tracked";
/// First bytes of PyTorch's own files: a zip archive, or before version 1.6 a bare pickle.
const PICKLES: [&[u8]; 2] = [b"PK\x03\x04", b"\x80"];

/// The content of a weights file.
pub struct Weights {
    /// Float32 tensors on the CPU by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The writer's metadata as JSON text; empty if another program wrote the file.
    pub metadata: String,
    /// BLAKE3 of the file in hexadecimal digits.
    pub digest: String,
}

/// How many bits a number takes in a file; in memory all are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits.
    Single,
    /// 16 bits (IEEE 754 binary16): half the size, three digits.
    Half,
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

/// Writes float32 `tensors` and `metadata` (JSON, or empty for none). Equal content gives equal bytes.
///
/// # Errors
/// As [`artifact::write`], or a value is not finite.
///
/// ```
/// use ssl3d::weights::{read, write};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("w.safetensors");
/// let values = ssl3d::tensor::from_floats(&[1.0, 2.0], &[2]);
/// let tensors = std::collections::BTreeMap::from([("a.weight".to_owned(), values)]);
/// write(&path, &tensors, r#"{"step": 3}"#)?;
/// assert_eq!(read(&path)?.tensors["a.weight"].size(), [2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &str) -> Result<()> {
    artifact::write_bytes(path, &serialised(path, tensors, metadata, Precision::Single)?)
}

/// Does the same as [`write()`] with numbers of this many bits.
///
/// # Errors
/// As [`write()`].
pub fn write_as(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &str, precision: Precision) -> Result<()> {
    artifact::write_bytes(path, &serialised(path, tensors, metadata, precision)?)
}

/// Does the same as [`write()`] and moves the file that was at `path` to `previous`.
///
/// # Errors
/// As [`write()`].
pub fn write_keeping(path: &Path, previous: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &str) -> Result<()> {
    artifact::write_bytes_keeping(path, previous, &serialised(path, tensors, metadata, Precision::Single)?)
}

/// The bytes of the file. Networks with batch norm get the batch counters that PyTorch's `load_state_dict` requires.
fn serialised(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &str,
    precision: Precision,
) -> Result<Vec<u8>> {
    let (mut views, mut digests) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in tensors {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        let values = to_vec(tensor);
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let remedy = "what was saved before is still there; lower training.learning_rate";
            return Err(Error::file(path, "finite numbers to write", format!("{value} in {name}"), remedy));
        }
        let (dtype, bytes): (_, Vec<u8>) = match precision {
            Precision::Single => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Precision::Half => {
                (Dtype::F16, values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect())
            }
        };
        digests.insert(name.clone(), seal::digest(&bytes));
        views.insert(name.clone(), Values { dtype, shape, bytes });
        if let Some(norm) = name.strip_suffix("running_mean") {
            let zero = 0i64.to_le_bytes().to_vec();
            views.insert(format!("{norm}{BATCH_COUNT}"), Values { dtype: Dtype::I64, shape: vec![], bytes: zero });
        }
    }
    if metadata.is_empty() {
        return Ok(safetensors::serialize(views, None).expect("names and shapes are our own"));
    }
    let seal = Seal::new(digests, metadata).expect("the metadata is JSON");
    let entries = HashMap::from([(METADATA_KEY.to_owned(), seal.to_json())]);
    let mut bytes = safetensors::serialize(views, Some(entries)).expect("names and shapes are our own");
    seal.press(&mut bytes);
    Ok(bytes)
}

/// Reads a file of float32 or float16 tensors.
///
/// # Errors
/// The file is missing, is not a safetensors file, has changed since this crate wrote it, or holds values that are not
/// finite numbers of these types.
pub fn read(path: &Path) -> Result<Weights> {
    parse(path, &read_plausible(path, &|expected, found| refusal(path, expected, found))?)
}

fn refusal(path: &Path, expected: &str, found: String) -> Error {
    Error::file(path, expected, found, "give a .safetensors file that ssl3d train wrote")
}

/// The content of such a file; `path` is named in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Weights> {
    let refuse = |expected: &str, found: String| refusal(path, expected, found);
    let broken = |e: SafeTensorError| refuse("a safetensors file", explain(&e));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let mut metadata = String::new();
    if let Some(json) = header.metadata().as_ref().and_then(|all| all.get(METADATA_KEY)) {
        let seal: Seal = serde_json::from_str(json)
            .map_err(|e| refuse("the digests of ssl3d", format!("metadata without them ({e})")))?;
        if !seal.is_whole(bytes.to_vec()) {
            let changed = |(name, digest): &(&String, &String)| {
                file.tensor(name).map_or(true, |view| seal::digest(view.data()) != **digest)
            };
            let place = seal.tensors.iter().find(changed).map_or("its header".to_owned(), |(name, _)| name.clone());
            return Err(Error::file(
                path,
                "the bytes that ssl3d wrote",
                format!("others (the digest of {place} is wrong)"),
                "the file is damaged: restore it from a copy, or take another checkpoint of the run",
            ));
        }
        seal.about.get().clone_into(&mut metadata);
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if name.ends_with(BATCH_COUNT) {
            continue;
        }
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(refuse("float32 tensors", format!("{name} of type {other:?}"))),
        };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(refuse("finite numbers", format!("{value} in {name}")));
        }
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        tensors.insert(name, from_floats(&values, &shape));
    }
    Ok(Weights { tensors, metadata, digest: blake3::hash(bytes).to_hex().to_string() })
}

/// The bytes of the file, read in full only if its first nine bytes fit a safetensors file: the length of the header,
/// and the brace that opens the header.
fn read_plausible(path: &Path, refuse: &dyn Fn(&str, String) -> Error) -> Result<Vec<u8>> {
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut start = Vec::new();
    file.by_ref().take(9).read_to_end(&mut start).map_err(Error::io("read", path))?;
    let header = start.first_chunk().map(|eight| u64::from_le_bytes(*eight));
    let found = match header {
        Some(header) if header <= length.saturating_sub(8) && start.ends_with(b"{") => {
            let mut bytes = start;
            file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
            return Ok(bytes);
        }
        _ if PICKLES.iter().any(|magic| start.starts_with(magic)) => {
            let remedy = "a pickle may run any code when it is loaded; have its owner save it as safetensors";
            return Err(Error::file(path, "a safetensors file", "a pickle of PyTorch", remedy));
        }
        Some(header) => format!("a file of {length} bytes whose header claims {header}: cut off, or something else"),
        None if length == 0 => "an empty file".to_owned(),
        None => format!("{length} bytes"),
    };
    Err(refuse("a safetensors file", found))
}

/// The library's error in words.
fn explain(fault: &SafeTensorError) -> String {
    match fault {
        SafeTensorError::InvalidOffset(name) => format!("the data of {name} overlapping another's, or apart from it"),
        SafeTensorError::MetadataIncompleteBuffer => "more or fewer bytes than its header claims".to_owned(),
        SafeTensorError::TensorInvalidInfo => "a tensor whose bytes do not fit its shape".to_owned(),
        SafeTensorError::ValidationOverflow => "a tensor whose size no machine can hold".to_owned(),
        other => format!("something else ({other})"),
    }
}

/// Copies the values of `source` into `target`, name by name. `path` is named in errors.
///
/// # Errors
/// A name is missing on either side, or two shapes differ; nothing is copied then.
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

/// All variables of a store, ordered by name.
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
        let with_header =
            |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
        let tensor = |name: &str, dtype: &str, shape: &str, offsets: &str| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
        };
        let two =
            |of_b: &str| format!("{{{},{}}}", tensor("a", "F32", "[1]", "[0,4]"), tensor("b", "F32", "[1]", of_b));
        let one = |dtype: &str, shape: &str| format!("{{{}}}", tensor("a", dtype, shape, "[0,8]"));
        let nan = [f32::NAN.to_le_bytes(), 1f32.to_le_bytes()].concat();
        for (bytes, word) in [
            (good[..good.len() - 3].to_vec(), "more or fewer bytes than its header claims"),
            ([&good[..], b"more"].concat(), "more or fewer bytes"),
            (good[..40].to_vec(), "a file of 40 bytes whose header claims"),
            (good[..5].to_vec(), "found 5 bytes"),
            (vec![], "an empty file"),
            (b"PK\x03\x04 a pickle in a zip".to_vec(), "a pickle of PyTorch"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j".to_vec(), "may run any code"),
            ([&(1u64 << 63).to_le_bytes()[..], &good[8..]].concat(), "claims 9223372036854775808"),
            ([&u64::MAX.to_le_bytes()[..], &good[8..]].concat(), "claims 18446744073709551615"),
            (with_header("not json", b""), "something else"),
            (with_header(&two("[2,6]"), &[0; 6]), "the data of b overlapping"),
            (with_header(&two("[8,12]"), &[0; 12]), "the data of b overlapping another's, or apart"),
            (with_header(&two("[8,4]"), &[0; 12]), "the data of"),
            (with_header(&one("F32", "[3]"), &[0; 8]), "do not fit its shape"),
            (with_header(&one("F32", "[9223372036854775807,3]"), &[0; 8]), "no machine can hold"),
            (with_header(&one("F64", "[1]"), &[0; 8]), "float32 tensors, found a of type F64"),
            (with_header(&one("F32", "[2]"), &nan), "finite numbers, found NaN in a"),
            (with_header(r#"{"__metadata__":{"ssl3d":"{}"}}"#, b""), "the digests of ssl3d"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = read(&path).err().expect("refused").to_string();
            assert!(message.contains("w.safetensors: expected") && !message.contains('\n'), "{message}");
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[test]
    fn no_bit_of_a_file_can_change_unnoticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let about = r#"{"config": "seed = 1", "step": 3}"#;
        write(&path, &example(), about).unwrap();
        assert_eq!(read(&path).unwrap().metadata, about);
        let good = std::fs::read(&path).unwrap();
        let mut where_it_was = [0; 3];
        for bit in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let (kind, noticed) = match read(&path) {
                // The key under which the seal stands: then it is a file without metadata, which no checkpoint is.
                Ok(file) => (0, file.metadata.is_empty()),
                Err(fault) => (if fault.to_string().contains("digest of a.weight") { 1 } else { 2 }, true),
            };
            assert!(noticed, "bit {bit}");
            where_it_was[kind] += 1;
        }
        let of_values = 8 * 4 * 4;
        assert!(where_it_was[0] < 40 && where_it_was[1] >= of_values, "{where_it_was:?}");
    }

    #[test]
    fn weights_that_are_not_finite_replace_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &example(), "").unwrap();
        let before = std::fs::read(&path).unwrap();
        let nan = BTreeMap::from([("a.weight".to_owned(), from_floats(&[f32::INFINITY], &[1]))]);
        let message = write(&path, &nan, "").unwrap_err().to_string();
        assert!(message.contains("inf in a.weight") && message.contains("learning_rate"), "{message}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
}
