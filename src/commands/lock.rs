//! One writer a folder: the kernel lets go of the lock however the process ends, so none is ever left behind.

use crate::commands::progress::warn;
use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

/// Its name in the folder; the file stays, and holds the number of the process that locked it last.
const FILE: &str = ".lock";

/// Held until it is dropped.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `folder`, which exists; `instead` says what to do while somebody else works there.
    ///
    /// # Errors
    /// Another process works there; the folder cannot be written to.
    pub fn hold(folder: &Path, instead: &str) -> Result<Self> {
        let path = folder.join(FILE);
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                let process = std::process::id().to_string();
                let written = file.set_len(0).and_then(|()| file.write_all(process.as_bytes()));
                written.map_err(Error::io("write", &path))?;
            }
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let found = match file.read_to_string(&mut process) {
                    Ok(1..) => format!("process {process}"),
                    _ => "another process".to_owned(),
                };
                return Err(Error::file(folder, "nobody else at work there", found, format!("choose {instead}")));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(fault)) => warn(&format!("{}: cannot be locked: {fault}", path.display())),
        }
        Ok(Self { _file: file })
    }

    /// Locks `folder` as soon as nobody else does.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn wait(folder: &Path) -> Result<Self> {
        let file = open(&folder.join(FILE))?;
        let _ = file.lock(); // without locks, as well as can be
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(Error::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time_who_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::hold(folder.path(), "another --run").unwrap();
        let refused = Lock::hold(folder.path(), "another --run").err().expect("refused").to_string();
        let found = format!("found process {}; choose another --run", std::process::id());
        assert!(refused.contains(&found) && !refused.contains('\n'), "{refused}");
        drop(held);
        Lock::hold(folder.path(), "").unwrap();
    }
}
