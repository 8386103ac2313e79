//! The sockets of a server: opened here or by systemd, held by the supervisor as long as it lives,
//! so that what waits in them outlives the process that served it.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use crate::limits::ADDRESS_WAIT;
use crate::sys::socket::{self, BufferCap, Inspected, UdpOptions};
use crate::sys::steering::{self, Queues};

/// Why there are no sockets: each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
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
    /// systemd opened something that cannot be served.
    #[error("the socket \"{name}\" from systemd cannot be used: {reason}")]
    Unfit {
        /// Its name (`FileDescriptorName=`).
        name: String,
        /// Why, and what would be right.
        reason: String,
    },
    /// The variables of socket activation are wrong.
    #[error("systemd's sockets cannot be taken over: {0}; check the socket unit")]
    Activation(io::Error),
}

/// A socket that systemd opened, with its name.
pub type Activated = (String, OwnedFd);

/// The open sockets of a server.
#[derive(Debug)]
pub struct Sockets {
    /// Of each address.
    ntp: Vec<Group>,
    ke: Vec<TcpListener>,
    observe: Option<TcpListener>,
}

/// The sockets of one address, each list in the order of the workers.
#[derive(Debug)]
struct Group {
    /// For NTS requests; none if those wait with all else.
    nts: Vec<UdpSocket>,
    /// For all else.
    rest: Vec<UdpSocket>,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    /// UDP, at least one.
    pub ntp: &'a [SocketAddr],
    /// TCP, of key establishment.
    pub ke: &'a [SocketAddr],
    /// TCP, of the observer.
    pub observe: Option<SocketAddr>,
}

impl Sockets {
    /// Opens all sockets or none: of each NTP address two for each of `workers`. Those that
    /// systemd opened are used where they have an address of the configuration.
    pub fn open(
        addresses: Addresses<'_>,
        options: &UdpOptions,
        workers: usize,
        activated: Vec<Activated>,
    ) -> Result<Self, SocketError> {
        if let Some(name) = &options.bind_device {
            socket::check_device(name)
                .map_err(|source| SocketError::Device { name: name.clone(), source })?;
        }
        let mut given = Given::sort(activated, options)?;
        let open_group = |&address: &SocketAddr| match given.take_udp(address) {
            group if group.is_empty() => {
                patiently(|| socket::open_udp_group(address, 2 * workers, options))
                    .map(|sockets| Group::of(sockets, workers))
                    .map_err(|source| refusal("UDP", address, source))
            }
            group => fill_group(group, address, workers, options),
        };
        let Addresses { ntp, ke, observe } = addresses;
        let ntp = ntp.iter().map(open_group).collect::<Result<_, _>>()?;
        let mut open_listener = |address: SocketAddr| match given.take_tcp(address) {
            Some(listener) => Ok(listener),
            None => patiently(|| socket::open_tcp_listener(address))
                .map_err(|source| refusal("TCP", address, source)),
        };
        let ke = ke.iter().copied().map(&mut open_listener).collect::<Result<_, _>>()?;
        let observe = observe.map(open_listener).transpose()?;
        given.refuse_rest()?;
        Ok(Self { ntp, ke, observe })
    }

    /// Whether the kernel polls the interfaces for the NTP sockets.
    pub fn are_polled(&self) -> bool {
        socket::is_polled(&self.ntp[0].rest[0])
    }

    /// Which buffers the kernel made smaller than asked for: the same ones in all sockets.
    pub fn buffer_caps(&self, options: &UdpOptions) -> io::Result<Vec<BufferCap>> {
        socket::buffer_caps(&self.ntp[0].rest[0], options)
    }

    /// Makes each client meet one worker, whatever its port, and NTS requests wait apart. Where the
    /// kernel refuses, datagrams are scattered: they are answered all the same.
    pub fn steer(&self, multiplier: u32) -> io::Result<()> {
        for Group { nts, rest } in &self.ntp {
            let queues = if nts.is_empty() { Queues::Shared } else { Queues::Apart };
            if rest.len() > 1 || queues == Queues::Apart {
                steering::steer(&rest[0], rest.len(), queues, multiplier)?;
            }
        }
        Ok(())
    }

    /// How many of each worker's sockets are for NTS requests.
    pub fn nts_sockets(&self) -> usize {
        self.ntp.iter().filter(|group| !group.nts.is_empty()).count()
    }

    /// Duplicates of the listeners, for one process of key establishment.
    pub(super) fn ke_clones(&self) -> io::Result<Vec<OwnedFd>> {
        self.ke.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }

    /// A duplicate of the observer's listener, if there is one.
    pub(super) fn observe_clone(&self) -> io::Result<Option<OwnedFd>> {
        self.observe.as_ref().map(|socket| socket.as_fd().try_clone_to_owned()).transpose()
    }

