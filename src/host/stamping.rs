//! Whether an interface can stamp all requests and replies, and why it does not.

use std::io;

use crate::sys::interface::{StampingAbilities, StampingMode};

/// Why the kernel's timestamps are used at an interface.
#[derive(Debug, thiserror::Error)]
#[error("{}, so the kernel's timestamps are used; {}", self.cause(), self.fix())]
pub enum Obstacle {
    /// There is no such interface.
    Absent(String),
    /// It has no clock.
    NoClock(String),
    /// It stamps some kinds of arrivals at the most, as those of PTP.
    NoArrivals(String),
    /// It stamps no departures.
    NoDepartures(String),
    /// It may not be told to stamp.
    Forbidden(String),
    /// It does not say what it can, or refuses to do it.
    Refuses(String, io::Error),
    /// Its clock cannot be read.
    Unreadable(String, u32, io::Error),
    /// There is none that can.
    None,
    /// There are more than can be followed.
    TooMany(String),
}

impl Obstacle {
    /// What is so.
    pub fn cause(&self) -> String {
        match self {
            Self::Absent(name) => format!("there is no interface {name}"),
            Self::NoClock(name) => format!("{name} has no clock (PHC)"),
            Self::NoArrivals(name) => {
                format!("{name} cannot stamp every packet that arrives (filter all or ntp)")
            }
            Self::NoDepartures(name) => format!("{name} cannot stamp packets that leave"),
            Self::Forbidden(name) => {
                format!("telling {name} to stamp packets takes CAP_NET_ADMIN")
            }
            Self::Refuses(name, error) => format!("{name} does not stamp packets ({error})"),
            Self::Unreadable(name, clock, error) => {
                format!("the clock of {name}, /dev/ptp{clock}, cannot be opened ({error})")
            }
            Self::None => "no interface of this host can stamp all packets".to_owned(),
            Self::TooMany(name) => format!("too many interfaces stamp packets to follow {name}"),
        }
    }

    /// What helps.
    pub fn fix(&self) -> String {
        let off = "take it out of ntp.hardware_timestamps";
        match self {
            Self::Absent(_) => format!("`ip link` lists those that there are; {off}"),
            Self::NoClock(name) | Self::NoArrivals(name) | Self::NoDepartures(name) => {
                format!("`ethtool -T {name}` shows what it can; {off}")
            }
            Self::Forbidden(name) => format!(
                "grant it (docs/OPERATIONS.md), or `hwstamp_ctl -i {name} -t 1 -r 1` before the \
                 start"
            ),
            Self::Refuses(name, _) => format!("`ethtool -T {name}` and `dmesg` say more; {off}"),
            Self::Unreadable(..) => {
                "let the user of timeball read it (docs/OPERATIONS.md)".to_owned()
            }
            Self::None => "set ntp.hardware_timestamps = []".to_owned(),
            Self::TooMany(_) => "name those that requests come in by".to_owned(),
        }
    }
}

/// What an interface is to be told so that it stamps every request and reply; none if it does so
/// already, which takes no privilege.
pub fn needed(
    name: &str,
    abilities: &StampingAbilities,
    mode: Option<StampingMode>,
) -> Result<Option<StampingMode>, Obstacle> {
    let name = || name.to_owned();
    let has = |bits: u32, number: u32| bits & (1 << number) != 0;
    if abilities.clock.is_none() {
        return Err(Obstacle::NoClock(name()));
    }
    if !has(abilities.transmit_types, libc::HWTSTAMP_TX_ON) {
        return Err(Obstacle::NoDepartures(name()));
    }
    // All first: NTP_ALL is for the port 123.
    let mut filters = FILTERS.into_iter();
    let receive_filter = filters.find(|filter| has(abilities.receive_filters, *filter));
    let receive_filter = receive_filter.ok_or_else(|| Obstacle::NoArrivals(name()))?;
    let is_there = mode.is_some_and(|mode| {
        mode.transmit_type != libc::HWTSTAMP_TX_OFF && FILTERS.contains(&mode.receive_filter)
    });
    let wanted = StampingMode { transmit_type: libc::HWTSTAMP_TX_ON, receive_filter };
    Ok((!is_there).then_some(wanted))
}

/// Filters that stamp all requests.
const FILTERS: [u32; 2] = [libc::HWTSTAMP_FILTER_ALL, libc::HWTSTAMP_FILTER_NTP_ALL];

#[cfg(test)]
mod tests {
    use super::*;

    const ON: u32 = 1 << libc::HWTSTAMP_TX_ON | 1 << libc::HWTSTAMP_TX_OFF;
    const ALL: u32 = 1 << libc::HWTSTAMP_FILTER_ALL | 1 << libc::HWTSTAMP_FILTER_NONE;
    const NTP: u32 = 1 << libc::HWTSTAMP_FILTER_NTP_ALL;
    const PTP: u32 = 1 << libc::HWTSTAMP_FILTER_PTP_V2_EVENT;

    fn abilities(
        clock: Option<u32>,
        transmit_types: u32,
        receive_filters: u32,
    ) -> StampingAbilities {
        StampingAbilities { clock, transmit_types, receive_filters }
    }

    #[test]
    fn an_interface_is_told_what_it_does_not_do_yet() {
        let mode = |receive_filter| {
            Some(StampingMode { transmit_type: libc::HWTSTAMP_TX_ON, receive_filter })
        };
        let all = mode(libc::HWTSTAMP_FILTER_ALL);
        let ntp = mode(libc::HWTSTAMP_FILTER_NTP_ALL);
        let ptp = mode(libc::HWTSTAMP_FILTER_PTP_V2_EVENT);
        let off = Some(StampingMode::default());
        let told = |filters, mode| needed("eth0", &abilities(Some(0), ON, filters), mode);
        for before in [None, off, ptp] {
            assert_eq!(told(ALL | NTP | PTP, before).expect("can"), all);
            assert_eq!(told(NTP | PTP, before).expect("can"), ntp);
        }
        for before in [all, ntp] {
            assert_eq!(told(ALL | NTP, before).expect("can"), None);
        }
        let silent = StampingMode { transmit_type: 0, receive_filter: libc::HWTSTAMP_FILTER_ALL };
        assert_eq!(told(ALL, Some(silent)).expect("can"), all);
    }

    #[test]
    fn what_an_interface_cannot_do_is_one_sentence_with_its_fix() {
        let message = |abilities| needed("eth0", &abilities, None).expect_err("no").to_string();
        assert_eq!(
            message(abilities(None, ON, ALL)),
            "eth0 has no clock (PHC), so the kernel's timestamps are used; `ethtool -T eth0` shows \
             what it can; take it out of ntp.hardware_timestamps"
        );
        assert!(message(abilities(Some(0), 1, ALL)).starts_with("eth0 cannot stamp packets that"));
        assert!(message(abilities(Some(0), ON, PTP)).starts_with("eth0 cannot stamp every packet"));
        let others = [
            Obstacle::Absent("eth0".to_owned()),
            Obstacle::Forbidden("eth0".to_owned()),
            Obstacle::Refuses("eth0".to_owned(), io::ErrorKind::Unsupported.into()),
            Obstacle::Unreadable("eth0".to_owned(), 1, io::ErrorKind::PermissionDenied.into()),
            Obstacle::None,
            Obstacle::TooMany("eth0".to_owned()),
        ];
        for other in others.map(|other| other.to_string()) {
            assert!(other.contains(", so the kernel's timestamps are used; "), "{other}");
        }
    }
}
