//! The command line as a user meets it: help, exit codes, and one sentence for every bad start.

mod common;

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::server::{free_tcp_port, free_udp_port};
use rustix::process::{Pid, Signal, kill_process};

fn timeball(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_timeball")).args(arguments).output().expect("the program")
}

fn serve(configuration: &Path) -> Output {
    timeball(&["serve", "--config", configuration.to_str().expect("text")])
}

/// The message of a failed command: one line, nothing on standard output, no panic.
fn sentence(output: &Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    message
}

/// A directory with a certificate, and configurations in it.
struct Place {
    directory: tempfile::TempDir,
    ntp_port: u16,
    ke_port: u16,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let out = directory.path().to_str().expect("text").to_owned();
        let made = timeball(&["cert", "self-signed", "--name", "localhost", "--out", &out]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { directory, ntp_port: free_udp_port(), ke_port: free_tcp_port() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// A good configuration on free ports, with one text replaced by another.
    fn configuration(&self, from: &str, to: &str) -> std::path::PathBuf {
        let good = format!(
            "state_directory = \"{}\"\n[ntp]\nlisten = [\"127.0.0.1:{}\"]\n[clock]\n\
             source = \"local\"\n[ke]\nlisten = [\"127.0.0.1:{}\"]\n\
             certificate = \"{}\"\nkey = \"{}\"\n",
            self.path("state"),
            self.ntp_port,
            self.ke_port,
            self.path("cert.pem"),
            self.path("key.pem"),
        );
        assert!(good.contains(from), "{from}");
        let path = self.directory.path().join("timeball.toml");
        fs::write(&path, good.replace(from, to)).expect("written");
        path
    }
}

#[test]
fn without_arguments_a_help_that_fits_a_screen() {
    let output = timeball(&[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(help.lines().count() <= 24, "{help}");
    for word in ["serve", "query", "cert", "config"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn every_bad_start_says_one_sentence() {
    let place = Place::new();
    let taken_udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken_udp = taken_udp.local_addr().map(|address| (taken_udp, address)).expect("bound");
    let taken_tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp_address = taken_tcp.local_addr().expect("bound").to_string();
    let ntp = format!("[ntp]\nlisten = [\"127.0.0.1:{}\"]", place.ntp_port);
    let ke = format!("[ke]\nlisten = [\"127.0.0.1:{}\"]", place.ke_port);
    let other = Place::new();
    fs::write(place.path("garbage.pem"), "garbage").expect("written");

    for (from, to, code, says) in [
        (
            ntp.as_str(),
            &format!("[ntp]\nlisten = [\"{}\"]", taken_udp.1),
            1,
            "in use by another program",
        ),
        (
            ke.as_str(),
            &format!("[ke]\nlisten = [\"{tcp_address}\"]"),
            1,
            "in use by another program",
        ),
        (
            ntp.as_str(),
            &"[ntp]\nlisten = [\"192.0.2.1:123\"]".to_owned(),
            1,
            "an interface of this host",
        ),
        (ntp.as_str(), &format!("{ntp}\ncpus = \"8191\""), 2, "processor 8191"),
        (ntp.as_str(), &format!("{ntp}\nbind_device = \"absent0\""), 1, "of ntp.bind_device: No"),
        ("listen", &"lisen".to_owned(), 2, "did you mean \"listen\"?"),
        ("[ke]", &"[ke".to_owned(), 2, "line 6"),
        (&place.path("cert.pem"), &place.path("absent.pem"), 1, "check its name"),
        (&place.path("cert.pem"), &place.path("garbage.pem"), 1, "no PEM certificate"),
        (&place.path("key.pem"), &place.path("garbage.pem"), 1, "garbage.pem"),
        (&place.path("key.pem"), &other.path("key.pem"), 1, "do not belong together"),
        (&place.path("state"), &place.path("cert.pem"), 1, "cannot make the state directory"),
    ] {
        let message = sentence(&serve(&place.configuration(from, to)), code);
        assert!(message.contains(says), "{to}: {message}");
    }
    sentence(&serve(Path::new(&place.path("absent.toml"))), 2);
}

#[test]
fn a_damaged_key_file_stops_the_start_and_stays() {
    let place = Place::new();
    fs::create_dir(place.path("state")).expect("made");
    fs::write(place.path("state/ntskeys"), "NKS1\nnonsense\n").expect("written");
    let message = sentence(&serve(&place.configuration("[ke]", "[ke]")), 1);
    assert!(message.contains("are damaged: line 2"), "{message}");
    let kept = fs::read_to_string(place.path("state/ntskeys")).expect("still there");
    assert_eq!(kept, "NKS1\nnonsense\n");
}

/// Without the right to pass the administrator's limits.
#[test]
fn capped_buffers_are_said_once() {
    let place = Place::new();
    let listen = format!("[ntp]\nlisten = [\"127.0.0.1:{}\"]", place.ntp_port);
    let large = format!("{listen}\nreceive_buffer_bytes = 536870912\nworkers = 2");
    let configuration = place.configuration(&listen, &large);
    let drop_right: &[&str] = if rustix::process::geteuid().is_root() {
        &["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    } else {
        &["--no-new-privs"]
    };
    let mut server = Command::new("setpriv")
        .args(drop_right)
        .args([env!("CARGO_BIN_EXE_timeball"), "serve", "--config"])
        .arg(configuration)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("setpriv (Debian package util-linux)");
    // It is ended once it serves, and all that it said is read.
    let read = server.stdout.as_mut().expect("piped").read(&mut [0]).expect("the banner");
    assert_eq!(read, 1, "it serves");
    let pid = Pid::from_raw(server.id() as i32).expect("a process");
    kill_process(pid, Signal::TERM).expect("it runs");
    let output = server.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    let message = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = message.lines().collect();
    let [warning] = lines[..] else { panic!("one warning: {message}") };
    assert!(warning.contains("caps ntp.receive_buffer_bytes at "), "{warning}");
    assert!(warning.contains(" of 536870912"), "{warning}");
    assert!(warning.contains("`sysctl -w net.core.rmem_max=536870912"), "{warning}");
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in [
        &["serv"][..],
        &["serve", "--listn", "::"],
        &["serve", "--listen", "localhost"],
        &["query"],
        &["query", "::1]"],
        &["query", "localhost", "--samples", "0"],
        &["role", "conductor"],
        &["config", "check"],
    ] {
        let output = timeball(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_role_by_hand_says_what_starts_it() {
    let message = sentence(&timeball(&["role", "responder"]), 2);
    assert!(message.contains("timeball serve"), "{message}");
}

#[test]
fn a_query_without_an_answer_exits_1() {
    let place = Place::new();
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let server = format!("127.0.0.1:{}", port.expect("a port").port());
    let output = timeball(&["query", &server, "--ca", &place.path("cert.pem")]);
    sentence(&output, 1);
    let output = timeball(&["query", &server, "--ca", &place.path("absent.pem")]);
    assert!(sentence(&output, 1).contains("absent.pem"));
}

#[test]
fn config_example_is_a_good_configuration() {
    let place = Place::new();
    let example = timeball(&["config", "example"]);
    assert!(example.status.success());
    fs::write(place.path("example.toml"), &example.stdout).expect("written");
    let check = timeball(&["config", "check", &place.path("example.toml")]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn the_private_key_is_private() {
    let place = Place::new();
    let mode = fs::metadata(place.path("key.pem")).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
