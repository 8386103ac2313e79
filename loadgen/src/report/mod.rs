//! A run for people and programs.

mod chart;
pub mod html;
pub mod terminal;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::counters::Sample;
use crate::host::{Host, ServerUse};
use crate::plan::Plan;
use crate::record::{Interval, Tally, Times};
use crate::reflector::SelfTest;
use crate::search::{Goal, Purpose, Trial, Verdict};

/// Everything about one run; what `--json` writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// Name and version of the generator.
    pub program: String,
    /// How it was called.
    pub command_line: String,
    /// When the run began, in seconds since 1970.
    pub begun: i64,
    /// Where the generator ran.
    pub host: Host,
    /// What was offered.
    pub plan: Plan,
    /// Simulated clients.
    pub clients: usize,
    /// How long requests left, in seconds.
    pub offer_seconds: f64,
    /// Ended before its time.
    pub interrupted: bool,
    /// Why the figures say more about the generator than the server; empty if they do not.
    pub faults: Vec<String>,
    /// What the self-test found, if there was one.
    pub self_test: Option<SelfTest>,
    /// What the server's process used, if it was looked at.
    pub server: Option<ServerUse>,
    /// What the server counted itself, if it was asked, a sample a second; the last is of all.
    pub server_counters: Vec<Sample>,
    /// What became of requests and datagrams.
    pub tally: Tally,
    /// From when a request was due to its answer's arrival: pairs of nanoseconds and count.
    pub latency: Times,
    /// From when a request was due to when it left: pairs of nanoseconds and count.
    pub send_lag: Times,
    /// The course of it.
    pub seconds: Vec<Second>,
}

/// One second of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Requests that left.
    pub offered: u64,
    /// Answers that came in time.
    pub answered: u64,
    /// Requests that were given up.
    pub lost: u64,
    /// Median latency in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the latency in nanoseconds.
    pub p99_ns: u64,
    /// The longest latency in nanoseconds.
    pub max_ns: u64,
}

impl Second {
    /// Of what was recorded in it.
    pub fn of(interval: &Interval) -> Self {
        Self {
            offered: interval.tally.offered,
            answered: interval.tally.answered,
            lost: interval.tally.lost,
            p50_ns: interval.latency.quantile_ns(0.5),
            p99_ns: interval.latency.quantile_ns(0.99),
            max_ns: interval.latency.max_ns(),
        }
    }
}

impl RunReport {
    /// Requests per second that left, over the time they were meant for.
    pub fn offered_per_second(&self) -> f64 {
        self.tally.offered as f64 / self.offer_seconds
    }

    /// Good answers per second, over the same time.
    pub fn answered_per_second(&self) -> f64 {
        self.tally.answered as f64 / self.offer_seconds
    }

    /// CPU time of the server per answer, in nanoseconds.
    pub fn server_ns_per_answer(&self) -> Option<f64> {
        self.server.and_then(|server| server.ns_per_answer(&self.tally))
    }
}

/// A line for each second.
pub fn csv(report: &RunReport) -> String {
    let mut text = String::from("second,offered,answered,lost,p50_ns,p99_ns,max_ns\n");
    for (number, second) in report.seconds.iter().enumerate() {
        let Second { offered, answered, lost, p50_ns, p99_ns, max_ns } = second;
        writeln!(text, "{number},{offered},{answered},{lost},{p50_ns},{p99_ns},{max_ns}")
            .expect("writing to a string cannot fail");
    }
    text
}

/// Everything about one search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchReport {
    /// Name and version of the generator.
    pub program: String,
    /// How it was called.
    pub command_line: String,
    /// When the search began, in seconds since 1970.
    pub begun: i64,
    /// Where the generator ran.
    pub host: Host,
    /// What every trial offered, but for the rate.
    pub plan: Plan,
    /// What was looked for.
    pub goal: Goal,
    /// What was found; nothing if the search was interrupted.
    pub verdict: Option<Verdict>,
    /// The trials in their order.
    pub trials: Vec<Trial>,
}

impl SearchReport {
    /// The trial at this share of what was found.
    pub fn latency(&self, share: f64) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.purpose == Purpose::Latency(share))
    }

    /// Its latency quantiles in microseconds: 0.5, 0.9, 0.99, 0.999.
    pub fn latency_us(&self, share: f64) -> Option<[f64; 4]> {
        Some(self.latency(share)?.latency_ns.map(|ns| ns as f64 / 1e3))
    }

    /// The trial of the overload curve at this share of what was found.
    pub fn sweep(&self, share: f64) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.purpose == Purpose::Sweep(share))
    }
}

/// What `--json` wrote.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Document {
    /// By `search`.
    Search(Box<SearchReport>),
    /// By `ntp` or `nts`.
    Run(Box<RunReport>),
    /// By `mix`: its parts.
    Mix(Vec<RunReport>),
}

/// A line for each trial.
pub fn search_csv(report: &SearchReport) -> String {
    let mut text = String::from(
        "purpose,planned_per_s,offered_per_s,answered_per_s,loss,\
         p50_ns,p90_ns,p99_ns,p999_ns,server_ns_per_answer,valid\n",
    );
    for trial in &report.trials {
        let [p50, p90, p99, p999] = trial.latency_ns;
        writeln!(
            text,
            "{},{:.1},{:.1},{:.1},{:.6},{p50},{p90},{p99},{p999},{},{}",
            terminal::purpose(trial.purpose),
            trial.rate_per_second,
            trial.offered_per_second,
            trial.answered_per_second,
            trial.tally.loss(),
            trial.server_ns_per_answer.map(|ns| format!("{ns:.0}")).unwrap_or_default(),
            trial.faults.is_empty()
        )
        .expect("writing to a string cannot fail");
    }
    text
}

/// Runs of several generators at the same time on one server, as one. Quantiles of a second cannot
/// be added: the highest of them stands there.
pub fn merge(runs: &[RunReport]) -> Option<RunReport> {
    let (first, others) = runs.split_first()?;
    let mut merged = first.clone();
    for run in others {
        merged.command_line = format!("{}\n{}", merged.command_line, run.command_line);
        merged.begun = merged.begun.min(run.begun);
        merged.plan.rate_per_second += run.plan.rate_per_second;
        merged.clients += run.clients;
        merged.offer_seconds = merged.offer_seconds.max(run.offer_seconds);
        merged.interrupted |= run.interrupted;
        merged.faults.extend(run.faults.iter().cloned());
        merged.self_test = None;
        merged.server = merged.server.or(run.server);
        if merged.server_counters.is_empty() {
            merged.server_counters.clone_from(&run.server_counters);
        }
        merged.tally.add(&run.tally);
        merged.latency.add(&run.latency);
        merged.send_lag.add(&run.send_lag);
        for (number, second) in run.seconds.iter().enumerate() {
            match merged.seconds.get_mut(number) {
                None => merged.seconds.push(second.clone()),
                Some(into) => {
                    into.offered += second.offered;
                    into.answered += second.answered;
                    into.lost += second.lost;
                    into.p50_ns = into.p50_ns.max(second.p50_ns);
                    into.p99_ns = into.p99_ns.max(second.p99_ns);
                    into.max_ns = into.max_ns.max(second.max_ns);
                }
            }
        }
    }
    Some(merged)
}
