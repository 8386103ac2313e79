//! The mmsg port: the kernel's sockets through `recvmmsg` and `sendmmsg`.
//!
//! The port to read first, and the one that works everywhere. One batch comes from one socket; the
//! sockets take turns (`turns`). When none has a datagram the port asks on for a while, if
//! it is told to, and then waits in `poll` until one has, until the next sweep is due, or until it
//! is woken to stop.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::hardware::Translator;
use super::lend::{DropCounts, lend};
use super::stamps::Stamps;
use super::turns::Turns;
use super::{Batch, Departed, Port, PortCounters};
use crate::engine::batch::Verdicts;
use crate::limits::{
    BATCH_DATAGRAMS, DATAGRAM_BYTES, SEND_BUFFER_WAIT, SOCKETS_PER_WORKER, SWEEP_INTERVAL,
};
use crate::sys::message::{Envelope, Payload};
use crate::sys::mmsg::{self, Outgoing};

/// See the module.
#[derive(Debug)]
pub struct MmsgPort {
    sockets: Vec<UdpSocket>,
    drop_counts: DropCounts,
    stamps: Stamps,
    /// For timestamps of interfaces, if they are wanted.
    hardware: Option<Translator>,
    /// Readable when the worker shall stop.
    wake: OwnedFd,
    /// How long it asks on before it waits.
    busy_poll: Duration,
    payloads: Box<[Payload; BATCH_DATAGRAMS]>,
    envelopes: Box<[Envelope; BATCH_DATAGRAMS]>,
    turns: Turns,
    /// The socket that the batch came from.
    turn: usize,
    received: usize,
    counters: PortCounters,
}

impl MmsgPort {
    /// Serves `sockets`, as [`crate::sys::socket::open_udp`] makes them. `wake` ends a wait when
    /// it becomes readable; there is none before `busy_poll` has passed without a datagram.
    ///
    /// # Panics
    /// If there are no sockets or more than [`SOCKETS_PER_WORKER`]: the configuration is checked
    /// for both.
    pub fn new(sockets: Vec<UdpSocket>, wake: OwnedFd, busy_poll: Duration) -> Self {
        assert!((1..=SOCKETS_PER_WORKER).contains(&sockets.len()));
        Self {
            drop_counts: DropCounts::of(&sockets),
            stamps: Stamps::of(&sockets),
            hardware: None,
            turns: Turns::new(sockets.len(), 0),
            sockets,
            wake,
            busy_poll,
            payloads: Box::new([[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS]),
            envelopes: Box::new([Envelope::EMPTY; BATCH_DATAGRAMS]),
            turn: 0,
            received: 0,
            counters: PortCounters::default(),
        }
    }

    /// With timestamps of interfaces.
    #[must_use]
    pub fn with_hardware(mut self, translator: Option<Translator>) -> Self {
        self.hardware = translator;
        self
    }

    /// Lets the first `count` sockets go before the others: NTS requests come to them.
    #[must_use]
    pub fn with_nts_sockets(self, count: usize) -> Self {
        Self { turns: Turns::new(self.sockets.len(), count), ..self }
    }

    /// Asks each socket once, in turn.
    fn try_recv(&mut self) -> usize {
        for (place, most) in self.turns.order() {
            self.turn = place;
            let socket = self.sockets[place].as_fd();
            match mmsg::recv(socket, &mut self.payloads[..most], &mut *self.envelopes) {
                Ok(received) => {
                    self.turns.took(place, received);
                    return received;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.counters.receive_errors += 1;
                    // Takes the pending error away, which `poll` would else report for ever.
                    let _ = self.sockets[self.turn].take_error();
                }
            }
        }
        0
    }

    /// Asks each socket, over and over, until one has a datagram or the time is over.
    fn poll_busily(&mut self) -> usize {
        let mut received = self.try_recv();
        if received == 0 && !self.busy_poll.is_zero() {
            let start = Instant::now();
            while received == 0 && start.elapsed() < self.busy_poll {
                received = self.try_recv();
            }
        }
        received
    }

    fn wait(&mut self) {
        let mut interests: ArrayVec<PollFd<'_>, { SOCKETS_PER_WORKER + 1 }> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .chain([PollFd::new(&self.wake, PollFlags::IN)])
            .collect();
        let timeout = Timespec {
            tv_sec: SWEEP_INTERVAL.as_secs() as i64,
            tv_nsec: SWEEP_INTERVAL.subsec_nanos().into(),
        };
        // Interrupted or failed, the loop comes round again: a wait has no other result.
        let _ = poll(&mut interests, Some(&timeout));
        for (socket, interest) in interests[..self.sockets.len()].iter().enumerate() {
            // Else an error queue that is not empty would end every wait.
            if interest.revents().contains(PollFlags::ERR) {
                self.stamps.look_at(socket);
            }
        }
    }
}

impl Port for MmsgPort {
    fn recv(&mut self) -> usize {
        self.received = self.poll_busily();
        if self.received == 0 {
            self.wait();
            self.received = self.try_recv();
        }
        self.received
    }

    fn batch(&mut self) -> Batch<'_> {
        let received = self.payloads.iter_mut().zip(&mut *self.envelopes).take(self.received);
        let received = received.map(|(payload, envelope)| (self.turn, payload, envelope));
        lend(received, &mut self.drop_counts, &mut self.counters, self.hardware.as_mut())
    }

    fn send(&mut self, verdicts: &Verdicts) {
        let socket = self.sockets[self.turn].as_fd();
        let mut asking: ArrayVec<bool, BATCH_DATAGRAMS> = ArrayVec::new();
        let mut outgoing: ArrayVec<Outgoing<'_>, BATCH_DATAGRAMS> = self
            .payloads
            .iter_mut()
            .zip(&mut *self.envelopes)
            .zip(verdicts)
            .filter(|(_, verdict)| verdict.reply_bytes > 0)
            .map(|((payload, envelope), verdict)| {
                let ticket = verdict.departure;
                asking.push(ticket.is_some_and(|it| self.stamps.ask(self.turn, it, envelope)));
                Outgoing { payload: &mut payload[..verdict.reply_bytes.into()], envelope }
            })
            .collect();
        let mut rest = &mut outgoing[..];
        let mut asking = &asking[..];
        let mut waited = false;
        while !rest.is_empty() {
            // How many are done with, and how many of them, or of those to be tried again, did not
            // leave.
            let (done, failed) = match mmsg::send(socket, rest) {
                Ok(sent) => (sent, 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !waited => {
                    wait_for_send_buffer(&self.sockets[self.turn]);
                    waited = true;
                    (0, 1)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.send_buffer_full += rest.len() as u64;
                    (rest.len(), rest.len())
                }
                // The error is the first reply's; the others may still go.
                Err(_) => {
                    self.counters.send_errors += 1;
                    (1, 1)
                }
            };
            if asking[..failed].contains(&true) {
                self.stamps.send_failed(self.turn);
            }
            rest = &mut rest[done..];
            asking = &asking[done..];
        }
    }

    fn departed(&mut self) -> &[Departed] {
        self.stamps.collect(&self.sockets, &mut self.counters, self.hardware.as_mut())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

/// Bounded: an interface that takes nothing must not stop the worker from serving the others.
fn wait_for_send_buffer(socket: &UdpSocket) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: SEND_BUFFER_WAIT.subsec_nanos().into() };
    let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout));
}
