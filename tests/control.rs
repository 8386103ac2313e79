//! The commands that reach a running server, and its control socket under bad treatment.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::server::{ANSWER_WAIT, Server, kill, program, udp_client, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use timeball::aead::{Algorithm, MasterKey, NonceGenerator};
use timeball::client::Association;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::limits::{CONTROL_CLIENTS_MAX, CONTROL_REQUEST_BYTES_MAX, DATAGRAM_BYTES};
use timeball::sys::file::replace_private;

const STATUS: &[u8] = b"{\"version\":1,\"request\":\"status\"}\n";

fn configuration(server: &Server) -> PathBuf {
    server.directory.path().join("timeball.toml")
}

fn socket(server: &Server) -> PathBuf {
    server.directory.path().join("control")
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments).arg("--config").arg(configuration(server));
    command.output().expect("the program")
}

fn done(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(server: &Server, command: &str) -> Value {
    serde_json::from_str(&done(server, &[command, "--json"])).expect("JSON")
}

/// The one sentence of a command that failed.
fn refusal(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

fn ask_plain(server: &Server) {
    let client = udp_client(server.ntp());
    let mut request = [0; 48];
    request[0] = 0x23;
    client.send(&request).expect("sent");
    assert_eq!(client.recv(&mut [0; 64]).expect("an answer"), 48);
}

fn ask_authenticated(server: &Server, association: &mut Association) {
    let mut random = NonceGenerator::new().expect("random numbers");
    let client = udp_client(server.ntp());
    let mut buffer = [0; DATAGRAM_BYTES];
    let pending = association.request(&mut buffer, &mut random).expect("a cookie");
    client.send(&buffer[..pending.request_bytes]).expect("sent");
    let bytes = client.recv(&mut buffer).expect("an answer");
    association.response(&pending, &mut buffer[..bytes]).expect("authentic");
}

fn association(server: &Server) -> Association {
    server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 8)
}

#[test]
fn status_shows_processes_keys_certificates_and_totals() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "workers = 2", "", "processes = 2");
    let status = json(&server, "status");
    assert_eq!(status["release"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["configuration"], configuration(&server).to_str().expect("text"));
    let processes = status["processes"].as_array().expect("a list");
    let pids: Vec<u64> = processes.iter().filter_map(|process| process["pid"].as_u64()).collect();
    let mut roles = server.role_pids("clock");
    roles.extend(server.role_pids("responder"));
    roles.extend(server.role_pids("key-establishment"));
    assert_eq!(pids, roles.into_iter().map(u64::from).collect::<Vec<_>>());
    assert!(processes.iter().all(|process| process["is_serving"] == true));
    assert_eq!(status["worker_cpus"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["clock"]["source"], "local");
    let current = format!("{:08X}", server.master_keys()[2].id());
    assert_eq!(status["keys"]["current"], current.as_str());
    assert!(status["keys"]["next_rotation_seconds"].as_u64().expect("a number") <= 7 * 86_400);
    assert_eq!(status["certificates"][0]["names"][0], "localhost");

    let text = done(&server, &["status"]);
    assert!(text.lines().count() <= 24, "more than a screen:\n{text}");
    for part in [
        "responder          process ",
        "key establishment  2 processes, up ",
        "restarts 0",
        "workers            2, on processor ",
        &format!("master keys        {current} is current; newest "),
        "requests           NTP 0, NTS 0, refused (NTS NAK) 0, dropped 0",
        "handshakes         0 brought cookies, of 0 connections",
        "nobody vouches for it",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let secret: String =
        server.master_keys()[2].expose_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!status.to_string().to_lowercase().contains(&secret[..16]));
}

#[test]
fn counts_go_on_when_roles_are_started_again() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "processes = 1");
    let mut association = association(&server);
    for round in 1..=3_u64 {
        ask_plain(&server);
        ask_authenticated(&server, &mut association);
        drop(std::net::TcpStream::connect(server.ke()).expect("connected"));
        wait_until("all is counted", || {
            let stats = json(&server, "serverstats");
            stats["ntp_packets_received"] == 2 * round
                && stats["authenticated_ntp_packets"] == round
                && stats["nts_ke_connections_accepted"] == round
                && stats["responder"]["answered_plain"] == round
                && stats["key_establishment"]["abandoned"] == round
        });
        for role in ["clock", "responder", "key-establishment"] {
            let killed = server.role_pids(role);
            kill(killed[0], Signal::KILL);
            wait_until("another process", || {
                let pids = server.role_pids(role);
                pids.len() == 1 && pids != killed
            });
        }
        wait_until("all serve again", || {
            let status = json(&server, "status");
            let processes = status["processes"].as_array().expect("a list").clone();
            processes
                .iter()
                .all(|process| process["is_serving"] == true && process["restarts"] == round)
        });
    }
    let text = done(&server, &["serverstats"]);
    for line in [
        "NTP packets received       : 6",
        "NTS-KE connections accepted: 3",
        "Authenticated NTP packets  : 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    for section in text.split("\n\n") {
        let columns = section.lines().filter_map(|line| line.find(": "));
        let columns: BTreeSet<usize> = columns.collect();
        assert_eq!(columns.len(), 1, "not in line:\n{section}");
    }
    for (name, total) in [("answered_nts", "3"), ("abandoned", "3")] {
        let found = text.lines().filter_map(|line| line.split_once(": "));
        assert!(
            found.into_iter().any(|it| (it.0.trim(), it.1) == (name, total)),
            "{name}:\n{text}"
        );
    }
}

