//! The experiment: every section of the TOML beside the module that it configures.
//!
//! There is one source of truth. `configs/defaults.toml` is compiled in; a file given with `--config` replaces what it
//! names, `--set section.key=value` replaces that again, and the whole is checked once.

mod choices;

pub use choices::{Choice, given, planned};

use crate::error::{Error, Result};
use crate::network::{self, System};
use crate::text;
use crate::volume::dataset;
use crate::{
    augment, episode, features, inference, loss, preprocessing, prototypes, report, similarity, supervoxels, synthesis,
    training,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

const BASE: &str = include_str!("../configs/defaults.toml");

/// Tables that are one value: what a file gives replaces them whole.
const ATOMIC: [&str; 3] = ["data.classes", "prototypes.train_window", "prototypes.test_window"];

/// Every key of a configuration; `configs/defaults.toml` explains each and gives its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What tables call the system.
    pub name: String,
    /// What segments.
    pub system: System,
    /// The published system that this one repeats; empty: none. See [`report::published`].
    pub published: String,
    /// Section `[data]`: the files of a dataset and its classes.
    pub data: dataset::Config,
    /// Section `[preprocessing]`: from a scan to the network's array.
    pub preprocessing: preprocessing::Config,
    /// Section `[supervoxels]`: the regions that stand in for organs.
    pub supervoxels: supervoxels::Config,
    /// Section `[split]`: folds and supports.
    pub split: episode::split::Config,
    /// Section `[supervision]`: what stands for a class in training.
    pub supervision: episode::supervision::Config,
    /// Section `[synthesis]`: generated anatomies, where they stand for a class.
    pub synthesis: synthesis::Config,
    /// Section `[episode]`: support and query of a training step.
    pub episode: episode::Config,
    /// Section `[augment]`: random transforms.
    pub augment: augment::Config,
    /// Section `[features]`: the U-Nets.
    pub features: features::Config,
    /// Section `[prototypes]`: pooling of support features.
    pub prototypes: prototypes::Config,
    /// Section `[similarity]`: comparison of query and prototypes.
    pub similarity: similarity::Config,
    /// Section `[inference]`: how queries are segmented.
    pub inference: inference::Config,
    /// Section `[loss]`: what training minimises.
    pub loss: loss::Config,
    /// Section `[training]`: length, schedule and checkpoints.
    pub training: training::Config,
}

/// The configuration of `path` over the paper's values, with `overrides` of the form `section.key=value` on top.
///
/// # Errors
/// The file cannot be read; it or an override is no TOML; a key is unknown or its value of the wrong type or out of range.
///
/// ```
/// let config = ssl3d::config::load(None, &["training.epochs=7".to_owned()])?;
/// assert_eq!(config.training.epochs, 7);
/// let fault = ssl3d::config::load(None, &["training.epoch=7".to_owned()]).unwrap_err();
/// assert!(fault.to_string().contains("did you mean epochs?"));
/// # Ok::<(), ssl3d::error::Error>(())
/// ```
pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Config> {
    let mut table = base();
    let mut given = None;
    if let Some(path) = path {
        let text = text::read("read the configuration", path)?;
        let user: Table = text.parse().map_err(|e: toml::de::Error| {
            let at = format!("{}{}", path.display(), position(&text, e.span()));
            Error::invalid(at, "TOML", e.message().to_owned(), "mend that line")
        })?;
        merge(&mut table, user, "");
        given = Some((path, text));
    }
    for text in overrides {
        merge(&mut table, parse_override(text)?, "");
    }
    let place = |key: &str| match (&given, overridden(key, overrides)) {
        (_, Some(set)) => set,
        (Some((path, text)), None) => format!("{}{}: {key}", path.display(), locate(text, key)),
        (None, None) => key.to_owned(),
    };
    let config = resolve(table).map_err(|(key, message)| {
        let remedy = remedy(&message);
        of_flag(Error::invalid(place(&key), "a known key with a fitting value", message, remedy))
    })?;
    config.check().map_err(|fault| of_flag(fault.placed(place)))?;
    Ok(config)
}

/// A resolved configuration with `overrides` on top.
///
/// # Errors
/// As [`load`]; `at` names where the text comes from.
pub fn with_overrides(text: &str, at: &str, overrides: &[String]) -> Result<Config> {
    let mut table: Table = Config::from_toml(text, at)?.to_toml().parse().expect("our own TOML");
    for text in overrides {
        merge(&mut table, parse_override(text)?, "");
    }
    let config = resolve(table).map_err(|(key, message)| {
        let remedy = remedy(&message);
        Error::flag(format!("--set {key}"), "a known key with a fitting value", message, remedy)
    })?;
    let place = |key: &str| overridden(key, overrides).unwrap_or_else(|| format!("{at}: {key}"));
    config.check().map_err(|fault| of_flag(fault.placed(place)))?;
    Ok(config)
}

