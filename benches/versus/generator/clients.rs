//! The clients: an address, an association and a ready request each, and the judge of replies.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;

use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::client::{Association, Pending, REQUEST_BYTES_MIN};
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ring::KeyRing;
use timeball::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY, DATAGRAM_BYTES};
use timeball::sys::message::{Envelope, Payload};
use timeball::sys::mmsg;
use timeball::wire::ntp::{HEADER_BYTES, Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

/// Associations with keys, cookies and addresses of their own, unless told: enough that their
/// packets do not stay in a second-level cache.
pub(crate) const CLIENTS_DEFAULT: usize = 1 << 14;

/// Clients whose replies are looked at: one /24 that the script routes here. They are spread
/// evenly, so that they meet every place of a server's batches.
pub(crate) const SAMPLED: usize = 256;

/// Source port of the sampled clients.
pub(crate) const SAMPLE_PORT: u16 = 40_123;

/// 10.200.0.0/16, behind the generator's end of the veth.
const NETWORK: u32 = 0x0ac8_0000;

/// Addresses that the script gives to the two ends.
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GENERATOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const PAYLOAD_START: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

/// All clients of a run. Their requests have one length.
pub(crate) struct Clients {
    clients: Vec<Client>,
    buffers: Box<[Payload; BATCH_DATAGRAMS]>,
}

struct Client {
    frame: Vec<u8>,
    /// The keys, of an NTS client.
    association: Option<(Association, Pending)>,
}

/// Sampled replies.
#[derive(Default)]
pub(crate) struct Judged {
    /// Authenticated under the client's key, or for plain NTP: an answer to this very request.
    pub(crate) authentic: u64,
    /// Anything else.
    pub(crate) wrong: u64,
    /// How much later than its transmit timestamp says each authentic reply was taken in here.
    pub(crate) lateness_ns: Vec<i64>,
}

impl Clients {
    /// `count` is a power of two and at least [`SAMPLED`].
    pub(crate) fn mint(ring: &KeyRing, is_nts: bool, server: SocketAddrV4, count: usize) -> Self {
        let mut aead = Aead::detect();
        let mut random = NonceGenerator::from_seed(&[7; 32]);
        let clients = (0..count)
            .map(|index| {
                let mut payload = [0; REQUEST_BYTES_MIN];
                let (association, bytes) = if is_nts {
                    let mut association = mint_association(ring, &mut aead, &mut random);
                    let pending =
                        association.request(&mut payload, &mut random).expect("it has a cookie");
                    (Some((association, pending)), pending.request_bytes)
                } else {
                    // Version 4, mode 3, and a transmit timestamp to be recognised by.
                    payload[0] = 0x23;
                    random.fill(&mut payload[40..HEADER_BYTES]);
                    (None, HEADER_BYTES)
                };
                let source = source(index, count / SAMPLED);
                Client { frame: frame(source, server, &payload[..bytes]), association }
            })
            .collect();
        Self { clients, buffers: Box::new([[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS]) }
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.clients[0].frame.len()
    }

    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.clients.iter().map(|client| &client.frame[..])
    }

    /// Takes what `socket` holds. The client is found by the reply's origin timestamp.
    pub(crate) fn judge(&mut self, socket: &UdpSocket, judged: &mut Judged) -> io::Result<()> {
        let mut envelopes = [Envelope::EMPTY; BATCH_DATAGRAMS];
        loop {
            let received = match mmsg::recv(socket.as_fd(), &mut *self.buffers, &mut envelopes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for (place, envelope) in envelopes[..received].iter_mut().enumerate() {
                let mut reply = self.buffers[place];
                let arrival = envelope.turn().arrival;
                match (self.departure(&mut reply[..envelope.payload_bytes]), arrival) {
                    (Some(departure), Some(arrival)) => {
                        judged.authentic += 1;
                        judged.lateness_ns.push(nanoseconds(arrival.seconds_since(departure)));
                    }
                    _ => judged.wrong += 1,
                }
            }
        }
    }

    /// The transmit timestamp of an authentic reply.
    fn departure(&mut self, reply: &mut [u8]) -> Option<NtpTimestamp> {
        let header = Header::parse(reply)?;
        let origin = header.origin_timestamp.to_bits().to_be_bytes();
        let transmit = PAYLOAD_START + 40..PAYLOAD_START + HEADER_BYTES;
        let stride = self.clients.len() / SAMPLED;
        let mut sampled = self.clients.iter_mut().step_by(stride);
        let client = sampled.find(|client| client.frame[transmit.clone()] == origin)?;
        let is_time = header.mode == Mode::Server && header.stratum > 0;
        let is_authentic = match &mut client.association {
            Some((association, pending)) => {
                reply.len() == pending.request_bytes && association.response(pending, reply).is_ok()
            }
            None => reply.len() == HEADER_BYTES,
        };
        (is_time && is_authentic).then_some(header.transmit_timestamp)
    }
}

fn nanoseconds(units: i64) -> i64 {
    ((i128::from(units) * 1_000_000_000) >> 32) as i64
}

/// Every `stride`th client is sampled: it has an address of the /24.
fn source(index: usize, stride: usize) -> SocketAddrV4 {
    let (host, port) = if index.is_multiple_of(stride) {
        (index / stride, SAMPLE_PORT)
    } else {
        (SAMPLED + index, 1024 + (index * 7919 % 64_000) as u16)
    };
    SocketAddrV4::new(Ipv4Addr::from(NETWORK + host as u32), port)
}

/// Keys of its own and a full store of cookies, so that a request asks for one new cookie.
fn mint_association(ring: &KeyRing, aead: &mut Aead, random: &mut NonceGenerator) -> Association {
    let algorithm = Algorithm::AesSivCmac256;
    let master = ring.current();
    let mut pair = [0; 64];
    random.fill(&mut pair);
    let keys = ClientKeys::new(algorithm, &pair[..32], &pair[32..]).expect("32 bytes each");
    let mut cookie = vec![0; cookie_bytes(master.algorithm(), algorithm)];
    let mut nonce = [0; 16];
    let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
    random.fill(nonce);
    aead.make_cookies(&mut [format::prepare(&mut cookie, master, nonce, &keys)]);
    Association::new(keys, std::iter::repeat_n(&cookie[..], COOKIES_PER_REPLY))
}

/// Ethernet, IPv4 and UDP around `payload`. No UDP checksum: on real hardware the interface has
/// checked it before the kernel looks.
fn frame(source: SocketAddrV4, server: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = (UDP_BYTES + payload.len()) as u16;
    let mut header = [0; IPV4_BYTES];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(IPV4_BYTES as u16 + udp_bytes).to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = 17;
    header[12..16].copy_from_slice(&source.ip().octets());
    header[16..20].copy_from_slice(&server.ip().octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(PAYLOAD_START + payload.len());
    frame.extend(SERVER_MAC);
    frame.extend(GENERATOR_MAC);
    frame.extend([0x08, 0x00]);
    frame.extend(header);
    frame.extend(source.port().to_be_bytes());
    frame.extend(server.port().to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
