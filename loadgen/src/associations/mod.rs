//! Keys and cookies of many clients, packed: 10⁶ of them with eight cookies each are a gigabyte.

mod file;
pub mod harvest;
mod mint;

pub use file::{FileError, Saved};
pub use mint::mint;

use std::fs;

use timeball::aead::Algorithm;
use timeball::limits::COOKIES_PER_REPLY;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::plan::CookieUse;

/// Associations with one server: one AEAD, cookies of one length.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Associations {
    #[zeroize(skip)]
    algorithm: Algorithm,
    cookie_bytes: usize,
    /// Cookies that a client has room for.
    depth: usize,
    /// C2S and S2C of each client.
    keys: Vec<u8>,
    /// `depth` places for each client, used in turn.
    cookies: Vec<u8>,
    #[zeroize(skip)]
    jars: Vec<Jar>,
}

/// A client's cookies: `count` of them from place `first` on. With none left, the place before
/// `first` still holds the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Jar {
    first: u8,
    count: u8,
}

/// A cookie to use.
pub struct Taken<'a> {
    /// The cookie.
    pub cookie: &'a [u8],
    /// It had been used before.
    pub is_reused: bool,
    /// Cookies that the client missed before it took this one.
    pub missing: usize,
}

/// Too many clients for this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "{clients} clients with {depth} cookies each take {wanted} MiB, and {available} MiB are free: \
     ask for fewer with --clients or --cookies-each"
)]
pub struct MemoryError {
    clients: usize,
    depth: usize,
    wanted: usize,
    available: usize,
}

impl Associations {
    /// Room for `clients` with `depth` cookies of `cookie_bytes` each; keys zero, no cookies.
    pub fn empty(
        algorithm: Algorithm,
        cookie_bytes: usize,
        depth: usize,
        clients: usize,
    ) -> Result<Self, MemoryError> {
        assert!((1..=COOKIES_PER_REPLY).contains(&depth), "a client keeps one to eight");
        let each = 2 * algorithm.key_bytes() + depth * cookie_bytes + size_of::<Jar>();
        let wanted = clients.saturating_mul(each) >> 20;
        let available = available_bytes() >> 20;
        if wanted > available {
            return Err(MemoryError { clients, depth, wanted, available });
        }
        Ok(Self {
            algorithm,
            cookie_bytes,
            depth,
            keys: vec![0; clients * 2 * algorithm.key_bytes()],
            cookies: vec![0; clients * depth * cookie_bytes],
            jars: vec![Jar::default(); clients],
        })
    }

    /// How many clients.
    pub fn len(&self) -> usize {
        self.jars.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.jars.is_empty()
    }

    /// The AEAD of all of them.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Length of every cookie.
    pub fn cookie_bytes(&self) -> usize {
        self.cookie_bytes
    }

    /// Cookies that a client has room for.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Cookies that are left, of all clients.
    pub fn cookies_left(&self) -> u64 {
        self.jars.iter().map(|jar| u64::from(jar.count)).sum()
    }

    /// The key of a client's requests.
    pub fn c2s(&self, client: usize) -> &[u8] {
        let key_bytes = self.algorithm.key_bytes();
        &self.keys[2 * client * key_bytes..][..key_bytes]
    }

    /// The key of its responses.
    pub fn s2c(&self, client: usize) -> &[u8] {
        let key_bytes = self.algorithm.key_bytes();
        &self.keys[(2 * client + 1) * key_bytes..][..key_bytes]
    }

    fn set_keys(&mut self, client: usize, c2s: &[u8], s2c: &[u8]) {
        let key_bytes = self.algorithm.key_bytes();
        let pair = &mut self.keys[2 * client * key_bytes..][..2 * key_bytes];
        pair[..key_bytes].copy_from_slice(c2s);
        pair[key_bytes..].copy_from_slice(s2c);
    }

