//! What the clock role has of files: the leap-seconds file, which it is told of, and the logs,
//! which it appends to. The followed daemon is a real chronyd.

mod common;
mod peer;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::leap;
use common::plain_request;
use common::rig::receive;
use common::server::{Server, free_udp_port, program, udp_client, wait_until};
use peer::Chronyd;
use serde_json::Value;
use timeball::aead::Algorithm;
use timeball::clock::follow::Sample;
use timeball::clock::host::moment;
use timeball::clock::leap::SMEARED_REFERENCE_ID;
use timeball::wire::ntp::{Leap, Mode};
use timeball::wire::timestamp::NtpTimestamp;

const DAY: i64 = 86_400;

/// Keys of section `clock` that ask chronyd by all that it answers to.
const KEYS: &str = "leap_file = \"FILE\"\nchronyd = \"UDP\"\nfollow = \"NTP\"";

/// What a chronyd on loopback may be off, in seconds, on a busy machine.
const TOLERANCE_SECONDS: f64 = 0.01;

fn unix_seconds() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// The next midnight. Not within two minutes before it or before noon, in which a test would see it
/// pass, or a smear end.
fn next_midnight() -> i64 {
    while DAY / 2 - unix_seconds() % (DAY / 2) < 120 {
        thread::sleep(Duration::from_secs(1));
    }
    (unix_seconds() / DAY + 1) * DAY
}

/// A chronyd without a source, and a server that follows it.
struct Followed {
    server: Server,
    _chronyd: Chronyd,
    directory: tempfile::TempDir,
}

impl Followed {
    /// In `keys` of section `clock`, `FILE` is the leap-seconds file, with this text; `UDP`, `UNIX`
    /// and `NTP` are where chronyd is asked.
    fn start(chronyd: &str, list: &str, keys: &str, sections: &str) -> Self {
        let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
        let chronyd = Chronyd::server(ntp_port, command_port, chronyd);
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("leap-seconds.list");
        fs::write(&file, list).expect("written");
        let keys = keys
            .replace("FILE", &file.display().to_string())
            .replace("UDP", &format!("127.0.0.1:{command_port}"))
            .replace("UNIX", &chronyd.socket().display().to_string())
            .replace("NTP", &format!("127.0.0.1:{ntp_port}"));
        let clock = format!("source = \"follow\"\n{keys}");
        let server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, sections);
        Self { server, _chronyd: chronyd, directory }
    }

    fn list(&self) -> PathBuf {
        self.directory.path().join("leap-seconds.list")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let configuration = self.server.directory.path().join("timeball.toml");
        let output =
            program().args(arguments).arg("--config").arg(configuration).output().expect("started");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn tracking(&self) -> Value {
        serde_json::from_str(&self.run(&["tracking", "--json"])).expect("JSON")
    }

    /// Waits until the operator is told this of the leap-seconds file, everywhere.
    fn wait_for(&self, says: &str) {
        for command in ["tracking", "sources", "status"] {
            wait_until(says, || self.run(&[command]).contains(says));
        }
    }
}

/// What clients are told.
fn ask(server: &Server) -> Sample {
    let client = udp_client(server.ntp());
    let mut request = plain_request(4, Mode::Client);
    let random = [1, 2, 3, 4, 5, 6, 7, 8];
    request[40..48].copy_from_slice(&random);
    let sent = moment();
    client.send(&request).expect("sent");
    let reply = receive(&client);
    let transmitted = NtpTimestamp::from_bits(u64::from_be_bytes(random));
    Sample::new(&reply, transmitted, sent, moment()).expect("a reply")
}

fn leap_told(server: &Server) -> Leap {
    ask(server).header.leap
}

