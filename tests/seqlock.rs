//! The sequence lock of shared pages under loom, which runs every order of loads and stores that
//! the memory model allows.
//!
//! The file under test is compiled into this program once more, on loom's simulated atomics: the
//! library itself needs no second build.
#![allow(dead_code, reason = "the library uses more of the file than this test does")]

/// What `src/page/mod.rs` gives it in the library, simulated.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[path = "../src/page/seqlock.rs"]
mod seqlock;

use atomic::AtomicU64;
use loom::sync::Arc;

/// A value of two words that belong together: a reader that is torn has the parts of two values,
/// and more words would only make more orders of the same kind.
fn value(number: u64) -> [u64; 2] {
    [number, !number]
}

#[derive(Default)]
struct Page {
    sequence: AtomicU64,
    words: [AtomicU64; 2],
}

impl Page {
    fn holding(number: u64) -> Arc<Self> {
        let page = Self::default();
        page.write(number);
        Arc::new(page)
    }

    fn write(&self, number: u64) {
        seqlock::write(&self.sequence, &self.words, &value(number));
    }

    /// Reads with one attempt, as loom tries them all. A value must be the one of its sequence:
    /// every write adds two. 0 if it could not be had whole.
    fn read(&self) -> u64 {
        let mut copy = [0; 2];
        match seqlock::read(&self.sequence, &self.words, &mut copy, 1) {
            Some(sequence) => {
                assert_eq!(copy, value(sequence / 2), "torn");
                sequence
            }
            None => 0,
        }
    }
}

#[test]
fn no_reader_sees_a_torn_value() {
    loom::model(|| {
        let page = Page::holding(1);
        let reader = spawn(&page, |page| {
            page.read();
        });
        page.write(2);
        reader.join().expect("the reader");
        assert_eq!(page.read(), 4, "whoever comes after the write sees it");
    });
}

#[test]
fn no_reader_sees_a_torn_value_of_two_writes() {
    loom::model(|| {
        let page = Page::holding(1);
        let reader = spawn(&page, |page| {
            page.read();
        });
        page.write(2);
        page.write(3);
        reader.join().expect("the reader");
    });
}

#[test]
fn no_value_comes_back() {
    loom::model(|| {
        let page = Page::holding(1);
        let reader = spawn(&page, |page| {
            let first = page.read();
            let second = page.read();
            assert!(second == 0 || second >= first);
        });
        page.write(2);
        reader.join().expect("the reader");
    });
}

#[test]
fn a_closed_page_has_nothing_to_read() {
    loom::model(|| {
        let page = Page::holding(1);
        let reader = spawn(&page, |page| {
            page.read();
        });
        seqlock::close(&page.sequence, &page.words);
        reader.join().expect("the reader");
        assert_eq!(page.read(), 0);
    });
}

fn spawn(page: &Arc<Page>, read: impl FnOnce(&Page) + 'static) -> loom::thread::JoinHandle<()> {
    let page = Arc::clone(page);
    loom::thread::spawn(move || read(&page))
}
