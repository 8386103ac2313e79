//! Each role's own sandbox in a process that then makes a call: what is allowed goes on, what is
//! forbidden ends the process.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::catch_unwind;
use std::process::{Command, Output, abort, exit};
use std::thread;
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::ioctl_fionread;
use rustix::process::{getpid, getppid, test_kill_process};

use super::*;
use crate::clock::hardware::Anchor;
use crate::sys::phc::{self, Look, Method};

/// Set in the process that is confined: the role and the call, by their places in the tables.
const VICTIM: &str = "TIMEBALL_TEST_SANDBOX";

const ROLES: [Role; 4] = [Role::Clock, Role::Responder, Role::KeyEstablishment, Role::Observer];

/// Those to which strangers make connections.
const LISTENERS: &[Role] = &[Role::KeyEstablishment, Role::Observer];

/// Those that receive, by themselves or their event loop.
const RECEIVERS: &[Role] = &[Role::Clock, Role::KeyEstablishment, Role::Observer];

/// What is open before the sandbox closes.
struct Opened {
    udp: UdpSocket,
    tcp: TcpListener,
}

/// A name, a call, and the roles that may make it.
type Call = (&'static str, fn(&Opened), &'static [Role]);

/// What a call returns does not matter: a filter that forbids it ends the process first.
const CALLS: &[Call] = &[
    ("allocate", |_| drop(vec![1_u8; 8 << 20]), &ROLES),
    ("say something", |_| eprintln!("at {:?}", Instant::now()), &ROLES),
    ("look for itself", |_| _ = test_kill_process(getpid()), &ROLES),
    ("read the clock", |_| drop(crate::sys::adjtimex::read()), &[Role::Clock]),
    ("read the clock of an interface", |open| drop(read_phc(open)), &[Role::Clock]),
    ("ask a device for something else", |open| _ = ioctl_fionread(&open.udp), &[]),
    ("accept a connection", |open| drop(open.tcp.accept()), LISTENERS),
    ("receive", |open| drop(open.udp.recv(&mut [0])), RECEIVERS),
    ("open a file", |_| drop(File::open("/etc/passwd")), &[]),
    ("list a directory", |_| drop(std::fs::read_dir("/")), &[]),
    ("open a socket", |_| drop(UdpSocket::bind("127.0.0.1:0")), &[]),
    ("start a program", |_| drop(Command::new("/bin/true").status()), &[]),
    ("start a thread", |_| drop(thread::spawn(|| {})), &[]),
    ("look for another process", |_| _ = getppid().map(test_kill_process), &[]),
    ("duplicate a descriptor", |open| drop(open.udp.try_clone()), &[]),
    ("make a memory file", |_| drop(memfd_create("", MemfdFlags::CLOEXEC)), &[]),
    ("become another user", |_| _ = nix::unistd::setuid(getuid().as_raw().into()), &[]),
];

fn read_phc(open: &Opened) -> io::Result<Look> {
    phc::read(&open.udp, Method::Plain, &Anchor { monotonic: 0, system: 0 })
}

#[test]
fn a_forbidden_call_ends_the_process_and_an_allowed_one_does_not() {
    if let Some(victim) = std::env::var_os(VICTIM) {
        be_victim(victim.to_str().expect("two numbers"));
    }
    for (place, role) in ROLES.into_iter().enumerate() {
        for (number, (what, _, allowed)) in CALLS.iter().enumerate() {
            let output = run(&format!("{place} {number}"));
            let ended = (output.status.code(), output.status.signal());
            let expected =
                if allowed.contains(&role) { (Some(0), None) } else { (None, Some(libc::SIGSYS)) };
            assert_eq!(ended, expected, "{what} as {}: {output:?}", role.name());
        }
        // A panic has its last words, and ends as one.
        let output = run(&format!("{place} {}", CALLS.len()));
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("last words"), "{output:?}");
    }
}

/// This test again, in a process of its own.
fn run(victim: &str) -> Output {
    let test = "a_forbidden_call_ends_the_process_and_an_allowed_one_does_not";
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "--nocapture", &format!("process::sandbox::tests::{test}")])
        .env(VICTIM, victim)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("started")
}

fn be_victim(victim: &str) -> ! {
    let numbers: Vec<usize> = victim.split(' ').map(|it| it.parse().expect("a number")).collect();
    let (role, call) = (ROLES[numbers[0]], CALLS.get(numbers[1]));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    // Nobody says anything to them.
    udp.set_nonblocking(true).and(tcp.set_nonblocking(true)).expect("set");
    let open = Opened { udp, tcp };
    let confinement = Confinement::new(Sandbox::Strict, None).expect("a user");
    confinement.enter(role).and_then(Filter::apply).expect("confined");
    match call {
        Some((_, call, _)) => call(&open),
        None => {
            let _ = catch_unwind(|| panic!("last words"));
            abort();
        }
    }
    exit(0);
}
