//! What a time daemon on this host says of the clock that it keeps, judged.
//!
//! We serve the clock that the daemon keeps, so we are a second face of the same clock and no
//! client of it: stratum, reference and root delay are the daemon's own, not one more. A server
//! that the daemon follows so finds its own address in our replies and does not follow us (RFC 5905
//! section 7.3, "Reference ID").
//!
//! chronyd's tracking report is the truth where there is one: it has more digits than a reply, the
//! frequency's error, and what is still to be slewed. Its report of smoothing says by how much the
//! time that it serves is off that. A reply to an NTP query is held against both. Without a report
//! the reply is the truth.

use std::time::Duration;

use super::leap::SMEARED_REFERENCE_ID;
use super::record::{ClockRecord, Moment, STRATUM_MAX, SourceState, without_fraction};
use crate::limits::{
    FOLLOW_AGREEMENT_SECONDS, FOLLOW_CORRECTION_AGE_MAX, FOLLOW_DISPERSION_RATE,
    FOLLOW_OFF_SECONDS, FOLLOW_SLEW_RATE_MAX, FOLLOW_SMOOTHED_MIN_SECONDS,
};
use crate::sys::adjtimex::{KernelClock, LeapStatus};
use crate::wire::candm::{Smoothing, Tracking};
use crate::wire::ntp::{Header, Leap, Mode, ReferenceId};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// What became of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    /// There was none, and what the system said.
    Silence(String),
    /// It is none, and why.
    Garbage(String),
    /// What was said, and when it came.
    Word(T, Moment),
}

/// The answer to an NTP query, measured (RFC 5905 section 8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// What the daemon says.
    pub header: Header,
    /// Its time minus the system's, in seconds.
    pub offset_seconds: f64,
    /// Round trip, in seconds.
    pub delay_seconds: f64,
}

/// Why a reply is not taken for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// Too short.
    #[error("its answer has {0} bytes, and an NTP reply has 48 at the least")]
    Length(usize),
    /// No server's, or the answer to something else.
    #[error("its answer belongs to another request")]
    Unrelated,
    /// A kiss-o'-death.
    #[error("it sent the kiss code {0}")]
    Kiss(ReferenceId),
}

impl Sample {
    /// From the reply to a request that was sent at `sent` with this transmit timestamp.
    pub fn new(
        reply: &[u8],
        transmit_timestamp: NtpTimestamp,
        sent: Moment,
        received: Moment,
    ) -> Result<Self, SampleError> {
        let header = Header::parse(reply).ok_or(SampleError::Length(reply.len()))?;
        if header.mode != Mode::Server || header.origin_timestamp != transmit_timestamp {
            return Err(SampleError::Unrelated);
        }
        if crate::client::is_kiss(&header) {
            return Err(SampleError::Kiss(header.reference_id));
        }
        let out = header.receive_timestamp.seconds_since_f64(sent.system);
        let back = header.transmit_timestamp.seconds_since_f64(received.system);
        let turn = header.transmit_timestamp.seconds_since_f64(header.receive_timestamp);
        let delay_seconds = (received.since(sent).as_secs_f64() - turn).max(0.0);
        Ok(Self { header, offset_seconds: (out + back) / 2.0, delay_seconds })
    }

    fn is_synchronised(&self) -> bool {
        self.header.leap != Leap::Unsynchronised && (1..=STRATUM_MAX).contains(&self.header.stratum)
    }

    /// chronyd smooths the time that it serves, or smears a leap second: its replies have a
    /// reference of their own meanwhile.
    fn is_smoothed(&self) -> bool {
        self.header.reference_id == SMEARED_REFERENCE_ID
    }
}

/// What one round of questions comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// How the daemon fares.
    pub state: SourceState,
    /// Why it does not fare well; empty if it does.
    pub why: String,
    /// The truth, if it said one.
    pub record: Option<ClockRecord>,
}

impl Judgement {
    fn against(state: SourceState, why: impl Into<String>) -> Self {
        Self { state, why: why.into(), record: None }
    }
}

/// Judges round after round.
#[derive(Clone, Debug)]
pub struct Follower {
    holdover: Duration,
    correction: Trend,
    smoothed: Trend,
    /// chronyd smooths the time that it serves, by its last word about it.
    smooths: bool,
}

impl Follower {
    /// For a clock whose last truth is good for `holdover`.
    pub fn new(holdover: Duration) -> Self {
        let (correction, smoothed) = (Trend::default(), Trend::default());
        Self { holdover, correction, smoothed, smooths: false }
    }

