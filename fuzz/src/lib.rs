//! What each fuzz target does with its input. Also part of `tests/fuzz_seeds.rs`, which gives it
//! the committed seeds, so that an ordinary `cargo test` runs the same code.
//!
//! Keys and randomness are constants: an input always does the same, and the seeds can hold
//! messages that are authentic.

mod backends;
mod session;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use backends::aead_backends;
pub use session::ke_session;

use timeball::aead::{Aead, Algorithm, NonceGenerator, TAG_BYTES, seal_one};
use timeball::client::{Association, Pending, ResponseError};
use timeball::clock::SimulatedClock;
use timeball::clock::follow::{Answer, Follower, Sample};
use timeball::clock::record::Moment;
use timeball::config::checked::parse as parse_configuration;
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ntskeys as key_file;
use timeball::cookie::ring::KeyRing;
use timeball::engine::Engine;
use timeball::engine::batch::{Datagram, Verdicts};
use timeball::engine::outcome::Outcome;
use timeball::engine::rate::RateLimits;
use timeball::engine::terms::Terms;
use timeball::limits::clients::RATE_PER_SECOND;
use timeball::limits::{
    BATCH_DATAGRAMS, COOKIES_PER_REPLY, DATAGRAM_BYTES, KE_REQUEST_BYTES_MAX, NTP_PORT,
};
use timeball::networks::NetworkSet;
use timeball::process::control::{Request as ControlRequest, RequestError as ControlError};
use timeball::wire::candm::{SMOOTHING_BYTES, TRACKING_BYTES, parse_smoothing, parse_tracking};
use timeball::wire::ke::{Progress, Records, Request, RequestError, Response, Scanner};
use timeball::wire::ntp::{HEADER_BYTES, Header, Mode};
use timeball::wire::nts::{AuthenticatorLayout, Direction, Trailer, find};
use timeball::wire::timestamp::NtpTimestamp;

/// A batch for the engine: each datagram is led by two bytes, its length in the low 12 bits. Bit
/// 15 says that the kernel cut it off, bit 14 that it came from port 123, bit 13 that it is what
/// an authentic request encloses, encrypted, bit 12 that it came from a network without access.
/// Every client has the least budgets that there are, and is told beyond them. The batch comes
/// twice, so that a request can name a reply of the first time. Returns what has become of each
/// datagram, and how many replies were in interleaved mode.
///
/// # Panics
/// If a reply is longer than its request or answers a reply, a datagram stays undecided or is not
/// counted once, a reply is authenticated whose request is none of [`genuine_requests`], anything
/// is in the clear but a header and the request's identifier, or the timestamps of a reply are of
/// no mode.
pub fn ntp_request(input: &[u8]) -> (Vec<Outcome>, u64) {
    let mut world = World::new();
    let mut outcomes = answer_and_check(&mut world, input);
    outcomes.extend(answer_and_check(&mut world, input));
    (outcomes, world.engine.counters().answered_interleaved)
}

fn answer_and_check(world: &mut World, input: &[u8]) -> Vec<Outcome> {
    let mut packets = split_batch(input);
    let requests: Vec<Vec<u8>> = packets.iter().map(|packet| packet.bytes.clone()).collect();
    let counted_before = world.counts();
    let verdicts = world.answer(&mut packets);
    assert_eq!(verdicts.len(), packets.len());
    for (outcome, (before, after)) in
        Outcome::ALL.iter().zip(counted_before.into_iter().zip(world.counts()))
    {
        let decided = verdicts.iter().filter(|verdict| verdict.outcome == *outcome).count();
        assert_eq!(after - before, decided as u64, "{}", outcome.name());
    }
    for ((request, packet), verdict) in requests.iter().zip(&packets).zip(&verdicts) {
        let reply_bytes = usize::from(verdict.reply_bytes);
        assert!(reply_bytes <= request.len());
        assert_ne!(verdict.outcome, Outcome::Undecided);
        let answered = matches!(
            verdict.outcome,
            Outcome::AnsweredPlain
                | Outcome::AnsweredNts
                | Outcome::NtsNak
                | Outcome::KissRate
                | Outcome::KissRateNts
        );
        assert_eq!(answered, reply_bytes > 0);
        assert_eq!(packet.is_denied(), verdict.outcome == Outcome::DroppedDenied);
        if !answered {
            continue;
        }
        let reply = &packet.bytes[..reply_bytes];
        let header = Header::parse(reply).expect("a reply has a header");
        assert!(matches!(header.mode, Mode::Server | Mode::SymmetricPassive));
        let asked = Header::parse(request).expect("it was answered");
        assert!(matches!(asked.mode, Mode::Client | Mode::SymmetricActive | Mode::Reserved));
        check_timestamps(&asked, &header);
        check_clear_text(request, reply);
        if let Some(ticket) = verdict.departure {
            // What the kernel tells may be anything.
            world.engine.departed(ticket, header.origin_timestamp);
            world.engine.departed(ticket, NOW.plus(100_000));
        }
        let is_sealed = matches!(find(reply, Direction::Response), Trailer::Nts(_));
        let is_nts = matches!(verdict.outcome, Outcome::AnsweredNts | Outcome::KissRateNts);
        assert_eq!(is_sealed, is_nts);
        if is_sealed {
            let mut genuine = genuine_requests().iter();
            assert!(genuine.any(|genuine| is_authentic_copy(request, genuine)));
        }
    }
    verdicts.iter().map(|verdict| verdict.outcome).collect()
}

