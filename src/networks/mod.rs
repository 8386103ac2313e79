//! Sets of addresses, given as networks: who is answered, and who has no limits.
//!
//! The longest prefix decides. That is a matter of making a set, not of looking into it: a set is
//! kept as the places where it begins and ends ([`ranges`]).

pub mod ranges;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use ranges::{Network, Ranges, edges_of};

/// A set of addresses of both families. An IPv4 address that is written as IPv6 (RFC 4291 section
/// 2.5.5.2) is an IPv4 one, and so is a network of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    ipv4: Ranges<u32, IPV4_KEYS>,
    /// The edges that are the first address of a /64, by the upper half of it: all, if no network
    /// is longer.
    ipv6: Ranges<u64, IPV6_KEYS>,
    /// The others. An address has as many edges that are not above it as these two have together,
    /// and is in the set if it is in one of them and not in the other.
    ipv6_narrow: Ranges<u128, IPV6_NARROW_KEYS>,
}

/// Keys that fill a cache line.
const IPV4_KEYS: usize = 16;
const IPV6_KEYS: usize = 8;
const IPV6_NARROW_KEYS: usize = 4;

/// An address as a number: what is looked up. An IPv4 address that is written as IPv6 is an IPv4
/// one. On the packet path it is read from where it lies: [`IpAddr`] is moved in pieces that a
/// processor cannot forward, which takes longer than a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Of 32 bits.
    Ipv4(u32),
    /// Of 128 bits.
    Ipv6(u128),
}

impl Address {
    #[inline(always)]
    fn of_ipv6(address: &Ipv6Addr) -> Self {
        const MAPPED_HIGH: u128 = 0xffff;
        match address.to_bits() {
            mapped if mapped >> 32 == MAPPED_HIGH => Self::Ipv4(mapped as u32),
            bits => Self::Ipv6(bits),
        }
    }
}

impl From<&SocketAddr> for Address {
    #[inline(always)]
    fn from(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::Ipv4(address.ip().to_bits()),
            SocketAddr::V6(address) => Self::of_ipv6(address.ip()),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address.to_bits()),
            IpAddr::V6(address) => Self::of_ipv6(&address),
        }
    }
}

/// A network that is to be in a set and not to be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is both allowed and denied; remove it from one of the lists")]
pub struct Conflict(pub IpNet);

