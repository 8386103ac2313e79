//! TLS as NTS-KE wants it (RFC 8915 section 3), and the certificates of a server.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig, SignatureScheme, SupportedCipherSuite};
use thiserror::Error;
use zeroize::Zeroizing;

use super::ALPN;
use crate::certificate::describe::{DescribeError, describe_der};

/// The TLS side of the server role: TLS 1.3 only, `ntske/1`, no resumption of any kind, since a
/// client comes once in days and a ticket key would be one more secret to rotate.
///
/// # Errors
/// rustls' own, if its provider has no TLS 1.3 or no random numbers.
pub fn server_config(store: Arc<CertificateStore>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(CryptoProvider { cipher_suites: suites(), ..(*provider()).clone() });
    // aws-lc takes 30 ms to gather entropy for its first random number: now, not while the first
    // client waits.
    provider.secure_random.fill(&mut [0; 1])?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The cipher suites of TLS 1.3, the cheapest handshake first: its dozens of hashes are most of
/// what a suite costs here, and processors have instructions for SHA-256 but few for SHA-384. The
/// key exchange and the AEAD that clients are given keys for have 128 bits of strength as well.
fn suites() -> Vec<SupportedCipherSuite> {
    vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ]
}

/// aws-lc with X25519 as the first choice, the cheapest exchange; the post-quantum hybrid is there
/// for clients that insist on it.
pub fn provider() -> Arc<CryptoProvider> {
    let groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::X25519MLKEM768];
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Pair {
    /// Loads a PEM chain, the server's own certificate first, and its PEM key (PKCS #8, PKCS #1 or
    /// SEC 1, not encrypted), and makes sure that they belong together.
    ///
    /// # Errors
    /// [`PairError`], which names the files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PairError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| PairError::Read { path: path.to_owned(), source })
        };
        let chain_pem = read(certificate)?;
        let key_pem = Zeroizing::new(read(key)?);
        Self::from_pem(&chain_pem, &key_pem, certificate, key)
    }

    /// As [`Pair::load`], with the texts in hand; the paths are for the messages.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn from_pem(
        chain_pem: &[u8],
        key_pem: &[u8],
        certificate_path: &Path,
        key_path: &Path,
    ) -> Result<Self, PairError> {
        let certificate = || certificate_path.to_owned();
        let key = || key_path.to_owned();
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| PairError::NoCertificate(certificate()))?;
        let leaf = chain.first().ok_or_else(|| PairError::NoCertificate(certificate()))?;
        let description = describe_der(leaf)
            .map_err(|source| PairError::Certificate { path: certificate(), source })?;
        let key_der =
            PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| PairError::NoKey(key()))?;
        let signing_key = provider()
            .key_provider
            .load_private_key(key_der)
            .map_err(|source| PairError::Key { path: key(), source })?;
        let certified = CertifiedKey::new(chain, signing_key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(PairError::Mismatch { certificate: certificate(), key: key() });
            }
            Err(source) => return Err(PairError::Rejected { path: certificate(), source }),
        }
        let names = description.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { certified: Arc::new(certified), names })
    }

    /// The names that this pair is chosen for.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Pair").field(&self.names).finish()
    }
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, Error)]
pub enum PairError {
    /// A file could not be read.
    #[error("{path} could not be read: {source}; check its name and that this user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate in the file.
    #[error("{0} has no PEM certificate in it: it should have a BEGIN CERTIFICATE line")]
    NoCertificate(PathBuf),
    /// The certificate does not parse.
    #[error("certificate {path} cannot be used: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DescribeError,
    },
    /// The TLS library refuses the certificate.
    #[error("certificate {path} cannot be used: {source}; make a new one")]
    Rejected {
        /// The file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// No key in the file.
    #[error(
        "{0} has no PEM private key in it: it should have a BEGIN PRIVATE KEY line; an encrypted \
         key has to be decrypted first"
    )]
    NoKey(PathBuf),
    /// A key of a kind that TLS has no use for.
    #[error("key {path} cannot be used: {source}; use ECDSA P-256, Ed25519 or RSA")]
    Key {
        /// The file.
        path: PathBuf,
        /// What the TLS library said.
        source: rustls::Error,
    },
    /// The key is of another certificate.
    #[error(
        "certificate {certificate} and key {key} do not belong together: give the key that the \
         certificate was made with, and the server's own certificate first in the file"
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The pairs of a server, chosen by the name that a client asks for. Replaced as a whole, so that
/// no handshake sees half of a new set.
pub struct CertificateStore {
    pairs: RwLock<Arc<Pairs>>,
}

