//! What there is to know about this host, and about a server that runs on it.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::record::Tally;

/// Facts without which figures mean little.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the first processor.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Load averages of 1, 5 and 15 minutes (proc_loadavg(5)): what else runs here.
    pub load_average: String,
}

impl Host {
    /// As it is now.
    pub fn look() -> Self {
        let first_line = |path: &str, prefix: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
            line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let load = first_line("/proc/loadavg", "");
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: first_line("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// Totals of a server's process on this host, or differences of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUse {
    /// CPU time of all threads of the process and its descendants (schedstat), in nanoseconds.
    /// Threads that have ended are not in it.
    pub cpu_ns: u64,
    /// Datagrams that the kernel dropped at sockets of its network namespace (`RcvbufErrors`).
    pub socket_drops: u64,
}

impl ServerUse {
    /// Of the process with this identifier; `None` if there is none, or it may not be looked at.
    pub fn of(pid: u32) -> Option<Self> {
        let mut cpu_ns = 0;
        for process in family(pid) {
            // A thread may end between the list and the look.
            cpu_ns += cpu_ns_of(process).unwrap_or(0);
        }
        let socket_drops = udp_drops(pid, "snmp", "Udp:")? + udp6_drops(pid);
        Some(Self { cpu_ns, socket_drops })
    }

    /// CPU time per answer, of any kind; `None` if there were none.
    pub fn ns_per_answer(&self, tally: &Tally) -> Option<f64> {
        let answers = tally.answered + tally.late + tally.nak + tally.kisses();
        (answers > 0).then(|| self.cpu_ns as f64 / answers as f64)
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            socket_drops: self.socket_drops.saturating_sub(before.socket_drops),
        }
    }
}

/// A process and all its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut index = 0;
    while let Some(&pid) = family.get(index) {
        index += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    family
}

/// The first number of each thread's schedstat is its time on a processor.
fn cpu_ns_of(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    }
    Some(sum)
}

/// The pair of lines "Udp: names" and "Udp: numbers" (proc_pid_net(5), RFC 4113).
fn udp_drops(pid: u32, file: &str, prefix: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/{file}")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut found = names.split_whitespace().zip(values.split_whitespace());
    found.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok())
}

/// Of IPv6 the kernel writes one number a line.
fn udp6_drops(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/net/snmp6")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_this_process_grows_and_no_process_is_none() {
        let pid = std::process::id();
        let before = ServerUse::of(pid).expect("this process");
        let mut after = before;
        // Work until the kernel has accounted for it, at every tick, and for more than the threads
        // of other tests took along when they ended.
        while after.cpu_ns <= before.cpu_ns {
            after = ServerUse::of(pid).expect("this process");
        }
        assert!(after.since(&before).cpu_ns > 0);
        assert_eq!(ServerUse::of(u32::MAX), None);
    }

    #[test]
    fn the_host_is_known() {
        let host = Host::look();
        assert!(!host.kernel.is_empty() && host.processors > 0);
        assert_eq!(host.load_average.split(' ').count(), 3);
    }
}
