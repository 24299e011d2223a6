//! Errors: a fault of the input or the machine is an [`Error`], one line that names the remedy. A bug of this crate
//! panics instead.

use std::path::{Path, PathBuf};

/// A fault that the user can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, key or flag has a value or content that is not valid.
    #[error("{at}: expected {expected}, found {found}; {remedy}")]
    Invalid {
        /// The file, key or flag at fault.
        at: String,
        /// The value or content that is valid there.
        expected: String,
        /// The value or content that is there.
        found: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// An operation of the file system failed.
    #[error("{}: cannot {action}: {source}; {}", path.display(), remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The failed operation as an infinitive: "read", "list", "create the folder".
        action: &'static str,
        /// The error of the standard library.
        source: std::io::Error,
    },
    /// A flag has a value that does not fit: the program is used wrongly (exit code 2).
    #[error(transparent)]
    Use(Box<Error>),
    /// SIGINT or SIGTERM arrived and all work up to here is on disk (exit code 75).
    #[error("stopped on request; everything up to {saved} is saved, run the same command again to go on")]
    Stopped {
        /// How far the saved work reaches, for instance "step 120 of 400".
        saved: String,
    },
}

/// A result whose error is [`Error`] unless another type is given.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Invalid`].
    ///
    /// `at` names the file, key or flag; the other three complete "expected …, found …; …".
    ///
    /// ```
    /// let error = ssl3d::error::Error::invalid("loss.dice_weight", "a weight from 0 to 1000", "-1", "change this key");
    /// assert_eq!(error.to_string(), "loss.dice_weight: expected a weight from 0 to 1000, found -1; change this key");
    /// assert_eq!(error.exit_code(), 1);
    /// ```
    pub fn invalid(
        at: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Invalid { at: at.into(), expected: expected.into(), found: found.into(), remedy: remedy.into() }
    }

    /// An [`Error::Invalid`] about the content of the file at `path`.
    pub fn file(path: &Path, expected: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::invalid(path.display().to_string(), expected, found, remedy)
    }

    /// An [`Error::Use`] about a flag; the other three as for [`Error::invalid`].
    ///
    /// ```
    /// let error = ssl3d::error::Error::flag("--clip", "a percentage from 0 to below 50", "70", "0.5 is usual");
    /// assert_eq!(error.to_string(), "--clip: expected a percentage from 0 to below 50, found 70; 0.5 is usual");
    /// assert_eq!(error.exit_code(), 2);
    /// ```
    pub fn flag(
        at: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::invalid(at, expected, found, remedy).wrong_use()
    }

    /// The same error as the fault of a flag.
    pub fn wrong_use(self) -> Self {
        match self {
            Self::Use(_) => self,
            other => Self::Use(Box::new(other)),
        }
    }

    /// A constructor of [`Error::Io`] for `map_err`: `fs::read(path).map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// The same error with `at` replaced by `place(at)`; errors other than [`Error::Invalid`] stay as they are.
    pub fn placed(self, place: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Invalid { at, expected, found, remedy } => Self::Invalid { at: place(&at), expected, found, remedy },
            Self::Use(fault) => fault.placed(place).wrong_use(),
            other => other,
        }
    }

    /// The same error with the path of `folder` replaced by that of `archive`, from which the folder was unpacked: the
    /// temporary folder no longer exists when the user reads the message.
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
            Self::Use(fault) => fault.unpacked(folder, archive).wrong_use(),
            other => other,
        }
    }

    /// The exit code of the process: 75 for [`Error::Stopped`], 2 for [`Error::Use`], 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped { .. } => 75,
            Self::Use(_) => 2,
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
