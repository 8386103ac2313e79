//! Every socket port against real sockets on loopback: the same tests for all of them.

mod common;

use std::io::{PipeWriter, Write as _, pipe};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::server::{ANSWER_WAIT, udp_client};
use common::{Bench, nts_request, plain_request};
use socket2::SockRef;
use timeball::aead::Algorithm;
use timeball::engine::outcome::Outcome;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES, SWEEP_INTERVAL, URING_BUFFERS};
use timeball::net::mmsg::MmsgPort;
use timeball::net::uring::UringPort;
use timeball::net::{Port, PortCounters};
use timeball::sys::socket::{UdpOptions, open_udp};
use timeball::wire::ntp::Mode;

/// A port with what a test needs around it.
struct Rig {
    port: Box<dyn Port>,
    has_ring: bool,
    /// Addresses of its sockets.
    addresses: Vec<SocketAddr>,
    /// Wakes the port.
    waker: PipeWriter,
    bench: Bench,
}

/// Runs `test` over each port with sockets as `open` makes them. Where the kernel refuses a ring
/// the reason is printed and the other ports are tested.
fn every_port(open: impl Fn() -> Vec<UdpSocket>, test: impl Fn(&mut Rig)) {
    for has_ring in [false, true] {
        let sockets = open();
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let (wake, waker) = pipe().expect("a pipe");
        let port: Box<dyn Port> = if has_ring {
            match UringPort::new(sockets, wake.into()) {
                Ok(port) => Box::new(port),
                Err(unavailable) => {
                    println!("the uring port is NOT tested here: {unavailable}");
                    continue;
                }
            }
        } else {
            Box::new(MmsgPort::new(sockets, wake.into()))
        };
        test(&mut Rig { port, has_ring, addresses, waker, bench: Bench::new() });
    }
}

impl Rig {
    /// Answers until `datagrams` were received; what became of them.
    fn serve(&mut self, datagrams: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let start = Instant::now();
        while outcomes.len() < datagrams {
            assert!(start.elapsed() < ANSWER_WAIT, "{} of {datagrams} came", outcomes.len());
            let received = self.port.recv();
            assert!(received <= BATCH_DATAGRAMS);
            if received > 0 {
                let mut batch = self.port.batch();
                assert_eq!(batch.len(), received);
                let Bench { engine, keys, clock, nonces, .. } = &mut self.bench;
                let verdicts = engine.answer(&mut batch, keys, clock, nonces);
                drop(batch);
                self.port.send(&verdicts);
                outcomes.extend(verdicts.iter().map(|verdict| verdict.outcome));
            }
        }
        outcomes
    }

    /// Counters, after a look at what became of the last replies.
    fn counters(&mut self) -> PortCounters {
        self.waker.write_all(&[1]).expect("the port holds the pipe");
        assert_eq!(self.port.recv(), 0);
        self.port.counters()
    }
}

fn loopback_v4() -> UdpSocket {
    open_udp((Ipv4Addr::LOCALHOST, 0).into(), false, &UdpOptions::default()).expect("a socket")
}

fn loopback_v6() -> UdpSocket {
    open_udp((Ipv6Addr::LOCALHOST, 0).into(), false, &UdpOptions::default()).expect("a socket")
}

fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let bytes = client.recv(&mut buffer).expect("a reply");
    buffer.truncate(bytes);
    buffer
}

#[test]
fn both_families_and_kinds_are_answered_by_one_port() {
    every_port(
        || vec![loopback_v4(), loopback_v6()],
        |rig| {
            let mut association = rig.bench.client(Algorithm::AesSivCmac256, 8);
            for _ in 0..20 {
                for address in rig.addresses.clone() {
                    let (nts, plain) = (udp_client(address), udp_client(address));
                    let (request, pending) = nts_request(&mut association, &mut rig.bench);
                    nts.send(&request).expect("sent");
                    plain.send(&plain_request(4, Mode::Client)).expect("sent");
                    rig.serve(2);
                    let mut reply = receive(&nts);
                    association.response(&pending, &mut reply).expect("an authentic reply");
                    assert_eq!(receive(&plain).len(), 48);
                }
            }
            assert_eq!(rig.counters(), PortCounters::default());
        },
    );
}

