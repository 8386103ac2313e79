//! The roles that the supervisor starts.

use std::process::ExitCode;

use super::start::{Inherited, RoleError};
use super::{key_establishment, responder};

/// A role with a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Answers NTP and NTS.
    Responder,
    /// NTS key establishment.
    KeyEstablishment,
}

impl Role {
    /// The name on the command line, in messages and in counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::KeyEstablishment => "key-establishment",
        }
    }
}

/// Runs a role in this process, which the supervisor started for it. An error goes to the
/// supervisor, which says it to the user.
pub fn run(role: Role) -> ExitCode {
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
