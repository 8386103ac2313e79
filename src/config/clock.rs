//! The section `clock`, checked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::address::parse_address;
use super::checked::interval;
use super::raw::{ConfigError, RawClock, RawLeap};
use crate::clock::leap::Smear;
use crate::clock::source::Source;
use crate::limits::{
    CLOCK_HOLDOVER, CLOCK_HOLDOVER_DEFAULT, KERNEL_STRATUM_DEFAULT, LOCAL_STRATUM_DEFAULT, NTP_PORT,
};
use crate::wire::candm::COMMAND_PORT;

/// Where the time comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSettings {
    /// Who answers for it.
    pub source: Source,
    /// Stratum told to clients, 1 to 15.
    pub stratum: u8,
    /// How long the last word of a silent source is good for.
    pub holdover: Duration,
    /// Where chronyd gives its tracking report; none if it is not asked.
    pub chronyd: Option<ChronydAddress>,
    /// Where the followed daemon answers NTP; none if it is not asked.
    pub follow: Option<SocketAddr>,
    /// The list of leap seconds; none if there is none.
    pub leap_file: Option<PathBuf>,
    /// How its leap seconds are spread.
    pub smear: Smear,
}

/// Where chronyd takes commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChronydAddress {
    /// Its `cmdport`.
    Udp(SocketAddr),
    /// Its Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ChronydAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(address) => address.fmt(out),
            Self::Unix(path) => path.display().fmt(out),
        }
    }
}

impl ClockSettings {
    /// `source` with what is its default.
    pub fn of(source: Source) -> Self {
        let stratum = match source {
            Source::Kernel | Source::Follow => KERNEL_STRATUM_DEFAULT,
            Source::Local => LOCAL_STRATUM_DEFAULT,
        };
        Self {
            source,
            stratum,
            holdover: CLOCK_HOLDOVER_DEFAULT,
            chronyd: None,
            follow: None,
            leap_file: None,
            smear: Smear::Off,
        }
    }

    /// Where the followed daemon is asked, in words.
    pub fn followed(&self) -> String {
        let chronyd = self.chronyd.iter().map(|address| format!("{address} (chronyd)"));
        let ntp = self.follow.iter().map(|address| format!("{address} (NTP)"));
        chronyd.chain(ntp).collect::<Vec<_>>().join(" and ")
    }
}

/// Checks the section, with the section `leap`, of a server that answers at `ntp_listen`.
pub(super) fn check(
    text: &str,
    raw: &RawClock,
    leap: &RawLeap,
    ntp_listen: &[SocketAddr],
) -> Result<ClockSettings, ConfigError> {
    let mut settings = ClockSettings::of(raw.source.unwrap_or(Source::Kernel));
    if let Some(stratum) = &raw.stratum {
        settings.stratum = u8::try_from(*stratum.get_ref())
            .ok()
            .filter(|stratum| (1..=15).contains(stratum))
            .ok_or_else(|| ConfigError::at(text, stratum, "stratum must be 1 to 15".to_owned()))?;
    }
    if let Some(holdover) = &raw.holdover {
        settings.holdover = interval(holdover, &CLOCK_HOLDOVER).ok_or_else(|| {
            let what = "holdover must be a time from \"2 s\" to \"7 days\", or its seconds";
            ConfigError::at(text, holdover, what.to_owned())
        })?;
    }
    settings.leap_file.clone_from(&raw.leap_file);
    settings.smear = smear(text, leap, raw)?;
    settings.chronyd = raw.chronyd.as_ref().map(|place| chronyd(text, place)).transpose()?;
    settings.follow =
        raw.follow.as_ref().map(|place| follow(text, place, ntp_listen)).transpose()?;
    if settings.source == Source::Follow && settings.chronyd.is_none() && settings.follow.is_none()
    {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, COMMAND_PORT));
        settings.chronyd = Some(ChronydAddress::Udp(address));
    }
    Ok(settings)
}

fn smear(text: &str, leap: &RawLeap, clock: &RawClock) -> Result<Smear, ConfigError> {
    let Some(smear) = &leap.smear else { return Ok(Smear::Off) };
    if *smear.get_ref() != Smear::Off && clock.leap_file.is_none() {
        let what = "smear needs clock.leap_file, the list of tzdata or of IERS: it begins before \
                    a source announces the leap second";
        return Err(ConfigError::at(text, smear, what.to_owned()));
    }
    Ok(*smear.get_ref())
}

