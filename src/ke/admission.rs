//! Who may begin a handshake: those with access, and of them a bucket of tokens and a count of
//! connections for each client prefix.
//!
//! A handshake costs the server much and asking for one next to nothing, so a prefix is held to its
//! rate and its share of the connections before the first byte of TLS is read. Many addresses of
//! one prefix have one owner, who can use them all: [`Prefix`] is what is counted. Neighbours of a
//! flooder share its limits; everybody else is served.
//!
//! Buckets are a set-associative table of fixed size. A bucket is one number, the moment at which
//! it will be full again (the generic cell rate algorithm): a bucket that is full need not be kept
//! at all, so whoever has not come lately takes no memory. In a set whose buckets are all in use
//! the fullest makes room, which costs the least. Sets are chosen by a keyed hash: strangers cannot
//! choose prefixes that drive each other's buckets out.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::session::Outcome;
use crate::limits::{
    KE_PREFIX_BITS_IPV4, KE_PREFIX_BITS_IPV6, KE_PREFIX_BURST, KE_PREFIX_SET_BUCKETS,
    KE_PREFIX_SETS,
};
use crate::networks::NetworkSet;

/// What one prefix may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrefixLimits {
    /// Handshakes per second, in the long run; none for no limit.
    pub handshakes_per_second: Option<f64>,
    /// Connections at one time; none for no limit.
    pub connections: Option<usize>,
    /// Clients without these limits.
    pub unlimited: Vec<IpNet>,
}

impl PrefixLimits {
    /// The share of one of `processes`.
    pub fn share(&self, processes: usize) -> Self {
        Self {
            handshakes_per_second: self.handshakes_per_second.map(|rate| rate / processes as f64),
            connections: self.connections.map(|connections| connections.div_ceil(processes)),
            unlimited: self.unlimited.clone(),
        }
    }
}

/// The network that a client is counted under: the first bits of its address, the rest zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(IpAddr);

impl Prefix {
    /// The prefix of `address`; an IPv4 address that is written as IPv6 is an IPv4 one.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX << (u32::BITS - KE_PREFIX_BITS_IPV4);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX << (u128::BITS - KE_PREFIX_BITS_IPV6);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        })
    }
}

/// Counts what each prefix has.
#[derive(Debug)]
pub struct Admission {
    access: NetworkSet,
    unlimited: NetworkSet,
    limits: PrefixLimits,
    buckets: Buckets,
    /// Prefixes with connections. No more than there are connections.
    connections: HashMap<Prefix, usize>,
}

impl Admission {
    /// For a server of up to `connections_max` connections, to which everybody has access. `hasher`
    /// has to be random.
    pub fn new(
        limits: PrefixLimits,
        connections_max: usize,
        now: Instant,
        hasher: RandomState,
    ) -> Self {
        let connections = HashMap::with_capacity_and_hasher(connections_max, hasher.clone());
        let (access, unlimited) = (NetworkSet::everybody(), set_of(&limits.unlimited));
        Self { access, unlimited, limits, buckets: Buckets::new(now, hasher), connections }
    }

    /// Lets these limits hold from now on.
    pub fn adopt(&mut self, limits: PrefixLimits) {
        self.unlimited = set_of(&limits.unlimited);
        self.limits = limits;
    }

    /// Lets nobody but these in from now on.
    pub fn set_access(&mut self, access: NetworkSet) {
        self.access = access;
    }

    /// Whether a connection from `client` may have a handshake. It is counted then, under the
    /// prefix returned, until [`Admission::leave`]; none is the prefix of a client without limits.
    ///
    /// # Errors
    /// The outcome of a connection that may not.
    pub fn enter(&mut self, client: IpAddr, now: Instant) -> Result<Option<Prefix>, Outcome> {
        let client = client.to_canonical();
        if !self.access.contains(client) {
            return Err(Outcome::Denied);
        }
        if self.unlimited.contains(client) {
            return Ok(None);
        }
        let prefix = Prefix::of(client);
        if let Some(connections_max) = self.limits.connections
            && self.connections.get(&prefix).is_some_and(|count| *count >= connections_max)
        {
            return Err(Outcome::PrefixConnections);
        }
        if let Some(rate) = self.limits.handshakes_per_second
            && !self.buckets.take(prefix, Duration::from_secs_f64(1.0 / rate), now)
        {
            return Err(Outcome::PrefixRate);
        }
        *self.connections.entry(prefix).or_default() += 1;
        Ok(Some(prefix))
    }

