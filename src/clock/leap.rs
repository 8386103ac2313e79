//! A leap second that is near, and what clients are told of it.
//!
//! Before an inserted leap second clocks show 23:59:59 and then, for the leap second itself, the
//! same once more; a deleted one they pass over. So the time that a clock shows does not say
//! whether it has made the leap: in the doubtful second that takes a look at its steps.
//!
//! A *smear* spares clients the leap: from noon before it until noon after it the time that is told
//! gains or loses the second evenly.

use serde::{Deserialize, Serialize};

use crate::limits::{
    DAY_SECONDS, LEAP_DOUBT_SECONDS, LEAP_SMEAR_HALF_SECONDS, LEAP_STEP_TOLERANCE_SECONDS,
};
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::NtpTimestamp;

/// Reference identifier of a time that is smeared, or smoothed: chrony's.
pub const SMEARED_REFERENCE_ID: ReferenceId = ReferenceId([127, 127, 1, 255]);

/// How a leap second is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Smear {
    /// Not at all: it is announced.
    #[default]
    Off,
    /// Evenly, from noon to noon of UTC.
    Linear,
}

/// What a leap second does to the last minute of its day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeapKind {
    /// The minute has 61 seconds.
    Insert,
    /// The minute has 59 seconds.
    Delete,
}

impl LeapKind {
    /// What the minute has more than others, in seconds.
    fn seconds(self) -> f64 {
        match self {
            Self::Insert => 1.0,
            Self::Delete => -1.0,
        }
    }

    /// Its warning.
    pub fn warning(self) -> Leap {
        match self {
            Self::Insert => Leap::Insert,
            Self::Delete => Leap::Delete,
        }
    }
}

/// A leap second that is less than a day ahead or half a day past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeapSecond {
    /// The first moment after it, 00:00:00 UTC.
    pub at: NtpTimestamp,
    /// What it does.
    pub kind: LeapKind,
    /// The clock has made it.
    pub is_made: bool,
    /// It is smeared and not announced.
    pub is_smeared: bool,
}

impl LeapSecond {
    /// The same as a clock sees it that shows `time` and was stepped by `step_seconds` since: close
    /// to it, by the step that it is; otherwise by the time.
    #[must_use]
    pub fn seen(self, time: NtpTimestamp, step_seconds: f64) -> Self {
        let after_seconds = time.seconds_since_f64(self.at);
        let is_doubtful = after_seconds.abs() <= LEAP_DOUBT_SECONDS;
        let is_known = is_doubtful && (self.is_made || self.explains(step_seconds));
        let is_made = match self.kind {
            // No clock that has not made it shows the second before it.
            LeapKind::Delete => is_known || after_seconds >= 0.0,
            LeapKind::Insert => is_known || after_seconds > LEAP_DOUBT_SECONDS,
        };
        Self { is_made, ..self }
    }

    /// Whether a step of a clock is this leap second.
    pub fn explains(self, step_seconds: f64) -> bool {
        (step_seconds + self.kind.seconds()).abs() < LEAP_STEP_TOLERANCE_SECONDS
    }

    /// The leap indicator of a clock that shows `time`, if its source's is `source`: a warning on
    /// the last day, which the source need not give. Within an inserted second no timestamp is
    /// right, and a warning of what is past is none. Of one that is smeared clients hear nothing.
    pub fn told(self, source: Leap, time: NtpTimestamp) -> Leap {
        let ahead_seconds = self.at.seconds_since_f64(time);
        let warning = self.kind.warning();
        if self.is_smeared {
            return if source == warning { Leap::None } else { source };
        }
        match source {
            _ if self.is_made && ahead_seconds > 0.0 => Leap::Unsynchronised,
            Leap::None if !self.is_made && (0.0..=DAY_SECONDS as f64).contains(&ahead_seconds) => {
                warning
            }
            source if self.is_made && source == warning => Leap::None,
            source => source,
        }
    }

