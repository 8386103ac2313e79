//! The client side of NTS (RFC 8915 section 5.7): the engine turned round.

use arrayvec::ArrayVec;

use crate::aead::{NonceGenerator, TAG_BYTES, open_one, seal_one};
use crate::cookie::format::ClientKeys;
use crate::limits::{COOKIE_BYTES_MAX, COOKIES_PER_REPLY, NONCE_BYTES_MAX};
use crate::wire::extension::{FIELD_HEADER_BYTES, field_type, put_field_header};
use crate::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};
use crate::wire::nts::{
    Authenticator, AuthenticatorLayout, Direction, Trailer, UNIQUE_IDENTIFIER_BYTES_MIN,
    encrypted_cookies, find,
};
use crate::wire::timestamp::{NtpShort, NtpTimestamp};

/// A cookie, opaque to the client.
pub type Cookie = ArrayVec<u8, COOKIE_BYTES_MAX>;

/// Keys and cookies shared with one server.
#[derive(Debug)]
pub struct Association {
    keys: ClientKeys,
    cookies: ArrayVec<Cookie, COOKIES_PER_REPLY>,
}

/// Length of a request with the longest cookie and no placeholder.
pub const REQUEST_BYTES_MIN: usize = HEADER_BYTES
    + FIELD_HEADER_BYTES
    + UNIQUE_IDENTIFIER_BYTES_MIN
    + FIELD_HEADER_BYTES
    + COOKIE_BYTES_MAX
    + AuthenticatorLayout::bytes(NONCE_BYTES_MAX, TAG_BYTES);

/// What has to come back in the response to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Length of the request in bytes.
    pub request_bytes: usize,
    unique_identifier: [u8; UNIQUE_IDENTIFIER_BYTES_MIN],
    transmit_timestamp: NtpTimestamp,
    /// Zero of a request in basic mode.
    receive_timestamp: NtpTimestamp,
}

/// Why a response is not taken for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// No server reply, or of another request.
    #[error("the reply does not belong to the request")]
    Unrelated,
    /// The server could not authenticate the request: its keys have changed, most likely.
    #[error("the server refused the cookie (NTS NAK); its keys may have changed: start anew")]
    Nak,
    /// The authenticator is missing or wrong.
    #[error("the reply is not authentic")]
    NotAuthentic,
    /// A kiss-o'-death with this code.
    #[error("the server sent the kiss code {0}")]
    Kiss(ReferenceId),
}

/// The association has used up its cookies: key establishment has to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cookies are left: key establishment has to be repeated")]
pub struct CookiesSpent;

