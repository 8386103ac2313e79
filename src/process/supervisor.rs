//! The supervisor: holds what the roles need, starts them, and starts them again.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::pages::Pages;
use super::role::Role;
use super::start::{self, KeyEstablishmentStart, ResponderStart, RoleError};
use crate::limits::{
    NTP_PORT, ROLE_RESTART_DELAY_FIRST, ROLE_RESTART_DELAY_MAX, ROLE_STABLE_AFTER, ROLE_STOP_WAIT,
};
use crate::sys::boottime::since_boot;
use crate::sys::socket::{BufferCap, UdpOptions};
use crate::sys::{socket, steering};

/// Why a server cannot start: each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken.
    #[error(
        "{protocol} {address} is in use by another program; stop that one (`ss -lnp` names it) \
         or choose another address"
    )]
    AddressInUse {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "{protocol} {address} needs a privilege; start as root, or allow it with `setcap \
         cap_net_bind_service=ep` on the program"
    )]
    AddressForbidden {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// No such address, or another refusal.
    #[error(
        "cannot listen on {protocol} {address}: {source}; check that an interface of this host \
         has the address"
    )]
    Listen {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The interface that the sockets are to be bound to.
    #[error(
        "cannot bind to the interface \"{name}\" of ntp.bind_device: {source}; `ip link` lists the \
         interfaces of this host"
    )]
    Device {
        /// The interface.
        name: String,
        /// What the system said.
        source: io::Error,
    },
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

/// The open sockets of a server.
#[derive(Debug)]
pub struct Sockets {
    /// Of each address those of all workers.
    ntp: Vec<Vec<UdpSocket>>,
    ke: Vec<TcpListener>,
}

impl Sockets {
    /// Opens all sockets or none: of each NTP address one for each of `workers`.
    pub fn open(
        ntp: &[SocketAddr],
        options: &UdpOptions,
        workers: usize,
        ke: &[SocketAddr],
    ) -> Result<Self, ServeError> {
        if let Some(name) = &options.bind_device {
            socket::check_device(name)
                .map_err(|source| ServeError::Device { name: name.clone(), source })?;
        }
        Ok(Self {
            ntp: open_all("UDP", ntp, |address| socket::open_udp_group(address, workers, options))?,
            ke: open_all("TCP", ke, socket::open_tcp_listener)?,
        })
    }

    /// Whether the kernel polls the interfaces for the NTP sockets.
    pub fn are_polled(&self) -> bool {
        socket::is_polled(&self.ntp[0][0])
    }

    /// Which buffers the kernel made smaller than asked for: the same ones in all sockets.
    pub fn buffer_caps(&self, options: &UdpOptions) -> io::Result<Vec<BufferCap>> {
        socket::buffer_caps(&self.ntp[0][0], options)
    }

    /// Makes each client meet one worker, whatever its port. Where the kernel refuses, clients
    /// are scattered: they are answered all the same.
    pub fn steer(&self, multiplier: u32) -> io::Result<()> {
        for group in self.ntp.iter().filter(|group| group.len() > 1) {
            steering::steer_by_source_address(&group[0], group.len(), multiplier)?;
        }
        Ok(())
    }

    /// Duplicates for key establishment.
    fn ke_clones(&self) -> io::Result<Vec<OwnedFd>> {
        self.ke.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }

    /// Duplicates for the responder, worker by worker: what waits in a socket outlives the
    /// process that served it.
    fn ntp_clones(&self) -> io::Result<Vec<OwnedFd>> {
        let workers = self.ntp.first().map_or(0, Vec::len);
        let in_order = (0..workers).flat_map(|worker| self.ntp.iter().map(move |g| &g[worker]));
        in_order.map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }
}

fn open_all<S>(
    protocol: &'static str,
    addresses: &[SocketAddr],
    open: impl Fn(SocketAddr) -> io::Result<S>,
) -> Result<Vec<S>, ServeError> {
    let open = |&address: &SocketAddr| {
        open(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::AddressInUse { protocol, address },
            io::ErrorKind::PermissionDenied => ServeError::AddressForbidden { protocol, address },
            _ => ServeError::Listen { protocol, address, source },
        })
    };
    addresses.iter().map(open).collect()
}

/// A server that is ready to start.
pub struct Server {
    /// The open sockets.
    pub sockets: Sockets,
    /// Master keys and counters, which outlive the roles.
    pub pages: Pages,
    /// What the responder is told.
    pub responder: ResponderStart,
    /// What key establishment is told, if there is any.
    pub key_establishment: Option<KeyEstablishmentStart>,
}