/// A reply shows its header and the identifier of its request, which stands where an authenticator
/// may follow: no cookie is in the clear, and nothing of another datagram.
fn check_clear_text(request: &[u8], reply: &[u8]) {
    let identifier = match find(request, Direction::Request) {
        Trailer::UniqueIdentifierOnly(identifier) => identifier.range(),
        Trailer::Nts(fields) => fields.unique_identifier.range(),
        Trailer::Plain | Trailer::Refused(_) => 0..0,
    };
    let clear = match find(reply, Direction::Response) {
        Trailer::Nts(fields) => &reply[HEADER_BYTES..fields.authenticator.start],
        _ => &reply[HEADER_BYTES..],
    };
    assert_eq!(clear, &request[identifier]);
}

/// The rules of RFC 9769 section 2: which mode a reply is in can be told, and it is basic unless
/// the request asks for interleaved mode.
fn check_timestamps(request: &Header, reply: &Header) {
    assert_ne!(reply.receive_timestamp, reply.transmit_timestamp);
    let can_be_interleaved = request.version == 4
        && request.mode == Mode::Client
        && request.receive_timestamp != request.transmit_timestamp;
    let is_interleaved = can_be_interleaved && reply.origin_timestamp == request.receive_timestamp;
    assert!(is_interleaved || reply.origin_timestamp == request.transmit_timestamp);
}

/// A datagram for a waiting client; the first byte chooses which of [`genuine_replies`] it waits
/// for, and its bit 7 says that the datagram is what that reply encloses, encrypted. Returns
/// whether it was taken.
///
/// # Panics
/// If anything but that reply is taken, or something that is not taken changes the cookies.
pub fn ntp_response(input: &[u8]) -> bool {
    let Some((&choice, response)) = input.split_first() else { return false };
    let number = usize::from(choice & 0x7f) % EXCHANGES;
    let (mut client, pending, genuine) = exchange(number);
    let response = match choice & 0x80 {
        0 => response.to_vec(),
        _ => enclosing(&genuine, number, ClientKeys::s2c, response),
    };
    let cookies_before = client.cookies();
    let result = client.response(&pending, &mut response.clone());
    assert!(client.cookies() <= COOKIES_PER_REPLY);
    match result {
        Ok(_) | Err(ResponseError::Kiss(_)) => assert!(is_authentic_copy(&response, &genuine)),
        Err(_) => assert_eq!(client.cookies(), cookies_before),
    }
    result.is_ok()
}

/// A message of key establishment, taken for a request and for a response, whole and in pieces.
/// Returns whether it is a request and whether it is a response.
///
/// # Panics
/// If what was parsed does not come back after `emit`, or the scanner sees another end than the
/// parser.
pub fn ke_message(input: &[u8]) -> (bool, bool) {
    let complete = Scanner::new(usize::MAX).advance(input) == Ok(Progress::Complete);
    let request = Request::parse(input);
    if let Ok(request) = &request {
        assert!(complete);
        let mut text = Vec::new();
        request.emit(&mut text).expect("its bodies were short enough");
        assert_eq!(Request::parse(&text).as_ref(), Ok(request));
    }
    let response = Response::parse(input);
    if let Ok(response) = &response {
        assert!(complete);
        let mut text = Vec::new();
        response.emit(&mut text).expect("its bodies were short enough");
        assert_eq!(Response::parse(&text).as_ref(), Ok(response));
    }
    if complete {
        assert!(!matches!(request, Err(RequestError::Framing(_))));
        assert!(Records::new(input).all(|record| record.is_ok()));
        scan_in_pieces(input);
    }
    let bounded = Scanner::new(KE_REQUEST_BYTES_MAX).advance(input);
    assert!(bounded != Ok(Progress::Complete) || input.len() <= KE_REQUEST_BYTES_MAX);
    (request.is_ok(), response.is_ok())
}

