//! The packet core: a batch of requests becomes a batch of replies, without I/O.
//!
//! [`Engine::answer`] runs six stages, one file each, in the order in which a packet meets them:
//!
//! 1. `parse`: classify each datagram and record where its parts lie; copy nothing.
//! 2. `unlock`: find the master keys and open all cookies together.
//! 3. `verify`: check all authenticators together.
//! 4. `renew`: make all fresh cookies together, in place.
//! 5. `stamp`: read the clock as late as possible and write the headers, with the time at which
//!    each reply will leave, or for clients in interleaved mode, the one before has left.
//! 6. `seal`: encrypt and authenticate all replies together.
//!
//! Time, keys and randomness are arguments. A reply is written over its request and is never
//! longer: the only bytes a stage can reach are those that arrived. What a stage has proved is a
//! type (`parse::Parsed`, `unlock::Unlocked`, `verify::Verified`) that only this stage can
//! make, so no reply is sealed for a request that was not verified.

pub mod batch;
pub mod counters;
mod departure;
mod interleaved;
pub mod outcome;
mod parse;
mod renew;
mod seal;
mod stamp;
mod unlock;
mod verify;

use zeroize::Zeroize as _;

use crate::aead::{Aead, NonceGenerator};
use crate::clock::Clock;
use crate::cookie::format::ClientKeys;
use crate::cookie::ring::KeyRing;
use crate::limits::BATCH_DATAGRAMS;
use crate::wire::timestamp::NtpTimestamp;
use batch::{Datagram, Lanes, Ticket, Verdict, Verdicts};
use counters::Counters;
use departure::Departures;
use interleaved::Pairs;
use parse::Parsed;
use renew::Renewed;
use unlock::Unlocked;
use verify::Verified;

/// Answers batches. Owns the scratch space of the stages and the counters; allocates nothing
/// after [`Engine::new`].
pub struct Engine {
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
    /// An engine that uses `aead` for all its cryptography, without interleaved mode.
    pub fn new(aead: Aead) -> Self {
        Self {
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
        let Self { crypto, stages, departures, pairs, counters } = self;
        let Stages { parsed, unlocked, verified, renewed } = &mut **stages;

        parse::parse(batch, &mut verdicts, parsed);
        observer.done(Stage::Parse);
        unlock::unlock(parsed, batch, keys, crypto, &mut verdicts, unlocked);
        observer.done(Stage::Unlock);
        verify::verify(parsed, unlocked, batch, crypto, &mut verdicts, verified);
        observer.done(Stage::Verify);
        renew::renew(verified, batch, keys, nonces, crypto, &mut verdicts, renewed);
        observer.done(Stage::Renew);
        let interleaved = stamp::stamp(batch, clock, departures, pairs, &mut verdicts);
        observer.done(Stage::Stamp);
        seal::seal(renewed, batch, crypto);
        observer.done(Stage::Seal);

        counters.count(&verdicts, renewed, interleaved);
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
