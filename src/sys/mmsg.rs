//! Batches of datagrams (`recvmmsg(2)`, `sendmmsg(2)`).
#![allow(unsafe_code, reason = "the safe wrappers of these calls allocate or copy per message")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::control::ControlBuffer;
use super::message::{Envelope, Payload, SocketName, header};
use crate::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES};

/// Receives up to a batch without waiting, each datagram into its payload and envelope. Returns
/// how many; an error only if there is none, `WouldBlock` if none is queued.
pub fn recv(
    socket: BorrowedFd<'_>,
    payloads: &mut [Payload],
    envelopes: &mut [Envelope],
) -> io::Result<usize> {
    receive(socket, payloads.iter_mut().map(|payload| &mut payload[..]), envelopes, 0)
}

/// Takes up to a batch of messages off the error queue, without the datagrams that they are about.
/// Returns how many; an error only if there is none, `WouldBlock` if none is queued.
pub fn recv_errors(socket: BorrowedFd<'_>, envelopes: &mut [Envelope]) -> io::Result<usize> {
    // "MSG_ERRQUEUE: queued errors should be received from the socket error queue."
    let no_payloads = std::iter::repeat_with(<&mut [u8]>::default);
    receive(socket, no_payloads, envelopes, libc::MSG_ERRQUEUE)
}

/// One `recvmmsg` into as many envelopes as there are payloads for, a batch at most.
fn receive<'p>(
    socket: BorrowedFd<'_>,
    payloads: impl Iterator<Item = &'p mut [u8]>,
    envelopes: &mut [Envelope],
    queue: i32,
) -> io::Result<usize> {
    let mut vectors = [MaybeUninit::<libc::iovec>::uninit(); BATCH_DATAGRAMS];
    let mut headers = [MaybeUninit::<libc::mmsghdr>::uninit(); BATCH_DATAGRAMS];
    let mut count = 0;
    let places = vectors.iter_mut().zip(&mut headers);
    for ((payload, envelope), (vector, place)) in payloads.zip(&mut *envelopes).zip(places) {
        let vector = vector
            .write(libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() });
        let msg_hdr = header(
            &mut envelope.name,
            size_of::<SocketName>() as u32,
            vector,
            &mut envelope.control,
            size_of::<ControlBuffer>(),
        );
        place.write(libc::mmsghdr { msg_hdr, msg_len: 0 });
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised; the names, vectors, payloads and control
    // buffers they point to are exclusively borrowed or local, and live until after the call with
    // the lengths given (the payloads for 'p).
    let received = unsafe {
        libc::recvmmsg(
            // "sockfd"
            socket.as_raw_fd(),
            // "a pointer to an array of mmsghdr structures"
            headers.as_mut_ptr().cast(),
            // "vlen: the size of this array"
            count as u32,
            // "MSG_DONTWAIT: enables nonblocking operation"
            (libc::MSG_DONTWAIT | queue) as _,
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
        let msg_hdr = header(
            &mut reply.envelope.name,
            reply.envelope.name_bytes,
            vector,
            &mut reply.envelope.control,
            reply.envelope.control_bytes,
        );
        headers[index].write(libc::mmsghdr { msg_hdr, msg_len: 0 });
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
