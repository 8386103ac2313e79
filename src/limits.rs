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

// aead

/// Random bytes that a nonce generator makes at a time: 256 blocks, so that the key schedule
/// (about 100 ns) costs less than half a nanosecond a nonce, and the buffer is one page.
pub const NONCE_BUFFER_BYTES: usize = 4096;

/// Refills of a nonce generator before the kernel keys it anew: every 64 MiB, so that a key stays
/// far from the 2⁶⁴ blocks where AES in counter mode can be told from random.
pub const NONCE_RESEED_REFILLS: u32 = 1 << 14;

/// Seconds before the kernel keys a nonce generator anew, however little it was used: a thief of
/// its state (a snapshot of a virtual machine) predicts nonces for no longer than this.
pub const NONCE_RESEED_SECONDS: u64 = 300;

const _: () = assert!(NONCE_BUFFER_BYTES.is_multiple_of(16) && NONCE_BUFFER_BYTES > 64);
