//! Lines 47 to 124: the NTP service, over sockets.
//!
//! That nothing is answered is shown without waiting: a plain request follows on the same socket,
//! and its answer is the first to come. One worker answers one socket's datagrams in their order.

use std::net::{SocketAddr, UdpSocket};

use timeball::aead::{Algorithm, NonceGenerator, seal_one};
use timeball::client::{Association, ResponseError};
use timeball::limits::DEPARTURE_AHEAD_REPLY_MAX;
use timeball::wire::extension::{field_type, put_field_header};
use timeball::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};
use timeball::wire::nts::{AuthenticatorLayout, Direction, Trailer, encrypted_cookies, find};
use timeball::wire::timestamp::NtpTimestamp;

use super::common::plain_request;
use super::common::server::{Server, udp_client};
use super::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c047_one_identifier_and_one_authenticator_behind_it),
        case!(c048_reply_verifies_under_s2c),
        case!(c049_one_cookie_for_each_asked),
        case!(c050_no_more_than_eight),
        case!(c051_reply_is_as_long_as_the_request),
        case!(c052_cookies_are_new_and_usable),
        case!(c053_cookies_are_encrypted_only),
        case!(c054_placeholder_of_another_length),
        case!(c055_placeholder_contents_do_not_matter),
        case!(c056_placeholder_before_the_cookie),
        case!(c057_encrypted_placeholders_count),
        case!(c058_two_cookies),
        case!(c059_missing_fields),
        case!(c060_identifier_lengths),
        case!(c061_two_identifiers),
        case!(c062_identifier_without_nts),
        case!(c063_unknown_key_gets_a_nak),
        case!(c064_wrong_tag_gets_a_nak),
        case!(c065_nak_is_shorter_and_needs_an_identifier),
        case!(c066_missing_padding_is_discarded),
        case!(c067_nonce_lengths),
        case!(c069_fields_behind_the_authenticator),
        case!(c070_unknown_fields_are_authenticated),
        case!(c071_short_encrypted_fields),
        case!(c072_nts_in_other_modes),
        case!(c073_previous_keys_open_and_the_current_makes),
        case!(c074_erased_key),
        case!(c076_restart_keeps_cookies),
        case!(c077_cookie_length_is_constant),
        case!(c078_no_padding_when_none_is_needed),
        case!(c079_memory_is_flat),
        case!(c080_nonces_are_unique),
        case!(c081_unsynchronised_is_authenticated),
        case!(c084_algorithms_and_failures_in_one_batch),
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

/// The parts of a request, each of which a test may change.
#[derive(Clone)]
pub struct Parts {
    pub header: Vec<u8>,
    /// Fields in front of the authenticator: type and body.
    fields: Vec<(u16, Vec<u8>)>,
    nonce: Vec<u8>,
    /// What is encrypted.
    plaintext: Vec<u8>,
    /// Zero bytes at the authenticator's end.
    padding: usize,
    /// Bytes behind the authenticator.
    trailing: Vec<u8>,
}

const IDENTIFIER: usize = 0;
const COOKIE: usize = 1;

/// A client that knows its keys, which the library's does not show.
pub struct Keyed {
    c2s: [u8; 32],
    s2c: [u8; 32],
    pub cookie: Vec<u8>,
}

impl Keyed {
    pub fn new(server: &Server) -> Self {
        Self::under(server, 2)
    }

    /// With a cookie under the master key of this place in the ring.
    fn under(server: &Server, place: usize) -> Self {
        let mut random = NonceGenerator::new().expect("random numbers");
        let (mut c2s, mut s2c) = ([0; 32], [0; 32]);
        random.fill(&mut c2s);
        random.fill(&mut s2c);
        let master = &server.master_keys()[place];
        let mut cookie = master.id().to_be_bytes().to_vec();
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        cookie.extend(nonce);
        let mut sealed = [[0; 16].as_slice(), &c2s, &s2c].concat();
        seal_one(master.algorithm(), master.expose_bytes(), &nonce, &[], &mut sealed)
            .expect("lengths fit");
        cookie.extend(sealed);
        Self { c2s, s2c, cookie }
    }

