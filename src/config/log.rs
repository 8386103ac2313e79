//! The section `log`, checked.

use std::path::PathBuf;

use super::clock::ClockSettings;
use super::raw::{ConfigError, RawLog};
use crate::clock::log::LogKind;
use crate::clock::source::Source;
use toml::Spanned;

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The directory of the files.
    pub directory: PathBuf,
    /// Which there are; none unless asked for.
    pub kinds: Vec<LogKind>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { directory: "/var/log/timeball".into(), kinds: Vec::new() }
    }
}

/// Checks the section of a server with this clock.
pub(super) fn check(
    text: &str,
    raw: &RawLog,
    clock: &ClockSettings,
) -> Result<LogSettings, ConfigError> {
    let is_on = |kind: &LogKind| switch(raw, *kind).is_some_and(|switch| *switch.get_ref());
    let kinds: Vec<LogKind> = LogKind::ALL.into_iter().filter(is_on).collect();
    for kind in &kinds {
        let what = match kind {
            LogKind::Tracking if clock.source != Source::Follow => {
                "tracking needs clock.source = \"follow\": only a followed daemon says when it has \
                 corrected the clock"
            }
            LogKind::Measurements | LogKind::Statistics
                if clock.source != Source::Follow || clock.follow.is_none() =>
            {
                "measurements and statistics need clock.source = \"follow\" and clock.follow: they \
                 are of the replies of that daemon"
            }
            _ => continue,
        };
        let place = switch(raw, *kind).expect("it is on");
        return Err(ConfigError::at(text, place, what.to_owned()));
    }
    let directory = raw.directory.clone().unwrap_or_else(|| LogSettings::default().directory);
    Ok(LogSettings { directory, kinds })
}

fn switch(raw: &RawLog, kind: LogKind) -> Option<&Spanned<bool>> {
    match kind {
        LogKind::Tracking => raw.tracking.as_ref(),
        LogKind::Measurements => raw.measurements.as_ref(),
        LogKind::Statistics => raw.statistics.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::checked::parse;
    use super::*;

    #[test]
    fn what_cannot_be_logged_is_refused_with_its_line() {
        let kinds = |text: &str| parse(text).map(|settings| settings.log.kinds);
        let follow = "[clock]\nsource = \"follow\"\n";
        assert_eq!(kinds("[log]\ndirectory = \"/x\""), Ok(vec![]));
        let tracking = format!("{follow}[log]\ntracking = true\nmeasurements = false");
        assert_eq!(kinds(&tracking), Ok(vec![LogKind::Tracking]));
        let all = "[log]\ntracking = true\nmeasurements = true\nstatistics = true";
        let ntp = format!("{follow}follow = \"127.0.0.1:11123\"\n{all}");
        assert_eq!(kinds(&ntp), Ok(LogKind::ALL.to_vec()));
        let message = |text: &str| kinds(text).expect_err(text).to_string();
        let tracking = message("[log]\ntracking = true");
        assert!(tracking.starts_with("line 2: tracking needs clock.source = \"follow\""));
        let measurements = message(&format!("{follow}{all}"));
        assert!(measurements.starts_with("line 5: measurements and statistics need"));
    }
}
