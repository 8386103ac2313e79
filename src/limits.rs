//! Every number of timeball: its name ends in its unit, its comment gives the reason. Those of the
//! command line and of the host are in [`commands`], those of who is answered in [`clients`].

pub mod commands;

pub mod clients;

pub mod hardware;

use std::time::Duration;

// Packets (src/wire, src/engine, src/client.rs)

/// Datagrams taken, answered and sent together. Prototypes showed no gain beyond 32, and the
/// batch has to stay inside the first-level cache.
pub const BATCH_DATAGRAMS: usize = 32;

/// Datagrams that the mmsg port takes at first. Batches double while they come full.
pub const BATCH_DATAGRAMS_FIRST: usize = 2;

/// Receive buffer of one datagram. The largest UDP payload on Ethernet, 1500 − 20 − 8: a longer
/// datagram is marked truncated by the kernel and dropped. 23 cache lines: odd, so that the
/// headers of a batch spread over all sets of the first-level cache.
pub const DATAGRAM_BYTES: usize = 1472;

/// Cookies in one reply or one NTS-KE answer at the most. RFC 8915 section 5.7: a client keeps
/// eight cookies and asks for no more than fill that store.
pub const COOKIES_PER_REPLY: usize = 8;

/// The longest cookie a client keeps; chrony's limit, and more than any cookie of ours.
pub const COOKIE_BYTES_MAX: usize = 256;

/// A cookie's length is a multiple of this, or chrony's client refuses it; NTP extension fields
/// have the same granularity (RFC 7822 section 3).
pub const COOKIE_BYTES_MULTIPLE: usize = 4;

/// The port of NTP servers (RFC 5905 section 7.2).
pub const NTP_PORT: u16 = 123;

// Cryptography and keys (src/aead, src/cookie)

/// The longest nonce that we generate: AES-SIV's.
pub const NONCE_BYTES_MAX: usize = 16;

/// Random bytes that a nonce generator makes at a time: 256 blocks, so that the key schedule
/// (about 100 ns) costs less than half a nanosecond a nonce, and the buffer is one page.
pub const NONCE_BUFFER_BYTES: usize = 4096;

/// Refills of a nonce generator before the kernel keys it anew: every 64 MiB, so that a key stays
/// far from the 2⁶⁴ blocks where AES in counter mode can be told from random.
pub const NONCE_RESEED_REFILLS: u32 = 1 << 14;

/// Seconds before the kernel keys a nonce generator anew, however little it was used: a thief of
/// its state (a snapshot of a virtual machine) predicts nonces for no longer than this.
pub const NONCE_RESEED_SECONDS: u64 = 300;

/// Master keys in the ring: two previous, current, next. Part of chrony's `ntskeys` format.
pub const RING_KEYS: usize = 4;

/// How often a new master key is made, unless configured: chrony's week. A cookie lives for two to
/// three of these, so a client that sleeps for less than a fortnight needs no new key
/// establishment.
pub const KEY_ROTATION_DEFAULT: Duration = Duration::from_secs(7 * 86_400);

/// What can be configured. A client may poll as seldom as once in 36 hours (poll 17); below an hour
/// even clients at poll 10 would lose their cookies while they sleep. Above a year a key that leaks
/// opens too much.
pub const KEY_ROTATION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(366 * 86_400);

/// How long until a key file that could not be written is tried again: soon after somebody has
/// freed space, and one message a minute until then.
pub const KEY_FILE_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// How long the supervisor waits for the disk when it writes the key file. A disk at rest takes
/// milliseconds; twice this is far below CONTROL_ANSWER_WAIT and the service's WatchdogSec of 30 s.
pub const KEY_FILE_WRITE_WAIT: Duration = Duration::from_secs(1);

/// How often a key file that another program replaces is looked at: one stat(2) a second. Servers
/// that share a ring all have its next key for an interval before one of them uses it, so it need
/// not be oftener.
pub const KEY_FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// C2S and S2C of the AEAD with the longest keys, AES-SIV-CMAC-512.
pub const CLIENT_KEYS_BYTES_MAX: usize = 128;