#[test]
fn reload_says_what_holds_and_what_waits() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "processes = 1");
    let unchanged = done(&server, &["reload"]);
    assert_eq!(unchanged, "everything was read again; nothing has changed\n");

    let path = configuration(&server);
    let good = fs::read_to_string(&path).expect("the configuration");
    let changed = good
        .replace("processes = 1", "processes = 2\nntp_server = \"time.example.org\"")
        .replace("[ntp]", "[ntp]\ndscp = 46");
    fs::write(&path, changed).expect("written");
    let names = ["localhost".to_owned()];
    let now = time::OffsetDateTime::now_utc();
    timeball::certificate::self_signed(&names, time::Duration::days(30), now)
        .expect("a certificate")
        .write(&server.certificate(), &server.directory.path().join("key.pem"), true)
        .expect("written");
    let mut random = NonceGenerator::new().expect("random numbers");
    let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
    let file = server.directory.path().join("ntskeys");
    replace_private(&file, ntskeys::emit(&ring, 0.0).as_bytes()).expect("written");
    let text = done(&server, &["reload"]);
    let expected = format!(
        "reloaded: ke.ntp_server\nreloaded: certificate {} is new\n\
         reloaded: new master keys were read; {:08X} is current now\n\
         needs a restart: ntp.dscp\nneeds a restart: ke.processes\n",
        server.certificate().display(),
        ring.current().id()
    );
    assert_eq!(text, expected);
    assert_eq!(json(&server, "status")["certificates"][0]["names"][0], "localhost");

    // The configuration that the command reads itself stays good.
    let state = server.directory.path().to_str().expect("text");
    fs::write(&path, good.replace("[clock]", "[clok]")).expect("written");
    let output = program().args(["reload", "--state-directory", state]).output().expect("ran");
    let message = refusal(&output);
    assert!(message.contains("reload refused, nothing has changed: "), "{message}");
    assert!(message.contains("did you mean \"clock\"?"), "{message}");
    fs::write(&path, good).expect("written");
    let status = json(&server, "status");
    assert_eq!((&status["reloads"], &status["reloads_refused"]), (&2.into(), &1.into()));
}

