//! Whole sessions in memory, against rustls as client; no sockets, no waiting.

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, ProtocolVersion};

use super::*;
use crate::ke::test_support::{HOST, Identity, OpenCookies, identity};
use crate::ke::tls::provider;
use crate::wire::ke::{
    AEAD, COMPLIANT_128GCM, COOKIE, END_OF_MESSAGE, ERROR, NEXT_PROTOCOL, Records, push_record,
};

const REQUEST: [u8; 16] = [0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0];

#[test]
fn c001_c002_c005_c030_a_good_request_is_answered_and_closed() {
    let mut pair = Pair::new();
    pair.say(&REQUEST);
    assert_eq!(pair.tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(pair.tls.alpn_protocol(), Some(ALPN));
    assert_eq!(
        pair.kinds(),
        [(true, 1), (true, 4)]
            .into_iter()
            .chain([(false, 5); 8])
            .chain([(true, 0)])
            .collect::<Vec<_>>()
    );
    let outcome = Outcome::Served { algorithm: Algorithm::AesSivCmac256, exporter_id: 15 };
    assert_eq!(pair.session.outcome(), Some(outcome));
    assert!(pair.is_closed);
    assert_eq!(pair.tickets(), 0);
    let answer = pair.heard.clone();
    pair.say(&REQUEST);
    assert_eq!(pair.heard, answer, "one request, one response");
}

#[test]
fn the_answer_and_its_close_notify_are_one_write() {
    let mut pair = Pair::new();
    pair.say(&[]);
    pair.tls.writer().write_all(&REQUEST).unwrap();
    let bytes = pair.client_output();
    pair.receive(&bytes);
    let mut writes = Writes::default();
    while pair.session.has_output() {
        pair.session.send(&mut writes).unwrap();
    }
    assert_eq!(writes.0.len(), 1);
}

#[test]
fn c001_a_client_without_tls_1_3_gets_an_alert() {
    // A ClientHello of TLS 1.2: one cipher suite, with and without ALPN ntske/1.
    let alpn = [0, 16, 0, 10, 0, 8, 7, b'n', b't', b's', b'k', b'e', b'/', b'1'];
    for extensions in [&[][..], &alpn] {
        let mut pair = Pair::new();
        pair.receive(&client_hello_12(extensions));
        assert_eq!(pair.server_output(), [21, 3, 3, 0, 2, 2, 70], "protocol_version");
        assert_eq!(pair.session.outcome(), Some(Outcome::Tls));
    }
}

#[test]
fn c003_no_alpn_or_a_foreign_one_gets_alert_120_and_no_cookies() {
    for offered in [&[][..], &[&b"h2"[..]], &[b"ntske/2", b"http/1.1"]] {
        let mut pair = Pair::with(|config| {
            config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        });
        pair.say(&REQUEST);
        let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(pair.error, Some(alert), "{offered:?}");
        assert_eq!(pair.session.outcome(), Some(Outcome::NoAlpn));
        assert!(pair.heard.is_empty());
    }
    let mut pair = Pair::with(|config| config.alpn_protocols = vec![b"h2".into(), ALPN.into()]);
    pair.say(&REQUEST);
    assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })));
}

#[test]
fn c006_one_byte_per_tls_record_and_one_byte_per_segment() {
    let mut pair = Pair::new();
    for byte in padded(1024) {
        pair.say(&[byte]);
    }
    assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })));

    let mut pair = Pair::new();
    pair.tls.writer().write_all(&REQUEST).unwrap();
    while pair.heard.is_empty() {
        for byte in pair.client_output() {
            pair.receive(&[byte]);
        }
        let output = pair.server_output();
        pair.hear(&output);
    }
    assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })));
}

#[test]
fn c007_c008_1024_and_4096_bytes_are_taken_and_more_is_error_1() {
    for bytes in [1024, KE_REQUEST_BYTES_MAX] {
        let mut pair = Pair::new();
        pair.say(&padded(bytes));
        assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })), "{bytes}");
    }
    for bytes in [KE_REQUEST_BYTES_MAX + 1, 3 * KE_REQUEST_BYTES_MAX, 60_000] {
        let mut pair = Pair::new();
        pair.say(&padded(bytes));
        pair.assert_error(1, Outcome::Oversize);
    }
    // Many small records, never an end.
    let mut pair = Pair::new();
    pair.say(&[0x40, 0, 0, 0].repeat(5000));
    pair.assert_error(1, Outcome::Oversize);
}

