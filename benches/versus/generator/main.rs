//! The generator of `benches/versus/run`: one window of load on one server, one line of JSON.
//!
//! Frames go out by the kernel's own test runner (`BPF_PROG_TEST_RUN` with live frames): a BPF
//! program of twenty-odd instructions copies one of the prepared requests into each frame and
//! redirects it into the veth. Sockets on one core would be slower than the servers they measure.
//! The requests are replayed in turn, each from a client address of its own with its own keys and
//! cookie; a server without memory of its clients cannot tell. Replies to a few of the addresses
//! come to a socket here and are authenticated; the others are counted by the server's namespace.

mod bpf;
mod clients;
mod counters;
mod probes;
mod program;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use clap::{Parser, ValueEnum};
use rustix::process::Signal;
use serde_json::json;
use signal_hook::consts::SIGUSR1;
use timeball::cookie::ntskeys;
use timeball::sys::socket::{UdpOptions, open_udp};

use crate::bpf::{Map, Program};
use crate::clients::{CLIENTS_DEFAULT, Clients, Judged, SAMPLE_PORT, SAMPLED, flood};
use crate::counters::Counters;
use crate::probes::Probes;
use crate::program::{Deck, PACE_BYTES, Pace, Task};

/// One window of load, run by benches/versus/run inside the namespace that it made.
#[derive(Clone, Parser)]
pub(crate) struct Arguments {
    /// What to ask
    #[arg(long)]
    ask: Ask,
    /// The server's ntskeys file
    #[arg(long)]
    keys: PathBuf,
    /// Interface whose other end is the server's
    #[arg(long)]
    interface: String,
    /// The server's address and port
    #[arg(long)]
    server: SocketAddrV4,
    /// Requests per second; 0 sends as many as the machine can
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Measured time, after the warm-up
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Process that answers; its threads' CPU time is taken, and its namespace's counters
    #[arg(long)]
    pid: u32,
    /// Further processes that work for the server (kernel threads of its network stack)
    #[arg(long, value_delimiter = ',')]
    beside: Vec<u32>,
    /// Associations that are replayed in turn, a power of two; replies to 256 of them are judged
    #[arg(long, default_value_t = CLIENTS_DEFAULT)]
    clients: usize,
    /// How requests that are paced follow each other
    #[arg(long, default_value = "steady")]
    arrivals: Arrivals,
    /// The clients whose replies are judged are in interleaved mode (RFC 9769)
    #[arg(long)]
    interleaved: bool,
    /// Ask through a socket besides, to see what receive timestamps are off by
    #[arg(long)]
    probe: bool,
    /// The server's processor
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Requests that are late because of what else the processor does are not made up for
    #[arg(long)]
    punctual: bool,
    /// A flood beside the requests, from addresses all over 11.0.0.0/8
    #[arg(long)]
    flood: Option<Flood>,
    /// Requests of the flood per second; 0 sends as many as the machine can
    #[arg(long, default_value_t = 0)]
    flood_rate: u64,
    /// The flood goes to a hardware address that is not the server's, whose interface drops it
    #[arg(long)]
    flood_past: bool,
}

/// What is asked of the server.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ask {
    /// 48 bytes, no authentication.
    Ntp,
    /// One cookie of an AES-SIV-CMAC-256 association.
    Nts,
}

/// What a flood is of.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flood {
    /// Plain requests.
    Ntp,
    /// NTS requests that are not authentic.
    Nak,
    /// Random bytes of all lengths that fit into a frame, from none on.
    Junk,
}

/// How requests follow each other.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    Steady,
    /// All of 65.5 µs at once.
    Bursts,
}

/// Before a window is measured: queues fill and caches settle.
const WARM_UP: Duration = Duration::from_millis(200);

/// How often the sample's socket is emptied: before it overflows.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(2);

/// Requests that a punctual stream may send late, and together then: what comes due while a batch
/// of frames is on its way.
const PATIENCE: i32 = 16;

/// Longest window: nothing here runs for long.
const SECONDS_MAX: f64 = 60.0;

