//! Lines 1 to 46: key establishment (RFC 8915), over sockets.

mod cookies;
mod endurance;
mod keys;
mod negotiation;

use std::net::{Ipv6Addr, SocketAddr};

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::{Association, ResponseError};
use timeball::cookie::format::ClientKeys;
use timeball::limits::DATAGRAM_BYTES;

use super::Case;
use super::common::server::{Server, udp_client};
use super::tls::{PORT, Reply, SERVER, good_request, record, request};

pub fn cases() -> Vec<Case> {
    [negotiation::cases(), cookies::cases(), keys::cases(), endurance::cases()].concat()
}

/// A server of the test's own, with these further lines in `[ke]`.
fn server_with(ke: &str) -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", "", ke)
}

fn ke_v6(server: &Server) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, server.ke_port).into()
}

/// Where an answer that came from `ke` sends its client (RFC 8915 sections 4.1.7 and 4.1.8).
fn ntp_address(reply: &Reply, ke: SocketAddr) -> SocketAddr {
    let ip = reply.bodies(SERVER).first().map_or(ke.ip(), |name| {
        std::str::from_utf8(name).expect("ASCII").parse().expect("an address")
    });
    let port = if reply.bodies(PORT).is_empty() { 123 } else { reply.ids(PORT)[0] };
    SocketAddr::new(ip, port)
}

/// What an NTP server says to a request with one cookie, of AEAD 15.
fn try_cookie(
    ntp: SocketAddr,
    cookie: &[u8],
    c2s: &[u8; 32],
    s2c: &[u8; 32],
) -> Result<(), ResponseError> {
    let keys = ClientKeys::new(Algorithm::AesSivCmac256, c2s, s2c).expect("lengths fit");
    try_keys(ntp, cookie, keys)
}

fn try_keys(ntp: SocketAddr, cookie: &[u8], keys: ClientKeys) -> Result<(), ResponseError> {
    let mut association = Association::new(keys, [cookie]);
    let mut random = NonceGenerator::new().expect("random numbers");
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let pending = association.request(&mut buffer, &mut random).expect("a cookie");
    let socket = udp_client(ntp);
    socket.send(&buffer[..pending.request_bytes]).expect("sent");
    let length = socket.recv(&mut buffer).expect("an answer");
    association.response(&pending, &mut buffer[..length]).map(drop)
}

fn assert_cookies_are_good(reply: &Reply, ntp: SocketAddr) {
    assert!(!reply.cookies().is_empty());
    for cookie in reply.cookies() {
        try_cookie(ntp, cookie, &reply.c2s, &reply.s2c).expect("an authenticated answer");
    }
}

/// A good request of this length, by records that nobody knows.
fn long_request(bytes: usize) -> Vec<u8> {
    let mut padding = record(0x4001, &[0xa5; 100]);
    padding.extend(record(0x4002, &vec![0x5a; bytes - good_request().len() - 104 - 4]));
    let request = request(&[0], &[15], &padding);
    assert_eq!(request.len(), bytes);
    request
}
