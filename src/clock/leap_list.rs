//! The list of leap seconds that IERS and NIST publish (`leap-seconds.list`), which tzdata installs
//! too.
//!
//! A line is a time in seconds since 1900 and the difference between TAI and UTC from then on.
//! Among the comments, `#$` has the time of the last update, `#@` the one when the list expires,
//! and `#h` a hash: SHA-1 over all of these numbers, as they are written, without white space.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, Serialize};

use super::leap::LeapKind;
use crate::limits::{DAY_SECONDS, LEAP_AFTER_SECONDS};
use crate::wire::timestamp::{NtpTimestamp, UNIX_EPOCH_SECONDS};

/// Leap seconds, and until when there are no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeapList {
    expires_unix_seconds: i64,
    leaps: Vec<Listed>,
}

/// A leap second of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The first moment after it, a midnight of UTC, in seconds since 1970.
    pub unix_seconds: i64,
    /// What it does.
    pub kind: LeapKind,
}

/// Why a text is not taken for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeapListError {
    /// Bytes that are no characters.
    #[error("it is no text")]
    NotText,
    /// A line that is neither a comment nor an entry.
    #[error("line {0} is neither a comment nor an entry")]
    Line(usize),
    /// An entry that does not come a second after the one before it, at a midnight.
    #[error("line {0} is no leap second after the one before it")]
    Disorder(usize),
    /// There is no such line, or nothing that makes sense in it.
    #[error("it has no line \"{0}\" with {1}")]
    Missing(&'static str, &'static str),
    /// The numbers are not those that were hashed.
    #[error("its content does not fit its hash (line \"#h\")")]
    Damaged,
}

impl LeapList {
    /// Reads a list and checks it against its hash.
    pub fn parse(bytes: &[u8]) -> Result<Self, LeapListError> {
        let text = std::str::from_utf8(bytes).map_err(|_| LeapListError::NotText)?;
        let (mut hashed, mut expires, mut hash) = (String::new(), None, None);
        let mut entries = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            match line.get(..2) {
                Some("#h") => hash = parse_hash(&line[2..]),
                Some("#$") => hashed.extend(line[2..].split_whitespace()),
                Some("#@") => {
                    hashed.extend(line[2..].split_whitespace());
                    expires = line[2..].trim().parse().ok().map(from_ntp_seconds);
                }
                _ => {
                    let content = line.split('#').next().unwrap_or_default();
                    if content.trim().is_empty() {
                        continue;
                    }
                    hashed.extend(content.split_whitespace());
                    let entry = parse_entry(content).ok_or(LeapListError::Line(number))?;
                    entries.push((number, entry));
                }
            }
        }
        let hash = hash.ok_or(LeapListError::Missing("#h", "its hash"))?;
        let expires_unix_seconds =
            expires.ok_or(LeapListError::Missing("#@", "the time when it expires"))?;
        if digest(&SHA1_FOR_LEGACY_USE_ONLY, hashed.as_bytes()).as_ref() != hash {
            return Err(LeapListError::Damaged);
        }
        Ok(Self { expires_unix_seconds, leaps: leaps(&entries)? })
    }

    /// When the list expires, in seconds since 1970: what lies beyond was not known.
    pub fn expires_unix_seconds(&self) -> i64 {
        self.expires_unix_seconds
    }

    /// Whether the list has expired at `time`.
    pub fn is_expired(&self, time: NtpTimestamp) -> bool {
        self.unix_seconds(time) >= self.expires_unix_seconds
    }

    /// The leap second that concerns a clock which shows `time`: from a day before it until half a
    /// day after.
    pub fn near(&self, time: NtpTimestamp) -> Option<Listed> {
        let near = self.from(self.unix_seconds(time) - LEAP_AFTER_SECONDS)?;
        (near.unix_seconds - self.unix_seconds(time) <= DAY_SECONDS).then_some(near)
    }

    /// The next leap second after `time`.
    pub fn next(&self, time: NtpTimestamp) -> Option<Listed> {
        self.from(self.unix_seconds(time))
    }

    /// The first leap second after a moment, of those that the list can know.
    fn from(&self, unix_seconds: i64) -> Option<Listed> {
        let known = self.leaps.iter().find(|leap| leap.unix_seconds > unix_seconds)?;
        (known.unix_seconds <= self.expires_unix_seconds).then_some(*known)
    }

    /// In the era that is nearest to the list.
    fn unix_seconds(&self, time: NtpTimestamp) -> i64 {
        let nanoseconds = time.to_unix_nanoseconds(self.expires_unix_seconds);
        nanoseconds.div_euclid(1_000_000_000) as i64
    }
}

