//! One binary, one process per role.
//!
//! - [`supervisor`] holds configuration, sockets before they are handed over, and master keys;
//!   never bytes from the network.
//! - [`responder`] holds UDP sockets, master keys and the clock (read only); never TLS or files.
//! - [`key_establishment`] holds TLS listeners, the certificate's key and master keys; never UDP
//!   sockets or the clock.
//!
//! A role is the same program started anew with `role NAME`: it shares no memory with its parent,
//! and what it may have is what it is handed ([`start`]).

pub mod key_establishment;
pub mod responder;
pub mod role;
pub mod start;
pub mod supervisor;
