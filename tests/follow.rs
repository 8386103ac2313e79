//! A real chronyd or ntpd as the followed daemon: what its clients are told, ours are told. None of
//! them may set the clock.

mod common;
mod peer;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::plain_request;
use common::rig::receive;
use common::server::{ANSWER_WAIT, Server, free_udp_port, kill, program, udp_client, wait_until};
use peer::{Chronyd, Ntpd, NtpdRsServer};
use rustix::process::Signal;
use timeball::aead::Algorithm;
use timeball::clock::follow::Sample;
use timeball::clock::host::moment;
use timeball::clock::leap::SMEARED_REFERENCE_ID;
use timeball::limits::NTP_PORT;
use timeball::wire::ntp::{HEADER_BYTES, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::NtpTimestamp;

/// Stratum of the chronyd that has no source.
const UPSTREAM_STRATUM: u8 = 4;

/// What delays may change between two questions, in seconds: chronyd polls 16 times a second, and
/// on a busy machine a poll may take milliseconds.
const TOLERANCE_SECONDS: f64 = 0.01;

/// Two chronyds, one following the other on loopback.
struct Chain {
    _upstream: Chronyd,
    chronyd: Chronyd,
    ntp_port: u16,
    command_port: u16,
}

impl Chain {
    /// `options` are those of the second one for the first one as its source, `lines` its own.
    fn start(options: &str, lines: &str) -> Self {
        Self::start_over("127.0.0.1", options, lines)
    }

    /// The same, the first one at this address.
    fn start_over(host: &str, options: &str, lines: &str) -> Self {
        let [upstream_port, unused, ntp_port, command_port] = [(); 4].map(|()| free_udp_port());
        let local = format!("local stratum {UPSTREAM_STRATUM}\nbindaddress ::1\nallow ::1");
        let upstream = Chronyd::server(upstream_port, unused, &local);
        let source = format!(
            "server {host} port {upstream_port} minpoll -4 maxpoll -4 iburst {options}\n{lines}"
        );
        let mut chronyd = Chronyd::server(ntp_port, command_port, &source);
        chronyd.wait("chronyd follows the other", &["tracking"], |text| {
            text.contains("Leap status     : Normal").then_some(())
        });
        Self { _upstream: upstream, chronyd, ntp_port, command_port }
    }

    fn ntp(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ntp_port))
    }

    /// Keys of timeball's section `clock` that follow it.
    fn keys(&self) -> String {
        let Self { ntp_port, command_port, .. } = self;
        format!(
            "source = \"follow\"\nchronyd = \"127.0.0.1:{command_port}\"\n\
             follow = \"127.0.0.1:{ntp_port}\"\n"
        )
    }
}

fn follow(clock: &str) -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", clock, "")
}

/// What a server tells its clients.
fn ask(server: SocketAddr) -> Sample {
    let client = udp_client(server);
    let mut request = plain_request(4, Mode::Client);
    let random = [1, 2, 3, 4, 5, 6, 7, 8];
    request[40..48].copy_from_slice(&random);
    let sent = moment();
    client.send(&request).expect("sent");
    let reply = receive(&client);
    let transmitted = NtpTimestamp::from_bits(u64::from_be_bytes(random));
    Sample::new(&reply, transmitted, sent, moment()).expect("a reply")
}

fn wait_for(server: &Server, leap: Leap) {
    wait_until("the leap indicator", || ask(server.ntp()).header.leap == leap);
}

/// Waits until a command says this.
fn shown(server: &Server, command: &str, says: &str) {
    let configuration = server.directory.path().join("timeball.toml");
    wait_until(says, || {
        let output = program().args([command, "--config"]).arg(&configuration).output();
        let shown = output.expect("started").stdout;
        String::from_utf8_lossy(&shown).contains(says)
    });
}

/// How what is told of one clock differs, if it does.
fn difference(ours: &Sample, chronyds: &Sample) -> Option<&'static str> {
    let (header, expected) = (&ours.header, &chronyds.header);
    let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE_SECONDS;
    let (delay, dispersion) = (header.root_delay, header.root_dispersion);
    // Ours has no fraction, chronyd's is off by up to a second, and both may have a second's age.
    let reference = header.reference_timestamp.seconds_since_f64(expected.reference_timestamp);
    let apart = (ours.offset_seconds - chronyds.offset_seconds).abs();
    let bound = (ours.delay_seconds + chronyds.delay_seconds) / 2.0
        + dispersion.to_seconds()
        + expected.root_dispersion.to_seconds();
    [
        ("leap", header.leap == expected.leap),
        ("stratum", header.stratum == expected.stratum),
        ("reference", header.reference_id == expected.reference_id),
        ("root delay", close(delay.to_seconds(), expected.root_delay.to_seconds())),
        ("root dispersion", close(dispersion.to_seconds(), expected.root_dispersion.to_seconds())),
        ("reference time", reference.abs() <= 3.0),
        ("fraction of the reference time", header.reference_timestamp.to_bits() as u32 == 0),
        ("time", apart <= bound),
    ]
    .iter()
    .find_map(|(what, is_same)| (!is_same).then_some(*what))
}

