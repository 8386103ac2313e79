//! The clock that nobody can set.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since boot. clock_gettime(2), CLOCK_BOOTTIME: "identical to CLOCK_MONOTONIC, except that it
/// also includes any time that the system is suspended".
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