/// Several sockets at once: what is in one batch leaves by the socket that it came to. The clients
/// are connected, so a reply by another socket would not reach them.
#[test]
fn each_reply_leaves_by_its_own_socket() {
    every_port(
        || vec![loopback_v4(), loopback_v6(), loopback_v4()],
        |rig| {
            let clients: Vec<_> =
                (0..60).map(|index| udp_client(rig.addresses[index % 3])).collect();
            for (index, client) in clients.iter().enumerate() {
                client.send(&plain_request(1 + index as u8 % 4, Mode::Client)).expect("sent");
            }
            let outcomes = rig.serve(clients.len());
            assert!(outcomes.iter().all(|&outcome| outcome == Outcome::AnsweredPlain));
            for (index, client) in clients.iter().enumerate() {
                assert_eq!(receive(client)[0] >> 3 & 7, 1 + index as u8 % 4, "its own version");
            }
        },
    );
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    every_port(
        || {
            vec![
                open_udp((Ipv4Addr::UNSPECIFIED, 0).into(), false, &UdpOptions::default())
                    .expect("a socket"),
            ]
        },
        |rig| {
            let port = rig.addresses[0].port();
            for host in [1, 2, 77, 254] {
                let client = udp_client((Ipv4Addr::new(127, 0, 0, host), port).into());
                client.send(&plain_request(4, Mode::Client)).expect("sent");
                rig.serve(1);
                // A connected socket takes datagrams from the address only that it asked.
                assert_eq!(receive(&client).len(), 48, "127.0.0.{host}");
            }
        },
    );
}

#[test]
fn a_truncated_datagram_is_dropped_and_the_next_one_answered() {
    every_port(
        || vec![loopback_v4()],
        |rig| {
            let client = udp_client(rig.addresses[0]);
            let mut long = plain_request(4, Mode::Client);
            long.resize(DATAGRAM_BYTES + 1, 0);
            client.send(&long).expect("sent");
            client.send(&long[..DATAGRAM_BYTES]).expect("sent");
            client.send(&plain_request(4, Mode::Client)).expect("sent");
            let outcomes = rig.serve(3);
            assert_eq!(outcomes[0], Outcome::DroppedTruncated);
            assert_ne!(outcomes[1], Outcome::DroppedTruncated, "it just fits");
            assert_eq!(outcomes[2], Outcome::AnsweredPlain);
        },
    );
}

/// A datagram without bytes looks like the end of a stream to code that is made for streams.
#[test]
fn empty_datagrams_do_not_end_the_service() {
    every_port(
        || vec![loopback_v4(), loopback_v6()],
        |rig| {
            for address in rig.addresses.clone() {
                let client = udp_client(address);
                for _ in 0..100 {
                    client.send(&[]).expect("sent");
                }
                client.send(&plain_request(4, Mode::Client)).expect("sent");
                let outcomes = rig.serve(101);
                assert_eq!(outcomes[100], Outcome::AnsweredPlain);
                assert_eq!(receive(&client).len(), 48);
            }
            assert_eq!(rig.counters(), PortCounters::default());
        },
    );
}

#[test]
fn an_idle_wait_ends_for_the_sweep() {
    every_port(
        || vec![loopback_v4()],
        |rig| {
            let start = Instant::now();
            assert_eq!(rig.port.recv(), 0);
            assert!(start.elapsed() >= SWEEP_INTERVAL - Duration::from_millis(10));
            assert!(start.elapsed() < SWEEP_INTERVAL * 3);
        },
    );
}

