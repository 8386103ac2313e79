//! The command line, one file per subcommand.

mod authdata;
mod banner;
pub mod cert;
mod check;
mod clients;
mod clock;
mod config;
mod control;
mod doctor;
pub mod generate;
mod keys;
pub mod manual;
mod place;
mod query;
mod remote;
mod serve;
mod state;
mod top;
mod tune;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::state::State;
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
#[command(name = "timeball", version, max_term_width = 100, after_help = AFTER_HELP,
          help_template = HELP_TEMPLATE)]
struct Arguments<C: Subcommand> {
    #[command(subcommand)]
    command: Option<C>,
}

/// One screen of a terminal: the options, `--help` and `--version`, go without saying.
const HELP_TEMPLATE: &str = "{about}\n{usage-heading} {usage}\n\n{subcommands}{after-help}";

const AFTER_HELP: &str = "\
Start here: `timeball serve` needs no root and no files; it prints what to try next.
Exit codes: 0 fine, 1 failed, 2 wrong usage or configuration; `check` and `doctor` have others.";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Shown(Box<Shown>),
    #[command(flatten)]
    Hidden(Hidden),
}

/// What is for users, and is in manual pages and completions.
#[derive(Debug, Subcommand)]
enum Shown {
    /// Serve time; without a configuration on unprivileged ports of this host
    Serve(serve::ServeArguments),
    /// Ask a server for authenticated time, as an NTS client; never touches the clock
    Query(query::QueryArguments),
    /// Show what NTS clients get of the servers that are named, in chronyc's columns
    ///
    /// Each server is asked as by a client that has just begun: one key establishment, then for the
    /// time. Last is the time since the key establishment, Atmp its failed attempts, NAK the
    /// requests whose cookie was refused, Cook the cookies that are left, CLen their length in
    /// bytes; KLen is in bits. What failed has a line of its own. A running timeball is nobody's
    /// NTS client: whom it asks for the time, `timeball sources` shows.
    Authdata(authdata::AuthdataArguments),
    /// Check a server for a monitoring system: exit code, performance data, Prometheus
    Check(Box<check::CheckArguments>),
    /// Look for what keeps a server on this host from its work, and say what helps
    Doctor(doctor::DoctorArguments),
    /// Set this host as a server needs it; writes a script that undoes it
    Tune(tune::TuneArguments),
    /// Show what a running server does, and how it fares
    Status(control::Show),
    /// Show a running server live in the terminal
    Top(top::TopArguments),
    /// Show everything that a running server has counted
    Serverstats(control::Show),
    /// Show what a running server tells of its clock, and from whom it has that
    Tracking(control::Show),
    /// Show whom a running server asks for the time, and how they answer
    Sources(control::Show),
    /// Show the NTP replies of the time daemon that a running server follows
    Ntpdata(control::Show),
    /// Show the networks that ask a running server most, where it counts them
    Clients(control::Show),
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
}

/// What other programs run.
#[derive(Debug, Subcommand)]
enum Hidden {
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
    let arguments = match Arguments::<Command>::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return wrong_usage(&error),
    };
    let Some(command) = arguments.command else {
        // Help that was not asked for is still what a newcomer needs; not an error.
        return match Arguments::<Shown>::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILURE, error),
        };
    };
    match command {
        Command::Shown(command) => run_shown(*command),
        Command::Hidden(Hidden::Generate(arguments)) => {
            generate::run(&arguments, Arguments::<Shown>::command())
        }
        Command::Hidden(Hidden::Role { role }) => run_role(role),
    }
}

fn run_shown(command: Shown) -> ExitCode {
    match command {
        Shown::Serve(arguments) => serve::run(&arguments),
        Shown::Query(arguments) => query::run(&arguments),
        Shown::Authdata(arguments) => authdata::run(&arguments),
        Shown::Check(arguments) => check::run(&arguments),
        Shown::Doctor(arguments) => doctor::run(&arguments),
        Shown::Tune(arguments) => tune::run(&arguments),
        Shown::Status(arguments) => control::status(&arguments),
        Shown::Top(arguments) => top::run(&arguments),
        Shown::Serverstats(arguments) => control::serverstats(&arguments),
        Shown::Tracking(arguments) => clock::tracking(&arguments),
        Shown::Sources(arguments) => clock::sources(&arguments),
        Shown::Ntpdata(arguments) => clock::ntpdata(&arguments),
        Shown::Clients(arguments) => clients::clients(&arguments),
        Shown::Reload(place) => control::reload(&place),
        Shown::Cert(arguments) => match cert::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILURE, error),
        },
        Shown::Keys(command) => keys::run(&command),
        Shown::Config(command) => config::run(&command),
    }
}

/// Prints clap's message: help, the version, or what is wrong. To a monitoring system 2 is a server
/// that is down, so there wrong usage is "unknown".
fn wrong_usage(error: &clap::Error) -> ExitCode {
    // A closed terminal has nobody to tell.
    let _ = error.print();
    let is_monitoring =
        std::env::args_os().nth(1).is_some_and(|command| command == "check" || command == "doctor");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_monitoring => State::Unknown.exit_code(),
        _ => ExitCode::from(EXIT_USAGE),
    }
}

/// Says why a command failed, in one line, and returns its exit code.
fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("timeball: {error}");
    ExitCode::from(code)
}
