//! Counts and percentiles against a server whose faults are known.

mod faulty;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use faulty::{Fate, Faulty};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball_load::associations::mint;
use timeball_load::plan::{Ask, CookieUse, Placeholders, Plan, Shape};
use timeball_load::record::{Invalid, Tally};
use timeball_load::request::Clients;
use timeball_load::run::{Found, run};

/// Long enough that a busy machine does not make an answer late: the server's own delays are half
/// a timeout away from every limit.
const TIMEOUT: Duration = Duration::from_secs(1);

const REQUESTS: u64 = 1200;

fn plan(server: &Faulty, ask: Ask) -> Plan {
    let mut plan = Plan::new(server.address, ask, 2000.0, Duration::from_secs(10));
    plan.requests_max = REQUESTS;
    plan.timeout = TIMEOUT;
    plan.quiet = 2 * TIMEOUT;
    plan
}

fn clients(server: &Faulty, plan: &Plan, algorithm: Algorithm) -> Vec<Clients> {
    let threads = plan.cpus.len();
    match plan.ask {
        Ask::Ntp => (0..threads).map(|_| Clients::Plain(100)).collect(),
        Ask::Nts(placeholders, cookie_use) => {
            let mut random = NonceGenerator::new().expect("random numbers");
            let minted = mint(&server.ring, algorithm, 100, 4, &mut random).expect("memory");
            let parts = minted.split(threads).into_iter();
            parts.map(|part| Clients::Nts(part, placeholders, cookie_use)).collect()
        }
    }
}

fn ask(server: &Faulty, plan: &Plan, algorithm: Algorithm) -> Found {
    let stop = AtomicBool::new(false);
    run(plan, clients(server, plan, algorithm), &stop, |_, _| {}).expect("a run")
}

const NTS: Ask = Ask::Nts(Placeholders::Missing, CookieUse::Renew);

/// What every fate of the server has to be counted as, when each befell `each` requests.
fn expected(fates: &[Fate], each: u64) -> Tally {
    let mut tally = Tally::default();
    let mut invalid = Invalid::default();
    for fate in fates {
        tally.offered += each;
        match fate {
            Fate::Answer => tally.answered += each,
            Fate::Lose => {}
            Fate::Duplicate => (tally.answered, tally.duplicates) = (tally.answered + each, each),
            Fate::Delay => tally.late += each,
            Fate::DelayForLong => tally.forgotten += each,
            Fate::FlipTag => invalid.tag += each,
            Fate::FlipIdentifier => invalid.identifier += each,
            Fate::FlipOrigin => invalid.unknown += each,
            Fate::FlipMode | Fate::Truncate => invalid.header += each,
            Fate::Lengthen => invalid.length += each,
            Fate::BreakFields => invalid.fields += each,
            Fate::OtherPort => invalid.foreign += each,
            Fate::Nak => tally.nak += each,
            Fate::Kiss => *tally.kiss.entry("RATE".to_owned()).or_default() += each,
        }
    }
    let ends = tally.answered + tally.late + tally.nak + tally.kisses();
    tally.lost = tally.offered - ends;
    tally.received = ends + tally.duplicates + tally.forgotten + invalid.total();
    tally.invalid = invalid;
    tally
}

/// The counts that depend on the server alone.
fn of_server(found: &Found) -> Tally {
    let tally = &found.total.tally;
    assert!(tally.requests_add_up() && tally.datagrams_add_up(), "{tally:?}");
    Tally { lagging: 0, authenticated: 0, cookies_reused: 0, unsynchronised: 0, ..tally.clone() }
}

#[test]
fn every_fault_of_an_nts_server_is_counted_exactly() {
    use Fate::*;
    let fates = [
        Answer,
        Lose,
        Duplicate,
        Delay,
        DelayForLong,
        FlipTag,
        FlipIdentifier,
        FlipOrigin,
        FlipMode,
        Truncate,
        Lengthen,
        Nak,
        BreakFields,
        Answer,
        Answer,
    ];
    let each = REQUESTS / fates.len() as u64;
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv] {
        let server = Faulty::start(&fates);
        let found = ask(&server, &plan(&server, NTS), algorithm);
        assert_eq!(of_server(&found), expected(&fates, each), "{algorithm}");
        // All that has the looks of an answer, duplicates in the same batch perhaps among them.
        let checked = found.total.tally.authenticated;
        assert!((5 * each..=6 * each).contains(&checked), "{checked}");
        let in_time_or_late = found.total.latency.count();
        assert_eq!(in_time_or_late, 5 * each);
    }
}

#[test]
fn every_fault_of_a_plain_server_is_counted_exactly_over_many_addresses_and_threads() {
    use Fate::*;
    let fates = [
        Answer,
        Lose,
        Duplicate,
        Delay,
        DelayForLong,
        FlipOrigin,
        FlipMode,
        Truncate,
        Lengthen,
        Kiss,
        OtherPort,
        Answer,
    ];
    let server = Faulty::start(&fates);
    let mut plan = plan(&server, Ask::Ntp);
    // A thread may meet no other fate than to be answered after three timeouts.
    plan.quiet = 4 * TIMEOUT;
    plan.sources = Some("127.77.0.0/16".parse().expect("a prefix"));
    plan.ports_per_thread = 5;
    plan.cpus = vec![None; 3];
    let found = ask(&server, &plan, Algorithm::AesSivCmac256);
    assert_eq!(of_server(&found), expected(&fates, REQUESTS / fates.len() as u64));
    let (addresses, ports) = server.seen();
    assert_eq!(addresses, 100, "each of the clients of a thread has one");
    assert_eq!(ports, 15);
}