/// A complete message is complete at its last byte and not before.
fn scan_in_pieces(message: &[u8]) {
    let mut scanner = Scanner::new(usize::MAX);
    for end in 0..message.len() {
        assert_eq!(scanner.advance(&message[..end]), Ok(Progress::Incomplete));
    }
    assert_eq!(scanner.advance(message), Ok(Progress::Complete));
}

/// A text that may be `ntskeys`. Returns whether it is.
///
/// # Panics
/// If what was read does not come back after `emit`.
pub fn ntskeys(input: &[u8]) -> bool {
    let Ok(Ok(read)) = std::str::from_utf8(input).map(key_file::parse) else { return false };
    let text = key_file::emit(&read.ring, read.age_seconds);
    let again = key_file::parse(&text).expect("what was written can be read");
    for (key, same) in read.ring.keys().iter().zip(again.ring.keys()) {
        assert_eq!((key.id(), key.algorithm()), (same.id(), same.algorithm()));
        assert_eq!(key.expose_bytes(), same.expose_bytes());
    }
    assert_eq!(*key_file::emit(&again.ring, again.age_seconds), *text);
    true
}

/// A text that may be a configuration. Returns whether it is.
///
/// # Panics
/// If a configuration is neither good nor refused with one sentence on one line.
pub fn configuration(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match parse_configuration(text) {
        Ok(settings) => {
            assert!(!settings.ntp_listen.is_empty());
            true
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.is_empty() && !sentence.contains(['\n', '\0']), "{sentence}");
            false
        }
    }
}

/// A line that may be a request at the control socket. Returns whether it is.
///
/// # Panics
/// If what is no request is refused with anything but a sentence.
pub fn control_request(line: &[u8]) -> bool {
    let request: Result<ControlRequest, ControlError> = ControlRequest::parse(line);
    request.inspect_err(|error| assert!(!error.to_string().is_empty())).is_ok()
}

/// What a followed daemon may answer: four bytes of a sequence, then a datagram that is taken for
/// chronyd's tracking report, with a report of smoothing behind it or none, and for the reply to an
/// NTP query. Returns whether it is either, and
/// whether clients would follow it.
///
/// # Panics
/// If clients are told what cannot be: a stratum or an error bound that does not stand on the wire,
/// or a reference time with a fraction.
pub fn tracking(input: &[u8]) -> (bool, bool) {
    let Some((sequence, answer)) = input.split_first_chunk() else { return (false, false) };
    let since_boot = Duration::from_secs(1000);
    let now = Moment { system: NOW, since_boot };
    let sent = Moment { system: NOW.before(Duration::from_millis(1)), since_boot };
    let word = |said| Answer::Word(said, now);
    let sequence = u32::from_be_bytes(*sequence);
    let (report, rest) = match answer.len().checked_sub(SMOOTHING_BYTES) {
        Some(TRACKING_BYTES) => answer.split_at(TRACKING_BYTES),
        _ => (answer, &[][..]),
    };
    let tracking = parse_tracking(report, sequence).ok().map(word);
    let smoothing =
        parse_smoothing(rest, sequence).ok().map(|smoothing| Answer::Word(smoothing, now));
    let origin = Header::parse(answer).map_or(NtpTimestamp::ZERO, |it| it.origin_timestamp);
    let sample =
        Sample::new(answer, origin, sent, now).ok().map(|sample| Answer::Word(sample, now));
    let is_any = tracking.is_some() || sample.is_some();
    let mut follower = Follower::new(Duration::from_secs(3600));
    let mut is_followed = false;
    // Twice: the second word has one before it.
    for _ in 0..2 {
        let judgement =
            follower.judge(tracking.as_ref(), smoothing.as_ref(), sample.as_ref(), None);
        let Some(record) = judgement.record else { continue };
        for seconds in [0, 1, 3600, 3601] {
            let then = Moment {
                system: NOW.plus(seconds << 32),
                since_boot: since_boot + Duration::from_secs(seconds as u64),
            };
            let state = record.state_at(then, -20);
            assert_eq!(state.is_synchronised(), (1..=15).contains(&state.stratum));
            assert!(state.root_dispersion_seconds >= 0.0 && state.dispersion_rate >= 0.0);
            assert!(state.correction_seconds.is_finite());
            assert_eq!(state.reference_timestamp.to_bits() as u32, 0);
            assert!(state.root_dispersion(then.system) >= state.root_dispersion(now.system));
            let _ = state.correction(then.system);
            is_followed |= state.is_synchronised();
        }
    }
    (is_any, is_followed)
}

