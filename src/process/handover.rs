//! How a role gets what it may have: a start message and descriptors, each with its purpose.
//!
//! The start message (a sealed memory file) comes at a fixed number. It lists what the descriptors
//! behind it are for, in their order.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::channel::{self, Channel, Link};
use super::role::Role;
use super::sandbox::Confinement;
use super::service_manager;
use super::start::RoleError;
use crate::sys::inherited;

/// Descriptor of the start message: behind the standard ones.
const START_FD: RawFd = 3;

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The channel to the supervisor; every role has it.
    Channel,
    /// A UDP socket of the responder.
    NtpSocket,
    /// A TCP listener of key establishment.
    KeListener,
    /// A socket to chronyd's Unix socket, of the clock role.
    ChronydSocket,
    /// The file of a log, of the clock role.
    LogFile,
    /// The clock of an interface, of the clock role.
    HardwareClock,
    /// The TCP listener of the observer.
    HttpListener,
    /// The key page or a page of counters, in the order of [`Pages`](super::pages::Pages).
    Page,
}

impl Purpose {
    /// What it is called in the documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::NtpSocket => "UDP sockets",
            Self::KeListener => "TCP listeners",
            Self::ChronydSocket => "a socket to chronyd",
            Self::LogFile => "log files",
            Self::HardwareClock => "clocks of interfaces",
            Self::HttpListener => "HTTP listener",
            Self::Page => "pages",
        }
    }
}

/// A start message as it lies in its memory file.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    purposes: Vec<Purpose>,
    confinement: Confinement,
    start: T,
}

/// Starts `role` in a process of its own with these descriptors; they stay open here too if they
/// are duplicates. The second value is the supervisor's end of the channel.
pub fn spawn<T: Serialize>(
    role: Role,
    confinement: Confinement,
    start: &T,
    descriptors: Vec<(Purpose, OwnedFd)>,
) -> io::Result<(Child, Channel)> {
    let (channel, role_end) = channel::pair()?;
    let mut descriptors = descriptors;
    descriptors.push((Purpose::Channel, role_end));
    let purposes: Vec<_> = descriptors.iter().map(|(purpose, _)| *purpose).collect();
    let allowed = role.profile().descriptors;
    assert!(purposes.iter().all(|purpose| allowed.contains(purpose)), "{purposes:?} for {role:?}");
    let start = memory_file(&Envelope { purposes, confinement, start })?;
    let mappings = [start]
        .into_iter()
        .chain(descriptors.into_iter().map(|(_, descriptor)| descriptor))
        .zip(START_FD..)
        .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
        .collect();
    // The program that runs now, not what its path names: it may have been replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.arg("role").arg(role.argument());
    // What the service manager says is for the supervisor.
    service_manager::VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    if confinement.is_on() {
        // A trace reads the program's file, which the sandbox forbids: the message of a panic
        // would be lost with it.
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    }
    // A terminal's Ctrl-C goes to its whole process group; the supervisor ends the roles in order.
    command.process_group(0);
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok((command.spawn()?, channel))
}

/// A sealed memory file that holds `message`: nobody can change it under the reader.
pub(super) fn memory_file<T: Serialize>(message: &T) -> io::Result<OwnedFd> {
    let text = Zeroizing::new(serde_json::to_vec(message)?);
    let memory = memfd_create("timeball", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(&text)?;
    let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    fcntl_add_seals(&file, seals)?;
    file.rewind()?;
    Ok(file.into())
}

/// What [`memory_file`] wrote. Its place in the file is shared with other owners.
pub(super) fn read_memory_file<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    let mut text = Zeroizing::new(Vec::new());
    File::from(file).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// What the supervisor handed to this process.
pub struct Inherited {
    /// The start message, still text.
    pub start: StartMessage,
    /// The descriptors that came with it.
    pub descriptors: Descriptors,
    /// The channel to the supervisor.
    pub link: Link,
    /// What this process has to give up.
    pub confinement: Confinement,
}

/// A start message that has been read, its kind not yet known.
pub struct StartMessage(serde_json::Value);

impl StartMessage {
    /// The message of a role.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, RoleError> {
        serde_json::from_value(self.0)
            .map_err(|error| RoleError::new("the start message does not fit the role", error))
    }
}

/// Descriptors by their purpose.
pub struct Descriptors(Vec<(Purpose, OwnedFd)>);

impl Descriptors {
    /// All of one purpose, in the order in which they were handed over.
    pub fn take(&mut self, purpose: Purpose) -> Vec<OwnedFd> {
        let (taken, rest) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(found, _): &(Purpose, OwnedFd)| *found == purpose);
        self.0 = rest;
        taken.into_iter().map(|(_, descriptor): (Purpose, OwnedFd)| descriptor).collect()
    }
}

impl Inherited {
    /// Takes over the descriptors; fails in a process that no supervisor started.
    pub fn take() -> Result<Self, RoleError> {
        let foreign =
            |error| RoleError::new("a role is started by `timeball serve`, not by hand", error);
        // A role without its supervisor would serve old keys for ever. One that died before this
        // line is noticed by the end of the channel.
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| RoleError::new("cannot be bound to the supervisor's life", error))?;
        let start = inherited::take(START_FD).map_err(foreign)?;
        let Envelope { purposes, confinement, start } = read_memory_file(start).map_err(foreign)?;
        let numbers = START_FD + 1..;
        let descriptors: io::Result<_> = purposes
            .into_iter()
            .zip(numbers)
            .map(|(purpose, number)| Ok((purpose, inherited::take(number)?)))
            .collect();
        let mut descriptors = Descriptors(descriptors.map_err(foreign)?);
        let channel = descriptors.take(Purpose::Channel).pop();
        let channel = channel.ok_or_else(|| foreign(io::ErrorKind::NotConnected.into()))?;
        let link = Link::new(channel);
        Ok(Self { start: StartMessage(start), descriptors, link, confinement })
    }
}
