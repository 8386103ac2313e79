//! Buckets of tokens for any number of keys in fixed memory.
//!
//! A bucket is one number, the moment at which it will be full again (the generic cell rate
//! algorithm): taking a token puts it off by the time that a token takes to come back. A bucket
//! that is full need not be kept, so whoever has not come lately takes no memory. What a bucket
//! lacks is its *debt*, in time.
//!
//! The buckets are a set-associative table. A keyed hash (`keys`) chooses the set, a cache line,
//! and gives the bucket its tag. Where all buckets of a set are in use the one with the smallest
//! debt makes room, which forgives the least. So a table that overflows errs in favour of those who
//! ask, and forgets those last who ask the most.
//!
//! What a look takes is the memory's latency and branches that are guessed wrong. So whoever will
//! look at a set touches it before, as many as a batch needs at a time; and a set has all its tags
//! together and all its moments together, so that they are compared at once, in code that the
//! compiler makes vectors of, and which of them is the right one is no branch.

use std::hint::black_box;

use super::keys::{Budget, Home};
use crate::limits::clients::{RATE_DEBT_MAX, RATE_SET_BUCKETS};

/// Time is counted in units of 2⁻²⁰ s, about a microsecond.
pub(super) const UNITS_PER_SECOND: u64 = 1 << 20;

/// No bucket lacks more.
pub(super) const DEBT_UNITS_MAX: u32 = (RATE_DEBT_MAX.as_secs() * UNITS_PER_SECOND) as u32;

/// How long moments are counted from the same epoch: 34 minutes.
const EPOCH_UNITS: u32 = 1 << 31;

const _: () = assert!(EPOCH_UNITS.checked_add(DEBT_UNITS_MAX).is_some(), "a moment has 32 bits");

/// A table of buckets, allocated once.
#[derive(Debug)]
pub(super) struct Buckets {
    sets: Box<[Set]>,
    /// From when on moments are counted; none as long as there are none.
    epoch: Option<u64>,
    /// The moment of this batch.
    now: u32,
}

/// One bucket for everybody. No burst but what comes in a second.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// When it will be full again, in units of time.
    full_at: u64,
}

impl Shared {
    /// Whether it has a token, of which so many come back in a second.
    pub(super) fn has_one(&self, now: u64, per_second: u64) -> bool {
        self.full_at.saturating_sub(now) + UNITS_PER_SECOND / per_second <= UNITS_PER_SECOND
    }

    /// Takes the token that it has.
    pub(super) fn take(&mut self, now: u64, per_second: u64) {
        debug_assert!(self.has_one(now, per_second));
        self.full_at = self.full_at.max(now) + UNITS_PER_SECOND / per_second;
    }
}

/// A cache line of buckets. One that was never used is full, as its moment is the epoch.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set {
    tags: [u32; RATE_SET_BUCKETS],
    moments: [u32; RATE_SET_BUCKETS],
}

const _: () = assert!(size_of::<Set>() == 64, "a set is a cache line");

/// A bucket that was looked up.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    set: usize,
    place: usize,
    tag: u32,
    /// What it lacks, in units of time.
    debt: u32,
}

impl Bucket {
    /// Whether both would have one place.
    #[inline(always)]
    fn is_where(&self, other: &Self) -> bool {
        (self.set, self.place) == (other.set, other.place)
    }
}

impl Buckets {
    /// As many `sets` as a power of two.
    pub(super) fn new(sets: usize) -> Self {
        assert!(sets.is_power_of_two(), "a set is chosen by bits of the hash");
        Self { sets: vec![Set::default(); sets].into_boxed_slice(), epoch: None, now: 0 }
    }

    /// Lets it be `now`, in units of time: never earlier than before.
    pub(super) fn begin(&mut self, now: u64) {
        let epoch = *self.epoch.get_or_insert(now);
        let passed = u32::try_from(now.saturating_sub(epoch)).unwrap_or(u32::MAX);
        if passed < EPOCH_UNITS {
            self.now = passed;
        } else {
            self.count_from(now, passed);
        }
    }

    /// Begins another epoch. Whatever has become full stays full, however long ago that was: a
    /// moment of which only some bits were kept would come again, and look like one to come.
    #[cold]
    fn count_from(&mut self, now: u64, passed: u32) {
        (self.epoch, self.now) = (Some(now), 0);
        // Sets that were never used are read only.
        for set in self.sets.iter_mut().filter(|set| set.moments != [0; RATE_SET_BUCKETS]) {
            set.moments = set.moments.map(|moment| moment.saturating_sub(passed));
        }
    }

    /// Brings the sets of these homes near. A load whose value nobody waits for does what a
    /// prefetch does, and is safe code.
    #[inline(always)]
    pub(super) fn touch<const N: usize>(&self, homes: [Home; N]) {
        let words = homes.map(|home| self.sets[home.set(self.sets.len())].tags[0]);
        black_box(words.iter().fold(0, |all, word| all ^ word));
    }

