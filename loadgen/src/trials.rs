//! The trials of a search, made against a server one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::{Host, ServerUse};
use crate::limits::{LATENCY_SHARES, SWEEP_SHARES};
use crate::plan::Plan;
use crate::report::SearchReport;
use crate::request::Clients;
use crate::run::{Found, RunError, faults, run};
use crate::search::{Goal, Purpose, SearchError, Trial, search};

/// What trials are made with, each with the clients of the one before.
pub struct Trials<'a> {
    /// What each offers, but for the rate.
    pub plan: &'a Plan,
    /// Of each thread.
    pub clients: Vec<Clients>,
    /// Process of the server, if it runs on this host.
    pub server_pid: Option<u32>,
    /// Ends the search, with the trials so far.
    pub stop: &'a AtomicBool,
}

/// Why a trial was not made.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It cannot be.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Somebody wanted no more.
    #[error("interrupted")]
    Interrupted,
}

impl Trials<'_> {
    /// The search, then the latency at shares of what it found, then the overload curve if it is
    /// wanted. `show` is told of every trial. An interrupted search has no verdict, but its trials.
    pub fn search(
        mut self,
        goal: &Goal,
        is_swept: bool,
        mut show: impl FnMut(&Trial),
    ) -> Result<SearchReport, SearchError<TrialError>> {
        let begun = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut trials = Vec::new();
        let mut attempt = |purpose, rate| {
            let trial = self.attempt(purpose, rate)?;
            show(&trial);
            trials.push(trial.clone());
            Ok(trial)
        };
        let verdict = match search(goal, &mut attempt) {
            Ok(verdict) => Some(verdict),
            Err(SearchError::Trial(TrialError::Interrupted)) => None,
            Err(error) => return Err(error),
        };
        let latency = LATENCY_SHARES.map(|share| (Purpose::Latency(share), share));
        let sweep = SWEEP_SHARES.map(|share| (Purpose::Sweep(share), share));
        let purposes = latency.into_iter().chain(sweep.into_iter().filter(|_| is_swept));
        for (purpose, share) in purposes {
            let Some(verdict) = &verdict else { break };
            // What was found is kept, whatever becomes of the rest.
            if attempt(purpose, share * verdict.median_per_second).is_err() {
                break;
            }
        }
        Ok(SearchReport {
            program: format!("timeball-load {}", env!("CARGO_PKG_VERSION")),
            command_line: std::env::args().collect::<Vec<_>>().join(" "),
            begun,
            host: Host::look(),
            plan: self.plan.clone(),
            goal: goal.clone(),
            verdict,
            trials,
        })
    }

    fn attempt(&mut self, purpose: Purpose, rate: f64) -> Result<Trial, TrialError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(TrialError::Interrupted);
        }
        let plan = Plan { rate_per_second: rate, ..self.plan.clone() };
        let clients = std::mem::take(&mut self.clients);
        let before = self.server_pid.and_then(ServerUse::of);
        let Found { total, clients, offer_time, .. } = run(&plan, clients, self.stop, |_, _| {})?;
        let after = self.server_pid.and_then(ServerUse::of);
        self.clients = clients;
        if self.stop.load(Ordering::Relaxed) {
            return Err(TrialError::Interrupted);
        }
        let seconds = offer_time.as_secs_f64();
        let server = after.zip(before).map(|(after, before)| after.since(&before));
        Ok(Trial {
            purpose,
            rate_per_second: rate,
            offered_per_second: total.tally.offered as f64 / seconds,
            answered_per_second: total.tally.answered as f64 / seconds,
            latency_ns: [0.5, 0.9, 0.99, 0.999].map(|quantile| total.latency.quantile_ns(quantile)),
            server_ns_per_answer: server.and_then(|server| server.ns_per_answer(&total.tally)),
            faults: faults(&total.tally),
            tally: total.tally,
        })
    }
}
