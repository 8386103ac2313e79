//! What key establishment costs a server without its sockets: microseconds a handshake, of TLS
//! alone and of the records upon it.
//!
//! ```text
//! cargo bench --bench ke
//! cargo bench --bench ke -- --quick
//! cargo bench --bench ke -- --json             # for benches/versus/ke, which has the sockets
//! ```
//!
//! Both ends are in memory and in turn; the client's time is not counted. "TLS" is the library's
//! server taken through a handshake. "TLS + records" is our session: the same, with the request
//! read, keys derived, eight cookies made, and the answer sent. The arms take turns, handshake by
//! handshake; the median and quartiles of all are printed, so a preemption does not count.

mod common;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{host_facts, is_asked, publish, quartiles};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use timeball::aead::{Aead, Algorithm, MasterKey, NonceGenerator};
use timeball::certificate::self_signed;
use timeball::cookie::ring::KeyRing;
use timeball::ke::client::client_config;
use timeball::ke::cookies::{CookieError, CookieMaker, CookieSource, CookieVec};
use timeball::ke::exchange::Offer;
use timeball::ke::negotiate::Policy;
use timeball::ke::session::{Outcome, Services, Session};
use timeball::ke::tls::{CertificateStore, Pair, server_config};

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let handshakes = if is_asked("--quick") { 200 } else { 4000 };
    let mut bench = Bench::new();
    let (silent_bytes, established_bytes) = bench.idle();
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..handshakes {
        for place in 0..times.len() {
            let arm = (number + place) % times.len();
            let spent = match arm {
                0 => bench.tls(),
                1 => bench.session(),
                _ => bench.cookies(),
            };
            times[arm].push(spent.as_nanos() as f64 / 1e3);
        }
    }
    let rows = times.map(|times| quartiles(&times));
    if is_asked("--json") {
        let (tls, session) = (rows[0].0, rows[1].0);
        println!(
            "{{\"tls_us\":{tls:.2},\"session_us\":{session:.2},\
             \"established_bytes\":{established_bytes:.0}}}"
        );
        return;
    }
    let mut table = host_facts();
    table += &format!("set       {handshakes} handshakes an arm, ECDSA P-256, X25519\n\n");
    table += &format!("{:<28} {:>12} {:>15}\n", "", "us/handshake", "quartiles");
    let names = ["TLS", "TLS + records", "of that, making 8 cookies"];
    for (name, (median, low, high)) in names.into_iter().zip(rows) {
        let quartiles = format!("{low:.1}-{high:.1}");
        table += &format!("{name:<28} {median:>12.1} {quartiles:>15}\n");
    }
    table += &format!(
        "\nmemory of a session that waits for its ClientHello {silent_bytes:.0} bytes, \
         for its request {established_bytes:.0} bytes\n"
    );
    publish(&table);
}

struct Bench {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    policy: Policy,
    cookies: RingCookies,
}

