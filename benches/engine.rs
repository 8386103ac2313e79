//! `Engine::answer` without I/O: nanoseconds a request, by kind, batch size and stage.
//!
//! ```text
//! cargo bench --bench engine
//! cargo bench --bench engine -- --quick
//! cargo bench --bench engine -- --only limits       # rows with this word
//! cargo bench --bench engine -- --record NAME
//! ```
//!
//! Requests come from 1024 clients in turn, each with keys and cookies of its own. They are copied
//! into the 32 buffers of a worker before each batch, outside of the measured time, because their
//! replies are written over them. Arms take turns within a round and each round starts with
//! another; median and quartiles over the rounds are printed.

mod common;

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use common::{host_facts, is_asked, publish, quartiles};
use timeball::aead::{Aead, Algorithm, Backend, NonceGenerator};
use timeball::client::Association;
use timeball::clock::host::HostClock;
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ring::KeyRing;
use timeball::engine::batch::Datagram;
use timeball::engine::outcome::Outcome;
use timeball::engine::rate::RateLimits;
use timeball::engine::terms::Terms;
use timeball::engine::{Engine, Observer, Stage};
use timeball::limits::clients::RATE_PER_SECOND;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::networks::NetworkSet;
use timeball::wire::timestamp::NtpTimestamp;

fn main() {
    let rounds = if is_asked("--quick") { 7 } else { 41 };
    let only = std::env::args().skip_while(|word| word != "--only").nth(1).unwrap_or_default();
    let mut bench = Bench::new();
    let mut arms = arms(&mut bench, &only);
    for round in 0..rounds {
        let count = arms.len();
        for index in 0..count {
            let arm = &mut arms[(index + round) % count];
            let time = bench.window(arm);
            arm.times.push(time);
        }
    }
    let mut table = host_facts();
    let _ = writeln!(table, "set       {CLIENTS} clients, windows of {} ms\n", WINDOW.as_millis());
    let _ = writeln!(
        table,
        "{:<36} {:<10} {:>5} {:>11} {:>15}",
        "request", "back end", "batch", "ns/request", "quartiles"
    );
    for arm in &arms {
        let (median, low, high) = quartiles(&arm.times);
        let _ = writeln!(
            table,
            "{:<36} {:<10} {:>5} {median:>11.1} {:>15}",
            name(arm.kind, arm.guard),
            arm.backend.to_string(),
            arm.batch,
            format!("{low:.1}-{high:.1}"),
        );
    }
    if "stages".contains(&only) {
        stages(&mut bench, rounds, &mut table);
    }
    if "looks".contains(&only) {
        looks(&mut bench, rounds, &mut table);
    }
    publish(&table);
}

/// What a row is called.
fn name(kind: Kind, guard: Guard) -> String {
    kind.name() + guard.name()
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// NTS of a client with this AEAD, with this many cookies in the reply.
    Nts(Algorithm, usize),
    /// NTS whose cookie does not open.
    BadCookie,
}

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Plain => "plain NTP".to_owned(),
            Self::Nts(aead, cookies) => format!("AEAD {}, {cookies} cookie(s)", aead.id()),
            Self::BadCookie => "NTS, bad cookie".to_owned(),
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Plain => Outcome::AnsweredPlain,
            Self::Nts(..) => Outcome::AnsweredNts,
            Self::BadCookie => Outcome::NtsNak,
        }
    }
}

/// What stands between a request and its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    /// An access list of [`NETWORKS`] that denies none of the clients.
    Access,
    /// All rate limits, none of which is met, of clients with addresses of this family.
    RateIpv4,
    RateIpv6,
}

impl Guard {
    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Access => ", access list",
            Self::RateIpv4 => ", rate limits",
            Self::RateIpv6 => ", rate limits, IPv6",
        }
    }

    /// The address of a client, from a random number.
    fn address(self, random: u64) -> IpAddr {
        match self {
            Self::RateIpv6 => {
                IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(random) << 32).into())
            }
            // The access list has nothing of 198.0.0.0/8.
            _ => IpAddr::V4((0xc600_0000 | random as u32 & 0x00ff_ffff).into()),
        }
    }

    fn engine(self, bench: &mut Bench, backend: Backend) -> Engine {
        let engine = Engine::new(Aead::with_backend(backend).expect("available"));
        let mut terms = Terms::default();
        match self {
            Self::None => return engine,
            Self::Access => terms.access = Arc::new(bench.denied(Family::Ipv4)),
            Self::RateIpv4 | Self::RateIpv6 => {
                let most = Some(*RATE_PER_SECOND.end());
                terms.rates = RateLimits {
                    requests_per_second: most,
                    nts_requests_per_second: most,
                    naks_per_second: most,
                    cookie_uses_per_second: most,
                    unlimited: vec!["127.0.0.0/8".parse().expect("a network")],
                    ..RateLimits::off()
                };
            }
        }
        let mut engine = engine.with_rate_limits([bench.number(), bench.number()]);
        engine.adopt(&terms);
        engine
    }
}

