//! Section `ke`: key establishment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use arrayvec::ArrayVec;
use toml::Spanned;

use super::address::{addresses, networks, this_host, wildcards};
use super::checked::in_range;
use super::raw::{ConfigError, RawKe};
use crate::aead::Algorithm;
use crate::ke::admission::PrefixLimits;
use crate::ke::negotiate::NtpServer;
use crate::limits::clients::UNLIMITED_NETWORKS_MAX;
use crate::limits::{
    CERTIFICATE_PAIRS_MAX, KE_ALGORITHMS, KE_CONNECTIONS_DEFAULT, KE_CONNECTIONS_MAX,
    KE_PREFIX_CONNECTIONS_DEFAULT, KE_PREFIX_HANDSHAKES_PER_SECOND,
    KE_PREFIX_HANDSHAKES_PER_SECOND_DEFAULT, KE_PROCESSES_DEFAULT_MAX, KE_PROCESSES_MAX,
    KE_TIMEOUT_DEFAULT, KE_TIMEOUT_SECONDS, NTS_KE_PORT,
};

/// Key establishment.
#[derive(Clone, Debug, PartialEq)]
pub struct KeSettings {
    /// TCP addresses, at least one.
    pub listen: Vec<SocketAddr>,
    /// Certificates with their keys, at least one; the first is for clients that ask for no name
    /// or an unknown one.
    pub certificates: Vec<PairFiles>,
    /// How many processes; by default as many as processors, up to a limit.
    pub processes: Option<usize>,
    /// Server that clients are sent to (RFC 8915 section 4.1.7).
    pub ntp_server: Option<NtpServer>,
    /// Algorithms that are agreed to; AEAD 15 is one of them.
    pub aeads: Aeads,
    /// Clients that offer AEAD 30 without record 1024 are taken as compliant with RFC 8915.
    pub compliant_128gcm: bool,
    /// From accept to close.
    pub timeout: Duration,
    /// Connections open at one time, of all processes together.
    pub connections_max: usize,
    /// What one prefix may have of all processes together.
    pub prefix: PrefixLimits,
}

/// AEAD algorithms, each once.
pub type Aeads = ArrayVec<Algorithm, KE_ALGORITHMS>;

impl KeSettings {
    /// On these addresses, with these certificates, and with all defaults.
    pub fn new(listen: Vec<SocketAddr>, certificates: Vec<PairFiles>) -> Self {
        Self {
            listen,
            certificates,
            processes: None,
            ntp_server: None,
            aeads: aeads_default(),
            compliant_128gcm: false,
            timeout: KE_TIMEOUT_DEFAULT,
            connections_max: KE_CONNECTIONS_DEFAULT,
            prefix: PrefixLimits {
                handshakes_per_second: Some(KE_PREFIX_HANDSHAKES_PER_SECOND_DEFAULT),
                connections: Some(KE_PREFIX_CONNECTIONS_DEFAULT),
                unlimited: this_host(),
            },
        }
    }

