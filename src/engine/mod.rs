//! The packet core: a batch of requests becomes a batch of replies, without I/O.
//!
//! [`Engine::answer`] runs seven stages, one file each, in the order in which a packet meets them:
//!
//! 1. `admit`: drop what comes from addresses that have no access; read nothing of it.
//! 2. `parse`: classify each datagram and record where its parts lie; copy nothing.
//! 3. `unlock`: find the master keys and open all cookies together.
//! 4. `verify`: check all authenticators together.
//! 5. `renew`: make all fresh cookies together, in place.
//! 6. `stamp`: read the clock as late as possible and write the headers, with the time at which
//!    each reply will leave, or for clients in interleaved mode, the one before has left.
//! 7. `seal`: encrypt and authenticate all replies together.
//!
//! Between them stand the limits (`rate`): for plain requests behind `parse`, for all others behind
//! `verify`.
//!
//! Time, keys and randomness are arguments. A reply is written over its request and is never
//! longer: the only bytes a stage can reach are those that arrived. What a stage has proved is a
//! type (`parse::Parsed`, `unlock::Unlocked`, `verify::Verified`) that only this stage can
//! make, so no reply is sealed for a request that was not verified.

mod admit;
pub mod batch;
pub mod counters;
mod departure;
mod interleaved;
pub mod outcome;
mod parse;
pub mod rate;
mod renew;
mod seal;
mod stamp;
pub mod terms;
mod unlock;
mod verify;

use std::sync::Arc;

use zeroize::Zeroize as _;

use crate::aead::{Aead, NonceGenerator};
use crate::clock::Clock;
use crate::cookie::format::ClientKeys;
use crate::cookie::ring::KeyRing;
use crate::limits::BATCH_DATAGRAMS;
use crate::networks::NetworkSet;
use crate::wire::timestamp::NtpTimestamp;
use batch::{Datagram, Lanes, Ticket, Verdict, Verdicts};
use counters::Counters;
use departure::Departures;
use interleaved::Pairs;
use parse::Parsed;
use rate::Limiter;
use renew::Renewed;
use terms::Terms;
use unlock::Unlocked;
use verify::Verified;

/// Answers batches. Owns the scratch space of the stages and the counters; allocates nothing
/// after [`Engine::new`].
pub struct Engine {
    /// None if everybody has access.
    access: Option<Arc<NetworkSet>>,
    /// None without rate limits.
    limiter: Option<Limiter>,
    crypto: Crypto,
    stages: Box<Stages>,
    departures: Departures,
    pairs: Pairs,
    counters: Counters,
}

/// What the stages encrypt and decrypt with.
struct Crypto {
    aead: Aead,
    /// Keys of the client in each place of the batch, from its cookie.
    client_keys: Box<[ClientKeys; BATCH_DATAGRAMS]>,
}

/// The requests that are still in the race after each stage.
#[derive(Default)]
struct Stages {
    parsed: Lanes<Parsed>,
    unlocked: Lanes<Unlocked>,
    verified: Lanes<Verified>,
    renewed: Lanes<Renewed>,
}

impl Engine {
    /// An engine that uses `aead` for all its cryptography, without interleaved mode, and answers
    /// everybody.
    pub fn new(aead: Aead) -> Self {
        Self {
            access: None,
            limiter: None,
            crypto: Crypto {
                aead,
                client_keys: Box::new([const { ClientKeys::empty() }; BATCH_DATAGRAMS]),
            },
            stages: Box::default(),
            departures: Departures::default(),
            pairs: Pairs::default(),
            counters: Counters::default(),
        }
    }

    /// With interleaved mode (RFC 9769) for as many clients as there are `entries`, 16 bytes each;
    /// 0 is without. `secret` is to be random.
    #[must_use]
    pub fn with_interleaved(self, entries: usize, secret: [u64; 2]) -> Self {
        Self { pairs: Pairs::new(entries, secret), ..self }
    }

    /// With room for rate limits, which hold when terms are adopted that have some: 768 KiB.
    /// `secret` is to be random.
    #[must_use]
    pub fn with_rate_limits(self, secret: [u64; 2]) -> Self {
        Self { limiter: Some(Limiter::new(secret)), ..self }
    }

