//! Interfaces, addresses, interrupts and ports, as /proc and /sys have them (proc_net(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::facts::Host;

/// The interfaces that requests come in by: `only`, or those that are hardware.
pub fn interfaces(host: &Host, only: Option<&str>) -> Vec<String> {
    match only {
        Some(name) => vec![name.to_owned()],
        None => {
            let mut names = host.names("/sys/class/net");
            names.retain(|name| host.has(&format!("/sys/class/net/{name}/device")));
            names
        }
    }
}

/// How many receive queues an interface has.
pub fn receive_queues(host: &Host, interface: &str) -> usize {
    let names = host.names(&format!("/sys/class/net/{interface}/queues"));
    names.iter().filter(|name| name.starts_with("rx-")).count()
}

/// The numbers of an interface's interrupts; none where its bus does not say.
pub fn interrupts(host: &Host, interface: &str) -> Vec<String> {
    let device = format!("/sys/class/net/{interface}/device");
    // Those of a virtio device are its parent's, the PCI device.
    let places = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let found = places.iter().map(|place| host.names(place)).find(|names| !names.is_empty());
    let mut numbers = found.unwrap_or_default();
    numbers.sort_by_key(|number| number.parse::<u32>().unwrap_or(u32::MAX));
    numbers
}

/// The addresses of this host; none of a family that cannot be read.
pub fn addresses(host: &Host) -> Vec<IpAddr> {
    let v4 = host.read("/proc/net/fib_trie").unwrap_or_default();
    let mut found = Vec::new();
    let mut leaf = None;
    for line in v4.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok().map(IpAddr::from);
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(leaf);
        }
    }
    let v6 = host.read("/proc/net/if_inet6").unwrap_or_default();
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    found.extend(v6.lines().filter_map(address).map(|bits| IpAddr::from(Ipv6Addr::from(bits))));
    found.sort();
    found.dedup();
    found
}

/// A protocol of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// NTP's.
    Udp,
    /// Key establishment's, and the observer's.
    Tcp,
}

impl Protocol {
    /// In lower case, as addresses are shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process and name; none if this process may not know.
    pub process: Option<(u32, String)>,
}

/// Who receives what is sent to `address`, as far as sockets are concerned; several if several
/// processes share a socket, none if it is free.
pub fn holders(host: &Host, protocol: Protocol, address: SocketAddr) -> Vec<Holder> {
    let links = sockets(host, protocol, address);
    if links.is_empty() {
        return Vec::new();
    }
    let mut holders: Vec<Holder> = Vec::new();
    for pid in host.names("/proc").iter().filter_map(|name| name.parse::<u32>().ok()) {
        let Ok(descriptors) = fs::read_dir(host.path(&format!("/proc/{pid}/fd"))) else {
            continue;
        };
        let has_one =
            descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|target| {
                target.to_str().is_some_and(|target| links.iter().any(|it| it == target))
            });
        if has_one {
            holders.push(Holder { process: Some((pid, program(host, pid))) });
        }
    }
    if holders.is_empty() { vec![Holder { process: None }] } else { holders }
}

/// The name of a process's program. What the kernel calls the process is cut off, and "exe" for a
/// role of timeball, which is started by that name.
fn program(host: &Host, pid: u32) -> String {
    let file = fs::read_link(host.path(&format!("/proc/{pid}/exe"))).ok();
    let name = file.as_deref().and_then(|file| file.file_name()?.to_str());
    match name {
        // As after an upgrade.
        Some(name) => name.trim_end_matches(" (deleted)").to_owned(),
        None => host.read(&format!("/proc/{pid}/comm")).unwrap_or_default(),
    }
}

