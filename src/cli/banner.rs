//! What `timeball serve` prints once it serves: what runs, and what to try next.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use time::macros::format_description;

use crate::aead::{Aead, Algorithm};
use crate::certificate::describe::Description;
use crate::clock::source::Source;
use crate::config::checked::{KeSettings, Settings, ntp_port};
use crate::net::PortChoice;

pub(super) struct Banner<'a> {
    pub(super) settings: &'a Settings,
    /// The certificate chain; empty without key establishment.
    pub(super) chain: &'a [Description],
    /// The processor of each worker.
    pub(super) cpus: &'a [usize],
    /// Processes of key establishment.
    pub(super) ke_processes: usize,
}

impl Display for Banner<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "timeball {} serves time", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "  NTP          udp {}", list(&self.settings.ntp_listen))?;
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        writeln!(out, "  workers      {}, on processor {}", cpus.len(), cpus.join(", "))?;
        let port = match self.settings.port {
            PortChoice::Auto => "mmsg (auto: io_uring measured no faster)",
            PortChoice::Mmsg => "mmsg (ntp.port says so)",
            PortChoice::Uring => "uring (ntp.port says so)",
        };
        writeln!(out, "  port         {port}")?;
        match &self.settings.ke {
            Some(ke) => self.key_establishment(out, ke)?,
            None => writeln!(out, "  NTS          off: the configuration names no certificate")?,
        }
        self.clock(out)?;
        if let Some(ke) = &self.settings.ke {
            self.next_steps(out, ke)?;
        }
        Ok(())
    }
}

impl Banner<'_> {
    fn key_establishment(&self, out: &mut Formatter<'_>, ke: &KeSettings) -> fmt::Result {
        let processes = match self.ke_processes {
            1 => "1 process".to_owned(),
            count => format!("{count} processes"),
        };
        writeln!(out, "  NTS-KE       tcp {}, {processes}", list(&ke.listen))?;
        let aead = Algorithm::AesSivCmac256;
        let backend = Aead::detect().backend();
        writeln!(out, "  AEAD         {} ({}), {backend} back end", aead.name(), aead.id())?;
        writeln!(out, "  certificate  {}", ke.certificates[0].certificate.display())?;
        if let Some(leaf) = self.chain.first() {
            let until = leaf
                .not_after
                .format(format_description!("[year]-[month]-[day]"))
                .map_err(|_| fmt::Error)?;
            writeln!(out, "               for {}, until {until}", leaf.names.join(", "))?;
        }
        for more in &ke.certificates[1..] {
            writeln!(out, "               {}", more.certificate.display())?;
        }
        let keys = self.settings.state_directory.join("ntskeys");
        writeln!(out, "  master keys  {}", keys.display())
    }

    fn clock(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let clock = &self.settings.clock;
        match clock.source {
            Source::Kernel => writeln!(
                out,
                "  clock        kernel: stratum {} while the kernel calls its clock synchronised",
                clock.stratum
            ),
            Source::Follow => {
                writeln!(out, "  clock        follows the daemon at {}", clock.followed())
            }
            Source::Local => writeln!(
                out,
                "  clock        local: this host's clock as it is, stratum {}; nobody vouches for\n\
                 \x20              it, so this is for trials and closed networks",
                clock.stratum
            ),
        }
    }

    fn next_steps(&self, out: &mut Formatter<'_>, ke: &KeSettings) -> fmt::Result {
        let host = self.host(ke);
        let ke_port = ke.listen[0].port();
        let port = ntp_port(&self.settings.ntp_listen);
        let certificate = ke.certificates[0].certificate.display();
        let query_host = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.clone(),
        };
        // A certificate that nobody else signed is its own anchor of trust.
        let is_own_anchor = self.chain.first().is_none_or(|leaf| leaf.is_self_issued);
        let (ca, trust) = if is_own_anchor {
            let trust = format!(" 'nosystemcert' 'ntstrustedcerts {certificate}'");
            (format!(" --ca {certificate}"), trust)
        } else {
            (String::new(), String::new())
        };
        writeln!(out, "Try in another terminal:")?;
        writeln!(out, "  {} query {query_host}:{ke_port}{ca}", program())?;
        writeln!(
            out,
            "  chronyd -x -Q -t 5 'user root' 'server {host} nts ntsport {ke_port} port {port} \
             iburst maxsamples 1'{trust}"
        )?;
        writeln!(out, "Ctrl-C ends it.")
    }

    /// How a client on this host calls the server: an address it listens on that the certificate
    /// names, else the certificate's first name.
    fn host(&self, ke: &KeSettings) -> String {
        let names = self.chain.first().map_or(&[][..], |leaf| &leaf.names);
        let addresses = ke.listen.iter().map(|address| match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        });
        let named =
            addresses.clone().map(|ip: IpAddr| ip.to_string()).find(|ip| names.contains(ip));
        named.or_else(|| names.first().cloned()).unwrap_or_else(|| {
            addresses.map(|ip| ip.to_string()).next().expect("at least one address is checked")
        })
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// How the user called this program, so that the line can be copied.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "timeball".to_owned())
}
