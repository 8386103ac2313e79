//! Descriptors that came with the start of the program, of which only the number is known.
#![allow(unsafe_code, reason = "a number becomes the owner of what it names")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Takes over an inherited descriptor, which the programs that this one starts do not inherit.
/// Called before the program opens anything by itself, or the number may be another's.
///
/// # Errors
/// When it is not open, or was taken before.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(io::Error::other("the descriptor has an owner already"));
    }
    // SAFETY: a descriptor is only looked at and marked, and the borrow ends with this function.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    taken.insert(number);
    // SAFETY: the descriptor is open, as just seen. Nobody else in this process owns it: it came
    // with the start of the program, before anything was opened, and is handed out once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
