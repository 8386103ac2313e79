//! The program as it is called. Whether the machine was busy decides between the exit codes 0 and
//! 3, so both are fine where a run has taken place.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use time::{Duration, OffsetDateTime};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::certificate::self_signed;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::ke::cookies::{Cookie, CookieError, CookieSource, CookieVec};
use timeball::ke::negotiate::Policy;
use timeball::ke::server::{Options, Server, Stopper};
use timeball::ke::tls::{CertificateStore, Pair, server_config};
use timeball::sys::file::replace_private;
use timeball_load::reflector::Reflector;

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_timeball-load")).args(arguments).output().expect("runs")
}

fn assert_ran(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {text}{errors}", output.status);
    text
}

/// What a bad call says, on one line, and its exit code.
fn complaint(arguments: &[&str]) -> (String, i32) {
    let output = load(arguments);
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (text, output.status.code().expect("it ended by itself"))
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

#[test]
fn every_bad_start_says_one_sentence() {
    let directory = tempfile::tempdir().expect("a directory");
    let ntskeys_file = path(directory.path(), "ntskeys");
    std::fs::write(&ntskeys_file, "NKS9\n").expect("written");
    // Bound and never read: no answer, and no port unreachable.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let silent = silent.local_addr().expect("bound").to_string();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let closed = closed.local_addr().expect("bound").to_string();
    let taken = silent.rsplit_once(':').expect("a port").1.to_owned();
    for (arguments, code, word) in [
        (&["ntp", &silent, "--no-self-test", "--timeout", "50ms"][..], 1, "no answer from udp"),
        (&["ntp", "a:b"], 2, "no host"),
        (&["ntp", &silent, "--threads", "65"], 2, "--threads"),
        (&["ntp", &silent, "--cpus", "x"], 2, "--cpus"),
        (&["ntp", &silent, "--timeout", "1h"], 2, "--timeout"),
        (&["ntp", &silent, "--gso", "65"], 2, "--gso"),
        (&["ntp", &silent, "--ports", "0"], 2, "--ports"),
        (&["ntp", &silent, "--sources", "192.0.2.0/24", "--no-self-test"], 1, "ip route add local"),
        (&["ntp", &silent, "--sources", "::/64", "--no-self-test"], 1, "different IP versions"),
        (
            &["ntp", &silent, "--server-pid", "4194305", "--no-probe", "--no-self-test"],
            2,
            "process",
        ),
        (
            &["ntp", &silent, "--server-control", "/nonexistent", "--no-probe", "--no-self-test"],
            1,
            "no server is running at /nonexistent",
        ),
        (&["ntp", &silent, "--no-self-test", "--source-port", &taken], 1, "choose another"),
        (&["ntp", &silent, "--source-port", "65535", "--ports", "2"], 2, "65535"),
        (&["ntp", &silent, "--json", "/nonexistent/run.json"], 2, "cannot write"),
        (&["search", "ntp", &silent, "--html", "/nonexistent/page"], 2, "cannot write"),
        (&["search", "ntp", &silent, "--server-control", "/x"], 2, "--server-control is for"),
        (&["ke", &closed, "--insecure", "--json", "/nonexistent/x"], 2, "cannot write"),
        (&["nts", &silent, "--mint", "/nonexistent"], 2, "cannot read"),
        (&["nts", &silent, "--mint", &ntskeys_file], 2, "no ntskeys"),
        (&["nts", &silent, "--load", &ntskeys_file], 1, "chmod 600"),
        (&["nts", &closed, "--insecure", "--aead", "16"], 2, "--aead"),
        (&["nts", &closed, "--ca", "/nonexistent"], 1, "could not be read"),
        (&["ke", &closed, "--insecure", "--concurrency", "0"], 2, "--concurrency"),
        (&["search", "ntp", &silent, "--low", "2k", "--high", "1k"], 2, "--low below --high"),
        (&["report", &ntskeys_file], 2, "--json"),
    ] {
        let (text, found) = complaint(arguments);
        assert!(text.contains(word), "{arguments:?}: {text}");
        assert_eq!(found, code, "{arguments:?}: {text}");
    }
    drop(closed);
}

#[test]
fn a_port_that_needs_rights_says_one_sentence() {
    // In a namespace of its own the lowest port for everybody is the kernel's default, 1024.
    let output = Command::new("unshare")
        .args(["--net", "setpriv", "--bounding-set", "-net_bind_service"])
        .args(["--inh-caps", "-net_bind_service", "--", env!("CARGO_BIN_EXE_timeball-load")])
        .args(["ntp", "127.0.0.1:11123", "--source-port", "123", "--no-probe", "--no-self-test"])
        .output()
        .expect("unshare and setpriv (Debian package util-linux)");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("port 123") && text.contains("below 1024 are for root"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn more_clients_than_memory_holds_say_one_sentence() {
    let reflector = Reflector::start(false, None).expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, memory) = (path(directory.path(), "ntskeys"), path(directory.path(), "meminfo"));
    let text = ntskeys::emit(&reflector.ring, 0.0);
    replace_private(keys.as_ref(), text.as_bytes()).expect("written");
    // A machine with 64 MiB, as this program sees it.
    std::fs::write(&memory, "MemAvailable:      65536 kB\n").expect("written");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount --bind \"$0\" /proc/meminfo && exec \"$@\"", &memory])
        .args([env!("CARGO_BIN_EXE_timeball-load"), "nts", &reflector.address.to_string()])
        .args(["--mint", &keys, "--clients", "1M", "--no-probe", "--no-self-test"])
        .output()
        .expect("unshare (Debian package util-linux)");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("64 MiB are free") && text.contains("--clients"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_run_writes_what_report_reads() {
    let reflector = Reflector::start(true, None).expect("a server");
    let server = reflector.address.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name| path(directory.path(), name);
    let (json, csv, html) = (file("run.json"), file("run.csv"), file("run.html"));
    let rate = ["--rate", "200", "--requests", "50", "--timeout", "10s"];
    let text =
        assert_ran(&load(&[&["ntp", &server, "--json", &json, "--csv", &csv], &rate[..]].concat()));
    assert!(text.contains("answered      50 (100.000 %)"), "{text}");
    assert!(std::fs::read_to_string(csv).expect("written").starts_with("second,offered"));
    let text = assert_ran(&load(&["report", &json, &json, "--html", &html]));
    assert!(text.contains("(x 1.00)"), "{text}");
    assert!(std::fs::read_to_string(html).expect("written").contains("<svg"));
    let text = assert_ran(&load(&["report", &json, &json, "--merge"]));
    assert!(text.contains("answered      100 (100.000 %)"), "{text}");
    assert!(assert_ran(&load(&["report", &json, "--ntpperf"])).contains("stddev"));
}

#[test]
fn minted_associations_are_saved_and_loaded() {
    let reflector = Reflector::start(false, None).expect("a server");
    let server = reflector.address.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let (keys, saved) = (path(directory.path(), "ntskeys"), path(directory.path(), "saved"));
    let text = ntskeys::emit(&reflector.ring, 0.0);
    replace_private(keys.as_ref(), text.as_bytes()).expect("written");
    let common = ["--rate", "200", "--requests", "50", "--timeout", "10s", "--no-self-test"];
    for from in [["--mint", &keys, "--save", &saved], ["--load", &saved, "--verify", "1/2"]] {
        let more = ["nts", &server, "--clients", "20"];
        let text = assert_ran(&load(&[&more[..], &from, &common].concat()));
        assert!(text.contains("answered      50 (100.000 %)"), "{text}");
    }
    // The keys of another server.
    let mut random = NonceGenerator::new().expect("random numbers");
    let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
    replace_private(keys.as_ref(), ntskeys::emit(&ring, 0.0).as_bytes()).expect("written");
    let (text, code) = complaint(&["nts", &server, "--mint", &keys, "--no-self-test"]);
    assert!(text.contains("NTS NAK") && code == 1, "{text}");
    // Hostile ones are what loopback is for.
    let text = ntskeys::emit(&reflector.ring, 0.0);
    replace_private(keys.as_ref(), text.as_bytes()).expect("written");
    let shares = ["--shares", "nts=3,bad-cookie=2", "--duration", "1s"];
    let mix = ["mix", &server, "--mint", &keys, "--rate", "100", "--timeout", "10s"];
    let text = assert_ran(&load(&[&mix[..], &shares].concat()));
    assert!(text.contains("answered      60 (100.000 %)"), "{text}");
    assert!(text.contains("NTS NAK       40 (100.000 %)"), "{text}");
    let elsewhere = ["mix", "192.0.2.1:123", "--mint", &keys, "--shares", "junk=1", "--no-probe"];
    let (text, code) = complaint(&elsewhere);
    assert!(text.contains("--i-own-this-network") && code == 1, "{text}");
}

#[test]
fn a_search_ends_with_a_verdict_and_charts() {
    let reflector = Reflector::start(false, None).expect("a server");
    let server = reflector.address.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let html = path(directory.path(), "search.html");
    // So little that any server and any machine keep it: the highest rate is the verdict.
    let text = assert_ran(&load(&[
        "search",
        "ntp",
        &server,
        "--low",
        "50",
        "--high",
        "100",
        "--duration",
        "200ms",
        "--loss",
        "90",
        "--repeats",
        "1",
        "--no-sweep",
        "--html",
        &html,
        "--timeout",
        "10s",
    ]));
    assert!(text.contains("keeps         at least"), "{text}");
    assert!(std::fs::read_to_string(html).expect("written").contains("<svg"));
}

#[test]
fn ctrl_c_ends_a_run_with_the_results_so_far() {
    let reflector = Reflector::start(false, None).expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let json = path(directory.path(), "run.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_timeball-load"))
        .args(["search", "ntp", &reflector.address.to_string(), "--duration", "200ms"])
        .args(["--low", "50", "--high", "60", "--repeats", "100", "--timeout", "10s"])
        .args(["--json", &json])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    // The first trial is done: a hundred more would follow.
    errors.read_line(&mut line).expect("text");
    assert!(line.starts_with("search 1"), "{line}");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    errors.read_to_string(&mut line).expect("text");
    let output = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(output.status.code(), Some(1));
    assert!(std::fs::read_to_string(json).expect("kept").contains("\"trials\":[{"));
}

#[test]
fn ctrl_c_ends_a_long_run_of_each_kind_with_what_it_has() {
    let reflector = Reflector::start(false, None).expect("a server");
    let server = reflector.address.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name| path(directory.path(), name);
    let keys = file("ntskeys");
    let text = ntskeys::emit(&reflector.ring, 0.0);
    replace_private(keys.as_ref(), text.as_bytes()).expect("written");
    let common = ["--duration", "24h", "--rate", "200", "--timeout", "10s"];
    for (name, arguments) in [
        ("ntp", &["ntp", &server, "--no-self-test"][..]),
        ("nts", &["nts", &server, "--mint", &keys, "--no-self-test", "--save", &file("saved")]),
        ("mix", &["mix", &server, "--mint", &keys, "--shares", "nts=1,ntp=1"]),
    ] {
        let json = file(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_timeball-load"))
            .args(arguments)
            .args(common)
            .args(["--json", &json])
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        // Behind the probe, which would take the signal for the run's: 3 of its requests are sent
        // in 30 ms, and as many answers come.
        reflector.wait_for_answers(100);
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        let status = child.wait().expect("ended");
        assert!(matches!(status.code(), Some(0 | 3)), "{name}: {status}: {text}");
        assert!(text.contains("the results are those so far"), "{name}: {text}");
        let kept = std::fs::read_to_string(json).expect("kept");
        assert!(kept.contains("\"interrupted\":true"), "{name}: {kept}");
    }
    assert!(std::fs::metadata(file("saved")).expect("kept").len() > 0);
}

#[test]
fn ctrl_c_ends_a_long_run_of_exchanges_with_what_it_has() {
    let server = KeServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let json = path(directory.path(), "ke");
    let child = Command::new(env!("CARGO_BIN_EXE_timeball-load"))
        .args(["ke", &server.address.to_string(), "--insecure", "--duration", "24h"])
        .args(["--json", &json])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    server.wait_for_exchanges(20);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let text = assert_ran(&child.wait_with_output().expect("ended"));
    assert!(text.contains("the results are those so far"), "{text}");
    let kept = std::fs::read_to_string(json).expect("kept");
    assert!(kept.contains("\"interrupted\":true"), "{kept}");
}

/// timeball's NTS-KE server, which ends when dropped. Its cookies open nowhere.
struct KeServer {
    address: SocketAddr,
    exchanges: Arc<AtomicUsize>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

struct NoCookies(Arc<AtomicUsize>);

impl CookieSource for NoCookies {
    fn cookies(
        &mut self,
        _: Algorithm,
        _: &[u8],
        _: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        self.0.fetch_add(1, Ordering::Release);
        out.push(Cookie::from_iter([0; 64]));
        Ok(())
    }
}

impl KeServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("bound");
        let names = ["127.0.0.1".to_owned()];
        let made = self_signed(&names, Duration::days(1), OffsetDateTime::now_utc());
        let made = made.expect("a certificate");
        let (certificate, key) = (made.certificate_pem.as_bytes(), made.key_pem.as_bytes());
        let pair = Pair::from_pem(certificate, key, Path::new("-"), Path::new("-"));
        let store = CertificateStore::new(vec![pair.expect("a pair")]).expect("a store");
        let tls = server_config(Arc::new(store)).expect("TLS 1.3");
        let exchanges = Arc::<AtomicUsize>::default();
        let options = Options::new(tls, Policy::default());
        let mut server = Server::new(vec![listener], options, NoCookies(Arc::clone(&exchanges)))
            .expect("a server");
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || server.run().expect("serves"));
        Self { address, exchanges, stopper, thread: Some(thread) }
    }

    /// Until it has made cookies so often.
    fn wait_for_exchanges(&self, wanted: usize) {
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        while self.exchanges.load(Ordering::Acquire) < wanted {
            assert!(Instant::now() < deadline, "no exchanges");
            std::thread::yield_now();
        }
    }
}

impl Drop for KeServer {
    fn drop(&mut self) {
        self.stopper.stop().expect("woken");
        self.thread.take().map(JoinHandle::join);
    }
}
