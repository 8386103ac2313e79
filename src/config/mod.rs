//! Configuration: [`raw`] as written, [`checked`] as it holds, [`keys`] the one table that the
//! sample file, the error messages and the manual come from.

pub mod access;
pub mod address;
pub mod checked;
pub mod clock;
pub mod cpus;
pub mod file;
pub mod hardware;
pub mod import;
mod interleaved;
pub mod ke;
pub mod keys;
pub mod log;
pub mod rate_limit;
pub mod raw;
pub mod sample;
