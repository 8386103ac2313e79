//! The master keys change under a running server.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::cookie::format::key_id;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::sys::file::replace_private;

use crate::common::server::{ANSWER_WAIT, Server, udp_client};
use crate::request::{Keyed, answer, assert_nak, receive};
use crate::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case!(c075_rotation_loses_nothing),
        case!(c075_the_servers_own_rotation_loses_nothing),
        case!(c075_cookies_move_between_workers_while_keys_rotate),
        case!(c083_a_removed_key_is_refused_at_once),
        case!(c126_a_replaced_key_file_drops_no_packet),
    ]
}

/// A server that follows a key file which the test replaces.
fn following_server() -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "", "[keys]\nrotate = \"external\"")
}

fn ring_on_disk(server: &Server) -> KeyRing {
    let text = std::fs::read_to_string(server.directory.path().join("ntskeys"));
    ntskeys::parse(&text.expect("the key file")).expect("well-formed").ring
}

fn replace_ring(server: &Server, ring: &KeyRing) {
    let path = server.directory.path().join("ntskeys");
    replace_private(&path, ntskeys::emit(ring, 0.0).as_bytes()).expect("written");
}

/// One poll, as an active client does it: with the cookie of the last reply, and answered.
/// Returns the identifier of the key that the new cookie is made with.
fn poll(server: &Server, client: &mut Keyed) -> u32 {
    let reply = answer(server, &client.seal(&client.parts()));
    client.cookie = client.cookies(&reply).remove(0);
    key_id(&client.cookie).expect("a cookie")
}

fn poll_until_key(server: &Server, client: &mut Keyed, id: u32) {
    let began = Instant::now();
    while poll(server, client) != id {
        assert!(began.elapsed() < ANSWER_WAIT, "key {id:08X} is not in use");
    }
}

/// Four rotations, more than any cookie outlives: an active client is answered at every poll, and
/// one that sleeps for two of them still is.
fn c075_rotation_loses_nothing(_: &Server) {
    let server = following_server();
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut ring = ring_on_disk(&server);
    let mut client = Keyed::new(&server);
    for rotation in 1..=4 {
        let sleeper = Keyed::new(&server);
        ring.rotate(|bytes| random.fill(bytes));
        replace_ring(&server, &ring);
        poll_until_key(&server, &mut client, ring.current().id());
        if rotation <= 2 {
            sleeper.open(&answer(&server, &sleeper.seal(&sleeper.parts())));
        } else {
            let parts = sleeper.parts();
            assert_nak(&answer(&server, &sleeper.seal(&parts)), &parts);
        }
    }
}

/// The file says that the newest key is of an age just below the interval.
fn c075_the_servers_own_rotation_loses_nothing(_: &Server) {
    let rule = "[keys]\nrotate_every = \"1 hour\"";
    let mut server = Server::start_with(Algorithm::AesSivCmac256, "", "", rule);
    let before = ring_on_disk(&server);
    let file = File::open(server.directory.path().join("ntskeys")).expect("the key file");
    file.set_modified(SystemTime::now() - Duration::from_secs(3600 - 2)).expect("set");
    server.restart();
    let mut client = Keyed::new(&server);
    let next = before.keys()[3].id();
    poll_until_key(&server, &mut client, next);
    // The supervisor writes the file after it has told the workers.
    let began = Instant::now();
    while ring_on_disk(&server).current().id() != next {
        assert!(began.elapsed() < ANSWER_WAIT, "the file is not written");
    }
    server.restart();
    poll(&server, &mut client);
}

/// Clients of many addresses, and so of all workers, hand each other's newest cookie on: whichever
/// worker has taken the new ring first, no other refuses its cookies.
fn c075_cookies_move_between_workers_while_keys_rotate(_: &Server) {
    let rule = "[keys]\nrotate = \"external\"";
    let server = Server::start_with(Algorithm::AesSivCmac256, "workers = 4", "", rule);
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut ring = ring_on_disk(&server);
    let mut client = Keyed::new(&server);
    let sockets: Vec<UdpSocket> = (2..18)
        .map(|host| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("bound");
            socket.connect(server.ntp()).expect("connected");
            socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
            socket
        })
        .collect();
    for _ in 0..3 {
        ring.rotate(|bytes| random.fill(bytes));
        replace_ring(&server, &ring);
        let began = Instant::now();
        while key_id(&client.cookie) != Some(ring.current().id()) {
            assert!(began.elapsed() < ANSWER_WAIT, "the new key is not in use");
            for socket in &sockets {
                socket.send(&client.seal(&client.parts())).expect("sent");
                client.cookie = client.cookies(&receive(socket)).remove(0);
            }
        }
    }
}

fn c083_a_removed_key_is_refused_at_once(_: &Server) {
    let server = following_server();
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut client = Keyed::new(&server);
    poll(&server, &mut client);
    let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
    replace_ring(&server, &ring);
    let parts = client.parts();
    let request = client.seal(&parts);
    let began = Instant::now();
    while answer(&server, &request)[1] != 0 {
        assert!(began.elapsed() < ANSWER_WAIT, "the old keys are in use");
    }
    // No worker goes back to them.
    for _ in 0..20 {
        assert_nak(&answer(&server, &request), &parts);
    }
}

/// Requests in flight all the time; each is answered.
fn c126_a_replaced_key_file_drops_no_packet(_: &Server) {
    let server = following_server();
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut ring = ring_on_disk(&server);
    let client = Keyed::new(&server);
    let socket = udp_client(server.ntp());
    for _ in 0..2 {
        ring.rotate(|bytes| random.fill(bytes));
        replace_ring(&server, &ring);
        let began = Instant::now();
        let mut ids = Vec::new();
        while ids.last() != Some(&ring.current().id()) {
            assert!(began.elapsed() < ANSWER_WAIT, "the new key is not in use");
            for _ in 0..16 {
                socket.send(&client.seal(&client.parts())).expect("sent");
            }
            for _ in 0..16 {
                let cookie = client.cookies(&receive(&socket)).remove(0);
                ids.push(key_id(&cookie).expect("a cookie"));
            }
        }
        // From one key to the next, once.
        ids.dedup();
        assert!(ids.len() <= 2, "{ids:08X?}");
    }
}
