//! One process of a role: started, heard, and started again with back-off. Nothing here waits.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::channel::Channel;
use super::role::Role;
use super::start::{Order, Report};
use super::status::ProcessStatus;
use crate::limits::{
    OBSERVER_HANGS_AFTER, ROLE_READY_WAIT, ROLE_RESTART_DELAY_FIRST, ROLE_RESTART_DELAY_MAX,
    ROLE_STABLE_AFTER,
};

/// A process of a role, or its place while there is none. Dropping it kills the process.
pub(super) struct Supervised {
    pub(super) role: Role,
    /// Its place among the processes of its role: it keeps its page of counters.
    pub(super) index: usize,
    running: Option<Running>,
    started: Instant,
    /// How often a process was started again.
    restarts: u64,
    /// From one start to the next, at least.
    delay: Duration,
}

struct Running {
    child: Child,
    channel: Channel,
    is_ready: bool,
    /// Why it will end, by its own words.
    failure: Option<String>,
    /// Terms that it has been sent and not yet answered.
    unanswered: usize,
    /// It has been asked whether it works, and has not said so yet.
    is_pinged: bool,
    /// When it was told something that it has not yet taken.
    informed: Option<Instant>,
}

/// What became of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It serves.
    Ready,
    /// It did not take new terms, and why.
    Refused(String),
    /// It wants a new socket to chronyd.
    ChronydLost,
    /// It ended, and why.
    Ended(String),
}

impl Supervised {
    /// A place whose process is to be started at once.
    pub(super) fn new(role: Role, index: usize, now: Instant) -> Self {
        let delay = ROLE_RESTART_DELAY_FIRST;
        let started = now.checked_sub(delay).unwrap_or(now);
        Self { role, index, running: None, started, restarts: 0, delay }
    }

