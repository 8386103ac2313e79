//! Reading an interface's clock beside the host's (`linux/ptp_clock.h`, the kernel's `ptp.rst`).
#![allow(unsafe_code, reason = "no crate in use wraps these requests; one block, read only")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use arrayvec::ArrayVec;

use crate::clock::hardware::{Anchor, Reading};
use crate::limits::hardware::HARDWARE_SAMPLES;

/// The readings of one look.
pub type Look = ArrayVec<Reading, HARDWARE_SAMPLES>;

/// How a clock is read, the best way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By hardware, both clocks at one moment (`PTP_SYS_OFFSET_PRECISE`).
    Precise,
    /// Between two looks at `CLOCK_MONOTONIC_RAW` (`PTP_SYS_OFFSET_EXTENDED` since Linux 6.12).
    Monotonic,
    /// Between two looks at `CLOCK_REALTIME` (the same, since Linux 5.0).
    Extended,
    /// The same, with the driver's whole way around the register (`PTP_SYS_OFFSET`).
    Plain,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Precise, Self::Monotonic, Self::Extended, Self::Plain];

    /// The requests that are made, for a filter of system calls.
    pub const REQUESTS: [libc::c_ulong; 3] = [
        libc::PTP_SYS_OFFSET_PRECISE as libc::c_ulong,
        libc::PTP_SYS_OFFSET_EXTENDED as libc::c_ulong,
        libc::PTP_SYS_OFFSET as libc::c_ulong,
    ];
}

/// Reads `device`, `/dev/ptpN`. `anchor` says where the host's clocks stood just before.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` and `EINVAL` if it, or the driver, has no such method.
pub fn read(device: &impl AsFd, method: Method, anchor: &Anchor) -> io::Result<Look> {
    match method {
        Method::Precise => {
            let mut offset = zeroed_precise();
            exchange(device, libc::PTP_SYS_OFFSET_PRECISE as _, &mut offset)?;
            let moment = nanoseconds(&offset.sys_monoraw);
            Ok(Look::from_iter([Reading::between(nanoseconds(&offset.device), moment, moment)]))
        }
        Method::Monotonic | Method::Extended => {
            let clock = match method {
                Method::Monotonic => libc::CLOCK_MONOTONIC_RAW,
                // 0, which stood in a reserved place before Linux 6.12.
                _ => libc::CLOCK_REALTIME,
            };
            let mut offset = libc::ptp_sys_offset_extended {
                n_samples: HARDWARE_SAMPLES as u32,
                clockid: clock,
                rsv: [0; 2],
                ts: [[ZERO; 3]; libc::PTP_MAX_SAMPLES as usize],
            };
            exchange(device, libc::PTP_SYS_OFFSET_EXTENDED as _, &mut offset)?;
            Ok(extended(&offset, method, anchor))
        }
        Method::Plain => {
            let mut offset = libc::ptp_sys_offset {
                n_samples: HARDWARE_SAMPLES as u32,
                rsv: [0; 3],
                ts: [ZERO; 2 * libc::PTP_MAX_SAMPLES as usize + 1],
            };
            exchange(device, libc::PTP_SYS_OFFSET as _, &mut offset)?;
            Ok(plain(&offset, anchor))
        }
    }
}

/// "Array of [system, phc, system] time stamps": as many as were asked for.
fn extended(offset: &libc::ptp_sys_offset_extended, method: Method, anchor: &Anchor) -> Look {
    let samples = offset.ts.iter().take(HARDWARE_SAMPLES);
    let samples = samples.map(|sample| sample.each_ref().map(nanoseconds));
    samples
        .map(|[before, phc, after]| match method {
            Method::Monotonic => Reading::between(phc, before, after),
            _ => Reading::between_system_times(phc, before, after, anchor),
        })
        .collect()
}

