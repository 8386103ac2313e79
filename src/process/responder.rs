//! The responder role: answers NTP and NTS.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::start::{Report, ResponderStart, RoleError, StartMessage};
use crate::aead::{Aead, NonceGenerator, self_test};
use crate::clock::source::HostClock;
use crate::cookie::ntskeys;
use crate::engine::Engine;
use crate::net::mmsg::MmsgPort;
use crate::net::worker::Worker;

/// Serves until SIGTERM. In this order:
///
/// 1. the keys are read and the cryptography proves itself,
/// 2. the clock is looked at,
/// 3. signals are caught,
/// 4. the supervisor is told, and the loop runs.
pub fn run(start: StartMessage, sockets: Vec<OwnedFd>, report: &Report) -> Result<(), RoleError> {
    let start: ResponderStart = start.decode()?;
    let keys = ntskeys::parse(&start.keys)
        .map_err(|error| RoleError::new("the master keys were not handed over", error))?;
    drop(start.keys);
    let mut aead = Aead::detect();
    self_test(&mut aead).map_err(|error| RoleError::new("refusing to start", error))?;
    let nonces = NonceGenerator::new()
        .map_err(|error| RoleError::new("the kernel gives no random numbers", error))?;

    let clock = HostClock::new(start.clock.source, start.clock.stratum)
        .map_err(|error| RoleError::new("cannot read the clock (adjtimex)", error))?;

    let stop = Arc::new(AtomicBool::new(false));
    let wake =
        stop_on_signals(&stop).map_err(|error| RoleError::new("cannot catch signals", error))?;

    let sockets = sockets.into_iter().map(UdpSocket::from).collect();
    let mut port = MmsgPort::new(sockets, wake);
    let mut worker = Worker::new(Engine::new(aead), clock, keys.ring, nonces);
    report.ready();
    worker.run(&mut port, &stop);
    Ok(())
}

/// Sets `stop` and makes the returned descriptor readable on SIGTERM and SIGINT.
pub(super) fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<OwnedFd> {
    let (wake, waker) = io::pipe()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
        signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
    }
    Ok(wake.into())
}
