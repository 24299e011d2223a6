//! The 348 bytes at the start: checked once, then everything that reading needs from them.

use super::super::{Geometry, orientation::determinant};
use super::largest_corner_distance_mm;
use crate::error::{Error, Result};
use nifti::{Endianness, NiftiHeader, NiftiType};
use std::path::Path;

pub const HEADER_BYTES: usize = 348;
/// Voxels of a single-file NIfTI start here at the earliest: after the header and four bytes that announce extensions.
pub const FIRST_VOXEL_BYTE: u64 = 352;

/// A header that made sense.
pub struct Header {
    pub raw: [u8; HEADER_BYTES],
    pub big_endian: bool,
    pub voxel_type: NiftiType,
    /// Voxels along the file's third, second, first axis.
    pub shape_vox: [usize; 3],
    pub data_offset: u64,
    /// value = stored * slope + intercept
    pub scaling: Option<(f64, f64)>,
    /// Maps the file's own index (i, j, k, 1) to R, A, S in mm.
    pub affine_mm: [[f64; 4]; 4],
    pub warnings: Vec<String>,
}

impl Header {
    /// # Errors
    /// Not NIfTI-1 in a single file, not one 3D volume, or voxels of a kind that has no single value.
    pub fn parse(path: &Path, raw: [u8; HEADER_BYTES]) -> Result<Self> {
        let big_endian = byte_order(path, &raw)?;
        let garbled = |found: String| {
            Error::file(path, "a NIfTI-1 header", found, "the file is damaged; copy or export it again")
        };
        let header = NiftiHeader::from_reader(&raw[..]).map_err(|e| garbled(e.to_string()))?;
        // The crate guesses the byte order from dim[0], the standard from sizeof_hdr: a sound file satisfies both.
        if (header.endianness == Endianness::Big) != big_endian {
            return Err(garbled("a number of dimensions out of 1 to 7".into()));
        }
        let mut warnings = Vec::new();
        let shape_vox = shape(path, &header)?;
        let voxel_type = voxel_type(path, &header)?;
        if header.bitpix != (8 * voxel_type.size_of()) as i16 {
            warnings.push(format!("bitpix is {}, which {voxel_type:?} contradicts; the type decides", header.bitpix));
        }
        let scaling = scaling(&header, &mut warnings);
        let data_offset = data_offset(path, &header)?;
        let affine_mm = affine_mm(&header, shape_vox, &mut warnings);
        Ok(Self { raw, big_endian, voxel_type, shape_vox, data_offset, scaling, affine_mm, warnings })
    }
}

fn byte_order(path: &Path, raw: &[u8; HEADER_BYTES]) -> Result<bool> {
    let size = [raw[0], raw[1], raw[2], raw[3]];
    let sizes = [i32::from_le_bytes(size), i32::from_be_bytes(size)];
    let fault = |found: &str, remedy: &str| Err(Error::file(path, "a NIfTI-1 file (.nii or .nii.gz)", found, remedy));
    if sizes.contains(&540) {
        return fault("NIfTI-2", "convert it to NIfTI-1, for instance with nibabel's nib-convert");
    }
    let Some(order) = sizes.iter().position(|&size| size == HEADER_BYTES as i32) else {
        return fault("something else", "convert the image to NIfTI-1 first, for instance with dcm2niix");
    };
    match &raw[344..348] {
        b"n+1\0" => Ok(order == 1),
        b"ni1\0" => fault("one half of a .hdr/.img pair", "join them, for instance with nibabel's nib-convert"),
        _ => fault("an ANALYZE header without a NIfTI mark", "convert it to NIfTI-1, checking left and right"),
    }
}

fn shape(path: &Path, header: &NiftiHeader) -> Result<[usize; 3]> {
    let count = usize::from(header.dim[0]);
    // Stored as signed 16 bits, so the upper half of the crate's unsigned range is negative.
    let used = header.dim.get(1..=count).unwrap_or(&[]);
    let text = used.iter().map(u16::to_string).collect::<Vec<_>>().join(" x ");
    if used.is_empty() || used.iter().any(|&n| n == 0 || n > i16::MAX as u16) {
        let found = format!("{count} dimensions of {}", if text.is_empty() { "no size" } else { &text });
        return Err(Error::file(
            path,
            "a volume with at least one voxel",
            found,
            "the file is damaged; export it again",
        ));
    }
    if used.iter().skip(3).any(|&n| n != 1) {
        let remedy = "split it and give one volume, for instance with nibabel's four_to_three or fslsplit";
        return Err(Error::file(path, "one 3D volume", format!("{text} voxels in {count} dimensions"), remedy));
    }
    let along = |axis: usize| used.get(axis).map_or(1, |&n| usize::from(n));
    Ok([along(2), along(1), along(0)])
}

