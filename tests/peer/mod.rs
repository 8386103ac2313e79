//! Other implementations as processes of their own, without the right to set the clock.
//!
//! Every peer is started through `setpriv`, which takes CAP_SYS_TIME out of the bounding set: the
//! kernel then refuses every change of the clock, whatever the peer's options say. chronyd's `-x`
//! alone would do, but NTPsec's ntpd calls adjtimex(2) even under `disable ntp`.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::fs::{File, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::server::{free_tcp_port, free_udp_port};

/// Longer than any peer takes on a busy machine; reached only when something is wrong.
const PEER_WAIT: Duration = Duration::from_secs(60);

/// Between two looks at a peer.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a peer may take to end before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The UDP port that ntpd always takes, also as a client.
const NTP_PORT: u16 = 123;

/// A running peer; ended when dropped.
pub struct Peer {
    child: Child,
    /// What it printed, both streams.
    log: PathBuf,
}

impl Peer {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second descriptor"))
            .stderr(file)
            .spawn()
            .expect("setpriv (Debian package util-linux)");
        Self { child, log }
    }

    /// Its process: `setpriv` has become the peer.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the peer printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log file")
    }

    /// Asks `probe` until it has something; fails when the peer ends or takes too long.
    pub fn wait<T>(&mut self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PEER_WAIT;
        loop {
            if let Some(found) = probe() {
                return found;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{what}: the peer ended ({ended:?}):\n{}", self.log());
            assert!(Instant::now() < deadline, "{what}: not in {PEER_WAIT:?}:\n{}", self.log());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// The capabilities that the running peer has and can ever get again.
    pub fn assert_it_cannot_set_the_clock(&self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the peer runs");
        assert_no_clock_capability(&status);
    }

    /// Ends the peer as its service manager would, and waits for it.
    pub fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_WAIT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `program` without CAP_SYS_TIME, now and for ever.
pub fn without_clock(program: &Path) -> Command {
    assert!(
        rustix::process::geteuid().is_root(),
        "chronyd and ntpd start as root only: run the tests as root"
    );
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]).arg(program);
    command
}

/// CAP_SYS_TIME is bit 25 (capabilities(7)) of each set in a `/proc/PID/status`.
pub fn assert_no_clock_capability(status: &str) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("Linux has it");
        let bits =
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("hexadecimal");
        assert_eq!(bits >> 25 & 1, 0, "{set} holds CAP_SYS_TIME");
    }
}

/// A directory that chronyd can still read as the user `_chrony`.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("ours");
    directory
}

/// A copy of `file` in `directory` that everybody can read.
fn readable_copy(file: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join(file.file_name().expect("a file"));
    std::fs::write(&copy, std::fs::read(file).expect("readable")).expect("written");
    std::fs::set_permissions(&copy, Permissions::from_mode(0o644)).expect("ours");
    copy
}

/// A program of a package that `tests/install-peers` unpacks.
fn unpacked(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(path);
    assert!(program.is_file(), "{} is missing: run tests/install-peers", program.display());
    program
}

/// Takes the time once, as a user would try it, and exits.
pub fn chronyd_once(ke_port: u16, ntp_port: u16, certificate: &Path) -> Output {
    let directory = open_directory();
    let certificate = readable_copy(certificate, directory.path());
    without_clock(&unpacked("chrony/usr/sbin/chronyd"))
        .args(["-x", "-Q", "-t", "5", "-u", "nobody"])
        .arg(format!("server 127.0.0.1 nts ntsport {ke_port} port {ntp_port} iburst maxsamples 1"))
        .arg("nosystemcert")
        .arg(format!("ntstrustedcerts {}", certificate.display()))
        .output()
        .expect("setpriv (Debian package util-linux)")
}

/// A chronyd that stays.
pub struct Chronyd {
    /// Its process.
    pub peer: Peer,
    socket: PathBuf,
    directory: TempDir,
}

