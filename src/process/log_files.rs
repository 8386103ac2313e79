//! The files of the logs: opened by the supervisor, which may write in their directory, and handed
//! to the clock role, which may not open any. Opened anew at each reload, for programs that rotate
//! logs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::clock::log::LogKind;
use crate::config::log::LogSettings;

/// Where the files are, and which.
#[derive(Clone, Debug)]
pub struct LogFiles(LogSettings);

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write the log {}: {source}; `install -d -o USER {}` makes its directory for the user \
     that runs timeball", path.display(), directory.display()
)]
pub struct LogError {
    path: PathBuf,
    directory: PathBuf,
    source: io::Error,
}

impl LogFiles {
    /// Makes the directory and all files, if they are not there; `None` if nothing is logged.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn make(settings: &LogSettings) -> Result<Option<Self>, LogError> {
        if settings.kinds.is_empty() {
            return Ok(None);
        }
        let files = Self(settings.clone());
        // If it cannot be made, the first file says so.
        let _ = fs::create_dir_all(&settings.directory);
        for kind in &settings.kinds {
            files.open(*kind)?;
        }
        Ok(Some(files))
    }

    /// Their directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Opens all files; one that cannot be opened is a warning, and is not written.
    pub(super) fn open_all(&self) -> Vec<(LogKind, OwnedFd)> {
        let open = |kind: &LogKind| match self.open(*kind) {
            Ok(file) => Some((*kind, file.into())),
            Err(error) => {
                eprintln!("timeball: warning: {error}");
                None
            }
        };
        self.0.kinds.iter().filter_map(open).collect()
    }

    fn open(&self, kind: LogKind) -> Result<File, LogError> {
        let path = self.0.directory.join(kind.file_name());
        let directory = self.0.directory.clone();
        // A pipe or a device could make its writer wait for ever.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(flags)
            .open(&path)
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other("it is no regular file")),
            })
            .map_err(|source| LogError { path, directory, source })
    }
}
