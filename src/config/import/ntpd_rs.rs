//! ntp.toml(5) as of ntpd-rs 1.9.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::{
    Access, Finding, Import, Verdict, changed, ignored, kept, listen, missing, set_certificates,
};
use crate::config::address::{parse_address, parse_network};
use crate::config::raw::ConfigError;
use crate::ke::negotiate::NtpServer;
use crate::limits::commands::{
    IMPORT_DIRECTIVE_COLUMNS, IMPORT_FOLLOWED_PORT, IMPORT_NTPD_RS_ROTATION,
    IMPORT_NTPD_RS_STALE_KEYS,
};
use crate::limits::{KE_CONNECTIONS_MAX, KE_TIMEOUT_SECONDS, KEY_ROTATION, NTP_PORT, NTS_KE_PORT};

/// Turns an ntpd-rs that serves time into a timeball, which serves beside it. ntpd-rs goes on
/// keeping the clock.
///
/// # Errors
/// [`ConfigError`]: the text is no TOML.
pub fn import(text: &str, file: &str) -> Result<Import, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::from_toml(text, &error))?;
    let mut server = Server::default();
    let mut import = Import::default();
    visit(table.get_ref(), "", &mut |path, key, value| {
        let (fate, why) = server.take(path, value);
        let line = text[..key.start].matches('\n').count() + 1;
        let written = text[value.span()].lines().next().unwrap_or_default();
        let directive = shortened(format!("{path} = {written}"));
        import.findings.push(Finding { place: format!("{file}:{line}"), directive, fate, why });
    });
    // The parser sorts keys; a reader looks for them in the order of the file.
    import.findings.sort_by_key(|finding| line_of(&finding.place));
    server.finish(&mut import);
    Ok(import)
}

fn line_of(place: &str) -> usize {
    place.rsplit(':').next().and_then(|line| line.parse().ok()).unwrap_or_default()
}

/// Every value that is no table, with its path and the place of its key.
fn visit(
    table: &DeTable<'_>,
    path: &str,
    look: &mut impl FnMut(&str, std::ops::Range<usize>, &Spanned<DeValue<'_>>),
) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        match value.get_ref() {
            DeValue::Table(inner) => visit(inner, &path, look),
            DeValue::Array(items) if is_of_tables(items) => {
                for item in items {
                    let DeValue::Table(inner) = item.get_ref() else { continue };
                    visit(inner, &path, look);
                }
            }
            _ => look(&path, key.span(), value),
        }
    }
}

fn is_of_tables(items: &DeArray<'_>) -> bool {
    !items.is_empty() && items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_)))
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(IMPORT_DIRECTIVE_COLUMNS) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The serving half of ntpd-rs, as far as it was read.
#[derive(Debug, Default)]
struct Server {
    listen: Vec<SocketAddr>,
    ke_listen: Vec<SocketAddr>,
    certificates: Vec<String>,
    keys: Vec<String>,
    timeout_seconds: Option<f64>,
    connections: Option<i64>,
    ntp_server: Option<String>,
    stale_keys: Option<u64>,
    rotation_seconds: Option<u64>,
    access: Access,
}

