//! The fields of a header under one set of names for its three layouts: NIfTI-1, NIfTI-2 and their predecessor ANALYZE
//! 7.5.

use crate::error::{Error, Result};
use std::path::Path;

/// Layout of the bytes of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// NIfTI-1, 348 bytes.
    Nifti1,
    /// NIfTI-2, 540 bytes.
    Nifti2,
    /// ANALYZE 7.5, 348 bytes, without an orientation of the patient; read as SPM and nibabel do.
    Analyze,
}

impl Layout {
    /// Length of the header in bytes.
    pub fn header_bytes(self) -> usize {
        if self == Self::Nifti2 { 540 } else { 348 }
    }

    /// First possible byte of the voxels in a single file: after the header and the four bytes that announce
    /// extensions.
    pub fn first_voxel_byte(self) -> u64 {
        self.header_bytes() as u64 + 4
    }

    /// Whether a file with these first bytes is NIfTI-2: a header starts with its own length.
    pub fn is_nifti2(start: [u8; 4]) -> bool {
        [i32::from_le_bytes(start), i32::from_be_bytes(start)].contains(&(Self::Nifti2.header_bytes() as i32))
    }
}

/// The fields of a header under their names in nifti1.h. Lengths are in the file's own unit.
#[derive(Debug, Clone)]
pub struct Fields {
    pub layout: Layout,
    /// Whether the voxels are in a file of their own.
    pub is_pair: bool,
    pub big_endian: bool,
    pub dim: [i64; 8],
    pub datatype: i16,
    pub bitpix: i16,
    pub pixdim: [f64; 8],
    pub vox_offset: f64,
    pub scl_slope: f64,
    pub scl_inter: f64,
    pub xyzt_units: i32,
    pub qform_code: i32,
    pub sform_code: i32,
    pub quatern: [f64; 3],
    pub qoffset: [f64; 3],
    pub srow: [[f64; 4]; 3],
    /// ANALYZE only: the voxel at the origin as SPM counts it, from 1; zeros if there is none.
    pub origin: [i16; 3],
}

impl Fields {
    /// Decodes the header `raw`, which has as many bytes as its layout.
    ///
    /// # Errors
    /// The bytes are neither NIfTI nor ANALYZE.
    pub fn parse(path: &Path, raw: &[u8]) -> Result<Self> {
        let start = raw[..4].try_into().expect("a header is longer");
        if Layout::is_nifti2(start) {
            let is_pair = match &raw[4..12] {
                b"n+2\0\r\n\x1a\n" => false,
                b"ni2\0\r\n\x1a\n" => true,
                other => {
                    let found = format!("{:?}", String::from_utf8_lossy(other));
                    let remedy = "the file is damaged, perhaps copied as if it were text; copy it again";
                    return Err(Error::file(path, "the mark of NIfTI-2 in bytes 4 to 11", found, remedy));
                }
            };
            let big_endian = i32::from_be_bytes(start) == Layout::Nifti2.header_bytes() as i32;
            return Ok(Self::nifti2(&Bytes { raw, big_endian }, is_pair));
        }
        let expected = Layout::Nifti1.header_bytes() as i32;
        let big_endian = match start {
            start if i32::from_le_bytes(start) == expected => false,
            start if i32::from_be_bytes(start) == expected => true,
            _ => {
                let remedy = "convert the image to NIfTI first, for instance with 3D Slicer";
                return Err(Error::file(path, "a NIfTI file (.nii, .nii.gz or .hdr)", "something else", remedy));
            }
        };
        let bytes = Bytes { raw, big_endian };
        Ok(match &raw[344..348] {
            b"n+1\0" => Self::nifti1(&bytes, false),
            b"ni1\0" => Self::nifti1(&bytes, true),
            _ => Self::analyze(&bytes),
        })
    }

    fn nifti1(bytes: &Bytes, is_pair: bool) -> Self {
        Self {
            layout: Layout::Nifti1,
            is_pair,
            big_endian: bytes.big_endian,
            dim: bytes.i16s(40).map(i64::from),
            datatype: bytes.i16(70),
            bitpix: bytes.i16(72),
            pixdim: bytes.f32s(76),
            vox_offset: bytes.f32(108),
            scl_slope: bytes.f32(112),
            scl_inter: bytes.f32(116),
            xyzt_units: i32::from(bytes.raw[123]),
            qform_code: i32::from(bytes.i16(252)),
            sform_code: i32::from(bytes.i16(254)),
            quatern: bytes.f32s(256),
            qoffset: bytes.f32s(268),
            srow: [280, 296, 312].map(|at| bytes.f32s(at)),
            origin: [0; 3],
        }
    }

    fn nifti2(bytes: &Bytes, is_pair: bool) -> Self {
        Self {
            layout: Layout::Nifti2,
            is_pair,
            big_endian: bytes.big_endian,
            dim: bytes.i64s(16),
            datatype: bytes.i16(12),
            bitpix: bytes.i16(14),
            pixdim: bytes.f64s(104),
            vox_offset: bytes.i64s::<1>(168)[0] as f64,
            scl_slope: bytes.f64(176),
            scl_inter: bytes.f64(184),
            xyzt_units: bytes.i32(500),
            qform_code: bytes.i32(344),
            sform_code: bytes.i32(348),
            quatern: bytes.f64s(352),
            qoffset: bytes.f64s(376),
            srow: [400, 432, 464].map(|at| bytes.f64s(at)),
            origin: [0; 3],
        }
    }

    /// The fields of ANALYZE: those that NIfTI-1 has at the same place, and SPM's origin. Without SPM's scaling, the
    /// slope and intercept follow from the ranges before (glmin, glmax) and after (cal_min, cal_max).
    fn analyze(bytes: &Bytes) -> Self {
        let mut fields = Self {
            layout: Layout::Analyze,
            xyzt_units: 0,
            qform_code: 0,
            sform_code: 0,
            origin: bytes.i16s(253),
            ..Self::nifti1(bytes, true)
        };
        let scaled = bytes.f32(124) - bytes.f32(128);
        let [highest, lowest] = [140, 144].map(|at| f64::from(bytes.i32(at)));
        if (fields.scl_slope == 0.0 || !fields.scl_slope.is_finite()) && scaled != 0.0 && highest != lowest {
            fields.scl_slope = scaled / (highest - lowest);
            fields.scl_inter = bytes.f32(128) - fields.scl_slope * lowest;
        }
        fields
    }
}

struct Bytes<'a> {
    raw: &'a [u8],
    big_endian: bool,
}

impl Bytes<'_> {
    fn little<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes: [u8; N] = self.raw[at..at + N].try_into().expect("as long as it was cut");
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn i16s<const N: usize>(&self, at: usize) -> [i16; N] {
        std::array::from_fn(|i| i16::from_le_bytes(self.little(at + 2 * i)))
    }

    fn i64s<const N: usize>(&self, at: usize) -> [i64; N] {
        std::array::from_fn(|i| i64::from_le_bytes(self.little(at + 8 * i)))
    }

    fn f32s<const N: usize>(&self, at: usize) -> [f64; N] {
        std::array::from_fn(|i| f64::from(f32::from_le_bytes(self.little(at + 4 * i))))
    }

    fn f64s<const N: usize>(&self, at: usize) -> [f64; N] {
        std::array::from_fn(|i| f64::from_le_bytes(self.little(at + 8 * i)))
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.little(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.little(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.little(at)))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.little(at))
    }
}
