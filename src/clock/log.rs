//! Lines of the logs, in the columns of chrony's tracking, measurements and statistics logs
//! (chrony.conf(5), "log") where they mean the same; "-" stands where nothing is known.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use super::follow::Sample;
use super::record::{ClockRecord, Moment};
use super::statistics::Estimate;
use crate::wire::candm::Tracking;
use crate::wire::ntp::Leap;
use crate::wire::timestamp::NtpTimestamp;

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogKind {
    /// Each correction of the clock that the followed daemon tells of.
    Tracking,
    /// Each reply of the followed daemon.
    Measurements,
    /// What some replies come to.
    Statistics,
}

impl LogKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tracking, Self::Measurements, Self::Statistics];

    /// The name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Tracking => "tracking.log",
            Self::Measurements => "measurements.log",
            Self::Statistics => "statistics.log",
        }
    }

    /// What stands above the columns of a new file.
    pub fn heading(self) -> String {
        let columns = match self {
            Self::Tracking => {
                "   Date (UTC) Time     IP Address   St   Freq ppm   Skew ppm     Offset L Co  \
                 Offset sd Rem. corr. Root delay Root disp. Max. error"
            }
            Self::Measurements => {
                "   Date (UTC) Time     IP Address   L St 123 567 ABCD  LP RP Score    Offset  \
                 Peer del. Peer disp.  Root del. Root disp. Refid     MTxRx"
            }
            Self::Statistics => {
                "   Date (UTC) Time     IP Address    Std dev'n Est offset  Offset sd  Diff freq   \
                 Est skew  Stress  Ns  Bs  Nr  Asym"
            }
        };
        let rule = "=".repeat(columns.len());
        format!("{rule}\n{columns}\n{rule}\n")
    }
}

/// A correction of the clock: what clients are told from now on, and the most that the clock was
/// off until now.
pub fn tracking_line(
    record: &ClockRecord,
    tracking: Option<&Tracking>,
    before: Option<&ClockRecord>,
    unix_seconds: i64,
) -> String {
    let ppm = |value: fn(&Tracking) -> f64| match tracking {
        Some(tracking) => format!("{:10.3}", value(tracking)),
        None => format!("{:>10}", "-"),
    };
    let offset = tracking.map(|tracking| tracking.last_offset_seconds);
    let error = before.filter(|before| before.is_good(record.taken)).map(|before| {
        let known = before.dispersion_seconds(record.taken) + before.root_delay.to_seconds() / 2.0;
        known + before.correction_seconds.abs() + offset.map_or(0.0, f64::abs)
    });
    format!(
        "{} {:<15} {:2} {} {} {} {} {:>2} {} {} {} {} {}\n",
        utc(record.taken.system, unix_seconds),
        reference(record, tracking.and_then(|tracking| tracking.source_address)),
        record.stratum,
        ppm(|tracking| tracking.frequency_ppm),
        ppm(|tracking| tracking.skew_ppm),
        scientific(offset),
        leap(record.leap),
        "-",
        scientific(None),
        scientific(Some(record.correction_seconds)),
        scientific(Some(record.root_delay.to_seconds())),
        scientific(Some(record.root_dispersion_seconds)),
        scientific(error),
    )
}

/// A reply of the daemon at `address`.
pub fn measurement_line(address: &str, sample: &Sample, at: Moment, unix_seconds: i64) -> String {
    let Sample { header, offset_seconds, delay_seconds } = sample;
    // It belongs to its request, which was sent once and answered once. What no authentication and
    // no comparison with others has tested has passed no test.
    let tests = "111";
    let synchronised = u8::from(header.leap != Leap::Unsynchronised);
    format!(
        "{} {address:<15} {} {:2} {tests} -{synchronised}- ----  0 {:2} {:>5} {} {} {} {} {} \
         {:08X} {}B D D\n",
        utc(at.system, unix_seconds),
        leap(header.leap),
        header.stratum,
        header.poll,
        "-",
        scientific(Some(*offset_seconds)),
        scientific(Some(*delay_seconds)),
        scientific(None),
        scientific(Some(header.root_delay.to_seconds())),
        scientific(Some(header.root_dispersion.to_seconds())),
        u32::from_be_bytes(header.reference_id.0),
        header.mode as u8,
    )
}

/// What the last replies of the daemon at `address` come to.
pub fn statistics_line(
    address: &str,
    estimate: &Estimate,
    at: Moment,
    unix_seconds: i64,
) -> String {
    let Estimate { measurements, runs, .. } = estimate;
    format!(
        "{} {address:<15} {} {} {} {} {} {} {measurements:3} {:3} {runs:3} {:>5}\n",
        utc(at.system, unix_seconds),
        scientific(Some(estimate.deviation_seconds)),
        scientific(Some(estimate.offset_seconds)),
        scientific(Some(estimate.offset_deviation_seconds)),
        scientific(Some(estimate.rate)),
        scientific(Some(estimate.rate_deviation)),
        scientific(Some(estimate.rate_change)),
        0,
        "-",
    )
}

