//! Who knows of leap seconds: the list of a file, held against what the source says.
//!
//! The source announces the leap second that its own clock will make, so its word is told whatever
//! the list says; the list speaks where the source is silent about it. A source that smears by
//! itself is silent for that reason, and then nothing is said and nothing smeared once more.

use serde::{Deserialize, Serialize};

use super::leap::{LeapKind, LeapSecond, SMEARED_REFERENCE_ID, Smear};
use super::leap_list::{LeapList, Listed};
use super::record::{ClockRecord, Moment};
use crate::limits::LEAP_CONFLICT_SECONDS;
use crate::sys::adjtimex::{KernelClock, LeapStatus};
use crate::wire::ntp::Leap;
use crate::wire::timestamp::NtpTimestamp;

/// What became of a leap-seconds file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeapNews {
    /// The last list that it held; none if it never held one.
    pub list: Option<LeapList>,
    /// Why it holds none now; empty if it does.
    pub refused: String,
}

/// The leap seconds of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeapWatch {
    file: String,
    news: LeapNews,
    smear: Smear,
    source_smears: bool,
}

impl LeapWatch {
    /// Of the file of this name, whose leap seconds are announced or smeared.
    pub fn new(file: String, news: LeapNews, smear: Smear) -> Self {
        Self { file, news, smear, source_smears: false }
    }

    /// Whether the source says that it smears by itself.
    pub fn source_smears(&mut self, it_does: bool) {
        self.source_smears = it_does;
    }

    /// The file was read again.
    pub fn take(&mut self, news: LeapNews) {
        self.news = news;
    }

    /// What `record`, which is good for `now`, is to say of the leap second that is near. `before`
    /// is the record that was published last.
    pub fn near(
        &self,
        record: &ClockRecord,
        before: Option<&ClockRecord>,
        now: Moment,
        kernel: Option<&KernelClock>,
    ) -> Option<LeapSecond> {
        if self.is_smeared_already(record) {
            return None;
        }
        let time = record.time_at(now);
        let Listed { unix_seconds, kind } = self.news.list.as_ref()?.near(time)?;
        let at = NtpTimestamp::from_unix(unix_seconds, 0);
        let was_made = before
            .and_then(|before| before.leap_second_at(now))
            .is_some_and(|leap| leap.at == at && leap.is_made);
        let is_in_progress = kernel.is_some_and(|kernel| kernel.leap == LeapStatus::InProgress);
        // A daemon that slews the leap second away corrects by it at once.
        let is_corrected = record.correction_seconds <= -0.5 && now.system.seconds_since(at) >= 0;
        let is_made = was_made || is_in_progress || is_corrected;
        let is_smeared = self.smear != Smear::Off;
        Some(LeapSecond { at, kind, is_made, is_smeared }.seen(time, 0.0))
    }

    fn is_smeared_already(&self, record: &ClockRecord) -> bool {
        self.source_smears || record.reference_id == SMEARED_REFERENCE_ID
    }

    /// How the file fares beside a source whose last word is `record`.
    pub fn account(&self, record: Option<&ClockRecord>, now: Moment) -> LeapAccount {
        let time = record.map_or(now.system, |record| record.time_at(now));
        let list = self.news.list.as_ref();
        let is_smeared_already = record.is_some_and(|record| self.is_smeared_already(record));
        let near = record.and_then(|record| record.leap_second_at(now));
        let smear = (self.smear != Smear::Off).then(|| SmearAccount {
            shape: self.smear,
            is_refused: is_smeared_already,
            offset_seconds: near.map_or(0.0, |leap| leap.smear_seconds(time)),
        });
        LeapAccount {
            file: self.file.clone(),
            expires_unix_seconds: list.map(LeapList::expires_unix_seconds),
            next: list.and_then(|list| list.next(time)),
            why: if is_smeared_already {
                "the source smears leap seconds by itself; none is announced or smeared from it"
                    .to_owned()
            } else {
                self.why(record.map(|record| record.leap), time)
            },
            smear,
        }
    }

    /// Why the file is not followed, or not wholly.
    fn why(&self, source: Option<Leap>, time: NtpTimestamp) -> String {
        let LeapNews { list, refused } = &self.news;
        let Some(list) = list else {
            return format!("{refused}; no leap second is announced from it");
        };
        if list.is_expired(time) {
            return "it has expired; no leap second is announced from it".to_owned();
        }
        if !refused.is_empty() {
            return format!("{refused}; what it held before stays in use");
        }
        let announced = match source {
            Some(Leap::Insert) => LeapKind::Insert,
            Some(Leap::Delete) => LeapKind::Delete,
            _ => return String::new(),
        };
        // Some announce a leap second for weeks, and it is the source's until it takes it back.
        let is_listed = list.near(time).into_iter().chain(list.next(time)).any(|leap| {
            let at = NtpTimestamp::from_unix(leap.unix_seconds, 0);
            leap.kind == announced && at.seconds_since_f64(time) < LEAP_CONFLICT_SECONDS
        });
        if is_listed {
            return String::new();
        }
        let announced = match announced {
            LeapKind::Insert => "an inserted",
            LeapKind::Delete => "a deleted",
        };
        format!(
            "the source announces {announced} leap second that it does not list, and is believed"
        )
    }
}

/// The leap-seconds file, for the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeapAccount {
    /// Its name.
    pub file: String,
    /// When it expires; none if it never held a list.
    pub expires_unix_seconds: Option<i64>,
    /// The next leap second that it lists.
    pub next: Option<Listed>,
    /// Why it is not followed, or not wholly; empty if it is.
    pub why: String,
    /// `leap.smear`; none if it is off.
    pub smear: Option<SmearAccount>,
}

/// The smear, for the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmearAccount {
    /// Its shape.
    pub shape: Smear,
    /// The source smears by itself.
    pub is_refused: bool,
    /// What the time that is told is ahead of UTC; zero while no leap second is smeared.
    pub offset_seconds: f64,
}

/// The kernel's account without its leap second, if that is smeared: its own warnings and the
/// second itself are no matter of clients then. `before` is the record that was published last.
pub fn without_smeared_leap(
    kernel: KernelClock,
    before: Option<&ClockRecord>,
    now: Moment,
) -> KernelClock {
    let near = before.and_then(|before| before.leap_second_at(now));
    let leap =
        if near.is_some_and(|leap| leap.is_smeared) { LeapStatus::None } else { kernel.leap };
    KernelClock { leap, ..kernel }
}
