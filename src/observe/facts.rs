//! What is known of the server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::health::judge;
use crate::page::stats::{StatsPage, WorkerCounters};
use crate::process::pages::ObserverPages;
use crate::process::status::{ServerStats, Status, WorkerStatus};

/// What is known: the pages of counters, and the last word of the supervisor.
pub struct Facts {
    pub(super) pages: ObserverPages,
    told: Mutex<Option<Told>>,
}

struct Told {
    status: Status,
    at: Instant,
}

/// How the server stands.
pub struct Standing {
    /// As `timeball status --json` tells it, with what was counted until now.
    pub status: Status,
    /// How old the supervisor's word is; counters are never old.
    pub age: Duration,
}

impl Facts {
    pub(crate) fn new(pages: ObserverPages) -> Self {
        Self { pages, told: Mutex::default() }
    }

    /// Takes what the supervisor says.
    pub(crate) fn adopt(&self, status: Status) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Told { status, at: Instant::now() });
    }

    /// How the server stands; `None` before the supervisor's first word.
    pub fn standing(&self) -> Option<Standing> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { status, at } = told.as_ref()?;
        let mut standing = Standing { status: status.clone(), age: at.elapsed() };
        let ObserverPages { workers, key_establishment } = &self.pages;
        let status = &mut standing.status;
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        status.taken_unix_milliseconds = now as i64;
        status.workers = WorkerStatus::all(&status.worker_cpus, workers);
        status.serverstats = ServerStats::new(workers, key_establishment);
        status.health = judge(status, standing.age);
        Some(standing)
    }

    /// The pages of the workers.
    pub(super) fn workers(&self) -> &[StatsPage<WorkerCounters<'static>>] {
        &self.pages.workers
    }
}