#[test]
fn messages_that_the_kernel_cuts_lose_nothing() {
    let server = Faulty::start(&[Fate::Answer]);
    let mut plan = plan(&server, Ask::Nts(Placeholders::Fixed(2), CookieUse::Renew));
    plan.segments = 16;
    // All at once, so that there is something to cut.
    plan.shape = Shape::Burst { requests: 60 };
    let found = ask(&server, &plan, Algorithm::AesSivCmac256);
    assert_eq!(of_server(&found), expected(&[Fate::Answer], REQUESTS));
    assert_eq!(found.total.tally.authenticated, REQUESTS);
}

#[test]
fn cookies_are_used_once_while_there_are_others_and_each_answer_fills_up() {
    let server = Faulty::start(&[Fate::Answer]);
    let found = ask(&server, &plan(&server, NTS), Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.cookies_reused, 0);
    assert_eq!(server.cookies_repeated(), 0);
    let Clients::Nts(associations, ..) = &found.clients[0] else { panic!("NTS") };
    assert_eq!(associations.cookies_left(), 400, "all jars are full again");

    // Nothing comes back: four cookies each are used once, then the last one again.
    let server = Faulty::start(&[Fate::Lose]);
    let found = ask(&server, &plan(&server, NTS), Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.cookies_reused, REQUESTS - 400);
    assert_eq!(server.cookies_repeated(), REQUESTS - 400);

    let server = Faulty::start(&[Fate::Answer]);
    let plan = plan(&server, Ask::Nts(Placeholders::Fixed(0), CookieUse::Replay));
    let found = ask(&server, &plan, Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.answered, REQUESTS);
    assert_eq!(server.cookies_repeated(), REQUESTS - 100);
}

#[test]
fn a_sample_of_the_answers_is_authenticated_and_a_forged_one_among_the_rest_passes() {
    let server = Faulty::start(&[Fate::FlipTag]);
    let mut plan = plan(&server, Ask::Nts(Placeholders::Fixed(0), CookieUse::Replay));
    plan.verify_every = 4;
    let found = ask(&server, &plan, Algorithm::AesSivCmac256);
    let tally = &found.total.tally;
    assert_eq!(tally.invalid.tag, REQUESTS / 4);
    assert_eq!((tally.answered, tally.lost), (REQUESTS * 3 / 4, REQUESTS / 4));
}

#[test]
fn a_stop_ends_the_offer_and_keeps_the_results() {
    let server = Faulty::start(&[Fate::Answer]);
    let mut plan = plan(&server, Ask::Ntp);
    plan.requests_max = u64::MAX;
    plan.quiet = Duration::from_millis(50);
    let stop = AtomicBool::new(false);
    let found = run(&plan, clients(&server, &plan, Algorithm::AesSivCmac256), &stop, |_, total| {
        if total.tally.offered > 0 {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .expect("a run");
    let tally = &found.total.tally;
    assert!(tally.requests_add_up() && tally.answered == tally.offered, "{tally:?}");
    assert!(tally.offered < 20_000, "not all of ten seconds");
}

/// Requests come at equal distances, and what comes during a stall of length S waits from S down to
/// nothing. Ten stalls of 100 ms a second: a tenth of the requests waits, evenly spread, so 99 % of
/// all wait no longer than 90 ms. A generator that waits for answers would see one request in each
/// stall. The model takes the stalls as they were: a busy machine makes them longer.
#[test]
fn a_server_that_stalls_shows_as_arithmetic_says() {
    let server = Faulty::stalling(Duration::from_millis(100), Duration::from_secs(1));
    let mut plan = plan(&server, Ask::Ntp);
    plan.requests_max = u64::MAX;
    plan.duration = Duration::from_secs(5);
    plan.quiet = Duration::from_millis(200);
    let found = ask(&server, &plan, Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.answered, 10_000);

    let gap_seconds = 1.0 / plan.rate_per_second;
    let mut waits: Vec<f64> = server
        .stalls()
        .iter()
        .flat_map(|stall| {
            let stall = stall.as_secs_f64();
            (0..(stall / gap_seconds) as u64).map(move |number| stall - number as f64 * gap_seconds)
        })
        .collect();
    waits.sort_by(f64::total_cmp);
    waits.reverse();
    for quantile in [0.95, 0.99, 0.999] {
        let above = ((1.0 - quantile) * 10_000.0) as usize;
        let model = waits[above];
        let found = found.total.latency.quantile_ns(quantile) as f64 / 1e9;
        assert!((found - model).abs() < 0.015, "{quantile}: {found} s, the model says {model} s");
    }
    let longest = found.total.latency.max_ns() as f64 / 1e9;
    assert!(longest >= waits[0] * 0.98, "{longest} of {}", waits[0]);
}
