//! NTS-KE records (RFC 8915 section 4), for both ends of the conversation.
//!
//! A message is a sequence of records `critical bit and type (2) | body length (2) | body`, closed
//! by an End of Message record. [`Scanner`] says when a message is complete, without knowing what
//! is in it; [`Request::parse`] and [`Response::parse`] take a complete message apart, and the
//! `emit` of either writes one. Parsing borrows from the message, and never panics.
//!
//! The unassigned numbers 8–14 and the private range from 0x4000 are used by drafts for pools of
//! servers; they have no meaning here.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::limits::{COOKIE_BYTES_MAX, COOKIES_PER_REPLY, KE_SERVER_NAME_BYTES_MAX};

/// What an NTS client asks for (RFC 8915 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Protocols the client can speak, best first; not empty.
    pub next_protocols: Ids<'a>,
    /// AEAD algorithms the client can use, best first; not empty. Always there when the client
    /// speaks NTPv4.
    pub aeads: Option<Ids<'a>>,
    /// The client knows that the exporter context of AEAD 30 holds 30 and not 15 (record 1024).
    pub compliant_128gcm: bool,
    /// The NTP server that the client wishes for.
    pub server: Option<&'a str>,
    /// The UDP port that the client wishes for.
    pub port: Option<u16>,
}

impl<'a> Request<'a> {
    /// Takes a complete request apart (RFC 8915 section 4.1).
    ///
    /// # Errors
    /// The first thing wrong in the order of the records; [`RequestError::code`] is the answer.
    pub fn parse(message: &'a [u8]) -> Result<Self, RequestError> {
        let mut fields = RequestFields::default();
        let mut records = Records::new(message);
        loop {
            let record = records.next().ok_or(FramingError::NoEnd)??;
            if record.kind == END_OF_MESSAGE {
                check_end(&record, records.rest)?;
                return fields.finish();
            }
            fields.take(&record)?;
        }
    }

    /// Appends the request to `out`, End of Message included. Next Protocol and AEAD are critical,
    /// the rest is not: clients SHOULD NOT set the bit on Server and Port (sections 4.1.7, 4.1.8).
    ///
    /// # Errors
    /// [`BodyTooLong`] for a server name of more than 65535 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
        push_record(out, true, NEXT_PROTOCOL, self.next_protocols.bytes)?;
        if let Some(aeads) = self.aeads {
            push_record(out, true, AEAD, aeads.bytes)?;
        }
        if self.compliant_128gcm {
            push_record(out, false, COMPLIANT_128GCM, &[])?;
        }
        if let Some(server) = self.server {
            push_record(out, false, SERVER, server.as_bytes())?;
        }
        if let Some(port) = self.port {
            push_record(out, false, PORT, &port.to_be_bytes())?;
        }
        push_record(out, true, END_OF_MESSAGE, &[])
    }
}

#[derive(Default)]
struct RequestFields<'a> {
    next_protocols: Option<Ids<'a>>,
    aeads: Option<Ids<'a>>,
    compliant_128gcm: bool,
    server: Option<&'a str>,
    port: Option<u16>,
}

