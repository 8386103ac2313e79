//! A ring of receives and sends (`io_uring(7)`) on the sockets of one worker.
//!
//! Every socket has one receive that goes on and on (multishot). It takes a buffer from a pool
//! that this ring offers (`io_uring_register_buf_ring(3)`), fills it and completes, once for each
//! datagram. Up to a batch of datagrams is *taken* from the completions; a taken datagram's
//! buffer is ours until [`Ring::flush`] has sent the replies and offers it to the kernel again.
//!
//! The ring is set up for one thread, which makes all of the kernel's work on it happen inside
//! this thread's own `io_uring_enter`.
//!
//! Its memory is never freed. Closing a ring ends its operations some time later, so no moment
//! would be known to be late enough; and a worker's ring lives as long as its process.
#![allow(unsafe_code, reason = "the kernel reads and writes memory that it was told of earlier")]

mod buffers;
mod obstacle;

use std::io;
use std::marker::PhantomData;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use arrayvec::ArrayVec;
use io_uring::cqueue::{self, buffer_select, more};
use io_uring::register::Restriction;
use io_uring::squeue::{self, Flags};
use io_uring::types::{Fixed, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, opcode};

use self::buffers::{BufferPool, CONTROL_ROOM_BYTES, NAME_ROOM_BYTES};
use self::obstacle::Abilities;
use super::message::{Envelope, Payload, empty_header, header};
use crate::limits::{
    BATCH_DATAGRAMS, DATAGRAM_BYTES, SOCKETS_PER_WORKER, URING_BUFFERS, URING_COMPLETIONS,
    URING_SUBMISSIONS, URING_SUBMIT_ATTEMPTS,
};

pub use self::obstacle::Obstacle;

/// See the module.
pub struct Ring {
    uring: IoUring,
    pool: BufferPool,
    /// What every receive asks for: the room for name and control messages.
    request: &'static libc::msghdr,
    taken: ArrayVec<Taken, BATCH_DATAGRAMS>,
    /// In the order of `taken`.
    envelopes: &'static mut [Envelope; BATCH_DATAGRAMS],
    /// Headers of the replies, in the order of `taken`.
    outgoing: &'static mut [Outgoing; BATCH_DATAGRAMS],
    /// The index of the wake descriptor among the registered files: behind the sockets.
    wake: u32,
    enter_flags: EnterFlags,
    /// The kernel lets only the thread that made the ring use it.
    this_thread: PhantomData<*mut ()>,
}

/// A datagram in its buffer.
struct Taken {
    buffer: u16,
    /// Which socket it came from, and by which its reply leaves.
    socket: u32,
}

/// What one SENDMSG points to.
#[derive(Clone, Copy)]
struct Outgoing {
    header: libc::msghdr,
    vector: libc::iovec,
}

/// What [`Ring::next_event`] found.
#[derive(Debug)]
pub enum Event {
    /// One more datagram is taken.
    Datagram,
    /// A socket's receive found no buffer and was armed again.
    BuffersExhausted,
    /// A socket's receive failed and was armed again.
    ReceiveFailed {
        /// The socket's place among those that [`Ring::open`] was given.
        socket: usize,
    },
    /// A reply of an earlier batch did not leave.
    SendFailed(io::Error),
    /// The wake descriptor is readable.
    Woken,
}