    /// A connection that was counted under `prefix` is over.
    pub fn leave(&mut self, prefix: Option<Prefix>) {
        let Some(prefix) = prefix else { return };
        if let Some(count) = self.connections.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.connections.remove(&prefix);
            }
        }
    }
}

fn set_of(networks: &[IpNet]) -> NetworkSet {
    NetworkSet::new(networks, &[]).expect("one list contradicts nothing")
}

/// A cache line of buckets.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Bucket; KE_PREFIX_SET_BUCKETS]);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Hash of the prefix. Two prefixes of one hash share a bucket, once in 2⁶⁴ pairs.
    hash: u64,
    /// When it is full again, in nanoseconds since the start. A bucket that nobody has is full.
    full_at_ns: u64,
}

#[derive(Debug)]
struct Buckets {
    sets: Box<[Set]>,
    start: Instant,
    hasher: RandomState,
}

impl Buckets {
    fn new(start: Instant, hasher: RandomState) -> Self {
        Self { sets: vec![Set::default(); KE_PREFIX_SETS].into_boxed_slice(), start, hasher }
    }

    /// Takes a token out of the prefix's bucket; false when it is empty. A token comes back after
    /// `interval`, and a bucket holds what comes in [`KE_PREFIX_BURST`], but one at least.
    fn take(&mut self, prefix: Prefix, interval: Duration, now: Instant) -> bool {
        let now_ns = now.saturating_duration_since(self.start).as_nanos() as u64;
        let interval_ns = interval.as_nanos() as u64;
        let burst_ns = (KE_PREFIX_BURST.as_nanos() as u64).max(interval_ns);
        let bucket = self.bucket(prefix);
        let full_at_ns = bucket.full_at_ns.max(now_ns).saturating_add(interval_ns);
        if full_at_ns - now_ns > burst_ns {
            return false;
        }
        bucket.full_at_ns = full_at_ns;
        true
    }

