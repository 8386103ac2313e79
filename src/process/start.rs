//! What a role is handed when it starts, and how it says that it is ready.
//!
//! Four kinds of descriptors, from fixed numbers on: the start message (a sealed memory file), the
//! report pipe to the supervisor, the role's pages, and its sockets.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Seek as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::role::Role;
use crate::config::checked::ClockSettings;
use crate::limits::ROLE_READY_WAIT;
use crate::net::PortChoice;

/// Descriptor of the start message.
const START_FD: RawFd = 3;
/// Descriptor of the report pipe.
const REPORT_FD: RawFd = 4;
/// Descriptor of the first page; the sockets follow the pages.
const PAGES_FD: RawFd = 5;

/// What the responder needs beside its sockets.
#[derive(Serialize, Deserialize)]
pub struct ResponderStart {
    /// The processor of each worker. The sockets come in this order, all of the first worker
    /// first.
    pub cpus: Vec<usize>,
    /// How datagrams come and go.
    pub port: PortChoice,
    /// How long a worker polls before it sleeps.
    pub busy_poll: Duration,
    /// Where the time comes from.
    pub clock: ClockSettings,
}

/// What key establishment needs beside its listeners.
#[derive(Serialize, Deserialize)]
pub struct KeyEstablishmentStart {
    /// Certificate chain, PEM, and the name of its file for messages.
    pub certificate_pem: String,
    /// Name of the certificate's file.
    pub certificate_file: String,
    /// Private key, PEM.
    pub key_pem: Zeroizing<String>,
    /// Name of the key's file.
    pub key_file: String,
    /// Port of the NTP service.
    pub ntp_port: u16,
    /// Server that clients are sent to.
    pub ntp_server: Option<String>,
    /// From accept to close, in seconds.
    pub timeout_seconds: f64,
    /// Connections open at one time.
    pub connections_max: usize,
}

/// A start message as it lies in its memory file.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    pages: usize,
    sockets: usize,
    start: T,
}

/// Why a role cannot start or go on: one sentence for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RoleError(pub String);

impl RoleError {
    /// `what` failed because of `error`.
    pub fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Starts `role` in a process of its own with these pages and sockets, which stay open here too if
/// they are duplicates. The second value is the end of the report pipe to read from.
pub fn spawn<T: Serialize>(
    role: Role,
    start: &T,
    pages: Vec<OwnedFd>,
    sockets: Vec<OwnedFd>,
) -> io::Result<(Child, File)> {
    let message = Envelope { pages: pages.len(), sockets: sockets.len(), start };
    let (report_reader, report_writer) = io::pipe()?;
    let mut mappings = vec![
        FdMapping { parent_fd: memory_file(&message)?, child_fd: START_FD },
        FdMapping { parent_fd: report_writer.into(), child_fd: REPORT_FD },
    ];
    mappings.extend(
        pages
            .into_iter()
            .chain(sockets)
            .zip(PAGES_FD..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }),
    );
    // The program that runs now, not what its path names: it may have been replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.arg("role").arg(role.argument());
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    let child = command.spawn()?;
    Ok((child, File::from(OwnedFd::from(report_reader))))
}

/// A sealed memory file that holds `message`: nobody can change it under the reader.
fn memory_file<T: Serialize>(message: &T) -> io::Result<OwnedFd> {
    let text = Zeroizing::new(serde_json::to_vec(message)?);
    let memory = memfd_create("timeball-start", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(&text)?;
    let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    fcntl_add_seals(&file, seals)?;
    file.rewind()?;
    Ok(file.into())
}

/// What the supervisor handed to this process.
pub struct Inherited {
    /// The start message, still text.
    pub start: StartMessage,
    /// The role's pages.
    pub pages: Vec<OwnedFd>,
    /// The role's sockets.
    pub sockets: Vec<OwnedFd>,
    /// The way back to the supervisor.
    pub report: Report,
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

impl Inherited {
    /// Takes over the descriptors; fails in a process that no supervisor started.
    pub fn take() -> Result<Self, RoleError> {
        let foreign =
            |error| RoleError::new("a role is started by `timeball serve`, not by hand", error);
        // A role without its supervisor would serve old keys for ever.
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| RoleError::new("cannot be bound to the supervisor's life", error))?;
        let mut text = Zeroizing::new(Vec::new());
        File::from(take_fd(START_FD).map_err(foreign)?).read_to_end(&mut text).map_err(foreign)?;
        let Envelope { pages, sockets, start } =
            serde_json::from_slice(&text).map_err(|error| foreign(io::Error::from(error)))?;
        let report = Report(File::from(take_fd(REPORT_FD).map_err(foreign)?));
        let mut files = (PAGES_FD..)
            .take(pages + sockets)
            .map(take_fd)
            .collect::<io::Result<Vec<_>>>()
            .map_err(foreign)?;
        let sockets = files.split_off(pages);
        Ok(Self { start: StartMessage(start), pages: files, sockets, report })
    }
}

/// Takes over an inherited descriptor; fails if it is not open.
#[allow(unsafe_code, reason = "only the number of an inherited descriptor is known")]
fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor is only looked at, and the borrow ends with the statement.
    let borrowed = unsafe { rustix::fd::BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(borrowed)?;
    // SAFETY: the descriptor is open, as just seen. Nobody else in this process owns it: it came
    // with the start of the program, and `Inherited::take` runs once, before anything is opened.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The way back to the supervisor: one line, once.
pub struct Report(File);

impl Report {
    /// The role serves.
    pub fn ready(&self) {
        self.line("ready");
    }

    /// The role cannot serve, and why.
    pub fn failed(&self, error: &RoleError) {
        self.line(&error.to_string());
    }

    fn line(&self, text: &str) {
        // Without a supervisor there is nobody to tell; the death signal ends this process.
        let _ = writeln!(&self.0, "{text}");
    }
}

/// Reads a role's report: `Ok` when it is ready.
pub fn read_report(report: File) -> Result<(), RoleError> {
    let timeout = Timespec { tv_sec: ROLE_READY_WAIT.as_secs() as i64, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&report, PollFlags::IN)], Some(&timeout)) == Ok(0) {
        return Err(RoleError(format!("was not ready within {ROLE_READY_WAIT:?}")));
    }
    let mut text = String::new();
    // A report that cannot be read is as good as none.
    let _ = io::BufReader::new(report).read_line(&mut text);
    match text.trim_end() {
        "ready" => Ok(()),
        "" => Err(RoleError("ended before it was ready".to_owned())),
        error => Err(RoleError(error.to_owned())),
    }
}
