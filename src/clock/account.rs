//! What the clock role knows of its sources, for the operator.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::follow::Sample;
use super::hardware::Translation;
use super::leap_watch::LeapAccount;
use super::record::SourceState;
use super::source::Source;
use crate::sys::adjtimex::{KernelClock, LeapStatus};
use crate::wire::candm::{Smoothing, Tracking};
use crate::wire::ntp::Leap;
use crate::wire::timestamp::NtpTimestamp;

/// Everything that is known, at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// `clock.source`.
    pub source: Source,
    /// How it fares.
    pub state: SourceState,
    /// Why it does not fare well; empty if it does.
    pub why: String,
    /// chronyd's tracking report, if it is asked for.
    pub chronyd: Option<Asked<TrackingAccount>>,
    /// How chronyd smooths the time that it serves, if it says that it does.
    pub smoothing: Option<Smoothing>,
    /// The reply to an NTP query, if one is sent.
    pub ntp: Option<Asked<SampleAccount>>,
    /// The kernel's account of its clock.
    pub kernel: Option<KernelAccount>,
    /// The leap-seconds file, if there is one.
    pub leap_file: Option<LeapAccount>,
    /// The logs, if any is written.
    pub logs: Option<LogAccount>,
    /// The clocks of interfaces, if they are to stamp.
    pub hardware: Vec<HardwareAccount>,
}

/// How the clock of an interface fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HardwareAccount {
    /// The interface.
    pub interface: String,
    /// Its timestamps can be translated.
    pub is_followed: bool,
    /// What it gains on `CLOCK_MONOTONIC_RAW`; none while it is not followed.
    pub frequency_ppm: Option<f64>,
    /// Error bound of the translation.
    pub error_bound_seconds: Option<f64>,
    /// Why the last reading has failed; empty if it has not.
    pub why: String,
}

impl HardwareAccount {
    /// Of an interface whose stamps are translated so.
    pub fn new(interface: String, translation: Option<&Translation>, why: String) -> Self {
        Self {
            interface,
            is_followed: translation.is_some(),
            frequency_ppm: translation.map(|translation| -translation.rate * 1e6),
            error_bound_seconds: translation.map(|it| it.error_nanoseconds * 1e-9),
            why,
        }
    }
}

/// How the logs fare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAccount {
    /// Lines that were not written since the clock role started.
    pub lines_lost: u64,
    /// Why the last one was not; empty if its writer was too slow.
    pub why: String,
}

/// Somebody who is asked, and how they answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked<T> {
    /// Where.
    pub address: String,
    /// Questions since the clock role started.
    pub asked: u64,
    /// Good answers.
    pub answered: u64,
    /// Answers that made no sense.
    pub garbled: u64,
    /// The last eight questions, the newest in bit 0; set if the answer was good.
    pub reach: u8,
    /// Why the last answer was none; empty if it was.
    pub why: String,
    /// When the last good answer came, in seconds since boot.
    pub heard_since_boot_seconds: Option<f64>,
    /// The last good answer.
    pub last: Option<T>,
}

impl<T> Asked<T> {
    /// Of an address where nobody was asked yet.
    pub fn new(address: String) -> Self {
        Self {
            address,
            asked: 0,
            answered: 0,
            garbled: 0,
            reach: 0,
            why: String::new(),
            heard_since_boot_seconds: None,
            last: None,
        }
    }
}

/// [`Tracking`], to be shown.
#[expect(missing_docs, reason = "the fields of Tracking, with their meaning")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackingAccount {
    pub leap: String,
    pub stratum: u8,
    pub reference_id: String,
    pub source_address: Option<IpAddr>,
    pub reference_unix_seconds: Option<f64>,
    pub correction_seconds: f64,
    pub last_offset_seconds: f64,
    pub rms_offset_seconds: f64,
    pub frequency_ppm: f64,
    pub residual_frequency_ppm: f64,
    pub skew_ppm: f64,
    pub root_delay_seconds: f64,
    pub root_dispersion_seconds: f64,
    pub update_interval_seconds: f64,
}

