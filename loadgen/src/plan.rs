//! What is offered: checked numbers, ready to be used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{QUIET_DEFAULT, REQUESTS_MAX_DEFAULT, TIMEOUT_DEFAULT};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The NTP server.
    pub target: SocketAddr,
    /// What is asked.
    pub ask: Ask,
    /// Requests per second, of all threads together.
    pub rate_per_second: f64,
    /// How they are spread over time.
    pub shape: Shape,
    /// How long requests are offered.
    pub duration: Duration,
    /// Requests at the most.
    pub requests_max: u64,
    /// When an answer is late.
    pub timeout: Duration,
    /// Silence that ends a run in which nothing is waited for any more.
    pub quiet: Duration,
    /// Processors of the threads, or `None` for one that is not pinned. Their number is that of
    /// the threads.
    pub cpus: Vec<Option<usize>>,
    /// Addresses that requests leave from; the kernel chooses if there is none.
    pub sources: Option<Prefix>,
    /// Sockets, and so source ports, of each thread.
    pub ports_per_thread: usize,
    /// The first of all these ports, the others follow it; the kernel chooses if there is none.
    pub source_port: Option<u16>,
    /// Datagrams that the kernel may cut from one message; 1 is without `UDP_SEGMENT`.
    pub segments: usize,
    /// One of how many answers is authenticated; 0 for none.
    pub verify_every: u64,
    /// Makes random spacing repeatable.
    pub seed: u64,
    /// Clients ask in interleaved mode (RFC 9769) once they have had an answer.
    pub interleaved: bool,
    /// What is wrong with the requests.
    pub twist: Twist,
}

/// What is done to requests that are ready to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Twist {
    /// Nothing: they are honest.
    #[default]
    None,
    /// A bit of the cookie is flipped: the server cannot open it.
    BadCookie,
    /// A bit of the tag is flipped: the server opens the cookie in vain.
    BadTag,
    /// Each is sent twice, byte for byte.
    Replay,
    /// Random bytes, but for the timestamp that an answer would be known by.
    Junk,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// 48 bytes of NTP.
    Ntp,
    /// NTS, with so many placeholders.
    Nts(Placeholders, CookieUse),
}

/// How many cookies a request asks for beside the one in return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placeholders {
    /// Always so many, 0 to 7.
    Fixed(u8),
    /// As many as the client misses (RFC 8915 section 5.7).
    Missing,
}

/// What becomes of cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookieUse {
    /// Each is used once, and those of answers are kept, as clients do.
    Renew,
    /// Each client replays its first.
    Replay,
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// At equal distances.
    Constant,
    /// At random: independent clients.
    Poisson,
    /// From the rate to this one, linearly.
    Ramp {
        /// Requests per second at the end.
        to_per_second: f64,
    },
    /// So many at a time.
    Burst {
        /// Requests of one burst.
        requests: u64,
    },
}

impl Plan {
    /// A plan with the defaults of the command line: one thread that is not pinned.
    pub fn new(target: SocketAddr, ask: Ask, rate_per_second: f64, duration: Duration) -> Self {
        Self {
            target,
            ask,
            rate_per_second,
            shape: Shape::Constant,
            duration,
            requests_max: REQUESTS_MAX_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            quiet: QUIET_DEFAULT,
            cpus: vec![None],
            sources: None,
            ports_per_thread: 1,
            source_port: None,
            segments: 1,
            verify_every: 1,
            seed: 1,
            interleaved: false,
            twist: Twist::None,
        }
    }

    /// The highest rate that the plan comes to.
    pub fn peak_per_second(&self) -> f64 {
        match self.shape {
            Shape::Ramp { to_per_second } => self.rate_per_second.max(to_per_second),
            _ => self.rate_per_second,
        }
    }
}

/// A network, as `10.200.0.0/16` or `2001:db8::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    base: IpAddr,
    length_bits: u8,
}

impl Prefix {
    /// How many addresses requests leave from; of a large IPv6 prefix the first 2³².
    pub fn addresses(&self) -> u64 {
        1 << (self.width_bits() - self.length_bits).min(32)
    }

    /// The address with this number, modulo their count.
    pub fn address(&self, number: u64) -> IpAddr {
        let offset = number % self.addresses();
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) | offset as u32).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) | u128::from(offset)).into(),
        }
    }

    fn width_bits(&self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }
}

/// What is wrong with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no network: write 10.200.0.0/16 or 2001:db8::/64, host bits zero")]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (base, length) = text.split_once('/').ok_or_else(error)?;
        let base: IpAddr = base.parse().map_err(|_| error())?;
        let length_bits: u8 = length.parse().map_err(|_| error())?;
        let prefix = Self { base, length_bits };
        if length_bits > prefix.width_bits() {
            return Err(error());
        }
        let host_bits = u32::from(prefix.width_bits() - length_bits);
        let bits = match base {
            IpAddr::V4(base) => u128::from(u32::from(base)),
            IpAddr::V6(base) => u128::from(base),
        };
        let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
        if bits & mask == 0 { Ok(prefix) } else { Err(error()) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.base, self.length_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_count_through_their_addresses_and_round() {
        let prefix: Prefix = "127.1.0.0/16".parse().expect("a prefix");
        assert_eq!(prefix.addresses(), 65_536);
        assert_eq!(prefix.address(0x0203).to_string(), "127.1.2.3");
        assert_eq!(prefix.address(65_536 + 1).to_string(), "127.1.0.1");
        let prefix: Prefix = "2001:db8::/64".parse().expect("a prefix");
        assert_eq!(prefix.addresses(), 1 << 32);
        assert_eq!(prefix.address(0xffff_ffff).to_string(), "2001:db8::ffff:ffff");
        let single: Prefix = "192.0.2.7/32".parse().expect("a prefix");
        assert_eq!((single.addresses(), single.address(9).to_string()), (1, "192.0.2.7".into()));
        assert_eq!("::/0".parse::<Prefix>().expect("a prefix").addresses(), 1 << 32);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.0.0.0", "10.0.0.1/16", "10.0.0.0/33", "::1/64", "a/8", "::/129"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
    }
}
