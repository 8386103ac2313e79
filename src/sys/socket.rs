//! UDP and TCP sockets as the roles need them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::option;
use crate::limits::{
    BUSY_POLL_BUDGET, KE_BACKLOG, RECEIVE_BUFFER_BYTES_DEFAULT, SEND_BUFFER_BYTES_DEFAULT,
};

/// How UDP sockets are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// The only interface that datagrams are taken from.
    pub bind_device: Option<String>,
    /// How long a worker polls before it sleeps; zero is not at all.
    pub busy_poll: Duration,
    /// Timestamps of interfaces are told beside the kernel's.
    pub hardware_stamps: bool,
    /// Differentiated Services Code Point of what is sent, 0 to 63 (RFC 2474 section 3).
    pub dscp: u8,
    /// Receive buffer, which the kernel takes twice.
    pub receive_buffer_bytes: u32,
    /// Send buffer, which the kernel takes twice.
    pub send_buffer_bytes: u32,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            bind_device: None,
            busy_poll: Duration::ZERO,
            hardware_stamps: false,
            dscp: 0,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES_DEFAULT,
            send_buffer_bytes: SEND_BUFFER_BYTES_DEFAULT,
        }
    }
}

/// `count` UDP sockets that share `address` (`SO_REUSEPORT`), in the order of their workers. With
/// port 0 the kernel chooses one port for all.
///
/// The option would let any program of this user share the address without a word. So the address
/// is first taken without it: a second server is told that the first one is there.
pub fn open_udp_group(
    address: SocketAddr,
    count: usize,
    options: &UdpOptions,
) -> io::Result<Vec<UdpSocket>> {
    let alone = open_udp(address, false, options)?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| open_udp(address, true, options)).collect()
}

/// A UDP socket bound to `address` that stamps arrivals and tells of drops (`SO_TIMESTAMPNS`,
/// `SO_RXQ_OVFL`), and where it is bound to all addresses, which one was asked (`IP_PKTINFO`,
/// `IPV6_RECVPKTINFO`). One that is bound to an address sends from it; prototypes paid 0.1 µs a
/// datagram to be told so.
pub fn open_udp(address: SocketAddr, shared: bool, options: &UdpOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // One socket per family: an IPv4 client must not appear as a mapped IPv6 address.
        socket.set_only_v6(true)?;
    }
    prepare_udp(&socket, address, options)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What a workers' socket has beside its address.
fn prepare_udp(socket: &Socket, address: SocketAddr, options: &UdpOptions) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(socket, sockopt::RxqOvfl, &1)?;
    // Where the kernel cannot, transmit timestamps are predicted, and arrivals are the kernel's.
    let is_numbered = options.hardware_stamps && number_stamped_replies(socket, true).is_ok();
    if !is_numbered {
        let _ = number_stamped_replies(socket, false);
    }
    let is_wildcard = address.ip().is_unspecified();
    let traffic_class = i32::from(options.dscp) << 2;
    if address.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &is_wildcard)?;
        setsockopt(socket, sockopt::Ipv6TClass, &traffic_class)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &is_wildcard)?;
        setsockopt(socket, sockopt::Ipv4Tos, &traffic_class)?;
    }
    never_fragment(socket, address.is_ipv6())?;
    size_buffers(socket, options)?;
    if !options.busy_poll.is_zero() {
        // Without the privilege the worker polls the socket alone; `is_polled` tells.
        let _ = poll_queue(socket, options.busy_poll);
    }
    if let Some(name) = &options.bind_device {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    Ok(())
}

/// Lets the kernel number the datagrams that ask for a transmit timestamp
/// (`SOF_TIMESTAMPING_OPT_ID`), and tell the timestamp without the datagram
/// (`SOF_TIMESTAMPING_OPT_TSONLY`). It stamps those that ask and no others, and tells by
/// `SO_TIMESTAMPNS`, which is on anyway: no arrival has two stamps.
///
/// With `hardware` it tells those of interfaces too (`SOF_TIMESTAMPING_RAW_HARDWARE`), of arrivals
/// with their interface (`SOF_TIMESTAMPING_OPT_PKTINFO`), of departures beside its own
/// (`SOF_TIMESTAMPING_OPT_TX_SWHW`). The last two are of Linux 4.13.
fn number_stamped_replies(socket: &Socket, hardware: bool) -> io::Result<()> {
    let hardware_flags = libc::SOF_TIMESTAMPING_RX_HARDWARE
        | libc::SOF_TIMESTAMPING_RAW_HARDWARE
        | libc::SOF_TIMESTAMPING_OPT_PKTINFO
        | libc::SOF_TIMESTAMPING_OPT_TX_SWHW;
    let flags = libc::SOF_TIMESTAMPING_OPT_ID | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    let flags = if hardware { flags | hardware_flags } else { flags };
    option::set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &flags)
}

/// Makes each receive call that finds nothing look into the queue of the interface that the socket
/// was last served from (`SO_BUSY_POLL`), and keeps the interface from interrupting meanwhile
/// (`SO_PREFER_BUSY_POLL`): without the latter a flood is taken in by the interrupt, which leaves
/// the worker no time. Documentation/networking/napi.rst.
fn poll_queue(socket: &Socket, time: Duration) -> io::Result<()> {
    let microseconds = time.as_micros() as i32;
    option::set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &microseconds)?;
    let budget = i32::from(BUSY_POLL_BUDGET);
    option::set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &budget)?;
    option::set(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1)
}

