//! What the observer shows over HTTP: metrics, health and the status page.
//!
//! - [`facts`]: what is known, from pages of counters and from the supervisor.
//! - [`metrics`]: all of it for Prometheus, in the format of `exposition`.
//! - [`health`]: whether the server does what it is there for, and if not, why.
//! - [`routes`]: the paths, and what every answer says to browsers.
//! - [`server`]: connections, and their limits.
//!
//! The status page is `page/`, embedded in the program: it asks nobody but its own server.

pub(crate) mod exposition;
pub mod facts;
pub mod health;
pub mod metrics;
pub mod routes;
pub mod server;