impl<'a> RequestFields<'a> {
    fn take(&mut self, record: &Record<'a>) -> Result<(), RequestError> {
        let kind = record.kind;
        match kind {
            NEXT_PROTOCOL if !record.critical => return Err(RequestError::NotCritical(kind)),
            NEXT_PROTOCOL => set_once(&mut self.next_protocols, record.ids()?, kind)?,
            AEAD => set_once(&mut self.aeads, record.ids()?, kind)?,
            SERVER => set_once(&mut self.server, record.server()?, kind)?,
            PORT => set_once(&mut self.port, record.number()?, kind)?,
            COMPLIANT_128GCM if record.body.is_empty() => self.compliant_128gcm = true,
            COMPLIANT_128GCM => return Err(RequestError::Body(kind)),
            ERROR | WARNING | COOKIE => return Err(RequestError::Forbidden(kind)),
            _ if record.critical => return Err(RequestError::UnrecognizedCritical(kind)),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Request<'a>, RequestError> {
        let next_protocols = self.next_protocols.ok_or(RequestError::Missing(NEXT_PROTOCOL))?;
        if next_protocols.contains(NTPV4) && self.aeads.is_none() {
            return Err(RequestError::Missing(AEAD));
        }
        Ok(Request {
            next_protocols,
            aeads: self.aeads,
            compliant_128gcm: self.compliant_128gcm,
            server: self.server,
            port: self.port,
        })
    }
}

/// What an NTS-KE server says (RFC 8915 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// The request was refused (section 4.1.3).
    Error(ErrorCode),
    /// The request was understood; see the fields for what was agreed.
    Agreement(Agreement<'a>),
}

/// The records of an answer that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement<'a> {
    /// Protocols chosen out of the client's list; empty when none is shared.
    pub next_protocols: Ids<'a>,
    /// The algorithm chosen; an empty list when none is shared.
    pub aeads: Option<Ids<'a>>,
    /// Record 1024: the exporter context of AEAD 30 holds 30.
    pub compliant_128gcm: bool,
    /// The NTP server to ask; the address of the NTS-KE server when absent.
    pub server: Option<&'a str>,
    /// The UDP port to ask; 123 when absent.
    pub port: Option<u16>,
    /// Cookies, each of 1 to 256 bytes. What a server sends beyond eight is left out.
    pub cookies: ArrayVec<&'a [u8], COOKIES_PER_REPLY>,
}

impl<'a> Response<'a> {
    /// Takes a complete response apart (RFC 8915 section 4.1).
    ///
    /// # Errors
    /// Records that are malformed, doubled or critical and unknown, and any warning: no warning
    /// code is assigned, and an unknown one counts as an error (section 4.1.4).
    pub fn parse(message: &'a [u8]) -> Result<Self, ResponseError> {
        let mut fields = ResponseFields::default();
        let mut records = Records::new(message);
        loop {
            let record = records.next().ok_or(FramingError::NoEnd)??;
            if record.kind == END_OF_MESSAGE {
                check_end(&record, records.rest)?;
                return fields.finish();
            }
            fields.take(&record)?;
        }
    }

    /// Appends the response to `out`, End of Message included, in chrony's order of records.
    ///
    /// # Errors
    /// [`BodyTooLong`] for a server name or cookie of more than 65535 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
        match self {
            Self::Error(code) => push_record(out, true, ERROR, &code.0.to_be_bytes())?,
            Self::Agreement(agreement) => agreement.emit_records(out)?,
        }
        push_record(out, true, END_OF_MESSAGE, &[])
    }
}

impl Agreement<'_> {
    fn emit_records(&self, out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
        push_record(out, true, NEXT_PROTOCOL, self.next_protocols.bytes)?;
        if let Some(aeads) = self.aeads {
            push_record(out, true, AEAD, aeads.bytes)?;
        }
        if self.compliant_128gcm {
            push_record(out, false, COMPLIANT_128GCM, &[])?;
        }
        if let Some(port) = self.port {
            push_record(out, true, PORT, &port.to_be_bytes())?;
        }
        if let Some(server) = self.server {
            push_record(out, true, SERVER, server.as_bytes())?;
        }
        // A client that has no use for a cookie may ignore it: section 4.1.6 says SHOULD NOT.
        self.cookies.iter().try_for_each(|cookie| push_record(out, false, COOKIE, cookie))
    }
}

#[derive(Default)]
struct ResponseFields<'a> {
    error: Option<ErrorCode>,
    next_protocols: Option<Ids<'a>>,
    aeads: Option<Ids<'a>>,
    compliant_128gcm: bool,
    server: Option<&'a str>,
    port: Option<u16>,
    cookies: ArrayVec<&'a [u8], COOKIES_PER_REPLY>,
}

