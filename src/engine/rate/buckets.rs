//! Buckets of tokens for any number of keys in fixed memory.
//!
//! A bucket is one number, the moment at which it will be full again (the generic cell rate
//! algorithm): taking a token puts it off by the time that a token takes to come back. A bucket
//! that is full need not be kept, so whoever has not come lately takes no memory. What a bucket
//! lacks is its *debt*, in time.
//!
//! The buckets are a set-associative table. A keyed hash chooses the set, a cache line, and gives
//! the bucket its tag; strangers cannot choose keys that meet. Where all buckets of a set are in
//! use the one with the smallest debt makes room, which forgives the least. So a table that
//! overflows errs in favour of those who ask, and forgets those last who ask the most.

use crate::limits::clients::{RATE_DEBT_MAX, RATE_SET_BUCKETS};

/// Time is counted in units of 2⁻²⁰ s, about a microsecond, modulo 2⁴⁰: twelve days.
pub(super) const UNITS_PER_SECOND: u64 = 1 << 20;

const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Longer than any debt. A moment that is further ahead is one of long ago.
const DEBT_UNITS_MAX: u64 = RATE_DEBT_MAX.as_secs() * UNITS_PER_SECOND;

const _: () =
    assert!(DEBT_UNITS_MAX < TIME_MASK / 1000, "an old moment is rarely taken for one to come");

/// A table of buckets, allocated once.
#[derive(Debug)]
pub(super) struct Buckets {
    sets: Box<[Set]>,
    secret: [u64; 2],
}

/// A cache line of buckets: the tag in the high 24 bits, the moment in the others.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([u64; RATE_SET_BUCKETS]);

/// A bucket that was looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    set: u32,
    place: u32,
    tag: u64,
    /// What it lacks, in units of time.
    pub(super) debt: u64,
}

impl Buckets {
    /// As many `sets` as a power of two. `secret` has to be random.
    pub(super) fn new(sets: usize, secret: [u64; 2]) -> Self {
        assert!(sets.is_power_of_two(), "a set is chosen by bits of the hash");
        Self { sets: vec![Set::default(); sets].into_boxed_slice(), secret }
    }

    /// The bucket of `key` among those of one `kind`; if it has none, the one that makes room for
    /// it, as full.
    #[inline]
    pub(super) fn find(&self, kind: u64, key: u64, now: u64) -> Bucket {
        let hash = self.hash(kind, key);
        let set = (hash >> u32::BITS) as usize & (self.sets.len() - 1);
        let tag = hash << TIME_BITS;
        let mut found = Bucket { set: set as u32, place: 0, tag, debt: 0 };
        let mut least = u64::MAX;
        for (place, &bucket) in (0..).zip(&self.sets[set].0) {
            let ahead = bucket.wrapping_sub(now) & TIME_MASK;
            let debt = if ahead > DEBT_UNITS_MAX { 0 } else { ahead };
            if (bucket ^ tag) >> TIME_BITS == 0 {
                return Bucket { place, debt, ..found };
            }
            if debt < least {
                (least, found.place) = (debt, place);
            }
        }
        found
    }

    /// Lets a bucket that was found at this moment lack `debt`.
    #[inline]
    pub(super) fn put(&mut self, bucket: &Bucket, debt: u64, now: u64) {
        let moment = now.wrapping_add(debt.min(DEBT_UNITS_MAX)) & TIME_MASK;
        let set = &mut self.sets[bucket.set as usize];
        set.0[bucket.place as usize] = bucket.tag | moment;
    }

    /// As good as random for whoever does not know the secret. Folded once, keys that count up would
    /// leave one set in eight empty.
    fn hash(&self, kind: u64, key: u64) -> u64 {
        let [first, second] = self.secret;
        let of_kind = second ^ kind.wrapping_mul(MULTIPLIER);
        folded(folded(key ^ first, of_kind | 1), MULTIPLIER)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}

/// Both halves of the product, so that every bit depends on all.
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// An odd number without pattern (2⁶⁴ divided by the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

    #[test]
    fn a_debt_is_paid_by_time_and_belongs_to_its_key_and_kind() {
        for start in [0, 5, TIME_MASK - 3, TIME_MASK, u64::MAX - 2] {
            let mut buckets = Buckets::new(16, SECRET);
            let bucket = buckets.find(1, 7, start);
            assert_eq!(bucket.debt, 0, "{start}");
            buckets.put(&bucket, 10, start);
            let debt = |units: u64| buckets.find(1, 7, start.wrapping_add(units)).debt;
            assert_eq!([0, 4, 10, 11, 1000].map(debt), [10, 6, 0, 0, 0], "{start}");
            assert_eq!(buckets.find(2, 7, start).debt, 0, "another kind");
            assert_eq!(buckets.find(1, 8, start).debt, 0, "another key");
        }
    }

    #[test]
    fn the_smallest_debt_makes_room() {
        let mut buckets = Buckets::new(1, SECRET);
        for key in 0..RATE_SET_BUCKETS as u64 {
            let bucket = buckets.find(0, key, 0);
            buckets.put(&bucket, 100 - key, 0);
        }
        let bucket = buckets.find(0, 99, 0);
        assert_eq!(bucket.debt, 0);
        buckets.put(&bucket, 1000, 0);
        let debts: Vec<u64> =
            (0..RATE_SET_BUCKETS as u64).map(|key| buckets.find(0, key, 0).debt).collect();
        let mut expected: Vec<u64> = (0..RATE_SET_BUCKETS as u64).map(|key| 100 - key).collect();
        expected[RATE_SET_BUCKETS - 1] = 0;
        assert_eq!(debts, expected, "the last one had the smallest");
    }

    #[test]
    fn a_moment_of_long_ago_is_no_debt() {
        let mut buckets = Buckets::new(1, SECRET);
        let bucket = buckets.find(0, 7, 0);
        buckets.put(&bucket, DEBT_UNITS_MAX, 0);
        assert_eq!(buckets.find(0, 7, 0).debt, DEBT_UNITS_MAX);
        for days in 1..12 {
            let now = days * 86_400 * UNITS_PER_SECOND;
            assert_eq!(buckets.find(0, 7, now).debt, 0, "after {days} days");
        }
    }

    /// Addresses that count up fill all sets alike: none has three times its share.
    #[test]
    fn keys_that_count_up_are_spread() {
        let buckets = Buckets::new(256, SECRET);
        for stride in [1, 256, 1 << 16, 1 << 32, 1 << 48] {
            let mut shares = [0; 256];
            for number in 0..25_600_u64 {
                let bucket = buckets.find(0, number.wrapping_mul(stride), 0);
                shares[bucket.set as usize] += 1;
            }
            assert!(shares.iter().all(|share| (30..300).contains(share)), "{stride}: {shares:?}");
        }
    }
}
