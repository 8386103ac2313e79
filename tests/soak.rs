//! A server that is asked, worn, rotated, reloaded and hurt for a while: nothing grows, no client
//! meets a NAK, and the counters add up.
//!
//! `TIMEBALL_SOAK_SECONDS=3600 cargo test --test soak -- --nocapture` for an hour; half a minute
//! otherwise. The first third kills roles, so what it leaves behind is the supervisor's; in the
//! second those that were started come to their size; so what grows in the last one is a leak.

mod common;
#[path = "faults/load.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod load;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::plain_request;
use common::server::{Server, free_tcp_port, kill, wait_until};
use load::{KE_CLIENTS, Load, NTS_CLIENTS, Seen};
use rustix::process::Signal;
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::config::checked::default_control_socket;
use timeball::engine::outcome::Outcome;
use timeball::ke::client::{Options, client_config, roots_from_file};
use timeball::ke::exchange::Offer;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::process::control::{Request, ask};
use timeball::process::status::{Reloaded, Rotated, ServerStats};
use timeball::wire::ntp::Mode;

/// How long it all lasts, unless told.
const SOAK_SECONDS_DEFAULT: u64 = 30;

/// What a process may have grown by in the last third: pages that an allocator keeps. A byte for
/// each handshake or request would be more within an hour.
const GROWTH_KIBIBYTES_MAX: u64 = 2048;

const ROLES: [&str; 4] = ["responder", "key-establishment", "clock", "observer"];

#[test]
fn nothing_grows_and_everything_adds_up() {
    let soak = Soak::start();
    let third = soak_time() / 3;
    let (hurt, kills) = soak.work(third, true);
    let (settling, _) = soak.work(third, false);
    let before = soak.processes();
    let (spared, _) = soak.work(third, false);
    wait_until("descriptors are given back", || {
        let has_more =
            |(name, process): (_, Process)| process.descriptors > before[&name].descriptors;
        !soak.processes().into_iter().any(has_more)
    });
    let after = soak.processes();
    soak.report(&[hurt, settling, spared], kills, [&before, &after]);

    for seen in [&hurt.clients, &settling.clients, &spared.clients] {
        assert_eq!(seen.naks, 0, "{seen:?}");
    }
    assert!(hurt.clients.lost <= kills * NTS_CLIENTS as u64, "{hurt:?}");
    assert!(hurt.clients.failed <= kills * KE_CLIENTS as u64, "{hurt:?}");
    for part in [&settling, &spared] {
        assert_eq!((part.clients.lost, part.clients.failed, part.crowd.lost), (0, 0, 0));
    }

    for (process, after) in &after {
        let before = &before[process];
        assert!(after.kibibytes <= before.kibibytes + GROWTH_KIBIBYTES_MAX, "{process} grows");
    }

    let sent: u64 = [hurt, settling, spared].iter().map(Part::sent).sum();
    let counted: u64 = soak
        .stats()
        .responder
        .iter()
        .filter(|(name, _)| is_outcome(name))
        .map(|(_, count)| count)
        .sum();
    // A batch is counted behind its replies: one that is killed in between takes it along.
    let lost_counts = kills * BATCH_DATAGRAMS as u64;
    assert!((sent.saturating_sub(lost_counts)..=sent).contains(&counted), "{counted} of {sent}");
}

fn soak_time() -> Duration {
    let told = std::env::var("TIMEBALL_SOAK_SECONDS").ok();
    let seconds = told.map_or(SOAK_SECONDS_DEFAULT, |text| text.parse().expect("seconds"));
    Duration::from_secs(seconds)
}

/// One outcome of a datagram, and neither a sum of others nor an event beside it.
fn is_outcome(counter: &str) -> bool {
    Outcome::ALL.iter().any(|outcome| outcome.name() == counter)
}

/// A server and what it takes to ask it.
struct Soak {
    server: Server,
    control_socket: PathBuf,
    options: Options,
}

/// What came of one third.
#[derive(Clone, Copy, Debug)]
struct Part {
    clients: Seen,
    crowd: Crowded,
    rounds: u64,
}

impl Part {
    /// Datagrams that were sent to the responder.
    fn sent(&self) -> u64 {
        self.clients.answered + self.clients.naks + self.clients.lost + self.crowd.sent
    }
}

impl Soak {
    fn start() -> Self {
        let observe = free_tcp_port();
        let ke = format!("processes = 2\n[observe]\nlisten = \"127.0.0.1:{observe}\"");
        let server = Server::start_with(Algorithm::AesSivCmac256, "", "", &ke);
        let options = Options {
            host: "127.0.0.1".to_owned(),
            port: server.ke_port,
            config: client_config(roots_from_file(&server.certificate()).expect("its certificate")),
            offer: Offer::default(),
            timeout: Duration::from_secs(10),
        };
        let control_socket = default_control_socket(server.directory.path());
        Self { server, control_socket, options }
    }

