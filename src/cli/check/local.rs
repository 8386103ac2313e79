//! The server that runs on this host, by its own account.

use std::collections::BTreeMap;
use std::time::Duration;

use super::remote::{CERTIFICATE_DAYS, ROOT_DISTANCE, STRATUM};
use super::report::{Quantity, Report};
use super::{State, Thresholds};
use crate::cli::clock::at_a_glance;
use crate::cli::keys::in_words;
use crate::cli::place::Place;
use crate::clock::record::SourceState;
use crate::clock::source::Source;
use crate::engine::outcome::Outcome;
use crate::host::tuning::README;
use crate::limits::commands::{CHECK_REQUESTS_MIN, CHECK_RESTART_RECENT};
use crate::process::control::{AskError, Request, ask};
use crate::process::status::{ProcessStatus, Status};

const KEY_AGE: Quantity = Quantity {
    label: "key_age_days",
    unit: "",
    metric: "timeball_check_key_age_seconds",
    base_units: 86_400.0,
    help: "Age of the newest master key.",
};
const LEAP_FILE_DAYS: Quantity = Quantity {
    label: "leap_file_days",
    unit: "",
    metric: "timeball_check_leap_file_remaining_seconds",
    base_units: 86_400.0,
    help: "Until the leap-seconds file expires.",
};
const DROPS: Quantity = Quantity {
    label: "drops",
    unit: "%",
    metric: "timeball_check_drops_ratio",
    base_units: 0.01,
    help: "Datagrams that full socket buffers cost.",
};
const NAKS: Quantity = Quantity {
    label: "naks",
    unit: "%",
    metric: "timeball_check_naks_ratio",
    base_units: 0.01,
    help: "NTS requests that were refused (NTS NAK).",
};
const REQUESTS: Quantity = Quantity {
    label: "requests",
    unit: "c",
    metric: "timeball_check_requests",
    base_units: 1.0,
    help: "Valid requests since the server started.",
};
const RESTARTS: Quantity = Quantity {
    label: "restarts",
    unit: "c",
    metric: "timeball_check_restarts",
    base_units: 1.0,
    help: "How often processes were started again since the server started.",
};

/// Looks at the server twice, so far apart.
pub(super) fn running(place: &Place, interval: Duration, thresholds: &Thresholds) -> Report {
    let found = match place.find() {
        Ok(found) => found,
        Err(error) => {
            let mut report = Report::new("this host".to_owned());
            report.say(State::Unknown, error.to_string());
            return report;
        }
    };
    let socket = found.control_socket;
    let mut report = Report::new(socket.display().to_string());
    let looks = ask(&socket, Request::Status).and_then(|first: Status| {
        std::thread::sleep(interval);
        Ok((first, ask(&socket, Request::Status)?))
    });
    match looks {
        Err(error @ AskError::Forbidden(_)) => report.say(State::Unknown, error.to_string()),
        Err(error) => report.say(State::Critical, error.to_string()),
        Ok((first, second)) => judge(&first, &second, thresholds, &mut report),
    }
    report
}

fn judge(first: &Status, second: &Status, thresholds: &Thresholds, report: &mut Report) {
    processes(second, report);
    clock(second, thresholds, report);
    leap_file(second, thresholds, report);
    keys(second, thresholds, report);
    certificates(second, thresholds, report);
    requests(first, second, thresholds, report);
}

fn processes(status: &Status, report: &mut Report) {
    let count = status.processes.len();
    let up = in_words(Duration::from_secs(status.uptime_seconds));
    report.gist = format!("timeball {} ready, up {up}, {count} processes", status.release);
    if !status.health.ready {
        status.health.reasons.iter().for_each(|why| report.say(State::Critical, why.as_str()));
    }
    let mut all_well = true;
    for process in &status.processes {
        let ProcessStatus { role, is_serving, age_seconds, restarts, .. } = process;
        let is_recent = *restarts > 0 && *age_seconds < CHECK_RESTART_RECENT.as_secs();
        let why = match (*is_serving, is_recent) {
            (false, _) => format!("a process of the {role} does not serve"),
            (true, true) => {
                let age = in_words(Duration::from_secs(*age_seconds));
                format!("the {role} was started again {age} ago; the server's log says why")
            }
            (true, false) => continue,
        };
        all_well = false;
        report.say(State::Warning, why);
    }
    if all_well {
        report.say(State::Ok, format!("all {count} processes serve"));
    }
    let restarts: u64 = status.processes.iter().map(|process| process.restarts).sum();
    report.measure(&RESTARTS, restarts as f64);
}

