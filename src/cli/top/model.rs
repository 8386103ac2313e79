//! What two looks at a server tell: rates, shares and percentiles between them.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::commands::TOP_HISTORY;
use crate::process::status::{HistogramStatus, Status, WorkerStatus};

/// The server as it was seen last, and what has happened since the look before.
#[derive(Default)]
pub(super) struct Model {
    before: Option<Status>,
    pub(super) now: Option<Status>,
    /// Requests per second, the oldest first.
    pub(super) history: VecDeque<f64>,
    /// Why the last look saw nothing.
    pub(super) trouble: Option<String>,
}

/// Between two looks, per second unless it says otherwise.
pub(super) struct Rates {
    pub(super) plain: f64,
    pub(super) nts: f64,
    pub(super) naks: f64,
    /// Requests beyond a limit that were told so.
    pub(super) kisses: f64,
    pub(super) dropped: f64,
    /// To full socket buffers.
    pub(super) lost: f64,
    pub(super) handshakes: f64,
    pub(super) connections: f64,
    pub(super) latency: Spread,
    pub(super) batch: Spread,
    pub(super) workers: Vec<WorkerRates>,
    /// What was refused or went wrong, by name, with its total; the most frequent first.
    pub(super) reasons: Vec<Reason>,
}

pub(super) struct WorkerRates {
    pub(super) cpu: usize,
    /// Share of its processor that it used.
    pub(super) load: f64,
    pub(super) answered: f64,
    pub(super) latency: Spread,
}

pub(super) struct Reason {
    pub(super) name: String,
    pub(super) rate: f64,
    pub(super) total: u64,
}

/// Percentiles, as upper bounds; none without values, infinite beyond the last bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Model {
    /// Takes what a look saw. A server that was started again begins anew.
    pub(super) fn take(&mut self, look: Result<Status, String>) {
        match look {
            Err(why) => self.trouble = Some(why),
            Ok(status) => {
                self.trouble = None;
                self.before = self.now.take().filter(|before| {
                    before.taken_unix_milliseconds < status.taken_unix_milliseconds
                        && before.uptime_seconds <= status.uptime_seconds
                        && before.workers.len() == status.workers.len()
                });
                self.now = Some(status);
                if let Some(rates) = self.rates() {
                    let answered = rates.plain + rates.nts + rates.naks + rates.kisses;
                    self.history.push_back(answered + rates.dropped);
                    if self.history.len() > TOP_HISTORY {
                        self.history.pop_front();
                    }
                }
            }
        }
    }

    /// None before the second look.
    pub(super) fn rates(&self) -> Option<Rates> {
        let (before, now) = (self.before.as_ref()?, self.now.as_ref()?);
        let milliseconds = now.taken_unix_milliseconds - before.taken_unix_milliseconds;
        let seconds = milliseconds as f64 / 1e3;
        let (old, new) = (&before.serverstats, &now.serverstats);
        let ntp = |name: &str| rate(&old.responder, &new.responder, name, seconds);
        let ke = |name: &str| rate(&old.key_establishment, &new.key_establishment, name, seconds);
        let mut reasons: Vec<Reason> = new
            .responder
            .iter()
            .filter(|(name, total)| **total > 0 && is_reason(name))
            .map(|(name, total)| Reason { name: name.clone(), rate: ntp(name), total: *total })
            .chain(
                new.key_establishment
                    .iter()
                    .filter(|(name, total)| **total > 0 && is_ke_reason(name))
                    .map(|(name, total)| Reason {
                        name: format!("NTS-KE {name}"),
                        rate: ke(name),
                        total: *total,
                    }),
            )
            .collect();
        reasons.sort_by(|one, other| {
            other.rate.total_cmp(&one.rate).then(other.total.cmp(&one.total))
        });
        let dropped = new.responder.keys().filter(|name| name.starts_with("dropped_"));
        let between = |of: fn(&WorkerStatus) -> &HistogramStatus| {
            let workers = before.workers.iter().zip(&now.workers);
            Spread::of(workers.map(|(old, new)| (of(old), of(new))))
        };
        Some(Rates {
            plain: ntp("answered_plain"),
            nts: ntp("answered_nts"),
            naks: ntp("nts_nak"),
            kisses: ntp("kiss_rate") + ntp("kiss_rate_nts"),
            dropped: dropped.map(|name| ntp(name)).sum(),
            lost: ntp("receive_drops") + ntp("send_buffer_full"),
            handshakes: ke("served"),
            connections: ke("accepted"),
            latency: between(|worker| &worker.latency_seconds),
            batch: between(|worker| &worker.batch_datagrams),
            workers: before
                .workers
                .iter()
                .zip(&now.workers)
                .map(|(old, new)| WorkerRates::of(old, new, seconds))
                .collect(),
            reasons,
        })
    }
}

