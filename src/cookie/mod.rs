//! NTS cookies and the ring of master keys.
//!
//! A cookie is the client's two keys, sealed under a master key that only servers know
//! (RFC 8915 section 6 leaves the format to them). Ours is chrony's, byte for byte, so that
//! cookies and key files of one server are good at the other.

pub mod format;
pub mod ntskeys;
pub mod ring;
pub mod rotation;
pub mod store;
