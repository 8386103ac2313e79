//! What the processes of a running server may still do: the table of
//! `src/process/sandbox/profile.rs` against the kernel's own account, `/proc/PID/status`.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::plain_request;
use common::rig::receive;
use common::server::{Server, free_tcp_port, free_udp_port, kill, program, udp_client, wait_until};
use rustix::process::{Signal, getuid};
use rustix::thread::CapabilitySet;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use timeball::aead::Algorithm;
use timeball::process::handover::Purpose;
use timeball::process::role::Role;
use timeball::process::sandbox::profile::{Profile, SUPERVISOR};
use timeball::process::sandbox::system_calls::{COMMON, SystemCall};
use timeball::wire::ntp::Mode;

const ROLES: [Role; 4] = [Role::Clock, Role::Responder, Role::KeyEstablishment, Role::Observer];

/// An unprivileged user that no list of users is needed for.
const STRANGER: u32 = 54_321;

/// A server with a process of every role.
fn start() -> Server {
    let observe = format!("[observe]\nlisten = \"127.0.0.1:{}\"", free_tcp_port());
    Server::start_with(Algorithm::AesSivCmac256, "", "", &observe)
}

/// `/proc/PID/status` (proc(5)).
struct Status(BTreeMap<String, String>);

impl Status {
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(path).expect("it runs");
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn capabilities(&self, set: &str) -> CapabilitySet {
        CapabilitySet::from_bits_retain(u64::from_str_radix(&self.0[set], 16).expect("hexadecimal"))
    }

    /// Real, effective, saved and file system user.
    fn users(&self) -> Vec<u32> {
        self.0["Uid"].split('\t').map(|user| user.parse().expect("a number")).collect()
    }
}

/// Every thread of a process keeps to its row, given what it was `started` with.
fn assert_confined(pid: u32, profile: &Profile, started: &Status) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for task in tasks {
        let task = task.expect("an entry").path();
        let status = Status::read(&task.join("status").display().to_string());
        let name = profile.name;
        for set in ["CapPrm", "CapEff"] {
            let expected = started.capabilities("CapPrm") & profile.capabilities;
            assert_eq!(status.capabilities(set), expected, "{set} of {name}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status.capabilities(set), CapabilitySet::empty(), "{set} of {name}");
        }
        let bounding = started.capabilities("CapBnd");
        // Who may not make it smaller keeps it, and has no use of it.
        let can_bound = started.capabilities("CapEff").contains(CapabilitySet::SETPCAP);
        let expected = if can_bound { bounding & profile.capabilities } else { bounding };
        assert_eq!(status.capabilities("CapBnd"), expected, "CapBnd of {name}");
        assert_eq!(status.0["NoNewPrivs"], "1", "{name}");
        let filter = if profile.system_calls.is_some() { "2" } else { "0" };
        assert_eq!(status.0["Seccomp"], filter, "{name}");
        let user = started.users()[0];
        let is_changed = user == 0 && profile.user != "root";
        let users = status.users();
        assert!(users.iter().all(|&it| it == users[0]), "{users:?} of {name}");
        assert_eq!(users[0] != user, is_changed, "{users:?} of {name}");
        if is_changed {
            let groups = [&status.0["Gid"], &status.0["Groups"]].map(|it| it.trim().to_owned());
            let is_root = |groups: &String| groups.split_whitespace().any(|group| group == "0");
            assert!(!groups.iter().any(is_root), "{groups:?} of {name}");
        }
    }
}

/// A role holds what its row says, and nothing that leads to the file system.
fn assert_descriptors(pid: u32, profile: &Profile) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let mut kinds = BTreeMap::<&str, usize>::new();
    for descriptor in descriptors {
        let descriptor = descriptor.expect("an entry");
        if descriptor.file_name().to_string_lossy().parse::<u32>().expect("a number") <= 2 {
            continue;
        }
        let target = fs::read_link(descriptor.path()).expect("open");
        let target = target.display().to_string();
        let known = ["socket:", "/memfd:", "pipe:", "anon_inode:"];
        let kind = known.into_iter().find(|kind| target.starts_with(kind));
        *kinds
            .entry(kind.unwrap_or_else(|| panic!("{target} in {}", profile.name)))
            .or_default() += 1;
    }
    // Two listeners, one of HTTP, or two sockets for each worker at two addresses; and the channel.
    let sockets = if profile.descriptors.contains(&Purpose::NtpSocket) { 4 } else { 0 }
        * std::thread::available_parallelism().expect("processors").get()
        + if profile.descriptors.contains(&Purpose::KeListener) { 2 } else { 0 }
        + usize::from(profile.descriptors.contains(&Purpose::HttpListener));
    assert_eq!(kinds["socket:"], sockets + 1, "{kinds:?} of {}", profile.name);
}

