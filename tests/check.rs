//! `timeball check` against real servers, good and bad: exit codes, performance data, the file for
//! Prometheus.

mod common;
mod peer;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use common::leap;
use common::server::{Server, free_tcp_port, kill, program, udp_client, wait_until};
use peer::ChronydServer;
use rustix::process::Signal;
use serde_json::Value;
use timeball::aead::Algorithm;
use timeball::certificate::self_signed;
use timeball::wire::ntp::{HEADER_BYTES, Header, Mode, ReferenceId};

/// No limit on what a busy machine decides, and the stratum of a server in `local` mode is good.
const PATIENT: [&str; 10] = [
    "--offset=-,60",
    "--delay=-",
    "--root-distance=-",
    "--key-establishment=-",
    "--stratum=10,15",
    "--samples=3",
    "--timeout=10",
    "--loss=-",
    "--drops=-",
    "--naks=-",
];

fn check(arguments: &[&str]) -> Output {
    program().arg("check").args(PATIENT).args(arguments).output().expect("the program")
}

fn check_remote(server: &Server, arguments: &[&str]) -> Output {
    let (ke, certificate) = (server.ke().to_string(), server.certificate());
    let trusting = [ke.as_str(), "--ca", certificate.to_str().expect("text")];
    check(&[&trusting, arguments].concat())
}

fn check_local(server: &Server, arguments: &[&str]) -> Output {
    let configuration = server.directory.path().join("timeball.toml");
    let place = ["--config", configuration.to_str().expect("text"), "--interval", "0"];
    check(&[&place, arguments].concat())
}

/// What it printed, if it ended so.
fn ended(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{text}{output:?}");
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
    assert!(text.starts_with(&format!("TIMEBALL {word} ")), "{text}");
    text
}

/// The performance data, read as the Monitoring Plugins Development Guidelines define it: label,
/// value, unit, and limits.
fn performance(text: &str) -> Vec<(String, f64, String, Vec<String>)> {
    let (_, data) = text.lines().next().expect("a line").split_once(" | ").expect("data");
    data.split(' ')
        .map(|item| {
            let (label, rest) = item.split_once('=').expect("label=value");
            let mut fields = rest.split(';').map(str::to_owned);
            let value = fields.next().expect("a value");
            let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
            let unit = value[digits.len()..].to_owned();
            (label.to_owned(), digits.parse().expect("a number"), unit, fields.collect())
        })
        .collect()
}

fn measured(text: &str, label: &str) -> f64 {
    let found = performance(text).into_iter().find(|(found, ..)| found == label);
    found.unwrap_or_else(|| panic!("{label}: {text}")).1
}

#[test]
fn a_good_server_is_ok_with_every_aead() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "aeads = [15, 17, 30]");
    let text = ended(&check_remote(&server, &["--aead", "15,17,30"]), 0);
    for aead in ["AES-SIV-CMAC-256 (15)", "AES-SIV-CMAC-512 (17)", "AES-128-GCM-SIV (30)"] {
        assert!(text.contains(&format!("ok        authenticated with {aead}\n")), "{text}");
    }
    let labels: Vec<String> = performance(&text).into_iter().map(|(label, ..)| label).collect();
    let expected = [
        "key_establishment",
        "cookies",
        "certificate_days",
        "loss",
        "offset",
        "delay",
        "stratum",
        "root_distance",
    ];
    assert_eq!(labels, expected);
    assert_eq!(measured(&text, "cookies"), 8.0);
    assert_eq!(measured(&text, "stratum"), 10.0);
    assert_eq!(measured(&text, "certificate_days").round(), 30.0);
    assert!(measured(&text, "offset").abs() < 60.0);
    let offset = performance(&text).into_iter().find(|(label, ..)| label == "offset");
    let (_, _, unit, limits) = offset.expect("measured");
    assert_eq!((unit.as_str(), limits), ("s", vec![String::new(), "-60:60".to_owned()]));
}

#[test]
fn limits_decide() {
    let server = Server::start();
    for (limits, code) in [
        ("--certificate-days=25,20", 0),
        ("--certificate-days=40,20", 1),
        ("--certificate-days=50,40", 2),
        ("--stratum=9,10", 1),
        ("--stratum=8,9", 2),
        ("--cookies=9,8", 1),
    ] {
        let (ke, certificate) = (server.ke().to_string(), server.certificate());
        let mut command = program();
        // The last word on a limit is not the helper's.
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        let patient = PATIENT.iter().filter(|option| name(option) != name(limits));
        command.arg("check").args(patient).arg(limits).arg(ke).arg("--ca").arg(certificate);
        ended(&command.output().expect("the program"), code);
    }
}

#[test]
fn a_certificate_of_another_authority_is_critical_and_none_is_unknown() {
    let (server, other) = (Server::start(), Server::start());
    let ke = server.ke().to_string();
    let wrong = other.certificate();
    let text = ended(&check(&[&ke, "--ca", wrong.to_str().expect("text")]), 2);
    assert!(text.contains("cannot be trusted"), "{text}");
    let text = ended(&check(&[&ke, "--ca", "/nonexistent/ca.pem"]), 3);
    assert!(text.contains("/nonexistent/ca.pem could not be read"), "{text}");
}

