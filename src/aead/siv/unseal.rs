//! Opening replies: [`Seal`] with the text first.

use super::blocks::{Constants, LaneKeys, OneSchedule, expand_both};
use super::{BLOCK_BYTES, Crypt, Group, Lanes, Read as _, Scratch, Seal, Sinks, store_tags};

/// Opens replies in place: the text first, which its tag is then computed of.
pub(in crate::aead) struct Unseal<'g>(pub(in crate::aead) Seal<'g>);

impl Group for Unseal<'_> {
    #[inline(always)]
    fn run<V: Lanes, const N: usize>(
        &mut self,
        token: V::Token,
        scratch: &mut Scratch<V>,
        tags: &mut Sinks<'_>,
    ) {
        let Self(seal) = self;
        let constants = Constants::new(token);
        expand_both::<V, N>(token, &seal.keys, &mut scratch.mac, &mut scratch.ctr);
        for vector in 0..N {
            let tag = seal.text.block(token, vector, 0);
            let keys = OneSchedule(&scratch.ctr[vector]);
            let crypt = Crypt { vector, bytes: seal.plain_bytes, offset: BLOCK_BYTES };
            crypt.run(token, &constants, &keys, tag, None, &mut seal.text);
        }
        store_tags::<V, N>(tags, seal.tags(token, &constants, &LaneKeys(&scratch.mac)));
    }
}
