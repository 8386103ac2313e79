//! Lines 85 to 124: NTP itself (RFC 5905), its extension fields (RFC 7822) and what is nobody's
//! business, over sockets.

use std::net::{SocketAddr, UdpSocket};

use timeball::aead::Algorithm;
use timeball::limits::DEPARTURE_AHEAD_REPLY_MAX;
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::NtpTimestamp;

use super::common::plain_request;
use super::common::server::{Server, udp_client};
use super::request::{Keyed, answer, assert_silence, put_field, receive};
use super::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c085_field_lengths),
        case!(c086_a_short_rest_is_a_mac),
        case!(c087_field_and_mac),
        case!(c088_impossible_lengths),
        case!(c089_unknown_field),
        case!(c090_datagram_lengths),
        case!(c091_trailer_of_old_versions),
        case!(c092_nts_with_a_mac),
        case!(c093_versions),
        case!(c094_modes),
        case!(c095_version_1_without_mode),
        case!(c096_origin_is_bit_exact),
        case!(c097_receive_before_transmit),
        case!(c098_reply_comes_from_the_address_asked),
        case!(c098_reply_comes_from_the_address_asked_over_uring),
        case!(c100_unsynchronised_is_told),
        case!(c101_stratum_is_as_declared),
        case!(c104_poll_and_precision),
        case!(c105_plain_reply_is_48_bytes),
        case!(c108_one_reply_per_request),
        case!(c109_mac_is_dropped),
        case!(c122_modes_6_and_7),
        case!(c123_reference_time_tells_little),
    ]
}

fn with_field(length: u16, bytes: usize) -> Vec<u8> {
    let mut request = plain_request(4, Mode::Client);
    let mut field = vec![0; bytes];
    field[..4].copy_from_slice(&[0x42, 0x42, (length >> 8) as u8, length as u8]);
    request.extend(field);
    request
}

fn c085_field_lengths(server: &Server) {
    assert_eq!(answer(server, &with_field(28, 28)).len(), 48);
    assert_eq!(
        answer(server, &[with_field(16, 16), with_field(28, 28)[48..].to_vec()].concat()).len(),
        48
    );
    for length in [4, 12, 15, 17, 30] {
        assert_silence(server, &with_field(length, 44));
    }
}

fn c086_a_short_rest_is_a_mac(server: &Server) {
    for bytes in [16, 20, 24] {
        assert_silence(server, &with_field(bytes as u16, bytes));
    }
    assert_eq!(answer(server, &with_field(28, 28)).len(), 48);
}

fn c087_field_and_mac(server: &Server) {
    for mac_bytes in [4, 20, 24] {
        let mut request = with_field(28, 28);
        request.extend(vec![1; mac_bytes]);
        assert_silence(server, &request);
    }
}

fn c088_impossible_lengths(server: &Server) {
    for length in [0, 1, 2, 3, 32, 0x7ffc, 0xfffc, 0xffff] {
        assert_silence(server, &with_field(length, 28));
    }
}

fn c089_unknown_field(server: &Server) {
    let mut request = with_field(40, 40);
    put_field(&mut request, 0x0104 ^ 0xffff, &[5; 60]);
    assert_eq!(answer(server, &request).len(), 48);
}

fn c090_datagram_lengths(server: &Server) {
    let mut long = plain_request(4, Mode::Client);
    put_field(&mut long, 0x4242, &vec![0; 1472 - 52]);
    assert_eq!(answer(server, &long).len(), 48, "the longest that fits");
    put_field(&mut long, 0x4242, &[0; 24]);
    assert_silence(server, &long);
    for length in [0, 1, 4, 44, 47] {
        assert_silence(server, &plain_request(4, Mode::Client)[..length]);
    }
    for extra in [1, 2, 3, 29] {
        let mut request = with_field(28, 28);
        request.extend(vec![0; extra]);
        assert_silence(server, &request);
    }
}

