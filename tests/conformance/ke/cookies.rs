//! Lines 30 to 37: cookies, and the servers where they are good (RFC 8915 sections 4.1.6 to 4.1.8).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use timeball::aead::Algorithm;
use timeball::ke::negotiate::NtpServer;
use timeball::limits::KE_REQUEST_BYTES_MAX;

use super::{assert_cookies_are_good, ke_v6, ntp_address, server_with};
use crate::common::server::Server;
use crate::tls::{
    COOKIE, CRITICAL, PORT, Reply, SERVER, ask, ask_at, good_request, record, request,
};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c030_eight_cookies_not_critical),
        case!(c030_eight_cookies_whatever_is_asked),
        case!(c031_cookies_fit_all_clients),
        case!(c032_cookies_are_good_at_the_server_named),
        case!(c033_server_record_names_an_address_or_a_host),
        case!(c034_without_a_server_record_the_same_address),
        case!(c035_port_record),
        case!(c035_no_port_record_means_123),
        case!(c036_a_server_that_is_ours_is_echoed),
        case!(c036_otherwise_the_same_family),
        case!(c037_critical_server_and_port),
    ]
}

fn c030_eight_cookies_not_critical(server: &Server) {
    let reply = ask(server, &good_request());
    assert_eq!(reply.cookies().len(), 8);
    let mut cookies = reply.records.iter().filter(|record| record.kind == COOKIE);
    assert!(cookies.all(|record| !record.critical));
}

/// CVE-2026-26076, and what else could move a server to make more: records of its own invention
/// and of drafts that ask for cookies, as many as fit.
fn c030_eight_cookies_whatever_is_asked(server: &Server) {
    let wish = |kind| record(kind, &u16::MAX.to_be_bytes());
    let count = (KE_REQUEST_BYTES_MAX - good_request().len()) / wish(0).len();
    let wishes: Vec<u8> = (0..count as u16)
        .flat_map(|number| wish([8, 9, 10, 11, 0x4001, 0x4f00][number as usize % 6]))
        .collect();
    let plain = ask(server, &good_request());
    let reply = ask(server, &request(&[0], &[15], &wishes));
    assert_eq!(reply.cookies().len(), 8);
    assert_eq!(reply.bytes.len(), plain.bytes.len());
}

fn c031_cookies_fit_all_clients(server: &Server) {
    let (mut lengths, mut seen) = (HashSet::new(), HashSet::new());
    for _ in 0..4 {
        for cookie in ask(server, &good_request()).cookies() {
            assert!(seen.insert(cookie.to_vec()), "a cookie came twice");
            lengths.insert(cookie.len());
        }
    }
    assert_eq!(seen.len(), 32);
    assert_eq!(lengths.len(), 1);
    assert!(lengths.iter().all(|length| length.is_multiple_of(4) && *length <= 256));
}

fn c032_cookies_are_good_at_the_server_named(server: &Server) {
    let reply = ask(server, &good_request());
    assert_cookies_are_good(&reply, ntp_address(&reply, server.ke()));
    // And where the answer has a Server record; the address is not the one of the connection.
    let server = server_with("ntp_server = \"127.0.0.1\"");
    let reply = ask(&server, &good_request());
    assert_eq!(reply.bodies(SERVER), [b"127.0.0.1"]);
    assert_cookies_are_good(&reply, ntp_address(&reply, server.ke()));
}

fn c033_server_record_names_an_address_or_a_host(server: &Server) {
    assert!(ask(server, &good_request()).bodies(SERVER).len() <= 1);
    for name in ["192.0.2.7", "2001:db8::7", "time.example.org", "xn--bcher-kva.example"] {
        let server = server_with(&format!("ntp_server = \"{name}\""));
        let replies = [server.ke(), ke_v6(&server)].map(|ke| ask_at(&server, ke, &good_request()));
        let named: Vec<&[u8]> = replies.iter().flat_map(|reply| reply.bodies(SERVER)).collect();
        // A name goes to both families, an address to its own.
        let expected = if name.parse::<IpAddr>().is_ok() { 1 } else { 2 };
        assert_eq!(named, vec![name.as_bytes(); expected]);
        assert!(replies.iter().all(|reply| reply.bodies(SERVER).len() <= 1));
    }
    // The configured text becomes a record by way of this type only.
    for name in ["fe80::1%eth0", "[::1]", "127.0.0.1:123", "bücher.example", "two words", ""] {
        assert!(name.parse::<NtpServer>().is_err(), "{name}");
    }
}

