//! Every number of timeball: its name ends in its unit, its comment gives the reason.

/// Datagrams taken, answered and sent together. Prototypes showed no gain beyond 32, and the
/// batch has to stay inside the first-level cache.
pub const BATCH_DATAGRAMS: usize = 32;

/// Receive buffer of one datagram. The largest UDP payload on Ethernet, 1500 − 20 − 8: a longer
/// datagram is marked truncated by the kernel and dropped. 23 cache lines: odd, so that the
/// headers of a batch spread over all sets of the first-level cache.
pub const DATAGRAM_BYTES: usize = 1472;

/// Cookies in one reply or one NTS-KE answer at the most. RFC 8915 section 5.7: a client keeps
/// eight cookies and asks for no more than fill that store.
pub const COOKIES_PER_REPLY: usize = 8;

const _: () = assert!(DATAGRAM_BYTES % 64 == 0 && (DATAGRAM_BYTES / 64) % 2 == 1);
