//! The worker loop: recv, answer, send, sweep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use crossbeam::utils::CachePadded;
use rustix::time::{ClockId, clock_gettime};

use super::Port;
use super::latest::{Follower, Publisher};
use crate::aead::NonceGenerator;
use crate::clock::Clock as _;
use crate::clock::host::HostClock;
use crate::engine::Engine;
use crate::engine::batch::Verdicts;
use crate::engine::terms::Terms;
use crate::limits::{BATCH_DATAGRAMS, LATENCY_UNITS_MAX, WORKER_DRAIN_WAIT};
use crate::page::busiest::BusiestWriter;
use crate::page::histogram::{BATCH, LATENCY, batch_bucket, latency_bucket};
use crate::page::key::SharedRing;
use crate::page::stats::{StatsWriter, WorkerCounters};
use crate::wire::timestamp::NtpTimestamp;

/// One worker: an engine with all that it needs beside the port.
pub struct Worker {
    engine: Engine,
    terms: Follower<Terms>,
    clock: HostClock,
    keys: SharedRing,
    nonces: NonceGenerator,
    stats: StatsWriter<WorkerCounters<'static>>,
    busiest: Option<BusiestWriter>,
    /// When the last batch was sent.
    sent: NtpTimestamp,
    processor_time: ProcessorTime,
}

/// Arrivals of a batch, in its order.
type Arrivals = ArrayVec<NtpTimestamp, BATCH_DATAGRAMS>;

impl Worker {
    /// Puts the parts together. The terms are those of the engine.
    pub fn new(
        engine: Engine,
        clock: HostClock,
        keys: SharedRing,
        nonces: NonceGenerator,
        stats: StatsWriter<WorkerCounters<'static>>,
    ) -> Self {
        let terms = Publisher::new(Terms::default()).follower();
        let (sent, processor_time) = (NtpTimestamp::ZERO, ProcessorTime::default());
        Self { engine, terms, clock, keys, nonces, stats, busiest: None, sent, processor_time }
    }

    /// Counts the networks that ask most, if there is a page for it.
    #[must_use]
    pub fn with_busiest(self, busiest: Option<BusiestWriter>) -> Self {
        Self { busiest, ..self }
    }

    /// With these terms, and those that come after them.
    #[must_use]
    pub fn with_terms(mut self, terms: Follower<Terms>) -> Self {
        self.engine.adopt(terms.value());
        self.terms = terms;
        self
    }

    /// Serves `port` until `stop` is set, then answers what is queued. One turn of the loop is one
    /// batch; `pulse` shows that it turns.
    pub fn run<P: Port>(&mut self, port: &mut P, stop: &AtomicBool, pulse: &Pulse) {
        while !stop.load(Ordering::Relaxed) {
            self.turn(port);
            pulse.beat();
        }
        let deadline = Instant::now() + WORKER_DRAIN_WAIT;
        // A ring that was woken to stop looks at its sockets only when it is asked again.
        let mut empty_turns = 0;
        while empty_turns < 2 && Instant::now() < deadline {
            empty_turns = if self.turn(port) == 0 { empty_turns + 1 } else { 0 };
        }
    }

    fn turn<P: Port>(&mut self, port: &mut P) -> usize {
        let received = port.recv();
        if received > 0 {
            self.answer(port);
        }
        for departed in port.departed() {
            self.engine.departed(departed.ticket, departed.at);
        }
        self.sweep(port, received);
        received
    }

    /// Answers and sends the batch that `port` holds.
    pub fn answer<P: Port>(&mut self, port: &mut P) {
        let mut batch = port.batch();
        let arrivals: Arrivals = batch.iter().map(|datagram| datagram.arrival).collect();
        if let Some(busiest) = &mut self.busiest {
            batch.iter().for_each(|datagram| busiest.count(datagram.source.ip()));
        }
        self.adopt_news();
        // After the batch has come: whatever key its cookies were made with, it is published.
        let keys = self.keys.latest();
        // Nor is a worker that has slept behind the clock role.
        self.clock.refresh();
        let verdicts = self.engine.answer(&mut batch, keys, &self.clock, &mut self.nonces);
        drop(batch);
        let started = self.clock.now();
        port.send(&verdicts);
        self.sent = self.clock.now();
        self.engine.sent(started, self.sent);
        self.observe(&arrivals, &verdicts);
    }

    /// Lets new terms hold, and leaves the old ones.
    fn adopt_news(&mut self) {
        if let Some(terms) = self.terms.news() {
            self.engine.adopt(terms);
        }
    }

    /// Counts the batch that was just sent in the histograms.
    fn observe(&mut self, arrivals: &Arrivals, verdicts: &Verdicts) {
        self.stats.observe(BATCH, batch_bucket(arrivals.len()), arrivals.len() as u64);
        for (arrival, verdict) in arrivals.iter().zip(verdicts) {
            if verdict.reply_bytes > 0 {
                // A clock that was stepped meanwhile makes it negative, or long.
                let units = self.sent.seconds_since(*arrival).clamp(0, LATENCY_UNITS_MAX) as u64;
                let nanoseconds = (units * 1_000_000_000) >> 32;
                self.stats.observe(LATENCY, latency_bucket(nanoseconds), nanoseconds);
            }
        }
    }

    /// What has to be done beside answering: publish what was counted, and leave neither keys nor
    /// old terms lying about when there is nothing to do.
    fn sweep<P: Port>(&mut self, port: &P, received: usize) {
        self.processor_time.look(self.sent, received == 0);
        let counters = WorkerCounters {
            engine: self.engine.counters(),
            port: port.counters(),
            processor_nanoseconds: self.processor_time.nanoseconds,
        };
        self.stats.publish(&counters);
        if let Some(busiest) = &mut self.busiest {
            busiest.turn(Duration::from_secs(self.clock.steady().to_bits() >> 32));
        }
        if received == 0 {
            self.engine.wipe();
            self.keys.latest();
            self.adopt_news();
        }
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Processor time of this thread, asked of the kernel once a second: it costs a system call.
#[derive(Debug, Default)]
struct ProcessorTime {
    nanoseconds: u64,
    /// The second in which it was asked, of an era.
    asked_in: u64,
}

impl ProcessorTime {
    /// Asks if another second has begun, or the worker is idle, which wakes as seldom.
    fn look(&mut self, now: NtpTimestamp, is_idle: bool) {
        let second = now.to_bits() >> 32;
        if is_idle || second != self.asked_in {
            self.asked_in = second;
            let time = clock_gettime(ClockId::ThreadCPUTime);
            self.nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        }
    }
}

/// Shows another thread that a worker's loop turns: at least once in
/// [`SWEEP_INTERVAL`](crate::limits::SWEEP_INTERVAL). Padded: workers share no cache line.
#[derive(Debug, Default)]
pub struct Pulse(CachePadded<AtomicU64>);

impl Pulse {
    /// One turn more.
    fn beat(&self) {
        // The worker alone writes it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Turns so far.
    pub fn turns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
