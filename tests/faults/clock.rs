//! The clock role ends or hangs: the responder goes on with the last truth.

use rustix::process::Signal;
use timeball::aead::Algorithm;
use timeball::wire::ntp::{Header, Leap, Mode};

use super::common::plain_request;
use super::common::rig::receive;
use super::common::server::{Server, kill, udp_client, wait_until};
use super::load::{Load, Seen};
use super::system::wait_for_state;
use super::{CLOCK, assert_nothing_lost, client};

/// Stratum in `local` mode.
const STRATUM: u8 = 10;

pub fn clock_killed() -> Seen {
    let server = super::start();
    let load = Load::start(&server, &client(&server));
    for _ in 0..3 {
        let killed = server.role_pids(CLOCK);
        kill(killed[0], Signal::KILL);
        assert_eq!((told(&server).leap, told(&server).stratum), (Leap::None, STRATUM));
        wait_until("another process", || {
            let pids = server.role_pids(CLOCK);
            pids.len() == 1 && pids != killed
        });
    }
    let seen = load.finish();
    assert_nothing_lost(&seen);
    seen
}

/// What is told follows from the page alone, however the role came to be silent.
pub fn clock_hangs() -> Seen {
    // Long enough that the role has spoken within it, however busy the machine is.
    let clock = "source = \"local\"\nholdover = \"5 s\"";
    let server = Server::start_with(Algorithm::AesSivCmac256, "", clock, "");
    let load = Load::start(&server, &client(&server));
    let hanging = server.role_pid(CLOCK).expect("a process");
    kill(hanging, Signal::STOP);
    wait_for_state(hanging, 'T');
    let before = told(&server);
    assert_eq!((before.leap, before.stratum), (Leap::None, STRATUM));
    let mut last = before.root_dispersion;
    wait_until("it is told that nobody looks after the clock", || {
        let now = told(&server);
        assert!(now.root_dispersion >= last, "{now:?}");
        last = now.root_dispersion;
        (now.leap, now.stratum) == (Leap::Unsynchronised, 0)
    });
    load.wait_for_successes();
    kill(hanging, Signal::CONT);
    wait_until("the clock is good again", || told(&server).stratum == STRATUM);
    assert_eq!(server.role_pid(CLOCK), Some(hanging));
    let seen = load.finish();
    assert_nothing_lost(&seen);
    seen
}

/// What a client is told now.
fn told(server: &Server) -> Header {
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    Header::parse(&receive(&client)).expect("a header")
}
