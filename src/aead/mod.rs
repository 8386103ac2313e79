//! Authenticated encryption of a whole batch.
//!
//! The engine's stages hand over slices of jobs, one job a request: open all cookies, verify all
//! requests, make all fresh cookies, seal all replies. A slice may have any length, and jobs of
//! one slice may differ in algorithm, key and lengths.
//!
//! - [`Algorithm`]: the three AEADs of NTS, by their IANA numbers.
//! - [`MasterKey`]: a key of the server, with what is derived from it once.
//! - [`CookieOpen`], [`RequestVerify`], [`CookieMake`], [`ReplySeal`]: the jobs.
//! - [`RequestSeal`], [`ReplyOpen`]: the jobs of a client that asks by the batch.
//! - [`Aead`]: answers them, with the kernels of one instruction set ([`Backend`]).
//! - [`NonceGenerator`]: unique and unlinkable nonces for the jobs that seal.
//! - [`seal_one`], [`open_one`]: one message at a time, for clients and key files.
//! - [`self_test`]: known answers, checked before any socket opens.

#[forbid(unsafe_code)]
mod algorithm;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod arch;
#[forbid(unsafe_code)]
mod backend;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod blocks;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod counter_mode;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod gcm_siv;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod group;
#[forbid(unsafe_code)]
mod jobs;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod kernels;
#[forbid(unsafe_code)]
mod master;
#[forbid(unsafe_code)]
mod nonce;
#[forbid(unsafe_code)]
mod one_shot;
#[forbid(unsafe_code)]
mod portable;
#[forbid(unsafe_code)]
mod self_test;
#[forbid(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no kernels there"))]
mod siv;

pub use algorithm::{Algorithm, TAG_BYTES};
pub use backend::{Aead, Backend};
pub use jobs::{CookieMake, CookieOpen, ReplyOpen, ReplySeal, RequestSeal, RequestVerify};
pub use master::{MasterKey, MasterKeyError};
pub use nonce::NonceGenerator;
pub use one_shot::{OneShotError, open_one, seal_one};
pub use self_test::{SelfTestError, self_test};
