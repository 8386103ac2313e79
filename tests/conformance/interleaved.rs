//! Lines 111 to 120: interleaved mode (RFC 9769).

use std::net::UdpSocket;

use timeball::aead::Algorithm;
use timeball::wire::ntp::{Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

use crate::common::interleaved::{InterleavedClient, ReplyMode};
use crate::common::plain_request;
use crate::common::server::{Server, udp_client};
use crate::request::{Keyed, answer, receive};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c111_transmit_differs_from_receive),
        case!(c112_both_conditions_are_needed),
        case!(c113_replies_tell_when_the_one_before_left),
        case!(c114_a_replay_is_answered_in_basic_mode),
        case!(c115_a_lost_reply_costs_one_exchange),
        case!(c117_a_client_may_change_its_port),
        case!(c118_one_client_is_always_one_worker_s),
        case!(c120_nts_from_the_third_exchange_on),
    ]
}

fn exchange(socket: &UdpSocket, client: &mut InterleavedClient) -> (ReplyMode, Header) {
    socket.send(&client.request()).expect("sent");
    client.reply(&receive(socket))
}

/// A client whose next request names a pair.
fn known_client(socket: &UdpSocket) -> InterleavedClient {
    let mut client = InterleavedClient::default();
    for _ in 0..2 {
        assert_eq!(exchange(socket, &mut client).0, ReplyMode::Basic);
    }
    client
}

fn c111_transmit_differs_from_receive(server: &Server) {
    for _ in 0..100 {
        let header =
            Header::parse(&answer(server, &plain_request(4, Mode::Client))).expect("a header");
        assert_ne!(header.receive_timestamp, header.transmit_timestamp);
    }
    let socket = udp_client(server.ntp());
    let mut client = InterleavedClient::default();
    for _ in 0..100 {
        // Taking the reply asserts it.
        exchange(&socket, &mut client);
    }
}

fn c112_both_conditions_are_needed(server: &Server) {
    let socket = udp_client(server.ntp());
    let mut client = known_client(&socket);
    let request = client.request();
    let (origin, transmit) = (&request[24..32], &request[40..48]);
    for (place, field) in [(32, transmit), (24, transmit), (24, &[0; 8])] {
        let mut changed = request.clone();
        changed[place..place + 8].copy_from_slice(field);
        socket.send(&changed).expect("sent");
        assert_eq!(receive(&socket)[24..32], *transmit, "basic mode");
    }
    assert_ne!(origin, [0; 8]);
    socket.send(&request).expect("sent");
    assert_eq!(client.reply(&receive(&socket)).0, ReplyMode::Interleaved);
}

fn c113_replies_tell_when_the_one_before_left(server: &Server) {
    let socket = udp_client(server.ntp());
    let mut client = known_client(&socket);
    let mut received = NtpTimestamp::ZERO;
    for number in 0..100 {
        let (mode, header) = exchange(&socket, &mut client);
        assert_eq!(mode, ReplyMode::Interleaved);
        // Between the arrival of the request before and that of this one.
        let transmit = header.transmit_timestamp;
        assert!(transmit.seconds_since(header.receive_timestamp) < 0);
        assert!(number == 0 || transmit.seconds_since(received) > 0);
        received = header.receive_timestamp;
    }
}

fn c114_a_replay_is_answered_in_basic_mode(server: &Server) {
    let socket = udp_client(server.ntp());
    let mut client = known_client(&socket);
    let request = client.request();
    socket.send(&request).expect("sent");
    assert_eq!(client.reply(&receive(&socket)).0, ReplyMode::Interleaved);
    for _ in 0..5 {
        socket.send(&request).expect("sent");
        assert_eq!(receive(&socket)[24..32], request[40..48], "basic mode");
    }
}

fn c115_a_lost_reply_costs_one_exchange(server: &Server) {
    let socket = udp_client(server.ntp());
    let mut client = known_client(&socket);
    socket.send(&client.request()).expect("sent");
    receive(&socket);
    assert_eq!(exchange(&socket, &mut client).0, ReplyMode::Basic);
    assert_eq!(exchange(&socket, &mut client).0, ReplyMode::Interleaved);
}

fn c117_a_client_may_change_its_port(server: &Server) {
    let mut client = known_client(&udp_client(server.ntp()));
    for _ in 0..50 {
        let (mode, _) = exchange(&udp_client(server.ntp()), &mut client);
        assert_eq!(mode, ReplyMode::Interleaved);
    }
}

/// Of four workers, whatever the port: the reuseport program steers by address alone.
fn c118_one_client_is_always_one_worker_s(_: &Server) {
    let server = Server::start_with(Algorithm::AesSivCmac256, "workers = 4", "", "");
    for address in [server.ntp(), server.ntp_v6()] {
        let mut client = known_client(&udp_client(address));
        for _ in 0..50 {
            let (mode, _) = exchange(&udp_client(address), &mut client);
            assert_eq!(mode, ReplyMode::Interleaved);
        }
    }
}

fn c120_nts_from_the_third_exchange_on(server: &Server) {
    let keyed = Keyed::new(server);
    let socket = udp_client(server.ntp());
    let mut client = InterleavedClient::default();
    for number in 1..=20 {
        let mut parts = keyed.parts();
        client.prepare(&mut parts.header);
        socket.send(&keyed.seal(&parts)).expect("sent");
        let reply = receive(&socket);
        assert_eq!(keyed.cookies(&reply).len(), 1, "authentic");
        let expected = if number < 3 { ReplyMode::Basic } else { ReplyMode::Interleaved };
        assert_eq!(client.reply(&reply).0, expected, "exchange {number}");
    }
}
