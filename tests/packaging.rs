//! What packages contain beside the program, held to the tools that will read it. The packages
//! themselves are `packaging/test`'s.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use timeball::limits::{NTP_PORT, NTS_KE_PORT};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packaging(path: &str) -> PathBuf {
    root().join("packaging").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(packaging(path)).expect(path)
}

/// Runs a program that `tests/install-peers` installs; returns what it printed if it is content.
fn content(command: &mut Command) -> String {
    let program = command.get_program().to_owned();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output: Output = command
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("{program:?}: {error}; run tests/install-peers"));
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("text");
    assert!(output.status.success(), "{program:?}: {printed}");
    printed
}

/// In a network namespace of its own, with PATH as root has it.
fn apart(script: &str, argument: &Path) -> String {
    content(Command::new("unshare").args(["--net", "sh", "-ec", script, "sh"]).arg(argument))
}

/// Exposure by `systemd-analyze security`, in tenths: 0 is a unit that can do nothing, 100 one that
/// is not confined at all.
const EXPOSURE_TENTHS_MAX: u32 = 20;

#[test]
fn the_unit_is_confined_as_far_as_it_can_be() {
    let unit = packaging("systemd/timeball.service");
    let judged = content(
        Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE_TENTHS_MAX}"))
            .arg(&unit),
    );
    let last = judged.lines().rfind(|line| line.contains("exposure")).expect("a judgement");
    println!("{last}");
}

/// The drop-in for interfaces that stamp adds what it needs and no more: systemd reads it without a
/// complaint, and judges the unit a little worse.
#[test]
fn the_drop_in_for_hardware_timestamps_is_read_and_opens_little() {
    const EXPOSURE_WITH_IT_TENTHS_MAX: u32 = 23;
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("timeball.service");
    fs::copy(packaging("systemd/timeball.service"), &unit).expect("copied");
    let drop_ins = folder.path().join("timeball.service.d");
    fs::create_dir(&drop_ins).expect("made");
    let file = "hardware-timestamps.conf";
    fs::copy(packaging("systemd").join(file), drop_ins.join(file)).expect("copied");
    let judged = content(
        Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(format!("--threshold={EXPOSURE_WITH_IT_TENTHS_MAX}"))
            .arg(&unit),
    );
    assert!(!judged.contains(file), "a complaint: {judged}");
    let granted = |line: &&str| line.contains("CAP_NET_ADMIN") && line.starts_with('\u{2717}');
    assert!(judged.lines().any(|line| granted(&line.trim_start())), "it was not read: {judged}");
}

#[test]
fn the_packaged_configuration_is_good_with_and_without_a_certificate() {
    let text = read("timeball.toml");
    let with = text.replace("\n#certificate", "\ncertificate").replace("\n#key", "\nkey");
    assert_ne!(text, with);
    for (text, has_ke) in [(&text, false), (&with, true)] {
        let settings = timeball::config::checked::parse(text).expect("good");
        assert_eq!(settings.ke.is_some(), has_ke);
    }
}

#[test]
fn firewalls_open_our_ports() {
    let xml = packaging("firewall/firewalld-timeball.xml");
    content(Command::new("xmllint").arg("--noout").arg(&xml));
    let ports = content(Command::new("xmllint").args(["--xpath", "//port/@port"]).arg(&xml));
    let ports: Vec<u16> = ports.split('"').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(ports, [NTP_PORT, NTS_KE_PORT]);
    let ufw = read("firewall/ufw-timeball");
    assert!(ufw.contains(&format!("ports={NTP_PORT}/udp|{NTS_KE_PORT}/tcp\n")), "{ufw}");
    assert!(ufw.starts_with("[timeball]\n"), "{ufw}");
}

#[test]
fn nft_takes_the_notrack_rules_again_and_again_and_gives_them_back() {
    let rules = packaging("firewall/timeball-notrack.nft");
    let script = "nft -f \"$1\"; nft -f \"$1\"; nft list ruleset; \
                  nft delete table inet timeball_notrack; nft list ruleset | wc -l";
    let listed = apart(script, &rules);
    assert_eq!(listed.matches("notrack\n").count(), 2, "{listed}");
    assert!(listed.ends_with("}\n0\n"), "{listed}");
}

