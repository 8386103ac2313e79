//! Interleaved mode (RFC 9769): a reply carries the transmit timestamp of the reply before it, as
//! it was measured when that one left.
//!
//! What a client needs for it is a *pair*: the receive timestamp of a request and the transmit
//! timestamp of the reply that carried it. The client names the pair by the receive timestamp,
//! which it puts into the origin field of its next request.
//!
//! Most clients never ask for a pair, and none is saved for them. What tells them apart are the
//! lowest two bits of every timestamp in a reply, which are worth less than a nanosecond:
//!
//! | bits | timestamp |
//! | --- | --- |
//! | `?0` | transmit |
//! | `01` | receive, and no pair was saved |
//! | `11` | receive, and a pair was saved |
//!
//! A client of the basic mode sends no origin, or a transmit timestamp. One that returns a receive
//! timestamp shows that it knows interleaved mode; from then on its pairs are saved. And no receive
//! timestamp without a pair can be taken for one that has a pair.
//!
//! Pairs are separated by address, never by port, which clients change at each poll (RFC 9109).
//! An address chooses a *region* of the table by a secret hash; a receive timestamp chooses the
//! *bucket* in it. So a lookup touches one bucket, and whoever floods the table from one address
//! overwrites the pairs of one region.

use std::net::IpAddr;

use super::batch::Ticket;
use crate::clock::Clock;
use crate::limits::{
    CLOCK_STEP_MIN, INTERLEAVED_DEPARTURE_MAX, INTERLEAVED_ENTRIES_MAX, MOMENT_ATTEMPTS,
};
use crate::wire::ntp::{Header, Mode};
use crate::wire::timestamp::NtpTimestamp;

/// The timestamps of a packet that say which mode it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamps {
    pub(super) origin: NtpTimestamp,
    pub(super) receive: NtpTimestamp,
    pub(super) transmit: NtpTimestamp,
}

impl Timestamps {
    pub(super) fn of(packet: &Header) -> Self {
        Self {
            origin: packet.origin_timestamp,
            receive: packet.receive_timestamp,
            transmit: packet.transmit_timestamp,
        }
    }

    /// Those of a basic reply that has no pair. The request's transmit timestamp comes back bit for
    /// bit: clients put random numbers there (RFC 9109's companion habit).
    pub(super) fn basic(request: &Header, arrival: NtpTimestamp, departure: NtpTimestamp) -> Self {
        let receive = marked(arrival, NOT_SAVED);
        let transmit = transmit_timestamp(departure, receive);
        Self { origin: request.transmit_timestamp, receive, transmit }
    }
}

/// What has become of a request that [`Pairs::concern`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchanged {
    pub(super) reply: Timestamps,
    pub(super) is_interleaved: bool,
    /// Of the reply's pair.
    pub(super) ticket: Ticket,
}

/// The pairs of one worker's clients. The table is allocated once; a new pair takes the place of
/// the oldest one in its bucket.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// As many as whole regions; empty if interleaved mode is off.
    buckets: Box<[Bucket]>,
    multipliers: [u64; 2],
    /// The clock's lead over its steady companion when pairs were used last.
    lead: Option<i64>,
    /// What true time was ahead of the system's then, in units of 2⁻³² s.
    correction: i64,
}

/// Pairs by place, two cache lines. A free place has the receive timestamp zero, which is none of
/// ours.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    receive: [NtpTimestamp; BUCKET_PAIRS],
    transmit: [NtpTimestamp; BUCKET_PAIRS],
}

const BUCKET_PAIRS: usize = 8;

/// Enough for the clients behind one address translator.
const REGION_BUCKETS: usize = 8;

/// Pairs of one region: the table's size is a multiple of it.
const REGION_PAIRS: usize = BUCKET_PAIRS * REGION_BUCKETS;

