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

/// Keeps every descriptor but the standard ones from the programs that this one starts, unless it
/// is handed to them: also what came with the start and nobody takes over.
///
/// # Errors
/// `ENOSYS` or `EINVAL` before Linux 5.11.
pub fn keep_from_children() -> io::Result<()> {
    let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
    // "CLOSE_RANGE_CLOEXEC: set the close-on-exec flag on the specified file descriptors, rather
    // than immediately closing them" (close_range(2)).
    // SAFETY: a mark is set; no descriptor is closed and no memory is named.
    // JUSTIFICATION: nothing wraps this call; by fcntl each number would have to be borrowed.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
