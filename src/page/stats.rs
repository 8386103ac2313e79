//! Counters that one process counts and others read.
//!
//! A worker counts in memory of its own, as it always did, and copies the totals to its page after
//! each batch: some forty plain stores, without a lock prefix, for up to 32 datagrams. A page has
//! one holder that writes, so no cache line is written by two; that is also why the counters of a
//! page are not padded apart. They become visible one by one: while a batch is being published, a
//! sum over several of them may be short of it. No counter ever goes back. Histograms are
//! counted in the page itself (`histogram`).
//!
//! The supervisor keeps the page. A process that is started again goes on where the last one was.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{self, Histogram};
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
    /// Upper bounds of the histograms that stand behind the counters; none unless it says so.
    const HISTOGRAMS: &'static [&'static [u64]] = &[];
    /// First word of the page: changes whenever a counter comes, goes, moves or is renamed, or a
    /// histogram has other bounds.
    const LAYOUT: u64 = layout(Self::NAMES, Self::HISTOGRAMS);

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
    /// Processor time of the worker's thread, in nanoseconds.
    pub processor_nanoseconds: u64,
}

impl CounterSet for WorkerCounters<'_> {
    const PAGE: &'static str = "timeball-stats-worker";
    const NAMES: &'static [&'static str] = {
        const NAMES: [&str; Counters::NAMES.len() + PortCounters::NAMES.len() + 1] =
            joined(&[&Counters::NAMES, &PortCounters::NAMES, &["processor_nanoseconds"]]);
        &NAMES
    };
    const HISTOGRAMS: &'static [&'static [u64]] = histogram::OF_WORKER;

    fn values(&self) -> impl Iterator<Item = u64> {
        self.engine.values().chain(self.port.values()).chain([self.processor_nanoseconds])
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

    /// The total of one counter; 0 for a name that the page does not have.
    pub fn total(&self, name: &str) -> u64 {
        self.totals().find(|(found, _)| *found == name).map_or(0, |(_, total)| total)
    }

    /// The histograms, in the order of the page.
    pub fn histograms(&self) -> Vec<Histogram> {
        let read = |place: usize| {
            let words = histogram_words::<S>(place);
            let mut counts: Vec<u64> =
                self.memory.words()[words].iter().map(ReadOnlyWord::load).collect();
            let sum = counts.pop().unwrap_or_default();
            Histogram { bounds: S::HISTOGRAMS[place], counts, sum }
        };
        (0..S::HISTOGRAMS.len()).map(read).collect()
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
        let counters = memory.words()[1..].iter().take(S::NAMES.len());
        let before = counters.map(|word| word.load(Ordering::Relaxed)).collect();
        Ok(Self { memory, before, set: PhantomData })
    }
}

