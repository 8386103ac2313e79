//! Rate limits: how often one client, and the networks around it, may have an answer.
//!
//! What is limited is an answer, which costs ten times what it takes to find out who asks. There
//! are budgets for what different people do:
//!
//! | budget | counted | spent by whom |
//! | --- | --- | --- |
//! | plain | after `parse` | whoever writes the address on a request |
//! | NAK | after `verify`, when there is to be one | the same |
//! | NTS | after `verify`, when a request was authentic | who has the keys of a cookie |
//! | cookie | the same | the same; it holds whatever the address is |
//!
//! So nobody spends an authenticated client's budget but who has its keys, and a flood of plain
//! requests is over before it costs any cryptography.
//!
//! Each budget but a cookie's is two or three, and all have to have a token: the client's own, and
//! those of the networks around it (`Around`). Beyond a limit one request in so many is answered
//! all the same, by chance: addresses can be forged, and a limit that locked out would be a weapon
//! against whoever has the address.

mod buckets;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use arrayvec::ArrayVec;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::buckets::{Bucket, Buckets, UNITS_PER_SECOND};
use super::batch::{Datagram, InBatch as _, Lanes, Verdict, Verdicts};
use super::outcome::Outcome;
use super::verify::Verified;
use crate::aead::NonceGenerator;
use crate::clock::Clock;
use crate::limits::clients::{
    RATE_BURST, RATE_BURST_REQUESTS, RATE_CLIENT_SETS, RATE_COOKIE_USES_PER_SECOND_DEFAULT,
    RATE_KISSES_PER_SECOND, RATE_LEAK_DEFAULT, RATE_NAKS_PER_SECOND_DEFAULT,
    RATE_NTS_REQUESTS_PER_SECOND_DEFAULT, RATE_REQUESTS_PER_SECOND_DEFAULT, RATE_STRANGER_SETS,
    RATE_WIDE_IPV4, RATE_WIDE_IPV6, RATE_WIDER_IPV6,
};
use crate::networks::NetworkSet;

/// What one client may have of one worker: an IPv4 address or an IPv6 /64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateLimits {
    /// Answers to plain requests, per second in the long run; none for no limit.
    pub requests_per_second: Option<f64>,
    /// Answers to authentic requests.
    pub nts_requests_per_second: Option<f64>,
    /// NTS NAKs.
    pub naks_per_second: Option<f64>,
    /// Answers to one cookie.
    pub cookie_uses_per_second: Option<f64>,
    /// One in so many requests beyond a limit is answered all the same.
    pub leak: u32,
    /// Others are told so now and then (kiss code RATE, RFC 5905 section 7.4).
    pub kiss: bool,
    /// Clients without limits.
    pub unlimited: Vec<IpNet>,
}

impl RateLimits {
    /// No limits.
    pub fn off() -> Self {
        Self {
            requests_per_second: None,
            nts_requests_per_second: None,
            naks_per_second: None,
            cookie_uses_per_second: None,
            leak: RATE_LEAK_DEFAULT,
            kiss: false,
            unlimited: Vec::new(),
        }
    }

    /// Those of [`crate::limits`], but for these clients.
    pub fn but_for(unlimited: Vec<IpNet>) -> Self {
        Self {
            requests_per_second: Some(RATE_REQUESTS_PER_SECOND_DEFAULT),
            nts_requests_per_second: Some(RATE_NTS_REQUESTS_PER_SECOND_DEFAULT),
            naks_per_second: Some(RATE_NAKS_PER_SECOND_DEFAULT),
            cookie_uses_per_second: Some(RATE_COOKIE_USES_PER_SECOND_DEFAULT),
            unlimited,
            ..Self::off()
        }
    }
}

/// Holds the clients of one worker to their limits.
#[derive(Debug)]
pub(super) struct Limiter {
    plain: Option<Rate>,
    nts: Option<Rate>,
    nak: Option<Rate>,
    cookie: Option<Rate>,
    kiss: Option<Rate>,
    leak: u32,
    unlimited: NetworkSet,
    /// Buckets that change with what strangers send.
    strangers: Buckets,
    /// Buckets that change with authentic requests only: no flood of strangers drives them out.
    clients: Buckets,
    /// The moment of this batch.
    now: u64,
    /// Requests beyond a limit that were answered all the same.
    leaked: u64,
}

