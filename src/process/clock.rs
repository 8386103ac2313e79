//! The clock role: asks the source of the time once a second and publishes what it says.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::ClockPages;
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{ClockStart, Order, Report, RoleError};
use super::supervisor::timespec;
use crate::clock::host::moment;
use crate::clock::source::{self, Source};
use crate::config::clock::ClockSettings;
use crate::limits::CLOCK_LOOK_INTERVAL;
use crate::page::clock::ClockPage;
use crate::sys::adjtimex;

/// Asks until SIGTERM. In this order:
///
/// 1. signals are caught and the page is taken over, with the last truth in it,
/// 2. the source is asked for the first time,
/// 3. the filter of system calls holds,
/// 4. the supervisor is told, and the loop runs.
pub fn run(
    start: StartMessage,
    mut descriptors: Descriptors,
    link: &Link,
    filter: Filter,
) -> Result<(), RoleError> {
    let start: ClockStart = start.decode()?;
    let pages = ClockPages::take(descriptors.take(Purpose::Page))?;
    let stop = Arc::new(AtomicBool::new(false));
    let wake =
        stop_on_signals(&stop).map_err(|error| RoleError::new("cannot catch signals", error))?;
    let mut keeper = Keeper { settings: start.settings, page: pages.clock };
    adjtimex::read()
        .map_err(|error| RoleError::new("cannot read the kernel's clock (adjtimex)", error))?;
    keeper.look();
    filter.apply()?;
    link.report(&Report::Ready);
    keeper.run(link, &wake, &stop);
    Ok(())
}

/// Keeps the page.
struct Keeper {
    settings: ClockSettings,
    page: ClockPage,
}

impl Keeper {
    /// Looks when it is time and answers the supervisor. The supervisor's end is like a signal.
    fn run(mut self, link: &Link, wake: &OwnedFd, stop: &AtomicBool) {
        let mut due = Instant::now() + CLOCK_LOOK_INTERVAL;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= due {
                due = now + CLOCK_LOOK_INTERVAL;
                self.look();
            }
            let mut interests =
                [PollFd::new(link, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
            let timeout = timespec(due.saturating_duration_since(now));
            let is_waiting = poll(&mut interests, Some(&timeout));
            if is_waiting.is_err() || interests[0].revents().is_empty() {
                continue;
            }
            match link.next_order() {
                Ok(Some(Order::Ping)) => link.report(&Report::Pong),
                Ok(Some(Order::Adopt(_))) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Asks the source. An error cannot happen once the first look went well; if it does, the last
    /// truth ages.
    fn look(&mut self) {
        let ClockSettings { source, stratum, holdover } = self.settings;
        let kernel = adjtimex::read();
        let now = moment();
        match (source, kernel) {
            (Source::Kernel, Ok(kernel)) => {
                self.page.publish(&source::kernel(&kernel, stratum, now, holdover));
            }
            (Source::Local, kernel) => {
                self.page.publish(&source::local(kernel.ok().as_ref(), stratum, now, holdover));
            }
            (Source::Kernel, Err(_)) => {}
        }
    }
}
