//! The engine against its own client: batches of all kinds, every reply checked.

mod common;

use common::{Bench, NOW, nts_request, plain_request, source};
use proptest::prelude::*;
use timeball::aead::Algorithm;
use timeball::client::ResponseError;
use timeball::engine::batch::Verdict;
use timeball::engine::outcome::Outcome;
use timeball::limits::BATCH_DATAGRAMS;
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::NtpTimestamp;

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv];

#[test]
fn a_mixed_batch_is_answered_each_in_its_place() {
    let mut bench = Bench::new();
    let mut clients: Vec<_> =
        ALGORITHMS.iter().map(|&algorithm| bench.client(algorithm, 8)).collect();
    let mut requests = Vec::new();
    let mut pending = Vec::new();
    for place in 0..BATCH_DATAGRAMS {
        if place % 4 == 3 {
            requests.push(plain_request(4, Mode::Client));
            pending.push(None);
        } else {
            let (request, expected) = nts_request(&mut clients[place % 3], &mut bench);
            requests.push(request);
            pending.push(Some(expected));
        }
        // Eight cookies each would be spent within the batch.
        if place % 8 == 7 {
            clients = ALGORITHMS.iter().map(|&algorithm| bench.client(algorithm, 8)).collect();
            let verdicts = bench.answer(&mut requests);
            check(&requests, &pending, &verdicts);
            requests.clear();
            pending.clear();
        }
    }

    fn check<T>(requests: &[Vec<u8>], pending: &[Option<T>], verdicts: &[Verdict]) {
        for (place, verdict) in verdicts.iter().enumerate() {
            let header = Header::parse(&requests[place]).expect("a header");
            assert_eq!(header.mode, Mode::Server);
            match pending[place] {
                Some(_) => {
                    assert_eq!(verdict.outcome, Outcome::AnsweredNts);
                    assert_eq!(usize::from(verdict.reply_bytes), requests[place].len());
                }
                None => assert_eq!(*verdict, Verdict::reply(Outcome::AnsweredPlain, 48)),
            }
        }
    }
}

/// c049, c051, c052: one cookie for each asked, replies as long as requests, cookies good again.
#[test]
fn cookies_are_renewed_for_every_number_of_placeholders() {
    for algorithm in ALGORITHMS {
        for had in 1..=8 {
            let mut bench = Bench::new();
            let mut client = bench.client(algorithm, had);
            for _ in 0..3 {
                let (request, pending) = nts_request(&mut client, &mut bench);
                let mut requests = vec![request];
                let verdicts = bench.answer(&mut requests);
                assert_eq!(usize::from(verdicts[0].reply_bytes), pending.request_bytes);
                let header =
                    client.response(&pending, &mut requests[0]).expect("an authentic reply");
                assert_eq!(header.stratum, 1);
                assert_eq!(client.cookies(), 8, "{algorithm:?} with {had} cookies");
            }
        }
    }
}

/// c063, c064: what cannot be authenticated gets a NAK with the identifier and nothing else.
#[test]
fn every_flipped_bit_is_refused_in_its_own_lane() {
    let mut bench = Bench::new();
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let (request, _) = nts_request(&mut client, &mut bench);
    let mut witness = bench.client(Algorithm::AesSivCmac256, 8);
    for byte in 0..request.len() {
        let mut broken = request.clone();
        broken[byte] ^= 1;
        let (good, pending) = nts_request(&mut witness, &mut bench);
        let mut requests = vec![good, broken];
        let verdicts = bench.answer(&mut requests);
        assert_ne!(verdicts[1].outcome, Outcome::AnsweredNts, "byte {byte} counts for nothing");
        assert!(verdicts[1].reply_bytes <= 84, "byte {byte}: no cookie, no authenticator");
        if (84 + 4..84 + 4 + 100).contains(&byte) {
            assert_eq!(verdicts[1].outcome, Outcome::NtsNak, "cookie byte {byte}");
            let header = Header::parse(&requests[1]).expect("a header");
            assert_eq!(header.reference_id, ReferenceId::KISS_NTSN);
            assert_eq!((header.stratum, header.leap), (0, Leap::Unsynchronised));
            assert_eq!(requests[1][48..84], request[48..84], "the identifier comes back");
        }
        witness.response(&pending, &mut requests[0]).expect("the neighbour is not disturbed");
    }
}

/// c074: a cookie of a key that is gone.
#[test]
fn a_cookie_of_an_erased_key_gets_a_nak() {
    let mut bench = Bench::new();
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    bench.forget_keys();
    let (request, pending) = nts_request(&mut client, &mut bench);
    let mut requests = vec![request];
    let verdicts = bench.answer(&mut requests);
    assert_eq!(verdicts[0], Verdict::reply(Outcome::NtsNak, 84));
    requests[0].truncate(84);
    assert_eq!(client.response(&pending, &mut requests[0]), Err(ResponseError::Nak));
}

