//! A trained network with the configuration that it was trained under and its templates, from the files of a training.

use crate::config::{self, Config};
use crate::error::Result;
use crate::inference::{NetworkVolume, Segmenter};
use crate::network::Network;
use crate::training::checkpoint::{self, Provenance};
use crate::training::templates;
use crate::volume::frame::Frame;
use crate::weights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// The weights that come with the program: `configs/generalist.toml`, trained on generated anatomies alone (`docs/model-card.md`).
const GENERALIST: &[u8] = include_bytes!("pretrained/generalist.safetensors");
/// What they are called where a path would stand.
const GENERALIST_NAME: &str = "the weights that come with ssl3d";

/// The content of a weights file.
pub struct Weights {
    path: PathBuf,
    /// BLAKE3 of the file.
    pub digest: String,
    /// What the weights come from.
    pub provenance: Provenance,
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// # Errors
    /// The file cannot be read, or no training of ssl3d has written it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = weights::read(path)?;
        Self::new(path, file)
    }

    /// Those that come with the program, which have seen no patient. They fit scans of any kind, so that no size in their
    /// configuration is meant for the scans at hand: [`crate::planning::choices`].
    pub fn generalist() -> Self {
        let path = Path::new(GENERALIST_NAME);
        let read = weights::parse(path, GENERALIST).and_then(|file| Self::new(path, file));
        read.expect("a test has read them")
    }

    fn new(path: &Path, file: weights::Weights) -> Result<Self> {
        let digest = file.digest.clone();
        let (provenance, tensors) = checkpoint::network_of(path, file)?;
        Ok(Self { path: path.to_owned(), digest, provenance, tensors })
    }

    /// Where they are, or what they are called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether they are those of the network that `config` describes.
    ///
    /// # Errors
    /// As [`Weights::config`].
    pub fn fit(&self, config: &Config) -> Result<bool> {
        let own = self.config(&[])?;
        Ok((own.system, &own.features) == (config.system, &config.features))
    }

    /// Copies them into a network, which must be of the same features.
    ///
    /// # Errors
    /// It is another network.
    pub fn load_into(&self, network: &Network) -> Result<()> {
        network.load(&self.path, &self.tensors)
    }

    /// The configuration of the training with `overrides` of the form `section.key=value` on top.
    ///
    /// # Errors
    /// It is that of another version, or an override does not fit.
    pub fn config(&self, overrides: &[String]) -> Result<Config> {
        config::with_overrides(&self.provenance.config, &self.path.display().to_string(), overrides)
    }

    /// The network and the templates that stand beside the weights.
    ///
    /// # Errors
    /// The weights are another network's; the templates are missing, or another training's.
    pub fn load(self, config: Config, device: Device) -> Result<Pretrained> {
        let network = Network::new(&config.network(), device, config.training.seed);
        self.load_into(&network)?;
        let templates = templates::read(&self.path, &self.provenance, config.inference.templates)?;
        Ok(Pretrained { config, network, templates, frame: self.provenance.frame })
    }
}

/// A network that is ready to segment.
///
/// ```no_run
/// use ssl3d::pretrained::Pretrained;
/// let weights = std::path::Path::new("runs/cpu/fold_0/weights.safetensors");
/// let pretrained = Pretrained::open(weights, &["inference.templates=4".to_owned()], tch::Device::Cpu)?;
/// let segmenter = pretrained.segmenter();
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
pub struct Pretrained {
    /// Of its training, with overrides.
    pub config: Config,
    /// With the trained weights.
    pub network: Network,
    templates: Vec<NetworkVolume>,
    /// Which way the training scans were turned.
    pub frame: Option<Frame>,
}

impl Pretrained {
    /// A network from a weights file of `ssl3d train`, with `overrides` of the form `section.key=value`.
    ///
    /// # Errors
    /// As [`Weights::read`], [`Weights::config`] and [`Weights::load`].
    pub fn open(weights: &Path, overrides: &[String], device: Device) -> Result<Self> {
        let weights = Weights::read(weights)?;
        let config = weights.config(overrides)?;
        weights.load(config, device)
    }

    /// A segmenter with the templates.
    pub fn segmenter(&self) -> Segmenter<'_> {
        let mut segmenter = self.segmenter_alone();
        segmenter.add_templates(&self.templates);
        segmenter
    }

    /// A segmenter that looks at no scan beside support and query.
    pub fn segmenter_alone(&self) -> Segmenter<'_> {
        Segmenter::new(&self.network, &self.config.inference, &self.config.supervoxels)
    }
}
