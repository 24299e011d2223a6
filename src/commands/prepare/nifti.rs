//! NIfTI files in any layout that `[data]` can name, or an nnU-Net v2 or Medical Segmentation Decathlon dataset: checked, and brought into our layout.

use super::{Origin, Scan, Source, write};
use crate::cli::PrepareNifti;
use crate::config;
use crate::error::{Error, Result};
use crate::volume::dataset::{self, Case};
use crate::volume::formats::{read_image, read_labels};
use crate::volume::nifti::check_same_geometry;

/// Images with the label maps that go with them; a label map on another grid than its image is refused.
///
/// # Errors
/// As [`write()`]; the dataset cannot be opened, or would replace its source.
pub fn run(args: &PrepareNifti) -> Result<()> {
    let PrepareNifti { source, common: args, overrides } = args;
    let config = config::load(None, &overrides.set)?;
    let data = dataset::open(source, &config.data)?;
    if source.canonicalize().is_ok_and(|source| args.out.canonicalize().is_ok_and(|out| out == source)) {
        let (expected, found) = ("another folder than the source", "the source itself");
        return Err(Error::file(&args.out, expected, found, "give another --out: a source stays as it is"));
    }
    let of =
        |case: Case| Source { id: case.id.clone(), folder: case.image.clone(), read: Box::new(move || read(&case)) };
    let name = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let origin =
        Origin { name, licence: None, source: source.to_owned(), root: source.to_owned(), classes: data.classes };
    write(&origin, data.cases.into_iter().map(of).collect(), args)
}

fn read(case: &Case) -> Result<Scan> {
    let (image, grid) = read_image(&case.image)?;
    let mut scan = Scan { image, label: None, files: vec![case.image.clone()], warnings: grid.warnings };
    if let Some(path) = &case.label {
        let (label, grid) = read_labels(path)?;
        check_same_geometry(&case.image, &scan.image.geometry, path, &label.geometry)?;
        scan.files.push(path.clone());
        scan.warnings.extend(grid.warnings.iter().map(|text| format!("label map: {text}")));
        scan.label = Some(label);
    }
    Ok(scan)
}
