//! Lines 43 to 46: clients that are idle, slow or never stop, and a process that is killed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::HandshakeKind;
use timeball::limits::KE_REQUEST_BYTES_MAX;

use super::{assert_cookies_are_good, long_request, server_with};
use crate::common::server::{ANSWER_WAIT, Server, wait_until};
use crate::tls::{ALPN, Client, ask, config, good_request, record, tcp};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c043_idle_connections_block_nobody),
        case!(c043_idle_connections_end_in_time),
        case!(c043_dripping_does_not_prolong),
        case!(c044_no_tickets_and_no_early_data),
        case!(c044_key_updates_come_to_an_end),
        case!(c046_killed_key_establishment_does_not_stop_ntp),
    ]
}

/// Connections that wait for ever: at TCP, within the ClientHello, and within the request.
fn idle(server: &Server, of_each: usize) -> (Vec<TcpStream>, Vec<Client>) {
    let hello_begun = (0..of_each).map(|_| {
        let mut socket = tcp(server.ke());
        socket.write_all(&[22, 3, 1, 0, 200, 1, 0, 0]).expect("sent");
        socket
    });
    let sockets = (0..of_each).map(|_| tcp(server.ke())).chain(hello_begun).collect();
    let requests_begun = (0..of_each).map(|_| {
        let mut client = Client::connect(server);
        client.say(&good_request()[..7]);
        client
    });
    (sockets, requests_begun.collect())
}

fn c043_idle_connections_block_nobody(_: &Server) {
    let server = server_with("timeout_seconds = 60");
    let (sockets, clients) = idle(&server, 32);
    ask(&server, &good_request()).assert_agreed();
    for socket in sockets.iter().chain(clients.iter().map(|client| &client.socket)) {
        socket.set_nonblocking(true).expect("set");
        let end = socket.peek(&mut [0]).expect_err("it is not idle any more");
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
    }
    // More of them than the server has places for.
    let server = server_with("timeout_seconds = 60\nconnections_max = 16");
    let all = idle(&server, 32);
    ask(&server, &good_request()).assert_agreed();
    drop(all);
}

fn c043_idle_connections_end_in_time(_: &Server) {
    let begin = Instant::now();
    let server = server_with("timeout_seconds = 2");
    let (sockets, mut clients) = idle(&server, 16);
    for mut socket in sockets {
        let end = socket.read(&mut [0; 16]).expect("closed by the server");
        assert_eq!(end, 0, "an answer to nothing");
    }
    clients.iter_mut().for_each(|client| client.reply().assert_error(1));
    assert!(begin.elapsed() >= Duration::from_secs(2), "it was not the timer");
}

/// A client that always has something to say has no more time than others.
fn c043_dripping_does_not_prolong(_: &Server) {
    let server = server_with("timeout_seconds = 2");
    let mut client = Client::connect(&server);
    let begin = Instant::now();
    let request = long_request(KE_REQUEST_BYTES_MAX);
    client.socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let has_ended = |client: &Client| client.socket.peek(&mut [0]).is_ok();
    let mut drops = request.iter();
    while !has_ended(&client) {
        assert!(begin.elapsed() < ANSWER_WAIT, "the time was prolonged");
        client.say(&[*drops.next().expect("a long request")]);
    }
    client.socket.set_read_timeout(Some(ANSWER_WAIT)).expect("set");
    client.reply().assert_error(1);
}

fn c044_no_tickets_and_no_early_data(server: &Server) {
    let mut config = config(server, &[ALPN]);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let client = Client::handshake(Arc::clone(&config), server.ke());
        let mut client = client.expect("a handshake");
        assert_eq!(client.tls.handshake_kind(), Some(HandshakeKind::Full), "resumed");
        assert!(!client.tls.is_early_data_accepted());
        client.say(&good_request());
        client.reply().assert_agreed();
        assert_eq!(client.tls.tls13_tickets_received(), 0);
    }
}

/// The server has a minute of patience: it is the flood that ends the connection.
fn c044_key_updates_come_to_an_end(server: &Server) {
    let mut client = Client::connect(server);
    let update =
        |client: &mut Client| client.tls.refresh_traffic_keys().is_ok() && client.flush().is_ok();
    let _ = (0..1000).take_while(|_| update(&mut client)).count();
    let (bytes, _) = client.finish();
    assert!(bytes.is_empty());
    // With data between them, which makes them look less like a flood.
    let mut client = Client::connect(server);
    let piece = record(0x4001, &[]);
    let update = |client: &mut Client| {
        client.tls.refresh_traffic_keys().is_ok() && client.try_say(&piece).is_ok()
    };
    let _ = (0..10_000).take_while(|_| update(&mut client)).count();
    client.finish();
    ask(server, &good_request()).assert_agreed();
}

fn c046_killed_key_establishment_does_not_stop_ntp(_: &Server) {
    let server = server_with("");
    let before = ask(&server, &good_request());
    let responder = server.role_pid("responder").expect("a process");
    let killed = server.role_pid("key-establishment").expect("a process");
    let pid = Pid::from_raw(killed as i32).expect("not 0");
    kill_process(pid, Signal::KILL).expect("killed");
    assert_cookies_are_good(&before, server.ntp());

    // A signal is sent at once and obeyed some time later.
    wait_until("another process of key establishment", || {
        server.role_pid("key-establishment").is_some_and(|pid| pid != killed)
    });
    let config = Arc::new(config(&server, &[ALPN]));
    let deadline = Instant::now() + ANSWER_WAIT;
    // A connection may have fallen to the process that ended.
    while Client::handshake(Arc::clone(&config), server.ke()).is_err() {
        assert!(Instant::now() < deadline, "key establishment did not come back");
    }
    let after = ask(&server, &good_request());
    assert_cookies_are_good(&after, server.ntp());
    assert_eq!(server.role_pid("responder"), Some(responder));
}