#[test]
fn c103_a_leap_second_of_the_file_is_announced_and_a_bad_file_is_not_believed() {
    let midnight = next_midnight();
    let good = leap::list(&[(midnight, 1)], midnight + 100 * DAY);
    let mut followed = Followed::start("local stratum 6", &good, KEYS, "");
    wait_until("the warning", || leap_told(&followed.server) == Leap::Insert);
    followed.wait_for("a leap second is inserted before");
    let next = &followed.tracking()["leap_file"]["next"];
    assert_eq!((&next["unix_seconds"], &next["kind"]), (&midnight.into(), &"insert".into()));

    // Damaged while it is in use: noticed by itself.
    fs::write(followed.list(), good.replace(" 38 ", " 39 ")).expect("written");
    followed.wait_for("does not fit its hash (line \"#h\"); what it held before stays in use");
    assert_eq!(leap_told(&followed.server), Leap::Insert);
    assert!(followed.server.log().contains("warning: leap file"), "{}", followed.server.log());

    // Expired: read at a reload, at once.
    fs::write(followed.list(), leap::list(&[(midnight, 1)], midnight - 2 * DAY)).expect("written");
    assert!(followed.run(&["reload"]).contains("the content of clock.leap_file"));
    followed.wait_for("it has expired; no leap second is announced from it");
    wait_until("no warning", || leap_told(&followed.server) == Leap::None);

    // Damaged from the start: the server serves what its source says.
    fs::write(followed.list(), "garbage").expect("written");
    followed.server.restart();
    followed.wait_for("line 1 is neither a comment nor an entry; no leap second is announced");
    let header = ask(&followed.server).header;
    assert_eq!((header.leap, header.stratum), (Leap::None, 6));

    fs::write(followed.list(), good).expect("written");
    wait_until("the warning", || leap_told(&followed.server) == Leap::Insert);
}

/// There is always a midnight that is less than twelve hours away.
#[test]
fn c103_a_leap_second_is_smeared_from_noon_to_noon() {
    let next = next_midnight();
    let is_past = unix_seconds() % DAY < DAY / 2;
    let midnight = if is_past { next - DAY } else { next };
    let list = leap::list(&[(midnight, 1)], midnight + 100 * DAY);
    let smear = "[leap]\nsmear = \"linear\"";
    let followed = Followed::start("local stratum 6", &list, KEYS, smear);
    wait_until("the smear", || ask(&followed.server).header.reference_id == SMEARED_REFERENCE_ID);
    let sample = ask(&followed.server);
    let since_midnight = moment().system.seconds_since_f64(NtpTimestamp::from_unix(midnight, 0));
    let half = (DAY / 2) as f64;
    let expected = if is_past {
        (half - since_midnight) / (2.0 * half + 1.0)
    } else {
        -(half + since_midnight) / (2.0 * half + 1.0)
    };
    let error = (sample.offset_seconds - expected).abs();
    assert!(error <= sample.delay_seconds + TOLERANCE_SECONDS, "{expected}: {sample:?}");
    assert_eq!((sample.header.leap, sample.header.stratum), (Leap::None, 6));
    followed.run(&["status"]).find("leap smear         linear, from noon to noon").expect("shown");
    let smear = &followed.tracking()["leap_file"]["smear"];
    let offset = smear["offset_seconds"].as_f64().expect("a number");
    assert!((offset - expected).abs() < 0.001, "{smear}");
    let told = followed.tracking()["correction_seconds"].as_f64().expect("a number");
    assert!((told - expected).abs() < TOLERANCE_SECONDS, "{told}, {expected}");
}

/// Whichever way chronyd says so.
#[test]
fn a_smear_is_refused_while_chronyd_smears_by_itself() {
    let midnight = next_midnight();
    let list = leap::list(&[(midnight, 1)], midnight + 100 * DAY);
    for keys in [
        KEYS,
        "leap_file = \"FILE\"\nchronyd = \"UDP\"",
        "leap_file = \"FILE\"\nchronyd = \"UNIX\"",
    ] {
        let followed = Followed::start(
            "local stratum 6\nleapsecmode slew\nsmoothtime 400 0.001 leaponly",
            &list,
            keys,
            "[leap]\nsmear = \"linear\"",
        );
        let is_refused =
            || followed.tracking()["leap_file"]["smear"]["is_refused"] == Value::Bool(true);
        wait_until("the refusal", is_refused);
        followed.wait_for("the source smears leap seconds by itself");
        let sample = ask(&followed.server);
        assert_eq!(sample.header.leap, Leap::None);
        let off = sample.offset_seconds.abs();
        assert!(off <= sample.delay_seconds + TOLERANCE_SECONDS, "{sample:?}");
        let smoothing = &followed.tracking()["smoothing"];
        assert_eq!(smoothing["is_leap_only"], true, "{smoothing}");
        let text = followed.run(&["tracking"]);
        assert!(text.contains("Smoothing          of leap seconds, "), "{text}");
    }
}