    /// When there is something to do for it by the clock: a start, or the end of patience with one.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.running {
            None => Some(self.started + self.delay),
            Some(running) if running.is_ready => None,
            Some(_) => Some(self.started + ROLE_READY_WAIT),
        }
    }

    /// Does what is due. `spawn` makes the process.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        spawn: impl FnOnce() -> io::Result<(Child, Channel)>,
    ) -> Option<Event> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        if let Some(running) = &mut self.running {
            let late = || format!("was not ready within {ROLE_READY_WAIT:?}");
            running.failure.get_or_insert_with(late);
            // It ends now; that is noticed as any end is.
            let _ = running.child.kill();
            self.started = now;
            return None;
        }
        self.started = now;
        match spawn() {
            Ok((child, channel)) => {
                let running = Running {
                    child,
                    channel,
                    is_ready: false,
                    failure: None,
                    unanswered: 0,
                    is_pinged: false,
                    informed: None,
                };
                self.running = Some(running);
                None
            }
            Err(error) => {
                self.back_off(Duration::ZERO);
                Some(Event::Ended(format!("its process cannot be made: {error}")))
            }
        }
    }

    /// The channel to its process, to wait for.
    pub(super) fn channel(&self) -> Option<&Channel> {
        self.running.as_ref().map(|running| &running.channel)
    }

    /// Takes the next report of its process. `None`: nothing more for now. A report that changes
    /// nothing for others is no event.
    pub(super) fn hear(&mut self) -> Option<Option<Event>> {
        let running = self.running.as_mut()?;
        match running.channel.next_report() {
            Ok(None) => None,
            Ok(Some(report)) => Some(running.take(report)),
            // It has ended, as its parent will soon hear.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => {
                running.failure = Some(format!("it does not make sense: {error}"));
                let _ = running.child.kill();
                None
            }
        }
    }

    /// Looks whether its process has ended.
    pub(super) fn reap(&mut self, now: Instant) -> Option<Event> {
        let running = self.running.as_mut()?;
        let status = match running.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) if status.signal() == Some(libc::SIGSYS) => {
                "SIGSYS: a system call that its sandbox forbids".to_owned()
            }
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // Its last words may still be in the channel.
        while self.hear().is_some() {}
        let running = self.running.take()?;
        self.back_off(now.saturating_duration_since(self.started));
        let reason = match running.failure {
            Some(failure) => failure,
            None if running.is_ready => status,
            None => format!("ended before it was ready ({status})"),
        };
        Some(Event::Ended(reason))
    }

    fn back_off(&mut self, lived: Duration) {
        self.restarts += 1;
        self.delay = if lived >= ROLE_STABLE_AFTER {
            ROLE_RESTART_DELAY_FIRST
        } else {
            (self.delay * 2).min(ROLE_RESTART_DELAY_MAX)
        };
    }

    /// Sends new terms, with a descriptor that belongs to them. A process that takes none is ended:
    /// the next one starts with them.
    pub(super) fn adopt(&mut self, order: &Order, descriptor: BorrowedFd<'_>) {
        let Some(running) = &mut self.running else { return };
        match running.channel.order_with(order, Some(descriptor)) {
            Ok(()) => running.unanswered += 1,
            Err(error) => {
                running.failure = Some(format!("it takes no new terms: {error}"));
                let _ = running.child.kill();
            }
        }
    }

    /// Sends what no answer is waited for. A process that does not read it is dealt with by others.
    pub(super) fn hand(&self, order: &Order, descriptor: Option<BorrowedFd<'_>>) {
        if let Some(running) = &self.running {
            let _ = running.channel.order_with(order, descriptor);
        }
    }

    /// Whether it has answered all terms that it was sent.
    pub(super) fn is_settled(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.unanswered == 0)
    }

    /// Asks whether it works; says whether it has answered the last time it was asked. A process
    /// that is being started again is in good hands.
    pub(super) fn ping(&mut self) -> bool {
        let Some(running) = self.running.as_mut().filter(|running| running.is_ready) else {
            return true;
        };
        let has_answered = !running.is_pinged;
        // A process that has stopped reading gets no more; it is silent already.
        running.is_pinged |= running.channel.order(&Order::Ping).is_ok();
        has_answered
    }

    /// Tells the observer how the server stands, once it has taken what it was told last. One that
    /// does not take it is ended: the next one will.
    pub(super) fn inform(&mut self, now: Instant, order: impl FnOnce() -> Order) {
        let Some(running) = self.running.as_mut().filter(|running| running.is_ready) else {
            return;
        };
        match running.informed {
            None => {
                // An error is its end, as is soon heard.
                let _ = running.channel.order(&order());
                running.informed = Some(now);
            }
            Some(since) if now.saturating_duration_since(since) < OBSERVER_HANGS_AFTER => {}
            Some(_) => {
                running.failure = Some(format!("did not react for {OBSERVER_HANGS_AFTER:?}"));
                let _ = running.child.kill();
            }
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_ready)
    }

    pub(super) fn status(&self, now: Instant) -> ProcessStatus {
        ProcessStatus {
            role: self.role.name().to_owned(),
            pid: self.running.as_ref().map(|running| running.child.id()),
            is_serving: self.is_ready(),
            age_seconds: now.saturating_duration_since(self.started).as_secs(),
            restarts: self.restarts,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn ask_to_stop(&mut self) {
        let pid =
            self.running.as_ref().and_then(|running| Pid::from_raw(running.child.id() as i32));
        if let Some(pid) = pid {
            // It may have ended by itself; nobody else can have its number before it is waited for.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Running {
    fn take(&mut self, report: Report) -> Option<Event> {
        match report {
            Report::Ready => {
                self.is_ready = true;
                Some(Event::Ready)
            }
            Report::Failed(reason) => {
                self.failure = Some(reason);
                None
            }
            Report::Pong => {
                self.is_pinged = false;
                self.informed = None;
                None
            }
            Report::ChronydLost => Some(Event::ChronydLost),
            Report::Adopted => {
                self.unanswered = self.unanswered.saturating_sub(1);
                None
            }
            Report::Refused(reason) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                Some(Event::Refused(reason))
            }
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
