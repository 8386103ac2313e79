//! Interoperability with the incumbents: Debian's chronyd and NTPsec's ntpd, both as they are, over
//! loopback. `tests/install-peers` brings them here.

mod common;
mod peer;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::namespace::Namespace;
use common::server::{Server, program, udp_client};
use peer::{
    Chronyd, ChronydServer, Ntpd, NtpdRsServer, NtpdSample, NtpdServer, Peer,
    assert_no_clock_capability, chronyd_once,
};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::certificate::self_signed;
use timeball::client::{Association, ResponseError};
use timeball::cookie::format::ClientKeys;
use timeball::cookie::ntskeys;
use timeball::ke::client::{Options, client_config, establish, roots_from_file};
use timeball::ke::exchange::Offer;
use timeball::limits::{COOKIES_PER_REPLY, DATAGRAM_BYTES, NTS_KE_PORT};
use timeball::sys::file::replace_private;
use timeball::wire::ntp::Header;

/// Polls that a client takes part in: more than it has cookies at first, so that those renewed in
/// replies are used too.
const POLLS: usize = 3 * COOKIES_PER_REPLY;

#[test]
fn peers_cannot_set_the_clock() {
    let status = peer::without_clock("cat".as_ref()).arg("/proc/self/status").output();
    assert_no_clock_capability(&String::from_utf8_lossy(&status.expect("setpriv").stdout));
}

#[test]
fn chronyd_takes_time_once() {
    let server = Server::start();
    let output = chronyd_once(server.ke_port, server.ntp_port, &server.certificate());
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {log}", output.status);
    // What `-Q` prints once it has a measurement that it would use.
    assert!(log.contains("System clock wrong by"), "{log}");
}

/// Shows that the time of the test above is authenticated: without trust there is none.
#[test]
fn chronyd_takes_nothing_under_a_foreign_certificate() {
    let server = Server::start();
    let directory = tempfile::tempdir().expect("a directory");
    let (foreign, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    self_signed(
        &["127.0.0.1".to_owned()],
        time::Duration::days(30),
        time::OffsetDateTime::now_utc(),
    )
    .expect("a certificate")
    .write(&foreign, &key, true)
    .expect("written");
    let output = chronyd_once(server.ke_port, server.ntp_port, &foreign);
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(!log.contains("System clock wrong by"), "{log}");
}

#[test]
fn chronyd_keeps_an_association() {
    let server = Server::start();
    let mut client = Chronyd::client(server.ke_port, &server.certificate());
    client.wait("chronyd polls", &["ntpdata", "127.0.0.1"], |data| {
        let value = |name: &str| {
            let line = data.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let enough = value("Total valid RX")?.parse::<usize>().ok()? >= POLLS;
        (enough && value("Authenticated")? == "Yes").then_some(())
    });
    // While a request is under way one cookie is missing, so not every look shows eight.
    client.wait("chronyd has 8 cookies", &["authdata"], |table| {
        let line = table.lines().find(|line| line.starts_with("127.0.0.1"))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, mode, key_id, aead, key_bits, _, attempts, naks, cookies, cookie_bytes] =
            columns[..]
        else {
            panic!("not chronyc's table: {table}");
        };
        // The first key establishment still serves: after a NAK there would have been another.
        assert_eq!((mode, key_id, aead, key_bits), ("NTS", "1", "15", "256"), "{table}");
        assert_eq!((attempts, naks, cookie_bytes), ("0", "0", "100"), "{table}");
        (cookies == "8").then_some(())
    });
}

/// chronyd's `xleave`, plain and with NTS, through each port: it is in interleaved mode, and the
/// kernel tells when each reply to it left.
#[test]
fn chronyd_is_in_interleaved_mode() {
    for port in ["mmsg", "uring"] {
        let lines = format!("workers = 2\nport = \"{port}\"");
        let server = Server::start_with(Algorithm::AesSivCmac256, &lines, "", "");
        for (nts, authenticated) in
            [("", "No"), (&*format!("nts ntsport {}", server.ke_port), "Yes")]
        {
            let options = format!("port {} xleave {nts}", server.ntp_port);
            let mut client = Chronyd::client_with(&options, &server.certificate());
            client.wait("chronyd polls", &["ntpdata", "127.0.0.1"], |data| {
                let value = |name: &str| {
                    let line = data.lines().find(|line| line.starts_with(name))?;
                    Some(line.split_once(':')?.1.trim().to_owned())
                };
                let enough = value("Total valid RX")?.parse::<usize>().ok()? >= POLLS;
                let modes = (value("Interleaved")?, value("Authenticated")?);
                (enough && modes == ("Yes".to_owned(), authenticated.to_owned())).then_some(())
            });
        }
        let stats = serverstats(&server);
        let total = |name: &str| stats["responder"][name].as_u64().expect("a counter");
        let (interleaved, told) = (total("answered_interleaved"), total("transmit_timestamps"));
        // Two clients; the first two of a client's exchanges are basic.
        assert!(interleaved > POLLS as u64, "{stats}");
        assert!(told >= interleaved, "{stats}");
        assert_eq!(stats["interleaved_ntp_packets"], interleaved);
        assert_eq!(total("transmit_timestamps_missing"), 0, "{stats}");
    }
}

fn serverstats(server: &Server) -> serde_json::Value {
    let output = program()
        .args(["serverstats", "--json", "--config"])
        .arg(server.directory.path().join("timeball.toml"))
        .output()
        .expect("the program");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A server that follows a key file which the test replaces.
fn following_server() -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "", "[keys]\nrotate = \"external\"")
}