fn chronyd(text: &str, place: &Spanned<String>) -> Result<ChronydAddress, ConfigError> {
    if place.get_ref().starts_with('/') {
        return Ok(ChronydAddress::Unix(place.get_ref().into()));
    }
    own_address(place.get_ref(), COMMAND_PORT).map(ChronydAddress::Udp).ok_or_else(|| {
        let what = "chronyd must be an address of this host such as \"127.0.0.1:323\", or the path \
                    of chronyd's socket";
        ConfigError::at(text, place, what.to_owned())
    })
}

fn follow(
    text: &str,
    place: &Spanned<String>,
    ntp_listen: &[SocketAddr],
) -> Result<SocketAddr, ConfigError> {
    let error = |what: String| ConfigError::at(text, place, what);
    let address = own_address(place.get_ref(), NTP_PORT).ok_or_else(|| {
        error(
            "follow must be an address of this host such as \"127.0.0.1:11123\": timeball serves \
             the clock that it runs on, so only a daemon that keeps this clock can speak for it"
                .to_owned(),
        )
    })?;
    let is_ours = |listen: &&SocketAddr| {
        listen.port() == address.port()
            && (listen.ip() == address.ip() || listen.ip().is_unspecified())
    };
    match ntp_listen.iter().find(is_ours) {
        None => Ok(address),
        Some(listen) => Err(error(format!(
            "{address} is where timeball answers itself (ntp.listen has {listen}); give the other \
             daemon a port of its own, such as `port 11123` in chrony.conf, and name that one"
        ))),
    }
}

/// A loopback address with or without a port.
fn own_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    parse_address(text, default_port)
        .filter(|address| address.ip().is_loopback() && address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::super::checked::parse;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let message = |text: &str| parse(text).expect_err(text).to_string();
        assert_eq!(message("[clock]\nstratum = 16"), "line 2: stratum must be 1 to 15");
        assert!(message("[clock]\nsource = \"gps\"").starts_with("line 2: "));
        assert!(message("[clock]\nholdover = \"1 s\"").starts_with("line 2: holdover must be"));
        for chronyd in ["", "chrony.sock", "192.0.2.1:323", "localhost"] {
            let text = format!("[clock]\nchronyd = \"{chronyd}\"");
            assert!(message(&text).starts_with("line 2: chronyd must be an address"), "{text}");
        }
        for follow in ["", "192.0.2.1:123", "time.example.org", "127.0.0.1:0"] {
            let text = format!("[clock]\nfollow = \"{follow}\"");
            assert!(message(&text).starts_with("line 2: follow must be an address"), "{text}");
        }
        assert!(
            message("[leap]\nsmear = \"linear\"").starts_with("line 2: smear needs clock.leap")
        );
        assert!(message("[leap]\nsmear = \"cosine\"").starts_with("line 2: "));
        for (listen, follow) in [
            ("0.0.0.0:123", "127.0.0.1"),
            ("[::]:123", "127.0.0.1:123"),
            ("127.0.0.2:1123", "127.0.0.2:1123"),
        ] {
            let text = format!("[ntp]\nlisten = [\"{listen}\"]\n[clock]\nfollow = \"{follow}\"");
            assert!(message(&text).contains("is where timeball answers itself"), "{text}");
        }
    }

    #[test]
    fn a_followed_daemon_is_asked_where_it_is() {
        let clock =
            |keys: &str| parse(&format!("[clock]\nsource = \"follow\"\n{keys}")).expect(keys).clock;
        assert_eq!(clock("").followed(), "127.0.0.1:323 (chronyd)");
        let both = clock("chronyd = \"/run/chrony/chronyd.sock\"\nfollow = \"[::1]:11123\"");
        assert_eq!(both.followed(), "/run/chrony/chronyd.sock (chronyd) and [::1]:11123 (NTP)");
        let other = clock("follow = \"127.0.0.1:124\"");
        assert_eq!((other.chronyd, other.follow.map(|it| it.port())), (None, Some(124)));
    }
}
