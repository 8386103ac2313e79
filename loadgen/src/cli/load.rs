//! `timeball-load ntp` and `timeball-load nts`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::config::cpus;
use timeball::cookie::ntskeys;
use timeball::ke::client::Options;
use timeball::ke::exchange::Offer;
use timeball::limits::{COOKIES_PER_REPLY, DATAGRAM_BYTES, NTP_PORT, NTS_KE_PORT};

use super::units;
use super::{CommandError, EXIT_FINE, EXIT_INVALID};
use crate::associations::harvest::{Trust, harvest};
use crate::associations::{Associations, Saved, mint};
use crate::host::{Host, ServerUse};
use crate::limits::{
    CLIENTS, CLIENTS_HARVESTED_DEFAULT, CLIENTS_MINTED_DEFAULT, KE_CONCURRENCY,
    KE_CONCURRENCY_DEFAULT, KE_TIMEOUT_DEFAULT, PORTS_PER_THREAD, PROBE_REQUESTS, SEGMENTS,
    SEGMENTS_DEFAULT, THREADS, TIMEOUT,
};
use crate::plan::{Ask, CookieUse, Placeholders, Plan, Prefix, Shape};
use crate::record::Interval;
use crate::reflector::{SelfTest, self_test};
use crate::report::RunReport;
use crate::request::Clients;
use crate::run::{Found, faults, run};

/// What both have in common.
#[derive(Debug, Args)]
struct LoadArguments {
    /// Requests per second, of all clients together: 500, 150k, 1.5M
    #[arg(long, value_parser = units::rate, default_value = "1k")]
    rate: f64,
    /// constant, poisson, ramp:RATE (at the end) or burst:REQUESTS
    #[arg(long, value_parser = units::shape, default_value = "constant")]
    shape: Shape,
    /// How long requests are offered: 500ms, 10s, 2m
    #[arg(long, value_parser = units::duration, default_value = "10s")]
    duration: Duration,
    /// Requests at the most
    #[arg(long, value_parser = units::count)]
    requests: Option<u64>,
    /// Simulated clients
    #[arg(long, value_parser = units::count)]
    clients: Option<u64>,
    /// Answers after this time are late, after twice as much lost
    #[arg(long, value_parser = units::duration, default_value = "1s")]
    timeout: Duration,
    /// Threads that offer load
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Processors of these threads, as `2-3,5`; sets their number
    #[arg(long)]
    cpus: Option<String>,
    /// Network that requests leave from, each client from an address of its own: 127.9.0.0/16
    #[arg(long)]
    sources: Option<Prefix>,
    /// Sockets, and so source ports, of each thread
    #[arg(long, default_value_t = 1)]
    ports: usize,
    /// Datagrams that the kernel may cut from one message when several are due; 1 is none.
    /// Without --sources 64
    #[arg(long)]
    gso: Option<usize>,
    /// Makes random spacing repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Process of the server on this host: its CPU time and drops are shown
    #[arg(long)]
    server_pid: Option<u32>,
    /// Do not try the generator on a server of its own first
    #[arg(long)]
    no_self_test: bool,
    /// Do not ask the server a few times first
    #[arg(long)]
    no_probe: bool,
    /// Write the results here, for programs and for `report`
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a line for each second here
    #[arg(long)]
    csv: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct NtpArguments {
    /// Server, as HOST or HOST:PORT (123)
    server: String,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Debug, Args)]
pub(super) struct NtsArguments {
    /// NTS-KE server as HOST or HOST:PORT (4460); with --mint or --load the NTP server (123)
    server: String,
    #[command(flatten)]
    load: LoadArguments,
    /// Make associations with the server's key file, without NTS-KE: for labs
    #[arg(long, value_name = "NTSKEYS", conflicts_with_all = ["load_file", "ca", "insecure"])]
    mint: Option<PathBuf>,
    /// Take associations from this file
    #[arg(long = "load", value_name = "FILE", conflicts_with_all = ["ca", "insecure"])]
    load_file: Option<PathBuf>,
    /// Keep the associations in this file (mode 0600), with the cookies left at the end
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// PEM file of certificates to trust, instead of this system's
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Trust any certificate: for labs
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// NTS-KE exchanges at a time
    #[arg(long, default_value_t = KE_CONCURRENCY_DEFAULT)]
    concurrency: usize,
    /// NTP server, whatever NTS-KE names
    #[arg(long, value_name = "HOST:PORT")]
    ntp_server: Option<String>,
    /// AEAD: 15, 17 or 30
    #[arg(long, default_value_t = 15)]
    aead: u16,
    /// Cookies asked for beside the one in return: 0 to 7, or `missing`, as many as a client lacks
    #[arg(long, default_value = "missing", value_parser = placeholders)]
    placeholders: Placeholders,
    /// Cookies that a minted client has
    #[arg(long, default_value_t = 1)]
    cookies_each: usize,
    /// Replay each client's first cookie
    #[arg(long)]
    replay: bool,
    /// Answers to authenticate: all, none or 1/N; anything but all implies --replay
    #[arg(long, value_parser = units::verify, default_value = "all")]
    verify: u64,
}

