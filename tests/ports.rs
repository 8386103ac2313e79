//! Every socket port against real sockets on loopback: the same tests for all of them.

mod common;

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::interleaved::{InterleavedClient, ReplyMode};
use common::rig::{Rig, receive};
use common::server::udp_client;
use common::{nts_request, plain_request};
use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use socket2::SockRef;
use timeball::aead::Algorithm;
use timeball::engine::outcome::Outcome;
use timeball::limits::{DATAGRAM_BYTES, SOCKET_BUFFER_BYTES, SWEEP_INTERVAL, URING_BUFFERS};
use timeball::net::PortCounters;
use timeball::sys::socket::{UdpOptions, drops, open_udp};
use timeball::wire::ntp::{Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

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

/// One exchange of a client in interleaved mode.
fn exchange(
    rig: &mut Rig,
    socket: &UdpSocket,
    client: &mut InterleavedClient,
) -> (ReplyMode, Header) {
    // The engine's clock is a simulated one, but pairs need times that fit to the kernel's.
    rig.bench.clock.advance(now().seconds_since(rig.bench.clock.now));
    socket.send(&client.request()).expect("sent");
    rig.serve(1);
    client.reply(&receive(socket))
}

fn now() -> NtpTimestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    NtpTimestamp::from_unix(now.as_secs() as i64, now.subsec_nanos())
}

/// c113: on each socket by itself, the kernel tells when a reply left, and the next reply says so.
#[test]
fn the_kernel_tells_when_interleaved_replies_left() {
    const EXCHANGES: u64 = 50;
    every_port(
        || vec![loopback_v4(), loopback_v6(), loopback_v4()],
        |rig| {
            let mut clients: Vec<(UdpSocket, InterleavedClient)> = rig
                .addresses
                .iter()
                .map(|&address| (udp_client(address), InterleavedClient::default()))
                .collect();
            for number in 1..=EXCHANGES {
                for (socket, client) in &mut clients {
                    let before = now();
                    let (mode, header) = exchange(rig, socket, client);
                    let expected =
                        if number < 3 { ReplyMode::Basic } else { ReplyMode::Interleaved };
                    assert_eq!(mode, expected, "exchange {number}");
                    if mode == ReplyMode::Interleaved {
                        assert!(header.transmit_timestamp.seconds_since(before) < 0);
                    }
                }
            }
            let sockets = clients.len() as u64;
            let told = (EXCHANGES - 1) * sockets;
            let counters = rig.counters();
            let expected = PortCounters { transmit_timestamps: told, ..PortCounters::default() };
            assert_eq!(counters, expected, "of all but the first exchange");
            let interleaved = rig.bench.engine.counters().answered_interleaved;
            assert_eq!(interleaved, (EXCHANGES - 2) * sockets);
        },
    );
}

/// Many replies of one batch ask; another program has used the socket before.
#[test]
fn a_batch_of_interleaved_replies_on_a_socket_with_a_past() {
    every_port(
        || {
            let socket = loopback_v4();
            let numbered = TimestampingFlag::SOF_TIMESTAMPING_OPT_ID
                | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
            let stamped = numbered | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE;
            setsockopt(&socket, sockopt::Timestamping, &stamped).expect("an option");
            let sink = loopback_v4().local_addr().expect("bound");
            for _ in 0..3 {
                socket.send_to(&[0], sink).expect("sent");
            }
            setsockopt(&socket, sockopt::Timestamping, &numbered).expect("an option");
            vec![socket]
        },
        |rig| {
            let mut clients: Vec<(UdpSocket, InterleavedClient)> = (0..20)
                .map(|_| (udp_client(rig.addresses[0]), InterleavedClient::default()))
                .collect();
            for round in 0..10 {
                rig.bench.clock.advance(now().seconds_since(rig.bench.clock.now));
                for (socket, client) in &mut clients {
                    socket.send(&client.request()).expect("sent");
                }
                rig.serve(clients.len());
                for (socket, client) in &mut clients {
                    let (mode, _) = client.reply(&receive(socket));
                    assert_eq!(mode == ReplyMode::Interleaved, round >= 2);
                }
            }
            let counters = rig.counters();
            // In the first batch that asks the number is not known, so one reply does. In the first
            // round none does.
            assert!((161..=180).contains(&counters.transmit_timestamps), "{counters:?}");
            let expected = PortCounters { transmit_timestamps: 0, ..counters };
            assert_eq!(expected, PortCounters::default(), "no strays, and none is missing");
        },
    );
}

/// With errors of the network in the queue, which our sockets do not ask for, it is emptied, what
/// was in it is counted, and an idle wait lasts.
#[test]
fn an_error_queue_is_emptied_of_what_does_not_belong_there() {
    every_port(
        || {
            let socket = loopback_v4();
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("an option");
            vec![socket]
        },
        |rig| {
            // Its port is closed when the reply comes.
            udp_client(rig.addresses[0]).send(&plain_request(4, Mode::Client)).expect("sent");
            rig.serve(1);
            let (socket, mut client) = (udp_client(rig.addresses[0]), InterleavedClient::default());
            let modes: Vec<ReplyMode> =
                (0..5).map(|_| exchange(rig, &socket, &mut client).0).collect();
            assert_eq!(modes[2..], [ReplyMode::Interleaved; 3]);
            let counters = rig.counters();
            assert_eq!(counters.error_queue_strays, 1, "{counters:?}");
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
