//! Counts and percentiles against a server whose faults are known.
//!
//! What is expected of time follows from delays that were meant; a busy machine adds others. They
//! are measured at both ends, and a run in which they were too long is repeated, since it proves
//! nothing. One test runs at a time.

mod faulty;

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use faulty::{Fate, Faulty};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball_load::associations::mint;
use timeball_load::plan::{Ask, CookieUse, Placeholders, Plan, Shape, Twist};
use timeball_load::record::{Invalid, Tally};
use timeball_load::reflector::Reflector;
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
    plan.quiet = TIMEOUT / 2;
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

/// Asks a new server until no delay that was not meant took half a timeout.
fn ask(
    start: impl Fn() -> Faulty,
    change: impl Fn(&mut Plan),
    ask: Ask,
    algorithm: Algorithm,
) -> (Faulty, Found) {
    for _ in 0..ATTEMPTS {
        let server = start();
        let mut plan = plan(&server, ask);
        change(&mut plan);
        let stop = AtomicBool::new(false);
        let found =
            run(&plan, clients(&server, &plan, algorithm), &stop, |_, _| {}).expect("a run");
        let send_lag = Duration::from_nanos(found.total.send_lag.max_ns());
        let lateness = server.lateness().last().copied().unwrap_or_default();
        if send_lag + lateness < TIMEOUT / 2 {
            return (server, found);
        }
        println!("repeated: {send_lag:?} of send lag and {lateness:?} at the server");
    }
    panic!("the machine is too busy to tell: {ATTEMPTS} runs were disturbed");
}

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs before the machine is called too busy.
const ATTEMPTS: usize = 10;

const NTS: Ask = Ask::Nts(Placeholders::Missing, CookieUse::Renew);

