//! The control socket: a Unix socket by which the operator's commands reach the supervisor.
//!
//! A request is one line of JSON, `{"version":1,"request":"status"}`, and so is its answer:
//! `{"version":1,"answer":…}` or `{"version":1,"error":"…"}`. A client may send its next request
//! after the answer. Who may connect is said by the permissions of the socket. Nothing here waits:
//! the supervisor's loop calls `Control::requests`, and `Control::answer` when it has one.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::limits::{
    CONTROL_ANSWER_WAIT, CONTROL_BACKLOG, CONTROL_CLIENT_WAIT, CONTROL_CLIENTS_MAX,
    CONTROL_REQUEST_BYTES_MAX,
};

/// Version of what is said down the socket.
const VERSION: u64 = 1;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The whole server at a glance: [`Status`](super::status::Status).
    Status,
    /// All counters: [`ServerStats`](super::status::ServerStats).
    Serverstats,
    /// The clock as clients are told of it:
    /// [`TrackingStatus`](super::clock_status::TrackingStatus).
    Tracking,
    /// Who is asked for the time: [`SourcesStatus`](super::clock_status::SourcesStatus).
    Sources,
    /// The followed daemon's NTP reply: [`NtpDataStatus`](super::clock_status::NtpDataStatus).
    NtpData,
    /// The networks that ask most: [`BusiestStatus`](super::busiest::BusiestStatus).
    Clients,
    /// As SIGHUP: [`Reloaded`](super::status::Reloaded).
    Reload,
    /// Make the next master key current: [`Rotated`](super::status::Rotated).
    RotateKeys,
}

impl Request {
    const ALL: [Self; 8] = [
        Self::Status,
        Self::Serverstats,
        Self::Tracking,
        Self::Sources,
        Self::NtpData,
        Self::Clients,
        Self::Reload,
        Self::RotateKeys,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Serverstats => "serverstats",
            Self::Tracking => "tracking",
            Self::Sources => "sources",
            Self::NtpData => "ntpdata",
            Self::Clients => "clients",
            Self::Reload => "reload",
            Self::RotateKeys => "rotate-keys",
        }
    }

    /// The request that a line asks for, without its end.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let value: Value = serde_json::from_slice(line).map_err(|_| RequestError::Form)?;
        match &value["version"] {
            Value::Number(version) if version.as_u64() == Some(VERSION) => {}
            Value::Null => return Err(RequestError::Form),
            other => return Err(RequestError::Version(other.to_string())),
        }
        let name = value["request"].as_str().ok_or(RequestError::Form)?;
        let found = Self::ALL.into_iter().find(|request| request.name() == name);
        found.ok_or_else(|| RequestError::Unknown(name.to_owned()))
    }
}

/// What a command is answered: JSON, or a sentence that says why not.
pub(super) type Answer = Result<serde_json::Value, String>;

pub(super) fn to_json(answer: &impl Serialize) -> Answer {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

/// Why a request cannot be read: a sentence for whoever wrote the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No request at all.
    #[error("a request is one line such as {{\"version\":1,\"request\":\"status\"}}")]
    Form,
    /// A line without an end.
    #[error("a request is one line of {CONTROL_REQUEST_BYTES_MAX} bytes at the most")]
    Length,
    /// More than one.
    #[error("the next request may follow when the last one is answered")]
    TooEarly,
    /// Of another version.
    #[error(
        "this server speaks version {VERSION} of the control protocol, not {0}; use the `timeball` \
         of the server's release"
    )]
    Version(String),
    /// Of another name.
    #[error(
        "unknown request \"{0}\"; this server knows status, serverstats, tracking, sources, \
         ntpdata, clients, reload and rotate-keys"
    )]
    Unknown(String),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another server has it.
    #[error(
        "a running server has the control socket {}; stop that one, or set control.socket to \
         another path",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something else is at its place.
    #[error(
        "{} is not a socket and is left alone; set control.socket to another path",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// The system refused it.
    #[error(
        "cannot make the control socket {}: {source}; check that its directory exists and belongs \
         to the user that runs timeball, or set control.socket to another path",
        path.display()
    )]
    Make {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Which client.
pub(super) type ClientId = u64;

/// The control socket and its clients. Dropping it removes the socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket.
    identity: (u64, u64),
    clients: Vec<Client>,
    next_id: ClientId,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    state: State,
    /// When it is dropped, unless it waits for us.
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    /// It has sent this part of a line.
    Asking(Vec<u8>),
    /// Its request is in the supervisor's hands.
    Waiting,
    /// This part of an answer has not been sent.
    Answered { rest: Vec<u8>, is_last: bool },
}