pub(super) fn ntp(arguments: &NtpArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    let load = &arguments.load;
    let target = resolve(&arguments.server, NTP_PORT)?;
    let plan = load.plan(target, Ask::Ntp, 1)?;
    let clients = load.clients(CLIENTS_MINTED_DEFAULT)?.max(plan.cpus.len());
    let self_test = load.self_test(&plan, Algorithm::AesSivCmac256)?;
    let threads = plan.cpus.len();
    let clients = || (0..threads).map(|_| Clients::Plain(clients / threads)).collect::<Vec<_>>();
    if !load.no_probe {
        probe(&plan, clients(), stop)?;
    }
    let (report, _) = offer(load, &plan, clients(), self_test, stop)?;
    finish(load, &report)
}

pub(super) fn nts(arguments: &NtsArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    let load = &arguments.load;
    let mut saved = arguments.associations(stop)?;
    if let Some(server) = &arguments.ntp_server {
        saved.server = resolve(server, NTP_PORT)?;
    }
    let cookie_use = if arguments.replay || arguments.verify != 1 {
        CookieUse::Replay
    } else {
        CookieUse::Renew
    };
    let ask = Ask::Nts(arguments.placeholders, cookie_use);
    let plan = load.plan(saved.server, ask, arguments.verify)?;
    check_length(&saved.associations, arguments.placeholders)?;
    let Saved { server, associations } = saved;
    if associations.len() < plan.cpus.len() {
        return Err(CommandError::usage("there are fewer clients than threads: ask for more"));
    }
    let algorithm = associations.algorithm();
    let self_test = load.self_test(&plan, algorithm)?;
    let dress = |associations: Associations| -> Vec<Clients> {
        let parts = associations.split(plan.cpus.len()).into_iter();
        parts.map(|part| Clients::Nts(part, arguments.placeholders, cookie_use)).collect()
    };
    let mut associations = associations;
    if !load.no_probe {
        associations = undress(probe(&plan, dress(associations), stop)?);
    }
    let (report, clients) = offer(load, &plan, dress(associations), self_test, stop)?;
    if let Some(path) = &arguments.save {
        Saved { server, associations: undress(clients) }.save(path)?;
    }
    finish(load, &report)
}

/// The associations of all threads together.
fn undress(clients: Vec<Clients>) -> Associations {
    let parts = clients.into_iter().filter_map(|clients| match clients {
        Clients::Nts(associations, ..) => Some(associations),
        Clients::Plain(_) => None,
    });
    Associations::join(parts.collect()).expect("there is a thread")
}

/// Asks the server a few times: is it there at all, and are the cookies good?
fn probe(
    plan: &Plan,
    clients: Vec<Clients>,
    stop: &AtomicBool,
) -> Result<Vec<Clients>, CommandError> {
    let probe = Plan {
        requests_max: PROBE_REQUESTS * plan.cpus.len() as u64,
        rate_per_second: 100.0,
        shape: Shape::Constant,
        duration: Duration::from_secs(10),
        ..plan.clone()
    };
    let found = run(&probe, clients, stop, |_, _| {})?;
    let tally = &found.total.tally;
    if tally.answered + tally.late > 0 || stop.load(Ordering::Relaxed) {
        return Ok(found.clients);
    }
    let target = plan.target;
    let message = if tally.nak > 0 {
        format!("{target} refuses the cookies (NTS NAK): they are not of its master keys")
    } else if let Some(code) = tally.kiss.keys().next() {
        format!("{target} does not serve this host: it sends the kiss code {code}")
    } else if tally.received > 0 {
        let (reason, _) = tally.invalid.reasons().into_iter().max_by_key(|it| it.1).expect("some");
        format!("{target} answers, but with nothing that a client takes ({reason})")
    } else {
        format!(
            "no answer from udp {target}: is the server up, and does a firewall let NTP pass? \
             (--no-probe goes on without)"
        )
    };
    Err(CommandError { code: super::EXIT_FAILURE, message })
}