    pub fn parts(&self) -> Parts {
        let mut random = NonceGenerator::new().expect("random numbers");
        let (mut identifier, mut nonce) = (vec![0; 32], vec![0; 16]);
        random.fill(&mut identifier);
        random.fill(&mut nonce);
        Parts {
            header: plain_request(4, Mode::Client),
            fields: vec![
                (field_type::UNIQUE_IDENTIFIER, identifier),
                (field_type::NTS_COOKIE, self.cookie.clone()),
            ],
            nonce,
            plaintext: Vec::new(),
            padding: 0,
            trailing: Vec::new(),
        }
    }

    fn placeholders(&self, count: usize) -> impl Iterator<Item = (u16, Vec<u8>)> {
        let placeholder = (field_type::NTS_COOKIE_PLACEHOLDER, vec![0; self.cookie.len()]);
        std::iter::repeat_n(placeholder, count)
    }

    pub fn seal(&self, parts: &Parts) -> Vec<u8> {
        let mut bytes = parts.header.clone();
        for (field_type, body) in &parts.fields {
            put_field(&mut bytes, *field_type, body);
        }
        let associated_data = bytes.clone();
        let mut text = vec![0; 16];
        text.extend(&parts.plaintext);
        seal_one(Algorithm::AesSivCmac256, &self.c2s, &parts.nonce, &associated_data, &mut text)
            .expect("lengths fit");
        let mut body = (parts.nonce.len() as u16).to_be_bytes().to_vec();
        body.extend((text.len() as u16).to_be_bytes());
        for part in [&parts.nonce, &text] {
            body.extend(part);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.resize(body.len() + parts.padding, 0);
        put_field(&mut bytes, field_type::NTS_AUTHENTICATOR, &body);
        bytes.extend(&parts.trailing);
        bytes
    }

    /// The decrypted fields of an authentic reply.
    pub fn open(&self, reply: &[u8]) -> Vec<u8> {
        let Trailer::Nts(fields) = find(reply, Direction::Response) else {
            panic!("no authenticated reply: {:?}", find(reply, Direction::Response));
        };
        let authenticator = fields.authenticator;
        let mut text = reply[authenticator.ciphertext.range()].to_vec();
        timeball::aead::open_one(
            Algorithm::AesSivCmac256,
            &self.s2c,
            &reply[authenticator.nonce.range()],
            &reply[..authenticator.start],
            &mut text,
        )
        .expect("authentic");
        text.split_off(16)
    }

    pub fn cookies(&self, reply: &[u8]) -> Vec<Vec<u8>> {
        encrypted_cookies(&self.open(reply)).map(<[u8]>::to_vec).collect()
    }
}

fn put_field(bytes: &mut Vec<u8>, field_type: u16, body: &[u8]) {
    let at = bytes.len();
    bytes.resize(at + 4, 0);
    put_field_header(bytes, at, field_type, body.len());
    bytes.extend(body);
}

/// The answer to a request.
pub fn answer(server: &Server, request: &[u8]) -> Vec<u8> {
    let socket = udp_client(server.ntp());
    socket.send(request).expect("sent");
    receive(&socket)
}

pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 2048];
    let length = socket.recv(&mut reply).expect("an answer");
    reply.truncate(length);
    reply
}

/// Asserts that a datagram gets no answer, and the next request on the socket does.
fn assert_silence(server: &Server, datagram: &[u8]) {
    let socket = udp_client(server.ntp());
    socket.send(datagram).expect("sent");
    let mut marker = plain_request(4, Mode::Client);
    marker[40..48].copy_from_slice(b"marker!!");
    socket.send(&marker).expect("sent");
    let reply = receive(&socket);
    assert_eq!(&reply[24..32], b"marker!!", "{datagram:02x?} was answered: {reply:02x?}");
}