impl Chronyd {
    /// Starts it with these lines of configuration, the clock left alone, its files in a directory
    /// of its own, `DIR` in the lines. As root: dropping to another user is what
    /// [`chronyd_once`] shows.
    fn start(lines: &str, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        // chronyd opens no command socket in a directory that others can enter.
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).expect("ours");
        for (name, content) in files {
            std::fs::write(path.join(name), content).expect("written");
        }
        let socket = path.join("chronyd.sock");
        let text = format!(
            "user root\ncmdport 0\nbindcmdaddress {}\npidfile {}\n{}\n",
            socket.display(),
            path.join("chronyd.pid").display(),
            lines.replace("DIR", &path.display().to_string()),
        );
        std::fs::write(path.join("chrony.conf"), text).expect("written");
        let peer = Self::spawn(path, &socket);
        Self { peer, socket, directory }
    }

    fn spawn(directory: &Path, socket: &Path) -> Peer {
        let mut command = without_clock(&unpacked("chrony/usr/sbin/chronyd"));
        command.args(["-x", "-d", "-f"]).arg(directory.join("chrony.conf"));
        let mut peer = Peer::start(command, directory.join("log"));
        peer.wait("chronyd answers chronyc", || chronyc(socket, &["activity"]));
        peer.assert_it_cannot_set_the_clock();
        peer
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.peer.stop();
    }

    /// Starts it again with the same files, once it has ended.
    pub fn restart(&mut self) {
        self.peer = Self::spawn(self.directory.path(), &self.socket);
    }

    /// Its Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A server of NTP on 127.0.0.1 with further lines of configuration; it takes commands on a
    /// UDP port too.
    pub fn server(ntp_port: u16, command_port: u16, lines: &str) -> Self {
        Self::start(
            &format!(
                "port {ntp_port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\n\
                 cmdport {command_port}\nbindcmdaddress 127.0.0.1\n{lines}"
            ),
            &[],
        )
    }

    /// A client that polls 16 times a second.
    pub fn client(ke_port: u16, certificate: &Path) -> Self {
        Self::client_with(&format!("nts ntsport {ke_port}"), certificate)
    }

    /// The same with these options of its server.
    pub fn client_with(options: &str, certificate: &Path) -> Self {
        Self::client_polling(-4, options, certificate)
    }

    /// The same that polls every 2^`poll` seconds.
    pub fn client_polling(poll: i8, options: &str, certificate: &Path) -> Self {
        let certificate = std::fs::read(certificate).expect("readable");
        Self::start(
            &format!(
                "server 127.0.0.1 {options} minpoll {poll} maxpoll {poll} iburst\n\
                 port 0\nnosystemcert\nntstrustedcerts DIR/cert.pem"
            ),
            &[("cert.pem", &certificate)],
        )
    }

    /// Repeats a command of `chronyc` until `probe` finds something in what it prints.
    pub fn wait<T>(
        &mut self,
        what: &str,
        command: &[&str],
        probe: impl Fn(&str) -> Option<T>,
    ) -> T {
        let socket = &self.socket;
        self.peer.wait(what, || probe(&chronyc(socket, command)?))
    }
}

/// What `chronyc` prints; `None` while there is no answer.
fn chronyc(socket: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(unpacked("chrony/usr/bin/chronyc"))
        .arg("-h")
        .arg(socket)
        .arg("-N")
        .args(arguments)
        .output()
        .expect("chronyc");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
}

/// A chronyd that serves NTS on 127.0.0.1.
pub struct ChronydServer {
    /// The program.
    pub chronyd: Chronyd,
    /// UDP port.
    pub ntp_port: u16,
    /// TCP port.
    pub ke_port: u16,
}

impl ChronydServer {
    /// Starts one at stratum 5 with a certificate that `timeball cert` makes. Given `ntskeys`, it
    /// serves under these keys and never changes them.
    pub fn start(ntskeys: Option<&str>) -> Self {
        let made = tempfile::tempdir().expect("a directory");
        make_certificate(made.path());
        let read = |name| std::fs::read(made.path().join(name)).expect("made");
        let (certificate, key) = (read("cert.pem"), read("key.pem"));
        let mut files = vec![("cert.pem", &certificate[..]), ("key.pem", &key[..])];
        files.extend(ntskeys.map(|text| ("ntskeys", text.as_bytes())));
        let (ntp_port, ke_port) = (free_udp_port(), free_tcp_port());
        let rotation = if ntskeys.is_some() { "ntsrotate 0" } else { "" };
        let chronyd = Chronyd::start(
            &format!(
                "port {ntp_port}\nntsport {ke_port}\nbindaddress 127.0.0.1\nbindaddress ::1\n\
                 allow 127.0.0.1\nlocal stratum 5\nntsserverkey DIR/key.pem\n\
                 ntsservercert DIR/cert.pem\nntsdumpdir DIR\n{rotation}"
            ),
            &files,
        );
        Self { chronyd, ntp_port, ke_port }
    }

