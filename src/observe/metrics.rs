//! Everything that is known, for Prometheus. Names of our own begin with `timeball_`; those of
//! ntpd-rs's exporter stand beside them where they mean the same, so that its dashboards go on.

use std::fmt::Display;

use super::exposition::Kind::{Counter, Gauge, Histogram};
use super::exposition::{Exposition, Labels};
use super::facts::{Facts, Standing};
use crate::clock::account::leap_name;
use crate::clock::leap_watch::LeapAccount;
use crate::engine::outcome::Outcome;
use crate::ke::counters::Counters as KeCounters;
use crate::limits::{COOKIES_PER_REPLY, RING_KEYS};
use crate::net::PortCounters;
use crate::page::stats::{StatsPage, WorkerCounters};
use crate::process::clock_status::ClockStatus;
use crate::process::status::{CertificateStatus, KeysStatus, ProcessStatus, Status};
use crate::wire::ntp::Leap;

/// All metrics as text. Before the supervisor's first word those that come from it are missing.
pub fn render(facts: &Facts) -> String {
    let mut out = Exposition::default();
    let standing = facts.standing();
    workers(&mut out, facts.workers(), standing.as_ref());
    key_establishment(&mut out, &facts.pages.key_establishment);
    if let Some(standing) = &standing {
        let Standing { status, age } = standing;
        server(&mut out, status, age.as_secs_f64());
        processes(&mut out, &status.processes);
        clock(&mut out, &status.clock);
        keys(&mut out, &status.keys);
        certificates(&mut out, &status.certificates);
        out.metric("timeball_ready", Gauge, "Whether clients get what is promised (/health).")
            .sample(&[], u8::from(status.health.ready));
        system_aliases(&mut out, status);
    }
    aliases(&mut out, facts.workers());
    out.into_text()
}

type WorkerPage = StatsPage<WorkerCounters<'static>>;

fn workers(out: &mut Exposition, pages: &[WorkerPage], standing: Option<&Standing>) {
    let outcomes = "Datagrams by what became of them.";
    out.metric("timeball_ntp_datagrams_total", Counter, outcomes);
    for (worker, page) in pages.iter().enumerate() {
        for outcome in Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Undecided) {
            let name = outcome.name();
            out.sample(&[("worker", &worker), ("outcome", &name)], page.total(name));
        }
    }
    let mut counter = |metric, counted: &str, help| {
        out.metric(metric, Counter, help);
        for (worker, page) in pages.iter().enumerate() {
            out.sample(&[("worker", &worker)], page.total(counted));
        }
    };
    let issued = "Cookies in replies, all under the current master key.";
    counter("timeball_ntp_cookies_issued_total", "cookies_issued", issued);
    let interleaved = "Replies in interleaved mode, of those that were answered.";
    counter("timeball_ntp_interleaved_total", "answered_interleaved", interleaved);
    let leaked = "Requests beyond a rate limit that were answered all the same.";
    counter("timeball_ntp_rate_leaked_total", "rate_leaked", leaked);
    for (metric, counted, help) in PORT {
        counter(metric, counted, help);
    }
    let mut split = |metric, help, label, values: &[(&str, &str)]| {
        out.metric(metric, Counter, help);
        for (worker, page) in pages.iter().enumerate() {
            for (value, counted) in values {
                out.sample(&[("worker", &worker), (label, value)], page.total(counted));
            }
        }
    };
    let opened = "Cookies of requests that opened, by the age of their master key then.";
    split("timeball_ntp_cookies_opened_total", opened, "slot", &OPENED);
    let replies = "Authenticated replies, kisses among them, by the client's AEAD.";
    split("timeball_ntp_nts_replies_total", replies, "aead", &REPLIES);
    let Some(Standing { status, .. }) = standing else { return };
    let cpu = "Processor time of each worker's thread.";
    out.metric("timeball_ntp_worker_cpu_seconds_total", Counter, cpu);
    for (worker, found) in status.workers.iter().enumerate() {
        out.sample(&[("worker", &worker), ("cpu", &found.cpu)], found.processor_seconds);
    }
    out.metric("timeball_ntp_batch_datagrams", Histogram, "Datagrams answered together.");
    for (worker, found) in status.workers.iter().enumerate() {
        out.histogram(&[("worker", &worker)], &found.batch_datagrams);
    }
    let latency = "From a request's arrival until its batch's replies were handed to the kernel.";
    out.metric("timeball_ntp_latency_seconds", Histogram, latency);
    for (worker, found) in status.workers.iter().enumerate() {
        out.histogram(&[("worker", &worker)], &found.latency_seconds);
    }
}

