//! What systemd is told, and what it hands over (`sd_notify(3)`, `sd_listen_fds(3)`,
//! `sd_watchdog_enabled(3)`). Without systemd all of it does nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::sys::inherited;

/// The environment variables by which systemd speaks to the process that it started.
pub(super) const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// The sockets that systemd opened (`LISTEN_FDS`), each with its name. Called before the program
/// opens anything by itself.
///
/// # Errors
/// When the variables contradict each other or the descriptors.
pub fn activated() -> io::Result<Vec<(String, OwnedFd)>> {
    let sockets = sd_notify::listen_fds_with_names()?;
    sockets.map(|(number, name)| Ok((name, inherited::take(number)?))).collect()
}

/// The way to systemd.
pub(super) struct ServiceManager {
    /// How often systemd wants to hear that all is well, and when it is told next.
    watchdog: Option<(Duration, Instant)>,
}

impl ServiceManager {
    pub(super) fn new(now: Instant) -> Self {
        // sd_watchdog_enabled(3): "send a keep-alive ping every half of the time".
        Self { watchdog: sd_notify::watchdog_enabled().map(|usec| (usec / 2, now)) }
    }

    pub(super) fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    pub(super) fn reloading(&self) {
        if let Ok(monotonic) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, monotonic]);
        }
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("finishing what was begun")]);
    }

    pub(super) fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// When the watchdog is due; none without one.
    pub(super) fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }

    /// Whether the watchdog is due; if so, it is due again later.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.watchdog {
            Some((interval, due)) if *due <= now => {
                *due = now + *interval;
                true
            }
            _ => false,
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A service manager that does not listen must not stop the service; it acts on silence.
    let _ = sd_notify::notify(states);
}
