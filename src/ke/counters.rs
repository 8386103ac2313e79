//! What became of the connections, by reason.

use super::session::Outcome;
use crate::aead::Algorithm;

/// Counts since the start of the process. Each accepted connection ends in exactly one of the
/// fields behind `accepted`; `served_*` say more about `served`, and `accept_failed` stands apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Answered with cookies.
    pub served: u64,
    /// Of those, AEAD 15.
    pub served_siv_256: u64,
    /// Of those, AEAD 17.
    pub served_siv_512: u64,
    /// Of those, AEAD 30 with 30 in the exporter context.
    pub served_gcm_siv: u64,
    /// Of those, AEAD 30 with 15 in the exporter context, as chrony had it before 4.6.1.
    pub served_gcm_siv_legacy: u64,
    /// Answered without cookies: no protocol in common.
    pub no_protocol: u64,
    /// Answered without cookies: no AEAD in common.
    pub no_algorithm: u64,
    /// Error 0.
    pub unrecognized_critical: u64,
    /// Error 1: malformed, or against the rules.
    pub bad_request: u64,
    /// Error 1: too long.
    pub oversize: u64,
    /// Error 1: the client closed before its request was complete.
    pub incomplete: u64,
    /// Error 1: the request was not complete in time.
    pub timeout_request: u64,
    /// Error 2.
    pub internal: u64,
    /// No handshake in time.
    pub timeout_handshake: u64,
    /// The client closed during the handshake.
    pub abandoned: u64,
    /// TLS failed: no version, cipher or certificate in common, or broken records.
    pub tls: u64,
    /// The client does not offer `ntske/1`.
    pub no_alpn: u64,
    /// The socket failed before an answer.
    pub broken: u64,
    /// Dropped before an answer to make room for a newer connection.
    pub shed: u64,
    /// Refused before its handshake: its address has no access.
    pub denied: u64,
    /// Refused before its handshake: its prefix had come too often.
    pub prefix_rate: u64,
    /// Refused before its handshake: its prefix had too many connections.
    pub prefix_connections: u64,
    /// Times that accept failed; no connection is lost by it.
    pub accept_failed: u64,
}

impl Counters {
    /// Counts a connection's end.
    pub fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Served { algorithm, exporter_id } => {
                *self.served_by(algorithm, exporter_id) += 1;
                &mut self.served
            }
            Outcome::NoProtocol => &mut self.no_protocol,
            Outcome::NoAlgorithm => &mut self.no_algorithm,
            Outcome::UnrecognizedCritical => &mut self.unrecognized_critical,
            Outcome::BadRequest => &mut self.bad_request,
            Outcome::Oversize => &mut self.oversize,
            Outcome::Incomplete => &mut self.incomplete,
            Outcome::TimeoutRequest => &mut self.timeout_request,
            Outcome::Internal => &mut self.internal,
            Outcome::TimeoutHandshake => &mut self.timeout_handshake,
            Outcome::Abandoned => &mut self.abandoned,
            Outcome::Tls => &mut self.tls,
            Outcome::NoAlpn => &mut self.no_alpn,
            Outcome::Broken => &mut self.broken,
            Outcome::Shed => &mut self.shed,
            Outcome::Denied => &mut self.denied,
            Outcome::PrefixRate => &mut self.prefix_rate,
            Outcome::PrefixConnections => &mut self.prefix_connections,
        } += 1;
    }

    /// Names of all counters, in the order of [`Counters::values`].
    pub const NAMES: [&'static str; 24] = [
        "accepted",
        "served",
        "served_siv_256",
        "served_siv_512",
        "served_gcm_siv",
        "served_gcm_siv_legacy",
        "no_protocol",
        "no_algorithm",
        "unrecognized_critical",
        "bad_request",
        "oversize",
        "incomplete",
        "timeout_request",
        "internal",
        "timeout_handshake",
        "abandoned",
        "tls",
        "no_alpn",
        "broken",
        "shed",
        "denied",
        "prefix_rate",
        "prefix_connections",
        "accept_failed",
    ];

    /// The totals.
    pub fn values(&self) -> [u64; Self::NAMES.len()] {
        // Every field by its name: a new one cannot be forgotten here.
        let Self {
            accepted,
            served,
            served_siv_256,
            served_siv_512,
            served_gcm_siv,
            served_gcm_siv_legacy,
            no_protocol,
            no_algorithm,
            unrecognized_critical,
            bad_request,
            oversize,
            incomplete,
            timeout_request,
            internal,
            timeout_handshake,
            abandoned,
            tls,
            no_alpn,
            broken,
            shed,
            denied,
            prefix_rate,
            prefix_connections,
            accept_failed,
        } = *self;
        [
            accepted,
            served,
            served_siv_256,
            served_siv_512,
            served_gcm_siv,
            served_gcm_siv_legacy,
            no_protocol,
            no_algorithm,
            unrecognized_critical,
            bad_request,
            oversize,
            incomplete,
            timeout_request,
            internal,
            timeout_handshake,
            abandoned,
            tls,
            no_alpn,
            broken,
            shed,
            denied,
            prefix_rate,
            prefix_connections,
            accept_failed,
        ]
    }

    /// A copy, for whoever publishes it.
    pub fn snapshot(&self) -> Self {
        *self
    }

    fn served_by(&mut self, algorithm: Algorithm, exporter_id: u16) -> &mut u64 {
        match algorithm {
            Algorithm::AesSivCmac256 => &mut self.served_siv_256,
            Algorithm::AesSivCmac512 => &mut self.served_siv_512,
            Algorithm::Aes128GcmSiv if exporter_id == algorithm.id() => &mut self.served_gcm_siv,
            Algorithm::Aes128GcmSiv => &mut self.served_gcm_siv_legacy,
        }
    }
}
