//! NIfTI files in any layout that `[data]` can name or that is known, like nnU-Net's: checked, and brought into our layout.

use super::{Guess, Labelling, Origin, Scan, Source, write_labelled};
use crate::cli::PrepareNifti;
use crate::commands::scans;
use crate::config;
use crate::error::{Error, Result};
use crate::volume::dataset::Case;
use crate::volume::formats::{read_image, read_labels};
use crate::volume::regrid;
use std::collections::BTreeMap;

/// Images with the label maps that go with them; a label map on another grid than its image is refused, or brought to it
/// with `--resample-label`.
///
/// # Errors
/// As [`super::write()`]; the dataset cannot be opened, or would replace its source.
pub fn run(args: &PrepareNifti) -> Result<()> {
    let PrepareNifti { source, common: args, overrides, resample_label } = args;
    let config = config::load(None, &overrides.set)?;
    let data = scans::open_unread(source, &config.data)?;
    if source.canonicalize().is_ok_and(|source| args.out.canonicalize().is_ok_and(|out| out == source)) {
        let (expected, found) = ("another folder than the source", "the source itself");
        return Err(Error::file(&args.out, expected, found, "give another --out: a source stays as it is"));
    }
    let resample = *resample_label;
    let guess = data.guessed().map(|text| Guess { text, classes: data.classes.clone() });
    let labelling = Labelling { ignore: data.ignore, guess };
    let classes = if data.named { data.classes } else { BTreeMap::new() };
    let of = |case: Case| Source {
        id: case.id.clone(),
        folder: case.image.clone(),
        read: Box::new(move || read(&case, resample)),
    };
    let name = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let origin = Origin { name, licence: None, source: source.to_owned(), root: source.to_owned(), classes };
    write_labelled(&origin, &labelling, data.cases.into_iter().map(of).collect(), args)
}

fn read(case: &Case, resample: bool) -> Result<Scan> {
    let (image, grid) = read_image(&case.image)?;
    let mut scan = Scan { image, label: None, files: vec![case.image.clone()], warnings: grid.warnings };
    if let Some(path) = &case.label {
        let (label, grid) = read_labels(path)?;
        let (label, done) = regrid::on_grid_of((&case.image, &scan.image.geometry), (path, label), resample)?;
        scan.files.push(path.clone());
        scan.warnings.extend(grid.warnings.iter().chain(&done).map(|text| format!("label map: {text}")));
        scan.label = Some(label);
    }
    Ok(scan)
}
