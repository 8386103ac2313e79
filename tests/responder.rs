//! The responder process of a running server: what happens when it dies, and where io_uring is
//! forbidden.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use common::plain_request;
use common::rig::{Rig, receive};
use common::server::{ANSWER_WAIT, Server, udp_client, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::gettid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::limits::{DATAGRAM_BYTES, SWEEP_INTERVAL, WORKER_SLICE};
use timeball::sys::slice::{shorten_slice, slice_of};
use timeball::wire::ntp::Mode;

/// More than a batch, and more than the ports would take in one turn.
const REQUESTS: usize = 100;

/// What waits in the sockets outlives the process. The requests are sent while the responder is
/// stopped; then it dies as by a panic, before it can run again.
fn dead_responder_is_replaced(port: &str, death: &[Signal]) {
    let ntp = format!("port = \"{port}\"");
    let server = Server::start_with(Algorithm::AesSivCmac256, &ntp, "", "");
    let pid = stop_responder(&server);
    let clients = [udp_client(server.ntp()), udp_client(server.ntp_v6())];
    for client in &clients {
        for _ in 0..REQUESTS {
            client.send(&plain_request(4, Mode::Client)).expect("sent");
        }
    }
    for &signal in death {
        kill_process(pid, signal).expect("ours");
    }
    for client in &clients {
        for number in 0..REQUESTS {
            assert_eq!(receive(client).len(), 48, "reply {number} of {REQUESTS}");
        }
    }
    assert_ne!(server.role_pid("responder"), Some(pid.as_raw_pid() as u32));
}

/// Lets requests wait in their sockets.
fn stop_responder(server: &Server) -> Pid {
    let number = server.role_pid("responder").expect("a process");
    let pid = Pid::from_raw(number as i32).expect("not 0");
    kill_process(pid, Signal::STOP).expect("ours");
    wait_stopped(number);
    pid
}

/// A signal is sent at once and obeyed some time later, by each thread.
fn wait_stopped(pid: u32) {
    let start = Instant::now();
    let is_stopped = |state: &str| state.trim_start().starts_with('T');
    loop {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let all =
            threads.map(|thread| thread.expect("an entry").path().join("status")).all(|path| {
                let status = std::fs::read_to_string(path).expect("it runs");
                status.lines().find_map(|line| line.strip_prefix("State:")).is_some_and(is_stopped)
            });
        if all {
            return;
        }
        assert!(start.elapsed() < ANSWER_WAIT, "not stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_dead_responder_is_replaced_and_its_requests_answered() {
    // At once: a worker that goes on for a moment could take requests with it.
    dead_responder_is_replaced("mmsg", &[Signal::KILL]);
}

#[test]
fn a_dead_responder_is_replaced_over_uring() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    match Rig::open(true, vec![socket]) {
        // Killed, the kernel would take with the ring what it has moved into it.
        Ok(_) => dead_responder_is_replaced("uring", &[Signal::ABORT, Signal::CONT]),
        Err(unavailable) => println!("NOT tested here: {unavailable}"),
    }
}

/// A flood of plain requests, and of what is no request at all, loses what comes after it in their
/// queue. No NTS request waits there.
#[test]
fn a_queue_full_of_plain_requests_loses_no_nts_request() {
    let ntp = "workers = 1\nreceive_buffer_bytes = 16384";
    let server = Server::start_with(Algorithm::AesSivCmac256, ntp, "", "");
    let responder = stop_responder(&server);
    for address in [server.ntp(), server.ntp_v6()] {
        let flood = udp_client(address);
        for _ in 0..REQUESTS {
            flood.send(&plain_request(4, Mode::Client)).expect("sent");
            flood.send(&[0xa5; 1400]).expect("sent");
        }
    }
    let mut random = NonceGenerator::new().expect("random numbers");
    let late = [server.ntp(), server.ntp_v6()].map(|address| {
        let mut association = server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 1);
        let mut request = [0; DATAGRAM_BYTES];
        let pending = association.request(&mut request, &mut random).expect("a cookie");
        let client = udp_client(address);
        client.send(&request[..pending.request_bytes]).expect("sent");
        (client, association, pending)
    });
    kill_process(responder, Signal::CONT).expect("ours");
    for (nts, mut association, pending) in late {
        association.response(&pending, &mut receive(&nts)).expect("authentic");
    }
    // The kernel tells of drops with what it queues after them.
    let plain = udp_client(server.ntp());
    wait_until("drops are counted", || {
        plain.send(&plain_request(4, Mode::Client)).expect("sent");
        server.counter("responder", "receive_drops") > 0
    });
}

/// Runs `work` in a thread that may not set up a ring, nor may the processes that it starts: as
/// containers have it.
fn without_io_uring<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let forbidden = || {
        let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
        let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("one that it knows");
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture);
        let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
        seccompiler::apply_filter(&program).expect("filtered");
        work()
    };
    std::thread::scope(|scope| scope.spawn(forbidden).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn auto_serves_where_io_uring_is_forbidden() {
    let start = || Server::start_with(Algorithm::AesSivCmac256, "port = \"auto\"", "", "");
    let server = without_io_uring(start);
    assert!(server.banner.contains("port         mmsg (auto: "), "{}", server.banner);
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(receive(&client).len(), 48);
}

#[test]
fn uring_says_that_io_uring_is_forbidden_and_what_helps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let port = common::server::free_udp_port();
    let text = format!(
        "state_directory = \"{path}\"\n[ntp]\nlisten = [\"127.0.0.1:{port}\"]\nport = \"uring\"\n\
         [clock]\nsource = \"local\"\n"
    );
    let configuration = directory.path().join("timeball.toml");
    std::fs::write(&configuration, text).expect("written");
    let output = without_io_uring(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_timeball"));
        command.args(["serve", "--config"]).arg(&configuration).output().expect("the program")
    });
    let lines: Vec<String> =
        BufReader::new(&output.stderr[..]).lines().map(|line| line.expect("text")).collect();
    assert_eq!(output.status.code(), Some(1), "{lines:?}");
    let [message] = &lines[..] else { panic!("one sentence: {lines:?}") };
    assert!(message.contains("forbidden here, by a container's seccomp filter"), "{message}");
    assert!(message.contains("set ntp.port = \"mmsg\""), "{message}");
}