impl NetworkSet {
    /// The addresses of `allow` without those of `deny`: of the networks that an address lies in
    /// the one with the longest prefix decides. An address that lies in none is not in the set.
    ///
    /// # Errors
    /// If a network is in both lists.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Result<Self, Conflict> {
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        let allowed = allow.iter().map(|network| (network, true));
        let denied = deny.iter().map(|network| (network, false));
        for (network, is_in) in allowed.chain(denied) {
            match canonical(network) {
                IpNet::V4(network) => ipv4.push(Network {
                    first: network.network().to_bits(),
                    last: network.broadcast().to_bits(),
                    is_in,
                }),
                IpNet::V6(network) => ipv6.push(Network {
                    first: network.network().to_bits(),
                    last: network.broadcast().to_bits(),
                    is_in,
                }),
            }
        }
        let conflict_ipv4 = |network: Network<u32>| {
            let bits = (network.first ^ network.last).leading_zeros();
            Conflict(IpNet::new_assert(IpAddr::V4(network.first.into()), bits as u8))
        };
        let conflict_ipv6 = |network: Network<u128>| {
            let bits = (network.first ^ network.last).leading_zeros();
            Conflict(IpNet::new_assert(IpAddr::V6(network.first.into()), bits as u8))
        };
        let ipv4 = edges_of(ipv4).map_err(conflict_ipv4)?;
        let ipv6 = edges_of(ipv6).map_err(conflict_ipv6)?;
        Ok(Self::from_edges(&ipv4, &ipv6))
    }

    /// Every address.
    pub fn everybody() -> Self {
        Self::from_edges(&[0], &[0])
    }

    /// No address.
    pub fn nobody() -> Self {
        Self::from_edges(&[], &[])
    }

    fn from_edges(ipv4: &[u32], ipv6: &[u128]) -> Self {
        let (wide, narrow): (Vec<u128>, Vec<u128>) =
            ipv6.iter().partition(|edge| **edge as u64 == 0);
        let wide: Vec<u64> = wide.iter().map(|edge| (edge >> 64) as u64).collect();
        Self {
            ipv4: Ranges::from_edges(ipv4),
            ipv6: Ranges::from_edges(&wide),
            ipv6_narrow: Ranges::from_edges(&narrow),
        }
    }

    /// Whether every address is in the set.
    pub fn is_everybody(&self) -> bool {
        self.ipv4.is_all() && self.ipv6.is_all() && self.ipv6_narrow.is_empty()
    }

    /// Whether `address` is in the set.
    #[inline(always)]
    pub fn contains(&self, address: impl Into<Address>) -> bool {
        match address.into() {
            Address::Ipv4(bits) => self.ipv4.contains(bits),
            Address::Ipv6(bits) => {
                self.ipv6.contains((bits >> 64) as u64) != self.ipv6_narrow.contains(bits)
            }
        }
    }

    /// What the set takes of memory.
    pub fn bytes(&self) -> usize {
        self.ipv4.bytes() + self.ipv6.bytes() + self.ipv6_narrow.bytes()
    }

    /// The set in words, for another process: how many edges of IPv4 there are, those, then those
    /// of IPv6 in two words each, the high one first.
    pub fn to_words(&self) -> Vec<u64> {
        let ipv4 = self.ipv4.edges().map(u64::from);
        let wide = self.ipv6.edges().map(|edge| u128::from(edge) << 64);
        let mut ipv6: Vec<u128> = wide.chain(self.ipv6_narrow.edges()).collect();
        ipv6.sort_unstable();
        let ipv6 = ipv6.into_iter().flat_map(|edge| [(edge >> 64) as u64, edge as u64]);
        [self.ipv4.edges().count() as u64].into_iter().chain(ipv4).chain(ipv6).collect()
    }

    /// What [`NetworkSet::to_words`] made; `None` for anything else.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let (count, words) = words.split_first()?;
        let (ipv4, ipv6) = words.split_at_checked(usize::try_from(*count).ok()?)?;
        let ipv4: Vec<u32> =
            ipv4.iter().map(|word| u32::try_from(*word).ok()).collect::<Option<_>>()?;
        let (ipv6, []) = ipv6.as_chunks::<2>() else { return None };
        let ipv6: Vec<u128> =
            ipv6.iter().map(|[high, low]| u128::from(*high) << 64 | u128::from(*low)).collect();
        let are_edges = ipv4.is_sorted_by(|a, b| a < b) && ipv6.is_sorted_by(|a, b| a < b);
        are_edges.then(|| Self::from_edges(&ipv4, &ipv6))
    }
}

