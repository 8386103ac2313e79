//! Every number of timeball-load: its name ends in its unit, its comment gives the reason.

use std::ops::RangeInclusive;
use std::time::Duration;

// What can be asked for (src/plan.rs, src/cli)

/// Requests per second that can be asked for: more than any one machine offers.
pub const RATE_PER_SECOND_MAX: f64 = 100e6;

/// Longest run. Every run ends by itself.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Requests of one run at the most, unless told: a week-end's mistake stays small.
pub const REQUESTS_MAX_DEFAULT: u64 = 10_000_000_000;

/// Clients that can be simulated.
pub const CLIENTS: RangeInclusive<usize> = 1..=10_000_000;

/// Clients with an association of their own, unless told: their keys and cookies do not stay in a
/// second-level cache of the server.
pub const CLIENTS_MINTED_DEFAULT: usize = 16_384;

/// Clients that do key establishment, unless told: it costs a server a hundred times an answer.
pub const CLIENTS_HARVESTED_DEFAULT: usize = 64;

/// Threads that offer load.
pub const THREADS: RangeInclusive<usize> = 1..=64;

/// Sockets, and so source ports, of one thread: what one `poll` can look at cheaply.
pub const PORTS_PER_THREAD: RangeInclusive<usize> = 1..=64;

/// Time after which an answer is late, unless told: ntpd and chrony wait about so long.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Timeouts that can be asked for.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30);

// The loop (src/pump.rs)

/// Requests written, sealed and sent together: one window of the batched cryptography.
pub const BATCH_REQUESTS: usize = 64;

/// Datagrams that the kernel cuts from one message (`UDP_SEGMENT`) unless told: all that are due.
/// On loopback 64 offered 2.4 million plain requests a second, 16 only 1.9 million.
pub const SEGMENTS_DEFAULT: usize = 64;

/// Datagrams of one message: `UDP_MAX_SEGMENTS` of kernels before 6.9.
pub const SEGMENTS: RangeInclusive<usize> = 1..=64;

/// Receive calls between two looks at the schedule: sending on time goes before receiving, because
/// arrival is stamped by the kernel.
pub const RECEIVES_PER_TURN: usize = 4;

/// The thread spins when the next request is due within this time: a sleep may take that much
/// longer than it was asked to.
pub const SPIN: Duration = Duration::from_micros(100);

/// Longest wait for a datagram: how soon a thread hears that it shall stop.
pub const WAIT_MAX: Duration = Duration::from_millis(20);

/// After the last request, a run ends when nothing is waited for and nothing came for this time:
/// duplicates come right behind their answer.
pub const QUIET_DEFAULT: Duration = Duration::from_millis(50);

/// How long requests that are behind their time are still sent after the last was due.
pub const OVERTIME: Duration = Duration::from_millis(100);

/// From the start of the threads to the first request: all of them are ready by then.
pub const HEAD_START: Duration = Duration::from_millis(20);

/// An answer is waited for in multiples of the timeout: as late in the second one, as lost after.
pub const WINDOW_TIMEOUTS: u32 = 2;

/// Requests in flight of one thread at the most: 64 Mi at 16 bytes each are 1 GiB.
pub const FLIGHT_MAX: usize = 1 << 26;

/// Buffers of the sockets: answers of 20 ms at a million a second, at the kernel's 832 bytes each.
pub const SOCKET_BUFFER_BYTES: u32 = 16 << 20;

// What is recorded (src/record.rs, src/run.rs)

/// Longest time that a histogram tells apart, in nanoseconds; longer ones count as this.
pub const HISTOGRAM_MAX_NS: u64 = 60_000_000_000;

/// Significant figures of a histogram: a value is known to 0.1 %.
pub const HISTOGRAM_FIGURES: u8 = 3;

/// How often a thread hands over what it recorded.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// A request that leaves later than this after it was due lags: more than a server's answer takes,
/// so the latency says more about the generator.
pub const SEND_LAG_MAX: Duration = Duration::from_millis(1);

/// How often progress is shown, and a stop is noticed.
pub const TICK: Duration = Duration::from_millis(100);

/// Share of lagging requests above which a run says more about the generator than the server. A
/// shared machine takes the processor away now and then.
pub const LAGGING_SHARE_MAX: f64 = 0.01;

// The self-test (src/reflector.rs)

/// Its duration at the planned rate.
pub const SELF_TEST_DURATION: Duration = Duration::from_millis(300);

/// Clients of the self-test: enough to miss the caches as the run will.
pub const SELF_TEST_CLIENTS: usize = 4096;

/// Requests of its first part, all of which have to be answered and authentic.
pub const SELF_TEST_REQUESTS: u64 = 200;

/// Their rate: no machine is too slow for it.
pub const SELF_TEST_RATE_PER_SECOND: f64 = 2_000.0;

/// Requests of each thread that ask whether the server is there at all.
pub const PROBE_REQUESTS: u64 = 3;

// Key establishment (src/associations/harvest.rs, src/cli/ke.rs)

/// Exchanges at a time, unless told.
pub const KE_CONCURRENCY_DEFAULT: usize = 8;

/// Exchanges at a time that can be asked for; each has a thread.
pub const KE_CONCURRENCY: RangeInclusive<usize> = 1..=4096;

/// Time of one exchange, unless told.
pub const KE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Longest sleep of a thread whose exchange is not due yet: how soon it hears that it shall stop.
pub const KE_SLEEP: Duration = Duration::from_millis(20);

/// Time between two bytes of a slow connection: slower than any server should bear for long.
pub const SLOW_BYTE_INTERVAL: Duration = Duration::from_secs(1);

/// Share of its processors above which the generator was the limit.
pub const GENERATOR_SHARE_MAX: f64 = 0.95;

// Searching (src/search.rs)

/// The search ends when its limits are this close, unless told: about the noise of a quiet rig.
pub const SEARCH_RESOLUTION_DEFAULT: f64 = 0.02;

/// Searches of which the median is taken, unless told.
pub const SEARCH_REPEATS_DEFAULT: usize = 3;

/// Share of the planned rate that has to have left for a trial to count.
pub const OFFERED_SHARE_MIN: f64 = 0.99;

/// How often a trial is made again when it failed and the generator had a part in it: others may
/// have had its processor for a moment.
pub const TRIAL_REPEATS: usize = 2;

/// Shares of what was found at which the latency is taken.
pub const LATENCY_SHARES: [f64; 4] = [0.5, 0.8, 0.9, 1.0];

/// Shares of what was found that the overload curve is made of.
pub const SWEEP_SHARES: [f64; 7] = [0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0];

const _: () = assert!(*SEGMENTS.end() * timeball::limits::DATAGRAM_BYTES > u16::MAX as usize);
const _: () = assert!(BATCH_REQUESTS >= *SEGMENTS.end());
