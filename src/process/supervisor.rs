//! The supervisor: holds what the roles need, starts them, starts them again, and hands them what
//! a reload brings.
//!
//! One loop: wait, signals, reports, deaths, what is due. Nothing in it waits for a role, so one
//! that starts slowly or hangs keeps nobody from being supervised.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use time::OffsetDateTime;

use super::busiest;
use super::certificates::{Certificates, Change};
use super::chronyd_socket::ChronydSocket;
use super::clock_status::{self, ClockStatus};
use super::control::{Answer, ClientId, Control, Request, to_json};
use super::hardware::HardwareClocks;
use super::leap_file::LeapFile;
use super::log_files::LogFiles;
use super::pages::Pages;
use super::reload::{ReloadError, Reread};
use super::role::Role;
use super::sandbox::Confinement;
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::sockets::Sockets;
use super::start::{
    KeyEstablishmentStart, KeyEstablishmentTerms, Order, ResponderStart, RoleError,
};
use super::status::{CertificateStatus, KeysStatus, Reloaded, Rotated, Status, WorkerStatus};
use super::supervised::{Event, Supervised};
use crate::config::checked::{KeSettings, Settings, ntp_port};
use crate::config::file;
use crate::limits::{CERTIFICATE_LOOK_INTERVAL, OBSERVER_INFORM_INTERVAL, ROLE_STOP_WAIT};
use crate::networks::NetworkSet;
use crate::observe::health::{Health, judge};
use crate::page::networks;
use crate::sys::boottime::since_boot;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A role could not start.
    #[error("{} cannot start: {source}", role.name())]
    Role {
        /// Which one.
        role: Role,
        /// Its own sentence.
        source: RoleError,
    },
    /// The supervisor itself was refused something.
    #[error("cannot supervise: {0}")]
    Supervise(#[from] io::Error),
}

/// A server that is ready to start.
pub struct Server {
    /// The settings in force.
    pub settings: Settings,
    /// The file that they came from, to be read again; none without a configuration.
    pub configuration: Option<PathBuf>,
    /// The open sockets.
    pub sockets: Sockets,
    /// Master keys and counters, which outlive the roles.
    pub pages: Pages,
    /// Who is answered.
    pub access: NetworkSet,
    /// Where commands come from.
    pub control: Control,
    /// The way to the Unix socket of a followed chronyd.
    pub chronyd: Option<ChronydSocket>,
    /// Interfaces that stamp, with their clocks.
    pub hardware: HardwareClocks,
    /// The leap-seconds file; none without one.
    pub leap_file: Option<LeapFile>,
    /// The files of the logs; none if nothing is logged.
    pub log_files: Option<LogFiles>,
    /// How the roles are confined.
    pub confinement: Confinement,
    /// What the responder is told.
    pub responder: ResponderStart,
    /// The certificates in use; none without key establishment.
    pub certificates: Option<Certificates>,
    /// Processes of key establishment.
    pub ke_processes: usize,
}

impl Server {
    /// Starts the roles, calls `on_ready` once all of them serve, and keeps them running until
    /// SIGTERM or SIGINT. If one cannot start, none runs.
    pub fn run(self, on_ready: impl FnOnce()) -> Result<(), ServeError> {
        Supervisor::new(self)?.run(on_ready)
    }

    /// Each process by its role and its place among those of the role.
    fn roles(&self) -> impl Iterator<Item = (Role, usize)> {
        let processes = if self.certificates.is_some() { self.ke_processes } else { 0 };
        let ke = (0..processes).map(|index| (Role::KeyEstablishment, index));
        let observer = self.settings.observe_listen.map(|_| (Role::Observer, 0));
        [(Role::Clock, 0), (Role::Responder, 0)].into_iter().chain(ke).chain(observer)
    }

    pub(super) fn key_establishment(&self) -> Option<KeyEstablishmentStart> {
        let KeSettings { connections_max, .. } = self.settings.ke.as_ref()?;
        Some(KeyEstablishmentStart {
            connections_max: connections_max.div_ceil(self.ke_processes),
            terms: self.terms()?,
        })
    }

