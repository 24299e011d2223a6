//! MetaImage of ITK: `Key = Value` lines, then the voxels (.mha), or the name of their file (.mhd).
//! <https://itk.org/Wiki/ITK/MetaIO/Documentation>

use super::open;
use super::stored::{Description, FROM_LPS, Packing, Stored, affine, lines, shape};
use crate::error::{Error, Result};
use crate::volume::nifti::VoxelType;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The last line of a header.
const DATA: &str = "ElementDataFile";

/// Whether a file with these first bytes is MetaImage: lines of keys, the usual first ones among them.
pub fn is_header(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let first = text.lines().next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let known = ["ObjectType", "NDims", "DimSize"];
    first.is_some_and(|key| known.contains(&key) || key == "Comment" && text.contains("ObjectType"))
}

/// Reads a file that is MetaImage.
///
/// # Errors
/// It is damaged, no image, holds several volumes or colours, or names files that are missing.
pub fn read(path: &Path) -> Result<Stored> {
    let mut stream = open(path)?;
    let is_data = |line: &str| line.split('=').next().is_some_and(|key| key.trim() == DATA);
    let lines = lines(path, &mut stream, is_data)?;
    let fields: BTreeMap<&str, &str> =
        lines.iter().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect();
    let fields = Fields { path, fields };
    let sizes = fields.numbers::<usize>("DimSize", None)?;
    let shape_vox = shape(path, &sizes)?;
    if let Some(several) = fields.get(&["ElementNumberOfChannels"]).filter(|count| *count != "1") {
        let remedy = "split it into volumes with one number in each voxel";
        return Err(Error::file(path, "one channel", several, remedy));
    }
    let mut warnings = Vec::new();
    let affine_mm = fields.affine_mm(sizes.len(), &mut warnings)?;
    let is_true = |keys: &[&str]| fields.get(keys).is_some_and(|value| value.starts_with(['T', 't', '1']));
    let is_text = fields.get(&["BinaryData"]).is_some_and(|value| value.starts_with(['F', 'f', '0']));
    let mut description = Description {
        shape_vox,
        voxel_type: fields.voxel_type()?,
        big_endian: is_true(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"]),
        packing: if is_text { Packing::Text } else { Packing::Raw },
        scaling: None,
        affine_mm,
        has_tail: false,
        warnings,
    };
    let is_packed = is_true(&["CompressedData"]);
    let data = fields.get(&[DATA]).unwrap_or_default();
    if data.eq_ignore_ascii_case("local") {
        description.packing = packing(path, description.packing, is_packed, &mut stream)?;
        return description.read(path, stream, 0);
    }
    if data.is_empty() || data.starts_with("LIST") || data.contains('%') {
        let (expected, found) = ("ElementDataFile = LOCAL or one file", format!("{data:?}"));
        return Err(Error::file(path, expected, found, "write it as one .mha, for instance with SimpleITK"));
    }
    let beside = path.with_file_name(data);
    let file = File::open(&beside).map_err(Error::io("open the voxels", &beside))?;
    let length = file.metadata().map_err(Error::io("read", &beside))?.len();
    let mut stream = BufReader::with_capacity(1 << 20, file);
    let claimed = sizes.iter().try_fold(description.voxel_type.size_of() as u64, |all, &n| all.checked_mul(n as u64));
    let skip = match fields.get(&["HeaderSize"]).map(str::parse::<i64>) {
        Some(Ok(-1)) => length.saturating_sub(claimed.unwrap_or(0)),
        Some(Ok(bytes)) => u64::try_from(bytes).unwrap_or(0),
        _ => 0,
    };
    description.packing = packing(&beside, description.packing, is_packed, &mut stream)?;
    description.read(&beside, stream, skip)
}

/// As ITK, which looks at the first bytes: some write gzip in place of zlib.
fn packing(path: &Path, plain: Packing, is_packed: bool, stream: &mut impl BufRead) -> Result<Packing> {
    let start = stream.fill_buf().map_err(Error::io("read", path))?;
    Ok(match is_packed {
        true if start.starts_with(&[0x1f, 0x8b]) => Packing::Gzip,
        true => Packing::Zlib,
        false => plain,
    })
}

struct Fields<'a> {
    path: &'a Path,
    fields: BTreeMap<&'a str, &'a str>,
}

impl Fields<'_> {
    /// The value of the first of these keys that is there.
    fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.fields.get(key).copied())
    }

    fn numbers<T: std::str::FromStr>(&self, key: &str, count: Option<usize>) -> Result<Vec<T>> {
        let text = self.get(&[key]).unwrap_or("nothing");
        let numbers: Option<Vec<T>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers.filter(|numbers| count.is_none_or(|count| numbers.len() == count)).ok_or_else(|| {
            let expected = format!("{key} with {} numbers", count.map_or("its".to_owned(), |count| count.to_string()));
            Error::file(self.path, expected, text, "the header is damaged; export the image again")
        })
    }

    fn voxel_type(&self) -> Result<VoxelType> {
        let name = self.get(&["ElementType"]).unwrap_or("nothing");
        Ok(match name {
            "MET_CHAR" => VoxelType::Int8,
            "MET_UCHAR" => VoxelType::Uint8,
            "MET_SHORT" => VoxelType::Int16,
            "MET_USHORT" => VoxelType::Uint16,
            "MET_INT" | "MET_LONG" => VoxelType::Int32,
            "MET_UINT" | "MET_ULONG" => VoxelType::Uint32,
            "MET_LONG_LONG" => VoxelType::Int64,
            "MET_ULONG_LONG" => VoxelType::Uint64,
            "MET_FLOAT" => VoxelType::Float32,
            "MET_DOUBLE" => VoxelType::Float64,
            other => {
                let (expected, remedy) = ("an ElementType of one number", "write it as MET_FLOAT");
                return Err(Error::file(self.path, expected, other, remedy));
            }
        })
    }

    /// Positions and directions are in LPS whatever AnatomicalOrientation says, as ITK reads them.
    fn affine_mm(&self, dimensions: usize, warnings: &mut Vec<String>) -> Result<[[f64; 4]; 4]> {
        let named = |keys: [&'static str; 3]| keys.into_iter().find(|key| self.fields.contains_key(key));
        let matrix = match named(["TransformMatrix", "Rotation", "Orientation"]) {
            Some(key) => self.numbers(key, Some(dimensions * dimensions))?,
            None => {
                warnings.push(
                    "it does not say how the patient lies (TransformMatrix); taken as LPS, as ITK does".to_owned(),
                );
                (0..dimensions * dimensions).map(|at| f64::from(u8::from(at % (dimensions + 1) == 0))).collect()
            }
        };
        let origin = match named(["Offset", "Position", "Origin"]) {
            Some(key) => self.numbers(key, Some(dimensions))?,
            None => vec![0.0; dimensions],
        };
        let spacing = match named(["ElementSpacing", "ElementSize", "ElementSize"]) {
            Some(key) => self.numbers(key, Some(dimensions))?,
            None => {
                warnings.push("it does not say its spacing (ElementSpacing); taken as 1 mm".to_owned());
                vec![1.0; dimensions]
            }
        };
        let columns = [0, 1, 2].map(|axis| [0, 1, 2].map(|row| matrix[axis * dimensions + row] * spacing[axis]));
        Ok(affine(columns, [origin[0], origin[1], origin[2]], FROM_LPS))
    }
}
