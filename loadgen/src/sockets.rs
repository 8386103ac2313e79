//! Where requests leave from: addresses and ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};
use timeball::sys::control::Destination;
use timeball::sys::message::{Envelope, Payload};
use timeball::sys::mmsg::{self, Outgoing};
use timeball::sys::socket::{UdpOptions, drops, open_udp};

use crate::limits::{PORTS_PER_THREAD, SOCKET_BUFFER_BYTES};
use crate::plan::{Plan, Prefix};
use crate::request::{Group, Writer};

/// The sockets of one thread.
pub struct Sockets {
    sockets: Vec<UdpSocket>,
    target: SocketAddr,
    sources: Option<Prefix>,
    segments: usize,
    /// The socket that sends next.
    send_turn: usize,
    /// The socket that is asked next.
    receive_turn: usize,
    /// Drops of each socket when it was last asked.
    drops: Vec<u32>,
    payloads: Box<[Payload; BATCH_DATAGRAMS]>,
    envelopes: Box<[Envelope; BATCH_DATAGRAMS]>,
}

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A source address is not ours.
    #[error(
        "requests cannot leave from {address} ({source}): `ip route add local {prefix} dev lo` \
         makes a network this host's own"
    )]
    Source {
        /// The address.
        address: IpAddr,
        /// Its network.
        prefix: Prefix,
        /// What the system said.
        source: io::Error,
    },
    /// The sources cannot reach the target.
    #[error("the sources {0} and the server {1} are of different IP versions")]
    Version(Prefix, SocketAddr),
    /// A source port cannot be had.
    #[error(
        "requests cannot leave from port {port} ({source}): ports below 1024 are for root, and one \
         that is in use for nobody; choose another --source-port, or leave it out"
    )]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("no socket to {target} can be opened ({source}); look at `ip route get`")]
    Open {
        /// The server.
        target: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Sockets {
    /// As many as `plan` gives the thread with this number. Without given sources they are
    /// connected, which spares the kernel the choice of a route for every datagram.
    pub fn open(plan: &Plan, thread: usize) -> Result<Self, SocketError> {
        let target = plan.target;
        if let Some(prefix) = plan.sources {
            check_sources(prefix, target)?;
        }
        let options = UdpOptions {
            receive_buffer_bytes: SOCKET_BUFFER_BYTES,
            send_buffer_bytes: SOCKET_BUFFER_BYTES,
            ..UdpOptions::default()
        };
        let any: IpAddr = if target.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let open = |number| {
            // Checked: the last one is at most 65535.
            let port = plan.source_port.map_or(0, |first| first + number as u16);
            let socket = open_udp(SocketAddr::new(any, port), false, &options).map_err(
                |source| match port {
                    0 => SocketError::Open { target, source },
                    port => SocketError::Port { port, source },
                },
            )?;
            if plan.sources.is_none() {
                socket.connect(target).map_err(|source| SocketError::Open { target, source })?;
            }
            Ok(socket)
        };
        let first = thread * plan.ports_per_thread;
        let sockets: Vec<UdpSocket> =
            (first..first + plan.ports_per_thread).map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            drops: sockets.iter().map(drops).collect(),
            sockets,
            target,
            sources: plan.sources,
            segments: plan.segments,
            send_turn: 0,
            receive_turn: 0,
            payloads: Box::new([[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS]),
            envelopes: Box::new([Envelope::EMPTY; BATCH_DATAGRAMS]),
        })
    }

    /// Sends the batch of `writer`; `refused` is told of every request that the kernel did not
    /// take.
    pub fn send(&mut self, writer: &mut Writer, mut refused: impl FnMut(&[u8])) {
        let mut groups = writer.groups(self.segments);
        loop {
            let mut crowd: ArrayVec<(Envelope, Group<'_>), BATCH_DATAGRAMS> = groups
                .by_ref()
                .take(BATCH_DATAGRAMS)
                .map(|group| (self.envelope(&group), group))
                .collect();
            if crowd.is_empty() {
                return;
            }
            let socket = &self.sockets[self.send_turn];
            self.send_turn = (self.send_turn + 1) % self.sockets.len();
            send_all(socket, &mut crowd, &mut refused);
        }
    }

    fn envelope(&self, group: &Group<'_>) -> Envelope {
        let segment = (group.count > 1).then_some(group.request_bytes as u16);
        let Some(prefix) = self.sources else { return Envelope::addressed(None, None, segment) };
        let source = match prefix.address(group.client as u64) {
            IpAddr::V4(address) => Destination::V4(address),
            IpAddr::V6(address) => Destination::V6(address, 0),
        };
        Envelope::addressed(Some(self.target), Some(source), segment)
    }

    /// Takes up to a batch of datagrams from the next socket that has any; none if none has.
    pub fn receive(&mut self) -> impl ExactSizeIterator<Item = (&mut Payload, &mut Envelope)> {
        let received = self.receive_some();
        self.payloads[..received].iter_mut().zip(&mut self.envelopes[..received])
    }

    fn receive_some(&mut self) -> usize {
        for _ in 0..self.sockets.len() {
            let socket = &self.sockets[self.receive_turn];
            self.receive_turn = (self.receive_turn + 1) % self.sockets.len();
            // An error is news of an earlier datagram (port unreachable); the request it was about
            // ends as lost.
            if let Ok(received @ 1..) =
                mmsg::recv(socket.as_fd(), &mut *self.payloads, &mut *self.envelopes)
            {
                return received;
            }
        }
        0
    }

    /// Waits for a datagram, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut interests: ArrayVec<PollFd<'_>, { *PORTS_PER_THREAD.end() }> =
            self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        // Interrupted or failed, the loop comes round again: a wait has no other result.
        let _ = poll(&mut interests, Some(&timespec(timeout)));
    }

    /// Whether a datagram comes from the server.
    pub fn is_from_target(&self, peer: SocketAddr) -> bool {
        peer.ip() == self.target.ip() && peer.port() == self.target.port()
    }

    /// The server.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Datagrams that the kernel dropped at these sockets since this was last asked.
    pub fn new_drops(&mut self) -> u64 {
        let mut new = 0;
        for (socket, last) in self.sockets.iter().zip(&mut self.drops) {
            let total = drops(socket);
            new += u64::from(total.wrapping_sub(*last));
            *last = total;
        }
        new
    }
}