fn rotate_keys(server: &Server) {
    let key_file = server.directory.path().join("ntskeys");
    let text = std::fs::read_to_string(&key_file).expect("the key file");
    let mut ring = ntskeys::parse(&text).expect("well-formed").ring;
    let mut random = NonceGenerator::new().expect("random numbers");
    ring.rotate(|bytes| random.fill(bytes));
    replace_private(&key_file, ntskeys::emit(&ring, 0.0).as_bytes()).expect("written");
}

/// The master keys rotate more often than a cookie outlives, and chronyd never notices.
#[test]
fn chronyd_keeps_an_association_through_rotations() {
    let server = following_server();
    let mut client = Chronyd::client(server.ke_port, &server.certificate());
    let received = |data: &str| {
        let line = data.lines().find(|line| line.starts_with("Total valid RX"))?;
        line.split_once(':')?.1.trim().parse::<usize>().ok()
    };
    let mut before = 0;
    for _ in 0..4 {
        // All cookies of its store are used and renewed between two rotations.
        before = client.wait("chronyd polls", &["ntpdata", "127.0.0.1"], |data| {
            received(data).filter(|count| *count >= before + POLLS)
        });
        rotate_keys(&server);
    }
    client.wait("chronyd polls", &["ntpdata", "127.0.0.1"], |data| {
        received(data).filter(|count| *count >= before + POLLS)
    });
    client.wait("chronyd shows its association", &["authdata"], |table| {
        let line = table.lines().find(|line| line.starts_with("127.0.0.1"))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        // One key establishment, no failed attempt, no NAK.
        assert_eq!((columns[2], columns[6], columns[7]), ("1", "0", "0"), "{table}");
        Some(())
    });
}

