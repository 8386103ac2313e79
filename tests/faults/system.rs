//! What `/proc` tells of processes and connections.

use std::path::Path;

use rustix::process::Signal;

use super::common::server::wait_until;

/// The field of `/proc/PID/status`, proc_pid_status(5).
fn status(pid: u32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Waits until a process is in this state, such as `T` for stopped.
pub fn wait_for_state(pid: u32, state: char) {
    wait_until("the state of a process", || {
        status(pid, "State").is_some_and(|found| found.starts_with(state))
    });
}

/// Waits until a process has this signal before it.
pub fn wait_for_pending(pid: u32, signal: Signal) {
    let bit = 1 << (signal.as_raw() - 1);
    wait_until("a pending signal", || {
        let pending = status(pid, "ShdPnd").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        pending.is_some_and(|mask| mask & bit != 0)
    });
}

/// Ended, waited for or not.
pub fn is_gone(pid: u32) -> bool {
    status(pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Connections to a port of 127.0.0.1 whose handshake of TCP is complete, seen from the server's
/// side (proc_net(5)); those that wait to be accepted are among them.
pub fn established_connections(port: u16) -> usize {
    let table = std::fs::read_to_string(Path::new("/proc/self/net/tcp")).expect("the table");
    let local = format!("0100007F:{port:04X}");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("01")
    };
    table.lines().filter(is_one).count()
}
