//! How long the scheduler lets a thread run at a time (`sched_setattr(2)`).
#![allow(unsafe_code, reason = "no crate in use makes these calls for threads without real time")]

use std::io;
use std::time::Duration;

use rustix::process::Pid;

/// Asks for shorter turns of the processor for this thread. Its share stays what it was; but a
/// thread that wakes up takes its turn at once from one whose turn is longer (EEVDF, "latency
/// nice"; Documentation/scheduler/sched-eevdf.rst). Kernels before 6.12 ignore it, and a thread
/// under another policy than SCHED_OTHER is left as it is: somebody has chosen that.
///
/// # Errors
/// What the kernel says; it has no reason to.
pub fn shorten_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes(0)?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the structure is borrowed for the whole call, says its own size, and is only read.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The slice of a thread; nothing where the kernel does not tell (before 6.12).
///
/// # Errors
/// There is no such thread.
pub fn slice_of(thread: Pid) -> io::Result<Duration> {
    Ok(Duration::from_nanos(attributes(thread.as_raw_nonzero().get())?.sched_runtime))
}

/// Of a thread; of this one for 0.
fn attributes(thread: i32) -> io::Result<libc::sched_attr> {
    let bytes = size_of::<libc::sched_attr>();
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the structure is exclusively borrowed for the whole call, of which the kernel writes
    // no more than `bytes`, its size; any bytes are numbers.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, bytes, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use rustix::thread::gettid;

    use super::*;

    #[test]
    fn a_slice_is_shortened_and_nothing_else_is_changed() {
        let before = attributes(0).expect("this thread");
        let slice = Duration::from_micros(250);
        shorten_slice(slice).expect("allowed to everybody");
        let after = attributes(0).expect("this thread");
        assert_eq!(
            (after.sched_policy, after.sched_nice, after.sched_flags),
            (before.sched_policy, before.sched_nice, before.sched_flags)
        );
        let taken = slice_of(gettid()).expect("this thread");
        // A kernel that tells none is one that takes none.
        assert_eq!(taken, if before.sched_runtime == 0 { Duration::ZERO } else { slice });
    }

    #[test]
    fn a_thread_that_is_not_there_has_none() {
        let nobody = Pid::from_raw(i32::MAX).expect("a number");
        assert_eq!(slice_of(nobody).map_err(|error| error.raw_os_error()), Err(Some(libc::ESRCH)));
    }
}