    /// The processes to start on a host with `cpus` processors.
    pub fn processes(&self, cpus: usize) -> usize {
        self.processes.unwrap_or(cpus.clamp(1, KE_PROCESSES_DEFAULT_MAX))
    }
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// AEAD 17 is left out: its cookies are longer, and its keys longer than any that seal a cookie.
fn aeads_default() -> Aeads {
    [Algorithm::AesSivCmac256, Algorithm::Aes128GcmSiv].into_iter().collect()
}

/// None without a certificate.
pub(super) fn check(text: &str, raw: &RawKe) -> Result<Option<KeSettings>, ConfigError> {
    let certificates = certificates(text, raw)?;
    if certificates.is_empty() {
        return Ok(None);
    }
    let listen = match &raw.listen {
        Some(list) => addresses(text, list, NTS_KE_PORT)?,
        None => wildcards(NTS_KE_PORT),
    };
    let mut settings = KeSettings::new(listen, certificates);
    if let Some(count) = &raw.processes {
        settings.processes = Some(in_range(text, count, KE_PROCESSES_MAX, "processes")?);
    }
    if let Some(name) = &raw.ntp_server {
        settings.ntp_server = Some(ntp_server(text, name)?);
    }
    if let Some(list) = &raw.aeads {
        settings.aeads = aeads(text, list)?;
    }
    settings.compliant_128gcm = raw.compliant_128gcm.unwrap_or(settings.compliant_128gcm);
    if let Some(seconds) = &raw.timeout_seconds {
        if !KE_TIMEOUT_SECONDS.contains(seconds.get_ref()) {
            let what = "timeout_seconds must be 0.1 to 60".to_owned();
            return Err(ConfigError::at(text, seconds, what));
        }
        settings.timeout = Duration::from_secs_f64(*seconds.get_ref());
    }
    if let Some(max) = &raw.connections_max {
        settings.connections_max = in_range(text, max, KE_CONNECTIONS_MAX, "connections_max")?;
    }
    prefix(text, raw, &mut settings.prefix)?;
    Ok(Some(settings))
}

/// Zero is no limit.
fn prefix(text: &str, raw: &RawKe, limits: &mut PrefixLimits) -> Result<(), ConfigError> {
    if let Some(rate) = &raw.prefix_handshakes_per_second {
        let number = *rate.get_ref();
        if number != 0.0 && !KE_PREFIX_HANDSHAKES_PER_SECOND.contains(&number) {
            let what = "prefix_handshakes_per_second must be from one a minute (0.017) to \
                        1000000, or 0 for no limit";
            return Err(ConfigError::at(text, rate, what.to_owned()));
        }
        limits.handshakes_per_second = Some(number).filter(|number| *number > 0.0);
    }
    if let Some(max) = &raw.prefix_connections_max {
        limits.connections = match max.get_ref() {
            0 => None,
            _ => Some(in_range(text, max, KE_CONNECTIONS_MAX, "prefix_connections_max")?),
        };
    }
    if let Some(list) = &raw.unlimited_clients {
        limits.unlimited = networks(text, list, "unlimited_clients", UNLIMITED_NETWORKS_MAX)?;
    }
    Ok(())
}

fn aeads(text: &str, list: &Spanned<Vec<Spanned<i64>>>) -> Result<Aeads, ConfigError> {
    let mut aeads = Aeads::new();
    for item in list.get_ref() {
        let id = u16::try_from(*item.get_ref()).ok();
        let algorithm = id.and_then(Algorithm::from_id).filter(|found| !aeads.contains(found));
        aeads.push(algorithm.ok_or_else(|| {
            let what = "aeads takes 15, 17 and 30, each once".to_owned();
            ConfigError::at(text, item, what)
        })?);
    }
    if !aeads.contains(&Algorithm::AesSivCmac256) {
        let what = "aeads needs 15: every NTS server has to have it (RFC 8915 section 5.1)";
        return Err(ConfigError::at(text, list, what.to_owned()));
    }
    Ok(aeads)
}

/// The pair of `certificate` and `key`, then those of `certificates`.
fn certificates(text: &str, raw: &RawKe) -> Result<Vec<PairFiles>, ConfigError> {
    let mut pairs = Vec::new();
    match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => pairs.push(PairFiles {
            certificate: certificate.get_ref().clone(),
            key: key.get_ref().clone(),
        }),
        (None, None) => {}
        (Some(alone), None) => {
            let what = "certificate needs its key: add key = \"FILE\"".to_owned();
            return Err(ConfigError::at(text, alone, what));
        }
        (None, Some(alone)) => {
            let what = "key needs its certificate: add certificate = \"FILE\"".to_owned();
            return Err(ConfigError::at(text, alone, what));
        }
    }
    if let Some(list) = &raw.certificates {
        pairs.extend(list.get_ref().iter().map(|pair| PairFiles {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
        }));
        if pairs.len() > CERTIFICATE_PAIRS_MAX {
            let what = format!("there can be {CERTIFICATE_PAIRS_MAX} certificates at the most");
            return Err(ConfigError::at(text, list, what));
        }
    }
    Ok(pairs)
}

