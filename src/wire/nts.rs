//! NTS fields of an NTP datagram (RFC 8915 section 5), found for the server and for the client.

use super::Span;
use super::extension::{
    FIELD_HEADER_BYTES, Field, Piece, encrypted_pieces, field_type, padded, pieces,
    put_field_header,
};
use super::ntp::HEADER_BYTES;

/// Shortest unique identifier (RFC 8915 section 5.3).
pub const UNIQUE_IDENTIFIER_BYTES_MIN: usize = 32;

/// Nonce length and ciphertext length in front of an authenticator's body.
pub const AUTHENTICATOR_LENGTHS_BYTES: usize = 4;

/// The NTS fields of a datagram, by place. Nothing here is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtsFields {
    /// The Unique Identifier field with its header.
    pub unique_identifier: Span,
    /// Body of the cookie field; empty in a response, whose cookies are encrypted.
    pub cookie: Span,
    /// Placeholders whose body is as long as the cookie (RFC 8915 section 5.5).
    pub placeholders: usize,
    /// The authenticator.
    pub authenticator: Authenticator,
}

/// The Authenticator and Encrypted Extension Fields field (RFC 8915 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticator {
    /// Where the field starts: all before it is the associated data.
    pub start: usize,
    /// The nonce without its padding.
    pub nonce: Span,
    /// The ciphertext without its padding.
    pub ciphertext: Span,
    /// Length of the field's body.
    body_bytes: usize,
}

impl Authenticator {
    fn parse(datagram: &[u8], field: &Field) -> Option<Self> {
        let body = &datagram[field.body.range()];
        let &[nonce_high, nonce_low, ciphertext_high, ciphertext_low] = body.first_chunk()?;
        let nonce_bytes = usize::from(u16::from_be_bytes([nonce_high, nonce_low]));
        let ciphertext_bytes = usize::from(u16::from_be_bytes([ciphertext_high, ciphertext_low]));
        let lengths = AUTHENTICATOR_LENGTHS_BYTES + padded(nonce_bytes) + padded(ciphertext_bytes);
        if nonce_bytes == 0 || lengths > body.len() {
            return None;
        }
        let nonce_start = field.body.start() + AUTHENTICATOR_LENGTHS_BYTES;
        Some(Self {
            start: field.whole.start(),
            nonce: Span::new(nonce_start, nonce_bytes),
            ciphertext: Span::new(nonce_start + padded(nonce_bytes), ciphertext_bytes),
            body_bytes: body.len(),
        })
    }

    /// Whether the body leaves room for the longest nonce of the AEAD, as a client with a shorter
    /// one has to (RFC 8915 section 5.6, "Additional Padding"): the reply's own nonce fits then.
    pub fn has_required_padding(&self, nonce_bytes_required: usize) -> bool {
        AUTHENTICATOR_LENGTHS_BYTES
            + padded(self.nonce.len().max(nonce_bytes_required))
            + padded(self.ciphertext.len())
            <= self.body_bytes
    }
}

/// What the trailer of a version 4 datagram is, seen as NTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// No NTS field; unknown fields may be there and are ignored.
    Plain,
    /// A unique identifier and no other NTS field (RFC 8915 section 5.3 allows it).
    UniqueIdentifierOnly(Span),
    /// Identifier and authenticator are there, and a cookie if this is a request.
    Nts(NtsFields),
    /// No answer is due, for this reason.
    Refused(Refusal),
}

/// Why a trailer cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The framing is broken (RFC 7822).
    Malformed,
    /// A message authentication code: symmetric keys are not supported.
    Mac,
    /// Identifier, cookie or authenticator is missing while another NTS field is there.
    NtsIncomplete,
    /// An identifier, or a second cookie or identifier, that RFC 8915 does not allow.
    NtsInvalid,
    /// The authenticator's own lengths do not fit into it.
    AuthenticatorMalformed,
}

/// Who reads the datagram: a request must carry a cookie, a response none outside of encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    Request,
    /// Server to client.
    Response,
}

/// Finds the NTS fields behind the header of a version 4 datagram.
///
/// Fields behind the authenticator are not authenticated and count for nothing, but their
/// framing has to be sound (RFC 8915 section 5.7: the server discards them and answers).
pub fn find(datagram: &[u8], direction: Direction) -> Trailer {
    let mut found = Found::default();
    for piece in pieces(datagram, HEADER_BYTES) {
        let field = match piece {
            Piece::Field(field) => field,
            Piece::Mac(_) => return Trailer::Refused(Refusal::Mac),
            Piece::Malformed => return Trailer::Refused(Refusal::Malformed),
        };
        if found.authenticator.is_some() {
            continue;
        }
        if let Err(refusal) = found.take(datagram, &field) {
            return Trailer::Refused(refusal);
        }
    }
    found.judge(direction)
}

