//! The configuration file as written: names and types are right, values are not yet checked.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checked::Sandbox;
use super::keys;
use crate::clock::leap::Smear;
use crate::clock::source::Source;
use crate::net::PortChoice;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Raw {
    pub(super) state_directory: Option<PathBuf>,
    pub(super) sandbox: Option<RawSandbox>,
    pub(super) user: Option<String>,
    pub(super) profile: Option<Profile>,
    pub(super) ntp: RawNtp,
    pub(super) access: RawAccess,
    pub(super) rate_limit: RawRateLimit,
    pub(super) interleaved: RawInterleaved,
    pub(super) clock: RawClock,
    pub(super) leap: RawLeap,
    pub(super) ke: RawKe,
    pub(super) keys: RawKeys,
    pub(super) control: RawControl,
    pub(super) log: RawLog,
    pub(super) observe: RawObserve,
}

/// What can be written for [`Sandbox`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSandbox {
    Strict,
    Off,
}

impl RawSandbox {
    pub(super) fn checked(self) -> Sandbox {
        match self {
            Self::Strict => Sandbox::Strict,
            Self::Off => Sandbox::Off,
        }
    }
}

/// Section `ntp`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNtp {
    pub(super) listen: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) cpus: Option<Spanned<String>>,
    pub(super) port: Option<PortChoice>,
    pub(super) bind_device: Option<Spanned<String>>,
    pub(super) busy_poll_microseconds: Option<Spanned<i64>>,
    pub(super) hardware_timestamps: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) dscp: Option<Spanned<i64>>,
    pub(super) receive_buffer_bytes: Option<Spanned<i64>>,
    pub(super) send_buffer_bytes: Option<Spanned<i64>>,
    pub(super) count_networks: Option<bool>,
}

/// Section `access`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawAccess {
    pub(super) allow: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) deny: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) allow_file: Option<PathBuf>,
    pub(super) deny_file: Option<PathBuf>,
}

/// Section `rate_limit`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRateLimit {
    pub(super) requests_per_second: Option<Spanned<f64>>,
    pub(super) nts_requests_per_second: Option<Spanned<f64>>,
    pub(super) naks_per_second: Option<Spanned<f64>>,
    pub(super) cookie_uses_per_second: Option<Spanned<f64>>,
    pub(super) leak: Option<Spanned<i64>>,
    pub(super) kiss: Option<bool>,
    pub(super) unlimited_clients: Option<Spanned<Vec<Spanned<String>>>>,
}

/// Section `interleaved`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawInterleaved {
    pub(super) entries: Option<Spanned<i64>>,
}

/// What the machine is for: it sets the defaults of other keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Other programs run there too.
    #[default]
    Shared,
    /// Time alone.
    Appliance,
}

/// Section `clock`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawClock {
    pub(super) source: Option<Source>,
    pub(super) stratum: Option<Spanned<i64>>,
    pub(super) holdover: Option<Spanned<Interval>>,
    pub(super) follow: Option<Spanned<String>>,
    pub(super) chronyd: Option<Spanned<String>>,
    pub(super) leap_file: Option<PathBuf>,
}

/// Section `leap`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLeap {
    pub(super) smear: Option<Spanned<Smear>>,
}

/// Section `ke`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawKe {
    pub(super) listen: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) key: Option<Spanned<PathBuf>>,
    pub(super) certificates: Option<Spanned<Vec<RawPair>>>,
    pub(super) processes: Option<Spanned<i64>>,
    pub(super) ntp_server: Option<Spanned<String>>,
    pub(super) aeads: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) compliant_128gcm: Option<bool>,
    pub(super) timeout_seconds: Option<Spanned<f64>>,
    pub(super) connections_max: Option<Spanned<i64>>,
    pub(super) prefix_connections_max: Option<Spanned<i64>>,
    pub(super) prefix_handshakes_per_second: Option<Spanned<f64>>,
    pub(super) unlimited_clients: Option<Spanned<Vec<Spanned<String>>>>,
}

/// One of several certificates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Section `keys`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawKeys {
    pub(super) rotate: Option<Rotate>,
    pub(super) rotate_every: Option<Spanned<Interval>>,
}

/// Section `control`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawControl {
    pub(super) socket: Option<PathBuf>,
    pub(super) mode: Option<Spanned<String>>,
}

/// Section `log`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLog {
    pub(super) directory: Option<PathBuf>,
    pub(super) tracking: Option<Spanned<bool>>,
    pub(super) measurements: Option<Spanned<bool>>,
    pub(super) statistics: Option<Spanned<bool>>,
}

/// Section `observe`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawObserve {
    pub(super) listen: Option<Spanned<String>>,
}

/// Who makes new master keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Rotate {
    #[serde(rename = "self")]
    Own,
    External,
}

/// A time in seconds, or a text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a time such as \"7 days\" or seconds")]
pub(super) enum Interval {
    Seconds(u64),
    Text(String),
}

/// What is wrong with a configuration text, and in which line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ConfigError {
    /// Counted from one.
    pub line: usize,
    /// One sentence: what is wrong and what would be right.
    pub what: String,
}

impl ConfigError {
    pub(super) fn at<T>(text: &str, place: &Spanned<T>, what: String) -> Self {
        Self::at_offset(text, place.span().start, what)
    }

    fn at_offset(text: &str, offset: usize, what: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        Self { line: before.matches('\n').count() + 1, what }
    }

    pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        Self::at_offset(text, offset, error.message().replace('\n', "; "))
    }
}

/// Reads a configuration text. Unknown keys are refused, with the nearest known one.
pub fn parse(text: &str) -> Result<Raw, ConfigError> {
    let from_toml = |error| ConfigError::from_toml(text, &error);
    let table = DeTable::parse(text).map_err(from_toml)?;
    refuse_unknown(text, "", table.get_ref())?;
    toml::from_str(text).map_err(from_toml)
}

fn refuse_unknown(text: &str, section: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    for (name, value) in table {
        if !keys::is_known(section, name.get_ref()) {
            return Err(unknown(text, section, name));
        }
        if let DeValue::Table(inner) = value.get_ref() {
            refuse_unknown(text, name.get_ref(), inner)?;
        }
    }
    Ok(())
}

fn unknown<S: AsRef<str>>(text: &str, section: &str, name: &Spanned<S>) -> ConfigError {
    let shown = name.get_ref().as_ref();
    let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    let advice = match keys::suggest(section, shown) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "`timeball config example` prints all keys".to_owned(),
    };
    ConfigError::at(text, name, format!("unknown key \"{shown}\"{place}; {advice}"))
}
