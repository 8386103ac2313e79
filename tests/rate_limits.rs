//! The engine with rate limits: who spends whose budget, and what is told.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Bench, NOW, nts_request, plain_request};
use proptest::prelude::*;
use timeball::aead::{Aead, Algorithm};
use timeball::client::{Association, ResponseError};
use timeball::engine::Engine;
use timeball::engine::batch::Verdict;
use timeball::engine::outcome::Outcome;
use timeball::engine::rate::RateLimits;
use timeball::engine::terms::Terms;
use timeball::limits::BATCH_DATAGRAMS;
use timeball::wire::ntp::{Header, Mode, ReferenceId};

const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// As few as can be configured: eight at once. One in 1024 leaks.
fn lowest() -> RateLimits {
    RateLimits {
        requests_per_second: Some(1.0 / 60.0),
        nts_requests_per_second: Some(1.0 / 60.0),
        naks_per_second: Some(1.0 / 60.0),
        cookie_uses_per_second: Some(1.0 / 60.0),
        leak: 1024,
        ..RateLimits::off()
    }
}

const BURST: usize = 8;

fn bench(rates: RateLimits) -> Bench {
    let mut bench = Bench::new();
    bench.engine = Engine::new(Aead::detect()).with_rate_limits(SECRET);
    bench.engine.adopt(&Terms { rates, ..Terms::default() });
    bench
}

fn outcomes(bench: &mut Bench, requests: &mut [Vec<u8>]) -> Vec<Outcome> {
    let batches = requests.chunks_mut(BATCH_DATAGRAMS);
    batches.flat_map(|batch| bench.answer(batch)).map(|verdict| verdict.outcome).collect()
}

fn count(outcomes: &[Outcome], outcome: Outcome) -> usize {
    outcomes.iter().filter(|found| **found == outcome).count()
}

/// How many were answered although they were beyond a limit.
fn leaked(bench: &Bench) -> usize {
    bench.engine.counters().rate_leaked as usize
}

fn plain(count: usize) -> Vec<Vec<u8>> {
    vec![plain_request(4, Mode::Client); count]
}

/// One request of a client; what became of it, and how the client takes it.
fn ask(
    bench: &mut Bench,
    client: &mut Association,
) -> (Verdict, Option<Result<Header, ResponseError>>) {
    let (request, pending) = nts_request(client, bench);
    let mut requests = [request];
    let verdict = bench.answer(&mut requests)[0];
    let [mut reply] = requests;
    reply.truncate(verdict.reply_bytes.into());
    let response = (!reply.is_empty()).then(|| client.response(&pending, &mut reply));
    (verdict, response)
}

#[test]
fn strangers_spend_nothing_of_an_authentic_client() {
    let mut bench = bench(lowest());
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let told = outcomes(&mut bench, &mut plain(1000));
    let answered = BURST + leaked(&bench);
    assert_eq!(count(&told, Outcome::AnsweredPlain), answered);
    assert_eq!(count(&told, Outcome::DroppedRate), 1000 - answered);
    let (request, _) = nts_request(&mut client, &mut bench);
    let mut forged = request;
    *forged.last_mut().expect("a tag") ^= 1;
    let leaked_before = leaked(&bench);
    let told = outcomes(&mut bench, &mut vec![forged; 1000]);
    let refused = BURST + leaked(&bench) - leaked_before;
    assert_eq!(count(&told, Outcome::NtsNak), refused);
    assert_eq!(count(&told, Outcome::DroppedRateNak), 1000 - refused);
    for _ in 0..BURST {
        let (_, response) = ask(&mut bench, &mut client);
        response.expect("a reply").expect("authentic");
    }
    assert_eq!(ask(&mut bench, &mut client).0, Verdict::drop(Outcome::DroppedRateNts));
    bench.source = SocketAddr::from(([192, 0, 2, 8], 123));
    assert_eq!(ask(&mut bench, &mut client).0.outcome, Outcome::AnsweredNts, "a neighbour");
}