impl Server {
    /// Starts the roles, calls `on_ready` once all of them serve, and keeps them running until
    /// SIGTERM or SIGINT. If one cannot start, none runs.
    pub fn run(mut self, on_ready: impl FnOnce()) -> Result<(), ServeError> {
        let (events, events_writer) = io::pipe()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        for signal in [SIGTERM, SIGINT, SIGCHLD] {
            signal_hook::low_level::pipe::register(signal, events_writer.try_clone()?)?;
        }
        let mut events = File::from(OwnedFd::from(events));
        rustix::io::ioctl_fionbio(&events, true).map_err(io::Error::from)?;

        let mut roles = vec![Supervised::new(Role::Responder)];
        if self.key_establishment.is_some() {
            roles.push(Supervised::new(Role::KeyEstablishment));
        }
        for role in &mut roles {
            // Dropping `roles` ends those that run already.
            role.start(&self).map_err(|source| ServeError::Role { role: role.role, source })?;
        }
        on_ready();
        while !stop.load(Ordering::Relaxed) {
            let keys_wait = self.tend_keys();
            let role_waits = roles.iter_mut().filter_map(|role| role.restart_if_due(&self));
            let wait = role_waits.chain([keys_wait]).min();
            wait_for_event(&mut events, wait);
        }
        for role in &mut roles {
            role.ask_to_stop();
        }
        Ok(())
    }

    /// Rotates or reads the master keys if it is time. Returns how long nothing is due.
    fn tend_keys(&mut self) -> Duration {
        match self.pages.keys.tick(since_boot()) {
            Ok(None) => {}
            Ok(Some(event)) => eprintln!("timeball: {event}"),
            Err(error) => eprintln!("timeball: {error}; the keys in memory stay in use"),
        }
        self.pages.keys.next_due(since_boot())
    }

    fn spawn(&self, role: Role) -> io::Result<(Child, File)> {
        match (role, &self.key_establishment) {
            (Role::KeyEstablishment, Some(start)) => {
                let pages = self.pages.of_key_establishment(0)?;
                start::spawn(role, start, pages, self.sockets.ke_clones()?)
            }
            _ => {
                let pages = self.pages.of_responder()?;
                start::spawn(role, &self.responder, pages, self.sockets.ntp_clones()?)
            }
        }
    }
}

/// Waits for a signal, at most as long as `wait`.
fn wait_for_event(events: &mut File, wait: Option<Duration>) {
    let timeout = wait.map(|wait| Timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: wait.subsec_nanos().into(),
    });
    // Whatever ends the wait, the caller looks at the roles and at `stop` again.
    let _ = poll(&mut [PollFd::new(&events.as_fd(), PollFlags::IN)], timeout.as_ref());
    let mut drain = [0; 64];
    while matches!(events.read(&mut drain), Ok(read) if read == drain.len()) {}
}

/// A role and its process. Dropping it ends the process.
struct Supervised {
    role: Role,
    child: Option<Child>,
    started: Instant,
    /// How long to wait before the next start.
    delay: Duration,
}

impl Supervised {
    fn new(role: Role) -> Self {
        Self { role, child: None, started: Instant::now(), delay: ROLE_RESTART_DELAY_FIRST }
    }

    fn start(&mut self, server: &Server) -> Result<(), RoleError> {
        self.started = Instant::now();
        let (child, report) = server
            .spawn(self.role)
            .map_err(|error| RoleError::new("its process cannot be made", error))?;
        self.child = Some(child);
        start::read_report(report)
    }

    /// Starts the role again if its process has ended and the delay is over. Returns how long the
    /// supervisor may wait for this role's sake; `None` is for ever.
    fn restart_if_due(&mut self, server: &Server) -> Option<Duration> {
        if let Some(child) = &mut self.child {
            let status = match child.try_wait() {
                Ok(None) => return None,
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            self.child = None;
            if self.started.elapsed() >= ROLE_STABLE_AFTER {
                self.delay = ROLE_RESTART_DELAY_FIRST;
            }
            eprintln!("timeball: {} ended ({status}) and is started again", self.role.name());
        }
        let due = self.started + self.delay;
        if let Some(wait) = due.checked_duration_since(Instant::now()).filter(|w| !w.is_zero()) {
            return Some(wait);
        }
        self.delay = (self.delay * 2).min(ROLE_RESTART_DELAY_MAX);
        match self.start(server) {
            Ok(()) => None,
            Err(error) => {
                eprintln!("timeball: {} cannot start: {error}", self.role.name());
                Some(self.delay)
            }
        }
    }

    fn ask_to_stop(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            // It may have ended by itself; nobody else can have its number before it is waited for.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.ask_to_stop();
        let Some(child) = &mut self.child else { return };
        let deadline = Instant::now() + ROLE_STOP_WAIT;
        while let Ok(None) = child.try_wait() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The port that key establishment names: that of the first NTP address.
pub fn ntp_port(ntp: &[SocketAddr]) -> u16 {
    ntp.first().map_or(NTP_PORT, SocketAddr::port)
}
