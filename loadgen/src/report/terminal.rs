//! A run as text.

use std::fmt::Write as _;

use super::RunReport;
use crate::record::Times;

/// Quantiles that are shown.
pub const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// The run, in lines of up to 100 columns.
pub fn text(report: &RunReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: std::fmt::Arguments<'_>| {
        writeln!(text, "{name:<14}{value}").expect("writing to a string cannot fail");
    };
    let tally = &report.tally;
    let share = |count: u64| count as f64 * 100.0 / tally.offered.max(1) as f64;
    line("server", format_args!("udp {}, {} clients", report.plan.target, report.clients));
    line("offered", format_args!("{}, {:.0}/s", tally.offered, report.offered_per_second()));
    line(
        "answered",
        format_args!(
            "{} ({:.3} %), {:.0}/s; {} authenticated",
            tally.answered,
            share(tally.answered),
            report.answered_per_second(),
            tally.authenticated
        ),
    );
    for (name, count) in [
        ("late", tally.late),
        ("lost", tally.lost),
        ("NTS NAK", tally.nak),
        ("refused", tally.refused),
    ] {
        line(name, format_args!("{count} ({:.3} %)", share(count)));
    }
    for (code, count) in &tally.kiss {
        line("kiss", format_args!("{count} ({:.3} %) with code {code}", share(*count)));
    }
    for (name, count) in [
        ("duplicates", tally.duplicates),
        ("too late", tally.forgotten),
        ("cookies reused", tally.cookies_reused),
        ("unsynchronised", tally.unsynchronised),
    ] {
        if count > 0 {
            line(name, format_args!(" {count}"));
        }
    }
    for (reason, count) in tally.invalid.reasons() {
        if count > 0 {
            line("invalid", format_args!("{count} datagrams: {reason}"));
        }
    }
    line("latency", format_args!("{}", quantiles(&report.latency)));
    line("send lag", format_args!("{}", quantiles(&report.send_lag)));
    if let (Some(server), Some(ns)) = (report.server, report.server_ns_per_answer()) {
        line("server CPU", format_args!("{ns:.0} ns/answer; {} socket drops", server.socket_drops));
    }
    if report.interrupted {
        line("interrupted", format_args!("the results are those so far"));
    }
    for fault in &report.faults {
        line("INVALID", format_args!("{fault}"));
    }
    text
}

/// Quantiles in microseconds.
pub fn quantiles(times: &Times) -> String {
    let quantiles = QUANTILES
        .map(|(name, quantile)| format!("{name} {:.1}", times.quantile_ns(quantile) as f64 / 1e3));
    format!("{} us", quantiles.join(", "))
}