impl Limiter {
    /// Without limits until some are adopted. `secret` has to be random.
    pub(super) fn new(secret: [u64; 2]) -> Self {
        Self {
            plain: None,
            nts: None,
            nak: None,
            cookie: None,
            kiss: None,
            leak: RATE_LEAK_DEFAULT,
            unlimited: NetworkSet::nobody(),
            strangers: Buckets::new(RATE_STRANGER_SETS, secret),
            clients: Buckets::new(RATE_CLIENT_SETS, secret),
            now: 0,
            leaked: 0,
        }
    }

    /// Lets these limits hold. What was spent stays spent.
    pub(super) fn adopt(&mut self, limits: &RateLimits) {
        self.plain = limits.requests_per_second.map(Rate::new);
        self.nts = limits.nts_requests_per_second.map(Rate::new);
        self.nak = limits.naks_per_second.map(Rate::new);
        self.cookie = limits.cookie_uses_per_second.map(Rate::new);
        self.kiss = limits.kiss.then(|| Rate::new(RATE_KISSES_PER_SECOND));
        self.leak = limits.leak.max(1);
        let unlimited = NetworkSet::new(&limits.unlimited, &[]);
        self.unlimited = unlimited.expect("one list contradicts nothing");
    }

    /// Whether there is a limit.
    pub(super) fn is_on(&self) -> bool {
        [self.plain, self.nts, self.nak, self.cookie].iter().any(Option::is_some)
    }

    /// Requests beyond a limit that were answered all the same, since this was asked last.
    pub(super) fn take_leaked(&mut self) -> u64 {
        std::mem::take(&mut self.leaked)
    }

    /// Another batch has come.
    pub(super) fn begin<C: Clock>(&mut self, clock: &C) {
        // From units of 2⁻³² s. Not the time that is served, which may be stepped.
        self.now = clock.steady().to_bits() >> (32 - UNITS_PER_SECOND.trailing_zeros());
    }

    /// Decides on the plain requests, which would all be answered.
    pub(super) fn plain(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
    ) {
        let Some(rate) = self.plain else { return };
        let of_plain = |verdict: &Verdict| verdict.outcome == Outcome::AnsweredPlain;
        for (datagram, verdict) in batch.iter().zip(verdicts).filter(|(_, found)| of_plain(found)) {
            let source = datagram.source.ip();
            if self.unlimited.contains(source) {
                continue;
            }
            let around = Around::of(source);
            if self.strangers.take(Budget::Plain, &around, rate, self.now) || self.leaks(nonces) {
                continue;
            }
            if self.kisses(&around) {
                verdict.outcome = Outcome::KissRate;
            } else {
                *verdict = Verdict::drop(Outcome::DroppedRate);
            }
        }
    }

    /// Silences the NAKs of those who had enough of them.
    fn naks(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
    ) {
        let Some(rate) = self.nak else { return };
        let of_naks = |verdict: &Verdict| verdict.outcome == Outcome::NtsNak;
        for (datagram, verdict) in batch.iter().zip(verdicts).filter(|(_, found)| of_naks(found)) {
            let source = datagram.source.ip();
            let is_within = self.unlimited.contains(source)
                || self.strangers.take(Budget::Nak, &Around::of(source), rate, self.now)
                || self.leaks(nonces);
            if !is_within {
                *verdict = Verdict::drop(Outcome::DroppedRateNak);
            }
        }
    }

    /// Decides on the requests with NTS: those that were refused, and those that are authentic. Of
    /// the latter, those that are to be told of a limit stay.
    pub(super) fn nts(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
        verified: &mut Lanes<Verified>,
    ) {
        self.naks(batch, nonces, verdicts);
        verified.retain(|lane| {
            let datagram = &batch[lane.place()];
            let source = datagram.source.ip();
            if self.unlimited.contains(source) {
                return true;
            }
            let around = Around::of(source);
            let cookie = &datagram.bytes[lane.fields().cookie.range()];
            let Err(beyond) = self.take_authentic(&around, cookie) else { return true };
            if self.leaks(nonces) {
                return true;
            }
            let is_kissed = self.kisses(&around);
            if is_kissed {
                lane.kiss();
            } else {
                verdicts[lane.place()] = Verdict::drop(beyond);
            }
            is_kissed
        });
    }