impl Bench {
    fn new() -> Self {
        let now = time::OffsetDateTime::now_utc();
        let pair = self_signed(&["localhost".to_owned()], time::Duration::days(1), now);
        let pair = pair.expect("a certificate");
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes());
        roots.add(certificate.expect("PEM")).expect("a certificate");
        let (chain, key) = (pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes());
        let pair = Pair::from_pem(chain, key, Path::new("-"), Path::new("-")).expect("a pair");
        let store = CertificateStore::new(vec![pair]).expect("a store");
        Self {
            server: server_config(Arc::new(store)).expect("TLS 1.3"),
            client: client_config(Arc::new(roots)),
            policy: Policy::default(),
            cookies: RingCookies::new(),
        }
    }

    fn client(&self) -> ClientConnection {
        let name = "localhost".try_into().expect("a name");
        ClientConnection::new(Arc::clone(&self.client), name).expect("TLS 1.3")
    }

    /// A handshake of the library's server.
    fn tls(&mut self) -> Duration {
        let mut client = self.client();
        let hello = output(&mut client);
        let begin = Instant::now();
        let mut server = ServerConnection::new(Arc::clone(&self.server)).expect("TLS 1.3");
        server.read_tls(&mut &hello[..]).expect("room");
        server.process_new_packets().expect("a ClientHello");
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).expect("memory");
        }
        let mut spent = begin.elapsed();
        input(&mut client, &flight);
        let finished = output(&mut client);
        let begin = Instant::now();
        server.read_tls(&mut &finished[..]).expect("room");
        server.process_new_packets().expect("Finished");
        spent += begin.elapsed();
        assert!(!server.is_handshaking());
        spent
    }

    /// The same with our session, from nothing to the last byte of the answer.
    fn session(&mut self) -> Duration {
        let mut request = Vec::new();
        Offer::default().emit(&mut request).expect("short");
        let (session, spent) = self.session_asked(&request);
        assert!(matches!(session.outcome(), Some(Outcome::Served { .. })));
        spent
    }

    /// A session whose client has sent `request` with the end of the handshake, and the time spent.
    fn session_asked(&mut self, request: &[u8]) -> (Session, Duration) {
        let mut client = self.client();
        client.writer().write_all(request).expect("room");
        let hello = output(&mut client);
        let (tls, policy, cookies) = (&self.server, &self.policy, &mut self.cookies);
        let mut services = Services { tls, policy, cookies };
        let begin = Instant::now();
        let mut session = new_session();
        session.receive(&hello, &mut services);
        let mut flight = Vec::new();
        while session.has_output() {
            session.send(&mut flight).expect("memory");
        }
        let mut spent = begin.elapsed();
        input(&mut client, &flight);
        let finished = output(&mut client);
        let begin = Instant::now();
        session.receive(&finished, &mut services);
        let mut answer = Vec::new();
        while session.has_output() {
            session.send(&mut answer).expect("memory");
        }
        spent += begin.elapsed();
        (session, spent)
    }

    /// Memory of a session before its ClientHello, and of one that is done with the handshake, in
    /// bytes: what many of them add to the process.
    fn idle(&mut self) -> (f64, f64) {
        for _ in 0..IDLE_SESSIONS / 10 {
            self.session();
        }
        let before = resident_bytes();
        let silent: Vec<Session> = (0..IDLE_SESSIONS).map(|_| new_session()).collect();
        let between = resident_bytes();
        let established: Vec<Session> =
            (0..IDLE_SESSIONS).map(|_| self.session_asked(&[]).0).collect();
        let after = resident_bytes();
        assert!(silent.iter().chain(&established).all(|session| session.outcome().is_none()));
        let each = |begin: f64, end: f64| (end - begin) / IDLE_SESSIONS as f64;
        (each(before, between), each(between, after))
    }

    fn cookies(&mut self) -> Duration {
        let mut out = CookieVec::new();
        let begin = Instant::now();
        let made = self.cookies.cookies(Algorithm::AesSivCmac256, &[1; 32], &[2; 32], &mut out);
        let spent = begin.elapsed();
        assert!(made.is_ok() && out.len() == 8);
        spent
    }
}

/// Enough that pages and what the allocator keeps do not matter.
const IDLE_SESSIONS: usize = 4000;

fn new_session() -> Session {
    Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now() + Duration::from_secs(3600))
}

/// Memory that is this process's own (proc_pid_status(5)).
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024.0
}

fn output(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

fn input(client: &mut ClientConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("room");
        client.process_new_packets().expect("the server's flight");
    }
}

/// Cookies under a ring of the bench's own.
struct RingCookies {
    ring: KeyRing,
    maker: CookieMaker,
}

impl RingCookies {
    fn new() -> Self {
        let mut nonces = NonceGenerator::new().expect("random numbers");
        let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| nonces.fill(bytes));
        Self { ring, maker: CookieMaker::new(Aead::detect(), nonces) }
    }
}

impl CookieSource for RingCookies {
    fn cookies(
        &mut self,
        algorithm: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        let master: &MasterKey = self.ring.current();
        self.maker.make(master, algorithm, c2s, s2c, out)
    }
}
