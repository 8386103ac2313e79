//! A run as text.

use std::fmt::Write as _;

use super::{RunReport, SearchReport};
use crate::counters::Sample;
use crate::record::Times;
use crate::search::{Purpose, Trial};

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
    if report.plan.interleaved {
        let basic = tally.answered - tally.interleaved;
        line("interleaved", format_args!("{} answers; {basic} basic ones", tally.interleaved));
    }
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
    if let Some(sample) = report.server_counters.last() {
        line("server counts", format_args!("{}", counters(sample)));
    }
    if report.interrupted {
        line("interrupted", format_args!("the results are those so far"));
    }
    for fault in &report.faults {
        line("INVALID", format_args!("{fault}"));
    }
    text
}

/// A server's own counters.
pub fn counters(sample: &Sample) -> String {
    let counts = sample.counts.iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Quantiles in microseconds.
pub fn quantiles(times: &Times) -> String {
    let quantiles = QUANTILES
        .map(|(name, quantile)| format!("{name} {:.1}", times.quantile_ns(quantile) as f64 / 1e3));
    format!("{} µs", quantiles.join(", "))
}

/// What a trial was for.
pub fn purpose(purpose: Purpose) -> String {
    match purpose {
        Purpose::Search(number) => format!("search {}", number + 1),
        Purpose::Latency(share) => format!("latency at {:.0} %", share * 100.0),
        Purpose::Sweep(share) => format!("overload at {:.0} %", share * 100.0),
    }
}

/// One trial in a line.
pub fn trial_line(trial: &Trial) -> String {
    let [p50, p90, p99, p999] = trial.latency_ns.map(|ns| ns as f64 / 1e3);
    format!(
        "{:<18}{:>10.0}/s offered {:>10.0}/s answered {:>8.3} % lost  p50 {p50:.0} p90 {p90:.0} \
         p99 {p99:.0} p99.9 {p999:.0} µs{}{}",
        purpose(trial.purpose),
        trial.offered_per_second,
        trial.answered_per_second,
        trial.tally.loss() * 100.0,
        trial.server_ns_per_answer.map(|ns| format!("  {ns:.0} ns CPU")).unwrap_or_default(),
        if trial.faults.is_empty() { "" } else { "  (the generator was the limit)" },
    )
}

/// What a search found.
pub fn search_text(report: &SearchReport) -> String {
    let mut text = String::new();
    let Some(verdict) = &report.verdict else {
        return "interrupted before anything was found\n".to_owned();
    };
    let [least, most] = verdict.spread_per_second;
    let at_least = if verdict.at_least { "at least " } else { "" };
    writeln!(
        text,
        "server        udp {}\nkeeps         {at_least}{:.0} requests/s at a loss of up to {} % \
         ({least:.0} to {most:.0} in {} searches)",
        report.plan.target,
        verdict.median_per_second,
        report.goal.loss_max * 100.0,
        verdict.rates_per_second.len(),
    )
    .expect("writing to a string cannot fail");
    if verdict.at_least {
        text += "INVALID       the generator, or --high, was the limit: the server does more\n";
    }
    for trial in &report.trials {
        if !matches!(trial.purpose, Purpose::Search(_)) {
            text += &trial_line(trial);
            text.push('\n');
        }
    }
    text
}

/// Runs side by side, each number with its ratio to that of the first run.
pub fn comparison(names: &[String], runs: &[RunReport]) -> String {
    let mut text = columns(names, runs, &ROWS);
    for (name, run) in names.iter().zip(runs) {
        for fault in &run.faults {
            writeln!(text, "INVALID {name}: {fault}").expect("writing to a string cannot fail");
        }
    }
    text
}

/// The same for searches.
pub fn search_comparison(names: &[String], searches: &[SearchReport]) -> String {
    let mut text = columns(names, searches, &SEARCH_ROWS);
    for (name, search) in names.iter().zip(searches) {
        if let Some(caveat) = caveat(search) {
            writeln!(text, "{name}: {caveat}").expect("writing to a string cannot fail");
        }
    }
    text
}

/// What limits the worth of a search's result.
pub fn caveat(search: &SearchReport) -> Option<&'static str> {
    match &search.verdict {
        None => Some("interrupted before anything was found"),
        Some(verdict) if verdict.at_least => {
            Some("INVALID: the generator, or --high, was the limit: the server does more")
        }
        Some(_) => None,
    }
}