impl Control {
    /// Makes the socket with these permissions. One that a killed server left behind is replaced.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn open(path: &Path, mode: u32) -> Result<Self, ControlError> {
        let make = |source| ControlError::Make { path: path.to_owned(), source };
        let address = SockAddr::unix(path).map_err(make)?;
        remove_stale(path, &address)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(make)?;
        socket.bind(&address).map_err(make)?;
        let identity = identity(path).map_err(make)?;
        // Before it listens nobody can connect: nobody who may not ever gets in.
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(make)?;
        socket.listen(CONTROL_BACKLOG).map_err(make)?;
        socket.set_nonblocking(true).map_err(make)?;
        let (path, clients) = (path.to_owned(), Vec::new());
        Ok(Self { listener: socket.into(), path, identity, clients, next_id: 0 })
    }

    /// Where the socket is.
    pub fn directory(&self) -> &Path {
        self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// What to wait for. While there are too many clients the others wait in the kernel's queue.
    pub(super) fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        let is_open = self.clients.len() < CONTROL_CLIENTS_MAX;
        let listener = is_open.then(|| PollFd::new(&self.listener, PollFlags::IN));
        // One that waits for us could only tell us its end, again and again.
        let clients = self.clients.iter().filter_map(|client| match client.state {
            State::Asking(_) => Some(PollFd::new(&client.stream, PollFlags::IN)),
            State::Waiting => None,
            State::Answered { .. } => Some(PollFd::new(&client.stream, PollFlags::OUT)),
        });
        listener.into_iter().chain(clients)
    }

    /// When the patience with a client ends.
    pub(super) fn due(&self) -> Option<Instant> {
        let active = self.clients.iter().filter(|client| !matches!(client.state, State::Waiting));
        active.map(|client| client.deadline).min()
    }

    /// Does what can be done without waiting. Returns the requests that have come; each wants an
    /// answer.
    pub(super) fn requests(&mut self, now: Instant) -> Vec<(ClientId, Request)> {
        self.clients.retain_mut(|client| client.send().is_ok());
        let mut requests = Vec::new();
        self.clients.retain_mut(|client| match client.hear(now) {
            Ok(request) => {
                requests.extend(request.map(|request| (client.id, request)));
                matches!(client.state, State::Waiting) || client.deadline > now
            }
            Err(_) => false,
        });
        while self.clients.len() < CONTROL_CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { break };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let (id, deadline) = (self.next_id, now + CONTROL_CLIENT_WAIT);
            self.next_id += 1;
            self.clients.push(Client { id, stream, state: State::Asking(Vec::new()), deadline });
        }
        requests
    }

    /// Answers a request; one whose client is gone is forgotten.
    pub(super) fn answer(
        &mut self,
        client: ClientId,
        answer: &Result<Value, String>,
        now: Instant,
    ) {
        if let Some(client) = self.clients.iter_mut().find(|found| found.id == client) {
            client.answer(answer, false, now);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Another server's would not be ours to remove.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Client {
    /// Reads what has come. An error ends it.
    fn hear(&mut self, now: Instant) -> io::Result<Option<Request>> {
        let State::Asking(text) = &mut self.state else { return Ok(None) };
        let mut buffer = [0; CONTROL_REQUEST_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => text.extend_from_slice(&buffer[..bytes]),
            Err(error) if is_later(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let request = match text.iter().position(|&byte| byte == b'\n') {
            Some(end) if end > CONTROL_REQUEST_BYTES_MAX => Err(RequestError::Length),
            Some(end) if end + 1 < text.len() => Err(RequestError::TooEarly),
            Some(end) => Request::parse(&text[..end]),
            None if text.len() > CONTROL_REQUEST_BYTES_MAX => Err(RequestError::Length),
            None => return Ok(None),
        };
        match request {
            Ok(request) => {
                self.state = State::Waiting;
                Ok(Some(request))
            }
            Err(error) => {
                self.answer(&Err(error.to_string()), true, now);
                Ok(None)
            }
        }
    }

    fn answer(&mut self, answer: &Result<Value, String>, is_last: bool, now: Instant) {
        let message = match answer {
            Ok(answer) => json!({ "version": VERSION, "answer": answer }),
            Err(error) => json!({ "version": VERSION, "error": error }),
        };
        self.deadline = now + CONTROL_CLIENT_WAIT;
        self.state = State::Answered { rest: format!("{message}\n").into_bytes(), is_last };
    }

    /// Sends what can be sent of an answer. An error ends it.
    fn send(&mut self) -> io::Result<()> {
        let State::Answered { rest, is_last } = &mut self.state else { return Ok(()) };
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(bytes) => drop(rest.drain(..bytes)),
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if *is_last {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.state = State::Asking(Vec::new());
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Makes the place free if what is there is a socket that nobody listens at.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), ControlError> {
    let make = |source| ControlError::Make { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(make(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(make)?;
    probe.set_nonblocking(true).map_err(make)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(make)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(make(error)),
        // Also one whose queue is full is there.
        _ => Err(ControlError::InUse(path.to_owned())),
    }
}

/// Why a running server did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no server is running at {}; start it with `timeball serve`, or name the one that is meant \
         with --config FILE",
        .0.display()
    )]
    NoServer(PathBuf),
    /// The socket's permissions.
    #[error(
        "may not use the control socket {}; run this as root or as the server's user, or let a \
         group use it with control.socket and control.mode",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// It was silent, or said something else.
    #[error(
        "the server at {} did not answer: {source}; look into its log, or restart it",
        path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        source: io::Error,
    },
    /// Its own sentence.
    #[error("{0}")]
    Refused(String),
}

/// Asks the server that listens at `path`, and waits for its answer.
///
/// # Errors
/// [`AskError`].
pub fn ask<T: DeserializeOwned>(path: &Path, request: Request) -> Result<T, AskError> {
    let stream = connect(path)?;
    let silent = |source| AskError::Silent { path: path.to_owned(), source };
    let line = exchange(stream, &json!({ "version": VERSION, "request": request.name() }))
        .map_err(silent)?;
    let Message { answer, error } =
        serde_json::from_slice(&line).map_err(|error| silent(error.into()))?;
    match (answer, error) {
        (Some(answer), _) => Ok(answer),
        (None, Some(error)) => Err(AskError::Refused(error)),
        (None, None) => Err(silent(io::ErrorKind::InvalidData.into())),
    }
}

/// What a server says, beside its version.
#[derive(Deserialize)]
struct Message<T> {
    answer: Option<T>,
    error: Option<String>,
}

fn connect(path: &Path) -> Result<Socket, AskError> {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // For connecting too: unix(7).
        socket.set_write_timeout(Some(CONTROL_ANSWER_WAIT))?;
        socket.set_read_timeout(Some(CONTROL_ANSWER_WAIT))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(socket)
    };
    connect().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NoServer(path.to_owned())
        }
        io::ErrorKind::PermissionDenied => AskError::Forbidden(path.to_owned()),
        _ => AskError::Silent { path: path.to_owned(), source },
    })
}

