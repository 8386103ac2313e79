//! The observer over real connections: what it shows, to whom, and within which limits.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use common::leap;
use common::plain_request;
use common::server::{ANSWER_WAIT, Server, free_tcp_port, kill, program, udp_client, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::certificate::self_signed;
use timeball::limits::{DATAGRAM_BYTES, OBSERVER_CONNECTIONS_MAX, OBSERVER_REQUEST_BYTES_MAX};
use timeball::wire::ntp::Mode;

/// A server with an observer, and its port.
fn start(clock: &str) -> (Server, u16) {
    let port = free_tcp_port();
    let more = format!("processes = 1\n[observe]\nlisten = \"127.0.0.1:{port}\"");
    let server = Server::start_with(Algorithm::AesSivCmac256, "", clock, &more);
    // The supervisor's first word may be of the time when some processes were being started.
    wait_until("the word that all serve", || {
        let answer = get(port, "/api/status");
        answer.code == 200 && {
            let processes = answer.json()["processes"].as_array().expect("a list").clone();
            processes.iter().all(|process| process["is_serving"] == true)
        }
    });
    (server, port)
}

/// An answer of HTTP.
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    stream
}

/// Sends a request as it stands and reads until the end.
fn exchange(port: u16, request: &str) -> Answer {
    let mut stream = connect(port);
    // The other end may have refused it before it was complete.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        code: code.unwrap_or_else(|| panic!("no answer: {text}")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn request(method: &str, path: &str, host: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn get(port: u16, path: &str) -> Answer {
    exchange(port, &request("GET", path, "localhost"))
}

/// Every sample of `/metrics`, by its name and labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let text = get(port, "/metrics").body;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    samples.map(sample).collect()
}

/// The sum of the samples whose name and labels contain all of `parts`.
fn total(samples: &BTreeMap<String, f64>, parts: &[&str]) -> f64 {
    let of = |name: &String| parts.iter().all(|part| name.contains(part));
    samples.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum()
}

/// One of each: an answer, an authenticated one, an NTS NAK, a datagram that is dropped, and a
/// connection without a handshake.
fn ask_everything(server: &Server, from: [u8; 4]) {
    let client = UdpSocket::bind(SocketAddr::from((from, 0))).expect("a socket");
    client.connect(server.ntp()).expect("connected");
    client.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    let mut buffer = [0; DATAGRAM_BYTES];
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    client.recv(&mut buffer).expect("an answer");
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut association = server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 8);
    for is_whole in [true, false] {
        let pending = association.request(&mut buffer, &mut random).expect("a cookie");
        // The last bytes are the authenticator.
        buffer[pending.request_bytes - 1] ^= u8::from(!is_whole);
        client.send(&buffer[..pending.request_bytes]).expect("sent");
        client.recv(&mut buffer).expect("an answer");
    }
    client.send(&[0; 47]).expect("sent");
    drop(TcpStream::connect(server.ke()).expect("connected"));
}

/// What [`ask_everything`] leaves behind, `rounds` times.
fn is_counted(samples: &BTreeMap<String, f64>, rounds: f64) -> bool {
    ["answered_plain", "answered_nts", "nts_nak", "dropped_length", "abandoned"]
        .iter()
        .all(|outcome| total(samples, &[&format!("outcome=\"{outcome}\"")]) == rounds)
}

