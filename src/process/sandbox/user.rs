//! The user that roles change to when timeball is started as root.

use nix::unistd::{Gid, Uid, User, geteuid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::SandboxError;

/// Who roles are, without the key `user`: the first of these that exists.
const DEFAULT_NAMES: [&str; 2] = ["timeball", "nobody"];

/// The kernel's overflow user, which is nobody's: for containers without a list of users.
const NOBODY: u32 = 65_534;

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    user: u32,
    group: u32,
}

impl Identity {
    /// Whom roles change to. `None`: they stay who they are, since this process is not root, or
    /// root without the right to change.
    pub(super) fn of_roles(wanted: Option<&str>) -> Result<Option<Self>, SandboxError> {
        let may_change = geteuid().is_root()
            && capabilities(None).is_ok_and(|sets| {
                sets.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID)
            });
        match wanted {
            None if !may_change => Ok(None),
            None => {
                let found = DEFAULT_NAMES.iter().find_map(|name| Self::by_name(name));
                Ok(Some(found.unwrap_or(Self { user: NOBODY, group: NOBODY })))
            }
            Some(name) => {
                let unknown = || SandboxError::UnknownUser(name.to_owned());
                let identity = Self::by_name_or_number(name).ok_or_else(unknown)?;
                if identity.user == 0 {
                    return Err(SandboxError::RootIsNoUser);
                }
                if identity.user == geteuid().as_raw() {
                    return Ok(None);
                }
                if !may_change {
                    return Err(SandboxError::NotRoot(name.to_owned()));
                }
                Ok(Some(identity))
            }
        }
    }

    fn by_name_or_number(text: &str) -> Option<Self> {
        let Ok(number) = text.parse() else { return Self::by_name(text) };
        let known = User::from_uid(Uid::from_raw(number)).ok().flatten();
        Some(known.map_or(Self { user: number, group: number }, Self::from))
    }

    fn by_name(name: &str) -> Option<Self> {
        User::from_name(name).ok().flatten().map(Self::from)
    }

    /// Makes this process that user's, without a way back.
    pub(super) fn assume(self) -> nix::Result<()> {
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        setgroups(&[group])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)
    }
}

impl From<User> for Identity {
    fn from(user: User) -> Self {
        Self { user: user.uid.as_raw(), group: user.gid.as_raw() }
    }
}
