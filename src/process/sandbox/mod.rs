//! The sandbox: what a process gives up for good before it serves.
//!
//! - [`profile`]: the table, what each role may have.
//! - [`system_calls`]: the calls that each role may make, and why.
//!
//! The supervisor confines itself once sockets and files are open. A role gives up user,
//! capabilities and files first of all, before it has read a byte of a stranger or started a
//! thread; the filter of system calls comes last, when all that is needed once has been done.

pub mod profile;
pub mod system_calls;
#[cfg(test)]
mod tests;
mod user;

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{
    DumpableBehavior, Signal, getuid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use seccompiler::{BpfProgram, apply_filter_all_threads};
use serde::{Deserialize, Serialize};

use self::profile::SUPERVISOR;
use self::user::Identity;
use super::role::Role;
use super::start::RoleError;
use crate::config::checked::Sandbox;

/// The newest rights of landlock that are made use of (Linux 6.12); an older kernel takes those
/// that it knows.
const LANDLOCK: ABI = ABI::V6;

/// Why a process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no landlock.
    #[error(
        "this kernel has no landlock, which sandbox = \"strict\" asks for; add landlock to its \
         boot parameter lsm=, or delete the key to go without"
    )]
    NoLandlock,
    /// The user of the key `user`.
    #[error("user \"{0}\" does not exist; `useradd --system {0}` makes it, or change the key user")]
    UnknownUser(String),
    /// The key `user` names root.
    #[error("user must not be root; name one without rights, such as \"nobody\"")]
    RootIsNoUser,
    /// The key `user` names another user than the one that is not root.
    #[error(
        "user \"{0}\" cannot be changed to: that takes root with CAP_SETUID and CAP_SETGID; start \
         timeball as that user and delete the key user"
    )]
    NotRoot(String),
    /// A step of the sandbox failed.
    #[error("the kernel refuses {what}: {source}; allow it, or set sandbox = \"off\"")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl From<SandboxError> for RoleError {
    fn from(error: SandboxError) -> Self {
        Self(error.to_string())
    }
}

fn refused(what: &'static str, source: impl Into<io::Error>) -> SandboxError {
    SandboxError::Refused { what, source: source.into() }
}

/// How the processes of a server are confined; roles are handed it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Confinement {
    sandbox: Sandbox,
    /// Whom roles change to.
    identity: Option<Identity>,
}

impl Confinement {
    /// What the keys `sandbox` and `user` come to here.
    pub fn new(sandbox: Sandbox, user: Option<&str>) -> Result<Self, SandboxError> {
        let identity = match sandbox {
            Sandbox::Off => None,
            Sandbox::Available | Sandbox::Strict => Identity::of_roles(user)?,
        };
        Ok(Self { sandbox, identity })
    }

    /// Whether processes are confined at all.
    pub(super) fn is_on(self) -> bool {
        self.sandbox != Sandbox::Off
    }

    /// Confines the supervisor, which has one thread and all it needs open: from now on it writes
    /// files beneath `state_directory` only, removes others beneath `removable`, and makes sockets
    /// beneath `sockets`, if that is there, and files beneath `logs`. Without landlock that is a
    /// warning on standard error, or an error.
    pub fn confine_supervisor(
        &self,
        state_directory: &Path,
        removable: &Path,
        sockets: Option<&Path>,
        logs: Option<&Path>,
    ) -> Result<(), SandboxError> {
        if !self.is_on() {
            if getuid().is_root() {
                eprintln!("timeball: warning: runs as root without a sandbox (sandbox = \"off\")");
            }
            return Ok(());
        }
        give_up_capabilities(SUPERVISOR.capabilities, None)?;
        let open = |path| {
            PathFd::new(path).map_err(|error| refused("a look at a path", io::Error::other(error)))
        };
        let sockets = sockets.and_then(|path| open(path).ok());
        let logs = logs.map(open).transpose()?;
        let restricted = restrict_writing(open(state_directory)?, open(removable)?, sockets, logs);
        if !self.has_landlock(restricted)? {
            eprintln!(
                "timeball: warning: this kernel has no landlock; files are kept from the roles by \
                 their user and their system calls only"
            );
        }
        Ok(())
    }

