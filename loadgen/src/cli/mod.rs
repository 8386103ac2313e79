//! The command line, one file per subcommand.

mod arguments;
mod clients;
mod ke;
mod load;
mod mix;
mod report;
mod search;
mod target;
mod units;
mod watch;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory as _, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use timeball::cli::generate::{GenerateArguments, generate};
use timeball::cli::manual::Program;

/// Exit code: done, and the figures are about the server.
pub const EXIT_FINE: u8 = 0;
/// Exit code: it could not be done.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: the command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: done, but the figures are not about the server.
pub const EXIT_INVALID: u8 = 3;

/// Load generator for NTP, NTS and NTS-KE servers.
#[derive(Debug, Parser)]
#[command(
    name = "timeball-load",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
struct Arguments<C: Subcommand> {
    #[command(subcommand)]
    command: C,
}

const AFTER_HELP: &str = "\
Ask only servers that are yours to ask. Ctrl-C ends a run with the results so far.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 done, but the generator was the limit.";

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Shown(Box<Shown>),
    /// Write manual pages and shell completions; packaging/build does this
    #[command(hide = true)]
    Generate(GenerateArguments),
}

/// What is for users, and is in manual pages and completions.
#[derive(Debug, Subcommand)]
enum Shown {
    /// Offer NTP requests at a rate, whatever the server does
    Ntp(arguments::NtpArguments),
    /// Offer authenticated requests: keys and cookies by NTS-KE, minted, or from a file
    Nts(arguments::NtsArguments),
    /// Do full NTS-KE exchanges at a rate
    Ke(ke::KeArguments),
    /// Offer several kinds of requests at once, hostile ones among them
    Mix(mix::MixArguments),
    /// Search the highest rate that a server keeps, then its latency and overload curve
    Search(search::SearchArguments),
    /// Merge or compare results, as text or as one HTML file
    Report(report::ReportArguments),
}

/// What the manual pages say beside the options.
pub const PROGRAM: Program = Program {
    exit_status: &[
        ("0", "Done, and the figures are about the server."),
        ("1", "It could not be done."),
        ("2", "The command line is wrong."),
        ("3", "Done, but the generator was the limit: the figures are not about the server."),
    ],
    files: &[],
    see_also: &["timeball-load(1)", "timeball(1)"],
};

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::<Shown>::command()
}

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::<Command>::parse();
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => return fail(EXIT_FAILURE, format_args!("cannot catch Ctrl-C: {error}")),
    };
    let result = match arguments.command {
        Command::Shown(shown) => obey(&shown, &stop),
        Command::Generate(arguments) => generate(&arguments, command(), &PROGRAM)
            .map(|()| EXIT_FINE)
            .map_err(CommandError::from),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(error.code, error.message),
    }
}

fn obey(command: &Shown, stop: &AtomicBool) -> Result<u8, CommandError> {
    match command {
        Shown::Ntp(arguments) => load::ntp(arguments, stop),
        Shown::Nts(arguments) => load::nts(arguments, stop),
        Shown::Ke(arguments) => ke::run(arguments, stop),
        Shown::Mix(arguments) => mix::run(arguments, stop),
        Shown::Search(arguments) => search::run(arguments, stop),
        Shown::Report(arguments) => report::run(arguments),
    }
}

/// Why a command failed: one sentence, and its exit code.
#[derive(Debug)]
struct CommandError {
    code: u8,
    message: String,
}

impl CommandError {
    fn usage(message: impl std::fmt::Display) -> Self {
        Self { code: EXIT_USAGE, message: message.to_string() }
    }
}

/// Whatever went wrong on the way; what the command line does wrong says so itself.
impl<E: std::error::Error> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self { code: EXIT_FAILURE, message: error.to_string() }
    }
}

fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second Ctrl-C ends the program as if the first had not been caught.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("timeball-load: {error}");
    ExitCode::from(code)
}
