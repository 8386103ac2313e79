//! From what the kernel wrote to the engine's datagrams: the same for every socket port.

use std::net::UdpSocket;

use arrayvec::ArrayVec;
use rustix::time::{ClockId, clock_gettime};

use super::hardware::Translator;
use super::{Batch, PortCounters};
use crate::engine::batch::Datagram;
use crate::limits::SOCKETS_PER_WORKER;
use crate::sys::message::{Envelope, Payload};
use crate::sys::socket::drops;
use crate::wire::timestamp::NtpTimestamp;

/// Lends received payloads as a batch and turns their envelopes for the replies. `received` is
/// at most a batch; each comes with the place of its socket in `drop_counts`. Stamps of interfaces
/// are for who has `hardware` to translate them.
pub(super) fn lend<'a>(
    received: impl Iterator<Item = (usize, &'a mut Payload, &'a mut Envelope)>,
    drop_counts: &mut DropCounts,
    counters: &mut PortCounters,
    mut hardware: Option<&mut Translator>,
) -> Batch<'a> {
    let mut fallback_arrival = None;
    if let Some(translator) = &mut hardware {
        translator.begin();
    }
    received
        .map(|(socket, payload, envelope)| {
            let told = envelope.turn();
            if let Some(total) = told.drops {
                counters.receive_drops += u64::from(drop_counts.advance(socket, total));
            }
            let mut arrival = told.arrival.unwrap_or_else(|| {
                counters.receive_timestamps_missing += 1;
                *fallback_arrival.get_or_insert_with(realtime)
            });
            if let Some(translator) = &mut hardware {
                envelope.interface = 0;
                if let Some(stamp) = told.hardware {
                    match translator.arrival(&stamp, arrival) {
                        Some(at) => {
                            counters.receive_timestamps_hardware += 1;
                            envelope.interface = stamp.interface;
                            arrival = at;
                        }
                        None => counters.receive_timestamps_hardware_refused += 1,
                    }
                }
            }
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
    use super::super::hardware::tests::{PHC_AHEAD, SYSTEM, system, translator};
    use super::*;
    use crate::limits::DATAGRAM_BYTES;
    use crate::sys::injected::Control;

    /// The arrivals of these envelopes, and which interfaces their replies may ask.
    fn lent(
        envelopes: &mut [Envelope],
        hardware: Option<&mut Translator>,
    ) -> (Vec<NtpTimestamp>, PortCounters) {
        let mut payloads = vec![[0; DATAGRAM_BYTES]; envelopes.len()];
        let mut counters = PortCounters::default();
        let received = payloads.iter_mut().zip(envelopes).map(|(payload, it)| (0, payload, it));
        let mut drop_counts = DropCounts([0].into_iter().collect());
        let batch = lend(received, &mut drop_counts, &mut counters, hardware);
        (batch.iter().map(|datagram| datagram.arrival).collect(), counters)
    }

    #[test]
    fn an_interface_s_stamp_wins_over_the_kernel_s_if_it_can_be_translated() {
        let came = || Control::new().software(SYSTEM - 5_000);
        let hardware = SYSTEM + PHC_AHEAD - 30_000;
        let mut envelopes = [
            came().envelope(),
            came().hardware(hardware).frame(3, 0).envelope(),
            // Of an interface that nobody follows, of none, and of a clock that is an hour off.
            came().hardware(hardware).frame(4, 0).envelope(),
            came().hardware(hardware).envelope(),
            came().hardware(hardware + 3_600_000_000_000).frame(3, 0).envelope(),
        ];
        let plain = vec![system(-5_000); 5];
        let (arrivals, counters) = lent(&mut envelopes.clone(), None);
        assert_eq!((arrivals, counters), (plain.clone(), PortCounters::default()));
        let (_page, mut translator) = translator();
        let (arrivals, counters) = lent(&mut envelopes, Some(&mut translator));
        let expected = PortCounters {
            receive_timestamps_hardware: 1,
            receive_timestamps_hardware_refused: 3,
            ..PortCounters::default()
        };
        assert_eq!(counters, expected);
        assert_eq!(arrivals[1], system(-30_000));
        assert_eq!([&arrivals[..1], &arrivals[2..]].concat(), plain[1..]);
        assert_eq!(envelopes.map(|envelope| envelope.interface), [0, 3, 0, 0, 0]);
    }

    #[test]
    fn an_envelope_forgets_who_stamped_the_datagram_before() {
        let (_page, mut translator) = translator();
        let mut envelope = Control::new().software(SYSTEM).envelope();
        envelope.interface = 3;
        let mut envelopes = [envelope];
        lent(&mut envelopes, Some(&mut translator));
        assert_eq!(envelopes[0].interface, 0);
    }

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