impl Ring {
    /// A ring that receives from `sockets` from now on. In this order:
    ///
    /// 1. the ring is made, disabled,
    /// 2. the kernel is asked for the operations that will be needed,
    /// 3. files and buffers are registered,
    /// 4. the ring is restricted to what it needs, and enabled,
    /// 5. the sockets' receives are armed.
    ///
    /// It can be used by the calling thread only.
    pub fn open(sockets: &[UdpSocket], wake: BorrowedFd<'_>) -> Result<Self, Obstacle> {
        let uring = disabled_ring()?;
        check_abilities(&uring)?;
        let files: ArrayVec<RawFd, { SOCKETS_PER_WORKER + 1 }> =
            sockets.iter().map(|socket| socket.as_raw_fd()).chain([wake.as_raw_fd()]).collect();
        let submitter = uring.submitter();
        submitter.register_files(&files).map_err(Obstacle::of_step("registering files"))?;
        let pool = BufferPool::new();
        register_buffers(&submitter, &pool).map_err(Obstacle::of_step("registering buffers"))?;
        restrict(&submitter).map_err(Obstacle::of_step("restricting the ring"))?;
        submitter.register_enable_rings().map_err(Obstacle::of_step("enabling the ring"))?;

        let mut request = empty_header();
        request.msg_namelen = NAME_ROOM_BYTES as u32;
        request.msg_controllen = CONTROL_ROOM_BYTES as _;
        let mut enter_flags = EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            // An idle worker waits for datagrams, not for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let mut ring = Self {
            uring,
            pool,
            request: Box::leak(Box::new(request)),
            taken: ArrayVec::new(),
            envelopes: Box::leak(Box::new([Envelope::EMPTY; BATCH_DATAGRAMS])),
            outgoing: Box::leak(Box::new([Outgoing::EMPTY; BATCH_DATAGRAMS])),
            wake: sockets.len() as u32,
            enter_flags,
            this_thread: PhantomData,
        };
        for socket in 0..ring.wake {
            ring.arm_receive(socket);
        }
        ring.arm_wake();
        ring.enter(0, None).map_err(Obstacle::of_step("io_uring_enter"))?;
        Ok(ring)
    }

    /// Looks at the next completion. `None` if there is none, or if a batch is already taken.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.taken.is_full() {
            return None;
        }
        let completion = self.uring.completion().next()?;
        Some(match completion.user_data() {
            SEND => Event::SendFailed(error_of(&completion)),
            WAKE => {
                self.arm_wake();
                Event::Woken
            }
            socket => self.received(socket as u32, &completion),
        })
    }

    /// How many datagrams are taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// The taken datagrams, each with its socket's place among those that [`Ring::open`] was given.
    pub fn letters(&mut self) -> impl Iterator<Item = (usize, &mut Payload, &mut Envelope)> {
        let buffers = self.pool.buffers();
        self.taken.iter().zip(self.envelopes.iter_mut()).map(move |(taken, envelope)| {
            // SAFETY: no two of `taken` have the same buffer, because `BufferPool::claim` gives
            // a buffer out once until it is offered again; the kernel does not write to it
            // until then; and the iterator borrows the ring, so it is the only one.
            let buffer = unsafe { &mut *buffers[usize::from(taken.buffer)].get() };
            (taken.socket as usize, &mut buffer.payload, envelope)
        })
    }

    /// The envelope of a taken datagram, with its socket's place.
    pub fn envelope(&mut self, place: usize) -> (usize, &mut Envelope) {
        (self.taken[place].socket as usize, &mut self.envelopes[place])
    }

    /// Queues the first `reply_bytes` of a taken datagram as its reply. At most once for each.
    pub fn queue_reply(&mut self, place: usize, reply_bytes: usize) {
        let taken = &self.taken[place];
        let envelope = &mut self.envelopes[place];
        let outgoing = &mut self.outgoing[place];
        outgoing.vector = libc::iovec {
            iov_base: self.pool.payload_address(taken.buffer).cast(),
            iov_len: reply_bytes.min(DATAGRAM_BYTES),
        };
        outgoing.header = header(
            &mut envelope.name,
            envelope.name_bytes,
            &mut outgoing.vector,
            &mut envelope.control,
            envelope.control_bytes,
        );
        let reply = opcode::SendMsg::new(Fixed(taken.socket), &raw const outgoing.header)
            // With this flag a request is never set aside for later: it is done, or has failed,
            // when `io_uring_enter` returns.
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(SEND);
        self.push(&reply);
    }

    /// Sends the queued replies and offers the buffers of all taken datagrams to the kernel again.
    ///
    /// # Panics
    /// If the kernel does not take the replies though asked [`URING_SUBMIT_ATTEMPTS`] times: what
    /// it will do with them is then unknown.
    pub fn flush(&mut self) {
        let mut attempts = 0;
        while !self.uring.submission().is_empty() {
            assert!(attempts < URING_SUBMIT_ATTEMPTS, "the ring does not take replies");
            attempts += 1;
            // An error says that nothing was taken; then the queue is as long as before.
            let _ = self.enter(0, None);
        }
        for taken in self.taken.drain(..) {
            self.pool.offer(taken.buffer);
        }
        self.pool.publish();
    }

    /// Waits for a completion, at most for `timeout`. Hands over what is queued.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.enter(1, Some(&arguments)) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands over what is queued, lets the kernel do what it has put off, and waits for
    /// `completions` to be there.
    fn enter(&mut self, completions: u32, wait: Option<&SubmitArgs<'_, '_>>) -> io::Result<usize> {
        let queued = self.uring.submission().len() as u32;
        let flags = match wait {
            Some(_) => self.enter_flags | EnterFlags::EXT_ARG,
            None => self.enter_flags,
        };
        // SAFETY: with EXT_ARG the argument is the structure that this flag asks for, which is
        // borrowed for the call; without it there is none. The first `queued` operations are
        // valid, see `push`.
        unsafe { self.uring.submitter().enter(queued, completions, flags.bits(), wait) }
    }

    fn arm_receive(&mut self, socket: u32) {
        let receive = opcode::RecvMsgMulti::new(Fixed(socket), self.request, buffers::GROUP)
            .build()
            .user_data(socket.into());
        self.push(&receive);
    }

    fn arm_wake(&mut self) {
        let poll =
            opcode::PollAdd::new(Fixed(self.wake), libc::POLLIN as u32).build().user_data(WAKE);
        self.push(&poll);
    }

    fn push(&mut self, operation: &squeue::Entry) {
        let mut queue = self.uring.submission();
        // SAFETY: what an operation points to (`request`, `outgoing`, envelopes, buffers) is
        // never freed. The kernel reads it while this thread is inside `io_uring_enter`, where
        // no reference to it is in use. It keeps nothing of a reply for later: MSG_DONTWAIT
        // makes a request fail with EAGAIN that would else wait for its turn or go to a worker
        // thread of the kernel. A receive writes to buffers that are offered only.
        let pushed = unsafe { queue.push(operation) };
        pushed.expect("each socket, the wake and each place of the batch has one operation");
    }

    /// A completion of a socket's receive.
    fn received(&mut self, socket: u32, completion: &cqueue::Entry) -> Event {
        if !more(completion.flags()) {
            self.arm_receive(socket);
        }
        let claimed = buffer_select(completion.flags()).filter(|&buffer| self.pool.claim(buffer));
        match claimed {
            Some(buffer) if completion.result() >= 0 => {
                self.take(buffer, socket);
                Event::Datagram
            }
            Some(buffer) => {
                self.pool.offer(buffer);
                self.pool.publish();
                Event::ReceiveFailed { socket: socket as usize }
            }
            None if completion.result() == -libc::ENOBUFS => Event::BuffersExhausted,
            None => Event::ReceiveFailed { socket: socket as usize },
        }
    }

    fn take(&mut self, buffer: u16, socket: u32) {
        // SAFETY: the buffer has just been claimed, so the kernel does not write to it and no
        // reference to it exists.
        let filled = unsafe { &*self.pool.buffers()[usize::from(buffer)].get() };
        let out = RecvMsgOut::parse(&filled.head, self.request).expect("the head has this room");
        let envelope = &mut self.envelopes[self.taken.len()];
        envelope.fill(out.name_data(), out.control_data());
        // The kernel writes lengths within the buffer; a wrong one must not reach a slice.
        envelope.payload_bytes = (out.incoming_payload_len() as usize).min(DATAGRAM_BYTES);
        envelope.truncated = out.is_payload_truncated();
        self.taken.push(Taken { buffer, socket });
    }
}