fn ntp_server(text: &str, name: &Spanned<String>) -> Result<NtpServer, ConfigError> {
    name.get_ref().parse().map_err(|error| ConfigError::at(text, name, format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::super::checked::parse;
    use super::*;

    const PAIR: &str = "[ke]\ncertificate = \"a\"\nkey = \"b\"\n";

    fn settings(more: &str) -> KeSettings {
        parse(&format!("{PAIR}{more}")).expect(more).ke.expect("a certificate")
    }

    fn message(more: &str) -> String {
        parse(&format!("{PAIR}{more}")).expect_err(more).to_string()
    }

    #[test]
    fn every_key_of_the_sample_file_is_read() {
        let all = super::super::sample::sample_file().replace("\n#", "\n").replace("\n ", "\n# ");
        let ke = parse(&all).expect("all keys are good").ke.expect("certificate and key are there");
        assert_eq!(ke.ntp_server.map(|name| name.to_string()).as_deref(), Some("time.example.org"));
        assert_eq!((ke.certificates.len(), ke.processes), (2, Some(2)));
        let sample = KeSettings { processes: None, ntp_server: None, ..settings("") };
        assert_eq!((ke.timeout, ke.connections_max), (sample.timeout, sample.connections_max));
        assert_eq!((ke.aeads, ke.compliant_128gcm), (sample.aeads, sample.compliant_128gcm));
        assert_eq!(ke.prefix, sample.prefix);
    }

    #[test]
    fn aead_15_cannot_be_left_out() {
        assert_eq!(settings("aeads = [15]").aeads.as_slice(), [Algorithm::AesSivCmac256]);
        assert_eq!(settings("aeads = [30, 17, 15]").aeads.len(), 3);
        for wrong in ["[]", "[30]", "[17, 30]"] {
            let message = message(&format!("aeads = {wrong}"));
            assert!(message.starts_with("line 4: aeads needs 15"), "{wrong}: {message}");
        }
        for wrong in ["[15, 16]", "[15, 15]", "[15, -1]", "[15, 65551]"] {
            assert_eq!(
                message(&format!("aeads = {wrong}")),
                "line 4: aeads takes 15, 17 and 30, each once"
            );
        }
        assert!(settings("compliant_128gcm = true").compliant_128gcm);
    }

    #[test]
    fn zero_takes_a_limit_of_prefixes_away() {
        let none = settings(
            "prefix_connections_max = 0\nprefix_handshakes_per_second = 0.0\n\
             unlimited_clients = []",
        );
        assert_eq!(none.prefix, PrefixLimits::default());
        let some = settings(
            "prefix_connections_max = 3\nprefix_handshakes_per_second = 0.5\n\
             unlimited_clients = [\"192.0.2.0/24\", \"2001:db8::1\"]",
        );
        let unlimited = ["192.0.2.0/24", "2001:db8::1/128"].map(|text| text.parse().unwrap());
        let (handshakes_per_second, connections) = (Some(0.5), Some(3));
        let limits =
            PrefixLimits { handshakes_per_second, connections, unlimited: unlimited.into() };
        assert_eq!(some.prefix, limits);
        for (wrong, expected) in [
            ("prefix_connections_max = -1", "prefix_connections_max must be 1 to 65536"),
            ("prefix_handshakes_per_second = -1.0", "prefix_handshakes_per_second must be"),
            ("prefix_handshakes_per_second = 0.01", "prefix_handshakes_per_second must be"),
            ("unlimited_clients = [\"lan\"]", "\"lan\" is no network; write"),
        ] {
            let message = message(wrong);
            assert!(message.starts_with(&format!("line 4: {expected}")), "{wrong}: {message}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let message = |text: &str| parse(text).expect_err(text).to_string();
        assert!(message("[ke]\nkey = \"a\"").contains("certificate"));
        assert!(message("[ke]\ncertificate = \"a\"").contains("add key"));
        assert!(
            message("[ke]\nprocesses = 0\n[[ke.certificates]]\ncertificate = \"a\"\nkey = \"b\"")
                .starts_with("line 2: processes must be 1 to 64")
        );
        let alone = "[[ke.certificates]]\ncertificate = \"a\"";
        assert!(message(alone).starts_with("line 1: missing field `key`"), "{}", message(alone));
        let more = "[[ke.certificates]]\ncertificate = \"a\"\nkey = \"b\"\nname = \"c\"";
        assert!(message(more).contains("line 4: unknown field `name`"), "{}", message(more));
        let server = format!("{PAIR}ntp_server = \"fe80::1%lo\"");
        assert!(message(&server).starts_with("line 4: \"fe80::1%lo\" is neither"));
        let timeout = format!("{PAIR}timeout_seconds = 0.0");
        assert_eq!(message(&timeout), "line 4: timeout_seconds must be 0.1 to 60");
    }
}
