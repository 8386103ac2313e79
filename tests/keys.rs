//! `timeball keys` as an operator uses it.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::server::Server;
use timeball::aead::{Algorithm, MasterKey, NonceGenerator};
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::sys::file::replace_private;

fn keys(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_timeball"))
        .arg("keys")
        .args(arguments)
        .arg("--state-directory")
        .arg(directory)
        .output()
        .expect("the program")
}

fn done(arguments: &[&str], directory: &Path) -> String {
    let output = keys(arguments, directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(arguments: &[&str], directory: &Path) -> String {
    let output = keys(arguments, directory);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    message
}

/// A state directory with keys of a known age.
fn with_keys(algorithm: Algorithm, age_seconds: f64) -> (tempfile::TempDir, KeyRing) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = NonceGenerator::new().expect("random numbers");
    let ring = KeyRing::generate(algorithm, |bytes| random.fill(bytes));
    let text = ntskeys::emit(&ring, age_seconds);
    replace_private(&directory.path().join("ntskeys"), text.as_bytes()).expect("written");
    (directory, ring)
}

fn ids(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("ntskeys")).expect("the file");
    ntskeys::parse(&text).expect("well-formed").ring.keys().iter().map(MasterKey::id).collect()
}

#[test]
fn show_tells_everything_but_the_keys() {
    let (directory, ring) = with_keys(Algorithm::AesSivCmac256, 2.0 * 86_400.0);
    let text = done(&["show"], directory.path());
    assert!(text.contains("newest key     2days old"), "{text}");
    assert!(text.contains("next rotation  in 4days 23h 59m,"), "{text}");
    let json = done(&["show", "--json"], directory.path());
    let shown: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    for (place, key) in ring.keys().iter().enumerate() {
        assert!(text.contains(&format!("{:08X}", key.id())));
        assert_eq!(shown["keys"][place]["id"], format!("{:08X}", key.id()));
        assert_eq!(shown["keys"][place]["algorithm"], 15);
        let hex: String = key.expose_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for part in [&hex[..16], &hex[48..]] {
            assert!(!text.to_lowercase().contains(part) && !json.to_lowercase().contains(part));
        }
    }
    assert_eq!(shown["keys"][2]["place"], "current");
    let next_seconds = shown["next_rotation_seconds"].as_u64().expect("a number");
    assert!((5 * 86_400 - 600..=5 * 86_400).contains(&next_seconds), "{next_seconds}");
}

#[test]
fn rotate_makes_the_next_key_current() {
    let (directory, ring) = with_keys(Algorithm::AesSivCmac256, 86_400.0);
    let before: Vec<u32> = ring.keys().iter().map(MasterKey::id).collect();
    let text = done(&["rotate"], directory.path());
    assert!(text.starts_with(&format!("{:08X} is current now", before[3])), "{text}");
    assert_eq!(ids(directory.path())[..3], before[1..]);
    let shown = done(&["show", "--json"], directory.path());
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert!(shown["newest_key_age_seconds"].as_u64().expect("a number") < 600);
    let mode = fs::metadata(directory.path().join("ntskeys")).expect("it").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn import_and_export_speak_both_forms_of_chrony() {
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv] {
        let (theirs, ring) = with_keys(algorithm, 3600.0);
        let (ours, before) = with_keys(Algorithm::AesSivCmac256, 0.0);
        for old_form in [false, true] {
            let file = theirs.path().join("exported");
            let file = file.to_str().expect("text");
            let mut arguments = vec!["export", file];
            arguments.extend(old_form.then_some("--nks0"));
            done(&arguments, theirs.path());
            let mode = fs::metadata(file).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let exported = fs::read_to_string(file).expect("the file");
            assert!(exported.starts_with(if old_form { "NKS0\n" } else { "NKS1\n36" }));
            let text = done(&["import", file], ours.path());
            assert!(text.contains("the keys before are kept in"), "{text}");
            let expected: Vec<u32> = ring.keys().iter().map(MasterKey::id).collect();
            assert_eq!(ids(ours.path()), expected);
            let printed = done(&["export", "-"], ours.path());
            assert_eq!(printed.lines().skip(2).collect::<Vec<_>>(), lines(&ring));
        }
        let kept = fs::read_to_string(ours.path().join("ntskeys.old-1")).expect("kept");
        assert_eq!(kept.lines().skip(2).collect::<Vec<_>>(), lines(&before));
    }
}

fn lines(ring: &KeyRing) -> Vec<String> {
    ntskeys::emit(ring, 0.0).lines().skip(2).map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let (directory, _) = with_keys(Algorithm::AesSivCmac256, 0.0);
    let before = ids(directory.path());
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    };
    let import = |path: &Path| refused(&["import", path.to_str().expect("text")], directory.path());
    assert!(import(&file("garbage", b"garbage")).contains("is no ntskeys file: line 1"));
    assert!(import(&directory.path().join("absent")).contains("check its name"));
    let mut foreign = [7; 20 + 2 * 64];
    foreign[16..20].copy_from_slice(&2_u32.to_be_bytes());
    assert!(import(&file("ntpd-rs", &foreign)).contains("is a key file of ntpd-rs"));
    let (empty, _) = (tempfile::tempdir().expect("a directory"), ());
    for command in ["show", "rotate"] {
        assert!(refused(&[command], empty.path()).contains("there are no master keys in"));
    }
    assert_eq!(ids(directory.path()), before);
}

#[test]
fn keys_in_use_are_shown_and_not_changed() {
    let server = Server::start();
    let directory = server.directory.path();
    let before = ids(directory);
    assert!(done(&["show"], directory).contains(&format!("{:08X}", before[2])));
    let exported = directory.join("exported");
    done(&["export", exported.to_str().expect("text")], directory);
    let import = ["import", exported.to_str().expect("text")];
    assert!(refused(&import, directory).contains("in use by a running timeball; stop it"));
    assert_eq!(ids(directory), before);
    // Another server must not rotate the same file either.
    let second = Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["serve", "--config"])
        .arg(directory.join("timeball.toml"))
        .output()
        .expect("the program");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by a running timeball"));
}

/// Root works for a server that runs as somebody else.
#[test]
fn what_root_writes_is_the_owners_of_the_directory() {
    let (from, _) = with_keys(Algorithm::AesSivCmac256, 0.0);
    let to = tempfile::tempdir().expect("a directory");
    let nobody = Some(65_534);
    std::os::unix::fs::chown(to.path(), nobody, nobody).expect("the tests run as root");
    let file = from.path().join("ntskeys");
    done(&["import", file.to_str().expect("text")], to.path());
    done(&["rotate"], to.path());
    for name in ["ntskeys", "ntskeys.lock"] {
        let metadata = fs::metadata(to.path().join(name)).expect(name);
        assert_eq!((metadata.uid(), metadata.gid()), (65_534, 65_534), "{name}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}