    /// Duplicates for the responder, worker by worker, of each first those for NTS requests.
    pub(super) fn ntp_clones(&self) -> io::Result<Vec<OwnedFd>> {
        let workers = self.ntp.first().map_or(0, |group| group.rest.len());
        let of_worker = |worker: usize| {
            let nts = self.ntp.iter().filter_map(move |group| group.nts.get(worker));
            nts.chain(self.ntp.iter().map(move |group| &group.rest[worker]))
        };
        (0..workers).flat_map(of_worker).map(|socket| socket.as_fd().try_clone_to_owned()).collect()
    }

    /// Lets go of the listeners: clients are refused, and go elsewhere, as soon as the last process
    /// that has them has let go too.
    pub(super) fn close_listeners(&mut self) {
        self.ke.clear();
        self.observe = None;
    }
}

/// Tries again for a while when an address is in use: the processes of a supervisor that was killed
/// may still be draining, and the kernel lets go of a ring's sockets some time after its process.
fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + ADDRESS_WAIT;
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(ADDRESS_WAIT / 50);
            }
            result => return result,
        }
    }
}

fn refusal(protocol: &'static str, address: SocketAddr, source: io::Error) -> SocketError {
    match source.kind() {
        io::ErrorKind::AddrInUse => SocketError::AddressInUse { protocol, address },
        io::ErrorKind::PermissionDenied => SocketError::AddressForbidden { protocol, address },
        _ => SocketError::Listen { protocol, address, source },
    }
}

impl Group {
    /// Of sockets in the order in which they were bound: one or two for each worker.
    fn of(mut sockets: Vec<UdpSocket>, workers: usize) -> Self {
        let nts = sockets.split_off(workers);
        Self { nts, rest: sockets }
    }
}

/// Two sockets of each worker: those that systemd opened, and the others beside them. One for each
/// worker is enough where none can be opened beside it.
fn fill_group(
    group: Vec<(String, UdpSocket)>,
    address: SocketAddr,
    workers: usize,
    options: &UdpOptions,
) -> Result<Group, SocketError> {
    let (names, mut group): (Vec<String>, Vec<UdpSocket>) = group.into_iter().unzip();
    let unfit = |reason| SocketError::Unfit { name: names[0].clone(), reason };
    if group.len() > workers {
        let reason = format!(
            "there are {} of them for {address} and {workers} workers; set ntp.workers to as many",
            group.len()
        );
        return Err(unfit(reason));
    }
    while group.len() < 2 * workers {
        let beside = match socket::open_udp(address, true, options) {
            Err(_) if group.len() >= workers => {
                group.truncate(workers);
                break;
            }
            beside => beside,
        };
        let beside = beside.map_err(|source| {
            unfit(format!(
                "no socket can be opened beside it for each of {workers} workers ({source}); set \
                 ReusePort=yes in the socket unit and User= of the service to the user of systemd, \
                 or set ntp.workers = {}",
                group.len()
            ))
        });
        group.push(beside?);
    }
    Ok(Group::of(group, workers))
}

/// What systemd opened, not yet used.
struct Given {
    udp: Vec<(SocketAddr, (String, UdpSocket))>,
    tcp: Vec<(SocketAddr, (String, TcpListener))>,
}

impl Given {
    fn sort(activated: Vec<Activated>, options: &UdpOptions) -> Result<Self, SocketError> {
        let mut given = Self { udp: Vec::new(), tcp: Vec::new() };
        for (name, descriptor) in activated {
            match socket::adopt(descriptor, options) {
                Ok((address, Inspected::Udp(socket))) => given.udp.push((address, (name, socket))),
                Ok((address, Inspected::Tcp(socket))) => given.tcp.push((address, (name, socket))),
                Err(reason) => return Err(SocketError::Unfit { name, reason }),
            }
        }
        Ok(given)
    }

    fn take_udp(&mut self, address: SocketAddr) -> Vec<(String, UdpSocket)> {
        self.udp.extract_if(.., |(found, _)| *found == address).map(|(_, socket)| socket).collect()
    }

    fn take_tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let place = self.tcp.iter().position(|(found, _)| *found == address)?;
        Some(self.tcp.swap_remove(place).1.1)
    }

    /// A socket that nobody serves would swallow what is sent to it.
    fn refuse_rest(self) -> Result<(), SocketError> {
        let udp = self.udp.into_iter().map(|(address, (name, _))| (address, name, "ntp.listen"));
        let tcp = self
            .tcp
            .into_iter()
            .map(|(address, (name, _))| (address, name, "ke.listen or observe.listen"));
        match udp.chain(tcp).next() {
            None => Ok(()),
            Some((address, name, section)) => {
                let reason = format!(
                    "{address} is not, or not so often, in {section}; let the socket unit \
                     and the configuration have the same addresses"
                );
                Err(SocketError::Unfit { name, reason })
            }
        }
    }
}
