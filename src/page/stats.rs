//! Counters that one process counts and others read.
//!
//! A worker counts in memory of its own, as it always did, and copies the totals to its page after
//! each batch: some twenty plain stores, without a lock prefix, for up to 32 datagrams. A page has
//! one holder that writes, so no cache line is written by two; that is also why the counters of a
//! page are not padded apart. They become visible one by one: while a batch is being published, a
//! sum over several of them may be short of it. No counter ever goes back.
//!
//! The supervisor keeps the page. A process that is started again goes on where the last one was.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::engine::counters::Counters;
use crate::ke;
use crate::net::PortCounters;
use crate::sys::memory::{ReadOnlyWord, ReadableMemory, WritableMemory, Writers};

/// Counters that can stand in a page.
pub trait CounterSet {
    /// Name of the page in `/proc`.
    const PAGE: &'static str;
    /// Names of the counters, in the order of the page.
    const NAMES: &'static [&'static str];
    /// First word of the page: changes whenever a counter comes, goes, moves or is renamed.
    const LAYOUT: u64 = layout(Self::NAMES);

    /// As many values as there are names.
    fn values(&self) -> impl Iterator<Item = u64>;
}

/// What one worker of the responder counts.
#[derive(Clone, Copy, Debug)]
pub struct WorkerCounters<'a> {
    /// What became of the datagrams.
    pub engine: &'a Counters,
    /// What the port could not do.
    pub port: PortCounters,
}

impl CounterSet for WorkerCounters<'_> {
    const PAGE: &'static str = "timeball-stats-worker";
    const NAMES: &'static [&'static str] = {
        const NAMES: [&str; Counters::NAMES.len() + PortCounters::NAMES.len()] =
            joined(&Counters::NAMES, &PortCounters::NAMES);
        &NAMES
    };

    fn values(&self) -> impl Iterator<Item = u64> {
        self.engine.values().chain(self.port.values())
    }
}

impl CounterSet for ke::counters::Counters {
    const PAGE: &'static str = "timeball-stats-ke";
    const NAMES: &'static [&'static str] = &Self::NAMES;

    fn values(&self) -> impl Iterator<Item = u64> {
        self.values().into_iter()
    }
}

/// A page of counters, to read. It starts at zero.
#[derive(Debug)]
pub struct StatsPage<S> {
    memory: ReadableMemory,
    file: OwnedFd,
    set: PhantomData<fn() -> S>,
}

impl<S: CounterSet> StatsPage<S> {
    /// A new page.
    pub fn create() -> io::Result<Self> {
        let (memory, file) = WritableMemory::create(S::PAGE, page_words::<S>(), Writers::Holders)?;
        memory.words()[0].store(S::LAYOUT, Ordering::Relaxed);
        Self::open(file)
    }

    /// A page that another process made; fails for a page of other counters.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let memory = ReadableMemory::attach(&file, page_words::<S>())?;
        check_layout::<S>(memory.words()[0].load())?;
        Ok(Self { memory, file, set: PhantomData })
    }

    /// Names and totals, in the order of the page.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        S::NAMES.iter().copied().zip(self.memory.words()[1..].iter().map(ReadOnlyWord::load))
    }

    /// The page, for handing over to its writer.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The writing end of a page of counters.
#[derive(Debug)]
pub struct StatsWriter<S> {
    memory: WritableMemory,
    /// What those before this process have counted.
    before: Box<[u64]>,
    set: PhantomData<fn(S)>,
}

impl<S: CounterSet> StatsWriter<S> {
    /// Takes a page over; fails for a page of other counters.
    pub fn attach(file: impl AsFd) -> io::Result<Self> {
        let memory = WritableMemory::attach(file, page_words::<S>())?;
        check_layout::<S>(memory.words()[0].load(Ordering::Relaxed))?;
        let before = memory.words()[1..].iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Ok(Self { memory, before, set: PhantomData })
    }
}

impl<S> StatsWriter<S> {
    /// Publishes what this process has counted since its start, in place of what it published
    /// last.
    #[inline]
    pub fn publish(&mut self, set: &impl CounterSet) {
        let words = self.memory.words()[1..].iter();
        for ((word, before), value) in words.zip(&self.before).zip(set.values()) {
            word.store(before.wrapping_add(value), Ordering::Relaxed);
        }
    }
}

fn page_words<S: CounterSet>() -> usize {
    1 + S::NAMES.len()
}

fn check_layout<S: CounterSet>(found: u64) -> io::Result<()> {
    if found == S::LAYOUT {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a page of other counters"))
    }
}

/// FNV-1a over the names, each ended by a zero byte: equal lists only have the same, as far as it
/// matters for lists that a few releases made.
const fn layout(names: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut name = 0;
    while name < names.len() {
        let bytes = names[name].as_bytes();
        let mut place = 0;
        while place <= bytes.len() {
            let byte = if place < bytes.len() { bytes[place] } else { 0 };
            hash = (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
            place += 1;
        }
        name += 1;
    }
    hash
}

const fn joined<const N: usize>(
    first: &[&'static str],
    second: &[&'static str],
) -> [&'static str; N] {
    let mut all = [""; N];
    let mut place = 0;
    while place < N {
        all[place] = if place < first.len() { first[place] } else { second[place - first.len()] };
        place += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outcome::Outcome;
    use crate::ke::counters::Counters as KeCounters;

    fn total<S: CounterSet>(page: &StatsPage<S>, name: &str) -> u64 {
        page.totals().find(|(found, _)| *found == name).expect("a counter").1
    }

    #[test]
    fn a_process_started_again_goes_on_where_the_last_one_was() {
        let page = StatsPage::<KeCounters>::create().expect("made");
        for round in 1..=3 {
            let mut writer = StatsWriter::<KeCounters>::attach(page.file()).expect("mapped");
            for served in [1, 5, 4 + round] {
                writer.publish(&KeCounters { served, accepted: served, ..KeCounters::default() });
            }
            assert_eq!(total(&page, "served"), 4 * round + round * (round + 1) / 2);
            assert_eq!(total(&page, "accepted"), total(&page, "served"));
            assert_eq!(total(&page, "tls"), 0);
        }
    }

    #[test]
    fn every_counter_has_one_name() {
        fn check<S: CounterSet>(set: &S) {
            let mut names = S::NAMES.to_vec();
            assert_eq!(set.values().count(), names.len());
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), S::NAMES.len());
        }
        check(&KeCounters::default());
        check(&WorkerCounters { engine: &Counters::default(), port: PortCounters::default() });
        assert_eq!(WorkerCounters::NAMES[1], Outcome::ALL[1].name());
    }

    #[test]
    fn a_page_of_other_counters_is_refused() {
        let page = StatsPage::<KeCounters>::create().expect("made");
        assert!(StatsWriter::<WorkerCounters<'_>>::attach(page.file()).is_err());
        assert_ne!(layout(&["ab", "c"]), layout(&["a", "bc"]));
        assert_ne!(layout(&["a", "b"]), layout(&["b", "a"]));
    }
}
