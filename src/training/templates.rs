//! Templates: training scans without labels that are segmented from the supports first and then serve as further
//! supports; their results are combined by label fusion (MAGeT-Brain, Chakravarty et al. 2013). They are stored on the
//! working grid in a file beside the weights, because weights may be published where scans may not.

use super::checkpoint::{self, Provenance};
use crate::episode::Scan;
use crate::error::{Error, Result};
use crate::inference::NetworkVolume;
use crate::tensor::{from_voxels, to_vec};
use crate::volume::dataset;
use crate::weights;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// File name of the templates.
const FILE: &str = "templates.safetensors";
/// Prefixes of the names of the tensors, before the scan's id: voxels (1, 1, D, H, W), and their spacing z y x in millimetres.
const SCAN: &str = "scan ";
const SPACING: &str = "spacing_mm ";

/// Writes up to `most` of the scans, evenly spaced in their order, into `folder`; nothing if `most` is 0.
///
/// # Errors
/// As [`weights::write`].
pub fn write(folder: &Path, scans: &[Scan], most: usize, about: &Provenance) -> Result<()> {
    if most == 0 {
        return Ok(());
    }
    let chosen = dataset::evenly(most, scans.len()).map(|index| &scans[index]);
    let tensors = |scan: &Scan| {
        let spacing_mm = Tensor::from_slice(&scan.spacing_mm.map(|mm| mm as f32));
        let scan_of = (format!("{SCAN}{}", scan.id), from_voxels(scan.image.view()));
        [scan_of, (format!("{SPACING}{}", scan.id), spacing_mm)]
    };
    let tensors = chosen.flat_map(tensors).collect();
    weights::write(&folder.join(FILE), &tensors, &about.to_json())
}

/// Reads at most `most` templates of the training that wrote `weights` (its last weights or a checkpoint).
///
/// # Errors
/// There are none, or they are of another training.
pub fn read(weights: &Path, about: &Provenance, most: usize) -> Result<Vec<NetworkVolume>> {
    if most == 0 {
        return Ok(vec![]);
    }
    let path = beside(weights);
    let refuse = |found: &str| {
        let expected = format!("the unlabelled templates of {}", weights.display());
        let remedy = "copy it from the run, or set inference.templates = 0 and go without";
        Err(Error::file(&path, expected, found, remedy))
    };
    if !path.exists() {
        return refuse("no such file");
    }
    let (theirs, mut tensors) = checkpoint::read_weights(&path)?;
    if (&theirs.config, &theirs.fold) != (&about.config, &about.fold) {
        return refuse("those of another training");
    }
    let spacings = tensors.split_off(SPACING);
    let template = |(name, image): (String, Tensor)| {
        let spacing_mm = to_vec(spacings.get(&format!("{SPACING}{}", name.strip_prefix(SCAN)?))?);
        let spacing_mm: [f32; 3] = spacing_mm.try_into().ok()?;
        let is_volume = matches!(image.size()[..], [1, 1, _, _, _]);
        is_volume.then(|| NetworkVolume { image, spacing_mm: spacing_mm.map(f64::from) })
    };
    let templates: Option<Vec<NetworkVolume>> = tensors.into_iter().map(template).collect();
    match templates {
        Some(templates) => Ok(templates.into_iter().take(most).collect()),
        None => refuse("other tensors than scans with their spacing"),
    }
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
            frame: None,
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
            spacing_mm: [5.0, 2.0, 2.0],
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
                templates.iter().map(|template| template.image.mean(tch::Kind::Float).double_value(&[])).collect();
            assert_eq!(means, [0.0, 2.0]);
            assert_eq!((templates[1].image.size(), templates[1].spacing_mm), (vec![1, 1, 2, 3, 4], [5.0, 2.0, 2.0]));
        }
        let message = read(&last, &about("fold 1"), 2).unwrap_err().to_string();
        assert!(message.contains("another training"), "{message}");
    }
}
