//! timeball-load against real servers: chronyd and timeball, with keys by NTS-KE and minted.

mod common;
mod peer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::server::Server;
use peer::ChronydServer;
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::config::checked::default_control_socket;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::ke::client::Options;
use timeball::ke::exchange::Offer;
use timeball::limits::BATCH_DATAGRAMS;
use timeball_load::associations::harvest::{HarvestError, Trust, harvest};
use timeball_load::associations::{Associations, mint};
use timeball_load::counters::Watch;
use timeball_load::handshakes::{Pace, shake};
use timeball_load::plan::{Ask, CookieUse, Placeholders, Plan};
use timeball_load::report::html;
use timeball_load::report::terminal::search_comparison;
use timeball_load::request::Clients;
use timeball_load::run::{Found, run};
use timeball_load::search::Goal;
use timeball_load::slow::{Manner, hold};
use timeball_load::trials::Trials;

/// So few that all of them fit into a socket's buffer of the usual size, should the server not run
/// meanwhile; and more than the cookies of the clients that share them.
const REQUESTS: u64 = 150;

/// Asks as real clients do, and expects an authentic answer to every request.
fn assert_all_answered(server: SocketAddr, associations: Associations) -> Associations {
    let ask = Ask::Nts(Placeholders::Missing, CookieUse::Renew);
    let (clients, cookies) = (associations.len() as u64, associations.cookies_left());
    let found =
        ask_with(server, ask, Clients::Nts(associations, Placeholders::Missing, CookieUse::Renew));
    let tally = &found.total.tally;
    assert_eq!((tally.answered, tally.authenticated), (REQUESTS, REQUESTS), "{tally:?}");
    assert_eq!((tally.cookies_reused, tally.invalid.total()), (0, 0), "{clients} clients");
    let Some(Clients::Nts(associations, ..)) = found.clients.into_iter().next() else {
        panic!("NTS clients come back")
    };
    assert_eq!(associations.cookies_left(), cookies, "every cookie was renewed");
    associations
}

fn ask_with(server: SocketAddr, ask: Ask, clients: Clients) -> Found {
    let mut plan = Plan::new(server, ask, 1000.0, Duration::from_secs(30));
    plan.requests_max = REQUESTS;
    // Nobody else is asked meanwhile, but a busy machine may keep a server from running.
    plan.timeout = Duration::from_secs(10);
    run(&plan, vec![clients], &AtomicBool::new(false), |_, _| {}).expect("a run")
}

fn options(ke_port: u16, trust: &Trust, algorithm: Algorithm) -> Options {
    Options {
        host: "127.0.0.1".to_owned(),
        port: ke_port,
        config: trust.config().expect("trust"),
        offer: Offer { algorithms: [algorithm].into_iter().collect(), ..Offer::default() },
        timeout: Duration::from_secs(10),
    }
}

fn harvested(ke_port: u16, trust: &Trust, algorithm: Algorithm) -> (SocketAddr, Associations) {
    let options = options(ke_port, trust, algorithm);
    let saved = harvest(&options, 12, 4, &AtomicBool::new(false), || {}).expect("keys");
    assert_eq!((saved.associations.len(), saved.associations.cookies_left()), (12, 12 * 8));
    (saved.server, saved.associations)
}

fn trust(certificate: &Path) -> Trust {
    Trust::File(certificate.to_owned())
}

#[test]
fn timeball_answers_harvested_and_minted_clients() {
    let server = Server::start();
    let trust = trust(&server.certificate());
    let (ntp, clients) = harvested(server.ke_port, &trust, Algorithm::AesSivCmac256);
    assert_eq!(ntp, server.ntp());
    assert_all_answered(ntp, clients);

    let text = std::fs::read_to_string(server.directory.path().join("ntskeys")).expect("its keys");
    let ring = ntskeys::parse(&text).expect("well-formed").ring;
    let mut random = NonceGenerator::new().expect("random numbers");
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv] {
        let clients = mint(&ring, algorithm, 100, 8, &mut random).expect("memory");
        assert_all_answered(server.ntp_v6(), clients);
    }
    let found = ask_with(server.ntp_v6(), Ask::Ntp, Clients::Plain(10));
    assert_eq!(found.total.tally.answered, REQUESTS, "{:?}", found.total.tally);
}

#[test]
fn chronyd_answers_harvested_and_minted_clients() {
    let server = ChronydServer::start(None);
    let trust = trust(&server.certificate());
    let (ntp, clients) = harvested(server.ke_port, &trust, Algorithm::AesSivCmac256);
    assert_eq!(ntp.port(), server.ntp_port);
    assert_all_answered(ntp, clients);

    let ring = ntskeys::parse(&server.ntskeys()).expect("well-formed").ring;
    let mut random = NonceGenerator::new().expect("random numbers");
    let clients = mint(&ring, Algorithm::AesSivCmac256, 100, 8, &mut random).expect("memory");
    assert_all_answered(ntp, clients);
    let found = ask_with(ntp, Ask::Ntp, Clients::Plain(10));
    assert_eq!(found.total.tally.answered, REQUESTS, "{:?}", found.total.tally);
}

