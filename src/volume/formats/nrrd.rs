//! NRRD of Teem, which 3D Slicer writes: lines of fields, then the voxels (.nrrd), or the name of their file (.nhdr).
//! <https://teem.sourceforge.net/nrrd/format.html>

use super::open;
use super::stored::{Description, FROM_LPS, Packing, Stored, affine, lines, shape};
use crate::error::{Error, Result};
use crate::volume::nifti::VoxelType;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Reads a file that is NRRD.
///
/// # Errors
/// It is damaged, packed in a way that is not read, holds several volumes or layers, or names files that are missing.
pub fn read(path: &Path) -> Result<Stored> {
    let mut stream = open(path)?;
    let lines = lines(path, &mut stream, str::is_empty)?;
    let header = Header::new(path, &lines);
    let axes = header.axes()?;
    let mut warnings = Vec::new();
    let affine_mm = header.affine_mm(&axes, &mut warnings)?;
    let sizes: Vec<usize> = axes.iter().map(|&axis| header.sizes[axis]).collect();
    let voxel_type = header.voxel_type()?;
    let packing = header.packing()?;
    let big_endian = match header.get("endian").map(str::to_lowercase).as_deref() {
        Some("big") => true,
        Some("little") => false,
        _ if voxel_type.size_of() == 1 || packing == Packing::Text => false,
        other => return Err(header.fault("endian: little or big", other.unwrap_or("nothing"))),
    };
    let (scaling, has_tail) = (None, false);
    let shape_vox = shape(path, &sizes)?;
    let description =
        Description { shape_vox, voxel_type, big_endian, packing, scaling, affine_mm, has_tail, warnings };
    let Some(name) = header.get("data file").or(header.get("datafile")) else {
        return header.read(description, path, stream, None);
    };
    if name.starts_with("LIST") || name.contains('%') {
        let (expected, found) = ("data file: one file", format!("{name:?}"));
        return Err(Error::file(path, expected, found, "write it as one .nrrd, for instance with 3D Slicer"));
    }
    let beside = path.with_file_name(name);
    let file = File::open(&beside).map_err(Error::io("open the voxels", &beside))?;
    let length = file.metadata().map_err(Error::io("read", &beside))?.len();
    header.read(description, &beside, BufReader::with_capacity(1 << 20, file), Some(length))
}

/// The fields under their names in small letters, and the sizes of all axes.
struct Header<'a> {
    path: &'a Path,
    fields: BTreeMap<String, &'a str>,
    sizes: Vec<usize>,
    /// Of how many segments 3D Slicer keeps the names here.
    segments: usize,
}

