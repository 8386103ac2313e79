//! What systemd hears and hands over, with the test in its place: a datagram socket as
//! `NOTIFY_SOCKET`, and sockets by `LISTEN_FDS`. systemd itself does not run here.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use command_fds::{CommandFdExt as _, FdMapping};
use common::server::{
    ANSWER_WAIT, Server, free_tcp_port, free_udp_port, kill, program, udp_client, wait_until,
};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::limits::DATAGRAM_BYTES;

const KEY_ESTABLISHMENT: &str = "key-establishment";

/// The place of systemd.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
        Self { socket, directory }
    }

    fn start(&self, variables: &[(&str, &str)]) -> Server {
        let command = |_, _| {
            let mut command = program();
            command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
            command.envs(variables.iter().copied());
            command
        };
        Server::start_by(command, Algorithm::AesSivCmac256, ["", "", "processes = 2"])
    }

    /// The next message, in lines.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let bytes = self.socket.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..bytes]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// The next message with a line that begins so; those before it are passed over.
    fn wait_for(&self, begins: &str) -> Vec<String> {
        // Each message is waited for, and a server that sends others for ever is bounded too.
        (0..1000)
            .map(|_| self.next())
            .find(|lines| lines.iter().any(|line| line.starts_with(begins)))
            .unwrap_or_else(|| panic!("no {begins}"))
    }
}

#[test]
fn systemd_hears_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut server = manager.start(&[]);
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with("STATUS=4 of 4 processes serve"), "{ready:?}");

    server.signal(Signal::HUP);
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let stamp = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time");
    assert!(stamp.parse::<u64>().is_ok(), "{reloading:?}");
    let done = manager.next();
    assert!(done[0] == "READY=1" && done[1].contains("reloads: 1, refused 0"), "{done:?}");

    std::fs::write(server.certificate(), "garbage").expect("written");
    server.signal(Signal::HUP);
    assert_eq!(manager.wait_for("RELOADING=1").len(), 2);
    let refused = manager.wait_for("READY=1");
    assert!(refused[1].contains("reloads: 1, refused 1"), "{refused:?}");

    server.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_while_no_role_hangs() {
    let manager = Manager::new();
    let server = manager.start(&[("WATCHDOG_USEC", "400000")]);
    manager.wait_for("WATCHDOG=1");
    let ke = server.role_pids(KEY_ESTABLISHMENT)[1];
    let responder = server.role_pid("responder").expect("a process");
    let clock = server.role_pid("clock").expect("a process");
    for (role, name) in [(ke, "key establishment"), (responder, "responder"), (clock, "clock")] {
        kill(role, Signal::STOP);
        let silent = [format!("STATUS={name} does not react")];
        manager.wait_for(&silent[0]);
        // On a busy machine another one may be late as well, and is named instead.
        for _ in 0..3 {
            let said = manager.next();
            let is_silence = said[0].starts_with("STATUS=") && said[0].ends_with(" does not react");
            assert!(said.len() == 1 && is_silence, "fed while a role hangs: {said:?}");
        }
        kill(role, Signal::CONT);
        manager.wait_for("WATCHDOG=1");
    }
    // One that ended is being seen to.
    kill(ke, Signal::KILL);
    manager.wait_for("STATUS=4 of 4 processes serve, 1 ended");
    manager.wait_for("WATCHDOG=1");
}

/// The sockets that a unit with these addresses would open, and the program to be started with
/// them, as systemd does it.
fn activate(sockets: Vec<OwnedFd>, names: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_timeball")])
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names);
    let mappings = sockets.into_iter().zip(3..);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).expect("distinct numbers");
    command
}

fn udp(port: u16, is_shared: bool) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_reuse_port(is_shared).expect("set");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
    // A client of another test may have the port for a moment.
    wait_until("the port is free", || socket.bind(&address).is_ok());
    socket.into()
}

