//! What the clock role publishes: the last truth of its source, and how it ages.
//!
//! A record is made when the source has spoken, and is good for a time. Its readers let it age by a
//! clock that nobody sets, so a source that is silent and a role that is dead come to the same: the
//! error bound grows, and at the end clients are told that nobody keeps this clock.

use std::time::Duration;

use super::leap::{LeapSecond, SMEARED_REFERENCE_ID};
use super::{ClockState, shrunk, units};
use crate::limits::CLOCK_STEP_MIN_SECONDS;
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// A moment on two clocks: the system's, and one that nobody sets.
///
/// A time daemon that slews changes the rate of both, so their difference changes by steps alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The system's time, `CLOCK_REALTIME`.
    pub system: NtpTimestamp,
    /// Time since boot, `CLOCK_BOOTTIME`.
    pub since_boot: Duration,
}

impl Moment {
    /// Time from `earlier` until now; nothing if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.since_boot.saturating_sub(earlier.since_boot)
    }

    /// By how much the system's clock was stepped since `earlier`, in seconds, negative if back.
    /// What is as short as reading two clocks may take is none.
    pub fn step_since(self, earlier: Self) -> f64 {
        let went = self.system.seconds_since_f64(earlier.system);
        let lasted = self.since_boot.as_secs_f64() - earlier.since_boot.as_secs_f64();
        let step = went - lasted;
        if step.abs() < CLOCK_STEP_MIN_SECONDS { 0.0 } else { step }
    }
}

/// How the source of the time fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SourceState {
    /// It has not spoken yet.
    Unknown = 0,
    /// It vouches for the clock.
    Synchronised = 1,
    /// It says that the clock is not synchronised.
    Unsynchronised = 2,
    /// It does not answer.
    Silent = 3,
    /// What it says makes no sense.
    Garbled = 4,
    /// Its words contradict each other.
    Contradictory = 5,
}

impl SourceState {
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Synchronised,
            2 => Self::Unsynchronised,
            3 => Self::Silent,
            4 => Self::Garbled,
            5 => Self::Contradictory,
            _ => Self::Unknown,
        }
    }
}

/// The last truth about the clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockRecord {
    /// Leap second warning, or unsynchronised.
    pub leap: Leap,
    /// 1 to 15; 0 when unsynchronised.
    pub stratum: u8,
    /// What the clock follows.
    pub reference_id: ReferenceId,
    /// When the clock was last corrected, without a fraction.
    pub reference_timestamp: NtpTimestamp,
    /// Round trip to the primary source.
    pub root_delay: NtpShort,
    /// Error bound when it was taken, in seconds.
    pub root_dispersion_seconds: f64,
    /// Growth of the error bound in seconds per second.
    pub dispersion_rate: f64,
    /// What true time was ahead of the system's, in seconds.
    pub correction_seconds: f64,
    /// How the correction shrinks, in seconds per second.
    pub correction_rate: f64,
    /// What the time that is told was ahead of true time, in seconds, as the source smooths it.
    pub smoothed_seconds: f64,
    /// How that shrinks, in seconds per second.
    pub smoothed_rate: f64,
    /// The leap second that is near, if one is known beside what the source says.
    pub leap_second: Option<LeapSecond>,
    /// How the source fares since. It changes nothing in what clients are told.
    pub source_state: SourceState,
    /// When it was taken.
    pub taken: Moment,
    /// How long it is good for.
    pub holdover: Duration,
}

impl ClockRecord {
    /// Of a clock that nobody vouches for.
    pub fn unsynchronised(source_state: SourceState, taken: Moment) -> Self {
        Self {
            leap: Leap::Unsynchronised,
            stratum: 0,
            reference_id: ReferenceId::NONE,
            reference_timestamp: NtpTimestamp::ZERO,
            root_delay: NtpShort::ONE_SECOND,
            root_dispersion_seconds: UNSYNCHRONISED_DISPERSION_SECONDS,
            dispersion_rate: 0.0,
            correction_seconds: 0.0,
            correction_rate: 0.0,
            smoothed_seconds: 0.0,
            smoothed_rate: 0.0,
            leap_second: None,
            source_state,
            taken,
            holdover: Duration::ZERO,
        }
    }

