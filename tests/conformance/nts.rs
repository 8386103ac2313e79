//! Lines 47 to 84: NTS for NTP (RFC 8915 sections 5 and 6), over sockets.

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::{Association, ResponseError};
use timeball::wire::extension::field_type;
use timeball::wire::ntp::{HEADER_BYTES, Header, Mode, ReferenceId};
use timeball::wire::nts::{AuthenticatorLayout, Direction, Trailer, find};

use super::common::plain_request;
use super::common::server::{Server, udp_client};
use super::ntp::{assert_kernel_state, kernel_server};
use super::request::{
    COOKIE, IDENTIFIER, Keyed, answer, assert_nak, assert_silence, put_field, receive,
};
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
    ]
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
