//! How a role learns that it shall stop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

/// Sets `stop` and makes the returned descriptor readable on SIGTERM and SIGINT.
pub(super) fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<OwnedFd> {
    let (wake, waker) = io::pipe()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    Ok(wake.into())
}
