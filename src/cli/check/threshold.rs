//! Where a measure becomes a warning, and where it becomes critical.

use std::fmt::{self, Display, Formatter};

use super::super::state::State;

/// Two limits of a measure, either of which may be missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Threshold {
    side: Side,
    warning: Option<f64>,
    critical: Option<f64>,
}

/// On which side of its limit a value is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Above,
    Below,
    /// Above, whatever the value's sign.
    Beyond,
}

impl Threshold {
    /// For a measure that is bad when it is large. The form is `WARNING,CRITICAL` or `WARNING`,
    /// with `-` for no limit.
    pub(super) fn above(text: &str) -> Result<Self, String> {
        Self::parse(text, Side::Above)
    }

    /// For one that is bad when it is small.
    pub(super) fn below(text: &str) -> Result<Self, String> {
        Self::parse(text, Side::Below)
    }

    /// For one that is bad when it is far from zero.
    pub(super) fn beyond(text: &str) -> Result<Self, String> {
        Self::parse(text, Side::Beyond)
    }

    fn parse(text: &str, side: Side) -> Result<Self, String> {
        let form = || "write WARNING,CRITICAL such as 0.1,1; - stands for no limit".to_owned();
        let (warning, critical) = text.split_once(',').unwrap_or((text, "-"));
        let limit = |text: &str| match text.trim() {
            "-" => Ok(None),
            text => text
                .parse::<f64>()
                .ok()
                .filter(|limit| limit.is_finite() && *limit >= 0.0)
                .map(Some)
                .ok_or_else(form),
        };
        let (warning, critical) = (limit(warning)?, limit(critical)?);
        if let (Some(warning), Some(critical)) = (warning, critical)
            && (if side == Side::Below { critical > warning } else { critical < warning })
        {
            return Err("the second limit has to be the worse one of the two".to_owned());
        }
        Ok(Self { side, warning, critical })
    }

    /// What `value` amounts to. One that is no number is past every limit.
    pub(super) fn judge(&self, value: f64) -> State {
        let is_past = |limit: Option<f64>| {
            limit.is_some_and(|limit| match self.side {
                _ if value.is_nan() => true,
                Side::Above => value > limit,
                Side::Below => value < limit,
                Side::Beyond => value.abs() > limit,
            })
        };
        if is_past(self.critical) {
            State::Critical
        } else if is_past(self.warning) {
            State::Warning
        } else {
            State::Ok
        }
    }
}

/// `WARNING;CRITICAL` of performance data: each the range in which a value is good (Monitoring
/// Plugins Development Guidelines, "Threshold and Ranges").
impl Display for Threshold {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let range = |limit: Option<f64>| match (limit, self.side) {
            (None, _) => String::new(),
            (Some(limit), Side::Above) => limit.to_string(),
            (Some(limit), Side::Below) => format!("{limit}:"),
            (Some(limit), Side::Beyond) => format!("-{limit}:{limit}"),
        };
        write!(out, "{};{}", range(self.warning), range(self.critical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_by_their_side() {
        let above = Threshold::above("0.1,1").expect("good");
        let states = [0.1, 0.11, 1.0, 1.01, f64::NAN].map(|value| above.judge(value).code());
        assert_eq!(states, [0, 1, 1, 2, 2]);
        let below = Threshold::below("14,3").expect("good");
        assert_eq!([14.0, 13.9, 3.0, -1.0].map(|value| below.judge(value).code()), [0, 1, 1, 2]);
        let beyond = Threshold::beyond("0.1,1").expect("good");
        let states = [-0.1, -0.2, 0.2, -2.0].map(|value| beyond.judge(value).code());
        assert_eq!(states, [0, 1, 1, 2]);
        let only_critical = Threshold::above("-,5").expect("good");
        assert_eq!([5.0, 6.0].map(|value| only_critical.judge(value).code()), [0, 2]);
        let only_warning = Threshold::above("5").expect("good");
        assert_eq!([5.0, 6.0].map(|value| only_warning.judge(value).code()), [0, 1]);
        assert_eq!(Threshold::above("-").expect("good").judge(f64::INFINITY), State::Ok);
    }

    #[test]
    fn performance_data_has_ranges() {
        assert_eq!(Threshold::above("0.1,1").expect("good").to_string(), "0.1;1");
        assert_eq!(Threshold::below("14,3").expect("good").to_string(), "14:;3:");
        assert_eq!(Threshold::beyond("0.1,-").expect("good").to_string(), "-0.1:0.1;");
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        for wrong in ["", "a", "1,2,3", "-1", "nan", "inf", "1,", ","] {
            assert!(Threshold::above(wrong).is_err(), "{wrong}");
        }
        assert!(Threshold::above("2,1").is_err());
        assert!(Threshold::below("1,2").is_err());
        assert!(Threshold::below("2,1").is_ok());
    }
}