/// The compiled-in values.
fn base() -> Table {
    BASE.parse().expect("the compiled-in configuration is valid")
}

/// The last override that sets a key, something below it, or the table around it.
fn overridden(key: &str, overrides: &[String]) -> Option<String> {
    let is_below =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let sets = |text: &&String| {
        let set = text.split('=').next().unwrap_or_default().trim();
        is_below(set, key) || is_below(key, set)
    };
    overrides.iter().rfind(sets).map(|text| format!("--set {text}"))
}

/// The fault of a key, or of the flag where `--set` gave the key its value.
fn of_flag(fault: Error) -> Error {
    match &fault {
        Error::Invalid { at, .. } if at.starts_with("--set ") => fault.wrong_use(),
        _ => fault,
    }
}

/// Names the known key or choice that comes nearest to an unknown one, if any comes near.
fn remedy(message: &str) -> String {
    const COMPARE: &str = "compare with configs/defaults.toml";
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next().filter(|_| message.starts_with("unknown ")) else {
        return COMPARE.to_owned();
    };
    let nearness = |known: &&str| strsim::jaro_winkler(unknown, known);
    match names.max_by(|a, b| nearness(a).total_cmp(&nearness(b))).filter(|known| nearness(known) > 0.8) {
        Some(known) => format!("did you mean {known}? Otherwise {COMPARE}"),
        None => COMPARE.to_owned(),
    }
}

impl Config {
    /// A resolved configuration, as it stands in a run directory or in the metadata of weights. Keys that were added
    /// since take the paper's values.
    ///
    /// # Errors
    /// As [`load`]; `at` names the place.
    pub fn from_toml(text: &str, at: &str) -> Result<Self> {
        let remedy = "it was written by another version of ssl3d, or changed since";
        let refuse = |message: String| Error::invalid(at, "a resolved configuration", message, remedy);
        let mut table = base();
        merge(&mut table, text.parse::<Table>().map_err(|e| refuse(e.message().to_owned()))?, "");
        let config = resolve(table).map_err(|(key, message)| refuse(format!("{key}: {message}")))?;
        config.check().map_err(|fault| fault.placed(|key| format!("{at}: {key}")))?;
        Ok(config)
    }

    /// Every key as TOML; [`Config::from_toml`] reads it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the configuration is serialisable")
    }

    /// What differs from `before`, as `section.key = value in place of another`.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let [before, now] = [before, self].map(|config| {
            let mut values = BTreeMap::new();
            list(Table::try_from(config).expect("the configuration is serialisable"), "", &mut values);
            values
        });
        let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
        changed.map(|key| format!("{key} = {} in place of {}", text(now.get(key)), text(before.get(key)))).collect()
    }

    /// Checks every section, and what two sections have to agree on.
    ///
    /// # Errors
    /// A key is out of its range, or does not go with another.
    pub fn check(&self) -> Result<()> {
        self.data.check()?;
        report::published::check(&self.data.benchmark, &self.published)?;
        self.preprocessing.check()?;
        self.supervoxels.check()?;
        self.split.check()?;
        self.episode.check()?;
        let (depth, slab) = (self.preprocessing.size_vox[0], self.episode.depth_vox);
        if depth > 0 && slab > depth {
            let expected = format!("a slab within the {depth} slices of preprocessing.size_vox");
            return Err(Error::invalid("episode.depth_vox", expected, slab.to_string(), "change one of the two keys"));
        }
        self.supervision.check(&self.split, &self.episode, &self.preprocessing)?;
        self.synthesis.check()?;
        self.augment.check()?;
        self.features.check()?;
        self.prototypes.check()?;
        self.similarity.check()?;
        let network = self.network();
        network.check()?;
        self.inference.check(&network)?;
        let slices = self.supervoxels.method == supervoxels::Method::Felzenszwalb2d;
        if self.inference.supervoxels.native_weight > 0.0 && network.is_slice_wise() && !slices {
            let expected = "supervoxels of single slices beside a network of single slices";
            let (found, remedy) = (format!("{:?}", self.supervoxels.method), "set it to \"felzenszwalb-2d\"");
            return Err(Error::invalid("supervoxels.method", expected, found, remedy));
        }
        self.loss.check()?;
        self.training.check()
    }

    /// The sections that decide the networks.
    pub fn network(&self) -> network::Config {
        network::Config {
            system: self.system,
            features: self.features.clone(),
            prototypes: self.prototypes.clone(),
            similarity: self.similarity.clone(),
        }
    }

    /// The sections that decide a training. `tested`: the organs of the training's group, of [`episode::split::Config::tested`].
    pub fn recipe(&self, tested: Vec<u8>) -> training::TrainingConfig {
        let (supervision, setting) = (self.supervision.clone(), self.split.setting);
        let tested = if supervision.tested_organs { vec![] } else { tested };
        training::TrainingConfig {
            training: self.training.clone(),
            episode: self.episode.clone(),
            augment: self.augment.clone(),
            loss: self.loss.clone(),
            generated: synthesis::Generator {
                config: self.synthesis.clone(),
                most_vox: self.preprocessing.size_vox.iter().product(),
                step_vox: self.features.steps(),
            },
            rules: episode::Rules { supervision, setting, tested },
        }
    }
}

