//! Section `rate_limit`: how often one client is answered.

use toml::Spanned;

use super::address::{networks, this_host};
use super::raw::{ConfigError, RawRateLimit};
use crate::engine::rate::RateLimits;
use crate::limits::clients::{RATE_LEAK_MAX, RATE_PER_SECOND, UNLIMITED_NETWORKS_MAX};

/// The limits unless configured: this host has none.
pub fn defaults() -> RateLimits {
    RateLimits::but_for(this_host())
}

pub(super) fn check(text: &str, raw: &RawRateLimit) -> Result<RateLimits, ConfigError> {
    let default = defaults();
    let leak = match &raw.leak {
        None => default.leak,
        Some(leak) => {
            let found = u32::try_from(*leak.get_ref()).ok();
            let found = found.filter(|leak| (1..=RATE_LEAK_MAX).contains(leak));
            found.ok_or_else(|| {
                ConfigError::at(text, leak, format!("leak must be 1 to {RATE_LEAK_MAX}"))
            })?
        }
    };
    let unlimited = match &raw.unlimited_clients {
        None => default.unlimited,
        Some(list) => networks(text, list, "unlimited_clients", UNLIMITED_NETWORKS_MAX)?,
    };
    let rate = |raw: &Option<Spanned<f64>>, name, default| per_second(text, raw, name, default);
    Ok(RateLimits {
        requests_per_second: rate(
            &raw.requests_per_second,
            "requests_per_second",
            default.requests_per_second,
        )?,
        nts_requests_per_second: rate(
            &raw.nts_requests_per_second,
            "nts_requests_per_second",
            default.nts_requests_per_second,
        )?,
        naks_per_second: rate(&raw.naks_per_second, "naks_per_second", default.naks_per_second)?,
        cookie_uses_per_second: rate(
            &raw.cookie_uses_per_second,
            "cookie_uses_per_second",
            default.cookie_uses_per_second,
        )?,
        leak,
        kiss: raw.kiss.unwrap_or(default.kiss),
        unlimited,
    })
}

/// Zero is no limit.
fn per_second(
    text: &str,
    raw: &Option<Spanned<f64>>,
    name: &str,
    default: Option<f64>,
) -> Result<Option<f64>, ConfigError> {
    let Some(rate) = raw else { return Ok(default) };
    let number = *rate.get_ref();
    if number != 0.0 && !RATE_PER_SECOND.contains(&number) {
        let what = format!("{name} must be from one a minute (0.017) to 65536, or 0 for no limit");
        return Err(ConfigError::at(text, rate, what));
    }
    Ok(Some(number).filter(|number| *number > 0.0))
}

#[cfg(test)]
mod tests {
    use super::super::checked::parse;
    use super::*;

    #[test]
    fn zero_takes_a_limit_away() {
        let limits = |text: &str| parse(&format!("[rate_limit]\n{text}")).expect(text).rates;
        assert_eq!(limits(""), defaults());
        let off = limits(
            "requests_per_second = 0.0\nnts_requests_per_second = 0.0\nnaks_per_second = 0.0\n\
             cookie_uses_per_second = 0.0\nunlimited_clients = []",
        );
        assert_eq!(off, RateLimits::off());
        let some = limits("requests_per_second = 0.5\nleak = 1\nkiss = true");
        let expected =
            RateLimits { requests_per_second: Some(0.5), leak: 1, kiss: true, ..defaults() };
        assert_eq!(some, expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (wrong, expected) in [
            ("requests_per_second = 0.01", "requests_per_second must be from one a minute"),
            ("naks_per_second = -1.0", "naks_per_second must be from one a minute"),
            ("nts_requests_per_second = nan", "nts_requests_per_second must be from"),
            ("cookie_uses_per_second = 1e6", "cookie_uses_per_second must be from"),
            ("leak = 0", "leak must be 1 to 1024"),
            ("unlimited_clients = [\"lan\"]", "\"lan\" is no network; write"),
        ] {
            let error = parse(&format!("[rate_limit]\n{wrong}")).expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("line 2: {expected}")), "{wrong}: {error}");
        }
    }
}
