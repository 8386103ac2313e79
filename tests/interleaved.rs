//! Interleaved mode (RFC 9769) in simulated time: the lines 111 to 120 of the conformance table,
//! each by its number. `tests/conformance` and `tests/interop.rs` have it over sockets.

mod common;

use std::net::SocketAddr;

use common::interleaved::{InterleavedClient, ReplyMode};
use common::{Bench, nts_request, source};
use timeball::aead::{Aead, Algorithm, open_one, seal_one};
use timeball::cookie::format::ClientKeys;
use timeball::engine::Engine;
use timeball::engine::batch::Verdict;
use timeball::engine::outcome::Outcome;
use timeball::wire::ntp::{Header, Mode};
use timeball::wire::nts::{Authenticator, Direction, Trailer, find};
use timeball::wire::timestamp::NtpTimestamp;

const SECOND: i64 = 1 << 32;
const MICROSECOND: i64 = SECOND / 1_000_000;

/// Lets 16 seconds and some nanoseconds pass, as these choose the bucket of the table, and answers
/// one request: its verdict, with the reply in its place. The worker reads the clock 7 µs after the
/// request has arrived.
fn answer(bench: &mut Bench, request: &mut Vec<u8>) -> Verdict {
    bench.clock.advance(16 * SECOND + 12_345);
    bench.arrival = bench.clock.now.plus(-7 * MICROSECOND);
    let mut requests = [std::mem::take(request)];
    let verdicts = bench.answer(&mut requests);
    [*request] = requests;
    verdicts[0]
}

/// One exchange whose reply leaves `late` after the worker read its clock, by the kernel's word.
fn exchange(bench: &mut Bench, client: &mut InterleavedClient, late: i64) -> (ReplyMode, Header) {
    let mut request = client.request();
    let verdict = answer(bench, &mut request);
    if let Some(ticket) = verdict.departure {
        bench.engine.departed(ticket, bench.clock.now.plus(late));
    }
    client.reply(&request)
}

/// A client whose next request names a pair.
fn known_client(bench: &mut Bench) -> InterleavedClient {
    let mut client = InterleavedClient::default();
    for _ in 0..2 {
        assert_eq!(exchange(bench, &mut client, 0).0, ReplyMode::Basic);
    }
    client
}

/// How far two times are apart, in whole nanoseconds: the marks in timestamps are less than one.
fn nanoseconds(later: NtpTimestamp, earlier: NtpTimestamp) -> i64 {
    (later.seconds_since_f64(earlier) * 1e9).round() as i64
}

/// c111, c113: each reply tells when the one before it left, and when its own request arrived.
#[test]
fn c113_replies_tell_when_the_one_before_them_left() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let mut left = bench.clock.now;
    for number in 0..100 {
        let late = (3 + number) * MICROSECOND;
        let (mode, header) = exchange(&mut bench, &mut client, late);
        assert_eq!(mode, ReplyMode::Interleaved);
        assert!((0..=1).contains(&nanoseconds(header.transmit_timestamp, left)));
        assert!((0..=1).contains(&nanoseconds(header.receive_timestamp, bench.arrival)));
        left = bench.clock.now.plus(late);
    }
    assert_eq!(bench.engine.counters().answered_interleaved, 100);
}

/// The clock's correction changes between a request and the kernel's word of when its reply left:
/// what the client computes from the two timestamps is as long as it took.
#[test]
fn c113_a_correction_that_changes_meanwhile_changes_no_delay() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let mut others = known_client(&mut bench);
    let mut last: Option<(NtpTimestamp, i64)> = None;
    for number in 1..100 {
        let late = (3 + number) * MICROSECOND;
        bench.clock.state.correction_seconds = 0.01 * (number % 7) as f64;
        let mut request = client.request();
        let verdict = answer(&mut bench, &mut request);
        let (mode, header) = client.reply(&request);
        let left = bench.clock.now.plus(late);
        if let Some((receive, took)) = last {
            assert_eq!(mode, ReplyMode::Interleaved);
            let told = nanoseconds(header.transmit_timestamp, receive);
            assert!((told - took).abs() <= 1, "{told} ns, {took} ns");
        }
        last = Some((header.receive_timestamp, nanoseconds(left, bench.arrival)));
        // A batch of others comes in between, under another correction.
        bench.clock.state.correction_seconds = -0.3 / number as f64;
        let mut other = others.request();
        answer(&mut bench, &mut other);
        others.reply(&other);
        bench.engine.departed(verdict.departure.expect("a pair"), left);
    }
}

