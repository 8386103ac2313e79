//! The NTS-KE client: one blocking exchange with a server, within a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};
use thiserror::Error;

use super::exchange::{Agreed, AnswerError, Offer};
use super::keys::SessionKeys;
use super::{ALPN, tls};
use crate::limits::{KE_READ_BYTES, KE_RESPONSE_BYTES_MAX};
use crate::wire::ke::{FramingError, Progress, Scanner};

/// Whom to ask, whom to trust, and what to ask for.
#[derive(Clone, Debug)]
pub struct Options {
    /// DNS name or IP address of the server; its certificate is verified for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS and whom to trust, see [`client_config`]; one for many connections.
    pub config: Arc<ClientConfig>,
    /// What to ask for.
    pub offer: Offer,
    /// Time for the whole exchange. Looking up a name is the system's and takes what it takes.
    pub timeout: Duration,
}

/// What a server established with us. Keys are wiped when dropped.
#[derive(Debug)]
pub struct Established {
    /// The address that answered.
    pub address: SocketAddr,
    /// Always TLS 1.3.
    pub tls_version: &'static str,
    /// Cipher suite, key exchange group, as rustls names them.
    pub tls_suite: String,
    /// The server's certificate chain, DER, its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What was agreed: AEAD, cookies, NTP server and port.
    pub agreed: Agreed,
    /// C2S and S2C.
    pub keys: SessionKeys,
    /// Those to try when the first request gets a NAK, see [`Agreed::legacy_exporter_id`].
    pub legacy_keys: Option<SessionKeys>,
    /// Time from the first connection attempt to the complete answer.
    pub elapsed: Duration,
    /// The part of it until TCP was connected.
    pub connected: Duration,
    /// The part of it until the TLS handshake was complete on our side.
    pub shaken: Duration,
}

/// Establishes keys and cookies with a server, trying its addresses one after the other until one
/// takes the connection.
///
/// # Errors
/// [`ClientError`], one sentence with the cause and what to do.
pub fn establish(options: &Options) -> Result<Established, ClientError> {
    let name = server_name(&options.host)?;
    let addresses = addresses(&options.host, options.port)?;
    let begin = Instant::now();
    let deadline = begin + options.timeout;
    let (stream, address) = connect(&addresses, deadline, options)?;
    let connected = begin.elapsed();
    let tls = ClientConnection::new(Arc::clone(&options.config), name)
        .map_err(|source| ClientError::Tls { host: options.host.clone(), source })?;
    let mut exchange = Exchange { stream, tls, deadline, options, shaken: None };
    let response = exchange.request()?;
    exchange.finish(&response, address, begin, connected)
}

/// TLS of the client role: 1.3 only, `ntske/1`, no resumption. One for many connections.
pub fn client_config(roots: Arc<RootCertStore>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider is ours and has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// The certificates that this system trusts. Those that do not parse are left out.
///
/// # Errors
/// [`RootsError::System`] when there is none.
pub fn system_roots() -> Result<Arc<RootCertStore>, RootsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(RootsError::System) } else { Ok(Arc::new(roots)) }
}

/// The certificates in a PEM file; all of them have to parse.
///
/// # Errors
/// [`RootsError`].
pub fn roots_from_file(path: &Path) -> Result<Arc<RootCertStore>, RootsError> {
    let bytes =
        std::fs::read(path).map_err(|source| RootsError::Read { path: path.to_owned(), source })?;
    let malformed = || RootsError::Malformed(path.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        roots.add(certificate.map_err(|_| malformed())?).map_err(|_| malformed())?;
    }
    if roots.is_empty() { Err(malformed()) } else { Ok(Arc::new(roots)) }
}

/// Why there are no trusted certificates.
#[derive(Debug, Error)]
pub enum RootsError {
    /// The system has none.
    #[error("this system has no trusted certificates: install ca-certificates, or give --ca FILE")]
    System,
    /// The file could not be read.
    #[error("{path} could not be read: {source}; check its name and who may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no certificate, or a damaged one.
    #[error("{0} has no certificate in it, or a damaged one: it should be PEM text")]
    Malformed(PathBuf),
}

