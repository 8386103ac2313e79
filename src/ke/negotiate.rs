//! What to answer to a request: a pure function of the request and the configured policy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use arrayvec::ArrayVec;
use thiserror::Error;

use super::cookies::CookieVec;
use crate::aead::Algorithm;
use crate::limits::{KE_ALGORITHMS, NTP_PORT};
use crate::wire::ke::{Agreement, BodyTooLong, Ids, NTPV4, Request, Response, is_server_name};

/// What the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Algorithms to agree on. AEAD 15 is agreed on even when it is not here, for clients that
    /// have nothing else: it is mandatory (RFC 8915 section 5.1).
    pub algorithms: ArrayVec<Algorithm, KE_ALGORITHMS>,
    /// Take clients that offer AEAD 30 without record 1024 as compliant with RFC 8915: put 30 in
    /// the exporter context. Otherwise it is 15, as the chrony versions without record 1024 have
    /// it; a compliant client's requests then end in NAKs.
    pub compliant_128gcm: bool,
    /// UDP port of the NTP service.
    pub ntp_port: u16,
    /// Where to send clients; empty for the address they came to. A client is sent to the first
    /// name, or the first address of its own family (RFC 8915 section 4.1.7).
    pub ntp_servers: Vec<NtpServer>,
    /// Further names and addresses that reach the NTP service, for clients that ask for one.
    pub served_as: Vec<NtpServer>,
}

impl Default for Policy {
    /// AEAD 15 first, then 30, chrony's exporter context, NTP on port 123 of the same address.
    fn default() -> Self {
        Self {
            algorithms: [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv].into_iter().collect(),
            compliant_128gcm: false,
            ntp_port: NTP_PORT,
            ntp_servers: Vec::new(),
            served_as: Vec::new(),
        }
    }
}

/// The name or address of an NTP server, as a Server record can hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NtpServer {
    /// An IP address.
    Address(IpAddr),
    /// A domain name, without the final dot.
    Name(String),
}

impl NtpServer {
    /// Whether `text` means this server.
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Address(address) => text.parse() == Ok(*address),
            Self::Name(name) => text.strip_suffix('.').unwrap_or(text).eq_ignore_ascii_case(name),
        }
    }

    fn suits(&self, local: IpAddr) -> bool {
        match self {
            Self::Address(address) => address.is_ipv4() == local.is_ipv4(),
            Self::Name(_) => true,
        }
    }
}

impl fmt::Display for NtpServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Name(name) => formatter.write_str(name),
        }
    }
}

impl FromStr for NtpServer {
    type Err = NtpServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if is_server_name(name) {
            Ok(Self::Name(name.to_owned()))
        } else {
            Err(NtpServerError(text.to_owned()))
        }
    }
}

/// Text that cannot stand in a Server record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{0}\" is neither an IP address without zone nor a domain name: international names have to \
     be in their xn-- form"
)]
pub struct NtpServerError(String);

/// The answer to a request that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client does not speak NTPv4.
    NoProtocol,
    /// The client has no AEAD that we allow.
    NoAlgorithm,
    /// Cookies can be had.
    Agreed(Terms),
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The AEAD.
    pub algorithm: Algorithm,
    /// The AEAD's number in the exporter context.
    pub exporter_id: u16,
    /// The answer carries record 1024.
    pub compliant_128gcm: bool,
    /// The answer carries a Server record.
    pub server: Option<String>,
    /// The answer carries a Port record.
    pub port: Option<u16>,
}

/// Chooses the answer to `request`, which came to the address `local` of this host.
///
/// The client's order of algorithms decides, as with chrony: the list of the policy says what is
/// allowed, not what is liked.
pub fn negotiate(request: &Request<'_>, policy: &Policy, local: IpAddr) -> Answer {
    if !request.next_protocols.contains(NTPV4) {
        return Answer::NoProtocol;
    }
    let offered = request.aeads.unwrap_or_default();
    let allowed = |algorithm: &Algorithm| policy.algorithms.contains(algorithm);
    let mandatory = Algorithm::AesSivCmac256;
    let chosen = offered
        .iter()
        .filter_map(Algorithm::from_id)
        .find(allowed)
        .or_else(|| offered.contains(mandatory.id()).then_some(mandatory));
    let Some(algorithm) = chosen else {
        return Answer::NoAlgorithm;
    };

    let is_128gcm = algorithm == Algorithm::Aes128GcmSiv;
    let is_legacy = is_128gcm && !request.compliant_128gcm && !policy.compliant_128gcm;
    let exporter = if is_legacy { mandatory } else { algorithm };
    Answer::Agreed(Terms {
        algorithm,
        exporter_id: exporter.id(),
        compliant_128gcm: is_128gcm && request.compliant_128gcm,
        server: server(request, policy, local.to_canonical()),
        port: port(request, policy),
    })
}

impl Answer {
    /// Appends the answer to `out`; `cookies` go into an agreement and nowhere else.
    ///
    /// # Errors
    /// [`BodyTooLong`], which names and cookies of legal length never cause.
    pub fn emit(&self, cookies: &CookieVec, out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
        let ntpv4 = NTPV4.to_be_bytes();
        let mut agreement = Agreement {
            next_protocols: Ids::default(),
            aeads: None,
            compliant_128gcm: false,
            server: None,
            port: None,
            cookies: ArrayVec::new(),
        };
        let algorithm;
        match self {
            Self::NoProtocol => {}
            Self::NoAlgorithm => {
                agreement.next_protocols = Ids::new(&ntpv4).unwrap_or_default();
                agreement.aeads = Some(Ids::default());
            }
            Self::Agreed(terms) => {
                algorithm = terms.algorithm.id().to_be_bytes();
                agreement.next_protocols = Ids::new(&ntpv4).unwrap_or_default();
                agreement.aeads = Ids::new(&algorithm);
                agreement.compliant_128gcm = terms.compliant_128gcm;
                agreement.server = terms.server.as_deref();
                agreement.port = terms.port;
                agreement.cookies = cookies.iter().map(|cookie| cookie.as_slice()).collect();
            }
        }
        Response::Agreement(agreement).emit(out)
    }
}

/// RFC 8915 section 4.1.7: the client's own record when it can be honoured; otherwise an address
/// of the family that the client came by; otherwise none, which means the address it came to.
fn server(request: &Request<'_>, policy: &Policy, local: IpAddr) -> Option<String> {
    if let Some(wanted) = request.server {
        let served = policy.ntp_servers.iter().chain(&policy.served_as);
        // Without a place to send clients to, the NTP service is where they came to.
        let here = policy.ntp_servers.is_empty().then_some(NtpServer::Address(local));
        if served.chain(&here).any(|server| server.is(wanted)) {
            return Some(wanted.to_owned());
        }
    }
    policy.ntp_servers.iter().find(|server| server.suits(local)).map(NtpServer::to_string)
}

/// RFC 8915 section 4.1.8: without a Port record the client takes 123.
fn port(request: &Request<'_>, policy: &Policy) -> Option<u16> {
    let is_wanted = request.port == Some(policy.ntp_port);
    (is_wanted || policy.ntp_port != NTP_PORT).then_some(policy.ntp_port)
}

#[cfg(test)]
mod tests;
