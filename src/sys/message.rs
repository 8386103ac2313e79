//! One datagram as `recvmsg(2)` and `sendmsg(2)` see it: what the ports share.
#![allow(unsafe_code, reason = "`msghdr` cannot be written as a literal in every C library")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::control::{self, ControlBuffer, Departure, Destination, Received};
use crate::limits::DATAGRAM_BYTES;

/// Payload buffer of one datagram.
pub type Payload = [u8; DATAGRAM_BYTES];

/// Everything about one datagram but its payload, as the kernel reads and writes it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    pub(super) name: SocketName,
    pub(super) name_bytes: u32,
    pub(super) control: ControlBuffer,
    pub(super) control_bytes: usize,
    /// Length of the payload.
    pub payload_bytes: usize,
    /// The payload did not fit (`MSG_TRUNC`).
    pub truncated: bool,
    /// The interface that stamped it, if its stamps can be translated; else 0.
    pub interface: u32,
}

/// Room for `sockaddr_in` (16 bytes) and `sockaddr_in6` (28 bytes), aligned like both.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(super) struct SocketName(pub(super) [u8; size_of::<libc::sockaddr_in6>()]);

impl SocketName {
    /// Becomes the name of `address`; returns its length.
    fn write(&mut self, address: SocketAddr) -> u32 {
        let name = &mut self.0;
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, name_bytes) = match address {
            SocketAddr::V4(address) => {
                name[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(address) => {
                name[8..24].copy_from_slice(&address.ip().octets());
                name[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6, size_of::<libc::sockaddr_in6>())
            }
        };
        name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        name_bytes as u32
    }
}

impl Envelope {
    /// An envelope to receive into.
    pub const EMPTY: Self = Self {
        name: SocketName([0; size_of::<libc::sockaddr_in6>()]),
        name_bytes: 0,
        control: ControlBuffer::ZERO,
        control_bytes: 0,
        payload_bytes: 0,
        truncated: false,
        interface: 0,
    };

    /// The envelope of a datagram to send: to `peer`, or where the socket is connected to; from
    /// `source`, or whatever address the kernel chooses; cut by the kernel into datagrams of
    /// `segment_bytes` each, if given.
    pub fn addressed(
        peer: Option<SocketAddr>,
        source: Option<Destination>,
        segment_bytes: Option<u16>,
    ) -> Self {
        let mut envelope = Self::EMPTY;
        if let Some(peer) = peer {
            envelope.name_bytes = envelope.name.write(peer);
        }
        if let Some(source) = source {
            envelope.control_bytes = control::write_source(&mut envelope.control, source);
        }
        if let Some(bytes) = segment_bytes {
            let at = envelope.control_bytes;
            envelope.control_bytes = control::write_segment(&mut envelope.control, at, bytes);
        }
        envelope
    }

    /// The other end. The unspecified address where the kernel gave a family that is not IP,
    /// which a UDP socket of ours never receives.
    pub fn peer(&self) -> SocketAddr {
        let name = &self.name.0;
        let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
        let port = u16::from_be_bytes([name[2], name[3]]);
        if family == libc::AF_INET6 {
            let address: [u8; 16] = *name[8..].first_chunk().expect("28 bytes");
            let scope = u32::from_ne_bytes(*name[24..].first_chunk().expect("28 bytes"));
            SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope).into()
        } else if family == libc::AF_INET {
            let address: [u8; 4] = *name[4..].first_chunk().expect("28 bytes");
            SocketAddr::from((Ipv4Addr::from(address), port))
        } else {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        }
    }

    /// Turns the envelope of a request into that of its reply: the control messages that came are
    /// replaced by the one that makes the reply leave from the address that was asked; where none
    /// said which, the socket is bound to it. Returns what the control messages said.
    pub fn turn(&mut self) -> Received {
        let received = control::read(&self.control.0[..self.control_bytes]);
        self.control_bytes = match received.destination {
            Some(destination) => control::write_source(&mut self.control, destination),
            None => 0,
        };
        received
    }

    /// Makes the kernel stamp the departure of a reply, and so the interface that has stamped the
    /// request; behind what [`Envelope::turn`] has written.
    pub fn ask_for_stamp(&mut self) {
        let (at, by_hardware) = (self.control_bytes, self.interface != 0);
        self.control_bytes = control::write_stamp_request(&mut self.control, at, by_hardware);
    }

    /// The transmit timestamp that a message of the error queue tells; `None` if it is an error.
    pub fn departure(&self) -> Option<Departure> {
        control::read_departure(&self.control.0[..self.control_bytes])
    }

    /// Copies in a name and control messages that the kernel wrote elsewhere; what has no room is
    /// left out.
    pub(super) fn fill(&mut self, name: &[u8], control: &[u8]) {
        let name_bytes = name.len().min(size_of::<SocketName>());
        self.name.0[..name_bytes].copy_from_slice(&name[..name_bytes]);
        self.name_bytes = name_bytes as u32;
        self.control_bytes = control.len().min(size_of::<ControlBuffer>());
        self.control.0[..self.control_bytes].copy_from_slice(&control[..self.control_bytes]);
    }
}

/// A header whose fields are all zero.
pub(super) const fn empty_header() -> libc::msghdr {
    // SAFETY: `msghdr` is integers and pointers, for which all zero bytes are a value. Some C
    // libraries have private padding fields, so it cannot be written as a literal.
    unsafe { std::mem::zeroed() }
}

/// The header of a message with these parts. It is as good as the pointers to them.
pub(super) fn header(
    name: &mut SocketName,
    name_bytes: u32,
    vector: &mut libc::iovec,
    control: &mut ControlBuffer,
    control_bytes: usize,
) -> libc::msghdr {
    let mut header = empty_header();
    header.msg_name = name.0.as_mut_ptr().cast();
    header.msg_namelen = name_bytes;
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control_bytes as _;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_an_addressed_envelope_is_read_back() {
        for peer in ["192.0.2.1:123", "[2001:db8::1]:4123", "[fe80::1%7]:123"] {
            let peer: SocketAddr = peer.parse().expect("an address");
            assert_eq!(Envelope::addressed(Some(peer), None, None).peer(), peer);
        }
    }

    #[test]
    fn a_stamp_is_asked_for_behind_the_source() {
        let source = Destination::V6("fe80::1".parse().expect("an address"), 7);
        let mut envelope = Envelope::addressed(None, Some(source), None);
        envelope.ask_for_stamp();
        assert_eq!(envelope.control_bytes, 40 + 24);
        assert_eq!(envelope.turn().destination, Some(source));
    }

    #[test]
    fn source_and_segment_stand_one_after_the_other() {
        let source = Destination::V4(Ipv4Addr::new(192, 0, 2, 9));
        let mut envelope = Envelope::addressed(None, Some(source), Some(48));
        assert_eq!((envelope.name_bytes, envelope.control_bytes), (0, 32 + 24));
        assert_eq!(envelope.turn().destination, Some(source));
    }
}
