//! Every key of the configuration file, once.

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
            "interface set up for it (`timeball tune`). Default 0, in profile \"appliance\" 50.",
        ],
    },
    Key {
        section: "ntp",
        name: "hardware_timestamps",
        sample: "[\"eth0\"]",
        is_default: false,
        help: &[
            "Interfaces whose own clocks stamp requests and replies, at most 8, or \"*\" for all",
            "that can. Needs CAP_NET_ADMIN and /dev/ptp* at the start. Where something is missing,",
            "a line says so, and the kernel's timestamps are used. Default: none.",
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
        section: "ntp",
        name: "count_networks",
        sample: "false",
        is_default: true,
        help: &[
            "Count requests by the network that they come from, an IPv4 /24 or an IPv6 /48, for",
            "`timeball clients`, which shows those that asked most in the last 10 to 20 minutes.",
            "96 KiB a worker, whatever comes. Metrics and logs never name a network.",
        ],
    },
    Key {
        section: "access",
        name: "allow",
        sample: "[\"0.0.0.0/0\", \"::/0\"]",
        is_default: true,
        help: &[
            "Networks that are answered, by NTP and key establishment. Of all networks that a",
            "client's address lies in the longest prefix decides; if there is none, it is denied.",
            "Who is denied is met with silence, and over TCP with a reset.",
        ],
    },
    Key {
        section: "access",
        name: "deny",
        sample: "[\"192.0.2.0/24\", \"2001:db8::/32\"]",
        is_default: false,
        help: &["Networks that are not answered. Default: none."],
    },
    Key {
        section: "access",
        name: "allow_file",
        sample: "\"/etc/timeball/allow\"",
        is_default: false,
        help: &[
            "A file of more networks that are answered: one in each line, comments behind # or ;.",
            "With a file and without access.allow these alone are. Files are read at the start and",
            "at each reload. Default: none.",
        ],
    },
    Key {
        section: "access",
        name: "deny_file",
        sample: "\"/etc/timeball/deny\"",
        is_default: false,
        help: &["The same of networks that are not answered."],
    },
    Key {
        section: "rate_limit",
        name: "requests_per_second",
        sample: "64.0",
        is_default: true,
        help: &[
            "How often an IPv4 address or IPv6 /64 has an answer to plain NTP in the long run,",
            "from each worker; after a pause with what comes in two seconds at once. An IPv4 /24",
            "or an IPv6 /48 may have 16 times as much, an IPv6 /56 4 times. 0.0 for no limit, here",
            "and below.",
        ],
    },
    Key {
        section: "rate_limit",
        name: "nts_requests_per_second",
        sample: "64.0",
        is_default: true,
        help: &["The same for authentic NTS requests. Others, forged ones too, do not count here."],
    },
    Key {
        section: "rate_limit",
        name: "naks_per_second",
        sample: "4.0",
        is_default: true,
        help: &[
            "The same for NTS NAKs; all clients together get at most 8192 a second of a worker.",
        ],
    },
    Key {
        section: "rate_limit",
        name: "cookie_uses_per_second",
        sample: "0.5",
        is_default: true,
        help: &[
            "How often one cookie brings an answer, wherever it comes from; eight times at once.",
            "It is for those who repeat the request of somebody else.",
        ],
    },
    Key {
        section: "rate_limit",
        name: "leak",
        sample: "16",
        is_default: true,
        help: &[
            "One in so many requests beyond a limit is answered all the same, by chance, 1 to",
            "1024: for clients whose address somebody else puts on his requests.",
        ],
    },
    Key {
        section: "rate_limit",
        name: "kiss",
        sample: "false",
        is_default: true,
        help: &[
            "Whether a client beyond a limit is told so (kiss code RATE), by each worker once a",
            "second in the long run, eight times at once; with NTS such a kiss is authenticated.",
            "Else it is met with silence.",
        ],
    },
    Key {
        section: "rate_limit",
        name: "unlimited_clients",
        sample: "[\"127.0.0.0/8\", \"::1\"]",
        is_default: true,
        help: &["Networks and addresses without these limits, at most 64: this host by default."],
    },
    Key {
        section: "interleaved",
        name: "entries",
        sample: "16384",
        is_default: true,
        help: &[
            "Clients that each worker remembers for interleaved mode (RFC 9769; chrony's xleave),",
            "16 bytes each, up to 2097152. 0 switches the mode off.",
        ],
    },
    Key {
        section: "clock",
        name: "source",
        sample: "\"kernel\"",
        is_default: true,
        help: &[
            "Who answers for the time. \"kernel\": adjtimex says whether a time daemon keeps the",
            "system clock; if none does, clients are told so (leap 3, stratum 0). \"follow\": the",
            "daemon of this host is asked, by the keys \"chronyd\" and \"follow\", and clients",
            "are told what it says. \"local\": the system clock is served as it is, for closed",
            "networks and tests.",
        ],
    },
    Key {
        section: "clock",
        name: "stratum",
        sample: "3",
        is_default: false,
        help: &[
            "Stratum told to clients, 1 to 15. Default 3 with \"kernel\", since the stratum of its",
            "daemon is not known, and 10 with \"local\". With \"follow\" it is the daemon's.",
        ],
    },
    Key {
        section: "clock",
        name: "chronyd",
        sample: "\"127.0.0.1:323\"",
        is_default: false,
        help: &[
            "With source = \"follow\": where chronyd reports (tracking): its cmdport, or the",
            "path of its socket. Default 127.0.0.1:323, unless \"follow\" is given. For a path",
            "start timeball as root and after chronyd.",
        ],
    },
    Key {
        section: "clock",
        name: "follow",
        sample: "\"127.0.0.1:11123\"",
        is_default: false,
        help: &[
            "With source = \"follow\": where the time daemon of this host answers NTP. With",
            "\"chronyd\" it is held against the report; of other daemons (ntpd-rs, NTPsec) it is",
            "all there is. The daemon needs a port of its own, as `port 11123` in chrony.conf.",
        ],
    },
    Key {
        section: "clock",
        name: "holdover",
        sample: "\"1 hour\"",
        is_default: true,
        help: &[
            "How long the last word of a source that falls silent is good for, \"2 s\" to",
            "\"7 days\", or seconds. The error bound that clients are told grows meanwhile; then",
            "they are told leap 3 and stratum 0, until the source speaks again.",
        ],
    },
    Key {
        section: "clock",
        name: "leap_file",
        sample: "\"/usr/share/zoneinfo/leap-seconds.list\"",
        is_default: false,
        help: &[
            "List of leap seconds of IERS, NIST or tzdata: one is announced on its day even if the",
            "source does not. A file that is damaged or has expired announces nothing, and the",
            "status says so. It is read again when it changes. Default: none.",
        ],
    },
    Key {
        section: "leap",
        name: "smear",
        sample: "\"off\"",
        is_default: true,
        help: &[
            "\"linear\": leap seconds of clock.leap_file are not announced but spread evenly over",
            "the 24 hours from noon to noon of UTC around them, as Google and AWS do. Clients must",
            "not ask servers that do not smear besides. Refused while the source smears by itself.",
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
        name: "aeads",
        sample: "[15, 30]",
        is_default: true,
        help: &[
            "AEAD algorithms that are agreed to: 15 (AES-SIV-CMAC-256), which is mandatory, 17",
            "(AES-SIV-CMAC-512) and 30 (AES-128-GCM-SIV). A client gets the first of its own list",
            "that is in this one.",
        ],
    },
    Key {
        section: "ke",
        name: "compliant_128gcm",
        sample: "false",
        is_default: true,
        help: &[
            "What clients are that offer AEAD 30 and do not say which keys they use (record 1024).",
            "false: chrony 4.4 to 4.6, which derives them as for AEAD 15. true: compliant with",
            "RFC 8915. The requests of those that are the other get NTS NAKs.",
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
        section: "ke",
        name: "prefix_connections_max",
        sample: "256",
        is_default: true,
        help: &[
            "The same for one prefix of clients, an IPv4 /24 or an IPv6 /56. More are reset before",
            "their handshake. 0 for no limit.",
        ],
    },
    Key {
        section: "ke",
        name: "prefix_handshakes_per_second",
        sample: "50.0",
        is_default: true,
        help: &[
            "How often one prefix may come in the long run, to all processes together, each of",
            "which has an equal share; after a pause, with what comes in five seconds at once.",
            "Those that come oftener are reset before their handshake. 0.0 for no limit.",
        ],
    },
    Key {
        section: "ke",
        name: "unlimited_clients",
        sample: "[\"127.0.0.0/8\", \"::1\"]",
        is_default: true,
        help: &[
            "Networks and addresses without the two limits above, at most 64: this host, or a",
            "proxy or a network translator that many clients share.",
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
        section: "log",
        name: "directory",
        sample: "\"/var/log/timeball\"",
        is_default: true,
        help: &[
            "Where logs are written. A reload opens them anew, which logrotate has to ask for.",
        ],
    },
    Key {
        section: "log",
        name: "tracking",
        sample: "false",
        is_default: true,
        help: &[
            "Write tracking.log, in chrony's columns: a line for each correction of the clock that",
            "the followed daemon tells of, one a second at the most.",
        ],
    },
    Key {
        section: "log",
        name: "measurements",
        sample: "false",
        is_default: true,
        help: &[
            "Write measurements.log, in chrony's columns: a line an NTP reply (clock.follow),",
            "one a second; some 12 MB a day.",
        ],
    },
    Key {
        section: "log",
        name: "statistics",
        sample: "false",
        is_default: true,
        help: &[
            "Write statistics.log, in chrony's columns: a line for each 60 of these replies, with",
            "their offset, its rate and how far they scatter.",
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
