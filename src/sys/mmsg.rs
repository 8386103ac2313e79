//! Batches of datagrams (`recvmmsg(2)`, `sendmmsg(2)`).
#![allow(unsafe_code, reason = "the safe wrappers of these calls allocate or copy per message")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::control::ControlBuffer;
use crate::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};

/// Everything about one datagram but its payload, as the kernel reads and writes it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    name: SocketName,
    name_bytes: u32,
    /// Control messages.
    pub control: ControlBuffer,
    /// Length of the control messages.
    pub control_bytes: usize,
    /// Length of the payload.
    pub payload_bytes: usize,
    /// The payload did not fit (`MSG_TRUNC`).
    pub truncated: bool,
}

/// Room for `sockaddr_in` (16 bytes) and `sockaddr_in6` (28 bytes), aligned like both.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
struct SocketName([u8; size_of::<libc::sockaddr_in6>()]);

impl Envelope {
    /// An envelope to receive into.
    pub const EMPTY: Self = Self {
        name: SocketName([0; size_of::<libc::sockaddr_in6>()]),
        name_bytes: 0,
        control: ControlBuffer::ZERO,
        control_bytes: 0,
        payload_bytes: 0,
        truncated: false,
    };

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
}

/// Payload buffer of one datagram.
pub type Payload = [u8; DATAGRAM_BYTES];

/// Receives up to a batch without waiting, each datagram into its payload and envelope. Returns
/// how many; an error only if there is none, `WouldBlock` if none is queued.
pub fn recv(
    socket: BorrowedFd<'_>,
    payloads: &mut [Payload],
    envelopes: &mut [Envelope],
) -> io::Result<usize> {
    let count = payloads.len().min(envelopes.len()).min(BATCH_DATAGRAMS);
    let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH_DATAGRAMS];
    let mut headers = [MaybeUninit::<libc::mmsghdr>::uninit(); BATCH_DATAGRAMS];
    for (index, (payload, envelope)) in
        payloads[..count].iter_mut().zip(&mut *envelopes).enumerate()
    {
        let vector = vectors[index]
            .write(libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() });
        headers[index].write(header(
            &mut envelope.name,
            size_of::<SocketName>() as u32,
            vector,
            &mut envelope.control,
            size_of::<ControlBuffer>(),
        ));
    }
    // SAFETY: the first `count` headers are initialised; the names, vectors, payloads and control
    // buffers they point to are exclusively borrowed or local, and live until after the call with
    // the lengths given.
    let received = unsafe {
        libc::recvmmsg(
            // "sockfd"
            socket.as_raw_fd(),
            // "a pointer to an array of mmsghdr structures"
            headers.as_mut_ptr().cast(),
            // "vlen: the size of this array"
            count as u32,
            // "MSG_DONTWAIT: enables nonblocking operation"
            libc::MSG_DONTWAIT as _,
            // "If timeout is NULL, then the call blocks indefinitely": it does not wait at all.
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (envelope, header) in envelopes.iter_mut().zip(&headers[..received]) {
        // SAFETY: the kernel filled `received` ≤ `count` headers, and all `count` were initialised.
        let header = unsafe { header.assume_init_ref() };
        envelope.name_bytes = header.msg_hdr.msg_namelen.min(size_of::<SocketName>() as u32);
        // The kernel writes lengths within what it was given; a wrong one must not reach a slice.
        envelope.control_bytes = header.msg_hdr.msg_controllen.min(size_of::<ControlBuffer>());
        envelope.payload_bytes = (header.msg_len as usize).min(DATAGRAM_BYTES);
        envelope.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    }
    Ok(received)
}

/// One reply to send: the envelope of its request, with its own control and payload lengths.
pub struct Outgoing<'a> {
    /// Whom to send to, and the control messages.
    pub envelope: &'a mut Envelope,
    /// What to send.
    pub payload: &'a mut [u8],
}

/// Sends up to a batch without waiting. Returns how many the kernel took, perhaps not all; an
/// error speaks of the first alone.
pub fn send(socket: BorrowedFd<'_>, outgoing: &mut [Outgoing<'_>]) -> io::Result<usize> {
    let count = outgoing.len().min(BATCH_DATAGRAMS);
    let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH_DATAGRAMS];
    let mut headers = [MaybeUninit::<libc::mmsghdr>::uninit(); BATCH_DATAGRAMS];
    for (index, reply) in outgoing[..count].iter_mut().enumerate() {
        let vector = vectors[index].write(libc::iovec {
            iov_base: reply.payload.as_mut_ptr().cast(),
            iov_len: reply.payload.len(),
        });
        headers[index].write(header(
            &mut reply.envelope.name,
            reply.envelope.name_bytes,
            vector,
            &mut reply.envelope.control,
            reply.envelope.control_bytes,
        ));
    }
    // SAFETY: the first `count` headers are initialised; what they point to is exclusively
    // borrowed or local and lives until after the call with the lengths given.
    let sent = unsafe {
        libc::sendmmsg(
            // "sockfd"
            socket.as_raw_fd(),
            // "msgvec: a pointer to an array of mmsghdr structures"
            headers.as_mut_ptr().cast(),
            // "vlen: the size of this array"
            count as u32,
            // "the same as for sendmsg(2)"
            libc::MSG_DONTWAIT as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn header(
    name: &mut SocketName,
    name_bytes: u32,
    vector: &mut libc::iovec,
    control: &mut ControlBuffer,
    control_bytes: usize,
) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is integers and pointers, for which all zero bytes are a value. Some C
    // libraries have private padding fields, so it cannot be written as a literal.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
    header.msg_hdr.msg_namelen = name_bytes;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
    header.msg_hdr.msg_controllen = control_bytes as _;
    header
}
