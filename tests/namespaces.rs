//! The socket ports and the server between hosts: network namespaces joined by virtual cables.
//!
//! Where they cannot be made (only root may) every test is listed as ignored, with the reason.
#![allow(unreachable_pub, reason = "`pub` here means: for the other files of this program")]

mod common;

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::namespace::Hosts;
use common::plain_request;
use common::rig::{Rig, receive};
use common::server::{ANSWER_WAIT, Server};
use libtest_mimic::{Arguments, Trial};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use socket2::SockRef;
use timeball::aead::Algorithm;
use timeball::engine::outcome::Outcome;
use timeball::limits::{NTP_PORT, SOCKET_BUFFER_BYTES};
use timeball::net::PortCounters;
use timeball::sys::socket::{UdpOptions, buffer_caps, open_udp};
use timeball::wire::ntp::Mode;

/// What is tested, over each port: the second argument is whether it is the uring port.
type Test = fn(&Hosts, bool);

const TESTS: [(&str, Test); 10] = [
    ("a_wildcard_replies_from_the_address_asked", a_wildcard_replies_from_the_address_asked),
    ("a_bound_socket_replies_from_its_address", a_bound_socket_replies_from_its_address),
    ("other_interfaces_are_not_answered", other_interfaces_are_not_answered),
    ("replies_carry_the_code_point", replies_carry_the_code_point),
    ("service_goes_on_after_an_interface_was_down", service_goes_on_after_an_interface_was_down),
    ("service_goes_on_when_an_address_disappears", service_goes_on_when_an_address_disappears),
    ("clients_that_are_gone_do_no_harm", clients_that_are_gone_do_no_harm),
    ("a_full_send_buffer_drops_and_counts", a_full_send_buffer_drops_and_counts),
    ("a_request_in_fragments_is_counted_truncated", a_request_in_fragments_is_counted_truncated),
    ("the_program_keeps_to_its_configuration", the_program_keeps_to_its_configuration),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let no_hosts = Hosts::new().err();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let no_ring = Rig::open(true, vec![socket]).err().map(|unavailable| unavailable.to_string());
    let mut trials = vec![trial("root_gets_the_buffers_it_asks_for", &no_hosts, || {
        root_gets_the_buffers_it_asks_for(&Hosts::new().expect("made before"));
    })];
    for (name, test) in TESTS {
        for (port, has_ring, no_port) in [("mmsg", false, &None), ("uring", true, &no_ring)] {
            let obstacle = no_hosts.as_ref().or(no_port.as_ref()).cloned();
            trials.push(trial(&format!("{name}_{port}"), &obstacle, move || {
                test(&Hosts::new().expect("made before"), has_ring);
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The reason why a test cannot run is its kind, so that every summary shows it.
fn trial(name: &str, obstacle: &Option<String>, test: impl FnOnce() + Send + 'static) -> Trial {
    let trial = Trial::test(name, || {
        test();
        Ok(())
    });
    match obstacle {
        Some(reason) => {
            trial.with_kind(format!("NOT tested here: {reason}")).with_ignored_flag(true)
        }
        None => trial,
    }
}

fn v4(text: &str) -> SocketAddr {
    (text.parse::<Ipv4Addr>().expect("an address"), NTP_PORT).into()
}

fn v6(text: &str, scope: u32) -> SocketAddr {
    SocketAddrV6::new(text.parse().expect("an address"), NTP_PORT, 0, scope).into()
}

fn wildcards() -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, NTP_PORT).into(), (Ipv6Addr::UNSPECIFIED, NTP_PORT).into()]
}

/// A port on the server's host, and further descriptors of its sockets.
fn serve_on(
    hosts: &Hosts,
    has_ring: bool,
    listen: &[SocketAddr],
    options: &UdpOptions,
) -> (Rig, Vec<UdpSocket>) {
    let open = || {
        let open = |&address| open_udp(address, false, options).expect("a socket");
        listen.iter().map(open).collect::<Vec<_>>()
    };
    let sockets = hosts.server.enter(open);
    let clones = sockets.iter().map(|socket| socket.try_clone().expect("a descriptor")).collect();
    (Rig::open(has_ring, sockets).expect("one could be had before"), clones)
}

fn ask(client: &UdpSocket) {
    client.send(&plain_request(4, Mode::Client)).expect("sent");
}

/// A connected client takes what comes from the address only that it asked.
fn assert_answered(rig: &mut Rig, client: &UdpSocket) {
    ask(client);
    assert_eq!(rig.serve(1), [Outcome::AnsweredPlain]);
    assert_eq!(receive(client).len(), 48, "{:?}", client.peer_addr());
}

/// Waits until a request is queued.
fn wait_queued(socket: &UdpSocket) {
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("set");
    socket.peek(&mut [0]).expect("a request");
}

/// One request of each client waits in its socket. Both ends know each other's link addresses then.
fn queue_requests(rig: &mut Rig, clients: &[UdpSocket], sockets: &[UdpSocket]) {
    for client in clients {
        assert_answered(rig, client);
    }
    for (client, socket) in clients.iter().zip(sockets) {
        ask(client);
        wait_queued(socket);
    }
}

/// Everything that the server's host is called.
fn all_addresses(hosts: &Hosts) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = ["10.77.0.1", "10.77.0.2", "10.78.0.1"].map(v4).into();
    addresses.extend(["fd77::1", "fd77::2", "fd78::1"].map(|address| v6(address, 0)));
    addresses.push(v6("fe80::1", hosts.client.index("lan")));
    addresses
}

fn a_wildcard_replies_from_the_address_asked(hosts: &Hosts, has_ring: bool) {
    let (mut rig, _) = serve_on(hosts, has_ring, &wildcards(), &UdpOptions::default());
    for address in all_addresses(hosts) {
        assert_answered(&mut rig, &hosts.client.udp_client(address));
    }
    assert_eq!(rig.counters(), PortCounters::default());
}

/// Without being told which address was asked: it has but one.
fn a_bound_socket_replies_from_its_address(hosts: &Hosts, has_ring: bool) {
    let mut listen = all_addresses(hosts);
    *listen.last_mut().expect("link-local") = v6("fe80::1", hosts.server.index("lan"));
    let (mut rig, _) = serve_on(hosts, has_ring, &listen, &UdpOptions::default());
    for address in all_addresses(hosts) {
        assert_answered(&mut rig, &hosts.client.udp_client(address));
    }
    assert_eq!(rig.counters(), PortCounters::default());
}

fn other_interfaces_are_not_answered(hosts: &Hosts, has_ring: bool) {
    let options = UdpOptions { bind_device: Some("lan".to_owned()), ..UdpOptions::default() };
    let (mut rig, _) = serve_on(hosts, has_ring, &wildcards(), &options);
    for (asked, other) in [(v4("10.77.0.1"), v4("10.78.0.1")), (v6("fd77::1", 0), v6("fd78::1", 0))]
    {
        assert_refused(&hosts.client.udp_client(other));
        assert_answered(&mut rig, &hosts.client.udp_client(asked));
    }
    assert_eq!(rig.counters(), PortCounters::default());
}

/// Asks until the other host says that nobody listens there. It may keep some such messages back.
fn assert_refused(client: &UdpSocket) {
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < ANSWER_WAIT, "neither answered nor refused");
        let sent = client.send(&plain_request(4, Mode::Client));
        match sent.and_then(|_| client.recv(&mut [0; 100])) {
            Ok(_) => panic!("answered: {:?}", client.peer_addr()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

/// The traffic class of the next datagram.
fn traffic_class(client: &UdpSocket) -> u8 {
    let mut payload = [0; 100];
    let mut control = nix::cmsg_space!(i32);
    let mut vector = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(client.as_raw_fd(), &mut vector, Some(&mut control), flags);
    let message = message.expect("a reply");
    let class = message.cmsgs().expect("room").find_map(|control| match control {
        ControlMessageOwned::Ipv4Tos(class) => Some(class),
        ControlMessageOwned::Ipv6TClass(class) => Some(class as u8),
        _ => None,
    });
    class.expect("asked for")
}

fn client_that_sees_classes(hosts: &Hosts, server: SocketAddr) -> UdpSocket {
    let client = hosts.client.udp_client(server);
    if server.is_ipv4() {
        SockRef::from(&client).set_recv_tos_v4(true).expect("set");
    } else {
        SockRef::from(&client).set_recv_tclass_v6(true).expect("set");
    }
    client
}

fn replies_carry_the_code_point(hosts: &Hosts, has_ring: bool) {
    let options = UdpOptions { dscp: 46, ..UdpOptions::default() };
    let (mut rig, _) = serve_on(hosts, has_ring, &wildcards(), &options);
    for server in [v4("10.77.0.1"), v6("fd77::1", 0)] {
        let client = client_that_sees_classes(hosts, server);
        ask(&client);
        rig.serve(1);
        assert_eq!(traffic_class(&client), 46 << 2, "{server}");
    }
}

/// Two requests are queued when the interface goes down: their replies have no way back.
fn service_goes_on_after_an_interface_was_down(hosts: &Hosts, has_ring: bool) {
    let (mut rig, sockets) = serve_on(hosts, has_ring, &wildcards(), &UdpOptions::default());
    let clients = [v4("10.77.0.1"), v6("fd77::1", 0)].map(|server| hosts.client.udp_client(server));
    queue_requests(&mut rig, &clients, &sockets);
    hosts.server.ip(&["link", "set", "lan", "down"]).expect("down");
    rig.serve(2);
    let counters = rig.counters();
    assert_eq!(counters, PortCounters { send_errors: 2, ..PortCounters::default() });
    // The other interface is served meanwhile.
    assert_answered(&mut rig, &hosts.client.udp_client(v4("10.78.0.1")));

    hosts.server.ip(&["link", "set", "lan", "up"]).expect("up");
    // The kernel forgets IPv6 addresses of an interface that is down.
    hosts.server.add_address("lan", "fd77::1/64").expect("added");
    for client in &clients {
        let start = Instant::now();
        client.set_nonblocking(true).expect("set");
        // Cables take a moment to carry again; a client polls until one does.
        while client.recv(&mut [0; 100]).is_err() {
            assert!(start.elapsed() < ANSWER_WAIT, "{:?}", client.peer_addr());
            let _ = client.send(&plain_request(4, Mode::Client));
            rig.turn();
        }
    }
}

/// Requests are queued when the address that they were sent to disappears.
fn service_goes_on_when_an_address_disappears(hosts: &Hosts, has_ring: bool) {
    let (mut rig, sockets) = serve_on(hosts, has_ring, &wildcards(), &UdpOptions::default());
    let clients = [v4("10.77.0.2"), v6("fd77::2", 0)].map(|server| hosts.client.udp_client(server));
    queue_requests(&mut rig, &clients, &sockets);
    hosts.server.ip(&["address", "delete", "10.77.0.2/24", "dev", "lan"]).expect("deleted");
    hosts.server.ip(&["address", "delete", "fd77::2/64", "dev", "lan"]).expect("deleted");
    rig.serve(2);
    for server in [v4("10.77.0.1"), v6("fd77::1", 0)] {
        assert_answered(&mut rig, &hosts.client.udp_client(server));
    }
    assert_eq!(rig.counters(), PortCounters { send_errors: 2, ..PortCounters::default() });
}

/// The replies to clients that have closed their sockets come back as "port unreachable".
fn clients_that_are_gone_do_no_harm(hosts: &Hosts, has_ring: bool) {
    let (mut rig, sockets) = serve_on(hosts, has_ring, &wildcards(), &UdpOptions::default());
    let unreachable = || hosts.server.statistic("Icmp", "InDestUnreachs");
    let (before, start) = (unreachable(), Instant::now());
    let mut rounds = 0;
    // Hosts may keep such messages back, so not every round has to see one.
    while rounds < 5 || unreachable() == before {
        assert!(start.elapsed() < ANSWER_WAIT, "nothing came back in {rounds} rounds");
        rounds += 1;
        for (server, socket) in [v4("10.77.0.1"), v6("fd77::1", 0)].into_iter().zip(&sockets) {
            let client = hosts.client.udp_client(server);
            ask(&client);
            wait_queued(socket);
            drop(client);
            assert_eq!(rig.serve(1), [Outcome::AnsweredPlain]);
            assert_answered(&mut rig, &hosts.client.udp_client(server));
        }
    }
    assert_eq!(rig.counters(), PortCounters::default());
}

/// The server's interface sends next to nothing: replies fill the small buffer of the socket.
fn a_full_send_buffer_drops_and_counts(hosts: &Hosts, has_ring: bool) {
    const REQUESTS: usize = 100;
    let send_buffer_bytes = *SOCKET_BUFFER_BYTES.start();
    let options = UdpOptions { send_buffer_bytes, ..UdpOptions::default() };
    let (mut rig, _) = serve_on(hosts, has_ring, &wildcards(), &options);
    let client = hosts.client.udp_client(v4("10.77.0.1"));
    assert_answered(&mut rig, &client);
    let slow = ["tbf", "rate", "8bit", "burst", "1600", "limit", "1mb"];
    let add = ["qdisc", "add", "dev", "lan", "root"];
    hosts.server.tc(&[&add[..], &slow].concat()).expect("slow");
    for _ in 0..REQUESTS {
        ask(&client);
    }
    rig.serve(REQUESTS);
    let counters = rig.counters();
    assert!(counters.send_buffer_full > 0, "{counters:?}");
    assert!(counters.send_buffer_full < REQUESTS as u64, "some left: {counters:?}");
    assert_eq!(PortCounters { send_buffer_full: 0, ..counters }, PortCounters::default());

    // What waits is thrown away with the queue.
    hosts.server.tc(&["qdisc", "delete", "dev", "lan", "root"]).expect("fast");
    assert_answered(&mut rig, &hosts.client.udp_client(v4("10.77.0.1")));
}

/// Longer than the cable's packets: it comes whole, and is longer than any buffer of ours.
fn a_request_in_fragments_is_counted_truncated(hosts: &Hosts, has_ring: bool) {
    let (mut rig, _) = serve_on(hosts, has_ring, &wildcards(), &UdpOptions::default());
    for (done, server) in (1..).zip([v4("10.77.0.1"), v6("fd77::1", 0)]) {
        let client = hosts.client.udp_client(server);
        let mut long = plain_request(4, Mode::Client);
        long.resize(4000, 0);
        client.send(&long).expect("sent");
        assert_eq!(rig.serve(1), [Outcome::DroppedTruncated]);
        assert_answered(&mut rig, &client);
        assert_eq!(rig.bench.engine.counters().outcome(Outcome::DroppedTruncated), done);
    }
}

/// Over the administrator's limit, which root may pass.
fn root_gets_the_buffers_it_asks_for(hosts: &Hosts) {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("procfs");
        text.trim().parse::<u32>().expect("a number")
    };
    let options = UdpOptions {
        receive_buffer_bytes: 2 * limit("rmem_max"),
        send_buffer_bytes: 2 * limit("wmem_max"),
        ..UdpOptions::default()
    };
    let open = || open_udp(v4("10.77.0.1"), false, &options).expect("a socket");
    let socket = hosts.server.enter(open);
    assert_eq!(buffer_caps(&socket, &options).expect("told"), []);
}

fn the_program_keeps_to_its_configuration(hosts: &Hosts, has_ring: bool) {
    let port = if has_ring { "uring" } else { "mmsg" };
    let ntp = format!(
        "listen = [\"0.0.0.0:123\", \"[::]:123\"]\nbind_device = \"lan\"\ndscp = 46\n\
         port = \"{port}\""
    );
    let server = hosts.server.enter(|| Server::start_with(Algorithm::AesSivCmac256, &ntp, "", ""));
    assert!(server.banner.contains(&format!("port         {port} (ntp.port says so)")));
    for address in all_addresses(hosts) {
        let client = client_that_sees_classes(hosts, address);
        if address == v4("10.78.0.1") || address == v6("fd78::1", 0) {
            assert_refused(&client);
        } else {
            ask(&client);
            assert_eq!(traffic_class(&client), 46 << 2, "{address}");
        }
    }
}
