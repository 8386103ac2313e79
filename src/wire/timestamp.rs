//! NTP timestamp formats (RFC 5905 section 6).

use std::time::Duration;

/// Seconds from the NTP era's start (1900-01-01 for era 0) to the Unix epoch (1970-01-01).
pub(crate) const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The 64-bit timestamp: 32 bits of seconds within the era, 32 bits of fraction.
///
/// The era is not on the wire: the difference of two timestamps is right while they lie less
/// than 68 years apart, whatever era each belongs to (RFC 5905 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NtpTimestamp(u64);

impl NtpTimestamp {
    /// "Unknown or unsynchronized", all zero on the wire.
    pub const ZERO: Self = Self(0);

    /// From the 64 bits of the wire.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits of the wire.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From a Unix time (`CLOCK_REALTIME`): seconds since 1970 and nanoseconds below 10⁹. The era
    /// is dropped: a time after 2036-02-07T06:28:16Z lands in era 1.
    pub const fn from_unix(seconds: i64, nanoseconds: u32) -> Self {
        let era_seconds = (seconds as u64).wrapping_add(UNIX_EPOCH_SECONDS) & 0xffff_ffff;
        // Rounded up: the truncated fraction would name a nanosecond that has not come yet to
        // whoever converts it back.
        let fraction = ((nanoseconds as u64) << 32).div_ceil(NANOSECONDS_PER_SECOND);
        Self((era_seconds << 32).wrapping_add(fraction))
    }

    /// The Unix time in nanoseconds nearest to `pivot_unix_seconds`: the reader's own clock
    /// chooses the era.
    pub const fn to_unix_nanoseconds(self, pivot_unix_seconds: i64) -> i128 {
        let pivot = NtpTimestamp::from_unix(pivot_unix_seconds, 0);
        let offset = self.seconds_since(pivot);
        let whole_nanoseconds = (offset as i128 * NANOSECONDS_PER_SECOND as i128) >> 32;
        pivot_unix_seconds as i128 * NANOSECONDS_PER_SECOND as i128 + whole_nanoseconds
    }

    /// `self − earlier` in units of 2⁻³² s, negative when `self` is the earlier one.
    pub const fn seconds_since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// `self − earlier` in seconds.
    pub fn seconds_since_f64(self, earlier: Self) -> f64 {
        self.seconds_since(earlier) as f64 / 4_294_967_296.0
    }

    /// The later of two timestamps less than 68 years apart.
    pub const fn later(self, other: Self) -> Self {
        if self.seconds_since(other) >= 0 { self } else { other }
    }

    /// The next representable instant, 2⁻³² s later.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// `units` of 2⁻³² s later, earlier if negative.
    pub const fn plus(self, units: i64) -> Self {
        Self(self.0.wrapping_add_signed(units))
    }

    /// `duration` earlier.
    pub const fn before(self, duration: Duration) -> Self {
        let fraction = ((duration.subsec_nanos() as u64) << 32) / NANOSECONDS_PER_SECOND;
        Self(self.0.wrapping_sub((duration.as_secs() << 32).wrapping_add(fraction)))
    }
}

/// The 32-bit short format: 16 bits of seconds, 16 bits of fraction. Used for root delay and
/// root dispersion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpShort(u32);

impl NtpShort {
    /// One second.
    pub const ONE_SECOND: Self = Self(1 << 16);

    /// From the 32 bits of the wire.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The 32 bits of the wire.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From seconds, rounded up so that an error bound is never understated, clamped to the
    /// format's 0 to 65,536 s.
    pub fn from_seconds_rounded_up(seconds: f64) -> Self {
        // The cast saturates: NaN and negatives become 0, larger values the maximum.
        Self((seconds * 65_536.0).ceil() as u32)
    }

    /// In seconds.
    pub fn to_seconds(self) -> f64 {
        f64::from(self.0) / 65_536.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5905 figure 4 lists these instants of era 0 and era 1.
    #[test]
    fn eras_of_rfc_5905_figure_4() {
        let unix_epoch = NtpTimestamp::from_unix(0, 0);
        assert_eq!(unix_epoch.to_bits() >> 32, 2_208_988_800);
        let era_1_start = NtpTimestamp::from_unix(2_085_978_496, 0);
        assert_eq!(era_1_start.to_bits(), 0);
        let second_before = NtpTimestamp::from_unix(2_085_978_495, 0);
        assert_eq!(era_1_start.seconds_since(second_before), 1 << 32);
    }

    #[test]
    fn unix_round_trip_across_the_2036_rollover() {
        for seconds in [0, 1_800_000_000, 2_085_978_495, 2_085_978_496, 4_000_000_000] {
            for nanoseconds in [0, 1, 499_999_999, 999_999_999] {
                let stamp = NtpTimestamp::from_unix(seconds, nanoseconds);
                for pivot in [seconds - 1_000_000, seconds, seconds + 1_000_000] {
                    assert_eq!(
                        stamp.to_unix_nanoseconds(pivot),
                        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
                    );
                }
            }
        }
    }

    #[test]
    fn short_format_rounds_up_and_saturates() {
        assert_eq!(NtpShort::from_seconds_rounded_up(0.0).to_bits(), 0);
        assert_eq!(NtpShort::from_seconds_rounded_up(1e-9).to_bits(), 1);
        assert_eq!(NtpShort::from_seconds_rounded_up(1.0), NtpShort::ONE_SECOND);
        assert_eq!(NtpShort::from_seconds_rounded_up(1e9).to_bits(), u32::MAX);
        assert_eq!(NtpShort::from_seconds_rounded_up(-1.0).to_bits(), 0);
        assert_eq!(NtpShort::from_seconds_rounded_up(f64::NAN).to_bits(), 0);
    }

    #[test]
    fn later_and_before_cross_the_era() {
        let era_1 = NtpTimestamp::from_bits(1 << 32);
        let earlier = era_1.before(Duration::from_millis(1500));
        assert_eq!(era_1.later(earlier), era_1);
        assert_eq!(earlier.later(era_1), era_1);
        assert_eq!(era_1.seconds_since_f64(earlier), 1.5);
    }
}
