//! How well something is, as monitoring systems have it: what `check` and `doctor` exit with.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// With the exit codes of the Monitoring Plugins Development Guidelines, "Plugin Return Codes".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    #[default]
    Ok,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or not for long.
    Critical,
    /// That could not be found out.
    Unknown,
}

impl State {
    /// 0 to 3.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// In lower case; a column of them is eight wide.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// The worst of all; `Ok` of none.
    pub(super) fn worst(states: impl IntoIterator<Item = Self>) -> Self {
        states.into_iter().max_by_key(|state| state.rank()).unwrap_or_default()
    }

    /// What is known to be broken hides less than what is not known; a warning is known to work.
    fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Critical, Ok, Unknown, Warning};
    use super::*;

    #[test]
    fn the_worst_of_all() {
        assert_eq!(State::worst([]), Ok);
        assert_eq!(State::worst([Ok, Warning, Ok]), Warning);
        assert_eq!(State::worst([Unknown, Warning]), Unknown);
        assert_eq!(State::worst([Unknown, Critical, Warning]), Critical);
        assert_eq!([Ok, Warning, Critical, Unknown].map(State::code), [0, 1, 2, 3]);
    }
}
