//! The clients: an address, an association and a ready request each, and the judge of replies.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::client::{Association, Pending, REQUEST_BYTES_MIN, request_header};
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ring::KeyRing;
use timeball::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY, DATAGRAM_BYTES};
use timeball::sys::message::{Envelope, Payload};
use timeball::sys::mmsg;
use timeball::wire::ntp::{HEADER_BYTES, Header, Mode};
use timeball::wire::timestamp::NtpTimestamp;

use crate::program::Deck;
use crate::{Flood, nanoseconds};

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
const NOBODY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// Different requests of a flood, a power of two: more addresses than any limit remembers.
const FLOOD_FRAMES: usize = 1 << 16;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const PAYLOAD_START: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

/// All clients of a run. Their requests have one length.
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// Whether the sampled ones are in interleaved mode; the others never are.
    interleaved: bool,
    random: NonceGenerator,
    buffers: Box<[Payload; BATCH_DATAGRAMS]>,
}

struct Client {
    frame: Vec<u8>,
    /// The timestamps of the request, of which the reply returns one.
    transmit: NtpTimestamp,
    receive: NtpTimestamp,
    /// The keys, of an NTS client.
    association: Option<(Association, Pending)>,
    /// When the last reply was taken in here.
    replied: Option<NtpTimestamp>,
}

/// Sampled replies.
#[derive(Default)]
pub(crate) struct Judged {
    /// Authenticated under the client's key, or for plain NTP: an answer to this very request.
    pub(crate) authentic: u64,
    /// Anything else.
    pub(crate) wrong: u64,
    /// How much later than a transmit timestamp says its reply was taken in here: each authentic
    /// reply, or of clients in interleaved mode, each whose transmit timestamp came with the next.
    pub(crate) lateness_ns: Vec<i64>,
    /// From a request's departure to the arrival of its authentic reply.
    pub(crate) latency_ns: Vec<i64>,
}

impl Clients {
    /// `count` is a power of two and at least [`SAMPLED`].
    pub(crate) fn mint(
        ring: &KeyRing,
        is_nts: bool,
        interleaved: bool,
        server: SocketAddrV4,
        count: usize,
    ) -> Self {
        let mut aead = Aead::detect();
        let mut random = NonceGenerator::from_seed(&[7; 32]);
        let clients = (0..count)
            .map(|index| {
                let association = is_nts.then(|| mint_association(ring, &mut aead, &mut random));
                Client::new(association, source(index, count / SAMPLED), server, &mut random)
            })
            .collect();
        let buffers = Box::new([[0; DATAGRAM_BYTES]; BATCH_DATAGRAMS]);
        Self { clients, interleaved, random, buffers }
    }

    /// One client in so many is sampled.
    pub(crate) fn stride(&self) -> usize {
        self.clients.len() / SAMPLED
    }

    pub(crate) fn frames(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.clients.iter().map(|client| &client.frame[..])
    }

    /// Takes what `socket` holds. A client in interleaved mode asks next what its reply tells it
    /// to, by its entry in `frames`.
    pub(crate) fn judge(
        &mut self,
        socket: &UdpSocket,
        deck: &Deck,
        judged: &mut Judged,
    ) -> io::Result<()> {
        let mut envelopes = [Envelope::EMPTY; BATCH_DATAGRAMS];
        loop {
            let received = match mmsg::recv(socket.as_fd(), &mut *self.buffers, &mut envelopes) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for (place, envelope) in envelopes[..received].iter_mut().enumerate() {
                let mut reply = self.buffers[place];
                let reply = &mut reply[..envelope.payload_bytes];
                let taken = envelope
                    .turn()
                    .arrival
                    .and_then(|arrival| Some((arrival, self.take(reply, arrival, judged)?)));
                match taken {
                    Some((arrival, index)) => {
                        let departure = system_time(deck.departure(index)?);
                        judged.latency_ns.push(nanoseconds(arrival.seconds_since(departure)));
                        if self.interleaved {
                            deck.write(index, &self.clients[index].frame)?;
                        }
                    }
                    None => judged.wrong += 1,
                }
            }
        }
    }

    /// Takes an authentic reply; returns whose it is. The client is found by the timestamp that the
    /// reply returns to it.
    fn take(
        &mut self,
        reply: &mut [u8],
        arrival: NtpTimestamp,
        judged: &mut Judged,
    ) -> Option<usize> {
        let stride = self.stride();
        let origin = Header::parse(reply)?.origin_timestamp;
        let mut sampled = self.clients.iter_mut().enumerate().step_by(stride);
        let (index, client) = sampled.find(|(_, client)| {
            client.transmit == origin || self.interleaved && client.receive == origin
        })?;
        let header = client.open(reply)?;
        judged.authentic += 1;
        let is_interleaved = origin != client.transmit;
        let replied = client.replied.replace(arrival);
        let left = if is_interleaved { replied } else { (!self.interleaved).then_some(arrival) };
        let lateness = left.map(|left| left.seconds_since(header.transmit_timestamp));
        judged.lateness_ns.extend(lateness.map(nanoseconds));
        if self.interleaved {
            client.ask(header.receive_timestamp, &mut self.random);
        }
        Some(index)
    }
}

