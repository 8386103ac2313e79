//! A question to a time daemon on this host, asked again and again over one socket.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::client::request_header;
use crate::clock::account::{Asked, SampleAccount, TrackingAccount};
use crate::clock::follow::{Answer, Sample, SampleError};
use crate::clock::host::moment;
use crate::clock::record::Moment;
use crate::limits::FOLLOW_ANSWER_BYTES;
use crate::wire::candm::{
    ReportError, Smoothing, Tracking, parse_smoothing, parse_tracking, smoothing_request,
    tracking_request,
};
use crate::wire::timestamp::NtpTimestamp;

/// What is asked for. `random` ties an answer to its question.
pub(super) trait Question {
    /// What a good answer says.
    type Said;
    /// What it comes to when it is shown.
    type Shown;

    fn request(random: u64) -> Vec<u8>;
    fn parse(answer: &[u8], random: u64, sent: Moment, now: Moment) -> Result<Self::Said, Unfit>;
    fn show(said: &Self::Said) -> Self::Shown;
}

/// An answer that is none, and why. One to another question came late, or is forged: the right one
/// may still come.
pub(super) struct Unfit {
    why: String,
    is_unrelated: bool,
}

/// A question, the socket it goes to, and the answer so far.
pub(super) struct Inquiry<Q: Question> {
    /// Or why there is no way to ask.
    socket: Way,
    random: u64,
    sent: Moment,
    answer: Answer<Q::Said>,
    is_open: bool,
    /// For the operator.
    asked: Asked<Q::Shown>,
}

/// A connected datagram socket, or why there is none.
pub(super) type Way = Result<Rc<OwnedFd>, String>;

impl<Q: Question> Inquiry<Q> {
    /// Asks over `socket`; without one, every answer is silence.
    pub(super) fn new(address: String, socket: Way) -> Self {
        Self {
            socket,
            random: 0,
            sent: moment(),
            answer: Answer::Silence(String::new()),
            is_open: false,
            asked: Asked::new(address),
        }
    }

    /// Asks. What was not answered before is not waited for any more.
    pub(super) fn ask(&mut self, random: u64) {
        self.answer = Answer::Silence("it does not answer".to_owned());
        (self.random, self.is_open) = (random, true);
        self.asked.asked += 1;
        self.asked.reach <<= 1;
        self.sent = moment();
        let sent = match &self.socket {
            Ok(socket) => self.send(socket).map_err(|error| in_words(&error)),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = sent {
            self.close(Answer::Silence(why));
        }
    }

    /// Asks over another socket from the next question on.
    pub(super) fn replace(&mut self, socket: Way) {
        self.socket = socket;
    }

    fn send(&self, socket: &OwnedFd) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let request = Q::request(self.random);
        match send(socket, &request, flags) {
            // What was sent before found nobody, which is told only now.
            Err(rustix::io::Errno::CONNREFUSED) => send(socket, &request, flags)?,
            result => result?,
        };
        Ok(())
    }

