//! What several test programs share: an engine on a simulated clock, and clients for it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod interleaved;
pub mod leap;
pub mod namespace;
pub mod rig;
pub mod server;
pub mod world;

use std::net::SocketAddr;

use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::client::{Association, Pending};
use timeball::clock::SimulatedClock;
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ring::KeyRing;
use timeball::engine::Engine;
use timeball::engine::batch::{Datagram, Verdict};
use timeball::limits::{DATAGRAM_BYTES, INTERLEAVED_ENTRIES_DEFAULT};
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::{NtpShort, NtpTimestamp};

/// Multipliers as random as a server's: small ones would put all addresses into one place.
const INTERLEAVED_SECRET: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// When requests arrive unless told.
pub const NOW: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 250_000_000);

/// A client's address.
pub fn source(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

/// An engine with everything it takes as an argument.
pub struct Bench {
    pub engine: Engine,
    pub keys: KeyRing,
    pub clock: SimulatedClock,
    pub nonces: NonceGenerator,
    pub source: SocketAddr,
    /// When requests arrive.
    pub arrival: NtpTimestamp,
}

impl Bench {
    pub fn new() -> Self {
        let mut nonces = NonceGenerator::from_seed(&[7; 32]);
        Self {
            engine: Engine::new(Aead::detect())
                .with_interleaved(INTERLEAVED_ENTRIES_DEFAULT, INTERLEAVED_SECRET),
            keys: KeyRing::generate(Algorithm::AesSivCmac256, |bytes| nonces.fill(bytes)),
            clock: SimulatedClock::synchronised(NOW),
            nonces,
            source: source(40_000),
            arrival: NOW,
        }
    }

    /// A client that key establishment gave this many cookies.
    pub fn client(&mut self, algorithm: Algorithm, cookies: usize) -> Association {
        self.keyed_client(algorithm, cookies).0
    }

    /// The same, with its keys.
    pub fn keyed_client(
        &mut self,
        algorithm: Algorithm,
        cookies: usize,
    ) -> (Association, ClientKeys) {
        let mut key = [0; 128];
        self.nonces.fill(&mut key);
        let (c2s, s2c) = key[..2 * algorithm.key_bytes()].split_at(algorithm.key_bytes());
        let keys = || ClientKeys::new(algorithm, c2s, s2c).expect("lengths fit");
        let cookies: Vec<Vec<u8>> = (0..cookies).map(|_| self.cookie(&keys())).collect();
        (Association::new(keys(), cookies.iter().map(Vec::as_slice)), keys())
    }

    fn cookie(&mut self, keys: &ClientKeys) -> Vec<u8> {
        let master = self.keys.current();
        let mut cookie = vec![0; cookie_bytes(master.algorithm(), keys.algorithm())];
        let mut nonce = [0; 16];
        let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
        self.nonces.fill(nonce);
        Aead::detect().make_cookies(&mut [format::prepare(&mut cookie, master, nonce, keys)]);
        cookie
    }

    /// Answers the requests in place.
    pub fn answer(&mut self, requests: &mut [Vec<u8>]) -> Vec<Verdict> {
        let mut batch: Vec<Datagram<'_>> = requests
            .iter_mut()
            .map(|bytes| Datagram {
                bytes,
                arrival: self.arrival,
                source: self.source,
                truncated: false,
            })
            .collect();
        self.engine.answer(&mut batch, &self.keys, &self.clock, &mut self.nonces).to_vec()
    }

    /// Replaces the whole ring.
    pub fn forget_keys(&mut self) {
        self.keys = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| self.nonces.fill(bytes));
    }
}

/// A request of `client`, and what its reply has to match.
pub fn nts_request(client: &mut Association, bench: &mut Bench) -> (Vec<u8>, Pending) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let pending = client.request(&mut buffer, &mut bench.nonces).expect("cookies are left");
    buffer.truncate(pending.request_bytes);
    (buffer, pending)
}

/// A request without extension fields.
pub fn plain_request(version: u8, mode: Mode) -> Vec<u8> {
    let header = Header {
        leap: Leap::None,
        version,
        mode,
        stratum: 0,
        poll: 6,
        precision: 0x20,
        root_delay: NtpShort::default(),
        root_dispersion: NtpShort::default(),
        reference_id: ReferenceId::NONE,
        reference_timestamp: NtpTimestamp::ZERO,
        origin_timestamp: NtpTimestamp::ZERO,
        receive_timestamp: NtpTimestamp::ZERO,
        transmit_timestamp: NtpTimestamp::from_bits(0x0123_4567_89ab_cdef),
    };
    header.emit().to_vec()
}
