//! Asking a server for the time as its clients do, with NTS or without: what `query`,
//! `check` and `authdata` have in common. Nothing here touches the clock.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrayvec::ArrayVec;
use clap::Args;
use serde::Serialize;

use crate::aead::{Algorithm, NonceGenerator};
use crate::client::{Association, CookiesSpent, Pending, ResponseError, is_kiss, request_header};
use crate::cookie::format::ClientKeys;
use crate::ke::client::{ClientError, Established, Options, RootsError};
use crate::ke::client::{client_config, establish, roots_from_file, system_roots};
use crate::ke::exchange::Offer;
use crate::ke::keys::SessionKeys;
use crate::limits::commands::{QUERY_SAMPLES_DEFAULT, QUERY_TIMEOUT_SECONDS_DEFAULT};
use crate::limits::{DATAGRAM_BYTES, NTP_PORT};
use crate::wire::ntp::{HEADER_BYTES, Header, Leap, Mode};
use crate::wire::timestamp::NtpTimestamp;

/// Which algorithms a client offers.
#[derive(Debug, Args)]
pub(super) struct OfferedAeads {
    /// AEAD algorithms to offer, best first: 15, 17, 30
    #[arg(long = "aead", value_name = "LIST", default_value = "15", value_delimiter = ',',
          value_parser = aead)]
    pub(super) aeads: Vec<Algorithm>,
}

/// Whom to trust, and how long and how often to ask.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// Trust the certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How often to ask for the time
    #[arg(long, value_name = "N", default_value_t = QUERY_SAMPLES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) samples: u32,
    /// Seconds to wait for key establishment, and for each sample
    #[arg(long, value_name = "SECONDS", default_value_t = QUERY_TIMEOUT_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Why there is no time, or none that is authentic.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "\"{0}\" is no HOST or HOST:PORT; write an IPv6 address with a port as [2001:db8::1]:4460"
    )]
    Host(String),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    KeyEstablishment(#[from] ClientError),
    #[error("the NTP server {server} has no address: {source}")]
    Resolve { server: String, source: std::io::Error },
    #[error("the kernel gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("cannot send to {server}: {source}; check the route and the firewall")]
    Socket { server: SocketAddr, source: std::io::Error },
    #[error("nobody listens at udp {0}; check the port, and that the server runs")]
    Refused(SocketAddr),
    #[error(
        "no answer from udp {0}; a firewall may drop UDP on the way, or NTP packets longer than \
         48 bytes"
    )]
    NoAnswer(SocketAddr),
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error(transparent)]
    CookiesSpent(#[from] CookiesSpent),
}

/// One answer. Offset and delay as in RFC 5905 section 8.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) offset_seconds: f64,
    pub(super) delay_seconds: f64,
    pub(super) stratum: u8,
    pub(super) synchronised: bool,
    pub(super) root_distance_seconds: f64,
    pub(super) reference_id: String,
}

impl Asking {
    /// Does key establishment with `host`, offering `algorithms` in this order.
    pub(super) fn establish(
        &self,
        (host, port): (String, u16),
        algorithms: &[Algorithm],
    ) -> Result<Established, Error> {
        let roots = match &self.ca {
            Some(file) => roots_from_file(file)?,
            None => system_roots()?,
        };
        let mut offered = ArrayVec::new();
        for algorithm in algorithms {
            if !offered.contains(algorithm) {
                offered.push(*algorithm);
            }
        }
        let offer = Offer { algorithms: offered, ..Offer::default() };
        let config = client_config(roots);
        Ok(establish(&Options { host, port, config, offer, timeout: self.timeout() })?)
    }

    /// Time for one exchange.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// An algorithm of `--aead`.
pub(super) fn aead(text: &str) -> Result<Algorithm, String> {
    let id = text.trim().parse().ok();
    id.and_then(Algorithm::from_id).ok_or_else(|| "15, 17 and 30 can be offered".to_owned())
}

/// Splits what the user gave; a bare IPv6 address is all host.
pub(super) fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), Error> {
    split(text, default_port).ok_or_else(|| Error::Host(text.to_owned()))
}

fn split(text: &str, default_port: u16) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port {
            "" => default_port,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        return Some((host.to_owned(), port));
    }
    if text.matches(':').count() > 1 {
        return Some((text.parse::<Ipv6Addr>().ok()?.to_string(), default_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, default_port),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The first address of a name.
pub(super) fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Resolve { server: host.to_owned(), source };
    let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
}

/// Takes authenticated samples of the server that key establishment led to.
pub(super) struct NtsSampler<'a> {
    established: &'a Established,
    sampler: Sampler<Association>,
    timeout: Duration,
    has_answered: bool,
    /// The number in the exporter context of the keys in use: 15 for AEAD 30 of an old chrony.
    pub(super) exporter_id: u16,
    /// Requests that were answered by an NTS NAK.
    pub(super) naks: u32,
}