/// Date and time. `unix_seconds` is near, and chooses the era.
fn utc(time: NtpTimestamp, unix_seconds: i64) -> String {
    let nanoseconds = time.to_unix_nanoseconds(unix_seconds);
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "- -".to_owned())
}

/// The address of who is followed. Where the daemon does not say it a reference is none: of IPv6 it
/// is a hash.
fn reference(record: &ClockRecord, source_address: Option<IpAddr>) -> String {
    match source_address {
        Some(address) => address.to_string(),
        None => format!("{:08X}", u32::from_be_bytes(record.reference_id.0)),
    }
}

fn leap(leap: Leap) -> char {
    match leap {
        Leap::None => 'N',
        Leap::Insert => '+',
        Leap::Delete => '-',
        Leap::Unsynchronised => '?',
    }
}

/// As C prints `%10.3e`.
fn scientific(value: Option<f64>) -> String {
    let Some(value) = value else { return format!("{:>10}", "-") };
    let text = format!("{value:.3e}");
    let (coefficient, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{:>10}", format!("{coefficient}e{exponent:+03}"))
}

#[cfg(test)]
mod tests {
    use super::super::record::SourceState;
    use super::super::record::tests::at;
    use super::*;
    use crate::wire::candm::tests::good;
    use crate::wire::ntp::{Header, Mode, ReferenceId};
    use crate::wire::timestamp::NtpShort;
    use std::time::Duration;

    const NOW: i64 = 1_800_000_000;

    fn record() -> ClockRecord {
        ClockRecord {
            leap: Leap::Insert,
            stratum: 3,
            reference_id: ReferenceId([192, 0, 2, 7]),
            root_delay: NtpShort::from_bits(0x800),
            root_dispersion_seconds: 0.000_25,
            correction_seconds: -0.000_123_4,
            dispersion_rate: 1e-6,
            holdover: Duration::from_secs(3600),
            ..ClockRecord::unsynchronised(SourceState::Synchronised, at(8.0))
        }
    }

    #[test]
    fn lines_have_the_columns_of_their_heading() {
        let before = ClockRecord { taken: at(0.0), ..record() };
        let tracking = tracking_line(&record(), Some(&good()), Some(&before), NOW);
        assert_eq!(
            tracking,
            "2027-01-15 08:00:08 192.0.2.7        3    -12.500      0.750  1.250e-04 +  -          \
             - -1.234e-04  3.125e-02  2.500e-04  1.613e-02\n"
        );
        let blind = tracking_line(&record(), None, None, NOW);
        assert!(blind.contains(" C0000207         3          -          -          - +  - "));
        let source_address = Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into());
        let far = Tracking { source_address, ..good() };
        let far = tracking_line(&record(), Some(&far), None, NOW);
        assert!(far.contains(" 2001:db8::7      3 "), "{far}");

        let header = Header {
            leap: Leap::None,
            version: 4,
            mode: Mode::Server,
            stratum: 2,
            poll: 6,
            precision: -25,
            root_delay: NtpShort::from_bits(0x800),
            root_dispersion: NtpShort::from_bits(0x10),
            reference_id: ReferenceId(*b"GPS\0"),
            reference_timestamp: NtpTimestamp::ZERO,
            origin_timestamp: NtpTimestamp::ZERO,
            receive_timestamp: NtpTimestamp::ZERO,
            transmit_timestamp: NtpTimestamp::ZERO,
        };
        let sample = Sample { header, offset_seconds: -1.5e-6, delay_seconds: 40e-6 };
        assert_eq!(
            measurement_line("127.0.0.1:123", &sample, at(1.0), NOW),
            "2027-01-15 08:00:01 127.0.0.1:123   N  2 111 -1- ----  0  6     - -1.500e-06  \
             4.000e-05          -  3.125e-02  2.441e-04 47505300 4B D D\n"
        );
        let estimate = Estimate {
            deviation_seconds: 1e-5,
            offset_seconds: -2e-6,
            offset_deviation_seconds: 3e-7,
            rate: 4e-8,
            rate_deviation: 5e-9,
            rate_change: 0.25,
            measurements: 60,
            runs: 31,
        };
        assert_eq!(
            statistics_line("127.0.0.1:123", &estimate, at(1.0), NOW),
            "2027-01-15 08:00:01 127.0.0.1:123    1.000e-05 -2.000e-06  3.000e-07  4.000e-08  \
             5.000e-09  2.500e-01  60   0  31     -\n"
        );
    }

    #[test]
    fn numbers_look_as_c_prints_them() {
        for (value, text) in [
            (0.0, " 0.000e+00"),
            (-8.621e-6, "-8.621e-06"),
            (12345.0, " 1.234e+04"),
            (1e-123, "1.000e-123"),
        ] {
            assert_eq!(scientific(Some(value)), text);
        }
        assert_eq!(scientific(None), "         -");
    }
}
