//! A run for people and programs.

pub mod terminal;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::host::{Host, ServerUse};
use crate::plan::Plan;
use crate::record::{Interval, Tally, Times};
use crate::reflector::SelfTest;

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
        let answers = self.tally.answered + self.tally.late + self.tally.nak + self.tally.kisses();
        let server = self.server.filter(|_| answers > 0)?;
        Some(server.cpu_ns as f64 / answers as f64)
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
