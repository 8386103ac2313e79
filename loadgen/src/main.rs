//! timeball-load: the load generator. It has no load yet; this is the crate that it grows in.

use clap::{CommandFactory as _, Parser};

/// Load generator for NTP, NTS and NTS-KE servers.
#[derive(Debug, Parser)]
#[command(name = "timeball-load", version, after_help = AFTER_HELP)]
struct Arguments {}

const AFTER_HELP: &str = "\
There is no subcommand yet: this release has the server only. `timeball query` asks a server as one
client does.";

fn main() -> std::process::ExitCode {
    let Arguments {} = Arguments::parse();
    match Arguments::command().print_help() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(_) => std::process::ExitCode::FAILURE,
    }
}
