//! The clock of this host: read from the kernel, judged by the kernel or by declaration.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{Clock, ClockState};
use crate::limits::{
    CLOCK_LOOK_INTERVAL, KERNEL_DISPERSION_RATE, LOCAL_DISPERSION_RATE, PRECISION_READINGS,
};
use crate::sys::adjtimex::{self, KernelClock, LeapStatus};
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// Who answers for the quality of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel: `adjtimex` says whether a time daemon keeps the clock and how well.
    Kernel,
    /// The operator: the clock is served as it is, at a declared stratum. For closed networks
    /// and tests.
    Local,
}

/// Reference identifier of `local` mode, the one chrony's `local` has: clients that follow it can
/// tell an undisciplined clock.
const LOCAL_REFERENCE_ID: ReferenceId = ReferenceId([127, 127, 1, 1]);

/// Reference identifier of `kernel` mode. The kernel does not know whom its daemon follows, so
/// this says no more than "a reference clock of this host".
const KERNEL_REFERENCE_ID: ReferenceId = ReferenceId([127, 127, 1, 0]);

/// The host's clock, looked at anew once a second.
#[derive(Debug)]
pub struct HostClock {
    source: Source,
    stratum: u8,
    precision: i8,
    state: ClockState,
}

impl HostClock {
    /// Measures the precision and takes the first look. Fails where `adjtimex` is forbidden.
    pub fn new(source: Source, stratum: u8) -> io::Result<Self> {
        let precision = measure_precision();
        let state = look(source, stratum, precision)?;
        Ok(Self { source, stratum, precision, state })
    }

    /// Takes another look if the last one is old. An error cannot happen once the first look went
    /// well; if it does, the dispersion goes on growing.
    pub fn refresh(&mut self) {
        let age = realtime().seconds_since(self.state.as_of);
        if (0..(CLOCK_LOOK_INTERVAL.as_secs() as i64) << 32).contains(&age) {
            return;
        }
        if let Ok(state) = look(self.source, self.stratum, self.precision) {
            self.state = state;
        }
    }
}

impl Clock for HostClock {
    fn now(&self) -> NtpTimestamp {
        realtime()
    }

    fn state(&self) -> &ClockState {
        &self.state
    }

    /// `CLOCK_BOOTTIME`. clock_gettime(2): it is "identical to CLOCK_MONOTONIC", which is "affected
    /// by frequency adjustments" but not by "discontinuous jumps"; it counts suspended time as the
    /// system clock does.
    fn steady(&self) -> NtpTimestamp {
        read(ClockId::Boottime)
    }
}

/// `kernel` where the kernel calls its clock synchronised, else `local`.
pub fn suggest() -> io::Result<Source> {
    let kernel = adjtimex::read()?;
    Ok(if kernel.synchronised { Source::Kernel } else { Source::Local })
}

fn realtime() -> NtpTimestamp {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> NtpTimestamp {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    NtpTimestamp::from_unix(tv_sec, tv_nsec as u32)
}

fn look(source: Source, stratum: u8, precision: i8) -> io::Result<ClockState> {
    let kernel = adjtimex::read()?;
    let now = realtime();
    Ok(match source {
        Source::Kernel => kernel_state(&kernel, now, stratum, precision),
        Source::Local => ClockState {
            leap: kernel_leap(&kernel),
            stratum,
            precision,
            reference_id: LOCAL_REFERENCE_ID,
            reference_timestamp: whole_second_before(now),
            root_delay: NtpShort::default(),
            root_dispersion_seconds: 0.0,
            dispersion_rate: LOCAL_DISPERSION_RATE,
            as_of: now,
        },
    })
}

/// What the kernel's account of its clock means on the wire (RFC 5905 section 7.3).
fn kernel_state(kernel: &KernelClock, now: NtpTimestamp, stratum: u8, precision: i8) -> ClockState {
    let synchronised = kernel.synchronised;
    ClockState {
        leap: if synchronised { kernel_leap(kernel) } else { Leap::Unsynchronised },
        stratum: if synchronised { stratum } else { 0 },
        precision,
        reference_id: if synchronised { KERNEL_REFERENCE_ID } else { ReferenceId::NONE },
        reference_timestamp: if synchronised {
            whole_second_before(now)
        } else {
            NtpTimestamp::ZERO
        },
        root_delay: NtpShort::default(),
        root_dispersion_seconds: kernel.error_bound.as_secs_f64(),
        dispersion_rate: KERNEL_DISPERSION_RATE,
        as_of: now,
    }
}

fn kernel_leap(kernel: &KernelClock) -> Leap {
    match kernel.leap {
        LeapStatus::None => Leap::None,
        LeapStatus::Insert => Leap::Insert,
        LeapStatus::Delete => Leap::Delete,
        // Within the leap second the kernel repeats 23:59:59: no timestamp of it is right.
        LeapStatus::InProgress => Leap::Unsynchronised,
    }
}

fn whole_second_before(now: NtpTimestamp) -> NtpTimestamp {
    NtpTimestamp::from_bits(now.before(Duration::from_secs(1)).to_bits() >> 32 << 32)
}

/// log₂ of the shortest time between two readings that differ (RFC 5905 section 7.3, "precision").
fn measure_precision() -> i8 {
    let mut shortest = i64::MAX;
    let mut last = realtime();
    for _ in 0..PRECISION_READINGS {
        let now = realtime();
        let step = now.seconds_since(last);
        if step > 0 {
            shortest = shortest.min(step);
        }
        last = now;
    }
    (shortest as f64 / 4_294_967_296.0).log2().ceil() as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(synchronised: bool, leap: LeapStatus) -> KernelClock {
        KernelClock { synchronised, leap, error_bound: Duration::from_millis(20) }
    }

    const NOW: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 123_456_789);

    #[test]
    fn c100_an_unsynchronised_kernel_is_told_on_the_wire() {
        let state = kernel_state(&kernel(false, LeapStatus::Insert), NOW, 3, -24);
        assert_eq!((state.leap, state.stratum), (Leap::Unsynchronised, 0));
        assert_eq!(state.reference_id, ReferenceId::NONE);
        assert_eq!(state.reference_timestamp, NtpTimestamp::ZERO);
        assert!(!state.is_synchronised());
    }

    #[test]
    fn c103_leap_warnings_pass_and_the_leap_second_itself_is_unsynchronised() {
        for (status, leap) in [
            (LeapStatus::None, Leap::None),
            (LeapStatus::Insert, Leap::Insert),
            (LeapStatus::Delete, Leap::Delete),
            (LeapStatus::InProgress, Leap::Unsynchronised),
        ] {
            assert_eq!(kernel_state(&kernel(true, status), NOW, 3, -24).leap, leap);
        }
    }

    #[test]
    fn c123_the_reference_time_has_no_fraction_and_is_past() {
        let state = kernel_state(&kernel(true, LeapStatus::None), NOW, 3, -24);
        assert_eq!(state.reference_timestamp.to_bits() as u32, 0);
        assert!(NOW.seconds_since(state.reference_timestamp) > 0);
        assert_eq!(state.root_dispersion(NOW), NtpShort::from_seconds_rounded_up(0.02));
    }

    #[test]
    fn c104_the_measured_precision_is_that_of_a_clock() {
        let precision = measure_precision();
        assert!((-30..=-10).contains(&precision), "2^{precision} s");
    }
}
