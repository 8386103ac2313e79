//! What clients see when the observer fails: nothing.

use std::time::Instant;

use rustix::process::Signal;
use timeball::aead::Algorithm;
use timeball::limits::OBSERVER_HANGS_AFTER;

use super::common::server::{ANSWER_WAIT, Server, free_tcp_port, kill, wait_until};
use super::load::{Load, Seen};
use super::{KEY_ESTABLISHMENT, RESPONDER, assert_nothing_lost, client, wait_for_state};

const OBSERVER: &str = "observer";

fn start() -> Server {
    let observe = format!("processes = 2\n[observe]\nlisten = \"127.0.0.1:{}\"", free_tcp_port());
    Server::start_with(Algorithm::AesSivCmac256, "", "", &observe)
}

/// Those that clients talk to, by their processes.
fn serving(server: &Server) -> Vec<u32> {
    [RESPONDER, KEY_ESTABLISHMENT].iter().flat_map(|role| server.role_pids(role)).collect()
}

pub fn observer_killed() -> Seen {
    let server = start();
    let others = serving(&server);
    let load = Load::start(&server, &client(&server));
    for _ in 0..3 {
        let killed = server.role_pids(OBSERVER);
        kill(killed[0], Signal::KILL);
        wait_until("another process", || {
            let pids = server.role_pids(OBSERVER);
            pids.len() == 1 && pids != killed
        });
    }
    let seen = load.finish();
    assert_nothing_lost(&seen);
    assert_eq!(serving(&server), others, "somebody was disturbed");
    seen
}

/// One that takes no news any more is ended by the supervisor, and no one else is.
pub fn observer_hangs() -> Seen {
    let server = start();
    let others = serving(&server);
    let load = Load::start(&server, &client(&server));
    let stopped = server.role_pids(OBSERVER);
    kill(stopped[0], Signal::STOP);
    wait_for_state(stopped[0], 'T');
    let deadline = Instant::now() + OBSERVER_HANGS_AFTER + ANSWER_WAIT;
    while server.role_pids(OBSERVER) == stopped {
        assert!(Instant::now() < deadline, "it is not ended");
        load.wait_for_successes();
    }
    wait_until("another process", || server.role_pids(OBSERVER).len() == 1);
    assert!(server.log().contains("observer ended (did not react for 10s)"), "{}", server.log());
    let seen = load.finish();
    assert_nothing_lost(&seen);
    assert_eq!(serving(&server), others, "somebody was disturbed");
    seen
}
