//! Lines 107 and 124: who is not answered.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use timeball::aead::Algorithm;
use timeball::ke::client::{
    ClientError, Established, Options, client_config, establish, roots_from_file,
};
use timeball::ke::exchange::Offer;
use timeball::wire::ntp::Mode;

use super::common::plain_request;
use super::common::server::{ANSWER_WAIT, Server, udp_client, wait_until};
use super::request::{Keyed, receive};
use super::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c107_whoever_is_denied_meets_silence),
        case!(c124_access_is_the_same_for_ntp_and_key_establishment),
    ]
}

/// One worker, which answers what waits in one socket in its order.
fn server_with(access: &str) -> Server {
    Server::start_with(
        Algorithm::AesSivCmac256,
        "workers = 1",
        &format!("source = \"local\"\n[access]\n{access}"),
        "",
    )
}

pub fn client_at(server: &Server, source: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).expect("an address of this host");
    socket.connect(server.ntp()).expect("connected");
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    socket
}

/// Whether a client at `source` is answered, and whether it is told anything if it is not. Another
/// client's answer comes after it would have been.
fn is_answered(server: &Server, source: Ipv4Addr, request: &[u8]) -> bool {
    let (socket, witness) = (client_at(server, source), udp_client(server.ntp()));
    socket.send(request).expect("sent");
    witness.send(&plain_request(4, Mode::Client)).expect("sent");
    receive(&witness);
    socket.set_nonblocking(true).expect("set");
    socket.recv(&mut [0; 2048]).is_ok()
}

fn c107_whoever_is_denied_meets_silence(_: &Server) {
    let server = server_with("deny = [\"127.0.0.2\"]");
    let denied = Ipv4Addr::new(127, 0, 0, 2);
    let client = Keyed::new(&server);
    let nts = client.seal(&client.parts());
    let mut nak = nts.clone();
    *nak.last_mut().expect("a tag") ^= 1;
    // What would be answered, refused by a NAK, or dropped for other reasons.
    for request in [plain_request(4, Mode::Client), nts, nak, vec![0; 7]] {
        assert!(!is_answered(&server, denied, &request), "{request:02x?}");
    }
    assert!(is_answered(&server, Ipv4Addr::new(127, 0, 0, 3), &plain_request(4, Mode::Client)));
    assert_eq!(server.counter("responder", "dropped_denied"), 4);
}

/// The same lists for both, at the start and after a reload.
fn c124_access_is_the_same_for_ntp_and_key_establishment(_: &Server) {
    let at_start = "allow = [\"127.0.0.0/8\", \"::/0\"]\n\
                    deny = [\"127.0.1.0/24\", \"::ffff:127.0.2.0/120\"]";
    let reloaded = "allow = [\"127.0.0.0/24\", \"127.0.2.0/31\"]\ndeny = [\"127.0.0.0/16\"]";
    let server = server_with(at_start);
    assert_access(&server, [true, false, false, true]);
    assert!(ask_over_ipv6(&server).is_ok());
    server.reload_with(|text| text.replace(at_start, reloaded));
    assert_access(&server, [true, false, true, false]);
    assert!(ask_over_ipv6(&server).is_err());
    // It is counted after the reset.
    wait_until("five resets are counted", || server.counter("key_establishment", "denied") == 5);
}

/// Which of the networks from 127.0.0.0/24 on are answered.
fn assert_access(server: &Server, answered: [bool; 4]) {
    for (network, is_allowed) in (0..).zip(answered) {
        let source = Ipv4Addr::new(127, 0, network, 1);
        let is_answered = is_answered(server, source, &plain_request(4, Mode::Client));
        assert_eq!(is_answered, is_allowed, "NTP from {source}");
        assert_eq!(is_served(server, source), is_allowed, "NTS-KE from {source}");
    }
}

fn ask_over_ipv6(server: &Server) -> Result<Established, ClientError> {
    establish(&Options {
        host: "::1".to_owned(),
        port: server.ke_port,
        config: client_config(roots_from_file(&server.certificate()).expect("a certificate")),
        offer: Offer::default(),
        timeout: ANSWER_WAIT,
    })
}

/// Whether key establishment lets a client at `source` say something. Who is denied is reset.
fn is_served(server: &Server, source: Ipv4Addr) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this host");
    socket.connect(&server.ke().into()).expect("the kernel accepts for every server");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    // No TLS: it is answered by an alert.
    let written = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let mut answer = Vec::new();
    let _ = written.and_then(|()| stream.read_to_end(&mut answer).map(|_| ()));
    !answer.is_empty()
}