    /// The prefix's bucket, or the fullest of its set, emptied of whom it was for.
    fn bucket(&mut self, prefix: Prefix) -> &mut Bucket {
        let hash = self.hasher.hash_one(prefix);
        let Set(buckets) = &mut self.sets[hash as usize % KE_PREFIX_SETS];
        let own = buckets.iter().position(|bucket| bucket.hash == hash);
        let fullest = || (0..KE_PREFIX_SET_BUCKETS).min_by_key(|at| buckets[*at].full_at_ns);
        let place = own.or_else(fullest).unwrap_or_default();
        if own.is_none() {
            buckets[place] = Bucket { hash, full_at_ns: 0 };
        }
        &mut buckets[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(handshakes_per_second: f64, connections: usize, start: Instant) -> Admission {
        let limits = PrefixLimits {
            handshakes_per_second: Some(handshakes_per_second),
            connections: Some(connections),
            unlimited: vec!["127.0.0.0/8".parse().unwrap()],
        };
        Admission::new(limits, 1000, start, RandomState::new())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_what_one_owner_has() {
        let same = |a, b| Prefix::of(address(a)) == Prefix::of(address(b));
        assert!(same("192.0.2.1", "192.0.2.255"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.7"));
        assert!(!same("192.0.2.1", "192.0.3.1"));
        assert!(same("2001:db8:0:100::1", "2001:db8:0:1ff:ffff::"));
        assert!(!same("2001:db8:0:100::1", "2001:db8:0:200::1"));
        assert!(!same("::c000:201", "192.0.2.1"), "not an IPv4 address");
    }

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let start = Instant::now();
        let mut admission = admission(10.0, 1000, start);
        let burst = (KE_PREFIX_BURST.as_secs_f64() * 10.0) as u64;
        let mut admitted = |milliseconds: u64| {
            let now = start + Duration::from_millis(milliseconds);
            let tries = (0..2 * burst).map(|low| [192, 0, 2, low as u8].into());
            tries.filter(|client: &IpAddr| admission.enter(*client, now).is_ok()).count() as u64
        };
        assert_eq!(admitted(0), burst);
        assert_eq!(admitted(99), 0);
        assert_eq!(admitted(100), 1);
        assert_eq!(admitted(450), 3);
        assert_eq!(admitted(3_600_000), burst, "no more than a bucket holds");
    }

    #[test]
    fn a_rate_below_one_bucket_still_admits() {
        let start = Instant::now();
        let mut admission = admission(0.01, 1000, start);
        let mut enter = |seconds| {
            admission.enter(address("192.0.2.1"), start + Duration::from_secs(seconds)).is_ok()
        };
        assert_eq!([0, 99, 100, 199, 200].map(&mut enter), [true, false, true, false, true]);
    }

    #[test]
    fn a_prefix_has_its_share_of_connections_and_gets_it_back() {
        let start = Instant::now();
        let mut admission = admission(1000.0, 2, start);
        let first = admission.enter(address("192.0.2.1"), start).unwrap();
        admission.enter(address("192.0.2.2"), start).unwrap();
        let third = admission.enter(address("192.0.2.3"), start);
        assert_eq!(third, Err(Outcome::PrefixConnections));
        assert!(admission.enter(address("192.0.3.1"), start).is_ok());
        admission.leave(first);
        assert!(admission.enter(address("192.0.2.3"), start).is_ok());
    }

    #[test]
    fn unlimited_clients_are_not_counted() {
        let start = Instant::now();
        let mut admission = admission(1.0, 1, start);
        for _ in 0..1000 {
            assert_eq!(admission.enter(address("127.0.0.1"), start), Ok(None));
            assert_eq!(admission.enter(address("::ffff:127.9.9.9"), start), Ok(None));
        }
        assert!(admission.connections.is_empty());
    }

    #[test]
    fn whoever_has_no_access_is_denied_and_counted_nowhere() {
        let start = Instant::now();
        let mut admission = admission(1.0, 1, start);
        let networks = ["127.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        admission.set_access(NetworkSet::new(&networks[1..], &networks[..1]).unwrap());
        for client in ["127.0.0.1", "::ffff:127.0.0.1", "192.0.2.1", "2001:db9::1"] {
            assert_eq!(admission.enter(address(client), start), Err(Outcome::Denied), "{client}");
        }
        assert!(admission.connections.is_empty());
        assert!(admission.enter(address("2001:db8::1"), start).is_ok());
    }

    /// Ten times as many prefixes as buckets, all over their rate, and memory stays what it was:
    /// whoever comes for the first time meets a full bucket.
    #[test]
    fn a_flood_from_everywhere_keeps_no_newcomer_out() {
        let start = Instant::now();
        let mut admission = admission(1.0, usize::MAX, start);
        let prefixes = 10 * KE_PREFIX_SETS * KE_PREFIX_SET_BUCKETS;
        for number in 0..prefixes as u32 {
            let client = IpAddr::V4((0x0b00_0000 + (number << 8)).into());
            let admitted: Vec<_> = (0..8).map(|_| admission.enter(client, start)).collect();
            assert!(admitted[0].is_ok(), "{client}");
            assert_eq!(admitted[7], Err(Outcome::PrefixRate), "{client}");
            admitted.into_iter().flatten().for_each(|prefix| admission.leave(prefix));
        }
        assert_eq!(admission.buckets.sets.len(), KE_PREFIX_SETS);
        assert!(admission.connections.is_empty());
    }
}
