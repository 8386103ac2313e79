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
//!
//! A reply to a request that its interface has stamped asks the interface too. Two timestamps come
//! then, with one number, the interface's mostly later (`SOF_TIMESTAMPING_OPT_TX_SWHW`): the
//! engine is told of the first, and of the interface's when it comes, if it can be translated. That
//! the reply leaves where its request came in is an assumption, as the error queue does not say
//! where; the two timestamps are held against each other.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Instant;

use arrayvec::ArrayVec;

use super::PortCounters;
use super::hardware::Translator;
use crate::engine::batch::Ticket;
use crate::limits::{
    BATCH_DATAGRAMS, SOCKETS_PER_WORKER, STAMP_LOOKS, STAMP_WAIT, STAMPS_IN_FLIGHT,
};
use crate::sys::control::{Departure, DepartureStamp};
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
    sockets: Box<[Series]>,
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
        let can_ask = self.sockets[socket].ask(Asked::new(ticket, envelope.interface));
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
        mut hardware: Option<&mut Translator>,
    ) -> &[Departed] {
        self.departed.clear();
        if self.looks != 0
            && let Some(translator) = &mut hardware
        {
            translator.begin();
        }
        let mut looks = self.looks;
        while looks != 0 {
            let place = looks.trailing_zeros() as usize;
            looks &= looks - 1;
            self.look(place, &sockets[place], counters, hardware.as_deref_mut());
        }
        &self.departed
    }

    fn look(
        &mut self,
        place: usize,
        socket: &UdpSocket,
        counters: &mut PortCounters,
        mut hardware: Option<&mut Translator>,
    ) {
        let room = self.departed.remaining_capacity();
        let series = &mut self.sockets[place];
        match mmsg::recv_errors(socket.as_fd(), &mut self.envelopes[..room]) {
            Ok(received) => {
                for envelope in &self.envelopes[..received] {
                    let departed = envelope.departure().and_then(|departure| {
                        series.take(&departure, counters, hardware.as_deref_mut())
                    });
                    match departed {
                        Some(departed) => self.departed.extend(departed),
                        None => counters.error_queue_strays += 1,
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(_) => series.looks += 1,
        }
        if series.is_complete() || series.looks >= STAMP_LOOKS {
            series.waiting_hardware = 0;
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
    asked: [Option<Asked>; STAMPS_IN_FLIGHT],
    /// How many are waited for.
    waiting: u32,
    /// How many have asked their interface, and it has not answered.
    waiting_hardware: u32,
    /// How often nothing came while they were.
    looks: u32,
}

/// A reply that asked, and what is known of its departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    ticket: Ticket,
    /// The interface that it asked; 0 if it did not.
    interface: u32,
    /// By the kernel's word.
    software: Option<NtpTimestamp>,
    /// The interface has answered.
    is_answered: bool,
    /// The engine was told of it.
    is_told: bool,
}

impl Asked {
    const fn new(ticket: Ticket, interface: u32) -> Self {
        Self { ticket, interface, software: None, is_answered: false, is_told: false }
    }

    fn departed(&self, at: NtpTimestamp) -> Departed {
        Departed { ticket: self.ticket, at }
    }
}

/// What is known of the number that the kernel gives to the next reply that asks.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// Nothing.
    Unknown,
    /// It is one more than that of this reply, which has asked just then.
    Probed(Asked, Instant),
    /// It is this.
    Next(u32),
}

impl Series {
    const NEW: Self = Self {
        number: Number::Unknown,
        asked: [None; STAMPS_IN_FLIGHT],
        waiting: 0,
        waiting_hardware: 0,
        looks: 0,
    };

    /// Whether the next reply can ask.
    fn ask(&mut self, asked: Asked) -> bool {
        match self.number {
            Number::Probed(_, since) if since.elapsed() < STAMP_WAIT => return false,
            Number::Unknown | Number::Probed(..) => {
                self.asked = [None; STAMPS_IN_FLIGHT];
                self.number = Number::Probed(asked, Instant::now());
                (self.waiting, self.waiting_hardware) = (0, 0);
            }
            Number::Next(number) => {
                self.asked[number as usize % STAMPS_IN_FLIGHT] = Some(asked);
                self.number = Number::Next(number.wrapping_add(1));
            }
        }
        self.waiting += 1;
        self.waiting_hardware += u32::from(asked.interface != 0);
        self.looks = 0;
        true
    }

    /// Whether nothing is waited for.
    fn is_complete(&self) -> bool {
        self.waiting == 0 && self.waiting_hardware == 0
    }

    /// Takes a timestamp: none if nobody asked for it, else what the engine is to be told, if there
    /// is anything better than before.
    fn take(
        &mut self,
        departure: &Departure,
        counters: &mut PortCounters,
        hardware: Option<&mut Translator>,
    ) -> Option<Option<Departed>> {
        let asked = self.answered(departure.number)?;
        let at = match departure.stamp {
            DepartureStamp::Software(at) if asked.software.is_none() => {
                asked.software = Some(at);
                // The interface's, which is on its way too, was quicker.
                if asked.is_told { None } else { Some(at) }
            }
            DepartureStamp::Hardware(stamp) if asked.interface != 0 && !asked.is_answered => {
                asked.is_answered = true;
                let (interface, software) = (asked.interface, asked.software);
                let at = hardware.and_then(|it| it.departure(interface, stamp, software));
                counters.transmit_timestamps_hardware += u64::from(at.is_some());
                counters.transmit_timestamps_hardware_refused += u64::from(at.is_none());
                at
            }
            // Each comes once.
            _ => return None,
        };
        let is_first = at.is_some() && !asked.is_told;
        asked.is_told |= is_first;
        let departed = at.map(|at| asked.departed(at));
        let is_hardware = matches!(departure.stamp, DepartureStamp::Hardware(_));
        counters.transmit_timestamps += u64::from(is_first);
        self.waiting = self.waiting.saturating_sub(u32::from(is_first));
        self.waiting_hardware = self.waiting_hardware.saturating_sub(u32::from(is_hardware));
        Some(departed)
    }

    /// The reply with this number; `None` if none with it asked.
    fn answered(&mut self, number: u32) -> Option<&mut Asked> {
        let place = number as usize % STAMPS_IN_FLIGHT;
        match self.number {
            Number::Unknown => None,
            Number::Probed(asked, _) => {
                self.number = Number::Next(number.wrapping_add(1));
                Some(self.asked[place].insert(asked))
            }
            Number::Next(next) => match next.wrapping_sub(number) as i32 {
                1..=ROOM => self.asked[place].as_mut(),
                // Nobody has asked for it yet: the count is wrong.
                ..=0 => {
                    self.number = Number::Unknown;
                    None
                }
                _ => None,
            },
        }
    }
}

const ROOM: i32 = STAMPS_IN_FLIGHT as i32;
const _: () = assert!(STAMPS_IN_FLIGHT.is_power_of_two(), "numbers are counted modulo 2³²");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::hardware::tests::{PHC_AHEAD, SYSTEM, system, translator};
    use super::*;
    use crate::sys::injected::Control;
    use crate::sys::mmsg::Outgoing;
    use crate::sys::socket::{UdpOptions, open_udp};

    fn ticket(number: usize) -> Ticket {
        Ticket::new(number, NtpTimestamp::ZERO, 0)
    }

    fn plain(number: usize) -> Asked {
        Asked::new(ticket(number), 0)
    }

    /// The kernel stamps the reply with this number: whose it is.
    fn stamped(series: &mut Series, number: u32) -> Option<Ticket> {
        let stamp = DepartureStamp::Software(system(0));
        let departure = Departure { number, stamp };
        let departed = series.take(&departure, &mut PortCounters::default(), None)?;
        departed.map(|departed| departed.ticket)
    }

    /// A socket whose next reply that asks will get this number.
    fn learned(next: u32) -> Series {
        let mut series = Series::NEW;
        assert!(series.ask(plain(0)));
        assert!(!series.ask(plain(1)), "one at a time");
        assert_eq!(stamped(&mut series, next.wrapping_sub(1)), Some(ticket(0)));
        assert_eq!(series.waiting, 0);
        series
    }

    #[test]
    fn the_first_number_is_learned_wherever_the_kernel_is() {
        for next in [0, 1, 5, u32::MAX - 1, u32::MAX] {
            let mut series = learned(next);
            for number in 0..2 * STAMPS_IN_FLIGHT {
                assert!(series.ask(plain(number)));
                let told = next.wrapping_add(number as u32);
                assert_eq!(stamped(&mut series, told), Some(ticket(number)));
                assert_eq!(stamped(&mut series, told), None, "it left once");
            }
        }
    }

    #[test]
    fn timestamps_come_in_any_order_and_not_all_of_them() {
        let mut series = learned(7);
        for number in 0..4 {
            assert!(series.ask(plain(number)));
        }
        assert_eq!(stamped(&mut series, 9), Some(ticket(2)));
        assert_eq!(stamped(&mut series, 7), Some(ticket(0)));
        assert_eq!(series.waiting, 2);
    }

    #[test]
    fn what_is_too_old_is_nobody_s() {
        let mut series = learned(7);
        for number in 0..=STAMPS_IN_FLIGHT {
            assert!(series.ask(plain(number)));
        }
        assert_eq!(stamped(&mut series, 7), None);
        assert_eq!(stamped(&mut series, 8), Some(ticket(1)));
        assert_eq!(
            stamped(&mut series, 7 + STAMPS_IN_FLIGHT as u32),
            Some(ticket(STAMPS_IN_FLIGHT))
        );
    }

    #[test]
    fn a_number_that_nobody_asked_for_begins_the_count_anew() {
        let mut series = learned(7);
        assert!(series.ask(plain(1)));
        assert_eq!(stamped(&mut series, 8), None, "the kernel counted one more");
        assert!(series.ask(plain(2)));
        assert_eq!(stamped(&mut series, 9), Some(ticket(2)));
        assert!(series.ask(plain(3)));
        assert_eq!(stamped(&mut series, 10), Some(ticket(3)));
    }

    #[test]
    fn timestamps_from_before_a_failed_send_are_nobody_s() {
        let mut stamps = Stamps::of(&[UdpSocket::bind("127.0.0.1:0").expect("a socket")]);
        stamps.sockets[0] = learned(7);
        let mut envelope = Envelope::EMPTY;
        assert!(stamps.ask(0, ticket(1), &mut envelope));
        stamps.send_failed(0);
        assert_eq!(stamped(&mut stamps.sockets[0], 7), None);
        let mut envelope = Envelope::EMPTY;
        assert!(stamps.ask(0, ticket(2), &mut envelope));
        assert_eq!(stamped(&mut stamps.sockets[0], 8), Some(ticket(2)));
    }

    /// A series whose next reply gets number 7, asks interface 3, and is told of by these messages
    /// in turn: what the engine is told, and what is counted. `None` is a stray.
    fn told_by(messages: Vec<Control>) -> (Vec<Option<Option<NtpTimestamp>>>, PortCounters) {
        let (_page, mut translator) = translator();
        let mut counters = PortCounters::default();
        let mut series = learned(7);
        assert!(series.ask(Asked::new(ticket(1), 3)));
        let mut told = Vec::new();
        for message in messages {
            let departure = message.envelope().departure().expect("a timestamp");
            let departed = series.take(&departure, &mut counters, Some(&mut translator));
            told.push(departed.map(|departed| departed.map(|departed| departed.at)));
        }
        // What nothing has come of is waited for.
        assert_eq!(series.waiting == 0, counters.transmit_timestamps == 1);
        let answered =
            counters.transmit_timestamps_hardware + counters.transmit_timestamps_hardware_refused;
        assert_eq!(series.waiting_hardware == 0, answered == 1);
        (told, counters)
    }

    fn by_kernel() -> Control {
        Control::new().software(SYSTEM - 30_000).departed(7)
    }

    /// With the time of reading where the kernel's would be.
    fn by_interface(phc: i64) -> Control {
        Control::new().software(SYSTEM).hardware(phc).departed(7)
    }

    #[test]
    fn an_interface_s_timestamp_wins_whichever_comes_first() {
        let phc = SYSTEM + PHC_AHEAD - 29_000;
        let counted = PortCounters {
            transmit_timestamps: 1,
            transmit_timestamps_hardware: 1,
            ..PortCounters::default()
        };
        let told = vec![Some(Some(system(-30_000))), Some(Some(system(-29_000)))];
        assert_eq!(told_by(vec![by_kernel(), by_interface(phc)]), (told, counted));
        let told = vec![Some(Some(system(-29_000))), Some(None)];
        assert_eq!(told_by(vec![by_interface(phc), by_kernel()]), (told, counted));
        let told = vec![Some(Some(system(-29_000)))];
        assert_eq!(told_by(vec![by_interface(phc)]), (told, counted), "its driver has no other");
    }

    #[test]
    fn without_an_interface_s_timestamp_the_kernel_s_stands() {
        let kernels = Some(Some(system(-30_000)));
        let counted = PortCounters { transmit_timestamps: 1, ..PortCounters::default() };
        assert_eq!(told_by(vec![by_kernel()]), (vec![kernels], counted));
        // One of a clock that is a second off.
        let wrong = || by_interface(SYSTEM + PHC_AHEAD + 1_000_000_000);
        let refused = PortCounters { transmit_timestamps_hardware_refused: 1, ..counted };
        assert_eq!(told_by(vec![by_kernel(), wrong()]), (vec![kernels, Some(None)], refused));
        assert_eq!(told_by(vec![wrong(), by_kernel()]), (vec![Some(None), kernels], refused));
    }

    #[test]
    fn each_of_two_timestamps_comes_once_and_only_to_who_has_asked() {
        let phc = SYSTEM + PHC_AHEAD - 29_000;
        let twice = vec![by_kernel(), by_interface(phc), by_kernel(), by_interface(phc)];
        let (told, counters) = told_by(twice);
        assert_eq!(told[2..], [None, None]);
        assert_eq!((counters.transmit_timestamps, counters.transmit_timestamps_hardware), (1, 1));
        let mut series = learned(7);
        assert!(series.ask(plain(1)));
        let departure = by_interface(phc).envelope().departure().expect("a timestamp");
        assert_eq!(series.take(&departure, &mut counters.clone(), None), None);
        assert_eq!(stamped(&mut series, 7), Some(ticket(1)));
    }

    #[test]
    fn the_first_number_is_learned_from_either_timestamp() {
        let (_page, mut translator) = translator();
        let mut counters = PortCounters::default();
        let mut series = Series::NEW;
        assert!(series.ask(Asked::new(ticket(0), 3)));
        let phc = SYSTEM + PHC_AHEAD - 29_000;
        for message in [by_interface(phc), by_kernel()] {
            let departure = message.envelope().departure().expect("a timestamp");
            assert!(series.take(&departure, &mut counters, Some(&mut translator)).is_some());
        }
        assert!(series.is_complete());
        assert!(series.ask(plain(1)));
        assert_eq!(stamped(&mut series, 8), Some(ticket(1)));
    }

    /// On loopback, where no interface stamps: the kernel takes the request, and its own timestamp
    /// is all that comes.
    #[test]
    fn a_real_kernel_is_asked_for_both() {
        let options = UdpOptions { hardware_stamps: true, ..UdpOptions::default() };
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        let sockets = [open_udp(here, false, &options).expect("a socket")];
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut stamps = Stamps::of(&sockets);
        let (_page, mut translator) = translator();
        let mut counters = PortCounters::default();
        let mut told = Vec::new();
        for number in 0..2 {
            let to = peer.local_addr().expect("bound");
            let mut envelope = Envelope::addressed(Some(to), None, None);
            envelope.interface = 3;
            assert!(stamps.ask(0, ticket(number), &mut envelope));
            let outgoing = Outgoing { envelope: &mut envelope, payload: &mut [0; 48] };
            assert_eq!(mmsg::send(sockets[0].as_fd(), &mut [outgoing]).ok(), Some(1));
            for _ in 0..=STAMP_LOOKS {
                let departed = stamps.collect(&sockets, &mut counters, Some(&mut translator));
                told.extend(departed.iter().map(|departed| departed.ticket));
            }
            assert_eq!(stamps.looks, 0, "nothing more is waited for");
        }
        assert_eq!(told, [ticket(0), ticket(1)]);
        let expected = PortCounters { transmit_timestamps: 2, ..PortCounters::default() };
        assert_eq!(counters, expected);
    }
}
