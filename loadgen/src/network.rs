//! Whether hostile traffic may go to a target: loopback, a lab's network namespace, or on the
//! operator's own word.
//!
//! A lab's namespace is one that is not the host's (another `/proc/self/ns/net` than that of
//! process 1) and has no default route in either IP version: nothing beyond the networks that
//! somebody laid into it can be reached.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Hostile traffic is not for this target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "hostile requests go to loopback only, or from a network namespace without a default route; \
     {0} is neither: if the network is yours, say --i-own-this-network"
)]
pub struct NotOurs(IpAddr);

/// Refuses a target that is not for hostile traffic.
pub fn check(target: IpAddr, is_owned: bool) -> Result<(), NotOurs> {
    let is_ours = is_owned || target.to_canonical().is_loopback() || is_lab(Path::new("/proc"));
    if is_ours { Ok(()) } else { Err(NotOurs(target)) }
}

/// What cannot be read is no lab.
fn is_lab(proc: &Path) -> bool {
    let namespace = |process: &str| fs::read_link(proc.join(process).join("ns/net")).ok();
    let (Some(ours), Some(hosts)) = (namespace("self"), namespace("1")) else { return false };
    let read = |file: &str| fs::read_to_string(proc.join("self/net").join(file)).ok();
    ours != hosts
        && read("route").is_some_and(|table| !has_default_v4(&table))
        && read("ipv6_route").is_none_or(|table| !has_default_v6(&table))
}

/// proc_net_route: interface, destination, gateway, flags, …, mask, hexadecimal.
fn has_default_v4(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
    })
}

/// Destination, its length, …, interface. The kernel keeps an entry on `lo` that rejects.
fn has_default_v6(table: &str) -> bool {
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"00")
            && words.first().is_some_and(|word| word.bytes().all(|byte| byte == b'0'))
            && words.last() != Some(&"lo")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";
    const NET: &str = "veth\t0000C80A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";
    const DEFAULT: &str = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n";

    fn proc(ours: &str, v4: &str, v6: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().expect("a directory");
        for (process, namespace) in [("self", ours), ("1", "net:[1]")] {
            let directory = proc.path().join(process).join("ns");
            fs::create_dir_all(&directory).expect("ours");
            symlink(namespace, directory.join("net")).expect("ours");
        }
        let net = proc.path().join("self/net");
        fs::create_dir_all(&net).expect("ours");
        fs::write(net.join("route"), v4).expect("ours");
        fs::write(net.join("ipv6_route"), v6).expect("ours");
        proc
    }

    #[test]
    fn a_lab_is_a_namespace_of_its_own_without_a_way_out() {
        let zeros = "0".repeat(32);
        let rejects =
            format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n");
        let leaves = rejects.replace(" lo", " eth0");
        let (lab, way_out) = ([HEAD, NET].concat(), [HEAD, NET, DEFAULT].concat());
        assert!(is_lab(proc("net:[2]", &lab, &rejects).path()));
        assert!(!is_lab(proc("net:[1]", &lab, &rejects).path()), "the host's");
        assert!(!is_lab(proc("net:[2]", &way_out, &rejects).path()));
        assert!(!is_lab(proc("net:[2]", &lab, &leaves).path()));
        assert!(!is_lab(tempfile::tempdir().expect("a directory").path()), "unreadable");
    }

    #[test]
    fn loopback_and_the_owners_word_pass() {
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(loopback.parse().expect("an address"), false), Ok(()));
        }
        let other = "192.0.2.1".parse().expect("an address");
        assert_eq!(check(other, true), Ok(()));
        // The tests do not run in a lab.
        let error = check(other, false).expect_err("another's");
        assert!(error.to_string().contains("--i-own-this-network"), "{error}");
    }
}
