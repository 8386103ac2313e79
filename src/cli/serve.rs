//! `timeball serve`: everything from the command line to a running server.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use etcetera::BaseStrategy as _;
use time::{Duration, OffsetDateTime};

use super::banner::Banner;
use super::{EXIT_FAILURE, EXIT_USAGE, fail};
use crate::aead::NonceGenerator;
use crate::certificate::describe::{Description, describe};
use crate::certificate::{MakeError, WriteError, self_signed};
use crate::clock::source::{self, Source};
use crate::config::access::{AccessError, AccessSettings};
use crate::config::checked::{
    ControlSettings, KeSettings, KeyRotation, PairFiles, Profile, Sandbox, Settings,
    UnavailableCpu, WorkerSettings,
};
use crate::config::clock::{ChronydAddress, ClockSettings};
use crate::config::file::{self, FileError};
use crate::config::hardware::StampingInterfaces;
use crate::config::log::LogSettings;
use crate::config::rate_limit;
use crate::ke::tls::PairError;
use crate::limits::commands::{EMBEDDED_KE_PORT, EMBEDDED_NTP_PORT, EMBEDDED_OBSERVE_PORT};
use crate::limits::{CERTIFICATE_VALIDITY_DAYS, INTERLEAVED_ENTRIES_DEFAULT};
use crate::net::PortChoice;
use crate::process::certificates::Certificates;
use crate::process::chronyd_socket::ChronydSocket;
use crate::process::control::{Control, ControlError};
use crate::process::hardware::HardwareClocks;
use crate::process::key_keeper::{KeeperError, KeyKeeper};
use crate::process::leap_file::LeapFile;
use crate::process::log_files::{LogError, LogFiles};
use crate::process::pages::Pages;
use crate::process::sandbox::{Confinement, SandboxError};
use crate::process::service_manager;
use crate::process::sockets::{Addresses, SocketError, Sockets};
use crate::process::start::ResponderStart;
use crate::process::supervisor::{ServeError, Server};
use crate::sys::boottime::since_boot;
use crate::sys::inherited;
use crate::sys::socket::UdpOptions;

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Configuration file; `timeball config example` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without a configuration: listen on this address of the host too (0.0.0.0 and :: are all)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    listen: Vec<IpAddr>,
}

/// Why `timeball serve` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Config(#[from] FileError),
    #[error(
        "there is no home directory to keep keys in; set HOME or XDG_STATE_HOME, or give \
         --config FILE"
    )]
    NoHome,
    #[error(
        "cannot read the kernel's clock (adjtimex): {0}; allow the call, or give --config FILE \
         with another source"
    )]
    Clock(io::Error),
    #[error(
        "cannot make the state directory {}: {source}; `install -d -m 0700 -o USER {}` makes it \
         for the user that runs timeball",
        path.display(), path.display()
    )]
    StateDirectory { path: PathBuf, source: io::Error },
    #[error("the kernel gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Keys(#[from] KeeperError),
    #[error("cannot make the pages that processes share: {0}; allow memfd_create and mmap")]
    Pages(io::Error),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Certificate(#[from] PairError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    MakeCertificate(#[from] MakeError),
    #[error(transparent)]
    WriteCertificate(#[from] WriteError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Cpus(#[from] UnavailableCpu),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Access(_) | Self::Cpus(_) => EXIT_USAGE,
            _ => EXIT_FAILURE,
        }
    }
}

pub(super) fn run(arguments: &ServeArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error),
    }
}

