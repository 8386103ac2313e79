//! Transmit timestamps of the kernel, for the few replies whose departure the engine wants to know.
//!
//! Such a reply asks for its timestamp by a control message, and the kernel puts it into the
//! error queue of the reply's socket: mostly before the send call returns, later if the interface
//! was busy, never if its driver cannot. What comes has a number, and nothing else says which
//! reply it is of: the kernel counts the replies of a socket that ask (`SOF_TIMESTAMPING_OPT_ID`).
//! It does not say where it began, a socket is older than its worker, and a send that fails may be
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
    looks: u128,
    envelopes: Box<[Envelope; BATCH_DATAGRAMS]>,
    departed: ArrayVec<Departed, BATCH_DATAGRAMS>,
}

const _: () = assert!(SOCKETS_PER_WORKER <= u128::BITS as usize, "a socket is a bit");

impl Stamps {
    /// For these sockets. What an earlier worker has left in their error queues is thrown away, or
    /// it would be taken for the first timestamp to come.
    pub(super) fn of(sockets: &[UdpSocket]) -> Self {
        let mut envelopes = Box::new([Envelope::EMPTY; BATCH_DATAGRAMS]);
        for socket in sockets {
            while mmsg::recv_errors(socket.as_fd(), &mut *envelopes).is_ok() {}
        }
        Self {
            sockets: sockets.iter().map(|_| Series::NEW).collect(),
            looks: 0,
            envelopes,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(number: usize) -> Ticket {
        Ticket::new(number, NtpTimestamp::ZERO, 0)
    }

    /// A socket whose next reply that asks will get this number.
    fn learned(next: u32) -> Series {
        let mut series = Series::NEW;
        assert!(series.ask(ticket(0)));
        assert!(!series.ask(ticket(1)), "one at a time");
        assert_eq!(series.answered(next.wrapping_sub(1)), Some(ticket(0)));
        assert_eq!(series.waiting, 0);
        series
    }

    #[test]
    fn the_first_number_is_learned_wherever_the_kernel_is() {
        for next in [0, 1, 5, u32::MAX - 1, u32::MAX] {
            let mut series = learned(next);
            for number in 0..2 * STAMPS_IN_FLIGHT {
                assert!(series.ask(ticket(number)));
                let told = next.wrapping_add(number as u32);
                assert_eq!(series.answered(told), Some(ticket(number)));
                assert_eq!(series.answered(told), None, "it left once");
            }
        }
    }

    #[test]
    fn timestamps_come_in_any_order_and_not_all_of_them() {
        let mut series = learned(7);
        for number in 0..4 {
            assert!(series.ask(ticket(number)));
        }
        assert_eq!(series.answered(9), Some(ticket(2)));
        assert_eq!(series.answered(7), Some(ticket(0)));
        assert_eq!(series.waiting, 2);
    }

    #[test]
    fn what_is_too_old_is_nobody_s() {
        let mut series = learned(7);
        for number in 0..=STAMPS_IN_FLIGHT {
            assert!(series.ask(ticket(number)));
        }
        assert_eq!(series.answered(7), None);
        assert_eq!(series.answered(8), Some(ticket(1)));
        assert_eq!(series.answered(7 + STAMPS_IN_FLIGHT as u32), Some(ticket(STAMPS_IN_FLIGHT)));
    }

    #[test]
    fn a_number_that_nobody_asked_for_begins_the_count_anew() {
        let mut series = learned(7);
        assert!(series.ask(ticket(1)));
        assert_eq!(series.answered(8), None, "the kernel counted one more");
        assert!(series.ask(ticket(2)));
        assert_eq!(series.answered(9), Some(ticket(2)));
        assert!(series.ask(ticket(3)));
        assert_eq!(series.answered(10), Some(ticket(3)));
    }

    #[test]
    fn timestamps_from_before_a_failed_send_are_nobody_s() {
        let mut stamps = Stamps::of(&[UdpSocket::bind("127.0.0.1:0").expect("a socket")]);
        stamps.sockets[0] = learned(7);
        let mut envelope = Envelope::EMPTY;
        assert!(stamps.ask(0, ticket(1), &mut envelope));
        stamps.send_failed(0);
        assert_eq!(stamps.sockets[0].answered(7), None);
        let mut envelope = Envelope::EMPTY;
        assert!(stamps.ask(0, ticket(2), &mut envelope));
        assert_eq!(stamps.sockets[0].answered(8), Some(ticket(2)));
    }
}