impl Association {
    /// From what key establishment brought. Cookies beyond the eighth, and those longer than 256
    /// bytes, are left out.
    pub fn new<'a>(keys: ClientKeys, cookies: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut association = Self { keys, cookies: ArrayVec::new() };
        association.add_cookies(cookies);
        association
    }

    /// How many cookies are left.
    pub fn cookies(&self) -> usize {
        self.cookies.len()
    }

    /// Writes a request into `buffer` and uses up one cookie; placeholders ask for as many as are
    /// missing (RFC 8915 section 5.7) and as fit into `buffer`, which has at least
    /// [`REQUEST_BYTES_MIN`].
    pub fn request(
        &mut self,
        buffer: &mut [u8],
        nonces: &mut NonceGenerator,
    ) -> Result<Pending, CookiesSpent> {
        let mut random = [0; 8];
        nonces.fill(&mut random);
        // Random instead of the time: the server has no use for it, and nobody on the way
        // learns the client's clock.
        let transmit_timestamp = NtpTimestamp::from_bits(u64::from_be_bytes(random));
        self.request_with(&request_header(transmit_timestamp), buffer, nonces)
    }

    /// [`Association::request`] with a header of the caller's: clients in interleaved mode
    /// (RFC 9769) send two timestamps, of which the response returns one or the other.
    pub fn request_with(
        &mut self,
        header: &Header,
        buffer: &mut [u8],
        nonces: &mut NonceGenerator,
    ) -> Result<Pending, CookiesSpent> {
        let missing = COOKIES_PER_REPLY - self.cookies.len();
        let cookie = self.cookies.pop_at(0).ok_or(CookiesSpent)?;
        let placeholders = missing.min(placeholders_that_fit(buffer.len(), cookie.len()));
        let mut pending = Pending {
            request_bytes: 0,
            unique_identifier: [0; UNIQUE_IDENTIFIER_BYTES_MIN],
            transmit_timestamp: header.transmit_timestamp,
            receive_timestamp: header.receive_timestamp,
        };
        nonces.fill(&mut pending.unique_identifier);

        let algorithm = self.keys.algorithm();
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = &mut nonce[..algorithm.nonce_bytes()];
        nonces.fill(nonce);
        let parts = RequestParts {
            transmit_timestamp: header.transmit_timestamp,
            unique_identifier: &pending.unique_identifier,
            cookie: &cookie,
            placeholders,
            nonce,
        };
        let layout = parts.write(buffer);
        buffer[..HEADER_BYTES].copy_from_slice(&header.emit());
        let (before, text) =
            buffer[..layout.ciphertext.end()].split_at_mut(layout.ciphertext.start());
        seal_one(algorithm, self.keys.c2s(), nonce, &before[..layout.start], text)
            .expect("keys, nonce and room are the algorithm's own");
        pending.request_bytes = layout.end;
        Ok(pending)
    }

    /// Checks a response and takes its cookies; returns its header. The bytes are decrypted in
    /// place.
    pub fn response(
        &mut self,
        pending: &Pending,
        response: &mut [u8],
    ) -> Result<Header, ResponseError> {
        let header = Header::parse(response).ok_or(ResponseError::Unrelated)?;
        let answers = header.mode == Mode::Server
            && header.version == 4
            && pending.is_origin(header.origin_timestamp);
        if !answers {
            return Err(ResponseError::Unrelated);
        }
        match find(response, Direction::Response) {
            Trailer::UniqueIdentifierOnly(identifier)
                if pending.is_identified_by(&response[identifier.range()])
                    && header.stratum == 0
                    && header.reference_id == ReferenceId::KISS_NTSN =>
            {
                Err(ResponseError::Nak)
            }
            Trailer::Nts(fields)
                if !pending.is_identified_by(&response[fields.unique_identifier.range()]) =>
            {
                Err(ResponseError::Unrelated)
            }
            Trailer::Nts(fields) => {
                self.open(response, &fields.authenticator)?;
                if is_kiss(&header) {
                    Err(ResponseError::Kiss(header.reference_id))
                } else {
                    Ok(header)
                }
            }
            _ => Err(ResponseError::NotAuthentic),
        }
    }

    /// Checks the authenticator and takes the cookies that it covers.
    fn open(
        &mut self,
        response: &mut [u8],
        authenticator: &Authenticator,
    ) -> Result<(), ResponseError> {
        let (before, sealed) = response[..authenticator.ciphertext.end()]
            .split_at_mut(authenticator.ciphertext.start());
        let algorithm = self.keys.algorithm();
        let nonce = &before[authenticator.nonce.range()];
        let associated_data = &before[..authenticator.start];
        open_one(algorithm, self.keys.s2c(), nonce, associated_data, sealed)
            .map_err(|_| ResponseError::NotAuthentic)?;
        let plaintext_bytes = sealed.len() - TAG_BYTES;
        let plaintext = &sealed[algorithm.plaintext_offset()..][..plaintext_bytes];
        self.add_cookies(encrypted_cookies(plaintext));
        Ok(())
    }

    fn add_cookies<'a>(&mut self, cookies: impl IntoIterator<Item = &'a [u8]>) {
        let fitting = cookies.into_iter().filter_map(|cookie| Cookie::try_from(cookie).ok());
        let room = self.cookies.remaining_capacity();
        self.cookies.extend(fitting.take(room));
    }
}

