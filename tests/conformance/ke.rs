//! Lines 1 to 46: key establishment, over sockets.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::{Association, ResponseError};
use timeball::cookie::format::ClientKeys;
use timeball::ke::negotiate::NtpServer;
use timeball::limits::{DATAGRAM_BYTES, KE_REQUEST_BYTES_MAX};

use super::common::server::{ANSWER_WAIT, Server, udp_client, wait_until};
use super::tls::{
    AEAD, ALPN, COMPLIANT_128GCM, COOKIE, CRITICAL, Client, END_OF_MESSAGE, ERROR, End,
    NEXT_PROTOCOL, PORT, Reply, SERVER, WARNING, ask, ask_at, config, end_of_message, good_request,
    ids, record, request, tcp,
};
use super::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c001_tls_1_3),
        case!(c001_older_tls_gets_an_alert),
        case!(c002_alpn_is_selected),
        case!(c003_without_alpn_no_cookies),
        case!(c004_port_4460_unless_configured),
        case!(c005_one_request_one_response),
        case!(c006_one_byte_per_record),
        case!(c007_1024_octets),
        case!(c008_oversize_is_refused),
        case!(c008_endless_requests_take_no_memory),
        case!(c009_every_response_ends),
        case!(c010_one_critical_next_protocol),
        case!(c011_only_protocols_asked_for),
        case!(c012_no_common_protocol),
        case!(c013_ntpv4_among_others),
        case!(c014_no_next_protocol),
        case!(c015_two_next_protocols),
        case!(c016_next_protocol_empty_or_odd),
        case!(c017_next_protocol_not_critical),
        case!(c018_aead_missing_doubled_or_malformed),
        case!(c019_aead_15_is_always_taken),
        case!(c020_aead_was_offered),
        case!(c021_no_common_aead),
        case!(c022_the_client_s_order_is_honoured),
        case!(c023_unknown_critical_record),
        case!(c024_unknown_record_is_ignored),
        case!(c025_records_of_servers),
        case!(c026_error_and_nothing_else),
        case!(c027_incomplete_at_timeout),
        case!(c027_closed_before_the_end),
        case!(c028_end_of_message_misused),
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
        case!(c038_exporter),
        case!(c038_exporter_and_key_length_of_each_aead),
        case!(c039_aead_30_with_record_1024),
        case!(c040_aead_30_without_record_1024),
        case!(c041_compliant_128gcm_with_a_body),
        case!(c043_idle_connections_block_nobody),
        case!(c043_idle_connections_end_in_time),
        case!(c043_dripping_does_not_prolong),
        case!(c044_no_tickets_and_no_early_data),
        case!(c044_key_updates_come_to_an_end),
        case!(c046_killed_key_establishment_does_not_stop_ntp),
    ]
}

/// A server of the test's own, with these further lines in `[ke]`.
fn server_with(ke: &str) -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "", ke)
}

fn ke_v6(server: &Server) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, server.ke_port).into()
}

/// Where an answer that came from `ke` sends its client (RFC 8915 sections 4.1.7 and 4.1.8).
fn ntp_address(reply: &Reply, ke: SocketAddr) -> SocketAddr {
    let ip = reply.bodies(SERVER).first().map_or(ke.ip(), |name| {
        std::str::from_utf8(name).expect("ASCII").parse().expect("an address")
    });
    let port = if reply.bodies(PORT).is_empty() { 123 } else { reply.ids(PORT)[0] };
    SocketAddr::new(ip, port)
}

/// What an NTP server says to a request with one cookie, of AEAD 15.
fn try_cookie(
    ntp: SocketAddr,
    cookie: &[u8],
    c2s: &[u8; 32],
    s2c: &[u8; 32],
) -> Result<(), ResponseError> {
    let keys = ClientKeys::new(Algorithm::AesSivCmac256, c2s, s2c).expect("lengths fit");
    try_keys(ntp, cookie, keys)
}

fn try_keys(ntp: SocketAddr, cookie: &[u8], keys: ClientKeys) -> Result<(), ResponseError> {
    let mut association = Association::new(keys, [cookie]);
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let pending = association.request(&mut buffer, &mut random).expect("a cookie");
    let socket = udp_client(ntp);
    socket.send(&buffer[..pending.request_bytes]).expect("sent");
    let length = socket.recv(&mut buffer).expect("an answer");
    association.response(&pending, &mut buffer[..length]).map(drop)
}

