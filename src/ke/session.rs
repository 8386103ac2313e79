//! One NTS-KE connection in the server role: bytes in, bytes out, no sockets and no clock.
//!
//! ```text
//! hello ──ClientHello──> handshake ──Finished──> request ──End of Message──> closing
//!   │ no ntske/1: alert 120  │ TLS error: alert      │ wrong or late: Error      │ output, then
//!   └────────────────────────┴───────────────────────┴───────────────────────────┘ close
//! ```
//!
//! The outcome is decided once; what is received after that is ignored.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::server::{Accepted, Acceptor};
use rustls::{CipherSuite, ServerConfig, ServerConnection};

use super::ALPN;
use super::cookies::{self, CookieSource, CookieVec};
use super::keys::SessionKeys;
use super::negotiate::{Answer, Policy, negotiate};
use crate::aead::Algorithm;
use crate::limits::{KE_HANDSHAKE_BYTES_MAX, KE_INPUT_BYTES_MAX, KE_REQUEST_BYTES_MAX};
use crate::wire::ke::{ErrorCode, FramingError, Progress, Request, Response, Scanner};

/// What a session needs from the process around it.
pub struct Services<'a> {
    /// How TLS is spoken; a session keeps the one that it began its handshake with.
    pub tls: &'a Arc<ServerConfig>,
    /// What to agree on.
    pub policy: &'a Policy,
    /// Where cookies come from.
    pub cookies: &'a mut dyn CookieSource,
}

/// A connection between accept and the last byte of its answer.
pub struct Session {
    transport: Transport,
    request: Vec<u8>,
    scanner: Scanner,
    local: IpAddr,
    deadline: Instant,
    input_bytes: usize,
    outcome: Option<Outcome>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with cookies.
    Served {
        /// The AEAD agreed on.
        algorithm: Algorithm,
        /// Its number in the exporter context.
        exporter_id: u16,
    },
    /// Answered: no protocol in common.
    NoProtocol,
    /// Answered: no AEAD in common.
    NoAlgorithm,
    /// Error 0.
    UnrecognizedCritical,
    /// Error 1: malformed, or against the rules.
    BadRequest,
    /// Error 1: too long.
    Oversize,
    /// Error 1: closed before the request was complete.
    Incomplete,
    /// Error 1: not complete in time.
    TimeoutRequest,
    /// Error 2.
    Internal,
    /// No handshake in time.
    TimeoutHandshake,
    /// Closed during the handshake.
    Abandoned,
    /// TLS failed.
    Tls,
    /// The client does not offer `ntske/1`.
    NoAlpn,
    /// The socket failed.
    Broken,
    /// Dropped for a newer connection.
    Shed,
    /// Not begun: its address has no access.
    Denied,
    /// Not begun: its prefix had come too often.
    PrefixRate,
    /// Not begun: its prefix had too many connections.
    PrefixConnections,
}

enum Transport {
    /// Until the ClientHello is there.
    Hello(Box<Acceptor>),
    Tls(Box<ServerConnection>),
    /// What is left to send when the outcome is decided: an answer, or an alert in the clear.
    Last(Vec<u8>),
}

impl Session {
    /// A connection to the local address `local`, which has to be answered before `deadline`.
    pub fn new(local: IpAddr, deadline: Instant) -> Self {
        Self {
            transport: Transport::Hello(Box::default()),
            request: Vec::new(),
            scanner: Scanner::new(KE_REQUEST_BYTES_MAX),
            local,
            deadline,
            input_bytes: 0,
            outcome: None,
        }
    }

    /// Takes bytes from the client.
    pub fn receive(&mut self, bytes: &[u8], services: &mut Services<'_>) {
        if self.outcome.is_some() {
            return;
        }
        // The last of a handshake may come with a request: only what came before it counts.
        if !self.is_established() && self.input_bytes > KE_HANDSHAKE_BYTES_MAX {
            return self.end(Outcome::Tls);
        }
        self.input_bytes = self.input_bytes.saturating_add(bytes.len());
        if self.input_bytes > KE_INPUT_BYTES_MAX {
            return self.refuse(ErrorCode::BAD_REQUEST, Outcome::Oversize);
        }
        let mut rest = bytes;
        if matches!(self.transport, Transport::Hello(_)) {
            self.receive_hello(&mut rest, services);
        }
        self.receive_tls(rest, services);
    }

    /// The client will send no more: its side of the TCP connection is closed. What came before is
    /// complete or never will be.
    pub fn end_of_input(&mut self) {
        if self.outcome.is_none() {
            match self.is_established() {
                true => self.refuse(ErrorCode::BAD_REQUEST, Outcome::Incomplete),
                false => self.end(Outcome::Abandoned),
            }
        }
    }

