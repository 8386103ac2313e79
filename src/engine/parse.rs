//! Stage 2, parse: classify each datagram and record where its parts lie.

use super::batch::{Datagram, InBatch, Lanes, Verdict, Verdicts};
use super::outcome::Outcome;
use crate::limits::NTP_PORT;
use crate::wire::Span;
use crate::wire::extension::padded;
use crate::wire::ntp::{HEADER_BYTES, Header, Mode};
use crate::wire::nts::{Direction, NtsFields, Refusal, Trailer, find};

/// A request with all NTS fields in their places, nothing of it authenticated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parsed {
    place: u8,
    fields: NtsFields,
}

impl Parsed {
    pub(super) fn fields(&self) -> &NtsFields {
        &self.fields
    }
}

impl InBatch for Parsed {
    fn place(&self) -> usize {
        usize::from(self.place)
    }
}

/// Decides every datagram that was admitted and is no NTS request, and finds those that are one.
pub(super) fn parse(
    batch: &mut [Datagram<'_>],
    verdicts: &mut Verdicts,
    parsed: &mut Lanes<Parsed>,
) {
    parsed.clear();
    for (place, (datagram, verdict)) in batch.iter_mut().zip(verdicts).enumerate() {
        if verdict.outcome != Outcome::Undecided {
            continue;
        }
        match classify(datagram) {
            Class::Decided(decision) => *verdict = decision,
            Class::UniqueIdentifierOnly(identifier) => {
                move_identifier(datagram.bytes, identifier);
                *verdict = Verdict::reply(Outcome::AnsweredPlain, HEADER_BYTES + identifier.len());
            }
            Class::Nts(fields) => parsed.push(Parsed { place: place as u8, fields }),
        }
    }
}

/// What a datagram is.
enum Class {
    Decided(Verdict),
    UniqueIdentifierOnly(Span),
    Nts(NtsFields),
}

fn classify(datagram: &Datagram<'_>) -> Class {
    let dropped = |outcome| Class::Decided(Verdict::drop(outcome));
    if datagram.truncated {
        return dropped(Outcome::DroppedTruncated);
    }
    let Some(header) = Header::parse(datagram.bytes) else {
        return dropped(Outcome::DroppedLength);
    };
    if datagram.bytes.len() != padded(datagram.bytes.len()) {
        return dropped(Outcome::DroppedLength);
    }
    if !(1..=4).contains(&header.version) {
        return dropped(Outcome::DroppedVersion);
    }
    if !is_request(&header, datagram.source.port()) {
        return dropped(Outcome::DroppedMode);
    }
    if datagram.bytes.len() == HEADER_BYTES {
        return Class::Decided(Verdict::reply(Outcome::AnsweredPlain, HEADER_BYTES));
    }
    if header.version < 4 {
        // Extension fields came with version 4 (RFC 5905); what follows an older header can only
        // be a message authentication code.
        return dropped(Outcome::DroppedMac);
    }
    match find(datagram.bytes, Direction::Request) {
        Trailer::Plain => Class::Decided(Verdict::reply(Outcome::AnsweredPlain, HEADER_BYTES)),
        Trailer::UniqueIdentifierOnly(identifier) => Class::UniqueIdentifierOnly(identifier),
        // RFC 8915 section 5: NTS fields stand in modes 3 and 4 only.
        Trailer::Nts(_) if header.mode != Mode::Client => dropped(Outcome::DroppedNtsIncomplete),
        Trailer::Nts(fields) => Class::Nts(fields),
        Trailer::Refused(refusal) => dropped(refusal.into()),
    }
}

/// Modes that get an answer: client; symmetric active, which gets a passive reply without any
/// state (old Windows clients ask so); and the client of version 1, which had no mode field and
/// is told from a server by its port (RFC 5905 section 9.2 keeps mode 0 for it).
fn is_request(header: &Header, source_port: u16) -> bool {
    match header.mode {
        Mode::Client | Mode::SymmetricActive => true,
        Mode::Reserved => header.version == 1 && source_port != NTP_PORT,
        _ => false,
    }
}

/// Moves the unique identifier field to where replies have it: right behind the header.
pub(super) fn move_identifier(bytes: &mut [u8], identifier: Span) {
    bytes.copy_within(identifier.range(), HEADER_BYTES);
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::DroppedMalformed,
            Refusal::Mac => Self::DroppedMac,
            Refusal::NtsIncomplete => Self::DroppedNtsIncomplete,
            Refusal::NtsInvalid => Self::DroppedNtsInvalid,
            Refusal::AuthenticatorMalformed => Self::DroppedAuthenticator,
        }
    }
}