/// c081: a server without time still authenticates, and says so.
#[test]
fn an_unsynchronised_server_answers_authenticated() {
    let mut bench = Bench::new();
    bench.clock.state.leap = Leap::Unsynchronised;
    bench.clock.state.stratum = 0;
    bench.clock.state.reference_id = ReferenceId::NONE;
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let (request, pending) = nts_request(&mut client, &mut bench);
    let mut requests = vec![request];
    bench.answer(&mut requests);
    let header = client.response(&pending, &mut requests[0]).expect("authentic");
    assert_eq!((header.leap, header.stratum), (Leap::Unsynchronised, 0));
}

/// c097, c111: transmit is later than receive even when the clock was stepped back.
#[test]
fn transmit_is_never_before_or_equal_to_receive() {
    let mut bench = Bench::new();
    for clock_seconds_back in [0, 1, 3600] {
        bench.clock.now = NOW.before(std::time::Duration::from_secs(clock_seconds_back));
        let mut requests = vec![plain_request(4, Mode::Client)];
        bench.answer(&mut requests);
        let header = Header::parse(&requests[0]).expect("a header");
        let receive = header.receive_timestamp;
        let nanoseconds = |time: NtpTimestamp| time.to_unix_nanoseconds(1_800_000_000);
        assert_eq!(nanoseconds(receive), nanoseconds(NOW), "but for its mark");
        assert!(header.transmit_timestamp.seconds_since(receive) > 0);
    }
}

#[test]
fn counters_count_every_datagram_once() {
    let mut bench = Bench::new();
    let mut client = bench.client(Algorithm::AesSivCmac256, 5);
    let (request, _) = nts_request(&mut client, &mut bench);
    let mut broken = request.clone();
    broken[100] ^= 1;
    let mut requests = vec![
        request,
        broken,
        plain_request(4, Mode::Client),
        plain_request(4, Mode::Server),
        vec![0; 7],
    ];
    bench.answer(&mut requests);
    let counters = bench.engine.counters();
    for (outcome, count) in [
        (Outcome::AnsweredNts, 1),
        (Outcome::NtsNak, 1),
        (Outcome::AnsweredPlain, 1),
        (Outcome::DroppedMode, 1),
        (Outcome::DroppedLength, 1),
    ] {
        assert_eq!(counters.outcome(outcome), count, "{}", outcome.name());
    }
    let total: u64 = Outcome::ALL.iter().map(|&outcome| counters.outcome(outcome)).sum();
    assert_eq!(total, 5);
    assert_eq!(counters.cookies_issued, 4, "one for the cookie, three for placeholders");
}

proptest! {
    /// Any bytes: no panic, never a longer reply, never an authenticated one.
    #[test]
    fn any_batch_of_bytes_is_decided(
        mut requests in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..300),
            0..BATCH_DATAGRAMS,
        )
    ) {
        let lengths: Vec<usize> = requests.iter().map(Vec::len).collect();
        let verdicts = Bench::new().answer(&mut requests);
        prop_assert_eq!(verdicts.len(), lengths.len());
        for (verdict, length) in verdicts.iter().zip(lengths) {
            prop_assert!(usize::from(verdict.reply_bytes) <= length);
            prop_assert_ne!(verdict.outcome, Outcome::AnsweredNts);
            prop_assert_ne!(verdict.outcome, Outcome::Undecided);
        }
    }

    /// Damage anywhere in a good request: the same.
    #[test]
    fn damaged_requests_are_decided(
        damage in proptest::collection::vec((0..240_usize, any::<u8>()), 1..6),
        cut in 0..260_usize,
    ) {
        let mut bench = Bench::new();
        let mut client = bench.client(Algorithm::AesSivCmac256, 8);
        let (mut request, _) = nts_request(&mut client, &mut bench);
        for (place, value) in damage {
            let place = place % request.len();
            request[place] = value;
        }
        request.truncate(cut);
        let length = request.len();
        let mut requests = vec![request];
        let verdicts = bench.answer(&mut requests);
        prop_assert!(usize::from(verdicts[0].reply_bytes) <= length);
        prop_assert_ne!(verdicts[0].outcome, Outcome::Undecided);
    }
}

#[test]
fn a_version_1_client_is_known_by_its_port() {
    let mut bench = Bench::new();
    for (port, outcome) in [(123, Outcome::DroppedMode), (1024, Outcome::AnsweredPlain)] {
        bench.source = source(port);
        let mut requests = vec![plain_request(1, Mode::Reserved)];
        assert_eq!(bench.answer(&mut requests)[0].outcome, outcome);
    }
}
