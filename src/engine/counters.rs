//! How often each outcome came about.

use super::batch::{Lanes, Verdicts};
use super::outcome::Outcome;
use super::renew::Renewed;

/// Totals of one engine since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    outcomes: [u64; Outcome::ALL.len()],
    /// Cookies handed out in replies.
    pub cookies_issued: u64,
    /// Replies in interleaved mode (RFC 9769), which are among those that were answered plain or
    /// with NTS.
    pub answered_interleaved: u64,
}

impl Counters {
    pub(super) fn count(
        &mut self,
        verdicts: &Verdicts,
        renewed: &Lanes<Renewed>,
        interleaved: usize,
    ) {
        self.answered_interleaved += interleaved as u64;
        for verdict in verdicts {
            self.outcomes[verdict.outcome as usize] += 1;
        }
        for lane in renewed {
            self.cookies_issued += lane.cookies() as u64;
        }
    }

    /// Names of all counters, in the order of [`Counters::values`].
    pub const NAMES: [&'static str; Outcome::ALL.len() + 2] = {
        let mut names = ["cookies_issued"; Outcome::ALL.len() + 2];
        names[Outcome::ALL.len() + 1] = "answered_interleaved";
        let mut place = 0;
        while place < Outcome::ALL.len() {
            names[place] = Outcome::ALL[place].name();
            place += 1;
        }
        names
    };

    /// The totals.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        self.outcomes.iter().copied().chain([self.cookies_issued, self.answered_interleaved])
    }

    /// How often this outcome came about.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}
