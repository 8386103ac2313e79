//! The NTS-KE server: one thread, any number of listeners, a fixed number of connections.
//!
//! The verbs of a turn: wait, accept, advance (read, think, write), sweep.
//!
//! Who is admitted says [`Admission`]; whoever is not is reset, which leaves nothing behind.
//!
//! When all places are taken, the oldest connection makes room for the newest. Everyone has the
//! same time, an honest client needs only a few round trips of it, and so the oldest is the most
//! likely to be idle. To keep an honest client out, idle ones have to come at the rate of all
//! places per round trip; if instead new ones had to wait, all places per timeout would do.

use std::hash::RandomState;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConfig;
use socket2::SockRef;

use super::admission::{Admission, PrefixLimits};
use super::connections::{Connection, Connections, State};
use super::cookies::CookieSource;
use super::counters::Counters;
use super::negotiate::Policy;
use super::session::{Outcome, Services, Session};
use crate::limits::{
    KE_ACCEPT_PAUSE, KE_ACCEPTS_PER_TURN, KE_BACKLOG, KE_CONNECTIONS_DEFAULT, KE_EVENTS,
    KE_INPUT_BYTES_MAX, KE_LINGER, KE_READ_BYTES, KE_TIMEOUT_DEFAULT,
};
use crate::networks::NetworkSet;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// How TLS is spoken, from [`server_config`](super::tls::server_config).
    pub tls: Arc<ServerConfig>,
    /// What to agree on.
    pub policy: Policy,
    /// Time of a connection from accept to answer.
    pub timeout: Duration,
    /// Connections held at once; at least one.
    pub connections: usize,
    /// What one prefix may have of them.
    pub prefix: PrefixLimits,
}

impl Options {
    /// The timeout and number of connections of [`crate::limits`], and all prefixes unlimited.
    pub fn new(tls: Arc<ServerConfig>, policy: Policy) -> Self {
        let (timeout, prefix) = (KE_TIMEOUT_DEFAULT, PrefixLimits::default());
        Self { tls, policy, timeout, connections: KE_CONNECTIONS_DEFAULT, prefix }
    }
}

/// A server that runs on the thread that calls [`Server::run`].
pub struct Server<C> {
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    connections: Connections,
    admission: Admission,
    options: Options,
    cookies: C,
    counters: Counters,
    stopper: Stopper,
    /// Places whose sockets have news.
    ready: Vec<usize>,
    buffer: Box<[u8]>,
}

/// Stops or wakes a server from another thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    is_stopped: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

struct Listener {
    socket: mio::net::TcpListener,
    /// The address that every connection comes to; none when it differs between them.
    local: Option<IpAddr>,
    /// More may be waiting: the kernel reports a new connection once.
    is_ready: bool,
    /// Not before this moment, after a failure.
    not_before: Option<Instant>,
}