#[test]
fn an_expired_certificate_is_critical_to_clients_and_to_the_host() {
    let mut server = Server::start();
    let names = ["127.0.0.1".to_owned()];
    let past = time::OffsetDateTime::now_utc() - time::Duration::days(10);
    self_signed(&names, time::Duration::days(3), past)
        .expect("a certificate")
        .write(&server.certificate(), &server.directory.path().join("key.pem"), true)
        .expect("written");
    server.restart();
    let text = ended(&check_remote(&server, &[]), 2);
    assert!(text.contains("it has expired"), "{text}");
    let text = ended(&check_local(&server, &[]), 2);
    assert!(text.contains("has expired; renew it"), "{text}");
    assert!(measured(&text, "certificate_days") < -6.0, "{text}");
}

#[test]
fn a_server_that_does_not_answer_is_critical() {
    let nobody = format!("127.0.0.1:{}", free_tcp_port());
    let text = ended(&check(&[&nobody]), 2);
    assert!(text.contains("does not take connections"), "{text}");
    let text = ended(&check(&[&nobody, "--plain"]), 2);
    assert!(text.contains("nobody listens at udp "), "{text}");

    // Key establishment works and leads to a host that is silent.
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "ntp_server = \"127.0.0.2\"");
    let _silent = UdpSocket::bind(("127.0.0.2", server.ntp_port)).expect("a port");
    let (ke, certificate) = (server.ke().to_string(), server.certificate());
    let trusting = [ke.as_str(), "--ca", certificate.to_str().expect("text")];
    let brief = ["--timeout=10", "--samples=1"];
    let output = program().arg("check").args(trusting).args(brief).output().expect("the program");
    let text = ended(&output, 2);
    assert!(text.contains("no request was answered"), "{text}");
    assert_eq!(measured(&text, "loss"), 100.0);
    assert_eq!(measured(&text, "cookies"), 8.0);
}

#[test]
fn an_unsynchronised_server_is_critical_to_clients_and_to_the_host() {
    // Nobody reports there.
    let clock = format!("source = \"follow\"\nchronyd = \"127.0.0.1:{}\"", free_tcp_port());
    let server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, "");
    let plain = check(&["--plain", &server.ntp().to_string()]);
    for output in [check_remote(&server, &[]), plain] {
        let text = ended(&output, 2);
        assert!(text.contains("the server calls itself unsynchronised"), "{text}");
        assert_eq!(measured(&text, "stratum"), 0.0);
    }
    let text = ended(&check_local(&server, &[]), 2);
    assert!(text.contains("clients are told that the clock is unsynchronised"), "{text}");
}

#[test]
fn a_real_chronyd_is_ok() {
    let chronyd = ChronydServer::start(None);
    let (ke, certificate) = (format!("127.0.0.1:{}", chronyd.ke_port), chronyd.certificate());
    let check_it = || check(&[&ke, "--ca", certificate.to_str().expect("text")]);
    // On a busy machine a handshake may take longer than chronyd's two seconds.
    wait_until("key establishment", || check_it().status.success());
    let text = ended(&check_it(), 0);
    assert_eq!(measured(&text, "stratum"), 5.0);
    assert_eq!(measured(&text, "cookies"), 8.0);
    let ntp = format!("127.0.0.1:{}", chronyd.ntp_port);
    let text = ended(&check(&[&ntp, "--plain"]), 0);
    assert!(text.contains(": not authenticated, offset "), "{text}");
}

#[test]
fn a_kiss_of_death_is_critical() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        let mut request = [0; HEADER_BYTES];
        let (_, client) = socket.recv_from(&mut request).expect("a request");
        let mut header = Header::parse(&request).expect("a header");
        header.origin_timestamp = header.transmit_timestamp;
        (header.mode, header.stratum) = (Mode::Server, 0);
        header.reference_id = ReferenceId(*b"RATE");
        socket.send_to(&header.emit(), client).expect("sent");
    });
    let text = ended(&check(&[&address, "--plain"]), 2);
    assert!(text.contains("the server sent the kiss code "), "{text}");
}