fn clock(status: &Status, thresholds: &Thresholds, report: &mut Report) {
    let clock = &status.clock;
    // An unsynchronised clock is one of the reasons of health.
    if clock.stratum == 0 {
        return report.measure(&STRATUM, 0.0);
    }
    let is_held = clock.source != Source::Local && clock.source_state != SourceState::Synchronised;
    let state = if is_held { State::Warning } else { State::Ok };
    report.say(state, format!("clock: {}", at_a_glance(clock)));
    let stratum = f64::from(clock.stratum);
    report.judge(&STRATUM, stratum, &thresholds.stratum, format!("stratum {stratum}"));
    let bound = clock.root_dispersion_seconds;
    let text = format!("root dispersion {bound:.6} s");
    report.judge(&ROOT_DISTANCE, bound, &thresholds.root_distance, text);
}

fn leap_file(status: &Status, thresholds: &Thresholds, report: &mut Report) {
    let Some(found) = &status.clock.leap_file else { return };
    let file = &found.file;
    if !found.why.is_empty() {
        report.say(State::Warning, format!("leap-seconds file {file}: {}", found.why));
    }
    let Some(expires) = found.expires_unix_seconds else { return };
    let days = (expires - status.taken_unix_milliseconds / 1000) as f64 / 86_400.0;
    let text = format!("leap-seconds file {file} expires in {days:.0} days");
    report.judge(&LEAP_FILE_DAYS, days, &thresholds.leap_file_days, text);
}

fn keys(status: &Status, thresholds: &Thresholds, report: &mut Report) {
    let keys = &status.keys;
    let (Some(age), Some(due_in)) = (keys.newest_age_seconds, keys.next_rotation_seconds) else {
        return report.say(State::Ok, "master keys: another program rotates");
    };
    let text = format!("newest master key {} old", in_words(Duration::from_secs(age)));
    report.judge(&KEY_AGE, age as f64 / 86_400.0, &thresholds.key_age, text);
    if due_in == 0 {
        let text = "a new master key is due and not made; the server's log says why";
        report.say(State::Warning, text);
    }
}

fn certificates(status: &Status, thresholds: &Thresholds, report: &mut Report) {
    let now_unix = status.taken_unix_milliseconds / 1000;
    let first_to_expire = status.certificates.iter().min_by_key(|found| found.expires_unix);
    let Some(found) = first_to_expire else {
        return report.say(State::Ok, "no key establishment is configured");
    };
    let days = (found.expires_unix - now_unix) as f64 / 86_400.0;
    let text = format!("certificate {} expires in {days:.0} days", found.file.display());
    report.judge(&CERTIFICATE_DAYS, days, &thresholds.certificate_days, text);
}

/// Of the requests between the two looks, if they are enough to speak of shares; else of all since
/// the server started.
fn requests(first: &Status, second: &Status, thresholds: &Thresholds, report: &mut Report) {
    let all = &second.serverstats.responder;
    report.measure(&REQUESTS, second.serverstats.ntp_packets_received as f64);
    let between = difference(&first.serverstats.responder, all);
    let received = |totals: &BTreeMap<String, u64>| -> u64 {
        let is_outcome = |name: &str| Outcome::ALL.iter().any(|outcome| outcome.name() == name);
        totals.iter().filter(|(name, _)| is_outcome(name)).map(|(_, total)| total).sum()
    };
    let (totals, when) = match received(&between) >= CHECK_REQUESTS_MIN {
        true => (&between, "just now"),
        false => (all, "since the start"),
    };
    let of = |name: &str| totals.get(name).copied().unwrap_or_default();
    let lost = of("receive_drops") + of("send_buffer_full");
    let received = received(totals);
    let see = if lost > 0 { format!("; see {README}") } else { String::new() };
    let text =
        format!("{lost} datagrams lost to full socket buffers {when}, {received} received{see}");
    share(&DROPS, lost, received + of("receive_drops"), &thresholds.drops, text, report);
    let (naks, answered) = (of("nts_nak"), of("answered_nts"));
    let text = format!("{naks} NTS requests refused (NTS NAK) {when}, {answered} answered");
    share(&NAKS, naks, naks + answered, &thresholds.naks, text, report);
}

fn share(
    quantity: &'static Quantity,
    part: u64,
    whole: u64,
    threshold: &super::Threshold,
    text: String,
    report: &mut Report,
) {
    let percent = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    if whole >= CHECK_REQUESTS_MIN {
        report.judge(quantity, percent, threshold, text);
    } else {
        report.say(State::Ok, format!("{text}; too few to judge"));
        report.measure(quantity, percent);
    }
}

/// What was counted between two looks; a server that was started again counts from zero.
fn difference(
    first: &BTreeMap<String, u64>,
    second: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let before = |name: &String| first.get(name).copied().unwrap_or_default();
    second.iter().map(|(name, total)| (name.clone(), total.saturating_sub(before(name)))).collect()
}
