//! Framing, and round trips of requests and responses.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

#[test]
fn a_minimal_request_is_these_bytes() {
    let request = Request {
        next_protocols: Ids::new(&[0, 0]).unwrap(),
        aeads: Ids::new(&[0, 15]),
        compliant_128gcm: false,
        server: None,
        port: None,
    };
    let mut bytes = Vec::new();
    request.emit(&mut bytes).unwrap();
    assert_eq!(bytes, [0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0]);
    assert_eq!(Request::parse(&bytes), Ok(request));
}

#[test]
fn c023_unknown_critical_record_is_error_0() {
    for kind in [8, 14, 1023, 1025, 0x4000, 0x4f01, 0x7fff] {
        let error = Request::parse(&with_record(true, kind, &[1])).unwrap_err();
        assert_eq!(error, RequestError::UnrecognizedCritical(kind));
        assert_eq!(error.code(), ErrorCode::UNRECOGNIZED_CRITICAL_RECORD);
    }
}

#[test]
fn c024_unknown_record_is_ignored() {
    for kind in [8, 14, 1023, 1025, 0x4000, 0x4f01, 0x7fff] {
        assert!(Request::parse(&with_record(false, kind, &[1, 2, 3])).is_ok());
    }
}

#[test]
fn c025_records_of_servers_are_error_1() {
    for kind in [ERROR, WARNING, COOKIE] {
        for critical in [false, true] {
            let error = Request::parse(&with_record(critical, kind, &[0, 1])).unwrap_err();
            assert_eq!(error, RequestError::Forbidden(kind));
            assert_eq!(error.code(), ErrorCode::BAD_REQUEST);
        }
    }
}