/// In this order: systemd's sockets, settings and access lists, state directory, keys,
/// certificates, sockets, the control socket, pages, clocks of interfaces, the supervisor's
/// sandbox, roles. Nothing runs
/// and nothing is printed before all of it is there.
fn serve(arguments: &ServeArguments) -> Result<(), Error> {
    // First of all: their numbers are theirs only until something else is opened.
    let activated = service_manager::activated().map_err(SocketError::Activation)?;
    // An old kernel cannot; who started this program left nothing open, as a rule.
    let _ = inherited::keep_from_children();
    let settings = match &arguments.config {
        Some(file) => file::read(file)?,
        None => embedded(&arguments.listen)?,
    };
    let access = settings.access.read()?;
    make_state_directory(&settings.state_directory)?;
    let mut random = NonceGenerator::new().map_err(Error::Random)?;
    let key_random = NonceGenerator::new().map_err(Error::Random)?;
    let keys =
        KeyKeeper::open(&settings.state_directory, settings.rotation, key_random, since_boot())?;
    let ke = settings.ke.as_ref();
    let certificates = ke.map(|ke| Certificates::read(&ke.certificates)).transpose()?;
    let available = available_cpus();
    let cpus = settings.workers.place(&available)?;
    let udp = &settings.udp;
    let addresses = Addresses {
        ntp: &settings.ntp_listen,
        ke: ke.map_or(&[][..], |ke| &ke.listen),
        observe: settings.observe_listen,
    };
    let sockets = Sockets::open(addresses, udp, cpus.len(), activated)?;
    warn_of_capped_buffers(&sockets, udp);
    warn_of_lonely_polling(&sockets, udp);
    warn_of_open_observer(settings.observe_listen);
    steer(&sockets, &mut random);
    let ke_processes = ke.map_or(0, |ke| ke.processes(available.len()));
    let chain = first_chain(certificates.as_ref());
    let banner =
        Banner { settings: &settings, chain: &chain, cpus: &cpus, ke_processes }.to_string();
    let control = Control::open(&settings.control_socket(), settings.control.mode)?;
    let pages = Pages::create(keys, &access, cpus.len(), ke_processes, settings.count_networks)
        .map_err(Error::Pages)?;
    let responder = responder(&settings, cpus, sockets.nts_sockets());
    let hardware = HardwareClocks::prepare(&settings.hardware_timestamps);
    hardware.obstacles().iter().for_each(|it| eprintln!("timeball: warning: {it}"));
    let log_files = LogFiles::make(&settings.log)?;
    let confinement = Confinement::new(settings.sandbox, settings.user.as_deref())?;
    let chronyd = chronyd_socket(&settings.clock);
    confinement.confine_supervisor(
        &settings.state_directory,
        // The control socket is removed at the end, wherever it is.
        control.directory(),
        chronyd.as_ref().map(ChronydSocket::directory),
        log_files.as_ref().map(LogFiles::directory),
    )?;
    let server = Server {
        leap_file: leap_file(&settings.clock),
        settings,
        configuration: arguments.config.clone(),
        sockets,
        pages,
        access,
        control,
        chronyd,
        hardware,
        log_files,
        confinement,
        responder,
        certificates,
        ke_processes,
    };
    server.run(|| print!("{banner}"))?;
    Ok(())
}

/// The certificates that are shown to whoever asks for no name; none without key establishment.
fn first_chain(certificates: Option<&Certificates>) -> Vec<Description> {
    certificates
        .and_then(|certificates| certificates.texts().into_iter().next())
        .and_then(|pair| describe(pair.certificate_pem.as_bytes()).ok())
        .unwrap_or_default()
}

fn responder(settings: &Settings, cpus: Vec<usize>, nts_sockets: usize) -> ResponderStart {
    ResponderStart {
        cpus,
        nts_sockets,
        port: settings.port,
        busy_poll: settings.udp.busy_poll,
        hardware_timestamps: settings.udp.hardware_stamps,
        interleaved_entries: settings.interleaved_entries,
        rates: settings.rates.clone(),
    }
}

fn warn_of_lonely_polling(sockets: &Sockets, udp: &UdpOptions) {
    if !udp.busy_poll.is_zero() && !sockets.are_polled() {
        eprintln!(
            "timeball: warning: the kernel polls no interface for us (SO_PREFER_BUSY_POLL needs \
             CAP_NET_ADMIN); workers poll their sockets alone, which helps little; grant the \
             capability, or set ntp.busy_poll_microseconds = 0"
        );
    }
}

/// Reads the leap-seconds file, if there is one, and says what is wrong with it.
fn leap_file(clock: &ClockSettings) -> Option<LeapFile> {
    let file = LeapFile::read(clock.leap_file.as_deref()?);
    file.warn();
    Some(file)
}

/// Where chronyd is asked over its Unix socket.
fn chronyd_socket(clock: &ClockSettings) -> Option<ChronydSocket> {
    match &clock.chronyd {
        Some(ChronydAddress::Unix(path)) if clock.source == Source::Follow => {
            Some(ChronydSocket::new(path))
        }
        _ => None,
    }
}

/// The processors that this process may run on.
pub(super) fn available_cpus() -> Vec<usize> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if cpus.is_empty() { vec![0] } else { cpus.iter().map(|cpu| cpu.id).collect() }
}

fn warn_of_capped_buffers(sockets: &Sockets, options: &UdpOptions) {
    let caps = sockets.buffer_caps(options).unwrap_or_default();
    if caps.is_empty() {
        return;
    }
    let buffers: Vec<String> = caps
        .iter()
        .map(|cap| format!("ntp.{} at {} of {}", cap.key, cap.granted_bytes, cap.asked_bytes))
        .collect();
    let limits: Vec<String> =
        caps.iter().map(|cap| format!("{}={}", cap.sysctl, cap.asked_bytes)).collect();
    eprintln!(
        "timeball: warning: the kernel caps {}, and datagrams may be lost in bursts; as root, \
         `sysctl -w {}` lifts this before the next start",
        buffers.join(" and "),
        limits.join(" ")
    );
}

