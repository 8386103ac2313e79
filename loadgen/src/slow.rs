//! NTS-KE connections that do nothing, or next to it: how long does the server bear them?

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::{KE_SLEEP, SLOW_BYTE_INTERVAL};
use crate::record::Times;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Nothing.
    Silent,
    /// A byte of a TLS record now and then.
    SlowLoris,
}

/// What became of the connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Borne {
    /// Connections that were made.
    pub connected: u64,
    /// Attempts that were refused or took too long.
    pub refused: u64,
    /// Of the connections: the server closed them.
    pub closed: u64,
    /// How long those lasted.
    pub lasted: Times,
}

/// Keeps `connections` open for `duration`, each made anew when the server closes it.
pub fn hold(
    target: SocketAddr,
    manner: Manner,
    connections: usize,
    duration: Duration,
    stop: &AtomicBool,
) -> Borne {
    let end = Instant::now() + duration;
    let is_over = || stop.load(Ordering::Relaxed) || Instant::now() >= end;
    let work = || {
        let mut borne = Borne::default();
        while !is_over() {
            let begin = Instant::now();
            let Ok(stream) = TcpStream::connect_timeout(&target, KE_SLEEP * 50) else {
                borne.refused += 1;
                thread::sleep(KE_SLEEP);
                continue;
            };
            borne.connected += 1;
            if linger(stream, manner, is_over) {
                borne.closed += 1;
                borne.lasted.record(begin.elapsed().as_nanos() as u64);
            }
        }
        borne
    };
    let mut all = Borne::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        for borne in threads.into_iter().map(|thread| thread.join().expect("no panic")) {
            all.connected += borne.connected;
            all.refused += borne.refused;
            all.closed += borne.closed;
            all.lasted.add(&borne.lasted);
        }
    });
    all
}

/// Until the server closes (true) or the time is over.
fn linger(mut stream: TcpStream, manner: Manner, is_over: impl Fn() -> bool) -> bool {
    // Without a limit the thread would not hear that it shall stop.
    if stream.set_read_timeout(Some(KE_SLEEP)).is_err() {
        return true;
    }
    let mut next_byte = Instant::now();
    let mut bytes = RECORD_START.iter().copied().chain(std::iter::repeat(0));
    while !is_over() {
        if manner == Manner::SlowLoris && Instant::now() >= next_byte {
            next_byte = Instant::now() + SLOW_BYTE_INTERVAL;
            let byte = bytes.next().unwrap_or_default();
            if stream.write_all(&[byte]).is_err() {
                return true;
            }
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if is_passing(error.kind()) => {}
            Err(_) => return true,
        }
    }
    false
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A handshake record of 512 bytes that holds a ClientHello of 508 (RFC 8446 sections 4 and 5.1).
const RECORD_START: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_the_server_closes_is_counted_and_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let target = listener.local_addr().expect("bound");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let held = scope
                .spawn(|| hold(target, Manner::SlowLoris, 1, Duration::from_secs(3600), &stop));
            let mut first = [0; 1];
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().expect("a connection");
                stream.read_exact(&mut first).expect("a byte");
                assert_eq!(first, RECORD_START[..1]);
            }
            let (_last, _) = listener.accept().expect("a connection");
            stop.store(true, Ordering::Relaxed);
            let borne = held.join().expect("no panic");
            assert_eq!((borne.connected, borne.closed, borne.refused), (4, 3, 0));
            assert_eq!(borne.lasted.count(), 3);
        });
    }
}
