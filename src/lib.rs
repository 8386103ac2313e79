//! timeball answers NTP and NTS (RFC 8915) requests at the rate of the hardware.
//!
//! The modules, in the order in which a packet meets them:
//!
//! - [`limits`]: every number, with its unit and its reason.
//! - [`sys`]: system calls, one concern per file.
//! - [`net`]: the worker loop (recv, answer, send, sweep) and its ports.
//! - [`wire`]: NTP, extension fields and NTS-KE records, parsed and emitted.
//! - [`engine`]: a batch of requests becomes a batch of replies, without I/O.
//! - [`cookie`]: what an NTS cookie is made of, and the ring of master keys.
//! - [`page`]: memory with one writer and many readers, shared between processes.
//! - [`aead`]: authenticated encryption of a whole batch.
//! - [`networks`]: sets of addresses, for access lists and limits.
//! - [`clock`]: where the time comes from and how good it is.
//! - [`ke`]: NTS key establishment over TLS 1.3.
//! - [`certificate`]: making and judging X.509 certificates.
//! - [`client`]: the other end of the conversation.
//! - [`observe`]: metrics, health and the status page, over HTTP.
//! - [`config`]: configuration as written, then checked.
//! - [`process`]: supervisor and roles.
//! - [`host`]: the machine around it, and how it should be set.
//! - [`cli`]: one file per subcommand.

pub mod aead;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod cookie;
pub mod engine;
pub mod host;
pub mod ke;
pub mod limits;
pub mod net;
pub mod networks;
pub mod observe;
pub mod page;
pub mod process;
pub mod sys;
pub mod wire;