    fn terms(&self) -> Option<KeyEstablishmentTerms> {
        let ke = self.settings.ke.as_ref()?;
        Some(KeyEstablishmentTerms {
            certificates: self.certificates.as_ref()?.texts(),
            ntp_server: ke.ntp_server.as_ref().map(ToString::to_string),
            ntp_port: ntp_port(&self.settings.ntp_listen),
            aeads: ke.aeads.iter().map(|algorithm| algorithm.id()).collect(),
            compliant_128gcm: ke.compliant_128gcm,
            timeout_seconds: ke.timeout.as_secs_f64(),
            prefix: ke.prefix.share(self.ke_processes),
        })
    }

    /// Reads the configuration and the master keys again, and lets hold what can. Returns what
    /// has changed.
    fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let new = match &self.configuration {
            Some(path) => file::read(path)?,
            None => self.settings.clone(),
        };
        let Reread { settings, access, certificates, holds, restart_needed } =
            Reread::new(&self.settings, &new)?;
        let access_page = networks::create(&access).map_err(ReloadError::Memory)?;
        let key_event = self.pages.keys.reload(since_boot())?;
        let mut holds: Vec<String> = holds.into_iter().map(str::to_owned).collect();
        if let (Some(new), Some(old)) = (&certificates, &self.certificates) {
            let files = new.new_since(old);
            holds.extend(files.map(|file| format!("certificate {} is new", file.display())));
        }
        if access != self.access {
            holds.push("the access lists have changed".to_owned());
        }
        (self.access, self.pages.access) = (access, access_page);
        self.responder.rates.clone_from(&settings.rates);
        holds.extend(key_event.map(|event| event.to_string()));
        let is_list_new = self.leap_file.as_mut().is_some_and(LeapFile::reload);
        holds.extend(is_list_new.then(|| "the content of clock.leap_file".to_owned()));
        self.pages.keys.set_rotation(settings.rotation);
        self.settings = settings;
        self.certificates = certificates.or(self.certificates.take());
        let restart_needed = restart_needed.into_iter().map(str::to_owned).collect();
        Ok(Reloaded { holds, restart_needed })
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    /// Configurations that hold since they were read again.
    reloads: u64,
    /// Configurations that were refused.
    reloads_refused: u64,
    /// Changed certificates that were loaded without being asked for.
    certificates_loaded: u64,
    /// Changed certificates that could not be used: the old ones stayed.
    certificates_refused: u64,
    /// Processes that ended by themselves.
    roles_ended: u64,
}

struct Supervisor {
    server: Server,
    processes: Vec<Supervised>,
    signals: Signals,
    manager: ServiceManager,
    /// When certificate files and the leap-seconds file are looked at next.
    look_due: Instant,
    /// When the observer is told next how the server stands.
    inform_due: Instant,
    /// systemd, and these clients of the control socket with their answers, wait to hear that a
    /// reload is done.
    reloading: Option<Vec<(ClientId, Answer)>>,
    started: Instant,
    counters: Counters,
}