    /// Rounds of everything for a time; returns how many processes were killed, too.
    fn work(&self, time: Duration, is_hurt: bool) -> (Part, u64) {
        let begin = Instant::now();
        let load = Load::start(&self.server, &self.options);
        let crowd = Crowd::start(self.server.ntp());
        let (mut rounds, mut kills) = (0, 0);
        while begin.elapsed() < time || rounds == 0 {
            ask::<Rotated>(&self.control_socket, Request::RotateKeys).expect("rotated");
            // All have new cookies, as they have after the time between two rotations.
            load.wait_for_successes();
            self.touch_certificate();
            ask::<Reloaded>(&self.control_socket, Request::Reload).expect("reloaded");
            if is_hurt {
                ROLES.iter().for_each(|role| self.kill_one(role));
                kills += ROLES.len() as u64;
            }
            load.wait_for_successes();
            rounds += 1;
        }
        let crowd = crowd.finish();
        (Part { clients: load.finish(), crowd, rounds }, kills)
    }

    /// The same certificate in a new file: it is loaded again, and clients go on trusting it.
    fn touch_certificate(&self) {
        let path = self.server.certificate();
        let text = fs::read(&path).expect("the certificate");
        let new = path.with_extension("new");
        fs::write(&new, text).expect("written");
        fs::rename(&new, &path).expect("replaced");
    }

    fn kill_one(&self, role: &str) {
        let before = self.server.role_pids(role);
        let killed = before[0];
        kill(killed, Signal::KILL);
        wait_until("another process", || {
            let pids = self.server.role_pids(role);
            pids.len() == before.len() && !pids.contains(&killed)
        });
    }

    fn stats(&self) -> ServerStats {
        ask(&self.control_socket, Request::Serverstats).expect("its counters")
    }

    /// Every process without a client, by its role and number.
    fn processes(&self) -> BTreeMap<String, Process> {
        // Those that wait for their client to close have a descriptor until then.
        wait_until("no connection is left", || {
            let pids = self.server.role_pids("key-establishment");
            pids.iter().all(|&pid| connections(pid) == 0)
        });
        let mut processes = BTreeMap::new();
        processes.insert("supervisor".to_owned(), Process::look(self.server.pid()));
        for role in ROLES {
            for (number, pid) in self.server.role_pids(role).into_iter().enumerate() {
                processes.insert(format!("{role} {number}"), Process::look(pid));
            }
        }
        processes
    }

    fn report(&self, parts: &[Part; 3], kills: u64, processes: [&BTreeMap<String, Process>; 2]) {
        for (name, part) in ["hurt", "settling", "spared"].iter().zip(parts) {
            let (clients, crowd) = (&part.clients, &part.crowd);
            println!(
                "{name}: {} rounds; {} answers, {} lost, {} NAKs, {} handshakes, {} failed; the \
                 crowd sent {}",
                part.rounds,
                clients.answered,
                clients.lost,
                clients.naks,
                clients.handshakes,
                clients.failed,
                crowd.sent
            );
        }
        println!("{kills} processes were killed; in the last third:");
        let [before, after] = processes;
        for (process, after) in after {
            let before = &before[process];
            println!(
                "{process:<20} {:>6} to {:>6} KiB, {:>3} to {:>3} descriptors",
                before.kibibytes, after.kibibytes, before.descriptors, after.descriptors
            );
        }
    }
}

/// What a process has.
#[derive(Debug)]
struct Process {
    /// Memory of its own, in KiB.
    kibibytes: u64,
    descriptors: usize,
}

impl Process {
    fn look(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
        let kibibytes = line.trim().trim_end_matches(" kB").parse().expect("a number");
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("root").count();
        Self { kibibytes, descriptors }
    }
}

/// TCP connections that a process has. Its listeners are sockets, too, and stay.
fn connections(pid: u32) -> usize {
    let tcp: Vec<String> = ["tcp", "tcp6"]
        .iter()
        .flat_map(|name| {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{name}")).expect("procfs");
            // Local address, remote address, state (0A: LISTEN), ..., inode.
            let fields = |line: &str| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                (fields[3] != "0A").then(|| format!("socket:[{}]", fields[9]))
            };
            text.lines().skip(1).filter_map(fields).collect::<Vec<_>>()
        })
        .collect();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("root");
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| tcp.iter().any(|socket| link.as_os_str() == socket.as_str())).count()
}

/// Clients without NTS, broken ones, and noise.
struct Crowd {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Crowded>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Crowded {
    sent: u64,
    lost: u64,
}

impl Crowd {
    fn start(server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        Self { stop, thread: thread::spawn(move || Self::ask(server, &is_stopped)) }
    }

    fn finish(self) -> Crowded {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a crowd that panicked")
    }

    /// Noise, and behind it a request whose answer says that all has been looked at.
    fn ask(server: SocketAddr, is_stopped: &AtomicBool) -> Crowded {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(4))).expect("a time limit");
        let mut random = NonceGenerator::new().expect("random numbers");
        let request = plain_request(4, Mode::Client);
        let mut crowded = Crowded::default();
        while !is_stopped.load(Ordering::Relaxed) {
            for bytes in [1, 47, 100, 500, DATAGRAM_BYTES] {
                let mut noise = vec![0; bytes];
                random.fill(&mut noise);
                // No mode that is answered: what comes back belongs to the request.
                noise[0] = 0x24;
                socket.send(&noise).expect("sent");
            }
            let damaged = [&request[..], &[0x01, 0x04, 0, 36], &[7; 32]].concat();
            socket.send(&damaged[..70]).expect("sent");
            socket.send(&request).expect("sent");
            crowded.sent += 7;
            let mut reply = [0; DATAGRAM_BYTES];
            crowded.lost += u64::from(socket.recv(&mut reply).is_err());
        }
        crowded
    }
}