fn warn_of_open_observer(listen: Option<SocketAddr>) {
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback()) {
        eprintln!(
            "timeball: warning: observe.listen is {address}, where whoever reaches it sees how the \
             server fares; use 127.0.0.1, or let a firewall admit whom it is for"
        );
    }
}

fn steer(sockets: &Sockets, random: &mut NonceGenerator) {
    let mut multiplier = [0; 4];
    random.fill(&mut multiplier);
    if let Err(error) = sockets.steer(u32::from_ne_bytes(multiplier) | 1) {
        eprintln!(
            "timeball: warning: the kernel takes no steering program ({error}); the kernel \
             scatters each client over the workers"
        );
    }
}

/// Private to its owner: it holds the master keys.
fn make_state_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::StateDirectory { path: path.to_owned(), source })
}

/// The settings without a configuration file, and the files that they name: no privilege and no
/// file is needed.
fn embedded(listen: &[IpAddr]) -> Result<Settings, Error> {
    let settings = embedded_settings(listen)?;
    make_state_directory(&settings.state_directory)?;
    for pair in settings.ke.iter().flat_map(|ke| &ke.certificates) {
        embedded_certificate(pair, &embedded_addresses(listen))?;
    }
    Ok(settings)
}

/// The settings alone.
pub(super) fn embedded_settings(listen: &[IpAddr]) -> Result<Settings, Error> {
    let state_directory = home_state_directory().ok_or(Error::NoHome)?;
    let addresses = embedded_addresses(listen);
    let with_port = |port| addresses.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
    let certificate = state_directory.join("cert.pem");
    let key = state_directory.join("key.pem");
    Ok(Settings {
        state_directory,
        profile: Profile::default(),
        ntp_listen: with_port(EMBEDDED_NTP_PORT),
        udp: UdpOptions::default(),
        hardware_timestamps: StampingInterfaces::None,
        workers: WorkerSettings::default(),
        port: PortChoice::default(),
        access: AccessSettings::default(),
        rates: rate_limit::defaults(),
        interleaved_entries: INTERLEAVED_ENTRIES_DEFAULT,
        count_networks: false,
        clock: ClockSettings::of(source::suggest().map_err(Error::Clock)?),
        ke: Some(KeSettings::new(
            with_port(EMBEDDED_KE_PORT),
            vec![PairFiles { certificate, key }],
        )),
        rotation: KeyRotation::default(),
        control: ControlSettings::default(),
        observe_listen: Some((Ipv4Addr::LOCALHOST, EMBEDDED_OBSERVE_PORT).into()),
        log: LogSettings::default(),
        sandbox: Sandbox::default(),
        user: None,
    })
}

/// The state directory without a configuration file.
pub(super) fn home_state_directory() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.state_dir()?.join("timeball"))
}

/// The loopback addresses and those asked for. All addresses of a family take its others in.
fn embedded_addresses(listen: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for address in loopback.into_iter().chain(listen.iter().copied()) {
        let of_family = |all: &&IpAddr| all.is_ipv4() == address.is_ipv4() && all.is_unspecified();
        let address = listen.iter().find(of_family).copied().unwrap_or(address);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The self-signed certificate in the state directory: made when there is none, when it expires
/// soon, or when it does not name an address that is listened on.
fn embedded_certificate(pair: &PairFiles, addresses: &[IpAddr]) -> Result<(), Error> {
    let PairFiles { certificate, key } = pair;
    let mut names = vec!["localhost".to_owned()];
    names.extend([Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]);
    names.extend(addresses.iter().filter(|ip| !ip.is_unspecified()).map(IpAddr::to_string));
    if addresses.iter().any(|address| !address.is_loopback()) {
        names.extend(rustix::system::uname().nodename().to_str().ok().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    let now = OffsetDateTime::now_utc();
    let good = |found: &Description| {
        found.not_after > now + Duration::days(1)
            && names.iter().all(|name| found.names.contains(name))
    };
    let kept = fs::read(certificate).ok().and_then(|pem| describe(&pem).ok());
    let keep = key.exists() && kept.is_some_and(|chain| chain.first().is_some_and(good));
    if !keep {
        let validity = Duration::days(CERTIFICATE_VALIDITY_DAYS.into());
        self_signed(&names, validity, now)?.write(certificate, key, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_widens_the_loopback_addresses() {
        let addresses = |texts: &[&str]| {
            let listen: Vec<IpAddr> =
                texts.iter().map(|text| text.parse().expect("an address")).collect();
            let found = embedded_addresses(&listen);
            found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(addresses(&[]), "127.0.0.1 ::1");
        assert_eq!(addresses(&["192.0.2.1"]), "127.0.0.1 ::1 192.0.2.1");
        assert_eq!(addresses(&["0.0.0.0"]), "0.0.0.0 ::1");
        assert_eq!(addresses(&["::", "192.0.2.1"]), "127.0.0.1 :: 192.0.2.1");
    }
}
