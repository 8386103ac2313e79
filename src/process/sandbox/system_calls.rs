//! The system calls that each role may make once it serves: observed with strace over every
//! feature and both socket ports, then read against the code. Any other call ends the process
//! (SIGSYS), and the supervisor starts the role again.
//!
//! Calls that are made for every batch have no condition on their arguments: the kernel keeps
//! those in a bitmap and runs no filter for them (since Linux 5.11).

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use rustix::process::getpid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::sys::phc::Method;

/// A system call that a role may make.
#[derive(Clone, Copy, Debug)]
pub struct SystemCall {
    /// Its name in the manual.
    pub name: &'static str,
    number: c_long,
    arguments: Arguments,
    /// What it is needed for.
    pub reason: &'static str,
}

/// Which arguments are allowed.
#[derive(Clone, Copy, Debug)]
enum Arguments {
    Any,
    /// mmap(2), mprotect(2): nothing that could be run as code.
    NotExecutable,
    /// kill(2), tgkill(2): this process.
    OwnProcess,
    /// fcntl(2): F_GETFD and F_GET_SEALS, which only ask.
    Inquiry,
    /// ioctl(2): PTP_SYS_OFFSET, PTP_SYS_OFFSET_EXTENDED and PTP_SYS_OFFSET_PRECISE, which read.
    ReadClock,
}

/// An entry by the name of its constant, `SYS_…`.
macro_rules! allow {
    ($number:ident, $reason:literal) => {
        allow!($number, Any, $reason)
    };
    ($number:ident, $arguments:ident, $reason:literal) => {
        SystemCall {
            name: stringify!($number),
            number: libc::$number,
            arguments: Arguments::$arguments,
            reason: $reason,
        }
    };
}

/// What every role needs.
pub const COMMON: &[SystemCall] = &[
    allow!(SYS_recvmsg, "orders of the supervisor"),
    allow!(SYS_sendto, "reports to the supervisor; answers over TLS"),
    allow!(SYS_read, "the text of an order; the pipe of the signal handlers"),
    allow!(SYS_lseek, "File::read_to_end: how much of an order is left"),
    allow!(SYS_statx, "File::read_to_end: how long an order is; whether a log is new"),
    allow!(SYS_fstat, "the same, where a container hides statx"),
    allow!(SYS_newfstatat, "the same: what glibc makes of it"),
    allow!(SYS_write, "wakes by signal handlers; a panic's message; lines of logs"),
    allow!(SYS_writev, "handshakes of TLS; what glibc says before it aborts"),
    allow!(SYS_close, "orders that were read; what is open at the end"),
    allow!(SYS_fcntl, Inquiry, "the seals of new access lists; std's check of what it closes"),
    allow!(SYS_ppoll, "waiting, for at most a time"),
    #[cfg(target_arch = "x86_64")]
    allow!(SYS_poll, "waiting, for ever"),
    allow!(SYS_futex, "locks and channels between threads, joins"),
    allow!(SYS_sched_yield, "the allocator, when threads meet in it"),
    allow!(SYS_clock_gettime, "time, where the vDSO has to ask the kernel"),
    allow!(SYS_getrandom, "seeds, of nonces and of the TLS library"),
    allow!(SYS_mmap, NotExecutable, "allocators; new access lists"),
    allow!(SYS_mprotect, NotExecutable, "malloc's heaps of threads, which grow so"),
    allow!(SYS_mremap, "realloc of what is large"),
    allow!(SYS_munmap, "allocators; pages and stacks at the end"),
    allow!(SYS_madvise, "allocators; stacks at the end; random state that forks must not share"),
    allow!(SYS_brk, "malloc of the C code in the TLS library"),
    #[cfg(target_arch = "x86_64")]
    allow!(SYS_access, "the allocator counts memory nodes in /sys, once"),
    #[cfg(target_arch = "aarch64")]
    allow!(SYS_faccessat, "the allocator counts memory nodes in /sys, once"),
    allow!(SYS_getcpu, "the allocator, where there are several memory nodes"),
    allow!(SYS_rt_sigreturn, "the end of a signal handler"),
    allow!(SYS_restart_syscall, "a wait that a stopped process goes on with"),
    allow!(SYS_rt_sigprocmask, "the end of a thread; abort"),
    allow!(SYS_rt_sigaction, "abort"),
    allow!(SYS_sigaltstack, "the end of a thread"),
    allow!(SYS_getpid, "abort; a signal to itself"),
    allow!(SYS_gettid, "abort; a thread's name in a panic's message"),
    allow!(SYS_tgkill, OwnProcess, "abort"),
    allow!(SYS_kill, OwnProcess, "a role whose supervisor is gone ends itself"),
    allow!(SYS_exit, "the end of a thread"),
    allow!(SYS_exit_group, "the end"),
];

