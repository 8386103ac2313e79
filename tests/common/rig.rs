//! A socket port with an engine and a test's hand on it.

use std::io::{PipeWriter, Write as _, pipe};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use timeball::engine::outcome::Outcome;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::net::mmsg::MmsgPort;
use timeball::net::uring::{UringPort, UringUnavailable};
use timeball::net::{Port, PortCounters};

use super::Bench;
use super::server::ANSWER_WAIT;

/// A port with what a test needs around it.
pub struct Rig {
    pub port: Box<dyn Port>,
    pub has_ring: bool,
    /// Addresses of its sockets.
    pub addresses: Vec<SocketAddr>,
    /// Wakes the port.
    pub waker: PipeWriter,
    pub bench: Bench,
}

impl Rig {
    /// The uring port or the mmsg port over `sockets`.
    pub fn open(has_ring: bool, sockets: Vec<UdpSocket>) -> Result<Self, UringUnavailable> {
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let (wake, waker) = pipe().expect("a pipe");
        let port: Box<dyn Port> = if has_ring {
            Box::new(UringPort::new(sockets, wake.into())?)
        } else {
            Box::new(MmsgPort::new(sockets, wake.into(), Duration::ZERO))
        };
        Ok(Self { port, has_ring, addresses, waker, bench: Bench::new() })
    }

    /// Answers until `datagrams` were received; what became of them.
    pub fn serve(&mut self, datagrams: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let start = Instant::now();
        while outcomes.len() < datagrams {
            assert!(start.elapsed() < ANSWER_WAIT, "{} of {datagrams} came", outcomes.len());
            outcomes.extend(self.turn());
        }
        outcomes
    }

    /// One turn of the loop: answers one batch, if one comes before the next sweep.
    pub fn turn(&mut self) -> Vec<Outcome> {
        let received = self.port.recv();
        assert!(received <= BATCH_DATAGRAMS);
        if received == 0 {
            return Vec::new();
        }
        let mut batch = self.port.batch();
        assert_eq!(batch.len(), received);
        let Bench { engine, keys, clock, nonces, .. } = &mut self.bench;
        let verdicts = engine.answer(&mut batch, keys, clock, nonces);
        drop(batch);
        self.port.send(&verdicts);
        self.collect();
        verdicts.iter().map(|verdict| verdict.outcome).collect()
    }

    /// Tells the engine of the departures that the port knows by now.
    fn collect(&mut self) {
        for departed in self.port.departed() {
            self.bench.engine.departed(departed.ticket, departed.at);
        }
    }

    /// Counters, after a look at what became of the last replies.
    pub fn counters(&mut self) -> PortCounters {
        self.waker.write_all(&[1]).expect("the port holds the pipe");
        assert_eq!(self.port.recv(), 0);
        self.collect();
        self.port.counters()
    }
}

pub fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let bytes = client.recv(&mut buffer).expect("a reply");
    buffer.truncate(bytes);
    buffer
}
