//! What is in a certificate file, and what is wrong with it.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::limits::CERTIFICATE_EXPIRY_WARNING_DAYS;

/// One certificate in words.
#[derive(Clone, Debug)]
pub struct Description {
    /// Distinguished name of the subject.
    pub subject: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Names it is good for: DNS names and IP addresses.
    pub names: Vec<String>,
    /// First moment of validity.
    pub not_before: OffsetDateTime,
    /// Last moment of validity.
    pub not_after: OffsetDateTime,
    /// Type and size of the public key.
    pub key: Key,
    /// Basic constraints say CA:TRUE.
    pub is_ca: bool,
    /// Subject and issuer are the same.
    pub is_self_issued: bool,
    /// The certificate says what its key is for, and servers are not on the list.
    pub is_not_for_servers: bool,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA and the bits of its modulus.
    Rsa(usize),
    /// ECDSA and the name of its curve.
    Ecdsa(String),
    /// Ed25519.
    Ed25519,
    /// Anything else, as its object identifier.
    Other(String),
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(formatter, "RSA, {bits} bits"),
            Self::Ecdsa(curve) => write!(formatter, "ECDSA, {curve}"),
            Self::Ed25519 => write!(formatter, "Ed25519, 256 bits"),
            Self::Other(identifier) => write!(formatter, "unknown type {identifier}"),
        }
    }
}

/// Something a server's operator should know about a chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Warning {
    /// RSA signatures cost more.
    #[error("the key is RSA: a handshake costs about five times as much as with ECDSA P-256")]
    Rsa,
    /// Clients compare names with subject alternative names only.
    #[error("it has no subject alternative name: no client will accept it for any name")]
    NoName,
    /// Several TLS libraries refuse a CA certificate as a server's own.
    #[error("it is a CA certificate (CA:TRUE): many clients refuse that as a server's own")]
    CaAsServer,
    /// The extended key usage leaves servers out.
    #[error("its extended key usage does not allow TLS servers: clients will refuse it")]
    NotForServers,
    /// Past.
    #[error("it has expired: clients with the right time refuse it")]
    Expired,
    /// Future.
    #[error("it is not valid yet: check the clock of whoever made it")]
    NotYetValid,
    /// Near.
    #[error("it expires in {0} days")]
    ExpiresSoon(i64),
    /// The chain in the file is not in order; counted from 1.
    #[error(
        "certificate {0} was not issued by certificate {next}: put the server's own first, then \
         each one's issuer", next = .0 + 1
    )]
    ChainOrder(usize),
}

impl Warning {
    /// Whether it is about the dates.
    pub(crate) fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired | Self::NotYetValid | Self::ExpiresSoon(_))
    }
}

/// Describes every certificate in `bytes`: PEM blocks, or one DER certificate.
///
/// # Errors
/// [`DescribeError`] when there is none, or one that is malformed.
pub fn describe(bytes: &[u8]) -> Result<Vec<Description>, DescribeError> {
    let blocks = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| DescribeError::Pem(error.to_string()))?;
    if blocks.is_empty() {
        // Bytes that are not DER either were most likely meant to be PEM.
        let only = describe_der(bytes).map_err(|_| DescribeError::NoCertificate)?;
        return Ok(vec![only]);
    }
    blocks.iter().map(|block| describe_der(block)).collect()
}

/// Describes one DER certificate.
///
/// # Errors
/// [`DescribeError::Malformed`].
pub fn describe_der(der: &[u8]) -> Result<Description, DescribeError> {
    let malformed = |error: &dyn fmt::Display| DescribeError::Malformed(error.to_string());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
    let usage = certificate.extended_key_usage().map_err(|error| malformed(&error))?;
    Ok(Description {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names(&certificate)?,
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        key: key(&certificate),
        is_ca: certificate.is_ca(),
        is_self_issued: certificate.subject() == certificate.issuer(),
        is_not_for_servers: usage.is_some_and(|usage| !usage.value.any && !usage.value.server_auth),
    })
}

/// What is wrong with `chain`, the server's own certificate first, at the moment `now`.
pub fn warnings(chain: &[Description], now: OffsetDateTime) -> Vec<Warning> {
    let Some(leaf) = chain.first() else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let mut warn = |is_so: bool, warning: Warning| {
        if is_so {
            warnings.push(warning);
        }
    };
    warn(matches!(leaf.key, Key::Rsa(_)), Warning::Rsa);
    warn(leaf.names.is_empty(), Warning::NoName);
    warn(leaf.is_ca, Warning::CaAsServer);
    warn(leaf.is_not_for_servers, Warning::NotForServers);
    let days_left = (leaf.not_after - now).whole_days();
    if now > leaf.not_after {
        warn(true, Warning::Expired);
    } else {
        warn(days_left < CERTIFICATE_EXPIRY_WARNING_DAYS, Warning::ExpiresSoon(days_left));
    }
    warn(now < leaf.not_before, Warning::NotYetValid);
    for (index, pair) in chain.windows(2).enumerate() {
        warn(pair[0].issuer != pair[1].subject, Warning::ChainOrder(index + 1));
    }
    warnings
}

/// Why a file cannot be described.
#[derive(Debug, Error)]
pub enum DescribeError {
    /// Nothing in it is a certificate.
    #[error("there is no certificate in it: it should have a BEGIN CERTIFICATE line")]
    NoCertificate,
    /// The PEM text is damaged.
    #[error("the PEM text is damaged: {0}")]
    Pem(String),
    /// The certificate is damaged.
    #[error("the certificate is damaged: {0}")]
    Malformed(String),
}

fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, DescribeError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| DescribeError::Malformed(error.to_string()))?;
    let names = extension.map(|extension| extension.value.general_names.as_slice());
    Ok(names.unwrap_or_default().iter().filter_map(name).collect())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn key(certificate: &X509Certificate<'_>) -> Key {
    let info = certificate.public_key();
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == oid::OID_SIG_ED25519 {
        return Key::Ed25519;
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => Key::Rsa(key.key_size()),
        Ok(PublicKey::EC(point)) => Key::Ecdsa(curve(certificate, point.key_size())),
        _ => Key::Other(algorithm.to_id_string()),
    }
}

fn curve(certificate: &X509Certificate<'_>, bits: usize) -> String {
    let parameters = certificate.public_key().algorithm.parameters.as_ref();
    match parameters.and_then(|parameters| parameters.as_oid().ok()) {
        Some(curve) if curve == oid::OID_EC_P256 => "P-256".to_owned(),
        Some(curve) if curve == oid::OID_NIST_EC_P384 => "P-384".to_owned(),
        Some(curve) if curve == oid::OID_NIST_EC_P521 => "P-521".to_owned(),
        _ => format!("{bits} bits"),
    }
}
