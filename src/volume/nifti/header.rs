//! The header of a file: checked once, then the values that reading needs.

mod fields;

use super::super::{Geometry, limit, orientation::determinant};
use super::largest_corner_distance_mm;
use crate::error::{Error, Result};
use crate::units;
use fields::Fields;
pub use fields::Layout;
use nifti::{NiftiHeader, NiftiType};
use std::path::Path;

/// A header that passed all checks.
pub struct Header {
    /// The bytes of the file's header; for ANALYZE an equivalent NIfTI-1 header.
    pub raw: Vec<u8>,
    /// Layout of the bytes in the file.
    pub layout: Layout,
    /// Whether the voxels are in a file of their own.
    pub is_pair: bool,
    /// Whether the file is big-endian.
    pub big_endian: bool,
    /// Type of a stored voxel.
    pub voxel_type: NiftiType,
    /// Voxels along the file's third, second, first axis.
    pub shape_vox: [usize; 3],
    /// First byte of the voxels in their file.
    pub data_offset: u64,
    /// Slope and intercept: value = stored * slope + intercept.
    pub scaling: Option<(f64, f64)>,
    /// Maps the file's own index (i, j, k, 1) to R, A, S in mm.
    pub affine_mm: [[f64; 4]; 4],
    /// Peculiarities of the file that the user should know, one sentence each.
    pub warnings: Vec<String>,
    /// Whether `raw` is big-endian, and with it what is written on this grid.
    pub is_raw_big_endian: bool,
}

impl Header {
    /// The header of a volume that another format describes: its result is NIfTI-1 in the file's axis order.
    ///
    /// # Errors
    /// The volume exceeds the memory limit, or its grid is none.
    pub fn of_another_format(
        path: &Path,
        shape_vox: [usize; 3],
        voxel_type: NiftiType,
        affine_mm: [[f64; 4]; 4],
    ) -> Result<Self> {
        limit::check(path, shape_vox, voxel_type.size_of())?;
        if !is_usable(&affine_mm) {
            let [z, y, x] = Geometry { shape_vox, affine_mm }.spacing_mm();
            let remedy = "correct its spacing and its directions, or export it again";
            return Err(Error::file(path, "axes that span space", format!("axes of {x} x {y} x {z} mm"), remedy));
        }
        let geometry = Geometry { shape_vox, affine_mm };
        limit::check_lengths(path, &geometry)?;
        Ok(Self {
            raw: of_geometry(&geometry),
            layout: Layout::Nifti1,
            is_pair: false,
            big_endian: false,
            voxel_type,
            shape_vox,
            data_offset: 0,
            scaling: None,
            affine_mm,
            warnings: Vec::new(),
            is_raw_big_endian: false,
        })
    }

    /// Checks the header `raw`: the 348 bytes of NIfTI-1 and ANALYZE, or the 540 of NIfTI-2.
    ///
    /// # Errors
    /// The file is not one 3D volume, its voxels are not single numbers, or the volume exceeds the memory limit.
    pub fn parse(path: &Path, raw: Vec<u8>) -> Result<Self> {
        let fields = Fields::parse(path, &raw)?;
        let mut warnings = Vec::new();
        let shape_vox = shape(path, &fields, &mut warnings)?;
        let voxel_type = voxel_type(path, &fields)?;
        limit::check(path, shape_vox, voxel_type.size_of())?;
        if fields.bitpix != (8 * voxel_type.size_of()) as i16 {
            warnings.push(format!("bitpix is {}, which {voxel_type:?} contradicts; the type decides", fields.bitpix));
        }
        let scaling = scaling(&fields, &mut warnings);
        let data_offset = data_offset(path, &fields)?;
        let Fields { layout, is_pair, big_endian, .. } = fields;
        let mut header = Self {
            raw,
            layout,
            is_pair,
            big_endian,
            voxel_type,
            shape_vox,
            data_offset,
            scaling,
            affine_mm: affine_mm(&fields, shape_vox, &mut warnings),
            warnings,
            is_raw_big_endian: big_endian && layout != Layout::Analyze,
        };
        let geometry = Geometry { shape_vox, affine_mm: header.affine_mm };
        limit::check_lengths(path, &geometry)?;
        if layout == Layout::Analyze {
            header.raw = of_geometry(&geometry);
        }
        Ok(header)
    }
}

