//! X.509 certificates: making a self-signed one, and saying what is wrong with one.
//!
//! A self-signed certificate from here is a server's own (CA:FALSE) and at the same time the only
//! entry in its clients' list of trusted certificates: chrony takes the file as
//! `ntstrustedcerts`, `timeball query` as `--ca`. It can vouch for nothing but itself.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::pki_types::DnsName;
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::limits::CERTIFICATE_BACKDATE_SECONDS;

pub mod describe;

/// A certificate and its private key, both as PEM text.
pub struct PemPair {
    /// One `CERTIFICATE` block.
    pub certificate_pem: String,
    /// One `PRIVATE KEY` block (PKCS #8); wiped when dropped.
    pub key_pem: Zeroizing<String>,
}

/// Makes a P-256 key and a certificate for `names` (DNS names or IP addresses), signed by itself,
/// valid from a day before `now` until `now + validity`.
///
/// P-256 because it is the key type with the cheapest handshake that every NTS client takes.
///
/// # Errors
/// [`MakeError`] when there is no name, or one that is no DNS name and no address.
pub fn self_signed(
    names: &[String],
    validity: Duration,
    now: OffsetDateTime,
) -> Result<PemPair, MakeError> {
    let first = names.first().ok_or(MakeError::NoName)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, first.as_str());

    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names =
        names.iter().map(|name| subject_alternative(name)).collect::<Result<_, _>>()?;
    params.serial_number = Some(random_serial()?);
    params.not_before = now - Duration::seconds(CERTIFICATE_BACKDATE_SECONDS);
    params.not_after = now.checked_add(validity).ok_or(MakeError::Validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(PemPair { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
}

impl PemPair {
    /// Writes both files: the key readable by its owner only, the certificate by everyone. Each
    /// appears complete or not at all. Both are looked for before either is written.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when a file is there and `overwrite` is false.
    pub fn write(&self, certificate: &Path, key: &Path, overwrite: bool) -> Result<(), WriteError> {
        for path in [key, certificate] {
            if !overwrite && path.symlink_metadata().is_ok() {
                return Err(WriteError::Exists(path.to_owned()));
            }
        }
        write_whole(key, self.key_pem.as_bytes(), KEY_MODE, overwrite)?;
        write_whole(certificate, self.certificate_pem.as_bytes(), CERTIFICATE_MODE, overwrite)
    }
}

/// Why a certificate cannot be made.
#[derive(Debug, Error)]
pub enum MakeError {
    /// No name was given.
    #[error("a certificate needs at least one name: give the DNS name or address clients will use")]
    NoName,
    /// A name that is neither a DNS name nor an IP address.
    #[error(
        "\"{0}\" is neither a DNS name nor an IP address: write names as time.example.org \
         (no scheme, no port, international names in their xn-- form)"
    )]
    Name(String),
    /// The end of validity is beyond what a date can say.
    #[error("the validity ends too far in the future: give fewer days")]
    Validity,
    /// The system has no random numbers to give.
    #[error("the system gives no random numbers for the serial number")]
    Random,
    /// The generator refused.
    #[error("the certificate could not be made: {0}")]
    Generator(#[from] rcgen::Error),
}

/// Why a file could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file is there and was not to be overwritten.
    #[error("{0} exists: choose another folder, or say that it may be overwritten")]
    Exists(PathBuf),
    /// The system refused.
    #[error("{path} could not be written: {source}; check that the folder exists and is yours")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn subject_alternative(name: &str) -> Result<SanType, MakeError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    // A name in a certificate never ends in a dot (RFC 5280 section 4.2.1.6).
    let name = name.strip_suffix('.').unwrap_or(name);
    let bad = || MakeError::Name(name.to_owned());
    DnsName::try_from(name).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

fn random_serial() -> Result<SerialNumber, MakeError> {
    let mut serial = [0; SERIAL_BYTES];
    random(&mut serial).map_err(|_| MakeError::Random)?;
    // Positive and not zero (RFC 5280 section 4.1.2.2).
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

/// Writes a temporary file beside `path` and moves it there. The mode is given at creation, so
/// that there is no moment in which a key can be read by others.
fn write_whole(path: &Path, bytes: &[u8], mode: u32, overwrite: bool) -> Result<(), WriteError> {
    let refused = |source| WriteError::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut suffix = [0; 8];
    random(&mut suffix).map_err(refused)?;
    let temporary = folder.join(format!(".timeball-{:016x}.tmp", u64::from_ne_bytes(suffix)));

    let written = write_and_move(&temporary, path, bytes, mode, overwrite);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    match written {
        Err(error) if !overwrite && error.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteError::Exists(path.to_owned()))
        }
        Err(error) => Err(refused(error)),
        // The name is safe on disk only when the folder is.
        Ok(()) => fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused),
    }
}

fn write_and_move(
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    overwrite: bool,
) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if overwrite {
        return fs::rename(temporary, path);
    }
    // A rename would replace what someone else put there meanwhile; a link does not.
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)
}

fn random(out: &mut [u8]) -> io::Result<()> {
    let source = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    source.fill(out).map_err(|_| io::Error::other("the system gives no random numbers"))
}

/// The owner reads and writes.
const KEY_MODE: u32 = 0o600;
/// Everyone may read: clients need a copy.
const CERTIFICATE_MODE: u32 = 0o644;
/// 127 random bits; RFC 5280 section 4.1.2.2 allows 20 bytes.
const SERIAL_BYTES: usize = 16;

#[cfg(test)]
mod tests;