#[test]
fn c009_to_c026_requests_against_the_rules() {
    let next = (true, NEXT_PROTOCOL, &[0, 0][..]);
    let aead = (true, AEAD, &[0, 15][..]);
    let bad = Outcome::BadRequest;
    let cases: &[(&[Parts<'_>], u16, Outcome)] = &[
        (&[aead], 1, bad),
        (&[next, next, aead], 1, bad),
        (&[(true, NEXT_PROTOCOL, &[]), aead], 1, bad),
        (&[(true, NEXT_PROTOCOL, &[0]), aead], 1, bad),
        (&[(false, NEXT_PROTOCOL, &[0, 0]), aead], 1, bad),
        (&[next], 1, bad),
        (&[next, aead, aead], 1, bad),
        (&[next, (true, AEAD, &[])], 1, bad),
        (&[next, (true, AEAD, &[0, 15, 0])], 1, bad),
        (&[next, aead, (true, 99, &[])], 0, Outcome::UnrecognizedCritical),
        (&[next, aead, (true, ERROR, &[0, 0])], 1, bad),
        (&[next, aead, (false, 3, &[0, 0])], 1, bad),
        (&[next, aead, (false, COOKIE, &[0; 64])], 1, bad),
        (&[next, aead, (false, COMPLIANT_128GCM, &[0])], 1, bad),
        (&[], 1, bad),
    ];
    for (records, code, outcome) in cases {
        let mut pair = Pair::new();
        pair.say(&message(records));
        pair.assert_error(*code, *outcome);
    }
}

#[test]
fn c024_c037_records_that_do_no_harm() {
    let mut pair = Pair::new();
    pair.say(&message(&[
        (false, 0x4001, &[1, 2, 3]),
        (true, NEXT_PROTOCOL, &[0x80, 1, 0, 0]),
        (false, 9, &[]),
        (false, AEAD, &[0x27, 0x0f, 0, 15]),
        (true, 6, b"other.example.org"),
        (true, 7, &[0, 123]),
        (false, COMPLIANT_128GCM, &[]),
    ]));
    assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })));
}

#[test]
fn c012_c021_nothing_in_common_is_not_an_error() {
    let mut pair = Pair::new();
    pair.say(&message(&[(true, NEXT_PROTOCOL, &[0x80, 1])]));
    assert_eq!(pair.heard, [0x80, 1, 0, 0, 0x80, 0, 0, 0]);
    assert_eq!(pair.session.outcome(), Some(Outcome::NoProtocol));
    assert!(pair.is_closed);

    let mut pair = Pair::new();
    pair.say(&message(&[(true, NEXT_PROTOCOL, &[0, 0]), (true, AEAD, &[0x27, 0x0f])]));
    assert_eq!(pair.kinds(), [(true, 1), (true, 4), (true, 0)]);
    assert_eq!(pair.session.outcome(), Some(Outcome::NoAlgorithm));
}

#[test]
fn c027_a_request_that_is_incomplete_in_time_is_error_1() {
    for part in [&REQUEST[..0], &REQUEST[..15], &[0x40, 1, 0xff]] {
        let mut pair = Pair::new();
        pair.say(part);
        let deadline = pair.session.deadline();
        pair.tick(deadline - Duration::from_millis(1));
        assert_eq!(pair.session.outcome(), None);
        pair.tick(deadline);
        pair.assert_error(1, Outcome::TimeoutRequest);
    }
    let mut pair = Pair::new();
    pair.tick(pair.session.deadline());
    assert_eq!(pair.session.outcome(), Some(Outcome::TimeoutHandshake));
    assert!(pair.server_output().is_empty());
}

#[test]
fn c028_end_of_message_misused_is_error_1() {
    let body = &REQUEST[..12];
    for end in [&[0, 0, 0, 0][..], &[0x80, 0, 0, 1, 0], &[0x80, 0, 0, 0, 0x80, 0, 0, 0]] {
        let mut pair = Pair::new();
        pair.say(&[body, end].concat());
        pair.assert_error(1, Outcome::BadRequest);
    }
    let mut pair = Pair::new();
    pair.say(&[&REQUEST[..], &[0]].concat());
    pair.assert_error(1, Outcome::BadRequest);
}

#[test]
fn half_close_is_fine_after_the_request_and_error_1_before() {
    let mut pair = Pair::new();
    pair.say(&[]);
    pair.tls.writer().write_all(&REQUEST).unwrap();
    pair.tls.send_close_notify();
    pair.exchange();
    assert!(matches!(pair.session.outcome(), Some(Outcome::Served { .. })));
    assert!(!pair.heard.is_empty() && pair.is_closed);

    let mut pair = Pair::new();
    pair.say(&[]);
    pair.tls.writer().write_all(&REQUEST[..10]).unwrap();
    pair.tls.send_close_notify();
    pair.exchange();
    pair.assert_error(1, Outcome::Incomplete);

    let mut pair = Pair::new();
    pair.say(&REQUEST[..10]);
    pair.session.end_of_input();
    pair.exchange();
    pair.assert_error(1, Outcome::Incomplete);

    let mut pair = Pair::new();
    pair.session.end_of_input();
    assert_eq!(pair.session.outcome(), Some(Outcome::Abandoned));
}

