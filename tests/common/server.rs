//! A running server with keys that the test knows.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use timeball::aead::{Aead, Algorithm, MasterKey, NonceGenerator};
use timeball::certificate::self_signed;
use timeball::client::Association;
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::sys::file::replace_private;

/// Longer than any answer takes on a busy machine; reached only when none comes.
pub const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// `timeball serve` with a configuration of its own; ended when dropped.
pub struct Server {
    child: Child,
    /// Everything it reads and writes.
    pub directory: tempfile::TempDir,
    /// UDP port, on 127.0.0.1 and ::1.
    pub ntp_port: u16,
    /// TCP port, on 127.0.0.1 and ::1.
    pub ke_port: u16,
    /// What it printed when it was ready.
    pub banner: String,
    /// What it wrote to standard error.
    log: Log,
    ring: KeyRing,
}

type Log = Arc<Mutex<String>>;

impl Server {
    /// Starts a server in `local` mode with a master key ring of `master`'s algorithm.
    /// `ntp`, `clock` and `ke` are further lines of these sections.
    pub fn start_with(master: Algorithm, ntp: &str, clock: &str, ke: &str) -> Self {
        Self::start_by(|_, _| program(), master, [ntp, clock, ke])
    }

    /// The same, started by the command that is made for its UDP and TCP port.
    pub fn start_by(
        command: impl FnOnce(u16, u16) -> Command,
        master: Algorithm,
        [ntp, clock, ke]: [&str; 3],
    ) -> Self {
        // Each rotation syncs a file, which takes as long as a disk is kept busy by others: in
        // memory it takes no time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.expect("a directory");
        let mut random = NonceGenerator::new().expect("random numbers");
        let ring = KeyRing::generate(master, |bytes| random.fill(bytes));
        replace_private(&directory.path().join("ntskeys"), ntskeys::emit(&ring, 0.0).as_bytes())
            .expect("the key file");
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self_signed(&names, time::Duration::days(30), time::OffsetDateTime::now_utc())
            .expect("a certificate")
            .write(&directory.path().join("cert.pem"), &directory.path().join("key.pem"), true)
            .expect("written");
        let (ntp_port, ke_port) = (free_udp_port(), free_tcp_port());
        let ntp_listen = if ntp.contains("listen") {
            String::new()
        } else {
            format!("listen = [\"127.0.0.1:{ntp_port}\", \"[::1]:{ntp_port}\"]\n")
        };
        let path = directory.path().display();
        let text = format!(
            "state_directory = \"{path}\"\nsandbox = \"strict\"\n\
             [ntp]\n{ntp_listen}{}\n\
             [clock]\n{}\n\
             [ke]\nlisten = [\"127.0.0.1:{ke_port}\", \"[::1]:{ke_port}\"]\n\
             certificate = \"{path}/cert.pem\"\nkey = \"{path}/key.pem\"\n{ke}\n",
            ntp.replace("PORT", &ntp_port.to_string()),
            if clock.is_empty() { "source = \"local\"" } else { clock },
        );
        std::fs::write(directory.path().join("timeball.toml"), text).expect("the configuration");
        let log = Log::default();
        let (child, banner) = spawn(command(ntp_port, ke_port), directory.path(), &log);
        Self { child, directory, ntp_port, ke_port, banner, log, ring }
    }

    /// The usual one.
    pub fn start() -> Self {
        Self::start_with(Algorithm::AesSivCmac256, "", "", "")
    }

    /// Ends the server and starts it again on the same directory and ports.
    pub fn restart(&mut self) {
        self.restart_by(program());
    }

    /// The same, started by `command`.
    pub fn restart_by(&mut self, command: Command) {
        end(&mut self.child);
        let (child, banner) = spawn(command, self.directory.path(), &self.log);
        (self.child, self.banner) = (child, banner);
    }

    /// The same as another user, who gets the directory.
    pub fn restart_as(&mut self, user: u32) {
        let directory = self.directory.path();
        // Where it was built a stranger may not look.
        let own = directory.join("timeball");
        std::fs::copy(program().get_program(), &own).expect("copied");
        for entry in std::fs::read_dir(directory).expect("a directory") {
            chown(entry.expect("an entry").path(), Some(user), Some(user)).expect("root");
        }
        chown(directory, Some(user), Some(user)).expect("root");
        let mut command = Command::new(own);
        command.uid(user).gid(user);
        self.restart_by(command);
    }

