//! What a file is that is not read, and what makes a volume of it.

use crate::volume::dicom;
use crate::volume::nifti::without;

/// First bytes, what has them, and what to do.
const STARTS: &[(&[u8], &str, &str)] = &[
    (b"II*\0", "a TIFF picture", TIFF),
    (b"MM\0*", "a TIFF picture", TIFF),
    (b"II+\0", "a TIFF picture", TIFF),
    (b"MM\0+", "a TIFF picture", TIFF),
    (b"\x93NUMPY", "a NumPy array", ARRAY),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", PICTURE),
    (b"\xff\xd8\xff", "a JPEG picture", PICTURE),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", PICTURE),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", PICTURE),
    (b"GIF8", "a GIF picture", PICTURE),
    (b"BM", "a BMP picture", PICTURE),
    (b"RIFF", "a WebP picture or a film", PICTURE),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "write the volume that it holds as NIfTI, for instance with h5py and nibabel",
    ),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", MATLAB),
    (b"MATLAB 7.3 MAT-file", "a MATLAB file", MATLAB),
    (b"CDF\x01", "a NetCDF file, as MINC 1 is", MINC),
    (b"CDF\x02", "a NetCDF file, as MINC 1 is", MINC),
    (b"mrtrix image", "an MRtrix image", "convert it to NIfTI with mrconvert"),
    (b"# vtk DataFile", "a VTK file", "convert it to NIfTI with 3D Slicer, or with the Python package vtk"),
    (b"<VTKFile", "a VTK file", "convert it to NIfTI with 3D Slicer, or with the Python package vtk"),
    (b"ZISRAWFILE", "a file of a Zeiss microscope (CZI)", "open it in Fiji and save it as NIfTI"),
    (b"MATRIX7", "an ECAT file of a PET scanner", "convert it to NIfTI with nibabel, which reads it"),
    (b"PK\x03\x04", "a zip archive", "unpack it and name the volume in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the volume in it"),
    (b"Rar!", "a RAR archive", "unpack it and name the volume in it"),
    (b"BZh", "a file packed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "a file packed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd", "unpack it with unzstd"),
    (b"\x1f\x9d", "a file packed with compress", "unpack it with uncompress"),
    (b"\x1f\x8b", "a gzip file in a gzip file", "unpack it once with gunzip"),
    (b"%PDF", "a PDF document", "name the volume itself"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the file",
        "fetch the file itself with git lfs pull",
    ),
    (b"<!DOCTYPE", "a web page", "the download has failed: download the file again"),
    (b"<!doctype", "a web page", "the download has failed: download the file again"),
    (b"<html", "a web page", "the download has failed: download the file again"),
    (b"# === DATA DESCRIPTION FILE", "Philips PAR/REC", PHILIPS),
    (b"solid ", "a surface (STL)", SURFACE),
    (b"ply\n", "a surface (PLY)", SURFACE),
    (b"TRACK\0", "tracts (TRK)", "name the volume that they belong to"),
];

/// Bytes at another place.
const LATER: &[(usize, &[u8], &str, &str)] = &[(257, b"ustar", "a tar archive", "unpack it and name the volume in it")];

/// Endings of files that are known by their names alone.
const ENDINGS: &[(&[&str], &str, &str)] = &[
    (&[".npz"], "NumPy arrays", ARRAY),
    (&[".mnc", ".mnc.gz", ".minc"], "a MINC volume", MINC),
    (&[".head", ".brik", ".brik.gz"], "an AFNI dataset", "convert it to NIfTI with 3dAFNItoNIFTI"),
    (&[".par", ".rec"], "Philips PAR/REC", PHILIPS),
    (&[".mif", ".mih", ".mif.gz"], "an MRtrix image", "convert it to NIfTI with mrconvert"),
    (&[".raw", ".zraw", ".raw.gz", ".bin", ".dat"], "voxels without a header", RAW),
    (
        &[".gipl", ".gipl.gz", ".vtk", ".lsm", ".pic"],
        "a volume that only ITK reads",
        "convert it to NIfTI with 3D Slicer or SimpleITK",
    ),
    (&[".gii", ".gii.gz", ".obj", ".stl", ".vtp"], "a surface", SURFACE),
    (&[".mat"], "a MATLAB file", MATLAB),
    (&[".dcm", ".ima", ".dicom"], "a single DICOM file", DICOM),
    (&["2dseq"], "an image of Bruker ParaVision", "convert it to NIfTI with brkraw"),
    (&[".vmr", ".v16"], "a BrainVoyager volume", "convert it to NIfTI with nibabel or bvbabel"),
];

