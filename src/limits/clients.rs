//! Numbers of who is answered, and how often.

use std::ops::RangeInclusive;
use std::time::Duration;

// Access lists (src/networks, src/config/access.rs)

/// Networks in a list that stands in the configuration; more belong into a file of their own.
pub const ACCESS_NETWORKS_INLINE_MAX: usize = 1024;

/// Networks in all lists together: every route of the Internet. A process holds 9 bytes of each
/// IPv4 network, 18 of each IPv6 one, and 40 of one that is longer than /64, at the most.
pub const ACCESS_NETWORKS_MAX: usize = 1 << 20;

/// Longest file of networks: as many as there may be, with a comment each.
pub const ACCESS_FILE_BYTES_MAX: u64 = 1 << 26;

/// Networks that can be exempt from limits: a handful of proxies and translators, and this host.
pub const UNLIMITED_NETWORKS_MAX: usize = 64;

// Networks that ask most (src/page/busiest.rs)

/// Bits of an IPv4 network that is counted: the longest prefix that is announced, and short enough
/// to name nobody.
pub const BUSIEST_IPV4_BITS: u8 = 24;

/// The same of IPv6: what one site is given.
pub const BUSIEST_IPV6_BITS: u8 = 48;

/// Sets of networks that a worker counts. With their places and two periods they take 96 KiB. One
/// network in 2048 requests is likely to be seen through any flood.
pub const BUSIEST_SETS: usize = 256;

/// Places in a set: a cache line of networks.
pub const BUSIEST_SET_NETWORKS: usize = 8;

/// How long one table is counted in; the one before it is shown, too. Long enough that clients with
/// the usual poll of 64 s are seen by their rate, short enough for what happens now.
pub const BUSIEST_PERIOD: Duration = Duration::from_secs(600);

/// Networks that are told: what a person reads, and an answer of a few kilobytes.
pub const BUSIEST_TOLD: usize = 32;

// Rate limits (src/engine/rate)

/// Answers to plain requests that one IPv4 address or IPv6 /64 may have of one worker, unless
/// configured: 4000 clients behind one translator, at the usual poll of 64 s.
pub const RATE_REQUESTS_PER_SECOND_DEFAULT: f64 = 64.0;

/// The same for authentic requests.
pub const RATE_NTS_REQUESTS_PER_SECOND_DEFAULT: f64 = 64.0;

/// The same for NTS NAKs: a client needs one, and then asks key establishment.
pub const RATE_NAKS_PER_SECOND_DEFAULT: f64 = 4.0;

/// NTS NAKs of a worker to all who have a limit, per second and at once: a few hundredths of what
/// it can answer, so that a storm with forged addresses from everywhere costs little more than to
/// receive it. A million clients whose cookies are void, at the usual poll of 64 s, still have
/// theirs within two polls, and four million before they have used up their cookies.
pub const RATE_NAKS_PER_SECOND_ALL: u64 = 1 << 13;

/// Answers to one cookie, unless configured. Clients use a cookie once, or as long as they get no
/// answer; those that have no other use one again at each poll, which is 2 s at the shortest.
pub const RATE_COOKIE_USES_PER_SECOND_DEFAULT: f64 = 0.5;

/// What can be configured: from once a minute to more than one client can ask for; at the highest
/// rate a /24 still has a whole unit of time for each token.
pub const RATE_PER_SECOND: RangeInclusive<f64> = 1.0 / 60.0..=65_536.0;

/// Kisses for one client: it needs one.
pub const RATE_KISSES_PER_SECOND: f64 = 1.0;

/// One in so many requests beyond a limit is answered all the same, unless configured. Of a client
/// whose address somebody else uses up, a burst of 8 requests has an answer four times in ten.
pub const RATE_LEAK_DEFAULT: u32 = 16;

/// What can be configured: there is no locking out.
pub const RATE_LEAK_MAX: u32 = 1024;

/// A client that has been quiet may have what comes in so long a time at once, but these many
/// requests at least: `iburst` sends eight.
pub const RATE_BURST: Duration = Duration::from_secs(2);
/// See [`RATE_BURST`].
pub const RATE_BURST_REQUESTS: u32 = 8;

/// An IPv4 /24 may have as much as so many of its addresses.
pub const RATE_WIDE_IPV4: u32 = 16;

/// An IPv6 /56, which providers give to one customer, may have as much as so many of its /64s.
pub const RATE_WIDE_IPV6: u32 = 4;

/// And an IPv6 /48, the most that one site is given (RFC 6177).
pub const RATE_WIDER_IPV6: u32 = 16;

/// Buckets of one set: a cache line of them.
pub const RATE_SET_BUCKETS: usize = 8;

/// Sets of a worker's buckets for what strangers send, 512 KiB: room for the two buckets of each of
/// two million forged requests a second, which are full again after 1/64 s.
pub const RATE_STRANGER_SETS: usize = 8192;

/// The same for authentic requests, 256 KiB. A cookie's bucket is full again after 2 s, so at more
/// than 16,000 requests a second the oldest are forgotten sooner; not those of a replay.
pub const RATE_CLIENT_SETS: usize = 4096;

/// No bucket lacks more than this: eight requests at the lowest rate.
pub const RATE_DEBT_MAX: Duration = Duration::from_secs(512);

// How the numbers depend on each other.

const _: () = assert!(RATE_BURST_REQUESTS as u64 * 60 <= RATE_DEBT_MAX.as_secs());
const _: () = assert!(RATE_BURST.as_secs() <= RATE_DEBT_MAX.as_secs());
