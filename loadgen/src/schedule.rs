//! When each request is due, whatever the server does: an open loop.
//!
//! Times are nanoseconds since the run began. They come from the request's number, not from the
//! time before, so that nothing adds up; only Poisson's gaps do, as they must.

use timeball::aead::NonceGenerator;

use crate::plan::{Plan, Shape};

/// The requests of one thread.
pub struct Schedule {
    shape: Shape,
    /// Requests per second, of this thread.
    rate_per_second: f64,
    duration_ns: u64,
    requests_max: u64,
    /// Number of the next request.
    next: u64,
    next_ns: u64,
    /// Where among the threads this one stands, 0 to 1: their requests do not come together.
    phase: f64,
    random: NonceGenerator,
}

impl Schedule {
    /// The share of thread `thread`, of as many as `plan` has.
    pub fn new(plan: &Plan, thread: usize) -> Self {
        let threads = plan.cpus.len();
        let share = 1.0 / threads as f64;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&plan.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&(thread as u64).to_be_bytes());
        let shape = match plan.shape {
            Shape::Ramp { to_per_second } => Shape::Ramp { to_per_second: to_per_second * share },
            Shape::Burst { requests } => {
                Shape::Burst { requests: share_of(requests, thread, threads) }
            }
            same => same,
        };
        let mut schedule = Self {
            shape,
            rate_per_second: match plan.shape {
                // Every thread bursts at the same moments, with its part of the requests.
                Shape::Burst { requests } => {
                    plan.rate_per_second * share_of(requests, thread, threads) as f64
                        / requests as f64
                }
                _ => plan.rate_per_second * share,
            },
            duration_ns: plan.duration.as_nanos() as u64,
            requests_max: share_of(plan.requests_max, thread, threads),
            next: 0,
            next_ns: 0,
            phase: thread as f64 * share,
            random: NonceGenerator::from_seed(&seed),
        };
        schedule.next_ns = schedule.time_of_next();
        schedule
    }

    /// When the next request is due; `None` when all have been offered.
    pub fn next_due(&self) -> Option<u64> {
        let is_over = self.next >= self.requests_max || self.next_ns >= self.duration_ns;
        (!is_over).then_some(self.next_ns)
    }

    /// Takes the next request if it is due at `now_ns`; returns when it was.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_due().filter(|due| *due <= now_ns)?;
        self.next += 1;
        self.next_ns = self.time_of_next();
        Some(due)
    }

    /// Offers nothing more.
    pub fn stop(&mut self) {
        self.requests_max = self.next;
    }

    fn time_of_next(&mut self) -> u64 {
        let (number, rate) = (self.next as f64, self.rate_per_second);
        let seconds = match self.shape {
            Shape::Constant => (number + self.phase) / rate,
            Shape::Poisson => {
                // Inverse of the exponential distribution; a uniform number in (0, 1].
                let gap = -uniform(&mut self.random).ln() / rate;
                return self.next_ns + (gap * 1e9) as u64;
            }
            Shape::Ramp { to_per_second } => {
                let duration = self.duration_ns as f64 / 1e9;
                ramp_seconds(number + self.phase, rate, to_per_second, duration)
            }
            Shape::Burst { requests } => match self.next.checked_div(requests) {
                Some(burst) => burst as f64 * requests as f64 / rate,
                // More threads than requests in a burst: this one has none.
                None => f64::INFINITY,
            },
        };
        (seconds * 1e9) as u64
    }
}

/// When `number` requests have been due, on the way from one rate to another within `duration`:
/// the root of `number = from·t + (to − from)·t² / (2·duration)`, in the form that has no
/// cancellation.
fn ramp_seconds(number: f64, from: f64, to: f64, duration: f64) -> f64 {
    let slope = (to - from) / duration;
    let discriminant = from * from + 2.0 * slope * number;
    if discriminant < 0.0 {
        return f64::INFINITY;
    }
    2.0 * number / (from + discriminant.sqrt()).max(f64::MIN_POSITIVE)
}