impl WorkerRates {
    fn of(old: &WorkerStatus, new: &WorkerStatus, seconds: f64) -> Self {
        let all = |histogram: &HistogramStatus| histogram.counts.iter().sum::<u64>();
        let answered = all(&new.latency_seconds).saturating_sub(all(&old.latency_seconds));
        Self {
            cpu: new.cpu,
            load: ((new.processor_seconds - old.processor_seconds) / seconds).clamp(0.0, 1.0),
            answered: answered as f64 / seconds,
            latency: Spread::of([(&old.latency_seconds, &new.latency_seconds)]),
        }
    }
}

impl Spread {
    /// Of what came between each pair of looks. All histograms have the same bounds.
    fn of<'a>(pairs: impl IntoIterator<Item = (&'a HistogramStatus, &'a HistogramStatus)>) -> Self {
        let mut bounds: &[f64] = &[];
        let mut counts: Vec<u64> = Vec::new();
        for (old, new) in pairs {
            bounds = &new.bounds;
            counts.resize(new.counts.len(), 0);
            let came =
                new.counts.iter().zip(&old.counts).map(|(new, old)| new.saturating_sub(*old));
            counts.iter_mut().zip(came).for_each(|(sum, count)| *sum += count);
        }
        let all: u64 = counts.iter().sum();
        let percentile = |share: f64| {
            let wanted = (share * all as f64).ceil() as u64;
            let mut below = 0;
            let bucket = counts.iter().position(|count| {
                below += count;
                below >= wanted && all > 0
            });
            bucket.map(|bucket| bounds.get(bucket).copied().unwrap_or(f64::INFINITY))
        };
        Self { p50: percentile(0.5), p90: percentile(0.9), p99: percentile(0.99) }
    }
}

fn rate(old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>, name: &str, seconds: f64) -> f64 {
    let total = |totals: &BTreeMap<String, u64>| totals.get(name).copied().unwrap_or_default();
    total(new).saturating_sub(total(old)) as f64 / seconds
}

/// Whether a counter of the responder is of something that somebody did not get.
fn is_reason(name: &str) -> bool {
    const LOSSES: [&str; 8] = [
        "nts_nak",
        "kiss_rate",
        "kiss_rate_nts",
        "receive_drops",
        "receive_errors",
        "send_errors",
        "send_buffer_full",
        "buffers_exhausted",
    ];
    name.starts_with("dropped_") || LOSSES.contains(&name)
}

fn is_ke_reason(name: &str) -> bool {
    name != "accepted" && !name.starts_with("served")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u64]) -> HistogramStatus {
        HistogramStatus { bounds: vec![1.0, 2.0, 4.0], counts: counts.to_vec(), sum: 0.0 }
    }

    #[test]
    fn percentiles_are_those_of_what_came_between() {
        let (old, new) = (histogram(&[100, 0, 0, 0]), histogram(&[150, 40, 9, 1]));
        let spread = Spread::of([(&old, &new)]);
        assert_eq!(spread, Spread { p50: Some(1.0), p90: Some(2.0), p99: Some(4.0) });
        let beyond = Spread::of([(&histogram(&[0; 4]), &histogram(&[0, 0, 0, 7]))]);
        assert_eq!(beyond.p50, Some(f64::INFINITY));
        assert_eq!(Spread::of([(&new, &new)]), Spread::default());
        assert_eq!(Spread::of([]), Spread::default());
        // Two workers together.
        let other = histogram(&[0, 0, 300, 0]);
        let both = Spread::of([(&old, &new), (&histogram(&[0; 4]), &other)]);
        assert_eq!(both.p50, Some(4.0));
    }
}
