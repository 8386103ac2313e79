//! `timeball config`: check a configuration file, or print one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_USAGE, fail};
use crate::config::checked::{self, Settings};
use crate::config::keys::sample_file;
use crate::config::raw::ConfigError;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a configuration file is good, and if not, which line is wrong
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a configuration file with every key, its meaning and its default
    Example,
}

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Example => {
            print!("{}", sample_file());
            ExitCode::SUCCESS
        }
        ConfigCommand::Check { file } => match read(file) {
            Ok(settings) => {
                println!("{}: good", file.display());
                if settings.ke.is_none() {
                    println!("no certificate is given: plain NTP only, no NTS");
                }
                ExitCode::SUCCESS
            }
            Err(error) => fail(EXIT_USAGE, error),
        },
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read {file}: {source}; `timeball config example > {file}` makes one")]
    Read { file: String, source: std::io::Error },
    #[error("{file}: {source}")]
    Wrong { file: String, source: ConfigError },
}

/// Reads and checks a configuration file.
pub(super) fn read(file: &Path) -> Result<Settings, FileError> {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Err(source) => Err(FileError::Read { file: name, source }),
        Ok(text) => checked::parse(&text).map_err(|source| FileError::Wrong { file: name, source }),
    }
}
