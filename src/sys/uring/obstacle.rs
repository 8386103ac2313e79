//! Why a ring cannot be had.

use std::io;

use io_uring::{Parameters, Probe, opcode};

/// Why a ring cannot be had. Each is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// By the administrator: 1 for all but the privileged, 2 for everybody.
    #[error("io_uring is switched off on this host (kernel.io_uring_disabled = {0})")]
    Disabled(u8),
    /// `EPERM` or `EACCES`, and not by the switch.
    #[error("io_uring is forbidden here, by a container's seccomp filter or a security module")]
    Forbidden,
    /// `ENOSYS`.
    #[error("this kernel has no io_uring, or a container hides it")]
    Absent,
    /// The kernel is older than the port needs.
    #[error("this kernel's io_uring lacks {0}")]
    Lacks(&'static str),
    /// `ENOMEM`, which also stands for the limit.
    #[error("io_uring may not lock the memory that it needs (ulimit -l)")]
    LockedMemory,
    /// Anything else.
    #[error("io_uring cannot be set up, {step} fails: {error}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Obstacle {
    /// Why `io_uring_setup` failed.
    pub(super) fn of_setup(error: io::Error) -> Self {
        let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        Self::explain(error, switch.ok().and_then(|value| value.trim().parse().ok()))
    }

    /// `switch` is `kernel.io_uring_disabled`, where it can be read.
    fn explain(error: io::Error, switch: Option<u8>) -> Self {
        match (error.raw_os_error(), switch) {
            (Some(libc::EPERM), Some(value)) if value > 0 => Self::Disabled(value),
            (Some(libc::EPERM | libc::EACCES), _) => Self::Forbidden,
            (Some(libc::ENOSYS), _) => Self::Absent,
            // "EINVAL: the flags [...] are invalid": the newest of those in use came with 6.1.
            (Some(libc::EINVAL), _) => Self::Lacks("DEFER_TASKRUN, which Linux 6.1 has"),
            _ => Self::of_step("io_uring_setup")(error),
        }
    }

    /// Why a later step failed.
    pub(super) fn of_step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.raw_os_error() {
            Some(libc::ENOMEM) => Self::LockedMemory,
            _ => Self::Failed { step, error },
        }
    }
}

/// What a kernel's ring can do, of what the port needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) wait_with_timeout: bool,
    pub(super) skip_success: bool,
    pub(super) no_drop: bool,
    pub(super) recvmsg: bool,
    pub(super) sendmsg: bool,
    pub(super) poll: bool,
}

impl Abilities {
    pub(super) fn new(parameters: &Parameters, probe: &Probe) -> Self {
        Self {
            wait_with_timeout: parameters.is_feature_ext_arg(),
            skip_success: parameters.is_feature_skip_cqe_on_success(),
            no_drop: parameters.is_feature_nodrop(),
            recvmsg: probe.is_supported(opcode::RecvMsgMulti::CODE),
            sendmsg: probe.is_supported(opcode::SendMsg::CODE),
            poll: probe.is_supported(opcode::PollAdd::CODE),
        }
    }

    /// The first thing that the port cannot do without and the kernel has not.
    pub(super) fn missing(self) -> Option<&'static str> {
        [
            (self.no_drop, "FEAT_NODROP, which Linux 5.5 has"),
            (self.wait_with_timeout, "FEAT_EXT_ARG, which Linux 5.11 has"),
            (self.skip_success, "FEAT_CQE_SKIP, which Linux 5.17 has"),
            (self.recvmsg, "the operation RECVMSG"),
            (self.sendmsg, "the operation SENDMSG"),
            (self.poll, "the operation POLL_ADD"),
        ]
        .into_iter()
        .find_map(|(is_there, name)| (!is_there).then_some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, switch: Option<u8>) -> String {
        Obstacle::explain(io::Error::from_raw_os_error(errno), switch).to_string()
    }

    #[test]
    fn a_refusal_is_explained_by_its_cause() {
        assert!(explained(libc::EPERM, Some(2)).contains("kernel.io_uring_disabled = 2"));
        assert!(explained(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(explained(libc::EPERM, None).contains("seccomp"));
        assert!(explained(libc::EACCES, Some(0)).contains("security module"));
        assert!(explained(libc::ENOSYS, None).contains("no io_uring"));
        assert!(explained(libc::EINVAL, Some(0)).contains("Linux 6.1"));
        assert!(explained(libc::ENOMEM, Some(0)).contains("ulimit -l"));
        assert!(explained(libc::EMFILE, Some(0)).contains("io_uring_setup fails: Too many open"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = Abilities {
            wait_with_timeout: true,
            skip_success: true,
            no_drop: true,
            recvmsg: true,
            sendmsg: true,
            poll: true,
        };
        assert_eq!(all.missing(), None);
        let old = Abilities { wait_with_timeout: false, skip_success: false, ..all };
        assert_eq!(old.missing(), Some("FEAT_EXT_ARG, which Linux 5.11 has"));
        let without_sockets = Abilities { recvmsg: false, sendmsg: false, ..all };
        assert_eq!(without_sockets.missing(), Some("the operation RECVMSG"));
    }
}