impl<'a> Header<'a> {
    fn new(path: &'a Path, lines: &'a [String]) -> Self {
        let described = lines.iter().skip(1).filter(|line| !line.starts_with('#'));
        let (keys, fields): (Vec<&String>, Vec<&String>) = described.partition(|line| {
            let [key, field] = [":=", ": "].map(|mark| line.find(mark).unwrap_or(usize::MAX));
            key < field
        });
        let is_segment = |line: &&&String| line.starts_with("Segment") && line.contains("_ID:=");
        let fields: BTreeMap<String, &str> = fields
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim().to_lowercase(), value.trim()))
            .collect();
        let sizes = fields.get("sizes").copied().unwrap_or_default();
        let sizes = sizes.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        Self { path, fields, sizes, segments: keys.iter().filter(is_segment).count() }
    }

    fn get(&self, field: &str) -> Option<&'a str> {
        self.fields.get(field).copied()
    }

    fn fault(&self, expected: &str, found: &str) -> Error {
        Error::file(self.path, expected, found, "the header is damaged; export the image again")
    }

    /// The axes in space, in order. All others have to be of size 1.
    fn axes(&self) -> Result<Vec<usize>> {
        if self.sizes.is_empty() || self.get("dimension").and_then(|n| n.parse().ok()) != Some(self.sizes.len()) {
            let found = format!("dimension {:?} and sizes {:?}", self.get("dimension"), self.get("sizes"));
            return Err(self.fault("as many sizes as dimensions", &found.replace("Some(", "").replace(')', "")));
        }
        let kinds: Vec<String> =
            self.get("kinds").unwrap_or_default().split_whitespace().map(str::to_lowercase).collect();
        let vectors = self.vectors("space directions")?.unwrap_or_default();
        let is_in_space = |axis: &usize| match vectors.get(*axis) {
            Some(vector) => vector.is_some(),
            None => kinds.get(*axis).is_none_or(|kind| ["domain", "space", "???", "none"].contains(&kind.as_str())),
        };
        let (mut axes, others): (Vec<usize>, Vec<usize>) = (0..self.sizes.len()).partition(is_in_space);
        // One volume of a series, or one layer.
        while axes.len() > 3 && axes.last().is_some_and(|&last| self.sizes[last] == 1) {
            axes.pop();
        }
        let layers: usize = others.iter().map(|&axis| self.sizes[axis]).product();
        if layers == 1 {
            return Ok(axes);
        }
        if self.segments > 0 {
            let found = format!(
                "a segmentation of 3D Slicer with {} segments in {layers} layers, since they overlap",
                self.segments
            );
            let remedy =
                "export it as a label map: in 3D Slicer's Segmentations module, Export to files, with Labelmap";
            return Err(Error::file(self.path, "a label map in one layer", found, remedy));
        }
        let found = format!("{layers} numbers in each voxel, or volumes");
        Err(Error::file(self.path, "one 3D volume", found, "split it, for instance with 3D Slicer or pynrrd"))
    }

    /// The field's vectors, one of an axis; none for axes that are not in space.
    fn vectors(&self, field: &str) -> Result<Option<Vec<Option<Vec<f64>>>>> {
        let Some(text) = self.get(field) else { return Ok(None) };
        let (mut vectors, mut rest) = (Vec::new(), text.trim());
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("none") {
                vectors.push(None);
                rest = after.trim_start();
                continue;
            }
            let parts = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
            let numbers = parts.and_then(|(inner, _)| inner.split(',').map(|word| word.trim().parse().ok()).collect());
            let (Some((_, after)), Some(numbers)) = (parts, numbers) else {
                return Err(self.fault(&format!("{field} like (1,0,0) (0,1,0) (0,0,1)"), text));
            };
            let numbers: Vec<f64> = numbers;
            vectors.push(numbers.iter().all(|number| number.is_finite()).then_some(numbers));
            rest = after.trim_start();
        }
        Ok(Some(vectors))
    }

    fn affine_mm(&self, axes: &[usize], warnings: &mut Vec<String>) -> Result<[[f64; 4]; 4]> {
        let space = self.get("space").map(str::to_lowercase).unwrap_or_default();
        let signs = match space.trim_end_matches("-time").trim_end_matches('t') {
            "right-anterior-superior" | "ras" => [1.0; 3],
            "left-anterior-superior" | "las" => [-1.0, 1.0, 1.0],
            "left-posterior-superior" | "lps" => FROM_LPS,
            other => {
                let said = if other.is_empty() { String::new() } else { format!(" but {space:?}") };
                warnings.push(format!("it does not say how the patient lies{said} (space); taken as LPS, as ITK does"));
                FROM_LPS
            }
        };
        let spatial = |vector: &Vec<f64>| -> Result<[f64; 3]> {
            let first = vector.get(..3).and_then(|first| first.try_into().ok());
            first.ok_or_else(|| self.fault("vectors of three numbers", &format!("{vector:?}")))
        };
        let mut columns = [[0.0; 3]; 3];
        if let Some(vectors) = self.vectors("space directions")? {
            for (column, axis) in columns.iter_mut().zip(axes) {
                if let Some(Some(vector)) = vectors.get(*axis) {
                    *column = spatial(vector)?;
                }
            }
        } else {
            let spacings: Vec<f64> = self
                .get("spacings")
                .unwrap_or_default()
                .split_whitespace()
                .map(|word| word.parse().unwrap_or(f64::NAN))
                .collect();
            for (index, axis) in axes.iter().take(3).enumerate() {
                columns[index][index] = spacings.get(*axis).copied().unwrap_or(1.0);
            }
            if spacings.is_empty() {
                warnings.push("it does not say its spacing; taken as 1 mm".to_owned());
            }
        }
        let origin = match self.vectors("space origin")?.as_deref() {
            Some([Some(origin)]) => spatial(origin)?,
            _ => [0.0; 3],
        };
        let unit_mm = match self
            .get("space units")
            .map(str::to_lowercase)
            .unwrap_or_default()
            .replace('"', "")
            .split_whitespace()
            .next()
        {
            Some("m") => 1e3,
            Some("cm") => 10.0,
            Some("um" | "µm" | "micron" | "microns") => 1e-3,
            Some("nm") => 1e-6,
            _ => 1.0, // millimetres, or not said
        };
        Ok(affine(columns.map(|column| column.map(|mm| mm * unit_mm)), origin.map(|mm| mm * unit_mm), signs))
    }

    fn voxel_type(&self) -> Result<VoxelType> {
        let name = self.get("type").unwrap_or("nothing").to_lowercase();
        Ok(match name.as_str() {
            "signed char" | "int8" | "int8_t" => VoxelType::Int8,
            "uchar" | "unsigned char" | "uint8" | "uint8_t" => VoxelType::Uint8,
            "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => VoxelType::Int16,
            "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => VoxelType::Uint16,
            "int" | "signed int" | "int32" | "int32_t" => VoxelType::Int32,
            "uint" | "unsigned int" | "uint32" | "uint32_t" => VoxelType::Uint32,
            "longlong"
            | "long long"
            | "long long int"
            | "signed long long"
            | "signed long long int"
            | "int64"
            | "int64_t" => VoxelType::Int64,
            "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => VoxelType::Uint64,
            "float" => VoxelType::Float32,
            "double" => VoxelType::Float64,
            _ => {
                let (expected, remedy) = ("a type of one number (short, float, ...)", "write it as float");
                return Err(Error::file(self.path, expected, name, remedy));
            }
        })
    }

    fn packing(&self) -> Result<Packing> {
        let name = self.get("encoding").unwrap_or("nothing").to_lowercase();
        match name.as_str() {
            "raw" => Ok(Packing::Raw),
            "gz" | "gzip" => Ok(Packing::Gzip),
            "txt" | "text" | "ascii" => Ok(Packing::Text),
            _ => {
                let remedy = "save it again with gzip, for instance with 3D Slicer, or with pynrrd";
                Err(Error::file(self.path, "encoding: raw, gzip or ascii", name, remedy))
            }
        }
    }

    /// Passes over the lines and bytes that the header wants to be skipped. `length`: of the file, where it holds voxels alone.
    fn read(
        &self,
        description: Description,
        path: &Path,
        mut stream: impl BufRead,
        length: Option<u64>,
    ) -> Result<Stored> {
        let count = |fields: [&str; 2]| {
            let text = fields.iter().find_map(|field| self.get(field)).unwrap_or("0");
            text.parse::<i64>().map_err(|_| self.fault(&format!("{}: a number", fields[0]), text))
        };
        let (line_skip, byte_skip) = (count(["line skip", "lineskip"])?, count(["byte skip", "byteskip"])?);
        for _ in 0..line_skip.min(1 << 20) {
            stream.skip_until(b'\n').map_err(Error::io("read", path))?;
        }
        let shape = description.shape_vox;
        let claimed =
            shape.iter().try_fold(description.voxel_type.size_of() as u64, |all, &n| all.checked_mul(n as u64));
        let skip = match (u64::try_from(byte_skip), length) {
            (Ok(bytes), _) => bytes,
            // The voxels are what the file ends with.
            (Err(_), Some(length)) => length.saturating_sub(claimed.unwrap_or(0)),
            (Err(_), None) => return Err(self.fault("byte skip: 0 or more beside voxels in the same file", "-1")),
        };
        description.read(path, stream, skip)
    }
}