    /// Whether clients may follow the clock at `now`.
    pub fn is_good(&self, now: Moment) -> bool {
        self.leap != Leap::Unsynchronised
            && (1..=STRATUM_MAX).contains(&self.stratum)
            && now.since(self.taken) <= self.holdover
    }

    /// The leap second that is near, as it looks at `now`.
    pub fn leap_second_at(&self, now: Moment) -> Option<LeapSecond> {
        let step_seconds = now.step_since(self.taken);
        self.leap_second.map(|leap| leap.seen(self.time_at(now), step_seconds))
    }

    /// True time at `now`, as far as it is known; not smoothed.
    pub(super) fn time_at(&self, now: Moment) -> NtpTimestamp {
        now.system.plus(units(self.correction_at(now)))
    }

    fn correction_at(&self, now: Moment) -> f64 {
        let age_seconds = now.since(self.taken).as_secs_f64();
        shrunk(self.correction_seconds, self.correction_rate, age_seconds)
    }

    fn smoothed_at(&self, now: Moment) -> f64 {
        let age_seconds = now.since(self.taken).as_secs_f64();
        shrunk(self.smoothed_seconds, self.smoothed_rate, age_seconds)
    }

    /// Error bound at `now`, in seconds. A step that no later record knows of, and that is no leap
    /// second, has moved the clock away from the truth, as far as anybody can tell.
    pub fn dispersion_seconds(&self, now: Moment) -> f64 {
        let age_seconds = now.since(self.taken).as_secs_f64();
        let step_seconds = now.step_since(self.taken);
        let is_leap = self.leap_second_at(now).is_some_and(|leap| {
            let is_older = self.taken.system.seconds_since(leap.at) < 0;
            is_older && leap.is_made && leap.explains(step_seconds)
        });
        self.root_dispersion_seconds
            + age_seconds * self.dispersion_rate
            + if is_leap { 0.0 } else { step_seconds.abs() }
    }

    /// What clients are told at `now`.
    pub fn state_at(&self, now: Moment, precision: i8) -> ClockState {
        let time = self.time_at(now);
        let leap_second = self.leap_second_at(now);
        let leap = leap_second.map_or(self.leap, |leap| leap.told(self.leap, time));
        if !self.is_good(now) || leap == Leap::Unsynchronised {
            let nobody = Self::unsynchronised(self.source_state, now);
            let state = nobody.as_state(now, precision, nobody.root_dispersion_seconds);
            return ClockState { leap_second, ..state };
        }
        let is_smeared = leap_second.is_some_and(|leap| leap.smear_seconds(time) != 0.0);
        let reference_id = if is_smeared { SMEARED_REFERENCE_ID } else { self.reference_id };
        Self { leap, reference_id, leap_second, ..*self }.as_state(
            now,
            precision,
            self.dispersion_seconds(now),
        )
    }

    fn as_state(&self, now: Moment, precision: i8, root_dispersion_seconds: f64) -> ClockState {
        ClockState {
            leap: self.leap,
            stratum: self.stratum,
            precision,
            reference_id: self.reference_id,
            reference_timestamp: self.reference_timestamp,
            root_delay: self.root_delay,
            root_dispersion_seconds,
            dispersion_rate: self.dispersion_rate,
            correction_seconds: self.correction_at(now),
            correction_rate: self.correction_rate,
            smoothed_seconds: self.smoothed_at(now),
            smoothed_rate: self.smoothed_rate,
            leap_second: self.leap_second,
            as_of: now.system,
        }
    }
}

/// The largest stratum of a synchronised clock (RFC 5905 figure 11).
pub const STRATUM_MAX: u8 = 15;

/// Error bound of a clock that nobody vouches for, in seconds; it and the root delay are chrony's.
/// Clients look at the leap indicator; it is for those who do not.
const UNSYNCHRONISED_DISPERSION_SECONDS: f64 = 1.0;