#[test]
fn keys_are_rotated_in_the_running_server() {
    let server = Server::start();
    let mut association = association(&server);
    let ids: Vec<String> =
        server.master_keys().iter().map(|key| format!("{:08X}", key.id())).collect();
    let text = done(&server, &["keys", "rotate"]);
    assert_eq!(text, format!("{} is current now in the running server\n", ids[3]));
    let status = json(&server, "status");
    let shown: Vec<&str> = status["keys"]["ids"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(shown[..3], ids[1..]);
    let file = fs::read_to_string(server.directory.path().join("ntskeys")).expect("the key file");
    let ring = ntskeys::parse(&file).expect("well-formed").ring;
    let on_disk: Vec<String> =
        ring.keys().iter().map(MasterKey::id).map(|id| format!("{id:08X}")).collect();
    assert_eq!(on_disk, shown);
    // A cookie of before is good, and one of the new key is too.
    ask_authenticated(&server, &mut association);
    ask_authenticated(&server, &mut association);
}

#[test]
fn keys_of_another_program_are_not_rotated() {
    let server =
        Server::start_with(Algorithm::AesSivCmac256, "", "", "[keys]\nrotate = \"external\"");
    let message = refusal(&run(&server, &["keys", "rotate"]));
    assert!(message.contains("keys.rotate = \"external\""), "{message}");
    assert!(done(&server, &["status"]).contains("another program rotates"));
}

#[test]
fn without_a_server_the_message_says_what_to_do() {
    let mut server = Server::start();
    assert!(socket(&server).exists());
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(!socket(&server).exists(), "it is left behind");
    for command in ["status", "serverstats", "reload"] {
        let message = refusal(&run(&server, &[command]));
        assert!(message.contains("no server is running at "), "{message}");
        assert!(message.contains("start it with `timeball serve`"), "{message}");
        assert!(message.contains("--config FILE"), "{message}");
    }
    // What a killed one leaves is no server, and in nobody's way.
    server.restart();
    let roles = ["clock", "responder", "key-establishment"].map(|role| server.role_pids(role));
    server.signal(Signal::KILL);
    server.wait();
    // They drain, and have the addresses meanwhile. One that has ended has no program any more,
    // even if nobody asks how it ended.
    let is_gone = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_err();
    wait_until("the roles have ended", || roles.iter().flatten().all(is_gone));
    assert!(socket(&server).exists());
    assert!(refusal(&run(&server, &["status"])).contains("no server is running at "));
    server.restart();
    done(&server, &["status"]);
}

/// Two servers may share keys that another program makes, but not the socket.
#[test]
fn the_socket_of_another_server_is_not_taken() {
    let server =
        Server::start_with(Algorithm::AesSivCmac256, "", "", "[keys]\nrotate = \"external\"");
    let text = fs::read_to_string(configuration(&server)).expect("the configuration");
    let (ntp, ke) = (common::server::free_udp_port(), common::server::free_tcp_port());
    let other = text
        .replace(&format!(":{}\"", server.ntp_port), &format!(":{ntp}\""))
        .replace(&format!(":{}\"", server.ke_port), &format!(":{ke}\""));
    let path = server.directory.path().join("other.toml");
    fs::write(&path, other).expect("written");
    let output = program().args(["serve", "--config"]).arg(path).output().expect("ran");
    let message = refusal(&output);
    assert!(message.contains("a running server has the control socket "), "{message}");
    assert!(message.contains("control.socket"), "{message}");
    done(&server, &["status"]);
}

#[test]
fn who_may_not_is_told_so() {
    let server = Server::start();
    let mode = fs::metadata(socket(&server)).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let directory = server.directory.path();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("set");
    let output = if rustix::process::geteuid().is_root() {
        stranger(directory, &[]).output().expect("setpriv (Debian package util-linux)")
    } else {
        fs::set_permissions(socket(&server), Permissions::from_mode(0o000)).expect("set");
        program().args(["status", "--state-directory"]).arg(directory).output().expect("ran")
    };
    let message = refusal(&output);
    assert!(message.contains("may not use the control socket "), "{message}");
    assert!(message.contains("as root or as the server's user"), "{message}");
    assert!(message.contains("control.mode"), "{message}");
}

#[test]
fn a_group_may_if_the_mode_says_so() {
    if !rustix::process::geteuid().is_root() {
        println!("not checked: only root can run a command as another user");
        return;
    }
    let mode = "[control]\nmode = \"0660\"";
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", mode);
    let directory = server.directory.path();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("set");
    let output = stranger(directory, &[]).output().expect("ran");
    assert!(refusal(&output).contains("may not use the control socket "));
    let output = stranger(directory, &["--regid", "0"]).output().expect("ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `timeball status` as a user without rights. The program may be where nobody else can reach it.
fn stranger(directory: &Path, more: &[&str]) -> Command {
    let copy = directory.join("timeball");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_timeball"), &copy).expect("copied");
    }
    let mut command = Command::new("setpriv");
    let user = ["--reuid", "65534", "--clear-groups"];
    let group = if more.is_empty() { &["--regid", "65534"] } else { more };
    command.args(user).args(group).arg(copy).args(["status", "--state-directory"]).arg(directory);
    command
}

/// One line of answer to whatever was sent.
fn answer_to(server: &Server, sent: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket(server)).expect("connected");
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    stream.write_all(sent).expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn garbage_is_answered_and_does_no_harm() {
    let server = Server::start();
    let long = [b"{".repeat(2 * CONTROL_REQUEST_BYTES_MAX), b"\n".to_vec()].concat();
    let endless = b"x".repeat(CONTROL_REQUEST_BYTES_MAX + 1);
    let two = [STATUS, STATUS].concat();
    for (sent, expected) in [
        (&b"\n"[..], "a request is one line such as {\"version\":1,"),
        (b"status\n", "a request is one line such as "),
        (b"\x00\xff\xfe\n", "a request is one line such as "),
        (b"{\"request\":\"status\"}\n", "a request is one line such as "),
        (
            b"{\"version\":7,\"request\":\"status\"}\n",
            "this server speaks version 1 of the control",
        ),
        (b"{\"version\":1,\"request\":\"halt\"}\n", "unknown request \"halt\"; this server knows "),
        (&long, "of 1024 bytes at the most"),
        (&endless, "of 1024 bytes at the most"),
        (&two, "when the last one is answered"),
    ] {
        let answer = answer_to(&server, sent);
        assert_eq!(answer["version"], 1);
        assert!(answer["error"].as_str().expect("an error").contains(expected), "{answer}");
    }
    // Gone in the middle of a request, and before the answer.
    for sent in [&STATUS[..9], STATUS] {
        let mut stream = UnixStream::connect(socket(&server)).expect("connected");
        stream.write_all(sent).expect("sent");
    }
    assert!(answer_to(&server, STATUS)["answer"].is_object());
    ask_plain(&server);
}

#[test]
fn one_connection_may_ask_again() {
    let server = Server::start();
    let mut stream = UnixStream::connect(socket(&server)).expect("connected");
    let mut answers = BufReader::new(stream.try_clone().expect("a copy"));
    for _ in 0..3 {
        stream.write_all(STATUS).expect("sent");
        let mut line = String::new();
        answers.read_line(&mut line).expect("an answer");
        assert!(line.contains("\"answer\":{"), "{line}");
    }
}

/// They hold all places; others wait until the server's patience with them ends.
#[test]
fn silent_clients_hold_nobody_up_for_long() {
    let server = Server::start();
    let silent: Vec<UnixStream> = (0..CONTROL_CLIENTS_MAX)
        .map(|_| UnixStream::connect(socket(&server)).expect("connected"))
        .collect();
    ask_plain(&server);
    done(&server, &["status"]);
    drop(silent);
}

#[test]
fn many_clients_are_all_answered() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for _ in 0..4 * CONTROL_CLIENTS_MAX {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(answer_to(&server, STATUS)["answer"].is_object());
                }
            });
        }
    });
}

