//! The pages of a server: made once by the supervisor, handed to every role that needs them, and
//! kept when a role ends.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

use super::key_keeper::KeyKeeper;
use super::start::RoleError;
use super::status::ServerStats;
use crate::clock::host::{HostClock, moment};
use crate::clock::record::{ClockRecord, SourceState};
use crate::ke::counters::Counters as KeCounters;
use crate::net::hardware::Translator;
use crate::networks::NetworkSet;
use crate::page::account::AccountPage;
use crate::page::busiest::BusiestPage;
use crate::page::clock::ClockPage;
use crate::page::hardware::HardwarePage;
use crate::page::key::SharedRing;
use crate::page::networks;
use crate::page::stats::{CounterSet, StatsPage, StatsWriter, WorkerCounters};

/// All pages of a server.
pub struct Pages {
    /// The master keys and their page.
    pub keys: KeyKeeper,
    /// Who is answered.
    pub access: OwnedFd,
    /// The last truth about the clock.
    pub clock: ClockPage,
    /// What else is known of it.
    pub account: AccountPage,
    /// How timestamps of interfaces are translated.
    pub hardware: HardwarePage,
    /// What each worker has counted.
    pub workers: Vec<StatsPage<WorkerCounters<'static>>>,
    /// What each process of key establishment has counted.
    pub key_establishment: Vec<StatsPage<KeCounters>>,
    /// The networks that ask each worker most; none unless they are counted.
    pub busiest: Vec<BusiestPage>,
}

impl Pages {
    /// Those of `keys` and `access`, and pages of counters for so many workers and processes, for
    /// networks only if they are to be counted.
    pub fn create(
        keys: KeyKeeper,
        access: &NetworkSet,
        workers: usize,
        key_establishment: usize,
        count_networks: bool,
    ) -> io::Result<Self> {
        let nobody = ClockRecord::unsynchronised(SourceState::Unknown, moment());
        Ok(Self {
            keys,
            access: networks::create(access)?,
            clock: ClockPage::create(&nobody)?,
            account: AccountPage::create()?,
            hardware: HardwarePage::create()?,
            workers: (0..workers).map(|_| StatsPage::create()).collect::<io::Result<_>>()?,
            key_establishment: (0..key_establishment)
                .map(|_| StatsPage::create())
                .collect::<io::Result<_>>()?,
            busiest: (0..workers)
                .filter(|_| count_networks)
                .map(|_| BusiestPage::create())
                .collect::<io::Result<_>>()?,
        })
    }

    /// What the responder is handed, as its process takes them over.
    pub fn of_responder(&self) -> io::Result<Vec<OwnedFd>> {
        let stats = self.workers.iter().map(StatsPage::file);
        let pages = [
            duplicate(self.keys.page()),
            duplicate(self.access.as_fd()),
            self.clock.readable_file(),
            read_only(self.hardware.file()),
        ];
        let busiest = self.busiest.iter().map(BusiestPage::file);
        pages.into_iter().chain(stats.chain(busiest).map(duplicate)).collect()
    }

    /// What the clock role is handed.
    pub fn of_clock(&self) -> io::Result<Vec<OwnedFd>> {
        let pages = [self.clock.file(), self.account.file(), self.hardware.file()];
        pages.into_iter().map(duplicate).collect()
    }

    /// What one process of key establishment is handed, as it takes them over.
    pub fn of_key_establishment(&self, process: usize) -> io::Result<Vec<OwnedFd>> {
        let stats = self.key_establishment.iter().skip(process).take(1).map(StatsPage::file);
        [self.keys.page(), self.access.as_fd()].into_iter().chain(stats).map(duplicate).collect()
    }

    /// What was counted, of all workers and processes.
    pub fn serverstats(&self) -> ServerStats {
        ServerStats::new(&self.workers, &self.key_establishment)
    }

    /// What the observer is handed: all counters, those of workers first, and no keys.
    pub fn of_observer(&self) -> io::Result<Vec<OwnedFd>> {
        let key_establishment = self.key_establishment.iter().map(StatsPage::file);
        self.workers.iter().map(StatsPage::file).chain(key_establishment).map(read_only).collect()
    }
}