fn main() -> ExitCode {
    // `cargo bench` runs every bench; this one is a part of a script.
    if std::env::args().any(|argument| argument == "--bench") {
        println!("the generator of benches/versus/run, which is what to run");
        return ExitCode::SUCCESS;
    }
    match measure(&Arguments::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("generator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let ring = ntskeys::parse(&std::fs::read_to_string(&arguments.keys)?)?.ring;
    let count = arguments.clients;
    if !count.is_power_of_two() || count < SAMPLED {
        return Err(format!("--clients takes a power of two from {SAMPLED} up").into());
    }
    let is_nts = arguments.ask == Ask::Nts;
    let clients = Clients::mint(&ring, is_nts, arguments.interleaved, arguments.server, count);
    let address = (Ipv4Addr::UNSPECIFIED, SAMPLE_PORT).into();
    let socket = open_udp(address, false, &UdpOptions::default())?;

    let deck = Deck::of(clients.frames())?;
    let flood = arguments.flood.map(|kind| {
        let frames = flood(kind, &ring, arguments.server, arguments.flood_past);
        Deck::of(frames.iter().map(Vec::as_slice))
    });
    let flood = flood.transpose()?;
    let streams: Vec<&Deck> = [Some(&deck), flood.as_ref()].into_iter().flatten().collect();
    let rates = [arguments.rate, arguments.flood_rate];
    let paces: Vec<u8> = rates
        .iter()
        .take(streams.len())
        .flat_map(|&rate| Pace::starting_now(rate).to_bytes())
        .collect();
    let pace = Map::array(PACE_BYTES * streams.len(), 1)?;
    pace.write(0, &paces)?;
    let program = Program::load_xdp(&program::assemble(&Task {
        streams: &streams,
        pace: &pace,
        arrivals: arguments.arrivals,
        patience: arguments.punctual.then_some(PATIENCE),
        interface: index_of(&arguments.interface)?,
    }))?;

    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&stop))?;
    let bytes = streams.iter().map(|stream| stream.frame_bytes()).max().expect("a stream");
    let observer = thread::spawn({
        let arguments = arguments.clone();
        let sample = Sample::of(clients, socket, deck, &arguments)?;
        move || {
            let seen = observe(&arguments, &pace, sample);
            // The kernel gives a process's signal to its main thread, which it takes out of the
            // test runner.
            rustix::process::kill_process(rustix::process::getpid(), Signal::USR1)
                .expect("a process may signal itself");
            seen
        }
    });
    while !stop.load(Ordering::Relaxed) {
        program.run_live(bytes)?;
    }
    Ok(observer.join().expect("the observer does not panic")?)
}

/// What is looked at more closely than by counting.
struct Sample {
    clients: Clients,
    socket: UdpSocket,
    deck: Deck,
    probes: Option<Probes>,
    judged: Judged,
}

impl Sample {
    fn of(
        clients: Clients,
        socket: UdpSocket,
        deck: Deck,
        arguments: &Arguments,
    ) -> io::Result<Self> {
        let probes = arguments.probe.then(|| Probes::open(arguments.server)).transpose()?;
        Ok(Self { clients, socket, deck, probes, judged: Judged::default() })
    }

    /// Looks for so long.
    fn watch(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.clients.judge(&self.socket, &self.deck, &mut self.judged)?;
            if let Some(probes) = &mut self.probes {
                probes.turn()?;
            }
            thread::sleep(SAMPLE_INTERVAL);
        }
        Ok(())
    }

    /// Measures from now on.
    fn begin(&mut self) {
        self.judged.lateness_ns.clear();
        self.judged.latency_ns.clear();
        if let Some(probes) = &mut self.probes {
            probes.begin();
        }
    }
}

/// Takes the counters around the window and judges the sampled replies meanwhile.
fn observe(arguments: &Arguments, pace: &Map, mut sample: Sample) -> io::Result<serde_json::Value> {
    let look = || -> io::Result<_> {
        let sent = Pace::sent(&pace.read(0)?);
        Ok((Counters::read(arguments.pid, &arguments.beside, arguments.cpu)?, sent))
    };
    sample.watch(warm_up(arguments))?;
    sample.begin();
    let (before, sent_before) = look()?;
    let started = Instant::now();
    sample.watch(Duration::from_secs_f64(arguments.seconds.clamp(0.01, SECONDS_MAX)))?;
    let (after, sent_after) = look()?;
    let seconds = started.elapsed().as_secs_f64();
    let sent: Vec<u64> =
        sent_after.iter().zip(sent_before).map(|(after, before)| after - before).collect();
    Ok(report(&after.since(&before), &sent, &sample, seconds))
}