/// An IPv4 network that is written as an IPv6 one, as what it is.
fn canonical(network: &IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let (address, bits) = (network.network().to_canonical(), network.prefix_len());
    match (network, address) {
        (IpNet::V6(_), IpAddr::V4(address)) if bits >= MAPPED_BITS => {
            Ipv4Net::new_assert(address, bits - MAPPED_BITS).into()
        }
        _ => *network,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn set(allow: &[&str], deny: &[&str]) -> NetworkSet {
        NetworkSet::new(&networks(allow), &networks(deny)).expect("no network is in both")
    }

    fn has(set: &NetworkSet, address: &str) -> bool {
        set.contains(address.parse::<IpAddr>().expect("an address"))
    }

    #[test]
    fn the_longest_prefix_decides() {
        let set = set(
            &["0.0.0.0/0", "192.0.2.128/25", "192.0.2.7/32", "2001:db8::/32"],
            &["192.0.2.0/24", "192.0.2.129/32", "2001:db8:1::/48"],
        );
        for (address, is_in) in [
            ("0.0.0.0", true),
            ("192.0.1.255", true),
            ("192.0.2.0", false),
            ("192.0.2.7", true),
            ("192.0.2.127", false),
            ("192.0.2.128", true),
            ("192.0.2.129", false),
            ("192.0.2.130", true),
            ("192.0.3.0", true),
            ("255.255.255.255", true),
            ("::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.8", false),
            ("::1", false),
            ("2001:db8::", true),
            ("2001:db8:0:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1::", false),
            ("2001:db8:2::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(has(&set, address), is_in, "{address}");
        }
    }

    #[test]
    fn mapped_networks_are_of_ipv4_and_ipv6_networks_are_not() {
        let mapped = set(&["::ffff:192.0.2.0/120"], &[]);
        assert_eq!(mapped, set(&["192.0.2.0/24"], &[]));
        assert!(!has(&set(&["::/0"], &[]), "192.0.2.1"));
        assert!(!has(&set(&["::/0"], &[]), "::ffff:192.0.2.1"));
        assert!(!has(&set(&["0.0.0.0/0"], &[]), "::c000:201"));
    }

    #[test]
    fn everybody_and_nobody() {
        let everybody = set(&["0.0.0.0/0", "::/0", "192.0.2.0/24"], &[]);
        assert_eq!(everybody, NetworkSet::everybody());
        assert!(everybody.is_everybody());
        assert_eq!(set(&[], &["192.0.2.0/24"]), NetworkSet::nobody());
        assert!(!has(&NetworkSet::nobody(), "255.255.255.255"));
        assert!(!set(&["0.0.0.0/0"], &[]).is_everybody());
    }

    #[test]
    fn a_network_in_both_lists_is_named() {
        for (one, other) in [("192.0.2.0/24", "192.0.2.9/24"), ("::1/128", "::1/128")] {
            let conflict = NetworkSet::new(&networks(&[one]), &networks(&[other]));
            assert_eq!(conflict, Err(Conflict(networks(&[one])[0])));
        }
    }

    #[test]
    fn words_that_no_set_was_written_to_are_refused() {
        for words in [&[][..], &[1], &[2, 7, 7], &[1, 1 << 32], &[0, 1], &[0, 0, 2, 0, 1]] {
            assert_eq!(NetworkSet::from_words(words), None, "{words:?}");
        }
    }

    /// What the set is held to: every network is asked.
    fn naive(allow: &[IpNet], deny: &[IpNet], address: IpAddr) -> bool {
        let longest = |list: &[IpNet]| {
            let around = list.iter().filter(|network| network.contains(&address));
            around.map(IpNet::prefix_len).max()
        };
        longest(allow) > longest(deny)
    }

    /// Few bits in few places, so that networks lie in each other, touch, and are met.
    fn any_address() -> impl Strategy<Value = IpAddr> {
        let few = prop::sample::select(vec![0, 1, 2, 127, 128, 254, 255u8]);
        let ipv4 = prop::array::uniform4(few.clone()).prop_map(IpAddr::from);
        let ipv6 = prop::array::uniform16(few).prop_map(IpAddr::from);
        prop_oneof![ipv4, ipv6]
    }

    fn any_network() -> impl Strategy<Value = IpNet> {
        (any_address(), any::<prop::sample::Index>()).prop_map(|(address, bits)| {
            let bits_max = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new_assert(address, bits.index(bits_max + 1) as u8).trunc()
        })
    }

    proptest! {
        #[test]
        fn a_set_decides_as_all_its_networks_do(
            allow in prop::collection::vec(any_network(), 0..80),
            deny in prop::collection::vec(any_network(), 0..80),
            addresses in prop::collection::vec(any_address(), 40),
        ) {
            let deny: Vec<IpNet> = deny.into_iter().filter(|net| !allow.contains(net)).collect();
            let set = NetworkSet::new(&allow, &deny).expect("no network is in both");
            let edges = allow.iter().chain(&deny).flat_map(|net| [net.network(), net.broadcast()]);
            // Mapped ones are IPv4, which the naive model does not know.
            let is_own = |address: &IpAddr| address.to_canonical() == *address;
            for address in edges.chain(addresses).filter(is_own) {
                let expected = naive(&allow, &deny, address);
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
            let copy = NetworkSet::from_words(&set.to_words());
            prop_assert_eq!(copy, Some(set));
        }
    }
}
