//! What other people's tools make of timeball: clients of tlslite-ng, the dissector of tshark,
//! testssl.sh. `tests/install-peers` brings them.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::interleaved::InterleavedClient;
use common::plain_request;
use common::server::{Server, udp_client};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::Association;
use timeball::limits::DATAGRAM_BYTES;
use timeball::wire::ntp::Mode;

/// What becomes of each of the clients in `tests/strangers/handshakes.py`. Where RFC 8446 leaves
/// the choice of an alert, or the TLS library sends none, it is the library's.
const HANDSHAKES: [(&str, &str); 18] = [
    ("usual", "served 8"),
    ("no_key_share", "served 8"),
    ("every_suite", "served 8"),
    ("small_records", "served 8"),
    ("protocols_around_ntske", "served 8"),
    ("other_protocols", "alert no_application_protocol"),
    ("only_old_versions", "alert protocol_version"),
    ("only_finite_fields", "alert handshake_failure"),
    ("unknown_ticket", "served 8"),
    ("a_byte_a_record", "served 8"),
    ("empty_records", "served 8"),
    ("many_empty_records", "closed"),
    ("new_keys_first", "served 8"),
    ("hello_again", "alert unexpected_message"),
    ("finished_again", "alert unexpected_message"),
    ("warning_alerts", "alert decode_error"),
    ("unknown_content", "alert decode_error"),
    ("handshake_of_no_type", "alert decode_error"),
];

#[test]
fn hostile_handshakes_are_refused_and_unusual_ones_served() {
    let server = Server::start();
    let processes = server.role_pids("key-establishment");
    let output = Command::new(root().join("target/peers/tlslite/bin/python"))
        .arg(root().join("tests/strangers/handshakes.py"))
        .args(["127.0.0.1", &server.ke_port.to_string()])
        .output()
        .expect("tlslite-ng (tests/install-peers)");
    let text = text_of(&output);
    let found: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(found, HANDSHAKES);
    assert_eq!(server.role_pids("key-establishment"), processes, "{}", server.log());
}

#[test]
fn no_version_before_1_3_is_found_and_no_known_hole() {
    let server = Server::start();
    // It cannot offer the protocol ntske/1, without which the server speaks no TLS 1.3 either.
    let output = Command::new("testssl")
        .args([
            "--color",
            "0",
            "--warnings",
            "off",
            "--protocols",
            "--heartbleed",
            "--ccs-injection",
        ])
        .arg(format!("127.0.0.1:{}", server.ke_port))
        .output()
        .expect("testssl.sh (tests/install-peers)");
    // Its exit code counts what it could not find out, too.
    let text = String::from_utf8_lossy(&output.stdout);
    for version in ["SSLv2", "SSLv3", "TLS 1", "TLS 1.1", "TLS 1.2"] {
        let line = |line: &&str| line.trim_start().starts_with(&format!("{version}  "));
        let line = text.lines().find(line).unwrap_or_else(|| panic!("{version}: {text}"));
        assert!(line.contains("not offered"), "{line}");
    }
    assert!(!text.contains("VULNERABLE") && text.contains("not vulnerable"), "{text}");
}