#[test]
fn c113_the_predicted_time_stands_where_the_kernel_tells_none() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    for _ in 0..10 {
        let mut request = client.request();
        let predicted = bench.clock.now;
        answer(&mut bench, &mut request);
        let (_, header) = client.reply(&request);
        // The first pair's time was told, by `known_client`, and it was the same.
        assert!((0..=1).contains(&nanoseconds(header.transmit_timestamp, predicted)));
    }
    assert_eq!(bench.engine.counters().answered_interleaved, 10);
}

#[test]
fn c112_both_conditions_are_needed() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let request = client.request();
    let with = |place: usize, bits: [u8; 8]| {
        let mut changed = request.clone();
        changed[place..place + 8].copy_from_slice(&bits);
        changed
    };
    let transmit: [u8; 8] = request[40..48].try_into().expect("8 bytes");
    let origin = u64::from_be_bytes(request[24..32].try_into().expect("8 bytes"));
    for mut changed in [
        with(32, transmit),
        with(24, (origin + 4).to_be_bytes()),
        with(24, (origin & !1).to_be_bytes()),
        with(24, [0; 8]),
        with(0, [0x1b, 0, 6, 0x20, 0, 0, 0, 0]),
    ] {
        answer(&mut bench, &mut changed);
        let header = Header::parse(&changed).expect("a header");
        assert_eq!(header.origin_timestamp.to_bits().to_be_bytes(), transmit, "basic mode");
    }
    // None of them has used the pair up.
    let mut request = request;
    answer(&mut bench, &mut request);
    assert_eq!(client.reply(&request).0, ReplyMode::Interleaved);
}

#[test]
fn c112_another_address_does_not_get_the_pair() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let own = bench.source;
    bench.source = SocketAddr::from(([198, 51, 100, 1], own.port()));
    assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Basic);
}

#[test]
fn c114_a_replayed_request_gets_a_basic_reply() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let request = client.request();
    let (mut first, mut second) = (request.clone(), request.clone());
    answer(&mut bench, &mut first);
    answer(&mut bench, &mut second);
    let header = Header::parse(&second).expect("a header");
    assert_eq!(header.origin_timestamp.to_bits().to_be_bytes(), request[40..48]);
    assert_eq!(client.reply(&first).0, ReplyMode::Interleaved);
}

/// A client that lost a reply, or the server the pair, comes back to interleaved mode by itself.
#[test]
fn c115_a_basic_reply_saves_its_pair_too() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    let mut lost = client.request();
    answer(&mut bench, &mut lost);
    assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Basic);
    assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Interleaved);
}

#[test]
fn c115_plain_clients_have_no_pair() {
    let mut bench = Bench::new();
    let (mut origin, mut received) = (NtpTimestamp::ZERO, NtpTimestamp::ZERO);
    for number in 0..10 {
        // As a client of the basic mode: the origin is the transmit timestamp of the last reply.
        let mut request = common::plain_request(4, Mode::Client);
        request[24..32].copy_from_slice(&origin.to_bits().to_be_bytes());
        request[32..40].copy_from_slice(&received.to_bits().to_be_bytes());
        assert_eq!(answer(&mut bench, &mut request).departure, None);
        let header = Header::parse(&request).expect("a header");
        assert_eq!(header.origin_timestamp.to_bits(), 0x0123_4567_89ab_cdef);
        (origin, received) = (header.transmit_timestamp, NtpTimestamp::from_bits(number));
    }
}

