//! `timeball check`: whether a server does what it should, for monitoring systems.

mod local;
mod remote;
mod report;
mod threshold;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use self::threshold::Threshold;
use super::place::Place;
use super::remote::{Asking, aead};
use super::state::State;
use crate::aead::Algorithm;
use crate::limits::commands::{
    CHECK_CERTIFICATE_DAYS, CHECK_COOKIES, CHECK_DELAY_SECONDS, CHECK_DROPS_PERCENT,
    CHECK_INTERVAL_SECONDS_DEFAULT, CHECK_KE_SECONDS, CHECK_KEY_AGE_DAYS, CHECK_LEAP_FILE_DAYS,
    CHECK_LOSS_PERCENT, CHECK_NAKS_PERCENT, CHECK_OFFSET_SECONDS, CHECK_ROOT_DISTANCE_SECONDS,
    CHECK_STRATUM,
};
use crate::sys::file::replace;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckArguments {
    /// Server of key establishment, as for `query`, or of NTP with --plain; without it, the server
    /// that runs on this host
    #[arg(value_name = "HOST[:PORT]", conflicts_with_all = ["config", "state_directory"])]
    server: Option<String>,
    /// Ask for time without authentication, on UDP port 123 unless HOST has another
    #[arg(long, requires = "server", conflicts_with_all = ["ca", "aeads"])]
    plain: bool,
    /// AEAD algorithms that the server has to agree to, each asked for by itself
    #[arg(long = "aead", value_name = "LIST", default_value = "15", value_delimiter = ',',
          value_parser = aead, id = "aeads")]
    aeads: Vec<Algorithm>,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    place: Place,
    /// On this host: seconds between the two looks at the counters
    #[arg(long, value_name = "SECONDS", default_value_t = CHECK_INTERVAL_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(0..=60))]
    interval: u64,
    /// Write what was measured for Prometheus' node exporter too, the whole file at once
    #[arg(long, value_name = "FILE")]
    prometheus_textfile: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    thresholds: Thresholds,
}

const AFTER_HELP: &str = "\
A threshold is WARNING,CRITICAL; - stands for no limit.
Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown, as monitoring plugins have them.";

/// What is good enough.
#[derive(Debug, Args)]
#[command(next_help_heading = "Thresholds")]
struct Thresholds {
    /// Seconds between the server's time and this host's
    #[arg(long, value_name = "W,C", default_value = CHECK_OFFSET_SECONDS,
          value_parser = Threshold::beyond)]
    offset: Threshold,
    /// Seconds that a request and its answer take
    #[arg(long, value_name = "W,C", default_value = CHECK_DELAY_SECONDS,
          value_parser = Threshold::above)]
    delay: Threshold,
    /// Seconds of the error bound: root distance, or root dispersion on this host
    #[arg(long, value_name = "W,C", default_value = CHECK_ROOT_DISTANCE_SECONDS,
          value_parser = Threshold::above)]
    root_distance: Threshold,
    /// Stratum; an unsynchronised server is critical in any case
    #[arg(long, value_name = "W,C", default_value = CHECK_STRATUM,
          value_parser = Threshold::above)]
    stratum: Threshold,
    /// Percent of requests without an answer
    #[arg(long, value_name = "W,C", default_value = CHECK_LOSS_PERCENT,
          value_parser = Threshold::above)]
    loss: Threshold,
    /// Days until the certificate expires
    #[arg(long, value_name = "W,C", default_value = CHECK_CERTIFICATE_DAYS,
          value_parser = Threshold::below)]
    certificate_days: Threshold,
    /// Cookies that key establishment brings
    #[arg(long, value_name = "W,C", default_value = CHECK_COOKIES,
          value_parser = Threshold::below)]
    cookies: Threshold,
    /// Seconds that key establishment takes
    #[arg(long, value_name = "W,C", default_value = CHECK_KE_SECONDS,
          value_parser = Threshold::above)]
    key_establishment: Threshold,
    /// On this host: days of the newest master key; one that is due and not made is a warning in
    /// any case
    #[arg(long, value_name = "W,C", default_value = CHECK_KEY_AGE_DAYS,
          value_parser = Threshold::above)]
    key_age: Threshold,
    /// On this host: days until the leap-seconds file expires, where there is one; one that is not
    /// followed is a warning in any case
    #[arg(long, value_name = "W,C", default_value = CHECK_LEAP_FILE_DAYS,
          value_parser = Threshold::below)]
    leap_file_days: Threshold,
    /// On this host: percent of datagrams that full socket buffers cost
    #[arg(long, value_name = "W,C", default_value = CHECK_DROPS_PERCENT,
          value_parser = Threshold::above)]
    drops: Threshold,
    /// On this host: percent of NTS requests that were refused (NTS NAK)
    #[arg(long, value_name = "W,C", default_value = CHECK_NAKS_PERCENT,
          value_parser = Threshold::above)]
    naks: Threshold,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    let CheckArguments { server, plain, aeads, asking, place, interval, thresholds, .. } =
        arguments;
    let mut report = match server {
        Some(server) if *plain => remote::plain(server, asking, thresholds),
        Some(server) => remote::nts(server, aeads, asking, thresholds),
        None => local::running(place, Duration::from_secs(*interval), thresholds),
    };
    if let Some(file) = &arguments.prometheus_textfile {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The node exporter runs as another user.
        if let Err(error) = replace(file, report.to_prometheus(now.as_secs_f64()).as_bytes(), 0o644)
        {
            let name = file.display();
            let text = format!("cannot write {name}: {error}; check its folder and who may write");
            report.say(State::Unknown, text);
        }
    }
    print!("{}", if arguments.json { report.to_json() } else { report.to_text() });
    report.state().exit_code()
}