pub fn assert_nak(reply: &[u8], parts: &Parts) {
    let header = Header::parse(reply).expect("a header");
    assert_eq!(header.reference_id, ReferenceId::KISS_NTSN);
    assert_eq!((header.stratum, header.leap), (0, Leap::Unsynchronised));
    assert_eq!(header.origin_timestamp.to_bits().to_be_bytes(), parts.header[40..48]);
    let identifier = &parts.fields[IDENTIFIER].1;
    assert_eq!(reply.len(), HEADER_BYTES + 4 + identifier.len(), "nothing but the identifier");
    assert_eq!(&reply[HEADER_BYTES + 4..], identifier);
}

fn c047_one_identifier_and_one_authenticator_behind_it(server: &Server) {
    let client = Keyed::new(server);
    let parts = client.parts();
    let reply = answer(server, &client.seal(&parts));
    let types: Vec<u16> = timeball::wire::extension::pieces(&reply, HEADER_BYTES)
        .map(|piece| match piece {
            timeball::wire::extension::Piece::Field(field) => field.field_type,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(types, [field_type::UNIQUE_IDENTIFIER, field_type::NTS_AUTHENTICATOR]);
    assert_eq!(reply[52..84], parts.fields[IDENTIFIER].1);
}

fn c048_reply_verifies_under_s2c(server: &Server) {
    let client = Keyed::new(server);
    let reply = answer(server, &client.seal(&client.parts()));
    client.open(&reply);
    // The associated data is all in front of the authenticator: every header bit counts.
    let Trailer::Nts(fields) = find(&reply, Direction::Response) else { panic!("no NTS") };
    for byte in 0..fields.authenticator.start {
        let mut changed = reply.clone();
        changed[byte] ^= 0x80;
        let authenticator = fields.authenticator;
        let mut text = changed[authenticator.ciphertext.range()].to_vec();
        let nonce = &changed[authenticator.nonce.range()];
        let data = &changed[..authenticator.start];
        let opened =
            timeball::aead::open_one(Algorithm::AesSivCmac256, &client.s2c, nonce, data, &mut text);
        assert!(opened.is_err(), "byte {byte} is not authenticated");
    }
}

fn c049_one_cookie_for_each_asked(server: &Server) {
    for placeholders in 0..=7 {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields.extend(client.placeholders(placeholders));
        let reply = answer(server, &client.seal(&parts));
        assert_eq!(client.cookies(&reply).len(), 1 + placeholders);
    }
}

fn c050_no_more_than_eight(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.extend(client.placeholders(10));
    let request = client.seal(&parts);
    let reply = answer(server, &request);
    assert_eq!(client.cookies(&reply).len(), 8);
    assert!(reply.len() <= request.len());
}

fn c051_reply_is_as_long_as_the_request(server: &Server) {
    for placeholders in 0..=8 {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields.extend(client.placeholders(placeholders));
        parts.fields.push((0x4242, vec![1; 28]));
        let request = client.seal(&parts);
        assert_eq!(answer(server, &request).len(), request.len());
    }
}

fn c052_cookies_are_new_and_usable(server: &Server) {
    let mut client = Keyed::new(server);
    let mut seen = vec![client.cookie.clone()];
    for _ in 0..10 {
        let mut parts = client.parts();
        parts.fields.extend(client.placeholders(3));
        let cookies = client.cookies(&answer(server, &client.seal(&parts)));
        for cookie in &cookies {
            assert!(!seen.contains(cookie), "a cookie came twice");
            seen.push(cookie.clone());
        }
        client.cookie.clone_from(&cookies[3]);
    }
}

fn c053_cookies_are_encrypted_only(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.extend(client.placeholders(7));
    let reply = answer(server, &client.seal(&parts));
    for cookie in client.cookies(&reply) {
        assert!(!reply.windows(cookie.len()).any(|window| window == cookie));
    }
}

fn c054_placeholder_of_another_length(server: &Server) {
    for length in [96, 104, 200] {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields.push((field_type::NTS_COOKIE_PLACEHOLDER, vec![0; length]));
        let request = client.seal(&parts);
        let reply = answer(server, &request);
        assert_eq!(client.cookies(&reply).len(), 1);
        assert!(reply.len() <= request.len());
    }
}

fn c055_placeholder_contents_do_not_matter(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    let noise: Vec<u8> = (0..client.cookie.len()).map(|index| index as u8 ^ 0xa5).collect();
    parts.fields.push((field_type::NTS_COOKIE_PLACEHOLDER, noise));
    assert_eq!(client.cookies(&answer(server, &client.seal(&parts))).len(), 2);
}

fn c056_placeholder_before_the_cookie(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    let placeholder = client.placeholders(1).next().expect("one");
    parts.fields.insert(IDENTIFIER, placeholder);
    assert_eq!(client.cookies(&answer(server, &client.seal(&parts))).len(), 2);
}

fn c057_encrypted_placeholders_count(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.extend(client.placeholders(1));
    for (field_type, body) in client.placeholders(2) {
        put_field(&mut parts.plaintext, field_type, &body);
    }
    assert_eq!(client.cookies(&answer(server, &client.seal(&parts))).len(), 4);
}

fn c058_two_cookies(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.push((field_type::NTS_COOKIE, client.cookie.clone()));
    assert_silence(server, &client.seal(&parts));
}

fn c059_missing_fields(server: &Server) {
    let client = Keyed::new(server);
    for missing in [IDENTIFIER, COOKIE] {
        let mut parts = client.parts();
        parts.fields.remove(missing);
        assert_silence(server, &client.seal(&parts));
    }
    let parts = client.parts();
    let sealed = client.seal(&parts);
    let without_authenticator = &sealed[..sealed.len() - 40];
    assert_silence(server, without_authenticator);
}

fn c060_identifier_lengths(server: &Server) {
    for length in [32, 36, 64, 256, 700] {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields[IDENTIFIER].1 = (0..length).map(|index| index as u8).collect();
        let reply = answer(server, &client.seal(&parts));
        client.open(&reply);
        assert_eq!(reply[52..52 + length], parts.fields[IDENTIFIER].1);
    }
    for length in [12, 28] {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields[IDENTIFIER].1.truncate(length);
        assert_silence(server, &client.seal(&parts));
    }
}

fn c061_two_identifiers(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.push((field_type::UNIQUE_IDENTIFIER, vec![9; 32]));
    assert_silence(server, &client.seal(&parts));
}

fn c062_identifier_without_nts(server: &Server) {
    let mut request = plain_request(4, Mode::Client);
    put_field(&mut request, 0x4242, &[3; 24]);
    put_field(&mut request, field_type::UNIQUE_IDENTIFIER, &[7; 32]);
    let reply = answer(server, &request);
    assert_eq!(reply.len(), 84);
    assert_eq!(reply[48..], request[76..]);
    assert_eq!(Header::parse(&reply).expect("a header").stratum, 10);
}

fn c063_unknown_key_gets_a_nak(server: &Server) {
    let mut client = Keyed::new(server);
    client.cookie[0] ^= 0x80;
    let parts = client.parts();
    assert_nak(&answer(server, &client.seal(&parts)), &parts);
    client.cookie = vec![0; 16];
    let parts = client.parts();
    assert_nak(&answer(server, &client.seal(&parts)), &parts);
}

fn c064_wrong_tag_gets_a_nak(server: &Server) {
    let client = Keyed::new(server);
    let parts = client.parts();
    for from_end in [1, 16, 17, 32] {
        let mut request = client.seal(&parts);
        let at = request.len() - from_end;
        request[at] ^= 1;
        assert_nak(&answer(server, &request), &parts);
    }
}

fn c065_nak_is_shorter_and_needs_an_identifier(server: &Server) {
    let mut client = Keyed::new(server);
    client.cookie[20] ^= 1;
    let mut parts = client.parts();
    let request = client.seal(&parts);
    assert!(answer(server, &request).len() < request.len());
    parts.fields.remove(IDENTIFIER);
    assert_silence(server, &client.seal(&parts));
}

fn c066_missing_padding_is_discarded(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.nonce.truncate(8);
    assert_silence(server, &client.seal(&parts));
    parts.padding = 8;
    client.open(&answer(server, &client.seal(&parts)));
}

fn c067_nonce_lengths(server: &Server) {
    for length in (1..=24).chain([32, 64]) {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.nonce = vec![0x5a; length];
        let short_by: usize = 16 - length.next_multiple_of(4).min(16);
        parts.padding = short_by;
        client.open(&answer(server, &client.seal(&parts)));
    }
}

fn c069_fields_behind_the_authenticator(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    put_field(&mut parts.trailing, field_type::UNIQUE_IDENTIFIER, &[8; 32]);
    for (field_type, body) in client.placeholders(2) {
        put_field(&mut parts.trailing, field_type, &body);
    }
    let reply = answer(server, &client.seal(&parts));
    assert_eq!(client.cookies(&reply).len(), 1, "a placeholder without authentication counted");
    assert_eq!(reply[52..84], parts.fields[IDENTIFIER].1);
}

fn c070_unknown_fields_are_authenticated(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    parts.fields.insert(IDENTIFIER, (0x4242, vec![3; 24]));
    let request = client.seal(&parts);
    client.open(&answer(server, &request));
    let mut changed = request;
    changed[60] ^= 1;
    let reply = answer(server, &changed);
    assert_eq!(Header::parse(&reply).expect("a header").reference_id, ReferenceId::KISS_NTSN);
}

fn c071_short_encrypted_fields(server: &Server) {
    let client = Keyed::new(server);
    let mut parts = client.parts();
    put_field(&mut parts.plaintext, 0x4242, &[]);
    put_field(&mut parts.plaintext, 0x4242, &[1; 4]);
    client.open(&answer(server, &client.seal(&parts)));
    parts.plaintext.extend([0x42, 0x42, 0, 6, 1, 1]);
    assert_silence(server, &client.seal(&parts));
}

fn c072_nts_in_other_modes(server: &Server) {
    for mode in [Mode::SymmetricActive, Mode::Broadcast, Mode::Server] {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.header = plain_request(4, mode);
        assert_silence(server, &client.seal(&parts));
    }
}

fn c073_previous_keys_open_and_the_current_makes(server: &Server) {
    for place in 0..4 {
        let client = Keyed::under(server, place);
        let cookies = client.cookies(&answer(server, &client.seal(&client.parts())));
        let id = u32::from_be_bytes(*cookies[0].first_chunk().expect("an identifier"));
        assert_eq!(id, server.master_keys()[2].id(), "key {place}");
    }
}

fn c074_erased_key(server: &Server) {
    let other = Server::start();
    let client = Keyed::new(&other);
    let parts = client.parts();
    assert_nak(&answer(server, &client.seal(&parts)), &parts);
}

fn c076_restart_keeps_cookies(_: &Server) {
    let mut server = Server::start();
    let client = Keyed::new(&server);
    let key_file = server.directory.path().join("ntskeys");
    let before = std::fs::read_to_string(&key_file).expect("the key file");
    server.restart();
    client.open(&answer(&server, &client.seal(&client.parts())));
    assert_eq!(std::fs::read_to_string(&key_file).expect("the key file"), before);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&key_file).expect("the key file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

fn c077_cookie_length_is_constant(server: &Server) {
    for place in 0..4 {
        let client = Keyed::under(server, place);
        let mut parts = client.parts();
        parts.fields.extend(client.placeholders(7));
        for cookie in client.cookies(&answer(server, &client.seal(&parts))) {
            assert_eq!(cookie.len(), client.cookie.len());
        }
    }
}

fn c078_no_padding_when_none_is_needed(server: &Server) {
    let client = Keyed::new(server);
    let reply = answer(server, &client.seal(&client.parts()));
    let Trailer::Nts(fields) = find(&reply, Direction::Response) else { panic!("no NTS") };
    assert_eq!(fields.authenticator.ciphertext.end(), reply.len());
    let ciphertext_bytes = fields.authenticator.ciphertext.len();
    let natural = fields.authenticator.start + AuthenticatorLayout::bytes(16, ciphertext_bytes);
    assert_eq!(reply.len(), natural);
}

/// 20,000 distinct cookies: a server that kept 64 bytes of each would grow by more than a
/// megabyte.
fn c079_memory_is_flat(_: &Server) {
    let server = Server::start();
    let resident_kib = || {
        let pid = server.role_pid("responder").expect("the responder");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let socket = udp_client(server.ntp());
    let serve = |count| {
        for _ in 0..count {
            let client = Keyed::new(&server);
            socket.send(&client.seal(&client.parts())).expect("sent");
            receive(&socket);
        }
    };
    serve(2_000);
    let before_kib = resident_kib();
    serve(20_000);
    let grown_kib = resident_kib().saturating_sub(before_kib);
    assert!(grown_kib < 256, "the responder grew by {grown_kib} KiB");
}

fn c080_nonces_are_unique(server: &Server) {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..300 {
        let client = Keyed::new(server);
        let mut parts = client.parts();
        parts.fields.extend(client.placeholders(7));
        let reply = answer(server, &client.seal(&parts));
        let Trailer::Nts(fields) = find(&reply, Direction::Response) else { panic!("no NTS") };
        assert!(seen.insert(reply[fields.authenticator.nonce.range()].to_vec()));
        for cookie in client.cookies(&reply) {
            assert!(seen.insert(cookie[4..20].to_vec()), "a cookie's nonce came twice");
        }
    }
}

fn c081_unsynchronised_is_authenticated(_: &Server) {
    let server = kernel_server();
    let client = Keyed::new(&server);
    let reply = answer(&server, &client.seal(&client.parts()));
    client.open(&reply);
    assert_kernel_state(&Header::parse(&reply).expect("a header"));
}

/// Requests of all algorithms and damaged ones, all in the socket's queue at once.
fn c084_algorithms_and_failures_in_one_batch(server: &Server) {
    let algorithms = [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv, Algorithm::AesSivCmac512];
    let mut random = NonceGenerator::new().expect("random numbers");
    let master = &server.master_keys()[2];
    let socket = udp_client(server.ntp());
    let mut clients: Vec<(Association, timeball::client::Pending)> = Vec::new();
    for index in 0..64 {
        let mut association = server.mint(master, algorithms[index % 3], 1 + index % 8);
        let mut request = vec![0; 1472];
        let pending = association.request(&mut request, &mut random).expect("a cookie");
        request.truncate(pending.request_bytes);
        if index % 5 == 4 {
            request[110] ^= 1;
        }
        clients.push((association, pending));
        socket.send(&request).expect("sent");
    }
    for (index, (association, pending)) in clients.iter_mut().enumerate() {
        let mut reply = receive(&socket);
        let result = association.response(pending, &mut reply);
        if index % 5 == 4 {
            assert_eq!(result, Err(ResponseError::Nak), "request {index}");
        } else {
            result.unwrap_or_else(|error| panic!("request {index}: {error}"));
            assert_eq!(association.cookies(), 8, "request {index}");
        }
    }
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

fn kernel_server() -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "source = \"kernel\"", "")
}

/// What `adjtimex` says here and now is what has to stand on the wire.
fn assert_kernel_state(header: &Header) {
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
