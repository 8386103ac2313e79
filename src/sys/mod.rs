//! System calls, one concern per file.

pub mod adjtimex;
pub mod control;
pub mod file;
pub mod inherited;
pub mod message;
pub mod mmsg;
mod option;
pub mod socket;
pub mod steering;
pub mod uring;
