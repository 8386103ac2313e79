//! Requests that wait for their answer.
//!
//! A request's number stands, disguised, in its transmit timestamp, which its answer returns as the
//! origin timestamp: an answer finds its request in one step, and no guess finds any. A request is
//! remembered for two timeouts: answered in the first one, late in the second, lost after.
//!
//! An interleaved request has a second name, its receive timestamp, which an interleaved answer
//! returns instead (RFC 9769 section 2). It is the same number in another disguise, where a client
//! would write when the last answer came: the server does nothing with it but return it.

use timeball::wire::timestamp::NtpTimestamp;

use crate::limits::{BATCH_REQUESTS, FLIGHT_MAX, WINDOW_TIMEOUTS};

/// The requests of one thread, the oldest first.
pub struct Flight {
    slots: Box<[Slot]>,
    disguise: Disguise,
    /// Of the second names.
    other_disguise: Disguise,
    /// Number of the oldest request that is remembered.
    oldest: u64,
    /// Number of the next one.
    next: u64,
    /// How many of them wait.
    waiting: usize,
    timeout_ns: u64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it was due.
    pub due_ns: u64,
    /// Whose it is.
    pub client: u32,
    /// Its length in bytes.
    pub bytes: u16,
    /// Cookies that it asks for, the one in return among them.
    pub cookies: u8,
}

#[derive(Clone, Copy)]
struct Slot {
    sent: Sent,
    waits: bool,
}

/// What is known of the request that an answer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It waits.
    Waiting(Sent),
    /// It has had its answer.
    Done,
    /// It was given up.
    Forgotten,
    /// There was none.
    Unknown,
}

/// The request that an answer's origin timestamp names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its transmit timestamp, by which it is known here.
    pub transmit: NtpTimestamp,
    /// By its second name: the answer is interleaved.
    pub is_interleaved: bool,
}

impl Flight {
    /// Room for what is in flight at this rate; times from `due_ns` count.
    pub fn new(peak_per_second: f64, burst: u64, timeout_ns: u64, keys: [[u64; 2]; 2]) -> Self {
        let window_seconds = (timeout_ns * u64::from(WINDOW_TIMEOUTS)) as f64 / 1e9;
        // A quarter more: requests that are behind their time leave in a crowd.
        let wanted = (peak_per_second * window_seconds * 1.25) as usize
            + burst.min(FLIGHT_MAX as u64) as usize
            + 2 * BATCH_REQUESTS;
        let slots = wanted.next_power_of_two().min(FLIGHT_MAX);
        let empty = Sent { due_ns: 0, client: 0, bytes: 0, cookies: 0 };
        Self {
            slots: vec![Slot { sent: empty, waits: false }; slots].into(),
            disguise: Disguise::new(keys[0]),
            other_disguise: Disguise::new(keys[1]),
            oldest: 0,
            next: 0,
            waiting: 0,
            timeout_ns,
        }
    }

    /// Whether one more has room.
    pub fn has_room(&self) -> bool {
        self.next - self.oldest < self.slots.len() as u64
    }

    /// Remembers a request; returns its transmit timestamp. There is room, see
    /// [`Self::has_room`].
    pub fn add(&mut self, sent: Sent) -> NtpTimestamp {
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        *self.slot(number) = Slot { sent, waits: true };
        NtpTimestamp::from_bits(self.disguise.cover(number))
    }

    /// The second name of a request that was added.
    pub fn second_name(&self, transmit: NtpTimestamp) -> NtpTimestamp {
        let number = self.disguise.uncover(transmit.to_bits());
        NtpTimestamp::from_bits(self.other_disguise.cover(number))
    }

    /// Which request an answer with this origin timestamp is to, by either name.
    pub fn name(&self, origin: NtpTimestamp) -> Named {
        let first = self.disguise.uncover(origin.to_bits());
        let second = self.other_disguise.uncover(origin.to_bits());
        // Those that are remembered go first: in a run of 10¹⁰ requests a timestamp may well have
        // a number of each kind, but hardly one that is still in flight.
        let remembered = self.oldest..self.next;
        let is_second = remembered.contains(&second) || (first >= self.next && second < self.next);
        if is_second && !remembered.contains(&first) {
            let transmit = NtpTimestamp::from_bits(self.disguise.cover(second));
            Named { transmit, is_interleaved: true }
        } else {
            Named { transmit: origin, is_interleaved: false }
        }
    }

    /// The request with this transmit timestamp.
    pub fn find(&self, transmit: NtpTimestamp) -> Found {
        let number = self.disguise.uncover(transmit.to_bits());
        if number >= self.next {
            return Found::Unknown;
        }
        if number < self.oldest {
            return Found::Forgotten;
        }
        let slot = &self.slots[number as usize & (self.slots.len() - 1)];
        if slot.waits { Found::Waiting(slot.sent) } else { Found::Done }
    }

    /// The number of a request, for choosing samples.
    pub fn number(&self, transmit: NtpTimestamp) -> u64 {
        self.disguise.uncover(transmit.to_bits())
    }

