//! The key establishment role: NTS-KE over TLS.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::certificates::PairText;
use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::{KeyEstablishmentPages, read_access};
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{KeyEstablishmentStart, KeyEstablishmentTerms, Order, Report, RoleError};
use crate::aead::{Aead, Algorithm, NonceGenerator, self_test};
use crate::ke::admission::PrefixLimits;
use crate::ke::cookies::{CookieError, CookieMaker, CookieSource, CookieVec};
use crate::ke::counters::Counters;
use crate::ke::negotiate::{NtpServer, Policy};
use crate::ke::server::{Options, Server, Stopper};
use crate::ke::tls::{CertificateStore, Pair, PairError, server_config};
use crate::limits::KE_DESCRIPTORS_BESIDE;
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
    let access = pages.access;

    let terms = Terms::check(&start.terms)?;
    let store = CertificateStore::new(terms.pairs).map_err(|error| RoleError(error.to_string()))?;
    let store = Arc::new(store);
    let tls = server_config(Arc::clone(&store))
        .map_err(|error| RoleError::new("TLS cannot be set up", error))?;
    let options = Options {
        tls,
        policy: terms.policy,
        timeout: terms.timeout,
        connections: start.connections_max.min(descriptors_for_connections()),
        prefix: terms.prefix,
    };
    drop(start);

    let listeners = descriptors.take(Purpose::KeListener);
    let listeners = listeners.into_iter().map(TcpListener::from).collect();
    let mut server = Server::new(listeners, options, cookies)
        .map_err(|error| RoleError::new("cannot wait for connections", error))?;
    server.set_access(access);
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
    orders: &Receiver<Handed>,
    link: &Link,
) -> std::io::Result<()> {
    loop {
        let is_over = server.turn(None)?.is_break();
        stats.publish(&server.counters());
        if is_over {
            return Ok(());
        }
        for (order, descriptor) in orders.try_iter() {
            match order {
                Order::Ping => link.report(&Report::Pong),
                Order::Adopt(terms) => match adopt(&terms, descriptor, &mut server, store) {
                    Ok(()) => link.report(&Report::Adopted),
                    Err(error) => link.report(&Report::Refused(error.to_string())),
                },
                _ => {}
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

/// An order, with the descriptor that it is about.
type Handed = (Order, Option<OwnedFd>);

/// The supervisor's orders, each with a wake of the server. Their end, which is that of the
/// supervisor, stops it.
fn listen(link: Link, stopper: Stopper, started: Arc<Barrier>) -> Receiver<Handed> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        started.wait();
        while let Ok(Some(order)) = link.next_order_with() {
            if sender.send(order).is_err() || stopper.wake().is_err() {
                break;
            }
        }
        let _ = stopper.stop();
    });
    orders
}

/// How many connections the limit of open files leaves room for, once it is as high as this process
/// may set it. With fewer places than descriptors the oldest connection makes room for the newest;
/// without descriptors nobody would.
fn descriptors_for_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Whoever may not raise it keeps what there is.
    let _ = setrlimit(Resource::Nofile, limit);
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = descriptors.saturating_sub(KE_DESCRIPTORS_BESIDE).max(1);
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// Terms that can hold.
struct Terms {
    pairs: Vec<Pair>,
    policy: Policy,
    timeout: Duration,
    prefix: PrefixLimits,
}

impl Terms {
    fn check(terms: &KeyEstablishmentTerms) -> Result<Self, RoleError> {
        let pairs: Result<_, PairError> = terms.certificates.iter().map(PairText::parse).collect();
        let server = terms.ntp_server.iter();
        let ntp_servers: Result<Vec<NtpServer>, _> = server.map(|name| name.parse()).collect();
        Ok(Self {
            pairs: pairs.map_err(|error| RoleError(error.to_string()))?,
            policy: Policy {
                algorithms: terms.aeads.iter().filter_map(|id| Algorithm::from_id(*id)).collect(),
                compliant_128gcm: terms.compliant_128gcm,
                ntp_port: terms.ntp_port,
                ntp_servers: ntp_servers.map_err(|error| RoleError::new("ke.ntp_server", error))?,
                served_as: Vec::new(),
            },
            timeout: Duration::from_secs_f64(terms.timeout_seconds),
            prefix: terms.prefix.clone(),
        })
    }
}

/// Lets new terms hold for all handshakes that begin from now on; all of them or none.
fn adopt(
    terms: &KeyEstablishmentTerms,
    access: Option<OwnedFd>,
    server: &mut Server<RingCookies>,
    store: &CertificateStore,
) -> Result<(), RoleError> {
    let terms = Terms::check(terms)?;
    let access = access.ok_or_else(|| RoleError("no access lists came along".to_owned()))?;
    let access = read_access(&access)?;
    store.replace(terms.pairs).map_err(|error| RoleError(error.to_string()))?;
    server.adopt(terms.policy, terms.timeout, terms.prefix);
    server.set_access(access);
    Ok(())
}

/// Cookies under the ring's current master key.
struct RingCookies {
    ring: SharedRing,
    maker: CookieMaker,
}

impl RingCookies {
    fn new(ring: SharedRing) -> Result<Self, RoleError> {
        let mut aead = Aead::detect();
        self_test(&mut aead).map_err(|error| RoleError::new("refusing to start", error))?;
        let nonces = NonceGenerator::new()
            .map_err(|error| RoleError::new("the kernel gives no random numbers", error))?;
        Ok(Self { ring, maker: CookieMaker::new(aead, nonces) })
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
        self.maker.make(self.ring.latest().current(), algorithm, c2s, s2c, out)
    }
}
