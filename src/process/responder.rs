//! The responder role: answers NTP and NTS, a pinned worker thread on each processor.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::{ResponderPages, attach_stats, read_access};
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{Order, Report, ResponderStart, RoleError};
use crate::aead::{Aead, NonceGenerator, self_test};
use crate::clock::host::HostClock;
use crate::engine::Engine;
use crate::engine::rate::RateLimits;
use crate::engine::terms::Terms;
use crate::limits::{WORKER_HANGS_AFTER, WORKER_SLICE};
use crate::net::PortChoice;
use crate::net::hardware::Translator;
use crate::net::latest::{Follower, Publisher};
use crate::net::mmsg::MmsgPort;
use crate::net::uring::UringPort;
use crate::net::worker::{Pulse, Worker};
use crate::networks::NetworkSet;
use crate::page::busiest::BusiestWriter;
use crate::page::key::SharedRing;
use crate::sys::slice::shorten_slice;

/// Serves until SIGTERM. In this order:
///
/// 1. signals are caught,
/// 2. each worker starts on its processor, reads the keys and the clock's page, and lets the
///    cryptography prove itself,
/// 3. when all of them are ready the filter of system calls holds,
/// 4. the supervisor is told, and the loops run; this thread answers the supervisor.
pub fn run(
    start: StartMessage,
    mut descriptors: Descriptors,
    link: &Link,
    filter: Filter,
) -> Result<(), RoleError> {
    let start: ResponderStart = start.decode()?;
    let mut pages = ResponderPages::take(descriptors.take(Purpose::Page), start.cpus.len())?;
    let mut terms = Publisher::new(terms(pages.access()?, start.rates));
    let stop = Arc::new(AtomicBool::new(false));
    let wake =
        stop_on_signals(&stop).map_err(|error| RoleError::new("cannot catch signals", error))?;

    let sockets = descriptors.take(Purpose::NtpSocket);
    let sockets_per_worker = sockets.len() / start.cpus.len().max(1);
    let mut sockets = sockets.into_iter().map(UdpSocket::from);
    let (ready, readiness) = channel();
    let pulses: Vec<Arc<Pulse>> = start.cpus.iter().map(|_| Arc::default()).collect();
    let go = Arc::new(Barrier::new(start.cpus.len() + 1));
    let mut workers = Vec::new();
    let stats = std::mem::take(&mut pages.workers);
    let mut busiest = std::mem::take(&mut pages.busiest).into_iter();
    for ((&cpu, pulse), stats) in start.cpus.iter().zip(&pulses).zip(stats) {
        let wake =
            wake.try_clone().map_err(|error| RoleError::new("a worker cannot be woken", error))?;
        let duty = Duty {
            cpu,
            port: start.port,
            nts_sockets: start.nts_sockets,
            busy_poll: start.busy_poll,
            hardware: start.hardware_timestamps.then(|| pages.translator()).transpose()?,
            interleaved_entries: start.interleaved_entries,
            sockets: sockets.by_ref().take(sockets_per_worker).collect(),
            wake,
            terms: terms.follower(),
            clock: pages.clock()?,
            keys: pages.ring()?,
            stats,
            busiest: busiest.next(),
            stop: Arc::clone(&stop),
            pulse: Arc::clone(pulse),
            go: Arc::clone(&go),
        };
        workers.push(spawn(duty, ready.clone())?);
    }
    for result in readiness.iter().take(workers.len()) {
        result?;
    }
    filter.apply()?;
    go.wait();
    link.report(&Report::Ready);
    obey(link, &wake, &stop, &pulses, &mut terms);
    for worker in workers {
        // One that panics takes the process down by itself.
        let _ = worker.join();
    }
    Ok(())
}

fn terms(access: NetworkSet, rates: RateLimits) -> Terms {
    Terms { access: Arc::new(access), rates }
}

