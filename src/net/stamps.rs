//! Transmit timestamps of the kernel, for the few replies whose departure the engine wants to know.
//!
//! Such a reply asks for its timestamp by a control message, and the kernel puts it into the
//! error queue of the reply's socket: mostly before the send call returns, later if the interface
//! was busy, never if its driver cannot. What comes has a number, and nothing else says which reply
//! it is of: the kernel counts the replies of a socket that ask (`SOF_TIMESTAMPING_OPT_ID`). It does
//! not say where it began, a socket is older than its worker, and a send that fails may be
//! counted or not. So the number is learned: while it is not known, one reply asks at a time, and
//! the timestamp that comes is taken for its own. The engine checks every time against what it
//! expects.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::PortCounters;
use crate::engine::batch::Ticket;
use crate::limits::{
    BATCH_DATAGRAMS, SOCKETS_PER_WORKER, STAMP_LOOKS, STAMP_WAIT, STAMPS_IN_FLIGHT,
};
use crate::sys::message::Envelope;
use crate::sys::mmsg;
use crate::wire::timestamp::NtpTimestamp;

/// A reply that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// From its verdict.
    pub ticket: Ticket,
    /// When the device driver took it.
    pub at: NtpTimestamp,
}

/// The replies of a port that asked, and what came for them.
#[derive(Debug)]
pub(super) struct Stamps {
    sockets: ArrayVec<Series, SOCKETS_PER_WORKER>,
    /// Sockets whose error queue is to be looked at, a bit each.
    looks: u64,
    envelopes: Box<[Envelope; BATCH_DATAGRAMS]>,
    departed: ArrayVec<Departed, BATCH_DATAGRAMS>,
}

const _: () = assert!(SOCKETS_PER_WORKER <= u64::BITS as usize, "a socket is a bit");

impl Stamps {
    /// For this many sockets.
    pub(super) fn new(sockets: usize) -> Self {
        Self {
            sockets: (0..sockets).map(|_| Series::NEW).collect(),
            looks: 0,
            envelopes: Box::new([Envelope::EMPTY; BATCH_DATAGRAMS]),
            departed: ArrayVec::new(),
        }
    }

    /// Makes the reply that leaves by `socket` next ask for its timestamp, unless that could not be
    /// told to be its own. Returns whether it asks.
    pub(super) fn ask(&mut self, socket: usize, ticket: Ticket, envelope: &mut Envelope) -> bool {
        let can_ask = self.sockets[socket].ask(ticket);
        if can_ask {
            envelope.ask_for_stamp();
            self.looks |= 1 << socket;
        }
        can_ask
    }

    /// A reply of `socket` that asked did not leave: whether the kernel counted it is not known.
    pub(super) fn send_failed(&mut self, socket: usize) {
        self.sockets[socket].number = Number::Unknown;
    }

    /// There is something in the error queue of `socket`.
    pub(super) fn look_at(&mut self, socket: usize) {
        self.looks |= 1 << socket;
    }

    /// Takes what has come off the error queues, a batch at most. Nothing is asked of the kernel
    /// unless a timestamp is due or the kernel said that there is something.
    pub(super) fn collect(
        &mut self,
        sockets: &[UdpSocket],
        counters: &mut PortCounters,
    ) -> &[Departed] {
        self.departed.clear();
        let mut looks = self.looks;
        while looks != 0 {
            let place = looks.trailing_zeros() as usize;
            looks &= looks - 1;
            self.look(place, &sockets[place], counters);
        }
        &self.departed
    }

    fn look(&mut self, place: usize, socket: &UdpSocket, counters: &mut PortCounters) {
        let room = self.departed.remaining_capacity();
        let series = &mut self.sockets[place];
        match mmsg::recv_errors(socket.as_fd(), &mut self.envelopes[..room]) {
            Ok(received) => {
                for envelope in &self.envelopes[..received] {
                    let stamp = envelope.departure();
                    let known =
                        stamp.and_then(|stamp| Some((series.answered(stamp.number)?, stamp.at)));
                    match known {
                        Some((ticket, at)) => {
                            counters.transmit_timestamps += 1;
                            self.departed.push(Departed { ticket, at });
                        }
                        None => counters.error_queue_strays += 1,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(_) => series.looks += 1,
        }
        if series.waiting == 0 || series.looks >= STAMP_LOOKS {
            counters.transmit_timestamps_missing += u64::from(std::mem::take(&mut series.waiting));
            self.looks &= !(1 << place);
        }
    }
}

/// The replies of one socket that asked.
#[derive(Debug)]
struct Series {
    number: Number,
    /// By their number, modulo the room; the newest take the place of the oldest.
    tickets: [Option<Ticket>; STAMPS_IN_FLIGHT],
    /// How many are waited for.
    waiting: u32,
    /// How often nothing came while they were.
    looks: u32,
}

/// What is known of the number that the kernel gives to the next reply that asks.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// Nothing.
    Unknown,
    /// It is one more than that of the reply with this ticket, which has asked just then.
    Probed(Ticket, Instant),
    /// It is this.
    Next(u32),
}

impl Series {
    const NEW: Self =
        Self { number: Number::Unknown, tickets: [None; STAMPS_IN_FLIGHT], waiting: 0, looks: 0 };

    /// Whether the next reply can ask.
    fn ask(&mut self, ticket: Ticket) -> bool {
        match self.number {
            Number::Probed(_, since) if since.elapsed() < STAMP_WAIT => return false,
            Number::Unknown | Number::Probed(..) => {
                self.tickets = [None; STAMPS_IN_FLIGHT];
                self.number = Number::Probed(ticket, Instant::now());
                self.waiting = 0;
            }
            Number::Next(number) => {
                self.tickets[number as usize % STAMPS_IN_FLIGHT] = Some(ticket);
                self.number = Number::Next(number.wrapping_add(1));
            }
        }
        self.waiting += 1;
        self.looks = 0;
        true
    }

    /// The reply with this number has left; `None` if none with it asked.
    fn answered(&mut self, number: u32) -> Option<Ticket> {
        let ticket = match self.number {
            Number::Unknown => None,
            Number::Probed(ticket, _) => {
                self.number = Number::Next(number.wrapping_add(1));
                Some(ticket)
            }
            Number::Next(next) => match next.wrapping_sub(number) as i32 {
                1..=ROOM => self.tickets[number as usize % STAMPS_IN_FLIGHT].take(),
                // Nobody has asked for it yet: the count is wrong.
                ..=0 => {
                    self.number = Number::Unknown;
                    None
                }
                _ => None,
            },
        };
        self.waiting = self.waiting.saturating_sub(u32::from(ticket.is_some()));
        ticket
    }
}

const ROOM: i32 = STAMPS_IN_FLIGHT as i32;
const _: () = assert!(STAMPS_IN_FLIGHT.is_power_of_two(), "numbers are counted modulo 2³²");
