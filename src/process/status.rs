//! What a running server tells of itself down the control socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::certificates::Certificates;
use super::clock_status::ClockStatus;
use super::key_keeper::KeyKeeper;
use super::pages::Pages;
use crate::certificate::describe::{Description, describe, warnings};
use crate::page::stats::{CounterSet, StatsPage};

/// The whole server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
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
#[derive(Debug, Serialize, Deserialize)]
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

/// The master keys, without the keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeysStatus {
    /// Identifiers, oldest first: two previous keys, the current and the next one.
    pub ids: Vec<String>,
    /// Identifier of the current key.
    pub current: String,
    /// Age of the next key, which is the newest; none when another program makes the keys.
    pub newest_age_seconds: Option<u64>,
    /// When the next key becomes current; none when another program makes the keys.
    pub next_rotation_seconds: Option<u64>,
}

impl KeysStatus {
    pub(super) fn new(keys: &KeyKeeper, since_boot: std::time::Duration) -> Self {
        let id = |key: &crate::aead::MasterKey| format!("{:08X}", key.id());
        let times = keys.rotation_times(since_boot);
        Self {
            ids: keys.ring().keys().iter().map(id).collect(),
            current: id(keys.ring().current()),
            newest_age_seconds: times.map(|times| times.newest_age.as_secs()),
            next_rotation_seconds: times.map(|times| times.due_in.as_secs()),
        }
    }
}

/// A certificate in use.
#[derive(Debug, Serialize, Deserialize)]
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

/// Totals since the supervisor started. The first four have the names and the meaning of chrony's
/// `serverstats` (chronyc(1)).
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerStats {
    /// Valid requests.
    pub ntp_packets_received: u64,
    /// Connections to key establishment.
    pub nts_ke_connections_accepted: u64,
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
    pub(super) fn new(pages: &Pages) -> Self {
        let responder = sum(&pages.workers);
        let key_establishment = sum(&pages.key_establishment);
        let of = |totals: &BTreeMap<String, u64>, names: &[&str]| {
            names.iter().filter_map(|name| totals.get(*name)).sum()
        };
        Self {
            ntp_packets_received: of(&responder, &["answered_plain", "answered_nts", "nts_nak"]),
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
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What has changed and holds.
    pub holds: Vec<String>,
    /// Keys of the configuration that have changed and wait for a restart.
    pub restart_needed: Vec<String>,
}

/// What a rotation has done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// Identifier of the key that is current now.
    pub current: String,
}
