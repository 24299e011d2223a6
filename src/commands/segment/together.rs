//! `--together`: queries as templates of each other.

use super::queries::Query;
use super::supports::Supports;
use crate::cli::Segment;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inference::NetworkVolume;
use crate::volume::dataset;

/// At most so many queries help the others: as many templates as the recipe takes.
const MOST: usize = 6;

/// How many of the queries help the others at most.
///
/// # Errors
/// The flag is given, and there is but one query.
pub fn most(queries: &[Query], args: &Segment) -> Result<usize> {
    match queries.len() {
        _ if !args.together => Ok(0),
        count @ 2.. => Ok(count.min(MOST)),
        count => {
            let found = format!("{count} query");
            Err(Error::flag("--together", "at least two queries", found, "name more, or leave the flag out"))
        }
    }
}

/// The queries that help the others.
pub struct Together {
    /// What the network sees of each.
    pub volumes: Vec<NetworkVolume>,
    /// What they are called.
    pub names: Vec<String>,
    /// Of each query which of them it is.
    places: Vec<Option<usize>>,
}

impl Together {
    /// So many, evenly spaced in their order, but for those that cannot be read, or are blank: these are spoken of when it is their turn.
    pub fn read(queries: &[Query], most: usize, supports: &Supports, config: &Config) -> Self {
        let mut together = Self { volumes: vec![], names: vec![], places: vec![None; queries.len()] };
        for index in dataset::evenly(most, queries.len()) {
            if let Some(file) = supports.seen(&queries[index], config).ok().filter(|file| !file.scan.is_blank()) {
                together.places[index] = Some(together.volumes.len());
                together.volumes.push(file.scan.volume());
                together.names.push(queries[index].name.clone());
            }
        }
        together
    }

    /// Which of them a query is.
    pub fn place(&self, query: usize) -> Option<usize> {
        self.places[query]
    }
}
