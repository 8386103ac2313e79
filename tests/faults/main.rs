//! What clients see when something goes wrong, or is changed, under load. `cargo test --test
//! faults` makes every fault happen to a running server and prints the table.
#![allow(unreachable_pub, reason = "`pub` here means: for the other files of this program")]

mod clock;
#[path = "../common/mod.rs"]
mod common;
mod load;
mod observer;
mod system;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clock::{clock_hangs, clock_killed};
use common::server::{Server, kill, program, udp_client, wait_until};
use libtest_mimic::{Arguments, Failed, Trial};
use load::{KE_CLIENTS, Load, NTS_CLIENTS, Seen, answers, send_burst};
use rustix::process::Signal;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use system::{established_connections, is_gone, wait_for_pending, wait_for_state};
use time::{Duration as Days, OffsetDateTime};
use timeball::aead::Algorithm;
use timeball::certificate::{PemPair, self_signed};
use timeball::config::checked::default_control_socket;
use timeball::ke::client::{Options, establish};
use timeball::ke::exchange::Offer;
use timeball::process::control::{Request, ask};
use timeball::process::status::Reloaded;

const RESPONDER: &str = "responder";
const KEY_ESTABLISHMENT: &str = "key-establishment";
const CLOCK: &str = "clock";
const PROCESSES: usize = 3;

/// How long one reload follows the other.
const RELOADING: Duration = Duration::from_secs(60);
/// Requests that wait in a socket while nobody serves it: well within its buffer.
const BURST: usize = 64;

/// A fault: it happens, the function checks what must hold, and returns what was seen.
struct Fault {
    name: &'static str,
    /// What the table says beside the name.
    note: &'static str,
    happen: fn() -> Seen,
}

