//! Every socket port against real sockets on loopback: the same tests for all of them.

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::rig::{Rig, receive};
use common::server::udp_client;
use common::{nts_request, plain_request};
use socket2::SockRef;
use timeball::aead::Algorithm;
use timeball::engine::outcome::Outcome;
use timeball::limits::{DATAGRAM_BYTES, SOCKET_BUFFER_BYTES, SWEEP_INTERVAL, URING_BUFFERS};
use timeball::net::PortCounters;
use timeball::sys::socket::{UdpOptions, drops, open_udp};
use timeball::wire::ntp::Mode;

/// Runs `test` over each port with sockets as `open` makes them. Where the kernel refuses a ring
/// the reason is printed and the other ports are tested.
fn every_port(open: impl Fn() -> Vec<UdpSocket>, test: impl Fn(&mut Rig)) {
    for has_ring in [false, true] {
        match Rig::open(has_ring, open()) {
            Ok(mut rig) => test(&mut rig),
            Err(unavailable) => println!("the uring port is NOT tested here: {unavailable}"),
        }
    }
}

fn loopback_v4() -> UdpSocket {
    open_udp((Ipv4Addr::LOCALHOST, 0).into(), false, &UdpOptions::default()).expect("a socket")
}

fn loopback_v6() -> UdpSocket {
    open_udp((Ipv6Addr::LOCALHOST, 0).into(), false, &UdpOptions::default()).expect("a socket")
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

/// More comes than the receive buffers hold: what was dropped is counted, of each socket and once.
#[test]
fn what_a_full_receive_buffer_drops_is_counted() {
    const REQUESTS: usize = 100;
    let small =
        UdpOptions { receive_buffer_bytes: *SOCKET_BUFFER_BYTES.start(), ..UdpOptions::default() };
    let sockets = std::cell::RefCell::new(Vec::new());
    let flood = |rig: &Rig| {
        let clients: Vec<_> = rig.addresses.iter().map(|&address| udp_client(address)).collect();
        for client in &clients {
            for _ in 0..REQUESTS {
                client.send(&plain_request(4, Mode::Client)).expect("sent");
            }
        }
        clients
    };
    // All that is queued, and a datagram after it, which tells of what was dropped before.
    let drain = |rig: &mut Rig, clients: &[UdpSocket], before: &[u32]| {
        let queued: usize = sockets
            .borrow()
            .iter()
            .zip(before)
            .map(|(socket, before)| REQUESTS - (drops(socket) - before) as usize)
            .sum();
        rig.serve(queued);
        for client in clients {
            client.send(&plain_request(4, Mode::Client)).expect("sent");
        }
        rig.serve(clients.len());
    };
    let told = || sockets.borrow().iter().map(drops).collect::<Vec<u32>>();
    every_port(
        || {
            let open = |address| open_udp(address, false, &small).expect("a socket");
            let opened =
                vec![open((Ipv4Addr::LOCALHOST, 0).into()), open((Ipv6Addr::LOCALHOST, 0).into())];
            let clone = |socket: &UdpSocket| socket.try_clone().expect("a descriptor");
            *sockets.borrow_mut() = opened.iter().map(clone).collect();
            opened
        },
        |rig| {
            let clients = flood(rig);
            drain(rig, &clients, &[0, 0]);
            let first = told();
            assert!(first.iter().all(|&drops| drops > 0), "{first:?}");
            let counted = u64::from(first.iter().sum::<u32>());
            let expected = PortCounters { receive_drops: counted, ..PortCounters::default() };
            assert_eq!(rig.counters(), expected);

            // Another responder takes the sockets over: it counts what comes from now on.
            let sockets_again =
                sockets.borrow().iter().map(|s| s.try_clone().expect("one")).collect();
            let mut rig = Rig::open(rig.has_ring, sockets_again).expect("one could be had before");
            let clients = flood(&rig);
            drain(&mut rig, &clients, &first);
            let counted: u32 = told().iter().zip(&first).map(|(now, before)| now - before).sum();
            assert!(counted > 0);
            assert_eq!(rig.counters().receive_drops, u64::from(counted));
        },
    );
}
