//! System calls, one concern per file.

pub mod adjtimex;
pub mod boottime;
pub mod control;
pub mod file;
pub mod inherited;
#[cfg(test)]
pub(crate) mod injected;
pub mod interface;
pub mod memory;
pub mod message;
pub mod mmsg;
mod option;
pub mod phc;
pub mod slice;
pub mod socket;
pub mod steering;
pub mod uring;