/// Master keys of the ring by their age, and what is counted of each.
const OPENED: [(&str, &str); RING_KEYS] = [
    ("previous 2", "cookies_opened_previous_2"),
    ("previous 1", "cookies_opened_previous_1"),
    ("current", "cookies_opened_current"),
    ("next", "cookies_opened_next"),
];

/// AEADs, and what is counted of each.
const REPLIES: [(&str, &str); 3] = [
    ("AES-SIV-CMAC-256", "replies_siv_256"),
    ("AES-SIV-CMAC-512", "replies_siv_512"),
    ("AES-128-GCM-SIV", "replies_gcm_siv"),
];

/// What a port counts: metric, counter, help.
const PORT: [(&str, &str, &str); PortCounters::NAMES.len()] = [
    (
        "timeball_ntp_receive_drops_total",
        "receive_drops",
        "Datagrams that the kernel dropped because a socket's receive buffer was full.",
    ),
    ("timeball_ntp_receive_errors_total", "receive_errors", "Receive calls that failed."),
    (
        "timeball_ntp_receive_timestamps_missing_total",
        "receive_timestamps_missing",
        "Datagrams without a timestamp of the kernel.",
    ),
    (
        "timeball_ntp_receive_timestamps_hardware_total",
        "receive_timestamps_hardware",
        "Datagrams whose arrival is by their interface's clock.",
    ),
    (
        "timeball_ntp_receive_timestamps_hardware_refused_total",
        "receive_timestamps_hardware_refused",
        "Datagrams with a timestamp of their interface that could not be translated.",
    ),
    (
        "timeball_ntp_buffers_exhausted_total",
        "buffers_exhausted",
        "Times that all receive buffers of a ring were in use.",
    ),
    ("timeball_ntp_send_errors_total", "send_errors", "Replies that the kernel refused to send."),
    (
        "timeball_ntp_send_buffer_full_total",
        "send_buffer_full",
        "Replies dropped because a socket's send buffer stayed full.",
    ),
    (
        "timeball_ntp_transmit_timestamps_total",
        "transmit_timestamps",
        "Replies whose departure the kernel has told.",
    ),
    (
        "timeball_ntp_transmit_timestamps_missing_total",
        "transmit_timestamps_missing",
        "Replies whose departure the kernel did not tell in time.",
    ),
    (
        "timeball_ntp_transmit_timestamps_hardware_total",
        "transmit_timestamps_hardware",
        "Replies whose departure is by their interface's clock.",
    ),
    (
        "timeball_ntp_transmit_timestamps_hardware_refused_total",
        "transmit_timestamps_hardware_refused",
        "Replies with a timestamp of their interface that could not be translated.",
    ),
    (
        "timeball_ntp_error_queue_strays_total",
        "error_queue_strays",
        "What else was in error queues: errors, and timestamps that nobody waits for.",
    ),
];