    /// Ends a session whose deadline has passed. RFC 8915 section 4.1.3: a client whose request is
    /// not complete by then is told so, if TLS stands.
    pub fn tick(&mut self, now: Instant) {
        if self.outcome.is_none() && now >= self.deadline {
            match self.is_established() {
                true => self.refuse(ErrorCode::BAD_REQUEST, Outcome::TimeoutRequest),
                false => self.end(Outcome::TimeoutHandshake),
            }
        }
    }

    /// When [`Session::tick`] has something to do.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the deadline to an earlier moment; a later one changes nothing.
    pub fn hasten(&mut self, deadline: Instant) {
        self.deadline = self.deadline.min(deadline);
    }

    /// How it ended, once it has; what is left to do then is to send the output and close.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        match &self.transport {
            Transport::Hello(_) => false,
            Transport::Tls(connection) => connection.wants_write(),
            Transport::Last(bytes) => !bytes.is_empty(),
        }
    }

    /// Sends in one write as much as `out` takes; everything that belongs together, such as an
    /// answer and its close_notify, is handed over together. Returns the number of bytes taken.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn send(&mut self, out: &mut dyn Write) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Hello(_) => Ok(0),
            Transport::Tls(connection) => connection.write_tls(out),
            Transport::Last(bytes) => {
                let sent = out.write(bytes)?;
                bytes.drain(..sent.min(bytes.len()));
                Ok(sent)
            }
        }
    }

    fn is_established(&self) -> bool {
        matches!(&self.transport, Transport::Tls(connection) if !connection.is_handshaking())
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.request = Vec::new();
        if let Transport::Tls(connection) = &mut self.transport {
            let mut bytes = Vec::with_capacity(ANSWER_BYTES_USUAL);
            while connection.write_tls(&mut bytes).is_ok_and(|written| written > 0) {}
            self.transport = Transport::Last(bytes);
        }
    }

    fn end_with_alert(&mut self, outcome: Outcome, alert: Vec<u8>) {
        self.end(outcome);
        self.transport = Transport::Last(alert);
    }

    fn receive_hello(&mut self, rest: &mut &[u8], services: &mut Services<'_>) {
        let Transport::Hello(acceptor) = &mut self.transport else { return };
        let accepted = loop {
            match acceptor.read_tls(rest) {
                Ok(read_bytes) if read_bytes > 0 => {}
                // rustls stops reading when a handshake message is larger than any can be.
                _ => return self.end(Outcome::Tls),
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) if rest.is_empty() => return,
                Ok(None) => {}
                Err((_, mut alert)) => {
                    let mut bytes = Vec::new();
                    let _ = alert.write_all(&mut bytes);
                    return self.end_with_alert(Outcome::Tls, bytes);
                }
            }
        };
        self.begin_handshake(accepted, services);
    }

    fn begin_handshake(&mut self, accepted: Accepted, services: &mut Services<'_>) {
        if lacks_alpn(&accepted) {
            return self.end_with_alert(Outcome::NoAlpn, ALERT_NO_APPLICATION_PROTOCOL.to_vec());
        }
        match accepted.into_connection(Arc::clone(services.tls)) {
            Ok(connection) => self.transport = Transport::Tls(Box::new(connection)),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                let _ = alert.write_all(&mut bytes);
                self.end_with_alert(tls_outcome(&error), bytes);
            }
        }
    }

    /// Goes through `rest` and through what the ClientHello left in the TLS library's buffer.
    fn receive_tls(&mut self, mut rest: &[u8], services: &mut Services<'_>) {
        while self.outcome.is_none() {
            let Transport::Tls(connection) = &mut self.transport else { return };
            let read_bytes = match rest.is_empty() {
                true => 0,
                false => match connection.read_tls(&mut rest) {
                    Ok(read_bytes) => read_bytes,
                    Err(_) => return self.end(Outcome::Tls),
                },
            };
            let state = match connection.process_new_packets() {
                Ok(state) => state,
                // The library has queued the alert.
                Err(error) => return self.end(tls_outcome(&error)),
            };
            let is_closed = state.peer_has_closed();
            if !connection.is_handshaking() {
                self.receive_request(services);
            }
            if is_closed {
                self.end_of_input();
            }
            if read_bytes == 0 || rest.is_empty() {
                return;
            }
        }
    }

    fn receive_request(&mut self, services: &mut Services<'_>) {
        let Transport::Tls(connection) = &mut self.transport else { return };
        // The library refuses clients whose list lacks ntske/1; one that changes its list in a
        // second ClientHello gets as far as here.
        if connection.alpn_protocol() != Some(ALPN) {
            connection.send_close_notify();
            return self.end(Outcome::NoAlpn);
        }
        let mut piece = [0; KE_REQUEST_BYTES_MAX];
        while let Ok(read_bytes @ 1..) = connection.reader().read(&mut piece) {
            self.request.extend_from_slice(&piece[..read_bytes]);
            // A refusal at once: the buffer never holds more than two pieces.
            if self.request.len() > KE_REQUEST_BYTES_MAX {
                break;
            }
        }
        match self.scanner.advance(&self.request) {
            Ok(Progress::Incomplete) => {}
            Ok(Progress::Complete) => self.answer(services),
            Err(FramingError::Oversize) => self.refuse(ErrorCode::BAD_REQUEST, Outcome::Oversize),
            Err(_) => self.refuse(ErrorCode::BAD_REQUEST, Outcome::BadRequest),
        }
    }

    fn answer(&mut self, services: &mut Services<'_>) {
        let request = std::mem::take(&mut self.request);
        let request = match Request::parse(&request) {
            Ok(request) => request,
            Err(error) if error.code() == ErrorCode::UNRECOGNIZED_CRITICAL_RECORD => {
                return self.refuse(error.code(), Outcome::UnrecognizedCritical);
            }
            Err(error) => return self.refuse(error.code(), Outcome::BadRequest),
        };
        let answer = negotiate(&request, services.policy, self.local);
        let Transport::Tls(connection) = &self.transport else { return };
        match write_answer(&answer, connection, services.cookies) {
            Some(message) => self.close_with(&message, Outcome::from(&answer)),
            None => self.refuse(ErrorCode::INTERNAL_SERVER_ERROR, Outcome::Internal),
        }
    }

    /// RFC 8915 section 4.1.3: an Error record, End of Message, and nothing else.
    fn refuse(&mut self, code: ErrorCode, outcome: Outcome) {
        if !self.is_established() {
            return self.end(outcome);
        }
        let mut message = Vec::new();
        match Response::Error(code).emit(&mut message) {
            Ok(()) => self.close_with(&message, outcome),
            Err(_) => self.end(outcome),
        }
    }

    fn close_with(&mut self, message: &[u8], outcome: Outcome) {
        if let Transport::Tls(connection) = &mut self.transport {
            // The library's buffer takes 64 KiB, and this is all that is ever written.
            let written = connection.writer().write_all(message);
            debug_assert!(written.is_ok());
            connection.send_close_notify();
        }
        self.end(outcome);
    }
}

