//! The memory port: datagrams come from a queue and go to a list. For tests.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::{Batch, Port, PortCounters};
use crate::engine::batch::{Datagram, Verdicts};
use crate::limits::BATCH_DATAGRAMS;
use crate::wire::timestamp::NtpTimestamp;

/// A datagram in memory, with the other end's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Payload.
    pub bytes: Vec<u8>,
    /// When it arrived.
    pub arrival: NtpTimestamp,
    /// The client.
    pub peer: SocketAddr,
}

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// What will be received.
    pub requests: VecDeque<Packet>,
    /// What was sent.
    pub replies: Vec<Packet>,
    received: Vec<Packet>,
}

impl Port for MemoryPort {
    fn recv(&mut self) -> usize {
        let count = self.requests.len().min(BATCH_DATAGRAMS);
        self.received = self.requests.drain(..count).collect();
        count
    }

    fn batch(&mut self) -> Batch<'_> {
        self.received
            .iter_mut()
            .map(|packet| Datagram {
                bytes: &mut packet.bytes,
                arrival: packet.arrival,
                source: packet.peer,
                truncated: false,
            })
            .collect()
    }

    fn send(&mut self, verdicts: &Verdicts) {
        for (mut packet, verdict) in self.received.drain(..).zip(verdicts) {
            if verdict.reply_bytes > 0 {
                packet.bytes.truncate(verdict.reply_bytes.into());
                self.replies.push(packet);
            }
        }
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}