/// Why nothing was established.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The host is neither a name nor an address.
    #[error("\"{host}\" is neither a DNS name nor an IP address: write time.example.org")]
    Name {
        /// The host as given.
        host: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// The host has no address.
    #[error("{host} has no address ({source}): check the name and this host's resolver")]
    Lookup {
        /// The host.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// No address takes a connection.
    #[error(
        "{host} does not take connections on TCP port {port} ({source}): check that an NTS server \
         runs there and that no firewall is between"
    )]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the last address said.
        source: io::Error,
    },
    /// The time was up.
    #[error("{host} did not answer in time: it may be overloaded or far away; allow more time")]
    Timeout {
        /// The host.
        host: String,
    },
    /// The connection broke.
    #[error("the connection to {host} broke ({source}): try again")]
    Broken {
        /// The host.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate does not verify.
    #[error("the certificate of {host} cannot be trusted ({source}): {}", advice(source))]
    Certificate {
        /// The host.
        host: String,
        /// What verification said.
        source: rustls::Error,
    },
    /// TLS failed otherwise.
    #[error("TLS with {host} failed ({source}): check that it is an NTS server on this port")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The server speaks TLS but not `ntske/1`.
    #[error("{host} does not speak NTS-KE (no ALPN ntske/1): check the port")]
    NoAlpn {
        /// The host.
        host: String,
    },
    /// The connection ended before the answer.
    #[error("{host} closed the connection without a complete answer: see its log")]
    Closed {
        /// The host.
        host: String,
    },
    /// The answer is too long or badly framed.
    #[error("the answer of {host} makes no sense ({source}): it is not a working NTS server")]
    Framing {
        /// The host.
        host: String,
        /// What is wrong with it.
        source: FramingError,
    },
    /// The answer is not one to our request.
    #[error("{host} gave no keys: {source}")]
    Answer {
        /// The host.
        host: String,
        /// What is wrong with it.
        source: AnswerError,
    },
}

struct Exchange<'a> {
    stream: TcpStream,
    tls: ClientConnection,
    deadline: Instant,
    options: &'a Options,
    /// When the handshake was complete on our side.
    shaken: Option<Instant>,
}

