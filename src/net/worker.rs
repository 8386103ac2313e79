//! The worker loop: recv, answer, send, sweep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam::utils::CachePadded;

use super::Port;
use crate::aead::NonceGenerator;
use crate::clock::Clock as _;
use crate::clock::host::HostClock;
use crate::engine::Engine;
use crate::limits::WORKER_DRAIN_WAIT;
use crate::page::key::SharedRing;
use crate::page::stats::{StatsWriter, WorkerCounters};

/// One worker: an engine with all that it needs beside the port.
pub struct Worker {
    engine: Engine,
    clock: HostClock,
    keys: SharedRing,
    nonces: NonceGenerator,
    stats: StatsWriter<WorkerCounters<'static>>,
}

impl Worker {
    /// Puts the parts together.
    pub fn new(
        engine: Engine,
        clock: HostClock,
        keys: SharedRing,
        nonces: NonceGenerator,
        stats: StatsWriter<WorkerCounters<'static>>,
    ) -> Self {
        Self { engine, clock, keys, nonces, stats }
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
        // After the batch has come: whatever key its cookies were made with, it is published.
        let keys = self.keys.latest();
        // Nor is a worker that has slept behind the clock role.
        self.clock.refresh();
        let verdicts = self.engine.answer(&mut batch, keys, &self.clock, &mut self.nonces);
        drop(batch);
        let started = self.clock.now();
        port.send(&verdicts);
        self.engine.sent(started, self.clock.now());
    }

    /// What has to be done beside answering: publish what was counted, and leave no keys lying
    /// about when there is nothing to do.
    fn sweep<P: Port>(&mut self, port: &P, received: usize) {
        let counters = WorkerCounters { engine: self.engine.counters(), port: port.counters() };
        self.stats.publish(&counters);
        if received == 0 {
            self.engine.wipe();
            self.keys.latest();
        }
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
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
