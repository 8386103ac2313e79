//! The page that holds the last truth about the clock.
//!
//! The clock role writes it, one process after the other; the supervisor made it. Workers look at
//! it before every batch: one load when nothing has changed, which is but for once a second.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::{Reader, Writer};
use crate::clock::leap::{LeapKind, LeapSecond};
use crate::clock::record::{ClockRecord, Moment, SourceState};
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

const WORDS: usize = 13;

/// Changes with the layout.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:clk:3");

/// The writing end.
#[derive(Debug)]
pub struct ClockPage {
    page: Writer<WORDS>,
}

impl ClockPage {
    /// A new page that holds `record`.
    pub fn create(record: &ClockRecord) -> io::Result<Self> {
        let mut page = Self { page: Writer::create_for_roles("timeball-clock", LAYOUT)? };
        page.publish(record);
        Ok(page)
    }

    /// Takes a page over; fails for any other file.
    pub fn attach(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { page: Writer::attach(file, LAYOUT)? })
    }

    /// Gives every reader this record.
    pub fn publish(&mut self, record: &ClockRecord) {
        self.page.write(&to_words(record));
    }

    /// The record that this process or the one before it published last; none if that one was
    /// killed while it wrote.
    pub fn latest(&self) -> io::Result<Option<ClockRecord>> {
        Ok(ClockReader::open(self.file())?.news())
    }

    /// The page, for handing over to the next one who writes it.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.page.file()
    }

    /// The page, for handing over to those who only read it: opened anew, since what a descriptor
    /// may do belongs to its opening.
    pub fn readable_file(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        Ok(File::open(path)?.into())
    }
}

/// The reading end.
pub struct ClockReader {
    page: Reader<WORDS>,
}

impl ClockReader {
    /// Maps the page; fails for any other file.
    pub fn open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self { page: Reader::open(file, LAYOUT)? })
    }

    /// The record, if it is new since the last call: one load when it is not.
    #[inline]
    pub fn news(&mut self) -> Option<ClockRecord> {
        self.page.news().map(from_words)
    }
}

fn to_words(record: &ClockRecord) -> [u64; WORDS] {
    let leap_second = record.leap_second.map_or(0, leap_second_bits);
    let head = [record.leap as u8, record.stratum, record.source_state as u8, leap_second];
    [
        u64::from(u32::from_be_bytes(head)) << 32
            | u64::from(u32::from_be_bytes(record.reference_id.0)),
        record.reference_timestamp.to_bits(),
        record.root_delay.to_bits().into(),
        record.root_dispersion_seconds.to_bits(),
        record.dispersion_rate.to_bits(),
        record.correction_seconds.to_bits(),
        record.correction_rate.to_bits(),
        record.taken.system.to_bits(),
        nanoseconds(record.taken.since_boot),
        nanoseconds(record.holdover),
        record.leap_second.map_or(0, |leap| leap.at.to_bits()),
        record.smoothed_seconds.to_bits(),
        record.smoothed_rate.to_bits(),
    ]
}

fn from_words(words: &[u64; WORDS]) -> ClockRecord {
    let [leap, stratum, source_state, leap_second] = ((words[0] >> 32) as u32).to_be_bytes();
    ClockRecord {
        leap: Leap::from_bits(leap),
        stratum,
        reference_id: ReferenceId((words[0] as u32).to_be_bytes()),
        reference_timestamp: NtpTimestamp::from_bits(words[1]),
        root_delay: NtpShort::from_bits(words[2] as u32),
        root_dispersion_seconds: f64::from_bits(words[3]),
        dispersion_rate: f64::from_bits(words[4]),
        correction_seconds: f64::from_bits(words[5]),
        correction_rate: f64::from_bits(words[6]),
        smoothed_seconds: f64::from_bits(words[11]),
        smoothed_rate: f64::from_bits(words[12]),
        leap_second: leap_second_of(leap_second, NtpTimestamp::from_bits(words[10])),
        source_state: SourceState::from_bits(source_state),
        taken: Moment {
            system: NtpTimestamp::from_bits(words[7]),
            since_boot: Duration::from_nanos(words[8]),
        },
        holdover: Duration::from_nanos(words[9]),
    }
}

