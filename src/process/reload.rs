//! What a reload can change, and what it cannot.

use super::certificates::Certificates;
use super::key_keeper::KeeperError;
use crate::config::access::AccessError;
use crate::config::checked::{ControlSettings, KeSettings, KeyRotation, Settings};
use crate::config::file::FileError;
use crate::ke::tls::PairError;
use crate::networks::NetworkSet;
use crate::sys::socket::UdpOptions;

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The configuration.
    #[error(transparent)]
    Configuration(#[from] FileError),
    /// The access lists.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A certificate or its key.
    #[error(transparent)]
    Certificate(#[from] PairError),
    /// Memory to hand the access lists over in.
    #[error("cannot make memory for the access lists: {0}")]
    Memory(std::io::Error),
    /// The master keys.
    #[error(transparent)]
    Keys(#[from] KeeperError),
}

/// A configuration that was read again.
pub(super) struct Reread {
    /// Settings that hold from now on.
    pub(super) settings: Settings,
    /// Who is answered from now on.
    pub(super) access: NetworkSet,
    /// Certificates that are shown from now on; none without key establishment.
    pub(super) certificates: Option<Certificates>,
    /// The keys of the configuration that have changed and hold.
    pub(super) holds: Vec<&'static str>,
    /// Those that have changed and wait for a restart.
    pub(super) restart_needed: Vec<&'static str>,
}

impl Reread {
    /// What comes of `new` while `running` holds.
    pub(super) fn new(running: &Settings, new: &Settings) -> Result<Self, ReloadError> {
        let restart_needed = restart_needed(running, new);
        let mut settings = running.clone();
        let access = new.access.read()?;
        settings.access.clone_from(&new.access);
        settings.rates.clone_from(&new.rates);
        let mut certificates = None;
        if is_same_maker(running.rotation, new.rotation) {
            settings.rotation = new.rotation;
        }
        if let (Some(ke), Some(new)) = (&mut settings.ke, &new.ke) {
            certificates = Some(Certificates::read(&new.certificates)?);
            ke.certificates.clone_from(&new.certificates);
            ke.ntp_server.clone_from(&new.ntp_server);
            ke.timeout = new.timeout;
            ke.aeads.clone_from(&new.aeads);
            ke.compliant_128gcm = new.compliant_128gcm;
            ke.prefix.clone_from(&new.prefix);
        }
        let holds = changed_in_place(running, &settings);
        Ok(Self { settings, access, certificates, holds, restart_needed })
    }
}

/// What distinguishes settings from those before that the server goes on with.
fn changed_in_place(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let mut changed = vec![
        ("keys.rotate_every", old.rotation != new.rotation),
        ("access.allow", old.access.allow != new.access.allow),
        ("access.deny", old.access.deny != new.access.deny),
        ("access.allow_file", old.access.allow_file != new.access.allow_file),
        ("access.deny_file", old.access.deny_file != new.access.deny_file),
        ("rate_limit", old.rates != new.rates),
    ];
    if let (Some(old), Some(new)) = (&old.ke, &new.ke) {
        changed.extend([
            ("ke.certificate", old.certificates != new.certificates),
            ("ke.ntp_server", old.ntp_server != new.ntp_server),
            ("ke.timeout_seconds", old.timeout != new.timeout),
            ("ke.aeads", old.aeads != new.aeads),
            ("ke.compliant_128gcm", old.compliant_128gcm != new.compliant_128gcm),
            ("ke.prefix_connections_max", old.prefix.connections != new.prefix.connections),
            (
                "ke.prefix_handshakes_per_second",
                old.prefix.handshakes_per_second != new.prefix.handshakes_per_second,
            ),
            ("ke.unlimited_clients", old.prefix.unlimited != new.prefix.unlimited),
        ]);
    }
    of_changed(changed)
}

fn of_changed(keys: Vec<(&'static str, bool)>) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, is_changed)| is_changed.then_some(key)).collect()
}

/// The keys whose change takes a restart. Every setting is named here, so that a new one has to be
/// decided on.
fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let Settings {
        state_directory,
        // What it sets is compared by itself.
        profile: _,
        ntp_listen,
        udp,
        hardware_timestamps,
        workers,
        port,
        // They hold at once.
        access: _,
        rates: _,
        interleaved_entries,
        count_networks,
        clock,
        ke,
        rotation,
        control,
        observe_listen,
        log,
        sandbox,
        user,
    } = old;
    let ControlSettings { socket, mode } = control;
    let UdpOptions {
        bind_device,
        busy_poll,
        hardware_stamps: _, // It follows from the interfaces that are named.
        dscp,
        receive_buffer_bytes,
        send_buffer_bytes,
    } = udp;
    let mut changed = vec![
        ("state_directory", *state_directory != new.state_directory),
        ("sandbox", *sandbox != new.sandbox),
        ("user", *user != new.user),
        ("ntp.listen", *ntp_listen != new.ntp_listen),
        ("ntp.bind_device", *bind_device != new.udp.bind_device),
        ("ntp.busy_poll_microseconds", *busy_poll != new.udp.busy_poll),
        ("ntp.hardware_timestamps", *hardware_timestamps != new.hardware_timestamps),
        ("ntp.dscp", *dscp != new.udp.dscp),
        ("ntp.receive_buffer_bytes", *receive_buffer_bytes != new.udp.receive_buffer_bytes),
        ("ntp.send_buffer_bytes", *send_buffer_bytes != new.udp.send_buffer_bytes),
        ("ntp.workers", workers.count != new.workers.count),
        ("ntp.cpus", workers.cpus != new.workers.cpus),
        ("ntp.port", *port != new.port),
        ("ntp.count_networks", *count_networks != new.count_networks),
        ("interleaved.entries", *interleaved_entries != new.interleaved_entries),
        ("clock.source", clock.source != new.clock.source),
        ("clock.stratum", clock.stratum != new.clock.stratum),
        ("clock.holdover", clock.holdover != new.clock.holdover),
        ("clock.chronyd", clock.chronyd != new.clock.chronyd),
        ("clock.follow", clock.follow != new.clock.follow),
        ("clock.leap_file", clock.leap_file != new.clock.leap_file),
        ("leap.smear", clock.smear != new.clock.smear),
        ("control.socket", *socket != new.control.socket),
        ("control.mode", *mode != new.control.mode),
        ("observe.listen", *observe_listen != new.observe_listen),
        ("log.directory", log.directory != new.log.directory),
        ("log.tracking, log.measurements or log.statistics", log.kinds != new.log.kinds),
        ("keys.rotate", !is_same_maker(*rotation, new.rotation)),
    ];
    match (ke, &new.ke) {
        (Some(old), Some(new)) => changed.extend(restart_needed_ke(old, new)),
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => {
            changed.push(("ke.certificate (key establishment on or off)", true));
        }
    }
    of_changed(changed)
}

/// Whether the same program makes the master keys; how often is no matter of a restart.
fn is_same_maker(old: KeyRotation, new: KeyRotation) -> bool {
    std::mem::discriminant(&old) == std::mem::discriminant(&new)
}

fn restart_needed_ke(old: &KeSettings, new: &KeSettings) -> [(&'static str, bool); 3] {
    // Not so: certificates, ntp_server, aeads, compliant_128gcm, timeout, prefix.
    let KeSettings { listen, processes, connections_max, .. } = old;
    [
        ("ke.listen", *listen != new.listen),
        ("ke.processes", *processes != new.processes),
        ("ke.connections_max", *connections_max != new.connections_max),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::parse;

    #[test]
    fn what_needs_a_restart_is_named_one_by_one() {
        let ke = "[ke]\ncertificate = \"a\"\nkey = \"b\"\n";
        let old = parse(ke).expect("good");
        assert!(restart_needed(&old, &old).is_empty());
        for (text, expected) in [
            (
                "state_directory = \"/x\"\n[ntp]\nlisten = [\"::1\"]\nbind_device = \"lo\"\n\
              hardware_timestamps = [\"*\"]\ndscp = 46\n\
              receive_buffer_bytes = 65536\nsend_buffer_bytes = 65536\n\
              workers = 3\ncpus = \"0\"\ncount_networks = true\n\
              port = \"uring\"\n[interleaved]\nentries = 0\n\
              [clock]\nsource = \"local\"\nstratum = 4\nholdover = 60\n\
              chronyd = \"[::1]:323\"\nfollow = \"127.0.0.1:1123\"\n\
              leap_file = \"/x/list\"\n[leap]\nsmear = \"linear\"\n\
              [keys]\nrotate = \"external\"\n\
              [control]\nsocket = \"/x/y\"\nmode = \"0660\"\n\
              [observe]\nlisten = \"::1\"\n[log]\ndirectory = \"/x\"\n",
                vec![
                    "state_directory",
                    "ntp.listen",
                    "ntp.bind_device",
                    "ntp.hardware_timestamps",
                    "ntp.dscp",
                    "ntp.receive_buffer_bytes",
                    "ntp.send_buffer_bytes",
                    "ntp.workers",
                    "ntp.cpus",
                    "ntp.port",
                    "ntp.count_networks",
                    "interleaved.entries",
                    "clock.source",
                    "clock.stratum",
                    "clock.holdover",
                    "clock.chronyd",
                    "clock.follow",
                    "clock.leap_file",
                    "leap.smear",
                    "control.socket",
                    "control.mode",
                    "observe.listen",
                    "log.directory",
                    "keys.rotate",
                    "ke.certificate (key establishment on or off)",
                ],
            ),
            (
                &format!("{ke}listen = [\"::1\"]\nprocesses = 3\nconnections_max = 4\n"),
                vec!["ke.listen", "ke.processes", "ke.connections_max"],
            ),
            (
                &format!(
                    "{ke}ntp_server = \"a.example\"\ntimeout_seconds = 1.0\naeads = [15]\n\
                       compliant_128gcm = true\nprefix_connections_max = 1\n\
                       prefix_handshakes_per_second = 1.0\nunlimited_clients = []\n\
                       [[ke.certificates]]\ncertificate = \"c\"\nkey = \"d\"\n\
                       [keys]\nrotate_every = \"2 days\"\n[access]\nallow = []\n\
                       [rate_limit]\nkiss = true\n"
                ),
                vec![],
            ),
        ] {
            assert_eq!(restart_needed(&old, &parse(text).expect(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_changes_in_place_is_named() {
        let old = parse("").expect("good");
        let new = parse("[ntp]\ndscp = 3\n[keys]\nrotate_every = \"2 days\"\n").expect("good");
        let Reread { settings, holds, restart_needed, .. } =
            Reread::new(&old, &new).expect("no files are read");
        assert_eq!((holds, restart_needed), (vec!["keys.rotate_every"], vec!["ntp.dscp"]));
        assert_eq!((settings.rotation, settings.udp), (new.rotation, old.udp));
    }
}