fn columns<T>(names: &[String], columns: &[T], rows: &[Row<T>]) -> String {
    let mut text = format!("{:<28}", "");
    let mut put = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("writing to a string cannot fail");
    };
    for name in names {
        put(format_args!("{name:>24}"));
    }
    put(format_args!("\n"));
    for (title, value) in rows {
        put(format_args!("{title:<28}"));
        let first = columns.first().and_then(value);
        for column in columns {
            let cell = match (value(column), first) {
                (None, _) => "-".to_owned(),
                (Some(value), Some(first)) if first > 0.0 => {
                    format!("{} (x {:.2})", number(value), value / first)
                }
                (Some(value), _) => number(value),
            };
            put(format_args!("{cell:>24}"));
        }
        put(format_args!("\n"));
    }
    text
}

/// As many decimals as say something.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.3}"),
    }
}

/// A row of a comparison: what is compared, with its unit, and its value if there is one.
pub type Row<T> = (&'static str, fn(&T) -> Option<f64>);

/// What is compared of runs.
pub const ROWS: [Row<RunReport>; 8] = [
    ("offered/s", |run| Some(run.offered_per_second())),
    ("answered/s", |run| Some(run.answered_per_second())),
    ("loss, %", |run| Some(run.tally.loss() * 100.0)),
    ("p50, µs", |run| Some(run.latency.quantile_ns(0.5) as f64 / 1e3)),
    ("p99, µs", |run| Some(run.latency.quantile_ns(0.99) as f64 / 1e3)),
    ("p99.9, µs", |run| Some(run.latency.quantile_ns(0.999) as f64 / 1e3)),
    ("max, µs", |run| Some(run.latency.max_ns() as f64 / 1e3)),
    ("server CPU, ns/answer", RunReport::server_ns_per_answer),
];

/// What is compared of searches.
pub const SEARCH_ROWS: [Row<SearchReport>; 11] = [
    ("highest rate kept, /s", |search| Some(search.verdict.as_ref()?.median_per_second)),
    ("  least of the searches, /s", |search| Some(search.verdict.as_ref()?.spread_per_second[0])),
    ("  most of the searches, /s", |search| Some(search.verdict.as_ref()?.spread_per_second[1])),
    ("p50 at half of it, µs", |search| Some(search.latency_us(0.5)?[0])),
    ("p99 at half of it, µs", |search| Some(search.latency_us(0.5)?[2])),
    ("p50 at 90 % of it, µs", |search| Some(search.latency_us(0.9)?[0])),
    ("p99 at 90 % of it, µs", |search| Some(search.latency_us(0.9)?[2])),
    ("answered at 1.5 times it, /s", |search| Some(search.sweep(1.5)?.answered_per_second)),
    ("answered at twice it, /s", |search| Some(search.sweep(2.0)?.answered_per_second)),
    ("server CPU, ns/answer", |search| search.latency(1.0)?.server_ns_per_answer),
    ("trials that lagged, %", |search| {
        let lagged = search.trials.iter().filter(|trial| !trial.faults.is_empty()).count();
        Some(lagged as f64 * 100.0 / search.trials.len().max(1) as f64)
    }),
];

/// The table that ntpperf prints with `-r`, for comparison with published ones: rate, clients,
/// shares of requests, response time.
pub fn ntpperf(runs: &[RunReport]) -> String {
    let mut text = String::from(
        "               |          responses            |        response time (ns)\n\
         rate   clients |  lost invalid   basic  xleave |    min    mean     max stddev\n",
    );
    for run in runs {
        let tally = &run.tally;
        let share = |count: u64| count as f64 * 100.0 / tally.offered.max(1) as f64;
        writeln!(
            text,
            "{:<10.0} {:>4} | {:>5.2}% {:>5.2}% {:>6.2}% {:>6.2}% | {:>+7} {:>+7.0} {:>+7} {:>6.0}",
            run.plan.rate_per_second,
            run.clients,
            share(tally.lost + tally.late + tally.refused),
            share(tally.nak + tally.kisses()),
            share(tally.answered - tally.interleaved),
            share(tally.interleaved),
            run.latency.min_ns(),
            run.latency.mean_ns(),
            run.latency.max_ns(),
            run.latency.deviation_ns(),
        )
        .expect("writing to a string cannot fail");
    }
    text
}