#[test]
fn c029_an_internal_failure_is_error_2() {
    let mut pair = Pair::new();
    pair.cookies.is_broken = true;
    pair.say(&REQUEST);
    pair.assert_error(2, Outcome::Internal);
}

#[test]
fn c038_to_c040_both_ends_derive_the_same_keys() {
    for (aead, says_1024, compliant_policy, exporter_id) in [
        (15, false, false, 15),
        (15, true, false, 15),
        (17, false, false, 17),
        (30, true, false, 30),
        (30, false, false, 15),
        (30, false, true, 30),
    ] {
        let mut pair = Pair::new();
        pair.policy.algorithms = [17, 30].into_iter().filter_map(Algorithm::from_id).collect();
        pair.policy.compliant_128gcm = compliant_policy;
        let mut records = vec![(true, NEXT_PROTOCOL, &[0, 0][..]), (true, AEAD, aead_bytes(aead))];
        if says_1024 {
            records.push((false, COMPLIANT_128GCM, &[]));
        }
        pair.say(&message(&records));
        let algorithm = Algorithm::from_id(aead).unwrap();
        let outcome = Outcome::Served { algorithm, exporter_id };
        assert_eq!(pair.session.outcome(), Some(outcome), "{aead} {says_1024}");
        let echoed = says_1024 && aead == 30;
        assert_eq!(pair.kinds().contains(&(false, COMPLIANT_128GCM)), echoed);

        // Label and contexts are spelled out here once more, independent of the code.
        let id = exporter_id.to_be_bytes();
        let key = |direction| {
            let mut key = vec![0; algorithm.key_bytes()];
            let context = [0, 0, id[0], id[1], direction];
            let label = b"EXPORTER-network-time-security";
            pair.tls.export_keying_material(&mut key, label, Some(&context)).unwrap();
            key
        };
        let cookie = [vec![0; 4], key(0), key(1)].concat();
        let first = Records::new(&pair.heard).map(Result::unwrap);
        let first = first.into_iter().find(|record| record.kind == COOKIE).unwrap();
        assert_eq!(first.body, cookie);
    }
}

#[test]
fn c044_key_updates_and_empty_records_come_to_an_end() {
    // rustls allows 32 in a row, and counts anew when data comes between.
    let mut pair = Pair::new();
    pair.say(&[]);
    for _ in 0..100 {
        if pair.session.outcome().is_some() {
            break;
        }
        pair.tls.refresh_traffic_keys().unwrap();
        pair.exchange();
    }
    assert_eq!(pair.session.outcome(), Some(Outcome::Tls));
    // rustls ends the connection without an alert here; it is closed.
    assert!(pair.heard.is_empty() && !pair.session.has_output());
}

#[test]
fn c044_early_data_is_not_accepted() {
    let mut pair = Pair::with(|config| config.enable_early_data = true);
    assert!(pair.tls.early_data().is_none());
    pair.say(&REQUEST);
    assert!(!pair.tls.is_early_data_accepted());
}

#[test]
fn input_is_bounded_whatever_it_is() {
    let mut pair = Pair::new();
    // A handshake message that never ends.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    for part in record.chunks(1000).take(KE_HANDSHAKE_BYTES_MAX / 1000 + 1) {
        pair.receive(part);
        assert_eq!(pair.session.outcome(), None);
    }
    pair.receive(&[0]);
    assert_eq!(pair.session.outcome(), Some(Outcome::Tls));

    // Data and key updates in turn, which rustls would allow for ever.
    let mut pair = Pair::new();
    pair.say(&[]);
    let mut rounds = 0;
    while pair.session.outcome().is_none() {
        pair.tls.refresh_traffic_keys().unwrap();
        pair.say(&[0x40, 0, 0, 0]);
        rounds += 1;
    }
    assert_eq!(pair.session.outcome(), Some(Outcome::Oversize));
    assert!(rounds <= KE_REQUEST_BYTES_MAX / 4);
}