impl Server {
    fn take(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Verdict {
        let value = value.get_ref();
        match path {
            "server.listen" => address(&mut self.listen, value, NTP_PORT, "ntp.listen"),
            "nts-ke-server.listen" => address(&mut self.ke_listen, value, NTS_KE_PORT, "ke.listen"),
            "nts-ke-server.certificate-chain-path" => {
                path_of_pair(&mut self.certificates, value, "ke.certificate")
            }
            "nts-ke-server.private-key-path" => path_of_pair(&mut self.keys, value, "ke.key"),
            "nts-ke-server.key-exchange-timeout-ms" => self.timeout(value),
            "nts-ke-server.concurrent-connections" => self.connections(value),
            "nts-ke-server.ntp-server" => self.ntp_server(value),
            "nts-ke-server.ntp-port" => {
                changed("clients are told the port of ntp.listen, and no other")
            }
            "keyset.stale-key-count" => {
                self.stale_keys = natural(value);
                changed("keys.rotate_every: so long that a cookie lives no shorter than before")
            }
            "keyset.key-rotation-interval" => {
                self.rotation_seconds = natural(value);
                changed("keys.rotate_every: so long that a cookie lives no shorter than before")
            }
            "keyset.key-storage-path" => missing(
                "cookies of ntpd-rs are of another form: clients that have one are told so once \
                 (NTS NAK) and fetch new ones",
            ),
            "server.require-nts" if value.as_bool() == Some(false) => {
                kept("timeball answers plain NTP, too")
            }
            "server.allowlist.filter" => self.access(value, true),
            "server.denylist.filter" => self.access(value, false),
            "server.allowlist.action" | "server.denylist.action" => match value.as_str() {
                Some("ignore") => kept("access: who is not answered meets silence"),
                _ => changed("access: who is not answered meets silence"),
            },
            path => by_table(path),
        }
    }

    /// The lists of all its addresses together.
    fn access(&mut self, value: &DeValue<'_>, is_allowed: bool) -> Verdict {
        let key = if is_allowed { "access.allow" } else { "access.deny" };
        let DeValue::Array(items) = value else { return no_value(key) };
        let networks: Option<Vec<_>> =
            items.iter().map(|item| item.get_ref().as_str().and_then(parse_network)).collect();
        let Some(networks) = networks else { return no_value(key) };
        for network in networks {
            self.access.add(network.trunc(), is_allowed);
        }
        changed(format!("{key}, for all addresses; of two networks the longer prefix decides"))
    }

    fn timeout(&mut self, value: &DeValue<'_>) -> Verdict {
        let Some(milliseconds) = natural(value) else { return no_value("ke.timeout_seconds") };
        let seconds = Duration::from_millis(milliseconds).as_secs_f64();
        let (min, max) = (*KE_TIMEOUT_SECONDS.start(), *KE_TIMEOUT_SECONDS.end());
        self.timeout_seconds = Some(seconds.clamp(min, max));
        match KE_TIMEOUT_SECONDS.contains(&seconds) {
            true => kept("ke.timeout_seconds"),
            false => changed("ke.timeout_seconds takes 0.1 to 60"),
        }
    }

    fn connections(&mut self, value: &DeValue<'_>) -> Verdict {
        match natural(value) {
            None | Some(0) => no_value("ke.connections_max"),
            Some(count) => {
                let max = KE_CONNECTIONS_MAX as u64;
                self.connections = Some(count.min(max) as i64);
                match count <= max {
                    true => kept("ke.connections_max"),
                    false => changed(format!("ke.connections_max takes {max} at the most")),
                }
            }
        }
    }

    fn ntp_server(&mut self, value: &DeValue<'_>) -> Verdict {
        let server = value.as_str().and_then(|name| name.parse::<NtpServer>().ok());
        self.ntp_server = server.map(|server| server.to_string());
        match self.ntp_server {
            Some(_) => kept("ke.ntp_server"),
            None => no_value("ke.ntp_server"),
        }
    }

    fn finish(self, import: &mut Import) {
        self.set_addresses(import);
        self.access.set(import);
        let pairs: Vec<(String, String)> = self.certificates.into_iter().zip(self.keys).collect();
        set_certificates(import, &pairs);
        if let Some(seconds) = self.timeout_seconds {
            import.set("ke", "timeout_seconds", seconds);
        }
        if let Some(connections) = self.connections {
            import.set("ke", "connections_max", connections);
        }
        if let Some(server) = self.ntp_server {
            import.set("ke", "ntp_server", server);
        }
        if self.stale_keys.is_some() || self.rotation_seconds.is_some() {
            // There a cookie lives for this many intervals at least, here for two.
            let interval = self.rotation_seconds.unwrap_or(IMPORT_NTPD_RS_ROTATION.as_secs());
            let life =
                interval.saturating_mul(self.stale_keys.unwrap_or(IMPORT_NTPD_RS_STALE_KEYS));
            let [min, max] = [KEY_ROTATION.start().as_secs(), KEY_ROTATION.end().as_secs()];
            import.set("keys", "rotate_every", life.div_ceil(2).clamp(min, max) as i64);
        }
        import.set("clock", "source", "follow");
        import.set("clock", "follow", format!("127.0.0.1:{IMPORT_FOLLOWED_PORT}"));
        import.steps.extend([
            format!(
                "In ntp.toml replace all [[server]] and [[nts-ke-server]] by one [[server]] with \
                 listen = \"127.0.0.1:{IMPORT_FOLLOWED_PORT}\": ntpd-rs goes on keeping the clock, \
                 and timeball asks it."
            ),
            "Restart ntpd-rs, then start timeball. docs/MIGRATION.md has it step by step."
                .to_owned(),
        ]);
    }

    /// All NTP addresses have one port here: that of the first.
    fn set_addresses(&self, import: &mut Import) {
        if let Some(first) = self.listen.first() {
            let (same, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
                self.listen.iter().partition(|address| address.port() == first.port());
            import.set("ntp", "listen", listen(same));
            for address in other {
                import.steps.push(format!(
                    "{address} was served too, but all addresses of timeball have one port: let a \
                     firewall redirect it, or do without it."
                ));
            }
        } else {
            import.steps.push(
                "There is no [[server]] in the file, so this ntpd-rs has served nobody. timeball \
                 answers everybody."
                    .to_owned(),
            );
        }
        if !self.ke_listen.is_empty() {
            import.set("ke", "listen", listen(self.ke_listen.iter().copied()));
        }
    }
}

fn address(list: &mut Vec<SocketAddr>, value: &DeValue<'_>, port: u16, key: &str) -> Verdict {
    match value.as_str().and_then(|text| parse_address(text, port)) {
        Some(address) if address.port() != 0 => {
            if !list.contains(&address) {
                list.push(address);
            }
            kept(key)
        }
        _ => no_value(key),
    }
}

fn path_of_pair(list: &mut Vec<String>, value: &DeValue<'_>, key: &str) -> Verdict {
    let Some(path) = value.as_str() else { return no_value(key) };
    let verdict = kept(if list.is_empty() { key } else { "ke.certificates" });
    list.push(path.to_owned());
    verdict
}

fn natural(value: &DeValue<'_>) -> Option<u64> {
    value.as_integer().and_then(|number| number.as_str().replace('_', "").parse().ok())
}

fn no_value(key: &str) -> Verdict {
    missing(format!("what stands there is no value for {key}"))
}

/// Keys that become none of ours, whatever their value.
fn by_table(path: &str) -> Verdict {
    let section = path.split('.').next().unwrap_or_default();
    match (section, path) {
        ("source" | "source-defaults" | "synchronization" | "clock", _) => ignored(
            "it is about keeping the clock, which ntpd-rs goes on doing; leave it in ntp.toml",
        ),
        ("observability", _) => ignored(
            "it is about ntpd-rs's own observation; timeball has metrics (observe.listen), with \
             ntpd-rs's names beside its own",
        ),
        (_, "server.rate-limiting-cache-size" | "server.rate-limiting-cutoff-ms") => changed(
            "rate_limit.requests_per_second and the keys beside it limit every client by default",
        ),
        (_, "server.require-nts") => missing("timeball answers plain NTP, too"),
        (_, "server.accept-ntp-versions" | "nts-ke-server.accept-ntp-versions") => {
            changed("timeball answers NTP versions 1 to 4")
        }
        ("nts-ke-server", _) => missing("timeball is no server of an NTS pool"),
        _ => missing("this version of timeball does not know it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Fate;
    use super::*;
    use crate::config::checked::{self, KeyRotation};

    const EXAMPLE: &str = r#"
[observability]
log-level = "info"

[[source]]
mode = "nts"
address = "time.example.net"

[[server]]
listen = "0.0.0.0:123"
rate-limiting-cutoff-ms = 1000
require-nts = false
[server.denylist]
filter = ["192.0.2.0/24"]
action = "ignore"

[[server]]
listen = "[::]:123"

[[server]]
listen = "127.0.0.1:1123"

[[nts-ke-server]]
listen = "0.0.0.0:4460"
certificate-chain-path = "/etc/ntpd-rs/chain.pem"
private-key-path = "/etc/ntpd-rs/key.pem"
key-exchange-timeout-ms = 1500
concurrent-connections = 512
ntp-server = "time.example.org"

[keyset]
key-rotation-interval = 86_400
key-storage-path = "/var/lib/ntpd-rs/keys"

[new]
thing = 1
"#;

    #[test]
    fn a_server_is_taken_over() {
        let import = import(EXAMPLE, "ntp.toml").expect("TOML");
        let file = import.text("ntp.toml");
        let settings = checked::parse(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
        assert_eq!(settings.ntp_listen, ["0.0.0.0:123", "[::]:123"].map(|it| it.parse().unwrap()));
        assert_eq!(settings.access.deny, ["192.0.2.0/24".parse().unwrap()]);
        let ke = settings.ke.expect("a certificate");
        assert_eq!((ke.timeout, ke.connections_max), (Duration::from_millis(1500), 512));
        assert_eq!(ke.ntp_server.map(|name| name.to_string()).as_deref(), Some("time.example.org"));
        // Seven stale keys of one day.
        let every = Duration::from_secs(7 * 86_400 / 2);
        assert_eq!(settings.rotation, KeyRotation::Every(every));
        assert_eq!(settings.clock.followed(), "127.0.0.1:11123 (NTP)");
        assert!(file.contains("127.0.0.1:1123 was served too"), "{file}");
    }

    #[test]
    fn every_key_has_its_fate_and_its_line() {
        let import = import(EXAMPLE, "ntp.toml").expect("TOML");
        let fates: Vec<(&str, Fate)> = import
            .findings()
            .iter()
            .map(|finding| (finding.directive.split(' ').next().unwrap(), finding.fate))
            .collect();
        let expected = [
            ("observability.log-level", Fate::Ignored),
            ("source.mode", Fate::Ignored),
            ("source.address", Fate::Ignored),
            ("server.listen", Fate::Kept),
            ("server.rate-limiting-cutoff-ms", Fate::Changed),
            ("server.require-nts", Fate::Kept),
            ("server.denylist.filter", Fate::Changed),
            ("server.denylist.action", Fate::Kept),
            ("server.listen", Fate::Kept),
            ("server.listen", Fate::Kept),
            ("nts-ke-server.listen", Fate::Kept),
            ("nts-ke-server.certificate-chain-path", Fate::Kept),
            ("nts-ke-server.private-key-path", Fate::Kept),
            ("nts-ke-server.key-exchange-timeout-ms", Fate::Kept),
            ("nts-ke-server.concurrent-connections", Fate::Kept),
            ("nts-ke-server.ntp-server", Fate::Kept),
            ("keyset.key-rotation-interval", Fate::Changed),
            ("keyset.key-storage-path", Fate::Missing),
            ("new.thing", Fate::Missing),
        ];
        assert_eq!(fates, expected);
        assert_eq!(import.findings()[0].place, "ntp.toml:3");
        assert_eq!(import.findings()[6].directive, "server.denylist.filter = [\"192.0.2.0/24\"]");
    }

    #[test]
    fn values_out_of_range_are_brought_into_it_or_named() {
        let imported = import(
            "[[nts-ke-server]]\nlisten = \"here\"\nkey-exchange-timeout-ms = 1\n\
             concurrent-connections = 0\n[keyset]\nstale-key-count = 1\nkey-rotation-interval = 60",
            "ntp.toml",
        )
        .expect("TOML");
        let fates: Vec<Fate> = imported.findings().iter().map(|finding| finding.fate).collect();
        let (missing, changed) = (Fate::Missing, Fate::Changed);
        assert_eq!(fates, [missing, changed, missing, changed, changed]);
        let settings = checked::parse(&imported.text("ntp.toml")).expect("good");
        assert_eq!(settings.rotation, KeyRotation::Every(*KEY_ROTATION.start()));
        assert_eq!(import("[", "ntp.toml").expect_err("no TOML").line, 1);
    }
}
