//! The clock of this host, as the clock role's page describes it.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::hardware::Anchor;
use super::record::{ClockRecord, Moment, SourceState};
use super::{Clock, ClockState, source};
use crate::limits::hardware::ANCHOR_NANOSECONDS_MAX;
use crate::limits::{
    CLOCK_LOOK_INTERVAL, CLOCK_STEP_MIN_SECONDS, LEAP_LOOK, MOMENT_ATTEMPTS, PRECISION_READINGS,
};
use crate::page::clock::{ClockPage, ClockReader};
use crate::sys::boottime::since_boot;
use crate::wire::timestamp::NtpTimestamp;

/// The host's clock, its standing taken from the page and aged once a second.
pub struct HostClock {
    page: ClockReader,
    record: ClockRecord,
    precision: i8,
    state: ClockState,
}

impl HostClock {
    /// Maps the page and measures the precision; fails for any other file. While the page holds no
    /// record the clock is unsynchronised.
    pub fn open(page: impl AsFd) -> io::Result<Self> {
        let mut page = ClockReader::open(page)?;
        let precision = measure_precision();
        let now = moment();
        let nobody = || ClockRecord::unsynchronised(SourceState::Unknown, now);
        let record = page.news().unwrap_or_else(nobody);
        Ok(Self { page, record, precision, state: record.state_at(now, precision) })
    }

    /// The clock as it is, declared to be of this stratum for ever: for servers without a clock
    /// role, as benches and tests have them.
    pub fn declared(stratum: u8) -> io::Result<Self> {
        let record = source::local(None, stratum, moment(), Duration::MAX);
        Self::open(ClockPage::create(&record)?.file())
    }

    /// Takes a new record if there is one, and looks how old it is if the last look is old. To be
    /// called before each batch: one load and one reading of the clock when nothing is due.
    #[inline]
    pub fn refresh(&mut self) {
        if let Some(record) = self.page.news() {
            self.record = record;
            self.look();
            return;
        }
        let now = realtime();
        let age = now.seconds_since(self.state.as_of);
        let is_leaping = self
            .state
            .leap_second
            .is_some_and(|leap| now.seconds_since(leap.at).unsigned_abs() < LEAP_LOOK);
        if is_leaping || !(0..(CLOCK_LOOK_INTERVAL.as_secs() as i64) << 32).contains(&age) {
            self.look();
        }
    }

    #[cold]
    fn look(&mut self) {
        self.state = self.record.state_at(moment(), self.precision);
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

/// The system's time.
pub fn realtime() -> NtpTimestamp {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> NtpTimestamp {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    NtpTimestamp::from_unix(tv_sec, tv_nsec as u32)
}

/// This moment. A process that is kept from running between two readings reads again: what lies
/// between them would look like a step of the clock.
pub fn moment() -> Moment {
    let mut before = since_boot();
    for _ in 1..MOMENT_ATTEMPTS {
        let (system, after) = (realtime(), since_boot());
        if after.saturating_sub(before).as_secs_f64() < CLOCK_STEP_MIN_SECONDS / 2.0 {
            return Moment { system, since_boot: before };
        }
        before = after;
    }
    Moment { system: realtime(), since_boot: before }
}

/// Where the system's clock and `CLOCK_MONOTONIC_RAW` stand. A process that is kept from running
/// between the readings reads again, and takes the quickest.
pub fn anchor() -> Anchor {
    let mut quickest = (i64::MAX, Anchor { monotonic: 0, system: 0 });
    for _ in 0..MOMENT_ATTEMPTS {
        let before = nanoseconds(ClockId::MonotonicRaw);
        let system = nanoseconds(ClockId::Realtime);
        let took = nanoseconds(ClockId::MonotonicRaw).wrapping_sub(before);
        if took < quickest.0 {
            quickest = (took, Anchor { monotonic: before.wrapping_add(took / 2), system });
        }
        if took <= ANCHOR_NANOSECONDS_MAX {
            break;
        }
    }
    quickest.1
}

fn nanoseconds(clock: ClockId) -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec.wrapping_mul(1_000_000_000).wrapping_add(tv_nsec)
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
    use crate::wire::ntp::Leap;

    #[test]
    fn c104_the_measured_precision_is_that_of_a_clock() {
        let precision = measure_precision();
        assert!((-30..=-10).contains(&precision), "2^{precision} s");
    }

    #[test]
    fn what_the_page_says_is_told_at_the_next_look_and_outlives_its_writer() {
        let start = moment();
        let nobody = ClockRecord::unsynchronised(SourceState::Unknown, start);
        let mut page = ClockPage::create(&nobody).expect("a page");
        let mut clock = HostClock::open(page.file()).expect("mapped");
        assert!(!clock.state().is_synchronised());
        page.publish(&source::local(None, 7, start, Duration::from_secs(3600)));
        clock.refresh();
        assert_eq!((clock.state().leap, clock.state().stratum), (Leap::None, 7));
        drop(page);
        clock.look();
        assert_eq!(clock.state().stratum, 7);
    }

    #[test]
    fn a_moment_is_no_step_away_from_the_next() {
        let first = moment();
        assert_eq!(moment().step_since(first), 0.0);
    }
}
