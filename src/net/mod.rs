//! The worker loop and its ports.
//!
//! A port is a way to get batches of datagrams in and out: [`mmsg`] and [`uring`] through the
//! kernel's sockets, [`memory`] for tests. [`worker::Worker::run`] drives any of them by the same
//! four verbs.

pub mod hardware;
pub mod latest;
mod lend;
pub mod memory;
pub mod mmsg;
mod stamps;
mod turns;
pub mod uring;
pub mod worker;

use arrayvec::ArrayVec;

use crate::engine::batch::{Datagram, Verdicts};
use crate::limits::BATCH_DATAGRAMS;

pub use self::stamps::Departed;

/// A batch of datagrams, lent out by its port.
pub type Batch<'a> = ArrayVec<Datagram<'a>, BATCH_DATAGRAMS>;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortChoice {
    /// The mmsg port: the simpler one, until a bench shows the other ahead (docs/ARCHITECTURE.md).
    #[default]
    Auto,
    /// [`mmsg`].
    Mmsg,
    /// [`uring`].
    Uring,
}

/// A way to receive and send batches. The calls come in the order of the methods.
pub trait Port {
    /// Waits for datagrams, at most until the next sweep is due, and takes up to a batch of them.
    /// Returns how many; 0 when none came.
    fn recv(&mut self) -> usize;

    /// The datagrams of the last [`Port::recv`].
    fn batch(&mut self) -> Batch<'_>;

    /// Sends the replies among the datagrams of the last [`Port::recv`]; the verdicts are in
    /// their order.
    fn send(&mut self, verdicts: &Verdicts);

    /// What the port could not do, so far.
    fn counters(&self) -> PortCounters;

    /// The replies that are known to have left since the last call, of those whose departure the
    /// verdicts asked for: as many as the kernel has told by now. Costs nothing if none asked.
    fn departed(&mut self) -> &[Departed] {
        &[]
    }
}

/// What a port did beside its work, and could not do. None of it stops the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Datagrams without a kernel timestamp; the time of their receive call was taken instead.
    pub receive_timestamps_missing: u64,
    /// Datagrams whose arrival is by their interface's clock.
    pub receive_timestamps_hardware: u64,
    /// Datagrams that have a timestamp of their interface that could not be translated: its clock
    /// is not followed, or was stepped, or contradicts the kernel's timestamp, which stands then.
    pub receive_timestamps_hardware_refused: u64,
    /// Datagrams that the kernel dropped at a socket: its receive buffer was full, or a checksum
    /// was wrong (`SO_RXQ_OVFL`). A drop is told of by the datagram that is queued after it.
    pub receive_drops: u64,
    /// Receive calls that failed.
    pub receive_errors: u64,
    /// Times that all receive buffers of a ring were in use. The datagrams waited in their
    /// socket meanwhile. Always 0 for a port that has no ring.
    pub buffers_exhausted: u64,
    /// Replies that the kernel refused: no route, a forbidden address, no memory.
    pub send_errors: u64,
    /// Replies dropped because the socket's send buffer stayed full.
    pub send_buffer_full: u64,
    /// Replies whose departure the kernel has told.
    pub transmit_timestamps: u64,
    /// Replies whose departure it did not tell in time; the predicted one stands then.
    pub transmit_timestamps_missing: u64,
    /// Replies whose departure is by their interface's clock; they are among those that were told.
    pub transmit_timestamps_hardware: u64,
    /// Replies that their interface has stamped, without a translation, as with arrivals.
    pub transmit_timestamps_hardware_refused: u64,
    /// What else was in an error queue: errors, and timestamps that nobody waits for.
    pub error_queue_strays: u64,
}

impl PortCounters {
    /// Names of all counters, in the order of [`PortCounters::values`].
    pub const NAMES: [&'static str; 13] = [
        "receive_timestamps_missing",
        "receive_timestamps_hardware",
        "receive_timestamps_hardware_refused",
        "receive_errors",
        "receive_drops",
        "buffers_exhausted",
        "send_errors",
        "send_buffer_full",
        "transmit_timestamps",
        "transmit_timestamps_missing",
        "transmit_timestamps_hardware",
        "transmit_timestamps_hardware_refused",
        "error_queue_strays",
    ];

    /// The totals.
    pub fn values(self) -> [u64; Self::NAMES.len()] {
        // Every field by its name: a new one cannot be forgotten here.
        let Self {
            receive_timestamps_missing,
            receive_timestamps_hardware,
            receive_timestamps_hardware_refused,
            receive_errors,
            receive_drops,
            buffers_exhausted,
            send_errors,
            send_buffer_full,
            transmit_timestamps,
            transmit_timestamps_missing,
            transmit_timestamps_hardware,
            transmit_timestamps_hardware_refused,
            error_queue_strays,
        } = self;
        [
            receive_timestamps_missing,
            receive_timestamps_hardware,
            receive_timestamps_hardware_refused,
            receive_errors,
            receive_drops,
            buffers_exhausted,
            send_errors,
            send_buffer_full,
            transmit_timestamps,
            transmit_timestamps_missing,
            transmit_timestamps_hardware,
            transmit_timestamps_hardware_refused,
            error_queue_strays,
        ]
    }
}