#[test]
fn workers_ask_for_short_slices() {
    let server = Server::start();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.role_pids("responder")[0]));
    let slices: Vec<Duration> = tasks
        .expect("running")
        .map(|task| task.expect("an entry").path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|it| it == "worker\n"))
        .map(|task| task.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw))
        .map(|thread| slice_of(thread.expect("a number")).expect("running"))
        .collect();
    // What this kernel makes of it, if anything.
    shorten_slice(WORKER_SLICE).expect("allowed to everybody");
    let expected = slice_of(gettid()).expect("this thread");
    assert!(!slices.is_empty());
    assert!(slices.iter().all(|slice| *slice == expected), "{slices:?}, not {expected:?}");
}

/// CPU time of a process so far: `/proc/PID/schedstat` of each of its threads (proc(5)).
fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let nanoseconds = tasks.map(|task| {
        let path = task.expect("an entry").path().join("schedstat");
        let text = std::fs::read_to_string(path).expect("statistics");
        text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).expect("a number")
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Polling at most a millisecond after the last request and each look at the clock, a worker that
/// has nothing to do stays far below a hundredth of its processor; one that never slept would take
/// all of it.
#[test]
fn an_idle_server_sleeps_even_if_it_polls() {
    let keys = "busy_poll_microseconds = 1000\nworkers = 1";
    let server = Server::start_with(Algorithm::AesSivCmac256, keys, "", "");
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(receive(&client).len(), 48);
    let pid = server.role_pid("responder").expect("a responder");
    let (start, before) = (Instant::now(), cpu_time(pid));
    while start.elapsed() < 5 * SWEEP_INTERVAL {
        std::thread::sleep(SWEEP_INTERVAL);
    }
    let used = cpu_time(pid) - before;
    println!("an idle worker that polls took {used:?} of {:?}", start.elapsed());
    assert!(used < start.elapsed() / 20, "{used:?} of {:?}", start.elapsed());
}
