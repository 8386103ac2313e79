//! Lines 93 to 109 of the conformance table beside a running chronyd, whose clock is followed: what
//! it answers is answered alike, and where it is silent there is silence.

mod common;
mod peer;

use std::net::SocketAddr;

use common::plain_request;
use common::rig::receive;
use common::server::{Server, free_udp_port, udp_client, wait_until};
use peer::Chronyd;
use timeball::aead::Algorithm;
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::{NtpShort, NtpTimestamp};

/// What a reply has that does not change from one to the next.
#[derive(Debug, PartialEq)]
struct Reply {
    bytes: usize,
    leap: Leap,
    version: u8,
    mode: Mode,
    stratum: u8,
    poll: i8,
    root_delay: NtpShort,
    reference_id: ReferenceId,
    origin: NtpTimestamp,
}

/// What `server` answers, if it does: else the next request on the socket is answered first.
fn reply(server: SocketAddr, request: &[u8]) -> Option<Reply> {
    const MARKER: NtpTimestamp = NtpTimestamp::from_bits(u64::from_be_bytes(*b"marker!!"));
    let socket = udp_client(server);
    socket.send(request).expect("sent");
    let mut marker = plain_request(4, Mode::Client);
    marker[40..48].copy_from_slice(&MARKER.to_bits().to_be_bytes());
    socket.send(&marker).expect("sent");
    let reply = receive(&socket);
    let header = Header::parse(&reply).expect("a header");
    if header.origin_timestamp == MARKER {
        return None;
    }
    assert!((-30..=-10).contains(&header.precision), "{header:?}");
    assert!(header.transmit_timestamp.seconds_since(header.receive_timestamp) >= 0, "{header:?}");
    Some(Reply {
        bytes: reply.len(),
        leap: header.leap,
        version: header.version,
        mode: header.mode,
        stratum: header.stratum,
        poll: header.poll,
        root_delay: header.root_delay,
        reference_id: header.reference_id,
        origin: header.origin_timestamp,
    })
}

/// A request with something behind its header.
fn with_rest(version: u8, rest: &[u8]) -> Vec<u8> {
    [&plain_request(version, Mode::Client), rest].concat()
}

fn field(field_type: u16, body: &[u8]) -> Vec<u8> {
    let bytes = (4 + body.len()) as u16;
    [&field_type.to_be_bytes()[..], &bytes.to_be_bytes(), body].concat()
}

/// Each with its name.
fn requests() -> Vec<(String, Vec<u8>)> {
    let mut requests = Vec::new();
    for (version, mode) in (0..8).flat_map(|version| (0..8).map(move |mode| (version, mode))) {
        let mut request = plain_request(4, Mode::Client);
        request[0] = version << 3 | mode;
        requests.push((format!("version {version}, mode {mode}"), request));
    }
    for leap in 1..4 {
        let mut request = plain_request(4, Mode::Client);
        request[0] |= leap << 6;
        requests.push((format!("leap {leap}"), request));
    }
    for poll in [0, 3, 6, 17, 127, 255] {
        let mut request = plain_request(4, Mode::Client);
        request[2] = poll;
        requests.push((format!("poll {poll}"), request));
    }
    for transmit in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        let mut request = plain_request(4, Mode::Client);
        request[40..48].copy_from_slice(&transmit.to_be_bytes());
        requests.push((format!("transmit timestamp {transmit:016x}"), request));
    }
    for bytes in [0, 1, 4, 44, 47] {
        let request = plain_request(4, Mode::Client)[..bytes].to_vec();
        requests.push((format!("{bytes} bytes"), request));
    }
    for (version, bytes) in [3, 4].into_iter().flat_map(|it| [1, 4, 20, 24, 28].map(|n| (it, n))) {
        let name = format!("version {version} and a rest of {bytes} bytes");
        requests.push((name, with_rest(version, &vec![1; bytes])));
    }
    for body_bytes in [24, 60] {
        let request = with_rest(4, &field(0x4242, &vec![0; body_bytes]));
        requests.push((format!("an unknown field with {body_bytes} bytes"), request));
    }
    requests
}

/// Asks a chronyd with these lines of configuration, and a server that follows it.
fn compare(lines: &str) {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let _chronyd = Chronyd::server(ntp_port, command_port, lines);
    let chronyd = SocketAddr::from(([127, 0, 0, 1], ntp_port));
    let clock = format!(
        "source = \"follow\"\nchronyd = \"127.0.0.1:{command_port}\"\nfollow = \"{chronyd}\""
    );
    let server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, "");
    // A first round in which chronyd is late is a silent one.
    let plain = plain_request(4, Mode::Client);
    wait_until("its word", || reply(server.ntp(), &plain) == reply(chronyd, &plain));
    for (name, request) in requests() {
        let ours = reply(server.ntp(), &request);
        assert_eq!(ours, reply(chronyd, &request), "{name}");
        assert!(ours.is_none_or(|ours| ours.bytes <= request.len()), "{name}");
    }
}

#[test]
fn what_chronyd_answers_is_answered_alike() {
    compare("local stratum 6");
}

#[test]
fn the_same_while_it_has_no_time_to_tell() {
    compare("");
}