#[test]
fn metrics_say_what_happened_and_a_parser_takes_them() {
    let (server, port) = start("");
    ask_everything(&server, [127, 0, 0, 1]);
    wait_until("all is counted", || is_counted(&metrics(port), 1.0));
    let samples = metrics(port);
    for (parts, expected) in [
        (&["timeball_ntp_datagrams_total"][..], 4.0),
        (&["timeball_ntp_cookies_opened_total"], 2.0),
        (&["timeball_ntp_cookies_opened_total", "slot=\"current\""], 2.0),
        (&["timeball_ntp_nts_replies_total"], 1.0),
        (&["timeball_ntp_nts_replies_total", "aead=\"AES-SIV-CMAC-256\""], 1.0),
        (&["timeball_ke_cookies_issued_total"], 0.0),
        (&["timeball_clock_leap{"], 1.0),
        (&["timeball_clock_leap{leap=\"none\"}"], 1.0),
        (&["timeball_ntp_cookies_issued_total"], 1.0),
        (&["timeball_ntp_latency_seconds_count"], 3.0),
        (&["timeball_ntp_latency_seconds_bucket", "+Inf"], 3.0),
        (&["timeball_ntp_batch_datagrams_sum"], 4.0),
        (&["timeball_ke_accepted_total"], 1.0),
        (&["timeball_ke_connections_total"], 1.0),
        (&["timeball_process_up{"], 4.0),
        (&["timeball_process_restarts_total"], 0.0),
        (&["timeball_master_key_info"], 4.0),
        (&["timeball_ready"], 1.0),
        (&["timeball_build_info", env!("CARGO_PKG_VERSION")], 1.0),
        (&["ntp_server_received_packets_total"], 4.0),
        (&["ntp_server_accepted_packets_total"], 2.0),
        (&["ntp_server_ignored_packets_total"], 1.0),
        (&["ntp_server_rate_limited_packets_total"], 0.0),
        (&["ntp_server_nts_received_packets_total"], 2.0),
        (&["ntp_server_nts_accepted_packets_total"], 1.0),
        (&["ntp_server_nts_nak_packets_total"], 1.0),
        (&["ntp_uptime_seconds", env!("CARGO_PKG_VERSION")], total(&samples, &["timeball_uptime"])),
        (&["ntp_system_stratum"], 10.0),
        (&["ntp_system_leap_indicator"], 0.0),
    ] {
        assert_eq!(total(&samples, parts), expected, "{parts:?}");
    }
    let expires = total(&samples, &["timeball_certificate_expiry_timestamp_seconds"]);
    let left = expires - OffsetDateTime::now_utc().unix_timestamp() as f64;
    assert!((28.0 * 86_400.0..31.0 * 86_400.0).contains(&left), "{left}");

    let text = get(port, "/metrics");
    assert!(text.head.contains("content-type: text/plain; version=0.0.4"), "{}", text.head);
    assert_promtool_takes(&text.body);
}

/// `promtool check metrics` reads it as Prometheus does, and judges the names.
fn assert_promtool_takes(text: &str) {
    let says = promtool(&["check", "metrics"], text);
    assert!(says.is_empty(), "{says}");
}

/// What promtool says, if it finds no fault.
fn promtool(arguments: &[&str], input: &str) -> String {
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/prometheus/usr/bin/promtool");
    let mut child = Command::new(promtool)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; `tests/install-peers` brings it");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("a child");
    let says = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{says}");
    says
}

#[test]
fn packaged_alerts_name_metrics_that_exist() {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock/leap_list/leap-seconds.list");
    let (_server, port) = start(&format!("source = \"local\"\nleap_file = \"{list}\""));
    let is_read = || get(port, "/metrics").body.contains("\ntimeball_leap_file_expiry");
    wait_until("the clock role's word of its leap-seconds file", is_read);
    promtool(&["check", "config", "prometheus.yml"], "");
    promtool(&["test", "rules", "timeball.rules.test.yml"], "");
    let rules = include_str!("../packaging/prometheus/timeball.rules.yml");
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr:")).collect();
    assert_metrics_exist(port, &expressions);
}

#[test]
fn metrics_tell_how_the_leap_seconds_file_fares() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("leap-seconds.list");
    let expires = OffsetDateTime::now_utc().unix_timestamp() + 8_640_000;
    fs::write(&file, leap::list(&[], expires)).expect("written");
    let (_server, port) = start(&format!("source = \"local\"\nleap_file = \"{}\"", file.display()));
    let says = |line: &str| get(port, "/metrics").body.lines().any(|found| found == line);
    wait_until("it is followed", || says("timeball_leap_file_followed 1"));
    assert!(says(&format!("timeball_leap_file_expiry_timestamp_seconds {expires}")));
    fs::write(&file, "garbage").expect("written");
    wait_until("its content is refused", || says("timeball_leap_file_followed 0"));
    // What it held before stays in use.
    assert!(says(&format!("timeball_leap_file_expiry_timestamp_seconds {expires}")));
}

