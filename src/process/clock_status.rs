//! What a running server tells of its clock down the control socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::{Answer, Request, to_json};
use super::pages::Pages;
use crate::clock::account::{
    Account, Asked, HardwareAccount, KernelAccount, LogAccount, SampleAccount, TrackingAccount,
};
use crate::clock::account::{leap_name, unix_seconds};
use crate::clock::host::moment;
use crate::clock::leap_watch::LeapAccount;
use crate::clock::record::{ClockRecord, Moment, SourceState};
use crate::clock::source::Source;
use crate::config::clock::ClockSettings;
use crate::sys::adjtimex;
use crate::wire::candm::Smoothing;
use crate::wire::ntp::Leap;

/// What a question about the clock is answered.
pub(super) fn answer(request: Request, settings: &ClockSettings, pages: &Pages) -> Answer {
    match request {
        Request::Sources => {
            let silent = "the clock role has not said anything yet; ask again in a second";
            to_json(&SourcesStatus::new(pages).ok_or(silent)?)
        }
        Request::NtpData => to_json(&NtpDataStatus::new(pages)),
        _ => to_json(&TrackingStatus::new(settings, pages)),
    }
}

/// The clock at a glance: part of [`Status`](super::status::Status).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `clock.source`.
    pub source: Source,
    /// Where the followed daemon is asked; none if none is.
    pub followed: Option<String>,
    /// How the source fares.
    pub source_state: SourceState,
    /// Why it does not fare well; empty if it does.
    pub why: String,
    /// Leap indicator that clients are told.
    pub leap: String,
    /// Stratum that clients are told; 0 when unsynchronised.
    pub stratum: u8,
    /// Round trip to the primary source, as clients are told.
    pub root_delay_seconds: f64,
    /// Error bound that clients are told.
    pub root_dispersion_seconds: f64,
    /// How long the source's last word is still good for; none if it is not.
    pub holdover_left_seconds: Option<f64>,
    /// A time daemon keeps the kernel's clock; none where the kernel does not say.
    pub kernel_is_synchronised: Option<bool>,
    /// The kernel's error bound.
    pub kernel_error_bound_seconds: Option<f64>,
    /// The leap-seconds file, if there is one.
    pub leap_file: Option<LeapAccount>,
    /// The logs, if any is written.
    pub logs: Option<LogAccount>,
}

impl ClockStatus {
    pub(super) fn new(settings: &ClockSettings, pages: &Pages) -> Self {
        let kernel = adjtimex::read().ok();
        let Told { record, now } = Told::of(pages);
        let state = record.state_at(now, 0);
        let account = pages.account.latest();
        Self {
            source: settings.source,
            followed: (settings.source == Source::Follow).then(|| settings.followed()),
            source_state: record.source_state,
            why: account.as_ref().map(|account| account.why.clone()).unwrap_or_default(),
            leap: leap_name(state.leap).to_owned(),
            stratum: state.stratum,
            root_delay_seconds: state.root_delay.to_seconds(),
            root_dispersion_seconds: state.root_dispersion_seconds,
            holdover_left_seconds: left(&record, now),
            kernel_is_synchronised: kernel.map(|kernel| kernel.synchronised),
            kernel_error_bound_seconds: kernel.map(|kernel| kernel.error_bound.as_secs_f64()),
            leap_file: account.as_ref().and_then(|account| account.leap_file.clone()),
            logs: account.and_then(|account| account.logs),
        }
    }
}

/// What clients are told of the clock, and from whom that is.
#[derive(Debug, Serialize, Deserialize)]
pub struct TrackingStatus {
    /// `clock.source`.
    pub source: Source,
    /// How it fares.
    pub source_state: SourceState,
    /// Why it does not fare well; empty if it does.
    pub why: String,
    /// Leap indicator: none, insert, delete or unsynchronised.
    pub leap: String,
    /// Stratum; 0 when unsynchronised.
    pub stratum: u8,
    /// What the clock follows.
    pub reference_id: String,
    /// When the clock was last corrected, in seconds since 1970; none if that is not known.
    pub reference_unix_seconds: Option<f64>,
    /// Round trip to the primary source.
    pub root_delay_seconds: f64,
    /// Error bound now.
    pub root_dispersion_seconds: f64,
    /// Growth of the error bound.
    pub dispersion_rate_ppm: f64,
    /// What is added to the system's time.
    pub correction_seconds: f64,
    /// Age of the source's last word.
    pub age_seconds: f64,
    /// `clock.holdover`, for which that word is good.
    pub holdover_seconds: f64,
    /// What is left of it; none if it is not good.
    pub holdover_left_seconds: Option<f64>,
    /// The leap-seconds file, if there is one.
    pub leap_file: Option<LeapAccount>,
    /// chronyd's own report, if it is asked for.
    pub chronyd: Option<TrackingAccount>,
    /// How chronyd smooths the time that it serves, if it says that it does; we serve the same.
    pub smoothing: Option<Smoothing>,
}

impl TrackingStatus {
    pub(super) fn new(settings: &ClockSettings, pages: &Pages) -> Self {
        let Told { record, now } = Told::of(pages);
        let state = record.state_at(now, 0);
        let account = pages.account.latest();
        let correction = state.correction(now.system) as f64 / 4_294_967_296.0;
        Self {
            source: settings.source,
            source_state: record.source_state,
            why: account.as_ref().map(|account| account.why.clone()).unwrap_or_default(),
            leap: leap_name(state.leap).to_owned(),
            stratum: state.stratum,
            reference_id: state.reference_id.to_string(),
            reference_unix_seconds: unix_seconds(state.reference_timestamp, unix_seconds_now()),
            root_delay_seconds: state.root_delay.to_seconds(),
            root_dispersion_seconds: state.root_dispersion_seconds,
            dispersion_rate_ppm: state.dispersion_rate * 1e6,
            correction_seconds: correction,
            age_seconds: now.since(record.taken).as_secs_f64(),
            holdover_seconds: settings.holdover.as_secs_f64(),
            holdover_left_seconds: left(&record, now),
            leap_file: account.as_ref().and_then(|account| account.leap_file.clone()),
            smoothing: account.as_ref().and_then(|account| account.smoothing),
            chronyd: account.and_then(|account| account.chronyd?.last),
        }
    }
}