/// Requests that a server with the keys of this file answers with authentication: each AEAD of a
/// client, with one and with eight cookies wanted.
pub fn genuine_requests() -> &'static [Vec<u8>] {
    static REQUESTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    REQUESTS
        .get_or_init(|| (0..EXCHANGES).map(|number| request(&mut World::new(), number).2).collect())
}

/// The replies to [`genuine_requests`].
pub fn genuine_replies() -> Vec<Vec<u8>> {
    (0..EXCHANGES).map(|number| exchange(number).2).collect()
}

/// The bit of a datagram's lead that says that an authentic request encloses it.
pub const ENCLOSED: u16 = 0x2000;

/// The bit of a datagram's lead that says that its source has no access.
pub const DENIED: u16 = 0x1000;

/// The input of [`ntp_request`] that stands for these datagrams.
pub fn batch_of(datagrams: &[&[u8]]) -> Vec<u8> {
    let lead = |datagram: &[u8]| (datagram.len() as u16).to_be_bytes();
    datagrams.iter().flat_map(|datagram| [&lead(datagram), *datagram].concat()).collect()
}

/// Number of [`genuine_requests`].
const EXCHANGES: usize = 2 * ALGORITHMS.len();

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv];

/// When everything happens.
const NOW: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 250_000_000);

/// A server and its source of randomness.
struct World {
    engine: Engine,
    keys: KeyRing,
    nonces: NonceGenerator,
}

impl World {
    fn new() -> Self {
        let mut nonces = NonceGenerator::from_seed(&[7; 32]);
        let keys = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| nonces.fill(bytes));
        let mut engine =
            Engine::new(Aead::detect()).with_interleaved(64, [3, 5]).with_rate_limits([7, 11]);
        let least = Some(*RATE_PER_SECOND.start());
        let rates = RateLimits {
            requests_per_second: least,
            nts_requests_per_second: least,
            naks_per_second: least,
            // A batch at once: requests that are repeated can meet the other limits, too.
            cookie_uses_per_second: Some(16.0),
            kiss: true,
            ..RateLimits::off()
        };
        let [allow, deny] = ["0.0.0.0/0", "198.51.100.0/24"].map(|text| text.parse().expect(text));
        let access = NetworkSet::new(&[allow], &[deny]).expect("no network is in both");
        engine.adopt(&Terms { access: Arc::new(access), rates });
        Self { engine, keys, nonces }
    }

    /// How many datagrams have had each outcome so far.
    fn counts(&self) -> Vec<u64> {
        let counters = self.engine.counters();
        Outcome::ALL.iter().map(|outcome| counters.outcome(*outcome)).collect()
    }

    fn answer(&mut self, packets: &mut [Packet]) -> Verdicts {
        let mut batch: Vec<Datagram<'_>> = packets
            .iter_mut()
            .map(|packet| Datagram {
                bytes: &mut packet.bytes,
                arrival: NOW,
                source: packet.source,
                truncated: packet.truncated,
            })
            .collect();
        let clock = SimulatedClock::synchronised(NOW);
        self.engine.answer(&mut batch, &self.keys, &clock, &mut self.nonces)
    }
}

struct Packet {
    bytes: Vec<u8>,
    source: SocketAddr,
    truncated: bool,
}

impl Packet {
    fn new(bytes: Vec<u8>, flags: u16) -> Self {
        let port = if flags & 0x4000 != 0 { NTP_PORT } else { 40_000 };
        let host = if flags & DENIED != 0 { [198, 51, 100, 7] } else { [192, 0, 2, 7] };
        Self { bytes, source: SocketAddr::from((host, port)), truncated: flags & 0x8000 != 0 }
    }

    fn is_denied(&self) -> bool {
        self.source.ip() == std::net::IpAddr::from([198, 51, 100, 7])
    }
}

