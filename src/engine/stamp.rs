//! Stage 5, stamp: read the clock as late as possible and write the headers of all replies.

use super::batch::{Datagram, Verdicts};
use super::departure::Departures;
use super::outcome::Outcome;
use crate::clock::Clock;
use crate::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};
use crate::wire::timestamp::NtpTimestamp;

/// Writes the header of every datagram that gets a reply.
pub(super) fn stamp<C: Clock>(
    batch: &mut [Datagram<'_>],
    clock: &C,
    verdicts: &Verdicts,
    departures: &mut Departures,
) {
    let replies = verdicts.iter().filter(|verdict| verdict.reply_bytes > 0).count();
    let mut places = 0..replies;
    let now = clock.now();
    let schedule = departures.schedule(now, replies);
    let state = clock.state();
    let root_dispersion = state.root_dispersion(now);
    // One for the whole batch: arrival stays before departure, however the correction changes.
    let correction = state.correction(now);
    for (datagram, verdict) in batch.iter_mut().zip(verdicts) {
        if verdict.reply_bytes == 0 {
            continue;
        }
        let departure = schedule.departure(places.next().expect("it was counted"));
        let Some((header_bytes, _)) = datagram.bytes.split_first_chunk_mut::<HEADER_BYTES>() else {
            debug_assert!(false, "a datagram that gets a reply has a header");
            continue;
        };
        let Some(request) = Header::parse(header_bytes) else { continue };
        let mut reply = Header {
            leap: state.leap,
            version: request.version,
            mode: reply_mode(request.mode),
            stratum: state.stratum,
            poll: request.poll,
            precision: state.precision,
            root_delay: state.root_delay,
            root_dispersion,
            reference_id: state.reference_id,
            reference_timestamp: state.reference_timestamp,
            // Bit for bit: clients put random numbers here (RFC 9109's companion habit).
            origin_timestamp: request.transmit_timestamp,
            receive_timestamp: datagram.arrival.plus(correction),
            transmit_timestamp: after(departure, datagram.arrival).plus(correction),
        };
        if verdict.outcome == Outcome::NtsNak {
            kiss(&mut reply, ReferenceId::KISS_NTSN);
        }
        *header_bytes = reply.emit();
    }
}

fn reply_mode(request: Mode) -> Mode {
    match request {
        Mode::SymmetricActive => Mode::SymmetricPassive,
        _ => Mode::Server,
    }
}

/// The transmit time: later than the arrival even when the clock was stepped back in between,
/// and never equal to it, by which interleaved clients tell the modes apart (RFC 9769 section 2).
fn after(departure: NtpTimestamp, arrival: NtpTimestamp) -> NtpTimestamp {
    departure.later(arrival.next())
}

/// Kiss-o'-death (RFC 5905 section 7.4): stratum 0 and the code in place of the reference.
fn kiss(reply: &mut Header, code: ReferenceId) {
    reply.leap = Leap::Unsynchronised;
    reply.stratum = 0;
    reply.reference_id = code;
}
