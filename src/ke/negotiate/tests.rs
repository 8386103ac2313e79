//! Every case of the tables in which a well-formed request gets an answer.

use super::*;
use crate::ke::cookies::Cookie;
use crate::wire::ke::{COOKIE, Records};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn c011_c013_only_protocols_that_were_asked_for() {
    let answer = ask(&[0x8001, 0], &[15], &Policy::default());
    assert_eq!(answer, agreed(15, 15));
    assert_eq!(emitted(&answer, 8)[..6], [0x80, 1, 0, 2, 0, 0]);
}

#[test]
fn c012_no_common_protocol_has_neither_aead_nor_cookies() {
    let answer = ask(&[0x8001], &[15], &Policy::default());
    assert_eq!(answer, Answer::NoProtocol);
    assert_eq!(emitted(&answer, 8), [0x80, 1, 0, 0, 0x80, 0, 0, 0]);
}

#[test]
fn c019_aead_15_is_agreed_on_whatever_the_configuration() {
    let only_30 = policy(&[Algorithm::Aes128GcmSiv]);
    assert_eq!(ask(&[0], &[15], &only_30), agreed(15, 15));
    assert_eq!(ask(&[0], &[9999, 15], &only_30), agreed(15, 15));
    assert_eq!(ask(&[0], &[15, 30], &only_30), agreed(30, 15));
    assert_eq!(ask(&[0], &[15], &policy(&[])), agreed(15, 15));
}

#[test]
fn c021_no_common_aead_is_an_empty_record_and_not_an_error() {
    for offered in [&[9999][..], &[17, 1, 16]] {
        let answer = ask(&[0], offered, &Policy::default());
        assert_eq!(answer, Answer::NoAlgorithm);
        assert_eq!(emitted(&answer, 8), [0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 0, 0x80, 0, 0, 0]);
    }
}

#[test]
fn c020_c022_the_client_s_order_decides() {
    let all =
        policy(&[Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv]);
    assert_eq!(ask(&[0], &[15, 30], &all), agreed(15, 15));
    assert_eq!(ask(&[0], &[30, 15], &all), agreed(30, 15));
    assert_eq!(ask(&[0], &[1, 17, 15], &all), agreed(17, 17));
    assert_eq!(ask(&[0], &[17, 15], &Policy::default()), agreed(15, 15));
}

#[test]
fn c039_c040_record_1024() {
    let both = Policy::default();
    let compliant = Policy { compliant_128gcm: true, ..Policy::default() };
    for (says_1024, policy, exporter_id) in
        [(true, &both, 30), (false, &both, 15), (true, &compliant, 30), (false, &compliant, 30)]
    {
        let request = Request { compliant_128gcm: says_1024, ..request(&[0, 0], &[0, 30]) };
        let Answer::Agreed(terms) = negotiate(&request, policy, LOCAL) else { panic!() };
        assert_eq!(terms.exporter_id, exporter_id);
        assert_eq!(terms.compliant_128gcm, says_1024);
        let has_1024 = emitted(&Answer::Agreed(terms), 1).windows(4).any(|at| at == [4, 0, 0, 0]);
        assert_eq!(has_1024, says_1024);
    }
    let request = Request { compliant_128gcm: true, ..request(&[0, 0], &[0, 15]) };
    assert_eq!(negotiate(&request, &both, LOCAL), agreed(15, 15));
}

#[test]
fn c034_c035_no_server_and_no_port_when_the_client_can_guess_them() {
    let Answer::Agreed(terms) = ask(&[0], &[15], &Policy::default()) else { panic!() };
    assert_eq!((terms.server, terms.port), (None, None));
    let elsewhere = Policy { ntp_port: 11123, ..Policy::default() };
    let Answer::Agreed(terms) = ask(&[0], &[15], &elsewhere) else { panic!() };
    assert_eq!(terms.port, Some(11123));
}

