//! `timeball-load search ntp` and `timeball-load search nts`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use clap::{Args, Subcommand};

use super::arguments::{LoadArguments, NtpArguments, NtsArguments};
use super::load::{Prepared, check_outputs, prepare_ntp, prepare_nts, probe, write};
use super::{CommandError, EXIT_FAILURE, EXIT_FINE, EXIT_INVALID, units};
use crate::limits::{SEARCH_REPEATS_DEFAULT, SEARCH_RESOLUTION_DEFAULT};
use crate::report::SearchReport;
use crate::report::terminal::{search_text, trial_line};
use crate::search::Goal;
use crate::trials::Trials;

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
    if arguments.load().server_control.is_some() {
        return Err(CommandError::usage("--server-control is for ntp, nts, ke and mix"));
    }
    check_outputs(&[&arguments.html, &arguments.load().json, &arguments.load().csv])?;
    // What may not be looked at is said before the first trial.
    arguments.load().watch()?.finish();
    let load = arguments.load();
    let Prepared { plan, mut clients, .. } = match &arguments.ask {
        SearchAsk::Ntp(ntp) => prepare_ntp(ntp)?,
        SearchAsk::Nts(nts) => prepare_nts(nts, stop)?,
    };
    if !load.no_probe {
        clients = probe(&plan, clients, stop)?;
    }
    let trials = Trials { plan: &plan, clients, server_pid: load.server_pid, stop };
    let report = trials.search(&goal, !arguments.no_sweep, |trial| {
        eprintln!("{}", trial_line(trial));
    })?;
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
        let named = [(format!("udp {}", report.plan.target), report.clone())];
        write(path, &crate::report::html::page(&[], &named))?;
    }
    Ok(match &report.verdict {
        None => EXIT_FAILURE,
        Some(verdict) if verdict.at_least => EXIT_INVALID,
        Some(_) => EXIT_FINE,
    })
}

impl SearchArguments {
    fn load(&self) -> &LoadArguments {
        match &self.ask {
            SearchAsk::Ntp(ntp) => &ntp.load,
            SearchAsk::Nts(nts) => &nts.load,
        }
    }

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