/// Wherever it comes from; and it costs whoever made the request no more than its cookie's share.
#[test]
fn one_request_that_is_repeated_is_answered_a_few_times() {
    let limits = RateLimits { nts_requests_per_second: Some(0.3), ..lowest() };
    let mut bench = bench(limits);
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let (request, _) = nts_request(&mut client, &mut bench);
    let mut told = Vec::new();
    for host in 0..200 {
        bench.source = SocketAddr::from(([198, 51, host, 1], 123));
        told.extend(outcomes(&mut bench, &mut vec![request.clone(); 32]));
    }
    let answered = BURST + leaked(&bench);
    assert_eq!(count(&told, Outcome::AnsweredNts), answered);
    assert_eq!(count(&told, Outcome::DroppedReplay), 200 * 32 - answered);
    let cookies_before = client.cookies();
    ask(&mut bench, &mut client).1.expect("a reply").expect("other cookies are as good as before");
    assert_eq!(client.cookies(), cookies_before + 1);
}

/// Half a hundred requests of one client, which somebody has recorded and repeats from the client's
/// address without end: once their burst is over, the client has every answer.
#[test]
fn a_recording_spends_no_more_than_its_cookies_may() {
    const BURST_SECONDS: usize = 4;
    let mut bench = bench(RateLimits::but_for(Vec::new()));
    let mut recorded = Vec::new();
    for _ in 0..6 {
        let mut client = bench.client(Algorithm::AesSivCmac256, 8);
        recorded.extend((0..8).map(|_| nts_request(&mut client, &mut bench).0));
    }
    let mut client = bench.client(Algorithm::AesSivCmac256, 8);
    let mut answered = 0;
    for tenth in 0..600 {
        answered += count(&outcomes(&mut bench, &mut recorded.clone()), Outcome::AnsweredNts);
        bench.clock.advance((1 << 32) / 10);
        if tenth >= 10 * BURST_SECONDS {
            let outcome = ask(&mut bench, &mut client).0.outcome;
            assert_eq!(outcome, Outcome::AnsweredNts, "after {tenth} tenths of a second");
        }
    }
    // A cookie has eight at once and one in two seconds.
    assert!(answered - leaked(&bench) <= recorded.len() * (BURST + 30), "{answered}");
}

/// c082: a kiss for an authentic request is authentic, and brings cookies as any reply does.
#[test]
fn a_kiss_for_an_authentic_request_is_authentic() {
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv] {
        let mut bench = bench(RateLimits { kiss: true, ..lowest() });
        let mut client = bench.client(algorithm, 8);
        for _ in 0..BURST {
            ask(&mut bench, &mut client).1.expect("a reply").expect("the time");
        }
        let (verdict, response) = ask(&mut bench, &mut client);
        assert_eq!(verdict.outcome, Outcome::KissRateNts);
        let response = response.expect("a reply");
        assert_eq!(response, Err(ResponseError::Kiss(ReferenceId::KISS_RATE)));
        assert_eq!(client.cookies(), 8, "{algorithm:?}");
    }
}

/// c121: addresses of one /64 are one client.
#[test]
fn an_ipv6_network_is_one_client() {
    let mut bench = bench(lowest());
    let mut told = Vec::new();
    for host in 0..100_u16 {
        let address: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 7, host].into();
        bench.source = SocketAddr::new(address, 123);
        told.extend(outcomes(&mut bench, &mut plain(1)));
    }
    assert_eq!(count(&told, Outcome::AnsweredPlain), BURST + leaked(&bench));
    bench.source = SocketAddr::new([0x2001, 0xdb8, 0, 1, 0, 0, 7, 1].into(), 123);
    assert_eq!(outcomes(&mut bench, &mut plain(1)), [Outcome::AnsweredPlain]);
}

/// Kisses keep the rules of replies: nothing of the clock is in them, and the origin comes back.
#[test]
fn a_kiss_says_nothing_but_its_code() {
    let mut bench = bench(RateLimits { kiss: true, ..lowest() });
    let mut requests = plain(BURST + 1);
    let request = requests[BURST].clone();
    let verdicts = bench.answer(&mut requests);
    assert_eq!(verdicts[BURST], Verdict::reply(Outcome::KissRate, 48));
    let header = Header::parse(&requests[BURST]).expect("a header");
    assert_eq!((header.stratum, header.reference_id), (0, ReferenceId::KISS_RATE));
    let origin = header.origin_timestamp.to_bits().to_be_bytes();
    assert_eq!(origin, request[40..48]);
}