impl Supervisor {
    fn new(server: Server) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            processes: server.roles().map(|(role, i)| Supervised::new(role, i, now)).collect(),
            signals: Signals::catch(server.configuration.is_some())?,
            manager: ServiceManager::new(now),
            look_due: now + CERTIFICATE_LOOK_INTERVAL,
            inform_due: now,
            reloading: None,
            started: now,
            counters: Counters::default(),
            server,
        })
    }

    fn run(mut self, on_ready: impl FnOnce()) -> Result<(), ServeError> {
        while !self.signals.is_stop() && !self.processes.iter().all(Supervised::is_ready) {
            for (role, event) in self.turn() {
                if let Event::Ended(reason) = event {
                    return Err(ServeError::Role { role, source: RoleError(reason) });
                }
            }
        }
        if !self.signals.is_stop() {
            if let Some(certificates) = &self.server.certificates {
                certificates.warn();
            }
            on_ready();
            self.manager.ready(&self.status());
            self.inform_due = Instant::now();
        }
        while !self.signals.is_stop() {
            for (role, event) in self.turn() {
                self.tell(role, &event);
            }
            if self.signals.take_reload() {
                // Whoever sent the signal reads the log.
                let _ = self.reload();
            }
            self.finish_reload();
        }
        self.stop();
        Ok(())
    }

    /// Waits until something happens or is due, looks after the processes and does what is asked.
    /// Returns what became of them.
    fn turn(&mut self) -> Vec<(Role, Event)> {
        let now = Instant::now();
        let mut events = Vec::new();
        for process in &mut self.processes {
            let server = &self.server;
            let (role, index) = (process.role, process.index);
            let event = process.tick(now, || server.spawn(role, index));
            events.extend(event.map(|event| (role, event)));
        }
        self.tick(now);
        if events.is_empty() {
            self.wait(now);
        }
        self.signals.drain();
        let now = Instant::now();
        for process in &mut self.processes {
            while let Some(event) = process.hear() {
                events.extend(event.map(|event| (process.role, event)));
            }
            events.extend(process.reap(now).map(|event| (process.role, event)));
        }
        self.obey();
        events
    }

    /// What is done by the clock beside the processes; [`Supervisor::due`] says when.
    fn tick(&mut self, now: Instant) {
        if now >= self.look_due {
            self.look_due = now + CERTIFICATE_LOOK_INTERVAL;
            self.look_at_certificates();
            if self.server.leap_file.as_mut().is_some_and(LeapFile::look) {
                self.hand_out_leap_seconds();
            }
        }
        self.tend_keys();
        if now >= self.inform_due {
            self.inform_due = now + OBSERVER_INFORM_INTERVAL;
            self.inform(now);
        }
        if self.manager.is_due(now) {
            // Every process is asked, also behind one that hangs. Not the observer: it is ended
            // when it hangs, and the others need not be for its sake.
            let asked = self.processes.iter_mut().filter(|process| process.role != Role::Observer);
            let silent = asked.filter_map(|process| (!process.ping()).then_some(process.role));
            match silent.last() {
                None => self.manager.alive(),
                Some(role) => self.manager.status(&format!("{} does not react", role.name())),
            }
        }
    }

    /// When something is to be done by the clock.
    fn due(&self, now: Instant) -> Option<Instant> {
        let keys = now + self.server.pages.keys.next_due(since_boot());
        let processes = self.processes.iter().filter_map(Supervised::due);
        let others = [self.manager.due(), self.server.control.due()].into_iter().flatten();
        let observers = self.processes.iter().filter(|process| process.role == Role::Observer);
        let inform = observers.map(|_| self.inform_due);
        processes.chain(others).chain(inform).chain([self.look_due, keys]).min()
    }

    /// Waits for a signal or a report, at most until something is due.
    fn wait(&self, now: Instant) {
        let timeout = self.due(now).map(|due| timespec(due.saturating_duration_since(now)));
        let channels = self.processes.iter().filter_map(Supervised::channel);
        let mut interests: Vec<PollFd<'_>> = channels
            .map(|channel| PollFd::new(channel, PollFlags::IN))
            .chain([PollFd::new(&self.signals, PollFlags::IN)])
            .chain(self.server.control.interests())
            .collect();
        // Whatever ends the wait, the caller looks at everything again.
        let _ = poll(&mut interests, timeout.as_ref());
    }

    /// Tells the observer how the server stands.
    fn inform(&mut self, now: Instant) {
        let observer = self.processes.iter().position(|p| p.role == Role::Observer);
        let Some(place) = observer else { return };
        let status = Box::new(self.full_status(now));
        self.processes[place].inform(now, || Order::Inform(status));
    }

    fn tell(&mut self, role: Role, event: &Event) {
        self.inform_due = Instant::now();
        let name = role.name();
        match event {
            Event::Ready => {}
            Event::ChronydLost => return self.reach_chronyd(),
            Event::Refused(reason) => {
                self.counters.certificates_refused += 1;
                let refusal = format!("{name} goes on as before: {reason}; restart timeball");
                eprintln!("timeball: {refusal}");
                self.reloading.iter_mut().flatten().for_each(|(_, it)| *it = Err(refusal.clone()));
            }
            Event::Ended(reason) => {
                self.counters.roles_ended += 1;
                eprintln!("timeball: {name} ended ({reason}) and is started again");
            }
        }
        self.manager.status(&self.status());
    }

    /// Opens a new socket to chronyd for the clock role.
    fn reach_chronyd(&self) {
        let (socket, why) = ChronydSocket::try_open(self.server.chronyd.as_ref());
        self.tell_clock(&Order::AskChronyd(why), socket.as_ref().map(AsFd::as_fd));
    }

    /// Rotates or reads the master keys if it is time.
    fn tend_keys(&mut self) {
        match self.server.pages.keys.tick(since_boot()) {
            Ok(None) => {}
            Ok(Some(event)) => eprintln!("timeball: {event}"),
            Err(error) => eprintln!("timeball: {error}; the keys in memory stay in use"),
        }
    }

    fn look_at_certificates(&mut self) {
        let Some(certificates) = &mut self.server.certificates else { return };
        let mut is_changed = false;
        for change in certificates.look() {
            match change {
                Change::Loaded(file) => {
                    is_changed = true;
                    self.counters.certificates_loaded += 1;
                    eprintln!("timeball: certificate {} is new and loaded", file.display());
                }
                Change::Kept(error) => {
                    self.counters.certificates_refused += 1;
                    eprintln!("timeball: the old certificate stays in use: {error}");
                    self.manager.status(&self.status());
                }
            }
        }
        if is_changed {
            self.hand_out_terms();
            self.manager.status(&self.status());
        }
    }

    /// Starts a reload; [`Supervisor::finish_reload`] ends it.
    fn reload(&mut self) -> Answer {
        self.manager.reloading();
        // Whatever becomes of the configuration: a program may have moved the files.
        for (kind, file) in self.server.log_files.iter().flat_map(LogFiles::open_all) {
            self.tell_clock(&Order::WriteLog(kind), Some(file.as_fd()));
        }
        self.reloading.get_or_insert_default();
        match self.server.reload() {
            Ok(reloaded) => {
                self.counters.reloads += 1;
                for change in &reloaded.holds {
                    eprintln!("timeball: reloaded: {change}");
                }
                for key in &reloaded.restart_needed {
                    eprintln!("timeball: {key} changed: needs a restart");
                }
                if let Some(certificates) = &self.server.certificates {
                    certificates.warn();
                }
                self.hand_out_terms();
                self.hand_out_leap_seconds();
                self.hand_out_rates();
                eprintln!("timeball: the configuration was read again and holds");
                to_json(&reloaded)
            }
            Err(error) => {
                self.counters.reloads_refused += 1;
                let refusal = format!("reload refused, nothing has changed: {error}");
                eprintln!("timeball: {refusal}");
                Err(refusal)
            }
        }
    }

    /// Gives the clock role what the leap-seconds file holds.
    fn hand_out_leap_seconds(&self) {
        let Some(file) = &self.server.leap_file else { return };
        file.warn();
        self.tell_clock(&Order::KnowLeapSeconds(Box::new(file.news().clone())), None);
    }

    fn tell_clock(&self, order: &Order, descriptor: Option<BorrowedFd<'_>>) {
        let clock = self.processes.iter().filter(|process| process.role == Role::Clock);
        clock.for_each(|process| process.hand(order, descriptor));
    }

    fn hand_out_terms(&mut self) {
        let Some(terms) = self.server.terms() else { return };
        let order = Order::Adopt(Box::new(terms));
        let processes = self.processes.iter_mut();
        processes.filter(|process| process.role == Role::KeyEstablishment).for_each(|process| {
            process.adopt(&order, self.server.pages.access.as_fd());
        });
    }

    fn hand_out_rates(&mut self) {
        let order = Order::AdoptRates(Box::new(self.server.responder.rates.clone()));
        let responder = self.processes.iter_mut().filter(|p| p.role == Role::Responder);
        responder.for_each(|process| process.adopt(&order, self.server.pages.access.as_fd()));
    }

    /// Says that a reload is done once every process has answered.
    fn finish_reload(&mut self) {
        if !self.processes.iter().all(Supervised::is_settled) {
            return;
        }
        if let Some(waiting) = self.reloading.take() {
            self.manager.ready(&self.status());
            let now = Instant::now();
            for (client, answer) in waiting {
                self.server.control.answer(client, &answer, now);
            }
        }
    }

    /// Does what the control socket's clients ask for.
    fn obey(&mut self) {
        let now = Instant::now();
        for (client, request) in self.server.control.requests(now) {
            let answer = match request {
                Request::Status => to_json(&self.full_status(now)),
                Request::Serverstats => to_json(&self.server.pages.serverstats()),
                Request::Tracking | Request::Sources | Request::NtpData => {
                    clock_status::answer(request, &self.server.settings.clock, &self.server.pages)
                }
                Request::Clients => busiest::answer(&self.server.pages.busiest, since_boot()),
                Request::RotateKeys => self.rotate_keys(),
                Request::Reload => {
                    let answer = self.reload();
                    self.reloading.get_or_insert_default().push((client, answer));
                    continue;
                }
            };
            self.server.control.answer(client, &answer, now);
        }
    }

    fn rotate_keys(&mut self) -> Answer {
        let keys = &mut self.server.pages.keys;
        match keys.rotate(since_boot()) {
            Ok(event) => {
                eprintln!("timeball: {event}");
                to_json(&Rotated { current: format!("{:08X}", keys.ring().current().id()) })
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn full_status(&self, now: Instant) -> Status {
        let Server { settings, configuration, pages, responder, certificates, .. } = &self.server;
        let now_utc = OffsetDateTime::now_utc();
        let mut status = Status {
            health: Health::default(),
            taken_unix_milliseconds: (now_utc.unix_timestamp_nanos() / 1_000_000) as i64,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            configuration: configuration.clone(),
            reloads: self.counters.reloads,
            reloads_refused: self.counters.reloads_refused,
            processes: self.processes.iter().map(|process| process.status(now)).collect(),
            ntp_listen: settings.ntp_listen.clone(),
            worker_cpus: responder.cpus.clone(),
            ke_listen: settings.ke.as_ref().map(|ke| ke.listen.clone()).unwrap_or_default(),
            clock: ClockStatus::new(&settings.clock, pages),
            keys: KeysStatus::new(&pages.keys, since_boot()),
            certificates: certificates
                .as_ref()
                .map(|certificates| CertificateStatus::all(certificates, now_utc))
                .unwrap_or_default(),
            workers: WorkerStatus::all(&responder.cpus, &pages.workers),
            serverstats: pages.serverstats(),
        };
        status.health = judge(&status, Duration::ZERO);
        status
    }

    fn status(&self) -> String {
        let Counters {
            reloads,
            reloads_refused,
            certificates_loaded,
            certificates_refused,
            roles_ended,
        } = self.counters;
        let running = self.processes.iter().filter(|process| process.is_ready()).count();
        format!(
            "{running} of {} processes serve, {roles_ended} ended; reloads: {reloads}, refused \
             {reloads_refused}; certificates loaded {certificates_loaded}, refused \
             {certificates_refused}",
            self.processes.len()
        )
    }

    /// Lets the processes finish what they have begun, within a limit.
    fn stop(mut self) {
        self.manager.stopping();
        self.processes.iter_mut().for_each(Supervised::ask_to_stop);
        self.server.sockets.close_listeners();
        let deadline = Instant::now() + ROLE_STOP_WAIT;
        loop {
            let now = Instant::now();
            for process in &mut self.processes {
                process.reap(now);
            }
            if now >= deadline || !self.processes.iter().any(Supervised::is_running) {
                // Dropping the others kills them.
                return;
            }
            let timeout = timespec(deadline - now);
            let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&timeout));
            self.signals.drain();
        }
    }
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}