/// The fields seen so far.
#[derive(Default)]
struct Found {
    unique_identifier: Option<Field>,
    cookie: Option<Field>,
    authenticator: Option<Authenticator>,
    /// Counted by body length, because a placeholder may stand in front of the cookie. The few
    /// bytes of a body length suffice: a client repeats one placeholder.
    placeholder_bytes: Option<usize>,
    placeholders: usize,
    placeholders_mixed: bool,
}

impl Found {
    fn take(&mut self, datagram: &[u8], field: &Field) -> Result<(), Refusal> {
        match field.field_type {
            field_type::UNIQUE_IDENTIFIER => {
                let too_short = field.body.len() < UNIQUE_IDENTIFIER_BYTES_MIN;
                if too_short || self.unique_identifier.replace(*field).is_some() {
                    return Err(Refusal::NtsInvalid);
                }
            }
            field_type::NTS_COOKIE if self.cookie.is_none() => self.cookie = Some(*field),
            field_type::NTS_COOKIE => return Err(Refusal::NtsInvalid),
            field_type::NTS_COOKIE_PLACEHOLDER => {
                let body_bytes = field.body.len();
                self.placeholders_mixed |=
                    *self.placeholder_bytes.get_or_insert(body_bytes) != body_bytes;
                self.placeholders += 1;
            }
            field_type::NTS_AUTHENTICATOR => {
                let authenticator = Authenticator::parse(datagram, field);
                self.authenticator = Some(authenticator.ok_or(Refusal::AuthenticatorMalformed)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(self, direction: Direction) -> Trailer {
        let is_request = direction == Direction::Request;
        match (self.unique_identifier, self.cookie, self.authenticator) {
            (None, None, None) if self.placeholders == 0 => Trailer::Plain,
            (Some(identifier), None, None) if self.placeholders == 0 => {
                Trailer::UniqueIdentifierOnly(identifier.whole)
            }
            (Some(identifier), cookie, Some(authenticator)) if cookie.is_some() == is_request => {
                let cookie = cookie.map(|cookie| cookie.body).unwrap_or_default();
                // RFC 8915 section 5.5: a placeholder is as long as the cookie it asks for.
                // Others are not honoured, and a mixture of lengths is none a client sends.
                let honoured =
                    !self.placeholders_mixed && self.placeholder_bytes == Some(cookie.len());
                Trailer::Nts(NtsFields {
                    unique_identifier: identifier.whole,
                    cookie,
                    placeholders: if honoured { self.placeholders } else { 0 },
                    authenticator,
                })
            }
            _ => Trailer::Refused(Refusal::NtsIncomplete),
        }
    }
}

/// Counts the placeholders of `cookie_bytes` among the decrypted fields of a request; `None` if
/// the plaintext is not a sequence of fields.
pub fn encrypted_placeholders(plaintext: &[u8], cookie_bytes: usize) -> Option<usize> {
    let mut placeholders = 0;
    for piece in encrypted_pieces(plaintext) {
        match piece {
            Piece::Field(field) => {
                let is_placeholder = field.field_type == field_type::NTS_COOKIE_PLACEHOLDER
                    && field.body.len() == cookie_bytes;
                placeholders += usize::from(is_placeholder);
            }
            Piece::Mac(_) | Piece::Malformed => return None,
        }
    }
    Some(placeholders)
}

/// Bodies of the cookie fields among the decrypted fields of a response; fields of other types
/// are passed by.
pub fn encrypted_cookies(plaintext: &[u8]) -> impl Iterator<Item = &[u8]> {
    encrypted_pieces(plaintext).filter_map(|piece| match piece {
        Piece::Field(field) if field.field_type == field_type::NTS_COOKIE => {
            Some(&plaintext[field.body.range()])
        }
        _ => None,
    })
}

/// Where the parts of an authenticator lie that starts at `start`, holds a nonce of
/// `nonce_bytes` and a ciphertext of `ciphertext_bytes`, and ends at `end` at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticatorLayout {
    /// Where the field starts: the associated data ends here.
    pub start: usize,
    /// The nonce.
    pub nonce: Span,
    /// The ciphertext, tag included.
    pub ciphertext: Span,
    /// Where the field ends, padding included.
    pub end: usize,
}

impl AuthenticatorLayout {
    /// Plans the field. Both lengths have to be multiples of four, as those of every AEAD in use
    /// are with whole fields inside; `end_min` asks for additional padding (RFC 8915 section 5.6).
    pub fn new(start: usize, nonce_bytes: usize, ciphertext_bytes: usize, end_min: usize) -> Self {
        debug_assert!(nonce_bytes.is_multiple_of(4) && ciphertext_bytes.is_multiple_of(4));
        let nonce_start = start + FIELD_HEADER_BYTES + AUTHENTICATOR_LENGTHS_BYTES;
        let nonce = Span::new(nonce_start, nonce_bytes);
        let ciphertext = Span::new(nonce.end(), ciphertext_bytes);
        Self { start, nonce, ciphertext, end: ciphertext.end().max(end_min) }
    }

    /// Length of the field without additional padding, in bytes.
    pub const fn bytes(nonce_bytes: usize, ciphertext_bytes: usize) -> usize {
        FIELD_HEADER_BYTES + AUTHENTICATOR_LENGTHS_BYTES + nonce_bytes + ciphertext_bytes
    }

    /// Writes everything but nonce and ciphertext: field header, lengths, zero padding.
    pub fn put_frame(&self, datagram: &mut [u8]) {
        let body_bytes = self.end - self.start - FIELD_HEADER_BYTES;
        put_field_header(datagram, self.start, field_type::NTS_AUTHENTICATOR, body_bytes);
        let lengths = self.start + FIELD_HEADER_BYTES;
        let nonce_bytes = (self.nonce.len() as u16).to_be_bytes();
        let ciphertext_bytes = (self.ciphertext.len() as u16).to_be_bytes();
        datagram[lengths..lengths + 2].copy_from_slice(&nonce_bytes);
        datagram[lengths + 2..lengths + 4].copy_from_slice(&ciphertext_bytes);
        datagram[self.ciphertext.end()..self.end].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A datagram with these fields, each `(type, body length)`, authenticators well-formed.
    fn datagram(fields: &[(u16, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        for &(field_type, body_bytes) in fields {
            let at = bytes.len();
            bytes.resize(at + FIELD_HEADER_BYTES + body_bytes, 0);
            put_field_header(&mut bytes, at, field_type, body_bytes);
            if field_type == field_type::NTS_AUTHENTICATOR && body_bytes >= 36 {
                bytes[at + 5] = 16;
                bytes[at + 7] = 16;
            }
        }
        bytes
    }

    const IDENTIFIER: (u16, usize) = (field_type::UNIQUE_IDENTIFIER, 32);
    const COOKIE: (u16, usize) = (field_type::NTS_COOKIE, 100);
    const PLACEHOLDER: (u16, usize) = (field_type::NTS_COOKIE_PLACEHOLDER, 100);
    const AUTHENTICATOR: (u16, usize) = (field_type::NTS_AUTHENTICATOR, 36);
    const UNKNOWN: (u16, usize) = (0x4242, 24);

    fn request(fields: &[(u16, usize)]) -> Trailer {
        find(&datagram(fields), Direction::Request)
    }

    fn placeholders(fields: &[(u16, usize)]) -> usize {
        match request(fields) {
            Trailer::Nts(fields) => fields.placeholders,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn c089_unknown_fields_are_plain() {
        assert_eq!(request(&[]), Trailer::Plain);
        assert_eq!(request(&[UNKNOWN]), Trailer::Plain);
    }

    #[test]
    fn c049_placeholders_of_the_cookies_length_count_wherever_they_stand() {
        assert_eq!(placeholders(&[IDENTIFIER, COOKIE, AUTHENTICATOR]), 0);
        assert_eq!(placeholders(&[IDENTIFIER, COOKIE, PLACEHOLDER, AUTHENTICATOR]), 1);
        assert_eq!(placeholders(&[PLACEHOLDER, IDENTIFIER, PLACEHOLDER, COOKIE, AUTHENTICATOR]), 2);
    }

    #[test]
    fn c054_placeholders_of_another_length_do_not_count() {
        let short = (field_type::NTS_COOKIE_PLACEHOLDER, 96);
        assert_eq!(placeholders(&[IDENTIFIER, COOKIE, short, AUTHENTICATOR]), 0);
        assert_eq!(placeholders(&[IDENTIFIER, COOKIE, short, PLACEHOLDER, AUTHENTICATOR]), 0);
    }

    #[test]
    fn c058_c061_a_second_cookie_or_identifier_is_refused() {
        let invalid = Trailer::Refused(Refusal::NtsInvalid);
        assert_eq!(request(&[IDENTIFIER, COOKIE, COOKIE, AUTHENTICATOR]), invalid);
        assert_eq!(request(&[IDENTIFIER, IDENTIFIER, COOKIE, AUTHENTICATOR]), invalid);
        assert_eq!(request(&[IDENTIFIER, IDENTIFIER]), invalid);
    }

    #[test]
    fn c059_what_is_incomplete_is_refused() {
        let incomplete = Trailer::Refused(Refusal::NtsIncomplete);
        for fields in [
            &[IDENTIFIER, COOKIE][..],
            &[IDENTIFIER, AUTHENTICATOR],
            &[COOKIE, AUTHENTICATOR],
            &[COOKIE],
            &[AUTHENTICATOR],
            &[PLACEHOLDER],
            &[IDENTIFIER, PLACEHOLDER],
        ] {
            assert_eq!(request(fields), incomplete, "{fields:?}");
        }
    }

    #[test]
    fn c060_a_short_identifier_is_refused() {
        let short = (field_type::UNIQUE_IDENTIFIER, 28);
        assert_eq!(request(&[short, UNKNOWN]), Trailer::Refused(Refusal::NtsInvalid));
        let long = (field_type::UNIQUE_IDENTIFIER, 256);
        assert!(
            matches!(request(&[long]), Trailer::UniqueIdentifierOnly(span) if span.len() == 260)
        );
    }

    #[test]
    fn c069_fields_behind_the_authenticator_count_for_nothing() {
        let with_trailing =
            request(&[IDENTIFIER, COOKIE, AUTHENTICATOR, COOKIE, PLACEHOLDER, IDENTIFIER]);
        assert_eq!(with_trailing, request(&[IDENTIFIER, COOKIE, AUTHENTICATOR]));
    }

    #[test]
    fn c092_a_trailing_mac_is_refused() {
        let mut bytes = datagram(&[IDENTIFIER, COOKIE, AUTHENTICATOR]);
        bytes.extend([0; 20]);
        assert_eq!(find(&bytes, Direction::Request), Trailer::Refused(Refusal::Mac));
    }

    /// Every pair of lengths: accepted exactly when both fit, never an overflow.
    #[test]
    fn c068_authenticator_lengths_stay_inside() {
        let base = datagram(&[IDENTIFIER, COOKIE, (field_type::NTS_AUTHENTICATOR, 60)]);
        let lengths_at = base.len() - 60;
        for nonce_bytes in (0..80_u16).chain([0x7fff, 0xfffc, 0xffff]) {
            for ciphertext_bytes in (0..80_u16).chain([0x7fff, 0xfffc, 0xffff]) {
                let mut bytes = base.clone();
                bytes[lengths_at..lengths_at + 2].copy_from_slice(&nonce_bytes.to_be_bytes());
                bytes[lengths_at + 2..lengths_at + 4]
                    .copy_from_slice(&ciphertext_bytes.to_be_bytes());
                let needed = 4 + padded(nonce_bytes.into()) + padded(ciphertext_bytes.into());
                let fits = nonce_bytes > 0 && needed <= 60;
                match find(&bytes, Direction::Request) {
                    Trailer::Nts(fields) => {
                        assert!(fits);
                        assert!(fields.authenticator.ciphertext.end() <= bytes.len());
                    }
                    other => {
                        assert!(!fits);
                        assert_eq!(other, Trailer::Refused(Refusal::AuthenticatorMalformed));
                    }
                }
            }
        }
    }

    /// RFC 8915 section 5.6: an 8-byte nonce needs the room of a 16-byte one.
    #[test]
    fn c066_required_padding() {
        let authenticator = |nonce_bytes, body_bytes| Authenticator {
            start: 0,
            nonce: Span::new(8, nonce_bytes),
            ciphertext: Span::new(8 + nonce_bytes, 16),
            body_bytes,
        };
        assert!(authenticator(16, 36).has_required_padding(16));
        assert!(!authenticator(8, 28).has_required_padding(16));
        assert!(authenticator(8, 36).has_required_padding(16));
        assert!(authenticator(12, 32).has_required_padding(12));
        assert!(authenticator(20, 40).has_required_padding(16));
    }

    proptest! {
        #[test]
        fn any_datagram_is_judged(bytes in proptest::collection::vec(any::<u8>(), 48..400)) {
            for direction in [Direction::Request, Direction::Response] {
                if let Trailer::Nts(fields) = find(&bytes, direction) {
                    prop_assert!(fields.authenticator.ciphertext.end() <= bytes.len());
                    prop_assert!(fields.unique_identifier.end() <= fields.authenticator.start);
                }
            }
        }

        /// What `put_frame` writes, `find` reads back.
        #[test]
        fn a_planned_authenticator_is_found(words in 4..80_usize, extra in 0..10_usize) {
            let mut bytes = datagram(&[IDENTIFIER]);
            let start = bytes.len();
            let natural_end = start + AuthenticatorLayout::bytes(16, words * 4);
            let layout = AuthenticatorLayout::new(start, 16, words * 4, natural_end + extra * 4);
            bytes.resize(layout.end, 0xff);
            layout.put_frame(&mut bytes);
            let Trailer::Nts(fields) = find(&bytes, Direction::Response) else {
                return Err(TestCaseError::fail("not found"));
            };
            prop_assert_eq!(fields.authenticator.start, start);
            prop_assert_eq!(fields.authenticator.nonce, layout.nonce);
            prop_assert_eq!(fields.authenticator.ciphertext, layout.ciphertext);
            prop_assert!(bytes[layout.ciphertext.end()..].iter().all(|&byte| byte == 0));
        }
    }
}