    /// The request waits no longer.
    pub fn settle(&mut self, transmit: NtpTimestamp) {
        let number = self.disguise.uncover(transmit.to_bits());
        if !(self.oldest..self.next).contains(&number) {
            return;
        }
        let slot = self.slot(number);
        let waited = std::mem::take(&mut slot.waits);
        self.waiting -= usize::from(waited);
    }

    /// Forgets what is older than two timeouts; returns how many of those still waited.
    pub fn expire(&mut self, now_ns: u64) -> u64 {
        let window_ns = self.timeout_ns * u64::from(WINDOW_TIMEOUTS);
        let mut lost = 0;
        while self.oldest < self.next {
            let slot = self.slots[self.oldest as usize & (self.slots.len() - 1)];
            if slot.sent.due_ns + window_ns > now_ns {
                break;
            }
            lost += self.forget_oldest();
        }
        lost
    }

    /// Forgets the oldest request; returns 1 if it still waited.
    pub fn forget_oldest(&mut self) -> u64 {
        let number = self.oldest;
        self.oldest += 1;
        let slot = self.slot(number);
        let waited = std::mem::take(&mut slot.waits);
        self.waiting -= usize::from(waited);
        u64::from(waited)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether an answer after so much time is late.
    pub fn is_late(&self, latency_ns: u64) -> bool {
        latency_ns > self.timeout_ns
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let place = number as usize & (self.slots.len() - 1);
        &mut self.slots[place]
    }
}

/// A bijection of 64 bits that only its key undoes with ease. Not cryptography: it keeps strays and
/// other runs from meeting a request by chance.
struct Disguise {
    key: [u64; 2],
    inverse: u64,
}

impl Disguise {
    fn new(key: [u64; 2]) -> Self {
        let key = [key[0], key[1] | 1];
        // Newton's iteration for the inverse of an odd number modulo 2⁶⁴: each doubles the bits.
        let mut inverse = key[1];
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(key[1].wrapping_mul(inverse)));
        }
        Self { key, inverse }
    }

    fn cover(&self, number: u64) -> u64 {
        (number ^ self.key[0]).wrapping_mul(self.key[1]).rotate_left(32).wrapping_mul(self.key[1])
    }

    fn uncover(&self, bits: u64) -> u64 {
        bits.wrapping_mul(self.inverse).rotate_left(32).wrapping_mul(self.inverse) ^ self.key[0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flight() -> Flight {
        Flight::new(10.0, 0, 1_000, [[3, 4], [5, 6]])
    }

    fn sent(due_ns: u64) -> Sent {
        Sent { due_ns, client: 7, bytes: 48, cookies: 1 }
    }

    #[test]
    fn a_request_waits_until_it_is_settled_or_given_up() {
        let mut flight = flight();
        let (first, second) = (flight.add(sent(0)), flight.add(sent(500)));
        assert_eq!(flight.find(first), Found::Waiting(sent(0)));
        flight.settle(first);
        assert_eq!((flight.find(first), flight.waiting()), (Found::Done, 1));
        flight.settle(first);
        assert_eq!(flight.waiting(), 1, "not twice");
        assert_eq!(flight.expire(2_499), 0);
        assert_eq!(
            (flight.find(first), flight.find(second)),
            (Found::Forgotten, Found::Waiting(sent(500)))
        );
        assert_eq!(flight.expire(2_500), 1);
        assert_eq!((flight.find(second), flight.waiting()), (Found::Forgotten, 0));
        assert_eq!(flight.find(NtpTimestamp::from_bits(12345)), Found::Unknown);
        assert!(flight.is_late(1_001) && !flight.is_late(1_000));
    }

    #[test]
    fn when_there_is_no_room_the_oldest_goes() {
        let mut flight = flight();
        while flight.has_room() {
            flight.add(sent(0));
        }
        let held = flight.waiting();
        assert_eq!(flight.forget_oldest(), 1);
        assert!(flight.has_room());
        assert_eq!(flight.waiting(), held - 1);
    }

    #[test]
    fn a_request_is_known_by_either_name() {
        let mut flight = flight();
        let (first, second) = (flight.add(sent(0)), flight.add(sent(1)));
        for transmit in [first, second] {
            let receive = flight.second_name(transmit);
            assert_ne!(receive, transmit);
            assert_eq!(flight.name(receive), Named { transmit, is_interleaved: true });
            assert_eq!(flight.name(transmit), Named { transmit, is_interleaved: false });
        }
        let receive = flight.second_name(first);
        flight.expire(u64::MAX);
        assert_eq!(flight.find(flight.name(receive).transmit), Found::Forgotten);
        let stranger = NtpTimestamp::from_bits(12345);
        assert_eq!(flight.find(flight.name(stranger).transmit), Found::Unknown);
    }

    proptest! {
        #[test]
        fn every_number_is_found_again(number: u64, key: [u64; 2]) {
            let disguise = Disguise::new(key);
            prop_assert_eq!(disguise.uncover(disguise.cover(number)), number);
        }
    }
}
