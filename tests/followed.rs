//! A followed chronyd that answers badly, or not: nothing of it reaches clients, and the operator
//! is told. Between the two stands a proxy that damages answers.

mod common;
mod peer;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use common::plain_request;
use common::rig::receive;
use common::server::{Server, free_udp_port, program, udp_client, wait_until};
use peer::Chronyd;
use rustix::process::getuid;
use serde_json::Value;
use timeball::aead::Algorithm;
use timeball::wire::candm::TRACKING_BYTES;
use timeball::wire::ntp::{Header, Leap, Mode};

const STRATUM: u8 = 6;

/// An unprivileged user that no list of users is needed for.
const STRANGER: u32 = 54_321;

/// What becomes of chronyd's answers.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Harm {
    None,
    CutOff,
    Garbage,
    Forged,
    Refused,
    Lost,
}

/// How an answer is damaged; none is left of it if it is lost.
type Damage = fn(Vec<u8>, u8) -> Option<Vec<u8>>;

/// Stands between timeball and a port of chronyd.
struct Proxy {
    address: SocketAddr,
    harm: Arc<AtomicU8>,
}

impl Proxy {
    fn start(port: u16, damage: Damage) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("bound");
        let harm = Arc::<AtomicU8>::default();
        let way = Arc::clone(&harm);
        let chronyd = udp_client(([127, 0, 0, 1], port).into());
        thread::spawn(move || {
            let mut buffer = [0; 2 * TRACKING_BYTES];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                if chronyd.send(&buffer[..bytes]).is_err() {
                    continue;
                }
                let Ok(bytes) = chronyd.recv(&mut buffer) else { continue };
                if let Some(answer) = damage(buffer[..bytes].into(), way.load(Ordering::Relaxed)) {
                    // timeball may have ended.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, harm }
    }

    fn harm(&self, harm: Harm) {
        self.harm.store(harm as u8, Ordering::Relaxed);
    }
}

/// Of the command protocol.
fn damaged_report(mut answer: Vec<u8>, harm: u8) -> Option<Vec<u8>> {
    match harm {
        harm if harm == Harm::CutOff as u8 => answer.truncate(answer.len() - 1),
        harm if harm == Harm::Garbage as u8 => answer = b"HTTP/1.1 400 Bad Request\r\n".repeat(6),
        // Another sequence, and a better stratum.
        harm if harm == Harm::Forged as u8 => {
            answer[16] = !answer[16];
            // The report of smoothing has none.
            if let Some(stratum) = answer.get_mut(53) {
                *stratum = 1;
            }
        }
        harm if harm == Harm::Refused as u8 => answer[9] = 2,
        harm if harm == Harm::Lost as u8 => return None,
        _ => {}
    }
    Some(answer)
}

/// Of NTP.
fn damaged_reply(mut answer: Vec<u8>, harm: u8) -> Option<Vec<u8>> {
    match harm {
        harm if harm == Harm::CutOff as u8 => answer.truncate(answer.len() - 1),
        harm if harm == Harm::Garbage as u8 => answer = b"HTTP/1.1 400 Bad Request\r\n".repeat(6),
        // Another origin, and a better stratum.
        harm if harm == Harm::Forged as u8 => (answer[24], answer[1]) = (!answer[24], 1),
        harm if harm == Harm::Refused as u8 => {
            answer[..2].copy_from_slice(&[0xe4, 0]);
            answer[12..16].copy_from_slice(b"DENY");
        }
        harm if harm == Harm::Lost as u8 => return None,
        _ => {}
    }
    Some(answer)
}

fn follow(clock: &str) -> Server {
    Server::start_with(Algorithm::AesSivCmac256, "", &format!("source = \"follow\"\n{clock}"), "")
}

/// What clients are told.
fn told(server: &Server) -> Header {
    let client = udp_client(server.ntp());
    client.send(&plain_request(4, Mode::Client)).expect("sent");
    Header::parse(&receive(&client)).expect("a header")
}

fn run(server: &Server, arguments: &[&str]) -> String {
    let configuration = server.directory.path().join("timeball.toml");
    let output =
        program().args(arguments).arg("--config").arg(configuration).output().expect("started");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(server: &Server, command: &str) -> Value {
    serde_json::from_str(&run(server, &[command, "--json"])).expect("JSON")
}

/// Waits until a command says all of this at once.
fn shown(server: &Server, arguments: &[&str], says: &[&str]) {
    wait_until(&format!("{arguments:?}: {says:?}"), || {
        let text = run(server, arguments);
        says.iter().all(|part| text.contains(part))
    });
}

/// Waits until the state of the source is this, and returns why.
fn wait_for(server: &Server, state: &str) -> String {
    let mut why = String::new();
    wait_until(state, || {
        let sources = json(server, "sources");
        why = sources["why"].as_str().expect("text").to_owned();
        sources["state"] == state
    });
    why
}

#[test]
fn what_makes_no_sense_changes_nothing_and_is_shown() {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let local = format!("local stratum {STRATUM}");
    let _chronyd = Chronyd::server(ntp_port, command_port, &local);
    let proxy = Proxy::start(command_port, damaged_report);
    let server = follow(&format!("chronyd = \"{}\"", proxy.address));
    what_is_damaged_changes_nothing(
        &server,
        &proxy,
        [
            (Harm::CutOff, "garbled", "its answer has 103 bytes"),
            (Harm::Garbage, "garbled", "not of version 6 of chrony's command protocol"),
            (Harm::Forged, "garbled", "its answer belongs to another request"),
            (Harm::Refused, "garbled", "chronyd refuses the report (status 2)"),
            (Harm::Lost, "silent", "it does not answer"),
        ],
    );
}

/// The same where NTP replies are all there is.
#[test]
fn replies_that_make_no_sense_change_nothing_and_are_shown() {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let local = format!("local stratum {STRATUM}");
    let _chronyd = Chronyd::server(ntp_port, command_port, &local);
    let proxy = Proxy::start(ntp_port, damaged_reply);
    let server = follow(&format!("follow = \"{}\"", proxy.address));
    what_is_damaged_changes_nothing(
        &server,
        &proxy,
        [
            (Harm::CutOff, "garbled", "its answer has 47 bytes"),
            (Harm::Garbage, "garbled", "its answer belongs to another request"),
            (Harm::Refused, "garbled", "it sent the kiss code 44454E59 (DENY)"),
            (Harm::Forged, "garbled", "its answer belongs to another request"),
            (Harm::Lost, "silent", "it does not answer"),
        ],
    );
}

/// Each harm with the state of the source that it makes, and why.
fn what_is_damaged_changes_nothing(
    server: &Server,
    proxy: &Proxy,
    harms: [(Harm, &'static str, &'static str); 5],
) {
    wait_for(server, "synchronised");
    assert_eq!(told(server).stratum, STRATUM);
    for (harm, state, says) in harms {
        proxy.harm(harm);
        wait_until(says, || wait_for(server, state).contains(says));
        let header = told(server);
        assert_eq!((header.leap, header.stratum), (Leap::None, STRATUM));
        // A round in which even that comes late is a silent one.
        shown(server, &["status"], &[says, &format!("stratum {STRATUM} is told for ")]);
    }
    let asked = json(server, "sources")["sources"][0].clone();
    assert_eq!(asked["reach"].as_u64().expect("a number") & 1, 0, "{asked}");
    assert_eq!(asked["stratum"], STRATUM);
    proxy.harm(Harm::None);
    assert_eq!(wait_for(server, "synchronised"), "");
    assert!(!server.log().contains("clock ended"), "{}", server.log());
}

#[test]
fn the_clock_is_shown_with_its_sources() {
    let [ntp_port, command_port] = [(); 2].map(|()| free_udp_port());
    let local = format!("local stratum {STRATUM}");
    let _chronyd = Chronyd::server(ntp_port, command_port, &local);
    let server = follow(&format!(
        "chronyd = \"127.0.0.1:{command_port}\"\nfollow = \"127.0.0.1:{ntp_port}\""
    ));
    // Either may have been late in the first round.
    wait_until("both have answered", || {
        let sources = json(&server, "sources");
        (0..2).all(|place| sources["sources"][place]["stratum"] == STRATUM)
    });
    let tracking = json(&server, "tracking");
    assert_eq!((&tracking["source"], &tracking["leap"]), (&"follow".into(), &"none".into()));
    assert_eq!(
        (&tracking["stratum"], &tracking["chronyd"]["stratum"]),
        (&STRATUM.into(), &STRATUM.into())
    );
    assert_eq!(tracking["reference_id"], "7F7F0101");
    assert_eq!(tracking["holdover_seconds"], 3600.0);
    let sources = json(&server, "sources");
    assert_eq!(sources["sources"][0]["kind"], "tracking");
    assert_eq!(sources["sources"][1]["address"], format!("127.0.0.1:{ntp_port}"));
    assert!(sources["kernel"]["is_synchronised"].is_boolean());
    let data = json(&server, "ntpdata");
    assert_eq!(data["last"]["stratum"], STRATUM);
    assert!(data["answered"].as_u64() > Some(0), "{data}");
    for (command, parts) in [
        (
            "tracking",
            &[
                "Source             follow, synchronised\n",
                "Stratum            6\n",
                "Leap status        none\n",
                " s, growing by ",
                " of the time that is told",
                "chronyd says\n",
            ][..],
        ),
        (
            "sources",
            &[
                "follow, synchronised\n",
                "tracking  127.0.0.1:",
                "ntp       127.0.0.1:",
                "adjtimex  the kernel: ",
            ],
        ),
        (
            "ntpdata",
            &["Remote address     127.0.0.1:", "Peer delay         0.", "Total bad RX       0\n"],
        ),
        ("status", &["follows 127.0.0.1:", "synchronised; stratum 6, within 0.0"]),
    ] {
        shown(&server, &[command], parts);
    }
}

#[test]
fn a_socket_that_is_not_there_or_not_for_us_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("chronyd.sock");
    let mut server = follow(&format!("chronyd = \"{}\"", path.display()));
    assert_eq!(wait_for(&server, "silent"), format!("no chronyd listens at {}", path.display()));
    assert_eq!((told(&server).leap, told(&server).stratum), (Leap::Unsynchronised, 0));
    if !getuid().is_root() {
        println!("the other half NOT tested here: this is not root");
        return;
    }
    // Its directory lets nobody in but its owner.
    server.restart_as(STRANGER);
    let why = wait_for(&server, "silent");
    assert!(
        why.starts_with(&format!("may not use {}: start timeball as root", path.display())),
        "{why}"
    );
    assert!(run(&server, &["sources"]).contains("may not use"));
}