/// `other` over `base`, table by table.
fn merge(base: &mut Table, other: Table, prefix: &str) {
    for (key, value) in other {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(other)) if !ATOMIC.contains(&path.as_str()) => {
                merge(base, other, &path);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// All values of a table and of the tables in it, each under its path.
fn list(table: Table, prefix: &str, values: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(table) => list(table, &format!("{path}."), values),
            value => drop(values.insert(path, value)),
        }
    }
}

/// `a.b=1` as the table `{a: {b: 1}}`; what is no TOML value on the right is taken as text.
fn parse_override(text: &str) -> Result<Table> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let (key, value) = (key.trim(), value.trim());
    let plain = !key.is_empty() && key.split('.').all(|part| !part.is_empty() && is_bare(part));
    if !plain || value.is_empty() {
        let example = "for instance --set training.epochs=100";
        return Err(Error::flag(format!("--set {text}"), "section.key=value", "something else", example));
    }
    let quoted = || format!("{key} = {}", Value::String(value.to_owned()));
    Ok(format!("{key} = {value}").parse().or_else(|_| quoted().parse()).expect("a quoted value is TOML"))
}

fn is_bare(part: &str) -> bool {
    part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The key that is wrong, and what is wrong with it.
fn resolve(table: Table) -> Result<Config, (String, String)> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
        let mut key = e.path().to_string();
        let message = e.inner().message().to_owned();
        // The path ends at the table; an unknown key is named in the message alone.
        if let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
            && key.rsplit('.').next() != Some(unknown)
        {
            key = if key == "." { unknown.to_owned() } else { format!("{key}.{unknown}") };
        }
        (key, message)
    })
}

/// `:line:column` of a key in a TOML text, or nothing where it does not stand there.
fn locate(text: &str, key: &str) -> String {
    let Ok(document) = toml_edit::Document::parse(text) else { return String::new() };
    let mut item = document.as_item();
    let mut span = None;
    for part in key.split(['.', '[']) {
        let Some(table) = item.as_table_like() else { break };
        let Some((found, next)) = table.get_key_value(part) else { break };
        span = found.span().or(next.span());
        item = next;
    }
    position(text, span)
}

