//! A server and a client for tests, with certificates made on the spot.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

use super::cookies::{Cookie, CookieError, CookieSource, CookieVec};
use super::tls::{CertificateStore, Pair, server_config};
use crate::aead::Algorithm;
use crate::certificate::self_signed;

/// The name that [`Identity`] is good for, beside the loopback addresses.
pub(super) const HOST: &str = "time.test";

/// A server's TLS, and what its clients have to trust.
pub(super) struct Identity {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) roots: Arc<RootCertStore>,
}

pub(super) fn identity() -> Identity {
    let names = [HOST, "127.0.0.1", "::1"].map(str::to_owned);
    let pair = self_signed(&names, Duration::days(1), OffsetDateTime::now_utc()).unwrap();
    let (certificate, key) = (pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes());
    let path = Path::new("test");
    let pair = Pair::from_pem(certificate, key, path, path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate).unwrap()).unwrap();
    let store = CertificateStore::new(vec![pair]).unwrap();
    Identity { tls: server_config(Arc::new(store)).unwrap(), roots: Arc::new(roots) }
}

/// Cookies that tell what they were made of: their number, C2S, S2C.
#[derive(Debug, Default)]
pub(super) struct OpenCookies {
    pub(super) is_broken: bool,
}

impl CookieSource for OpenCookies {
    fn cookies(
        &mut self,
        _: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        if self.is_broken {
            return Err(CookieError::NoKey);
        }
        for number in 0..8_u32 {
            let bytes = number.to_be_bytes().into_iter().chain(c2s.iter().chain(s2c).copied());
            out.push(Cookie::from_iter(bytes));
        }
        Ok(())
    }
}
