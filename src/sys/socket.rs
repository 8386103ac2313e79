//! UDP and TCP sockets as the roles need them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::option;
use crate::limits::KE_BACKLOG;

/// `count` UDP sockets that share `address` (`SO_REUSEPORT`), in the order of their workers. With
/// port 0 the kernel chooses one port for all.
///
/// The option would let any program of this user share the address without a word. So the address
/// is first taken without it: a second server is told that the first one is there.
pub fn open_udp_group(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let alone = open_udp(address, false)?;
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| open_udp(address, true)).collect()
}

/// A UDP socket bound to `address` that stamps arrivals and tells where they were sent to
/// (`SO_TIMESTAMPNS`, `IP_PKTINFO`, `IPV6_RECVPKTINFO`).
pub fn open_udp(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // One socket per family: an IPv4 client must not appear as a mapped IPv6 address.
        socket.set_only_v6(true)?;
    }
    ask_for_arrivals(&socket, address.is_ipv6())?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What a workers' socket has beside its address.
fn ask_for_arrivals(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    if is_ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    never_fragment(socket, is_ipv6)
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
pub fn adopt(descriptor: OwnedFd) -> Result<(SocketAddr, Inspected), String> {
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
        ask_for_arrivals(&socket, address.is_ipv6()).map_err(other)?;
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
