//! The host that timeball runs on: what it is like, and how it should be set.
//!
//! - [`facts`]: files of /proc and /sys below a root folder, tools, and what system calls tell.
//! - [`network`]: interfaces, their addresses and interrupts, and who has which port.
//! - [`tuning`]: every setting of the host once, with its reason: `timeball doctor` compares,
//!   `timeball tune` sets.
//!
//! Tests give another root and another kernel.

pub mod facts;
pub mod network;
pub mod stamping;
pub mod tuning;
