//! The page that says how hardware timestamps are translated: for each interface whose clock is
//! followed.
//!
//! The clock role writes it once a second. Workers look at it when a batch brings such a stamp.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;

use super::{Reader, Writer};
use crate::clock::hardware::Translation;
use crate::limits::hardware::HARDWARE_INTERFACES_MAX;

/// An interface whose stamps can be translated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StampedBy {
    /// Its number, never 0.
    pub interface: u32,
    /// How fast bits come in, 10⁶ a second; 0 if that is not known.
    pub megabits_per_second: u32,
    /// By its clock.
    pub translation: Translation,
}

/// All of them.
pub type Translations = ArrayVec<StampedBy, HARDWARE_INTERFACES_MAX>;

const WORDS_EACH: usize = 6;
const WORDS: usize = HARDWARE_INTERFACES_MAX * WORDS_EACH;

/// Changes with the layout.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:phc:1");

/// The writing end.
#[derive(Debug)]
pub struct HardwarePage {
    page: Writer<WORDS>,
}

impl HardwarePage {
    /// A new page without interfaces.
    pub fn create() -> io::Result<Self> {
        let page = Writer::create_for_roles("timeball-hardware", LAYOUT)?;
        Ok(Self { page })
    }

    /// Takes a page over; fails for any other file.
    pub fn attach(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { page: Writer::attach(file, LAYOUT)? })
    }

    /// Gives readers these.
    pub fn publish(&mut self, translations: &Translations) {
        let mut words = [0; WORDS];
        for (words, stamped_by) in words.chunks_exact_mut(WORDS_EACH).zip(translations) {
            words.copy_from_slice(&to_words(stamped_by));
        }
        self.page.write(&words);
    }

    /// The page, for handing over.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.page.file()
    }
}

/// The reading end.
pub struct HardwareReader {
    page: Reader<WORDS>,
}

impl HardwareReader {
    /// Maps the page; fails for any other file.
    pub fn open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self { page: Reader::open(file, LAYOUT)? })
    }

    /// The translations, if they are new since the last call.
    pub fn news(&mut self) -> Option<Translations> {
        let words = self.page.news()?;
        Some(words.chunks_exact(WORDS_EACH).filter_map(from_words).collect())
    }
}

impl fmt::Debug for HardwareReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HardwareReader").finish_non_exhaustive()
    }
}

fn to_words(stamped_by: &StampedBy) -> [u64; WORDS_EACH] {
    let StampedBy { interface, megabits_per_second, translation } = stamped_by;
    [
        u64::from(*megabits_per_second) << 32 | u64::from(*interface),
        translation.phc as u64,
        translation.monotonic as u64,
        translation.rate.to_bits(),
        translation.error_nanoseconds.to_bits(),
        translation.error_rate.to_bits(),
    ]
}

/// A place whose interface is 0 is free.
fn from_words(words: &[u64]) -> Option<StampedBy> {
    let &[interface, phc, monotonic, rate, error_nanoseconds, error_rate] = words else {
        return None;
    };
    let translation = Translation {
        phc: phc as i64,
        monotonic: monotonic as i64,
        rate: f64::from_bits(rate),
        error_nanoseconds: f64::from_bits(error_nanoseconds),
        error_rate: f64::from_bits(error_rate),
    };
    let megabits_per_second = (interface >> 32) as u32;
    let interface = interface as u32;
    (interface != 0).then_some(StampedBy { interface, megabits_per_second, translation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_and_what_is_withdrawn_is_not() {
        let stamped_by = |interface| StampedBy {
            interface,
            megabits_per_second: 25_000,
            translation: Translation {
                phc: i64::MIN,
                monotonic: -1,
                rate: -50e-6,
                error_nanoseconds: 850.5,
                error_rate: 1e-6,
            },
        };
        let mut page = HardwarePage::create().expect("made");
        let mut reader = HardwareReader::open(page.file()).expect("mapped");
        assert_eq!(reader.news(), None);
        let full: Translations = (1..=HARDWARE_INTERFACES_MAX as u32).map(stamped_by).collect();
        page.publish(&full);
        assert_eq!((reader.news(), reader.news()), (Some(full), None));
        let one = Translations::from_iter([stamped_by(u32::MAX)]);
        let mut role =
            HardwarePage::attach(page.file().try_clone_to_owned().expect("a descriptor"))
                .expect("mapped");
        role.publish(&one);
        assert_eq!(reader.news(), Some(one));
        role.publish(&Translations::new());
        assert_eq!(reader.news(), Some(Translations::new()));
    }
}
