//! `Engine::answer` without I/O: nanoseconds a request, by kind, batch size and stage.
//!
//! ```text
//! cargo bench --bench engine
//! cargo bench --bench engine -- --quick
//! cargo bench --bench engine -- --record NAME
//! ```
//!
//! Requests come from 1024 clients in turn, each with keys and cookies of its own. They are copied
//! into the 32 buffers of a worker before each batch, outside of the measured time, because their
//! replies are written over them. Arms take turns within a round and each round starts with
//! another; median and quartiles over the rounds are printed.

mod common;

use std::fmt::Write as _;
use std::net::SocketAddr;
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
use timeball::engine::{Engine, Observer, Stage};
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::wire::timestamp::NtpTimestamp;

fn main() {
    let rounds = if is_asked("--quick") { 7 } else { 41 };
    let mut bench = Bench::new();
    let mut arms = arms(&mut bench);
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
        "{:<22} {:<10} {:>5} {:>11} {:>15}",
        "request", "back end", "batch", "ns/request", "quartiles"
    );
    for arm in &arms {
        let (median, low, high) = quartiles(&arm.times);
        let _ = writeln!(
            table,
            "{:<22} {:<10} {:>5} {median:>11.1} {:>15}",
            arm.kind.name(),
            arm.backend.to_string(),
            arm.batch,
            format!("{low:.1}-{high:.1}"),
        );
    }
    stages(&mut bench, rounds, &mut table);
    publish(&table);
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

/// One row of the table.
struct Arm {
    kind: Kind,
    backend: Backend,
    batch: usize,
    engine: Engine,
    requests: Vec<Vec<u8>>,
    times: Vec<f64>,
}

fn arms(bench: &mut Bench) -> Vec<Arm> {
    let widest = Aead::detect().backend();
    let mut rows = vec![(Kind::Plain, widest, 32), (Kind::BadCookie, widest, 32)];
    for aead in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
        let kind = Kind::Nts(aead, 1);
        rows.extend(Backend::available().into_iter().map(|backend| (kind, backend, 32)));
        rows.extend([1, 2, 4, 8, 16].map(|batch| (kind, widest, batch)));
        rows.push((Kind::Nts(aead, 8), widest, 32));
    }
    rows.into_iter()
        .map(|(kind, backend, batch)| Arm {
            kind,
            backend,
            batch,
            engine: Engine::new(Aead::with_backend(backend).expect("available")),
            requests: bench.requests(kind),
            times: Vec::new(),
        })
        .collect()
}

/// The stages of the most usual request, each with the time of its own.
fn stages(bench: &mut Bench, rounds: usize, table: &mut String) {
    let mut engine = Engine::new(Aead::detect());
    let requests = bench.requests(MOST_USUAL);
    let mut split = Split { last: Instant::now(), times: [Duration::ZERO; 6] };
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
    let names = ["parse", "unlock", "verify", "renew", "stamp", "seal"];
    for (name, time) in names.iter().zip(split.times) {
        let _ = writeln!(table, "  {name:<8} {:>6.1} ns", time.as_nanos() as f64 / answered as f64);
    }
}

struct Split {
    last: Instant,
    times: [Duration; 6],
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
    fn requests(&mut self, kind: Kind) -> Vec<Vec<u8>> {
        (0..CLIENTS).map(|_| self.request(kind)).collect()
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
        requests: &[Vec<u8>],
        answer: impl FnOnce(&mut [Datagram<'_>], &KeyRing, &HostClock, &mut NonceGenerator),
    ) -> Duration {
        let source = SocketAddr::from(([192, 0, 2, 7], 40_000));
        let mut batch: ArrayVec<Datagram<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
        for (request, buffer) in requests.iter().zip(&mut self.buffers) {
            let bytes = &mut buffer[..request.len()];
            bytes.copy_from_slice(request);
            batch.push(Datagram { bytes, arrival: NtpTimestamp::ZERO, source, truncated: false });
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

/// Long enough for the clock, short enough that a disturbance spoils one window only.
const WINDOW: Duration = Duration::from_millis(3);
