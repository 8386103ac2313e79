//! Every seed of the fuzz targets, through the targets, in an ordinary test run.

#[allow(unreachable_pub, reason = "the library of another workspace")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use timeball::aead::Algorithm;
use timeball::config::sample::sample_file;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::engine::outcome::Outcome;
use timeball::wire::ke::{Agreement, ErrorCode, Ids, Request, Response};
use timeball::wire::timestamp::NtpTimestamp;

/// A name and the bytes of one seed.
type Seed = (String, Vec<u8>);

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<Seed> {
    let entries = fs::read_dir(folder(target)).expect("the seeds");
    let mut seeds: Vec<Seed> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (
                entry.file_name().into_string().expect("ASCII"),
                fs::read(entry.path()).expect("readable"),
            )
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn requests_reach_every_outcome() {
    let outcomes: Vec<Outcome> =
        seeds("ntp_request").iter().flat_map(|(_, seed)| targets::ntp_request(seed).0).collect();
    for outcome in Outcome::ALL.iter().filter(|&&outcome| outcome != Outcome::Undecided) {
        assert!(outcomes.contains(outcome), "no seed comes to {}", outcome.name());
    }
}

#[test]
fn requests_reach_interleaved_mode() {
    for (name, seed) in seeds("ntp_request") {
        let (_, interleaved) = targets::ntp_request(&seed);
        assert_eq!(interleaved > 0, name.starts_with("interleaved"), "{name}");
    }
}

#[test]
fn responses_are_taken_where_they_are_genuine() {
    for (name, seed) in seeds("ntp_response") {
        assert_eq!(targets::ntp_response(&seed), name.starts_with("reply"), "{name}");
    }
}

#[test]
fn ke_messages_are_what_they_are_called() {
    for (name, seed) in seeds("ke_message") {
        let is = |kind| name.starts_with(kind) || name.starts_with("both");
        assert_eq!(targets::ke_message(&seed), (is("request"), is("response")), "{name}");
    }
}

#[test]
fn sessions_end_as_they_are_called() {
    for (name, seed) in seeds("ke_session") {
        let outcome = format!("{:?}", targets::ke_session(&seed).expect("four bytes and more"));
        let outcome = outcome.split(' ').next().expect("a word").to_lowercase();
        assert!(name.replace('_', "").starts_with(&outcome), "{name}: {outcome}");
    }
}

#[test]
fn configurations_are_what_they_are_called() {
    for (name, seed) in seeds("configuration") {
        assert_eq!(targets::configuration(&seed), name.starts_with("good"), "{name}");
    }
}

#[test]
fn requests_at_the_control_socket_are_what_they_are_called() {
    for (name, seed) in seeds("control_request") {
        assert_eq!(targets::control_request(&seed), name.starts_with("good"), "{name}");
    }
}

#[test]
fn key_files_are_what_they_are_called() {
    for (name, seed) in seeds("ntskeys") {
        assert_eq!(targets::ntskeys(&seed), name.starts_with("keys"), "{name}");
    }
}

#[test]
fn a_daemons_words_are_what_they_are_called() {
    for (name, seed) in seeds("tracking") {
        let expected = (!name.starts_with("refused"), name.starts_with("followed"));
        assert_eq!(targets::tracking(&seed), expected, "{name}");
    }
}

#[test]
fn back_ends_agree() {
    for (name, seed) in seeds("aead_backends") {
        assert!(targets::aead_backends(&seed) > 0, "{name}");
    }
}

/// Writes all seeds anew: `cargo test --test fuzz_seeds -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let all = [
        ("ntp_request", request_seeds()),
        ("ntp_response", response_seeds()),
        ("ke_message", ke_seeds()),
        ("ke_session", session_seeds()),
        ("configuration", configuration_seeds()),
        ("control_request", control_seeds()),
        ("ntskeys", key_file_seeds()),
        ("tracking", tracking_seeds()),
        ("aead_backends", backend_seeds()),
    ];
    for (target, seeds) in all {
        fs::create_dir_all(folder(target)).expect("a folder");
        for (name, seed) in seeds {
            fs::write(folder(target).join(name), seed).expect("written");
        }
    }
}