fn c034_without_a_server_record_the_same_address(server: &Server) {
    for ke in [server.ke(), ke_v6(server)] {
        let reply = ask_at(server, ke, &good_request());
        assert!(reply.bodies(SERVER).is_empty());
        assert_cookies_are_good(&reply, SocketAddr::new(ke.ip(), server.ntp_port));
    }
}

fn c035_port_record(server: &Server) {
    assert_ne!(server.ntp_port, 123);
    let reply = ask(server, &good_request());
    assert_eq!(reply.bodies(PORT), [&server.ntp_port.to_be_bytes()]);
}

/// Needs the right to port 123: it is tested where tests run as root, as they do in CI.
fn c035_no_port_record_means_123(_: &Server) {
    // An address that no other run of this test has.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, a | 0x80, b, c);
    if let Err(error) = UdpSocket::bind((ip, 123)) {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        eprintln!("c035: not allowed to open port 123");
        return;
    }
    let listen = format!("listen = [\"{ip}:123\"]");
    let ke = format!("ntp_server = \"{ip}\"");
    let server = Server::start_with(Algorithm::AesSivCmac256, &listen, "", &ke);
    let reply = ask(&server, &good_request());
    assert!(reply.bodies(PORT).is_empty());
    assert_cookies_are_good(&reply, SocketAddr::from((ip, 123)));
}

/// The answers to clients that wish for this server.
fn wish(server: &Server, ke: SocketAddr, name: &str) -> Reply {
    let reply = ask_at(server, ke, &request(&[0], &[15], &record(SERVER, name.as_bytes())));
    reply.assert_agreed();
    reply
}

fn c036_a_server_that_is_ours_is_echoed(server: &Server) {
    assert_eq!(wish(server, server.ke(), "127.0.0.1").bodies(SERVER), [b"127.0.0.1"]);
    assert_eq!(wish(server, ke_v6(server), "::1").bodies(SERVER), [b"::1"]);
    let server = server_with("ntp_server = \"time.example.org\"");
    for name in ["time.example.org", "TIME.example.org."] {
        assert_eq!(wish(&server, server.ke(), name).bodies(SERVER), [name.as_bytes()]);
    }
}

fn c036_otherwise_the_same_family(server: &Server) {
    for name in ["192.0.2.1", "2001:db8::1", "elsewhere.example"] {
        for ke in [server.ke(), ke_v6(server)] {
            let reply = wish(server, ke, name);
            assert_eq!(ntp_address(&reply, ke).is_ipv4(), ke.is_ipv4(), "{name}");
            assert_cookies_are_good(&reply, ntp_address(&reply, ke));
        }
    }
    let server = server_with("ntp_server = \"127.0.0.1\"");
    assert_eq!(wish(&server, server.ke(), "192.0.2.1").bodies(SERVER), [b"127.0.0.1"]);
    let reply = wish(&server, ke_v6(&server), "192.0.2.1");
    assert!(ntp_address(&reply, ke_v6(&server)).is_ipv6());
}

fn c037_critical_server_and_port(server: &Server) {
    let port = server.ntp_port.to_be_bytes();
    for critical in [0, CRITICAL] {
        for (kind, body) in [(SERVER, &b"127.0.0.1"[..]), (PORT, &port), (PORT, &[0, 9])] {
            let reply = ask(server, &request(&[0], &[15], &record(critical | kind, body)));
            reply.assert_agreed();
            assert_eq!(reply.ids(PORT), [server.ntp_port]);
        }
    }
}
