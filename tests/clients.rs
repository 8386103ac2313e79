//! `timeball clients`: the networks that ask most, of a server that counts them.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::Output;

use common::plain_request;
use common::server::{ANSWER_WAIT, Server, free_tcp_port, kill, program, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use timeball::aead::Algorithm;
use timeball::wire::ntp::Mode;

fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments).arg("--config").arg(server.directory.path().join("timeball.toml"));
    command.output().expect("the program")
}

fn done(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Networks with their requests, in the order in which they are told.
fn networks(server: &Server) -> Vec<(String, u64)> {
    let told: Value = serde_json::from_str(&done(server, &["clients", "--json"])).expect("JSON");
    let network = |found: &Value| {
        assert_eq!(found["excess"], 0, "{found}");
        let name = found["network"].as_str().expect("text").to_owned();
        (name, found["requests"].as_u64().expect("a number"))
    };
    told["networks"].as_array().expect("a list").iter().map(network).collect()
}

fn ask(server: &Server, from: &str, times: u64) {
    let socket = UdpSocket::bind((from, 0)).expect("an address of this host");
    socket.connect((if from == "::1" { "::1" } else { "127.0.0.1" }, server.ntp_port)).expect("it");
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    for _ in 0..times {
        socket.send(&plain_request(4, Mode::Client)).expect("sent");
        socket.recv(&mut [0; 64]).expect("an answer");
    }
}

/// What the observer answers.
fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn networks_that_ask_most_come_first_and_outlive_the_responder() {
    let ntp = "workers = 2\ncount_networks = true";
    let observer = free_tcp_port();
    let observe = format!("[observe]\nlisten = \"127.0.0.1:{observer}\"");
    let server = Server::start_with(Algorithm::AesSivCmac256, ntp, "", &observe);
    assert_eq!(networks(&server), []);
    ask(&server, "127.0.77.1", 2);
    ask(&server, "127.0.77.200", 3);
    ask(&server, "127.0.88.1", 7);
    ask(&server, "::1", 1);
    let expected = [("127.0.88.0/24", 7), ("127.0.77.0/24", 5), ("::/48", 1)];
    let mut expected = expected.map(|(network, requests)| (network.to_owned(), requests));
    assert_eq!(networks(&server), expected);

    let text = done(&server, &["clients"]);
    assert!(text.starts_with("13 requests in ") && text.contains(" can be forged\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with("127.0.88.0/24")).expect(&text);
    assert!(line.contains(" 53.8 %"), "{line}");

    // Nowhere else.
    let metrics = page(observer, "/metrics");
    assert!(metrics.contains("answered_plain"), "{metrics}");
    let status = done(&server, &["status", "--json"]);
    for text in [metrics, page(observer, "/api/status"), status, server.log()] {
        assert!(!text.contains("127.0.88") && !text.contains("127.0.77"), "{text}");
    }

    let killed = server.role_pids("responder");
    kill(killed[0], Signal::KILL);
    wait_until("another responder", || {
        let pids = server.role_pids("responder");
        pids.len() == 1 && pids != killed
    });
    ask(&server, "127.0.88.1", 1);
    expected[0].1 += 1;
    assert_eq!(networks(&server), expected);
}

#[test]
fn without_the_key_nothing_is_counted() {
    let server = Server::start();
    ask(&server, "127.0.0.1", 1);
    let output = run(&server, &["clients"]);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("set ntp.count_networks = true and restart it"), "{message}");
    let needed = server.reload_with(|text| text.replace("[ntp]", "[ntp]\ncount_networks = true"));
    assert!(needed.contains("needs a restart: ntp.count_networks"), "{needed}");
}