/// 53 random bits, as a number in (0, 1].
fn uniform(random: &mut NonceGenerator) -> f64 {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let bits = u128::from_ne_bytes(bytes) as u64 >> 11;
    (bits + 1) as f64 / (1_u64 << 53) as f64
}

/// The part of `total` that falls to one of several threads.
fn share_of(total: u64, thread: usize, threads: usize) -> u64 {
    let (threads, thread) = (threads as u64, thread as u64);
    total / threads + u64::from(thread < total % threads)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Ask;

    fn plan(rate: f64, seconds: f64, shape: Shape) -> Plan {
        let target = ([127, 0, 0, 1], 123).into();
        let mut plan = Plan::new(target, Ask::Ntp, rate, Duration::from_secs_f64(seconds));
        plan.shape = shape;
        plan
    }

    fn times(plan: &Plan) -> Vec<u64> {
        let mut times: Vec<u64> = (0..plan.cpus.len())
            .flat_map(|thread| {
                let mut schedule = Schedule::new(plan, thread);
                std::iter::from_fn(move || schedule.take(u64::MAX)).collect::<Vec<_>>()
            })
            .collect();
        times.sort_unstable();
        times
    }

    #[test]
    fn constant_is_exact_whatever_the_number_of_threads() {
        for threads in 1..=4 {
            let mut plan = plan(1000.0, 2.0, Shape::Constant);
            plan.cpus = vec![None; threads];
            let times = times(&plan);
            assert_eq!(times.len(), 2000);
            for (number, time) in times.iter().enumerate() {
                assert!(time.abs_diff(number as u64 * 1_000_000) <= 1, "{number}: {time}");
            }
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut schedule = Schedule::new(&plan(1000.0, 1.0, Shape::Constant), 0);
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(999_999), None);
        assert_eq!(schedule.take(2_500_000), Some(1_000_000));
        assert_eq!(schedule.take(2_500_000), Some(2_000_000));
        assert_eq!(schedule.take(2_500_000), None);
        schedule.stop();
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn the_cap_holds_for_all_threads_together() {
        let mut plan = plan(1e6, 10.0, Shape::Constant);
        plan.requests_max = 1001;
        plan.cpus = vec![None; 3];
        assert_eq!(times(&plan).len(), 1001);
    }

    /// Mean and variance of exponential gaps: 1/rate and its square. 10⁵ gaps put the mean within
    /// 1.5 % and the variance within 5 % with a fixed seed, or the generator is not exponential.
    #[test]
    fn poisson_has_exponential_gaps() {
        let times = times(&plan(100_000.0, 1.0, Shape::Poisson));
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 10_000.0 - 1.0).abs() < 0.015, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.025, "{variance}");
    }

    #[test]
    fn a_ramp_offers_the_mean_of_its_rates_and_half_as_many_in_its_first_part() {
        let times = times(&plan(100.0, 10.0, Shape::Ramp { to_per_second: 300.0 }));
        assert!(times.len().abs_diff(2000) <= 1, "{}", times.len());
        // 100·5 + 20·5²/2 = 750 in the first half.
        let first = times.iter().filter(|time| **time < 5_000_000_000).count();
        assert!(first.abs_diff(750) <= 1, "{first}");
        let falling = super::tests::plan(300.0, 10.0, Shape::Ramp { to_per_second: 0.0 });
        assert!(super::tests::times(&falling).len().abs_diff(1500) <= 1);
    }

    #[test]
    fn bursts_come_together_and_keep_the_rate() {
        for threads in [1, 3, 20] {
            let mut plan = plan(100.0, 1.0, Shape::Burst { requests: 10 });
            plan.cpus = vec![None; threads];
            let times = times(&plan);
            assert_eq!(times.len(), 100, "{threads} threads");
            for (number, time) in times.iter().enumerate() {
                assert!(time.abs_diff(number as u64 / 10 * 100_000_000) <= 1);
            }
        }
    }
}
