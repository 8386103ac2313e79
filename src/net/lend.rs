//! From what the kernel wrote to the engine's datagrams: the same for every socket port.

use rustix::time::{ClockId, clock_gettime};

use super::{Batch, PortCounters};
use crate::engine::batch::Datagram;
use crate::sys::message::{Envelope, Payload};
use crate::wire::timestamp::NtpTimestamp;

/// Lends received payloads as a batch and turns their envelopes for the replies. `received` is
/// at most a batch.
pub(super) fn lend<'a>(
    received: impl Iterator<Item = (&'a mut Payload, &'a mut Envelope)>,
    counters: &mut PortCounters,
) -> Batch<'a> {
    let mut fallback_arrival = None;
    received
        .map(|(payload, envelope)| {
            let arrival = envelope.turn().unwrap_or_else(|| {
                counters.receive_timestamps_missing += 1;
                *fallback_arrival.get_or_insert_with(realtime)
            });
            Datagram {
                bytes: &mut payload[..envelope.payload_bytes],
                arrival,
                source: envelope.peer(),
                truncated: envelope.truncated,
            }
        })
        .collect()
}

fn realtime() -> NtpTimestamp {
    let now = clock_gettime(ClockId::Realtime);
    NtpTimestamp::from_unix(now.tv_sec, now.tv_nsec as u32)
}
