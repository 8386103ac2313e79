//! Counts and histograms of a run, and of each of its intervals.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::{HISTOGRAM_FIGURES, HISTOGRAM_MAX_NS};

/// What became of requests and of datagrams. Once a run is over, two sums hold:
/// [`Tally::requests_add_up`] and [`Tally::datagrams_add_up`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were due and handed to the kernel.
    pub offered: u64,
    /// Of these: the kernel did not take them.
    pub refused: u64,
    /// Of these: answered within the timeout, in a way that a client accepts.
    pub answered: u64,
    /// Of the answered: in interleaved mode (RFC 9769); the others are basic ones.
    pub interleaved: u64,
    /// Of the offered: answered within the second timeout.
    pub late: u64,
    /// Of these: no answer in two timeouts.
    pub lost: u64,
    /// Of these: answered by an NTS NAK.
    pub nak: u64,
    /// Of these: answered by a kiss-o'-death, by its code.
    pub kiss: BTreeMap<String, u64>,
    /// Datagrams that came, the answers among them.
    pub received: u64,
    /// Of these: a further answer to a request.
    pub duplicates: u64,
    /// Of these: an answer after two timeouts; its request is counted as lost.
    pub forgotten: u64,
    /// Of these: no answer to any request, by the reason.
    pub invalid: Invalid,
    /// Answers whose tag was checked.
    pub authenticated: u64,
    /// Answers of a server that calls itself unsynchronised.
    pub unsynchronised: u64,
    /// Requests with a cookie that had been used before, because the client had no other.
    pub cookies_reused: u64,
    /// Requests that left more than [`crate::limits::SEND_LAG_MAX`] after they were due.
    pub lagging: u64,
    /// Requests given up early because too many were in flight.
    pub crowded_out: u64,
    /// Datagrams that the kernel dropped at our own sockets.
    pub own_drops: u64,
}

/// Datagrams that are no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// From another address than the server's.
    pub foreign: u64,
    /// No NTP reply of version 4: too short, or another mode.
    pub header: u64,
    /// Of no request of this run.
    pub unknown: u64,
    /// Longer than its request, or truncated.
    pub length: u64,
    /// Without the request's unique identifier.
    pub identifier: u64,
    /// Extension fields that are malformed, or no authenticator.
    pub fields: u64,
    /// The tag is wrong.
    pub tag: u64,
    /// Other cookies than were asked for, in number or length.
    pub cookies: u64,
}

impl Invalid {
    /// Name and count of each reason.
    pub fn reasons(&self) -> [(&'static str, u64); 8] {
        [
            ("foreign address", self.foreign),
            ("header", self.header),
            ("unknown request", self.unknown),
            ("length", self.length),
            ("identifier", self.identifier),
            ("fields", self.fields),
            ("tag", self.tag),
            ("cookies", self.cookies),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.reasons().iter().map(|(_, count)| count).sum()
    }
}

impl Tally {
    /// Kisses of all codes.
    pub fn kisses(&self) -> u64 {
        self.kiss.values().sum()
    }

    /// Share of the offered requests that had no good answer in time.
    pub fn loss(&self) -> f64 {
        if self.offered == 0 { 0.0 } else { 1.0 - self.answered as f64 / self.offered as f64 }
    }

    /// Every request has exactly one end.
    pub fn requests_add_up(&self) -> bool {
        let ends = self.refused + self.answered + self.late + self.lost + self.nak + self.kisses();
        self.offered == ends
    }

    /// Every datagram has exactly one meaning.
    pub fn datagrams_add_up(&self) -> bool {
        let answers = self.answered + self.late + self.nak + self.kisses();
        self.received == answers + self.duplicates + self.forgotten + self.invalid.total()
    }

    /// Adds what another thread, interval or run counted.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.refused += other.refused;
        self.answered += other.answered;
        self.interleaved += other.interleaved;
        self.late += other.late;
        self.lost += other.lost;
        self.nak += other.nak;
        for (code, count) in &other.kiss {
            *self.kiss.entry(code.clone()).or_default() += count;
        }
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.forgotten += other.forgotten;
        self.authenticated += other.authenticated;
        self.unsynchronised += other.unsynchronised;
        self.cookies_reused += other.cookies_reused;
        self.lagging += other.lagging;
        self.crowded_out += other.crowded_out;
        self.own_drops += other.own_drops;
        let (into, from) = (&mut self.invalid, &other.invalid);
        into.foreign += from.foreign;
        into.header += from.header;
        into.unknown += from.unknown;
        into.length += from.length;
        into.identifier += from.identifier;
        into.fields += from.fields;
        into.tag += from.tag;
        into.cookies += from.cookies;
    }
}

/// Times in nanoseconds, known to 0.1 %; stored as pairs of value and count.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, HISTOGRAM_MAX_NS, HISTOGRAM_FIGURES);
        Self(histogram.expect("the bounds are in order"))
    }
}