impl Pairs {
    /// A table of `entries` pairs, rounded up to whole regions; 0 switches interleaved mode off.
    /// `secret` is random, or strangers could aim at the region of a certain client.
    pub(super) fn new(entries: usize, secret: [u64; 2]) -> Self {
        let regions = entries.min(INTERLEAVED_ENTRIES_MAX).div_ceil(REGION_PAIRS);
        Self {
            buckets: vec![Bucket::default(); regions * REGION_BUCKETS].into(),
            // Odd, so that no bit of an address is lost.
            multipliers: secret.map(|word| word | 1),
            lead: None,
            correction: 0,
        }
    }

    /// Whether `request` comes from a client that knows interleaved mode and is to be answered by
    /// [`Pairs::exchange`].
    pub(super) fn concern(&self, request: &Header) -> bool {
        request.origin_timestamp.to_bits() & 1 == 1
            && request.version == 4
            && request.mode == Mode::Client
            && !self.buckets.is_empty()
    }

    /// Forgets all pairs if `clock`, which said `now` just now, has been stepped since pairs were
    /// used last. Then the arrivals of this batch may be from before the step, and no pair is to be
    /// made of them: returns whether pairs can be used.
    #[cold]
    #[inline(never)]
    pub(super) fn follow<C: Clock>(&mut self, now: NtpTimestamp, clock: &C) -> bool {
        self.correction = clock.state().correction(now);
        let lead = lead(now, clock);
        let before = self.lead.replace(lead);
        let is_stepped =
            before.is_some_and(|before| lead.wrapping_sub(before).unsigned_abs() > CLOCK_STEP_MIN);
        if is_stepped {
            self.buckets.fill(Bucket::default());
        }
        !is_stepped
    }

    /// Answers a request with these timestamps, which arrived at `arrival` from `source`: in
    /// interleaved mode if it names a saved pair, which is thereby used up, else in basic mode. The
    /// reply's own pair is saved with `departure`, which [`Pairs::departed`] may correct.
    ///
    /// Apart from the path of the others, who are the most.
    #[cold]
    #[inline(never)]
    pub(super) fn exchange(
        &mut self,
        source: IpAddr,
        request: Timestamps,
        arrival: NtpTimestamp,
        departure: NtpTimestamp,
    ) -> Exchanged {
        let region = self.region(source);
        // RFC 9769 section 2 lists the two conditions.
        let is_conforming = request.receive != request.transmit;
        let before = if is_conforming { self.take(region, request.origin) } else { None };
        let receive = self.unique(region, arrival);
        let transmit = transmit_timestamp(departure, receive);
        Exchanged {
            reply: match before {
                Some(before) => Timestamps { origin: request.receive, receive, transmit: before },
                None => Timestamps { origin: request.transmit, receive, transmit },
            },
            is_interleaved: before.is_some(),
            ticket: self.save(region, receive, transmit),
        }
    }

    /// The reply with this ticket left at `at` in the system's time, by the kernel's word. It came
    /// too late if the pair was used or overwritten meanwhile. Both timestamps of a pair are moved
    /// by one correction, or a new one would look to the client like a change of its delay.
    pub(super) fn departed(&mut self, ticket: Ticket, at: NtpTimestamp) {
        let place = ticket.place();
        let Some(bucket) = self.buckets.get_mut(place / BUCKET_PAIRS) else { return };
        let place = place % BUCKET_PAIRS;
        let receive = bucket.receive[place];
        let at = at.plus(ticket.correction());
        let is_plausible = (1..INTERLEAVED_DEPARTURE_MAX).contains(&at.seconds_since(receive));
        if ticket.is_of(receive) && is_plausible {
            bucket.transmit[place] = transmit_timestamp(at, receive);
        }
    }