#[test]
fn limits_are_taken_away_and_come_back() {
    let mut bench = bench(lowest());
    let answered = |bench: &mut Bench| {
        let before = leaked(bench);
        let told = outcomes(bench, &mut plain(100));
        count(&told, Outcome::AnsweredPlain) + before - leaked(bench)
    };
    assert_eq!(answered(&mut bench), BURST);
    bench.engine.adopt(&Terms::default());
    assert_eq!(answered(&mut bench), 100);
    bench.engine.adopt(&Terms { rates: lowest(), ..Terms::default() });
    assert_eq!(answered(&mut bench), 0, "what was spent stays spent");
}

/// What one client may ask.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Nts,
    Forged,
    Replayed,
    Junk,
}

proptest! {
    /// Any mixture of any clients, with any limits: every datagram has one outcome, which is
    /// counted once; no reply is longer than its request; what leaks is among what was answered.
    #[test]
    fn counters_add_up_under_any_limits(
        rates in prop::array::uniform4(prop::option::of(0.017..100.0_f64)),
        leak in 1..1024_u32,
        kiss in any::<bool>(),
        asked in prop::collection::vec(
            (0..6_u8, prop::sample::select(vec![
                Kind::Plain, Kind::Nts, Kind::Forged, Kind::Replayed, Kind::Junk,
            ])),
            1..200,
        ),
    ) {
        let [plain, nts, naks, cookie] = rates;
        let mut bench = bench(RateLimits {
            requests_per_second: plain,
            nts_requests_per_second: nts,
            naks_per_second: naks,
            cookie_uses_per_second: cookie,
            leak,
            kiss,
            ..RateLimits::off()
        });
        let mut client = bench.client(Algorithm::AesSivCmac256, 8);
        let (replayed, _) = nts_request(&mut client, &mut bench);
        for (host, kind) in &asked {
            bench.source = SocketAddr::from(([192, 0, 2, *host], 123));
            let mut other = bench.client(Algorithm::AesSivCmac256, 1);
            let mut request = match kind {
                Kind::Plain => plain_request(4, Mode::Client),
                Kind::Nts | Kind::Forged => nts_request(&mut other, &mut bench).0,
                Kind::Replayed => replayed.clone(),
                Kind::Junk => vec![0; 13],
            };
            if matches!(kind, Kind::Forged) {
                *request.last_mut().expect("a tag") ^= 1;
            }
            let request_bytes = request.len();
            let verdict = bench.answer(std::slice::from_mut(&mut request))[0];
            prop_assert!(usize::from(verdict.reply_bytes) <= request_bytes);
            let expected: &[Outcome] = match kind {
                Kind::Plain => &[Outcome::AnsweredPlain, Outcome::KissRate, Outcome::DroppedRate],
                Kind::Nts => &[Outcome::AnsweredNts, Outcome::KissRateNts, Outcome::DroppedRateNts],
                Kind::Forged => &[Outcome::NtsNak, Outcome::DroppedRateNak],
                Kind::Replayed => &[
                    Outcome::AnsweredNts, Outcome::KissRateNts, Outcome::DroppedRateNts,
                    Outcome::DroppedReplay,
                ],
                Kind::Junk => &[Outcome::DroppedLength],
            };
            prop_assert!(expected.contains(&verdict.outcome), "{:?}: {:?}", kind, verdict);
            let is_silent = verdict.outcome.name().starts_with("dropped_");
            prop_assert_eq!(verdict.reply_bytes == 0, is_silent);
        }
        let counters = bench.engine.counters();
        let total: u64 = Outcome::ALL.iter().map(|outcome| counters.outcome(*outcome)).sum();
        prop_assert_eq!(total, asked.len() as u64);
        let answered = [Outcome::AnsweredPlain, Outcome::AnsweredNts, Outcome::NtsNak];
        let answered: u64 = answered.iter().map(|outcome| counters.outcome(*outcome)).sum();
        prop_assert!(counters.rate_leaked <= answered);
        prop_assert_eq!(bench.arrival, NOW);
    }
}
