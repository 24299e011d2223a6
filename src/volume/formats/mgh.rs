//! MGH and MGZ of FreeSurfer: 284 bytes of header, big-endian, then the voxels.
//! <https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat>

use super::open;
use super::stored::{Description, Packing, Stored, affine, shape};
use crate::error::{Error, Result};
use crate::volume::nifti::VoxelType;
use std::io::Read;
use std::path::Path;

const HEADER_BYTES: usize = 284;

/// Whether a file with these first bytes, and a name that ends so or not, is MGH.
pub fn is_header(start: &[u8], is_named_so: bool) -> bool {
    let starts = start.starts_with(&[0, 0, 0, 1]);
    let is_type = start.get(20..24).is_some_and(|bytes| bytes[..3] == [0; 3] && [0, 1, 3, 4, 10].contains(&bytes[3]));
    starts && (is_named_so || is_type && start.len() >= HEADER_BYTES)
}

/// Reads a file that is MGH.
///
/// # Errors
/// It is damaged, holds several volumes, or a type of voxel that FreeSurfer does not document.
pub fn read(path: &Path) -> Result<Stored> {
    let mut stream = open(path)?;
    let mut raw = Vec::new();
    stream.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut raw).map_err(Error::io("read", path))?;
    if raw.len() < HEADER_BYTES {
        let (expected, remedy) = (format!("an MGH header of {HEADER_BYTES} bytes"), "copy or export it again");
        return Err(Error::file(path, expected, format!("only {}", raw.len()), remedy));
    }
    let int = |at: usize| i32::from_be_bytes(raw[at..at + 4].try_into().expect("four bytes"));
    let float = float_at(&raw);
    let sizes = [4, 8, 12, 16].map(|at| usize::try_from(int(at)).unwrap_or(0));
    let shape_vox = shape(path, &sizes)?;
    let voxel_type = match int(20) {
        0 => VoxelType::Uint8,
        1 => VoxelType::Int32,
        3 => VoxelType::Float32,
        4 => VoxelType::Int16,
        10 => VoxelType::Uint16,
        other => {
            let remedy = "convert it with mri_convert -odt float";
            return Err(Error::file(path, "an MGH type of 0, 1, 3, 4 or 10", other.to_string(), remedy));
        }
    };
    let mut warnings = Vec::new();
    let is_placed = i16::from_be_bytes([raw[28], raw[29]]) > 0;
    let (columns, centre) = if is_placed {
        let direction = |axis: usize| [0, 1, 2].map(|row| float(42 + 4 * (3 * axis + row)) * float(30 + 4 * axis));
        ([0, 1, 2].map(direction), [78, 82, 86].map(&float))
    } else {
        warnings.push(
            "it does not say how the patient lies; taken as coronal with voxels of 1 mm, as FreeSurfer does".to_owned(),
        );
        ([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], [0.0; 3])
    };
    // The header has the middle of the grid, which is half its size away from the first voxel.
    let origin = [0, 1, 2]
        .map(|row| centre[row] - (0..3).map(|axis| columns[axis][row] * sizes[axis] as f64 / 2.0).sum::<f64>());
    let affine_mm = affine(columns, origin, [1.0; 3]);
    let (scaling, packing) = (None, Packing::Raw);
    let (big_endian, has_tail) = (true, true); // scan parameters follow the voxels
    Description { shape_vox, voxel_type, big_endian, packing, scaling, affine_mm, has_tail, warnings }
        .read(path, stream, 0)
}

fn float_at(raw: &[u8]) -> impl Fn(usize) -> f64 + use<'_> {
    |at| f64::from(f32::from_be_bytes(raw[at..at + 4].try_into().expect("four bytes")))
}