/// The same page through a descriptor that lets nobody write it, nor map it to write.
fn read_only(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn duplicate(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    file.try_clone_to_owned()
}

/// The pages of the responder.
pub(super) struct ResponderPages {
    keys: OwnedFd,
    access: OwnedFd,
    clock: OwnedFd,
    hardware: OwnedFd,
    /// One for each worker.
    pub(super) workers: Vec<OwnedFd>,
    /// One for each worker that counts networks.
    pub(super) busiest: Vec<OwnedFd>,
}

impl ResponderPages {
    pub(super) fn take(mut pages: Vec<OwnedFd>, workers: usize) -> Result<Self, RoleError> {
        if ![4 + workers, 4 + 2 * workers].contains(&pages.len()) {
            return Err(RoleError("the pages were not handed over".to_owned()));
        }
        let busiest = pages.split_off(4 + workers);
        let workers = pages.split_off(4);
        let [keys, access, clock, hardware] = pages.try_into().expect("four are left");
        Ok(Self { keys, access, clock, hardware, workers, busiest })
    }

    /// Who is answered.
    pub(super) fn access(&self) -> Result<NetworkSet, RoleError> {
        read_access(&self.access)
    }

    /// The clock for one worker.
    pub(super) fn clock(&self) -> Result<HostClock, RoleError> {
        HostClock::open(&self.clock)
            .map_err(|error| RoleError::new("the clock was not handed over", error))
    }

    /// What translates timestamps of interfaces for one worker.
    pub(super) fn translator(&self) -> Result<Translator, RoleError> {
        Translator::open(&self.hardware)
            .map_err(|error| RoleError::new("the interfaces' clocks were not handed over", error))
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
    pub(super) hardware: HardwarePage,
}

impl ClockPages {
    pub(super) fn take(pages: Vec<OwnedFd>) -> Result<Self, RoleError> {
        let Ok([clock, account, hardware]) = <[OwnedFd; 3]>::try_from(pages) else {
            return Err(RoleError("the pages were not handed over".to_owned()));
        };
        let foreign = |error| RoleError::new("the clock's pages were not handed over", error);
        Ok(Self {
            clock: ClockPage::attach(clock).map_err(foreign)?,
            account: AccountPage::attach(account).map_err(foreign)?,
            hardware: HardwarePage::attach(hardware).map_err(foreign)?,
        })
    }
}

/// The pages of one process of key establishment.
pub(super) struct KeyEstablishmentPages {
    pub(super) ring: SharedRing,
    pub(super) access: NetworkSet,
    pub(super) stats: StatsWriter<KeCounters>,
}

impl KeyEstablishmentPages {
    pub(super) fn take(pages: Vec<OwnedFd>) -> Result<Self, RoleError> {
        let [keys, access, stats] = &pages[..] else {
            return Err(RoleError("the pages were not handed over".to_owned()));
        };
        let access = read_access(access)?;
        Ok(Self { ring: open_ring(keys)?, access, stats: attach_stats(stats)? })
    }
}

/// The pages of the observer.
pub(crate) struct ObserverPages {
    pub(crate) workers: Vec<StatsPage<WorkerCounters<'static>>>,
    pub(crate) key_establishment: Vec<StatsPage<KeCounters>>,
}

impl ObserverPages {
    pub(super) fn take(mut pages: Vec<OwnedFd>, workers: usize) -> Result<Self, RoleError> {
        if pages.len() < workers {
            return Err(RoleError("the pages were not handed over".to_owned()));
        }
        let key_establishment = pages.split_off(workers);
        Ok(Self { workers: open_stats(pages)?, key_establishment: open_stats(key_establishment)? })
    }
}

fn open_stats<S: CounterSet>(pages: Vec<OwnedFd>) -> Result<Vec<StatsPage<S>>, RoleError> {
    let pages: io::Result<_> = pages.into_iter().map(StatsPage::open).collect();
    pages.map_err(|error| RoleError::new("the counters were not handed over", error))
}

fn open_ring(keys: &OwnedFd) -> Result<SharedRing, RoleError> {
    SharedRing::open(keys)
        .map_err(|error| RoleError::new("the master keys were not handed over", error))
}

/// The networks that a role was handed.
pub(super) fn read_access(access: &OwnedFd) -> Result<NetworkSet, RoleError> {
    networks::read(access)
        .map_err(|error| RoleError::new("the access lists were not handed over", error))
}

/// Takes a page of counters over.
pub(super) fn attach_stats<S: CounterSet>(stats: &OwnedFd) -> Result<StatsWriter<S>, RoleError> {
    StatsWriter::attach(stats)
        .map_err(|error| RoleError::new("the counters were not handed over", error))
}