    /// Lets these terms hold from the next batch on. Allocates if clients are exempt from limits.
    pub fn adopt(&mut self, terms: &Terms) {
        let Terms { access, rates } = terms;
        self.access = (!access.is_everybody()).then(|| Arc::clone(access));
        if let Some(limiter) = &mut self.limiter {
            limiter.adopt(rates);
        }
    }

    /// Answers the first [`BATCH_DATAGRAMS`] datagrams of `batch` in place and returns what has
    /// become of each.
    pub fn answer<C: Clock>(
        &mut self,
        batch: &mut [Datagram<'_>],
        keys: &KeyRing,
        clock: &C,
        nonces: &mut NonceGenerator,
    ) -> Verdicts {
        self.answer_observed(batch, keys, clock, nonces, &mut ())
    }

    /// [`Engine::answer`], with somebody to tell when each stage is done.
    pub fn answer_observed<C: Clock, O: Observer>(
        &mut self,
        batch: &mut [Datagram<'_>],
        keys: &KeyRing,
        clock: &C,
        nonces: &mut NonceGenerator,
        observer: &mut O,
    ) -> Verdicts {
        let (batch, _) = batch.split_at_mut(batch.len().min(BATCH_DATAGRAMS));
        let mut verdicts: Verdicts = batch.iter().map(|_| Verdict::default()).collect();
        let Self { access, limiter, crypto, stages, departures, pairs, counters } = self;
        let Stages { parsed, unlocked, verified, renewed } = &mut **stages;

        if let Some(access) = access {
            admit::admit(batch, access, &mut verdicts);
        }
        observer.done(Stage::Admit);
        parse::parse(batch, &mut verdicts, parsed);
        let mut limiter = limiter.as_mut().filter(|limiter| limiter.is_on());
        if let Some(limiter) = &mut limiter {
            limiter.begin(clock);
            limiter.plain(batch, nonces, &mut verdicts);
        }
        observer.done(Stage::Parse);
        unlock::unlock(parsed, batch, keys, crypto, &mut verdicts, unlocked);
        counters.count_opened(unlocked);
        if let Some(limiter) = &mut limiter {
            limiter.expect_nts(batch, unlocked);
        }
        observer.done(Stage::Unlock);
        verify::verify(parsed, unlocked, batch, crypto, &mut verdicts, verified);
        if let Some(limiter) = &mut limiter {
            limiter.nts(batch, nonces, &mut verdicts, verified);
        }
        observer.done(Stage::Verify);
        renew::renew(verified, batch, keys, nonces, crypto, &mut verdicts, renewed);
        observer.done(Stage::Renew);
        let interleaved = stamp::stamp(batch, clock, departures, pairs, &mut verdicts);
        observer.done(Stage::Stamp);
        seal::seal(renewed, batch, crypto);
        observer.done(Stage::Seal);

        let leaked = limiter.map_or(0, |limiter| limiter.take_leaked());
        counters.count(&verdicts, renewed, interleaved, leaked);
        verdicts
    }

    /// To be told when the replies of the last batch were handed to the kernel, from `started`
    /// until `ended`: the transmit timestamps of later ones say when they will leave.
    pub fn sent(&mut self, started: NtpTimestamp, ended: NtpTimestamp) {
        self.departures.sent(started, ended);
    }

    /// To be told when the reply with this ticket left, where that was measured: later than
    /// [`Engine::sent`] perhaps, or never, and then the predicted time stands.
    pub fn departed(&mut self, ticket: Ticket, at: NtpTimestamp) {
        self.pairs.departed(ticket, at);
    }

    /// What became of all datagrams so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Overwrites the client keys and intermediate values of past batches: for an idle worker.
    pub fn wipe(&mut self) {
        self.crypto.aead.wipe();
        for keys in self.crypto.client_keys.iter_mut() {
            keys.zeroize();
        }
    }
}

/// The stages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module says what each stage does")]
pub enum Stage {
    Admit,
    Parse,
    Unlock,
    Verify,
    Renew,
    Stamp,
    Seal,
}

/// Is told when a stage of a batch is done: how a bench splits the time. `()` is told nothing, at
/// no cost.
pub trait Observer {
    /// The stage has just ended.
    fn done(&mut self, stage: Stage);
}

impl Observer for () {
    #[inline]
    fn done(&mut self, _: Stage) {}
}