/// What the responder needs beside [`COMMON`].
pub const RESPONDER: &[SystemCall] = &[
    allow!(SYS_recvmmsg, "requests, port mmsg"),
    allow!(SYS_sendmmsg, "replies, port mmsg"),
    allow!(SYS_io_uring_enter, "both, port uring; rings are restricted before"),
];

/// What the clock role needs beside [`COMMON`].
pub const CLOCK: &[SystemCall] = &[
    allow!(SYS_adjtimex, "the kernel's account of its clock; setting it takes a capability"),
    allow!(SYS_clock_adjtime, "the same: glibc's adjtimex"),
    allow!(SYS_recvfrom, "what a followed daemon says"),
    allow!(SYS_ioctl, ReadClock, "what the clock of an interface shows"),
];

/// What key establishment needs beside [`COMMON`].
pub const KEY_ESTABLISHMENT: &[SystemCall] = &[
    #[cfg(target_arch = "x86_64")]
    allow!(SYS_epoll_wait, "waiting for connections"),
    allow!(SYS_epoll_pwait, "the same: what libraries make of it"),
    allow!(SYS_epoll_ctl, "a connection that begins or ends"),
    allow!(SYS_accept4, "a connection"),
    allow!(SYS_setsockopt, "a connection that is refused: SO_LINGER"),
    allow!(SYS_getsockname, "which address was asked, of a listener on all"),
    allow!(SYS_getsockopt, "why a connection ended"),
    allow!(SYS_recvfrom, "what a client says"),
    allow!(SYS_shutdown, "the end of an answer"),
];

/// What the observer needs beside [`COMMON`].
pub const OBSERVER: &[SystemCall] = &[
    #[cfg(target_arch = "x86_64")]
    allow!(SYS_epoll_wait, "waiting for connections"),
    allow!(SYS_epoll_pwait, "the same: what libraries make of it"),
    allow!(SYS_epoll_ctl, "a connection that begins or ends"),
    allow!(SYS_accept4, "a connection"),
    allow!(SYS_recvfrom, "what a client says"),
    allow!(SYS_shutdown, "the end of a connection"),
];

/// The filter of a role that has `own` calls. For this process only: its identifier is in it.
pub(super) fn filter(own: &[SystemCall]) -> io::Result<BpfProgram> {
    let mut rules = BTreeMap::new();
    for call in COMMON.iter().chain(own) {
        let conditions = call.arguments.rule().map_err(io::Error::other)?;
        rules.insert(call.number, conditions);
    }
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let otherwise = SeccompAction::KillProcess;
    let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, architecture);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

impl Arguments {
    /// No rule at all allows every argument.
    fn rule(self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        use SeccompCmpArgLen::Dword;
        use SeccompCmpOp::{Eq, MaskedEq};
        let (argument, operator, values) = match self {
            Self::Any => return Ok(Vec::new()),
            Self::NotExecutable => (2, MaskedEq(libc::PROT_EXEC as u64), vec![0]),
            Self::OwnProcess => (0, Eq, vec![getpid().as_raw_nonzero().get() as u64]),
            Self::Inquiry => (1, Eq, vec![libc::F_GETFD as u64, libc::F_GET_SEALS as u64]),
            Self::ReadClock => (1, Eq, Method::REQUESTS.map(u64::from).to_vec()),
        };
        let rule = |value| {
            let condition = SeccompCondition::new(argument, Dword, operator.clone(), value)?;
            SeccompRule::new(vec![condition])
        };
        values.into_iter().map(rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_named_once_in_a_role() {
        for own in [CLOCK, RESPONDER, KEY_ESTABLISHMENT, OBSERVER] {
            let mut numbers: Vec<_> = COMMON.iter().chain(own).map(|call| call.number).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all);
            assert!(!filter(own).expect("a program").is_empty());
        }
    }
}