    /// Judges the answers of one round; `None` for what was not asked.
    pub fn judge(
        &mut self,
        tracking: Option<&Answer<Tracking>>,
        smoothing: Option<&Answer<Option<Smoothing>>>,
        sample: Option<&Answer<Sample>>,
        kernel: Option<&KernelClock>,
    ) -> Judgement {
        let told = match smoothing {
            Some(Answer::Word(told, _)) => Some(*told),
            _ => None,
        };
        self.smooths = told.map_or(self.smooths, |told| told.is_some());
        let smoothing = told.flatten();
        let mut judgement = match (tracking, sample) {
            (Some(Answer::Word(tracking, at)), Some(Answer::Word(sample, _)))
                if is_synchronised(tracking) && sample.is_synchronised() =>
            {
                match contradiction(tracking, smoothing, sample) {
                    Some(why) => Judgement::against(SourceState::Contradictory, why),
                    None if sample.is_smoothed() && smoothing.is_none() => {
                        self.of_sample(sample, *at, Measured::Applied)
                    }
                    None => self.of_tracking(tracking, smoothing, *at),
                }
            }
            (Some(Answer::Word(tracking, _)), _) if !is_synchronised(tracking) => {
                unsynchronised("chronyd says that the clock is not synchronised")
            }
            (_, Some(Answer::Word(sample, _))) if !sample.is_synchronised() => {
                unsynchronised("the daemon says that its clock is not synchronised")
            }
            // The time that it serves may be anywhere.
            (Some(Answer::Word(..)), _) if self.smooths && smoothing.is_none() => {
                Judgement::against(
                    SourceState::Silent,
                    "chronyd smooths the time that it serves, and does not say by how much",
                )
            }
            (Some(Answer::Word(tracking, at)), _) => self.of_tracking(tracking, smoothing, *at),
            // Its reference says that the time is smoothed, so the time must be.
            (_, Some(Answer::Word(sample, at))) if sample.is_smoothed() => {
                self.of_sample(sample, *at, Measured::Applied)
            }
            (_, Some(Answer::Word(sample, at))) => self.of_sample(sample, *at, Measured::Bound),
            (Some(Answer::Garbage(why)), _) | (_, Some(Answer::Garbage(why))) => {
                Judgement::against(SourceState::Garbled, why)
            }
            (Some(Answer::Silence(why)), _) | (_, Some(Answer::Silence(why))) => {
                Judgement::against(SourceState::Silent, why)
            }
            (None, None) => Judgement::against(SourceState::Unknown, "nobody was asked"),
        };
        if let Some(record) = &mut judgement.record
            && kernel.is_some_and(|kernel| kernel.leap == LeapStatus::InProgress)
        {
            // The kernel repeats a second: no timestamp of it is right.
            (record.leap, record.stratum) = (Leap::Unsynchronised, 0);
        }
        judgement
    }

    fn of_tracking(
        &mut self,
        tracking: &Tracking,
        smoothing: Option<Smoothing>,
        at: Moment,
    ) -> Judgement {
        let smoothed_seconds = smoothing.map_or(0.0, |smoothing| smoothing.offset_seconds);
        let (correction_rate, unrest) = self.correction.follow(tracking.correction_seconds, at);
        let (smoothed_rate, smoothed_unrest) = self.smoothed.follow(smoothed_seconds, at);
        let is_smoothed = smoothed_seconds.abs() >= FOLLOW_SMOOTHED_MIN_SECONDS;
        let is_leap_smoothed = smoothing.is_some_and(|smoothing| smoothing.is_leap_only);
        let frequency_error = tracking.skew_ppm + tracking.residual_frequency_ppm.abs();
        good(ClockRecord {
            // As chronyd's own replies.
            leap: match tracking.leap {
                Leap::Insert | Leap::Delete if is_leap_smoothed => Leap::None,
                leap => leap,
            },
            stratum: tracking.stratum,
            reference_id: if is_smoothed { SMEARED_REFERENCE_ID } else { tracking.reference_id },
            reference_timestamp: without_fraction(tracking.reference_time),
            root_delay: NtpShort::from_seconds_rounded_up(tracking.root_delay_seconds),
            root_dispersion_seconds: tracking.root_dispersion_seconds,
            // One part per million is chrony's `maxclockerror`, which it does not tell.
            dispersion_rate: (frequency_error + 1.0) * 1e-6 + unrest + smoothed_unrest,
            correction_seconds: tracking.correction_seconds,
            correction_rate,
            smoothed_seconds,
            smoothed_rate,
            leap_second: None,
            source_state: SourceState::Synchronised,
            taken: at,
            holdover: self.holdover,
        })
    }