#[test]
fn the_packaged_dashboard_names_metrics_that_exist() {
    let (_server, port) = start("");
    let text = include_str!("../packaging/grafana/timeball.json");
    let board: Value = serde_json::from_str(text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let annotations = board["annotations"]["list"].as_array().expect("annotations");
    let expressions: Vec<&str> =
        targets.chain(annotations).map(|target| target["expr"].as_str().expect("text")).collect();
    let variable = board["templating"]["list"][1]["query"].as_str().expect("text");
    assert_metrics_exist(port, &[&expressions[..], &[variable]].concat());
    // Prometheus itself parses each, with values in the place of Grafana's variables.
    let rules: Vec<Value> = (0..)
        .zip(&expressions)
        .map(|(number, expression)| {
            let expression =
                expression.replace("$__rate_interval", "1m").replace("$instance", ".+");
            serde_json::json!({ "record": format!("panel:{number}"), "expr": expression })
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    fs::write(file.path(), groups.to_string()).expect("written");
    promtool(&["check", "rules", file.path().to_str().expect("text")], "");
}

/// Every metric of ours in these expressions is one of a running server.
fn assert_metrics_exist(port: u16, expressions: &[&str]) {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = expressions.iter().flat_map(|text| text.split(|character| !is_name(character)));
    let mut names: Vec<&str> = words.filter(|word| word.starts_with("timeball_")).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 5, "{names:?}");
    let metrics = get(port, "/metrics").body;
    for name in names {
        assert!(metrics.contains(&format!("\n{name}")), "{name} does not exist");
    }
}

#[test]
fn no_sum_goes_back_when_roles_are_started_again() {
    let (server, port) = start("");
    for round in 1..=2 {
        ask_everything(&server, [127, 0, 0, 1]);
        wait_until("all is counted", || is_counted(&metrics(port), f64::from(round)));
        let before = metrics(port);
        for role in ["responder", "key-establishment", "observer"] {
            let killed = server.role_pids(role);
            kill(killed[0], Signal::KILL);
            wait_until("another process", || {
                let pids = server.role_pids(role);
                pids.len() == 1 && pids != killed
            });
        }
        // The supervisor's word may be older than the new observer that hands it on.
        wait_until("all serve again", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && {
                let samples = metrics(port);
                total(&samples, &["timeball_process_up{"]) == total(&before, &["_process_up{"])
                    && total(&samples, &["timeball_process_restarts_total"]) >= f64::from(3 * round)
            }
        });
        let after = metrics(port);
        for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
            assert!(after[name] >= *value, "{name}: {value}, then {}", after[name]);
        }
        assert!(is_counted(&after, f64::from(round)), "{after:?}");
        let restarts = total(&after, &["timeball_process_restarts_total"]);
        assert_eq!(restarts, f64::from(3 * round));
    }
}

#[test]
fn health_is_bad_with_its_reason_and_good_again() {
    let (server, port) = start("");
    let health = get(port, "/health");
    assert_eq!((health.code, &health.json()["ready"]), (200, &true.into()), "{}", health.body);

    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let key = server.directory.path().join("key.pem");
    let replace = |made: OffsetDateTime| {
        self_signed(&names, Duration::days(1), made)
            .expect("a certificate")
            .write(&server.certificate(), &key, true)
            .expect("written");
    };
    replace(OffsetDateTime::now_utc() - Duration::days(9));
    // A supervisor that a busy machine holds up is a reason, too.
    let mut health = get(port, "/health");
    wait_until("the certificate's end", || {
        health = get(port, "/health");
        health.body.contains("cert.pem has expired") && health.json()["live"] == true
    });
    assert_eq!((health.code, &health.json()["ready"]), (503, &false.into()), "{}", health.body);
    assert_eq!(total(&metrics(port), &["timeball_ready"]), 0.0);
    replace(OffsetDateTime::now_utc());
    wait_until("the new one", || get(port, "/health").code == 200);
}

/// Health follows what clients are told of the clock, whatever the kernel says on this machine.
#[test]
fn health_follows_what_clients_are_told_of_the_clock() {
    let (server, port) = start("source = \"kernel\"");
    let has_spoken = || get(port, "/api/status").json()["clock"]["source_state"] != "unknown";
    wait_until("the clock role's first word", has_spoken);
    let status = get(port, "/api/status").json();
    let is_synchronised = status["clock"]["kernel_is_synchronised"] == true;
    let health = get(port, "/health");
    assert_eq!(health.code, if is_synchronised { 200 } else { 503 }, "{}", health.body);
    let is_told = health.body.contains("the kernel says that no time daemon keeps the clock");
    assert_eq!(is_told, !is_synchronised, "{}", health.body);
    let output = program()
        .args(["status", "--state-directory"])
        .arg(server.directory.path())
        .output()
        .expect("the program");
    let line = String::from_utf8(output.stdout).expect("text");
    assert_eq!(
        line.contains("not ready: clients are told that the clock is unsynchronised"),
        !is_synchronised,
        "{line}"
    );
}