/// The run itself, with progress on the terminal.
fn offer(
    load: &LoadArguments,
    plan: &Plan,
    clients: Vec<Clients>,
    self_test: Option<SelfTest>,
    stop: &AtomicBool,
) -> Result<(RunReport, Vec<Clients>), CommandError> {
    let before = match load.server_pid {
        None => None,
        Some(pid) => Some(ServerUse::of(pid).ok_or_else(|| {
            CommandError::usage(format_args!("there is no process {pid} to look at"))
        })?),
    };
    let clients_count = clients.iter().map(Clients::len).sum();
    let host = Host::look();
    let begun = time::OffsetDateTime::now_utc();
    let bar = progress_bar(plan.duration);
    let Found { total, intervals, clients, offer_time, unpinned } =
        run(plan, clients, stop, |elapsed, total| show(&bar, elapsed, total))?;
    bar.finish_and_clear();
    let server = before.zip(load.server_pid.and_then(ServerUse::of));
    let mut faults = faults(&total.tally);
    if let Some(test) = self_test.as_ref().filter(|test| !test.passed()) {
        faults.push(format!(
            "in the self-test, without the server, it sent {:.0} requests/s of {:.0}, {:.1} % of \
             them late",
            test.reached_per_second,
            test.planned_per_second,
            test.lagging_share * 100.0
        ));
    }
    if unpinned > 0 {
        faults.push("a thread could not be pinned to its processor (--cpus)".to_owned());
    }
    let report = RunReport {
        program: format!("timeball-load {}", env!("CARGO_PKG_VERSION")),
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
        begun: begun.unix_timestamp(),
        host,
        plan: plan.clone(),
        clients: clients_count,
        offer_seconds: offer_time.as_secs_f64(),
        interrupted: stop.load(Ordering::Relaxed),
        faults,
        self_test,
        server: server.map(|(before, after)| after.since(&before)),
        tally: total.tally,
        latency: total.latency,
        send_lag: total.send_lag,
        seconds: intervals.iter().map(crate::report::Second::of).collect(),
    };
    Ok((report, clients))
}

fn finish(load: &LoadArguments, report: &RunReport) -> Result<u8, CommandError> {
    print!("{}", crate::report::terminal::text(report));
    if let Some(path) = &load.json {
        write(path, &serde_json::to_string(report)?)?;
    }
    if let Some(path) = &load.csv {
        write(path, &crate::report::csv(report))?;
    }
    Ok(if report.faults.is_empty() { EXIT_FINE } else { EXIT_INVALID })
}

fn write(path: &std::path::Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|error| CommandError {
        code: super::EXIT_FAILURE,
        message: format!("cannot write {}: {error}", path.display()),
    })
}

fn progress_bar(duration: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}");
    ProgressBar::new(duration.as_millis() as u64)
        .with_style(style.expect("the template is constant"))
}

fn show(bar: &ProgressBar, elapsed: Duration, total: &Interval) {
    bar.set_position(elapsed.as_millis() as u64);
    let (tally, latency) = (&total.tally, &total.latency);
    bar.set_message(format!(
        "{} offered, {} answered, {} lost, p50 {:.0} us, p99 {:.0} us",
        tally.offered,
        tally.answered,
        tally.lost,
        latency.quantile_ns(0.5) as f64 / 1e3,
        latency.quantile_ns(0.99) as f64 / 1e3,
    ));
}

impl LoadArguments {
    fn plan(&self, target: SocketAddr, ask: Ask, verify: u64) -> Result<Plan, CommandError> {
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
        plan.segments = segments;
        plan.verify_every = verify;
        plan.seed = self.seed;
        Ok(plan)
    }

    fn clients(&self, default: usize) -> Result<usize, CommandError> {
        let clients = self.clients.map_or(default, |clients| clients as usize);
        if CLIENTS.contains(&clients) {
            Ok(clients)
        } else {
            Err(CommandError::usage("--clients: 1 to 10M can be simulated"))
        }
    }

    fn self_test(
        &self,
        plan: &Plan,
        algorithm: Algorithm,
    ) -> Result<Option<SelfTest>, CommandError> {
        if self.no_self_test { Ok(None) } else { Ok(Some(self_test(plan, algorithm)?)) }
    }
}

