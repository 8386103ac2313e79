//! `timeball status`, `serverstats` and `reload`: what a running server is asked down its control
//! socket.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::clock::{at_a_glance, leap_file_in_words, smear_in_words};
use super::keys::in_words;
use super::place::{Place, PlaceError};
use super::{EXIT_FAILURE, fail};
use crate::process::control::{AskError, Request, ask};
use crate::process::status::{
    CertificateStatus, KeysStatus, ProcessStatus, Reloaded, ServerStats, Status,
};

/// A running server, and how it is shown.
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Certificates that `status` shows: as many as leave it on one screen.
const STATUS_CERTIFICATES: usize = 3;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the result could not be printed: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn status(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::Status, print_status))
}

pub(super) fn serverstats(arguments: &Show) -> ExitCode {
    finish(show(arguments, Request::Serverstats, print_serverstats))
}

pub(super) fn reload(place: &Place) -> ExitCode {
    finish(ask_and_print(place, Request::Reload, print_reloaded))
}

pub(super) fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Place(error)) => fail(error.exit_code(), error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

pub(super) fn show<T: DeserializeOwned + Serialize>(
    Show { place, json }: &Show,
    request: Request,
    print: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    if *json {
        ask_and_print(place, request, |answer: &T, out| {
            writeln!(out, "{}", serde_json::to_string_pretty(answer)?)
        })
    } else {
        ask_and_print(place, request, print)
    }
}

fn ask_and_print<T: DeserializeOwned>(
    place: &Place,
    request: Request,
    print: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let answer = ask(&place.find()?.control_socket, request)?;
    Ok(print(&answer, &mut io::stdout().lock())?)
}

fn print_reloaded(reloaded: &Reloaded, out: &mut dyn Write) -> io::Result<()> {
    for change in &reloaded.holds {
        writeln!(out, "reloaded: {change}")?;
    }
    for key in &reloaded.restart_needed {
        writeln!(out, "needs a restart: {key}")?;
    }
    if *reloaded == Reloaded::default() {
        writeln!(out, "everything was read again; nothing has changed")?;
    }
    Ok(())
}

fn print_serverstats(stats: &ServerStats, out: &mut dyn Write) -> io::Result<()> {
    // As chronyc prints them, for whatever reads them there.
    writeln!(out, "NTP packets received       : {}", stats.ntp_packets_received)?;
    writeln!(out, "NTP packets dropped        : {}", stats.ntp_packets_dropped)?;
    writeln!(out, "NTS-KE connections accepted: {}", stats.nts_ke_connections_accepted)?;
    writeln!(out, "Authenticated NTP packets  : {}", stats.authenticated_ntp_packets)?;
    writeln!(out, "Interleaved NTP packets    : {}", stats.interleaved_ntp_packets)?;
    let sections = [
        ("Datagrams of NTP", &stats.responder),
        ("Connections of NTS-KE", &stats.key_establishment),
    ];
    for (title, totals) in sections.into_iter().filter(|(_, totals)| !totals.is_empty()) {
        writeln!(out, "\n{title}")?;
        let width = totals.keys().map(String::len).max().unwrap_or_default();
        for (name, total) in totals {
            writeln!(out, "{name:<width$}: {total}")?;
        }
    }
    Ok(())
}

fn print_status(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |label: &str, text: String| writeln!(out, "{label:<18} {text}");
    let configuration = match &status.configuration {
        Some(path) => path.display().to_string(),
        None => "without a configuration".to_owned(),
    };
    let health = match status.health.ready {
        true => "ready".to_owned(),
        false => format!("not ready: {}", status.health.reasons.join("; ")),
    };
    line("health", health)?;
    let (release, up) = (&status.release, age(status.uptime_seconds));
    line("timeball", format!("{release}, up {up}, {configuration}"))?;
    line("reloads", format!("{}, refused {}", status.reloads, status.reloads_refused))?;
    for (role, state) in roles(&status.processes) {
        line(role, state)?;
    }
    let cpus: Vec<String> = status.worker_cpus.iter().map(usize::to_string).collect();
    line("workers", format!("{}, on processor {}", cpus.len(), cpus.join(", ")))?;
    line("NTP", format!("udp {}", list(&status.ntp_listen)))?;
    if !status.ke_listen.is_empty() {
        line("NTS-KE", format!("tcp {}", list(&status.ke_listen)))?;
    }
    line("clock", at_a_glance(&status.clock))?;
    if let Some(leap_file) = &status.clock.leap_file {
        line("leap file", leap_file_in_words(leap_file))?;
        if let Some(smear) = &leap_file.smear {
            line("leap smear", smear_in_words(smear))?;
        }
    }
    if let Some(logs) = status.clock.logs.as_ref().filter(|logs| logs.lines_lost > 0) {
        let why = if logs.why.is_empty() { "the disk is too slow" } else { &logs.why };
        line("logs", format!("{} lines lost ({why})", logs.lines_lost))?;
    }
    line("master keys", keys(&status.keys))?;
    for certificate in status.certificates.iter().take(STATUS_CERTIFICATES) {
        let CertificateStatus { file, names, warnings, .. } = certificate;
        line("certificate", format!("{}, until {}", file.display(), until(certificate)))?;
        line("", format!("for {}", names.join(", ")))?;
        for warning in warnings {
            line("", format!("warning: {warning}"))?;
        }
    }
    if let Some(rest @ 1..) = status.certificates.len().checked_sub(STATUS_CERTIFICATES) {
        line("", format!("and {rest} more; `--json` has them all"))?;
    }
    line("requests", requests(&status.serverstats))?;
    if !status.ke_listen.is_empty() {
        line("handshakes", handshakes(&status.serverstats))?;
    }
    Ok(())
}

/// A line for each role, and one for each process that does not serve.
fn roles(processes: &[ProcessStatus]) -> Vec<(&str, String)> {
    let mut lines = Vec::new();
    for group in processes.chunk_by(|one, other| one.role == other.role) {
        let (well, sick): (Vec<_>, Vec<_>) = group.iter().partition(|process| process.is_serving);
        let youngest = well.iter().map(|process| process.age_seconds).min();
        match (well.as_slice(), youngest) {
            ([one], _) => lines.push((one.role.as_str(), state(one))),
            ([first, ..], Some(youngest)) => {
                let restarts: u64 = well.iter().map(|process| process.restarts).sum();
                let (count, up) = (well.len(), age(youngest));
                let text = format!("{count} processes, up {up}, restarts {restarts}");
                lines.push((first.role.as_str(), text));
            }
            _ => {}
        }
        lines.extend(sick.iter().map(|process| (process.role.as_str(), state(process))));
    }
    lines
}

fn state(process: &ProcessStatus) -> String {
    let ProcessStatus { pid, is_serving, age_seconds, restarts, .. } = process;
    let state = match pid {
        Some(pid) if *is_serving => format!("process {pid}, up {}", age(*age_seconds)),
        Some(pid) => format!("process {pid} is starting"),
        None => "waits to be started again".to_owned(),
    };
    format!("{state}, restarts {restarts}")
}

pub(super) fn keys(keys: &KeysStatus) -> String {
    let current = &keys.current;
    match (keys.newest_age_seconds, keys.next_rotation_seconds) {
        (Some(newest), Some(next)) => {
            let (newest, next) = (age(newest), age(next));
            format!("{current} is current; newest {newest} old, next rotation in {next}")
        }
        _ => format!("{current} is current; another program rotates"),
    }
}

pub(super) fn until(certificate: &CertificateStatus) -> String {
    let until = OffsetDateTime::from_unix_timestamp(certificate.expires_unix).ok();
    until.and_then(|until| until.format(&Rfc3339).ok()).unwrap_or_default()
}

fn requests(stats: &ServerStats) -> String {
    let of = |name| of(&stats.responder, name);
    let (plain, nts, naks) = (of("answered_plain"), of("answered_nts"), of("nts_nak"));
    let dropped = stats.responder.iter().filter(|(name, _)| name.starts_with("dropped_"));
    let dropped: u64 = dropped.map(|(_, total)| total).sum();
    let kisses = of("kiss_rate") + of("kiss_rate_nts");
    let told = if kisses > 0 { format!(", told to ask less {kisses}") } else { String::new() };
    format!("NTP {plain}, NTS {nts}, refused (NTS NAK) {naks}, dropped {dropped}{told}")
}

fn handshakes(stats: &ServerStats) -> String {
    let of = |name| of(&stats.key_establishment, name);
    format!("{} brought cookies, of {} connections", of("served"), of("accepted"))
}

fn of(totals: &BTreeMap<String, u64>, name: &str) -> u64 {
    totals.get(name).copied().unwrap_or_default()
}

pub(super) fn age(seconds: u64) -> String {
    in_words(Duration::from_secs(seconds))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(role: &str, is_serving: bool) -> ProcessStatus {
        let (pid, role) = (is_serving.then_some(7), role.to_owned());
        ProcessStatus { role, pid, is_serving, age_seconds: 60, restarts: 1 }
    }

    #[test]
    fn processes_that_are_well_share_a_line() {
        let processes = [
            process("responder", true),
            process("key establishment", true),
            process("key establishment", false),
            process("key establishment", true),
        ];
        let lines: Vec<String> =
            roles(&processes).iter().map(|(role, state)| format!("{role}: {state}")).collect();
        let expected = [
            "responder: process 7, up 1m, restarts 1",
            "key establishment: 2 processes, up 1m, restarts 2",
            "key establishment: waits to be started again, restarts 1",
        ];
        assert_eq!(lines, expected);
    }
}
