//! One client meets one worker, whatever its port (`src/sys/steering.rs`).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use timeball::sys::socket::{UdpOptions, open_udp_group};
use timeball::sys::steering::{Queues, steer};
use timeball::wire::extension::field_type;
use timeball::wire::ntp::HEADER_BYTES;

const WORKERS: usize = 4;

/// Which sockets the datagrams from each address came to. Everything is sent before anything is
/// read: loopback delivers within the call that sends.
fn meetings(group: &[UdpSocket], sent: usize) -> HashMap<IpAddr, HashSet<usize>> {
    let mut meetings: HashMap<IpAddr, HashSet<usize>> = HashMap::new();
    let mut received = 0;
    for (worker, socket) in group.iter().enumerate() {
        socket.set_nonblocking(true).expect("set");
        while let Ok((_, source)) = socket.recv_from(&mut [0; 16]) {
            meetings.entry(source.ip()).or_default().insert(worker);
            received += 1;
        }
    }
    assert_eq!(received, sent, "a datagram was lost");
    meetings
}

fn send(source: IpAddr, ports: usize, to: SocketAddr) {
    for _ in 0..ports {
        let socket = UdpSocket::bind((source, 0)).expect("a port");
        socket.send_to(b"steer me", to).expect("sent");
    }
}

#[test]
fn many_ports_of_few_addresses_meet_one_worker_each() {
    let group = open_udp_group((Ipv4Addr::UNSPECIFIED, 0).into(), WORKERS, &UdpOptions::default())
        .expect("sockets");
    steer(&group[0], WORKERS, Queues::Shared, 0x8765_4321).expect("steered");
    let port = group[0].local_addr().expect("bound").port();
    // Up to 127.0.0.64, each with eight ports: within what a receive buffer holds.
    for last in 1..=64 {
        send(Ipv4Addr::new(127, 0, 0, last).into(), 8, (Ipv4Addr::LOCALHOST, port).into());
    }
    let meetings = meetings(&group, 64 * 8);
    assert_eq!(meetings.len(), 64);
    for (source, workers) in &meetings {
        assert_eq!(workers.len(), 1, "{source} was scattered over {workers:?}");
    }
    let used: HashSet<usize> = meetings.values().flatten().copied().collect();
    assert_eq!(used.len(), WORKERS, "64 addresses left a worker without any");
}

#[test]
fn without_steering_a_client_is_scattered() {
    let group = open_udp_group((Ipv4Addr::LOCALHOST, 0).into(), WORKERS, &UdpOptions::default())
        .expect("sockets");
    let to = group[0].local_addr().expect("bound");
    send(Ipv4Addr::LOCALHOST.into(), 64, to);
    let meetings = meetings(&group, 64);
    assert!(meetings[&to.ip()].len() > 1, "the test above would pass without steering");
}

#[test]
fn an_ipv6_client_meets_one_worker() {
    let group = open_udp_group((Ipv6Addr::LOCALHOST, 0).into(), WORKERS, &UdpOptions::default())
        .expect("sockets");
    steer(&group[0], WORKERS, Queues::Shared, 0x8765_4321).expect("steered");
    let to = group[0].local_addr().expect("bound");
    send(Ipv6Addr::LOCALHOST.into(), 64, to);
    let meetings = meetings(&group, 64);
    assert_eq!(meetings[&to.ip()].len(), 1);
}

/// Whatever a client sends, it meets one worker; NTS requests come to another socket of it than all
/// else does.
#[test]
fn nts_requests_come_to_sockets_of_their_own() {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
        let group = open_udp_group(address, 2 * WORKERS, &UdpOptions::default()).expect("sockets");
        steer(&group[0], WORKERS, Queues::Apart, 0x8765_4321).expect("steered");
        let to = group[0].local_addr().expect("bound");
        let sources: Vec<IpAddr> = match address {
            SocketAddr::V4(_) => {
                (1..=32).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect()
            }
            SocketAddr::V6(_) => vec![Ipv6Addr::LOCALHOST.into()],
        };
        let with_field = |kind: u16, bytes: usize| {
            let mut datagram = vec![0; bytes];
            datagram[HEADER_BYTES..][..2].copy_from_slice(&kind.to_be_bytes());
            datagram
        };
        let nts = [
            with_field(field_type::UNIQUE_IDENTIFIER, HEADER_BYTES + 4),
            with_field(field_type::UNIQUE_IDENTIFIER, 1472),
            with_field(field_type::NTS_COOKIE, 228),
        ];
        let others = [
            vec![],
            vec![0x23],
            vec![0x23; HEADER_BYTES],
            with_field(field_type::UNIQUE_IDENTIFIER, HEADER_BYTES + 3),
            with_field(0x2204, 228),
            vec![0x23; 1472],
        ];
        let mut workers = HashMap::new();
        for (is_nts, datagrams) in [(true, &nts[..]), (false, &others[..])] {
            for source in &sources {
                let socket = UdpSocket::bind((*source, 0)).expect("a port");
                for datagram in datagrams {
                    socket.send_to(datagram, to).expect("sent");
                }
            }
            for (source, met) in meetings(&group, sources.len() * datagrams.len()) {
                let met: Vec<usize> = met.into_iter().collect();
                assert_eq!(met.len(), 1, "{source} was scattered over {met:?}");
                assert_eq!(met[0] >= WORKERS, is_nts, "{source} met {met:?}");
                let worker = *workers.entry(source).or_insert(met[0] % WORKERS);
                assert_eq!(met[0] % WORKERS, worker, "{source} met two workers");
            }
        }
    }
}

/// A second server must not share the first one's address without a word.
#[test]
fn a_taken_address_is_refused() {
    let group = open_udp_group((Ipv4Addr::LOCALHOST, 0).into(), WORKERS, &UdpOptions::default())
        .expect("sockets");
    let address = group[0].local_addr().expect("bound");
    let error = open_udp_group(address, WORKERS, &UdpOptions::default()).expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
