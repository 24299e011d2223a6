//! Section `[inference]`: one table for each mechanism.

use super::boundary::{calibration, random_walker};
use super::constraints::{single_component, slice_range};
use super::evidence::{intensity, spatial_prior, supervoxels};
use super::missing;
use crate::error::{Error, Result};
use crate::network;
use crate::prototypes::Competition;
use crate::registration;
use crate::similarity::transport;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Section `[inference]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unlabelled training scans that are segmented from the supports and fused with them: at most so many.
    pub templates: usize,
    /// Times that the templates are segmented: first from the supports, then from the supports and all other templates.
    pub template_rounds: u32,
    /// A template is believed about a class if the supports, segmented from what was found in it, have at least this fraction of the Dice
    /// that they have segmented from themselves; 0 believes all.
    pub min_cycle_fraction: f64,
    /// Rounds in which confident voxels of the query become prototypes beside those of the supports and templates.
    pub self_training_rounds: u32,
    /// A voxel is confident if its class has more than this probability.
    pub confidence: f64,
    /// Supports of which less than this fraction is annotated tell nothing of the volume that a class takes.
    pub min_annotated_fraction: f64,
    /// Prototypes claim as much of a query as of their support.
    pub transport: transport::Config,
    /// Evidence: the mean score of a supervoxel.
    pub supervoxels: supervoxels::Config,
    /// The labels of the supports, carried to a query.
    pub registration: registration::Config,
    /// Evidence: where the templates show a class.
    pub spatial_prior: spatial_prior::Config,
    /// Evidence: the intensities of the confident voxels of a class.
    pub intensity: intensity::Config,
    /// Constraint: the slices in which a class lies, where they are known.
    pub slice_range: slice_range::Config,
    /// Constraint: a class that is one component in the supports is one in a query.
    pub single_component: single_component::Config,
    /// A class that label fusion hardly finds, and the bounds of its volume.
    pub missing_class: missing::Config,
    /// Boundaries as the annotators of the supports draw them.
    pub boundary_calibration: calibration::Config,
    /// Boundaries at the edges of the image.
    pub random_walker: random_walker::Config,
}

impl Config {
    /// # Errors
    /// A key is out of its range, or does not go with the network.
    pub fn check(&self, network: &network::Config) -> Result<()> {
        check_range("templates", self.templates, 0..=1000)?;
        check_range("template_rounds", self.template_rounds, 1..=10)?;
        check_range("min_cycle_fraction", self.min_cycle_fraction, 0.0..=1.0)?;
        check_range("self_training_rounds", self.self_training_rounds, 0..=100)?;
        if !(0.0..1.0).contains(&self.confidence) {
            let found = self.confidence.to_string();
            return Err(Error::invalid("inference.confidence", "a probability in [0, 1)", found, "change this key"));
        }
        check_range("min_annotated_fraction", self.min_annotated_fraction, 0.0..=1.0)?;
        self.transport.check()?;
        self.supervoxels.check()?;
        self.registration.check()?;
        self.spatial_prior.check()?;
        self.intensity.check()?;
        self.slice_range.check()?;
        self.single_component.check()?;
        self.missing_class.check()?;
        self.boundary_calibration.check()?;
        self.random_walker.check()?;
        if self.transport.strength > 0.0 && network.similarity.competition != Competition::Joint {
            let (expected, found) = ("0 where classes do not compete", self.transport.strength.to_string());
            let remedy = "set similarity.competition to \"joint\"";
            return Err(Error::invalid("inference.transport.strength", expected, found, remedy));
        }
        self.check_slice_wise(network)
    }

    /// Mechanisms that compare whole volumes are off where a volume is segmented slice by slice.
    fn check_slice_wise(&self, network: &network::Config) -> Result<()> {
        let of_volumes = [
            ("templates", self.templates > 0),
            ("supervoxels.network_weight", self.supervoxels.network_weight > 0.0),
            ("boundary_calibration.enabled", self.boundary_calibration.enabled),
            ("registration.enabled", self.registration.enabled),
        ];
        match of_volumes.into_iter().find(|(_, is_on)| *is_on && network.is_slice_wise()) {
            Some((key, _)) => {
                let (expected, remedy) = ("0 or false beside a network of single slices", "switch it off");
                Err(Error::invalid(format!("inference.{key}"), expected, "another value", remedy))
            }
            None => Ok(()),
        }
    }
}

/// # Errors
/// The value of `inference.key` is out of `range`.
pub(super) fn check_range<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("a number from {} to {}", range.start(), range.end());
    Err(Error::invalid(format!("inference.{key}"), expected, value.to_string(), "change this key"))
}
