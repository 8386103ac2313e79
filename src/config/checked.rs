//! The configuration as it holds: every value in range, every default filled in.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::access::{self, AccessSettings};
use super::address::{address, addresses, wildcards};
use super::clock::{self, ClockSettings};
use super::hardware::{self, StampingInterfaces};
pub use super::ke::{KeSettings, PairFiles};
use super::log::{self, LogSettings};
pub use super::raw::Profile;
use super::raw::{self, ConfigError, Raw};
use super::{cpus, interleaved, ke, rate_limit};
use crate::engine::rate::RateLimits;
use crate::limits::{
    BUSY_POLL_APPLIANCE, BUSY_POLL_MICROSECONDS, CONTROL_MODE_DEFAULT, KEY_ROTATION,
    KEY_ROTATION_DEFAULT, NTP_PORT, OBSERVE_PORT, SOCKET_BUFFER_BYTES, WORKERS_MAX,
};
use crate::net::PortChoice;
use crate::sys::socket::UdpOptions;

/// All settings of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where master keys are kept.
    pub state_directory: PathBuf,
    /// What the machine is for.
    pub profile: Profile,
    /// UDP addresses, at least one.
    pub ntp_listen: Vec<SocketAddr>,
    /// How their sockets are.
    pub udp: UdpOptions,
    /// Interfaces whose own timestamps are used.
    pub hardware_timestamps: StampingInterfaces,
    /// Who answers there.
    pub workers: WorkerSettings,
    /// How datagrams come and go.
    pub port: PortChoice,
    /// Who is answered.
    pub access: AccessSettings,
    /// How often.
    pub rates: RateLimits,
    /// Pairs of timestamps that each worker keeps for interleaved mode; 0 switches it off.
    pub interleaved_entries: usize,
    /// Workers count the networks that ask most.
    pub count_networks: bool,
    /// Where the time comes from.
    pub clock: ClockSettings,
    /// Key establishment; without it the server answers plain NTP only.
    pub ke: Option<KeSettings>,
    /// When master keys are replaced.
    pub rotation: KeyRotation,
    /// Where commands come from.
    pub control: ControlSettings,
    /// TCP address of the status page and the metrics; none unless asked for.
    pub observe_listen: Option<SocketAddr>,
    /// What is logged.
    pub log: LogSettings,
    /// How the processes are confined.
    pub sandbox: Sandbox,
    /// Whom the roles run as when timeball is started as root, a name or a number.
    pub user: Option<String>,
}

/// How processes are confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// As far as the kernel can: without landlock there is a warning.
    #[default]
    Available,
    /// Wholly, or the server does not start.
    Strict,
    /// Not at all.
    Off,
}

impl Settings {
    /// Path of the control socket.
    pub fn control_socket(&self) -> PathBuf {
        let socket = self.control.socket.clone();
        socket.unwrap_or_else(|| default_control_socket(&self.state_directory))
    }
}

/// Path of the control socket of a server that keeps its keys in `state_directory`.
pub fn default_control_socket(state_directory: &Path) -> PathBuf {
    state_directory.join("control")
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// Its path; by default in the state directory.
    pub socket: Option<PathBuf>,
    /// Its permissions.
    pub mode: u32,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { socket: None, mode: CONTROL_MODE_DEFAULT }
    }
}

/// Who makes new master keys, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    /// We do, this often.
    Every(Duration),
    /// Another program does, and replaces the key file.
    External,
}

impl Default for KeyRotation {
    fn default() -> Self {
        Self::Every(KEY_ROTATION_DEFAULT)
    }
}

/// The worker threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerSettings {
    /// How many; by default as many as processors.
    pub count: Option<usize>,
    /// Their processors; by default all that the process may run on.
    pub cpus: Option<Vec<usize>>,
}

impl WorkerSettings {
    /// The processor of each worker, of those that are `available`. More workers than processors
    /// start again at the first.
    pub fn place(&self, available: &[usize]) -> Result<Vec<usize>, UnavailableCpu> {
        let cpus = self.cpus.as_deref().unwrap_or(available);
        if let Some(&cpu) = cpus.iter().find(|cpu| !available.contains(cpu)) {
            return Err(UnavailableCpu { cpu, available: available.to_vec() });
        }
        let count = self.count.unwrap_or(cpus.len()).min(WORKERS_MAX);
        Ok(cpus.iter().copied().cycle().take(count).collect())
    }
}