/// Asks plainly and by NTS in interleaved mode; the first `basic` answers of a client are not.
fn assert_interleaved(target: SocketAddr, ring: &KeyRing, basic: u64) {
    const CLIENTS: usize = 5;
    let mut random = NonceGenerator::new().expect("random numbers");
    let minted = mint(ring, Algorithm::AesSivCmac256, CLIENTS, 8, &mut random).expect("memory");
    let (placeholders, cookie_use) = (Placeholders::Missing, CookieUse::Renew);
    for (ask, clients) in [
        (Ask::Ntp, Clients::Plain(CLIENTS)),
        (Ask::Nts(placeholders, cookie_use), Clients::Nts(minted, placeholders, cookie_use)),
    ] {
        let mut plan = Plan::new(target, ask, 100.0, Duration::from_secs(30));
        plan.requests_max = 100;
        plan.timeout = Duration::from_secs(10);
        plan.interleaved = true;
        let found = run(&plan, vec![clients], &AtomicBool::new(false), |_, _| {}).expect("a run");
        let tally = &found.total.tally;
        assert_eq!(tally.answered, 100, "{tally:?}");
        // An answer that comes behind the next request makes that a basic one, which a busy machine
        // may do a few times.
        let most = 100 - basic * CLIENTS as u64;
        assert!((1..=most).contains(&tally.interleaved), "{tally:?}");
    }
}

#[test]
fn chronyd_answers_in_interleaved_mode() {
    let server = ChronydServer::start(None);
    let ring = ntskeys::parse(&server.ntskeys()).expect("well-formed").ring;
    // It keeps nothing for a client that has not asked in this mode yet.
    assert_interleaved(([127, 0, 0, 1], server.ntp_port).into(), &ring, 2);
}

#[test]
fn timeball_answers_in_interleaved_mode() {
    let server = Server::start();
    let text = std::fs::read_to_string(server.directory.path().join("ntskeys")).expect("its keys");
    let ring = ntskeys::parse(&text).expect("well-formed").ring;
    assert_interleaved(server.ntp(), &ring, 1);
}

#[test]
fn a_servers_own_counters_agree() {
    let server = Server::start();
    let control_socket = default_control_socket(server.directory.path());
    let watch = Watch::begin(&control_socket).expect("its control socket");
    let found = ask_with(server.ntp(), Ask::Ntp, Clients::Plain(10));
    assert_eq!(found.total.tally.answered, REQUESTS, "{:?}", found.total.tally);
    let samples = watch.finish();
    let last = samples.last().expect("asked at the end");
    // Counts are published behind the replies of their batch.
    let least = REQUESTS - BATCH_DATAGRAMS as u64;
    assert!((least..=REQUESTS).contains(&last.answers()), "{samples:?}");
    assert_eq!(last.counts.get("answered_nts"), None, "what has not changed is left out");
    assert!(samples.is_sorted_by(|one, next| one.seconds < next.seconds), "{samples:?}");
    drop(server);
    let error = Watch::begin(&control_socket).err().expect("nobody is there");
    assert!(error.to_string().contains("no server is running"), "{error}");
}

#[test]
fn searches_of_chronyd_and_timeball_stand_side_by_side() {
    let (chronyd, timeball) = (ChronydServer::start(None), Server::start());
    let timeballs = std::fs::read_to_string(timeball.directory.path().join("ntskeys"));
    let search = |target: SocketAddr, pid: u32, text: &str| {
        let ring = ntskeys::parse(text).expect("well-formed").ring;
        let mut random = NonceGenerator::new().expect("random numbers");
        let minted = mint(&ring, Algorithm::AesSivCmac256, 100, 1, &mut random).expect("memory");
        let (placeholders, cookie_use) = (Placeholders::Missing, CookieUse::Renew);
        let ask = Ask::Nts(placeholders, cookie_use);
        let mut plan = Plan::new(target, ask, 1.0, Duration::from_millis(200));
        plan.timeout = Duration::from_secs(10);
        let stop = AtomicBool::new(false);
        let clients = vec![Clients::Nts(minted, placeholders, cookie_use)];
        let trials = Trials { plan: &plan, clients, server_pid: Some(pid), stop: &stop };
        // So little that any server and any machine keep it: the highest rate is the verdict.
        let (low_per_second, high_per_second) = (50.0, 200.0);
        let (loss_max, resolution, repeats) = (0.9, 0.02, 1);
        let goal = Goal { low_per_second, high_per_second, loss_max, resolution, repeats };
        let report = trials.search(&goal, true, |_| {}).expect("a search");
        let verdict = report.verdict.as_ref().expect("not interrupted");
        assert_eq!((verdict.median_per_second, verdict.at_least), (high_per_second, true));
        let latency = report.latency(1.0).expect("a trial");
        assert!(latency.tally.answered > 0 && latency.server_ns_per_answer > Some(0.0));
        report
    };
    let target = ([127, 0, 0, 1], chronyd.ntp_port).into();
    let searches = [
        search(target, chronyd.chronyd.peer.pid(), &chronyd.ntskeys()),
        search(timeball.ntp(), timeball.pid(), &timeballs.expect("its keys")),
    ];
    let names = ["chronyd", "timeball"].map(str::to_owned);
    let table = search_comparison(&names, &searches);
    let rates = table.lines().find(|line| line.starts_with("highest rate kept")).expect("a row");
    assert_eq!(rates.matches("200 (x 1.00)").count(), 2, "{table}");
    let named: Vec<_> = names.into_iter().zip(searches).collect();
    let page = html::page(&[], &named);
    assert!(page.contains("Searches side by side") && page.contains("server CPU"), "{page}");
}