    /// Confines the process of a role, which has one thread yet, but for its system calls.
    pub(super) fn enter(self, role: Role) -> Result<Filter, SandboxError> {
        if !self.is_on() {
            return Ok(Filter(None));
        }
        let profile = role.profile();
        give_up_capabilities(profile.capabilities, self.identity)?;
        // A call that is not allowed ends the process with SIGSYS, which would write a core file
        // with all its keys.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|error| refused("a process without core files", error))?;
        // A change of user has cleared it.
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| refused("a death signal", error))?;
        self.has_landlock(restrict_all())?;
        let program = profile.system_calls.map(system_calls::filter).transpose();
        program.map(Filter).map_err(|error| refused("a filter of system calls", error))
    }

    /// Whether landlock holds; an error where it has to.
    fn has_landlock(
        &self,
        restricted: Result<RestrictionStatus, RulesetError>,
    ) -> Result<bool, SandboxError> {
        let status = restricted.map_err(|error| refused("landlock", io::Error::other(error)))?;
        match status.ruleset {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(true),
            RulesetStatus::NotEnforced if self.sandbox == Sandbox::Strict => {
                Err(SandboxError::NoLandlock)
            }
            RulesetStatus::NotEnforced => Ok(false),
        }
    }
}

/// The last step of a role's sandbox, still to be done.
#[must_use = "the role is not confined without it"]
pub struct Filter(Option<BpfProgram>);

impl Filter {
    /// From now on every thread of this process makes the calls of its role only.
    pub(super) fn apply(self) -> Result<(), SandboxError> {
        let Some(program) = self.0 else { return Ok(()) };
        apply_filter_all_threads(&program)
            .map_err(|error| refused("a filter of system calls (seccomp)", io::Error::other(error)))
    }
}

/// Keeps those of `kept` that this process has, none beyond, and none that a program it starts
/// could gain; becomes `identity`.
fn give_up_capabilities(
    kept: CapabilitySet,
    identity: Option<Identity>,
) -> Result<(), SandboxError> {
    let what = "giving up capabilities";
    set_no_new_privs(true).map_err(|error| refused("no_new_privs", error))?;
    let held = capabilities(None).map_err(|error| refused(what, error))?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        // Without this right the bounding set stays, and no_new_privs makes it worthless.
        for capability in CapabilitySet::all().difference(kept).iter() {
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)
                    .map_err(|error| refused(what, error))?;
            }
        }
    }
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    if let Some(identity) = identity {
        identity.assume().map_err(|error| refused("another user (key user)", error))?;
    }
    let held = capabilities(None).map_err(|error| refused(what, error))?.permitted & kept;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: held, permitted: held, inheritable })
        .map_err(|error| refused(what, error))
}

/// No file is written, made or removed from now on but beneath `state_directory`; beneath
/// `removable` files can be removed, beneath `sockets` sockets can be made too, beneath `logs`
/// files. What can be read stays: a reload may name other files, and certificates are behind links
/// that lead to new places.
fn restrict_writing(
    state_directory: PathFd,
    removable: PathFd,
    sockets: Option<PathFd>,
    logs: Option<PathFd>,
) -> Result<RestrictionStatus, RulesetError> {
    let sockets = sockets.map(|path| {
        Ok::<_, RulesetError>(PathBeneath::new(path, AccessFs::MakeSock | AccessFs::RemoveFile))
    });
    let logs = logs.map(|path| {
        Ok::<_, RulesetError>(PathBeneath::new(path, AccessFs::WriteFile | AccessFs::MakeReg))
    });
    let state = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    Ruleset::default()
        .handle_access(AccessFs::from_write(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(state_directory, state))?
        .add_rule(PathBeneath::new(removable, AccessFs::RemoveFile))?
        .add_rules(sockets)?
        .add_rules(logs)?
        .restrict_self()
}

/// No file, no TCP connection, nobody else's process.
fn restrict_all() -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()
}
