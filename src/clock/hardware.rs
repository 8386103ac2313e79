//! An interface's own clock, followed, and its timestamps translated to the system's time.
//!
//! Such a clock (PTP hardware clock, PHC) runs by itself: in TAI if ptp4l keeps it, else by no time
//! at all. It is read once a second beside `CLOCK_MONOTONIC_RAW`, which nobody steps and nobody
//! slews: whatever a time daemon does to the system's clock, two free quartzes are compared. A
//! stamp becomes monotonic time by a line through the last readings ([`Translation`]), and the
//! system's by where the two clocks of the host stand at that moment ([`Anchor`]).
//!
//! All times are nanoseconds since their clock's own beginning, modulo 2⁶⁴.

use arrayvec::ArrayVec;

use crate::limits::hardware::{
    HARDWARE_AGE_NANOSECONDS_MAX, HARDWARE_DELAY_NANOSECONDS_MAX, HARDWARE_DRIFT,
    HARDWARE_ERROR_NANOSECONDS_MAX, HARDWARE_RATE_MAX, HARDWARE_READINGS, HARDWARE_READINGS_LEAST,
    HARDWARE_WAIT_MAX,
};
use crate::wire::timestamp::NtpTimestamp;

/// Where the clocks of the host stand at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// `CLOCK_MONOTONIC_RAW`.
    pub monotonic: i64,
    /// `CLOCK_REALTIME`.
    pub system: i64,
}

impl Anchor {
    /// The system's time at this moment.
    pub fn system(&self) -> NtpTimestamp {
        self.system_at(self.monotonic)
    }

    /// The system's time so near to this moment that a slew between the two does not count.
    fn system_at(&self, monotonic: i64) -> NtpTimestamp {
        let system = self.system.wrapping_add(monotonic.wrapping_sub(self.monotonic));
        let nanoseconds = system.rem_euclid(1_000_000_000) as u32;
        NtpTimestamp::from_unix(system.div_euclid(1_000_000_000), nanoseconds)
    }

    /// The reverse.
    fn monotonic_at(&self, system: i64) -> i64 {
        self.monotonic.wrapping_add(system.wrapping_sub(self.system))
    }
}

/// One comparison of a hardware clock with the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What the hardware clock showed.
    pub phc: i64,
    /// `CLOCK_MONOTONIC_RAW` at the middle of the reading.
    pub monotonic: i64,
    /// How long it took: the two moments are apart by half of it at the most.
    pub delay_nanoseconds: i64,
}

impl Reading {
    /// Of a clock that showed `phc` between two looks at `CLOCK_MONOTONIC_RAW`.
    pub fn between(phc: i64, before: i64, after: i64) -> Self {
        let delay_nanoseconds = after.wrapping_sub(before);
        Self { phc, monotonic: before.wrapping_add(delay_nanoseconds / 2), delay_nanoseconds }
    }

    /// The same between two looks at the system's clock, soon after `anchor`.
    pub fn between_system_times(phc: i64, before: i64, after: i64, anchor: &Anchor) -> Self {
        Self::between(phc, anchor.monotonic_at(before), anchor.monotonic_at(after))
    }
}

/// A hardware clock as its last readings show it.
#[derive(Debug, Default)]
pub struct HardwareClock {
    /// The oldest first.
    readings: ArrayVec<Reading, HARDWARE_READINGS>,
}

impl HardwareClock {
    /// Takes the readings of one look, of which the quickest counts, perhaps none. Returns how its
    /// stamps are translated from now on; none while the clock cannot be followed. A clock that was
    /// stepped is followed anew.
    pub fn take(&mut self, look: &[Reading]) -> Option<Translation> {
        let timely = look.iter().filter(|reading| {
            (0..=HARDWARE_DELAY_NANOSECONDS_MAX).contains(&reading.delay_nanoseconds)
        });
        if let Some(&reading) = timely.min_by_key(|reading| reading.delay_nanoseconds) {
            if self.line().is_some_and(|line| !line.expects(&reading)) {
                self.readings.clear();
            }
            if self.readings.is_full() {
                self.readings.remove(0);
            }
            self.readings.push(reading);
        }
        let is_enough = self.readings.len() >= HARDWARE_READINGS_LEAST;
        self.line().filter(|line| is_enough && line.rate.abs() <= HARDWARE_RATE_MAX)
    }