#[test]
fn c116_receive_timestamps_of_one_nanosecond_differ() {
    let mut bench = Bench::new();
    let mut clients: Vec<InterleavedClient> = (0..16).map(|_| known_client(&mut bench)).collect();
    let mut all: Vec<Vec<u8>> = clients.iter_mut().map(InterleavedClient::request).collect();
    bench.answer(&mut all);
    let mut receive: Vec<u64> = all
        .iter()
        .map(|reply| Header::parse(reply).expect("a header").receive_timestamp.to_bits())
        .collect();
    receive.sort_unstable();
    receive.dedup();
    assert_eq!(receive.len(), clients.len());
    for (client, reply) in clients.iter_mut().zip(&all) {
        assert_eq!(client.reply(reply).0, ReplyMode::Interleaved);
    }
}

#[test]
fn c117_a_client_may_change_its_port() {
    let mut bench = Bench::new();
    let mut client = known_client(&mut bench);
    for port in 40_001..40_050 {
        bench.source = source(port);
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Interleaved);
    }
}

#[test]
fn c117_without_entries_there_is_basic_mode_only() {
    let mut bench = Bench::new();
    bench.engine = Engine::new(Aead::detect()).with_interleaved(0, [3, 5]);
    let mut client = known_client(&mut bench);
    for _ in 0..5 {
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Basic);
    }
}

#[test]
fn c119_a_step_of_the_clock_ends_all_pairs() {
    let mut bench = Bench::new();
    for step in [-3600 * SECOND, SECOND, SECOND / 1000] {
        let mut client = known_client(&mut bench);
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Interleaved);
        bench.clock.now = bench.clock.now.plus(step);
        // No pair is there, and none is made of a batch that may have arrived before the step.
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Basic);
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Basic);
        assert_eq!(exchange(&mut bench, &mut client, 0).0, ReplyMode::Interleaved);
    }
}

#[test]
fn c120_nts_replies_are_interleaved_from_the_third_on() {
    let mut bench = Bench::new();
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
        let (mut association, keys) = bench.keyed_client(algorithm, 8);
        let (genuine, _) = nts_request(&mut association, &mut bench);
        let mut client = InterleavedClient::default();
        for number in 1..=20 {
            let mut request = genuine.clone();
            client.prepare(&mut request);
            seal(&mut request, &keys);
            let verdict = answer(&mut bench, &mut request);
            assert_eq!(verdict.outcome, Outcome::AnsweredNts);
            let (mode, header) = client.reply(&request);
            let expected = if number < 3 { ReplyMode::Basic } else { ReplyMode::Interleaved };
            assert_eq!(mode, expected, "exchange {number}");
            assert_eq!(header.stratum, 1);
            assert_authentic(&mut request, &keys);
        }
    }
}

/// Seals a request without encrypted fields anew, after its header has changed.
fn seal(request: &mut [u8], keys: &ClientKeys) {
    let Trailer::Nts(fields) = find(request, Direction::Request) else { panic!("no NTS request") };
    let Authenticator { start, nonce, ciphertext, .. } = fields.authenticator;
    let (before, text) = request[..ciphertext.end()].split_at_mut(ciphertext.start());
    seal_one(keys.algorithm(), keys.c2s(), &before[nonce.range()], &before[..start], text)
        .expect("lengths fit");
}

fn assert_authentic(reply: &mut [u8], keys: &ClientKeys) {
    let Trailer::Nts(fields) = find(reply, Direction::Response) else { panic!("no NTS reply") };
    let Authenticator { start, nonce, ciphertext, .. } = fields.authenticator;
    let (before, text) = reply[..ciphertext.end()].split_at_mut(ciphertext.start());
    open_one(keys.algorithm(), keys.s2c(), &before[nonce.range()], &before[..start], text)
        .expect("authentic");
}

/// Nothing is saved for a request that could not be authenticated, and no pair is used up by it.
#[test]
fn c120_a_nak_is_basic() {
    let mut bench = Bench::new();
    let mut association = bench.client(Algorithm::AesSivCmac256, 8);
    let mut client = known_client(&mut bench);
    let (mut request, _) = nts_request(&mut association, &mut bench);
    let plain = client.request();
    request[24..48].copy_from_slice(&plain[24..48]);
    let verdict = answer(&mut bench, &mut request);
    assert_eq!((&request[12..16], verdict.departure), (&b"NTSN"[..], None));
    let mut plain = plain;
    answer(&mut bench, &mut plain);
    assert_eq!(client.reply(&plain).0, ReplyMode::Interleaved);
}