    /// Takes the price of each bucket, in units of time, or nothing at all if one of them would
    /// lack more than `burst`.
    #[inline]
    pub(super) fn take<const N: usize>(
        &mut self,
        homes: [Home; N],
        budget: Budget,
        prices: &[u32; N],
        burst: u32,
    ) -> bool {
        debug_assert!(burst <= DEBT_UNITS_MAX);
        let mut found = homes.map(|home| self.find(home, budget));
        found.iter_mut().zip(prices).for_each(|(bucket, price)| bucket.debt += price);
        let is_within = found.iter().all(|bucket| bucket.debt <= burst);
        if is_within {
            for number in 1..N {
                let (before, rest) = found.split_at_mut(number);
                if before.iter().any(|other| other.is_where(&rest[0])) {
                    self.make_way(&mut rest[0], before);
                }
            }
            found.iter().for_each(|bucket| self.put(bucket));
        }
        is_within
    }

    /// Gives a bucket another place in its set, as one of the others of its client takes the one
    /// that it has: both are new there, or one is and all places were in use. Once in thousands.
    #[cold]
    fn make_way(&self, bucket: &mut Bucket, others: &[Bucket]) {
        let mut moments = self.sets[bucket.set].moments;
        for other in others.iter().filter(|other| other.set == bucket.set) {
            moments[other.place] = u32::MAX;
        }
        bucket.place = room(&moments, self.now);
    }

    /// The bucket of this budget; if there is none, the one that makes room for it, as full.
    #[inline(always)]
    fn find(&self, home: Home, budget: Budget) -> Bucket {
        let (set, tag) = (home.set(self.sets.len()), home.tag(budget));
        let Set { tags, moments } = &self.sets[set];
        match first_of(tags, |word| word == tag) {
            Some(place) => {
                Bucket { set, place, tag, debt: moments[place].saturating_sub(self.now) }
            }
            None => Bucket { set, place: room(moments, self.now), tag, debt: 0 },
        }
    }

    /// Lets a bucket that was found lack its debt.
    #[inline(always)]
    fn put(&mut self, bucket: &Bucket) {
        let set = &mut self.sets[bucket.set];
        set.tags[bucket.place] = bucket.tag;
        set.moments[bucket.place] = self.now + bucket.debt;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.sets)
    }
}

/// The place of the bucket with the smallest debt.
#[inline]
fn room(moments: &[u32; RATE_SET_BUCKETS], now: u32) -> usize {
    first_of(moments, |moment| moment <= now).unwrap_or_else(|| smallest_debt(moments))
}

#[cold]
fn smallest_debt(moments: &[u32; RATE_SET_BUCKETS]) -> usize {
    moments.iter().zip(0..).min().map_or(0, |(_, place)| place)
}