// The clock (src/clock, src/engine/departure.rs)

/// How often the host's clock is looked at. Between looks its dispersion grows by calculation,
/// and a leap announcement or lost synchronisation reaches clients within this time.
pub const CLOCK_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Growth of the error bound in `kernel` mode, seconds per second: the kernel's own MAXFREQ,
/// by which it lets `maxerror` grow.
pub const KERNEL_DISPERSION_RATE: f64 = 500e-6;

/// Growth of the error bound in `local` mode between looks, seconds per second: PHI of RFC 5905.
pub const LOCAL_DISPERSION_RATE: f64 = 15e-6;

/// How long the last word of a source is good for, unless configured. The source's own growth of
/// the error bound, some parts per million, comes to about 10 ms in that time.
pub const CLOCK_HOLDOVER_DEFAULT: Duration = Duration::from_secs(3600);

/// What can be configured: at the least one poll of the source that goes unanswered, at the most
/// what a quartz clock takes to be off by a second.
pub const CLOCK_HOLDOVER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(7 * 86_400);

/// By how much chronyd's reply and its report may differ beyond what the round trip explains, in
/// seconds. A busy machine delays one way of a query on loopback by some milliseconds, and the
/// fastest slew moves the clock by 0.1 s in a second. A daemon of another clock is off by more.
pub const FOLLOW_AGREEMENT_SECONDS: f64 = 0.1;

/// By how much the time of a followed daemon without a report may be off the system's, in seconds.
/// Daemons slew up to 0.128 s (ntpd's step threshold) and step beyond, or slew for long.
pub const FOLLOW_OFF_SECONDS: f64 = 0.5;

/// From so much on a smoothed time is told as one, in seconds: chronyd's own replies do so from the
/// precision of its clock on, which is less.
pub const FOLLOW_SMOOTHED_MIN_SECONDS: f64 = 1e-6;

/// Growth of the error bound of a followed daemon without a report, seconds per second: PHI of
/// RFC 5905.
pub const FOLLOW_DISPERSION_RATE: f64 = 15e-6;

/// The fastest slew, seconds per second: chronyd's `maxslewrate` is 1/12 by default, the kernel's
/// limit 0.1.
pub const FOLLOW_SLEW_RATE_MAX: f64 = 0.1;

/// Corrections further apart say nothing about the rate of a slew.
pub const FOLLOW_CORRECTION_AGE_MAX: Duration = Duration::from_secs(4);

/// How long a followed daemon may take to answer: on loopback it takes a millisecond, on a busy
/// machine some more. Within a look's interval, so that one is judged before the next.
pub const FOLLOW_ANSWER_WAIT: Duration = Duration::from_millis(250);

/// Longest answer that is read from a followed daemon, in bytes: more than any that is good.
pub const FOLLOW_ANSWER_BYTES: usize = 256;

/// The smallest step of the clock that is told from two readings of different clocks, in seconds.
pub const CLOCK_STEP_MIN_SECONDS: f64 = 1e-3;

/// Readings of the two clocks, if the process is kept from running between them.
pub const MOMENT_ATTEMPTS: usize = 8;

/// Readings of the clock that measure its precision: enough to meet an undisturbed pair.
pub const PRECISION_READINGS: usize = 1000;

/// Seconds of a day, of which a leap second is announced on the last one.
pub const DAY_SECONDS: i64 = 86_400;

/// How long a leap second that is past concerns a clock, in seconds: until noon.
pub const LEAP_AFTER_SECONDS: i64 = 43_200;

/// A smear lasts for so long before and after its leap second, in seconds: from noon to noon of
/// UTC, as the public servers of Google and AWS do it, so that clients may ask them and us.
pub const LEAP_SMEAR_HALF_SECONDS: f64 = LEAP_AFTER_SECONDS as f64;

/// How far a step of the clock may be off a second and be a leap second, in seconds. A daemon that
/// corrects the clock at the same time does so by less.
pub const LEAP_STEP_TOLERANCE_SECONDS: f64 = 0.1;

