//! Arguments of the subcommands that offer load, and the plan that they make.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use timeball::aead::Algorithm;
use timeball::config::cpus;

use super::watch::ServerWatch;
use super::{CommandError, units};
use crate::limits::{
    CLIENTS, KE_CONCURRENCY_DEFAULT, PORTS_PER_THREAD, SEGMENTS, SEGMENTS_DEFAULT, THREADS, TIMEOUT,
};
use crate::plan::{Ask, Placeholders, Plan, Prefix, Shape};
use crate::reflector::{SelfTest, self_test};

/// What both have in common.
#[derive(Clone, Debug, Args)]
pub(super) struct LoadArguments {
    /// Requests per second, of all clients together: 500, 150k, 1.5M
    #[arg(long, value_parser = units::rate, default_value = "1k")]
    pub(super) rate: f64,
    /// constant, poisson, ramp:RATE (at the end) or burst:REQUESTS
    #[arg(long, value_parser = units::shape, default_value = "constant")]
    pub(super) shape: Shape,
    /// How long requests are offered: 500ms, 10s, 2m
    #[arg(long, value_parser = units::duration, default_value = "10s")]
    pub(super) duration: Duration,
    /// Requests at the most
    #[arg(long, value_parser = units::count)]
    pub(super) requests: Option<u64>,
    /// Simulated clients
    #[arg(long, value_parser = units::count)]
    pub(super) clients: Option<u64>,
    /// Answers after this time are late, after twice as much lost
    #[arg(long, value_parser = units::duration, default_value = "1s")]
    pub(super) timeout: Duration,
    /// Threads that offer load
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
    /// Processors of these threads, as `2-3,5`; sets their number
    #[arg(long)]
    pub(super) cpus: Option<String>,
    /// Network that requests leave from, each client from an address of its own: 127.9.0.0/16
    #[arg(long)]
    pub(super) sources: Option<Prefix>,
    /// Sockets, and so source ports, of each thread
    #[arg(long, default_value_t = 1)]
    pub(super) ports: usize,
    /// The first source port, as 123; those of --ports and --threads follow it
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) source_port: Option<u16>,
    /// Datagrams that the kernel may cut from one message when several are due; 1 is none.
    /// Without --sources 64
    #[arg(long)]
    pub(super) gso: Option<usize>,
    /// Ask in interleaved mode (RFC 9769); servers remember few clients, so take few
    #[arg(long)]
    pub(super) interleaved: bool,
    /// Makes random spacing repeatable
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Process of the server on this host: its CPU time and drops are shown
    #[arg(long, value_name = "PID")]
    pub(super) server_pid: Option<u32>,
    /// Control socket of a timeball on this host: its own counters are shown
    #[arg(long, value_name = "PATH")]
    pub(super) server_control: Option<PathBuf>,
    /// Do not try the generator on a server of its own first
    #[arg(long)]
    pub(super) no_self_test: bool,
    /// Do not ask the server a few times first
    #[arg(long)]
    pub(super) no_probe: bool,
    /// Write the results here, for programs and for `report`
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Write a line for each second here
    #[arg(long)]
    pub(super) csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct NtpArguments {
    /// Server, as HOST or HOST:PORT (123)
    pub(super) server: String,
    #[command(flatten)]
    pub(super) load: LoadArguments,
}