    /// Takes a token of the cookie and of the client's NTS budget.
    fn take_authentic(&mut self, around: &Around, cookie: &[u8]) -> Result<(), Outcome> {
        if let Some(rate) = self.cookie {
            let key = key_of_cookie(cookie);
            let alone = Around::one(key);
            if !self.clients.take(Budget::Cookie, &alone, rate, self.now) {
                return Err(Outcome::DroppedReplay);
            }
        }
        match self.nts {
            Some(rate) if !self.clients.take(Budget::Nts, around, rate, self.now) => {
                Err(Outcome::DroppedRateNts)
            }
            _ => Ok(()),
        }
    }

    /// Whether a request beyond a limit is answered all the same.
    #[cold]
    fn leaks(&mut self, nonces: &mut NonceGenerator) -> bool {
        let mut random = [0; 4];
        nonces.fill(&mut random);
        let is_leak =
            u64::from(u32::from_ne_bytes(random)) * u64::from(self.leak) <= u32::MAX.into();
        self.leaked += u64::from(is_leak);
        is_leak
    }

    /// Whether a request beyond a limit is told so. That is limited, too.
    fn kisses(&mut self, around: &Around) -> bool {
        let take = |rate| self.strangers.take(Budget::Kiss, around, rate, self.now);
        self.kiss.is_some_and(take)
    }
}

/// What there are buckets for. Each has eight kinds of keys.
#[derive(Clone, Copy, Debug)]
enum Budget {
    Plain = 0,
    Nts = 8,
    Nak = 16,
    Kiss = 24,
    Cookie = 32,
}

/// A rate of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// Until a token comes back, in units of time.
    interval: u64,
    /// Debt that a bucket can have.
    burst: u64,
}

impl Rate {
    fn new(per_second: f64) -> Self {
        let interval = ((UNITS_PER_SECOND as f64 / per_second) as u64).max(1);
        let burst = RATE_BURST.as_secs() * UNITS_PER_SECOND;
        Self { interval, burst: burst.max(RATE_BURST_REQUESTS * interval) }
    }
}

/// A key of a bucket: what kind it is, and by how much its rate is that of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    kind: u64,
    key: u64,
    clients: u64,
}

/// A client with the networks around it: an IPv4 address and its /24, an IPv6 /64, its /56 and its
/// /48. In an IPv4 network addresses are few and have different owners; an IPv6 network is one
/// owner's, who has more addresses than anybody can count.
#[derive(Clone, Debug)]
struct Around(ArrayVec<Level, LEVELS>);

const LEVELS: usize = 3;

impl Around {
    #[inline]
    fn of(client: IpAddr) -> Self {
        let level = |kind, key, clients| Level { kind, key, clients };
        let mut levels = ArrayVec::new();
        match client.to_canonical() {
            IpAddr::V4(address) => {
                let bits = u64::from(address.to_bits());
                levels.push(level(0, bits, 1));
                levels.push(level(1, bits >> 8, RATE_WIDE_IPV4));
            }
            IpAddr::V6(address) => {
                let bits = (address.to_bits() >> 64) as u64;
                levels.push(level(2, bits, 1));
                levels.push(level(3, bits >> 8, RATE_WIDE_IPV6));
                levels.push(level(4, bits >> 16, RATE_WIDER_IPV6));
            }
        }
        Self(levels)
    }

    /// Something that is nothing's part.
    fn one(key: u64) -> Self {
        Self([Level { kind: 5, key, clients: 1 }].into_iter().collect())
    }
}

impl Buckets {
    /// Takes a token on each level, or none if one of them has none.
    #[inline]
    fn take(&mut self, budget: Budget, around: &Around, rate: Rate, now: u64) -> bool {
        let mut charged: ArrayVec<(Bucket, u64), LEVELS> = ArrayVec::new();
        for level in &around.0 {
            let bucket = self.find(budget as u64 + level.kind, level.key, now);
            let debt = bucket.debt + (rate.interval / level.clients).max(1);
            if debt > rate.burst {
                return false;
            }
            charged.push((bucket, debt));
        }
        for (bucket, debt) in &charged {
            self.put(bucket, *debt, now);
        }
        true
    }
}

/// The first half of a cookie's nonce, which is random: behind the key's identifier.
fn key_of_cookie(cookie: &[u8]) -> u64 {
    cookie.get(4..12).and_then(|nonce| nonce.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
