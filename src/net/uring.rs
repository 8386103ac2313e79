//! The uring port: the kernel's sockets through a ring of receives and sends.
//!
//! One `io_uring_enter` for each batch sends the replies and receives what has come meanwhile. A
//! batch may hold datagrams of several sockets; each reply leaves by its own.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};

use super::hardware::Translator;
use super::lend::{DropCounts, lend};
use super::stamps::Stamps;
use super::{Batch, Departed, Port, PortCounters};
use crate::engine::batch::Verdicts;
use crate::limits::{SOCKETS_PER_WORKER, SWEEP_INTERVAL};
use crate::sys::uring::{Event, Obstacle, Ring};

/// See the module. It can be used by the thread that made it only.
pub struct UringPort {
    ring: Ring,
    sockets: Vec<UdpSocket>,
    drop_counts: DropCounts,
    stamps: Stamps,
    /// For timestamps of interfaces, if they are wanted.
    hardware: Option<Translator>,
    counters: PortCounters,
}

/// There is no ring to be had. What it would have served comes back, for another port.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct UringUnavailable {
    /// Why, in one sentence.
    pub reason: Obstacle,
    /// As given.
    pub sockets: Vec<UdpSocket>,
    /// As given.
    pub wake: OwnedFd,
}

impl UringPort {
    /// Serves `sockets`, as [`crate::sys::socket::open_udp`] makes them. `wake` ends a wait when
    /// it becomes readable.
    ///
    /// # Panics
    /// If there are no sockets or more than [`SOCKETS_PER_WORKER`]: the configuration is checked
    /// for both.
    pub fn new(sockets: Vec<UdpSocket>, wake: OwnedFd) -> Result<Self, UringUnavailable> {
        assert!((1..=SOCKETS_PER_WORKER).contains(&sockets.len()));
        match Ring::open(&sockets, wake.as_fd()) {
            // The ring has a reference of its own to the wake descriptor.
            Ok(ring) => Ok(Self {
                ring,
                drop_counts: DropCounts::of(&sockets),
                stamps: Stamps::of(&sockets),
                hardware: None,
                sockets,
                counters: PortCounters::default(),
            }),
            Err(reason) => Err(UringUnavailable { reason, sockets, wake }),
        }
    }

    /// With timestamps of interfaces.
    #[must_use]
    pub fn with_hardware(mut self, translator: Option<Translator>) -> Self {
        self.hardware = translator;
        self
    }

    /// Takes what has completed, up to a batch of datagrams. Whether the port was woken.
    fn take(&mut self) -> bool {
        let mut is_woken = false;
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Datagram => {}
                Event::BuffersExhausted => self.counters.buffers_exhausted += 1,
                Event::ReceiveFailed { socket } => {
                    self.counters.receive_errors += 1;
                    // Takes the pending error away, which receiving would else meet again.
                    let _ = self.sockets[socket].take_error();
                }
                Event::SendFailed(error) => {
                    // Whose reply it was is not told; it may have asked.
                    (0..self.sockets.len()).for_each(|socket| self.stamps.send_failed(socket));
                    match error.kind() {
                        io::ErrorKind::WouldBlock => self.counters.send_buffer_full += 1,
                        _ => self.counters.send_errors += 1,
                    }
                }
                Event::Woken => is_woken = true,
            }
        }
        is_woken
    }
}

impl Port for UringPort {
    fn recv(&mut self) -> usize {
        let is_woken = self.take();
        if self.ring.taken() == 0 && !is_woken {
            match self.ring.wait(SWEEP_INTERVAL) {
                Ok(()) => {
                    self.take();
                }
                Err(_) => self.counters.receive_errors += 1,
            }
        }
        self.ring.taken()
    }

    fn batch(&mut self) -> Batch<'_> {
        let Self { ring, drop_counts, counters, hardware, .. } = self;
        lend(ring.letters(), drop_counts, counters, hardware.as_mut())
    }

    /// Unlike the mmsg port this one does not wait for room in a full send buffer: what became of
    /// a reply is known only when the next batch is received, and counted then.
    fn send(&mut self, verdicts: &Verdicts) {
        for (place, verdict) in verdicts.iter().enumerate() {
            if verdict.reply_bytes > 0 {
                if let Some(ticket) = verdict.departure {
                    let (socket, envelope) = self.ring.envelope(place);
                    self.stamps.ask(socket, ticket, envelope);
                }
                self.ring.queue_reply(place, verdict.reply_bytes.into());
            }
        }
        self.ring.flush();
    }

    /// Off the error queues of the sockets, beside the ring: its own receives cannot read them.
    fn departed(&mut self) -> &[Departed] {
        self.stamps.collect(&self.sockets, &mut self.counters, self.hardware.as_mut())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
