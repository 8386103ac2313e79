//! Extension fields and what follows them (RFC 7822).
//!
//! After the header an NTPv4 datagram holds extension fields and perhaps a message
//! authentication code. The two are told apart by what remains (RFC 7822 section 3): a rest of
//! up to 24 bytes can only be a code, a longer one starts with a field.

use super::Span;

/// Field type and length, in bytes, in front of the body.
pub const FIELD_HEADER_BYTES: usize = 4;

/// Smallest extension field outside of encryption (RFC 7822 section 3).
const FIELD_BYTES_MIN: usize = 16;

/// Longest message authentication code with its key identifier: SHA-1 (RFC 7822 section 3).
const MAC_BYTES_MAX: usize = 24;

/// Shortest one that authenticates: key identifier and a truncated digest.
const MAC_BYTES_MIN: usize = 16;

/// A key identifier alone: the crypto-NAK (RFC 5905 section 9.2).
const CRYPTO_NAK_BYTES: usize = 4;

/// Extension field type numbers (IANA "NTP Extension Field Types").
pub mod field_type {
    /// Unique Identifier (RFC 8915 section 5.3).
    pub const UNIQUE_IDENTIFIER: u16 = 0x0104;
    /// NTS Cookie (RFC 8915 section 5.4).
    pub const NTS_COOKIE: u16 = 0x0204;
    /// NTS Cookie Placeholder (RFC 8915 section 5.5).
    pub const NTS_COOKIE_PLACEHOLDER: u16 = 0x0304;
    /// NTS Authenticator and Encrypted Extension Fields (RFC 8915 section 5.6).
    pub const NTS_AUTHENTICATOR: u16 = 0x0404;
}

/// One extension field of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Type number, see [`field_type`].
    pub field_type: u16,
    /// Field with its 4-byte header.
    pub whole: Span,
    /// Body without the header; its padding belongs to it.
    pub body: Span,
}

/// What stands at one place behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An extension field.
    Field(Field),
    /// A message authentication code, always last.
    Mac(Span),
    /// Neither: a length that is no multiple of four, too short, or beyond the end. Nothing
    /// follows it.
    Malformed,
}

/// Walks the pieces behind `start` of a version 4 datagram; ends after a MAC or malformed bytes.
pub fn pieces(datagram: &[u8], start: usize) -> Pieces<'_> {
    Pieces { datagram, at: start, field_bytes_min: FIELD_BYTES_MIN, with_mac: true }
}

/// Walks the decrypted fields in `plaintext`: there is no MAC inside, and the minimum of RFC 7822
/// does not hold there (RFC 8915 section 5.6 knows no other minimum than a field's own header).
pub fn encrypted_pieces(plaintext: &[u8]) -> Pieces<'_> {
    Pieces { datagram: plaintext, at: 0, field_bytes_min: FIELD_HEADER_BYTES, with_mac: false }
}

/// Iterator of [`pieces`] and [`encrypted_pieces`].
#[derive(Debug)]
pub struct Pieces<'a> {
    datagram: &'a [u8],
    at: usize,
    field_bytes_min: usize,
    with_mac: bool,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let rest = self.datagram.get(self.at..)?;
        if rest.is_empty() {
            return None;
        }
        let piece = if self.with_mac && rest.len() <= MAC_BYTES_MAX {
            self.mac(rest)
        } else {
            self.field(rest)
        };
        self.at = match piece {
            Piece::Field(field) => field.whole.end(),
            Piece::Mac(_) | Piece::Malformed => self.datagram.len(),
        };
        Some(piece)
    }
}

impl Pieces<'_> {
    fn mac(&self, rest: &[u8]) -> Piece {
        match rest.len() {
            CRYPTO_NAK_BYTES | MAC_BYTES_MIN..=MAC_BYTES_MAX => {
                Piece::Mac(Span::new(self.at, rest.len()))
            }
            _ => Piece::Malformed,
        }
    }

    fn field(&self, rest: &[u8]) -> Piece {
        let Some(&[type_high, type_low, length_high, length_low]) = rest.first_chunk() else {
            return Piece::Malformed;
        };
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if length < self.field_bytes_min || !length.is_multiple_of(4) || length > rest.len() {
            return Piece::Malformed;
        }
        Piece::Field(Field {
            field_type: u16::from_be_bytes([type_high, type_low]),
            whole: Span::new(self.at, length),
            body: Span::new(self.at + FIELD_HEADER_BYTES, length - FIELD_HEADER_BYTES),
        })
    }
}

