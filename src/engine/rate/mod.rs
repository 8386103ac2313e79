//! Rate limits: how often one client, and the networks around it, may have an answer.
//!
//! What is limited is an answer, which costs ten times what it takes to find out who asks. There
//! are budgets for what different people do:
//!
//! | budget | counted | spent by whom |
//! | --- | --- | --- |
//! | plain | after `parse` | whoever writes the address on a request |
//! | NAK | after `verify`, when there is to be one | the same; and all together have one |
//! | NTS | after `verify`, when a request was authentic | who has the keys of a cookie |
//! | cookie | the same | the same; it holds whatever the address is |
//!
//! So nobody spends an authenticated client's budget but who has its keys, or repeats what he has
//! seen of it, each request at the rate of a cookie; and a flood of plain requests is over before
//! it costs any cryptography.
//!
//! Each budget but a cookie's is two or three, and all have to have a token: the client's own, and
//! those of the networks around it (`Asker`). Beyond a limit one request in so many is answered
//! all the same, by chance: addresses can be forged, and a limit that locked out would be a weapon
//! against whoever has the address.

mod buckets;
mod keys;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::buckets::{Buckets, DEBT_UNITS_MAX, Shared, UNITS_PER_SECOND};
use self::keys::{Asker, Budget, Keys};
use super::batch::{Datagram, InBatch as _, Lanes, Verdict, Verdicts};
use super::outcome::Outcome;
use super::unlock::Unlocked;
use super::verify::Verified;
use crate::aead::NonceGenerator;
use crate::clock::Clock;
use crate::limits::BATCH_DATAGRAMS;
use crate::limits::clients::{
    RATE_BURST, RATE_BURST_REQUESTS, RATE_CLIENT_SETS, RATE_COOKIE_USES_PER_SECOND_DEFAULT,
    RATE_KISSES_PER_SECOND, RATE_LEAK_DEFAULT, RATE_NAKS_PER_SECOND_ALL,
    RATE_NAKS_PER_SECOND_DEFAULT, RATE_NTS_REQUESTS_PER_SECOND_DEFAULT,
    RATE_REQUESTS_PER_SECOND_DEFAULT, RATE_STRANGER_SETS, RATE_WIDE_IPV4, RATE_WIDE_IPV6,
    RATE_WIDER_IPV6,
};
use crate::networks::{Address, NetworkSet};

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
    /// What all who have a limit may have of NAKs.
    all_naks: Shared,
    leak: u32,
    unlimited: NetworkSet,
    keys: Keys,
    /// The moment of this batch, in units of time.
    now: u64,
    /// Who has sent the datagram in each place of the batch, where that was found out.
    askers: [Asker; BATCH_DATAGRAMS],
    /// Buckets that change with what strangers send.
    strangers: Buckets,
    /// Buckets that change with authentic requests only: no flood of strangers drives them out.
    clients: Buckets,
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
            all_naks: Shared::default(),
            leak: RATE_LEAK_DEFAULT,
            unlimited: NetworkSet::nobody(),
            keys: Keys { secret },
            now: 0,
            askers: [Asker::default(); BATCH_DATAGRAMS],
            strangers: Buckets::new(RATE_STRANGER_SETS),
            clients: Buckets::new(RATE_CLIENT_SETS),
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
        self.strangers.begin(self.now);
        self.clients.begin(self.now);
    }

    /// Decides on the plain requests, which would all be answered.
    pub(super) fn plain(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
    ) {
        let Some(rate) = self.plain else { return };
        self.meet_strangers(batch, verdicts, Outcome::AnsweredPlain);
        for (place, verdict) in due(verdicts, Outcome::AnsweredPlain) {
            if self.askers[place].take(&mut self.strangers, Budget::Plain, &rate)
                || self.leaks(nonces)
            {
                continue;
            }
            if self.kisses(place) {
                verdict.outcome = Outcome::KissRate;
            } else {
                *verdict = Verdict::drop(Outcome::DroppedRate);
            }
        }
    }

    /// Finds out who has sent the requests that may turn out to be authentic, so that their buckets
    /// are near by then.
    pub(super) fn expect_nts(&mut self, batch: &[Datagram<'_>], unlocked: &Lanes<Unlocked>) {
        for lane in unlocked {
            let (place, datagram) = (lane.place(), &batch[lane.place()]);
            self.meet(place, datagram);
            let cookie = &datagram.bytes[lane.fields().cookie.range()];
            self.askers[place].cookie = self.keys.of_cookie(cookie);
        }
        // Nothing else between the loads, so that all are under way at a time.
        for asker in unlocked.iter().map(|lane| &self.askers[lane.place()]) {
            asker.touch(&self.clients);
            self.clients.touch([asker.cookie]);
        }
    }

    /// Finds out who has sent the datagrams to which this is due, and brings their buckets near.
    #[inline(always)]
    fn meet_strangers(&mut self, batch: &[Datagram<'_>], verdicts: &Verdicts, outcome: Outcome) {
        for (place, datagram) in batch.iter().enumerate() {
            if verdicts[place].outcome == outcome {
                self.meet(place, datagram);
                self.askers[place].touch(&self.strangers);
            }
        }
    }

    /// Finds out who has sent a datagram. Takes nothing of him, so that whoever is met again, as
    /// one is whose cookie opened and whose request was not authentic, is as he was.
    #[inline(always)]
    fn meet(&mut self, place: usize, datagram: &Datagram<'_>) {
        let client = Address::from(&datagram.source);
        if self.unlimited.contains(client) {
            self.askers[place].set_unlimited();
        } else {
            self.askers[place].set(client, &self.keys);
        }
    }

    /// Silences the NAKs of those who had enough of them, and those beyond what all may have: of
    /// these none leaks, as there is no victim who would be locked out.
    fn naks(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
    ) {
        let Some(rate) = self.nak else { return };
        self.meet_strangers(batch, verdicts, Outcome::NtsNak);
        for (place, verdict) in due(verdicts, Outcome::NtsNak) {
            if !self.takes_nak(place, &rate, nonces) {
                *verdict = Verdict::drop(Outcome::DroppedRateNak);
            }
        }
    }

    /// Takes a token of all NAKs and of the client's, or by chance of the former alone. Where all
    /// are spent nobody loses his own.
    fn takes_nak(&mut self, place: usize, rate: &Rate, nonces: &mut NonceGenerator) -> bool {
        let asker = &self.askers[place];
        if asker.is_unlimited() {
            return true;
        }
        let is_due = self.all_naks.has_one(self.now, RATE_NAKS_PER_SECOND_ALL)
            && (asker.take(&mut self.strangers, Budget::Nak, rate) || self.leaks(nonces));
        if is_due {
            self.all_naks.take(self.now, RATE_NAKS_PER_SECOND_ALL);
        }
        is_due
    }

    /// Decides on the requests with NTS: those that were refused, and those that are authentic,
    /// which were expected ([`Limiter::expect_nts`]). Of the latter, those that are to be told of a
    /// limit stay.
    pub(super) fn nts(
        &mut self,
        batch: &[Datagram<'_>],
        nonces: &mut NonceGenerator,
        verdicts: &mut Verdicts,
        verified: &mut Lanes<Verified>,
    ) {
        self.naks(batch, nonces, verdicts);
        verified.retain(|lane| {
            let Err(beyond) = self.take_authentic(lane.place()) else { return true };
            if self.leaks(nonces) {
                return true;
            }
            let is_kissed = self.kisses(lane.place());
            if is_kissed {
                lane.kiss();
            } else {
                verdicts[lane.place()] = Verdict::drop(beyond);
            }
            is_kissed
        });
    }

    /// Takes a token of the cookie and of the client's NTS budget.
    #[inline(always)]
    fn take_authentic(&mut self, place: usize) -> Result<(), Outcome> {
        let asker = &self.askers[place];
        let takes = |rate: &Rate| asker.take_of_cookie(&mut self.clients, rate);
        if !self.cookie.as_ref().is_none_or(takes) {
            return Err(Outcome::DroppedReplay);
        }
        let takes = |rate: &Rate| asker.take(&mut self.clients, Budget::Nts, rate);
        if !self.nts.as_ref().is_none_or(takes) {
            return Err(Outcome::DroppedRateNts);
        }
        Ok(())
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
    #[cold]
    fn kisses(&mut self, place: usize) -> bool {
        let asker = &self.askers[place];
        self.kiss.is_some_and(|rate| asker.take(&mut self.strangers, Budget::Kiss, &rate))
    }
}

/// The verdicts that are this outcome, each with its place.
#[inline(always)]
fn due(verdicts: &mut Verdicts, outcome: Outcome) -> impl Iterator<Item = (usize, &mut Verdict)> {
    verdicts.iter_mut().enumerate().filter(move |(_, verdict)| verdict.outcome == outcome)
}

/// A rate of tokens: the price of a token in each bucket of a client, in units of time, and how
/// much a bucket can lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    ipv4: [u32; 2],
    ipv6: [u32; 3],
    burst: u32,
}

impl Rate {
    fn new(per_second: f64) -> Self {
        const INTERVAL_MAX: u32 = DEBT_UNITS_MAX / RATE_BURST_REQUESTS;
        let interval = ((UNITS_PER_SECOND as f64 / per_second) as u32).min(INTERVAL_MAX);
        let of = |clients: u32| (interval / clients).max(1);
        let burst = (RATE_BURST.as_secs() * UNITS_PER_SECOND) as u32;
        Self {
            ipv4: [1, RATE_WIDE_IPV4].map(of),
            ipv6: [1, RATE_WIDE_IPV6, RATE_WIDER_IPV6].map(of),
            burst: burst.max(RATE_BURST_REQUESTS * interval),
        }
    }

    /// Until a token comes back.
    fn interval(&self) -> u32 {
        self.ipv4[0]
    }
}