/// A source may announce a leap second for so long before it, in seconds, and agree with a list: a
/// month, as sources did before RFC 5905.
pub const LEAP_CONFLICT_SECONDS: f64 = 32.0 * 86_400.0;

/// So close to a leap second a clock is looked at before every batch, in units of 2⁻³² s: two
/// seconds, in which a look is one too old.
pub const LEAP_LOOK: u64 = 2 << 32;

/// So close to an inserted leap second the time that a clock shows does not say whether it has made
/// it, in seconds: it shows the last second before it twice, and some milliseconds after it until
/// the kernel looks, and may be corrected by some more.
pub const LEAP_DOUBT_SECONDS: f64 = 1.5;

/// Longest leap-seconds file that is read, in bytes. It has 5 KiB after 27 leap seconds.
pub const LEAP_FILE_BYTES_MAX: u64 = 1 << 16;

/// Replies of a followed daemon that one line of statistics is of: a minute's.
pub const STATISTICS_MEASUREMENTS: usize = 60;

/// Lines of logs that wait for a slow disk: of 20 seconds, with all logs on.
pub const LOG_LINES_WAITING: usize = 64;

/// Stratum in `kernel` mode: that of a client of a pool server, which is what most hosts are.
pub const KERNEL_STRATUM_DEFAULT: u8 = 3;

/// Stratum in `local` mode: chrony's, so low in rank that any real source is preferred.
pub const LOCAL_STRATUM_DEFAULT: u8 = 10;

/// What one batch's departure teaches: a sixteenth of what the estimate was off, as a shift.
/// Steady enough for a mean, and follows a change of load within some dozens of batches.
pub const DEPARTURE_GAIN_SHIFT: u32 = 4;

/// Longest departure that is taken for one, in units of 2⁻³² s: 1 ms. A batch takes 0.1 ms; more
/// is a worker that was not let run, or a clock that was stepped.
pub const DEPARTURE_SPAN_MAX: i64 = (1 << 32) / 1000;

/// How far ahead of the clock's reading the departure of a lone reply is named at the most, in
/// units of 2⁻³² s: 61 µs. It takes some 5 µs, and some 20 µs on a processor that wakes up or is
/// slow; what takes longer was interrupted, and a timestamp that is too late hides from a client
/// how far it may be off. Of so many replies, so many times as far.
pub const DEPARTURE_AHEAD_REPLY_MAX: i64 = 1 << 18;

/// The same of any reply, in units of 2⁻³² s: 0.24 ms, twice what a full batch takes.
pub const DEPARTURE_AHEAD_MAX: i64 = 1 << 20;

/// How far a departure may exceed its estimate and count in full, however small the estimate is,
/// in units of 2⁻³² s: 1 µs, so that an estimate starts from nothing in some dozens of batches.
pub const DEPARTURE_NOISE: i64 = (1 << 32) / 1_000_000;

/// Where one kind of rest between two batches ends and the next begins, in units of 2⁻³² s: 31 µs,
/// below which the worker has not slept; 0.24 ms, below which its processor's caches are as it left
/// them; 2 ms, from which on it has slept as deeply as it will.
pub const DEPARTURE_RESTS: [u64; 3] = [1 << 17, 1 << 20, 1 << 23];

/// Pairs of timestamps that each worker keeps for clients in interleaved mode, unless configured:
/// 16 bytes each, 256 KiB, which the second-level cache holds. A client needs one; those that use
/// the mode are few among the public, and a network's own clients are rarely more.
pub const INTERLEAVED_ENTRIES_DEFAULT: usize = 1 << 14;

/// What can be configured: 32 MiB a worker.
pub const INTERLEAVED_ENTRIES_MAX: usize = 1 << 21;

/// A transmit timestamp of the kernel is this much later than the arrival of the request at the
/// most, in units of 2⁻³² s: 1 s. A reply that took longer is no use to its client; a timestamp
/// that is further off belongs to another reply, or the clock was stepped.
pub const INTERLEAVED_DEPARTURE_MAX: i64 = 1 << 32;