fn key_establishment(out: &mut Exposition, pages: &[StatsPage<KeCounters>]) {
    if pages.is_empty() {
        return;
    }
    let mut labelled = |metric, help, label, names: &[(&str, &str)]| {
        out.metric(metric, Counter, help);
        for (process, page) in pages.iter().enumerate() {
            for (value, counted) in names {
                let of_process: (&str, &dyn Display) = ("process", &process);
                let labels: Labels<'_> = &[of_process, (label, value)];
                let labels = if label.is_empty() { &labels[..1] } else { labels };
                out.sample(labels, page.total(counted));
            }
        }
    };
    let accepted = "Connections to key establishment.";
    labelled("timeball_ke_accepted_total", accepted, "", &[("", "accepted")]);
    let failed = "Times that accept failed; no connection is lost by it.";
    labelled("timeball_ke_accept_failures_total", failed, "", &[("", "accept_failed")]);
    let aeads = [
        ("AES-SIV-CMAC-256", "served_siv_256"),
        ("AES-SIV-CMAC-512", "served_siv_512"),
        ("AES-128-GCM-SIV", "served_gcm_siv"),
        ("AES-128-GCM-SIV legacy exporter", "served_gcm_siv_legacy"),
    ];
    let served = "Handshakes that brought cookies, by the AEAD agreed on.";
    labelled("timeball_ke_served_total", served, "aead", &aeads);
    let outcomes: Vec<(&str, &str)> =
        KeCounters::NAMES.iter().filter(is_outcome).map(|name| (*name, *name)).collect();
    let ends = "Connections by how they ended, timeouts and errors by stage.";
    labelled("timeball_ke_connections_total", ends, "outcome", &outcomes);
    let cookies = "Cookies of handshakes, all under the current master key.";
    out.metric("timeball_ke_cookies_issued_total", Counter, cookies);
    for (process, page) in pages.iter().enumerate() {
        let cookies = page.total("served") * COOKIES_PER_REPLY as u64;
        out.sample(&[("process", &process)], cookies);
    }
}

/// Counters of the ends of connections.
fn is_outcome(name: &&&str) -> bool {
    !["accepted", "accept_failed"].contains(*name) && !name.starts_with("served_")
}

fn server(out: &mut Exposition, status: &Status, age_seconds: f64) {
    out.metric("timeball_build_info", Gauge, "Release of the running server.")
        .sample(&[("version", &status.release)], 1);
    out.metric("timeball_uptime_seconds", Gauge, "Since the supervisor started.")
        .sample(&[], status.uptime_seconds);
    out.metric("timeball_facts_age_seconds", Gauge, "Since the supervisor's last word.")
        .sample(&[], age_seconds);
    let reloads = "Configurations read again, by what became of them.";
    out.metric("timeball_reloads_total", Counter, reloads)
        .sample(&[("result", &"holds")], status.reloads)
        .sample(&[("result", &"refused")], status.reloads_refused);
}

fn processes(out: &mut Exposition, processes: &[ProcessStatus]) {
    let mut gauge = |metric, kind, help, value: fn(&ProcessStatus) -> u64| {
        out.metric(metric, kind, help);
        for (place, process) in processes.iter().enumerate() {
            let same = |other: &&ProcessStatus| other.role == process.role;
            let of_role = processes[..place].iter().filter(same).count();
            out.sample(&[("role", &process.role), ("process", &of_role)], value(process));
        }
    };
    gauge("timeball_process_up", Gauge, "Whether a process serves.", |process| {
        process.is_serving.into()
    });
    let restarts = "How often a process was started again.";
    gauge("timeball_process_restarts_total", Counter, restarts, |process| process.restarts);
    let age = "Since a process was started last.";
    gauge("timeball_process_uptime_seconds", Gauge, age, |process| process.age_seconds);
}

