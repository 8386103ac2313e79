//! Who asks, as the places where his buckets are.

use super::Rate;
use super::buckets::Buckets;
use crate::networks::Address;

/// Where the buckets of a key are to be found: all of its budgets in one set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Home(u64);

impl Home {
    /// Which of so many sets, which are a power of two.
    #[inline]
    pub(super) fn set(self, sets: usize) -> usize {
        (self.0 >> u32::BITS) as usize & (sets - 1)
    }

    /// What tells the bucket from others in its set.
    #[inline]
    pub(super) fn tag(self, budget: Budget) -> u32 {
        self.0 as u32 ^ budget as u32
    }
}

/// What a key has a bucket for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Budget {
    Plain,
    Nts,
    Nak,
    Kiss,
    Cookie,
}

/// Who has sent a datagram: where the buckets are of the client and of the networks around it, an
/// IPv4 address and its /24, an IPv6 /64, its /56 and its /48. In an IPv4 network addresses are few
/// and have different owners; an IPv6 network is one owner's, who has more addresses than anybody
/// can count.
///
/// It is written and read in place, word by word: a copy is moved in other pieces, which a
/// processor cannot forward from one to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asker {
    levels: Levels,
    homes: [Home; 3],
    /// Of the request's cookie, if it has one.
    pub(super) cookie: Home,
}

/// The kind of a client.
#[derive(Clone, Copy, Debug, Default)]
enum Levels {
    /// It has no limits.
    #[default]
    None,
    Ipv4,
    Ipv6,
}

impl Asker {
    /// Lets it be a client without limits.
    #[inline(always)]
    pub(super) fn set_unlimited(&mut self) {
        self.levels = Levels::None;
    }

    /// Whether it has any.
    #[inline(always)]
    pub(super) fn is_unlimited(&self) -> bool {
        matches!(self.levels, Levels::None)
    }

    /// Lets it be `client`.
    #[inline(always)]
    pub(super) fn set(&mut self, client: Address, keys: &Keys) {
        match client {
            Address::Ipv4(bits) => {
                let bits = u64::from(bits);
                self.levels = Levels::Ipv4;
                self.homes[0] = keys.home(Kind::Ipv4, bits);
                self.homes[1] = keys.home(Kind::Ipv4Wide, bits >> 8);
            }
            Address::Ipv6(bits) => {
                let bits = (bits >> 64) as u64;
                self.levels = Levels::Ipv6;
                self.homes[0] = keys.home(Kind::Ipv6, bits);
                self.homes[1] = keys.home(Kind::Ipv6Wide, bits >> 8);
                self.homes[2] = keys.home(Kind::Ipv6Wider, bits >> 16);
            }
        }
    }

    /// Brings its buckets near.
    #[inline(always)]
    pub(super) fn touch(&self, buckets: &Buckets) {
        let [client, wide, wider] = self.homes;
        match self.levels {
            Levels::None => {}
            Levels::Ipv4 => buckets.touch([client, wide]),
            Levels::Ipv6 => buckets.touch([client, wide, wider]),
        }
    }

    /// Takes a token of each of its buckets, or none if one of them has none.
    #[inline(always)]
    pub(super) fn take(&self, buckets: &mut Buckets, budget: Budget, rate: &Rate) -> bool {
        let [client, wide, wider] = self.homes;
        match self.levels {
            Levels::None => true,
            Levels::Ipv4 => buckets.take([client, wide], budget, &rate.ipv4, rate.burst),
            Levels::Ipv6 => buckets.take([client, wide, wider], budget, &rate.ipv6, rate.burst),
        }
    }

    /// Takes a token of its cookie.
    #[inline(always)]
    pub(super) fn take_of_cookie(&self, buckets: &mut Buckets, rate: &Rate) -> bool {
        self.is_unlimited()
            || buckets.take([self.cookie], Budget::Cookie, &[rate.interval()], rate.burst)
    }
}

/// Finds homes. Strangers, who do not know its secret, cannot choose keys that meet.
#[derive(Debug)]
pub(super) struct Keys {
    /// Random.
    pub(super) secret: [u64; 2],
}

impl Keys {
    /// By the first half of a cookie's nonce, which is random: behind the key's identifier.
    #[inline(always)]
    pub(super) fn of_cookie(&self, cookie: &[u8]) -> Home {
        let nonce = cookie.get(4..12).and_then(|nonce| nonce.try_into().ok());
        self.home(Kind::Cookie, nonce.map_or(0, u64::from_ne_bytes))
    }

    /// As good as random for whoever does not know the secret. Folded once, keys that count up
    /// would leave one set in eight empty.
    #[inline(always)]
    fn home(&self, kind: Kind, key: u64) -> Home {
        let [first, second] = self.secret;
        let of_kind = second ^ (kind as u64).wrapping_mul(MULTIPLIER);
        Home(folded(folded(key ^ first, of_kind | 1), MULTIPLIER))
    }
}

/// What a key is one of.
#[derive(Clone, Copy)]
enum Kind {
    Ipv4,
    Ipv4Wide,
    Ipv6,
    Ipv6Wide,
    Ipv6Wider,
    Cookie,
}

/// Both halves of the product, so that every bit depends on all.
#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// An odd number without pattern (2⁶⁴ divided by the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that count up fill all sets alike: none has three times its share.
    #[test]
    fn keys_that_count_up_are_spread() {
        let keys = Keys { secret: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] };
        for stride in [1, 256, 1 << 16, 1 << 32, 1 << 48] {
            let mut shares = [0; 256];
            for number in 0..25_600_u64 {
                let home = keys.home(Kind::Ipv4, number.wrapping_mul(stride));
                shares[home.set(256)] += 1;
            }
            assert!(shares.iter().all(|share| (30..300).contains(share)), "{stride}: {shares:?}");
        }
    }

    #[test]
    fn kinds_and_budgets_have_buckets_of_their_own() {
        let keys = Keys { secret: [3, 5] };
        let homes = [Kind::Ipv4, Kind::Ipv4Wide, Kind::Ipv6, Kind::Ipv6Wide, Kind::Ipv6Wider]
            .map(|kind| keys.home(kind, 7));
        let budgets = [Budget::Plain, Budget::Nts, Budget::Nak, Budget::Kiss, Budget::Cookie];
        let mut tags: Vec<u32> =
            homes.iter().flat_map(|home| budgets.map(|budget| home.tag(budget))).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), homes.len() * budgets.len());
    }
}