fn voxel_type(path: &Path, header: &NiftiHeader) -> Result<NiftiType> {
    use NiftiType::*;
    match header.data_type() {
        Ok(kind @ (Uint8 | Int8 | Uint16 | Int16 | Uint32 | Int32 | Uint64 | Int64 | Float32 | Float64)) => Ok(kind),
        other => {
            let found = other.map_or_else(|_| format!("datatype {}", header.datatype), |kind| format!("{kind:?}"));
            let remedy = "convert it to a plain number per voxel (float32 will do)";
            Err(Error::file(path, "integer or float voxels of up to 64 bits", found, remedy))
        }
    }
}

/// Slope 0, NaN or infinite means none: the standard says so of 0, common sense of the rest.
fn scaling(header: &NiftiHeader, warnings: &mut Vec<String>) -> Option<(f64, f64)> {
    let (slope, mut intercept) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
    if slope == 0.0 || !slope.is_finite() {
        return None;
    }
    if !intercept.is_finite() {
        warnings.push(format!("scl_inter is {intercept}; taken as 0"));
        intercept = 0.0;
    }
    (slope != 1.0 || intercept != 0.0).then_some((slope, intercept))
}

fn data_offset(path: &Path, header: &NiftiHeader) -> Result<u64> {
    let offset = header.vox_offset;
    if offset == 0.0 {
        return Ok(FIRST_VOXEL_BYTE); // some writers leave it out
    }
    if !offset.is_finite() || offset < FIRST_VOXEL_BYTE as f32 {
        let remedy = "the file is damaged; copy or export it again";
        return Err(Error::file(path, "voxels from byte 352 or later", format!("vox_offset {offset}"), remedy));
    }
    Ok(offset as u64)
}

/// The sform if it is coded, else the qform, else the voxel sizes; in millimetres whatever the file's unit.
fn affine_mm(header: &NiftiHeader, shape_vox: [usize; 3], warnings: &mut Vec<String>) -> [[f64; 4]; 4] {
    let size = voxel_size(header, warnings);
    let sform = (header.sform_code > 0).then(|| sform(header));
    let qform = (header.qform_code > 0).then(|| qform(header, size));
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
                warnings.push(format!("sform and qform place the grid up to {apart:.2} apart; the sform is used"));
            }
            sform
        }
        (Some(form), None) | (None, Some(form)) => form,
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
    let unit_mm = match header.xyzt_units & 7 {
        1 => 1e3,
        3 => 1e-3,
        _ => 1.0, // millimetres, or not said
    };
    affine.iter_mut().flatten().for_each(|entry| *entry *= unit_mm);
    affine[3] = [0.0, 0.0, 0.0, 1.0];
    affine
}

/// pixdim along the file's first, second, third axis, mended where it is no length.
fn voxel_size(header: &NiftiHeader, warnings: &mut Vec<String>) -> [f64; 3] {
    [1, 2, 3].map(|axis| {
        let size = f64::from(header.pixdim[axis]).abs();
        if size > 0.0 && size.is_finite() {
            return size;
        }
        if header.sform_code <= 0 {
            warnings.push(format!("pixdim[{axis}] is {}; taken as 1", header.pixdim[axis]));
        }
        1.0
    })
}

fn sform(header: &NiftiHeader) -> [[f64; 4]; 4] {
    [header.srow_x, header.srow_y, header.srow_z, [0.0, 0.0, 0.0, 1.0]].map(|row| row.map(f64::from))
}