/// One row of the table.
struct Arm {
    kind: Kind,
    guard: Guard,
    backend: Backend,
    batch: usize,
    engine: Engine,
    requests: Vec<Request>,
    times: Vec<f64>,
}

struct Request {
    bytes: Vec<u8>,
    source: SocketAddr,
}

fn arms(bench: &mut Bench, only: &str) -> Vec<Arm> {
    let widest = Aead::detect().backend();
    let guards = [Guard::Access, Guard::RateIpv4, Guard::RateIpv6];
    let guarded = [Kind::Plain, MOST_USUAL]
        .into_iter()
        .flat_map(|kind| guards.map(|guard| (kind, guard, widest, 32)));
    let mut rows = vec![(Kind::Plain, widest, 32), (Kind::BadCookie, widest, 32)];
    for aead in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
        let kind = Kind::Nts(aead, 1);
        rows.extend(Backend::available().into_iter().map(|backend| (kind, backend, 32)));
        rows.extend([1, 2, 4, 8, 16].map(|batch| (kind, widest, batch)));
        rows.push((Kind::Nts(aead, 8), widest, 32));
    }
    rows.into_iter()
        .map(|(kind, backend, batch)| (kind, Guard::None, backend, batch))
        .chain(guarded)
        .filter(|(kind, guard, ..)| name(*kind, *guard).contains(only))
        .map(|(kind, guard, backend, batch)| Arm {
            kind,
            guard,
            backend,
            batch,
            engine: guard.engine(bench, backend),
            requests: bench.requests(kind, guard),
            times: Vec::new(),
        })
        .collect()
}

/// The stages of the most usual request, each with the time of its own.
fn stages(bench: &mut Bench, rounds: usize, table: &mut String) {
    let mut engine = Engine::new(Aead::detect());
    let requests = bench.requests(MOST_USUAL, Guard::None);
    let mut split = Split { last: Instant::now(), times: [Duration::ZERO; 7] };
    let mut answered = 0;
    for _ in 0..rounds {
        for clients in requests.chunks_exact(BATCH_DATAGRAMS) {
            bench.batch(clients, |batch, keys, clock, nonces| {
                split.last = Instant::now();
                engine.answer_observed(batch, keys, clock, nonces, &mut split);
            });
            answered += clients.len();
        }
    }
    let _ = writeln!(
        table,
        "\n{}, batch 32, by stage (each includes one clock reading)",
        MOST_USUAL.name()
    );
    let names = ["admit", "parse", "unlock", "verify", "renew", "stamp", "seal"];
    for (name, time) in names.iter().zip(split.times) {
        let _ = writeln!(table, "  {name:<8} {:>6.1} ns", time.as_nanos() as f64 / answered as f64);
    }
}

/// How long it takes to look addresses up in sets of [`NETWORKS`], and what the sets take.
fn looks(bench: &mut Bench, rounds: usize, table: &mut String) {
    let _ = writeln!(table, "\n{NETWORKS} networks: a look for a random address");
    for family in [Family::Ipv4, Family::Ipv6] {
        let networks = bench.denied(family);
        let addresses: Vec<IpAddr> = (0..CLIENTS).map(|_| family.any(bench.number())).collect();
        let mut times = Vec::new();
        for _ in 0..rounds {
            let (start, mut looks) = (Instant::now(), 0);
            while start.elapsed() < WINDOW {
                for address in &addresses {
                    black_box(networks.contains(black_box(*address)));
                }
                looks += addresses.len();
            }
            times.push(start.elapsed().as_nanos() as f64 / looks as f64);
        }
        let (median, low, high) = quartiles(&times);
        let kib = networks.bytes() / 1024;
        let name = family.name();
        let _ = writeln!(table, "  {name:<8} {median:>6.1} ns ({low:.1}-{high:.1}), {kib} KiB");
    }
}

#[derive(Clone, Copy)]
enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// An address of what is routed: 0.0.0.0/1 but for the lowest /8, or 2400::/12.
    fn any(self, random: u64) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4((random as u32 & 0x7fff_ffff | 0x0100_0000).into()),
            Self::Ipv6 => {
                let high = 0x2400_0000_0000_0000 | random >> 12;
                IpAddr::V6((u128::from(high) << 64 | 1).into())
            }
        }
    }

    /// The length of a prefix: /24 and /48 are the most common ones.
    fn bits(self, random: u64) -> u8 {
        match self {
            Self::Ipv4 => 16 + (random % 9) as u8,
            Self::Ipv6 => 32 + (random % 17) as u8,
        }
    }
}

struct Split {
    last: Instant,
    times: [Duration; 7],
}

impl Observer for Split {
    fn done(&mut self, stage: Stage) {
        let now = Instant::now();
        self.times[stage as usize] += now - self.last;
        self.last = now;
    }
}

/// What an engine takes as arguments, and the buffers of a worker.
struct Bench {
    keys: KeyRing,
    clock: HostClock,
    nonces: NonceGenerator,
    aead: Aead,
    buffers: Vec<[u8; DATAGRAM_BYTES]>,
}