    /// Takes what has come. An answer to another question that is asked over the same socket goes
    /// to `others`, who take it or not.
    pub(super) fn hear(&mut self, mut others: impl FnMut(&[u8]) -> bool) {
        while let Ok(socket) = &self.socket {
            let mut buffer = [0; FOLLOW_ANSWER_BYTES];
            match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => {
                    let datagram = &buffer[..bytes.min(FOLLOW_ANSWER_BYTES)];
                    if !others(datagram) {
                        self.take(datagram);
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                Err(error) if self.is_open => {
                    return self.close(Answer::Silence(in_words(&error.into())));
                }
                Err(_) => return,
            }
        }
    }

    /// Takes a datagram for the answer, if it is one.
    pub(super) fn take(&mut self, datagram: &[u8]) {
        if !self.is_open {
            return;
        }
        let now = moment();
        match Q::parse(datagram, self.random, self.sent, now) {
            Ok(said) => {
                self.asked.answered += 1;
                self.asked.reach |= 1;
                self.asked.heard_since_boot_seconds = Some(now.since_boot.as_secs_f64());
                self.asked.last = Some(Q::show(&said));
                self.close(Answer::Word(said, now));
            }
            Err(Unfit { why, is_unrelated }) => {
                self.asked.garbled += 1;
                if is_unrelated {
                    self.answer = Answer::Garbage(why);
                } else {
                    self.close(Answer::Garbage(why));
                }
            }
        }
    }

    fn close(&mut self, answer: Answer<Q::Said>) {
        (self.answer, self.is_open) = (answer, false);
    }

    /// Whether an answer may still come.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// The answer, for the time being.
    pub(super) fn answer(&self) -> &Answer<Q::Said> {
        &self.answer
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> Option<PollFd<'_>> {
        self.socket
            .as_ref()
            .ok()
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
    }

    /// The last good answer, however old.
    pub(super) fn last(&self) -> Option<Q::Shown>
    where
        Q::Shown: Copy,
    {
        self.asked.last
    }

    /// Where it is asked.
    pub(super) fn address(&self) -> &str {
        &self.asked.address
    }

    /// How it went, for the operator.
    pub(super) fn asked(&self) -> Asked<Q::Shown>
    where
        Q::Shown: Clone,
    {
        let why = match &self.answer {
            Answer::Silence(why) | Answer::Garbage(why) => why.clone(),
            Answer::Word(..) => String::new(),
        };
        Asked { why, ..self.asked.clone() }
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        // The second is said of a Unix socket whose owner has ended.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected => {
            "nobody listens there".to_owned()
        }
        _ => format!("it cannot be asked: {error}"),
    }
}

impl From<ReportError> for Unfit {
    fn from(error: ReportError) -> Self {
        Self { why: error.to_string(), is_unrelated: error == ReportError::Unrelated }
    }
}

/// chronyd's tracking report.
pub(super) struct TrackingQuestion;

impl Question for TrackingQuestion {
    type Said = Tracking;
    type Shown = TrackingAccount;

    fn request(random: u64) -> Vec<u8> {
        tracking_request(random as u32).to_vec()
    }

    fn parse(answer: &[u8], random: u64, _: Moment, _: Moment) -> Result<Tracking, Unfit> {
        parse_tracking(answer, random as u32).map_err(Unfit::from)
    }

    fn show(tracking: &Tracking) -> TrackingAccount {
        TrackingAccount::new(tracking, unix_seconds_now())
    }
}

/// chronyd's report of smoothing.
pub(super) struct SmoothingQuestion;

impl Question for SmoothingQuestion {
    type Said = Option<Smoothing>;
    type Shown = Option<Smoothing>;

    fn request(random: u64) -> Vec<u8> {
        smoothing_request(random as u32).to_vec()
    }

    fn parse(answer: &[u8], random: u64, _: Moment, _: Moment) -> Result<Self::Said, Unfit> {
        parse_smoothing(answer, random as u32).map_err(Unfit::from)
    }

    fn show(said: &Self::Said) -> Self::Shown {
        *said
    }
}

/// An NTP query.
pub(super) struct NtpQuestion;

impl Question for NtpQuestion {
    type Said = Sample;
    type Shown = SampleAccount;

    fn request(random: u64) -> Vec<u8> {
        request_header(NtpTimestamp::from_bits(random)).emit().to_vec()
    }

    fn parse(answer: &[u8], random: u64, sent: Moment, now: Moment) -> Result<Sample, Unfit> {
        let sample = Sample::new(answer, NtpTimestamp::from_bits(random), sent, now);
        sample.map_err(|error| Unfit {
            why: error.to_string(),
            is_unrelated: error == SampleError::Unrelated,
        })
    }

    fn show(sample: &Sample) -> SampleAccount {
        SampleAccount::new(sample, unix_seconds_now())
    }
}

/// By the system's clock.
pub(super) fn unix_seconds_now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}
