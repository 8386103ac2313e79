//! Pages: memory that one process writes and others read, without locks and without waiting.
//!
//! A page is a sealed memory file ([`crate::sys::memory`]) whose descriptor is handed to a role at
//! its start. Its first word names its layout, so that nobody takes one page for another.
//!
//! - [`Writer`] and [`Reader`]: a value of several words that is read whole or not at all
//!   (`seqlock`). [`key`] is the ring of master keys in this form, [`clock`] the truth about the
//!   clock, [`account`] what else is known of it, [`hardware`] how interfaces' stamps are
//!   translated.
//! - [`networks`]: a set of networks, written once.
//! - [`busiest`]: the networks that ask most, in fixed memory.
//! - [`stats`]: counters, each a word of its own; they are never torn and need no more.

pub mod account;
pub mod busiest;
pub mod clock;
pub mod hardware;
pub mod histogram;
pub mod key;
pub mod networks;
mod seqlock;
pub mod stats;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use zeroize::Zeroize as _;

use crate::limits::PAGE_READ_ATTEMPTS;
use crate::sys::memory::{ReadOnlyWord, ReadableMemory, WritableMemory, Writers};

/// What `seqlock` is built on; a test of it puts the simulated ones of loom in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

/// Words in front of a value: its layout and its sequence.
const HEAD_WORDS: usize = 2;
const LAYOUT: usize = 0;
const SEQUENCE: usize = 1;

/// The writing end of a page with a value of `WORDS` words.
///
/// A page that its maker writes has one for ever: the file is sealed against a second, and what it
/// wrote is wiped when it is dropped; readers keep the copy that they have. A page that a role
/// writes has one at a time: the supervisor makes it and hands it to a role, and to the next one
/// when that has ended. Its value outlives them.
#[derive(Debug)]
pub struct Writer<const WORDS: usize> {
    memory: WritableMemory,
    file: OwnedFd,
    writers: Writers,
}

impl<const WORDS: usize> Writer<WORDS> {
    /// A new page, called `name` in `/proc`, that holds no value yet.
    pub fn create(name: &str, layout: u64) -> io::Result<Self> {
        Self::create_for(Writers::Maker, name, layout)
    }

    /// The same, for roles to write, one after the other.
    pub fn create_for_roles(name: &str, layout: u64) -> io::Result<Self> {
        Self::create_for(Writers::Holders, name, layout)
    }

    fn create_for(writers: Writers, name: &str, layout: u64) -> io::Result<Self> {
        let (memory, file) = WritableMemory::create(name, HEAD_WORDS + WORDS, writers)?;
        memory.words()[LAYOUT].store(layout, Ordering::Relaxed);
        Ok(Self { memory, file, writers })
    }

    /// Takes over a page that was made for roles; fails for any other file. One that was killed
    /// while it wrote does no harm: readers take nothing until the next value is whole.
    pub fn attach(file: OwnedFd, layout: u64) -> io::Result<Self> {
        let memory = WritableMemory::attach(&file, HEAD_WORDS + WORDS)?;
        if memory.words()[LAYOUT].load(Ordering::Relaxed) != layout {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a page of this layout"));
        }
        Ok(Self { memory, file, writers: Writers::Holders })
    }

    /// Replaces the value for every reader at once.
    pub fn write(&mut self, value: &[u64; WORDS]) {
        let (head, words) = self.memory.words().split_at(HEAD_WORDS);
        seqlock::write(&head[SEQUENCE], words, value);
    }

    /// The page, for handing over to readers.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl<const WORDS: usize> Drop for Writer<WORDS> {
    fn drop(&mut self) {
        if self.writers == Writers::Maker {
            let (head, words) = self.memory.words().split_at(HEAD_WORDS);
            seqlock::close(&head[SEQUENCE], words);
        }
    }
}

/// The reading end of a page. No `Debug`: the value may be keys.
pub struct Reader<const WORDS: usize> {
    memory: ReadableMemory,
    /// Sequence of the value that was read last; 0 before the first.
    seen: u64,
    value: [u64; WORDS],
}