impl Bench {
    fn new() -> Self {
        let mut nonces = NonceGenerator::from_seed(&[7; 32]);
        Self {
            keys: KeyRing::generate(Algorithm::AesSivCmac256, |bytes| nonces.fill(bytes)),
            clock: HostClock::declared(10).expect("a page"),
            nonces,
            aead: Aead::detect(),
            buffers: vec![[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS],
        }
    }

    /// One request of each client.
    fn requests(&mut self, kind: Kind, guard: Guard) -> Vec<Request> {
        let request = |_| {
            let source = SocketAddr::new(guard.address(self.number()), 40_000);
            Request { bytes: self.request(kind), source }
        };
        (0..CLIENTS).map(request).collect()
    }

    /// Everybody but so many networks at random.
    fn denied(&mut self, family: Family) -> NetworkSet {
        let all = ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a network"));
        let network = |_| {
            let (address, bits) = (family.any(self.number()), family.bits(self.number()));
            ipnet::IpNet::new_assert(address, bits).trunc()
        };
        let denied: Vec<ipnet::IpNet> = (0..NETWORKS).map(network).collect();
        NetworkSet::new(&all, &denied).expect("no network is in both")
    }

    fn number(&mut self) -> u64 {
        let mut random = [0; 8];
        self.nonces.fill(&mut random);
        u64::from_ne_bytes(random)
    }

    fn request(&mut self, kind: Kind) -> Vec<u8> {
        let (aead, cookies) = match kind {
            Kind::Nts(aead, cookies) => (aead, 9 - cookies),
            Kind::Plain | Kind::BadCookie => (Algorithm::AesSivCmac256, 8),
        };
        let mut pair = vec![0; 2 * aead.key_bytes()];
        self.nonces.fill(&mut pair);
        let (c2s, s2c) = pair.split_at(aead.key_bytes());
        let keys = ClientKeys::new(aead, c2s, s2c).expect("two keys of its length");
        let cookies: Vec<Vec<u8>> = (0..cookies).map(|_| self.cookie(&keys)).collect();
        let mut client = Association::new(keys, cookies.iter().map(Vec::as_slice));
        let mut request = vec![0; DATAGRAM_BYTES];
        let pending = client.request(&mut request, &mut self.nonces).expect("a cookie");
        request.truncate(pending.request_bytes);
        match kind {
            Kind::Plain => request.truncate(48),
            Kind::BadCookie => request[140] ^= 1,
            Kind::Nts(..) => {}
        }
        request
    }

    fn cookie(&mut self, keys: &ClientKeys) -> Vec<u8> {
        let master = self.keys.current();
        let mut cookie = vec![0; cookie_bytes(master.algorithm(), keys.algorithm())];
        let mut nonce = [0; 16];
        self.nonces.fill(&mut nonce);
        self.aead.make_cookies(&mut [format::prepare(&mut cookie, master, &nonce, keys)]);
        cookie
    }

    /// Nanoseconds a request, all clients as often as fit the window.
    fn window(&mut self, arm: &mut Arm) -> f64 {
        let (mut spent, mut answered) = (Duration::ZERO, 0);
        let Arm { engine, requests, kind, batch, .. } = arm;
        while spent < WINDOW {
            for clients in requests.chunks_exact(*batch) {
                spent += self.batch(clients, |batch, keys, clock, nonces| {
                    let verdicts = engine.answer(batch, keys, clock, nonces);
                    assert!(verdicts.iter().all(|verdict| verdict.outcome == kind.outcome()));
                });
                answered += clients.len();
            }
        }
        spent.as_nanos() as f64 / answered as f64
    }

    /// Copies requests into the buffers and measures what `answer` does with them.
    fn batch(
        &mut self,
        requests: &[Request],
        answer: impl FnOnce(&mut [Datagram<'_>], &KeyRing, &HostClock, &mut NonceGenerator),
    ) -> Duration {
        let mut batch: ArrayVec<Datagram<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
        for (request, buffer) in requests.iter().zip(&mut self.buffers) {
            let Request { bytes: request, source } = request;
            let bytes = &mut buffer[..request.len()];
            bytes.copy_from_slice(request);
            let (arrival, source) = (NtpTimestamp::ZERO, *source);
            batch.push(Datagram { bytes, arrival, source, truncated: false });
        }
        let start = Instant::now();
        answer(&mut batch, &self.keys, &self.clock, &mut self.nonces);
        start.elapsed()
    }
}

/// The request whose stages are shown.
const MOST_USUAL: Kind = Kind::Nts(Algorithm::AesSivCmac256, 1);

/// Different keys and cookies: beyond the first-level cache.
const CLIENTS: usize = 1024;

/// Networks in a set that is looked into: a long list.
const NETWORKS: usize = 100_000;

/// Long enough for the clock, short enough that a disturbance spoils one window only.
const WINDOW: Duration = Duration::from_millis(3);
