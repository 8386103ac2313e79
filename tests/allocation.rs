//! Nothing is allocated per packet: neither by the engine nor by the worker loop on real sockets.

// JUSTIFICATION: a global allocator is the only place that sees every allocation, and its trait is
// unsafe to implement.
#![allow(unsafe_code, reason = "a counting global allocator")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::server::udp_client;
use common::{Bench, NOW, nts_request, plain_request};
use timeball::aead::{Aead, Algorithm, Backend, NonceGenerator};
use timeball::client::{Association, Pending, ResponseError};
use timeball::clock::host::HostClock;
use timeball::cookie::ring::KeyRing;
use timeball::engine::Engine;
use timeball::engine::batch::Datagram;
use timeball::engine::rate::RateLimits;
use timeball::engine::terms::Terms;
use timeball::limits::clients::RATE_PER_SECOND;
use timeball::limits::{BATCH_DATAGRAMS, CLOCK_LOOK_INTERVAL, COOKIES_PER_REPLY, DATAGRAM_BYTES};
use timeball::net::Batch;
use timeball::net::mmsg::MmsgPort;
use timeball::net::worker::{Pulse, Worker};
use timeball::networks::NetworkSet;
use timeball::page::busiest::{BusiestPage, BusiestWriter};
use timeball::page::key::{KeyPage, SharedRing};
use timeball::page::stats::{StatsPage, StatsWriter, WorkerCounters};
use timeball::sys::socket::{UdpOptions, open_udp};
use timeball::wire::ntp::Mode;

/// The system's allocator, and a count for each thread that wants one.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Where this thread's allocations are counted. A constant without a destructor: reading it
    /// allocates nothing.
    static COUNTER: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

