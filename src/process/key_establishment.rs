//! The key establishment role: NTS-KE over TLS.

use std::os::fd::OwnedFd;

use super::start::{Report, RoleError, StartMessage};

/// Serves until SIGTERM.
pub fn run(
    _start: StartMessage,
    _listeners: Vec<OwnedFd>,
    _report: &Report,
) -> Result<(), RoleError> {
    Ok(())
}
