//! One binary, one process per role.
//!
//! | role | holds | never has |
//! | --- | --- | --- |
//! | [`supervisor`] | configuration, sockets before they are handed over, master keys | bytes from the network |
//! | [`responder`] | UDP sockets, master keys, the clock (read only) | TLS, files |
//! | [`key_establishment`] | TLS listeners, certificate key, master keys | UDP sockets, the clock |
//!
//! A role is the same program started anew with `role NAME`: it shares no memory with its parent,
//! and what it may have is what it is handed ([`start`]).

pub mod key_establishment;
pub mod responder;
pub mod role;
pub mod start;
pub mod supervisor;
