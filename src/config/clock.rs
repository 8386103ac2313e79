//! The section `clock`, checked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checked::interval;
use super::raw::{ConfigError, RawClock};
use crate::clock::source::Source;
use crate::limits::{
    CLOCK_HOLDOVER, CLOCK_HOLDOVER_DEFAULT, KERNEL_STRATUM_DEFAULT, LOCAL_STRATUM_DEFAULT,
};

/// Where the time comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSettings {
    /// Who answers for it.
    pub source: Source,
    /// Stratum told to clients, 1 to 15.
    pub stratum: u8,
    /// How long the last word of a silent source is good for.
    pub holdover: Duration,
}

impl ClockSettings {
    /// `source` with the stratum that is its default.
    pub fn of(source: Source) -> Self {
        let stratum = match source {
            Source::Kernel => KERNEL_STRATUM_DEFAULT,
            Source::Local => LOCAL_STRATUM_DEFAULT,
        };
        Self { source, stratum, holdover: CLOCK_HOLDOVER_DEFAULT }
    }
}

/// Checks the section.
pub(super) fn check(text: &str, raw: &RawClock) -> Result<ClockSettings, ConfigError> {
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
    Ok(settings)
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
    }
}