#[test]
fn the_server_of_this_host_is_judged_by_its_own_account() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "processes = 1");
    let text = ended(&check_local(&server, &[]), 0);
    for part in ["ok        all 3 processes serve\n", "newest master key ", "certificate /"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(measured(&text, "restarts"), 0.0);

    // Enough to judge by.
    let client = udp_client(server.ntp());
    for _ in 0..120 {
        client.send(&common::plain_request(4, Mode::Client)).expect("sent");
        client.recv(&mut [0; 64]).expect("an answer");
    }
    wait_until("all is counted", || {
        measured(&ended(&check_local(&server, &[]), 0), "requests") >= 120.0
    });
    let text = ended(&check_local(&server, &[]), 0);
    assert!(text.contains("0 datagrams lost to full socket buffers since the start"), "{text}");
    assert_eq!(measured(&text, "drops"), 0.0);

    kill(server.role_pid("responder").expect("runs"), Signal::KILL);
    wait_until("another responder serves", || {
        let output = check_local(&server, &[]);
        String::from_utf8_lossy(&output.stdout).contains("the responder was started again")
    });
    let text = ended(&check_local(&server, &[]), 1);
    assert_eq!(measured(&text, "restarts"), 1.0);
    // Its age is told in whole seconds.
    wait_until("a key that is too old", || {
        let output = check_local(&server, &["--key-age=-,0"]);
        output.status.code() == Some(2)
            && String::from_utf8_lossy(&output.stdout).contains("critical  newest master key ")
    });

    let folder = server.directory.path().to_str().expect("text").to_owned();
    drop(server);
    let text = ended(&check(&["--state-directory", &folder]), 2);
    assert!(text.contains("no server is running at "), "{text}");
}

#[test]
fn a_leap_seconds_file_that_ends_soon_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("leap-seconds.list");
    let expires = |days: i64| {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        fs::write(&file, leap::list(&[], now + days * 86_400)).expect("written");
    };
    expires(100);
    let clock = format!("source = \"local\"\nleap_file = \"{}\"", file.display());
    let mut server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, "");
    wait_until("the clock role's word", || {
        String::from_utf8_lossy(&check_local(&server, &[]).stdout).contains("leap_file_days=")
    });
    let text = ended(&check_local(&server, &[]), 0);
    assert!((99.0..=100.0).contains(&measured(&text, "leap_file_days")), "{text}");
    ended(&check_local(&server, &["--leap-file-days=-,110"]), 2);
    for (days, says) in [
        (20, "warning   leap-seconds file "),
        (-1, "it has expired; no leap second is announced from it"),
    ] {
        expires(days);
        server.restart();
        wait_until(says, || {
            let output = check_local(&server, &[]);
            let text = String::from_utf8_lossy(&output.stdout);
            output.status.code() == Some(1) && text.contains(says)
        });
        let text = ended(&check_local(&server, &[]), 1);
        assert_eq!(measured(&text, "leap_file_days").round(), days as f64);
    }
}

#[test]
fn prometheus_and_programs_get_the_same() {
    let server = Server::start();
    let file = server.directory.path().join("timeball.prom");
    let path = file.to_str().expect("text");
    ended(&check_remote(&server, &["--prometheus-textfile", path]), 0);
    let text = fs::read_to_string(&file).expect("written");
    let target = format!("{{target=\"{}\"}}", server.ke());
    assert!(text.contains(&format!("\ntimeball_check_state{target} 0\n")), "{text}");
    assert!(text.contains(&format!("\ntimeball_check_cookies{target} 8\n")), "{text}");
    assert_promtool_takes(&file);
    // The node exporter reads it as another user.
    let mode = fs::metadata(&file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    ended(&check_local(&server, &["--prometheus-textfile", path]), 0);
    assert_promtool_takes(&file);
    let before = fs::read_to_string(&file).expect("written");

    // A failure replaces the file too, or old figures would pass for new ones.
    let nobody = format!("127.0.0.1:{}", free_tcp_port());
    ended(&check(&[&nobody, "--prometheus-textfile", path]), 2);
    let after = fs::read_to_string(&file).expect("written");
    assert_ne!(before, after);
    assert!(after.contains(&format!("timeball_check_state{{target=\"{nobody}\"}} 2\n")), "{after}");
    let text = ended(&check_local(&server, &["--prometheus-textfile", "/nonexistent/a.prom"]), 3);
    assert!(text.contains("cannot write /nonexistent/a.prom"), "{text}");

    let output = check_remote(&server, &["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["state"], "ok");
    assert_eq!(value["measures"]["cookies"], 8.0);
    assert_eq!(value["findings"].as_array().map(Vec::is_empty), Some(false));
}

/// `promtool check metrics` reads it as Prometheus does, and judges the names.
fn assert_promtool_takes(file: &Path) {
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/prometheus/usr/bin/promtool");
    let output = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::from(fs::File::open(file).expect("written")))
        .output()
        .expect("promtool; `tests/install-peers` brings it");
    let says = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success() && says.is_empty(), "{says}");
}

/// 2 would be a server that is down.
#[test]
fn wrong_usage_is_unknown() {
    for arguments in [
        &["--offset", "2,1"][..],
        &["--samples", "0", "localhost"],
        &["localhost", "--config", "timeball.toml"],
        &["--plain"],
        &["--plain", "localhost", "--ca", "a.pem"],
        &["--aead", "16", "localhost"],
    ] {
        let output = program().arg("check").args(arguments).output().expect("the program");
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let output = program().args(["check", "::1]"]).output().expect("the program");
    ended(&output, 3);
    let help = program().args(["check", "--help"]).output().expect("the program");
    assert!(help.status.success());
}