fn split_batch(input: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut rest = input;
    while let Some((&lead, after)) = rest.split_first_chunk() {
        let lead = u16::from_be_bytes(lead);
        let length = usize::from(lead & 0x0fff).min(after.len()).min(DATAGRAM_BYTES);
        let (bytes, after) = after.split_at(length);
        let bytes = match lead & ENCLOSED {
            0 => bytes.to_vec(),
            _ => enclosing(&genuine_requests()[0], 0, ClientKeys::c2s, bytes),
        };
        packets.push(Packet::new(bytes, lead));
        rest = after;
        if packets.len() == BATCH_DATAGRAMS {
            break;
        }
    }
    packets
}

/// The algorithm and the keys of a client, the first thing that is made in a new world.
fn client_keys(world: &mut World, number: usize) -> ClientKeys {
    let algorithm = ALGORITHMS[number % ALGORITHMS.len()];
    let mut key = [0; 128];
    world.nonces.fill(&mut key);
    let (c2s, s2c) = key[..2 * algorithm.key_bytes()].split_at(algorithm.key_bytes());
    ClientKeys::new(algorithm, c2s, s2c).expect("lengths fit")
}

/// A client and the request that it has just sent.
fn request(world: &mut World, number: usize) -> (Association, Pending, Vec<u8>) {
    let client_keys = client_keys(world, number);
    let algorithm = client_keys.algorithm();
    let cookies = if number < ALGORITHMS.len() { COOKIES_PER_REPLY } else { 1 };
    let World { keys, nonces, .. } = world;
    let master = keys.current();
    let cookies: Vec<Vec<u8>> = (0..cookies)
        .map(|_| {
            let mut cookie = vec![0; cookie_bytes(master.algorithm(), algorithm)];
            let mut nonce = [0; 16];
            nonces.fill(&mut nonce);
            let job = format::prepare(&mut cookie, master, &nonce, &client_keys);
            Aead::detect().make_cookies(&mut [job]);
            cookie
        })
        .collect();
    let mut client = Association::new(client_keys, cookies.iter().map(Vec::as_slice));
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let pending = client.request(&mut buffer, nonces).expect("cookies are left");
    buffer.truncate(pending.request_bytes);
    (client, pending, buffer)
}

/// A client that waits, and the reply that it waits for.
fn exchange(number: usize) -> (Association, Pending, Vec<u8>) {
    let mut world = World::new();
    let (client, pending, request) = request(&mut world, number);
    let mut packets = [Packet::new(request, 0)];
    let verdicts = world.answer(&mut packets);
    let [Packet { mut bytes, .. }] = packets;
    bytes.truncate(verdicts[0].reply_bytes.into());
    (client, pending, bytes)
}

/// The genuine datagram with another plaintext, as whoever holds the client's keys can make it.
fn enclosing(
    genuine: &[u8],
    number: usize,
    key: impl Fn(&ClientKeys) -> &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let keys = client_keys(&mut World::new(), number);
    let algorithm = keys.algorithm();
    let start = authenticator_start(genuine).expect("genuine");
    let room =
        DATAGRAM_BYTES - AuthenticatorLayout::bytes(algorithm.nonce_bytes(), start + TAG_BYTES);
    let plaintext = &plaintext[..plaintext.len().min(room) & !3];
    let ciphertext_bytes = plaintext.len() + TAG_BYTES;
    let layout = AuthenticatorLayout::new(start, algorithm.nonce_bytes(), ciphertext_bytes, 0);
    let mut datagram = genuine[..start].to_vec();
    datagram.resize(layout.end, 0);
    layout.put_frame(&mut datagram);
    let (before, text) = datagram.split_at_mut(layout.ciphertext.start());
    text[algorithm.plaintext_offset()..][..plaintext.len()].copy_from_slice(plaintext);
    let nonce = &before[layout.nonce.range()];
    seal_one(algorithm, key(&keys), nonce, &before[..start], text).expect("lengths fit");
    datagram
}

fn authenticator_start(datagram: &[u8]) -> Option<usize> {
    [Direction::Request, Direction::Response].into_iter().find_map(|direction| {
        match find(datagram, direction) {
            Trailer::Nts(fields) => Some(fields.authenticator.start),
            _ => None,
        }
    })
}

/// Whether all that the authenticator of `genuine` covers stands in `datagram`: what is behind it,
/// and its own padding, is nobody's.
fn is_authentic_copy(datagram: &[u8], genuine: &[u8]) -> bool {
    authenticator_start(genuine).is_some_and(|start| datagram.starts_with(&genuine[..start]))
}
