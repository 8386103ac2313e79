//! Transmit timestamps against the kernel's own, taken when each reply left (software transmit
//! timestamps, the kernel's `timestamping.rst`), on loopback and through every socket port.
//!
//! What the figures are depends on the machine: they are printed, and what holds on all machines
//! is asserted. `benches/versus/run --stamps` has the comparison with chronyd.

mod common;

use std::io::{IoSliceMut, pipe};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use common::server::udp_client;
use common::{Bench, nts_request, plain_request};
use nix::sys::socket::sockopt::Timestamping;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, TimestampingFlag, recvmsg, setsockopt};
use timeball::aead::{Aead, Algorithm};
use timeball::clock::host::HostClock;
use timeball::engine::Engine;
use timeball::limits::{BATCH_DATAGRAMS, DATAGRAM_BYTES, LOCAL_STRATUM_DEFAULT};
use timeball::net::Port;
use timeball::net::mmsg::MmsgPort;
use timeball::net::uring::UringPort;
use timeball::net::worker::Worker;
use timeball::page::key::{KeyPage, SharedRing};
use timeball::page::stats::{StatsPage, StatsWriter, WorkerCounters};
use timeball::sys::socket::{UdpOptions, open_udp};
use timeball::wire::ntp::{Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

/// Turns of each kind: enough for estimates to settle.
const TURNS: usize = 300;

#[test]
fn transmit_timestamps_follow_the_departures_through_mmsg() {
    let (socket, witness) = stamped_socket();
    let client = udp_client(socket.local_addr().expect("bound"));
    let (wake, _waker) = pipe().expect("a pipe");
    compare(
        "mmsg",
        &mut MmsgPort::new(vec![socket], wake.into(), Duration::ZERO),
        &client,
        &witness,
    );
}

#[test]
fn transmit_timestamps_follow_the_departures_through_uring() {
    let (socket, witness) = stamped_socket();
    let client = udp_client(socket.local_addr().expect("bound"));
    let (wake, _waker) = pipe().expect("a pipe");
    match UringPort::new(vec![socket], OwnedFd::from(wake)) {
        Ok(mut port) => compare("uring", &mut port, &client, &witness),
        Err(unavailable) => println!("the uring port is NOT tested here: {unavailable}"),
    }
}

/// A server's socket whose departures the kernel stamps, and another handle to read the stamps by.
/// Arrivals get a second stamp by this option, which leaves no room for the count of drops.
fn stamped_socket() -> (UdpSocket, UdpSocket) {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let socket = open_udp(address, false, &UdpOptions::default()).expect("a socket");
    let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
    setsockopt(&socket, Timestamping, &flags).expect("the kernel stamps departures");
    let witness = socket.try_clone().expect("a descriptor");
    (socket, witness)
}

fn compare<P: Port>(name: &str, port: &mut P, client: &UdpSocket, witness: &UdpSocket) {
    let mut bench = Bench::new();
    let mut association = bench.client(Algorithm::AesSivCmac256, 8);
    let (nts, _) = nts_request(&mut association, &mut bench);
    let clock = HostClock::declared(LOCAL_STRATUM_DEFAULT).expect("a page");
    let engine = Engine::new(Aead::detect());
    let keys = KeyPage::create(&bench.keys).expect("a page");
    let ring = SharedRing::open(keys.file()).expect("mapped");
    let stats: StatsPage<WorkerCounters<'static>> = StatsPage::create().expect("a page");
    let writer = StatsWriter::attach(stats.file()).expect("mapped");
    let mut worker = Worker::new(engine, clock, ring, bench.nonces, writer);
    for (kind, request) in [("NTP", plain_request(4, Mode::Client)), ("NTS", nts)] {
        for requests in [1, 5, BATCH_DATAGRAMS] {
            let mut errors_ns = Vec::new();
            // How many batches of each size there were.
            let mut seen = [0; BATCH_DATAGRAMS + 1];
            for _ in 0..TURNS {
                let batches = ask(&mut worker, port, client, &request, requests);
                for batch in &batches {
                    // After so many, what batches of this size take is known.
                    check(batch, seen[batch.len()] >= TURNS / 2);
                    seen[batch.len()] += 1;
                }
                let replies: Vec<&Header> = batches.iter().flatten().collect();
                let departures = departures(witness);
                assert_eq!(departures.len(), replies.len(), "each reply left, and once");
                errors_ns.extend(departures.iter().zip(replies).map(|(departure, reply)| {
                    departure.seconds_since_f64(reply.transmit_timestamp) * 1e9
                }));
            }
            errors_ns.drain(..errors_ns.len() / 2);
            print_errors(&format!("{name}, {kind}, {requests} requests at once"), errors_ns);
        }
    }
}

/// Sends so many requests at once and answers them: the batches in which the port took them,
/// which may be several with a ring.
fn ask<P: Port>(
    worker: &mut Worker,
    port: &mut P,
    client: &UdpSocket,
    request: &[u8],
    requests: usize,
) -> Vec<Vec<Header>> {
    for _ in 0..requests {
        client.send(request).expect("sent");
    }
    let mut batches = Vec::new();
    let mut answered = 0;
    while answered < requests {
        let received = port.recv();
        assert_ne!(received, 0, "on loopback a datagram is there when it is sent");
        worker.answer(port);
        batches.push((0..received).map(|_| receive(client)).collect());
        answered += received;
    }
    batches
}

fn receive(client: &UdpSocket) -> Header {
    let mut reply = [0; DATAGRAM_BYTES];
    let bytes = client.recv(&mut reply).expect("a reply");
    Header::parse(&reply[..bytes]).expect("a header")
}

/// What holds for every batch, whatever the machine does.
fn check(batch: &[Header], is_learned: bool) {
    for reply in batch {
        assert!(reply.transmit_timestamp.seconds_since(reply.receive_timestamp) > 0);
    }
    for pair in batch.windows(2) {
        let step = pair[1].transmit_timestamp.seconds_since(pair[0].transmit_timestamp);
        assert!(step >= i64::from(is_learned), "the next reply leaves {step} units later");
    }
}

/// Reads the stamps of all departures since the last time off the error queue, in their order.
fn departures(witness: &UdpSocket) -> Vec<NtpTimestamp> {
    let mut departures = Vec::new();
    let mut control = nix::cmsg_space!([i64; 6], [u8; 64]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    while let Ok(message) = recvmsg::<()>(
        witness.as_raw_fd(),
        &mut [IoSliceMut::new(&mut [0; 1])],
        Some(&mut control),
        flags,
    ) {
        for message in message.cmsgs().expect("they have room") {
            if let ControlMessageOwned::ScmTimestampsns(stamps) = message {
                let (seconds, ns) = (stamps.system.tv_sec(), stamps.system.tv_nsec());
                departures.push(NtpTimestamp::from_unix(seconds, ns as u32));
            }
        }
    }
    departures
}

fn print_errors(what: &str, mut errors_ns: Vec<f64>) {
    errors_ns.sort_by(f64::total_cmp);
    let count = errors_ns.len();
    let mean = errors_ns.iter().sum::<f64>() / count as f64;
    let variance = errors_ns.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>() / count as f64;
    println!(
        "{what}: replies left {mean:.0} ns later than they say (deviation {:.0}, median {:.0})",
        variance.sqrt(),
        errors_ns[count / 2],
    );
}
