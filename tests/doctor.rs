//! `timeball doctor` on this machine, as it is, and in a namespace where its advice is taken.

mod common;

use std::fs;
use std::process::{Command, Output};

use common::namespace::Hosts;
use common::server::{Server, program};
use rustix::process::Signal;
use serde_json::Value;

fn doctor(server: &Server, arguments: &[&str]) -> Output {
    let configuration = server.directory.path().join("timeball.toml");
    let mut command = program();
    command.arg("doctor").arg("--config").arg(configuration).args(arguments);
    command.output().expect("the program")
}

fn findings(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn texts<'a>(findings: &'a [Value], check: &str) -> Vec<(&'a str, &'a str)> {
    let of_check = findings.iter().filter(|found| found["check"] == check);
    let text = |value: &'a Value| value.as_str().expect("text");
    of_check.map(|found| (text(&found["state"]), text(&found["text"]))).collect()
}

#[test]
fn this_machine_is_looked_at_as_it_is() {
    let mut server = Server::start();
    let output = doctor(&server, &["--json"]);
    let found = findings(&output);
    let udp = format!("udp {} is timeball's", server.ntp());
    let tcp = format!("tcp {} is timeball's", server.ke());
    let ports = texts(&found, "port");
    assert_eq!(ports.len(), 4, "{found:#?}");
    assert!(ports.contains(&("ok", &udp)) && ports.contains(&("ok", &tcp)), "{ports:?}");
    let answers = texts(&found, "answer");
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert!(answers.iter().all(|(state, _)| *state == "ok"), "{answers:?}");
    assert_eq!(texts(&found, "server")[0].0, "ok");
    assert!(texts(&found, "key file").iter().all(|(state, _)| *state == "ok"));
    // The certificate of the test is good for a day less than thirty.
    assert_eq!(texts(&found, "certificate")[0].0, "warning");
    for finding in &found {
        let is_well = finding["state"] == "ok";
        assert_eq!(finding["fix"].is_null(), is_well, "{finding}");
    }
    // The exit code is the worst of them.
    let rank = |state: &Value| {
        ["ok", "warning", "unknown", "critical"].iter().position(|it| state == it).expect("a state")
    };
    let worst = found.iter().map(|finding| rank(&finding["state"])).max().expect("some");
    let code = [0, 1, 3, 2][worst];
    assert_eq!(output.status.code(), Some(code));

    // The folder of the test is open to all; its fix is a command.
    let folder = found.iter().find(|found| found["check"] == "state directory").expect("looked at");
    assert_eq!(folder["state"], "warning", "{folder}");
    let fix = folder["fix"].as_str().expect("a command");
    assert!(Command::new("sh").args(["-c", fix]).status().expect("a shell").success());
    let found = findings(&doctor(&server, &["--json"]));
    assert_eq!(texts(&found, "state directory")[0].0, "ok");

    let output = doctor(&server, &[]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), found.len() + 2, "one line each, and a sum:\n{text}");
    let quiet = String::from_utf8(doctor(&server, &["-q"]).stdout).expect("text");
    assert!(!quiet.lines().any(|line| line.starts_with("ok ")), "{quiet}");

    server.signal(Signal::TERM);
    server.wait();
    let found = findings(&doctor(&server, &["--json"]));
    assert_eq!(texts(&found, "server"), [("ok", "none runs with this configuration")]);
    let free = format!("udp {} is free", server.ntp());
    assert!(texts(&found, "port").contains(&("ok", &free)), "{found:#?}");
}

#[test]
fn a_wrong_configuration_is_critical_and_wrong_usage_unknown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("timeball.toml");
    fs::write(&file, "[ntp]\nlisen = []\n").expect("written");
    let mut command = program();
    let output = command.args(["doctor", "--config"]).arg(&file).output().expect("the program");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("critical  configuration: "), "{text}");
    assert!(text.contains("did you mean \"listen\"?; fix: "), "{text}");
    let output = program().args(["doctor", "--confg"]).output().expect("the program");
    assert_eq!(output.status.code(), Some(3));
}

/// The commands that it prints take its own findings away.
#[test]
fn what_it_prints_helps() {
    let hosts = Hosts::new().expect("root, and iproute2");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("timeball.toml");
    let configuration = "[ntp]\nbind_device = \"lan\"\nbusy_poll_microseconds = 50\n\
        receive_buffer_bytes = 4096\nsend_buffer_bytes = 4096\n\
        [ke]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";
    fs::write(&file, configuration).expect("written");
    let run = |command: &mut Command| command.output().expect("ip netns exec");
    run(hosts.server.command("sysctl").args(["-w", "net.core.somaxconn=100"]));
    hosts.server.ip(&["link", "set", "lan", "mtu", "1000"]).expect("set");
    let look = || {
        let mut command = hosts.server.command(env!("CARGO_BIN_EXE_timeball"));
        findings(&run(command.args(["doctor", "--host", "--json", "--config"]).arg(&file)))
    };
    let checks = ["accept queue", "busy polling", "mtu", "connection tracking"];
    // Where the kernel has no such thing there is nothing to be found.
    let is_tracking = fs::exists("/proc/sys/net/netfilter/nf_conntrack_count").expect("procfs");
    let faults = || {
        let mut faults = look();
        faults.retain(|found| {
            found["state"] != "ok" && checks.iter().any(|check| found["check"] == *check)
        });
        faults
    };
    let found = faults();
    assert_eq!(found.len(), 4 + usize::from(is_tracking), "{found:#?}");
    for finding in &found {
        let fix = finding["fix"].as_str().expect("a command");
        let output = run(hosts.server.command("sh").args(["-c", fix]));
        assert!(output.status.success(), "{fix}: {output:?}");
    }
    assert_eq!(faults(), Vec::<Value>::new());
}

#[test]
fn a_list_that_cannot_be_read_is_found() {
    let server = Server::start();
    let file = server.directory.path().join("timeball.toml");
    let text = fs::read_to_string(&file).expect("its configuration");
    fs::write(&file, format!("{text}[access]\ndeny_file = \"/nonexistent\"\n")).expect("written");
    let found = findings(&doctor(&server, &["--json"]));
    let configuration = texts(&found, "configuration");
    assert_eq!(configuration[0].0, "critical", "{configuration:?}");
    assert!(configuration[0].1.contains("access.deny_file: /nonexistent"), "{configuration:?}");
}
