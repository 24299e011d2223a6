//! What can go wrong because of the input or the machine, always as one line that names the remedy.
//! A bug of ours panics instead.

use std::path::{Path, PathBuf};

/// A fault that the user can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something was read and is not what it has to be.
    #[error("{at}: expected {expected}, found {found}; {remedy}")]
    Invalid { at: String, expected: String, found: String, remedy: String },
    /// The file system refused.
    #[error("{}: cannot {action}: {source}; {}", path.display(), remedy(source))]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    /// SIGINT or SIGTERM arrived and all work up to here is on disk (exit code 75).
    #[error("stopped on request; everything up to {saved} is saved, run the same command again to go on")]
    Stopped { saved: String },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `at` names the file, key or flag; the other three complete "expected …, found …; …".
    pub fn invalid(
        at: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Invalid { at: at.into(), expected: expected.into(), found: found.into(), remedy: remedy.into() }
    }

    /// The same for something wrong with a file.
    pub fn file(path: &Path, expected: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::invalid(path.display().to_string(), expected, found, remedy)
    }

    /// For `map_err`: `fs::read(path).map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// The same fault of a key, with the place where the key stands.
    pub fn placed(self, place: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Invalid { at, expected, found, remedy } => Self::Invalid { at: place(&at), expected, found, remedy },
            other => other,
        }
    }

    /// The same fault of a file that came out of an archive: named by the archive, since the folder is gone when it is read.
    pub fn unpacked(self, folder: &Path, archive: &Path) -> Self {
        let [folder_text, archive_text] = [folder, archive].map(|path| path.display().to_string());
        let named = |text: String| text.replace(&folder_text, &archive_text);
        match self {
            Self::Invalid { at, expected, found, remedy } => {
                Self::Invalid { at: named(at), expected: named(expected), found: named(found), remedy }
            }
            Self::Io { path, action, source } => {
                let path = path.strip_prefix(folder).map_or(path.clone(), |below| archive.join(below));
                Self::Io { path, action, source }
            }
            other => other,
        }
    }

    /// The exit code that goes with the fault.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped { .. } => 75,
            _ => 1,
        }
    }
}

fn remedy(fault: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match fault.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "check the permissions or choose another place",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room or choose another place",
        ErrorKind::FileTooLarge => "raise the limit on the size of files (ulimit -f) or choose another place",
        ErrorKind::AlreadyExists => "something of that name is there already: choose another",
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => "name a file where a file is meant",
        ErrorKind::InvalidData => "it is damaged or of another kind: check what it holds",
        _ => "check the path and the disk, and try again",
    }
}
