//! The key establishment role: NTS-KE over TLS.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use super::certificates::PairText;
use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::KeyEstablishmentPages;
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{KeyEstablishmentStart, KeyEstablishmentTerms, Order, Report, RoleError};
use crate::aead::{Aead, Algorithm, NonceGenerator, self_test};
use crate::cookie::format::{self, ClientKeys, cookie_bytes};
use crate::ke::cookies::{Cookie, CookieError, CookieSource, CookieVec};
use crate::ke::counters::Counters;
use crate::ke::negotiate::{NtpServer, Policy};
use crate::ke::server::{Options, Server, Stopper};
use crate::ke::tls::{CertificateStore, Pair, PairError, server_config};
use crate::limits::{COOKIES_PER_REPLY, NONCE_BYTES_MAX};
use crate::page::key::SharedRing;
use crate::page::stats::StatsWriter;

/// Serves until SIGTERM, then finishes the handshakes under way. In this order:
///
/// 1. the pages are mapped and the cryptography proves itself,
/// 2. certificates and keys are checked against each other,
/// 3. signals and orders are listened to,
/// 4. the filter of system calls holds,
/// 5. the supervisor is told, and the loop runs.
pub fn run(
    start: StartMessage,
    mut descriptors: Descriptors,
    link: &Link,
    filter: Filter,
) -> Result<(), RoleError> {
    let start: KeyEstablishmentStart = start.decode()?;
    let pages = KeyEstablishmentPages::take(descriptors.take(Purpose::Page))?;
    let cookies = RingCookies::new(pages.ring)?;

    let terms = Terms::check(&start.terms)?;
    let store = CertificateStore::new(terms.pairs).map_err(|error| RoleError(error.to_string()))?;
    let store = Arc::new(store);
    let tls = server_config(Arc::clone(&store))
        .map_err(|error| RoleError::new("TLS cannot be set up", error))?;
    let options = Options {
        tls,
        // AEAD 15 alone: every client has it, and its crypto is the batched one.
        policy: Policy {
            algorithms: [Algorithm::AesSivCmac256].into_iter().collect(),
            ntp_port: start.ntp_port,
            ntp_servers: terms.ntp_servers,
            ..Policy::default()
        },
        timeout: terms.timeout,
        connections: start.connections_max,
    };
    drop(start);

    let listeners = descriptors.take(Purpose::KeListener);
    let listeners = listeners.into_iter().map(TcpListener::from).collect();
    let server = Server::new(listeners, options, cookies)
        .map_err(|error| RoleError::new("cannot wait for connections", error))?;
    // Starting a thread takes more calls than running it: both have to have started.
    let started = Arc::new(Barrier::new(3));
    stop_at_a_signal(server.stopper(), Arc::clone(&started))?;
    let orders = listen(link.clone(), server.stopper(), Arc::clone(&started));
    started.wait();
    filter.apply()?;

    link.report(&Report::Ready);
    serve(server, pages.stats, &store, &orders, link)
        .map_err(|error| RoleError::new("cannot wait for connections", error))
}

fn serve(
    mut server: Server<RingCookies>,
    mut stats: StatsWriter<Counters>,
    store: &CertificateStore,
    orders: &Receiver<Order>,
    link: &Link,
) -> std::io::Result<()> {
    loop {
        let is_over = server.turn(None)?.is_break();
        stats.publish(&server.counters());
        if is_over {
            return Ok(());
        }
        for order in orders.try_iter() {
            match order {
                Order::Ping => link.report(&Report::Pong),
                Order::Adopt(terms) => match adopt(&terms, &mut server, store) {
                    Ok(()) => link.report(&Report::Adopted),
                    Err(error) => link.report(&Report::Refused(error.to_string())),
                },
                Order::Inform(_) => {}
            }
        }
    }
}

fn stop_at_a_signal(stopper: Stopper, started: Arc<Barrier>) -> Result<(), RoleError> {
    let wake = stop_on_signals(&Arc::new(AtomicBool::new(false)))
        .map_err(|error| RoleError::new("cannot catch signals", error))?;
    thread::spawn(move || {
        started.wait();
        // Returns at the first signal; the server's waker cannot be used in a signal handler.
        let _ = std::fs::File::from(wake).read(&mut [0]);
        let _ = stopper.stop();
    });
    Ok(())
}

/// The supervisor's orders, each with a wake of the server. Their end, which is that of the
/// supervisor, stops it.
fn listen(link: Link, stopper: Stopper, started: Arc<Barrier>) -> Receiver<Order> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        started.wait();
        while let Ok(Some(order)) = link.next_order() {
            if sender.send(order).is_err() || stopper.wake().is_err() {
                break;
            }
        }
        let _ = stopper.stop();
    });
    orders
}

/// Terms that can hold.
struct Terms {
    pairs: Vec<Pair>,
    ntp_servers: Vec<NtpServer>,
    timeout: Duration,
}

impl Terms {
    fn check(terms: &KeyEstablishmentTerms) -> Result<Self, RoleError> {
        let pairs: Result<_, PairError> = terms.certificates.iter().map(PairText::parse).collect();
        let server = terms.ntp_server.iter();
        let ntp_servers: Result<_, _> = server.map(|name| name.parse()).collect();
        Ok(Self {
            pairs: pairs.map_err(|error| RoleError(error.to_string()))?,
            ntp_servers: ntp_servers.map_err(|error| RoleError::new("ke.ntp_server", error))?,
            timeout: Duration::from_secs_f64(terms.timeout_seconds),
        })
    }
}

/// Lets new terms hold for all handshakes that begin from now on; all of them or none.
fn adopt(
    terms: &KeyEstablishmentTerms,
    server: &mut Server<RingCookies>,
    store: &CertificateStore,
) -> Result<(), RoleError> {
    let terms = Terms::check(terms)?;
    store.replace(terms.pairs).map_err(|error| RoleError(error.to_string()))?;
    server.adopt(terms.ntp_servers, terms.timeout);
    Ok(())
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