impl<'a> NtsSampler<'a> {
    pub(super) fn new(established: &'a Established, timeout: Duration) -> Result<Self, Error> {
        let association = association(established, &established.keys);
        let sampler = Sampler::new(association, ntp_server(established)?, timeout)?;
        let exporter_id = established.agreed.exporter_id;
        Ok(Self { established, sampler, timeout, has_answered: false, exporter_id, naks: 0 })
    }

    /// Where the NTP service is.
    pub(super) fn server(&self) -> SocketAddr {
        self.sampler.server
    }

    /// How many cookies are left.
    pub(super) fn cookies(&self) -> usize {
        self.sampler.conversation.cookies()
    }

    pub(super) fn sample(&mut self) -> Result<Sample, Error> {
        let agreed = &self.established.agreed;
        let mut result = self.ask();
        if let (Err(Error::Response(ResponseError::Nak)), Some(keys)) =
            (&result, &self.established.legacy_keys)
            && self.exporter_id == agreed.exporter_id
            && !self.has_answered
        {
            // chrony before 4.6.1 derives the keys of AEAD 30 as if it were 15.
            self.exporter_id = agreed.legacy_exporter_id().unwrap_or(self.exporter_id);
            let association = association(self.established, keys);
            self.sampler = Sampler::new(association, self.sampler.server, self.timeout)?;
            result = self.ask();
        }
        self.has_answered |= result.is_ok();
        result
    }

    fn ask(&mut self) -> Result<Sample, Error> {
        let result = self.sampler.sample();
        let is_nak = matches!(result, Err(Error::Response(ResponseError::Nak)));
        self.naks += u32::from(is_nak);
        result
    }
}

/// What key establishment named, else the host that it was done with (RFC 8915 section 4.1.7).
fn ntp_server(established: &Established) -> Result<SocketAddr, Error> {
    let port = established.agreed.port.unwrap_or(NTP_PORT);
    match &established.agreed.server {
        None => Ok(SocketAddr::new(established.address.ip(), port)),
        Some(name) => resolve(name, port),
    }
}

fn association(established: &Established, keys: &SessionKeys) -> Association {
    let keys = ClientKeys::new(established.agreed.algorithm, keys.c2s(), keys.s2c())
        .expect("key establishment gives keys of the algorithm's length");
    let cookies = established.agreed.cookies.iter().map(|cookie| cookie.as_slice());
    Association::new(keys, cookies)
}

/// How a request is written, and what is taken for its answer.
pub(super) trait Conversation {
    /// What has to come back.
    type Pending;

    /// Writes a request into `buffer`; returns its length too.
    fn request(
        &mut self,
        buffer: &mut [u8; DATAGRAM_BYTES],
        random: &mut NonceGenerator,
    ) -> Result<(Self::Pending, usize), CookiesSpent>;

    fn response(
        &mut self,
        pending: &Self::Pending,
        response: &mut [u8],
    ) -> Result<Header, ResponseError>;
}

impl Conversation for Association {
    type Pending = Pending;

    fn request(
        &mut self,
        buffer: &mut [u8; DATAGRAM_BYTES],
        random: &mut NonceGenerator,
    ) -> Result<(Pending, usize), CookiesSpent> {
        let pending = Association::request(self, buffer, random)?;
        Ok((pending, pending.request_bytes))
    }

    fn response(
        &mut self,
        pending: &Pending,
        response: &mut [u8],
    ) -> Result<Header, ResponseError> {
        Association::response(self, pending, response)
    }
}

/// NTP without authentication. The origin timestamp of an answer is all that ties it to its
/// request, so it is random.
pub(super) struct PlainNtp;

impl Conversation for PlainNtp {
    type Pending = NtpTimestamp;

    fn request(
        &mut self,
        buffer: &mut [u8; DATAGRAM_BYTES],
        random: &mut NonceGenerator,
    ) -> Result<(NtpTimestamp, usize), CookiesSpent> {
        let mut bits = [0; 8];
        random.fill(&mut bits);
        let sent = NtpTimestamp::from_bits(u64::from_be_bytes(bits));
        buffer[..HEADER_BYTES].copy_from_slice(&request_header(sent).emit());
        Ok((sent, HEADER_BYTES))
    }

    fn response(
        &mut self,
        pending: &NtpTimestamp,
        response: &mut [u8],
    ) -> Result<Header, ResponseError> {
        let header = Header::parse(response).ok_or(ResponseError::Unrelated)?;
        if header.mode != Mode::Server || header.origin_timestamp != *pending {
            return Err(ResponseError::Unrelated);
        }
        if is_kiss(&header) { Err(ResponseError::Kiss(header.reference_id)) } else { Ok(header) }
    }
}

