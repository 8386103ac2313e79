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
mod signals;
pub mod start;
pub mod supervisor;

use std::process::ExitCode;

use role::Role;
use start::{Inherited, RoleError};

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
    let Inherited { start, sockets, report } = inherited;
    let result: Result<(), RoleError> = match role {
        Role::Responder => responder::run(start, sockets, &report),
        Role::KeyEstablishment => key_establishment::run(start, sockets, &report),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.failed(&error);
            ExitCode::FAILURE
        }
    }
}