    /// The cookie for a client's next request.
    pub fn take_cookie(&mut self, client: usize, cookie_use: CookieUse) -> Taken<'_> {
        let depth = self.depth as u8;
        let jar = &mut self.jars[client];
        let missing = self.depth - usize::from(jar.count);
        let (place, is_reused) = match cookie_use {
            CookieUse::Replay => (jar.first, false),
            CookieUse::Renew if jar.count == 0 => ((jar.first + depth - 1) % depth, true),
            CookieUse::Renew => {
                let place = jar.first;
                jar.first = (jar.first + 1) % depth;
                jar.count -= 1;
                (place, false)
            }
        };
        let start = (client * self.depth + usize::from(place)) * self.cookie_bytes;
        Taken { cookie: &self.cookies[start..start + self.cookie_bytes], is_reused, missing }
    }

    /// Keeps a new cookie if the client has room for it; false if it has another length than the
    /// others.
    pub fn add_cookie(&mut self, client: usize, cookie: &[u8]) -> bool {
        if cookie.len() != self.cookie_bytes {
            return false;
        }
        let jar = &mut self.jars[client];
        if usize::from(jar.count) < self.depth {
            let place = (usize::from(jar.first) + usize::from(jar.count)) % self.depth;
            jar.count += 1;
            let start = (client * self.depth + place) * self.cookie_bytes;
            self.cookies[start..start + self.cookie_bytes].copy_from_slice(cookie);
        }
        true
    }

    /// Parts of nearly equal size, in order. Their number is at most that of the clients.
    pub fn split(mut self, parts: usize) -> Vec<Self> {
        let mut split = Vec::with_capacity(parts);
        for left in (1..=parts).rev() {
            let clients = self.len() / left;
            let from = self.len() - clients;
            split.push(Self {
                algorithm: self.algorithm,
                cookie_bytes: self.cookie_bytes,
                depth: self.depth,
                keys: self.keys.split_off(from * 2 * self.algorithm.key_bytes()),
                cookies: self.cookies.split_off(from * self.depth * self.cookie_bytes),
                jars: self.jars.split_off(from),
            });
        }
        split.reverse();
        split
    }

    /// The opposite of [`Self::split`].
    pub fn join(parts: Vec<Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let mut whole = parts.next()?;
        for part in parts {
            whole.keys.extend_from_slice(&part.keys);
            whole.cookies.extend_from_slice(&part.cookies);
            whole.jars.extend_from_slice(&part.jars);
        }
        Some(whole)
    }
}

/// Memory that can be had without swapping (`MemAvailable`, proc_meminfo(5)); all there could be
/// where the kernel does not say.
fn available_bytes() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.map_or(usize::MAX, |kibibytes: usize| kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn associations(clients: usize, depth: usize) -> Associations {
        let algorithm = Algorithm::AesSivCmac256;
        let mut associations = Associations::empty(algorithm, 4, depth, clients).expect("room");
        for client in 0..clients {
            let mark = client as u8;
            associations.set_keys(client, &[mark; 32], &[mark + 100; 32]);
            for cookie in 0..depth as u8 {
                assert!(associations.add_cookie(client, &[mark, cookie, 0, 0]));
            }
        }
        associations
    }

    fn take(associations: &mut Associations, cookie_use: CookieUse) -> (u8, bool, usize) {
        let taken = associations.take_cookie(0, cookie_use);
        (taken.cookie[1], taken.is_reused, taken.missing)
    }

    #[test]
    fn cookies_are_used_in_turn_once_and_the_last_again_only_without_others() {
        let mut clients = associations(1, 3);
        assert_eq!(take(&mut clients, CookieUse::Renew), (0, false, 0));
        assert_eq!(take(&mut clients, CookieUse::Renew), (1, false, 1));
        assert!(clients.add_cookie(0, &[0, 9, 0, 0]));
        assert_eq!(take(&mut clients, CookieUse::Renew), (2, false, 1));
        assert_eq!(take(&mut clients, CookieUse::Renew), (9, false, 2));
        assert_eq!(take(&mut clients, CookieUse::Renew), (9, true, 3));
        assert_eq!(take(&mut clients, CookieUse::Renew), (9, true, 3));
        assert!(!clients.add_cookie(0, &[0; 8]), "another length");
    }

    #[test]
    fn a_replayed_cookie_is_always_the_first_and_a_full_jar_stays() {
        let mut clients = associations(1, 2);
        assert!(clients.add_cookie(0, &[0, 9, 0, 0]), "no room is no fault");
        for _ in 0..3 {
            assert_eq!(take(&mut clients, CookieUse::Replay), (0, false, 0));
        }
    }

    #[test]
    fn parts_hold_every_client_once_and_join_again() {
        for parts in 1..=5 {
            let split = associations(5, 2).split(parts);
            assert_eq!(split.len(), parts);
            assert!(split.iter().all(|part| part.len() >= 5 / parts));
            let mut whole = Associations::join(split).expect("parts");
            assert_eq!((whole.len(), whole.cookies_left()), (5, 10));
            for client in 0..5 {
                assert_eq!(whole.c2s(client), [client as u8; 32]);
                assert_eq!(whole.s2c(client), [client as u8 + 100; 32]);
                assert_eq!(whole.take_cookie(client, CookieUse::Renew).cookie[0], client as u8);
            }
        }
    }

    #[test]
    fn too_many_clients_are_refused_in_one_sentence() {
        let error = Associations::empty(Algorithm::AesSivCmac256, 256, 8, usize::MAX / 4096);
        let text = error.err().expect("no machine has that").to_string();
        assert!(text.contains("--clients"), "{text}");
    }
}