    /// Waits for the supervisor to end, as it was asked to or not.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Has it read a configuration that was changed by `change`; what it says of it.
    pub fn reload_with(&self, change: impl FnOnce(String) -> String) -> String {
        let path = self.directory.path().join("timeball.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        std::fs::write(&path, change(text)).expect("written");
        let output = program().args(["reload", "--config"]).arg(&path).output().expect("run");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        assert!(output.status.success(), "{said}");
        said
    }

    /// What it has counted, of `responder` or `key_establishment`.
    pub fn counter(&self, section: &str, name: &str) -> u64 {
        let path = self.directory.path().join("timeball.toml");
        let output = program().args(["serverstats", "--json", "--config"]).arg(path).output();
        let stats = output.expect("run").stdout;
        let stats: serde_json::Value = serde_json::from_slice(&stats).expect("JSON");
        stats[section][name].as_u64().unwrap_or_else(|| panic!("{name}: {stats}"))
    }

    /// Everything that it wrote to standard error.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Process identifier of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of a role, by its name on the command line; the first of several.
    pub fn role_pid(&self, role: &str) -> Option<u32> {
        self.role_pids(role).first().copied()
    }

    /// All processes of a role.
    pub fn role_pids(&self, role: &str) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split('\0').any(|word| word == role))
        })
        .collect()
    }

    /// The certificate, which is its own anchor of trust.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The NTP service on 127.0.0.1.
    pub fn ntp(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ntp_port))
    }

    /// The NTP service on ::1.
    pub fn ntp_v6(&self) -> SocketAddr {
        SocketAddr::from((Ipv6Addr::LOCALHOST, self.ntp_port))
    }

    /// Key establishment on 127.0.0.1.
    pub fn ke(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ke_port))
    }

    /// The server's master keys, oldest first, the third current.
    pub fn master_keys(&self) -> &[MasterKey; 4] {
        self.ring.keys()
    }

    /// An association whose cookies the test made itself under `master`.
    pub fn mint(&self, master: &MasterKey, algorithm: Algorithm, cookies: usize) -> Association {
        let mut random = NonceGenerator::new().expect("random numbers");
        let mut key = [0; 128];
        random.fill(&mut key);
        let (c2s, s2c) = key[..2 * algorithm.key_bytes()].split_at(algorithm.key_bytes());
        let keys = ClientKeys::new(algorithm, c2s, s2c).expect("lengths fit");
        let mut aead = Aead::detect();
        let cookies: Vec<Vec<u8>> = (0..cookies)
            .map(|_| {
                let mut cookie = vec![0; cookie_bytes(master.algorithm(), algorithm)];
                let mut nonce = [0; 16];
                let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
                random.fill(nonce);
                aead.make_cookies(&mut [format::prepare(&mut cookie, master, nonce, &keys)]);
                cookie
            })
            .collect();
        Association::new(keys, cookies.iter().map(Vec::as_slice))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The program, without arguments.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_timeball"))
}

/// Sends a signal to a process that this test started, or that one of those started.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process");
    // It may have ended by itself.
    let _ = kill_process(pid, signal);
}

/// Waits until `is_so`; fails the test when it does not come to be.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + ANSWER_WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spawn(mut command: Command, directory: &Path, log: &Log) -> (Child, String) {
    let mut child = command
        .args(["serve", "--config"])
        .arg(directory.join("timeball.toml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let errors = BufReader::new(child.stderr.take().expect("piped"));
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            eprintln!("{line}");
            let mut log = log.lock().expect("not poisoned");
            log.push_str(&line);
            log.push('\n');
        }
    });
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut banner = String::new();
    while !banner.ends_with("Ctrl-C ends it.\n") {
        let read = lines.read_line(&mut banner).expect("text");
        assert_ne!(read, 0, "the server ended: {banner}");
    }
    // The rest goes nowhere; a closed pipe would end a server that prints.
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    (child, banner)
}

fn end(child: &mut Child) {
    // One that was waited for has no number any more.
    if let (Ok(None), Some(pid)) = (child.try_wait(), Pid::from_raw(child.id() as i32)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait();
}

/// A port that was free on both loopback addresses a moment ago.
pub fn free_udp_port() -> u16 {
    loop {
        let v4 = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = v4.local_addr().expect("bound").port();
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The same for TCP.
pub fn free_tcp_port() -> u16 {
    loop {
        let v4 = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = v4.local_addr().expect("bound").port();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A client's UDP socket, connected, with a time limit.
pub fn udp_client(server: SocketAddr) -> UdpSocket {
    let local: SocketAddr =
        if server.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
    let socket = UdpSocket::bind(local).expect("a socket");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
    socket
}