/// Waits until our clients are told what those of the server at `place` are, and returns what that
/// is. Its word may be a second old, and a busy machine makes either late.
fn assert_same(server: &Server, place: SocketAddr) -> Sample {
    let deadline = Instant::now() + ANSWER_WAIT;
    loop {
        let (ours, theirs) = (ask(server.ntp()), ask(place));
        let Some(what) = difference(&ours, &theirs) else { return ours };
        assert!(Instant::now() < deadline, "{what}:\nours   {ours:?}\ntheirs {theirs:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn c099_c102_clients_are_told_what_chronyds_are() {
    let chain = Chain::start("", "");
    for keys in [
        chain.keys(),
        format!("source = \"follow\"\nchronyd = \"127.0.0.1:{}\"", chain.command_port),
        format!("source = \"follow\"\nfollow = \"127.0.0.1:{}\"", chain.ntp_port),
    ] {
        let server = follow(&keys);
        let ours = assert_same(&server, chain.ntp());
        assert_eq!(ours.header.stratum, UPSTREAM_STRATUM + 1, "as chronyd's own");
        // The address that chronyd follows: whoever has it sees that we follow it.
        assert_eq!(ours.header.reference_id, ReferenceId([127, 0, 0, 1]));
        let is_reported = keys.contains("chronyd =");
        let reference = if is_reported { "7F000001 (127.0.0.1)\n" } else { "7F000001\n" };
        shown(&server, "tracking", &format!("Reference ID       {reference}"));
    }
}

/// Of an address of IPv6 a reference is the beginning of its MD5 hash (RFC 5905 section 7.3).
#[test]
fn c102_a_source_of_ipv6_is_told_by_its_hash() {
    const HASH: [u8; 4] = [0xcf, 0x40, 0x4d, 0xc8];
    let chain = Chain::start_over("::1", "", "");
    let server = follow(&chain.keys());
    assert_eq!(assert_same(&server, chain.ntp()).header.reference_id, ReferenceId(HASH));
    shown(&server, "tracking", " (::1)\n");
}

#[test]
fn chronyd_without_a_source_is_told_as_it_is() {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let _chronyd = Chronyd::server(ntp_port, command_port, "local stratum 7");
    let keys = format!("source = \"follow\"\nchronyd = \"127.0.0.1:{command_port}\"");
    let server = follow(&keys);
    let ours = assert_same(&server, ([127, 0, 0, 1], ntp_port).into());
    assert_eq!(ours.header.reference_id, ReferenceId([127, 127, 1, 1]));

    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let _chronyd = Chronyd::server(ntp_port, command_port, "");
    let keys = format!("source = \"follow\"\nchronyd = \"127.0.0.1:{command_port}\"");
    let server = follow(&keys);
    let ours = assert_same(&server, ([127, 0, 0, 1], ntp_port).into());
    assert_eq!((ours.header.leap, ours.header.stratum), (Leap::Unsynchronised, 0));
}

/// The second chronyd believes the system's clock to be off, and may not set it.
#[test]
fn what_chronyd_has_not_slewed_yet_is_served() {
    for off in [0.05, -0.05] {
        let chain = Chain::start(&format!("offset {off}"), "");
        let server = follow(&chain.keys());
        // With the second word: a correction that is seen first may be slewed at any rate.
        let ours = assert_same(&server, chain.ntp());
        let error = (ours.offset_seconds.abs() - 0.05).abs();
        assert!(error <= ours.delay_seconds + TOLERANCE_SECONDS, "{ours:?}");
    }
}

/// chronyd corrects what it knows of the time at once, and lets its clients see it little by
/// little: a second takes hours.
#[test]
fn what_chronyd_smooths_is_told_as_it_tells_it() {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let lines = "local stratum 6\nmanual\nsmoothtime 400 0.01";
    let mut chronyd = Chronyd::server(ntp_port, command_port, lines);
    chronyd.wait("it smooths", &["smoothtime", "activate"], |_| Some(()));
    chronyd.wait("it was corrected", &["settime", "1", "second"], |_| Some(()));
    let place = SocketAddr::from(([127, 0, 0, 1], ntp_port));
    let socket = chronyd.socket().display().to_string();
    for keys in [
        format!("chronyd = \"127.0.0.1:{command_port}\""),
        format!("chronyd = \"{socket}\""),
        format!("chronyd = \"{socket}\"\nfollow = \"{place}\""),
        format!("follow = \"{place}\""),
    ] {
        let server = follow(&format!("source = \"follow\"\n{keys}"));
        let ours = assert_same(&server, place);
        assert_eq!(ours.header.reference_id, SMEARED_REFERENCE_ID, "{keys}");
    }
}

#[test]
fn a_chronyd_that_is_lost_is_told_in_time_and_found_again() {
    let mut chain = Chain::start("", "");
    let server = follow(&format!("{}holdover = \"2 s\"", chain.keys()));
    wait_for(&server, Leap::None);
    chain.chronyd.stop();
    let before = ask(server.ntp()).header;
    wait_until("the bound grows", || {
        let header = ask(server.ntp()).header;
        header.leap == Leap::Unsynchronised || header.root_dispersion > before.root_dispersion
    });
    wait_for(&server, Leap::Unsynchronised);
    let lost = ask(server.ntp()).header;
    assert_eq!((lost.stratum, lost.reference_id), (0, ReferenceId::NONE));
    chain.chronyd.restart();
    wait_for(&server, Leap::None);
    assert_same(&server, chain.ntp());
    // One clock role has seen it all.
    assert!(!server.log().contains("clock ended"), "{}", server.log());
}

#[test]
fn chronyd_is_asked_over_its_unix_socket_again_after_its_restart() {
    let mut chain = Chain::start("", "");
    let path = chain.chronyd.socket().display().to_string();
    let server = follow(&format!("source = \"follow\"\nholdover = 2\nchronyd = \"{path}\""));
    assert_same(&server, chain.ntp());
    chain.chronyd.stop();
    shown(&server, "sources", &format!("silent (no chronyd listens at {path})"));
    wait_for(&server, Leap::Unsynchronised);
    chain.chronyd.restart();
    wait_for(&server, Leap::None);
    assert_same(&server, chain.ntp());
    kill(server.role_pid("clock").expect("a process"), Signal::KILL);
    wait_until("another one asks", || server.log().contains("clock ended"));
    chain.chronyd.stop();
    wait_for(&server, Leap::Unsynchronised);
    chain.chronyd.restart();
    wait_for(&server, Leap::None);
}

/// NTPsec's ntpd gives no report of its own: its replies are all there is.
#[test]
fn ntpsec_is_followed_lost_and_found_again() {
    let ntpd = Ntpd::server(UPSTREAM_STRATUM);
    let place = SocketAddr::from(([127, 0, 0, 1], NTP_PORT));
    let server = follow(&format!("source = \"follow\"\nholdover = 2\nfollow = \"{place}\""));
    wait_for(&server, Leap::None);
    assert_eq!(assert_same(&server, place).header.stratum, UPSTREAM_STRATUM);
    ntpd.peer.assert_it_cannot_set_the_clock();
    drop(ntpd);
    wait_for(&server, Leap::Unsynchronised);
    let _ntpd = Ntpd::server(UPSTREAM_STRATUM);
    wait_for(&server, Leap::None);
    assert_same(&server, place);
}

/// Where it may not set the clock ntpd-rs has no source either, and says so.
#[test]
fn ntpd_rs_without_a_source_is_told_as_it_is() {
    let mut ntpd_rs = NtpdRsServer::start();
    let place = SocketAddr::from(([127, 0, 0, 1], ntpd_rs.ntp_port));
    let server = follow(&format!("source = \"follow\"\nfollow = \"{place}\""));
    ntpd_rs.peer.wait("ntpd-rs answers", || {
        let client = udp_client(place);
        client.send(&plain_request(4, Mode::Client)).ok()?;
        client.recv(&mut [0; HEADER_BYTES]).ok()
    });
    assert_eq!(ask(place).header.leap, Leap::Unsynchronised);
    shown(&server, "sources", "the daemon says that its clock is not synchronised");
    let header = ask(server.ntp()).header;
    assert_eq!((header.leap, header.stratum), (Leap::Unsynchronised, 0));
    ntpd_rs.peer.assert_it_cannot_set_the_clock();
}

/// Its replies are 0.3 s off what the report of the daemon says that keeps this clock.
#[test]
fn a_falseticking_daemon_is_not_believed() {
    let falseticker = Chain::start("offset 0.3", "");
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let _chronyd = Chronyd::server(ntp_port, command_port, "local stratum 7");
    let server = follow(&format!(
        "source = \"follow\"\nholdover = 2\nchronyd = \"127.0.0.1:{command_port}\"\n\
         follow = \"127.0.0.1:{}\"",
        falseticker.ntp_port
    ));
    shown(&server, "sources", "s off what its report says");
    // A report whose reply is late is believed, as it may have been at the start.
    wait_for(&server, Leap::Unsynchronised);
}