/// From seconds since 1900. Lists count on beyond the 32 bits of the wire.
fn from_ntp_seconds(seconds: u64) -> i64 {
    seconds as i64 - UNIX_EPOCH_SECONDS as i64
}

/// Five words of 32 bits in hexadecimal digits; NIST leaves zeros in front of a word away.
fn parse_hash(text: &str) -> Option<[u8; 20]> {
    let words: Result<Vec<u32>, _> =
        text.split_whitespace().map(|word| u32::from_str_radix(word, 16)).collect();
    let words: [u32; 5] = words.ok()?.try_into().ok()?;
    words.map(u32::to_be_bytes).as_flattened().try_into().ok()
}

/// A time, and TAI minus UTC from then on.
type Entry = (i64, i64);

fn parse_entry(text: &str) -> Option<Entry> {
    let mut numbers = text.split_whitespace();
    let at = from_ntp_seconds(numbers.next()?.parse().ok()?);
    let difference = numbers.next()?.parse::<u8>().ok()?;
    numbers.next().is_none().then_some((at, difference.into()))
}

/// The first entry is no leap second, but the beginning of UTC as it is.
fn leaps(entries: &[(usize, Entry)]) -> Result<Vec<Listed>, LeapListError> {
    let pairs = entries.windows(2).map(|pair| {
        let [(_, (before, old)), (number, (unix_seconds, new))] = *pair else {
            unreachable!("windows of two")
        };
        let kind = match new - old {
            1 => Some(LeapKind::Insert),
            -1 => Some(LeapKind::Delete),
            _ => None,
        };
        kind.filter(|_| unix_seconds > before && unix_seconds % DAY_SECONDS == 0)
            .map(|kind| Listed { unix_seconds, kind })
            .ok_or(LeapListError::Disorder(number))
    });
    pairs.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 2027-01-01T00:00:00Z.
    pub(crate) const NEW_YEAR: i64 = 1_798_761_600;

    /// A list that expires half a year after its last entry.
    pub(crate) fn text(entries: &[(i64, u8)]) -> String {
        let ntp = |unix_seconds: i64| unix_seconds + UNIX_EPOCH_SECONDS as i64;
        let last = entries.last().map_or(0, |(at, _)| *at);
        let (updated, expires) = (ntp(last) - 200 * DAY_SECONDS, ntp(last) + 178 * DAY_SECONDS);
        let mut hashed = format!("{updated}{expires}");
        let mut text = format!("#\tA list\n#$\t{updated}\n#@\t{expires}\n#\n");
        for (at, difference) in entries {
            hashed += &format!("{}{difference}", ntp(*at));
            text += &format!("{}\t{difference}\t# a midnight\n", ntp(*at));
        }
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, hashed.as_bytes());
        let words = hash
            .as_ref()
            .chunks(4)
            .map(|word| format!(" {:x}", u32::from_be_bytes(word.try_into().expect("four bytes"))));
        text + "#h" + &words.collect::<String>() + "\n"
    }

    /// 2017-01-01, the last one so far, and one of each kind.
    pub(crate) fn list() -> LeapList {
        let entries = [(1_483_228_800, 37), (NEW_YEAR - 184 * DAY_SECONDS, 36), (NEW_YEAR, 37)];
        LeapList::parse(text(&entries).as_bytes()).expect("a list")
    }

    fn at(unix_seconds: i64) -> NtpTimestamp {
        NtpTimestamp::from_unix(unix_seconds, 0)
    }

    /// As IERS published it in July 2025; it is in the public domain.
    #[test]
    fn the_list_of_iers_is_read() {
        let text = include_str!("leap_list/leap-seconds.list");
        let list = LeapList::parse(text.as_bytes()).expect("as published");
        assert_eq!(list.leaps.len(), 27);
        assert!(list.leaps.iter().all(|leap| leap.kind == LeapKind::Insert));
        assert_eq!(list.leaps[26].unix_seconds, 1_483_228_800, "2017-01-01");
        assert_eq!(list.expires_unix_seconds(), 1_782_604_800, "2026-06-28");
        assert!(!list.is_expired(at(1_782_604_799)) && list.is_expired(at(1_782_604_800)));
    }

    #[test]
    fn a_leap_second_is_near_from_a_day_before_until_half_a_day_after() {
        let list = list();
        let insert = Listed { unix_seconds: NEW_YEAR, kind: LeapKind::Insert };
        for (seconds, expected) in [
            (-DAY_SECONDS - 1, None),
            (-DAY_SECONDS, Some(insert)),
            (-1, Some(insert)),
            (0, Some(insert)),
            (LEAP_AFTER_SECONDS - 1, Some(insert)),
            (LEAP_AFTER_SECONDS, None),
        ] {
            assert_eq!(list.near(at(NEW_YEAR + seconds)), expected, "{seconds}");
        }
        let summer = at(NEW_YEAR - 200 * DAY_SECONDS);
        assert_eq!(list.next(summer).map(|leap| leap.kind), Some(LeapKind::Delete));
        assert_eq!(list.next(at(NEW_YEAR)), None);
    }

    #[test]
    fn what_lies_beyond_the_expiry_is_not_known() {
        let expires = NEW_YEAR - 3;
        let list = LeapList { expires_unix_seconds: expires, ..list() };
        assert_eq!(list.near(at(NEW_YEAR - 100)), None);
        assert_eq!(list.next(at(NEW_YEAR - 100)), None);
    }

    /// In 2036 the seconds of the wire begin anew.
    #[test]
    fn c110_the_era_changes_unseen() {
        let rollover = 2_085_978_496;
        let midnight = rollover / DAY_SECONDS * DAY_SECONDS + DAY_SECONDS;
        let list = LeapList {
            expires_unix_seconds: midnight + 1000,
            leaps: vec![Listed { unix_seconds: midnight, kind: LeapKind::Insert }],
        };
        for seconds in [rollover - 10, rollover + 10, midnight + 10] {
            assert!(list.near(at(seconds)).is_some(), "{seconds}");
        }
    }

    #[test]
    fn what_is_damaged_is_no_list() {
        let good = text(&[(1_483_228_800, 37), (NEW_YEAR, 38)]);
        assert!(LeapList::parse(good.as_bytes()).is_ok());
        let error = |text: &str| LeapList::parse(text.as_bytes()).expect_err(text);
        let changed = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            error(&good.replace(from, to))
        };
        assert_eq!(error(""), LeapListError::Missing("#h", "its hash"));
        assert_eq!(changed("#h", "#x"), LeapListError::Missing("#h", "its hash"));
        assert_eq!(changed("#@", "##"), LeapListError::Missing("#@", "the time when it expires"));
        assert_eq!(changed("\t38", "\t36"), LeapListError::Damaged);
        assert_eq!(changed("#$\t3", "#$\t4"), LeapListError::Damaged);
        assert_eq!(changed("\t38\t#", "\t38 1 #"), LeapListError::Line(6));
        assert_eq!(changed("#\tA list", "<html>"), LeapListError::Line(1));
        let cut = &good[..good.len() - 20];
        assert_eq!(error(cut), LeapListError::Missing("#h", "its hash"));
        assert_eq!(LeapList::parse(&[0xff, 0xfe]), Err(LeapListError::NotText));
        for entries in [
            [(1_483_228_800, 37), (NEW_YEAR, 39)],
            [(1_483_228_800, 37), (NEW_YEAR + 1, 38)],
            [(NEW_YEAR, 37), (1_483_228_800, 38)],
        ] {
            assert_eq!(error(&text(&entries)), LeapListError::Disorder(6), "{entries:?}");
        }
    }
}