fn c091_trailer_of_old_versions(server: &Server) {
    for version in 1..=3 {
        let mut request = with_field(28, 28);
        request[0] = version << 3 | Mode::Client as u8;
        assert_silence(server, &request);
    }
}

fn c092_nts_with_a_mac(server: &Server) {
    for mac_bytes in [20, 24] {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.trailing = vec![1; mac_bytes];
        assert_silence(server, &client.seal(&parts));
    }
}

fn c093_versions(server: &Server) {
    for version in 1..=4 {
        let reply = answer(server, &plain_request(version, Mode::Client));
        let header = Header::parse(&reply).expect("a header");
        assert_eq!((header.version, header.mode), (version, Mode::Server));
    }
    for version in [0, 5, 6, 7] {
        assert_silence(server, &plain_request(version, Mode::Client));
    }
}

fn c094_modes(server: &Server) {
    let reply = answer(server, &plain_request(4, Mode::SymmetricActive));
    assert_eq!(Header::parse(&reply).expect("a header").mode, Mode::SymmetricPassive);
    for mode in [
        Mode::Reserved,
        Mode::SymmetricPassive,
        Mode::Server,
        Mode::Broadcast,
        Mode::Control,
        Mode::Private,
    ] {
        assert_silence(server, &plain_request(4, mode));
    }
}

fn c095_version_1_without_mode(server: &Server) {
    let reply = answer(server, &plain_request(1, Mode::Reserved));
    let header = Header::parse(&reply).expect("a header");
    assert_eq!((header.version, header.mode), (1, Mode::Server));
}

fn c096_origin_is_bit_exact(server: &Server) {
    for transmit in [0, u64::MAX, 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef] {
        let mut request = plain_request(4, Mode::Client);
        request[40..48].copy_from_slice(&transmit.to_be_bytes());
        let header = Header::parse(&answer(server, &request)).expect("a header");
        assert_eq!(header.origin_timestamp, NtpTimestamp::from_bits(transmit));
    }
}

fn now() -> NtpTimestamp {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    NtpTimestamp::from_unix(now.as_secs() as i64, now.subsec_nanos())
}

fn c097_receive_before_transmit(server: &Server) {
    for _ in 0..100 {
        let before = now();
        let header =
            Header::parse(&answer(server, &plain_request(4, Mode::Client))).expect("a header");
        let after = now();
        for pair in [before, header.receive_timestamp, header.transmit_timestamp].windows(2) {
            assert!(pair[1].seconds_since(pair[0]) >= 0, "{pair:?}");
        }
        // It is foretold, by so much and no more: a reply may leave sooner than those before it.
        assert!(header.transmit_timestamp.seconds_since(after) <= DEPARTURE_AHEAD_REPLY_MAX);
    }
}

/// All of 127.0.0.0/8 is this host: a server on the wildcard address is asked at several.
fn c098_reply_comes_from_the_address_asked(_: &Server) {
    replies_come_from_the_address_asked("");
}

/// The same through io_uring; where it is forbidden there is nothing to test.
fn c098_reply_comes_from_the_address_asked_over_uring(_: &Server) {
    let wake = std::io::pipe().expect("a pipe").0;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    match timeball::net::uring::UringPort::new(vec![socket], wake.into()) {
        Ok(_) => replies_come_from_the_address_asked("\nport = \"uring\""),
        Err(unavailable) => println!("NOT tested here: {unavailable}"),
    }
}

fn replies_come_from_the_address_asked(port: &str) {
    let listen = format!("listen = [\"0.0.0.0:PORT\", \"[::]:PORT\"]{port}");
    let server = Server::start_with(Algorithm::AesSivCmac256, &listen, "", "");
    for last in [1, 2, 77, 254] {
        let address = SocketAddr::from(([127, 0, 0, last], server.ntp_port));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(super::common::server::ANSWER_WAIT)).expect("set");
        socket.send_to(&plain_request(4, Mode::Client), address).expect("sent");
        let (_, from) = socket.recv_from(&mut [0; 100]).expect("an answer");
        assert_eq!(from, address);
    }
    let socket = udp_client(server.ntp_v6());
    socket.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(receive(&socket).len(), 48, "a connected socket takes replies of its peer only");
}