/// Whether the kernel polls for this socket: it asks for CAP_NET_ADMIN.
pub fn is_polled(socket: &UdpSocket) -> bool {
    matches!(option::read(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL), Ok([1]))
}

/// Whether sockets can be bound to this interface (`SO_BINDTODEVICE`): an error says why not.
pub fn check_device(name: &str) -> io::Result<()> {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?.bind_device(Some(name.as_bytes()))
}

/// Datagrams that the kernel dropped at a socket so far, modulo 2³² (`SO_MEMINFO`). 0 where the
/// kernel does not say.
pub fn drops(socket: &UdpSocket) -> u32 {
    const NUMBERS: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    option::read::<NUMBERS>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)
        .map_or(0, |n| n[NUMBERS - 1])
}

/// Beyond the administrator's limit a buffer can be made with CAP_NET_ADMIN (`SO_RCVBUFFORCE`); the
/// kernel caps it without, and [`buffer_caps`] tells.
fn size_buffers(socket: &Socket, options: &UdpOptions) -> io::Result<()> {
    let (receive, send) =
        (options.receive_buffer_bytes as usize, options.send_buffer_bytes as usize);
    socket.set_recv_buffer_size(receive)?;
    if socket.recv_buffer_size()? < 2 * receive {
        let _ = setsockopt(socket, sockopt::RcvBufForce, &receive);
    }
    socket.set_send_buffer_size(send)?;
    if socket.send_buffer_size()? < 2 * send {
        let _ = setsockopt(socket, sockopt::SndBufForce, &send);
    }
    Ok(())
}

/// A buffer that the kernel made smaller than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferCap {
    /// Its key in section `ntp`.
    pub key: &'static str,
    /// What holds the limit.
    pub sysctl: &'static str,
    /// What was asked for.
    pub asked_bytes: usize,
    /// What there is.
    pub granted_bytes: usize,
}

/// Which buffers of `socket` are smaller than asked for.
pub fn buffer_caps(socket: &UdpSocket, options: &UdpOptions) -> io::Result<Vec<BufferCap>> {
    let socket = SockRef::from(socket);
    // "The kernel doubles this value [...], and this doubled value is returned by getsockopt(2)."
    let (receive, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    let caps = [
        ("receive_buffer_bytes", "net.core.rmem_max", options.receive_buffer_bytes, receive),
        ("send_buffer_bytes", "net.core.wmem_max", options.send_buffer_bytes, send),
    ];
    Ok(caps
        .into_iter()
        .map(|(key, sysctl, asked_bytes, granted_bytes)| BufferCap {
            key,
            sysctl,
            asked_bytes: asked_bytes as usize,
            granted_bytes,
        })
        .filter(|cap| cap.granted_bytes < cap.asked_bytes)
        .collect())
}

/// Sends with "don't fragment" set and takes no path's word for its MTU (`IP_PMTUDISC_PROBE`). A
/// reply is no longer than its request, so it needs no fragments, which attackers could replace;
/// and the kernel is spared the choice of an identification: NTS responses × 1.09 in four rounds
/// of `benches/versus/run --against`, on IPv4, with a build that had other changes switched off.
fn never_fragment(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        let probe = libc::IPV6_PMTUDISC_PROBE;
        option::set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &probe)
    } else {
        option::set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)
    }
}

/// A TCP listener on `address`, non-blocking.
pub fn open_tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(KE_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket that another program opened for this one, by its kind.
#[derive(Debug)]
pub enum Inspected {
    /// Bound, and made as [`open_udp`] would have.
    Udp(UdpSocket),
    /// Listening, non-blocking.
    Tcp(TcpListener),
}

/// Makes a socket that another program opened fit to be served, and tells its address.
///
/// # Errors
/// Why it cannot be, in words for whoever wrote the socket unit of systemd.
pub fn adopt(descriptor: OwnedFd, options: &UdpOptions) -> Result<(SocketAddr, Inspected), String> {
    let socket = Socket::from(descriptor);
    let no_socket = |error: io::Error| format!("{error}; it should be a UDP or TCP socket");
    let kind = socket.r#type().map_err(no_socket)?;
    let address = socket.local_addr().map_err(no_socket)?.as_socket();
    let address = address.ok_or("it is no IPv4 or IPv6 socket")?;
    let other = |error: io::Error| error.to_string();
    if address.is_ipv6() && !socket.only_v6().map_err(other)? {
        return Err("it takes IPv4 too; set BindIPv6Only=ipv6-only in the socket unit".to_owned());
    }
    if kind == Type::DGRAM {
        prepare_udp(&socket, address, options).map_err(other)?;
        return Ok((address, Inspected::Udp(socket.into())));
    }
    if kind == Type::STREAM && socket.is_listener().map_err(other)? {
        socket.set_nonblocking(true).map_err(other)?;
        return Ok((address, Inspected::Tcp(socket.into())));
    }
    Err("it is neither a UDP socket nor a TCP listener; use ListenDatagram= and ListenStream= \
         with Accept=no"
        .to_owned())
}
