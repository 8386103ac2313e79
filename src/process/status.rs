//! What a running server tells of itself down the control socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::certificates::Certificates;
use super::clock_status::ClockStatus;
use super::key_keeper::KeyKeeper;
use crate::aead::MasterKey;
use crate::certificate::describe::{Description, describe, warnings};
use crate::ke::counters::Counters as KeCounters;
use crate::observe::health::Health;
use crate::page::histogram::{BATCH, Histogram, LATENCY};
use crate::page::stats::{CounterSet, StatsPage, WorkerCounters};

/// The whole server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// When all of this was so, and was counted, in milliseconds since 1970.
    pub taken_unix_milliseconds: i64,
    /// Whether clients get what the configuration promises them.
    pub health: Health,
    /// Release of timeball.
    pub release: String,
    /// Since the supervisor started.
    pub uptime_seconds: u64,
    /// The configuration file; none without one.
    pub configuration: Option<PathBuf>,
    /// Configurations that hold since they were read again.
    pub reloads: u64,
    /// Configurations that were refused.
    pub reloads_refused: u64,
    /// Every process but the supervisor.
    pub processes: Vec<ProcessStatus>,
    /// UDP addresses.
    pub ntp_listen: Vec<SocketAddr>,
    /// The processor of each worker.
    pub worker_cpus: Vec<usize>,
    /// What each worker has done, in the same order.
    pub workers: Vec<WorkerStatus>,
    /// TCP addresses; none without key establishment.
    pub ke_listen: Vec<SocketAddr>,
    /// Where the time comes from.
    pub clock: ClockStatus,
    /// The master keys.
    pub keys: KeysStatus,
    /// The certificates in use; none without key establishment.
    pub certificates: Vec<CertificateStatus>,
    /// What was counted.
    pub serverstats: ServerStats,
}

/// One process of a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Name of the role.
    pub role: String,
    /// Its identifier; none while it waits to be started again.
    pub pid: Option<u32>,
    /// It has said that it serves.
    pub is_serving: bool,
    /// Since it was started last.
    pub age_seconds: u64,
    /// How often it was started again.
    pub restarts: u64,
}

/// One worker of the responder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its processor.
    pub cpu: usize,
    /// Processor time that it has used.
    pub processor_seconds: f64,
    /// Datagrams that were answered together.
    pub batch_datagrams: HistogramStatus,
    /// From a request's arrival until the replies of its batch were handed to the kernel.
    pub latency_seconds: HistogramStatus,
}

impl WorkerStatus {
    pub(crate) fn all(cpus: &[usize], pages: &[StatsPage<WorkerCounters<'static>>]) -> Vec<Self> {
        let of_worker = |(&cpu, page): (&usize, &StatsPage<WorkerCounters<'static>>)| {
            let histograms = page.histograms();
            Self {
                cpu,
                processor_seconds: page.total("processor_nanoseconds") as f64 / 1e9,
                batch_datagrams: HistogramStatus::new(&histograms[BATCH], 1.0),
                latency_seconds: HistogramStatus::new(&histograms[LATENCY], 1e9),
            }
        };
        cpus.iter().zip(pages).map(of_worker).collect()
    }
}

/// How values are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistogramStatus {
    /// Upper bounds of the buckets, which take them in; one more bucket takes what is beyond.
    pub bounds: Vec<f64>,
    /// Values in each bucket, of that bucket alone.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: f64,
}

impl HistogramStatus {
    /// `histogram`, whose values are so many to a unit.
    fn new(histogram: &Histogram, per_unit: f64) -> Self {
        Self {
            bounds: histogram.bounds.iter().map(|&bound| bound as f64 / per_unit).collect(),
            counts: histogram.counts.clone(),
            sum: histogram.sum as f64 / per_unit,
        }
    }
}

/// The master keys, without the keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeysStatus {
    /// Identifiers, oldest first: two previous keys, the current and the next one.
    pub ids: Vec<String>,
    /// The first bytes of the keys' SHA-256, in the same order.
    pub fingerprints: Vec<String>,
    /// Identifier of the current key.
    pub current: String,
    /// Age of the next key, which is the newest; none when another program makes the keys.
    pub newest_age_seconds: Option<u64>,
    /// When the next key becomes current; none when another program makes the keys.
    pub next_rotation_seconds: Option<u64>,
}

