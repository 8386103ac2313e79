//! Requests with NTS, made part by part, and what becomes of them.
//!
//! That nothing is answered is shown without waiting: a plain request follows on the same socket,
//! and its answer is the first to come. One worker answers one socket's datagrams in their order.

use std::net::UdpSocket;

use timeball::aead::{Algorithm, NonceGenerator, seal_one};
use timeball::wire::extension::{field_type, put_field_header};
use timeball::wire::ntp::{HEADER_BYTES, Header, Leap, Mode, ReferenceId};
use timeball::wire::nts::{Direction, Trailer, encrypted_cookies, find};

use super::common::plain_request;
use super::common::server::{Server, udp_client};

/// The parts of a request, each of which a test may change.
#[derive(Clone)]
pub struct Parts {
    pub header: Vec<u8>,
    /// Fields in front of the authenticator: type and body.
    pub fields: Vec<(u16, Vec<u8>)>,
    pub nonce: Vec<u8>,
    /// What is encrypted.
    pub plaintext: Vec<u8>,
    /// Zero bytes at the authenticator's end.
    pub padding: usize,
    /// Bytes behind the authenticator.
    pub trailing: Vec<u8>,
}

pub const IDENTIFIER: usize = 0;

pub const COOKIE: usize = 1;

/// A client that knows its keys, which the library's does not show.
pub struct Keyed {
    c2s: [u8; 32],
    pub s2c: [u8; 32],
    pub cookie: Vec<u8>,
}

impl Keyed {
    pub fn new(server: &Server) -> Self {
        Self::under(server, 2)
    }

    /// With a cookie under the master key of this place in the ring.
    pub fn under(server: &Server, place: usize) -> Self {
        let mut random = NonceGenerator::new().expect("random numbers");
        let (mut c2s, mut s2c) = ([0; 32], [0; 32]);
        random.fill(&mut c2s);
        random.fill(&mut s2c);
        let master = &server.master_keys()[place];
        let mut cookie = master.id().to_be_bytes().to_vec();
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        cookie.extend(nonce);
        let mut sealed = [[0; 16].as_slice(), &c2s, &s2c].concat();
        seal_one(master.algorithm(), master.expose_bytes(), &nonce, &[], &mut sealed)
            .expect("lengths fit");
        cookie.extend(sealed);
        Self { c2s, s2c, cookie }
    }

    pub fn parts(&self) -> Parts {
        let mut random = NonceGenerator::new().expect("random numbers");
        let (mut identifier, mut nonce) = (vec![0; 32], vec![0; 16]);
        random.fill(&mut identifier);
        random.fill(&mut nonce);
        Parts {
            header: plain_request(4, Mode::Client),
            fields: vec![
                (field_type::UNIQUE_IDENTIFIER, identifier),
                (field_type::NTS_COOKIE, self.cookie.clone()),
            ],
            nonce,
            plaintext: Vec::new(),
            padding: 0,
            trailing: Vec::new(),
        }
    }

    pub fn placeholders(&self, count: usize) -> impl Iterator<Item = (u16, Vec<u8>)> {
        let placeholder = (field_type::NTS_COOKIE_PLACEHOLDER, vec![0; self.cookie.len()]);
        std::iter::repeat_n(placeholder, count)
    }

    pub fn seal(&self, parts: &Parts) -> Vec<u8> {
        let mut bytes = parts.header.clone();
        for (field_type, body) in &parts.fields {
            put_field(&mut bytes, *field_type, body);
        }
        let associated_data = bytes.clone();
        let mut text = vec![0; 16];
        text.extend(&parts.plaintext);
        seal_one(Algorithm::AesSivCmac256, &self.c2s, &parts.nonce, &associated_data, &mut text)
            .expect("lengths fit");
        let mut body = (parts.nonce.len() as u16).to_be_bytes().to_vec();
        body.extend((text.len() as u16).to_be_bytes());
        for part in [&parts.nonce, &text] {
            body.extend(part);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.resize(body.len() + parts.padding, 0);
        put_field(&mut bytes, field_type::NTS_AUTHENTICATOR, &body);
        bytes.extend(&parts.trailing);
        bytes
    }

    /// The decrypted fields of an authentic reply.
    pub fn open(&self, reply: &[u8]) -> Vec<u8> {
        let Trailer::Nts(fields) = find(reply, Direction::Response) else {
            panic!("no authenticated reply: {:?}", find(reply, Direction::Response));
        };
        let authenticator = fields.authenticator;
        let mut text = reply[authenticator.ciphertext.range()].to_vec();
        timeball::aead::open_one(
            Algorithm::AesSivCmac256,
            &self.s2c,
            &reply[authenticator.nonce.range()],
            &reply[..authenticator.start],
            &mut text,
        )
        .expect("authentic");
        text.split_off(16)
    }

    pub fn cookies(&self, reply: &[u8]) -> Vec<Vec<u8>> {
        encrypted_cookies(&self.open(reply)).map(<[u8]>::to_vec).collect()
    }
}

pub fn put_field(bytes: &mut Vec<u8>, field_type: u16, body: &[u8]) {
    let at = bytes.len();
    bytes.resize(at + 4, 0);
    put_field_header(bytes, at, field_type, body.len());
    bytes.extend(body);
}

/// The answer to a request.
pub fn answer(server: &Server, request: &[u8]) -> Vec<u8> {
    let socket = udp_client(server.ntp());
    socket.send(request).expect("sent");
    receive(&socket)
}

pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 2048];
    let length = socket.recv(&mut reply).expect("an answer");
    reply.truncate(length);
    reply
}

/// Asserts that a datagram gets no answer, and the next request on the socket does.
pub fn assert_silence(server: &Server, datagram: &[u8]) {
    let socket = udp_client(server.ntp());
    socket.send(datagram).expect("sent");
    let mut marker = plain_request(4, Mode::Client);
    marker[40..48].copy_from_slice(b"marker!!");
    socket.send(&marker).expect("sent");
    let reply = receive(&socket);
    assert_eq!(&reply[24..32], b"marker!!", "{datagram:02x?} was answered: {reply:02x?}");
}

pub fn assert_nak(reply: &[u8], parts: &Parts) {
    let header = Header::parse(reply).expect("a header");
    assert_eq!(header.reference_id, ReferenceId::KISS_NTSN);
    assert_eq!((header.stratum, header.leap), (0, Leap::Unsynchronised));
    assert_eq!(header.origin_timestamp.to_bits().to_be_bytes(), parts.header[40..48]);
    let identifier = &parts.fields[IDENTIFIER].1;
    assert_eq!(reply.len(), HEADER_BYTES + 4 + identifier.len(), "nothing but the identifier");
    assert_eq!(&reply[HEADER_BYTES + 4..], identifier);
}
