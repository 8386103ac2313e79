//! A batch of requests, written one behind the other and sealed together.

use arrayvec::ArrayVec;
use timeball::aead::{Aead, NonceGenerator, RequestSeal};
use timeball::client::{RequestParts, request_header};
use timeball::limits::{COOKIE_BYTES_MAX, COOKIES_PER_REPLY, DATAGRAM_BYTES, NONCE_BYTES_MAX};
use timeball::wire::Span;
use timeball::wire::extension::FIELD_HEADER_BYTES;
use timeball::wire::ntp::{HEADER_BYTES, Header};
use timeball::wire::nts::UNIQUE_IDENTIFIER_BYTES_MIN;
use timeball::wire::timestamp::NtpTimestamp;

use crate::associations::Associations;
use crate::flight::{Flight, Sent};
use crate::limits::BATCH_REQUESTS;
use crate::plan::{CookieUse, Placeholders, Twist};

/// What clients of one thread ask, and with which keys.
pub enum Clients {
    /// So many without keys.
    Plain(usize),
    /// With keys.
    Nts(Associations, Placeholders, CookieUse),
}

impl Clients {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(clients) => *clients,
            Self::Nts(associations, ..) => associations.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes requests.
pub struct Writer {
    buffer: Box<[u8]>,
    places: ArrayVec<Place, BATCH_REQUESTS>,
    end: usize,
    aead: Aead,
    nonces: NonceGenerator,
    /// Makes unique identifiers out of transmit timestamps, so that none has to be remembered.
    identifier_key: [u64; 4],
    /// Requests with a cookie that had been used before.
    pub cookies_reused: u64,
}

/// One request in the buffer.
#[derive(Clone, Copy)]
struct Place {
    span_start: usize,
    bytes: usize,
    client: usize,
    sealing: Option<Sealing>,
}

/// What there is to seal.
#[derive(Clone, Copy)]
struct Sealing {
    associated_bytes: usize,
    nonce: Span,
    ciphertext: Span,
}

impl Writer {
    /// Fails where the kernel gives no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut nonces = NonceGenerator::new()?;
        let identifier_key = std::array::from_fn(|_| random_u64(&mut nonces));
        Ok(Self {
            buffer: vec![0; BATCH_REQUESTS * DATAGRAM_BYTES].into(),
            places: ArrayVec::new(),
            end: 0,
            aead: Aead::detect(),
            nonces,
            identifier_key,
            cookies_reused: 0,
        })
    }

    /// Keys for a [`Flight`].
    pub fn flight_keys(&mut self) -> [[u64; 2]; 2] {
        [(); 2].map(|()| [(); 2].map(|()| random_u64(&mut self.nonces)))
    }

    /// Whether the batch is full.
    pub fn is_full(&self) -> bool {
        self.places.is_full()
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.places.clear();
        self.end = 0;
    }

    /// Adds the request of `client` that was due at `due_ns`. The batch is not full. `heard` is the
    /// receive timestamp of the client's last answer, for an interleaved request.
    pub fn add(
        &mut self,
        clients: &mut Clients,
        client: usize,
        due_ns: u64,
        heard: Option<NtpTimestamp>,
        flight: &mut Flight,
    ) {
        let start = self.end;
        let sent = |bytes, cookies| Sent { due_ns, client: client as u32, bytes, cookies };
        let (transmit, bytes, sealing) = match clients {
            Clients::Plain(_) => {
                let transmit = flight.add(sent(HEADER_BYTES as u16, 0));
                self.buffer[start..start + HEADER_BYTES]
                    .copy_from_slice(&request_header(transmit).emit());
                (transmit, HEADER_BYTES, None)
            }
            Clients::Nts(associations, placeholders, cookie_use) => {
                let algorithm = associations.algorithm();
                let mut nonce = [0; NONCE_BYTES_MAX];
                let nonce = &mut nonce[..algorithm.nonce_bytes()];
                self.nonces.fill(nonce);
                let taken = associations.take_cookie(client, *cookie_use);
                self.cookies_reused += u64::from(taken.is_reused);
                let placeholders = match placeholders {
                    Placeholders::Fixed(count) => usize::from(*count),
                    Placeholders::Missing => taken.missing.min(COOKIES_PER_REPLY - 1),
                };
                let mut parts = RequestParts {
                    transmit_timestamp: Default::default(),
                    unique_identifier: &[0; UNIQUE_IDENTIFIER_BYTES_MIN],
                    cookie: taken.cookie,
                    placeholders,
                    nonce,
                };
                let transmit = flight.add(sent(parts.bytes() as u16, 1 + placeholders as u8));
                let identifier = identifier(transmit.to_bits(), &self.identifier_key);
                parts.transmit_timestamp = transmit;
                parts.unique_identifier = &identifier;
                let layout = parts.write(&mut self.buffer[start..]);
                let sealing = Sealing {
                    associated_bytes: layout.start,
                    nonce: layout.nonce,
                    ciphertext: layout.ciphertext,
                };
                (transmit, layout.end, Some(sealing))
            }
        };
        if let Some(origin_timestamp) = heard {
            let receive_timestamp = flight.second_name(transmit);
            let header = Header { origin_timestamp, receive_timestamp, ..request_header(transmit) };
            self.buffer[start..start + HEADER_BYTES].copy_from_slice(&header.emit());
        }
        self.places.push(Place { span_start: start, bytes, client, sealing });
        self.end = start + bytes;
    }