/// A processor that the workers cannot run on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "processor {cpu} of ntp.cpus is not among those that this process may run on ({available:?}); \
     correct the list, or the limits that systemd or taskset set"
)]
pub struct UnavailableCpu {
    cpu: usize,
    available: Vec<usize>,
}

/// The port that key establishment names: that of the first NTP address.
pub fn ntp_port(ntp: &[SocketAddr]) -> u16 {
    ntp.first().map_or(NTP_PORT, SocketAddr::port)
}

/// Reads and checks a configuration text.
pub fn parse(text: &str) -> Result<Settings, ConfigError> {
    check(text, raw::parse(text)?)
}

fn check(text: &str, raw: Raw) -> Result<Settings, ConfigError> {
    let ntp_listen = match &raw.ntp.listen {
        Some(list) => addresses(text, list, NTP_PORT)?,
        None => wildcards(NTP_PORT),
    };
    if let Some(list) = &raw.ntp.listen
        && ntp_listen.iter().any(|address| address.port() != ntp_listen[0].port())
    {
        let what = "all addresses must have the same port: key establishment names one".to_owned();
        return Err(ConfigError::at(text, list, what));
    }
    let clock = clock::check(text, &raw.clock, &raw.leap, &ntp_listen)?;
    let log = log::check(text, &raw.log, &clock)?;
    let profile = raw.profile.unwrap_or_default();
    Ok(Settings {
        state_directory: raw.state_directory.clone().unwrap_or_else(|| "/var/lib/timeball".into()),
        profile,
        ntp_listen,
        udp: udp(text, &raw.ntp, profile)?,
        hardware_timestamps: hardware::check(text, &raw.ntp)?,
        workers: workers(text, &raw.ntp)?,
        port: raw.ntp.port.unwrap_or_default(),
        access: access::check(text, &raw.access)?,
        rates: rate_limit::check(text, &raw.rate_limit)?,
        interleaved_entries: interleaved::entries(text, &raw.interleaved)?,
        count_networks: raw.ntp.count_networks.unwrap_or(false),
        clock,
        ke: ke::check(text, &raw.ke)?,
        rotation: rotation(text, &raw.keys)?,
        control: control(text, &raw.control)?,
        observe_listen: observe_listen(text, &raw.observe)?,
        log,
        sandbox: raw.sandbox.map_or(Sandbox::Available, raw::RawSandbox::checked),
        user: raw.user,
    })
}

fn rotation(text: &str, raw: &raw::RawKeys) -> Result<KeyRotation, ConfigError> {
    let Some(every) = &raw.rotate_every else {
        return Ok(match raw.rotate {
            Some(raw::Rotate::External) => KeyRotation::External,
            _ => KeyRotation::default(),
        });
    };
    let interval = interval(every, &KEY_ROTATION).ok_or_else(|| {
        let what = "rotate_every must be a time from \"1 hour\" to \"366 days\", or its seconds";
        ConfigError::at(text, every, what.to_owned())
    })?;
    Ok(match raw.rotate {
        Some(raw::Rotate::External) => KeyRotation::External,
        _ => KeyRotation::Every(interval),
    })
}

/// A time within `range`.
pub(super) fn interval(
    raw: &Spanned<raw::Interval>,
    range: &RangeInclusive<Duration>,
) -> Option<Duration> {
    let interval = match raw.get_ref() {
        raw::Interval::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
        raw::Interval::Text(interval) => humantime::parse_duration(interval).ok(),
    };
    interval.filter(|interval| range.contains(interval))
}

fn control(text: &str, raw: &raw::RawControl) -> Result<ControlSettings, ConfigError> {
    let mode = match &raw.mode {
        None => CONTROL_MODE_DEFAULT,
        Some(mode) => u32::from_str_radix(mode.get_ref(), 8)
            .ok()
            .filter(|bits| bits & !0o770 == 0 && bits & 0o600 == 0o600)
            .ok_or_else(|| {
                let what = "mode must be permissions such as \"0600\" or, for a group, \"0660\"; \
                            others have none, since a reload is behind it";
                ConfigError::at(text, mode, what.to_owned())
            })?,
    };
    Ok(ControlSettings { socket: raw.socket.clone(), mode })
}

fn observe_listen(text: &str, raw: &raw::RawObserve) -> Result<Option<SocketAddr>, ConfigError> {
    raw.listen.as_ref().map(|item| address(text, item, OBSERVE_PORT)).transpose()
}

