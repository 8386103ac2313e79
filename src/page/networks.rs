//! The memory file of a set of networks: written once, sealed, and read by every role that has to
//! know who is answered. Another set is another file, which comes with an order.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::fstat;

use crate::networks::NetworkSet;
use crate::sys::memory::{ReadOnlyWord, ReadableMemory, WritableMemory, Writers};

/// Changes with what [`NetworkSet::to_words`] writes.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:nets1");

/// A sealed memory file that holds `networks`.
pub fn create(networks: &NetworkSet) -> io::Result<OwnedFd> {
    let words = networks.to_words();
    let (memory, file) =
        WritableMemory::create("timeball-access", 1 + words.len(), Writers::Maker)?;
    for (place, word) in memory.words().iter().zip([LAYOUT].into_iter().chain(words)) {
        place.store(word, Ordering::Relaxed);
    }
    Ok(file)
}

/// The networks of such a file, as a copy of the reader's own; fails for any other file.
pub fn read(file: impl AsFd) -> io::Result<NetworkSet> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "not a set of networks");
    let words = usize::try_from(fstat(&file)?.st_size).unwrap_or_default() / size_of::<u64>();
    let memory = ReadableMemory::attach(file, words)?;
    let words: Vec<u64> = memory.words().iter().map(ReadOnlyWord::load).collect();
    let networks = words.split_first().filter(|(layout, _)| **layout == LAYOUT);
    networks.and_then(|(_, words)| NetworkSet::from_words(words)).ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_has_the_set_that_was_written() {
        let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().expect("good"));
        let networks = NetworkSet::new(&networks, &[]).expect("one list");
        for networks in [networks, NetworkSet::everybody(), NetworkSet::nobody()] {
            let file = create(&networks).expect("made");
            assert_eq!(read(&file).expect("mapped"), networks);
            assert!(WritableMemory::attach(&file, 1).is_err(), "nobody can write it");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let (memory, file) =
            WritableMemory::create("timeball-test", 2, Writers::Maker).expect("made");
        assert!(read(&file).is_err(), "no layout");
        memory.words()[0].store(LAYOUT, Ordering::Relaxed);
        assert!(read(&file).is_ok(), "nobody");
        memory.words()[1].store(1, Ordering::Relaxed);
        assert!(read(&file).is_err(), "an edge is missing");
        assert!(read(std::fs::File::open("/dev/null").expect("open")).is_err());
    }
}