fn exchange(mut stream: Socket, request: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    io::BufRead::read_until(&mut io::BufReader::new(stream), b'\n', &mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_version_and_a_name() {
        for request in Request::ALL {
            let line = json!({ "version": 1, "request": request.name() }).to_string();
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
        }
        for (line, expected) in [
            ("", RequestError::Form),
            ("status", RequestError::Form),
            ("[]", RequestError::Form),
            (r#"{"request":"status"}"#, RequestError::Form),
            (r#"{"version":1}"#, RequestError::Form),
            (r#"{"version":2,"request":"status"}"#, RequestError::Version("2".to_owned())),
            (r#"{"version":1,"request":"stop"}"#, RequestError::Unknown("stop".to_owned())),
        ] {
            assert_eq!(Request::parse(line.as_bytes()), Err(expected), "{line}");
        }
    }

    #[test]
    fn silence_ends_and_a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let mut control = Control::open(&path, 0o600).expect("made");
        assert!(matches!(Control::open(&path, 0o600), Err(ControlError::InUse(_))));
        let now = Instant::now();
        // The second server has looked who is there, and has gone.
        assert_eq!((control.requests(now), control.requests(now)), (vec![], vec![]));
        assert!(control.clients.is_empty());
        let mut silent = UnixStream::connect(&path).expect("connected");
        assert_eq!(control.requests(now), []);
        assert_eq!(control.due(), Some(now + CONTROL_CLIENT_WAIT));
        assert_eq!(control.requests(now + CONTROL_CLIENT_WAIT), []);
        assert_eq!(silent.read(&mut [0]).expect("its end"), 0);
        assert_eq!(control.due(), None);

        let stale = directory.path().join("stale");
        // As one that is killed leaves it.
        drop(UnixListener::bind(&stale).expect("made"));
        drop(Control::open(&stale, 0o600).expect("replaced"));
        assert!(!stale.exists());
        fs::write(&stale, "a file").expect("written");
        assert!(matches!(Control::open(&stale, 0o600), Err(ControlError::NoSocket(_))));
    }

    #[test]
    fn more_clients_than_there_is_room_for_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let mut control = Control::open(&path, 0o600).expect("made");
        let now = Instant::now();
        let mut clients: Vec<UnixStream> = (0..2 * CONTROL_CLIENTS_MAX)
            .map(|_| UnixStream::connect(&path).expect("connected"))
            .collect();
        for client in &mut clients {
            client.write_all(b"{\"version\":1,\"request\":\"status\"}\n").expect("sent");
        }
        control.requests(now);
        assert_eq!(control.clients.len(), CONTROL_CLIENTS_MAX);
        let requests = control.requests(now);
        assert_eq!(requests.len(), CONTROL_CLIENTS_MAX);
        assert_eq!(control.interests().count(), 0, "all wait for an answer");
        for (client, _) in requests {
            control.answer(client, &Ok(Value::Null), now);
        }
        control.requests(now);
        drop(clients.drain(..CONTROL_CLIENTS_MAX));
        control.requests(now);
        assert_eq!(control.requests(now).len(), CONTROL_CLIENTS_MAX);
    }
}
