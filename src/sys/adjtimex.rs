//! The kernel's account of its clock, read only (`adjtimex(2)`).
#![allow(unsafe_code, reason = "no crate in use wraps this call; one block, read only")]

use std::io;
use std::time::Duration;

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelClock {
    /// A time daemon keeps it: `STA_UNSYNC` is off and the return value is not `TIME_ERROR`.
    pub synchronised: bool,
    /// Leap second ahead or under way.
    pub leap: LeapStatus,
    /// Error bound: `maxerror`.
    pub error_bound: Duration,
}

/// State of the kernel's leap second machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeapStatus {
    /// None announced.
    None,
    /// One will be inserted at the end of the day (`STA_INS`).
    Insert,
    /// One will be left out at the end of the day (`STA_DEL`).
    Delete,
    /// The inserted second is now (`TIME_OOP`).
    InProgress,
}

/// Reads the kernel's clock parameters. Never writes: `modes` is zero.
pub fn read() -> io::Result<KernelClock> {
    // SAFETY: `timex` is plain integers, for which all zero bytes are a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // "if modes is zero, then the current parameters are retrieved" (adjtimex(2)).
    timex.modes = 0;
    // SAFETY: the pointer is to a `timex` that lives on this stack frame for the whole call.
    let clock_state = unsafe { libc::adjtimex(&raw mut timex) };
    if clock_state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(interpret(clock_state, timex.status, timex.maxerror))
}

fn interpret(clock_state: libc::c_int, status: libc::c_int, maxerror_us: i64) -> KernelClock {
    let leap = match clock_state {
        libc::TIME_OOP => LeapStatus::InProgress,
        // The leap is done; the daemon has not yet taken its announcement back.
        libc::TIME_WAIT => LeapStatus::None,
        _ if status & libc::STA_INS != 0 => LeapStatus::Insert,
        _ if status & libc::STA_DEL != 0 => LeapStatus::Delete,
        _ => LeapStatus::None,
    };
    KernelClock {
        synchronised: status & libc::STA_UNSYNC == 0 && clock_state != libc::TIME_ERROR,
        leap,
        error_bound: Duration::from_micros(maxerror_us.max(0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        read().expect("adjtimex with modes 0 needs no privilege");
    }

    #[test]
    fn unsynchronised_is_either_flag() {
        assert!(interpret(libc::TIME_OK, 0, 5).synchronised);
        assert!(!interpret(libc::TIME_OK, libc::STA_UNSYNC, 5).synchronised);
        assert!(!interpret(libc::TIME_ERROR, 0, 5).synchronised);
        assert_eq!(interpret(libc::TIME_OK, 0, -1).error_bound, Duration::ZERO);
    }

    #[test]
    fn leap_states() {
        assert_eq!(interpret(libc::TIME_INS, libc::STA_INS, 0).leap, LeapStatus::Insert);
        assert_eq!(interpret(libc::TIME_DEL, libc::STA_DEL, 0).leap, LeapStatus::Delete);
        assert_eq!(interpret(libc::TIME_OOP, libc::STA_INS, 0).leap, LeapStatus::InProgress);
        assert_eq!(interpret(libc::TIME_WAIT, libc::STA_INS, 0).leap, LeapStatus::None);
    }
}
