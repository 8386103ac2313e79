//! The clock role: asks the source of the time once a second and publishes what it says.

mod hardware;
mod inquiry;
mod log;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};

use self::hardware::Phcs;
use self::inquiry::{Inquiry, NtpQuestion, SmoothingQuestion, TrackingQuestion, Way};
use self::log::{LogWriter, Logs};
use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::ClockPages;
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{ClockStart, Order, Report, RoleError};
use super::supervisor::timespec;
use crate::clock::account::Account;
use crate::clock::follow::{Answer, Follower, Judgement};
use crate::clock::host::moment;
use crate::clock::leap_watch::{LeapNews, LeapWatch, without_smeared_leap};
use crate::clock::record::{ClockRecord, SourceState};
use crate::clock::source::{self, Source};
use crate::config::clock::{ChronydAddress, ClockSettings};
use crate::limits::{CLOCK_LOOK_INTERVAL, FOLLOW_ANSWER_WAIT};
use crate::sys::adjtimex::{self, KernelClock};
use crate::wire::candm::{Smoothing, is_of_smoothing};

/// Asks until SIGTERM. In this order:
///
/// 1. signals are caught and the pages are taken over, with the last truth in them,
/// 2. sockets to the daemon are opened, and the thread that writes logs is started,
/// 3. the filter of system calls holds,
/// 4. the source is asked for the first time, and the supervisor is told what came of it,
/// 5. the loop runs.
pub fn run(
    start: StartMessage,
    mut descriptors: Descriptors,
    link: &Link,
    filter: Filter,
) -> Result<(), RoleError> {
    let ClockStart { settings, why_no_chronyd, leap, logs, stamping } = start.decode()?;
    let pages = ClockPages::take(descriptors.take(Purpose::Page))?;
    let stop = Arc::new(AtomicBool::new(false));
    let wake =
        stop_on_signals(&stop).map_err(|error| RoleError::new("cannot catch signals", error))?;
    adjtimex::read()
        .map_err(|error| RoleError::new("cannot read the kernel's clock (adjtimex)", error))?;
    let chronyd = descriptors.take(Purpose::ChronydSocket).pop();
    let chronyd = chronyd.ok_or_else(|| why_no_chronyd.unwrap_or_default());
    // The first reading looks for the vDSO, which takes calls of its own.
    let _ = moment();
    let mut keeper = Keeper::new(settings, pages, chronyd, leap)?;
    keeper.phcs = Phcs::new(stamping, descriptors.take(Purpose::HardwareClock));
    if !logs.is_empty() {
        let writer = LogWriter::start()
            .map_err(|error| RoleError::new("the thread of the logs cannot start", error))?;
        for (kind, file) in logs.into_iter().zip(descriptors.take(Purpose::LogFile)) {
            writer.open(kind, file);
        }
        keeper.logs = Some(Logs::new(writer));
    }
    filter.apply()?;
    keeper.run(link, &wake, &stop);
    Ok(())
}

/// Asks the source and keeps the pages.
struct Keeper {
    settings: ClockSettings,
    pages: ClockPages,
    /// The last truth; none if the process before this one was killed while it wrote.
    record: Option<ClockRecord>,
    following: Option<Following>,
    /// The leap-seconds file, if there is one.
    leap_watch: Option<LeapWatch>,
    logs: Option<Logs>,
    /// The clocks of interfaces.
    phcs: Phcs,
    /// When the source is asked next.
    ask_due: Instant,
    /// Until when the answers to the last questions are waited for.
    judge_due: Option<Instant>,
}

impl Keeper {
    /// `chronyd` is a socket to its Unix socket, or why there is none.
    fn new(
        settings: ClockSettings,
        pages: ClockPages,
        chronyd: Result<OwnedFd, String>,
        leap: Option<LeapNews>,
    ) -> Result<Self, RoleError> {
        let record = pages
            .clock
            .latest()
            .map_err(|error| RoleError::new("the clock's page cannot be read", error))?;
        let following = match settings.source {
            Source::Follow => Some(Following::new(&settings, chronyd)?),
            Source::Kernel | Source::Local => None,
        };
        let file = settings.leap_file.as_ref().map(|path| path.display().to_string());
        let leap_watch =
            file.zip(leap).map(|(file, news)| LeapWatch::new(file, news, settings.smear));
        let ask_due = Instant::now();
        Ok(Self {
            settings,
            pages,
            record,
            following,
            leap_watch,
            logs: None,
            phcs: Phcs::default(),
            ask_due,
            judge_due: None,
        })
    }