impl From<&Answer> for Outcome {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::NoProtocol => Self::NoProtocol,
            Answer::NoAlgorithm => Self::NoAlgorithm,
            Answer::Agreed(terms) => {
                Self::Served { algorithm: terms.algorithm, exporter_id: terms.exporter_id }
            }
        }
    }
}

fn write_answer(
    answer: &Answer,
    connection: &ServerConnection,
    source: &mut dyn CookieSource,
) -> Option<Vec<u8>> {
    let mut cookies = CookieVec::new();
    if let Answer::Agreed(terms) = answer {
        let keys = SessionKeys::export(connection, terms.algorithm, terms.exporter_id).ok()?;
        source.cookies(terms.algorithm, keys.c2s(), keys.s2c(), &mut cookies).ok()?;
        cookies::check(&cookies).ok()?;
    }
    let mut message = Vec::with_capacity(ANSWER_BYTES_USUAL);
    answer.emit(&cookies, &mut message).ok()?;
    Some(message)
}

/// Whether the client offers no `ntske/1` at all, or only other protocols. A client that cannot
/// speak TLS 1.3 either is left to the library, which says so in its alert.
fn lacks_alpn(accepted: &Accepted) -> bool {
    let hello = accepted.client_hello();
    let is_offered = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN));
    let is_tls13 = hello.cipher_suites().iter().any(|suite| TLS13_SUITES.contains(suite));
    !is_offered && is_tls13
}

fn tls_outcome(error: &rustls::Error) -> Outcome {
    match error {
        rustls::Error::NoApplicationProtocol => Outcome::NoAlpn,
        _ => Outcome::Tls,
    }
}

/// A fatal alert 120 in the clear, as it is before ServerHello (RFC 8446 sections 5.1 and 6.2).
/// rustls sends one only to clients that offer other protocols, not to those that offer none; RFC
/// 8915 section 3 makes no difference. It costs no handshake either.
const ALERT_NO_APPLICATION_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// The cipher suites of TLS 1.3 (RFC 8446 appendix B.4).
const TLS13_SUITES: [CipherSuite; 5] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS13_AES_128_CCM_SHA256,
    CipherSuite::TLS13_AES_128_CCM_8_SHA256,
];

/// Room for an answer with eight cookies of 104 bytes, sealed and with its close_notify.
const ANSWER_BYTES_USUAL: usize = 960;

#[cfg(test)]
mod tests;