impl TrackingAccount {
    /// At a time near `now_unix_seconds`, which chooses the era.
    pub fn new(tracking: &Tracking, now_unix_seconds: i64) -> Self {
        Self {
            leap: leap_name(tracking.leap).to_owned(),
            stratum: tracking.stratum,
            reference_id: tracking.reference_id.to_string(),
            source_address: tracking.source_address,
            reference_unix_seconds: unix_seconds(tracking.reference_time, now_unix_seconds),
            correction_seconds: tracking.correction_seconds,
            last_offset_seconds: tracking.last_offset_seconds,
            rms_offset_seconds: tracking.rms_offset_seconds,
            frequency_ppm: tracking.frequency_ppm,
            residual_frequency_ppm: tracking.residual_frequency_ppm,
            skew_ppm: tracking.skew_ppm,
            root_delay_seconds: tracking.root_delay_seconds,
            root_dispersion_seconds: tracking.root_dispersion_seconds,
            update_interval_seconds: tracking.update_interval_seconds,
        }
    }
}

/// [`Sample`], to be shown.
#[expect(missing_docs, reason = "the fields of Header and Sample, with their meaning")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleAccount {
    pub leap: String,
    pub version: u8,
    pub stratum: u8,
    pub poll: i8,
    pub precision: i8,
    pub root_delay_seconds: f64,
    pub root_dispersion_seconds: f64,
    pub reference_id: String,
    pub reference_unix_seconds: Option<f64>,
    pub offset_seconds: f64,
    pub delay_seconds: f64,
}

impl SampleAccount {
    /// At a time near `now_unix_seconds`, which chooses the era.
    pub fn new(sample: &Sample, now_unix_seconds: i64) -> Self {
        let Sample { header, offset_seconds, delay_seconds } = *sample;
        Self {
            leap: leap_name(header.leap).to_owned(),
            version: header.version,
            stratum: header.stratum,
            poll: header.poll,
            precision: header.precision,
            root_delay_seconds: header.root_delay.to_seconds(),
            root_dispersion_seconds: header.root_dispersion.to_seconds(),
            reference_id: header.reference_id.to_string(),
            reference_unix_seconds: unix_seconds(header.reference_timestamp, now_unix_seconds),
            offset_seconds,
            delay_seconds,
        }
    }
}

/// [`KernelClock`], to be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelAccount {
    /// A time daemon tells the kernel that it keeps the clock; chronyd under `rtcsync` only.
    pub is_synchronised: bool,
    /// Leap second ahead or under way.
    pub leap: String,
    /// Error bound.
    pub error_bound_seconds: f64,
}

impl From<&KernelClock> for KernelAccount {
    fn from(kernel: &KernelClock) -> Self {
        let leap = match kernel.leap {
            LeapStatus::None => leap_name(Leap::None),
            LeapStatus::Insert => leap_name(Leap::Insert),
            LeapStatus::Delete => leap_name(Leap::Delete),
            LeapStatus::InProgress => "in progress",
        };
        Self {
            is_synchronised: kernel.synchronised,
            leap: leap.to_owned(),
            error_bound_seconds: kernel.error_bound.as_secs_f64(),
        }
    }
}

/// What a leap indicator is called.
pub fn leap_name(leap: Leap) -> &'static str {
    match leap {
        Leap::None => "none",
        Leap::Insert => "insert",
        Leap::Delete => "delete",
        Leap::Unsynchronised => "unsynchronised",
    }
}

/// In seconds since 1970; none for the time zero.
pub fn unix_seconds(time: NtpTimestamp, now_unix_seconds: i64) -> Option<f64> {
    (time != NtpTimestamp::ZERO).then(|| time.to_unix_nanoseconds(now_unix_seconds) as f64 * 1e-9)
}
