//! Associations made with a server's own master keys, without asking it: for labs.

use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::cookie::format::{self, ClientKeys, cookie_bytes};
use timeball::cookie::ring::KeyRing;
use timeball::limits::{CLIENT_KEYS_BYTES_MAX, NONCE_BYTES_MAX};
use zeroize::Zeroizing;

use super::{Associations, Jar, MemoryError};
use crate::limits::BATCH_REQUESTS;

/// `clients` associations with random keys, each with `depth` cookies under the ring's current key.
pub fn mint(
    ring: &KeyRing,
    algorithm: Algorithm,
    clients: usize,
    depth: usize,
    random: &mut NonceGenerator,
) -> Result<Associations, MemoryError> {
    let master = ring.current();
    let cookie_bytes = cookie_bytes(master.algorithm(), algorithm);
    let mut minted = Associations::empty(algorithm, cookie_bytes, depth, clients)?;
    let mut aead = Aead::detect();
    let pair_bytes = 2 * algorithm.key_bytes();
    minted.jars.fill(Jar { first: 0, count: depth as u8 });
    // Keys in place of those of each cookie: the jobs borrow them.
    let mut keys = Vec::with_capacity(BATCH_REQUESTS);
    let pairs = minted.keys.chunks_mut(BATCH_REQUESTS * pair_bytes);
    let cookies = minted.cookies.chunks_mut(BATCH_REQUESTS * depth * cookie_bytes);
    for (pairs, cookies) in pairs.zip(cookies) {
        keys.clear();
        for place in pairs.chunks_mut(pair_bytes) {
            let mut pair = Zeroizing::new([0; CLIENT_KEYS_BYTES_MAX]);
            random.fill(&mut pair[..pair_bytes]);
            place.copy_from_slice(&pair[..pair_bytes]);
            let (c2s, s2c) = place.split_at(pair_bytes / 2);
            keys.push(ClientKeys::new(algorithm, c2s, s2c).expect("the algorithm's own lengths"));
        }
        let mut jobs = Vec::with_capacity(BATCH_REQUESTS * depth);
        for (keys, cookies) in keys.iter().zip(cookies.chunks_mut(depth * cookie_bytes)) {
            for cookie in cookies.chunks_mut(cookie_bytes) {
                let mut nonce = [0; NONCE_BYTES_MAX];
                let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
                random.fill(nonce);
                jobs.push(format::prepare(cookie, master, nonce, keys));
            }
        }
        aead.make_cookies(&mut jobs);
    }
    Ok(minted)
}

#[cfg(test)]
mod tests {
    use timeball::aead::open_one;

    use super::*;
    use crate::plan::CookieUse;

    #[test]
    fn every_minted_cookie_opens_to_its_clients_keys() {
        let mut random = NonceGenerator::from_seed(&[5; 32]);
        for master in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
            let ring = KeyRing::generate(master, |bytes| random.fill(bytes));
            for client in
                [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv]
            {
                let mut minted = mint(&ring, client, 67, 2, &mut random).expect("memory");
                for index in 0..67 {
                    let keys = [minted.c2s(index), minted.s2c(index)].concat();
                    for _ in 0..2 {
                        let cookie = minted.take_cookie(index, CookieUse::Renew).cookie;
                        let parts = format::split(cookie, master).expect("a cookie");
                        let mut sealed = parts.sealed.to_vec();
                        let key = ring.current().expose_bytes();
                        open_one(master, key, parts.nonce, &[], &mut sealed).expect("authentic");
                        assert_eq!(sealed[master.plaintext_offset()..][..keys.len()], keys);
                    }
                }
            }
        }
    }
}
