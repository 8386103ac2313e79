//! What each role may have: the table of `docs/ARCHITECTURE.md`, in code.

use rustix::thread::CapabilitySet;

use super::super::handover::Purpose;
use super::super::role::Role;
use super::system_calls::{self, SystemCall};

/// What the process of a role may have once it serves.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// User, when timeball is started as root.
    pub user: &'static str,
    /// Capabilities that it keeps, of those that it was started with.
    pub capabilities: CapabilitySet,
    /// Descriptors that it is handed, beside the standard ones and its start message.
    pub descriptors: &'static [Purpose],
    /// System calls beside those of all roles; `None` for all.
    pub system_calls: Option<&'static [SystemCall]>,
    /// Files, by landlock.
    pub files: &'static str,
    /// Secrets in its memory.
    pub secrets: &'static str,
}

/// The supervisor. It has no filter of system calls: a child would inherit it, so it would have to
/// allow all that starting a program takes; and no strangers' bytes come to it.
pub const SUPERVISOR: Profile = Profile {
    name: "supervisor",
    user: "root",
    // For roles that have another user: to give them theirs and to signal them. And for files:
    // those that could be read and replaced at the start can be at every reload.
    capabilities: CapabilitySet::DAC_OVERRIDE
        .union(CapabilitySet::KILL)
        .union(CapabilitySet::SETGID)
        .union(CapabilitySet::SETUID)
        .union(CapabilitySet::SETPCAP),
    descriptors: &[],
    system_calls: None,
    files: "reads all, writes in the state and log directories",
    secrets: "master keys, certificate keys",
};

const RESPONDER: Profile = Profile {
    name: "responder",
    user: "unprivileged",
    capabilities: CapabilitySet::empty(),
    descriptors: &[Purpose::Channel, Purpose::Page, Purpose::NtpSocket],
    system_calls: Some(system_calls::RESPONDER),
    files: "none",
    secrets: "master keys",
};

const KEY_ESTABLISHMENT: Profile = Profile {
    name: "key establishment",
    user: "unprivileged",
    capabilities: CapabilitySet::empty(),
    descriptors: &[Purpose::Channel, Purpose::Page, Purpose::KeListener],
    system_calls: Some(system_calls::KEY_ESTABLISHMENT),
    files: "none",
    secrets: "master keys, certificate keys",
};

const CLOCK: Profile = Profile {
    name: "clock",
    user: "unprivileged",
    capabilities: CapabilitySet::empty(),
    descriptors: &[
        Purpose::Channel,
        Purpose::Page,
        Purpose::ChronydSocket,
        Purpose::LogFile,
        Purpose::HardwareClock,
    ],
    system_calls: Some(system_calls::CLOCK),
    files: "none, but appends to logs that are handed over",
    secrets: "none",
};

const OBSERVER: Profile = Profile {
    name: "observer",
    user: "unprivileged",
    capabilities: CapabilitySet::empty(),
    descriptors: &[Purpose::Channel, Purpose::Page, Purpose::HttpListener],
    system_calls: Some(system_calls::OBSERVER),
    files: "none",
    secrets: "none",
};

impl Role {
    /// What its process may have.
    pub const fn profile(self) -> Profile {
        match self {
            Self::Responder => RESPONDER,
            Self::KeyEstablishment => KEY_ESTABLISHMENT,
            Self::Clock => CLOCK,
            Self::Observer => OBSERVER,
        }
    }
}

impl Profile {
    /// Its row in the documents, Markdown.
    pub fn row(&self) -> String {
        let Self { name, user, capabilities, descriptors, system_calls, files, secrets } = self;
        let list = |words: Vec<String>, none: &str| {
            if words.is_empty() { none.to_owned() } else { words.join(", ") }
        };
        let capabilities = list(
            capabilities.iter_names().map(|(name, _)| format!("`CAP_{name}`")).collect(),
            "none",
        );
        let descriptors =
            list(descriptors.iter().map(|purpose| purpose.name().to_owned()).collect(), "all");
        let system_calls = system_calls.map_or_else(
            || "all".to_owned(),
            |own| {
                let name = |call: &SystemCall| format!("`{}`", call.name.replace("SYS_", ""));
                format!("common, {}", list(own.iter().map(name).collect(), ""))
            },
        );
        format!(
            "| {name} | {user} | {capabilities} | {descriptors} | {system_calls} | {files} | \
             {secrets} |"
        )
    }
}