/// What counts as a step of the clock, in units of 2⁻³² s: 0.1 ms, twice what two readings of
/// clocks may be apart, or they are taken again, and no more than a client on the internet sees
/// from its own network.
pub const CLOCK_STEP_MIN: u64 = (1 << 32) / 10_000;

// Sockets (src/net, src/sys)

/// Control messages of one datagram: a timestamp (32 bytes), one by hardware with its frame (64 and
/// 32), an IPv6 packet information (40) and a count of drops (24); or of one in the error queue,
/// the timestamps and an IPv6 error (64). The kernel writes what there is, mostly 32 or 64 bytes.
pub const CONTROL_BYTES: usize = 192;

/// Receive buffer of a socket, unless configured. The kernel takes it twice and counts 832 bytes
/// for a plain request, 1280 for one with NTS: room for 2,500 or 1,600, which come in 4 to 6 ms at
/// 400,000 a second. Its own default lasts 0.6 ms, less than a worker may be kept from running.
/// Waiting costs clients no accuracy, since arrival is stamped before it.
pub const RECEIVE_BUFFER_BYTES_DEFAULT: u32 = 1 << 20;

/// Send buffer of a socket, unless configured. A reply counts until its device has sent it: room
/// for the 1000 that a device's queue has by default.
pub const SEND_BUFFER_BYTES_DEFAULT: u32 = 1 << 20;

/// Buffers that can be configured: from one datagram to what the kernel can count twice.
pub const SOCKET_BUFFER_BYTES: std::ops::RangeInclusive<u32> = 4096..=1 << 29;

/// Addresses that a server can listen on.
pub const ADDRESSES_MAX: usize = 64;

/// Sockets of one worker: of each address one for NTS requests and one for all else.
pub const SOCKETS_PER_WORKER: usize = 2 * ADDRESSES_MAX;

/// Other datagrams that are answered together right after NTS requests: some 12 µs of work, which
/// is how long the next may have to wait for them. An eighth of a batch: where both want more than
/// there is, NTS requests get eight ninths, and nobody can have all by sending what looks like NTS.
/// With 8, NTS clients waited half as long again beside a flood (`benches/versus/run --isolation`);
/// with 2, a sixth less of the flood was answered, as `timeball serverstats` counted it.
pub const BITE_DATAGRAMS_FIRST: usize = 4;

/// To how many these bites grow while no NTS request comes between them: some 25 µs of work.
pub const BITE_DATAGRAMS: usize = 8;

/// Turns without an NTS request after which other datagrams are taken in batches again: about a
/// millisecond of bites.
pub const BITES_AFTER_NTS: u32 = 32;

/// Worker threads of one responder: more than any one machine that a single configuration serves.
pub const WORKERS_MAX: usize = 256;

/// An idle worker wakes this often to look at its clock: no oftener than the clock is looked at.
pub const SWEEP_INTERVAL: Duration = CLOCK_LOOK_INTERVAL;

/// How long an idle worker polls before it sleeps, in profile "appliance": longer than the gap
/// between requests at 20,000 a second, so that a light load still lets the processor sleep.
pub const BUSY_POLL_APPLIANCE: Duration = Duration::from_micros(50);

/// Polling times that can be configured, in microseconds; the longest is a millisecond, beyond
/// which sleeping costs nothing that a client could notice.
pub const BUSY_POLL_MICROSECONDS: std::ops::RangeInclusive<u32> = 0..=1000;

/// Datagrams that the kernel takes from an interface's queue each time it is polled. Two such
/// turns are a batch: it polls once more when it ends.
pub const BUSY_POLL_BUDGET: u16 = 16;

/// How long replies wait for room in a full send buffer before they are dropped. Longer than a
/// device needs to drain its queue, shorter than a client waits.
pub const SEND_BUFFER_WAIT: Duration = Duration::from_millis(10);

/// Replies of one socket whose transmit timestamps may still come: two batches, as those of one are
/// asked for before those of the batch before it are given up. A power of two.
pub const STAMPS_IN_FLIGHT: usize = 64;