impl Outgoing {
    const EMPTY: Self = Self {
        header: empty_header(),
        vector: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
    };
}

/// Why this process cannot have a ring such as [`Ring::open`] makes, if it cannot. Leaves nothing.
pub fn obstacle() -> Result<(), Obstacle> {
    check_abilities(&disabled_ring()?)
}

/// A ring that does nothing before it is enabled.
fn disabled_ring() -> Result<IoUring, Obstacle> {
    IoUring::builder()
        // Restrictions can be registered only now, and cannot be lifted.
        .setup_r_disabled()
        // Completions are made when this thread waits for them, and never interrupt it.
        .setup_single_issuer()
        .setup_defer_taskrun()
        // A reply that cannot be sent does not hold up those behind it.
        .setup_submit_all()
        .setup_cqsize(URING_COMPLETIONS as u32)
        .build(URING_SUBMISSIONS as u32)
        .map_err(Obstacle::of_setup)
}

fn check_abilities(uring: &IoUring) -> Result<(), Obstacle> {
    let mut probe = Probe::new();
    uring
        .submitter()
        .register_probe(&mut probe)
        .map_err(Obstacle::of_step("asking for operations"))?;
    match Abilities::new(uring.params(), &probe).missing() {
        Some(missing) => Err(Obstacle::Lacks(missing)),
        None => Ok(()),
    }
}

