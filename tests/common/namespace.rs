//! A server's and a client's host, as two network namespaces joined by two cables.
//!
//! | namespace | `lan` | `other` |
//! | --- | --- | --- |
//! | server | 10.77.0.1, 10.77.0.2, fd77::1, fd77::2, fe80::1 | 10.78.0.1, fd78::1 |
//! | client | 10.77.0.9, fd77::9, fe80::9 | 10.78.0.9, fd78::9 |

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::server::ANSWER_WAIT;

/// See the module. Removed when dropped, also by a panic.
pub struct Hosts {
    pub server: Namespace,
    pub client: Namespace,
}

impl Hosts {
    /// Makes the namespaces, or says why that is not possible here.
    pub fn new() -> Result<Self, String> {
        let hosts = Self { server: Namespace::new("server")?, client: Namespace::new("client")? };
        for (device, network) in [("lan", 77), ("other", 78)] {
            let peer = ["peer", "name", device, "netns", &hosts.client.name];
            hosts.server.ip(&[&["link", "add", device, "type", "veth"], &peer[..]].concat())?;
            for (namespace, host) in [(&hosts.server, 1), (&hosts.client, 9)] {
                // No address of the kernel's own, which would take a second to be usable.
                namespace.ip(&["link", "set", device, "addrgenmode", "none"])?;
                namespace.ip(&["link", "set", device, "up"])?;
                namespace.add_address(device, &format!("10.{network}.0.{host}/24"))?;
                namespace.add_address(device, &format!("fd{network}::{host}/64"))?;
            }
        }
        hosts.server.add_address("lan", "10.77.0.2/24")?;
        hosts.server.add_address("lan", "fd77::2/64")?;
        hosts.server.add_address("lan", "fe80::1/64")?;
        hosts.client.add_address("lan", "fe80::9/64")?;
        Ok(hosts)
    }
}

/// A network namespace; removed when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one whose loopback is up, or says why that is not possible here.
    pub fn new(role: &str) -> Result<Self, String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("timeball-{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// `ip ARGUMENTS` in the namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// `tc ARGUMENTS` in the namespace.
    pub fn tc(&self, arguments: &[&str]) -> Result<(), String> {
        run(Command::new("tc").args(["-n", &self.name]).args(arguments))
    }

    /// `program` in the namespace, which sees the interfaces of the namespace below /sys, too.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Usable at once: nobody else can have the address, so nobody is asked.
    pub fn add_address(&self, device: &str, address: &str) -> Result<(), String> {
        let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
        self.ip(&[&["address", "add", address, "dev", device], nodad].concat())
    }

    /// What `work` returns in the namespace. Sockets and processes that it makes stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = &self.name;
        let in_namespace = move || {
            let file = File::open(format!("/run/netns/{name}")).expect("the namespace");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may");
            work()
        };
        std::thread::scope(|scope| scope.spawn(in_namespace).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The index of an interface, which is the scope of its link-local addresses.
    pub fn index(&self, device: &str) -> u32 {
        self.enter(|| nix::net::if_::if_nametoindex(device).expect("an interface"))
    }

    /// A client's socket, connected to `server`: it takes datagrams from that address only.
    pub fn udp_client(&self, server: SocketAddr) -> UdpSocket {
        self.enter(|| {
            let any: SocketAddr = match server {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.connect(server).expect("a route");
            socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
            socket
        })
    }

    /// A number of `/proc/net/snmp`.
    pub fn statistic(&self, protocol: &str, name: &str) -> u64 {
        // Of this thread, or it would be the namespace of the process's first one.
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        let text = self.enter(read).expect("procfs");
        let mut lines =
            text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(":"));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let mut found = names.split_whitespace().zip(values.split_whitespace());
        let (_, value) = found.find(|(found, _)| *found == name).expect("the name");
        value.parse().expect("a number")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its interfaces go with it, and their peers in the other one.
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("a network namespace is left behind: {error}");
        }
    }
}

/// Runs a command that prints nothing unless it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