/// A role that has no memory left cannot map the new access lists, or say yes to them.
#[test]
fn a_role_that_refuses_a_reload_is_an_error_and_goes_on() {
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "processes = 1");
    let limit = |role: &str, bytes: &str| {
        let pid = server.role_pids(role)[0].to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let id = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().next().expect("a number").parse().expect("a number")
        };
        // As its own user, since another one needs CAP_SYS_RESOURCE.
        let mut command = Command::new("prlimit");
        command.uid(id("Uid:")).gid(id("Gid:"));
        command.args(["--pid", &pid, &format!("--as={bytes}:unlimited")]);
        let output = command.output().expect("util-linux");
        assert!(output.status.success(), "{output:?}");
    };
    for role in ["responder", "key-establishment"] {
        let pids = server.role_pids(role);
        limit(role, "1");
        let refusal = refusal(&run(&server, &["reload"]));
        let name = role.replace('-', " ");
        let sentence = format!("{name} goes on as before: the access lists were not handed over: ");
        assert!(refusal.contains(&sentence), "{refusal}");
        assert!(refusal.trim_end().ends_with("; restart timeball"), "{refusal}");
        wait_until("the same in the log", || server.log().contains(&sentence));
        ask_plain(&server);
        limit(role, "unlimited");
        assert_eq!(done(&server, &["reload"]), "everything was read again; nothing has changed\n");
        assert_eq!(server.role_pids(role), pids, "the same process");
    }
}

/// Runs a command without an option, where /etc and the home directory are those of the test.
fn run_at(home: &Path, etc: &Path, arguments: &[&str]) -> Output {
    let script = "mount --bind \"$1\" /etc && shift && exec \"$@\"";
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(etc)
        .arg(program().get_program())
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .output()
        .expect("root, and util-linux")
}

#[test]
fn commands_find_the_packaged_server_without_an_option() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a directory");
    let (home, etc) = (folder.path().join("home"), folder.path().join("etc"));
    fs::create_dir_all(etc.join("timeball")).expect("made");
    fs::create_dir(&home).expect("made");
    let usual = etc.join("timeball/timeball.toml");
    fs::copy(configuration(&server), &usual).expect("copied");
    for arguments in [
        &["status"][..],
        &["serverstats"],
        &["tracking"],
        &["keys", "show"],
        &["reload"],
        &["check"],
    ] {
        let output = run_at(&home, &etc, arguments);
        // The certificate of the test is a warning to `check`.
        let codes = if arguments == ["check"] { 0..=1 } else { 0..=0 };
        assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "{output:?}");
    }
    let shown = run_at(&home, &etc, &["keys", "show"]).stdout;
    let file = server.directory.path().join("ntskeys");
    assert!(String::from_utf8_lossy(&shown).contains(&file.display().to_string()));

    // A trial of this user comes first, and is named where it does not run.
    let trial = home.join(".local/state/timeball");
    fs::create_dir_all(&trial).expect("made");
    let message = refusal(&run_at(&home, &etc, &["status"]));
    assert!(message.contains(&trial.display().to_string()), "{message}");
    fs::remove_dir_all(home.join(".local")).expect("there");

    // Without either the message names the place of a trial.
    fs::remove_file(&usual).expect("there");
    let message = refusal(&run_at(&home, &etc, &["status"]));
    assert!(message.contains(&trial.display().to_string()), "{message}");
    // One that is wrong is named with its line.
    fs::write(&usual, "[ntp\n").expect("written");
    let output = run_at(&home, &etc, &["status"]);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("/etc/timeball/timeball.toml") && message.contains("line 1"));
}
