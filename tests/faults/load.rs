//! Clients that go on asking while something happens to the server, and what they saw.

use std::net::{SocketAddr, UdpSocket};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::{Association, ResponseError};
use timeball::cookie::format::ClientKeys;
use timeball::ke::client::{Established, Options, establish};
use timeball::limits::DATAGRAM_BYTES;

use super::common::server::{Server, wait_until};

/// Clients that ask for the time, each one request after the other.
pub const NTS_CLIENTS: usize = 2;
/// Clients that do key establishment, each one handshake after the other.
pub const KE_CLIENTS: usize = 2;

/// An answer that takes longer is lost: as long as chrony waits for one.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// A client that was refused does not ask again at once.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// Successes of each client before and after a fault.
const SUCCESSES: u64 = 20;

/// What the clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Authentic answers.
    pub answered: u64,
    /// Requests without one.
    pub lost: u64,
    /// Requests refused as those of a stranger.
    pub naks: u64,
    /// Handshakes that brought cookies.
    pub handshakes: u64,
    /// Handshakes that did not.
    pub failed: u64,
    /// The longest time that one client was without an answer.
    pub nts_gap: Duration,
    /// The longest time that one client was without a handshake.
    pub ke_gap: Duration,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.naks += other.naks;
        self.handshakes += other.handshakes;
        self.failed += other.failed;
        self.nts_gap = self.nts_gap.max(other.nts_gap);
        self.ke_gap = self.ke_gap.max(other.ke_gap);
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(Arc<AtomicU64>, JoinHandle<Seen>)>,
}

impl Load {
    /// Clients of both kinds. `trusted` are the certificates that they accept.
    pub fn start(server: &Server, trusted: &Options) -> Self {
        Self::of(server, trusted, NTS_CLIENTS, KE_CLIENTS)
    }

    /// Clients that ask for the time alone.
    pub fn start_nts(server: &Server, trusted: &Options) -> Self {
        Self::of(server, trusted, NTS_CLIENTS, 0)
    }

    fn of(server: &Server, trusted: &Options, nts: usize, ke: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..nts + ke {
            let successes = Arc::new(AtomicU64::new(0));
            let client = Client {
                stop: Arc::clone(&stop),
                successes: Arc::clone(&successes),
                options: trusted.clone(),
                ntp: server.ntp(),
                seen: Seen::default(),
                last: Instant::now(),
            };
            let work = if number < nts { Client::ask_for_time } else { Client::establish };
            clients.push((successes, thread::spawn(move || work(client))));
        }
        let load = Self { stop, clients };
        load.wait_for_successes();
        load
    }

    /// Waits until every client has had some more successes.
    pub fn wait_for_successes(&self) {
        let before: Vec<u64> = self.successes().collect();
        wait_until("every client is served", || {
            self.successes().zip(&before).all(|(now, before)| now >= before + SUCCESSES)
        });
    }

    /// Waits until every client is served again, and lets them go.
    pub fn finish(self) -> Seen {
        self.wait_for_successes();
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for (_, client) in self.clients {
            seen += client.join().expect("a client that panicked");
        }
        seen
    }

    fn successes(&self) -> impl Iterator<Item = u64> {
        self.clients.iter().map(|(successes, _)| successes.load(Ordering::Relaxed))
    }
}

struct Client {
    stop: Arc<AtomicBool>,
    successes: Arc<AtomicU64>,
    options: Options,
    ntp: SocketAddr,
    seen: Seen,
    /// When the last success was.
    last: Instant,
}

impl Client {
    fn establish(mut self) -> Seen {
        self.last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            match establish(&self.options) {
                Ok(_) => {
                    self.seen.handshakes += 1;
                    self.seen.ke_gap = self.seen.ke_gap.max(self.succeed());
                }
                Err(error) => {
                    eprintln!("a handshake failed: {error}");
                    self.seen.failed += 1;
                    thread::sleep(PAUSE_AFTER_FAILURE);
                }
            }
        }
        self.seen
    }

    fn ask_for_time(mut self) -> Seen {
        let mut random = NonceGenerator::new().expect("random numbers");
        let mut association = associate(&establish(&self.options).expect("cookies"));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(self.ntp).expect("connected");
        self.last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            match ask(&socket, &mut association, &mut random) {
                Some(Ok(())) => {
                    self.seen.answered += 1;
                    self.seen.nts_gap = self.seen.nts_gap.max(self.succeed());
                }
                Some(Err(ResponseError::Nak)) => self.seen.naks += 1,
                _ => {
                    self.seen.lost += 1;
                    thread::sleep(PAUSE_AFTER_FAILURE);
                }
            }
            if association.cookies() == 0 {
                // As a client does that was without its server for too long.
                if let Ok(established) = establish(&self.options) {
                    association = associate(&established);
                }
            }
        }
        self.seen
    }

    /// Counts a success; returns the time since the last one.
    fn succeed(&mut self) -> Duration {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let gap = self.last.elapsed();
        self.last = Instant::now();
        gap
    }
}

/// What key establishment brought, as an association.
pub fn associate(established: &Established) -> Association {
    let (c2s, s2c) = (established.keys.c2s(), established.keys.s2c());
    let keys = ClientKeys::new(Algorithm::AesSivCmac256, c2s, s2c).expect("lengths fit");
    Association::new(keys, established.agreed.cookies.iter().map(|cookie| cookie.as_slice()))
}

/// One request and its answer; `None` when none came.
fn ask(
    socket: &UdpSocket,
    association: &mut Association,
    random: &mut NonceGenerator,
) -> Option<Result<(), ResponseError>> {
    let mut buffer = [0; DATAGRAM_BYTES];
    let pending = association.request(&mut buffer, random).ok()?;
    socket.send(&buffer[..pending.request_bytes]).ok()?;
    let deadline = Instant::now() + LOST_AFTER;
    loop {
        let time_left = deadline.saturating_duration_since(Instant::now());
        if time_left.is_zero() {
            return None;
        }
        socket.set_read_timeout(Some(time_left)).expect("a time limit");
        let bytes = socket.recv(&mut buffer).ok()?;
        match association.response(&pending, &mut buffer[..bytes]) {
            Ok(_) => return Some(Ok(())),
            // The late answer to a request that was given up.
            Err(ResponseError::Unrelated) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Sends `count` requests at once, and reads nothing yet.
pub fn send_burst(socket: &UdpSocket, established: &Established, count: usize) -> Vec<Asked> {
    let mut random = NonceGenerator::new().expect("random numbers");
    (0..count)
        .map(|_| {
            let mut association = associate(established);
            let mut buffer = [0; DATAGRAM_BYTES];
            let pending = association.request(&mut buffer, &mut random).expect("cookies");
            socket.send(&buffer[..pending.request_bytes]).expect("sent");
            (association, pending)
        })
        .collect()
}

/// A request that was sent, and by whom.
pub type Asked = (Association, timeball::client::Pending);

/// How many of a burst's requests are answered.
pub fn answers(socket: &UdpSocket, burst: Vec<Asked>) -> usize {
    socket.set_read_timeout(Some(LOST_AFTER)).expect("a time limit");
    let mut waiting = burst;
    let sent = waiting.len();
    let mut buffer = [0; DATAGRAM_BYTES];
    while !waiting.is_empty() {
        let Ok(bytes) = socket.recv(&mut buffer) else { break };
        let answered = waiting.iter_mut().position(|(association, pending)| {
            association.response(pending, &mut { buffer }[..bytes]).is_ok()
        });
        waiting.swap_remove(answered.expect("an answer to what was asked"));
    }
    sent - waiting.len()
}