fn clock(out: &mut Exposition, clock: &ClockStatus) {
    let source = match clock.source {
        crate::clock::source::Source::Kernel => "kernel",
        crate::clock::source::Source::Local => "local",
        crate::clock::source::Source::Follow => "follow",
    };
    out.metric("timeball_clock_info", Gauge, "Where the time comes from.")
        .sample(&[("source", &source), ("stratum", &clock.stratum)], 1);
    out.metric(
        "timeball_clock_synchronised",
        Gauge,
        "Whether clients are told a synchronised clock.",
    )
    .sample(&[], u8::from(clock.stratum > 0));
    let help = "Bound of the clock's error (root dispersion) that clients are told.";
    out.metric("timeball_clock_error_bound_seconds", Gauge, help)
        .sample(&[], clock.root_dispersion_seconds);
    if let Some(left) = clock.holdover_left_seconds {
        let help = "How long the last word of the clock's source still holds.";
        out.metric("timeball_clock_holdover_left_seconds", Gauge, help).sample(&[], left);
    }
    let help = "Leap indicator that clients are told: 1 for the one that holds.";
    out.metric("timeball_clock_leap", Gauge, help);
    for leap in LEAPS {
        let name = leap_name(leap);
        out.sample(&[("leap", &name)], u8::from(clock.leap == name));
    }
    if let Some(logs) = &clock.logs {
        let help = "Lines of the clock's logs that were not written.";
        out.metric("timeball_clock_log_lines_lost_total", Counter, help)
            .sample(&[], logs.lines_lost);
    }
    if let Some(file) = &clock.leap_file {
        leap_file(out, file);
    }
}

/// As they are numbered on the wire.
const LEAPS: [Leap; 4] = [Leap::None, Leap::Insert, Leap::Delete, Leap::Unsynchronised];

fn leap_file(out: &mut Exposition, file: &LeapAccount) {
    let help = "Whether the leap-seconds file is followed; `timeball sources` says why not.";
    out.metric("timeball_leap_file_followed", Gauge, help)
        .sample(&[], u8::from(file.why.is_empty()));
    if let Some(expires) = file.expires_unix_seconds {
        let help = "When the leap-seconds file expires, since 1970.";
        out.metric("timeball_leap_file_expiry_timestamp_seconds", Gauge, help).sample(&[], expires);
    }
    if let Some(next) = &file.next {
        let help = "Midnight behind the next leap second of the file, since 1970.";
        out.metric("timeball_leap_next_timestamp_seconds", Gauge, help)
            .sample(&[], next.unix_seconds);
    }
    if let Some(smear) = &file.smear {
        let help = "What the time that is told is ahead of UTC; 0 unless a leap second is smeared.";
        out.metric("timeball_leap_smear_offset_seconds", Gauge, help)
            .sample(&[], smear.offset_seconds);
    }
}

fn keys(out: &mut Exposition, keys: &KeysStatus) {
    let help = "Master keys of the ring: identifier and the head of their SHA-256.";
    out.metric("timeball_master_key_info", Gauge, help);
    let slots = ["previous 2", "previous 1", "current", "next"];
    for ((slot, id), fingerprint) in slots.iter().zip(&keys.ids).zip(&keys.fingerprints) {
        out.sample(&[("slot", slot), ("id", id), ("fingerprint", fingerprint)], 1);
    }
    if let Some(age) = keys.newest_age_seconds {
        out.metric("timeball_master_key_age_seconds", Gauge, "Age of the newest master key.")
            .sample(&[], age);
    }
    if let Some(next) = keys.next_rotation_seconds {
        let help = "Until the next master key becomes current.";
        out.metric("timeball_master_key_rotation_in_seconds", Gauge, help).sample(&[], next);
    }
}

fn certificates(out: &mut Exposition, certificates: &[CertificateStatus]) {
    if certificates.is_empty() {
        return;
    }
    let help = "Last second of a certificate's validity, since 1970.";
    out.metric("timeball_certificate_expiry_timestamp_seconds", Gauge, help);
    for found in certificates {
        out.sample(&[("file", &found.file.display())], found.expires_unix);
    }
    let help = "What `timeball cert show` has against a certificate, how many things.";
    out.metric("timeball_certificate_warnings", Gauge, help);
    for found in certificates {
        out.sample(&[("file", &found.file.display())], found.warnings.len());
    }
}