/// Answers the supervisor until a signal comes. The supervisor's end is like a signal.
fn obey(
    link: &Link,
    wake: &OwnedFd,
    stop: &AtomicBool,
    pulses: &[Arc<Pulse>],
    terms: &mut Publisher<Terms>,
) {
    let now = Instant::now();
    let mut seen: Vec<(u64, Instant)> = pulses.iter().map(|pulse| (pulse.turns(), now)).collect();
    while !stop.load(Ordering::Relaxed) {
        let mut interests = [PollFd::new(link, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        let is_waiting = poll(&mut interests, None);
        if is_waiting.is_err() || interests[0].revents().is_empty() {
            continue;
        }
        match link.next_order_with() {
            Ok(Some((Order::Ping, _))) if are_turning(pulses, &mut seen, Instant::now()) => {
                link.report(&Report::Pong);
            }
            Ok(Some((Order::AdoptRates(rates), access))) => {
                link.report(&adopt(access, *rates, terms));
            }
            // A worker hangs: no answer says so. Other orders are for other roles.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                let _ = kill_process(getpid(), Signal::TERM);
                return;
            }
        }
    }
}

/// Lets every worker answer whom the supervisor says, and so often, from its next batch on.
fn adopt(access: Option<OwnedFd>, rates: RateLimits, terms: &mut Publisher<Terms>) -> Report {
    let access = access.ok_or_else(|| RoleError("no access lists came along".to_owned()));
    match access.and_then(|file| read_access(&file)) {
        Ok(access) => {
            terms.publish(self::terms(access, rates));
            Report::Adopted
        }
        Err(error) => Report::Refused(error.to_string()),
    }
}

/// Whether every worker has turned lately. `seen` are their turns when they were last seen to grow.
fn are_turning(pulses: &[Arc<Pulse>], seen: &mut [(u64, Instant)], now: Instant) -> bool {
    for (pulse, (turns, since)) in pulses.iter().zip(&mut *seen) {
        let turned = pulse.turns();
        if turned != *turns {
            (*turns, *since) = (turned, now);
        }
    }
    seen.iter().all(|(_, since)| now - *since < WORKER_HANGS_AFTER)
}

/// What one worker is given.
struct Duty {
    cpu: usize,
    port: PortChoice,
    /// How many of the sockets, from the first on, are for NTS requests.
    nts_sockets: usize,
    busy_poll: Duration,
    /// For timestamps of interfaces.
    hardware: Option<Translator>,
    interleaved_entries: usize,
    sockets: Vec<UdpSocket>,
    wake: OwnedFd,
    terms: Follower<Terms>,
    clock: HostClock,
    keys: SharedRing,
    /// The worker's page of counters.
    stats: OwnedFd,
    /// Where it counts networks; none if it does not.
    busiest: Option<OwnedFd>,
    stop: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
    /// Where it waits for the others and for the sandbox.
    go: Arc<Barrier>,
}

/// Starts a worker, which says once through `ready` whether it can serve.
fn spawn(duty: Duty, ready: Sender<Result<(), RoleError>>) -> Result<JoinHandle<()>, RoleError> {
    let work = move || {
        let _guard = AbortOnPanic;
        // Before anything is allocated, so that a worker's memory is near its processor.
        let is_pinned = core_affinity::set_for_current(CoreId { id: duty.cpu });
        // Worth having, and time is served without it.
        let _ = shorten_slice(WORKER_SLICE);
        let served = if is_pinned {
            serve(duty, &ready)
        } else {
            Err(RoleError(format!("a worker cannot be bound to processor {}", duty.cpu)))
        };
        if let Err(error) = served {
            // The receiver lives until every worker has said whether it can serve.
            let _ = ready.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(work)
        .map_err(|error| RoleError::new("a worker cannot be started", error))
}

/// Half a responder would leave the clients of a dead worker without an answer; the supervisor
/// starts a whole one.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Prepares a worker, says that it is ready, and runs its loop.
fn serve(duty: Duty, ready: &Sender<Result<(), RoleError>>) -> Result<(), RoleError> {
    let Duty { sockets, wake, stop, port, busy_poll, clock, keys, stats, pulse, go, .. } = duty;
    let (hardware, busiest) = (duty.hardware, duty.busiest.as_ref());
    let worker = prepare(clock, duty.interleaved_entries, keys, &stats, busiest)?;
    let mut worker = worker.with_terms(duty.terms);
    // The one place where ports differ: the loop is made for each.
    match port {
        PortChoice::Auto | PortChoice::Mmsg => {
            let port = MmsgPort::new(sockets, wake, busy_poll).with_hardware(hardware);
            let mut port = port.with_nts_sockets(duty.nts_sockets);
            let _ = ready.send(Ok(()));
            go.wait();
            worker.run(&mut port, &stop, &pulse);
        }
        PortChoice::Uring => {
            let port = UringPort::new(sockets, wake).map_err(|unavailable| {
                RoleError(format!("{unavailable}; or set ntp.port = \"mmsg\""))
            })?;
            let mut port = port.with_hardware(hardware);
            let _ = ready.send(Ok(()));
            go.wait();
            worker.run(&mut port, &stop, &pulse);
        }
    }
    Ok(())
}

fn prepare(
    clock: HostClock,
    interleaved_entries: usize,
    keys: SharedRing,
    stats: &OwnedFd,
    busiest: Option<&OwnedFd>,
) -> Result<Worker, RoleError> {
    let stats = attach_stats(stats)?;
    let mut aead = Aead::detect();
    self_test(&mut aead).map_err(|error| RoleError::new("refusing to start", error))?;
    let mut nonces = NonceGenerator::new()
        .map_err(|error| RoleError::new("the kernel gives no random numbers", error))?;
    let mut secret = || {
        [0; 2].map(|_| {
            let mut word = [0; 8];
            nonces.fill(&mut word);
            u64::from_ne_bytes(word)
        })
    };
    let engine = Engine::new(aead).with_interleaved(interleaved_entries, secret());
    let engine = engine.with_rate_limits(secret());
    let [secret, _] = secret();
    let busiest = busiest.map(|page| BusiestWriter::attach(page, secret)).transpose();
    let busiest = busiest
        .map_err(|error| RoleError::new("the page of networks was not handed over", error))?;
    Ok(Worker::new(engine, clock, keys, nonces, stats).with_busiest(busiest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    const IS_VICTIM: &str = "TIMEBALL_TEST_VICTIM";

    /// This test again in a process of its own, where a thread panics as a worker may.
    #[test]
    fn a_panicking_worker_takes_the_process_down() {
        if std::env::var_os(IS_VICTIM).is_some() {
            let worker = thread::spawn(|| {
                let _guard = AbortOnPanic;
                panic!("as the test wants it");
            });
            // An error now would be a responder that lives without its worker.
            let _ = worker.join();
            return;
        }
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "process::responder::tests::a_panicking_worker_takes_the_process_down",
            ])
            .env(IS_VICTIM, "1")
            .output()
            .expect("started");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    }
}
