//! `timeball config`: check a configuration file, or print one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_USAGE, fail};
use crate::config::file;
use crate::config::keys::sample_file;

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
    }
}