#[test]
fn timeball_queries_chronyd() {
    let server = ChronydServer::start(None);
    let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["query", "--json", "--samples", &POLLS.to_string(), "--ca"])
        .arg(server.certificate())
        .arg(format!("127.0.0.1:{}", server.ke_port))
        .output()
        .expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["aead_id"], 15, "{report}");
    assert_eq!(report["cookies"], 8, "{report}");
    assert_eq!(report["ntp_server"], format!("127.0.0.1:{}", server.ntp_port), "{report}");
    let samples = report["samples"].as_array().expect("an array");
    assert_eq!(samples.len(), POLLS);
    for sample in samples {
        assert_eq!((&sample["stratum"], &sample["synchronised"]), (&5.into(), &true.into()));
        let offset_seconds = sample["offset_seconds"].as_f64().expect("a number");
        assert!(offset_seconds.abs() < 1.0, "same host, same clock: {sample}");
    }
}

/// Queries until it is answered with authentic time of stratum 5: the server has just been started.
/// NTPsec falls silent to whoever asks more in a row.
fn query_a_starting_server(peer: &mut Peer, ke_port: u16, certificate: &Path) {
    let samples = peer.wait("an authentic answer", || {
        let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
            .args(["query", "--json", "--samples", "4", "--ca"])
            .arg(certificate)
            .arg(format!("127.0.0.1:{ke_port}"))
            .output()
            .expect("the program");
        let report = output.status.success().then_some(output.stdout)?;
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["cookies"], 8, "{report}");
        Some(report["samples"].as_array().expect("an array").clone())
    });
    assert_eq!(samples.len(), 4);
    assert!(samples.iter().all(|sample| sample["stratum"] == 5), "{samples:?}");
    peer.assert_it_cannot_set_the_clock();
}

#[test]
fn timeball_queries_ntpd_rs() {
    let mut server = NtpdRsServer::start();
    let (ke_port, certificate) = (server.ke_port, server.certificate());
    query_a_starting_server(&mut server.peer, ke_port, &certificate);
}

#[test]
fn timeball_queries_ntpsec() {
    let namespace = Namespace::new("ntpsec").expect("root may");
    namespace.enter(|| {
        let mut server = NtpdServer::start();
        let certificate = server.certificate();
        query_a_starting_server(&mut server.peer, NTS_KE_PORT, &certificate);
    });
}

#[test]
fn timeball_queries_with_each_aead() {
    let query = |server: &Server, aeads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
            .args(["query", "--json", "--samples", &POLLS.to_string(), "--aead", aeads, "--ca"])
            .arg(server.certificate())
            .arg(format!("127.0.0.1:{}", server.ke_port))
            .output()
            .expect("the program");
        assert!(output.status.success(), "{aeads}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["samples"].as_array().map(Vec::len), Some(POLLS), "{report}");
        [&report["aead_id"], &report["exporter_id"]].map(|id| id.as_u64().expect("a number"))
    };
    let all = "aeads = [15, 17, 30]";
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", all);
    for (aeads, id) in [("15", 15), ("17", 17), ("30,15", 30), ("17,30", 17)] {
        assert_eq!(query(&server, aeads), [id, id], "{aeads}");
    }
    // By default 17 is not agreed to.
    assert_eq!(query(&Server::start(), "17,30,15"), [30, 30]);
    let chronyd = ChronydServer::start(None);
    let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["query", "--json", "--aead", "30,15", "--ca"])
        .arg(chronyd.certificate())
        .arg(format!("127.0.0.1:{}", chronyd.ke_port))
        .output()
        .expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// From chrony to timeball: the keys that chronyd made and wrote.
#[test]
fn chronyd_and_timeball_share_master_keys() {
    let ntskeys = {
        let mut chronyd = ChronydServer::start(None);
        chronyd.chronyd.peer.stop();
        chronyd.ntskeys()
    };
    share(&ntskeys);
}

/// And from timeball to chrony. timeball writes chrony's newer form NKS1; Debian 12's chronyd 4.3
/// reads NKS0 alone, which says the same when all keys have one algorithm.
#[test]
fn timeball_and_chronyd_share_master_keys() {
    let server = Server::start();
    let path = server.directory.path().join("ntskeys");
    let text = std::fs::read_to_string(path).expect("the key file");
    share(&text.replacen("NKS1\n", "NKS0\n15 ", 1).replace(" 15\n", "\n"));
}

