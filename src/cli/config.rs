//! `timeball config`: check a configuration file, print one, or make one from another server's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::config::import::directives::{self, ReadError};
use crate::config::import::{Fate, Import, chrony, ntpd_rs};
use crate::config::raw::ConfigError;
use crate::config::sample::sample_file;
use crate::config::{checked, file};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a configuration file is good, and if not, which line is wrong
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a configuration file with every key, its meaning and its default
    Example,
    /// Print a configuration file made from that of chrony or ntpd-rs
    ///
    /// Its comments name every directive that was kept, changed or ignored, and why, and those that
    /// timeball has nothing for. Exit code 0: all is taken over; 1: a file is printed, but
    /// directives are missing, which standard error names; 2: the file cannot be used.
    Import {
        /// chrony.conf, with what it includes, or ntp.toml
        file: PathBuf,
        /// Whose file it is; by default ntpd-rs' if its name ends in .toml
        #[arg(long, value_name = "PROGRAM")]
        from: Option<Origin>,
    },
}

/// Programs whose configuration can be taken over.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Origin {
    Chrony,
    NtpdRs,
}

/// Why a configuration could not be taken over.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}: {source}", path.display())]
    NoToml { path: PathBuf, source: ConfigError },
}

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Example => {
            print!("{}", sample_file());
            ExitCode::SUCCESS
        }
        ConfigCommand::Check { file } => match file::read(file) {
            Ok(settings) => {
                if let Err(error) = settings.access.read() {
                    return fail(EXIT_USAGE, error);
                }
                println!("{}: good", file.display());
                if settings.ke.is_none() {
                    println!("no certificate is given: plain NTP only, no NTS");
                }
                ExitCode::SUCCESS
            }
            Err(error) => fail(EXIT_USAGE, error),
        },
        ConfigCommand::Import { file, from } => match import(file, *from) {
            Ok(import) => print_import(file, &import),
            Err(error) => fail(EXIT_USAGE, error),
        },
    }
}

fn import(path: &Path, from: Option<Origin>) -> Result<Import, ImportError> {
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    match from.unwrap_or(if is_toml { Origin::NtpdRs } else { Origin::Chrony }) {
        Origin::Chrony => Ok(chrony::import(&directives::read(path)?)),
        Origin::NtpdRs => {
            let path = path.to_owned();
            let text = std::fs::read_to_string(&path)
                .map_err(|source| ReadError::Io { path: path.clone(), source })?;
            let file = path.display().to_string();
            ntpd_rs::import(&text, &file).map_err(|source| ImportError::NoToml { path, source })
        }
    }
}

fn print_import(path: &Path, import: &Import) -> ExitCode {
    let text = import.text(&path.display().to_string());
    print!("{text}");
    let counts = Fate::ALL.map(|fate| format!("{} {fate}", import.count(fate)));
    eprintln!("timeball: {}: {}", path.display(), counts.join(", "));
    let missing = import.findings().iter().filter(|finding| finding.fate == Fate::Missing);
    for finding in missing {
        eprintln!("timeball: {}: {}: {}", finding.place, finding.directive, finding.why);
    }
    if let Err(error) = checked::parse(&text) {
        return fail(EXIT_FAILURE, format_args!("correct what was printed: {error}"));
    }
    match import.count(Fate::Missing) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILURE),
    }
}
