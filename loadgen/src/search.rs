//! The highest rate that a server keeps (RFC 2544 section 26.1), by bisection.

use serde::{Deserialize, Serialize};

use crate::limits::{OFFERED_SHARE_MIN, TRIAL_REPEATS};
use crate::record::Tally;

/// What to look for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// A rate that the server is expected to keep.
    pub low_per_second: f64,
    /// The highest that is tried.
    pub high_per_second: f64,
    /// Share of requests that may go without a good answer in time.
    pub loss_max: f64,
    /// The search ends when its limits are this close: a share of the rate.
    pub resolution: f64,
    /// Searches, each from the start.
    pub repeats: usize,
}

/// One trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// What for.
    pub purpose: Purpose,
    /// Requests per second that were planned.
    pub rate_per_second: f64,
    /// Requests per second that left.
    pub offered_per_second: f64,
    /// Good answers in time per second.
    pub answered_per_second: f64,
    /// Latency quantiles in nanoseconds: 0.5, 0.9, 0.99, 0.999.
    pub latency_ns: [u64; 4],
    /// CPU time of the server per answer in nanoseconds, if its process was looked at.
    pub server_ns_per_answer: Option<f64>,
    /// What became of the requests.
    pub tally: Tally,
    /// Why the generator was the limit; empty if it was not.
    pub faults: Vec<String>,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Part of the search with this number.
    Search(usize),
    /// Latency at this share of what was found.
    Latency(f64),
    /// Answered against offered, at this share of what was found.
    Sweep(f64),
}

/// What the searches found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rate of each search.
    pub rates_per_second: Vec<f64>,
    /// Their median.
    pub median_per_second: f64,
    /// From the least to the most.
    pub spread_per_second: [f64; 2],
    /// The generator, or the highest rate tried, was the limit: the server does more.
    pub at_least: bool,
}

impl Trial {
    /// Whether the rate was offered and the server kept it. Requests that left late made it no
    /// easier; only the latency of such a trial means little.
    pub fn passed(&self, goal: &Goal) -> bool {
        self.offered_per_second >= OFFERED_SHARE_MIN * self.rate_per_second
            && self.tally.loss() <= goal.loss_max
    }
}

/// Why a search ends without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum SearchError<E> {
    /// A trial could not be made.
    #[error(transparent)]
    Trial(#[from] E),
    /// Nothing is low enough.
    #[error(
        "the server loses {:.2} % at {low_per_second:.0} requests/s already: try a lower --low",
        loss * 100.0
    )]
    Low {
        /// The lowest rate.
        low_per_second: f64,
        /// Its loss.
        loss: f64,
    },
    /// Not even the lowest rate can be offered.
    #[error("the generator cannot offer {0:.0} requests/s: try a lower --low")]
    Generator(f64),
}

/// Searches `goal.repeats` times. `attempt` makes a trial at a rate.
pub fn search<E>(
    goal: &Goal,
    mut attempt: impl FnMut(Purpose, f64) -> Result<Trial, E>,
) -> Result<Verdict, SearchError<E>> {
    let mut rates = Vec::with_capacity(goal.repeats);
    let mut at_least = false;
    for number in 0..goal.repeats {
        let (rate, is_limit) = search_once(goal, Purpose::Search(number), &mut attempt)?;
        rates.push(rate);
        at_least |= is_limit;
    }
    let mut sorted = rates.clone();
    sorted.sort_by(f64::total_cmp);
    Ok(Verdict {
        median_per_second: sorted[(sorted.len() - 1) / 2],
        spread_per_second: [sorted[0], sorted[sorted.len() - 1]],
        rates_per_second: rates,
        at_least,
    })
}