impl<'a> ResponseFields<'a> {
    fn take(&mut self, record: &Record<'a>) -> Result<(), ResponseError> {
        let kind = record.kind;
        match kind {
            ERROR => set_once(&mut self.error, ErrorCode(record.number()?), kind)?,
            WARNING => return Err(ResponseError::Warning(record.number()?)),
            NEXT_PROTOCOL => set_once(&mut self.next_protocols, record.ids_or_none()?, kind)?,
            AEAD => set_once(&mut self.aeads, record.ids_or_none()?, kind)?,
            SERVER => set_once(&mut self.server, record.server()?, kind)?,
            PORT => set_once(&mut self.port, record.number()?, kind)?,
            COMPLIANT_128GCM => self.compliant_128gcm = true,
            COOKIE => {
                if !(1..=COOKIE_BYTES_MAX).contains(&record.body.len()) {
                    return Err(ResponseError::Records(RequestError::Body(kind)));
                }
                // A ninth cookie does no harm; there is only no place for it.
                let _ = self.cookies.try_push(record.body);
            }
            _ if record.critical => {
                return Err(ResponseError::Records(RequestError::UnrecognizedCritical(kind)));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Response<'a>, ResponseError> {
        if let Some(code) = self.error {
            return Ok(Response::Error(code));
        }
        let missing = ResponseError::Records(RequestError::Missing(NEXT_PROTOCOL));
        Ok(Response::Agreement(Agreement {
            next_protocols: self.next_protocols.ok_or(missing)?,
            aeads: self.aeads,
            compliant_128gcm: self.compliant_128gcm,
            server: self.server,
            port: self.port,
            cookies: self.cookies,
        }))
    }
}

/// One record (RFC 8915 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Whoever does not know the type has to refuse the message.
    pub critical: bool,
    /// Type, 15 bits.
    pub kind: u16,
    /// 0 to 65535 bytes.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    fn ids(&self) -> Result<Ids<'a>, RequestError> {
        self.ids_or_none().ok().filter(|ids| !ids.is_empty()).ok_or(RequestError::Body(self.kind))
    }

    fn ids_or_none(&self) -> Result<Ids<'a>, RequestError> {
        Ids::new(self.body).ok_or(RequestError::Body(self.kind))
    }

    fn number(&self) -> Result<u16, RequestError> {
        let body = self.body.try_into().map_err(|_| RequestError::Body(self.kind))?;
        Ok(u16::from_be_bytes(body))
    }

    fn server(&self) -> Result<&'a str, RequestError> {
        let text = std::str::from_utf8(self.body).map_err(|_| RequestError::Body(self.kind))?;
        if is_server_name(text) { Ok(text) } else { Err(RequestError::Body(self.kind)) }
    }
}

/// The records of a message, front to back. Ends after the first record that is cut off.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// Walks over `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let Some((header, rest)) = Header::split(bytes) else {
            return Some(Err(FramingError::Truncated));
        };
        let Some((body, rest)) = rest.split_at_checked(header.body_bytes) else {
            return Some(Err(FramingError::Truncated));
        };
        self.rest = rest;
        Some(Ok(Record { critical: header.critical, kind: header.kind, body }))
    }
}

/// Finds the end of a message that arrives in pieces, in time linear in its length.
#[derive(Clone, Debug)]
pub struct Scanner {
    offset_bytes: usize,
    message_bytes_max: usize,
}

/// How much of a message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More has to come.
    Incomplete,
    /// The End of Message record is the last thing in the buffer.
    Complete,
}