pub fn kernel_server() -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "source = \"kernel\"", "")
}

/// What `adjtimex` says here and now is what has to stand on the wire.
pub fn assert_kernel_state(header: &Header) {
    let kernel = timeball::sys::adjtimex::read().expect("adjtimex");
    if kernel.synchronised {
        assert_eq!(header.stratum, 3);
        assert_ne!(header.leap, Leap::Unsynchronised);
    } else {
        assert_eq!((header.leap, header.stratum), (Leap::Unsynchronised, 0));
        assert_eq!(header.reference_id, ReferenceId::NONE);
        assert_eq!(header.reference_timestamp, NtpTimestamp::ZERO);
    }
}

fn c100_unsynchronised_is_told(_: &Server) {
    let server = kernel_server();
    let reply = answer(&server, &plain_request(4, Mode::Client));
    assert_kernel_state(&Header::parse(&reply).expect("a header"));
}

fn c101_stratum_is_as_declared(_: &Server) {
    for stratum in [1, 15] {
        let clock = format!("source = \"local\"\nstratum = {stratum}");
        let server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, "");
        let reply = answer(&server, &plain_request(4, Mode::Client));
        assert_eq!(Header::parse(&reply).expect("a header").stratum, stratum);
    }
}

fn c104_poll_and_precision(server: &Server) {
    for poll in [0, 6, 10, 17, 255] {
        let mut request = plain_request(4, Mode::Client);
        request[2] = poll;
        let header = Header::parse(&answer(server, &request)).expect("a header");
        assert_eq!(header.poll, poll as i8);
        assert!((-30..=-10).contains(&header.precision), "precision {}", header.precision);
    }
}

fn c105_plain_reply_is_48_bytes(server: &Server) {
    assert_eq!(answer(server, &plain_request(4, Mode::Client)).len(), 48);
    let socket = udp_client(server.ntp_v6());
    socket.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(receive(&socket).len(), 48);
}

fn c108_one_reply_per_request(server: &Server) {
    let socket = udp_client(server.ntp());
    for index in 0..200_u64 {
        let mut request = plain_request(4, Mode::Client);
        request[40..48].copy_from_slice(&index.to_be_bytes());
        socket.send(&request).expect("sent");
        let reply = receive(&socket);
        assert!(reply.len() <= request.len());
        let header = Header::parse(&reply).expect("a header");
        assert_eq!(header.origin_timestamp.to_bits(), index, "an answer of another request");
    }
    socket.set_nonblocking(true).expect("set");
    let more = socket.recv(&mut [0; 100]).expect_err("a second answer").kind();
    assert_eq!(more, std::io::ErrorKind::WouldBlock);
}

fn c109_mac_is_dropped(server: &Server) {
    for version in [3, 4] {
        for mac_bytes in [4, 20, 24] {
            let mut request = plain_request(version, Mode::Client);
            request.extend(vec![1; mac_bytes]);
            assert_silence(server, &request);
        }
    }
}

fn c122_modes_6_and_7(server: &Server) {
    // ntpq's "read variables" and ntpdc's "monlist".
    let mut control = vec![0x26, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_silence(server, &control);
    control.resize(48, 0);
    assert_silence(server, &control);
    let mut private = vec![0x17, 0, 3, 42];
    assert_silence(server, &private);
    private.resize(192, 0);
    assert_silence(server, &private);
}

fn c123_reference_time_tells_little(server: &Server) {
    let header = Header::parse(&answer(server, &plain_request(4, Mode::Client))).expect("a header");
    assert_eq!(header.reference_timestamp.to_bits() as u32, 0, "whole seconds only");
    assert!(header.transmit_timestamp.seconds_since(header.reference_timestamp) > 0);
}
