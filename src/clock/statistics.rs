//! How steady a followed daemon's offset is: a line through the last measurements, by least
//! squares.

use std::time::Duration;

use super::record::Moment;
use crate::limits::STATISTICS_MEASUREMENTS;

/// Measurements since the last estimate.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    offsets: Vec<(Moment, f64)>,
    /// The rate of the last estimate and its deviation.
    last_rate: Option<(f64, f64)>,
}

/// What some measurements come to. Deviations are standard deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// How far measurements are off the line, in seconds.
    pub deviation_seconds: f64,
    /// Offset on the line at the last measurement, in seconds.
    pub offset_seconds: f64,
    /// How far that may be off, in seconds.
    pub offset_deviation_seconds: f64,
    /// Growth of the offset, in seconds per second.
    pub rate: f64,
    /// How far that may be off.
    pub rate_deviation: f64,
    /// What the rate has changed since the last estimate, in deviations of that; 0 for the first.
    pub rate_change: f64,
    /// Measurements.
    pub measurements: usize,
    /// Runs of measurements on one side of the line.
    pub runs: usize,
}

impl Statistics {
    /// Takes a measurement, and returns an estimate if there are enough. A step of the clock in
    /// between begins anew.
    pub fn add(&mut self, at: Moment, offset_seconds: f64) -> Option<Estimate> {
        if self.offsets.last().is_some_and(|(before, _)| at.step_since(*before) != 0.0) {
            *self = Self::default();
        }
        self.offsets.push((at, offset_seconds));
        if self.offsets.len() < STATISTICS_MEASUREMENTS {
            return None;
        }
        let estimate = estimate(&self.offsets, self.last_rate);
        self.offsets.clear();
        self.last_rate = Some((estimate.rate, estimate.rate_deviation));
        Some(estimate)
    }
}

fn estimate(offsets: &[(Moment, f64)], last_rate: Option<(f64, f64)>) -> Estimate {
    let last = offsets.last().map_or(Duration::ZERO, |(at, _)| at.since_boot);
    // In seconds before the last one, so that the line's value there is its intercept.
    let x = |at: &Moment| at.since_boot.as_secs_f64() - last.as_secs_f64();
    let count = offsets.len() as f64;
    let mean_x = offsets.iter().map(|(at, _)| x(at)).sum::<f64>() / count;
    let mean_y = offsets.iter().map(|(_, offset)| offset).sum::<f64>() / count;
    let spread: f64 = offsets.iter().map(|(at, _)| (x(at) - mean_x).powi(2)).sum();
    let along: f64 = offsets.iter().map(|(at, y)| (x(at) - mean_x) * (y - mean_y)).sum();
    let rate = if spread > 0.0 { along / spread } else { 0.0 };
    let offset_seconds = mean_y - rate * mean_x;
    let residuals: Vec<f64> =
        offsets.iter().map(|(at, y)| y - offset_seconds - rate * x(at)).collect();
    let squares: f64 = residuals.iter().map(|residual| residual.powi(2)).sum();
    // Two numbers were drawn from the measurements.
    let deviation_seconds = (squares / (count - 2.0).max(1.0)).sqrt();
    let rate_deviation = if spread > 0.0 { deviation_seconds / spread.sqrt() } else { 0.0 };
    let share = if spread > 0.0 { mean_x.powi(2) / spread } else { 0.0 };
    let rate_change = match last_rate {
        Some((before, deviation)) if deviation > 0.0 => (rate - before).abs() / deviation,
        _ => 0.0,
    };
    Estimate {
        deviation_seconds,
        offset_seconds,
        offset_deviation_seconds: deviation_seconds * (1.0 / count + share).sqrt(),
        rate,
        rate_deviation,
        rate_change,
        measurements: offsets.len(),
        runs: 1 + residuals.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::at;
    use super::*;

    /// The estimate of as many measurements as it takes, a second apart.
    fn estimate_of(statistics: &mut Statistics, from: usize, offset: fn(f64) -> f64) -> Estimate {
        let mut estimates = (from..from + STATISTICS_MEASUREMENTS)
            .filter_map(|second| statistics.add(at(second as f64), offset(second as f64)));
        let estimate = estimates.next().expect("enough");
        assert_eq!(estimates.next(), None);
        estimate
    }

    #[test]
    fn a_line_is_found_as_it_is() {
        let mut statistics = Statistics::default();
        let found = estimate_of(&mut statistics, 0, |second| 0.5 - 1e-6 * second);
        let last = (STATISTICS_MEASUREMENTS - 1) as f64;
        assert!((found.offset_seconds - (0.5 - 1e-6 * last)).abs() < 1e-9, "{found:?}");
        assert!((found.rate + 1e-6).abs() < 1e-12 && found.deviation_seconds < 1e-9, "{found:?}");
        assert_eq!((found.measurements, found.rate_change), (STATISTICS_MEASUREMENTS, 0.0));
    }

    /// A millisecond up, a millisecond down: so deviates each measurement.
    #[test]
    fn noise_is_found_as_deviation() {
        let noise = |second: f64| if second as i64 % 2 == 0 { 0.001 } else { -0.001 };
        let mut statistics = Statistics::default();
        let found = estimate_of(&mut statistics, 0, noise);
        assert!((found.deviation_seconds - 0.001).abs() < 0.0001, "{found:?}");
        assert!(found.offset_seconds.abs() < found.deviation_seconds / 2.0, "{found:?}");
        assert!(found.rate.abs() < 3.0 * found.rate_deviation, "{found:?}");
        assert_eq!(found.runs, STATISTICS_MEASUREMENTS);
        let change = |second: f64| 1e-4 * second;
        let changed = estimate_of(&mut statistics, STATISTICS_MEASUREMENTS, change);
        let expected = (1e-4 - found.rate) / found.rate_deviation;
        assert!((changed.rate_change - expected).abs() < 0.01, "{changed:?}");
    }

    #[test]
    fn a_step_begins_anew() {
        let mut statistics = Statistics::default();
        for second in 0..STATISTICS_MEASUREMENTS - 1 {
            assert_eq!(statistics.add(at(second as f64), 0.0), None);
        }
        let mut stepped = at(STATISTICS_MEASUREMENTS as f64);
        stepped.system = stepped.system.plus(1 << 32);
        assert_eq!(statistics.add(stepped, -1.0), None);
    }
}