    /// What the time that is told is ahead of UTC when a clock shows `time`, in seconds; nothing
    /// before noon of the day before and after noon of the day after, or if it is not smeared.
    ///
    /// Between the two noons lie a second more or less than a day, and a day of smeared time.
    pub fn smear_seconds(self, time: NtpTimestamp) -> f64 {
        if !self.is_smeared {
            return 0.0;
        }
        let after_seconds = time.seconds_since_f64(self.at);
        let leap_seconds = self.kind.seconds();
        let share = leap_seconds / (2.0 * LEAP_SMEAR_HALF_SECONDS + leap_seconds);
        if self.is_made {
            share * (LEAP_SMEAR_HALF_SECONDS - after_seconds).max(0.0)
        } else {
            -share * (LEAP_SMEAR_HALF_SECONDS + after_seconds).max(0.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT: NtpTimestamp = NtpTimestamp::from_unix(1_798_761_600, 0);

    fn leap(kind: LeapKind, is_smeared: bool) -> LeapSecond {
        LeapSecond { at: MIDNIGHT, kind, is_made: false, is_smeared }
    }

    fn at(seconds: f64) -> NtpTimestamp {
        MIDNIGHT.plus((seconds * 4_294_967_296.0) as i64)
    }

    #[test]
    fn c103_the_last_day_has_a_warning_and_the_leap_second_none() {
        for kind in [LeapKind::Insert, LeapKind::Delete] {
            let told = |seconds, source| {
                let leap = leap(kind, false).seen(at(seconds), 0.0);
                leap.told(source, at(seconds))
            };
            assert_eq!(told(-86_400.5, Leap::None), Leap::None);
            assert_eq!(told(-86_399.5, Leap::None), kind.warning());
            assert_eq!(told(-1.5, Leap::None), kind.warning());
            assert_eq!(told(2.5, Leap::None), Leap::None);
            assert_eq!(told(2.5, kind.warning()), Leap::None, "it is past");
            // The source's word is told whatever the list says.
            for source in [Leap::Insert, Leap::Delete, Leap::Unsynchronised] {
                assert_eq!(told(-100.0, source), source);
            }
        }
    }

    #[test]
    fn c103_the_inserted_second_is_told_by_the_step_that_it_is() {
        let insert = leap(LeapKind::Insert, false);
        assert_eq!(insert.seen(at(-0.5), 0.0).told(Leap::None, at(-0.5)), Leap::Insert);
        for step in [-1.0, -0.95, -1.05] {
            let again = insert.seen(at(-0.5), step);
            assert_eq!(again.told(Leap::Insert, at(-0.5)), Leap::Unsynchronised, "{step}");
        }
        for step in [1.0, -0.5, -2.0] {
            assert!(!insert.seen(at(-0.5), step).is_made, "{step}");
        }
        // A clock that has not made it yet by a few milliseconds, as the kernel's.
        assert!(!insert.seen(at(0.004), 0.0).is_made);
    }

    /// Along with the clock the whole way: smeared time runs evenly.
    #[test]
    fn a_smear_is_even_from_noon_to_noon() {
        for kind in [LeapKind::Insert, LeapKind::Delete] {
            let length = 86_400.0 + kind.seconds();
            // `elapsed` since the first noon; the clock shows `shown` after midnight.
            for elapsed in [0.0, 0.25, 1000.0, 43_198.5, 43_199.5, 43_200.5, 43_201.5, 86_000.0] {
                let has_leapt = elapsed >= 43_200.0 + kind.seconds().min(0.0);
                let step = if has_leapt { -kind.seconds() } else { 0.0 };
                let shown = elapsed - 43_200.0 + step;
                let leap = leap(kind, true).seen(at(shown), step);
                assert_eq!(leap.is_made, has_leapt, "{kind:?} {elapsed}");
                let smeared = shown + leap.smear_seconds(at(shown));
                let even = elapsed * 86_400.0 / length - 43_200.0;
                assert!((smeared - even).abs() < 1e-6, "{kind:?} {elapsed}: {smeared}, {even}");
            }
            for shown in [-43_200.0, -50_000.0, 43_200.0, 43_201.0] {
                let leap = leap(kind, true).seen(at(shown), 0.0);
                assert_eq!(leap.smear_seconds(at(shown)), 0.0);
            }
            let near = leap(kind, true).seen(at(-10.0), 0.0);
            assert_eq!(near.told(kind.warning(), at(-10.0)), Leap::None);
            assert_eq!(near.told(Leap::None, at(-10.0)), Leap::None);
        }
    }
}