#[test]
fn waking_ends_a_wait_and_every_later_one() {
    every_port(
        || vec![loopback_v4()],
        |rig| {
            let mut waker = rig.waker.try_clone().expect("a descriptor");
            let start = Instant::now();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                waker.write_all(&[1]).expect("the port holds the pipe");
            });
            for _ in 0..10 {
                assert_eq!(rig.port.recv(), 0);
            }
            assert!(start.elapsed() < SWEEP_INTERVAL / 2);
            other.join().expect("no panic");
            // A woken port still serves.
            let client = udp_client(rig.addresses[0]);
            client.send(&plain_request(4, Mode::Client)).expect("sent");
            rig.serve(1);
            assert_eq!(receive(&client).len(), 48);
        },
    );
}

/// More datagrams are waiting in the sockets than a ring has buffers.
#[test]
fn a_burst_beyond_the_buffers_is_answered_to_the_last() {
    const SOCKETS: usize = 24;
    const REQUESTS_EACH: usize = 60;
    const { assert!(SOCKETS * REQUESTS_EACH > 4 * URING_BUFFERS) };
    let clients = std::cell::RefCell::new(Vec::new());
    every_port(
        || {
            let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| loopback_v4()).collect();
            *clients.borrow_mut() = sockets
                .iter()
                .map(|socket| {
                    let client = udp_client(socket.local_addr().expect("bound"));
                    for _ in 0..REQUESTS_EACH {
                        client.send(&plain_request(4, Mode::Client)).expect("sent");
                    }
                    client
                })
                .collect();
            sockets
        },
        |rig| {
            // A second burst meets receives that were armed again.
            for round in 0..2 {
                let outcomes = rig.serve(SOCKETS * REQUESTS_EACH);
                assert!(outcomes.iter().all(|&outcome| outcome == Outcome::AnsweredPlain));
                for client in clients.borrow().iter() {
                    for _ in 0..REQUESTS_EACH {
                        assert_eq!(receive(client).len(), 48, "round {round}");
                    }
                    if round == 0 {
                        for _ in 0..REQUESTS_EACH {
                            client.send(&plain_request(4, Mode::Client)).expect("sent");
                        }
                    }
                }
            }
            let counters = rig.counters();
            assert_eq!(counters.buffers_exhausted > 0, rig.has_ring, "{counters:?}");
            assert_eq!(PortCounters { buffers_exhausted: 0, ..counters }, PortCounters::default());
        },
    );
}

/// A socket that is shut for writing refuses each reply; the next one still serves.
#[test]
fn refused_replies_are_counted_and_do_not_hold_up_others() {
    every_port(
        || {
            let shut = loopback_v4();
            // "Not connected" it says, and does it.
            let _ = SockRef::from(&shut).shutdown(std::net::Shutdown::Write);
            vec![shut, loopback_v4()]
        },
        |rig| {
            let (refused, served) = (udp_client(rig.addresses[0]), udp_client(rig.addresses[1]));
            for _ in 0..5 {
                refused.send(&plain_request(4, Mode::Client)).expect("sent");
                served.send(&plain_request(4, Mode::Client)).expect("sent");
            }
            rig.serve(10);
            for _ in 0..5 {
                assert_eq!(receive(&served).len(), 48);
            }
            let counters = rig.counters();
            assert_eq!(counters, PortCounters { send_errors: 5, ..PortCounters::default() });
        },
    );
}

/// Arrival times are the kernel's where it gives them, and the clock's where it does not.
#[test]
fn a_missing_timestamp_is_counted_and_replaced() {
    every_port(
        || vec![UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket")],
        |rig| {
            let client = udp_client(rig.addresses[0]);
            client.send(&plain_request(4, Mode::Client)).expect("sent");
            rig.serve(1);
            assert_eq!(receive(&client).len(), 48);
            assert_eq!(rig.counters().receive_timestamps_missing, 1);
        },
    );
}
