//! chrony's command and monitoring protocol, version 6: the reports of tracking and of smoothing,
//! read only.
//!
//! A request is as long as its reply and is filled up with zeros, so that nobody can use chronyd to
//! amplify. All numbers are big-endian; the fields are those that chronyc(1) shows under
//! `tracking`.

use std::net::IpAddr;

use super::ntp::{Leap, ReferenceId};
use super::timestamp::NtpTimestamp;

/// Length of a request for the tracking report, and of the report, in bytes.
pub const TRACKING_BYTES: usize = 104;

/// The same of the report of smoothing.
pub const SMOOTHING_BYTES: usize = 52;

/// UDP port where chronyd takes commands, unless its `cmdport` says otherwise.
pub const COMMAND_PORT: u16 = 323;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const COMMAND_TRACKING: u16 = 33;
const REPLY_TRACKING: u16 = 5;
const COMMAND_SMOOTHING: u16 = 51;
const REPLY_SMOOTHING: u16 = 13;
const STATUS_SUCCESS: u16 = 0;
const STATUS_NOT_ENABLED: u16 = 6;

/// Kinds of addresses. There are others: of nothing, and of a name that is not resolved yet.
const ADDRESS_IPV4: u16 = 1;
const ADDRESS_IPV6: u16 = 2;

/// In place of the high half of the seconds: there is no such time.
const NO_TIME: u32 = 0x7fff_ffff;

/// Where the fields of a message lie, in bytes from its start.
mod offset {
    pub(super) const COMMAND: usize = 4;
    pub(super) const REQUEST_SEQUENCE: usize = 8;
    pub(super) const REPLY: usize = 6;
    pub(super) const STATUS: usize = 8;
    pub(super) const REPLY_SEQUENCE: usize = 16;
    pub(super) const BODY: usize = 28;
    pub(super) const REFERENCE_ID: usize = BODY;
    pub(super) const ADDRESS: usize = 32;
    pub(super) const ADDRESS_FAMILY: usize = 48;
    pub(super) const STRATUM: usize = 52;
    pub(super) const LEAP: usize = 54;
    pub(super) const REFERENCE_TIME: usize = 56;
    pub(super) const CORRECTION: usize = 68;
    pub(super) const LAST_OFFSET: usize = 72;
    pub(super) const RMS_OFFSET: usize = 76;
    pub(super) const FREQUENCY: usize = 80;
    pub(super) const RESIDUAL_FREQUENCY: usize = 84;
    pub(super) const SKEW: usize = 88;
    pub(super) const ROOT_DELAY: usize = 92;
    pub(super) const ROOT_DISPERSION: usize = 96;
    pub(super) const UPDATE_INTERVAL: usize = 100;
    pub(super) const SMOOTHING_FLAGS: usize = BODY;
    pub(super) const SMOOTHING_OFFSET: usize = 32;
}

/// Flag of the report of smoothing: only leap seconds are smoothed.
const LEAP_ONLY: u32 = 2;

/// What chronyd says of the clock that it keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracking {
    /// What it follows.
    pub reference_id: ReferenceId,
    /// The address of that, if it is a server.
    pub source_address: Option<IpAddr>,
    /// Its own stratum, as it tells it to clients; 0 when it is not synchronised.
    pub stratum: u8,
    /// Leap second warning, or unsynchronised.
    pub leap: Leap,
    /// When it corrected the clock last; zero if it never did.
    pub reference_time: NtpTimestamp,
    /// What true time is ahead of the system's: what is still to be slewed.
    pub correction_seconds: f64,
    /// Offset at its last update.
    pub last_offset_seconds: f64,
    /// Mean of the offsets.
    pub rms_offset_seconds: f64,
    /// By how much the clock would be slow if it were not corrected.
    pub frequency_ppm: f64,
    /// What the last measurements say the frequency is off.
    pub residual_frequency_ppm: f64,
    /// Error bound of the frequency.
    pub skew_ppm: f64,
    /// Round trip to the primary source.
    pub root_delay_seconds: f64,
    /// Error bound now.
    pub root_dispersion_seconds: f64,
    /// Between its last two updates.
    pub update_interval_seconds: f64,
}

/// What chronyd says of the smoothing of the time that it serves (its `smoothtime`).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Smoothing {
    /// It smooths nothing but leap seconds.
    pub is_leap_only: bool,
    /// What the time that it serves is ahead of true time, as it knows it.
    pub offset_seconds: f64,
}

