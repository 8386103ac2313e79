//! A server with faults on purpose: timeball's engine, and what becomes of its answers in turn.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::clock::SimulatedClock;
use timeball::cookie::ring::KeyRing;
use timeball::engine::Engine;
use timeball::engine::batch::Datagram;
use timeball::limits::DATAGRAM_BYTES;
use timeball::sys::message::Envelope;
use timeball::sys::mmsg;
use timeball::sys::socket::{UdpOptions, open_udp};
use timeball::wire::ntp::HEADER_BYTES;
use timeball::wire::nts::{Direction, Trailer, find};
use timeball::wire::timestamp::NtpTimestamp;

/// What becomes of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test file uses all of them")]
pub(crate) enum Fate {
    Answer,
    Lose,
    Duplicate,
    /// One and a half timeouts.
    Delay,
    /// Three timeouts.
    DelayForLong,
    FlipTag,
    FlipIdentifier,
    FlipOrigin,
    FlipMode,
    Truncate,
    Lengthen,
    /// The authenticator says that its nonce is longer than itself.
    BreakFields,
    OtherPort,
    Nak,
    /// Of a plain server.
    Kiss,
    /// In interleaved mode if it was asked so, else in basic mode. Of a plain server.
    Interleave,
}

/// The running server; ends when dropped.
pub(crate) struct Faulty {
    pub(crate) address: SocketAddr,
    pub(crate) ring: KeyRing,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    addresses: HashSet<std::net::IpAddr>,
    ports: HashSet<u16>,
    cookies: HashSet<Vec<u8>>,
    cookies_repeated: u64,
    /// Receive timestamps of answers, until a request returns them.
    received: HashSet<[u8; 8]>,
    interleaved: u64,
    stalls: Vec<Duration>,
    /// From each request's arrival, by the kernel's stamp, to its answer, without the delay that
    /// was meant.
    lateness: Vec<Duration>,
}

#[allow(dead_code, reason = "not every test file uses all of it")]
impl Faulty {
    /// The fates befall the requests of a round one after the other.
    pub(crate) fn start(fates: &[Fate]) -> Self {
        Self::start_with(fates.to_vec(), None)
    }

    /// Answers everything, but does nothing for `stall` in every `period`.
    pub(crate) fn stalling(stall: Duration, period: Duration) -> Self {
        Self::start_with(vec![Fate::Answer], Some((stall, period)))
    }

    fn start_with(fates: Vec<Fate>, stalling: Option<(Duration, Duration)>) -> Self {
        // Room for what comes in while the server is kept from running.
        let options = UdpOptions { receive_buffer_bytes: 8 << 20, ..UdpOptions::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = open_udp(any, false, &options).expect("a socket");
        let address = socket.local_addr().expect("bound");
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut service = Service::new(socket, fates, Arc::clone(&seen));
        let is_stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || service.run(&is_stopped, stalling));
        Self { address, ring: ring(), stop, seen, thread: Some(thread) }
    }

    /// How many client addresses and ports there were.
    pub(crate) fn seen(&self) -> (usize, usize) {
        let seen = self.seen.lock().expect("no panic");
        (seen.addresses.len(), seen.ports.len())
    }

    /// Requests with a cookie that an earlier one had.
    pub(crate) fn cookies_repeated(&self) -> u64 {
        self.seen.lock().expect("no panic").cookies_repeated
    }

    /// Interleaved requests, each with a receive timestamp of its own.
    pub(crate) fn interleaved(&self) -> u64 {
        self.seen.lock().expect("no panic").interleaved
    }

    /// How long requests waited for their answer beyond what was meant, ascending.
    pub(crate) fn lateness(&self) -> Vec<Duration> {
        let mut lateness = self.seen.lock().expect("no panic").lateness.clone();
        lateness.sort_unstable();
        lateness
    }

    /// How long it really stalled each time.
    pub(crate) fn stalls(&self) -> Vec<Duration> {
        self.seen.lock().expect("no panic").stalls.clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().map(JoinHandle::join);
        assert!(matches!(result, Some(Ok(()))) || thread::panicking(), "the server panicked");
    }
}

fn ring() -> KeyRing {
    let mut random = NonceGenerator::from_seed(&[42; 32]);
    KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes))
}

struct Service {
    socket: UdpSocket,
    other: UdpSocket,
    fates: Vec<Fate>,
    seen: Arc<Mutex<Seen>>,
    engine: Engine,
    ring: KeyRing,
    nonces: NonceGenerator,
    clock: SimulatedClock,
    requests: usize,
    delayed: Vec<Delayed>,
}

struct Delayed {
    when: Instant,
    arrival: NtpTimestamp,
    meant: Duration,
    reply: Vec<u8>,
    client: SocketAddr,
}

impl Service {
    fn new(socket: UdpSocket, fates: Vec<Fate>, seen: Arc<Mutex<Seen>>) -> Self {
        Self {
            socket,
            other: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            fates,
            seen,
            engine: Engine::new(Aead::detect()),
            ring: ring(),
            nonces: NonceGenerator::from_seed(&[1; 32]),
            clock: SimulatedClock::synchronised(NtpTimestamp::from_unix(1_800_000_000, 0)),
            requests: 0,
            delayed: Vec::new(),
        }
    }

