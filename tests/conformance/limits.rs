//! Lines 82, 106 and 121: those who ask too often.

use timeball::aead::Algorithm;
use timeball::client::ResponseError;
use timeball::limits::DATAGRAM_BYTES;
use timeball::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};

use super::access::client_at;
use super::common::plain_request;
use super::common::server::{Server, udp_client};
use super::request::receive;
use super::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c082_rate_is_authenticated_for_authentic_requests),
        case!(c106_rate_is_a_kiss_and_limited),
        case!(c121_addresses_are_limited_and_not_locked_out),
    ]
}

/// As few as can be configured: eight at once. One worker answers one socket's requests in order.
fn server_with(limits: &str) -> Server {
    let lowest = "requests_per_second = 0.017\nnts_requests_per_second = 0.017";
    let sections =
        format!("source = \"local\"\n[rate_limit]\n{lowest}\nunlimited_clients = []\n{limits}");
    Server::start_with(Algorithm::AesSivCmac256, "workers = 1", &sections, "")
}

const BURST: usize = 8;

/// Beyond its burst one request in 1024 is answered with the time: not three in a row.
const TRIES: usize = 3;

fn c082_rate_is_authenticated_for_authentic_requests(_: &Server) {
    let server = server_with("kiss = true\nleak = 1024");
    let mut client = server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 8);
    let mut random = timeball::aead::NonceGenerator::new().expect("random numbers");
    let socket = udp_client(server.ntp());
    let mut ask = || {
        let mut request = vec![0; DATAGRAM_BYTES];
        let pending = client.request(&mut request, &mut random).expect("a cookie");
        socket.send(&request[..pending.request_bytes]).expect("sent");
        let response = client.response(&pending, &mut receive(&socket));
        assert_eq!(client.cookies(), 8, "every reply brings a cookie");
        response
    };
    for _ in 0..BURST {
        ask().expect("the time");
    }
    let rate = Err(ResponseError::Kiss(ReferenceId::KISS_RATE));
    assert!((0..TRIES).any(|_| ask() == rate));
}

fn c106_rate_is_a_kiss_and_limited(_: &Server) {
    let server = server_with("kiss = true\nleak = 1024");
    let socket = udp_client(server.ntp());
    let requests = 200;
    for number in 0..requests {
        let mut request = plain_request(4, Mode::Client);
        request[40..48].copy_from_slice(&u64::to_be_bytes(number as u64));
        socket.send(&request).expect("sent");
    }
    let witness = client_at(&server, [127, 0, 9, 9].into());
    witness.send(&plain_request(4, Mode::Client)).expect("sent");
    receive(&witness);
    socket.set_nonblocking(true).expect("set");
    let mut reply = [0; HEADER_BYTES + 1];
    let mut kisses = 0;
    while let Ok(length) = socket.recv(&mut reply) {
        assert_eq!(length, HEADER_BYTES);
        let header = Header::parse(&reply[..length]).expect("a header");
        assert!(header.origin_timestamp.to_bits() < requests as u64, "the request's own");
        if header.stratum == 0 {
            assert_eq!(header.reference_id, ReferenceId::KISS_RATE);
            assert_eq!(header.leap, Leap::Unsynchronised);
            kisses += 1;
        }
    }
    // Eight at once, and one a second: those of this test take less than half a minute.
    assert!((1..40).contains(&kisses), "{kisses}");
}

fn c121_addresses_are_limited_and_not_locked_out(_: &Server) {
    let server = server_with("leak = 4");
    let requests = 400;
    let answered = |source: [u8; 4]| {
        let (socket, witness) =
            (client_at(&server, source.into()), client_at(&server, [127, 8, source[2], 8].into()));
        for _ in 0..requests {
            socket.send(&plain_request(4, Mode::Client)).expect("sent");
        }
        witness.send(&plain_request(4, Mode::Client)).expect("sent");
        receive(&witness);
        socket.set_nonblocking(true).expect("set");
        (0..).take_while(|_| socket.recv(&mut [0; HEADER_BYTES]).is_ok()).count()
    };
    for source in [[127, 1, 1, 1], [127, 1, 2, 1]] {
        let answered = answered(source);
        // A quarter leaks: five standard deviations are 43.
        let leaked = answered - BURST;
        assert!((55..=141).contains(&leaked), "{leaked} of {}", requests - BURST);
    }
    assert!(server.counter("responder", "dropped_rate") > 0);
    assert!(server.counter("responder", "rate_leaked") > 0);
}