impl Scanner {
    /// A scanner for messages of up to `message_bytes_max` bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self { offset_bytes: 0, message_bytes_max }
    }

    /// Looks at all bytes received so far; each call has to give the earlier ones again.
    ///
    /// # Errors
    /// [`FramingError::Oversize`] as soon as a record announces more than fits, and whatever is
    /// wrong about End of Message.
    pub fn advance(&mut self, message: &[u8]) -> Result<Progress, FramingError> {
        while let Some((header, rest)) =
            message.get(self.offset_bytes..).and_then(|rest| Header::split(rest))
        {
            let end_bytes = self.offset_bytes + HEADER_BYTES + header.body_bytes;
            if header.kind == END_OF_MESSAGE {
                let body = rest.get(..header.body_bytes).unwrap_or(rest);
                let end = Record { critical: header.critical, kind: header.kind, body };
                if header.body_bytes != 0 {
                    return Err(FramingError::EndWithBody);
                }
                check_end(&end, rest)?;
                return Ok(Progress::Complete);
            }
            if end_bytes + HEADER_BYTES > self.message_bytes_max {
                return Err(FramingError::Oversize);
            }
            self.offset_bytes = end_bytes;
        }
        Ok(Progress::Incomplete)
    }
}

/// A list of 16-bit numbers in network byte order, as Next Protocol and AEAD hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids<'a> {
    bytes: &'a [u8],
}

impl<'a> Ids<'a> {
    /// A list out of the body of a record: an even number of bytes, at most 65534.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let fits = bytes.len().is_multiple_of(2) && bytes.len() <= usize::from(u16::MAX);
        fits.then_some(Self { bytes })
    }

    /// The numbers in their order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// Whether `id` is in the list.
    pub fn contains(&self, id: u16) -> bool {
        self.iter().any(|other| other == id)
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Code of an Error record (RFC 8915 section 4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// A critical record of a type that the server does not know.
    pub const UNRECOGNIZED_CRITICAL_RECORD: Self = Self(0);
    /// The request is not complete and well-formed.
    pub const BAD_REQUEST: Self = Self(1);
    /// The server could not answer a good request.
    pub const INTERNAL_SERVER_ERROR: Self = Self(2);
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match *self {
            Self::UNRECOGNIZED_CRITICAL_RECORD => "unrecognized critical record",
            Self::BAD_REQUEST => "bad request",
            Self::INTERNAL_SERVER_ERROR => "internal server error",
            _ => "unknown",
        };
        write!(formatter, "{} ({meaning})", self.0)
    }
}

/// Why the records of a message do not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// The last record is cut off.
    #[error("the last record is cut off")]
    Truncated,
    /// The bytes end without End of Message.
    #[error("there is no End of Message record")]
    NoEnd,
    /// End of Message without its critical bit (section 4.1.1).
    #[error("the End of Message record is not critical")]
    EndNotCritical,
    /// End of Message with a body (section 4.1.1).
    #[error("the End of Message record has a body")]
    EndWithBody,
    /// Bytes behind End of Message (section 4.1.1).
    #[error("there are bytes behind the End of Message record")]
    DataAfterEnd,
    /// The message is longer than the receiver accepts.
    #[error("the message is too long")]
    Oversize,
}

/// Why records cannot be taken as a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// See [`FramingError`].
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A critical record of unknown type.
    #[error("the critical record of type {0} is unknown")]
    UnrecognizedCritical(u16),
    /// A record that has to be critical and is not.
    #[error("the record of type {0} is not critical")]
    NotCritical(u16),
    /// A second record of a type that may occur once.
    #[error("there is more than one record of type {0}")]
    Doubled(u16),
    /// A record that has to be there.
    #[error("there is no record of type {0}")]
    Missing(u16),
    /// A body whose length or content does not fit its type.
    #[error("the body of the record of type {0} is malformed")]
    Body(u16),
    /// A record that only servers send.
    #[error("a client may not send a record of type {0}")]
    Forbidden(u16),
}

impl RequestError {
    /// What the server answers (RFC 8915 section 4.1.3).
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnrecognizedCritical(_) => ErrorCode::UNRECOGNIZED_CRITICAL_RECORD,
            _ => ErrorCode::BAD_REQUEST,
        }
    }
}

