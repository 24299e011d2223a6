//! `log.csv`: one row for each epoch.

use crate::artifact;
use crate::error::{Error, Result};
use crate::report::EpochRow;
use std::path::Path;

/// Writes all rows. If this fails, the former file stays.
///
/// # Errors
/// As [`artifact::write`].
pub fn write(path: &Path, rows: &[EpochRow]) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    for row in rows {
        csv.serialize(row).expect("numbers only");
    }
    artifact::write_bytes(path, &csv.into_inner().expect("writing to memory"))
}

/// Reads the rows up to and including `epoch`; none if the file is missing.
///
/// # Errors
/// The file is not a log.
pub fn read(path: &Path, epoch: u64) -> Result<Vec<EpochRow>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let refuse =
        |e: csv::Error| Error::file(path, "the log of a training", e.to_string(), "restore or delete the file");
    let mut csv = csv::Reader::from_path(path).map_err(refuse)?;
    let rows: Vec<EpochRow> = csv.deserialize().collect::<Result<_, _>>().map_err(refuse)?;
    Ok(rows.into_iter().filter(|row| row.epoch <= epoch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_with_their_gaps_and_later_epochs_are_cut_off() {
        let row = |epoch, validation_loss| EpochRow {
            epoch,
            iteration: 16 * epoch,
            learning_rate: 1e-4,
            train_loss: 0.5,
            validation_loss,
            validation_dice: None,
            organ_dice: validation_loss,
            skipped: 1,
        };
        let rows = [row(1, None), row(2, Some(0.25)), row(3, None)];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        write(&path, &rows).unwrap();
        assert_eq!(read(&path, 2).unwrap(), rows[..2]);
        assert_eq!(read(&folder.path().join("none.csv"), 2).unwrap(), []);
    }
}
