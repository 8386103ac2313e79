//! The histograms of a worker: how many datagrams came together, and how long they took.
//!
//! They are counted in the worker's page itself: of some forty words one or two change with a
//! datagram, so copying them all after each batch, as counters are, would cost more than counting.
//! A bound belongs to its bucket, as in Prometheus' histograms (`le`).

use crate::limits::{BATCH_DATAGRAMS, LATENCY_NANOSECONDS_FIRST, LATENCY_NANOSECONDS_LAST};

/// Place of the histogram of batch sizes among those of a worker.
pub const BATCH: usize = 0;
/// Place of the histogram of latencies.
pub const LATENCY: usize = 1;

/// Upper bounds of the buckets of a worker's histograms; one more bucket takes what is beyond.
pub const OF_WORKER: &[&[u64]] = &[&BATCH_BOUNDS, &LATENCY_BOUNDS];

/// Datagrams of one batch: 1, 2, 4 … 32.
pub const BATCH_BOUNDS: [u64; BATCH_DATAGRAMS.ilog2() as usize + 1] = {
    let mut bounds = [0; _];
    let mut place = 0;
    while place < bounds.len() {
        bounds[place] = 1 << place;
        place += 1;
    }
    bounds
};

/// Exponent of the first bound.
const FIRST: u32 = LATENCY_NANOSECONDS_FIRST.ilog2();
/// Two steps for each doubling, and the first bound.
const LATENCY_BUCKETS: usize = 2 * (LATENCY_NANOSECONDS_LAST.ilog2() - FIRST) as usize + 1;

/// Nanoseconds from a request's arrival until the replies of its batch were handed to the kernel:
/// two bounds for each doubling, so that a percentile is known within a quarter.
pub const LATENCY_BOUNDS: [u64; LATENCY_BUCKETS] = {
    let mut bounds = [LATENCY_NANOSECONDS_FIRST; LATENCY_BUCKETS];
    let mut place = 1;
    while place < LATENCY_BUCKETS {
        let whole = LATENCY_NANOSECONDS_FIRST << (place / 2);
        bounds[place] = if place % 2 == 0 { whole } else { whole + whole / 2 };
        place += 1;
    }
    bounds
};

/// The bucket of a batch of so many datagrams, at least one.
#[inline]
pub fn batch_bucket(datagrams: usize) -> usize {
    datagrams.next_power_of_two().ilog2() as usize
}

/// The bucket of a latency.
#[inline]
pub fn latency_bucket(nanoseconds: u64) -> usize {
    // A bound is in its bucket, so the next lower number decides.
    let below = nanoseconds.saturating_sub(1);
    if below < LATENCY_NANOSECONDS_FIRST {
        return 0;
    }
    let exponent = below.ilog2();
    let half = (below >> (exponent - 1)) & 1;
    (1 + 2 * (exponent - FIRST) as usize + half as usize).min(LATENCY_BUCKETS)
}

/// A histogram as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds of all buckets but the last.
    pub bounds: &'static [u64],
    /// What was counted in each bucket, one more than bounds.
    pub counts: Vec<u64>,
    /// Sum of all that was counted.
    pub sum: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(bounds: &[u64], value: u64) -> usize {
        bounds.partition_point(|&bound| bound < value)
    }

    #[test]
    fn every_value_is_in_the_bucket_of_its_bound() {
        assert!(LATENCY_BOUNDS.is_sorted() && BATCH_BOUNDS.is_sorted());
        assert_eq!(LATENCY_BOUNDS.last(), Some(&LATENCY_NANOSECONDS_LAST));
        assert_eq!(BATCH_BOUNDS.last(), Some(&(BATCH_DATAGRAMS as u64)));
        for datagrams in 1..=BATCH_DATAGRAMS {
            assert_eq!(batch_bucket(datagrams), expected(&BATCH_BOUNDS, datagrams as u64));
        }
        let near = LATENCY_BOUNDS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
        for value in near.chain([0, 1, u64::MAX]) {
            assert_eq!(latency_bucket(value), expected(&LATENCY_BOUNDS, value), "{value}");
        }
    }
}