/// How often a worker looks for transmit timestamps that do not come: after the batch itself, and a
/// few more, which take an interface longer than it takes to send them. Each look is a system call.
pub const STAMP_LOOKS: u32 = 8;

/// How long a socket waits for its first transmit timestamp before it asks for another one: an
/// interface that stamps does so in milliseconds, and one that does not is asked once in this time.
pub const STAMP_WAIT: Duration = Duration::from_secs(1);

/// Receive buffers that one ring offers to the kernel. The kernel takes some 32 datagrams of one
/// socket at a time, and leaves the others in the socket's own buffer until it is asked again, so
/// this is room for eight batches in flight. They are used in turn: more would only drive more of
/// the second-level cache out (these are 432 KiB). A power of two, as the kernel wants it.
pub const URING_BUFFERS: usize = 256;

/// Operations that can wait for one `io_uring_enter`: a batch of replies, and every socket's
/// receive and the waking to be armed again. A power of two, as the kernel makes it.
pub const URING_SUBMISSIONS: usize = 256;

/// Completions that can wait to be looked at. See the assertion at the end for what they are.
pub const URING_COMPLETIONS: usize = 1024;

/// How often the kernel is asked again to take operations that it has no memory for. It frees
/// memory in between, so a second time is rare; after so many the ring counts as broken.
pub const URING_SUBMIT_ATTEMPTS: usize = 1000;

// Key establishment (src/ke, src/wire/ke.rs)

/// The port of NTS-KE servers (RFC 8915 section 7.1).
pub const NTS_KE_PORT: u16 = 4460;

/// Total time of one NTS-KE connection from accept to answer, unless configured. chrony's value;
/// an honest client needs three to four round trips.
pub const KE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// Timeouts that can be configured.
pub const KE_TIMEOUT_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=60.0;

/// Time for a client to close after our answer, before the connection is dropped. Closing at once
/// would answer its close_notify with a reset, which can destroy the answer on its way.
pub const KE_LINGER: Duration = Duration::from_millis(500);

/// NTS-KE connections held at once by all processes, unless configured. Idle ones cost some 2 KiB
/// each; at the worst each holds a handshake of `KE_HANDSHAKE_BYTES_MAX`, 64 MiB together.
pub const KE_CONNECTIONS_DEFAULT: usize = 2048;

/// What can be configured; each connection costs a descriptor and a TLS state.
pub const KE_CONNECTIONS_MAX: usize = 65_536;

/// The network that IPv4 clients are counted under: the smallest that is routed on the Internet, so
/// that whoever has less cannot make more of it.
pub const KE_PREFIX_BITS_IPV4: u32 = 24;

/// The same for IPv6: what providers commonly give one customer (RFC 6177). With 64 such a customer
/// would have 256 buckets; with 48 some providers' customers would share one.
pub const KE_PREFIX_BITS_IPV6: u32 = 56;

/// Handshakes per second of one prefix, unless configured. A client comes once in days, so this is
/// a prefix of which every host comes at once every five seconds; and it is a hundredth of what one
/// processor does.
pub const KE_PREFIX_HANDSHAKES_PER_SECOND_DEFAULT: f64 = 50.0;

/// What can be configured: from a handshake a minute to more than a machine does.
pub const KE_PREFIX_HANDSHAKES_PER_SECOND: std::ops::RangeInclusive<f64> = 1.0 / 60.0..=1e6;

/// A prefix that has been quiet for so long may come with all at once: 250 clients by default, as
/// after a power failure.
pub const KE_PREFIX_BURST: Duration = Duration::from_secs(5);

/// Connections of one prefix at one time, unless configured: an eighth of all, and a whole IPv4
/// prefix.
pub const KE_PREFIX_CONNECTIONS_DEFAULT: usize = KE_CONNECTIONS_DEFAULT / 8;

/// Buckets of one set: a cache line of them.
pub const KE_PREFIX_SET_BUCKETS: usize = 4;

/// Sets of buckets in one process, 256 KiB. A bucket is in use until it is full again, 5 s at the
/// longest: room for what 3000 new prefixes a second empty, and for more than a processor can
/// do handshakes with.
pub const KE_PREFIX_SETS: usize = 4096;

