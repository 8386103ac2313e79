//! Socket options that no crate in use sets (`setsockopt(2)`).
#![allow(unsafe_code, reason = "no crate in use sets these options")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Sets an option whose value the kernel reads as a `T`, which has to be the type that the manual
/// gives it.
pub(super) fn set<T>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is borrowed for the whole call and its length is its type's own; the kernel
    // only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option that is an array of 32-bit numbers. Those that the kernel does not know stay 0.
pub(super) fn read<const N: usize>(
    socket: &impl AsFd,
    level: i32,
    name: i32,
) -> io::Result<[u32; N]> {
    let mut value = [0; N];
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` and `length` are exclusively borrowed for the whole call; the kernel writes
    // no more of `value` than `length` says, which is its size, and any bytes are numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
