//! Reading a configuration file.

use std::path::Path;

use super::checked::{self, Settings};
use super::raw::ConfigError;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {file}: {source}; `timeball config example > {file}` makes one")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{file}: {source}")]
    Wrong {
        /// The file.
        file: String,
        /// What, and in which line.
        source: ConfigError,
    },
}

/// Reads and checks a configuration file.
///
/// # Errors
/// [`FileError`].
pub fn read(file: &Path) -> Result<Settings, FileError> {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Err(source) => Err(FileError::Read { file: name, source }),
        Ok(text) => checked::parse(&text).map_err(|source| FileError::Wrong { file: name, source }),
    }
}