/// Descriptors of a key establishment process beside its connections: channel, pages, listeners,
/// event loop, and what a library may open.
pub const KE_DESCRIPTORS_BESIDE: u64 = 256;

/// Key establishment processes unless configured: as many as processors, up to this. Eight do
/// some 50,000 handshakes a second, and every one is woken for each new connection.
pub const KE_PROCESSES_DEFAULT_MAX: usize = 8;

/// What can be configured: more than one machine's network needs.
pub const KE_PROCESSES_MAX: usize = 64;

/// Connections that the kernel keeps for a listener until they are accepted, within
/// net.core.somaxconn. When it overflows a client waits a second to try again; std's 128 overflow
/// at a burst that accepting takes a millisecond for.
pub const KE_BACKLOG: i32 = 4096;

/// Longest NTS-KE request. RFC 8915 section 4 asks for at least 1024; a client that names every
/// registered AEAD and a server of 255 characters needs under 500. One memory page.
pub const KE_REQUEST_BYTES_MAX: usize = 4096;

/// Longest NTS-KE response that our client takes. RFC 8915 section 4: clients SHOULD accept at
/// least 65536.
pub const KE_RESPONSE_BYTES_MAX: usize = 65536;

/// Longest name in a Server record: a domain name (RFC 1035 section 2.3.4).
pub const KE_SERVER_NAME_BYTES_MAX: usize = 255;

/// AEAD algorithms that this program knows: 15, 17 and 30.
pub const KE_ALGORITHMS: usize = 3;

/// Longest AEAD key of one direction: AES-SIV-CMAC-512.
pub const KE_KEY_BYTES_MAX: usize = 64;

/// TLS bytes taken from a connection whose handshake is not complete; what is read together with
/// the last of them comes on top. A ClientHello with a post-quantum key share is under 2 KiB, and
/// we ask for no client certificates; rustls alone would buffer 64 KiB.
pub const KE_HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// TLS bytes taken from a connection before its request is complete: a request one byte per record
/// (22 bytes of overhead each) and the largest handshake fit; an endless stream of KeyUpdate or
/// empty records does not.
pub const KE_INPUT_BYTES_MAX: usize = 128 * 1024;

/// Bytes read from a socket at a time: the largest TLS record (RFC 8446 section 5.2).
pub const KE_READ_BYTES: usize = 5 + 16384 + 256;

/// Connections accepted from one listener before the connections have their turn.
pub const KE_ACCEPTS_PER_TURN: usize = 64;

/// Events taken from the kernel at a time.
pub const KE_EVENTS: usize = 256;

/// Pause of a listener whose accept failed for lack of descriptors or memory. Long enough not to
/// spin, short enough to be served again within a client's own timeout.
pub const KE_ACCEPT_PAUSE: Duration = Duration::from_millis(50);

// Certificates (src/certificate.rs)

/// Validity of a self-signed certificate in days, unless told. Its copies are carried to clients
/// by hand, so a year; the observer and `cert show` warn in time.
pub const CERTIFICATE_VALIDITY_DAYS: u16 = 365;

/// A certificate is valid from this long before it is made: one day, because clients of a time
/// server are the hosts whose clocks are wrong.
pub const CERTIFICATE_BACKDATE_SECONDS: i64 = 86_400;

/// An end of validity nearer than this is worth a warning: the usual renewal point of ACME
/// clients, so a working renewal never shows it.
pub const CERTIFICATE_EXPIRY_WARNING_DAYS: i64 = 30;

/// Certificates of one server: each costs a few KiB in each process, and has to be read, checked
/// and looked at for changes.
pub const CERTIFICATE_PAIRS_MAX: usize = 256;

/// How often certificate files are looked at for a change. A changed pair is loaded when two looks
/// in a row find it the same: that is long enough for a tool to write the second file.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(2);

// Pages (src/page)

