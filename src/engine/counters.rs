//! How often each outcome came about.

use super::batch::{Lanes, Verdicts};
use super::outcome::Outcome;
use super::renew::Renewed;
use super::unlock::Unlocked;
use crate::aead::Algorithm;
use crate::limits::RING_KEYS;

/// Totals of one engine since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    outcomes: [u64; Outcome::ALL.len()],
    /// Cookies of requests that were opened, whether or not their client had sent them, by the
    /// place of their master key in the ring, oldest first.
    pub cookies_opened: [u64; RING_KEYS],
    /// Cookies handed out in replies, all under the key that was current.
    pub cookies_issued: u64,
    /// Authenticated replies by AEAD: 15, 17, 30. Kisses are among them.
    pub replies: [u64; ALGORITHMS],
    /// Replies in interleaved mode (RFC 9769), which are among those that were answered plain or
    /// with NTS.
    pub answered_interleaved: u64,
    /// Requests beyond a rate limit that were answered all the same, which are among those that
    /// were answered or refused.
    pub rate_leaked: u64,
}

const ALGORITHMS: usize = 3;

/// Counters beside the outcomes.
const MORE: [&str; RING_KEYS + ALGORITHMS + 3] = [
    "cookies_opened_previous_2",
    "cookies_opened_previous_1",
    "cookies_opened_current",
    "cookies_opened_next",
    "cookies_issued",
    "replies_siv_256",
    "replies_siv_512",
    "replies_gcm_siv",
    "answered_interleaved",
    "rate_leaked",
];

impl Counters {
    /// Counts opened cookies, before it is known who sent them.
    pub(super) fn count_opened(&mut self, unlocked: &Lanes<Unlocked>) {
        for lane in unlocked {
            self.cookies_opened[lane.key_place()] += 1;
        }
    }

    /// Counts what has become of a batch.
    pub(super) fn count(
        &mut self,
        verdicts: &Verdicts,
        renewed: &Lanes<Renewed>,
        interleaved: usize,
        leaked: u64,
    ) {
        self.rate_leaked += leaked;
        self.answered_interleaved += interleaved as u64;
        for verdict in verdicts {
            self.outcomes[verdict.outcome as usize] += 1;
        }
        for lane in renewed {
            self.cookies_issued += lane.cookies() as u64;
            let algorithm = match lane.algorithm() {
                Algorithm::AesSivCmac256 => 0,
                Algorithm::AesSivCmac512 => 1,
                Algorithm::Aes128GcmSiv => 2,
            };
            self.replies[algorithm] += 1;
        }
    }

    /// Names of all counters, in the order of [`Counters::values`].
    pub const NAMES: [&'static str; Outcome::ALL.len() + MORE.len()] = {
        let mut names = [""; Outcome::ALL.len() + MORE.len()];
        let mut place = 0;
        while place < names.len() {
            names[place] = if place < Outcome::ALL.len() {
                Outcome::ALL[place].name()
            } else {
                MORE[place - Outcome::ALL.len()]
            };
            place += 1;
        }
        names
    };

    /// The totals.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        // Every field by its name: a new one cannot be forgotten here.
        let Self {
            outcomes: _,
            cookies_opened: opened,
            cookies_issued: issued,
            replies,
            answered_interleaved: interleaved,
            rate_leaked: leaked,
        } = *self;
        let outcomes = self.outcomes.iter().copied();
        outcomes.chain(opened).chain([issued]).chain(replies).chain([interleaved, leaked])
    }

    /// How often this outcome came about.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}
