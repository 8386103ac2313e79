//! The command line, one file per subcommand.

mod banner;
pub mod cert;
mod clock;
mod config;
mod control;
pub mod generate;
mod keys;
pub mod manual;
mod place;
mod query;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::process::role::Role;
use crate::process::run_role;

/// Exit code: done.
pub const EXIT_FINE: u8 = 0;
/// Exit code: it could not be done, or the answer is no.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: the command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 2;

/// A time server: NTP and NTS (RFC 8915) at the rate of the hardware.
#[derive(Debug, Parser)]
#[command(name = "timeball", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Start here: `timeball serve` needs no root and no files; it prints what to try next.
Exit codes: 0 fine, 1 failed or answered no, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve time; without a configuration on unprivileged ports of this host
    Serve(serve::ServeArguments),
    /// Ask a server for authenticated time, as an NTS client; never touches the clock
    Query(query::QueryArguments),
    /// Show what a running server does, and how it fares
    Status(control::Show),
    /// Show everything that a running server has counted
    Serverstats(control::Show),
    /// Show what a running server tells of its clock, and from whom it has that
    Tracking(control::Show),
    /// Show whom a running server asks for the time, and how they answer
    Sources(control::Show),
    /// Show the NTP replies of the time daemon that a running server follows
    Ntpdata(control::Show),
    /// Let a running server read its configuration, certificates and keys again
    Reload(place::Place),
    /// Make or show certificates
    Cert(cert::CertArgs),
    /// Show, rotate, import or export the master keys of cookies
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Check a configuration file, or print one with every key
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write manual pages and shell completions; packaging/build does this
    #[command(hide = true)]
    Generate(generate::GenerateArguments),
    /// Run one role; the supervisor does this
    #[command(hide = true)]
    Role {
        /// Which one
        role: Role,
    },
}

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(command) = arguments.command else {
        // Help that was not asked for is still what a newcomer needs; not an error.
        return match Arguments::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILURE, error),
        };
    };
    match command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Query(arguments) => query::run(&arguments),
        Command::Status(arguments) => control::status(&arguments),
        Command::Serverstats(arguments) => control::serverstats(&arguments),
        Command::Tracking(arguments) => clock::tracking(&arguments),
        Command::Sources(arguments) => clock::sources(&arguments),
        Command::Ntpdata(arguments) => clock::ntpdata(&arguments),
        Command::Reload(place) => control::reload(&place),
        Command::Cert(arguments) => match cert::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILURE, error),
        },
        Command::Keys(command) => keys::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Generate(arguments) => generate::run(&arguments, Arguments::command()),
        Command::Role { role } => run_role(role),
    }
}

/// Says why a command failed, in one line, and returns its exit code.
fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("timeball: {error}");
    ExitCode::from(code)
}
