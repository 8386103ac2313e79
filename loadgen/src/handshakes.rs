//! Full NTS-KE exchanges at a rate: TCP, TLS 1.3, records, each timed.
//!
//! Every exchange has a thread while it lasts. It is due at its time, whether one of them is free
//! or not; what it waits for that shows in its time and as lag.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timeball::ke::client::{ClientError, Options, establish};

use crate::host::ServerUse;
use crate::limits::{GENERATOR_SHARE_MAX, KE_SLEEP, LAGGING_SHARE_MAX, SEND_LAG_MAX};
use crate::plan::Plan;
use crate::record::Times;
use crate::schedule::Schedule;

/// How exchanges are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// At the plan's rate, whatever the server does.
    Open,
    /// One after the other on each thread: the most that the server does for so many clients at a
    /// time. Says little about latency.
    Closed,
}

/// What became of the exchanges.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exchanges {
    /// Exchanges that were begun.
    pub offered: u64,
    /// Of these: keys and cookies came.
    pub completed: u64,
    /// Of these: ended otherwise, by the kind of error.
    pub errors: BTreeMap<String, u64>,
    /// Exchanges that began late because no thread was free.
    pub lagging: u64,
    /// From when an exchange was due to its end.
    pub total: Times,
    /// Of completed exchanges: until TCP was connected.
    pub tcp: Times,
    /// Of completed exchanges: the TLS handshake, as the client sees it.
    pub tls: Times,
    /// Of completed exchanges: from there to the complete answer.
    pub records: Times,
    /// How long exchanges were offered, in seconds.
    pub seconds: f64,
    /// Share of this process's processors that it used.
    pub generator_share: f64,
}

impl Exchanges {
    /// Completed exchanges per second.
    pub fn completed_per_second(&self) -> f64 {
        self.completed as f64 / self.seconds
    }

    /// Why the figures say more about the generator than about the server; empty if they do not.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let lagging_share = self.lagging as f64 / self.offered.max(1) as f64;
        if lagging_share > LAGGING_SHARE_MAX {
            faults.push(format!(
                "{:.1} % of the exchanges began late because no thread was free: raise \
                 --concurrency, or ask for less",
                lagging_share * 100.0
            ));
        }
        if self.generator_share > GENERATOR_SHARE_MAX {
            faults.push(format!(
                "the generator used {:.0} % of its processors: a client's part of an exchange \
                 costs as much as a server's; give it more of them",
                self.generator_share * 100.0
            ));
        }
        faults
    }

    fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.completed += other.completed;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.lagging += other.lagging;
        self.total.add(&other.total);
        self.tcp.add(&other.tcp);
        self.tls.add(&other.tls);
        self.records.add(&other.records);
    }

    fn note(&mut self, result: Result<timeball::ke::client::Established, ClientError>) {
        match result {
            Ok(established) => {
                let (connected, shaken) = (established.connected, established.shaken);
                self.completed += 1;
                self.tcp.record(nanoseconds(connected));
                self.tls.record(nanoseconds(shaken.saturating_sub(connected)));
                self.records.record(nanoseconds(established.elapsed.saturating_sub(shaken)));
            }
            Err(error) => *self.errors.entry(kind(&error).to_owned()).or_default() += 1,
        }
    }
}

/// Offers exchanges with `options` as `plan` says (rate, shape, duration, cap), `concurrency` at a
/// time. `stop` ends the offer. `done` is told after each.
pub fn shake(
    options: &Options,
    plan: &Plan,
    pace: Pace,
    concurrency: usize,
    stop: &AtomicBool,
    done: impl Fn() + Sync,
) -> Exchanges {
    let schedule = Mutex::new(Schedule::new(plan, 0));
    let pid = std::process::id();
    let cpu_before = ServerUse::of(pid);
    let begin = Instant::now();
    let now_ns = || begin.elapsed().as_nanos() as u64;
    let next_ns = || {
        let mut schedule = schedule.lock().unwrap_or_else(PoisonError::into_inner);
        match pace {
            Pace::Open => schedule.take(u64::MAX),
            Pace::Closed => Some(now_ns()).filter(|now_ns| {
                *now_ns < plan.duration.as_nanos() as u64 && schedule.take(u64::MAX).is_some()
            }),
        }
    };
    let work = || {
        let mut exchanges = Exchanges::default();
        while let Some(due_ns) = next_ns() {
            while now_ns() < due_ns && !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_nanos(due_ns - now_ns().min(due_ns)).min(KE_SLEEP));
            }
            // What is due after the end only waited for a free thread.
            let overtime = plan.duration + options.timeout;
            if stop.load(Ordering::Relaxed) || begin.elapsed() > overtime {
                break;
            }
            let lag_ns = now_ns().saturating_sub(due_ns);
            exchanges.offered += 1;
            exchanges.lagging += u64::from(lag_ns > 10 * SEND_LAG_MAX.as_nanos() as u64);
            exchanges.note(establish(options));
            exchanges.total.record(now_ns().saturating_sub(due_ns).max(1));
            done();
        }
        exchanges
    };
    let mut all = Exchanges::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..concurrency).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            all.add(&thread.join().expect("no panic"));
        }
    });
    let wall = begin.elapsed();
    all.seconds = wall.as_secs_f64();
    let cpu =
        ServerUse::of(pid).zip(cpu_before).map_or(0, |(after, before)| after.since(&before).cpu_ns);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    all.generator_share = cpu as f64 / (wall.as_nanos() as f64 * processors as f64);
    all
}

fn nanoseconds(duration: Duration) -> u64 {
    (duration.as_nanos() as u64).max(1)
}

/// What went wrong, in a word or two.
fn kind(error: &ClientError) -> &'static str {
    match error {
        ClientError::Name { .. } | ClientError::Lookup { .. } => "name",
        ClientError::Connect { .. } => "TCP refused or unreachable",
        ClientError::Timeout { .. } => "timeout",
        ClientError::Broken { .. } => "connection broke",
        ClientError::Certificate { .. } => "certificate",
        ClientError::Tls { .. } => "TLS",
        ClientError::NoAlpn { .. } => "no ALPN ntske/1",
        ClientError::Closed { .. } => "closed without an answer",
        ClientError::Framing { .. } => "framing of the answer",
        ClientError::Answer { .. } => "refused or no keys",
    }
}
