//! Where the time comes from and how good it is.
//!
//! The clock is only read. Nothing in timeball sets or slews it. The clock role asks a source
//! ([`source`]) and publishes what it hears as a [`record`]; the responder serves what the record
//! says, which ages as long as nothing new comes ([`host`]).

pub mod account;
pub mod follow;
pub mod hardware;
pub mod host;
pub mod leap;
pub mod leap_list;
pub mod leap_watch;
pub mod log;
pub mod record;
pub mod source;
pub mod statistics;

use std::time::Duration;

use self::leap::LeapSecond;
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// A clock as the engine sees it: the time now, and what the server says about it.
pub trait Clock {
    /// The system's time at this moment. What clients are told is off it by
    /// [`ClockState::correction`].
    fn now(&self) -> NtpTimestamp;
    /// The clock's standing when it was last looked at.
    fn state(&self) -> &ClockState;
    /// The time at this moment by a clock that runs as this one does, slewed alike, but is never
    /// stepped. When it began is anybody's guess; the distance of the two changes with a step.
    fn steady(&self) -> NtpTimestamp;
}

/// What a server says about its clock in every reply (RFC 5905 section 7.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockState {
    /// Leap second warning, or unsynchronised.
    pub leap: Leap,
    /// 1 to 15; 0 when unsynchronised, as stratum 16 never stands on the wire (RFC 5905 figure 11).
    pub stratum: u8,
    /// log₂ of the clock's reading time in seconds.
    pub precision: i8,
    /// What the clock follows.
    pub reference_id: ReferenceId,
    /// When the clock was last corrected. Whole seconds: the fraction would tell a stranger how
    /// the host keeps its time.
    pub reference_timestamp: NtpTimestamp,
    /// Round trip to the primary source.
    pub root_delay: NtpShort,
    /// Error bound at `as_of`, in seconds.
    pub root_dispersion_seconds: f64,
    /// Growth of the error bound in seconds per second.
    pub dispersion_rate: f64,
    /// What true time is ahead of the system's at `as_of`, in seconds: a time daemon that slews
    /// lets the system run towards true time, which takes a while.
    pub correction_seconds: f64,
    /// How the correction shrinks in seconds per second; zero while it does not.
    pub correction_rate: f64,
    /// What the time that is told is ahead of true time at `as_of`, in seconds: a time daemon that
    /// smooths lets its clients run towards true time, too.
    pub smoothed_seconds: f64,
    /// How that shrinks in seconds per second; zero while it does not.
    pub smoothed_rate: f64,
    /// The leap second that is near, if one is known.
    pub leap_second: Option<LeapSecond>,
    /// When all of this was true, by the system's time.
    pub as_of: NtpTimestamp,
}

impl ClockState {
    /// The error bound at `now`: it grows until the clock is looked at again.
    pub fn root_dispersion(&self, now: NtpTimestamp) -> NtpShort {
        let age_seconds = now.seconds_since_f64(self.as_of).max(0.0);
        NtpShort::from_seconds_rounded_up(
            self.root_dispersion_seconds + age_seconds * self.dispersion_rate,
        )
    }

    /// What is added to the system's time at `now`, in units of 2⁻³² s: the correction and what is
    /// smoothed, which shrink until the clock is looked at again, and never beyond nothing; and the
    /// smear of a leap second.
    pub fn correction(&self, now: NtpTimestamp) -> i64 {
        let age_seconds = now.seconds_since_f64(self.as_of).max(0.0);
        let correction = units(
            shrunk(self.correction_seconds, self.correction_rate, age_seconds)
                + shrunk(self.smoothed_seconds, self.smoothed_rate, age_seconds),
        );
        match self.leap_second {
            Some(leap) if leap.is_smeared => {
                let time = now.plus(correction);
                correction.saturating_add(units(leap.seen(time, 0.0).smear_seconds(time)))
            }
            _ => correction,
        }
    }

    /// Whether clients may follow this clock.
    pub fn is_synchronised(&self) -> bool {
        self.leap != Leap::Unsynchronised
    }
}

/// A correction after it has shrunk at `rate` for `age_seconds`.
fn shrunk(seconds: f64, rate: f64, age_seconds: f64) -> f64 {
    let left = seconds + rate * age_seconds;
    if left * seconds > 0.0 { left } else { 0.0 }
}

/// Seconds in units of 2⁻³² s. The cast saturates.
fn units(seconds: f64) -> i64 {
    (seconds * 4_294_967_296.0) as i64
}

/// A clock that stands where it is put: for tests, benches and fuzzing.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    /// The time that [`Clock::now`] returns.
    pub now: NtpTimestamp,
    /// The time that [`Clock::steady`] returns.
    pub steady: NtpTimestamp,
    /// The state that [`Clock::state`] returns.
    pub state: ClockState,
}

impl SimulatedClock {
    /// A good clock of stratum 1 at `now`, last corrected 16 seconds ago.
    pub fn synchronised(now: NtpTimestamp) -> Self {
        let state = ClockState {
            leap: Leap::None,
            stratum: 1,
            precision: -25,
            reference_id: ReferenceId(*b"GPS\0"),
            reference_timestamp: now.before(Duration::from_secs(16)),
            root_delay: NtpShort::from_bits(0),
            root_dispersion_seconds: 1e-6,
            dispersion_rate: 1e-6,
            correction_seconds: 0.0,
            correction_rate: 0.0,
            smoothed_seconds: 0.0,
            smoothed_rate: 0.0,
            leap_second: None,
            as_of: now,
        };
        Self { now, steady: NtpTimestamp::ZERO, state }
    }

    /// Lets time pass, in units of 2⁻³² s.
    pub fn advance(&mut self, units: i64) {
        self.now = self.now.plus(units);
        self.steady = self.steady.plus(units);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> NtpTimestamp {
        self.now
    }

    fn state(&self) -> &ClockState {
        &self.state
    }

    fn steady(&self) -> NtpTimestamp {
        self.steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c099_dispersion_grows_between_looks_at_the_clock() {
        let start = NtpTimestamp::from_unix(1_800_000_000, 0);
        let mut clock = SimulatedClock::synchronised(start);
        clock.state.dispersion_rate = 15e-6;
        let at = |seconds: i64| {
            clock.state.root_dispersion(NtpTimestamp::from_unix(1_800_000_000 + seconds, 0))
        };
        assert!(at(0) < at(100) && at(100) < at(1000));
        assert!((at(1000).to_seconds() - 0.015).abs() < 1e-3);
        // A clock stepped backwards must not shrink the bound.
        assert_eq!(at(-10), at(0));
    }

    #[test]
    fn a_correction_shrinks_to_nothing_and_no_further() {
        let start = NtpTimestamp::from_unix(1_800_000_000, 0);
        let mut state = SimulatedClock::synchronised(start).state;
        for sign in [1.0, -1.0] {
            (state.correction_seconds, state.correction_rate) = (sign * 0.5, sign * -0.125);
            let at = |seconds: i64| {
                state.correction(NtpTimestamp::from_unix(1_800_000_000 + seconds, 0))
            };
            let expected = [0.5, 0.5, 0.25, 0.0, 0.0].map(|seconds: f64| units(sign * seconds));
            assert_eq!([-1, 0, 2, 4, 9].map(at), expected);
        }
        state.correction_rate = 0.0;
        assert_eq!(state.correction(start.plus(units(1e6))), units(-0.5));
    }
}