fn position(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return String::new() };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!(":{line}:{column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, overrides: &[&str]) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        load(Some(&path), &overrides)
    }

    #[test]
    fn every_config_that_ships_is_valid() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in
            [configs.clone(), configs.join("table")].iter().flat_map(|folder| std::fs::read_dir(folder).unwrap())
        {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                load(Some(&path), &[]).unwrap();
                count += 1;
            }
        }
        assert!(count >= 14);
    }

    #[test]
    fn a_file_replaces_what_it_names_and_an_override_replaces_that() {
        let text = "[training]\nepochs = 7\n[data]\nclasses = { spleen = 9 }\n[prototypes]\ntest_window = { grid = [1, 2, 3] }";
        let config =
            load_text(text, &["training.epochs=8", "data.image=scan {id}.nii", "loss.dice_weight=0.5"]).unwrap();
        assert_eq!(config.training.epochs, 8);
        assert_eq!(config.data.classes.len(), 1);
        assert_eq!(config.data.image, "scan {id}.nii");
        assert_eq!(config.prototypes.test_window, prototypes::Window::Grid([1, 2, 3]));
        assert_eq!(config.features.f_maps, 32, "the paper's");
        assert_eq!(Config::from_toml(&config.to_toml(), "here").unwrap(), config);
    }

    #[test]
    fn changes_are_named_by_key_whatever_the_values_look_like() {
        let base = load(None, &[]).unwrap();
        assert_eq!(base.changes_since(&base), Vec::<String>::new());
        let mut other = load_text("[data]\nclasses = { spleen = 9 }", &["training.learning_rate=0.5"]).unwrap();
        // Lines that look like a section and a value.
        other.name = "a\n[training]\nepochs = 3".to_owned();
        let changes = other.changes_since(&base);
        let rate = format!("training.learning_rate = 0.5 in place of {}", base.training.learning_rate);
        for change in ["data.classes.spleen = 9 in place of nothing", &rate] {
            assert!(changes.contains(&change.to_owned()), "{change} is not in {changes:?}");
        }
        assert!(changes.iter().any(|change| change.starts_with("name = ")), "{changes:?}");
        assert!(changes.iter().all(|change| !change.starts_with("training.epochs")), "{changes:?}");
    }

    #[test]
    fn a_configuration_is_for_a_benchmark_and_repeats_a_published_system_only_where_it_says_so() {
        for overrides in [&[][..], &["name=SE-Net"]] {
            let config = load_text("[training]\nepochs = 7", overrides).unwrap();
            assert_eq!((config.data.benchmark.as_str(), config.published.as_str()), ("", ""));
        }
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for (file, benchmark, published) in [
            ("paper", "chaos-t2-spir", "3D SSL-ALPNet"),
            ("cpu", "chaos-t2-spir", ""),
            ("chaos", "chaos-t2-spir", ""),
            ("demo", "", ""),
            ("table/se-net", "chaos-t2-spir", "SE-Net"),
            ("table/3d-ssl-alpnet-annotated", "chaos-t2-spir", ""),
        ] {
            let config = load(Some(&configs.join(format!("{file}.toml"))), &[]).unwrap();
            assert_eq!((config.data.benchmark.as_str(), config.published.as_str()), (benchmark, published), "{file}");
            assert_eq!(Config::from_toml(&config.to_toml(), "here").unwrap(), config);
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (text, overrides, words) in [
            ("[training]\nepoch = 7", &[][..], ["c.toml:2:1: training.epoch", "unknown field `epoch`"]),
            ("[training]\nepochs = \"many\"", &[], ["c.toml:2:1: training.epochs", "invalid type"]),
            ("[training]\nepochs = ", &[], ["c.toml:2:", "expected TOML"]),
            ("[training]\nepochs = 0", &[], ["training.epochs", "at least 1"]),
            ("", &["training.epochs=many"], ["--set training.epochs=many", "invalid type"]),
            ("", &["training.epoch=1"], ["--set training.epoch=1", "unknown field"]),
            ("", &["trainin.epochs=1"], ["--set trainin.epochs=1", "unknown field"]),
            ("", &["trainin.epochs=1"], ["did you mean training?", "defaults.toml"]),
            ("[training]\nlearningrate = 7", &[], ["did you mean learning_rate?", "defaults.toml"]),
            ("[similarity]\nqqq = 7", &[], ["unknown field `qqq`", "; compare with configs/defaults.toml"]),
            ("", &["epochs"], ["--set epochs", "section.key=value"]),
            ("", &["supervision.source=organs"], ["supervision.source", "name in split.groups"]),
            (
                "split.groups = [[\"liver\"]]",
                &["supervision.source=organs", "preprocessing.size_vox=[0, 64, 64]"],
                ["supervision.source", "scans of equal depth"],
            ),
            (
                "features.architecture = \"unet-2d\"\nfeatures.pooling = [[1, 2, 2], [1, 2, 2], [1, 2, 2]]",
                &["inference.supervoxels.native_weight=1"],
                ["supervoxels.method", "felzenszwalb-2d"],
            ),
            (
                "features.architecture = \"unet-2d\"\nfeatures.pooling = [[1, 2, 2], [1, 2, 2], [1, 2, 2]]",
                &["inference.templates=3"],
                ["inference.templates", "switch it off"],
            ),
            (
                "features.architecture = \"unet-2d\"\nfeatures.pooling = [[1, 2, 2], [1, 2, 2], [1, 2, 2]]",
                &["inference.boundary_calibration.enabled=true"],
                ["inference.boundary_calibration.enabled", "switch it off"],
            ),
            (
                "features.architecture = \"unet-2d\"\nfeatures.pooling = [[1, 2, 2], [1, 2, 2], [1, 2, 2]]",
                &["inference.supervoxels.network_weight=0.3"],
                ["inference.supervoxels.network_weight", "switch it off"],
            ),
            (
                "",
                &["data.benchmark=chaos"],
                ["--set data.benchmark=chaos: expected", "(\"chaos-t2-spir\"), found \"chaos\""],
            ),
            ("name = \"a\"\npublished = \"SENet\"", &[], ["c.toml:2:1: published: expected", "\"SE-Net\", "]),
            ("", &["inference.transport.strength=0.6"], ["inference.transport.strength", "similarity.competition"]),
            ("", &["inference.transport.strength=1"], ["inference.transport.strength", "[0, 1)"]),
            ("", &["inference.template_rounds=0"], ["inference.template_rounds", "from 1 to 10"]),
            ("[augment.affine]\nscales = [1, 2, 3]", &[], ["c.toml:2:1: augment.affine.scales", ""]),
        ] {
            let message = load_text(text, overrides).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
