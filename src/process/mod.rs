//! Supervisor and roles.
