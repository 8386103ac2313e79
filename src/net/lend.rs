//! From what the kernel wrote to the engine's datagrams: the same for every socket port.

use std::net::UdpSocket;

use arrayvec::ArrayVec;
use rustix::time::{ClockId, clock_gettime};

use super::{Batch, PortCounters};
use crate::engine::batch::Datagram;
use crate::limits::SOCKETS_PER_WORKER;
use crate::sys::message::{Envelope, Payload};
use crate::sys::socket::drops;
use crate::wire::timestamp::NtpTimestamp;

/// Lends received payloads as a batch and turns their envelopes for the replies. `received` is
/// at most a batch; each comes with the place of its socket in `drop_counts`.
pub(super) fn lend<'a>(
    received: impl Iterator<Item = (usize, &'a mut Payload, &'a mut Envelope)>,
    drop_counts: &mut DropCounts,
    counters: &mut PortCounters,
) -> Batch<'a> {
    let mut fallback_arrival = None;
    received
        .map(|(socket, payload, envelope)| {
            let told = envelope.turn();
            if let Some(total) = told.drops {
                counters.receive_drops += u64::from(drop_counts.advance(socket, total));
            }
            let arrival = told.arrival.unwrap_or_else(|| {
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

/// What the kernel told last of each socket's drops, modulo 2³².
#[derive(Debug)]
pub(super) struct DropCounts(ArrayVec<u32, SOCKETS_PER_WORKER>);

impl DropCounts {
    /// Counts from now on: an earlier responder may have had these sockets, and counted too.
    pub(super) fn of(sockets: &[UdpSocket]) -> Self {
        Self(sockets.iter().map(drops).collect())
    }

    /// Datagrams that were dropped at a socket since it was told of last. A datagram that two
    /// processors raced for its place in the queue may tell of fewer than the one before it.
    fn advance(&mut self, socket: usize, total: u32) -> u32 {
        let last = &mut self.0[socket];
        let more = total.wrapping_sub(*last);
        if more > i32::MAX as u32 {
            return 0;
        }
        *last = total;
        more
    }
}

fn realtime() -> NtpTimestamp {
    let now = clock_gettime(ClockId::Realtime);
    NtpTimestamp::from_unix(now.tv_sec, now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_for_each_socket_and_beyond_32_bits() {
        let mut counts = DropCounts([0, u32::MAX - 1].into_iter().collect());
        assert_eq!(counts.advance(0, 3), 3);
        assert_eq!(counts.advance(1, u32::MAX), 1);
        assert_eq!(counts.advance(0, 3), 0, "nothing new");
        assert_eq!(counts.advance(1, 4), 5, "the kernel's count began anew");
        assert_eq!(counts.advance(0, 2), 0, "told late");
        assert_eq!(counts.advance(0, 10), 7, "and not told twice");
        assert_eq!(counts.advance(1, u32::MAX), 0, "told late, from before the count began anew");
        assert_eq!(counts.advance(1, 5), 1);
    }
}
