//! Who vouches for the clock, and what they say as a record.

use std::io;
use std::time::Duration;

use super::record::{ClockRecord, Moment, SourceState, without_fraction};
use crate::limits::{KERNEL_DISPERSION_RATE, LOCAL_DISPERSION_RATE};
use crate::sys::adjtimex::{self, KernelClock, LeapStatus};
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// Who answers for the quality of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel: `adjtimex` says whether a time daemon keeps the clock and how well.
    Kernel,
    /// A time daemon on this host: it is asked how it fares.
    Follow,
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

/// `kernel` where the kernel calls its clock synchronised, else `local`.
pub fn suggest() -> io::Result<Source> {
    let kernel = adjtimex::read()?;
    Ok(if kernel.synchronised { Source::Kernel } else { Source::Local })
}

/// What the kernel's account of its clock means on the wire (RFC 5905 section 7.3). That it calls
/// its clock unsynchronised is a truth too, and told at once.
pub fn kernel(kernel: &KernelClock, stratum: u8, now: Moment, holdover: Duration) -> ClockRecord {
    if !kernel.synchronised {
        return ClockRecord::unsynchronised(SourceState::Unsynchronised, now);
    }
    ClockRecord {
        leap: kernel_leap(kernel),
        stratum,
        reference_id: KERNEL_REFERENCE_ID,
        reference_timestamp: second_before(now),
        root_delay: NtpShort::default(),
        root_dispersion_seconds: kernel.error_bound.as_secs_f64(),
        dispersion_rate: KERNEL_DISPERSION_RATE,
        correction_seconds: 0.0,
        correction_rate: 0.0,
        smoothed_seconds: 0.0,
        smoothed_rate: 0.0,
        leap_second: None,
        source_state: SourceState::Synchronised,
        taken: now,
        holdover,
    }
}

/// The clock as it is, at a declared stratum. A leap second that the kernel knows of is told.
pub fn local(
    kernel: Option<&KernelClock>,
    stratum: u8,
    now: Moment,
    holdover: Duration,
) -> ClockRecord {
    ClockRecord {
        leap: kernel.map_or(Leap::None, kernel_leap),
        stratum,
        reference_id: LOCAL_REFERENCE_ID,
        reference_timestamp: second_before(now),
        root_delay: NtpShort::default(),
        root_dispersion_seconds: 0.0,
        dispersion_rate: LOCAL_DISPERSION_RATE,
        correction_seconds: 0.0,
        correction_rate: 0.0,
        smoothed_seconds: 0.0,
        smoothed_rate: 0.0,
        leap_second: None,
        source_state: SourceState::Synchronised,
        taken: now,
        holdover,
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

fn second_before(now: Moment) -> NtpTimestamp {
    without_fraction(now.system.before(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::at;
    use super::*;

    const HOLDOVER: Duration = Duration::from_secs(60);

    fn clock(synchronised: bool, leap: LeapStatus) -> KernelClock {
        KernelClock { synchronised, leap, error_bound: Duration::from_millis(20) }
    }

    #[test]
    fn c100_an_unsynchronised_kernel_is_told_on_the_wire() {
        let record = kernel(&clock(false, LeapStatus::Insert), 3, at(5.3), HOLDOVER);
        let state = record.state_at(at(5.3), -24);
        assert_eq!((state.leap, state.stratum), (Leap::Unsynchronised, 0));
        assert_eq!(state.reference_id, ReferenceId::NONE);
        assert_eq!(state.reference_timestamp, NtpTimestamp::ZERO);
        assert!(!state.is_synchronised());
    }

    #[test]
    fn c103_leap_warnings_pass_and_the_leap_second_itself_is_unsynchronised() {
        for (status, leap, stratum) in [
            (LeapStatus::None, Leap::None, 3),
            (LeapStatus::Insert, Leap::Insert, 3),
            (LeapStatus::Delete, Leap::Delete, 3),
            (LeapStatus::InProgress, Leap::Unsynchronised, 0),
        ] {
            let clock = clock(true, status);
            for record in
                [kernel(&clock, 3, at(5.3), HOLDOVER), local(Some(&clock), 3, at(5.3), HOLDOVER)]
            {
                let state = record.state_at(at(5.3), -24);
                assert_eq!((state.leap, state.stratum), (leap, stratum));
            }
        }
    }

    #[test]
    fn c123_the_reference_time_has_no_fraction_and_is_past() {
        let now = at(5.3);
        let record = kernel(&clock(true, LeapStatus::None), 3, now, HOLDOVER);
        assert_eq!(record.reference_timestamp.to_bits() as u32, 0);
        assert!(now.system.seconds_since(record.reference_timestamp) > 0);
        let state = record.state_at(now, -24);
        assert_eq!(state.root_dispersion(now.system), NtpShort::from_seconds_rounded_up(0.02));
    }
}
