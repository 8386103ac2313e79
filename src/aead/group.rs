//! Groups of messages of one shape, a lane each: what the kernels are given.
//!
//! Groups know nothing of how an algorithm works; a [`Mode`] is an algorithm that answers them.

use zeroize::Zeroize;

use super::arch::{BLOCK_BYTES, LANES_MAX, Lanes, SPARE_BYTES, Sinks, Sources};
use super::blocks::{Schedule, VECTORS_MAX};
use super::{Algorithm, MasterKey};

/// An algorithm over lanes. `N` registers hold the lanes; messages that are opened or verified
/// leave in `tags` what their tags should be.
pub(super) trait Mode {
    /// Opens cookies.
    fn open<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Open<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    );

    /// Makes cookies.
    fn make<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Make<'_>,
        scratch: &mut Scratch<V>,
    );

    /// Verifies requests.
    fn verify<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Verify<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    );

    /// Seals replies.
    fn seal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
    );

    /// Opens replies.
    fn unseal<V: Lanes, const N: usize>(
        token: V::Token,
        group: &mut Seal<'_>,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    );
}

/// A group of messages of one shape and one algorithm.
pub(super) trait Group {
    /// The algorithm of them all.
    fn algorithm(&self) -> Algorithm;

    /// Has the algorithm `M` answer them.
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    );
}

/// Opens cookies: decrypts `sealed` into `plain`.
pub(super) struct Open<'g> {
    pub(super) key: &'g MasterKey,
    pub(super) nonces: Nonces,
    pub(super) sealed: Sources<'g>,
    pub(super) plain: Sinks<'g>,
    pub(super) plain_bytes: usize,
}

impl Group for Open<'_> {
    #[inline(always)]
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    #[inline(always)]
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        M::open::<V, N>(token, self, scratch, tags);
    }
}

/// Makes cookies: encrypts `plain` into `sealed`.
pub(super) struct Make<'g> {
    pub(super) key: &'g MasterKey,
    pub(super) nonces: Nonces,
    pub(super) plain: Sources<'g>,
    pub(super) plain_bytes: usize,
    pub(super) sealed: Sinks<'g>,
}

impl Group for Make<'_> {
    #[inline(always)]
    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    #[inline(always)]
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        _: &mut Sinks<'_>,
    ) {
        M::make::<V, N>(token, self, scratch);
    }
}

/// Verifies requests with empty plaintext.
pub(super) struct Verify<'g> {
    pub(super) algorithm: Algorithm,
    pub(super) keys: Sources<'g>,
    pub(super) nonces: Nonces,
    pub(super) associated: Sources<'g>,
    pub(super) associated_bytes: usize,
}

impl Group for Verify<'_> {
    #[inline(always)]
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[inline(always)]
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        M::verify::<V, N>(token, self, scratch, tags);
    }
}

/// Seals replies in place: a text of `plain_bytes`, and the tag where the algorithm wants it.
pub(super) struct Seal<'g> {
    pub(super) algorithm: Algorithm,
    pub(super) keys: Sources<'g>,
    pub(super) nonces: Nonces,
    pub(super) associated: Sources<'g>,
    pub(super) associated_bytes: usize,
    pub(super) text: Sinks<'g>,
    pub(super) plain_bytes: usize,
}

impl Group for Seal<'_> {
    #[inline(always)]
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[inline(always)]
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        _: &mut Sinks<'_>,
    ) {
        M::seal::<V, N>(token, self, scratch);
    }
}

/// Opens replies in place: [`Seal`] with the text first, which the tag is then computed of.
pub(super) struct Unseal<'g>(pub(super) Seal<'g>);

impl Group for Unseal<'_> {
    #[inline(always)]
    fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    #[inline(always)]
    fn run<M: Mode, V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        M::unseal::<V, N>(token, &mut self.0, scratch, tags);
    }
}

/// A nonce for each lane, at the end of a block, zeros in front: copied, because a block cannot be
/// loaded from the twelve bytes of RFC 8452.
pub(super) struct Nonces {
    blocks: [[u8; BLOCK_BYTES]; LANES_MAX],
    bytes: usize,
}

impl Nonces {
    /// A group of one lane.
    #[inline(always)]
    pub(super) fn new(first: &[u8]) -> Self {
        Self { blocks: [nonce_block(first); LANES_MAX], bytes: first.len() }
    }

    /// The nonce of `lane`, 1 and up, as long as the first.
    #[inline(always)]
    pub(super) fn set(&mut self, lane: usize, nonce: &[u8]) {
        assert_eq!(nonce.len(), self.bytes, "a group has one shape");
        self.blocks[lane] = nonce_block(nonce);
    }

    /// Bytes of each.
    #[inline(always)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// To load them from.
    #[inline(always)]
    pub(super) fn sources(&self) -> Sources<'_> {
        Sources::of_all(&self.blocks)
    }
}

/// A nonce of 16 or of 12 bytes: copies of known length are loads and stores, others calls.
#[inline(always)]
fn nonce_block(nonce: &[u8]) -> [u8; BLOCK_BYTES] {
    if let Some(block) = nonce.as_array() {
        return *block;
    }
    let mut block = [0; BLOCK_BYTES];
    block[BLOCK_BYTES - NONCE_BYTES_SHORT..]
        .copy_from_slice(nonce.as_array::<NONCE_BYTES_SHORT>().expect("the kernels take two"));
    block
}

/// Key schedules of a group, reused from group to group; wiped by the owner. For AES-SIV those of
/// MAC and CTR, for AES-GCM-SIV those of the key-generating and the message-encryption key.
pub(super) struct Scratch<V> {
    pub(super) first: [Schedule<V>; VECTORS_MAX],
    pub(super) second: [Schedule<V>; VECTORS_MAX],
}

impl<V: Lanes> Scratch<V> {
    pub(super) fn new(token: V::Token) -> Self {
        let zero = V::splat(token, &[0; BLOCK_BYTES]);
        Self { first: [[zero; _]; _], second: [[zero; _]; _] }
    }
}

impl<V: Zeroize> Zeroize for Scratch<V> {
    fn zeroize(&mut self) {
        self.first.zeroize();
        self.second.zeroize();
    }
}

/// Tags of a group, one a lane.
pub(super) type Tags = [[u8; BLOCK_BYTES]; LANES_MAX];

/// What lanes without a message write: lane 0's plaintext among it.
pub(super) type Spare = [u8; SPARE_BYTES];

/// Least bytes of associated data of a client's message: three full blocks and something more,
/// for the three side chains of AES-SIV to ride beside. Every NTP packet with an extension field
/// has it. AES-GCM-SIV needs one block, to load a tail from.
pub(super) const ASSOCIATED_BYTES_MIN: usize = 3 * BLOCK_BYTES + 1;

/// Least bytes of a plaintext that is not empty, so that in AES-SIV the block before the last one
/// exists. The keys in a cookie have as many.
pub(super) const PLAIN_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// Bytes of a nonce of AES-GCM-SIV.
const NONCE_BYTES_SHORT: usize = Algorithm::Aes128GcmSiv.nonce_bytes();
