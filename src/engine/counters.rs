//! How often each outcome came about.

use super::batch::{Lanes, Verdicts};
use super::outcome::Outcome;
use super::renew::Renewed;

/// Totals of one engine since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    outcomes: [u64; Outcome::ALL.len()],
    /// Cookies of requests that were opened, whether or not their client had sent them.
    pub cookies_opened: u64,
    /// Cookies handed out in replies.
    pub cookies_issued: u64,
    /// Replies in interleaved mode (RFC 9769), which are among those that were answered plain or
    /// with NTS.
    pub answered_interleaved: u64,
    /// Requests beyond a rate limit that were answered all the same, which are among those that
    /// were answered or refused.
    pub rate_leaked: u64,
}

impl Counters {
    pub(super) fn count(
        &mut self,
        verdicts: &Verdicts,
        cookies_opened: usize,
        renewed: &Lanes<Renewed>,
        interleaved: usize,
        leaked: u64,
    ) {
        self.rate_leaked += leaked;
        self.answered_interleaved += interleaved as u64;
        for verdict in verdicts {
            self.outcomes[verdict.outcome as usize] += 1;
        }
        self.cookies_opened += cookies_opened as u64;
        for lane in renewed {
            self.cookies_issued += lane.cookies() as u64;
        }
    }

    /// Names of all counters, in the order of [`Counters::values`].
    pub const NAMES: [&'static str; Outcome::ALL.len() + 4] = {
        let mut names = [""; Outcome::ALL.len() + 4];
        let mut place = 0;
        while place < Outcome::ALL.len() {
            names[place] = Outcome::ALL[place].name();
            place += 1;
        }
        names[place] = "cookies_opened";
        names[place + 1] = "cookies_issued";
        names[place + 2] = "answered_interleaved";
        names[place + 3] = "rate_leaked";
        names
    };

    /// The totals.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        // Every field by its name: a new one cannot be forgotten here.
        let Self { outcomes: _, cookies_opened, cookies_issued, answered_interleaved, rate_leaked } =
            *self;
        let more = [cookies_opened, cookies_issued, answered_interleaved, rate_leaked];
        self.outcomes.iter().copied().chain(more)
    }

    /// How often this outcome came about.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}