/// Lines of a log without its heading, in words.
fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let heading = |line: &&str| line.starts_with('=') || line.starts_with("   Date");
    // The last one may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter(|line| !heading(line)).map(words).collect()
}

/// chronyd writes a tracking log of its own, 16 lines a second; each of ours is one of them.
#[test]
fn the_tracking_log_says_what_chronyd_s_does_and_is_rotated() {
    let [upstream_port, unused, ntp_port, command_port] = [(); 4].map(|()| free_udp_port());
    let _upstream = Chronyd::server(upstream_port, unused, "local stratum 4");
    let mut chronyd = Chronyd::server(
        ntp_port,
        command_port,
        &format!(
            "server 127.0.0.1 port {upstream_port} minpoll -4 maxpoll -4 iburst\n\
             logdir DIR\nlog tracking"
        ),
    );
    chronyd.wait("chronyd follows the other", &["tracking"], |text| {
        text.contains("Leap status     : Normal").then_some(())
    });
    let chronyd_log = chronyd.socket().with_file_name("tracking.log");
    let directory = tempfile::tempdir().expect("a directory");
    let logs = directory.path().join("logs");
    let server = Server::start_with(
        Algorithm::AesSivCmac256,
        "",
        &format!(
            "source = \"follow\"\nchronyd = \"127.0.0.1:{command_port}\"\n\
             follow = \"127.0.0.1:{ntp_port}\""
        ),
        &format!(
            "[log]\ndirectory = \"{}\"\ntracking = true\nmeasurements = true\nstatistics = true",
            logs.display()
        ),
    );
    let log = logs.join("tracking.log");
    wait_until("lines", || lines(&log).len() >= 4);
    let ours = lines(&log);
    let chronyds = lines(&chronyd_log);
    for line in &ours {
        // Address, stratum, frequency, skew, offset, leap status.
        let same = |other: &&Vec<String>| {
            other[2] == line[2] && other[3] == line[3] && other[7] == line[7] && {
                let close = |column: usize, share: f64| {
                    let [a, b] =
                        [line, *other].map(|line| line[column].parse::<f64>().expect("a number"));
                    (a - b).abs() <= share * b.abs() + 1e-12
                };
                close(4, 0.002) && close(5, 0.002) && close(6, 0.002)
            }
        };
        assert!(chronyds.iter().any(|other| same(&other)), "{line:?} is none of chronyd's");
        assert_eq!(line.len(), chronyds[0].len(), "{line:?} {:?}", chronyds[0]);
    }
    // A reply that came late is not in it.
    let measurements = || lines(&logs.join("measurements.log"));
    wait_until("lines of measurements", || measurements().len() >= 4);
    assert!(measurements().iter().all(|line| line[2] == format!("127.0.0.1:{ntp_port}")));
    assert!(logs.join("statistics.log").exists(), "a line of it takes a minute");

    // What logrotate does.
    fs::rename(&log, logs.join("tracking.log.1")).expect("renamed");
    let configuration = server.directory.path().join("timeball.toml");
    let reload = program().args(["reload", "--config"]).arg(configuration).output();
    assert!(reload.expect("started").status.success());
    wait_until("a line in the new file", || !lines(&log).is_empty());
    let old = lines(&logs.join("tracking.log.1")).len();
    let new = lines(&log).len();
    wait_until("another line", || lines(&log).len() > new);
    assert_eq!(lines(&logs.join("tracking.log.1")).len(), old, "the old file is left alone");
    assert!(fs::read_to_string(&log).expect("there").starts_with("==="), "it has a heading");
    assert!(!server.log().contains("clock ended"), "{}", server.log());
}
