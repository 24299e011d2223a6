//! Section `[synthesis]`.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Section `[synthesis]`: the generated anatomies from which a network learns where `supervision.source` is "generated".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Share of the episodes that show an abdomen as the demonstration has them.
    pub abdomen_probability: f64,
    /// Of a body with air around it; otherwise the field of view is full of tissue.
    pub body_probability: f64,
    /// Of an interior that is divided into cells.
    pub partition_probability: f64,
    /// Shapes of structures, equally likely.
    pub shapes: Vec<Kind>,
    /// Of a structure that it has a mirror image.
    pub pair_probability: f64,
    /// Of a structure that it is missing in one person.
    pub missing_probability: f64,
    /// Of a tissue that it is as bright as another.
    pub equal_probability: f64,
    /// Of a tissue that it is of two brightnesses.
    pub cluster_probability: f64,
    /// Of an episode whose query has other brightnesses than its support, by a curve through them.
    pub curve_probability: f64,
    /// Of an episode whose query has brightnesses of its own.
    pub contrast_probability: f64,
}

/// The shape of a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Ellipsoids, and boxes with round edges.
    Ellipsoid,
    /// Bent ellipsoids.
    Bean,
    /// Walls around a cavity, some open at one end, some with a crescent at their side.
    Shell,
    /// Winding tubes.
    Tube,
    /// Ellipsoids of which another one takes a part.
    Crescent,
    /// Thin walls from end to end.
    Sheet,
}

impl Config {
    /// Checks the values of the section.
    ///
    /// # Errors
    /// A value is out of its range.
    pub fn check(&self) -> Result<()> {
        for (key, probability) in [
            ("abdomen_probability", self.abdomen_probability),
            ("body_probability", self.body_probability),
            ("partition_probability", self.partition_probability),
            ("pair_probability", self.pair_probability),
            ("missing_probability", self.missing_probability),
            ("equal_probability", self.equal_probability),
            ("cluster_probability", self.cluster_probability),
            ("curve_probability", self.curve_probability),
            ("contrast_probability", self.contrast_probability),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                let (at, found) = (format!("synthesis.{key}"), probability.to_string());
                return Err(Error::invalid(at, "a probability from 0 to 1", found, "0 switches it off"));
            }
        }
        if self.shapes.is_empty() {
            let remedy = "name one at least: \"ellipsoid\", ...";
            return Err(Error::invalid("synthesis.shapes", "kinds of shapes", "none".to_owned(), remedy));
        }
        Ok(())
    }
}