    /// The first bucket of the region of this address: the high bits of a sum of products, which
    /// is as good as random for whoever does not know the multipliers (multiply-shift hashing).
    fn region(&self, source: IpAddr) -> usize {
        let (high, low) = match source {
            IpAddr::V4(address) => (0, u64::from(address.to_bits())),
            IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
        };
        let [first, second] = self.multipliers;
        let hash = high.wrapping_mul(first).wrapping_add(low.wrapping_mul(second));
        let regions = (self.buckets.len() / REGION_BUCKETS) as u128;
        ((u128::from(hash) * regions) >> 64) as usize * REGION_BUCKETS
    }

    /// Takes the transmit timestamp of a pair out of the table.
    fn take(&mut self, region: usize, receive: NtpTimestamp) -> Option<NtpTimestamp> {
        let bucket = &mut self.buckets[bucket_of(region, receive)];
        let place = bucket.receive.iter().position(|&saved| saved == receive)?;
        bucket.receive[place] = NtpTimestamp::ZERO;
        Some(bucket.transmit[place])
    }

    /// The receive timestamp of a pair that is to be saved: the first from `arrival` on that has
    /// the mark and names no other pair.
    fn unique(&self, region: usize, arrival: NtpTimestamp) -> NtpTimestamp {
        let mut receive = marked(arrival, SAVED);
        while self.buckets[bucket_of(region, receive)].receive.contains(&receive) {
            receive = receive.plus(MARKS as i64);
        }
        receive
    }

    fn save(&mut self, region: usize, receive: NtpTimestamp, transmit: NtpTimestamp) -> Ticket {
        let number = bucket_of(region, receive);
        let bucket = &mut self.buckets[number];
        let age = |saved: NtpTimestamp| {
            // A free place is older than any pair.
            if saved == NtpTimestamp::ZERO { i64::MAX } else { receive.seconds_since(saved) }
        };
        let ages = bucket.receive.map(age);
        let mut place = 0;
        for other in 1..BUCKET_PAIRS {
            if ages[other] > ages[place] {
                place = other;
            }
        }
        bucket.receive[place] = receive;
        bucket.transmit[place] = transmit;
        Ticket::new(number * BUCKET_PAIRS + place, receive, self.correction)
    }
}

/// The lead over its steady companion of a clock that said `now` just now. A worker that is kept
/// from running between two readings reads again: what lies between them would look like a step.
fn lead<C: Clock>(mut now: NtpTimestamp, clock: &C) -> i64 {
    for _ in 1..MOMENT_ATTEMPTS {
        let (steady, after) = (clock.steady(), clock.now());
        // So two leads differ by no more than half of a step if there was none.
        if after.seconds_since(now).unsigned_abs() <= CLOCK_STEP_MIN / 2 {
            return now.seconds_since(steady);
        }
        now = after;
    }
    now.seconds_since(clock.steady())
}

/// The bucket of a pair in its region: by the nanoseconds of its arrival.
fn bucket_of(region: usize, receive: NtpTimestamp) -> usize {
    region + (receive.to_bits() / MARKS) as usize % REGION_BUCKETS
}

/// Values of the lowest two bits, and what they mean in a receive timestamp.
const MARKS: u64 = 4;
const SAVED: u64 = 0b11;
const NOT_SAVED: u64 = 0b01;

/// The first timestamp from `arrival` on that has this mark. Arrivals are whole nanoseconds, of
/// 4.3 units each, rounded up: the result still names the same nanosecond.
fn marked(arrival: NtpTimestamp, mark: u64) -> NtpTimestamp {
    let units = mark.wrapping_sub(arrival.to_bits()) % MARKS;
    arrival.plus(units as i64)
}

/// The transmit timestamp of a reply that leaves at `departure`: later than its receive timestamp
/// even when the clock was stepped back in between, and never equal to it, by which clients tell
/// the modes apart (RFC 9769 section 2).
fn transmit_timestamp(departure: NtpTimestamp, receive: NtpTimestamp) -> NtpTimestamp {
    let later = departure.later(receive);
    later.plus((later.to_bits() & 1) as i64)
}

#[cfg(test)]
mod tests;