fn send_all(
    socket: &UdpSocket,
    crowd: &mut [(Envelope, Group<'_>)],
    refused: &mut impl FnMut(&[u8]),
) {
    let mut outgoing: ArrayVec<Outgoing<'_>, BATCH_DATAGRAMS> = ArrayVec::new();
    let mut lengths: ArrayVec<usize, BATCH_DATAGRAMS> = ArrayVec::new();
    for (envelope, group) in crowd {
        lengths.push(group.request_bytes);
        outgoing.push(Outgoing { envelope, payload: group.bytes });
    }
    let mut done = 0;
    let mut attempts = 0;
    while done < outgoing.len() {
        match mmsg::send(socket.as_fd(), &mut outgoing[done..]) {
            Ok(sent) => {
                done += sent;
                attempts = 0;
            }
            // The first kinds are about the buffer, which drains, and about earlier datagrams.
            Err(error) if attempts < SEND_ATTEMPTS && is_passing(&error) => {
                attempts += 1;
                if error.kind() == io::ErrorKind::WouldBlock {
                    let interest = &mut [PollFd::new(socket, PollFlags::OUT)];
                    let _ = poll(interest, Some(&timespec(SEND_WAIT)));
                }
            }
            // The error is the first message's; the others may still go.
            Err(_) => {
                outgoing[done].payload.chunks(lengths[done]).for_each(&mut *refused);
                done += 1;
                attempts = 0;
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
    )
}

/// Both ends of the sources have to be this host's own.
fn check_sources(prefix: Prefix, target: SocketAddr) -> Result<(), SocketError> {
    for number in [0, prefix.addresses() - 1] {
        let address = prefix.address(number);
        if address.is_ipv4() != target.is_ipv4() {
            return Err(SocketError::Version(prefix, target));
        }
        UdpSocket::bind((address, 0)).map_err(|source| SocketError::Source {
            address,
            prefix,
            source,
        })?;
    }
    Ok(())
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// How often a message is tried when it is not the message's fault.
const SEND_ATTEMPTS: usize = 3;

/// How long a full send buffer is waited for: a device drains its queue in less.
const SEND_WAIT: Duration = Duration::from_millis(1);