#[test]
fn garbage_and_http_get_an_alert_or_silence() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[0xff; 17_000], &[22, 3, 1, 0, 0]] {
        let mut pair = Pair::new();
        pair.receive(garbage);
        let alert = pair.server_output();
        assert!(alert.is_empty() || (alert.len() == 7 && alert[0] == 21), "{alert:?}");
        pair.tick(pair.session.deadline());
        assert!(pair.session.outcome().is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_session_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut raw = Pair::new();
        raw.receive(&bytes);
        raw.session.end_of_input();
        prop_assert!(raw.session.outcome().is_some());

        let mut inside = Pair::new();
        inside.say(&bytes);
        let deadline = inside.session.deadline();
        inside.tick(deadline);
        prop_assert!(inside.session.outcome().is_some());
        prop_assert!(inside.heard.ends_with(&[0x80, 0, 0, 0]) && inside.is_closed);
    }

    #[test]
    fn no_byte_flipped_in_the_handshake_makes_a_session_panic(
        at in 0_usize..220, value: u8,
    ) {
        let mut pair = Pair::new();
        let mut hello = pair.client_output();
        if let Some(byte) = hello.get_mut(at) {
            *byte = value;
        }
        pair.receive(&hello);
        let _ = pair.server_output();
        let deadline = pair.session.deadline();
        pair.tick(deadline);
        prop_assert!(pair.session.outcome().is_some());
    }
}

/// Critical bit, type and body of a record.
type Parts<'a> = (bool, u16, &'a [u8]);

/// A session and its client, joined in memory.
struct Pair {
    session: Session,
    tls: ClientConnection,
    identity: Identity,
    policy: Policy,
    cookies: OpenCookies,
    heard: Vec<u8>,
    error: Option<rustls::Error>,
    is_closed: bool,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let identity = identity();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&identity.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::in_memory_sessions(8);
        change(&mut config);
        let name = ServerName::try_from(HOST).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        Self {
            session: Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), deadline),
            tls: ClientConnection::new(Arc::new(config), name).unwrap(),
            identity,
            policy: Policy::default(),
            cookies: OpenCookies::default(),
            heard: Vec::new(),
            error: None,
            is_closed: false,
        }
    }

    /// Has the client send `bytes` and goes on until neither side has anything to say.
    fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.exchange();
    }

    fn tick(&mut self, now: Instant) {
        self.session.tick(now);
        self.exchange();
    }

    fn exchange(&mut self) {
        loop {
            let bytes = self.client_output();
            self.receive(&bytes);
            let output = self.server_output();
            self.hear(&output);
            if bytes.is_empty() && output.is_empty() {
                return;
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut services =
            Services { tls: &self.identity.tls, policy: &self.policy, cookies: &mut self.cookies };
        self.session.receive(bytes, &mut services);
    }

    fn client_output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn server_output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.session.has_output() {
            self.session.send(&mut bytes).unwrap();
        }
        bytes
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut bytes).unwrap();
            match self.tls.process_new_packets() {
                Ok(state) => self.is_closed = state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            let _ = self.tls.reader().read_to_end(&mut self.heard);
            if self.is_closed {
                return;
            }
        }
    }

    /// Records heard, as critical bit and type.
    fn kinds(&self) -> Vec<(bool, u16)> {
        let records = Records::new(&self.heard).map(Result::unwrap);
        records.map(|record| (record.critical, record.kind)).collect()
    }

    /// c026: an Error record is critical and has two bytes; End of Message follows and no more.
    fn assert_error(&self, code: u16, outcome: Outcome) {
        let [high, low] = code.to_be_bytes();
        assert_eq!(self.heard, [0x80, 2, 0, 2, high, low, 0x80, 0, 0, 0]);
        assert_eq!(self.session.outcome(), Some(outcome));
        assert!(self.is_closed);
    }

    fn tickets(&mut self) -> u32 {
        self.tls.tls13_tickets_received()
    }
}

#[derive(Default)]
struct Writes(Vec<usize>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.len());
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.0.push(bytes);
        Ok(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn aead_bytes(id: u16) -> &'static [u8] {
    match id {
        15 => &[0, 15],
        17 => &[0, 17],
        _ => &[0, 30],
    }
}

/// A good request of `bytes` bytes.
fn padded(bytes: usize) -> Vec<u8> {
    let padding = vec![0; bytes - REQUEST.len() - 4];
    message(&[(false, 0x4000, &padding), (true, NEXT_PROTOCOL, &[0, 0]), (true, AEAD, &[0, 15])])
}

fn message(records: &[Parts<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (critical, kind, body) in records {
        push_record(&mut bytes, *critical, *kind, body).unwrap();
    }
    push_record(&mut bytes, true, END_OF_MESSAGE, &[]).unwrap();
    bytes
}

/// TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, secp256r1, ecdsa_secp256r1_sha256.
fn client_hello_12(extra_extensions: &[u8]) -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&groups[..], &signatures, extra_extensions].concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut message = vec![1, 0];
    message.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&body);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
    record.extend_from_slice(&message);
    record
}