fn assert_all_confined(server: &Server, started: &Status) {
    assert_confined(server.pid(), &SUPERVISOR, started);
    for role in ROLES {
        let pids = server.role_pids(role.argument());
        assert!(!pids.is_empty());
        for pid in pids {
            assert_confined(pid, &role.profile(), started);
            if getuid().is_root() {
                // Others may not look: it cannot be traced.
                assert_descriptors(pid, &role.profile());
            }
        }
    }
}

fn assert_serves(server: &Server) {
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    assert_eq!(receive(&client).len(), 48);
}

/// Other settings for the next start.
fn configure(server: &Server, sandbox: &str) {
    let path = server.directory.path().join("timeball.toml");
    let text = fs::read_to_string(&path).expect("written");
    let (before, after) = text.split_once("sandbox = \"strict\"\n").expect("the usual one");
    fs::write(path, format!("{before}{sandbox}{after}")).expect("written");
}

#[test]
fn each_process_is_what_the_table_says() {
    let server = start();
    assert_all_confined(&server, &Status::read("/proc/self/status"));
    assert_serves(&server);
}

/// The observer is handed pages that it cannot write, nor map to write: what is shown may be wrong
/// if a stranger takes it over, but not what others count.
#[test]
fn the_observer_can_write_no_page() {
    if !getuid().is_root() {
        println!("NOT tested here: this is not root, and others may not look");
        return;
    }
    let server = start();
    let observer = server.role_pid("observer").expect("a process");
    let mut pages = 0;
    for descriptor in fs::read_dir(format!("/proc/{observer}/fd")).expect("it runs") {
        let path = descriptor.expect("an entry").path();
        let target = fs::read_link(&path).expect("open").display().to_string();
        if !target.starts_with("/memfd:timeball-stats") {
            continue;
        }
        pages += 1;
        let info = path.display().to_string().replace("/fd/", "/fdinfo/");
        let info = fs::read_to_string(info).expect("open");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
        assert_eq!(flags & libc::O_ACCMODE as u32, libc::O_RDONLY as u32, "{target}");
    }
    let maps = fs::read_to_string(format!("/proc/{observer}/maps")).expect("it runs");
    let mapped: Vec<&str> = maps.lines().filter(|line| line.contains("timeball-")).collect();
    assert!(mapped.iter().all(|line| line.contains(" r--s ")), "{mapped:?}");
    assert!(!maps.contains("timeball-keys"), "{mapped:?}");
    assert!(pages > 0 && mapped.len() == pages, "{mapped:?}");
}

#[test]
fn without_root_it_is_the_same() {
    if !getuid().is_root() {
        println!("NOT tested here: this is not root; each_process_is_what_the_table_says did it");
        return;
    }
    let mut server = start();
    server.restart_as(STRANGER);
    let users = format!("{STRANGER}\t").repeat(4).trim_end().to_owned();
    let mut started = Status::read("/proc/self/status");
    started.0.insert("Uid".to_owned(), users);
    for set in ["CapPrm", "CapEff"] {
        started.0.insert(set.to_owned(), "0".to_owned());
    }
    assert_all_confined(&server, &started);
    assert_serves(&server);
}

