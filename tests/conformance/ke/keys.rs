//! Lines 38 to 41: the keys of each AEAD (RFC 8915 section 5.1), and chrony's record 1024.

use timeball::aead::Algorithm;
use timeball::client::ResponseError;
use timeball::cookie::format::ClientKeys;

use super::{server_with, try_cookie, try_keys};
use crate::common::server::Server;
use crate::tls::{
    AEAD, COMPLIANT_128GCM, CRITICAL, Client, Reply, ask, good_request, record, request,
};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c038_exporter),
        case!(c038_exporter_and_key_length_of_each_aead),
        case!(c039_aead_30_with_record_1024),
        case!(c040_aead_30_without_record_1024),
        case!(c041_compliant_128gcm_with_a_body),
    ]
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