/// Copies that a reader of a page makes before it keeps what it has until its next look. A write
/// takes some 20 ns and a copy as long: a reader that loses so often has met a writer that was
/// stopped in the middle of a write.
pub const PAGE_READ_ATTEMPTS: usize = 64;

/// First and last bound of the histogram of latencies, in nanoseconds: 2 µs, below which no answer
/// is, and 67 ms, beyond which a client's measurement is worthless. Powers of two.
pub const LATENCY_NANOSECONDS_FIRST: u64 = 1 << 11;
/// The last bound.
pub const LATENCY_NANOSECONDS_LAST: u64 = 1 << 26;

/// Longest latency that is summed, in units of 2⁻³² s: two seconds, so that nanoseconds of it are
/// one multiplication of 64 bits.
pub const LATENCY_UNITS_MAX: i64 = 1 << 33;

// Processes (src/process)

/// Longest report of a role to the supervisor: one sentence. The supervisor, which has all
/// secrets, takes no more from a process that strangers talk to.
pub const REPORT_BYTES_MAX: usize = 4096;

/// A worker whose loop has not turned for so long hangs: even an idle one turns at every sweep.
pub const WORKER_HANGS_AFTER: Duration = SWEEP_INTERVAL.saturating_mul(3);

/// How long a worker runs at a time when others want its processor: the least that Linux takes. A
/// request that wakes it is answered before whatever else runs there has had its 0.7 to 3 ms.
pub const WORKER_SLICE: Duration = Duration::from_micros(100);

/// How long an address may be in use at the start before that is an error: longer than the
/// processes of a killed supervisor take to drain their sockets.
pub const ADDRESS_WAIT: Duration = Duration::from_secs(1);

/// How long a stopping worker goes on answering what is queued: a full socket buffer takes
/// milliseconds, and a flood must not hold the end up.
pub const WORKER_DRAIN_WAIT: Duration = Duration::from_millis(500);

/// Delay before a role that ended is started again, the first time.
pub const ROLE_RESTART_DELAY_FIRST: Duration = Duration::from_millis(100);

/// The delay doubles up to this: a role that cannot start costs no noticeable CPU time.
pub const ROLE_RESTART_DELAY_MAX: Duration = Duration::from_secs(10);

/// A role that ran this long is taken for healthy, and its delay starts from the first again.
pub const ROLE_STABLE_AFTER: Duration = Duration::from_secs(60);

/// How long a role may take to end before it is killed: longer than a handshake has by default. A
/// stop that took longer would look like a hang to who asked for it.
pub const ROLE_STOP_WAIT: Duration = Duration::from_secs(5);

/// How long the supervisor waits for a role to say that it serves. Roles start in milliseconds.
pub const ROLE_READY_WAIT: Duration = Duration::from_secs(10);

/// Permissions of the control socket unless configured. Its owner and root: a reload and a rotation
/// are behind it, and three rotations end the life of every cookie.
pub const CONTROL_MODE_DEFAULT: u32 = 0o600;

/// Clients of the control socket at one time; others wait in the kernel's queue. A client is one
/// command of an operator.
pub const CONTROL_CLIENTS_MAX: usize = 16;

/// That queue.
pub const CONTROL_BACKLOG: i32 = 128;

/// The longest request, without the end of its line: a version and a name.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 1024;

/// How long a client of the control socket may be silent, or leave an answer unread.
pub const CONTROL_CLIENT_WAIT: Duration = Duration::from_secs(5);

/// How long a command waits for the server's answer: silent clients before it may have to be
/// dropped first, and a reload waits for every role.
pub const CONTROL_ANSWER_WAIT: Duration = Duration::from_secs(15);

// The observer (src/observe, src/process/observer.rs)

/// Its TCP port: the one that ntpd-rs's exporter has, so that scrapes go on.
pub const OBSERVE_PORT: u16 = 9975;

/// How often the supervisor tells the observer what is not in a page of counters. The status page
/// asks as often.
pub const OBSERVER_INFORM_INTERVAL: Duration = Duration::from_secs(1);

