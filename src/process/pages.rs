//! The pages of a server: made once by the supervisor, handed to every role that needs them, and
//! kept when a role ends.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::key_keeper::KeyKeeper;
use super::start::RoleError;
use crate::clock::host::{HostClock, moment};
use crate::clock::record::{ClockRecord, SourceState};
use crate::ke::counters::Counters as KeCounters;
use crate::page::account::AccountPage;
use crate::page::clock::ClockPage;
use crate::page::key::SharedRing;
use crate::page::stats::{StatsPage, StatsWriter, WorkerCounters};

/// All pages of a server.
pub struct Pages {
    /// The master keys and their page.
    pub keys: KeyKeeper,
    /// The last truth about the clock.
    pub clock: ClockPage,
    /// What else is known of it.
    pub account: AccountPage,
    /// What each worker has counted.
    pub workers: Vec<StatsPage<WorkerCounters<'static>>>,
    /// What each process of key establishment has counted.
    pub key_establishment: Vec<StatsPage<KeCounters>>,
}

impl Pages {
    /// Those of `keys`, and pages of counters for so many workers and processes.
    pub fn create(keys: KeyKeeper, workers: usize, key_establishment: usize) -> io::Result<Self> {
        let nobody = ClockRecord::unsynchronised(SourceState::Unknown, moment());
        Ok(Self {
            keys,
            clock: ClockPage::create(&nobody)?,
            account: AccountPage::create()?,
            workers: (0..workers).map(|_| StatsPage::create()).collect::<io::Result<_>>()?,
            key_establishment: (0..key_establishment)
                .map(|_| StatsPage::create())
                .collect::<io::Result<_>>()?,
        })
    }

    /// What the responder is handed, as its process takes them over.
    pub fn of_responder(&self) -> io::Result<Vec<OwnedFd>> {
        let stats = self.workers.iter().map(StatsPage::file);
        let pages = [duplicate(self.keys.page()), self.clock.readable_file()];
        pages.into_iter().chain(stats.map(duplicate)).collect()
    }

    /// What the clock role is handed.
    pub fn of_clock(&self) -> io::Result<Vec<OwnedFd>> {
        [self.clock.file(), self.account.file()].into_iter().map(duplicate).collect()
    }

    /// What one process of key establishment is handed, as it takes them over.
    pub fn of_key_establishment(&self, process: usize) -> io::Result<Vec<OwnedFd>> {
        let stats = self.key_establishment.iter().skip(process).take(1).map(StatsPage::file);
        [self.keys.page()].into_iter().chain(stats).map(duplicate).collect()
    }
}

fn duplicate(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    file.try_clone_to_owned()
}

/// The pages of the responder.
pub(super) struct ResponderPages {
    keys: OwnedFd,
    clock: OwnedFd,
    /// One for each worker.
    pub(super) workers: Vec<OwnedFd>,
}

impl ResponderPages {
    pub(super) fn take(mut pages: Vec<OwnedFd>, workers: usize) -> Result<Self, RoleError> {
        if pages.len() != 2 + workers {
            return Err(RoleError("the pages were not handed over".to_owned()));
        }
        let workers = pages.split_off(2);
        let [keys, clock] = pages.try_into().expect("two are left");
        Ok(Self { keys, clock, workers })
    }

    /// The clock for one worker.
    pub(super) fn clock(&self) -> Result<HostClock, RoleError> {
        HostClock::open(&self.clock)
            .map_err(|error| RoleError::new("the clock was not handed over", error))
    }

    /// The ring for one worker.
    pub(super) fn ring(&self) -> Result<SharedRing, RoleError> {
        open_ring(&self.keys)
    }
}

/// The pages of the clock role.
pub(super) struct ClockPages {
    pub(super) clock: ClockPage,
    pub(super) account: AccountPage,
}

impl ClockPages {
    pub(super) fn take(pages: Vec<OwnedFd>) -> Result<Self, RoleError> {
        let Ok([clock, account]) = <[OwnedFd; 2]>::try_from(pages) else {
            return Err(RoleError("the pages were not handed over".to_owned()));
        };
        let foreign = |error| RoleError::new("the clock's pages were not handed over", error);
        Ok(Self {
            clock: ClockPage::attach(clock).map_err(foreign)?,
            account: AccountPage::attach(account).map_err(foreign)?,
        })
    }
}

/// The pages of one process of key establishment.
pub(super) struct KeyEstablishmentPages {
    pub(super) ring: SharedRing,
    pub(super) stats: StatsWriter<KeCounters>,
}

impl KeyEstablishmentPages {
    pub(super) fn take(pages: Vec<OwnedFd>) -> Result<Self, RoleError> {
        let [keys, stats] = &pages[..] else {
            return Err(RoleError("the pages were not handed over".to_owned()));
        };
        Ok(Self { ring: open_ring(keys)?, stats: attach_stats(stats)? })
    }
}

fn open_ring(keys: &OwnedFd) -> Result<SharedRing, RoleError> {
    SharedRing::open(keys)
        .map_err(|error| RoleError::new("the master keys were not handed over", error))
}

/// Takes a page of counters over.
pub(super) fn attach_stats<S: crate::page::stats::CounterSet>(
    stats: &OwnedFd,
) -> Result<StatsWriter<S>, RoleError> {
    StatsWriter::attach(stats)
        .map_err(|error| RoleError::new("the counters were not handed over", error))
}