/// The listener and the UDP sockets of the IPv4 addresses come from the test, those of IPv6 are
/// opened by the server.
fn assert_activation_serves(workers: usize, given: usize, is_shared: bool) {
    let command = |ntp_port, ke_port| {
        let udp = (0..given).map(|_| udp(ntp_port, is_shared).into());
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, ke_port)).expect("bound");
        let names = vec!["timeball.socket"; given + 1].join(":");
        activate(udp.chain([tcp.into()]).collect(), &names)
    };
    let ntp = format!("workers = {workers}");
    let server = Server::start_by(command, Algorithm::AesSivCmac256, [&ntp, "", ""]);
    let socket = udp_client(server.ntp());
    let master = &server.master_keys()[2];
    let mut random = NonceGenerator::new().expect("random numbers");
    for socket in [socket, udp_client(server.ntp_v6())] {
        let mut association = server.mint(master, Algorithm::AesSivCmac256, 8);
        let mut buffer = [0; DATAGRAM_BYTES];
        let pending = association.request(&mut buffer, &mut random).expect("a cookie");
        socket.send(&buffer[..pending.request_bytes]).expect("sent");
        let bytes = socket.recv(&mut buffer).expect("an answer");
        association.response(&pending, &mut buffer[..bytes]).expect("authentic");
    }
    let options = client(&server);
    timeball::ke::client::establish(&options).expect("a handshake");
}

#[test]
fn sockets_of_systemd_are_served() {
    assert_activation_serves(1, 1, false);
    // One with ReusePort=yes, and the others opened beside it.
    assert_activation_serves(2, 1, true);
    // As many as workers.
    assert_activation_serves(2, 2, true);
}

/// systemd keeps the sockets open while the service restarts; so does the test.
#[test]
fn requests_wait_in_systemd_s_sockets_during_a_restart() {
    let mut kept = Vec::new();
    let command = |ntp_port, ke_port| {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, ke_port)).expect("bound");
        kept = vec![OwnedFd::from(udp(ntp_port, false)), tcp.into()];
        activate(duplicates(&kept), "ntp:ke")
    };
    let mut server = Server::start_by(command, Algorithm::AesSivCmac256, ["workers = 1", "", ""]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));

    let master = &server.master_keys()[2];
    let mut association = server.mint(master, Algorithm::AesSivCmac256, 8);
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut buffer = [0; DATAGRAM_BYTES];
    let pending = association.request(&mut buffer, &mut random).expect("a cookie");
    let socket = udp_client(server.ntp());
    socket.send(&buffer[..pending.request_bytes]).expect("sent");
    let options = client(&server);
    let handshake = std::thread::spawn(move || timeball::ke::client::establish(&options));

    server.restart_by(activate(duplicates(&kept), "ntp:ke"));
    let bytes = socket.recv(&mut buffer).expect("an answer");
    association.response(&pending, &mut buffer[..bytes]).expect("authentic");
    handshake.join().expect("a client").expect("a handshake");
}

fn duplicates(sockets: &[OwnedFd]) -> Vec<OwnedFd> {
    sockets.iter().map(|socket| socket.try_clone().expect("a duplicate")).collect()
}

fn client(server: &Server) -> timeball::ke::client::Options {
    timeball::ke::client::Options {
        host: "127.0.0.1".to_owned(),
        port: server.ke_port,
        config: timeball::ke::client::client_config(
            timeball::ke::client::roots_from_file(&server.certificate()).expect("roots"),
        ),
        offer: timeball::ke::exchange::Offer::default(),
        timeout: ANSWER_WAIT,
    }
}

#[test]
fn sockets_of_systemd_that_cannot_be_served_stop_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let (port, other) = (free_udp_port(), free_udp_port());
    let configuration = directory.path().join("timeball.toml");
    let text = format!(
        "state_directory = \"{}\"\n[ntp]\nlisten = [\"127.0.0.1:{port}\"]\nworkers = 2\n",
        directory.path().display()
    );
    std::fs::write(&configuration, text).expect("written");
    let start = |sockets: Vec<OwnedFd>, names: &str| -> Output {
        let mut command = activate(sockets, names);
        command.arg("serve").arg("--config").arg(&configuration).stdin(Stdio::null());
        command.output().expect("the program")
    };
    let dual = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
    dual.set_only_v6(false).expect("set");
    dual.bind(&SocketAddr::from(([0; 16], 0)).into()).expect("bound");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, free_tcp_port())).expect("bound");
    let file = std::fs::File::open(&configuration).expect("the file");
    for (socket, says) in [
        (udp(port, false).into(), "ReusePort=yes"),
        (udp(other, false).into(), "the same addresses"),
        (tcp.into(), "the same addresses"),
        (dual.into(), "BindIPv6Only=ipv6-only"),
        (file.into(), "it should be a UDP or TCP socket"),
    ] {
        let output = start(vec![socket], "mine");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("the socket \"mine\" from systemd") && message.contains(says));
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let message = start(vec![udp(port, true).into()], "one:two").stderr;
    assert!(String::from_utf8(message).expect("text").contains("check the socket unit"));
}
