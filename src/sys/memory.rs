//! Memory shared between processes: memory files of 64-bit words, sealed and mapped.
//!
//! The words are atomics, because another process may write them at any moment; a mapping without
//! the right to write gives [`ReadOnlyWord`]s, which cannot be stored to.

// JUSTIFICATION: an address from mmap(2) is good for what the kernel and the seals say; there is
// no safe wrapper, since a file without seals may shrink under its mapping (SIGBUS).
#![allow(unsafe_code, reason = "mapped memory is known by its address only")]

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::memfd_create;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Who may map a memory file so that it can be written, beside the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody: every later mapping is read-only.
    Maker,
    /// Whoever is handed the descriptor.
    Holders,
}

impl Writers {
    /// Seals that hold others to it. The length is fixed in either case, and so are the seals.
    fn seals(self) -> SealFlags {
        let fixed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        match self {
            // fcntl(2): "only new writable shared mappings" fail; the maker's own, made before,
            // stays.
            Self::Maker => fixed | SealFlags::FUTURE_WRITE,
            Self::Holders => fixed,
        }
    }
}

/// A mapping that can be written and read.
#[derive(Debug)]
pub struct WritableMemory(Mapping<AtomicU64>);

impl WritableMemory {
    /// A new memory file of `words` zeros, called `name` in `/proc`, mapped here and sealed. The
    /// descriptor is for handing over.
    pub fn create(name: &str, words: usize, writers: Writers) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes(words) as u64)?;
        // Sealed at once against shrinking, which `Mapping::new` insists on.
        fcntl_add_seals(&file, SealFlags::SHRINK)?;
        let mapping = Mapping::new(&file, words, ProtFlags::READ | ProtFlags::WRITE)?;
        fcntl_add_seals(&file, writers.seals())?;
        Ok((Self(mapping), file))
    }

    /// Maps a memory file of exactly `words` that another process made.
    pub fn attach(file: impl AsFd, words: usize) -> io::Result<Self> {
        Mapping::new(file, words, ProtFlags::READ | ProtFlags::WRITE).map(Self)
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

/// A mapping that can be read only.
#[derive(Debug)]
pub struct ReadableMemory(Mapping<ReadOnlyWord>);

impl ReadableMemory {
    /// Maps a memory file of exactly `words`.
    pub fn attach(file: impl AsFd, words: usize) -> io::Result<Self> {
        Mapping::new(file, words, ProtFlags::READ).map(Self)
    }

    /// The words.
    pub fn words(&self) -> &[ReadOnlyWord] {
        self.0.words()
    }
}

/// A word that this process cannot write, and another may at any moment.
#[repr(transparent)]
pub struct ReadOnlyWord(AtomicU64);

impl ReadOnlyWord {
    /// The value, unordered. Relaxed loads are the only ones that std promises to work on memory
    /// that cannot be written ("Atomic accesses to read-only memory", std::sync::atomic); for more
    /// order, a fence follows.
    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shared memory of words; unmapped when dropped. `W` is [`AtomicU64`] where the mapping can be
/// written, else [`ReadOnlyWord`].
struct Mapping<W> {
    address: NonNull<c_void>,
    words: usize,
    word: PhantomData<W>,
}

impl<W> Mapping<W> {
    fn new(file: impl AsFd, words: usize, protection: ProtFlags) -> io::Result<Self> {
        // Else the memory could vanish under its mapping.
        let is_fixed = fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        if !is_fixed || fstat(&file)?.st_size != bytes(words) as i64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a page of this layout"));
        }
        // SAFETY: without an address of ours the kernel takes one where nothing is mapped.
        let address =
            unsafe { mmap(ptr::null_mut(), bytes(words), protection, MapFlags::SHARED, file, 0) }?;
        let address = NonNull::new(address).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, words, word: PhantomData })
    }

    fn words(&self) -> &[W] {
        // SAFETY: the mapping begins at a memory page's start, so it is aligned, and holds as many
        // words as were asked for, which cannot be cut off (`new` looked at the seal). It lives as
        // long as `self`. `W` is an atomic word or a transparent wrapper of one (the only two uses
        // above), for which every value is good and a change by others is no data race.
        unsafe { slice::from_raw_parts(self.address.as_ptr().cast::<W>(), self.words) }
    }
}

impl<W> Drop for Mapping<W> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.address.as_ptr(), bytes(self.words)) };
        debug_assert!(unmapped.is_ok());
    }
}

impl<W> fmt::Debug for Mapping<W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Mapping").field("words", &self.words).finish_non_exhaustive()
    }
}

// SAFETY: the address is good in every thread of the process, and `drop` runs once, in any.
unsafe impl<W: Send> Send for Mapping<W> {}
// SAFETY: a shared mapping gives out shared words only, and those are atomics.
unsafe impl<W: Sync> Sync for Mapping<W> {}

const fn bytes(words: usize) -> usize {
    words * size_of::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_maker_writes_others_read_and_cannot_write() {
        let (memory, file) =
            WritableMemory::create("timeball-test", 3, Writers::Maker).expect("made");
        let reader = ReadableMemory::attach(&file, 3).expect("mapped");
        memory.words()[2].store(7, Ordering::Relaxed);
        assert_eq!(reader.words()[2].load(), 7);
        assert!(WritableMemory::attach(&file, 3).is_err());
        assert!(rustix::io::write(&file, &[1]).is_err());
        assert!(ftruncate(&file, 8).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn a_page_for_its_holders_can_be_written_by_them() {
        let (memory, file) =
            WritableMemory::create("timeball-test", 1, Writers::Holders).expect("made");
        let other = WritableMemory::attach(&file, 1).expect("mapped");
        other.words()[0].store(7, Ordering::Relaxed);
        assert_eq!(memory.words()[0].load(Ordering::Relaxed), 7);
        assert!(ftruncate(&file, 0).is_err());
    }

    #[test]
    fn memory_that_could_shrink_or_is_of_another_size_is_refused() {
        let (_memory, file) =
            WritableMemory::create("timeball-test", 2, Writers::Maker).expect("made");
        assert!(ReadableMemory::attach(&file, 1).is_err());
        assert!(ReadableMemory::attach(&file, 3).is_err());
        let unsealed = memfd_create("timeball-test", MemfdFlags::ALLOW_SEALING).expect("made");
        ftruncate(&unsealed, 8).expect("sized");
        assert!(ReadableMemory::attach(&unsealed, 1).is_err());
    }
}