    /// The certificate, which is its own anchor of trust.
    pub fn certificate(&self) -> PathBuf {
        self.chronyd.directory.path().join("cert.pem")
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.chronyd.directory.path().join("chrony.conf")
    }

    /// Its key file as it is now.
    pub fn ntskeys(&self) -> String {
        std::fs::read_to_string(self.chronyd.directory.path().join("ntskeys")).expect("written")
    }
}

/// ntpd-rs as a server of NTS on 127.0.0.1, at stratum 5. As a client it ends where it may not set
/// the clock, so it is none here.
pub struct NtpdRsServer {
    /// Its process.
    pub peer: Peer,
    /// UDP port.
    pub ntp_port: u16,
    /// TCP port.
    pub ke_port: u16,
    directory: TempDir,
}

impl NtpdRsServer {
    /// Starts one.
    pub fn start() -> Self {
        let program = unpacked("ntpd-rs/bin/ntp-daemon");
        let directory = open_directory();
        let path = directory.path();
        make_certificate(path);
        let (ntp_port, ke_port) = (free_udp_port(), free_tcp_port());
        let text = format!(
            "[observability]\nlog-level = \"warn\"\n\
             [synchronization]\nlocal-stratum = 5\n\
             [[server]]\nlisten = \"127.0.0.1:{ntp_port}\"\n\
             [[nts-ke-server]]\nlisten = \"127.0.0.1:{ke_port}\"\nntp-port = {ntp_port}\n\
             certificate-chain-path = \"{path}/cert.pem\"\n\
             private-key-path = \"{path}/key.pem\"\n",
            path = path.display(),
        );
        let configuration = path.join("ntp.toml");
        std::fs::write(&configuration, text).expect("written");
        std::fs::set_permissions(&configuration, Permissions::from_mode(0o644)).expect("ours");
        let mut command = without_clock(&program);
        command.arg("-c").arg(configuration);
        let peer = Peer::start(command, path.join("log"));
        Self { peer, ntp_port, ke_port, directory }
    }

    /// The certificate, which is its own anchor of trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }
}

/// NTPsec's ntpd as a server of NTS on 127.0.0.1, at stratum 5. Its ports are the usual ones, so it
/// has to be started in a network namespace of its own.
pub struct NtpdServer {
    /// Its process.
    pub peer: Peer,
    directory: TempDir,
}

impl NtpdServer {
    /// Starts one, without a source and without the right to set the clock.
    pub fn start() -> Self {
        let program = unpacked("ntpsec/usr/sbin/ntpd");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        make_certificate(path);
        let text = format!(
            "nts enable\nnts cert {path}/cert.pem\nnts key {path}/key.pem\n\
             nts cookie {path}/cookies\ntos orphan 5 orphanwait 1\nstatsdir {path}/\n\
             interface ignore all\ninterface listen 127.0.0.1\n",
            path = path.display(),
        );
        let configuration = path.join("ntp.conf");
        std::fs::write(&configuration, text).expect("written");
        let mut command = without_clock(&program);
        command.arg("-n").arg("-c").arg(configuration);
        command.arg("-p").arg(path.join("pid")).arg("-f").arg(path.join("drift"));
        let peer = Peer::start(command, path.join("log"));
        Self { peer, directory }
    }

    /// The certificate, which is its own anchor of trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }
}

/// `cert.pem` and `key.pem` for 127.0.0.1, as `timeball cert` makes them.
fn make_certificate(directory: &Path) {
    let status = Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["cert", "self-signed", "--name", "127.0.0.1", "--out"])
        .arg(directory)
        .stdout(Stdio::null())
        .status()
        .expect("the program");
    assert!(status.success());
}

