//! `timeball query`: a real NTS client that looks and never touches the clock.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrayvec::ArrayVec;
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::aead::{Algorithm, NonceGenerator};
use crate::certificate::describe::describe_der;
use crate::client::{Association, CookiesSpent, ResponseError};
use crate::cookie::format::ClientKeys;
use crate::ke::client::{ClientError, Established, Options, RootsError};
use crate::ke::client::{client_config, establish, roots_from_file, system_roots};
use crate::ke::exchange::Offer;
use crate::ke::keys::SessionKeys;
use crate::limits::{
    DATAGRAM_BYTES, NTP_PORT, NTS_KE_PORT, QUERY_SAMPLES_DEFAULT, QUERY_TIMEOUT_SECONDS_DEFAULT,
};
use crate::wire::ntp::{Header, Leap};
use crate::wire::timestamp::NtpTimestamp;

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// Server of key establishment: NAME, NAME:PORT, 192.0.2.1:PORT or [2001:db8::1]:PORT
    #[arg(value_name = "HOST[:PORT]")]
    server: String,
    /// Trust the certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// AEAD algorithms to offer, best first: 15, 17, 30
    #[arg(long = "aead", value_name = "LIST", default_value = "15", value_delimiter = ',',
          value_parser = aead)]
    aeads: Vec<Algorithm>,
    /// How often to ask for the time
    #[arg(long, value_name = "N", default_value_t = QUERY_SAMPLES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    samples: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Seconds to wait for key establishment, and for each sample
    #[arg(long, value_name = "SECONDS", default_value_t = QUERY_TIMEOUT_SECONDS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Why there is no authentic time.
