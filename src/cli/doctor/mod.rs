//! `timeball doctor`: what on this host keeps a server from its work, and what helps.

mod files;
mod firewall;
mod hardware;
mod machine;
mod names;
mod service;
mod service_user;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use self::firewall::Rules;
use super::place::{Configured, configured};
use super::serve::available_cpus;
use super::state::State;
use crate::config::checked::Settings;
use crate::host::facts::Host;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DoctorArguments {
    /// The server's configuration file; without it /etc/timeball/timeball.toml, or what `timeball
    /// serve` without one takes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at the host only, not at the server and its files
    #[arg(long)]
    host: bool,
    /// Do not show what is as it should be
    #[arg(short, long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The folder that holds /proc and /sys
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

const AFTER_HELP: &str = "\
As root it sees most. Nothing is changed; what it prints behind \"fix:\" would.
Exit codes: 0 ok, 1 warning, 2 critical, 3 something could not be looked at.";

/// Everything that is looked at, by the names in front of the findings.
pub(super) const CHECKS: [&str; 28] = [
    "configuration",
    "server",
    "port",
    "answer",
    "firewall",
    "name",
    "certificate",
    "key file",
    "state directory",
    "clock",
    "time daemon",
    "leap file",
    "clock source",
    "connection tracking",
    "receive buffer",
    "send buffer",
    "accept queue",
    "busy polling",
    "interface",
    "queues",
    "interrupts",
    "offloads",
    "hardware timestamps",
    "mtu",
    "processors",
    "descriptors",
    "locked memory",
    "io_uring",
];

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    state: State,
    /// What is so, with its cause.
    text: String,
    /// What helps.
    fix: Option<String>,
}

/// All of them, in their order.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Ok, text.into(), None);
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(check, State::Warning, text.into(), Some(fix.into()));
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(check, State::Critical, text.into(), Some(fix.into()));
    }

    /// What could not be looked at, and why.
    fn hidden(&mut self, check: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.add(check, State::Unknown, text.into(), Some(fix.into()));
    }

    fn add(&mut self, check: &'static str, state: State, text: String, fix: Option<String>) {
        debug_assert!(CHECKS.contains(&check), "{check}");
        self.0.push(Finding { check, state, text, fix });
    }

    fn state(&self) -> State {
        State::worst(self.0.iter().map(|finding| finding.state))
    }
}

/// The server that is to run, and its host.
struct Patient<'a> {
    host: &'a Host,
    settings: &'a Settings,
    /// The processor of each worker.
    cpus: Vec<usize>,
    /// Without a configuration: what is missing is made at the start.
    is_embedded: bool,
    now: OffsetDateTime,
}

pub(super) fn run(arguments: &DoctorArguments) -> ExitCode {
    let host = Host::running(&arguments.root);
    let mut findings = Findings::default();
    if let Some((settings, is_embedded)) = settings(arguments, &mut findings) {
        let cpus = settings.workers.place(&available_cpus()).unwrap_or_else(|error| {
            findings.fail("configuration", error.to_string(), "correct ntp.cpus");
            Vec::new()
        });
        let now = OffsetDateTime::now_utc();
        let patient = Patient { host: &host, settings: &settings, cpus, is_embedded, now };
        examine(&patient, arguments.host, &mut findings);
    }
    let printed = if arguments.json {
        let text = serde_json::to_string_pretty(&findings.0).expect("plain data");
        writeln!(io::stdout(), "{text}")
    } else {
        print(&findings, arguments.quiet, &mut io::stdout().lock())
    };
    // Whoever reads no further has seen enough.
    let _ = printed;
    findings.state().exit_code()
}

/// What is to be served, and whether that is without a configuration.
fn settings(arguments: &DoctorArguments, findings: &mut Findings) -> Option<(Settings, bool)> {
    let check = "configuration";
    let fix = "correct it; `timeball config check FILE` says when it is good";
    let Configured { settings, file } = match configured(arguments.config.as_deref()) {
        Ok(configured) => configured,
        Err(error) => {
            findings.fail(check, error.to_string(), fix);
            return None;
        }
    };
    match (settings.access.read(), &file) {
        // A server that has no such list does not start.
        (Err(error), _) => findings.fail(check, error.to_string(), fix),
        (Ok(_), Some(file)) => findings.ok(check, format!("{} is good", file.display())),
        (Ok(_), None) => {
            findings.ok(check, "none: looked at is what `timeball serve` takes without one");
        }
    }
    Some((settings, file.is_none()))
}

fn examine(patient: &Patient<'_>, host_only: bool, findings: &mut Findings) {
    let rules = Rules::read(patient.host);
    if !host_only {
        let is_running = service::server(patient, findings);
        service::ports(patient, is_running, findings);
        firewall::openings(patient, &rules, findings);
        names::resolve(patient, findings);
        files::certificates(patient, findings);
        files::keys(patient, findings);
        service_user::access(patient, findings);
        service::clock(patient, findings);
        files::leap_seconds(patient, findings);
    }
    firewall::connection_tracking(patient, &rules, findings);
    machine::examine(patient, findings);
    hardware::stamping(patient, findings);
}

/// One line a finding, then how many of each state.
fn print(findings: &Findings, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    for Finding { check, state, text, fix } in &findings.0 {
        if quiet && *state == State::Ok {
            continue;
        }
        write!(out, "{:<8}  {check}: {text}", state.word())?;
        match fix {
            Some(fix) => writeln!(out, "; fix: {fix}")?,
            None => writeln!(out)?,
        }
    }
    let count = |state| findings.0.iter().filter(|finding| finding.state == state).count();
    writeln!(
        out,
        "\ncritical {}, unknown {}, warning {}, ok {}",
        count(State::Critical),
        count(State::Unknown),
        count(State::Warning),
        count(State::Ok)
    )
}

#[cfg(test)]
mod tests;