    fn of_sample(&self, sample: &Sample, at: Moment, measured: Measured) -> Judgement {
        let Sample { header, offset_seconds, delay_seconds } = *sample;
        let (correction_seconds, left_seconds) = match measured {
            Measured::Applied => (offset_seconds, 0.0),
            Measured::Bound => (0.0, offset_seconds.abs()),
        };
        if left_seconds > FOLLOW_OFF_SECONDS {
            let why = format!(
                "the daemon's time is {offset_seconds:+.6} s off the system's, so it is not the \
                 one that keeps this clock, or has not set it yet"
            );
            return Judgement::against(SourceState::Contradictory, why);
        }
        good(ClockRecord {
            leap: header.leap,
            stratum: header.stratum,
            reference_id: header.reference_id,
            reference_timestamp: without_fraction(header.reference_timestamp),
            root_delay: header.root_delay,
            root_dispersion_seconds: header.root_dispersion.to_seconds()
                + left_seconds
                + delay_seconds / 2.0,
            dispersion_rate: FOLLOW_DISPERSION_RATE,
            correction_seconds,
            correction_rate: 0.0,
            smoothed_seconds: 0.0,
            smoothed_rate: 0.0,
            leap_second: None,
            source_state: SourceState::Synchronised,
            taken: at,
            holdover: self.holdover,
        })
    }
}

/// How a correction goes on, by what was told of it last and when.
#[derive(Clone, Copy, Debug, Default)]
struct Trend {
    last: Option<(f64, Moment)>,
}

impl Trend {
    /// At which rate it shrinks, and by how much a second it may be off if it does not. A daemon
    /// slews at one rate until nothing is left. One that does not slew, as chronyd under `-x`, lets
    /// the correction drift, and a new measurement makes it jump: neither says what it will be in a
    /// second. Nor does a correction that is seen first.
    fn follow(&mut self, seconds: f64, at: Moment) -> (f64, f64) {
        let first = (0.0, seconds.abs().min(FOLLOW_SLEW_RATE_MAX));
        let Some((before, then)) = self.last.replace((seconds, at)) else {
            return first;
        };
        let age = at.since(then);
        if age.is_zero() || age > FOLLOW_CORRECTION_AGE_MAX || at.step_since(then) != 0.0 {
            return first;
        }
        let rate = (seconds - before) / age.as_secs_f64();
        if rate * seconds < 0.0 { (rate, 0.0) } else { (0.0, rate.abs()) }
    }
}

/// What is done with a measured offset.
///
/// What is measured once is the scheduler's noise as much as the truth, so it only widens the error
/// bound; but a smoothed time may be told in no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    Applied,
    Bound,
}

fn good(record: ClockRecord) -> Judgement {
    Judgement { state: SourceState::Synchronised, why: String::new(), record: Some(record) }
}

fn unsynchronised(why: &str) -> Judgement {
    Judgement::against(SourceState::Unsynchronised, why)
}

fn is_synchronised(tracking: &Tracking) -> bool {
    tracking.leap != Leap::Unsynchronised && (1..=STRATUM_MAX).contains(&tracking.stratum)
}

/// How a report and a reply differ that one daemon cannot give within a second.
fn contradiction(
    tracking: &Tracking,
    smoothing: Option<Smoothing>,
    sample: &Sample,
) -> Option<String> {
    if sample.is_smoothed() && smoothing.is_none() {
        return None;
    }
    let smoothed_seconds = smoothing.map_or(0.0, |smoothing| smoothing.offset_seconds);
    let apart = (sample.offset_seconds - tracking.correction_seconds - smoothed_seconds).abs();
    if apart > sample.delay_seconds / 2.0 + FOLLOW_AGREEMENT_SECONDS {
        return Some(format!(
            "chronyd's time is {apart:.6} s off what its report says; is clock.follow the address \
             of the same daemon?"
        ));
    }
    // At an update between the two it may change, by one round only.
    if sample.header.reference_id != tracking.reference_id && !sample.is_smoothed() {
        return Some(format!(
            "chronyd's reference is {} by its report and {} by its reply; is clock.follow the \
             address of the same daemon?",
            tracking.reference_id, sample.header.reference_id
        ));
    }
    None
}
