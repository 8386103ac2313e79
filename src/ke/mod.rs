//! NTS key establishment (RFC 8915 section 4) over TLS 1.3.
//!
//! A connection's life in the server role, by file: `server` accepts it and moves its bytes,
//! `session` takes it through handshake, request and answer, `tls` holds the certificates,
//! `negotiate` chooses what to answer, `keys` derives the NTS keys, `cookies` says how cookies
//! are had; `admission` says who may begin. Only `server` and `client` do I/O.

pub mod admission;
pub mod client;
mod connections;
pub mod cookies;
pub mod counters;
pub mod exchange;
pub mod keys;
pub mod negotiate;
pub mod server;
pub mod session;
pub mod tls;

#[cfg(test)]
mod test_support;

/// Application protocol of NTS-KE in TLS (RFC 8915 section 4).
pub const ALPN: &[u8] = b"ntske/1";

/// TCP port of NTS-KE (RFC 8915 section 7.1).
pub const PORT: u16 = 4460;