/// Writes the 4-byte header of a field whose body has `body_bytes` bytes (a multiple of four).
pub fn put_field_header(bytes: &mut [u8], at: usize, field_type: u16, body_bytes: usize) {
    let length = (FIELD_HEADER_BYTES + body_bytes) as u16;
    bytes[at..at + 2].copy_from_slice(&field_type.to_be_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// `length` rounded up to the multiple of four that field bodies are padded to.
pub const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ntp::HEADER_BYTES;

    fn field(field_type: u16, length: u16, bytes: usize) -> Vec<u8> {
        let mut field = vec![0; bytes];
        field[..2].copy_from_slice(&field_type.to_be_bytes());
        field[2..4].copy_from_slice(&length.to_be_bytes());
        field
    }

    fn walk(trailer: &[u8]) -> Vec<Piece> {
        let mut datagram = vec![0; HEADER_BYTES];
        datagram.extend_from_slice(trailer);
        pieces(&datagram, HEADER_BYTES).collect()
    }

    #[test]
    fn c085_length_counts_the_header_and_is_a_multiple_of_four_from_16() {
        for length in 0..40_u16 {
            let pieces = walk(&field(1, length, 40));
            let good = length >= 16 && length % 4 == 0;
            match pieces[0] {
                Piece::Field(found) => {
                    assert!(good, "length {length} accepted");
                    assert_eq!(found.whole.len(), usize::from(length));
                    assert_eq!(found.body.len(), usize::from(length) - 4);
                }
                Piece::Malformed => assert!(!good, "length {length} refused"),
                Piece::Mac(_) => panic!("40 bytes are no code"),
            }
        }
    }

    #[test]
    fn c086_a_rest_of_up_to_24_bytes_is_never_a_field() {
        for length in [16, 20, 24] {
            assert_eq!(
                walk(&field(1, length, usize::from(length))),
                [Piece::Mac(Span::new(HEADER_BYTES, usize::from(length)))]
            );
        }
        assert!(matches!(walk(&field(1, 28, 28))[..], [Piece::Field(_)]));
    }

    #[test]
    fn c087_a_field_then_a_mac() {
        for mac_bytes in [4, 16, 20, 24] {
            let mut trailer = field(1, 28, 28);
            trailer.extend(vec![7; mac_bytes]);
            let found = walk(&trailer);
            assert!(matches!(found[0], Piece::Field(_)));
            assert_eq!(found[1], Piece::Mac(Span::new(HEADER_BYTES + 28, mac_bytes)));
            assert_eq!(found.len(), 2);
        }
        for wrong in [8, 12] {
            assert_eq!(walk(&vec![0; wrong]), [Piece::Malformed]);
        }
    }

    #[test]
    fn c088_lengths_beyond_the_end_are_malformed() {
        for length in [0, 1, 3, 32, 0x7ffc, 0xfffc, 0xffff] {
            assert_eq!(walk(&field(1, length, 28)), [Piece::Malformed]);
        }
    }

    #[test]
    fn c071_encrypted_fields_may_be_short() {
        let mut plaintext = field(1, 4, 4);
        plaintext.extend(field(2, 8, 8));
        assert_eq!(encrypted_pieces(&plaintext).count(), 2);
        plaintext.extend([0, 0]);
        assert_eq!(encrypted_pieces(&plaintext).last(), Some(Piece::Malformed));
    }

    proptest! {
        /// Whatever the bytes, the walk ends, stays inside, and leaves no gap.
        #[test]
        fn any_bytes_are_walked_without_gaps(
            trailer in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            for walk in [pieces(&trailer, 0), encrypted_pieces(&trailer)] {
                let mut at = 0;
                for piece in walk {
                    match piece {
                        Piece::Field(field) => {
                            prop_assert_eq!(field.whole.start(), at);
                            at = field.whole.end();
                            prop_assert!(at <= trailer.len());
                        }
                        Piece::Mac(span) => prop_assert_eq!(span.end(), trailer.len()),
                        Piece::Malformed => {}
                    }
                }
            }
        }

        #[test]
        fn emitted_fields_are_found_again(
            types in proptest::collection::vec(any::<u16>(), 1..5),
            words in 6..40_usize,
        ) {
            let mut bytes = vec![0; types.len() * (words * 4 + 4)];
            for (index, &field_type) in types.iter().enumerate() {
                put_field_header(&mut bytes, index * (words * 4 + 4), field_type, words * 4);
            }
            let found: Vec<u16> = pieces(&bytes, 0)
                .map(|piece| match piece {
                    Piece::Field(field) => field.field_type,
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(found, types);
        }
    }
}