struct Pairs {
    in_order: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl CertificateStore {
    /// A store of one or more pairs; clients that ask for no name, or one that none has, are
    /// shown the first.
    ///
    /// # Errors
    /// [`NoPair`] when there is none.
    pub fn new(pairs: Vec<Pair>) -> Result<Self, NoPair> {
        Ok(Self { pairs: RwLock::new(Arc::new(Pairs::new(pairs)?)) })
    }

    /// Shows `pairs` to all handshakes that begin from now on.
    ///
    /// # Errors
    /// [`NoPair`]; the old pairs stay.
    pub fn replace(&self, pairs: Vec<Pair>) -> Result<(), NoPair> {
        let pairs = Arc::new(Pairs::new(pairs)?);
        *self.pairs.write().unwrap_or_else(PoisonError::into_inner) = pairs;
        Ok(())
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let pairs = Arc::clone(&self.pairs.read().unwrap_or_else(PoisonError::into_inner));
        let named = name.map(|name| pairs.named(name)).unwrap_or_default();
        let mut candidates = named.iter().chain(&pairs.in_order);
        candidates.find(|pair| pair.key.choose_scheme(schemes).is_some()).cloned()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client_hello.server_name(), client_hello.signature_schemes())
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CertificateStore")
    }
}

/// A server without a certificate can serve nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no certificate: give at least one certificate and its key")]
pub struct NoPair;

impl Pairs {
    fn new(pairs: Vec<Pair>) -> Result<Self, NoPair> {
        if pairs.is_empty() {
            return Err(NoPair);
        }
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for pair in &pairs {
            for name in &pair.names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&pair.certified));
            }
        }
        let in_order = pairs.into_iter().map(|pair| pair.certified).collect();
        Ok(Self { in_order, by_name })
    }

    /// Pairs for exactly `name`, else for the wildcard of its domain (RFC 9525 section 6.3).
    fn named(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    use super::*;

    #[test]
    fn c042_sni_chooses_the_pair_and_an_unknown_name_gets_the_first() {
        let store = CertificateStore::new(vec![
            pair(&["default.example"], &rcgen::PKCS_ECDSA_P256_SHA256),
            pair(&["time.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256),
            pair(&["*.example.net"], &rcgen::PKCS_ECDSA_P256_SHA256),
        ])
        .unwrap();
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        for (name, expected) in [
            (None, "default.example"),
            (Some("unknown.example"), "default.example"),
            (Some("TIME.example.org"), "time.example.org"),
            (Some("a.example.net"), "*.example.net"),
            (Some("a.b.example.net"), "default.example"),
        ] {
            let chosen = store.choose(name, &schemes).unwrap();
            let names = describe_der(chosen.end_entity_cert().unwrap()).unwrap().names;
            assert_eq!(names, [expected], "{name:?}");
        }
        assert!(store.choose(None, &[SignatureScheme::RSA_PSS_SHA256]).is_none());
    }

    #[test]
    fn c045_a_client_is_shown_a_key_type_it_can_verify() {
        let ed25519 = pair(&["time.example.org"], &PKCS_ED25519);
        let ecdsa = pair(&["time.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let store = CertificateStore::new(vec![ed25519, ecdsa]).unwrap();
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let chosen = store.choose(Some("time.example.org"), &schemes).unwrap();
        assert!(chosen.key.choose_scheme(&schemes).is_some());
    }

    #[test]
    fn c045_pairs_are_replaced_as_a_whole() {
        let store = CertificateStore::new(vec![pair(&["old.example"], &PKCS_ED25519)]).unwrap();
        let shown = || {
            let chosen = store.choose(None, &[SignatureScheme::ED25519]).unwrap();
            describe_der(chosen.end_entity_cert().unwrap()).unwrap().names
        };
        assert_eq!(store.replace(Vec::new()), Err(NoPair));
        assert_eq!(shown(), ["old.example"]);
        store.replace(vec![pair(&["new.example"], &PKCS_ED25519)]).unwrap();
        assert_eq!(shown(), ["new.example"]);
        assert_eq!(CertificateStore::new(Vec::new()).unwrap_err(), NoPair);
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_said_with_its_file() {
        let (chain, key) = pem(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let (_, other_key) = pem(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let load = |chain: &str, key: &str| {
            let (certificate_path, key_path) = (Path::new("c.pem"), Path::new("k.pem"));
            Pair::from_pem(chain.as_bytes(), key.as_bytes(), certificate_path, key_path)
        };
        assert_eq!(load(&chain, &key).unwrap().names(), ["a.example"]);
        let says = |chain: &str, key: &str, text: &str| {
            let message = load(chain, key).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        };
        says(&chain, &other_key, "certificate c.pem and key k.pem do not belong together");
        says("garbage", &key, "c.pem has no PEM certificate");
        says(&chain, "garbage", "k.pem has no PEM private key");
        says(&chain, &chain, "k.pem has no PEM private key");
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        says(damaged, &key, "certificate c.pem cannot be used");
        let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        says(&chain, damaged, "key k.pem cannot be used");
        let missing = Pair::load(Path::new("/nowhere/c.pem"), Path::new("/nowhere/k.pem"));
        assert!(missing.unwrap_err().to_string().contains("/nowhere/c.pem could not be read"));
    }

    fn pair(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Pair {
        let (chain, key) = pem(names, algorithm);
        let path = Path::new("test");
        Pair::from_pem(chain.as_bytes(), key.as_bytes(), path, path).unwrap()
    }

    fn pem(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