/// Why a response cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResponseError {
    /// The records are not a response.
    #[error(transparent)]
    Records(#[from] RequestError),
    /// The server warns, with a code that nobody has defined.
    #[error("the server sent warning {0}, whose meaning is unknown")]
    Warning(u16),
}

impl From<FramingError> for ResponseError {
    fn from(error: FramingError) -> Self {
        Self::Records(RequestError::Framing(error))
    }
}

/// A record body of more than 65535 bytes has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the body of the record of type {0} is longer than 65535 bytes")]
pub struct BodyTooLong(pub u16);

/// Whether `text` may stand in a Server record: an IPv4 or IPv6 address without a zone, or the
/// labels of a domain name, at most 255 bytes (RFC 8915 section 4.1.7).
pub fn is_server_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.len() <= KE_SERVER_NAME_BYTES_MAX
        && (text.parse::<IpAddr>().is_ok() || name.split('.').all(is_label))
}

/// Appends one record to `out`: 4 bytes and the body.
///
/// # Errors
/// [`BodyTooLong`]; nothing is written then.
pub fn push_record(
    out: &mut Vec<u8>,
    critical: bool,
    kind: u16,
    body: &[u8],
) -> Result<(), BodyTooLong> {
    let body_bytes = u16::try_from(body.len()).map_err(|_| BodyTooLong(kind))?;
    let critical_bit = if critical { CRITICAL_BIT } else { 0 };
    out.extend_from_slice(&(critical_bit | (kind & !CRITICAL_BIT)).to_be_bytes());
    out.extend_from_slice(&body_bytes.to_be_bytes());
    out.extend_from_slice(body);
    Ok(())
}

fn check_end(end: &Record<'_>, rest: &[u8]) -> Result<(), FramingError> {
    if !end.critical {
        return Err(FramingError::EndNotCritical);
    }
    if !end.body.is_empty() {
        return Err(FramingError::EndWithBody);
    }
    if rest.is_empty() { Ok(()) } else { Err(FramingError::DataAfterEnd) }
}

fn set_once<T>(field: &mut Option<T>, value: T, kind: u16) -> Result<(), RequestError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(RequestError::Doubled(kind)),
    }
}

struct Header {
    critical: bool,
    kind: u16,
    body_bytes: usize,
}

impl Header {
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([a, b, c, d], rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let kind = u16::from_be_bytes([*a, *b]);
        let header = Self {
            critical: kind & CRITICAL_BIT != 0,
            kind: kind & !CRITICAL_BIT,
            body_bytes: usize::from(u16::from_be_bytes([*c, *d])),
        };
        Some((header, rest))
    }
}

/// Record type: End of Message (section 4.1.1).
pub const END_OF_MESSAGE: u16 = 0;
/// Record type: NTS Next Protocol Negotiation (section 4.1.2).
pub const NEXT_PROTOCOL: u16 = 1;
/// Record type: Error (section 4.1.3).
pub const ERROR: u16 = 2;
/// Record type: Warning (section 4.1.4).
pub const WARNING: u16 = 3;
/// Record type: AEAD Algorithm Negotiation (section 4.1.5).
pub const AEAD: u16 = 4;
/// Record type: New Cookie for NTPv4 (section 4.1.6).
pub const COOKIE: u16 = 5;
/// Record type: NTPv4 Server Negotiation (section 4.1.7).
pub const SERVER: u16 = 6;
/// Record type: NTPv4 Port Negotiation (section 4.1.8).
pub const PORT: u16 = 7;
/// Record type: Compliant AES-128-GCM-SIV Exporter Context (IANA registry; a chrony document).
pub const COMPLIANT_128GCM: u16 = 1024;

/// Next Protocol: NTPv4 (RFC 8915 section 7.7).
pub const NTPV4: u16 = 0;

/// Bytes in front of a record's body (RFC 8915 section 4).
pub const HEADER_BYTES: usize = 4;

const CRITICAL_BIT: u16 = 0x8000;

#[cfg(test)]
mod tests;
