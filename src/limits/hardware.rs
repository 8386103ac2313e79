//! The numbers of hardware timestamps (src/clock/hardware.rs, src/process/hardware.rs).

/// Interfaces whose stamps are translated: two cards of four ports. A page holds that many, and a
/// worker looks for an interface among them by going through all.
pub const HARDWARE_INTERFACES_MAX: usize = 8;

/// Longest name of an interface, as bytes: IFNAMSIZ without its end.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// Readings of a clock at each look, of which the quickest counts: enough to meet one that nothing
/// has held up, and over in some 30 µs. The kernel takes 25 at the most (PTP_MAX_SAMPLES).
pub const HARDWARE_SAMPLES: usize = 10;

/// Looks that a line is laid through: eight seconds, in which a quartz keeps its rate.
pub const HARDWARE_READINGS: usize = 8;

/// Looks before a line is believed: two make one, the third is its witness.
pub const HARDWARE_READINGS_LEAST: usize = 3;

/// Longest reading that counts, in nanoseconds. A register behind PCIe takes 1 to 5 µs; what takes
/// longer than this places a clock no better than the kernel stamps a packet.
pub const HARDWARE_DELAY_NANOSECONDS_MAX: i64 = 15_000;

/// Largest error bound of a translation that is used, in nanoseconds: what a software stamp is off
/// on a quiet machine. It is also by how much a reading may be off the line before it: a clock that
/// is further off was stepped or slewed, and is followed anew.
pub const HARDWARE_ERROR_NANOSECONDS_MAX: f64 = 20_000.0;

/// How fast two quartzes may drift apart beyond their measured rates, in seconds per second. Within
/// seconds a changing temperature does a tenth of it.
pub const HARDWARE_DRIFT: f64 = 1e-6;

/// The largest difference of rates that is followed, in seconds per second: quartzes differ by a
/// tenth of it; ptp4l slews by 0.9 of it at the most.
pub const HARDWARE_RATE_MAX: f64 = 1e-3;

/// How long the last reading of a clock is good for, in nanoseconds: as long as a line. A clock
/// role that was killed is back within a second.
pub const HARDWARE_AGE_NANOSECONDS_MAX: i64 = 8_000_000_000;

/// How long a packet may wait between its interface and the kernel's own stamp, in units of
/// 2⁻³² s: 10 ms, which is a ring of 4096 packets at 400,000 a second. A stamp that is further off
/// is of another clock, or its clock was stepped.
pub const HARDWARE_WAIT_MAX: i64 = (1 << 32) / 100;

/// How long reading two clocks of the host may take, in nanoseconds, before they are read again:
/// several times what it takes undisturbed.
pub const ANCHOR_NANOSECONDS_MAX: i64 = 400;

/// Bytes of an Ethernet frame behind what the kernel counts: the check sequence.
pub const FRAME_CHECK_BYTES: u32 = 4;

const _: () = assert!(HARDWARE_READINGS_LEAST >= 3 && HARDWARE_READINGS_LEAST <= HARDWARE_READINGS);
const _: () = assert!(
    HARDWARE_DELAY_NANOSECONDS_MAX < HARDWARE_ERROR_NANOSECONDS_MAX as i64,
    "one slow reading does not make a line useless"
);