/// "Array of interleaved system/phc time stamps. The kernel will provide 2*n_samples + 1 time
/// stamps, with the last one as a system time stamp."
fn plain(offset: &libc::ptp_sys_offset, anchor: &Anchor) -> Look {
    let samples = offset.ts.windows(3).step_by(2).take(HARDWARE_SAMPLES);
    samples
        .filter_map(|sample| {
            let [before, phc, after] = sample.first_chunk()?.each_ref().map(nanoseconds);
            Some(Reading::between_system_times(phc, before, after, anchor))
        })
        .collect()
}

fn nanoseconds(time: &libc::ptp_clock_time) -> i64 {
    time.sec.wrapping_mul(1_000_000_000).wrapping_add(time.nsec.into())
}

const ZERO: libc::ptp_clock_time = libc::ptp_clock_time { sec: 0, nsec: 0, reserved: 0 };

fn zeroed_precise() -> libc::ptp_sys_offset_precise {
    libc::ptp_sys_offset_precise {
        device: ZERO,
        sys_realtime: ZERO,
        sys_monoraw: ZERO,
        rsv: [0; 4],
    }
}

/// Makes a request that reads and writes a `T`.
fn exchange<T>(device: &impl AsFd, request: libc::c_ulong, value: &mut T) -> io::Result<()> {
    // The size is a part of the number (`_IOC_SIZE`).
    assert_eq!((request >> 16) as usize & 0x3fff, size_of::<T>(), "the type of the request");
    // SAFETY: `value` is exclusively borrowed for the whole call, and the kernel reads and writes
    // as many bytes as the number of the request says, which are those of a `T`.
    let result =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), request as _, std::ptr::from_mut(value)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const ANCHOR: Anchor = Anchor { monotonic: 5_000_000_000, system: 1_800_000_000_000_000_000 };

    fn time(nanoseconds: i64) -> libc::ptp_clock_time {
        let nsec = nanoseconds.rem_euclid(1_000_000_000) as u32;
        libc::ptp_clock_time { sec: nanoseconds.div_euclid(1_000_000_000), nsec, reserved: 0 }
    }

    /// The requests fit their types on this machine, and no other device takes them.
    #[test]
    fn what_is_no_clock_is_an_error() {
        let device = File::open("/dev/null").expect("there");
        for method in Method::ALL {
            let error = read(&device, method, &ANCHOR).expect_err("no clock");
            assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "{method:?}");
        }
    }

    #[test]
    fn what_the_kernel_writes_is_read_by_either_clock() {
        let mut offset = libc::ptp_sys_offset_extended {
            n_samples: HARDWARE_SAMPLES as u32,
            clockid: libc::CLOCK_MONOTONIC_RAW,
            rsv: [0; 2],
            ts: [[ZERO; 3]; libc::PTP_MAX_SAMPLES as usize],
        };
        let first = Reading { phc: -1, monotonic: 5_000_001_000, delay_nanoseconds: 600 };
        for (base, method) in
            [(ANCHOR.monotonic, Method::Monotonic), (ANCHOR.system, Method::Extended)]
        {
            offset.ts[0] = [time(base + 700), time(-1), time(base + 1_300)];
            let look = extended(&offset, method, &ANCHOR);
            assert_eq!((look.len(), look[0]), (HARDWARE_SAMPLES, first), "{method:?}");
        }
        let mut offset = libc::ptp_sys_offset {
            n_samples: HARDWARE_SAMPLES as u32,
            rsv: [0; 3],
            ts: [ZERO; 2 * libc::PTP_MAX_SAMPLES as usize + 1],
        };
        let base = ANCHOR.system;
        offset.ts[..5].copy_from_slice(&[
            time(base + 700),
            time(-1),
            time(base + 1_300),
            time(2),
            time(base + 1_700),
        ]);
        let look = plain(&offset, &ANCHOR);
        let second = Reading { phc: 2, monotonic: 5_000_001_500, delay_nanoseconds: 400 };
        assert_eq!((look.len(), look[0], look[1]), (HARDWARE_SAMPLES, first, second));
    }
}
