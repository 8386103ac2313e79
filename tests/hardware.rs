//! Hardware timestamps where no interface has any: what the program says, and what it serves then.

mod common;

use std::process::Command;

use common::plain_request;
use common::rig::receive;
use common::server::{Server, program, udp_client};
use serde_json::Value;
use timeball::aead::Algorithm;
use timeball::wire::ntp::Mode;

/// What `timeball NAME --json` says.
fn say(server: &Server, name: &str) -> Value {
    let configuration = server.directory.path().join("timeball.toml");
    let mut command: Command = program();
    let output = command.args([name, "--json", "--config"]).arg(configuration).output();
    let output = output.expect("run");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Through both ports: sockets ask the kernel for the interface's timestamps, none come, and the
/// kernel's own are served.
#[test]
fn where_no_interface_can_a_line_says_so_and_the_kernel_s_timestamps_are_served() {
    for port in ["mmsg", "uring"] {
        let ntp = format!("hardware_timestamps = [\"lo\", \"no-such\"]\nport = \"{port}\"");
        let server = Server::start_with(Algorithm::AesSivCmac256, &ntp, "", "");
        let log = server.log();
        for line in [
            "timeball: warning: lo has no clock (PHC), so the kernel's timestamps are used; \
             `ethtool -T lo` shows what it can; take it out of ntp.hardware_timestamps",
            "timeball: warning: there is no interface no-such, so the kernel's timestamps are \
             used; `ip link` lists those that there are; take it out of ntp.hardware_timestamps",
        ] {
            assert!(log.contains(line), "{log}");
        }
        for address in [server.ntp(), server.ntp_v6()] {
            let client = udp_client(address);
            client.send(&plain_request(4, Mode::Client)).expect("sent");
            receive(&client);
        }
        let stats = say(&server, "serverstats");
        for name in [
            "receive_timestamps_missing",
            "receive_timestamps_hardware",
            "receive_timestamps_hardware_refused",
            "transmit_timestamps_hardware",
            "transmit_timestamps_hardware_refused",
        ] {
            assert_eq!(stats["responder"][name], 0, "{name}: {stats}");
        }
        assert_eq!(say(&server, "sources")["hardware"], Value::Array(Vec::new()));
    }
}
