//! One thread's loop: send what is due, receive, expire, hand over.
//!
//! One thread does both directions, so that nothing is shared and nothing locked. Receiving waits
//! for sending, at no cost to accuracy: the kernel stamps arrivals.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use arrayvec::ArrayVec;
use core_affinity::CoreId;
use rustix::time::{ClockId, clock_gettime};
use timeball::aead::ReplyOpen;
use timeball::limits::BATCH_DATAGRAMS;
use timeball::sys::message::{Envelope, Payload};
use timeball::wire::ntp::HEADER_BYTES;
use timeball::wire::timestamp::NtpTimestamp;

use crate::flight::{Flight, Found};
use crate::heard::Heard;
use crate::limits::{INTERVAL, OVERTIME, RECEIVES_PER_TURN, SEND_LAG_MAX, SPIN, WAIT_MAX};
use crate::plan::{Plan, Shape, Twist};
use crate::record::{Interval, Tally};
use crate::request::{Clients, Writer};
use crate::schedule::Schedule;
use crate::sockets::{SocketError, Sockets};
use crate::verify::{Candidate, Looks, Reason, Says, job, look, take_cookies};

/// What a thread hands over once an interval.
pub struct Report {
    /// Number of the interval since the run began.
    pub interval: usize,
    /// What was recorded in it.
    pub recorded: Interval,
    /// When the last request so far left.
    pub sent_ns: u64,
}

/// Why a thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// No sockets.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No random numbers.
    #[error("the kernel gives no random numbers ({0}): Linux 4.14 or newer is needed")]
    Random(#[from] getrandom::Error),
}

/// See the module.
pub struct Pump {
    schedule: Schedule,
    clients: Clients,
    next_client: usize,
    writer: Writer,
    flight: Flight,
    /// Of interleaved clients.
    heard: Option<Heard>,
    sockets: Sockets,
    verify_every: u64,
    quiet_ns: u64,
    twist: Twist,
    /// When nothing is offered any more, whatever is still due.
    end_ns: u64,
    /// When something was last sent or received.
    active_ns: u64,
    /// When something was last sent.
    sent_ns: u64,
    interval: usize,
    recorded: Box<Interval>,
}

impl Pump {
    /// The thread with this number, of as many as `plan` has. `clients` are its own.
    pub fn new(plan: &Plan, thread: usize, clients: Clients) -> Result<Self, PumpError> {
        let mut writer = Writer::new()?;
        let burst = match plan.shape {
            Shape::Burst { requests } => requests,
            _ => 0,
        };
        let peak_per_second = plan.peak_per_second() / plan.cpus.len() as f64;
        let timeout_ns = plan.timeout.as_nanos() as u64;
        let flight = Flight::new(peak_per_second, burst, timeout_ns, writer.flight_keys());
        Ok(Self {
            schedule: Schedule::new(plan, thread),
            heard: plan.interleaved.then(|| Heard::new(clients.len())),
            clients,
            next_client: 0,
            flight,
            sockets: Sockets::open(plan, thread)?,
            writer,
            verify_every: plan.verify_every,
            quiet_ns: plan.quiet.as_nanos() as u64,
            twist: plan.twist,
            end_ns: (plan.duration + OVERTIME).as_nanos() as u64,
            active_ns: 0,
            sent_ns: 0,
            interval: 0,
            recorded: Box::default(),
        })
    }

    /// Offers its part of the plan, and waits for what has to come back. `stop` ends the offer.
    /// Returns the clients with the cookies that they now have.
    pub fn run(mut self, clock: Clock, stop: &AtomicBool, reports: &Sender<Report>) -> Clients {
        clock.wait_for_beginning();
        loop {
            let now_ns = clock.now_ns();
            // What cannot leave in time must not make the run endless.
            if stop.load(Ordering::Relaxed) || now_ns > self.end_ns {
                self.schedule.stop();
            }
            self.send_due(now_ns, clock);
            let drained = (0..RECEIVES_PER_TURN).any(|_| self.receive(clock) < BATCH_DATAGRAMS);
            self.recorded.tally.lost += self.flight.expire(now_ns);
            self.hand_over_at(now_ns, reports);
            if self.is_over(now_ns) {
                break;
            }
            if drained {
                self.wait(clock);
            }
        }
        self.hand_over(reports);
        self.clients
    }