/// Why a datagram is not taken for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Too short for its head, or for what it claims to be.
    #[error("its answer has {0} bytes, and the report has {1}")]
    Length(usize, usize),
    /// Not of this protocol.
    #[error("its answer is not of version {VERSION} of chrony's command protocol")]
    Form,
    /// The answer to something else.
    #[error("its answer belongs to another request")]
    Unrelated,
    /// chronyd refuses it.
    #[error("chronyd refuses the report (status {0})")]
    Refused(u16),
    /// A value that no clock has.
    #[error("its {0} cannot be")]
    Nonsense(&'static str),
}

/// A request for the tracking report. The answer names its `sequence`.
pub fn tracking_request(sequence: u32) -> [u8; TRACKING_BYTES] {
    request(COMMAND_TRACKING, sequence)
}

/// Reads the answer to the request with this `sequence`.
pub fn parse_tracking(datagram: &[u8], sequence: u32) -> Result<Tracking, ReportError> {
    match status(datagram, COMMAND_TRACKING, REPLY_TRACKING, sequence, TRACKING_BYTES)? {
        STATUS_SUCCESS => {}
        status => return Err(ReportError::Refused(status)),
    }
    let length = ReportError::Length(datagram.len(), TRACKING_BYTES);
    let message: &[u8; TRACKING_BYTES] = datagram.try_into().map_err(|_| length)?;
    report(message)
}

/// A request for the report of smoothing. The answer names its `sequence`.
pub fn smoothing_request(sequence: u32) -> [u8; SMOOTHING_BYTES] {
    request(COMMAND_SMOOTHING, sequence)
}

/// Reads the answer to the request with this `sequence`; none if chronyd does not smooth.
pub fn parse_smoothing(datagram: &[u8], sequence: u32) -> Result<Option<Smoothing>, ReportError> {
    match status(datagram, COMMAND_SMOOTHING, REPLY_SMOOTHING, sequence, SMOOTHING_BYTES)? {
        STATUS_SUCCESS => {}
        STATUS_NOT_ENABLED => return Ok(None),
        status => return Err(ReportError::Refused(status)),
    }
    let length = ReportError::Length(datagram.len(), SMOOTHING_BYTES);
    let message: &[u8; SMOOTHING_BYTES] = datagram.try_into().map_err(|_| length)?;
    Ok(Some(Smoothing {
        is_leap_only: u32_at(message, offset::SMOOTHING_FLAGS) & LEAP_ONLY != 0,
        offset_seconds: float_at(message, offset::SMOOTHING_OFFSET),
    }))
}

/// Whether a datagram is to answer a request for the report of smoothing, however badly.
pub fn is_of_smoothing(datagram: &[u8]) -> bool {
    datagram
        .get(offset::COMMAND..offset::COMMAND + 2)
        .is_some_and(|command| command == COMMAND_SMOOTHING.to_be_bytes())
}

