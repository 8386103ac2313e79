//! Every key of the configuration file, once.

use std::fmt::Write as _;

/// One key of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section; empty for the keys in front of the first one.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// A value as it stands in the sample file.
    pub sample: &'static str,
    /// Whether timeball takes `sample` when the key is absent. Else the key has no default, and
    /// the sample file shows it commented out.
    pub is_default: bool,
    /// What it means, one sentence a line, as comments of the sample file.
    pub help: &'static [&'static str],
}

/// All keys, in the order of the sample file; those of a section stand together.
pub const KEYS: &[Key] = &[
    Key {
        section: "",
        name: "state_directory",
        sample: "\"/var/lib/timeball\"",
        is_default: true,
        help: &[
            "Where master keys (ntskeys) are kept. Must exist and belong to the user that runs",
            "timeball. A chrony server's ntskeys file may be put here: its cookies stay valid.",
        ],
    },
    Key {
        section: "",
        name: "sandbox",
        sample: "\"strict\"",
        is_default: false,
        help: &[
            "What the processes can do beside serving. \"strict\": nothing, or the server does not",
            "start. \"off\": whatever their user can. Default: as \"strict\", but a kernel without",
            "landlock is a warning.",
        ],
    },
    Key {
        section: "",
        name: "user",
        sample: "\"timeball\"",
        is_default: false,
        help: &[
            "Whom the processes that strangers talk to run as, if timeball is started as root: a",
            "name or a number. Default: timeball if there is such a user, else nobody. Without a",
            "sandbox they run as root.",
        ],
    },
    Key {
        section: "",
        name: "profile",
        sample: "\"shared\"",
        is_default: true,
        help: &[
            "What the machine is for. \"shared\": other programs too. \"appliance\": time alone;",
            "workers then poll their interface's queue (ntp.busy_poll_microseconds).",
        ],
    },
    Key {
        section: "ntp",
        name: "listen",
        sample: "[\"0.0.0.0:123\", \"[::]:123\"]",
        is_default: true,
        help: &["UDP addresses that answer NTP and NTS. All have the same port."],
    },
    Key {
        section: "ntp",
        name: "workers",
        sample: "2",
        is_default: false,
        help: &[
            "Worker threads, each on a processor of its own with sockets of its own, 1 to 256.",
            "Default: one for each processor in \"cpus\".",
        ],
    },
    Key {
        section: "ntp",
        name: "cpus",
        sample: "\"0-1\"",
        is_default: false,
        help: &[
            "Processors of the workers, in their order, for example \"2-7,10\". Default: all that",
            "this process may run on.",
        ],
    },
    Key {
        section: "ntp",
        name: "port",
        sample: "\"auto\"",
        is_default: true,
        help: &[
            "How datagrams come and go. \"mmsg\": recvmmsg and sendmmsg, on every Linux.",
            "\"uring\": io_uring; refuses to start where the kernel or a container forbids it.",
            "\"auto\": mmsg.",
        ],
    },
    Key {
        section: "ntp",
        name: "bind_device",
        sample: "\"eth0\"",
        is_default: false,
        help: &[
            "Answer NTP only where it comes in by this interface; what this host sends to itself",
            "comes in by \"lo\". Default: all interfaces. Key establishment is not bound. When the",
            "interface is removed and made again, timeball has to be started again.",
        ],
    },
    Key {
        section: "ntp",
        name: "busy_poll_microseconds",
        sample: "0",
        is_default: false,
        help: &[
            "How long a worker without requests polls its interface's queue before it sleeps, 0 to",
            "1000. For processors that do nothing else; needs CAP_NET_ADMIN, port mmsg and an",
            "interface set up for it (tuning/README.md). Default 0, in profile \"appliance\" 50.",
        ],
    },
    Key {
        section: "ntp",
        name: "dscp",
        sample: "0",
        is_default: true,
        help: &[
            "Differentiated Services Code Point of the replies, 0 to 63, for networks that treat",
            "packets by it. 46 is Expedited Forwarding.",
        ],
    },
    Key {
        section: "ntp",
        name: "receive_buffer_bytes",
        sample: "1048576",
        is_default: true,
        help: &[
            "Receive buffer of each socket, 4096 to 536870912: requests that wait for an answer.",
            "Beyond net.core.rmem_max it needs CAP_NET_ADMIN, and is capped without.",
        ],
    },
    Key {
        section: "ntp",
        name: "send_buffer_bytes",
        sample: "1048576",
        is_default: true,
        help: &[
            "Send buffer of each socket, 4096 to 536870912: replies that wait for the interface.",
            "Beyond net.core.wmem_max it needs CAP_NET_ADMIN, and is capped without.",
        ],
    },
    Key {
        section: "clock",
        name: "source",
        sample: "\"kernel\"",
        is_default: true,
        help: &[
            "Who answers for the time. \"kernel\": adjtimex says whether a time daemon keeps the",
            "system clock; if none does, clients are told so (leap 3, stratum 0). \"local\": the",
            "system clock is served as it is, for closed networks and tests.",
        ],
    },
    Key {
        section: "clock",
        name: "stratum",
        sample: "3",
        is_default: false,
        help: &[
            "Stratum told to clients, 1 to 15. Default 3 with \"kernel\", since the stratum of its",
            "daemon is not known, and 10 with \"local\".",
        ],
    },
    Key {
        section: "ke",
        name: "listen",
        sample: "[\"0.0.0.0:4460\", \"[::]:4460\"]",
        is_default: true,
        help: &["TCP addresses of NTS key establishment."],
    },
    Key {
        section: "ke",
        name: "certificate",
        sample: "\"/etc/timeball/fullchain.pem\"",
        is_default: false,
        help: &[
            "Certificate chain, PEM, the server's own certificate first. Without certificate and",
            "key the server answers plain NTP only.",
        ],
    },
    Key {
        section: "ke",
        name: "key",
        sample: "\"/etc/timeball/key.pem\"",
        is_default: false,
        help: &["Private key of the certificate, PEM."],
    },
    Key {
        section: "ke",
        name: "certificates",
        sample: "[{ certificate = \"/etc/timeball/2.pem\", key = \"/etc/timeball/2-key.pem\" }]",
        is_default: false,
        help: &[
            "Further certificates with their keys, chosen by the name that a client asks for; who",
            "asks for another name, or none, is shown the first of all.",
        ],
    },
    Key {
        section: "ke",
        name: "processes",
        sample: "2",
        is_default: false,
        help: &[
            "Processes that do key establishment, 1 to 64. Default: one for each processor that",
            "this process may run on, at most 8.",
        ],
    },
    Key {
        section: "ke",
        name: "ntp_server",
        sample: "\"time.example.org\"",
        is_default: false,
        help: &[
            "Name or address of the NTP server that clients are sent to. Default: none, and they",
            "take the address they did key establishment with.",
        ],
    },
    Key {
        section: "ke",
        name: "timeout_seconds",
        sample: "2.0",
        is_default: true,
        help: &["A connection is closed this long after it was accepted, 0.1 to 60."],
    },
    Key {
        section: "ke",
        name: "connections_max",
        sample: "2048",
        is_default: true,
        help: &[
            "Connections open at one time, of all processes together, 1 to 65536; each process has",
            "an equal share. Beyond it the oldest, which most likely is idle, makes room for the",
            "newest.",
        ],
    },
    Key {
        section: "keys",
        name: "rotate",
        sample: "\"self\"",
        is_default: true,
        help: &[
            "Who makes new master keys. \"self\": timeball. \"external\": another program replaces",
            "ntskeys in the state directory; it is looked at every second and never written.",
        ],
    },
    Key {
        section: "keys",
        name: "rotate_every",
        sample: "\"7 days\"",
        is_default: true,
        help: &[
            "How often a new master key is made, \"1 hour\" to \"366 days\", or seconds. A cookie",
            "lives for two to three of these; a client that sleeps longer has to fetch new ones.",
        ],
    },
    Key {
        section: "control",
        name: "socket",
        sample: "\"/run/timeball/control\"",
        is_default: false,
        help: &[
            "Unix socket of `timeball status`, `serverstats`, `reload` and `keys rotate`, of this",
            "user and group. Default: \"control\" in the state directory. For a group choose a",
            "directory that it may enter.",
        ],
    },
    Key {
        section: "control",
        name: "mode",
        sample: "\"0600\"",
        is_default: true,
        help: &[
            "Permissions of that socket: \"0660\" lets its group use it too. Whoever may use it",
            "can reload the configuration and rotate keys.",
        ],
    },
    Key {
        section: "observe",
        name: "listen",
        sample: "\"127.0.0.1:9975\"",
        is_default: false,
        help: &[
            "TCP address of the status page, of /metrics for Prometheus, /health and /api/status.",
            "There is no password: whoever reaches it sees how the server fares, no keys and no",
            "clients. So it should be a loopback address. Default: none, and nothing listens.",
        ],
    },
];

/// The sample file: every key with its help and its default, valid as it stands.
pub fn sample_file() -> String {
    let mut text = String::from(
        "# timeball configuration. Every key is here; a key that is commented out has no default\n\
         # or takes it from another.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            write!(text, "\n[{section}]").expect("writing to a string cannot fail");
        }
        text.push('\n');
        for line in key.help {
            writeln!(text, "# {line}").expect("writing to a string cannot fail");
        }
        let comment = if key.is_default { "" } else { "#" };
        writeln!(text, "{comment}{} = {}", key.name, key.sample)
            .expect("writing to a string cannot fail");
    }
    text
}

/// The key of `section` (or the section, for "") whose name is nearest to `name`, if any is near.
pub fn suggest(section: &str, name: &str) -> Option<&'static str> {
    let names = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let sections = KEYS.iter().map(|key| key.section).filter(|found| !found.is_empty());
    let candidates = names.chain(sections.filter(|_| section.is_empty()));
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Whether `name` is a key of `section`; a section's own name is one in front of all sections.
pub fn is_known(section: &str, name: &str) -> bool {
    KEYS.iter().any(|key| {
        (key.section == section && key.name == name) || (section.is_empty() && key.section == name)
    })
}