/// In interleaved mode until each client has had its third reply, which is the first in that mode.
fn warm_up(arguments: &Arguments) -> Duration {
    if !arguments.interleaved || arguments.rate == 0 {
        return WARM_UP;
    }
    let turn_seconds = arguments.clients as f64 / arguments.rate as f64;
    WARM_UP + Duration::from_secs_f64((3.0 * turn_seconds).min(SECONDS_MAX))
}

fn report(spent: &Counters, sent: &[u64], sample: &Sample, seconds: f64) -> serde_json::Value {
    let Sample { judged, probes, clients, .. } = sample;
    let (sent, flooded) = (sent[0], sent.get(1).copied());
    let per_second = |count: u64| (count as f64 / seconds).round();
    let per_response = |time_ns: u64| (time_ns as f64 / spent.answered.max(1) as f64).round();
    let share = |time_ns: u64| (time_ns as f64 / seconds / 1e6).round() / 1e3;
    json!({
        "offered": per_second(sent),
        "received": per_second(spent.received),
        "answered": per_second(spent.answered),
        "lost_percent": 100.0 * (1.0 - spent.answered as f64 / sent.max(1) as f64),
        "queue_full": per_second(spent.queue_full),
        "send_failed": per_second(spent.send_failed),
        "cpu_ns": per_response(spent.server_ns),
        "beside_ns": per_response(spent.beside_ns),
        "server_share": share(spent.server_ns),
        "server_waited_share": share(spent.waited_ns),
        "beside_share": share(spent.beside_ns),
        "core_idle_share": share(spent.idle_ns),
        "core_softirq_share": share(spent.softirq_ns),
        "core_steal_share": share(spent.steal_ns),
        "flooded": flooded.map(per_second),
        "sampled": judged.authentic + judged.wrong,
        "wrong": judged.wrong,
        "sampled_requests": sent as f64 / clients.stride() as f64,
        "sampled_replies": judged.latency_ns.len(),
        "latency_ns": distribution(&judged.latency_ns),
        "lateness_ns": distribution(&judged.lateness_ns),
        "transmit_error_ns": magnitude(&judged.lateness_ns),
        "receive_error_ns": probes.as_ref().map(|probes| magnitude(&probes.errors_ns())),
        "seconds": seconds,
    })
}

/// Mean, standard deviation and ranks.
fn distribution(values_ns: &[i64]) -> serde_json::Value {
    let mut sorted = values_ns.to_vec();
    sorted.sort_unstable();
    if sorted.is_empty() {
        return serde_json::Value::Null;
    }
    let count = sorted.len() as f64;
    let mean = sorted.iter().sum::<i64>() as f64 / count;
    let variance = sorted.iter().map(|&ns| (ns as f64 - mean).powi(2)).sum::<f64>() / count;
    let rank = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    json!({
        "count": sorted.len(),
        "mean": mean.round(),
        "deviation": variance.sqrt().round(),
        "p1": rank(1),
        "median": rank(50),
        "p95": rank(95),
        "p99": rank(99),
    })
}

/// Mean and 99th percentile of how large errors are, whatever their sign.
fn magnitude(errors_ns: &[i64]) -> serde_json::Value {
    let mut sorted: Vec<u64> = errors_ns.iter().map(|ns| ns.unsigned_abs()).collect();
    sorted.sort_unstable();
    if sorted.is_empty() {
        return serde_json::Value::Null;
    }
    json!({
        "count": sorted.len(),
        "mean": (sorted.iter().sum::<u64>() as f64 / sorted.len() as f64).round(),
        "p99": sorted[(sorted.len() - 1) * 99 / 100],
    })
}

/// Of units of 2⁻³² s.
pub(crate) fn nanoseconds(units: i64) -> i64 {
    ((i128::from(units) * 1_000_000_000) >> 32) as i64
}

fn index_of(interface: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(interface)?)
}
