//! Templates: training scans without labels that are segmented from the supports first and then serve as further
//! supports; their results are combined by label fusion (MAGeT-Brain, Chakravarty et al. 2013). They are stored on the
//! working grid in a file beside the weights, because weights may be published where scans may not.

use super::checkpoint::{self, Provenance};
use crate::episode::Scan;
use crate::error::{Error, Result};
use crate::tensor::from_voxels;
use crate::weights;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// File name of the templates.
const FILE: &str = "templates.safetensors";
/// Prefix of the names of the tensors, before the scan's id.
const PREFIX: &str = "scan ";

/// Writes up to `most` of the scans, evenly spaced in their order, into `folder`; nothing if `most` is 0.
///
/// # Errors
/// As [`weights::write`].
pub fn write(folder: &Path, scans: &[Scan], most: usize, about: &Provenance) -> Result<()> {
    if most == 0 {
        return Ok(());
    }
    let count = most.min(scans.len());
    let chosen = (0..count).map(|i| &scans[i * scans.len() / count]);
    let tensors = chosen.map(|scan| (format!("{PREFIX}{}", scan.id), from_voxels(scan.image.view()))).collect();
    weights::write(&folder.join(FILE), &tensors, &about.to_json())
}

/// Reads at most `most` templates of the training that wrote `weights` (its last weights or a checkpoint), (1, 1, D, H,
/// W) each.
///
/// # Errors
/// There are none, or they are of another training.
pub fn read(weights: &Path, about: &Provenance, most: usize) -> Result<Vec<Tensor>> {
    if most == 0 {
        return Ok(vec![]);
    }
    let path = beside(weights);
    let refuse = |found: &str| {
        let expected = format!("the scans without labels that {} is asked with", weights.display());
        let remedy = "copy it from the run, or set inference.templates = 0 and go without";
        Err(Error::file(&path, expected, found, remedy))
    };
    if !path.exists() {
        return refuse("no such file");
    }
    let (theirs, tensors) = checkpoint::read_weights(&path)?;
    if (&theirs.config, &theirs.fold) != (&about.config, &about.fold) {
        return refuse("those of another training");
    }
    if tensors.iter().any(|(name, image)| !name.starts_with(PREFIX) || !matches!(image.size()[..], [1, 1, _, _, _])) {
        return refuse("other tensors than scans");
    }
    Ok(tensors.into_values().take(most).collect())
}

/// The file in the folder of the weights; checkpoints are in a subfolder of it.
fn beside(weights: &Path) -> PathBuf {
    let folder = weights.parent().unwrap_or(Path::new(""));
    let is_below = folder.file_name().is_some_and(|name| name == "checkpoints");
    let folder = if is_below { folder.parent().unwrap_or(Path::new("")) } else { folder };
    folder.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::checkpoint::State;
    use ndarray::Array3;

    fn about(fold: &str) -> Provenance {
        Provenance {
            ssl3d: String::new(),
            config: String::new(),
            fold: fold.to_owned(),
            trained_on: vec![],
            data: String::new(),
            state: State::START,
        }
    }

    #[test]
    fn templates_belong_to_one_training_and_are_found_from_its_weights_and_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        let scan = |number: usize| Scan {
            id: format!("{number}"),
            image: Array3::from_elem((2, 3, 4), number as f32),
            regions: Array3::zeros((2, 3, 4)),
            organs: None,
            spacing_mm: [1.0; 3],
        };
        let scans: Vec<Scan> = (0..5).map(scan).collect();
        let last = folder.path().join("weights.safetensors");
        let message = read(&last, &about("fold 0"), 2).unwrap_err().to_string();
        assert!(message.contains("templates.safetensors") && message.contains("templates = 0"), "{message}");
        assert!(!message.contains('\n'), "{message}");

        write(folder.path(), &scans, 0, &about("fold 0")).unwrap();
        assert!(read(&last, &about("fold 0"), 0).unwrap().is_empty());
        assert!(read(&last, &about("fold 0"), 1).is_err(), "0 writes nothing");
        write(folder.path(), &scans, 2, &about("fold 0")).unwrap();
        for weights in [last.clone(), folder.path().join("checkpoints/best.safetensors")] {
            let templates = read(&weights, &about("fold 0"), 9).unwrap();
            let means: Vec<f64> =
                templates.iter().map(|image| image.mean(tch::Kind::Float).double_value(&[])).collect();
            assert_eq!(means, [0.0, 2.0]);
            assert_eq!(templates[0].size(), [1, 1, 2, 3, 4]);
        }
        let message = read(&last, &about("fold 1"), 2).unwrap_err().to_string();
        assert!(message.contains("another training"), "{message}");
    }
}