const FAULTS: [Fault; 19] = [
    Fault {
        name: "ke_process_killed",
        note: "kill -9 of one of three; its own handshakes end",
        happen: ke_process_killed,
    },
    Fault {
        name: "all_ke_processes_killed",
        note: "kill -9 of all three; others wait in the queue",
        happen: all_ke_processes_killed,
    },
    Fault {
        name: "ke_crash_loop",
        note: "every process killed as soon as there is one, 5 times",
        happen: ke_crash_loop,
    },
    Fault {
        name: "responder_killed",
        note: "kill -9; what it held is lost, what was queued is not",
        happen: responder_killed,
    },
    Fault {
        name: "responder_killed_with_a_queue",
        note: "kill -9 while 64 requests wait: they are answered",
        happen: responder_killed_with_a_queue,
    },
    Fault {
        name: "ke_process_hangs",
        note: "SIGSTOP of one, kill -9 of another and of the responder, SIGTERM",
        happen: ke_process_hangs,
    },
    Fault {
        name: "observer_killed",
        note: "kill -9 three times",
        happen: observer::observer_killed,
    },
    Fault {
        name: "observer_hangs",
        note: "SIGSTOP; the supervisor ends it and starts another",
        happen: observer::observer_hangs,
    },
    Fault {
        name: "supervisor_killed",
        note: "kill -9; all end, and are started anew by hand",
        happen: supervisor_killed,
    },
    Fault {
        name: "certificate_becomes_garbage",
        note: "or mismatched: the old pair stays, through kill -9 of all KE",
        happen: certificate_becomes_garbage,
    },
    Fault {
        name: "certificate_expires",
        note: "an expired pair is loaded, with a warning",
        happen: certificate_expires,
    },
    Fault {
        name: "certificate_is_renewed",
        note: "noticed by the change of the files",
        happen: certificate_is_renewed,
    },
    Fault {
        name: "certificate_is_added",
        note: "by a reload, and chosen by name",
        happen: certificate_is_added,
    },
    Fault {
        name: "reload_in_a_loop",
        note: "reloads in a row for a minute, certificates changed by each",
        happen: reload_in_a_loop,
    },
    Fault {
        name: "keys_rotate_three_times",
        note: "by `timeball keys rotate`; kill -9 of all KE after the second",
        happen: keys_rotate_three_times,
    },
    Fault {
        name: "wrong_configuration_is_reloaded",
        note: "and one with changes that need a restart",
        happen: wrong_configuration_is_reloaded,
    },
    Fault {
        name: "clock_killed",
        note: "kill -9, 3 times; the last truth is served meanwhile",
        happen: clock_killed,
    },
    Fault {
        name: "clock_hangs",
        note: "SIGSTOP; the last truth ages, then leap 3, until SIGCONT",
        happen: clock_hangs,
    },
    Fault {
        name: "terminated_with_a_queue",
        note: "64 requests and 8 connections wait when SIGTERM comes",
        happen: terminated_with_a_queue,
    },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Recovery times of faults that happen at the same time would say nothing.
    arguments.test_threads = Some(1);
    let rows: Arc<Mutex<BTreeMap<&'static str, Seen>>> = Arc::default();
    let trials = FAULTS.iter().map(|fault| {
        let rows = Arc::clone(&rows);
        Trial::test(fault.name, move || {
            let seen = catch_unwind(AssertUnwindSafe(fault.happen)).map_err(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Failed::from(text.unwrap_or("panicked"))
            })?;
            rows.lock().expect("not poisoned").insert(fault.name, seen);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        print_table(&rows.lock().expect("not poisoned"));
    }
    conclusion.exit_code()
}

fn print_table(rows: &BTreeMap<&'static str, Seen>) {
    println!(
        "\nFaults: what {NTS_CLIENTS} clients of NTS and {KE_CLIENTS} of NTS-KE saw, each asking \
         one time after the other\nlongest: the longest time that one client was without an answer \
         or handshake: the time of recovery\n"
    );
    println!(
        "{:<32} {:>8} {:>5} {:>4} {:>10} {:>6} {:>9} {:>9}",
        "fault", "answered", "lost", "NAK", "handshakes", "failed", "longest", "longest"
    );
    println!("{:<32} {:>40} {:>16}", "", "", "NTS        KE");
    for fault in &FAULTS {
        let Some(seen) = rows.get(fault.name) else { continue };
        println!(
            "{:<32} {:>8} {:>5} {:>4} {:>10} {:>6} {:>6} ms {:>6} ms  {}",
            fault.name,
            seen.answered,
            seen.lost,
            seen.naks,
            seen.handshakes,
            seen.failed,
            seen.nts_gap.as_millis(),
            seen.ke_gap.as_millis(),
            fault.note
        );
    }
    println!();
}

/// With all limits on, for clients on loopback too, and wider than what these clients ask for, some
/// of which repeat a cookie.
fn start() -> Server {
    let ke = format!(
        "processes = {PROCESSES}\nunlimited_clients = []\nprefix_connections_max = 1000\n\
         prefix_handshakes_per_second = 10000\n\
         [rate_limit]\nunlimited_clients = []\nrequests_per_second = 65536\n\
         nts_requests_per_second = 65536\ncookie_uses_per_second = 65536"
    );
    Server::start_with(Algorithm::AesSivCmac256, "", "", &ke)
}

/// A client of `server` that trusts each of these certificates (PEM).
fn trusting(server: &Server, certificates: &[&str]) -> Options {
    let mut roots = RootCertStore::empty();
    for pem in certificates {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        roots.add(der).expect("usable");
    }
    Options {
        host: "127.0.0.1".to_owned(),
        port: server.ke_port,
        config: timeball::ke::client::client_config(Arc::new(roots)),
        offer: Offer::default(),
        timeout: Duration::from_secs(5),
    }
}

/// A client that trusts the server's first certificate.
fn client(server: &Server) -> Options {
    trusting(server, &[&std::fs::read_to_string(server.certificate()).expect("the certificate")])
}

fn assert_nothing_lost(seen: &Seen) {
    assert_eq!((seen.lost, seen.naks, seen.failed), (0, 0, 0), "{seen:?}");
}

fn ke_process_killed() -> Seen {
    let server = start();
    let load = Load::start(&server, &client(&server));
    let killed = server.role_pids(KEY_ESTABLISHMENT)[0];
    kill(killed, Signal::KILL);
    wait_until("another process", || {
        let pids = server.role_pids(KEY_ESTABLISHMENT);
        pids.len() == PROCESSES && !pids.contains(&killed)
    });
    let seen = load.finish();
    assert_eq!((seen.lost, seen.naks), (0, 0), "{seen:?}");
    assert!(seen.failed <= KE_CLIENTS as u64, "more than were in its hands: {seen:?}");
    seen
}

fn all_ke_processes_killed() -> Seen {
    let server = start();
    let load = Load::start(&server, &client(&server));
    let killed = server.role_pids(KEY_ESTABLISHMENT);
    killed.iter().for_each(|&pid| kill(pid, Signal::KILL));
    wait_until("other processes", || {
        let pids = server.role_pids(KEY_ESTABLISHMENT);
        pids.len() == PROCESSES && !pids.iter().any(|pid| killed.contains(pid))
    });
    let seen = load.finish();
    assert_eq!((seen.lost, seen.naks), (0, 0), "{seen:?}");
    assert!(seen.failed <= KE_CLIENTS as u64, "more than were in their hands: {seen:?}");
    seen
}

fn ke_crash_loop() -> Seen {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "processes = 1");
    let responder = server.role_pids(RESPONDER);
    let load = Load::start_nts(&server, &client(&server));
    for _ in 0..5 {
        let killed = server.role_pids(KEY_ESTABLISHMENT);
        killed.iter().for_each(|&pid| kill(pid, Signal::KILL));
        wait_until("another process", || {
            let pids = server.role_pids(KEY_ESTABLISHMENT);
            pids.len() == 1 && pids != killed
        });
    }
    let seen = load.finish();
    assert_nothing_lost(&seen);
    assert_eq!(server.role_pids(RESPONDER), responder, "the responder was disturbed");
    seen
}

fn responder_killed() -> Seen {
    let server = start();
    let load = Load::start(&server, &client(&server));
    let killed = server.role_pids(RESPONDER);
    kill(killed[0], Signal::KILL);
    wait_until("another process", || {
        let pids = server.role_pids(RESPONDER);
        pids.len() == 1 && pids != killed
    });
    let seen = load.finish();
    assert!(seen.lost <= NTS_CLIENTS as u64, "more than were in its hands: {seen:?}");
    assert_eq!((seen.naks, seen.failed), (0, 0), "{seen:?}");
    seen
}

fn responder_killed_with_a_queue() -> Seen {
    let server = start();
    let established = establish(&client(&server)).expect("cookies");
    let responder = server.role_pid(RESPONDER).expect("a process");
    let load = Load::start(&server, &client(&server));
    kill(responder, Signal::STOP);
    wait_for_state(responder, 'T');
    let socket = udp_client(server.ntp());
    let burst = send_burst(&socket, &established, BURST);
    let begin = Instant::now();
    kill(responder, Signal::KILL);
    let answered = answers(&socket, burst);
    let recovery = begin.elapsed();
    let mut seen = load.finish();
    assert_eq!(answered, BURST, "what was queued was lost");
    assert!(seen.lost <= NTS_CLIENTS as u64, "more than were in its hands: {seen:?}");
    assert_eq!((seen.naks, seen.failed), (0, 0), "{seen:?}");
    seen.answered += answered as u64;
    seen.nts_gap = seen.nts_gap.max(recovery);
    seen
}

/// What a process that hangs holds up is itself alone.
fn ke_process_hangs() -> Seen {
    let mut server = start();
    let load = Load::start(&server, &client(&server));
    let hanging = server.role_pids(KEY_ESTABLISHMENT)[0];
    kill(hanging, Signal::STOP);
    wait_for_state(hanging, 'T');
    for role in [KEY_ESTABLISHMENT, RESPONDER] {
        let before = server.role_pids(role);
        kill(*before.last().expect("a process"), Signal::KILL);
        wait_until("another process", || {
            let pids = server.role_pids(role);
            pids.len() == before.len() && pids != before
        });
    }
    let seen = load.finish();
    assert!(seen.lost <= NTS_CLIENTS as u64, "more than were in its hands: {seen:?}");
    assert!(seen.failed <= 2 * KE_CLIENTS as u64, "more than were in their hands: {seen:?}");
    assert_eq!(seen.naks, 0, "{seen:?}");
    assert!(server.role_pids(KEY_ESTABLISHMENT).contains(&hanging));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(is_gone(hanging));
    seen
}

/// What systemd does with `Restart=on-failure` the test does by hand.
fn supervisor_killed() -> Seen {
    let mut server = start();
    let load = Load::start(&server, &client(&server));
    let roles = [RESPONDER, CLOCK, KEY_ESTABLISHMENT].map(|role| server.role_pids(role)).concat();
    assert_eq!(roles.len(), 2 + PROCESSES);
    server.signal(Signal::KILL);
    assert!(!server.wait().success());
    for role in roles {
        wait_until("a role ends with its supervisor", || is_gone(role));
    }
    server.restart();
    let seen = load.finish();
    assert_eq!(seen.naks, 0, "the keys are the same: {seen:?}");
    seen
}

fn certificate_becomes_garbage() -> Seen {
    let server = start();
    let client = client(&server);
    let load = Load::start(&server, &client);
    let certificate = server.certificate();
    let good = std::fs::read(&certificate).expect("the certificate");

    std::fs::write(&certificate, "garbage").expect("written");
    wait_for_log(&server, "the old certificate stays in use", 1);
    assert!(server.log().contains("has no PEM certificate in it"), "{}", server.log());
    server.signal(Signal::HUP);
    wait_for_log(&server, "reload refused, nothing has changed", 1);

    std::fs::write(&certificate, self_signed_pair(30).certificate_pem).expect("written");
    wait_for_log(&server, "the old certificate stays in use", 2);
    assert!(server.log().contains("do not belong together"), "{}", server.log());

    // Processes that are started meanwhile have the old pair too.
    let killed = server.role_pids(KEY_ESTABLISHMENT);
    killed.iter().for_each(|&pid| kill(pid, Signal::KILL));
    load.wait_for_successes();
    std::fs::write(&certificate, good).expect("written");
    wait_for_log(&server, "is new and loaded", 1);
    let seen = load.finish();
    assert_eq!((seen.lost, seen.naks), (0, 0), "{seen:?}");
    assert!(seen.failed <= KE_CLIENTS as u64, "more than the killed ones had: {seen:?}");
    seen
}

fn certificate_expires() -> Seen {
    let server = start();
    let client = client(&server);
    let load = Load::start_nts(&server, &client);
    let expired = self_signed_pair(-10);
    write(&server, &expired);
    wait_for_log(&server, "it has expired", 1);
    wait_for_log(&server, "is new and loaded", 1);
    // It is shown, and a client with the right time refuses it.
    let client = trusting(&server, &[&expired.certificate_pem]);
    wait_until("the expired certificate", || {
        establish(&client).is_err_and(|error| error.to_string().to_lowercase().contains("expired"))
    });
    let seen = load.finish();
    assert_nothing_lost(&seen);
    seen
}

fn certificate_is_renewed() -> Seen {
    let server = start();
    let old = std::fs::read_to_string(server.certificate()).expect("the certificate");
    let new = self_signed_pair(30);
    let both = trusting(&server, &[&old, &new.certificate_pem]);
    let load = Load::start(&server, &both);
    write(&server, &new);
    wait_for_log(&server, "is new and loaded", 1);
    wait_until("the new certificate", || shows(&both, &new));
    let seen = load.finish();
    // Every process has it: so many handshakes do not all meet the same one.
    (0..4 * PROCESSES).for_each(|_| assert!(shows(&both, &new)));
    assert_nothing_lost(&seen);
    seen
}

fn certificate_is_added() -> Seen {
    let server = start();
    let old = std::fs::read_to_string(server.certificate()).expect("the certificate");
    let [first, second] = ["127.0.0.1", "localhost"].map(|name| pair_of(&[name], 30));
    let path = server.directory.path();
    second.write(&path.join("2.pem"), &path.join("2.key"), false).expect("written");
    let trusted = [&old, &first.certificate_pem, &second.certificate_pem];
    let by_address = trusting(&server, &trusted.map(String::as_str));
    let by_name = Options { host: "localhost".to_owned(), ..by_address.clone() };
    let load = Load::start(&server, &by_address);

    write(&server, &first);
    let configuration = path.join("timeball.toml");
    let mut text = std::fs::read_to_string(&configuration).expect("the configuration");
    let files = format!("certificate = \"{0}/2.pem\"\nkey = \"{0}/2.key\"\n", path.display());
    text.push_str(&format!("[[ke.certificates]]\n{files}"));
    std::fs::write(&configuration, text).expect("written");
    server.signal(Signal::HUP);
    wait_for_log(&server, "the configuration was read again and holds", 1);
    wait_until("the second certificate", || shows(&by_name, &second));
    let seen = load.finish();
    for _ in 0..4 * PROCESSES {
        assert!(shows(&by_address, &first) && shows(&by_name, &second));
    }
    assert_nothing_lost(&seen);
    seen
}

fn reload_in_a_loop() -> Seen {
    let server = start();
    let pairs = [self_signed_pair(30), self_signed_pair(30)];
    let old = std::fs::read_to_string(server.certificate()).expect("the certificate");
    let trusted = [&old, &pairs[0].certificate_pem, &pairs[1].certificate_pem];
    let all = trusting(&server, &trusted.map(String::as_str));
    let load = Load::start(&server, &all);
    let roles = [server.role_pids(RESPONDER), server.role_pids(KEY_ESTABLISHMENT)];
    let (control_socket, begin) = (default_control_socket(server.directory.path()), Instant::now());
    for pair in pairs.iter().cycle().take_while(|_| begin.elapsed() < RELOADING) {
        write(&server, pair);
        ask::<Reloaded>(&control_socket, Request::Reload).expect("reloaded");
    }
    // As `systemctl reload` does.
    write(&server, &pairs[0]);
    server.signal(Signal::HUP);
    wait_until("the last certificate", || shows(&all, &pairs[0]));
    let seen = load.finish();
    assert_nothing_lost(&seen);
    let after = [server.role_pids(RESPONDER), server.role_pids(KEY_ESTABLISHMENT)];
    assert_eq!(after, roles, "a process was started again");
    seen
}

/// No process may be behind or ahead: not the others, and not one that starts in between.
fn keys_rotate_three_times() -> Seen {
    let server = start();
    let load = Load::start(&server, &client(&server));
    for rotation in 1..=3 {
        let place = ["keys", "rotate", "--state-directory"];
        let rotated = program().args(place).arg(server.directory.path()).output().expect("ran");
        assert!(rotated.status.success(), "{rotated:?}");
        if rotation == 2 {
            server.role_pids(KEY_ESTABLISHMENT).iter().for_each(|&pid| kill(pid, Signal::KILL));
        }
        // Each client has new cookies now, as it has after the time between two rotations.
        load.wait_for_successes();
    }
    let seen = load.finish();
    assert_eq!((seen.lost, seen.naks), (0, 0), "{seen:?}");
    assert!(seen.failed <= KE_CLIENTS as u64, "more than the killed ones had: {seen:?}");
    seen
}

fn wrong_configuration_is_reloaded() -> Seen {
    let server = start();
    let load = Load::start(&server, &client(&server));
    let path = server.directory.path().join("timeball.toml");
    let good = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, good.replace("[clock]", "[clok]")).expect("written");
    server.signal(Signal::HUP);
    wait_for_log(&server, "reload refused, nothing has changed", 1);
    assert!(server.log().contains("did you mean \"clock\"?"), "{}", server.log());

    let processes = format!("processes = {PROCESSES}");
    let moved = good
        .replace(&processes, "processes = 1\nntp_server = \"time.example.org\"")
        .replace("source = \"local\"", "source = \"local\"\nstratum = 5");
    assert_ne!(moved, good);
    std::fs::write(&path, moved).expect("written");
    server.signal(Signal::HUP);
    wait_for_log(&server, "the configuration was read again and holds", 1);
    for key in ["clock.stratum", "ke.processes"] {
        wait_for_log(&server, &format!("{key} changed: needs a restart"), 1);
    }
    let server_named = |established: timeball::ke::client::Established| {
        established.agreed.server.as_deref() == Some("time.example.org")
    };
    wait_until("the new ke.ntp_server", || establish(&client(&server)).is_ok_and(server_named));
    let seen = load.finish();
    assert_nothing_lost(&seen);
    seen
}

