//! The buffers that a ring offers to the kernel (`io_uring_register_buf_ring(3)`).
//!
//! A buffer is either *offered*, then the kernel may write to it at any time, or *claimed*, then
//! it is ours. The table of claimed buffers is kept here, so that it does not depend on the
//! kernel's word that no buffer is in two places.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::limits::{CONTROL_BYTES, DATAGRAM_BYTES, URING_BUFFERS};
use crate::sys::message::Payload;

/// The only group of buffers.
pub(super) const GROUP: u16 = 0;

/// Room for the name in a buffer: a `sockaddr_in6` and 4 bytes more, so that all parts begin at
/// multiples of 16.
pub(super) const NAME_ROOM_BYTES: usize = 32;

/// Room for the control messages in a buffer.
pub(super) const CONTROL_ROOM_BYTES: usize = CONTROL_BYTES;

/// One datagram as a multishot RECVMSG writes it. The parts' offsets follow from the room that was
/// asked for, however much of it is filled.
#[repr(C, align(64))]
pub(super) struct Buffer {
    /// `struct io_uring_recvmsg_out`, name, control messages.
    pub(super) head: [u8; HEAD_BYTES],
    pub(super) payload: Payload,
}

const HEAD_BYTES: usize = 4 * size_of::<u32>() + NAME_ROOM_BYTES + CONTROL_ROOM_BYTES;

/// See the module. Its memory is never freed.
pub(super) struct BufferPool {
    buffers: &'static [UnsafeCell<Buffer>],
    ring: &'static BufferRing,
    is_claimed: Box<[bool; URING_BUFFERS]>,
    /// How many buffers were offered so far, modulo 2¹⁶.
    tail: u16,
}

/// The ring in which buffers are offered, shared with the kernel.
#[repr(C, align(65536))]
struct BufferRing([Entry; URING_BUFFERS]);

/// `struct io_uring_buf`.
#[repr(C)]
struct Entry {
    address: AtomicU64,
    length: AtomicU32,
    buffer: AtomicU16,
    /// In the first entry the tail of the ring, elsewhere unused.
    tail: AtomicU16,
}

impl BufferPool {
    /// A pool with all buffers offered.
    pub(super) fn new() -> Self {
        let empty = || Buffer { head: [0; HEAD_BYTES], payload: [0; DATAGRAM_BYTES] };
        let buffers: Vec<_> = (0..URING_BUFFERS).map(|_| UnsafeCell::new(empty())).collect();
        let mut pool = Self {
            buffers: buffers.leak(),
            ring: Box::leak(Box::new(BufferRing([const { Entry::empty() }; URING_BUFFERS]))),
            is_claimed: Box::new([true; URING_BUFFERS]),
            tail: 0,
        };
        for buffer in 0..URING_BUFFERS {
            pool.offer(buffer as u16);
        }
        pool.publish();
        pool
    }

    /// Where the ring of offered buffers is, for the kernel.
    pub(super) fn ring_address(&self) -> u64 {
        std::ptr::from_ref(self.ring).expose_provenance() as u64
    }

    /// All buffers. A claimed one may be looked at.
    pub(super) fn buffers(&self) -> &'static [UnsafeCell<Buffer>] {
        self.buffers
    }

    /// Where a buffer's payload is.
    pub(super) fn payload_address(&self, buffer: u16) -> *mut u8 {
        self.buffers[usize::from(buffer)]
            .get()
            .cast::<u8>()
            .wrapping_add(std::mem::offset_of!(Buffer, payload))
    }

    /// Takes a buffer that the kernel says it has filled. Whether it was the kernel's to give.
    pub(super) fn claim(&mut self, buffer: u16) -> bool {
        match self.is_claimed.get_mut(usize::from(buffer)) {
            Some(is_claimed) => !std::mem::replace(is_claimed, true),
            None => false,
        }
    }

    /// Gives a claimed buffer back. The kernel sees it after [`Self::publish`].
    pub(super) fn offer(&mut self, buffer: u16) {
        let index = usize::from(buffer);
        self.is_claimed[index] = false;
        let entry = &self.ring.0[usize::from(self.tail) % URING_BUFFERS];
        let address = self.buffers[index].get().expose_provenance() as u64;
        entry.address.store(address, Ordering::Relaxed);
        entry.length.store((HEAD_BYTES + DATAGRAM_BYTES) as u32, Ordering::Relaxed);
        entry.buffer.store(buffer, Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was offered.
    pub(super) fn publish(&self) {
        self.ring.0[0].tail.store(self.tail, Ordering::Release);
    }
}

impl Entry {
    const fn empty() -> Self {
        Self {
            address: AtomicU64::new(0),
            length: AtomicU32::new(0),
            buffer: AtomicU16::new(0),
            tail: AtomicU16::new(0),
        }
    }
}