    /// One batch of what is due.
    fn send_due(&mut self, now_ns: u64, clock: Clock) {
        let mut due: ArrayVec<u64, { crate::limits::BATCH_REQUESTS }> = ArrayVec::new();
        self.writer.clear();
        while !self.writer.is_full()
            && let Some(due_ns) = self.schedule.take(now_ns)
        {
            if !self.flight.has_room() {
                self.recorded.tally.crowded_out += 1;
                self.recorded.tally.lost += self.flight.forget_oldest();
            }
            let heard = self.heard.as_mut().and_then(|heard| heard.take(self.next_client));
            self.writer.add(&mut self.clients, self.next_client, due_ns, heard, &mut self.flight);
            self.next_client = (self.next_client + 1) % self.clients.len();
            due.push(due_ns);
        }
        if due.is_empty() {
            return;
        }
        self.writer.seal(&self.clients);
        self.writer.twist(self.twist);
        let sent_ns = clock.now_ns();
        let Interval { tally, send_lag, .. } = &mut *self.recorded;
        for due_ns in &due {
            let lag_ns = sent_ns.saturating_sub(*due_ns);
            send_lag.record(lag_ns.max(1));
            tally.lagging += u64::from(lag_ns > SEND_LAG_MAX.as_nanos() as u64);
        }
        tally.offered += due.len() as u64;
        let flight = &mut self.flight;
        self.sockets.send(&mut self.writer, |request| {
            tally.refused += 1;
            flight.settle(transmit_of(request));
        });
        if self.twist == Twist::Replay {
            self.sockets.send(&mut self.writer, |_| {});
        }
        self.sent_ns = clock.now_ns();
        self.active_ns = self.sent_ns;
    }

    /// Takes up to a batch of datagrams; returns how many came.
    fn receive(&mut self, clock: Clock) -> usize {
        let target = self.sockets.target();
        let mut batch: ArrayVec<(&mut Payload, &mut Envelope), BATCH_DATAGRAMS> =
            self.sockets.receive().collect();
        if batch.is_empty() {
            return 0;
        }
        let now = clock.read();
        self.active_ns = now.monotonic_ns;
        let mut answers = Answers {
            clients: &mut self.clients,
            flight: &mut self.flight,
            heard: self.heard.as_mut(),
            writer: &mut self.writer,
            recorded: &mut self.recorded,
            verify_every: self.verify_every,
        };
        answers.recorded.tally.received += batch.len() as u64;
        let mut candidates: ArrayVec<Option<(Candidate, u64)>, BATCH_DATAGRAMS> = batch
            .iter_mut()
            .map(|(payload, envelope)| {
                let candidate = answers.look(payload, envelope, target)?;
                let arrival = envelope.turn().arrival;
                Some((candidate, arrival.map_or(now.monotonic_ns, |stamp| now.at(stamp))))
            })
            .collect();
        answers.authenticate(&mut batch, &mut candidates);
        for ((payload, envelope), candidate) in batch.iter().zip(&candidates) {
            if let Some((candidate, arrival_ns)) = candidate {
                answers.take(candidate, *arrival_ns, &payload[..envelope.payload_bytes]);
            }
        }
        batch.len()
    }

    fn hand_over_at(&mut self, now_ns: u64, reports: &Sender<Report>) {
        let interval = (now_ns / INTERVAL.as_nanos() as u64) as usize;
        if interval > self.interval {
            self.hand_over(reports);
            self.interval = interval;
        }
    }