#[test]
fn apparmor_takes_the_profile() {
    content(
        Command::new("apparmor_parser")
            .args(["--skip-kernel-load", "--skip-cache"])
            // What kernels of Debian can do; this one's word is not asked.
            .args(["--features-file", "/usr/share/apparmor-features/features"])
            .arg(packaging("apparmor/usr.bin.timeball")),
    );
}

#[test]
fn renewal_hooks_put_a_pair_in_its_place() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    for (name, content) in [("fullchain.pem", "chain"), ("privkey.pem", "secret")] {
        fs::write(path(name), content).expect("written");
    }
    for (hook, name, is_ours) in [
        ("certificates/certbot-deploy-hook", "", true),
        ("certificates/certbot-deploy-hook", "b.example", true),
        ("certificates/certbot-deploy-hook", "example", false),
        ("certificates/lego-hook", "", true),
    ] {
        let to = tempfile::tempdir().expect("a directory");
        content(
            Command::new(packaging(hook))
                .env("RENEWED_LINEAGE", folder.path())
                .env("RENEWED_DOMAINS", "a.example b.example")
                .env("LEGO_CERT_PATH", path("fullchain.pem"))
                .env("LEGO_CERT_KEY_PATH", path("privkey.pem"))
                .env("TIMEBALL_NAME", name)
                .env("TIMEBALL_DIRECTORY", to.path())
                .env("TIMEBALL_GROUP", "nogroup"),
        );
        let mut found: Vec<(String, u32, String)> = fs::read_dir(to.path())
            .expect("a directory")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
                let text = fs::read_to_string(entry.path()).expect("text");
                (entry.file_name().into_string().expect("text"), mode, text)
            })
            .collect();
        found.sort();
        let pair = [("fullchain.pem", 0o644, "chain"), ("key.pem", 0o640, "secret")];
        let pair = pair.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(found, if is_ours { &pair[..] } else { &[] }, "{hook}");
    }
}

#[test]
fn the_installer_says_what_it_would_do() {
    let script = packaging("install.sh");
    let says = content(Command::new(&script).args(["--dry-run", "--name", "time.example.org"]));
    for line in [
        "+ timeball cert self-signed --name time.example.org",
        "+ timeball config check /etc/timeball/timeball.toml",
        "+ systemctl enable --quiet timeball",
        "  timeball query time.example.org --ca /etc/timeball/cert.pem",
    ] {
        assert!(says.contains(line), "{line}: {says}");
    }
    let own = content(Command::new(&script).args([
        "--dry-run",
        "--name",
        "time.example.org",
        "--certificate",
        packaging("install.sh").to_str().expect("text"),
        "--key",
        packaging("test").to_str().expect("text"),
    ]));
    let key = packaging("test");
    assert!(own.contains(&format!("|key = \"{}\"|", key.display())), "{own}");
    assert!(!own.contains("self-signed") && !own.contains("ntstrustedcerts"), "{own}");

    let help = content(Command::new(&script).arg("--help"));
    for option in ["--name", "--certificate", "--key", "--package", "--notrack", "--dry-run"] {
        assert!(help.contains(&format!("  {option} ")), "{option}: {help}");
    }
    for (arguments, code, words) in [
        (&[][..], 2, "which name do clients ask for? --name NAME"),
        (&["--name"], 2, "--name needs a value"),
        (&["--name", "a", "--key", "a"], 2, "--certificate and --key go together"),
        (&["--quick"], 2, "there is no option --quick"),
        (
            &["--dry-run", "--name", "a", "--key", "/absent", "--certificate", "/absent"],
            1,
            "--certificate: there is no /absent",
        ),
        (&["--name", "a", "--package", "/absent.deb"], 1, "there is no package /absent.deb"),
        (&["--name", "a", "--package", "/etc/passwd"], 2, "/etc/passwd is neither .deb nor .rpm"),
        (&["--dry-run", "--name", "two words"], 2, "\"two words\" is no name of a host"),
    ] {
        let output = Command::new(&script).args(arguments).output().expect("sh");
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {output:?}");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn scripts_have_no_fault_that_shellcheck_knows() {
    let listed = content(
        Command::new("grep")
            .args(["-rlE", "^#!(/bin/sh|/usr/bin/env bash)"])
            .args([".ci", "packaging", "tests/install-peers"])
            .current_dir(root()),
    );
    let scripts: Vec<&str> = listed.lines().collect();
    assert!(scripts.len() > 8, "{scripts:?}");
    content(Command::new("shellcheck").args(&scripts).current_dir(root()));
}