#[derive(Debug, Args)]
pub(super) struct NtsArguments {
    /// NTS-KE server as HOST or HOST:PORT (4460); with --mint or --load the NTP server (123)
    pub(super) server: String,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    /// Make associations with the server's key file, without NTS-KE: for labs
    #[arg(long, value_name = "NTSKEYS", conflicts_with_all = ["load_file", "ca", "insecure"])]
    pub(super) mint: Option<PathBuf>,
    /// Take associations from this file
    #[arg(long = "load", value_name = "FILE", conflicts_with_all = ["ca", "insecure"])]
    pub(super) load_file: Option<PathBuf>,
    /// Keep the associations in this file (mode 0600), with the cookies left at the end
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// PEM file of certificates to trust, instead of this system's
    #[arg(long)]
    pub(super) ca: Option<PathBuf>,
    /// Trust any certificate: for labs
    #[arg(long, conflicts_with = "ca")]
    pub(super) insecure: bool,
    /// NTS-KE exchanges at a time
    #[arg(long, default_value_t = KE_CONCURRENCY_DEFAULT)]
    pub(super) concurrency: usize,
    /// NTP server, whatever NTS-KE names
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) ntp_server: Option<String>,
    /// AEAD: 15, 17 or 30
    #[arg(long, default_value_t = 15)]
    pub(super) aead: u16,
    /// Cookies asked for beside the one in return: 0 to 7, or `missing`, as many as a client lacks
    #[arg(long, default_value = "missing", value_parser = placeholders)]
    pub(super) placeholders: Placeholders,
    /// Cookies that a minted client has
    #[arg(long, default_value_t = 1)]
    pub(super) cookies_each: usize,
    /// Replay each client's first cookie
    #[arg(long)]
    pub(super) replay: bool,
    /// Answers to authenticate: all, none or 1/N; anything but all implies --replay
    #[arg(long, value_parser = units::verify, default_value = "all")]
    pub(super) verify: u64,
}

impl LoadArguments {
    pub(super) fn plan(
        &self,
        target: SocketAddr,
        ask: Ask,
        verify: u64,
    ) -> Result<Plan, CommandError> {
        let cpus = match &self.cpus {
            None => vec![None; self.threads],
            Some(text) => {
                let cpus = cpus::parse(text).ok_or_else(|| {
                    CommandError::usage(format_args!("--cpus \"{text}\": write 2-3,5"))
                })?;
                cpus.into_iter().map(Some).collect()
            }
        };
        let within = |what, fits: bool| {
            if fits { Ok(()) } else { Err(CommandError::usage(format_args!("{what}"))) }
        };
        within("--threads: 1 to 64 can be used", THREADS.contains(&cpus.len()))?;
        within("--ports: a thread can have 1 to 64", PORTS_PER_THREAD.contains(&self.ports))?;
        within("--timeout: 1ms to 30s can be used", TIMEOUT.contains(&self.timeout))?;
        let ports = cpus.len() * self.ports;
        let last_port = self.source_port.map_or(0, usize::from) + ports - 1;
        within("--source-port: the ports end at 65535", last_port <= usize::from(u16::MAX))?;
        let default = if self.sources.is_some() { 1 } else { SEGMENTS_DEFAULT };
        let segments = self.gso.unwrap_or(default);
        within("--gso: 1 to 64 datagrams fit a message", SEGMENTS.contains(&segments))?;
        let mut plan = Plan::new(target, ask, self.rate, self.duration);
        plan.shape = self.shape;
        plan.requests_max = self.requests.unwrap_or(plan.requests_max);
        plan.timeout = self.timeout;
        plan.cpus = cpus;
        plan.sources = self.sources;
        plan.ports_per_thread = self.ports;
        plan.source_port = self.source_port;
        plan.segments = segments;
        plan.verify_every = verify;
        plan.seed = self.seed;
        plan.interleaved = self.interleaved;
        Ok(plan)
    }

    /// What is looked at beside the run itself, from here on.
    pub(super) fn watch(&self) -> Result<ServerWatch, CommandError> {
        ServerWatch::begin(self.server_pid, self.server_control.as_deref())
    }

    pub(super) fn clients(&self, default: usize) -> Result<usize, CommandError> {
        let clients = self.clients.map_or(default, |clients| clients as usize);
        if CLIENTS.contains(&clients) {
            Ok(clients)
        } else {
            Err(CommandError::usage("--clients: 1 to 10M can be simulated"))
        }
    }

    pub(super) fn self_test(
        &self,
        plan: &Plan,
        algorithm: Algorithm,
    ) -> Result<Option<SelfTest>, CommandError> {
        if self.no_self_test { Ok(None) } else { Ok(Some(self_test(plan, algorithm)?)) }
    }
}

fn placeholders(text: &str) -> Result<Placeholders, String> {
    match text.parse() {
        Ok(count @ 0..=7) => Ok(Placeholders::Fixed(count)),
        _ if text == "missing" => Ok(Placeholders::Missing),
        _ => Err("write 0 to 7, or missing".to_owned()),
    }
}