    fn run(&mut self, stop: &AtomicBool, stalling: Option<(Duration, Duration)>) {
        let begin = Instant::now();
        let mut periods = 1;
        let mut payloads = [[0; DATAGRAM_BYTES]];
        let mut envelopes = [Envelope::EMPTY];
        while !stop.load(Ordering::Relaxed) {
            if let Some((stall, period)) = stalling
                && begin.elapsed() >= period * periods
            {
                let start = Instant::now();
                thread::sleep(stall);
                periods += 1;
                // A tick that was due long ago is part of this stall.
                self.seen.lock().expect("no panic").stalls.push(start.elapsed());
            }
            match mmsg::recv(self.socket.as_fd(), &mut payloads, &mut envelopes) {
                Ok(_) => {
                    let [envelope] = &mut envelopes;
                    let (client, bytes) = (envelope.peer(), envelope.payload_bytes);
                    let arrival = envelope.turn().arrival.expect("the kernel stamps");
                    self.note(&payloads[0][..bytes], client);
                    self.serve(&mut payloads[0], bytes, client, arrival);
                }
                Err(_) => {
                    let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                    let interests = &mut [PollFd::new(&self.socket, PollFlags::IN)];
                    let _ = poll(interests, Some(&timeout));
                }
            }
            let now = Instant::now();
            let due: Vec<_> = self.delayed.extract_if(.., |delayed| delayed.when <= now).collect();
            for delayed in due {
                self.socket.send_to(&delayed.reply, delayed.client).expect("sent");
                self.note_sent(delayed.arrival, delayed.meant);
            }
        }
    }

    fn note(&self, request: &[u8], client: SocketAddr) {
        let mut seen = self.seen.lock().expect("no panic");
        seen.addresses.insert(client.ip());
        seen.ports.insert(client.port());
        if let Trailer::Nts(fields) = find(request, Direction::Request) {
            let is_new = seen.cookies.insert(request[fields.cookie.range()].to_vec());
            seen.cookies_repeated += u64::from(!is_new);
        }
    }

    fn note_sent(&self, arrival: NtpTimestamp, meant: Duration) {
        let now = clock_gettime(ClockId::Realtime);
        let now = NtpTimestamp::from_unix(now.tv_sec, now.tv_nsec as u32);
        let waited = Duration::from_secs_f64(now.seconds_since_f64(arrival).max(0.0));
        self.seen.lock().expect("no panic").lateness.push(waited.saturating_sub(meant));
    }

    fn serve(
        &mut self,
        buffer: &mut [u8],
        bytes: usize,
        client: SocketAddr,
        arrival: NtpTimestamp,
    ) {
        let fate = self.fates[self.requests % self.fates.len()];
        self.requests += 1;
        if fate == Fate::Nak {
            let Trailer::Nts(fields) = find(&buffer[..bytes], Direction::Request) else {
                panic!("no NTS request")
            };
            buffer[fields.cookie.end() - 1] ^= 1;
        }
        let request = buffer[..HEADER_BYTES].to_vec();
        let is_interleaving = fate == Fate::Interleave;
        let datagram = Datagram {
            bytes: &mut buffer[..bytes],
            // No two have the same from the kernel.
            arrival: if is_interleaving { arrival } else { self.clock.now },
            source: client,
            truncated: false,
        };
        let verdicts =
            self.engine.answer(&mut [datagram], &self.ring, &self.clock, &mut self.nonces);
        let reply_bytes = usize::from(verdicts[0].reply_bytes);
        assert!(reply_bytes > 0, "{:?}", verdicts[0]);
        let mut reply = buffer[..reply_bytes].to_vec();
        match fate {
            Fate::Answer | Fate::Nak | Fate::Duplicate | Fate::OtherPort => {}
            Fate::Lose => return,
            Fate::Delay | Fate::DelayForLong => {
                let halves = if fate == Fate::Delay { 3 } else { 6 };
                let meant = halves * super::TIMEOUT / 2;
                let when = Instant::now() + meant;
                self.delayed.push(Delayed { when, arrival, meant, reply, client });
                return;
            }
            Fate::FlipTag => *reply.last_mut().expect("bytes") ^= 1,
            Fate::FlipIdentifier => reply[60] ^= 1,
            Fate::FlipOrigin => reply[24..32].iter_mut().for_each(|byte| *byte ^= 0x5a),
            Fate::FlipMode => reply[0] ^= 1,
            Fate::Truncate => reply.truncate(47),
            Fate::Lengthen => reply.resize(bytes + 4, 0),
            Fate::BreakFields => {
                let Trailer::Nts(fields) = find(&reply, Direction::Response) else {
                    panic!("no NTS response")
                };
                reply[fields.authenticator.start + 4] = 0xff;
            }
            Fate::Interleave => self.interleave(&request, &mut reply),
            Fate::Kiss => {
                reply[1] = 0;
                reply[12..16].copy_from_slice(b"RATE");
            }
        }
        let socket = if fate == Fate::OtherPort { &self.other } else { &self.socket };
        socket.send_to(&reply, client).expect("sent");
        if fate == Fate::Duplicate {
            socket.send_to(&reply, client).expect("sent");
        }
        self.note_sent(arrival, Duration::ZERO);
    }

    /// The fields as RFC 9769 section 2 has them: an interleaved answer returns the request's
    /// receive timestamp, and each receive timestamp of ours is good for one of them.
    fn interleave(&self, request: &[u8], reply: &mut [u8]) {
        let field = |place: usize| request[place..place + 8].first_chunk::<8>().expect("eight");
        let (origin, receive, transmit) = (field(24), field(32), field(40));
        let mut seen = self.seen.lock().expect("no panic");
        if *origin != [0; 8] {
            assert!(seen.received.remove(origin), "a receive timestamp of an answer, once");
            assert_ne!(receive, transmit, "this tells the modes apart");
            seen.interleaved += 1;
            reply[24..32].copy_from_slice(receive);
        }
        seen.received.insert(*reply[32..40].first_chunk().expect("eight"));
    }
}