    /// The line through the readings by least squares; through one it is as steep as can be.
    fn line(&self) -> Option<Translation> {
        let last = self.readings.last()?;
        let points = self.readings.iter().map(|reading| {
            let phc = reading.phc.wrapping_sub(last.phc);
            let lead = reading.monotonic.wrapping_sub(last.monotonic).wrapping_sub(phc);
            (phc as f64, lead as f64)
        });
        let points: ArrayVec<(f64, f64), HARDWARE_READINGS> = points.collect();
        let count = points.len() as f64;
        let mean_phc = points.iter().map(|(phc, _)| phc).sum::<f64>() / count;
        let mean_lead = points.iter().map(|(_, lead)| lead).sum::<f64>() / count;
        let spread = points.iter().map(|(phc, _)| (phc - mean_phc).powi(2)).sum::<f64>();
        let product =
            points.iter().map(|(phc, lead)| (phc - mean_phc) * (lead - mean_lead)).sum::<f64>();
        let rate = if spread > 0.0 { product / spread } else { 0.0 };
        let lead_at = |phc: f64| mean_lead + rate * (phc - mean_phc);
        let off = points.iter().map(|&(phc, lead)| (lead - lead_at(phc)).abs()).fold(0.0, f64::max);
        // Each reading is off by half its delay at the most. Whatever the signs, the end of a line
        // through them is then off by less than twice that, and its ends differ by thrice that.
        let delay = self.readings.iter().map(|reading| reading.delay_nanoseconds).max()? as f64;
        let span = points.first().map_or(0.0, |(phc, _)| -phc);
        let error_rate = if span > 0.0 { 1.5 * delay / span } else { HARDWARE_RATE_MAX };
        Some(Translation {
            phc: last.phc,
            monotonic: last.monotonic.wrapping_add(lead_at(0.0).round() as i64),
            rate,
            error_nanoseconds: delay + off,
            error_rate: error_rate + HARDWARE_DRIFT,
        })
    }
}

/// How stamps of a hardware clock become the host's time: from a moment of both on along a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Translation {
    /// The last reading, by the hardware clock.
    pub phc: i64,
    /// The same moment by `CLOCK_MONOTONIC_RAW`.
    pub monotonic: i64,
    /// What the monotonic clock gains on the hardware clock, in seconds per second.
    pub rate: f64,
    /// Error bound at that moment.
    pub error_nanoseconds: f64,
    /// How it grows, in seconds per second.
    pub error_rate: f64,
}

impl Translation {
    /// When a packet arrived that the interface stamped `stamp` and the kernel, later, `software`.
    /// None if the translation is too old or too bad, or the two cannot be of one packet.
    pub fn arrival(
        &self,
        stamp: i64,
        software: NtpTimestamp,
        anchor: &Anchor,
    ) -> Option<NtpTimestamp> {
        let at = self.system_time(stamp, anchor)?;
        let waited = software.seconds_since(at);
        (-ERROR_MAX..=HARDWARE_WAIT_MAX).contains(&waited).then_some(at)
    }

    /// When a packet left. `near` is when the driver took it, or, where that is not known, when the
    /// stamp was read. None as with an arrival.
    pub fn departure(
        &self,
        stamp: i64,
        near: NtpTimestamp,
        anchor: &Anchor,
    ) -> Option<NtpTimestamp> {
        let at = self.system_time(stamp, anchor)?;
        let apart = at.seconds_since(near);
        (-HARDWARE_WAIT_MAX..=HARDWARE_WAIT_MAX).contains(&apart).then_some(at)
    }

    /// Error bound when the monotonic clock shows this, in nanoseconds.
    pub fn error_at(&self, monotonic: i64) -> f64 {
        let age = monotonic.wrapping_sub(self.monotonic).max(0);
        self.error_nanoseconds + age as f64 * self.error_rate
    }

    fn system_time(&self, stamp: i64, anchor: &Anchor) -> Option<NtpTimestamp> {
        let is_near = |span: i64| span.unsigned_abs() <= HARDWARE_AGE_NANOSECONDS_MAX as u64;
        let is_good = is_near(anchor.monotonic.wrapping_sub(self.monotonic))
            && is_near(stamp.wrapping_sub(self.phc))
            && self.error_at(anchor.monotonic) <= HARDWARE_ERROR_NANOSECONDS_MAX;
        is_good.then(|| anchor.system_at(self.monotonic_at(stamp)))
    }

    fn monotonic_at(&self, phc: i64) -> i64 {
        let since = phc.wrapping_sub(self.phc);
        let gain = (since as f64 * self.rate).round() as i64;
        self.monotonic.wrapping_add(since).wrapping_add(gain)
    }

    /// Whether a reading goes on with the line. The next one is later, too.
    fn expects(&self, reading: &Reading) -> bool {
        let off = reading.monotonic.wrapping_sub(self.monotonic_at(reading.phc));
        let since = reading.monotonic.wrapping_sub(self.monotonic);
        (0..=HARDWARE_AGE_NANOSECONDS_MAX).contains(&since)
            && off.unsigned_abs() as f64
                <= HARDWARE_ERROR_NANOSECONDS_MAX + self.error_at(reading.monotonic)
    }
}

/// The error of a good translation at the most, in units of 2⁻³² s.
const ERROR_MAX: i64 = (HARDWARE_ERROR_NANOSECONDS_MAX * 4.294_967_296) as i64;

#[cfg(test)]
mod tests;