impl Exchange<'_> {
    /// Sends the request with the end of the handshake, and reads until the answer is complete.
    fn request(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut request = Vec::new();
        let too_long = |_| self.broken(io::ErrorKind::InvalidInput.into());
        self.options.offer.emit(&mut request).map_err(too_long)?;
        self.tls.writer().write_all(&request).map_err(|source| self.broken(source))?;

        let mut response = Vec::new();
        let mut scanner = Scanner::new(KE_RESPONSE_BYTES_MAX);
        loop {
            self.send()?;
            let is_open = self.receive(&mut response)?;
            let framing = |source| ClientError::Framing { host: self.host(), source };
            if scanner.advance(&response).map_err(framing)? == Progress::Complete {
                break;
            }
            if !is_open {
                return Err(ClientError::Closed { host: self.host() });
            }
        }
        self.tls.send_close_notify();
        // The answer is here; whether the server hears our goodbye changes nothing.
        let _ = self.send();
        Ok(response)
    }

    fn finish(
        self,
        response: &[u8],
        address: SocketAddr,
        begin: Instant,
        connected: Duration,
    ) -> Result<Established, ClientError> {
        let host = || self.options.host.clone();
        let agreed = self
            .options
            .offer
            .accept(response)
            .map_err(|source| ClientError::Answer { host: host(), source })?;
        let export = |exporter_id| {
            SessionKeys::export(&self.tls, agreed.algorithm, exporter_id)
                .map_err(|source| ClientError::Tls { host: host(), source })
        };
        let keys = export(agreed.exporter_id)?;
        let legacy_keys = agreed.legacy_exporter_id().map(export).transpose()?;
        let suite = self.tls.negotiated_cipher_suite().map(|suite| suite.suite());
        let group = self.tls.negotiated_key_exchange_group().map(|group| group.name());
        Ok(Established {
            address,
            tls_version: match self.tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "unknown",
            },
            tls_suite: [
                suite.map(|suite| format!("{suite:?}")),
                group.map(|name| format!("{name:?}")),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
            chain: self.tls.peer_certificates().unwrap_or_default().to_vec(),
            agreed,
            keys,
            legacy_keys,
            elapsed: begin.elapsed(),
            connected,
            shaken: self.shaken.map_or(connected, |shaken| shaken - begin),
        })
    }

    fn send(&mut self) -> Result<(), ClientError> {
        while self.tls.wants_write() {
            let time_left = self.time_left()?;
            let sent = self
                .stream
                .set_write_timeout(Some(time_left))
                .and_then(|()| self.tls.write_tls(&mut self.stream));
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Adds what one read brings to `response`; false when the server has closed.
    fn receive(&mut self, response: &mut Vec<u8>) -> Result<bool, ClientError> {
        let time_left = self.time_left()?;
        let received = self
            .stream
            .set_read_timeout(Some(time_left))
            .and_then(|()| self.tls.read_tls(&mut self.stream));
        let read_bytes = match received {
            Ok(read_bytes) => read_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(self.broken(error)),
        };
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The server should hear why; whether it does changes nothing.
                let _ = self.tls.write_tls(&mut self.stream);
                return Err(self.tls_error(error));
            }
        };
        if !self.tls.is_handshaking() {
            self.shaken.get_or_insert_with(Instant::now);
        }
        if !self.tls.is_handshaking() && self.tls.alpn_protocol() != Some(ALPN) {
            return Err(ClientError::NoAlpn { host: self.host() });
        }
        let mut piece = [0; KE_READ_BYTES];
        while response.len() <= KE_RESPONSE_BYTES_MAX
            && let Ok(plain_bytes @ 1..) = self.tls.reader().read(&mut piece)
        {
            response.extend_from_slice(&piece[..plain_bytes]);
        }
        Ok(read_bytes > 0 && !state.peer_has_closed())
    }

    fn time_left(&self) -> Result<Duration, ClientError> {
        let time_left = self.deadline.saturating_duration_since(Instant::now());
        // A timeout of zero means none to the system.
        if time_left.is_zero() {
            return Err(ClientError::Timeout { host: self.host() });
        }
        Ok(time_left)
    }

    fn tls_error(&self, source: rustls::Error) -> ClientError {
        let host = self.host();
        match source {
            rustls::Error::InvalidCertificate(_) => ClientError::Certificate { host, source },
            rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
                ClientError::NoAlpn { host }
            }
            _ => ClientError::Tls { host, source },
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout { host: self.host() }
            }
            _ => ClientError::Broken { host: self.host(), source },
        }
    }

    fn host(&self) -> String {
        self.options.host.clone()
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, ClientError> {
    // Certificates and SNI have names without the final dot (RFC 6066 section 3).
    let name = host.strip_suffix('.').unwrap_or(host).to_owned();
    ServerName::try_from(name).map_err(|source| ClientError::Name { host: host.to_owned(), source })
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    (host, port)
        .to_socket_addrs()
        .map(Iterator::collect)
        .map_err(|source| ClientError::Lookup { host: host.to_owned(), source })
}

fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
    options: &Options,
) -> Result<(TcpStream, SocketAddr), ClientError> {
    let mut last = io::Error::other("the name has no addresses");
    for (index, address) in addresses.iter().enumerate() {
        let time_left = deadline.saturating_duration_since(Instant::now());
        // A share for each address that is still to be tried: one that swallows packets must not
        // use up the time of the others.
        let share = time_left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(ClientError::Timeout { host: options.host.clone() });
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                // Only a hint to the kernel: without it the exchange is slower, not wrong.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Err(error) => last = error,
        }
    }
    Err(ClientError::Connect { host: options.host.clone(), port: options.port, source: last })
}

fn advice(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            UnknownIssuer => "give the CA that issued it, or the certificate itself: --ca FILE",
            BadSignature => "it may have been renewed: give the current one, --ca FILE",
            Expired | ExpiredContext { .. } => "it has expired, or this host's clock is wrong",
            NotValidYet | NotValidYetContext { .. } => "this host's clock may be wrong",
            NotValidForName | NotValidForNameContext { .. } => {
                "use one of the names in the certificate"
            }
            _ => "look at it with `timeball cert show`; a CA certificate (CA:TRUE) is no server's",
        },
        _ => "look at it with `timeball cert show`",
    }
}

#[cfg(test)]
mod tests;
