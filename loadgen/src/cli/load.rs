//! `timeball-load ntp` and `timeball-load nts`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use timeball::aead::Algorithm;
use timeball::limits::{DATAGRAM_BYTES, NTP_PORT};

use super::arguments::{LoadArguments, NtpArguments, NtsArguments};
use super::target::resolve;
use super::{CommandError, EXIT_FINE, EXIT_INVALID};
use crate::associations::{Associations, Saved};
use crate::host::Host;
use crate::limits::{CLIENTS_MINTED_DEFAULT, PROBE_REQUESTS};
use crate::plan::{Ask, CookieUse, Placeholders, Plan, Shape};
use crate::record::Interval;
use crate::reflector::SelfTest;
use crate::report::RunReport;
use crate::request::Clients;
use crate::run::{Found, faults, run};

/// Everything that a run needs.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) clients: Vec<Clients>,
    /// The AEAD of the self-test.
    pub(super) algorithm: Algorithm,
}

pub(super) fn ntp(arguments: &NtpArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    check_outputs(&[&arguments.load.json, &arguments.load.csv])?;
    let prepared = prepare_ntp(arguments)?;
    let (report, _) = probe_and_offer(&arguments.load, prepared, stop)?;
    finish(&arguments.load, &report)
}

pub(super) fn nts(arguments: &NtsArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    check_outputs(&[&arguments.load.json, &arguments.load.csv])?;
    let prepared = prepare_nts(arguments, stop)?;
    let (report, clients) = probe_and_offer(&arguments.load, prepared, stop)?;
    if let Some(path) = &arguments.save {
        let server = report.plan.target;
        Saved { server, associations: undress(clients) }.save(path)?;
    }
    finish(&arguments.load, &report)
}

/// Plan and clients of `ntp`.
pub(super) fn prepare_ntp(arguments: &NtpArguments) -> Result<Prepared, CommandError> {
    let target = resolve(&arguments.server, NTP_PORT)?;
    let plan = arguments.load.plan(target, Ask::Ntp, 1)?;
    let threads = plan.cpus.len();
    let clients = arguments.load.clients(CLIENTS_MINTED_DEFAULT)?.max(threads);
    let clients = (0..threads).map(|_| Clients::Plain(clients / threads)).collect();
    Ok(Prepared { plan, clients, algorithm: Algorithm::AesSivCmac256 })
}

/// Plan and clients of `nts`.
pub(super) fn prepare_nts(
    arguments: &NtsArguments,
    stop: &AtomicBool,
) -> Result<Prepared, CommandError> {
    // What is wrong with the arguments is said before keys are asked for.
    let dummy = ([127, 0, 0, 1], NTP_PORT).into();
    let is_sample = arguments.verify != 1;
    let cookie_use =
        if arguments.replay || is_sample { CookieUse::Replay } else { CookieUse::Renew };
    let ask = Ask::Nts(arguments.placeholders, cookie_use);
    let mut plan = arguments.load.plan(dummy, ask, arguments.verify)?;
    let saved = arguments.associations(stop)?;
    plan.target = match &arguments.ntp_server {
        Some(server) => resolve(server, NTP_PORT)?,
        None => saved.server,
    };
    let associations = saved.associations;
    check_length(&associations, arguments.placeholders)?;
    if associations.len() < plan.cpus.len() {
        return Err(CommandError::usage("there are fewer clients than threads: ask for more"));
    }
    let algorithm = associations.algorithm();
    let parts = associations.split(plan.cpus.len()).into_iter();
    let clients =
        parts.map(|part| Clients::Nts(part, arguments.placeholders, cookie_use)).collect();
    Ok(Prepared { plan, clients, algorithm })
}

fn probe_and_offer(
    load: &LoadArguments,
    prepared: Prepared,
    stop: &AtomicBool,
) -> Result<(RunReport, Vec<Clients>), CommandError> {
    let Prepared { plan, mut clients, algorithm } = prepared;
    let self_test = load.self_test(&plan, algorithm)?;
    if !load.no_probe {
        clients = probe(&plan, clients, stop)?;
    }
    offer(load, &plan, clients, self_test, stop)
}

/// The associations of all threads together.
fn undress(clients: Vec<Clients>) -> Associations {
    let parts = clients.into_iter().filter_map(|clients| match clients {
        Clients::Nts(associations, ..) => Some(associations),
        Clients::Plain(_) => None,
    });
    Associations::join(parts.collect()).expect("there is a thread")
}