/// R(quaternion) diag(dx, dy, qfac dz) and the offset, as nifti1.h, method 2, defines them.
fn qform(header: &NiftiHeader, size: [f64; 3]) -> [[f64; 4]; 4] {
    let [mut b, mut c, mut d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let norm2 = b * b + c * c + d * d;
    let mut a = 0.0;
    if norm2 < 1.0 - 1e-7 {
        a = (1.0 - norm2).sqrt();
    } else {
        // A half turn whose float32 parts may round above unit norm.
        [b, c, d] = [b, c, d].map(|part| part / norm2.sqrt());
    }
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 }; // 0 counts as 1
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let offset = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
    let row = |i: usize| {
        let r = rotation[i];
        [r[0] * size[0], r[1] * size[1], r[2] * size[2] * qfac, offset[i]]
    };
    [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
}

/// Finite, and its axes span space.
fn is_usable(affine: &[[f64; 4]; 4]) -> bool {
    let lengths = [0, 1, 2].map(|axis| (0..3).map(|row| affine[row][axis].powi(2)).sum::<f64>().sqrt());
    let finite = affine.iter().flatten().all(|entry| entry.is_finite());
    finite && determinant(affine).abs() > 1e-6 * lengths.iter().product::<f64>()
}

/// A little-endian header whose sform (code 1, scanner) is `geometry`.
pub fn of_geometry(geometry: &Geometry) -> [u8; HEADER_BYTES] {
    let mut raw = [0; HEADER_BYTES];
    raw[..4].copy_from_slice(&(HEADER_BYTES as i32).to_le_bytes());
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

    fn header(change: impl Fn(&mut NiftiHeader)) -> NiftiHeader {
        let mut header = NiftiHeader { dim: [3, 4, 5, 6, 1, 1, 1, 1], sform_code: 0, ..NiftiHeader::default() };
        header.pixdim = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
        change(&mut header);
        header
    }

    fn affine(change: impl Fn(&mut NiftiHeader)) -> ([[f64; 4]; 4], Vec<String>) {
        let mut warnings = Vec::new();
        (affine_mm(&header(change), [6, 5, 4], &mut warnings), warnings)
    }

    #[test]
    fn the_sform_goes_before_the_qform_and_a_difference_is_reported() {
        let (matrix, warnings) = affine(|h| {
            h.sform_code = 1;
            h.srow_x[0] = 9.0;
        });
        assert_eq!(matrix[0][0], 9.0);
        assert!(warnings.len() == 1 && warnings[0].contains("sform and qform"), "{warnings:?}");
    }

    #[test]
    fn broken_forms_fall_back_with_a_warning_and_never_panic() {
        let (matrix, warnings) = affine(|h| {
            h.sform_code = 1;
            h.srow_x = [0.0; 4];
            h.pixdim[0] = 0.0; // qfac 0 is the standard's 1
            (h.quatern_b, h.quatern_c) = (1.0, 1.0); // above unit norm
        });
        assert!((matrix[0][1] - 3.0).abs() < 1e-12 && (matrix[1][0] - 2.0).abs() < 1e-12, "{matrix:?}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let (matrix, warnings) = affine(|h| {
            h.qform_code = 0;
            h.pixdim[1] = f32::NAN;
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
            (f32::NAN, 3.0, None),
            (f32::INFINITY, 0.0, None),
            (1.0, 0.0, None),
            (2.0, -1.0, Some((2.0, -1.0))),
        ] {
            let scaled = header(|h| (h.scl_slope, h.scl_inter) = (slope, inter));
            assert_eq!(scaling(&scaled, &mut Vec::new()), expected);
        }
    }

    #[test]
    fn only_one_volume_passes_and_trailing_ones_are_squeezed() {
        let path = Path::new("a.nii");
        let of = |dim: [u16; 8]| shape(path, &header(|h| h.dim = dim));
        assert_eq!(of([3, 4, 5, 6, 0, 0, 0, 0]).unwrap(), [6, 5, 4]);
        assert_eq!(of([5, 4, 5, 6, 1, 1, 9, 9]).unwrap(), [6, 5, 4]);
        assert_eq!(of([2, 4, 5, 0, 0, 0, 0, 0]).unwrap(), [1, 5, 4]);
        assert!(of([4, 4, 5, 6, 7, 1, 1, 1]).unwrap_err().to_string().contains("split"));
        for damaged in [[0, 4, 5, 6, 1, 1, 1, 1], [3, 4, 0, 6, 1, 1, 1, 1], [3, 40000, 5, 6, 1, 1, 1, 1]] {
            assert!(of(damaged).is_err());
        }
    }
}
