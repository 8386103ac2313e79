//! `timeball-load ke`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use timeball::aead::Algorithm;
use timeball::ke::client::Options;
use timeball::ke::exchange::Offer;
use timeball::limits::NTS_KE_PORT;

use super::load::{check_outputs, write};
use super::target::{host_and_port, resolve};
use super::watch::ServerWatch;
use super::{CommandError, EXIT_FAILURE, EXIT_FINE, EXIT_INVALID, units};
use crate::associations::harvest::Trust;
use crate::counters::Sample;
use crate::handshakes::{Exchanges, Pace, shake};
use crate::host::{Host, ServerUse};
use crate::limits::{KE_CONCURRENCY, KE_CONCURRENCY_DEFAULT};
use crate::plan::{Ask, Plan, Shape};
use crate::report::terminal::{counters, quantiles};

#[derive(Debug, Args)]
pub(super) struct KeArguments {
    /// NTS-KE server, as HOST or HOST:PORT (4460)
    server: String,
    /// Exchanges per second; without it, as many as --concurrency clients can do
    #[arg(long, value_parser = units::rate)]
    rate: Option<f64>,
    /// constant, poisson, ramp:RATE (at the end) or burst:REQUESTS
    #[arg(long, value_parser = units::shape, default_value = "constant", requires = "rate")]
    shape: Shape,
    /// How long exchanges are offered
    #[arg(long, value_parser = units::duration, default_value = "10s")]
    duration: Duration,
    /// Exchanges at the most
    #[arg(long, value_parser = units::count)]
    exchanges: Option<u64>,
    /// Exchanges at a time
    #[arg(long, default_value_t = KE_CONCURRENCY_DEFAULT)]
    concurrency: usize,
    /// Time for one exchange
    #[arg(long, value_parser = units::duration, default_value = "5s")]
    timeout: Duration,
    /// PEM file of certificates to trust, instead of this system's
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Trust any certificate: for labs
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// AEAD: 15, 17 or 30
    #[arg(long, default_value_t = 15)]
    aead: u16,
    /// Process of the server on this host: its CPU time is shown
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Control socket of a timeball on this host: its own counters are shown
    #[arg(long, value_name = "PATH")]
    server_control: Option<PathBuf>,
    /// Write the results here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct KeReport {
    program: String,
    command_line: String,
    host: Host,
    /// By Ctrl-C: the results are those so far.
    interrupted: bool,
    faults: Vec<String>,
    server: Option<ServerUse>,
    server_counters: Vec<Sample>,
    exchanges: Exchanges,
}

pub(super) fn run(arguments: &KeArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    if !KE_CONCURRENCY.contains(&arguments.concurrency) {
        return Err(CommandError::usage("--concurrency: 1 to 4096 exchanges can be made"));
    }
    check_outputs(&[&arguments.json])?;
    let options = arguments.options()?;
    let target = resolve(&arguments.server, NTS_KE_PORT)?;
    let rate = arguments.rate.unwrap_or(1.0);
    let mut plan = Plan::new(target, Ask::Ntp, rate, arguments.duration);
    plan.shape = arguments.shape;
    plan.requests_max = arguments.exchanges.unwrap_or(plan.requests_max);
    let pace = match arguments.rate {
        Some(_) => Pace::Open,
        None => {
            // The schedule only counts.
            plan.rate_per_second = f64::from(u32::MAX);
            Pace::Closed
        }
    };
    // One exchange first: what is wrong with all of them is said in one sentence.
    timeball::ke::client::establish(&options)?;
    let watch = ServerWatch::begin(arguments.server_pid, arguments.server_control.as_deref())?;
    let style = ProgressStyle::with_template("{elapsed_precise} {pos} exchanges, {per_sec}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("the template is constant"));
    let exchanges = shake(&options, &plan, pace, arguments.concurrency, stop, || bar.inc(1));
    bar.finish_and_clear();
    let watched = watch.finish();
    let report = KeReport {
        program: format!("timeball-load {}", env!("CARGO_PKG_VERSION")),
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
        host: Host::look(),
        interrupted: stop.load(Ordering::Relaxed),
        faults: exchanges.faults(),
        server: watched.process,
        server_counters: watched.counters,
        exchanges,
    };
    print(&report, pace);
    if let Some(path) = &arguments.json {
        write(path, &serde_json::to_string(&report)?)?;
    }
    Ok(if report.exchanges.completed == 0 {
        EXIT_FAILURE
    } else if report.faults.is_empty() {
        EXIT_FINE
    } else {
        EXIT_INVALID
    })
}

fn print(report: &KeReport, pace: Pace) {
    let exchanges = &report.exchanges;
    let rate = exchanges.completed_per_second();
    println!("offered       {} in {:.2} s", exchanges.offered, exchanges.seconds);
    println!("completed     {}, {rate:.1}/s", exchanges.completed);
    for (kind, count) in &exchanges.errors {
        println!("failed        {count}: {kind}");
    }
    let (total, note) = match pace {
        Pace::Open => (&exchanges.total, "from when it was due"),
        Pace::Closed => (&exchanges.total, "closed loop: no latency under a given load"),
    };
    println!("exchange      {} ({note})", quantiles(total));
    println!("  TCP         {}", quantiles(&exchanges.tcp));
    println!("  TLS         {}", quantiles(&exchanges.tls));
    println!("  records     {}", quantiles(&exchanges.records));
    if let Some(server) = report.server {
        let each = server.cpu_ns as f64 / exchanges.completed.max(1) as f64 / 1e3;
        println!("server CPU    {each:.1} µs/exchange");
    }
    if let Some(sample) = report.server_counters.last() {
        println!("server counts {}", counters(sample));
    }
    if report.interrupted {
        println!("interrupted   the results are those so far");
    }
    for fault in &report.faults {
        println!("INVALID       {fault}");
    }
}

impl KeArguments {
    fn options(&self) -> Result<Options, CommandError> {
        let (host, port) = host_and_port(&self.server, NTS_KE_PORT)
            .ok_or_else(|| CommandError::usage(format_args!("\"{}\" is no host", self.server)))?;
        let algorithm = Algorithm::from_id(self.aead)
            .ok_or_else(|| CommandError::usage("--aead: 15, 17 or 30 can be asked for"))?;
        let trust = match &self.ca {
            Some(path) => Trust::File(path.clone()),
            None if self.insecure => Trust::Anybody,
            None => Trust::System,
        };
        Ok(Options {
            host,
            port,
            config: trust.config()?,
            offer: Offer { algorithms: [algorithm].into_iter().collect(), ..Offer::default() },
            timeout: self.timeout,
        })
    }
}
