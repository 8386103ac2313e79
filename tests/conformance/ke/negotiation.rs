//! Lines 1 to 28: TLS (RFC 8915 section 3), the form of messages and what is agreed on (section
//! 4).

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use rustls::{AlertDescription, ProtocolVersion};
use timeball::aead::Algorithm;
use timeball::limits::KE_REQUEST_BYTES_MAX;

use super::{assert_cookies_are_good, long_request, server_with};
use crate::common::server::Server;
use crate::tls::{
    AEAD, ALPN, COMPLIANT_128GCM, COOKIE, CRITICAL, Client, END_OF_MESSAGE, ERROR, End,
    NEXT_PROTOCOL, SERVER, WARNING, ask, config, end_of_message, good_request, ids, record,
    request, tcp,
};
use crate::{Case, case};

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
    ]
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
        let is_next_protocol = |record: &&crate::tls::Record| record.kind == NEXT_PROTOCOL;
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