/// Bits of a leap second; no bit is set if there is none.
const LEAP_INSERT: u8 = 1;
const LEAP_DELETE: u8 = 2;
const LEAP_MADE: u8 = 4;
const LEAP_SMEARED: u8 = 8;

fn leap_second_bits(leap: LeapSecond) -> u8 {
    let kind = match leap.kind {
        LeapKind::Insert => LEAP_INSERT,
        LeapKind::Delete => LEAP_DELETE,
    };
    let made = if leap.is_made { LEAP_MADE } else { 0 };
    let smeared = if leap.is_smeared { LEAP_SMEARED } else { 0 };
    kind | made | smeared
}

fn leap_second_of(bits: u8, at: NtpTimestamp) -> Option<LeapSecond> {
    let kind = match bits & (LEAP_INSERT | LEAP_DELETE) {
        LEAP_INSERT => LeapKind::Insert,
        LEAP_DELETE => LeapKind::Delete,
        _ => return None,
    };
    let (is_made, is_smeared) = (bits & LEAP_MADE != 0, bits & LEAP_SMEARED != 0);
    Some(LeapSecond { at, kind, is_made, is_smeared })
}

/// 584 years at the most.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: Moment = Moment {
        system: NtpTimestamp::from_unix(1_800_000_000, 5),
        since_boot: Duration::from_nanos(1_234_567_890_123),
    };

    #[test]
    fn what_is_published_is_read() {
        let record = ClockRecord {
            leap: Leap::Delete,
            stratum: 15,
            reference_id: ReferenceId([255, 1, 2, 254]),
            reference_timestamp: NtpTimestamp::from_bits(u64::MAX << 32),
            root_delay: NtpShort::from_bits(u32::MAX),
            root_dispersion_seconds: 1.5,
            dispersion_rate: 2.5e-6,
            correction_seconds: -0.25,
            correction_rate: 1e-3,
            smoothed_seconds: 0.125,
            smoothed_rate: -1e-4,
            leap_second: Some(LeapSecond {
                at: NtpTimestamp::from_bits(u64::MAX),
                kind: LeapKind::Delete,
                is_made: true,
                is_smeared: true,
            }),
            source_state: SourceState::Contradictory,
            taken: TAKEN,
            holdover: Duration::from_secs(3600),
        };
        let nobody = ClockRecord::unsynchronised(SourceState::Unknown, TAKEN);
        let page = ClockPage::create(&nobody).expect("made");
        let mut reader = ClockReader::open(page.file()).expect("mapped");
        assert_eq!(reader.news(), Some(nobody));
        let file = page.file().try_clone_to_owned().expect("a descriptor");
        let mut role = ClockPage::attach(file).expect("mapped");
        assert_eq!(role.latest().expect("mapped"), Some(nobody));
        role.publish(&record);
        assert_eq!((reader.news(), reader.news()), (Some(record), None));
        drop((role, page));
        assert_eq!(reader.news(), None, "and what was read stays");
    }

    #[test]
    fn who_may_only_read_cannot_write() {
        let nobody = ClockRecord::unsynchronised(SourceState::Unknown, TAKEN);
        let page = ClockPage::create(&nobody).expect("made");
        let readable = page.readable_file().expect("opened");
        assert!(ClockReader::open(&readable).expect("mapped").news().is_some());
        assert!(ClockPage::attach(readable).is_err());
    }

    #[test]
    fn every_state_of_a_source_has_its_number() {
        for bits in 0..=5 {
            assert_eq!(SourceState::from_bits(bits) as u8, bits);
        }
        assert_eq!(SourceState::from_bits(6), SourceState::Unknown);
    }
}