#[test]
fn c036_the_client_s_server_is_echoed_when_it_is_ours() {
    let policy = Policy {
        ntp_servers: servers(&["192.0.2.7", "2001:db8::7"]),
        served_as: servers(&["time.example.org"]),
        ..Policy::default()
    };
    let v6 = "2001:db8::1".parse().unwrap();
    for (wanted, local, server) in [
        (Some("192.0.2.7"), v6, "192.0.2.7"),
        (Some("Time.Example.Org."), v6, "Time.Example.Org."),
        (Some("2001:0DB8::0007"), v6, "2001:0DB8::0007"),
        (Some("other.example.org"), v6, "2001:db8::7"),
        (Some("192.0.2.1"), LOCAL, "192.0.2.7"),
        (None, v6, "2001:db8::7"),
        (None, LOCAL, "192.0.2.7"),
        (None, "::ffff:192.0.2.1".parse().unwrap(), "192.0.2.7"),
    ] {
        let request = Request { server: wanted, ..request(&[0, 0], &[0, 15]) };
        let Answer::Agreed(terms) = negotiate(&request, &policy, local) else { panic!() };
        assert_eq!(terms.server.as_deref(), Some(server), "{wanted:?} at {local}");
    }
}

#[test]
fn c036_without_a_server_of_its_own_the_address_of_the_connection_can_be_asked_for() {
    for (wanted, server) in [("192.0.2.1", Some("192.0.2.1")), ("192.0.2.2", None)] {
        let request = Request { server: Some(wanted), ..request(&[0, 0], &[0, 15]) };
        let answer = negotiate(&request, &Policy::default(), LOCAL);
        let Answer::Agreed(terms) = answer else { panic!() };
        assert_eq!(terms.server.as_deref(), server);
    }
}

#[test]
fn c036_a_port_is_echoed_when_it_is_ours() {
    for (wanted, port) in [(123, Some(123)), (124, None)] {
        let request = Request { port: Some(wanted), ..request(&[0, 0], &[0, 15]) };
        let answer = negotiate(&request, &Policy::default(), LOCAL);
        let Answer::Agreed(terms) = answer else { panic!() };
        assert_eq!(terms.port, port);
    }
}

#[test]
fn c009_c010_c030_order_and_critical_bits_of_an_answer() {
    let answer = Answer::Agreed(Terms {
        algorithm: Algorithm::Aes128GcmSiv,
        exporter_id: 30,
        compliant_128gcm: true,
        server: Some("time.example.org".to_owned()),
        port: Some(11123),
    });
    let bytes = emitted(&answer, 8);
    let kinds: Vec<_> = Records::new(&bytes)
        .map(Result::unwrap)
        .map(|record| (record.critical, record.kind))
        .collect();
    let mut expected = vec![(true, 1), (true, 4), (false, 1024), (true, 7), (true, 6)];
    expected.extend([(false, COOKIE); 8]);
    expected.push((true, 0));
    assert_eq!(kinds, expected);
}

#[test]
fn names_that_cannot_stand_in_a_server_record_are_refused() {
    for text in ["", "fe80::1%eth0", "zeit.\u{fc}.de", "a b", "https://a"] {
        assert!(text.parse::<NtpServer>().is_err(), "{text:?}");
    }
    assert_eq!("a.example.".parse(), Ok(NtpServer::Name("a.example".to_owned())));
}

fn ask(protocols: &[u16], aeads: &[u16], policy: &Policy) -> Answer {
    let bytes = |ids: &[u16]| ids.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>();
    negotiate(&request(&bytes(protocols), &bytes(aeads)), policy, LOCAL)
}

fn request<'a>(protocols: &'a [u8], aeads: &'a [u8]) -> Request<'a> {
    Request {
        next_protocols: Ids::new(protocols).unwrap(),
        aeads: Ids::new(aeads),
        compliant_128gcm: false,
        server: None,
        port: None,
    }
}

fn agreed(id: u16, exporter_id: u16) -> Answer {
    let algorithm = Algorithm::from_id(id).unwrap();
    Answer::Agreed(Terms {
        algorithm,
        exporter_id,
        compliant_128gcm: false,
        server: None,
        port: None,
    })
}

fn policy(algorithms: &[Algorithm]) -> Policy {
    Policy { algorithms: algorithms.iter().copied().collect(), ..Policy::default() }
}

fn servers(names: &[&str]) -> Vec<NtpServer> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn emitted(answer: &Answer, cookies: u8) -> Vec<u8> {
    let cookies = (0..cookies).map(|byte| Cookie::from_iter([byte; 100])).collect();
    let mut out = Vec::new();
    answer.emit(&cookies, &mut out).unwrap();
    out
}
