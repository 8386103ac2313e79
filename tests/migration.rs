//! The move that docs/MIGRATION.md describes, with a client that must not notice.

mod common;
mod peer;

use std::fs;
use std::process::{Command, Output};

use common::server::{Server, kill, wait_until};
use peer::{Chronyd, ChronydServer};
use rustix::process::Signal;

/// More than the eight cookies that a client keeps: the last ones are of the new server.
const POLLS: usize = 10;

fn import(file: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["config", "import"])
        .arg(file)
        .output()
        .expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Requests of this client that were answered well.
fn received(client: &mut Chronyd, at_least: usize) -> usize {
    client.wait("chronyd polls", &["ntpdata", "127.0.0.1"], |data| {
        let line = data.lines().find(|line| line.starts_with("Total valid RX"))?;
        line.split_once(':')?.1.trim().parse::<usize>().ok().filter(|count| *count >= at_least)
    })
}

#[test]
fn a_client_of_chronyd_goes_on_with_timeball() {
    let mut old = ChronydServer::start(None);
    let options = format!("nts ntsport {} port {}", old.ke_port, old.ntp_port);
    let mut client = Chronyd::client_polling(0, &options, &old.certificate());
    let before = received(&mut client, 1);

    let imported = import(&old.configuration());
    assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
    assert!(text(&imported.stdout).contains("allow = [\"127.0.0.1/32\"]"));
    let mut new = Server::start();
    let directory = new.directory.path().to_owned();
    let state = format!("state_directory = \"{}\"\n", directory.display());
    fs::write(directory.join("timeball.toml"), state + &text(&imported.stdout)).expect("written");

    // A client that polls every minute sleeps through the move. This one polls every second and
    // would run out of cookies, if the machine is so busy that the move takes longer than eight.
    kill(client.peer.pid(), Signal::STOP);
    old.chronyd.stop();
    fs::write(directory.join("ntskeys"), old.ntskeys()).expect("written");
    keep_the_clock_only(&old);
    old.chronyd.restart();
    new.restart();
    kill(client.peer.pid(), Signal::CONT);

    received(&mut client, before + POLLS);
    client.wait("chronyd shows its association", &["authdata"], |table| {
        let line = table.lines().find(|line| line.starts_with("127.0.0.1"))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        // One key establishment, no failed attempt, no NAK.
        assert_eq!((columns[2], columns[6], columns[7]), ("1", "0", "0"), "{table}");
        Some(())
    });
    // It was timeball that answered, with what chronyd says of the clock.
    let tracking = || {
        let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
            .args(["tracking", "--json", "--config"])
            .arg(directory.join("timeball.toml"))
            .output()
            .expect("the program");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    wait_until("chronyd's stratum is told", || tracking()["stratum"] == 5);
}

/// What the imported file says is left to do: `port 0`, and no certificate.
fn keep_the_clock_only(server: &ChronydServer) {
    let path = server.configuration();
    let lines: Vec<String> = fs::read_to_string(&path)
        .expect("readable")
        .lines()
        .filter(|line| !line.starts_with("ntsserver"))
        .map(|line| if line.starts_with("port ") { "port 0".to_owned() } else { line.to_owned() })
        .collect();
    fs::write(path, lines.join("\n") + "\n").expect("written");
}

#[test]
fn every_file_that_is_printed_is_good_and_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a directory");
    for (name, content, code, summary) in [
        // As Debian 12 has it.
        (
            "chrony.conf",
            "confdir /nowhere/conf.d\npool 2.debian.pool.ntp.org iburst\n\
             sourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n\
             keyfile /etc/chrony/chrony.keys\ndriftfile /var/lib/chrony/chrony.drift\n\
             ntsdumpdir /var/lib/chrony\nlogdir /var/log/chrony\nmaxupdateskew 100.0\nrtcsync\n\
             makestep 1 3\nleapsectz right/UTC\n",
            0,
            "1 kept, 1 changed, 10 ignored, 0 missing",
        ),
        ("other.conf", "allow\nptpport 319\nmore\n", 1, "1 kept, 0 changed, 0 ignored, 2 missing"),
        (
            "ntp.toml",
            "[[source]]\nmode = \"pool\"\naddress = \"ntppool.org\"\ncount = 4\n\
             [[server]]\nlisten = \"[::]:123\"\n",
            0,
            "1 kept, 0 changed, 3 ignored, 0 missing",
        ),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, content).expect("written");
        let imported = import(&file);
        let errors = text(&imported.stderr);
        assert_eq!(imported.status.code(), Some(code), "{errors}");
        assert!(errors.contains(summary), "{errors}");
        assert_eq!(errors.lines().count(), if code == 0 { 1 } else { 3 }, "{errors}");
        let made = folder.path().join("made.toml");
        fs::write(&made, &imported.stdout).expect("written");
        let checked = Command::new(env!("CARGO_BIN_EXE_timeball"))
            .args(["config", "check"])
            .arg(&made)
            .output()
            .expect("the program");
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
    let absent = import(&folder.path().join("absent"));
    assert_eq!(absent.status.code(), Some(2));
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "[[server]\n").expect("written");
    assert!(text(&import(&broken).stderr).contains("line 1"), "{}", text(&import(&broken).stderr));
}
