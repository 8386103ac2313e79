//! `timeball clients`: the networks that ask most, of a server that counts them.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::control::{Show, finish, show};
use super::keys::in_words;
use crate::process::busiest::{BusiestStatus, BusyNetwork};
use crate::process::control::Request;

pub(super) fn clients(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::Clients, print_clients))
}

fn print_clients(status: &BusiestStatus, out: &mut dyn Write) -> io::Result<()> {
    let BusiestStatus { seconds, requests, networks } = status;
    let time = in_words(Duration::from_secs_f64(*seconds));
    writeln!(out, "{requests} requests in {time}; the source of a request can be forged\n")?;
    writeln!(
        out,
        "{:<24} {:>12} {:>10} {:>7}  too many by at most",
        "network", "requests", "a second", "share"
    )?;
    for BusyNetwork { network, requests: own, excess } in networks {
        // In the first second nothing is a rate yet.
        let rate = *own as f64 / seconds.max(1.0);
        let share = 100.0 * *own as f64 / (*requests).max(1) as f64;
        // As text, since a network has no width of its own.
        let network = network.to_string();
        writeln!(out, "{network:<24} {own:>12} {rate:>10.1} {share:>5.1} %  {excess}")?;
    }
    Ok(())
}