impl NtsArguments {
    fn associations(&self, stop: &AtomicBool) -> Result<Saved, CommandError> {
        if !(1..=COOKIES_PER_REPLY).contains(&self.cookies_each) {
            return Err(CommandError::usage("--cookies-each: a client keeps one to eight"));
        }
        if !KE_CONCURRENCY.contains(&self.concurrency) {
            return Err(CommandError::usage("--concurrency: 1 to 4096 exchanges can be made"));
        }
        let algorithm = Algorithm::from_id(self.aead)
            .ok_or_else(|| CommandError::usage("--aead: 15, 17 or 30 can be asked for"))?;
        let saved = if let Some(path) = &self.mint {
            let server = resolve(&self.server, NTP_PORT)?;
            let clients = self.load.clients(CLIENTS_MINTED_DEFAULT)?;
            let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|error| {
                CommandError::usage(format_args!("cannot read {}: {error}", path.display()))
            })?);
            let keys = ntskeys::parse(&text).map_err(|error| {
                CommandError::usage(format_args!("{} is no ntskeys: {error}", path.display()))
            })?;
            let mut random = NonceGenerator::new()?;
            let associations =
                mint(&keys.ring, algorithm, clients, self.cookies_each, &mut random)?;
            Saved { server, associations }
        } else if let Some(path) = &self.load_file {
            let server = resolve(&self.server, NTP_PORT)?;
            Saved { server, ..Saved::load(path)? }
        } else {
            self.harvest(algorithm, stop)?
        };
        if let Some(path) = &self.save {
            saved.save(path)?;
        }
        Ok(saved)
    }

    fn harvest(&self, algorithm: Algorithm, stop: &AtomicBool) -> Result<Saved, CommandError> {
        let (host, port) = host_and_port(&self.server, NTS_KE_PORT)
            .ok_or_else(|| CommandError::usage(format_args!("\"{}\" is no host", self.server)))?;
        let trust = match &self.ca {
            Some(path) => Trust::File(path.clone()),
            None if self.insecure => Trust::Anybody,
            None => Trust::System,
        };
        let algorithms = [algorithm].into_iter().collect();
        let options = Options {
            host,
            port,
            config: trust.config()?,
            offer: Offer { algorithms, ..Offer::default() },
            timeout: KE_TIMEOUT_DEFAULT,
        };
        let clients = self.load.clients(CLIENTS_HARVESTED_DEFAULT)?;
        let style =
            ProgressStyle::with_template("NTS-KE {bar:30} {pos} of {len} clients, {per_sec}");
        let bar =
            ProgressBar::new(clients as u64).with_style(style.expect("the template is constant"));
        let harvested = harvest(&options, clients, self.concurrency, stop, || bar.inc(1));
        bar.finish_and_clear();
        Ok(harvested?)
    }
}

fn placeholders(text: &str) -> Result<Placeholders, String> {
    match text.parse() {
        Ok(count @ 0..=7) => Ok(Placeholders::Fixed(count)),
        _ if text == "missing" => Ok(Placeholders::Missing),
        _ => Err("write 0 to 7, or missing".to_owned()),
    }
}

/// A request has to fit an Ethernet frame.
fn check_length(
    associations: &Associations,
    placeholders: Placeholders,
) -> Result<(), CommandError> {
    let most = match placeholders {
        Placeholders::Fixed(count) => usize::from(count),
        Placeholders::Missing => associations.depth() - 1,
    };
    let bytes = crate::request::request_bytes(associations, most);
    if bytes <= DATAGRAM_BYTES {
        return Ok(());
    }
    Err(CommandError::usage(format_args!(
        "requests of {bytes} bytes are too long for the network: ask for fewer placeholders"
    )))
}

fn resolve(text: &str, default_port: u16) -> Result<SocketAddr, CommandError> {
    let (host, port) = host_and_port(text, default_port).ok_or_else(|| {
        CommandError::usage(format_args!("\"{text}\" is no host: write HOST:PORT"))
    })?;
    let addresses = (host.as_str(), port).to_socket_addrs();
    let mut addresses = addresses.map_err(|error| CommandError {
        code: super::EXIT_FAILURE,
        message: format!("{host} has no address ({error}): check the name"),
    })?;
    addresses.next().ok_or_else(|| CommandError::usage(format_args!("{host} has no address")))
}

/// Splits what the user gave; a bare IPv6 address is all host.
fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_string(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Some((address.to_string(), default_port));
    }
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host.to_owned(), port.parse().ok()?)),
        None if !text.is_empty() => Some((text.to_owned(), default_port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let split = |text| host_and_port(text, 123).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(split("time.example.org").as_deref(), Some("time.example.org 123"));
        assert_eq!(split("time.example.org:11123").as_deref(), Some("time.example.org 11123"));
        assert_eq!(split("2001:db8::1").as_deref(), Some("2001:db8::1 123"));
        assert_eq!(split("[2001:db8::1]").as_deref(), Some("2001:db8::1 123"));
        assert_eq!(split("[2001:db8::1]:1").as_deref(), Some("2001:db8::1 1"));
        for wrong in ["", ":1", "a:b", "a:70000", "[::1", "[::1]x"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