/// NTPsec's ntpd.
pub struct Ntpd {
    /// Its process.
    pub peer: Peer,
    directory: TempDir,
}

impl Ntpd {
    /// Starts one that polls as often as it can. It disciplines nothing: it is told not to
    /// (`disable ntp`), and it has not the right to.
    pub fn client(ke_port: u16, certificate: &Path) -> Self {
        Self::start(&format!(
            "server 127.0.0.1:{ke_port} nts ca {certificate} minpoll 0 maxpoll 0\n\
             statsdir DIR/\nstatistics peerstats\n\
             filegen peerstats file peerstats type none enable\n",
            certificate = certificate.display(),
        ))
    }

    /// Starts one without a source, which serves the clock that it runs on at this stratum, on UDP
    /// port 123 of 127.0.0.1.
    pub fn server(stratum: u8) -> Self {
        let mut ntpd = Self::start(&format!(
            // Else it answers an address less than once a second.
            "restrict 127.0.0.1\ntos orphan {stratum} orphanwait 1\n"
        ));
        ntpd.peer.wait("ntpd serves", || stratum_told().filter(|told| *told == stratum));
        ntpd
    }

    /// With these lines of configuration; `DIR` is its directory.
    fn start(lines: &str) -> Self {
        let program = unpacked("ntpsec/usr/sbin/ntpd");
        wait_for_the_ntp_port();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let text = format!(
            "disable ntp\n\
             interface ignore all\ninterface ignore wildcard\ninterface listen 127.0.0.1\n{}",
            lines.replace("DIR", &path.display().to_string()),
        );
        let configuration = path.join("ntp.conf");
        std::fs::write(&configuration, text).expect("written");
        let mut command = without_clock(&program);
        command.arg("-n").arg("-c").arg(configuration);
        command.arg("-p").arg(path.join("pid")).arg("-f").arg(path.join("drift"));
        let peer = Peer::start(command, path.join("log"));
        Self { peer, directory }
    }

    /// Waits for samples and returns them all.
    pub fn wait_for_samples(&mut self, count: usize) -> Vec<NtpdSample> {
        let file = self.directory.path().join("peerstats");
        self.peer.wait("ntpd takes samples", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let samples: Vec<_> = text.lines().filter_map(NtpdSample::parse).collect();
            (samples.len() >= count).then_some(samples)
        })
    }
}

/// A line of ntpd's `peerstats`: day, second, address, status, offset, delay and more.
#[derive(Debug)]
pub struct NtpdSample {
    /// The peer's status word.
    pub status: u16,
    /// Offset in seconds.
    pub offset_seconds: f64,
}

impl NtpdSample {
    /// RFC 9327 figure 3: configured, authentication enabled, authentic, reachable.
    pub const AUTHENTIC: u16 = 0xf000;

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(3);
        let status = u16::from_str_radix(words.next()?, 16).ok()?;
        Some(Self { status, offset_seconds: words.next()?.parse().ok()? })
    }
}

/// What the server at UDP port 123 says of its stratum; `None` if it does not.
fn stratum_told() -> Option<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(LOOK_INTERVAL)).expect("a time limit");
    let mut packet = [0; 48];
    // Version 4, mode 3 (RFC 5905 figure 8).
    packet[0] = 4 << 3 | 3;
    // ntpd answers nobody without a transmit timestamp.
    packet[40..].fill(1);
    socket.send_to(&packet, ("127.0.0.1", NTP_PORT)).ok()?;
    let (bytes, _) = socket.recv_from(&mut packet).ok()?;
    (bytes == packet.len()).then_some(packet[1])
}

/// Another run of these tests may have it; any other owner stays.
fn wait_for_the_ntp_port() {
    let deadline = Instant::now() + PEER_WAIT;
    while let Err(error) = UdpSocket::bind(("127.0.0.1", NTP_PORT)) {
        assert!(
            Instant::now() < deadline,
            "UDP port {NTP_PORT} of 127.0.0.1 cannot be had ({error}), and ntpd takes no other: \
             stop the time server that has it (`ss -lnup` names it)"
        );
        std::thread::sleep(LOOK_INTERVAL);
    }
}
