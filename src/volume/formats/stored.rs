//! What the formats have in common: sizes, type and place of the voxels, and their bytes however they are packed.

use super::READ;
use crate::error::{Error, Result};
use crate::units;
use crate::volume::nifti::{Header, VoxelType};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use std::io::{self, BufRead, Read};
use std::path::Path;

/// A volume as its file holds it.
pub struct Stored {
    /// What the NIfTI reader needs to know of it.
    pub header: Header,
    /// The voxels, the first axis fastest.
    pub bytes: Vec<u8>,
}

/// How the numbers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As they are.
    Raw,
    /// gzip.
    Gzip,
    /// zlib, which is gzip without its header.
    Zlib,
    /// Decimal numbers with white space between them.
    Text,
}

/// What a header says of its voxels.
pub struct Description {
    /// Voxels along the file's third, second, first axis.
    pub shape_vox: [usize; 3],
    pub voxel_type: VoxelType,
    pub big_endian: bool,
    pub packing: Packing,
    /// Slope and intercept: value = stored * slope + intercept.
    pub scaling: Option<(f64, f64)>,
    /// Maps the file's own index (i, j, k, 1) to R, A, S in mm.
    pub affine_mm: [[f64; 4]; 4],
    /// Whether bytes after the last voxel are part of the format.
    pub has_tail: bool,
    pub warnings: Vec<String>,
}

impl Description {
    /// Reads the voxels at `path`, where `stream` stands before the first of them once `skip` bytes are passed over (after they are
    /// unpacked).
    ///
    /// # Errors
    /// The volume exceeds the memory limit or has no possible size, or its voxels are cut off or damaged.
    pub fn read(mut self, path: &Path, stream: impl BufRead, skip: u64) -> Result<Stored> {
        let stored_type = self.voxel_type;
        if self.packing == Packing::Text {
            (self.voxel_type, self.big_endian) = (VoxelType::Float64, false);
        }
        let Self { shape_vox, voxel_type, big_endian, scaling, affine_mm, .. } = self;
        let mut header = Header::of_another_format(path, shape_vox, voxel_type, affine_mm)?;
        (header.big_endian, header.scaling) = (big_endian, scaling);
        let count = shape_vox.iter().product::<usize>(); // within the limit
        let (bytes, after) = match self.packing {
            Packing::Raw => take(path, stream, skip, count * stored_type.size_of(), shape_vox)?,
            Packing::Gzip => take(path, MultiGzDecoder::new(stream), skip, count * stored_type.size_of(), shape_vox)?,
            Packing::Zlib => take(path, ZlibDecoder::new(stream), skip, count * stored_type.size_of(), shape_vox)?,
            Packing::Text => (numbers(path, stream, count)?, 0),
        };
        if after > 0 && !self.has_tail {
            let after = units::thousands(after);
            self.warnings
                .push(format!("{after} bytes after the last voxel are not read: do its sizes and type agree with it?"));
        }
        header.warnings = self.warnings;
        Ok(Stored { header, bytes })
    }
}

/// The `claimed` bytes after `skip`, and how many follow. Memory is allocated only as data arrive.
fn take(
    path: &Path,
    mut stream: impl Read,
    skip: u64,
    claimed: usize,
    shape_vox: [usize; 3],
) -> Result<(Vec<u8>, u64)> {
    let mut bytes = Vec::new();
    let mut all = || -> io::Result<u64> {
        io::copy(&mut stream.by_ref().take(skip), &mut io::sink())?;
        let _ = bytes.try_reserve_exact(claimed.min(1 << 30));
        stream.by_ref().take(claimed as u64).read_to_end(&mut bytes)?;
        if bytes.len() < claimed {
            return Ok(0);
        }
        io::copy(&mut stream, &mut io::sink()) // to the end, where checksums are kept
    };
    let after = all().map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            let remedy = "the file is damaged or cut off; copy or export it again";
            Error::file(path, "voxels that can be unpacked", error.to_string(), remedy)
        }
        _ => Error::io("read", path)(error),
    })?;
    if bytes.len() < claimed {
        let [z, y, x] = shape_vox;
        let expected = format!("{claimed} bytes of voxels ({z} x {y} x {x}, z y x)");
        let remedy = "the file is cut off; copy or export it again";
        return Err(Error::file(path, expected, format!("only {}", bytes.len()), remedy));
    }
    Ok((bytes, after))
}

/// `count` decimal numbers as float64.
fn numbers(path: &Path, stream: impl BufRead, count: usize) -> Result<Vec<u8>> {
    let (mut bytes, mut found) = (Vec::new(), 0);
    for line in stream.split(b'\n') {
        let line = line.map_err(Error::io("read", path))?;
        for word in String::from_utf8_lossy(&line).split_whitespace() {
            let Ok(number) = word.parse::<f64>() else {
                let remedy = "the file is damaged; export it again";
                return Err(Error::file(path, "voxels as decimal numbers", format!("{word:?}"), remedy));
            };
            if found < count {
                bytes.extend(number.to_le_bytes());
            }
            found += 1;
        }
    }
    if found != count {
        let remedy = "the file is damaged or cut off; export it again";
        return Err(Error::file(path, format!("{count} decimal numbers"), found.to_string(), remedy));
    }
    Ok(bytes)
}

/// The affine to R, A, S of a grid whose axes and origin are in a frame that `signs` turn into it.
pub fn affine(columns_mm: [[f64; 3]; 3], origin_mm: [f64; 3], signs: [f64; 3]) -> [[f64; 4]; 4] {
    let mut affine = [[0.0; 4]; 4];
    for row in 0..3 {
        for (column, axis) in columns_mm.iter().chain([&origin_mm]).enumerate() {
            affine[row][column] = signs[row] * axis[row];
        }
    }
    affine[3][3] = 1.0;
    affine
}

/// From a frame that grows to the left and to the back (LPS).
pub const FROM_LPS: [f64; 3] = [-1.0, -1.0, 1.0];

/// Sizes of a volume from those of all axes, the first fastest: three, and whatever else is 1.
///
/// # Errors
/// They are of no volume, or of several.
pub fn shape(path: &Path, sizes: &[usize]) -> Result<[usize; 3]> {
    match sizes {
        [x, y, z, rest @ ..] if *x > 0 && *y > 0 && *z > 0 && rest.iter().all(|&n| n == 1) => Ok([*z, *y, *x]),
        _ => {
            let text = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            let found = format!("{} axes of {}", sizes.len(), if text.is_empty() { "no size" } else { &text });
            let remedy = "give one volume with a number in each voxel: split series and colours, stack single slices";
            Err(Error::file(path, "one 3D volume", found, remedy))
        }
    }
}

/// The lines of a text header up to one that `is_last` or the end of the file; the stream then stands behind it.
///
/// # Errors
/// The file cannot be read, or the header does not end.
pub fn lines(path: &Path, stream: &mut impl BufRead, is_last: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    const MOST_BYTES: u64 = 1 << 24; // the tables of segments may be long
    let (mut lines, mut read) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let count = stream.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line);
        let count = count.map_err(Error::io("read", path))?;
        read += count as u64;
        if read >= MOST_BYTES {
            return Err(Error::file(path, READ, "a header without end", "it is damaged; export it again"));
        }
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
        let ends = count == 0 || is_last(&text);
        if count > 0 {
            lines.push(text);
        }
        if ends {
            return Ok(lines);
        }
    }
}
