//! A page that the kernel empties in a forked child: how a process finds out, at the price of one
//! load, that it is a copy. getpid(2) would tell too, at the price of a system call each time.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// True until the process that holds it is a fork of the one that made it.
pub(in super::super) struct ForkMark {
    page: NonNull<AtomicU8>,
}

// SAFETY: the page belongs to the value alone, and is only accessed through an atomic.
unsafe impl Send for ForkMark {}

impl ForkMark {
    /// A page of its own, marked.
    pub(in super::super) fn new() -> io::Result<Self> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping, at an address the kernel chooses.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), PAGE_BYTES, access, flags) }?;
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mark = Self { page };
        // SAFETY: the page above, which nothing else knows. madvise(2), MADV_WIPEONFORK: "present
        // the child process with zero-filled memory in this range after a fork(2)"; Linux 4.14.
        unsafe { madvise(mark.address(), PAGE_BYTES, Advice::LinuxWipeOnFork) }?;
        mark.set();
        Ok(mark)
    }

    /// Marks the page again, in a child that has dealt with being one.
    pub(in super::super) fn set(&self) {
        self.flag().store(1, Ordering::Relaxed);
    }

    /// Whether this process is a fork of the one that marked the page.
    #[inline]
    pub(in super::super) fn is_wiped(&self) -> bool {
        self.flag().load(Ordering::Relaxed) == 0
    }

    #[inline]
    fn flag(&self) -> &AtomicU8 {
        // SAFETY: `page` is mapped readable and writable until `drop`.
        unsafe { self.page.as_ref() }
    }

    fn address(&self) -> *mut c_void {
        self.page.as_ptr().cast()
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.address(), PAGE_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The kernel rounds up to whole pages.
const PAGE_BYTES: usize = 4096;