/// As long as its answer.
fn request<const BYTES: usize>(command: u16, sequence: u32) -> [u8; BYTES] {
    let mut message = [0; BYTES];
    message[0] = VERSION;
    message[1] = REQUEST;
    message[offset::COMMAND..][..2].copy_from_slice(&command.to_be_bytes());
    message[offset::REQUEST_SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
    message
}

/// What became of a request. A refusal is shorter than a report, and has no kind of its own.
fn status(
    datagram: &[u8],
    command: u16,
    reply: u16,
    sequence: u32,
    bytes: usize,
) -> Result<u16, ReportError> {
    let length = ReportError::Length(datagram.len(), bytes);
    let head: &[u8; offset::BODY] = datagram.first_chunk().ok_or(length)?;
    if head[0] != VERSION || head[1] != REPLY {
        return Err(ReportError::Form);
    }
    let is_related = u16_at(head, offset::COMMAND) == command
        && u32_at(head, offset::REPLY_SEQUENCE) == sequence;
    if !is_related {
        return Err(ReportError::Unrelated);
    }
    match u16_at(head, offset::STATUS) {
        STATUS_SUCCESS if u16_at(head, offset::REPLY) != reply => Err(ReportError::Form),
        status => Ok(status),
    }
}

fn report(message: &[u8; TRACKING_BYTES]) -> Result<Tracking, ReportError> {
    use ReportError::Nonsense;
    let float = |at| float_at(message, at);
    let bound = |at, name| {
        let found = float(at);
        // In the wire's own range; the skew, in parts per million, stays far below it.
        if (0.0..65_536.0).contains(&found) { Ok(found) } else { Err(Nonsense(name)) }
    };
    let leap = u16_at(message, offset::LEAP);
    let stratum = u16_at(message, offset::STRATUM);
    Ok(Tracking {
        reference_id: ReferenceId(u32_at(message, offset::REFERENCE_ID).to_be_bytes()),
        source_address: address(message),
        stratum: u8::try_from(stratum)
            .ok()
            .filter(|stratum| *stratum <= 16)
            .ok_or(Nonsense("stratum"))?,
        leap: if leap <= 3 { Leap::from_bits(leap as u8) } else { Err(Nonsense("leap status"))? },
        reference_time: time_at(message, offset::REFERENCE_TIME)?,
        correction_seconds: float(offset::CORRECTION),
        last_offset_seconds: float(offset::LAST_OFFSET),
        rms_offset_seconds: float(offset::RMS_OFFSET),
        frequency_ppm: float(offset::FREQUENCY),
        residual_frequency_ppm: float(offset::RESIDUAL_FREQUENCY),
        skew_ppm: float(offset::SKEW).max(0.0),
        root_delay_seconds: bound(offset::ROOT_DELAY, "root delay")?,
        root_dispersion_seconds: bound(offset::ROOT_DISPERSION, "root dispersion")?,
        update_interval_seconds: float(offset::UPDATE_INTERVAL),
    })
}

/// An address has 16 bytes, whatever it is, and its kind behind it.
fn address(message: &[u8; TRACKING_BYTES]) -> Option<IpAddr> {
    let bytes = &message[offset::ADDRESS..offset::ADDRESS_FAMILY];
    match u16_at(message, offset::ADDRESS_FAMILY) {
        ADDRESS_IPV4 => bytes.first_chunk::<4>().map(|&bytes| bytes.into()),
        ADDRESS_IPV6 => bytes.first_chunk::<16>().map(|&bytes| bytes.into()),
        _ => None,
    }
}

fn time_at(message: &[u8], at: usize) -> Result<NtpTimestamp, ReportError> {
    let (high, low) = (u32_at(message, at), u32_at(message, at + 4));
    let nanoseconds = u32_at(message, at + 8);
    // A chronyd that never corrected the clock sends the time 0.
    if high == NO_TIME || (high, low) == (0, 0) {
        return Ok(NtpTimestamp::ZERO);
    }
    if nanoseconds >= 1_000_000_000 {
        return Err(ReportError::Nonsense("reference time"));
    }
    Ok(NtpTimestamp::from_unix((u64::from(high) << 32 | u64::from(low)) as i64, nanoseconds))
}

/// chrony's own floating point: an exponent of seven bits over a coefficient of 25, both signed;
/// the value is coefficient · 2^(exponent − 25). Every 32 bits are a finite number.
fn float_at(message: &[u8], at: usize) -> f64 {
    let bits = u32_at(message, at);
    let exponent = (bits as i32 >> 25) - 25;
    let coefficient = (bits << 7) as i32 >> 7;
    f64::from(coefficient) * f64::from(exponent).exp2()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `float_at` reads it back, to 24 bits.
    fn float(value: f64) -> u32 {
        if value == 0.0 {
            return 0;
        }
        let exponent = value.abs().log2().floor() as i32 + 2;
        let coefficient = (value * f64::from(25 - exponent).exp2()).round() as i32;
        (exponent as u32) << 25 | (coefficient as u32 & 0x1ff_ffff)
    }

    /// A report as chronyd sends it.
    pub(crate) fn emit(tracking: &Tracking, sequence: u32) -> [u8; TRACKING_BYTES] {
        let mut message = [0; TRACKING_BYTES];
        message[..2].copy_from_slice(&[VERSION, REPLY]);
        let mut put = |at: usize, field: &[u8]| message[at..][..field.len()].copy_from_slice(field);
        put(offset::COMMAND, &COMMAND_TRACKING.to_be_bytes());
        put(offset::REPLY, &REPLY_TRACKING.to_be_bytes());
        put(offset::REPLY_SEQUENCE, &sequence.to_be_bytes());
        put(offset::REFERENCE_ID, &tracking.reference_id.0);
        match tracking.source_address {
            None => {}
            Some(IpAddr::V4(address)) => {
                put(offset::ADDRESS, &address.octets());
                put(offset::ADDRESS_FAMILY, &ADDRESS_IPV4.to_be_bytes());
            }
            Some(IpAddr::V6(address)) => {
                put(offset::ADDRESS, &address.octets());
                put(offset::ADDRESS_FAMILY, &ADDRESS_IPV6.to_be_bytes());
            }
        }
        put(offset::STRATUM, &u16::from(tracking.stratum).to_be_bytes());
        put(offset::LEAP, &(tracking.leap as u16).to_be_bytes());
        let time = tracking.reference_time.to_unix_nanoseconds(1_800_000_000);
        put(offset::REFERENCE_TIME, &((time / 1_000_000_000) as u64).to_be_bytes());
        put(offset::REFERENCE_TIME + 8, &((time % 1_000_000_000) as u32).to_be_bytes());
        for (at, value) in [
            (offset::CORRECTION, tracking.correction_seconds),
            (offset::LAST_OFFSET, tracking.last_offset_seconds),
            (offset::RMS_OFFSET, tracking.rms_offset_seconds),
            (offset::FREQUENCY, tracking.frequency_ppm),
            (offset::RESIDUAL_FREQUENCY, tracking.residual_frequency_ppm),
            (offset::SKEW, tracking.skew_ppm),
            (offset::ROOT_DELAY, tracking.root_delay_seconds),
            (offset::ROOT_DISPERSION, tracking.root_dispersion_seconds),
            (offset::UPDATE_INTERVAL, tracking.update_interval_seconds),
        ] {
            put(at, &float(value).to_be_bytes());
        }
        message
    }

    pub(crate) fn good() -> Tracking {
        Tracking {
            reference_id: ReferenceId([192, 0, 2, 7]),
            source_address: Some([192, 0, 2, 7].into()),
            stratum: 3,
            leap: Leap::None,
            reference_time: NtpTimestamp::from_unix(1_799_999_990, 250_000_000),
            correction_seconds: -0.000_25,
            last_offset_seconds: 0.000_125,
            rms_offset_seconds: 0.5,
            frequency_ppm: -12.5,
            residual_frequency_ppm: 0.25,
            skew_ppm: 0.75,
            root_delay_seconds: 0.015_625,
            root_dispersion_seconds: 0.001,
            update_interval_seconds: 64.25,
        }
    }

    #[test]
    fn a_report_is_read() {
        let found = parse_tracking(&emit(&good(), 7), 7).expect("a report");
        let close = |a: f64, b: f64| (a - b).abs() <= b.abs() * 1e-6;
        let expected = good();
        assert!(close(found.correction_seconds, expected.correction_seconds), "{found:?}");
        assert!(close(found.root_dispersion_seconds, expected.root_dispersion_seconds));
        assert_eq!(
            Tracking {
                correction_seconds: expected.correction_seconds,
                root_dispersion_seconds: expected.root_dispersion_seconds,
                last_offset_seconds: expected.last_offset_seconds,
                ..found
            },
            expected
        );
        for source_address in [None, Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]))] {
            let message = emit(&Tracking { source_address, ..good() }, 7);
            assert_eq!(parse_tracking(&message, 7).expect("good").source_address, source_address);
        }
        let never = Tracking { reference_time: NtpTimestamp::ZERO, ..good() };
        let mut message = emit(&never, 7);
        message[offset::REFERENCE_TIME..][..4].copy_from_slice(&NO_TIME.to_be_bytes());
        assert_eq!(parse_tracking(&message, 7).expect("good").reference_time, NtpTimestamp::ZERO);
    }

    #[test]
    fn floats_are_chronys() {
        for (bits, value) in [
            (0, 0.0),
            (1 << 25 | 1 << 24 | 0xff_ffff, -f64::from(25).exp2().recip() * 2.0),
            (1 << 25 | 1 << 23, 0.5),
            (0xc << 28, 0.0),
        ] {
            assert_eq!(float_at(&u32::to_be_bytes(bits), 0), value, "{bits:08x}");
        }
    }

    #[test]
    fn what_is_cut_off_forged_or_refused_is_no_report() {
        let good = emit(&good(), 7);
        for bytes in 0..TRACKING_BYTES {
            assert_eq!(
                parse_tracking(&good[..bytes], 7),
                Err(ReportError::Length(bytes, TRACKING_BYTES))
            );
        }
        let long = [&good[..], &[0]].concat();
        assert_eq!(parse_tracking(&long, 7), Err(ReportError::Length(105, TRACKING_BYTES)));
        assert_eq!(parse_tracking(&good, 8), Err(ReportError::Unrelated));
        let with = |at: usize, byte: u8| {
            let mut message = good;
            message[at] = byte;
            parse_tracking(&message, 7).expect_err("damaged")
        };
        assert_eq!(with(0, 5), ReportError::Form);
        assert_eq!(with(1, REQUEST), ReportError::Form);
        assert_eq!(with(offset::REPLY + 1, 6), ReportError::Form);
        assert_eq!(with(offset::COMMAND + 1, 34), ReportError::Unrelated);
        assert_eq!(with(offset::STATUS + 1, 2), ReportError::Refused(2));
        assert_eq!(with(offset::STRATUM + 1, 17), ReportError::Nonsense("stratum"));
        assert_eq!(with(offset::STRATUM, 1), ReportError::Nonsense("stratum"));
        assert_eq!(with(offset::LEAP + 1, 4), ReportError::Nonsense("leap status"));
        assert_eq!(with(offset::REFERENCE_TIME + 8, 255), ReportError::Nonsense("reference time"));
        // The sign of the coefficient, and the greatest exponent.
        assert_eq!(with(offset::ROOT_DELAY, 0x01), ReportError::Nonsense("root delay"));
        let big = with(offset::ROOT_DISPERSION, 0x7e);
        assert_eq!(big, ReportError::Nonsense("root dispersion"));
        let refusal: Vec<u8> = {
            let mut cut = good;
            cut[offset::STATUS + 1] = 2;
            cut[..28].into()
        };
        assert_eq!(parse_tracking(&refusal, 7), Err(ReportError::Refused(2)));
    }

    #[test]
    fn chronyd_smooths_or_does_not() {
        let answer = |status: u16, reply: u16| {
            let mut message = [0; SMOOTHING_BYTES];
            message[..2].copy_from_slice(&[VERSION, REPLY]);
            message[offset::COMMAND..][..2].copy_from_slice(&COMMAND_SMOOTHING.to_be_bytes());
            message[offset::REPLY..][..2].copy_from_slice(&reply.to_be_bytes());
            message[offset::STATUS..][..2].copy_from_slice(&status.to_be_bytes());
            message[offset::REPLY_SEQUENCE..][..4].copy_from_slice(&7_u32.to_be_bytes());
            message
        };
        let mut enabled = answer(STATUS_SUCCESS, REPLY_SMOOTHING);
        let smoothing = Smoothing { is_leap_only: false, offset_seconds: 0.0 };
        assert_eq!(parse_smoothing(&enabled, 7), Ok(Some(smoothing)));
        enabled[offset::SMOOTHING_FLAGS + 3] = 3;
        enabled[offset::SMOOTHING_OFFSET..][..4].copy_from_slice(&float(-0.25).to_be_bytes());
        let smoothing = Smoothing { is_leap_only: true, offset_seconds: -0.25 };
        assert_eq!(parse_smoothing(&enabled, 7), Ok(Some(smoothing)));
        let disabled = answer(STATUS_NOT_ENABLED, 1);
        assert_eq!(parse_smoothing(&disabled[..offset::BODY], 7), Ok(None));
        for bytes in [6, offset::BODY, SMOOTHING_BYTES] {
            assert!(is_of_smoothing(&enabled[..bytes]));
        }
        assert!(!is_of_smoothing(&enabled[..5]) && !is_of_smoothing(&emit(&good(), 7)));
        assert_eq!(parse_smoothing(&answer(2, 1), 7), Err(ReportError::Refused(2)));
        assert_eq!(parse_smoothing(&enabled, 8), Err(ReportError::Unrelated));
        let other = answer(STATUS_SUCCESS, REPLY_TRACKING);
        assert_eq!(parse_smoothing(&other, 7), Err(ReportError::Form));
        for bytes in 0..SMOOTHING_BYTES {
            let length = ReportError::Length(bytes, SMOOTHING_BYTES);
            assert_eq!(parse_smoothing(&enabled[..bytes], 7), Err(length));
        }
        assert_eq!(parse_tracking(&enabled, 7), Err(ReportError::Unrelated));
    }

    proptest! {
        #[test]
        fn no_report_has_a_value_that_is_no_number(
            body in proptest::array::uniform::<_, { TRACKING_BYTES - 20 }>(any::<u8>()),
        ) {
            let mut message = emit(&good(), 7);
            message[20..].copy_from_slice(&body);
            if let Ok(found) = parse_tracking(&message, 7) {
                prop_assert!(found.correction_seconds.is_finite());
                prop_assert!(found.residual_frequency_ppm.is_finite());
                prop_assert!(found.skew_ppm >= 0.0 && found.root_delay_seconds >= 0.0);
                prop_assert!(found.stratum <= 16);
            }
        }
    }
}
