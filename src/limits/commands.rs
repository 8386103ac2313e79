//! The numbers of the command line.

use std::time::Duration;

// `timeball check`: thresholds unless told, as its options have them, "WARNING,CRITICAL".

/// Seconds: chrony's makestep, beyond which a clock is stepped, and a tenth, beyond which logs of
/// different hosts are hard to put in order.
pub const CHECK_OFFSET_SECONDS: &str = "0.1,1";

/// Seconds: half of it is what an answer may be wrong by; a way around the world takes 0.3 s.
pub const CHECK_DELAY_SECONDS: &str = "0.5,2";

/// Seconds: beyond MAXDIST of RFC 5905, 1 s, clients select no server.
pub const CHECK_ROOT_DISTANCE_SECONDS: &str = "0.5,1";

/// Strata of public servers are below 5; 10 is chrony's for a clock that nobody vouches for.
pub const CHECK_STRATUM: &str = "5,10";

/// Percent: one of three samples may be lost anywhere, two hardly.
pub const CHECK_LOSS_PERCENT: &str = "20,60";

/// Days: a renewal that works happens 30 days before; three leave a weekend.
pub const CHECK_CERTIFICATE_DAYS: &str = "14,3";

/// Days: IERS makes a list a year before it expires and the next one half a year later, so one that
/// has a month left was not renewed for five. An expired one is no outage, so nothing is critical.
pub const CHECK_LEAP_FILE_DAYS: &str = "28,-";

/// Cookies: RFC 8915 section 4.1.6 asks servers for eight; without one there is no NTS.
pub const CHECK_COOKIES: &str = "8,1";

/// Seconds: four round trips around the world, and the time after which some clients give up.
pub const CHECK_KE_SECONDS: &str = "1.5,4";

/// Days: none, since the interval is configured.
pub const CHECK_KEY_AGE_DAYS: &str = "-,-";

/// Percent: a request that is lost costs its client one poll, so a tenth of a percent is no harm
/// yet; one percent is a server that cannot keep up.
pub const CHECK_DROPS_PERCENT: &str = "0.1,1";

/// Percent: after a key was removed there may be many for a while; half is keys that servers of one
/// name do not share.
pub const CHECK_NAKS_PERCENT: &str = "10,50";

/// Columns that `authdata` gives a server's name at the least: chronyc's.
pub const AUTHDATA_SERVER_COLUMNS: usize = 27;

/// Fewer requests say nothing about shares.
pub const CHECK_REQUESTS_MIN: u64 = 100;

/// Seconds between two looks at the counters: within the patience of any monitoring system.
pub const CHECK_INTERVAL_SECONDS_DEFAULT: u64 = 1;

/// A process that was started again is worth a look for so long: some checks in a row, as
/// monitoring systems repeat them before they tell somebody.
pub const CHECK_RESTART_RECENT: Duration = Duration::from_secs(900);

/// Days: see [`CHECK_LEAP_FILE_DAYS`].
pub const DOCTOR_LEAP_FILE_DAYS: f64 = 28.0;

/// How long `doctor` waits for an answer of this very host.
pub const DOCTOR_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Packets that an interface has to take: IPv6 takes no less (RFC 8200 section 5), and the answers
/// with eight cookies of AEAD 15 and 30 fit.
pub const DOCTOR_MTU_MIN: u64 = 1280;

/// What one worker's ring may have to lock: its buffers (416 KiB) and its queues.
pub const DOCTOR_RING_BYTES: u64 = 512 * 1024;

/// Seconds between two looks of `top`: as often as the supervisor takes stock.
pub const TOP_INTERVAL_SECONDS_DEFAULT: u64 = 1;

/// Rates that `top` keeps to draw: as many as the widest terminal has columns.
pub const TOP_HISTORY: usize = 512;

/// How long `top` waits for a key at a time, and so how long a signal may wait.
pub const TOP_KEY_WAIT: Duration = Duration::from_millis(100);

/// Screen of `top --once`: wide enough for every line, and 40 lines for all reasons that are usual.
pub const TOP_ONCE_COLUMNS: u16 = 120;
/// Its lines.
pub const TOP_ONCE_LINES: u16 = 40;

// The host (src/host)

/// Interrupts of an interface that are left out in a row while workers poll it: for ever, as
/// `TUNING_FLUSH_NANOSECONDS` brings an end when they stop.
pub const TUNING_HARD_INTERRUPTS_DEFERRED: u64 = 1_000_000;

/// When an interface whose interrupts are deferred is served all the same: 5 ms, far more than a
/// worker needs between two looks, so that it fires only when nobody polls.
pub const TUNING_FLUSH_NANOSECONDS: u64 = 5_000_000;

/// How long requests may wait in an interface for more of them: no longer than clients of a local
/// network see anyway.
pub const TUNING_COALESCE_MICROSECONDS: u64 = 10;

// Configurations of other servers (src/config/import)

/// Files that include each other: chrony's own limit.
pub const IMPORT_INCLUDE_DEPTH_MAX: usize = 10;

/// The port that a followed daemon gets: one that needs no right and that nothing else is known to
/// have; it is that of the documents' examples.
pub const IMPORT_FOLLOWED_PORT: u16 = 11_123;

/// Characters of a directive in a comment: a list of networks may be longer than anybody reads.
pub const IMPORT_DIRECTIVE_COLUMNS: usize = 80;

/// How often ntpd-rs makes a key if it is not told, and how many old ones it keeps, ntp.toml(5).
pub const IMPORT_NTPD_RS_ROTATION: Duration = Duration::from_secs(86_400);

/// See [`IMPORT_NTPD_RS_ROTATION`].
pub const IMPORT_NTPD_RS_STALE_KEYS: u64 = 7;

// The command line (src/cli)

/// UDP port of `serve` without a configuration: free for every user, and 123 to the eye.
pub const EMBEDDED_NTP_PORT: u16 = 11_123;

/// TCP port of `serve` without a configuration: the same with 4460.
pub const EMBEDDED_KE_PORT: u16 = 14_460;

/// TCP port of the status page of `serve` without a configuration: the same with 9975.
pub const EMBEDDED_OBSERVE_PORT: u16 = 19_975;

/// Samples that `query` takes unless told: enough to see that they agree.
pub const QUERY_SAMPLES_DEFAULT: u32 = 3;

/// How long `query` waits for each step, unless told.
pub const QUERY_TIMEOUT_SECONDS_DEFAULT: u64 = 5;