    fn hand_over(&mut self, reports: &Sender<Report>) {
        let mut recorded = std::mem::take(&mut *self.recorded);
        recorded.tally.own_drops += self.sockets.new_drops();
        recorded.tally.cookies_reused += std::mem::take(&mut self.writer.cookies_reused);
        // Nobody listens when the run has been given up.
        let _ = reports.send(Report { interval: self.interval, recorded, sent_ns: self.sent_ns });
    }

    fn is_over(&self, now_ns: u64) -> bool {
        self.schedule.next_due().is_none()
            && self.flight.waiting() == 0
            && now_ns.saturating_sub(self.active_ns) >= self.quiet_ns
    }

    /// Sleeps in `poll` unless the next request is due too soon for that.
    fn wait(&self, clock: Clock) {
        let wait = match self.schedule.next_due() {
            None => WAIT_MAX.min(Duration::from_nanos(self.quiet_ns.max(1))),
            Some(due_ns) => Duration::from_nanos(due_ns.saturating_sub(clock.now_ns()))
                .saturating_sub(SPIN)
                .min(WAIT_MAX),
        };
        if wait.is_zero() {
            std::hint::spin_loop();
        } else {
            self.sockets.wait(wait);
        }
    }
}

/// Pins the calling thread, and lets its sleeps end when they should. Neither is worth failing
/// for: what it costs shows as send lag.
pub fn settle_thread(cpu: Option<usize>) -> bool {
    // The kernel adds up to 50 µs to every sleep unless told (prctl(2), PR_SET_TIMERSLACK).
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    cpu.is_none_or(|id| core_affinity::set_for_current(CoreId { id }))
}

/// What judges the datagrams of one batch.
struct Answers<'a> {
    clients: &'a mut Clients,
    flight: &'a mut Flight,
    heard: Option<&'a mut Heard>,
    writer: &'a mut Writer,
    recorded: &'a mut Interval,
    verify_every: u64,
}

impl Answers<'_> {
    /// By its looks; counts it unless it may be an answer.
    fn look(
        &mut self,
        payload: &Payload,
        envelope: &Envelope,
        target: std::net::SocketAddr,
    ) -> Option<Candidate> {
        let is_nts = matches!(self.clients, Clients::Nts(..));
        let peer = envelope.peer();
        let looks = if (peer.ip(), peer.port()) != (target.ip(), target.port()) {
            Looks::Invalid(Reason::Foreign)
        } else if envelope.truncated {
            Looks::Invalid(Reason::Length)
        } else {
            look(&payload[..envelope.payload_bytes], is_nts, self.flight, self.writer)
        };
        let tally = &mut self.recorded.tally;
        match looks {
            Looks::Answer(candidate) => return Some(candidate),
            Looks::Duplicate => tally.duplicates += 1,
            Looks::Forgotten => tally.forgotten += 1,
            Looks::Invalid(reason) => *reason.count(&mut tally.invalid) += 1,
        }
        None
    }

    /// Checks the tags of those that are chosen, together; takes out those that fail.
    fn authenticate(
        &mut self,
        batch: &mut [(&mut Payload, &mut Envelope)],
        candidates: &mut [Option<(Candidate, u64)>],
    ) {
        let Clients::Nts(associations, ..) = &*self.clients else { return };
        let mut jobs: ArrayVec<ReplyOpen<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
        let mut places: ArrayVec<usize, BATCH_DATAGRAMS> = ArrayVec::new();
        for (place, ((payload, _), candidate)) in batch.iter_mut().zip(&*candidates).enumerate() {
            let Some((candidate, _)) = candidate else { continue };
            let Some(authenticator) = &candidate.authenticator else { continue };
            if is_chosen(self.flight, candidate.request, self.verify_every) {
                jobs.push(job(candidate, authenticator, &mut payload[..], associations));
                places.push(place);
            }
        }
        self.writer.aead().open_replies(&mut jobs);
        let tally = &mut self.recorded.tally;
        for (place, job) in places.iter().zip(&jobs) {
            if job.passed {
                tally.authenticated += 1;
            } else {
                tally.invalid.tag += 1;
                candidates[*place] = None;
            }
        }
    }

    /// Counts an answer, and takes its cookies.
    fn take(&mut self, candidate: &Candidate, arrival_ns: u64, datagram: &[u8]) {
        let tally = &mut self.recorded.tally;
        // The same answer may stand in the batch twice.
        if self.flight.find(candidate.request) != Found::Waiting(candidate.sent) {
            tally.duplicates += 1;
            return;
        }
        let is_time = matches!(candidate.says, Says::Time { .. });
        if let (Clients::Nts(associations, ..), Some(authenticator)) =
            (&mut *self.clients, &candidate.authenticator)
            && is_time
            && is_chosen(self.flight, candidate.request, self.verify_every)
            && !take_cookies(candidate, authenticator, datagram, associations)
        {
            tally.invalid.cookies += 1;
            return;
        }
        self.flight.settle(candidate.request);
        let latency_ns = arrival_ns.saturating_sub(candidate.sent.due_ns);
        match candidate.says {
            Says::Nak => tally.nak += 1,
            Says::Kiss(code) => count_kiss(tally, &code.0),
            Says::Time { is_synchronised } => {
                tally.unsynchronised += u64::from(!is_synchronised);
                if let Some(heard) = &mut self.heard {
                    heard.put(candidate.sent.client as usize, candidate.receive_timestamp);
                }
                if self.flight.is_late(latency_ns) {
                    tally.late += 1;
                } else {
                    tally.answered += 1;
                    tally.interleaved += u64::from(candidate.is_interleaved);
                }
                self.recorded.latency.record(latency_ns.max(1));
            }
        }
    }
}

