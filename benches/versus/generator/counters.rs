//! What the kernel counted about the server: its namespace's datagrams, its threads' time, its
//! processor.

use std::fs;
use std::io;

/// Totals, or differences of totals.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Datagrams that the server's sockets gave out (`InDatagrams`).
    pub(crate) received: u64,
    /// Datagrams that the server sent (`OutDatagrams`).
    pub(crate) answered: u64,
    /// Datagrams dropped because the socket's queue was full (`RcvbufErrors`).
    pub(crate) queue_full: u64,
    /// Replies that the interface did not take (`SndbufErrors`).
    pub(crate) send_failed: u64,
    /// CPU time of the server's threads.
    pub(crate) server_ns: u64,
    /// How long they were ready and the processor ran something else.
    pub(crate) waited_ns: u64,
    /// CPU time of the processes beside it.
    pub(crate) beside_ns: u64,
    /// Idle time of the server's processor.
    pub(crate) idle_ns: u64,
    /// Its time in interrupts of the network stack that no thread is charged for.
    pub(crate) softirq_ns: u64,
    /// Its time that the hypervisor gave to others.
    pub(crate) steal_ns: u64,
}

/// `USER_HZ` is 100 on every Linux.
const TICK_NS: u64 = 10_000_000;

impl Counters {
    pub(crate) fn read(pid: u32, beside: &[u32], cpu: usize) -> io::Result<Self> {
        let udp = udp_counters(&fs::read_to_string(format!("/proc/{pid}/net/snmp"))?);
        let udp = |name: &str| udp.iter().find(|(known, _)| known == name).map_or(0, |pair| pair.1);
        let ticks = processor_ticks(&fs::read_to_string("/proc/stat")?, cpu);
        let mut beside_ns = 0;
        for pid in beside {
            beside_ns += schedule(*pid)?[0];
        }
        let [server_ns, waited_ns] = schedule(pid)?;
        Ok(Self {
            received: udp("InDatagrams"),
            answered: udp("OutDatagrams"),
            queue_full: udp("RcvbufErrors"),
            send_failed: udp("SndbufErrors"),
            server_ns,
            waited_ns,
            beside_ns,
            idle_ns: ticks[3] * TICK_NS,
            softirq_ns: ticks[6] * TICK_NS,
            steal_ns: ticks[7] * TICK_NS,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            received: self.received - before.received,
            answered: self.answered - before.answered,
            queue_full: self.queue_full - before.queue_full,
            send_failed: self.send_failed - before.send_failed,
            server_ns: self.server_ns - before.server_ns,
            waited_ns: self.waited_ns - before.waited_ns,
            beside_ns: self.beside_ns - before.beside_ns,
            idle_ns: self.idle_ns.saturating_sub(before.idle_ns),
            softirq_ns: self.softirq_ns.saturating_sub(before.softirq_ns),
            steal_ns: self.steal_ns.saturating_sub(before.steal_ns),
        }
    }
}

/// The pair of lines "Udp: names" and "Udp: numbers" of proc_net_snmp.
fn udp_counters(snmp: &str) -> Vec<(String, u64)> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let numbers = lines.next().unwrap_or_default().split(' ');
    names.map(str::to_owned).zip(numbers.map(|number| number.parse().unwrap_or(0))).collect()
}

/// How long all threads of a process ran, and how long they were ready but did not run: the first
/// two numbers of each schedstat.
fn schedule(pid: u32) -> io::Result<[u64; 2]> {
    let mut sums = [0; 2];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        for (sum, number) in sums.iter_mut().zip(text.split(' ')) {
            *sum += number.parse().unwrap_or(0);
        }
    }
    Ok(sums)
}

/// user, nice, system, idle, iowait, irq, softirq, steal of one processor (proc_stat(5)).
fn processor_ticks(stat: &str, cpu: usize) -> [u64; 8] {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let mut ticks = [0; 8];
    for (place, word) in ticks.iter_mut().zip(line.split_whitespace()) {
        *place = word.parse().unwrap_or(0);
    }
    ticks
}
