//! Stage 6, stamp: read the clock as late as possible and write the headers of all replies.

use super::batch::{Datagram, Verdicts};
use super::departure::Departures;
use super::interleaved::{Pairs, Timestamps};
use super::outcome::Outcome;
use crate::clock::Clock;
use crate::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};

/// Writes the header of every datagram that gets a reply. Returns how many are in interleaved mode;
/// the replies whose departure is wanted get their ticket into the verdict.
pub(super) fn stamp<C: Clock>(
    batch: &mut [Datagram<'_>],
    clock: &C,
    departures: &mut Departures,
    pairs: &mut Pairs,
    verdicts: &mut Verdicts,
) -> usize {
    let replies = verdicts.iter().filter(|verdict| verdict.reply_bytes > 0).count();
    let mut places = 0..replies;
    let now = clock.now();
    let schedule = departures.schedule(now, replies);
    let state = clock.state();
    let root_dispersion = state.root_dispersion(now);
    let mut can_use_pairs = None;
    let mut interleaved = 0;
    // One for the whole batch: arrival stays before departure, however the correction changes.
    let correction = state.correction(now);
    for (datagram, verdict) in batch.iter_mut().zip(verdicts) {
        if verdict.reply_bytes == 0 {
            continue;
        }
        let place = places.next().expect("it was counted");
        let departure = schedule.departure(place).plus(correction);
        let Some((header_bytes, _)) = datagram.bytes.split_first_chunk_mut::<HEADER_BYTES>() else {
            debug_assert!(false, "a datagram that gets a reply has a header");
            continue;
        };
        let Some(request) = Header::parse(header_bytes) else { continue };
        let arrival = datagram.arrival.plus(correction);
        let kiss_code = kiss_code(verdict.outcome);
        let mut times = Timestamps::basic(&request, arrival, departure);
        if pairs.concern(&request)
            && kiss_code.is_none()
            && *can_use_pairs.get_or_insert_with(|| pairs.follow(now, clock))
        {
            let asked = Timestamps::of(&request);
            let exchanged = pairs.exchange(datagram.source.ip(), asked, arrival, departure);
            times = exchanged.reply;
            verdict.departure = Some(exchanged.ticket);
            interleaved += usize::from(exchanged.is_interleaved);
        }
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
            origin_timestamp: times.origin,
            receive_timestamp: times.receive,
            transmit_timestamp: times.transmit,
        };
        if let Some(code) = kiss_code {
            kiss(&mut reply, code);
        }
        *header_bytes = reply.emit();
    }
    interleaved
}

fn reply_mode(request: Mode) -> Mode {
    match request {
        Mode::SymmetricActive => Mode::SymmetricPassive,
        _ => Mode::Server,
    }
}

/// The code of a reply that is a kiss-o'-death.
fn kiss_code(outcome: Outcome) -> Option<ReferenceId> {
    match outcome {
        Outcome::NtsNak => Some(ReferenceId::KISS_NTSN),
        Outcome::KissRate | Outcome::KissRateNts => Some(ReferenceId::KISS_RATE),
        _ => None,
    }
}

/// Kiss-o'-death (RFC 5905 section 7.4): stratum 0 and the code in place of the reference.
fn kiss(reply: &mut Header, code: ReferenceId) {
    reply.leap = Leap::Unsynchronised;
    reply.stratum = 0;
    reply.reference_id = code;
}