fn udp(text: &str, raw: &raw::RawNtp, profile: Profile) -> Result<UdpOptions, ConfigError> {
    if let Some(name) = &raw.bind_device
        && !is_interface_name(name.get_ref())
    {
        let what = "bind_device must be the name of one interface, as `ip link` shows it";
        return Err(ConfigError::at(text, name, what.to_owned()));
    }
    let number = |value: &Option<Spanned<i64>>, range: RangeInclusive<u32>, name, default| {
        let Some(value) = value else { return Ok(default) };
        u32::try_from(*value.get_ref()).ok().filter(|number| range.contains(number)).ok_or_else(
            || {
                let what = format!("{name} must be {} to {}", range.start(), range.end());
                ConfigError::at(text, value, what)
            },
        )
    };
    let can_poll = raw.port != Some(PortChoice::Uring);
    if let Some(place) = &raw.busy_poll_microseconds
        && *place.get_ref() != 0
        && !can_poll
    {
        let what = "busy_poll_microseconds needs port = \"mmsg\" or \"auto\"";
        return Err(ConfigError::at(text, place, what.to_owned()));
    }
    let busy_poll = match profile {
        Profile::Appliance if can_poll => BUSY_POLL_APPLIANCE.as_micros() as u32,
        _ => 0,
    };
    let (buffers, default) = (SOCKET_BUFFER_BYTES, UdpOptions::default());
    let (receive, send) = (default.receive_buffer_bytes, default.send_buffer_bytes);
    Ok(UdpOptions {
        bind_device: raw.bind_device.as_ref().map(|name| name.get_ref().clone()),
        busy_poll: Duration::from_micros(
            number(
                &raw.busy_poll_microseconds,
                BUSY_POLL_MICROSECONDS,
                "busy_poll_microseconds",
                busy_poll,
            )?
            .into(),
        ),
        hardware_stamps: hardware::check(text, raw)? != StampingInterfaces::None,
        dscp: number(&raw.dscp, 0..=63, "dscp", default.dscp.into())? as u8,
        receive_buffer_bytes: number(
            &raw.receive_buffer_bytes,
            buffers.clone(),
            "receive_buffer_bytes",
            receive,
        )?,
        send_buffer_bytes: number(&raw.send_buffer_bytes, buffers, "send_buffer_bytes", send)?,
    })
}

/// What the kernel takes for a name, netdevice(7): shorter than `IFNAMSIZ`, without what would make
/// it a path or two words.
pub(super) fn is_interface_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

fn workers(text: &str, raw: &raw::RawNtp) -> Result<WorkerSettings, ConfigError> {
    let count = raw.workers.as_ref();
    let count = count.map(|count| in_range(text, count, WORKERS_MAX, "workers"));
    let cpus = raw.cpus.as_ref().map(|list| {
        cpus::parse(list.get_ref()).ok_or_else(|| {
            let what = "cpus must be a list of processors such as \"2-7,10\", each named once";
            ConfigError::at(text, list, what.to_owned())
        })
    });
    Ok(WorkerSettings { count: count.transpose()?, cpus: cpus.transpose()? })
}