#[derive(Debug, thiserror::Error)]
enum Error {
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

/// What was found, as JSON shows it.
#[derive(Serialize)]
struct Report {
    tls: String,
    certificate: Option<Certificate>,
    key_establishment_ms: f64,
    aead: &'static str,
    aead_id: u16,
    /// The number in the exporter context: 15 for AEAD 30 of an old chrony.
    exporter_id: u16,
    cookies: usize,
    cookie_bytes: usize,
    ntp_server: SocketAddr,
    samples: Vec<Sample>,
}

#[derive(Serialize)]
struct Certificate {
    subject: String,
    names: Vec<String>,
    not_after: String,
}

/// One answer. Offset and delay as in RFC 5905 section 8.
#[derive(Serialize)]
struct Sample {
    offset_seconds: f64,
    delay_seconds: f64,
    stratum: u8,
    synchronised: bool,
    root_distance_seconds: f64,
    reference_id: String,
}

pub(super) fn run(arguments: &QueryArguments) -> ExitCode {
    match query(arguments) {
        Ok(report) => {
            if arguments.json {
                let text = serde_json::to_string_pretty(&report).expect("plain data");
                println!("{text}");
            } else {
                print_report(&report);
            }
            ExitCode::SUCCESS
        }
        Err(error @ Error::Host(_)) => fail(EXIT_USAGE, error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

fn query(arguments: &QueryArguments) -> Result<Report, Error> {
    let (host, port) =
        host_and_port(&arguments.server).ok_or_else(|| Error::Host(arguments.server.clone()))?;
    let roots = match &arguments.ca {
        Some(file) => roots_from_file(file)?,
        None => system_roots()?,
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let config = client_config(roots);
    let mut algorithms = ArrayVec::new();
    for algorithm in &arguments.aeads {
        if !algorithms.contains(algorithm) {
            algorithms.push(*algorithm);
        }
    }
    let offer = Offer { algorithms, ..Offer::default() };
    let established = establish(&Options { host, port, config, offer, timeout })?;
    let server = ntp_server(&established)?;
    let mut samples = Sampler::new(&established, &established.keys, server, timeout)?;
    let mut taken = Vec::new();
    let mut exporter_id = established.agreed.exporter_id;
    while taken.len() < arguments.samples as usize {
        match (samples.next(), &established.legacy_keys) {
            (Ok(sample), _) => taken.push(sample),
            // chrony before 4.6.1 derives the keys of AEAD 30 as if it were 15.
            (Err(Error::Response(ResponseError::Nak)), Some(keys))
                if exporter_id == established.agreed.exporter_id && taken.is_empty() =>
            {
                exporter_id = established.agreed.legacy_exporter_id().unwrap_or(exporter_id);
                samples = Sampler::new(&established, keys, server, timeout)?;
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(report(&established, exporter_id, server, taken))
}

fn aead(text: &str) -> Result<Algorithm, String> {
    let id = text.trim().parse().ok();
    id.and_then(Algorithm::from_id).ok_or_else(|| "15, 17 and 30 can be offered".to_owned())
}

/// Splits what the user gave; a bare IPv6 address is all host.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = if port.is_empty() { Some("4460") } else { port.strip_prefix(':') }?;
        return Some((host.to_owned(), port.parse().ok()?));
    }
    if text.matches(':').count() > 1 {
        return Some((text.parse::<Ipv6Addr>().ok()?.to_string(), NTS_KE_PORT));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, NTS_KE_PORT),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Where the NTP service is: what key establishment named, else the host that it was done with
/// (RFC 8915 section 4.1.7).
fn ntp_server(established: &Established) -> Result<SocketAddr, Error> {
    let port = established.agreed.port.unwrap_or(NTP_PORT);
    let Some(name) = &established.agreed.server else {
        return Ok(SocketAddr::new(established.address.ip(), port));
    };
    let resolve = |source| Error::Resolve { server: name.clone(), source };
    let mut addresses = (name.as_str(), port).to_socket_addrs().map_err(resolve)?;
    addresses.next().ok_or_else(|| resolve(std::io::ErrorKind::NotFound.into()))
}

/// Takes samples of one server over one socket.
struct Sampler {
    socket: UdpSocket,
    server: SocketAddr,
    timeout: Duration,
    association: Association,
    nonces: NonceGenerator,
}

impl Sampler {
    fn new(
        established: &Established,
        keys: &SessionKeys,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local)
            .and_then(|socket| socket.connect(server).map(|()| socket))
            .map_err(|source| Error::Socket { server, source })?;
        let keys = ClientKeys::new(established.agreed.algorithm, keys.c2s(), keys.s2c())
            .expect("key establishment gives keys of the algorithm's length");
        let cookies = established.agreed.cookies.iter().map(|cookie| cookie.as_slice());
        Ok(Self {
            socket,
            server,
            timeout,
            association: Association::new(keys, cookies),
            nonces: NonceGenerator::new().map_err(Error::Random)?,
        })
    }

    fn next(&mut self) -> Result<Sample, Error> {
        let socket_error = |source| Error::Socket { server: self.server, source };
        let mut buffer = [0; DATAGRAM_BYTES];
        let pending = self.association.request(&mut buffer, &mut self.nonces)?;
        let sent = now();
        self.socket.send(&buffer[..pending.request_bytes]).map_err(socket_error)?;
        let deadline = std::time::Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
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
            match self.association.response(&pending, &mut buffer[..received_bytes]) {
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

fn report(
    established: &Established,
    exporter_id: u16,
    server: SocketAddr,
    samples: Vec<Sample>,
) -> Report {
    let leaf = established.chain.first().and_then(|der| describe_der(der).ok());
    Report {
        tls: format!("{} {}", established.tls_version, established.tls_suite),
        certificate: leaf.map(|leaf| Certificate {
            subject: leaf.subject,
            names: leaf.names,
            not_after: rfc_3339(leaf.not_after),
        }),
        key_establishment_ms: established.elapsed.as_secs_f64() * 1e3,
        aead: established.agreed.algorithm.name(),
        aead_id: established.agreed.algorithm.id(),
        exporter_id,
        cookies: established.agreed.cookies.len(),
        cookie_bytes: established.agreed.cookies.first().map_or(0, |cookie| cookie.len()),
        ntp_server: server,
        samples,
    }
}

fn rfc_3339(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}

fn print_report(report: &Report) {
    println!("TLS          {}, {:.1} ms", report.tls, report.key_establishment_ms);
    if let Some(certificate) = &report.certificate {
        println!("certificate  {}, until {}", certificate.subject, certificate.not_after);
        println!("             for {}", certificate.names.join(", "));
    }
    let keys = if report.exporter_id == report.aead_id { "" } else { ", keys as for AEAD 15" };
    println!("AEAD         {} ({}){keys}", report.aead, report.aead_id);
    println!("cookies      {} of {} bytes", report.cookies, report.cookie_bytes);
    println!("NTP server   udp {}", report.ntp_server);
    println!("\n     offset       delay  root distance  stratum  reference");
    for sample in &report.samples {
        println!(
            "{:>+9.6} s  {:>8.6} s  {:>11.6} s  {:>7}  {}{}",
            sample.offset_seconds,
            sample.delay_seconds,
            sample.root_distance_seconds,
            sample.stratum,
            sample.reference_id,
            if sample.synchronised { "" } else { "  (the server calls itself unsynchronised)" },
        );
    }
    println!("\nauthentic: {} of {} samples", report.samples.len(), report.samples.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let split = |text| host_and_port(text).map(|(host, port)| format!("{host} {port}"));
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