impl Times {
    /// Counts one; what is longer than the longest counts as that.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of all does not exceed, in nanoseconds.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) }
    }

    /// The longest, in nanoseconds.
    pub fn max_ns(&self) -> u64 {
        self.0.max()
    }

    /// The mean, in nanoseconds.
    pub fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    /// The shortest, in nanoseconds.
    pub fn min_ns(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.min() }
    }

    /// The standard deviation, in nanoseconds.
    pub fn deviation_ns(&self) -> f64 {
        self.0.stdev()
    }

    /// Values with their counts, ascending.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to().min(HISTOGRAM_MAX_NS), step.count_at_value()))
    }
}

impl Serialize for Times {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs())
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.saturating_record_n(value, count);
        }
        Ok(times)
    }
}

/// What one thread recorded in one interval.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Counts.
    pub tally: Tally,
    /// From when a request was due to its answer's arrival, of those answered or late.
    pub latency: Times,
    /// From when a request was due to when it was handed to the kernel.
    pub send_lag: Times,
}

impl Interval {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.latency.add(&other.latency);
        self.send_lag.add(&other.send_lag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_being_stored() {
        let mut times = Times::default();
        for value in [1, 50, 999, 123_456, 1_000_000_000, HISTOGRAM_MAX_NS, u64::MAX] {
            times.record(value);
        }
        let text = serde_json::to_string(&times).expect("plain data");
        let read: Times = serde_json::from_str(&text).expect("the same");
        assert_eq!(read.count(), 7);
        for quantile in [0.1, 0.5, 0.7, 0.9, 1.0] {
            assert_eq!(read.quantile_ns(quantile), times.quantile_ns(quantile));
        }
    }

    #[test]
    fn quantiles_are_known_to_a_thousandth() {
        let mut times = Times::default();
        (1..=10_000).for_each(|value| times.record(value * 1000));
        for (quantile, exact) in [(0.5, 5_000_000.0), (0.99, 9_900_000.0), (0.999, 9_990_000.0)] {
            let found = times.quantile_ns(quantile) as f64;
            assert!((found / exact - 1.0).abs() <= 0.001, "{quantile}: {found}");
        }
        assert_eq!(Times::default().quantile_ns(0.5), 0);
    }

    #[test]
    fn adding_leaves_nothing_out() {
        let ones = serde_json::json!({
            "offered": 1, "refused": 1, "answered": 1, "interleaved": 1, "late": 1,
            "lost": 1, "nak": 1, "kiss": {"RATE": 1}, "received": 1, "duplicates": 1,
            "forgotten": 1,
            "invalid": {"foreign": 1, "header": 1, "unknown": 1, "length": 1, "identifier": 1,
                "fields": 1, "tag": 1, "cookies": 1},
            "authenticated": 1, "unsynchronised": 1, "cookies_reused": 1, "lagging": 1,
            "crowded_out": 1, "own_drops": 1,
        });
        let mut tally: Tally = serde_json::from_value(ones.clone()).expect("all counts");
        tally.add(&tally.clone());
        let twos = ones.to_string().replace(":1", ":2");
        assert_eq!(serde_json::to_value(&tally).expect("plain").to_string().len(), twos.len());
        assert_eq!(tally, serde_json::from_str(&twos).expect("all counts"));
    }
}