fn register_buffers(submitter: &io_uring::Submitter<'_>, pool: &BufferPool) -> io::Result<()> {
    let entries = URING_BUFFERS as u16;
    // SAFETY: the ring of the pool has that many entries and is never freed. It is written to
    // with atomic operations only.
    unsafe {
        submitter.register_buf_ring_with_flags(pool.ring_address(), entries, buffers::GROUP, 0)
    }
}

/// A system-call filter does not see what a ring does, so the ring itself is kept to what it is
/// for: nothing can be registered any more, and three operations work, on registered files.
fn restrict(submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
    let flags = Flags::FIXED_FILE | Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS;
    submitter.register_restrictions(&mut [
        Restriction::sqe_op(opcode::RecvMsgMulti::CODE),
        Restriction::sqe_op(opcode::SendMsg::CODE),
        Restriction::sqe_op(opcode::PollAdd::CODE),
        Restriction::sqe_flags_allowed(flags.bits()),
        Restriction::sqe_flags_required(Flags::FIXED_FILE.bits()),
    ])
}

fn error_of(completion: &cqueue::Entry) -> io::Error {
    io::Error::from_raw_os_error(-completion.result())
}

/// Marks of the operations that are not a socket's receive; those are marked by their socket.
const WAKE: u64 = u64::MAX;
const SEND: u64 = u64::MAX - 1;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use io_uring::types::Fd;

    use super::*;

    #[test]
    fn the_ring_does_nothing_but_what_it_is_for() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (wake, _waker) = io::pipe().expect("a pipe");
        let mut ring = match Ring::open(std::slice::from_ref(&socket), wake.as_fd()) {
            Ok(ring) => ring,
            Err(obstacle) => return println!("NOT tested here: {obstacle}"),
        };
        let mut byte = 0;
        for operation in [
            opcode::Nop::new().build().flags(Flags::FIXED_FILE),
            opcode::Read::new(Fixed(0), &raw mut byte, 1).build(),
            opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLIN as u32).build(),
            opcode::PollAdd::new(Fixed(0), libc::POLLIN as u32).build().flags(Flags::ASYNC),
        ] {
            ring.push(&operation.user_data(SEND));
            ring.wait(Duration::from_secs(10)).expect("a completion");
            let Some(Event::SendFailed(error)) = ring.next_event() else { panic!("no refusal") };
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
        let error = ring.uring.submitter().register_files(&[0]).expect_err("a refusal");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_buffer_is_claimed_once_until_it_is_offered() {
        let mut pool = BufferPool::new();
        assert!(pool.claim(7));
        assert!(!pool.claim(7), "the kernel cannot give it twice");
        pool.offer(7);
        assert!(pool.claim(7));
        assert!(!pool.claim(URING_BUFFERS as u16), "nor one that does not exist");
    }
}
