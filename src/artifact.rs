//! Files that are whole or absent: written beside the target, synced, renamed.

use crate::error::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `path` through `fill`; on any failure what was at `path` before is untouched.
///
/// # Errors
/// The folder is missing or read-only, the disk is full, or `fill` failed.
pub fn write<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn Write) -> std::io::Result<()>,
{
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let io = |action| Error::io(action, path);
    let mut beside = tempfile::Builder::new()
        .prefix(".ssl3d-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(io("create a file beside"))?;
    {
        let mut writer = BufWriter::with_capacity(1 << 20, beside.as_file_mut());
        fill(&mut writer).map_err(io("write"))?;
        writer.flush().map_err(io("write"))?;
    }
    set_ordinary_permissions(beside.as_file()).map_err(io("set the permissions of"))?;
    beside.as_file().sync_all().map_err(io("sync"))?;
    beside.persist(path).map_err(|e| io("rename the finished file to")(e.error))?;
    if let Ok(folder) = std::fs::File::open(folder) {
        let _ = folder.sync_all(); // the rename itself; not every file system offers it
    }
    Ok(())
}

/// Writes `bytes` to `path`, whole or not at all.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |out| out.write_all(bytes))
}

/// Creates `folder` and its parents.
pub fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))
}

/// Temporary files are private; a result is as readable as any file that the user makes.
#[cfg(unix)]
fn set_ordinary_permissions(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_ordinary_permissions(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_bytes(&path, b"old").unwrap();
        let failed = write(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("interrupted"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