/// The first place of which something holds: all are looked at, which is quicker than to guess
/// where to stop.
#[inline(always)]
fn first_of(set: &[u32; RATE_SET_BUCKETS], holds: impl Fn(u32) -> bool) -> Option<usize> {
    let places = set.map(|word| if holds(word) { u8::MAX } else { 0 });
    let places = u64::from_le_bytes(places);
    (places != 0).then(|| (places.trailing_zeros() / u8::BITS) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::keys::Keys;
    use super::*;

    const SECOND: u32 = UNITS_PER_SECOND as u32;

    fn home(key: u64) -> Home {
        let keys = Keys { secret: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] };
        keys.of_cookie(&[[0; 8], key.to_ne_bytes()].concat()[4..])
    }

    /// What a bucket lacks.
    fn debt(buckets: &Buckets, budget: Budget, key: u64) -> u32 {
        buckets.find(home(key), budget).debt
    }

    fn take(buckets: &mut Buckets, key: u64, price: u32) -> bool {
        buckets.take([home(key)], Budget::Plain, &[price], DEBT_UNITS_MAX)
    }

    #[test]
    fn a_debt_is_paid_by_time_and_belongs_to_its_key_and_budget() {
        for start in [0, 5, u64::from(EPOCH_UNITS) - 3, u64::from(EPOCH_UNITS), 1 << 51] {
            let mut buckets = Buckets::new(16);
            buckets.begin(0);
            buckets.begin(start);
            assert_eq!(debt(&buckets, Budget::Plain, 7), 0, "{start}");
            assert!(take(&mut buckets, 7, 10));
            assert_eq!(debt(&buckets, Budget::Nts, 7), 0, "another budget");
            assert_eq!(debt(&buckets, Budget::Plain, 8), 0, "another key");
            let debts = [0, 4, 10, 11, 1000].map(|units| {
                buckets.begin(start + units);
                debt(&buckets, Budget::Plain, 7)
            });
            assert_eq!(debts, [10, 6, 0, 0, 0], "{start}");
        }
    }

    #[test]
    fn one_empty_bucket_keeps_the_others_as_they_were() {
        let mut buckets = Buckets::new(1024);
        buckets.begin(0);
        assert!(take(&mut buckets, 1, 90));
        let homes = [0, 1, 2].map(home);
        assert!(!buckets.take(homes, Budget::Plain, &[10; 3], 99));
        assert_eq!([0, 1, 2].map(|key| debt(&buckets, Budget::Plain, key)), [0, 90, 0]);
        assert!(buckets.take(homes, Budget::Plain, &[9, 9, 7], 99), "the burst to its last unit");
        assert_eq!([0, 1, 2].map(|key| debt(&buckets, Budget::Plain, key)), [9, 99, 7]);
    }

    /// However full the set is, and whichever of them were there already: none drives another out.
    #[test]
    fn buckets_of_one_client_in_one_set_make_way_for_each_other() {
        for (others, there) in
            (0..=RATE_SET_BUCKETS as u64).flat_map(|n| (0..8).map(move |m| (n, m)))
        {
            let mut buckets = Buckets::new(1);
            buckets.begin(0);
            let mut expected = [10, 20, 30];
            for number in (0..3).filter(|number| there >> number & 1 != 0) {
                assert!(take(&mut buckets, number as u64, 1));
                expected[number] += 1;
            }
            let room = RATE_SET_BUCKETS as u64 - u64::from(u32::count_ones(there));
            (0..others.min(room)).for_each(|key| assert!(take(&mut buckets, 100 + key, 1000)));
            let homes = [0, 1, 2].map(home);
            assert!(buckets.take(homes, Budget::Plain, &[10, 20, 30], 2000));
            let debts = [0, 1, 2].map(|key| debt(&buckets, Budget::Plain, key));
            assert_eq!(debts, expected, "{others} others, {there:03b} of them there");
        }
    }

    #[test]
    fn the_smallest_debt_makes_room() {
        let mut buckets = Buckets::new(1);
        buckets.begin(0);
        let keys = 0..RATE_SET_BUCKETS as u64;
        let lacks = |key| 100 - key as u32;
        keys.clone().for_each(|key| assert!(take(&mut buckets, key, lacks(key))));
        assert_eq!(debt(&buckets, Budget::Plain, 99), 0);
        assert!(take(&mut buckets, 99, 1000));
        let debts: Vec<u32> = keys.clone().map(|key| debt(&buckets, Budget::Plain, key)).collect();
        let mut expected: Vec<u32> = keys.map(lacks).collect();
        expected[RATE_SET_BUCKETS - 1] = 0;
        assert_eq!(debts, expected, "the last one had the smallest");
        assert_eq!(debt(&buckets, Budget::Plain, 99), 1000);
    }

    /// In a year, whenever it is looked for; and so are those that nobody ever used.
    #[test]
    fn a_bucket_of_long_ago_is_full() {
        for seconds in (0..366 * 86_400).step_by(256) {
            let mut buckets = Buckets::new(1);
            buckets.begin(0);
            assert!(take(&mut buckets, 7, DEBT_UNITS_MAX));
            assert_eq!(debt(&buckets, Budget::Plain, 7), DEBT_UNITS_MAX);
            buckets.begin((RATE_DEBT_MAX.as_secs() + seconds) * UNITS_PER_SECOND);
            assert_eq!(debt(&buckets, Budget::Plain, 7), 0, "after {seconds} s");
            assert_eq!(debt(&buckets, Budget::Plain, 8), 0, "after {seconds} s");
        }
    }

    proptest! {
        /// Held to moments that are kept for ever, in full, as long as no set overflows.
        #[test]
        fn no_moment_is_forgotten_or_taken_for_another(
            start in 0..1_u64 << 52,
            steps in prop::collection::vec(
                (prop_oneof![0..600_u64, 0..40 * 86_400_u64], 0..4_u64, 1..=DEBT_UNITS_MAX),
                1..60,
            ),
        ) {
            let mut buckets = Buckets::new(1);
            let mut moments: HashMap<u64, u64> = HashMap::new();
            let mut now = start;
            for (pause_seconds, key, price) in steps {
                now += pause_seconds * UNITS_PER_SECOND + u64::from(price % SECOND);
                buckets.begin(now);
                let moment = moments.entry(key).or_default();
                let expected = moment.saturating_sub(now);
                prop_assert_eq!(u64::from(debt(&buckets, Budget::Plain, key)), expected);
                let paid = expected + u64::from(price);
                let is_within = paid <= DEBT_UNITS_MAX.into();
                if is_within {
                    *moment = now + paid;
                }
                prop_assert_eq!(take(&mut buckets, key, price), is_within);
            }
        }
    }
}
