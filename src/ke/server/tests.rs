//! The server over loopback sockets, with our own client and with clients that misbehave. What
//! takes time is bounded by short deadlines of the server; nothing here sleeps.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::*;
use crate::aead::Algorithm;
use crate::ke::client::{self, ClientError, client_config};
use crate::ke::exchange::Offer;
use crate::ke::test_support::{Identity, OpenCookies, identity};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn our_client_gets_keys_and_cookies_over_both_families() {
    let server = Running::start(|options| options.policy.ntp_port = 11123);
    for address in server.addresses {
        let established = client::establish(&server.client(address)).unwrap();
        assert_eq!(established.address, address);
        assert_eq!(established.tls_version, "TLS 1.3");
        assert!(established.tls_suite.contains("X25519"), "{}", established.tls_suite);
        assert_eq!(established.chain.len(), 1);
        let agreed = &established.agreed;
        assert_eq!(agreed.algorithm, Algorithm::AesSivCmac256);
        assert_eq!((agreed.server.as_deref(), agreed.port), (None, Some(11123)));
        assert_eq!(agreed.cookies.len(), 8);
        let keys = [&[0; 4], established.keys.c2s(), established.keys.s2c()].concat();
        assert_eq!(agreed.cookies[0].as_slice(), keys);
    }
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.served, counters.served_siv_256), (2, 2, 2));
}

#[test]
fn the_client_s_server_record_is_honoured_end_to_end() {
    let server = Running::start(|options| {
        options.policy.served_as = vec!["time.example.org".parse().unwrap()];
    });
    let mut options = server.client(server.addresses[0]);
    options.offer = Offer {
        algorithms: [Algorithm::Aes128GcmSiv].into_iter().collect(),
        server: Some("time.example.org".to_owned()),
        ..Offer::default()
    };
    let agreed = client::establish(&options).unwrap().agreed;
    assert_eq!(agreed.server.as_deref(), Some("time.example.org"));
    assert!(agreed.compliant_128gcm);
    assert_eq!(server.stop().served_gcm_siv, 1);
}

#[test]
fn keys_of_an_old_chrony_are_there_to_try_when_record_1024_is_not_echoed() {
    let server = Running::start(|_| {});
    let mut options = server.client(server.addresses[0]);
    for says_1024 in [true, false] {
        options.offer = Offer {
            algorithms: [Algorithm::Aes128GcmSiv].into_iter().collect(),
            compliant_128gcm: says_1024,
            ..Offer::default()
        };
        let established = client::establish(&options).unwrap();
        assert_eq!(established.legacy_keys.is_none(), says_1024);
        let keys = established.legacy_keys.as_ref().unwrap_or(&established.keys);
        // These cookies tell what the server derived.
        let expected = [&[0; 4], keys.c2s(), keys.s2c()].concat();
        assert_eq!(established.agreed.cookies[0].as_slice(), expected, "{says_1024}");
    }
    let counters = server.stop();
    assert_eq!((counters.served_gcm_siv, counters.served_gcm_siv_legacy), (1, 1));
}

#[test]
fn a_prefix_beyond_its_connections_keeps_no_other_out() {
    let server = Running::start(|options| {
        options.connections = 16;
        options.prefix.connections = Some(4);
    });
    let flood: Vec<_> =
        (0..100).map(|_| TcpStream::connect(server.addresses[0]).unwrap()).collect();
    client::establish(&server.client(server.addresses[1])).unwrap();
    drop(flood);
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.served, counters.shed), (101, 1, 0));
    assert_eq!(counters.prefix_connections + counters.abandoned, 100, "{counters:?}");
    assert!(counters.abandoned >= 4, "{counters:?}");
    assert!(counters.prefix_connections >= 80, "{counters:?}");
}