/// Names of ntpd-rs, those whose meaning is the same. Its counters are of each address; ours
/// are of the server. What it counts as denied, a kiss DENY, timeball never sends.
fn aliases(out: &mut Exposition, pages: &[WorkerPage]) {
    let all = || Outcome::ALL.iter().map(|outcome| outcome.name());
    let of = |names: &[&str]| -> u64 {
        pages.iter().flat_map(|page| names.iter().map(|name| page.total(name))).sum()
    };
    let is_limit = |name: &&str| RATE_LIMITED.contains(name) || RATE_LIMITED_NTS.contains(name);
    let ignored: Vec<&str> =
        all().filter(|name| name.starts_with("dropped_") && !is_limit(name)).collect();
    let mut alias = |name, help, value: u64| {
        out.metric(name, Counter, help).sample(&[], value);
    };
    let received = of(&all().collect::<Vec<_>>());
    alias("ntp_server_received_packets_total", "Datagrams received.", received);
    let accepted = of(&["answered_plain", "answered_nts"]);
    alias("ntp_server_accepted_packets_total", "Requests answered with the time.", accepted);
    alias("ntp_server_denied_packets_total", "Always 0: whoever has no access is ignored.", 0);
    alias("ntp_server_ignored_packets_total", "Datagrams not answered.", of(&ignored));
    let limited = of(&RATE_LIMITED) + of(&RATE_LIMITED_NTS);
    let beyond = "Requests beyond a rate limit that got no time.";
    alias("ntp_server_rate_limited_packets_total", beyond, limited);
    let errors = of(&["send_errors", "send_buffer_full"]);
    alias("ntp_server_response_send_errors_total", "Replies that were not sent.", errors);
    let nts = of(&["answered_nts", "nts_nak"]) + of(&RATE_LIMITED_NTS);
    alias("ntp_server_nts_received_packets_total", "Well-formed requests with NTS.", nts);
    let authentic = of(&["answered_nts"]);
    alias("ntp_server_nts_accepted_packets_total", "Authentic requests answered.", authentic);
    alias("ntp_server_nts_denied_packets_total", "Always 0.", 0);
    let beyond = "Requests with NTS beyond a rate limit that got no time.";
    alias("ntp_server_nts_rate_limited_packets_total", beyond, of(&RATE_LIMITED_NTS));
    let nak = of(&["nts_nak"]);
    alias("ntp_server_nts_nak_packets_total", "Requests answered by an NTS NAK.", nak);
}

/// Outcomes of plain requests beyond a limit.
const RATE_LIMITED: [&str; 2] = ["kiss_rate", "dropped_rate"];
/// Outcomes of requests with NTS beyond a limit.
const RATE_LIMITED_NTS: [&str; 4] =
    ["kiss_rate_nts", "dropped_rate_nts", "dropped_rate_nak", "dropped_replay"];

/// Names of ntpd-rs for what the supervisor tells. Its stratum without a source is 16.
fn system_aliases(out: &mut Exposition, status: &Status) {
    let ClockStatus { stratum, leap, root_delay_seconds, root_dispersion_seconds, .. } =
        &status.clock;
    let place = LEAPS.iter().position(|found| leap_name(*found) == leap);
    out.metric("ntp_uptime_seconds", Gauge, "Since the supervisor started.")
        .sample(&[("version", &status.release)], status.uptime_seconds);
    out.metric("ntp_system_stratum", Gauge, "Stratum; 16 when unsynchronised.")
        .sample(&[], if *stratum == 0 { 16 } else { *stratum });
    out.metric("ntp_system_leap_indicator", Gauge, "Leap indicator, as on the wire.")
        .sample(&[], place.unwrap_or(LEAPS.len() - 1));
    out.metric("ntp_system_root_delay_seconds", Gauge, "Round trip to the primary source.")
        .sample(&[], root_delay_seconds);
    out.metric("ntp_system_root_dispersion_seconds", Gauge, "Bound of the clock's error.")
        .sample(&[], root_dispersion_seconds);
}