/// Who is asked for the time, and how they answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct SourcesStatus {
    /// `clock.source`.
    pub source: Source,
    /// How it fares.
    pub state: SourceState,
    /// Why it does not fare well; empty if it does.
    pub why: String,
    /// Those who are asked over sockets.
    pub sources: Vec<SourceStatus>,
    /// The kernel's account of its clock.
    pub kernel: Option<KernelAccount>,
    /// The leap-seconds file, if there is one.
    pub leap_file: Option<LeapAccount>,
    /// The clocks of interfaces, if they are to stamp.
    pub hardware: Vec<HardwareAccount>,
}

/// One who is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// What is asked for: `tracking` or `ntp`.
    pub kind: String,
    /// Where.
    pub address: String,
    /// Stratum by its last good answer.
    pub stratum: Option<u8>,
    /// Reference by its last good answer.
    pub reference_id: Option<String>,
    /// The last eight questions, the newest in bit 0; set if the answer was good.
    pub reach: u8,
    /// Age of the last good answer.
    pub heard_seconds_ago: Option<f64>,
    /// Its time minus the system's, by its last good answer.
    pub offset_seconds: Option<f64>,
    /// Its error bound by its last good answer: half the root delay and the root dispersion.
    pub root_distance_seconds: Option<f64>,
    /// Why the last answer was none; empty if it was.
    pub why: String,
}

impl SourcesStatus {
    /// None before the clock role has said anything.
    pub(super) fn new(pages: &Pages) -> Option<Self> {
        let Account { source, state, why, chronyd, ntp, kernel, leap_file, hardware, .. } =
            pages.account.latest()?;
        let chronyd = chronyd.map(|asked| {
            let facts = asked.last.as_ref().map(|it| Facts {
                stratum: it.stratum,
                reference_id: it.reference_id.clone(),
                offset_seconds: it.correction_seconds,
                root_distance_seconds: it.root_delay_seconds / 2.0 + it.root_dispersion_seconds,
            });
            SourceStatus::new("tracking", &asked, facts)
        });
        let ntp = ntp.map(|asked| {
            let facts = asked.last.as_ref().map(|it| Facts {
                stratum: it.stratum,
                reference_id: it.reference_id.clone(),
                offset_seconds: it.offset_seconds,
                root_distance_seconds: it.root_delay_seconds / 2.0 + it.root_dispersion_seconds,
            });
            SourceStatus::new("ntp", &asked, facts)
        });
        let sources = chronyd.into_iter().chain(ntp).collect();
        Some(Self { source, state, why, sources, kernel, leap_file, hardware })
    }
}

/// What a good answer says, whatever its kind.
struct Facts {
    stratum: u8,
    reference_id: String,
    offset_seconds: f64,
    root_distance_seconds: f64,
}

impl SourceStatus {
    fn new<T>(kind: &str, asked: &Asked<T>, facts: Option<Facts>) -> Self {
        let now = moment().since_boot.as_secs_f64();
        Self {
            kind: kind.to_owned(),
            address: asked.address.clone(),
            stratum: facts.as_ref().map(|facts| facts.stratum),
            reference_id: facts.as_ref().map(|facts| facts.reference_id.clone()),
            reach: asked.reach,
            heard_seconds_ago: asked.heard_since_boot_seconds.map(|heard| (now - heard).max(0.0)),
            offset_seconds: facts.as_ref().map(|facts| facts.offset_seconds),
            root_distance_seconds: facts.as_ref().map(|facts| facts.root_distance_seconds),
            why: asked.why.clone(),
        }
    }
}

/// The NTP query of the followed daemon; all none if none is sent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct NtpDataStatus {
    /// Where it is sent.
    pub address: Option<String>,
    /// Queries since the clock role started.
    pub asked: u64,
    /// Good replies.
    pub answered: u64,
    /// Replies that made no sense.
    pub garbled: u64,
    /// Why the last reply was none; empty if it was.
    pub why: String,
    /// The last good reply.
    pub last: Option<SampleAccount>,
}

impl NtpDataStatus {
    pub(super) fn new(pages: &Pages) -> Self {
        let Some(ntp) = pages.account.latest().and_then(|account| account.ntp) else {
            return Self::default();
        };
        let Asked { address, asked, answered, garbled, why, last, .. } = ntp;
        Self { address: Some(address), asked, answered, garbled, why, last }
    }
}

/// The record on the page, now.
struct Told {
    record: ClockRecord,
    now: Moment,
}

impl Told {
    fn of(pages: &Pages) -> Self {
        let now = moment();
        // None only while a killed role's page waits for the next one.
        let record = pages.clock.latest().ok().flatten();
        let nobody = || ClockRecord::unsynchronised(SourceState::Unknown, now);
        Self { record: record.unwrap_or_else(nobody), now }
    }
}

fn left(record: &ClockRecord, now: Moment) -> Option<f64> {
    let left: Duration = record.holdover.checked_sub(now.since(record.taken))?;
    (record.leap != Leap::Unsynchronised).then_some(left.as_secs_f64())
}

fn unix_seconds_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