impl<const WORDS: usize> Reader<WORDS> {
    /// Maps a page that was made with the same layout; fails for any other file.
    pub fn open(file: impl AsFd, layout: u64) -> io::Result<Self> {
        let memory = ReadableMemory::attach(file, HEAD_WORDS + WORDS)?;
        if memory.words()[LAYOUT].load() != layout {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a page of this layout"));
        }
        Ok(Self { memory, seen: 0, value: [0; WORDS] })
    }

    /// The value, if it has changed since the last call and can be had whole. One load when it has
    /// not changed. `None` too while a write is under way: the next call sees its end.
    #[inline]
    pub fn news(&mut self) -> Option<&[u64; WORDS]> {
        if self.memory.words()[SEQUENCE].load() == self.seen { None } else { self.read() }
    }

    #[cold]
    fn read(&mut self) -> Option<&[u64; WORDS]> {
        let (head, words) = self.memory.words().split_at(HEAD_WORDS);
        let sequence = &head[SEQUENCE];
        let found = seqlock::read(sequence, words, &mut self.value, PAGE_READ_ATTEMPTS)?;
        let is_new = found != self.seen;
        self.seen = found;
        is_new.then_some(&self.value)
    }

    /// Wipes the copy that [`Reader::news`] gave.
    pub fn wipe(&mut self) {
        self.value.zeroize();
    }
}

impl<const WORDS: usize> Drop for Reader<WORDS> {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl seqlock::Word for ReadOnlyWord {
    #[inline]
    fn load(&self) -> u64 {
        ReadOnlyWord::load(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT_OF_TESTS: u64 = 42;

    #[test]
    fn a_value_is_news_once() {
        let mut writer = Writer::<3>::create("timeball-test", LAYOUT_OF_TESTS).expect("made");
        let mut reader = Reader::<3>::open(writer.file(), LAYOUT_OF_TESTS).expect("mapped");
        assert_eq!(reader.news(), None, "nothing is written yet");
        writer.write(&[1, 2, 3]);
        assert_eq!(reader.news(), Some(&[1, 2, 3]));
        assert_eq!(reader.news(), None);
        writer.write(&[4, 5, 6]);
        writer.write(&[7, 8, 9]);
        assert_eq!(reader.news(), Some(&[7, 8, 9]));
    }

    #[test]
    fn a_dropped_writer_leaves_nothing_to_read() {
        let mut writer = Writer::<3>::create("timeball-test", LAYOUT_OF_TESTS).expect("made");
        writer.write(&[1, 2, 3]);
        let mut reader = Reader::<3>::open(writer.file(), LAYOUT_OF_TESTS).expect("mapped");
        drop(writer);
        assert_eq!(reader.news(), None);
        let words: Vec<u64> = reader.memory.words().iter().map(ReadOnlyWord::load).collect();
        assert_eq!(words[HEAD_WORDS..], [0, 0, 0]);
    }

    #[test]
    fn a_page_for_roles_outlives_its_writers_even_one_killed_in_a_write() {
        let made = Writer::<3>::create_for_roles("timeball-test", LAYOUT_OF_TESTS).expect("made");
        let mut reader = Reader::<3>::open(made.file(), LAYOUT_OF_TESTS).expect("mapped");
        let attach = || {
            let file = made.file().try_clone_to_owned().expect("a descriptor");
            Writer::<3>::attach(file, LAYOUT_OF_TESTS)
        };
        attach().expect("mapped").write(&[1, 2, 3]);
        assert_eq!(reader.news(), Some(&[1, 2, 3]));
        // The odd number that a killed writer leaves.
        made.memory.words()[SEQUENCE].fetch_add(1, Ordering::Relaxed);
        made.memory.words()[HEAD_WORDS].store(9, Ordering::Relaxed);
        assert_eq!(reader.news(), None);
        attach().expect("mapped").write(&[4, 5, 6]);
        assert_eq!(reader.news(), Some(&[4, 5, 6]));
        let other = made.file().try_clone_to_owned().expect("a descriptor");
        assert!(Writer::<3>::attach(other, LAYOUT_OF_TESTS + 1).is_err());
    }

    #[test]
    fn another_layout_is_refused() {
        let writer = Writer::<3>::create("timeball-test", LAYOUT_OF_TESTS).expect("made");
        assert!(Reader::<3>::open(writer.file(), LAYOUT_OF_TESTS + 1).is_err());
        assert!(Reader::<4>::open(writer.file(), LAYOUT_OF_TESTS).is_err());
    }
}