#[test]
fn c014_to_c018_next_protocol_and_aead() {
    let next = (true, NEXT_PROTOCOL, &[0, 0][..]);
    let aead = (true, AEAD, &[0, 15][..]);
    let cases: &[(&[Parts<'_>], RequestError)] = &[
        (&[aead], RequestError::Missing(NEXT_PROTOCOL)),
        (&[next, next, aead], RequestError::Doubled(NEXT_PROTOCOL)),
        (&[(true, NEXT_PROTOCOL, &[]), aead], RequestError::Body(NEXT_PROTOCOL)),
        (&[(true, NEXT_PROTOCOL, &[0, 0, 0]), aead], RequestError::Body(NEXT_PROTOCOL)),
        (&[(false, NEXT_PROTOCOL, &[0, 0]), aead], RequestError::NotCritical(NEXT_PROTOCOL)),
        (&[next], RequestError::Missing(AEAD)),
        (&[next, aead, aead], RequestError::Doubled(AEAD)),
        (&[next, (true, AEAD, &[])], RequestError::Body(AEAD)),
        (&[next, (false, AEAD, &[0])], RequestError::Body(AEAD)),
        (&[], RequestError::Missing(NEXT_PROTOCOL)),
    ];
    for (records, error) in cases {
        let parsed = Request::parse(&message(records)).unwrap_err();
        assert_eq!(parsed, *error, "{records:?}");
        assert_eq!(parsed.code(), ErrorCode::BAD_REQUEST);
    }
    assert!(Request::parse(&message(&[next, (false, AEAD, &[0, 15])])).is_ok());
    assert!(Request::parse(&message(&[(true, NEXT_PROTOCOL, &[0x80, 1])])).is_ok());
}

#[test]
fn c033_server_and_port_of_a_request() {
    for server in ["192.0.2.1", "2001:db8::1", "time.example.org", "time.example.org."] {
        let bytes = with_record(true, SERVER, server.as_bytes());
        assert_eq!(Request::parse(&bytes).unwrap().server, Some(server));
    }
    for server in ["", ".", "fe80::1%eth0", "a b", "a..b", "zeit.\u{fc}.de", "a\0"] {
        let error = Request::parse(&with_record(false, SERVER, server.as_bytes())).unwrap_err();
        assert_eq!(error, RequestError::Body(SERVER), "{server:?}");
    }
    let long = "a.".repeat(128);
    assert!(!is_server_name(&long) && is_server_name(&long[..254]));
    assert_eq!(Request::parse(&with_record(false, PORT, &[0, 123])).unwrap().port, Some(123));
    for port in [&[][..], &[1], &[0, 1, 2]] {
        let error = Request::parse(&with_record(false, PORT, port)).unwrap_err();
        assert_eq!(error, RequestError::Body(PORT));
    }
    let twice = message(&[
        (true, NEXT_PROTOCOL, &[0, 0]),
        (true, AEAD, &[0, 15]),
        (false, SERVER, b"a"),
        (false, SERVER, b"b"),
    ]);
    assert_eq!(Request::parse(&twice), Err(RequestError::Doubled(SERVER)));
}

#[test]
fn c041_record_1024_has_no_body_and_may_repeat() {
    let error = Request::parse(&with_record(false, COMPLIANT_128GCM, &[0])).unwrap_err();
    assert_eq!(error, RequestError::Body(COMPLIANT_128GCM));
    for critical in [false, true] {
        let once = with_record(critical, COMPLIANT_128GCM, &[]);
        assert!(Request::parse(&once).unwrap().compliant_128gcm);
    }
    let twice = message(&[
        (false, COMPLIANT_128GCM, &[]),
        (true, NEXT_PROTOCOL, &[0, 0]),
        (true, AEAD, &[0, 30]),
        (false, COMPLIANT_128GCM, &[]),
    ]);
    assert!(Request::parse(&twice).unwrap().compliant_128gcm);
}

#[test]
fn c028_end_of_message() {
    let good = with_record(false, 9, &[]);
    let body = good.len() - HEADER_BYTES;
    let mut not_critical = good.clone();
    not_critical[body] = 0;
    let mut with_body = good.clone();
    with_body[body + 3] = 1;
    with_body.push(0);
    let mut with_data = good.clone();
    with_data.push(0);
    let twice = [&good[..], &[0x80, 0, 0, 0]].concat();
    for (bytes, error) in [
        (&not_critical, FramingError::EndNotCritical),
        (&with_body, FramingError::EndWithBody),
        (&with_data, FramingError::DataAfterEnd),
        (&twice, FramingError::DataAfterEnd),
    ] {
        assert_eq!(Scanner::new(1024).advance(bytes), Err(error));
        assert_eq!(Request::parse(bytes), Err(RequestError::Framing(error)));
    }
    let cut = &good[..body];
    assert_eq!(Request::parse(cut), Err(RequestError::Framing(FramingError::NoEnd)));
    let cut = &good[..body - 1];
    assert_eq!(Request::parse(cut), Err(RequestError::Framing(FramingError::Truncated)));
}

#[test]
fn c007_c008_the_length_limit_counts_the_whole_message() {
    let padding = vec![0; 1024 - 16 - HEADER_BYTES];
    let message = with_record(false, 0x4000, &padding);
    assert_eq!(message.len(), 1024);
    assert_eq!(Scanner::new(1024).advance(&message), Ok(Progress::Complete));
    assert_eq!(Scanner::new(1023).advance(&message), Err(FramingError::Oversize));
    // The header of the record that is too long is enough.
    let head = &message[..16];
    assert_eq!(Scanner::new(1023).advance(head), Err(FramingError::Oversize));
}

#[test]
fn warnings_and_errors_of_servers() {
    let warning = message(&[(true, NEXT_PROTOCOL, &[0, 0]), (true, WARNING, &[0, 7])]);
    assert_eq!(Response::parse(&warning), Err(ResponseError::Warning(7)));
    let error = message(&[(true, ERROR, &[0, 2])]);
    assert_eq!(Response::parse(&error), Ok(Response::Error(ErrorCode::INTERNAL_SERVER_ERROR)));
    let mut emitted = Vec::new();
    Response::Error(ErrorCode::INTERNAL_SERVER_ERROR).emit(&mut emitted).unwrap();
    assert_eq!(emitted, error);
    let nine = message(&[
        (true, NEXT_PROTOCOL, &[0, 0]),
        (true, AEAD, &[0, 15]),
        (false, COOKIE, &[1; 64]),
        (false, COOKIE, &[2; 64]),
        (false, COOKIE, &[3; 64]),
        (false, COOKIE, &[4; 64]),
        (false, COOKIE, &[5; 64]),
        (false, COOKIE, &[6; 64]),
        (false, COOKIE, &[7; 64]),
        (false, COOKIE, &[8; 64]),
        (false, COOKIE, &[9; 64]),
    ]);
    let Ok(Response::Agreement(agreement)) = Response::parse(&nine) else { panic!() };
    assert_eq!(agreement.cookies.len(), COOKIES_PER_REPLY);
}

#[test]
fn a_body_of_65536_bytes_has_no_encoding() {
    let mut out = Vec::new();
    assert_eq!(push_record(&mut out, false, 9, &vec![0; 65536]), Err(BodyTooLong(9)));
    assert!(out.is_empty());
    push_record(&mut out, false, 9, &vec![0; 65535]).unwrap();
    assert!(Records::new(&out).all(|record| record.is_ok()));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = Request::parse(&bytes);
        let _ = Response::parse(&bytes);
        prop_assert!(Records::new(&bytes).count() <= bytes.len() / HEADER_BYTES + 1);
        let _ = Scanner::new(512).advance(&bytes);
    }

    #[test]
    fn requests_round_trip(
        protocols in vec(any::<u16>(), 1..9), aeads in vec(any::<u16>(), 1..9),
        compliant_128gcm: bool, server in option::of("[a-z0-9]{1,20}(\\.[a-z0-9-]{1,20}){0,3}"),
        port in option::of(any::<u16>()),
    ) {
        let (protocols, aeads) = (id_bytes(&protocols), id_bytes(&aeads));
        let request = Request {
            next_protocols: Ids::new(&protocols).unwrap(),
            aeads: Ids::new(&aeads),
            compliant_128gcm,
            server: server.as_deref(),
            port,
        };
        let mut bytes = Vec::new();
        request.emit(&mut bytes).unwrap();
        prop_assert_eq!(Request::parse(&bytes), Ok(request));
        scan_in_pieces(&bytes)?;
    }

    #[test]
    fn responses_round_trip(
        protocols in vec(any::<u16>(), 0..3), aead in option::of(vec(any::<u16>(), 0..2)),
        compliant_128gcm: bool, server in option::of("[a-z0-9]{1,20}(\\.[a-z0-9-]{1,20}){0,3}"),
        port in option::of(any::<u16>()), cookies in vec(vec(any::<u8>(), 1..=256), 0..=8),
    ) {
        let (protocols, aead) = (id_bytes(&protocols), aead.map(|aead| id_bytes(&aead)));
        let response = Response::Agreement(Agreement {
            next_protocols: Ids::new(&protocols).unwrap(),
            aeads: aead.as_deref().and_then(Ids::new),
            compliant_128gcm,
            server: server.as_deref(),
            port,
            cookies: cookies.iter().map(Vec::as_slice).collect(),
        });
        let mut bytes = Vec::new();
        response.emit(&mut bytes).unwrap();
        prop_assert_eq!(Response::parse(&bytes), Ok(response));
        scan_in_pieces(&bytes)?;
    }
}

/// Critical bit, type and body of a record.
type Parts<'a> = (bool, u16, &'a [u8]);

/// c006: whatever the pieces, the scanner sees the end with the last byte and not before.
fn scan_in_pieces(message: &[u8]) -> Result<(), TestCaseError> {
    let mut scanner = Scanner::new(message.len());
    for end in 0..message.len() {
        prop_assert_eq!(scanner.advance(&message[..end]), Ok(Progress::Incomplete));
    }
    prop_assert_eq!(scanner.advance(message), Ok(Progress::Complete));
    Ok(())
}

fn id_bytes(ids: &[u16]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_be_bytes()).collect()
}

fn with_record(critical: bool, kind: u16, body: &[u8]) -> Vec<u8> {
    message(&[(true, NEXT_PROTOCOL, &[0, 0]), (true, AEAD, &[0, 15]), (critical, kind, body)])
}

fn message(records: &[Parts<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (critical, kind, body) in records {
        push_record(&mut bytes, *critical, *kind, body).unwrap();
    }
    push_record(&mut bytes, true, END_OF_MESSAGE, &[]).unwrap();
    bytes
}
