//! What goes into the engine and what comes out.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use arrayvec::ArrayVec;

use super::outcome::Outcome;
use crate::limits::{BATCH_DATAGRAMS, INTERLEAVED_ENTRIES_MAX};
use crate::wire::timestamp::NtpTimestamp;

/// One received datagram. `bytes` is all that arrived and all that a reply may fill: that replies
/// cannot amplify is a property of this type.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The request; afterwards its beginning is the reply.
    pub bytes: &'a mut [u8],
    /// When it arrived, by the kernel's clock.
    pub arrival: NtpTimestamp,
    /// Who sent it.
    pub source: SocketAddr,
    /// The kernel had to cut it off at the buffer's end.
    pub truncated: bool,
}

/// What has become of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome, for counting.
    pub outcome: Outcome,
    /// Length of the reply at the beginning of the datagram's bytes; 0 means that none is sent.
    pub reply_bytes: u16,
    /// By what [`Engine::departed`](super::Engine::departed) is to be told when the reply left, if
    /// that can be measured. Only for clients in interleaved mode.
    pub departure: Option<Ticket>,
}

/// Names the pair of timestamps that a reply has in the engine's table (RFC 9769): its place, and
/// some bits of its receive timestamp, as another pair may have the place meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    name: NonZeroU32,
    /// What true time was ahead of the system's when the pair was made, in units of 2⁻³² s: the
    /// pair is in true time, the departure will be told in the system's.
    correction: i64,
}

impl Ticket {
    const CHECK_BITS: u32 = 10;

    pub(crate) fn new(place: usize, receive: NtpTimestamp, correction: i64) -> Self {
        let bits = (place as u32 + 1) << Self::CHECK_BITS | Self::check(receive);
        let name = NonZeroU32::new(bits).expect("places are counted from one");
        Self { name, correction }
    }

    pub(super) fn place(self) -> usize {
        (self.name.get() >> Self::CHECK_BITS) as usize - 1
    }

    pub(super) fn is_of(self, receive: NtpTimestamp) -> bool {
        self.name.get() & Self::CHECK_MASK == Self::check(receive)
    }

    pub(super) fn correction(self) -> i64 {
        self.correction
    }

    const CHECK_MASK: u32 = (1 << Self::CHECK_BITS) - 1;

    /// The lowest bits are the same in all timestamps that have pairs.
    fn check(receive: NtpTimestamp) -> u32 {
        (receive.to_bits() >> 2) as u32 & Self::CHECK_MASK
    }
}

const _: () = assert!(INTERLEAVED_ENTRIES_MAX < 1 << (u32::BITS - Ticket::CHECK_BITS));

impl Default for Verdict {
    /// Nothing decided, nothing sent.
    fn default() -> Self {
        Self::drop(Outcome::Undecided)
    }
}

impl Verdict {
    /// No reply.
    pub const fn drop(outcome: Outcome) -> Self {
        Self { outcome, reply_bytes: 0, departure: None }
    }

    /// A reply of the first `reply_bytes` of the datagram.
    pub const fn reply(outcome: Outcome, reply_bytes: usize) -> Self {
        Self { outcome, reply_bytes: reply_bytes as u16, departure: None }
    }
}

/// A verdict for each datagram of a batch, in its order.
pub type Verdicts = ArrayVec<Verdict, BATCH_DATAGRAMS>;

/// A request that is still in the race, known by its place in the batch.
pub(super) trait InBatch {
    /// Index of its datagram.
    fn place(&self) -> usize;
}

/// The requests of one stage, in the order of the batch. They live in the engine and are refilled:
/// moving one would copy its whole capacity.
pub(super) type Lanes<T> = ArrayVec<T, BATCH_DATAGRAMS>;

/// A set of places in the batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places(u32);

const _: () = assert!(BATCH_DATAGRAMS <= 32, "a place is a bit");

impl Places {
    /// Adds `place` if `condition` holds.
    pub(super) fn insert_if(&mut self, condition: bool, place: usize) {
        self.0 |= u32::from(condition) << place;
    }

    pub(super) fn contains(self, place: usize) -> bool {
        self.0 >> place & 1 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Each request of `lanes` with its datagram. The lanes are in the order of the batch, so the
/// datagrams can all be lent out at once.
pub(super) fn with_datagrams<'b, 'd, 'l, T: InBatch>(
    batch: &'b mut [Datagram<'d>],
    lanes: &'l [T],
) -> impl Iterator<Item = (&'l T, &'b mut Datagram<'d>)> {
    let mut datagrams = batch.iter_mut().enumerate();
    lanes.iter().map(move |lane| {
        let (_, datagram) = datagrams
            .find(|(place, _)| *place == lane.place())
            .expect("lanes are in the order of the batch");
        (lane, datagram)
    })
}
