//! UDP and TCP sockets as the roles need them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

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
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    if address.is_ipv6() {
        // One socket per family: an IPv4 client must not appear as a mapped IPv6 address.
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
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
