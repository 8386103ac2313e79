//! Associations from a server's key establishment, as clients get them.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use timeball::ke::client::{
    ClientError, Established, Options, RootsError, client_config, establish, roots_from_file,
    system_roots,
};
use timeball::ke::tls;
use timeball::limits::NTP_PORT;

use super::{Associations, MemoryError, Saved};

/// Whom to trust.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The certificates of this system.
    System,
    /// Those in a PEM file.
    File(PathBuf),
    /// Anybody: for labs.
    Anybody,
}

impl Trust {
    /// TLS of the client with this trust.
    pub fn config(&self) -> Result<Arc<ClientConfig>, RootsError> {
        Ok(match self {
            Self::System => client_config(system_roots()?),
            Self::File(path) => client_config(roots_from_file(path)?),
            Self::Anybody => {
                let mut config = (*client_config(Arc::new(RootCertStore::empty()))).clone();
                let algorithms = tls::provider().signature_verification_algorithms;
                let verifier = Arc::new(TrustAnybody { algorithms });
                config.dangerous().set_certificate_verifier(verifier);
                Arc::new(config)
            }
        })
    }
}

/// Why there are no associations.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// Key establishment failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The NTP server that it named has no address.
    #[error("the NTP server {0} that key establishment named has no address: use --ntp-server")]
    Server(String),
    /// Answers of different kinds.
    #[error(
        "the server changes the AEAD or the length of its cookies from client to client: ask for \
         one AEAD with --aead"
    )]
    Mixed,
    /// Ctrl-C.
    #[error("interrupted before all clients had their keys")]
    Interrupted,
    /// Too many.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Does key establishment `clients` times, `concurrency` at a time, and ends at the first failure.
/// `done` is told after each.
pub fn harvest(
    options: &Options,
    clients: usize,
    concurrency: usize,
    stop: &AtomicBool,
    done: impl Fn() + Sync,
) -> Result<Saved, HarvestError> {
    let turn = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || -> Result<Vec<Established>, HarvestError> {
        let mut established = Vec::new();
        while turn.fetch_add(1, Ordering::Relaxed) < clients && !failed.load(Ordering::Relaxed) {
            if stop.load(Ordering::Relaxed) {
                return Err(HarvestError::Interrupted);
            }
            let one = establish(options).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            established.push(one);
            done();
        }
        Ok(established)
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..concurrency.min(clients)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut all = Vec::with_capacity(clients);
    for result in results {
        all.extend(result?);
    }
    pack(&all)
}

fn pack(all: &[Established]) -> Result<Saved, HarvestError> {
    let first = all.first().ok_or(HarvestError::Interrupted)?;
    let algorithm = first.agreed.algorithm;
    let cookie_bytes = first.agreed.cookies[0].len();
    let depth = all.iter().map(|one| one.agreed.cookies.len()).max().unwrap_or(1);
    let mut associations = Associations::empty(algorithm, cookie_bytes, depth, all.len())?;
    for (client, one) in all.iter().enumerate() {
        if one.agreed.algorithm != algorithm {
            return Err(HarvestError::Mixed);
        }
        associations.set_keys(client, one.keys.c2s(), one.keys.s2c());
        for cookie in &one.agreed.cookies {
            if !associations.add_cookie(client, cookie) {
                return Err(HarvestError::Mixed);
            }
        }
    }
    Ok(Saved { server: ntp_server(first)?, associations })
}

/// Where the NTP service is: what key establishment named, else the host that it was done with
/// (RFC 8915 section 4.1.7).
fn ntp_server(established: &Established) -> Result<SocketAddr, HarvestError> {
    let port = established.agreed.port.unwrap_or(NTP_PORT);
    let Some(name) = &established.agreed.server else {
        return Ok(SocketAddr::new(established.address.ip(), port));
    };
    let mut addresses = (name.as_str(), port).to_socket_addrs().into_iter().flatten();
    addresses.next().ok_or_else(|| HarvestError::Server(name.clone()))
}

/// Takes any certificate, but not any signature: the handshake itself has to be sound.
#[derive(Debug)]
struct TrustAnybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("NTS-KE has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
