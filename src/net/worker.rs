//! The worker loop: recv, answer, send, sweep.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Port;
use crate::aead::NonceGenerator;
use crate::clock::Clock as _;
use crate::clock::source::HostClock;
use crate::cookie::ring::KeyRing;
use crate::engine::Engine;

/// One worker: an engine with all that it needs beside the port.
pub struct Worker {
    engine: Engine,
    clock: HostClock,
    keys: KeyRing,
    nonces: NonceGenerator,
}

impl Worker {
    /// Puts the parts together.
    pub fn new(engine: Engine, clock: HostClock, keys: KeyRing, nonces: NonceGenerator) -> Self {
        Self { engine, clock, keys, nonces }
    }

    /// Serves `port` until `stop` is set. One turn of the loop is one batch.
    pub fn run<P: Port>(&mut self, port: &mut P, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let received = port.recv();
            if received > 0 {
                self.answer(port);
            }
            self.sweep(received);
        }
    }

    /// Answers and sends the batch that `port` holds.
    pub fn answer<P: Port>(&mut self, port: &mut P) {
        let mut batch = port.batch();
        let verdicts = self.engine.answer(&mut batch, &self.keys, &self.clock, &mut self.nonces);
        drop(batch);
        let started = self.clock.now();
        port.send(&verdicts);
        self.engine.sent(started, self.clock.now());
    }

    /// What has to be done now and then: look at the clock, and leave no keys lying about when
    /// there is nothing to do.
    fn sweep(&mut self, received: usize) {
        self.clock.refresh();
        if received == 0 {
            self.engine.wipe();
        }
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