    /// Seals all requests of the batch.
    pub fn seal(&mut self, clients: &Clients) {
        let Clients::Nts(associations, ..) = clients else { return };
        let mut jobs: ArrayVec<RequestSeal<'_>, BATCH_REQUESTS> = ArrayVec::new();
        let mut rest = &mut self.buffer[..];
        for place in &self.places {
            let (request, after) = rest.split_at_mut(place.bytes);
            rest = after;
            let Some(sealing) = place.sealing else { continue };
            let (before, tag) =
                request[..sealing.ciphertext.end()].split_at_mut(sealing.ciphertext.start());
            jobs.push(RequestSeal {
                algorithm: associations.algorithm(),
                key: associations.c2s(place.client),
                nonce: &before[sealing.nonce.range()],
                associated_data: &before[..sealing.associated_bytes],
                tag,
            });
        }
        self.aead.seal_requests(&mut jobs);
    }

    /// Spoils all requests of the batch. What makes an answer known stays.
    pub fn twist(&mut self, twist: Twist) {
        for place in &self.places {
            let request = &mut self.buffer[place.span_start..][..place.bytes];
            match (twist, place.sealing) {
                (Twist::BadCookie, Some(_)) => request[COOKIE_MIDDLE] ^= 1,
                (Twist::BadTag, Some(sealing)) => request[sealing.ciphertext.start()] ^= 1,
                (Twist::Junk, _) => {
                    let (before, rest) = request.split_at_mut(HEADER_BYTES - 8);
                    self.nonces.fill(before);
                    self.nonces.fill(&mut rest[8..]);
                }
                (Twist::None | Twist::Replay | Twist::BadCookie | Twist::BadTag, _) => {}
            }
        }
    }

    /// Runs of up to `most` requests of one length, each with its first client: what the kernel can
    /// cut apart again. With their bytes and their number.
    pub fn groups(&mut self, most: usize) -> impl Iterator<Item = Group<'_>> {
        let mut places = &self.places[..];
        let mut rest = &mut self.buffer[..];
        std::iter::from_fn(move || {
            let first = *places.first()?;
            let same = |place: &&Place| place.bytes == first.bytes;
            // The kernel cuts no more than 64 KiB.
            let most = most.min(usize::from(u16::MAX) / (first.bytes + UDP_HEADERS_BYTES)).max(1);
            let count = places.iter().take(most).take_while(same).count();
            places = &places[count..];
            let (bytes, after) = std::mem::take(&mut rest).split_at_mut(count * first.bytes);
            rest = after;
            Some(Group { bytes, request_bytes: first.bytes, count, client: first.client })
        })
    }

    /// Checks a unique identifier, field header excluded.
    pub fn is_identifier(&self, transmit: u64, found: &[u8]) -> bool {
        identifier(transmit, &self.identifier_key) == found
    }

    /// The cryptography, for answers.
    pub fn aead(&mut self) -> &mut Aead {
        &mut self.aead
    }

    /// Lengths of the requests in the batch: their places in the buffer are checked by tests.
    pub fn requests(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.buffer[place.span_start..][..place.bytes])
    }
}

/// Requests of one length that leave in one message.
pub struct Group<'a> {
    /// All of them.
    pub bytes: &'a mut [u8],
    /// Length of each.
    pub request_bytes: usize,
    /// How many.
    pub count: usize,
    /// Whose the first one is.
    pub client: usize,
}

/// Length of a request of these clients with so many placeholders.
pub fn request_bytes(associations: &Associations, placeholders: usize) -> usize {
    let parts = RequestParts {
        transmit_timestamp: Default::default(),
        unique_identifier: &[0; UNIQUE_IDENTIFIER_BYTES_MIN],
        cookie: &[0; COOKIE_BYTES_MAX][..associations.cookie_bytes()],
        placeholders,
        nonce: &[0; NONCE_BYTES_MAX][..associations.algorithm().nonce_bytes()],
    };
    parts.bytes()
}

/// A byte of the shortest cookie (64 bytes), behind its nonce.
const COOKIE_MIDDLE: usize =
    HEADER_BYTES + 2 * FIELD_HEADER_BYTES + UNIQUE_IDENTIFIER_BYTES_MIN + 40;

/// Headers of IPv6 and UDP: they count towards the 64 KiB.
const UDP_HEADERS_BYTES: usize = 48;

/// 32 bytes that follow from the transmit timestamp and a key. Not secret, only unlikely to be
/// met by chance.
fn identifier(transmit: u64, key: &[u64; 4]) -> [u8; UNIQUE_IDENTIFIER_BYTES_MIN] {
    let mut identifier = [0; UNIQUE_IDENTIFIER_BYTES_MIN];
    for (place, key) in identifier.chunks_exact_mut(8).zip(key) {
        place.copy_from_slice(&mixed(transmit ^ key).to_be_bytes());
    }
    identifier
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

fn random_u64(nonces: &mut NonceGenerator) -> u64 {
    let mut bytes = [0; 8];
    nonces.fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}
