//! A value of several words that one writer replaces and any number of readers copy, whole.
//!
//! After Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?" (MSPC 2012),
//! section 4: the words are atomics and their accesses relaxed; fences put them between the two
//! stores, or the two loads, of the sequence. The sequence is odd while a write is under way.
//!
//! ```text
//! write: sequence = odd; release fence; words = value; sequence = next even (release)
//! read:  before = sequence; acquire fence; copy = words; acquire fence; after = sequence
//!        whole if before == after and even
//! ```
//!
//! Why that is enough: a reader that has seen a word of a write under way passes its second fence
//! after it, so it sees the odd number that stands in front of the writer's fence, or a later one.
//! A reader that has seen an even number passes its first fence after it, so it sees no word older
//! than that number. The first load is not an acquire load but a relaxed one with a fence, as the
//! reader's memory may be read-only. `tests/seqlock.rs` runs this file under loom.

use super::atomic::{AtomicU64, Ordering, fence};

/// A word that a reader can load, relaxed.
pub(crate) trait Word {
    fn load(&self) -> u64;
}

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

/// Replaces the value. The caller is the only writer.
pub(crate) fn write(sequence: &AtomicU64, words: &[AtomicU64], value: &[u64]) {
    let odd = begin(sequence);
    for (word, value) in words.iter().zip(value) {
        word.store(*value, Ordering::Relaxed);
    }
    sequence.store(odd + 1, Ordering::Release);
}

/// Wipes the value and leaves the sequence odd for ever: there is nothing to read any more.
pub(crate) fn close(sequence: &AtomicU64, words: &[AtomicU64]) {
    begin(sequence);
    for word in words {
        word.store(0, Ordering::Relaxed);
    }
}

fn begin(sequence: &AtomicU64) -> u64 {
    let odd = sequence.load(Ordering::Relaxed) | 1;
    sequence.store(odd, Ordering::Relaxed);
    fence(Ordering::Release);
    odd
}

/// Copies the value into `copy` and returns its sequence. `None` if no copy in `attempts` was
/// whole: what `copy` holds then is good for nothing.
pub(crate) fn read<W: Word>(
    sequence: &W,
    words: &[W],
    copy: &mut [u64],
    attempts: usize,
) -> Option<u64> {
    for _ in 0..attempts {
        let before = sequence.load();
        fence(Ordering::Acquire);
        for (copy, word) in copy.iter_mut().zip(words) {
            *copy = word.load();
        }
        fence(Ordering::Acquire);
        let after = sequence.load();
        if before == after && before.is_multiple_of(2) {
            return Some(before);
        }
        std::hint::spin_loop();
    }
    None
}
