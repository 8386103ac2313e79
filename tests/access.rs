//! Access lists of the running server: long ones, and reloads while clients ask.

mod common;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::plain_request;
use common::server::{ANSWER_WAIT, Server, program, udp_client, wait_until};
use rustix::process::Signal;
use timeball::aead::Algorithm;
use timeball::wire::ntp::Mode;

const DENIED: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);

/// A server whose `access.deny_file` is "deny" in its directory.
fn server() -> Server {
    let server = Server::start_with(Algorithm::AesSivCmac256, "workers = 2", "", "");
    write_list(&server, "");
    let file = server.directory.path().join("deny");
    server.reload_with(|text| format!("{text}\n[access]\ndeny_file = \"{}\"\n", file.display()));
    server
}

fn write_list(server: &Server, text: &str) {
    std::fs::write(server.directory.path().join("deny"), text).expect("written");
}

/// Networks of both families, none of this host: /28s of 198.0.0.0/8 and /64s of 2001:db8::/32.
fn long_list(networks: u32) -> String {
    let mut text = String::from("# a list\n");
    for number in 0..networks / 2 {
        let ipv4 = Ipv4Addr::from(0xc600_0000 + (number << 5));
        writeln!(text, "{ipv4}/28\n2001:db8:{:x}:{:x}::/64", number >> 16, number & 0xffff)
            .expect("a string takes it");
    }
    text
}

/// Whether a request from `source` is answered, before one of another client is, at the most: they
/// may meet different workers.
fn is_answered(server: &Server, source: Ipv4Addr) -> bool {
    let before = server.counter("responder", "dropped_denied");
    let socket = UdpSocket::bind((source, 0)).expect("an address of this host");
    socket.connect(server.ntp()).expect("connected");
    socket.send(&plain_request(4, Mode::Client)).expect("sent");
    socket.set_nonblocking(true).expect("set");
    let mut is_answered = false;
    wait_until("the request is decided", || {
        is_answered = socket.recv(&mut [0; 64]).is_ok();
        is_answered || server.counter("responder", "dropped_denied") > before
    });
    is_answered
}

#[test]
fn a_hundred_thousand_networks_are_reloaded_by_command_and_by_signal() {
    let server = server();
    assert!(is_answered(&server, DENIED));
    write_list(&server, &(long_list(100_000) + "127.200.0.0/16\n"));
    let said = server.reload_with(|text| text);
    assert!(said.contains("the access lists have changed"), "{said}");
    assert!(!is_answered(&server, DENIED));
    assert!(is_answered(&server, Ipv4Addr::new(127, 201, 0, 1)));
    write_list(&server, &long_list(100_000));
    server.signal(Signal::HUP);
    wait_until("the signal is obeyed", || is_answered(&server, DENIED));
}

/// A responder that is started again, and with it key establishment, has the lists of the last
/// reload.
#[test]
fn a_role_that_is_started_again_has_the_lists_of_the_last_reload() {
    let server = server();
    write_list(&server, "127.200.0.0/16");
    server.reload_with(|text| text);
    let before = server.role_pid("responder").expect("a process");
    common::server::kill(before, Signal::KILL);
    wait_until("another one serves", || {
        server.role_pid("responder").is_some_and(|pid| pid != before)
    });
    assert!(!is_answered(&server, DENIED));
    assert!(is_answered(&server, Ipv4Addr::LOCALHOST));
}

#[test]
fn a_list_that_is_wrong_changes_nothing_and_starts_nothing() {
    let server = server();
    write_list(&server, "127.200.0.0/16");
    server.reload_with(|text| text);
    write_list(&server, "192.0.2.0/24\nlocalhost\n");
    let path = server.directory.path().join("timeball.toml");
    for (arguments, code) in [(["config", "check"], 2), (["reload", "--config"], 1)] {
        let output = program().args(arguments).arg(&path).output().expect("run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("line 2: \"localhost\" is no network"), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    }
    assert!(!is_answered(&server, DENIED));
}

/// Two clients that ask all the time, over both families; every answer comes, and the first request
/// that is lost ends the test.
#[test]
fn reloads_lose_nothing() {
    let server = server();
    let is_over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        for address in [server.ntp(), server.ntp_v6()] {
            let (is_over, answered) = (&is_over, &answered);
            scope.spawn(move || {
                let socket = udp_client(address);
                socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
                while !is_over.load(Ordering::Relaxed) {
                    socket.send(&plain_request(4, Mode::Client)).expect("sent");
                    socket.recv(&mut [0; 64]).expect("every request is answered");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = EndOnDrop(&is_over);
        for round in 0..20 {
            let before = answered.load(Ordering::Relaxed);
            write_list(&server, &long_list(if round % 2 == 0 { 20_000 } else { 0 }));
            server.reload_with(|text| text);
            wait_until("clients go on", || answered.load(Ordering::Relaxed) > before + 10);
        }
        drop(end);
    });
    assert_eq!(server.counter("responder", "dropped_denied"), 0);
    assert_eq!(server.counter("responder", "receive_drops"), 0);
}

/// Or clients would go on when the test has failed.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