#[test]
fn a_prefix_that_comes_too_often_keeps_no_other_out() {
    // A handshake in 100 s: no second one comes within this test.
    let server = Running::start(|options| options.prefix.handshakes_per_second = Some(0.01));
    let of = |index: usize| client::establish(&server.client(server.addresses[index]));
    of(0).unwrap();
    for _ in 0..20 {
        let error = of(0).unwrap_err();
        // Reset, before or after the client knows that it is connected.
        let is_reset = matches!(error, ClientError::Broken { .. } | ClientError::Connect { .. });
        assert!(is_reset, "{error}");
    }
    of(1).unwrap();
    of(1).unwrap_err();
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.served, counters.prefix_rate), (23, 2, 21));
}

#[test]
fn a_certificate_that_is_not_trusted_is_an_error_with_advice() {
    let server = Running::start(|_| {});
    let mut options = server.client(server.addresses[0]);
    options.config = client_config(identity().roots);
    let error = client::establish(&options).unwrap_err();
    assert!(matches!(error, ClientError::Certificate { .. }), "{error}");
    assert!(error.to_string().contains("--ca FILE"), "{error}");
    let counters = server.stop();
    assert_eq!((counters.served, counters.tls), (0, 1));
}

#[test]
fn c043_idle_connections_neither_block_others_nor_outlive_their_time() {
    let server = Running::start(|options| {
        options.timeout = Duration::from_millis(300);
        options.connections = 4;
    });
    let address = server.addresses[0];
    let idle: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    client::establish(&server.client(address)).unwrap();
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed, or reset when it was shed: over in any case.
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.served), (21, 1));
    assert_eq!(counters.shed + counters.timeout_handshake, 20);
    assert!(counters.shed >= 16, "{counters:?}");
}

#[test]
fn c027_a_slow_request_hears_error_1_over_the_socket() {
    let server = Running::start(|options| options.timeout = Duration::from_millis(300));
    let mut stream = server.tls(server.addresses[0]);
    stream.write_all(&[0x80, 1, 0]).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [0x80, 2, 0, 2, 0, 1, 0x80, 0, 0, 0]);
    drop(stream);
    assert_eq!(server.stop().timeout_request, 1);
}

#[test]
fn c008_the_refusal_of_an_oversize_request_arrives_whatever_else_is_sent() {
    let server = Running::start(|_| {});
    let mut stream = server.tls(server.addresses[0]);
    // Far more than the server reads before it refuses: a reset would destroy the refusal.
    stream.write_all(&[0x40, 0, 0, 0].repeat(15_000)).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, [0x80, 2, 0, 2, 0, 1, 0x80, 0, 0, 0]);
    drop(stream);
    assert_eq!(server.stop().oversize, 1);
}

#[test]
fn stopping_finishes_what_has_begun() {
    let server = Running::start(|_| {});
    let mut stream = server.tls(server.addresses[0]);
    stream.flush().unwrap();
    server.stopper.stop().unwrap();
    stream.write_all(&[0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 15, 0x80, 0, 0, 0]).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(heard.len() > 500);
    drop(stream);
    assert_eq!(server.stop().served, 1);
}

struct Running {
    addresses: [SocketAddr; 2],
    identity: Identity,
    stopper: Stopper,
    thread: JoinHandle<Counters>,
}

impl Running {
    fn start(change: impl FnOnce(&mut Options)) -> Self {
        let identity = identity();
        let mut options = Options::new(Arc::clone(&identity.tls), Policy::default());
        change(&mut options);
        let listeners = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
        ];
        let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
        let cookies = OpenCookies::default();
        let mut server = Server::new(listeners.into(), options, cookies).unwrap();
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || {
            server.run().unwrap();
            server.counters()
        });
        Self { addresses, identity, stopper, thread }
    }

    fn client(&self, address: SocketAddr) -> client::Options {
        client::Options {
            host: address.ip().to_string(),
            port: address.port(),
            config: client_config(Arc::clone(&self.identity.roots)),
            offer: Offer::default(),
            timeout: PATIENCE,
        }
    }

    fn tls(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let config = client_config(Arc::clone(&self.identity.roots));
        let name = ServerName::from(address.ip());
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream)
    }

    fn stop(self) -> Counters {
        self.stopper.stop().unwrap();
        self.thread.join().unwrap()
    }
}