/// A count from 1 to `max`.
pub(super) fn in_range(
    text: &str,
    count: &Spanned<i64>,
    max: usize,
    name: &str,
) -> Result<usize, ConfigError> {
    let found = usize::try_from(*count.get_ref()).ok().filter(|count| (1..=max).contains(count));
    found.ok_or_else(|| ConfigError::at(text, count, format!("{name} must be 1 to {max}")))
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::super::sample::sample_file;
    use super::*;

    #[test]
    fn the_sample_file_holds_the_defaults() {
        assert_eq!(parse(&sample_file()), parse(""));
        for key in KEYS {
            assert!(sample_file().contains(&format!("{} = {}", key.name, key.sample)));
        }
    }

    /// With every comment taken off the keys, all of them are read.
    #[test]
    fn every_key_of_the_sample_file_is_read() {
        let all: String = sample_file()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => format!("{key}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let settings = parse(&all).expect("all keys are good");
        assert_eq!(settings.udp.bind_device.as_deref(), Some("eth0"));
        assert!(settings.ke.is_some());
        assert_eq!(settings.observe_listen, Some(([127, 0, 0, 1], OBSERVE_PORT).into()));
    }

    #[test]
    fn an_appliance_polls_where_it_can() {
        let busy_poll = |text: &str| parse(text).expect("good").udp.busy_poll;
        assert_eq!(busy_poll(""), Duration::ZERO);
        assert_eq!(busy_poll("profile = \"appliance\""), BUSY_POLL_APPLIANCE);
        let uring = "profile = \"appliance\"\n[ntp]\nport = \"uring\"";
        assert_eq!(busy_poll(uring), Duration::ZERO);
        let off = "profile = \"appliance\"\n[ntp]\nbusy_poll_microseconds = 0";
        assert_eq!(busy_poll(off), Duration::ZERO);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let message = |text: &str| parse(text).expect_err(text).to_string();
        assert_eq!(
            message("\n[ntp]\nlisen = []\n"),
            "line 3: unknown key \"lisen\" in [ntp]; did you mean \"listen\"?"
        );
        assert_eq!(message("[ntq]\n"), "line 1: unknown key \"ntq\"; did you mean \"ntp\"?");
        assert!(message("zebra = 1").ends_with("`timeball config example` prints all keys"));
        assert!(message("[ntp]\nlisten = [\"localhost:123\"]").starts_with("line 2: \"localhost"));
        assert!(message("[ntp]\nlisten = [\"[::1]:0\"]").contains("is no address"));
        assert!(message("[ntp]\nlisten = []").contains("1 to 64"));
        assert!(message("[ntp]\nlisten = [\"[::1]:1\", \"127.0.0.1:2\"]").contains("same port"));
        assert_eq!(message("[ntp]\nworkers = 0"), "line 2: workers must be 1 to 256");
        assert!(message("[ntp]\ncpus = \"1,1\"").contains("each named once"));
        assert!(message("[keys]\nrotate_every = \"1 min\"").starts_with("line 2: rotate_every"));
        assert!(message("[keys]\nrotate_every = 3599").contains("from \"1 hour\""));
        assert!(message("[keys]\nrotate_every = \"soon\"").contains("from \"1 hour\""));
        assert!(message("[keys]\nrotate_every = []").contains("expected a time such as"));
        assert!(message("[keys]\nrotate = \"never\"").starts_with("line 2: "));
        for mode in ["0666", "0060", "600x", ""] {
            let text = format!("[control]\nmode = \"{mode}\"");
            assert!(message(&text).starts_with("line 2: mode must be"), "{mode}");
        }
        for name in ["", "a/b", "two words", "sixteen-letters-"] {
            let text = format!("[ntp]\nbind_device = \"{name}\"");
            assert!(message(&text).starts_with("line 2: bind_device must be"), "{name}");
        }
        assert_eq!(message("[ntp]\ndscp = 64"), "line 2: dscp must be 0 to 63");
        assert_eq!(message("[ntp]\ndscp = -1"), "line 2: dscp must be 0 to 63");
        let buffer = "[ntp]\nsend_buffer_bytes = 536870913";
        assert_eq!(message(buffer), "line 2: send_buffer_bytes must be 4096 to 536870912");
        let polling = "[ntp]\nport = \"uring\"\nbusy_poll_microseconds = 50";
        assert!(message(polling).starts_with("line 3: busy_poll_microseconds needs port = "));
        let long = "[ntp]\nbusy_poll_microseconds = 1001";
        assert_eq!(message(long), "line 2: busy_poll_microseconds must be 0 to 1000");
        assert!(message("[ke\n").starts_with("line 1: "));
    }

    #[test]
    fn rotation_is_a_time_or_somebody_elses_business() {
        let rotation = |text: &str| parse(text).expect(text).rotation;
        let every = |seconds| KeyRotation::Every(Duration::from_secs(seconds));
        assert_eq!(rotation(""), every(7 * 86_400));
        assert_eq!(rotation("[keys]\nrotate_every = \"36h\""), every(36 * 3600));
        assert_eq!(rotation("[keys]\nrotate_every = 3600"), every(3600));
        assert_eq!(rotation("[keys]\nrotate = \"self\"\nrotate_every = \"1 day\""), every(86_400));
        assert_eq!(rotation("[keys]\nrotate = \"external\""), KeyRotation::External);
    }

    #[test]
    fn workers_are_placed_on_the_processors_that_there_are() {
        let place = |count, cpus: Option<&[usize]>| {
            let settings = WorkerSettings { count, cpus: cpus.map(<[usize]>::to_vec) };
            settings.place(&[0, 1, 4])
        };
        assert_eq!(place(None, None), Ok(vec![0, 1, 4]));
        assert_eq!(place(Some(2), None), Ok(vec![0, 1]));
        assert_eq!(place(Some(4), Some(&[4, 1])), Ok(vec![4, 1, 4, 1]));
        let error = place(None, Some(&[0, 2])).expect_err("2 is not there").to_string();
        assert!(error.starts_with("processor 2 of ntp.cpus"));
    }
}