#[test]
fn a_certificate_is_verified_unless_told_otherwise() {
    let (server, other) = (Server::start(), Server::start());
    let stop = AtomicBool::new(false);
    let wrong = options(server.ke_port, &trust(&other.certificate()), Algorithm::AesSivCmac256);
    let error = harvest(&wrong, 3, 2, &stop, || {}).err().expect("another's certificate");
    assert!(matches!(error, HarvestError::Client(_)), "{error}");
    assert!(error.to_string().contains("--ca FILE"), "{error}");
    harvested(server.ke_port, &Trust::Anybody, Algorithm::AesSivCmac256);
}

#[test]
fn cookies_of_another_ring_are_counted_as_naks() {
    let (server, other) = (Server::start(), Server::start());
    let text = std::fs::read_to_string(other.directory.path().join("ntskeys")).expect("its keys");
    let ring = ntskeys::parse(&text).expect("well-formed").ring;
    let mut random = NonceGenerator::new().expect("random numbers");
    let clients = mint(&ring, Algorithm::AesSivCmac256, 10, 1, &mut random).expect("memory");
    let (placeholders, cookie_use) = (Placeholders::Fixed(0), CookieUse::Replay);
    let clients = Clients::Nts(clients, placeholders, cookie_use);
    let found = ask_with(server.ntp(), Ask::Nts(placeholders, cookie_use), clients);
    assert_eq!(found.total.tally.nak, REQUESTS, "{:?}", found.total.tally);
}

#[test]
fn exchanges_are_timed_in_their_parts_and_failures_counted_by_kind() {
    let (server, other) = (Server::start(), Server::start());
    let mut plan = Plan::new(server.ke(), Ask::Ntp, 50.0, Duration::from_secs(60));
    plan.requests_max = 40;
    let stop = AtomicBool::new(false);
    let shaken = |certificate: &Path, pace| {
        let mut options = options(server.ke_port, &trust(certificate), Algorithm::AesSivCmac256);
        options.timeout = Duration::from_secs(30);
        shake(&options, &plan, pace, 4, &stop, || {})
    };
    for pace in [Pace::Open, Pace::Closed] {
        let exchanges = shaken(&server.certificate(), pace);
        assert_eq!((exchanges.offered, exchanges.completed), (40, 40), "{:?}", exchanges.errors);
        assert_eq!(exchanges.total.count(), 40);
        let parts = [&exchanges.tcp, &exchanges.tls, &exchanges.records];
        assert!(parts.iter().all(|times| times.count() == 40));
        // TLS is what costs; a machine that is busy elsewhere may hold up either.
        assert!(exchanges.tls.min_ns() > exchanges.tcp.min_ns());
        let longest: u64 = parts.iter().map(|times| times.max_ns()).max().expect("three");
        assert!(exchanges.total.max_ns() as f64 >= longest as f64 * 0.999);
    }
    let exchanges = shaken(&other.certificate(), Pace::Open);
    assert_eq!(exchanges.completed, 0);
    assert_eq!(exchanges.errors.get("certificate"), Some(&40), "{:?}", exchanges.errors);
}

#[test]
fn a_silent_connection_is_closed_in_the_servers_time() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "timeout_seconds = 0.5");
    for manner in [Manner::Silent, Manner::SlowLoris] {
        let stop = AtomicBool::new(false);
        let borne = hold(server.ke(), manner, 3, Duration::from_secs(4), &stop);
        assert!(borne.closed >= 3, "{manner:?}: {borne:?}");
        // Not before its time.
        assert!(borne.lasted.min_ns() > 400_000_000, "{manner:?}: {borne:?}");
    }
}
