//! timeball-load: the load generator, on the protocol code of the server, turned round.
//!
//! The modules, in the order in which a request meets them:
//!
//! - [`limits`]: every number, with its unit and its reason.
//! - [`plan`]: what is offered: rate, shape, duration, requests, sources.
//! - [`associations`]: keys and cookies of many clients: harvested, minted, saved, loaded.
//! - [`schedule`]: when each request is due, whatever the server does.
//! - [`request`]: a batch of requests, written and sealed.
//! - [`sockets`]: where they leave from.
//! - [`flight`]: requests that wait for their answer.
//! - [`heard`]: what interleaved clients remember of their last answer.
//! - [`verify`]: whether what came is that answer.
//! - [`pump`]: one thread's loop of the above.
//! - [`record`]: counts and histograms.
//! - [`run`]: threads, progress, and whether the run says anything about the server.
//! - [`handshakes`]: NTS-KE exchanges at a rate.
//! - [`slow`]: NTS-KE connections that do nothing, or next to it.
//! - [`host`]: this host, and a server's process on it.
//! - [`counters`]: what a timeball on this host counts itself.
//! - [`network`]: whether hostile traffic may go to a target.
//! - [`search`]: the highest rate that a server keeps.
//! - [`trials`]: what it finds that out with.
//! - [`reflector`]: a server within this process, for the self-test.
//! - [`report`]: a run for people and programs.
//! - [`cli`]: one file per subcommand.

#![forbid(unsafe_code)]

pub mod associations;
pub mod cli;
pub mod counters;
pub mod flight;
pub mod handshakes;
pub mod heard;
pub mod host;
pub mod limits;
pub mod network;
pub mod plan;
pub mod pump;
pub mod record;
pub mod reflector;
pub mod report;
pub mod request;
pub mod run;
pub mod schedule;
pub mod search;
pub mod slow;
pub mod sockets;
pub mod trials;
pub mod verify;
