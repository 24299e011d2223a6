//! `summary.json` of supervoxels, and what is printed of it.

use crate::artifact;
use crate::commands::progress;
use crate::error::Result;
use crate::report::table::Table;
use crate::supervoxels::Config;
use crate::supervoxels::quality::Quality;
use crate::volume::dataset::Dataset;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands in `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How the supervoxels are computed.
    pub config: Config,
    /// By id.
    pub scans: BTreeMap<String, Entry>,
    /// Over the scans that have been scored.
    pub mean_quality: Option<Quality>,
}

impl Summary {
    /// Writes it whole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_string_pretty(self).expect("a summary is valid JSON");
        json.push('\n');
        artifact::write_bytes(path, json.as_bytes())
    }
}

/// One scan: what its supervoxels were made of, and how they came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// How many there are.
    pub regions: usize,
    /// Voxels of the regions 1..=n.
    pub sizes_vox: Vec<usize>,
    /// Voxels along z, y, x of the blocks that were divided where the scan itself is too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_vox: Option<[usize; 3]>,
    /// BLAKE3 of the configuration.
    pub config_digest: String,
    /// BLAKE3 of the scan's file.
    pub input_digest: String,
    /// BLAKE3 of the file of its supervoxels.
    pub output_digest: String,
    /// Beside the labels; None of a scan that was not scored.
    pub quality: Option<Quality>,
}

/// Entries of an earlier run; none if there was none or its summary is not ours, for then all is computed anew.
pub fn read_entries(path: &Path) -> BTreeMap<String, Entry> {
    let Ok(text) = std::fs::read_to_string(path) else { return BTreeMap::new() };
    match serde_json::from_str::<Summary>(&text) {
        Ok(summary) => summary.scans,
        Err(_) => {
            progress::warn(&format!("{} cannot be understood; computing all supervoxels anew", path.display()));
            BTreeMap::new()
        }
    }
}

/// A row a scan and one for the mean: Dice of the best single region per organ, then how all regions do.
pub fn table(summary: &Summary, data: &Dataset) -> Table {
    let mut organs: Vec<(&String, &i32)> = data.classes.iter().collect();
    organs.sort_by_key(|(_, value)| **value);
    let organs: Vec<&String> = organs.into_iter().map(|(name, _)| name).collect();
    let row = |id: &str, regions: String, quality: Option<&Quality>, otherwise: &str| -> Vec<String> {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let dice = organs.iter().map(|&organ| number(quality.and_then(|q| q.best_region_dice.get(organ).copied())));
        let overall = [
            quality.map(|q| q.mean_best_region_dice),
            quality.map(|q| q.achievable_segmentation_accuracy),
            quality.map(|q| q.undersegmentation_error),
            quality.map(|q| q.boundary_recall),
        ];
        let note = if quality.is_some() { "" } else { otherwise };
        let ends = [id.to_owned(), regions].into_iter().chain(dice).chain(overall.map(number));
        ends.chain([note.to_owned()]).collect()
    };
    let mut rows: Vec<_> = data
        .cases
        .iter()
        .filter_map(|case| {
            let entry = summary.scans.get(&case.id)?;
            let otherwise = if case.label.is_some() { "none of the organs" } else { "no labels" };
            Some(row(&case.id, entry.regions.to_string(), entry.quality.as_ref(), otherwise))
        })
        .collect();
    let regions: usize = summary.scans.values().map(|entry| entry.regions).sum();
    let mean_regions = regions as f64 / summary.scans.len().max(1) as f64;
    rows.push(row("mean", format!("{mean_regions:.1}"), summary.mean_quality.as_ref(), "nothing to score"));
    let names = organs.iter().map(|organ| organ.as_str());
    let header = ["scan", "regions"].into_iter().chain(names).chain(["mean", "ASA", "UE", "BR", ""]);
    Table::new(header.map(str::to_owned).collect(), rows)
}