fn count_kiss(tally: &mut Tally, code: &[u8; 4]) {
    let code = std::str::from_utf8(code).expect("letters and digits");
    match tally.kiss.get_mut(code) {
        Some(count) => *count += 1,
        None => {
            tally.kiss.insert(code.to_owned(), 1);
        }
    }
}

/// Whether the answer to this request is authenticated.
fn is_chosen(flight: &Flight, request: NtpTimestamp, every: u64) -> bool {
    every > 0 && flight.number(request).is_multiple_of(every)
}

/// The transmit timestamp of a request.
fn transmit_of(request: &[u8]) -> NtpTimestamp {
    let bits = request[HEADER_BYTES - 8..HEADER_BYTES].first_chunk().expect("eight bytes");
    NtpTimestamp::from_bits(u64::from_be_bytes(*bits))
}

/// Time since the run began, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin_ns: u64,
}

/// Both of the kernel's clocks, read together.
#[derive(Clone, Copy, Debug)]
struct Reading {
    monotonic_ns: u64,
    realtime: NtpTimestamp,
}

impl Clock {
    /// Begins after `delay`, so that all threads are ready.
    pub fn begin_in(delay: Duration) -> Self {
        Self { begin_ns: monotonic_ns() + delay.as_nanos() as u64 }
    }

    /// Nanoseconds since the beginning; 0 before it.
    pub fn now_ns(self) -> u64 {
        monotonic_ns().saturating_sub(self.begin_ns)
    }

    fn wait_for_beginning(self) {
        std::thread::sleep(Duration::from_nanos(self.begin_ns.saturating_sub(monotonic_ns())));
    }

    fn read(self) -> Reading {
        let realtime = clock_gettime(ClockId::Realtime);
        Reading {
            monotonic_ns: self.now_ns(),
            realtime: NtpTimestamp::from_unix(realtime.tv_sec, realtime.tv_nsec as u32),
        }
    }
}

impl Reading {
    /// When a stamp of the other clock was made. Only the time since then is measured by that
    /// clock, so its being set does not matter, unless it happens just then.
    fn at(&self, stamp: NtpTimestamp) -> u64 {
        let age = self.realtime.seconds_since(stamp).max(0) as u128;
        self.monotonic_ns.saturating_sub(((age * 1_000_000_000) >> 32) as u64)
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
