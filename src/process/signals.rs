//! Signals, as flags and a descriptor to wait for.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// Sets `stop` and makes the returned descriptor readable on SIGTERM and SIGINT.
pub(super) fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<OwnedFd> {
    let (wake, waker) = io::pipe()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    Ok(wake.into())
}

/// The signals of the supervisor.
pub(super) struct Signals {
    wake: File,
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Catches SIGTERM and SIGINT, SIGCHLD, and SIGHUP: a reload when there is a configuration to
    /// read again, else the closing of a terminal.
    pub(super) fn catch(has_configuration: bool) -> io::Result<Self> {
        let (wake, waker) = io::pipe()?;
        let wake = File::from(OwnedFd::from(wake));
        rustix::io::ioctl_fionbio(&wake, true)?;
        let (stop, reload) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let on_hangup = if has_configuration { &reload } else { &stop };
        // Flags first: actions run in this order, and who is woken has to find the flag set.
        for (signal, flag) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, on_hangup)] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Self { wake, stop, reload })
    }

    /// Forgets that the descriptor was readable.
    pub(super) fn drain(&mut self) {
        let mut drain = [0; 64];
        while matches!(self.wake.read(&mut drain), Ok(read) if read == drain.len()) {}
    }

    pub(super) fn is_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a reload was asked for since the last time.
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
