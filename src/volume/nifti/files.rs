//! File names of volumes, and the two files of a pair.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Endings of a volume; a `.hdr` represents its pair.
const ENDINGS: [&str; 4] = [".nii.gz", ".nii", ".hdr.gz", ".hdr"];
/// Endings of the voxel file of a pair.
const VOXELS: [&str; 2] = [".img.gz", ".img"];

/// A file name without its ending `.nii`, `.nii.gz` or `.hdr`, in any case; `None` if it has none of them. The `.img`
/// of a pair is not a volume of its own.
pub fn stem(name: &str) -> Option<&str> {
    without(name, &ENDINGS)
}

/// The file name as [`stem`] gives it; the whole name if it is not that of a volume.
pub fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    stem(&name).or_else(|| without(&name, &VOXELS)).unwrap_or(&name).to_owned()
}

/// A name without the first of these endings that it has, in any case; `None` if it has none of them.
pub fn without<'a>(name: &'a str, endings: &[&str]) -> Option<&'a str> {
    let cut = |ending: &&str| {
        let at = name.len().checked_sub(ending.len()).filter(|&at| name.is_char_boundary(at))?;
        name[at..].eq_ignore_ascii_case(ending).then_some(&name[..at])
    };
    endings.iter().find_map(cut)
}

/// The file with the header of a volume: the `.hdr` beside it if the path is an `.img`, otherwise the path itself.
///
/// # Errors
/// There is no such file.
pub fn header_of(path: &Path) -> Result<PathBuf> {
    if without(&path.to_string_lossy(), &VOXELS).is_some() { beside(path, "hdr") } else { Ok(path.to_owned()) }
}

/// The `.img` file with the voxels that a `.hdr` describes.
///
/// # Errors
/// The path is no `.hdr`, or has no `.img` beside it.
pub fn voxels_of(path: &Path) -> Result<PathBuf> {
    if without(&path.to_string_lossy(), &[".hdr.gz", ".hdr"]).is_some() {
        return beside(path, "img");
    }
    let remedy = "name it .hdr and put the .img with its voxels beside it";
    Err(Error::file(path, "a volume in one file", "the header of a pair", remedy))
}

/// The file beside `path` with another ending: for `a.hdr` and "img" it is `a.img`. Either file may end in `.gz`, and
/// the second one may be in capitals.
///
/// # Errors
/// There is no such file.
pub fn beside(path: &Path, ending: &str) -> Result<PathBuf> {
    let mut plain = path.to_owned();
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
        plain.set_extension("");
    }
    let endings =
        [ending.to_owned(), format!("{ending}.gz"), ending.to_uppercase(), format!("{}.GZ", ending.to_uppercase())];
    let candidates = endings.map(|ending| plain.with_extension(OsString::from(ending)));
    if let Some(found) = candidates.iter().find(|candidate| candidate.is_file()) {
        return Ok(found.clone());
    }
    let remedy = "copy both files of the pair into one folder";
    Err(Error::file(path, format!("{} beside it", candidates[0].display()), "no such file", remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_volumes_do_in_any_case() {
        for (name, expected) in [
            ("scan.v2.nii.gz", Some("scan.v2")),
            ("B.NII", Some("B")),
            ("ü 1.Nii.Gz", Some("ü 1")),
            ("line\nbreak.nii", Some("line\nbreak")),
            ("a.hdr", Some("a")),
            ("a.img", None),
            ("nii", None),
            ("日nii", None),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
        assert_eq!(name_of(Path::new("x/a.img.gz")), "a");
        assert_eq!(name_of(Path::new("x/notes.txt")), "notes.txt");
    }

    #[test]
    fn the_two_files_of_a_pair_find_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.v2.hdr", "a.v2.img", "b.hdr", "b.img.gz", "C.HDR", "C.IMG", "alone.hdr"] {
            std::fs::write(at(name), "").unwrap();
        }
        for (header, voxels) in [("a.v2.hdr", "a.v2.img"), ("b.hdr", "b.img.gz"), ("C.HDR", "C.IMG")] {
            assert_eq!(voxels_of(&at(header)).unwrap(), at(voxels));
            assert_eq!(header_of(&at(voxels)).unwrap(), at(header));
            assert_eq!(header_of(&at(header)).unwrap(), at(header));
        }
        let text = voxels_of(&at("alone.hdr")).unwrap_err().to_string();
        assert!(text.contains("alone.img beside it"), "{text}");
        assert!(voxels_of(&at("a.nii")).unwrap_err().to_string().contains("the header of a pair"));
    }
}