/// The sockets that get what is for `address`, as descriptors link to them.
fn sockets(host: &Host, protocol: Protocol, address: SocketAddr) -> Vec<String> {
    let suffix = if address.is_ipv6() { "6" } else { "" };
    let name = protocol.name();
    let table = host.read(&format!("/proc/net/{name}{suffix}")).unwrap_or_default();
    let listening = match protocol {
        // A UDP socket that is not connected: TCP_CLOSE in the kernel's words.
        Protocol::Udp => "07",
        Protocol::Tcp => "0A",
    };
    let meets = |local: SocketAddr| {
        local.port() == address.port()
            && (local.ip() == address.ip()
                || local.ip().is_unspecified()
                || address.ip().is_unspecified())
    };
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state) = (socket_address(fields.get(1)?)?, *fields.get(3)?);
        let inode = fields.get(9)?;
        (state == listening && meets(local)).then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// `0100007F:007B`: words of the machine's own order.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |place: usize| -> Option<[u8; 4]> {
        let digits = ip.get(place * 8..(place + 1) * 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::facts::tests::{host, put, root};
    use super::*;

    #[test]
    fn addresses_are_those_of_the_kernels_tables() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.0\n        /8 host LOCAL\n     \
                    |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
                    /32 link BROADCAST\n";
        let v6 = "fd000000000000000000000000000002 04 40 00 82     eth0\n";
        let root = root(&[("/proc/net/fib_trie", trie), ("/proc/net/if_inet6", v6)], &[]);
        let expected: [IpAddr; 2] = [IpAddr::from([192, 0, 2, 2]), "fd00::2".parse().expect("ok")];
        assert_eq!(addresses(&host(&root)), expected);
    }

    #[test]
    fn interfaces_are_hardware_unless_one_is_named() {
        let root = root(
            &[
                ("/sys/class/net/eth0/device/vendor", ""),
                ("/sys/class/net/eth0/queues/rx-0/x", ""),
                ("/sys/class/net/eth0/queues/rx-1/x", ""),
                ("/sys/class/net/eth0/queues/tx-0/x", ""),
                ("/sys/class/net/eth0/msi_irqs/100", ""),
                ("/sys/class/net/eth0/msi_irqs/38", ""),
                ("/sys/class/net/lo/mtu", "65536"),
            ],
            &[],
        );
        let host = host(&root);
        assert_eq!(interfaces(&host, None), ["eth0"]);
        assert_eq!(interfaces(&host, Some("veth7")), ["veth7"]);
        assert_eq!(receive_queues(&host, "eth0"), 2);
        assert_eq!(interrupts(&host, "eth0"), ["38", "100"]);
    }

    #[test]
    fn the_holder_of_a_port_is_found() {
        let line = |local: &str, state: &str, inode: u32| {
            format!("   1: {local} 00000000:0000 {state} 0:0 00:0 0 0 0 {inode} 2 0 0\n")
        };
        let udp = format!(
            "  sl  local_address\n{}{}",
            line("0100007F:007B", "07", 11),
            line("0100007F:2B73", "01", 12)
        );
        let udp6 = format!("  sl\n{}", line("00000000000000000000000001000000:007B", "07", 13));
        let root = root(
            &[
                ("/proc/net/udp", &udp),
                ("/proc/net/udp6", &udp6),
                ("/proc/42/comm", "chronyd\n"),
                ("/proc/42/fd/.keep", ""),
                ("/proc/version", "Linux"),
            ],
            &[],
        );
        symlink("socket:[11]", root.path().join("proc/42/fd/5")).expect("made");
        put(root.path(), "/proc/43/comm", "other");
        let host = host(&root);
        let held = |address: &str| holders(&host, Protocol::Udp, address.parse().expect("good"));
        let chronyd = [Holder { process: Some((42, "chronyd".to_owned())) }];
        assert_eq!(held("127.0.0.1:123"), chronyd);
        assert_eq!(held("0.0.0.0:123"), chronyd);
        assert_eq!(held("192.0.2.1:123"), []);
        // Connected: a client's socket.
        assert_eq!(held("127.0.0.1:11123"), []);
        assert_eq!(held("[::1]:123"), [Holder { process: None }]);
        symlink("/usr/sbin/timeball (deleted)", root.path().join("proc/42/exe")).expect("made");
        let timeball = Holder { process: Some((42, "timeball".to_owned())) };
        assert_eq!(held("127.0.0.1:123"), [timeball]);
    }
}