/// What a request with an empty plaintext is made of, in the order of its fields.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// What the response has to return as its origin timestamp.
    pub transmit_timestamp: NtpTimestamp,
    /// What it has to return as its unique identifier.
    pub unique_identifier: &'a [u8; UNIQUE_IDENTIFIER_BYTES_MIN],
    /// A cookie; its length is a multiple of four.
    pub cookie: &'a [u8],
    /// How many cookies are asked for beside the one in return.
    pub placeholders: usize,
    /// A nonce of the AEAD's own length.
    pub nonce: &'a [u8],
}

impl RequestParts<'_> {
    /// Length of the request in bytes.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES
            + FIELD_HEADER_BYTES
            + UNIQUE_IDENTIFIER_BYTES_MIN
            + (1 + self.placeholders) * (FIELD_HEADER_BYTES + self.cookie.len())
            + AuthenticatorLayout::bytes(self.nonce.len(), TAG_BYTES)
    }

    /// Writes all but the tag into `buffer`, which has at least [`Self::bytes`]; what remains is to
    /// seal an empty plaintext at the place of the ciphertext.
    pub fn write(&self, buffer: &mut [u8]) -> AuthenticatorLayout {
        buffer[..HEADER_BYTES].copy_from_slice(&request_header(self.transmit_timestamp).emit());
        let mut end = HEADER_BYTES;
        put(buffer, &mut end, field_type::UNIQUE_IDENTIFIER, self.unique_identifier);
        put(buffer, &mut end, field_type::NTS_COOKIE, self.cookie);
        let zeros = [0; COOKIE_BYTES_MAX];
        for _ in 0..self.placeholders {
            let body = &zeros[..self.cookie.len()];
            put(buffer, &mut end, field_type::NTS_COOKIE_PLACEHOLDER, body);
        }
        let layout = AuthenticatorLayout::new(end, self.nonce.len(), TAG_BYTES, 0);
        layout.put_frame(buffer);
        buffer[layout.nonce.range()].copy_from_slice(self.nonce);
        layout
    }
}

/// Stratum 0 with four letters (RFC 5905 section 7.4); a server without a clock has zeros there.
pub fn is_kiss(header: &Header) -> bool {
    header.stratum == 0 && header.reference_id.0.iter().all(u8::is_ascii_alphanumeric)
}

impl Pending {
    /// Whether a response returns a timestamp of the request: that of its transmission, or in
    /// interleaved mode, when the response before it was received (RFC 9769 section 2).
    fn is_origin(&self, timestamp: NtpTimestamp) -> bool {
        let is_interleaved = self.receive_timestamp != NtpTimestamp::ZERO;
        timestamp == self.transmit_timestamp
            || is_interleaved && timestamp == self.receive_timestamp
    }

    /// Whether a unique identifier field, header included, is the one that was sent.
    fn is_identified_by(&self, field: &[u8]) -> bool {
        field[FIELD_HEADER_BYTES..] == self.unique_identifier
    }
}

/// A request says nothing about the client but that it wants the time.
pub fn request_header(transmit_timestamp: NtpTimestamp) -> Header {
    Header {
        leap: Leap::None,
        version: 4,
        mode: Mode::Client,
        stratum: 0,
        poll: 0,
        precision: 0,
        root_delay: NtpShort::default(),
        root_dispersion: NtpShort::default(),
        reference_id: ReferenceId::NONE,
        reference_timestamp: NtpTimestamp::ZERO,
        origin_timestamp: NtpTimestamp::ZERO,
        receive_timestamp: NtpTimestamp::ZERO,
        transmit_timestamp,
    }
}

fn placeholders_that_fit(buffer_bytes: usize, cookie_bytes: usize) -> usize {
    let room = buffer_bytes.saturating_sub(REQUEST_BYTES_MIN - COOKIE_BYTES_MAX + cookie_bytes);
    room / (FIELD_HEADER_BYTES + cookie_bytes)
}

fn put(buffer: &mut [u8], end: &mut usize, field_type: u16, body: &[u8]) {
    put_field_header(buffer, *end, field_type, body.len());
    *end += FIELD_HEADER_BYTES;
    buffer[*end..*end + body.len()].copy_from_slice(body);
    *end += body.len();
}