/// Reports of chronyd and replies to NTP queries, each behind the sequence that is expected.
fn tracking_seeds() -> Vec<Seed> {
    const SEQUENCE: [u8; 4] = [1, 2, 3, 4];
    // chrony's floating point.
    let half: u32 = 1 << 25 | 1 << 23;
    let mut report = [0; 104];
    report[..8].copy_from_slice(&[6, 2, 0, 0, 0, 33, 0, 5]);
    report[16..20].copy_from_slice(&SEQUENCE);
    report[28..32].copy_from_slice(&[192, 0, 2, 1]);
    report[53] = 3;
    report[60..64].copy_from_slice(&1_799_999_990_u32.to_be_bytes());
    for at in (68..104).step_by(4) {
        report[at..at + 4].copy_from_slice(&half.to_be_bytes());
    }
    let mut reply = [0; 48];
    reply[..4].copy_from_slice(&[0x24, 3, 6, 0xe7]);
    reply[12..16].copy_from_slice(&[192, 0, 2, 1]);
    // The target's own time, 1,800,000,000.25 s after 1970.
    let now = (2_208_988_800_u64 + 1_800_000_000) << 32 | 1 << 30;
    for at in [16, 32, 40] {
        reply[at..at + 8].copy_from_slice(&now.to_be_bytes());
    }
    let behind = |answer: &[u8]| [&SEQUENCE, answer].concat();
    let report_with = |at: usize, byte: u8| {
        let mut report = report;
        report[at] = byte;
        behind(&report)
    };
    let reply_with = |at: usize, byte: u8| {
        let mut reply = reply;
        reply[at] = byte;
        behind(&reply)
    };
    vec![
        ("followed_report".into(), behind(&report)),
        ("followed_report_negative".into(), report_with(69, 0x01 | 0x80)),
        ("followed_reply".into(), behind(&reply)),
        ("heard_report_unsynchronised".into(), report_with(55, 3)),
        ("heard_report_stratum_16".into(), report_with(53, 16)),
        ("heard_reply_unsynchronised".into(), reply_with(0, 0xe4)),
        ("heard_reply_off".into(), reply_with(35, 0)),
        ("refused_report_status".into(), report_with(9, 2)),
        ("refused_report_sequence".into(), report_with(16, 9)),
        ("refused_report_delay".into(), report_with(92, 0x7e)),
        ("refused_report_cut_off".into(), behind(&report[..103])),
        (
            "refused_reply_kiss".into(),
            [&SEQUENCE, &[0xe4, 0][..], &[0; 10], b"RATE", &[0; 32]].concat(),
        ),
        ("refused_request".into(), behind(&[0x23; 48])),
    ]
}