fn shape(path: &Path, fields: &Fields, warnings: &mut Vec<String>) -> Result<[usize; 3]> {
    let count = fields.dim[0];
    let used = usize::try_from(count).ok().and_then(|count| fields.dim.get(1..=count)).unwrap_or(&[]);
    let text = used.iter().map(i64::to_string).collect::<Vec<_>>().join(" x ");
    // Some writers count a dimension that they leave at 0: there are voxels, so it is 1.
    let (space, others) = used.split_at(used.len().min(3));
    if used.is_empty() || space.iter().any(|&n| n <= 0) || others.iter().any(|&n| n < 0) {
        let found = format!("{count} dimensions of {}", if text.is_empty() { "no size" } else { &text });
        return Err(Error::file(
            path,
            "a volume with at least one voxel",
            found,
            "the file is damaged; export it again",
        ));
    }
    if others.iter().any(|&n| n > 1) {
        let remedy = "split it and give one volume, for instance with nibabel's four_to_three or fslsplit";
        return Err(Error::file(path, "one 3D volume", format!("{text} voxels in {count} dimensions"), remedy));
    }
    if others.contains(&0) {
        warnings.push(format!("its dimensions are {text}; the 0 is taken as 1"));
    }
    let along = |axis: usize| used.get(axis).map_or(1, |&n| n as usize);
    Ok([along(2), along(1), along(0)])
}

fn voxel_type(path: &Path, fields: &Fields) -> Result<NiftiType> {
    use NiftiType::*;
    match (NiftiHeader { datatype: fields.datatype, ..NiftiHeader::default() }).data_type() {
        Ok(kind @ (Uint8 | Int8 | Uint16 | Int16 | Uint32 | Int32 | Uint64 | Int64 | Float32 | Float64)) => Ok(kind),
        other => {
            let found = other.map_or_else(|_| format!("datatype {}", fields.datatype), |kind| format!("{kind:?}"));
            let remedy = "convert it to a plain number per voxel (float32 will do)";
            Err(Error::file(path, "integer or float voxels of up to 64 bits", found, remedy))
        }
    }
}

/// Slope and intercept. A slope of 0 means no scaling by the standard; NaN and infinity are treated the same.
fn scaling(fields: &Fields, warnings: &mut Vec<String>) -> Option<(f64, f64)> {
    let (slope, mut intercept) = (fields.scl_slope, fields.scl_inter);
    if slope == 0.0 || !slope.is_finite() {
        return None;
    }
    if !intercept.is_finite() {
        warnings.push(format!("scl_inter is {intercept}; taken as 0"));
        intercept = 0.0;
    }
    (slope != 1.0 || intercept != 0.0).then_some((slope, intercept))
}

fn data_offset(path: &Path, fields: &Fields) -> Result<u64> {
    let offset = fields.vox_offset;
    let first = if fields.is_pair { 0 } else { fields.layout.first_voxel_byte() };
    if offset == 0.0 {
        return Ok(first); // some writers leave it out
    }
    if !offset.is_finite() || offset < first as f64 {
        let remedy = "the file is damaged; copy or export it again";
        let expected = format!("voxels from byte {first} or later");
        return Err(Error::file(path, expected, format!("vox_offset {offset}"), remedy));
    }
    Ok(offset as u64)
}

/// The sform if it is coded, else the qform, else the voxel sizes; converted to millimetres from the file's unit.
fn affine_mm(fields: &Fields, shape_vox: [usize; 3], warnings: &mut Vec<String>) -> [[f64; 4]; 4] {
    let size = voxel_size(fields, warnings);
    let sform = (fields.sform_code > 0).then(|| sform(fields));
    let qform = (fields.qform_code > 0).then(|| qform(fields, size));
    for (name, form) in [("sform", &sform), ("qform", &qform)] {
        if form.is_some_and(|affine| !is_usable(&affine)) {
            warnings.push(format!("the {name} is coded but maps the grid to nothing; not used"));
        }
    }
    let mut affine = match (sform.filter(is_usable), qform.filter(is_usable)) {
        (Some(sform), Some(qform)) => {
            // A float32 quaternion loses half of its digits near a half turn: a small difference is rounding.
            let apart = largest_corner_distance_mm(shape_vox, &sform, &qform);
            if apart > 0.1 * size.into_iter().fold(f64::INFINITY, f64::min) {
                let apart = units::digits(apart, 2);
                warnings.push(format!("sform and qform place the grid up to {apart} apart; the sform is used"));
            }
            sform
        }
        (Some(form), None) | (None, Some(form)) => form,
        (None, None) if fields.layout == Layout::Analyze => {
            warnings
                .push("ANALYZE does not say where left is; taken as the side that the first axis points to".to_owned());
            analyze(fields, shape_vox, size)
        }
        (None, None) => {
            let sizes = format!("{} x {} x {}", size[0], size[1], size[2]);
            warnings.push(format!(
                "neither sform nor qform says how the patient lies; taken as RAS with voxels of {sizes}"
            ));
            let mut affine = [[0.0; 4]; 4];
            (0..3).for_each(|axis| affine[axis][axis] = size[axis]);
            affine
        }
    };
    let unit_mm = match fields.xyzt_units & 7 {
        1 => 1e3,
        3 => 1e-3,
        _ => 1.0, // millimetres, or not said
    };
    affine.iter_mut().flatten().for_each(|entry| *entry *= unit_mm);
    affine[3] = [0.0, 0.0, 0.0, 1.0];
    affine
}