fn count_one() {
    if let Some(counter) = COUNTER.get() {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged, which keeps the contract of the
// trait; counting beside it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps `alloc`'s contract, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is the same there.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        count_one();
        // SAFETY: `block` came from the system's allocator, as all blocks here do, and the caller
        // keeps `realloc`'s contract.
        unsafe { System.realloc(block, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from the system's allocator, as all blocks here do.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs `work` and adds its allocations to `counter`.
fn counted<T>(counter: &'static AtomicU64, work: impl FnOnce() -> T) -> T {
    COUNTER.set(Some(counter));
    let result = work();
    COUNTER.set(None);
    result
}

/// Algorithms of clients.
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv];

/// Packets of every refusal that the engine knows; the last two get an NTS NAK, the others nothing.
fn junk(bench: &mut Bench) -> Vec<Vec<u8>> {
    let plain = plain_request(4, Mode::Client);
    let extended = |trailer: &[u8]| [&plain[..], trailer].concat();
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let (whole, _) = nts_request(&mut client, bench);
    let mut fields_missing = whole.clone();
    fields_missing.truncate(48 + 36);
    fields_missing.extend_from_slice(&[0x02, 0x04, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut lengths_wrong = whole.clone();
    let authenticator = whole.len() - 40;
    lengths_wrong[authenticator + 4..authenticator + 8].fill(0xff);
    let mut forged = whole.clone();
    forged[40] ^= 1;
    let mut cookie_unknown = whole;
    cookie_unknown[48 + 36 + 4] ^= 0x80;
    vec![
        Vec::new(),
        vec![0x23; 47],
        vec![0x23; 50],
        vec![0x23; DATAGRAM_BYTES + 1],
        plain_request(7, Mode::Client),
        plain_request(4, Mode::Server),
        extended(&[0; 20]),
        extended(&[
            0x01, 0x04, 0, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0,
        ]),
        fields_missing,
        lengths_wrong,
        forged,
        cookie_unknown,
    ]
}

#[test]
fn the_counter_counts() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    counted(&COUNTER, || {
        let mut text = black_box(String::with_capacity(1));
        text.push_str(black_box("longer than before"));
        black_box(vec![0_u8; black_box(100)]);
    });
    black_box(Box::new(1));
    assert_eq!(COUNTER.load(Ordering::Relaxed), 3, "with_capacity, growth, zeroed");
}

/// On every back end of this machine, under master keys of either algorithm, with an access list
/// and rate limits that none of the requests meets.
#[test]
fn the_engine_allocates_nothing() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    for backend in Backend::available() {
        for master in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
            let mut bench = Bench::new();
            let engine = Engine::new(Aead::with_backend(backend).expect("available"));
            bench.engine = engine.with_rate_limits([3, 5]);
            bench.engine.adopt(&terms());
            let Bench { keys, nonces, .. } = &mut bench;
            *keys = KeyRing::generate(master, |bytes| nonces.fill(bytes));
            answer_often(&mut bench, &COUNTER);
            let allocations = COUNTER.load(Ordering::Relaxed);
            assert_eq!(allocations, 0, "{backend} back end, {master} master keys");
        }
    }
}

fn terms() -> Terms {
    let most = Some(*RATE_PER_SECOND.end());
    let rates = RateLimits {
        requests_per_second: most,
        nts_requests_per_second: most,
        naks_per_second: most,
        cookie_uses_per_second: most,
        ..RateLimits::off()
    };
    let allow = ["192.0.2.0/24".parse().expect("a network")];
    Terms { access: NetworkSet::new(&allow, &[]).expect("one list").into(), rates }
}

/// Answers one batch of everything again and again and counts the allocations.
fn answer_often(bench: &mut Bench, counter: &'static AtomicU64) {
    let mut packets = junk(bench);
    for algorithm in ALGORITHMS {
        // With two cookies left, placeholders ask for six more.
        for cookies in [8, 2] {
            let mut client = bench.client(algorithm, cookies);
            packets.push(nts_request(&mut client, bench).0);
        }
    }
    packets.push(plain_request(3, Mode::SymmetricActive));
    assert!(packets.len() <= BATCH_DATAGRAMS);

    for _ in 0..100 {
        let mut buffers = packets.clone();
        let source = bench.source;
        let mut batch: Batch<'_> = buffers
            .iter_mut()
            .map(|bytes| {
                let truncated = bytes.len() > DATAGRAM_BYTES;
                Datagram { bytes, arrival: NOW, source, truncated }
            })
            .collect();
        let Bench { engine, keys, clock, nonces, .. } = &mut *bench;
        let verdicts = counted(counter, || engine.answer(&mut batch, keys, clock, nonces));
        let answered = verdicts.iter().filter(|verdict| verdict.reply_bytes > 0).count();
        // All but the junk, of which the last two get a NAK.
        assert_eq!(answered, 2 + 2 * ALGORITHMS.len() + 1);
        counted(counter, || engine.wipe());
    }
}

/// The loop of [`Worker::run`] on real sockets, IPv4 and IPv6, with everything that comes in.
#[test]
fn answering_over_sockets_allocates_nothing() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut bench = Bench::new();
    let mut server = Running::start(&bench, &COUNTER);
    let junk = junk(&mut bench);
    let mut clients: Vec<Client> = server
        .addresses
        .iter()
        .flat_map(|&address| ALGORITHMS.map(|algorithm| (address, algorithm)))
        .map(|(address, algorithm)| Client::new(address, bench.client(algorithm, 1)))
        .collect();

    // The first rounds fill the cookie stores and may allocate whatever a first use needs.
    for _ in 0..COOKIES_PER_REPLY {
        round(&mut bench, &mut clients, &junk);
    }
    let before = COUNTER.load(Ordering::Relaxed);
    for number in 0..400 {
        round(&mut bench, &mut clients, &junk);
        if number % 50 == 0 {
            // The worker takes the new ring before the next batch.
            let Bench { keys, nonces, .. } = &mut bench;
            keys.rotate(|bytes| nonces.fill(bytes));
            server.keys.publish(keys);
        }
        if number % 200 == 0 {
            // Idle for once: the loop waits, sweeps and wipes.
            std::thread::sleep(CLOCK_LOOK_INTERVAL + Duration::from_millis(100));
        }
    }
    let after = COUNTER.load(Ordering::Relaxed);
    let packets = 400 * clients.len() * (2 + junk.len());
    assert_eq!(after - before, 0, "allocations in {packets} packets and 8 rotations");
    let stats = server.stop();
    let answered = stats.totals().find(|(name, _)| *name == "answered_nts");
    let rounds = COOKIES_PER_REPLY + 400;
    assert_eq!(answered, Some(("answered_nts", (rounds * clients.len()) as u64)));
}

/// A worker in a thread of its own, which counts its allocations; ended when dropped.
struct Running {
    addresses: [SocketAddr; 2],
    keys: KeyPage,
    stats: StatsPage<WorkerCounters<'static>>,
    stop: Arc<AtomicBool>,
    wake: Option<std::io::PipeWriter>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(bench: &Bench, counter: &'static AtomicU64) -> Self {
        let sockets = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()].map(
            |address: SocketAddr| {
                open_udp(address, false, &UdpOptions::default()).expect("a socket")
            },
        );
        let addresses = [0, 1].map(|place: usize| sockets[place].local_addr().expect("bound"));
        let (wake, waker) = std::io::pipe().expect("a pipe");
        let keys = KeyPage::create(&bench.keys).expect("a page");
        let ring = SharedRing::open(keys.file()).expect("mapped");
        let stats = StatsPage::create().expect("a page");
        let writer = StatsWriter::attach(stats.file()).expect("mapped");
        let busiest = BusiestPage::create().expect("a page");
        let busiest = BusiestWriter::attach(busiest.file(), 1).expect("mapped");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let clock = HostClock::declared(10).expect("a page");
            let nonces = NonceGenerator::new().expect("random numbers");
            let engine = Engine::new(Aead::detect());
            let worker = Worker::new(engine, clock, ring, nonces, writer);
            let mut worker = worker.with_busiest(Some(busiest));
            let mut port = MmsgPort::new(sockets.into(), wake.into(), Duration::ZERO);
            counted(counter, || worker.run(&mut port, &stopped, &Pulse::default()));
        });
        Self { addresses, keys, stats, stop, wake: Some(waker), thread: Some(thread) }
    }
}