/// Asks the server a few times: is it there at all, and are the cookies good?
pub(super) fn probe(
    plan: &Plan,
    clients: Vec<Clients>,
    stop: &AtomicBool,
) -> Result<Vec<Clients>, CommandError> {
    let probe = Plan {
        requests_max: PROBE_REQUESTS * plan.cpus.len() as u64,
        rate_per_second: 100.0,
        shape: Shape::Constant,
        duration: Duration::from_secs(10),
        ..plan.clone()
    };
    let found = run(&probe, clients, stop, |_, _| {})?;
    let tally = &found.total.tally;
    if tally.answered + tally.late > 0 || stop.load(Ordering::Relaxed) {
        return Ok(found.clients);
    }
    let target = plan.target;
    let message = if tally.nak > 0 {
        format!("{target} refuses the cookies (NTS NAK): they are not of its master keys")
    } else if let Some(code) = tally.kiss.keys().next() {
        format!("{target} does not serve this host: it sends the kiss code {code}")
    } else if tally.received > 0 {
        let (reason, _) = tally.invalid.reasons().into_iter().max_by_key(|it| it.1).expect("some");
        format!("{target} answers, but with nothing that a client takes ({reason})")
    } else {
        format!(
            "no answer from udp {target}: is the server up, and does a firewall let NTP pass? \
             (--no-probe goes on without)"
        )
    };
    Err(CommandError { code: super::EXIT_FAILURE, message })
}

/// The run itself, with progress on the terminal.
pub(super) fn offer(
    load: &LoadArguments,
    plan: &Plan,
    clients: Vec<Clients>,
    self_test: Option<SelfTest>,
    stop: &AtomicBool,
) -> Result<(RunReport, Vec<Clients>), CommandError> {
    let watch = load.watch()?;
    let clients_count = clients.iter().map(Clients::len).sum();
    let host = Host::look();
    let begun = time::OffsetDateTime::now_utc();
    let bar = progress_bar(plan.duration);
    let Found { total, intervals, clients, offer_time, unpinned } =
        run(plan, clients, stop, |elapsed, total| show(&bar, elapsed, total))?;
    bar.finish_and_clear();
    let watched = watch.finish();
    let mut faults = faults(&total.tally);
    if let Some(test) = self_test.as_ref().filter(|test| !test.passed()) {
        faults.push(format!(
            "in the self-test, without the server, it sent {:.0} requests/s of {:.0}, {:.1} % of \
             them late",
            test.reached_per_second,
            test.planned_per_second,
            test.lagging_share * 100.0
        ));
    }
    if unpinned > 0 {
        faults.push("a thread could not be pinned to its processor (--cpus)".to_owned());
    }
    let report = RunReport {
        program: format!("timeball-load {}", env!("CARGO_PKG_VERSION")),
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
        begun: begun.unix_timestamp(),
        host,
        plan: plan.clone(),
        clients: clients_count,
        offer_seconds: offer_time.as_secs_f64(),
        interrupted: stop.load(Ordering::Relaxed),
        faults,
        self_test,
        server: watched.process,
        server_counters: watched.counters,
        tally: total.tally,
        latency: total.latency,
        send_lag: total.send_lag,
        seconds: intervals.iter().map(crate::report::Second::of).collect(),
    };
    Ok((report, clients))
}

fn finish(load: &LoadArguments, report: &RunReport) -> Result<u8, CommandError> {
    print!("{}", crate::report::terminal::text(report));
    if let Some(path) = &load.json {
        write(path, &serde_json::to_string(report)?)?;
    }
    if let Some(path) = &load.csv {
        write(path, &crate::report::csv(report))?;
    }
    Ok(if report.faults.is_empty() { EXIT_FINE } else { EXIT_INVALID })
}

/// What is to be written at the end has to be writable: results must not be lost then.
pub(super) fn check_outputs(paths: &[&Option<PathBuf>]) -> Result<(), CommandError> {
    for path in paths.iter().filter_map(|path| path.as_ref()) {
        // Nothing that is there already is touched before there is something to replace it.
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
            CommandError::usage(format_args!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|error| CommandError {
        code: super::EXIT_FAILURE,
        message: format!("cannot write {}: {error}", path.display()),
    })
}

fn progress_bar(duration: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}");
    ProgressBar::new(duration.as_millis() as u64)
        .with_style(style.expect("the template is constant"))
}

fn show(bar: &ProgressBar, elapsed: Duration, total: &Interval) {
    bar.set_position(elapsed.as_millis() as u64);
    let (tally, latency) = (&total.tally, &total.latency);
    bar.set_message(format!(
        "{} offered, {} answered, {} lost, p50 {:.0} µs, p99 {:.0} µs",
        tally.offered,
        tally.answered,
        tally.lost,
        latency.quantile_ns(0.5) as f64 / 1e3,
        latency.quantile_ns(0.99) as f64 / 1e3,
    ));
}

/// A request has to fit an Ethernet frame.
fn check_length(
    associations: &Associations,
    placeholders: Placeholders,
) -> Result<(), CommandError> {
    let most = match placeholders {
        Placeholders::Fixed(count) => usize::from(count),
        Placeholders::Missing => associations.depth() - 1,
    };
    let bytes = crate::request::request_bytes(associations, most);
    if bytes <= DATAGRAM_BYTES {
        return Ok(());
    }
    Err(CommandError::usage(format_args!(
        "requests of {bytes} bytes are too long for the network: ask for fewer placeholders"
    )))
}
