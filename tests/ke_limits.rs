//! Floods of connections against the running server: descriptors stay bounded, and whoever is not
//! of the flooding prefix is served. CVE-2024-38528 of another server is the model: idle
//! connections held all of its descriptors.
//!
//! 127.0.0.0/24 floods, ::1 is somebody else.

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use common::server::{ANSWER_WAIT, Server, program, wait_until};
use socket2::{Domain, Socket, Type};
use timeball::aead::Algorithm;
use timeball::ke::client::{ClientError, Options, client_config, establish, roots_from_file};
use timeball::ke::exchange::Offer;
use timeball::limits::KE_DESCRIPTORS_BESIDE;

/// One process, whose connections outlive the test unless they are reset.
const ALONE: &str = "processes = 1\ntimeout_seconds = 60\nunlimited_clients = []";

fn server_with(ke: &str) -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "", &format!("{ALONE}\n{ke}"))
}

/// Key establishment as a client of another prefix.
fn ask(server: &Server) -> Result<(), ClientError> {
    establish(&Options {
        host: "::1".to_owned(),
        port: server.ke_port,
        config: client_config(roots_from_file(&server.certificate()).expect("a certificate")),
        offer: Offer::default(),
        timeout: ANSWER_WAIT,
    })
    .map(|established| assert_eq!(established.agreed.cookies.len(), 8))
}

/// A connection from `source` that begins a ClientHello and says no more.
fn idle(server: &Server, source: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this host");
    socket.connect(&server.ke().into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    // It may have been reset already.
    let _ = stream.write_all(&[22, 3, 1, 0, 200, 1, 0, 0]);
    stream
}

fn descriptors(server: &Server) -> usize {
    let pid = server.role_pid("key-establishment").expect("a process");
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count()
}

fn counter(server: &Server, name: &str) -> u64 {
    let output = program()
        .args(["serverstats", "--json", "--config"])
        .arg(server.directory.path().join("timeball.toml"))
        .output()
        .expect("the program");
    let stats: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    stats["key_establishment"][name].as_u64().unwrap_or_else(|| panic!("{name}: {stats}"))
}

#[test]
fn a_prefix_has_its_share_of_descriptors_and_no_more() {
    let server = server_with("prefix_connections_max = 16\nprefix_handshakes_per_second = 0.0");
    let before = descriptors(&server);
    let flood: Vec<_> =
        (0..500).map(|n| idle(&server, [127, 0, 0, 1 + (n % 200) as u8].into())).collect();
    ask(&server).expect("served");
    // Those that are still to be refused have a descriptor for a moment.
    wait_until("the rest is refused", || counter(&server, "prefix_connections") == 500 - 16);
    assert!(descriptors(&server) <= before + 16 + 1, "{} of {before}", descriptors(&server));
    drop(flood);
    wait_until("all descriptors are given back", || descriptors(&server) <= before);
}

#[test]
fn many_prefixes_have_all_places_and_no_more() {
    let server = server_with("connections_max = 64\nprefix_handshakes_per_second = 0.0");
    let before = descriptors(&server);
    let flood: Vec<_> =
        (0..500).map(|n| idle(&server, [127, 0, (n % 250) as u8, 1].into())).collect();
    // Or those that still wait at the other listener would come after the one that asks.
    wait_until("all are accepted", || counter(&server, "accepted") == 500);
    ask(&server).expect("served");
    assert!(descriptors(&server) <= before + 64, "{} of {before}", descriptors(&server));
    drop(flood);
    wait_until("all descriptors are given back", || descriptors(&server) <= before);
}

/// Fewer descriptors than places: the limit of the system bounds the places.
#[test]
fn a_low_limit_of_open_files_keeps_nobody_out() {
    let descriptors_max = KE_DESCRIPTORS_BESIDE + 32;
    let limited = || {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors_max}")).arg("--");
        command.arg(program().get_program());
        command
    };
    let more = format!("{ALONE}\nprefix_connections_max = 0\nprefix_handshakes_per_second = 0.0");
    let master = Algorithm::AesSivCmac256;
    let server = Server::start_by(|_, _| limited(), master, ["", "", &more]);
    let before = descriptors(&server);
    let flood: Vec<_> = (0..400).map(|_| idle(&server, Ipv4Addr::LOCALHOST)).collect();
    wait_until("all are accepted", || counter(&server, "accepted") == 400);
    for _ in 0..3 {
        ask(&server).expect("served");
    }
    assert!(descriptors(&server) <= before + 32, "{} of {before}", descriptors(&server));
    assert_eq!(counter(&server, "accept_failed"), 0);
    drop(flood);
}

/// A flood of one prefix, and the limits lifted for it by a reload.
#[test]
fn limits_are_reloaded() {
    let server = server_with("prefix_handshakes_per_second = 0.02");
    ask(&server).expect("served");
    ask(&server).expect_err("one in 50 s");
    // The client hears of it before the counter is published.
    wait_until("it is counted", || counter(&server, "prefix_rate") == 1);
    let path = server.directory.path().join("timeball.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let text = text.replace("unlimited_clients = []", "unlimited_clients = [\"::1\"]");
    std::fs::write(&path, text).expect("written");
    let output = program().args(["reload", "--config"]).arg(&path).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ke.unlimited_clients") && output.status.success(), "{said}");
    for _ in 0..10 {
        ask(&server).expect("served");
    }
    assert_eq!(counter(&server, "prefix_rate"), 1);
}

/// Nobody who asks from this host meets the limits, unless the configuration says so.
#[test]
fn this_host_is_unlimited_by_default() {
    let server = Server::start_with(
        Algorithm::AesSivCmac256,
        "",
        "",
        "prefix_connections_max = 1\nprefix_handshakes_per_second = 0.02",
    );
    let idle: Vec<_> = (0..10).map(|_| idle(&server, Ipv4Addr::LOCALHOST)).collect();
    for _ in 0..10 {
        ask(&server).expect("served");
    }
    drop(idle);
}