impl Running {
    /// Ends the worker and returns what it has counted.
    fn stop(self) -> StatsPage<WorkerCounters<'static>> {
        let stats = self.stats.file().try_clone_to_owned().expect("a descriptor");
        drop(self);
        StatsPage::open(stats).expect("a page")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Closed, the pipe is readable.
        drop(self.wake.take());
        if let Some(Err(_)) = self.thread.take().map(std::thread::JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("the worker panicked");
        }
    }
}

/// A client on a socket of its own.
struct Client {
    socket: UdpSocket,
    association: Association,
    pending: Option<Pending>,
}

impl Client {
    fn new(server: SocketAddr, association: Association) -> Self {
        Self { socket: udp_client(server), association, pending: None }
    }

    fn recv(&self) -> Vec<u8> {
        let mut reply = vec![0; DATAGRAM_BYTES];
        let reply_bytes = self.socket.recv(&mut reply).expect("a reply");
        reply.truncate(reply_bytes);
        reply
    }
}

/// Every client sends junk, a plain and an NTS request, so that batches are full; then each takes
/// its replies. The worker answers a socket in order, so with them the junk is done too.
fn round(bench: &mut Bench, clients: &mut [Client], junk: &[Vec<u8>]) {
    for client in &mut *clients {
        for packet in junk {
            client.socket.send(packet).expect("sent");
        }
        client.socket.send(&plain_request(4, Mode::Client)).expect("sent");
        let (request, pending) = nts_request(&mut client.association, bench);
        client.pending = Some(pending);
        client.socket.send(&request).expect("sent");
    }
    for client in clients {
        // Two NAKs for the junk.
        for _ in 0..2 {
            assert_eq!(&client.recv()[12..16], b"NTSN");
        }
        assert_eq!(client.recv().len(), 48);
        let pending = client.pending.take().expect("sent");
        let mut reply = client.recv();
        let header = client.association.response(&pending, &mut reply);
        assert_eq!(header.map(|header| header.stratum), Ok::<u8, ResponseError>(10));
    }
}