/// Batches that fill groups of every width: all of one shape, all damaged, all different.
fn backend_seeds() -> Vec<Seed> {
    let batch = |case: fn(u8) -> [u8; 16]| (0..37).flat_map(case).collect::<Vec<u8>>();
    vec![
        ("alike".to_owned(), batch(|i| [2, 84, 104, 99, i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
        ("damaged".to_owned(), batch(|i| [18, 188, 64, 99, i, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1])),
        ("gcm_siv".to_owned(), batch(|i| [9, 84, 72, 99, i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])),
        (
            "gcm_siv_damaged".to_owned(),
            batch(|i| [25, 156, 32, 99, i, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1]),
        ),
        ("mixed".to_owned(), batch(|i| [i, i * 5, i * 7, i, i, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])),
    ]
}

fn request_seeds() -> Vec<Seed> {
    let genuine = targets::genuine_requests();
    let [siv, siv_512, gcm, siv_eight, ..] = genuine else { panic!("six requests") };
    let plain = |first: u8| [&[first][..], &[6; 39], &[0x5a; 8]].concat();
    let with = |trailer: &[u8]| [&plain(0x23)[..], trailer].concat();
    let damaged = |at: usize| {
        let mut request = siv.clone();
        request[at] ^= 0x80;
        request
    };
    let authenticator = siv.len() - 40;
    let mut lengths_wrong = siv.clone();
    lengths_wrong[authenticator + 4..authenticator + 8].fill(0xff);
    let mut identifier_doubled = siv.clone();
    identifier_doubled.splice(84..84, siv[48..84].to_vec());
    let unknown_field = [&[0x01, 0x04, 0, 28][..], &[0; 24]].concat();
    let batch = |datagrams: &[&[u8]]| targets::batch_of(datagrams);
    let mut truncated = batch(&[siv]);
    truncated[0] |= 0x80;
    let enclosed = |plaintext: &[u8]| {
        let lead = targets::ENCLOSED | plaintext.len() as u16;
        [&lead.to_be_bytes(), plaintext].concat()
    };
    let mut denied = batch(&[siv]);
    denied[0] |= (targets::DENIED >> 8) as u8;
    // Beyond the least budget, eight at once, and then beyond that of kisses.
    let often = |datagram: &[u8]| batch(&[datagram; 32]);
    let all = genuine.iter().cycle().take(30).map(Vec::as_slice).collect::<Vec<_>>();
    let placeholder = [&[0x03, 0x04, 0, 104][..], &[0; 100]].concat();
    vec![
        ("nts_siv_256".into(), batch(&[siv])),
        ("nts_siv_512".into(), batch(&[siv_512])),
        ("nts_gcm_siv".into(), batch(&[gcm])),
        ("nts_eight_cookies".into(), batch(&[siv_eight])),
        ("nts_fields_behind".into(), batch(&[&[&siv[..], &unknown_field].concat()])),
        ("nts_enclosed_placeholder".into(), enclosed(&placeholder)),
        ("drop_enclosed".into(), enclosed(&[3, 4, 0xff, 0xff].repeat(8))),
        ("nts_mixed".into(), batch(&[siv, &plain(0x23), siv_512, &damaged(90), gcm])),
        ("nak_cookie".into(), batch(&[&damaged(90)])),
        ("nak_header".into(), batch(&[&damaged(40)])),
        ("plain_modes".into(), batch(&[&plain(0x23), &plain(0x1b), &plain(0x21), &plain(0x08)])),
        ("plain_identifier".into(), batch(&[&siv[..84]])),
        ("plain_unknown_field".into(), batch(&[&with(&unknown_field)])),
        ("drop_version_mode_length".into(), batch(&[&plain(0x2b), &plain(0x24), &[0x23; 47], b""])),
        ("drop_mac".into(), batch(&[&with(&[0; 20])])),
        ("drop_malformed".into(), batch(&[&with(&[1, 4, 0xff, 0xff].repeat(8))])),
        ("drop_incomplete".into(), batch(&[&siv[..authenticator]])),
        ("drop_identifier_doubled".into(), batch(&[&identifier_doubled])),
        ("drop_authenticator".into(), batch(&[&lengths_wrong])),
        ("drop_truncated".into(), truncated),
        ("drop_denied".into(), denied),
        ("drop_replay".into(), often(siv)),
        ("drop_rate_nak".into(), often(&damaged(90))),
        ("kiss_plain".into(), often(&plain(0x23))),
        ("kiss_nts".into(), batch(&all)),
        ("interleaved".into(), batch(&[&naming(plain(0x23), 1), &naming(plain(0x23), 3)])),
        (
            "interleaved_among_nts".into(),
            batch(&[&naming(plain(0x23), 1), siv, &naming(plain(0x23), 3), siv_512]),
        ),
    ]
}

/// A request that names the reply whose receive timestamp is the time of all seeds with this mark
/// in its lowest bits.
fn naming(mut request: Vec<u8>, mark: u64) -> Vec<u8> {
    let receive = NtpTimestamp::from_unix(1_800_000_000, 250_000_000).to_bits() | mark;
    request[24..32].copy_from_slice(&receive.to_be_bytes());
    request
}

fn response_seeds() -> Vec<Seed> {
    let replies = targets::genuine_replies();
    let waiting = |number: usize, reply: &[u8]| [&[number as u8][..], reply].concat();
    let genuine = replies.iter().enumerate();
    let mut seeds: Vec<Seed> = genuine
        .map(|(number, reply)| (format!("reply_{number}"), waiting(number, reply)))
        .collect();
    let cookies = [&[0x02, 0x04, 0, 104][..], &[7; 100]].concat().repeat(2);
    seeds.push(("reply_enclosing_cookies".into(), [&[0x81][..], &cookies].concat()));
    seeds.push(("reply_enclosing_garbage".into(), [&[0x80][..], &[0xff; 32]].concat()));
    let mut forged = waiting(0, &replies[0]);
    forged[40] ^= 1;
    seeds.push(("forged".into(), forged));
    seeds.push(("other_clients".into(), waiting(1, &replies[0])));
    let mut nak = waiting(0, &replies[0][..84]);
    nak[1..17].copy_from_slice(b"\xe4\x00\x06\x20\0\0\0\0\0\0\0\0NTSN");
    seeds.push(("nak".into(), nak));
    seeds.push(("plain".into(), waiting(0, &replies[0][..48])));
    seeds
}

fn ke_seeds() -> Vec<Seed> {
    let ids = |bytes: &'static [u8]| Ids::new(bytes).expect("an even length");
    let emit_request = |request: Request<'_>| {
        let mut text = Vec::new();
        request.emit(&mut text).expect("short");
        text
    };
    let emit_response = |response: Response<'_>| {
        let mut text = Vec::new();
        response.emit(&mut text).expect("short");
        text
    };
    let usual = Request {
        next_protocols: ids(&[0, 0]),
        aeads: Some(ids(&[0, 15])),
        compliant_128gcm: false,
        server: None,
        port: None,
    };
    let wide = Request {
        next_protocols: ids(&[0, 0, 0x80, 1]),
        aeads: Some(ids(&[0, 30, 0, 15, 0, 17])),
        compliant_128gcm: true,
        server: Some("time.example.org"),
        port: Some(123),
    };
    let cookie = [0x5a; 64];
    let agreement = |cookies: usize| Agreement {
        next_protocols: ids(&[0, 0]),
        aeads: Some(ids(&[0, 15])),
        compliant_128gcm: true,
        server: Some("2001:db8::1"),
        port: Some(11123),
        cookies: (0..cookies).map(|_| &cookie[..]).collect(),
    };
    let usual = emit_request(usual);
    let behind = [&usual[..], &[0x40, 0, 0, 0]].concat();
    let unknown = [&[0xc0, 0, 0, 1, 7][..], &usual].concat();
    let ignored = [&[0x40, 0, 0, 1, 7][..], &usual].concat();
    let error = Response::Error(ErrorCode::BAD_REQUEST);
    vec![
        ("broken_cut_off".into(), usual[..usual.len() - 1].to_vec()),
        ("broken_data_behind".into(), behind),
        ("broken_end_with_body".into(), vec![0x80, 0, 0, 1, 0]),
        ("broken_unknown_critical".into(), unknown),
        ("both_ways_ignored_record".into(), ignored),
        ("both_ways_and_more".into(), emit_request(wide)),
        ("response_error".into(), emit_response(error)),
        ("response_eight_cookies".into(), emit_response(Response::Agreement(agreement(8)))),
        ("both_ways_usual".into(), usual),
    ]
}

/// Connections, each led by its four bytes.
fn session_seeds() -> Vec<Seed> {
    const TLS: u8 = 1;
    const DAMAGED: u8 = 2;
    const LATE: u8 = 4;
    let ke = ke_seeds();
    let message = |name: &str| &ke.iter().find(|seed| seed.0 == name).expect("a seed").1;
    let usual = message("both_ways_usual");
    let connection = |lead: [u8; 4], sent: &[u8]| [&lead, sent].concat();
    let none = &[0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0x7f, 0xff, 0x80, 0, 0, 0];
    let no_protocol = &[0x80, 1, 0, 2, 0x80, 1, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0];
    vec![
        ("served".into(), connection([TLS, 0, 0, 0], usual)),
        ("served_by_single_bytes".into(), connection([TLS, 1, 0, 0], usual)),
        ("served_with_more".into(), connection([TLS, 99, 0, 0], message("both_ways_and_more"))),
        ("no_algorithm".into(), connection([TLS, 0, 0, 0], none)),
        ("no_protocol".into(), connection([TLS, 0, 0, 0], no_protocol)),
        (
            "unrecognized_critical".into(),
            connection([TLS, 7, 0, 0], message("broken_unknown_critical")),
        ),
        ("bad_request".into(), connection([TLS, 0, 0, 0], message("broken_end_with_body"))),
        ("oversize".into(), connection([TLS, 0, 0, 0], &[0x40, 0x77, 0x20, 0, 0].repeat(4000))),
        ("incomplete".into(), connection([TLS, 0, 0, 0], message("broken_cut_off"))),
        ("timeout_request".into(), connection([TLS | LATE, 0, 0, 0], &usual[..9])),
        ("timeout_handshake".into(), connection([LATE, 0, 0, 0], &[22, 3, 1, 2])),
        ("abandoned".into(), connection([0, 0, 0, 0], &[22, 3, 1])),
        ("tls_no_hello".into(), connection([0, 3, 0, 0], b"GET / HTTP/1.1\r\n\r\n")),
        ("tls_damaged".into(), connection([TLS | DAMAGED, 0, 0, 5], usual)),
    ]
}

fn configuration_seeds() -> Vec<Seed> {
    let text = |text: &str| text.as_bytes().to_vec();
    let small = "[ntp]\nlisten = [\"127.0.0.1:11123\"]\n[clock]\nsource = \"local\"\n";
    vec![
        ("good_sample".into(), sample_file().into_bytes()),
        ("good_small".into(), text(small)),
        ("good_empty".into(), text("")),
        ("bad_key".into(), text("[clok]\n")),
        ("bad_value".into(), text("[ntp]\nworkers = -1\n")),
        ("bad_type".into(), text("ntp = \"yes\"\n")),
        ("bad_form".into(), text("[ntp\n")),
    ]
}

fn control_seeds() -> Vec<Seed> {
    let good = [
        "status",
        "serverstats",
        "tracking",
        "sources",
        "ntpdata",
        "clients",
        "reload",
        "rotate-keys",
    ];
    let line = |name: &str| format!("{{\"version\":1,\"request\":\"{name}\"}}").into_bytes();
    let mut seeds: Vec<Seed> =
        good.iter().map(|name| (format!("good_{}", name.replace('-', "_")), line(name))).collect();
    seeds.push(("bad_name".into(), line("stop")));
    seeds.push(("bad_version".into(), b"{\"version\":1e400,\"request\":\"status\"}".to_vec()));
    seeds.push(("bad_form".into(), b"[[[[".to_vec()));
    seeds
}

fn key_file_seeds() -> Vec<Seed> {
    let text = |algorithm| {
        let mut byte = 0_u8;
        let ring = KeyRing::generate(algorithm, |bytes| {
            for place in bytes {
                byte = byte.wrapping_add(37);
                *place = byte;
            }
        });
        ntskeys::emit(&ring, 86_400.5).to_string()
    };
    let (siv, gcm) = (text(Algorithm::AesSivCmac256), text(Algorithm::Aes128GcmSiv));
    let old = siv.replacen("NKS1\n", "NKS0\n15 ", 1).replace(" 15\n", "\n");
    let mixed: Vec<&str> = siv.lines().take(4).chain(gcm.lines().skip(4)).collect();
    vec![
        ("keys_siv".into(), siv.clone().into()),
        ("keys_gcm".into(), gcm.clone().into()),
        ("keys_old_form".into(), old.into()),
        ("keys_mixed".into(), mixed.join("\n").into()),
        ("broken_order".into(), siv.lines().rev().collect::<Vec<_>>().join("\n").into()),
        ("broken_age".into(), siv.replace("86400.5", "nan").into()),
    ]
}
