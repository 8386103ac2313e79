//! A run: its threads, what they found, and whether it says anything about the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::associations::MemoryError;
use crate::limits::{HEAD_START, LAGGING_SHARE_MAX, SEND_LAG_MAX, TICK};
use crate::plan::Plan;
use crate::pump::{Clock, Pump, PumpError, settle_thread};
use crate::record::{Interval, Tally};
use crate::request::Clients;

/// What a run found.
pub struct Found {
    /// All of it.
    pub total: Interval,
    /// Each interval of [`crate::limits::INTERVAL`]; the last ones are of waiting only.
    pub intervals: Vec<Interval>,
    /// The clients, with the cookies that they have now.
    pub clients: Vec<Clients>,
    /// How long requests left: the plan's duration, unless it was cut short or took longer.
    pub offer_time: Duration,
    /// Threads that could not be pinned to their processor.
    pub unpinned: usize,
}

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread has not what it needs.
    #[error(transparent)]
    Pump(#[from] PumpError),
    /// Too many clients.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Runs `plan`, with the clients of each thread. `progress` is told of the total so far and the
/// last interval, some times a second. `stop` ends the run early, with the results so far.
pub fn run(
    plan: &Plan,
    clients: Vec<Clients>,
    stop: &AtomicBool,
    mut progress: impl FnMut(Duration, &Interval),
) -> Result<Found, RunError> {
    assert_eq!(clients.len(), plan.cpus.len(), "each thread has its clients");
    let pumps: Vec<Pump> = clients
        .into_iter()
        .enumerate()
        .map(|(thread, clients)| Pump::new(plan, thread, clients))
        .collect::<Result<_, _>>()?;
    let (sender, reports) = channel();
    let clock = Clock::begin_in(HEAD_START);
    let mut intervals: Vec<Interval> = Vec::new();
    let mut total = Interval::default();
    let mut sent_ns = 0;
    thread::scope(|scope| {
        let threads: Vec<_> = pumps
            .into_iter()
            .zip(&plan.cpus)
            .map(|(pump, cpu)| {
                let sender = sender.clone();
                scope.spawn(move || {
                    let is_pinned = settle_thread(*cpu);
                    (pump.run(clock, stop, &sender), is_pinned)
                })
            })
            .collect();
        drop(sender);
        loop {
            match reports.recv_timeout(TICK) {
                Ok(report) => {
                    let count = intervals.len().max(report.interval + 1);
                    intervals.resize_with(count, Interval::default);
                    intervals[report.interval].add(&report.recorded);
                    total.add(&report.recorded);
                    sent_ns = sent_ns.max(report.sent_ns);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            progress(Duration::from_nanos(clock.now_ns()), &total);
        }
        let ends: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let unpinned = ends.iter().filter(|(_, is_pinned)| !is_pinned).count();
        let clients = ends.into_iter().map(|(clients, _)| clients).collect();
        let is_short = total.tally.offered >= plan.requests_max || stop.load(Ordering::Relaxed);
        let sent = Duration::from_nanos(sent_ns.max(1));
        let offer_time = if is_short { sent } else { sent.max(plan.duration) };
        Ok(Found { total, intervals, clients, offer_time, unpinned })
    })
}

/// Why the figures say more about the generator than about the server; empty if they do not.
pub fn faults(tally: &Tally) -> Vec<String> {
    let mut faults = Vec::new();
    let lagging_share = tally.lagging as f64 / tally.offered.max(1) as f64;
    if lagging_share > LAGGING_SHARE_MAX {
        faults.push(format!(
            "{:.1} % of the requests left more than {SEND_LAG_MAX:?} after they were due: the \
             generator was the limit; give it processors of its own, or ask for less",
            lagging_share * 100.0
        ));
    }
    if tally.own_drops > 0 {
        faults.push(format!(
            "the kernel dropped {} answers at the generator's own sockets; raise \
             net.core.rmem_max, or verify fewer answers (--verify 1/N)",
            tally.own_drops
        ));
    }
    if tally.crowded_out > 0 {
        faults.push(format!(
            "{} requests were given up early because too many were in flight; shorten --timeout",
            tally.crowded_out
        ));
    }
    if tally.refused > 0 {
        faults.push(format!(
            "the kernel refused to send {} requests; look at the route, the firewall and the \
             interface's queue",
            tally.refused
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_at_fault_for_what_the_generator_did_only() {
        let fine = Tally { offered: 1000, answered: 1, lost: 999, lagging: 10, ..Tally::default() };
        assert!(faults(&fine).is_empty(), "{:?}", faults(&fine));
        for (tally, word) in [
            (Tally { offered: 1000, lagging: 11, ..Tally::default() }, "1.1 %"),
            (Tally { own_drops: 1, ..Tally::default() }, "rmem_max"),
            (Tally { crowded_out: 1, ..Tally::default() }, "--timeout"),
            (Tally { refused: 1, ..Tally::default() }, "refused"),
        ] {
            let faults = faults(&tally);
            assert!(faults.len() == 1 && faults[0].contains(word), "{faults:?}");
        }
    }
}