impl<C: CookieSource> Server<C> {
    /// Gets ready to serve on `listeners`, which are bound and listening.
    ///
    /// # Errors
    /// The system's, when it gives no epoll descriptor.
    pub fn new(listeners: Vec<TcpListener>, options: Options, cookies: C) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut registered = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let mut listener = Listener::new(listener)?;
            let token = Token(FIRST_LISTENER + index);
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
            registered.push(listener);
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(KE_EVENTS),
            listeners: registered,
            connections: Connections::new(options.connections.max(1)),
            admission: Admission::new(
                options.prefix.clone(),
                options.connections.max(1),
                Instant::now(),
                RandomState::new(),
            ),
            options,
            cookies,
            counters: Counters::default(),
            stopper: Stopper { is_stopped: Arc::default(), waker },
            ready: Vec::with_capacity(KE_EVENTS + KE_ACCEPTS_PER_TURN),
            buffer: vec![0; KE_READ_BYTES].into_boxed_slice(),
        })
    }

    /// Serves until stopped; then finishes the connections that there are, each within its time.
    ///
    /// # Errors
    /// The system's, when waiting fails.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)?.is_continue() {}
        Ok(())
    }

    /// Waits, at most for `patience`, and does what there is to do. Breaks when stopped and done.
    /// For processes that have something else to do between two turns.
    ///
    /// # Errors
    /// The system's, when waiting fails.
    pub fn turn(&mut self, patience: Option<Duration>) -> io::Result<ControlFlow<()>> {
        self.wait(patience)?;
        let now = Instant::now();
        if self.stopper.is_stopped.load(Ordering::Acquire) {
            self.accept_rest(now);
        }
        self.accept(now);
        while let Some(place) = self.ready.pop() {
            self.advance(place, now);
        }
        self.sweep(now);
        let is_done = self.listeners.is_empty() && self.connections.is_empty();
        Ok(if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// What became of the connections so far.
    pub fn counters(&self) -> Counters {
        self.counters.snapshot()
    }

    /// The cookie source, to give it new keys.
    pub fn cookies(&mut self) -> &mut C {
        &mut self.cookies
    }

    /// Lets these hold from now on. Connections that would have had longer have the new time from
    /// now.
    pub fn adopt(&mut self, policy: Policy, timeout: Duration, prefix: PrefixLimits) {
        self.options.policy = policy;
        self.options.timeout = timeout;
        self.connections.hasten(Instant::now() + timeout);
        self.admission.adopt(prefix);
    }

    /// Lets nobody but these begin a connection from now on.
    pub fn set_access(&mut self, access: NetworkSet) {
        self.admission.set_access(access);
    }

    /// A handle to stop the server with.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    fn wait(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let now = Instant::now();
        let deadline = self.connections.next_deadline();
        let accept_at = self.listeners.iter().filter_map(|listener| listener.accept_at(now));
        let soonest = accept_at.chain(deadline).min();
        let until_soonest = soonest.map(|moment| moment.saturating_duration_since(now));
        let timeout = until_soonest.into_iter().chain(patience).min();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            match event.token() {
                WAKER => {}
                Token(token) if token >= FIRST_CONNECTION => {
                    let place = token - FIRST_CONNECTION;
                    if let Some(connection) = self.connections.at(place) {
                        connection.is_read_closed |= event.is_read_closed();
                    }
                    self.ready.push(place);
                }
                Token(token) => {
                    if let Some(listener) = self.listeners.get_mut(token - FIRST_LISTENER) {
                        listener.is_ready = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, now: Instant) {
        let mut listeners = std::mem::take(&mut self.listeners);
        for listener in listeners.iter_mut().filter(|listener| listener.is_due(now)) {
            listener.not_before = None;
            for _ in 0..KE_ACCEPTS_PER_TURN {
                match listener.socket.accept() {
                    Ok((stream, client)) => self.admit(stream, client.ip(), listener.local, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.is_ready = false;
                        break;
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(_) => {
                        // No descriptors or no memory: what is waiting stays in the queue, and the
                        // oldest makes room as it does when places are short.
                        self.counters.accept_failed += 1;
                        self.shed();
                        let pause = KE_ACCEPT_PAUSE;
                        listener.not_before = Some(now + pause);
                        break;
                    }
                }
            }
        }
        self.listeners = listeners;
    }

    /// Accepts what waits, and then no more: closing a listener refuses what is still in its queue
    /// and all that comes later, so that clients go elsewhere.
    fn accept_rest(&mut self, now: Instant) {
        self.listeners.iter_mut().for_each(|listener| listener.is_ready = true);
        for _ in 0..KE_BACKLOG.cast_unsigned() as usize / KE_ACCEPTS_PER_TURN {
            if self.listeners.iter().any(|listener| listener.is_due(now)) {
                self.accept(now);
            }
        }
        self.listeners.clear();
    }

    fn admit(
        &mut self,
        mut stream: mio::net::TcpStream,
        client: IpAddr,
        local: Option<IpAddr>,
        now: Instant,
    ) {
        self.counters.accepted += 1;
        let prefix = match self.admission.enter(client, now) {
            Ok(prefix) => prefix,
            Err(outcome) => {
                // Not closed but reset: TIME-WAIT would hold memory for each one for a minute.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return self.counters.count(outcome);
            }
        };
        if self.connections.next_place().is_none() {
            self.shed();
        }
        let Some(place) = self.connections.next_place() else {
            self.admission.leave(prefix);
            return self.counters.count(Outcome::Shed);
        };
        let local = local.map_or_else(|| stream.local_addr().map(|address| address.ip()), Ok);
        let token = Token(FIRST_CONNECTION + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        match (local, self.poll.registry().register(&mut stream, token, interest)) {
            (Ok(local), Ok(())) => {
                let deadline = now + self.options.timeout;
                self.connections.insert(stream, Session::new(local, deadline), prefix);
                // The ClientHello is often there already.
                self.ready.push(place);
            }
            _ => {
                self.admission.leave(prefix);
                self.counters.count(Outcome::Broken);
            }
        }
    }

    fn shed(&mut self) {
        let Some(place) = self.connections.most_dispensable() else { return };
        match self.connections.at(place).map(|connection| &connection.state) {
            Some(State::Active(_)) => self.close(place, Outcome::Shed),
            _ => self.remove(place),
        }
    }

    /// Reads what is there, and sends what there is to send.
    fn advance(&mut self, place: usize, now: Instant) {
        let Some(connection) = self.connections.at(place) else { return };
        let mut services = Services {
            tls: &self.options.tls,
            policy: &self.options.policy,
            cookies: &mut self.cookies,
        };
        let input = read_all(connection, &mut self.buffer, &mut services);
        match &mut connection.state {
            State::Active(session) => {
                if matches!(input, Input::Closed) {
                    session.end_of_input();
                }
                match input {
                    Input::Broken => self.close(place, Outcome::Broken),
                    Input::Drained => self.flush(place, now),
                    Input::Closed | Input::Rest => {
                        self.flush(place, now);
                        self.drain(place, now);
                    }
                }
            }
            State::Lingering { .. } => {
                if !matches!(input, Input::Drained) {
                    self.remove(place);
                }
            }
        }
    }

    /// After its answer: reads what came behind the request, which is not reported again. A client
    /// that has closed already leaves at once.
    fn drain(&mut self, place: usize, now: Instant) {
        let state = self.connections.at(place).map(|connection| &connection.state);
        if matches!(state, Some(State::Lingering { .. })) {
            self.advance(place, now);
        }
    }

    fn flush(&mut self, place: usize, now: Instant) {
        let Some(Connection { stream, state: State::Active(session), .. }) =
            self.connections.at(place)
        else {
            return;
        };
        while session.has_output() {
            let sent = match session.outcome() {
                Some(_) => session.send(&mut BeforeShutdown(SockRef::from(&*stream))),
                None => session.send(stream),
            };
            match sent {
                Ok(0) => return self.close(place, Outcome::Broken),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(place, Outcome::Broken),
            }
        }
        let Some(outcome) = session.outcome() else { return };
        if matches!(outcome, Outcome::Abandoned | Outcome::TimeoutHandshake) {
            return self.close(place, outcome);
        }
        // Nothing comes after the answer; a client that waits for the end sees it now.
        let _ = stream.shutdown(Shutdown::Write);
        self.counters.count(outcome);
        self.connections.linger(place, now + KE_LINGER);
    }

    /// Ends the connections whose time is up.
    fn sweep(&mut self, now: Instant) {
        while let Some(place) = self.connections.overdue(now) {
            if let Some(Connection { state: State::Active(session), .. }) =
                self.connections.at(place)
            {
                session.tick(now);
                self.flush(place, now);
            }
            match self.connections.at(place).map(|connection| &connection.state) {
                // It has time left until its client closes.
                Some(State::Lingering { deadline, .. }) if *deadline > now => {}
                Some(State::Lingering { .. }) => self.remove(place),
                // Its client does not take the answer.
                Some(State::Active(_)) => self.close(place, Outcome::Broken),
                None => {}
            }
        }
    }

    fn close(&mut self, place: usize, outcome: Outcome) {
        self.counters.count(outcome);
        self.remove(place);
    }

    fn remove(&mut self, place: usize) {
        let prefix = self.connections.remove(place);
        self.admission.leave(prefix);
    }
}

impl Stopper {
    /// Has the server accept no more, finish, and return.
    ///
    /// # Errors
    /// The system's, when the server cannot be woken; it stops at its next turn then.
    pub fn stop(&self) -> io::Result<()> {
        self.is_stopped.store(true, Ordering::Release);
        self.waker.wake()
    }

    /// Ends the wait of the server's turn.
    ///
    /// # Errors
    /// The system's, when the server cannot be woken.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }
}

impl Listener {
    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // An answer goes out in one write: there is nothing for Nagle's algorithm to gather.
        // Connections inherit this from their listener.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let address = listener.local_addr()?.ip();
        Ok(Self {
            socket: mio::net::TcpListener::from_std(listener),
            local: (!address.is_unspecified()).then_some(address),
            is_ready: true,
            not_before: None,
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_ready && self.not_before.is_none_or(|moment| moment <= now)
    }

    fn accept_at(&self, now: Instant) -> Option<Instant> {
        self.is_ready.then(|| self.not_before.unwrap_or(now))
    }
}

/// What a socket had to say.
enum Input {
    /// Nothing is left of it for now.
    Drained,
    /// More than was wanted.
    Rest,
    /// The end of the stream.
    Closed,
    Broken,
}

/// A socket that is about to be shut down: what is written waits for the end of the stream and
/// leaves in the same segment (send(2), `MSG_MORE`).
struct BeforeShutdown<'a>(SockRef<'a>);

impl Write for BeforeShutdown<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(bytes, libc::MSG_MORE)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until nothing is left, or nothing is wanted: the bounds on what a session and a lingering
/// connection take bound this too.
///
/// A read that does not fill the buffer has left nothing (epoll(7)); if the kernel had reported the
/// end of the stream before, this is it. Both spare a system call.
fn read_all(connection: &mut Connection, buffer: &mut [u8], services: &mut Services<'_>) -> Input {
    loop {
        let read_bytes = match connection.stream.read(buffer) {
            Ok(0) => return Input::Closed,
            Ok(read_bytes) => read_bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Input::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Input::Broken,
        };
        let is_answered = match &mut connection.state {
            State::Active(session) => {
                session.receive(&buffer[..read_bytes], services);
                session.outcome().is_some()
            }
            State::Lingering { drained_bytes, .. } => {
                *drained_bytes += read_bytes;
                if *drained_bytes > KE_INPUT_BYTES_MAX {
                    return Input::Rest;
                }
                false
            }
        };
        match read_bytes < buffer.len() {
            true if connection.is_read_closed => return Input::Closed,
            true => return Input::Drained,
            false if is_answered => return Input::Rest,
            false => {}
        }
    }
}

/// accept(2): errors that are already pending on the new connection are passed on by accept;
/// they say nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
    )
}

const WAKER: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Behind any number of listeners that a process can have.
const FIRST_CONNECTION: usize = 1 << 20;

#[cfg(test)]
mod tests;