/// Takes samples of one server over one socket.
pub(super) struct Sampler<C> {
    conversation: C,
    socket: UdpSocket,
    server: SocketAddr,
    timeout: Duration,
    random: NonceGenerator,
}

impl<C: Conversation> Sampler<C> {
    pub(super) fn new(
        conversation: C,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local)
            .and_then(|socket| socket.connect(server).map(|()| socket))
            .map_err(|source| Error::Socket { server, source })?;
        let random = NonceGenerator::new().map_err(Error::Random)?;
        Ok(Self { conversation, socket, server, timeout, random })
    }

    pub(super) fn sample(&mut self) -> Result<Sample, Error> {
        let socket_error = |source: std::io::Error| match source.kind() {
            // The host's own word (ICMP port unreachable), which comes with the next call.
            std::io::ErrorKind::ConnectionRefused => Error::Refused(self.server),
            _ => Error::Socket { server: self.server, source },
        };
        let mut buffer = [0; DATAGRAM_BYTES];
        let (pending, bytes) = self.conversation.request(&mut buffer, &mut self.random)?;
        let sent = now();
        self.socket.send(&buffer[..bytes]).map_err(socket_error)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NoAnswer(self.server));
            }
            self.socket.set_read_timeout(Some(left)).map_err(socket_error)?;
            let received_bytes = match self.socket.recv(&mut buffer) {
                Ok(received_bytes) => received_bytes,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(socket_error(error)),
            };
            let received = now();
            match self.conversation.response(&pending, &mut buffer[..received_bytes]) {
                Ok(header) => return Ok(sample(&header, sent, received)),
                // Anyone can send an unrelated datagram; the answer may still come.
                Err(ResponseError::Unrelated) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn now() -> NtpTimestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NtpTimestamp::from_unix(now.as_secs() as i64, now.subsec_nanos())
}

/// RFC 5905 section 8: θ = ((T2 − T1) + (T3 − T4)) / 2, δ = (T4 − T1) − (T3 − T2).
fn sample(header: &Header, sent: NtpTimestamp, received: NtpTimestamp) -> Sample {
    let outward = header.receive_timestamp.seconds_since_f64(sent);
    let homeward = header.transmit_timestamp.seconds_since_f64(received);
    let delay_seconds = (outward - homeward).max(0.0);
    Sample {
        offset_seconds: (outward + homeward) / 2.0,
        delay_seconds,
        stratum: header.stratum,
        synchronised: header.leap != Leap::Unsynchronised && header.stratum > 0,
        root_distance_seconds: (header.root_delay.to_seconds() + delay_seconds) / 2.0
            + header.root_dispersion.to_seconds(),
        reference_id: header.reference_id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let split = |text| split(text, 4460).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(split("time.example.org").as_deref(), Some("time.example.org 4460"));
        assert_eq!(split("time.example.org:14460").as_deref(), Some("time.example.org 14460"));
        assert_eq!(split("192.0.2.1:1").as_deref(), Some("192.0.2.1 1"));
        assert_eq!(split("2001:db8::1").as_deref(), Some("2001:db8::1 4460"));
        assert_eq!(split("[2001:db8::1]").as_deref(), Some("2001:db8::1 4460"));
        assert_eq!(split("[2001:db8::1]:1").as_deref(), Some("2001:db8::1 1"));
        for wrong in ["", ":1", "a:b", "a:70000", "[::1", "::1]", "[::1]x"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn offset_and_delay_of_rfc_5905() {
        let at = |milliseconds: u64| {
            NtpTimestamp::from_unix(1_800_000_000, (milliseconds * 1_000_000) as u32)
        };
        let mut clock = crate::clock::SimulatedClock::synchronised(at(0)).state;
        clock.root_dispersion_seconds = 0.0;
        let header = Header {
            leap: Leap::None,
            version: 4,
            mode: crate::wire::ntp::Mode::Server,
            stratum: 2,
            poll: 6,
            precision: -25,
            root_delay: clock.root_delay,
            root_dispersion: clock.root_dispersion(at(0)),
            reference_id: clock.reference_id,
            reference_timestamp: at(0),
            origin_timestamp: at(0),
            receive_timestamp: at(110),
            transmit_timestamp: at(111),
        };
        // Sent at 0, received at 21: 20 ms on the way, the server 100 ms ahead.
        let sample = sample(&header, at(0), at(21));
        assert!((sample.offset_seconds - 0.1).abs() < 1e-6, "{}", sample.offset_seconds);
        assert!((sample.delay_seconds - 0.02).abs() < 1e-6, "{}", sample.delay_seconds);
        assert!((sample.root_distance_seconds - 0.01).abs() < 1e-6);
    }
}
