//! Pages between real processes: one writes as fast as it can, others read; and those of a server.

mod common;

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::time::Instant;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use timeball::ke::counters::Counters as KeCounters;
use timeball::page::stats::{CounterSet, StatsPage, WorkerCounters};
use timeball::page::{Reader, Writer};
use timeball::wire::ntp::Mode;

use common::plain_request;
use common::server::{ANSWER_WAIT, Server, udp_client};

/// Words of the page: as many as the key page has.
const WORDS: usize = 20;
const LAYOUT: u64 = 1;

/// Different values that each reader takes.
const VALUES: usize = 5_000;
const READERS: usize = 3;

/// Between two writes, so that there are moments to take a whole copy in.
const PAUSE_SPINS: u32 = 50;

const CHILD_VARIABLE: &str = "TIMEBALL_TEST_PAGE_CHILD";
const PAGE_FD: i32 = 3;

/// A value whose words all follow from the first, so that one word of another value shows.
fn value(number: u64) -> [u64; WORDS] {
    std::array::from_fn(|word| (number + word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn no_process_sees_a_torn_value() {
    let mut page = Writer::<WORDS>::create("timeball-test", LAYOUT).expect("a page");
    page.write(&value(0));
    let mut readers: Vec<Child> = (0..READERS).map(|_| spawn_reader(&page)).collect();
    let mut number = 0;
    let mut is_done = false;
    while !is_done {
        for _ in 0..1000 {
            number += 1;
            page.write(&value(number));
            // Without a pause nothing is torn either, but the readers once took 40 s.
            (0..PAUSE_SPINS).for_each(|_| std::hint::spin_loop());
        }
        is_done = readers.iter_mut().all(|reader| reader.try_wait().expect("a child").is_some());
    }
    for mut reader in readers {
        assert!(reader.wait().expect("a child").success());
    }
    assert!(number > VALUES as u64);
}

fn spawn_reader(page: &Writer<WORDS>) -> Child {
    let parent_fd = page.file().try_clone_to_owned().expect("a descriptor");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child_reads"]).env(CHILD_VARIABLE, "1");
    command.fd_mappings(vec![FdMapping { parent_fd, child_fd: PAGE_FD }]).expect("one descriptor");
    command.spawn().expect("a child")
}

/// Not a test of its own: what the spawned children run.
#[test]
fn child_reads() {
    if std::env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    let page = File::open(format!("/proc/self/fd/{PAGE_FD}")).expect("inherited");
    let mut page = Reader::<WORDS>::open(page, LAYOUT).expect("a page");
    let inverse = 0xf1de_83e1_9937_733d_u64;
    let mut newest = 0;
    for _ in 0..VALUES {
        let found = loop {
            if let Some(found) = page.news() {
                break *found;
            }
        };
        let number = found[0].wrapping_mul(inverse);
        assert_eq!(found, value(number), "torn");
        assert!(number >= newest, "{number} came after {newest}");
        newest = number;
    }
}

/// The counter of this name, over all pages of its kind that the supervisor of a running server
/// holds, read from this process.
fn total<S: CounterSet>(server: &Server, name: &str) -> u64 {
    let files = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its descriptors");
    let mut seen = HashSet::new();
    let pages: Vec<StatsPage<S>> = files
        .map(|file| file.expect("an entry").path())
        .filter(|file| {
            let target = fs::read_link(file).unwrap_or_default();
            target.to_string_lossy().starts_with(&format!("/memfd:{}", S::PAGE))
        })
        // Gone again, if it was a duplicate for a role that is being started.
        .filter_map(|file| File::open(file).ok())
        .filter(|file| seen.insert(file.metadata().expect("its metadata").ino()))
        .map(|file| StatsPage::open(file.into()).expect("a page"))
        .collect();
    assert!(!pages.is_empty());
    let totals = pages.iter().flat_map(StatsPage::totals);
    totals.filter(|(found, _)| *found == name).map(|(_, count)| count).sum()
}

/// Waits until the counter is at `end`, and holds it to never going back.
fn assert_rises_to<S: CounterSet>(server: &Server, name: &str, end: u64) {
    let began = Instant::now();
    let mut before = 0;
    while before != end {
        let now = total::<S>(server, name);
        assert!(now >= before, "{name} went from {before} to {now}");
        assert!(now <= end, "{name} is {now}, more than {end}");
        assert!(began.elapsed() < ANSWER_WAIT, "{name} is {now}, not {end}");
        before = now;
    }
}

fn kill(server: &Server, role: &str) {
    let pid = server.role_pid(role).and_then(|pid| Pid::from_raw(pid as i32)).expect("the role");
    kill_process(pid, Signal::KILL).expect("killed");
}

#[test]
fn counters_are_read_by_others_and_survive_the_responder() {
    let server = Server::start();
    let socket = udp_client(server.ntp());
    for round in 1..=3 {
        for _ in 0..50 {
            socket.send(&plain_request(4, Mode::Client)).expect("sent");
            socket.recv(&mut [0; 48]).expect("an answer");
        }
        assert_rises_to::<WorkerCounters<'_>>(&server, "answered_plain", 50 * round);
        kill(&server, "responder");
        assert_eq!(total::<WorkerCounters<'_>>(&server, "answered_plain"), 50 * round);
    }
}

#[test]
fn counters_survive_key_establishment() {
    let server = Server::start();
    for round in 1..=2 {
        for _ in 0..5 {
            drop(TcpStream::connect(server.ke()).expect("connected"));
        }
        assert_rises_to::<KeCounters>(&server, "accepted", 5 * round);
        kill(&server, "key-establishment");
        assert_eq!(total::<KeCounters>(&server, "accepted"), 5 * round);
    }
}