    /// Looks when it is time and answers the supervisor. The supervisor's end is like a signal.
    fn run(&mut self, link: &Link, wake: &OwnedFd, stop: &AtomicBool) {
        let mut is_ready = false;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.turn(now, link);
            if !is_ready && self.judge_due.is_none() {
                is_ready = true;
                link.report(&Report::Ready);
            }
            let due = self.judge_due.map_or(self.ask_due, |due| due.min(self.ask_due));
            let timeout = timespec(due.saturating_duration_since(now));
            let mut interests =
                vec![PollFd::new(link, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
            interests.extend(self.following.iter().flat_map(Following::interests));
            let is_waiting = poll(&mut interests, Some(&timeout));
            if is_waiting.is_err() || interests[0].revents().is_empty() {
                continue;
            }
            match link.next_order_with() {
                Ok(Some((Order::Ping, _))) => link.report(&Report::Pong),
                Ok(Some((Order::AskChronyd(why), socket))) => {
                    self.ask_chronyd_over(socket.ok_or_else(|| why.unwrap_or_default()));
                }
                Ok(Some((Order::KnowLeapSeconds(news), _))) => {
                    if let Some(watch) = &mut self.leap_watch {
                        watch.take(*news);
                    }
                }
                Ok(Some((Order::WriteLog(kind), file))) => {
                    if let Some((logs, file)) = self.logs.as_ref().zip(file) {
                        logs.open(kind, file);
                    }
                }
                Ok(Some((Order::Adopt(_) | Order::AdoptRates(_) | Order::Inform(_), _))) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Asks and judges, each when it is time. A source without questions is judged at once.
    fn turn(&mut self, now: Instant, link: &Link) {
        if now >= self.ask_due {
            self.ask_due = now + CLOCK_LOOK_INTERVAL;
            self.phcs.look(&mut self.pages.hardware);
            if let Some(following) = &mut self.following {
                following.ask();
            }
            self.judge_due = Some(now + FOLLOW_ANSWER_WAIT);
        }
        let Some(due) = self.judge_due else { return };
        let is_open = self.following.as_mut().is_some_and(Following::hear);
        if !is_open || now >= due {
            self.judge_due = None;
            self.judge();
            if self.is_chronyd_lost() {
                link.report(&Report::ChronydLost);
            }
        }
    }

    /// Whether chronyd, once restarted, has a Unix socket that only the supervisor can reach.
    fn is_chronyd_lost(&self) -> bool {
        matches!(self.settings.chronyd, Some(ChronydAddress::Unix(_)))
            && self
                .following
                .as_ref()
                .and_then(|it| it.chronyd.as_ref())
                .is_some_and(|chronyd| matches!(chronyd.answer(), Answer::Silence(_)))
    }

    fn ask_chronyd_over(&mut self, socket: Result<OwnedFd, String>) {
        if let Some(following) = &mut self.following {
            following.ask_chronyd_over(socket.map(Rc::new));
        }
    }

    /// Publishes what came of the questions. Without a truth the last one stays and ages.
    fn judge(&mut self) {
        let kernel = adjtimex::read().ok();
        let before = self.record;
        let quiet = kernel.map(|kernel| without_smeared_leap(kernel, before.as_ref(), moment()));
        let Judgement { state, why, record } = self.judgement(quiet.as_ref());
        if let Some((logs, following)) = self.logs.as_mut().zip(self.following.as_ref()) {
            logs.note(record.as_ref(), before.as_ref(), following);
        }
        let now = moment();
        self.record = record.or(before);
        let smoothing = self.following.as_ref().and_then(Following::smoothing);
        if let Some(watch) = &mut self.leap_watch {
            watch.source_smears(smoothing.is_some());
        }
        let watch = self.leap_watch.as_ref();
        if let Some(record) = &mut self.record {
            record.source_state = state;
            record.leap_second =
                watch.and_then(|watch| watch.near(record, before.as_ref(), now, kernel.as_ref()));
            self.pages.clock.publish(record);
        }
        let leap_file = watch.map(|watch| watch.account(self.record.as_ref(), now));
        let following = self.following.as_ref();
        self.pages.account.publish(&Account {
            source: self.settings.source,
            state,
            why,
            chronyd: following.and_then(|it| it.chronyd.as_ref()).map(Inquiry::asked),
            smoothing,
            ntp: following.and_then(|it| it.ntp.as_ref()).map(Inquiry::asked),
            kernel: kernel.as_ref().map(Into::into),
            leap_file,
            logs: self.logs.as_ref().map(Logs::account),
            hardware: self.phcs.account(),
        });
    }

    fn judgement(&mut self, kernel: Option<&KernelClock>) -> Judgement {
        let ClockSettings { source, stratum, holdover, .. } = self.settings;
        let now = moment();
        let (record, why) = match (source, kernel) {
            (Source::Follow, _) => {
                let following = self.following.as_mut().expect("made for this source");
                return following.judge(kernel);
            }
            (Source::Local, _) => (source::local(kernel, stratum, now, holdover), ""),
            (Source::Kernel, Some(kernel)) => {
                let why = "the kernel says that no time daemon keeps the clock";
                let why = if kernel.synchronised { "" } else { why };
                (source::kernel(kernel, stratum, now, holdover), why)
            }
            // It cannot happen once the call went well.
            (Source::Kernel, None) => {
                let why = "the kernel does not say how its clock fares (adjtimex)".to_owned();
                return Judgement { state: SourceState::Silent, why, record: None };
            }
        };
        Judgement { state: record.source_state, why: why.to_owned(), record: Some(record) }
    }
}

/// The daemon that is followed.
struct Following {
    follower: Follower,
    chronyd: Option<Inquiry<TrackingQuestion>>,
    ntp: Option<Inquiry<NtpQuestion>>,
    /// Over the same socket as the tracking report.
    smoothing: Option<Inquiry<SmoothingQuestion>>,
}

impl Following {
    fn new(settings: &ClockSettings, unix: Result<OwnedFd, String>) -> Result<Self, RoleError> {
        let chronyd = match &settings.chronyd {
            None => None,
            Some(ChronydAddress::Udp(address)) => Some((address.to_string(), open(*address)?)),
            Some(ChronydAddress::Unix(path)) => {
                Some((path.display().to_string(), unix.map(Rc::new)))
            }
        };
        let ntp = match settings.follow {
            None => None,
            Some(address) => Some(Inquiry::new(address.to_string(), open(address)?)),
        };
        let smoothing = chronyd.clone().map(|(address, way)| Inquiry::new(address, way));
        let chronyd = chronyd.map(|(address, way)| Inquiry::new(address, way));
        Ok(Self { follower: Follower::new(settings.holdover), chronyd, ntp, smoothing })
    }

    /// From the next question on.
    fn ask_chronyd_over(&mut self, way: Way) {
        if let Some(inquiry) = &mut self.smoothing {
            inquiry.replace(way.clone());
        }
        if let Some(inquiry) = &mut self.chronyd {
            inquiry.replace(way);
        }
    }

    fn ask(&mut self) {
        let mut random = [[0; 8]; 3];
        // Without random numbers nobody is asked: anybody's answer would do.
        if getrandom::fill(random.as_flattened_mut()).is_err() {
            return;
        }
        let [chronyd, ntp, smoothing] = random.map(u64::from_ne_bytes);
        if let Some(inquiry) = &mut self.chronyd {
            inquiry.ask(chronyd);
        }
        if let Some(inquiry) = &mut self.ntp {
            inquiry.ask(ntp);
        }
        if let Some(inquiry) = &mut self.smoothing {
            inquiry.ask(smoothing);
        }
    }

    /// Takes what has come; says whether more may come. How chronyd smooths is of no use without
    /// its tracking report.
    fn hear(&mut self) -> bool {
        let Self { chronyd, ntp, smoothing, .. } = self;
        if let Some(inquiry) = chronyd {
            inquiry.hear(|datagram| {
                let smoothing = smoothing.as_mut().filter(|_| is_of_smoothing(datagram));
                smoothing.map(|smoothing| smoothing.take(datagram)).is_some()
            });
        }
        if let Some(inquiry) = ntp {
            inquiry.hear(|_| false);
        }
        let is_tracked = chronyd.as_ref().is_some_and(|it| matches!(it.answer(), Answer::Word(..)));
        chronyd.as_ref().is_some_and(Inquiry::is_open)
            || ntp.as_ref().is_some_and(Inquiry::is_open)
            || is_tracked && smoothing.as_ref().is_some_and(Inquiry::is_open)
    }

    fn judge(&mut self, kernel: Option<&KernelClock>) -> Judgement {
        let tracking = self.chronyd.as_ref().map(Inquiry::answer);
        let smoothing = self.smoothing.as_ref().map(Inquiry::answer);
        let sample = self.ntp.as_ref().map(Inquiry::answer);
        self.follower.judge(tracking, smoothing, sample, kernel)
    }

    /// How chronyd smooths the time that it serves, by its last word about it.
    fn smoothing(&self) -> Option<Smoothing> {
        self.smoothing.as_ref().and_then(Inquiry::last).flatten()
    }

    fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let chronyd = self.chronyd.as_ref().and_then(Inquiry::interest);
        chronyd.into_iter().chain(self.ntp.as_ref().and_then(Inquiry::interest))
    }
}

/// A socket to a daemon of this host.
fn open(address: SocketAddr) -> Result<Way, RoleError> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(local)
        .and_then(|socket| socket.connect(address).map(|()| Ok(Rc::new(socket.into()))))
        .map_err(|error| RoleError::new(&format!("cannot open a socket to ask {address}"), error))
}
