//! One binary, one process per role.
//!
//! - [`supervisor`] holds configuration, sockets before they are handed over, and master keys,
//!   which [`key_keeper`] keeps; never bytes from the network.
//! - [`responder`] holds UDP sockets, master keys and the clock's page; never TLS or files.
//! - [`key_establishment`] holds TLS listeners, the certificate's key and master keys; never UDP
//!   sockets or the clock.
//! - [`clock`] asks the source of the time and writes the clock's page; never keys or files.
//! - [`observer`] holds an HTTP listener and all counters (read only), and is told the rest; never
//!   secrets, UDP sockets or files.
//!
//! A role is the same program started anew with `role NAME`: it shares no memory with its parent,
//! and what it may have is what it is handed ([`handover`]), [`pages`] among it. The rest it gives
//! up before it serves ([`sandbox`]).

pub mod busiest;
pub mod certificates;
pub mod channel;
pub mod chronyd_socket;
pub mod clock;
pub mod clock_status;
pub mod control;
pub mod handover;
pub mod hardware;
pub mod key_establishment;
pub mod key_keeper;
pub mod key_writer;
pub mod leap_file;
pub mod log_files;
pub mod observer;
pub mod pages;
mod reload;
pub mod responder;
pub mod role;
pub mod sandbox;
pub mod service_manager;
mod signals;
pub mod sockets;
mod spawn;
pub mod start;
pub mod status;
mod supervised;
pub mod supervisor;

use std::process::ExitCode;

use handover::Inherited;
use role::Role;
use start::{Report, RoleError};

/// Runs a role in this process, which the supervisor started for it. An error goes to the
/// supervisor, which says it to the user.
pub fn run_role(role: Role) -> ExitCode {
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("timeball: {error}");
            return ExitCode::from(2);
        }
    };
    let Inherited { start, descriptors, link, confinement } = inherited;
    let result = confinement.enter(role).map_err(RoleError::from).and_then(|filter| match role {
        Role::Responder => responder::run(start, descriptors, &link, filter),
        Role::KeyEstablishment => key_establishment::run(start, descriptors, &link, filter),
        Role::Clock => clock::run(start, descriptors, &link, filter),
        Role::Observer => observer::run(start, descriptors, &link, filter),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            link.report(&Report::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}