const TIFF: &str = "write it as NIfTI with the spacing that TIFF does not hold, for instance in Fiji or with SimpleITK";
const ARRAY: &str = "write it as NIfTI with the affine that it lacks: nibabel.save(nibabel.Nifti1Image(array, affine), \"scan.nii.gz\")";
const PICTURE: &str =
    "stack the slices into a volume with their spacing, for instance with SimpleITK, and save it as NIfTI";
const MATLAB: &str = "write the volume with MATLAB's niftiwrite, and its spacing with it";
const MINC: &str = "convert it to NIfTI with mnc2nii, or with nibabel, which reads it";
const PHILIPS: &str = "convert it to NIfTI with nibabel's parrec2nii";
const SURFACE: &str =
    "turn it into a label map on the grid of its image, for instance in 3D Slicer's Segmentations module";
const DICOM: &str = "name the folder that holds its series, or bring it into NIfTI with ssl3d prepare dicom";
const RAW: &str = "name the .mhd or .nhdr that belongs to it, or write one with its sizes, type and spacing";

/// What a file with this name and these first bytes (unpacked, if they were gzip) is, and what to do with it; `None` if it is nothing
/// that is known here.
pub fn what(name: &str, start: &[u8]) -> Option<(&'static str, &'static str)> {
    let ends = |endings: &[&str]| without(name, endings).is_some();
    let named = ENDINGS.iter().find(|(endings, ..)| ends(endings));
    let is_minc = named.is_some_and(|(endings, ..)| endings.contains(&".mnc") || endings.contains(&".npz"));
    if let Some((_, what, remedy)) = named.filter(|_| is_minc) {
        return Some((what, remedy)); // HDF5 and zip are what they are packed in
    }
    if let Some((_, what, remedy)) = STARTS.iter().find(|(bytes, ..)| start.starts_with(bytes)) {
        return Some((what, remedy));
    }
    let is_there = |at: usize, bytes: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(bytes));
    if let Some((.., what, remedy)) = LATER.iter().find(|(at, bytes, ..)| is_there(*at, bytes)) {
        return Some((what, remedy));
    }
    if dicom::is_start_of_dicom(start) {
        return Some(("a single DICOM file", DICOM));
    }
    if start.windows(15).any(|bytes| bytes == b"/annex/objects/") {
        return Some(("a pointer of git-annex in place of the file", "fetch the file itself with git annex get"));
    }
    named.map(|(_, what, remedy)| (*what, *remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes_and_else_by_their_names() {
        let preamble = [[0; 128].as_slice(), b"DICM"].concat();
        let tar = [[7; 257].as_slice(), b"ustar\0"].concat();
        for (name, start, expected) in [
            ("a.nii.gz", b"\x89PNG\r\n\x1a\n".as_slice(), Some("a PNG picture")),
            ("a.npz", b"PK\x03\x04", Some("NumPy arrays")),
            ("a.zip", b"PK\x03\x04", Some("a zip archive")),
            ("A.MNC", b"\x89HDF\r\n\x1a\n", Some("a MINC volume")),
            ("a.h5", b"\x89HDF\r\n\x1a\n", Some("an HDF5 file")),
            ("a", &preamble, Some("a single DICOM file")),
            ("IM1", b"\x08\0\x05\0CS\x0a\0", Some("a single DICOM file")),
            ("IM1", b"\x08\0\0\0\x04\0\0\0", Some("a single DICOM file")),
            ("a.dcm", b"", Some("a single DICOM file")),
            ("a.nii", &tar, Some("a tar archive")),
            ("a.raw", b"\x01\x02", Some("voxels without a header")),
            ("a.nii.gz", b"../.git/annex/objects/x", Some("a pointer of git-annex in place of the file")),
            ("a.txt", b"text", None),
            ("a", b"", None),
        ] {
            assert_eq!(what(name, start).map(|(what, _)| what), expected, "{name}");
        }
    }
}