/// What the supervisor has said is stale after this: a few intervals, since it may be busy with a
/// reload.
pub const OBSERVER_FACTS_AGE_MAX: Duration = OBSERVER_INFORM_INTERVAL.saturating_mul(5);

/// An observer that takes no news for so long hangs, and is ended: another one starts.
pub const OBSERVER_HANGS_AFTER: Duration = Duration::from_secs(10);

/// Connections to the observer at one time, others wait in the kernel's queue: some browsers with
/// six each and a Prometheus or two.
pub const OBSERVER_CONNECTIONS_MAX: usize = 32;

/// How long a connection to the observer may take to send a request, or be idle between two.
pub const OBSERVER_REQUEST_WAIT: Duration = Duration::from_secs(10);

/// A connection to the observer ends after this, however busy: nobody holds a place for ever.
pub const OBSERVER_CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// How long a connection that is to end may take to take its last answer.
pub const OBSERVER_DRAIN_WAIT: Duration = Duration::from_secs(2);

/// Longest head of a request to the observer: hyper's least, and browsers send about 1 KiB.
pub const OBSERVER_REQUEST_BYTES_MAX: usize = 8192;

/// Fields of a request to the observer; browsers send about fifteen.
pub const OBSERVER_REQUEST_FIELDS_MAX: usize = 64;

// How the numbers depend on each other.

const _: () = assert!(
    DATAGRAM_BYTES.is_multiple_of(64) && (DATAGRAM_BYTES / 64) % 2 == 1,
    "an odd number of cache lines"
);
const _: () = assert!(DEPARTURE_AHEAD_REPLY_MAX < DEPARTURE_AHEAD_MAX);
const _: () = assert!(DEPARTURE_AHEAD_MAX < DEPARTURE_SPAN_MAX);
const _: () = assert!(STAMPS_IN_FLIGHT >= 2 * BATCH_DATAGRAMS);
const _: () = assert!(URING_BUFFERS.is_power_of_two() && URING_BUFFERS <= 1 << 15);
const _: () = assert!(URING_SUBMISSIONS > BATCH_DATAGRAMS + SOCKETS_PER_WORKER);
const _: () = assert!(
    URING_COMPLETIONS > 2 * URING_BUFFERS + 2 * BATCH_DATAGRAMS + SOCKETS_PER_WORKER,
    "a datagram in each buffer, a failed reply to as many before them, each socket's end"
);
const _: () = assert!(COOKIE_BYTES_MAX.is_multiple_of(COOKIE_BYTES_MULTIPLE));
const _: () = assert!(NONCE_BUFFER_BYTES.is_multiple_of(16) && NONCE_BUFFER_BYTES > 64);
const _: () = assert!(RING_KEYS.is_power_of_two(), "a key's slot is its identifier's last bits");
const _: () = assert!(CLIENT_KEYS_BYTES_MAX == 2 * KE_KEY_BYTES_MAX);
const _: () = assert!(KE_CONNECTIONS_DEFAULT <= KE_CONNECTIONS_MAX);
const _: () = assert!(KE_PREFIX_SETS.is_power_of_two(), "every set is met equally often");
const _: () = assert!(KE_REQUEST_BYTES_MAX >= 1024, "RFC 8915 section 4");
const _: () = assert!(
    KE_INPUT_BYTES_MAX >= 23 * KE_REQUEST_BYTES_MAX + KE_HANDSHAKE_BYTES_MAX + KE_READ_BYTES
);
const _: () = assert!(CONTROL_ANSWER_WAIT.as_millis() > 2 * CONTROL_CLIENT_WAIT.as_millis());
const _: () = assert!(LATENCY_NANOSECONDS_FIRST.is_power_of_two());
const _: () = assert!(LATENCY_NANOSECONDS_LAST.is_power_of_two());
const _: () = assert!(LATENCY_UNITS_MAX as u64 <= u64::MAX / 1_000_000_000);
const _: () = assert!(OBSERVER_DRAIN_WAIT.as_millis() < ROLE_STOP_WAIT.as_millis());
const _: () = assert!(ADDRESS_WAIT.as_millis() > WORKER_DRAIN_WAIT.as_millis());
