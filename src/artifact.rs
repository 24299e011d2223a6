//! Atomic writes: a file is written beside its target, synced and renamed, so that the target is complete or absent.

use crate::error::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the names of unfinished files begin and end with.
const UNFINISHED: [&str; 2] = [".ssl3d-", ".part"];

/// Writes `path` through `fill`. If anything fails, the file that was at `path` before stays as it was.
///
/// # Errors
/// The folder is missing or read-only, the disk is full, or `fill` failed.
pub fn write<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn Write) -> std::io::Result<()>,
{
    replace(path, None, fill)
}

/// Writes `bytes` to `path` atomically.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |out| out.write_all(bytes))
}

/// Writes `bytes` to `path` atomically and moves the file that was there to `previous`. At every moment at least one of
/// the two is complete.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes_keeping(path: &Path, previous: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, Some(previous), |out| out.write_all(bytes))
}

fn replace<F>(path: &Path, previous: Option<&Path>, fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn Write) -> std::io::Result<()>,
{
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let io = |action| Error::io(action, path);
    let mut beside = tempfile::Builder::new()
        .prefix(UNFINISHED[0])
        .suffix(UNFINISHED[1])
        .tempfile_in(folder)
        .map_err(io("create a file beside"))?;
    let _under_way = UnderWay::new(beside.path());
    {
        let mut writer = BufWriter::with_capacity(1 << 20, beside.as_file_mut());
        fill(&mut writer).map_err(io("write"))?;
        writer.flush().map_err(io("write"))?;
    }
    set_ordinary_permissions(beside.as_file()).map_err(io("set the permissions of"))?;
    beside.as_file().sync_all().map_err(io("sync"))?;
    if let Some(previous) = previous.filter(|_| path.exists()) {
        std::fs::rename(path, previous).map_err(io("move aside the older"))?;
    }
    beside.persist(path).map_err(|e| io("rename the finished file to")(e.error))?;
    if let Ok(folder) = std::fs::File::open(folder) {
        let _ = folder.sync_all(); // the rename itself; not every file system offers it
    }
    Ok(())
}

/// The files that are being written.
static UNDER_WAY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

struct UnderWay(PathBuf);

impl UnderWay {
    fn new(path: &Path) -> Self {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

/// Removes the files that are being written, for a process that has to end at once.
pub fn abandon() {
    // A thread that is in between does not go on either: then the file stays.
    let Ok(files) = UNDER_WAY.try_lock() else { return };
    for path in files.iter() {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes the unfinished files that killed processes have left in `folder`. No other process may write there
/// meanwhile.
pub fn clear_unfinished(folder: &Path) {
    let [prefix, suffix] = UNFINISHED;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix)) {
            let _ = std::fs::remove_file(entry.path()); // it harms nobody where it is
        }
    }
}

/// What is there is overwritten with `force` alone, and a folder not even so; `what` names it: "result", "dataset".
///
/// # Errors
/// One of the paths exists.
pub fn refuse_existing<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, what: &str, force: bool) -> Result<()> {
    if force {
        return refuse_folders(paths);
    }
    let mut paths = paths.into_iter();
    match paths.find(|path| path.as_ref().exists()) {
        Some(path) => {
            let (expected, found) = (format!("no {what} yet"), "a file or folder that is there already");
            Err(Error::file(path.as_ref(), expected, found, "give another --out, or --force to overwrite it"))
        }
        None => Ok(()),
    }
}

/// A file cannot take the place of a folder; without this it is noticed when all work is done.
///
/// # Errors
/// One of the paths is a folder.
pub fn refuse_folders<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<()> {
    match paths.into_iter().find(|path| path.as_ref().is_dir()) {
        Some(path) => {
            let remedy = "remove it or give another --out";
            Err(Error::file(path.as_ref(), "a place for a file", "a folder of that name", remedy))
        }
        None => Ok(()),
    }
}

/// What a call reads is not overwritten, with --force neither. `written`: canonical paths of what will be.
///
/// # Errors
/// One of the files that are read is among them.
pub fn refuse_to_lose<P: AsRef<Path>>(read: impl IntoIterator<Item = P>, written: &[PathBuf]) -> Result<()> {
    let is_written = |path: &Path| path.canonicalize().is_ok_and(|path| written.contains(&path));
    match read.into_iter().find(|path| !written.is_empty() && is_written(path.as_ref())) {
        Some(path) => {
            let found = "a file that this call reads";
            Err(Error::file(
                path.as_ref(),
                "no result in the place of an input",
                found,
                "give another --out or, with segment, another --report",
            ))
        }
        None => Ok(()),
    }
}

/// Creates `folder` and its parents.
///
/// # Errors
/// The file system refuses.
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

    #[test]
    fn the_previous_file_is_kept_and_what_killed_writers_left_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let [path, previous] = ["a", "b"].map(|name| folder.path().join(name));
        for bytes in [b"1", b"2", b"3"] {
            write_bytes_keeping(&path, &previous, bytes).unwrap();
        }
        std::fs::write(folder.path().join(".ssl3d-xyz.part"), b"half").unwrap();
        clear_unfinished(folder.path());
        assert_eq!([&path, &previous].map(|path| std::fs::read(path).unwrap()), [b"3", b"2"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_there_needs_force_and_what_is_read_is_not_overwritten_even_so() {
        let folder = tempfile::tempdir().unwrap();
        let [there, absent] = ["there", "absent"].map(|name| folder.path().join(name));
        write_bytes(&there, b"1").unwrap();
        refuse_existing([&absent], "result", false).unwrap();
        refuse_existing([&absent, &there], "result", true).unwrap();
        let fault = refuse_existing([folder.path()], "result", true).unwrap_err().to_string();
        assert!(fault.contains("expected a place for a file, found a folder"), "{fault}");
        let fault = refuse_existing([&absent, &there], "result", false).unwrap_err().to_string();
        assert!(fault.contains("there: expected no result yet") && fault.contains("--force"), "{fault}");

        let written = [there.canonicalize().unwrap()];
        refuse_to_lose([&absent], &written).unwrap();
        refuse_to_lose([&there], &[]).unwrap();
        let roundabout = folder.path().join(".").join("there");
        let fault = refuse_to_lose([&absent, &roundabout], &written).unwrap_err().to_string();
        assert!(fault.contains("there: expected no result in the place of an input"), "{fault}");
    }
}