/// As the default is, and no other test: a listener on all addresses asks each connection which of
/// them it is for.
#[test]
fn key_establishment_serves_on_all_addresses() {
    let mut server = start();
    let path = server.directory.path().join("timeball.toml");
    let text = fs::read_to_string(&path).expect("written");
    let (before, ke) = text.split_once("[ke]").expect("a section");
    let ke = ke.replacen("127.0.0.1:", "0.0.0.0:", 1).replacen("[::1]:", "[::]:", 1);
    fs::write(path, format!("{before}[ke]{ke}")).expect("written");
    server.restart();
    let started = server.role_pids(Role::KeyEstablishment.argument());
    for host in ["127.0.0.1", "[::1]"] {
        let output = program()
            .args(["query", &format!("{host}:{}", server.ke_port), "--ca"])
            .arg(server.certificate())
            .output()
            .expect("the program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(server.role_pids(Role::KeyEstablishment.argument()), started);
    assert!(!server.log().contains("SIGSYS"), "{}", server.log());
}

/// As by its filter, which the unit tests of each role show to work.
#[test]
fn a_role_that_its_filter_ended_is_reported_and_started_again() {
    let server = start();
    for role in ROLES {
        let old = server.role_pids(role.argument());
        kill(old[0], Signal::SYS);
        let says =
            format!("{} ended (SIGSYS: a system call that its sandbox forbids)", role.name());
        wait_until("the report", || server.log().contains(&says));
        wait_until("another process", || {
            let new = server.role_pids(role.argument());
            new.len() == old.len() && !new.contains(&old[0])
        });
        assert_serves(&server);
    }
}

#[test]
fn off_is_off_and_root_is_warned() {
    let mut server = start();
    configure(&server, "sandbox = \"off\"\n");
    server.restart();
    let own = Status::read("/proc/self/status");
    for pid in ROLES.iter().flat_map(|role| server.role_pids(role.argument())) {
        let status = Status::read(&format!("/proc/{pid}/status"));
        assert_eq!(status.0["Seccomp"], own.0["Seccomp"]);
        assert_eq!(status.users(), own.users());
    }
    assert_eq!(server.log().contains("runs as root without a sandbox"), getuid().is_root());
    assert_serves(&server);
}

#[test]
fn roles_take_the_user_that_they_are_told() {
    if !getuid().is_root() {
        println!("NOT tested here: this is not root");
        return;
    }
    let mut server = start();
    configure(&server, &format!("user = \"{STRANGER}\"\n"));
    server.restart();
    for pid in ROLES.iter().flat_map(|role| server.role_pids(role.argument())) {
        assert_eq!(Status::read(&format!("/proc/{pid}/status")).users(), [STRANGER; 4]);
    }
    assert_serves(&server);
}

/// Runs `work` in a thread where the kernel knows no landlock, nor in the processes it starts.
fn without_landlock<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let without = || {
        let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
        let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("one that it knows");
        let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture);
        let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
        seccompiler::apply_filter(&program).expect("filtered");
        work()
    };
    std::thread::scope(|scope| scope.spawn(without).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_kernel_without_landlock_is_a_warning() {
    let mut server = start();
    configure(&server, "");
    without_landlock(|| server.restart());
    assert_eq!(server.log().matches("warning: this kernel has no landlock").count(), 1);
    assert_serves(&server);
}

#[test]
fn what_cannot_be_confined_does_not_start() {
    let start = |keys: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let text = format!(
            "state_directory = \"{}\"\nsandbox = \"strict\"\n{keys}\
             [ntp]\nlisten = [\"127.0.0.1:{}\"]\n[clock]\nsource = \"local\"\n",
            directory.path().display(),
            free_udp_port(),
        );
        let path = directory.path().join("timeball.toml");
        fs::write(&path, text).expect("written");
        let output = program().args(["serve", "--config"]).arg(path).output().expect("started");
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
        message
    };
    let message = without_landlock(|| start(""));
    assert!(message.contains("no landlock, which sandbox = \"strict\" asks for"), "{message}");
    let message = start("user = \"no-such-user\"\n");
    assert!(message.contains("user \"no-such-user\" does not exist"), "{message}");
    assert!(start("user = \"root\"\n").contains("user must not be root"));
}

/// The document has the names of one architecture.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_document_has_the_table_of_the_code() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ARCHITECTURE.md"))
        .expect("the document");
    let name = |call: &SystemCall| format!("`{}`", call.name.replace("SYS_", ""));
    let common: Vec<_> = COMMON.iter().map(name).collect();
    let profiles = [SUPERVISOR].into_iter().chain(ROLES.map(Role::profile));
    let rows: Vec<_> = profiles.map(|profile| profile.row()).collect();
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = [&rows[..], &[common.join(", ")]].concat();
    let missing: Vec<_> = expected.iter().filter(|it| !joined.contains(*it)).cloned().collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md lacks:\n{}", missing.join("\n"));
}