/// What every fate of the server has to be counted as, when each befell `each` requests.
fn expected(fates: &[Fate], each: u64) -> Tally {
    let mut tally = Tally::default();
    let mut invalid = Invalid::default();
    for fate in fates {
        tally.offered += each;
        match fate {
            Fate::Answer | Fate::Interleave => tally.answered += each,
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
    let _alone = alone();
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
        let (_, found) = ask(|| Faulty::start(&fates), wait_long, NTS, algorithm);
        assert_eq!(of_server(&found), expected(&fates, each), "{algorithm}");
        // All that has the looks of an answer, duplicates in the same batch perhaps among them.
        let checked = found.total.tally.authenticated;
        assert!((5 * each..=6 * each).contains(&checked), "{checked}");
        assert_eq!(found.total.latency.count(), 5 * each, "in time or late");
    }
}

#[test]
fn every_fault_of_a_plain_server_is_counted_exactly_over_many_addresses_and_threads() {
    use Fate::*;
    let _alone = alone();
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
    let change = |plan: &mut Plan| {
        wait_long(plan);
        plan.sources = Some("127.77.0.0/16".parse().expect("a prefix"));
        plan.ports_per_thread = 5;
        plan.cpus = vec![None; 3];
    };
    let (server, found) = ask(|| Faulty::start(&fates), change, Ask::Ntp, Algorithm::AesSivCmac256);
    assert_eq!(of_server(&found), expected(&fates, REQUESTS / fates.len() as u64));
    assert_eq!(server.seen(), (100, 15), "an address for each client of a thread, 5 ports each");
}

#[test]
fn messages_that_the_kernel_cuts_lose_nothing() {
    let _alone = alone();
    let change = |plan: &mut Plan| {
        plan.segments = 16;
        // All at once, so that there is something to cut.
        plan.shape = Shape::Burst { requests: 60 };
    };
    let nts = Ask::Nts(Placeholders::Fixed(2), CookieUse::Renew);
    let (_, found) = ask(answering, change, nts, Algorithm::AesSivCmac256);
    assert_eq!(of_server(&found), expected(&[Fate::Answer], REQUESTS));
    assert_eq!(found.total.tally.authenticated, REQUESTS);
}

#[test]
fn cookies_are_used_once_while_there_are_others_and_each_answer_fills_up() {
    let _alone = alone();
    // 400 cookies last for 0.8 seconds without an answer: longer than the delays that pass.
    let change = |plan: &mut Plan| plan.rate_per_second = 500.0;
    let (server, found) = ask(answering, change, NTS, Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.cookies_reused, 0);
    assert_eq!(server.cookies_repeated(), 0);
    let Clients::Nts(associations, ..) = &found.clients[0] else { panic!("NTS") };
    assert_eq!(associations.cookies_left(), 400, "all jars are full again");

    // Nothing comes back: four cookies each are used once, then the last one again.
    let (server, found) =
        ask(|| Faulty::start(&[Fate::Lose]), |_| {}, NTS, Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.cookies_reused, REQUESTS - 400);
    assert_eq!(server.cookies_repeated(), REQUESTS - 400);

    let replay = Ask::Nts(Placeholders::Fixed(0), CookieUse::Replay);
    let (server, found) = ask(answering, |_| {}, replay, Algorithm::AesSivCmac256);
    assert_eq!(found.total.tally.answered, REQUESTS);
    assert_eq!(server.cookies_repeated(), REQUESTS - 100);
}

#[test]
fn a_sample_of_the_answers_is_authenticated_and_a_forged_one_among_the_rest_passes() {
    let _alone = alone();
    let replay = Ask::Nts(Placeholders::Fixed(0), CookieUse::Replay);
    let change = |plan: &mut Plan| plan.verify_every = 4;
    let (_, found) =
        ask(|| Faulty::start(&[Fate::FlipTag]), change, replay, Algorithm::AesSivCmac256);
    let tally = &found.total.tally;
    assert_eq!(tally.invalid.tag, REQUESTS / 4);
    assert_eq!((tally.answered, tally.lost), (REQUESTS * 3 / 4, REQUESTS / 4));
}

#[test]
fn a_stop_ends_the_offer_and_keeps_the_results() {
    let _alone = alone();
    let server = answering();
    let mut plan = plan(&server, Ask::Ntp);
    plan.requests_max = u64::MAX;
    let stop = AtomicBool::new(false);
    let found = run(&plan, clients(&server, &plan, Algorithm::AesSivCmac256), &stop, |_, total| {
        if total.tally.offered > 0 {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .expect("a run");
    let tally = &found.total.tally;
    assert!(tally.requests_add_up() && tally.datagrams_add_up(), "{tally:?}");
    assert!((1..20_000).contains(&tally.offered), "not all of ten seconds");
    assert!(tally.answered > 0, "the results so far are kept");
}

/// Requests come at equal distances, and what comes during a stall of length S waits from S down to
/// nothing. A stall of 100 ms in every second: a tenth of the requests waits, evenly spread, so
/// 99 % of all wait no longer than 90 ms. A generator that waits for answers would see one request
/// in each stall. The model takes the stalls as long as they were.
#[test]
fn a_server_that_stalls_shows_as_arithmetic_says() {
    let _alone = alone();
    let start = || Faulty::stalling(Duration::from_millis(100), Duration::from_secs(1));
    let change = |plan: &mut Plan| {
        plan.requests_max = u64::MAX;
        plan.duration = Duration::from_secs(5);
        plan.quiet = Duration::from_millis(200);
    };
    for _ in 0..ATTEMPTS {
        let (server, found) = ask(start, change, Ask::Ntp, Algorithm::AesSivCmac256);
        assert_eq!(found.total.tally.answered, 10_000);
        let model = model(&server.stalls(), Duration::from_micros(500));
        let lateness = server.lateness();
        let quantile = |times: &[Duration], quantile: f64| {
            times[times.len() - 1 - ((1.0 - quantile) * times.len() as f64) as usize]
        };
        // Was the server kept from running by something else than its stalls?
        let is_calm = QUANTILES.iter().all(|&share| {
            let (seen, said) = (quantile(&lateness, share), quantile(&model, share));
            seen.abs_diff(said) < SLACK
        });
        if !is_calm || found.total.send_lag.quantile_ns(0.999) > SLACK.as_nanos() as u64 {
            println!("repeated: the machine stalled the server, or the generator, too");
            continue;
        }
        for share in QUANTILES {
            let seen = Duration::from_nanos(found.total.latency.quantile_ns(share));
            let said = quantile(&model, share);
            assert!(seen.abs_diff(said) < 2 * SLACK, "{share}: {seen:?}, the model says {said:?}");
        }
        return;
    }
    panic!("the machine is too busy to tell: {ATTEMPTS} runs were disturbed");
}

/// A thread may meet no other fate than to be answered after three timeouts.
fn wait_long(plan: &mut Plan) {
    plan.quiet = 4 * TIMEOUT;
}

const QUANTILES: [f64; 3] = [0.95, 0.99, 0.999];

/// What the machine may add to a wait: a tenth of a stall.
const SLACK: Duration = Duration::from_millis(10);

/// The waits of 10,000 requests, one in every `gap`, ascending.
fn model(stalls: &[Duration], gap: Duration) -> Vec<Duration> {
    let mut waits: Vec<Duration> = stalls
        .iter()
        .flat_map(|stall| {
            let caught = (stall.as_nanos() / gap.as_nanos()) as u32;
            (0..caught).map(move |number| *stall - gap * number)
        })
        .collect();
    waits.resize(10_000, Duration::ZERO);
    waits.sort_unstable();
    waits
}

fn answering() -> Faulty {
    Faulty::start(&[Fate::Answer])
}

#[test]
fn hostile_requests_are_what_they_say() {
    let _alone = alone();
    let reflector = Reflector::start(false, None).expect("a server");
    let ask = |twist| {
        let nts = Ask::Nts(Placeholders::Fixed(1), CookieUse::Replay);
        let mut plan = Plan::new(reflector.address, nts, 1000.0, Duration::from_secs(10));
        plan.requests_max = 200;
        plan.twist = twist;
        // Junk has no answer to wait for; the others have one, however busy the machine is.
        plan.timeout = if twist == Twist::Junk { TIMEOUT / 5 } else { 10 * TIMEOUT };
        let mut random = NonceGenerator::new().expect("random numbers");
        let minted = mint(&reflector.ring, Algorithm::AesSivCmac256, 10, 1, &mut random);
        let minted = minted.expect("memory");
        let clients = vec![Clients::Nts(minted, Placeholders::Fixed(1), CookieUse::Replay)];
        let found = run(&plan, clients, &AtomicBool::new(false), |_, _| {}).expect("a run");
        let tally = found.total.tally;
        assert!(tally.requests_add_up() && tally.datagrams_add_up(), "{tally:?}");
        tally
    };
    assert_eq!(ask(Twist::None).answered, 200);
    assert_eq!(ask(Twist::BadCookie).nak, 200);
    assert_eq!(ask(Twist::BadTag).nak, 200);
    let replayed = ask(Twist::Replay);
    assert_eq!((replayed.answered, replayed.received), (200, 200 + replayed.duplicates));
    assert!(replayed.duplicates > 0);
    // Some of it looks like NTP of an older version.
    let junk = ask(Twist::Junk);
    assert!(junk.lost > 100, "{junk:?}");
}

#[test]
fn interleaved_answers_are_told_from_basic_ones() {
    let (server, found) = ask(
        || Faulty::start(&[Fate::Interleave, Fate::Interleave, Fate::Lose, Fate::Interleave]),
        |plan| plan.interleaved = true,
        Ask::Ntp,
        Algorithm::AesSivCmac256,
    );
    let tally = of_server(&found);
    assert_eq!((tally.answered, tally.lost), (REQUESTS * 3 / 4, REQUESTS / 4), "{tally:?}");
    assert_eq!(tally.interleaved, server.interleaved());
    // Of 12 requests of a client one is its first, and one in four follows a lost answer.
    assert!(tally.interleaved > REQUESTS / 4, "{tally:?}");
    // A server that does not know the mode is asked in vain, and harms nobody.
    let interleaved = |plan: &mut Plan| plan.interleaved = true;
    let (_, found) = ask(answering, interleaved, Ask::Ntp, Algorithm::AesSivCmac256);
    assert_eq!((found.total.tally.answered, found.total.tally.interleaved), (REQUESTS, 0));
}