#[test]
fn every_packet_is_decoded_without_a_complaint() {
    let server = Server::start();
    let mut capture = Capture::new(server.ntp());
    for (version, mode) in
        [(1, Mode::Client), (2, Mode::Client), (3, Mode::Client), (4, Mode::Client)]
    {
        capture.exchange(&plain_request(version, mode));
    }
    capture.exchange(&plain_request(4, Mode::SymmetricActive));
    let mut interleaved = InterleavedClient::default();
    for _ in 0..3 {
        let reply = capture.exchange(&interleaved.request());
        interleaved.reply(&reply);
    }
    let mut nonces = NonceGenerator::new().expect("random numbers");
    let master = &server.master_keys()[0];
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv] {
        for cookies in [8, 4, 1] {
            let request = request(&mut server.mint(master, algorithm, cookies), &mut nonces);
            capture.exchange(&request);
            // A cookie that does not open: NTS NAK.
            let mut damaged = request;
            damaged[90] ^= 1;
            capture.exchange(&damaged);
        }
    }

    let rows = capture.decoded();
    assert_eq!(rows.len(), 2 * (8 + 18));
    for row in &rows {
        assert_eq!(row["_ws.expert.message"], "", "{row:?}");
        assert!(row["_ws.col.Protocol"] == "NTP" && !row["ntp.flags.mode"].is_empty(), "{row:?}");
    }
    // Unique Identifier, NTS Cookie, NTS Cookie Placeholder, NTS Authenticator.
    let of_nts = [
        "0x0104,0x0204,0x0404",
        "0x0104,0x0404",
        "0x0104,0x0204,0x0404",
        "0x0104",
        "0x0104,0x0204,0x0304,0x0304,0x0304,0x0304,0x0404",
        "0x0104,0x0404",
    ];
    let found: Vec<&str> = rows[16..].iter().map(|row| &*row["ntp.ext.type"]).collect();
    assert!(found.starts_with(&of_nts), "{found:?}");
}

type Row = BTreeMap<&'static str, String>;

/// Fields of tshark.
const FIELDS: [&str; 6] = [
    "_ws.col.Protocol",
    "_ws.expert.message",
    "ntp.flags.mode",
    "ntp.stratum",
    "ntp.ext.type",
    "ntp.ext.length",
];

const CLIENT_PORT: u16 = 50_000;

/// Datagrams between a client and a server, as a file that tshark reads (pcap, link type 101: IP
/// without a link layer).
struct Capture {
    server: SocketAddr,
    file: Vec<u8>,
}

impl Capture {
    fn new(server: SocketAddr) -> Self {
        let words = [0xa1b2_c3d4_u32, 2 | 4 << 16, 0, 0, 1 << 16, 101];
        Self { server, file: words.iter().flat_map(|word| word.to_le_bytes()).collect() }
    }

    /// Asks the server, and keeps request and reply.
    fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        let client = udp_client(self.server);
        client.send(request).expect("sent");
        let mut reply = [0; DATAGRAM_BYTES];
        let reply_bytes = client.recv(&mut reply).expect("a reply");
        // The kernel's choice of a port might be one of traceroute's, which tshark would note.
        let from = SocketAddr::new(client.local_addr().expect("bound").ip(), CLIENT_PORT);
        self.add(from, self.server, request);
        self.add(self.server, from, &reply[..reply_bytes]);
        reply[..reply_bytes].to_vec()
    }

    fn add(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        const HEADERS_BYTES: usize = 28;
        let bytes = HEADERS_BYTES + datagram.len();
        self.file.extend([0; 8]);
        self.file.extend((bytes as u32).to_le_bytes().repeat(2));
        self.file.extend([0x45, 0]);
        self.file.extend((bytes as u16).to_be_bytes());
        self.file.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        for address in [from, to] {
            let SocketAddr::V4(address) = address else { panic!("IPv4") };
            self.file.extend(address.ip().octets());
        }
        self.file.extend(from.port().to_be_bytes());
        self.file.extend(to.port().to_be_bytes());
        self.file.extend(((bytes - 20) as u16).to_be_bytes());
        // No checksum (RFC 768).
        self.file.extend([0, 0]);
        self.file.extend(datagram);
    }

    fn decoded(&self) -> Vec<Row> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("capture.pcap");
        std::fs::write(&file, &self.file).expect("written");
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&file)
            .args(["-d", &format!("udp.port=={},ntp", self.server.port()), "-T", "fields"])
            .args(FIELDS.iter().flat_map(|field| ["-e", field]))
            .output()
            .expect("tshark (tests/install-peers)");
        let row = |line: &str| {
            FIELDS.into_iter().zip(line.split('\t').map(str::to_owned)).collect::<Row>()
        };
        text_of(&output).lines().map(row).collect()
    }
}

fn request(client: &mut Association, nonces: &mut NonceGenerator) -> Vec<u8> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let pending = client.request(&mut buffer, nonces).expect("cookies are left");
    buffer.truncate(pending.request_bytes);
    buffer
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}