impl<S: CounterSet> StatsWriter<S> {
    /// Counts `value` in the bucket of a histogram, which the caller has chosen, at once.
    #[inline]
    pub fn observe(&mut self, histogram: usize, bucket: usize, value: u64) {
        let words = &self.memory.words()[histogram_words::<S>(histogram)];
        let Some((sum, buckets)) = words.split_last() else { return };
        // Nobody else writes the page, so adding needs no lock prefix.
        let add = |word: &AtomicU64, more: u64| {
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&buckets[bucket], 1);
        add(sum, value);
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
    histogram_words::<S>(S::HISTOGRAMS.len()).start
}

/// The words of a histogram: its buckets, one for what is beyond the last bound, and the sum.
fn histogram_words<S: CounterSet>(histogram: usize) -> Range<usize> {
    let words = |bounds: &[u64]| bounds.len() + 2;
    let before = &S::HISTOGRAMS[..histogram];
    let start = 1 + S::NAMES.len() + before.iter().map(|bounds| words(bounds)).sum::<usize>();
    start..start + S::HISTOGRAMS.get(histogram).map_or(0, |bounds| words(bounds))
}

fn check_layout<S: CounterSet>(found: u64) -> io::Result<()> {
    if found == S::LAYOUT {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a page of other counters"))
    }
}

/// FNV-1a over the names, each ended by a zero byte, and over the bounds: equal lists only have the
/// same, as far as it matters for lists that a few releases made.
const fn layout(names: &[&str], histograms: &[&[u64]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut name = 0;
    while name < names.len() {
        let bytes = names[name].as_bytes();
        let mut place = 0;
        while place <= bytes.len() {
            hash = mix(hash, if place < bytes.len() { bytes[place] as u64 } else { 0 });
            place += 1;
        }
        name += 1;
    }
    let mut histogram = 0;
    while histogram < histograms.len() {
        let bounds = histograms[histogram];
        let mut place = 0;
        while place <= bounds.len() {
            hash = mix(hash, if place < bounds.len() { bounds[place] } else { 0 });
            place += 1;
        }
        histogram += 1;
    }
    hash
}

const fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

const fn joined<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut all = [""; N];
    let (mut list, mut filled) = (0, 0);
    while list < lists.len() {
        let mut place = 0;
        while place < lists[list].len() {
            all[filled] = lists[list][place];
            filled += 1;
            place += 1;
        }
        list += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::histogram::{BATCH, LATENCY, batch_bucket, latency_bucket};
    use super::*;
    use crate::engine::outcome::Outcome;
    use crate::ke::counters::Counters as KeCounters;

    #[test]
    fn a_process_started_again_goes_on_where_the_last_one_was() {
        let page = StatsPage::<KeCounters>::create().expect("made");
        for round in 1..=3 {
            let mut writer = StatsWriter::<KeCounters>::attach(page.file()).expect("mapped");
            for served in [1, 5, 4 + round] {
                writer.publish(&KeCounters { served, accepted: served, ..KeCounters::default() });
            }
            assert_eq!(page.total("served"), 4 * round + round * (round + 1) / 2);
            assert_eq!(page.total("accepted"), page.total("served"));
            assert_eq!(page.total("tls"), 0);
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
        let (engine, port) = (&Counters::default(), PortCounters::default());
        check(&WorkerCounters { engine, port, processor_nanoseconds: 0 });
        assert_eq!(WorkerCounters::NAMES[1], Outcome::ALL[1].name());
    }

    #[test]
    fn a_page_of_other_counters_is_refused() {
        let page = StatsPage::<KeCounters>::create().expect("made");
        assert!(StatsWriter::<WorkerCounters<'_>>::attach(page.file()).is_err());
        assert_ne!(layout(&["ab", "c"], &[]), layout(&["a", "bc"], &[]));
        assert_ne!(layout(&["a", "b"], &[]), layout(&["b", "a"], &[]));
        assert_ne!(layout(&["a"], &[&[1, 2]]), layout(&["a"], &[&[1], &[2]]));
    }

    #[test]
    fn histograms_are_counted_in_their_own_words_and_outlive_their_writer() {
        let page = StatsPage::<WorkerCounters<'_>>::create().expect("made");
        let (engine, port) = (Counters::default(), PortCounters::default());
        let counters = WorkerCounters { engine: &engine, port, processor_nanoseconds: 7 };
        for round in 1..=2 {
            let mut writer =
                StatsWriter::<WorkerCounters<'_>>::attach(page.file()).expect("mapped");
            for datagrams in [1, 32] {
                writer.observe(BATCH, batch_bucket(datagrams), datagrams as u64);
            }
            writer.observe(LATENCY, latency_bucket(u64::MAX), 9);
            writer.publish(&counters);
            let [batch, latency] = &page.histograms()[..] else { panic!("two") };
            assert_eq!(
                (batch.counts.clone(), batch.sum),
                (vec![round, 0, 0, 0, 0, round, 0], 33 * round,)
            );
            assert_eq!((latency.counts.last(), latency.sum), (Some(&round), 9 * round));
            assert_eq!(latency.counts.iter().sum::<u64>(), round);
            assert_eq!(page.total("processor_nanoseconds"), 7 * round);
            assert_eq!(page.total("cookies_issued"), 0);
        }
    }
}
