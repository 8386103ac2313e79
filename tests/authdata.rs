//! `timeball authdata` beside what a real client has, against timeball and chronyd.

mod common;
mod peer;

use std::process::Output;

use common::server::{Server, free_tcp_port, program, wait_until};
use peer::{Chronyd, ChronydServer};
use serde_json::{Value, json};
use timeball::aead::Algorithm;

fn authdata(arguments: &[&str]) -> Output {
    program().args(["authdata", "--timeout=10"]).args(arguments).output().expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The columns of the line that begins with `name`, but the seconds since key establishment.
fn columns(table: &str, name: &str) -> Option<Vec<String>> {
    let line = table.lines().find(|line| line.starts_with(name))?;
    let mut columns: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    columns.remove(5);
    Some(columns)
}

#[test]
fn it_shows_what_chronyd_has_of_the_same_server() {
    let server = Server::start();
    let mut client = Chronyd::client(server.ke_port, &server.certificate());
    // While a request is under way one cookie is missing, so not every look shows eight.
    let theirs = client.wait("chronyd has 8 cookies", &["authdata"], |table| {
        columns(table, "127.0.0.1").filter(|columns| columns[1] == "NTS" && columns[7] == "8")
    });
    let ke = server.ke().to_string();
    let certificate = server.certificate();
    let output = authdata(&[&ke, "--ca", certificate.to_str().expect("text")]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    let ours = columns(&table, &ke).expect("a line");
    // Name, mode, key, AEAD, bits of the key, attempts, NAKs, cookies, bytes of a cookie.
    assert_eq!(ours[1..], theirs[1..], "{table}");
    assert!(table.ends_with("\nauthentic: 1 of 1 servers\n"), "{table}");
}

#[test]
fn a_real_chronyd_and_each_aead_are_shown() {
    let chronyd = ChronydServer::start(None);
    let ke = format!("127.0.0.1:{}", chronyd.ke_port);
    let certificate = chronyd.certificate();
    let trusting = [ke.as_str(), "--ca", certificate.to_str().expect("text")];
    // On a busy machine a handshake may take longer than chronyd's two seconds.
    wait_until("key establishment", || authdata(&trusting).status.success());
    let table = text(&authdata(&trusting).stdout);
    let shown = columns(&table, &ke).expect("a line");
    assert_eq!(shown[1..], ["NTS", "1", "15", "256", "0", "0", "8", "100"], "{table}");

    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "aeads = [15, 17, 30]");
    let certificate = server.certificate();
    for (aead, key_bits, cookie_bytes) in [("30", "128", "68"), ("17", "512", "164")] {
        let (ke, ca) = (server.ke().to_string(), certificate.to_str().expect("text"));
        let table = text(&authdata(&[&ke, "--ca", ca, "--aead", aead]).stdout);
        let shown = columns(&table, &ke).expect("a line");
        let expected = ["NTS", "1", aead, key_bits, "0", "0", "8", cookie_bytes];
        assert_eq!(shown[1..], expected, "{table}");
    }
}

#[test]
fn what_fails_has_zeros_and_its_reason() {
    // Key establishment leads to a server that has other master keys.
    let server = Server::start_with(Algorithm::AesSivCmac256, "", "", "ntp_server = \"127.0.0.2\"");
    let listen = format!("listen = [\"127.0.0.2:{}\"]", server.ntp_port);
    let _other = Server::start_with(Algorithm::AesSivCmac256, &listen, "", "");
    let (ke, certificate) = (server.ke().to_string(), server.certificate());
    let nobody = format!("127.0.0.1:{}", free_tcp_port());
    let both = [ke.as_str(), &nobody, "--ca", certificate.to_str().expect("text")];
    let output = authdata(&both);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    let shown = columns(&table, &ke).expect("a line");
    assert_eq!(shown[1..], ["NTS", "1", "15", "256", "0", "1", "7", "100"], "{table}");
    assert!(table.contains("the server refused the cookie (NTS NAK)"), "{table}");
    let shown = columns(&table, &nobody).expect("a line");
    assert_eq!(shown[1..], ["NTS", "0", "0", "0", "1", "0", "0", "0"], "{table}");
    assert!(table.contains("does not take connections on TCP port"), "{table}");
    assert!(table.ends_with("\nauthentic: 0 of 2 servers\n"), "{table}");

    let output = authdata(&[&both[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows[0]["server"], ke.as_str());
    assert_eq!(rows[0]["aead"], "AES-SIV-CMAC-256");
    assert_eq!((&rows[0]["naks"], &rows[0]["cookies"]), (&json!(1), &json!(7)));
    assert!(rows[0]["last_seconds"].as_f64() >= Some(0.0), "{rows}");
    assert_eq!((&rows[1]["attempts"], &rows[1]["last_seconds"]), (&json!(1), &Value::Null));
    assert!(rows[1]["why"].as_str().expect("text").contains(&nobody[..9]), "{rows}");
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in [&[][..], &["::1]"], &["localhost", "--aead", "16"]] {
        let output = authdata(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
