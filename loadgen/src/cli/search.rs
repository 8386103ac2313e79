//! `timeball-load search ntp` and `timeball-load search nts`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};

use super::arguments::{LoadArguments, NtpArguments, NtsArguments};
use super::load::{Prepared, prepare_ntp, prepare_nts, probe, write};
use super::{CommandError, EXIT_FAILURE, EXIT_FINE, EXIT_INVALID, units};
use crate::host::Host;
use crate::limits::{
    LATENCY_SHARES, SEARCH_REPEATS_DEFAULT, SEARCH_RESOLUTION_DEFAULT, SWEEP_SHARES,
};
use crate::plan::Plan;
use crate::report::SearchReport;
use crate::report::terminal::{search_text, trial_line};
use crate::request::Clients;
use crate::run::{Found, RunError, faults, run as run_plan};
use crate::search::{Goal, Purpose, SearchError, Trial, search};

#[derive(Debug, Args)]
pub(super) struct SearchArguments {
    #[command(subcommand)]
    ask: SearchAsk,
    /// A rate that the server is expected to keep
    #[arg(long, global = true, value_parser = units::rate, default_value = "1k")]
    low: f64,
    /// The highest rate that is tried
    #[arg(long, global = true, value_parser = units::rate, default_value = "2M")]
    high: f64,
    /// Requests that may go without an answer in time, in percent
    #[arg(long, global = true, default_value_t = 0.1)]
    loss: f64,
    /// Searches, of which the median is taken
    #[arg(long, global = true, default_value_t = SEARCH_REPEATS_DEFAULT)]
    repeats: usize,
    /// The search ends when its limits are this close, in percent
    #[arg(long, global = true, default_value_t = SEARCH_RESOLUTION_DEFAULT * 100.0)]
    resolution: f64,
    /// Leave out the overload curve
    #[arg(long, global = true)]
    no_sweep: bool,
    /// Write one HTML file with charts here
    #[arg(long, global = true)]
    html: Option<PathBuf>,
}

/// --duration is that of one trial; --rate and --shape are not used.
#[derive(Debug, Subcommand)]
enum SearchAsk {
    /// NTP requests
    Ntp(NtpArguments),
    /// Authenticated requests
    Nts(NtsArguments),
}

pub(super) fn run(arguments: &SearchArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    let goal = arguments.goal()?;
    let (load, Prepared { plan, mut clients, .. }) = match &arguments.ask {
        SearchAsk::Ntp(ntp) => (&ntp.load, prepare_ntp(ntp)?),
        SearchAsk::Nts(nts) => (&nts.load, prepare_nts(nts, stop)?),
    };
    if !load.no_probe {
        clients = probe(&plan, clients, stop)?;
    }
    let mut trials = Vec::new();
    let mut bench = Bench { plan: &plan, clients, stop };
    let verdict = search(&goal, |purpose, rate| {
        let trial = bench.attempt(purpose, rate)?;
        eprintln!("{}", trial_line(&trial));
        trials.push(trial.clone());
        Ok::<_, TrialError>(trial)
    });
    let verdict = match verdict {
        Ok(verdict) => Some(verdict),
        Err(SearchError::Trial(TrialError::Interrupted)) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(verdict) = &verdict {
        let latency = LATENCY_SHARES.map(Purpose::Latency);
        let sweep = SWEEP_SHARES.map(Purpose::Sweep);
        let sweep = sweep.into_iter().filter(|_| !arguments.no_sweep);
        for purpose in latency.into_iter().chain(sweep) {
            let (Purpose::Latency(share) | Purpose::Sweep(share)) = purpose else { continue };
            let Ok(trial) = bench.attempt(purpose, share * verdict.median_per_second) else {
                break;
            };
            eprintln!("{}", trial_line(&trial));
            trials.push(trial);
        }
    }
    let report = SearchReport {
        program: format!("timeball-load {}", env!("CARGO_PKG_VERSION")),
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
        begun: time::OffsetDateTime::now_utc().unix_timestamp(),
        host: Host::look(),
        plan: plan.clone(),
        goal,
        verdict,
        trials,
    };
    finish(arguments, load, &report)
}

fn finish(
    arguments: &SearchArguments,
    load: &LoadArguments,
    report: &SearchReport,
) -> Result<u8, CommandError> {
    print!("{}", search_text(report));
    if let Some(path) = &load.json {
        write(path, &serde_json::to_string(report)?)?;
    }
    if let Some(path) = &load.csv {
        write(path, &crate::report::search_csv(report))?;
    }
    if let Some(path) = &arguments.html {
        write(path, &crate::report::html::page(&[], std::slice::from_ref(report)))?;
    }
    Ok(match &report.verdict {
        None => EXIT_FAILURE,
        Some(verdict) if verdict.at_least => EXIT_INVALID,
        Some(_) => EXIT_FINE,
    })
}

/// Makes trials, each with the clients of the one before.
struct Bench<'a> {
    plan: &'a Plan,
    clients: Vec<Clients>,
    stop: &'a AtomicBool,
}

#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("interrupted")]
    Interrupted,
}

impl Bench<'_> {
    fn attempt(&mut self, purpose: Purpose, rate: f64) -> Result<Trial, TrialError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(TrialError::Interrupted);
        }
        let plan = Plan { rate_per_second: rate, ..self.plan.clone() };
        let clients = std::mem::take(&mut self.clients);
        let Found { total, clients, offer_time, .. } =
            run_plan(&plan, clients, self.stop, |_, _| {})?;
        self.clients = clients;
        if self.stop.load(Ordering::Relaxed) {
            return Err(TrialError::Interrupted);
        }
        let seconds = offer_time.as_secs_f64();
        Ok(Trial {
            purpose,
            rate_per_second: rate,
            offered_per_second: total.tally.offered as f64 / seconds,
            answered_per_second: total.tally.answered as f64 / seconds,
            latency_ns: [0.5, 0.9, 0.99, 0.999].map(|quantile| total.latency.quantile_ns(quantile)),
            faults: faults(&total.tally),
            tally: total.tally,
        })
    }
}

impl SearchArguments {
    fn goal(&self) -> Result<Goal, CommandError> {
        let goal = Goal {
            low_per_second: self.low,
            high_per_second: self.high,
            loss_max: self.loss / 100.0,
            resolution: self.resolution / 100.0,
            repeats: self.repeats,
        };
        let is_sound = goal.low_per_second < goal.high_per_second
            && (0.0..1.0).contains(&goal.loss_max)
            && (0.001..1.0).contains(&goal.resolution)
            && (1..=100).contains(&goal.repeats);
        if is_sound {
            return Ok(goal);
        }
        Err(CommandError::usage(
            "a search needs --low below --high, --loss from 0 to 99, --resolution from 0.1 and \
             --repeats from 1 to 100",
        ))
    }
}