#[test]
fn the_status_is_that_of_the_command() {
    let (server, port) = start("");
    let of_the_command = || {
        let mut command = program();
        command.args(["status", "--json", "--state-directory"]).arg(server.directory.path());
        let output = command.output().expect("the program");
        without_ages(serde_json::from_slice(&output.stdout).expect("JSON"))
    };
    let shown = || without_ages(get(port, "/api/status").json());
    // The observer has the supervisor's word of up to a second ago.
    wait_until("the same word", || shown() == of_the_command());
}

/// What goes on while two are asked one after the other is left out.
fn without_ages(mut status: Value) -> Value {
    status["taken_unix_milliseconds"] = Value::Null;
    status["uptime_seconds"] = Value::Null;
    for bound in ["kernel_error_bound_seconds", "root_dispersion_seconds", "holdover_left_seconds"]
    {
        status["clock"][bound] = Value::Null;
    }
    for (list, field) in [("processes", "age_seconds"), ("workers", "processor_seconds")] {
        for entry in status[list].as_array_mut().expect("a list") {
            entry[field] = Value::Null;
        }
    }
    status["serverstats"]["responder"]["processor_nanoseconds"] = Value::Null;
    for age in ["newest_age_seconds", "next_rotation_seconds"] {
        status["keys"][age] = Value::Null;
    }
    status
}

#[test]
fn neither_keys_nor_clients_are_shown() {
    let (server, port) = start("");
    ask_everything(&server, [127, 7, 8, 9]);
    wait_until("all is counted", || is_counted(&metrics(port), 1.0));
    for path in ["/", "/metrics", "/health", "/api/status"] {
        let body = get(port, path).body.to_lowercase();
        assert!(!body.contains("127.7.8.9"), "{path}");
        for key in server.master_keys() {
            let secret: String =
                key.expose_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!body.contains(&secret), "{path}");
        }
        assert!(!body.contains("private key"), "{path}");
    }
}

#[test]
fn browsers_are_told_to_load_nothing_from_elsewhere() {
    let (_server, port) = start("");
    for path in ["/", "/status.js", "/api/status", "/metrics", "/no-such-page"] {
        let Answer { code, head, .. } = get(port, path);
        assert_eq!(code, if path == "/no-such-page" { 404 } else { 200 });
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
    let page = get(port, "/").body;
    let is_foreign = |part: &str| page.contains(part);
    assert!(!["http://", "https://", "onclick", "onload", "style="].into_iter().any(is_foreign));
    // A site whose name was made to point here cannot read it.
    for host in ["example.org", "127.0.0.1.example.org"] {
        let answer = exchange(port, &request("GET", "/api/status", host));
        assert_eq!(answer.code, 421);
        assert!(!answer.body.contains("serverstats"));
    }
    assert_eq!(exchange(port, &request("POST", "/api/status", "127.0.0.1")).code, 405);
    assert_eq!(exchange(port, &request("GET", "/health", "[::1]:80")).code, 200);
}

#[test]
fn long_requests_are_refused_and_silent_clients_stop_nobody() {
    let (_server, port) = start("");
    let long = format!("/?{}", "x".repeat(2 * OBSERVER_REQUEST_BYTES_MAX));
    let code = exchange(port, &request("GET", &long, "localhost")).code;
    assert!([414, 431].contains(&code), "{code}");
    let silent: Vec<TcpStream> = (1..OBSERVER_CONNECTIONS_MAX).map(|_| connect(port)).collect();
    assert_eq!(get(port, "/health").code, 200);
    // One beyond the limit is answered when there is room again.
    let last = connect(port);
    let waiting = std::thread::spawn(move || get(port, "/health").code);
    drop(silent);
    assert_eq!(waiting.join().expect("an answer"), 200);
    drop(last);
}

#[test]
fn without_the_key_nothing_listens() {
    let server = Server::start();
    assert_eq!(server.role_pid("observer"), None);
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(client.recv(&mut [0; 64]).expect("an answer"), 48);
}

#[test]
fn an_address_that_others_reach_is_warned_of() {
    let port = free_tcp_port();
    let more = format!("processes = 1\n[observe]\nlisten = \"0.0.0.0:{port}\"");
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", &more);
    let warning = format!("observe.listen is {}", SocketAddr::from(([0, 0, 0, 0], port)));
    assert!(server.log().contains(&warning), "{}", server.log());
    // There a name is no sign of a stranger.
    assert_eq!(exchange(port, &request("GET", "/metrics", "time.example.org")).code, 200);
}