/// pixdim along the file's first, second, third axis; 1 in place of values that are not a length.
fn voxel_size(fields: &Fields, warnings: &mut Vec<String>) -> [f64; 3] {
    [1, 2, 3].map(|axis| {
        let size = fields.pixdim[axis].abs();
        if size > 0.0 && size.is_finite() {
            return size;
        }
        if fields.sform_code <= 0 {
            warnings.push(format!("pixdim[{axis}] is {}; taken as 1", fields.pixdim[axis]));
        }
        1.0
    })
}

fn sform(fields: &Fields) -> [[f64; 4]; 4] {
    let [x, y, z] = fields.srow;
    [x, y, z, [0.0, 0.0, 0.0, 1.0]]
}

/// The qform as nifti1.h, method 2, defines it: R(quaternion) diag(dx, dy, qfac dz) and the offset.
fn qform(fields: &Fields, size: [f64; 3]) -> [[f64; 4]; 4] {
    let [mut b, mut c, mut d] = fields.quatern;
    let norm2 = b * b + c * c + d * d;
    let mut a = 0.0;
    // As nibabel: three roundings of the type that holds the quaternion.
    let rounding = 3.0 * if fields.layout == Layout::Nifti2 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    if norm2 < 1.0 - rounding {
        a = (1.0 - norm2).sqrt();
    } else {
        // A half turn, whose parts may round above unit norm.
        [b, c, d] = [b, c, d].map(|part| part / norm2.sqrt());
    }
    let qfac = if fields.pixdim[0] < 0.0 { -1.0 } else { 1.0 }; // 0 counts as 1
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let row = |i: usize| {
        let r = rotation[i];
        [r[0] * size[0], r[1] * size[1], r[2] * size[2] * qfac, fields.qoffset[i]]
    };
    [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
}

/// The affine of an ANALYZE file, as SPM reads it: the first axis points to the left, and the origin is the middle of
/// the grid if the header names no voxel.
fn analyze(fields: &Fields, shape_vox: [usize; 3], size: [f64; 3]) -> [[f64; 4]; 4] {
    let [k, j, i] = shape_vox;
    let count = [i, j, k].map(|n| n as f64);
    let named = fields.origin.map(f64::from);
    let is_named =
        fields.origin != [0; 3] && (0..3).all(|axis| named[axis] > -count[axis] && named[axis] < 2.0 * count[axis]);
    let mut affine = [[0.0; 4]; 4];
    for (axis, sign) in [-1.0, 1.0, 1.0].into_iter().enumerate() {
        let origin = if is_named { named[axis] - 1.0 } else { (count[axis] - 1.0) / 2.0 };
        affine[axis][axis] = sign * size[axis];
        affine[axis][3] = -affine[axis][axis] * origin;
    }
    affine
}

/// Whether the affine is finite and its axes span space.
fn is_usable(affine: &[[f64; 4]; 4]) -> bool {
    let lengths = [0, 1, 2].map(|axis| (0..3).map(|row| affine[row][axis].powi(2)).sum::<f64>().sqrt());
    let finite = affine.iter().flatten().all(|entry| entry.is_finite());
    finite && determinant(affine).abs() > 1e-6 * lengths.iter().product::<f64>()
}

/// A little-endian NIfTI-1 header whose sform (code 1, scanner) is `geometry`.
pub fn of_geometry(geometry: &Geometry) -> Vec<u8> {
    let mut raw = vec![0; Layout::Nifti1.header_bytes()];
    raw[..4].copy_from_slice(&(Layout::Nifti1.header_bytes() as i32).to_le_bytes());
    let [z, y, x] = geometry.spacing_mm();
    let pixdim = [1.0, x, y, z, 0.0, 0.0, 0.0, 0.0];
    let srows = geometry.affine_mm[..3].iter().flatten().copied();
    let floats = pixdim.into_iter().enumerate().map(|(i, v)| (76 + 4 * i, v));
    for (at, value) in floats.chain(srows.enumerate().map(|(i, v)| (280 + 4 * i, v))) {
        raw[at..at + 4].copy_from_slice(&(value as f32).to_le_bytes());
    }
    raw[123] = 2; // xyzt_units: millimetres
    raw[254] = 1; // sform_code
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 5 x 6 voxels of 2 x 3 x 4 units, with a qform that turns nothing.
    fn fields(change: impl Fn(&mut Fields)) -> Fields {
        let mut raw = of_geometry(&Geometry::with_spacing([6, 5, 4], [4.0, 3.0, 2.0]));
        (raw[123], raw[252], raw[254]) = (0, 1, 0);
        raw[344..].copy_from_slice(b"n+1\0");
        let mut fields = Fields::parse(Path::new("a.nii"), &raw).unwrap();
        fields.dim = [3, 4, 5, 6, 1, 1, 1, 1];
        change(&mut fields);
        fields
    }

    fn affine(change: impl Fn(&mut Fields)) -> ([[f64; 4]; 4], Vec<String>) {
        let mut warnings = Vec::new();
        (affine_mm(&fields(change), [6, 5, 4], &mut warnings), warnings)
    }

    #[test]
    fn the_sform_goes_before_the_qform_and_a_difference_is_reported() {
        let (matrix, warnings) = affine(|h| {
            h.sform_code = 1;
            h.srow = [[9.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]];
        });
        assert_eq!(matrix[0][0], 9.0);
        assert!(warnings.len() == 1 && warnings[0].contains("sform and qform"), "{warnings:?}");
    }

    #[test]
    fn broken_forms_fall_back_with_a_warning_and_never_panic() {
        let (matrix, warnings) = affine(|h| {
            h.sform_code = 1;
            h.srow[0] = [0.0; 4];
            h.pixdim[0] = 0.0; // qfac 0 is the standard's 1
            h.quatern = [1.0, 1.0, 0.0]; // above unit norm
        });
        assert!((matrix[0][1] - 3.0).abs() < 1e-12 && (matrix[1][0] - 2.0).abs() < 1e-12, "{matrix:?}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let (matrix, warnings) = affine(|h| {
            h.qform_code = 0;
            h.pixdim[1] = f64::NAN;
        });
        assert_eq!([matrix[0][0], matrix[1][1], matrix[2][2]], [1.0, 3.0, 4.0]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn metres_and_microns_become_millimetres() {
        for (code, factor) in [(0, 1.0), (1, 1e3), (2, 1.0), (3, 1e-3)] {
            let (matrix, _) = affine(|h| h.xyzt_units = code);
            assert!((matrix[1][1] - 3.0 * factor).abs() < 1e-9, "{matrix:?}");
        }
    }

    #[test]
    fn a_slope_of_zero_or_nan_means_no_scaling() {
        for (slope, inter, expected) in [
            (0.0, 3.0, None),
            (f64::NAN, 3.0, None),
            (f64::INFINITY, 0.0, None),
            (1.0, 0.0, None),
            (2.0, -1.0, Some((2.0, -1.0))),
        ] {
            let scaled = fields(|h| (h.scl_slope, h.scl_inter) = (slope, inter));
            assert_eq!(scaling(&scaled, &mut Vec::new()), expected);
        }
    }

    #[test]
    fn only_one_volume_passes_and_trailing_ones_are_squeezed() {
        let path = Path::new("a.nii");
        let of = |dim: [i64; 8]| shape(path, &fields(|h| h.dim = dim), &mut Vec::new());
        assert_eq!(of([3, 4, 5, 6, 0, 0, 0, 0]).unwrap(), [6, 5, 4]);
        assert_eq!(of([5, 4, 5, 6, 1, 1, 9, 9]).unwrap(), [6, 5, 4]);
        assert_eq!(of([2, 4, 5, 0, 0, 0, 0, 0]).unwrap(), [1, 5, 4]);
        assert_eq!(of([4, 4, 5, 6, 0, 0, 0, 0]).unwrap(), [6, 5, 4]);
        assert_eq!(of([5, 4, 5, 6, 0, 1, 0, 0]).unwrap(), [6, 5, 4]);
        assert!(of([5, 4, 5, 6, 0, 2, 0, 0]).is_err() && of([4, 4, 5, 6, -1, 0, 0, 0]).is_err());
        assert!(of([4, 4, 5, 6, 7, 1, 1, 1]).unwrap_err().to_string().contains("split"));
        for damaged in [[0, 4, 5, 6, 1, 1, 1, 1], [3, 4, 0, 6, 1, 1, 1, 1], [3, -4, 5, 6, 1, 1, 1, 1]] {
            assert!(of(damaged).is_err());
        }
    }
}