/// A reference time as it is told: without its fraction. chrony adds a random one; whoever asks
/// often enough finds the highest, and by it the true one.
pub(crate) fn without_fraction(time: NtpTimestamp) -> NtpTimestamp {
    NtpTimestamp::from_bits(time.to_bits() >> 32 << 32)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So long after the simulated machine has booted, its clock showing a time of 2027.
    pub(crate) fn at(seconds: f64) -> Moment {
        let since_boot = Duration::from_secs_f64(seconds);
        let start = NtpTimestamp::from_unix(1_800_000_000, 0);
        Moment { system: start.plus((seconds * 4_294_967_296.0) as i64), since_boot }
    }

    fn record() -> ClockRecord {
        ClockRecord {
            leap: Leap::None,
            stratum: 3,
            reference_id: ReferenceId([192, 0, 2, 1]),
            reference_timestamp: NtpTimestamp::from_unix(1_799_999_990, 0),
            root_delay: NtpShort::from_seconds_rounded_up(0.01),
            root_dispersion_seconds: 0.001,
            dispersion_rate: 2e-6,
            source_state: SourceState::Synchronised,
            holdover: Duration::from_secs(3600),
            ..ClockRecord::unsynchronised(SourceState::Unknown, at(100.0))
        }
    }

    #[test]
    fn a_lost_source_is_forgiven_for_a_while_and_told_then() {
        let record = record();
        let bound = |seconds| record.state_at(at(seconds), -25).root_dispersion_seconds;
        assert_eq!(bound(100.0), 0.001);
        assert!((bound(1100.0) - 0.003).abs() < 1e-9);
        assert!(record.state_at(at(3700.0), -25).is_synchronised());
        let lost = record.state_at(at(3700.001), -25);
        assert_eq!((lost.leap, lost.stratum), (Leap::Unsynchronised, 0));
        assert_eq!(lost.reference_id, ReferenceId::NONE);
        assert_eq!(lost.reference_timestamp, NtpTimestamp::ZERO);
        // A new record, and all is well.
        let found = ClockRecord { taken: at(5000.0), ..record };
        assert!(found.state_at(at(5000.0), -25).is_synchronised());
    }

    #[test]
    fn a_step_that_no_record_knows_of_is_in_the_bound() {
        let record = record();
        for step in [3600, -3600] {
            let mut now = at(150.0);
            now.system = now.system.plus(step << 32);
            let state = record.state_at(now, -25);
            assert!((state.root_dispersion_seconds - 3600.0011).abs() < 1e-6, "{step}");
            // The source has looked at the clock since.
            let known = ClockRecord { taken: now, ..record };
            assert_eq!(known.state_at(now, -25).root_dispersion_seconds, 0.001);
        }
    }

    #[test]
    fn nothing_is_told_of_a_stratum_that_does_not_stand_on_the_wire() {
        for stratum in [0, 16, 255] {
            let state = ClockRecord { stratum, ..record() }.state_at(at(100.0), -25);
            assert_eq!((state.leap, state.stratum), (Leap::Unsynchronised, 0));
        }
    }

    #[test]
    fn c110_records_age_across_the_era() {
        // 2036-02-07T06:28:16Z, when the seconds of era 0 are used up.
        let rollover = NtpTimestamp::from_bits(0);
        let moment = |seconds: i64| Moment {
            system: rollover.plus(seconds << 32),
            since_boot: Duration::from_secs((1000 + seconds) as u64),
        };
        let record = ClockRecord {
            taken: moment(-50),
            reference_timestamp: rollover.plus(-60 << 32),
            ..record()
        };
        let state = record.state_at(moment(50), -25);
        assert!((state.root_dispersion_seconds - 0.0012).abs() < 1e-9);
        assert_eq!(moment(50).step_since(moment(-50)), 0.0);
        assert_eq!(state.as_of.seconds_since(state.reference_timestamp), 110 << 32);
        assert!(state.root_dispersion(moment(150).system) > state.root_dispersion(state.as_of));
    }
}