fn assert_cookies_are_good(reply: &Reply, ntp: SocketAddr) {
    assert!(!reply.cookies().is_empty());
    for cookie in reply.cookies() {
        try_cookie(ntp, cookie, &reply.c2s, &reply.s2c).expect("an authenticated answer");
    }
}

/// What a server without TLS 1.3 would understand: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
/// secp256r1, ecdsa_secp256r1_sha256, and these extensions.
fn old_hello(version: u8, extensions: &[u8]) -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&groups[..], &signatures, extensions].concat();
    let suites = [0, 0, 2, 0xc0, 0x2b, 1, 0, 0, extensions.len() as u8];
    let body = [&[3, version], &[7; 32][..], &suites, &extensions].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

fn c001_tls_1_3(server: &Server) {
    let client = Client::connect(server);
    assert_eq!(client.tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

fn c001_older_tls_gets_an_alert(server: &Server) {
    let alpn = [&[0, 16, 0, 10, 0, 8, 7][..], ALPN].concat();
    let only_tls_1_2 = [0, 43, 0, 3, 2, 3, 3];
    for version in 1..=3 {
        for extensions in [&[][..], &alpn, &only_tls_1_2, &[&alpn[..], &only_tls_1_2].concat()] {
            let mut socket = tcp(server.ke());
            socket.write_all(&old_hello(version, extensions)).expect("sent");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).expect("an alert and an end");
            // A fatal protocol_version (RFC 8446 sections 4.2.1 and 6.2), and nothing else.
            assert_eq!(answer[..2], [21, 3], "version 3.{version}, {extensions:02x?}");
            assert_eq!(answer[3..], [0, 2, 2, 70], "version 3.{version}, {extensions:02x?}");
        }
    }
}

fn c002_alpn_is_selected(server: &Server) {
    for offered in [&[ALPN][..], &[b"http/1.1", ALPN], &[ALPN, b"h2"]] {
        let client = Client::handshake(Arc::new(config(server, offered)), server.ke());
        assert_eq!(client.expect("a handshake").tls.alpn_protocol(), Some(ALPN));
    }
}

fn c003_without_alpn_no_cookies(server: &Server) {
    for offered in [&[][..], &[&b"h2"[..]], &[b"ntske/2", b"ntske/", b"NTSKE/1"]] {
        let client = Client::handshake(Arc::new(config(server, offered)), server.ke());
        let end = client.err().expect("no handshake");
        assert_eq!(end, End::Alert(AlertDescription::NoApplicationProtocol), "{offered:?}");
    }
}

fn c004_port_4460_unless_configured(server: &Server) {
    let settings = timeball::config::checked::parse("[ke]\ncertificate = \"a\"\nkey = \"b\"");
    let listen = settings.expect("good").ke.expect("key establishment").listen;
    assert!(!listen.is_empty() && listen.iter().all(|address| address.port() == 4460));
    ask(server, &good_request()).assert_agreed();
}

fn c005_one_request_one_response(server: &Server) {
    let mut client = Client::connect(server);
    client.say(&good_request());
    let reply = client.reply();
    reply.assert_agreed();
    assert_eq!(reply.bodies(END_OF_MESSAGE).len(), 1);
    // The server may have closed so thoroughly that this cannot be sent any more.
    let _ = client.try_say(&good_request());
    assert!(client.rest().is_empty(), "a second response");
}

fn c006_one_byte_per_record(server: &Server) {
    let mut client = Client::connect(server);
    for byte in good_request() {
        client.say(&[byte]);
    }
    client.reply().assert_agreed();
}

/// A good request of this length, by records that nobody knows.
fn long_request(bytes: usize) -> Vec<u8> {
    let mut padding = record(0x4001, &[0xa5; 100]);
    padding.extend(record(0x4002, &vec![0x5a; bytes - good_request().len() - 104 - 4]));
    let request = request(&[0], &[15], &padding);
    assert_eq!(request.len(), bytes);
    request
}

fn c007_1024_octets(server: &Server) {
    ask(server, &long_request(1024)).assert_agreed();
}

fn c008_oversize_is_refused(server: &Server) {
    ask(server, &long_request(KE_REQUEST_BYTES_MAX)).assert_agreed();
    for bytes in [KE_REQUEST_BYTES_MAX + 1, 16_384, 65_000] {
        ask(server, &long_request(bytes)).assert_error(1);
    }
    // What is only announced is refused too, and not waited for.
    ask(server, &[0x40, 1, 0xff, 0xff]).assert_error(1);
}

/// Clients that never stop: a server that kept what they send would grow by a megabyte each.
fn c008_endless_requests_take_no_memory(_: &Server) {
    let server = server_with("");
    // The most so far: what is resident goes up and down as the allocator gives memory back.
    let resident_kib = || {
        let pid = server.role_pid("key-establishment").expect("the process");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let flood = || {
        let mut client = Client::connect(&server);
        let piece = record(0x4001, &[0; 1020]).repeat(16);
        let sent = (0..4096).take_while(|_| client.try_say(&piece).is_ok()).count();
        assert!(sent < 4096, "64 MiB were taken");
    };
    // Until the allocator has touched all that it reuses.
    (0..16).for_each(|_| flood());
    let before_kib = resident_kib();
    (0..16).for_each(|_| flood());
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 2048, "key establishment grew by {grown_kib} KiB");
}

/// Requests of all kinds that are answered without an Error.
fn accepted() -> Vec<Vec<u8>> {
    vec![
        good_request(),
        request(&[0x8001], &[15], &[]),
        request(&[0x8001, 0, 0x8002], &[9999, 15], &[]),
        request(&[0], &[9999], &[]),
        request(&[0], &[15], &record(SERVER, b"127.0.0.1")),
        [ids(NEXT_PROTOCOL, &[0x8001]), end_of_message()].concat(),
    ]
}

/// Requests that get the Error of this code.
fn refused() -> Vec<(u8, Vec<u8>)> {
    vec![
        (0, request(&[0], &[15], &record(CRITICAL | 0x4001, &[]))),
        (1, end_of_message()),
        (1, request(&[0], &[15], &record(COOKIE, &[0; 100]))),
        (1, record(CRITICAL | END_OF_MESSAGE, &[0])),
        (1, long_request(KE_REQUEST_BYTES_MAX + 1)),
    ]
}

fn c009_every_response_ends(server: &Server) {
    let refused = refused().into_iter().map(|(_, request)| request);
    for request in accepted().into_iter().chain(refused) {
        let reply = ask(server, &request);
        assert!(reply.bytes.ends_with(&[0x80, 0, 0, 0]), "{reply:?}");
        assert_eq!(reply.bodies(END_OF_MESSAGE), [b""], "{reply:?}");
        assert_eq!(reply.records.last().map(|record| record.kind), Some(END_OF_MESSAGE));
    }
}

fn c010_one_critical_next_protocol(server: &Server) {
    for request in accepted() {
        let reply = ask(server, &request);
        let is_next_protocol = |record: &&super::tls::Record| record.kind == NEXT_PROTOCOL;
        let records: Vec<_> = reply.records.iter().filter(is_next_protocol).collect();
        assert!(records.len() == 1 && records[0].critical, "{reply:?}");
    }
}

fn c011_only_protocols_asked_for(server: &Server) {
    for asked in [&[0][..], &[0x8001], &[0x8001, 0x8002], &[1, 0], &[0, 0xffff]] {
        let reply = ask(server, &request(asked, &[15], &[]));
        assert!(reply.ids(NEXT_PROTOCOL).iter().all(|id| asked.contains(id)), "{reply:?}");
    }
}

fn c012_no_common_protocol(server: &Server) {
    let alone = [ids(NEXT_PROTOCOL, &[0x8001]), end_of_message()].concat();
    for request in [alone, request(&[0x8001], &[15], &[])] {
        let reply = ask(server, &request);
        assert_eq!(reply.bytes, [0x80, 1, 0, 0, 0x80, 0, 0, 0]);
    }
}

fn c013_ntpv4_among_others(server: &Server) {
    for asked in [[0x8001, 0], [0, 0x8001]] {
        ask(server, &request(&asked, &[15], &[])).assert_agreed();
    }
}

fn c014_no_next_protocol(server: &Server) {
    ask(server, &end_of_message()).assert_error(1);
    ask(server, &[ids(AEAD, &[15]), end_of_message()].concat()).assert_error(1);
}

fn c015_two_next_protocols(server: &Server) {
    for second in [0, 0x8001] {
        ask(server, &request(&[0], &[15], &ids(NEXT_PROTOCOL, &[second]))).assert_error(1);
    }
}

fn c016_next_protocol_empty_or_odd(server: &Server) {
    for body in [&[][..], &[0], &[0, 0, 0]] {
        let records = [record(CRITICAL | NEXT_PROTOCOL, body), ids(AEAD, &[15])].concat();
        ask(server, &[records, end_of_message()].concat()).assert_error(1);
    }
}

fn c017_next_protocol_not_critical(server: &Server) {
    let records = [record(NEXT_PROTOCOL, &[0, 0]), ids(AEAD, &[15])].concat();
    ask(server, &[records, end_of_message()].concat()).assert_error(1);
}

fn c018_aead_missing_doubled_or_malformed(server: &Server) {
    let protocol = ids(NEXT_PROTOCOL, &[0]);
    ask(server, &[&protocol[..], &end_of_message()].concat()).assert_error(1);
    ask(server, &request(&[0], &[15], &ids(AEAD, &[15]))).assert_error(1);
    for body in [&[][..], &[15], &[0, 15, 0]] {
        let aead = record(CRITICAL | AEAD, body);
        ask(server, &[&protocol[..], &aead, &end_of_message()].concat()).assert_error(1);
    }
}

fn c019_aead_15_is_always_taken(server: &Server) {
    for offered in [&[15][..], &[9999, 15], &[15, 30], &[17, 16, 15]] {
        let reply = ask(server, &request(&[0], offered, &[]));
        assert_eq!(reply.ids(AEAD).len(), 1, "{offered:?}");
        assert!(!reply.cookies().is_empty(), "{offered:?}");
    }
    // Master keys of another algorithm are the server's own affair.
    let server = Server::start_with(Algorithm::Aes128GcmSiv, "", "", "");
    let reply = ask(&server, &good_request());
    reply.assert_agreed();
    assert_cookies_are_good(&reply, server.ntp());
}

fn c020_aead_was_offered(server: &Server) {
    for offered in [&[15][..], &[30], &[17, 15], &[30, 15], &[16, 18], &[15, 15]] {
        let answer = ask(server, &request(&[0], offered, &[])).ids(AEAD);
        assert!(answer.len() <= 1, "{offered:?} was answered with {answer:?}");
        assert!(answer.iter().all(|id| offered.contains(id)), "{offered:?}, {answer:?}");
    }
}

fn c021_no_common_aead(server: &Server) {
    let reply = ask(server, &request(&[0], &[9999], &[]));
    assert_eq!(reply.ids(NEXT_PROTOCOL), [0]);
    assert_eq!(reply.bodies(AEAD), [b""]);
    assert!(reply.cookies().is_empty() && reply.bodies(ERROR).is_empty());
}

fn c022_the_client_s_order_is_honoured(server: &Server) {
    let agreed = |server: &Server, offered: &[u16]| {
        let [id] = ask(server, &request(&[0], offered, &[])).ids(AEAD)[..] else { panic!("one") };
        id
    };
    for (offered, expected) in
        [(&[15, 30][..], 15), (&[30, 15], 30), (&[17, 30, 15], 30), (&[17, 15], 15)]
    {
        assert_eq!(agreed(server, offered), expected, "{offered:?}");
    }
    // What is configured is a choice, not an order.
    let server = server_with("aeads = [15, 30, 17]");
    for (offered, expected) in [(&[15, 17, 30][..], 15), (&[17, 30, 15], 17), (&[9999, 30], 30)] {
        assert_eq!(agreed(&server, offered), expected, "{offered:?}");
    }
    let server = server_with("aeads = [15]");
    assert_eq!(agreed(&server, &[30, 17, 15]), 15);
}

fn c023_unknown_critical_record(server: &Server) {
    for kind in [8, 14, 15, 0x3fff, 0x4000, 0x4001, 0x7fff] {
        let unknown = record(CRITICAL | kind, &[1, 2, 3]);
        ask(server, &request(&[0], &[15], &unknown)).assert_error(0);
    }
}

fn c024_unknown_record_is_ignored(server: &Server) {
    for kind in [8, 14, 15, 0x3fff, 0x4000, 0x4001, 0x7fff] {
        for body in [&[][..], &[1, 2, 3]] {
            let reply = ask(server, &request(&[0], &[15], &record(kind, body)));
            reply.assert_agreed();
            assert!(reply.bodies(kind).is_empty());
        }
    }
    let reply = ask(server, &request(&[0], &[15], &record(COMPLIANT_128GCM, &[])));
    reply.assert_agreed();
    assert!(reply.bodies(COMPLIANT_128GCM).is_empty(), "it says nothing about AEAD 15");
}

fn c025_records_of_servers(server: &Server) {
    for kind in [ERROR, WARNING, COOKIE] {
        for critical in [0, CRITICAL] {
            let forbidden = record(critical | kind, &[0, 0]);
            ask(server, &request(&[0], &[15], &forbidden)).assert_error(1);
        }
    }
}

fn c026_error_and_nothing_else(server: &Server) {
    for (code, request) in refused() {
        ask(server, &request).assert_error(code);
    }
}

/// Beginnings of a request that are not all of it.
fn beginnings() -> Vec<Vec<u8>> {
    let request = good_request();
    [0, 1, 3, 4, 5, 12, request.len() - 4, request.len() - 1]
        .map(|length| request[..length].to_vec())
        .into()
}

fn c027_incomplete_at_timeout(_: &Server) {
    let server = server_with("timeout_seconds = 2");
    let mut clients: Vec<Client> = Vec::new();
    for beginning in beginnings() {
        let mut client = Client::connect(&server);
        client.say(&beginning);
        clients.push(client);
    }
    clients.iter_mut().for_each(|client| client.reply().assert_error(1));
}

fn c027_closed_before_the_end(server: &Server) {
    for beginning in beginnings() {
        let mut client = Client::connect(server);
        client.tls.writer().write_all(&beginning).expect("room");
        client.tls.send_close_notify();
        client.flush().expect("sent");
        client.reply().assert_error(1);

        let mut client = Client::connect(server);
        client.say(&beginning);
        client.socket.shutdown(Shutdown::Write).expect("half closed");
        client.reply().assert_error(1);
    }
}

fn c028_end_of_message_misused(server: &Server) {
    let good = good_request();
    let records = &good[..good.len() - 4];
    for end in [record(END_OF_MESSAGE, &[]), record(CRITICAL | END_OF_MESSAGE, &[0, 0])] {
        ask(server, &[records, &end].concat()).assert_error(1);
    }
    for behind in [vec![0], record(0x4001, &[1]), end_of_message(), good.clone()] {
        ask(server, &[&good[..], &behind].concat()).assert_error(1);
    }
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

fn c038_exporter(server: &Server) {
    let label = b"EXPORTER-network-time-security";
    let mut client = Client::connect(server);
    client.say(&good_request());
    let reply = client.reply();
    let cookie = reply.cookies()[0];
    let try_contexts = |label: &[u8], c2s: &[u8], s2c: &[u8]| {
        let (c2s, s2c) = (client.export_as(label, c2s), client.export_as(label, s2c));
        try_cookie(server.ntp(), cookie, &c2s, &s2c)
    };
    let (c2s, s2c) = ([0, 0, 0, 15, 0], [0, 0, 0, 15, 1]);
    assert_eq!(try_contexts(label, &c2s, &s2c), Ok(()));
    // Whatever else a server may have derived: a wrong C2S key is a NAK, a wrong S2C key an answer
    // that does not verify.
    let nak = Err(ResponseError::Nak);
    assert_eq!(try_contexts(label, &s2c, &c2s), nak, "exchanged");
    assert_eq!(try_contexts(label, &c2s, &c2s), Err(ResponseError::NotAuthentic));
    assert_eq!(try_contexts(label, &[0, 0, 0, 30, 0], &[0, 0, 0, 30, 1]), nak);
    assert_eq!(try_contexts(label, &[0, 0, 15, 0, 0], &[0, 0, 15, 0, 1]), nak);
    assert_eq!(try_contexts(label, &[0, 15, 0], &[0, 15, 1]), nak);
    assert_eq!(try_contexts(b"EXPORTER-network-time-security/1", &c2s, &s2c), nak);
}

/// What the NTP server says to keys of `algorithm` with this number in the exporter context.
fn try_exporter(
    server: &Server,
    client: &Client,
    reply: &Reply,
    algorithm: Algorithm,
    exporter_id: u16,
) -> Result<(), ResponseError> {
    let [high, low] = exporter_id.to_be_bytes();
    let [c2s, s2c] = [0, 1].map(|direction| {
        let (label, context) = (b"EXPORTER-network-time-security", [0, 0, high, low, direction]);
        let mut key = vec![0; algorithm.key_bytes()];
        client.tls.export_keying_material(&mut key, label, Some(&context)).expect("keys");
        key
    });
    let keys = ClientKeys::new(algorithm, &c2s, &s2c).expect("lengths fit");
    try_keys(server.ntp(), reply.cookies()[0], keys)
}

/// An answer to `aeads` with `more`, and the connection to derive keys from.
fn offer(server: &Server, aeads: &[u16], more: &[u8]) -> (Client, Reply) {
    let mut client = Client::connect(server);
    client.say(&request(&[0], aeads, more));
    let reply = client.reply();
    (client, reply)
}

fn c038_exporter_and_key_length_of_each_aead(_: &Server) {
    use Algorithm::{Aes128GcmSiv, AesSivCmac256, AesSivCmac512};
    for master in [AesSivCmac256, Aes128GcmSiv] {
        let server = Server::start_with(master, "", "", "aeads = [15, 17, 30]");
        for algorithm in [AesSivCmac256, AesSivCmac512, Aes128GcmSiv] {
            let id = algorithm.id();
            let (client, reply) = offer(&server, &[id], &record(COMPLIANT_128GCM, &[]));
            assert_eq!(reply.ids(AEAD), [id]);
            let tried = [15, 17, 30].map(|exporter_id| {
                try_exporter(&server, &client, &reply, algorithm, exporter_id).is_ok()
            });
            assert_eq!(tried, [15, 17, 30].map(|exporter_id| exporter_id == id), "{algorithm}");
        }
    }
}

fn c039_aead_30_with_record_1024(server: &Server) {
    for critical in [0, CRITICAL] {
        let compliant = record(critical | COMPLIANT_128GCM, &[]);
        let (client, reply) = offer(server, &[30, 15], &compliant);
        assert_eq!(reply.ids(AEAD), [30]);
        assert_eq!(reply.bodies(COMPLIANT_128GCM), [b""]);
        let mut records = reply.records.iter().filter(|record| record.kind == COMPLIANT_128GCM);
        assert!(records.all(|record| !record.critical));
        let tried = |id| try_exporter(server, &client, &reply, Algorithm::Aes128GcmSiv, id);
        assert_eq!((tried(30), tried(15)), (Ok(()), Err(ResponseError::Nak)));
    }
    // It is about AEAD 30 and nothing else.
    let (_, reply) = offer(server, &[15, 30], &record(COMPLIANT_128GCM, &[]));
    assert!(reply.bodies(COMPLIANT_128GCM).is_empty());
    reply.assert_agreed();
}

fn c040_aead_30_without_record_1024(server: &Server) {
    let configured = server_with("compliant_128gcm = true");
    for (server, good, bad) in [(server, 15, 30), (&configured, 30, 15)] {
        let (client, reply) = offer(server, &[30, 15], &[]);
        assert_eq!(reply.ids(AEAD), [30]);
        assert!(reply.bodies(COMPLIANT_128GCM).is_empty());
        let tried = |id| try_exporter(server, &client, &reply, Algorithm::Aes128GcmSiv, id);
        assert_eq!((tried(good), tried(bad)), (Ok(()), Err(ResponseError::Nak)), "{good}");
    }
}

fn c041_compliant_128gcm_with_a_body(server: &Server) {
    for body in [&[0][..], &[0, 30]] {
        for critical in [0, CRITICAL] {
            let compliant = record(critical | COMPLIANT_128GCM, body);
            ask(server, &request(&[0], &[15], &compliant)).assert_error(1);
        }
    }
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
