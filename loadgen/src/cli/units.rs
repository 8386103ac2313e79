//! Numbers as people write them: `150k`, `1.5M`, `500ms`, `2m`.

use std::time::Duration;

use crate::limits::{DURATION_MAX, RATE_PER_SECOND_MAX};
use crate::plan::Shape;

/// A positive number with `k` or `M`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    number(text, &[("k", 1e3), ("M", 1e6), ("", 1.0)])
        .filter(|rate| *rate > 0.0 && *rate <= RATE_PER_SECOND_MAX)
        .ok_or_else(|| "write requests per second, as 500, 150k or 1.5M".to_owned())
}

/// A count with `k` or `M`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    number(text, &[("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)])
        .filter(|count| *count >= 1.0 && *count <= 1e18 && count.fract() == 0.0)
        .map(|count| count as u64)
        .ok_or_else(|| "write a number, as 64, 10k or 1M".to_owned())
}

/// A time with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    number(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)])
        .filter(|seconds| *seconds > 0.0 && *seconds <= DURATION_MAX.as_secs_f64())
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write a time with its unit, as 500ms, 10s or 2m, up to 24h".to_owned())
}

/// `constant`, `poisson`, `ramp:RATE`, `burst:REQUESTS`.
pub(super) fn shape(text: &str) -> Result<Shape, String> {
    match text.split_once(':') {
        None if text == "constant" => Ok(Shape::Constant),
        None if text == "poisson" => Ok(Shape::Poisson),
        Some(("ramp", to)) => Ok(Shape::Ramp { to_per_second: rate(to)? }),
        Some(("burst", requests)) => Ok(Shape::Burst { requests: count(requests)? }),
        _ => Err("write constant, poisson, ramp:RATE (at the end) or burst:REQUESTS".to_owned()),
    }
}

/// `all`, `none`, or `1/N`: one of N answers.
pub(super) fn verify(text: &str) -> Result<u64, String> {
    match text {
        "all" => Ok(1),
        "none" => Ok(0),
        _ => text
            .strip_prefix("1/")
            .and_then(|every| every.parse().ok())
            .filter(|every| *every > 0)
            .ok_or_else(|| "write all, none, or 1/N for one answer of N".to_owned()),
    }
}

fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, factor)| {
        let digits = text.strip_suffix(unit)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        digits.parse::<f64>().ok().filter(|_| is_plain).map(|number| number * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units() {
        assert_eq!(rate("1.5M"), Ok(1.5e6));
        assert_eq!(rate("150k"), Ok(150e3));
        assert_eq!(rate("7"), Ok(7.0));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("50us"), Ok(Duration::from_micros(50)));
        for wrong in ["", "0", "-1", "1e9", "inf", "NaN", "k", "1kk", "200M"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "10", "0s", "25h", "s", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(count("1.5").is_err());
    }

    #[test]
    fn shapes_and_samples() {
        assert_eq!(shape("ramp:2k"), Ok(Shape::Ramp { to_per_second: 2000.0 }));
        assert_eq!(shape("burst:50"), Ok(Shape::Burst { requests: 50 }));
        assert_eq!(
            (shape("constant"), shape("poisson")),
            (Ok(Shape::Constant), Ok(Shape::Poisson))
        );
        assert!(shape("ramp").is_err() && shape("saw").is_err());
        assert_eq!((verify("all"), verify("none"), verify("1/16")), (Ok(1), Ok(0), Ok(16)));
        assert!(verify("1/0").is_err() && verify("2").is_err());
    }
}
