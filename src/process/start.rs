//! What the supervisor and its roles say to each other: the start message, orders and reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::certificates::PairText;
use super::hardware::StampingInterface;
use super::status::Status;
use crate::clock::leap_watch::LeapNews;
use crate::clock::log::LogKind;
use crate::config::clock::ClockSettings;
use crate::engine::rate::RateLimits;
use crate::ke::admission::PrefixLimits;
use crate::net::PortChoice;

/// What the responder needs beside its sockets.
#[derive(Serialize, Deserialize)]
pub struct ResponderStart {
    /// The processor of each worker. The sockets come in this order, all of the first worker
    /// first.
    pub cpus: Vec<usize>,
    /// How many of a worker's sockets are for NTS requests; they come before its others.
    pub nts_sockets: usize,
    /// How datagrams come and go.
    pub port: PortChoice,
    /// How long a worker polls before it sleeps.
    pub busy_poll: Duration,
    /// Timestamps of interfaces are used where they can be translated.
    pub hardware_timestamps: bool,
    /// Pairs of timestamps that each worker keeps for interleaved mode.
    pub interleaved_entries: usize,
    /// How often a client is answered; a reload can change it.
    pub rates: RateLimits,
}

/// What the clock role needs.
#[derive(Serialize, Deserialize)]
pub struct ClockStart {
    /// Where the time comes from.
    pub settings: ClockSettings,
    /// Why no socket to chronyd's Unix socket comes along, if one should.
    pub why_no_chronyd: Option<String>,
    /// What the leap-seconds file holds, if there is one.
    pub leap: Option<LeapNews>,
    /// The logs that are written, in the order of their files.
    pub logs: Vec<LogKind>,
    /// The interfaces whose clocks are followed.
    pub stamping: Vec<StampingInterface>,
}

/// What one process of key establishment needs beside its listeners.
#[derive(Serialize, Deserialize)]
pub struct KeyEstablishmentStart {
    /// Connections that this process may have open at one time.
    pub connections_max: usize,
    /// What a reload can change.
    pub terms: KeyEstablishmentTerms,
}

/// What a reload can change in key establishment without a restart.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyEstablishmentTerms {
    /// Certificates with their keys, at least one; the first is the default.
    pub certificates: Vec<PairText>,
    /// Server that clients are sent to.
    pub ntp_server: Option<String>,
    /// Port of the NTP service.
    pub ntp_port: u16,
    /// Numbers of the AEAD algorithms that are agreed to.
    pub aeads: Vec<u16>,
    /// What clients are that offer AEAD 30 without record 1024.
    pub compliant_128gcm: bool,
    /// From accept to close, in seconds.
    pub timeout_seconds: f64,
    /// What one prefix may have of this process.
    pub prefix: PrefixLimits,
}

/// What the observer needs beside its listener.
#[derive(Serialize, Deserialize)]
pub struct ObserverStart {
    /// How many of its pages are those of workers, which come first; the others are those of key
    /// establishment.
    pub workers: usize,
}

/// What the supervisor tells a running role.
#[derive(Serialize, Deserialize)]
pub enum Order {
    /// Say whether you work.
    Ping,
    /// Go on with these terms, and let in who is in the memory file that comes along.
    Adopt(Box<KeyEstablishmentTerms>),
    /// The same to the responder: answer those who are in the memory file that comes along, so
    /// often.
    AdoptRates(Box<RateLimits>),
    /// Ask chronyd over the socket that comes along; none comes for this reason.
    AskChronyd(Option<String>),
    /// The leap-seconds file was read again.
    KnowLeapSeconds(Box<LeapNews>),
    /// Go on with this log in the file that comes along.
    WriteLog(LogKind),
    /// How the server stands now; to be answered as a ping is.
    Inform(Box<Status>),
}

/// What a role tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// It serves.
    Ready,
    /// It cannot serve, and why.
    Failed(String),
    /// It works.
    Pong,
    /// chronyd cannot be reached over the socket to it: a new one is wanted.
    ChronydLost,
    /// The terms of the last order hold.
    Adopted,
    /// The terms of the last order do not hold, and why; those before them do.
    Refused(String),
}

/// Why a role cannot start or go on: one sentence for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RoleError(pub String);

impl RoleError {
    /// `what` failed because of `error`.
    pub fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}
