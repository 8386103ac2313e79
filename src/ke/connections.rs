//! The connections of a server: a fixed number of places, and who is oldest.
//!
//! All connections have the same time, so the oldest is also the first whose time is up. The
//! queues hold a connection once; what has left is skipped when it comes to the front.

use std::collections::VecDeque;
use std::time::Instant;

use mio::net::TcpStream;

use super::admission::Prefix;
use super::session::Session;

/// A place and who is in it.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) state: State,
    /// What it is counted under; none when it is not.
    pub(super) prefix: Option<Prefix>,
    /// The kernel has reported that the client will send no more.
    pub(super) is_read_closed: bool,
    serial: u64,
}

/// Where a connection is in its life.
pub(super) enum State {
    /// Before its answer.
    Active(Box<Session>),
    /// After it: waiting for the client to close, so that no reset overtakes the answer.
    Lingering {
        /// When waiting ends.
        deadline: Instant,
        /// What came in meanwhile and was thrown away.
        drained_bytes: usize,
    },
}

impl State {
    fn deadline(&self) -> Instant {
        match self {
            Self::Active(session) => session.deadline(),
            Self::Lingering { deadline, .. } => *deadline,
        }
    }
}

pub(super) struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    active: VecDeque<Entry>,
    lingering: VecDeque<Entry>,
    serial: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    place: usize,
    serial: u64,
}

impl Connections {
    /// Room for `capacity` connections, allocated now.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: std::iter::repeat_with(|| None).take(capacity).collect(),
            free: (0..capacity).rev().collect(),
            active: VecDeque::with_capacity(2 * capacity),
            lingering: VecDeque::with_capacity(2 * capacity),
            serial: 0,
        }
    }

    /// The place that the next connection gets; none when all are taken.
    pub(super) fn next_place(&self) -> Option<usize> {
        self.free.last().copied()
    }

    /// Takes the next place; false, and the connection is dropped, when there is none.
    pub(super) fn insert(
        &mut self,
        stream: TcpStream,
        session: Session,
        prefix: Option<Prefix>,
    ) -> bool {
        let Some(place) = self.free.pop() else { return false };
        self.serial += 1;
        let serial = self.serial;
        let state = State::Active(Box::new(session));
        let is_read_closed = false;
        self.places[place] = Some(Connection { stream, state, prefix, is_read_closed, serial });
        compact(&mut self.active, &self.places);
        self.active.push_back(Entry { place, serial });
        true
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Moves a connection behind its answer.
    pub(super) fn linger(&mut self, place: usize, deadline: Instant) {
        self.serial += 1;
        let serial = self.serial;
        if let Some(connection) = self.at(place) {
            connection.state = State::Lingering { deadline, drained_bytes: 0 };
            connection.serial = serial;
            compact(&mut self.lingering, &self.places);
            self.lingering.push_back(Entry { place, serial });
        }
    }

    /// Drops the connection; returns what it was counted under.
    pub(super) fn remove(&mut self, place: usize) -> Option<Prefix> {
        let connection = self.places.get_mut(place).and_then(Option::take)?;
        self.free.push(place);
        connection.prefix
    }

    /// The connection that can best be spared: the one that has had its answer longest, or else
    /// has been without one longest.
    pub(super) fn most_dispensable(&mut self) -> Option<usize> {
        front(&mut self.lingering, &self.places).or_else(|| front(&mut self.active, &self.places))
    }

    /// Lets no connection have time beyond `deadline`. Those that come later have at least as much,
    /// so the oldest stays the first whose time is up.
    pub(super) fn hasten(&mut self, deadline: Instant) {
        for connection in self.places.iter_mut().flatten() {
            if let State::Active(session) = &mut connection.state {
                session.hasten(deadline);
            }
        }
    }

    /// A connection whose time was up at `now`.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<usize> {
        let fronts = self.fronts();
        fronts.into_iter().flatten().find(|(_, deadline)| *deadline <= now).map(|(place, _)| place)
    }

    /// When the next connection's time is up.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        self.fronts().into_iter().flatten().map(|(_, deadline)| deadline).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    fn fronts(&mut self) -> [Option<(usize, Instant)>; 2] {
        [&mut self.active, &mut self.lingering].map(|queue| {
            let place = front(queue, &self.places)?;
            Some((place, self.places[place].as_ref()?.state.deadline()))
        })
    }
}

fn front(queue: &mut VecDeque<Entry>, places: &[Option<Connection>]) -> Option<usize> {
    while let Some(entry) = queue.front() {
        if is_there(entry, places) {
            return Some(entry.place);
        }
        queue.pop_front();
    }
    None
}

/// Throws out what has left once that is half of the queue, so that it never grows.
fn compact(queue: &mut VecDeque<Entry>, places: &[Option<Connection>]) {
    if queue.len() >= 2 * places.len() {
        queue.retain(|entry| is_there(entry, places));
    }
}

fn is_there(entry: &Entry, places: &[Option<Connection>]) -> bool {
    places[entry.place].as_ref().is_some_and(|connection| connection.serial == entry.serial)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_is_overdue_first_and_those_with_an_answer_are_spared_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut connections = Connections::new(3);
        for seconds in [10, 11, 12] {
            assert!(connections.insert(stream(), session(at(seconds)), None));
        }
        assert_eq!(connections.next_place(), None);
        assert!(!connections.insert(stream(), session(at(13)), None));
        assert_eq!(connections.next_deadline(), Some(at(10)));
        assert_eq!(connections.overdue(at(9)), None);
        assert_eq!(connections.overdue(at(10)), Some(0));

        assert_eq!(connections.most_dispensable(), Some(0));
        connections.linger(1, at(11));
        assert_eq!(connections.most_dispensable(), Some(1));
        connections.remove(0);
        assert_eq!(connections.next_deadline(), Some(at(11)));
        connections.remove(1);
        assert_eq!(connections.most_dispensable(), Some(2));
        connections.remove(2);
        connections.remove(2);
        assert!(connections.is_empty());
        assert_eq!(connections.next_deadline(), None);
    }

    #[test]
    fn a_shorter_time_holds_for_those_that_are_there_too() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut connections = Connections::new(3);
        for seconds in [2, 60] {
            connections.insert(stream(), session(at(seconds)), None);
        }
        connections.hasten(at(5));
        connections.insert(stream(), session(at(6)), None);
        for (now, place) in [(2, 0), (5, 1), (6, 2)] {
            assert_eq!(connections.overdue(at(now - 1)), None);
            assert_eq!(connections.overdue(at(now)), Some(place));
            connections.remove(place);
        }
    }

    #[test]
    fn queues_stay_bounded_behind_one_that_stays() {
        let start = Instant::now();
        let mut connections = Connections::new(4);
        connections.insert(stream(), session(start), None);
        for _ in 0..100 {
            let place = connections.next_place().unwrap();
            connections.insert(stream(), session(start), None);
            connections.linger(place, start);
            connections.remove(place);
        }
        assert!(connections.active.len() <= 8 && connections.lingering.len() <= 8);
        assert_eq!(connections.most_dispensable(), Some(0));
    }

    fn session(deadline: Instant) -> Session {
        Session::new(IpAddr::V4(Ipv4Addr::LOCALHOST), deadline)
    }

    fn stream() -> TcpStream {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }
}