impl Client {
    /// With its first request, which is in basic mode.
    fn new(
        association: Option<Association>,
        source: SocketAddrV4,
        server: SocketAddrV4,
        random: &mut NonceGenerator,
    ) -> Self {
        let mut payload = [0; REQUEST_BYTES_MIN];
        let header = request_header(timestamp(random));
        let (association, bytes) = write(association, &header, &mut payload, random);
        Self {
            frame: frame(source, server, &payload[..bytes]),
            transmit: header.transmit_timestamp,
            receive: header.receive_timestamp,
            association,
            replied: None,
        }
    }

    /// Turns the request into one in interleaved mode (RFC 9769 section 2) that names the reply
    /// with this receive timestamp. It says nothing of the client's clock.
    fn ask(&mut self, origin_timestamp: NtpTimestamp, random: &mut NonceGenerator) {
        (self.transmit, self.receive) = (timestamp(random), timestamp(random));
        let header = Header {
            origin_timestamp,
            receive_timestamp: self.receive,
            ..request_header(self.transmit)
        };
        let association = self.association.take().map(|(association, _)| association);
        let payload = &mut self.frame[PAYLOAD_START..];
        (self.association, _) = write(association, &header, payload, random);
    }

    /// The header of an authentic reply.
    fn open(&mut self, reply: &mut [u8]) -> Option<Header> {
        let header = Header::parse(reply)?;
        let is_time = header.mode == Mode::Server && header.stratum > 0;
        let is_authentic = match &mut self.association {
            Some((association, pending)) => {
                reply.len() == pending.request_bytes && association.response(pending, reply).is_ok()
            }
            None => reply.len() == HEADER_BYTES,
        };
        (is_time && is_authentic).then_some(header)
    }
}

/// Writes a request with this header; returns its length, and what its reply is opened with.
fn write(
    association: Option<Association>,
    header: &Header,
    payload: &mut [u8],
    random: &mut NonceGenerator,
) -> (Option<(Association, Pending)>, usize) {
    let Some(mut association) = association else {
        payload[..HEADER_BYTES].copy_from_slice(&header.emit());
        return (None, HEADER_BYTES);
    };
    // Each reply brings a cookie for the one that was sent.
    let pending = association.request_with(header, payload, random).expect("it has a cookie");
    (Some((association, pending)), pending.request_bytes)
}

/// A time of the monotonic clock by the clock that stamps what arrives.
fn system_time(monotonic: Duration) -> NtpTimestamp {
    let [wall, now] = [ClockId::Realtime, ClockId::Monotonic].map(|clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    });
    let then = wall.saturating_sub(now.saturating_sub(monotonic));
    NtpTimestamp::from_unix(then.as_secs() as i64, then.subsec_nanos())
}

/// Nothing but something to be recognised by.
fn timestamp(random: &mut NonceGenerator) -> NtpTimestamp {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    NtpTimestamp::from_bits(u64::from_be_bytes(bytes))
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

/// Requests of a flood, as frames of one length: nobody waits for what comes back. The addresses
/// differ in every part of them.
pub(crate) fn flood(kind: Flood, ring: &KeyRing, server: SocketAddrV4, past: bool) -> Vec<Vec<u8>> {
    let mut aead = Aead::detect();
    let mut random = NonceGenerator::from_seed(&[8; 32]);
    let mut frame_of = |index: usize| {
        let mut payload = [0; DATAGRAM_BYTES];
        let header = request_header(timestamp(&mut random));
        let bytes = match kind {
            Flood::Ntp => write(None, &header, &mut payload, &mut random).1,
            Flood::Nak => {
                let association = mint_association(ring, &mut aead, &mut random);
                let bytes = write(Some(association), &header, &mut payload, &mut random).1;
                payload[bytes - 1] ^= 1;
                bytes
            }
            Flood::Junk => {
                random.fill(&mut payload);
                index % DATAGRAM_BYTES
            }
        };
        let mut frame = frame(forged(index), server, &payload[..bytes]);
        if past {
            // A hardware address that is nobody's: the server's interface drops it.
            frame[..SERVER_MAC.len()].copy_from_slice(&NOBODY_MAC);
        }
        frame
    };
    let mut frames: Vec<Vec<u8>> = (0..FLOOD_FRAMES).map(&mut frame_of).collect();
    let longest = frames.iter().map(Vec::len).max().expect("there are frames");
    // The kernel cuts off what the IP header does not count.
    frames.iter_mut().for_each(|frame| frame.resize(longest, 0));
    frames
}

/// An address of 11.0.0.0/8, each in a /24 of its own as far as there are.
fn forged(index: usize) -> SocketAddrV4 {
    // The high bits of a product with the golden ratio are spread evenly.
    let host = (index as u32).wrapping_mul(0x9e37_79b1) >> 8;
    SocketAddrV4::new(Ipv4Addr::from(0x0b00_0000 | host), 1024 + (index * 7919 % 64_000) as u16)
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