/// Cookies of either server are good at the other, and both leave the key file as it is.
fn share(ntskeys: &str) {
    let mut chronyd = ChronydServer::start(Some(ntskeys));
    let chronyd_ntp = ([127, 0, 0, 1], chronyd.ntp_port).into();
    let mut timeball = Server::start();
    let mut stranger = client_of(chronyd.ke_port, &chronyd.certificate());
    assert_eq!(poll(&mut stranger, timeball.ntp()), Err(ResponseError::Nak), "keys not shared yet");

    let path = timeball.directory.path().join("ntskeys");
    std::fs::write(&path, ntskeys).expect("written");
    timeball.restart();
    for (ke_port, certificate) in
        [(chronyd.ke_port, chronyd.certificate()), (timeball.ke_port, timeball.certificate())]
    {
        let mut client = client_of(ke_port, &certificate);
        for number in 0..POLLS {
            // Each server opens the cookies that the other one renewed.
            let server = if number % 2 == 0 { timeball.ntp() } else { chronyd_ntp };
            let header = poll(&mut client, server).expect("an authentic reply");
            assert_eq!(header.stratum, if number % 2 == 0 { 10 } else { 5 });
        }
        assert_eq!(client.cookies(), COOKIES_PER_REPLY);
    }

    chronyd.chronyd.peer.stop();
    timeball.restart();
    assert_eq!(chronyd.ntskeys(), ntskeys);
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), ntskeys);
}

/// A client that did key establishment on a port of 127.0.0.1.
fn client_of(ke_port: u16, certificate: &std::path::Path) -> Association {
    let established = establish(&Options {
        host: "127.0.0.1".to_owned(),
        port: ke_port,
        config: client_config(roots_from_file(certificate).expect("a certificate")),
        offer: Offer::default(),
        timeout: Duration::from_secs(10),
    })
    .expect("key establishment");
    let agreed = &established.agreed;
    let keys = ClientKeys::new(agreed.algorithm, established.keys.c2s(), established.keys.s2c());
    Association::new(keys.expect("lengths fit"), agreed.cookies.iter().map(|cookie| &cookie[..]))
}

fn poll(client: &mut Association, server: std::net::SocketAddr) -> Result<Header, ResponseError> {
    let mut nonces = NonceGenerator::new().expect("random numbers");
    let mut buffer = [0; DATAGRAM_BYTES];
    let pending = client.request(&mut buffer, &mut nonces).expect("cookies are left");
    let socket = udp_client(server);
    socket.send(&buffer[..pending.request_bytes]).expect("sent");
    let received_bytes = socket.recv(&mut buffer).expect("a reply");
    client.response(&pending, &mut buffer[..received_bytes])
}

#[test]
fn ntpsec_takes_time() {
    let server = following_server();
    let mut ntpd = Ntpd::client(server.ke_port, &server.certificate());
    // Two rotations: the longest that a cookie in a client's store is sure to outlive.
    for samples in [3, 6] {
        ntpd.wait_for_samples(samples);
        rotate_keys(&server);
    }
    // One more than the cookies of key establishment: the last one came in a reply.
    let samples = ntpd.wait_for_samples(COOKIES_PER_REPLY + 1);
    ntpd.peer.assert_it_cannot_set_the_clock();
    for sample in &samples {
        assert_eq!(sample.status & 0xf000, NtpdSample::AUTHENTIC, "{samples:?}");
        assert!(sample.offset_seconds.abs() < 1.0, "same host, same clock: {samples:?}");
    }
    let log = ntpd.peer.log();
    assert!(log.contains("Got 8 cookies, length 100, aead=15."), "{log}");
    // Once is enough: cookies that NTPsec does not take would make it start anew.
    assert_eq!(log.matches("NTSc: connecting to").count(), 1, "{log}");
}
