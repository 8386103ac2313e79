//! The key establishment role: NTS-KE over TLS.

use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::pages::KeyEstablishmentPages;
use super::signals::stop_on_signals;
use super::start::{KeyEstablishmentStart, Report, RoleError, StartMessage};
use crate::aead::{Aead, Algorithm, NonceGenerator, self_test};
use crate::cookie::format::{self, ClientKeys, cookie_bytes};
use crate::ke::cookies::{Cookie, CookieError, CookieSource, CookieVec};
use crate::ke::negotiate::Policy;
use crate::ke::server::{Options, Server};
use crate::ke::tls::{CertificateStore, Pair, server_config};
use crate::limits::{COOKIES_PER_REPLY, NONCE_BYTES_MAX};
use crate::page::key::SharedRing;

/// Serves until SIGTERM, then finishes the handshakes under way. In this order:
///
/// 1. the pages are mapped and the cryptography proves itself,
/// 2. certificate and key are checked against each other,
/// 3. signals are caught,
/// 4. the supervisor is told, and the loop runs.
pub fn run(
    start: StartMessage,
    pages: Vec<OwnedFd>,
    listeners: Vec<OwnedFd>,
    report: &Report,
) -> Result<(), RoleError> {
    let start: KeyEstablishmentStart = start.decode()?;
    let KeyEstablishmentPages { ring, mut stats } = KeyEstablishmentPages::take(pages)?;
    let cookies = RingCookies::new(ring)?;

    let pair = Pair::from_pem(
        start.certificate_pem.as_bytes(),
        start.key_pem.as_bytes(),
        Path::new(&start.certificate_file),
        Path::new(&start.key_file),
    )
    .map_err(|error| RoleError(error.to_string()))?;
    let store = CertificateStore::new(vec![pair]).map_err(|error| RoleError(error.to_string()))?;
    let tls = server_config(Arc::new(store))
        .map_err(|error| RoleError::new("TLS cannot be set up", error))?;
    let options = Options {
        tls,
        policy: policy(&start)?,
        timeout: Duration::from_secs_f64(start.timeout_seconds),
        connections: start.connections_max,
    };
    drop(start);

    let listeners = listeners.into_iter().map(TcpListener::from).collect();
    let mut server = Server::new(listeners, options, cookies)
        .map_err(|error| RoleError::new("cannot wait for connections", error))?;
    let wake = stop_on_signals(&Arc::new(AtomicBool::new(false)))
        .map_err(|error| RoleError::new("cannot catch signals", error))?;
    let stopper = server.stopper();
    std::thread::spawn(move || {
        // Returns at the first signal; the server's waker cannot be used in a signal handler.
        let _ = std::fs::File::from(wake).read(&mut [0]);
        let _ = stopper.stop();
    });

    report.ready();
    let mut serve = || -> io::Result<()> {
        while server.turn(None)?.is_continue() {
            stats.publish(&server.counters());
        }
        stats.publish(&server.counters());
        Ok(())
    };
    serve().map_err(|error| RoleError::new("cannot wait for connections", error))
}

/// AEAD 15 alone: every client has it, and its crypto is the batched one.
fn policy(start: &KeyEstablishmentStart) -> Result<Policy, RoleError> {
    let ntp_servers = match &start.ntp_server {
        Some(name) => vec![name.parse().map_err(|error| RoleError::new("ke.ntp_server", error))?],
        None => Vec::new(),
    };
    Ok(Policy {
        algorithms: [Algorithm::AesSivCmac256].into_iter().collect(),
        ntp_port: start.ntp_port,
        ntp_servers,
        ..Policy::default()
    })
}

/// Cookies under the ring's current master key.
struct RingCookies {
    ring: SharedRing,
    aead: Aead,
    nonces: NonceGenerator,
}

impl RingCookies {
    fn new(ring: SharedRing) -> Result<Self, RoleError> {
        let mut aead = Aead::detect();
        self_test(&mut aead).map_err(|error| RoleError::new("refusing to start", error))?;
        let nonces = NonceGenerator::new()
            .map_err(|error| RoleError::new("the kernel gives no random numbers", error))?;
        Ok(Self { ring, aead, nonces })
    }
}

impl CookieSource for RingCookies {
    fn cookies(
        &mut self,
        algorithm: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        let keys = ClientKeys::new(algorithm, c2s, s2c).ok_or(CookieError::Unfit)?;
        let master = self.ring.latest().current();
        let bytes = cookie_bytes(master.algorithm(), algorithm);
        out.extend(
            (0..COOKIES_PER_REPLY).map(|_| Cookie::from_iter(std::iter::repeat_n(0, bytes))),
        );
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
        let mut jobs: Vec<_> = out
            .iter_mut()
            .map(|cookie| {
                self.nonces.fill(nonce);
                format::prepare(cookie, master, nonce, &keys)
            })
            .collect();
        self.aead.make_cookies(&mut jobs);
        Ok(())
    }
}
