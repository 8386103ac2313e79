//! Whether a datagram is the answer to a request: first by its looks, then by its tag.

use timeball::aead::ReplyOpen;
use timeball::client::is_kiss;
use timeball::wire::extension::FIELD_HEADER_BYTES;
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::nts::{Authenticator, Direction, Trailer, encrypted_cookies, find};
use timeball::wire::timestamp::NtpTimestamp;

use crate::associations::Associations;
use crate::flight::{Flight, Found, Named, Sent};
use crate::record::Invalid;
use crate::request::Writer;

/// What a datagram is by its looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Looks {
    /// The answer to a request that waits, as far as one can tell without its keys.
    Answer(Candidate),
    /// To one that has had its answer.
    Duplicate,
    /// To one that was given up.
    Forgotten,
    /// None, for this reason.
    Invalid(Reason),
}

/// An answer that is still to be authenticated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The request's transmit timestamp, by which it is known.
    pub request: NtpTimestamp,
    /// The request.
    pub sent: Sent,
    /// What it says.
    pub says: Says,
    /// It named the request by its receive timestamp (RFC 9769 section 2).
    pub is_interleaved: bool,
    /// When the server received the request, by its own clock.
    pub receive_timestamp: NtpTimestamp,
    /// The authenticator of an NTS answer; a NAK has none.
    pub authenticator: Option<Authenticator>,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The time.
    Time {
        /// The server's own judgement.
        is_synchronised: bool,
    },
    /// An NTS NAK (RFC 8915 section 5.7).
    Nak,
    /// A kiss-o'-death (RFC 5905 section 7.4).
    Kiss(ReferenceId),
}

/// Why a datagram is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see the fields of `Invalid`")]
pub enum Reason {
    Foreign,
    Header,
    Unknown,
    Length,
    Identifier,
    Fields,
    Tag,
    Cookies,
}

impl Reason {
    /// Its counter.
    pub fn count(self, invalid: &mut Invalid) -> &mut u64 {
        match self {
            Self::Foreign => &mut invalid.foreign,
            Self::Header => &mut invalid.header,
            Self::Unknown => &mut invalid.unknown,
            Self::Length => &mut invalid.length,
            Self::Identifier => &mut invalid.identifier,
            Self::Fields => &mut invalid.fields,
            Self::Tag => &mut invalid.tag,
            Self::Cookies => &mut invalid.cookies,
        }
    }
}

/// Judges a datagram from the server by its looks. `is_nts` says what was asked.
pub fn look(datagram: &[u8], is_nts: bool, flight: &Flight, writer: &Writer) -> Looks {
    let header = match Header::parse(datagram) {
        Some(header) if header.mode == Mode::Server && header.version == 4 => header,
        _ => return Looks::Invalid(Reason::Header),
    };
    let Named { transmit: request, is_interleaved } = flight.name(header.origin_timestamp);
    let sent = match flight.find(request) {
        Found::Waiting(sent) => sent,
        Found::Done => return Looks::Duplicate,
        Found::Forgotten => return Looks::Forgotten,
        Found::Unknown => return Looks::Invalid(Reason::Unknown),
    };
    if datagram.len() > usize::from(sent.bytes) {
        return Looks::Invalid(Reason::Length);
    }
    let says = if is_kiss(&header) {
        Says::Kiss(header.reference_id)
    } else {
        Says::Time { is_synchronised: header.leap != Leap::Unsynchronised && header.stratum > 0 }
    };
    let answer = |says, authenticator| {
        let receive_timestamp = header.receive_timestamp;
        let candidate =
            Candidate { request, sent, says, is_interleaved, receive_timestamp, authenticator };
        Looks::Answer(candidate)
    };
    if !is_nts {
        return answer(says, None);
    }
    let is_ours =
        |field: &[u8]| writer.is_identifier(request.to_bits(), &field[FIELD_HEADER_BYTES..]);
    match find(datagram, Direction::Response) {
        Trailer::Nts(fields) if !is_ours(&datagram[fields.unique_identifier.range()]) => {
            Looks::Invalid(Reason::Identifier)
        }
        Trailer::Nts(fields) => answer(says, Some(fields.authenticator)),
        Trailer::UniqueIdentifierOnly(field) if !is_ours(&datagram[field.range()]) => {
            Looks::Invalid(Reason::Identifier)
        }
        Trailer::UniqueIdentifierOnly(_) if says == Says::Kiss(ReferenceId::KISS_NTSN) => {
            answer(Says::Nak, None)
        }
        _ => Looks::Invalid(Reason::Fields),
    }
}

/// The work that authenticates an answer and decrypts it in place.
pub fn job<'a>(
    candidate: &Candidate,
    authenticator: &Authenticator,
    datagram: &'a mut [u8],
    associations: &'a Associations,
) -> ReplyOpen<'a> {
    let (before, sealed) =
        datagram[..authenticator.ciphertext.end()].split_at_mut(authenticator.ciphertext.start());
    ReplyOpen {
        algorithm: associations.algorithm(),
        key: associations.s2c(candidate.sent.client as usize),
        nonce: &before[authenticator.nonce.range()],
        associated_data: &before[..authenticator.start],
        sealed,
        passed: false,
    }
}

/// Takes the cookies of an authentic answer; false if they are not those that were asked for.
pub fn take_cookies(
    candidate: &Candidate,
    authenticator: &Authenticator,
    datagram: &[u8],
    associations: &mut Associations,
) -> bool {
    let sealed = &datagram[authenticator.ciphertext.range()];
    let offset = associations.algorithm().plaintext_offset();
    let plaintext = &sealed[offset..][..sealed.len() - timeball::aead::TAG_BYTES];
    let wanted = usize::from(candidate.sent.cookies);
    let has_length = |cookie: &[u8]| cookie.len() == associations.cookie_bytes();
    if encrypted_cookies(plaintext).filter(|cookie| has_length(cookie)).count() != wanted
        || encrypted_cookies(plaintext).count() != wanted
    {
        return false;
    }
    encrypted_cookies(plaintext)
        .all(|cookie| associations.add_cookie(candidate.sent.client as usize, cookie))
}