/// The highest rate that passed, and whether it was not the server that failed above it.
fn search_once<E>(
    goal: &Goal,
    purpose: Purpose,
    attempt: &mut impl FnMut(Purpose, f64) -> Result<Trial, E>,
) -> Result<(f64, bool), SearchError<E>> {
    // A failure that the generator had a part in is none of the server's: once more.
    let mut attempt = |rate| -> Result<Trial, E> {
        let mut trial = attempt(purpose, rate)?;
        for _ in 0..TRIAL_REPEATS {
            if trial.passed(goal) || trial.faults.is_empty() {
                break;
            }
            trial = attempt(purpose, rate)?;
        }
        Ok(trial)
    };
    let highest = attempt(goal.high_per_second)?;
    if highest.passed(goal) {
        return Ok((goal.high_per_second, true));
    }
    let lowest = attempt(goal.low_per_second)?;
    if !lowest.passed(goal) && !lowest.faults.is_empty() {
        return Err(SearchError::Generator(goal.low_per_second));
    }
    if !lowest.passed(goal) {
        let loss = lowest.tally.loss();
        return Err(SearchError::Low { low_per_second: goal.low_per_second, loss });
    }
    let (mut low, mut high) = (goal.low_per_second, goal.high_per_second);
    let mut is_generator = !highest.faults.is_empty();
    while high / low > 1.0 + goal.resolution {
        // The geometric middle: rates are compared as ratios.
        let middle = (low * high).sqrt();
        let trial = attempt(middle)?;
        if trial.passed(goal) {
            low = middle;
        } else {
            high = middle;
            is_generator = !trial.faults.is_empty();
        }
    }
    Ok((low, is_generator))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn goal() -> Goal {
        Goal {
            low_per_second: 1e3,
            high_per_second: 1e6,
            loss_max: 0.001,
            resolution: 0.02,
            repeats: 3,
        }
    }

    /// A server that answers `capacity`, and a generator that can offer `reach`.
    fn trial(purpose: Purpose, rate: f64, capacity: f64, reach: f64) -> Trial {
        let offered = rate.min(reach);
        let answered = offered.min(capacity);
        let tally = Tally {
            offered: offered as u64,
            answered: answered as u64,
            lost: offered as u64 - answered as u64,
            ..Tally::default()
        };
        Trial {
            purpose,
            server_ns_per_answer: None,
            rate_per_second: rate,
            offered_per_second: offered,
            answered_per_second: answered,
            latency_ns: [1; 4],
            tally,
            faults: if rate > reach { vec!["the generator".to_owned()] } else { Vec::new() },
        }
    }

    fn found(capacity: f64, reach: f64) -> (Result<Verdict, SearchError<Infallible>>, usize) {
        let mut trials = 0;
        let verdict = search(&goal(), |purpose, rate| {
            trials += 1;
            Ok(trial(purpose, rate, capacity, reach))
        });
        (verdict, trials)
    }

    #[test]
    fn the_capacity_is_found_within_the_resolution() {
        for capacity in [1.1e3, 5e3, 123_456.0, 400e3, 990e3] {
            let (verdict, trials) = found(capacity, f64::MAX);
            let verdict = verdict.expect("within the limits");
            let ratio = capacity / verdict.median_per_second;
            assert!((0.999..=1.021).contains(&ratio), "{capacity}: {ratio}");
            assert!(!verdict.at_least && trials <= 3 * 12, "{trials} trials");
        }
    }

    #[test]
    fn the_limit_is_not_called_the_servers_when_it_is_not() {
        let (verdict, _) = found(2e6, f64::MAX);
        let verdict = verdict.expect("all of it");
        assert_eq!((verdict.median_per_second, verdict.at_least), (1e6, true));
        let (verdict, _) = found(2e6, 300e3);
        let verdict = verdict.expect("what the generator can");
        assert!(verdict.at_least && (0.97..=1.011).contains(&(verdict.median_per_second / 300e3)));
    }

    #[test]
    fn a_low_that_is_too_high_is_said() {
        assert!(matches!(found(900.0, f64::MAX).0, Err(SearchError::Low { .. })));
        assert!(matches!(found(1e6, 900.0).0, Err(SearchError::Generator(_))));
    }

    #[test]
    fn median_and_spread_are_those_of_the_searches() {
        let capacity = |purpose| match purpose {
            Purpose::Search(number) => [100e3, 300e3, 200e3][number],
            _ => unreachable!("a search only"),
        };
        let verdict = search(&goal(), |purpose, rate| {
            Ok::<_, Infallible>(trial(purpose, rate, capacity(purpose), f64::MAX))
        })
        .expect("found");
        let near = |found: f64, capacity: f64| (0.979..=1.001).contains(&(found / capacity));
        assert!(near(verdict.median_per_second, 200e3), "{verdict:?}");
        assert!(near(verdict.spread_per_second[0], 100e3));
        assert!(near(verdict.spread_per_second[1], 300e3));
    }
}