/// The responder and key establishment are held up, so that it is certain that something waits.
fn terminated_with_a_queue() -> Seen {
    let mut server = start();
    let client = client(&server);
    let established = establish(&client).expect("cookies");
    let roles = [server.role_pids(RESPONDER), server.role_pids(KEY_ESTABLISHMENT)].concat();
    roles.iter().for_each(|&role| kill(role, Signal::STOP));
    roles.iter().for_each(|&role| wait_for_state(role, 'T'));
    let socket = udp_client(server.ntp());
    let burst = send_burst(&socket, &established, BURST);
    let handshakes: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || establish(&client))
        })
        .collect();
    wait_until("the connections wait", || established_connections(server.ke_port) >= 8);

    let begin = Instant::now();
    server.signal(Signal::TERM);
    roles.iter().for_each(|&role| wait_for_pending(role, Signal::TERM));
    roles.iter().for_each(|&role| kill(role, Signal::CONT));
    let answered = answers(&socket, burst);
    let handshakes = handshakes.into_iter().map(|thread| thread.join().expect("a client"));
    let served = handshakes.filter(|result| result.is_ok()).count();
    assert!(server.wait().success(), "the exit code");
    let took = begin.elapsed();
    assert_eq!((answered, served), (BURST, 8));
    Seen {
        answered: answered as u64,
        handshakes: served as u64,
        nts_gap: took,
        ke_gap: took,
        ..Seen::default()
    }
}

/// A pair that expires in so many days.
fn self_signed_pair(days: i64) -> PemPair {
    pair_of(&["localhost", "127.0.0.1", "::1"], days)
}

fn pair_of(names: &[&str], days: i64) -> PemPair {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = OffsetDateTime::now_utc() + Days::days(days.min(0) - 1);
    self_signed(&names, Days::days(days.max(1)), made).expect("a certificate")
}

/// Replaces the server's pair.
fn write(server: &Server, pair: &PemPair) {
    let key = server.directory.path().join("key.pem");
    pair.write(&server.certificate(), &key, true).expect("written");
}

/// Whether a handshake shows this certificate.
fn shows(client: &Options, pair: &PemPair) -> bool {
    let der = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes());
    establish(client).expect("a handshake").chain[0] == der.expect("a certificate")
}

fn wait_for_log(server: &Server, text: &str, times: usize) {
    wait_until(text, || server.log().matches(text).count() >= times);
}