impl KeysStatus {
    pub(super) fn new(keys: &KeyKeeper, since_boot: std::time::Duration) -> Self {
        let id = |key: &MasterKey| format!("{:08X}", key.id());
        let times = keys.rotation_times(since_boot);
        Self {
            ids: keys.ring().keys().iter().map(id).collect(),
            fingerprints: keys.ring().keys().iter().map(fingerprint).collect(),
            current: id(keys.ring().current()),
            newest_age_seconds: times.map(|times| times.newest_age.as_secs()),
            next_rotation_seconds: times.map(|times| times.due_in.as_secs()),
        }
    }
}

/// The first eight bytes of the key's SHA-256: tells keys apart, and nothing about a random key.
pub(crate) fn fingerprint(key: &MasterKey) -> String {
    base16ct::lower::encode_string(&digest(&SHA256, key.expose_bytes()).as_ref()[..8])
}

/// A certificate in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Its file.
    pub file: PathBuf,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// Last second of validity, in seconds since 1970.
    pub expires_unix: i64,
    /// What is wrong with it.
    pub warnings: Vec<String>,
}

impl CertificateStatus {
    pub(super) fn all(certificates: &Certificates, now: OffsetDateTime) -> Vec<Self> {
        let pairs = certificates.texts().into_iter();
        pairs
            .filter_map(|pair| {
                let chain = describe(pair.certificate_pem.as_bytes()).ok()?;
                let Description { names, not_after, .. } = chain.first()?;
                Some(Self {
                    file: pair.certificate_file.clone(),
                    names: names.clone(),
                    expires_unix: not_after.unix_timestamp(),
                    warnings: warnings(&chain, now).iter().map(ToString::to_string).collect(),
                })
            })
            .collect()
    }
}

/// Totals since the supervisor started. The first five have the names and the meaning of chrony's
/// `serverstats` (chronyc(1)).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerStats {
    /// Valid requests.
    pub ntp_packets_received: u64,
    /// Connections to key establishment.
    pub nts_ke_connections_accepted: u64,
    /// Valid requests that were dropped because they were too many.
    pub ntp_packets_dropped: u64,
    /// Requests that were authenticated.
    pub authenticated_ntp_packets: u64,
    /// Requests that were answered in interleaved mode.
    pub interleaved_ntp_packets: u64,
    /// What became of the datagrams, of all workers.
    pub responder: BTreeMap<String, u64>,
    /// What became of the connections, of all processes.
    pub key_establishment: BTreeMap<String, u64>,
}

impl ServerStats {
    pub(crate) fn new(
        workers: &[StatsPage<WorkerCounters<'static>>],
        key_establishment: &[StatsPage<KeCounters>],
    ) -> Self {
        let responder = sum(workers);
        let key_establishment = sum(key_establishment);
        let of = |totals: &BTreeMap<String, u64>, names: &[&str]| {
            names.iter().filter_map(|name| totals.get(*name)).sum()
        };
        let answered = ["answered_plain", "answered_nts", "nts_nak", "kiss_rate", "kiss_rate_nts"];
        let dropped = ["dropped_rate", "dropped_rate_nts", "dropped_rate_nak", "dropped_replay"];
        Self {
            ntp_packets_received: of(&responder, &answered) + of(&responder, &dropped),
            ntp_packets_dropped: of(&responder, &dropped),
            nts_ke_connections_accepted: of(&key_establishment, &["accepted"]),
            authenticated_ntp_packets: of(&responder, &["answered_nts"]),
            interleaved_ntp_packets: of(&responder, &["answered_interleaved"]),
            responder,
            key_establishment,
        }
    }
}

fn sum<S: CounterSet>(pages: &[StatsPage<S>]) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for (name, total) in pages.iter().flat_map(StatsPage::totals) {
        *totals.entry(name.to_owned()).or_default() += total;
    }
    totals
}

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What has changed and holds.
    pub holds: Vec<String>,
    /// Keys of the configuration that have changed and wait for a restart.
    pub restart_needed: Vec<String>,
}

/// What a rotation has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// Identifier of the key that is current now.
    pub current: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Algorithm;

    /// `printf 000102… | xxd -r -p | sha256sum` says the same.
    #[test]
    fn a_fingerprint_is_the_head_of_sha_256() {
        let bytes: Vec<u8> = (0..32).collect();
        let key = MasterKey::new(1, Algorithm::AesSivCmac256, &bytes).expect("fits");
        assert_eq!(fingerprint(&key), "630dcd2966c43366");
    }
}
